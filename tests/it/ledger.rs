//! How much was tried: suites whose worth is a number (cases, seeds, points, images, executions)
//! enter it here, and `tests/ledger.toml` says how few are too few.
//!
//! Suites are other processes and threads, so a count is a file; the check is an ignored test, run
//! by `.ci/run` after all the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const DEMANDED: &str = include_str!("../ledger.toml");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("ledger")
}

/// Enters how many of `what` a suite has tried. Each name is entered by one test, once, after all
/// of them held.
///
/// # Panics
/// When `tests/ledger.toml` does not name it, or the count cannot be kept.
pub(crate) fn enter(what: &str, count: usize) {
    assert!(
        demanded().contains_key(what),
        "`{what}` is not in tests/ledger.toml"
    );
    std::fs::create_dir_all(folder()).unwrap();
    std::fs::write(folder().join(what), count.to_string()).unwrap();
}

/// Enters one case of `what` that held, where each case is a test of its own.
///
/// # Panics
/// As [`enter`].
pub(crate) fn enter_case(what: &str, case: &str) {
    assert!(
        demanded().contains_key(what),
        "`{what}` is not in tests/ledger.toml"
    );
    let cases = folder().join(what);
    std::fs::create_dir_all(&cases).unwrap();
    std::fs::write(cases.join(case), "").unwrap();
}

fn demanded() -> BTreeMap<String, usize> {
    toml::from_str(DEMANDED).expect("tests/ledger.toml has one number for each name")
}

fn entered(what: &str) -> usize {
    let kept = folder().join(what);
    if let Ok(cases) = kept.read_dir() {
        return cases.count();
    }
    std::fs::read_to_string(kept).map_or(0, |count| count.trim().parse().unwrap())
}

#[test]
#[ignore = "counts what the other tests entered, so it runs after them"]
fn as_much_was_tried_as_the_ledger_demands() {
    let mut short = Vec::new();
    println!("{:<28} {:>10} {:>10}", "tried", "count", "at least");
    for (what, least) in demanded() {
        let count = entered(&what);
        println!("{what:<28} {count:>10} {least:>10}");
        if count < least {
            short.push(format!("{what}: {count} of {least}"));
        }
    }
    assert_eq!(
        short,
        Vec::<String>::new(),
        "fewer than tests/ledger.toml demands"
    );
}
