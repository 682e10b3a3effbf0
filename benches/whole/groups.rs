//! The group `groups`: who is in which group, beside the floor of reading the same pages.
//!
//! A full sync reads the users first. Here the instance lists few of them, so that what is measured is groups, and answers by id
//! for everybody who is in one.

use serde_json::Value;

use crate::cli::Sizes;
use crate::directory::{Changed, Directory, OnePercent, Shape};
use crate::floor;
use crate::home::Home;
use crate::measure::Cost;
use crate::server::Server;
use crate::sync::{expect, number};
use crate::table::Figures;

/// Users in lists: one page.
const LISTED: usize = 200;

/// Members of twenty groups: most are small, one has hundreds. 40 on an average.
const USUAL: [usize; 20] = [
    2, 3, 4, 5, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 25, 30, 44, 60, 110, 410,
];

/// The same with 10 on an average.
const SMALL: [usize; 20] = [
    1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7, 8, 9, 11, 13, 17, 23, 74,
];

/// What the peak of all these syncs shall not exceed: that of 20,000 users.
const PEAK_MIB: f64 = 64.0;

pub(crate) fn run(sizes: &Sizes, figures: &mut Figures) {
    let users = sizes.group_users;
    for _ in 0..sizes.rounds {
        let usual = groups_of(&USUAL, sizes.groups_of_rounds);
        Round::new(users, usual, figures).run(true);
    }
    let large = std::iter::once(sizes.large_group);
    Round::new(users, large, figures).run(false);
    let [few, many] = sizes.small_groups.map(|count| {
        let small = groups_of(&SMALL, count);
        Round::new(users, small, figures).run(false)
    });
    let [few_groups, many_groups] = sizes.small_groups.map(thousands);
    let what = format!("{many_groups} groups: peak memory over that of {few_groups}");
    let memberships = SMALL.iter().sum::<usize>() * sizes.small_groups[1] / SMALL.len();
    figures.find(&what, memberships, many / few, "×", None);
}

fn groups_of(sizes: &[usize], count: usize) -> impl Iterator<Item = usize> {
    sizes.iter().copied().cycle().take(count)
}

/// One mirror, from its first sync to its last.
struct Round<'a> {
    server: Server,
    home: Home,
    /// What its groups are, for people.
    name: String,
    groups: usize,
    memberships: usize,
    figures: &'a mut Figures,
    /// Seconds that reading alone takes in this round.
    floor: f64,
    /// Seconds that a sync takes which leaves groups out.
    users_alone: f64,
    /// The highest peak of all its syncs, in MiB.
    peak: f64,
}

impl<'a> Round<'a> {
    fn new(users: usize, sizes: impl Iterator<Item = usize>, figures: &'a mut Figures) -> Self {
        let directory = Directory::new(users, Shape::Usual).with_groups(LISTED, sizes);
        let (groups, memberships) = (directory.groups.len(), directory.groups.memberships());
        let bytes = (directory.groups.bytes() - groups * 700) / memberships;
        assert!((150..220).contains(&bytes), "{bytes} bytes a membership");
        let name = match groups {
            1 => "1 group".to_owned(),
            _ => format!("{} groups", thousands(groups)),
        };
        let server = Server::start([directory]);
        Self {
            home: Home::with_groups(&server.url),
            server,
            name,
            groups,
            memberships,
            figures,
            floor: 0.0,
            users_alone: 0.0,
            peak: 0.0,
        }
    }

    /// Returns the peak of all its syncs, in MiB.
    fn run(mut self, has_goals: bool) -> f64 {
        let n = self.memberships;
        let cost = floor::reading(self.home.path(), &self.server.url, LISTED, self.groups);
        self.floor = cost.wall_seconds;
        self.record("floor: pages read and dropped", cost, self.floor, 0);

        if has_goals {
            self.sync_users_alone();
        }
        let (first, row) = self.home.sync("full");
        self.expect(&row, [self.groups + n, 0, 0]);
        let (file, requests) = (self.home.mirror_bytes(), self.server.requests());
        let copy = self.home.path().join("copy.db");
        let mirror = self.home.mirror();
        let write = floor::writing(self.home.path(), "role:write-floor", &mirror, &copy);
        let copied = std::fs::metadata(&copy).map_or(0, |file| file.len());
        std::fs::remove_file(&copy).expect("the copy, closed and so one file");
        self.record("write floor: rows copied", write, self.floor, copied);
        let both = self.floor + write.wall_seconds;
        let case = format!("{}: first full sync (× both floors)", self.name);
        self.figures
            .add(&case, n, first, Some(both), file, requests);
        self.note_peak(first);

        let (cost, row) = self.home.sync("full");
        self.expect(&row, [0, 0, 0]);
        self.synced("full sync, unchanged", cost);
        if has_goals {
            self.goal("full sync, unchanged", cost, 3.0);
        }

        if has_goals {
            let case = "full sync, 1 % of the groups changed";
            let cost = self.changed(OnePercent::Groups, case);
            self.goal(case, cost, 5.0);
            let case = "full sync, 1 % of the groups changed, a tenth of the members of each";
            self.changed(OnePercent::TenthsOfGroups, case);
        }
        let case = "full sync, 1 % of the memberships changed, in all groups";
        self.changed(OnePercent::Memberships, case);

        let (cost, _) = self.home.musterd(&["verify"]);
        self.synced("verify", cost);
        let what = format!("{}: peak memory of all its syncs", self.name);
        (self.figures).find(&what, n, self.peak, " MiB", Some(PEAK_MIB));
        self.peak
    }

    fn changed(&mut self, what: OnePercent, case: &str) -> Cost {
        let Changed {
            began,
            ended,
            lost,
            groups,
        } = self.server.directory_mut().change_members(what);
        let (cost, row) = self.home.sync("full");
        self.expect(&row, [began, 0, ended]);
        let requests = self.synced(case, cost);
        // Each list that lost somebody was read again, and somebody asked who is missing from it.
        assert!(requests >= 2 * lost as u64, "{requests} requests: {row}");
        self.figures.note(format!(
            "{}: {case}: {began} memberships began and {ended} ended; groups that changed: {groups}, that lost somebody: {lost}.",
            self.name
        ));
        cost
    }

    /// The sync of groups did this and nothing else.
    fn expect(&self, row: &Value, written: [usize; 3]) {
        assert_eq!(row["resource"], "Group", "{row}");
        expect(row, "full", self.groups, written);
        assert!(number(row, "requests") > 0, "it asked: {row}");
    }

    fn goal(&mut self, case: &str, cost: Cost, goal: f64) {
        let over = cost.wall_seconds / self.floor;
        let what = format!("{}: {case}, wall over the floor", self.name);
        (self.figures).find(&what, self.memberships, over, "×", Some(goal));
        // Beginning, probing and reading the users cost more than all pages of groups.
        let over = (cost.wall_seconds - self.users_alone) / self.floor;
        let what = format!("{}: {case}, what groups add over the floor", self.name);
        (self.figures).find(&what, self.memberships, over, "×", None);
    }

    /// A full sync that reads the same users and no groups.
    fn sync_users_alone(&mut self) {
        let home = Home::new(&self.server.url, 1, "");
        home.sync("full");
        self.server.requests();
        let (cost, row) = home.sync("full");
        expect(&row, "full", LISTED, [0, 0, 0]);
        let case = "full sync of its users alone, unchanged";
        self.record(case, cost, self.floor, home.mirror_bytes());
        self.users_alone = cost.wall_seconds;
    }

    fn note_peak(&mut self, cost: Cost) {
        self.peak = self.peak.max(cost.peak_bytes as f64 / (1024.0 * 1024.0));
    }

    /// Returns how many requests it took.
    fn synced(&mut self, case: &str, cost: Cost) -> u64 {
        self.note_peak(cost);
        self.record(case, cost, self.floor, self.home.mirror_bytes())
    }

    fn record(&mut self, case: &str, cost: Cost, floor: f64, file_bytes: u64) -> u64 {
        let requests = self.server.requests();
        let case = format!("{}: {case}", self.name);
        (self.figures).add(
            &case,
            self.memberships,
            cost,
            Some(floor),
            file_bytes,
            requests,
        );
        requests
    }
}

/// A number as people read it.
fn thousands(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}
