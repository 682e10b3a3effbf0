//! Metrics over HTTP, for whoever is on this machine: `GET /metrics`, and nothing else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// Gives the text of this moment; `None` if it cannot be had.
pub type Text = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Option<String>> + Send>> + Send + Sync>;

/// Connections at a time: two scrapers and somebody who looks. More wait to be accepted.
const MAX_CONNECTIONS: usize = 8;

/// How long a connection may take from its first byte to its last: a scraper gives up after ten seconds, as a rule.
const CONNECTION_WITHIN: Duration = Duration::from_secs(10);

/// Serves until told to stop. What is under way then is cut off: a scraper tries again.
pub async fn serve(listener: TcpListener, text: Text, stop: CancellationToken) {
    let app = Router::new().fallback(move |method: Method, uri: Uri| {
        let text = Arc::clone(&text);
        async move { answer(&method, &uri, &text).await }
    });
    let bounded = Bounded {
        listener,
        free: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        // It ends with its listener, which never ends.
        _ended = axum::serve(bounded, app).into_future() => {}
    }
}

async fn answer(method: &Method, uri: &Uri, text: &Text) -> Response {
    // One answer a connection: its time is not spent waiting for another request.
    let close = (CONNECTION, "close");
    if method != Method::GET || uri.path() != "/metrics" {
        return (
            StatusCode::NOT_FOUND,
            [close],
            "GET /metrics is all there is\n",
        )
            .into_response();
    }
    match text().await {
        Some(text) => ([close, (CONTENT_TYPE, super::CONTENT_TYPE)], text).into_response(),
        None => {
            let what = "the mirror cannot be read: see the log\n";
            (StatusCode::SERVICE_UNAVAILABLE, [close], what).into_response()
        }
    }
}

/// A listener with so many places.
struct Bounded {
    listener: TcpListener,
    free: Arc<Semaphore>,
}

impl axum::serve::Listener for Bounded {
    type Io = Line;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Line, SocketAddr) {
        // The semaphore is never closed.
        let place = Arc::clone(&self.free).acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    let end = Box::pin(tokio::time::sleep(CONNECTION_WITHIN));
                    let line = Line {
                        stream,
                        end,
                        _place: place,
                    };
                    return (line, address);
                }
                Err(error) => {
                    // Out of file descriptors, as a rule: it passes.
                    debug!(%error, "cannot accept a scraper");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in time, and then gives its place back.
struct Line {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Line {
    /// Fails once the time is over. Whoever polls is woken then.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn served() -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let text: Text = Arc::new(|| Box::pin(async { Some("# EOF\n".to_owned()) }));
        tokio::spawn(serve(listener, text, stop.clone()));
        (address, stop)
    }

    async fn asked(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // To the end of the connection: it is closed after one answer.
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_all_there_is() {
        let (address, stop) = served().await;
        let answer = asked(address, "GET /metrics").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
        assert!(answer.contains(kind), "{answer}");
        assert!(answer.ends_with("\r\n\r\n# EOF\n"), "{answer}");
        for other in [
            "GET /",
            "GET /metrics/",
            "POST /metrics",
            "HEAD /metrics",
            "GET /x",
        ] {
            let answer = asked(address, other).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{other}: {answer}");
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn who_says_nothing_is_hung_up_and_makes_room() {
        let (address, _stop) = served().await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // Nothing is due but the ends of the silent: the clock jumps there as soon as nobody has anything to do.
        tokio::time::pause();
        for stream in &mut silent {
            let mut byte = [0];
            let ended = tokio::time::timeout(2 * CONNECTION_WITHIN, stream.read(&mut byte));
            assert_eq!(ended.await.unwrap().unwrap(), 0, "hung up");
        }
        tokio::time::resume();
        assert!(asked(address, "GET /metrics").await.ends_with("# EOF\n"));
    }
}
