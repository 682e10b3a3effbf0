//! Where the users of a hold work and what was said of them, summed up: the largest groups first.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::LINE_CHARS;
use super::saying::Saying;
use crate::cli::words;
use crate::mirror::read::HeldRow;
use crate::model::Foreign;

/// Companies, departments and sayings that are named one by one; the others are summed up.
const GROUPS_SHOWN: usize = 8;

/// How many users each company and department has in a hold, and how many of them the same was said of.
#[derive(Default)]
pub(super) struct Groups {
    companies: BTreeMap<String, u64>,
    departments: BTreeMap<String, u64>,
    said: BTreeMap<String, u64>,
}

impl Groups {
    pub(super) fn add(&mut self, row: &HeldRow) {
        let place = |place: &Option<String>| {
            place
                .as_deref()
                .map_or_else(|| "(none)".to_owned(), |place| Foreign(place).to_string())
        };
        *self.companies.entry(place(&row.company)).or_default() += 1;
        *self.departments.entry(place(&row.department)).or_default() += 1;
        *self.said.entry(Saying::of(row).of_many()).or_default() += 1;
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (name, counts) in [
            ("companies", &self.companies),
            ("departments", &self.departments),
            ("users", &self.said),
        ] {
            group(&mut text, name, counts);
        }
        text
    }
}

/// The largest first, one a line: how many, and of what.
fn group(text: &mut String, name: &str, counts: &BTreeMap<String, u64>) {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let others = sorted.split_off(sorted.len().min(GROUPS_SHOWN));
    let n_others: u64 = others.iter().map(|(_, n)| **n).sum();
    let most = sorted.first().map_or(0, |(_, n)| **n).max(n_others);
    let width = words::number(most).len();
    let mut line = |name: &str, n: u64, what: &str| {
        let (n, what) = (words::number(n), words::clip(what, LINE_CHARS - 13 - width));
        let _ = writeln!(text, "  {name:<13}{n:>width$}  {what}");
    };
    for (place, (what, n)) in sorted.into_iter().enumerate() {
        line(if place == 0 { name } else { "" }, *n, what);
    }
    if !others.is_empty() {
        let places = words::number(others.len() as u64);
        line("", n_others, &format!("in {places} more"));
    }
}
