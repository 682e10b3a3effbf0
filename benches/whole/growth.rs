//! The group `growth`: the cases of `sync` at sizes far apart, and whether a user costs the same in all of them.

use std::fmt::Write as _;

use crate::cli::Sizes;
use crate::sync;
use crate::table::{Figures, Medians};

/// Of what grows with the directory: the CPU of one user.
const PER_USER: [&str; 5] = [
    "first full sync (× both floors)",
    "full sync, unchanged",
    "full sync, 1 % changed",
    "full sync, all changed",
    "verify",
];

/// Of what does not: the CPU.
const CONSTANT: [&str; 4] = [
    "incremental, nothing",
    "incremental, 1,000 changed",
    "changes --after, 100 records",
    "user, by id",
];

pub(crate) fn run(sizes: &Sizes, figures: &mut Figures) {
    for &users in &sizes.growth_users {
        sync::run_alone(users, figures);
    }
    figures.note(table(&sizes.growth_users, figures));
}

fn table(sizes: &[usize], figures: &Figures) -> String {
    let mut text = String::from("| growth |");
    for users in sizes {
        push(&mut text, &format!(" {users} users |"));
    }
    text.push_str(" last over first |\n|---|");
    text.push_str(&"--:|".repeat(sizes.len() + 1));
    for case in PER_USER {
        let a_user = |of: &Medians, users| of.cpu_seconds * 1e6 / users;
        line(
            &mut text,
            &format!("{case}: CPU µs a user"),
            case,
            (sizes, figures),
            a_user,
        );
    }
    for case in CONSTANT {
        let all = |of: &Medians, _| of.cpu_seconds * 1e3;
        line(
            &mut text,
            &format!("{case}: CPU ms"),
            case,
            (sizes, figures),
            all,
        );
    }
    for case in PER_USER.into_iter().chain(CONSTANT) {
        let peak = |of: &Medians, _| of.peak_mib;
        line(
            &mut text,
            &format!("{case}: peak MiB"),
            case,
            (sizes, figures),
            peak,
        );
    }
    let (first, bytes) = (PER_USER[0], |of: &Medians, users| of.file_mb * 1e6 / users);
    line(
        &mut text,
        &format!("{first}: bytes of the file a user"),
        first,
        (sizes, figures),
        bytes,
    );
    text
}

fn line(
    text: &mut String,
    title: &str,
    case: &str,
    (sizes, figures): (&[usize], &Figures),
    value: impl Fn(&Medians, f64) -> f64,
) {
    let values = sizes.iter().map(|&users| {
        let medians = figures.medians(case, users);
        let medians = medians.unwrap_or_else(|| panic!("`{case}` was not measured"));
        value(&medians, users as f64)
    });
    let values: Vec<f64> = values.collect();
    push(text, &format!("\n| {title} |"));
    for value in &values {
        push(text, &format!(" {value:.1} |"));
    }
    let factor = values.last().zip(values.first());
    let factor = factor.map_or(0.0, |(last, first)| last / first);
    push(text, &format!(" {factor:.2} |"));
}

fn push(text: &mut String, more: &str) {
    text.write_str(more).expect("a string takes everything");
}
