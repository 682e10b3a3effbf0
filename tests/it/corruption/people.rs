//! Who is in the directories of a history.

use musterd::model::{ResourceId, Row};
use serde_json::{Value, json};

/// The extension that ServiceNow gives its users.
pub(crate) const URN: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";

pub(crate) fn id(n: usize) -> String {
    format!("{:04x}{n:028x}", n * 7919 % 65536)
}

pub(crate) fn person(n: usize) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", URN],
        "id": id(n),
        "userName": format!("user.{n}"),
        "displayName": format!("Zoë Nr. {n}"),
        "name": {"givenName": "Zoë", "familyName": format!("Nr. {n}"), "middleName": "東"},
        "active": n % 9 != 5,
        "title": if n.is_multiple_of(3) { "Agent" } else { "Boss" },
        "emails": [{"type": "work", "value": format!("user.{n}@example.com"), "primary": true}],
        "phoneNumbers": [{"type": "work", "value": format!("+49 30 {n:04}")}],
        "locale": "de",
        URN: {
            "department": {"value": format!("d{}", n % 4), "name": format!("Department {}", n % 4)},
            "company": {"value": "c1", "name": "Acme"},
            "manager": {"value": id(n / 3), "displayName": format!("Zoë Nr. {}", n / 3)},
            // Every tenth has a page of their own, and more.
            "u_notes": if n.is_multiple_of(10) { "long ".repeat(2500) } else { format!("note {n}") },
        },
        "meta": {
            "created": format!("2019-01-{:02}T08:00:00Z", n % 28 + 1),
            "lastModified": format!("2026-01-{:02}T08:00:00Z", n % 28 + 1),
        },
    })
}

/// A group of this name, with members by the number of a user or the name of a group; one of whom nothing is shown has none.
pub(crate) fn desk(name: &str, members: &[&str]) -> Value {
    let members: Vec<Value> = (members.iter())
        .map(|member| match (member.parse::<usize>(), *member) {
            (Ok(n), _) => {
                json!({"value": id(n), "display": format!("Zoë Nr. {n}"), "type": "User"})
            }
            (Err(_), "") => json!({"display": "Nobody"}),
            (Err(_), group) => json!({"value": group, "display": group, "type": "Group"}),
        })
        .collect();
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
        "id": name,
        "displayName": format!("The {name}"),
        "members": members,
        "meta": {"created": "2019-01-01T08:00:00Z", "lastModified": "2026-01-01T08:00:00Z"},
    })
}

pub(crate) fn row(user: &Value) -> Row {
    Row {
        id: ResourceId::new(user["id"].as_str().unwrap()),
        modified_at: user["meta"]["lastModified"].as_str().unwrap().parse().ok(),
        raw: user.to_string().into(),
    }
}
