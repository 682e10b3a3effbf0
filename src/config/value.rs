//! Values as they are written, read as what a key expects. The environment has only text, so that
//! there the expected type decides.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use config::{Value, ValueKind};
use jiff::SignedDuration;

use super::notes::Notes;
use super::origin::Origin;
use super::problem::Problem;
use super::shown::ShownKey;
use crate::model::time;

/// A value that stands at a key.
#[derive(Clone)]
pub(super) struct Found<'a> {
    pub(super) notes: &'a Notes,
    pub(super) value: &'a Value,
    pub(super) origin: Origin,
    /// The key by its whole path, as it is written.
    pub(super) written: String,
    /// The key that it decides, by its whole path: another one if it is written in `[defaults]`.
    pub(super) decides: String,
    /// Whether it is only looked at, because nothing uses it yet.
    pub(super) unused: bool,
}

/// Why a text is not what was expected.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) hint: Option<String>,
    /// The text as it may be shown, where that is not the text itself.
    pub(super) shown: Option<String>,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            shown: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn shown(mut self, shown: impl Into<String>) -> Self {
        self.shown = Some(shown.into());
        self
    }
}

impl Found<'_> {
    /// A text that `read` understands.
    pub(super) fn text<T>(
        &self,
        expected: &str,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let ValueKind::String(text) = &self.value.kind else {
            return self.wrong_type("is not text", expected);
        };
        match read(text) {
            Ok(read) => {
                self.show(text.as_str());
                Some(read)
            }
            Err(wrong) => {
                let mut problem = self.problem(wrong.what).expected(expected);
                problem = problem.got(wrong.shown.unwrap_or_else(|| text.clone()));
                if let Some(hint) = wrong.hint {
                    problem = problem.hint(hint);
                }
                self.notes.problem(problem);
                None
            }
        }
    }

    /// Any text but an empty one.
    pub(super) fn name(&self, expected: &str) -> Option<String> {
        self.text(expected, |text| {
            if text.trim().is_empty() {
                Err(Wrong::new("is empty"))
            } else if text.chars().any(char::is_control) {
                Err(Wrong::new("has a control character in it"))
            } else {
                Ok(text.to_owned())
            }
        })
    }

    /// A whole number. A fraction is refused, not rounded.
    pub(super) fn count<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        let (low, high) = (range.start(), range.end());
        let expected = format!("a whole number from {low} to {high}");
        let number = match &self.value.kind {
            ValueKind::I64(number) => i128::from(*number),
            ValueKind::String(text) if self.origin == Origin::Environment => {
                match text.parse::<i128>() {
                    Ok(number) => number,
                    Err(_) => return self.wrong_type("is not a whole number", &expected),
                }
            }
            _ => return self.wrong_type("is not a whole number", &expected),
        };
        let inside = u64::try_from(number).ok().filter(|n| range.contains(n));
        let Some(read) = inside.and_then(|n| T::try_from(n).ok()) else {
            let what = if number < i128::from(*low) {
                "is too small"
            } else {
                "is too large"
            };
            self.notes.problem(
                self.problem(what)
                    .got(number.to_string())
                    .expected(expected),
            );
            return None;
        };
        self.show(inside);
        Some(read)
    }

    /// A duration such as `90s`, `1h 30m` or `400d`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let (low, high) = (short(*range.start()), short(*range.end()));
        let expected = format!("a duration from \"{low}\" to \"{high}\"");
        self.text(&expected, |text| parse_duration(text, &range))
    }

    /// A duration, or `forever`, which is `None`.
    pub(super) fn duration_or_forever(
        &self,
        range: RangeInclusive<Duration>,
    ) -> Option<Option<Duration>> {
        let low = short(*range.start());
        let expected = format!("a duration of at least \"{low}\" such as \"400d\", or \"forever\"");
        self.text(&expected, |text| match text {
            "forever" => Ok(None),
            _ => parse_duration(text, &range).map(Some),
        })
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        self.text(&format!("one of {}", listed(words)), |text| {
            let known = words.iter().find(|(word, _)| *word == text);
            known
                .map(|(_, meaning)| *meaning)
                .ok_or_else(|| Wrong::new("is not known"))
        })
    }

    /// A list of some words, at least one, none twice. In the environment commas part them.
    pub(super) fn words<T: Copy>(&self, words: &[(&str, T)]) -> Option<Vec<T>> {
        let expected = format!("a list of one or more of {}", listed(words));
        let parts: Option<Vec<&str>> = match &self.value.kind {
            ValueKind::Array(array) => array
                .iter()
                .map(|value| match &value.kind {
                    ValueKind::String(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect(),
            ValueKind::String(text) if self.origin == Origin::Environment => {
                Some(text.split(',').map(str::trim).collect())
            }
            _ => None,
        };
        let Some(parts) = parts else {
            return self.wrong_type("is not a list of texts", &expected);
        };
        let mut meanings = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            let known = words.iter().find(|(word, _)| word == part);
            match known {
                Some(_) if parts[..place].contains(part) => {
                    self.notes
                        .problem(self.problem("names one twice").got(*part));
                }
                Some((_, meaning)) => meanings.push(*meaning),
                None => {
                    let problem = self.problem("has a part that is not known");
                    self.notes.problem(problem.got(*part).expected(&expected));
                }
            }
        }
        if parts.is_empty() {
            self.notes
                .problem(self.problem("is empty").expected(&expected));
        }
        if parts.is_empty() || meanings.len() < parts.len() {
            return None;
        }
        self.show(parts);
        Some(meanings)
    }

    /// A file, absolute or from the folder of the file that names it.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let ValueKind::String(text) = &self.value.kind else {
            return self.wrong_type("is not text", "the path of a file");
        };
        if text.is_empty() || text.ends_with('/') || text.chars().any(char::is_control) {
            let problem = self.problem("is not the path of a file");
            self.notes
                .problem(problem.got(text).expected("the path of a file"));
            return None;
        }
        let path = self.origin.resolve(text);
        self.show(path.to_string_lossy());
        Some(path)
    }

    /// A mistake here.
    pub(super) fn problem(&self, what: impl Into<String>) -> Problem {
        Problem::at(&self.origin, &self.written, what)
    }

    /// Notes what is in force here, as it is printed by `musterd config`.
    pub(super) fn show(&self, value: impl Into<serde_json::Value>) {
        if !self.unused {
            self.notes.in_force(ShownKey {
                key: self.decides.clone(),
                value: value.into(),
                origin: self.origin.clone(),
                written: self.written.clone(),
            });
        }
    }

    /// Notes a value of the wrong type. Lists and tables are not shown: they may hold secrets.
    fn wrong_type<T>(&self, what: &str, expected: &str) -> Option<T> {
        let got = match &self.value.kind {
            ValueKind::Table(_) => "a table".to_owned(),
            ValueKind::Array(_) => "a list".to_owned(),
            // `Debug` tells 2.0 from 2.
            ValueKind::Float(number) => format!("{number:?}"),
            scalar => scalar.to_string(),
        };
        self.notes
            .problem(self.problem(what).got(got).expected(expected));
        None
    }
}

fn parse_duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    match time::parse_duration(text) {
        None if text.trim_start().starts_with('-') => Err(Wrong::new("is too short")),
        None => Err(Wrong::new("is not a duration")
            .hint("write a number with a unit, such as \"30s\", \"5m\", \"24h\" or \"400d\"")),
        Some(duration) if duration > *range.end() => Err(Wrong::new("is too long")),
        Some(duration) if duration < *range.start() => Err(Wrong::new("is too short")),
        Some(duration) => Ok(duration),
    }
}

/// A duration as it is written: in days where it is whole days.
pub(super) fn short(duration: Duration) -> String {
    const SECS_A_DAY: u64 = 24 * 60 * 60;
    let secs = duration.as_secs();
    if secs > 0 && secs.is_multiple_of(SECS_A_DAY) {
        return format!("{}d", secs / SECS_A_DAY);
    }
    SignedDuration::try_from(duration).map_or_else(|_| format!("{secs}s"), |d| format!("{d:#}"))
}

fn listed<T>(words: &[(&str, T)]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    quoted.join(", ")
}
