//! A script that waits until its own writes are in the mirror.

use std::time::Duration;

use musterd::clock::{Clock as _, SystemClock};
use musterd::sandbox::{Column, Values};
use serde_json::Value;

use crate::harness::served::Served;
use crate::harness::{Home, Ran, Running, TIME_LIMIT};

fn scene() -> (Served, Home) {
    let served = Served::of(12);
    let home = served.home("");
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    (served, home)
}

/// Syncs until the one who waits has seen enough. Dates have whole seconds: the first sync may be too early for it.
fn sync_until_it_ends(home: &Home, mode: &str, waiting: &mut Running) {
    while !waiting.has_ended() {
        let ran = home.sync(mode);
        assert_eq!(ran.code, Some(0), "{ran}");
    }
}

fn ended(waiting: Running) -> Value {
    let ran = waiting.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn a_script_reads_its_own_write() {
    let (served, home) = scene();
    let id = served.sandbox.ids().swap_remove(7);
    let now = SystemClock.now().to_string();
    let wait = ["wait", "acme", "--covers", &now, "--json"];
    let mut waiting = home.start(&wait);
    let retitled = Values::new().with(Column::Title, "Astronaut");
    assert!(served.sandbox.update(&id, &retitled));
    sync_until_it_ends(&home, "incremental", &mut waiting);
    let found = ended(waiting);
    let title = format!("SELECT title FROM users WHERE id = '{id}'");
    assert_eq!(home.one::<String>(&title), "Astronaut");
    let second = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
    let before = found["covered_before"].as_str().unwrap();
    assert!(second(before) > second(&now), "{found}");
    // What is covered already is not waited for.
    assert_eq!(ended(home.start(&wait))["covers"], found["covers"]);
}

#[test]
fn who_is_gone_is_waited_for_with_a_full_sync() {
    let (_served, home) = scene();
    let now = SystemClock.now().to_string();
    let mut stamped = home.start(&["wait", "acme", "--covers", &now, "--json"]);
    let full = ["wait", "acme", "--covers", &now, "--full", "--json"];
    let mut unstamped = home.start(&full);
    sync_until_it_ends(&home, "incremental", &mut stamped);
    let stamped = ended(stamped);
    assert!(!unstamped.has_ended(), "incremental syncs are not enough");
    sync_until_it_ends(&home, "full", &mut unstamped);
    let unstamped = ended(unstamped);
    let mode = |found: &Value| {
        home.one::<String>(&format!(
            "SELECT mode FROM syncs WHERE id = {}",
            found["sync_id"]
        ))
    };
    assert_eq!([mode(&stamped), mode(&unstamped)], ["incremental", "full"]);
}

#[test]
fn it_ends_when_the_time_is_up_or_nothing_will_come() {
    let (_served, home) = scene();
    let wait = |more: &[&str]| -> Ran {
        home.run(&[&["wait", "acme", "--covers", "2999-01-01"], more].concat())
    };
    let ran = wait(&["--timeout", "1s"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(3), ""), "{ran}");
    assert!(ran.stderr.contains("has everything before 20"), "{ran}");

    let text = std::fs::read_to_string(home.config_path()).unwrap();
    let (without, _) = text.split_once("[instances.acme]").unwrap();
    std::fs::write(home.config_path(), without).unwrap();
    let mut daemon = home.start(&["run"]);
    let started = daemon.wait_for(TIME_LIMIT, |line| line.contains("\"started\""));
    started.unwrap();
    let ran = wait(&[]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("not synced any more"), "{ran}");
    daemon.terminate();
    daemon.finish(Duration::from_secs(20));
}
