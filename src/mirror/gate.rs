//! What the guards make of what is due: the step between the plan and the writing, shared by a dry run.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::due::{self, Due, Lookup};
use super::error::Error;
use super::read::Reader;
use super::stage::Stage;
use super::staged::Which;
use super::window::{self, Released};
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

/// How many changes of each concern a sync would write, before anything is written. Who is in an open
/// hold for it already is not counted again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned(BTreeMap<Concern, u64>);

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

impl Planned {
    /// Counts what is due, for everything that is staged.
    ///
    /// # Errors
    /// Of the databases.
    pub fn of(stage: &Stage, reader: &Reader, watch: &Watch) -> Result<Self, Error> {
        let mut planned = Self::default();
        if stage.horizon.nobody {
            // Whom nobody knew can lose nothing.
            return Ok(planned);
        }
        let _snapshot = reader.conn.unchecked_transaction()?;
        let mut lookup = Lookup::new(&reader.conn, watch, watch.now, stage)?;
        let holds = OpenHolds::of(&reader.conn, watch)?;
        stage.each_staged(Which::After(None), &mut |staged| {
            let id = staged.id.clone();
            let (_, due) = lookup.due(staged)?;
            if let Some(record) = due.record() {
                let mut concerns = guard::concerns(record.kind, record.changed.as_deref());
                if !concerns.is_empty() {
                    let open = holds.of_user(&id)?;
                    concerns.retain(|concern| !open.iter().any(|(_, held)| held == concern));
                }
                for concern in concerns {
                    *planned.0.entry(concern).or_default() += 1;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(planned)
    }

    /// Whether with so many more deactivations the guard would hold them all.
    ///
    /// # Errors
    /// Of the database.
    pub fn would_hold(&self, reader: &Reader, watch: &Watch, more: u64) -> Result<bool, Error> {
        let _snapshot = reader.conn.unchecked_transaction()?;
        let mut planned = self.clone();
        *planned.0.entry(Concern::Deactivation).or_default() += more;
        let mut counts = Counts::new(&reader.conn, watch, planned, 0);
        Ok(counts.refuse(&Concern::Deactivation)?.is_some())
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
                    guard: match concern {
                        Concern::Deactivation => "deactivations",
                        Concern::Blanking(_) => "blanking",
                    },
                    attribute: match concern {
                        Concern::Deactivation => None,
                        Concern::Blanking(attribute) => Some(attribute.clone()),
                    },
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
        let open = self.holds.of_user(id)?;
        let paths: Vec<&str> = open
            .iter()
            .map(|(_, concern)| concern.path(is_gone))
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
        guard::concerns(record.kind, record.changed.as_deref())
    })
}

/// What is held of the users of one source, by the guards that hold one path of a user.
struct OpenHolds<'a> {
    conn: &'a Connection,
    instance: &'a str,
    resource: ResourceType,
    /// As a rule there are none, and nobody needs to be looked up.
    any: bool,
}

impl<'a> OpenHolds<'a> {
    fn of(conn: &'a Connection, watch: &'a Watch) -> Result<Self, Error> {
        let instance = watch.instance.as_str();
        let any = conn
            .prepare_cached(
                "SELECT 1 FROM holds
                 WHERE instance = ?1 AND state = 'open' AND guard <> 'source_changed'",
            )?
            .exists([instance])?;
        Ok(Self {
            conn,
            instance,
            resource: watch.resource,
            any,
        })
    }

    fn of_user(&self, id: &ResourceId) -> Result<Vec<(i64, Concern)>, Error> {
        if !self.any {
            return Ok(Vec::new());
        }
        let mut held = self.conn.prepare_cached(
            "SELECT hold_id, guard, path FROM hold_changes JOIN holds ON holds.id = hold_id
             WHERE hold_changes.resource = ?1 AND hold_changes.id = ?2 AND hold_changes.state = 'held'
               AND instance = ?3 AND holds.state = 'open' AND guard <> 'source_changed'
             ORDER BY hold_id",
        )?;
        let held = held.query_map(
            params![self.resource.as_str(), id.as_str(), self.instance],
            |row| {
                let (guard, path): (String, String) = (row.get(1)?, row.get(2)?);
                let concern = match &*guard {
                    "deactivations" => Concern::Deactivation,
                    _ => Concern::Blanking(path),
                };
                Ok((row.get(0)?, concern))
            },
        )?;
        Ok(held.collect::<Result<_, _>>()?)
    }
}

/// How many of each concern there are in the window, this sync's included.
struct Counts<'a> {
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
    fn new(conn: &'a Connection, watch: &'a Watch, planned: Planned, sync_id: i64) -> Self {
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
    fn refuse(&mut self, concern: &Concern) -> Result<Option<String>, Error> {
        let released = match self.released.take() {
            Some(released) => released,
            None => window::released(self.conn, self.watch, self.sync_id)?,
        };
        let count = |counts: &BTreeMap<Concern, u64>| counts.get(concern).copied().unwrap_or(0);
        // What was not planned, because it had to be asked for again, counts as it comes.
        let here = count(&self.planned.0).max(count(&released.here) + 1);
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
        Ok(limit.exceeded(n, users))
    }

    fn let_through(&mut self, concern: &Concern) {
        if let Some(released) = &mut self.released {
            *released.here.entry(concern.clone()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;

    use super::super::apply::Applied;
    use super::super::holds::SourceChange;
    use super::super::testing::{
        FULL, How, INCREMENTAL, World, id, name, proof, strict, time, titled, user,
    };
    use super::*;
    use crate::model::{Mode, Row};
    use crate::reconcile::decode::decode;
    use crate::reconcile::guard::WindowLimit;

    const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    async fn guarded(directory: &[Row]) -> World {
        let mut world = World::new().await;
        world.limits = strict();
        world.sync(directory).await;
        world
    }

    fn with(id: &str, members: &str) -> Row {
        user(id, "2026-01-01T00:00:00Z", &format!(",{members}"))
    }

    fn inactive(id: &str, title: &str) -> Row {
        with(id, &format!(r#""active":false,"title":"{title}""#))
    }

    /// A person approves a hold, and the instance answers this of its users.
    async fn approve(world: &mut World, hold_id: i64, answers: &[Row]) -> Applied {
        let mut stage = world.stage(Mode::Incremental);
        for row in answers {
            let answer = decode(ResourceType::User, row).unwrap();
            stage.put_asked(world.mirror.base(), answer).unwrap();
        }
        apply_as(world, stage, Treatment::Approved(hold_id)).await
    }

    async fn apply_as(world: &mut World, mut stage: Stage, treatment: Treatment) -> Applied {
        let (mut batch, finish) = world.ending(&stage).await;
        batch.treatment = treatment;
        let written = world
            .mirror
            .write(move |writer| writer.apply(&mut stage, &batch, None, &finish));
        written.await.unwrap()
    }

    fn column(world: &World, sql: &str) -> String {
        world
            .ask::<Option<String>>(&format!("SELECT group_concat(x, ' ') FROM ({sql})"))
            .unwrap_or_default()
    }

    fn held(world: &World) -> String {
        column(
            world,
            "SELECT id || ':' || path AS x FROM users_held ORDER BY id, path",
        )
    }

    #[tokio::test]
    async fn two_go_and_three_are_held_while_all_else_of_them_goes_through() {
        let directory = IDS.map(|id| titled(id, "x"));
        for n in [2, 3] {
            let mut world = guarded(&directory).await;
            let changed: Vec<Row> = IDS[..n].iter().map(|id| inactive(id, "y")).collect();
            let applied = world.sync_as(INCREMENTAL, &changed).await.remove(0);
            assert_eq!(
                column(&world, "SELECT id AS x FROM users WHERE title = 'y'"),
                IDS[..n].join(" ")
            );
            if n == 2 {
                assert_eq!((applied.deactivated, applied.held), (2, 0));
                assert_eq!(held(&world), "");
            } else {
                assert_eq!(
                    (applied.deactivated, applied.updated, applied.held),
                    (0, 3, 3)
                );
                assert_eq!(held(&world), "a:active b:active c:active");
                assert_eq!(world.ask::<i64>("SELECT count(*) FROM active_users"), 6);
                assert!(
                    world
                        .ask::<bool>("SELECT min(json_extract(attributes, '$.active')) FROM users")
                );
                // As it was read.
                assert!(world.ask::<bool>(
                    "SELECT max(json_extract(after, '$.active')) = 0 FROM hold_changes"
                ));
                assert_eq!(applied.opened[0].count, 3);
            }
            assert_eq!(world.difference(), None);
        }
    }

    #[tokio::test]
    async fn an_open_hold_is_not_written_again_and_heals_user_by_user() {
        let mut directory = IDS.map(|id| titled(id, "x"));
        let mut world = guarded(&directory).await;
        for place in 0..3 {
            directory[place] = inactive(IDS[place], "x");
        }
        world.sync(&directory).await;
        let tables = |world: &World| {
            let mut tables = world.dump();
            for table in [
                "syncs",
                "sqlite_sequence",
                "sources",
                "source_counts",
                "instances",
            ] {
                tables.remove(table);
            }
            tables
        };
        let before = tables(&world);
        let applied = world.sync(&directory).await.remove(0);
        assert_eq!((applied.held, applied.opened.len()), (0, 0));
        assert_eq!(tables(&world), before);

        directory[0] = titled("a", "x");
        world.sync(&directory).await;
        assert_eq!(held(&world), "b:active c:active");
        // Two more are new candidates, and a hold of their own: in the window there are five.
        directory[3] = inactive("d", "x");
        directory[4] = inactive("e", "x");
        world.limits.deactivations.count = 1;
        world.limits.deactivations.at_least = 1;
        world.sync(&directory).await;
        assert_eq!(
            column(
                &world,
                "SELECT hold_id || id AS x FROM users_held ORDER BY hold_id, id"
            ),
            "1b 1c 2d 2e"
        );
        world.sync(&IDS.map(|id| titled(id, "x"))).await;
        assert_eq!(
            column(
                &world,
                "SELECT state AS x FROM holds UNION ALL SELECT DISTINCT state FROM hold_changes"
            ),
            "resolved resolved resolved"
        );
        assert_eq!(
            world.ask::<i64>("SELECT count(*) FROM changes WHERE kind <> 'create'"),
            0
        );
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn one_attribute_turning_empty_is_held_by_itself_and_a_reference_counts_once() {
        let urn = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
        let full = IDS.map(|id| {
            with(id, &format!(
                r#""title":"t","nickName":"n","{urn}":{{"department":{{"value":"d1","name":"D"}},"company":{{"value":"c1","name":"C"}}}}"#
            ))
        });
        let mut world = guarded(&full).await;
        // Departments are lost, and the labels of companies; two titles, three nicknames.
        let lost: Vec<Row> = IDS.iter().zip(0..).map(|(id, n)| {
            let title = if n < 2 { "" } else { "t" };
            let nick = if n < 3 { "" } else { "n" };
            with(id, &format!(
                r#""title":"{title}","nickName":"{nick}","{urn}":{{"company":{{"value":"c1"}}}}"#
            ))
        }).collect();
        world.sync(&lost).await;
        assert_eq!(
            column(
                &world,
                "SELECT attribute || count AS x FROM holds ORDER BY attribute"
            ),
            "department6 nickName3"
        );
        assert_eq!(
            column(
                &world,
                "SELECT coalesce(title, '-') || coalesce(company, '-') || department || department_id AS x FROM users ORDER BY id"
            ),
            "--Dd1 --Dd1 t-Dd1 t-Dd1 t-Dd1 t-Dd1"
        );
        assert_eq!(
            world.ask::<i64>("SELECT sum(attributes LIKE '%nickName%') FROM users"),
            6
        );
        assert_eq!(world.difference(), None);
        world.sync(&full).await;
        assert_eq!(held(&world), "");
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn the_share_is_of_those_who_were_there_before_this_sync_wrote_anything() {
        let known: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
        for (leavers, n_held) in [(2, 0), (3, 3)] {
            let directory: Vec<Row> = known.iter().map(|id| titled(id, "x")).collect();
            let mut world = guarded(&directory).await;
            world.limits.deactivations = WindowLimit {
                at_least: 1,
                count: 1_000,
                percent: 10,
                ..strict().deactivations
            };
            // Those who come are written first, by the order of ids.
            let changed: Vec<Row> = (0..15)
                .map(|n| titled(&format!("a{n:02}"), "new"))
                .chain(known.iter().take(leavers).map(|id| inactive(id, "x")))
                .collect();
            let applied = world.sync_as(INCREMENTAL, &changed).await.remove(0);
            assert_eq!(
                (applied.created, applied.held),
                (15, n_held),
                "10 % of 20 are 2"
            );
        }
    }

    /// Two are the most that pass; the window is a day.
    #[tokio::test]
    async fn a_slow_bleed_counts_until_it_leaves_the_window() {
        for (later, n_held) in [
            (Duration::from_secs(24 * 3600 - 121), 1),
            (Duration::from_secs(24 * 3600 - 120), 0),
        ] {
            let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
            world.sync_as(INCREMENTAL, &[inactive("a", "x")]).await;
            world.sync_as(INCREMENTAL, &[inactive("b", "x")]).await;
            // A sync takes a minute: `b` was a minute before this, `a` two.
            world.now += later;
            let applied = world
                .sync_as(INCREMENTAL, &[inactive("c", "x")])
                .await
                .remove(0);
            assert_eq!(applied.held, n_held, "{later:?}");
            assert_eq!(world.difference(), None);
        }
    }

    /// Each attribute has a window of its own, and a value that comes back gives nothing back.
    #[tokio::test]
    async fn a_slow_bleed_of_one_attribute_counts_by_itself() {
        let filled = |id: &str| with(id, r#""title":"t","nickName":"n""#);
        let mut world = guarded(&IDS.map(filled)).await;
        let titleless = |id: &str| with(id, r#""nickName":"n""#);
        for id in ["a", "b"] {
            world.sync_as(INCREMENTAL, &[titleless(id)]).await;
        }
        assert_eq!(held(&world), "");
        // Two other attributes and a title that is back: nothing of it is a third title.
        world
            .sync_as(INCREMENTAL, &[with("c", r#""title":"t""#), filled("a")])
            .await;
        world
            .sync_as(INCREMENTAL, &[with("d", r#""title":"t""#)])
            .await;
        assert_eq!(held(&world), "");
        let applied = world
            .sync_as(INCREMENTAL, &[titleless("e")])
            .await
            .remove(0);
        assert_eq!((applied.held, &*held(&world)), (1, "e:title"));
        // A day later those two are forgotten, and the one that is held is not asked about again.
        world.now += SignedDuration::from_hours(24);
        let late = [titleless("e"), titleless("f")];
        let applied = world.sync_as(INCREMENTAL, &late).await.remove(0);
        assert_eq!((applied.updated, applied.held), (1, 0));
        assert_eq!(held(&world), "e:title");
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn what_was_approved_does_not_count() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let changed = ["a", "b", "c"].map(|id| inactive(id, "x"));
        world.sync_as(INCREMENTAL, &changed).await;
        assert_eq!(held(&world), "a:active b:active c:active");
        assert_eq!(approve(&mut world, 1, &changed).await.deactivated, 3);
        // Two more pass as if those three had never been, and the third does not.
        let applied = world
            .sync_as(INCREMENTAL, &["d", "e"].map(|id| inactive(id, "x")))
            .await;
        assert_eq!((applied[0].deactivated, applied[0].held), (2, 0));
        let applied = world.sync_as(INCREMENTAL, &[inactive("f", "x")]).await;
        assert_eq!((applied[0].deactivated, applied[0].held), (0, 1));
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn who_was_inactive_already_goes_uncounted() {
        let mut directory = IDS.map(|id| inactive(id, "x"));
        directory[5] = titled("f", "x");
        let mut world = guarded(&directory).await;
        let applied = world.sync(&directory[5..]).await.remove(0);
        assert_eq!(
            (applied.updated, applied.deactivated, applied.held),
            (5, 0, 0)
        );
        assert_eq!(
            column(
                &world,
                "SELECT DISTINCT kind || '/' || reason AS x FROM changes WHERE seq > 6"
            ),
            "update/gone"
        );
        assert_eq!(world.difference(), None);
    }

    /// The base is what there was when the window began, or at the baseline if that is later.
    #[tokio::test]
    async fn the_share_is_of_the_users_at_the_window_or_at_a_later_baseline() {
        let many: Vec<Row> = (0..30).map(|n| titled(&format!("k{n:02}"), "x")).collect();
        let share = WindowLimit {
            at_least: 1,
            count: 1_000,
            percent: 10,
            ..strict().deactivations
        };
        let leave =
            |n: usize| -> Vec<Row> { (0..n).map(|n| inactive(&format!("k{n:02}"), "x")).collect() };
        for (days, n_leavers, n_held) in [
            // Ten at the baseline, within the window: twenty came since, which do not count.
            (0, 1, 0),
            (0, 2, 2),
            // They were there when the window began.
            (2, 3, 0),
            (2, 4, 4),
        ] {
            let mut world = guarded(&many[..10]).await;
            world.limits.deactivations = share.clone();
            world.sync_as(INCREMENTAL, &many[10..]).await;
            world.now += SignedDuration::from_hours(24 * days);
            let applied = world
                .sync_as(INCREMENTAL, &leave(n_leavers))
                .await
                .remove(0);
            assert_eq!(applied.held, n_held, "{n_leavers} after {days} days");
        }
    }

    #[tokio::test]
    async fn what_another_sync_released_since_the_plan_counts() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let mut stage = world.stage(Mode::Full);
        let mut directory = IDS.map(|id| titled(id, "x"));
        directory[0] = inactive("a", "x");
        directory[1] = inactive("b", "x");
        world.crawl(&mut stage, &directory);
        let (batch, finish) = world.ending(&stage).await;
        // Planned, two pass. But now there are two of an incremental sync before them.
        world
            .sync_as(INCREMENTAL, &[inactive("e", "x"), inactive("f", "x")])
            .await;
        let applied = world
            .mirror
            .write(move |writer| writer.apply(&mut stage, &batch, None, &finish))
            .await
            .unwrap();
        assert_eq!((applied.deactivated, applied.held), (0, 2));
        assert_eq!(held(&world), "a:active b:active");
    }

    #[tokio::test]
    async fn a_hold_is_there_with_the_end_of_its_sync_and_not_before() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let changed: Vec<Row> = IDS.iter().map(|id| inactive(id, "y")).collect();
        let killed = How {
            limit: 2,
            transactions: 2,
            ..FULL
        };
        world.sync_as(killed, &changed).await;
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM holds"), 0);
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM active_users"), 6);
        assert_eq!(world.difference(), None);
        let small = How { limit: 2, ..FULL };
        let applied = world.sync_as(small, &changed).await;
        assert_eq!(applied.iter().map(|one| one.held).sum::<u64>(), 6);
        assert_eq!(
            world.ask::<i64>("SELECT held FROM syncs ORDER BY id DESC"),
            6
        );
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM users_held"), 6);
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn who_is_held_and_then_gone_is_not_held_twice() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let changed: Vec<Row> = IDS.iter().map(|id| inactive(id, "x")).collect();
        world.sync(&changed).await;
        world.sync(&changed[1..]).await;
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM holds"), 1);
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM users_held"), 6);
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM active_users"), 6);
        assert_eq!(world.difference(), None);
    }

    /// Who is held because an attribute turned empty, and is then not shown, may come back as empty as he was.
    #[tokio::test]
    async fn a_blanking_stays_held_until_the_user_is_seen_well_or_is_really_gone() {
        let filled = IDS.map(|id| titled(id, "x"));
        let mut blank = filled.clone();
        for place in 0..3 {
            blank[place] = titled(IDS[place], "");
        }
        let titles = "a:title b:title c:title";
        let mut world = guarded(&filled).await;
        world.sync(&blank).await;
        assert_eq!(held(&world), titles);
        // All three are unseen, and proved gone: one more than may go at once.
        world.sync(&blank[3..]).await;
        assert_eq!(
            held(&world),
            "a:all a:title b:all b:title c:all c:title",
            "held, and not gone"
        );
        // Two are seen again, as few as would pass if they were counted anew.
        world.sync(&[&blank[..2], &blank[3..]].concat()).await;
        assert_eq!(held(&world), "a:title b:title c:all c:title");
        let n_titles = "SELECT count(*) FROM users WHERE title = 'x'";
        assert_eq!(world.ask::<i64>(n_titles), 6);
        assert_eq!(world.difference(), None);
        world.sync(&filled).await;
        assert_eq!(held(&world), "");

        let mut world = guarded(&filled).await;
        world.sync(&blank).await;
        let applied = world.sync(&blank[1..]).await.remove(0);
        assert_eq!((applied.deactivated, applied.held), (1, 0));
        assert_eq!(held(&world), "b:title c:title", "one is really gone");
        assert_eq!(world.difference(), None);
    }

    /// Between two transactions of a full sync an incremental one reads somebody well whom the first has kept back.
    #[tokio::test]
    async fn whom_another_sync_has_read_meanwhile_is_in_no_hold() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let mut stage = world.stage(Mode::Full);
        world.crawl(&mut stage, &IDS.map(|id| inactive(id, "x")));
        let (mut batch, finish) = world.ending(&stage).await;
        batch.limit = 1;
        let first_batch = (batch.clone(), finish.clone());
        let written = world.mirror.write(move |writer| {
            let first = writer.apply(&mut stage, &first_batch.0, None, &first_batch.1)?;
            Ok((stage, first))
        });
        let (mut stage, first) = written.await.unwrap();
        assert!(first.next_after.is_some(), "{first:?}");
        let well = with("a", r#""title":"x","nickName":"well""#);
        world.sync_as(INCREMENTAL, &[well]).await;
        batch.limit = 100;
        let written = world.mirror.write(move |writer| {
            writer.apply(&mut stage, &batch, first.next_after.as_ref(), &finish)
        });
        assert!(written.await.unwrap().finished);
        assert_eq!(held(&world), "b:active c:active d:active e:active f:active");
        assert_eq!(world.difference(), None);
    }

    /// Between two transactions of a full sync another one finds somebody gone whom the first has kept back.
    #[tokio::test]
    async fn whom_another_sync_found_gone_meanwhile_is_in_no_hold() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let mut stage = world.stage(Mode::Full);
        world.crawl(&mut stage, &IDS.map(|id| inactive(id, "x")));
        let (mut batch, finish) = world.ending(&stage).await;
        batch.limit = 1;
        let first_batch = (batch.clone(), finish.clone());
        let written = world.mirror.write(move |writer| {
            let first = writer.apply(&mut stage, &first_batch.0, None, &first_batch.1)?;
            Ok((stage, first))
        });
        let (mut stage, first) = written.await.unwrap();
        let mut other = world.stage(Mode::Incremental);
        other
            .put_gone(world.mirror.base(), &id("a"), &proof(world.now))
            .unwrap();
        world.limits = Limits::none();
        assert_eq!(world.apply(other, INCREMENTAL).await[0].deactivated, 1);
        batch.limit = 100;
        let written = world.mirror.write(move |writer| {
            writer.apply(&mut stage, &batch, first.next_after.as_ref(), &finish)
        });
        assert!(written.await.unwrap().finished);
        assert_eq!(held(&world), "b:active c:active d:active e:active f:active");
        assert_eq!(world.difference(), None);
    }

    /// They have the label of a reference in three spellings, lose one of them, and then all of it.
    #[tokio::test]
    async fn a_reference_is_held_and_released_as_a_whole() {
        let urn = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
        let managed = |manager: &str| IDS.map(|id| with(id, &format!(r#""{urn}":{{{manager}}}"#)));
        let all = r#""manager":{"value":"m","displayName":"M","display":"M","name":"M"}"#;
        let mut world = guarded(&managed(all)).await;
        let fewer = r#""manager":{"value":"m","name":"M","display":"M"}"#;
        world.sync(&managed(fewer)).await;
        assert_eq!(held(&world), "");
        let nobody = managed("");
        world.sync(&nobody).await;
        let paths = "SELECT DISTINCT path AS x FROM users_held";
        assert_eq!(column(&world, paths), "manager");
        assert_eq!(approve(&mut world, 1, &nobody).await.updated, 6);
        assert_eq!(held(&world), "");
        let left = "SELECT count(manager) + count(manager_id) + sum(attributes LIKE '%display%') FROM users";
        assert_eq!(world.ask::<i64>(left), 0);
        assert_eq!(world.difference(), None);
    }

    /// Nobody can prove that he is gone, and his title will never be asked for again.
    #[tokio::test]
    async fn who_is_not_shown_leaves_a_blanking_that_a_person_approves() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        world.sync(&IDS.map(|id| titled(id, ""))).await;
        let mut stage = world.stage(Mode::Incremental);
        stage.put_absent(world.mirror.base(), &id("a")).unwrap();
        let head = world.mirror.head();
        let applied = apply_as(&mut world, stage, Treatment::Approved(1)).await;
        assert_eq!((applied.held, world.mirror.head()), (0, head));
        assert_eq!(held(&world), "b:title c:title d:title e:title f:title");
        let kept = "SELECT active AND title = 'x' FROM users WHERE id = 'a'";
        assert!(world.ask::<bool>(kept));
        // Shown again, it is news like any other.
        assert_eq!(
            world.sync(&IDS.map(|id| titled(id, ""))).await[0].updated,
            1
        );
        assert_eq!(world.difference(), None);
    }

    /// Two holds of one list: one keeps the whole of it, so that the other cannot be released alone.
    #[tokio::test]
    async fn what_another_hold_keeps_is_not_released() {
        let mails = |work: &str, home: &str| {
            let one = |kind: &str, mail: &str| match mail {
                "" => String::new(),
                mail => format!(r#"{{"type":"{kind}","value":"{mail}"}}"#),
            };
            let both = [one("work", work), one("home", home)].join(",");
            let both = both.trim_matches(',').to_owned();
            IDS.map(|id| with(id, &format!(r#""emails":[{both}]"#)))
        };
        let mut world = guarded(&mails("w", "h")).await;
        let none = mails("", "");
        world.sync(&none).await;
        let holds = "SELECT id || attribute || state AS x FROM holds ORDER BY id";
        assert_eq!(column(&world, holds), "1emailopen 2emailsopen");
        let head = world.mirror.head();
        let applied = approve(&mut world, 1, &none).await;
        assert_eq!((applied.updated, world.mirror.head()), (0, head));
        assert_eq!(column(&world, holds), "1emailopen 2emailsopen");
        assert_eq!(approve(&mut world, 2, &none).await.updated, 6);
        assert_eq!(world.ask::<i64>("SELECT count(email) FROM users"), 6);
        assert_eq!(approve(&mut world, 1, &none).await.updated, 6);
        assert_eq!(world.ask::<i64>("SELECT count(email) FROM users"), 0);
        assert_eq!(column(&world, holds), "1emailapproved 2emailsapproved");
        assert_eq!(world.difference(), None);
    }

    /// What a guard holds already is no part of the hold of another directory (contract, section 4: nobody is held twice).
    #[tokio::test]
    async fn another_directory_holds_nobody_a_second_time() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let leavers = ["a", "b", "c"].map(|id| inactive(id, "x"));
        world.sync_as(INCREMENTAL, &leavers).await;
        let mut stage = world.stage(Mode::Full);
        let directory = [
            inactive("a", "x"),
            inactive("b", "y"),
            titled("d", "x"),
            titled("e", "z"),
        ];
        world.crawl(&mut stage, &directory);
        let whole = Treatment::HeldWhole("6 of 6".to_owned());
        assert_eq!(apply_as(&mut world, stage, whole).await.held, 2);
        assert_eq!(held(&world), "a:active b:active b:all c:active e:all");
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn somebody_gone_may_be_held_with_another_directory() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        world
            .sync(
                &IDS[1..]
                    .iter()
                    .map(|id| titled(id, "x"))
                    .collect::<Vec<_>>(),
            )
            .await;
        assert!(world.ask::<bool>("SELECT gone_at IS NOT NULL FROM users WHERE id = 'a'"));
        let mut stage = world.stage(Mode::Full);
        world.crawl(&mut stage, &[titled("a", "x")]);
        let whole = Treatment::HeldWhole("6 of 6".to_owned());
        assert_eq!(apply_as(&mut world, stage, whole).await.held, 1);
        assert_eq!(held(&world), "a:all");
        assert_eq!(world.difference(), None);
    }

    /// All stamps went back, and nothing else: there is nothing to hold, and still something to approve.
    #[tokio::test]
    async fn another_directory_without_a_difference_has_a_hold_too() {
        let directory = IDS.map(|id| titled(id, "x"));
        let mut world = guarded(&directory).await;
        let mut stage = world.stage(Mode::Full);
        world.crawl(&mut stage, &directory);
        let whole = Treatment::HeldWhole("6 of 6".to_owned());
        assert_eq!(apply_as(&mut world, stage, whole).await.opened.len(), 1);
        assert_eq!(
            column(
                &world,
                "SELECT guard || count || limit_text || (SELECT state FROM instances) AS x FROM holds"
            ),
            "source_changed06 of 6source_changed"
        );
        assert_eq!(world.difference(), None);

        let change = |world: &World| world.reader().source_change(&name("acme")).unwrap();
        assert_eq!(change(&world), SourceChange::Open(1));
        let digest: String = world.ask("SELECT digest FROM holds");
        let now = world.now;
        let approved = world
            .mirror
            .write(move |writer| writer.approve_source_change(1, &digest, now));
        approved.await.unwrap();
        assert_eq!(change(&world), SourceChange::Approved(1));
        let mut stage = world.stage(Mode::Full);
        world.crawl(&mut stage, &[titled("a", "y")]);
        let taken = apply_as(&mut world, stage, Treatment::TakenOver(1)).await;
        assert_eq!(taken.updated, 1);
        assert_eq!(change(&world), SourceChange::None);
        assert_eq!(
            column(
                &world,
                "SELECT state AS x FROM holds UNION ALL SELECT state FROM instances"
            ),
            "resolved healthy"
        );
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn a_takeover_sets_the_watermark_to_its_start_unless_somebody_was_left_out() {
        let start = time("2026-02-01T00:00:00Z");
        for left_out in [false, true] {
            let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
            let whole = |world: &World| {
                let mut stage = world.stage(Mode::Full);
                world.page(&mut stage, &[titled("y", "new"), titled("z", "new")]);
                stage.take_over();
                stage
            };
            let mut stage = whole(&world);
            let (mut batch, finish) = world.ending(&stage).await;
            batch.treatment = Treatment::HeldWhole("6 of 6".to_owned());
            let now = world.now;
            let held = world.mirror.write(move |writer| {
                writer.apply(&mut stage, &batch, None, &finish)?;
                let digest: String =
                    writer
                        .conn
                        .query_row("SELECT digest FROM holds", [], |row| row.get(0))?;
                writer.approve_source_change(1, &digest, now)
            });
            held.await.unwrap();

            let mut stage = whole(&world);
            if left_out {
                // It was to be asked for by itself, and the answer was unclear.
                stage.leave_out(&id("y")).unwrap();
            }
            let (mut batch, mut finish) = world.ending(&stage).await;
            batch.treatment = Treatment::TakenOver(1);
            finish.restart_at = Some(start);
            assert!(finish.watermark > finish.restart_at, "it goes back");
            let written = world
                .mirror
                .write(move |writer| writer.apply(&mut stage, &batch, None, &finish));
            assert_eq!(written.await.unwrap().created, 2 - u64::from(left_out));
            let source = world.reader().source(&name("acme"), ResourceType::User);
            // Without a watermark the next sync is a full one: nothing else would ever read `y`.
            let expected = (!left_out).then_some(start);
            assert_eq!(source.unwrap().watermark, expected);
            assert_eq!(
                world.ask::<String>("SELECT state FROM instances"),
                "healthy"
            );
            assert_eq!(world.difference(), None);
        }
    }

    #[tokio::test]
    async fn approving_another_change_of_somebody_is_no_proof_that_he_is_gone() {
        let mut world = guarded(&IDS.map(|id| inactive(id, "x"))).await;
        world.sync(&IDS.map(|id| inactive(id, ""))).await;
        assert_eq!(world.ask::<String>("SELECT attribute FROM holds"), "title");
        let mut stage = world.stage(Mode::Incremental);
        let base = stage.base();
        stage.put_gone(base, &id("a"), &proof(world.now)).unwrap();
        let (mut batch, finish) = world.ending(&stage).await;
        batch.treatment = Treatment::Approved(1);
        let applied = world
            .mirror
            .write(move |writer| writer.apply(&mut stage, &batch, None, &finish))
            .await
            .unwrap();
        assert_eq!((applied.updated, applied.deactivated), (0, 0));
        assert!(world.ask::<bool>("SELECT max(gone_at) IS NULL FROM users"));
        // Nor does anybody ask for the title any more.
        assert_eq!(held(&world), "b:title c:title d:title e:title f:title");
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn an_incremental_sync_under_way_writes_nothing_once_it_looks_like_another_directory() {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let mut stage = world.stage(Mode::Incremental);
        world.page(&mut stage, &[titled("a", "y")]);
        let (batch, finish) = world.ending(&stage).await;
        let mut whole = world.stage(Mode::Full);
        world.page(&mut whole, &[titled("z", "new")]);
        whole.take_over();
        whole.put_absent(whole.base(), &id("a")).unwrap();
        let (mut held_whole, end) = world.ending(&whole).await;
        held_whole.treatment = Treatment::HeldWhole("6 of 6".to_owned());
        let head = world.mirror.head();
        let (kept, frozen) = world
            .mirror
            .write(move |writer| {
                let kept = writer.apply(&mut whole, &held_whole, None, &end)?;
                Ok((kept, writer.apply(&mut stage, &batch, None, &finish)?))
            })
            .await
            .unwrap();
        assert_eq!(
            (kept.held, frozen.updated, world.mirror.head()),
            (2, 0, head)
        );
        assert_eq!(
            world.ask::<String>("SELECT state FROM instances"),
            "source_changed"
        );
        assert_eq!(held(&world), "a:all z:all");
        let reader = world.reader();
        let change = reader.source_change(&name("acme")).unwrap();
        assert_eq!(change, super::super::holds::SourceChange::Open(1));
        assert_eq!(world.difference(), None);
    }
}
