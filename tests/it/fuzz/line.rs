//! The program's client, and what it sends: in process, where an exchange writes the URL down, or over
//! a socket, where a listener that knows nothing of URLs writes the request line down.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use musterd::clock::SystemClock;
use musterd::model::{InstanceName, ResourceId, ResourceType};
use musterd::scim::auth::{AuthOptions, SecretSource};
use musterd::scim::client::{
    Answer, Asked, BoxFuture, Client, Exchange, ListQuery, Listing, Options, Priority, Request,
    Session,
};
use musterd::scim::error::{Error, ExchangeError};
use musterd::scim::http::HttpExchange;
use musterd::scim::rate::RateOptions;
use musterd::scim::retry::RetryOptions;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use url::Url;

const USER: ResourceType = ResourceType::User;

/// Where resources of users are.
pub(super) const USERS: &str = "/api/now/scim/Users";

/// Rows that a list request asks for.
pub(super) const COUNT: u32 = 7;

const NOT_FOUND: &str = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"404","detail":"User not found"}"#;

/// A client, and the clock that it waits by.
pub(super) struct Line {
    session: Session,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Line {
    /// A client whose requests an exchange answers, under a paused clock.
    pub(super) fn in_process(exchange: Arc<dyn Exchange>) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        Self::new(
            "https://acme.example",
            exchange_of(exchange),
            runtime.unwrap(),
        )
    }

    /// A client that goes over the network.
    pub(super) fn over_http(origin: &str) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        Self::new(
            origin,
            |options| Arc::new(HttpExchange::new(options).unwrap()),
            runtime.unwrap(),
        )
    }

    fn new(
        origin: &str,
        exchange: impl FnOnce(&Options) -> Arc<dyn Exchange>,
        runtime: Runtime,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            instance: InstanceName::parse("acme").unwrap(),
            origin: origin.parse().unwrap(),
            scim_path: "/api/now/scim".to_owned(),
            page_size: 200,
            concurrency: 1,
            timeout: Duration::from_secs(60),
            max_body_bytes: 1 << 20,
            auth: AuthOptions::Bearer {
                token: SecretSource::Literal("hush".into()),
            },
            auth_state: folder.path().join("auth-acme"),
            rate: RateOptions {
                per_second: 100_000.try_into().unwrap(),
                burst: 100_000.try_into().unwrap(),
                per_hour: None,
            },
            retry: RetryOptions {
                attempts: 2,
                max_wait: Duration::from_secs(300),
            },
        };
        let exchange = exchange(&options);
        let client = {
            let _entered = runtime.enter();
            Client::new(options, exchange, Arc::new(SystemClock), 7)
        };
        Self {
            session: Arc::new(client).session(Priority::High, CancellationToken::new()),
            runtime,
            _folder: folder,
        }
    }

    /// Asks for a page.
    pub(super) fn list(&self, filter: &str) -> Result<Listing, Error> {
        let query = ListQuery {
            filter: Some(filter.to_owned()),
            ..first_page()
        };
        self.runtime.block_on(self.session.list(USER, &query))
    }

    /// Asks for one resource.
    pub(super) fn get(&self, id: &ResourceId) -> Result<Asked, Error> {
        self.runtime.block_on(self.session.get(USER, id))
    }

    /// Does something with the client.
    pub(super) fn block_on<F: Future>(&self, work: impl FnOnce(Session) -> F) -> F::Output {
        self.runtime.block_on(work(self.session.clone()))
    }
}

/// The first rows of everybody.
pub(super) fn first_page() -> ListQuery {
    ListQuery {
        filter: None,
        start_index: 1,
        count: COUNT,
    }
}

fn exchange_of(exchange: Arc<dyn Exchange>) -> impl FnOnce(&Options) -> Arc<dyn Exchange> {
    move |_| exchange
}

/// Writes down what is asked for, and has nothing.
#[derive(Default)]
pub(super) struct Recorder {
    urls: Mutex<Vec<Url>>,
}

impl Recorder {
    /// What was asked for since this was asked last.
    pub(super) fn urls(&self) -> Vec<Url> {
        std::mem::take(&mut self.urls.lock().unwrap())
    }
}

impl Exchange for Recorder {
    fn exchange(&self, request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
        self.urls.lock().unwrap().push(request.url);
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        let answer = Answer {
            status: StatusCode::NOT_FOUND,
            headers,
            body: Bytes::from_static(NOT_FOUND.as_bytes()),
        };
        Box::pin(async { Ok(answer) })
    }
}

/// Listens on a port of its own and has nothing: the origin, and the targets of the requests that come.
pub(super) fn listen() -> (String, Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (sender, targets) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut answers = stream.try_clone().unwrap();
            let mut is_first_line = true;
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8(line).unwrap();
                if std::mem::take(&mut is_first_line) {
                    let target = line
                        .strip_prefix("GET ")
                        .and_then(|rest| rest.strip_suffix(" HTTP/1.1\r"));
                    if sender.send(target.unwrap_or(&line).to_owned()).is_err() {
                        return;
                    }
                } else if line == "\r" {
                    is_first_line = true;
                    let answer = format!(
                        "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{NOT_FOUND}",
                        NOT_FOUND.len()
                    );
                    if answers.write_all(answer.as_bytes()).is_err() {
                        break;
                    }
                }
            }
        }
    });
    (origin, targets)
}

/// What percent-encoded text means (RFC 3986 section 2.1), read by the rules of a server that takes
/// nothing else for encoded: a `+` is a `+`. `None` for what no URL may hold as it is.
pub(super) fn percent_decoded(text: &str, allowed: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => bytes.push(byte),
            other if allowed.as_bytes().contains(&other) => bytes.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}
