//! Reading by `startIndex`, for instances that do not honour a filter on `id` (facts page, Q5 to Q10).
//! Rows that come and go shift all later ones; what that does is seen by the totals.

use serde::{Deserialize, Serialize};

use super::size::PageSize;
use super::way::{PageRead, Place};
use crate::model::Doubt;
use crate::scim::client::Listing;

/// How far a crawl by `startIndex` has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ByIndex {
    /// `startIndex` of the next page.
    pub(super) next: u64,
    /// The total that every page has to tell.
    pub(super) total: Option<u64>,
    /// Where the list ends, by the larger of that and the total told last.
    end: u64,
    /// How many to ask for.
    pub(super) size: PageSize,
    /// The most rows of any page: what a full page is, if the instance caps its pages in silence.
    largest: u64,
    /// Whether the last page was full, so that pages behind the next may be asked for ahead.
    full: bool,
    /// Whether a page in the middle was short: then where the next one starts is known only when
    /// it has come, and nothing is asked for ahead any more.
    one_by_one: bool,
    /// Whether it was read to its end.
    pub(super) ended: bool,
    /// What the report on the last page decides.
    pub(super) pending: Option<Pending>,
    /// Pages that this crawl handed out before it started anew by index: so many bring nothing new.
    familiar: u64,
    /// Pages that brought nothing new, less twice those that did: while people come and go, even an
    /// instance that repeats itself has somebody new now and then.
    barren: u64,
}

/// What the report on a page decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Pending {
    /// A full page at the end of the list: on if it brought new ids, the total may be too small.
    AtEnd,
    /// A short page in the middle. The instance caps its pages, or it hides rows of the page it
    /// cut: if the page brought nothing new, the next cut starts here.
    Short {
        /// Behind all that was asked for.
        next: u64,
    },
}

impl ByIndex {
    /// Starts at the first row. `total` is what an unfiltered request told before.
    pub(super) fn new(page_size: u32, total: Option<u64>, familiar: u64) -> Self {
        Self {
            next: 1,
            total,
            end: total.unwrap_or(0),
            size: PageSize::new(page_size),
            largest: 0,
            full: false,
            one_by_one: false,
            ended: false,
            pending: None,
            familiar,
            barren: 0,
        }
    }

    /// Whether pages behind the next may be asked for before it has come.
    pub(super) fn reads_ahead(&self, page_size: u32) -> bool {
        self.full && !self.one_by_one && self.pending.is_none() && self.size.get() == page_size
    }

    /// Where the pages start that may be asked for now, nearest first. All but the first hold only
    /// if the pages before them turn out full.
    pub(super) fn starts(&self, page_size: u32) -> impl Iterator<Item = Place> {
        let open = !self.ended && self.pending.is_none();
        let stride = u64::from(page_size);
        let last = if self.reads_ahead(page_size) {
            self.end
        } else {
            0
        };
        let ahead = (1..)
            .map_while(move |k: u64| self.next.checked_add(stride.checked_mul(k)?))
            .take_while(move |start| *start <= last);
        std::iter::once(self.next)
            .chain(ahead)
            .filter(move |_| open)
    }

    /// Whether the page that starts here is the one to read now.
    pub(super) fn is_next(&self, start: Place) -> bool {
        !self.ended && self.pending.is_none() && start == self.next
    }

    /// Moves behind the page that starts at `next`. With `is_filtered`, a page that is not full is
    /// the end where it shows the last one counted.
    pub(super) fn read(&mut self, count: u32, listing: &Listing, is_filtered: bool) -> PageRead {
        let start = self.next;
        let n = (listing.rows.len() + listing.rejects.len()) as u64;
        let behind = start.saturating_add(u64::from(count));
        let mut read = PageRead::default();

        let total = *self.total.get_or_insert(listing.total);
        if listing.total != total {
            read.doubts.push(Doubt::TotalMoved {
                before: total,
                after: listing.total,
            });
        }
        self.end = total.max(listing.total);

        self.full = n >= u64::from(count);
        if n == 0 {
            if start <= listing.total {
                read.doubts.push(Doubt::RowsHidden);
            }
            self.one_by_one = true;
            self.next = behind;
            self.ended = behind > self.end;
            read.empty = !self.ended;
            return read;
        }

        self.largest = self.largest.max(n);
        self.next = start.saturating_add(n);
        if self.next > self.end {
            let capped = !is_filtered && n >= self.largest.min(u64::from(count));
            if self.full || capped {
                self.pending = Some(Pending::AtEnd);
            } else {
                self.ended = true;
            }
        } else if !self.full {
            self.one_by_one = true;
            self.pending = Some(Pending::Short { next: behind });
        }
        read
    }

    /// Moves behind one resource that cannot be read. Even where it was the last one counted, what
    /// comes next is asked for: the total may be too small.
    pub(super) fn step_over(&mut self) {
        self.next = self.next.saturating_add(1);
        self.full = false;
    }

    /// Decides what waited for the report on the last page. False when so many pages brought nothing
    /// new that the crawl has to end.
    pub(super) fn report(&mut self, new_ids: u64, most_barren: u64) -> bool {
        match self.pending.take() {
            Some(Pending::AtEnd) => self.ended = new_ids == 0,
            // A crawl that started anew has seen the page before, so that this tells nothing.
            Some(Pending::Short { next }) if new_ids == 0 && self.familiar == 0 => {
                self.next = self.next.max(next);
                self.ended = self.next > self.end;
            }
            Some(Pending::Short { .. }) | None => {}
        }
        self.barren = match new_ids {
            0 => self.barren.saturating_add(1),
            _ => self.barren.saturating_sub(2),
        };
        self.barren <= most_barren.saturating_add(self.familiar)
    }

    /// Whether this can be the position of a crawl: text from a file is not believed.
    pub(super) fn is_valid(&self) -> bool {
        self.next >= 1 && self.next < u64::MAX / 2 && self.size.is_valid()
    }
}
