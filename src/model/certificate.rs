//! What a crawl knows of its own completeness.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What may be concluded from a crawl.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything that was to be read was read, and the numbers agree.
    Complete,
    /// What was read is believed; what was not seen says nothing.
    Partial,
    /// Not even what was read is believed.
    Refused,
}

/// How the crawl went from page to page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paging {
    /// By `filter=id gt "LAST"`, in one or more ranges.
    Key,
    /// By `startIndex`.
    Index,
}

/// A reason why a crawl is not `complete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "doubt")]
pub enum Doubt {
    /// The number of distinct ids is not the total that the instance told.
    TotalDiffers {
        /// Distinct ids seen.
        distinct: u64,
        /// `totalResults`.
        total: u64,
    },
    /// The total moved while the crawl read.
    TotalMoved {
        /// At the start.
        before: u64,
        /// At the end.
        after: u64,
    },
    /// Ids did not come in one strictly ascending order.
    OrderBroken,
    /// Somebody was created while we read by `startIndex`: rows may have moved from page to page, and
    /// some may have been skipped.
    Shifted,
    /// Rows that the instance counted were never shown.
    RowsHidden,
    /// The crawl ended at its bound, not at the end of the list.
    BoundReached,
    /// A resource could not be read, nor could its id.
    UnreadableId,
    /// Rows came that the filter excludes, or of which nobody can say whether it does.
    FilterIgnored,
    /// The instance refused the filter.
    FilterRefused,
    /// The instance says there is nobody at all, or less than one.
    Empty,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TotalDiffers { distinct, total } => {
                write!(f, "it shows {distinct} distinct ids and counts {total}")
            }
            Self::TotalMoved { before, after } => {
                write!(f, "its total moved from {before} to {after} meanwhile")
            }
            Self::OrderBroken => f.write_str("ids did not come in ascending order"),
            Self::Shifted => f.write_str(
                "somebody was created meanwhile, so that rows may have moved from page to page",
            ),
            Self::RowsHidden => f.write_str("rows that it counts were never shown"),
            Self::BoundReached => f.write_str("the list did not come to an end"),
            Self::UnreadableId => f.write_str("the id of a resource could not be read"),
            Self::FilterIgnored => f.write_str("rows came that the filter excludes"),
            Self::FilterRefused => f.write_str("it refused the filter"),
            Self::Empty => f.write_str("it says that there is nobody at all"),
        }
    }
}

/// The verdict on a crawl with the numbers it rests on; stored with its sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// What may be concluded.
    pub verdict: Verdict,
    /// Why it is not `complete`; empty if it is.
    pub reasons: Vec<Doubt>,
    /// How it was paged.
    pub paging: Paging,
    /// Answers that counted as pages.
    pub pages: u64,
    /// Rows in them, repeats included.
    pub rows: u64,
    /// Distinct ids in them.
    pub distinct: u64,
    /// `totalResults` before the first page.
    pub total_before: Option<u64>,
    /// `totalResults` after the last page.
    pub total_after: Option<u64>,
    /// Resources that could not be understood.
    pub rejects: u64,
    /// `Date` of the first page's answer, of the first attempt if the crawl was resumed.
    pub first_date: Option<Timestamp>,
    /// The newest `meta.lastModified` seen that was not beyond the instance's clock.
    pub newest_modified_at: Option<Timestamp>,
    /// Whether this crawl went on where an interrupted one had stopped.
    pub resumed: bool,
}

impl Certificate {
    /// The only way to a [`CompleteCertificate`]: code that concludes absence asks for one.
    #[must_use]
    pub fn as_complete(&self) -> Option<CompleteCertificate<'_>> {
        (self.verdict == Verdict::Complete).then_some(CompleteCertificate(self))
    }

    /// Whether every row that was there throughout was received, so that the watermark may move. An
    /// unreadable resource is in `rejects` and costs only itself; by key, people who come and go
    /// meanwhile move the total and hide nobody else.
    #[must_use]
    pub fn read_every_row(&self) -> bool {
        self.verdict != Verdict::Refused
            && self.reasons.iter().all(|doubt| match doubt {
                Doubt::UnreadableId => true,
                Doubt::TotalMoved { .. } | Doubt::TotalDiffers { .. } => self.paging == Paging::Key,
                _ => false,
            })
    }
}

/// Proof that a certificate is `complete`. Cannot be made except from one.
#[derive(Clone, Copy, Debug)]
pub struct CompleteCertificate<'a>(&'a Certificate);

impl CompleteCertificate<'_> {
    /// The certificate itself.
    #[must_use]
    pub fn get(&self) -> &Certificate {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(verdict: Verdict, reasons: Vec<Doubt>) -> Certificate {
        Certificate {
            verdict,
            reasons,
            paging: Paging::Key,
            pages: 1,
            rows: 1,
            distinct: 1,
            total_before: Some(1),
            total_after: Some(1),
            rejects: 0,
            first_date: None,
            newest_modified_at: None,
            resumed: false,
        }
    }

    #[test]
    fn absence_can_be_concluded_from_a_complete_crawl_alone() {
        for verdict in [Verdict::Complete, Verdict::Partial, Verdict::Refused] {
            let certificate = certificate(verdict, Vec::new());
            let may_conclude = certificate.as_complete().is_some();
            assert_eq!(may_conclude, verdict == Verdict::Complete, "{verdict:?}");
        }
    }

    #[test]
    fn the_watermark_may_move_only_past_rows_that_were_received() {
        let unreadable = certificate(Verdict::Partial, vec![Doubt::UnreadableId]);
        assert!(unreadable.read_every_row(), "it costs only itself");
        let moved = Doubt::TotalMoved {
            before: 1,
            after: 2,
        };
        let mut by_index = certificate(Verdict::Partial, vec![moved]);
        assert!(by_index.read_every_row(), "by key nobody is skipped");
        by_index.paging = Paging::Index;
        assert!(!by_index.read_every_row());
        for doubt in [Doubt::RowsHidden, Doubt::Shifted, Doubt::BoundReached] {
            let short = certificate(Verdict::Partial, vec![Doubt::UnreadableId, doubt.clone()]);
            assert!(!short.read_every_row(), "{doubt:?}");
        }
        assert!(!certificate(Verdict::Refused, Vec::new()).read_every_row());
    }
}
