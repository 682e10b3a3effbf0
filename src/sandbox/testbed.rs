//! A sandbox for unit tests: a clock that moves by hand, and requests in one line.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{Effect, Fault, Incoming, Options, Reply, Sandbox};
use crate::clock::Clock;

/// Where a test's day begins.
const START: &str = "2026-03-01T08:00:00Z";

/// A clock that moves by hand.
#[derive(Default)]
pub(super) struct HandClock {
    seconds: AtomicI64,
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        let start: Timestamp = START.parse().unwrap();
        start + SignedDuration::from_secs(self.seconds.load(Ordering::Relaxed))
    }
}

/// A sandbox with a token in hand.
pub(super) struct Testbed {
    pub(super) sandbox: Sandbox,
    clock: Arc<HandClock>,
}

/// An answer, with its body read.
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) reply: Reply,
    /// `null` where the body is not JSON.
    pub(super) json: Value,
}

impl Testbed {
    /// A tidy directory of so many users.
    pub(super) fn of(users: usize) -> Self {
        Self::with(Options {
            users,
            odd: false,
            ..Options::default()
        })
    }

    pub(super) fn with(options: Options) -> Self {
        let clock = Arc::new(HandClock::default());
        let sandbox = Sandbox::new(options, Arc::clone(&clock) as _);
        Self { sandbox, clock }
    }

    /// Lets time pass.
    pub(super) fn pass(&self, seconds: i64) {
        self.clock.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Puts one fault in force.
    pub(super) fn fault(&self, effect: Effect) {
        self.sandbox.set_faults(vec![Fault::new(effect)]);
    }

    /// Reads something below the SCIM path.
    pub(super) fn get(&self, target: &str) -> Answered {
        self.ask(Method::GET, target, &[], "")
    }

    /// A list that must be answered.
    pub(super) fn list(&self, query: &str) -> Answered {
        let answered = self.get(&format!("/Users?{query}"));
        assert_eq!(answered.status, 200, "{query}: {}", answered.json);
        answered
    }

    /// A list of groups that must be answered.
    pub(super) fn groups(&self, query: &str) -> Answered {
        let answered = self.get(&format!("/Groups?{query}"));
        assert_eq!(answered.status, 200, "{query}: {}", answered.json);
        answered
    }

    /// One group that must be there.
    pub(super) fn group(&self, id: &str) -> Value {
        let answered = self.get(&format!("/Groups/{id}"));
        assert_eq!(answered.status, 200, "{id}: {}", answered.json);
        answered.json
    }

    /// Writes JSON below the SCIM path.
    pub(super) fn write(&self, method: Method, target: &str, body: &Value) -> Answered {
        self.ask(method, target, &[], &body.to_string())
    }

    /// Asks for anything, with a token that is alive.
    pub(super) fn ask(
        &self,
        method: Method,
        target: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Answered {
        let bearer = format!("Bearer {}", self.sandbox.issue_token());
        let mut all = HeaderMap::new();
        all.insert("authorization", bearer.parse().unwrap());
        for (name, value) in headers {
            all.insert(*name, value.parse().unwrap());
        }
        self.send(method, &format!("/api/now/scim{target}"), all, body)
    }

    /// Asks for anything as it stands.
    pub(super) fn send(
        &self,
        method: Method,
        target: &str,
        headers: HeaderMap,
        body: &str,
    ) -> Answered {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.replace(' ', "%20"))),
            None => (target, None),
        };
        let reply = self.sandbox.answer(&Incoming {
            method,
            path: path.to_owned(),
            query,
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        });
        Answered {
            status: reply.status.as_u16(),
            json: serde_json::from_slice(&reply.body).unwrap_or_default(),
            reply,
        }
    }
}

impl Answered {
    /// The resources of a list.
    pub(super) fn rows(&self) -> &[Value] {
        self.json["Resources"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Their ids.
    pub(super) fn ids(&self) -> Vec<&str> {
        self.rows()
            .iter()
            .filter_map(|row| row["id"].as_str())
            .collect()
    }

    pub(super) fn total(&self) -> u64 {
        self.json["totalResults"].as_u64().unwrap()
    }
}
