//! What the daemon of one case logs, line by line: of its own runtime, whatever other tests log
//! meanwhile.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::world::Simulated;

/// A log that is being written.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

/// One line of it.
pub(super) struct Line {
    pub(super) level: String,
    pub(super) message: String,
    /// As it stands.
    pub(super) text: String,
}

impl Log {
    /// A runtime whose time is simulated, and all of whose threads log here.
    pub(super) fn runtime(&self) -> Simulated {
        let dispatch = self.dispatch();
        Simulated::with_threads(move || {
            // It holds for as long as the thread lives.
            std::mem::forget(dispatcher::set_default(&dispatch));
        })
    }

    /// Where this thread has to log to.
    pub(super) fn dispatch(&self) -> Dispatch {
        Dispatch::new(
            tracing_subscriber::fmt()
                .json()
                .flatten_event(true)
                .without_time()
                .with_env_filter(EnvFilter::new("musterd=debug"))
                .with_writer(self.clone())
                .finish(),
        )
    }

    /// All that was logged so far.
    pub(super) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap().clone();
        String::from_utf8(bytes).expect("a log is UTF-8")
    }

    /// The same, line by line.
    pub(super) fn lines(&self) -> Vec<Line> {
        let text = self.text();
        let line = |text: &str| {
            let fields: Value = serde_json::from_str(text).expect("each line is JSON");
            Line {
                level: fields["level"].as_str().unwrap_or_default().to_owned(),
                message: fields["message"].as_str().unwrap_or_default().to_owned(),
                text: text.to_owned(),
            }
        };
        text.lines().map(line).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
