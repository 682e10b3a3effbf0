//! Change events, as reconciling finds them, and change records, as the diff engine makes them.

use jiff::Timestamp;

use super::id::{ResourceId, ResourceType};

/// What happened to a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The id was never seen before.
    Create,
    /// A tracked field changed, and it is not a deactivation.
    Update,
    /// Active before, not after.
    Deactivate,
}

/// Why a change record was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Before the first complete full sync was over.
    Baseline,
    /// Seen for the first time.
    New,
    /// A tracked field changed.
    Changed,
    /// Active again.
    Reactivated,
    /// Was gone, exists again.
    Returned,
    /// The instance no longer shows this user, by the proof of promise P1.
    Gone,
    /// The instance says `active: false`.
    Inactive,
    /// The directory behind the instance was replaced, and a person approved that.
    SourceChanged,
    /// The group was shown without this member, by a list that is believed to be whole.
    Removed,
    /// The instance was unlinked and its users dropped, whatever they were: this one leaves the mirror.
    Unlinked,
}

impl Kind {
    /// The word in tables and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Deactivate => "deactivate",
        }
    }
}

impl Reason {
    /// The word in tables and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::New => "new",
            Self::Changed => "changed",
            Self::Reactivated => "reactivated",
            Self::Returned => "returned",
            Self::Gone => "gone",
            Self::Inactive => "inactive",
            Self::SourceChanged => "source_changed",
            Self::Removed => "removed",
            Self::Unlinked => "unlinked",
        }
    }
}

/// What the mirror holds of one resource, as far as a rule needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The canonical text, `active` always in it: the text of `users.attributes`.
    pub canonical: String,
    /// `meta.created` as last recorded.
    pub created_at: Option<Timestamp>,
    /// `meta.lastModified` as last recorded.
    pub modified_at: Option<Timestamp>,
    /// Since when the resource is gone, by our clock; `None` while it exists.
    pub gone_at: Option<Timestamp>,
}

/// The evidence that a resource is gone (promise P1), kept with its record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Proof {
    /// A `complete` crawl did not see the id: distinct ids it did see. `None` where there was no such crawl: a person
    /// approved the deactivation of somebody who was said to be inactive, and who is not shown any more.
    pub distinct: Option<u64>,
    /// When the id was asked for by itself, and what was answered.
    pub asked_at: Timestamp,
    /// The status of that answer: 404.
    pub status: u16,
    /// The witnesses who answered 200 before and after.
    pub witnesses: [Witness; 2],
}

/// A living user whose 200 shows that the account's sight was not lost.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Witness {
    /// The witness's id.
    pub id: String,
    /// What it has in common with the one who is gone.
    pub shares: Shares,
    /// When it answered 200, by our clock.
    pub answered_at: Timestamp,
}

/// What a witness has in common with an absent user.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Shares {
    /// The same company.
    Company,
    /// The same department, where the mirror knows no other living user of the company.
    Department,
    /// The same location, where it knows none of the department either.
    Location,
    /// Nothing: no other living user of any of the three is known.
    Nothing,
}

/// What reconciling found for one resource: before, after, cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvent {
    /// Which kind of resource.
    pub resource: ResourceType,
    /// Its id.
    pub id: ResourceId,
    /// What the mirror held; `None` when the id was never seen.
    pub before: Option<State>,
    /// What it shall hold.
    pub after: State,
    /// The proof, when the cause is that the resource is gone; else it was read.
    pub proof: Option<Proof>,
}

/// What the diff engine makes of an event: a row of `changes` without its place in the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeRecord {
    /// Which kind of resource.
    pub resource: ResourceType,
    /// Its id.
    pub id: ResourceId,
    /// What happened.
    pub kind: Kind,
    /// Why.
    pub reason: Reason,
    /// JSON by path, `{"title":{"from":…,"to":…}}`; `None` on create.
    pub changed: Option<String>,
    /// What the mirror holds after it.
    pub after: State,
    /// The proof, where the reason is [`Reason::Gone`].
    pub proof: Option<Proof>,
}
