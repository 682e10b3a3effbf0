//! Where the mirror stood when something was asked for.

/// Where the mirror stood when a request was sent. What the mirror has learnt of a resource since then may be younger than
/// the answer (promise P6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// `feed.last_seq`: every record has a higher `seq` from here on.
    pub seq: i64,
    /// The number of the last transaction that applied something: it grows also where no record was written, because what
    /// was read is what the mirror had.
    pub tx: i64,
}
