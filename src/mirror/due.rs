//! What is due for a staged resource beside the mirror's row as it is now: the step that applying, planning and doubting
//! share, so that a dry run shows exactly what would be written.

use std::ops::ControlFlow;

use jiff::Timestamp;
use rusqlite::{CachedStatement, Connection, OptionalExtension as _, params};

use super::apply;
use super::column::time;
use super::error::Error;
use super::gate::Watch;
use super::lists;
use super::read::Reader;
use super::stage::{Stage, Staged};
use super::staged::{StagedRow, Which};
use super::table::of_table;
use crate::model::user::TextColumns;
use crate::model::{
    ChangeRecord, Fingerprint, Proof, ResourceId, ResourceType, State, UserColumns,
};
use crate::reconcile::mapping::{MappingError, columns};
use crate::reconcile::{canonical, diff, event};

/// The mirror's row of a resource, without its content.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) rowid: i64,
    pub(super) active: bool,
    pub(super) gone: bool,
    pub(super) changed_seq: i64,
    modified_at: Option<Timestamp>,
    /// The transaction that wrote its fingerprint; 0 without one.
    tx: i64,
}

/// What is due.
#[derive(Clone, Debug)]
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
    /// What was found says nothing any more: the user is gone already, or another sync has read it since.
    Void,
    /// It was decoded, but does not map.
    Unmappable(MappingError),
}

impl Due {
    /// The record that is written.
    pub(super) fn written(&self) -> Option<&ChangeRecord> {
        match self {
            Self::Record(due, _) => Some(&due.0),
            _ => None,
        }
    }

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

/// The statement for one row.
fn row_of(resource: ResourceType) -> &'static str {
    of_table!(
        resource,
        "SELECT rowid, active, gone_at, changed_seq, attributes, created_at, modified_at,
                (SELECT tx FROM fingerprints WHERE instance = ?1 AND resource = ?3 AND fingerprints.id = ?2)
         FROM ",
        " WHERE instance = ?1 AND id = ?2"
    )
}

impl<'a> Lookup<'a> {
    pub(super) fn new(
        mirror: &'a Connection,
        watch: &'a Watch,
        observed_at: Timestamp,
        stage: &Stage,
    ) -> Result<Self, Error> {
        Ok(Self {
            statement: mirror.prepare_cached(row_of(watch.resource))?,
            instance: watch.instance.as_str(),
            resource: watch.resource,
            has_baseline: watch.baseline_at.is_some(),
            observed_at,
            takes_over: stage.takes_over,
        })
    }

    /// The same for another directory.
    pub(super) fn taking_over(self) -> Self {
        Self {
            takes_over: true,
            ..self
        }
    }

    /// Whether a staged resource that lives in the mirror has an older stamp than the mirror has.
    pub(super) fn went_back(&mut self, staged: &StagedRow) -> Result<bool, Error> {
        let known = self.row(&staged.id)?;
        Ok(known.is_some_and(|(known, _)| !known.gone && known.went_back(staged)))
    }

    /// The mirror's row, and what is due for a staged resource beside it. `list_differs` of a group whose list is another than
    /// the mirror's: then it is doubted as if itself had changed.
    pub(super) fn due(
        &mut self,
        staged: StagedRow,
        list_differs: bool,
    ) -> Result<(Option<Known>, Due), Error> {
        Ok(match self.row(&staged.id)? {
            Some((known, state)) => {
                let due = self.beside(known, state, staged, list_differs);
                (Some(known), due)
            }
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
                        tx: row.get::<_, Option<i64>>(7)?.unwrap_or(0),
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
            Staged::Seen(mut arrived) => {
                let fingerprint = arrived.fingerprint;
                let text = std::mem::take(&mut arrived.columns);
                match diff::record(event::seen(None, *arrived), self.has_baseline) {
                    Some(record) => seen_as(record, text, fingerprint),
                    None => Due::Nothing(fingerprint),
                }
            }
            Staged::Gone(_) | Staged::Absent => Due::Void,
        }
    }

    fn beside(&self, known: Known, state: State, staged: StagedRow, list_differs: bool) -> Due {
        let was_read_since = known.was_read_since(&staged);
        let doubtful = known.is_doubted_by(&staged, self.takes_over);
        match staged.staged {
            Staged::Seen(mut arrived) => {
                let fingerprint = arrived.fingerprint;
                let text = std::mem::take(&mut arrived.columns);
                match diff::record(event::seen(Some(state), *arrived), self.has_baseline) {
                    Some(_) if doubtful => Due::Doubtful,
                    Some(record) => seen_as(record, text, fingerprint),
                    None if list_differs && doubtful => Due::Doubtful,
                    // What was found since, and may be held, is younger.
                    None if was_read_since => Due::Void,
                    None => Due::Nothing(fingerprint),
                }
            }
            Staged::Gone(_) | Staged::Absent if known.gone || was_read_since => Due::Void,
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
    /// Whether another sync has read the resource after this one asked for it (promise P6), and found a change, another
    /// spelling, or in an incremental sync also just what the mirror had.
    fn was_read_since(&self, staged: &StagedRow) -> bool {
        self.changed_seq > staged.base.seq || self.tx > staged.base.tx
    }

    /// Whether the stamp went back, as behind a lagging node.
    fn went_back(&self, staged: &StagedRow) -> bool {
        match &staged.staged {
            Staged::Seen(arrived) if !staged.asked => arrived
                .modified_at
                .zip(self.modified_at)
                .is_some_and(|(arrived, known)| arrived < known),
            _ => false,
        }
    }

    /// Whether what was read may be older than what the mirror has, or than what another sync found it to be.
    fn is_doubted_by(&self, staged: &StagedRow, takes_over: bool) -> bool {
        self.was_read_since(staged) || !takes_over && self.went_back(staged)
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
            statement: reader.conn.prepare_cached(row_of(self.key.resource))?,
            instance: self.key.instance.as_str(),
            resource: self.key.resource,
            // Baseline and time say how a record would look, not whether there is one.
            has_baseline: true,
            observed_at: Timestamp::UNIX_EPOCH,
            takes_over: self.takes_over,
        };
        let head = apply::last_seq(&reader.conn)?;
        let mut doubtful = Vec::new();
        self.each_staged(Which::MayBeDoubtful(head), &mut |mut staged| {
            if let Some((known, state)) = lookup.row(&staged.id)?
                && known.is_doubted_by(&staged, self.takes_over)
            {
                let id = staged.id.clone();
                let list_differs = lists::change(&reader.conn, &self.key.instance, &mut staged)?
                    .is_some_and(|change| change.is_any());
                if matches!(
                    lookup.beside(known, state, staged, list_differs),
                    Due::Doubtful
                ) {
                    doubtful.push(id);
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(doubtful)
    }
}

/// The record of somebody who was read, with the columns that it gives the user: the text was mapped when it was decoded.
fn seen_as(record: ChangeRecord, text: TextColumns, fingerprint: Fingerprint) -> Due {
    let columns = UserColumns {
        active: canonical::active(&record.after.canonical),
        text,
    };
    Due::Record(Box::new((record, columns)), Some(fingerprint))
}

/// A record with the columns that it gives the user.
pub(super) fn mapped(record: ChangeRecord, fingerprint: Option<Fingerprint>) -> Due {
    match columns(record.resource, &record.after.canonical) {
        Ok(columns) => Due::Record(Box::new((record, columns)), fingerprint),
        Err(error) => Due::Unmappable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FULL, INCREMENTAL, World, id, user};
    use super::*;
    use crate::model::{Base, Mode, Row};
    use crate::reconcile::guard::{Limits, WindowLimit};

    /// Somebody as he was on a day of January.
    fn on(day: u8, active: bool) -> Row {
        let stamp = format!("2026-01-0{day}T00:00:00Z");
        user("a", &stamp, &format!(r#","active":{active}"#))
    }

    impl World {
        async fn of(row: Row) -> Self {
            let mut world = Self::new().await;
            world.sync_as(FULL, &[row]).await;
            world
        }

        /// A full sync whose request was sent at `base`, and answered now.
        fn answered(&self, base: Base, row: Row) -> Stage {
            let mut stage = self.stage(Mode::Full);
            self.page_asked_at(&mut stage, base, &[row]);
            stage
        }

        async fn stays_active(&mut self, stage: Stage) {
            assert_eq!(stage.doubtful(&self.reader()).unwrap(), [id("a")]);
            let applied = self.apply(stage, FULL).await;
            assert_eq!(applied[0].deactivated, 0);
            assert!(self.ask::<bool>("SELECT active FROM users"));
            assert_eq!(self.difference(), None);
        }
    }

    #[tokio::test]
    async fn who_was_read_since_without_finding_a_change_is_doubted() {
        let mut world = World::of(on(1, true)).await;
        let base = world.mirror.base();
        let stage = world.answered(base, on(2, false));
        world.sync_as(INCREMENTAL, &[on(3, true)]).await;
        assert_eq!(world.mirror.head(), base.seq, "no record");
        world.stays_active(stage).await;
    }

    #[tokio::test]
    async fn who_was_read_within_the_flight_of_a_request_is_doubted() {
        let mut world = World::of(on(1, true)).await;
        let base = world.mirror.base();
        world.sync_as(INCREMENTAL, &[on(3, true)]).await;
        let stage = world.answered(base, on(2, false));
        world.stays_active(stage).await;
    }

    #[tokio::test]
    async fn who_came_and_went_within_a_second_is_doubted() {
        let mut world = World::of(on(1, true)).await;
        let base = world.mirror.base();
        world.sync_as(INCREMENTAL, &[on(1, true)]).await;
        let stage = world.answered(base, on(1, false));
        world.stays_active(stage).await;
    }

    #[tokio::test]
    async fn whose_stamp_was_put_back_meanwhile_is_doubted() {
        let mut world = World::of(on(1, true)).await;
        let base = world.mirror.base();
        world.sync_as(INCREMENTAL, &[on(1, true)]).await;
        let stage = world.answered(base, on(2, false));
        world.stays_active(stage).await;
    }

    #[tokio::test]
    async fn nobody_is_doubted_whom_others_did_not_read() {
        let mut world = World::of(on(1, true)).await;
        let base = world.mirror.base();
        world.sync_as(INCREMENTAL, &[]).await;
        let stage = world.answered(base, on(2, false));
        assert_eq!(stage.doubtful(&world.reader()).unwrap(), []);
        // A full sync that finds nothing new leaves no trace, so that it need not write.
        world.sync_as(FULL, &[on(1, true)]).await;
        assert_eq!(stage.doubtful(&world.reader()).unwrap(), []);
    }

    #[tokio::test]
    async fn whoever_was_read_alive_since_the_question_is_not_gone() {
        let mut world = World::of(on(1, true)).await;
        let mut stage = world.stage(Mode::Full);
        world.prove_gone(&mut stage, Mode::Full);
        // Byte for byte as the mirror has him.
        world.sync_as(INCREMENTAL, &[on(1, true)]).await;
        assert_eq!(world.apply(stage, FULL).await[0].deactivated, 0);
        assert!(world.ask::<bool>("SELECT active FROM users"));
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn whom_a_crawl_did_not_see_is_held_however_young_his_stamp() {
        let mut world = World::of(on(1, true)).await;
        let mut unseen = world.stage(Mode::Full);
        unseen.put_absent(unseen.base(), &id("a")).unwrap();
        world.sync_as(INCREMENTAL, &[]).await;
        world.limits.deactivations = WindowLimit {
            at_least: 0,
            count: 0,
            percent: 0,
            ..Limits::none().deactivations
        };
        assert_eq!(world.apply(unseen, FULL).await[0].held, 1);
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn what_is_held_stays_held_where_an_older_answer_comes_late() {
        let mut world = World::of(on(1, true)).await;
        let base = world.mirror.base();
        let mut stage = world.stage(Mode::Incremental);
        world.page(&mut stage, &[on(3, false)]);
        world.limits.deactivations = WindowLimit {
            at_least: 0,
            count: 0,
            percent: 0,
            ..Limits::none().deactivations
        };
        world.apply(stage, INCREMENTAL).await;
        let held = "SELECT count(*) FROM hold_changes WHERE state = 'held'";
        assert_eq!(world.ask::<i64>(held), 1);
        let late = world.answered(base, on(2, true));
        world.apply(late, FULL).await;
        assert_eq!(world.ask::<i64>(held), 1);
        // Read again, it is over.
        world.sync_as(FULL, &[on(4, true)]).await;
        assert_eq!(world.ask::<i64>(held), 0);
        assert_eq!(world.difference(), None);
    }
}
