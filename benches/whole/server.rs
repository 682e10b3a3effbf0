//! A web server that puts pages together from rendered users, and is fast enough not to be what is measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
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
    directory: RwLock<Directory>,
    requests: AtomicU64,
    /// The first request that was not understood.
    misunderstood: Mutex<Option<String>>,
}

impl Server {
    pub(crate) fn start(directory: Directory) -> Self {
        let shared = Arc::new(Shared {
            directory: RwLock::new(directory),
            requests: AtomicU64::new(0),
            misunderstood: Mutex::new(None),
        });
        let router = Router::new()
            .route("/api/now/scim/Users", get(list))
            .route("/api/now/scim/Users/{id}", get(one))
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

    pub(crate) fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        let directory = self.shared.directory.read();
        directory.unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        let directory = self.shared.directory.write();
        directory.unwrap_or_else(PoisonError::into_inner)
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

async fn list(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let query = query.unwrap_or_default();
    let Some(wanted) = wanted(&query) else {
        let mut first = (shared.misunderstood.lock()).unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert(query);
        return error(StatusCode::BAD_REQUEST, "not understood");
    };
    let directory = (shared.directory.read()).unwrap_or_else(PoisonError::into_inner);
    scim(StatusCode::OK, directory.page(&wanted))
}

async fn one(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    shared.requests.fetch_add(1, Ordering::Relaxed);
    let directory = (shared.directory.read()).unwrap_or_else(PoisonError::into_inner);
    match directory.user(&id) {
        Some(user) => scim(StatusCode::OK, user.to_vec()),
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
