//! How a sync ends in the mirror: its row, its watermark, and the state of its instance.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::apply::{Applied, Batch, Writer};
use super::column::{time, to_json, whole};
use super::error::Error;
use super::gate::{Treatment, Watch};
use super::holds::{ANOTHER_DIRECTORY, another_directory};
use super::stage::Stage;
use crate::clock::Clock;
use crate::model::time::{our_text, their_text};
use crate::model::{
    Capabilities, Certificate, InstanceName, Mode, Outcome, ResourceType, TallySnapshot, Trigger,
};

/// A row of `syncs`, complete.
#[derive(Clone, Debug)]
pub struct SyncRow {
    /// Its id.
    pub id: i64,
    /// The instance.
    pub instance: InstanceName,
    /// The resource type.
    pub resource: ResourceType,
    /// Full or incremental.
    pub mode: Mode,
    /// What asked for it.
    pub trigger: Trigger,
    /// By our clock.
    pub started_at: Timestamp,
    /// By our clock.
    pub finished_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// What the crawl knows of its completeness, if it came to its end.
    pub certificate: Option<Certificate>,
    /// Distinct resources seen.
    pub seen: u64,
    /// `create` records.
    pub created: u64,
    /// `update` records.
    pub updated: u64,
    /// `deactivate` records.
    pub deactivated: u64,
    /// Changes kept back.
    pub held: u64,
    /// Resources that could not be understood.
    pub rejected: u64,
    /// What it cost.
    pub cost: TallySnapshot,
    /// Why it failed.
    pub error: Option<String>,
}

impl SyncRow {
    /// Whether its success shows that the instance is well again. An incremental sync sees at least the newest user again, because
    /// it looks back behind the watermark: one that sees nobody may be an account that is shown nobody.
    #[must_use]
    pub fn shows_recovery(&self) -> bool {
        self.mode == Mode::Full || self.seen > 0
    }
}

/// What the last transaction of a successful sync writes beside its records.
#[derive(Clone, Debug)]
pub struct Finish {
    /// The sync; the counts of records are those of all its transactions, this one's added by the writer.
    pub sync: SyncRow,
    /// Where the watermark may move: never back.
    pub watermark: Option<Timestamp>,
    /// The crawl's start by the source's clock: where another directory that is taken over sets the watermark, also back.
    pub restart_at: Option<Timestamp>,
    /// Whether this was a complete full sync (the first one sets the baseline).
    pub full_and_complete: bool,
    /// What the instance honours, where it was probed.
    pub capabilities: Option<Capabilities>,
}

impl Writer<'_> {
    /// Reserves the id of a sync; it is never used for another one.
    ///
    /// # Errors
    /// Of the database.
    pub fn reserve_sync(&self) -> Result<i64, Error> {
        reserve(self.conn)
    }

    /// Says in the row of a sync when this transaction takes place, behind all waiting for the writer, and reserves the sync's id
    /// if it has none yet (0): a transaction of its own would have every sync wait for the writer once more (promise P7).
    ///
    /// # Errors
    /// Of the database.
    pub fn stamp(&self, sync: &mut SyncRow, clock: &dyn Clock) -> Result<(), Error> {
        sync.finished_at = clock.now();
        if sync.id == 0 {
            sync.id = self.reserve_sync()?;
        }
        Ok(())
    }

    /// Writes the row of a sync that was told to stop, or that asked about a few users only: its end is no trouble of the
    /// instance. `not_before` is when the instance may be asked again, where it said so.
    ///
    /// # Errors
    /// Of the database.
    pub fn break_off(&self, sync: &SyncRow, not_before: Option<Timestamp>) -> Result<(), Error> {
        self.write_sync(sync)?;
        let known = self
            .conn
            .prepare_cached(
                "UPDATE instances SET not_before = coalesce(?2, not_before) WHERE name = ?1",
            )?
            .execute(params![sync.instance.as_str(), not_before.map(our_text)])?;
        known_instance(known, &sync.instance)
    }

    /// Writes the row of a sync that did not succeed, and the instance's trouble. A sync that was told to stop is none;
    /// else as [`Writer::break_off`].
    ///
    /// # Errors
    /// Of the database.
    pub fn fail(&self, sync: &SyncRow, not_before: Option<Timestamp>) -> Result<(), Error> {
        if sync.outcome != Outcome::Failed {
            return self.break_off(sync, not_before);
        }
        if sync.resource != ResourceType::User {
            // The state of an instance goes by its users alone.
            return self.break_off(sync, not_before);
        }
        self.write_sync(sync)?;
        let known = self
            .conn
            .prepare_cached(
                "UPDATE instances
                 SET state = CASE WHEN state IN ('source_changed', 'unlinked') THEN state ELSE 'failing' END,
                     not_before = coalesce(?2, not_before),
                     last_error = ?3,
                     last_error_at = ?4,
                     consecutive_failures = consecutive_failures + 1
                 WHERE name = ?1",
            )?
            .execute(params![
                sync.instance.as_str(),
                not_before.map(our_text),
                sync.error,
                our_text(sync.finished_at)
            ])?;
        known_instance(known, &sync.instance)
    }

    /// Keeps what an instance was found to honour although the sync did not succeed.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_capabilities(
        &self,
        instance: &InstanceName,
        resource: ResourceType,
        capabilities: &Capabilities,
    ) -> Result<(), Error> {
        self.conn
            .prepare_cached(
                "UPDATE sources SET capabilities = ?3 WHERE instance = ?1 AND resource = ?2",
            )?
            .execute(params![
                instance.as_str(),
                resource.as_str(),
                to_json(capabilities)?
            ])?;
        Ok(())
    }

    /// The end of a successful sync, in the transaction of its last records.
    pub(super) fn finish(
        &self,
        stage: &Stage,
        batch: &Batch,
        finish: &Finish,
        applied: &mut Applied,
    ) -> Result<(), Error> {
        let mut sync = finish.sync.clone();
        sync.created += applied.created;
        sync.updated += applied.updated;
        sync.deactivated += applied.deactivated;
        sync.held += applied.held;
        // What did not map was found only while it was applied.
        sync.rejected = sync.rejected.max(stage.rejects());
        let overtaken = stage.forget_overtaken(self.conn)?;
        applied.held = applied.held.saturating_sub(overtaken);
        sync.held = sync.held.saturating_sub(overtaken);
        self.write_sync(&sync)?;
        applied.opened = self.open_holds(stage, &sync)?;
        let watch = &batch.watch;
        match batch.treatment {
            Treatment::HeldWhole(_) | Treatment::Left => {
                // The mirror keeps what it had, and is no fresher for it.
                return self.stay_as_it_was(&sync, finish);
            }
            // Answers about a few users say nothing of the source.
            Treatment::Approved(_) => return Ok(()),
            Treatment::TakenOver(hold_id) => self.settle_all_holds(watch, hold_id)?,
            Treatment::Guarded(_) => {}
        }
        if let Some(hold_id) = batch.mends {
            self.mend(hold_id, watch.now)?;
        }
        let is_taken_over = matches!(batch.treatment, Treatment::TakenOver(_));
        self.move_source(stage, finish, is_taken_over)?;
        self.settle_rejects(stage, &sync)?;
        if sync.resource != ResourceType::User {
            // Its groups say nothing of how its users are.
            return Ok(());
        }
        // `source_changed` ends when a person approves it or the old directory is back, `unlinked` when the instance is
        // configured again: neither because a sync that was under way meanwhile came to its end.
        let known = self
            .conn
            .prepare_cached(&format!(
                "UPDATE instances
                 SET state = CASE WHEN state = 'unlinked' OR (state = 'failing' AND NOT ?3) THEN state
                                  WHEN EXISTS (SELECT 1 FROM holds WHERE instance = name AND {ANOTHER_DIRECTORY})
                                  THEN 'source_changed'
                                  ELSE 'healthy' END,
                     not_before = NULL,
                     last_success_at = ?2,
                     consecutive_failures = CASE WHEN ?3 THEN 0 ELSE consecutive_failures END
                 WHERE name = ?1"
            ))?
            .execute(params![
                sync.instance.as_str(),
                our_text(sync.finished_at),
                sync.shows_recovery()
            ])?;
        known_instance(known, &sync.instance)
    }

    /// The end of a sync that looks like another directory's. Where others have applied meanwhile all that differed, nothing
    /// is held, and nobody needs to wait.
    fn stay_as_it_was(&self, sync: &SyncRow, finish: &Finish) -> Result<(), Error> {
        if let Some(capabilities) = &finish.capabilities {
            self.set_capabilities(&sync.instance, sync.resource, capabilities)?;
        }
        if sync.resource != ResourceType::User {
            return Ok(());
        }
        self.conn.execute(
            &format!(
                "UPDATE instances SET state = 'source_changed'
                 WHERE name = ?1 AND state <> 'unlinked'
                   AND EXISTS (SELECT 1 FROM holds WHERE instance = name AND {ANOTHER_DIRECTORY})"
            ),
            [sync.instance.as_str()],
        )?;
        Ok(())
    }

    /// Whether the source waits for a person to say that it is another directory's.
    pub(super) fn source_changed(&self, watch: &Watch) -> Result<bool, Error> {
        let instance = watch.instance.as_str();
        Ok(match watch.resource {
            ResourceType::User => self
                .conn
                .prepare_cached(
                    "SELECT 1 FROM instances WHERE name = ?1 AND state = 'source_changed'",
                )?
                .exists([instance])?,
            resource => self
                .conn
                .prepare_cached(&format!(
                    "SELECT 1 FROM holds WHERE instance = ?1 AND {}",
                    another_directory(resource)
                ))?
                .exists([instance])?,
        })
    }

    fn move_source(
        &self,
        stage: &Stage,
        finish: &Finish,
        is_taken_over: bool,
    ) -> Result<(), Error> {
        let sync = &finish.sync;
        let (instance, resource) = (sync.instance.as_str(), sync.resource.as_str());
        let before: Option<Timestamp> = self
            .conn
            .prepare_cached("SELECT watermark FROM sources WHERE instance = ?1 AND resource = ?2")?
            .query_row([instance, resource], |row| time(row, 0))
            .optional()?
            .flatten();
        let watermark = match is_taken_over {
            // The old one is of another clock. Where somebody was left out there is none: the next sync is full.
            true => finish.restart_at.filter(|_| !stage.is_short),
            false => before.max(finish.watermark.filter(|_| !stage.is_short)),
        };
        let finished_at = our_text(sync.finished_at);
        let full = finish.full_and_complete.then_some(finished_at.as_str());
        let capabilities = finish.capabilities.as_ref().map(to_json).transpose()?;
        let known = self
            .conn
            .prepare_cached(
                "UPDATE sources
                 SET watermark = ?3,
                     baseline_at = coalesce(baseline_at, ?4),
                     last_success_at = ?5,
                     last_full_success_at = coalesce(?4, last_full_success_at),
                     capabilities = coalesce(?6, capabilities)
                 WHERE instance = ?1 AND resource = ?2",
            )?
            .execute(params![
                instance,
                resource,
                watermark.map(their_text),
                full,
                finished_at,
                capabilities
            ])?;
        known_instance(known, &sync.instance)
    }

    fn write_sync(&self, sync: &SyncRow) -> Result<(), Error> {
        let certificate = sync.certificate.as_ref().map(to_json).transpose()?;
        self.conn
            .prepare_cached(
                "INSERT INTO syncs (id, instance, resource, mode, trigger, started_at, finished_at, outcome, certificate,
                                    seen, created, updated, deactivated, held, rejected,
                                    requests, retries, bytes, throttled_ms, error)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
            )?
            .execute(params![
                sync.id,
                sync.instance.as_str(),
                sync.resource.as_str(),
                sync.mode.as_str(),
                sync.trigger.as_str(),
                our_text(sync.started_at),
                our_text(sync.finished_at),
                sync.outcome.as_str(),
                certificate,
                whole(sync.seen),
                whole(sync.created),
                whole(sync.updated),
                whole(sync.deactivated),
                whole(sync.held),
                whole(sync.rejected),
                whole(sync.cost.requests),
                whole(sync.cost.retries),
                whole(sync.cost.bytes),
                whole(sync.cost.throttled_ms),
                sync.error,
            ])?;
        Ok(())
    }
}

/// The next number of a sync, which is never given out again.
pub(super) fn reserve(conn: &Connection) -> Result<i64, Error> {
    // AUTOINCREMENT keeps the highest id in this table (SQLite documents that it may be written). A sync that is
    // killed leaves no row, but records that name it.
    let next = conn
        .prepare_cached(
            "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'syncs' RETURNING seq",
        )?
        .query_row([], |row| row.get(0))
        .optional()?;
    if let Some(id) = next {
        return Ok(id);
    }
    conn.execute(
        "INSERT INTO sqlite_sequence (name, seq) VALUES ('syncs', 1)",
        [],
    )?;
    Ok(1)
}

/// An instance that is not in the mirror was never linked: nothing may be written for it.
pub(super) fn known_instance(rows: usize, instance: &InstanceName) -> Result<(), Error> {
    if rows == 0 {
        return Err(Error::UnknownInstance(instance.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::testing::{FULL, How, INCREMENTAL, World, name, pin, sync_row, time, titled};
    use super::*;
    use crate::clock::ManualClock;
    use crate::model::Obeyed;

    async fn end(world: &mut World, finish: impl FnOnce(&mut Finish)) {
        let mut stage = world.stage(Mode::Full);
        let (batch, mut end) = world.ending(&stage).await;
        finish(&mut end);
        let written = world
            .mirror
            .write(move |writer| writer.apply(&mut stage, &batch, None, &end))
            .await;
        assert!(written.unwrap().finished);
    }

    #[tokio::test]
    async fn the_id_of_a_sync_is_used_once_whatever_becomes_of_it() {
        let mut world = World::new().await;
        let killed = How {
            transactions: 0,
            ..FULL
        };
        world.sync_as(killed, &[]).await;
        world.sync(&[titled("a", "Agent")]).await;
        let next = world.mirror.write(|writer| writer.reserve_sync()).await;
        assert_eq!(next.unwrap(), 3);
        assert_eq!(
            world.ask::<String>("SELECT group_concat(id) FROM syncs"),
            "2"
        );
    }

    #[tokio::test]
    async fn each_transaction_of_a_sync_has_its_time_and_all_have_one_id() {
        let world = World::new().await;
        let (early, late) = (world.now, world.now + SignedDuration::from_mins(1));
        let mut row = sync_row(0, Mode::Full, early);
        for now in [early, late] {
            let clock = ManualClock::starting_at(now);
            let stamped = world.mirror.write(move |writer| {
                writer.stamp(&mut row, &clock)?;
                Ok(row)
            });
            row = stamped.await.unwrap();
            assert_eq!(
                (row.id, row.finished_at.duration_since(now).as_secs()),
                (1, 0)
            );
        }
    }

    #[tokio::test]
    async fn the_watermark_moves_forward_only_and_the_baseline_is_set_once() {
        let mut world = World::new().await;
        let source = |world: &World| {
            world
                .reader()
                .source(&name("acme"), ResourceType::User)
                .unwrap()
        };
        assert_eq!(source(&world).watermark, None);
        end(&mut world, |end| {
            end.watermark = Some(time("2026-02-01T00:00:00.5Z"));
            end.full_and_complete = false;
        })
        .await;
        assert_eq!(source(&world).baseline_at, None);
        assert_eq!(source(&world).last_full_success_at, None);
        end(&mut world, |end| {
            // As text this one is the greater.
            end.watermark = Some(time("2026-02-01T00:00:00Z"));
            end.capabilities = Some(Capabilities {
                id_after: Obeyed::Obeyed,
                ..Capabilities::default()
            });
        })
        .await;
        let baseline_at = source(&world).baseline_at;
        assert_eq!(baseline_at, Some(world.now));
        end(&mut world, |end| end.watermark = None).await;
        let after = source(&world);
        assert_eq!(after.watermark, Some(time("2026-02-01T00:00:00.5Z")));
        assert_eq!(after.baseline_at, baseline_at);
        assert_eq!(after.last_full_success_at, Some(world.now));
        assert_eq!(after.capabilities.id_after, Obeyed::Obeyed);
    }

    #[tokio::test]
    async fn trouble_is_counted_until_a_sync_succeeds() {
        let mut world = World::new().await;
        let until = time("2026-03-01T13:00:00Z");
        for (outcome, not_before) in [
            (Outcome::Failed, None),
            (Outcome::Failed, None),
            // Told to stop while it waited: no trouble, but the next start has to wait as well.
            (Outcome::Cancelled, Some(until)),
            (Outcome::Cancelled, None),
        ] {
            let now = world.now;
            let failed = world.mirror.write(move |writer| {
                let row = SyncRow {
                    outcome,
                    certificate: None,
                    error: Some("503 for `/Users`".into()),
                    ..sync_row(writer.reserve_sync()?, Mode::Full, now)
                };
                writer.fail(&row, not_before)
            });
            failed.await.unwrap();
        }
        let reader = world.reader();
        let health = &reader.health(world.now).unwrap()[0];
        assert_eq!(
            (&*health.state, health.consecutive_failures),
            ("failing", 2)
        );
        assert_eq!(health.last_error.as_deref(), Some("503 for `/Users`"));
        assert_eq!(health.last_success_age_seconds, None);
        assert_eq!(reader.not_before(&name("acme")).unwrap(), Some(until));

        end(&mut world, |_| {}).await;
        let later = world.now + std::time::Duration::from_secs(90);
        let health = &reader.health(later).unwrap()[0];
        assert_eq!(
            (&*health.state, health.consecutive_failures),
            ("healthy", 0)
        );
        assert_eq!(health.last_success_age_seconds, Some(90));
        assert_eq!(reader.not_before(&name("acme")).unwrap(), None);
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM syncs"), 5);
        let view = "SELECT state || ' ' || open_holds || ' ' || rejects FROM mirror_health";
        assert_eq!(world.ask::<String>(view), "healthy 0 0");
    }

    #[tokio::test]
    async fn an_incremental_sync_that_sees_nobody_ends_no_trouble() {
        let mut world = World::new().await;
        let states = async |world: &mut World, rows: &[crate::model::Row]| {
            let now = world.now;
            let failed = world.mirror.write(move |writer| {
                let row = SyncRow {
                    outcome: Outcome::Failed,
                    ..sync_row(writer.reserve_sync()?, Mode::Full, now)
                };
                writer.fail(&row, None)
            });
            failed.await.unwrap();
            world.sync_as(INCREMENTAL, rows).await;
            world.ask::<String>("SELECT state || ' ' || consecutive_failures FROM instances")
        };
        assert_eq!(states(&mut world, &[]).await, "failing 1");
        assert_eq!(
            states(&mut world, &[titled("a", "Agent")]).await,
            "healthy 0"
        );
    }

    #[tokio::test]
    async fn a_sync_that_ends_late_revives_nothing_and_one_of_a_stranger_writes_nothing() {
        let mut world = World::new().await;
        let link = world.mirror.write(|writer| writer.link(&[pin("other")]));
        link.await.unwrap();
        end(&mut world, |_| {}).await;
        assert_eq!(
            world.ask::<String>("SELECT state FROM instances WHERE name = 'acme'"),
            "unlinked"
        );
        let now = world.now;
        let stranger = SyncRow {
            instance: name("stranger"),
            outcome: Outcome::Failed,
            ..sync_row(99, Mode::Full, now)
        };
        let failed = world
            .mirror
            .write(move |writer| writer.fail(&stranger, None));
        assert!(matches!(failed.await, Err(Error::UnknownInstance(_))));
        assert_eq!(
            world.ask::<i64>("SELECT count(*) FROM syncs WHERE id = 99"),
            0
        );
    }
}
