//! What happens to the directory just before an answer, so that it falls between two pages (facts
//! page, sections 14, 15 and 17).

mod groups;

use std::time::Duration;

use jiff::Timestamp;

use super::column::Column;
use super::directory::{Directory, Stamp};
use super::effect::Effect;
use super::generate::{GroupOptions, organisation};
use super::route::Target;
use super::row::{User, Values};
use super::sight::is_among;
use super::table::Table;

/// Lets the effects that change the directory happen before an answer about `target`.
pub(super) fn happen(
    effects: &[Effect],
    target: &Target,
    directory: &mut Directory,
    now: Timestamp,
    rng: &mut fastrand::Rng,
) {
    for effect in effects {
        if target.is_groups() && groups::happen(effect, directory, now, rng) {
            continue;
        }
        match effect {
            Effect::RowInserted => {
                let mut user = User::new(&first_id(rng), now);
                let name = format!("inserted.{}", rng.u32(..));
                user.set(&Values::new().with(Column::UserName, name));
                directory.insert(user, now);
            }
            Effect::RowDeleted => {
                if let Some(first) = directory.users().first().map(|user| user.sys_id.clone()) {
                    directory.delete(&first, now);
                }
            }
            Effect::EverybodyInactive => {
                let inactive = Values::new().active(false);
                for id in among(directory, 1.0) {
                    directory.update(&id, &inactive, Stamp::Ruled, now);
                }
            }
            Effect::StampsMoved { share } => {
                for id in among(directory, *share) {
                    directory.update(&id, &Values::new(), Stamp::Moved, now);
                }
            }
            Effect::SilentChange { share } => {
                for id in among(directory, *share) {
                    directory.update(&id, &title(rng), Stamp::Kept, now);
                }
            }
            Effect::LateCommit { share, seconds } => {
                let visible_at = now + at_most_a_decade(*seconds);
                for id in among(directory, *share) {
                    directory.update_late(&id, title(rng), visible_at, now);
                }
            }
            Effect::DepartmentRenamed => {
                let departments = directory.named(Table::Department);
                if let Some(one) = rng.choice(departments).map(|row| row.sys_id.clone()) {
                    let name = format!("Department {}", rng.u32(..));
                    directory.rename(Table::Department, &one, &name, now);
                }
            }
            Effect::UsersDeleted { ids, share } => {
                let also = among(directory, *share);
                for id in ids
                    .iter()
                    .map(String::as_str)
                    .chain(also.iter().map(|id| &**id))
                {
                    directory.delete(id, now);
                }
            }
            Effect::OddId { id } if directory.user(id).is_none() => {
                let mut user = User::new(id, now);
                let name = format!("odd.{}", rng.u32(..));
                user.set(&Values::new().with(Column::UserName, name));
                directory.insert(user, now);
            }
            Effect::Twins => make_twins(directory, now),
            Effect::ManagersTangled => tangle(directory, now),
            Effect::Edited { ids, column, value } => {
                let values = Values::new().with(*column, value);
                for id in ids {
                    directory.update(id, &values, Stamp::Ruled, now);
                }
            }
            Effect::Undeleted => {
                let ids: Vec<String> = directory.deleted().into_iter().map(str::to_owned).collect();
                for id in ids {
                    directory.undelete(&id, now);
                }
                let groups = directory.deleted_groups();
                let groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
                for id in groups {
                    directory.undelete_group(&id, now);
                }
            }
            Effect::RolledBack { seconds } => {
                directory.roll_back(now - at_most_a_decade(*seconds));
            }
            Effect::Cloned { seed } => {
                let mut rng = fastrand::Rng::with_seed(*seed);
                let other = organisation(directory.users().len(), true, now, &mut rng);
                let groups = GroupOptions {
                    groups: directory.groups().len(),
                    largest: 0,
                    odd: true,
                };
                *directory = other.into_directory(&groups, *seed, now);
            }
            _ => {}
        }
    }
}

/// The first four active users, in the order of their keys: two of one name, two of one address.
fn make_twins(directory: &mut Directory, now: Timestamp) {
    let users = directory.users().iter().filter(|user| user.active);
    let four: Vec<_> = users.take(4).cloned().collect();
    if let [one, other, first, second] = &four[..] {
        let name = one.get(Column::UserName).to_uppercase();
        let address = first.get(Column::Email);
        for (user, column, text) in [
            (other, Column::UserName, name.as_str()),
            (second, Column::Email, address),
        ] {
            let values = Values::new().with(column, text);
            directory.update(&user.sys_id, &values, Stamp::Ruled, now);
        }
    }
}

/// Of the last five active users, in the order of their keys: one is his own manager, two are each
/// other's, one's is nobody, and one's has left.
fn tangle(directory: &mut Directory, now: Timestamp) {
    let left = directory.users().iter().find(|user| !user.active);
    let left = left.map(|user| user.sys_id.to_string());
    let users = directory.users().iter().rev().filter(|user| user.active);
    let ids: Vec<String> = users.take(5).map(|user| user.sys_id.to_string()).collect();
    if let [own, one, other, dangling, bereft] = &ids[..] {
        let nobody = "0".repeat(32);
        for (user, manager) in [
            (own, own),
            (one, other),
            (other, one),
            (dangling, &nobody),
            (bereft, left.as_ref().unwrap_or(&nobody)),
        ] {
            let values = Values::new().with(Column::Manager, manager);
            directory.update(user, &values, Stamp::Ruled, now);
        }
    }
}

/// A hexadecimal id that starts with so many zeros that it is before all others.
fn first_id(rng: &mut fastrand::Rng) -> String {
    format!("00000000{:024x}", rng.u128(..) >> 32)
}

/// A script may say any number; time has an end.
fn at_most_a_decade(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(10 * 365 * 24 * 3_600))
}

fn title(rng: &mut fastrand::Rng) -> Values {
    Values::new().with(Column::Title, format!("Specialist {}", rng.u32(..)))
}

fn among(directory: &Directory, share: f64) -> Vec<Box<str>> {
    directory
        .users()
        .iter()
        .filter(|user| is_among(&user.sys_id, share))
        .map(|user| user.sys_id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Testbed;
    use super::*;

    fn bed() -> Testbed {
        let bed = Testbed::of(40);
        bed.pass(3_600);
        bed
    }

    fn snapshot(bed: &Testbed) -> Vec<serde_json::Value> {
        bed.list("count=500").rows().to_vec()
    }

    /// Which members of users differ, `meta` among them.
    fn differ(before: &[serde_json::Value], after: &[serde_json::Value], member: &str) -> usize {
        let pairs = before.iter().zip(after);
        pairs.filter(|(a, b)| a[member] != b[member]).count()
    }

    #[test]
    fn rows_come_and_go_before_a_page_is_cut() {
        let bed = bed();
        let second = bed.list("startIndex=11&count=10");
        bed.fault(Effect::RowInserted);
        let repeated = bed.list("startIndex=11&count=10");
        assert_eq!(repeated.ids()[1..], second.ids()[..9]);
        assert_eq!(repeated.total(), 41);
        bed.fault(Effect::RowDeleted);
        let back = bed.list("startIndex=11&count=10");
        assert_eq!(back.ids(), second.ids());
        bed.fault(Effect::Undeleted);
        assert_eq!(bed.list("").total(), 41);
    }

    #[test]
    fn stamps_and_content_move_apart() {
        let bed = bed();
        let before = snapshot(&bed);
        bed.fault(Effect::StampsMoved { share: 0.5 });
        let moved = snapshot(&bed);
        assert!(differ(&before, &moved, "meta") > 5);
        assert_eq!(differ(&before, &moved, "title"), 0);
        bed.fault(Effect::SilentChange { share: 0.5 });
        let silent = snapshot(&bed);
        assert_eq!(differ(&moved, &silent, "meta"), 0);
        assert!(differ(&moved, &silent, "title") > 5);
    }

    #[test]
    fn a_late_commit_is_seen_late_with_an_early_stamp() {
        let bed = bed();
        let before = snapshot(&bed);
        bed.sandbox.set_faults(vec![
            super::super::Fault::new(Effect::LateCommit {
                share: 1.0,
                seconds: 600,
            })
            .times(1),
        ]);
        assert_eq!(snapshot(&bed), before);
        bed.pass(599);
        assert_eq!(snapshot(&bed), before);
        bed.pass(1);
        let after = snapshot(&bed);
        assert_eq!(differ(&before, &after, "title"), 40);
        assert_eq!(after[0]["meta"]["lastModified"], "2026-03-01T09:00:00Z");
    }

    #[test]
    fn everybody_is_inactive_and_a_roll_back_undoes_it() {
        let bed = bed();
        let before = snapshot(&bed);
        bed.fault(Effect::EverybodyInactive);
        let page = bed.list("count=500");
        assert!(page.rows().iter().all(|user| user["active"] == false));
        bed.pass(60);
        bed.sandbox
            .create(&Values::new().with(Column::UserName, "later"));
        bed.fault(Effect::RolledBack { seconds: 61 });
        assert_eq!(snapshot(&bed), before);
        bed.fault(Effect::RolledBack { seconds: u64::MAX });
        assert_eq!(snapshot(&bed), before);
    }

    #[test]
    fn a_node_that_lags_shows_what_was() {
        let bed = bed();
        let before = snapshot(&bed);
        let ids = bed.sandbox.ids();
        bed.sandbox.delete(&ids[0]);
        bed.sandbox
            .update(&ids[1], &Values::new().with(Column::Title, "New"));
        let new = bed.sandbox.create(&Values::new());
        bed.pass(30);
        let now = snapshot(&bed);
        bed.fault(Effect::NodeBehind { seconds: 31 });
        assert_eq!(snapshot(&bed), before);
        assert_eq!(bed.get(&format!("/Users/{}", ids[0])).status, 200);
        assert_eq!(bed.get(&format!("/Users/{new}")).status, 404);
        bed.fault(Effect::NodeBehind { seconds: 29 });
        assert_eq!(snapshot(&bed), now);
    }

    #[test]
    fn a_clone_replaces_everybody_and_a_rename_nobody() {
        let bed = bed();
        let before = snapshot(&bed);
        bed.fault(Effect::DepartmentRenamed);
        let renamed = snapshot(&bed);
        assert_eq!(differ(&before, &renamed, "meta"), 0);
        assert_ne!(before, renamed);
        let token = bed.sandbox.issue_token();
        bed.fault(Effect::Cloned { seed: 99 });
        assert_eq!(bed.get("/Users").status, 401);
        bed.sandbox.set_faults(Vec::new());
        let ids: Vec<String> = bed.sandbox.ids();
        assert!(
            before
                .iter()
                .all(|user| !ids.contains(&user["id"].to_string()))
        );
        assert_ne!(bed.sandbox.issue_token(), token);
    }
}
