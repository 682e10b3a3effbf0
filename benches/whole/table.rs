//! The figures, as tables for people and as JSON.

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
    findings: Vec<Finding>,
    notes: Vec<String>,
}

/// One case in one round.
#[derive(Serialize)]
struct Measured {
    case: String,
    /// Or memberships, where the case is about groups.
    users: usize,
    cost: Cost,
    /// Its wall over that of its floor in the same round.
    ratio: Option<f64>,
    file_bytes: u64,
    requests: u64,
}

/// One figure in one round that is not the cost of one process, or has a goal.
#[derive(Clone, Serialize)]
pub(crate) struct Finding {
    pub(crate) what: String,
    pub(crate) users: usize,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// It shall be no more than this.
    pub(crate) goal: Option<f64>,
}

/// The medians of a case over its rounds.
pub(crate) struct Medians {
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
    pub(crate) file_mb: f64,
}

impl Figures {
    pub(crate) fn add(
        &mut self,
        case: &str,
        users: usize,
        cost: Cost,
        floor_seconds: Option<f64>,
        file_bytes: u64,
        requests: u64,
    ) {
        eprintln!("{users}, {case}: {:.3} s", cost.wall_seconds);
        self.measured.push(Measured {
            case: case.to_owned(),
            users,
            cost,
            ratio: floor_seconds.map(|floor| cost.wall_seconds / floor),
            file_bytes,
            requests,
        });
    }

    pub(crate) fn find(
        &mut self,
        what: &str,
        users: usize,
        value: f64,
        unit: &'static str,
        goal: Option<f64>,
    ) {
        self.findings.push(Finding {
            what: what.to_owned(),
            users,
            value,
            unit,
            goal,
        });
    }

    /// Text below the tables.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn save(&self, path: &Path) {
        let saved = serde_json::json!({ "machine": machine(), "figures": self });
        let text = serde_json::to_vec_pretty(&saved).expect("numbers and texts are JSON");
        std::fs::write(path, text)
            .unwrap_or_else(|error| panic!("`{}` is not written: {error}", path.display()));
    }

    pub(crate) fn medians(&self, case: &str, users: usize) -> Option<Medians> {
        let rounds = self.rounds(case, users);
        let of = |value: fn(&Measured) -> f64| {
            Some(Spread::of(rounds.iter().map(|one| value(one)))?.median)
        };
        Some(Medians {
            cpu_seconds: of(|one| one.cost.cpu_seconds)?,
            peak_mib: of(|one| one.cost.peak_bytes as f64 / MIB)?,
            file_mb: of(|one| one.file_bytes as f64 / MB)?,
        })
    }

    fn rounds(&self, case: &str, users: usize) -> Vec<&Measured> {
        let is_it = |one: &&Measured| one.case == case && one.users == users;
        self.measured.iter().filter(is_it).collect()
    }

    fn write_costs(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| case | users or memberships | wall s | × floor (spread) | CPU s | CPU µs each | peak MiB | written MB | file MB | requests |"
        )?;
        writeln!(f, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        let mut shown: Vec<(&str, usize)> = Vec::new();
        for one in &self.measured {
            if shown.contains(&(&one.case, one.users)) {
                continue;
            }
            shown.push((&one.case, one.users));
            let rounds = self.rounds(&one.case, one.users);
            let of = |value: fn(&Measured) -> f64| {
                Spread::of(rounds.iter().map(|one| value(one))).map_or(0.0, |spread| spread.median)
            };
            let ratio = Spread::of(rounds.iter().filter_map(|one| one.ratio));
            let ratio = ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}"));
            let cpu = of(|one| one.cost.cpu_seconds);
            // Of a part of a process there is none.
            let peak = match of(|one| one.cost.peak_bytes as f64 / MIB) {
                0.0 => "–".to_owned(),
                peak => format!("{peak:.1}"),
            };
            writeln!(
                f,
                "| {} | {} | {:.3} | {ratio} | {cpu:.3} | {:.1} | {peak} | {:.1} | {:.1} | {:.0} |",
                one.case,
                one.users,
                of(|one| one.cost.wall_seconds),
                cpu * 1e6 / one.users as f64,
                of(|one| one.cost.written_bytes as f64 / MB),
                of(|one| one.file_bytes as f64 / MB),
                of(|one| one.requests as f64),
            )?;
        }
        Ok(())
    }

    fn write_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| figure | users or memberships | median (spread) | goal | reached |"
        )?;
        writeln!(f, "|---|--:|--:|--:|---|")?;
        let mut shown: Vec<(&str, usize)> = Vec::new();
        for one in &self.findings {
            let it = (one.what.as_str(), one.users);
            if shown.contains(&it) {
                continue;
            }
            shown.push(it);
            let same = (self.findings.iter()).filter(|other| (&*other.what, other.users) == it);
            let Some(spread) = Spread::of(same.map(|one| one.value)) else {
                continue;
            };
            let unit = one.unit;
            let (goal, reached) = match one.goal {
                None => ("–".to_owned(), ""),
                Some(goal) if spread.median <= goal => (format!("≤ {goal}{unit}"), "yes"),
                Some(goal) => (format!("≤ {goal}{unit}"), "**no**"),
            };
            writeln!(
                f,
                "| {} | {} | {spread:.2}{unit} | {goal} | {reached} |",
                one.what, one.users
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", machine())?;
        self.write_costs(f)?;
        if !self.findings.is_empty() {
            writeln!(f)?;
            self.write_findings(f)?;
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
    rounds: usize,
}

impl Spread {
    /// `None` of no values.
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        Some(Self {
            least: values[0],
            median: f64::midpoint(values[last / 2], values[last.div_ceil(2)]),
            most: values[last],
            rounds: values.len(),
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = f.precision().unwrap_or(2);
        write!(f, "{:.precision$}", self.median)?;
        if self.rounds > 1 {
            write!(f, " ({:.precision$}–{:.precision$})", self.least, self.most)?;
        }
        Ok(())
    }
}

/// When and where it is measured.
fn machine() -> String {
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
