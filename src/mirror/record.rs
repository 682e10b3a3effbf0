//! Writes change records: a row of `changes` each, and the user that it makes.

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use super::apply::{self, Batch};
use super::column::{time, to_json};
use super::due::Known;
use super::error::Error;
use super::identities::Register;
use super::rematch::Rematch;
use super::seal;
use super::syncs::known_instance;
use super::{lists, table};
use crate::model::time::{our_text, their_text};
use crate::model::user::text_columns;
use crate::model::{
    ChangeRecord, Fingerprint, InstanceName, Kind, Reason, ResourceId, ResourceType, UserColumns,
};

/// Columns of a resource's table that a record decides, before those of [`text_columns`].
const RECORD_COLUMNS: [&str; 7] = [
    "active",
    "created_at",
    "modified_at",
    "attributes",
    "changed_at",
    "changed_seq",
    "gone_at",
];

/// Columns of an index that a record may change. SQLite writes an index anew for a column that is set, also to what it was: a page
/// each, anywhere in the file, a third of all pages that a change writes.
const INDEXED: [&str; 3] = ["user_name", "email", "manager_id"];

/// The same of `groups`.
const INDEXED_OF_GROUPS: [&str; 1] = ["display_name"];

fn indexed(resource: ResourceType) -> &'static [&'static str] {
    match resource {
        ResourceType::User => &INDEXED,
        ResourceType::Group | ResourceType::Membership => &INDEXED_OF_GROUPS,
    }
}

/// In the place of a fingerprint: what was read is held in part, so that it is compared in full each time.
pub(super) const IN_PART: Fingerprint = [0; 16];

/// Writes the records of one transaction. Nothing is complete before [`Pen::finish`].
pub(super) struct Pen<'a> {
    conn: &'a Connection,
    batch: &'a Batch,
    /// The number of this transaction.
    tx: i64,
    insert_user: CachedStatement<'a>,
    update_user: CachedStatement<'a>,
    /// The same for a user whose [`INDEXED`] columns stay what they are.
    update_unindexed: CachedStatement<'a>,
    /// Of every record of this transaction: the clock's time, but not before the newest record's.
    observed_at: Timestamp,
    first_seq: i64,
    last_seq: i64,
    living: i64,
    active: i64,
    /// Memberships that began, less those that ended.
    memberships: i64,
    /// Looks at the profiles of those who change; `None` where no list of profiles was imported.
    rematch: Option<Rematch<'a>>,
}

impl<'a> Pen<'a> {
    pub(super) fn new(conn: &'a Connection, batch: &'a Batch, tx: i64) -> Result<Self, Error> {
        let last_seq = apply::last_seq(conn)?;
        let resource = batch.watch.resource;
        let table = table::name(resource);
        let columns = || {
            let text = text_columns(resource).iter().copied();
            RECORD_COLUMNS.into_iter().chain(text)
        };
        let names: Vec<&str> = columns().collect();
        let marks = vec!["?"; names.len()].join(", ");
        let update = |skipped: &[&str]| {
            // Every mark has its number, so that both statements are bound alike.
            let sets: Vec<String> = (1..)
                .zip(&names)
                .filter(|(_, name)| !skipped.contains(name))
                .map(|(place, name)| format!("{name} = ?{place}"))
                .collect();
            let rowid = names.len() + 1;
            format!(
                "UPDATE {table} SET {} WHERE rowid = ?{rowid}",
                sets.join(", ")
            )
        };
        Ok(Self {
            conn,
            batch,
            tx,
            insert_user: conn.prepare_cached(&format!(
                "INSERT INTO {table} ({}, instance, id, first_seen_at) VALUES ({marks}, ?, ?, ?)",
                names.join(", ")
            ))?,
            update_user: conn.prepare_cached(&update(&[]))?,
            update_unindexed: conn.prepare_cached(&update(indexed(resource)))?,
            observed_at: observed_at(conn, batch.watch.now)?,
            first_seq: last_seq,
            last_seq,
            living: 0,
            active: 0,
            memberships: 0,
            rematch: match resource {
                ResourceType::User => Rematch::of(conn, &batch.watch.instance)?,
                ResourceType::Group | ResourceType::Membership => None,
            },
        })
    }

    /// The time of the records.
    pub(super) fn observed_at(&self) -> Timestamp {
        self.observed_at
    }

    /// Writes one record as the feed's next, released from a hold or not, and inserts or updates its user. Returns its
    /// `seq`.
    pub(super) fn write(
        &mut self,
        known: Option<Known>,
        record: &ChangeRecord,
        columns: &UserColumns,
        hold_id: Option<i64>,
    ) -> Result<i64, Error> {
        self.last_seq += 1;
        let observed_at = our_text(self.observed_at);
        let modified_at = record.after.modified_at.map(their_text);
        let place = Place {
            seq: self.last_seq,
            sync_id: self.batch.sync_id,
            instance: &self.batch.watch.instance,
            hold_id,
            observed_at: &observed_at,
        };
        if let Some(rematch) = &mut self.rematch {
            // Before the row is: it has the keys that the user had.
            rematch.note(known, record, columns)?;
        }
        let proof = record.proof.as_ref().map(to_json).transpose()?;
        append(
            self.conn,
            &place,
            &Entry::of(record, proof.as_deref(), modified_at.as_deref()),
        )?;

        // What the feed says again and again: a user without `active` is active.
        let active = columns.active.unwrap_or(true);
        let user = match known {
            Some(_) if leaves_indexes(record) => &mut self.update_unindexed,
            Some(_) => &mut self.update_user,
            None => &mut self.insert_user,
        };
        user.raw_bind_parameter(1, active)?;
        user.raw_bind_parameter(2, record.after.created_at.map(their_text))?;
        user.raw_bind_parameter(3, modified_at)?;
        user.raw_bind_parameter(4, &record.after.canonical)?;
        user.raw_bind_parameter(5, &observed_at)?;
        user.raw_bind_parameter(6, self.last_seq)?;
        user.raw_bind_parameter(7, record.after.gone_at.map(our_text))?;
        let mut place = RECORD_COLUMNS.len();
        let n_text = text_columns(record.resource).len();
        for text in columns.text.iter().take(n_text) {
            place += 1;
            user.raw_bind_parameter(place, text)?;
        }
        match known {
            Some(known) => user.raw_bind_parameter(place + 1, known.rowid)?,
            None => {
                user.raw_bind_parameter(place + 1, self.batch.watch.instance.as_str())?;
                user.raw_bind_parameter(place + 2, record.id.as_str())?;
                user.raw_bind_parameter(place + 3, &observed_at)?;
            }
        }
        user.raw_execute()?;

        let lives = record.after.gone_at.is_none();
        self.living += i64::from(lives) - i64::from(known.is_some_and(|was| !was.gone));
        self.active += i64::from(active) - i64::from(known.is_some_and(|was| was.active));
        Ok(self.last_seq)
    }

    /// Stores the fingerprint of what was applied in full, or [`IN_PART`]: the user is at the record `changed_seq`. Also
    /// where it is the same one: it was read again.
    pub(super) fn remember(
        &self,
        id: &ResourceId,
        fingerprint: &Fingerprint,
        changed_seq: i64,
    ) -> Result<(), Error> {
        self.conn
            .prepare_cached(
                "INSERT INTO fingerprints (instance, resource, id, fingerprint, tx, seal) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (instance, resource, id)
                 DO UPDATE SET fingerprint = excluded.fingerprint, tx = excluded.tx, seal = excluded.seal",
            )?
            .execute(params![
                self.batch.watch.instance.as_str(),
                self.batch.watch.resource.as_str(),
                id.as_str(),
                fingerprint,
                self.tx,
                seal::tie(fingerprint, self.tx, id.as_str(), changed_seq)
            ])?;
        Ok(())
    }

    /// Whether the stored fingerprint says that all of a resource was applied.
    pub(super) fn knows_in_full(&self, id: &ResourceId) -> Result<bool, Error> {
        Ok(self
            .conn
            .prepare_cached(
                "SELECT 1 FROM fingerprints WHERE instance = ?1 AND resource = ?2 AND id = ?3 AND fingerprint <> ?4",
            )?
            .exists(params![
                self.batch.watch.instance.as_str(),
                self.batch.watch.resource.as_str(),
                id.as_str(),
                IN_PART
            ])?)
    }

    /// Forgets the fingerprint of somebody gone: who returns unchanged is a change.
    pub(super) fn forget(&self, id: &ResourceId) -> Result<(), Error> {
        self.conn
            .prepare_cached(
                "DELETE FROM fingerprints WHERE instance = ?1 AND resource = ?2 AND id = ?3",
            )?
            .execute(params![
                self.batch.watch.instance.as_str(),
                self.batch.watch.resource.as_str(),
                id.as_str()
            ])?;
        Ok(())
    }

    /// Writes the record of a membership as the feed's next, and its row.
    pub(super) fn write_membership(
        &mut self,
        group: &ResourceId,
        entry: &lists::Entry,
        record: &ChangeRecord,
    ) -> Result<(), Error> {
        self.last_seq += 1;
        let observed_at = our_text(self.observed_at);
        let instance = &self.batch.watch.instance;
        let place = Place {
            seq: self.last_seq,
            sync_id: self.batch.sync_id,
            instance,
            hold_id: entry.hold_id,
            observed_at: &observed_at,
        };
        append(self.conn, &place, &Entry::of(record, None, None))?;
        let ends = entry.kind == Kind::Deactivate;
        match (entry.rowid, ends) {
            (Some(rowid), true) => self
                .conn
                .prepare_cached(
                    "UPDATE memberships SET changed_seq = ?2, ended_at = ?3 WHERE rowid = ?1",
                )?
                .execute(params![rowid, self.last_seq, observed_at])?,
            (Some(rowid), false) => self
                .conn
                .prepare_cached(
                    "UPDATE memberships SET member_type = ?2, label = ?3, changed_seq = ?4, ended_at = NULL
                     WHERE rowid = ?1",
                )?
                .execute(params![
                    rowid,
                    entry.member.kind.as_str(),
                    entry.member.label,
                    self.last_seq
                ])?,
            (None, _) => self
                .conn
                .prepare_cached(
                    "INSERT INTO memberships (instance, group_id, member_id, member_type, label, first_seen_at, changed_seq)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    instance.as_str(),
                    group.as_str(),
                    entry.member.id,
                    entry.member.kind.as_str(),
                    entry.member.label,
                    observed_at,
                    self.last_seq
                ])?,
        };
        self.memberships += if ends { -1 } else { 1 };
        Ok(())
    }

    /// The `seq` of the newest record.
    pub(super) fn last_seq(&self) -> i64 {
        self.last_seq
    }

    /// How many more records this transaction may hold (promise P2).
    pub(super) fn room(&self) -> usize {
        let written = usize::try_from(self.last_seq - self.first_seq).unwrap_or(usize::MAX);
        let pending = self.rematch.as_ref().map_or(0, Rematch::pending);
        (self.batch.limit.max(1)).saturating_sub(written.saturating_add(pending))
    }

    /// Writes what the records add up to: how profiles stand now, the feed's head, and the counts.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        if let Some(rematch) = self.rematch.take() {
            let watch = &self.batch.watch;
            let (sync_id, observed_at) = (self.batch.sync_id, self.observed_at);
            let mut register = Register::behind(
                self.conn,
                &watch.instance,
                sync_id,
                observed_at,
                self.last_seq,
            );
            rematch.finish(&mut register)?;
            self.last_seq = register.last_seq();
        }
        if self.last_seq != self.first_seq {
            self.conn
                .execute("UPDATE feed SET last_seq = ?1", [self.last_seq])?;
        }
        if (self.living, self.active) != (0, 0) {
            let counted = self.conn.execute(
                "UPDATE source_counts SET living = living + ?3, active = active + ?4
                 WHERE instance = ?1 AND resource = ?2",
                params![
                    self.batch.watch.instance.as_str(),
                    self.batch.watch.resource.as_str(),
                    self.living,
                    self.active
                ],
            )?;
            known_instance(counted, &self.batch.watch.instance)?;
        }
        if self.memberships != 0 {
            let counted = self.conn.execute(
                "UPDATE source_counts SET living = living + ?3, active = active + ?3
                 WHERE instance = ?1 AND resource = ?2",
                params![
                    self.batch.watch.instance.as_str(),
                    ResourceType::Membership.as_str(),
                    self.memberships
                ],
            )?;
            known_instance(counted, &self.batch.watch.instance)?;
        }
        Ok(())
    }
}

/// What only the feed gives a record.
pub(super) struct Place<'a> {
    pub(super) seq: i64,
    pub(super) sync_id: i64,
    pub(super) instance: &'a InstanceName,
    pub(super) hold_id: Option<i64>,
    pub(super) observed_at: &'a str,
}

/// What a record says of whatever resource it is.
pub(super) struct Entry<'a> {
    pub(super) resource: &'a str,
    pub(super) id: &'a str,
    pub(super) kind: Kind,
    pub(super) reason: Reason,
    pub(super) changed: Option<&'a str>,
    pub(super) after: &'a str,
    pub(super) proof: Option<&'a str>,
    pub(super) source_modified_at: Option<&'a str>,
}

impl<'a> Entry<'a> {
    /// Of a record of a resource, with what is made a text for it.
    pub(super) fn of(
        record: &'a ChangeRecord,
        proof: Option<&'a str>,
        source_modified_at: Option<&'a str>,
    ) -> Self {
        Self {
            resource: record.resource.as_str(),
            id: record.id.as_str(),
            kind: record.kind,
            reason: record.reason,
            changed: record.changed.as_deref(),
            after: &record.after.canonical,
            proof,
            source_modified_at,
        }
    }
}

/// Writes a row of `changes`.
pub(super) fn append(conn: &Connection, place: &Place<'_>, entry: &Entry<'_>) -> Result<(), Error> {
    conn.prepare_cached(
        "INSERT INTO changes (seq, sync_id, instance, resource, id, kind, reason, changed, after, proof,
                              hold_id, source_modified_at, observed_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        place.seq,
        place.sync_id,
        place.instance.as_str(),
        entry.resource,
        entry.id,
        entry.kind.as_str(),
        entry.reason.as_str(),
        entry.changed,
        entry.after,
        entry.proof,
        place.hold_id,
        entry.source_modified_at,
        place.observed_at,
    ])?;
    Ok(())
}

/// Whether a record says that no indexed column changes: `changed` has the columns as its paths. Their names anywhere in it count,
/// which costs an index at worst. A cell that was damaged stays as it is: that is for `verify` to tell.
fn leaves_indexes(record: &ChangeRecord) -> bool {
    let mut indexed = indexed(record.resource).iter();
    (record.changed.as_deref())
        .is_some_and(|changed| !indexed.any(|column| changed.contains(column)))
}

/// The clock's time, but not before the newest record's: `observed_at` never goes back, the clock may.
pub(super) fn observed_at(conn: &Connection, now: Timestamp) -> Result<Timestamp, Error> {
    // Trimming leaves the newest record, so that it can be asked here.
    let newest: Option<Timestamp> = conn
        .query_row(
            "SELECT observed_at FROM changes WHERE seq = (SELECT last_seq FROM feed)",
            [],
            |row| time(row, 0),
        )
        .optional()?
        .flatten();
    Ok(newest.map_or(now, |newest| newest.max(now)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use crate::model::Row;

    #[tokio::test]
    async fn the_columns_of_indexes_are_those_that_the_schema_has() {
        let world = World::new().await;
        let columns: String = world.ask(
            "SELECT group_concat(name) FROM (
                 SELECT DISTINCT info.name AS name
                 FROM pragma_index_list('users') AS list, pragma_index_info(list.name) AS info
                 WHERE info.name NOT IN ('instance', 'id') ORDER BY 1)",
        );
        let mut indexed = INDEXED;
        indexed.sort_unstable();
        assert_eq!(columns, indexed.join(","));
    }

    #[tokio::test]
    async fn a_change_of_each_indexed_column_reaches_the_row() {
        let extension = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
        let somebody = |[name, email, manager]: [&str; 3]| {
            let raw = format!(
                r#"{{"id":"a","userName":"{name}","emails":[{{"type":"work","value":"{email}"}}],"{extension}":{{"manager":{{"value":"{manager}"}}}}}}"#
            );
            Row {
                id: ResourceId::new("a"),
                modified_at: None,
                raw: raw.into(),
            }
        };
        let mut world = World::new().await;
        for row in [
            ["ann", "ann@example.com", "b"],
            ["anne", "ann@example.com", "b"],
            ["anne", "anne@example.com", "b"],
            ["anne", "anne@example.com", "c"],
        ] {
            world.sync(&[somebody(row)]).await;
            let columns = INDEXED.join(" || ' ' || ");
            let found: String = world.ask(&format!("SELECT {columns} FROM users WHERE id = 'a'"));
            assert_eq!(found, row.join(" "));
        }
        assert_eq!(world.difference(), None);
    }
}
