//! `musterd groups`: the groups of an instance, or those that a user is in.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use rusqlite::types::Value;
use serde::Serialize;

use super::card::{self, JsonRow};
use super::exit::Exit;
use super::output::Output;
use super::reading::{self, Reading};
use super::{chain, user, words};
use crate::mirror::Reader;
use crate::mirror::read::{GroupRow, UserRow};
use crate::model::Foreign;

/// The groups of an instance, or those that a user is in
///
/// A row a group that the instance shows, by name, with how many members it has: people and groups that are in it directly. With
/// --of only those that the user is in directly, and not those that such a group is in.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  musterd groups acme
  musterd groups acme --of ada.lovelace")]
pub(crate) struct Args {
    /// The instance, by its configured name
    instance: String,

    /// Only those of this user, by id, user name or email; several matches are all shown, and the command exits 3
    #[arg(long, value_name = "USER")]
    of: Option<String>,

    #[command(flatten)]
    reading: Reading,
}

/// A group that a user is in, or any.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    row: JsonRow<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    member_id: Option<&'a str>,
}

/// Groups, and of whom they are.
struct Found {
    lists: Vec<(Option<UserRow>, Vec<GroupRow>)>,
    n_known_in_part: u64,
}

pub(crate) fn run(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    reading::check_instance(&reader, &args.instance)?;
    let found = find(args, &reader)?;
    let mut out = Output::stdout();
    for (place, (user, groups)) in found.lists.iter().enumerate() {
        let member_id = user.as_ref().and_then(|user| card::text(user, "id"));
        if args.reading.json {
            for row in groups {
                let row = JsonRow(row);
                out.json(&Shown { row, member_id })?;
            }
            continue;
        }
        if place > 0 {
            out.text("\n")?;
        }
        if let (Some(user), Some(id)) = (user, member_id) {
            out.text(&chain::headline(card::name(user), id))?;
        }
        out.text(&table(groups))?;
        if user.is_some() {
            out.text(&more(found.n_known_in_part))?;
        } else {
            out.text(&legend(groups))?;
        }
    }
    out.flush()?;
    match &args.of {
        Some(key) => user::ending(found.lists.len(), &args.instance, key),
        None => Ok(Exit::Done),
    }
}

/// Reads all of it from one state of the mirror.
fn find(args: &Args, reader: &Reader) -> anyhow::Result<Found> {
    let _snapshot = reader.snapshot()?;
    let instance = args.instance.as_str();
    let mut lists = Vec::new();
    match &args.of {
        None => lists.push((None, reader.living_groups(instance)?)),
        Some(key) => {
            for user in reader.users(instance, key)? {
                let id = card::text(&user, "id").unwrap_or_default();
                let groups = reader.groups_of(instance, id)?;
                lists.push((Some(user), groups));
            }
        }
    }
    Ok(Found {
        lists,
        n_known_in_part: reader.groups_known_in_part(instance)?,
    })
}

/// The longest name of a group that is shown in full, with which a row fits 80 columns. An id of ServiceNow has 32.
const MAX_NAME_CHARS: usize = 24;

const COLUMNS: [words::Column; 4] = [
    words::left(8),
    words::right(10),
    words::left(MAX_NAME_CHARS),
    words::left(0),
];

fn table(groups: &[GroupRow]) -> String {
    if groups.is_empty() {
        return "no groups\n".to_owned();
    }
    let mut text = String::new();
    let header = ["STATE", "MEMBERS", "NAME", "ID"].map(str::to_owned);
    words::row(&mut text, &COLUMNS, &header, [Style::new().bold(); 4]);
    for row in groups {
        let (state, style) = match card::value(row, "active") {
            Some(Value::Integer(0)) => ("inactive", AnsiColor::Red.on_default()),
            _ => ("active", AnsiColor::Green.on_default()),
        };
        let name = card::text(row, "display_name").unwrap_or("-");
        let cells = [
            state.to_owned(),
            n_members(row),
            words::clip(&Foreign(name).to_string(), MAX_NAME_CHARS),
            Foreign(card::text(row, "id").unwrap_or_default()).to_string(),
        ];
        let plain = Style::new();
        words::row(&mut text, &COLUMNS, &cells, [style, plain, plain, plain]);
    }
    text
}

/// How many are in a group, with a mark where they may not be all.
fn n_members(row: &GroupRow) -> String {
    let n_members = match card::value(row, "member_count") {
        Some(Value::Integer(n)) => words::number(n.unsigned_abs()),
        _ => String::new(),
    };
    format!("{n_members}{}", mark(row))
}

fn mark(row: &GroupRow) -> &'static str {
    match card::text(row, "members_known") {
        Some("cut") => "+",
        Some("unknown") => "?",
        _ => "",
    }
}

/// What the marks of a table say.
fn legend(groups: &[GroupRow]) -> String {
    let marks = [
        (
            "+",
            "there may be more: the instance shows a part of the list",
        ),
        ("?", "the list could not be read, or not be believed"),
    ];
    let mut text = String::new();
    for (one, meaning) in marks {
        if groups.iter().any(|row| mark(row) == one) {
            text.push_str(&format!("{one}  {meaning}\n"));
        }
    }
    text
}

/// Why a user may be in more groups.
fn more(n_known_in_part: u64) -> String {
    match n_known_in_part {
        0 => String::new(),
        n => format!(
            "the user may be in more: of {} not all members are known\n",
            words::count(i128::from(n), "group")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, active: i64, n_members: i64, members_known: &str) -> GroupRow {
        vec![
            (
                "id",
                Value::Text("0123456789abcdef0123456789abcdef".to_owned()),
            ),
            ("display_name", Value::Text(name.to_owned())),
            ("active", Value::Integer(active)),
            ("member_count", Value::Integer(n_members)),
            ("members_known", Value::Text(members_known.to_owned())),
        ]
    }

    fn shown(groups: &[GroupRow]) -> String {
        let text = [table(groups), legend(groups)].concat();
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn groups_are_a_table_that_says_where_members_may_be_missing() {
        let groups = [
            row("Service Desk", 1, 1_204, "all"),
            row("Night Shift", 0, 100, "cut"),
            row("Odd", 1, 0, "unknown"),
        ];
        insta::assert_snapshot!(shown(&groups), @"
        STATE        MEMBERS  NAME                      ID
        active         1,204  Service Desk              0123456789abcdef0123456789abcdef
        inactive        100+  Night Shift               0123456789abcdef0123456789abcdef
        active            0?  Odd                       0123456789abcdef0123456789abcdef
        +  there may be more: the instance shows a part of the list
        ?  the list could not be read, or not be believed
        ");
        assert_eq!(shown(&[]), "no groups\n");
        assert_eq!(legend(&groups[..1]), "");
        assert_eq!(more(0), "");
        assert_eq!(
            more(2),
            "the user may be in more: of 2 groups not all members are known\n"
        );
    }

    #[test]
    fn it_fits_80_columns_and_steers_no_terminal() {
        let hostile = "\u{1b}[2J\u{202e}\n".repeat(40);
        let groups = ["cut", "unknown"].map(|known| row(&hostile, 0, 9_999_999, known));
        let mut text = shown(&groups);
        text.push_str(&more(u64::from(u32::MAX)));
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            assert!(!line.chars().any(Foreign::is_unsafe), "{line:?}");
        }
    }
}
