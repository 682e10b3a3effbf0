//! Lists of members that lost somebody: each is read again by itself before anybody leaves a group for it (facts page, Q40).

mod witnesses;

use std::collections::VecDeque;

use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::read::{Reading, blocking, with};
use super::settle::put_row;
use super::{Error, Phase};
use crate::mirror::Reader;
use crate::mirror::apply::Treatment;
use crate::mirror::lists::{ListState, Lost};
use crate::mirror::stage::Stage;
use crate::model::{Base, Foreign, InstanceName, MembersKnown, ResourceId, ResourceType};
use crate::reconcile::decode::decode;
use crate::reconcile::fingerprint::fingerprint;
use crate::reconcile::members;
use crate::scim::absence::Silence;
use crate::scim::client::Asked;
use witnesses::{Answer, beside};
pub(super) use witnesses::{Missing, Witnesses, Word};

/// Groups that may be asked for to see whether any members are in sight.
const WITNESSES: usize = 3;

/// Looks at every list that lost members.
pub(super) async fn settle(
    reading: &Reading,
    stage: Stage,
    reader: Reader,
    treatment: &Treatment,
) -> Result<(Stage, Reader), Error> {
    if reading.source.resource != ResourceType::Group {
        return Ok((stage, reader));
    }
    let (watch, treated) = (reading.watch(), treatment.clone());
    let (stage, reader, lost) = blocking(move || {
        stage.note_cut_lists(&reader)?;
        let lost = stage.lists_that_lost(&reader, &watch, &treated)?;
        Ok((stage, reader, lost))
    })
    .await?;
    if lost.is_empty() {
        return Ok((stage, reader));
    }
    let (mut stage, reader, lost) = set_aside(reading, stage, reader, lost).await?;
    let watch = reading.watch();
    // Only a guard holds them: whoever takes another directory over asks, however many there are.
    let is_guarded = matches!(treatment, Treatment::Guarded(_));
    let missing = lost.iter().map(|one| one.missing as u64).sum();
    let (mut reader, too_many) = with(reader, move |reader| {
        Ok(is_guarded && reader.would_hold_members(&watch, missing)?)
    })
    .await?;
    if too_many {
        // They are held, and approving the hold asks: of whom cannot be asked for a hold would never end.
        let (askable, others) = (lost.into_iter()).partition(|one: &Lost| one.group.is_askable());
        let why = "too many members are missing at once, so that nobody was asked";
        let (stage, reader) =
            judge_all(reading, stage, reader, askable, ListState::Unasked, why).await?;
        let why = "the group cannot be asked for";
        return judge_all(reading, stage, reader, others, ListState::Unknown, why).await;
    }
    let total = lost.len() as u64;
    let mut asking = Asking::of(lost);
    while let Some(asked) = asking.next(reading).await? {
        reading.tell(Phase::Asking, asking.n_asked, Some(total));
        (stage, reader) = asking.settle(reading, stage, reader, asked).await?;
    }
    Ok((stage, reader))
}

/// Lists that say so themselves that they are no evidence: those that end where a cut would be, and empty ones while nobody
/// is shown in any group.
async fn set_aside(
    reading: &Reading,
    stage: Stage,
    reader: Reader,
    lost: Vec<Lost>,
) -> Result<(Stage, Reader, Vec<Lost>), Error> {
    let (cut, lost): (Vec<Lost>, Vec<Lost>) = lost.into_iter().partition(|one| one.at_cap);
    let why = "it ends where lists are cut";
    let (stage, reader) = judge_all(reading, stage, reader, cut, ListState::Cut, why).await?;
    if !lost.iter().any(|one| one.shown == 0) {
        return Ok((stage, reader, lost));
    }
    let (stage, reader, (seen, filled)) = blocking(move || {
        let seen = stage.saw_members(&reader)?;
        let filled = match seen {
            true => Vec::new(),
            false => stage.filled_groups(&reader, WITNESSES)?,
        };
        Ok((stage, reader, (seen, filled)))
    })
    .await?;
    if seen || is_anybody_shown(reading, &filled).await? {
        return Ok((stage, reader, lost));
    }
    let (blank, lost) = lost.into_iter().partition(|one| one.shown == 0);
    let why = "it shows nobody, and no group is shown with a member";
    let (stage, reader) = judge_all(reading, stage, reader, blank, ListState::Unknown, why).await?;
    Ok((stage, reader, lost))
}

/// Whether any of these groups is shown with a member.
async fn is_anybody_shown(reading: &Reading, groups: &[ResourceId]) -> Result<bool, Error> {
    for group in groups {
        match reading.session.get(ResourceType::Group, group).await {
            Ok(Asked::Found(row)) => {
                let members = decode(ResourceType::Group, &row)
                    .ok()
                    .and_then(|it| it.members);
                if members.is_some_and(|list| !list.members.is_empty()) {
                    return Ok(true);
                }
            }
            Err(error) if error.is_cancelled() => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(false)
}

/// Says why nobody leaves a group by its list.
fn tell_doubt(instance: &InstanceName, group: &ResourceId, why: &str) {
    let group_id = Foreign(group.as_str());
    debug!(%instance, %group_id, why = %Foreign(why), "the list of a group is not believed");
}

async fn judge_all(
    reading: &Reading,
    stage: Stage,
    reader: Reader,
    lists: Vec<Lost>,
    state: ListState,
    why: &'static str,
) -> Result<(Stage, Reader), Error> {
    let instance = reading.source.instance.clone();
    blocking(move || {
        for one in &lists {
            tell_doubt(&instance, &one.group, why);
            stage.judge_list(&one.group, state)?;
        }
        Ok((stage, reader))
    })
    .await
}

/// Groups that are read again, and what asking has told of the instance so far.
struct Asking {
    left: std::vec::IntoIter<Lost>,
    /// Asked for already, in their order: by the time that those who are missing from one list were asked, the next list is there.
    sent: VecDeque<Sent>,
    n_asked: u64,
    silence: Silence,
    witnesses: Witnesses,
}

/// A group that is asked for, and where the mirror stood when it was.
struct Sent {
    group: ResourceId,
    base: Base,
    /// `None`: it is not asked for.
    answer: Option<AbortOnDropHandle<Answer>>,
}

/// The same, answered.
struct Again {
    group: ResourceId,
    base: Base,
    answer: Asked,
}

impl Asking {
    fn of(lost: Vec<Lost>) -> Self {
        Self {
            left: lost.into_iter(),
            sent: VecDeque::new(),
            n_asked: 0,
            silence: Silence::default(),
            witnesses: Witnesses::default(),
        }
    }

    /// Asks for groups until so many are under way.
    fn send(&mut self, reading: &Reading) {
        while self.sent.len() < reading.session.client.options().concurrency.max(1) {
            let Some(Lost { group, .. }) = self.left.next() else {
                return;
            };
            let base = (reading.head)();
            let answer = (!self.silence.is_long() && group.is_askable()).then(|| {
                let (session, group) = (reading.session.clone(), group.clone());
                beside(async move { session.get(ResourceType::Group, &group).await })
            });
            self.sent.push_back(Sent {
                group,
                base,
                answer,
            });
        }
    }

    /// The next answer.
    async fn next(&mut self, reading: &Reading) -> Result<Option<Again>, Error> {
        self.send(reading);
        let Some(Sent {
            group,
            base,
            answer,
        }) = self.sent.pop_front()
        else {
            return Ok(None);
        };
        let answer = match answer {
            None => Asked::Unclear("it is not asked for".to_owned()),
            Some(answer) => {
                let answer = answer.await?;
                self.silence.note(answer.is_ok());
                match answer {
                    Err(error) if error.is_cancelled() => return Err(error.into()),
                    Err(error) => Asked::Unclear(error.to_string()),
                    Ok(asked) => asked,
                }
            }
        };
        self.n_asked += 1;
        Ok(Some(Again {
            group,
            base,
            answer,
        }))
    }

    /// Says what the list of a group that was read again is worth.
    async fn settle(
        &mut self,
        reading: &Reading,
        mut stage: Stage,
        mut reader: Reader,
        again: Again,
    ) -> Result<(Stage, Reader), Error> {
        let Again {
            group,
            base,
            answer,
        } = again;
        let (instance, asked_for) = (reading.source.instance.clone(), group.clone());
        let missing;
        (reader, (stage, missing)) = with(reader, move |reader| {
            judge(stage, reader, &instance, &asked_for, base, answer)
        })
        .await?;
        let Some(missing) = missing else {
            return Ok((stage, reader));
        };
        let is_empty = missing.shown == 0;
        let word = self.witnesses.word_of(reading, &group, &missing).await?;
        let (state, why) = match word {
            Word::Against => (
                match is_empty {
                    true => ListState::Unknown,
                    false => ListState::Cut,
                },
                Some("one of those who are missing says to be in the group"),
            ),
            Word::Unheard => (
                ListState::Unknown,
                Some(
                    "of those who are missing nobody could be heard, or one is not shown who is not known to be gone",
                ),
            ),
            Word::Silent if is_empty => {
                let shows_groups;
                (stage, reader, shows_groups) = (self.witnesses)
                    .shows_groups(reading, stage, reader)
                    .await?;
                match shows_groups {
                    true => (ListState::Confirmed, None),
                    false => (
                        ListState::Unwitnessed,
                        Some("it shows nobody any more, and no user is shown with any groups"),
                    ),
                }
            }
            Word::Nothing | Word::Silent => (ListState::Confirmed, None),
        };
        if let Some(why) = why {
            tell_doubt(&reading.source.instance, &group, why);
        }
        let (reader, stage) = with(reader, move |_| {
            stage.judge_list(&group, state)?;
            Ok(stage)
        })
        .await?;
        Ok((stage, reader))
    }
}

/// Holds what was answered about a group against what the crawl read. `None` where the list is settled by that.
fn judge(
    mut stage: Stage,
    reader: &Reader,
    instance: &InstanceName,
    group: &ResourceId,
    base: Base,
    answer: Asked,
) -> Result<(Stage, Option<Missing>), crate::mirror::Error> {
    let row = match answer {
        Asked::Found(row) => row,
        // Absence is for a full sync to prove.
        Asked::NotFound => {
            stage.drop_staged(group)?;
            return Ok((stage, None));
        }
        Asked::Unclear(why) => {
            tell_doubt(
                instance,
                group,
                &format!("it could not be read again: {why}"),
            );
            stage.judge_list(group, ListState::Unknown)?;
            return Ok((stage, None));
        }
    };
    let mut before = None;
    if !stage.is_asked_alike(base, group, &fingerprint(&row.raw))? {
        let Some((list, _)) = stage.list_of(reader, group)? else {
            return Ok((stage, None));
        };
        before = Some(list);
        put_row(&mut stage, reader, ResourceType::Group, base, &row)?;
    }
    let Some((again, missing)) = stage.list_of(reader, group)? else {
        return Ok((stage, None));
    };
    if before.is_some_and(|before| !members::agree(&before, &again)) {
        let why = match &again.unreadable {
            Some(unreadable) => unreadable,
            None => "two answers show other members",
        };
        tell_doubt(instance, group, why);
        stage.judge_list(
            group,
            match members::disbelieved(&again) {
                MembersKnown::Unknown => ListState::Unknown,
                MembersKnown::All | MembersKnown::Cut => ListState::Cut,
            },
        )?;
        return Ok((stage, None));
    }
    if missing.is_empty() {
        return Ok((stage, None));
    }
    let missing = Missing::of(reader, instance, &missing, again.members.len())?;
    Ok((stage, Some(missing)))
}
