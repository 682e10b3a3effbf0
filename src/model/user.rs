//! The columns of `users` and of `groups` that the canonical resource decides.

use super::id::ResourceType;

/// The text columns of `users` that are mapped from the resource, in the table's order.
pub const TEXT_COLUMNS: [&str; 24] = [
    "external_id",
    "user_name",
    "display_name",
    "given_name",
    "family_name",
    "email",
    "title",
    "department_id",
    "department",
    "manager_id",
    "manager",
    "cost_center_id",
    "cost_center",
    "company_id",
    "company",
    "location_id",
    "location",
    "employee_number",
    "user_type",
    "phone",
    "mobile_phone",
    "preferred_language",
    "locale",
    "timezone",
];

/// The text columns of `groups` that are mapped from the resource, in the table's order.
pub const GROUP_COLUMNS: [&str; 7] = [
    "external_id",
    "display_name",
    "description",
    "email",
    "manager_id",
    "manager",
    "type",
];

/// The text columns of the table of a resource; a membership has none that is mapped.
#[must_use]
pub fn text_columns(resource: ResourceType) -> &'static [&'static str] {
    match resource {
        ResourceType::User => &TEXT_COLUMNS,
        ResourceType::Group => &GROUP_COLUMNS,
        ResourceType::Membership => &[],
    }
}

/// The values of [`text_columns`], in their order; behind the last of them nothing.
pub type TextColumns = [Option<String>; TEXT_COLUMNS.len()];

/// The mapped columns of one user, or of one group: a pure function of the canonical resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserColumns {
    /// `active`; `None` when the resource does not say.
    pub active: Option<bool>,
    /// The other columns, in the order of [`text_columns`].
    pub text: TextColumns,
}

impl UserColumns {
    /// One text column of a user by its name; `None` for a name that is not mapped, too.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&str> {
        self.get_of(ResourceType::User, column)
    }

    /// The same of any resource.
    #[must_use]
    pub fn get_of(&self, resource: ResourceType, column: &str) -> Option<&str> {
        let mut columns = text_columns(resource).iter();
        let place = columns.position(|name| *name == column)?;
        self.text[place].as_deref()
    }
}
