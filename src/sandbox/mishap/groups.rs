//! What happens to groups and memberships just before an answer about groups.

use jiff::Timestamp;

use super::super::directory::{Directory, Stamp};
use super::super::effect::Effect;
use super::super::generate::{new_group_name, sys_id};
use super::super::group::{Group, GroupValues};
use super::super::membership::{Member, MemberKind};
use super::super::sight::is_among;
use super::first_id;

/// Lets an effect happen to groups. `false` if it has nothing to do with them.
pub(super) fn happen(
    effect: &Effect,
    directory: &mut Directory,
    now: Timestamp,
    rng: &mut fastrand::Rng,
) -> bool {
    match effect {
        Effect::RowInserted => {
            let mut group = Group::new(&first_id(rng), now);
            group.set(&GroupValues::named(format!("Inserted {}", rng.u32(..))));
            directory.insert_group(group, now);
        }
        Effect::RowDeleted => {
            if let Some(first) = directory.groups().first().map(|group| group.sys_id.clone()) {
                directory.delete_group(&first, now);
            }
        }
        Effect::StampsMoved { share } => {
            for id in among(directory, *share) {
                directory.update_group(&id, &GroupValues::default(), Stamp::Moved, now);
            }
        }
        Effect::SilentChange { share } => {
            for id in among(directory, *share) {
                let name = GroupValues::named(new_group_name(rng));
                directory.update_group(&id, &name, Stamp::Kept, now);
            }
        }
        Effect::MemberVanished => {
            let is_there =
                |one: &&Member| one.kind == MemberKind::User && directory.user(&one.id).is_some();
            let groups = directory.groups().iter();
            let members = groups.flat_map(|group| directory.members(&group.sys_id));
            let members: Vec<&Member> = members.filter(is_there).collect();
            if let Some(id) = rng.choice(members).map(|member| member.id.clone()) {
                directory.delete_alone(&id, now);
            }
        }
        Effect::GroupsTangled => tangle(directory, now),
        Effect::GroupRenamed => {
            if let Some(id) = one(directory, rng) {
                let name = GroupValues::named(new_group_name(rng));
                directory.update_group(&id, &name, Stamp::Ruled, now);
            }
        }
        Effect::GroupRemade => {
            if let Some(id) = one(directory, rng) {
                remake(&id, directory, now, rng);
            }
        }
        _ => return false,
    }
    true
}

/// Of the first three groups, in the order of their keys: one is nested in itself, two in each other.
fn tangle(directory: &mut Directory, now: Timestamp) {
    let groups = directory.groups().iter().take(3);
    let ids: Vec<Box<str>> = groups.map(|group| group.sys_id.clone()).collect();
    if let [own, one, other] = &ids[..] {
        for (outer, inner) in [(own, own), (one, other), (other, one)] {
            directory.change_members(outer, &[], &[Member::group(inner)], now);
        }
    }
}

/// As a person does who makes a group again that was deleted: groups that it was nested in are forgotten.
fn remake(id: &str, directory: &mut Directory, now: Timestamp, rng: &mut fastrand::Rng) {
    let Some(old) = directory.group(id).cloned() else {
        return;
    };
    let members = directory.members(id).to_vec();
    directory.delete_group(id, now);
    let mut new = Group::new(&sys_id(rng), now);
    new.set(&GroupValues {
        name: Some(old.name.to_string()),
        company: Some(old.company.to_string()),
        external_id: Some(old.external_id.to_string()),
    });
    let new = directory.insert_group(new, now);
    directory.change_members(&new.sys_id, &[], &members, now);
}

fn one(directory: &Directory, rng: &mut fastrand::Rng) -> Option<Box<str>> {
    let group = rng.choice(directory.groups())?;
    Some(group.sys_id.clone())
}

fn among(directory: &Directory, share: f64) -> Vec<Box<str>> {
    let groups = directory.groups().iter().map(|group| &group.sys_id);
    groups.filter(|id| is_among(id, share)).cloned().collect()
}
