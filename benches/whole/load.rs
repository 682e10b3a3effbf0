//! The group `load`: large users on large pages; and a sync in which everybody changed, beside which a reader asks each
//! 10 ms and another instance syncs each second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::cli::Sizes;
use crate::daemon::settled;
use crate::directory::{Directory, Shape};
use crate::home::{Home, NEVER, instance};
use crate::measure::StopsWhenDropped;
use crate::server::Server;
use crate::sync::expect;
use crate::table::Figures;

/// Users of the other instance.
const USERS: usize = 500;

/// Between two questions of the reader.
const POLL: Duration = Duration::from_millis(10);

/// How long the other instance is looked at before everybody changes.
const QUIET: Duration = Duration::from_secs(5);

/// Changes of the other instance's directory: each moves its clock by an hour, and it must not pass ours.
const MOST_CHANGES: usize = 600;

pub(crate) fn run(sizes: &Sizes, figures: &mut Figures) {
    large(sizes.large_users, figures);
    beside(sizes.load_users, figures);
}

fn large(users: usize, figures: &mut Figures) {
    let server = Server::start([Directory::new(users, Shape::Large)]);
    let home = Home::new(&server.url, 1, "defaults.page_size = 500\n");
    for (case, created) in [("first full sync", users), ("unchanged", 0)] {
        let (cost, row) = home.sync("full");
        expect(&row, "full", users, [created, 0, 0]);
        let case = format!("5 KB a user, 500 a page: {case}");
        let (bytes, requests) = (home.mirror_bytes(), server.requests());
        figures.add(&case, users, cost, None, bytes, requests);
    }
}

fn beside(users: usize, figures: &mut Figures) {
    let server = Server::start([settled(users, Shape::Usual), settled(USERS, Shape::Usual)]);
    let other = instance(1);
    let each_second = format!(
        "{NEVER}instances.{other}.schedule = {{ incremental = \"* * * * * *\", splay.incremental = \"0s\" }}\n"
    );
    let home = Home::new(&server.url, 2, &each_second);
    let daemon = home.start();
    let reader = home.reader();
    home.wait_for_baselines(&reader);

    let stop = AtomicBool::new(false);
    let (quiet, beside, asked) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| poll(&home.reader(), users, &other, &stop));
        scope.spawn(|| change_each_second(&server, &stop));
        let stops = StopsWhenDropped(&stop);
        // For comparison: the same without the large sync.
        let quiet = now();
        std::thread::sleep(QUIET);
        let quiet = (quiet, now());
        server.directory_mut().change(users);
        let from = now();
        let (cost, row) = home.sync("full");
        let beside = (from, now());
        drop(stops);
        expect(&row, "full", users, [0, users, 0]);
        let case = "all changed in one sync, asked of the daemon: the command";
        figures.add(case, users, cost, None, home.mirror_bytes(), 0);
        (quiet, beside, asking.join().expect("the reader"))
    });

    let mut find = |what: &str, value: f64, unit, goal| {
        let what = format!("all changed in one sync: {what}");
        figures.find(&what, users, value, unit, goal);
    };
    for (name, mut times) in [
        ("a user by name", asked.by_name),
        ("the newest seq", asked.newest),
    ] {
        times.sort_by(f64::total_cmp);
        let last = times.len().checked_sub(1).expect("the reader asked");
        let per_hundred = times[last * 99 / 100] * 1e3;
        find(
            &format!("a reader of {name}, 99 % within"),
            per_hundred,
            " ms",
            None,
        );
        let slowest = times[last] * 1e3;
        find(
            &format!("a reader of {name}, slowest"),
            slowest,
            " ms",
            None,
        );
    }
    let (_, _, longest) = syncs_of(&reader, &other, &asked.syncs, &quiet);
    find(
        "another instance's longest incremental sync before it",
        longest,
        " s",
        None,
    );
    let (syncs, updated, longest) = syncs_of(&reader, &other, &asked.syncs, &beside);
    assert!(
        syncs > 0 && updated > 0,
        "beside it, {syncs} incremental syncs updated {updated} users"
    );
    find(
        "another instance's incremental syncs beside it",
        syncs as f64,
        "",
        None,
    );
    find("the longest of them", longest, " s", Some(1.0));

    let cost = daemon.stop();
    let case = "all changed in one sync: the daemon from start to end";
    figures.add(
        case,
        users,
        cost,
        None,
        home.mirror_bytes(),
        server.requests(),
    );
}

/// The incremental syncs of an instance that began in this time: how many, what they updated, and the seconds of the longest, from its
/// start until a reader saw its row. `finished_at` is taken before the last wait for the writer, so that it does not tell.
fn syncs_of(
    reader: &Connection,
    name: &str,
    seen: &[(String, f64)],
    (from, to): &(String, String),
) -> (i64, i64, f64) {
    let found = reader.query_row(
        "SELECT count(*), coalesce(sum(updated), 0)
         FROM syncs WHERE instance = ?1 AND mode = 'incremental' AND started_at BETWEEN ?2 AND ?3",
        params![name, from, to],
        |row| Ok((row.get(0)?, row.get(1)?)),
    );
    let (syncs, updated) = found.expect("the mirror is readable");
    let longest = seen
        .iter()
        .filter(|(began, _)| (from..=to).contains(&began))
        .map(|(_, seconds)| *seconds)
        .fold(0.0, f64::max);
    (syncs, updated, longest)
}

/// Seconds that each question took.
#[derive(Default)]
struct Asked {
    by_name: Vec<f64>,
    newest: Vec<f64>,
    /// When each incremental sync of the other instance began, and the seconds until its row was seen.
    syncs: Vec<(String, f64)>,
}

/// A reader that does not know of the sync.
fn poll(reader: &Connection, users: usize, other: &str, stop: &AtomicBool) -> Asked {
    let mut by_name = reader
        .prepare("SELECT id, title FROM active_users WHERE instance = 'acme' AND user_name = ?1 COLLATE NOCASE")
        .expect("the view");
    let mut newest = reader
        .prepare("SELECT max(seq) FROM changes")
        .expect("the feed");
    let mut appeared = reader
        .prepare(
            "SELECT id, started_at FROM syncs
             WHERE id > ?1 AND instance = ?2 AND mode = 'incremental' ORDER BY id",
        )
        .expect("the syncs");
    let mut last_sync = 0_i64;
    let mut asked = Asked::default();
    // Every 97th user from the first one on is active: the second ones are not.
    for nth in (0..users).step_by(97).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        let found = by_name.query_row([format!("user.{nth}")], |row| row.get::<_, String>(0));
        asked.by_name.push(began.elapsed().as_secs_f64());
        found.expect("an active user of that name");
        let began = Instant::now();
        let seq = newest.query_row([], |row| row.get::<_, i64>(0));
        asked.newest.push(began.elapsed().as_secs_f64());
        assert!(seq.expect("a record") > 0, "the feed has records");
        let mut rows = appeared
            .query(params![last_sync, other])
            .expect("the mirror is readable");
        while let Some(row) = rows.next().expect("the mirror is readable") {
            last_sync = row.get(0).expect("a number");
            let began: String = row.get(1).expect("a time");
            let started: jiff::Timestamp = began.parse().expect("a time");
            let seconds = jiff::Timestamp::now().duration_since(started);
            asked.syncs.push((began, seconds.as_secs_f64()));
        }
        std::thread::sleep(POLL);
    }
    asked
}

fn change_each_second(server: &Server, stop: &AtomicBool) {
    for _ in 0..MOST_CHANGES {
        server.directory_of(1).change(3);
        for _ in 0..10 {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// As the mirror writes times.
fn now() -> String {
    let now = jiff::Timestamp::now();
    now.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
