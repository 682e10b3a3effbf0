//! The rate limit is a promise (promise P8), shown by what the server has seen of real processes; and what `musterd status` says of
//! it is what the server has counted.

use musterd::sandbox::{Effect, Fault, Logged, RateRule};
use serde_json::Value;

use crate::harness::served::Served;
use crate::harness::{Home, Ran, Running, TIME_LIMIT};

/// Requests a second, and at once.
const RATE: [f64; 2] = [10.0, 4.0];

/// How much later than it was sent a request may be answered on a busy machine, so that two come closer together.
const LATE_SECONDS: f64 = 0.25;

/// An instance of 150 users in pages of five, and its home.
pub(crate) fn scene() -> (Served, Home) {
    let served = Served::of(150);
    let home = served.home("");
    let [per_second, burst] = RATE;
    rewrite(
        &home,
        "rate = { per_second = 1000, burst = 1000 }",
        &format!("rate = {{ per_second = {per_second}, burst = {burst}, per_hour = 30000 }}"),
    );
    rewrite(&home, "page_size = 50", "page_size = 5");
    (served, home)
}

fn rewrite(home: &Home, from: &str, to: &str) {
    let text = std::fs::read_to_string(home.config_path()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(home.config_path(), text.replace(from, to)).unwrap();
}

pub(crate) fn heard(daemon: &mut Running, what: &str) {
    let line = daemon.wait_for(TIME_LIMIT, |line| line.contains(what));
    line.unwrap_or_else(|all| panic!("not `{what}`: {all:?}"));
}

pub(crate) fn done(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{ran}");
}

/// No window has more than its share, whatever its length: of those that end with one request, the level is the most that any holds
/// above what the rate has added.
pub(crate) fn assert_kept(requests: &[Logged]) {
    let [per_second, burst] = RATE;
    let mut level = 0.0_f64;
    for (place, request) in requests.iter().enumerate() {
        let passed = match place {
            0 => 0.0,
            _ => request
                .at
                .duration_since(requests[place - 1].at)
                .as_secs_f64(),
        };
        level = (level - per_second * passed).max(0.0) + 1.0;
        assert!(
            level <= burst + per_second * LATE_SECONDS,
            "{level} at once, with request {place}: {}",
            request.line
        );
    }
}

fn status(home: &Home) -> [Option<u64>; 2] {
    let ran = home.run(&["status", "--json"]);
    done(&ran);
    let row: Value = serde_json::from_str(&ran.stdout).unwrap();
    ["requests_last_hour", "requests_left"].map(|key| row[key].as_u64())
}

#[test]
fn the_rate_holds_over_all_that_talks_to_an_instance_and_status_counts_it() {
    let (served, home) = scene();
    let counted = || served.sandbox.requests().len() as u64;
    let agrees = || {
        let sent = counted();
        assert_eq!(status(&home), [Some(sent), Some(30_000 - sent)]);
    };

    // Without a daemon.
    done(&home.sync("full"));
    agrees();
    done(&home.run(&["check"]));
    agrees();

    // Beside one: a full sync goes on with the settings it began with while new ones come into force.
    let mut daemon = home.start(&["run"]);
    heard(&mut daemon, "\"started\"");
    done(&home.sync("incremental"));
    let before = counted();
    let start = |args: &[&str]| home.start(args);
    let full = start(&["sync", "--mode", "full"]);
    while counted() < before + 5 {
        std::thread::yield_now();
    }
    rewrite(&home, "timeout = \"20s\"", "timeout = \"19s\"");
    daemon.hang_up();
    heard(&mut daemon, "configuration reloaded");
    let beside: Vec<Running> = [
        &["check"][..],
        &["sync", "--mode", "full", "--dry-run"],
        &["sync", "--mode", "incremental"],
        &["sync", "--mode", "full"],
    ]
    .into_iter()
    .map(start)
    .collect();
    for running in beside.into_iter().chain([full]) {
        done(&running.finish(TIME_LIMIT));
    }
    // A token that has ended, and an answer that is repeated for.
    served.sandbox.end_token();
    done(&home.sync("incremental"));
    served
        .sandbox
        .set_faults(vec![Fault::new(Effect::EdgeError { status: 503 }).times(1)]);
    done(&home.sync("incremental"));
    assert_eq!(served.sandbox.fired()[0].times, 1);
    daemon.terminate();
    done(&daemon.finish(TIME_LIMIT));
    agrees();

    // A restart forgets nothing.
    let mut daemon = home.start(&["run"]);
    heard(&mut daemon, "\"started\"");
    done(&home.sync("incremental"));
    daemon.terminate();
    done(&daemon.finish(TIME_LIMIT));
    agrees();

    // Alone it keeps to the rate as well, and writes nothing: not even its own count.
    let told = status(&home);
    done(&home.run(&["sync", "--mode", "full", "--dry-run"]));
    assert_eq!(status(&home), told);
    assert_kept(&served.sandbox.requests());
}

#[test]
fn no_death_and_no_start_adds_to_a_window() {
    let (served, home) = scene();
    for _ in 0..8 {
        let before = served.sandbox.requests().len();
        let daemon = home.start(&["run"]);
        while served.sandbox.requests().len() < before + 7 {
            std::thread::yield_now();
        }
        daemon.kill();
        let _killed = daemon.finish(TIME_LIMIT);
    }
    assert_kept(&served.sandbox.requests());
}

#[test]
fn a_tighter_limit_that_is_told_is_said_once_and_what_is_left_of_it() {
    let (served, home) = scene();
    served
        .sandbox
        .set_rate_limit(Some(RateRule::per_hour(20_000)));
    let mut daemon = home.start(&["run"]);
    heard(&mut daemon, "allows fewer requests than `rate`");
    for mode in ["full", "incremental", "incremental"] {
        done(&home.sync(mode));
    }
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    done(&ran);
    assert_eq!(
        ran.stderr.matches("allows fewer requests").count(),
        1,
        "{ran}"
    );
    assert!(ran.stderr.contains("\"per_hour\":18000"), "{ran}");
    let sent = served.sandbox.requests().len() as u64;
    assert_eq!(status(&home), [Some(sent), Some(18_000 - sent)]);
}

/// Whoever was told to wait: the next one to ask keeps to it, also after a death.
#[test]
fn a_wait_that_is_told_outlives_whoever_was_told() {
    let asks_for = |served: &Served, retry_after: &str| {
        let retry_after = retry_after.to_owned();
        let refused = Fault::new(Effect::RateLimited { retry_after });
        served.sandbox.set_faults(vec![refused]);
    };
    let is_left_alone = |served: &Served, home: &Home| {
        served.sandbox.set_faults(Vec::new());
        let before = served.sandbox.requests().len();
        let ran = home.sync("incremental");
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stdout.contains("wait"), "{ran}");
        assert_eq!(served.sandbox.requests().len(), before, "{ran}");
    };

    // A daemon that sits it out is killed.
    let (served, home) = scene();
    done(&home.sync("full"));
    rewrite(&home, "\"100ms\"", "\"5m\"");
    asks_for(&served, "200");
    let mut daemon = home.start(&["run"]);
    heard(&mut daemon, "refuses requests");
    let told = || {
        let ran = home.run(&["status", "--json"]);
        serde_json::from_str::<Value>(&ran.stdout).unwrap()["not_before"].is_string()
    };
    let began = tokio::time::Instant::now();
    while !told() {
        // Within a minute it would be kept by the clock alone.
        assert!(began.elapsed().as_secs() < 30, "it is not kept at once");
    }
    daemon.kill();
    let _killed = daemon.finish(TIME_LIMIT);
    let said = home.run(&["status"]).stdout;
    assert!(said.contains("asked to be left alone"), "{said}");
    // One that has less patience says so at once.
    rewrite(&home, "\"5m\"", "\"100ms\"");
    is_left_alone(&served, &home);

    // A command that was told, where no daemon runs.
    let (served, home) = scene();
    done(&home.sync("full"));
    asks_for(&served, "3000");
    let ran = home.run(&["check"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    is_left_alone(&served, &home);
}
