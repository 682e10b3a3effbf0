//! The network: one request sent with reqwest, and its body read within the cap. Nothing else uses
//! reqwest.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::{ACCEPT, AUTHORIZATION};
use reqwest::{ClientBuilder, redirect};
use secrecy::ExposeSecret as _;
use url::{Host, Url};

use super::client::{Answer, BoxFuture, Exchange, Options, Request};
use super::error::{Body, ExchangeError};
use crate::model::Reject;

/// A connection is made within this, or not at all.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Once an answer has begun, its next bytes come within this. How long an instance may think before
/// it begins is limited by the total time alone, which [`super::client::Session`] keeps.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Sends requests over HTTP.
pub struct HttpExchange {
    client: reqwest::Client,
    max_body_bytes: usize,
}

impl HttpExchange {
    /// An exchange with the instance of these options.
    ///
    /// # Errors
    /// [`ExchangeError::Setup`] when this machine has no certificate roots.
    pub fn new(options: &Options) -> Result<Self, ExchangeError> {
        Self::towards(&options.origin, options.max_body_bytes)
    }

    /// An exchange with whatever is at this address, whose answers are at most so long.
    ///
    /// # Errors
    /// As [`HttpExchange::new`].
    pub fn towards(address: &Url, max_body_bytes: usize) -> Result<Self, ExchangeError> {
        // Inflating costs more than loopback does.
        let mut builder = builder().gzip(!is_loopback(address));
        if address.scheme() == "http" {
            // A loopback address: no certificate is ever checked, so no roots need to be there.
            builder = builder.tls_certs_only([]);
        }
        Self::build(builder, max_body_bytes)
    }

    fn build(builder: ClientBuilder, max_body_bytes: usize) -> Result<Self, ExchangeError> {
        let setup = |error: reqwest::Error| ExchangeError::Setup(error.without_url().into());
        Ok(Self {
            client: builder.build().map_err(setup)?,
            max_body_bytes,
        })
    }

    async fn send(&self, request: Request) -> Result<Answer, ExchangeError> {
        let mut builder = self
            .client
            .request(request.method, request.url)
            // The platform's default, and the one it never refuses (facts page, section 7).
            .header(ACCEPT, "application/json");
        if let Some(authorization) = &request.authorization {
            let mut value = HeaderValue::from_str(authorization.expose_secret())
                .map_err(|error| ExchangeError::Setup(error.into()))?;
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        if !request.form.is_empty() {
            let form: Vec<_> = request
                .form
                .iter()
                .map(|(name, value)| (*name, value.expose_secret()))
                .collect();
            builder = builder.form(&form);
        }
        let mut response = builder.send().await.map_err(classified)?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = self.read(response).await?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// Reads a body. What is counted comes out of the decompressor: a bomb is small on the wire.
    async fn read(&self, mut response: reqwest::Response) -> Result<Bytes, ExchangeError> {
        let announced = response.content_length().unwrap_or(0);
        let announced = usize::try_from(announced).unwrap_or(usize::MAX);
        let mut body = BytesMut::with_capacity(announced.min(self.max_body_bytes));
        loop {
            let chunk = tokio::time::timeout(READ_TIMEOUT, response.chunk())
                .await
                .map_err(|_| ExchangeError::TimedOut(READ_TIMEOUT))?
                .map_err(classified)?;
            let Some(chunk) = chunk else {
                return Ok(body.freeze());
            };
            if body.len() + chunk.len() > self.max_body_bytes {
                body.truncate(Reject::MAX_BODY_BYTES);
                return Err(ExchangeError::TooLarge {
                    limit_bytes: self.max_body_bytes,
                    start: Body(Bytes::copy_from_slice(&body)),
                });
            }
            body.extend_from_slice(&chunk);
        }
    }
}

impl Exchange for HttpExchange {
    fn exchange(&self, request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
        Box::pin(self.send(request))
    }
}

fn builder() -> ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("musterd/", env!("CARGO_PKG_VERSION")))
        // A credential never follows a redirect (facts page, Q54), nor leaves by a proxy that nobody
        // configured, and a cookie would tie all requests to one node (section 12.3).
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
}

/// What kind of failure it was. The URL is taken out: a filter in it may name people.
fn classified(error: reqwest::Error) -> ExchangeError {
    let error = error.without_url();
    if error.is_dns() {
        ExchangeError::Resolve(error.into())
    } else if error.is_connect() && is_tls(&error) {
        ExchangeError::Tls(error.into())
    } else if error.is_connect() {
        ExchangeError::Connect(error.into())
    } else if error.is_builder() {
        ExchangeError::Setup(error.into())
    } else {
        ExchangeError::Broken(error.into())
    }
}

/// Whether a connection failed because of what came over it: rustls hands its errors up as invalid
/// data, and nothing else does before the first request.
fn is_tls(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let mut io = error.downcast_ref::<io::Error>();
        while let Some(error) = io {
            if error.kind() == io::ErrorKind::InvalidData {
                return true;
            }
            // The source of an I/O error is what is below the error it wraps, not that itself.
            io = error.get_ref().and_then(|inner| inner.downcast_ref());
        }
        cause = error.source();
    }
    false
}

fn is_loopback(origin: &Url) -> bool {
    match origin.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::super::client::{Client, Priority, Session};
    use super::super::script::{basic, client_credentials, first, options};
    use super::super::{error::Error, error::Fault};
    use super::*;
    use crate::clock::SystemClock;
    use crate::model::ResourceType;

    const CAP: usize = 1 << 20;

    /// A server of one canned answer, which may never end.
    struct Server {
        port: u16,
        /// The heads of the requests it got.
        heads: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        async fn answering(answer: impl Into<Vec<u8>>) -> Self {
            Self::start(answer.into(), false).await
        }

        /// Sends the answer, then one byte more every few milliseconds.
        async fn dripping(answer: impl Into<Vec<u8>>) -> Self {
            Self::start(answer.into(), true).await
        }

        async fn start(answer: Vec<u8>, drips: bool) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let heads = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&heads);
            tokio::spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let (answer, seen) = (answer.clone(), Arc::clone(&seen));
                    tokio::spawn(async move {
                        let mut head = Vec::new();
                        while !head.ends_with(b"\r\n\r\n") {
                            match stream.read_u8().await {
                                Ok(byte) => head.push(byte),
                                Err(_) => break,
                            }
                        }
                        let head = String::from_utf8_lossy(&head).into_owned();
                        seen.lock().unwrap().push(head);
                        let _ = stream.write_all(&answer).await;
                        let mut beat = tokio::time::interval(Duration::from_millis(5));
                        while drips && stream.write_all(b" ").await.is_ok() {
                            beat.tick().await;
                        }
                    });
                }
            });
            Self { port, heads }
        }

        fn heads(&self) -> Vec<String> {
            self.heads.lock().unwrap().clone()
        }
    }

    fn with_length(status: &str, headers: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    const LIST: &str = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":1,"Resources":[{"id":"a"}]}"#;
    const JSON: &str = "content-type: application/json\r\n";

    fn loopback(port: u16, folder: &std::path::Path) -> Options {
        let mut options = options(basic(), folder);
        options.origin = format!("http://127.0.0.1:{port}").parse().unwrap();
        options.max_body_bytes = CAP;
        options.retry.attempts = 1;
        options
    }

    fn session(options: Options, exchange: HttpExchange) -> Session {
        Arc::new(Client::new(
            options,
            Arc::new(exchange),
            Arc::new(SystemClock),
            7,
        ))
        .session(Priority::High, CancellationToken::new())
    }

    async fn list(options: Options) -> Result<usize, Error> {
        let exchange = HttpExchange::new(&options).unwrap();
        list_by(options, exchange).await
    }

    async fn list_by(options: Options, exchange: HttpExchange) -> Result<usize, Error> {
        let session = session(options, exchange);
        let listing = session.list(ResourceType::User, &first(2)).await?;
        Ok(listing.rows.len())
    }

    fn exchange_error(error: &Error) -> &ExchangeError {
        match error.fault() {
            Fault::Exchange(error) => error,
            fault => panic!("{fault}"),
        }
    }

    #[tokio::test]
    async fn a_page_is_read_from_servers_of_all_ages() {
        let folder = tempfile::tempdir().unwrap();
        let chunked = format!(
            "HTTP/1.1 200 OK\r\n{JSON}transfer-encoding: chunked\r\n\r\n{:x}\r\n{LIST}\r\n0\r\n\r\n",
            LIST.len()
        );
        for answer in [
            with_length("200 OK", JSON, LIST),
            chunked,
            format!("HTTP/1.0 200 OK\r\n{JSON}\r\n{LIST}"),
        ] {
            let server = Server::answering(answer).await;
            assert_eq!(list(loopback(server.port, folder.path())).await.unwrap(), 1);
            let head = server.heads()[0].to_ascii_lowercase();
            assert!(head.contains("\r\naccept: application/json\r\n"), "{head}");
            assert!(head.contains("\r\nuser-agent: musterd/"), "{head}");
            assert!(head.contains("\r\nauthorization: basic "), "{head}");
            assert!(!head.contains("accept-encoding"), "{head}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed_and_no_credential_goes_there() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = Server::answering(with_length("200 OK", JSON, LIST)).await;
        for status in ["301 x", "302 x", "303 x", "307 x", "308 x"] {
            for host in ["127.0.0.1", "localhost"] {
                let location = format!("location: http://{host}:{}/x\r\n", elsewhere.port);
                let server = Server::answering(with_length(status, &location, "")).await;
                for auth in [basic(), client_credentials()] {
                    let mut options = loopback(server.port, folder.path());
                    if auth.token_url().is_some() {
                        options.auth = super::super::auth::AuthOptions::ClientCredentials {
                            client_id: "c1".into(),
                            client_secret: super::super::script::literal("hush"),
                            token_url: options.origin.join("/oauth_token.do").unwrap(),
                        };
                    }
                    let error = list(options).await.unwrap_err();
                    assert!(error.to_string().contains("answered 30"), "{error}");
                    assert!(error.hint().unwrap().contains("redirects"), "{error}");
                }
                assert_eq!(server.heads().len(), 2);
            }
        }
        assert_eq!(elsewhere.heads(), Vec::<String>::new());
    }

    fn gzipped(text: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(text).unwrap();
        gzip.finish().unwrap()
    }

    /// An answer of gzip, as a real instance gives it; on loopback it would not be asked for.
    async fn list_gzipped(body: &[u8]) -> Result<usize, Error> {
        let folder = tempfile::tempdir().unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\n{JSON}content-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let server = Server::answering([head.as_bytes(), body].concat()).await;
        let gzip = builder().gzip(true).tls_certs_only([]);
        let listed = list_by(
            loopback(server.port, folder.path()),
            HttpExchange::build(gzip, CAP).unwrap(),
        )
        .await;
        let head = server.heads()[0].to_ascii_lowercase();
        assert!(head.contains("\r\naccept-encoding: gzip\r\n"), "{head}");
        listed
    }

    #[tokio::test]
    async fn gzip_is_read_and_a_broken_one_is_no_page() {
        let whole = gzipped(LIST.as_bytes());
        assert_eq!(list_gzipped(&whole).await.unwrap(), 1);
        for broken in [&whole[..whole.len() - 4], &whole[..20], b"no gzip"] {
            let error = list_gzipped(broken).await.unwrap_err();
            assert!(error.is_transient(), "{error}");
            assert!(matches!(exchange_error(&error), ExchangeError::Broken(_)));
        }
    }

    #[tokio::test]
    async fn a_gzip_bomb_ends_at_the_cap() {
        // 16 MiB in 16 KiB.
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(br#"{"Resources":[{"id":"a","x":""#).unwrap();
        for _ in 0..16 {
            gzip.write_all(&[b' '; 1 << 20]).unwrap();
        }
        let error = list_gzipped(&gzip.finish().unwrap()).await.unwrap_err();
        let ExchangeError::TooLarge { start, .. } = exchange_error(&error) else {
            panic!("{error}");
        };
        assert!(start.0.len() <= Reject::MAX_BODY_BYTES);
        assert!(error.is_unreadable() && !error.is_transient());
        let reject = error.to_reject().unwrap();
        assert_eq!(reject.id.unwrap().as_str(), "a");
        assert!(reject.reason.contains("longer than"), "{}", reject.reason);
    }

    #[tokio::test]
    async fn an_endless_body_ends_at_the_cap() {
        let folder = tempfile::tempdir().unwrap();
        let long = format!("HTTP/1.1 200 OK\r\n{JSON}\r\n{}", " ".repeat(CAP + 1));
        let server = Server::dripping(long).await;
        let error = list(loopback(server.port, folder.path()))
            .await
            .unwrap_err();
        assert!(matches!(
            exchange_error(&error),
            ExchangeError::TooLarge { .. }
        ));
        // What a server announces does not count.
        let absurd = format!("HTTP/1.1 200 OK\r\n{JSON}content-length: 99999999999999\r\n\r\n");
        let server = Server::answering(absurd).await;
        let error = list(loopback(server.port, folder.path()))
            .await
            .unwrap_err();
        assert!(matches!(exchange_error(&error), ExchangeError::Broken(_)));
    }

    #[tokio::test]
    async fn a_slow_drip_ends_with_the_total_time() {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::dripping(format!("HTTP/1.1 200 OK\r\n{JSON}\r\n")).await;
        let mut options = loopback(server.port, folder.path());
        options.timeout = Duration::from_millis(200);
        let error = list(options).await.unwrap_err();
        assert!(error.is_timeout() && error.is_transient(), "{error}");
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let fails = async |options: Options| list(options).await.unwrap_err();

        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let error = fails(loopback(port, folder.path())).await;
        assert!(
            matches!(exchange_error(&error), ExchangeError::Connect(_)),
            "{error}"
        );

        let cut = format!("HTTP/1.1 200 OK\r\n{JSON}content-length: 900\r\n\r\n{LIST}");
        let cut_chunks =
            format!("HTTP/1.1 200 OK\r\n{JSON}transfer-encoding: chunked\r\n\r\n5\r\nab");
        for broken in [cut, cut_chunks, "nonsense\r\n\r\n".into(), String::new()] {
            let server = Server::answering(broken.clone()).await;
            let error = fails(loopback(server.port, folder.path())).await;
            assert!(
                matches!(exchange_error(&error), ExchangeError::Broken(_)),
                "{broken}: {error}"
            );
        }

        // Longer than a name can be: no name server needs to be asked.
        let mut options = loopback(1, folder.path());
        let name = format!("{0}.{0}.{0}.{0}.{0}.invalid", "a".repeat(60));
        options.origin = format!("http://{name}:1").parse().unwrap();
        let error = fails(options).await;
        assert!(
            matches!(exchange_error(&error), ExchangeError::Resolve(_)),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_speaks_no_tls_is_final_and_has_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        // Answers a handshake without waiting for its end.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read_u8().await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let mut options = loopback(port, folder.path());
        options.origin = format!("https://127.0.0.1:{port}").parse().unwrap();
        let no_roots = HttpExchange::build(builder().tls_certs_only([]), CAP).unwrap();
        let error = list_by(options, no_roots).await.unwrap_err();
        assert!(
            matches!(exchange_error(&error), ExchangeError::Tls(_)),
            "{error}"
        );
        assert!(!error.is_transient());
        assert!(error.hint().unwrap().contains("certificate"));
    }

    #[test]
    fn loopback_is_known_in_all_spellings() {
        for (origin, loopback) in [
            ("http://127.0.0.1:8080", true),
            ("http://127.8.8.8", true),
            ("http://[::1]:1", true),
            ("http://localhost", true),
            ("https://acme.service-now.com", false),
            ("https://10.0.0.1", false),
            ("https://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&origin.parse().unwrap()), loopback, "{origin}");
        }
    }
}
