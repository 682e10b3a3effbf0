//! Who is gone, by which proof, and who is not believed to be.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::directory::{Directory, sys_id};
use super::scim::{Odd, WELL_BEHAVED};
use super::server::Answer;
use super::{HIRED, LEAVER, N_USERS, World};
use crate::harness::{files, text, untouched};

#[test]
fn leavers_of_one_day_all_go() {
    let world = with_baseline();
    let leavers: BTreeSet<String> = (10..15).map(sys_id).collect();
    for n in 10..15 {
        world.leave(n);
    }
    world.server.edit(|directory| directory.join(HIRED));
    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    let gone = world
        .home
        .list("SELECT id FROM changes WHERE kind = 'deactivate' AND reason = 'gone'");
    assert_eq!(gone.into_iter().collect::<BTreeSet<_>>(), leavers);
    // Each was asked for by itself.
    for id in &leavers {
        let target = format!("/Users/{id}");
        assert!(
            world
                .server
                .asked()
                .iter()
                .any(|asked| asked.ends_with(&target))
        );
    }
    world.home.verify();
}

/// The platform fails whenever it is asked for one of them, for ever: he stays, and hides nobody behind him.
#[test]
fn a_leaver_about_whom_there_is_no_answer_hides_no_other() {
    let world = with_baseline();
    for n in 10..15 {
        world.leave(n);
    }
    let unlucky = (10..15).map(sys_id).min().expect("five of them");
    world.server.turn(Odd {
        one: |answer, request| {
            let unlucky = (10..15).map(sys_id).min();
            if request.id == unlucky {
                *answer = Answer::platform_error(500, "Internal error");
            }
        },
        ..WELL_BEHAVED
    });
    let ran = world.full_until_complete();
    assert_eq!(ran.code, Some(0), "{ran}");
    let gone = "SELECT id FROM changes WHERE reason = 'gone'";
    let gone: BTreeSet<String> = world.home.list(gone).into_iter().collect();
    let others: BTreeSet<String> = (10..15).map(sys_id).filter(|id| *id != unlucky).collect();
    assert_eq!(gone, others);

    world.server.turn(WELL_BEHAVED);
    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    world.home.verify();
}

/// The twin of a company that is out of sight as a whole: one of it is still seen, so the other three are
/// proved gone, by that one.
#[test]
fn a_company_in_sight_lets_its_leavers_go() {
    let world = with_baseline();
    for n in 56..59 {
        world.leave(n);
    }
    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    for row in world
        .home
        .rows("SELECT id, proof FROM changes WHERE reason = 'gone'")
    {
        let proof = text(&row, "proof").expect("a proof");
        assert!(
            proof.contains(&sys_id(59)),
            "the witness is of the company: {proof}"
        );
    }
    assert_eq!(
        world
            .home
            .list("SELECT id FROM changes WHERE reason = 'gone' ORDER BY id"),
        sorted((56..59).map(sys_id))
    );
    world.home.verify();
}

/// Labels that vanish while their ids stay are a change like any other.
#[test]
fn labels_lost_while_their_ids_stay_go_through() {
    let world = with_baseline();
    world.server.turn(Odd {
        user: |user| {
            let extension = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
            for (reference, label) in [("department", "name"), ("manager", "displayName")] {
                let reference = &mut user[extension][reference];
                reference
                    .as_object_mut()
                    .expect("a reference")
                    .remove(label);
            }
        },
        ..WELL_BEHAVED
    });
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    assert_eq!(
        world.home.one::<i64>(
            "SELECT count(*) FROM users WHERE department IS NULL AND department_id IS NOT NULL \
             AND manager IS NULL AND manager_id IS NOT NULL"
        ),
        i64::try_from(N_USERS).expect("sixty")
    );
    world.home.verify();
}

#[test]
fn who_was_gone_returns_to_the_same_row() {
    let world = with_baseline();
    let user = world.leave(LEAVER);
    world.full_until_complete();
    let row = format!(
        "SELECT gone_at IS NOT NULL AND active = 0 FROM users WHERE id = '{}'",
        sys_id(LEAVER)
    );
    assert!(world.home.one::<bool>(&row));

    world
        .server
        .edit(|directory| directory.put_back(LEAVER, user));
    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    assert!(!world.home.one::<bool>(&row));
    let last = world
        .home
        .rows("SELECT kind, reason, changed FROM changes ORDER BY seq DESC LIMIT 1");
    assert_eq!(text(&last[0], "kind").as_deref(), Some("update"));
    assert_eq!(text(&last[0], "reason").as_deref(), Some("returned"));
    let changed: Value = serde_json::from_str(&text(&last[0], "changed").unwrap()).expect("JSON");
    assert_eq!(changed["active"], json!({"from": false, "to": true}));
    assert_eq!(changed["gone_at"]["to"], Value::Null);
    assert_eq!(changed.as_object().map(serde_json::Map::len), Some(2));
    world.home.verify();
}

#[test]
fn a_dry_run_says_what_would_happen_and_writes_nothing() {
    let world = with_baseline();
    world.leave(LEAVER);
    world.server.edit(|directory| directory.join(HIRED));
    let before = files(world.home.path());
    let ran = world
        .home
        .run(&["sync", "--mode", "full", "--dry-run", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    untouched(&before, &files(world.home.path()), "a dry run");
    for id in [LEAVER, HIRED].map(sys_id) {
        assert!(ran.stdout.contains(&id), "the plan names {id}: {ran}");
    }
    world.deactivated_exactly(&[], &ran);
}

fn with_baseline() -> World {
    let world = World::start(Directory::of(N_USERS, sys_id), WELL_BEHAVED);
    world.baseline();
    world
}

fn sorted(ids: impl Iterator<Item = String>) -> Vec<String> {
    let mut ids: Vec<String> = ids.collect();
    ids.sort();
    ids
}

impl World {
    pub(super) fn leave(&self, n: usize) -> Value {
        let mut left = None;
        self.server
            .edit(|directory| left = Some(directory.leave(n)));
        left.expect("somebody left")
    }
}
