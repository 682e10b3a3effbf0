//! Ways to an instance other than a call: sockets of the loopback address in the same runtime, where what
//! the network does to an answer is done by the network; and names that cannot be resolved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use musterd::config::{self, Sources};
use musterd::sandbox::{InProcess, serve};
use musterd::scim::client::{Answer, BoxFuture, Exchange, Request};
use musterd::scim::error::ExchangeError;
use musterd::scim::http::HttpExchange;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::world::World;

/// The program's own HTTP client, on its way to another address than the configured one.
struct Detour {
    http: HttpExchange,
    origin: Url,
}

impl Exchange for Detour {
    fn exchange(&self, mut request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
        let mut url = self.origin.clone();
        url.set_path(request.url.path());
        url.set_query(request.url.query());
        request.url = url;
        self.http.exchange(request)
    }
}

/// The names of hosts, as a resolver knows them.
#[derive(Default)]
pub(super) struct Names {
    /// Whether it knows none.
    pub(super) are_lost: AtomicBool,
    /// How often it was asked meanwhile.
    pub(super) n_asked: AtomicU64,
}

/// A way to the instance that begins with its name.
struct ByName {
    way: InProcess,
    names: Arc<Names>,
}

impl Exchange for ByName {
    fn exchange(&self, request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
        if self.names.are_lost.load(Ordering::Relaxed) {
            self.names.n_asked.fetch_add(1, Ordering::Relaxed);
            return Box::pin(async { Err(ExchangeError::Resolve("no such name".into())) });
        }
        self.way.exchange(request)
    }
}

/// Lets the way of the instance that misbehaves begin with its name, from the next start on.
pub(super) fn by_name(world: &mut World, names: &Arc<Names>) {
    let names = Arc::clone(names);
    world.set_lines(Arc::new(move |name: &str, way: InProcess| {
        if name == super::trial::ACME {
            let names = Arc::clone(&names);
            Arc::new(ByName { way, names }) as Arc<dyn Exchange>
        } else {
            Arc::new(way)
        }
    }));
}

/// Lays the ways of all instances over sockets, from the next start on.
pub(super) async fn over_sockets(world: &mut World) {
    let mut origins: BTreeMap<String, Url> = BTreeMap::new();
    for (name, sandbox) in world.sandboxes() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        origins.insert(name.clone(), format!("http://{address}").parse().unwrap());
        // It ends with the runtime.
        tokio::spawn(serve(listener, sandbox.clone(), CancellationToken::new()));
    }
    let sources = Sources {
        file: world.folder().join("musterd.toml"),
        env: BTreeMap::new(),
        now: "2026-01-01T00:00:00Z".parse().unwrap(),
        secrets: config::Secrets::All,
    };
    let settings = config::load(&sources).unwrap();
    let options: BTreeMap<String, _> = settings
        .instances
        .iter()
        .map(|(name, settings)| {
            let mut options = settings.client.clone();
            options.origin = origins[name.as_str()].clone();
            (name.to_string(), options)
        })
        .collect();
    world.set_lines(Arc::new(move |name: &str, _in_process: InProcess| {
        let options = &options[name];
        Arc::new(Detour {
            http: HttpExchange::new(options).unwrap(),
            origin: options.origin.clone(),
        }) as Arc<dyn Exchange>
    }));
}
