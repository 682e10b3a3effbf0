//! `musterd group`: one group as the mirror knows it, found by id or name, and who is in it.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde::Serialize;

use super::card::{self, JsonRow};
use super::exit::{self, Exit, Failure};
use super::output::Output;
use super::reading::{self, Reading};
use super::words;
use crate::mirror::Reader;
use crate::mirror::read::{AsOf, GroupRow, MemberRow};
use crate::model::{Foreign, ResourceType};

/// A group, by id or name, and who is in it
///
/// A name is compared without regard to case, an id exactly. Several matches are all shown, and the command exits 3: a group that was
/// deleted and made anew has the same name. The past is that of what matches now, and of an id that was removed. Members are
/// those of the group itself, people and other groups; whoever is in such a group is not among them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  musterd group acme 'Service Desk' --members
  musterd group acme 'Service Desk' --members --as-of 2026-03-01")]
pub(crate) struct Args {
    /// The instance, by its configured name
    instance: String,

    /// The id or name
    key: String,

    /// Who is in it, and whether they are active
    #[arg(long)]
    members: bool,

    /// As the mirror had the group at this moment: a time like `2026-03-01T12:00:00Z`, or a day, at its midnight UTC
    #[arg(long, value_name = "TIME", value_parser = words::parse_moment)]
    as_of: Option<Timestamp>,

    #[command(flatten)]
    reading: Reading,
}

/// A group that is shown.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    row: JsonRow<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<&'a [MemberRow]>,
}

pub(crate) fn run(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    reading::check_instance(&reader, &args.instance)?;
    let found = find(args, &reader)?;
    let mut out = Output::stdout();
    for (place, (row, members)) in found.groups.iter().enumerate() {
        let members = members.as_deref();
        if args.reading.json {
            let row = JsonRow(row);
            out.json(&Shown { row, members })?;
            continue;
        }
        if place > 0 {
            out.text("\n")?;
        }
        out.text(&card::card(row))?;
        if let Some(members) = members {
            out.text(&table(members))?;
        }
        out.text(&known(row, members.is_some() && args.as_of.is_some()))?;
    }
    out.flush()?;
    if found.groups.is_empty() && !found.unknown.is_empty() {
        return Err(Failure::new(found.unknown.join("; ")).into());
    }
    for reason in &found.unknown {
        exit::note(reason);
    }
    let ended = reading::ending(
        found.n_matches,
        "group",
        "id or name",
        &args.instance,
        &args.key,
    )?;
    if let (true, Some(since)) = (args.members, &found.members_since) {
        exit::note(&format!(
            "of members before {} not all are known: older records were trimmed (`mirror.history`)",
            Foreign(since)
        ));
        return Ok(Exit::Attention);
    }
    Ok(ended)
}

/// What is shown, and why something is not.
#[derive(Default)]
struct Found {
    groups: Vec<(GroupRow, Option<Vec<MemberRow>>)>,
    n_matches: usize,
    unknown: Vec<String>,
    /// From when on the feed has all members, where that is later than what was asked for.
    members_since: Option<String>,
}

/// Reads all of it from one state of the mirror.
fn find(args: &Args, reader: &Reader) -> anyhow::Result<Found> {
    let _snapshot = reader.snapshot()?;
    let instance = args.instance.as_str();
    let rows = reader.groups(instance, &args.key)?;
    let mut found = Found::default();
    let Some(moment) = args.as_of else {
        found.n_matches = rows.len();
        for row in rows {
            let id = card::text(&row, "id").unwrap_or_default();
            let members = args.members.then(|| reader.members(instance, id));
            let members = members.transpose()?;
            found.groups.push((row, members));
        }
        return Ok(found);
    };
    found.members_since = reader.trimmed_before(moment)?;
    let mut ids: Vec<&str> = rows
        .iter()
        .filter_map(|row| card::text(row, "id"))
        .collect();
    if !ids.contains(&args.key.as_str())
        && !reader
            .history(ResourceType::Group, instance, &args.key)?
            .is_empty()
    {
        ids.push(&args.key);
    }
    found.n_matches = ids.len();
    for id in ids {
        match reader.group_as_of(instance, id, moment)? {
            AsOf::Known(row) => {
                let members = args
                    .members
                    .then(|| reader.members_as_of(instance, id, moment));
                found.groups.push((row, members.transpose()?));
            }
            AsOf::Nobody => found
                .unknown
                .push(format!("the mirror had no group `{}` then", Foreign(id))),
            AsOf::Trimmed { since } => found.unknown.push(format!(
                "what the mirror had of `{}` before {} was trimmed (`mirror.history`)",
                Foreign(id),
                Foreign(&since)
            )),
        }
    }
    Ok(found)
}

/// The longest name of a member that is shown in full, with which a row fits 80 columns. An id of ServiceNow has 32.
const MAX_NAME_CHARS: usize = 29;

const COLUMNS: [words::Column; 4] = [
    words::left(5),
    words::left(8),
    words::left(MAX_NAME_CHARS),
    words::left(0),
];

fn table(members: &[MemberRow]) -> String {
    if members.is_empty() {
        return "no members\n".to_owned();
    }
    let mut text = String::new();
    let header = ["TYPE", "STATE", "NAME", "ID"].map(str::to_owned);
    words::row(&mut text, &COLUMNS, &header, [Style::new().bold(); 4]);
    for member in members {
        let state = match member.state.as_str() {
            "active" => AnsiColor::Green.on_default(),
            _ => AnsiColor::Red.on_default(),
        };
        let name = Foreign(member.name.as_deref().unwrap_or("-")).to_string();
        let cells = [
            Foreign(&member.member_type).to_string(),
            Foreign(&member.state).to_string(),
            words::clip(&name, MAX_NAME_CHARS),
            Foreign(&member.member_id).to_string(),
        ];
        let plain = Style::new();
        words::row(&mut text, &COLUMNS, &cells, [plain, state, plain, plain]);
    }
    text
}

/// Whether these are all members, in words, where they may not be.
fn known(row: &GroupRow, of_the_past: bool) -> String {
    let said = match card::text(row, "members_known") {
        Some("cut") => "there may be more members: the instance shows a part of the list",
        Some("unknown") => {
            "there may be other members: the list could not be read, or not be believed"
        }
        None if of_the_past => "whether these were all members was not recorded",
        _ => return String::new(),
    };
    format!("{said}\n")
}

#[cfg(test)]
mod tests {
    use rusqlite::types::Value;

    use super::*;
    use crate::cli::json;

    fn member(name: Option<&str>, kind: &str, state: &str) -> MemberRow {
        MemberRow {
            instance: "acme".to_owned(),
            group_id: "g1".to_owned(),
            member_id: "0123456789abcdef0123456789abcdef".to_owned(),
            member_type: kind.to_owned(),
            label: None,
            first_seen_at: Some("2026-03-01T00:00:00.000Z".to_owned()),
            valid_from: None,
            name: name.map(str::to_owned),
            state: state.to_owned(),
        }
    }

    fn desk(members_known: &str) -> GroupRow {
        vec![
            ("instance", Value::Text("acme".to_owned())),
            ("id", Value::Text("g1".to_owned())),
            ("display_name", Value::Text("Service\u{9b} Desk".to_owned())),
            ("active", Value::Integer(1)),
            ("attributes", Value::Text("{}".to_owned())),
            ("member_count", Value::Integer(2)),
            ("members_known", Value::Text(members_known.to_owned())),
            ("gone_at", Value::Null),
        ]
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_group_is_a_card_with_its_members_below() {
        let row = desk("cut");
        let members = [
            member(Some("Ada Lovelace"), "User", "active"),
            member(None, "Group", "missing"),
        ];
        let text = [card::card(&row), table(&members), known(&row, false)].concat();
        insta::assert_snapshot!(plain(&text), @r"
        Service\u{9b} Desk  active
          instance            acme
          id                  g1
          display_name        Service\u{9b} Desk
          member_count        2
          members_known       cut
        TYPE   STATE     NAME                           ID
        User   active    Ada Lovelace                   0123456789abcdef0123456789abcdef
        Group  missing   -                              0123456789abcdef0123456789abcdef
        there may be more members: the instance shows a part of the list
        ");
        assert_eq!(table(&[]), "no members\n");
    }

    #[test]
    fn only_where_all_members_are_known_nothing_is_said_of_it() {
        assert_eq!(known(&desk("all"), false), "");
        assert!(known(&desk("unknown"), false).contains("could not be read"));
        let mut then = desk("all");
        then[6].1 = Value::Null;
        assert!(known(&then, true).contains("not recorded"));
        assert_eq!(known(&then, false), "");
    }

    #[test]
    fn members_fit_80_columns_and_steer_no_terminal() {
        let hostile = "\u{1b}[2J\u{202e}\n".repeat(40);
        let members = ["active", "inactive", "missing", "unknown"]
            .map(|state| member(Some(&hostile), "Group", state));
        let mut text = plain(&table(&members));
        for known_as in ["cut", "unknown"] {
            text.push_str(&known(&desk(known_as), false));
        }
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            assert!(!line.chars().any(Foreign::is_unsafe), "{line:?}");
        }
    }

    #[test]
    fn json_has_the_members_in_the_object_of_their_group() {
        let (row, members) = (desk("all"), [member(Some("Ada"), "User", "active")]);
        let mut line = Vec::new();
        let shown = Shown {
            row: JsonRow(&row),
            members: Some(&members),
        };
        json::write(&mut line, &shown).unwrap();
        insta::assert_snapshot!(String::from_utf8(line).unwrap(), @r#"{"instance":"acme","id":"g1","display_name":"Service\u009b Desk","active":true,"attributes":{},"member_count":2,"members_known":"all","gone_at":null,"members":[{"instance":"acme","group_id":"g1","member_id":"0123456789abcdef0123456789abcdef","member_type":"User","label":null,"first_seen_at":"2026-03-01T00:00:00.000Z","name":"Ada","state":"active"}]}"#);
    }
}
