//! The tables behind the simulated instance, and every way in which they change: by the platform's
//! rules about stamps, by scripts that bend them, late, and backwards.

mod groups;
mod journal;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::column::{Column, Target};
use super::group::Group;
use super::membership::{Member, Memberships};
use super::row::{Named, User, Values, whole_seconds};
use super::table::{Rows, Table};
use journal::{Before, Journal};

/// What an edit does to `sys_updated_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The platform's rule: it moves when a column of the table itself changes.
    Ruled,
    /// It stays, as under `autoSysFields(false)` (facts page, Q19).
    Kept,
    /// It moves, changed or not, as by a login (facts page, Q20).
    Moved,
}

/// All tables.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    tables: Tables,
    names: BTreeMap<Table, Rows<Named>>,
    users_bin: Bin<User>,
    groups_bin: Bin<Group>,
    journal: Journal,
    late: Vec<Late>,
}

/// The tables whose past is known.
#[derive(Clone, Debug, Default)]
struct Tables {
    users: Rows<User>,
    groups: Rows<Group>,
    memberships: Memberships,
}

/// What was deleted, with the memberships that went with it: all of it can be recovered (facts page,
/// section 15).
type Bin<T> = BTreeMap<Box<str>, (Arc<T>, Vec<(Box<str>, Member)>)>;

#[derive(Clone, Debug)]
struct Late {
    visible_at: Timestamp,
    stamp: Timestamp,
    id: Box<str>,
    values: Values,
}

impl Directory {
    /// Takes users in any order; nothing of it is in the journal.
    #[must_use]
    pub(super) fn new(users: Vec<User>, names: BTreeMap<Table, Vec<Named>>) -> Self {
        Self {
            tables: Tables {
                users: Rows::from_unsorted(users),
                ..Tables::default()
            },
            names: names
                .into_iter()
                .map(|(table, rows)| (table, Rows::from_unsorted(rows)))
                .collect(),
            ..Self::default()
        }
    }

    /// All users, in the order of their `sys_id`.
    #[must_use]
    pub fn users(&self) -> &[Arc<User>] {
        self.tables.users.as_slice()
    }

    /// One user.
    #[must_use]
    pub fn user(&self, id: &str) -> Option<&Arc<User>> {
        self.tables.users.get(id)
    }

    /// The rows of a table of names.
    #[must_use]
    pub fn named(&self, table: Table) -> &[Arc<Named>] {
        self.names.get(&table).map_or(&[], Rows::as_slice)
    }

    /// One row of a table of names.
    #[must_use]
    pub fn name(&self, table: Table, id: &str) -> Option<&Arc<Named>> {
        self.names.get(&table)?.get(id)
    }

    /// The label of what `column` of `user` points to; `None` where it points to nothing.
    #[must_use]
    pub fn label<'a>(&'a self, user: &User, column: Column) -> Option<Cow<'a, str>> {
        let id = user.get(column);
        if id.is_empty() {
            return None;
        }
        match column.target()? {
            Target::User => Some(Cow::Owned(self.user(id)?.name())),
            Target::Named(table) => Some(Cow::Borrowed(&self.name(table, id)?.name)),
        }
    }

    /// Adds a user, or replaces the one with the same `sys_id`.
    pub(super) fn insert(&mut self, user: User, now: Timestamp) -> Arc<User> {
        let user = Arc::new(user);
        self.put(Arc::clone(&user), now);
        user
    }

    /// Sets columns of a user. `false` if there is no such user.
    pub(super) fn update(
        &mut self,
        id: &str,
        values: &Values,
        stamp: Stamp,
        now: Timestamp,
    ) -> bool {
        let Some(before) = self.user(id).cloned() else {
            return false;
        };
        let mut after = User::clone(&before);
        let counts = after.set(values);
        if stamp == Stamp::Moved || (stamp == Stamp::Ruled && counts) {
            after.updated = whole_seconds(now);
        }
        if after != *before {
            self.put(Arc::new(after), now);
        }
        true
    }

    /// Sets columns in a transaction that commits later: the stamp is that of now, and nobody sees
    /// it before `visible_at` (facts page, Q16).
    pub(super) fn update_late(
        &mut self,
        id: &str,
        values: Values,
        visible_at: Timestamp,
        now: Timestamp,
    ) {
        self.late.push(Late {
            visible_at,
            stamp: now,
            id: id.into(),
            values,
        });
    }

    /// Commits what was to be visible by now.
    pub(super) fn settle(&mut self, now: Timestamp) {
        if self.late.iter().all(|late| late.visible_at > now) {
            return;
        }
        let (mut due, waiting) = std::mem::take(&mut self.late)
            .into_iter()
            .partition::<Vec<_>, _>(|late| late.visible_at <= now);
        self.late = waiting;
        due.sort_by_key(|late| late.visible_at);
        for late in due {
            if let Some(before) = self.user(&late.id) {
                let mut after = User::clone(before);
                after.set(&late.values);
                after.updated = whole_seconds(late.stamp);
                self.put(Arc::new(after), late.visible_at);
            }
        }
    }

    /// Deletes a user for good, and what he was a member of with him; he can be recovered. `false` if
    /// there is no such user.
    pub(super) fn delete(&mut self, id: &str, now: Timestamp) -> bool {
        if self.user(id).is_none() {
            return false;
        }
        let memberships = self.leave_all(&Member::user(id), now);
        self.remove(id, memberships, now);
        true
    }

    /// Deletes a user for good as a script does that minds nothing: his memberships stay, and point at
    /// nobody (facts page, section 9.1).
    pub(super) fn delete_alone(&mut self, id: &str, now: Timestamp) -> bool {
        self.remove(id, Vec::new(), now)
    }

    /// Recovers a deleted user under the same `sys_id`, and what he was a member of (facts page, section
    /// 15).
    pub(super) fn undelete(&mut self, id: &str, now: Timestamp) -> bool {
        let Some((user, memberships)) = self.users_bin.remove(id) else {
            return false;
        };
        self.put(user, now);
        self.join_again(memberships, now);
        true
    }

    /// The keys of the users that can be recovered.
    #[must_use]
    pub fn deleted(&self) -> Vec<&str> {
        self.users_bin.keys().map(AsRef::as_ref).collect()
    }

    /// Adds or replaces a row of a table of names.
    pub(super) fn insert_name(&mut self, table: Table, row: Named) {
        self.names.entry(table).or_default().put(Arc::new(row));
    }

    /// Renames a row of a table of names. No member's stamp moves (facts page, section 8.2).
    pub(super) fn rename(&mut self, table: Table, id: &str, name: &str, now: Timestamp) -> bool {
        let Some(before) = self.name(table, id) else {
            return false;
        };
        let mut after = Named::clone(before);
        after.name = name.into();
        after.updated = whole_seconds(now);
        self.insert_name(table, after);
        true
    }

    /// Deletes a row of a table of names, whoever points at it.
    pub(super) fn delete_name(&mut self, table: Table, id: &str) -> bool {
        self.names
            .get_mut(&table)
            .is_some_and(|rows| rows.remove(id).is_some())
    }

    /// What a node shows that lags behind: users, groups and memberships as they were at a moment, and
    /// today's names (facts page, Q6).
    #[must_use]
    pub(super) fn at(&self, moment: Timestamp) -> Self {
        let mut tables = self.tables.clone();
        for before in self.journal.since(moment) {
            before.restore(&mut tables);
        }
        Self {
            tables,
            names: self.names.clone(),
            ..Self::default()
        }
    }

    /// Restores users, groups and memberships as they were at a moment, stamps included (facts page,
    /// Q18).
    pub(super) fn roll_back(&mut self, moment: Timestamp) {
        while let Some(before) = self.journal.pop_since(moment) {
            before.restore(&mut self.tables);
        }
    }

    fn put(&mut self, user: Arc<User>, now: Timestamp) {
        let id = user.sys_id.clone();
        let before = self.tables.users.put(user);
        self.journal.note(now, Before::User(id, before));
    }

    fn remove(&mut self, id: &str, memberships: Vec<(Box<str>, Member)>, now: Timestamp) -> bool {
        let Some(user) = self.tables.users.remove(id) else {
            return false;
        };
        let id = user.sys_id.clone();
        let binned = (Arc::clone(&user), memberships);
        self.users_bin.insert(id.clone(), binned);
        self.journal.note(now, Before::User(id, Some(user)));
        true
    }
}
