//! Whole worlds from one seed each: random directories, edits, faults, schedules and deaths of the flow,
//! over simulated days and weeks. After each commit the laws hold, and when all is calm again the mirror
//! is the directory.
//!
//! `cargo test` runs the same seeds every time, and those that once found something. One command runs as
//! many as asked, `MUSTERD_SEEDS=1000` or `MUSTERD_SEEDS=1000..2000`, and one replays a seed and prints all
//! that happens in it, `MUSTERD_SEED=17`: see README.

mod clock;
mod edits;
mod files;
mod laws;
mod mishaps;
mod person;
mod plan;
mod run;
mod settings;
mod sums;
mod truth;
mod watch;

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::ledger;
use plan::Plan;
use run::{Report, run};
use sums::Sums;

/// The seeds that every run of the tests goes through.
const SEEDS: Range<u64> = 0..200;

/// Seeds that are run twice.
const TRACED: [u64; 6] = [3, 11, 14, 21, 25, 31];

/// So many broken seeds are told in full; all are counted.
const TOLD: usize = 5;

/// Seeds that once found something, each with what that was. Only ever added to.
const FOUND: &str = include_str!("simulation/found.toml");

/// The command that replays a seed.
const REPLAY: &str = "cargo test --test it simulation::whatever -- --nocapture";

#[test]
fn whatever_happens_the_laws_hold() {
    if let Some(seed) = number("MUSTERD_SEED") {
        return replay(seed);
    }
    let asked = std::env::var("MUSTERD_SEEDS").ok();
    let seeds = asked.as_deref().map_or(SEEDS, |text| {
        range(text).expect("MUSTERD_SEEDS is a number, or two with `..` between them")
    });
    let has_groups = has_groups();
    let sums = run_all(seeds.map(|seed| (seed, has_groups)).collect());
    eprintln!("{sums}");
    if asked.is_none() {
        sums.demand_everything();
        for (what, count) in [
            ("simulation_seeds", sums.seeds),
            ("simulation_days", sums.days),
            ("simulation_deaths", sums.deaths.values().sum()),
            ("simulation_fault_kinds", sums.n_fault_kinds()),
            ("simulation_leavers", sums.n_leavers()),
            ("simulation_told_twice", sums.told_twice),
        ] {
            ledger::enter(what, usize::try_from(count).unwrap());
        }
    }
}

#[test]
fn what_was_found_once_stays_mended() {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Found {
        seed: u64,
        /// Whether its world has groups. Those that were found before there were any have none.
        #[serde(default)]
        groups: bool,
        what: String,
    }
    let mut tables: std::collections::BTreeMap<String, Vec<Found>> = toml::from_str(FOUND).unwrap();
    let found = tables.remove("found").unwrap_or_default();
    assert!(found.iter().all(|found| !found.what.is_empty()));
    let found = found.into_iter();
    run_all(
        found
            .map(|found| (found.seed, Some(found.groups)))
            .collect(),
    );
}

/// A seed, and whether its world has groups; where nothing is said of it, the seed says.
type Seed = (u64, Option<bool>);

/// Runs all of them, on as many threads as there are processors.
fn run_all(seeds: Vec<Seed>) -> Sums {
    let next = AtomicUsize::new(0);
    let sums = Mutex::new(Sums::default());
    let broken = Mutex::new(Vec::new());
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some((seed, has_groups)) = seeds.get(place).copied() else {
                return;
            };
            let report = run(&Plan::of(seed, has_groups), false);
            if report.broken.is_some() {
                let mut broken = broken.lock().unwrap();
                if broken.len() < TOLD {
                    tell(seed, &report);
                }
                broken.push((seed, report.broken));
            }
            sums.lock().unwrap().merge(report.sums);
        }
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut broken = broken.into_inner().unwrap();
    broken.sort_by_key(|(seed, _)| *seed);
    for (seed, law) in &broken {
        let law = law.as_ref().map_or("", |broken| broken.law);
        eprintln!("seed {seed}: {law}");
    }
    assert!(
        broken.is_empty(),
        "{} of {} seeds broke a law",
        broken.len(),
        seeds.len()
    );
    sums.into_inner().unwrap()
}

fn replay(seed: u64) {
    let plan = Plan::of(seed, has_groups());
    eprintln!("{plan:#?}");
    let report = run(&plan, true);
    for line in &report.trace {
        eprintln!("{line}");
    }
    eprintln!("{}", report.sums);
    assert_eq!(report.broken, None, "seed {seed}");
}

fn tell(seed: u64, report: &Report) {
    let lines = report.lines.join("\n  ");
    let broken = report
        .broken
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    eprintln!(
        "seed {seed} broke a law\n  {lines}\n{broken}\nreplay it with: MUSTERD_SEED={seed} {REPLAY}"
    );
}

/// `MUSTERD_GROUPS=0`: no world has groups, as those of seeds that were found before there were any; `1`: each has.
fn has_groups() -> Option<bool> {
    Some(number("MUSTERD_GROUPS")? > 0)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// `1000`, or `1000..2000`.
fn range(text: &str) -> Option<Range<u64>> {
    match text.split_once("..") {
        Some((from, to)) => Some(from.parse().ok()?..to.parse().ok()?),
        None => Some(0..text.parse().ok()?),
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let asked = number("MUSTERD_SEED").map(|seed| vec![seed]);
    for seed in asked.unwrap_or(TRACED.to_vec()) {
        let plan = Plan::of(seed, has_groups());
        let (one, other) = (run(&plan, true), run(&plan, true));
        let differ = one.trace.iter().zip(&other.trace).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(one.trace.len(), other.trace.len(), "seed {seed}");
    }
}
