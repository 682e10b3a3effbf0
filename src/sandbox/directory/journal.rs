//! What edits took away, newest last: for nodes that lag behind, and for roll-backs.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::group::Group;
use super::super::membership::Member;
use super::super::row::User;
use super::Tables;

/// Edits remembered: far more than any lag spans.
const ENTRIES: usize = 65_536;

/// The newest edits.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal(VecDeque<(Timestamp, Before)>);

/// What there was before one edit.
#[derive(Clone, Debug)]
pub(super) enum Before {
    /// The user with this key, or nobody.
    User(Box<str>, Option<Arc<User>>),
    /// The group with this key, or none.
    Group(Box<str>, Option<Arc<Group>>),
    /// The group with this key had the first as members, and not the second.
    Members(Box<str>, Vec<Member>, Vec<Member>),
}

impl Before {
    /// Undoes the edit.
    pub(super) fn restore(&self, tables: &mut Tables) {
        match self {
            Self::User(_, Some(user)) => {
                tables.users.put(Arc::clone(user));
            }
            Self::User(id, None) => {
                tables.users.remove(id);
            }
            Self::Group(_, Some(group)) => {
                tables.groups.put(Arc::clone(group));
            }
            Self::Group(id, None) => {
                tables.groups.remove(id);
            }
            Self::Members(group, gone, new) => tables.memberships.change(group, new, gone),
        }
    }
}

impl Journal {
    /// Notes an edit.
    pub(super) fn note(&mut self, at: Timestamp, before: Before) {
        if self.0.len() == ENTRIES {
            self.0.pop_front();
        }
        self.0.push_back((at, before));
    }

    /// The edits after a moment, newest first.
    pub(super) fn since(&self, moment: Timestamp) -> impl Iterator<Item = &Before> {
        let newest_first = self.0.iter().rev();
        newest_first
            .take_while(move |(at, _)| *at > moment)
            .map(|(_, before)| before)
    }

    /// Takes the newest edit out, if it was after a moment.
    pub(super) fn pop_since(&mut self, moment: Timestamp) -> Option<Before> {
        let newest = self.0.pop_back_if(|(at, _)| *at > moment);
        newest.map(|(_, before)| before)
    }
}
