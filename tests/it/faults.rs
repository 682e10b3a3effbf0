//! Faults by name: the adverse cases 1 to 76 of the reliability page, sections A to E, and nowhere else; and
//! those of groups, which are not on it.
//!
//! A case is a table row in the file of its section, and a test of that name: the fault script that
//! `musterd sandbox --faults` reads as well, and what is demanded while the fault lasts. All of them go
//! through the real daemon loop over real SQLite ([`course`]), with real leavers meanwhile, and all are
//! held to the same laws ([`laws`]): nobody who lives is deactivated or blanked, real leavers go, nothing
//! is half written, outcomes and certificates are honest, and once the fault has ended the next syncs
//! find the truth. A fault that never fired fails its case.

use std::collections::BTreeSet;

mod authentication;
mod course;
mod data;
mod demands;
mod follower;
mod groups;
mod laws;
mod log;

mod matrix;
mod network;
mod source;
mod switches;
mod time;
mod tls;
mod trial;
mod ways;

/// The cases of one section: each a test of its name, in the order of their numbers.
macro_rules! cases {
    ($($(#[$doc:meta])* $number:literal $name:ident = $case:expr;)*) => {
        /// The numbers and the names.
        pub(super) const CASES: &[(u64, &str)] = &[$(($number, stringify!($name))),*];

        $($(#[$doc])* #[test] fn $name() {
            super::course::run($number, stringify!($name), $case);
        })*
    };
}
use cases;

/// All cases, by section.
fn sections() -> Vec<(&'static str, &'static [(u64, &'static str)])> {
    vec![
        ("A. The source lies", source::CASES),
        ("B. Network", network::CASES),
        ("C. Authentication", authentication::CASES),
        ("D. Time", time::CASES),
        ("E. Data", data::CASES),
        ("Groups", groups::CASES),
    ]
}

/// The table is whole: each number of the page has its case, and no name comes twice.
#[test]
fn the_table_has_every_case_of_the_page() {
    let cases: Vec<(u64, &str)> = sections()
        .into_iter()
        .flat_map(|(_, cases)| cases.iter().copied())
        .collect();
    let numbers: BTreeSet<u64> = cases.iter().map(|(number, _)| *number).collect();
    // Those of groups are not on the page, and stand behind it.
    let (of_page, of_groups): (Vec<u64>, Vec<u64>) =
        numbers.into_iter().partition(|number| *number < 200);
    assert!(of_page.into_iter().eq(1..=76));
    assert!(of_groups.into_iter().eq((201..).take(groups::CASES.len())));
    assert!(cases.is_sorted_by_key(|(number, _)| *number));
    let names: BTreeSet<&str> = cases.iter().map(|(_, name)| *name).collect();
    assert_eq!(names.len(), cases.len());
}

/// A fault that cannot fire fails its case, whatever else holds.
#[test]
#[should_panic(expected = "the fault never fired: `html_page`")]
fn a_fault_that_never_fires_fails_its_case() {
    let case = course::Case {
        fault: "[[fault]]\nkind = 'html_page'\npath = '/nowhere*'",
        ..course::CASE
    };
    course::Course::run(case, 990);
}

/// And a case without a fault is none.
#[test]
#[should_panic(expected = "nothing shows that there was one")]
fn a_case_without_a_fault_fails() {
    course::Course::run(course::CASE, 991);
}

/// The control of the laws: somebody whom the mirror loses though he lives is noticed.
#[test]
#[should_panic(expected = "lives and was deactivated")]
fn a_mirror_that_loses_somebody_fails_its_case() {
    let case = course::Case {
        fault: "[[fault]]\nkind = 'header'\nheader = 'X-Odd'\nvalue = 'yes'",
        // He is made inactive and nobody is told that he really left; then he is active again.
        edits: |trial| {
            let of = |active| musterd::sandbox::Values::new().active(active);
            let victim = &trial.people.victim;
            trial.sandbox().update(victim, &of(false));
            trial
                .sandbox()
                .update_late(victim, of(true), std::time::Duration::from_mins(20));
        },
        ..course::CASE
    };
    course::Course::run(case, 992);
}
