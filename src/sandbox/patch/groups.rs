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

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::super::super::testbed::{Answered, Testbed};
    use super::super::super::{GroupValues, Member, Options};
    use super::super::PATCH_OP;
    use super::*;

    const ID: &str = "desk";

    /// Nobody but the first user is in it.
    fn bed(no_content: bool) -> (Testbed, Vec<String>) {
        let bed = Testbed::with(Options {
            users: 150,
            groups: 0,
            odd: false,
            group_patch_no_content: no_content,
            ..Options::default()
        });
        bed.sandbox
            .create_group_as(ID, &GroupValues::named("Night Desk"));
        let ids = bed.sandbox.ids();
        bed.sandbox
            .change_members(ID, &[], &[Member::user(&ids[0])]);
        (bed, ids)
    }

    fn patch(bed: &Testbed, operations: &Value) -> Answered {
        let body = json!({ "schemas": [PATCH_OP], "Operations": operations });
        bed.write(Method::PATCH, &format!("/Groups/{ID}"), &body)
    }

    fn members(group: &Value) -> Vec<&str> {
        let members = group["members"].as_array().into_iter().flatten();
        members.filter_map(|one| one["value"].as_str()).collect()
    }

    #[test]
    fn members_are_added_removed_and_replaced_in_every_form() {
        let (bed, ids) = bed(false);
        bed.pass(60);
        let of = |places: &[usize]| -> Vec<Value> {
            places
                .iter()
                .map(|place| json!({ "value": ids[*place] }))
                .collect()
        };
        let urn = format!("{CORE_GROUP}:members");
        for (operation, places) in [
            (
                json!({ "op": "Add", "path": "members", "value": of(&[1, 2, 1]) }),
                &[0, 1, 2][..],
            ),
            (
                json!({ "op": "add", "path": urn, "value": of(&[3])[0] }),
                &[0, 1, 2, 3],
            ),
            (
                json!({ "op": "add", "value": { "members": of(&[0, 4]) } }),
                &[0, 1, 2, 3, 4],
            ),
            (
                json!({ "op": "add", "members": of(&[5]) }),
                &[0, 1, 2, 3, 4, 5],
            ),
            (
                json!({ "op": "add", "path": "members", "value": [] }),
                &[0, 1, 2, 3, 4, 5],
            ),
            (
                json!({ "op": "remove", "path": format!("members[value eq \"{}\"]", ids[5]) }),
                &[0, 1, 2, 3, 4],
            ),
            (
                json!({ "op": "remove", "path": "members[value eq \"nobody\"]" }),
                &[0, 1, 2, 3, 4],
            ),
            (
                json!({ "op": "remove", "path": "MEMBERS", "value": of(&[4, 0]) }),
                &[1, 2, 3],
            ),
            (
                json!({ "op": "replace", "path": "members", "value": of(&[3, 6]) }),
                &[3, 6],
            ),
            (
                json!({ "op": "replace", "value": { "members": of(&[7]) } }),
                &[7],
            ),
            (json!({ "op": "remove", "path": "members" }), &[]),
            (
                json!({ "op": "add", "path": "members", "value": of(&[1]) }),
                &[1],
            ),
            (
                json!({ "op": "replace", "path": "members", "value": null }),
                &[],
            ),
        ] {
            let answered = patch(&bed, &json!([operation]));
            assert_eq!(answered.status, 200, "{operation}: {}", answered.json);
            let mut expected: Vec<&str> = places.iter().map(|place| &*ids[*place]).collect();
            expected.sort_unstable();
            assert_eq!(members(&answered.json), expected, "{operation}");
            assert_eq!(
                answered.json["meta"]["lastModified"],
                "2026-03-01T08:00:00Z"
            );
        }
        // Operations are done in their order.
        let both = json!([
            { "op": "add", "path": "members", "value": of(&[1, 2]) },
            { "op": "remove", "path": "members", "value": of(&[1]) },
            { "op": "replace", "path": "displayName", "value": "Day Desk" },
            { "op": "add", "path": "externalId", "value": "x" },
            { "op": "add", "path": format!("{CUSTOM_GROUP}:floor"), "value": 3 },
        ]);
        let answered = patch(&bed, &both);
        assert_eq!(members(&answered.json), [ids[2].as_str()]);
        assert_eq!(answered.json["displayName"], "Day Desk");
        assert_eq!(answered.json["externalId"], "x");
        assert_eq!(
            answered.json["meta"]["lastModified"],
            "2026-03-01T08:01:00Z"
        );

        let company = bed.get("/Companies").rows()[0]["id"].clone();
        for (path, value, shown) in [
            ("company", json!({ "value": company }), &company),
            ("company", Value::Null, &Value::Null),
            ("company.value", company.clone(), &company),
            ("company", json!({ "name": "A label alone" }), &company),
            ("company", json!({ "value": "no such company" }), &company),
            ("company.name", json!("forgotten"), &company),
        ] {
            let path = format!("{SERVICENOW_GROUP}:{path}");
            let operation = json!({ "op": "replace", "path": path, "value": value });
            let answered = patch(&bed, &json!([operation]));
            assert_eq!(answered.status, 200, "{operation}: {}", answered.json);
            assert_eq!(
                answered.json[SERVICENOW_GROUP]["company"]["value"], *shown,
                "{operation}"
            );
        }
    }

    #[test]
    fn what_cannot_be_patched_is_told_by_scim_type_and_changes_nothing() {
        let (bed, ids) = bed(false);
        let before = bed.group(ID);
        let many = |range: std::ops::Range<usize>| -> Vec<Value> {
            ids[range].iter().map(|id| json!({ "value": id })).collect()
        };
        for (operations, scim_type) in [
            (
                json!([{ "op": "replace", "path": "id", "value": "x" }]),
                "mutability",
            ),
            (
                json!([{ "op": "replace", "value": { "meta": {} } }]),
                "mutability",
            ),
            (
                json!([{ "op": "replace", "path": "members[value eq \"x\"].display", "value": "y" }]),
                "mutability",
            ),
            (
                json!([{ "op": "add", "path": "members[value eq \"x\"]", "value": {} }]),
                "mutability",
            ),
            (json!([{ "op": "remove" }]), "noTarget"),
            (
                json!([{ "op": "replace", "path": "userName", "value": "x" }]),
                "invalidPath",
            ),
            (
                json!([{ "op": "replace", "path": "members.value", "value": "x" }]),
                "invalidPath",
            ),
            (
                json!([{ "op": "remove", "path": "members[value" }]),
                "invalidPath",
            ),
            (
                json!([{ "op": "remove", "path": "members[display eq \"x\"]" }]),
                "invalidPath",
            ),
            (
                json!([{ "op": "remove", "path": "emails[type eq \"x\"]" }]),
                "invalidPath",
            ),
            (
                json!([{ "op": "add", "path": format!("{SERVICENOW_GROUP}:colour"), "value": 1 }]),
                "invalidPath",
            ),
            (
                json!([{ "op": "move", "path": "members" }]),
                "invalidSyntax",
            ),
            (json!([{ "op": "add", "path": "members" }]), "invalidValue"),
            (
                json!([{ "op": "add", "path": "members", "value": ["x"] }]),
                "invalidValue",
            ),
            (
                json!([{ "op": "add", "path": "members", "value": [{ "value": "x" }] }]),
                "invalidValue",
            ),
            (
                json!([{ "op": "replace", "path": "displayName", "value": "" }]),
                "invalidValue",
            ),
            (
                json!([{ "op": "remove", "path": "displayName" }]),
                "invalidValue",
            ),
            // At most 100 in one request, in however many operations.
            (
                json!([{ "op": "add", "path": "members", "value": many(0..101) }]),
                "invalidValue",
            ),
            (
                json!([
                    { "op": "add", "path": "members", "value": many(0..60) },
                    { "op": "remove", "path": "members", "value": many(60..101) },
                ]),
                "invalidValue",
            ),
        ] {
            let good = json!({ "op": "replace", "path": "externalId", "value": "changed" });
            let mut all = vec![good];
            all.extend(operations.as_array().unwrap().clone());
            let answered = patch(&bed, &Value::Array(all));
            assert_eq!(answered.status, 400, "{operations}");
            assert_eq!(answered.json["scimType"], scim_type, "{operations}");
        }
        bed.sandbox.create_group(&GroupValues::named("Day Desk"));
        let taken = json!([{ "op": "replace", "path": "displayName", "value": "DAY desk" }]);
        assert_eq!(patch(&bed, &taken).status, 409);
        assert_eq!(bed.group(ID), before);
        let all = json!([{ "op": "add", "path": "members", "value": many(0..100) }]);
        assert_eq!(members(&patch(&bed, &all).json).len(), 100);
        let more = json!([{ "op": "add", "path": "members", "value": many(100..150) }]);
        assert_eq!(members(&patch(&bed, &more).json).len(), 150);
    }

    #[test]
    fn an_instance_may_answer_without_the_group() {
        let (bed, ids) = bed(true);
        let add = json!([{ "op": "add", "path": "members", "value": [{ "value": ids[1] }] }]);
        let answered = patch(&bed, &add);
        assert!(answered.status == 204 && answered.reply.body.is_empty());
        assert_eq!(members(&bed.group(ID)).len(), 2);
        let put = json!({ "schemas": [CORE_GROUP], "displayName": "Day Desk" });
        let answered = bed.write(Method::PUT, &format!("/Groups/{ID}"), &put);
        assert_eq!(answered.status, 200);
        let user = json!({ "schemas": [PATCH_OP], "Operations": [] });
        let answered = bed.write(Method::PATCH, &format!("/Users/{}", ids[0]), &user);
        assert_eq!(answered.status, 200);
        let refused = json!([{ "op": "remove" }]);
        assert_eq!(patch(&bed, &refused).status, 400);
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in r#"(members|[a-zA-Z:.\[\]" é]{0,20})[a-zA-Z:.\[\]" é]{0,20}"#, op in "add|remove|replace") {
            for value in [json!(null), json!("x"), json!([]), json!([1]), json!({"value": 1}), json!([{}])] {
                let operation = json!({ "op": op, "path": path, "value": value });
                let body = json!({ "schemas": [PATCH_OP], "Operations": [operation] });
                let _ = read(body.as_object().unwrap());
            }
        }
    }
}
