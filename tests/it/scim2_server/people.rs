//! The people of the baseline.

use serde_json::{Value, json};

pub(crate) const CORE: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
pub(crate) const SERVICENOW: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
pub(crate) const CUSTOM: &str = "urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:User";
pub(crate) const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

pub(crate) fn user_name(n: usize) -> String {
    format!("person.{n:03}")
}

pub(crate) fn display_name(n: usize) -> String {
    format!("Pérson Number {n}")
}

/// The `n`th person: no two alike, and every attribute missing in some.
pub(crate) fn person(n: usize) -> Value {
    let mut user = json!({
        "schemas": [CORE, SERVICENOW],
        "userName": user_name(n),
        "displayName": display_name(n),
        "name": {"givenName": "Pérson", "familyName": format!("Number {n}")},
        "emails": [{"value": format!("person.{n}@example.org"), "type": "work"}],
        SERVICENOW: {"employeeNumber": format!("E-{n:05}")},
    });
    let mut set = |wanted: bool, pointer: &[&str], value: Value| {
        if wanted {
            let mut place = &mut user;
            for name in pointer {
                place = &mut place[*name];
            }
            *place = value;
        }
    };
    // Missing for every third: such a user is active.
    set(!n.is_multiple_of(3), &["active"], json!(n % 11 != 5));
    set(
        n.is_multiple_of(2),
        &["externalId"],
        json!(format!("hr-{n}")),
    );
    set(n % 4 != 1, &["title"], json!(format!("Engineer {}", n % 9)));
    set(n % 5 == 2, &["name", "middleName"], json!("von der"));
    set(n % 7 < 5, &["userType"], json!("Employee"));
    set(n % 6 == 1, &["timezone"], json!("Europe/Oslo"));
    set(n % 8 == 3, &["locale"], json!("nb-NO"));
    set(n % 9 == 4, &["preferredLanguage"], json!("nb"));
    set(
        n % 5 < 3,
        &["phoneNumbers"],
        json!([
            {"value": format!("+47 555 {n}"), "type": "work"},
            {"value": format!("+47 777 {n}"), "type": "mobile"},
        ]),
    );
    set(
        n % 13 == 6,
        &["phoneNumbers"],
        json!([{"value": "+47 1", "type": "home"}]),
    );
    set(
        n % 12 == 8,
        &["addresses"],
        json!([
            {"type": "home", "streetAddress": "Gata 1\nOppgang B", "locality": "Bodø", "country": "NO"},
        ]),
    );
    let reference = |kind: &str, of: usize| json!({"value": format!("{kind}-{of}"), "name": format!("{kind} № {of}")});
    set(
        n % 4 != 3,
        &[SERVICENOW, "department"],
        reference("dep", n % 15),
    );
    set(
        n % 3 != 1,
        &[SERVICENOW, "company"],
        reference("company", n % 3),
    );
    set(
        n.is_multiple_of(5),
        &[SERVICENOW, "costCenter"],
        reference("cost", n % 6),
    );
    set(
        n % 2 == 1,
        &[SERVICENOW, "location"],
        reference("location", n % 4),
    );
    // Where the ServiceNow extension has no department, some have one in the enterprise extension.
    let enterprise = n % 8 == 7;
    set(
        enterprise,
        &[ENTERPRISE],
        json!({"department": "Old Department", "costCenter": "CC-1", "division": "North"}),
    );
    set(
        n % 10 == 9,
        &[CUSTOM],
        json!({"badge": 4_000_000_000_u64 + n as u64, "floors": ["3", "1", "2"]}),
    );
    let mut schemas = vec![json!(CORE), json!(SERVICENOW)];
    schemas.extend((n % 10 == 9).then(|| json!(CUSTOM)));
    schemas.extend((enterprise || n % 10 == 7).then(|| json!(ENTERPRISE)));
    set(true, &["schemas"], json!(schemas));
    user
}
