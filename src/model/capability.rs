//! What was found out about an instance by asking it, kept in `sources.capabilities`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether an instance does what a request asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Obeyed {
    /// Not asked, or the answer allows no conclusion (nobody there to ask about).
    #[default]
    Unknown,
    /// It does.
    Obeyed,
    /// It answers as if nothing had been asked, or with nobody.
    Ignored,
    /// It refuses the request.
    Refused,
}

impl Obeyed {
    /// Whether it was seen not to.
    #[must_use]
    pub fn is_lacking(self) -> bool {
        matches!(self, Self::Ignored | Self::Refused)
    }
}

/// What one source of one instance was seen to honour. Probed, never assumed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// When this was probed, by our clock.
    pub probed_at: Option<Timestamp>,
    /// `filter=id gt "…"`, one-sided.
    pub id_after: Obeyed,
    /// `filter=id ge "…" and id lt "…"`, two-sided.
    pub id_range: Obeyed,
    /// `filter=meta.lastModified ge "…"`.
    pub modified_filter: Obeyed,
    /// Both conditions joined by `and`.
    pub modified_and_id: Obeyed,
    /// Whether the account is ever shown an inactive user (facts page, section 13.4).
    pub inactive_shown: Obeyed,
    /// The account may not read this source at all, though others it may (groups): it is left out, and each full sync of it
    /// asks again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forbidden: bool,
    /// The configuration does not name this source any more (`resources`): what the mirror has of it stays as it was.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
    /// A full sync found what incremental ones should have seen, while they saw nobody: until some days
    /// later every sync is a full one.
    pub incrementals_missed_at: Option<Timestamp>,
    /// Two ids that are equal but for case were seen: paging goes by `startIndex`.
    pub ids_differ_in_case: bool,
    /// A crawl found that ids do not ascend in an order that is known here: paging goes by `startIndex`.
    pub order_unknown: bool,
}
