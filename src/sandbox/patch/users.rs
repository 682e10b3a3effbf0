//! What operations change of a user, as values for columns (facts page, section 8).

use serde_json::{Map, Value};

use super::super::column::{
    CORE_USER, ENTERPRISE_USER, SERVICENOW_USER, below_urn, multi_valued, reference,
};
use super::super::error::Refusal;
use super::super::row::Values;
use super::super::write::UserReader;
use super::{
    Brackets, Change, Op, brackets, changes, check_mutable, invalid_path, no_such, no_target, split,
};

/// Reads a PATCH body.
///
/// # Errors
/// 400 with the `scimType` of what is wrong.
pub(in super::super) fn read(body: &Map<String, Value>) -> Result<Values, Refusal> {
    let mut reader = UserReader::default();
    for change in changes(body)? {
        apply(&mut reader, change)?;
    }
    Ok(reader.values)
}

fn apply(reader: &mut UserReader, change: Change<'_>) -> Result<(), Refusal> {
    let Change { op, path, value } = change;
    let value = value.filter(|_| op != Op::Remove).unwrap_or(&Value::Null);
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
        return in_brackets(reader, path, attribute, &brackets(path, rest)?, value);
    }
    let (name, sub) = split(path);
    check_mutable(name)?;
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
    reader: &mut UserReader,
    path: &str,
    attribute: &str,
    inside: &Brackets<'_>,
    value: &Value,
) -> Result<(), Refusal> {
    let kind = inside.text;
    if !inside.name.eq_ignore_ascii_case("type") {
        return Err(invalid_path(format!(
            "The path {path} cannot be understood"
        )));
    }
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
        return Err(no_target(format!("There is no {attribute} of type {kind}")));
    }
    let one = |sub: &str, value: &Value| Map::from_iter([(sub.to_owned(), value.clone())]);
    match (inside.sub, value) {
        (Some(sub), value) => reader.element(attribute, kind, &one(sub, value)),
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

/// Whether a name is in a schema that is advertised, though no column keeps it.
fn is_advertised(name: &str) -> bool {
    const CORE: [&str; 23] = [
        "externalId",
        "userName",
        "name",
        "displayName",
        "nickName",
        "profileUrl",
        "title",
        "userType",
        "preferredLanguage",
        "locale",
        "timezone",
        "active",
        "password",
        "emails",
        "phoneNumbers",
        "ims",
        "photos",
        "addresses",
        "entitlements",
        "roles",
        "x509Certificates",
        SERVICENOW_USER,
        ENTERPRISE_USER,
    ];
    CORE.iter().any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::super::testbed::Testbed;
    use super::super::PATCH_OP;
    use super::*;

    fn patch(
        bed: &Testbed,
        id: &str,
        operations: &Value,
    ) -> super::super::super::testbed::Answered {
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
