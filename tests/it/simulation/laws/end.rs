//! When all is calm again the mirror is the directory, attribute by attribute.

use std::collections::BTreeSet;

use musterd::sandbox::Sandbox;
use rusqlite::Connection;
use serde_json::Value;

use super::{Law, Laws, broken};

impl Laws {
    /// The mirror is the directory.
    pub(in super::super) fn is_the_directory(&self, name: &str, sandbox: &Sandbox) -> Law {
        const LAW: &str = "in the end the mirror is the directory";
        let conn =
            Connection::open_with_flags(&self.path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
                .unwrap();
        let mut rows = conn
            .prepare(
                "SELECT id, attributes, active, gone_at FROM users WHERE instance = ?1 ORDER BY id",
            )
            .unwrap();
        let rows = rows.query_map([name], |row| {
            let (id, attributes): (String, String) = (row.get(0)?, row.get(1)?);
            let (active, gone_at): (bool, Option<String>) = (row.get(2)?, row.get(3)?);
            Ok((id, attributes, active, gone_at))
        });
        let mut missing: BTreeSet<String> = sandbox.ids().into_iter().collect();
        for row in rows.unwrap() {
            let (id, attributes, active, gone_at) = row.unwrap();
            let shown = sandbox.user_json(&id);
            let Some(shown) = shown else {
                let is_there = |id: &str| sandbox.user_json(id).is_some();
                let is_open = !active && !can_be_witnessed(&conn, name, &id, is_there);
                if active || gone_at.is_none() && !is_open {
                    return broken(LAW, format!("{name}: {id} is not there: {attributes}"));
                }
                continue;
            };
            missing.remove(&id);
            let shown = plain(serde_json::from_str(&shown).unwrap());
            let held = plain(serde_json::from_str(&attributes).unwrap());
            if gone_at.is_some() || shown != held || held["active"] != active {
                return broken(
                    LAW,
                    format!("{name}: {id} is {shown}, the mirror has {held}, gone {gone_at:?}"),
                );
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(id) => broken(LAW, format!("{name}: {id} is not in the mirror")),
        }
    }

    /// So it is with groups, and with who is in them: of each all members are known.
    pub(in super::super) fn has_its_groups(&self, name: &str, sandbox: &Sandbox) -> Law {
        const LAW: &str = "in the end the groups of the mirror are those of the directory";
        let conn =
            Connection::open_with_flags(&self.path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
                .unwrap();
        let mut rows = conn
            .prepare(
                "SELECT id, attributes, members_known,
                        (SELECT json_group_array(member_type || ' ' || member_id)
                         FROM (SELECT * FROM memberships AS one
                               WHERE one.instance = groups.instance AND one.group_id = groups.id AND ended_at IS NULL
                               ORDER BY member_type, member_id)),
                        gone_at IS NOT NULL
                 FROM groups WHERE instance = ?1 ORDER BY id",
            )
            .unwrap();
        let rows = rows.query_map([name], |row| {
            let [id, attributes, known, members]: [String; 4] =
                [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            Ok((id, attributes, known, members, row.get::<_, bool>(4)?))
        });
        let mut missing: BTreeSet<String> = sandbox.group_ids().into_iter().collect();
        for row in rows.unwrap() {
            let (id, attributes, known, members, is_gone) = row.unwrap();
            let members: BTreeSet<String> = serde_json::from_str(&members).unwrap();
            let Some(shown) = sandbox.group_json(&id) else {
                if !is_gone || !members.is_empty() {
                    let what = format!("{name}: {id} is not there: {attributes} {members:?}");
                    return broken(LAW, what);
                }
                continue;
            };
            missing.remove(&id);
            let shown: Value = serde_json::from_str(&shown).unwrap();
            let expected: BTreeSet<String> = shown["members"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|member| {
                    let is_group = member["$ref"].as_str().unwrap().contains("/Groups/");
                    let kind = if is_group { "Group" } else { "User" };
                    format!("{kind} {}", member["value"].as_str().unwrap())
                })
                .collect();
            let (shown, held) = (
                of_group(shown),
                of_group(serde_json::from_str(&attributes).unwrap()),
            );
            if is_gone || known != "all" || members != expected || shown != held {
                return broken(
                    LAW,
                    format!(
                        "{name}: {id} is {shown} with {expected:?}, the mirror has {held} with {members:?}, \
                         known {known}, gone {is_gone}"
                    ),
                );
            }
        }
        match missing.first() {
            None => Ok(()),
            Some(id) => broken(LAW, format!("{name}: {id} is not in the mirror")),
        }
    }
}

/// The content of a group: nothing says that one is in use.
fn of_group(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        members.remove("members");
        members.remove("active");
    }
    plain(value)
}

/// Whether an absence can be proved: somebody who is shown shares the closest of company, department and location in which
/// the mirror knows anybody else. Without such a one the account's sight of that part may be lost, and nobody of it goes
/// (promise P1).
fn can_be_witnessed(
    conn: &Connection,
    instance: &str,
    id: &str,
    is_there: impl Fn(&str) -> bool,
) -> bool {
    for (key, label) in [
        ("company_id", "company"),
        ("department_id", "department"),
        ("location_id", "location"),
    ] {
        let others = conn.prepare(&format!(
            "SELECT other.id FROM users AS one JOIN users AS other
                 ON other.instance = one.instance AND other.id <> one.id AND other.gone_at IS NULL
                 AND coalesce(other.{key}, other.{label}) = coalesce(one.{key}, one.{label})
             WHERE one.instance = ?1 AND one.id = ?2"
        ));
        let others: Vec<String> = others
            .unwrap()
            .query_map([instance, id], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        if !others.is_empty() {
            return others.iter().any(|other| is_there(other));
        }
    }
    true
}

/// A resource as far as it is content: without `meta`, memberships and links, without what has no value,
/// arrays in one order.
fn plain(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        members.remove("meta");
        members.remove("groups");
    }
    bare(value).unwrap_or_default()
}

fn bare(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::Array(elements) => {
            let mut elements: Vec<Value> = elements.into_iter().filter_map(bare).collect();
            elements.sort_by_key(Value::to_string);
            (!elements.is_empty()).then_some(Value::Array(elements))
        }
        Value::Object(members) => {
            let members: serde_json::Map<String, Value> = members
                .into_iter()
                .filter(|(name, _)| name != "$ref")
                .filter_map(|(name, value)| Some((name, bare(value)?)))
                .collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        other => Some(other),
    }
}
