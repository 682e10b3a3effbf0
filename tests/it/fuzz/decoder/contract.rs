//! What the contract wants of one resource, reckoned with the reader of these tests.

use musterd::model::Reject;
use proptest::prop_assert;

use crate::fuzz::Checked;
use crate::fuzz::json::{Flaw, Json};

/// How deep a resource may nest.
pub(super) const DEEPEST: usize = 50;

/// Multi-valued attributes (RFC 7643 section 4.1.2).
const LISTS: [&str; 3] = ["emails", "phoneNumbers", "addresses"];

/// What the contract wants kept of a resource.
pub(super) fn as_kept(resource: &Json) -> Option<Json> {
    let Json::Object(members) = resource else {
        return None;
    };
    let is = |name: &str, known: &str| name.eq_ignore_ascii_case(known);
    let kept = members
        .iter()
        .filter(|(name, _)| !is(name, "meta") && !is(name, "groups"))
        .map(|(name, value)| {
            let value = match value {
                Json::Number(_) if is(name, "id") => match value.content() {
                    Some(Json::Number(text)) => Json::Text(text),
                    _ => value.clone(),
                },
                Json::Text(text) if is(name, "active") && !text.is_empty() => {
                    Json::Bool(is(text, "true"))
                }
                // A single value is a list of one, where that can be read again.
                single if LISTS.iter().any(|list| is(name, list)) => match single.content() {
                    Some(Json::List(_)) | None => single.clone(),
                    Some(single) if single.depth() + 2 <= DEEPEST => Json::List(vec![single]),
                    Some(single) => single,
                },
                _ => value.clone(),
            };
            (name.clone(), value)
        })
        .collect();
    Json::Object(kept).content()
}

/// A number, and a text with JSON in it, as the library hands them to itself.
const LIBRARYS_OWN: [&str; 2] = [
    "$serde_json::private::Number",
    "$serde_json::private::RawValue",
];

/// Whether nobody can say what this means: the same name twice, a number that no machine holds, or a
/// name that the library keeps for itself.
pub(super) fn has_ambiguities(resource: &Json) -> bool {
    resource.any(&|value| match value {
        Json::Number(text) => !text.parse::<f64>().is_ok_and(f64::is_finite),
        Json::Object(members) => {
            let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
            names.sort();
            names.windows(2).any(|pair| pair[0] == pair[1])
                || names
                    .iter()
                    .any(|name| LIBRARYS_OWN.contains(&name.as_str()))
        }
        _ => false,
    })
}

/// A reject has a reason that the reader of these tests sees as well.
pub(super) fn is_rightly_rejected(reject: &Reject, oracle: &Result<Json, Flaw>) -> Checked {
    let Ok(oracle) = oracle else {
        return Ok(());
    };
    let why = &reject.reason;
    let is_of_another_type = why.contains(" where ") && why.ends_with(" should be");
    // Of names that are known, two that differ in case alone are one name.
    let twice = oracle.any(&|value| match value {
        Json::Object(members) => {
            let mut names: Vec<_> = members
                .iter()
                .map(|(name, _)| name.to_ascii_lowercase())
                .collect();
            names.sort();
            names.windows(2).any(|pair| pair[0] == pair[1])
        }
        _ => false,
    });
    prop_assert!(
        has_ambiguities(oracle) || is_of_another_type || twice || oracle.depth() > DEEPEST,
        "rejected without need: {why}"
    );
    Ok(())
}
