//! A crawl that is interrupted, and what the next one makes of it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::cases::BY_INDEX;
use super::directory::{Directory, sys_id};
use super::scim::{Odd, WELL_BEHAVED};
use super::{CONCURRENCY, LEAVER, N_USERS, World};
use crate::harness::{TIME_LIMIT, text};

#[test]
fn as_many_requests_at_a_time_as_configured_and_no_more() {
    // Four pages by key are one range, read one after the other; by `startIndex` they are read ahead.
    let world = World::start(Directory::of(N_USERS, sys_id), BY_INDEX);
    world.server.hold_back(|request| request.start_index() > 1);
    let sync = world.home.start(&["sync", "--mode", "full", "--json"]);
    world.server.wait_for_held_back(CONCURRENCY);
    world.server.let_go();
    let ran = sync.finish(TIME_LIMIT);
    world.succeeded(&ran, "complete");
    let retries = text(&world.home.last_sync(), "retries");
    assert_eq!(retries.as_deref(), Some("0"), "nothing timed out");
    assert_eq!(world.server.most_at_once(), CONCURRENCY);
}

/// While pages are on their way one user is deleted before the position and one is hired at the end: the
/// total stays, every later page is off by one, and whoever slips between two pages is still there.
#[test]
fn a_list_that_shifts_while_it_is_read_makes_nobody_leave() {
    let world = World::start(Directory::of(N_USERS, sys_id), BY_INDEX);
    world.baseline();
    let ids = |directory: &Directory| directory.users().map(|(id, _)| id.clone()).collect();
    let ids: Vec<String> = world.server.with(ids);
    let first = (0..N_USERS)
        .find(|n| sys_id(*n) == ids[0])
        .expect("the first");
    let last = (N_USERS..)
        .find(|n| sys_id(*n) > ids[N_USERS - 1])
        .expect("a last");

    world.server.hold_back(|request| request.start_index() > 1);
    let sync = world.home.start(&["sync", "--mode", "full", "--json"]);
    world.server.wait_for_held_back(CONCURRENCY);
    world.server.edit(|directory| {
        directory.leave(first);
        directory.join(last);
    });
    world.server.let_go();
    let ran = sync.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    world.deactivated_at_most(&[&sys_id(first)], &ran);

    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    world.home.verify();
}

/// Killed in the middle of a full crawl: the mirror is as it was, and the next sync finds everything,
/// the leaver too, who left before and was not seen by either part of the crawl.
/// Kills a full sync that has read all but the end of the list.
fn kill_a_full_sync_near_its_end(world: &World) {
    // The last page never comes.
    world.server.hold_back(|request| {
        let last = (0..N_USERS)
            .filter(|n| *n != LEAVER)
            .map(sys_id)
            .collect::<BTreeSet<_>>();
        let after = request
            .query
            .get("filter")
            .and_then(|filter| filter.split('"').nth(1));
        request.id.is_none()
            && request.count() > 1
            && after.is_some_and(|after| {
                last.range::<str, _>((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
                    .count()
                    < 10
            })
    });
    let sync = world.home.start(&["sync", "--mode", "full", "--json"]);
    world.server.wait_for_held_back(1);
    // Dropping it kills it.
    drop(sync);
    world.server.let_go();
}

#[test]
fn what_a_killed_full_sync_read_undoes_nothing_that_was_read_since() {
    let odd = Odd {
        count: |asked| asked.min(2),
        ..WELL_BEHAVED
    };
    let world = World::start(Directory::of(N_USERS, sys_id), odd);
    world.baseline();
    let first = (0..N_USERS).min_by_key(|n| sys_id(*n)).expect("users");
    let (seq, active) = (
        world.seq(),
        format!("SELECT active FROM users WHERE id = '{}'", sys_id(first)),
    );
    world
        .server
        .edit(|directory| directory.set(first, "active", Value::from(false)));
    kill_a_full_sync_near_its_end(&world);
    // Somebody thought better of it, and an incremental sync finds what the mirror has.
    world
        .server
        .edit(|directory| directory.set(first, "active", Value::from(true)));
    let ran = world.home.sync("incremental");
    assert_eq!((ran.code, world.seq()), (Some(0), seq), "{ran}");
    assert!(text(&world.home.last_sync(), "seen").is_some_and(|seen| seen != "0"));

    let ran = world.home.sync("full");
    world.succeeded(&ran, "complete");
    let certificate = text(&world.home.last_sync(), "certificate").expect("a certificate");
    let certificate: Value = serde_json::from_str(&certificate).expect("JSON");
    assert_eq!(certificate["resumed"], Value::from(true), "{certificate}");
    assert!(world.home.one::<bool>(&active));
    assert_eq!(world.seq(), seq, "nothing was written of him");
    world.equals_the_directory(&ran);
    world.home.verify();
}

#[test]
fn a_killed_full_sync_leaves_nothing_half_and_goes_on() {
    // Many small pages: the position is kept every so many.
    let odd = Odd {
        count: |asked| asked.min(2),
        ..WELL_BEHAVED
    };
    let world = World::start(Directory::of(N_USERS, sys_id), odd);
    world.baseline();
    world.server.edit(|directory| {
        directory.leave(LEAVER);
        directory.set(3, "title", Value::from("Principal"));
    });
    let users = world.home.rows("SELECT * FROM users ORDER BY id");
    let asked = world.server.asked().len();
    kill_a_full_sync_near_its_end(&world);
    assert_eq!(world.home.rows("SELECT * FROM users ORDER BY id"), users);
    let by_the_killed = world.server.asked().len() - asked;
    world.home.verify();

    let ran = world.home.sync("full");
    world.succeeded(&ran, "complete");
    let by_the_next = world.server.asked().len() - asked - by_the_killed;
    assert!(
        by_the_next < by_the_killed,
        "{by_the_killed}, then {by_the_next} requests"
    );
    world.equals_the_directory(&ran);
    let certificate = text(&world.home.last_sync(), "certificate").expect("a certificate");
    let certificate: Value = serde_json::from_str(&certificate).expect("JSON");
    assert_eq!(certificate["resumed"], Value::from(true), "{certificate}");
    let left = std::fs::read_dir(world.home.path())
        .expect("the folder")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.contains(".stage-"))
        .collect::<Vec<_>>();
    assert_eq!(left, [""; 0], "staging files are removed after apply");
    world.home.verify();
}

/// Told to stop in the middle of a crawl, a sync ends at once and says so.
#[test]
fn a_sync_told_to_stop_is_cancelled_and_changes_nothing() {
    let world = World::start(Directory::of(N_USERS, sys_id), WELL_BEHAVED);
    world.baseline();
    world.server.edit(|directory| drop(directory.leave(LEAVER)));
    let seq = world.seq();
    world.server.hold_back(|request| request.id.is_none());
    let sync = world.home.start(&["sync", "--mode", "full", "--json"]);
    world.server.wait_for_held_back(1);
    sync.interrupt();
    let ran = sync.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(130), "{ran}");
    assert_eq!(world.seq(), seq);
    world.deactivated_exactly(&[], &ran);
    world.server.let_go();
    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    world.home.verify();
}

/// Credentials that were refused are not tried again before they change (section 7): accounts lock
/// after a few tries.
#[test]
fn refused_credentials_are_tried_few_times_and_not_again_before_they_change() {
    let world = World::start(Directory::of(N_USERS, sys_id), WELL_BEHAVED);
    world.baseline();
    let right = world.server.url();
    world.configure(&right, "a-wrong-token");
    let before = world.server.asked().len();
    let ran = world.home.sync("incremental");
    assert_eq!(ran.code, Some(1), "{ran}");
    let tries = world.server.asked().len() - before;
    assert!((1..=3).contains(&tries), "{tries} tries");

    for mode in ["incremental", "full"] {
        let ran = world.home.sync(mode);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert_eq!(
            world.server.asked().len(),
            before + tries,
            "asked again: {ran}"
        );
    }
    world.deactivated_exactly(&[], &ran);
    for output in [&ran.stdout, &ran.stderr] {
        assert!(
            !output.contains("a-wrong-token"),
            "a secret was printed: {ran}"
        );
    }

    world.configure(&right, super::TOKEN);
    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    assert_eq!(
        world.home.one::<String>("SELECT state FROM instances"),
        "healthy"
    );
    world.home.verify();
}
