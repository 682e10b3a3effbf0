//! Which attributes of users are shown at all.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{ResourceType, Row, UserColumns};
use crate::reconcile::decode::decode;
use crate::reconcile::mapping::user_columns;

/// The attributes whose absence for everybody is a right that is missing, more often than not.
const LOOKED_FOR: [&str; 5] = ["active", "email", "title", "department", "manager"];

/// Of how many users an attribute was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Who have it.
    pub seen: usize,
    /// Who were looked at.
    pub of: usize,
}

/// How many of the users on a page have each attribute; empty where nobody could be read.
pub(super) fn visible(rows: &[Row]) -> BTreeMap<&'static str, Seen> {
    let users: Vec<UserColumns> = rows
        .iter()
        .filter_map(|row| user_columns(&decode(ResourceType::User, row).ok()?.canonical).ok())
        .collect();
    let has = |user: &&UserColumns, name: &str| match name {
        "active" => user.active.is_some(),
        name => user.get(name).is_some() || user.get(&format!("{name}_id")).is_some(),
    };
    let of = users.len();
    let counts = LOOKED_FOR.map(|name| {
        let seen = users.iter().filter(|user| has(user, name)).count();
        (name, Seen { seen, of })
    });
    counts.into_iter().filter(|_| of > 0).collect()
}
