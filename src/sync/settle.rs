//! What a crawl alone cannot decide is settled by asking for single resources: who was read before
//! somebody else learnt better.

use super::read::{Reading, blocking, with};
use super::{Error, Phase};
use crate::mirror::Reader;
use crate::mirror::stage::Stage;
use crate::model::{Base, ResourceId, Row};
use crate::reconcile;
use crate::scim::absence::Silence;
use crate::scim::client::Asked;

/// Asks by id for every staged resource that must not be applied as it was read (promise P6).
pub(super) async fn doubtful(
    reading: &Reading,
    stage: Stage,
    reader: Reader,
) -> Result<(Stage, Reader), Error> {
    let (stage, reader, ids) = blocking(move || {
        let ids = stage.doubtful(&reader)?;
        Ok((stage, reader, ids))
    })
    .await?;
    ask_each(reading, stage, reader, ids).await
}

/// Leaves what is still doubtful to the next sync: somebody else read it later than we did.
pub(super) async fn leave(
    stage: Stage,
    reader: Reader,
    ids: Vec<ResourceId>,
) -> Result<(Stage, Reader), Error> {
    blocking(move || {
        let mut stage = stage;
        for id in &ids {
            stage.leave_out(id)?;
        }
        Ok((stage, reader))
    })
    .await
}

/// Asks by id for each of these, and stages the answer in place of what was read before.
pub(super) async fn ask_each(
    reading: &Reading,
    mut stage: Stage,
    mut reader: Reader,
    ids: Vec<ResourceId>,
) -> Result<(Stage, Reader), Error> {
    let total = ids.len() as u64;
    let mut silence = Silence::default();
    for (id, done) in ids.into_iter().zip(0..) {
        reading.tell(Phase::Asking, done, Some(total));
        let base = (reading.head)();
        let asked = if id.is_askable() {
            let answer = reading.session.get(reading.source.resource, &id).await;
            silence.note(answer.is_ok());
            match answer {
                Err(error) if error.is_cancelled() || silence.is_long() => {
                    return Err(error.into());
                }
                // One that is never answered for costs itself alone (promise P9).
                Err(error) => Asked::Unclear(error.to_string()),
                Ok(asked) => asked,
            }
        } else {
            Asked::Unclear("this id cannot be asked for".to_owned())
        };
        let resource = reading.source.resource;
        (reader, stage) = with(reader, move |reader| {
            match asked {
                Asked::Found(row) => put_row(&mut stage, reader, resource, base, &row)?,
                // Absence is for a full sync to prove.
                Asked::NotFound => stage.drop_staged(&id)?,
                Asked::Unclear(_) => stage.leave_out(&id)?,
            }
            Ok(stage)
        })
        .await?;
    }
    Ok((stage, reader))
}

/// Stages what was answered about one id.
pub(super) fn put_row(
    stage: &mut Stage,
    reader: &Reader,
    resource: crate::model::ResourceType,
    base: Base,
    row: &Row,
) -> Result<(), crate::mirror::Error> {
    match reconcile::decode::decode(resource, row) {
        Ok(arrived) => stage.put_asked(base, arrived),
        Err(reject) => stage
            .put(reader, base, Vec::new(), vec![reject])
            .map(|_report| ()),
    }
}
