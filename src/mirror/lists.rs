//! Lists of members on their way into the mirror: who came, who is missing, and what may be made of it.
//!
//! Of one group's list at a time all is in memory, and of no other.

mod crawled;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::error::Error;
use super::gate::{Gate, Kept, Treatment};
use super::packed::Packed;
use super::staged::StagedRow;
use crate::model::time::our_text;
use crate::model::{
    ChangeRecord, InstanceName, Kind, Member, MemberKind, MembersKnown, Reason, ResourceId,
    ResourceType, State, membership,
};
use crate::reconcile::guard::Concern;
use crate::reconcile::members::{self, Comparison};

pub use self::crawled::Lost;
pub use super::staged::ListState;

/// A living membership of the mirror: what an index has of it.
#[derive(Clone, Debug)]
pub(super) struct Living {
    rowid: i64,
    id: String,
}

impl Living {
    /// The member, with what only the row has. Most of those who are missing are counted, and no more.
    fn member(&self, mirror: &Connection) -> Result<Member, Error> {
        let mut row = mirror.prepare_cached(
            "SELECT member_id, member_type, label FROM memberships WHERE rowid = ?1",
        )?;
        Ok(row.query_row([self.rowid], |row| {
            Ok(Member {
                id: row.get(0)?,
                kind: kind(row, 1)?,
                label: row.get(2)?,
            })
        })?)
    }
}

/// What a list is beside the mirror's.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) came: Vec<Member>,
    pub(super) missing: Vec<Living>,
    list: Packed,
    state: ListState,
    /// The group is gone, and everybody with it.
    is_gone: bool,
}

impl Change {
    /// Whether anybody came or is missing.
    pub(super) fn is_any(&self) -> bool {
        !self.came.is_empty() || !self.missing.is_empty()
    }

    /// How many are missing who are not held.
    pub(super) fn n_missing_but(
        &self,
        held: &BTreeMap<ResourceId, i64>,
        group: &ResourceId,
    ) -> usize {
        let id = |one: &Living| membership::id(group.as_str(), &one.id);
        match held.is_empty() {
            true => self.missing.len(),
            false => {
                let missing = self.missing.iter();
                missing.filter(|one| !held.contains_key(&id(one))).count()
            }
        }
    }

    /// Whether who is missing may end by it, or be held.
    pub(super) fn may_end(&self) -> bool {
        match self.state {
            ListState::Read
            | ListState::Confirmed
            | ListState::Unasked
            | ListState::Unwitnessed => self.list.unreadable.is_none(),
            ListState::Cut | ListState::Unknown => false,
        }
    }
}

/// Why an empty list waits for a person, in words.
const EMPTY_WITHOUT_A_WITNESS: &str = "the list shows nobody any more, and no user says which groups the user is in: it may be empty by error";

/// What is missing and new in the list of a staged group, which it takes; `None` of what has none.
pub(super) fn change(
    mirror: &Connection,
    instance: &InstanceName,
    staged: &mut StagedRow,
) -> Result<Option<Change>, Error> {
    let Some(list) = staged.members.take() else {
        return Ok(None);
    };
    let mut missing = Vec::new();
    let mut comparison = Comparison::of(list.members());
    let mut living = mirror.prepare_cached(LIVING)?;
    let mut rows = living.query([instance.as_str(), staged.id.as_str()])?;
    while let Some(row) = rows.next()? {
        let id = row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?;
        if !comparison.has(id) {
            missing.push(living_row(row)?);
        }
    }
    Ok(Some(Change {
        came: comparison.came(),
        missing,
        state: staged.list,
        is_gone: false,
        list,
    }))
}

/// Who is in a group, and no more of them: of a list nearly everybody is in the mirror as well.
const LIVING: &str = "
    SELECT member_id, rowid FROM memberships
    WHERE instance = ?1 AND group_id = ?2 AND ended_at IS NULL ORDER BY member_id";

/// Everybody of a group that is gone.
pub(super) fn all_of(
    mirror: &Connection,
    instance: &InstanceName,
    group: &ResourceId,
) -> Result<Change, Error> {
    let mut living = mirror.prepare_cached(LIVING)?;
    let living = living.query_map([instance.as_str(), group.as_str()], living_row)?;
    Ok(Change {
        came: Vec::new(),
        missing: living.collect::<Result<_, _>>()?,
        list: Packed::default(),
        state: ListState::Confirmed,
        is_gone: true,
    })
}

fn living_row(row: &Row<'_>) -> rusqlite::Result<Living> {
    Ok(Living {
        id: row.get(0)?,
        rowid: row.get(1)?,
    })
}

pub(super) fn kind(row: &Row<'_>, place: usize) -> rusqlite::Result<MemberKind> {
    match &*row.get::<_, String>(place)? {
        "User" => Ok(MemberKind::User),
        "Group" => Ok(MemberKind::Group),
        _ => Err(rusqlite::Error::InvalidColumnType(
            place,
            "member_type".to_owned(),
            Type::Text,
        )),
    }
}

/// A membership that begins or ends. Its record is made when it is written: of a long list all wait for that at once.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) member: Member,
    pub(super) kind: Kind,
    reason: Reason,
    /// Its row, where there is one.
    pub(super) rowid: Option<i64>,
    /// The hold that it is released from.
    pub(super) hold_id: Option<i64>,
}

impl Entry {
    fn end(member: Member, rowid: i64, is_gone: bool) -> Self {
        Self {
            member,
            kind: Kind::Deactivate,
            reason: match is_gone {
                true => Reason::Gone,
                false => Reason::Removed,
            },
            rowid: Some(rowid),
            hold_id: None,
        }
    }

    /// By a person's word that this is another directory.
    fn taken_over(&mut self, hold_id: i64) {
        self.reason = Reason::SourceChanged;
        self.hold_id = Some(hold_id);
    }

    /// Its record.
    pub(super) fn record(&self, group: &ResourceId, observed_at: Timestamp) -> ChangeRecord {
        let ends = self.kind == Kind::Deactivate;
        ChangeRecord {
            resource: ResourceType::Membership,
            id: membership::id(group.as_str(), &self.member.id),
            kind: self.kind,
            reason: self.reason,
            changed: ends.then(|| members::ended(&our_text(observed_at))),
            after: State {
                canonical: members::canonical(group.as_str(), &self.member, !ends),
                created_at: None,
                modified_at: None,
                gone_at: ends.then_some(observed_at),
            },
            proof: None,
        }
    }
}

/// What is made of a list.
#[derive(Default)]
pub(super) struct Decided {
    /// What is written, in this order.
    pub(super) entries: Vec<Entry>,
    /// What goes into a new hold.
    pub(super) kept: Vec<Kept>,
    /// Who leaves which hold, as released (`true`) or because it stands no more.
    pub(super) left: Vec<(i64, ResourceId, bool)>,
    /// How far the members are known by it; `None`: as before.
    pub(super) known: Option<MembersKnown>,
    /// Whether nothing of it waits.
    pub(super) is_settled: bool,
}

/// When a list is applied, and by what.
pub(super) struct Applying<'a> {
    pub(super) mirror: &'a Connection,
    pub(super) instance: &'a InstanceName,
    pub(super) has_baseline: bool,
    pub(super) observed_at: Timestamp,
}

impl Applying<'_> {
    /// Decides about everybody who came or is missing.
    pub(super) fn decide(
        &self,
        gate: &mut Gate<'_>,
        group: &ResourceId,
        change: Change,
    ) -> Result<Decided, Error> {
        let (taken_over, approved) = match gate.treatment() {
            Treatment::Guarded(_) => (None, None),
            Treatment::TakenOver(hold_id) => (Some(*hold_id), None),
            Treatment::Approved(hold_id) => (None, Some(*hold_id)),
            // Nothing is written, and what is held has its groups in it: the lists follow them.
            Treatment::HeldWhole(_) | Treatment::Left => return Ok(Decided::default()),
        };
        let open = gate.open_of_group(group)?;
        let mut decided = Decided {
            is_settled: true,
            known: Self::known(&change),
            ..Decided::default()
        };
        let may_end = change.may_end();
        let mut stays = false;
        if change.is_gone || may_end {
            decided.left = standing_no_more(&open, &change);
        }
        let Change {
            came,
            missing,
            state,
            is_gone,
            ..
        } = change;
        let is_confirmed = state == ListState::Confirmed && may_end;
        for living in missing {
            let id = membership::id(group.as_str(), &living.id);
            let end = || -> Result<Entry, Error> {
                let member = living.member(self.mirror)?;
                Ok(Entry::end(member, living.rowid, is_gone))
            };
            if is_gone || taken_over.is_some() && is_confirmed {
                let mut end = end()?;
                if let Some(hold_id) = taken_over {
                    end.taken_over(hold_id);
                }
                decided.entries.push(end);
                continue;
            }
            let held = open.get(&id).copied();
            if approved.is_some() && held == approved && is_confirmed {
                decided.entries.push(Entry {
                    hold_id: approved,
                    ..end()?
                });
                decided
                    .left
                    .extend(approved.map(|hold_id| (hold_id, id, true)));
                continue;
            }
            // Kept by a hold, by a list that is not believed, or because a person said nothing of it. Another directory is no
            // reason to believe a list that nobody has confirmed.
            if held.is_some() || approved.is_some() || taken_over.is_some() || !may_end {
                stays = true;
                decided.is_settled = false;
                continue;
            }
            let refused = match state {
                ListState::Unwitnessed => Some((
                    Concern::GroupMembership(group.as_str().to_owned()),
                    EMPTY_WITHOUT_A_WITNESS.to_owned(),
                )),
                _ => gate.refuse_member(group)?,
            };
            match (refused, state) {
                (None, ListState::Confirmed) => decided.entries.push(end()?),
                (
                    Some((concern, limit_text)),
                    ListState::Confirmed | ListState::Unasked | ListState::Unwitnessed,
                ) => {
                    let (guard, attribute) = concern.guard();
                    decided.kept.push(Kept {
                        guard,
                        attribute: attribute.map(str::to_owned),
                        path: concern.path(true).to_owned(),
                        limit_text,
                        record: end()?.record(group, self.observed_at),
                    });
                    decided.is_settled = false;
                }
                // Nobody has asked again: the next sync does.
                _ => decided.is_settled = false,
            }
        }
        let has_past = !came.is_empty() && self.has_past(group)?;
        for member in came {
            let mut begin = self.begin(group, member, has_past)?;
            if let Some(hold_id) = taken_over {
                begin.taken_over(hold_id);
            }
            decided.entries.push(begin);
        }
        if !may_end && !is_gone {
            decided.is_settled = false;
        }
        if approved.is_some() && stays && decided.known == Some(MembersKnown::All) {
            // Of those who are missing still nobody has said anything.
            decided.known = None;
        }
        Ok(decided)
    }

    fn known(change: &Change) -> Option<MembersKnown> {
        match change.state {
            _ if change.is_gone => Some(MembersKnown::All),
            ListState::Cut => Some(MembersKnown::Cut),
            ListState::Unknown => Some(MembersKnown::Unknown),
            _ if change.list.unreadable.is_some() => Some(MembersKnown::Unknown),
            // Who is missing is held, or was not missing when it was read.
            ListState::Read if !change.missing.is_empty() => None,
            // Nobody has said that it is whole.
            ListState::Unasked | ListState::Unwitnessed if !change.missing.is_empty() => {
                Some(MembersKnown::Unknown)
            }
            _ => Some(MembersKnown::All),
        }
    }

    /// Whether anybody is in a group or ever was: where nobody was, nobody needs to be looked up.
    fn has_past(&self, group: &ResourceId) -> Result<bool, Error> {
        Ok(self
            .mirror
            .prepare_cached("SELECT 1 FROM memberships WHERE instance = ?1 AND group_id = ?2")?
            .exists([self.instance.as_str(), group.as_str()])?)
    }

    fn begin(&self, group: &ResourceId, member: Member, has_past: bool) -> Result<Entry, Error> {
        let mut row = self.mirror.prepare_cached(
            "SELECT rowid FROM memberships WHERE instance = ?1 AND group_id = ?2 AND member_id = ?3",
        )?;
        let key = [self.instance.as_str(), group.as_str(), &*member.id];
        let rowid: Option<i64> = match has_past {
            true => row.query_row(key, |row| row.get(0)).optional()?,
            false => None,
        };
        let reason = match (rowid, self.has_baseline) {
            (Some(_), _) => Reason::Returned,
            (None, true) => Reason::New,
            (None, false) => Reason::Baseline,
        };
        Ok(Entry {
            member,
            kind: Kind::Create,
            reason,
            rowid,
            hold_id: None,
        })
    }
}

/// Who is held and is in the list again, or ended with the group.
fn standing_no_more(
    open: &BTreeMap<ResourceId, i64>,
    change: &Change,
) -> Vec<(i64, ResourceId, bool)> {
    if open.is_empty() {
        return Vec::new();
    }
    let listed: BTreeSet<&str> = change.list.members().map(|member| member.id).collect();
    let is_listed = |id: &ResourceId| {
        let member = membership::parts(id.as_str()).map(|[_, member]| member);
        member.is_some_and(|member| listed.contains(&*member))
    };
    open.iter()
        .filter(|(id, _)| change.is_gone || is_listed(id))
        .map(|(id, hold_id)| (*hold_id, id.clone(), false))
        .collect()
}

impl Gate<'_> {
    /// Why one more member of this group must be held, and by which concern; `None` if the membership may end.
    fn refuse_member(&mut self, group: &ResourceId) -> Result<Option<(Concern, String)>, Error> {
        // One hold for all groups where that is how many there are.
        for concern in [
            Concern::Membership,
            Concern::GroupMembership(group.as_str().to_owned()),
        ] {
            if let Some(limit_text) = self.refuse(&concern)? {
                return Ok(Some((concern, limit_text)));
            }
        }
        self.let_through(&Concern::Membership);
        self.let_through(&Concern::GroupMembership(group.as_str().to_owned()));
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
