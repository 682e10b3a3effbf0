//! Who is in which group: the rows of `sys_user_grmember`. No stamp tells of them (facts page, section
//! 9.1), nothing keeps a row from standing there twice, and its ends may be gone (Q40).

use std::collections::{BTreeMap, BTreeSet};

/// A member of a group: a user, or a group that is nested in it. Whether there is such a user or group
/// is not said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Its `sys_id`.
    pub id: Box<str>,
    /// What it is.
    pub kind: MemberKind,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberKind {
    /// A user.
    User,
    /// A group.
    Group,
}

impl Member {
    /// A user.
    #[must_use]
    pub fn user(id: &str) -> Self {
        let kind = MemberKind::User;
        let id = id.into();
        Self { id, kind }
    }

    /// A group.
    #[must_use]
    pub fn group(id: &str) -> Self {
        let kind = MemberKind::Group;
        let id = id.into();
        Self { id, kind }
    }
}

/// The table of memberships.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memberships {
    /// By the group's key: its members in ascending order, one that stands there twice twice.
    members: BTreeMap<Box<str>, Vec<Member>>,
    /// The other way round.
    groups: BTreeMap<Member, BTreeSet<Box<str>>>,
}

impl Memberships {
    /// The members of a group, in ascending order.
    #[must_use]
    pub(super) fn of(&self, group: &str) -> &[Member] {
        self.members.get(group).map_or(&[], Vec::as_slice)
    }

    /// The keys of the groups that a member is in, in ascending order, gone groups among them.
    pub(super) fn groups_of(&self, member: &Member) -> impl Iterator<Item = &str> {
        let groups = self.groups.get(member).into_iter().flatten();
        groups.map(AsRef::as_ref)
    }

    /// Takes one row away for each of `gone`, and adds one for each of `new`.
    pub(super) fn change(&mut self, group: &str, gone: &[Member], new: &[Member]) {
        let rows = self.members.entry(group.into()).or_default();
        let mut ascending: Vec<&Member> = gone.iter().collect();
        ascending.sort_unstable();
        let mut ascending = ascending.into_iter().peekable();
        rows.retain(|row| {
            while ascending.next_if(|one| *one < row).is_some() {}
            ascending.next_if_eq(&row).is_none()
        });
        rows.extend_from_slice(new);
        // The rows that stay are a run in order, which this sort is fast with.
        rows.sort();
        for one in gone.iter().filter(|one| rows.binary_search(one).is_err()) {
            if let Some(groups) = self.groups.get_mut(one) {
                groups.remove(group);
                if groups.is_empty() {
                    self.groups.remove(one);
                }
            }
        }
        for one in new {
            let groups = self.groups.entry(one.clone()).or_default();
            groups.insert(group.into());
        }
        if rows.is_empty() {
            self.members.remove(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(ids: &[&str]) -> Vec<Member> {
        ids.iter().map(|id| Member::user(id)).collect()
    }

    #[test]
    fn both_sides_say_the_same_and_a_change_can_be_taken_back() {
        let mut table = Memberships::default();
        table.change("g", &[], &users(&["c", "a", "b", "a"]));
        table.change("h", &[], &users(&["a"]));
        table.change("h", &[], &[Member::group("a")]);
        let before = table.clone();
        assert_eq!(table.of("g"), users(&["a", "a", "b", "c"]));
        let groups = |table: &Memberships, id: &str| {
            let member = Member::user(id);
            let groups = table.groups_of(&member);
            groups.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(groups(&table, "a"), ["g", "h"]);

        let (gone, new) = (users(&["c", "a"]), users(&["d"]));
        table.change("g", &gone, &new);
        assert_eq!(table.of("g"), users(&["a", "b", "d"]));
        assert_eq!(groups(&table, "a"), ["g", "h"]);
        assert!(groups(&table, "c").is_empty());
        table.change("g", &new, &gone);
        assert_eq!(table, before);

        table.change("g", &users(&["a", "a", "b", "c", "nobody"]), &[]);
        assert!(table.of("g").is_empty());
        assert!(!table.members.contains_key("g"));
        assert_eq!(groups(&table, "a"), ["h"]);
    }
}
