//! What the stamps of a page's rows tell of the crawl.

use jiff::Timestamp;

use crate::model::ResourceType;
use crate::reconcile::decode;
use crate::scim::client::Listing;
use crate::scim::filter;

/// How many rows of a page are shown to obey the filter on `meta.lastModified`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps {
    /// Rows that do.
    pub(super) verified: u64,
    /// Rows whose stamp cannot tell.
    pub(super) unverified: u64,
}

impl Stamps {
    /// `None` when a row shows that the filter is not honoured.
    pub(super) fn of(listing: &Listing, since: Option<Timestamp>) -> Option<Self> {
        let mut stamps = Self::default();
        let Some(since) = since else {
            return Some(stamps);
        };
        for row in &listing.rows {
            match filter::obeys_modified_from(row, since) {
                Some(true) => stamps.verified += 1,
                Some(false) => return None,
                None => stamps.unverified += 1,
            }
        }
        Some(stamps)
    }
}

/// Whether a page shows somebody who was created after `start`. Where somebody comes and somebody
/// goes, the total stays while the rows between them change their places, and one that moves to a
/// page already read by `startIndex` is skipped.
pub(super) fn has_newcomer(
    resource: ResourceType,
    listing: &Listing,
    start: Option<Timestamp>,
) -> bool {
    let Some(start) = start else { return false };
    // A stamp beyond the instance's clock counts as unknown.
    let is_later = |stamp| Some(start) < stamp && stamp <= listing.date;
    // Few were modified meanwhile, so that few are decoded to know when they were created.
    let mut modified = listing.rows.iter().filter(|row| is_later(row.modified_at));
    modified
        .any(|row| decode::decode(resource, row).is_ok_and(|arrived| is_later(arrived.created_at)))
}
