//! What the guards make of what is due: the step between the plan and the writing, shared by a dry run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::Connection;

use super::due::{self, Due, Lookup};
use super::error::Error;
use super::holds::OpenHolds;
use super::planned::{Counts, Planned};
use crate::model::{
    ChangeEvent, ChangeRecord, InstanceName, Reason, ResourceId, ResourceType, State,
};
use crate::reconcile::guard::{self, Concern, Limits};
use crate::reconcile::{diff, keep};

/// What guards a source.
#[derive(Clone, Debug)]
pub struct Watch {
    /// The instance.
    pub instance: InstanceName,
    /// The resource type.
    pub resource: ResourceType,
    /// When the source got its baseline: before, creates and updates have the reason `baseline`.
    pub baseline_at: Option<Timestamp>,
    /// What its guards let through.
    pub limits: Limits,
    /// By our clock; `observed_at` never goes back all the same.
    pub now: Timestamp,
}

/// What becomes of what a sync found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// The guards decide, by how much there is of each concern.
    Guarded(Planned),
    /// It looks like another directory: all of it is one hold, for the reason given in words.
    HeldWhole(String),
    /// It still looks like another directory, or nobody knows whether: nothing is written.
    Left,
    /// A person approved this hold of the guard `source_changed`: all of it is applied.
    TakenOver(i64),
    /// These are answers about the users of a hold that a person approved.
    Approved(i64),
}

/// Why an absent user is held although the guard would let him go.
pub(super) const SIGHT_MAY_BE_LOST: &str =
    "no living user of the same company, department or location was seen: sight may be lost";

/// The path of everything.
const ALL: &str = "all";

/// A change that is kept back, on its way into a new hold.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) guard: &'static str,
    /// The attribute of a blanking.
    pub(super) attribute: Option<String>,
    pub(super) path: String,
    pub(super) limit_text: String,
    pub(super) record: ChangeRecord,
}

/// What is due once the guards have seen it.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) due: Due,
    /// The hold that a record was released from.
    pub(super) hold_id: Option<i64>,
    /// What goes into a new hold.
    pub(super) kept: Vec<Kept>,
    /// The holds that this user leaves, because what was read asks for the change no more.
    pub(super) resolved: Vec<i64>,
}

impl From<Due> for Passed {
    fn from(due: Due) -> Self {
        Self {
            due,
            hold_id: None,
            kept: Vec::new(),
            resolved: Vec::new(),
        }
    }
}

/// Decides for each resource of one transaction, or of a dry run.
pub(super) struct Gate<'a> {
    watch: &'a Watch,
    treatment: &'a Treatment,
    holds: OpenHolds<'a>,
    counts: Counts<'a>,
}

impl<'a> Gate<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        watch: &'a Watch,
        treatment: &'a Treatment,
        sync_id: i64,
    ) -> Result<Self, Error> {
        let planned = match treatment {
            Treatment::Guarded(planned) => planned.clone(),
            _ => Planned::default(),
        };
        Ok(Self {
            watch,
            treatment,
            holds: OpenHolds::of(conn, watch)?,
            counts: Counts::new(conn, watch, planned, sync_id),
        })
    }

    /// What becomes of what was found.
    pub(super) fn treatment(&self) -> &'a Treatment {
        self.treatment
    }

    /// The memberships of a group that an open hold keeps, and which.
    pub(super) fn open_of_group(
        &self,
        group: &ResourceId,
    ) -> Result<BTreeMap<ResourceId, i64>, Error> {
        self.holds.of_group(group)
    }

    /// Why one more of this concern must be held, in words; `None` if it may go through.
    pub(super) fn refuse(&mut self, concern: &Concern) -> Result<Option<String>, Error> {
        self.counts.refuse(concern)
    }

    /// One of this concern goes through.
    pub(super) fn let_through(&mut self, concern: &Concern) {
        self.counts.let_through(concern);
    }

    /// What may be written of what is due, and what is kept back.
    pub(super) fn pass(
        &mut self,
        lookup: &mut Lookup<'_>,
        id: &ResourceId,
        due: Due,
    ) -> Result<Passed, Error> {
        match self.treatment {
            Treatment::Guarded(_) => self.guard(lookup, id, due, None),
            Treatment::Approved(hold_id) => self.guard(lookup, id, due, Some(*hold_id)),
            Treatment::TakenOver(hold_id) => Ok(taken_over(due, *hold_id)),
            Treatment::HeldWhole(why) => self.held_whole(lookup, id, due, why),
            Treatment::Left => Ok(Due::Void.into()),
        }
    }

    fn guard(
        &mut self,
        lookup: &mut Lookup<'_>,
        id: &ResourceId,
        due: Due,
        approved: Option<i64>,
    ) -> Result<Passed, Error> {
        if !matches!(due, Due::Nothing(_) | Due::Record(..) | Due::Unproved(_)) {
            return Ok(due.into());
        }
        let open = self.holds.of_user(id)?;
        let concerns = concerns_of(&due);
        let mut released = None;
        let mut passed = Passed::from(due);
        let is_unproved = matches!(passed.due, Due::Unproved(_));
        let is_gone = passed
            .due
            .record()
            .is_some_and(|record| record.reason == Reason::Gone);
        let mut paths = Vec::new();
        for concern in &concerns {
            let held = open.iter().find(|(_, held)| held == concern);
            if let (Some((hold_id, _)), false) = (held, is_unproved)
                && Some(*hold_id) == approved
            {
                passed.hold_id = approved;
                released = Some(concern);
                continue;
            }
            let refused = match (held, approved) {
                // A person said nothing of it: the next sync reads it again.
                (Some(_), _) | (None, Some(_)) => None,
                (None, None) => match self.counts.refuse(concern)? {
                    None if is_unproved => Some(SIGHT_MAY_BE_LOST.to_owned()),
                    None => {
                        self.counts.let_through(concern);
                        continue;
                    }
                    refused => refused,
                },
            };
            let path = concern.path(is_gone);
            if let (Some(limit_text), Some(record)) = (refused, passed.due.record()) {
                passed.kept.push(Kept {
                    guard: concern.guard().0,
                    attribute: concern.guard().1.map(str::to_owned),
                    path: path.to_owned(),
                    limit_text,
                    record: record.clone(),
                });
            }
            paths.push(path);
        }
        if !paths.is_empty() {
            let mut rest = self.without(lookup, id, &passed.due, &paths)?;
            let is_told = |concern| {
                rest.record()
                    .is_some_and(|rest| guard::tells(rest, concern))
            };
            if let Some(concern) = released.filter(|concern| !is_told(concern)) {
                // Another hold keeps the whole list that it is part of: it stays with that.
                passed.hold_id = None;
                paths.push(concern.path(is_gone));
                rest = self.without(lookup, id, &passed.due, &paths)?;
            }
            passed.due = rest;
        } else if is_unproved
            // A person's word about another change is no part of the proof: a full sync has to find it.
            || approved.is_some() && passed.hold_id.is_none() && is_gone
        {
            passed.due = Due::Void;
        }
        // Who is not shown, and is not gone either, may come back as he was: he stays in all holds but the one that a person
        // approved.
        let is_settled = !is_gone || matches!(passed.due, Due::Record(..));
        let left = open.iter().filter(|(hold_id, held)| {
            !concerns.contains(held) && (is_settled || Some(*hold_id) == approved)
        });
        passed.resolved = left.map(|(hold_id, _)| *hold_id).collect();
        Ok(passed)
    }

    /// All of it is held, unless an open hold has all of it already.
    fn held_whole(
        &self,
        lookup: &mut Lookup<'_>,
        id: &ResourceId,
        due: Due,
        why: &str,
    ) -> Result<Passed, Error> {
        let (Due::Record(one, _) | Due::Unproved(one)) = &due else {
            return Ok(match due {
                // Not even a new fingerprint: it is looked at again.
                Due::Nothing(_) => Due::Void,
                due => due,
            }
            .into());
        };
        let is_gone = one.0.reason == Reason::Gone;
        let (open, concerns) = (self.holds.of_user(id)?, concerns_of(&due));
        let paths: Vec<&str> = open
            .iter()
            .filter(|(_, held)| concerns.contains(held))
            .map(|(_, held)| held.path(is_gone))
            .collect();
        if !paths.is_empty() && matches!(self.without(lookup, id, &due, &paths)?, Due::Kept) {
            return Ok(Due::Kept.into());
        }
        let kept = Kept {
            guard: "source_changed",
            attribute: None,
            path: ALL.to_owned(),
            limit_text: why.to_owned(),
            record: one.0.clone(),
        };
        Ok(Passed {
            kept: vec![kept],
            ..Due::Kept.into()
        })
    }

    /// What is due without the paths that are held.
    fn without(
        &self,
        lookup: &mut Lookup<'_>,
        id: &ResourceId,
        due: &Due,
        paths: &[&str],
    ) -> Result<Due, Error> {
        let Due::Record(due, _) = due else {
            return Ok(Due::Kept);
        };
        let record = &due.0;
        if paths.contains(&ALL) {
            return Ok(Due::Kept);
        }
        let Some((_, before)) = lookup.row(id)? else {
            return Ok(Due::Kept);
        };
        let resource = self.watch.resource;
        let canonical = keep::keep(resource, &before.canonical, &record.after.canonical, paths);
        let event = ChangeEvent {
            resource,
            id: record.id.clone(),
            before: Some(before),
            after: State {
                canonical,
                ..record.after.clone()
            },
            proof: None,
        };
        Ok(
            match diff::record(event, self.watch.baseline_at.is_some()) {
                // A fingerprint is stored only of what was applied in full.
                Some(record) => due::mapped(record, None),
                None => Due::Kept,
            },
        )
    }
}

/// A person said that this is another directory: the records say so.
fn taken_over(due: Due, hold_id: i64) -> Passed {
    let due = match due {
        Due::Record(mut due, fingerprint) => {
            due.0.reason = Reason::SourceChanged;
            Due::Record(due, fingerprint)
        }
        // Not proved, so not gone: the next full sync asks again.
        Due::Unproved(_) => Due::Void,
        due => due,
    };
    Passed {
        hold_id: matches!(due, Due::Record(..)).then_some(hold_id),
        ..due.into()
    }
}

/// What a guard counts of what is due.
fn concerns_of(due: &Due) -> Vec<Concern> {
    due.record().map_or_else(Vec::new, |record| {
        guard::concerns(record.resource, record.kind, record.changed.as_deref())
    })
}

#[cfg(test)]
mod tests;
