//! The configuration in force, to be looked at: every key, its value, and where it came from.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::origin::Origin;
use crate::model::Foreign;

/// Every key in force. Secrets are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    keys: Vec<ShownKey>,
    warnings: Vec<String>,
}

/// One key in force.
#[derive(Clone, Debug, PartialEq)]
pub struct ShownKey {
    /// Its whole path.
    pub key: String,
    /// Its value; `null` is a secret, left out.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
    /// The key that it was written at: `defaults.page_size` holds for every instance.
    pub written: String,
}

impl Shown {
    pub(super) fn new(keys: Vec<ShownKey>, warnings: Vec<String>) -> Self {
        Self { keys, warnings }
    }

    /// The keys, table by table.
    #[must_use]
    pub fn keys(&self) -> &[ShownKey] {
        &self.keys
    }

    /// As TOML that can be pasted into a file, with comments that say where each value came from.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut table = "";
        for shown in &self.keys {
            let (header, key) = split(&shown.key);
            if header != table {
                let gap = if text.is_empty() { "" } else { "\n" };
                let _ = writeln!(text, "{gap}[{header}]");
                table = header;
            }
            let from = Foreign(&shown.from()).to_string();
            let _ = match &shown.value {
                Value::Null => writeln!(text, "# {key} = a secret, left out  # from {from}"),
                value => writeln!(text, "{key} = {}  # from {from}", toml(value)),
            };
        }
        for warning in &self.warnings {
            let _ = writeln!(text, "\n# warning: {}", Foreign(warning));
        }
        text
    }

    /// As one JSON object, nested like the TOML; each key has `value` and `from`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut root = Map::new();
        for shown in &self.keys {
            let leaf = json!({ "value": shown.value, "from": shown.from() });
            insert(&mut root, &shown.key, leaf);
        }
        root.insert("warnings".to_owned(), json!(self.warnings));
        Value::Object(root)
    }
}

impl ShownKey {
    /// Where it came from, in words.
    fn from(&self) -> String {
        let (place, key) = self.origin.place(&self.written);
        match self.origin {
            Origin::BuiltIn => place,
            Origin::Environment => key,
            Origin::File(_) | Origin::InstanceFile(_) => format!("{place}: {key}"),
        }
    }
}

/// The header under which a key stands, and the key below it: `[instances.acme.guard]` and
/// `blanking.count`.
fn split(path: &str) -> (&str, &str) {
    let dots: Vec<usize> = path.match_indices('.').map(|(at, _)| at).collect();
    let deepest = if path.starts_with("instances.") { 3 } else { 1 };
    match dots.get(dots.len().min(deepest).saturating_sub(1)) {
        Some(at) => (&path[..*at], &path[at + 1..]),
        None => ("", path),
    }
}

fn insert(table: &mut Map<String, Value>, path: &str, leaf: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), leaf);
        }
        Some((head, rest)) => {
            let below = table.entry(head).or_insert_with(|| json!({}));
            if let Value::Object(below) = below {
                insert(below, rest, leaf);
            }
        }
    }
}

/// A value in TOML. There are texts, numbers, lists of texts, and tables that name a secret.
fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(parts) => {
            let parts: Vec<String> = parts.iter().map(toml).collect();
            format!("[{}]", parts.join(", "))
        }
        Value::Object(table) => {
            let parts: Vec<String> = table
                .iter()
                .map(|(key, value)| format!("{key} = {}", toml(value)))
                .collect();
            format!("{{ {} }}", parts.join(", "))
        }
        other => other.to_string(),
    }
}

/// A TOML basic string, in which nothing steers a terminal.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if Foreign::is_unsafe(c) => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stand_under_the_table_that_holds_them() {
        assert_eq!(split("mirror.path"), ("mirror", "path"));
        assert_eq!(split("instances.acme.url"), ("instances.acme", "url"));
        assert_eq!(
            split("instances.acme.auth.type"),
            ("instances.acme.auth", "type")
        );
        assert_eq!(
            split("instances.acme.guard.blanking.count"),
            ("instances.acme.guard", "blanking.count")
        );
    }

    #[test]
    fn a_quoted_text_is_read_back_as_it_was() {
        let text = "a\"b\\c\nd\u{1b}[31m\u{202e}ü";
        let quoted = quoted(text);
        assert!(!quoted.chars().any(Foreign::is_unsafe), "{quoted}");
        let document = format!("a = {quoted}");
        let table = toml::de::DeTable::parse(&document).unwrap().into_inner();
        let (_, value) = table.into_iter().next().unwrap();
        assert_eq!(value.get_ref().as_str(), Some(text));
    }
}
