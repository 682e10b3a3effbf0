//! Lists of members that lost somebody: each is read again by itself before anybody leaves a group for it (facts page, Q40).

use std::collections::VecDeque;

use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, debug};

use super::read::{Reading, blocking, with};
use super::settle::put_row;
use super::{Error, Phase};
use crate::mirror::Reader;
use crate::mirror::apply::{Planned, Treatment};
use crate::mirror::lists::{ListState, Lost};
use crate::mirror::stage::Stage;
use crate::model::{
    Base, Foreign, InstanceName, Member, MemberKind, MembersKnown, ResourceId, ResourceType,
};
use crate::reconcile::decode::decode;
use crate::reconcile::fingerprint::fingerprint;
use crate::reconcile::members;
use crate::scim;
use crate::scim::absence::Silence;
use crate::scim::client::Asked;

/// Of those who are missing from one list, so many are asked whether they say to be in the group.
const USERS_ASKED: usize = 3;

/// Groups that may be asked for to see whether any members are in sight, and users who are in a group to see whether users are shown
/// with their groups.
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
    let (stage, reader, lost) = set_aside(reading, stage, reader, lost).await?;
    let watch = reading.watch();
    // Only a guard holds them: whoever takes another directory over asks, however many there are.
    let is_guarded = matches!(treatment, Treatment::Guarded(_));
    let (mut stage, mut reader, too_many) = blocking(move || {
        let too_many = is_guarded
            && Planned::of(&stage, &reader, &watch)?.would_hold_members(&reader, &watch)?;
        Ok((stage, reader, too_many))
    })
    .await?;
    if too_many {
        // They are held, and approving the hold asks: of whom cannot be asked for a hold would never end.
        let (askable, others) = (lost.into_iter()).partition(|one: &Lost| one.group.is_askable());
        let (stage, reader) = judge_all(stage, reader, askable, ListState::Unasked).await?;
        return judge_all(stage, reader, others, ListState::Unknown).await;
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
    let (stage, reader) = judge_all(stage, reader, cut, ListState::Cut).await?;
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
    let (stage, reader) = judge_all(stage, reader, blank, ListState::Unknown).await?;
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

async fn judge_all(
    stage: Stage,
    reader: Reader,
    lists: Vec<Lost>,
    state: ListState,
) -> Result<(Stage, Reader), Error> {
    blocking(move || {
        for one in &lists {
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
    /// The same of users: groups may be answered for while they are not.
    silence_of_users: Silence,
    /// Whether users are shown with their groups, once it was asked.
    shows_groups: Option<bool>,
}

/// A group that is asked for, and where the mirror stood when it was.
struct Sent {
    group: ResourceId,
    base: Base,
    /// `None`: it is not asked for.
    answer: Option<AbortOnDropHandle<Result<Asked, scim::error::Error>>>,
}

/// The same, answered.
struct Again {
    group: ResourceId,
    base: Base,
    answer: Asked,
}

/// What those who are missing from a list say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// One of them says to be in the group.
    Against,
    /// None of them does who shows any groups; or all are gone.
    Nothing,
    /// Nobody is shown with any groups, be it that the user is in none or that none are shown.
    Silent,
    /// They were asked for, and there was no answer; or one is not shown who is not known to be gone: where users are out of sight
    /// their memberships are, too.
    Unheard,
}

impl Asking {
    fn of(lost: Vec<Lost>) -> Self {
        Self {
            left: lost.into_iter(),
            sent: VecDeque::new(),
            n_asked: 0,
            silence: Silence::default(),
            silence_of_users: Silence::default(),
            shows_groups: None,
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
                let get = async move { session.get(ResourceType::Group, &group).await };
                AbortOnDropHandle::new(tokio::spawn(get.in_current_span()))
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
        let state = match self.word_of(reading, &group, &missing).await? {
            Word::Against if is_empty => ListState::Unknown,
            Word::Against => ListState::Cut,
            Word::Unheard => ListState::Unknown,
            Word::Silent if is_empty => {
                let shows_groups;
                (stage, reader, shows_groups) = self.shows_groups(reading, stage, reader).await?;
                match shows_groups {
                    true => ListState::Confirmed,
                    false => ListState::Unwitnessed,
                }
            }
            Word::Nothing | Word::Silent => ListState::Confirmed,
        };
        let (reader, stage) = with(reader, move |_| {
            stage.judge_list(&group, state)?;
            Ok(stage)
        })
        .await?;
        Ok((stage, reader))
    }

    /// What those who are missing from the list say of it. Nobody is spared because others said nothing: whoever left his only
    /// group shows none either.
    async fn word_of(
        &mut self,
        reading: &Reading,
        group: &ResourceId,
        missing: &Missing,
    ) -> Result<Word, Error> {
        let (mut spoke, mut is_silent, mut is_unheard) = (false, false, false);
        for user in &missing.users {
            if self.silence_of_users.is_long() {
                is_unheard = true;
                break;
            }
            match self.groups_of(reading, &user.id).await? {
                Said::Groups(groups) if groups.iter().any(|one| one == group.as_str()) => {
                    return Ok(Word::Against);
                }
                Said::Groups(_) => spoke = true,
                Said::Nothing => is_silent = true,
                Said::NotThere if user.is_living => return Ok(Word::Unheard),
                // Who is gone is in no group, and says nothing of the others.
                Said::NotThere => {}
                Said::Unclear => is_unheard = true,
            }
        }
        Ok(match (spoke, is_silent, is_unheard) {
            (true, ..) => Word::Nothing,
            (_, true, _) => Word::Silent,
            (_, _, true) => Word::Unheard,
            (false, false, false) if missing.n_others > 0 => Word::Silent,
            (false, false, false) => Word::Nothing,
        })
    }

    async fn groups_of(&mut self, reading: &Reading, user: &ResourceId) -> Result<Said, Error> {
        let answer = reading.session.get_with_groups(user).await;
        self.silence_of_users.note(answer.is_ok());
        Ok(match answer {
            Ok(Asked::Found(row)) => match members::groups_of_user(&row.raw) {
                Some(groups) => Said::Groups(groups),
                None => Said::Nothing,
            },
            Ok(Asked::NotFound) => Said::NotThere,
            Err(error) if error.is_cancelled() => return Err(error.into()),
            Ok(Asked::Unclear(_)) | Err(_) => Said::Unclear,
        })
    }

    /// Whether the instance shows users with their groups: it does where one who is in a group that has not changed says so.
    async fn shows_groups(
        &mut self,
        reading: &Reading,
        stage: Stage,
        reader: Reader,
    ) -> Result<(Stage, Reader, bool), Error> {
        if let Some(known) = self.shows_groups {
            return Ok((stage, reader, known));
        }
        let instance = reading.source.instance.clone();
        let (reader, (stage, pairs)) = with(reader, move |reader| {
            let mut pairs = Vec::new();
            for group in stage.filled_groups(reader, WITNESSES)? {
                if let Some(user) = reader.user_in(&instance, &group)? {
                    pairs.push((group, user));
                }
            }
            Ok((stage, pairs))
        })
        .await?;
        let mut known = false;
        for (group, user) in pairs {
            known |= match self.groups_of(reading, &user).await? {
                Said::Groups(groups) => groups.iter().any(|one| one == group.as_str()),
                Said::Nothing | Said::NotThere | Said::Unclear => false,
            };
            if known {
                break;
            }
        }
        self.shows_groups = Some(known);
        Ok((stage, reader, known))
    }
}

/// What a user says of the groups that the user is in.
enum Said {
    /// These.
    Groups(Vec<String>),
    /// The user is there, and nothing is said of groups.
    Nothing,
    /// The user is not there.
    NotThere,
    /// There was no clear answer.
    Unclear,
}

/// One who is missing from a list.
struct Witness {
    id: ResourceId,
    /// Whether the instance shows the user, as far as the mirror knows.
    is_living: bool,
}

/// What is known of a list that was read twice alike, and that somebody is missing from.
struct Missing {
    /// Some of them, who are asked.
    users: Vec<Witness>,
    /// How many are missing who are not.
    n_others: usize,
    /// How many the list shows.
    shown: usize,
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
            debug!(why = %Foreign(&why), "a list of members could not be read again");
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
    let shown = again.members.len();
    let users = spread(&missing);
    let living = reader.living_users(instance, &users)?;
    let users = users.into_iter().map(|id| Witness {
        is_living: living.contains(&id),
        id,
    });
    let users: Vec<Witness> = users.collect();
    let n_others = missing.len() - users.len();
    let missing = Missing {
        users,
        n_others,
        shown,
    };
    Ok((stage, Some(missing)))
}

/// Some of the users among members, from the first to the last.
fn spread(members: &[Member]) -> Vec<ResourceId> {
    let users: Vec<ResourceId> = (members.iter())
        .filter(|one| one.kind == MemberKind::User)
        .map(|user| ResourceId::new(user.id.clone()))
        .filter(ResourceId::is_askable)
        .collect();
    let last = users.len().saturating_sub(1);
    let mut places: Vec<usize> = (0..USERS_ASKED)
        .map(|nth| nth * last / (USERS_ASKED - 1))
        .collect();
    places.dedup();
    places
        .into_iter()
        .filter_map(|place| users.get(place).cloned())
        .collect()
}
