//! Which failures repeat, how often, and when.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use http::StatusCode;

use super::error::{ExchangeError, Fault};

/// How a failed request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// Attempts of one request, the first included.
    pub attempts: u32,
    /// The longest wait that a sync sits out; told to wait longer, it fails.
    pub max_wait: Duration,
}

/// What may come of asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It passes by itself: this request is repeated after a while.
    Passing,
    /// The instance has no room: everybody leaves it alone for a while, then this is repeated.
    Busy,
    /// Good credentials are refused for moments (facts page, section 13.3): [`super::auth`] counts
    /// how often that is believed.
    Unauthorized,
    /// Asking again gives the same.
    Final,
}

/// The list of failures that are repeated, each with its reason. What is not on it is final.
#[must_use]
pub fn class(fault: &Fault) -> Class {
    match fault {
        Fault::Exchange(error) => match error {
            // Name servers fail for moments, and a name may be in the middle of a move.
            ExchangeError::Resolve(_)
            // A node restarts (facts page, section 14).
            | ExchangeError::Connect(_)
            // A slow page, or a stalled connection (Q55).
            | ExchangeError::TimedOut(_)
            // Closed early, bad chunk, bad gzip (Q56).
            | ExchangeError::Broken(_) => Class::Passing,
            // A wrong certificate stays wrong, and asking again would hide that somebody listens.
            ExchangeError::Tls(_)
            // As long the next time.
            | ExchangeError::TooLarge { .. }
            | ExchangeError::Setup(_) => Class::Final,
        },
        Fault::Status(refusal) => status_class(refusal.status),
        // Hibernation, maintenance, a proxy's page (Q43): it may be over in minutes.
        Fault::NotJson(_)
        // A cancelled transaction, a search that ran out of time (Q44).
        | Fault::ErrorInside { .. }
        | Fault::Cut { .. } => Class::Passing,
        // A record spoils the page, and will the next time: the crawl asks for fewer.
        Fault::Unreadable { .. }
        // Not the SCIM API, or not ServiceNow's.
        | Fault::NotAsAsked(_)
        | Fault::TooManyRows { .. }
        | Fault::NoToken(_)
        // Decided already, by us.
        | Fault::Cancelled
        | Fault::ToldToWait(_)
        | Fault::Refused { .. }
        | Fault::RefusedBefore { .. }
        // On this machine, and no request was sent.
        | Fault::Secret(_)
        | Fault::State { .. }
        | Fault::ForeignOrigin { .. } => Class::Final,
    }
}

/// The part of the list that is about statuses.
#[must_use]
pub fn status_class(status: StatusCode) -> Class {
    match status {
        StatusCode::UNAUTHORIZED => Class::Unauthorized,
        // The rate limit rule, or no semaphore (facts page, sections 12.1 and 12.2).
        StatusCode::TOO_MANY_REQUESTS
        // The session's queue is full, and nothing was executed (section 12.3, Q45).
        | StatusCode::ACCEPTED => Class::Busy,
        // The server gave up waiting for the request (RFC 9110 section 15.5.9).
        StatusCode::REQUEST_TIMEOUT
        // A cancelled transaction, or the load balancer's page after five minutes (section 12.4).
        | StatusCode::INTERNAL_SERVER_ERROR
        // Trouble of an edge or a node (section 11.2).
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Class::Passing,
        _ => Class::Final,
    }
}

/// The first wait; it doubles, and jitter adds up to as much again, so that clients that failed
/// together do not come back together.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait without being told. A node restarts within minutes (facts page, section 14).
const LONGEST_UNTOLD_WAIT: Duration = Duration::from_secs(60);

/// The waits between the attempts of one request, jittered by `seed`; after the last attempt there
/// is none. Waits that the instance asks for are kept by [`super::rate::Pace`], not here.
#[must_use]
pub fn waits(options: RetryOptions, seed: u64) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_WAIT.min(options.max_wait))
        .with_max_delay(LONGEST_UNTOLD_WAIT.min(options.max_wait))
        .with_max_times(options.attempts.saturating_sub(1) as usize)
        .with_jitter()
        .with_jitter_seed(seed)
        .build()
}
