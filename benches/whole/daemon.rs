//! The group `daemon`: many instances under one daemon, and what a sync that finds nothing costs it.

use std::time::Instant;

use crate::cli::Sizes;
use crate::directory::{Directory, Shape};
use crate::home::{Home, NEVER};
use crate::measure::Cost;
use crate::server::Server;
use crate::sync::{expect, number};
use crate::table::Figures;

/// Users of each instance.
const USERS: usize = 500;

/// Syncs that are asked for.
const ASKED: usize = 20;

pub(crate) fn run(sizes: &Sizes, figures: &mut Figures) {
    many(sizes, figures);
    nothing(sizes, figures);
}

/// A directory in which somebody was the last one to change: an incremental sync reads that one again.
pub(crate) fn settled(users: usize, shape: Shape) -> Directory {
    let mut directory = Directory::new(users, shape);
    directory.change(users.min(10));
    directory
}

fn many(sizes: &Sizes, figures: &mut Figures) {
    let n = sizes.instances;
    let users = n * USERS;
    let server = Server::start((0..n).map(|_| settled(USERS, Shape::Usual)));
    // The default, unless it is looked at for less than a minute.
    let schedule = match sizes.watched.as_secs() {
        60.. => "defaults.schedule.full = \"0 0 0 29 2 *\"\n",
        _ => {
            "defaults.schedule = { incremental = \"*/5 * * * * *\", full = \"0 0 0 29 2 *\", splay.incremental = \"5s\" }\n"
        }
    };
    let home = Home::new(&server.url, n, schedule);
    let began = Instant::now();
    let daemon = home.start();
    let reader = home.reader();
    home.wait_for_baselines(&reader);
    let wall = began.elapsed().as_secs_f64();
    let so_far = Cost {
        wall_seconds: wall,
        cpu_seconds: daemon.cpu_seconds(),
        ..Cost::default()
    };
    let requests = server.requests();
    let bytes = home.mirror_bytes();
    figures.add(
        &format!("daemon, {n} instances: until all have a baseline"),
        users,
        so_far,
        None,
        bytes,
        requests,
    );
    let files = daemon.open_files() as f64;
    let what = format!("daemon, {n} instances: open files");
    figures.find(&what, users, files, "", None);

    let ended = "SELECT count(*), coalesce(sum(outcome <> 'succeeded'), 0), coalesce(sum(created + updated), 0) \
                 FROM syncs WHERE mode = 'incremental'";
    let count = || -> [i64; 3] {
        reader
            .query_row(ended, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
            .expect("the mirror is readable")
    };
    let before = count();
    let cpu_before = daemon.cpu_seconds();
    let began = Instant::now();
    std::thread::sleep(sizes.watched);
    let after = count();
    let cpu = daemon.cpu_seconds() - cpu_before;
    let seconds = began.elapsed().as_secs_f64();
    let syncs = after[0] - before[0];
    // Each instance once, but for those that are due just at the ends.
    let least = i64::try_from(n * 9 / 10).expect("a small number");
    assert!(
        syncs >= least,
        "only {syncs} incremental syncs of {n} instances"
    );
    assert_eq!(
        after[1..],
        [0, 0],
        "incremental syncs failed, or wrote something"
    );
    let kept_up = Cost {
        wall_seconds: seconds,
        cpu_seconds: cpu,
        ..Cost::default()
    };
    let requests = server.requests();
    figures.add(
        &format!("daemon, {n} instances: a while of incremental syncs that find nothing"),
        users,
        kept_up,
        None,
        bytes,
        requests,
    );
    let what = format!("daemon, {n} instances: incremental syncs meanwhile");
    figures.find(&what, users, syncs as f64, "", None);
    let what = format!("daemon, {n} instances: CPU of one of them");
    figures.find(&what, users, cpu * 1e3 / syncs as f64, " ms", None);
    let cost = daemon.stop();
    let bytes = home.mirror_bytes();
    figures.add(
        &format!("daemon, {n} instances: from its start to its end"),
        users,
        cost,
        None,
        bytes,
        server.requests(),
    );
}

/// The daemon's own cost of a sync, without that of starting a process.
fn nothing(sizes: &Sizes, figures: &mut Figures) {
    let users = sizes.delay_users;
    let server = Server::start([settled(users, Shape::Usual)]);
    let home = Home::new(&server.url, 1, NEVER);
    for _ in 0..sizes.rounds {
        let daemon = home.start();
        let reader = home.reader();
        home.wait_for_baselines(&reader);
        // Its sync at the start has ended, and what a first one does besides is done.
        let (_, row) = home.sync("incremental");
        expect(&row, "incremental", 1, [0, 0, 0]);
        server.requests();
        let before = daemon.cpu_seconds();
        for _ in 0..ASKED {
            let (_, row) = home.sync("incremental");
            expect(&row, "incremental", 1, [0, 0, 0]);
            assert!(number(&row, "requests") > 0, "it asked: {row}");
        }
        let each = 1.0 / ASKED as f64;
        let cpu = (daemon.cpu_seconds() - before) * each;
        let what = "daemon, incremental sync that finds nothing: CPU";
        figures.find(what, users, cpu * 1e3, " ms", Some(10.0));
        let what = "daemon, incremental sync that finds nothing: requests";
        let requests = server.requests() as f64 * each;
        figures.find(what, users, requests, "", Some(2.0));
        daemon.stop();
    }
}
