//! What was true of groups and of who is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use musterd::sandbox::{Directory, Group, Member};

use super::Span;

/// The history of the groups of one instance.
#[derive(Default)]
pub(in super::super) struct OfGroups {
    now: BTreeMap<Box<str>, Known>,
    groups: BTreeMap<Box<str>, Course<Arc<Group>>>,
    /// By group and member.
    members: BTreeMap<(Box<str>, Box<str>), Course<()>>,
}

/// A group as it was last seen.
struct Known {
    group: Arc<Group>,
    members: Vec<Member>,
}

/// How something was from each of these times on; `None` while it was not there, as before the first of them.
struct Course<T>(Vec<(Timestamp, Option<T>)>);

impl<T> Default for Course<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Course<T> {
    /// The states of the span, each with its time.
    fn within(&self, span: Span) -> impl Iterator<Item = (Timestamp, Option<&T>)> {
        let first = self.0.first().map_or(Timestamp::MAX, |(from, _)| *from);
        let before = (first > span.from).then_some((Timestamp::MIN, None));
        let states = self.0.iter().enumerate().filter(move |(place, (from, _))| {
            let until = self.0.get(place + 1).map(|(from, _)| *from);
            *from <= span.to && until.is_none_or(|until| until >= span.from)
        });
        before
            .into_iter()
            .chain(states.map(|(_, (from, state))| (*from, state.as_ref())))
    }

    fn is(&self) -> bool {
        self.0.last().is_some_and(|(_, state)| state.is_some())
    }
}

impl OfGroups {
    /// Notes how they are now.
    pub(super) fn observe(&mut self, at: Timestamp, directory: &Directory) {
        let groups = directory.groups();
        if groups.len() != self.now.len()
            || groups
                .iter()
                .any(|group| !self.now.contains_key(&group.sys_id))
        {
            let living: BTreeSet<&str> = groups.iter().map(|group| &*group.sys_id).collect();
            let gone = self.now.extract_if(.., |id, _| !living.contains(&**id));
            for (id, known) in gone.collect::<Vec<_>>() {
                self.note_members(at, &id, &known.members, &[]);
                self.groups.entry(id).or_default().0.push((at, None));
            }
        }
        for group in groups {
            let members = directory.members(&group.sys_id);
            let known = self.now.get(&group.sys_id);
            if known.is_none_or(|known| !Arc::ptr_eq(&known.group, group)) {
                let states = self.groups.entry(group.sys_id.clone()).or_default();
                states.0.push((at, Some(Arc::clone(group))));
            } else if known.is_some_and(|known| known.members == members) {
                continue;
            }
            let now = Known {
                group: Arc::clone(group),
                members: members.to_vec(),
            };
            let before = self.now.insert(group.sys_id.clone(), now);
            let before = before.map(|known| known.members).unwrap_or_default();
            self.note_members(at, &group.sys_id, &before, members);
        }
    }

    fn note_members(&mut self, at: Timestamp, group: &str, before: &[Member], now: &[Member]) {
        let ids = |members: &[Member]| -> BTreeSet<Box<str>> {
            members.iter().map(|member| member.id.clone()).collect()
        };
        let (before, now) = (ids(before), ids(now));
        for id in before.symmetric_difference(&now) {
            let states = self.members.entry((group.into(), id.clone())).or_default();
            states.0.push((at, now.contains(id).then_some(())));
        }
    }

    /// The states of a group in the span.
    pub(in super::super) fn states(
        &self,
        id: &str,
        span: Span,
    ) -> Vec<(Timestamp, Option<&Group>)> {
        let never = [(Timestamp::MIN, None)];
        match self.groups.get(id) {
            None => never.to_vec(),
            Some(course) => course
                .within(span)
                .map(|(from, group)| (from, group.map(|group| &**group)))
                .collect(),
        }
    }

    /// From when on in the span somebody was in a group, or was not.
    pub(in super::super) fn memberships(
        &self,
        group: &str,
        member: &str,
        span: Span,
    ) -> Vec<(Timestamp, bool)> {
        match self.members.get(&(group.into(), member.into())) {
            None => vec![(Timestamp::MIN, false)],
            Some(course) => course
                .within(span)
                .map(|(from, is)| (from, is.is_some()))
                .collect(),
        }
    }

    /// Those that existed all the time of the span.
    pub(in super::super) fn all_along(&self, span: Span) -> impl Iterator<Item = &str> {
        self.groups.iter().filter_map(move |(id, course)| {
            // Much may happen in the moment in which a crawl begins.
            let mut states = course.within(span).peekable();
            let was_there = states.peek().is_some_and(|(from, _)| *from < span.from);
            let lived = states.all(|(_, group)| group.is_some());
            (was_there && lived && course.is()).then_some(&**id)
        })
    }
}
