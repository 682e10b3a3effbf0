//! The views of the past say at each moment what the feed folds to by then, whatever happened and whatever was trimmed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rusqlite::{Connection, params};

use super::super::apply::Writer;
use super::super::seal::Touched;
use super::super::testing::{plan_of, time};
use super::super::trim::TrimOptions;
use super::super::{Reader, migrate};
use super::*;
use crate::model::{Member, MemberKind, membership};
use crate::reconcile::members;

const INSTANCES: [&str; 2] = ["acme", "globex"];

/// What must be escaped in the ids of memberships is in some of them.
const GROUPS: [&str; 3] = ["g", "a/b", "%2F"];

/// The last one is a group.
const MEMBERS: [&str; 4] = ["u1", "u/2", "%", "g"];

/// Something that happens in an instance: which group or user, and which member.
#[derive(Clone, Copy, Debug)]
enum Step {
    User(usize, bool, u8),
    UserGone(usize),
    Group(usize, bool, u8),
    GroupGone(usize),
    Joins(usize, usize, u8),
    Leaves(usize, usize),
    Dropped,
    /// What was observed before so many minutes ago is trimmed, so many records at most.
    Trimmed(i64, usize),
}

/// A record that was written.
struct Written {
    seq: i64,
    instance: &'static str,
    resource: ResourceType,
    id: String,
    kind: &'static str,
    reason: &'static str,
    after: String,
    has_proof: bool,
    observed_at: String,
}

type Key = (&'static str, &'static str, String);

/// The feed and the tables, written as a sync writes them, and all records that there ever were.
struct Past {
    reader: Reader,
    written: Vec<Written>,
    now: Timestamp,
}

impl Past {
    fn new() -> Self {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate::climb_to_newest(&mut conn).unwrap();
        conn.execute_batch("INSERT INTO feed VALUES ('e', 1, 0)")
            .unwrap();
        let reader = Reader { conn, place: None };
        Self {
            reader,
            written: Vec::new(),
            now: time("2026-03-01T12:00:00Z"),
        }
    }

    fn step(&mut self, instance: &'static str, step: Step) {
        let text = |id: &str, active: bool, n: u8| {
            format!(r#"{{"active":{active},"displayName":"Name {n}","id":"{id}"}}"#)
        };
        match step {
            Step::User(n, active, name) => {
                let id = MEMBERS[n % 3];
                self.put(ResourceType::User, instance, id, &text(id, active, name));
            }
            Step::UserGone(n) => self.gone(ResourceType::User, instance, MEMBERS[n % 3]),
            Step::Group(n, active, name) => {
                let id = GROUPS[n % 3];
                self.put(ResourceType::Group, instance, id, &text(id, active, name));
            }
            Step::GroupGone(n) => {
                let group = GROUPS[n % 3];
                for member in MEMBERS {
                    self.leave(instance, group, member, "gone");
                }
                self.gone(ResourceType::Group, instance, group);
            }
            Step::Joins(group, member, name) => self.join(instance, group, member, name),
            Step::Leaves(group, member) => {
                self.leave(instance, GROUPS[group % 3], MEMBERS[member % 4], "removed");
            }
            Step::Dropped => self.drop_all(instance),
            Step::Trimmed(minutes, batch) => self.trim(minutes, batch),
        }
    }

    fn put(&mut self, resource: ResourceType, instance: &'static str, id: &str, after: &str) {
        match self.state(resource, instance, id) {
            Some(state) if state.canonical == after => {}
            Some(state) => {
                let reason = match state.gone_at {
                    Some(_) => "returned",
                    None => "changed",
                };
                self.write((resource, instance, id), ("update", reason), after, false);
            }
            None => self.write((resource, instance, id), ("create", "new"), after, false),
        }
    }

    fn gone(&mut self, resource: ResourceType, instance: &'static str, id: &str) {
        let living = self
            .state(resource, instance, id)
            .filter(|state| state.gone_at.is_none());
        if let Some(state) = living {
            let after = state.canonical.replace("true", "false");
            self.write(
                (resource, instance, id),
                ("deactivate", "gone"),
                &after,
                true,
            );
        }
    }

    fn join(&mut self, instance: &'static str, group: usize, member: usize, name: u8) {
        let (group, id) = (GROUPS[group % 3], MEMBERS[member % 4]);
        let key = membership::id(group, id);
        let before = self.state(ResourceType::Membership, instance, key.as_str());
        let lives = |state: &Folded| state.gone_at.is_none();
        if !self
            .state(ResourceType::Group, instance, group)
            .is_some_and(|state| lives(&state))
            || before.as_ref().is_some_and(lives)
        {
            return;
        }
        let member = Member {
            id: id.to_owned(),
            kind: if id == "g" {
                MemberKind::Group
            } else {
                MemberKind::User
            },
            label: Some(format!("Label {name}")),
        };
        let reason = if before.is_some() { "returned" } else { "new" };
        let after = members::canonical(group, &member, true);
        let of = (ResourceType::Membership, instance, key.as_str());
        self.write(of, ("create", reason), &after, false);
        self.reader
            .conn
            .execute(
                "INSERT INTO memberships VALUES (?1, ?2, ?3, ?4, ?5, 't', 1, NULL)
                 ON CONFLICT (instance, group_id, member_id) DO UPDATE SET ended_at = NULL",
                params![instance, group, id, member.kind.as_str(), member.label],
            )
            .unwrap();
    }

    fn leave(&mut self, instance: &'static str, group: &str, member: &str, reason: &'static str) {
        let key = membership::id(group, member);
        let of = (ResourceType::Membership, instance, key.as_str());
        let living = self
            .state(of.0, instance, of.2)
            .filter(|state| state.gone_at.is_none());
        if let Some(state) = living {
            let after = state.canonical.replace("true", "false");
            self.write(of, ("deactivate", reason), &after, false);
            self.reader.conn
                .execute(
                    "UPDATE memberships SET ended_at = 't' WHERE instance = ?1 AND group_id = ?2 AND member_id = ?3",
                    [instance, group, member],
                )
                .unwrap();
        }
    }

    /// Everybody leaves the mirror with the instance.
    fn drop_all(&mut self, instance: &'static str) {
        for ((of, resource, id), state) in self.folded(|_| true) {
            if of == instance {
                let of = (resource_of(resource), instance, &*id);
                let after = state.canonical.replace("true", "false");
                self.write(of, ("deactivate", "unlinked"), &after, false);
            }
        }
        self.reader
            .conn
            .execute("DELETE FROM memberships WHERE instance = ?1", [instance])
            .unwrap();
    }

    fn write(
        &mut self,
        (resource, instance, id): (ResourceType, &'static str, &str),
        (kind, reason): (&'static str, &'static str),
        after: &str,
        has_proof: bool,
    ) {
        let written = Written {
            seq: self.written.len() as i64 + 1,
            instance,
            resource,
            id: id.to_owned(),
            kind,
            reason,
            after: after.to_owned(),
            has_proof,
            observed_at: our_text(self.now),
        };
        self.reader.conn
            .execute(
                "INSERT INTO changes (seq, sync_id, instance, resource, id, kind, reason, after, proof, observed_at)
                 VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
                params![
                    written.seq,
                    instance,
                    resource.as_str(),
                    id,
                    kind,
                    reason,
                    after,
                    has_proof.then_some("{}"),
                    written.observed_at
                ],
            )
            .unwrap();
        self.reader
            .conn
            .execute("UPDATE feed SET last_seq = ?1", [written.seq])
            .unwrap();
        self.written.push(written);
    }

    fn trim(&self, minutes: i64, batch: usize) {
        let writer = Writer {
            conn: &self.reader.conn,
            touched: &Touched::default(),
        };
        let options = TrimOptions {
            changes_before: Some(self.now - jiff::SignedDuration::from_mins(minutes)),
            syncs_before: self.now,
            batch,
        };
        writer.trim(&options).unwrap();
    }

    fn state(&self, resource: ResourceType, instance: &'static str, id: &str) -> Option<Folded> {
        let key = (instance, resource.as_str(), id.to_owned());
        self.folded(|_| true).remove(&key)
    }

    /// What all records that fit fold to, with those that are trimmed by now.
    fn folded(&self, fits: impl Fn(&Written) -> bool) -> BTreeMap<Key, Folded> {
        let mut states = BTreeMap::new();
        for written in self.written.iter().filter(|written| fits(written)) {
            let key = (
                written.instance,
                written.resource.as_str(),
                written.id.clone(),
            );
            let input = FoldInput {
                seq: written.seq,
                is_base: false,
                resource: written.resource.as_str(),
                kind: written.kind,
                reason: written.reason,
                has_proof: written.has_proof,
                after: &written.after,
                source_modified_at: None,
                observed_at: &written.observed_at,
            };
            let before = states.remove(&key);
            if let Some(state) = fold(before, &input).unwrap() {
                states.insert(key, state);
            }
        }
        states
    }

    /// The rows of a view that held at a moment.
    fn shown(&self, columns: &str, view: &str, moment: &str) -> BTreeSet<Vec<String>> {
        let sql = format!(
            "SELECT {columns} FROM {view} WHERE valid_from <= ?1 AND (valid_to IS NULL OR valid_to > ?1)"
        );
        let mut rows = self.reader.conn.prepare(&sql).unwrap();
        let n_columns = rows.column_count();
        let rows = rows.query_map([moment], |row| {
            (0..n_columns).map(|place| row.get(place)).collect()
        });
        let rows: Vec<Vec<String>> = rows.unwrap().collect::<Result<_, _>>().unwrap();
        let n_rows = rows.len();
        let rows: BTreeSet<_> = rows.into_iter().collect();
        assert_eq!(rows.len(), n_rows, "{view} has one row for each");
        rows
    }

    /// Views, and what a reader makes of one group, at the moment of a record.
    fn check(&self, moment: &str) {
        let states = self.folded(|written| *written.observed_at <= *moment);
        let of = |wanted: ResourceType| {
            let wanted = wanted.as_str();
            let states = states.iter().filter(move |((_, one, _), _)| *one == wanted);
            states.map(|((instance, _, id), state)| (*instance, id, state))
        };
        let flag = |flag: bool| u8::from(flag).to_string();
        let users: BTreeSet<_> = of(ResourceType::User)
            .map(|(instance, id, state)| {
                let gone = flag(state.gone_at.is_some());
                vec![
                    instance.to_owned(),
                    id.clone(),
                    flag(state.active),
                    gone,
                    state.canonical.clone(),
                ]
            })
            .collect();
        let columns = "instance, id, CAST(active AS TEXT), CAST(gone AS TEXT), attributes";
        assert_eq!(
            self.shown(columns, "users_history", moment),
            users,
            "{moment}"
        );

        let living = |state: &Folded| state.gone_at.is_none();
        let groups: BTreeSet<_> = of(ResourceType::Group)
            .filter(|(.., state)| living(state))
            .map(|(instance, id, state)| {
                vec![
                    instance.to_owned(),
                    id.clone(),
                    flag(state.active),
                    state.canonical.clone(),
                ]
            })
            .collect();
        let columns = "instance, id, CAST(active AS TEXT), attributes";
        assert_eq!(
            self.shown(columns, "groups_history", moment),
            groups,
            "{moment}"
        );

        let memberships: BTreeSet<_> = of(ResourceType::Membership)
            .filter(|(.., state)| living(state))
            .map(|(instance, _, state)| {
                let (group, member) = members::of_canonical(&state.canonical).unwrap();
                let kind = member.kind.as_str().to_owned();
                vec![
                    instance.to_owned(),
                    group,
                    member.id,
                    kind,
                    member.label.unwrap(),
                ]
            })
            .collect();
        let columns = "instance, group_id, member_id, member_type, label";
        let shown = self.shown(columns, "memberships_history", moment);
        assert_eq!(shown, memberships, "{moment}");
        self.check_groups(moment, &states, &memberships);
    }

    /// Whatever was trimmed: of each user and group the truth is said, or that it is not known any more.
    fn check_honesty(&self, moment: &str) {
        let states = self.folded(|written| *written.observed_at <= *moment);
        let at: Timestamp = moment.parse().unwrap();
        for instance in INSTANCES {
            for (resource, ids) in [
                (ResourceType::User, &MEMBERS[..3]),
                (ResourceType::Group, &GROUPS),
            ] {
                for id in ids {
                    let key = (instance, resource.as_str(), (*id).to_owned());
                    let said = self.reader.as_of(resource, instance, id, at).unwrap();
                    match (said, states.get(&key)) {
                        (AsOf::Known(row), Some(state)) => {
                            let attributes = ("attributes", Value::Text(state.canonical.clone()));
                            assert!(row.contains(&attributes), "{instance} {id} at {moment}");
                        }
                        (AsOf::Nobody, None) | (AsOf::Trimmed { .. }, _) => {}
                        other => panic!("{instance} {id} at {moment}: {other:?}"),
                    }
                }
            }
        }
    }

    /// What a reader makes of each group by itself.
    fn check_groups(
        &self,
        moment: &str,
        states: &BTreeMap<Key, Folded>,
        memberships: &BTreeSet<Vec<String>>,
    ) {
        let reader = &self.reader;
        let at: Timestamp = moment.parse().unwrap();
        for instance in INSTANCES {
            for group in GROUPS {
                let key = (instance, "Group", group.to_owned());
                let of_group = |row: &&Vec<String>| row[0] == instance && row[1] == group;
                let expected: BTreeMap<String, String> = memberships
                    .iter()
                    .filter(of_group)
                    .map(|row| {
                        let one = if row[3] == "User" { "User" } else { "Group" };
                        let state = match states.get(&(instance, one, row[2].clone())) {
                            None => "missing",
                            Some(state) if state.gone_at.is_some() => "gone",
                            Some(state) if state.active => "active",
                            Some(_) => "inactive",
                        };
                        (row[2].clone(), state.to_owned())
                    })
                    .collect();
                let found = reader.members_as_of(instance, group, at).unwrap();
                let found: BTreeMap<String, String> = found
                    .into_iter()
                    .map(|member| (member.member_id, member.state))
                    .collect();
                assert_eq!(found, expected, "{instance} {group} at {moment}");
                match (
                    reader.group_as_of(instance, group, at).unwrap(),
                    states.get(&key),
                ) {
                    (AsOf::Known(row), Some(state)) => {
                        let value = |column: &str| {
                            let (_, value) = row.iter().find(|(name, _)| *name == column).unwrap();
                            value.clone()
                        };
                        assert_eq!(value("attributes"), Value::Text(state.canonical.clone()));
                        assert_eq!(value("changed_seq"), Value::Integer(state.changed_seq));
                        let n_members = expected.len() as i64;
                        assert_eq!(value("member_count"), Value::Integer(n_members));
                    }
                    (AsOf::Nobody, None) => {}
                    other => panic!("{instance} {group} at {moment}: {other:?}"),
                }
            }
        }
    }
}

fn resource_of(name: &str) -> ResourceType {
    match name {
        "User" => ResourceType::User,
        "Group" => ResourceType::Group,
        _ => ResourceType::Membership,
    }
}

fn steps() -> impl Strategy<Value = Vec<(usize, bool, Step)>> {
    let place = || 0..4_usize;
    let step = prop_oneof![
        3 => (place(), any::<bool>(), 0..3_u8).prop_map(|(n, active, name)| Step::User(n, active, name)),
        1 => place().prop_map(Step::UserGone),
        4 => (place(), prop::bool::weighted(0.8), 0..3_u8).prop_map(|(n, active, name)| Step::Group(n, active, name)),
        1 => place().prop_map(Step::GroupGone),
        8 => (place(), place(), 0..3_u8).prop_map(|(group, member, name)| Step::Joins(group, member, name)),
        4 => (place(), place()).prop_map(|(group, member)| Step::Leaves(group, member)),
        1 => Just(Step::Dropped),
        1 => (0..9_i64, 1..9_usize).prop_map(|(minutes, batch)| Step::Trimmed(minutes, batch)),
    ];
    let instance = prop::bool::weighted(0.3).prop_map(usize::from);
    prop::collection::vec((instance, any::<bool>(), step), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn as_of_any_record_is_what_the_feed_folds_to_up_to_it(steps in steps()) {
        let mut past = Past::new();
        for (instance, is_later, step) in steps {
            if is_later {
                past.now += jiff::SignedDuration::from_mins(1);
            }
            past.step(INSTANCES[instance], step);
        }
        let first_seq: i64 = past
            .reader
            .conn
            .query_row("SELECT first_seq FROM feed", [], |row| row.get(0))
            .unwrap();
        let kept = past.written.iter().filter(|written| written.seq >= first_seq);
        let moments: BTreeSet<&str> = kept.map(|written| &*written.observed_at).collect();
        for moment in moments {
            past.check(moment);
        }
        for written in &past.written {
            past.check_honesty(&written.observed_at);
        }
    }
}

/// Who was removed and came again was there before, and once that is trimmed nobody says that he was not.
#[test]
fn of_a_time_that_was_trimmed_nobody_is_said_to_have_been_absent() {
    let mut past = Past::new();
    let later = |past: &mut Past| past.now += jiff::SignedDuration::from_mins(1);
    let start = past.now - jiff::SignedDuration::from_mins(1);
    let came = past.now;
    for step in [Step::User(0, true, 0), Step::Group(0, true, 0)] {
        past.step("acme", step);
    }
    later(&mut past);
    past.step("acme", Step::Dropped);
    later(&mut past);
    past.step("globex", Step::User(0, true, 0));
    let begins_at = our_text(past.now);
    later(&mut past);
    for step in [Step::User(0, true, 0), Step::Group(0, true, 0)] {
        past.step("acme", step);
    }
    let of = |past: &Past, moment: Timestamp| {
        let reader = &past.reader;
        [
            reader.user_as_of("acme", MEMBERS[0], moment).unwrap(),
            reader.group_as_of("acme", GROUPS[0], moment).unwrap(),
        ]
    };
    assert!(matches!(of(&past, came), [AsOf::Known(_), AsOf::Known(_)]));
    let nobody = [AsOf::Nobody, AsOf::Nobody];
    assert_eq!(of(&past, start), nobody, "nothing was trimmed");

    // The records of the first life are trimmed, then all but the newest.
    past.trim(1, 4);
    let trimmed = AsOf::Trimmed { since: begins_at };
    let trimmed = [trimmed.clone(), trimmed];
    assert_eq!(of(&past, start), trimmed);
    assert_eq!(of(&past, came), trimmed);
    let between = past.now - jiff::SignedDuration::from_secs(1);
    assert_eq!(of(&past, between), nobody, "the feed reaches back to then");
    past.step("globex", Step::User(1, true, 0));
    past.trim(-1, 99);
    assert_eq!(
        past.reader
            .history(ResourceType::User, "acme", MEMBERS[0])
            .unwrap()
            .len(),
        1
    );
    for moment in [start, came] {
        for of in of(&past, moment) {
            let AsOf::Trimmed { since } = of else {
                panic!("{of:?}")
            };
            assert_eq!(since, our_text(past.now));
        }
    }
}

/// One user, one group, the members of one group, the groups of one member: found by index, whatever the size of the feed.
#[test]
fn of_one_nothing_is_scanned_and_of_all_the_feed_is_read_once() {
    let past = Past::new();
    for (view, one) in [
        ("users_history", "id = 'a'"),
        ("groups_history", "id = 'a'"),
        ("memberships_history", "group_id = 'a'"),
        ("memberships_history", "member_id = 'a'"),
        ("memberships_history", "group_id = 'a' AND member_id = 'b'"),
    ] {
        let at = "valid_from <= '2026' AND (valid_to IS NULL OR valid_to > '2026')";
        let plan = plan_of(
            &past.reader.conn,
            &format!("SELECT * FROM {view} WHERE instance = 'acme' AND {one} AND {at}"),
        );
        for table in [
            "changes",
            "memberships",
            "next",
            "past USING",
            "gone",
            "newer",
        ] {
            assert!(!plan.contains(&format!("SCAN {table} ")), "{one}: {plan}");
        }
        assert!(!plan.contains("AUTOMATIC"), "{one}: {plan}");
        assert!(
            !plan.contains("changes_by_resource (instance=? AND resource=?)"),
            "{plan}"
        );

        // Of everybody each record is looked at once, and the next one is found by index.
        let plan = plan_of(
            &past.reader.conn,
            &format!("SELECT * FROM {view} WHERE {at}"),
        );
        let next =
            "SEARCH next USING INDEX changes_by_resource (instance=? AND resource=? AND id=?";
        assert!(plan.contains(next), "{view}: {plan}");
        assert!(!plan.contains("AUTOMATIC"), "{view}: {plan}");
        assert!(!plan.contains("SCAN next"), "{view}: {plan}");
        let scans = plan.matches("SCAN changes").count();
        assert_eq!(
            scans,
            if view == "memberships_history" { 0 } else { 2 },
            "{view}: {plan}"
        );
    }
}

/// What SQLite does is counted, since time depends on the machine: twice the records, twice the work.
#[test]
fn the_whole_directory_at_a_moment_takes_steps_by_record() {
    let n_steps = |n_users: i64| {
        let past = Past::new();
        let conn = &past.reader.conn;
        conn.execute_batch(&format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {n_users}),
                            times (t) AS (SELECT 0 UNION ALL SELECT t + 1 FROM times WHERE t < 3)
             INSERT INTO changes (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
             SELECT t * 3 * {n_users} + 3 * n + place, 1, 'acme', resource, CASE resource WHEN 'Membership' THEN 'g/' || n ELSE n END,
                    CASE WHEN t % 2 = 0 THEN 'create' ELSE 'deactivate' END, 'new', '{{\"active\":true}}', '2026-01-0' || (t + 1)
             FROM times CROSS JOIN n
             CROSS JOIN (SELECT 0 AS place, 'User' AS resource UNION ALL SELECT 1, 'Group' UNION ALL SELECT 2, 'Membership');
             INSERT INTO memberships
             SELECT 'acme', 'g', substr(id, 3), 'User', NULL, 't', 1, NULL FROM changes WHERE resource = 'Membership' AND seq <= 3 * {n_users} + 2"
        ))
        .unwrap();
        ["users_history", "groups_history", "memberships_history"].map(|view| {
            let at = "valid_from <= '2026-01-03' AND (valid_to IS NULL OR valid_to > '2026-01-03')";
            let mut statement = conn
                .prepare(&format!("SELECT * FROM {view} WHERE {at}"))
                .unwrap();
            let mut rows = statement.raw_query();
            let mut n_rows = 0;
            while rows.next().unwrap().is_some() {
                n_rows += 1;
            }
            drop(rows);
            assert_eq!(n_rows, n_users, "{view}");
            statement.get_status(rusqlite::StatementStatus::VmStep)
        })
    };
    let (few, many) = (n_steps(200), n_steps(2_000));
    for (few, many) in few.into_iter().zip(many) {
        assert!(many < few * 11, "{few} {many}");
    }
}
