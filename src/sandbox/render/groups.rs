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
