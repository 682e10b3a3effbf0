//! How far a crawl has come, as text, so that an interrupted one can go on.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::way::Way;
use crate::model::{Capabilities, Doubt, Page, Paging};

/// How far a crawl has come: all that it needs to go on after an interruption. Covers exactly the
/// pages that were handed out, not those read ahead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrawlPosition {
    /// What it reads: everything, or what was modified since.
    pub(super) since: Option<Timestamp>,
    /// What the instance honours, as this crawl knows by now.
    pub(super) capabilities: Capabilities,
    /// `totalResults` before the first page of a full crawl.
    pub(super) total_before: Option<u64>,
    /// `Date` of the first answer.
    pub(super) first_date: Option<Timestamp>,
    /// Where the next pages start; `None` before the first request.
    pub(super) way: Option<Way>,
    /// What the pages told.
    pub(super) seen: Seen,
}

/// What pages told beside their rows, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Answers that counted as pages.
    pub(super) pages: u64,
    /// Rows in them, repeats and rejects included.
    pub(super) rows: u64,
    /// Resources whose id could not be read.
    pub(super) unreadable_ids: u64,
    /// Rows whose stamp obeys the filter on `meta.lastModified`.
    pub(super) verified: u64,
    /// Rows whose stamp cannot tell.
    pub(super) unverified: u64,
    /// A full page was followed by fewer rows than it had told.
    pub(super) lost_between: bool,
    /// The newest stamp that was not beyond the instance's clock.
    pub(super) newest_modified_at: Option<Timestamp>,
    /// Reasons why the crawl is not complete.
    pub(super) doubts: Vec<Doubt>,
}

/// A text that is not the position of a crawl.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPosition {
    /// It does not read as one.
    #[error("the position of the interrupted crawl cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// It reads as one that no crawl can have.
    #[error("no crawl can be at the position that the interrupted crawl left")]
    Impossible,
}

impl CrawlPosition {
    /// The most text that is read: sixteen ranges with long ids take a small part of it.
    const MAX_TEXT_BYTES: usize = 1 << 20;

    /// Where a crawl starts.
    pub(super) fn start(since: Option<Timestamp>, capabilities: Capabilities) -> Self {
        Self {
            since,
            capabilities,
            total_before: None,
            first_date: None,
            way: None,
            seen: Seen::default(),
        }
    }

    /// The position as text, for [`CrawlPosition::parse`].
    #[must_use]
    pub fn to_text(&self) -> String {
        // Fails only for maps with keys that are no text, and there is no map in it. An empty text
        // would make a later crawl start anew, which is right too.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a position. Text from a file is not believed: what cannot be a position is an error,
    /// and the crawl starts anew.
    ///
    /// # Errors
    /// [`InvalidPosition`].
    pub fn parse(text: &str) -> Result<Self, InvalidPosition> {
        if text.len() > Self::MAX_TEXT_BYTES {
            return Err(InvalidPosition::Impossible);
        }
        let position: Self = serde_json::from_str(text)?;
        let opened = position.since.is_some() || position.total_before.is_some();
        let is_valid = match &position.way {
            None => position.seen == Seen::default(),
            Some(way) => opened && way.is_valid(),
        };
        if is_valid {
            Ok(position)
        } else {
            Err(InvalidPosition::Impossible)
        }
    }

    /// How it goes from page to page.
    pub(super) fn paging(&self) -> Paging {
        match self.way {
            Some(Way::Key(_)) => Paging::Key,
            Some(Way::Index(_)) | None => Paging::Index,
        }
    }
}

impl Seen {
    /// What one page told. `date` is the instance's clock at its answer: a stamp beyond it counts
    /// as unknown.
    pub(super) fn page(page: &Page, date: Option<Timestamp>) -> Self {
        let unreadable = page.rejects.iter().filter(|reject| reject.id.is_none());
        let stamps = page.rows.iter().filter_map(|row| row.modified_at);
        Self {
            pages: 1,
            rows: (page.rows.len() + page.rejects.len()) as u64,
            unreadable_ids: unreadable.count() as u64,
            newest_modified_at: stamps.filter(|stamp| Some(*stamp) <= date).max(),
            ..Self::default()
        }
    }

    /// Adds what a later page told.
    pub(super) fn add(&mut self, later: Self) {
        self.pages += later.pages;
        self.rows += later.rows;
        self.unreadable_ids += later.unreadable_ids;
        self.verified += later.verified;
        self.unverified += later.unverified;
        self.lost_between |= later.lost_between;
        self.newest_modified_at = self.newest_modified_at.max(later.newest_modified_at);
        for doubt in later.doubts {
            self.doubt(doubt);
        }
    }

    /// Notes a doubt, the first of its kind.
    pub(super) fn doubt(&mut self, doubt: Doubt) {
        let kind = std::mem::discriminant(&doubt);
        if !(self.doubts.iter()).any(|known| std::mem::discriminant(known) == kind) {
            self.doubts.push(doubt);
        }
    }
}
