//! Words about one sync: how, why, with what end and at what cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Which resources a sync reads.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every resource: the only sync that can notice absence.
    Full,
    /// What has `meta.lastModified` at or after the watermark, less an overlap.
    Incremental,
}

/// What asked for a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// A tick of the schedule.
    Schedule,
    /// The start of the daemon.
    Startup,
    /// A person, by `musterd sync`.
    Request,
}

/// How a sync ended.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// What was read has been applied.
    Succeeded,
    /// It ended with an error; what earlier transactions applied stays.
    Failed,
    /// It was told to stop.
    Cancelled,
}

impl Mode {
    /// The word in tables and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        }
    }
}

impl Trigger {
    /// The word in tables and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Startup => "startup",
            Self::Request => "request",
        }
    }
}

impl Outcome {
    /// The word in tables and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What talking to the instance cost so far, counted while it happens.
#[derive(Debug, Default)]
pub struct Tally {
    requests: AtomicU64,
    retries: AtomicU64,
    bytes: AtomicU64,
    throttled_ms: AtomicU64,
    answering_us: AtomicU64,
    /// What this one is a part of: it counts the same.
    whole: Option<Arc<Self>>,
}

/// A [`Tally`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TallySnapshot {
    /// Requests sent, token requests and retries included.
    pub requests: u64,
    /// Of those, repeats of a failed one.
    pub retries: u64,
    /// Bytes of answers after decompression.
    pub bytes: u64,
    /// Time spent waiting because the instance said so, not because of the configured rate.
    pub throttled_ms: u64,
    /// Time between sending requests and having their answers, all added up, in microseconds.
    pub answering_us: u64,
}

impl Tally {
    /// A tally from nothing, all of which `whole` counts as well, at the same moment: whatever becomes of the sync that
    /// it is of.
    #[must_use]
    pub fn part_of(whole: Arc<Self>) -> Self {
        Self {
            whole: Some(whole),
            ..Self::default()
        }
    }

    /// One request is on its way.
    pub fn request(&self) {
        self.add(|tally| &tally.requests, 1);
    }

    /// The next request repeats a failed one.
    pub fn retry(&self) {
        self.add(|tally| &tally.retries, 1);
    }

    /// So many bytes of an answer arrived, counted after decompression.
    pub fn received(&self, bytes: usize) {
        self.add(|tally| &tally.bytes, bytes as u64);
    }

    /// An answer took so long from the sending of its request on.
    pub fn answered(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.add(|tally| &tally.answering_us, us);
    }

    /// The instance asked for so long a wait.
    pub fn throttled(&self, wait: Duration) {
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        self.add(|tally| &tally.throttled_ms, ms);
    }

    fn add(&self, count: fn(&Self) -> &AtomicU64, more: u64) {
        count(self).fetch_add(more, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.add(count, more);
        }
    }

    /// The counts as they stand.
    #[must_use]
    pub fn snapshot(&self) -> TallySnapshot {
        TallySnapshot {
            requests: self.requests.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            throttled_ms: self.throttled_ms.load(Ordering::Relaxed),
            answering_us: self.answering_us.load(Ordering::Relaxed),
        }
    }
}
