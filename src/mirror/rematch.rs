//! What a change of users makes of the profiles, within the transaction that changes them.
//!
//! Only those profiles are looked at whose link or keys lead to a user who changed. Where no list was imported for an instance, that
//! is found out once in a transaction, and nothing else is asked.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::due::Known;
use super::error::Error;
use super::identities::{self, Register};
use super::profiles;
use super::user_keys::{self, COLUMNS, Matcher, UserKeys};
use crate::model::{ChangeRecord, InstanceName, Rule, UserColumns};
use crate::reconcile::identity::folded;

/// Notes whom a transaction changes.
pub(super) struct Rematch<'a> {
    conn: &'a Connection,
    instance: &'a InstanceName,
    rules: Vec<Rule>,
    /// The profiles to look at.
    due: BTreeSet<String>,
}

impl<'a> Rematch<'a> {
    /// `None` where no list was imported.
    pub(super) fn of(
        conn: &'a Connection,
        instance: &'a InstanceName,
    ) -> Result<Option<Self>, Error> {
        let list = user_keys::list_of(conn, instance)?;
        Ok(list.map(|list| Self {
            conn,
            instance,
            rules: list.rules,
            due: BTreeSet::new(),
        }))
    }

    /// Notes a user before the row is written.
    pub(super) fn note(
        &mut self,
        known: Option<Known>,
        record: &ChangeRecord,
        columns: &UserColumns,
    ) -> Result<(), Error> {
        let is_gone = record.after.gone_at.is_some();
        if known.is_some_and(|known| known.gone == is_gone) && leaves_keys(record) {
            return Ok(());
        }
        let before = match known {
            Some(known) if !known.gone => self.keys_of(known.rowid)?,
            _ => UserKeys::default(),
        };
        let after = match is_gone {
            true => UserKeys::default(),
            false => UserKeys::of(columns),
        };
        let id = record.id.as_str();
        user_keys::replace(self.conn, self.instance, id, &before, &after)?;
        for (rule, key) in before.iter().chain(after.iter()) {
            self.add(
                "SELECT profile FROM identity_keys WHERE instance = ?1 AND rule = ?2 AND folded = ?3",
                &[self.instance.as_str(), rule.as_str(), &folded(key)],
            )?;
        }
        self.add(
            "SELECT profile FROM identities WHERE instance = ?1 AND user_id = ?2",
            &[self.instance.as_str(), id],
        )
    }

    /// How many records may follow.
    pub(super) fn pending(&self) -> usize {
        self.due.len()
    }

    /// Looks at the profiles, and writes what changed of them.
    pub(super) fn finish(self, register: &mut Register<'_>) -> Result<(), Error> {
        if self.due.is_empty() {
            return Ok(());
        }
        let mut matcher = Matcher::new(self.conn, self.instance, self.rules)?;
        for name in &self.due {
            let Some(profile) = profiles::load(self.conn, self.instance, name)? else {
                continue;
            };
            let before = identities::load(self.conn, self.instance, name)?;
            let after = matcher.identity(&profile, before.as_ref(), None)?;
            register.put(name, before.as_ref(), &after)?;
        }
        Ok(())
    }

    fn keys_of(&self, rowid: i64) -> Result<UserKeys, Error> {
        let mut row = self
            .conn
            .prepare_cached(&format!("SELECT {COLUMNS} FROM users WHERE rowid = ?1"))?;
        Ok(row.query_row([rowid], |row| UserKeys::of_row(row, 0))?)
    }

    fn add(&mut self, sql: &str, bound: &[&str]) -> Result<(), Error> {
        let mut profiles = self.conn.prepare_cached(sql)?;
        let bound = rusqlite::params_from_iter(bound);
        for profile in profiles.query_map(bound, |row| row.get(0))? {
            self.due.insert(profile?);
        }
        Ok(())
    }
}

/// Whether a record says that no key changes: `changed` has the columns as its paths. Their names anywhere in it count, which costs a
/// look in vain.
fn leaves_keys(record: &ChangeRecord) -> bool {
    (record.changed.as_deref())
        .is_some_and(|changed| !Rule::ALL.iter().any(|rule| changed.contains(rule.as_str())))
}
