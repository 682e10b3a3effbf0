//! In which table the resources of a source stand. Those of both have the columns that a sync goes by under one name.

use crate::model::ResourceType;

/// The table of a resource.
pub(super) fn name(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::User => "users",
        ResourceType::Group => "groups",
        ResourceType::Membership => "memberships",
    }
}

/// A statement about the table of a source, a text that is there for good: what is asked for each user must cost nothing to spell.
macro_rules! of_table {
    ($resource:expr, $before:literal, $after:literal) => {
        match $resource {
            $crate::model::ResourceType::User => concat!($before, "users", $after),
            $crate::model::ResourceType::Group | $crate::model::ResourceType::Membership => {
                concat!($before, "groups", $after)
            }
        }
    };
}

pub(super) use of_table;
