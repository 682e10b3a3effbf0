//! A simulated instance that a process can be linked to.

use std::sync::Arc;

use musterd::clock::SystemClock;
use musterd::sandbox::{self, Sandbox};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

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
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
