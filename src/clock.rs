//! Wall time as a parameter. Waiting goes through `tokio::time`.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time of day.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// A clock that everything can share.
pub type SharedClock = Arc<dyn Clock>;

/// The computer's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the computer"
    )]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that stands still with a paused runtime and goes with its timers: wall time is the start
/// plus what `tokio::time` says has passed.
#[derive(Clone, Copy, Debug)]
pub struct ManualClock {
    start: Timestamp,
    zero: tokio::time::Instant,
}

impl ManualClock {
    /// A clock that shows `start` now. Must be made inside a runtime.
    #[must_use]
    pub fn starting_at(start: Timestamp) -> Self {
        Self {
            start,
            zero: tokio::time::Instant::now(),
        }
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.start + self.zero.elapsed()
    }
}
