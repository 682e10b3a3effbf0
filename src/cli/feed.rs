//! Reading the feed in order, from a place on: what `changes` and `demo` go through. It misses nothing and
//! knows when it would.

use std::fmt;
use std::path::Path;

use super::following::Following;
use crate::mirror::read::{ChangeQuery, ChangeRow, Feed};
use crate::mirror::{self, Reader};
use crate::model::Foreign;

/// Records read at once: enough to be quick, few enough to keep memory flat.
const BATCH: usize = 500;

/// Which records are of interest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Only of this instance.
    pub(crate) instance: Option<String>,
    /// Only of this kind.
    pub(crate) kind: Option<String>,
}

impl Filter {
    /// What to ask of the mirror: at most `limit` such records with a `seq` greater than `after`.
    pub(crate) fn query(&self, after: i64, limit: usize) -> ChangeQuery {
        ChangeQuery {
            after,
            instance: self.instance.clone(),
            kind: self.kind.clone(),
            limit,
        }
    }
}

/// A place in the feed of a mirror that is followed.
pub(crate) struct FeedReader {
    mirror: Following,
    filter: Filter,
    epoch: String,
    seq: i64,
}

/// What comes next.
pub(crate) enum Next {
    /// Records in the order of `seq`; more may be there.
    Records(Vec<ChangeRow>),
    /// Nothing more for now.
    End,
    /// The place is no longer in the feed.
    ReadAgain(ReadAgain),
}

/// Why a reader has to read `users` again (contract, section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReadAgain {
    /// The file was restored or rebuilt.
    OtherEpoch { known: String, feed: Feed },
    /// The place is after the feed's end.
    Ahead { seq: i64, feed: Feed },
    /// Records after the place were trimmed.
    Trimmed { seq: i64, feed: Feed },
}

impl ReadAgain {
    /// Whether a reader that knows `epoch` and `seq` can go on in `feed`.
    fn check(feed: &Feed, epoch: &str, seq: i64) -> Option<Self> {
        let feed = feed.clone();
        if feed.epoch != epoch {
            let known = epoch.to_owned();
            Some(Self::OtherEpoch { known, feed })
        } else if seq > feed.last_seq {
            Some(Self::Ahead { seq, feed })
        } else if seq < feed.first_seq - 1 {
            Some(Self::Trimmed { seq, feed })
        } else {
            None
        }
    }
}

impl fmt::Display for ReadAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let feed = match self {
            Self::OtherEpoch { known, feed } => {
                let (known, epoch) = (Foreign(known), Foreign(&feed.epoch));
                write!(
                    f,
                    "the feed's epoch is `{epoch}`, not `{known}`: the mirror was restored or rebuilt"
                )?;
                feed
            }
            Self::Ahead { seq, feed } => {
                write!(f, "the feed ends at {}, before {seq}", feed.last_seq)?;
                feed
            }
            Self::Trimmed { seq, feed } => {
                write!(
                    f,
                    "the feed starts at {}: what came after {seq} was trimmed",
                    feed.first_seq
                )?;
                feed
            }
        };
        write!(
            f,
            "; read `users` again, then go on with `--epoch {} --after {}`",
            Foreign(&feed.epoch),
            feed.last_seq
        )
    }
}

impl FeedReader {
    /// Starts after `seq` of `epoch`.
    pub(crate) fn new(
        reader: Reader,
        path: &Path,
        filter: Filter,
        epoch: String,
        seq: i64,
    ) -> Result<Self, mirror::Error> {
        Ok(Self {
            mirror: Following::new(reader, path)?,
            filter,
            epoch,
            seq,
        })
    }

    /// Reads on, at most `limit` records.
    pub(crate) fn next(&mut self, limit: usize) -> Result<Next, mirror::Error> {
        let limit = limit.min(BATCH);
        let reader = self.mirror.reader();
        let feed = reader.feed()?;
        if let Some(reason) = ReadAgain::check(&feed, &self.epoch, self.seq) {
            return Ok(Next::ReadAgain(reason));
        }
        let rows = reader.changes(&self.filter.query(self.seq, limit))?;
        // Trimming may have passed this place while it was read.
        if let Some(reason) = ReadAgain::check(&reader.feed()?, &self.epoch, self.seq) {
            return Ok(Next::ReadAgain(reason));
        }
        let last = rows.last().map_or(self.seq, |row| row.seq);
        // What the filter leaves out has been read too.
        self.seq = if rows.len() < limit {
            last.max(feed.last_seq)
        } else {
            last
        };
        Ok(if rows.is_empty() {
            Next::End
        } else {
            Next::Records(rows)
        })
    }

    /// Waits until something was committed, or another file has taken the place of this one.
    pub(crate) async fn committed(&mut self) -> Result<(), mirror::Error> {
        self.mirror.committed().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_outside_the_feed_must_read_users_again() {
        let feed = Feed {
            epoch: "e1".to_owned(),
            first_seq: 100,
            last_seq: 200,
        };
        let check = |epoch, seq| ReadAgain::check(&feed, epoch, seq).map(|why| why.to_string());
        for seq in [99, 100, 200] {
            assert_eq!(check("e1", seq), None, "{seq}");
        }
        insta::assert_snapshot!(check("e0", 150).unwrap(), @"the feed's epoch is `e1`, not `e0`: the mirror was restored or rebuilt; read `users` again, then go on with `--epoch e1 --after 200`");
        insta::assert_snapshot!(check("e1", 201).unwrap(), @"the feed ends at 200, before 201; read `users` again, then go on with `--epoch e1 --after 200`");
        insta::assert_snapshot!(check("e1", 98).unwrap(), @"the feed starts at 100: what came after 98 was trimmed; read `users` again, then go on with `--epoch e1 --after 200`");
    }

    #[test]
    fn the_start_of_an_empty_feed_is_a_place() {
        let feed = Feed {
            epoch: "e1".to_owned(),
            first_seq: 1,
            last_seq: 0,
        };
        assert_eq!(ReadAgain::check(&feed, "e1", 0), None);
    }
}
