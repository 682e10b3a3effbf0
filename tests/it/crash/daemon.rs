//! The daemon is killed at any moment while its directory changes, and told to stop while it is in the
//! middle of something.

use std::path::PathBuf;
use std::time::Duration;

use musterd::sandbox::{Effect, Fault, RequestKind};
use tokio::time::Instant;

use super::points::assert_goes_on;
use super::source::Source;
use super::state::{State, verify};
use super::traced::copy_mirror;
use super::workplace;
use crate::harness::{Home, Running, TIME_LIMIT};
use crate::ledger;

/// Kills in each `cargo test`; `MUSTERD_RANDOM_KILLS` makes it more.
const N_KILLS: usize = 20;

/// Nobody is there to approve what a small and busy directory does, and full syncs come often.
const BUSY: &str = "guard.deactivations = { at_least = 100000, count = 100000, percent = 100, window = \"24h\" }\n\
     guard.blanking = { at_least = 100000, count = 100000, percent = 100, window = \"24h\" }\n\
     schedule = { incremental = \"* * * * * *\", full = \"*/3 * * * * *\", splay = { incremental = \"0s\", full = \"0s\" } }";

/// Nothing happens by itself but the sync at the start.
const QUIET: &str = "schedule = { incremental = \"0 0 0 1 1 *\", full = \"0 0 0 1 1 *\" }";

#[test]
fn random_kills() {
    let n_kills = std::env::var("MUSTERD_RANDOM_KILLS").map_or(N_KILLS, |n| {
        n.parse().expect("`MUSTERD_RANDOM_KILLS`: a number")
    });
    let source = Source::alive(60, 900);
    let home = Home::new_in(&workplace(), &[source.instance(BUSY)]);
    let mut lot = fastrand::Rng::with_seed(0xdead);
    let mut last = State::default();
    for n in 0..n_kills {
        let mut daemon = home.start(&["run"]);
        daemon.live(Duration::from_millis(lot.u64(30..1_600)));
        daemon.kill();
        let ran = daemon.finish(TIME_LIMIT);
        assert_eq!(ran.code, None, "kill {n}: {ran}");
        let left = look(&home);
        assert_goes_on(&last, &left);
        last = left;
    }
    assert!(last.feed().len() > 100, "too little happened in between");

    source.sandbox.set_churn(0);
    let mut daemon = home.start(&["run"]);
    started(&mut daemon);
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_goes_on(&last, &State::of(&home.mirror_path()));
    source.assert_mirrored_in(&home);
    let left = "SELECT count(*) FROM changes WHERE kind = 'deactivate'";
    assert!(home.one::<i64>(left) > 0, "leavers went");
    home.verify();
    ledger::enter("random_kills", n_kills);
}

#[test]
fn sigterm_during_crawl() {
    let source = Source::start(60);
    let home = Home::new_in(&workplace(), &[source.instance(QUIET)]);
    stall(&source);
    let mut daemon = home.start(&["run"]);
    started(&mut daemon);
    until(|| has_stalled(&source));
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    let outcomes = home.list("SELECT outcome FROM syncs");
    assert_eq!(outcomes, ["cancelled"]);
    home.verify();

    source.sandbox.set_faults(Vec::new());
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    source.assert_mirrored_in(&home);
}

/// The first signal lets the transaction come to its end.
#[test]
fn sigterm_during_apply() {
    let (source, home) = large();
    let mut daemon = home.start(&["run"]);
    until(|| is_applying(&home));
    daemon.terminate();
    daemon
        .wait_for(TIME_LIMIT, |line| line.contains("\"sync finished\""))
        .unwrap();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(home.list("SELECT outcome FROM syncs"), ["succeeded"]);
    source.assert_mirrored_in(&home);
    home.verify();
}

/// The second one does not.
#[test]
fn sigterm_twice() {
    let (source, home) = large();
    let mut daemon = home.start(&["run"]);
    until(|| is_applying(&home));
    daemon.terminate();
    // Two of one kind that nobody has taken yet are one.
    daemon
        .wait_for(TIME_LIMIT, |line| line.contains("told to stop"))
        .unwrap();
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("second signal"), "{ran}");
    assert_eq!(home.one::<i64>("SELECT count(*) FROM users"), 0);
    home.verify();

    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    source.assert_mirrored_in(&home);
}

/// A directory whose baseline does not fit into the writer's cache.
fn large() -> (Source, Home) {
    let source = Source::start(2_500);
    let home = Home::new_in(&workplace(), &[source.instance(QUIET)]);
    (source, home)
}

/// The log tells from outside: what came before is little.
fn is_applying(home: &Home) -> bool {
    let log = format!("{}-wal", home.mirror_path().display());
    PathBuf::from(log)
        .metadata()
        .is_ok_and(|log| log.len() > 1_000_000)
}

#[test]
fn a_command_is_told_when_the_daemon_dies_meanwhile() {
    let source = Source::start(30);
    let home = Home::new_in(&workplace(), &[source.instance(QUIET)]);
    let mut daemon = home.start(&["run"]);
    daemon
        .wait_for(TIME_LIMIT, |line| line.contains("\"sync finished\""))
        .unwrap();
    stall(&source);
    let handed_over = home.start(&["sync", "--mode", "full"]);
    until(|| has_stalled(&source));
    daemon.kill();
    let ran = handed_over.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("daemon"), "{ran}");
    drop(daemon);
    home.verify();

    source.sandbox.set_faults(Vec::new());
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    source.assert_mirrored_in(&home);
}

/// Reads a copy, so that the next start finds what the kill has left.
fn look(home: &Home) -> State {
    let copy = tempfile::tempdir_in(workplace()).unwrap();
    copy_mirror(home.path(), copy.path());
    let mirror = copy.path().join("mirror.db");
    let state = State::of(&mirror);
    if mirror.exists() {
        verify(&mirror);
    }
    state
}

fn started(daemon: &mut Running) {
    let line = daemon.wait_for(TIME_LIMIT, |line| line.contains("\"started\""));
    line.unwrap();
}

/// The second page and all after it stop in the middle.
fn stall(source: &Source) {
    let stalled = Fault::new(Effect::Stall { share: 0.5 })
        .on(&[RequestKind::List])
        .path("*count=20*");
    source.sandbox.set_faults(vec![stalled]);
}

fn has_stalled(source: &Source) -> bool {
    source.sandbox.fired().iter().any(|fault| fault.times > 0)
}

/// Waits for something that another process does.
fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not come to that");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}
