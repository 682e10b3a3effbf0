//! All pages of one source, and the certificate of having seen them.
//!
//! [`course`] holds the rules and knows no request; here requests are sent, read ahead in tasks.

mod course;
mod index;
mod judge;
mod key;
pub(in crate::scim) mod order;
mod position;
mod size;
mod stamps;
mod way;

#[cfg(test)]
pub(in crate::scim) mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tracing::Instrument;

use self::course::{Ask, Course};
use self::judge::Ended;
pub use self::position::{CrawlPosition, InvalidPosition};
use super::client::{ListQuery, Listing, Session};
use super::error::Error;
use crate::model::{Base, Capabilities, Certificate, Page, PageReport, ResourceType};

/// Where the mirror stands: asked before each request (promise P6).
pub type Head = Arc<dyn Fn() -> Base + Send + Sync>;

/// What a crawl reads.
#[derive(Clone, Debug)]
pub struct CrawlOptions {
    /// The resource type.
    pub resource: ResourceType,
    /// What the instance honours.
    pub capabilities: Capabilities,
    /// `None` reads everything; else what has `meta.lastModified` at or after this.
    pub since: Option<Timestamp>,
}

/// One crawl. Requests are read ahead in tasks; pages come out of [`Crawl::next`].
pub struct Crawl {
    session: Session,
    resource: ResourceType,
    head: Head,
    course: Course,
    resumed: bool,
    tasks: JoinSet<Answered>,
}

/// A request, where the mirror stood when it was sent, and its answer.
struct Answered {
    ask: Ask,
    base: Base,
    outcome: Result<Listing, Error>,
}

/// What a crawl leaves.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The verdict, and what it rests on.
    pub certificate: Certificate,
    /// What the instance honours, as this crawl found it: what differs from the capabilities that
    /// it was given is to be kept, so that the next crawl goes another way.
    pub capabilities: Capabilities,
}

impl Crawl {
    /// Starts a crawl, or goes on where one was interrupted: then with the capabilities that the
    /// interrupted one had found. A position of a crawl that read something else is not used.
    #[must_use]
    pub fn start(
        session: Session,
        options: CrawlOptions,
        head: Head,
        resume: Option<CrawlPosition>,
    ) -> Self {
        let resume = resume.filter(|position| position.since == options.since);
        let resumed = resume.is_some();
        let position =
            resume.unwrap_or_else(|| CrawlPosition::start(options.since, options.capabilities));
        let client = session.client.options();
        let course = Course::new(
            options.resource,
            client.page_size,
            client.concurrency,
            position,
        );
        Self {
            session,
            resource: options.resource,
            head,
            course,
            resumed,
            tasks: JoinSet::new(),
        }
    }

    /// The next page; `None` after the last. Pages of different ranges may alternate. Each page is
    /// to be reported on, by [`Crawl::report`], before the next is asked for.
    ///
    /// # Errors
    /// A page that cannot be had at all ends the crawl; those before it have been handed out.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        if self.course.needs_total() {
            let first = ask_total(&self.session, self.resource).await?;
            self.course.open(first.total, first.date);
        }
        self.course.settle();
        loop {
            while let Some(done) = self.tasks.try_join_next() {
                self.take(done);
            }
            let page = self.course.hand_out()?;
            self.send();
            if page.is_some() {
                return Ok(page);
            }
            if self.course.is_over() {
                return Ok(None);
            }
            match self.tasks.join_next().await {
                Some(done) => self.take(done),
                None => return Ok(None),
            }
        }
    }

    /// Tells what the last page added: a crawl by `startIndex` goes on past the total only while
    /// full pages bring new ids.
    pub fn report(&mut self, report: PageReport) {
        self.course.report(report.new_ids);
    }

    /// `totalResults` as last told, for a progress bar.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.course.total()
    }

    /// How far it has come. Taken after [`Crawl::report`].
    #[must_use]
    pub fn position(&self) -> CrawlPosition {
        self.course.position().clone()
    }

    /// Ends the crawl: asks for the closing total of a full one, and judges. `distinct` are the
    /// distinct ids of all its pages, rejects with an id included.
    ///
    /// # Errors
    /// When the closing total cannot be had.
    pub async fn finish(self, distinct: u64, rejects: u64) -> Result<Finished, Error> {
        let refused = self.course.is_refused();
        let mut position = self.course.conclude();
        let total_after = match position.total_before {
            Some(_) if !refused => Some(ask_total(&self.session, self.resource).await?.total),
            _ => None,
        };
        let mut capabilities = std::mem::take(&mut position.capabilities);
        let ended = Ended {
            position,
            refused,
            distinct,
            rejects,
            total_after,
            resumed: self.resumed,
        };
        capabilities.order_unknown |= judge::key_skips(&ended);
        Ok(Finished {
            certificate: judge::judge(ended),
            capabilities,
        })
    }

    fn send(&mut self) {
        while let Some(ask) = self.course.ask() {
            let base = (self.head)();
            let session = self.session.clone();
            let resource = self.resource;
            let request = async move {
                let outcome = session.list(resource, &ask.query).await;
                Answered { ask, base, outcome }
            };
            self.tasks.spawn(request.in_current_span());
        }
    }

    fn take(&mut self, done: Result<Answered, tokio::task::JoinError>) {
        match done {
            Ok(done) => (self.course).answer(&done.ask, done.base, done.outcome),
            // Nobody aborts single tasks, so it panicked: that is not hidden.
            Err(error) => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}

/// The total of everything, by an unfiltered request for one row. That row may be one that cannot be
/// read; then the next one is asked for.
async fn ask_total(session: &Session, resource: ResourceType) -> Result<Listing, Error> {
    const MOST_ROWS_TRIED: u64 = 3;
    let mut query = ListQuery {
        filter: None,
        start_index: 1,
        count: 1,
    };
    loop {
        match session.list(resource, &query).await {
            Err(error) if error.is_unreadable() && query.start_index < MOST_ROWS_TRIED => {
                query.start_index += 1;
            }
            outcome => return outcome,
        }
    }
}
