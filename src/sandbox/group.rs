//! Groups: a row of `sys_user_group` with what belongs to it in `sys_scim_group`, and the SCIM paths
//! that filters and sorts know it by (facts page, sections 5.2, 6 and 9.1).

use jiff::Timestamp;

use super::column::{Attribute, Column, below_urn};
use super::directory::Directory;
use super::row::{at_most, whole_seconds};
use super::table::{Field, Record};

/// The core schema of groups: may stand before an attribute's name.
pub(super) const CORE_GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
/// The extension that ServiceNow shows.
pub(super) const SERVICENOW_GROUP: &str =
    "urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group";
/// The customer's own extension: named in `schemas`, and empty here.
pub(super) const CUSTOM_GROUP: &str =
    "urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:Group";

/// A group. Its members stand in a table of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// `sys_user_group.sys_id`.
    pub sys_id: Box<str>,
    /// `sys_user_group.name`: unique by rule.
    pub name: Box<str>,
    /// `sys_user_group.company`, a `sys_id`.
    pub company: Box<str>,
    /// `sys_scim_group.external_id`.
    pub external_id: Box<str>,
    /// `sys_created_on`, in whole seconds.
    pub created: Timestamp,
    /// `sys_updated_on`, in whole seconds.
    pub updated: Timestamp,
}

/// What a write, or an administrator, sets of a group. An empty text clears a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupValues {
    /// `name`.
    pub name: Option<String>,
    /// `company`.
    pub company: Option<String>,
    /// `external_id`.
    pub external_id: Option<String>,
}

impl GroupValues {
    /// A name, and nothing else.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            ..Self::default()
        }
    }
}

impl Group {
    /// A group with nothing but a key.
    #[must_use]
    pub fn new(sys_id: &str, now: Timestamp) -> Self {
        Self {
            sys_id: sys_id.into(),
            name: Box::default(),
            company: Box::default(),
            external_id: Box::default(),
            created: whole_seconds(now),
            updated: whole_seconds(now),
        }
    }

    /// Sets columns, and tells whether one of `sys_user_group` changed.
    pub(super) fn set(&mut self, values: &GroupValues) -> bool {
        let GroupValues {
            name,
            company,
            external_id,
        } = values;
        let mut counts = false;
        for (place, text) in [(&mut self.name, name), (&mut self.company, company)] {
            if let Some(text) = text
                && **place != **text
            {
                *place = text.as_str().into();
                counts = true;
            }
        }
        if let Some(text) = external_id {
            self.external_id = at_most(Column::ExternalId.max_chars(), text).into();
        }
        counts
    }
}

impl Record for Group {
    fn sys_id(&self) -> &str {
        &self.sys_id
    }

    fn field<'a>(&'a self, attribute: Attribute, _: &'a Directory) -> Field<'a> {
        match attribute {
            Attribute::Id => Field::text(&*self.sys_id),
            Attribute::Created => Field::Time(self.created),
            Attribute::LastModified => Field::Time(self.updated),
            Attribute::DisplayName => Field::text(&*self.name),
            Attribute::Plain(Column::ExternalId) => Field::text(&*self.external_id),
            Attribute::Active | Attribute::Plain(_) | Attribute::Label(_) => Field::Missing,
        }
    }

    fn filterable(path: &str) -> Option<Attribute> {
        let path = below_urn(path, CORE_GROUP).unwrap_or(path);
        match path.to_ascii_lowercase().as_str() {
            "id" => Some(Attribute::Id),
            "displayname" => Some(Attribute::DisplayName),
            "externalid" => Some(Attribute::Plain(Column::ExternalId)),
            "meta.created" => Some(Attribute::Created),
            "meta.lastmodified" => Some(Attribute::LastModified),
            _ => None,
        }
    }

    fn sortable(path: &str) -> Option<Attribute> {
        Self::filterable(path).filter(|found| *found != Attribute::Plain(Column::ExternalId))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Testbed;
    use super::super::{Member, Options};
    use super::*;

    fn bed(groups: usize) -> Testbed {
        Testbed::with(Options {
            users: 30,
            groups,
            odd: false,
            ..Options::default()
        })
    }

    #[test]
    fn groups_are_listed_by_the_rules_of_section_4() {
        let bed = bed(45);
        let page = bed.groups("");
        assert_eq!((page.total(), page.rows().len()), (45, 10));
        assert_eq!(page.json["startIndex"], 1);
        let all = bed.groups("count=500");
        assert!(all.ids().is_sorted() && all.ids().len() == 45);
        assert_eq!(bed.groups("startIndex=41&count=20").ids(), all.ids()[40..]);
        assert_eq!(bed.groups("startIndex=46").rows().len(), 0);
        assert_eq!(bed.groups("count=0").total(), 45);
        for refused in [
            "count=501",
            "sortBy=id",
            "sortBy=externalId&sortOrder=ascending",
            "sortBy=members&sortOrder=ascending",
            "attributes=id&excludedAttributes=members",
            r#"filter=members eq "x""#,
            r#"filter=externalId sw "x""#,
            r#"filter=userName eq "x""#,
            "filter=active eq true",
        ] {
            let answered = bed.get(&format!("/Groups?{refused}"));
            assert_eq!(answered.status, 400, "{refused}");
        }
        for row in all.rows() {
            assert_eq!(bed.group(row["id"].as_str().unwrap()), *row);
        }
        let missing = bed.get("/Groups/no%20such");
        assert_eq!(missing.json["detail"], "Group not found no such");
        // Users are no groups.
        let user = &bed.sandbox.ids()[0];
        assert_eq!(bed.get(&format!("/Groups/{user}")).status, 404);
    }

    #[test]
    fn groups_are_found_and_sorted_by_what_section_5_names() {
        let bed = bed(0);
        for (id, name, external) in [("1", "beta", "x"), ("2", "Alpha", ""), ("3", "gamma", "y")] {
            bed.sandbox.create_group_as(
                id,
                &GroupValues {
                    external_id: Some(external.into()),
                    ..GroupValues::named(name)
                },
            );
            bed.pass(10);
        }
        bed.sandbox.update_group("1", &GroupValues::named("Beta"));
        for (filter, ids) in [
            (r#"id gt "1""#, &["2", "3"][..]),
            (r#"displayName eq "BETA""#, &["1"]),
            (r#"displayName co "A" and id ne "3""#, &["1", "2"]),
            (
                r#"urn:ietf:params:scim:schemas:core:2.0:Group:displayName sw "g""#,
                &["3"],
            ),
            (r#"externalId eq "X""#, &["1"]),
            // Nothing to fall back to.
            (r#"externalId eq "beta""#, &[]),
            (
                r#"meta.lastModified gt "2026-03-01T08:00:10Z""#,
                &["1", "3"],
            ),
            (r#"meta.created le "2026-03-01T08:00:10Z""#, &["1", "2"]),
        ] {
            let found = bed.groups(&format!("filter={filter}"));
            assert_eq!(found.ids(), ids, "{filter}");
        }
        for (by, ids) in [
            ("id", ["1", "2", "3"]),
            ("displayName", ["2", "1", "3"]),
            ("meta.lastModified", ["2", "3", "1"]),
        ] {
            let up = bed.groups(&format!("sortBy={by}&sortOrder=ascending"));
            assert_eq!(up.ids(), ids, "{by}");
        }
    }

    /// Ids set by hand, in an order that is not that of their bytes, and one that is a user's as well.
    #[test]
    fn a_group_may_have_an_odd_id() {
        let bed = bed(0);
        let user = bed.sandbox.ids()[0].clone();
        let odd = ["_import.7", "A/b", "a/b", "é \"x\"", user.as_str()];
        for id in odd {
            bed.sandbox.create_group_as(id, &GroupValues::named(id));
        }
        let mut listed = bed.groups("count=500&sortBy=id&sortOrder=ascending");
        let place = |id: &str| listed.ids().iter().position(|one| *one == id).unwrap();
        assert_eq!(place("A/b") + 1, place("a/b"));
        listed = bed.groups(r#"filter=id eq "a/B""#);
        assert_eq!(listed.ids(), ["A/b", "a/b"]);
        let shown = bed.group("a%2Fb");
        assert_eq!(shown["displayName"], "a/b");
        let location = shown["meta"]["location"].as_str().unwrap();
        assert!(location.ends_with("/Groups/a%2Fb"), "{location}");

        // One id for two things: `$ref` tells which is meant.
        let both = [Member::user(&user), Member::group(&user)];
        bed.sandbox.change_members("a/b", &[], &both);
        let members = bed.group("a%2Fb")["members"].clone();
        assert_eq!(members[0]["value"], members[1]["value"]);
        assert!(members[0]["$ref"].as_str().unwrap().contains("/Users/"));
        assert!(members[1]["$ref"].as_str().unwrap().contains("/Groups/"));
    }
}
