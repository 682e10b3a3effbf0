//! What one transaction writes, and what a history of them adds up to.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use proptest::prelude::*;
use rusqlite::types::Value;

use super::super::plan::{Planning, plan};
use super::super::testing::{FULL, How, INCREMENTAL, World, complete, id, proof, titled, user};
use super::super::trim::TrimOptions;
use super::*;
use crate::model::{Kind, Mode, Row};
use crate::reconcile::decode::decode;

/// Everything but what says when a sync last came to its end.
fn content(world: &World) -> BTreeMap<String, Vec<Vec<Value>>> {
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
}

#[tokio::test]
async fn an_unchanged_directory_writes_its_sync_and_nothing_else() {
    let mut world = World::new().await;
    let directory = [
        user(
            "a",
            "2026-01-01T00:00:00Z",
            r#","title":"Agent","active":true"#,
        ),
        titled("b", "Boss"),
        titled("c", "Clerk"),
        titled("d", "Driver"),
    ];
    world.sync(&directory).await;
    let before = content(&world);
    let applied = world.sync(&directory).await;
    let nothing = Applied {
        finished: true,
        ..Applied::default()
    };
    assert_eq!(applied, std::slice::from_ref(&nothing));
    assert_eq!(content(&world), before);
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM syncs"), 2);

    // Another order of members is another fingerprint, and still no change.
    let mut shuffled = directory.clone();
    shuffled[0] = user(
        "a",
        "2026-01-02T00:00:00Z",
        r#","active":true,"title":"Agent""#,
    );
    assert_eq!(world.sync(&shuffled).await, [nothing]);
    let mut after = content(&world);
    assert_ne!(after["fingerprints"], before["fingerprints"]);
    after.insert("fingerprints".into(), before["fingerprints"].clone());
    assert_eq!(after, before);
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn a_user_comes_changes_leaves_and_returns() {
    let mut world = World::new().await;
    let (a, b) = (titled("a", "Agent"), titled("b", "Boss"));
    world.sync(&[a.clone(), b.clone()]).await;
    world.sync(&[titled("a", "Chief"), b.clone()]).await;
    world.sync(std::slice::from_ref(&b)).await;
    let gone: String = world.ask("SELECT gone_at FROM users WHERE id = 'a'");
    assert_eq!(
        gone,
        world.ask::<String>("SELECT max(observed_at) FROM changes")
    );
    // The same bytes as before: the fingerprint must not hide that the user is back.
    world.sync(&[titled("a", "Chief"), b.clone()]).await;
    let inactive = user("b", "2026-02-01T00:00:00Z", r#","active":false"#);
    world.sync(&[titled("a", "Chief"), inactive]).await;

    let reader = world.reader();
    let told: Vec<String> = reader
        .changes(&super::super::read::ChangeQuery {
            limit: 100,
            ..Default::default()
        })
        .unwrap()
        .iter()
        .map(|row| {
            format!(
                "{} {} {} {} {}",
                row.seq, row.sync_id, row.id, row.kind, row.reason
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "1 1 a create baseline",
            "2 1 b create baseline",
            "3 2 a update changed",
            "4 3 a deactivate gone",
            "5 4 a update returned",
            "6 5 b deactivate inactive",
        ]
    );
    assert_eq!(world.difference(), None);
    let health = &reader.health(world.now).unwrap()[0];
    assert_eq!((health.users, health.active), (2, 1));
    assert_eq!(
        world.ask::<String>("SELECT group_concat(id) FROM active_users"),
        "a"
    );
}

#[tokio::test]
async fn a_sync_that_was_killed_between_transactions_is_completed_by_the_next() {
    let mut world = World::new().await;
    let directory: Vec<Row> = ["a", "b", "c", "d", "e"].map(|id| titled(id, "x")).to_vec();
    let killed = How {
        limit: 2,
        transactions: 2,
        ..FULL
    };
    let applied = world.sync_as(killed, &directory).await;
    assert_eq!(applied[0].next_after, Some(id("b")));
    assert_eq!(applied[1].next_after, Some(id("d")));
    assert!(!applied.iter().any(|applied| applied.finished));
    assert_eq!(world.mirror.head(), 4);
    assert_eq!(world.difference(), None);
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM syncs"), 0);
    let untouched =
        "SELECT baseline_at IS NULL AND watermark IS NULL AND last_success_at IS NULL FROM sources";
    assert!(world.ask::<bool>(untouched));

    let rest = world.sync(&directory).await;
    assert_eq!((rest[0].created, rest[0].finished), (1, true));
    assert_eq!(
        world.ask::<String>("SELECT group_concat(seq || id || sync_id) FROM changes"),
        "1a1,2b1,3c1,4d1,5e2"
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn the_counts_of_all_transactions_are_in_the_row_of_the_sync() {
    let mut world = World::new().await;
    let directory: Vec<Row> = ["a", "b", "c", "d", "e"].map(|id| titled(id, "x")).to_vec();
    let small = How { limit: 2, ..FULL };
    assert_eq!(world.sync_as(small, &directory).await.len(), 3);
    let row = "SELECT id || ' ' || seen || ' ' || created || ' ' || outcome FROM syncs";
    assert_eq!(world.ask::<String>(row), "1 5 5 succeeded");
}

#[tokio::test]
async fn only_a_sync_of_several_transactions_ends_one_by_the_clock() {
    let mut world = World::new().await;
    let of = |title| ["a", "b", "c"].map(|id| titled(id, title));
    let slow = |limit| How {
        limit,
        time: Duration::ZERO,
        ..FULL
    };
    // The first sync and a later one, whose records no guard can hold.
    for title in ["x", "y"] {
        assert_eq!(world.sync_as(slow(2), &of(title)).await.len(), 3);
    }
    assert_eq!(world.sync_as(slow(3), &of("z")).await.len(), 1);
    // What a guard may hold is not sure to need more than one.
    let leave = |id| user(id, "2026-01-02T00:00:00Z", r#","active":false,"title":"z""#);
    let leavers = ["a", "b", "c"].map(leave);
    assert_eq!(world.sync_as(slow(2), &leavers).await.len(), 2);
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn what_another_sync_changed_meanwhile_is_asked_for_again() {
    let mut world = World::new().await;
    let (b, c) = (titled("b", "Boss"), titled("c", "Clerk"));
    world
        .sync(&[titled("a", "Agent"), b.clone(), c.clone()])
        .await;

    // A full crawl reads the old title and a new boss; meanwhile an incremental one brings a newer title.
    let mut stage = world.stage(Mode::Full);
    world.page(&mut stage, &[titled("a", "Old"), titled("b", "Bishop")]);
    let newer = user("a", "2026-01-05T00:00:00Z", r#","title":"New""#);
    world.sync_as(INCREMENTAL, &[newer]).await;
    world.page(&mut stage, &[c]);
    assert_eq!(stage.doubtful(&world.reader()).unwrap(), [id("a")]);

    let mut records = Vec::new();
    let (batch, _) = world.ending(&stage).await;
    let mut each = |planning: Planning<'_>| {
        if let Planning::Write(record) = planning {
            records.push((record.id.as_str().to_owned(), record.kind));
        }
    };
    let reader = world.reader();
    plan(&stage, &reader, &batch.watch, &batch.treatment, &mut each).unwrap();
    assert_eq!(records, [("b".to_owned(), Kind::Update)]);

    // One record a transaction: `a` is doubtful long before the end, and not forgotten there.
    let small = How { limit: 1, ..FULL };
    let applied = world.apply(stage, small).await;
    let last = applied.last().unwrap();
    assert_eq!((&*last.doubtful, last.finished), (&[id("a")][..], false));
    assert_eq!(
        world.ask::<String>("SELECT title FROM users WHERE id = 'a'"),
        "New"
    );
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM syncs"), 2);

    let mut stage = world.stage(Mode::Full);
    world.page(
        &mut stage,
        &[
            titled("a", "Old"),
            titled("b", "Bishop"),
            titled("c", "Clerk"),
        ],
    );
    // The stamp went back: a lagging node may have answered. Asked by id, that answer stands.
    assert_eq!(stage.doubtful(&world.reader()).unwrap(), [id("a")]);
    let answer = decode(ResourceType::User, &titled("a", "Old")).unwrap();
    stage.put_asked(world.mirror.base(), answer).unwrap();
    assert!(stage.doubtful(&world.reader()).unwrap().is_empty());
    assert!(world.apply(stage, FULL).await[0].finished);
    assert_eq!(
        world.ask::<String>("SELECT title FROM users WHERE id = 'a'"),
        "Old"
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn an_answer_to_a_doubt_is_applied_wherever_the_transactions_stand() {
    let mut world = World::new().await;
    world
        .sync(&[titled("a", "Agent"), titled("b", "Boss")])
        .await;
    let mut stage = world.stage(Mode::Full);
    world.page(&mut stage, &[titled("a", "Old"), titled("b", "Bishop")]);
    world.sync_as(INCREMENTAL, &[titled("a", "New")]).await;

    let (batch, finish) = world.ending(&stage).await;
    let mut base = world.mirror.base();
    (base.seq, base.tx) = (base.seq + 1, base.tx + 1);
    let answer = decode(ResourceType::User, &titled("a", "Newest")).unwrap();
    let (first, second) = world
        .mirror
        .write(move |writer| {
            let first = writer.apply(&mut stage, &batch, None, &finish)?;
            // Another sync wrote `b` here; the answer about `a` is younger than all of it.
            stage.put_asked(base, answer)?;
            let second = writer.apply(&mut stage, &batch, Some(&id("b")), &finish)?;
            Ok((first, second))
        })
        .await
        .unwrap();
    assert_eq!(
        (first.updated, &*first.doubtful, first.finished),
        (1, &[id("a")][..], false)
    );
    assert_eq!((second.updated, second.finished), (1, true));
    assert_eq!(
        world.ask::<String>("SELECT title FROM users WHERE id = 'a'"),
        "Newest"
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn a_proof_is_void_once_the_user_was_touched() {
    let mut world = World::new().await;
    world
        .sync(&[titled("a", "Agent"), titled("b", "Boss")])
        .await;
    let mut stage = world.stage(Mode::Full);
    world.page(&mut stage, &[titled("b", "Boss")]);
    let reader = world.reader();
    let certificate = complete(1);
    let candidates = stage
        .candidates(&reader, certificate.as_complete().unwrap())
        .unwrap();
    assert_eq!(candidates.len(), 1);
    stage
        .put_gone(world.mirror.base(), &id("a"), &proof(world.now))
        .unwrap();
    world.sync_as(INCREMENTAL, &[titled("a", "New")]).await;
    let applied = world.apply(stage, FULL).await;
    assert_eq!((applied[0].deactivated, applied[0].finished), (0, true));
    assert!(world.ask::<bool>("SELECT active FROM users WHERE id = 'a'"));
}

#[tokio::test]
async fn indexed_columns_follow_their_user() {
    let mut world = World::new().await;
    let named = |title: &str, name: &str, mail: &str| {
        Row {
        id: id("a"),
        modified_at: None,
        raw: format!(
            r#"{{"id":"a","title":"{title}","userName":"{name}","emails":[{{"type":"work","value":"{mail}"}}]}}"#
        )
        .into(),
    }
    };
    for (title, name, mail) in [
        ("x", "ada", "ada@example.org"),
        ("y", "ada", "ada@example.org"),
        ("y", "lovelace", "ada@example.org"),
        ("y", "lovelace", "lovelace@example.org"),
        ("z", "lovelace", ""),
    ] {
        world.sync(&[named(title, name, mail)]).await;
        let found = "SELECT title || ' ' || user_name || ' ' || coalesce(email, '') FROM users";
        let expected = format!("{title} {name} {mail}");
        assert_eq!(world.ask::<String>(found), expected);
        assert_eq!(world.difference(), None);
    }
}

#[tokio::test]
async fn what_does_not_map_costs_itself_only() {
    let mut world = World::new().await;
    let boss = titled("b", "Boss");
    world.sync(&[titled("a", "Agent"), boss.clone()]).await;
    // The mirror has never written such a thing.
    let broken = r#"{"active":true,"id":"a","title":{"x":1}}"#;
    let written = world.mirror.write(move |writer| {
        let sql = "UPDATE users SET attributes = ?1 WHERE id = 'a'";
        Ok(writer.conn.execute(sql, [broken])?)
    });
    assert_eq!(written.await.unwrap(), 1);
    let mut stage = world.stage(Mode::Full);
    world.page(&mut stage, &[boss, titled("c", "Clerk")]);
    world.prove_gone(&mut stage, Mode::Full);
    let applied = world.apply(stage, FULL).await;
    let written = (applied[0].created, applied[0].deactivated);
    assert_eq!((written, applied[0].finished), ((1, 0), true));
    assert_eq!(world.ask::<String>("SELECT key FROM rejects"), "a");
    let rejected = "SELECT group_concat(rejected) FROM syncs";
    assert_eq!(world.ask::<String>(rejected), "0,1");
}

#[tokio::test]
async fn observed_at_never_goes_back_with_the_clock() {
    let mut world = World::new().await;
    world.sync(&[titled("a", "Agent")]).await;
    world.now -= SignedDuration::from_hours(48);
    world.sync(&[titled("a", "Chief")]).await;
    let times = "SELECT count(DISTINCT observed_at) FROM changes";
    assert_eq!((world.mirror.head(), world.ask::<i64>(times)), (2, 1));
    assert_eq!(world.difference(), None);
}

/// One step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// These users are all there are, with these titles; by one sync that may be killed.
    Full(BTreeMap<u8, u8>, usize),
    /// These were changed.
    Incremental(BTreeMap<u8, u8>),
    /// The clock jumps by so many minutes.
    Clock(i64),
    /// Trims what is older than so many minutes.
    Trim(i64, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let users = || proptest::collection::btree_map(0..7_u8, 0..4_u8, 0..7);
    let step = prop_oneof![
        4 => (users(), prop_oneof![Just(usize::MAX), 1..3_usize]).prop_map(|(users, kill)| Step::Full(users, kill)),
        2 => users().prop_map(Step::Incremental),
        1 => (-90..90_i64).prop_map(Step::Clock),
        2 => (0..20_i64, 1..5_usize).prop_map(|(age, batch)| Step::Trim(age, batch)),
    ];
    proptest::collection::vec(step, 1..9)
}

fn rows(users: &BTreeMap<u8, u8>) -> Vec<Row> {
    let row = |(id, state): (&u8, &u8)| {
        let id = format!("u{id}");
        match state {
            0 => user(&id, "2026-01-01T00:00:00Z", r#","active":false"#),
            1 => user(&id, "yesterday", ""),
            more => titled(&id, &format!("t{more}")),
        }
    };
    users.iter().map(row).collect()
}

async fn take_step(world: &mut World, step: &Step) {
    match step {
        Step::Full(users, transactions) => {
            let how = How {
                limit: 2,
                transactions: *transactions,
                ..FULL
            };
            let rows = rows(users);
            // Without a baseline nobody is absent.
            let absences_count = world.ask("SELECT baseline_at IS NOT NULL FROM sources");
            let applied = world.sync_as(how, &rows).await;
            if absences_count && applied.last().is_some_and(|last| last.finished) {
                let again = world.sync(&rows).await;
                let written = |one: &Applied| one.created + one.updated + one.deactivated;
                assert_eq!(again.iter().map(written).sum::<u64>(), 0, "{step:?}");
            }
        }
        Step::Incremental(users) => {
            world.sync_as(INCREMENTAL, &rows(users)).await;
        }
        Step::Clock(minutes) => world.now += SignedDuration::from_mins(*minutes),
        Step::Trim(age, batch) => {
            let before = world.now - SignedDuration::from_mins(*age);
            let options = TrimOptions {
                changes_before: Some(before),
                syncs_before: before,
                batch: *batch,
            };
            let mut more = true;
            while more {
                more = world
                    .mirror
                    .write(move |writer| writer.trim(&options))
                    .await
                    .unwrap();
                assert_eq!(world.difference(), None, "{step:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_fingerprint_saves_work_and_changes_nothing(
        directories in proptest::collection::vec(proptest::collection::btree_map(0..7_u8, 0..4_u8, 1..7), 2..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut quick, mut slow) = (World::new().await, World::new().await);
            for directory in &directories {
                let rows = rows(directory);
                quick.sync(&rows).await;
                // Without them all is decoded, staged, and compared in full.
                let conn = Connection::open(slow.path()).unwrap();
                conn.execute("DELETE FROM fingerprints", []).unwrap();
                slow.sync(&rows).await;
            }
            let tables = [&quick, &slow].map(|world| {
                let dump = content(world);
                ["users", "changes"].map(|table| dump[table].clone())
            });
            assert!(!tables[0][1].is_empty());
            assert_eq!(tables[0], tables[1]);
            assert_eq!(slow.difference(), None);
        });
    }

    #[test]
    fn any_history_folds_to_the_mirror_trimmed_guarded_or_not(steps in steps(), guarded: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            if guarded {
                world.limits = super::super::testing::strict();
            }
            for step in &steps {
                take_step(&mut world, step).await;
                assert_eq!(world.difference(), None, "{step:?}");
            }
        });
    }
}
