//! What was true at an instance, and when: every state of every user, group and membership, and what was
//! wrong with the answers. The laws hold the feed against it.

mod groups;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use musterd::sandbox::{Effect, Sandbox, User};

use super::mishaps::Reach;
use groups::OfGroups;

/// The history of one instance.
#[derive(Default)]
pub(super) struct Truth {
    now: Vec<Arc<User>>,
    states: BTreeMap<Box<str>, Vec<State>>,
    pub(super) groups: OfGroups,
    wrongs: Vec<Wrong>,
}

/// How a user was from a time on; `None` while there was no such user.
struct State {
    from: Timestamp,
    user: Option<Arc<User>>,
}

/// An effect that was in force.
struct Wrong {
    effect: Effect,
    reach: Reach,
    number: usize,
    from: Timestamp,
    to: Option<Timestamp>,
}

/// From when until when, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Truth {
    /// Notes how the directory is now.
    pub(super) fn observe(&mut self, at: Timestamp, sandbox: &Sandbox) {
        sandbox.with_directory(|directory| self.groups.observe(at, directory));
        let users = sandbox.with_directory(|directory| {
            let users = directory.users();
            let same = users.len() == self.now.len()
                && users.iter().zip(&self.now).all(|(a, b)| Arc::ptr_eq(a, b));
            (!same).then(|| users.to_vec())
        });
        let Some(users) = users else {
            return;
        };
        let mut gone: BTreeMap<&str, ()> =
            self.now.iter().map(|user| (&*user.sys_id, ())).collect();
        let mut news = Vec::new();
        for user in &users {
            gone.remove(&*user.sys_id);
            let known = self
                .states
                .get(&user.sys_id)
                .and_then(|states| states.last());
            let same = known
                .and_then(|state| state.user.as_ref())
                .is_some_and(|known| known == user);
            if !same {
                news.push((user.sys_id.clone(), Some(Arc::clone(user))));
            }
        }
        news.extend(gone.into_keys().map(|id| (id.into(), None)));
        for (id, user) in news {
            let states = self.states.entry(id).or_default();
            states.push(State { from: at, user });
        }
        self.now = users;
    }

    /// An effect is in force from now on.
    pub(super) fn begin(&mut self, at: Timestamp, number: usize, effect: Effect, reach: Reach) {
        self.wrongs.push(Wrong {
            effect,
            reach,
            number,
            from: at,
            to: None,
        });
    }

    /// It is not any more.
    pub(super) fn end(&mut self, at: Timestamp, number: usize) {
        for wrong in self
            .wrongs
            .iter_mut()
            .filter(|wrong| wrong.number == number)
        {
            wrong.to.get_or_insert(at);
        }
    }

    /// Whether anything is wrong now.
    pub(super) fn is_troubled(&self) -> bool {
        self.wrongs.iter().any(|wrong| wrong.to.is_none())
    }

    /// Whether an effect like this was in force at some time of the span.
    pub(super) fn any_wrong(&self, span: Span, like: impl Fn(&Effect) -> bool) -> bool {
        self.within(span).any(like)
    }

    /// Whether such lists of a group are no fault that can be told from the truth: it is there in lists of groups and in the group
    /// alone, be it by two faults.
    pub(super) fn lies_alike(&self, span: Span, like: impl Fn(&Effect) -> bool) -> bool {
        let reaches = |reach: Reach| {
            let wrongs = self.wrongs_within(span).filter(|wrong| like(&wrong.effect));
            let mut reaches = wrongs.map(|wrong| wrong.reach);
            reaches.any(|one| one == reach || one == Reach::Both)
        };
        reaches(Reach::Lists) && reaches(Reach::Singles)
    }

    fn within(&self, span: Span) -> impl Iterator<Item = &Effect> {
        self.wrongs_within(span).map(|wrong| &wrong.effect)
    }

    fn wrongs_within(&self, span: Span) -> impl Iterator<Item = &Wrong> {
        let wrongs = self.wrongs.iter();
        wrongs
            .filter(move |wrong| wrong.from <= span.to && wrong.to.is_none_or(|to| to >= span.from))
    }

    /// The span, and as long before as a node lagged at some time of it.
    pub(super) fn with_lag(&self, span: Span) -> Span {
        let lag = self.within(span).map(|effect| match effect {
            Effect::NodeBehind { seconds } => *seconds,
            _ => 0,
        });
        let lag = SignedDuration::from_secs(lag.max().unwrap_or_default().cast_signed());
        Span {
            from: span.from - lag,
            ..span
        }
    }

    /// Whether a user was like this at some time of the span; `None` stands for no such user.
    pub(super) fn was(&self, id: &str, span: Span, like: impl Fn(Option<&User>) -> bool) -> bool {
        let first = self.states.get(id).and_then(|states| states.first());
        let came_later = first.is_none_or(|first| first.from > span.from);
        (came_later && like(None)) || self.states(id, span).any(|(_, user)| like(user))
    }

    /// The states of a user in the span, each with its time.
    pub(super) fn states(
        &self,
        id: &str,
        span: Span,
    ) -> impl Iterator<Item = (Timestamp, Option<&User>)> {
        let states = self.states.get(id).map_or(&[][..], Vec::as_slice);
        let during = states.iter().enumerate().filter(move |(place, state)| {
            let until = states.get(place + 1).map(|next| next.from);
            state.from <= span.to && until.is_none_or(|until| until >= span.from)
        });
        during.map(|(_, state)| (state.from, state.user.as_deref()))
    }

    /// Those who exist and were last changed before a time, with when that was.
    pub(super) fn newest(&self, before: Timestamp) -> impl Iterator<Item = (Timestamp, &User)> {
        let states = self.states.values().filter_map(|states| states.last());
        states.filter_map(move |state| {
            let user = state.user.as_deref()?;
            (state.from < before).then_some((state.from, user))
        })
    }

    /// Those who existed all the time of the span, and did not change in it.
    pub(super) fn unedited(&self, span: Span) -> impl Iterator<Item = &Arc<User>> {
        self.now.iter().filter(move |user| {
            let states = self.states.get(&user.sys_id);
            let last = states.and_then(|states| states.last());
            last.is_some_and(|state| state.from < span.from)
        })
    }
}

/// Whether an effect hides users, also from who asks for one by id.
pub(super) fn hides(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::InactiveHidden
            | Effect::RowsHidden { .. }
            | Effect::RowsHiddenAfterCut { .. }
            | Effect::UsersHidden { .. }
    )
}

/// Whether an effect hides groups from who asks for one by id: of what it does to users too, or to groups alone.
pub(super) fn hides_groups(effect: &Effect) -> bool {
    hides(effect) || matches!(effect, Effect::GroupsUnreadable { .. })
}

/// Whether an effect shortens the list of this group.
pub(super) fn shortens(effect: &Effect, group: &str) -> bool {
    let names = |ids: &[String]| ids.is_empty() || ids.iter().any(|id| id == group);
    match effect {
        Effect::MembersCut { ids, .. } | Effect::MembersEmpty { ids } => names(ids),
        Effect::AttributeHidden { attribute } => attribute == "members",
        _ => false,
    }
}

/// Whether an effect shows users otherwise than they are.
pub(super) fn disguises(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::AttributeHidden { .. }
            | Effect::EmptyForms
            | Effect::PlainReferences
            | Effect::DisplayLabels
            | Effect::MemberMissing { .. }
            | Effect::MemberAdded { .. }
            | Effect::PoisonedRow { .. }
    )
}

/// The same of groups.
pub(super) fn disguises_groups(effect: &Effect) -> bool {
    disguises(effect) || matches!(effect, Effect::GroupsBlanked { .. })
}
