//! Users and groups, the resource types that can be written: what listing, showing and writing need to
//! know of each.

use std::sync::Arc;

use jiff::Timestamp;

use super::Options;
use super::column::{CORE_USER, Column, SERVICENOW_USER};
use super::directory::Directory;
use super::error::Refusal;
use super::filter::Filter;
use super::group::{CORE_GROUP, Group, GroupValues, SERVICENOW_GROUP};
use super::query::{Found, Sort, find, find_users};
use super::render::Renderer;
use super::row::{User, Values};
use super::table::Record;
use super::write::{Draft, write_group, write_user};

/// A resource type and its rows.
pub(super) trait Resource: Record + Clone {
    /// What `meta.resourceType` calls it.
    const TYPE: &'static str;
    /// Its endpoint below the SCIM path.
    const ENDPOINT: &'static str;
    /// Its core schema.
    const CORE: &'static str;
    /// ServiceNow's extension of it.
    const EXTENSION: &'static str;
    /// Members, and what a customised answer may have in them where there is no value (Q34).
    const EMPTY_FORMS: &'static [(&'static str, &'static str)];

    /// All rows, in the order of their keys.
    fn rows(directory: &Directory) -> &[Arc<Self>];

    /// Finds what a list request asks for.
    fn find<'a>(
        directory: &'a Directory,
        filter: Option<&Filter>,
        sort: Option<Sort>,
        visible: Option<&dyn Fn(&Self) -> bool>,
    ) -> Found<'a, Self> {
        find(Self::rows(directory), directory, filter, sort, visible)
    }

    /// Whether rules may hide it because it is inactive.
    fn is_active(&self) -> bool;

    /// The same with another title; of what has none, with another name.
    #[must_use]
    fn titled(&self, title: &str) -> Self;

    /// Writes it as it stands.
    fn show(&self, renderer: &Renderer<'_>, out: &mut Vec<u8>);

    /// Creates or changes one as a body says, and gives what it is then.
    ///
    /// # Errors
    /// What the platform refuses (facts page, sections 10 and 11.1).
    fn write(draft: Draft<'_>) -> Result<Arc<Self>, Refusal>;

    /// Whether a PATCH is answered with 204 (facts page, section 10).
    fn patches_in_silence(_: &Options) -> bool {
        false
    }

    /// Deletes one for good. `false` if there is none with this key.
    fn delete(directory: &mut Directory, id: &str, now: Timestamp) -> bool;
}

impl Resource for User {
    const TYPE: &'static str = "User";
    const ENDPOINT: &'static str = "Users";
    const CORE: &'static str = CORE_USER;
    const EXTENSION: &'static str = SERVICENOW_USER;
    const EMPTY_FORMS: &'static [(&'static str, &'static str)] = &[
        ("externalId", r#""""#),
        ("title", "null"),
        ("name", "{}"),
        ("emails", "[]"),
        ("phoneNumbers", "null"),
        ("addresses", "[]"),
        (SERVICENOW_USER, "{}"),
    ];

    fn rows(directory: &Directory) -> &[Arc<Self>] {
        directory.users()
    }

    fn find<'a>(
        directory: &'a Directory,
        filter: Option<&Filter>,
        sort: Option<Sort>,
        visible: Option<&dyn Fn(&Self) -> bool>,
    ) -> Found<'a, Self> {
        find_users(directory, filter, sort, visible)
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn titled(&self, title: &str) -> Self {
        let mut other = self.clone();
        other.set(&Values::new().with(Column::Title, title));
        other
    }

    fn show(&self, renderer: &Renderer<'_>, out: &mut Vec<u8>) {
        renderer.user(self, out);
    }

    fn write(draft: Draft<'_>) -> Result<Arc<Self>, Refusal> {
        write_user(draft)
    }

    fn delete(directory: &mut Directory, id: &str, now: Timestamp) -> bool {
        directory.delete(id, now)
    }
}

impl Resource for Group {
    const TYPE: &'static str = "Group";
    const ENDPOINT: &'static str = "Groups";
    const CORE: &'static str = CORE_GROUP;
    const EXTENSION: &'static str = SERVICENOW_GROUP;
    const EMPTY_FORMS: &'static [(&'static str, &'static str)] = &[
        ("externalId", r#""""#),
        ("members", "[]"),
        (SERVICENOW_GROUP, "{}"),
    ];

    fn rows(directory: &Directory) -> &[Arc<Self>] {
        directory.groups()
    }

    fn is_active(&self) -> bool {
        true
    }

    fn titled(&self, title: &str) -> Self {
        let mut other = self.clone();
        other.set(&GroupValues::named(title));
        other
    }

    fn show(&self, renderer: &Renderer<'_>, out: &mut Vec<u8>) {
        renderer.group(self, out);
    }

    fn write(draft: Draft<'_>) -> Result<Arc<Self>, Refusal> {
        write_group(draft)
    }

    fn patches_in_silence(options: &Options) -> bool {
        options.group_patch_no_content
    }

    fn delete(directory: &mut Directory, id: &str, now: Timestamp) -> bool {
        directory.delete_group(id, now)
    }
}
