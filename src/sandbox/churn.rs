//! The life of the organisation: joins, moves, new managers and titles, leavers, deletions, renamed
//! departments, so many a minute, at times that the clock alone decides. With each of them something
//! changes in a group.

mod groups;

use std::time::Duration;

use jiff::Timestamp;

use super::column::Column;
use super::directory::{Directory, Stamp};
use super::generate::{newcomer, sys_id};
use super::row::{User, Values};
use super::table::Table;
use groups::GroupChurn;

/// How often each kind of change happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Churned {
    /// People who joined.
    pub joined: u64,
    /// People who moved to another department or place.
    pub moved: u64,
    /// People with a new manager.
    pub new_managers: u64,
    /// People with a new title or telephone.
    pub edited: u64,
    /// People who were made inactive.
    pub left: u64,
    /// People who were made active again.
    pub returned: u64,
    /// Users who were deleted for good.
    pub deleted: u64,
    /// Departments that were renamed.
    pub renamed: u64,
    /// Members who joined a group.
    pub members_joined: u64,
    /// Members who left one.
    pub members_left: u64,
    /// Groups that were made.
    pub groups_made: u64,
    /// Groups that were renamed.
    pub groups_renamed: u64,
    /// Groups that were deleted for good.
    pub groups_deleted: u64,
}

/// The changes to come.
#[derive(Debug)]
pub(super) struct Churn {
    every: Option<Duration>,
    next_at: Timestamp,
    rng: fastrand::Rng,
    groups: GroupChurn,
    number: usize,
    done: Churned,
}

impl Churn {
    /// So many changes a minute from `now` on; 0 is none. What becomes of groups is drawn from `groups`, so
    /// that it changes nothing for users.
    #[must_use]
    pub(super) fn new(
        per_minute: u32,
        now: Timestamp,
        rng: fastrand::Rng,
        groups: fastrand::Rng,
    ) -> Self {
        let mut churn = Self {
            every: None,
            next_at: now,
            rng,
            groups: GroupChurn::new(groups),
            number: 0,
            done: Churned::default(),
        };
        churn.set_rate(per_minute, now);
        churn
    }

    /// Changes the rate.
    pub(super) fn set_rate(&mut self, per_minute: u32, now: Timestamp) {
        self.every = Duration::from_secs(60).checked_div(per_minute);
        if let Some(every) = self.every {
            self.next_at = now + every;
        }
    }

    /// What happened so far.
    #[must_use]
    pub(super) fn done(&self) -> Churned {
        self.done
    }

    /// Lets everything happen that was due by `now`, stamped with the time at which it was due.
    pub(super) fn catch_up(&mut self, directory: &mut Directory, now: Timestamp) {
        let Some(every) = self.every else {
            return;
        };
        while self.next_at <= now {
            let at = self.next_at;
            self.next_at = at + every;
            self.change(directory, at);
            self.groups.change(directory, at, &mut self.done);
        }
    }

    fn change(&mut self, directory: &mut Directory, at: Timestamp) {
        let lot = self.rng.u8(..100);
        let drawn = self
            .rng
            .choice(directory.users())
            .map(|user| user.sys_id.clone());
        let Some(id) = drawn.filter(|_| lot >= 12) else {
            return self.join(directory, at);
        };
        let active = directory.user(&id).is_some_and(|user| user.active);
        let (count, values) = match lot {
            12..30 => {
                let values = Values::new()
                    .with(Column::Department, self.draw(directory, Table::Department))
                    .with(Column::Location, self.draw(directory, Table::Location));
                (&mut self.done.moved, values)
            }
            30..45 => {
                let manager = self.rng.choice(directory.users());
                let manager = manager.map_or("", |user| &user.sys_id);
                let values = Values::new().with(Column::Manager, manager);
                (&mut self.done.new_managers, values)
            }
            45..70 => {
                let title = format!("Specialist, grade {}", self.rng.u16(..));
                (
                    &mut self.done.edited,
                    Values::new().with(Column::Title, title),
                )
            }
            70..80 => {
                let phone = format!("+47 555 {:05}", self.rng.u32(..100_000));
                (
                    &mut self.done.edited,
                    Values::new().with(Column::Phone, phone),
                )
            }
            80..93 if active => (&mut self.done.left, Values::new().active(false)),
            80..93 => (&mut self.done.returned, Values::new().active(true)),
            93..96 => {
                directory.delete(&id, at);
                self.done.deleted += 1;
                return;
            }
            _ => return self.rename(directory, at),
        };
        directory.update(&id, &values, Stamp::Ruled, at);
        *count += 1;
    }

    fn join(&mut self, directory: &mut Directory, at: Timestamp) {
        self.number += 1;
        let mut user = User::new(&sys_id(&mut self.rng), at);
        let manager = self.rng.choice(directory.users());
        let draw = |table: Table, rng: &mut fastrand::Rng| {
            let row = rng.choice(directory.named(table))?;
            Some(row.sys_id.to_string())
        };
        // Numbers above all that generating the directory gave away.
        let number = 1_000_000 + self.number;
        let values = newcomer(number, manager.map(AsRef::as_ref), &draw, &mut self.rng);
        user.set(&values);
        directory.insert(user, at);
        self.done.joined += 1;
    }

    fn rename(&mut self, directory: &mut Directory, at: Timestamp) {
        let id = self.draw(directory, Table::Department);
        let Some(row) = directory.name(Table::Department, &id) else {
            return;
        };
        let plain = row.name.split(" (").next().unwrap_or_default().to_owned();
        let name = format!("{plain} ({})", self.rng.u16(..));
        directory.rename(Table::Department, &id, &name, at);
        self.done.renamed += 1;
    }

    fn draw(&mut self, directory: &Directory, table: Table) -> String {
        self.rng
            .choice(directory.named(table))
            .map(|row| row.sys_id.to_string())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::generate::{GroupOptions, group_rng, organisation};
    use super::*;

    fn after(steps: &[i64], groups: usize) -> (Directory, Churned) {
        let start = Timestamp::from_second(1_772_000_000).unwrap();
        let mut rng = fastrand::Rng::with_seed(3);
        let organisation = organisation(200, true, start, &mut rng);
        let options = GroupOptions {
            groups,
            largest: 0,
            odd: true,
        };
        let mut directory = organisation.into_directory(&options, 3, start);
        let mut churn = Churn::new(30, start, rng, group_rng(4));
        for second in steps {
            let now = Timestamp::from_second(1_772_000_000 + second).unwrap();
            churn.catch_up(&mut directory, now);
        }
        (directory, churn.done())
    }

    #[test]
    fn it_depends_on_the_clock_and_not_on_who_asks_when() {
        let (once, done) = after(&[3_600], 40);
        let (often, again) = after(&[1, 7, 500, 501, 3_600], 40);
        assert_eq!(done, again);
        assert_eq!(once.users(), often.users());
        assert_eq!(once.groups(), often.groups());
        for group in once.groups() {
            assert_eq!(once.members(&group.sys_id), often.members(&group.sys_id));
        }
        for (kind, count) in [
            ("joined", done.joined),
            ("moved", done.moved),
            ("new managers", done.new_managers),
            ("edited", done.edited),
            ("left", done.left),
            ("returned", done.returned),
            ("deleted", done.deleted),
            ("renamed", done.renamed),
            ("joined a group", done.members_joined),
            ("left a group", done.members_left),
            ("made a group", done.groups_made),
            ("renamed a group", done.groups_renamed),
            ("deleted a group", done.groups_deleted),
        ] {
            assert!(count > 0, "nobody {kind}");
        }
        let stamps = once.users().iter().map(|user| user.updated.as_second());
        assert_eq!(stamps.filter(|second| *second > 1_772_003_600).count(), 0);
    }

    #[test]
    fn groups_change_beside_users_and_change_nothing_for_them() {
        let (with, done) = after(&[3_600], 40);
        let (without, alone) = after(&[3_600], 0);
        assert_eq!(with.users(), without.users());
        assert!(without.groups().is_empty());
        let of_groups = |done: Churned| {
            [
                done.members_joined,
                done.members_left,
                done.groups_made,
                done.groups_renamed,
                done.groups_deleted,
            ]
        };
        assert_eq!(of_groups(alone), [0; 5]);
        assert!(of_groups(done).iter().sum::<u64>() > 1_500);
    }
}
