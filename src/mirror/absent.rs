//! Whom a complete crawl did not see, and who can witness that the account's sight was not lost (promise P1).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use rusqlite::{OptionalExtension as _, params};

use super::column::{count, whole};
use super::due::Lookup;
use super::error::Error;
use super::gate::{Gate, Treatment, Watch};
use super::read::Reader;
use super::stage::{Candidate, Stage, Staged};
use super::staged::Which;
use super::table::{self, of_table};
use crate::model::{CompleteCertificate, ResourceId, ResourceType, Shares};
use crate::reconcile::canonical;
use crate::reconcile::guard::Likeness;

/// Living, seen users remembered of each group. A batch needs two of them; the rest stand in for those who fail.
const WITNESSES_KEPT: usize = 64;

/// What users can share, closest first. A group's key is the id, or the label where there is no id.
const KINDS: [Shares; 3] = [Shares::Company, Shares::Department, Shares::Location];
const GROUP_COLUMNS: &str = "coalesce(company_id, company), coalesce(department_id, department), coalesce(location_id, location)";

/// The same of groups: the instance may show a company for them, and no more.
const COMPANY_OF_GROUP: &str = "json_extract(attributes, '$.\"urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group\".company.value'), NULL, NULL";

fn shared(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::User => GROUP_COLUMNS,
        ResourceType::Group | ResourceType::Membership => COMPANY_OF_GROUP,
    }
}

/// How many of those who were known at the crawl's start are not gone: the count that is kept, less those who came since. The plus
/// keeps the planner to the few rowids; counting all of them reads every page of `users`, a third of what an unchanged sync costs.
fn living_at_start(resource: ResourceType) -> &'static str {
    of_table!(
        resource,
        "SELECT max(0,
             coalesce((SELECT living FROM source_counts WHERE instance = ?1 AND resource = ?2), 0)
             - (SELECT count(*) FROM ",
        " WHERE rowid > ?3 AND +instance = ?1 AND gone_at IS NULL))"
    )
}

/// One user's company, department and location.
type Keys = [Option<String>; 3];

/// A known user whom the crawl did not see.
struct Unseen {
    id: ResourceId,
    active: bool,
    /// Whether an open hold keeps it active already.
    held: bool,
    keys: Keys,
}

/// What the mirror knows of one company, department or location, or of the whole instance.
#[derive(Default)]
struct Group {
    /// Living users, candidates included.
    living: u64,
    active: Vec<ResourceId>,
    inactive: Vec<ResourceId>,
}

impl Stage {
    /// Candidates for absence, in the order of group, then id: known and not gone at the crawl's
    /// start, not seen by it, and with a `changed_seq` that is not above [`Stage::base`]. About whom something is
    /// staged, by an answer or a proof, is no candidate any more. The caller must hold a complete certificate.
    ///
    /// # Errors
    /// Of the databases.
    pub fn candidates(
        &self,
        reader: &Reader,
        _complete: CompleteCertificate<'_>,
    ) -> Result<Vec<Candidate>, Error> {
        let unseen = self.unseen(reader)?;
        if unseen.is_empty() {
            return Ok(Vec::new());
        }
        let groups = self.groups(reader, &unseen)?;
        let mut candidates: Vec<Candidate> =
            unseen.into_iter().map(|one| groups.place(one)).collect();
        candidates.sort_by(|one, other| {
            (one.shares, &one.group, &one.id).cmp(&(other.shares, &other.group, &other.id))
        });
        self.keep_witnesses(&candidates, &groups)?;
        Ok(candidates)
    }

    /// What the crawl tells of the directory behind the instance: by whom it did not see, and by whom it saw as he was before
    /// what the mirror has. An older stamp with nothing to undo, or that undoes only what a hold keeps, says nothing.
    ///
    /// # Errors
    /// Of the databases.
    pub fn likeness(
        &self,
        reader: &Reader,
        watch: &Watch,
        candidates: &[Candidate],
    ) -> Result<Likeness, Error> {
        let instance = self.key.instance.as_str();
        let known: u64 = reader
            .conn
            .prepare_cached(living_at_start(self.key.resource))?
            .query_row(
                params![instance, self.key.resource.as_str(), self.horizon.max_rowid],
                |row| count(row, 0),
            )?;
        let mut lookup = Lookup::new(&reader.conn, watch, watch.now, self)?.taking_over();
        let whole = Treatment::HeldWhole(String::new());
        let mut gate = Gate::new(&reader.conn, watch, &whole, 0)?;
        let mut older = 0;
        self.each_staged(Which::After(None), &mut |staged| {
            if lookup.went_back(&staged)? {
                let id = staged.id.clone();
                let (_, due) = lookup.due(staged, false)?;
                let passed = gate.pass(&mut lookup, &id, due)?;
                older += u64::from(!passed.kept.is_empty());
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let unseen = |held| candidates.iter().filter(|one| held || !one.held).count() as u64;
        Ok(Likeness {
            known,
            unseen: unseen(false),
            seen: known.saturating_sub(unseen(true)),
            older,
        })
    }

    /// Living users whom this crawl saw and who share `group` by `shares` (anybody for
    /// [`Shares::Nothing`]), active ones first, at most `limit`. Knows the groups that the last
    /// [`Stage::candidates`] named, and anybody; nobody of any other group.
    ///
    /// # Errors
    /// Of the databases.
    pub fn witnesses(
        &self,
        reader: &Reader,
        shares: Shares,
        group: &str,
        limit: usize,
    ) -> Result<Vec<ResourceId>, Error> {
        let mut living = reader.conn.prepare_cached(of_table!(
            self.key.resource,
            "SELECT 1 FROM ",
            " WHERE instance = ?1 AND id = ?2 AND gone_at IS NULL"
        ))?;
        let mut kept = self.conn.prepare_cached(
            "SELECT id FROM witnesses WHERE shares = ?1 AND name = ?2 ORDER BY place",
        )?;
        let mut rows = kept.query(params![number(shares), group])?;
        let mut witnesses = Vec::new();
        while witnesses.len() < limit
            && let Some(row) = rows.next()?
        {
            let id: String = row.get(0)?;
            if living.exists((self.key.instance.as_str(), &id))? {
                witnesses.push(ResourceId::new(id));
            }
        }
        if self.takes_over && shares == Shares::Nothing {
            self.add_newcomers(&mut witnesses, limit)?;
        }
        Ok(witnesses)
    }

    /// Another directory may have nobody whom the mirror knows: then whoever this crawl saw active is a
    /// witness as good as any (contract, section 4a).
    fn add_newcomers(&self, witnesses: &mut Vec<ResourceId>, limit: usize) -> Result<(), Error> {
        self.each_staged(Which::After(None), &mut |staged| {
            if witnesses.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            if let Staged::Seen(arrived) = &staged.staged
                && canonical::active(&arrived.canonical).unwrap_or(true)
                && !witnesses.contains(&staged.id)
            {
                witnesses.push(staged.id.clone());
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The unseen of those who were known, with what they could share. Reads an index; rows only of the unseen.
    fn unseen(&self, reader: &Reader) -> Result<Vec<Unseen>, Error> {
        let mut known = reader.conn.prepare_cached(of_table!(
            self.key.resource,
            "SELECT rowid FROM ",
            " WHERE instance = ?1 AND rowid <= ?2"
        ))?;
        let mut candidate = reader.conn.prepare_cached(&format!(
            "SELECT id, active, {} FROM {}
             WHERE rowid = ?1 AND gone_at IS NULL AND changed_seq <= ?2",
            shared(self.key.resource),
            table::name(self.key.resource)
        ))?;
        let mut held = reader.conn.prepare_cached(
            "SELECT 1 FROM hold_changes JOIN holds ON holds.id = hold_id
             WHERE hold_changes.resource = ?1 AND hold_changes.id = ?2 AND hold_changes.state = 'held'
               AND instance = ?3 AND holds.state = 'open' AND guard = 'deactivations'",
        )?;
        let mut unseen = Vec::new();
        let instance = self.key.instance.as_str();
        let mut rows = known.query(params![instance, self.horizon.max_rowid])?;
        while let Some(row) = rows.next()? {
            let rowid: i64 = row.get(0)?;
            if self.seen.has(rowid) {
                continue;
            }
            let found = candidate
                .query_row(params![rowid, self.horizon.base.seq], |row| {
                    let id: String = row.get(0)?;
                    Ok(Unseen {
                        held: false,
                        active: row.get(1)?,
                        keys: keys(row, 2)?,
                        id: ResourceId::new(id),
                    })
                })
                .optional()?;
            if let Some(mut one) = found
                && !self.is_staged(&one.id)?
            {
                let bound = params![self.key.resource.as_str(), one.id.as_str(), instance];
                one.held = held.exists(bound)?;
                unseen.push(one);
            }
        }
        Ok(unseen)
    }

    /// One scan over the living users: how many of them each group of a candidate has, and who can witness for it.
    fn groups(&self, reader: &Reader, unseen: &[Unseen]) -> Result<Groups, Error> {
        let mut groups = Groups::default();
        for (kind, named) in groups.named.iter_mut().enumerate() {
            let keys = unseen.iter().filter_map(|one| one.keys[kind].as_ref());
            named.extend(keys.map(|key| (key.clone(), Group::default())));
        }
        let mut living = reader.conn.prepare_cached(&format!(
            "SELECT rowid, id, active, {} FROM {}
             WHERE instance = ?1 AND gone_at IS NULL ORDER BY rowid",
            shared(self.key.resource),
            table::name(self.key.resource)
        ))?;
        let mut rows = living.query([self.key.instance.as_str()])?;
        while let Some(row) = rows.next()? {
            let id = ResourceId::new(row.get::<_, String>(1)?);
            let active: bool = row.get(2)?;
            let witness = self.seen.has(row.get(0)?) && !self.is_rejected(id.as_str())?;
            for group in groups.of_mut(&keys(row, 3)?) {
                group.living += 1;
                let same = if active {
                    &mut group.active
                } else {
                    &mut group.inactive
                };
                if witness && same.len() < WITNESSES_KEPT {
                    same.push(id.clone());
                }
            }
        }
        Ok(groups)
    }

    fn keep_witnesses(&self, candidates: &[Candidate], groups: &Groups) -> Result<(), Error> {
        self.conn.execute("DELETE FROM witnesses", [])?;
        let mut add = self
            .conn
            .prepare("INSERT INTO witnesses (shares, name, place, id) VALUES (?1, ?2, ?3, ?4)")?;
        let needed: BTreeSet<(Shares, &str)> = candidates
            .iter()
            .map(|candidate| (candidate.shares, candidate.group.as_str()))
            .chain([(Shares::Nothing, "")])
            .collect();
        for (shares, name) in needed {
            let Some(group) = groups.get(shares, name) else {
                continue;
            };
            let kept = group.active.iter().chain(&group.inactive);
            for (place, id) in kept.take(WITNESSES_KEPT).enumerate() {
                add.execute(params![
                    number(shares),
                    name,
                    whole(place as u64),
                    id.as_str()
                ])?;
            }
        }
        Ok(())
    }
}

/// The groups that candidates belong to, and everybody.
#[derive(Default)]
struct Groups {
    named: [BTreeMap<String, Group>; 3],
    everybody: Group,
}

impl Groups {
    fn of_mut<'a>(&'a mut self, keys: &'a Keys) -> impl Iterator<Item = &'a mut Group> {
        let named = self.named.iter_mut().zip(keys);
        named
            .filter_map(|(named, key)| named.get_mut(key.as_deref()?))
            .chain([&mut self.everybody])
    }

    fn get(&self, shares: Shares, name: &str) -> Option<&Group> {
        match KINDS.iter().position(|kind| *kind == shares) {
            Some(kind) => self.named[kind].get(name),
            None => Some(&self.everybody),
        }
    }

    /// The closest group in which the mirror knows somebody else who lives.
    fn place(&self, one: Unseen) -> Candidate {
        let knows_another =
            |shares, key: &str| self.get(shares, key).is_some_and(|group| group.living > 1);
        let closest = KINDS.into_iter().zip(one.keys).find_map(|(shares, key)| {
            Some((shares, key.filter(|key| knows_another(shares, key))?))
        });
        let (shares, group) = closest.unwrap_or((Shares::Nothing, String::new()));
        Candidate {
            id: one.id,
            active: one.active,
            held: one.held,
            shares,
            group,
        }
    }
}

fn keys(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Keys> {
    Ok([row.get(from)?, row.get(from + 1)?, row.get(from + 2)?])
}

/// How the stage's own table spells it.
fn number(shares: Shares) -> u8 {
    match shares {
        Shares::Company => 0,
        Shares::Department => 1,
        Shares::Location => 2,
        Shares::Nothing => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{INCREMENTAL, World, complete, id, plan_of, proof, user};
    use super::*;
    use crate::model::{Mode, Row};

    /// A user with a company, department and location; an upper-case one has no id, only a label.
    fn placed(id: &str, active: bool, places: [&str; 3]) -> Row {
        let mut extension = String::new();
        for (name, place) in ["company", "department", "location"].iter().zip(places) {
            let key = if place.starts_with(char::is_uppercase) {
                "name"
            } else {
                "value"
            };
            if !place.is_empty() {
                let comma = if extension.is_empty() { "" } else { "," };
                extension += &format!(r#"{comma}"{name}":{{"{key}":"{place}"}}"#);
            }
        }
        user(
            id,
            "2026-01-01T00:00:00Z",
            &format!(
                r#","active":{active},"urn:ietf:params:scim:schemas:extension:servicenow:2.0:User":{{{extension}}}"#
            ),
        )
    }

    fn found(stage: &Stage, world: &World) -> Vec<(String, Shares, String)> {
        let certificate = complete(stage.distinct());
        let complete = certificate.as_complete().unwrap();
        let candidates = stage.candidates(&world.reader(), complete).unwrap();
        candidates
            .into_iter()
            .map(|one| (one.id.as_str().to_owned(), one.shares, one.group))
            .collect()
    }

    #[tokio::test]
    async fn each_absent_user_is_placed_with_the_closest_others_who_live() {
        let mut world = World::new().await;
        let directory = [
            placed("a1", true, ["c1", "d1", "l1"]),
            placed("a2", false, ["c1", "d1", "l1"]),
            placed("a3", true, ["c1", "d1", "l1"]),
            placed("a4", true, ["c1", "d1", "l1"]),
            placed("b1", true, ["c2", "d2", "l1"]),
            placed("b2", true, ["", "d2", ""]),
            placed("c1", true, ["c3", "d3", "l1"]),
            placed("d1", true, ["Label", "", ""]),
            placed("d2", true, ["Label", "", ""]),
            placed("e1", true, ["c4", "d4", "l4"]),
            placed("f1", false, ["", "", ""]),
        ];
        world.sync(&directory).await;
        // Two more who are gone already do not live, so they are nobody's others.
        let with_more: Vec<Row> = directory
            .iter()
            .cloned()
            .chain([
                placed("x1", true, ["c3", "d3", ""]),
                placed("x2", true, ["c4", "d4", "l4"]),
            ])
            .collect();
        world.sync(&with_more).await;
        world.sync(&directory).await;

        let mut stage = world.stage(Mode::Full);
        let nonsense = user("a3", "2026-01-01T00:00:00Z", r#","active":5"#);
        world.crawl(
            &mut stage,
            &[
                directory[0].clone(),
                directory[1].clone(),
                nonsense,
                directory[5].clone(),
                directory[8].clone(),
            ],
        );
        let text = |id: &str, shares, group: &str| (id.to_owned(), shares, group.to_owned());
        assert_eq!(
            found(&stage, &world),
            [
                text("d1", Shares::Company, "Label"),
                text("a4", Shares::Company, "c1"),
                text("b1", Shares::Department, "d2"),
                text("c1", Shares::Location, "l1"),
                text("e1", Shares::Nothing, ""),
                text("f1", Shares::Nothing, ""),
            ]
        );
        let reader = world.reader();
        let witnesses = |shares, group: &str, limit| -> String {
            let ids = stage.witnesses(&reader, shares, group, limit).unwrap();
            ids.iter()
                .map(ResourceId::as_str)
                .collect::<Vec<_>>()
                .join(" ")
        };
        // Active ones first, and nobody who could not be read or was not seen.
        assert_eq!(witnesses(Shares::Company, "c1", 9), "a1 a2");
        assert_eq!(witnesses(Shares::Company, "c1", 1), "a1");
        assert_eq!(witnesses(Shares::Company, "Label", 9), "d2");
        assert_eq!(witnesses(Shares::Department, "d2", 9), "b2");
        assert_eq!(witnesses(Shares::Location, "l1", 9), "a1 a2");
        assert_eq!(witnesses(Shares::Nothing, "", 9), "a1 b2 d2 a2");
        assert_eq!(witnesses(Shares::Company, "c9", 9), "");
    }

    #[tokio::test]
    async fn sight_that_was_lost_leaves_no_witness() {
        let mut world = World::new().await;
        let places = ["c1", "d1", "l1"];
        let directory = [
            placed("a", true, places),
            placed("b", true, places),
            placed("z", true, ["", "", ""]),
        ];
        world.sync(&directory).await;
        let mut stage = world.stage(Mode::Full);
        world.page(&mut stage, &[directory[2].clone()]);
        assert_eq!(found(&stage, &world).len(), 2);
        let witnesses = stage
            .witnesses(&world.reader(), Shares::Company, "c1", 9)
            .unwrap();
        assert_eq!(witnesses, []);
        let anybody = stage.witnesses(&world.reader(), Shares::Nothing, "", 9);
        assert_eq!(anybody.unwrap(), [id("z")]);
    }

    #[tokio::test]
    async fn nobody_new_touched_gone_or_answered_is_a_candidate() {
        let mut world = World::new().await;
        let [a, b, c, d, e] = ["a", "b", "c", "d", "e"].map(|id| placed(id, true, ["", "", ""]));
        world
            .sync(&[a.clone(), b.clone(), c.clone(), d.clone(), e.clone()])
            .await;
        world
            .sync(&[a.clone(), b.clone(), c.clone(), d.clone()])
            .await;

        let mut stage = world.stage(Mode::Full);
        world.page(&mut stage, &[a]);
        let touched = placed("b", false, ["", "", ""]);
        world
            .sync_as(INCREMENTAL, &[touched, placed("n", true, ["", "", ""])])
            .await;
        // Neither `e`, who is gone, nor `n`, who came since.
        let reader = world.reader();
        let bound = params!["acme", "User", stage.horizon.max_rowid];
        let living = reader
            .conn
            .query_row(living_at_start(ResourceType::User), bound, |row| {
                count(row, 0)
            });
        assert_eq!(living.unwrap(), 4);
        let plan = plan_of(&reader.conn, living_at_start(ResourceType::User));
        assert!(plan.contains("(rowid>?)"), "{plan}");

        let answer = crate::reconcile::decode::decode(super::super::testing::USER, &c).unwrap();
        stage.put_asked(world.mirror.base(), answer).unwrap();
        assert_eq!(
            found(&stage, &world),
            [("d".to_owned(), Shares::Nothing, String::new())]
        );
        stage
            .put_gone(world.mirror.base(), &id("d"), &proof(world.now))
            .unwrap();
        assert_eq!(found(&stage, &world), []);
        assert_eq!(stage.distinct(), 1);
    }
}
