//! How the instances are: what `musterd status`, the daemon's status line and its metrics show.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::column::{json, time, whole};
use super::error::Error;
use super::file::companion;
use super::holds::{ANOTHER_DIRECTORY, another_directory};
use super::read::Reader;
use super::{Mirror, length};
use crate::model::{Capabilities, ResourceType};

/// A row of `instances` with what `mirror_health` adds.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Health {
    /// The instance.
    pub instance: String,
    /// Its pinned origin.
    pub url: String,
    /// `new`, `healthy`, `failing`, `source_changed`, `unlinked`.
    pub state: String,
    /// It is unlinked, and its users are being removed (`musterd unlink --drop`), or that was interrupted.
    pub being_removed: bool,
    /// When it may be asked again.
    pub not_before: Option<String>,
    /// When a sync last succeeded.
    pub last_success_at: Option<String>,
    /// Age of the last success in seconds.
    pub last_success_age_seconds: Option<i64>,
    /// The last error.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_at: Option<String>,
    /// Failures since the last success.
    pub consecutive_failures: i64,
    /// Users known and not gone.
    pub users: i64,
    /// Of those, active.
    pub active: i64,
    /// Open holds.
    pub open_holds: i64,
    /// The hold of the guard `source_changed` that a person approved and no full sync has carried out yet.
    pub approved_hold_id: Option<i64>,
    /// Rejects.
    pub rejects: i64,
    /// Own profiles whose keys lead to several users, or to another than their own (`identities`).
    pub ambiguous_profiles: i64,
    /// When the baseline was done.
    pub baseline_at: Option<String>,
    /// When a complete full sync last succeeded.
    pub last_full_success_at: Option<String>,
    /// Up to when incremental syncs are complete.
    pub watermark: Option<String>,
    /// What was probed.
    pub capabilities: Option<Capabilities>,
    /// What there is to say of its groups; `None` where they never were mirrored.
    pub groups: Option<GroupHealth>,
}

/// How the groups of an instance are.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct GroupHealth {
    /// Groups known and not gone.
    pub groups: i64,
    /// Memberships that live.
    pub memberships: i64,
    /// Groups whose members are not all known: a list was cut, or could not be read.
    pub known_in_part: i64,
    /// The first of them, by id.
    pub examples: Vec<String>,
    /// Groups that could not be understood.
    pub rejects: i64,
    /// The account may not read groups: they are left out, and asked for again by each full sync of them.
    pub off: bool,
    /// When the first complete full sync of them was applied.
    pub baseline_at: Option<String>,
    /// When a sync of them last succeeded.
    pub last_success_at: Option<String>,
    /// When a complete full sync of them last succeeded.
    pub last_full_success_at: Option<String>,
    /// The hold that keeps all of them back, because they look like another directory's.
    pub source_changed_hold_id: Option<i64>,
    /// Why the last sync of them did not succeed, or else the last full one: who is in a group is found by those alone.
    pub last_error: Option<String>,
    /// `resources` names groups no more: what the mirror has of them stays as it was.
    pub left_out: bool,
}

/// So many groups are named in a health.
const EXAMPLES: usize = 3;

/// What one guard holds back of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldCount {
    /// The instance.
    pub instance: String,
    /// `deactivations`, `blanking`, `source_changed`.
    pub guard: String,
    /// Its open holds.
    pub open_holds: i64,
    /// The changes in them that are still held.
    pub held_changes: i64,
}

/// How long the mirror's files are, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSizes {
    /// The SQLite file.
    pub mirror_bytes: u64,
    /// Its write-ahead log.
    pub wal_bytes: u64,
}

impl Mirror {
    /// How long its files are now.
    ///
    /// # Errors
    /// When one of them cannot be looked at, or is another one now.
    pub async fn file_sizes(&self) -> Result<FileSizes, Error> {
        self.with_log(|shared, log| {
            let found = shared.path.metadata();
            let found = found.map_err(Error::file("look at", &shared.path))?;
            Ok(FileSizes {
                mirror_bytes: found.len(),
                wal_bytes: length(log)?,
            })
        })
        .await
    }
}

/// How long the write-ahead log of a mirror is; 0 where there is none.
#[must_use]
pub fn wal_bytes(path: &Path) -> u64 {
    companion(path, "-wal")
        .metadata()
        .map_or(0, |found| found.len())
}

impl Reader {
    /// What is held back, by instance and guard; nothing where no hold is open.
    ///
    /// # Errors
    /// Of the database.
    pub fn held_counts(&self) -> Result<Vec<HeldCount>, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT instance, guard, count(*),
                    sum((SELECT count(*) FROM hold_changes
                         WHERE hold_changes.hold_id = holds.id AND hold_changes.state = 'held'))
             FROM holds WHERE state = 'open' GROUP BY instance, guard ORDER BY instance, guard",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(HeldCount {
                instance: row.get(0)?,
                guard: row.get(1)?,
                open_holds: row.get(2)?,
                held_changes: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The health of every instance, by name. `now` is for the age of the last success.
    ///
    /// # Errors
    /// Of the database.
    pub fn health(&self, now: Timestamp) -> Result<Vec<Health>, Error> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT name, url, instances.state, not_before, instances.last_success_at, last_error, last_error_at,
                    consecutive_failures, coalesce(living, 0), coalesce(active, 0), coalesce(rejected, 0),
                    (SELECT count(*) FROM holds WHERE holds.instance = name AND holds.state = 'open'),
                    baseline_at, last_full_success_at, watermark, capabilities,
                    (SELECT max(id) FROM holds
                     WHERE holds.instance = name AND holds.state = 'approved' AND {ANOTHER_DIRECTORY}),
                    instances.state = 'unlinked' AND sources.instance IS NULL,
                    (SELECT count(*) FROM identities WHERE identities.instance = name AND identities.state = 'ambiguous')
             FROM instances
             LEFT JOIN sources ON sources.instance = name AND sources.resource = ?1
             LEFT JOIN source_counts ON source_counts.instance = name AND source_counts.resource = ?1
             ORDER BY name"
        ))?;
        let rows = statement.query_map([ResourceType::User.as_str()], |row| {
            let last_success = time(row, 4)?;
            Ok(Health {
                instance: row.get(0)?,
                url: row.get(1)?,
                state: row.get(2)?,
                not_before: row.get(3)?,
                last_success_at: row.get(4)?,
                // A clock that was set back makes nothing younger than new.
                last_success_age_seconds: last_success
                    .map(|at| now.duration_since(at).as_secs().max(0)),
                last_error: row.get(5)?,
                last_error_at: row.get(6)?,
                consecutive_failures: row.get(7)?,
                users: row.get(8)?,
                active: row.get(9)?,
                rejects: row.get(10)?,
                open_holds: row.get(11)?,
                baseline_at: row.get(12)?,
                last_full_success_at: row.get(13)?,
                watermark: row.get(14)?,
                capabilities: json(row, 15)?,
                approved_hold_id: row.get(16)?,
                being_removed: row.get(17)?,
                groups: None,
                ambiguous_profiles: row.get(18)?,
            })
        })?;
        let mut rows: Vec<Health> = rows.collect::<Result<_, _>>()?;
        for row in &mut rows {
            row.groups = self.group_health(&row.instance)?;
        }
        Ok(rows)
    }

    fn group_health(&self, instance: &str) -> Result<Option<GroupHealth>, Error> {
        let found = self
            .conn
            .prepare_cached(&format!(
                "SELECT coalesce(counts.living, 0), coalesce(members.living, 0),
                        (SELECT count(*) FROM groups
                         WHERE groups.instance = sources.instance AND members_known <> 'all' AND gone_at IS NULL),
                        coalesce(counts.rejected, 0), capabilities, baseline_at, last_success_at, last_full_success_at,
                        (SELECT max(id) FROM holds WHERE holds.instance = sources.instance AND {}),
                        coalesce(
                            (SELECT CASE outcome WHEN 'failed' THEN error END FROM syncs
                             WHERE syncs.instance = sources.instance AND syncs.resource = 'Group'
                             ORDER BY id DESC LIMIT 1),
                            (SELECT CASE outcome WHEN 'failed' THEN error END FROM syncs
                             WHERE syncs.instance = sources.instance AND syncs.resource = 'Group' AND mode = 'full'
                             ORDER BY id DESC LIMIT 1))
                 FROM sources
                 LEFT JOIN source_counts AS counts ON counts.instance = sources.instance AND counts.resource = 'Group'
                 LEFT JOIN source_counts AS members
                     ON members.instance = sources.instance AND members.resource = 'Membership'
                 WHERE sources.instance = ?1 AND sources.resource = 'Group'",
                another_directory(ResourceType::Group)
            ))?
            .query_row([instance], |row| {
                let capabilities: Option<Capabilities> = json(row, 4)?;
                let capabilities = capabilities.unwrap_or_default();
                Ok(GroupHealth {
                    groups: row.get(0)?,
                    memberships: row.get(1)?,
                    known_in_part: row.get(2)?,
                    examples: Vec::new(),
                    rejects: row.get(3)?,
                    off: capabilities.forbidden,
                    baseline_at: row.get(5)?,
                    last_success_at: row.get(6)?,
                    last_full_success_at: row.get(7)?,
                    source_changed_hold_id: row.get(8)?,
                    last_error: row.get(9)?,
                    left_out: capabilities.left_out,
                })
            })
            .optional()?;
        let Some(mut found) = found else {
            return Ok(None);
        };
        found.examples = self.known_in_part(instance, EXAMPLES)?;
        Ok(Some(found))
    }

    /// The first groups of an instance whose members are not all known, by id.
    ///
    /// # Errors
    /// Of the database.
    pub fn known_in_part(&self, instance: &str, limit: usize) -> Result<Vec<String>, Error> {
        let mut groups = self.conn.prepare_cached(
            "SELECT id FROM groups WHERE instance = ?1 AND members_known <> 'all' AND gone_at IS NULL
             ORDER BY id LIMIT ?2",
        )?;
        let limit = whole(limit as u64);
        let groups = groups.query_map(params![instance, limit], |row| row.get(0))?;
        Ok(groups.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FULL, INCREMENTAL, World, name, pin};
    use crate::mirror::read::Pin;
    use crate::model::{Outcome, ResourceType};

    #[tokio::test]
    async fn a_full_sync_of_groups_that_failed_is_told_until_one_succeeds() {
        let mut world = World::new().await;
        let both = Pin {
            resources: vec![ResourceType::User, ResourceType::Group],
            ..pin("acme")
        };
        let linked = world.mirror.write(move |writer| writer.link(&[both]));
        linked.await.unwrap();
        for (how, error, told) in [
            (FULL, Some("full"), Some("full")),
            (INCREMENTAL, None, Some("full")),
            (INCREMENTAL, Some("incremental"), Some("incremental")),
            (FULL, None, None),
        ] {
            let stage = world.stage(how.mode);
            let (batch, finish) = world.ending(&stage).await;
            let mut row = finish.sync;
            (row.id, row.resource) = (batch.sync_id, ResourceType::Group);
            row.outcome = match error {
                Some(_) => Outcome::Failed,
                None => Outcome::Succeeded,
            };
            row.error = error.map(str::to_owned);
            let written = world.mirror.write(move |writer| writer.fail(&row, None));
            written.await.unwrap();
            let health = world.reader().health(world.now).unwrap();
            let acme = health
                .iter()
                .find(|one| one.instance == name("acme").as_str());
            let groups = acme.unwrap().groups.as_ref().unwrap();
            assert_eq!(groups.last_error.as_deref(), told, "{error:?}");
        }
    }
}
