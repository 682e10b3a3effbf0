//! One authenticated look at an instance: does it answer, as what, and what does it honour?

mod found;
mod visible;
mod way;

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use jiff::Timestamp;
use serde::Serialize;

use super::client::{ListQuery, Options, Session};
use super::error::Error;
use super::probe;
use super::retry::RetryOptions;
use crate::clock::Clock;
use crate::model::words::count;
use crate::model::{Capabilities, ResourceType, Row, Step, StepOutcome};
use found::Asked;
pub use visible::Seen;

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
    /// Why it is short, if it is.
    pub short_by: Option<ShortBy>,
    /// Whether a record was met that cannot be read.
    pub unreadable: bool,
    /// The requests an hour that are kept to because its headers tell a tighter limit than ours (facts page, Q48).
    pub told_per_hour: Option<u32>,
    /// What reading everybody takes.
    pub full_sync: Option<Estimate>,
    /// What it honours.
    pub capabilities: Option<Capabilities>,
    /// Of how many users on the page each attribute was seen.
    pub visible: BTreeMap<&'static str, Seen>,
    /// The rows of the page.
    #[serde(skip)]
    rows: Vec<Row>,
    /// What was looked at, in its order. Where one step failed, it is the last one.
    pub steps: Vec<Step>,
    /// What went wrong.
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
    /// How long the answer took, in seconds, without waiting for the rate.
    pub seconds: f64,
}

/// Why a page has fewer rows than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShortBy {
    /// The instance gives no more at a time.
    Cap,
    /// Rows are taken out after the page was cut: those that the account may not see (facts page, Q8).
    HiddenRows,
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
    fn is_whole(self) -> bool {
        self.rows >= self.total.min(self.asked.into())
    }

    /// `None` where nobody came, and nothing follows from that.
    fn estimate(self, options: &Options, told_per_hour: Option<u32>) -> Option<Estimate> {
        let rows = NonZeroU64::new(self.rows)?;
        let requests = self.total.div_ceil(rows.get());
        let n = requests as f64;
        let rate = &options.rate;
        let hourly = [rate.per_hour.map(NonZeroU32::get), told_per_hour];
        let hourly = hourly.into_iter().flatten().min();
        let by_answers = n * self.seconds / options.concurrency.max(1) as f64;
        let by_second = n / f64::from(rate.per_second.get());
        let by_hour = hourly.map_or(0.0, |limit| n / f64::from(limit.max(1)) * 3_600.0);
        let seconds = by_answers.max(by_second).max(by_hour);
        Some(Estimate { requests, seconds })
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
        short_by: None,
        unreadable: false,
        told_per_hour: None,
        full_sync: None,
        capabilities: None,
        visible: BTreeMap::new(),
        rows: Vec::new(),
        steps: Vec::new(),
        error: None,
        hint: None,
    };
    for resource in resources {
        if *resource == ResourceType::Group {
            // Beside users they are a question of rights alone.
            let step = groups(session).await;
            found.steps.push(step);
            continue;
        }
        let asked = Asked {
            client: &session.client,
            resource: *resource,
        };
        let mut progress = Progress::default();
        let looked = look(session, *resource, clock, &mut found, &mut progress).await;
        let error = looked.as_ref().err();
        let at = |stage| error.filter(|_| progress.stage == stage);
        let way = way::way(options, &asked.first(), progress.n_first, at(Stage::Way));
        let mut steps = [way, found::steps(&found, &asked)].concat();
        if let Some(error) = at(Stage::Page) {
            let step = way::failed("pages", Some(error)).by(asked.page());
            steps.push(match error.is_refused_query() {
                true => {
                    step.mend("set a smaller `page_size`: an instance may have a limit of its own")
                }
                false => step,
            });
        }
        if let Some(error) = at(Stage::Probe) {
            steps.push(way::failed("filters", Some(error)));
        }
        found.steps.extend(steps);
        if let Err(error) = looked {
            found.hint = found.steps.last().and_then(|step| step.mend.clone());
            found.error = Some(error.to_string());
            break;
        }
        found.note_what_failed();
    }
    found
}

/// Whether groups can be read. Where they cannot, they are left out.
async fn groups(session: &Session) -> Step {
    let query = ListQuery {
        filter: None,
        start_index: 1,
        count: 1,
    };
    let asked = Asked {
        client: &session.client,
        resource: ResourceType::Group,
    };
    let step = match session.list(ResourceType::Group, &query).await {
        Ok(listing) if listing.total > 0 => {
            let says = format!("{} shown", count(listing.total, "group"));
            Step::new("groups", StepOutcome::Passed, says)
        }
        Ok(_) => Step::new(
            "groups",
            StepOutcome::Warned,
            "none is shown: they are left out",
        )
        .mend("give the account the right to read groups, or take \"groups\" out of `resources`"),
        Err(error) if error.is_forbidden() => Step::new(
            "groups",
            StepOutcome::Warned,
            "the account may not read them: they are left out",
        )
        .mend("give the account the right to read groups, or take \"groups\" out of `resources`"),
        Err(error) => Step::new("groups", StepOutcome::Warned, error.to_string()),
    };
    step.by(asked.first())
}

impl Finding {
    /// A request may be answered, and say all the same that no sync succeeds.
    fn note_what_failed(&mut self) {
        let is_failed = |step: &&Step| step.outcome == StepOutcome::Failed;
        if let Some(step) = self.steps.iter().find(is_failed) {
            self.hint.clone_from(&step.mend);
            self.error = Some(step.says.clone());
        }
    }
}

/// How far a look came.
#[derive(Default)]
struct Progress {
    /// What was sent for the first list, the token included.
    n_first: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    /// To the first answer.
    #[default]
    Way,
    Page,
    Probe,
}

/// What an instance says that shows nobody, and what to do about it.
const NOBODY: &str = "it says that there is nobody at all, which no sync believes";
const NOBODY_HINT: &str = "give the account its rights: most often the role is missing";

async fn look(
    session: &Session,
    resource: ResourceType,
    clock: &dyn Clock,
    found: &mut Finding,
    progress: &mut Progress,
) -> Result<(), Error> {
    let options = session.client.options();
    // The first request brings the token as well, so that the page is timed alone.
    let (total, date) = total(session, resource, found, progress).await?;
    found.total = Some(total);
    found.date = date;
    found.clock_skew_seconds = date.map(|date| date.duration_since(clock.now()).as_secs());
    if total == 0 {
        return Ok(());
    }
    progress.stage = Stage::Page;
    let query = |count| ListQuery {
        filter: None,
        start_index: 1,
        count,
    };
    let before = session.tally.snapshot().answering_us;
    match session.list(resource, &query(options.page_size)).await {
        Ok(listing) => {
            let page = Page {
                asked: options.page_size,
                rows: listing.len(),
                total: listing.total,
                seconds: (session.tally.snapshot().answering_us - before) as f64 / 1e6,
            };
            found.told_per_hour = session.client.told_per_hour();
            found.full_sync = page.estimate(options, found.told_per_hour);
            found.page = Some(page);
            if !page.is_whole() && page.rows > 0 {
                // A cap gives what it gives; rows that are hidden are missing from a shorter page, too.
                let count = u32::try_from(page.rows).unwrap_or(options.page_size);
                let again = session.list(resource, &query(count)).await?;
                found.short_by = Some(match again.len() < page.rows.min(again.total) {
                    true => ShortBy::HiddenRows,
                    false => ShortBy::Cap,
                });
            }
            if listing.rows.is_empty() {
                // Behind a step that failed nothing is claimed.
                return Ok(());
            }
            found.visible = visible::visible(&listing.rows);
            found.rows = listing.rows;
        }
        // A sync finds out which record it is, and sets it aside.
        Err(error) if error.is_unreadable() => found.unreadable = true,
        Err(error) => return Err(error),
    }
    progress.stage = Stage::Probe;
    found.capabilities = Some(probe::probe(session, resource).await?);
    Ok(())
}

/// How many there are, and the instance's clock: from the first record that can be read.
async fn total(
    session: &Session,
    resource: ResourceType,
    found: &mut Finding,
    progress: &mut Progress,
) -> Result<(u64, Option<Timestamp>), Error> {
    /// Records that cannot be read stand side by side nowhere but in an attack.
    const MOST: u64 = 3;
    let before = session.tally.snapshot().requests;
    let mut start_index = 1;
    loop {
        let query = ListQuery {
            filter: None,
            start_index,
            count: 1,
        };
        let listed = session.list(resource, &query).await;
        if start_index == 1 {
            progress.n_first = session.tally.snapshot().requests - before;
        }
        match listed {
            Ok(listing) => return Ok((listing.total, listing.date)),
            Err(error) if error.is_unreadable() && start_index < MOST => {
                found.unreadable = true;
                start_index += 1;
            }
            Err(error) => return Err(error),
        }
    }
}
