//! One case under way: a directory that is edited, an instance that misbehaves, the daemon that must not
//! be fooled, and all that was seen meanwhile.
//!
//! ```text
//! 09:00:30  the daemon starts: a full sync; incremental ones every 5 minutes, full ones every 30
//! 09:08     the fault begins, and people leave, join and change
//! 10:12     it is judged; the fault ends
//! 10:50     it is judged what the next syncs made of it
//! 11:20     since then nothing has changed, so nothing was written
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use musterd::clock::{Clock, ManualClock, SharedClock};
use musterd::control::{Ended, Request};
use musterd::sandbox::{self, Column, Logged, RequestKind, Sandbox, User, Values};
use rusqlite::types::FromSql;
use serde_json::Value;

use super::follower::Follower;
use super::log::Log;
use super::matrix::Promise;
use super::ways::Names;
use crate::harness::{Row, rows, text};
use crate::world::World;

/// The instance that misbehaves.
pub(super) const ACME: &str = "acme";
/// Another one, which does not: it must be none the worse.
pub(super) const GLOBEX: &str = "globex";

/// What a case begins with.
#[derive(Clone, Copy)]
pub(super) struct Setup {
    /// Users of the instance.
    pub(super) users: usize,
    /// Its groups; with none, groups are not read.
    pub(super) groups: usize,
    /// Lines of TOML beside those below.
    pub(super) config: &'static str,
    /// Its `auth` without the secrets; those stand in files.
    pub(super) auth: &'static str,
    /// How requests get there.
    pub(super) way: Way,
    /// When the world begins.
    pub(super) start: &'static str,
    /// How often the alarm clock rings. Whoever simulates days lets it ring seldom.
    pub(super) ring_every: Duration,
}

/// How requests get to an instance.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By a call.
    InProcess,
    /// Over sockets of the loopback address, by the program's own HTTP client.
    Loopback,
    /// By a call, if the name of the host can be resolved: [`Trial::names`].
    ByName,
}

pub(super) const SETUP: Setup = Setup {
    users: 120,
    groups: 0,
    config: "",
    auth: "client_credentials",
    way: Way::InProcess,
    start: "2026-03-01T09:00:30Z",
    ring_every: Duration::from_secs(2),
};

/// The guards and all else are as they are shipped.
const CONFIGURATION: &str = r#"
[defaults]
page_size = 20
[defaults.rate]
per_hour = 3600
[defaults.schedule]
incremental = "0 */5 * * * *"
full = "0 */30 * * * *"
splay = { incremental = "0s", full = "0s" }
[instances.globex.schedule]
incremental = "0 */15 * * * *"
full = "0 0 * * * *"
"#;

/// Users of the other instance.
const BYSTANDERS: usize = 12;

/// A clock that can be set, by so many seconds.
pub(super) struct Settable {
    goes: SharedClock,
    off_secs: AtomicI64,
}

impl Settable {
    fn on(goes: &SharedClock) -> Arc<Self> {
        Arc::new(Self {
            goes: Arc::clone(goes),
            off_secs: AtomicI64::new(0),
        })
    }

    /// Sets it so far forward, or back.
    fn set_by(&self, off: SignedDuration) {
        self.off_secs.fetch_add(off.as_secs(), Ordering::Relaxed);
    }
}

impl Clock for Settable {
    fn now(&self) -> Timestamp {
        self.goes.now() + SignedDuration::from_secs(self.off_secs.load(Ordering::Relaxed))
    }
}

/// People with a part in each case. All of them are active at the start, nobody reports to them, and
/// all have a title, an address, a mobile number and a department.
#[derive(Clone, Debug, Default)]
pub(super) struct People {
    /// Is made inactive.
    pub(super) inactive: String,
    /// Is deleted.
    pub(super) deleted: String,
    /// Gets another title: `Principal`.
    pub(super) titled: String,
    /// Gives the mobile phone back.
    pub(super) emptied: String,
    /// Joins.
    pub(super) hired: String,
    /// Stays as he is; a fault may be about him.
    pub(super) victim: String,
    /// And another one.
    pub(super) other: String,
    /// Every third user but the ones above.
    pub(super) third: Vec<String>,
}

/// One case under way.
pub(super) struct Trial {
    pub(super) world: World,
    pub(super) people: People,
    /// The clock of the daemon's machine, and that of the instances.
    pub(super) ours: Arc<Settable>,
    pub(super) theirs: Arc<Settable>,
    pub(super) log: Log,
    pub(super) follower: RefCell<Follower>,
    pub(super) promises: RefCell<BTreeSet<Promise>>,
    /// Whether names of hosts can be resolved.
    pub(super) names: Arc<Names>,
    /// Who was really made inactive or deleted at some time, whatever the directory says now.
    pub(super) left: RefCell<BTreeSet<String>>,
    /// Whether clocks go as they should: else nothing is due when it was due.
    pub(super) clocks_go: Cell<bool>,
    /// The attribute of which a few blankings are expected, below the guard.
    pub(super) few_blanked: RefCell<Option<&'static str>>,
    /// What shows that the fault was there, beside the sandbox's own count.
    evidence: RefCell<Vec<String>>,
    /// When the fault began and ended, by our clock.
    pub(super) began_at: Option<Timestamp>,
    pub(super) lifted_at: Option<Timestamp>,
    /// Where the feed stood and what the watermark was when the fault began.
    pub(super) seq_before: i64,
    pub(super) watermark_before: Option<String>,
}

impl Trial {
    /// Starts the daemon on a directory that this number makes.
    pub(super) async fn start(number: u64, setup: Setup, log: &Log) -> Self {
        let goes: SharedClock = Arc::new(ManualClock::starting_at(setup.start.parse().unwrap()));
        let (ours, theirs) = (Settable::on(&goes), Settable::on(&goes));
        let sizes = [(ACME, setup.users, setup.groups), (GLOBEX, BYSTANDERS, 0)];
        let sandboxes: BTreeMap<String, Sandbox> = sizes
            .into_iter()
            .zip(0..)
            .map(|((name, users, groups), place)| {
                let options = sandbox::Options {
                    users,
                    groups,
                    seed: 100 * place + number,
                    ..sandbox::Options::default()
                };
                let clock = Arc::clone(&theirs) as SharedClock;
                (name.to_owned(), Sandbox::new(options, clock))
            })
            .collect();
        let people = People::of(&sandboxes[ACME]);
        let mut world = World::of(number, Arc::clone(&ours) as SharedClock, sandboxes);
        configure(&world, setup);
        let names = Arc::new(Names::default());
        match setup.way {
            Way::InProcess => {}
            Way::Loopback => super::ways::over_sockets(&mut world).await,
            Way::ByName => super::ways::by_name(&mut world, &names),
        }
        world.listen();
        world.ring_every(setup.ring_every);
        world.start();
        Self {
            world,
            people,
            ours,
            theirs,
            log: log.clone(),
            follower: RefCell::default(),
            promises: RefCell::default(),
            names,
            left: RefCell::default(),
            clocks_go: Cell::new(true),
            few_blanked: RefCell::default(),
            evidence: RefCell::default(),
            began_at: None,
            lifted_at: None,
            seq_before: 0,
            watermark_before: None,
        }
    }

    pub(super) fn sandbox(&self) -> &Sandbox {
        self.world.sandbox(ACME)
    }

    /// Lets time pass; the follower looks once a minute, or a hundred times where that is less.
    pub(super) async fn pass(&self, time: Duration) {
        let look_every = Duration::from_mins(1).max(time / 100);
        let mut left = time;
        while left > Duration::ZERO {
            let step = left.min(look_every);
            self.world.pass(step).await;
            self.look();
            left -= step;
        }
    }

    /// The follower looks now.
    pub(super) fn look(&self) {
        let mut follower = self.follower.borrow_mut();
        follower.look(&self.world.mirror_path());
    }

    /// Waits until both instances have their baseline and a few incremental syncs.
    pub(super) async fn baseline(&self) {
        self.pass(Duration::from_secs(450)).await;
        let without: Vec<String> =
            self.list("SELECT instance FROM sources WHERE baseline_at IS NULL");
        assert_eq!(without, Vec::<String>::new(), "{}", self.told());
        self.equals_the_directory();
    }

    /// Sets the clock of our machine, and that of the instances.
    pub(super) fn set_clocks(&self, ours: SignedDuration, theirs: SignedDuration) {
        self.ours.set_by(ours);
        self.theirs.set_by(theirs);
        self.clocks_go.set(false);
    }

    /// Puts a fault script in force. `$NAME` in it is the id of one of the [`People`].
    pub(super) fn fault(&mut self, script: &str) {
        let path = self.world.folder().join("faults.toml");
        std::fs::write(&path, self.people.named_in(script)).unwrap();
        let faults = sandbox::read_script(&path)
            .unwrap_or_else(|error| panic!("{:#}", anyhow::Error::new(error)));
        self.sandbox().set_faults(faults);
        self.begin();
    }

    /// From now on something is wrong.
    pub(super) fn begin(&mut self) {
        if self.began_at.is_none() {
            self.began_at = Some(self.ours.now());
            if self.world.mirror_path().exists() {
                self.seq_before = self.seq();
                self.watermark_before = self.watermark();
            }
        }
    }

    /// Notes what shows that the fault was there.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub(super) fn saw(&self, what: &str, is_so: bool) {
        assert!(is_so, "the fault never fired: {what}\n{}", self.told());
        self.evidence.borrow_mut().push(what.to_owned());
    }

    /// The instance behaves well again.
    ///
    /// # Panics
    /// When one of the faults never fired.
    #[track_caller]
    pub(super) fn lift(&mut self) {
        let fired = self.sandbox().fired();
        for one in &fired {
            assert!(
                one.times > 0,
                "the fault never fired: `{}`\n{}",
                one.name,
                self.told()
            );
        }
        let mut evidence = self.evidence.borrow_mut();
        evidence.extend(fired.into_iter().map(|one| one.name));
        assert!(
            !evidence.is_empty(),
            "the fault never fired: nothing shows that there was one"
        );
        drop(evidence);
        self.sandbox().set_faults(Vec::new());
        self.lifted_at = Some(self.ours.now());
    }

    /// What goes on in every directory: somebody is made inactive, somebody is deleted, somebody joins,
    /// somebody gets a title, and somebody gives the mobile phone back.
    pub(super) fn edit(&mut self) {
        let people = self.people.clone();
        self.leaves(&people.inactive);
        self.is_deleted(&people.deleted);
        let sandbox = self.sandbox();
        let set = |id: &str, column, text: &str| {
            assert!(sandbox.update(id, &Values::new().with(column, text)));
        };
        set(&people.titled, Column::Title, "Principal");
        set(&people.emptied, Column::MobilePhone, "");
        let hired = self.hire("hired.anew");
        self.people.hired = hired;
    }

    /// Somebody joins, at the desk of the victim.
    pub(super) fn hire(&self, user_name: &str) -> String {
        let like = self.row(&self.people.victim);
        let values = [
            (Column::Company, like.get(Column::Company)),
            (Column::Department, like.get(Column::Department)),
            (Column::Location, like.get(Column::Location)),
            (Column::FirstName, "Hired"),
            (Column::LastName, "Anew"),
            (Column::Title, "Novice"),
        ]
        .into_iter()
        .fold(Values::new().active(true), |values, (column, text)| {
            values.with(column, text)
        });
        self.sandbox()
            .create(&values.with(Column::UserName, user_name))
    }

    /// Somebody is really made inactive.
    pub(super) fn leaves(&self, id: &str) {
        assert!(self.sandbox().update(id, &Values::new().active(false)));
        self.left.borrow_mut().insert(id.to_owned());
    }

    /// Somebody is really deleted.
    pub(super) fn is_deleted(&self, id: &str) {
        assert!(self.sandbox().delete(id));
        self.left.borrow_mut().insert(id.to_owned());
    }

    /// A row of the instance's own table.
    pub(super) fn row(&self, id: &str) -> Arc<User> {
        let found = self
            .sandbox()
            .with_directory(|directory| directory.user(id).cloned());
        found.unwrap_or_else(|| panic!("the directory has no {id}"))
    }

    /// Those of the directory for whom this holds.
    pub(super) fn whose(&self, holds: impl Fn(&User) -> bool) -> BTreeSet<String> {
        self.sandbox().with_directory(|directory| {
            let users = directory.users().iter().filter(|user| holds(user));
            users.map(|user| user.sys_id.to_string()).collect()
        })
    }

    /// The requests of the instance since the fault began.
    pub(super) fn asked(&self, kind: RequestKind) -> Vec<Logged> {
        let since = self.began_at.unwrap_or(Timestamp::UNIX_EPOCH);
        let all = self.sandbox().requests().into_iter();
        all.filter(|request| request.kind == kind && request.at >= since)
            .collect()
    }

    /// Asks the running daemon by its socket, as a command does.
    pub(super) async fn command(&self, request: Request) -> (Ended, Vec<Value>) {
        let answered = self.world.command(request).await;
        self.look();
        answered
    }
}

/// What the mirror says.
impl Trial {
    /// The rows of a query, by column name.
    pub(super) fn rows(&self, sql: &str) -> Vec<Row> {
        rows(&self.world.read(), sql)
    }

    /// The one value of a query.
    pub(super) fn one<T: FromSql>(&self, sql: &str) -> T {
        let value = self.world.read().query_row(sql, [], |row| row.get(0));
        value.unwrap_or_else(|error| panic!("`{sql}`: {error}"))
    }

    /// The first column of a query, as text.
    pub(super) fn list(&self, sql: &str) -> Vec<String> {
        let mirror = self.world.read();
        let mut query = mirror.prepare(sql).expect(sql);
        let values = query.query_map([], |row| row.get(0));
        values.unwrap().map(Result::unwrap).collect()
    }

    pub(super) fn seq(&self) -> i64 {
        self.one("SELECT last_seq FROM feed")
    }

    pub(super) fn watermark(&self) -> Option<String> {
        self.one(
            "SELECT (SELECT watermark FROM sources WHERE instance = 'acme' AND resource = 'User')",
        )
    }

    pub(super) fn state(&self) -> String {
        self.one("SELECT state FROM instances WHERE name = 'acme'")
    }

    /// A column of a user; `None` where he is not known, or has none.
    pub(super) fn column(&self, id: &str, column: &str) -> Option<String> {
        let sql = format!("SELECT {column} FROM users WHERE instance = 'acme' AND id = ?1");
        let mirror = self.world.read();
        let mut query = mirror.prepare(&sql).expect(&sql);
        let mut values = query.query([id]).unwrap();
        let row = values.next().unwrap()?;
        match row.get_ref(0).unwrap() {
            rusqlite::types::ValueRef::Null => None,
            rusqlite::types::ValueRef::Integer(number) => Some(number.to_string()),
            other => Some(other.as_str().unwrap().to_owned()),
        }
    }

    /// The records of one user since the fault began: `kind reason`.
    pub(super) fn records_of(&self, id: &str) -> Vec<String> {
        let mirror = self.world.read();
        let mut query = mirror
            .prepare(
                "SELECT kind || ' ' || reason FROM changes
                 WHERE instance = 'acme' AND id = ?1 AND seq > ?2 ORDER BY seq",
            )
            .unwrap();
        let records = query.query_map(rusqlite::params![id, self.seq_before], |row| row.get(0));
        records.unwrap().map(Result::unwrap).collect()
    }

    /// The syncs of the instance's users in this mode that began after the fault did, and before it ended.
    pub(super) fn syncs(&self, mode: &str) -> Vec<Row> {
        self.syncs_of("User", mode)
    }

    /// The same of a resource type.
    pub(super) fn syncs_of(&self, resource: &str, mode: &str) -> Vec<Row> {
        let mut syncs = self.rows(&format!(
            "SELECT * FROM syncs WHERE instance = 'acme' AND resource = '{resource}' ORDER BY id"
        ));
        let within = |sync: &Row| {
            let at: Timestamp = text(sync, "started_at").unwrap().parse().unwrap();
            self.began_at.is_some_and(|began_at| began_at <= at)
                && self.lifted_at.is_none_or(|lifted_at| at < lifted_at)
        };
        syncs.retain(|sync| text(sync, "mode").as_deref() == Some(mode) && within(sync));
        syncs
    }

    /// A certificate of one of them; `null` where there is none.
    pub(super) fn certificate(sync: &Row) -> Value {
        text(sync, "certificate").map_or(Value::Null, |json| serde_json::from_str(&json).unwrap())
    }

    /// The doubts of a certificate, by name.
    pub(super) fn doubts(sync: &Row) -> Vec<String> {
        let certificate = Self::certificate(sync);
        let reasons = certificate["reasons"].as_array().cloned();
        let name = |doubt: &Value| doubt["doubt"].as_str().unwrap_or_default().to_owned();
        reasons.unwrap_or_default().iter().map(name).collect()
    }

    /// What is known of what the instance honours.
    pub(super) fn capability(&self, name: &str) -> Value {
        let json: String = self
            .one("SELECT capabilities FROM sources WHERE instance = 'acme' AND resource = 'User'");
        let known: Value = serde_json::from_str(&json).unwrap();
        known[name].clone()
    }

    /// The ids of `rejects`.
    pub(super) fn rejected(&self) -> Vec<String> {
        self.list("SELECT key FROM rejects WHERE instance = 'acme' ORDER BY key")
    }

    /// All that helps to see what went wrong.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        if self.world.mirror_path().exists() {
            for sync in self.rows("SELECT * FROM syncs WHERE instance = 'acme'") {
                let of = |column| text(&sync, column).unwrap_or_default();
                let certificate = Self::certificate(&sync);
                told += &format!(
                    "{} {} {} {} {} {} {} seen {} +{} ~{} -{} held {} rejected {} asked {} {}\n",
                    of("id"),
                    of("started_at"),
                    of("resource"),
                    of("mode"),
                    of("outcome"),
                    certificate["verdict"],
                    certificate["reasons"],
                    of("seen"),
                    of("created"),
                    of("updated"),
                    of("deactivated"),
                    of("held"),
                    of("rejected"),
                    of("requests"),
                    of("error"),
                );
            }
        }
        for line in self.log.lines() {
            if matches!(line.level.as_str(), "WARN" | "ERROR") {
                told += &format!("{}\n", line.text);
            }
        }
        let requests = self.sandbox().requests();
        for request in requests.iter().rev().take(20).rev() {
            told += &format!("{} {} {}\n", request.at, request.status, request.line);
        }
        told
    }
}

impl People {
    /// Chooses them.
    fn of(sandbox: &Sandbox) -> Self {
        let chosen = sandbox.with_directory(|directory| {
            let users = directory.users();
            let managers: BTreeSet<&str> =
                users.iter().map(|user| user.get(Column::Manager)).collect();
            let has = |user: &User, column| !user.get(column).is_empty();
            let plain = users.iter().filter(|user| {
                user.active
                    && !managers.contains(&*user.sys_id)
                    && user.sys_id.len() == 32
                    && has(user, Column::MobilePhone)
                    && has(user, Column::Title)
                    && has(user, Column::Email)
                    && directory.label(user, Column::Department).is_some()
                    && directory.label(user, Column::Manager).is_some()
            });
            plain
                .map(|user| user.sys_id.to_string())
                .collect::<Vec<_>>()
        });
        // Spread over the pages.
        let nth = |n: usize| chosen[n * (chosen.len() - 1) / 5].clone();
        let parts: Vec<String> = (0..6).map(nth).collect();
        let others = sandbox.ids().into_iter().filter(|id| !parts.contains(id));
        let third = others.step_by(3).collect();
        let [victim, inactive, titled, deleted, emptied, other] = parts.try_into().unwrap();
        Self {
            inactive,
            deleted,
            titled,
            emptied,
            hired: String::new(),
            victim,
            other,
            third,
        }
    }

    /// Puts ids in the places of names.
    fn named_in(&self, script: &str) -> String {
        let third: Vec<String> = self.third.iter().map(|id| format!("{id:?}")).collect();
        [
            ("$third", &third.join(", ")),
            ("$inactive", &self.inactive),
            ("$deleted", &self.deleted),
            ("$titled", &self.titled),
            ("$emptied", &self.emptied),
            ("$victim", &self.victim),
            ("$other", &self.other),
        ]
        .into_iter()
        .fold(script.to_owned(), |script, (name, id)| {
            script.replace(name, id)
        })
    }
}

/// Writes the configuration: in place of the world's own, because secrets stand in files here, so that
/// they can be changed.
pub(super) fn configure(world: &World, setup: Setup) {
    let path = world.mirror_path();
    let mut config = format!(
        "[mirror]\npath = {path:?}\n{CONFIGURATION}\n{}\n",
        setup.config
    );
    for (name, sandbox) in world.sandboxes() {
        let rules = sandbox.auth();
        let secret = |kind: &str, text: &str| {
            let path = world.folder().join(format!("{name}-{kind}"));
            write_secret(&path, text);
            format!("{kind} = {{ file = {path:?} }}\n")
        };
        config += &format!(
            "[instances.{name}]\nurl = \"https://{name}.example\"\nresources = {}\n[instances.{name}.auth]\n",
            match (name.as_str(), setup.groups) {
                (ACME, 1..) => "[\"users\", \"groups\"]",
                _ => "[\"users\"]",
            }
        );
        let auth = if name == ACME { setup.auth } else { SETUP.auth };
        config += &format!("type = {auth:?}\n");
        if auth != "basic" {
            config += &format!("client_id = {:?}\n", rules.client_id);
            config += &secret("client_secret", &rules.client_secret);
        }
        if auth != "client_credentials" {
            config += &format!("username = {:?}\n", rules.username);
            config += &secret("password", &rules.password);
        }
    }
    std::fs::write(world.folder().join("musterd.toml"), config).unwrap();
}

/// Writes a secret where only its owner reads it.
pub(super) fn write_secret(path: &std::path::Path, text: &str) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file.unwrap().write_all(text.as_bytes()).unwrap();
}
