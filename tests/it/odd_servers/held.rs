//! What looks as if many had left at once is held, its twin below the limit passes, and what was held
//! goes through when it still stands and a person says so, or resolves itself when it was a mistake.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::directory::{Directory, sys_id};
use super::scim::{Odd, WELL_BEHAVED};
use super::{GETS_TITLE, HIRED, N_USERS, World};
use crate::harness::{Ran, text};

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
    let gone: Vec<String> = world.home.list(&format!(
        "SELECT id FROM changes WHERE hold_id = {id} AND reason = 'gone' AND proof IS NOT NULL ORDER BY id"
    ));
    assert_eq!(gone, sorted((0..17).map(sys_id)));
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
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
    let tables = [
        "syncs",
        "users",
        "changes",
        "holds",
        "hold_changes",
        "fingerprints",
    ];
    let all = || tables.map(|table| world.home.rows(&format!("SELECT * FROM {table}")));
    let before = all();
    let ran = world
        .home
        .run(&["sync", "--mode", "full", "--dry-run", "--json"]);
    assert_eq!(ran.code, Some(3), "{ran}");
    assert_eq!(all(), before);
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

    // It is the same plan.
    world.home.sync("full");
    let ids: BTreeSet<String> = held
        .iter()
        .filter_map(|line| line["id"].as_str())
        .map(str::to_owned)
        .collect();
    let found = world.home.list("SELECT id FROM hold_changes");
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids);
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
    let ran = world.home.sync("full");
    assert_eq!((ran.code, world.seq()), (Some(3), seq), "{ran}");
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
