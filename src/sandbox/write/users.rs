//! Writing users: what a body says in columns, and what the platform refuses (facts page, sections 8, 10
//! and 11.1).

use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::column::{Column, SERVICENOW_USER, Target, multi_valued, reference};
use super::super::directory::{Directory, Stamp};
use super::super::error::Refusal;
use super::super::generate::sys_id;
use super::super::patch;
use super::super::resource_type::Resource as _;
use super::super::row::{User, Values};
use super::super::sight::not_found;
use super::{
    Draft, Verb, check_schemas, check_unique, is_read_only, member, object, reference_id, text,
    wrong_type,
};

/// The types that a multi-valued attribute keeps, with their sub-attributes (section 8.1).
const KEPT: [(&str, &[&str], &[&str]); 3] = [
    ("emails", &["work"], &["value"]),
    ("phoneNumbers", &["work", "home", "mobile"], &["value"]),
    (
        "addresses",
        &["home"],
        &[
            "streetAddress",
            "locality",
            "region",
            "postalCode",
            "country",
        ],
    ),
];

/// Writes a user and gives what he is then.
///
/// # Errors
/// 400 for what cannot be understood or pointed to, 404 for nobody, 409 for a user name that is taken.
pub(in super::super) fn write(draft: Draft<'_>) -> Result<Arc<User>, Refusal> {
    let Draft {
        verb,
        id,
        body,
        directory,
        ids,
        now,
    } = draft;
    if verb != Verb::Post && directory.user(id).is_none() {
        return Err(not_found::<User>(id));
    }
    let body = object(body)?;
    let mut values = match verb {
        Verb::Patch => patch::user(&body)?,
        Verb::Post | Verb::Put => read(&body)?,
    };
    let user_name = values.text.get(&Column::UserName);
    if user_name.map_or(verb == Verb::Post, String::is_empty) {
        return Err(Refusal::invalid_value("Attribute userName is required"));
    }
    if let Some(name) = user_name {
        let own = directory.user(id).map(|user| user.get(Column::UserName));
        let users = directory.users().iter();
        let all = users.map(|user| user.get(Column::UserName));
        check_unique(("user", "userName"), name, own, all)?;
    }
    resolve_references(&mut values, directory)?;
    if verb == Verb::Post {
        let mut user = User::new(&sys_id(ids), now);
        user.set(&values);
        return Ok(directory.insert(user, now));
    }
    directory.update(id, &values, Stamp::Ruled, now);
    let user = directory.user(id).cloned();
    user.ok_or_else(|| not_found::<User>(id))
}

/// Reads a whole resource.
fn read(body: &Map<String, Value>) -> Result<Values, Refusal> {
    check_schemas(body, User::CORE)?;
    let mut reader = UserReader::default();
    for (key, value) in body {
        // What is read-only or computed is not looked at in a whole resource.
        if !is_read_only(key) {
            reader.member(key, value, true)?;
        }
    }
    Ok(reader.values)
}

/// Collects what members say.
#[derive(Debug, Default)]
pub(in super::super) struct UserReader {
    /// What was said.
    pub values: Values,
}

impl UserReader {
    /// Reads one top-level member. `null`, `""` and `[]` clear it. `whole` says that an array is all
    /// there is of it; else its elements are set beside others. Names of no column are accepted and
    /// forgotten (sections 8.3 and 9.3).
    ///
    /// # Errors
    /// 400 for a value of a wrong type.
    pub(in super::super) fn member(
        &mut self,
        name: &str,
        value: &Value,
        whole: bool,
    ) -> Result<(), Refusal> {
        if name.eq_ignore_ascii_case(SERVICENOW_USER) {
            return self.extension(value);
        }
        let column = match name.to_ascii_lowercase().as_str() {
            "active" => return self.active(value),
            "name" => return self.name(value),
            "emails" | "phonenumbers" | "addresses" => {
                return self.multi_valued(name, value, whole);
            }
            "externalid" => Column::ExternalId,
            "username" => Column::UserName,
            "title" => Column::Title,
            "usertype" => Column::UserType,
            "preferredlanguage" => Column::PreferredLanguage,
            "timezone" => Column::TimeZone,
            _ => return Ok(()),
        };
        self.text(name, column, value)
    }

    fn text(&mut self, name: &str, column: Column, value: &Value) -> Result<(), Refusal> {
        let text = text(name, value)?;
        self.values.text.insert(column, text.to_owned());
        Ok(())
    }

    fn active(&mut self, value: &Value) -> Result<(), Refusal> {
        let active = match value {
            Value::Bool(active) => *active,
            // Some identity products send it as text.
            Value::String(text) if text.eq_ignore_ascii_case("true") => true,
            Value::String(text) if text.eq_ignore_ascii_case("false") => false,
            Value::Null => return Ok(()),
            _ => return Err(wrong_type("active", "true or false")),
        };
        self.values.active = Some(active);
        Ok(())
    }

    fn name(&mut self, value: &Value) -> Result<(), Refusal> {
        let parts = [
            ("familyName", Column::LastName),
            ("givenName", Column::FirstName),
            ("middleName", Column::MiddleName),
            ("honorificPrefix", Column::Introduction),
        ];
        match value {
            Value::Null => {
                for (_, column) in parts {
                    self.values.text.insert(column, String::new());
                }
            }
            Value::Object(given) => {
                for (key, value) in given {
                    let part = parts
                        .iter()
                        .find(|(name, _)| name.eq_ignore_ascii_case(key));
                    if let Some((name, column)) = part {
                        self.text(&format!("name.{name}"), *column, value)?;
                    }
                }
            }
            _ => return Err(wrong_type("name", "an object")),
        }
        Ok(())
    }

    fn multi_valued(&mut self, name: &str, value: &Value, whole: bool) -> Result<(), Refusal> {
        let Some((attribute, kinds, subs)) = KEPT
            .into_iter()
            .find(|kept| kept.0.eq_ignore_ascii_case(name))
        else {
            return Ok(());
        };
        let elements = match value {
            Value::Null => &[],
            Value::Array(elements) => elements.as_slice(),
            // The documentation has the one address as an object in one place (section 8.1).
            Value::Object(_) => std::slice::from_ref(value),
            _ => return Err(wrong_type(name, "an array")),
        };
        if whole || elements.is_empty() {
            for (kind, sub) in kinds
                .iter()
                .flat_map(|kind| subs.iter().map(move |sub| (kind, sub)))
            {
                if let Some(column) = multi_valued(attribute, kind, sub) {
                    self.values.text.insert(column, String::new());
                }
            }
        }
        for element in elements {
            let Value::Object(element) = element else {
                return Err(wrong_type(name, "an array of objects"));
            };
            let kind = member(element, "type").and_then(Value::as_str);
            self.element(attribute, kind.unwrap_or(kinds[0]), element)?;
        }
        Ok(())
    }

    /// Reads one element; a type that no column keeps is forgotten.
    ///
    /// # Errors
    /// 400 for a value of a wrong type.
    pub(in super::super) fn element(
        &mut self,
        attribute: &str,
        kind: &str,
        element: &Map<String, Value>,
    ) -> Result<(), Refusal> {
        for (sub, value) in element {
            if let Some(column) = multi_valued(attribute, kind, sub) {
                self.text(&format!("{attribute}.{sub}"), column, value)?;
            }
        }
        Ok(())
    }

    fn extension(&mut self, value: &Value) -> Result<(), Refusal> {
        let members = match value {
            Value::Object(members) => members,
            Value::Null => {
                for name in [
                    "employeeNumber",
                    "gender",
                    "costCenter",
                    "company",
                    "department",
                    "manager",
                    "location",
                ] {
                    self.extension_member(name, &Value::Null)?;
                }
                return Ok(());
            }
            _ => return Err(wrong_type(SERVICENOW_USER, "an object")),
        };
        for (name, value) in members {
            self.extension_member(name, value)?;
        }
        Ok(())
    }

    /// Reads one member of the ServiceNow extension.
    ///
    /// # Errors
    /// 400 for a value of a wrong type.
    pub(in super::super) fn extension_member(
        &mut self,
        name: &str,
        value: &Value,
    ) -> Result<(), Refusal> {
        if name.eq_ignore_ascii_case("employeeNumber") {
            return self.text(name, Column::EmployeeNumber, value);
        }
        if name.eq_ignore_ascii_case("gender") {
            return self.text(name, Column::Gender, value);
        }
        let Some(column) = reference(name) else {
            return Ok(());
        };
        if let Some(id) = reference_id(name, value)? {
            self.values.text.insert(column, id.to_owned());
        }
        Ok(())
    }
}

/// References are written by `sys_id`. A manager who does not exist is refused (section 11.1); a
/// department, a company, a cost centre or a location that does not is left as it was, as one that
/// is given by name alone is (section 10).
fn resolve_references(values: &mut Values, directory: &Directory) -> Result<(), Refusal> {
    if let Some(id) = values.text.get(&Column::Manager)
        && !id.is_empty()
        && directory.user(id).is_none()
    {
        return Err(Refusal::invalid_value(format!("Invalid manager id {id}")));
    }
    values.text.retain(|column, id| match column.target() {
        Some(Target::Named(table)) => id.is_empty() || directory.name(table, id).is_some(),
        Some(Target::User) | None => true,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::super::super::column::{CORE_USER, ENTERPRISE_USER};
    use super::super::super::testbed::{Answered, Testbed};
    use super::*;

    fn created(bed: &Testbed, body: &Value) -> Answered {
        bed.write(Method::POST, "/Users", body)
    }

    fn minimal(name: &str) -> Value {
        json!({ "schemas": [CORE_USER], "userName": name })
    }

    fn refusal(answered: &Answered) -> (u16, &str) {
        (
            answered.status,
            answered.json["scimType"].as_str().unwrap_or_default(),
        )
    }

    #[test]
    fn what_is_created_is_shown_as_far_as_columns_keep_it() {
        let bed = Testbed::of(1);
        let manager = bed.sandbox.ids()[0].clone();
        let answered = created(
            &bed,
            &json!({
                "schemas": [CORE_USER, SERVICENOW_USER, ENTERPRISE_USER],
                "id": "mine", "meta": { "created": "2001-01-01T00:00:00Z" },
                "USERNAME": "ada", "name": { "givenName": "Ada", "formatted": "A. L." },
                "displayName": "Somebody else", "nickName": "A",
                "emails": [
                    { "value": "ada@example.org", "type": "work", "primary": true },
                    { "value": "ada@home.example", "type": "home" },
                ],
                "phoneNumbers": [{ "value": "1", "type": "mobile" }, { "value": "2", "type": "fax" }],
                "addresses": [{ "type": "home", "locality": "Oslo", "formatted": "Oslo" }],
                "userType": "x".repeat(50),
                SERVICENOW_USER: {
                    "manager": { "value": manager },
                    "department": { "name": "Platform Operations" },
                    "company": { "value": "no such company" },
                },
                ENTERPRISE_USER: { "department": "Platform Operations" },
            }),
        );
        assert_eq!(answered.status, 201, "{}", answered.json);
        let user = &answered.json;
        assert_ne!(user["id"], "mine");
        assert_eq!(user["meta"]["created"], "2026-03-01T08:00:00Z");
        assert_eq!(user["userName"], "ada");
        assert_eq!(user["name"], json!({ "givenName": "Ada" }));
        assert_eq!(user["displayName"], "Ada");
        assert_eq!(
            user["emails"],
            json!([{ "value": "ada@example.org", "type": "work" }])
        );
        assert_eq!(
            user["phoneNumbers"],
            json!([{ "value": "1", "type": "mobile" }])
        );
        assert_eq!(
            user["addresses"],
            json!([{ "type": "home", "locality": "Oslo" }])
        );
        assert_eq!(user["userType"].as_str().map(str::len), Some(40));
        let extension = user[SERVICENOW_USER].as_object().unwrap();
        assert_eq!(extension.keys().collect::<Vec<_>>(), ["manager"]);
        assert_eq!(extension["manager"]["value"], manager);
        assert!(user.get("nickName").is_none() && user.get(ENTERPRISE_USER).is_none());
        let place = answered.reply.headers["location"].to_str().unwrap();
        assert_eq!(Some(place), user["meta"]["location"].as_str());
    }

    #[test]
    fn what_the_platform_refuses_is_refused_in_its_words() {
        let bed = Testbed::of(0);
        assert_eq!(created(&bed, &minimal("Ada")).status, 201);
        let extension = json!({ "schemas": [CORE_USER], "userName": "b", SERVICENOW_USER: {} });
        let manager = json!({
            "schemas": [CORE_USER, SERVICENOW_USER], "userName": "b",
            SERVICENOW_USER: { "manager": { "value": "nobody" } },
        });
        for (body, expected) in [
            (minimal("aDA"), (409, "uniqueness")),
            (json!({ "userName": "b" }), (400, "invalidSyntax")),
            (json!([]), (400, "invalidSyntax")),
            (json!({ "schemas": [CORE_USER] }), (400, "invalidValue")),
            (extension, (400, "invalidSyntax")),
            (manager, (400, "invalidValue")),
            (
                json!({ "schemas": [CORE_USER], "userName": 7 }),
                (400, "invalidValue"),
            ),
            (
                json!({ "schemas": [CORE_USER], "userName": "b", "active": 1 }),
                (400, "invalidValue"),
            ),
            (
                json!({ "schemas": [CORE_USER], "userName": "b", "emails": [1] }),
                (400, "invalidValue"),
            ),
        ] {
            assert_eq!(refusal(&created(&bed, &body)), expected, "{body}");
        }
        let nobody = bed.write(Method::PUT, "/Users/nobody", &minimal("b"));
        assert_eq!(
            (nobody.status, nobody.json["detail"].as_str()),
            (404, Some("User not found nobody"))
        );
        let nobody = bed.ask(Method::DELETE, "/Users/nobody", &[], "");
        assert_eq!(
            (nobody.status, nobody.json["detail"].as_str()),
            (404, Some("Invalid user id nobody"))
        );
        let text = bed.ask(
            Method::POST,
            "/Users",
            &[("content-type", "text/plain")],
            "{}",
        );
        assert_eq!(
            (text.status, text.json["status"].as_str()),
            (415, Some("failure"))
        );
    }

    #[test]
    fn put_keeps_what_is_left_out_and_clears_what_is_null() {
        let bed = Testbed::of(0);
        let first = created(
            &bed,
            &json!({
                "schemas": [CORE_USER], "userName": "ada", "title": "One", "timezone": "ET",
                "phoneNumbers": [{ "value": "1", "type": "work" }, { "value": "2", "type": "home" }],
                "emails": [{ "value": "a@b" }],
            }),
        );
        let target = format!("/Users/{}", first.json["id"].as_str().unwrap());
        bed.pass(5);
        let second = bed.write(
            Method::PUT,
            &target,
            &json!({
                "schemas": [CORE_USER], "title": null, "emails": [],
                "phoneNumbers": [{ "value": "3", "type": "work" }],
            }),
        );
        assert_eq!(second.status, 200, "{}", second.json);
        assert_eq!(second.json["userName"], "ada");
        assert_eq!(second.json["timezone"], "ET");
        assert!(second.json.get("title").is_none() && second.json.get("emails").is_none());
        assert_eq!(
            second.json["phoneNumbers"],
            json!([{ "value": "3", "type": "work" }])
        );
        assert_eq!(second.json["meta"]["lastModified"], "2026-03-01T08:00:05Z");
    }

    #[test]
    fn a_stamp_moves_only_for_what_stands_in_sys_user() {
        let bed = Testbed::of(0);
        let first = created(&bed, &minimal("ada")).json;
        let target = format!("/Users/{}", first["id"].as_str().unwrap());
        bed.pass(60);
        for same in [
            json!({ "schemas": [CORE_USER], "userName": "ada" }),
            json!({ "schemas": [CORE_USER], "externalId": "x", "userType": "Temp" }),
        ] {
            let answered = bed.write(Method::PUT, &target, &same);
            assert_eq!(answered.json["meta"], first["meta"], "{same}");
        }
        assert_eq!(bed.get(&target).json["externalId"], "x");
        let moved = bed.write(
            Method::PUT,
            &target,
            &json!({ "schemas": [CORE_USER], "title": "T" }),
        );
        assert_eq!(moved.json["meta"]["lastModified"], "2026-03-01T08:01:00Z");
        assert_eq!(moved.json["meta"]["created"], first["meta"]["created"]);
    }

    #[test]
    fn a_deleted_user_is_gone_until_recovered() {
        let bed = Testbed::of(3);
        let id = bed.sandbox.ids()[1].clone();
        let before = bed.get(&format!("/Users/{id}")).json;
        assert_eq!(
            bed.ask(Method::DELETE, &format!("/Users/{id}"), &[], "")
                .status,
            204
        );
        assert_eq!(bed.get(&format!("/Users/{id}")).status, 404);
        assert_eq!(bed.list("").total(), 2);
        assert!(bed.sandbox.undelete(&id));
        assert_eq!(bed.get(&format!("/Users/{id}")).json, before);
    }
}
