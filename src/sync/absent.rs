//! Judges what a crawl did not see: whether this is still the same directory, whom the guard holds
//! unasked, and who is asked for.

use tracing::{debug, info};

use super::read::{Reading, blocking};
use super::settle::put_row;
use super::{Error, Phase};
use crate::mirror::Reader;
use crate::mirror::apply::{Planned, Treatment};
use crate::mirror::read::SourceChange;
use crate::mirror::stage::{Candidate, Stage};
use crate::model::{Certificate, Foreign, Mode, ResourceId, Shares};
use crate::scim::absence::{BATCH, Finding, Group, Inquiry, Silence};

/// Witnesses that may be tried for one group: the first of them may just have left as well.
const WITNESSES: usize = 5;

/// What becomes of what was read.
pub(super) struct Judgement {
    pub(super) treatment: Treatment,
    /// The hold of the guard `source_changed` that does not stand any more.
    pub(super) mends: Option<i64>,
    /// Users who were not seen, and of whom it could not be proved that they are gone.
    pub(super) unproved: u64,
}

impl From<Treatment> for Judgement {
    fn from(treatment: Treatment) -> Self {
        Self {
            treatment,
            mends: None,
            unproved: 0,
        }
    }
}

/// Judges what was read, and settles who was not seen. Without the whole proof nobody is gone.
pub(super) async fn judge(
    reading: &Reading,
    stage: Stage,
    reader: Reader,
    certificate: &Certificate,
) -> Result<(Stage, Reader, Judgement), Error> {
    let watch = reading.watch();
    let (rests_on, is_full) = (certificate.clone(), reading.mode == Mode::Full);
    let (mut stage, reader, (candidates, mut judgement)) = blocking(move || {
        let change = reader.source_change(&watch.instance, watch.resource)?;
        let complete = rests_on
            .as_complete()
            .filter(|_| is_full && watch.baseline_at.is_some());
        let guarded = || Judgement::from(Treatment::Guarded(Planned::default()));
        let Some(complete) = complete else {
            let judgement = match change {
                SourceChange::None => guarded(),
                // Nobody knows whether it still does.
                SourceChange::Open(_) | SourceChange::Approved(_) => Treatment::Left.into(),
            };
            return Ok((stage, reader, (Vec::new(), judgement)));
        };
        let candidates = stage.candidates(&reader, complete)?;
        let likeness = stage.likeness(&reader, &watch, &candidates)?;
        let why = watch.limits.is_another_directory(watch.resource, &likeness);
        let judgement = match (change, why) {
            (SourceChange::Approved(hold_id), _) => Treatment::TakenOver(hold_id).into(),
            (SourceChange::Open(_), Some(_)) => Treatment::Left.into(),
            (SourceChange::None, Some(why)) => Treatment::HeldWhole(why).into(),
            (SourceChange::None, None) => guarded(),
            (SourceChange::Open(hold_id), None) => Judgement {
                mends: Some(hold_id),
                ..guarded()
            },
        };
        Ok((stage, reader, (candidates, judgement)))
    })
    .await?;
    let (stage, reader, unproved) = match judgement.treatment {
        Treatment::Left | Treatment::Approved(_) => (stage, reader, 0),
        Treatment::HeldWhole(_) => {
            stage.take_over();
            let unheld = candidates.into_iter().filter(|one| !one.held);
            let (stage, reader) = leave_unasked(stage, reader, unheld.collect()).await?;
            (stage, reader, 0)
        }
        Treatment::TakenOver(_) => {
            stage.take_over();
            // A person's word stands in for the company's witness.
            let any = candidates.into_iter().map(|one| Candidate {
                shares: Shares::Nothing,
                group: String::new(),
                ..one
            });
            ask(reading, stage, reader, any.collect(), certificate).await?
        }
        Treatment::Guarded(_) => {
            let unheld = candidates.into_iter().filter(|one| !one.held).collect();
            guard(reading, stage, reader, unheld, certificate).await?
        }
    };
    judgement.unproved = unproved;
    Ok((stage, reader, judgement))
}

/// Asks for those who were not seen, unless they are more than the guard lets through: then nobody is
/// asked, and whom it would deactivate is held.
async fn guard(
    reading: &Reading,
    stage: Stage,
    reader: Reader,
    candidates: Vec<Candidate>,
    certificate: &Certificate,
) -> Result<(Stage, Reader, u64), Error> {
    let active = candidates.iter().filter(|one| one.active).count() as u64;
    let watch = reading.watch();
    let (stage, reader, too_many) = blocking(move || {
        let too_many = active > 0
            && Planned::of(&stage, &reader, &watch)?.would_hold(&reader, &watch, active)?;
        Ok((stage, reader, too_many))
    })
    .await?;
    if too_many {
        let (stage, reader) = leave_unasked(stage, reader, only_active(candidates)).await?;
        Ok((stage, reader, 0))
    } else {
        ask(reading, stage, reader, candidates, certificate).await
    }
}

/// Who is inactive already loses nothing that a guard counts.
fn only_active(candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.into_iter().filter(|one| one.active).collect()
}

async fn leave_unasked(
    mut stage: Stage,
    reader: Reader,
    candidates: Vec<Candidate>,
) -> Result<(Stage, Reader), Error> {
    blocking(move || {
        // Whoever touches them from here on has learnt better.
        let base = stage.base();
        for candidate in &candidates {
            stage.put_absent(base, &candidate.id)?;
        }
        Ok((stage, reader))
    })
    .await
}

/// Asks for each of them. Tells of how many it could not be proved that they are gone.
async fn ask(
    reading: &Reading,
    mut stage: Stage,
    mut reader: Reader,
    candidates: Vec<Candidate>,
    certificate: &Certificate,
) -> Result<(Stage, Reader, u64), Error> {
    let total = candidates.len() as u64;
    let inquiry = Inquiry {
        session: &reading.session,
        resource: reading.source.resource,
        distinct: Some(certificate.distinct),
        head: &reading.head,
        clock: &*reading.context.clock,
    };
    let mut asked = 0;
    let mut unproved = 0;
    let mut silence = Silence::default();
    let groups = candidates.chunk_by(|a, b| (a.shares, &a.group) == (b.shares, &b.group));
    // Batch by batch, so that the answers of no more are in memory.
    for alike in groups.flat_map(|group| group.chunks(BATCH)) {
        reading.tell(Phase::Asking, asked, Some(total));
        let group;
        (stage, reader, group) = with_witnesses(stage, reader, alike.to_vec()).await?;
        asked += alike.len() as u64;
        let Some(group) = group else {
            // Sight may be lost: a person must say.
            (stage, reader) = leave_unasked(stage, reader, only_active(alike.to_vec())).await?;
            continue;
        };
        let findings = inquiry.ask(&group, &mut silence).await?;
        unproved += findings
            .iter()
            .filter(|one| matches!(one, Finding::Unresolved { .. }))
            .count() as u64;
        (stage, reader) = record(reading, stage, reader, findings).await?;
        if silence.is_long() {
            unproved += total - asked;
            info!(
                instance = %reading.source.instance,
                n_asked = asked,
                n_candidates = total,
                "the instance stopped answering: who was not asked for stays as it was"
            );
            break;
        }
    }
    Ok((stage, reader, unproved))
}

/// The group with its witnesses; `None` where this crawl saw none of them.
async fn with_witnesses(
    stage: Stage,
    reader: Reader,
    alike: Vec<Candidate>,
) -> Result<(Stage, Reader, Option<Group>), Error> {
    blocking(move || {
        let (shares, key) = alike
            .first()
            .map_or((Shares::Nothing, String::new()), |first| {
                (first.shares, first.group.clone())
            });
        let same = match shares {
            Shares::Nothing => Vec::new(),
            shares => stage.witnesses(&reader, shares, &key, WITNESSES)?,
        };
        let anybody = stage.witnesses(&reader, Shares::Nothing, "", WITNESSES)?;
        let candidates: Vec<ResourceId> = alike.into_iter().map(|candidate| candidate.id).collect();
        let is_witnessed = match shares {
            Shares::Nothing => !anybody.is_empty(),
            _ => !same.is_empty(),
        };
        let group = Group {
            candidates,
            shares,
            same,
            anybody,
        };
        Ok((stage, reader, is_witnessed.then_some(group)))
    })
    .await
}

pub(super) async fn record(
    reading: &Reading,
    stage: Stage,
    reader: Reader,
    findings: Vec<Finding>,
) -> Result<(Stage, Reader), Error> {
    let resource = reading.source.resource;
    blocking(move || {
        let mut stage = stage;
        for finding in findings {
            match finding {
                Finding::Gone { id, base, proof } => stage.put_gone(base, &id, &proof)?,
                // Who answers is reconciled as seen.
                Finding::Seen { row, base } => {
                    put_row(&mut stage, &reader, resource, base, &row)?;
                }
                // Not proved, so not gone: the next full sync asks again.
                Finding::Unresolved { why, .. } => {
                    debug!(why = %Foreign(&why), "an absent user stays as it was");
                }
            }
        }
        Ok((stage, reader))
    })
    .await
}
