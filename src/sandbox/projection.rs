//! `attributes` and `excludedAttributes`: which members of a resource are shown (facts page,
//! section 4).

use std::collections::BTreeSet;

use super::column::{CORE_USER, below_urn};
use super::error::Refusal;
use super::group::CORE_GROUP;

/// Which members are shown. `schemas` and `id` always are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Projection {
    /// All.
    #[default]
    All,
    /// These, in lower case.
    Only(BTreeSet<String>),
    /// All but these, in lower case.
    Without(BTreeSet<String>),
}

impl Projection {
    /// Reads the two parameters.
    ///
    /// # Errors
    /// 400 when both are given.
    pub(super) fn parse(attributes: Option<&str>, excluded: Option<&str>) -> Result<Self, Refusal> {
        match (attributes, excluded) {
            (Some(_), Some(_)) => Err(Refusal::scim(
                400,
                Some("invalidValue"),
                "The parameters attributes and excludedAttributes cannot be used together",
            )),
            (Some(list), None) => Ok(Self::Only(paths(list))),
            (None, Some(list)) => Ok(Self::Without(paths(list))),
            (None, None) => Ok(Self::All),
        }
    }

    /// Whether the member at `path` is shown, or a part of it.
    #[must_use]
    pub(super) fn shows(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(chosen) => {
                let path = path.to_ascii_lowercase();
                chosen
                    .iter()
                    .any(|one| within(&path, one) || within(one, &path))
            }
            Self::Without(hidden) => {
                let path = path.to_ascii_lowercase();
                !hidden.iter().any(|one| within(&path, one))
            }
        }
    }

    /// Whether the member at `path` is asked for by its name, or a part of it.
    #[must_use]
    pub(super) fn names(&self, path: &str) -> bool {
        matches!(self, Self::Only(_)) && self.shows(path)
    }
}

/// Whether `path` is `whole` or a part of it.
fn within(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', ':']))
}

fn paths(list: &str) -> BTreeSet<String> {
    list.split(',')
        .map(str::trim)
        .filter(|path| !path.is_empty())
        .map(|path| {
            below_urn(path, CORE_USER)
                .or_else(|| below_urn(path, CORE_GROUP))
                .unwrap_or(path)
                .to_ascii_lowercase()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_shown_with_its_whole_and_a_whole_for_its_part() {
        let only = Projection::parse(Some("userName, NAME.givenName,meta"), None).unwrap();
        for shown in ["userName", "name", "name.givenName", "meta.created"] {
            assert!(only.shows(shown), "{shown}");
        }
        for hidden in ["name.familyName", "title", "userNameX", "metadata"] {
            assert!(!only.shows(hidden), "{hidden}");
        }

        let without = Projection::parse(None, Some("meta, members")).unwrap();
        assert!(!without.shows("meta") && !without.shows("meta.created"));
        assert!(without.shows("title"));

        assert!(Projection::parse(Some("a"), Some("b")).is_err());
    }
}
