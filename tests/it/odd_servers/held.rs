//! What looks as if many had left at once is held, its twin below the limit passes, and what was held
//! goes through when it still stands and a person says so, or resolves itself when it was a mistake.

use std::collections::BTreeSet;

use musterd::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::directory::{Directory, sys_id};
use super::scim::{Odd, WELL_BEHAVED};
use super::server::Answer;
use super::{GETS_TITLE, HIRED, N_USERS, World};
use crate::harness::{Ran, Running, TIME_LIMIT, files, text, untouched};

/// Five may go at once: held is what is above `at_least` and above a limit.
const GUARD_AT_LEAST: usize = 5;

#[test]
fn leavers_up_to_the_guard_go_and_one_more_is_held() {
    for n in [GUARD_AT_LEAST, GUARD_AT_LEAST + 1] {
        let world = with_baseline();
        let leavers: BTreeSet<String> = (10..10 + n).map(sys_id).collect();
        world.server.edit(|directory| {
            for n in 10..10 + n {
                directory.leave(n);
            }
            directory.join(HIRED);
        });
        let ran = world.home.sync("full");
        assert_eq!(world.verdict().as_deref(), Some("complete"), "{ran}");
        assert!(
            world.mirrored().contains(&sys_id(HIRED)),
            "creates go through"
        );
        if n == GUARD_AT_LEAST {
            assert_eq!(ran.code, Some(0), "{ran}");
            world.equals_the_directory(&ran);
            let gone = world
                .home
                .list("SELECT id FROM changes WHERE reason = 'gone'");
            assert_eq!(gone.into_iter().collect::<BTreeSet<_>>(), leavers);
        } else {
            world.deactivated_exactly(&[], &ran);
            world.holds_exactly("deactivations", &leavers, &ran);
            // Whom the guard keeps back anyway is not asked for (section 3, Absent).
            assert!(!world.asked_for_any(&leavers));
        }
        world.home.verify();
    }
}

#[test]
fn a_third_hidden_from_the_account_is_held_and_comes_back() {
    let world = with_baseline();
    let hidden: BTreeSet<String> = (0..N_USERS).filter(|n| n % 3 == 0).map(sys_id).collect();
    // Hidden from lists and by id alike, as a row ACL does.
    let away: Vec<(usize, Value)> = (0..N_USERS)
        .filter(|n| n % 3 == 0)
        .map(|n| (n, world.leave(n)))
        .collect();
    world.server.edit(|directory| directory.join(HIRED));

    for _ in 0..2 {
        let ran = world.home.sync("full");
        assert_eq!(world.verdict().as_deref(), Some("complete"), "{ran}");
        world.deactivated_exactly(&[], &ran);
        // The second sync finds the same, and opens nothing new.
        world.holds_exactly("deactivations", &hidden, &ran);
        assert!(world.mirrored().contains(&sys_id(HIRED)));
    }

    world.server.edit(|directory| {
        for (n, user) in away {
            directory.put_back(n, user);
        }
    });
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    assert_eq!(world.home.list("SELECT state FROM holds"), ["resolved"]);
    assert_eq!(
        world.home.list("SELECT DISTINCT state FROM hold_changes"),
        ["resolved"]
    );
    assert_eq!(
        world
            .home
            .one::<i64>("SELECT count(*) FROM changes WHERE kind = 'deactivate'"),
        0
    );
    world.home.verify();
}

/// Four of four of one company are hidden: fewer than the guard would hold, and everybody else is
/// seen. Nobody of that company can witness that the account still sees it.
#[test]
fn a_company_out_of_sight_is_held_whole() {
    let world = with_baseline();
    let hidden: BTreeSet<String> = (56..60).map(sys_id).collect();
    let away: Vec<(usize, Value)> = (56..60).map(|n| (n, world.leave(n))).collect();
    let ran = world.home.sync("full");
    assert_eq!(world.verdict().as_deref(), Some("complete"), "{ran}");
    world.deactivated_exactly(&[], &ran);
    world.holds_exactly("deactivations", &hidden, &ran);

    world.server.edit(|directory| {
        for (n, user) in away {
            directory.put_back(n, user);
        }
    });
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    world.home.verify();
}

#[test]
fn everybody_turning_inactive_is_held_until_a_person_approves_it() {
    let world = with_baseline();
    let everybody: BTreeSet<String> = (0..N_USERS).map(sys_id).collect();
    world.server.edit(|directory| {
        for n in 0..N_USERS {
            directory.set(n, "active", json!(false));
        }
        directory.set(GETS_TITLE, "title", json!("Principal"));
        directory.join(HIRED);
    });
    for mode in ["incremental", "full"] {
        let ran = world.home.sync(mode);
        world.deactivated_exactly(&[], &ran);
        world.holds_exactly("deactivations", &everybody, &ran);
        // Every other change of a user in a hold goes through, and so do creates.
        world.has_title("Principal");
        assert!(world.mirrored().contains(&sys_id(HIRED)));
    }
    world.home.verify();

    let hold = &world.home.rows("SELECT id, digest, count FROM holds")[0];
    let digest = Sha256::digest(
        everybody
            .iter()
            .flat_map(|id| format!("User {id} active\n").into_bytes())
            .collect::<Vec<_>>(),
    );
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(text(hold, "digest").as_deref(), Some(&*digest));
    let id = text(hold, "id").expect("an id");

    // Another set than the one that was shown: nothing happens.
    let seq = world.seq();
    let wrong = "0".repeat(64);
    let ran = world
        .home
        .run(&["holds", "approve", &id, "--digest", &wrong]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert_eq!(world.seq(), seq);
    world.deactivated_exactly(&[], &ran);

    // One is active again meanwhile: the change no longer stands.
    world
        .server
        .edit(|directory| directory.set(0, "active", json!(true)));
    let ran = world
        .home
        .run(&["holds", "approve", &id, "--digest", &digest]);
    assert!(matches!(ran.code, Some(0)), "{ran}");
    let inactive: BTreeSet<String> = world.deactivated().into_iter().collect();
    assert_eq!(inactive, (1..N_USERS).map(sys_id).collect(), "{ran}");
    assert_eq!(
        world.home.list(&format!(
            "SELECT DISTINCT kind || ' ' || reason FROM changes WHERE hold_id = {id}"
        )),
        ["deactivate inactive"]
    );
    assert_eq!(world.home.list("SELECT state FROM holds"), ["approved"]);
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "what was approved does not count: {ran}");
    world.equals_the_directory(&ran);
    world.home.verify();
}

/// A lost field permission: the whole extension turns empty for everybody.
#[test]
fn an_attribute_empty_for_everybody_is_held_and_the_rest_goes_through() {
    let world = with_baseline();
    world
        .server
        .edit(|directory| directory.set(GETS_TITLE, "title", json!("Principal")));
    world.server.turn(Odd {
        user: |user| {
            let extension = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
            user.as_object_mut().expect("a user").remove(extension);
        },
        ..WELL_BEHAVED
    });
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(3), "{ran}");
    world.has_title("Principal");
    let held = world.home.list(
        "SELECT attribute FROM holds WHERE state = 'open' AND guard = 'blanking' ORDER BY attribute",
    );
    // One attribute is one hold, a reference's id and label together.
    assert_eq!(
        held,
        [
            "company",
            "department",
            "employee_number",
            "location",
            "manager"
        ]
    );
    assert_eq!(
        world.home.one::<i64>(
            "SELECT count(*) FROM users WHERE company_id IS NOT NULL AND company IS NOT NULL \
             AND department_id IS NOT NULL AND employee_number IS NOT NULL AND manager_id IS NOT NULL"
        ),
        i64::try_from(N_USERS).expect("sixty"),
        "the mirror keeps the old values"
    );
    world.home.verify();

    world.server.turn(WELL_BEHAVED);
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    assert_eq!(
        world.home.list("SELECT DISTINCT state FROM holds"),
        ["resolved"]
    );
    world.home.verify();
}

/// The instance was replaced by a clone: nobody known is there, and everybody else is unknown.
#[test]
fn another_directory_behind_the_same_url_is_held_whole() {
    let world = with_baseline();
    let old = world.server.with(Directory::clone);
    let seq = world.seq();
    world
        .server
        .edit(|directory| *directory = Directory::of(N_USERS, |n| sys_id(n + 5000)));
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(3), "{ran}");
    assert_eq!(world.seq(), seq, "creates too are held: {ran}");
    assert_eq!(
        world.home.list("SELECT guard || ' ' || state FROM holds"),
        ["source_changed open"]
    );
    assert_eq!(
        world.home.one::<String>("SELECT state FROM instances"),
        "source_changed"
    );
    // Incremental syncs stop: one that is asked for does nothing.
    let ran = world.home.sync("incremental");
    assert_eq!(ran.code, Some(3), "{ran}");
    assert_eq!(world.seq(), seq);
    world.deactivated_exactly(&[], &ran);
    world.home.verify();

    // The right directory is back.
    world.server.edit(|directory| *directory = old);
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    assert_eq!(world.seq(), seq);
    assert_eq!(world.home.list("SELECT state FROM holds"), ["resolved"]);
    assert_eq!(
        world.home.one::<String>("SELECT state FROM instances"),
        "healthy"
    );
}

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

/// Approving that titles turned empty says nothing of who is there at all: that is for a full sync to find.
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
    assert_eq!(ran.code, Some(3), "{ran}");
    let told = format!(
        "failed  {}: it is not shown any more, which a full sync has to find",
        sys_id(4)
    );
    assert!(ran.stdout.lines().any(|line| line == told), "{ran}");
    assert_eq!(world.home.list("SELECT id FROM users_held"), [sys_id(4)]);
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(world.home.list("SELECT state FROM holds"), ["approved"]);
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

/// Six a day would be held; three, and three more within the window, are as many.
#[test]
fn a_slow_bleed_is_caught_over_the_window() {
    let world = with_baseline();
    let turn_inactive = |users: std::ops::Range<usize>| {
        world.server.edit(|directory| {
            for n in users {
                directory.set(n, "active", json!(false));
            }
        });
        world.home.sync("incremental")
    };
    let ran = turn_inactive(0..3);
    assert_eq!(ran.code, Some(0), "{ran}");
    let ran = turn_inactive(3..5);
    assert_eq!(ran.code, Some(0), "five are the most that pass: {ran}");
    let ran = turn_inactive(5..6);
    world.holds_exactly("deactivations", &BTreeSet::from([sys_id(5)]), &ran);
    assert_eq!(
        world.home.one::<String>("SELECT limit_text FROM holds"),
        "6 within 24h: more than 5 and more than 5 % of 60 users"
    );
    // Those of one sync are held together, however few they are.
    let ran = turn_inactive(6..8);
    assert_eq!(ran.code, Some(3), "{ran}");
    assert_eq!(
        world
            .home
            .list("SELECT 'of ' || count FROM holds ORDER BY id"),
        ["of 1", "of 2"]
    );
    assert_eq!(world.deactivated(), sorted((0..5).map(sys_id)));
    world.home.verify();
}

#[test]
fn a_dry_run_shows_what_would_be_held_and_writes_nothing() {
    let world = with_baseline();
    world.server.edit(|directory| {
        for n in 0..N_USERS {
            directory.set(n, "active", json!(false));
        }
        directory.join(HIRED);
    });
    let before = files(world.home.path());
    let ran = world.home.run(&["sync", "--mode", "full", "--dry-run"]);
    assert_eq!(ran.code, Some(3), "{ran}");
    untouched(&before, &files(world.home.path()), "text");
    for told in [
        "(held: active)",
        "would write 1 create, 0 updates, 0 deactivates, and hold 60 changes",
        "would be held: deactivations, 60 changes: 60 within 24h: more than 5 and more than 5 % of 60 users",
    ] {
        assert!(ran.stdout.contains(told), "{told}: {ran}");
    }
    let ran = world
        .home
        .run(&["sync", "--mode", "full", "--dry-run", "--json"]);
    assert_eq!(ran.code, Some(3), "{ran}");
    untouched(&before, &files(world.home.path()), "JSON");
    let lines: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let (sum, planned) = lines.split_last().expect("a sum");
    let held: Vec<&Value> = planned
        .iter()
        .filter(|line| line["held"] == "active")
        .collect();
    assert_eq!(
        (held.len(), &sum["plan"]["held"]),
        (N_USERS, &json!(N_USERS))
    );
    assert_eq!(
        (&sum["plan"]["deactivated"], &sum["plan"]["created"]),
        (&json!(0), &json!(1))
    );

    // It is the same plan, also where the sync does nothing at all (see `dry_run` for the rest).
    world.home.sync("full");
    let ids: BTreeSet<String> = held
        .iter()
        .filter_map(|line| line["id"].as_str())
        .map(str::to_owned)
        .collect();
    let found = world.home.list("SELECT id FROM hold_changes");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids);
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

/// A person who looks at an instance is told what is held of it, whoever does the work.
#[test]
fn check_names_what_is_held_and_exits_3() {
    let world = with_baseline();
    let ran = world.home.run(&["check"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    world.hold_on_ten_inactive();
    let daemon = world.daemon();
    let ran = world.home.run(&["check", "odd"]);
    assert_eq!(ran.code, Some(3), "{ran}");
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    let ran = world.home.run(&["check", "odd"]);
    assert_eq!(ran.code, Some(3), "{ran}");
    let told = "deactivations, 10 changes: see `musterd holds show 1`";
    assert!(ran.stdout.contains(told), "{ran}");
    assert_eq!(
        world
            .home
            .list("SELECT state || ' ' || open_holds FROM mirror_health"),
        ["healthy 1"]
    );
    let ran = world.home.run(&["check", "--json"]);
    assert_eq!(ran.code, Some(3), "{ran}");
    let found: Value = serde_json::from_str(&ran.stdout).expect("one line");
    assert_eq!(
        (
            &found["holds"][0]["id"],
            &found["holds"][0]["held"],
            &found["total"]
        ),
        (&json!(1), &json!(10), &json!(60))
    );
    // Only the configuration is looked at, and that is in order.
    let ran = world.home.run(&["check", "--offline"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    // A failure counts for more, and what is held is still named.
    world.server.turn(Odd {
        list: |answer, _| *answer = Answer::html(503, "down"),
        ..WELL_BEHAVED
    });
    let ran = world.home.run(&["check"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stdout.contains(told), "{ran}");
}

/// Exit code 3 also when the daemon does the work, until nothing is held any more.
#[test]
fn a_sync_by_the_daemon_exits_3_while_something_is_held() {
    let world = with_baseline();
    world.hold_on_ten_inactive();
    let daemon = world.daemon();
    for dry_run in [&["--dry-run"][..], &[]] {
        let ran = world
            .home
            .run(&[&["sync", "--mode", "full"][..], dry_run].concat());
        assert_eq!(ran.code, Some(3), "{dry_run:?}: {ran}");
    }
    world.server.edit(|directory| {
        for n in 0..10 {
            directory.set(n, "active", json!(true));
        }
    });
    let ran = world.home.run(&["sync"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert!(
        !ran.stderr.contains("changes are held"),
        "told when it opened, by whoever opened it, and not again: {ran}"
    );
    assert_eq!(world.home.list("SELECT state FROM holds"), ["resolved"]);
    assert_eq!(
        world
            .home
            .list("SELECT state || ' ' || open_holds FROM mirror_health"),
        ["healthy 0"]
    );
}

/// Of many users the first are shown, all of them where that is asked for.
#[test]
fn a_hold_of_many_is_cut_and_says_how_to_see_everybody() {
    let world = with_baseline();
    world.server.edit(|directory| {
        for n in 0..N_USERS {
            directory.set(n, "active", json!(false));
        }
    });
    world.home.sync("full");
    let n_people = |ran: &Ran| ran.stdout.matches("says `active: false`").count();
    let cut = world.home.run(&["holds", "show", "1"]);
    assert_eq!((cut.code, n_people(&cut)), (Some(0), 20), "{cut}");
    assert!(
        cut.stdout
            .contains("and 40 more: `musterd holds show 1 --all` shows everybody"),
        "{cut}"
    );
    assert!(cut.stdout.contains("60  are inactive"), "{cut}");
    assert!(
        cut.stdout.lines().all(|line| line.chars().count() <= 80),
        "{cut}"
    );
    let all = world.home.run(&["holds", "show", "1", "--all"]);
    assert_eq!((all.code, n_people(&all)), (Some(0), N_USERS), "{all}");
    let json = world.home.run(&["holds", "show", "1", "--json"]);
    assert_eq!(json.stdout.lines().count(), 1 + N_USERS, "{json}");
    for line in json.stdout.lines().skip(1) {
        let row: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(row["after"]["active"], json!(false));
    }
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

fn sorted(ids: impl Iterator<Item = String>) -> Vec<String> {
    let mut ids: Vec<String> = ids.collect();
    ids.sort();
    ids
}

fn with_baseline() -> World {
    let world = World::start(Directory::of(N_USERS, sys_id), WELL_BEHAVED);
    world.baseline();
    world
}

impl World {
    /// There is one open hold, it names exactly these, and that is told by the exit code.
    #[track_caller]
    fn holds_exactly(&self, guard: &str, ids: &BTreeSet<String>, ran: &Ran) {
        assert_eq!(ran.code, Some(3), "{ran}");
        let holds = self.home.rows("SELECT * FROM holds WHERE state = 'open'");
        assert_eq!(holds.len(), 1, "{holds:?}");
        assert_eq!(text(&holds[0], "guard").as_deref(), Some(guard));
        assert_eq!(text(&holds[0], "count"), Some(ids.len().to_string()));
        let held = self
            .home
            .list("SELECT id FROM hold_changes WHERE state = 'held'");
        assert_eq!(&held.into_iter().collect::<BTreeSet<_>>(), ids, "{ran}");
        assert_eq!(
            &self
                .home
                .list("SELECT id FROM users_held")
                .into_iter()
                .collect::<BTreeSet<_>>(),
            ids
        );
    }

    /// A full sync and its dry run do nothing, exit 3, and give this reason to people and to programs.
    #[track_caller]
    fn says_why_nothing_is_done(&self, why: &str) {
        for args in [&["--dry-run"][..], &[]] {
            let args = [&["sync", "--mode", "full"][..], args].concat();
            let ran = self.home.run(&args);
            assert_eq!(ran.code, Some(3), "{ran}");
            let line = format!("odd: {why}");
            assert!(ran.stdout.lines().any(|told| told == line), "{ran}");
            let ran = self.home.run(&[&args[..], &["--json"]].concat());
            assert_eq!(ran.code, Some(3), "{ran}");
            let note = json!({ "instance": "odd", "note": why });
            let is_note = |told: &str| serde_json::from_str::<Value>(told).expect("JSON") == note;
            assert!(ran.stdout.lines().any(is_note), "{ran}");
        }
    }

    /// Ten turn inactive at once. Returns the id and the digest of the hold.
    fn hold_on_ten_inactive(&self) -> (String, String) {
        self.server.edit(|directory| {
            for n in 0..10 {
                directory.set(n, "active", json!(false));
            }
        });
        let ran = self.home.sync("incremental");
        self.holds_exactly("deactivations", &(0..10).map(sys_id).collect(), &ran);
        self.open_hold()
    }

    /// A daemon that has started.
    fn daemon(&self) -> Running {
        let mut daemon = self.home.start(&["run"]);
        daemon
            .wait_for(TIME_LIMIT, |line| line.contains(r#""message":"started""#))
            .expect("it runs");
        daemon
    }

    /// The id and the digest of the one open hold.
    fn open_hold(&self) -> (String, String) {
        let rows = self
            .home
            .rows("SELECT id, digest FROM holds WHERE state = 'open'");
        let [row] = &rows[..] else {
            panic!("{rows:?}");
        };
        let of = |column| text(row, column).expect("it is there");
        (of("id"), of("digest"))
    }

    fn asked_for_any(&self, ids: &BTreeSet<String>) -> bool {
        self.server.asked().iter().any(|target| {
            ids.iter()
                .any(|id| target.ends_with(&format!("/Users/{id}")))
        })
    }
}
