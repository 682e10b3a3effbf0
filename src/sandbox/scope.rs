//! The requests in which each effect shows itself, unless a fault says otherwise.

use super::effect::Effect;
use super::route::RequestKind;

const EVERYTHING: &[RequestKind] = &RequestKind::ALL;
const SCIM: &[RequestKind] = &[RequestKind::List, RequestKind::Get, RequestKind::Write];
const READS: &[RequestKind] = &[RequestKind::List, RequestKind::Get];
const GETS: &[RequestKind] = &[RequestKind::Get];
const LISTS: &[RequestKind] = &[RequestKind::List];
const TOKENS: &[RequestKind] = &[RequestKind::Token];

impl Effect {
    /// The requests in which it shows itself, unless a fault says otherwise.
    #[must_use]
    pub fn scope(&self) -> &'static [RequestKind] {
        match self {
            Self::Reset
            | Self::Cut { .. }
            | Self::Stall { .. }
            | Self::Drip { .. }
            | Self::Slow { .. }
            | Self::GzipCut
            | Self::GzipBomb { .. }
            | Self::Header { .. }
            | Self::HtmlPage
            | Self::EdgeError { .. }
            | Self::Redirect { .. } => EVERYTHING,
            Self::Dropped
            | Self::RateLimited { .. }
            | Self::SemaphoreFull
            | Self::Unauthorized
            | Self::RoleMissing
            | Self::GroupsForbidden
            | Self::ScopeMissing
            | Self::PluginInactive { .. }
            | Self::Cancelled
            | Self::ErrorInstead
            | Self::TokenEnds => SCIM,
            Self::LoginRefused | Self::TokenShared { .. } => TOKENS,
            Self::AccountLocked => EVERYTHING,
            Self::AnotherUser => GETS,
            Self::OrderScrambled
            | Self::TiesShuffled
            | Self::SortIgnored
            | Self::SortRefused
            | Self::FilterIgnored { .. }
            | Self::FilterRefused { .. }
            | Self::FilterFindsNobody { .. }
            | Self::FilterReversed { .. }
            | Self::StartIndexIgnored
            | Self::FirstPageAgain
            | Self::ShortPage { .. }
            | Self::EmptyPage
            | Self::RepeatedRow
            | Self::RowDropped
            | Self::SameIdTwice { .. }
            | Self::ResourcesMissing
            | Self::EmptyWithoutResources
            | Self::TotalOff { .. }
            | Self::RowsUnlisted { .. }
            | Self::BrokenJson { .. }
            | Self::TrailingError => LISTS,
            // Between two pages is where an edit hurts.
            Self::RowInserted
            | Self::RowDeleted
            | Self::EverybodyInactive
            | Self::StampsMoved { .. }
            | Self::SilentChange { .. }
            | Self::LateCommit { .. }
            | Self::DepartmentRenamed
            | Self::UsersDeleted { .. }
            | Self::Undeleted
            | Self::OddId { .. }
            | Self::Twins
            | Self::ManagersTangled
            | Self::Edited { .. }
            | Self::MemberVanished
            | Self::GroupsTangled
            | Self::GroupRenamed
            | Self::GroupRemade
            | Self::RolledBack { .. }
            | Self::Cloned { .. } => LISTS,
            Self::InactiveHidden
            | Self::RowsHidden { .. }
            | Self::RowsHiddenAfterCut { .. }
            | Self::UsersHidden { .. }
            | Self::GroupsUnreadable { .. }
            | Self::NodeBehind { .. } => READS,
            // A customised response is one to a write as well (section 2).
            Self::PoisonedRow { .. }
            | Self::AttributeHidden { .. }
            | Self::GroupsBlanked { .. }
            | Self::MembersCut { .. }
            | Self::MembersEmpty { .. }
            | Self::MembersMislinked { .. }
            | Self::MembershipsShown
            | Self::EmptyForms
            | Self::MembersShuffled
            | Self::CoreSchemaFirst
            | Self::PlainReferences
            | Self::DisplayLabels
            | Self::ActiveAsText
            | Self::MemberMissing { .. }
            | Self::MemberAdded { .. }
            | Self::StampForm { .. }
            | Self::LinksElsewhere { .. } => SCIM,
        }
    }

    /// Whether it shows itself in requests for groups alone, whatever a fault says.
    #[must_use]
    pub fn is_about_groups(&self) -> bool {
        matches!(
            self,
            Self::GroupsForbidden
                | Self::GroupsUnreadable { .. }
                | Self::GroupsBlanked { .. }
                | Self::MembersCut { .. }
                | Self::MembersEmpty { .. }
                | Self::MembersMislinked { .. }
                | Self::MemberVanished
                | Self::GroupsTangled
                | Self::GroupRenamed
                | Self::GroupRemade
        )
    }
}
