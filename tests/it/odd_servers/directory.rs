//! The people behind an odd server.

use std::collections::BTreeMap;

use serde_json::{Value, json};

const SERVICENOW: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";

/// Users by id, as a well-behaved server shows them.
#[derive(Clone)]
pub(crate) struct Directory {
    users: BTreeMap<String, Value>,
    /// Each edit has a stamp of its own, all of them in the past.
    n_edits: u32,
    id: fn(usize) -> String,
}

/// The `n`th person's `sys_id`: 32 hex characters, in another order than they were hired.
pub(crate) fn sys_id(n: usize) -> String {
    let scattered = (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    format!("{scattered:032x}")
}

/// Ids that are numbers, in the order of their values: 9 before 10.
pub(crate) fn number(n: usize) -> String {
    (n + 1).to_string()
}

/// Ids that are equal in pairs but for case.
pub(crate) fn case_twin(n: usize) -> String {
    let id = format!("node_{:02}.key", n / 2);
    if n.is_multiple_of(2) {
        id
    } else {
        id.to_ascii_uppercase()
    }
}

impl Directory {
    /// The first `n` people, with these ids.
    pub(crate) fn of(n: usize, id: fn(usize) -> String) -> Self {
        let mut directory = Self {
            users: BTreeMap::new(),
            n_edits: 0,
            id,
        };
        for n in 0..n {
            let user = person(n, &id(n));
            directory.users.insert(id(n), user);
        }
        directory
    }

    pub(crate) fn id(&self, n: usize) -> String {
        (self.id)(n)
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.users.iter()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Value> {
        self.users.get(id)
    }

    /// The `n`th person is deleted.
    pub(crate) fn leave(&mut self, n: usize) -> Value {
        self.users.remove(&self.id(n)).expect("they are there")
    }

    /// Somebody is there again, as they were.
    pub(crate) fn put_back(&mut self, n: usize, user: Value) {
        self.users.insert(self.id(n), user);
    }

    /// The `n`th person is hired.
    pub(crate) fn join(&mut self, n: usize) {
        let id = self.id(n);
        self.users.insert(id.clone(), person(n, &id));
        self.stamp(n);
    }

    /// One attribute of the `n`th person gets a value.
    pub(crate) fn set(&mut self, n: usize, attribute: &str, value: Value) {
        self.user(n)[attribute] = value;
        self.stamp(n);
    }

    /// One attribute of the `n`th person gets a value, in the same second as the edit before, or by a
    /// script that keeps the stamp.
    pub(crate) fn set_unstamped(&mut self, n: usize, attribute: &str, value: Value) {
        self.user(n)[attribute] = value;
    }

    fn stamp(&mut self, n: usize) {
        self.n_edits += 1;
        let stamp = format!(
            "2025-06-02T10:{:02}:{:02}Z",
            self.n_edits / 60,
            self.n_edits % 60
        );
        self.user(n)["meta"]["lastModified"] = json!(stamp);
    }

    fn user(&mut self, n: usize) -> &mut Value {
        let id = self.id(n);
        self.users.get_mut(&id).expect("they are there")
    }
}

fn person(n: usize, id: &str) -> Value {
    let reference = |kind: &str, of: usize| json!({"value": format!("{kind}{of}"), "name": format!("{kind} {of}")});
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", SERVICENOW],
        "id": id,
        "meta": {
            "resourceType": "User",
            "created": "2025-03-01T08:00:00Z",
            "lastModified": format!("2025-03-01T08:00:{:02}Z", n % 60),
        },
        "userName": format!("user.{n:02}"),
        "displayName": format!("User {n:02}"),
        "title": format!("Engineer {}", n % 7),
        "active": true,
        "emails": [{"value": format!("user.{n}@example.org"), "type": "work"}],
        "phoneNumbers": [
            {"value": format!("+47 1 {n}"), "type": "work"},
            {"value": format!("+47 2 {n}"), "type": "mobile"},
        ],
        SERVICENOW: {
            "employeeNumber": format!("E-{n}"),
            // The last four work for a company of their own.
            "company": reference("company", if (56..60).contains(&n) { 9 } else { n % 3 }),
            "department": reference("department", n % 5),
            "location": reference("location", n % 2),
            "manager": {"value": "somebody", "displayName": "Some Body"},
        },
    })
}
