//! The writing half of a sync: transaction after transaction, the last of them with the end.

use std::sync::Arc;

use super::read::Read;
use super::{Attempt, Error, Phase, RECORDS_PER_TRANSACTION, TIME_PER_TRANSACTION, read, settle};
use crate::mirror::apply::{Applied, Batch, Finish, Opened, SyncRow};
use crate::mirror::stage::Stage;
use crate::model::{Certificate, Mode, Outcome, ResourceId};

/// How often doubtful resources are asked for again while other syncs go on changing them. What is
/// left then was changed by a later read than ours, and is left to the next sync.
const MAX_ROUNDS: u32 = 3;

/// Applies what was read, and completes the sync's row. Returns the holds that it opened.
pub(super) async fn apply(
    sync: &Attempt<'_>,
    read: Read,
    row: &mut SyncRow,
) -> Result<Vec<Opened>, Error> {
    let Read {
        mut stage,
        mut reader,
        certificate,
        capabilities,
        treatment,
        mends,
        unproved: _,
    } = read;
    let is_full = sync.reading.mode == Mode::Full;
    let mut finish = Finish {
        sync: row.clone(),
        watermark: watermark(&certificate),
        restart_at: certificate.first_date,
        full_and_complete: is_full && certificate.as_complete().is_some(),
        capabilities,
    };
    let batch = Batch {
        watch: sync.reading.watch(),
        treatment,
        mends,
        sync_id: row.id,
        limit: RECORDS_PER_TRANSACTION,
        time: TIME_PER_TRANSACTION,
    };
    let mut opened = Vec::new();
    let mut rounds = 0;
    let mut after: Option<ResourceId> = None;
    let mut doubtful = Vec::new();
    loop {
        if sync.context.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let written = row.created + row.updated + row.deactivated;
        sync.reading.tell(Phase::Applying, written, None);
        row.cost = sync.reading.session.tally.snapshot();
        finish.sync = row.clone();
        let (returned, applied, written) =
            one_transaction(sync, stage, batch.clone(), after, finish.clone()).await?;
        stage = returned;
        *row = written;
        row.created += applied.created;
        row.updated += applied.updated;
        row.deactivated += applied.deactivated;
        row.held += applied.held;
        opened.extend(applied.opened);
        doubtful.extend(applied.doubtful);
        after = applied.next_after;
        if applied.finished {
            break;
        }
        sync.mirror.move_long_log().await;
        if after.is_none() {
            rounds += 1;
            // Everything else is applied: the next transaction goes on behind the last of these.
            let again = std::mem::take(&mut doubtful);
            after = again.iter().max().cloned();
            (stage, reader) = if rounds < MAX_ROUNDS {
                settle::ask_each(&sync.reading, stage, reader, again).await?
            } else {
                settle::leave(stage, reader, again).await?
            };
        }
    }
    row.outcome = Outcome::Succeeded;
    let mirror = sync.mirror.clone();
    read::blocking(move || {
        mirror.rest(reader);
        stage.end();
        Ok(())
    })
    .await?;
    Ok(opened)
}

/// One transaction of a sync; returns its row as it is in it, too.
async fn one_transaction(
    sync: &Attempt<'_>,
    mut stage: Stage,
    mut batch: Batch,
    after: Option<ResourceId>,
    mut finish: Finish,
) -> Result<(Stage, Applied, SyncRow), Error> {
    let clock = Arc::clone(&sync.context.clock);
    let written = sync.mirror.write(move |writer| {
        writer.stamp(&mut finish.sync, &*clock)?;
        batch.sync_id = finish.sync.id;
        batch.watch.now = finish.sync.finished_at;
        let applied = writer.apply(&mut stage, &batch, after.as_ref(), &finish)?;
        Ok((stage, applied, finish.sync))
    });
    Ok(written.await?)
}

/// Where the watermark may move: to the newest stamp seen, never past the instance's clock at the
/// first page, and only if every row was received (contract, section 3).
fn watermark(certificate: &Certificate) -> Option<jiff::Timestamp> {
    let newest = certificate.newest_modified_at?;
    let first_date = certificate.first_date?;
    certificate.read_every_row().then(|| newest.min(first_date))
}
