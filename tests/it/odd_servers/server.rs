//! A server on this machine that behaves well, but for what a test tells it to do otherwise.
//!
//! It speaks HTTP by hand, one request a connection, because some of the oddities are in HTTP itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use musterd::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use super::directory::Directory;
use super::scim::{Odd, State};
use crate::harness::TIME_LIMIT;

/// One request, as far as an oddity may depend on it.
pub(crate) struct Request {
    /// The id in the path, for a request about one user.
    pub(crate) id: Option<String>,
    pub(crate) query: BTreeMap<String, String>,
    /// How many requests came before.
    pub(crate) number: usize,
    /// How many of those were about one user.
    pub(crate) n_by_id: usize,
    /// Another server on this machine that nobody should be sent to.
    pub(crate) elsewhere: SocketAddr,
}

impl Request {
    pub(crate) fn start_index(&self) -> usize {
        self.number_of("startIndex").unwrap_or(1).max(1)
    }

    /// ServiceNow's default is 10.
    pub(crate) fn count(&self) -> usize {
        self.number_of("count").unwrap_or(10)
    }

    fn number_of(&self, name: &str) -> Option<usize> {
        self.query.get(name)?.parse().ok()
    }
}

/// One answer before it is sent.
pub(crate) struct Answer {
    pub(crate) protocol: &'static str,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::bytes(status, "application/json;charset=UTF-8", body.to_string())
    }

    pub(crate) fn html(status: u16, text: &str) -> Self {
        let page = format!("<!DOCTYPE html><html><title>{text}</title><h1>{text}</h1></html>");
        Self::bytes(status, "text/html; charset=UTF-8", page)
    }

    /// An error as SCIM code gives it (RFC 7644 section 3.12).
    pub(crate) fn scim_error(status: u16, detail: &str) -> Self {
        Self::json(
            status,
            &json!({
                "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
                "status": status.to_string(),
                "detail": detail,
            }),
        )
    }

    /// An error as the platform gives it, before SCIM code runs (facts page, section 11.2).
    pub(crate) fn platform_error(status: u16, message: &str) -> Self {
        let error = json!({"message": message, "detail": null});
        Self::json(status, &json!({"error": error, "status": "failure"}))
    }

    pub(crate) fn bytes(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let date = SystemClock
            .now()
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        Self {
            protocol: "HTTP/1.1",
            status,
            headers: vec![("Content-Type", content_type.to_owned()), ("Date", date)],
            body: body.into(),
        }
    }

    /// Changes the body as JSON.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut body = serde_json::from_slice(&self.body).expect("an answer in JSON");
        change(&mut body);
        self.body = body.to_string().into_bytes();
    }

    fn send(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut head = format!("{} {} \r\n", self.protocol, self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !self
            .headers
            .iter()
            .any(|(name, _)| *name == "Content-Length")
        {
            head += &format!("Content-Length: {}\r\n", self.body.len());
        }
        head += "Connection: close\r\n\r\n";
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)
    }
}

/// The running server; it ends when dropped.
pub(crate) struct Server {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    address: SocketAddr,
    elsewhere: SocketAddr,
    n_elsewhere: AtomicUsize,
    stopping: AtomicBool,
    state: Mutex<State>,
    /// Something about the gate changed.
    gate: Condvar,
}

impl Server {
    pub(crate) fn start(directory: Directory, odd: Odd) -> Self {
        let bind = || TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let (listener, decoy) = (bind(), bind());
        let shared = Arc::new(Shared {
            address: listener.local_addr().expect("an address"),
            elsewhere: decoy.local_addr().expect("an address"),
            n_elsewhere: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            state: Mutex::new(State {
                directory,
                odd,
                asked: Vec::new(),
                n_by_id: 0,
                held_back: None,
                n_held_back: 0,
                n_at_once: 0,
                most_at_once: 0,
            }),
            gate: Condvar::new(),
        });
        let serving = accept(listener, &shared, |shared, stream| {
            let shared = Arc::clone(shared);
            // One slow client must not hold up the others. An error is a client that went away.
            std::thread::spawn(move || drop(shared.serve(&stream)));
        });
        let counting = accept(decoy, &shared, |shared, _| {
            shared.n_elsewhere.fetch_add(1, Ordering::SeqCst);
        });
        Self {
            shared,
            threads: vec![serving, counting],
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// From now on the server is odd in this.
    pub(crate) fn turn(&self, odd: Odd) {
        self.shared.lock().odd = odd;
    }

    /// An administrator edits the directory.
    pub(crate) fn edit(&self, change: impl FnOnce(&mut Directory)) {
        change(&mut self.shared.lock().directory);
    }

    /// Asks about the directory.
    pub(crate) fn with<T>(&self, ask: impl FnOnce(&Directory) -> T) -> T {
        ask(&self.shared.lock().directory)
    }

    /// Everybody in the directory as the server shows them, by id.
    pub(crate) fn users(&self) -> BTreeMap<String, Value> {
        let state = self.shared.lock();
        state
            .directory
            .users()
            .map(|(id, user)| {
                let mut user = user.clone();
                (state.odd.user)(&mut user);
                (id.clone(), user)
            })
            .collect()
    }

    /// The targets of all requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.lock().asked.clone()
    }

    /// The most requests that were ever being answered at once.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.lock().most_at_once
    }

    /// From now on the answers to these requests are made at once but not sent.
    pub(crate) fn hold_back(&self, which: fn(&Request) -> bool) {
        self.shared.lock().held_back = Some(which);
    }

    /// Blocks until so many answers are held back.
    pub(crate) fn wait_for_held_back(&self, n: usize) {
        let (state, timed_out) = self
            .shared
            .gate
            .wait_timeout_while(self.shared.lock(), TIME_LIMIT, |state| {
                state.n_held_back < n
            })
            .expect("no request panicked");
        assert!(
            !timed_out.timed_out(),
            "{n} answers to hold back never came:\n{}",
            state.asked.join("\n")
        );
    }

    /// Sends what was held back.
    pub(crate) fn let_go(&self) {
        self.shared.lock().held_back = None;
        self.shared.gate.notify_all();
    }

    /// Connections to the server that nobody should be sent to.
    pub(crate) fn n_elsewhere(&self) -> usize {
        self.shared.n_elsewhere.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.let_go();
        for address in [self.shared.address, self.shared.elsewhere] {
            // Wakes the thread that accepts.
            drop(TcpStream::connect(address));
        }
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn accept(
    listener: TcpListener,
    shared: &Arc<Shared>,
    take: impl Fn(&Arc<Shared>, TcpStream) + Send + 'static,
) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if shared.stopping.load(Ordering::SeqCst) {
                return;
            }
            if let Ok(stream) = stream {
                take(&shared, stream);
            }
        }
    })
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no request panicked")
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut authorized = false;
        let mut length = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? <= 2 {
                break;
            }
            let (name, value) = header.split_once(':').unwrap_or_default();
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "authorization" => authorized = value == format!("Bearer {TOKEN}"),
                "content-length" => length = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        // An answer before the whole request was read would reset the connection.
        std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
        self.answer(&target, authorized).send(stream)
    }

    fn answer(&self, target: &str, authorized: bool) -> Answer {
        let mut state = self.lock();
        state.n_at_once += 1;
        state.most_at_once = state.most_at_once.max(state.n_at_once);
        let (answer, request) = Self::make_answer(&mut state, self.elsewhere, target, authorized);
        if let Some(request) = request
            && state.held_back.is_some_and(|held_back| held_back(&request))
        {
            state.n_held_back += 1;
            self.gate.notify_all();
            state = self
                .gate
                .wait_while(state, |state| state.held_back.is_some())
                .expect("no request panicked");
            state.n_held_back -= 1;
        }
        state.n_at_once -= 1;
        answer
    }

    /// The answer, and what was asked where it was a request to SCIM.
    fn make_answer(
        state: &mut State,
        elsewhere: SocketAddr,
        target: &str,
        authorized: bool,
    ) -> (Answer, Option<Request>) {
        let number = state.asked.len();
        state.asked.push(target.to_owned());
        if !authorized {
            return (
                Answer::platform_error(401, "User is not authenticated"),
                None,
            );
        }
        let url = url::Url::parse("http://server")
            .and_then(|base| base.join(target))
            .expect("a target");
        let below = url.path().strip_prefix(SCIM_PATH).unwrap_or_default();
        let id = match below.split('/').collect::<Vec<_>>()[..] {
            ["", "Users"] => None,
            ["", "Users", id] => Some(decode(id)),
            _ => {
                let message = "Requested URI does not represent any resource";
                return (Answer::platform_error(404, message), None);
            }
        };
        let request = Request {
            id,
            query: url.query_pairs().into_owned().collect(),
            number,
            n_by_id: state.n_by_id,
            elsewhere,
        };
        state.n_by_id += usize::from(request.id.is_some());
        let (mut answer, change) = match &request.id {
            Some(id) => (state.one(id, &request), state.odd.one),
            None => (state.list(&request), state.odd.list),
        };
        change(&mut answer, &request);
        (answer, Some(request))
    }
}

/// Where the server's SCIM begins.
pub(crate) const SCIM_PATH: &str = "/api/now/scim";
/// The only token it accepts.
pub(crate) const TOKEN: &str = "a-token-of-the-test";

fn decode(segment: &str) -> String {
    // `+` and `&` stand for themselves in a path, but not in a form, which is what this decoder reads.
    let form = format!("id={}", segment.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(form.as_bytes())
        .next()
        .map(|(_, id)| id.into_owned())
        .unwrap_or_default()
}
