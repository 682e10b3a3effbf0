//! Rows of the tables: a user with all its columns, a name with its key, and values to be set.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::column::{Attribute, Column, filterable, sortable};
use super::directory::Directory;
use super::table::{Field, Record};

/// A row of `sys_user`, with what belongs to it in `sys_scim_user`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// `sys_id`.
    pub sys_id: Box<str>,
    /// `active`.
    pub active: bool,
    /// `sys_created_on`, in whole seconds.
    pub created: Timestamp,
    /// `sys_updated_on`, in whole seconds.
    pub updated: Timestamp,
    text: [Box<str>; Column::COUNT],
}

/// A row of a table of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `sys_id`.
    pub sys_id: Box<str>,
    /// `name`; not unique.
    pub name: Box<str>,
    /// `sys_created_on`.
    pub created: Timestamp,
    /// `sys_updated_on`.
    pub updated: Timestamp,
}

/// Values for columns: what a write, or an administrator, sets. An empty text clears a column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// `active`.
    pub active: Option<bool>,
    /// Text columns.
    pub text: BTreeMap<Column, String>,
}

impl Values {
    /// Nothing set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a column.
    #[must_use]
    pub fn with(mut self, column: Column, text: impl Into<String>) -> Self {
        self.text.insert(column, text.into());
        self
    }

    /// Sets `active`.
    #[must_use]
    pub fn active(mut self, active: bool) -> Self {
        self.active = Some(active);
        self
    }
}

impl User {
    /// A user with nothing but a key.
    #[must_use]
    pub fn new(sys_id: &str, now: Timestamp) -> Self {
        Self {
            sys_id: sys_id.into(),
            active: true,
            created: whole_seconds(now),
            updated: whole_seconds(now),
            text: std::array::from_fn(|_| Box::default()),
        }
    }

    /// A column, empty where there is no value.
    #[must_use]
    pub fn get(&self, column: Column) -> &str {
        &self.text[column as usize]
    }

    /// Sets columns, and tells whether one of `sys_user` changed.
    pub(super) fn set(&mut self, values: &Values) -> bool {
        let mut counts = false;
        if let Some(active) = values.active {
            counts |= self.active != active;
            self.active = active;
        }
        for (&column, text) in &values.text {
            let text = at_most(column.max_chars(), text);
            let place = &mut self.text[column as usize];
            if **place != *text {
                *place = text.into();
                counts |= !column.is_scim_only();
            }
        }
        counts
    }

    /// `sys_user.name`: computed from the parts, or the user name where there are none (facts page,
    /// Q29).
    #[must_use]
    pub fn name(&self) -> String {
        let parts = [Column::FirstName, Column::MiddleName, Column::LastName];
        let mut name = String::new();
        for part in parts.map(|column| self.get(column)) {
            if !part.is_empty() {
                if !name.is_empty() {
                    name.push(' ');
                }
                name.push_str(part);
            }
        }
        if name.is_empty() {
            name.push_str(self.get(Column::UserName));
        }
        name
    }
}

impl Record for User {
    fn sys_id(&self) -> &str {
        &self.sys_id
    }

    fn field<'a>(&'a self, attribute: Attribute, directory: &'a Directory) -> Field<'a> {
        match attribute {
            Attribute::Id => Field::text(&*self.sys_id),
            Attribute::Active => Field::Flag(self.active),
            Attribute::Created => Field::Time(self.created),
            Attribute::LastModified => Field::Time(self.updated),
            Attribute::DisplayName => Field::text(self.name()),
            Attribute::Plain(column) => Field::text(self.get(column)),
            Attribute::Label(column) => directory
                .label(self, column)
                .map_or(Field::Missing, Field::text),
        }
    }

    fn filterable(path: &str) -> Option<Attribute> {
        filterable(path)
    }

    fn sortable(path: &str) -> Option<Attribute> {
        sortable(path)
    }
}

impl Record for Named {
    fn sys_id(&self) -> &str {
        &self.sys_id
    }

    fn field<'a>(&'a self, attribute: Attribute, _: &'a Directory) -> Field<'a> {
        match attribute {
            Attribute::Id => Field::text(&*self.sys_id),
            Attribute::Created => Field::Time(self.created),
            Attribute::LastModified => Field::Time(self.updated),
            Attribute::DisplayName => Field::text(&*self.name),
            Attribute::Active | Attribute::Plain(_) | Attribute::Label(_) => Field::Missing,
        }
    }

    /// `name` is the attribute, `displayName` is what the documentation filters by (section 5.2).
    fn filterable(path: &str) -> Option<Attribute> {
        match path.to_ascii_lowercase().as_str() {
            "id" => Some(Attribute::Id),
            "name" | "displayname" => Some(Attribute::DisplayName),
            "meta.created" => Some(Attribute::Created),
            "meta.lastmodified" => Some(Attribute::LastModified),
            _ => None,
        }
    }

    fn sortable(path: &str) -> Option<Attribute> {
        Self::filterable(path)
    }
}

/// The start of a text, as long as its column is.
pub(super) fn at_most(most: Option<usize>, text: &str) -> &str {
    let end = most.and_then(|most| text.char_indices().nth(most));
    end.map_or(text, |(end, _)| &text[..end])
}

/// Stamps have a resolution of one second (facts page, section 15).
#[must_use]
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    let part = i64::from(time.subsec_nanosecond());
    time - SignedDuration::from_nanos(part)
}
