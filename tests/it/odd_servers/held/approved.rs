//! What was held and a person approves: each user is asked for again, what still stands goes through with its proof,
//! and another directory is taken over whole.

use std::collections::BTreeSet;

use musterd::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::super::N_USERS;
use super::super::directory::{Directory, sys_id};
use super::super::scim::{Odd, WELL_BEHAVED};
use super::super::server::Answer;
use super::{sorted, with_baseline};
use crate::harness::{TIME_LIMIT, text};

/// Whom nobody asked about is asked for when a person approves it, and goes with a proof; who can be seen
/// again does not.
#[test]
fn leavers_that_were_held_unasked_go_with_a_proof_once_approved() {
    let world = with_baseline();
    let mut away: Vec<(usize, Value)> = (0..18).map(|n| (n, world.leave(n))).collect();
    let ran = world.home.sync("full");
    let leavers: BTreeSet<String> = (0..18).map(sys_id).collect();
    world.holds_exactly("deactivations", &leavers, &ran);
    assert!(world.home.one::<bool>(
        "SELECT sum(proof IS NOT NULL) = 0 AND min(path) = 'all' AND max(path) = 'all' FROM hold_changes"
    ));
    let told: Vec<&str> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("changes are held"))
        .collect();
    assert!(
        matches!(told[..], [line] if line.to_lowercase().contains("error")),
        "{ran}"
    );
    let (id, digest) = world.open_hold();

    // The person at night sees who, where, and what the instance said.
    let shown = world.home.run(&["holds", "show", &id]);
    assert_eq!(shown.code, Some(0), "{shown}");
    let name: String = world
        .home
        .one("SELECT display_name FROM users JOIN users_held USING (id) LIMIT 1");
    let company: String = world
        .home
        .one("SELECT company FROM users JOIN users_held USING (id) LIMIT 1");
    for told in [
        &*name,
        &*company,
        &*digest,
        "not shown any more, and not asked for",
    ] {
        assert!(shown.stdout.contains(told), "{told}: {shown}");
    }
    let listed = world.home.run(&["holds", "--json"]);
    assert_eq!(listed.code, Some(3), "{listed}");
    let listed: Value = serde_json::from_str(&listed.stdout).expect("one line");
    assert_eq!(
        (&listed["held"], &listed["guard"]),
        (&json!(18), &json!("deactivations"))
    );

    // An open hold is no reason to write anything, nor to tell of it again.
    let before = world.home.rows("SELECT * FROM hold_changes");
    let (seq, users) = (world.seq(), world.home.rows("SELECT * FROM users"));
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(3), "{ran}");
    assert!(!ran.stderr.contains("changes are held"), "{ran}");
    assert_eq!(world.home.rows("SELECT * FROM hold_changes"), before);
    assert_eq!(
        (world.seq(), world.home.rows("SELECT * FROM users")),
        (seq, users)
    );
    assert_eq!(text(&world.home.last_sync(), "held").as_deref(), Some("0"));

    let (back, user) = away.pop().expect("eighteen");
    world
        .server
        .edit(|directory| directory.put_back(back, user));
    let ran = world
        .home
        .run(&["holds", "approve", &id, "--digest", &digest, "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let results = |result: &str| {
        ran.stdout
            .matches(&format!(r#""result":"{result}""#))
            .count()
    };
    assert_eq!(
        (results("approved"), results("resolved"), results("failed")),
        (17, 1, 0),
        "{ran}"
    );
    // The crawl that did not see them saw all others.
    let n_seen = N_USERS - 18;
    let gone: Vec<String> = world.home.list(&format!(
        "SELECT id FROM changes
         WHERE hold_id = {id} AND reason = 'gone' AND json_extract(proof, '$.distinct') = {n_seen} ORDER BY id"
    ));
    assert_eq!(gone, sorted((0..17).map(sys_id)));
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    world.home.verify();
}

/// Who was held because the instance said `active: false`, and is not shown any more when that is approved, goes
/// with a proof that tells of no complete crawl: there was none that did not see him.
#[test]
fn a_proof_names_no_crawl_that_did_not_look_for_the_user() {
    let world = with_baseline();
    let (id, digest) = world.hold_on_ten_inactive();
    let leaver = sys_id(4);
    world.leave(4);
    let ran = world
        .home
        .run(&["holds", "approve", &id, "--digest", &digest]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let gone = world.home.rows(
        "SELECT id, hold_id, proof, json_extract(proof, '$.status') AS status FROM changes WHERE reason = 'gone'",
    );
    let [record] = &gone[..] else {
        panic!("{gone:?}");
    };
    assert_eq!(text(record, "id"), Some(leaver));
    assert_eq!(text(record, "hold_id"), Some(id));
    assert_eq!(text(record, "status").as_deref(), Some("404"));
    let proof = text(record, "proof").expect("a proof");
    assert!(proof.contains(r#""distinct":null"#), "{proof}");
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    world.home.verify();
}

/// Approving that titles turned empty says nothing of who is there at all, which is for a full sync to find; but whoever is
/// not there asks for no empty title.
#[test]
fn who_vanished_is_not_released_with_a_blanking() {
    let world = with_baseline();
    world.server.edit(|directory| {
        for n in 0..10 {
            directory.set(n, "title", Value::Null);
        }
    });
    let ran = world.home.sync("incremental");
    world.holds_exactly("blanking", &(0..10).map(sys_id).collect(), &ran);
    let (id, digest) = world.open_hold();
    world.leave(4);
    let ran = world
        .home
        .run(&["holds", "approve", &id, "--digest", &digest]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let told = format!("resolved  {}", sys_id(4));
    assert!(ran.stdout.lines().any(|line| line == told), "{ran}");
    assert_eq!(world.home.list("SELECT state FROM holds"), ["approved"]);
    let kept = "SELECT id FROM users WHERE active AND title IS NOT NULL AND id IN (SELECT id FROM hold_changes)";
    assert_eq!(world.home.list(kept), [sys_id(4)]);
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    world.home.verify();
}

/// Told to stop in the middle, by a person or by the service manager, an approval leaves its row and tells of
/// each how far it came; all of them stay held, and the next approval releases them.
#[test]
fn an_approval_that_is_told_to_stop_is_on_record_and_releases_nobody() {
    for by_the_daemon in [false, true] {
        let world = with_baseline();
        let (id, digest) = world.hold_on_ten_inactive();
        let daemon = by_the_daemon.then(|| world.daemon());
        let seq = world.seq();
        let ids = sorted((0..10).map(sys_id));
        world
            .server
            .hold_back(|request| request.id.as_ref() == sorted((0..10).map(sys_id)).get(2));
        let approve = ["holds", "approve", &id, "--digest", &digest, "--json"];
        let approving = world.home.start(&approve);
        world.server.wait_for_held_back(1);
        match &daemon {
            None => approving.interrupt(),
            Some(daemon) => daemon.terminate(),
        }
        let ran = approving.finish(TIME_LIMIT);
        let expected = if by_the_daemon { 1 } else { 130 };
        assert_eq!(ran.code, Some(expected), "{ran}");
        let told: Vec<Value> = ran
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .filter(|line: &Value| line["result"] == "failed")
            .collect();
        let told: Vec<(&Value, &Value)> =
            told.iter().map(|one| (&one["id"], &one["why"])).collect();
        let expected: Vec<(Value, Value)> = ids
            .iter()
            .zip(0..)
            .map(|(id, place)| {
                let what = match place {
                    ..2 => "asked for, but not released",
                    2 => "asked for, but not to the end",
                    _ => "not asked for",
                };
                (json!(id), json!(format!("{what}: told to stop")))
            })
            .collect();
        let expected: Vec<(&Value, &Value)> = expected.iter().map(|(id, why)| (id, why)).collect();
        assert_eq!(told, expected, "{ran}");
        assert_eq!(text(&world.home.last_sync(), "seen").as_deref(), Some("2"));
        world.server.let_go();
        if let Some(daemon) = daemon {
            assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
        }
        let approvals = world
            .home
            .list("SELECT outcome FROM syncs WHERE trigger = 'request' AND certificate IS NULL");
        assert_eq!(approvals, ["cancelled"]);
        assert_eq!(world.seq(), seq);
        assert_eq!(world.home.one::<i64>("SELECT count(*) FROM users_held"), 10);
        assert_eq!(
            world.home.one::<String>("SELECT state FROM instances"),
            "healthy"
        );
        let ran = world.home.run(&approve);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(world.deactivated(), sorted((0..10).map(sys_id)));
        world.home.verify();
    }
}

/// Whether the hold is open still is looked at where its users are released, not where they are asked for.
#[test]
fn a_hold_that_is_resolved_while_its_users_are_asked_for_releases_nobody() {
    let world = with_baseline();
    let (id, digest) = world.hold_on_ten_inactive();
    let daemon = world.daemon();
    let seq = world.seq();
    world
        .server
        .hold_back(|request| request.id.as_deref() == Some(&*sys_id(9)));
    let approving = world
        .home
        .start(&["holds", "approve", &id, "--digest", &digest]);
    world.server.wait_for_held_back(1);
    world.server.edit(|directory| {
        for n in 0..10 {
            directory.set(n, "active", json!(true));
        }
    });
    let ran = world.home.sync("incremental");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.server.let_go();
    let ran = approving.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(1), "{ran}");
    let told = format!("hold {id} is resolved already, nothing was changed");
    assert!(ran.stderr.contains(&told), "{ran}");
    assert_eq!(world.seq(), seq);
    let approval = world
        .home
        .rows("SELECT outcome, error FROM syncs WHERE certificate IS NULL");
    assert_eq!(text(&approval[0], "outcome").as_deref(), Some("failed"));
    assert_eq!(text(&approval[0], "error"), Some(told));
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    world.home.verify();
}

/// A client that goes away cancels nothing: the daemon goes on with what it was asked for.
#[test]
fn an_approval_outlives_the_client_that_asked_the_daemon_for_it() {
    let world = with_baseline();
    let (id, digest) = world.hold_on_ten_inactive();
    let mut daemon = world.daemon();
    world.server.hold_back(|request| request.id.is_some());
    let client = world
        .home
        .start(&["holds", "approve", &id, "--digest", &digest]);
    world.server.wait_for_held_back(1);
    client.interrupt();
    assert_eq!(client.finish(TIME_LIMIT).code, Some(130));
    world.server.let_go();
    daemon
        .wait_for(TIME_LIMIT, |line| {
            line.contains("sync finished") && line.contains(r#""deactivated":10"#)
        })
        .expect("the daemon runs");
    assert_eq!(world.home.list("SELECT state FROM holds"), ["approved"]);
    assert_eq!(world.deactivated(), sorted((0..10).map(sys_id)));
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    world.home.verify();
}

/// Nobody could be asked: the approval failed, which is no trouble of the instance and no end of one.
#[test]
fn an_approval_that_gets_no_answer_releases_nobody_and_exits_1() {
    let world = with_baseline();
    let (id, digest) = world.hold_on_ten_inactive();
    world.server.turn(Odd {
        one: |answer, _| *answer = Answer::html(503, "down"),
        ..WELL_BEHAVED
    });
    let ran = world
        .home
        .run(&["holds", "approve", &id, "--digest", &digest]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(!ran.stderr.contains("started failing"), "{ran}");
    assert_eq!(world.home.one::<i64>("SELECT count(*) FROM users_held"), 10);
    assert_eq!(
        text(&world.home.last_sync(), "outcome").as_deref(),
        Some("failed")
    );
    assert_eq!(
        world.home.one::<String>("SELECT state FROM instances"),
        "healthy"
    );
    // One of them has an answer that says nothing: the others go, and it stays held.
    world.server.turn(Odd {
        one: |answer, request| {
            if request.id.as_deref() == Some(&*sys_id(4)) {
                *answer = Answer::scim_error(400, "invalid");
            }
        },
        ..WELL_BEHAVED
    });
    let ran = world
        .home
        .run(&["holds", "approve", &id, "--digest", &digest]);
    assert_eq!(ran.code, Some(3), "{ran}");
    assert_eq!(
        world.home.list("SELECT id FROM users_held"),
        [sys_id(4)],
        "{ran}"
    );
    assert_eq!(world.home.list("SELECT state FROM holds"), ["open"]);
    assert_eq!(world.deactivated().len(), 9);
    world.home.verify();
}

/// A restore: the same people, as they were and with the stamps that they had. It is held by the share of older
/// stamps; once approved, the watermark goes back, and what is edited from then on is found by incremental syncs.
#[test]
fn a_restored_instance_is_taken_over_with_its_older_stamps() {
    let world = with_baseline();
    let before = world.server.with(Directory::clone);
    world.server.edit(|directory| {
        for n in 0..30 {
            directory.set(n, "title", json!("Principal"));
        }
    });
    let ran = world.home.sync("incremental");
    assert_eq!(ran.code, Some(0), "{ran}");
    let (seq, watermark) = (world.seq(), world.watermark());

    world.server.edit(|directory| *directory = before);
    let ran = world.home.sync("full");
    assert_eq!((ran.code, world.seq()), (Some(3), seq), "{ran}");
    let told = "0 of 60 (0 %) known users were not seen, 30 of 60 (50 %) seen have an older";
    assert!(
        world
            .home
            .one::<String>("SELECT limit_text FROM holds")
            .contains(told)
    );
    assert_eq!(world.watermark(), watermark);
    let (id, digest) = world.open_hold();
    let shown = world.home.run(&["holds", "show", &id]);
    assert!(
        shown
            .stdout
            .contains("30  are other than the mirror has them"),
        "{shown}"
    );
    let approve = ["holds", "approve", &id, "--digest", &digest];
    assert_eq!(world.home.run(&approve).code, Some(0));
    let again = world.home.run(&approve);
    assert_eq!(again.code, Some(1), "once is enough: {again}");
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    assert_eq!(
        world.home.list(&format!(
            "SELECT kind || ' ' || reason || ' ' || count(*) FROM changes WHERE seq > {seq} GROUP BY kind, reason"
        )),
        ["update source_changed 30"]
    );
    let certificate = text(&world.home.last_sync(), "certificate").expect("a certificate");
    let certificate: Value = serde_json::from_str(&certificate).expect("JSON");
    let start = certificate["first_date"].as_str().expect("a date");
    assert_eq!(
        world.watermark().as_deref(),
        Some(start),
        "the crawl's start"
    );

    let now = SystemClock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    world.server.edit(|directory| {
        directory.set_unstamped(3, "title", json!("Restored"));
        directory.set_unstamped(3, "meta", json!({ "lastModified": now }));
    });
    let ran = world.home.sync("incremental");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(
        text(&world.home.last_sync(), "mode").as_deref(),
        Some("incremental")
    );
    assert_eq!(
        world.home.one::<String>(&format!(
            "SELECT title FROM users WHERE id = '{}'",
            sys_id(3)
        )),
        "Restored"
    );
    world.home.verify();
}

/// A clone over the instance, on purpose: once approved, the next complete full sync takes it over, also
/// where its stamps are older.
#[test]
fn another_directory_is_taken_over_once_a_person_says_so() {
    let world = with_baseline();
    world
        .server
        .edit(|directory| *directory = Directory::of(N_USERS, |n| sys_id(n + 40)));
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(3), "{ran}");
    let (id, digest) = world.open_hold();
    assert_eq!(
        world.home.list(
            "SELECT kind || ' ' || count(*) FROM hold_changes WHERE kind <> 'update' GROUP BY kind ORDER BY kind"
        ),
        ["create 40", "deactivate 40"]
    );
    let seq = world.seq();
    // It says why it did nothing, and so does its dry run.
    let told = format!(
        "looks like another directory, so nothing of it is applied: see `musterd holds show {id}`"
    );
    world.says_why_nothing_is_done(&told);
    assert_eq!(world.seq(), seq);
    assert_eq!(
        world.home.one::<i64>("SELECT count(*) FROM holds"),
        1,
        "one hold is enough"
    );

    let ran = world
        .home
        .run(&["holds", "approve", &id, "--digest", &digest]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(world.seq(), seq, "the next full sync applies it");
    let ran = world.home.sync("incremental");
    assert_eq!((ran.code, world.seq()), (Some(3), seq), "{ran}");
    // What comes next is said wherever a person looks, and nobody is asked for nothing.
    let asked = world.server.asked().len();
    let next = "musterd sync odd --mode full";
    for args in [
        &["sync", "--mode", "incremental", "--dry-run"][..],
        &["status"],
        &["holds", "show", &id],
    ] {
        let ran = world.home.run(args);
        let expected = if args[0] == "holds" { 0 } else { 3 };
        assert_eq!(ran.code, Some(expected), "{ran}");
        assert!(ran.stdout.contains(next), "{args:?}: {ran}");
    }
    assert_eq!(world.server.asked().len(), asked);
    let ran = world.home.run(&["check"]);
    assert_eq!(ran.code, Some(3), "{ran}");
    assert!(ran.stdout.contains(next), "{ran}");
    // Only a complete crawl takes it over.
    world.server.turn(Odd {
        total: |honest, _| honest + 7,
        ..WELL_BEHAVED
    });
    let told = "only a complete full sync takes the new directory over, so nothing of this one is applied: \
                `musterd sync odd --mode full` tries again";
    world.says_why_nothing_is_done(told);
    assert_eq!(world.verdict().as_deref(), Some("partial"));
    assert_eq!(world.seq(), seq);
    world.server.turn(WELL_BEHAVED);

    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    assert_eq!(
        world.home.list(&format!(
            "SELECT DISTINCT reason || ' ' || (hold_id = {id}) FROM changes WHERE seq > {seq}"
        )),
        ["source_changed 1"]
    );
    assert_eq!(
        world.home.one::<i64>(
            "SELECT count(*) FROM changes WHERE reason = 'source_changed' AND proof IS NOT NULL"
        ),
        40
    );
    assert_eq!(world.home.list("SELECT state FROM holds"), ["approved"]);
    assert_eq!(
        world.home.one::<String>("SELECT state FROM instances"),
        "healthy"
    );
    world.home.verify();
    let seq = world.seq();
    for mode in ["incremental", "full"] {
        let ran = world.home.sync(mode);
        assert_eq!((ran.code, world.seq()), (Some(0), seq), "{ran}");
    }
}
