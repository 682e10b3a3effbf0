//! The two ways from page to page, behind one face.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::index::ByIndex;
use super::key::{ByKey, Range};
use super::order::Orders;
use super::size::PageSize;
use crate::model::{Doubt, Reject};
use crate::scim::client::{ListQuery, Listing};
use crate::scim::filter;

/// How a crawl goes from page to page, and how far it has gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Way {
    /// By `filter=id gt "LAST"`.
    Key(ByKey),
    /// By `startIndex`.
    Index(ByIndex),
}

/// Where a page belongs: the number of its range, or its `startIndex`.
pub(super) type Place = u64;

/// How far one page brought a crawl.
#[derive(Clone, Debug)]
pub(super) enum Moved {
    /// One range of a crawl by key.
    Range(usize, Box<Range>, Orders),
    /// A crawl by `startIndex`.
    Index(ByIndex),
}

/// What a page told beside its rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PageRead {
    /// Reasons not to believe the crawl complete.
    pub(super) doubts: Vec<Doubt>,
    /// There was nobody on it, and it was not the end.
    pub(super) empty: bool,
    /// Fewer were left behind a full page than it had told.
    pub(super) lost_between: bool,
}

/// Why an answer cannot be one to the request that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contradiction {
    /// Rows that the filter on `id` excludes, in whatever order.
    OutOfBounds,
    /// Rows in no order that is known here.
    Unordered,
    /// Ids that are equal but for case: which of them `gt` excludes cannot be told.
    CaseTwins,
}

impl Way {
    /// The places that may be asked for now, the most urgent first.
    pub(super) fn places(&self, page_size: u32) -> Box<dyn Iterator<Item = Place> + '_> {
        match self {
            Self::Key(by_key) => Box::new(by_key.open_ranges()),
            Self::Index(by_index) => Box::new(by_index.starts(page_size)),
        }
    }

    /// The request for a place.
    pub(super) fn query(&self, place: Place, since: Option<Timestamp>) -> ListQuery {
        match self {
            Self::Key(by_key) => by_key.range(place).query(since),
            Self::Index(by_index) => ListQuery {
                filter: since.map(filter::modified_from),
                start_index: place,
                count: by_index.size.get(),
            },
        }
    }

    /// Whether the request for a place has a condition on `id`.
    pub(super) fn filters_ids(&self, place: Place) -> bool {
        match self {
            Self::Key(by_key) => by_key.range(place).filters_ids(),
            Self::Index(_) => false,
        }
    }

    /// Whether a page that arrived can be read now. By `startIndex`, one after the other.
    pub(super) fn is_next(&self, place: Place) -> bool {
        match self {
            Self::Key(_) => true,
            Self::Index(by_index) => by_index.is_next(place),
        }
    }

    /// Whether what was asked for behind the page read last is still what is needed.
    pub(super) fn ahead_holds(&self, page_size: u32) -> bool {
        match self {
            Self::Key(_) => true,
            Self::Index(by_index) => by_index.reads_ahead(page_size),
        }
    }

    /// Moves behind a page, unless it contradicts its request. `is_filtered` by `meta.lastModified`:
    /// then a page that is not full is the end when it shows the last one counted.
    pub(super) fn read(
        &mut self,
        place: Place,
        count: u32,
        listing: &Listing,
        is_filtered: bool,
    ) -> Result<PageRead, Contradiction> {
        match self {
            Self::Key(by_key) => by_key.read(place, count, listing, is_filtered),
            Self::Index(by_index) => Ok(by_index.read(count, listing, is_filtered)),
        }
    }

    /// Gives a place up: nothing more is asked for there.
    pub(super) fn give_up(&mut self, place: Place) {
        match self {
            Self::Key(by_key) => by_key.range_mut(place).ended = true,
            Self::Index(by_index) => by_index.ended = true,
        }
    }

    /// Moves behind one resource that cannot be read.
    pub(super) fn step_over(&mut self, place: Place, reject: &Reject) {
        match self {
            Self::Key(by_key) => by_key.step_over(place, reject),
            Self::Index(by_index) => by_index.step_over(),
        }
    }

    /// How many are asked for at a place.
    pub(super) fn size(&mut self, place: Place) -> &mut PageSize {
        match self {
            Self::Key(by_key) => &mut by_key.range_mut(place).size,
            Self::Index(by_index) => &mut by_index.size,
        }
    }

    /// How far the page at this place brought it.
    pub(super) fn moved(&self, place: Place) -> Moved {
        match self {
            Self::Key(by_key) => by_key.moved(place),
            Self::Index(by_index) => Moved::Index(by_index.clone()),
        }
    }

    /// Goes where another crawl on the same way has gone.
    pub(super) fn follow(&mut self, moved: Moved) {
        match (self, moved) {
            (Self::Key(by_key), Moved::Range(number, range, orders)) => {
                by_key.ranges[number] = *range;
                by_key.orders = by_key.orders.and(orders);
            }
            (way, Moved::Index(by_index)) => *way = Self::Index(by_index),
            // A page by key cannot be ready on a way by index: they are dropped at its start.
            (Self::Index(_), Moved::Range(..)) => {}
        }
    }

    /// Whether it was gone to its end.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Key(by_key) => by_key.ranges.iter().all(|range| range.ended),
            Self::Index(by_index) => by_index.ended,
        }
    }

    /// Whether it can be a way that was gone: text from a file is not believed.
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Key(by_key) => by_key.is_valid(),
            Self::Index(by_index) => by_index.is_valid(),
        }
    }
}
