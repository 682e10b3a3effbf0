//! A list of own profiles, as a file has it: read as a whole before anything of it counts.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use crate::model::{Foreign, Profile, Rule};
use crate::reconcile::identity::{MOST_OF_A_KEY, folded};

/// The longest field, in bytes: longer than any key, and short enough that a piece of a list is a short request.
const MAX_FIELD_BYTES: usize = 1_024;

/// The fields of a profile.
const FIELDS: [&str; 4] = ["profile", "email", "user_name", "employee_number"];

/// What is wrong with a file, and in which line of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct Wrong {
    line: u64,
    what: String,
}

fn wrong<T>(line: u64, what: impl fmt::Display) -> Result<T, Wrong> {
    let what = what.to_string();
    Err(Wrong { line, what })
}

/// How a file has its profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Comma-separated values (RFC 4180), the names of the fields in the first line.
    Csv,
    /// A JSON object a line.
    JsonLines,
}

impl Format {
    /// By the end of the file's name.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

/// Reads all profiles of a file, ascending.
///
/// # Errors
/// At the first line with which something is wrong, or the second of two that name one profile.
pub(super) fn read(format: Format, bytes: &[u8]) -> Result<Vec<Profile>, Wrong> {
    // What spreadsheets write in front of UTF-8.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut list = List::default();
    match format {
        Format::Csv => read_csv(bytes, &mut list)?,
        Format::JsonLines => read_json_lines(bytes, &mut list)?,
    }
    let profiles = list.profiles.into_values();
    Ok(profiles.map(|(_, profile)| profile).collect())
}

#[derive(Default)]
struct List {
    /// By their names, each with its line.
    profiles: BTreeMap<String, (u64, Profile)>,
    /// How many of them have a key.
    of_a_key: HashMap<(&'static str, String), usize>,
}

impl List {
    fn add(&mut self, line: u64, profile: Profile) -> Result<(), Wrong> {
        let fields = [
            (FIELDS[0], Some(&profile.profile)),
            (FIELDS[1], profile.email.as_ref()),
            (FIELDS[2], profile.user_name.as_ref()),
            (FIELDS[3], profile.employee_number.as_ref()),
        ];
        for (name, field) in fields {
            let Some(field) = field else { continue };
            // A quote that is never closed takes all that follows into one field.
            if field.chars().any(char::is_control) {
                return wrong(
                    line,
                    format!("`{name}` has a line break or another control character in it"),
                );
            }
            if field.len() > MAX_FIELD_BYTES {
                return wrong(
                    line,
                    format!("`{name}` is longer than {MAX_FIELD_BYTES} bytes"),
                );
            }
        }
        if profile.profile.trim().is_empty() {
            return wrong(line, "`profile` is empty");
        }
        if let Some((first, _)) = self.profiles.get(&profile.profile) {
            let name = Foreign(&profile.profile);
            return wrong(
                line,
                format!("the profile `{name}` stands in line {first} already"),
            );
        }
        for rule in Rule::ALL {
            let Some(key) = profile.key(rule) else {
                continue;
            };
            let n_profiles = self
                .of_a_key
                .entry((rule.as_str(), folded(key)))
                .or_default();
            *n_profiles += 1;
            if *n_profiles > MOST_OF_A_KEY {
                let rule = rule.as_str();
                return wrong(
                    line,
                    format!(
                        "more than {MOST_OF_A_KEY} profiles have the `{rule}` of this one: it tells nobody apart, leave it empty"
                    ),
                );
            }
        }
        self.profiles
            .insert(profile.profile.clone(), (line, profile));
        Ok(())
    }
}

fn read_csv(bytes: &[u8], list: &mut List) -> Result<(), Wrong> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(bytes);
    let mut record = csv::StringRecord::new();
    let mut columns: Option<Vec<&'static str>> = None;
    let mut lines = Lines::of_bytes(bytes);
    while reader.read_record(&mut record).map_err(|error| Wrong {
        line: lines.of(error.position()),
        what: csv_error(&error),
    })? {
        let line = lines.of(record.position());
        let Some(columns) = &columns else {
            columns = Some(header(line, &record)?);
            continue;
        };
        let mut profile = Profile::default();
        for (column, field) in columns.iter().zip(&record) {
            set(&mut profile, column, field);
        }
        list.add(line, profile)?;
    }
    match columns {
        Some(_) => Ok(()),
        None => wrong(1, "there is no line with the names of the fields"),
    }
}

/// The first line: the names of the fields, in any order.
fn header(line: u64, record: &csv::StringRecord) -> Result<Vec<&'static str>, Wrong> {
    let known = || FIELDS.map(|field| format!("`{field}`")).join(", ");
    let mut columns: Vec<&'static str> = Vec::new();
    for name in record {
        match FIELDS.into_iter().find(|field| *field == name) {
            None => {
                return wrong(
                    line,
                    format!("`{}` is none of the fields {}", Foreign(name), known()),
                );
            }
            Some(field) if columns.contains(&field) => {
                return wrong(line, format!("the field `{field}` stands there twice"));
            }
            Some(field) => columns.push(field),
        }
    }
    if !columns.contains(&FIELDS[0]) {
        return wrong(line, "there is no field `profile`");
    }
    Ok(columns)
}

fn set(profile: &mut Profile, column: &str, field: &str) {
    let key = || (!field.is_empty()).then(|| field.to_owned());
    match column {
        "profile" => profile.profile = field.to_owned(),
        "email" => profile.email = key(),
        "user_name" => profile.user_name = key(),
        _ => profile.employee_number = key(),
    }
}

/// Says in which line a place is. A reader of CSV stops behind a carriage return, so that places are one line too low for it; the
/// line feeds and blank lines in front of a record are none of the record.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    line: u64,
}

impl<'a> Lines<'a> {
    fn of_bytes(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            line: 1,
        }
    }

    /// Places are asked for in their order.
    fn of(&mut self, position: Option<&csv::Position>) -> u64 {
        let begin = position.map_or(0, |position| {
            usize::try_from(position.byte()).unwrap_or(usize::MAX)
        });
        while let Some(byte) = self.bytes.get(self.at) {
            let ends_line = match byte {
                b'\n' => true,
                b'\r' => self.bytes.get(self.at + 1) != Some(&b'\n'),
                _ => false,
            };
            if self.at >= begin && !matches!(byte, b'\n' | b'\r') {
                break;
            }
            self.line += u64::from(ends_line);
            self.at += 1;
        }
        self.line
    }
}

fn csv_error(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("it has {len} fields, and the first line has {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => "it cannot be read".to_owned(),
    }
}

fn read_json_lines(bytes: &[u8], list: &mut List) -> Result<(), Wrong> {
    for (line, bytes) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return wrong(line, "it is not UTF-8");
        };
        if text.trim().is_empty() {
            continue;
        }
        if !text.trim_start().starts_with('{') {
            return wrong(line, "it is not an object");
        }
        match serde_json::from_str::<Profile>(text) {
            Ok(mut profile) => {
                for key in [
                    &mut profile.email,
                    &mut profile.user_name,
                    &mut profile.employee_number,
                ] {
                    *key = key.take().filter(|key| !key.is_empty());
                }
                list.add(line, profile)?;
            }
            Err(error) => {
                let what = error.to_string();
                // It counts lines of its own.
                let what = what.split(" at line ").next().unwrap_or_default();
                return wrong(line, Foreign(what));
            }
        }
    }
    Ok(())
}

/// The list as a file that [`read`] reads as the same one: its first line.
pub(super) const HEADER: [&str; 4] = FIELDS;

/// One of its lines.
pub(super) fn fields(profile: &Profile) -> [&str; 4] {
    [
        &profile.profile,
        profile.email.as_deref().unwrap_or_default(),
        profile.user_name.as_deref().unwrap_or_default(),
        profile.employee_number.as_deref().unwrap_or_default(),
    ]
}
