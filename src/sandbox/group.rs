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
