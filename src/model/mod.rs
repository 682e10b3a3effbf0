//! Plain values: what the rules compute with and the edges carry. No input, no output, no clock.

pub mod base;
pub mod capability;
pub mod certificate;
pub mod change;
pub mod foreign;
pub mod id;
pub mod identity;
pub mod membership;
pub mod page;
pub(crate) mod scan;
pub mod step;
pub mod sync;
pub mod time;
pub mod user;
pub mod words;

pub use base::Base;
pub use capability::{Capabilities, Obeyed};
pub use certificate::{Certificate, CompleteCertificate, Doubt, Paging, Verdict};
pub use change::{ChangeEvent, ChangeRecord, Kind, Proof, Reason, Shares, State, Witness};
pub use foreign::Foreign;
pub use id::{InstanceName, InvalidInstanceName, ResourceId, ResourceType};
pub use identity::{Identity, IdentityState, MatchedBy, Profile, Rule};
pub use membership::{Member, MemberKind, MemberList, MembersKnown, Shown};
pub use page::{Arrived, Fingerprint, Page, PageReport, Reject, Row};
pub use step::{Outcome as StepOutcome, Step};
pub use sync::{Mode, Outcome, Tally, TallySnapshot, Trigger};
pub use user::UserColumns;
