//! What operations change of a group and its members (facts page, sections 9.1 and 10).

use serde_json::{Map, Value, json};

use super::super::column::below_urn;
use super::super::error::Refusal;
use super::super::group::{CORE_GROUP, CUSTOM_GROUP, SERVICENOW_GROUP};
use super::super::write::GroupReader;
use super::{Brackets, Change, Op, brackets, changes, check_mutable, invalid_path, no_such, split};

/// Reads a PATCH body.
///
/// # Errors
/// 400 with the `scimType` of what is wrong.
pub(in super::super) fn read(body: &Map<String, Value>) -> Result<GroupReader, Refusal> {
    let mut reader = GroupReader::default();
    for change in changes(body)? {
        apply(&mut reader, change)?;
    }
    Ok(reader)
}

fn apply(reader: &mut GroupReader, change: Change<'_>) -> Result<(), Refusal> {
    let Change { op, path, value } = change;
    let to_set = value.filter(|_| op != Op::Remove).unwrap_or(&Value::Null);
    if below_urn(path, CUSTOM_GROUP).is_some() {
        return Ok(());
    }
    if let Some(rest) = below_urn(path, SERVICENOW_GROUP) {
        return match rest.to_ascii_lowercase().as_str() {
            "company" | "company.value" => reader.company(to_set),
            // The label and the link are the instance's; only the id is written.
            "company.name" | "company.$ref" => Ok(()),
            _ => Err(no_such(path)),
        };
    }
    let path = below_urn(path, CORE_GROUP).unwrap_or(path);
    if let Some((attribute, rest)) = path.split_once('[') {
        if !attribute.eq_ignore_ascii_case("members") {
            return Err(no_such(path));
        }
        return in_brackets(reader, op, path, &brackets(path, rest)?);
    }
    let (name, sub) = split(path);
    check_mutable(name)?;
    let known = [
        "displayName",
        "externalId",
        "members",
        SERVICENOW_GROUP,
        CUSTOM_GROUP,
    ];
    if !known.iter().any(|known| known.eq_ignore_ascii_case(name)) || sub.is_some() {
        return Err(no_such(path));
    }
    match (op, value) {
        // Some products name whom to remove beside the path.
        (Op::Remove, Some(members @ (Value::Array(_) | Value::Object(_))))
            if name.eq_ignore_ascii_case("members") =>
        {
            reader.leave(members)
        }
        _ => reader.member(name, to_set, op != Op::Add),
    }
}

/// `members[value eq "…"]`: one member, who can leave, and of whom nothing else can be changed.
fn in_brackets(
    reader: &mut GroupReader,
    op: Op,
    path: &str,
    inside: &Brackets<'_>,
) -> Result<(), Refusal> {
    if !inside.name.eq_ignore_ascii_case("value") {
        return Err(invalid_path(format!(
            "The path {path} cannot be understood"
        )));
    }
    if op != Op::Remove || inside.sub.is_some() {
        let detail = "A member can be added and removed, and not changed";
        return Err(Refusal::scim(400, Some("mutability"), detail));
    }
    reader.leave(&json!({ "value": inside.text }))
}
