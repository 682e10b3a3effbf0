//! Crawls of a directory that behaves, and of one that does not.

mod flight;
mod laws;
mod rules;

use std::collections::BTreeSet;

use super::course::{Ask, Course};
use super::fake::{Fake, time};
use super::judge::{Ended, judge, key_skips};
use super::position::CrawlPosition;
use crate::model::{Base, Capabilities, Certificate, Obeyed, ResourceId, ResourceType};
use crate::scim::client::ListQuery;
use crate::scim::error::Error;

/// An instance that honours everything.
fn honest() -> Capabilities {
    Capabilities {
        id_after: Obeyed::Obeyed,
        id_range: Obeyed::Obeyed,
        modified_filter: Obeyed::Obeyed,
        modified_and_id: Obeyed::Obeyed,
        ..Capabilities::default()
    }
}

/// Changes a directory; told how many requests came before.
type Churn = Box<dyn FnMut(&mut Fake, usize)>;

/// A crawl on the bench: requests are answered, and pages taken, in an order drawn by lot.
struct Bench {
    fake: Fake,
    page_size: u32,
    concurrency: usize,
    rng: fastrand::Rng,
    /// Gives up after so many requests.
    most_requests: usize,
    /// Notes where the crawl stands after each page.
    keeps_positions: bool,
    /// Happens before each request is answered.
    churn: Churn,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    certificate: Certificate,
    capabilities: Capabilities,
    ids: BTreeSet<String>,
    rejects: u64,
    /// Where the crawl stood after each page.
    positions: Vec<(CrawlPosition, BTreeSet<String>)>,
}

impl Bench {
    fn new(fake: Fake) -> Self {
        Self {
            fake,
            page_size: 10,
            concurrency: 1,
            rng: fastrand::Rng::with_seed(1),
            most_requests: 2_000,
            keeps_positions: false,
            churn: Box::new(|_, _| {}),
        }
    }

    fn full(&mut self, capabilities: Capabilities) -> Outcome {
        self.run(CrawlPosition::start(None, capabilities), BTreeSet::new())
            .unwrap()
    }

    fn since(&mut self, seconds: i64, capabilities: Capabilities) -> Outcome {
        let start = CrawlPosition::start(Some(time(seconds)), capabilities);
        self.run(start, BTreeSet::new()).unwrap()
    }

    fn total(&mut self) -> Result<u64, Error> {
        let mut start_index = 1;
        loop {
            let query = ListQuery {
                filter: None,
                start_index,
                count: 1,
            };
            match self.fake.list(&query) {
                Ok(listing) => return Ok(listing.total),
                Err(_) if start_index < 3 => start_index += 1,
                Err(error) => return Err(error),
            }
        }
    }

    fn run(&mut self, from: CrawlPosition, mut ids: BTreeSet<String>) -> Result<Outcome, Error> {
        let resumed = from != CrawlPosition::start(from.since, from.capabilities.clone());
        let mut course = Course::new(ResourceType::User, self.page_size, self.concurrency, from);
        if course.needs_total() {
            let total = self.total()?;
            course.open(total, Some(time(self.fake.now)));
        }
        let mut in_flight: Vec<Ask> = Vec::new();
        let mut positions = vec![(course.position().clone(), ids.clone())];
        let mut rejects = 0;
        let before = self.fake.asked.len();
        loop {
            while let Some(ask) = course.ask() {
                in_flight.push(ask);
                assert!(in_flight.len() <= self.concurrency);
            }
            assert!(
                self.fake.asked.len() - before < self.most_requests,
                "does not end"
            );
            if !in_flight.is_empty() && self.rng.bool() {
                let ask = in_flight.swap_remove(self.rng.usize(0..in_flight.len()));
                let n = self.fake.asked.len();
                (self.churn)(&mut self.fake, n);
                let outcome = self.fake.list(&ask.query);
                course.answer(&ask, Base::default(), outcome);
                continue;
            }
            course.settle();
            let Some(page) = course.hand_out()? else {
                if course.is_over() || (in_flight.is_empty() && course.ask().is_none()) {
                    break;
                }
                continue;
            };
            let known = ids.len();
            ids.extend(page.rows.iter().map(|row| row.id.as_str().to_owned()));
            ids.extend(
                page.rejects
                    .iter()
                    .filter_map(|r| r.id.as_ref())
                    .map(|id| id.as_str().to_owned()),
            );
            rejects += page.rejects.len() as u64;
            course.report((ids.len() - known) as u64);
            if self.keeps_positions {
                positions.push((course.position().clone(), ids.clone()));
            }
        }
        let refused = course.is_refused();
        let position = course.conclude();
        let mut capabilities = position.capabilities.clone();
        let total_after = match position.total_before {
            Some(_) if !refused => Some(self.total()?),
            _ => None,
        };
        let ended = Ended {
            position,
            refused,
            distinct: ids.len() as u64,
            rejects,
            total_after,
            resumed,
        };
        capabilities.order_unknown |= key_skips(&ended);
        Ok(Outcome {
            certificate: judge(ended),
            capabilities,
            ids,
            rejects,
            positions,
        })
    }
}
