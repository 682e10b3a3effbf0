//! Writing holds: what a sync keeps back is gathered in its stage, and becomes a hold with the sync's end.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

use super::apply::Writer;
use super::column::{to_json, whole};
use super::error::Error;
use super::gate::{Kept, Watch};
use super::stage::Stage;
use super::syncs::SyncRow;
use super::table::of_table;
use crate::model::time::our_text;
use crate::model::{ResourceId, ResourceType, membership};

/// The table in the stage.
pub(super) const TABLE: &str = "
    CREATE TABLE held ( -- kept back by this sync, until it ends
        guard      TEXT NOT NULL,
        attribute  TEXT NOT NULL, -- empty for none
        id         TEXT NOT NULL,
        path       TEXT NOT NULL,
        limit_text TEXT NOT NULL,
        kind       TEXT NOT NULL,
        changed    TEXT,
        after      TEXT NOT NULL,
        proof      TEXT,
        tx         INTEGER NOT NULL, -- of the transaction that kept it back
        PRIMARY KEY (guard, attribute, id)
    );
";

/// Stands between the limits of a hold whose changes exceed different ones.
pub const BETWEEN_LIMITS: &str = "; ";

/// A hold that a sync opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// `holds.id`.
    pub hold_id: i64,
    /// Which guard.
    pub guard: String,
    /// The attribute of a blanking.
    pub attribute: Option<String>,
    /// Changes in it.
    pub count: u64,
    /// The limit that was exceeded, for people.
    pub limit_text: String,
}

impl Stage {
    /// Keeps a change back. Returns whether it was not kept back by this sync before.
    pub(super) fn hold(&self, kept: &Kept) -> Result<bool, Error> {
        let proof = kept.record.proof.as_ref().map(to_json).transpose()?;
        let new = self
            .conn
            .prepare_cached(
                "INSERT OR IGNORE INTO held (guard, attribute, id, path, limit_text, kind, changed, after, proof, tx)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                kept.guard,
                kept.attribute.as_deref().unwrap_or_default(),
                kept.record.id.as_str(),
                kept.path,
                kept.limit_text,
                kept.record.kind.as_str(),
                kept.record.changed,
                kept.record.after.canonical,
                proof,
                self.own_tx,
            ])?;
        if new == 0 {
            self.conn
                .prepare_cached(
                    "UPDATE held SET tx = ?4 WHERE guard = ?1 AND attribute = ?2 AND id = ?3",
                )?
                .execute(params![
                    kept.guard,
                    kept.attribute.as_deref().unwrap_or_default(),
                    kept.record.id.as_str(),
                    self.own_tx
                ])?;
        }
        Ok(new > 0)
    }

    /// Forgets what was kept back of those whom another sync has read between two transactions of this one: it went by what
    /// it was told later, and has written, held or cleared that. Returns how many changes that is.
    pub(super) fn forget_overtaken(&self, mirror: &Connection) -> Result<u64, Error> {
        let (instance, resource) = (self.key.instance.as_str(), self.key.resource.as_str());
        // Whom this sync kept something back of has a fingerprint, unless another one found him gone.
        let mut newest = mirror.prepare_cached(of_table!(
            self.key.resource,
            "SELECT (SELECT tx FROM fingerprints WHERE instance = ?1 AND resource = ?2 AND fingerprints.id = ?3) FROM ",
            " WHERE instance = ?1 AND id = ?3"
        ))?;
        let mut forget = self.conn.prepare("DELETE FROM held WHERE rowid = ?1")?;
        let mut held = self.conn.prepare(
            "SELECT rowid, id, tx, guard IN ('memberships', 'group_memberships') FROM held",
        )?;
        let mut overtaken = Vec::new();
        let mut rows = held.query([])?;
        while let Some(row) = rows.next()? {
            let (mut id, tx): (String, i64) = (row.get(1)?, row.get(2)?);
            // A list is read with its group.
            if let (true, Some([group, _])) = (row.get(3)?, membership::parts(&id)) {
                id = group;
            }
            let read: Option<Option<i64>> = newest
                .query_row(params![instance, resource, id], |row| row.get(0))
                .optional()?;
            if read.is_some_and(|read| read.is_none_or(|read| read > tx)) {
                overtaken.push(row.get::<_, i64>(0)?);
            }
        }
        for rowid in &overtaken {
            forget.execute([rowid])?;
        }
        Ok(overtaken.len() as u64)
    }
}

impl Writer<'_> {
    /// Opens the holds of a sync: one for each guard, of blankings one for each attribute.
    pub(super) fn open_holds(&self, stage: &Stage, sync: &SyncRow) -> Result<Vec<Opened>, Error> {
        let mut groups = stage
            .conn
            .prepare("SELECT DISTINCT guard, attribute FROM held ORDER BY guard, attribute")?;
        let groups: Vec<(String, String)> = groups
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        groups
            .into_iter()
            .map(|(guard, attribute)| self.open_hold(stage, sync, guard, &attribute))
            .collect()
    }

    fn open_hold(
        &self,
        stage: &Stage,
        sync: &SyncRow,
        guard: String,
        attribute: &str,
    ) -> Result<Opened, Error> {
        let group = [&guard, attribute];
        let resource = match &*guard {
            "memberships" | "group_memberships" => ResourceType::Membership,
            _ => sync.resource,
        };
        let mut limits = stage.conn.prepare(
            "SELECT DISTINCT limit_text FROM held WHERE guard = ?1 AND attribute = ?2 ORDER BY limit_text",
        )?;
        let limits: Vec<String> = limits
            .query_map(group, |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut digest = HoldDigest::default();
        let mut paths = stage.conn.prepare(
            "SELECT id, path FROM held WHERE guard = ?1 AND attribute = ?2 ORDER BY id || ' ' || path",
        )?;
        let mut rows = paths.query(group)?;
        while let Some(row) = rows.next()? {
            let (id, path): (String, String) = (row.get(0)?, row.get(1)?);
            digest.add(resource.as_str(), &id, &path);
        }
        let opened = Opened {
            hold_id: 0,
            guard,
            attribute: (!attribute.is_empty()).then(|| attribute.to_owned()),
            count: digest.count,
            limit_text: limits.join(BETWEEN_LIMITS),
        };
        self.conn.execute(
            "INSERT INTO holds (instance, sync_id, guard, attribute, count, limit_text, digest, state, opened_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'open', ?8)",
            params![
                sync.instance.as_str(),
                sync.id,
                opened.guard,
                opened.attribute,
                whole(opened.count),
                opened.limit_text,
                digest.finish(),
                our_text(sync.finished_at)
            ],
        )?;
        let hold_id = self.conn.last_insert_rowid();
        self.copy_held(stage, [&opened.guard, attribute], hold_id, resource)?;
        Ok(Opened { hold_id, ..opened })
    }

    fn copy_held(
        &self,
        stage: &Stage,
        group: [&str; 2],
        hold_id: i64,
        resource: ResourceType,
    ) -> Result<(), Error> {
        let mut add = self.conn.prepare_cached(
            "INSERT INTO hold_changes (hold_id, resource, id, path, kind, changed, after, proof, state)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'held')",
        )?;
        let mut held = stage.conn.prepare(
            "SELECT id, path, kind, changed, after, proof FROM held
             WHERE guard = ?1 AND attribute = ?2 ORDER BY id",
        )?;
        let mut rows = held.query(group)?;
        while let Some(row) = rows.next()? {
            let [id, path, kind]: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            let changed: Option<String> = row.get(3)?;
            let (after, proof): (String, Option<String>) = (row.get(4)?, row.get(5)?);
            add.execute(params![
                hold_id,
                resource.as_str(),
                id,
                path,
                kind,
                changed,
                after,
                proof
            ])?;
        }
        Ok(())
    }

    /// A user leaves a hold: released to the feed, or because the change no longer stands.
    pub(super) fn leave_hold(
        &self,
        hold_id: i64,
        resource: ResourceType,
        id: &ResourceId,
        state: Left,
    ) -> Result<(), Error> {
        self.conn
            .prepare_cached(
                "UPDATE hold_changes SET state = ?4
                 WHERE hold_id = ?1 AND resource = ?2 AND id = ?3 AND state = 'held'",
            )?
            .execute(params![
                hold_id,
                resource.as_str(),
                id.as_str(),
                state.as_str()
            ])?;
        Ok(())
    }

    /// Closes those of these holds in which nobody is held any more.
    pub(super) fn close_holds(&self, holds: &BTreeSet<i64>, now: Timestamp) -> Result<(), Error> {
        let mut close = self.conn.prepare_cached(
            "UPDATE holds
             SET closed_at = ?2,
                 state = CASE WHEN EXISTS (SELECT 1 FROM hold_changes WHERE hold_id = holds.id AND state = 'released')
                              THEN 'approved' ELSE 'resolved' END
             WHERE id = ?1 AND state = 'open'
               AND NOT EXISTS (SELECT 1 FROM hold_changes WHERE hold_id = holds.id AND state = 'held')",
        )?;
        for hold_id in holds {
            close.execute(params![hold_id, our_text(now)])?;
        }
        Ok(())
    }

    /// Nothing of a hold of the guard `source_changed` stands any more: it is the same directory.
    pub(super) fn mend(&self, hold_id: i64, now: Timestamp) -> Result<(), Error> {
        self.conn.execute(
            "UPDATE hold_changes SET state = 'resolved' WHERE hold_id = ?1 AND state = 'held'",
            [hold_id],
        )?;
        self.close_holds(&BTreeSet::from([hold_id]), now)
    }

    /// Another directory was taken over, by what was written for this hold: whatever was held of the
    /// instance was released with it, or does not stand.
    pub(super) fn settle_all_holds(&self, watch: &Watch, hold_id: i64) -> Result<(), Error> {
        let (instance, resource) = (watch.instance.as_str(), watch.resource.as_str());
        let mut settle = self.conn.prepare(
            "UPDATE hold_changes
             SET state = CASE WHEN EXISTS
                     (SELECT 1 FROM changes INDEXED BY changes_by_resource
                      WHERE changes.instance = ?1 AND changes.resource = ?2 AND changes.id = hold_changes.id
                        AND changes.hold_id = ?3)
                 THEN 'released' ELSE 'resolved' END
             WHERE state = 'held' AND resource = ?2 AND hold_id IN (SELECT id FROM holds WHERE instance = ?1)",
        )?;
        settle.execute(params![instance, resource, hold_id])?;
        if watch.resource == ResourceType::Group {
            let resource = ResourceType::Membership.as_str();
            settle.execute(params![instance, resource, hold_id])?;
        }
        let mut open = self
            .conn
            .prepare("SELECT id FROM holds WHERE instance = ?1 AND state = 'open'")?;
        let open = open
            .query_map([instance], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        self.close_holds(&open, watch.now)
    }

    /// A person approved a hold of the guard `source_changed` by its digest: the next complete full sync applies
    /// what it then finds.
    ///
    /// # Errors
    /// When it may not be approved, see [`Writer::approvable`]; of the database.
    pub fn approve_source_change(
        &self,
        hold_id: i64,
        digest: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.approvable(hold_id, digest)?;
        self.conn.execute(
            "UPDATE holds SET state = 'approved', closed_at = ?2 WHERE id = ?1 AND guard = 'source_changed'",
            params![hold_id, our_text(now)],
        )?;
        Ok(())
    }
}

/// How a user leaves a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Released,
    Resolved,
}

impl Left {
    fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Resolved => "resolved",
        }
    }
}

/// The digest of a hold: SHA-256 of the lines `resource id path`, each ended by a newline, which must be
/// added in their order.
#[derive(Default)]
pub(super) struct HoldDigest {
    hash: Sha256,
    pub(super) count: u64,
}

impl HoldDigest {
    pub(super) fn add(&mut self, resource: &str, id: &str, path: &str) {
        self.hash.update(format!("{resource} {id} {path}\n"));
        self.count += 1;
    }

    /// In lower-case hexadecimal digits.
    pub(super) fn finish(self) -> String {
        let digest = self.hash.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
