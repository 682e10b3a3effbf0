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

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::super::Options;
    use super::super::super::testbed::Testbed;
    use super::*;

    fn bed() -> Testbed {
        let bed = Testbed::with(Options {
            users: 60,
            groups: 20,
            odd: false,
            ..Options::default()
        });
        bed.pass(3_600);
        bed
    }

    fn snapshot(bed: &Testbed) -> Vec<Value> {
        bed.groups("count=500&sortBy=id&sortOrder=ascending")
            .rows()
            .to_vec()
    }

    /// Groups before and after an effect that meets one list of users, which changes nothing, and then one
    /// list of groups.
    fn around(bed: &Testbed, effect: Effect) -> (Vec<Value>, Vec<Value>) {
        let before = snapshot(bed);
        let fault = super::super::super::Fault::new(effect).times(1);
        bed.sandbox.set_faults(vec![fault]);
        bed.list("");
        let is_about_groups = bed.sandbox.fired()[0].times == 0;
        let after = snapshot(bed);
        assert!(is_about_groups && bed.sandbox.fired()[0].times == 1);
        (before, after)
    }

    fn ids(groups: &[Value]) -> Vec<&str> {
        groups
            .iter()
            .filter_map(|group| group["id"].as_str())
            .collect()
    }

    #[test]
    fn a_member_vanishes_and_his_membership_stays() {
        let bed = bed();
        let (before, after) = around(&bed, Effect::MemberVanished);
        assert_eq!(ids(&before), ids(&after));
        let nameless = |groups: &[Value]| -> Vec<String> {
            let members = groups
                .iter()
                .filter_map(|group| group["members"].as_array());
            let nameless = members
                .flatten()
                .filter(|member| member.get("display").is_none());
            nameless
                .map(|member| member["value"].as_str().unwrap().to_owned())
                .collect()
        };
        assert!(nameless(&before).is_empty());
        let gone = nameless(&after);
        assert!(!gone.is_empty() && gone.iter().all(|id| *id == gone[0]));
        assert_eq!(bed.get(&format!("/Users/{}", gone[0])).status, 404);
        let meta = |groups: &[Value]| -> Vec<Value> {
            groups.iter().map(|group| group["meta"].clone()).collect()
        };
        assert_eq!(meta(&before), meta(&after));
        // He can be recovered, and is what he was.
        bed.sandbox.undelete(&gone[0]);
        assert_eq!(snapshot(&bed), before);
    }

    #[test]
    fn groups_are_nested_in_circles() {
        let bed = bed();
        let (before, after) = around(&bed, Effect::GroupsTangled);
        assert_eq!(ids(&before), ids(&after));
        let has = |group: &Value, id: &Value| {
            let members = group["members"].as_array().into_iter().flatten();
            members.into_iter().any(|member| member["value"] == *id)
        };
        let [own, one, other] = &after[..3] else {
            panic!("{after:?}")
        };
        assert!(has(own, &own["id"]) && has(one, &other["id"]) && has(other, &one["id"]));
        let meta = |group: &Value| group["meta"].clone();
        assert!(before.iter().map(meta).eq(after.iter().map(meta)));
    }

    #[test]
    fn a_renamed_group_has_a_new_stamp_and_what_names_it_has_none() {
        let bed = bed();
        // Each is in another one, and has a member.
        let (all, user) = (bed.sandbox.group_ids(), bed.sandbox.ids()[0].clone());
        for pair in all.windows(2) {
            let members = [Member::group(&pair[1]), Member::user(&user)];
            bed.sandbox.change_members(&pair[0], &[], &members);
        }
        let shown = || {
            bed.get(&format!("/Users/{user}?attributes=groups,meta"))
                .json
        };
        let of_user = shown();
        bed.pass(60);
        let (before, after) = around(&bed, Effect::GroupRenamed);
        let renamed: Vec<&Value> = after
            .iter()
            .zip(&before)
            .filter(|(after, before)| after["displayName"] != before["displayName"])
            .map(|(after, _)| after)
            .collect();
        let [renamed] = &renamed[..] else {
            panic!("{renamed:?}")
        };
        let stamped = after
            .iter()
            .zip(&before)
            .filter(|(a, b)| a["meta"] != b["meta"]);
        let stamped: Vec<&Value> = stamped.map(|(after, _)| &after["id"]).collect();
        assert_eq!(stamped, [&renamed["id"]]);
        let name = renamed["displayName"].as_str().unwrap();
        let around = after.iter().filter(|group| {
            group["id"] != renamed["id"] && group["members"].to_string().contains(name)
        });
        assert!(around.count() >= usize::from(renamed["id"] != *all[0]));
        let now = shown();
        assert_eq!(now["meta"], of_user["meta"]);
        assert!(now["groups"].to_string().contains(name));
    }

    #[test]
    fn a_group_made_anew_has_its_name_its_members_and_another_id() {
        let bed = bed();
        let (before, after) = around(&bed, Effect::GroupRemade);
        assert_eq!(before.len(), after.len());
        let gone = |groups: &[Value], others: &[Value]| -> Vec<Value> {
            let (groups, ids) = (groups.iter(), ids(others));
            let gone = groups.filter(|group| !ids.contains(&group["id"].as_str().unwrap()));
            gone.cloned().collect()
        };
        let (old, new) = (gone(&before, &after), gone(&after, &before));
        assert_eq!((old.len(), new.len()), (1, 1));
        for member in ["displayName", "members", "externalId"] {
            assert_eq!(old[0][member], new[0][member], "{member}");
        }
        assert_eq!(new[0]["meta"]["created"], "2026-03-01T09:00:00Z");
        let id = old[0]["id"].as_str().unwrap();
        assert_eq!(bed.get(&format!("/Groups/{id}")).status, 404);
    }

    /// What happens to the list that is read happens to groups where they are read.
    #[test]
    fn groups_come_and_go_between_pages_as_users_do() {
        const SECOND: &str = "startIndex=6&count=5&sortBy=id&sortOrder=ascending";
        let bed = bed();
        let users = bed.sandbox.ids();
        let second = bed.groups(SECOND);
        bed.fault(Effect::RowInserted);
        let repeated = bed.groups(SECOND);
        assert_eq!(repeated.ids()[1..], second.ids()[..4]);
        assert_eq!(repeated.total(), 21);
        bed.fault(Effect::RowDeleted);
        assert_eq!(bed.groups(SECOND).ids(), second.ids());
        bed.fault(Effect::Undeleted);
        assert_eq!(bed.groups("").total(), 21);
        assert_eq!(bed.sandbox.ids(), users);

        bed.sandbox.set_faults(Vec::new());
        let differ = |before: &[Value], after: &[Value], member: &str| {
            let pairs = before.iter().zip(after);
            pairs.filter(|(a, b)| a[member] != b[member]).count()
        };
        let before = snapshot(&bed);
        bed.pass(60);
        bed.fault(Effect::StampsMoved { share: 0.5 });
        let moved = snapshot(&bed);
        assert!((1..21).contains(&differ(&before, &moved, "meta")));
        assert_eq!(differ(&before, &moved, "displayName"), 0);
        bed.fault(Effect::SilentChange { share: 0.5 });
        let silent = snapshot(&bed);
        assert_eq!(differ(&moved, &silent, "meta"), 0);
        assert!((1..21).contains(&differ(&moved, &silent, "displayName")));
    }

    #[test]
    fn a_clone_has_groups_of_its_own() {
        let bed = bed();
        let before = bed.sandbox.group_ids();
        bed.fault(Effect::Cloned { seed: 99 });
        bed.get("/Groups");
        bed.sandbox.set_faults(Vec::new());
        let after = bed.sandbox.group_ids();
        assert_eq!(after.len(), 20);
        assert!(before.iter().all(|id| !after.contains(id)));
        let members = bed.groups("count=500");
        let named = members
            .rows()
            .iter()
            .filter(|group| group["members"].to_string().contains("\"display\""));
        assert!(named.count() > 10);
    }

    /// Where there is nothing to change nothing happens, and everything is answered.
    #[test]
    fn an_instance_without_groups_bears_them_all() {
        let bed = Testbed::with(Options {
            users: 0,
            groups: 0,
            ..Options::default()
        });
        for effect in [
            Effect::MemberVanished,
            Effect::GroupsTangled,
            Effect::GroupRenamed,
            Effect::GroupRemade,
            Effect::RowDeleted,
            Effect::MembersCut {
                most: 0,
                ids: Vec::new(),
            },
        ] {
            bed.fault(effect);
            assert_eq!(bed.groups("").total(), 0);
        }
    }
}
