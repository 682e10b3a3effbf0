//! Writes: the body as JSON, what its `schemas` must say, and what the platform refuses whatever is
//! written (facts page, sections 10 and 11.1). Users and groups each have a file of their own.

mod groups;
mod users;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::directory::Directory;
use super::error::Refusal;

pub(super) use groups::{GroupReader, write as write_group};
pub(super) use users::{UserReader, write as write_user};

/// One write.
pub(super) struct Draft<'a> {
    /// How.
    pub verb: Verb,
    /// What is written; empty where it is created.
    pub id: &'a str,
    /// What was sent.
    pub body: &'a [u8],
    /// Where it is written.
    pub directory: &'a mut Directory,
    /// What new keys come from.
    pub ids: &'a mut fastrand::Rng,
    /// When.
    pub now: Timestamp,
}

/// How a resource is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Created.
    Post,
    /// "Replaced": what is left out keeps its value (section 10).
    Put,
    /// Changed by operations.
    Patch,
}

/// Reads a body.
fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(body)) => Ok(body),
        _ => Err(invalid_syntax("The body is not a JSON object")),
    }
}

/// Checks what `schemas` of a whole resource says: it has the core schema, and each extension that
/// there is a block of.
fn check_schemas(body: &Map<String, Value>, core: &str) -> Result<(), Refusal> {
    let schemas: Vec<&str> = member(body, "schemas")
        .and_then(Value::as_array)
        .map(|urns| urns.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let lists = |urn: &str| {
        schemas
            .iter()
            .any(|listed| listed.eq_ignore_ascii_case(urn))
    };
    if !lists(core) {
        return Err(invalid_syntax(format!("schemas must contain {core}")));
    }
    match body.keys().find(|key| is_urn(key) && !lists(key)) {
        Some(urn) => Err(invalid_syntax(format!(
            "The extension {urn} is not in schemas"
        ))),
        None => Ok(()),
    }
}

/// The rule that names are unique, without regard to case. It looks at a name that is being set, as
/// the form does, so that twins that exist already stay (Q26). `own` is the name that the resource has,
/// `all` are those of all.
fn check_unique<'a>(
    what: (&str, &str),
    name: &str,
    own: Option<&str>,
    mut all: impl Iterator<Item = &'a str>,
) -> Result<(), Refusal> {
    let folded = name.to_lowercase();
    let same = |other: &str| {
        other.eq_ignore_ascii_case(name) || (!other.is_ascii() && other.to_lowercase() == folded)
    };
    if name.is_empty() || own.is_some_and(same) || !all.any(same) {
        return Ok(());
    }
    let (resource, attribute) = what;
    Err(Refusal::scim(
        409,
        Some("uniqueness"),
        format!("A {resource} with the {attribute} {name} already exists"),
    ))
}

/// A member of an object, whatever the case of its name.
pub(super) fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// A text; `null` is an empty one.
fn text<'a>(name: &str, value: &'a Value) -> Result<&'a str, Refusal> {
    match value {
        Value::Null => Ok(""),
        Value::String(text) => Ok(text),
        _ => Err(wrong_type(name, "a string")),
    }
}

/// The id that a reference is written by: as it is, or as its `value`. `None` where there is a label
/// alone, which does not resolve to anything (section 10).
fn reference_id<'a>(name: &str, value: &'a Value) -> Result<Option<&'a str>, Refusal> {
    match value {
        Value::Null | Value::String(_) => text(name, value).map(Some),
        Value::Object(parts) => member(parts, "value").map(|id| text(name, id)).transpose(),
        _ => Err(wrong_type(name, "an object with a value")),
    }
}

/// What no write may set: it belongs to the instance.
#[must_use]
pub(super) fn is_read_only(name: &str) -> bool {
    ["id", "meta", "groups", "schemas"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether a member's name is that of an extension.
#[must_use]
pub(super) fn is_urn(name: &str) -> bool {
    name.get(..4)
        .is_some_and(|head| head.eq_ignore_ascii_case("urn:"))
}

/// 400 with `invalidSyntax`.
pub(super) fn invalid_syntax(detail: impl Into<String>) -> Refusal {
    Refusal::scim(400, Some("invalidSyntax"), detail)
}

fn wrong_type(name: &str, expected: &str) -> Refusal {
    Refusal::invalid_value(format!("Attribute {name} must be {expected}"))
}
