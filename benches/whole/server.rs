//! A web server that puts pages together from rendered users and groups, and is fast enough not to be what is measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use crate::directory::{Bound, Directory, Wanted};

/// A running server.
pub(crate) struct Server {
    pub(crate) url: String,
    shared: Arc<Shared>,
    /// Ends the server when dropped.
    _runtime: tokio::runtime::Runtime,
}

struct Shared {
    /// What each account sees.
    directories: Vec<RwLock<Directory>>,
    requests: AtomicU64,
    /// Before each page, in milliseconds.
    delay_ms: AtomicU64,
    /// The first request that was not understood.
    misunderstood: Mutex<Option<String>>,
}

impl Server {
    /// A directory for each account.
    pub(crate) fn start(directories: impl IntoIterator<Item = Directory>) -> Self {
        let shared = Arc::new(Shared {
            directories: directories.into_iter().map(RwLock::new).collect(),
            requests: AtomicU64::new(0),
            delay_ms: AtomicU64::new(0),
            misunderstood: Mutex::new(None),
        });
        let router = Router::new()
            .route("/api/now/scim/Users", get(users))
            .route("/api/now/scim/Users/{id}", get(user))
            .route("/api/now/scim/Groups", get(groups))
            .route("/api/now/scim/Groups/{id}", get(group))
            .with_state(Arc::clone(&shared));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime for the server");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0)))
            .expect("a port of the loopback address");
        let address = listener.local_addr().expect("the listener is bound");
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            url: format!("http://{address}"),
            shared,
            _runtime: runtime,
        }
    }

    /// What the first account sees.
    pub(crate) fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        let directory = self.shared.directories[0].read();
        directory.unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, to be changed.
    pub(crate) fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory_of(0)
    }

    /// What this account sees, to be changed.
    pub(crate) fn directory_of(&self, account: usize) -> RwLockWriteGuard<'_, Directory> {
        let directory = self.shared.directories[account].write();
        directory.unwrap_or_else(PoisonError::into_inner)
    }

    /// Every list request takes so much longer from now on.
    pub(crate) fn delay(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_millis()).expect("a delay is short");
        self.shared.delay_ms.store(delay, Ordering::Relaxed);
    }

    /// Requests since this was last asked.
    ///
    /// # Panics
    /// When one of them was not understood: then something else was measured.
    pub(crate) fn requests(&self) -> u64 {
        let misunderstood = self.shared.misunderstood.lock();
        let misunderstood = misunderstood.unwrap_or_else(PoisonError::into_inner);
        assert_eq!(
            *misunderstood, None,
            "the server does not understand a request"
        );
        self.shared.requests.swap(0, Ordering::Relaxed)
    }
}

impl Shared {
    /// What the account sees that asks; without one, what the first one sees.
    fn seen_by(&self, headers: &HeaderMap) -> Option<RwLockReadGuard<'_, Directory>> {
        let account = match headers.get(header::AUTHORIZATION) {
            None => 0,
            Some(bearer) => {
                let account = bearer.to_str().ok()?.strip_prefix(ACCOUNT)?;
                account.parse().ok()?
            }
        };
        let directory = self.directories.get::<usize>(account)?.read();
        Some(directory.unwrap_or_else(PoisonError::into_inner))
    }

    fn misunderstood(&self, what: String) -> Response {
        let mut first = (self.misunderstood.lock()).unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(what);
        error(StatusCode::BAD_REQUEST, "not understood")
    }
}

/// What stands before the number of an account.
const ACCOUNT: &str = "Bearer account-";

async fn users(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    list(&shared, &headers, query, Directory::page).await
}

async fn groups(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let page = |seen: &Directory, wanted: &Wanted| seen.groups.page(wanted);
    list(&shared, &headers, query, page).await
}

async fn list(
    shared: &Shared,
    headers: &HeaderMap,
    query: Option<String>,
    page: impl Fn(&Directory, &Wanted) -> Vec<u8>,
) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let delay = shared.delay_ms.load(Ordering::Relaxed);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let query = query.unwrap_or_default();
    let Some(wanted) = wanted(&query) else {
        return shared.misunderstood(query);
    };
    let page = shared.seen_by(headers).map(|seen| page(&seen, &wanted));
    match page {
        Some(page) => scim(StatusCode::OK, page),
        None => shared.misunderstood("an account".to_owned()),
    }
}

async fn user(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    one(&shared, &headers, |seen| seen.user(&id))
}

async fn group(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    one(&shared, &headers, |seen| seen.groups.group(&id))
}

fn one(
    shared: &Shared,
    headers: &HeaderMap,
    find: impl Fn(&Directory) -> Option<&[u8]>,
) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let Some(seen) = shared.seen_by(headers) else {
        return shared.misunderstood("an account".to_owned());
    };
    match find(&seen) {
        Some(found) => scim(StatusCode::OK, found.to_vec()),
        None => error(StatusCode::NOT_FOUND, "Resource not found"),
    }
}

fn scim(status: StatusCode, body: Vec<u8>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/scim+json;charset=UTF-8")];
    (status, kind, body).into_response()
}

fn error(status: StatusCode, detail: &str) -> Response {
    let body = format!(
        r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"{}","detail":"{detail}"}}"#,
        status.as_u16()
    );
    scim(status, body.into_bytes())
}

/// Reads a query; `None` where anything in it is not known here.
fn wanted(query: &str) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match (&*name, &*value) {
            ("startIndex", start) => wanted.skip = start.parse::<usize>().ok()?.checked_sub(1)?,
            ("count", count) => wanted.count = count.parse().ok()?,
            ("sortBy", "id") | ("sortOrder", "ascending") => {}
            ("filter", filter) => {
                for condition in filter.split(" and ") {
                    add(condition, &mut wanted)?;
                }
            }
            _ => return None,
        }
    }
    Some(wanted)
}

fn add(condition: &str, wanted: &mut Wanted) -> Option<()> {
    let words: Vec<&str> = condition.splitn(3, ' ').collect();
    let quoted = |text: &str| -> Option<String> { serde_json::from_str(text).ok() };
    match words[..] {
        ["id", "gt", id] => wanted.from = Some(Bound::Behind(quoted(id)?)),
        ["id", "ge", id] => wanted.from = Some(Bound::Before(quoted(id)?)),
        ["id", "lt", id] => wanted.before = Some(Bound::Before(quoted(id)?)),
        ["meta.lastModified", "ge", time] => wanted.since = Some(quoted(time)?.parse().ok()?),
        ["active", "eq", "false"] => wanted.inactive = true,
        _ => return None,
    }
    Some(())
}
