//! What is due for a staged resource beside the mirror's row as it is now: the step that applying, planning and doubting
//! share, so that a dry run shows exactly what would be written.

use std::ops::ControlFlow;

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use super::apply;
use super::column::time;
use super::error::Error;
use super::gate::Watch;
use super::read::Reader;
use super::stage::{Stage, Staged};
use super::staged::{StagedRow, Which};
use crate::model::{
    ChangeRecord, Fingerprint, Proof, ResourceId, ResourceType, State, UserColumns,
};
use crate::reconcile::mapping::{MappingError, user_columns};
use crate::reconcile::{diff, event};

/// The mirror's row of a resource, without its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) rowid: i64,
    pub(super) active: bool,
    pub(super) gone: bool,
    pub(super) changed_seq: i64,
    modified_at: Option<Timestamp>,
    fingerprint: Option<Fingerprint>,
}

/// What is due.
#[derive(Debug)]
pub(super) enum Due {
    /// No record: the mirror holds the same content. The fingerprint may be another one.
    Nothing(Fingerprint),
    /// A record, the columns that it gives the user, and the fingerprint of what was read.
    Record(Box<(ChangeRecord, UserColumns)>, Option<Fingerprint>),
    /// It must be asked for by itself first.
    Doubtful,
    /// The record of an absent user whose absence is not proved: it is held, or void.
    Unproved(Box<(ChangeRecord, UserColumns)>),
    /// All that would be written is held. What is held is looked at again, so it has no fingerprint.
    Kept,
    /// A proof of absence that stands no more: the user is gone already, or another sync touched it since.
    Void,
    /// It was decoded, but does not map.
    Unmappable(MappingError),
}

impl Due {
    /// The record that would be written, were there no guard.
    pub(super) fn record(&self) -> Option<&ChangeRecord> {
        match self {
            Self::Record(due, _) | Self::Unproved(due) => Some(&due.0),
            _ => None,
        }
    }
}

/// Looks into the mirror for the resources of one source.
pub(super) struct Lookup<'a> {
    statement: CachedStatement<'a>,
    instance: &'a str,
    resource: ResourceType,
    has_baseline: bool,
    /// The time of the records to be.
    observed_at: Timestamp,
    /// Whether stamps that went back are no reason to doubt: another directory has others.
    takes_over: bool,
}

const ROW: &str = "
    SELECT rowid, active, gone_at, changed_seq, attributes, created_at, modified_at,
           (SELECT fingerprint FROM fingerprints WHERE instance = ?1 AND resource = ?3 AND fingerprints.id = ?2)
    FROM users WHERE instance = ?1 AND id = ?2";

impl<'a> Lookup<'a> {
    pub(super) fn new(
        mirror: &'a Connection,
        watch: &'a Watch,
        observed_at: Timestamp,
        takes_over: bool,
    ) -> Result<Self, Error> {
        Ok(Self {
            statement: mirror.prepare_cached(ROW)?,
            instance: watch.instance.as_str(),
            resource: watch.resource,
            has_baseline: watch.baseline_at.is_some(),
            observed_at,
            takes_over,
        })
    }

    /// The mirror's row, and what is due for a staged resource beside it.
    pub(super) fn due(&mut self, staged: StagedRow) -> Result<(Option<Known>, Due), Error> {
        Ok(match self.row(&staged.id)? {
            Some((known, state)) => (Some(known), self.beside(known, state, staged)),
            None => (None, self.first(staged)),
        })
    }

    /// The mirror's row.
    pub(super) fn row(&mut self, id: &ResourceId) -> Result<Option<(Known, State)>, Error> {
        let row = self
            .statement
            .query_row(
                params![self.instance, id.as_str(), self.resource.as_str()],
                |row| {
                    let state = State {
                        canonical: row.get(4)?,
                        created_at: time(row, 5)?,
                        modified_at: time(row, 6)?,
                        gone_at: time(row, 2)?,
                    };
                    let known = Known {
                        rowid: row.get(0)?,
                        active: row.get(1)?,
                        gone: state.gone_at.is_some(),
                        changed_seq: row.get(3)?,
                        modified_at: state.modified_at,
                        fingerprint: row.get(7)?,
                    };
                    Ok((known, state))
                },
            )
            .optional()?;
        Ok(row)
    }

    /// The id was never seen before.
    fn first(&self, staged: StagedRow) -> Due {
        match staged.staged {
            Staged::Seen(arrived) => {
                let fingerprint = arrived.fingerprint;
                match diff::record(event::seen(None, arrived), self.has_baseline) {
                    Some(record) => mapped(record, Some(fingerprint)),
                    None => Due::Nothing(fingerprint),
                }
            }
            Staged::Gone(_) | Staged::Absent => Due::Void,
        }
    }

    fn beside(&self, known: Known, state: State, staged: StagedRow) -> Due {
        let doubtful = known.is_doubted_by(&staged, self.takes_over);
        match staged.staged {
            Staged::Seen(arrived) => {
                let fingerprint = arrived.fingerprint;
                match diff::record(event::seen(Some(state), arrived), self.has_baseline) {
                    Some(_) if doubtful => Due::Doubtful,
                    Some(record) => mapped(record, Some(fingerprint)),
                    None => Due::Nothing(fingerprint),
                }
            }
            Staged::Gone(_) | Staged::Absent if known.gone || doubtful => Due::Void,
            Staged::Gone(proof) => self.gone(staged.id, state, Some(proof)),
            Staged::Absent => match self.gone(staged.id, state, None) {
                Due::Record(due, _) => Due::Unproved(due),
                due => due,
            },
        }
    }

    fn gone(&self, id: ResourceId, state: State, proof: Option<Proof>) -> Due {
        let event = event::gone(self.resource, id, state, proof, self.observed_at);
        match diff::record(event, self.has_baseline) {
            Some(record) => mapped(record, None),
            None => Due::Void,
        }
    }
}

impl Known {
    /// Whether what was read may be older than what the mirror has: the row was changed after the request was sent (promise
    /// P6), or another sync read it since and found nothing to change, which leaves another fingerprint; or the stamp went
    /// back, as behind a lagging node.
    fn is_doubted_by(self, staged: &StagedRow, takes_over: bool) -> bool {
        let went_back = match &staged.staged {
            Staged::Seen(arrived) if !staged.asked && !takes_over => arrived
                .modified_at
                .zip(self.modified_at)
                .is_some_and(|(arrived, known)| arrived < known),
            _ => false,
        };
        let was_read_since = self.fingerprint != staged.beside;
        self.changed_seq > staged.base_seq || was_read_since || went_back
    }
}

impl Stage {
    /// Ids that must be asked for by themselves before they may be applied: the mirror's row was
    /// changed after the page was requested (P6), or the stamp went back; and what was read would change it.
    ///
    /// # Errors
    /// Of the databases.
    pub fn doubtful(&self, reader: &Reader) -> Result<Vec<ResourceId>, Error> {
        let mut lookup = Lookup {
            statement: reader.conn.prepare_cached(ROW)?,
            instance: self.key.instance.as_str(),
            resource: self.key.resource,
            // Baseline and time say how a record would look, not whether there is one.
            has_baseline: true,
            observed_at: Timestamp::UNIX_EPOCH,
            takes_over: self.takes_over,
        };
        let head = apply::last_seq(&reader.conn)?;
        let mut doubtful = Vec::new();
        self.each_staged(Which::MayBeDoubtful(head), &mut |staged| {
            if let Some((known, state)) = lookup.row(&staged.id)?
                && known.is_doubted_by(&staged, self.takes_over)
            {
                let id = staged.id.clone();
                if matches!(lookup.beside(known, state, staged), Due::Doubtful) {
                    doubtful.push(id);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(doubtful)
    }
}

/// A record with the columns that it gives the user.
pub(super) fn mapped(record: ChangeRecord, fingerprint: Option<Fingerprint>) -> Due {
    match user_columns(&record.after.canonical) {
        Ok(columns) => Due::Record(Box::new((record, columns)), fingerprint),
        Err(error) => Due::Unmappable(error),
    }
}
