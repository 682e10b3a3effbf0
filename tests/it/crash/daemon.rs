//! The daemon is killed at any moment while its directory changes, and told to stop while it is in the
//! middle of something.

use std::time::Duration;

use musterd::sandbox::{Effect, Fault, RequestKind};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::time::Instant;

use super::points::assert_goes_on;
use super::source::Source;
use super::state::{State, verify};
use super::traced::copy_mirror;
use super::workplace;
use crate::harness::{Home, Running, TIME_LIMIT};
use crate::ledger;

/// Kills in each `cargo test`, at least; `MUSTERD_RANDOM_KILLS` makes it more.
const N_KILLS: usize = 20;
/// Records that are written meanwhile, at least: however fast the machine is, enough happens between the kills.
const N_RECORDS: usize = 100;
/// A first sync has about so many events (see [`live_through`]), each later one a few.
const MOST_EVENTS: usize = 40;

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
    let mut n = 0;
    while n < n_kills || last.feed().len() <= N_RECORDS {
        let mut daemon = home.start(&["run"]);
        live_through(&mut daemon, &source, &home, lot.usize(..MOST_EVENTS));
        daemon.kill();
        let ran = daemon.finish(TIME_LIMIT);
        assert_eq!(ran.code, None, "kill {n}: {ran}");
        let left = look(&home);
        assert_goes_on(&last, &left);
        last = left;
        n += 1;
    }

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
    ledger::enter("random_kills", n);
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
    // Few enough that even a slow machine writes them within the time that an end may take.
    let (source, home, daemon) = in_apply(500);
    daemon.terminate();
    daemon.resume();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(home.list("SELECT outcome FROM syncs"), ["succeeded"]);
    source.assert_mirrored_in(&home);
    home.verify();
}

/// The second one does not.
#[test]
fn sigterm_twice() {
    let mut tries = 0..MOST_TRIES;
    let (source, home, ran) = loop {
        tries
            .next()
            .expect("it was always through before the second signal");
        // So many that there is time for a second signal.
        let (source, home, mut daemon) = in_apply(1_500);
        daemon.terminate();
        daemon.resume();
        // Two of one kind that nobody has taken yet are one.
        daemon
            .wait_for(TIME_LIMIT, |line| line.contains("told to stop"))
            .unwrap();
        daemon.pause();
        if !is_through(&home) {
            daemon.terminate();
            daemon.resume();
            break (source, home, daemon.finish(TIME_LIMIT));
        }
    };
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("second signal"), "{ran}");
    assert_eq!(home.one::<i64>("SELECT count(*) FROM users"), 0);
    home.verify();

    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    source.assert_mirrored_in(&home);
}

/// How often a daemon may be faster than the one who looks.
const MOST_TRIES: usize = 20;

/// A daemon that was halted in the middle of the transaction with its first users.
fn in_apply(users: usize) -> (Source, Home, Running) {
    for _ in 0..MOST_TRIES {
        let source = Source::start(users);
        let home = Home::new_in(&workplace(), &[source.instance(QUIET)]);
        let mut daemon = home.start(&["run"]);
        started(&mut daemon);
        // What it writes once it has read is the users.
        let page = source.instance(QUIET).page_size as usize;
        let pages = users.div_ceil(page) as u64;
        let has_read = || source.sandbox.count(RequestKind::List) >= pages;
        until(|| is_through(&home) || has_read() && is_writing(&home));
        daemon.pause();
        if !is_through(&home) && is_writing(&home) {
            return (source, home, daemon);
        }
    }
    panic!("the daemon was faster than the one who looks, each of {MOST_TRIES} times");
}

/// Whether the first transaction with users is there.
fn is_through(home: &Home) -> bool {
    home.one("SELECT count(*) > 0 FROM users")
}

/// Whether somebody has a transaction open that writes the mirror.
fn is_writing(home: &Home) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mirror = Connection::open_with_flags(home.mirror_path(), flags).unwrap();
    mirror.busy_timeout(Duration::ZERO).unwrap();
    mirror
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .unwrap();
    match mirror.execute_batch("BEGIN IMMEDIATE; ROLLBACK") {
        Ok(()) => false,
        Err(error) => {
            assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy));
            true
        }
    }
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

/// Lets it live until so many things have happened to it: its instance has served a request, or its mirror's log
/// has grown or was cut.
fn live_through(daemon: &mut Running, source: &Source, home: &Home, mut n_events: usize) {
    let log = format!("{}-wal", home.mirror_path().display());
    let now = || {
        let log = std::fs::metadata(&log).map_or(0, |log| log.len());
        let requests = [RequestKind::List, RequestKind::Get].map(|kind| source.sandbox.count(kind));
        (requests, log)
    };
    let mut last = now();
    until(|| {
        daemon.is_alive();
        let now = now();
        if now != last {
            last = now;
            n_events = n_events.saturating_sub(1);
        }
        n_events == 0
    });
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
