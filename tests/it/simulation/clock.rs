//! Simulated wall time that goes on from one life of the daemon to the next: within a life it goes with
//! the paused runtime's timers, between two it is moved by hand.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use musterd::clock::Clock;
use tokio::time::Instant;

/// The clock of a world.
pub(super) struct LifeClock(Mutex<Shown>);

#[derive(Clone, Copy)]
struct Shown {
    time: Timestamp,
    since: Option<Instant>,
}

impl LifeClock {
    pub(super) fn starting_at(time: Timestamp) -> Self {
        Self(Mutex::new(Shown { time, since: None }))
    }

    /// A life begins: time goes on with the timers of the runtime that this is called in.
    pub(super) fn begin_life(&self) {
        self.shown().since = Some(Instant::now());
    }

    /// A life ends: time stands still.
    pub(super) fn end_life(&self) {
        let time = self.now();
        *self.shown() = Shown { time, since: None };
    }

    /// Nobody lives, and time passes.
    pub(super) fn pass(&self, time: Duration) {
        self.shown().time += time;
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for LifeClock {
    fn now(&self) -> Timestamp {
        let Shown { time, since } = *self.shown();
        since.map_or(time, |since| time + since.elapsed())
    }
}
