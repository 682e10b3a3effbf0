//! The group `sync`: one directory, from its first sync on, each case beside its floor.

use serde_json::Value;

use crate::directory::{Directory, Shape};
use crate::floor;
use crate::home::Home;
use crate::measure::{self, Cost};
use crate::server::Server;
use crate::table::Figures;

/// Users that change before an incremental sync.
const CHANGED: usize = 1_000;

/// Users that go.
const GONE: usize = 100;

pub(crate) fn run(users: usize, rounds: usize, figures: &mut Figures) {
    for _ in 0..rounds {
        chain(users, true, figures);
    }
}

/// Once, and without the peer.
pub(crate) fn run_alone(users: usize, figures: &mut Figures) {
    chain(users, false, figures);
}

fn chain(users: usize, with_peer: bool, figures: &mut Figures) {
    let directory = Directory::new(users, Shape::Usual);
    let bytes = directory.bytes_a_user();
    assert!((1_500..1_620).contains(&bytes), "{bytes} bytes a user");
    let server = Server::start([directory]);
    let mut round = Round::new(&server, users, figures);
    round.with_peer = with_peer;
    round.run();
}

/// One mirror, from its first sync to its last.
struct Round<'a> {
    server: &'a Server,
    home: Home,
    users: usize,
    with_peer: bool,
    figures: &'a mut Figures,
    /// Seconds that reading alone takes in this round.
    floor: f64,
    /// The highest peak of all its commands, in bytes.
    peak: u64,
}

impl<'a> Round<'a> {
    fn new(server: &'a Server, users: usize, figures: &'a mut Figures) -> Self {
        let home = Home::new(&server.url, 1, "");
        server.requests();
        Self {
            server,
            home,
            users,
            with_peer: true,
            figures,
            floor: 0.0,
            peak: 0,
        }
    }

    fn run(&mut self) {
        let n = self.users;
        let cost = floor::reading(self.home.path(), &self.server.url, n, 0);
        self.floor = cost.wall_seconds;
        self.record("floor: pages read and dropped", cost, self.floor, 0);

        let (first, row) = self.home.sync("full");
        expect(&row, "full", n, [n, 0, 0]);
        let file = self.home.mirror_bytes();
        let requests = self.server.requests();

        let write = self.copy("write floor: rows copied", "role:write-floor");
        self.copy("write floor, user by user", "role:row-floor");
        let both = self.floor + write.wall_seconds;
        self.figures.add(
            "first full sync (× both floors)",
            n,
            first,
            Some(both),
            file,
            requests,
        );
        self.peak = first.peak_bytes;
        let over = first.wall_seconds / both;
        self.goal("first full sync, wall over both floors", over, "×", 2.0);

        let (cost, row) = self.home.sync("full");
        expect(&row, "full", n, [0, 0, 0]);
        self.synced("full sync, unchanged", cost);
        self.beside_the_floor("full sync, unchanged", cost, [3.0, 0.40]);
        if self.with_peer {
            self.peer();
        }

        self.server.directory_mut().change(n / 100);
        let (cost, row) = self.home.sync("full");
        expect(&row, "full", n, [0, n / 100, 0]);
        self.synced("full sync, 1 % changed", cost);
        self.beside_the_floor("full sync, 1 % changed", cost, [5.0, 0.7]);

        let (cost, row) = self.home.sync("incremental");
        // Whoever was stamped last is read again.
        expect(&row, "incremental", 1, [0, 0, 0]);
        self.synced("incremental, nothing", cost);

        self.server.directory_mut().change(CHANGED);
        let (cost, row) = self.home.sync("incremental");
        // The one who was stamped last before is read as well; where it is one of those who changed, it is the same.
        let seen = number(&row, "seen");
        assert!((CHANGED..=CHANGED + 1).contains(&seen), "{row}");
        expect(&row, "incremental", seen, [0, CHANGED, 0]);
        self.synced("incremental, 1,000 changed", cost);

        self.server.directory_mut().remove(GONE);
        let (cost, row) = self.home.sync("full");
        expect(&row, "full", n - GONE, [0, 0, GONE]);
        self.synced("full sync, 100 absent", cost);

        let left = n - GONE;
        self.server.directory_mut().change(left);
        let (cost, row) = self.home.sync("full");
        expect(&row, "full", left, [0, left, 0]);
        self.synced("full sync, all changed", cost);

        self.commands();
        let goal = match n {
            0..=20_000 => 64.0,
            20_001..=200_000 => 72.0,
            200_001.. => 80.0,
        };
        let peak = self.peak as f64 / (1024.0 * 1024.0);
        self.goal("peak memory of all these commands", peak, " MiB", goal);
    }

    fn copy(&mut self, case: &str, role: &str) -> Cost {
        let copy = self.home.path().join("copy.db");
        let cost = floor::writing(self.home.path(), role, &self.home.mirror(), &copy);
        let copied = std::fs::metadata(&copy).map_or(0, |file| file.len());
        self.record(case, cost, self.floor, copied);
        std::fs::remove_file(&copy).expect("the copy, closed and so one file");
        cost
    }

    /// Wall over the floor, and the CPU of 100,000 users.
    fn beside_the_floor(&mut self, case: &str, cost: Cost, [wall, cpu]: [f64; 2]) {
        let over = cost.wall_seconds / self.floor;
        self.goal(&format!("{case}, wall over the floor"), over, "×", wall);
        let users = self.users as f64 / 100_000.0;
        let what = format!("{case}, CPU for 100,000 users");
        self.goal(&what, cost.cpu_seconds / users, " s", cpu);
    }

    fn goal(&mut self, what: &str, value: f64, unit: &'static str, goal: f64) {
        self.figures.find(what, self.users, value, unit, Some(goal));
    }

    fn commands(&mut self) {
        let records = 2 * self.users + self.users / 100 + CHANGED;
        let (cost, _) = self.home.musterd(&["verify"]);
        self.synced("verify", cost);
        if self.users == 100_000 {
            let wall = cost.wall_seconds;
            self.goal("verify, with about 200,000 records", wall, " s", 3.0);
        }

        let after = (records - GONE).to_string();
        let (cost, said) = self.home.musterd(&["changes", "--after", &after, "--json"]);
        let lines = said.lines().count();
        assert_eq!(lines, GONE, "records behind {after}: {said}");
        self.synced("changes --after, 100 records", cost);

        let id = self.server.directory().somebody().to_owned();
        let (cost, said) = self.home.musterd(&["user", "acme", &id, "--json"]);
        assert!(said.contains(&id), "`user` says: {said}");
        self.synced("user, by id", cost);
    }

    /// Plain Python with its standard library, where there is one.
    fn peer(&mut self) {
        if std::process::Command::new("python3")
            .arg("--version")
            .output()
            .is_err()
        {
            self.figures.note("no python3: the peer was left out");
            return;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peer.py");
        let file = self.home.path().join("peer.db");
        let file_text = file.to_str().expect("a path of text");
        for case in ["plain Python, first", "plain Python, unchanged"] {
            let arguments = [script, &self.server.url, file_text];
            let (cost, said) = measure::run(self.home.path(), "python3", &arguments);
            assert_eq!(said.trim(), self.users.to_string(), "rows of the peer");
            let bytes = std::fs::metadata(&file).map_or(0, |file| file.len());
            self.record(case, cost, self.floor, bytes);
        }
    }

    fn synced(&mut self, case: &str, cost: Cost) {
        self.peak = self.peak.max(cost.peak_bytes);
        self.record(case, cost, self.floor, self.home.mirror_bytes());
    }

    fn record(&mut self, case: &str, cost: Cost, floor: f64, file_bytes: u64) {
        let requests = self.server.requests();
        self.figures
            .add(case, self.users, cost, Some(floor), file_bytes, requests);
    }
}

/// The sync did what the case says, and nothing else.
pub(crate) fn expect(row: &Value, mode: &str, seen: usize, written: [usize; 3]) {
    let counts = ["created", "updated", "deactivated"].map(|name| number(row, name));
    let is_as_told = row["mode"] == mode
        && row["outcome"] == "succeeded"
        && (mode != "full" || row["certificate"]["verdict"] == "complete")
        && number(row, "seen") == seen
        && counts == written
        && number(row, "held") == 0
        && number(row, "rejected") == 0;
    assert!(
        is_as_told,
        "expected a {mode} sync with {seen} seen and {written:?} created, updated, deactivated: {row}"
    );
}

pub(crate) fn number(row: &Value, name: &str) -> usize {
    let number = row[name].as_u64().and_then(|n| usize::try_from(n).ok());
    number.unwrap_or_else(|| panic!("no count `{name}` in {row}"))
}
