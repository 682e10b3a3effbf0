//! The tables behind the simulated instance, and every way in which they change: by the platform's
//! rules about stamps, by scripts that bend them, late, and backwards.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;

use super::column::{Column, Target};
use super::row::{Named, User, Values, whole_seconds};
use super::table::{Rows, Table};

/// Edits remembered for lagging nodes and roll-backs: far more than any lag spans.
const JOURNAL_ENTRIES: usize = 65_536;

/// What an edit does to `sys_updated_on`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The platform's rule: it moves when a column of `sys_user` changes.
    Ruled,
    /// It stays, as under `autoSysFields(false)` (facts page, Q19).
    Kept,
    /// It moves, changed or not, as by a login (facts page, Q20).
    Moved,
}

/// All tables.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    users: Rows<User>,
    names: BTreeMap<Table, Rows<Named>>,
    bin: BTreeMap<Box<str>, Arc<User>>,
    journal: VecDeque<Entry>,
    late: Vec<Late>,
}

#[derive(Clone, Debug)]
struct Entry {
    at: Timestamp,
    id: Box<str>,
    before: Option<Arc<User>>,
}

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
            users: Rows::from_unsorted(users),
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
        self.users.as_slice()
    }

    /// One user.
    #[must_use]
    pub fn user(&self, id: &str) -> Option<&Arc<User>> {
        self.users.get(id)
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
        let before = self.users.put(Arc::clone(&user));
        self.note(now, user.sys_id.clone(), before);
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
        let Some(before) = self.users.get(id).cloned() else {
            return false;
        };
        let mut after = User::clone(&before);
        let counts = after.set(values);
        if stamp == Stamp::Moved || (stamp == Stamp::Ruled && counts) {
            after.updated = whole_seconds(now);
        }
        if after != *before {
            self.users.put(Arc::new(after));
            self.note(now, before.sys_id.clone(), Some(before));
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
            if let Some(before) = self.users.get(&late.id).cloned() {
                let mut after = User::clone(&before);
                after.set(&late.values);
                after.updated = whole_seconds(late.stamp);
                self.users.put(Arc::new(after));
                self.note(late.visible_at, late.id, Some(before));
            }
        }
    }

    /// Deletes a user for good; it can be recovered. `false` if there is no such user.
    pub(super) fn delete(&mut self, id: &str, now: Timestamp) -> bool {
        let Some(user) = self.users.remove(id) else {
            return false;
        };
        self.bin.insert(user.sys_id.clone(), Arc::clone(&user));
        self.note(now, user.sys_id.clone(), Some(user));
        true
    }

    /// Recovers a deleted user under the same `sys_id` (facts page, section 15).
    pub(super) fn undelete(&mut self, id: &str, now: Timestamp) -> bool {
        let Some(user) = self.bin.remove(id) else {
            return false;
        };
        let before = self.users.put(user);
        self.note(now, id.into(), before);
        true
    }

    /// The keys of the users that can be recovered.
    #[must_use]
    pub fn deleted(&self) -> Vec<&str> {
        self.bin.keys().map(AsRef::as_ref).collect()
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

    /// The users as they were at a moment, as a node that lags behind shows them (facts page, Q6).
    #[must_use]
    pub(super) fn users_at(&self, moment: Timestamp) -> Vec<Arc<User>> {
        let mut past = self.users.clone();
        for entry in self.journal.iter().rev().take_while(|e| e.at > moment) {
            match &entry.before {
                Some(before) => {
                    past.put(Arc::clone(before));
                }
                None => {
                    past.remove(&entry.id);
                }
            }
        }
        past.as_slice().to_vec()
    }

    /// Restores the users as they were at a moment, stamps included (facts page, Q18).
    pub(super) fn roll_back(&mut self, moment: Timestamp) {
        while let Some(entry) = self.journal.pop_back_if(|entry| entry.at > moment) {
            match entry.before {
                Some(before) => {
                    self.users.put(before);
                }
                None => {
                    self.users.remove(&entry.id);
                }
            }
        }
    }

    fn note(&mut self, at: Timestamp, id: Box<str>, before: Option<Arc<User>>) {
        if self.journal.len() == JOURNAL_ENTRIES {
            self.journal.pop_front();
        }
        self.journal.push_back(Entry { at, id, before });
    }
}
