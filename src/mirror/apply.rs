//! What one transaction writes: staged resources become change records, users and fingerprints.

mod members;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use rusqlite::Connection;
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
use crate::model::{InstanceName, Kind, Mode, ResourceId, ResourceType};
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
mod tests;
