//! One table of the configuration, in which keys are looked up by name. What nobody asked for is an
//! unknown key.

use config::{Map, Value};

use super::layers::as_table;
use super::notes::Notes;
use super::origin::Origin;
use super::problem::Problem;
use super::value::Found;

/// A table, with the table of `[defaults]` behind it where it belongs to an instance.
pub(super) struct Section<'a> {
    notes: &'a Notes,
    /// The table's path.
    path: String,
    /// Where its keys are looked up, one after the other.
    places: Vec<Place<'a>>,
    /// Where a key that is missing would be written.
    home: Origin,
    /// Whether keys may be missing: nothing is made of what is read here.
    partial: bool,
    asked: Vec<&'static str>,
}

struct Place<'a> {
    path: String,
    table: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    /// The table at `path` of the tree, and those at the paths behind it, which answer for what it
    /// does not have. `partial` if keys may be missing.
    pub(super) fn stacked(
        notes: &'a Notes,
        tables: Vec<(&str, &'a Map<String, Value>)>,
        home: Origin,
        partial: bool,
    ) -> Self {
        let path = tables.first().map_or("", |(path, _)| path).to_owned();
        let place = |(path, table): (&str, &'a Map<String, Value>)| Place {
            path: path.to_owned(),
            table,
        };
        Self {
            notes,
            path,
            places: tables.into_iter().map(place).collect(),
            home,
            partial,
            asked: Vec::new(),
        }
    }

    /// A table in this one. It is empty if there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.asked.push(key);
        let mut partial = self.partial;
        let mut places = Vec::new();
        for place in &self.places {
            let Some(value) = place.table.get(key) else {
                continue;
            };
            let path = join(&place.path, key);
            match table_at(&path, value, self.notes) {
                Some(table) => places.push(Place { path, table }),
                // Its keys are not missing, they are hidden by this.
                None => partial = true,
            }
        }
        Section {
            notes: self.notes,
            path: join(&self.path, key),
            places,
            home: self.home.clone(),
            partial,
            asked: Vec::new(),
        }
    }

    /// A key that may be missing.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Found<'a>> {
        self.asked.push(key);
        let (place, value) = self
            .places
            .iter()
            .find_map(|place| Some((place, place.table.get(key)?)))?;
        Some(Found {
            notes: self.notes,
            value,
            origin: origin_within(value).unwrap_or_else(|| self.home.clone()),
            written: join(&place.path, key),
            decides: join(&self.path, key),
            unused: self.partial,
        })
    }

    /// A key that must be there. Most have a default.
    pub(super) fn required(&mut self, key: &'static str, expected: &str) -> Option<Found<'a>> {
        let found = self.optional(key);
        if found.is_none() && !self.partial {
            let problem = Problem::at(&self.home, &join(&self.path, key), "is missing");
            self.notes.problem(problem.expected(expected));
        }
        found
    }

    /// A key that has a default.
    pub(super) fn key(&mut self, key: &'static str) -> Option<Found<'a>> {
        self.required(key, "a value")
    }

    /// Keys that are known here, whether or not they are asked for.
    pub(super) fn known(&mut self, keys: &[&'static str]) {
        self.asked.extend_from_slice(keys);
    }

    /// The whole path of a key in this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Ends the reading: every key that nobody asked for is unknown.
    pub(super) fn close(mut self) {
        self.asked.sort_unstable();
        self.asked.dedup();
        let known: Vec<String> = self.asked.iter().map(|key| format!("`{key}`")).collect();
        let known = format!("one of {}", known.join(", "));
        for place in &self.places {
            let mut unknown: Vec<(&String, &Value)> = place
                .table
                .iter()
                .filter(|(key, _)| !self.asked.contains(&key.as_str()))
                .collect();
            unknown.sort_by_key(|(key, _)| *key);
            for (key, value) in unknown {
                let path = join(&place.path, key);
                let origin = origin_within(value).unwrap_or_else(|| self.home.clone());
                let problem = Problem::at(&origin, &path, "is not a known key");
                self.notes.problem(problem.expected(&known));
            }
        }
    }
}

/// The table that stands at a path; anything else there is a mistake.
pub(super) fn table_at<'a>(
    path: &str,
    value: &'a Value,
    notes: &Notes,
) -> Option<&'a Map<String, Value>> {
    let table = as_table(value);
    if table.is_none() {
        let problem = Problem::at(&Origin::of(value), path, "is not a table");
        notes.problem(problem.expected(format!("keys in a table `[{path}]`")));
    }
    table
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The origin of a value. A merged table has none of its own, but what is in it has.
fn origin_within(value: &Value) -> Option<Origin> {
    match as_table(value) {
        Some(table) => table.values().filter_map(origin_within).max(),
        None => Some(Origin::of(value)),
    }
}
