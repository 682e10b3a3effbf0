//! The columns of `users` that a user's canonical resource decides.

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

/// The values of [`TEXT_COLUMNS`], in their order.
pub type TextColumns = [Option<String>; TEXT_COLUMNS.len()];

/// The mapped columns of one user: a pure function of the canonical resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserColumns {
    /// `active`; `None` when the resource does not say.
    pub active: Option<bool>,
    /// The other columns, in the order of [`TEXT_COLUMNS`].
    pub text: TextColumns,
}

impl UserColumns {
    /// One text column by its name; `None` for a name that is not mapped, too.
    #[must_use]
    pub fn get(&self, column: &str) -> Option<&str> {
        let place = TEXT_COLUMNS.iter().position(|name| *name == column)?;
        self.text[place].as_deref()
    }
}
