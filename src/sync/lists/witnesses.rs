//! What users say of the groups that they are in: the witnesses of a list that lost members.

use std::future::Future;

use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use crate::mirror::Reader;
use crate::mirror::stage::Stage;
use crate::model::{InstanceName, Member, MemberKind, ResourceId};
use crate::reconcile::members;
use crate::scim;
use crate::scim::absence::Silence;
use crate::scim::client::Asked;
use crate::sync::Error;
use crate::sync::read::{Reading, with};

/// Of those who are missing from one list, so many are asked whether they say to be in the group.
const USERS_ASKED: usize = 3;

/// Users who are in a group that has not changed, and may be asked to see whether users are shown with their groups.
const WITNESSES: usize = 3;

/// What those who are missing from a list say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sync) enum Word {
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

/// What asking users has told of the instance so far.
#[derive(Default)]
pub(in crate::sync) struct Witnesses {
    /// Groups may be answered for while users are not.
    silence: Silence,
    /// Whether users are shown with their groups, once it was asked.
    shows_groups: Option<bool>,
}

impl Witnesses {
    /// What those who are missing from the list say of it. Nobody is spared because others said nothing: whoever left his only
    /// group shows none either.
    pub(in crate::sync) async fn word_of(
        &mut self,
        reading: &Reading,
        group: &ResourceId,
        missing: &Missing,
    ) -> Result<Word, Error> {
        if self.silence.is_long() && !missing.users.is_empty() {
            return Ok(Word::Unheard);
        }
        let asked = missing.users.iter().map(|user| {
            let (session, id) = (reading.session.clone(), user.id.clone());
            let asking = async move { session.get_with_groups(&id).await };
            (user, beside(asking))
        });
        let asked: Vec<_> = asked.collect();
        let (mut is_against, mut spoke, mut is_silent) = (false, false, false);
        let (mut is_unheard, mut is_out_of_sight) = (false, false);
        // All are heard: what one says counts whoever else was asked, and a request that is under way may be renewing a token.
        for (user, answer) in asked {
            match self.said(answer.await?)? {
                Said::Groups(groups) if groups.iter().any(|one| one == group.as_str()) => {
                    is_against = true;
                }
                Said::Groups(_) => spoke = true,
                Said::Nothing => is_silent = true,
                Said::NotThere if user.is_living => is_out_of_sight = true,
                // Who is gone is in no group, and says nothing of the others.
                Said::NotThere => {}
                Said::Unclear => is_unheard = true,
            }
        }
        Ok(if is_against {
            Word::Against
        } else if is_out_of_sight {
            Word::Unheard
        } else if spoke {
            Word::Nothing
        } else if is_silent {
            Word::Silent
        } else if is_unheard {
            Word::Unheard
        } else if missing.n_others > 0 {
            Word::Silent
        } else {
            Word::Nothing
        })
    }

    /// What a user says who was asked for.
    fn said(&mut self, answer: Answer) -> Result<Said, Error> {
        self.silence.note(answer.is_ok());
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
    pub(super) async fn shows_groups(
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
            let answer = reading.session.get_with_groups(&user).await;
            known |= match self.said(answer)? {
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

pub(super) type Answer = Result<Asked, scim::error::Error>;

/// Asks while others are asked. Nothing more is asked once nobody waits for the answer.
pub(super) fn beside(
    asking: impl Future<Output = Answer> + Send + 'static,
) -> AbortOnDropHandle<Answer> {
    AbortOnDropHandle::new(tokio::spawn(asking.in_current_span()))
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
pub(in crate::sync) struct Missing {
    /// Some of them, who are asked.
    users: Vec<Witness>,
    /// How many are missing who are not.
    n_others: usize,
    /// How many the list shows.
    pub(super) shown: usize,
}

impl Missing {
    pub(in crate::sync) fn of(
        reader: &Reader,
        instance: &InstanceName,
        missing: &[Member],
        shown: usize,
    ) -> Result<Self, crate::mirror::Error> {
        let users = spread(missing);
        let living = reader.living_users(instance, &users)?;
        let users = users.into_iter().map(|id| Witness {
            is_living: living.contains(&id),
            id,
        });
        let users: Vec<Witness> = users.collect();
        Ok(Self {
            n_others: missing.len() - users.len(),
            users,
            shown,
        })
    }
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
