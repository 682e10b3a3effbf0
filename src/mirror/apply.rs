//! What one transaction writes: staged resources become change records, users and fingerprints.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::due::{Due, Known, Lookup};
use super::error::Error;
use super::gate::{Gate, Passed};
use super::holding::Left;
use super::lists;
use super::record::{IN_PART, Pen};
use super::seal::Touched;
use super::stage::{InHand, Stage};
use super::staged::{StagedRow, Which};
use crate::model::{Base, InstanceName, Kind, MembersKnown, Mode, ResourceId, ResourceType};
use crate::reconcile::mapping::MappingError;

pub use super::gate::{Treatment, Watch};
pub use super::holding::{BETWEEN_LIMITS, Opened};
pub use super::planned::Planned;
pub use super::syncs::{Finish, SyncRow};

/// The writer inside one transaction.
pub struct Writer<'a> {
    pub(super) conn: &'a Connection,
    pub(super) touched: &'a Touched,
}

/// What every batch of one sync shares.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The source, and what guards it.
    pub watch: Watch,
    /// What becomes of what was found.
    pub treatment: Treatment,
    /// The hold of the guard `source_changed` that this sync shows not to stand any more.
    pub mends: Option<i64>,
    /// The id of the sync, reserved by [`Writer::stamp`].
    pub sync_id: i64,
    /// The most change records of one transaction (promise P2).
    pub limit: usize,
    /// After how long a transaction ends at the next resource, in a sync that needs several of them anyhow: others wait for it
    /// (promise P7).
    pub time: Duration,
}

impl Batch {
    /// When the time of a transaction is up that begins now. Never where one may hold all that will be written: promise P2
    /// speaks of several only where there are more records, and what a guard may hold is not sure to be written.
    fn ends_at(&self) -> Option<Instant> {
        let Treatment::Guarded(planned) = &self.treatment else {
            return None;
        };
        let needs_several = planned.at_least() > u64::try_from(self.limit).unwrap_or(u64::MAX);
        needs_several
            .then(|| Instant::now().checked_add(self.time))
            .flatten()
    }
}

/// What a transaction wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// `create` records.
    pub created: u64,
    /// `update` records.
    pub updated: u64,
    /// `deactivate` records.
    pub deactivated: u64,
    /// Changes that go into a new hold.
    pub held: u64,
    /// The holds that the last transaction opened.
    pub opened: Vec<Opened>,
    /// Staged ids that were not applied because they are doubtful (see [`Stage::doubtful`]). The last transaction looks at
    /// all of the sync again: it applies those that were answered meanwhile, and names those that were not.
    pub doubtful: Vec<ResourceId>,
    /// Where the next transaction goes on: after this id. `None` when the stage is through.
    pub next_after: Option<ResourceId>,
    /// Whether `finish` was written: the stage was through and nothing was doubtful.
    pub finished: bool,
}

/// A staged resource without a record costs reading and comparing, about a quarter of writing one: so many of them count
/// as one record towards a transaction's length.
const IDLE_PER_RECORD: usize = 4;

impl<'a> Writer<'a> {
    pub(super) fn new(conn: &'a Connection, touched: &'a Touched) -> Self {
        Self { conn, touched }
    }

    /// Applies staged resources in the order of ids, after `after`, until `batch.limit` records are written or
    /// the stage is through; then, with nothing doubtful, writes `finish` too.
    ///
    /// # Errors
    /// Of the databases.
    pub fn apply(
        &self,
        stage: &mut Stage,
        batch: &Batch,
        after: Option<&ResourceId>,
        finish: &Finish,
    ) -> Result<Applied, Error> {
        let frozen = Batch {
            treatment: Treatment::Left,
            ..batch.clone()
        };
        let batch = match finish.sync.mode {
            // Another sync found meanwhile that this is another directory.
            Mode::Incremental if self.source_changed(&batch.watch)? => &frozen,
            _ => batch,
        };
        if batch.treatment == Treatment::Left {
            let mut applied = Applied::default();
            self.finish(stage, batch, finish, &mut applied)?;
            applied.finished = true;
            return Ok(applied);
        }
        stage.begin(self.conn)?;
        let (mut applied, unmappable, in_hand) = self.walk(stage, batch, after)?;
        stage.in_hand = in_hand;
        for (id, error) in unmappable {
            stage.refuse(&id, &error.to_string())?;
        }
        stage.doubt(&applied.doubtful)?;
        if applied.next_after.is_none() && applied.doubtful.is_empty() {
            self.finish(stage, batch, finish, &mut applied)?;
            applied.finished = true;
        }
        Ok(applied)
    }

    /// Writes what one transaction holds. Returns what does not map, too.
    fn walk(
        &self,
        stage: &Stage,
        batch: &Batch,
        after: Option<&ResourceId>,
    ) -> Result<(Applied, Unmappable, Option<InHand>), Error> {
        let mut work = Work {
            writer: self,
            stage,
            resource: batch.watch.resource,
            pen: Pen::new(self.conn, batch, stage.own_tx)?,
            gate: Gate::new(self.conn, &batch.watch, &batch.treatment, batch.sync_id)?,
            applied: Applied::default(),
            idle: 0,
            has_baseline: batch.watch.baseline_at.is_some(),
            ends_at: batch.ends_at(),
            unmappable: Vec::new(),
            left: BTreeSet::new(),
            in_hand: stage.in_hand.clone(),
        };
        let observed_at = work.pen.observed_at();
        let mut lookup = Lookup::new(self.conn, &batch.watch, observed_at, stage)?;
        let mut last: Option<ResourceId> = None;
        work.stage.each_staged(Which::After(after), &mut |staged| {
            if last.is_some() && work.is_full() {
                work.applied.next_after = last.take();
                return Ok(ControlFlow::Break(()));
            }
            let id = staged.id.clone();
            if !work.settle(&mut lookup, staged, true)? {
                // The next transaction begins with the rest of this list.
                work.applied.next_after = last.take().or_else(|| Some(before_all(after)));
                return Ok(ControlFlow::Break(()));
            }
            last = Some(id);
            Ok(ControlFlow::Continue(()))
        })?;
        if let (None, Some(after)) = (&work.applied.next_after, after) {
            let which = Which::DoubtedUpTo(after);
            let is_bounded = batch.watch.resource == ResourceType::Group;
            let mut settled = Vec::new();
            work.stage.each_staged(which, &mut |staged| {
                let id = staged.id.clone();
                if !work.settle(&mut lookup, staged, is_bounded)? {
                    work.applied.next_after = Some(after.clone());
                    return Ok(ControlFlow::Break(()));
                }
                settled.push(id);
                Ok(ControlFlow::Continue(()))
            })?;
            if work.applied.next_after.is_some() {
                // The next transaction begins with the list that is written in part. What this one has written of the others is
                // no reason to look at them again.
                work.stage.doubt_no_more(&settled)?;
            }
        }
        let Work {
            pen,
            applied,
            unmappable,
            left,
            in_hand,
            ..
        } = work;
        pen.finish()?;
        self.close_holds(&left, batch.watch.now)?;
        Ok((applied, unmappable, in_hand))
    }
}

/// An id that all behind `after` are behind of, and in the stage's first transaction all.
fn before_all(after: Option<&ResourceId>) -> ResourceId {
    after.cloned().unwrap_or_else(|| ResourceId::new(""))
}

/// Staged resources that do not map, and why.
type Unmappable = Vec<(ResourceId, MappingError)>;

/// `feed.last_seq`.
pub(super) fn last_seq(conn: &Connection) -> Result<i64, Error> {
    Ok(conn
        .prepare_cached("SELECT last_seq FROM feed")?
        .query_row([], |row| row.get(0))?)
}

/// One transaction under way.
struct Work<'a> {
    writer: &'a Writer<'a>,
    stage: &'a Stage,
    resource: ResourceType,
    pen: Pen<'a>,
    gate: Gate<'a>,
    applied: Applied,
    idle: usize,
    has_baseline: bool,
    /// When its time is up.
    ends_at: Option<Instant>,
    unmappable: Unmappable,
    /// The holds that somebody left.
    left: BTreeSet<i64>,
    /// The group whose list was written in part, and where the mirror stood behind that.
    in_hand: Option<InHand>,
}

impl Work<'_> {
    fn is_full(&self) -> bool {
        self.idle / IDLE_PER_RECORD >= self.pen.room()
            || self
                .ends_at
                .is_some_and(|ends_at| Instant::now() >= ends_at)
    }

    /// Settles one resource. `false` where the transaction is full before all of a group's list is written.
    fn settle(
        &mut self,
        lookup: &mut Lookup<'_>,
        mut staged: StagedRow,
        is_bounded: bool,
    ) -> Result<bool, Error> {
        let id = staged.id.clone();
        if let Some((_, base)) = self.in_hand.take_if(|(in_hand, _)| *in_hand == id) {
            // What this sync has written of it is no reason to doubt it.
            staged.base = base;
        }
        let instance = &self.writer_instance();
        let change = lists::change(self.writer.conn, instance, &mut staged)?;
        let is_any = change.as_ref().is_some_and(lists::Change::is_any);
        let (known, due) = lookup.due(staged, is_any)?;
        let passed = self.gate.pass(lookup, &id, due)?;
        for kept in &passed.kept {
            self.applied.held += u64::from(self.stage.hold(kept)?);
        }
        for hold_id in &passed.resolved {
            self.leave(*hold_id, &id, Left::Resolved)?;
        }
        let is_gone = (passed.due.written()).is_some_and(|record| record.after.gone_at.is_some());
        let change = match (self.resource, change) {
            (ResourceType::Group, _) if is_gone => {
                Some(lists::all_of(self.writer.conn, instance, &id)?)
            }
            (_, change) => change
                .filter(|_| matches!(passed.due, Due::Record(..) | Due::Nothing(_) | Due::Kept)),
        };
        match change {
            Some(change) => self.write_group(&id, known, passed, change, is_bounded),
            None => {
                self.write(&id, known, passed)?;
                Ok(true)
            }
        }
    }

    fn writer_instance(&self) -> InstanceName {
        self.stage.key.instance.clone()
    }

    /// Writes a group and its list: who is in it begins behind its record, and ends before that where it is gone. What has no
    /// room is left to the next transaction, which finds the rest by comparing again.
    fn write_group(
        &mut self,
        id: &ResourceId,
        known: Option<Known>,
        passed: Passed,
        change: lists::Change,
        is_bounded: bool,
    ) -> Result<bool, Error> {
        let instance = self.writer_instance();
        let applying = lists::Applying {
            mirror: self.writer.conn,
            instance: &instance,
            has_baseline: self.has_baseline,
            observed_at: self.pen.observed_at(),
        };
        let decided = applying.decide(&mut self.gate, id, change)?;
        let membership = ResourceType::Membership;
        for kept in &decided.kept {
            self.applied.held += u64::from(self.stage.hold(kept)?);
        }
        let mut released: BTreeMap<&ResourceId, Vec<i64>> = BTreeMap::new();
        for (hold_id, member, is_released) in &decided.left {
            if *is_released {
                released.entry(member).or_default().push(*hold_id);
                continue;
            }
            self.writer
                .leave_hold(*hold_id, membership, member, Left::Resolved)?;
            self.left.insert(*hold_id);
        }
        let fingerprint = match &passed.due {
            Due::Nothing(fingerprint) => Some(*fingerprint),
            Due::Record(_, fingerprint) => *fingerprint,
            _ => None,
        };
        let is_gone = (passed.due.written()).is_some_and(|record| record.after.gone_at.is_some());
        let mut seq = known.map(|known| known.changed_seq);
        let (mut own, mut n_written) = (Some(passed), 0_usize);
        if !is_gone && let Some(passed) = own.take() {
            seq = self.write_own(known, passed)?.or(seq);
        }
        let n_entries = decided.entries.len();
        for entry in decided.entries {
            if is_bounded && self.is_full() && (n_written > 0 || self.pen.room() == 0) {
                break;
            }
            let record = entry.record(id, self.pen.observed_at());
            self.pen.write_membership(id, &entry, &record)?;
            match entry.kind {
                Kind::Create => self.applied.created += 1,
                Kind::Update | Kind::Deactivate => self.applied.deactivated += 1,
            }
            let member = &record.id;
            for hold_id in released.remove(member).into_iter().flatten() {
                self.writer
                    .leave_hold(hold_id, membership, member, Left::Released)?;
                self.left.insert(hold_id);
            }
            n_written += 1;
        }
        let mut is_whole = n_written == n_entries;
        if is_whole && let Some(passed) = own.take() {
            match is_bounded && self.pen.room() == 0 && n_written > 0 {
                true => is_whole = false,
                false => seq = self.write_own(known, passed)?.or(seq),
            }
        }
        self.count_members(&instance, id, decided.known.filter(|_| is_whole))?;
        let Some(seq) = seq else {
            return Ok(is_whole);
        };
        if !is_whole {
            self.pen.remember(id, &IN_PART, seq)?;
            let base = Base {
                seq: self.pen.last_seq(),
                tx: self.stage.own_tx,
            };
            self.in_hand = Some((id.clone(), base));
            return Ok(false);
        }
        match fingerprint.filter(|_| decided.is_settled) {
            _ if is_gone => self.pen.forget(id)?,
            Some(fingerprint) => self.pen.remember(id, &fingerprint, seq)?,
            // It is looked at again. What was known before is so no more, and nothing else needs to be written.
            None if n_written > 0
                || known.is_none_or(|known| known.changed_seq != seq)
                || !decided.kept.is_empty()
                || self.pen.knows_in_full(id)? =>
            {
                self.pen.remember(id, &IN_PART, seq)?;
            }
            None => {}
        }
        if n_written == 0 {
            self.idle += 1;
        }
        Ok(true)
    }

    /// Writes what is due of the group itself; the `seq` of its record, if there is one.
    fn write_own(&mut self, known: Option<Known>, passed: Passed) -> Result<Option<i64>, Error> {
        let Due::Record(due, _) = passed.due else {
            return Ok(None);
        };
        let (record, columns) = *due;
        let seq = self.pen.write(known, &record, &columns, passed.hold_id)?;
        self.count(record.kind);
        // With its record and not before: a group that is gone may get that in a later transaction, which must find it held.
        if let Some(hold_id) = passed.hold_id {
            self.leave(hold_id, &record.id, Left::Released)?;
        }
        Ok(Some(seq))
    }

    /// The resource leaves a hold.
    fn leave(&mut self, hold_id: i64, id: &ResourceId, state: Left) -> Result<(), Error> {
        self.writer.leave_hold(hold_id, self.resource, id, state)?;
        self.left.insert(hold_id);
        Ok(())
    }

    fn count(&mut self, kind: Kind) {
        *match kind {
            Kind::Create => &mut self.applied.created,
            Kind::Update => &mut self.applied.updated,
            Kind::Deactivate => &mut self.applied.deactivated,
        } += 1;
    }

    /// Says in the group's row how many members it has, and whether these are all, where that is another than before.
    fn count_members(
        &self,
        instance: &InstanceName,
        group: &ResourceId,
        known: Option<MembersKnown>,
    ) -> Result<(), Error> {
        let conn = self.writer.conn;
        let count: i64 = conn
            .prepare_cached(
                "SELECT count(*) FROM memberships WHERE instance = ?1 AND group_id = ?2 AND ended_at IS NULL",
            )?
            .query_row([instance.as_str(), group.as_str()], |row| row.get(0))?;
        conn.prepare_cached(
            "UPDATE groups SET member_count = ?3, members_known = coalesce(?4, members_known)
             WHERE instance = ?1 AND id = ?2
               AND (member_count <> ?3 OR members_known <> coalesce(?4, members_known))",
        )?
        .execute(params![
            instance.as_str(),
            group.as_str(),
            count,
            known.map(MembersKnown::as_str)
        ])?;
        Ok(())
    }

    fn write(
        &mut self,
        id: &ResourceId,
        known: Option<Known>,
        passed: Passed,
    ) -> Result<(), Error> {
        match passed.due {
            Due::Record(due, fingerprint) => {
                let (record, columns) = &*due;
                let seq = self.pen.write(known, record, columns, passed.hold_id)?;
                match fingerprint {
                    Some(fingerprint) => self.pen.remember(id, &fingerprint, seq)?,
                    None if record.after.gone_at.is_none() => {
                        self.pen.remember(id, &IN_PART, seq)?;
                    }
                    None => self.pen.forget(id)?,
                }
                let kind = record.kind;
                self.count(kind);
                if let Some(hold_id) = passed.hold_id {
                    self.leave(hold_id, id, Left::Released)?;
                }
                return Ok(());
            }
            Due::Nothing(fingerprint) => {
                if let Some(known) = known {
                    self.pen.remember(id, &fingerprint, known.changed_seq)?;
                }
            }
            // What was held before is told by its hold: reading it again is no news.
            Due::Kept if passed.kept.is_empty() => {}
            Due::Kept => {
                if let Some(known) = known {
                    self.pen.remember(id, &IN_PART, known.changed_seq)?;
                }
            }
            Due::Doubtful => self.applied.doubtful.push(id.clone()),
            Due::Void | Due::Unproved(_) => {}
            Due::Unmappable(error) => self.unmappable.push((id.clone(), error)),
        }
        self.idle += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::super::plan::{Planning, plan};
    use super::super::testing::{FULL, How, INCREMENTAL, World, complete, id, proof, titled, user};
    use super::super::trim::TrimOptions;
    use super::*;
    use crate::model::{Kind, Mode, Row};
    use crate::reconcile::decode::decode;

    /// Everything but what says when a sync last came to its end.
    fn content(world: &World) -> BTreeMap<String, Vec<Vec<Value>>> {
        let mut tables = world.dump();
        for table in [
            "syncs",
            "sqlite_sequence",
            "sources",
            "source_counts",
            "instances",
        ] {
            tables.remove(table);
        }
        tables
    }

    #[tokio::test]
    async fn an_unchanged_directory_writes_its_sync_and_nothing_else() {
        let mut world = World::new().await;
        let directory = [
            user(
                "a",
                "2026-01-01T00:00:00Z",
                r#","title":"Agent","active":true"#,
            ),
            titled("b", "Boss"),
            titled("c", "Clerk"),
            titled("d", "Driver"),
        ];
        world.sync(&directory).await;
        let before = content(&world);
        let applied = world.sync(&directory).await;
        let nothing = Applied {
            finished: true,
            ..Applied::default()
        };
        assert_eq!(applied, std::slice::from_ref(&nothing));
        assert_eq!(content(&world), before);
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM syncs"), 2);

        // Another order of members is another fingerprint, and still no change.
        let mut shuffled = directory.clone();
        shuffled[0] = user(
            "a",
            "2026-01-02T00:00:00Z",
            r#","active":true,"title":"Agent""#,
        );
        assert_eq!(world.sync(&shuffled).await, [nothing]);
        let mut after = content(&world);
        assert_ne!(after["fingerprints"], before["fingerprints"]);
        after.insert("fingerprints".into(), before["fingerprints"].clone());
        assert_eq!(after, before);
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn a_user_comes_changes_leaves_and_returns() {
        let mut world = World::new().await;
        let (a, b) = (titled("a", "Agent"), titled("b", "Boss"));
        world.sync(&[a.clone(), b.clone()]).await;
        world.sync(&[titled("a", "Chief"), b.clone()]).await;
        world.sync(std::slice::from_ref(&b)).await;
        let gone: String = world.ask("SELECT gone_at FROM users WHERE id = 'a'");
        assert_eq!(
            gone,
            world.ask::<String>("SELECT max(observed_at) FROM changes")
        );
        // The same bytes as before: the fingerprint must not hide that the user is back.
        world.sync(&[titled("a", "Chief"), b.clone()]).await;
        let inactive = user("b", "2026-02-01T00:00:00Z", r#","active":false"#);
        world.sync(&[titled("a", "Chief"), inactive]).await;

        let reader = world.reader();
        let told: Vec<String> = reader
            .changes(&super::super::read::ChangeQuery {
                limit: 100,
                ..Default::default()
            })
            .unwrap()
            .iter()
            .map(|row| {
                format!(
                    "{} {} {} {} {}",
                    row.seq, row.sync_id, row.id, row.kind, row.reason
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "1 1 a create baseline",
                "2 1 b create baseline",
                "3 2 a update changed",
                "4 3 a deactivate gone",
                "5 4 a update returned",
                "6 5 b deactivate inactive",
            ]
        );
        assert_eq!(world.difference(), None);
        let health = &reader.health(world.now).unwrap()[0];
        assert_eq!((health.users, health.active), (2, 1));
        assert_eq!(
            world.ask::<String>("SELECT group_concat(id) FROM active_users"),
            "a"
        );
    }

    #[tokio::test]
    async fn a_sync_that_was_killed_between_transactions_is_completed_by_the_next() {
        let mut world = World::new().await;
        let directory: Vec<Row> = ["a", "b", "c", "d", "e"].map(|id| titled(id, "x")).to_vec();
        let killed = How {
            limit: 2,
            transactions: 2,
            ..FULL
        };
        let applied = world.sync_as(killed, &directory).await;
        assert_eq!(applied[0].next_after, Some(id("b")));
        assert_eq!(applied[1].next_after, Some(id("d")));
        assert!(!applied.iter().any(|applied| applied.finished));
        assert_eq!(world.mirror.head(), 4);
        assert_eq!(world.difference(), None);
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM syncs"), 0);
        let untouched = "SELECT baseline_at IS NULL AND watermark IS NULL AND last_success_at IS NULL FROM sources";
        assert!(world.ask::<bool>(untouched));

        let rest = world.sync(&directory).await;
        assert_eq!((rest[0].created, rest[0].finished), (1, true));
        assert_eq!(
            world.ask::<String>("SELECT group_concat(seq || id || sync_id) FROM changes"),
            "1a1,2b1,3c1,4d1,5e2"
        );
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn the_counts_of_all_transactions_are_in_the_row_of_the_sync() {
        let mut world = World::new().await;
        let directory: Vec<Row> = ["a", "b", "c", "d", "e"].map(|id| titled(id, "x")).to_vec();
        let small = How { limit: 2, ..FULL };
        assert_eq!(world.sync_as(small, &directory).await.len(), 3);
        let row = "SELECT id || ' ' || seen || ' ' || created || ' ' || outcome FROM syncs";
        assert_eq!(world.ask::<String>(row), "1 5 5 succeeded");
    }

    #[tokio::test]
    async fn only_a_sync_of_several_transactions_ends_one_by_the_clock() {
        let mut world = World::new().await;
        let of = |title| ["a", "b", "c"].map(|id| titled(id, title));
        let slow = |limit| How {
            limit,
            time: Duration::ZERO,
            ..FULL
        };
        // The first sync and a later one, whose records no guard can hold.
        for title in ["x", "y"] {
            assert_eq!(world.sync_as(slow(2), &of(title)).await.len(), 3);
        }
        assert_eq!(world.sync_as(slow(3), &of("z")).await.len(), 1);
        // What a guard may hold is not sure to need more than one.
        let leave = |id| user(id, "2026-01-02T00:00:00Z", r#","active":false,"title":"z""#);
        let leavers = ["a", "b", "c"].map(leave);
        assert_eq!(world.sync_as(slow(2), &leavers).await.len(), 2);
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn what_another_sync_changed_meanwhile_is_asked_for_again() {
        let mut world = World::new().await;
        let (b, c) = (titled("b", "Boss"), titled("c", "Clerk"));
        world
            .sync(&[titled("a", "Agent"), b.clone(), c.clone()])
            .await;

        // A full crawl reads the old title and a new boss; meanwhile an incremental one brings a newer title.
        let mut stage = world.stage(Mode::Full);
        world.page(&mut stage, &[titled("a", "Old"), titled("b", "Bishop")]);
        let newer = user("a", "2026-01-05T00:00:00Z", r#","title":"New""#);
        world.sync_as(INCREMENTAL, &[newer]).await;
        world.page(&mut stage, &[c]);
        assert_eq!(stage.doubtful(&world.reader()).unwrap(), [id("a")]);

        let mut records = Vec::new();
        let (batch, _) = world.ending(&stage).await;
        let mut each = |planning: Planning<'_>| {
            if let Planning::Write(record) = planning {
                records.push((record.id.as_str().to_owned(), record.kind));
            }
        };
        let reader = world.reader();
        plan(&stage, &reader, &batch.watch, &batch.treatment, &mut each).unwrap();
        assert_eq!(records, [("b".to_owned(), Kind::Update)]);

        // One record a transaction: `a` is doubtful long before the end, and not forgotten there.
        let small = How { limit: 1, ..FULL };
        let applied = world.apply(stage, small).await;
        let last = applied.last().unwrap();
        assert_eq!((&*last.doubtful, last.finished), (&[id("a")][..], false));
        assert_eq!(
            world.ask::<String>("SELECT title FROM users WHERE id = 'a'"),
            "New"
        );
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM syncs"), 2);

        let mut stage = world.stage(Mode::Full);
        world.page(
            &mut stage,
            &[
                titled("a", "Old"),
                titled("b", "Bishop"),
                titled("c", "Clerk"),
            ],
        );
        // The stamp went back: a lagging node may have answered. Asked by id, that answer stands.
        assert_eq!(stage.doubtful(&world.reader()).unwrap(), [id("a")]);
        let answer = decode(ResourceType::User, &titled("a", "Old")).unwrap();
        stage.put_asked(world.mirror.base(), answer).unwrap();
        assert!(stage.doubtful(&world.reader()).unwrap().is_empty());
        assert!(world.apply(stage, FULL).await[0].finished);
        assert_eq!(
            world.ask::<String>("SELECT title FROM users WHERE id = 'a'"),
            "Old"
        );
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn an_answer_to_a_doubt_is_applied_wherever_the_transactions_stand() {
        let mut world = World::new().await;
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss")])
            .await;
        let mut stage = world.stage(Mode::Full);
        world.page(&mut stage, &[titled("a", "Old"), titled("b", "Bishop")]);
        world.sync_as(INCREMENTAL, &[titled("a", "New")]).await;

        let (batch, finish) = world.ending(&stage).await;
        let mut base = world.mirror.base();
        (base.seq, base.tx) = (base.seq + 1, base.tx + 1);
        let answer = decode(ResourceType::User, &titled("a", "Newest")).unwrap();
        let (first, second) = world
            .mirror
            .write(move |writer| {
                let first = writer.apply(&mut stage, &batch, None, &finish)?;
                // Another sync wrote `b` here; the answer about `a` is younger than all of it.
                stage.put_asked(base, answer)?;
                let second = writer.apply(&mut stage, &batch, Some(&id("b")), &finish)?;
                Ok((first, second))
            })
            .await
            .unwrap();
        assert_eq!(
            (first.updated, &*first.doubtful, first.finished),
            (1, &[id("a")][..], false)
        );
        assert_eq!((second.updated, second.finished), (1, true));
        assert_eq!(
            world.ask::<String>("SELECT title FROM users WHERE id = 'a'"),
            "Newest"
        );
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn a_proof_is_void_once_the_user_was_touched() {
        let mut world = World::new().await;
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss")])
            .await;
        let mut stage = world.stage(Mode::Full);
        world.page(&mut stage, &[titled("b", "Boss")]);
        let reader = world.reader();
        let certificate = complete(1);
        let candidates = stage
            .candidates(&reader, certificate.as_complete().unwrap())
            .unwrap();
        assert_eq!(candidates.len(), 1);
        stage
            .put_gone(world.mirror.base(), &id("a"), &proof(world.now))
            .unwrap();
        world.sync_as(INCREMENTAL, &[titled("a", "New")]).await;
        let applied = world.apply(stage, FULL).await;
        assert_eq!((applied[0].deactivated, applied[0].finished), (0, true));
        assert!(world.ask::<bool>("SELECT active FROM users WHERE id = 'a'"));
    }

    #[tokio::test]
    async fn indexed_columns_follow_their_user() {
        let mut world = World::new().await;
        let named = |title: &str, name: &str, mail: &str| {
            Row {
            id: id("a"),
            modified_at: None,
            raw: format!(
                r#"{{"id":"a","title":"{title}","userName":"{name}","emails":[{{"type":"work","value":"{mail}"}}]}}"#
            )
            .into(),
        }
        };
        for (title, name, mail) in [
            ("x", "ada", "ada@example.org"),
            ("y", "ada", "ada@example.org"),
            ("y", "lovelace", "ada@example.org"),
            ("y", "lovelace", "lovelace@example.org"),
            ("z", "lovelace", ""),
        ] {
            world.sync(&[named(title, name, mail)]).await;
            let found = "SELECT title || ' ' || user_name || ' ' || coalesce(email, '') FROM users";
            let expected = format!("{title} {name} {mail}");
            assert_eq!(world.ask::<String>(found), expected);
            assert_eq!(world.difference(), None);
        }
    }

    #[tokio::test]
    async fn what_does_not_map_costs_itself_only() {
        let mut world = World::new().await;
        let boss = titled("b", "Boss");
        world.sync(&[titled("a", "Agent"), boss.clone()]).await;
        // The mirror has never written such a thing.
        let broken = r#"{"active":true,"id":"a","title":{"x":1}}"#;
        let written = world.mirror.write(move |writer| {
            let sql = "UPDATE users SET attributes = ?1 WHERE id = 'a'";
            Ok(writer.conn.execute(sql, [broken])?)
        });
        assert_eq!(written.await.unwrap(), 1);
        let mut stage = world.stage(Mode::Full);
        world.page(&mut stage, &[boss, titled("c", "Clerk")]);
        world.prove_gone(&mut stage, Mode::Full);
        let applied = world.apply(stage, FULL).await;
        let written = (applied[0].created, applied[0].deactivated);
        assert_eq!((written, applied[0].finished), ((1, 0), true));
        assert_eq!(world.ask::<String>("SELECT key FROM rejects"), "a");
        let rejected = "SELECT group_concat(rejected) FROM syncs";
        assert_eq!(world.ask::<String>(rejected), "0,1");
    }

    #[tokio::test]
    async fn observed_at_never_goes_back_with_the_clock() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        world.now -= SignedDuration::from_hours(48);
        world.sync(&[titled("a", "Chief")]).await;
        let times = "SELECT count(DISTINCT observed_at) FROM changes";
        assert_eq!((world.mirror.head(), world.ask::<i64>(times)), (2, 1));
        assert_eq!(world.difference(), None);
    }

    /// One step of a random history.
    #[derive(Clone, Debug)]
    enum Step {
        /// These users are all there are, with these titles; by one sync that may be killed.
        Full(BTreeMap<u8, u8>, usize),
        /// These were changed.
        Incremental(BTreeMap<u8, u8>),
        /// The clock jumps by so many minutes.
        Clock(i64),
        /// Trims what is older than so many minutes.
        Trim(i64, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let users = || proptest::collection::btree_map(0..7_u8, 0..4_u8, 0..7);
        let step = prop_oneof![
            4 => (users(), prop_oneof![Just(usize::MAX), 1..3_usize]).prop_map(|(users, kill)| Step::Full(users, kill)),
            2 => users().prop_map(Step::Incremental),
            1 => (-90..90_i64).prop_map(Step::Clock),
            2 => (0..20_i64, 1..5_usize).prop_map(|(age, batch)| Step::Trim(age, batch)),
        ];
        proptest::collection::vec(step, 1..9)
    }

    fn rows(users: &BTreeMap<u8, u8>) -> Vec<Row> {
        let row = |(id, state): (&u8, &u8)| {
            let id = format!("u{id}");
            match state {
                0 => user(&id, "2026-01-01T00:00:00Z", r#","active":false"#),
                1 => user(&id, "yesterday", ""),
                more => titled(&id, &format!("t{more}")),
            }
        };
        users.iter().map(row).collect()
    }

    async fn take_step(world: &mut World, step: &Step) {
        match step {
            Step::Full(users, transactions) => {
                let how = How {
                    limit: 2,
                    transactions: *transactions,
                    ..FULL
                };
                let rows = rows(users);
                // Without a baseline nobody is absent.
                let absences_count = world.ask("SELECT baseline_at IS NOT NULL FROM sources");
                let applied = world.sync_as(how, &rows).await;
                if absences_count && applied.last().is_some_and(|last| last.finished) {
                    let again = world.sync(&rows).await;
                    let written = |one: &Applied| one.created + one.updated + one.deactivated;
                    assert_eq!(again.iter().map(written).sum::<u64>(), 0, "{step:?}");
                }
            }
            Step::Incremental(users) => {
                world.sync_as(INCREMENTAL, &rows(users)).await;
            }
            Step::Clock(minutes) => world.now += SignedDuration::from_mins(*minutes),
            Step::Trim(age, batch) => {
                let before = world.now - SignedDuration::from_mins(*age);
                let options = TrimOptions {
                    changes_before: Some(before),
                    syncs_before: before,
                    batch: *batch,
                };
                let mut more = true;
                while more {
                    more = world
                        .mirror
                        .write(move |writer| writer.trim(&options))
                        .await
                        .unwrap();
                    assert_eq!(world.difference(), None, "{step:?}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_fingerprint_saves_work_and_changes_nothing(
            directories in proptest::collection::vec(proptest::collection::btree_map(0..7_u8, 0..4_u8, 1..7), 2..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (mut quick, mut slow) = (World::new().await, World::new().await);
                for directory in &directories {
                    let rows = rows(directory);
                    quick.sync(&rows).await;
                    // Without them all is decoded, staged, and compared in full.
                    let conn = Connection::open(slow.path()).unwrap();
                    conn.execute("DELETE FROM fingerprints", []).unwrap();
                    slow.sync(&rows).await;
                }
                let tables = [&quick, &slow].map(|world| {
                    let dump = content(world);
                    ["users", "changes"].map(|table| dump[table].clone())
                });
                assert!(!tables[0][1].is_empty());
                assert_eq!(tables[0], tables[1]);
                assert_eq!(slow.difference(), None);
            });
        }

        #[test]
        fn any_history_folds_to_the_mirror_trimmed_guarded_or_not(steps in steps(), guarded: bool) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut world = World::new().await;
                if guarded {
                    world.limits = super::super::testing::strict();
                }
                for step in &steps {
                    take_step(&mut world, step).await;
                    assert_eq!(world.difference(), None, "{step:?}");
                }
            });
        }
    }
}
