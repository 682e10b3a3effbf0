//! The figures, as a table for people and as JSON.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::measure::Cost;

const MIB: f64 = 1024.0 * 1024.0;
const MB: f64 = 1e6;

/// All that was measured.
#[derive(Default, Serialize)]
pub(crate) struct Figures {
    measured: Vec<Measured>,
    notes: Vec<&'static str>,
}

/// One case in one round.
#[derive(Serialize)]
struct Measured {
    case: &'static str,
    users: usize,
    cost: Cost,
    /// Its wall over that of its floor in the same round.
    ratio: f64,
    file_bytes: u64,
    requests: u64,
}

impl Figures {
    pub(crate) fn add(
        &mut self,
        case: &'static str,
        users: usize,
        cost: Cost,
        floor_seconds: f64,
        file_bytes: u64,
        requests: u64,
    ) {
        self.measured.push(Measured {
            case,
            users,
            cost,
            ratio: cost.wall_seconds / floor_seconds,
            file_bytes,
            requests,
        });
    }

    pub(crate) fn note(&mut self, note: &'static str) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn save(&self, path: &Path) {
        let text = serde_json::to_vec_pretty(self).expect("numbers and texts are JSON");
        std::fs::write(path, text)
            .unwrap_or_else(|error| panic!("`{}` is not written: {error}", path.display()));
    }

    fn rounds(&self, case: &str, users: usize) -> Vec<&Measured> {
        let is_it = |one: &&Measured| one.case == case && one.users == users;
        self.measured.iter().filter(is_it).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| case | users | wall s | × floor (spread) | CPU s | CPU µs a user | peak MiB | written MB | file MB | requests |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        let mut shown: Vec<(&str, usize)> = Vec::new();
        for one in &self.measured {
            if shown.contains(&(one.case, one.users)) {
                continue;
            }
            shown.push((one.case, one.users));
            let rounds = self.rounds(one.case, one.users);
            let of = |value: fn(&Measured) -> f64| Spread::of(rounds.iter().map(|one| value(one)));
            let (wall, ratio) = (of(|one| one.cost.wall_seconds), of(|one| one.ratio));
            let cpu = of(|one| one.cost.cpu_seconds).median;
            writeln!(
                f,
                "| {} | {} | {:.3} | {:.2} ({:.2}–{:.2}) | {cpu:.3} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} |",
                one.case,
                one.users,
                wall.median,
                ratio.median,
                ratio.least,
                ratio.most,
                cpu * 1e6 / one.users as f64,
                of(|one| one.cost.peak_bytes as f64 / MIB).median,
                of(|one| one.cost.written_bytes as f64 / MB).median,
                of(|one| one.file_bytes as f64 / MB).median,
                of(|one| one.requests as f64).median,
            )?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

/// A value over the rounds.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let last = values.len() - 1;
        Self {
            least: values[0],
            median: (values[last / 2] + values[last.div_ceil(2)]) / 2.0,
            most: values[last],
        }
    }
}

/// When and where it is measured.
pub(crate) fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown CPU", |model| {
        model.trim_start_matches([' ', '\t', ':'])
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!("{date}, {model}, {cores} cores, Linux {}\n", kernel.trim())
}
