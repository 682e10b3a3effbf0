//! Rows as the JSON that an instance shows: the order of samples, nothing for what has no value,
//! labels read at query time (facts page, sections 8 and 9).

mod groups;

use std::borrow::Cow;

use jiff::Timestamp;

use super::column::{CORE_USER, Column, SERVICENOW_USER};
use super::directory::Directory;
use super::effect::Effect;
use super::json::{self, Object};
use super::projection::Projection;
use super::row::{Named, User};
use super::table::Table;

/// What rendering needs beside the row.
#[derive(Clone, Copy)]
pub(super) struct Renderer<'a> {
    /// Where labels are read.
    directory: &'a Directory,
    /// `https://…/api/now/scim`: what links start with.
    base: &'a str,
    /// What is shown.
    projection: &'a Projection,
    /// Whether users show their memberships.
    memberships: bool,
}

impl<'a> Renderer<'a> {
    /// Shows what `projection` lets through. Memberships are in no sample of a user, so that they are
    /// left out unless they are asked for, or an effect shows them (section 8.1).
    pub(super) fn new(
        directory: &'a Directory,
        base: &'a str,
        projection: &'a Projection,
        effects: &[Effect],
    ) -> Self {
        let memberships = projection.names("groups") || effects.contains(&Effect::MembershipsShown);
        Self {
            directory,
            base,
            projection,
            memberships,
        }
    }
}

impl Renderer<'_> {
    /// Writes a user (section 8.5 gives the order).
    pub(super) fn user(&self, user: &User, out: &mut Vec<u8>) {
        json::object(out, |o| {
            o.texts("schemas", &[SERVICENOW_USER, CORE_USER]);
            o.text("id", &user.sys_id);
            self.column(o, "externalId", user, Column::ExternalId);
            self.meta(o, "User", "Users", &user.sys_id, user.created, user.updated);
            self.column(o, "userName", user, Column::UserName);
            if self.shows("name") {
                o.object("name", |name| {
                    self.part(name, "name", '.', "familyName", user.get(Column::LastName));
                    self.part(name, "name", '.', "givenName", user.get(Column::FirstName));
                    self.part(
                        name,
                        "name",
                        '.',
                        "middleName",
                        user.get(Column::MiddleName),
                    );
                    let prefix = user.get(Column::Introduction);
                    self.part(name, "name", '.', "honorificPrefix", prefix);
                });
            }
            if self.shows("displayName") {
                o.text("displayName", &user.name());
            }
            self.column(o, "title", user, Column::Title);
            self.column(o, "userType", user, Column::UserType);
            self.column(o, "preferredLanguage", user, Column::PreferredLanguage);
            self.column(o, "timezone", user, Column::TimeZone);
            if self.shows("active") {
                o.literal("active", user.active);
            }
            self.multi_valued(o, user);
            if self.memberships && self.shows("groups") {
                self.groups_of(o, user);
            }
            self.extension(o, user);
        });
    }

    /// Writes a company, a cost centre, a department or a location.
    pub(super) fn named(&self, table: Table, row: &Named, out: &mut Vec<u8>) {
        json::object(out, |o| {
            o.texts("schemas", &[table.schema()]);
            o.text("id", &row.sys_id);
            self.meta(
                o,
                table.resource_type(),
                table.endpoint(),
                &row.sys_id,
                row.created,
                row.updated,
            );
            if self.shows("name") {
                o.text("name", &row.name);
            }
        });
    }

    fn meta(
        &self,
        o: &mut Object<'_>,
        resource_type: &str,
        endpoint: &str,
        id: &str,
        created: Timestamp,
        updated: Timestamp,
    ) {
        if !self.shows("meta") {
            return;
        }
        o.object("meta", |meta| {
            self.part(meta, "meta", '.', "resourceType", resource_type);
            self.part(meta, "meta", '.', "created", &created.to_string());
            self.part(meta, "meta", '.', "lastModified", &updated.to_string());
            self.part(meta, "meta", '.', "location", &self.link(endpoint, id));
        });
    }

    fn multi_valued(&self, o: &mut Object<'_>, user: &User) {
        let typed = |attribute: &'static str, kind: &'static str, column: Column| {
            move |one: &mut Object<'_>| {
                let value = user.get(column);
                if !value.is_empty() {
                    self.part(one, attribute, '.', "value", value);
                    self.part(one, attribute, '.', "type", kind);
                }
            }
        };
        if self.shows("emails") {
            o.objects("emails", &[&typed("emails", "work", Column::Email)]);
        }
        if self.shows("phoneNumbers") {
            o.objects(
                "phoneNumbers",
                &[
                    &typed("phoneNumbers", "work", Column::Phone),
                    &typed("phoneNumbers", "home", Column::HomePhone),
                    &typed("phoneNumbers", "mobile", Column::MobilePhone),
                ],
            );
        }
        if self.shows("addresses") {
            let parts = [
                ("streetAddress", Column::Street),
                ("locality", Column::City),
                ("region", Column::State),
                ("postalCode", Column::Zip),
                ("country", Column::Country),
            ];
            if parts
                .iter()
                .any(|(_, column)| !user.get(*column).is_empty())
            {
                o.objects(
                    "addresses",
                    &[&|one: &mut Object<'_>| {
                        self.part(one, "addresses", '.', "type", "home");
                        for (name, column) in parts {
                            self.part(one, "addresses", '.', name, user.get(column));
                        }
                    }],
                );
            }
        }
    }

    fn extension(&self, o: &mut Object<'_>, user: &User) {
        if !self.shows(SERVICENOW_USER) {
            return;
        }
        o.object(SERVICENOW_USER, |extension| {
            for (name, column) in [
                ("employeeNumber", Column::EmployeeNumber),
                ("gender", Column::Gender),
            ] {
                self.part(extension, SERVICENOW_USER, ':', name, user.get(column));
            }
            for (name, column, endpoint) in [
                ("costCenter", Column::CostCenter, "CostCenters"),
                ("company", Column::Company, "Companies"),
                ("department", Column::Department, "Departments"),
                ("manager", Column::Manager, "Users"),
                ("location", Column::Location, "Locations"),
            ] {
                let id = user.get(column);
                if !id.is_empty() {
                    let label = self.directory.label(user, column).unwrap_or_default();
                    let path = (SERVICENOW_USER, name);
                    self.reference(extension, path, (endpoint, id), &label);
                }
            }
        });
    }

    /// What points to another record: its id, its label, its link.
    fn reference(
        &self,
        extension: &mut Object<'_>,
        (urn, name): (&str, &str),
        (endpoint, id): (&str, &str),
        label: &str,
    ) {
        let path = match self.projection {
            Projection::All => String::new(),
            _ => format!("{urn}:{name}"),
        };
        if !self.shows(&path) {
            return;
        }
        let label_name = if name == "manager" {
            "displayName"
        } else {
            "name"
        };
        extension.object(name, |reference| {
            self.part(reference, &path, '.', "value", id);
            self.part(reference, &path, '.', label_name, label);
            self.part(reference, &path, '.', "$ref", &self.link(endpoint, id));
        });
    }

    fn column(&self, o: &mut Object<'_>, name: &str, user: &User, column: Column) {
        if self.shows(name) {
            o.text(name, user.get(column));
        }
    }

    fn part(&self, o: &mut Object<'_>, whole: &str, separator: char, name: &str, text: &str) {
        let all = *self.projection == Projection::All;
        if all || self.shows(&format!("{whole}{separator}{name}")) {
            o.text(name, text);
        }
    }

    fn link(&self, endpoint: &str, id: &str) -> String {
        format!("{}/{endpoint}/{}", self.base, segment(id))
    }

    fn shows(&self, path: &str) -> bool {
        self.projection.shows(path)
    }
}

/// An id as one segment of a path.
fn segment(id: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if id.bytes().all(is_plain) {
        return Cow::Borrowed(id);
    }
    id.bytes()
        .map(|byte| {
            if is_plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::row::Values;
    use super::super::testbed::Testbed;
    use super::*;

    fn directory() -> Directory {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut noor = User::new("3f1c0a7e9b2d4e10aa51c0ffee00b201", Timestamp::UNIX_EPOCH);
        noor.set(
            &Values::new()
                .with(Column::ExternalId, "hr-88412")
                .with(Column::UserName, "noor.valdimar")
                .with(Column::LastName, "Valdimar")
                .with(Column::FirstName, "Noor")
                .with(Column::Title, "Reliability Engineer II")
                .with(Column::UserType, "Employee")
                .with(Column::PreferredLanguage, "en")
                .with(Column::TimeZone, "Europe/Oslo")
                .with(Column::Email, "noor.valdimar@example.org")
                .with(Column::Phone, "+47 555 01 12")
                .with(Column::MobilePhone, "+47 555 09 90")
                .with(Column::EmployeeNumber, "E-20417")
                .with(Column::Department, "5b0d3c1f7a114c2f8d1e0badc0de0007")
                .with(Column::Manager, "91aa77d0c1e24d0fb7e20badc0de0031"),
        );
        noor.created = at("2024-11-04T07:15:22Z");
        noor.updated = at("2026-02-27T16:40:09Z");
        let mut machine = User::new("3f1c0a7e9b2d4e10aa51c0ffee00b2f8", Timestamp::UNIX_EPOCH);
        machine.set(
            &Values::new()
                .with(Column::UserName, "svc.inventory")
                .active(false),
        );
        machine.created = at("2019-06-30T23:59:59Z");
        machine.updated = at("2019-06-30T23:59:59Z");
        let mut manager = User::new("91aa77d0c1e24d0fb7e20badc0de0031", Timestamp::UNIX_EPOCH);
        manager.set(
            &Values::new()
                .with(Column::FirstName, "Ilse")
                .with(Column::LastName, "Okonkwo-Brandt"),
        );
        let department = Named {
            sys_id: "5b0d3c1f7a114c2f8d1e0badc0de0007".into(),
            name: "Platform Operations".into(),
            created: at("2021-03-02T10:00:41Z"),
            updated: at("2025-09-18T12:33:07Z"),
        };
        Directory::new(
            vec![noor, machine, manager],
            [(Table::Department, vec![department])].into(),
        )
    }

    /// The examples of the facts page's sections 7 and 9.2, written as it writes them, less blanks.
    #[test]
    fn resources_are_those_of_the_facts_page_to_the_byte() {
        let directory = directory();
        let base = "https://example-dev.service-now.com/api/now/scim";
        let renderer = Renderer::new(&directory, base, &Projection::All, &[]);
        let shown = |id: &str| {
            let mut out = Vec::new();
            renderer.user(directory.user(id).unwrap(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            shown("3f1c0a7e9b2d4e10aa51c0ffee00b201"),
            concat!(
                r#"{"schemas":["urn:ietf:params:scim:schemas:extension:servicenow:2.0:User","#,
                r#""urn:ietf:params:scim:schemas:core:2.0:User"],"#,
                r#""id":"3f1c0a7e9b2d4e10aa51c0ffee00b201","externalId":"hr-88412","#,
                r#""meta":{"resourceType":"User","created":"2024-11-04T07:15:22Z","#,
                r#""lastModified":"2026-02-27T16:40:09Z","location":"#,
                r#""https://example-dev.service-now.com/api/now/scim/Users/3f1c0a7e9b2d4e10aa51c0ffee00b201"},"#,
                r#""userName":"noor.valdimar","name":{"familyName":"Valdimar","givenName":"Noor"},"#,
                r#""displayName":"Noor Valdimar","title":"Reliability Engineer II","#,
                r#""userType":"Employee","preferredLanguage":"en","timezone":"Europe/Oslo","#,
                r#""active":true,"emails":[{"value":"noor.valdimar@example.org","type":"work"}],"#,
                r#""phoneNumbers":[{"value":"+47 555 01 12","type":"work"},"#,
                r#"{"value":"+47 555 09 90","type":"mobile"}],"#,
                r#""urn:ietf:params:scim:schemas:extension:servicenow:2.0:User":{"#,
                r#""employeeNumber":"E-20417","#,
                r#""department":{"value":"5b0d3c1f7a114c2f8d1e0badc0de0007","name":"Platform Operations","#,
                r#""$ref":"https://example-dev.service-now.com/api/now/scim/Departments/5b0d3c1f7a114c2f8d1e0badc0de0007"},"#,
                r#""manager":{"value":"91aa77d0c1e24d0fb7e20badc0de0031","displayName":"Ilse Okonkwo-Brandt","#,
                r#""$ref":"https://example-dev.service-now.com/api/now/scim/Users/91aa77d0c1e24d0fb7e20badc0de0031"}}}"#,
            )
        );
        assert_eq!(
            shown("3f1c0a7e9b2d4e10aa51c0ffee00b2f8"),
            concat!(
                r#"{"schemas":["urn:ietf:params:scim:schemas:extension:servicenow:2.0:User","#,
                r#""urn:ietf:params:scim:schemas:core:2.0:User"],"#,
                r#""id":"3f1c0a7e9b2d4e10aa51c0ffee00b2f8","#,
                r#""meta":{"resourceType":"User","created":"2019-06-30T23:59:59Z","#,
                r#""lastModified":"2019-06-30T23:59:59Z","location":"#,
                r#""https://example-dev.service-now.com/api/now/scim/Users/3f1c0a7e9b2d4e10aa51c0ffee00b2f8"},"#,
                r#""userName":"svc.inventory","displayName":"svc.inventory","active":false}"#,
            )
        );
        let mut out = Vec::new();
        let department = &directory.named(Table::Department)[0];
        renderer.named(Table::Department, department, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"schemas":["urn:ietf:params:scim:schemas:custom:servicenow:2.0:Department"],"#,
                r#""id":"5b0d3c1f7a114c2f8d1e0badc0de0007","#,
                r#""meta":{"resourceType":"Department","created":"2021-03-02T10:00:41Z","#,
                r#""lastModified":"2025-09-18T12:33:07Z","location":"#,
                r#""https://example-dev.service-now.com/api/now/scim/Departments/5b0d3c1f7a114c2f8d1e0badc0de0007"},"#,
                r#""name":"Platform Operations"}"#,
            )
        );
    }

    #[test]
    fn a_renamed_department_shows_in_members_whose_stamps_stay() {
        let bed = Testbed::of(100);
        let page = bed.list("count=500");
        let extension = |user: &serde_json::Value| user[SERVICENOW_USER].clone();
        let member = page
            .rows()
            .iter()
            .find(|user| !extension(user)["department"].is_null())
            .unwrap();
        let id = extension(member)["department"]["value"]
            .as_str()
            .unwrap()
            .to_owned();
        bed.pass(60);
        assert!(bed.sandbox.rename(Table::Department, &id, "Renamed"));
        let now = bed
            .get(&format!("/Users/{}", member["id"].as_str().unwrap()))
            .json;
        assert_eq!(extension(&now)["department"]["name"], "Renamed");
        assert_eq!(now["meta"], member["meta"]);
        let filter = format!(r#"filter={SERVICENOW_USER}:department.name eq "renamed"&count=500"#);
        assert!(bed.list(&filter).total() > 0);
        // A deleted one leaves the id without a label.
        assert!(bed.sandbox.delete_name(Table::Department, &id));
        let now = bed
            .get(&format!("/Users/{}", member["id"].as_str().unwrap()))
            .json;
        assert_eq!(extension(&now)["department"]["value"], id);
        assert!(extension(&now)["department"].get("name").is_none());
    }

    #[test]
    fn only_what_is_asked_for_is_shown_beside_schemas_and_id() {
        let bed = Testbed::of(30);
        let chosen = format!(
            "attributes=userName,name.givenName,emails.value,{SERVICENOW_USER}:department.value&count=30"
        );
        for user in bed.list(&chosen).rows() {
            let user = user.as_object().unwrap();
            for key in user.keys() {
                assert!(
                    [
                        "schemas",
                        "id",
                        "userName",
                        "name",
                        "emails",
                        SERVICENOW_USER
                    ]
                    .contains(&key.as_str()),
                    "{key}"
                );
            }
            if let Some(name) = user.get("name") {
                assert!(name.get("givenName").is_some() && name.get("familyName").is_none());
            }
            if let Some(emails) = user.get("emails") {
                assert!(emails[0].get("type").is_none());
            }
        }
        let without = bed.list("excludedAttributes=meta%2C%20emails%2Cid&count=30");
        for user in without.rows() {
            assert!(user.get("meta").is_none() && user.get("emails").is_none());
            assert!(user["id"].is_string() && user["active"].is_boolean());
        }
    }
}
