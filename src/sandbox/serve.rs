//! The simulated instance over HTTP/1.1: chunked bodies, gzip for who takes it, and connections that
//! break where a fault says so.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State, connect_info::Connected};
use axum::response::Response;
use axum::serve::IncomingStream;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::Sandbox;
use super::error::Refusal;
use super::message::{Delivery, Incoming, Reply};

/// More than any body that a client of a directory sends.
const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// How long requests that came before the end have to be answered.
const GRACE: Duration = Duration::from_secs(2);
/// How much goes out at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Answers on `listener` until told to stop.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    sandbox: Sandbox,
    cancel: CancellationToken,
) -> io::Result<()> {
    let stop = cancel.clone().cancelled_owned();
    let app = Router::new()
        .fallback(answer)
        .with_state(Served {
            sandbox,
            cancel: cancel.clone(),
        })
        .into_make_service_with_connect_info::<Line>();
    let server = axum::serve(Lines(listener), app).with_graceful_shutdown(stop);
    tokio::select! {
        ended = server => ended,
        () = overdue(cancel) => Ok(()),
    }
}

/// A client that never ends its request must not keep us.
async fn overdue(cancel: CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

#[derive(Clone)]
struct Served {
    sandbox: Sandbox,
    cancel: CancellationToken,
}

async fn answer(
    State(served): State<Served>,
    ConnectInfo(line): ConnectInfo<Line>,
    request: Request,
) -> Response {
    let (head, body) = request.into_parts();
    let zips = head
        .headers
        .get(ACCEPT_ENCODING)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("gzip"));
    let reply = match axum::body::to_bytes(body, MAX_BODY_BYTES).await {
        Ok(body) => served.sandbox.answer(&Incoming {
            method: head.method,
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head.headers,
            body,
        }),
        Err(_) => Refusal::platform(413, "Request entity too large", None).into(),
    };
    tokio::select! {
        biased;
        () = served.cancel.cancelled() => return line.hang_up().await,
        () = tokio::time::sleep(reply.delay) => {}
    }
    if reply.delivery == Delivery::Reset {
        return line.hang_up().await;
    }
    send(reply, zips, served.cancel)
}

fn send(reply: Reply, zips: bool, cancel: CancellationToken) -> Response {
    let zipped = match reply.delivery {
        Delivery::GzipBomb(megabytes) if zips => bomb(megabytes).ok(),
        _ => zips.then(|| gzip(&reply.body).ok()).flatten(),
    };
    let whole = reply.body.len().max(1);
    let is_zipped = zipped.is_some() && !reply.body.is_empty();
    let mut body = match zipped {
        Some(zipped) if is_zipped => zipped,
        _ => reply.body,
    };
    // Places in the body were given for the plain text.
    let at = |place: usize| place * body.len() / whole;
    let (end, cut) = match reply.delivery {
        Delivery::Cut(place) => (Some(End::Break), at(place)),
        Delivery::Stalled(place) => (Some(End::Stall), at(place)),
        // A trailer of eight bytes tells whether all is there.
        Delivery::GzipCut if is_zipped => (None, body.len().saturating_sub(8)),
        Delivery::GzipCut => (Some(End::Break), body.len().saturating_sub(1)),
        Delivery::Whole | Delivery::Drip(_) | Delivery::Reset | Delivery::GzipBomb(_) => {
            (None, body.len())
        }
    };
    body.truncate(cut);
    let (piece, pause) = match reply.delivery {
        Delivery::Drip(pause) => (1, Some(pause)),
        _ => (CHUNK_BYTES, None),
    };
    let body = if body.is_empty() && end.is_none() {
        Body::empty()
    } else {
        Body::new(Pieces {
            rest: body,
            piece,
            pause,
            sleep: None,
            end: end.into_iter().collect(),
            stop: Box::pin(cancel.cancelled_owned()),
        })
    };
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    if is_zipped {
        let gzip = HeaderValue::from_static("gzip");
        response.headers_mut().insert(CONTENT_ENCODING, gzip);
    }
    response
}

fn gzip(body: &[u8]) -> io::Result<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body)?;
    Ok(encoder.finish()?.into())
}

/// So many megabytes of blanks, as gzip: one compressed megabyte, again and again (RFC 1951 section 2.3,
/// RFC 1952).
fn bomb(megabytes: u32) -> io::Result<Bytes> {
    const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    const LAST_BLOCK: [u8; 2] = [3, 0];
    let blanks = vec![b' '; 1024 * 1024];
    let mut one = Vec::with_capacity(64 * 1024);
    // After a full flush nothing refers to what came before.
    flate2::Compress::new(flate2::Compression::fast(), false).compress_vec(
        &blanks,
        &mut one,
        flate2::FlushCompress::Full,
    )?;
    let mut one_sum = flate2::Crc::new();
    one_sum.update(&blanks);
    let mut sum = flate2::Crc::new();
    let mut body = HEADER.to_vec();
    for _ in 0..megabytes {
        body.extend_from_slice(&one);
        sum.combine(&one_sum);
    }
    body.extend_from_slice(&LAST_BLOCK);
    body.extend_from_slice(&sum.sum().to_le_bytes());
    body.extend_from_slice(&sum.amount().to_le_bytes());
    Ok(body.into())
}

/// A body without a length, in pieces, that may stop before its end.
struct Pieces {
    rest: Bytes,
    piece: usize,
    pause: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
    end: VecDeque<End>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
}

enum End {
    Break,
    Stall,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.stop.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(broken())));
        }
        if let Some(sleep) = &mut self.sleep {
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.sleep = None;
        }
        if self.rest.is_empty() {
            return match self.end.front() {
                None => Poll::Ready(None),
                Some(End::Stall) => Poll::Pending,
                Some(End::Break) => Poll::Ready(Some(Err(broken()))),
            };
        }
        let length = self.piece.min(self.rest.len());
        let piece = self.rest.split_to(length);
        // What comes before a break shall be out when it breaks.
        let last = self.rest.is_empty() && !self.end.is_empty();
        if let Some(pause) = self.pause.or(last.then_some(Duration::from_millis(1))) {
            self.sleep = Some(Box::pin(tokio::time::sleep(pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

fn broken() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionReset,
        "the sandbox cut the connection",
    )
}

/// A listener whose connections can be hung up before an answer.
struct Lines(TcpListener);

impl axum::serve::Listener for Lines {
    type Io = Cord;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Cord, SocketAddr) {
        let (stream, address) = axum::serve::Listener::accept(&mut self.0).await;
        // Small answers go out at once; where it cannot be set they go out a little later.
        let _ = stream.set_nodelay(true);
        let line = Line::default();
        (Cord { stream, line }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What a request knows of the connection that it came by.
#[derive(Clone, Default)]
struct Line {
    hung_up: Arc<AtomicBool>,
}

impl Line {
    /// Ends the connection without an answer.
    async fn hang_up(&self) -> Response {
        self.hung_up.store(true, Ordering::Relaxed);
        // The connection and this request are one task: waking it makes it read, and fail.
        std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<Response>::Pending
        })
        .await
    }
}

impl Connected<IncomingStream<'_, Lines>> for Line {
    fn connect_info(stream: IncomingStream<'_, Lines>) -> Self {
        stream.io().line.clone()
    }
}

/// A connection.
struct Cord {
    stream: TcpStream,
    line: Line,
}

impl Cord {
    fn check(&self) -> io::Result<()> {
        if self.line.hung_up.load(Ordering::Relaxed) {
            Err(broken())
        } else {
            Ok(())
        }
    }
}

impl AsyncRead for Cord {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Cord {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Effect, Fault, Options, RequestKind};
    use super::*;
    use crate::clock::SystemClock;

    struct Running {
        sandbox: Sandbox,
        url: String,
        cancel: CancellationToken,
        server: tokio::task::JoinHandle<io::Result<()>>,
        token: String,
    }

    async fn running() -> Running {
        let sandbox = Sandbox::new(Options::default(), Arc::new(SystemClock));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, sandbox.clone(), cancel.clone()));
        let auth = sandbox.auth();
        let answer = reqwest::Client::new()
            .post(format!("{url}/oauth_token.do"))
            .form(&[
                ("grant_type", "client_credentials"),
                ("client_id", &auth.client_id),
                ("client_secret", &auth.client_secret),
            ])
            .send()
            .await
            .unwrap();
        let token: serde_json::Value =
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        Running {
            sandbox,
            url,
            cancel,
            server,
            token: token["access_token"].as_str().unwrap().to_owned(),
        }
    }

    impl Running {
        fn get(&self, client: &reqwest::Client, path: &str) -> reqwest::RequestBuilder {
            client
                .get(format!("{}/api/now/scim{path}", self.url))
                .bearer_auth(&self.token)
        }

        async fn stop(self) {
            self.cancel.cancel();
            self.server.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_page_comes_chunked_and_packed_for_who_takes_it() {
        let running = running().await;
        let client = reqwest::Client::builder().no_gzip().build().unwrap();
        let plain = running
            .get(&client, "/Users?count=50")
            .send()
            .await
            .unwrap();
        assert_eq!(plain.headers()["transfer-encoding"], "chunked");
        assert_eq!(plain.headers()["server"], "snow_adc");
        assert!(plain.headers().get("content-encoding").is_none());
        let plain = plain.bytes().await.unwrap();
        let page: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(page["totalResults"], 1_000);
        assert_eq!(page["Resources"].as_array().unwrap().len(), 50);

        let packed = running
            .get(&client, "/Users?count=50")
            .header("accept-encoding", "gzip")
            .send()
            .await
            .unwrap();
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        let unpacking = reqwest::Client::new();
        let unpacked = running
            .get(&unpacking, "/Users?count=50")
            .send()
            .await
            .unwrap();
        assert_eq!(unpacked.bytes().await.unwrap(), plain);
        assert!(packed.bytes().await.unwrap().len() < plain.len() / 4);
        assert_eq!(running.sandbox.count(RequestKind::List), 3);
        running.stop().await;
    }

    #[tokio::test]
    async fn connections_break_where_a_fault_says_so() {
        let running = running().await;
        let client = reqwest::Client::builder()
            .timeout(Duration::from_millis(500))
            .build()
            .unwrap();
        let page = "/Users?count=20";
        running.sandbox.set_faults(vec![
            Fault::new(Effect::Reset).requests(1, 1),
            Fault::new(Effect::Cut { share: 0.5 }).requests(2, 2),
            Fault::new(Effect::GzipCut).requests(3, 3),
            Fault::new(Effect::Stall { share: 0.5 }).requests(4, 4),
            Fault::new(Effect::GzipBomb { megabytes: 3 }).requests(6, 6),
        ]);
        let reset = running.get(&client, page).send().await.unwrap_err();
        assert!(!reset.is_timeout() && !reset.is_status(), "{reset:?}");
        for _ in 0..2 {
            let cut = running.get(&client, page).send().await.unwrap();
            assert_eq!(cut.status(), 200);
            let cut = cut.bytes().await.unwrap_err();
            assert!(!cut.is_timeout(), "{cut:?}");
        }
        let stalled = running.get(&client, page).send().await.unwrap();
        assert!(stalled.bytes().await.unwrap_err().is_timeout());
        let whole = running.get(&client, page).send().await.unwrap();
        assert!(whole.bytes().await.is_ok());
        let bomb = running.get(&client, page).send().await.unwrap();
        let bomb = bomb.bytes().await.unwrap();
        assert!(bomb.len() == 3 << 20 && bomb.iter().all(|byte| *byte == b' '));
        assert!(running.sandbox.fired().iter().all(|fault| fault.times == 1));
        running.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_its_request_does_not_keep_it() {
        use tokio::io::AsyncWriteExt as _;

        let sandbox = Sandbox::new(Options::default(), Arc::new(SystemClock));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, sandbox, cancel.clone()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /").await.unwrap();
        cancel.cancel();
        server.await.unwrap().unwrap();
    }
}
