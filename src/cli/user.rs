//! `musterd user`: one user as the mirror knows it, found by id, user name or email.

use std::fmt::Write as _;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use rusqlite::types::Value;
use serde::ser::{Error as _, Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::exit::{self, Exit, Failure};
use super::output::Output;
use super::reading::{self, Reading};
use super::{record, words};
use crate::mirror::Reader;
use crate::mirror::read::{AsOf, UserRow};
use crate::model::Foreign;

/// A user, by id, user name or email
///
/// Names and addresses are compared without regard to case, an id exactly. Several matches are all
/// printed, and the command exits 3: only the id tells them apart. The past is that of whoever matches now, and of an id that
/// was removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  musterd user acme ada.lovelace
  musterd user acme ada.lovelace --as-of 2026-03-01")]
pub(crate) struct Args {
    /// The instance, by its configured name
    instance: String,

    /// The id, user name or email
    key: String,

    /// As the mirror had the user at this moment: a time like `2026-03-01T12:00:00Z`, or a day, at its midnight UTC
    #[arg(long, value_name = "TIME", value_parser = words::parse_moment)]
    as_of: Option<Timestamp>,

    /// Each state of the user, oldest first: when it began, and what changed
    #[arg(long, conflicts_with = "as_of")]
    history: bool,

    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    reading::check_instance(&reader, &args.instance)?;
    let rows = reader.users(&args.instance, &args.key)?;
    let mut out = Output::stdout();
    if args.history || args.as_of.is_some() {
        return past(args, &reader, &rows, out);
    }
    for (place, row) in rows.iter().enumerate() {
        if args.reading.json {
            out.json(&JsonRow(row))?;
            continue;
        }
        if place > 0 {
            out.text("\n")?;
        }
        out.text(&card(row))?;
    }
    out.flush()?;
    ending(rows.len(), &args.instance, &args.key)
}

/// How a command ends that was asked for a user and found so many.
pub(super) fn ending(n_found: usize, instance: &str, key: &str) -> anyhow::Result<Exit> {
    let key = Foreign(key);
    match n_found {
        0 => Err(Failure::new(format!(
            "no user of `{}` has the id, user name or email `{key}`",
            Foreign(instance)
        ))
        .into()),
        1 => Ok(Exit::Done),
        n => {
            exit::note(&format!(
                "{} match `{key}`",
                words::count(n as i128, "user")
            ));
            Ok(Exit::Attention)
        }
    }
}

/// What the feed says of those who match, and of the key as an id: whose users were removed are in the feed alone.
fn past(args: &Args, reader: &Reader, rows: &[UserRow], mut out: Output) -> anyhow::Result<Exit> {
    let mut ids: Vec<&str> = rows.iter().filter_map(|row| text(row, "id")).collect();
    if !ids.contains(&args.key.as_str()) && !reader.history(&args.instance, &args.key)?.is_empty() {
        ids.push(&args.key);
    }
    let (mut n_shown, mut unknown) = (0, Vec::new());
    for id in &ids {
        match args.as_of {
            Some(moment) => match reader.user_as_of(&args.instance, id, moment)? {
                AsOf::Known(row) if args.reading.json => out.json(&JsonRow(&row))?,
                AsOf::Known(row) => {
                    let between = if n_shown > 0 { "\n" } else { "" };
                    out.text(&format!("{between}{}", card(&row)))?;
                }
                AsOf::Nobody => {
                    unknown.push(format!("the mirror had no user `{}` then", Foreign(id)));
                    continue;
                }
                AsOf::Trimmed { since } => {
                    unknown.push(format!(
                        "what the mirror had of `{}` before {} was trimmed (`mirror.history`)",
                        Foreign(id),
                        Foreign(&since)
                    ));
                    continue;
                }
            },
            None if args.reading.json => {
                for state in reader.states(&args.instance, id)? {
                    out.json(&state)?;
                }
            }
            None => {
                for record in reader.history(&args.instance, id)? {
                    out.text(&record::line(&record))?;
                }
            }
        }
        n_shown += 1;
    }
    out.flush()?;
    if n_shown == 0 && !unknown.is_empty() {
        return Err(Failure::new(unknown.join("; ")).into());
    }
    for reason in &unknown {
        exit::note(reason);
    }
    ending(ids.len(), &args.instance, &args.key)
}

/// The columns that a person reads, under a headline; empty ones are left out.
fn card(row: &UserRow) -> String {
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

/// What a user is called.
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

fn value<'a>(row: &'a UserRow, column: &str) -> Option<&'a Value> {
    let (_, value) = row.iter().find(|(name, _)| *name == column)?;
    Some(value)
}

/// The row as one object: `active` as a boolean and `attributes` as the JSON that it is.
struct JsonRow<'a>(&'a UserRow);

impl Serialize for JsonRow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(Some(self.0.len()))?;
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
