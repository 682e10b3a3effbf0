//! Which promise was held against which fault. It is made of the checks that were executed: each law
//! that a case asserted enters its promise, and nothing is entered by hand.
//!
//! Cases are threads of one process, or processes of their own, so what they enter is a file; the matrix
//! is printed by an ignored test, run by `.ci/run` after all the others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A promise of the contract, section 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Promise {
    /// Nobody is deactivated by mistake.
    P1 = 1,
    /// Mirror and feed move together.
    P2,
    /// A dense feed, whose fold is the mirror.
    P3,
    /// Nothing happens when nothing changed.
    P4,
    /// Too much at once is held, exactly; all else goes through.
    P5,
    /// A read never undoes a later read.
    P6,
    /// Freshness is not starved, nor are other instances.
    P7,
    /// The rate limit is kept.
    P8,
    /// One bad record costs one record.
    P9,
    /// Flat cost.
    P10,
    /// Secrets stay secret.
    P11,
    /// Readers never wait and never see half a transaction.
    P12,
}

const PROMISES: usize = Promise::P12 as usize;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fault_matrix")
}

/// Enters the promises that a case was held against.
pub(super) fn enter(case: &str, promises: &BTreeSet<Promise>) {
    std::fs::create_dir_all(folder()).unwrap();
    let numbers: Vec<String> = promises
        .iter()
        .map(|one| (*one as usize).to_string())
        .collect();
    std::fs::write(folder().join(case), numbers.join(" ")).unwrap();
}

fn entered(case: &str) -> Option<BTreeSet<usize>> {
    let text = std::fs::read_to_string(folder().join(case)).ok()?;
    Some(text.split(' ').map(|one| one.parse().unwrap()).collect())
}

/// Prints faults by promises. A case that did not come to its end has no line, and fails this.
#[test]
#[ignore = "shows what the other tests entered, so it runs after them"]
fn faults_by_promises() {
    let mut missing = Vec::new();
    let mut held: BTreeMap<usize, usize> = BTreeMap::new();
    let head: Vec<String> = (1..=PROMISES)
        .map(|n| format!("{:>4}", format!("P{n}")))
        .collect();
    println!("{:>3} {:<52}{}", "", "", head.concat());
    for (section, cases) in super::sections() {
        println!("    {section}");
        for (number, name) in cases {
            let name = &name.trim_start_matches('_');
            let Some(promises) = entered(name) else {
                missing.push(*name);
                continue;
            };
            let cells: Vec<&str> = (1..=PROMISES)
                .map(|n| {
                    if promises.contains(&n) {
                        "   x"
                    } else {
                        "   ."
                    }
                })
                .collect();
            println!("{number:>3} {name:<52}{}", cells.concat());
            for n in promises {
                *held.entry(n).or_default() += 1;
            }
        }
    }
    let sums: Vec<String> = (1..=PROMISES)
        .map(|n| format!("{:>4}", held.get(&n).copied().unwrap_or_default()))
        .collect();
    println!("{:>3} {:<52}{}", "", "cases", sums.concat());
    assert_eq!(
        missing,
        Vec::<&str>::new(),
        "these did not come to their end"
    );
    assert_eq!(
        held.len(),
        PROMISES,
        "no fault was held against some promise"
    );
}
