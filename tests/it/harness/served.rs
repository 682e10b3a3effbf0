//! A simulated instance that a process can be linked to.

use std::sync::Arc;

use musterd::clock::SystemClock;
use musterd::sandbox::{self, Sandbox};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::{Auth, Home, Instance};

const SCIM_PATH: &str = "/api/now/scim";

/// A few pages, however small the directory is.
pub(crate) const PAGE_SIZE: u32 = 50;

/// A sandbox, served on loopback until this is dropped.
pub(crate) struct Served {
    pub(crate) sandbox: Sandbox,
    pub(crate) url: String,
    end: CancellationToken,
    _runtime: Runtime,
}

impl Served {
    pub(crate) fn of(users: usize) -> Self {
        let options = sandbox::Options {
            users,
            ..sandbox::Options::default()
        };
        let sandbox = Sandbox::new(options, Arc::new(SystemClock));
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let bound = tokio::net::TcpListener::bind(("127.0.0.1", 0));
        let listener = runtime.block_on(bound).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let end = CancellationToken::new();
        runtime.spawn(sandbox::serve(listener, sandbox.clone(), end.clone()));
        Self {
            sandbox,
            url,
            end,
            _runtime: runtime,
        }
    }

    /// A home in which this is the instance `acme`; `more` stands at the end of its table.
    pub(crate) fn home(&self, more: &str) -> Home {
        let rules = self.sandbox.auth();
        Home::new(&[Instance {
            name: "acme",
            url: &self.url,
            scim_path: SCIM_PATH,
            auth: Auth::ClientCredentials {
                client_id: &rules.client_id,
                client_secret: &rules.client_secret,
            },
            page_size: PAGE_SIZE,
            more,
        }])
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
