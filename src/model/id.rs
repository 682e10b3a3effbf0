//! Names and ids: what an instance, a resource type and a resource are known by.

use std::fmt;
use std::sync::Arc;

/// The configured name of one linked instance: `[a-z0-9]+(_[a-z0-9]+)*`, at most 40 characters.
///
/// The pattern is what an environment variable, a file name and a log field can all carry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(Arc<str>);

/// A text that cannot name an instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an instance name is `[a-z0-9]+(_[a-z0-9]+)*`, at most {} characters",
    InstanceName::MAX_CHARS
)]
pub struct InvalidInstanceName;

impl InstanceName {
    /// The longest name, in characters.
    pub const MAX_CHARS: usize = 40;

    /// Reads a name.
    ///
    /// # Errors
    /// [`InvalidInstanceName`] when the text does not fit the pattern.
    pub fn parse(text: &str) -> Result<Self, InvalidInstanceName> {
        let word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if text.len() <= Self::MAX_CHARS && text.split('_').all(word) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidInstanceName)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of SCIM resource a source reads (RFC 7643 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// A person's resource (RFC 7643 section 4.1).
    User,
    /// A group of people and of other groups (RFC 7643 section 4.2).
    Group,
    /// That somebody is in a group: read with the group, and no source by itself.
    Membership,
}

impl ResourceType {
    /// The name in tables and logs, which is SCIM's own.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::Membership => "Membership",
        }
    }

    /// The source that it is read by.
    #[must_use]
    pub fn source(self) -> Self {
        match self {
            Self::User => Self::User,
            Self::Group | Self::Membership => Self::Group,
        }
    }

    /// What one of them is called in a sentence.
    #[must_use]
    pub fn noun(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Membership => "membership",
        }
    }

    /// The endpoint below the SCIM path (facts page, section 3).
    #[must_use]
    pub fn endpoint(self) -> &'static str {
        match self {
            Self::User => "Users",
            Self::Group | Self::Membership => "Groups",
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The `id` of a resource: opaque text, compared byte for byte (facts page, Q31).
///
/// `Debug` and `Display` are left to [`crate::model::Foreign`]: the text comes from an instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(String);

impl ResourceId {
    /// Takes an id exactly as it arrived.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the id can stand as one path segment of a URL. `""`, `"."`, `".."` and control
    /// characters would ask for the list, or for somebody else.
    #[must_use]
    pub fn is_askable(&self) -> bool {
        !matches!(self.0.as_str(), "" | "." | "..") && !self.0.chars().any(char::is_control)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        for good in ["acme", "a", "7", "acme_emea_2"] {
            assert_eq!(InstanceName::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(41);
        for bad in [
            "",
            "_a",
            "a_",
            "a__b",
            "Acme",
            "a-b",
            "ä",
            "a.b",
            "a/b",
            long.as_str(),
        ] {
            assert!(InstanceName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_that_would_ask_for_something_else_are_not_askable() {
        for bad in ["", ".", "..", "a\nb", "a\0", "\u{85}"] {
            assert!(!ResourceId::new(bad).is_askable(), "{bad:?}");
        }
        for good in ["a/b", "%2e%2e", "a\\b", "...", "A_b-c.d", "ü"] {
            assert!(ResourceId::new(good).is_askable(), "{good:?}");
        }
    }
}
