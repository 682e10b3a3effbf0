//! The table `identities`: its rows, and the records that change them.

use jiff::Timestamp;
use rusqlite::{Connection, Row, params};

use super::apply;
use super::column::{count, json, to_json};
use super::error::Error;
use super::read::Reader;
use super::record::{Entry, Place, append, observed_at};
use super::seal::Touched;
use super::syncs;
use crate::model::time::our_text;
use crate::model::{Identity, IdentityState, InstanceName, MatchedBy, Reason};
use crate::reconcile::identity::{self, IdentityRecord};

/// A row of `identities`, in the contract's column names.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the columns of `identities`")]
pub struct IdentityRow {
    pub instance: String,
    pub profile: String,
    pub user_id: Option<String>,
    pub matched_by: Option<String>,
    pub state: String,
    pub candidates: Option<Vec<String>>,
    pub changed_seq: i64,
}

const ROWS: &str = "
    SELECT instance, profile, user_id, matched_by, state, candidates, changed_seq FROM identities
    WHERE (?1 IS NULL OR instance = ?1) AND (?2 IS NULL OR state = ?2)
    ORDER BY instance, profile";

impl Reader {
    /// Calls `each` with every row of `identities`, or with those of an instance or a state, in the order of their keys.
    ///
    /// # Errors
    /// Of the database, and of `each`.
    pub fn identities<E: From<Error>>(
        &self,
        instance: Option<&str>,
        state: Option<IdentityState>,
        mut each: impl FnMut(IdentityRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rows = self.conn.prepare_cached(ROWS).map_err(Error::from)?;
        let bound = params![instance, state.map(IdentityState::as_str)];
        let rows = rows.query_map(bound, identity_row).map_err(Error::from)?;
        for row in rows {
            each(row.map_err(Error::from)?)?;
        }
        Ok(())
    }

    /// How many profiles of an instance are in each state, and in each only where there are any.
    ///
    /// # Errors
    /// Of the database.
    pub fn identity_counts(&self, instance: &InstanceName) -> Result<Vec<(String, u64)>, Error> {
        let mut counts = self.conn.prepare_cached(
            "SELECT state, count(*) FROM identities WHERE instance = ?1 GROUP BY state ORDER BY state",
        )?;
        let rows =
            counts.query_map([instance.as_str()], |row| Ok((row.get(0)?, count(row, 1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn identity_row(row: &Row<'_>) -> rusqlite::Result<IdentityRow> {
    Ok(IdentityRow {
        instance: row.get(0)?,
        profile: row.get(1)?,
        user_id: row.get(2)?,
        matched_by: row.get(3)?,
        state: row.get(4)?,
        candidates: json(row, 5)?,
        changed_seq: row.get(6)?,
    })
}

/// The columns that [`identity()`] reads.
pub(super) const COLUMNS: &str = "user_id, matched_by, state, candidates";

/// A row of [`COLUMNS`] from this place on.
pub(super) fn identity(row: &Row<'_>, place: usize) -> Result<Identity, Error> {
    let odd = || Error::Damaged("`identities` has a word that is none of its own".into());
    let matched_by: Option<String> = row.get(place + 1)?;
    let state: String = row.get(place + 2)?;
    Ok(Identity {
        user_id: row.get(place)?,
        matched_by: match matched_by {
            Some(word) => Some(MatchedBy::parse(&word).ok_or_else(odd)?),
            None => None,
        },
        state: IdentityState::parse(&state).ok_or_else(odd)?,
        candidates: json(row, place + 3)?.unwrap_or_default(),
    })
}

/// How a profile stands by its row; `None` without one.
pub(super) fn load(
    conn: &Connection,
    instance: &InstanceName,
    profile: &str,
) -> Result<Option<Identity>, Error> {
    let mut row = conn.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM identities WHERE instance = ?1 AND profile = ?2"
    ))?;
    let mut rows = row.query([instance.as_str(), profile])?;
    rows.next()?.map(|row| identity(row, 0)).transpose()
}

/// Writes the records of one transaction about the profiles of one instance, and the rows that they make.
pub(super) struct Register<'a> {
    conn: &'a Connection,
    instance: &'a InstanceName,
    /// `None` until the first record needs one.
    sync_id: Option<i64>,
    observed_at: String,
    /// Of the newest record.
    last_seq: i64,
}

impl<'a> Register<'a> {
    /// Goes on behind a record of a sync.
    pub(super) fn behind(
        conn: &'a Connection,
        instance: &'a InstanceName,
        sync_id: i64,
        observed_at: Timestamp,
        last_seq: i64,
    ) -> Self {
        Self {
            conn,
            instance,
            sync_id: Some(sync_id),
            observed_at: our_text(observed_at),
            last_seq,
        }
    }

    /// For what a person does, beside all syncs: its records have a number in `sync_id` that no sync has.
    pub(super) fn open(
        conn: &'a Connection,
        instance: &'a InstanceName,
        now: Timestamp,
    ) -> Result<Self, Error> {
        Ok(Self {
            conn,
            instance,
            sync_id: None,
            observed_at: our_text(observed_at(conn, now)?),
            last_seq: apply::last_seq(conn)?,
        })
    }

    /// Writes how a profile stands, with its record; nothing where it stands like that already. Returns whether it did not.
    pub(super) fn put(
        &mut self,
        profile: &str,
        before: Option<&Identity>,
        after: &Identity,
    ) -> Result<bool, Error> {
        let Some(record) = identity::record(profile, before, after) else {
            return Ok(false);
        };
        self.append(profile, &record)?;
        let candidates = match &after.candidates[..] {
            [] => None,
            candidates => Some(to_json(&candidates)?),
        };
        self.conn
            .prepare_cached(
                "INSERT INTO identities (instance, profile, user_id, matched_by, state, candidates, changed_seq)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (instance, profile) DO UPDATE
                 SET user_id = excluded.user_id, matched_by = excluded.matched_by, state = excluded.state,
                     candidates = excluded.candidates, changed_seq = excluded.changed_seq",
            )?
            .execute(params![
                self.instance.as_str(),
                profile,
                after.user_id,
                after.matched_by.map(MatchedBy::as_str),
                after.state.as_str(),
                candidates,
                self.last_seq
            ])?;
        Ok(true)
    }

    /// Takes a profile out, with its record.
    pub(super) fn remove(
        &mut self,
        touched: &Touched,
        profile: &str,
        before: &Identity,
        reason: Reason,
    ) -> Result<(), Error> {
        self.append(profile, &identity::removed(profile, before, reason))?;
        let instance = self.instance.as_str();
        touched.drop_seal(self.conn, "identities", &format!("{instance} {profile}"))?;
        self.conn
            .prepare_cached("DELETE FROM identities WHERE instance = ?1 AND profile = ?2")?
            .execute([instance, profile])?;
        Ok(())
    }

    fn append(&mut self, profile: &str, record: &IdentityRecord) -> Result<(), Error> {
        let sync_id = match self.sync_id {
            Some(sync_id) => sync_id,
            None => *self.sync_id.insert(syncs::reserve(self.conn)?),
        };
        self.last_seq += 1;
        let place = Place {
            seq: self.last_seq,
            sync_id,
            instance: self.instance,
            hold_id: None,
            observed_at: &self.observed_at,
        };
        let entry = Entry {
            resource: identity::RESOURCE,
            id: profile,
            kind: record.kind,
            reason: record.reason,
            changed: record.changed.as_deref(),
            after: &record.after,
            proof: None,
            source_modified_at: None,
        };
        append(self.conn, &place, &entry)
    }

    /// The newest record's `seq`, which is for the caller to write down.
    pub(super) fn last_seq(&self) -> i64 {
        self.last_seq
    }

    /// Writes down the feed's head.
    pub(super) fn finish(self) -> Result<(), Error> {
        // Without a record it is where it was, and nothing is written.
        if self.sync_id.is_some() {
            self.conn
                .execute("UPDATE feed SET last_seq = ?1", [self.last_seq])?;
        }
        Ok(())
    }
}
