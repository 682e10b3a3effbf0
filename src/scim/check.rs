//! One authenticated look at an instance: does it answer, as what, and what does it honour?

use jiff::Timestamp;
use serde::Serialize;

use super::client::{ListQuery, Session};
use super::error::Error;
use super::probe;
use super::retry::RetryOptions;
use crate::clock::Clock;
use crate::model::{Capabilities, ResourceType};

/// What was found out about one instance.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Its name.
    pub instance: String,
    /// Its origin.
    pub url: String,
    /// Resources that the account is shown, of each type.
    pub total: Option<u64>,
    /// The instance's clock.
    pub date: Option<Timestamp>,
    /// How far that is ahead of ours, in seconds.
    pub clock_skew_seconds: Option<i64>,
    /// What it honours.
    pub capabilities: Option<Capabilities>,
    /// What went wrong; the steps before it went well.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Asks an instance for a token, its total, and what it honours.
/// A failed request is not repeated: the person who waits is told at once.
pub async fn check(session: Session, resources: &[ResourceType], clock: &dyn Clock) -> Finding {
    let once = RetryOptions {
        attempts: 1,
        ..session.retry
    };
    let session = &Session {
        retry: once,
        ..session
    };
    let options = session.client.options();
    let mut found = Finding {
        instance: options.instance.to_string(),
        url: options.origin.origin().ascii_serialization(),
        total: None,
        date: None,
        clock_skew_seconds: None,
        capabilities: None,
        error: None,
        hint: None,
    };
    for resource in resources {
        if let Err(error) = look(session, *resource, clock, &mut found).await {
            found.hint = error.hint().map(ToString::to_string);
            found.error = Some(error.to_string());
            break;
        }
    }
    found
}

async fn look(
    session: &Session,
    resource: ResourceType,
    clock: &dyn Clock,
    found: &mut Finding,
) -> Result<(), Error> {
    let query = ListQuery {
        filter: None,
        start_index: 1,
        count: 1,
    };
    let listing = session.list(resource, &query).await?;
    found.total = Some(listing.total);
    found.date = listing.date;
    found.clock_skew_seconds = listing
        .date
        .map(|date| date.duration_since(clock.now()).as_secs());
    found.capabilities = Some(probe::probe(session, resource).await?);
    Ok(())
}
