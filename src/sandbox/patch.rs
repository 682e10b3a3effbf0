//! PATCH: what its operations ask for (facts page, section 10; RFC 7644 section 3.5.2). What a path means
//! is the business of users and of groups, each in a file of its own.

mod groups;
mod users;

use serde_json::{Map, Value};

use super::error::Refusal;
use super::write::{invalid_syntax, is_read_only, is_urn, member};

pub(super) use groups::read as group;
pub(super) use users::read as user;

const PATCH_OP: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Replace,
}

/// One change of one path.
#[derive(Clone, Copy, Debug)]
struct Change<'a> {
    op: Op,
    path: &'a str,
    /// Something, unless it is to be removed.
    value: Option<&'a Value>,
}

/// The changes that a PATCH body asks for, in their order.
fn changes(body: &Map<String, Value>) -> Result<Vec<Change<'_>>, Refusal> {
    let is_patch = member(body, "schemas")
        .and_then(Value::as_array)
        .is_some_and(|urns| urns.iter().any(|urn| urn.as_str() == Some(PATCH_OP)));
    if !is_patch {
        return Err(invalid_syntax(format!("schemas must contain {PATCH_OP}")));
    }
    let operations = member(body, "Operations")
        .and_then(Value::as_array)
        .ok_or_else(|| invalid_syntax("Operations must be an array"))?;
    let mut changes = Vec::new();
    for operation in operations {
        let operation = operation
            .as_object()
            .ok_or_else(|| invalid_syntax("An operation must be an object"))?;
        read_operation(operation, &mut changes)?;
    }
    Ok(changes)
}

fn read_operation<'a>(
    operation: &'a Map<String, Value>,
    changes: &mut Vec<Change<'a>>,
) -> Result<(), Refusal> {
    let op = member(operation, "op").and_then(Value::as_str);
    let op = match op.unwrap_or_default().to_ascii_lowercase().as_str() {
        "add" => Op::Add,
        "remove" => Op::Remove,
        "replace" => Op::Replace,
        _ => return Err(invalid_syntax("op must be add, remove or replace")),
    };
    let value = member(operation, "value");
    if let Some(path) = member(operation, "path") {
        let path = path
            .as_str()
            .ok_or_else(|| invalid_path("The path must be a string"))?;
        if op != Op::Remove && value.is_none() {
            return Err(Refusal::invalid_value("The operation needs a value"));
        }
        changes.push(Change { op, path, value });
        return Ok(());
    }
    let members = match value {
        _ if op == Op::Remove => return Err(no_target("A remove operation needs a path")),
        Some(Value::Object(members)) => members,
        Some(_) => {
            return Err(Refusal::invalid_value(
                "Without a path the value must be an object",
            ));
        }
        // The members may stand directly next to `op` (section 16).
        None => operation,
    };
    let stand_beside = value.is_none();
    for (path, value) in members {
        if !(stand_beside && path.eq_ignore_ascii_case("op")) {
            let value = Some(value);
            changes.push(Change { op, path, value });
        }
    }
    Ok(())
}

/// Refuses what no write may set.
fn check_mutable(name: &str) -> Result<(), Refusal> {
    if is_read_only(name) {
        return Err(Refusal::scim(
            400,
            Some("mutability"),
            format!("Attribute {name} is read-only"),
        ));
    }
    Ok(())
}

/// The name of an attribute, and of what is below it.
fn split(path: &str) -> (&str, Option<&str>) {
    if is_urn(path) {
        return (path, None);
    }
    path.split_once('.')
        .map_or((path, None), |(name, sub)| (name, Some(sub)))
}

/// What stands in brackets, as in `emails[type eq "work"].value`.
struct Brackets<'a> {
    name: &'a str,
    text: &'a str,
    /// Behind them.
    sub: Option<&'a str>,
}

/// Reads brackets, from behind the first one to the end of the path.
fn brackets<'a>(path: &str, rest: &'a str) -> Result<Brackets<'a>, Refusal> {
    let malformed = || invalid_path(format!("The path {path} cannot be understood"));
    let (inside, behind) = rest.split_once(']').ok_or_else(malformed)?;
    if !behind.is_empty() && !behind.starts_with('.') {
        return Err(malformed());
    }
    let mut words = inside.split_whitespace();
    let (Some(name), Some(op), Some(text), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed());
    };
    let text = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .filter(|_| op.eq_ignore_ascii_case("eq"))
        .ok_or_else(malformed)?;
    let sub = behind.strip_prefix('.');
    Ok(Brackets { name, text, sub })
}

fn no_such(path: &str) -> Refusal {
    invalid_path(format!("There is no attribute {path}"))
}

fn no_target(detail: impl Into<String>) -> Refusal {
    Refusal::scim(400, Some("noTarget"), detail)
}

fn invalid_path(detail: impl Into<String>) -> Refusal {
    Refusal::scim(400, Some("invalidPath"), detail)
}
