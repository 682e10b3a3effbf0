//! What may be concluded from a crawl: the certificate.

use super::position::CrawlPosition;
use crate::model::{Certificate, Doubt, Paging, Verdict};

/// What is known when a crawl has ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    /// How far it came, with every doubt that its pages raised.
    pub(super) position: CrawlPosition,
    /// Whether not even what was read is believed.
    pub(super) refused: bool,
    /// Distinct ids that the caller saw.
    pub(super) distinct: u64,
    /// Rejects that the caller counted.
    pub(super) rejects: u64,
    /// `totalResults` after the last page of a full crawl.
    pub(super) total_after: Option<u64>,
    /// Whether it went on where an interrupted one had stopped.
    pub(super) resumed: bool,
}

/// Judges a crawl. `complete` only if nothing speaks against it.
pub(super) fn judge(ended: Ended) -> Certificate {
    let paging = ended.position.paging();
    let CrawlPosition {
        total_before,
        first_date,
        mut seen,
        ..
    } = ended.position;
    // Resources without a readable id are counted by the instance, so they are counted here.
    let found = ended.distinct + seen.unreadable_ids;
    if let (Some(before), Some(after)) = (total_before, ended.total_after) {
        if before != after {
            seen.doubt(Doubt::TotalMoved { before, after });
        }
        if found != after {
            seen.doubt(Doubt::TotalDiffers {
                distinct: ended.distinct,
                total: after,
            });
        }
    }
    if seen.unreadable_ids > 0 {
        seen.doubt(Doubt::UnreadableId);
    }
    let verdict = if ended.refused {
        Verdict::Refused
    } else if seen.doubts.is_empty() {
        Verdict::Complete
    } else {
        Verdict::Partial
    };
    Certificate {
        verdict,
        reasons: seen.doubts,
        paging,
        pages: seen.pages,
        rows: seen.rows,
        distinct: ended.distinct,
        total_before,
        total_after: ended.total_after,
        rejects: ended.rejects,
        first_date,
        newest_modified_at: seen.newest_modified_at,
        resumed: ended.resumed,
    }
}

/// Whether a crawl by key found fewer than the instance counts although nobody came or went, and
/// rows were lost behind a full page: its `gt` skips somebody, as it does where ids differ only in
/// case. Then `startIndex` finds them.
pub(super) fn key_skips(ended: &Ended) -> bool {
    let seen = &ended.position.seen;
    ended.position.paging() == Paging::Key
        && seen.lost_between
        && ended.position.total_before == ended.total_after
        && ended
            .total_after
            .is_some_and(|total| ended.distinct + seen.unreadable_ids < total)
}
