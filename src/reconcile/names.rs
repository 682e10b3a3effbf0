//! The attribute names that are known, in their one spelling: SCIM compares names without regard to
//! case (RFC 7643 section 2.1), JSON does not.

use crate::model::ResourceType;

/// The core schema of users (RFC 7643 section 4.1).
pub const CORE_USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
/// ServiceNow's own extension (facts page, section 8.2).
pub const SERVICENOW_USER: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
/// The enterprise extension (RFC 7643 section 4.3).
pub const ENTERPRISE_USER: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
/// The customer's extension (facts page, section 8.4).
pub const CUSTOM_USER: &str = "urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:User";
/// What older texts call the customer's extension.
const OLD_CUSTOM_USER: &str = "urn:ietf:params:scim:schemas:custom:servicenow:2.0:User";

/// The core schema of groups (RFC 7643 section 4.2).
pub const CORE_GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
/// ServiceNow's own extension of groups (facts page, section 9.1).
pub const SERVICENOW_GROUP: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group";
/// The customer's extension of groups (facts page, section 8.4).
pub const CUSTOM_GROUP: &str = "urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:Group";

/// A link to another resource: kept, but not content. Instances show it or not, with other hosts.
pub const LINK: &str = "$ref";

/// The multi-valued attributes of users that are mirrored (RFC 7643 section 4.1.2): a single value in such a place is a list of
/// one.
pub const MULTI_VALUED: [&str; 3] = ["emails", "phoneNumbers", "addresses"];

/// The names that are known at one place of a resource, each with those that stand below it.
pub(super) struct Names(&'static [(&'static str, &'static Self)]);

impl Names {
    /// The names at the top of a resource.
    pub(super) fn of(resource: ResourceType) -> &'static Self {
        match resource {
            ResourceType::User => &USER,
            ResourceType::Group => &GROUP,
            // Its canonical text is ours.
            ResourceType::Membership => &NOTHING_KNOWN,
        }
    }

    /// Whether a list of these is read as it arrives: in its order, and with its empty elements. It may be long, it is no content of
    /// its resource, and whoever reads it counts it and sorts it.
    pub(super) fn stays_as_it_arrived(&self) -> bool {
        std::ptr::eq(self, &MEMBER)
    }

    /// The spelling of a name that is known here, and what is known below it.
    pub(super) fn known(&self, name: &str) -> Option<(&'static str, &'static Self)> {
        self.0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .copied()
    }
}

/// Below a scalar, and where the content is the customer's: every name keeps its spelling.
pub(super) static NOTHING_KNOWN: Names = Names(&[]);

static USER: Names = Names(&[
    ("schemas", &NOTHING_KNOWN),
    ("id", &NOTHING_KNOWN),
    ("externalId", &NOTHING_KNOWN),
    ("meta", &META),
    ("userName", &NOTHING_KNOWN),
    ("name", &PERSON_NAME),
    ("displayName", &NOTHING_KNOWN),
    ("title", &NOTHING_KNOWN),
    ("userType", &NOTHING_KNOWN),
    ("preferredLanguage", &NOTHING_KNOWN),
    ("timezone", &NOTHING_KNOWN),
    ("active", &NOTHING_KNOWN),
    ("emails", &ELEMENT),
    ("phoneNumbers", &ELEMENT),
    ("addresses", &ADDRESS),
    ("groups", &MEMBER),
    (SERVICENOW_USER, &SERVICENOW),
    (ENTERPRISE_USER, &ENTERPRISE),
    (CUSTOM_USER, &NOTHING_KNOWN),
    (OLD_CUSTOM_USER, &NOTHING_KNOWN),
    ("locale", &NOTHING_KNOWN),
    ("nickName", &NOTHING_KNOWN),
    ("profileUrl", &NOTHING_KNOWN),
    ("password", &NOTHING_KNOWN),
    ("ims", &ELEMENT),
    ("photos", &ELEMENT),
    ("entitlements", &ELEMENT),
    ("roles", &ELEMENT),
    ("x509Certificates", &ELEMENT),
]);

static GROUP: Names = Names(&[
    ("schemas", &NOTHING_KNOWN),
    ("id", &NOTHING_KNOWN),
    ("externalId", &NOTHING_KNOWN),
    ("meta", &META),
    ("displayName", &NOTHING_KNOWN),
    ("members", &MEMBER),
    (SERVICENOW_GROUP, &SHOWN_GROUP),
    (CUSTOM_GROUP, &NOTHING_KNOWN),
    // As far as an instance shows them.
    ("active", &NOTHING_KNOWN),
    ("description", &NOTHING_KNOWN),
    ("email", &NOTHING_KNOWN),
    ("manager", &REFERENCE),
    ("type", &NOTHING_KNOWN),
]);

static SHOWN_GROUP: Names = Names(&[
    ("company", &REFERENCE),
    ("description", &NOTHING_KNOWN),
    ("email", &NOTHING_KNOWN),
    ("manager", &REFERENCE),
    ("type", &NOTHING_KNOWN),
]);

/// RFC 7643 section 3.1.
static META: Names = Names(&[
    ("resourceType", &NOTHING_KNOWN),
    ("created", &NOTHING_KNOWN),
    ("lastModified", &NOTHING_KNOWN),
    ("location", &NOTHING_KNOWN),
    ("version", &NOTHING_KNOWN),
]);

static PERSON_NAME: Names = Names(&[
    ("familyName", &NOTHING_KNOWN),
    ("givenName", &NOTHING_KNOWN),
    ("middleName", &NOTHING_KNOWN),
    ("honorificPrefix", &NOTHING_KNOWN),
    ("honorificSuffix", &NOTHING_KNOWN),
    ("formatted", &NOTHING_KNOWN),
]);

/// An element of a multi-valued attribute (RFC 7643 section 2.4).
static ELEMENT: Names = Names(&[
    ("value", &NOTHING_KNOWN),
    ("type", &NOTHING_KNOWN),
    ("primary", &NOTHING_KNOWN),
    ("display", &NOTHING_KNOWN),
    (LINK, &NOTHING_KNOWN),
]);

/// A member of a group, or a group that a user is in (RFC 7643 sections 4.1.2 and 4.2).
static MEMBER: Names = Names(&[
    ("value", &NOTHING_KNOWN),
    ("type", &NOTHING_KNOWN),
    ("primary", &NOTHING_KNOWN),
    ("display", &NOTHING_KNOWN),
    (LINK, &NOTHING_KNOWN),
]);

static ADDRESS: Names = Names(&[
    ("type", &NOTHING_KNOWN),
    ("streetAddress", &NOTHING_KNOWN),
    ("locality", &NOTHING_KNOWN),
    ("region", &NOTHING_KNOWN),
    ("postalCode", &NOTHING_KNOWN),
    ("country", &NOTHING_KNOWN),
    ("formatted", &NOTHING_KNOWN),
    ("primary", &NOTHING_KNOWN),
]);

static SERVICENOW: Names = Names(&[
    ("employeeNumber", &NOTHING_KNOWN),
    ("gender", &NOTHING_KNOWN),
    ("costCenter", &REFERENCE),
    ("company", &REFERENCE),
    ("department", &REFERENCE),
    ("manager", &REFERENCE),
    ("location", &REFERENCE),
]);

static ENTERPRISE: Names = Names(&[
    ("employeeNumber", &NOTHING_KNOWN),
    ("costCenter", &REFERENCE),
    ("organization", &NOTHING_KNOWN),
    ("division", &NOTHING_KNOWN),
    ("department", &REFERENCE),
    ("manager", &REFERENCE),
    // Not of the RFC, but read where the other extension has nothing.
    ("company", &REFERENCE),
    ("location", &REFERENCE),
]);

/// A reference to another record, with any of the names that its label goes by.
static REFERENCE: Names = Names(&[
    ("value", &NOTHING_KNOWN),
    ("displayName", &NOTHING_KNOWN),
    ("name", &NOTHING_KNOWN),
    ("display", &NOTHING_KNOWN),
    (LINK, &NOTHING_KNOWN),
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_whatever_their_case_and_only_at_their_place() {
        let (name, below) = USER.known("PHONENUMBERS").unwrap();
        assert_eq!(name, "phoneNumbers");
        assert_eq!(below.known("Value").unwrap().0, "value");
        assert!(USER.known("familyname").is_none());
        let urn = SERVICENOW_USER.to_uppercase();
        let (name, below) = USER.known(&urn).unwrap();
        assert_eq!(name, SERVICENOW_USER);
        assert_eq!(below.known("costcenter").unwrap().0, "costCenter");
        assert!(USER.known(CUSTOM_USER).unwrap().1.known("value").is_none());
    }
}
