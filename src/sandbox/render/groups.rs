//! Groups with their members, and users' memberships (facts page, sections 8.1 and 9.1).

use super::super::group::{CORE_GROUP, CUSTOM_GROUP, Group, SERVICENOW_GROUP};
use super::super::json::{self, Object};
use super::super::membership::{Member, MemberKind};
use super::super::row::User;
use super::super::table::Table;
use super::Renderer;

impl Renderer<'_> {
    /// Writes a group. All its members are there, however many, and nothing where there is none.
    pub(in super::super) fn group(&self, group: &Group, out: &mut Vec<u8>) {
        let Group {
            sys_id,
            name,
            company,
            external_id,
            created,
            updated,
        } = group;
        json::object(out, |o| {
            o.texts("schemas", &[CORE_GROUP, SERVICENOW_GROUP, CUSTOM_GROUP]);
            o.text("id", sys_id);
            if self.shows("externalId") {
                o.text("externalId", external_id);
            }
            self.meta(o, "Group", "Groups", sys_id, *created, *updated);
            if self.shows("displayName") {
                o.text("displayName", name);
            }
            if self.shows("members") {
                let members = self.directory.members(sys_id);
                o.each("members", members, |o, member| self.member(o, member));
            }
            if self.shows(SERVICENOW_GROUP) && !company.is_empty() {
                o.object(SERVICENOW_GROUP, |extension| {
                    let row = self.directory.name(Table::Company, company);
                    let label = row.map_or("", |row| &row.name);
                    let path = (SERVICENOW_GROUP, "company");
                    self.reference(extension, path, ("Companies", company), label);
                });
            }
        });
    }

    /// Who is gone has no name, and still a link.
    fn member(&self, o: &mut Object<'_>, member: &Member) {
        let endpoint = match member.kind {
            MemberKind::User => "Users",
            MemberKind::Group => "Groups",
        };
        let name = self.directory.member_name(member).unwrap_or_default();
        self.part(o, "members", '.', "value", &member.id);
        self.part(o, "members", '.', "display", &name);
        self.part(o, "members", '.', "$ref", &self.link(endpoint, &member.id));
    }

    /// Writes what a user is a member of, by himself or by a group that is nested in another.
    pub(super) fn groups_of(&self, o: &mut Object<'_>, user: &User) {
        let member = Member::user(&user.sys_id);
        let direct = self.directory.groups_of(&member);
        let around = self.directory.groups_around(&member);
        let direct = direct.into_iter().map(|group| ("direct", group));
        let around = around.into_iter().map(|group| ("indirect", group));
        o.each("groups", direct.chain(around), |o, (kind, group)| {
            let id = &group.sys_id;
            self.part(o, "groups", '.', "value", id);
            self.part(o, "groups", '.', "display", &group.name);
            self.part(o, "groups", '.', "type", kind);
            self.part(o, "groups", '.', "$ref", &self.link("Groups", id));
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::directory::Directory;
    use super::super::super::effect::Effect;
    use super::super::super::group::GroupValues;
    use super::super::super::row::{Named, Values};
    use super::super::super::testbed::Testbed;
    use super::super::super::{Column, Options};
    use super::super::Projection;
    use super::*;

    const NOOR: &str = "3f1c0a7e9b2d4e10aa51c0ffee00b201";
    const DESK: &str = "7e44b1d0c8f34a7fa6120badc0de0101";

    fn directory() -> Directory {
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let start = at("2023-05-16T09:41:00Z");
        let mut noor = User::new(NOOR, start);
        noor.set(
            &Values::new()
                .with(Column::FirstName, "Noor")
                .with(Column::LastName, "Valdimar"),
        );
        let company = Named {
            sys_id: "c1".into(),
            name: "Example Holding".into(),
            created: start,
            updated: start,
        };
        let mut desk = Group::new(DESK, start);
        desk.set(&GroupValues::named("Night Desk North"));
        desk.updated = at("2025-12-01T11:02:54Z");
        let mut outer = Group::new("outer", start);
        outer.set(&GroupValues {
            name: Some("Desks".into()),
            company: Some("c1".into()),
            external_id: Some("idp-7".into()),
        });
        let nobody = Member::user("gone/1");
        Directory::new(vec![noor], [(Table::Company, vec![company])].into()).with_groups(
            vec![desk, outer],
            vec![
                (DESK.into(), vec![Member::user(NOOR)]),
                ("outer".into(), vec![Member::group(DESK), nobody]),
            ],
        )
    }

    fn shown(id: &str) -> String {
        let directory = directory();
        let base = "https://example-dev.service-now.com/api/now/scim";
        let renderer = Renderer::new(&directory, base, &Projection::All, &[]);
        let mut out = Vec::new();
        renderer.group(directory.group(id).unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The example of the facts page's section 9.1, written as it writes it, less blanks; but with the third
    /// URN that real samples have.
    #[test]
    fn a_group_is_that_of_the_facts_page_to_the_byte() {
        assert_eq!(
            shown(DESK),
            concat!(
                r#"{"schemas":["urn:ietf:params:scim:schemas:core:2.0:Group","#,
                r#""urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group","#,
                r#""urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:Group"],"#,
                r#""id":"7e44b1d0c8f34a7fa6120badc0de0101","#,
                r#""meta":{"resourceType":"Group","created":"2023-05-16T09:41:00Z","#,
                r#""lastModified":"2025-12-01T11:02:54Z","location":"#,
                r#""https://example-dev.service-now.com/api/now/scim/Groups/7e44b1d0c8f34a7fa6120badc0de0101"},"#,
                r#""displayName":"Night Desk North","#,
                r#""members":[{"value":"3f1c0a7e9b2d4e10aa51c0ffee00b201","display":"Noor Valdimar","#,
                r#""$ref":"https://example-dev.service-now.com/api/now/scim/Users/3f1c0a7e9b2d4e10aa51c0ffee00b201"}]}"#,
            )
        );
    }

    #[test]
    fn a_nested_group_is_told_by_its_link_and_who_is_gone_has_no_name() {
        let group: Value = serde_json::from_str(&shown("outer")).unwrap();
        let base = "https://example-dev.service-now.com/api/now/scim";
        assert_eq!(group["externalId"], "idp-7");
        assert_eq!(
            group["members"],
            json!([
                {
                    "value": DESK, "display": "Night Desk North",
                    "$ref": format!("{base}/Groups/{DESK}"),
                },
                { "value": "gone/1", "$ref": format!("{base}/Users/gone%2F1") },
            ])
        );
        assert_eq!(
            group[SERVICENOW_GROUP],
            json!({ "company": {
                "value": "c1", "name": "Example Holding", "$ref": format!("{base}/Companies/c1"),
            } })
        );
    }

    #[test]
    fn members_are_whole_missing_or_left_out() {
        let bed = Testbed::with(Options {
            users: 700,
            groups: 10,
            largest_group: 650,
            odd: false,
            ..Options::default()
        });
        let page = bed.groups("count=500");
        let count = |group: &Value| group["members"].as_array().map(Vec::len);
        let counts: Vec<_> = page.rows().iter().map(count).collect();
        assert!(counts.contains(&Some(650)) && counts.contains(&None));
        assert!(!counts.contains(&Some(0)));
        let without = bed.groups("count=500&excludedAttributes=members");
        for (group, with) in without.rows().iter().zip(page.rows()) {
            let mut with = with.clone();
            with.as_object_mut().unwrap().remove("members");
            assert_eq!(*group, with);
        }
        assert!(without.reply.body.len() < page.reply.body.len() / 10);

        let urn = "urn:ietf:params:scim:schemas:core:2.0:Group:members";
        for query in [
            "count=500&attributes=members.value",
            &format!("count=500&attributes={urn}.value"),
        ] {
            let page = bed.groups(query);
            let n_members = page.rows().iter().filter_map(count);
            assert!(n_members.sum::<usize>() > 650, "{query}");
            for group in page.rows() {
                let keys: Vec<&String> = group.as_object().unwrap().keys().collect();
                let known = ["id", "members", "schemas"];
                assert!(
                    keys.iter().all(|key| known.contains(&key.as_str())),
                    "{keys:?}"
                );
                let members = group["members"].as_array().into_iter().flatten();
                assert!(
                    members
                        .into_iter()
                        .all(|one| one.as_object().unwrap().len() == 1)
                );
            }
        }
        // What members do not have leaves none of them.
        let none = bed.groups("attributes=members.type");
        assert!(
            none.rows()
                .iter()
                .all(|group| group.get("members").is_none())
        );
    }

    #[test]
    fn users_tell_their_memberships_when_they_are_asked() {
        let bed = Testbed::with(Options {
            users: 3,
            groups: 0,
            odd: false,
            ..Options::default()
        });
        let ids = bed.sandbox.ids();
        for (id, name) in [("a", "Inner"), ("b", "Middle"), ("c", "Outer")] {
            bed.sandbox.create_group_as(id, &GroupValues::named(name));
        }
        // In a circle, so that somebody is around it.
        for (group, member) in [
            ("a", Member::user(&ids[0])),
            ("b", Member::group("a")),
            ("c", Member::group("b")),
            ("a", Member::group("c")),
            ("c", Member::user(&ids[1])),
        ] {
            bed.sandbox.change_members(group, &[], &[member]);
        }
        let user = format!("/Users/{}", ids[0]);
        assert!(bed.get(&user).json.get("groups").is_none());
        let asked = bed.get(&format!("{user}?attributes=groups")).json;
        let groups = asked["groups"].as_array().unwrap();
        let told: Vec<(&str, &str, &str)> = groups
            .iter()
            .map(|group| {
                let text = |name: &str| group[name].as_str().unwrap();
                assert!(text("$ref").ends_with(&format!("/Groups/{}", text("value"))));
                (text("value"), text("display"), text("type"))
            })
            .collect();
        assert_eq!(
            told,
            [
                ("a", "Inner", "direct"),
                ("b", "Middle", "indirect"),
                ("c", "Outer", "indirect"),
            ]
        );
        let part = bed.get(&format!("{user}?attributes=groups.value")).json;
        assert_eq!(part["groups"][0], json!({ "value": "a" }));

        bed.fault(Effect::MembershipsShown);
        let page = bed.list("");
        let n_groups = |id: &str| {
            let user = page.rows().iter().find(|user| user["id"] == id).unwrap();
            user["groups"].as_array().map(Vec::len)
        };
        assert_eq!(n_groups(&ids[0]), Some(3));
        assert_eq!(n_groups(&ids[1]), Some(3));
        assert_eq!(n_groups(&ids[2]), None);
        let without = bed.get(&format!("{user}?excludedAttributes=groups")).json;
        assert!(without.get("groups").is_none());
    }
}
