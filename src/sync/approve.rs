//! Approving a hold: each of its users is asked for again, and those for whom the change still stands
//! are released. It is a sync of its own.

mod asking;
mod disproof;

use std::sync::Arc;

use serde::Serialize;

use super::read::{Reading, blocking};
use super::{
    Context, Error, RECORDS_PER_TRANSACTION, RESUME_MAX_AGE, Source, TIME_PER_TRANSACTION, session,
    settle,
};
use crate::mirror::apply::{Batch, Finish, SyncRow, Treatment};
use crate::mirror::read::{HeldUsers, HoldRow, InTheWay};
use crate::mirror::stage::{Stage, StageKey};
use crate::mirror::{self, Mirror, Reader};
use crate::model::{InstanceName, Mode, Outcome, ResourceId, ResourceType, Trigger};
use asking::{Asking, ask_all};

/// Living users who may be tried as witnesses.
const WITNESSES: usize = 16;

/// What became of one user of an approved hold.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The hold.
    pub hold_id: i64,
    /// The resource type.
    pub resource: &'static str,
    /// The user.
    pub id: String,
    /// What became of the change.
    pub result: Fate,
    /// Why, where it is held still.
    pub why: Option<String>,
}

/// What became of a change of an approved hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// It still stood, and is in the feed.
    Approved,
    /// The instance asks for it no more.
    Resolved,
    /// It could not be asked about, and is held still.
    Failed,
}

/// Approves a hold of one path of each user. Returns the row of its sync, whatever happens, and what became
/// of whom, in the order of ids. Told to stop, it leaves held whom it has not released.
///
/// # Errors
/// When the hold was closed while its users were asked for; when the mirror cannot be read, or cannot even
/// record the end.
pub async fn approve(
    mirror: &Mirror,
    source: &Source,
    hold: &HoldRow,
    context: &Context,
) -> Result<(SyncRow, Vec<Answer>), mirror::Error> {
    let (instance, resource, asked) = (source.instance.clone(), source.resource, hold.clone());
    let read = mirror.read(move |reader| {
        let before = reader.source(&instance, resource)?;
        let epoch = reader.feed()?.epoch;
        Ok((
            before,
            epoch,
            reader.held_users(&asked, resource, WITNESSES)?,
        ))
    });
    let (before, epoch, held) = read.await?;
    let head = mirror.clone();
    let reading = Reading {
        source: source.clone(),
        mode: Mode::Incremental,
        before,
        session: session(source, Mode::Incremental, context),
        context: context.clone(),
        head: Arc::new(move || head.base()),
        stage_path: None,
        epoch,
    };
    let mut row = blank_row(&reading);
    let mut asking = Asking::default();
    if let Err(error) = release(mirror, &reading, hold, &held, &mut asking, &mut row).await {
        row.seen = asking.answered.len() as u64;
        // Which of the requests was under way then says nothing of the others.
        let why = match error.is_cancelled() {
            true => Error::Cancelled.chain(),
            false => error.chain(),
        };
        asking.break_off(&held, &why);
        record_failure(mirror, &reading, &mut row, &error).await?;
        if let Error::NotApprovable(error) = error {
            return Err(error);
        }
    }
    let (instance, hold_id) = (source.instance.clone(), hold.id);
    let fates = mirror.read(move |reader| fates(reader, &instance, hold_id, &held, &asking));
    Ok((row, fates.await?))
}

fn blank_row(reading: &Reading) -> SyncRow {
    let started_at = reading.context.clock.now();
    SyncRow {
        id: 0,
        instance: reading.source.instance.clone(),
        resource: reading.source.resource,
        mode: reading.mode,
        trigger: Trigger::Request,
        started_at,
        finished_at: started_at,
        outcome: Outcome::Succeeded,
        certificate: None,
        seen: 0,
        created: 0,
        updated: 0,
        deactivated: 0,
        held: 0,
        rejected: 0,
        cost: reading.session.tally.snapshot(),
        error: None,
    }
}

/// Asks for everybody, then applies the answers.
async fn release(
    mirror: &Mirror,
    reading: &Reading,
    hold: &HoldRow,
    held: &HeldUsers,
    asking: &mut Asking,
    row: &mut SyncRow,
) -> Result<(), Error> {
    let key = StageKey {
        instance: reading.source.instance.clone(),
        resource: reading.source.resource,
        mode: reading.mode,
        fits: String::new(),
    };
    let started_at = row.started_at;
    let reader = mirror.lend().await?;
    let (stage, reader) = blocking(move || {
        let (stage, _none) = Stage::open(None, &key, &reader, started_at, RESUME_MAX_AGE)?;
        Ok((stage, reader))
    })
    .await?;
    let (stage, reader) = ask_all(reading, stage, reader, hold, held, asking).await?;
    row.seen = asking.answered.len() as u64;
    if row.seen == 0
        && let Some(why) = asking.unknown.values().next()
    {
        row.outcome = Outcome::Failed;
        row.error = Some(why.clone());
    }
    apply(mirror, reading, stage, reader, hold, row).await
}

/// A few users say nothing of the instance's health, so that this leaves its row and no more.
async fn record_failure(
    mirror: &Mirror,
    reading: &Reading,
    row: &mut SyncRow,
    error: &Error,
) -> Result<(), mirror::Error> {
    row.cost = reading.session.tally.snapshot();
    row.outcome = match error.is_cancelled() {
        true => Outcome::Cancelled,
        false => Outcome::Failed,
    };
    row.error = Some(error.chain());
    let not_before = reading.source.client.not_before();
    let mut record = row.clone();
    let clock = Arc::clone(&reading.context.clock);
    *row = mirror
        .write(move |writer| {
            writer.stamp(&mut record, &*clock)?;
            writer.break_off(&record, not_before)?;
            Ok(record)
        })
        .await?;
    Ok(())
}

/// Applies the answers. What another sync changed since is left to the next approval.
async fn apply(
    mirror: &Mirror,
    reading: &Reading,
    mut stage: Stage,
    mut reader: Reader,
    hold: &HoldRow,
    row: &mut SyncRow,
) -> Result<(), Error> {
    let batch = Batch {
        watch: reading.watch(),
        treatment: Treatment::Approved(hold.id),
        mends: None,
        sync_id: row.id,
        limit: RECORDS_PER_TRANSACTION,
        time: TIME_PER_TRANSACTION,
    };
    // The first transaction looks again; those after it go on with what it began.
    let mut approved = Some((hold.id, hold.digest.clone()));
    let mut after = None;
    let mut doubtful = Vec::new();
    loop {
        if reading.context.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        row.cost = reading.session.tally.snapshot();
        let mut finish = Finish {
            sync: row.clone(),
            watermark: None,
            restart_at: None,
            full_and_complete: false,
            capabilities: None,
        };
        let (mut batch, approved) = (batch.clone(), approved.take());
        let clock = Arc::clone(&reading.context.clock);
        let written = mirror.write(move |writer| {
            if let Some((hold_id, digest)) = approved {
                writer.approvable(hold_id, &digest)?;
            }
            writer.stamp(&mut finish.sync, &*clock)?;
            batch.sync_id = finish.sync.id;
            batch.watch.now = finish.sync.finished_at;
            let applied = writer.apply(&mut stage, &batch, after.as_ref(), &finish)?;
            Ok((stage, applied, finish.sync))
        });
        let (returned, applied, written) = written.await.map_err(|error| {
            if error.is_about_a_hold() {
                Error::NotApprovable(error)
            } else {
                error.into()
            }
        })?;
        stage = returned;
        *row = written;
        row.created += applied.created;
        row.updated += applied.updated;
        row.deactivated += applied.deactivated;
        doubtful.extend(applied.doubtful);
        after = applied.next_after;
        if applied.finished {
            break;
        }
        mirror.move_long_log().await;
        if after.is_none() {
            let left: Vec<ResourceId> = std::mem::take(&mut doubtful);
            after = left.iter().max().cloned();
            (stage, reader) = settle::leave(stage, reader, left).await?;
        }
    }
    let mirror = mirror.clone();
    blocking(move || {
        mirror.rest(reader);
        stage.end();
        Ok(())
    })
    .await
}

fn fates(
    reader: &Reader,
    instance: &InstanceName,
    hold_id: i64,
    held: &HeldUsers,
    asking: &Asking,
) -> Result<Vec<Answer>, mirror::Error> {
    let resource = match reader.hold(hold_id)?.map(|hold| hold.guard).as_deref() {
        Some("memberships" | "group_memberships") => ResourceType::Membership.as_str(),
        _ => reader.source_of_hold(hold_id)?.as_str(),
    };
    held.users
        .iter()
        .map(|(id, _)| {
            let result = match reader.held_state(hold_id, id)?.as_deref() {
                Some("released") => Fate::Approved,
                Some("resolved") => Fate::Resolved,
                _ => Fate::Failed,
            };
            let why = match (result, asking.unknown.get(id)) {
                (Fate::Approved | Fate::Resolved, _) => None,
                (Fate::Failed, Some(why)) => Some(why.clone()),
                (Fate::Failed, None) => Some(why_unreleased(reader, instance, hold_id, id)?),
            };
            Ok(Answer {
                hold_id,
                resource,
                id: id.as_str().to_owned(),
                result,
                why,
            })
        })
        .collect()
}

/// Why an answer released nobody.
fn why_unreleased(
    reader: &Reader,
    instance: &InstanceName,
    hold_id: i64,
    id: &ResourceId,
) -> Result<String, mirror::Error> {
    Ok(match reader.in_the_way(instance, hold_id, id)? {
        Some(InTheWay::AnotherDirectory(other)) => {
            format!("the instance looks like another directory: settle hold {other} first")
        }
        Some(InTheWay::WholeList(other)) => {
            format!("hold {other} keeps the whole list that it is part of: approve that one first")
        }
        None => "it was changed meanwhile, or could not be read".to_owned(),
    })
}
