//! One authenticated look at an instance: does it answer, as what, and what does it honour?

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use super::client::{ListQuery, Options, Session};
use super::error::Error;
use super::probe;
use super::retry::RetryOptions;
use crate::clock::Clock;
use crate::model::{Capabilities, ResourceType, Row};

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
    /// One page as a crawl asks for it.
    pub page: Option<Page>,
    /// The requests an hour that are kept to because its headers tell a tighter limit than ours (facts page, Q48).
    pub told_per_hour: Option<u32>,
    /// What reading everybody takes.
    pub full_sync: Option<Estimate>,
    /// What it honours.
    pub capabilities: Option<Capabilities>,
    /// The rows of the page, for whoever knows what is in them.
    #[serde(skip)]
    pub rows: Vec<Row>,
    /// What went wrong; the steps before it went well.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// A page that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Page {
    /// The rows that were asked for: `page_size`.
    pub asked: u32,
    /// The rows that came.
    pub rows: u64,
    /// The total that came with it.
    pub total: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What a full sync takes at least, at the configured rate, if all pages are like the one that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Requests for pages.
    pub requests: u64,
    /// Seconds.
    pub seconds: f64,
}

impl Page {
    /// Whether a crawl gets all that it asks for.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.rows >= self.total.min(self.asked.into())
    }

    fn estimate(self, options: &Options, told_per_hour: Option<u32>) -> Option<Estimate> {
        let requests = match self.total {
            0 => 1,
            total => total.div_ceil(self.rows.max(1)),
        };
        let n = requests as f64;
        let rate = &options.rate;
        let hourly = [rate.per_hour.map(NonZeroU32::get), told_per_hour];
        let hourly = hourly.into_iter().flatten().min();
        let by_answers = n * self.seconds / options.concurrency.max(1) as f64;
        let by_second = n / f64::from(rate.per_second.get());
        let by_hour = hourly.map_or(0.0, |limit| n / f64::from(limit.max(1)) * 3_600.0);
        let seconds = by_answers.max(by_second).max(by_hour);
        (self.rows > 0 || self.total == 0).then_some(Estimate { requests, seconds })
    }
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
        page: None,
        told_per_hour: None,
        full_sync: None,
        capabilities: None,
        rows: Vec::new(),
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
    let options = session.client.options();
    let mut query = ListQuery {
        filter: None,
        start_index: 1,
        count: options.page_size,
    };
    let began = Instant::now();
    let listing = match session.list(resource, &query).await {
        // One record that cannot be read is no reason to know nothing; a sync finds out which.
        Err(error) if error.is_unreadable() => {
            query.count = 1;
            session.list(resource, &query).await?
        }
        listing => listing?,
    };
    let page = Page {
        asked: query.count,
        rows: (listing.rows.len() + listing.rejects.len()) as u64,
        total: listing.total,
        seconds: began.elapsed().as_secs_f64(),
    };
    if query.count == options.page_size {
        found.told_per_hour = session.client.told_per_hour();
        found.full_sync = page.estimate(options, found.told_per_hour);
        found.page = Some(page);
    }
    found.rows = listing.rows;
    found.total = Some(listing.total);
    found.date = listing.date;
    found.clock_skew_seconds = listing
        .date
        .map(|date| date.duration_since(clock.now()).as_secs());
    found.capabilities = Some(probe::probe(session, resource).await?);
    Ok(())
}
