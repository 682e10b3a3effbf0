//! Reading by key: `filter=id gt "LAST"`, in one range of ids or in sixteen side by side. Rows that
//! come and go elsewhere shift nothing (facts page, Q5 and Q12).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::order::{Orders, are_case_twins};
use super::size::PageSize;
use super::way::{Contradiction, Moved, PageRead, Place};
use crate::model::{Doubt, Reject, ResourceId, Row};
use crate::scim::client::{ListQuery, Listing};
use crate::scim::filter;

/// How far a crawl by key has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ByKey {
    /// The orders that all rows so far allow.
    pub(super) orders: Orders,
    /// Ranges that together are all ids, ascending.
    pub(super) ranges: Vec<Range>,
}

/// One range of ids, and how far it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    /// The first id that belongs to it; open-ended without.
    from: Option<String>,
    /// The first id that does not belong to it any more; open-ended without.
    to: Option<String>,
    /// The last id read.
    after: Option<String>,
    /// Rows behind `after` to step over, because they are not shown or cannot be read.
    skip: u64,
    /// Of those, the ones that cannot be read and were handed out as rejects.
    rejected: u64,
    /// What `totalResults` has to be now, if nobody was lost between two pages.
    expected: Option<u64>,
    /// Whether it was read to its end.
    pub(super) ended: bool,
    /// How many to ask for.
    pub(super) size: PageSize,
}

impl ByKey {
    /// Whether a total is large enough for ranges side by side.
    const RANGES_FROM_PAGES: u64 = 10;

    /// Starts with one range, or with sixteen where that pays.
    pub(super) fn new(page_size: u32, total: u64, side_by_side: bool) -> Self {
        let many = side_by_side && total >= Self::RANGES_FROM_PAGES * u64::from(page_size);
        // A `sys_id` starts with a hex digit. Any other id falls into one of the ranges as well,
        // whatever the order, since these bounds ascend in all of them.
        let bounds: &[&str] = if many {
            &[
                "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f",
            ]
        } else {
            &[]
        };
        let from = std::iter::once(None).chain(bounds.iter().copied().map(Some));
        let to = bounds.iter().copied().map(Some).chain([None]);
        Self {
            orders: Orders::ALL,
            ranges: from
                .zip(to)
                .map(|(from, to)| Range::new(from, to, page_size))
                .collect(),
        }
    }

    /// The ranges that are not read to their end, the first one first.
    pub(super) fn open_ranges(&self) -> impl Iterator<Item = Place> {
        let numbered = (0..).zip(&self.ranges);
        numbered.filter_map(|(number, range)| (!range.ended).then_some(number))
    }

    pub(super) fn range(&self, place: Place) -> &Range {
        &self.ranges[Self::number(place)]
    }

    pub(super) fn range_mut(&mut self, place: Place) -> &mut Range {
        &mut self.ranges[Self::number(place)]
    }

    pub(super) fn moved(&self, place: Place) -> Moved {
        let range = Box::new(self.range(place).clone());
        Moved::Range(Self::number(place), range, self.orders)
    }

    /// Moves behind a page, unless it contradicts its request. The end of a range is an answer that
    /// counts nobody; where `shown_is_all`, also a page that is not full and shows the last one counted.
    pub(super) fn read(
        &mut self,
        place: Place,
        count: u32,
        listing: &Listing,
        shown_is_all: bool,
    ) -> Result<PageRead, Contradiction> {
        self.orders = self.range(place).check(&listing.rows, self.orders)?;
        Ok((self.range_mut(place)).advance(count, listing, shown_is_all))
    }

    pub(super) fn step_over(&mut self, place: Place, reject: &Reject) {
        let orders = self.orders;
        self.range_mut(place).step_over(reject, orders);
    }

    /// Places are numbers of `ranges`, which never changes its length.
    fn number(place: Place) -> usize {
        usize::try_from(place).unwrap_or(usize::MAX)
    }

    /// Whether this can be the position of a crawl: text from a file is not believed.
    pub(super) fn is_valid(&self) -> bool {
        let open_ended = |id: Option<&Option<String>>| id == Some(&None);
        !self.orders.is_none()
            && open_ended(self.ranges.first().map(|range| &range.from))
            && open_ended(self.ranges.last().map(|range| &range.to))
            && self
                .ranges
                .windows(2)
                .all(|pair| pair[0].to.is_some() && pair[0].to == pair[1].from)
            && self.ranges.iter().all(|range| range.is_valid(self.orders))
    }
}

impl Range {
    fn new(from: Option<&str>, to: Option<&str>, page_size: u32) -> Self {
        Self {
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
            after: None,
            skip: 0,
            rejected: 0,
            expected: None,
            ended: false,
            size: PageSize::new(page_size),
        }
    }

    /// Whether the next request has a condition on `id`.
    pub(super) fn filters_ids(&self) -> bool {
        self.after.is_some() || self.from.is_some() || self.to.is_some()
    }

    /// The next request.
    pub(super) fn query(&self, since: Option<Timestamp>) -> ListQuery {
        let lower = match (&self.after, &self.from) {
            (Some(after), _) => Some(filter::id_after(after)),
            (None, from) => from.as_deref().map(filter::id_from),
        };
        let upper = self.to.as_deref().map(filter::id_before);
        ListQuery {
            filter: filter::all([since.map(filter::modified_from), lower, upper]),
            start_index: self.skip + 1,
            count: self.size.get(),
        }
    }

    /// The orders in which the rows ascend, from the last id read to the end of the range.
    fn check(&self, rows: &[Row], orders: Orders) -> Result<Orders, Contradiction> {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(orders);
        };
        let mut left = self
            .within(first.id.as_str(), orders)
            .and(self.within(last.id.as_str(), orders));
        let ids = self
            .after
            .as_deref()
            .into_iter()
            .chain(rows.iter().map(|row| row.id.as_str()));
        let mut previous: Option<&str> = None;
        for id in ids {
            // The same id once more in one page is one resource, not a second one (Q14).
            if let Some(previous) = previous.filter(|previous| *previous != id) {
                if are_case_twins(previous, id) {
                    return Err(Contradiction::CaseTwins);
                }
                left = left.ascending(previous, id);
            }
            previous = Some(id);
        }
        if !left.is_none() {
            return Ok(left);
        }
        let outside = |row: &Row| self.within(row.id.as_str(), Orders::ALL).is_none();
        Err(if rows.iter().any(outside) {
            Contradiction::OutOfBounds
        } else {
            Contradiction::Unordered
        })
    }

    /// The orders in which an id is what was asked for.
    fn within(&self, id: &str, mut orders: Orders) -> Orders {
        match (&self.after, &self.from) {
            (Some(after), _) => orders = orders.ascending(after, id),
            (None, Some(from)) => orders = orders.not_descending(from, id),
            (None, None) => {}
        }
        match &self.to {
            Some(to) => orders.ascending(id, to),
            None => orders,
        }
    }

    /// Moves behind a page that was checked.
    fn advance(&mut self, count: u32, listing: &Listing, shown_is_all: bool) -> PageRead {
        let n = (listing.rows.len() + listing.rejects.len()) as u64;
        let shown = self.skip + n;
        let mut read = PageRead {
            lost_between: self.expected.take().is_some_and(|e| listing.total < e),
            ..PageRead::default()
        };
        // Whom such a filter shows once, it shows again: nobody's stamp goes back.
        if shown_is_all && read.lost_between {
            read.doubts.push(Doubt::RowsHidden);
        }
        if n == 0 {
            // Those who are still counted, but cannot be read, have been handed out.
            self.ended = listing.total <= self.rejected;
            if !self.ended {
                read.doubts.push(Doubt::RowsHidden);
                // Where even the last one counted was stepped over, there is no other end.
                self.ended = self.skip >= listing.total;
                read.empty = !self.ended;
                self.skip += u64::from(count);
            }
            return read;
        }
        if self.skip == 0 && (shown_is_all || n >= u64::from(count)) {
            self.expected = listing.total.checked_sub(n);
        }
        if let Some(last) = listing.rows.last() {
            self.after = Some(last.id.as_str().to_owned());
            self.skip = 0;
            self.rejected = 0;
        } else {
            self.skip += n;
            self.rejected += n;
        }
        self.ended = shown_is_all && listing.total <= shown && n < u64::from(count);
        read
    }

    /// Moves behind one resource that cannot be read: by its id where that is known and in order.
    fn step_over(&mut self, reject: &Reject, orders: Orders) {
        self.expected = None;
        let id = reject.id.as_ref().map(ResourceId::as_str);
        if let Some(id) = id.filter(|id| !self.within(id, orders).is_none()) {
            self.after = Some(id.to_owned());
            self.skip = 0;
            self.rejected = 0;
        } else {
            self.skip += 1;
            self.rejected += 1;
        }
    }

    fn is_valid(&self, orders: Orders) -> bool {
        let bounds = Self {
            after: None,
            ..self.clone()
        };
        self.size.is_valid()
            && self.rejected <= self.skip
            && self.skip < u64::MAX / 2
            && (self.after.as_deref()).is_none_or(|after| !bounds.within(after, orders).is_none())
    }
}
