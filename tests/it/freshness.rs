//! Each instance keeps its own schedule (promise P7), and readers may take their time (promise P12): hours of a daemon with many
//! instances, in seconds.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use musterd::clock::{ManualClock, SharedClock};
use musterd::mirror::LONG_LOG_BYTES;
use musterd::sandbox::{self, Column, Effect, Fault, Sandbox, Values};
use rusqlite::Connection;

use crate::harness::{BINARY, Running, TIME_LIMIT};
use crate::world::{START, Simulated, World};

/// Instances with so many users each, all of them configured alike.
fn world(instances: &[(&str, usize)], defaults: &str) -> World {
    let clock: SharedClock = Arc::new(ManualClock::starting_at(START.parse().unwrap()));
    let made = instances.iter().zip(0..).map(|((name, users), seed)| {
        let options = sandbox::Options {
            users: *users,
            seed,
            odd: false,
            ..sandbox::Options::default()
        };
        (
            (*name).to_owned(),
            Sandbox::new(options, Arc::clone(&clock)),
        )
    });
    let sandboxes: BTreeMap<String, Sandbox> = made.collect();
    let mut text = defaults.to_owned();
    for (name, sandbox) in &sandboxes {
        let rules = sandbox.auth();
        let _infallible = write!(
            text,
            "[instances.{name}]\nurl = \"https://{name}.example\"\nresources = [\"users\"]\n\
             auth = {{ type = \"basic\", username = {:?}, password = {:?} }}\n",
            rules.username, rules.password
        );
    }
    let world = World::of(7, clock, sandboxes);
    world.write_configuration(&text);
    world
}

impl World {
    fn list(&self, sql: &str) -> Vec<String> {
        let mirror = self.read();
        let mut query = mirror.prepare(sql).expect(sql);
        let values = query.query_map([], |row| row.get(0));
        values.unwrap().map(Result::unwrap).collect()
    }

    /// When the incremental syncs of an instance began that succeeded in this hour, to the second.
    fn incremental_in(&self, hour: &str, name: &str) -> Vec<String> {
        self.list(&format!(
            "SELECT substr(started_at, 12, 8) FROM syncs WHERE instance = '{name}' AND mode = 'incremental'
                AND outcome = 'succeeded' AND started_at LIKE '%T{hour}:%' ORDER BY id"
        ))
    }

    /// Bytes of the mirror's write-ahead log.
    fn log_bytes(&self) -> u64 {
        self.log_path().metadata().unwrap().len()
    }

    fn log_path(&self) -> PathBuf {
        PathBuf::from(format!("{}-wal", self.mirror_path().display()))
    }
}

/// One of three instances is silent, and another one takes more than an hour for its full sync. All three are synced on the minute:
/// the third as if it were alone, the slow one beside its own full sync. And what a full sync has read so far keeps no transaction open:
/// the mirror's log does not grow meanwhile.
#[test]
fn nobody_waits_for_a_silent_instance_or_for_a_full_sync_that_takes_an_hour() {
    const EVERY_MINUTE: &str = "\
        [defaults]\npage_size = 5\nconcurrency = 1\n[defaults.schedule]\nincremental = \"0 * * * * *\"\n\
        full = \"0 0 10 * * *\"\nsplay = { incremental = \"0s\", full = \"0s\" }\n";
    Simulated::new().block_on(async {
        let mut world = world(&[("healthy", 60), ("silent", 20), ("slow", 400)], EVERY_MINUTE);
        world.start();
        world.pass(Duration::from_mins(50)).await;
        let without = world.list("SELECT instance FROM sources WHERE baseline_at IS NULL");
        assert_eq!(without, Vec::<String>::new());

        let silent = Fault::new(Effect::Stall { share: 0.0 });
        world.sandbox("silent").set_faults(vec![silent]);
        // Each page that a full sync asks for, and nothing that an incremental one does.
        let slow = Fault::new(Effect::Slow { ms: 55_000 }).path("*filter=id%20gt*");
        world.sandbox("slow").set_faults(vec![slow]);
        world.pass(Duration::from_mins(40)).await;
        // 10:30. Somebody of both gets another title, which is there a minute later.
        let mut titled = BTreeMap::new();
        for name in ["healthy", "slow"] {
            let id = world.sandbox(name).ids().pop().unwrap();
            let title = Values::new().with(Column::Title, "Astronaut");
            assert!(world.sandbox(name).update(&id, &title));
            titled.insert(name.to_owned(), id);
        }
        world.pass(Duration::from_mins(1)).await;
        for (name, id) in &titled {
            let has = world.list(&format!(
                "SELECT title FROM users WHERE instance = '{name}' AND id = '{id}'"
            ));
            assert_eq!(has, ["Astronaut"], "{name}");
        }
        assert_eq!(world.log_bytes(), 0, "a full sync is under way");
        world.pass(Duration::from_mins(60)).await;

        let every_minute: Vec<String> = (0..60).map(|minute| format!("10:{minute:02}:00")).collect();
        for name in ["healthy", "slow"] {
            assert_eq!(world.incremental_in("10", name), every_minute, "{name}");
        }
        assert_eq!(world.incremental_in("10", "silent"), Vec::<String>::new());
        let full = world.list(
            "SELECT instance || ' ' || substr(started_at, 12, 8) || ' ' || outcome || ' ' ||
                CASE WHEN julianday(finished_at) - julianday(started_at) > 1.0 / 24 THEN 'late' ELSE 'soon' END
             FROM syncs WHERE mode = 'full' AND started_at LIKE '%T1%' AND instance <> 'silent' ORDER BY instance",
        );
        assert_eq!(
            full,
            ["healthy 10:00:00 succeeded soon", "slow 10:00:00 succeeded late"]
        );
        assert_eq!(
            world.list("SELECT name || ' ' || state FROM instances ORDER BY name"),
            ["healthy healthy", "silent failing", "slow healthy"]
        );
        world.stop().await;
    });
}

/// However many there are, a start sends ten requests a second at most that are the first of their instance, and a minute's tick is spread
/// over the half of it.
#[test]
fn many_instances_begin_one_after_the_other_and_each_at_its_own_second() {
    const MANY: usize = 60;
    Simulated::new().block_on(async {
        let names: Vec<String> = (0..MANY).map(|n| format!("i{n}")).collect();
        let instances: Vec<(&str, usize)> = names.iter().map(|name| (&**name, 3)).collect();
        // The schedule is the one that is shipped.
        let mut world = world(&instances, "");
        world.start();
        world.pass(Duration::from_mins(3)).await;
        // A first start is slowed down by the full syncs: there are places for a few at a time.
        assert_eq!(
            world.list("SELECT count(*) || '' FROM sources WHERE baseline_at IS NOT NULL"),
            [MANY.to_string()]
        );
        world.stop().await;

        let stopped_at = world.sandbox("i0").requests().last().unwrap().at;
        world.start();
        world.pass(Duration::from_secs(10)).await;
        let first = names.iter().map(|name| {
            let mut requests = world.sandbox(name).requests().into_iter();
            let first = requests.find(|request| request.at > stopped_at);
            first.expect("it was asked").at.as_second()
        });
        let at_once = most_at_once(first);
        assert!(at_once <= 10, "{at_once} began in one second");

        world.pass(Duration::from_mins(2)).await;
        let ticked = world.list(
            "SELECT substr(started_at, 18, 2) FROM syncs WHERE mode = 'incremental' AND trigger = 'schedule'
                AND started_at LIKE '%T09:04:%'",
        );
        assert_eq!(ticked.len(), MANY);
        assert!(ticked.iter().all(|second| &**second <= "30"), "{ticked:?}");
        let at_once = most_at_once(ticked);
        assert!(at_once <= MANY / 10, "{at_once} began in one second");
        world.stop().await;
    });
}

/// How many of them are the same.
fn most_at_once<T: Ord>(at: impl IntoIterator<Item = T>) -> usize {
    let mut counts = BTreeMap::<T, usize>::new();
    for at in at {
        *counts.entry(at).or_default() += 1;
    }
    counts.into_values().max().unwrap_or_default()
}

/// A reader looks once and keeps its transaction open. It holds up nobody, and the mirror's log grows by what is written; when the reader is
/// through, the log is moved and empty again. A reader that is merely connected keeps nothing.
#[test]
fn a_reader_that_stays_for_an_hour_costs_the_log_what_is_written_and_no_more() {
    const EVERY_MINUTE: &str = "[defaults.schedule]\nincremental = \"0 * * * * *\"\nfull = \"0 0 0 1 1 *\"\n\
         splay = { incremental = \"0s\", full = \"0s\" }\n";
    Simulated::new().block_on(async {
        let mut world = world(&[("acme", 40)], EVERY_MINUTE);
        world.start();
        world.pass(Duration::from_mins(10)).await;
        let seen = |line: &Connection| -> i64 {
            line.query_row("SELECT max(id) FROM syncs", [], |row| row.get(0))
                .unwrap()
        };
        let connected = world.read();
        let before = seen(&connected);
        world.pass(Duration::from_mins(1)).await;
        assert_eq!(world.log_bytes(), 0, "nobody keeps a transaction open");

        let reading = world.read();
        let transaction = reading.unchecked_transaction().unwrap();
        assert_eq!(seen(&reading), before + 1);
        world.pass(Duration::from_hours(1)).await;
        assert_eq!(seen(&reading), before + 1, "it sees one state");
        assert_eq!(seen(&connected), before + 61, "no sync waited for it");
        // The row of a sync that found nothing, its index, and what leads there: fewer than a dozen pages.
        let log_bytes = world.log_bytes();
        assert!((1..60 * 12 * 8_192).contains(&log_bytes), "{log_bytes}");
        drop(transaction);
        world.pass(Duration::from_mins(1)).await;
        assert_eq!(world.log_bytes(), 0, "the reader is through");
        world.stop().await;

        // A log that is long is named to whoever asks.
        let status = || {
            let mut command = Command::new(BINARY);
            command
                .arg("status")
                .arg("--mirror")
                .arg(world.mirror_path());
            Running::start(command).finish(TIME_LIMIT).stdout
        };
        assert!(!status().contains("write-ahead log"), "{}", status());
        let log = OpenOptions::new().write(true).open(world.log_path());
        log.unwrap().set_len(LONG_LOG_BYTES + 1).unwrap();
        let named =
            "the mirror's write-ahead log is 64 MiB long: a reader keeps a transaction open";
        assert!(status().contains(named), "{}", status());
    });
}
