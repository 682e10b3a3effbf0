//! One limit of requests per time, on the clock of the runtime, which a paused test can hold.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// One limit. Several of them must let a request through at the same moment, or one would be used
/// up in vain and another would be broken: so it can be looked at without taking anything from it.
pub struct Limiter {
    limiter: RateLimiter<Intent, Level, RuntimeClock, NoOpMiddleware<Duration>>,
}

impl Limiter {
    /// At most `burst + limit × w` requests in any window of `w` seconds.
    pub fn per_second(limit: NonZeroU32, burst: NonZeroU32) -> Self {
        // Rounded up: a period that is too short by a nanosecond lets one too many through.
        let every = 1_000_000_000_u64.div_ceil(u64::from(limit.get()));
        Self::starting_empty(Duration::from_nanos(every), burst)
    }

    /// At most `limit` in any 3,600 seconds: up to `burst` of them at once, the others spread evenly.
    /// (A quota of the whole limit with a burst besides lets nearly twice as many through.)
    pub fn per_hour(limit: NonZeroU32, burst: NonZeroU32) -> Self {
        let at_once = burst.get().min(limit.get() / 2).max(1);
        let spread = u64::from((limit.get() - at_once).max(1));
        // A nanosecond more, so that a limit of one keeps its promise at both ends of the window.
        let every = 3_600_000_000_000_u64.div_ceil(spread) + 1;
        let at_once = NonZeroU32::new(at_once).unwrap_or(NonZeroU32::MIN);
        Self::starting_empty(Duration::from_nanos(every), at_once)
    }

    /// The burst starts used up: a program that is restarted again and again gets no more through
    /// than one that runs on.
    fn starting_empty(every: Duration, burst: NonZeroU32) -> Self {
        let quota = Quota::with_period(every)
            .unwrap_or(Quota::per_hour(NonZeroU32::MIN))
            .allow_burst(burst);
        let clock = RuntimeClock {
            zero: Instant::now(),
        };
        let limiter = RateLimiter::new(quota, Level::default(), clock);
        // A fresh limiter grants its whole burst.
        let _granted = limiter.check_key_n(&Intent::Take, burst);
        Self { limiter }
    }

    /// The moment from which it lets one through, `None` for now. Takes nothing.
    pub fn wait(&self, now: Instant) -> Option<Instant> {
        let refused = self.limiter.check_key(&Intent::Look).err()?;
        Some(now + refused.wait_time_from(self.limiter.clock().now()))
    }

    /// Takes one, where [`Limiter::wait`] has just found nothing to wait for.
    pub fn take(&self) {
        let _granted = self.limiter.check_key(&Intent::Take);
    }
}

/// What a check is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Intent {
    Look,
    Take,
}

/// The state of one limit: governor's "theoretical arrival time".
#[derive(Default)]
struct Level(Cell<Option<Nanos>>);

impl StateStore for Level {
    type Key = Intent;

    fn measure_and_replace<T, F, E>(&self, intent: &Intent, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (outcome, level) = measure(self.0.get())?;
        if *intent == Intent::Take {
            self.0.set(Some(level));
        }
        Ok(outcome)
    }
}

/// The runtime's clock as governor reads it.
struct RuntimeClock {
    zero: Instant,
}

impl Clock for RuntimeClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.zero.elapsed()
    }
}
