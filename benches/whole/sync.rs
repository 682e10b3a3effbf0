//! The group `sync`: one directory, from its first sync on, each case beside its floor.

use serde_json::Value;

use crate::directory::Directory;
use crate::home::Home;
use crate::measure::{self, Cost};
use crate::server::Server;
use crate::table::Figures;

/// Users that change before an incremental sync.
const CHANGED: usize = 1_000;

/// Users that go.
const GONE: usize = 100;

pub(crate) fn run(users: usize, rounds: usize, figures: &mut Figures) {
    let server = Server::start(Directory::new(users));
    for round in 0..rounds {
        if round > 0 {
            *server.directory_mut() = Directory::new(users);
        }
        Round::new(&server, users, figures).run();
    }
}

/// One mirror, from its first sync to its last.
struct Round<'a> {
    server: &'a Server,
    home: Home,
    users: usize,
    figures: &'a mut Figures,
    /// Seconds that reading alone takes in this round.
    floor: f64,
}

impl<'a> Round<'a> {
    fn new(server: &'a Server, users: usize, figures: &'a mut Figures) -> Self {
        let home = Home::new(&server.url);
        server.requests();
        Self {
            server,
            home,
            users,
            figures,
            floor: 0.0,
        }
    }

    fn run(&mut self) {
        let n = self.users;
        let this = std::env::current_exe().expect("the path of this program");
        let this = this.to_str().expect("a path of text").to_owned();

        let users = n.to_string();
        let (cost, _) = measure::run(
            self.home.path(),
            &this,
            &["role:floor", &self.server.url, &users],
        );
        self.floor = cost.wall_seconds;
        self.record("floor: pages read and dropped", cost, self.floor, 0);

        let (first, row) = self.home.sync("full");
        expect(&row, "full", n, [n, 0, 0]);
        let file = self.home.mirror_bytes();
        let requests = self.server.requests();

        let copy = self.home.path().join("copy.db");
        let (write, _) = measure::run(
            self.home.path(),
            &this,
            &[
                "role:write-floor",
                self.home.mirror().to_str().expect("a path of text"),
                copy.to_str().expect("a path of text"),
            ],
        );
        let copied = std::fs::metadata(&copy).map_or(0, |file| file.len());
        self.record("write floor: rows copied", write, self.floor, copied);
        let both = self.floor + write.wall_seconds;
        self.figures.add(
            "first full sync (× both floors)",
            n,
            first,
            both,
            file,
            requests,
        );

        let (cost, row) = self.home.sync("full");
        expect(&row, "full", n, [0, 0, 0]);
        self.synced("full sync, unchanged", cost);
        self.peer();

        self.server.directory_mut().change(n / 100);
        let (cost, row) = self.home.sync("full");
        expect(&row, "full", n, [0, n / 100, 0]);
        self.synced("full sync, 1 % changed", cost);

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

        let (cost, _) = self.home.musterd(&["verify"]);
        self.synced("verify", cost);
        self.commands();
    }

    fn commands(&mut self) {
        let records = self.users + self.users / 100 + CHANGED + GONE;
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

    fn synced(&mut self, case: &'static str, cost: Cost) {
        self.record(case, cost, self.floor, self.home.mirror_bytes());
    }

    fn record(&mut self, case: &'static str, cost: Cost, floor: f64, file_bytes: u64) {
        let requests = self.server.requests();
        self.figures
            .add(case, self.users, cost, floor, file_bytes, requests);
    }
}

/// The sync did what the case says, and nothing else.
fn expect(row: &Value, mode: &str, seen: usize, written: [usize; 3]) {
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

fn number(row: &Value, name: &str) -> usize {
    let number = row[name].as_u64().and_then(|n| usize::try_from(n).ok());
    number.unwrap_or_else(|| panic!("no count `{name}` in {row}"))
}
