//! What one answer does to a crawl.

use super::super::index::ByIndex;
use super::super::position::Seen;
use super::super::stamps::{self, Stamps};
use super::super::way::{Contradiction, Moved, PageRead, Place, Way};
use super::{Answered, Course, MOST_BARREN_PAGES, Step};
use crate::model::{Base, Doubt, Obeyed, Page, Reject};
use crate::scim::client::Listing;
use crate::scim::error::Error;

/// Pages beyond those that the total lets expect: room for an instance that counts too few.
const MOST_EXTRA_PAGES: u64 = 10_000;

/// The largest total that is believed when pages are counted: ten times what one mirror is meant for.
const MOST_BELIEVED_TOTAL: u64 = 50_000_000;

/// Resources in a row that may be unreadable, each alone in its page. Beyond that it is not a
/// resource that spoils its page, but the instance that cannot be read.
const MOST_UNREADABLE_IN_A_ROW: u32 = 50;

impl Course {
    /// Takes the answer for a place that is next.
    pub(super) fn read(&mut self, place: Place, answered: Answered) {
        let since = self.handed.since;
        let Some(way) = &mut self.way else { return };
        let filters_ids = way.filters_ids(place);
        match answered.outcome {
            Ok(listing) => {
                let Some(stamps) = Stamps::of(&listing, since) else {
                    return self.contradicted(filters_ids, Doubt::FilterIgnored, Obeyed::Ignored);
                };
                match way.read(place, answered.count, &listing, since.is_some()) {
                    Ok(mut read) => {
                        way.size(place).grow(self.page_size);
                        if !read.empty {
                            self.patience = MOST_BARREN_PAGES.min(self.patience + 1);
                        } else if self.patience > 0 {
                            self.patience -= 1;
                        } else {
                            way.give_up(place);
                            read.doubts.push(Doubt::BoundReached);
                        }
                        let moved = way.moved(place);
                        self.take_page(answered.base, listing, read, stamps, moved);
                    }
                    Err(Contradiction::OutOfBounds) => {
                        self.contradicted(true, Doubt::FilterIgnored, Obeyed::Ignored);
                    }
                    Err(Contradiction::CaseTwins) => {
                        self.handed.capabilities.ids_differ_in_case = true;
                        self.go_by_index(Doubt::OrderBroken);
                    }
                    Err(Contradiction::Unordered) => {
                        self.handed.capabilities.order_unknown = true;
                        self.go_by_index(Doubt::OrderBroken);
                    }
                }
            }
            Err(error) if error.is_refused_query() && (filters_ids || since.is_some()) => {
                self.contradicted(filters_ids, Doubt::FilterRefused, Obeyed::Refused);
            }
            Err(error) if error.is_unreadable() || error.is_timeout() => {
                if way.size(place).shrink() {
                    self.drop_ahead();
                    return;
                }
                match error.to_reject().filter(|_| !error.is_timeout()) {
                    Some(reject) => {
                        way.step_over(place, &reject);
                        let moved = way.moved(place);
                        self.take_reject(answered.base, reject, moved, error);
                    }
                    None => self.failed = Some(error),
                }
            }
            Err(error) => self.failed = Some(error),
        }
    }

    fn take_page(
        &mut self,
        base: Base,
        listing: Listing,
        read: PageRead,
        stamps: Stamps,
        moved: Moved,
    ) {
        self.verified |= stamps.verified > 0;
        if stamps.unverified > 0 && !self.verified {
            // Not a single row shows that the filter is honoured. That may be one odd record: what
            // is known of the instance stays.
            self.refused = Some(Doubt::FilterIgnored);
            return;
        }
        if self.handed.since.is_some() && self.pages_read == 0 {
            self.handed.first_date = listing.date;
            self.total = Some(listing.total);
        }
        let shifted = self.handed.since.is_none()
            && matches!(moved, Moved::Index(_))
            && stamps::has_newcomer(self.resource, &listing, self.handed.first_date);
        let page = Page {
            base,
            rows: listing.rows,
            rejects: listing.rejects,
        };
        let mut seen = Seen {
            verified: stamps.verified,
            unverified: stamps.unverified,
            lost_between: read.lost_between,
            ..Seen::page(&page, listing.date)
        };
        for doubt in read.doubts {
            seen.doubt(doubt);
        }
        if shifted {
            seen.doubt(Doubt::Shifted);
        }
        self.largest_page = self.largest_page.max(seen.rows);
        self.unreadable_in_a_row = 0;
        self.push(page, seen, moved);
    }

    fn take_reject(&mut self, base: Base, reject: Reject, moved: Moved, error: Error) {
        self.unreadable_in_a_row += 1;
        if self.unreadable_in_a_row > MOST_UNREADABLE_IN_A_ROW {
            self.failed = Some(error);
            return;
        }
        let page = Page {
            base,
            rows: Vec::new(),
            rejects: vec![reject],
        };
        let seen = Seen::page(&page, None);
        self.push(page, seen, moved);
    }

    fn push(&mut self, page: Page, seen: Seen, moved: Moved) {
        self.pages_read += 1;
        self.bound_reached |= self.pages_read > self.most_pages();
        self.ready.push_back(Step {
            page: (seen.rows > 0).then_some(page),
            seen,
            moved,
        });
        if (self.way.as_ref()).is_some_and(|way| !way.ahead_holds(self.page_size)) {
            self.drop_ahead();
        }
    }

    /// A bound that only an instance reaches which never ends.
    fn most_pages(&self) -> u64 {
        let believed = self.total.filter(|total| *total <= MOST_BELIEVED_TOTAL);
        MOST_EXTRA_PAGES + 2 * believed.unwrap_or(0) / self.largest_page.max(1)
    }

    /// Takes note that a filter is not honoured. Without the condition on `id` a crawl can go on;
    /// without the one on `meta.lastModified` it is another crawl.
    fn contradicted(&mut self, by_id: bool, doubt: Doubt, obeyed: Obeyed) {
        let known = &mut self.handed.capabilities;
        if !by_id {
            known.modified_filter = obeyed;
            self.refused = Some(doubt);
            return;
        }
        match &self.way {
            _ if self.handed.since.is_some() => known.modified_and_id = obeyed,
            Some(Way::Key(by_key)) if by_key.ranges.len() > 1 => known.id_range = obeyed,
            _ => known.id_after = obeyed,
        }
        self.go_by_index(doubt);
    }

    /// Starts anew by `startIndex`, since what came by key cannot be trusted.
    fn go_by_index(&mut self, doubt: Doubt) {
        let seen = &mut self.handed.seen;
        if self.handed.since.is_some() || seen.rows == 0 {
            // What the new start reads stands by itself.
            seen.doubts.clear();
        } else {
            // Among the ids seen are some that may be gone by now, so that no number of them proves
            // anything.
            seen.doubt(doubt);
        }
        let familiar = seen.pages;
        let total = self.handed.total_before;
        let way = Way::Index(ByIndex::new(self.page_size, total, familiar));
        self.handed.way = Some(way.clone());
        self.way = Some(way);
        self.ready.clear();
        self.drop_ahead();
    }

    /// What was asked for ahead starts at the wrong place.
    fn drop_ahead(&mut self) {
        if matches!(self.way, Some(Way::Index(_))) {
            self.generation += 1;
            self.asked.clear();
            self.arrived.clear();
        }
    }
}
