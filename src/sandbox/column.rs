//! The columns of `sys_user` and `sys_scim_user` that SCIM shows, and the SCIM paths that filters
//! and sorts know them by (facts page, sections 5.2, 6 and 8.1).

use super::table::Table;

/// A text column of a user. `active` and the stamps are fields of their own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// `sys_user.user_name`.
    UserName,
    /// `sys_user.first_name`.
    FirstName,
    /// `sys_user.middle_name`.
    MiddleName,
    /// `sys_user.last_name`.
    LastName,
    /// `sys_user.introduction`, the honorific prefix.
    Introduction,
    /// `sys_user.title`.
    Title,
    /// `sys_user.preferred_language`.
    PreferredLanguage,
    /// `sys_user.time_zone`.
    TimeZone,
    /// `sys_user.email`.
    Email,
    /// `sys_user.phone`.
    Phone,
    /// `sys_user.home_phone`.
    HomePhone,
    /// `sys_user.mobile_phone`.
    MobilePhone,
    /// `sys_user.street`.
    Street,
    /// `sys_user.city`.
    City,
    /// `sys_user.state`.
    State,
    /// `sys_user.zip`.
    Zip,
    /// `sys_user.country`.
    Country,
    /// `sys_user.employee_number`.
    EmployeeNumber,
    /// `sys_user.gender`.
    Gender,
    /// `sys_user.cost_center`, a `sys_id`.
    CostCenter,
    /// `sys_user.company`, a `sys_id`.
    Company,
    /// `sys_user.department`, a `sys_id`.
    Department,
    /// `sys_user.manager`, a `sys_id`.
    Manager,
    /// `sys_user.location`, a `sys_id`.
    Location,
    /// `sys_scim_user.external_id`.
    ExternalId,
    /// `sys_scim_user`'s user type.
    UserType,
}

impl Column {
    /// How many there are: `UserType` is the last.
    pub const COUNT: usize = Self::UserType as usize + 1;

    /// Whether the column stands in `sys_scim_user`, whose changes move no stamp of `sys_user`.
    #[must_use]
    pub fn is_scim_only(self) -> bool {
        matches!(self, Self::ExternalId | Self::UserType)
    }

    /// The most characters that the column keeps, where that is known: a longer text is cut, as
    /// the length validation is off unless somebody turns it on (facts page, section 2).
    #[must_use]
    pub fn max_chars(self) -> Option<usize> {
        match self {
            Self::ExternalId => Some(255),
            Self::UserType => Some(40),
            _ => None,
        }
    }

    /// The table that a reference column points into; managers point into `sys_user` itself.
    #[must_use]
    pub fn target(self) -> Option<Target> {
        match self {
            Self::CostCenter => Some(Target::Named(Table::CostCenter)),
            Self::Company => Some(Target::Named(Table::Company)),
            Self::Department => Some(Target::Named(Table::Department)),
            Self::Location => Some(Target::Named(Table::Location)),
            Self::Manager => Some(Target::User),
            _ => None,
        }
    }
}

/// Where a reference column points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Into `sys_user`.
    User,
    /// Into one of the tables of names.
    Named(Table),
}

/// What a filter or a sort can speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attribute {
    /// `id`.
    Id,
    /// `active`.
    Active,
    /// `meta.created`.
    Created,
    /// `meta.lastModified`.
    LastModified,
    /// `displayName`; the name of what is not a user.
    DisplayName,
    /// A column, as it is: of a reference the `sys_id`.
    Plain(Column),
    /// The label of what a reference column points to.
    Label(Column),
}

/// The core schema of users: may stand before an attribute's name.
pub(super) const CORE_USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// The extension that ServiceNow shows.
pub(super) const SERVICENOW_USER: &str =
    "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
/// The extension that ServiceNow advertises, accepts and does not store.
pub(super) const ENTERPRISE_USER: &str =
    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

/// Cuts `urn:` off a path, without regard to case; `None` if the path does not start with it.
#[must_use]
pub(super) fn below_urn<'a>(path: &'a str, urn: &str) -> Option<&'a str> {
    let head = path.get(..urn.len())?;
    head.eq_ignore_ascii_case(urn)
        .then(|| path.get(urn.len()..)?.strip_prefix(':'))?
}

/// What a user can be filtered by under this path (facts page, section 5.2).
#[must_use]
pub(super) fn filterable(path: &str) -> Option<Attribute> {
    if let Some(rest) = below_urn(path, SERVICENOW_USER) {
        return extension(rest);
    }
    let core = below_urn(path, CORE_USER).unwrap_or(path);
    let attribute = match core.to_ascii_lowercase().as_str() {
        "id" => Attribute::Id,
        "active" => Attribute::Active,
        "meta.created" => Attribute::Created,
        "meta.lastmodified" => Attribute::LastModified,
        "displayname" => Attribute::DisplayName,
        "externalid" => Attribute::Plain(Column::ExternalId),
        "username" => Attribute::Plain(Column::UserName),
        "title" => Attribute::Plain(Column::Title),
        "timezone" => Attribute::Plain(Column::TimeZone),
        "preferredlanguage" => Attribute::Plain(Column::PreferredLanguage),
        "name.familyname" => Attribute::Plain(Column::LastName),
        "name.givenname" => Attribute::Plain(Column::FirstName),
        "name.middlename" => Attribute::Plain(Column::MiddleName),
        _ => return None,
    };
    Some(attribute)
}

/// What a user can be sorted by under this path (facts page, section 6): everything filterable but
/// `externalId`, and some dotted forms.
#[must_use]
pub(super) fn sortable(path: &str) -> Option<Attribute> {
    let column = match path.to_ascii_lowercase().as_str() {
        "externalid" => return None,
        "emails.value" | "emails.work.value" => Column::Email,
        "phonenumbers.value" | "phonenumbers.work.value" => Column::Phone,
        "phonenumbers.home.value" => Column::HomePhone,
        "phonenumbers.mobile.value" => Column::MobilePhone,
        "addresses.streetaddress" | "addresses.home.streetaddress" => Column::Street,
        "addresses.locality" | "addresses.home.locality" => Column::City,
        "addresses.region" | "addresses.home.region" => Column::State,
        "addresses.postalcode" | "addresses.home.postalcode" => Column::Zip,
        "addresses.country" | "addresses.home.country" => Column::Country,
        _ => {
            return filterable(path).filter(|found| *found != Attribute::Plain(Column::ExternalId));
        }
    };
    Some(Attribute::Plain(column))
}

/// The column behind one value of a multi-valued attribute: `emails` of type `work`, and so on.
/// `sub` is the sub-attribute. ServiceNow keeps these types and no others (facts page, 8.1).
#[must_use]
pub(super) fn multi_valued(attribute: &str, kind: &str, sub: &str) -> Option<Column> {
    let key = (
        attribute.to_ascii_lowercase(),
        kind.to_ascii_lowercase(),
        sub.to_ascii_lowercase(),
    );
    match (key.0.as_str(), key.1.as_str(), key.2.as_str()) {
        ("emails", "work", "value") => Some(Column::Email),
        ("phonenumbers", "work", "value") => Some(Column::Phone),
        ("phonenumbers", "home", "value") => Some(Column::HomePhone),
        ("phonenumbers", "mobile", "value") => Some(Column::MobilePhone),
        ("addresses", "home", "streetaddress") => Some(Column::Street),
        ("addresses", "home", "locality") => Some(Column::City),
        ("addresses", "home", "region") => Some(Column::State),
        ("addresses", "home", "postalcode") => Some(Column::Zip),
        ("addresses", "home", "country") => Some(Column::Country),
        _ => None,
    }
}

/// The reference column of the extension with this name.
#[must_use]
pub(super) fn reference(name: &str) -> Option<Column> {
    match name.to_ascii_lowercase().as_str() {
        "costcenter" => Some(Column::CostCenter),
        "company" => Some(Column::Company),
        "department" => Some(Column::Department),
        "manager" => Some(Column::Manager),
        "location" => Some(Column::Location),
        _ => None,
    }
}

fn extension(rest: &str) -> Option<Attribute> {
    if rest.eq_ignore_ascii_case("employeeNumber") {
        return Some(Attribute::Plain(Column::EmployeeNumber));
    }
    if rest.eq_ignore_ascii_case("gender") {
        return Some(Attribute::Plain(Column::Gender));
    }
    let (name, sub) = rest.split_once('.')?;
    let column = reference(name)?;
    let label = if column == Column::Manager {
        "displayName"
    } else {
        "name"
    };
    if sub.eq_ignore_ascii_case("value") {
        Some(Attribute::Plain(column))
    } else if sub.eq_ignore_ascii_case(label) {
        Some(Attribute::Label(column))
    } else {
        None
    }
}
