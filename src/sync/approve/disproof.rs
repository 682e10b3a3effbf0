//! Whether the list of a group may be taken for what a person approved.

use std::collections::BTreeSet;

use crate::mirror::Reader;
use crate::mirror::stage::Stage;
use crate::model::{Member, ResourceId, membership};
use crate::reconcile::members;
use crate::sync::Error;
use crate::sync::lists::{Missing, Witnesses, Word};
use crate::sync::read::{Reading, with};

/// Why the list of a group that was asked for again, and is staged, shows something else than what a person approved; `None` where it
/// may be that. The person's word stands in for what a list cannot tell, and not against what is known to be otherwise.
pub(super) async fn disproof(
    witnesses: &mut Witnesses,
    reading: &Reading,
    stage: Stage,
    reader: Reader,
    group: &ResourceId,
    approved: &[ResourceId],
) -> Result<(Stage, Reader, Option<String>), Error> {
    let (asked_for, watch) = (group.clone(), reading.watch());
    let approved: BTreeSet<ResourceId> = approved.iter().cloned().collect();
    let (reader, (stage, found)) = with(reader, move |reader| {
        let Some((list, missing)) = stage.list_of(reader, &asked_for)? else {
            return Ok((stage, None));
        };
        if let Some(unreadable) = list.unreadable {
            return Ok((stage, Some(Err(unreadable))));
        }
        if members::ends_at_cap(list.n_arrived) {
            let why = "the list ends where lists are cut";
            return Ok((stage, Some(Err(why.to_owned()))));
        }
        // Of whom no hold says anything no person has said anything either.
        let held = reader.held_of_group(&watch, &asked_for)?;
        let id = |one: &Member| membership::id(asked_for.as_str(), &one.id);
        if list.members.is_empty() && !missing.iter().all(|one| held.contains_key(&id(one))) {
            let why =
                "the list shows nobody at all any more, and some of its members are in no hold";
            return Ok((stage, Some(Err(why.to_owned()))));
        }
        let missing: Vec<Member> = (missing.into_iter())
            .filter(|one| approved.contains(&id(one)))
            .collect();
        let missing = Missing::of(reader, &watch.instance, &missing, list.members.len())?;
        Ok((stage, Some(Ok(missing))))
    })
    .await?;
    let why = match found {
        None => None,
        Some(Err(why)) => Some(why),
        Some(Ok(missing)) => match witnesses.word_of(reading, group, &missing).await? {
            Word::Against => Some(
                "one of those who are missing from the list says to be in the group".to_owned(),
            ),
            Word::Nothing | Word::Silent | Word::Unheard => None,
        },
    };
    Ok((stage, reader, why))
}
