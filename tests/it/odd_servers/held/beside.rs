//! Holds beside each other, and what the instance hides while a person approves one of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::directory::{Directory, sys_id};
use super::super::scim::{Odd, WELL_BEHAVED};
use super::super::server::Answer;
use super::super::{N_USERS, World};
use super::{sorted, with_baseline};
use crate::harness::{Ran, TIME_LIMIT, text};

impl World {
    /// Approves the open hold of an attribute, or of a guard.
    fn approve(&self, of: &str) -> (String, Ran) {
        let rows = self.home.rows(&format!(
            "SELECT id, digest FROM holds WHERE state = 'open' AND coalesce(attribute, guard) = '{of}'"
        ));
        let [row] = &rows[..] else {
            panic!("{of}: {rows:?}");
        };
        let of = |column| text(row, column).expect("it is there");
        let (id, digest) = (of("id"), of("digest"));
        let ran = self
            .home
            .run(&["holds", "approve", &id, "--digest", &digest]);
        (id, ran)
    }

    fn blank(&self, attribute: &str, users: std::ops::Range<usize>) {
        self.server.edit(|directory| {
            for n in users {
                directory.set(n, attribute, Value::Null);
            }
        });
    }
}

/// Questions by id are broken, and not the users: nobody leaves the hold, whatever a person says.
#[test]
fn a_404_for_everybody_takes_nobody_out_of_a_blanking() {
    let world = with_baseline();
    world.blank("title", 0..10);
    let ran = world.home.sync("incremental");
    world.holds_exactly("blanking", &(0..10).map(sys_id).collect(), &ran);
    world.server.turn(Odd {
        one: |answer, _| *answer = Answer::scim_error(404, "not found"),
        ..WELL_BEHAVED
    });
    let (_, ran) = world.approve("title");
    assert_eq!(ran.code, Some(1), "{ran}");
    let told = "answered 404, as it is for users who should be there";
    let failed = |line: &&str| line.starts_with("failed") && line.ends_with(told);
    assert_eq!(ran.stdout.lines().filter(failed).count(), 10, "{ran}");
    assert_eq!(
        world.home.list("SELECT id FROM users_held ORDER BY id"),
        sorted((0..10).map(sys_id))
    );

    world.server.turn(WELL_BEHAVED);
    let (_, ran) = world.approve("title");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.equals_the_directory(&ran);
    world.home.verify();
}

/// Everybody's title is held, which says of nobody that he is not there.
#[test]
fn whom_a_blanking_holds_may_witness_for_leavers() {
    let world = with_baseline();
    world.blank("title", 0..N_USERS);
    for n in 10..19 {
        world.leave(n);
    }
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(3), "{ran}");
    let (id, ran) = world.approve("deactivations");
    assert_eq!(ran.code, Some(0), "{ran}");
    let gone = format!("SELECT id FROM changes WHERE reason = 'gone' AND hold_id = {id}");
    let gone: BTreeSet<String> = world.home.list(&gone).into_iter().collect();
    assert_eq!(gone, (10..19).map(sys_id).collect());
    let untitled = "SELECT id FROM users WHERE title IS NULL";
    assert!(world.home.list(untitled).is_empty(), "they are held still");
    world.home.verify();
}

/// Of two holds of one list one keeps it whole: the other one cannot be released before, and says so.
#[test]
fn who_approves_part_of_a_list_that_is_held_is_told_which_hold_to_approve_first() {
    let mut directory = Directory::of(N_USERS, sys_id);
    for n in 0..10 {
        let mails = json!([
            {"type": "work", "value": format!("w{n}@example.org")},
            {"type": "home", "value": format!("h{n}@example.org")},
        ]);
        directory.set(n, "emails", mails);
    }
    let world = World::start(directory, WELL_BEHAVED);
    world.baseline();
    world.blank("emails", 0..10);
    let ran = world.home.sync("incremental");
    assert_eq!(ran.code, Some(3), "{ran}");
    let first: String = world
        .home
        .one("SELECT CAST(id AS TEXT) FROM holds WHERE attribute = 'emails'");
    let (_, ran) = world.approve("email");
    assert_eq!(ran.code, Some(3), "{ran}");
    let told =
        format!("hold {first} keeps the whole list that it is part of: approve that one first");
    assert_eq!(ran.stdout.matches(&told).count(), 10, "{ran}");
    for attribute in ["emails", "email"] {
        world.home.verify();
        let (_, ran) = world.approve(attribute);
        assert_eq!(ran.code, Some(0), "{ran}");
    }
    let states = world.home.list("SELECT DISTINCT state FROM holds");
    assert_eq!(states, ["approved"]);
    world.equals_the_directory(&world.home.sync("full"));
    world.home.verify();
}

/// While a person's approval is asking, a full sync finds another directory: it releases nobody, and names that hold.
#[test]
fn an_approval_that_meets_another_directory_names_its_hold() {
    let world = with_baseline();
    let (id, digest) = world.hold_on_ten_inactive();
    let daemon = world.daemon();
    world.server.hold_back(|request| request.id.is_some());
    let approve = ["holds", "approve", &id, "--digest", &digest];
    let approving = world.home.start(&approve);
    world.server.wait_for_held_back(1);
    world
        .server
        .edit(|directory| *directory = Directory::of(N_USERS, |n| sys_id(n + 40)));
    let ran = world.home.sync("full");
    assert_eq!(ran.code, Some(3), "{ran}");
    let other: String = world
        .home
        .one("SELECT CAST(id AS TEXT) FROM holds WHERE guard = 'source_changed'");
    let seq = world.seq();
    world.server.let_go();
    let ran = approving.finish(TIME_LIMIT);
    assert_eq!(world.seq(), seq, "{ran}");
    let told = format!("the instance looks like another directory: settle hold {other} first");
    assert!(ran.stdout.contains(&told), "{ran}");
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    world.home.verify();
}
