//! What looks as if many had left at once is held, its twin below the limit passes, and what was held
//! resolves itself when it was a mistake.

mod approved;
mod beside;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

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

    /// A daemon whose first sync is over: it meets nothing of what the test does next.
    fn daemon(&self) -> Running {
        let mut daemon = self.home.start(&["run"]);
        daemon
            .wait_for(TIME_LIMIT, |line| line.contains(r#""message":"started""#))
            .expect("it runs");
        let deadline = Instant::now() + TIME_LIMIT;
        let at_start = "SELECT count(*) FROM syncs WHERE trigger = 'startup'";
        while self.home.one::<i64>(at_start) == 0 {
            assert!(Instant::now() < deadline, "it does not sync at its start");
            std::thread::yield_now();
        }
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
