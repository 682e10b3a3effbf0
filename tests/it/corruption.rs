//! What `musterd verify` finds: whatever changes what a mirror says, by hand or by a disk that lies.

mod by_disk;
mod by_hand;
mod campaign;
mod content;
mod earlier_versions;
mod history;
mod people;

use std::sync::atomic::{AtomicU64, Ordering};

use musterd::mirror::Reader;

use self::campaign::{Folder, Specimen, Tally, Trial, noticed};
use crate::harness::Home;
use crate::ledger;

/// Seeds that are tried.
const SEEDS: u64 = 10_000;

/// Of so many, one goes through the built binary as well.
const ONE_BY_BINARY: u64 = 250;

/// Set to a seed, it alone is tried, and told.
const REPLAY: &str = "CORRUPTION_SEED";

/// What the people of the history are called, and what they have: never in a message.
const PERSONAL: [&str; 5] = ["Zoë", "Nr. ", "example.com", "+49", "Thief"];

#[test]
fn no_corruption_that_changes_content_is_missed() {
    let specimen = Specimen::new();
    if let Some(seed) = std::env::var(REPLAY)
        .ok()
        .and_then(|seed| seed.parse().ok())
    {
        let trial = specimen.trial(seed, &Folder::new());
        println!("seed {seed}: {trial:?}");
        assert_eq!(wrong(&trial), None);
        return;
    }
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (tally, failed) = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| work(&specimen, &next)))
            .collect();
        let (mut all, mut failed) = (Tally::default(), Vec::new());
        for worker in workers {
            let (tally, wrong) = worker.join().unwrap();
            all.join(tally);
            failed.extend(wrong);
        }
        (all, failed)
    });
    println!("{tally}");
    assert!(
        failed.is_empty(),
        "{} of {SEEDS} corruptions ({REPLAY}=N tries one again):\n{}",
        failed.len(),
        failed.join("\n")
    );
    let [tried, changed, _] = tally.sum();
    assert!(changed > tried / 2, "{changed} of {tried} changed content");
    ledger::enter("corruptions", tried);
}

/// Tries seeds until there are no more.
fn work(specimen: &Specimen, next: &AtomicU64) -> (Tally, Vec<String>) {
    let folder = Folder::new();
    let home = Home::new(&[]);
    let (mut tally, mut failed) = (Tally::default(), Vec::new());
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= SEEDS {
            return (tally, failed);
        }
        let trial = specimen.trial(seed, &folder);
        let mut wrong = wrong(&trial);
        if wrong.is_none() && seed.is_multiple_of(ONE_BY_BINARY) {
            wrong = wrong_by_binary(&home, &folder, &trial);
        }
        if let Some(wrong) = wrong {
            failed.push(format!("seed {seed}: {wrong}: {trial:?}"));
        }
        tally.add(&trial);
    }
}

/// What is wrong with how a corruption was met.
fn wrong(trial: &Trial) -> Option<&'static str> {
    let is_by_hand = by_hand::KINDS.iter().any(|(kind, _)| *kind == trial.kind);
    match (&trial.change, &trial.noticed) {
        (_, Some(said)) if said == "PANIC" => Some("panicked"),
        (_, Some(said)) if PERSONAL.iter().any(|text| said.contains(text)) => {
            Some("somebody's data are in the message")
        }
        (Some(_), None) => Some("missed"),
        // A statement that changes nothing leaves a sound file; half a page of an index does not.
        (None, Some(_))
            if is_by_hand && trial.kind != "a seal" && !trial.what.starts_with("fingerprints") =>
        {
            Some("a false alarm")
        }
        _ => None,
    }
}

/// The same through the command: exit code, message, and what to do about it.
fn wrong_by_binary(home: &Home, folder: &Folder, trial: &Trial) -> Option<&'static str> {
    let path = folder.mirror();
    let ran = home.run(&["verify", "--mirror", path.to_str()?]);
    let is_told = |said: &str| match said.strip_prefix("error: ") {
        Some(_) => !ran.stderr.is_empty(),
        None => ran.stderr.contains(said) && ran.stderr.contains("epoch"),
    };
    match (&trial.noticed, ran.code) {
        (None, Some(0)) => None,
        (Some(said), Some(1)) if is_told(said) => None,
        _ => {
            eprintln!("{ran}");
            Some("the command says something else")
        }
    }
}

#[test]
fn a_history_is_verified_after_each_transaction() {
    let folder = Folder::new();
    let path = folder.mirror();
    let written = path.clone();
    history::live(&path, move || assert_eq!(noticed(&written), None));
    let reader = Reader::open(&path).unwrap();
    let verified = reader.verify(&mut |_| {}).unwrap();
    assert_eq!((verified.users, verified.records), (48, 104));
}

#[test]
fn a_sound_file_is_no_alarm() {
    let (specimen, folder) = (Specimen::new(), Folder::new());
    specimen.lay_out(&folder);
    assert_eq!(noticed(&folder.mirror()), None);
}
