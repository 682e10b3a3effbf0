//! What was asked, and when: tests prove promises about requests with it.

use std::collections::{BTreeMap, VecDeque};

use jiff::Timestamp;

use super::route::RequestKind;

/// So many are kept; the counts go on.
const KEPT: usize = 500_000;

/// One request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// When.
    pub at: Timestamp,
    /// What kind.
    pub kind: RequestKind,
    /// Method, path and query, as they arrived.
    pub line: String,
    /// The status that it was answered with.
    pub status: u16,
    /// Whether it brought a cookie: then it is one of a session that others may wait on (facts page,
    /// section 12.3).
    pub has_cookie: bool,
}

/// The requests that came.
#[derive(Debug, Default)]
pub(super) struct RequestLog {
    entries: VecDeque<Logged>,
    counts: BTreeMap<RequestKind, u64>,
}

impl RequestLog {
    /// Notes one.
    pub(super) fn note(&mut self, logged: Logged) {
        *self.counts.entry(logged.kind).or_default() += 1;
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.entries.push_back(logged);
    }

    /// How many of a kind came.
    #[must_use]
    pub(super) fn count(&self, kind: RequestKind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or_default()
    }

    /// Those that are kept, oldest first.
    #[must_use]
    pub(super) fn entries(&self) -> Vec<Logged> {
        self.entries.iter().cloned().collect()
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
