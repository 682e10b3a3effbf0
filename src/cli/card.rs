//! One row of `users` or `groups`: a card for people, an object for programs.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use rusqlite::types::Value;
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::words;
use crate::mirror::read::UserRow;
use crate::model::Foreign;

/// The columns that a person reads, under a headline; empty ones are left out.
pub(super) fn card(row: &UserRow) -> String {
    let text = |column| text(row, column);
    let (state, style) = if text("gone_at").is_some() {
        ("gone", AnsiColor::Red.on_default())
    } else if matches!(value(row, "active"), Some(Value::Integer(0))) {
        ("inactive", AnsiColor::Red.on_default())
    } else {
        ("active", AnsiColor::Green.on_default())
    };
    let bold = Style::new().bold();
    let mut card = format!(
        "{bold}{}{bold:#}  {style}{state}{style:#}\n",
        Foreign(name(row))
    );
    for (column, value) in row {
        let shown = match value {
            _ if matches!(*column, "active" | "attributes") => continue,
            Value::Null => continue,
            Value::Integer(n) => n.to_string(),
            Value::Real(n) => n.to_string(),
            Value::Text(text) => Foreign(text).to_string(),
            Value::Blob(bytes) => format!("{} bytes", bytes.len()),
        };
        card.push_str("  ");
        words::cell(&mut card, column, 18, false, Style::new().dimmed());
        let _ = writeln!(card, "  {shown}");
    }
    card
}

/// What a user or a group is called.
pub(super) fn name(row: &UserRow) -> &str {
    let text = |column| text(row, column);
    let name = text("display_name").or(text("user_name")).or(text("id"));
    name.unwrap_or_default()
}

/// A column that holds text.
pub(super) fn text<'a>(row: &'a UserRow, column: &str) -> Option<&'a str> {
    match value(row, column) {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

/// Any column.
pub(super) fn value<'a>(row: &'a UserRow, column: &str) -> Option<&'a Value> {
    let (_, value) = row.iter().find(|(name, _)| *name == column)?;
    Some(value)
}

/// The row as one object: `active` as a boolean and `attributes` as the JSON that it is.
pub(super) struct JsonRow<'a>(pub(super) &'a UserRow);

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        for (column, value) in self.0 {
            match (*column, value) {
                ("active", Value::Integer(flag)) => {
                    object.serialize_entry(column, &(*flag != 0))?
                }
                ("attributes", Value::Text(json)) => {
                    let raw: &RawValue = serde_json::from_str(json).map_err(S::Error::custom)?;
                    object.serialize_entry(column, raw)?;
                }
                (_, Value::Null) => object.serialize_entry(column, &())?,
                (_, Value::Integer(n)) => object.serialize_entry(column, n)?,
                (_, Value::Real(n)) => object.serialize_entry(column, n)?,
                (_, Value::Text(text)) => object.serialize_entry(column, text)?,
                (_, Value::Blob(bytes)) => object.serialize_entry(column, bytes)?,
            }
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::json;

    fn ada() -> UserRow {
        let text = |text: &str| Value::Text(text.to_owned());
        vec![
            ("instance", text("acme")),
            ("id", text("u1")),
            ("external_id", Value::Null),
            ("user_name", text("ada.lovelace")),
            ("active", Value::Integer(1)),
            ("display_name", text("Ada \u{1b}[31mLovelace")),
            ("title", text("Engineer")),
            ("attributes", text(r#"{"active":true,"nickName":"\u009b"}"#)),
            ("changed_seq", Value::Integer(1042)),
            ("gone_at", Value::Null),
        ]
    }

    #[test]
    fn the_card_has_what_is_known_and_steers_no_terminal() {
        let card = anstream::adapter::strip_str(&card(&ada())).to_string();
        insta::assert_snapshot!(card, @r"
        Ada \u{1b}[31mLovelace  active
          instance            acme
          id                  u1
          user_name           ada.lovelace
          display_name        Ada \u{1b}[31mLovelace
          title               Engineer
          changed_seq         1042
        ");
    }

    #[test]
    fn somebody_gone_is_not_called_inactive() {
        let mut row = ada();
        row[4].1 = Value::Integer(0);
        assert!(card(&row).contains("inactive"));
        row[9].1 = Value::Text("2026-03-01T00:00:00.000Z".to_owned());
        assert!(!card(&row).contains("inactive"));
    }

    #[test]
    fn json_has_every_column_exactly() {
        let mut line = Vec::new();
        json::write(&mut line, &JsonRow(&ada())).unwrap();
        insta::assert_snapshot!(String::from_utf8(line).unwrap(), @r#"{"instance":"acme","id":"u1","external_id":null,"user_name":"ada.lovelace","active":true,"display_name":"Ada \u001b[31mLovelace","title":"Engineer","attributes":{"active":true,"nickName":"\u009b"},"changed_seq":1042,"gone_at":null}"#);
    }
}
