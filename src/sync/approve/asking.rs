//! Asks the instance again about each user of a hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::mirror::Reader;
use crate::mirror::lists::ListState;
use crate::mirror::read::{HeldUsers, HoldRow};
use crate::mirror::stage::Stage;
use crate::model::{Base, ResourceId, ResourceType, Shares, membership};
use crate::scim::absence::{BATCH, Finding, Group, Inquiry, NOT_ASKED, Silence};
use crate::scim::client::Asked;
use crate::sync::lists::Witnesses;
use crate::sync::read::{Reading, blocking, with};
use crate::sync::{Error, Phase, absent, settle};

use super::disproof::disproof;

/// How far the asking came.
#[derive(Default)]
pub(super) struct Asking {
    /// Who was answered for.
    pub(super) answered: BTreeSet<ResourceId>,
    /// Of whom is not known whether the change still stands, and why.
    pub(super) unknown: BTreeMap<ResourceId, String>,
    /// Who is asked for, and not yet to the end.
    under_way: BTreeSet<ResourceId>,
}

impl Asking {
    fn begin(&mut self, ids: &[ResourceId]) {
        self.under_way.extend(ids.iter().cloned());
    }

    /// Of these all is known that asking can tell: who is not unknown was answered for.
    fn end(&mut self, ids: &[ResourceId]) {
        for id in ids {
            self.under_way.remove(id);
            if !self.unknown.contains_key(id) {
                self.answered.insert(id.clone());
            }
        }
    }

    /// It goes no further, for this reason: what became of the asking for each.
    pub(super) fn break_off(&mut self, held: &HeldUsers, why: &str) {
        for (id, _) in &held.users {
            let what = if self.answered.contains(id) {
                "asked for, but not released"
            } else if self.under_way.contains(id) {
                "asked for, but not to the end"
            } else {
                "not asked for"
            };
            let unknown = self.unknown.entry(id.clone());
            unknown.or_insert_with(|| format!("{what}: {why}"));
        }
    }
}

/// Whom the answers about single users leave open.
#[derive(Default)]
struct Open {
    /// Not seen when they were held.
    unseen: Vec<ResourceId>,
    /// Held because the instance said `active: false`, and not shown any more.
    vanished: Vec<ResourceId>,
    /// In a hold of a blanking, and not shown any more.
    unshown: Vec<(Base, ResourceId)>,
}

/// Asks for everybody, and stages the answers.
pub(super) async fn ask_all(
    reading: &Reading,
    stage: Stage,
    reader: Reader,
    hold: &HoldRow,
    held: &HeldUsers,
    asking: &mut Asking,
) -> Result<(Stage, Reader), Error> {
    let mut silence = Silence::default();
    if matches!(&*hold.guard, "memberships" | "group_memberships") {
        return ask_groups(reading, stage, reader, held, asking, &mut silence).await;
    }
    let (stage, reader, open) =
        ask_each(reading, stage, reader, hold, held, asking, &mut silence).await?;
    let stage = settle_unshown(reading, stage, held, open.unshown, asking).await?;
    // Gone needs its proof now; a person's word stands in for the company's witness. Of those who were seen when they
    // were held, no complete crawl says that it did not see them.
    let absent = [(held.distinct, open.unseen), (None, open.vanished)];
    ask_absent(reading, stage, reader, held, absent, asking, &mut silence).await
}

/// Asks one by one.
async fn ask_each(
    reading: &Reading,
    mut stage: Stage,
    mut reader: Reader,
    hold: &HoldRow,
    held: &HeldUsers,
    asking: &mut Asking,
    silence: &mut Silence,
) -> Result<(Stage, Reader, Open), Error> {
    let total = held.users.len() as u64;
    let resource = reading.source.resource;
    let mut open = Open::default();
    for ((id, is_unseen), done) in held.users.iter().zip(0..) {
        reading.tell(Phase::Asking, done, Some(total));
        if *is_unseen {
            open.unseen.push(id.clone());
            continue;
        }
        if silence.is_long() {
            asking.unknown.insert(id.clone(), NOT_ASKED.to_owned());
            continue;
        }
        if !id.is_askable() {
            let why = "this id cannot be asked for".to_owned();
            asking.unknown.insert(id.clone(), why);
            continue;
        }
        let base = (reading.head)();
        let one = std::slice::from_ref(id);
        asking.begin(one);
        let answer = reading.session.get(resource, id).await;
        silence.note(answer.is_ok());
        match answer {
            Ok(Asked::Found(row)) => {
                (stage, reader) = blocking(move || {
                    settle::put_row(&mut stage, &reader, resource, base, &row)?;
                    Ok((stage, reader))
                })
                .await?;
            }
            Ok(Asked::NotFound) if hold.guard == "blanking" => {
                open.unshown.push((base, id.clone()));
                continue;
            }
            Ok(Asked::NotFound) => {
                // Not to the end: the proof needs its witnesses.
                open.vanished.push(id.clone());
                continue;
            }
            Ok(Asked::Unclear(why)) => drop(asking.unknown.insert(id.clone(), why)),
            Err(error) if error.is_cancelled() => return Err(error.into()),
            Err(error) => drop(asking.unknown.insert(id.clone(), error.to_string())),
        }
        asking.end(one);
    }
    Ok((stage, reader, open))
}

/// Asks for the groups of memberships, each once, and some of those who are missing from its list. A person's word stands in for
/// all that they cannot tell.
async fn ask_groups(
    reading: &Reading,
    mut stage: Stage,
    mut reader: Reader,
    held: &HeldUsers,
    asking: &mut Asking,
    silence: &mut Silence,
) -> Result<(Stage, Reader), Error> {
    let mut by_group: BTreeMap<ResourceId, Vec<ResourceId>> = BTreeMap::new();
    for (id, _) in &held.users {
        if let Some([group, _]) = membership::parts(id.as_str()) {
            let group = ResourceId::new(group);
            by_group.entry(group).or_default().push(id.clone());
        }
    }
    let total = by_group.len() as u64;
    let mut witnesses = Witnesses::default();
    for ((group, ids), done) in by_group.into_iter().zip(0..) {
        reading.tell(Phase::Asking, done, Some(total));
        let unknown = |why: &str| ids.iter().map(|id| (id.clone(), why.to_owned())).collect();
        if silence.is_long() || !group.is_askable() {
            let unknown: Vec<_> = unknown(match group.is_askable() {
                true => NOT_ASKED,
                false => "this id cannot be asked for",
            });
            asking.unknown.extend(unknown);
            continue;
        }
        let base = (reading.head)();
        asking.begin(&ids);
        let answer = reading.session.get(ResourceType::Group, &group).await;
        silence.note(answer.is_ok());
        match answer {
            Ok(Asked::Found(row)) => {
                (reader, stage) = with(reader, move |reader| {
                    settle::put_row(&mut stage, reader, ResourceType::Group, base, &row)?;
                    Ok(stage)
                })
                .await?;
                let why;
                (stage, reader, why) =
                    disproof(&mut witnesses, reading, stage, reader, &group, &ids).await?;
                if let Some(why) = why {
                    // The instance has answered. What is known of the members stays what it was, unless the list cannot be read.
                    asking.answered.extend(ids.iter().cloned());
                    let unknown: Vec<_> = unknown(&why);
                    asking.unknown.extend(unknown);
                } else {
                    (reader, stage) = with(reader, move |_| {
                        stage.judge_list(&group, ListState::Confirmed)?;
                        Ok(stage)
                    })
                    .await?;
                }
            }
            Ok(Asked::NotFound) => {
                let unknown: Vec<_> =
                    unknown("the group is not shown any more: a full sync has to find it gone");
                asking.unknown.extend(unknown);
            }
            Ok(Asked::Unclear(why)) => {
                let unknown: Vec<_> = unknown(&why);
                asking.unknown.extend(unknown);
            }
            Err(error) if error.is_cancelled() => return Err(error.into()),
            Err(error) => {
                let unknown: Vec<_> = unknown(&error.to_string());
                asking.unknown.extend(unknown);
            }
        }
        asking.end(&ids);
    }
    Ok((stage, reader))
}

/// Nobody asks for the blanking of users who are not shown any more. Whether they are gone is for a full sync to prove.
async fn settle_unshown(
    reading: &Reading,
    mut stage: Stage,
    held: &HeldUsers,
    unshown: Vec<(Base, ResourceId)>,
    asking: &mut Asking,
) -> Result<Stage, Error> {
    if unshown.is_empty() {
        return Ok(stage);
    }
    let ids: Vec<ResourceId> = unshown.iter().map(|(_, id)| id.clone()).collect();
    if is_anybody_shown(reading, held).await? {
        stage = blocking(move || {
            for (base, id) in &unshown {
                stage.put_absent(*base, id)?;
            }
            Ok(stage)
        })
        .await?;
    } else {
        let why = "answered 404, as it is for users who should be there";
        let unknown = ids.iter().map(|id| (id.clone(), why.to_owned()));
        asking.unknown.extend(unknown);
    }
    asking.end(&ids);
    Ok(stage)
}

/// Whether the instance answers about any of those who should be there: else a 404 says nothing.
async fn is_anybody_shown(reading: &Reading, held: &HeldUsers) -> Result<bool, Error> {
    for witness in &held.witnesses {
        match reading.session.get(reading.source.resource, witness).await {
            Ok(Asked::Found(_)) => return Ok(true),
            Err(error) if error.is_cancelled() => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(false)
}

/// Asks for the proof that they are gone, batch by batch.
async fn ask_absent(
    reading: &Reading,
    mut stage: Stage,
    mut reader: Reader,
    held: &HeldUsers,
    absent: [(Option<u64>, Vec<ResourceId>); 2],
    asking: &mut Asking,
    silence: &mut Silence,
) -> Result<(Stage, Reader), Error> {
    for (distinct, absent) in absent {
        let inquiry = Inquiry {
            session: &reading.session,
            resource: reading.source.resource,
            distinct,
            head: &reading.head,
            clock: &*reading.context.clock,
        };
        for candidates in absent.chunks(BATCH) {
            let group = Group {
                candidates: candidates.to_vec(),
                shares: Shares::Nothing,
                same: Vec::new(),
                anybody: held.witnesses.clone(),
            };
            asking.begin(candidates);
            let findings = inquiry.ask(&group, silence).await?;
            for finding in &findings {
                if let Finding::Unresolved { id, why, .. } = finding {
                    asking.unknown.insert(id.clone(), why.clone());
                }
            }
            asking.end(candidates);
            (stage, reader) = absent::record(reading, stage, reader, findings).await?;
        }
    }
    Ok((stage, reader))
}
