//! How many changes of each concern a sync would write, beside those that its guard has counted already.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use rusqlite::Connection;

use super::due::{Due, Lookup};
use super::error::Error;
use super::gate::Watch;
use super::holds::OpenHolds;
use super::lists;
use super::read::Reader;
use super::stage::Stage;
use super::staged::Which;
use super::window::{self, Released};
use crate::model::ResourceType;
use crate::reconcile::guard::{self, Concern};

/// How many changes of each concern a sync would write, before anything is written. Who is in an open
/// hold for it already is not counted again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    concerns: BTreeMap<Concern, u64>,
    /// Records that concern no guard.
    unguarded: u64,
}

impl Planned {
    /// Counts what is due, for everything that is staged.
    ///
    /// # Errors
    /// Of the databases.
    pub fn of(stage: &Stage, reader: &Reader, watch: &Watch) -> Result<Self, Error> {
        let mut planned = Self::default();
        if stage.horizon.nobody {
            // Whom nobody knew can lose nothing.
            planned.unguarded = stage.count_staged()?;
            return Ok(planned);
        }
        let _snapshot = reader.conn.unchecked_transaction()?;
        let mut lookup = Lookup::new(&reader.conn, watch, watch.now, stage)?;
        let holds = OpenHolds::of(&reader.conn, watch)?;
        stage.each_staged(Which::After(None), &mut |mut staged| {
            let id = staged.id.clone();
            let change = lists::change(&reader.conn, &watch.instance, &mut staged)?;
            let is_any = change.as_ref().is_some_and(lists::Change::is_any);
            let (_, due) = lookup.due(staged, is_any)?;
            if let (Some(change), Due::Record(..) | Due::Nothing(_)) = (&change, &due) {
                planned.unguarded += change.came.len() as u64;
                if change.may_end() && !change.missing.is_empty() {
                    // Who is held and is shown again is none of them.
                    let missing = change.n_missing_but(&holds.of_group(&id)?, &id) as u64;
                    let of_group = Concern::GroupMembership(id.as_str().to_owned());
                    for concern in [Concern::Membership, of_group] {
                        *planned.concerns.entry(concern).or_default() += missing;
                    }
                }
            }
            if let Some(record) = due.record() {
                let mut concerns =
                    guard::concerns(record.resource, record.kind, record.changed.as_deref());
                if concerns.is_empty() {
                    planned.unguarded += 1;
                } else {
                    let open = holds.of_user(&id)?;
                    concerns.retain(|concern| !open.iter().any(|(_, held)| held == concern));
                }
                for concern in concerns {
                    *planned.concerns.entry(concern).or_default() += 1;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(planned)
    }

    /// How many records there will be at least, whatever the guards hold.
    pub(super) fn at_least(&self) -> u64 {
        self.unguarded
    }

    /// Whether with so many more deactivations the guard would hold them all.
    ///
    /// # Errors
    /// Of the database.
    pub fn would_hold(&self, reader: &Reader, watch: &Watch, more: u64) -> Result<bool, Error> {
        let _snapshot = reader.conn.unchecked_transaction()?;
        let mut planned = self.clone();
        *planned.concerns.entry(Concern::Deactivation).or_default() += more;
        let mut counts = Counts::new(&reader.conn, watch, planned, 0);
        Ok(counts.refuse(&Concern::Deactivation)?.is_some())
    }
}

impl Reader {
    /// Whether the guard would hold so many memberships that end, of all groups together.
    ///
    /// # Errors
    /// Of the database.
    pub fn would_hold_members(&self, watch: &Watch, missing: u64) -> Result<bool, Error> {
        let planned = Planned {
            concerns: BTreeMap::from([(Concern::Membership, missing)]),
            unguarded: 0,
        };
        let _snapshot = self.conn.unchecked_transaction()?;
        let mut counts = Counts::new(&self.conn, watch, planned, 0);
        Ok(missing > 0 && counts.refuse(&Concern::Membership)?.is_some())
    }
}

/// How many of each concern there are in the window, this sync's included.
pub(super) struct Counts<'a> {
    conn: &'a Connection,
    watch: &'a Watch,
    planned: Planned,
    sync_id: i64,
    /// What the feed has; read when it is needed.
    released: Option<Released>,
    /// Of how many users it is a share; read when it matters.
    users: BTreeMap<Concern, u64>,
}

impl<'a> Counts<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        watch: &'a Watch,
        planned: Planned,
        sync_id: i64,
    ) -> Self {
        Self {
            conn,
            watch,
            planned,
            sync_id,
            released: None,
            users: BTreeMap::new(),
        }
    }

    /// Why one more of this concern must be held, in words; `None` if it may go through.
    pub(super) fn refuse(&mut self, concern: &Concern) -> Result<Option<String>, Error> {
        let released = match self.released.take() {
            Some(released) => released,
            None => window::released(self.conn, self.watch, self.sync_id)?,
        };
        let count = |counts: &BTreeMap<Concern, u64>| counts.get(concern).copied().unwrap_or(0);
        // What was not planned, because it had to be asked for again, counts as it comes.
        let here = count(&self.planned.concerns).max(count(&released.here) + 1);
        let n = count(&released.elsewhere) + here;
        self.released = Some(released);
        let limit = self.watch.limits.of(concern);
        let users = match self.users.get(concern) {
            Some(users) => *users,
            None if limit.asks_for_share(n) => {
                let users = window::users(self.conn, self.watch, concern)?;
                self.users.insert(concern.clone(), users);
                users
            }
            None => 0,
        };
        let noun = match concern {
            Concern::Deactivation | Concern::Blanking(_) => self.watch.resource.noun(),
            Concern::Membership | Concern::GroupMembership(_) => ResourceType::Membership.noun(),
        };
        Ok(limit.exceeded(n, users, noun))
    }

    pub(super) fn let_through(&mut self, concern: &Concern) {
        if let Some(released) = &mut self.released {
            *released.here.entry(concern.clone()).or_default() += 1;
        }
    }
}
