//! What the mirror must hold of a user, from the server's JSON: written from the contract (sections 4 and
//! 5), without our code.

use serde_json::{Map, Value, json};

use super::people::{ENTERPRISE, SERVICENOW};

/// What the contract says the columns of a user hold, from the server's JSON.
pub(crate) fn expected_columns(user: &Value) -> Vec<(&'static str, Option<String>)> {
    let servicenow = &user[SERVICENOW];
    let enterprise = &user[ENTERPRISE];
    let typed = |list: &str, kind: &str| {
        user[list]
            .as_array()
            .and_then(|values| values.iter().find(|value| value["type"] == kind))
            .and_then(|value| string(&value["value"]))
    };
    // A reference is read from the ServiceNow extension, or from the enterprise extension where
    // that has nothing: there a department and a cost centre are texts without an id.
    let reference = |name: &str, label: &str| match &servicenow[name] {
        Value::Null => match &enterprise[name] {
            Value::String(text) => (None, Some(text.clone())),
            other => (string(&other["value"]), string(&other["displayName"])),
        },
        found => (string(&found["value"]), string(&found[label])),
    };
    let (department_id, department) = reference("department", "name");
    let (manager_id, manager) = reference("manager", "displayName");
    let (cost_center_id, cost_center) = reference("costCenter", "name");
    let (company_id, company) = reference("company", "name");
    let (location_id, location) = reference("location", "name");
    let active = user["active"].as_bool().unwrap_or(true);
    vec![
        ("external_id", string(&user["externalId"])),
        ("user_name", string(&user["userName"])),
        ("active", Some(u8::from(active).to_string())),
        ("display_name", string(&user["displayName"])),
        ("given_name", string(&user["name"]["givenName"])),
        ("family_name", string(&user["name"]["familyName"])),
        ("email", typed("emails", "work")),
        ("title", string(&user["title"])),
        ("department_id", department_id),
        ("department", department),
        ("manager_id", manager_id),
        ("manager", manager),
        ("cost_center_id", cost_center_id),
        ("cost_center", cost_center),
        ("company_id", company_id),
        ("company", company),
        ("location_id", location_id),
        ("location", location),
        ("employee_number", string(&servicenow["employeeNumber"])),
        ("user_type", string(&user["userType"])),
        ("phone", typed("phoneNumbers", "work")),
        ("mobile_phone", typed("phoneNumbers", "mobile")),
        ("preferred_language", string(&user["preferredLanguage"])),
        ("locale", string(&user["locale"])),
        ("timezone", string(&user["timezone"])),
        ("gone_at", None),
    ]
}

pub(crate) fn string(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .map(Into::into)
}

/// The whole resource in its canonical form: without `meta` and `groups`, without empty values, every
/// array in the order of its elements' texts, and with `active`.
pub(crate) fn expected_attributes(user: &Value) -> Value {
    let mut user = user.as_object().expect("a resource").clone();
    user.remove("meta");
    user.remove("groups");
    user.entry("active").or_insert(json!(true));
    canonical(Value::Object(user)).expect("somebody")
}

fn canonical(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::String(text) => (!text.is_empty()).then_some(Value::String(text)),
        Value::Array(values) => {
            let mut values: Vec<Value> = values.into_iter().filter_map(canonical).collect();
            // `serde_json` keeps the members of an object in the order of their names.
            values.sort_by_key(Value::to_string);
            (!values.is_empty()).then_some(Value::Array(values))
        }
        Value::Object(members) => {
            let members: Map<String, Value> = members
                .into_iter()
                .filter_map(|(name, value)| Some((name, canonical(value)?)))
                .collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        other => Some(other),
    }
}
