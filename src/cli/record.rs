//! One change record as a line for people: who, what happened, and field by field what changed.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::{Map, Value};

use super::words;
use crate::mirror::read::ChangeRow;
use crate::model::user::{TEXT_COLUMNS, TextColumns};
use crate::model::{Foreign, MemberKind, ResourceType, UserColumns};
use crate::reconcile::{identity, mapping, members};

/// The longest value that is shown in full; `--json` has them all.
const MAX_VALUE_CHARS: usize = 60;

/// `seq`, time, instance, kind and reason, who, what: one line, with its end.
pub(crate) fn line(row: &ChangeRow) -> String {
    let columns = columns(row);
    let dim = Style::new().dimmed();
    let mut line = String::new();
    words::cell(&mut line, &row.seq.to_string(), 6, true, dim);
    let _ = write!(line, "  {dim}{}{dim:#}", time(&row.observed_at));
    let _ = write!(line, "  {}  ", Foreign(&row.instance));
    let what = format!("{}/{}", row.kind, row.reason);
    words::cell(
        &mut line,
        &Foreign(&what).to_string(),
        19,
        false,
        kind_style(row),
    );
    let is_profile = row.resource == identity::RESOURCE;
    let _ = match is_profile {
        true => write!(line, "  profile {}", who(row, &columns)),
        false => write!(line, "  {}", who(row, &columns)),
    };
    let details = match &row.changed {
        _ if is_membership(row) => Vec::new(),
        None if is_profile => standing(row),
        None => portrait(&columns),
        Some(changed) => differences(changed.get()),
    };
    if !details.is_empty() {
        let _ = write!(line, "  {}", details.join("; "));
    }
    line.push('\n');
    line
}

/// What the record left the user as. A record that this program cannot read still has its id.
fn columns(row: &ChangeRow) -> UserColumns {
    row.after
        .as_ref()
        .and_then(|after| {
            let group = || mapping::columns(ResourceType::Group, after.get());
            match &*row.resource {
                "User" => mapping::user_columns(after.get()).ok(),
                "Group" => group().ok().map(|columns| UserColumns {
                    text: of_user(&columns),
                    ..columns
                }),
                _ => None,
            }
        })
        .unwrap_or_default()
}

/// What a line tells of a group, at the places that a user has it.
fn of_user(group: &UserColumns) -> TextColumns {
    let mut text = TextColumns::default();
    for (place, column) in TEXT_COLUMNS.iter().enumerate() {
        if matches!(*column, "display_name" | "manager_id" | "manager") {
            text[place] = group.get_of(ResourceType::Group, column).map(str::to_owned);
        }
    }
    text
}

fn is_membership(row: &ChangeRow) -> bool {
    row.resource == ResourceType::Membership.as_str()
}

/// The member, and the group by its id: its name may be another one by now.
fn membership(row: &ChangeRow) -> Option<String> {
    let bold = Style::new().bold();
    let (group, member) = members::of_canonical(row.after.as_ref()?.get())?;
    let kind = match member.kind {
        MemberKind::User => "",
        MemberKind::Group => "group ",
    };
    let name = member.label.as_deref().unwrap_or(&member.id);
    let way = match &*row.kind {
        "create" => "in",
        _ => "out of",
    };
    Some(format!(
        "{kind}{bold}{}{bold:#} {way} group {}",
        Foreign(name),
        Foreign(&group)
    ))
}

/// `2026-03-01T12:00:03.123Z` to the second.
fn time(observed_at: &str) -> String {
    let seconds = observed_at.split('.').next().unwrap_or_default();
    Foreign(&seconds.trim_end_matches('Z').replace('T', " ")).to_string()
}

fn kind_style(row: &ChangeRow) -> Style {
    match row.kind.as_str() {
        "create" => AnsiColor::Green.on_default(),
        "deactivate" => AnsiColor::Red.on_default(),
        _ => AnsiColor::Yellow.on_default(),
    }
}

/// The display name and the user name; the id where there is neither.
fn who(row: &ChangeRow, columns: &UserColumns) -> String {
    let bold = Style::new().bold();
    if let Some(who) = Some(row)
        .filter(|row| is_membership(row))
        .and_then(membership)
    {
        return who;
    }
    let name = |name: &str| match &*row.resource {
        "Group" => format!("group {bold}{}{bold:#}", Foreign(name)),
        _ => format!("{bold}{}{bold:#}", Foreign(name)),
    };
    match (columns.get("display_name"), columns.get("user_name")) {
        (Some(name), Some(user)) => {
            format!("{bold}{}{bold:#} ({})", Foreign(name), Foreign(user))
        }
        (Some(one), None) | (None, Some(one)) => name(one),
        (None, None) => name(&row.id),
    }
}

/// Of somebody new: what a colleague would ask first.
fn portrait(columns: &UserColumns) -> Vec<String> {
    let mut details: Vec<String> = ["title", "department"]
        .iter()
        .filter_map(|column| columns.get(column))
        .map(shown)
        .collect();
    if let Some(manager) = columns.get("manager").or(columns.get("manager_id")) {
        details.push(format!("manager {}", shown(manager)));
    }
    if columns.active == Some(false) {
        details.push("inactive".to_owned());
    }
    details
}

/// Of a new profile: how it stands, and who it is.
fn standing(row: &ChangeRow) -> Vec<String> {
    let after = row.after.as_ref().map(|after| after.get());
    let after: Value = serde_json::from_str(after.unwrap_or_default()).unwrap_or_default();
    let members = ["state", "user_id"].iter();
    members
        .filter_map(|name| after[name].as_str())
        .map(shown)
        .collect()
}

/// Every changed field as `path: from → to`, in the order of the paths.
fn differences(changed: &str) -> Vec<String> {
    let Ok(paths) = serde_json::from_str::<Map<String, Value>>(changed) else {
        return Vec::new();
    };
    paths
        .iter()
        .filter(|(path, _)| !is_id_of_shown_label(path, &paths))
        .map(|(path, change)| {
            let [from, to] = ["from", "to"].map(|side| side_text(path, &paths, change, side));
            format!("{}: {from} → {to}", Foreign(path))
        })
        .collect()
}

/// A reference changes as a whole: its id is told with its label.
fn is_id_of_shown_label(path: &str, paths: &Map<String, Value>) -> bool {
    path.strip_suffix("_id")
        .is_some_and(|label| paths.contains_key(label))
}

/// One side of a change. A label that alone would not tell (it is missing, or both sides have the same) gets
/// its id.
fn side_text(path: &str, paths: &Map<String, Value>, change: &Value, side: &str) -> String {
    let label = &change[side];
    let id = paths.get(&format!("{path}_id")).map(|ids| &ids[side]);
    match id {
        Some(id) if label.is_null() => value(id),
        Some(id) if change["from"] == change["to"] => format!("{} ({})", value(label), value(id)),
        _ => value(label),
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        Value::String(text) => shown(text),
        other => shown(&other.to_string()),
    }
}

fn shown(text: &str) -> String {
    words::clip(&Foreign(text).to_string(), MAX_VALUE_CHARS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SERVICENOW: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";

    fn row(kind: &str, reason: &str, changed: Option<Value>, after: Value) -> ChangeRow {
        let raw = |value: Value| serde_json::value::to_raw_value(&value).unwrap();
        ChangeRow {
            seq: 1042,
            sync_id: 7,
            instance: "acme".to_owned(),
            resource: "User".to_owned(),
            id: "u1".to_owned(),
            kind: kind.to_owned(),
            reason: reason.to_owned(),
            changed: changed.map(raw),
            after: Some(raw(after)),
            proof: None,
            hold_id: None,
            source_modified_at: None,
            observed_at: "2026-03-01T12:00:03.123Z".to_owned(),
        }
    }

    fn ada() -> Value {
        json!({
            "active": true, "displayName": "Ada Lovelace", "userName": "ada.lovelace", "title": "Engineer",
            SERVICENOW: {
                "department": {"value": "d1", "name": "Platform"},
                "manager": {"value": "u9", "displayName": "Grace Hopper"},
            },
        })
    }

    fn plain(row: &ChangeRow) -> String {
        anstream::adapter::strip_str(&line(row)).to_string()
    }

    #[test]
    fn a_line_tells_who_and_field_by_field_what() {
        let lines = [
            row("create", "new", None, ada()),
            row(
                "update",
                "changed",
                Some(json!({
                    "manager": {"from": "Grace Hopper", "to": "Alan Turing"},
                    "manager_id": {"from": "u9", "to": "u8"},
                    "name.middleName": {"from": null, "to": "King"},
                    "title": {"from": "Engineer", "to": "Lead"},
                })),
                ada(),
            ),
            row(
                "deactivate",
                "inactive",
                Some(json!({"active": {"from": true, "to": false}})),
                json!({"active": false, "userName": "ada.lovelace"}),
            ),
        ];
        insta::assert_snapshot!(lines.iter().map(plain).collect::<String>(), @"
        1042  2026-03-01 12:00:03  acme  create/new           Ada Lovelace (ada.lovelace)  Engineer; Platform; manager Grace Hopper
        1042  2026-03-01 12:00:03  acme  update/changed       Ada Lovelace (ada.lovelace)  manager: Grace Hopper → Alan Turing; name.middleName: (none) → King; title: Engineer → Lead
        1042  2026-03-01 12:00:03  acme  deactivate/inactive  ada.lovelace  active: true → false
        ");
    }

    #[test]
    fn a_profile_is_told_from_a_user() {
        let mut new = row(
            "create",
            "new",
            None,
            json!({"profile": "p1", "state": "matched", "user_id": "u1"}),
        );
        let state = json!({"state": {"from": "matched", "to": "ambiguous"}});
        let mut other = row("update", "changed", Some(state), json!({}));
        for row in [&mut new, &mut other] {
            (row.resource, row.id) = ("Identity".to_owned(), "p1".to_owned());
        }
        insta::assert_snapshot!(plain(&new) + &plain(&other), @"
        1042  2026-03-01 12:00:03  acme  create/new           profile p1  matched; u1
        1042  2026-03-01 12:00:03  acme  update/changed       profile p1  state: matched → ambiguous
        ");
    }

    #[test]
    fn a_reference_shows_its_id_where_the_label_does_not_tell() {
        let changed = json!({
            "department": {"from": null, "to": "Platform"},
            "department_id": {"from": "d0", "to": "d1"},
            "manager": {"from": "J. Smith", "to": "J. Smith"},
            "manager_id": {"from": "u1", "to": "u2"},
        });
        assert_eq!(
            differences(&changed.to_string()),
            [
                "department: d0 → Platform",
                "manager: J. Smith (u1) → J. Smith (u2)"
            ]
        );
    }

    #[test]
    fn the_kind_has_its_colour() {
        let line = line(&row("deactivate", "gone", None, ada()));
        assert!(
            line.contains("\u{1b}[31mdeactivate/gone\u{1b}[0m"),
            "{line:?}"
        );
    }

    #[test]
    fn what_cannot_be_read_still_has_its_id() {
        let mut odd = row("update", "changed", None, ada());
        odd.after = None;
        assert!(plain(&odd).ends_with("update/changed       u1\n"));
    }
}
