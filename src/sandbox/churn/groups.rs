//! The life of groups: members come and go, groups are made, renamed and deleted.

use std::sync::Arc;

use jiff::Timestamp;

use super::super::directory::{Directory, Stamp};
use super::super::generate::{new_group_name, sys_id};
use super::super::group::{Group, GroupValues};
use super::super::membership::Member;
use super::Churned;

/// How many a new group starts with.
const FOUNDERS: usize = 3;

/// The changes of groups to come.
#[derive(Debug)]
pub(super) struct GroupChurn {
    rng: fastrand::Rng,
}

impl GroupChurn {
    /// Changes that are drawn from `rng`.
    #[must_use]
    pub(super) fn new(rng: fastrand::Rng) -> Self {
        Self { rng }
    }

    /// Lets one change happen, and counts it. Where there is no group there is none to change, and nobody
    /// makes the first.
    pub(super) fn change(&mut self, directory: &mut Directory, at: Timestamp, done: &mut Churned) {
        let Some(group) = self.rng.choice(directory.groups()).map(Arc::clone) else {
            return;
        };
        let group = &*group.sys_id;
        match self.rng.u8(..100) {
            0..48 => {
                let member = self.draw(directory);
                if let Some(member) = member.filter(|one| !directory.members(group).contains(one)) {
                    directory.change_members(group, &[], &[member], at);
                    done.members_joined += 1;
                }
            }
            48..86 => {
                let member = self.rng.choice(directory.members(group)).cloned();
                if let Some(member) = member {
                    directory.change_members(group, &[member], &[], at);
                    done.members_left += 1;
                }
            }
            86..92 => {
                let name = GroupValues::named(new_group_name(&mut self.rng));
                directory.update_group(group, &name, Stamp::Ruled, at);
                done.groups_renamed += 1;
            }
            92..96 => {
                let mut group = Group::new(&sys_id(&mut self.rng), at);
                group.set(&GroupValues::named(new_group_name(&mut self.rng)));
                let members: Vec<Member> =
                    (0..FOUNDERS).filter_map(|_| self.draw(directory)).collect();
                let group = directory.insert_group(group, at);
                directory.change_members(&group.sys_id, &[], &members, at);
                done.groups_made += 1;
            }
            // The last one stays, so that there are some.
            _ if directory.groups().len() > 1 => {
                directory.delete_group(group, at);
                done.groups_deleted += 1;
            }
            _ => {}
        }
    }

    /// Mostly a user; now and then a group, which is nested then.
    fn draw(&mut self, directory: &Directory) -> Option<Member> {
        if self.rng.u8(..12) == 0 {
            let group = self.rng.choice(directory.groups())?;
            return Some(Member::group(&group.sys_id));
        }
        let user = self.rng.choice(directory.users())?;
        Some(Member::user(&user.sys_id))
    }
}
