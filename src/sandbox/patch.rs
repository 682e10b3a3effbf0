//! PATCH: operations as values for columns (facts page, section 10; RFC 7644 section 3.5.2).

use serde_json::{Map, Value};

use super::column::{
    CORE_USER, ENTERPRISE_USER, SERVICENOW_USER, below_urn, multi_valued, reference,
};
use super::error::Refusal;
use super::row::Values;
use super::write::{Reader, invalid_syntax, is_advertised, is_read_only};

const PATCH_OP: &str = "urn:ietf:params:scim:api:messages:2.0:PatchOp";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Add,
    Remove,
    Replace,
}

/// Reads a PATCH body.
///
/// # Errors
/// 400 with the `scimType` of what is wrong.
pub(super) fn read(body: &Map<String, Value>) -> Result<Values, Refusal> {
    let is_patch = member(body, "schemas")
        .and_then(Value::as_array)
        .is_some_and(|urns| urns.iter().any(|urn| urn.as_str() == Some(PATCH_OP)));
    if !is_patch {
        return Err(invalid_syntax(format!("schemas must contain {PATCH_OP}")));
    }
    let operations = member(body, "Operations")
        .and_then(Value::as_array)
        .ok_or_else(|| invalid_syntax("Operations must be an array"))?;
    let mut reader = Reader::default();
    for operation in operations {
        let operation = operation
            .as_object()
            .ok_or_else(|| invalid_syntax("An operation must be an object"))?;
        operate(&mut reader, operation)?;
    }
    Ok(reader.values)
}

fn operate(reader: &mut Reader, operation: &Map<String, Value>) -> Result<(), Refusal> {
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
        return at_path(reader, op, path, value);
    }
    match value {
        _ if op == Op::Remove => Err(Refusal::scim(
            400,
            Some("noTarget"),
            "A remove operation needs a path",
        )),
        Some(Value::Object(members)) => {
            for (path, value) in members {
                at_path(reader, op, path, Some(value))?;
            }
            Ok(())
        }
        Some(_) => Err(Refusal::invalid_value(
            "Without a path the value must be an object",
        )),
        // The members may stand directly next to `op` (section 16).
        None => {
            for (path, value) in operation {
                if !path.eq_ignore_ascii_case("op") {
                    at_path(reader, op, path, Some(value))?;
                }
            }
            Ok(())
        }
    }
}

fn at_path(reader: &mut Reader, op: Op, path: &str, value: Option<&Value>) -> Result<(), Refusal> {
    let value = match (op, value) {
        (Op::Remove, _) => &Value::Null,
        (_, Some(value)) => value,
        (_, None) => return Err(Refusal::invalid_value("The operation needs a value")),
    };
    if let Some(rest) = below_urn(path, SERVICENOW_USER) {
        let (name, sub) = split(rest);
        if sub.is_some() && reference(name).is_none() {
            return Err(no_such(path));
        }
        // The label and the link are the instance's; only the id is written.
        return match sub {
            Some(sub) if !sub.eq_ignore_ascii_case("value") => Ok(()),
            _ => reader.extension_member(name, value),
        };
    }
    if below_urn(path, ENTERPRISE_USER).is_some() {
        return Ok(());
    }
    let path = below_urn(path, CORE_USER).unwrap_or(path);
    if let Some((attribute, rest)) = path.split_once('[') {
        return in_brackets(reader, path, attribute, rest, value);
    }
    let (name, sub) = match path {
        urn if super::write::is_urn(urn) => (urn, None),
        plain => split(plain),
    };
    if is_read_only(name) {
        return Err(Refusal::scim(
            400,
            Some("mutability"),
            format!("Attribute {name} is read-only"),
        ));
    }
    if !is_advertised(name) {
        return Err(no_such(path));
    }
    match sub {
        None => reader.member(name, value, op != Op::Add),
        Some(sub) => {
            let part = Map::from_iter([(sub.to_owned(), value.clone())]);
            reader.member(name, &Value::Object(part), false)
        }
    }
}

/// `emails[type eq "work"]`, perhaps with a sub-attribute behind it.
fn in_brackets(
    reader: &mut Reader,
    path: &str,
    attribute: &str,
    rest: &str,
    value: &Value,
) -> Result<(), Refusal> {
    let malformed = || invalid_path(format!("The path {path} cannot be understood"));
    let (inside, behind) = rest.split_once(']').ok_or_else(malformed)?;
    let mut words = inside.split_whitespace();
    let (Some(name), Some(op), Some(kind), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed());
    };
    let kind = kind
        .strip_prefix('"')
        .and_then(|kind| kind.strip_suffix('"'))
        .filter(|_| name.eq_ignore_ascii_case("type") && op.eq_ignore_ascii_case("eq"))
        .ok_or_else(malformed)?;
    let subs = [
        "value",
        "streetAddress",
        "locality",
        "region",
        "postalCode",
        "country",
    ];
    let kept: Vec<&str> = subs
        .into_iter()
        .filter(|sub| multi_valued(attribute, kind, sub).is_some())
        .collect();
    if kept.is_empty() {
        return Err(Refusal::scim(
            400,
            Some("noTarget"),
            format!("There is no {attribute} of type {kind}"),
        ));
    }
    let one = |sub: &str, value: &Value| Map::from_iter([(sub.to_owned(), value.clone())]);
    match (behind.strip_prefix('.'), value) {
        (Some(sub), value) => reader.element(attribute, kind, &one(sub, value)),
        (None, _) if !behind.is_empty() => Err(malformed()),
        (None, Value::Object(element)) => reader.element(attribute, kind, element),
        (None, Value::Null) => kept
            .iter()
            .try_for_each(|sub| reader.element(attribute, kind, &one(sub, &Value::Null))),
        // An array of one, as some products send it.
        (None, Value::Array(elements)) => elements
            .iter()
            .filter_map(Value::as_object)
            .try_for_each(|element| reader.element(attribute, kind, element)),
        (None, plain) => reader.element(attribute, kind, &one(kept[0], plain)),
    }
}

fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('.')
        .map_or((path, None), |(name, sub)| (name, Some(sub)))
}

fn no_such(path: &str) -> Refusal {
    invalid_path(format!("There is no attribute {path}"))
}

fn invalid_path(detail: impl Into<String>) -> Refusal {
    Refusal::scim(400, Some("invalidPath"), detail)
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::testbed::Testbed;
    use super::*;

    fn patch(bed: &Testbed, id: &str, operations: &Value) -> super::super::testbed::Answered {
        let body = json!({ "schemas": [PATCH_OP], "Operations": operations });
        bed.write(Method::PATCH, &format!("/Users/{id}"), &body)
    }

    #[test]
    fn every_documented_form_of_an_operation_is_understood() {
        let bed = Testbed::of(2);
        let id = bed.sandbox.ids()[0].clone();
        let boss = bed.sandbox.ids()[1].clone();
        let department = bed.get("/Departments").rows()[0]["id"].clone();
        let answered = patch(
            &bed,
            &id,
            &json!([
                { "op": "replace", "path": "title", "value": "Chief" },
                { "op": "Add", "path": "name.middleName", "value": "M" },
                { "op": "replace", "path": "emails[type eq \"work\"]", "value": { "value": "new@example.org" } },
                { "op": "add", "path": "phoneNumbers[type eq \"home\"].value", "value": "77" },
                { "op": "add", "path": "phoneNumbers", "value": [{ "type": "mobile", "value": "88" }] },
                { "op": "replace", "value": { "timezone": "ET", "name.givenName": "G" } },
                { "op": "replace", "active": "False" },
                { "op": "replace", "path": format!("{SERVICENOW_USER}:manager.value"), "value": boss },
                { "op": "replace", "path": format!("{SERVICENOW_USER}:department"), "value": { "value": department } },
                { "op": "add", "path": format!("{ENTERPRISE_USER}:department"), "value": "forgotten" },
                { "op": "remove", "path": "preferredLanguage" },
                { "op": "remove", "path": "addresses" },
            ]),
        );
        assert_eq!(answered.status, 200, "{}", answered.json);
        let user = answered.json;
        assert_eq!(user["title"], "Chief");
        assert_eq!(user["name"]["middleName"], "M");
        assert_eq!(user["name"]["givenName"], "G");
        assert_eq!(user["emails"][0]["value"], "new@example.org");
        let phones = user["phoneNumbers"].as_array().unwrap();
        assert!(phones.contains(&json!({ "type": "home", "value": "77" })));
        assert!(phones.contains(&json!({ "type": "mobile", "value": "88" })));
        assert!(phones.iter().any(|phone| phone["type"] == "work"));
        assert_eq!(user["timezone"], "ET");
        assert_eq!(user["active"], false);
        assert_eq!(user[SERVICENOW_USER]["manager"]["value"], boss);
        assert_eq!(user[SERVICENOW_USER]["department"]["value"], department);
        assert!(user.get("preferredLanguage").is_none() && user.get("addresses").is_none());
    }

    #[test]
    fn what_cannot_be_patched_is_told_by_scim_type_and_changes_nothing() {
        let bed = Testbed::of(1);
        let id = bed.sandbox.ids()[0].clone();
        let before = bed.get(&format!("/Users/{id}")).json;
        for (operation, scim_type) in [
            (
                json!({ "op": "replace", "path": "id", "value": "x" }),
                "mutability",
            ),
            (
                json!({ "op": "replace", "value": { "id": "x" } }),
                "mutability",
            ),
            (
                json!({ "op": "add", "path": "groups", "value": [] }),
                "mutability",
            ),
            (json!({ "op": "remove" }), "noTarget"),
            (
                json!({ "op": "replace", "path": "emails[type eq \"home\"]", "value": {} }),
                "noTarget",
            ),
            (
                json!({ "op": "replace", "path": "shoeSize", "value": 1 }),
                "invalidPath",
            ),
            (
                json!({ "op": "replace", "path": "emails[type", "value": 1 }),
                "invalidPath",
            ),
            (json!({ "op": "move", "path": "title" }), "invalidSyntax"),
            (json!({ "op": "replace", "path": "title" }), "invalidValue"),
            (
                json!({ "op": "replace", "path": "userName", "value": "" }),
                "invalidValue",
            ),
            (
                json!({ "op": "replace", "path": "title", "value": {} }),
                "invalidValue",
            ),
            (json!({ "op": "replace", "value": [] }), "invalidValue"),
            (json!("title"), "invalidSyntax"),
        ] {
            let good = json!({ "op": "replace", "path": "title", "value": "changed" });
            let answered = patch(&bed, &id, &json!([good, operation]));
            assert_eq!(answered.status, 400, "{operation}");
            assert_eq!(answered.json["scimType"], scim_type, "{operation}");
        }
        let no_schema = bed.write(
            Method::PATCH,
            &format!("/Users/{id}"),
            &json!({ "Operations": [] }),
        );
        assert_eq!(no_schema.status, 400);
        assert_eq!(bed.get(&format!("/Users/{id}")).json, before);
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in r#"[a-zA-Z:.\[\]" é]{0,40}"#, op in "add|remove|replace") {
            for value in [json!(null), json!("x"), json!([]), json!([1]), json!({"value": 1})] {
                let operation = json!({ "op": op, "path": path, "value": value });
                let body = json!({ "schemas": [PATCH_OP], "Operations": [operation] });
                let _ = read(body.as_object().unwrap());
            }
        }
    }
}
