//! Groups and memberships as the instance keeps them.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::group::{Group, GroupValues};
use super::super::membership::{Member, MemberKind};
use super::super::row::whole_seconds;
use super::super::table::Rows;
use super::{Before, Directory, Stamp};

impl Directory {
    /// The same tables with these groups; nothing of it is in the journal.
    #[must_use]
    pub(in super::super) fn with_groups(
        mut self,
        groups: Vec<Group>,
        members: Vec<(Box<str>, Vec<Member>)>,
    ) -> Self {
        self.tables.groups = Rows::from_unsorted(groups);
        for (group, members) in members {
            self.tables.memberships.change(&group, &[], &members);
        }
        self
    }

    /// All groups, in the order of their `sys_id`.
    #[must_use]
    pub fn groups(&self) -> &[Arc<Group>] {
        self.tables.groups.as_slice()
    }

    /// One group.
    #[must_use]
    pub fn group(&self, id: &str) -> Option<&Arc<Group>> {
        self.tables.groups.get(id)
    }

    /// The members of a group, in ascending order. One whose membership stands there twice comes twice,
    /// and one who is gone comes as well.
    #[must_use]
    pub fn members(&self, group: &str) -> &[Member] {
        self.tables.memberships.of(group)
    }

    /// The groups that a member is in by himself, in the order of their keys.
    #[must_use]
    pub fn groups_of(&self, member: &Member) -> Vec<&Arc<Group>> {
        let groups = self.tables.memberships.groups_of(member);
        groups.filter_map(|id| self.group(id)).collect()
    }

    /// The groups that a member is in because one of his groups is nested in them, in the order of their
    /// keys, without those that he is in by himself.
    #[must_use]
    pub fn groups_around(&self, member: &Member) -> Vec<&Arc<Group>> {
        let direct = self.groups_of(member);
        // Groups can be nested in a circle: each is looked at once.
        let mut seen: BTreeSet<&str> = direct.iter().map(|group| &*group.sys_id).collect();
        let mut around = Vec::new();
        let mut next = direct;
        while let Some(group) = next.pop() {
            for outer in self.groups_of(&Member::group(&group.sys_id)) {
                if seen.insert(&outer.sys_id) {
                    around.push(outer);
                    next.push(outer);
                }
            }
        }
        around.sort_by_key(|group| &group.sys_id);
        around
    }

    /// What a member is called; `None` if there is no such user or group.
    #[must_use]
    pub fn member_name(&self, member: &Member) -> Option<String> {
        match member.kind {
            MemberKind::User => self.user(&member.id).map(|user| user.name()),
            MemberKind::Group => self.group(&member.id).map(|group| group.name.to_string()),
        }
    }

    /// The user or the group with this key: what somebody means who makes it a member. A user, if it is
    /// both.
    #[must_use]
    pub(in super::super) fn member(&self, id: &str) -> Option<Member> {
        if self.user(id).is_some() {
            return Some(Member::user(id));
        }
        self.group(id).map(|_| Member::group(id))
    }

    /// Adds a group, or replaces the one with the same `sys_id`.
    pub(in super::super) fn insert_group(&mut self, group: Group, now: Timestamp) -> Arc<Group> {
        let group = Arc::new(group);
        self.put_group(Arc::clone(&group), now);
        group
    }

    /// Sets columns of a group. `false` if there is no such group.
    pub(in super::super) fn update_group(
        &mut self,
        id: &str,
        values: &GroupValues,
        stamp: Stamp,
        now: Timestamp,
    ) -> bool {
        let Some(before) = self.group(id).cloned() else {
            return false;
        };
        let mut after = Group::clone(&before);
        let counts = after.set(values);
        if stamp == Stamp::Moved || (stamp == Stamp::Ruled && counts) {
            after.updated = whole_seconds(now);
        }
        if after != *before {
            self.put_group(Arc::new(after), now);
        }
        true
    }

    /// Takes members out of a group, and then adds those that are not in it. No stamp moves. `false` if
    /// there is no such group.
    pub(in super::super) fn change_members(
        &mut self,
        id: &str,
        leave: &[Member],
        join: &[Member],
        now: Timestamp,
    ) -> bool {
        if self.group(id).is_none() {
            return false;
        }
        let leave: BTreeSet<&Member> = leave.iter().collect();
        let join: BTreeSet<&Member> = join.iter().collect();
        let members = self.members(id);
        let stays = |one: &&Member| !leave.contains(*one) || join.contains(*one);
        let gone: Vec<Member> = members.iter().filter(|one| !stays(one)).cloned().collect();
        let is_new = |one: &&&Member| members.binary_search(one).is_err();
        let new: Vec<Member> = join.iter().filter(is_new).copied().cloned().collect();
        self.change_rows(id, gone, new, now);
        true
    }

    /// Deletes a group for good, with its memberships and those that it has in others; all can be
    /// recovered. `false` if there is no such group.
    pub(in super::super) fn delete_group(&mut self, id: &str, now: Timestamp) -> bool {
        let Some(group) = self.group(id).cloned() else {
            return false;
        };
        let mut memberships = self.leave_all(&Member::group(id), now);
        let members = self.members(id).to_vec();
        let rows = members.iter().cloned();
        memberships.extend(rows.map(|member| (group.sys_id.clone(), member)));
        self.change_rows(id, members, Vec::new(), now);
        self.tables.groups.remove(id);
        let id = group.sys_id.clone();
        self.groups_bin
            .insert(id.clone(), (Arc::clone(&group), memberships));
        self.journal.note(now, Before::Group(id, Some(group)));
        true
    }

    /// Recovers a deleted group under the same `sys_id`, with its memberships.
    pub(in super::super) fn undelete_group(&mut self, id: &str, now: Timestamp) -> bool {
        let Some((group, memberships)) = self.groups_bin.remove(id) else {
            return false;
        };
        self.put_group(group, now);
        self.join_again(memberships, now);
        true
    }

    /// The keys of the groups that can be recovered.
    #[must_use]
    pub fn deleted_groups(&self) -> Vec<&str> {
        self.groups_bin.keys().map(AsRef::as_ref).collect()
    }

    /// Takes a member out of all groups, and tells the rows.
    pub(super) fn leave_all(&mut self, member: &Member, now: Timestamp) -> Vec<(Box<str>, Member)> {
        let groups = self.tables.memberships.groups_of(member);
        let groups: Vec<Box<str>> = groups.map(Into::into).collect();
        let mut rows = Vec::new();
        for group in groups {
            let of_member = self.members(&group).iter().filter(|one| *one == member);
            let gone: Vec<Member> = of_member.cloned().collect();
            rows.extend(gone.iter().cloned().map(|one| (group.clone(), one)));
            self.change_rows(&group, gone, Vec::new(), now);
        }
        rows
    }

    /// Recovers memberships, where there are none meanwhile. One in a group that is gone waits for it.
    pub(super) fn join_again(&mut self, rows: Vec<(Box<str>, Member)>, now: Timestamp) {
        for rows in rows.chunk_by(|a, b| a.0 == b.0) {
            let Some((group, _)) = rows.first() else {
                continue;
            };
            let members = self.members(group);
            let missing = rows
                .iter()
                .map(|(_, member)| member)
                .filter(|member| members.binary_search(member).is_err());
            let new: Vec<Member> = missing.cloned().collect();
            self.change_rows(group, Vec::new(), new, now);
        }
    }

    fn change_rows(&mut self, group: &str, gone: Vec<Member>, new: Vec<Member>, now: Timestamp) {
        if !gone.is_empty() || !new.is_empty() {
            self.tables.memberships.change(group, &gone, &new);
            self.journal
                .note(now, Before::Members(group.into(), gone, new));
        }
    }

    fn put_group(&mut self, group: Arc<Group>, now: Timestamp) {
        let id = group.sys_id.clone();
        let before = self.tables.groups.put(group);
        self.journal.note(now, Before::Group(id, before));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::super::effect::Effect;
    use super::super::super::testbed::Testbed;
    use super::super::super::{Options, Values};
    use super::*;

    fn bed() -> Testbed {
        let bed = Testbed::with(Options {
            users: 60,
            groups: 20,
            ..Options::default()
        });
        bed.pass(3_600);
        bed
    }

    fn shown(bed: &Testbed) -> (Vec<Value>, Vec<Value>) {
        let users = bed.list("count=500&attributes=groups,meta");
        let groups = bed.groups("count=500");
        (users.rows().to_vec(), groups.rows().to_vec())
    }

    fn members(bed: &Testbed, id: &str) -> Vec<String> {
        let group = bed.group(id);
        let members = group["members"].as_array().into_iter().flatten();
        members
            .map(|member| member["value"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn a_membership_moves_no_stamp() {
        let bed = bed();
        let (group, user) = (
            bed.sandbox.group_ids()[0].clone(),
            bed.sandbox.ids()[0].clone(),
        );
        let meta = || {
            let user = bed.get(&format!("/Users/{user}")).json;
            (bed.group(&group)["meta"].clone(), user["meta"].clone())
        };
        let before = meta();
        let member = [Member::user(&user)];
        bed.sandbox.change_members(&group, &member, &[]);
        let n_before = members(&bed, &group).len();
        assert!(bed.sandbox.change_members(&group, &[], &member));
        assert!(bed.sandbox.change_members(&group, &[], &member));
        assert_eq!(members(&bed, &group).len(), n_before + 1);
        assert_eq!(meta(), before);
        assert!(!bed.sandbox.change_members("none", &[], &member));
    }

    #[test]
    fn what_is_deleted_leaves_with_its_memberships_and_returns_with_them() {
        let bed = bed();
        let [inner, outer] = [0, 1].map(|place| bed.sandbox.group_ids()[place].clone());
        let user = bed.sandbox.ids()[0].clone();
        bed.sandbox
            .change_members(&inner, &[], &[Member::user(&user)]);
        bed.sandbox
            .change_members(&outer, &[], &[Member::group(&inner)]);
        let before = shown(&bed);

        bed.sandbox.delete(&user);
        assert!(!members(&bed, &inner).contains(&user));
        bed.sandbox.undelete(&user);
        assert_eq!(shown(&bed), before);

        assert!(bed.sandbox.delete_group(&inner) && !bed.sandbox.delete_group(&inner));
        assert_eq!(bed.get(&format!("/Groups/{inner}")).status, 404);
        assert!(!members(&bed, &outer).contains(&inner));
        assert!(bed.sandbox.undelete_group(&inner) && !bed.sandbox.undelete_group(&inner));
        assert_eq!(shown(&bed), before);

        // Who returns is not in what is gone meanwhile, and is in it again when that returns.
        bed.sandbox.delete(&user);
        bed.sandbox.delete_group(&inner);
        bed.sandbox.undelete(&user);
        let returned = bed.get(&format!("/Users/{user}?attributes=groups")).json;
        assert!(!returned["groups"].to_string().contains(&inner));
        bed.sandbox.undelete_group(&inner);
        assert_eq!(shown(&bed), before);

        // In whatever order all of them return.
        bed.sandbox.delete_group(&inner);
        bed.sandbox.delete_group(&outer);
        bed.sandbox.delete(&user);
        bed.fault(Effect::Undeleted);
        bed.get("/Groups");
        bed.sandbox.set_faults(Vec::new());
        assert_eq!(shown(&bed), before);
    }

    #[test]
    fn the_past_of_groups_and_memberships_is_known() {
        let bed = bed();
        let before = shown(&bed);
        let [gone, renamed, changed] =
            [0, 1, 2].map(|place| bed.sandbox.group_ids()[place].clone());
        let user = bed.sandbox.ids()[0].clone();
        bed.sandbox.delete_group(&gone);
        bed.sandbox
            .update_group(&renamed, &GroupValues::named("Renamed"));
        let all = bed
            .sandbox
            .with_directory(|directory| directory.members(&changed).to_vec());
        bed.sandbox
            .change_members(&changed, &all, &[Member::user(&user)]);
        let new = bed.sandbox.create_group(&GroupValues::named("New"));
        bed.sandbox.delete(&user);
        bed.sandbox.create(&Values::new());
        bed.pass(30);
        let now = shown(&bed);
        assert_ne!(now, before);

        bed.fault(Effect::NodeBehind { seconds: 31 });
        assert_eq!(shown(&bed), before);
        assert_eq!(bed.get(&format!("/Groups/{new}")).status, 404);
        assert_eq!(bed.get(&format!("/Groups/{gone}")).status, 200);
        bed.fault(Effect::NodeBehind { seconds: 29 });
        assert_eq!(shown(&bed), now);
        bed.sandbox.set_faults(Vec::new());
        bed.sandbox.roll_back(std::time::Duration::from_secs(31));
        assert_eq!(shown(&bed), before);
    }
}
