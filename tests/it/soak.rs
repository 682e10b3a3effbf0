//! A daemon that runs for long, beside an instance in which people come and go and everything goes wrong now and then. At the end
//! it has not grown, and the mirror is what a new one of the same instance is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::SignedDuration;
use musterd::sandbox::{Effect, Fault};
use tokio::time::Instant;

use crate::harness::served::Served;
use crate::harness::{Home, Running, TIME_LIMIT, rows, text};

const USERS: usize = 400;

const CHURN_PER_MINUTE: u32 = 240;

/// How long the faults of one draw are in force.
const DRAWN_FOR: Duration = Duration::from_secs(2);

/// How much of the time nothing goes wrong at the end.
const CALM_SHARE: u32 = 10;

/// After this part of the time everything has been needed once, and memory should grow no more.
const WARM_SHARE: u32 = 3;

/// What a daemon may have gained at its end: memory since it was warm, files; and what the log may have become.
const MORE_MEMORY_BYTES: u64 = 16 << 20;
const MORE_FILES: u64 = 8;
const MAX_WAL_BYTES: u64 = 64 << 20;

/// As long as `MUSTERD_SOAK` says, like `1h`; prints what came of it.
#[test]
#[ignore = "takes as long as it is told to"]
fn as_long_as_asked() {
    let told = std::env::var("MUSTERD_SOAK").expect("`MUSTERD_SOAK` says how long, like `1h`");
    let told: SignedDuration = told.parse().expect("`MUSTERD_SOAK` is a time, like `1h`");
    println!("{}", soak(told.unsigned_abs(), fastrand::u64(..)));
}

#[test]
fn a_moment() {
    let report = soak(Duration::from_secs(20), 1);
    assert!(report.contains("\nverify"), "{report}");
}

/// Runs a daemon for so long, and says what came of it.
///
/// # Panics
/// When it ends unasked, keeps what it should give back, or the mirror is not what the instance is.
fn soak(length: Duration, seed: u64) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let served = Served::of(USERS);
    let home = served.home(FREQUENT);
    let mut daemon = home.start(&["run"]);
    daemon
        .wait_for(TIME_LIMIT, |line| line.contains("sync finished"))
        .expect("the first sync");
    let at_start = Sample::of(&home, &daemon);
    served.sandbox.set_churn(CHURN_PER_MINUTE);
    let (mut fired, mut most, mut warm) = (BTreeMap::<String, u64>::new(), at_start, at_start);
    let began = Instant::now();
    while began.elapsed() < length {
        let is_calm = began.elapsed() > length - length / CALM_SHARE;
        let drawn = (0..if is_calm { 0 } else { rng.usize(..3) }).map(|_| drawn(&mut rng));
        served.sandbox.set_faults(drawn.collect());
        daemon.listen((Instant::now() + DRAWN_FOR).min(began + length));
        for fault in served.sandbox.fired() {
            *fired.entry(fault.name).or_default() += fault.times;
        }
        most = most.max(Sample::of(&home, &daemon));
        if began.elapsed() < length / WARM_SHARE {
            warm = most;
        }
    }
    served.sandbox.set_faults(Vec::new());
    served.sandbox.set_churn(0);
    settle(&home);
    let at_end = Sample::of(&home, &daemon);
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");

    let verified = home.run(&["verify"]);
    let report = report(
        &home,
        seed,
        &fired,
        [at_start, most, at_end],
        &verified.stdout,
    );
    assert_eq!(verified.code, Some(0), "{verified}\n{report}");
    assert!(at_end.files <= at_start.files + MORE_FILES, "{report}");
    assert!(most.wal_bytes <= MAX_WAL_BYTES, "{report}");
    let gained = at_end.memory_bytes.saturating_sub(warm.memory_bytes);
    assert!(gained <= MORE_MEMORY_BYTES, "{report}");
    assert!(fired.values().sum::<u64>() > 0, "{report}");
    let fresh = served.home("");
    assert_eq!(fresh.sync("full").code, Some(0), "{report}");
    let living = [&fresh, &home].map(living);
    assert_eq!(living[0].len(), served.sandbox.ids().len());
    assert!(living[0] == living[1], "{report}");
    report
}

const FREQUENT: &str = "\
    guard.deactivations = { at_least = 1000000, count = 1000000, percent = 100, window = \"1h\" }\n\
    schedule = { incremental = \"* * * * * *\", full = \"*/5 * * * * *\", splay = { incremental = \"0s\", full = \"0s\" } }";

/// Something that goes wrong, for some of the requests. No rate limit that the instance tells: it is kept for an hour, in which
/// hardly anything would happen.
fn drawn(rng: &mut fastrand::Rng) -> Fault {
    let share = 0.5;
    let effects = [
        Effect::HtmlPage,
        Effect::EdgeError { status: 503 },
        Effect::Dropped,
        Effect::SemaphoreFull,
        Effect::Unauthorized,
        Effect::RoleMissing,
        Effect::Cancelled,
        Effect::ErrorInstead,
        Effect::BrokenJson { share },
        Effect::TrailingError,
        Effect::Reset,
        Effect::Cut { share },
        Effect::Stall { share },
        Effect::Slow { ms: 300 },
        Effect::GzipCut,
        Effect::OrderScrambled,
        Effect::TiesShuffled,
        Effect::StartIndexIgnored,
        Effect::FirstPageAgain,
        Effect::ShortPage { rows: 20 },
        Effect::EmptyPage,
        Effect::RepeatedRow,
        Effect::RowDropped,
        Effect::ResourcesMissing,
        Effect::TotalOff { by: -3 },
        Effect::TotalOff { by: 3 },
        Effect::RowsHidden { share: 0.05 },
        Effect::RowsHiddenAfterCut { share: 0.05 },
        Effect::RowsUnlisted {
            share: 0.05,
            ids: Vec::new(),
        },
        Effect::AnotherUser,
        Effect::NodeBehind { seconds: 3 },
        Effect::EmptyForms,
        Effect::MembersShuffled,
        Effect::StampsMoved { share: 0.05 },
        Effect::SilentChange { share: 0.02 },
        Effect::RowInserted,
    ];
    let chosen = rng.choice(effects);
    Fault::new(chosen.expect("there are some")).probability([0.05, 0.3, 1.0][rng.usize(..3)])
}

/// Waits until a full sync has nothing more to say: what was told to wait waits.
fn settle(home: &Home) {
    let until = Instant::now() + TIME_LIMIT;
    loop {
        let ran = home.sync("full");
        if ran.code == Some(0) {
            return;
        }
        assert!(Instant::now() < until, "{ran}");
    }
}

/// Everybody who is not gone, with all that the mirror says of them and a new one would say.
fn living(home: &Home) -> Vec<String> {
    home.list("SELECT id || ' ' || active || ' ' || attributes FROM users WHERE gone_at IS NULL ORDER BY id")
}

/// What a running daemon has.
#[derive(Clone, Copy)]
struct Sample {
    memory_bytes: u64,
    files: u64,
    wal_bytes: u64,
}

impl Sample {
    fn of(home: &Home, daemon: &Running) -> Self {
        let status = std::fs::read_to_string(daemon.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next());
        let wal = home.path().join("mirror.db-wal").metadata();
        Self {
            memory_bytes: kilobytes.unwrap().parse::<u64>().unwrap() << 10,
            files: std::fs::read_dir(daemon.proc("fd")).unwrap().count() as u64,
            wal_bytes: wal.map_or(0, |found| found.len()),
        }
    }

    fn max(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            files: self.files.max(other.files),
            wal_bytes: self.wal_bytes.max(other.wal_bytes),
        }
    }
}

fn report(
    home: &Home,
    seed: u64,
    fired: &BTreeMap<String, u64>,
    [start, most, end]: [Sample; 3],
    verified: &str,
) -> String {
    let mut report = format!("seed {seed}");
    let mut line = |what: &str, is: String| {
        let _infallible = write!(report, "\n{what:<28}{is}");
    };
    let syncs = "SELECT mode, outcome, count(*) AS n FROM syncs GROUP BY 1, 2 ORDER BY 1, 2";
    for row in rows(&home.mirror(), syncs) {
        let [mode, outcome, n] = ["mode", "outcome", "n"].map(|name| text(&row, name).unwrap());
        line(&format!("syncs, {mode}, {outcome}"), n);
    }
    for row in rows(
        &home.mirror(),
        "SELECT kind, count(*) AS n FROM changes GROUP BY 1 ORDER BY 1",
    ) {
        let [kind, n] = ["kind", "n"].map(|name| text(&row, name).unwrap());
        line(&format!("records, {kind}"), n);
    }
    line(
        "holds",
        home.one::<i64>("SELECT count(*) FROM holds").to_string(),
    );
    for (name, times) in fired.iter().filter(|(_, times)| **times > 0) {
        line(&format!("fault {name}"), times.to_string());
    }
    for (what, of) in [
        (
            "memory, MiB",
            (|of| of.memory_bytes >> 20) as fn(Sample) -> u64,
        ),
        ("files open", |of| of.files),
        ("write-ahead log, KiB", |of| of.wal_bytes >> 10),
    ] {
        let [start, most, end] = [start, most, end].map(of);
        line(
            what,
            format!("{start} at the start, {most} at most, {end} at the end"),
        );
    }
    line("verify", verified.trim().replace('\n', "; "));
    report
}
