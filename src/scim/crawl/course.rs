//! What to ask next and what to make of the answers: the rules of a crawl, without requests or
//! waiting. Answers may come in any order; pages are handed out so that what was handed out is
//! always a position from which a crawl can go on.

mod answer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use super::index::ByIndex;
use super::key::ByKey;
use super::position::{CrawlPosition, Seen};
use super::way::{Moved, Place, Way};
use crate::model::{Base, Doubt, Obeyed, Page, ResourceType};
use crate::scim::client::{ListQuery, Listing};
use crate::scim::error::Error;

/// Pages without anybody, or without anybody new, that are taken beyond those that brought somebody. A
/// block of hidden users is stepped over; an instance that answers the same for ever is not asked for
/// ever.
const MOST_BARREN_PAGES: u64 = 100;

/// One request of a crawl.
#[derive(Debug)]
pub(super) struct Ask {
    /// What to ask.
    pub(super) query: ListQuery,
    place: Place,
    /// Answers to what was asked before a new start do not count.
    generation: u64,
}

/// The course of one crawl.
pub(super) struct Course {
    resource: ResourceType,
    page_size: u32,
    concurrency: usize,
    /// How far it has been read; `None` before it set out.
    way: Option<Way>,
    /// How far it has been handed out.
    handed: CrawlPosition,
    /// What was read and not handed out yet, in this order.
    ready: VecDeque<Step>,
    /// Requests in flight, those included whose answers no longer count.
    in_flight: usize,
    /// The places of those that count.
    asked: BTreeSet<Place>,
    /// Answers that wait for those before them.
    arrived: BTreeMap<Place, Answered>,
    generation: u64,
    /// `totalResults` as last told for the whole.
    total: Option<u64>,
    pages_read: u64,
    largest_page: u64,
    /// Pages without anybody that are still taken; each page with somebody adds one.
    patience: u64,
    unreadable_in_a_row: u32,
    /// Some row was shown to obey the filter on `meta.lastModified`.
    verified: bool,
    /// Nothing that the filter on `meta.lastModified` gave is believed, and why.
    refused: Option<Doubt>,
    /// It was stopped before the end of the list.
    bound_reached: bool,
    failed: Option<Error>,
}

/// One answer, and where the mirror stood when it was asked for.
struct Answered {
    count: u32,
    base: Base,
    outcome: Result<Listing, Error>,
}

/// What one answer changes when its page is handed out.
struct Step {
    /// `None` for an answer without anybody.
    page: Option<Page>,
    seen: Seen,
    moved: Moved,
}

impl Course {
    pub(super) fn new(
        resource: ResourceType,
        page_size: u32,
        concurrency: usize,
        position: CrawlPosition,
    ) -> Self {
        let mut way = position.way.clone();
        if let Some(Way::Index(by_index)) = &mut way {
            // Whether the last page brought anything new was lost with the interruption. Going on
            // costs a request at most.
            by_index.pending = None;
        }
        let mut course = Self {
            resource,
            page_size: page_size.max(1),
            concurrency: concurrency.max(1),
            way,
            ready: VecDeque::new(),
            in_flight: 0,
            asked: BTreeSet::new(),
            arrived: BTreeMap::new(),
            generation: 0,
            total: position.total_before,
            pages_read: position.seen.pages,
            largest_page: 0,
            patience: MOST_BARREN_PAGES,
            unreadable_in_a_row: 0,
            verified: position.seen.verified > 0,
            refused: None,
            bound_reached: false,
            failed: None,
            handed: position,
        };
        if course.handed.since.is_some() && course.way.is_none() {
            course.set_out();
        }
        course
    }

    /// Whether the total has to be asked for before anything else.
    pub(super) fn needs_total(&self) -> bool {
        self.way.is_none() && !self.shows_nobody()
    }

    /// Takes the total that an unfiltered request told, and its `Date`.
    pub(super) fn open(&mut self, total: u64, date: Option<Timestamp>) {
        self.total = Some(total);
        self.handed.total_before = Some(total);
        self.handed.first_date = date;
        if total > 0 {
            self.set_out();
        }
    }

    /// The next request that may be sent now. Pages that wait to be handed out count as requests in
    /// flight, so that memory stays flat.
    pub(super) fn ask(&mut self) -> Option<Ask> {
        let waiting = self.ready.iter().filter(|step| step.page.is_some()).count();
        if self.in_flight + waiting + self.arrived.len() >= self.concurrency || self.is_stopped() {
            return None;
        }
        let way = self.way.as_ref()?;
        let place = way
            .places(self.page_size)
            .find(|at| !self.asked.contains(at) && !self.arrived.contains_key(at))?;
        let query = way.query(place, self.handed.since);
        self.asked.insert(place);
        self.in_flight += 1;
        Some(Ask {
            query,
            place,
            generation: self.generation,
        })
    }

    /// Takes the answer to a request.
    pub(super) fn answer(&mut self, ask: &Ask, base: Base, outcome: Result<Listing, Error>) {
        self.in_flight -= 1;
        if ask.generation != self.generation {
            return;
        }
        self.asked.remove(&ask.place);
        let answered = Answered {
            count: ask.query.count,
            base,
            outcome,
        };
        self.arrived.insert(ask.place, answered);
        while !self.is_stopped()
            && let Some(way) = &self.way
            && let Some(place) = self.arrived.keys().copied().find(|at| way.is_next(*at))
            && let Some(answered) = self.arrived.remove(&place)
        {
            self.read(place, answered);
        }
    }

    /// The next page that was read.
    ///
    /// # Errors
    /// When the next page cannot be had, once all before it are handed out.
    pub(super) fn hand_out(&mut self) -> Result<Option<Page>, Error> {
        while let Some(step) = self.ready.pop_front() {
            self.handed.seen.add(step.seen);
            if let Some(way) = &mut self.handed.way {
                way.follow(step.moved);
            }
            if step.page.is_some() {
                return Ok(step.page);
            }
        }
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    /// Takes how many ids of the page handed out last were new.
    pub(super) fn report(&mut self, new_ids: u64) {
        let caught_up = self.ready.is_empty();
        if let Some(Way::Index(by_index)) = &mut self.way {
            // What waits for a report is always the page read last.
            if by_index.pending.is_none() || caught_up {
                self.bound_reached |= !by_index.report(new_ids, MOST_BARREN_PAGES);
            }
            if caught_up {
                self.handed.way = self.way.clone();
            }
        }
    }

    /// A page that was not reported on counts as one that brought nothing new.
    pub(super) fn settle(&mut self) {
        let waits = matches!(&self.way, Some(Way::Index(by_index)) if by_index.pending.is_some());
        if waits && self.ready.is_empty() {
            self.report(0);
        }
    }

    /// Whether it has come to its end, good or bad, and handed out everything.
    pub(super) fn is_over(&self) -> bool {
        let has_ended = self.way.as_ref().is_some_and(Way::has_ended);
        self.ready.is_empty() && (self.is_stopped() || has_ended || self.shows_nobody())
    }

    /// Whether what was read is not believed.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some() || self.shows_nobody()
    }

    /// How far it has been handed out.
    pub(super) fn position(&self) -> &CrawlPosition {
        &self.handed
    }

    /// `totalResults` as last told.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Ends it: what it saw, with the doubts about its end.
    pub(super) fn conclude(mut self) -> CrawlPosition {
        let cut_short = self.bound_reached || !self.is_over();
        if self.shows_nobody() {
            self.handed.seen.doubt(Doubt::Empty);
        } else if let Some(doubt) = self.refused {
            self.handed.seen.doubt(doubt);
        } else if cut_short {
            self.handed.seen.doubt(Doubt::BoundReached);
        }
        self.handed
    }

    /// Whether the instance says that there is nobody, which is never true of a whole directory: the
    /// account that asks is in it.
    fn shows_nobody(&self) -> bool {
        self.handed.since.is_none() && self.handed.total_before == Some(0)
    }

    fn is_stopped(&self) -> bool {
        self.failed.is_some() || self.bound_reached || self.refused.is_some()
    }

    /// Takes the way that the instance is known to honour.
    fn set_out(&mut self) {
        let known = &self.handed.capabilities;
        let is_full = self.handed.since.is_none();
        let by_key = if is_full {
            known.id_after
        } else {
            known.modified_and_id
        };
        let total = self.handed.total_before;
        let ordered = !known.ids_differ_in_case && !known.order_unknown;
        let way = if by_key == Obeyed::Obeyed && ordered {
            let side_by_side = is_full && self.concurrency > 1 && known.id_range == Obeyed::Obeyed;
            Way::Key(ByKey::new(self.page_size, total.unwrap_or(0), side_by_side))
        } else {
            Way::Index(ByIndex::new(self.page_size, total, 0))
        };
        self.handed.way = Some(way.clone());
        self.way = Some(way);
    }
}
