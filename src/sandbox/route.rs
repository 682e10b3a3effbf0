//! Which part of the instance a request is for (facts page, section 3).

use super::message::Incoming;
use super::table::Table;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/oauth_token.do`.
    Token,
    /// `/oauth_revoke_token.do`.
    Revoke,
    /// `/Users`, or one of them.
    Users(Option<String>),
    /// `/Groups`, or one of them.
    Groups(Option<String>),
    /// `/Departments` and the like, or one of them.
    Named(Table, Option<String>),
    /// `/ServiceProviderConfig`.
    Config,
    /// `/ResourceTypes`, or one of them.
    ResourceTypes(Option<String>),
    /// `/Schemas`, or one of them.
    Schemas(Option<String>),
    /// Below `/api`, and nothing.
    NoApi,
    /// A page for people.
    Page,
}

/// What a request is, for counting and for faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A token is asked for, or given back.
    Token,
    /// A list is read.
    List,
    /// One resource is read.
    Get,
    /// Something is created, changed or deleted.
    Write,
    /// A discovery document is read.
    Discovery,
    /// Anything else.
    Other,
}

impl RequestKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Token,
        Self::List,
        Self::Get,
        Self::Write,
        Self::Discovery,
        Self::Other,
    ];
}

impl Target {
    /// Reads a path. `/api/now/scim` may have the version of the platform's interface in it.
    #[must_use]
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/oauth_token.do" => return Self::Token,
            "/oauth_revoke_token.do" => return Self::Revoke,
            _ => {}
        }
        let Some(below) = ["/api/now/scim/", "/api/now/v1/scim/", "/api/now/v2/scim/"]
            .iter()
            .find_map(|base| path.strip_prefix(base))
        else {
            return if path.starts_with("/api") {
                Self::NoApi
            } else {
                Self::Page
            };
        };
        let mut segments = below.split('/').map(decode);
        let (Some(endpoint), one, None) = (segments.next(), segments.next(), segments.next())
        else {
            return Self::NoApi;
        };
        let one = one.filter(|id| !id.is_empty());
        match endpoint.as_str() {
            "Users" => Self::Users(one),
            "Groups" => Self::Groups(one),
            "ServiceProviderConfig" if one.is_none() => Self::Config,
            "ResourceTypes" => Self::ResourceTypes(one),
            "Schemas" => Self::Schemas(one),
            other => Table::ALL
                .into_iter()
                .find(|table| table.endpoint() == other)
                .map_or(Self::NoApi, |table| Self::Named(table, one)),
        }
    }

    /// Whether it is a resource, which needs a log-in.
    #[must_use]
    pub(super) fn is_resource(&self) -> bool {
        matches!(self, Self::Users(_) | Self::Groups(_) | Self::Named(..))
    }

    /// Whether it is `/Groups`, or one of them.
    #[must_use]
    pub(super) fn is_groups(&self) -> bool {
        matches!(self, Self::Groups(_))
    }

    /// What a request for it is.
    #[must_use]
    pub(super) fn kind(&self, incoming: &Incoming) -> RequestKind {
        let reads = incoming.method == http::Method::GET;
        match self {
            Self::Token | Self::Revoke => RequestKind::Token,
            Self::Users(_) | Self::Groups(_) | Self::Named(..) if !reads => RequestKind::Write,
            Self::Users(None) | Self::Groups(None) | Self::Named(_, None) => RequestKind::List,
            Self::Users(Some(_)) | Self::Groups(Some(_)) | Self::Named(_, Some(_)) => {
                RequestKind::Get
            }
            Self::Config | Self::ResourceTypes(_) | Self::Schemas(_) => RequestKind::Discovery,
            Self::NoApi | Self::Page => RequestKind::Other,
        }
    }
}

/// Undoes percent-encoding; what is not UTF-8 behind it stays nobody's id.
fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let decoded = (first == b'%')
            .then(|| {
                let hex = std::str::from_utf8(tail.get(..2)?).ok()?;
                hex.bytes()
                    .all(|b| b.is_ascii_hexdigit())
                    .then(|| u8::from_str_radix(hex, 16).ok())?
            })
            .flatten();
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_the_facts_page_lists() {
        let users = |id: &str| Target::Users(Some(id.to_owned()));
        for (path, target) in [
            ("/oauth_token.do", Target::Token),
            ("/api/now/scim/Users", Target::Users(None)),
            ("/api/now/scim/Users/", Target::Users(None)),
            ("/api/now/v2/scim/Users/3f1c", users("3f1c")),
            ("/api/now/scim/Groups", Target::Groups(None)),
            (
                "/api/now/scim/Groups/7e44",
                Target::Groups(Some("7e44".into())),
            ),
            ("/api/now/scim/Users/a%2Fb%20c%zz", users("a/b c%zz")),
            (
                "/api/now/scim/Departments",
                Target::Named(Table::Department, None),
            ),
            ("/api/now/scim/v2/Users", Target::NoApi),
            ("/api/now/scim/Users/a/b", Target::NoApi),
            ("/api/now/scim/Bulk", Target::NoApi),
            ("/api/now/scim/users", Target::NoApi),
            ("/api/now/scim", Target::NoApi),
            ("/", Target::Page),
        ] {
            assert_eq!(Target::of(path), target, "{path}");
        }
    }
}
