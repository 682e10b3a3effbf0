//! The group `feed`: a long feed, written by real syncs; reading it, proving it, opening it, and trimming it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cli::Sizes;
use crate::daemon::settled;
use crate::directory::Shape;
use crate::home::Home;
use crate::measure::StopsWhenDropped;
use crate::server::Server;
use crate::sync::expect;
use crate::table::Figures;

/// Records that one command prints.
const SHOWN: usize = 1_000;

/// Everything but the newest record of each user goes: its guards, too, look back no further.
const SHORT: &str = "mirror.history = \"1s\"\n\
                     defaults.guard.deactivations.window = \"1s\"\n\
                     defaults.guard.blanking.window = \"1s\"\n\
                     defaults.guard.memberships.window = \"1s\"\n\
                     defaults.guard.group_memberships.window = \"1s\"\n";

pub(crate) fn run(sizes: &Sizes, figures: &mut Figures) {
    let users = sizes.feed_users;
    let server = Server::start([settled(users, Shape::Slim)]);
    let home = Home::new(&server.url, 1, "");
    let syncs = (sizes.feed_records / users).max(2);
    fill(&server, &home, users, syncs, figures);
    let records = users * syncs;
    server.requests();
    let mut add = |case: &str, cost, requests| {
        let case = format!("{records} records: {case}");
        figures.add(&case, users, cost, None, home.mirror_bytes(), requests);
    };

    let limit = SHOWN.to_string();
    for (where_, after) in [
        ("near the end", records - SHOWN),
        ("in the middle", records / 2),
    ] {
        let after = after.to_string();
        let (cost, said) =
            home.musterd(&["changes", "--after", &after, "--limit", &limit, "--json"]);
        assert_eq!(said.lines().count(), SHOWN, "records behind {after}");
        add(
            &format!("changes --after {where_}, {SHOWN} of them"),
            cost,
            0,
        );
    }
    let id = server.directory().somebody().to_owned();
    let (_, help) = home.musterd(&["user", "--help"]);
    let history = help.contains("--history");
    if history {
        let (cost, said) = home.musterd(&["user", "acme", &id, "--history", "--json"]);
        assert!(said.contains(&id), "`user --history` says: {said}");
        add(&format!("user --history, {syncs} states"), cost, 0);
    }
    let states = states_of(&home, &id, syncs);
    let (cost, _) = home.musterd(&["status"]);
    add("status, which opens the file", cost, 0);
    let (cost, _) = home.musterd(&["verify"]);
    add("verify", cost, 0);
    let (cost, row) = home.sync("incremental");
    expect(&row, "incremental", 1, [0, 0, 0]);
    add("incremental, nothing", cost, server.requests());

    // What was written last is older than this when trimming begins.
    std::thread::sleep(Duration::from_secs(2));
    home.configure(SHORT);
    let stop = AtomicBool::new(false);
    let (cost, longest) = std::thread::scope(|scope| {
        let watching = scope.spawn(|| longest_step(&home, &stop));
        let stops = StopsWhenDropped(&stop);
        let (cost, row) = home.sync("incremental");
        drop(stops);
        expect(&row, "incremental", 1, [0, 0, 0]);
        (cost, watching.join().expect("who looks at the feed"))
    });
    let first = "SELECT last_seq - first_seq FROM feed";
    let left = home
        .reader()
        .query_row(first, [], |row| row.get::<_, i64>(0));
    assert_eq!(left, Ok(0), "only the newest record is left");
    add(
        "incremental, nothing, and trimming all of them",
        cost,
        server.requests(),
    );
    let (cost, _) = home.musterd(&["verify"]);
    add("verify, all trimmed", cost, 0);
    if !history {
        figures.note("this build knows no `user --history`: it was left out");
    }
    let what = format!("{records} records: all {syncs} states of a user in `users_history`");
    figures.find(&what, users, states * 1e3, " ms", None);
    let what = format!("{records} records: longest transaction of trimming");
    figures.find(&what, users, longest, " s", Some(1.0));
}

/// Everybody is created, and changes as often as it takes.
fn fill(server: &Server, home: &Home, users: usize, syncs: usize, figures: &mut Figures) {
    for nth in 0..syncs {
        let counts = match nth {
            0 => [users, 0, 0],
            _ => {
                server.directory_mut().change(users);
                [0, users, 0]
            }
        };
        let (cost, row) = home.sync("full");
        expect(&row, "full", users, counts);
        let requests = server.requests();
        let case = match nth {
            0 => "feed: first full sync of slim users",
            1 => "feed: all changed, the first time",
            _ if nth + 1 == syncs => "feed: all changed, the last time",
            _ => continue,
        };
        figures.add(case, users, cost, None, home.mirror_bytes(), requests);
    }
}

/// Seconds that a reader waits for all states of one user.
fn states_of(home: &Home, id: &str, syncs: usize) -> f64 {
    let reader = home.reader();
    let began = Instant::now();
    let states = reader.query_row(
        "SELECT count(attributes), count(valid_to) FROM users_history WHERE instance = 'acme' AND id = ?1",
        [id],
        |row| Ok([row.get::<_, i64>(0)?, row.get(1)?]),
    );
    let seconds = began.elapsed().as_secs_f64();
    let all = i64::try_from(syncs).expect("a small number");
    assert_eq!(states, Ok([all, all - 1]), "the last state has no end");
    seconds
}

/// Each transaction of trimming moves the feed's first record: the longest time between two moves, in seconds.
fn longest_step(home: &Home, stop: &AtomicBool) -> f64 {
    let reader = home.reader();
    let mut first = reader
        .prepare("SELECT first_seq FROM feed")
        .expect("the feed");
    let mut seen: i64 = 1;
    let mut moved: Option<Instant> = None;
    let mut longest = 0.0_f64;
    while !stop.load(Ordering::Relaxed) {
        let now = first.query_row([], |row| row.get(0)).expect("a feed");
        if now != seen {
            seen = now;
            if let Some(before) = moved.replace(Instant::now()) {
                longest = longest.max(before.elapsed().as_secs_f64());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    longest
}
