//! One spelling for each resource, so that a new order is not a change.
//!
//! The canonical text is compact JSON with sorted members and elements, without empty values, `meta`,
//! `groups` and the `members` of groups, and with a list wherever one belongs. Reading it again gives the same text.

use std::borrow::Cow;
use std::cmp::Ordering;

use jiff::Timestamp;

use super::names::{MULTI_VALUED, Names};
use super::peek::Members;
use super::tree::DEEPEST;
pub use super::tree::{Node, Unreadable};
use crate::model::ResourceType;
use crate::model::time::parse_lenient;

/// A resource in canonical order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    content: Node<'a>,
    created_at: Option<Timestamp>,
    members: Option<Node<'a>>,
}

impl<'a> Resource<'a> {
    /// Reads a resource as it arrived, or a canonical text.
    ///
    /// # Errors
    /// [`Unreadable`] for what is no JSON object, broken, ambiguous or nested too deep, and for an
    /// `active` that is neither true nor false. Columns are another matter: [`super::mapping`].
    pub fn parse(resource: ResourceType, json: &'a str) -> Result<Self, Unreadable> {
        let mut members = match Node::read(json, Names::of(resource))? {
            Some(Node::Object(members)) => members,
            // `{}`, but `null`, `""` and `[]` too: without an `id` none of them gets anywhere.
            None => Vec::new(),
            Some(other) => {
                return Err(Unreadable {
                    path: String::new(),
                    problem: format!("{} where a resource should be", other.kind()),
                });
            }
        };
        let mut created_at = None;
        let mut listed = None;
        members.retain_mut(|(name, node)| match &**name {
            "meta" => {
                created_at = created(node);
                false
            }
            "groups" => false,
            "members" if resource == ResourceType::Group => {
                listed = Some(std::mem::replace(node, Node::Bool(false)));
                false
            }
            _ => true,
        });
        for (name, node) in &mut members {
            match &**name {
                "id" => {
                    if let Node::Number(text) = node {
                        *node = Node::Text(Cow::Owned(std::mem::take(text)));
                    }
                }
                "active" => *node = boolean(node)?,
                // The list around it must still be readable.
                name if MULTI_VALUED.contains(&name)
                    && !matches!(node, Node::List(_))
                    && depth(node) <= DEEPEST - 2 =>
                {
                    let single = std::mem::replace(node, Node::Bool(false));
                    *node = Node::List(vec![single]);
                }
                _ => {}
            }
        }
        Ok(Self {
            content: Node::Object(members),
            created_at,
            members: listed,
        })
    }

    /// The resource as the mirror once wrote it. A text that cannot be read, of a damaged file, is a
    /// resource without attributes: then all that is read counts as a change, which mends it.
    pub(super) fn stored(resource: ResourceType, canonical: &'a str) -> Self {
        Self::parse(resource, canonical).unwrap_or_else(|_| Self {
            content: Node::Object(Vec::new()),
            created_at: None,
            members: None,
        })
    }

    /// Its attributes: always an object.
    #[must_use]
    pub fn content(&self) -> &Node<'a> {
        &self.content
    }

    /// Its `id`.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        match self.content.get("id")? {
            Node::Text(id) => Some(id),
            _ => None,
        }
    }

    /// Its `active`; `None` when it does not say.
    #[must_use]
    pub fn active(&self) -> Option<bool> {
        match self.content.get("active")? {
            Node::Bool(active) => Some(*active),
            _ => None,
        }
    }

    /// Its `meta.created`, where that can be read. Only a resource as it arrived has one.
    #[must_use]
    pub fn created_at(&self) -> Option<Timestamp> {
        self.created_at
    }

    /// The members of a group, as they arrived; `None` where there is nobody, and of all else.
    #[must_use]
    pub fn members(&self) -> Option<&Node<'a>> {
        self.members.as_ref()
    }

    /// Its canonical text.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.content.to_text()
    }

    fn set_active(&mut self, active: bool) {
        let Node::Object(members) = &mut self.content else {
            return;
        };
        let node = Node::Bool(active);
        match members.binary_search_by(|(name, _)| (**name).cmp("active")) {
            Ok(place) => members[place].1 = node,
            Err(place) => members.insert(place, (Cow::Borrowed("active"), node)),
        }
    }
}

/// Reads `active` out of a canonical text and no more than stands before it.
pub fn active(canonical: &str) -> Option<bool> {
    let mut members = Members::of(canonical);
    loop {
        match (*members.name()?.text()?).cmp("active") {
            Ordering::Less => members.value()?,
            Ordering::Equal => return members.value()?.parse().ok(),
            Ordering::Greater => return None,
        };
    }
}

/// The same canonical text with this `active`.
pub(super) fn with_active(resource: ResourceType, canonical: &str, active: bool) -> String {
    let mut stored = Resource::stored(resource, canonical);
    stored.set_active(active);
    stored.to_text()
}

/// How deep a node nests: 0 for a scalar.
fn depth(node: &Node<'_>) -> u32 {
    let inside = match node {
        Node::List(elements) => elements.iter().map(depth).max(),
        Node::Object(members) => members.iter().map(|(_, node)| depth(node)).max(),
        _ => return 0,
    };
    inside.unwrap_or(0) + 1
}

fn created(meta: &Node<'_>) -> Option<Timestamp> {
    match meta.get("created")? {
        Node::Text(time) => parse_lenient(time),
        _ => None,
    }
}

/// `active`, also as customised instances send it (facts page, Q37).
fn boolean<'a>(node: &Node<'a>) -> Result<Node<'a>, Unreadable> {
    match node {
        Node::Bool(active) => Ok(Node::Bool(*active)),
        Node::Text(text) if text.eq_ignore_ascii_case("true") => Ok(Node::Bool(true)),
        Node::Text(text) if text.eq_ignore_ascii_case("false") => Ok(Node::Bool(false)),
        other => Err(Unreadable {
            path: "active".to_owned(),
            problem: format!("{} where `true` or `false` should be", other.kind()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{anything, content, user};
    use super::*;

    fn text(json: &str) -> Result<String, String> {
        Resource::parse(ResourceType::User, json)
            .map(|resource| resource.to_text())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn known_names_get_one_spelling_and_unknown_ones_keep_theirs() {
        assert_eq!(
            text(
                r#"{"ID":7,"UserName":"a","EMAILS":[{"TYPE":"work","Value":"v"}],"Extra":1,
                "Urn:ietf:params:scim:schemas:extension:servicenow:2.0:USER":{"CostCenter":{"NAME":"c"}},
                "urn:x:User":{"UserName":1}}"#
            )
            .unwrap(),
            r#"{"Extra":1,"emails":[{"type":"work","value":"v"}],"id":"7","urn:ietf:params:scim:schemas:extension:servicenow:2.0:User":{"costCenter":{"name":"c"}},"urn:x:User":{"UserName":1},"userName":"a"}"#
        );
        let error = text(r#"{"userName":"a","USERNAME":"a"}"#).unwrap_err();
        assert!(error.starts_with("`userName`: "), "{error}");
        assert!(text(r#"{"emails":[{"value":"a","Value":null}]}"#).is_err());
    }

    #[test]
    fn a_single_value_in_the_place_of_a_list_becomes_one_unless_that_could_not_be_read_again() {
        assert_eq!(
            text(r#"{"emails":"a@b","phoneNumbers":{"value":"1"}}"#).unwrap(),
            r#"{"emails":["a@b"],"phoneNumbers":[{"value":"1"}]}"#
        );
        for deep in [48, 49] {
            let json = format!(
                r#"{{"emails":{}1{}}}"#,
                r#"{"a":"#.repeat(deep),
                "}".repeat(deep)
            );
            let canonical = text(&json).unwrap();
            assert_eq!(canonical.contains('['), deep == 48);
            assert_eq!(text(&canonical).unwrap(), canonical);
        }
    }

    #[test]
    fn active_is_a_boolean_or_nothing() {
        for (json, active) in [
            (r#"{"active":"FALSE"}"#, Some(false)),
            (r#"{"active":"true"}"#, Some(true)),
            (r#"{"Active":true}"#, Some(true)),
            (r#"{"active":""}"#, None),
            (r#"{"active":null}"#, None),
            ("{}", None),
        ] {
            let resource = Resource::parse(ResourceType::User, json).unwrap();
            assert_eq!(resource.active(), active, "{json}");
            assert_eq!(super::active(&resource.to_text()), active, "{json}");
        }
        for json in [
            r#"{"active":"yes"}"#,
            r#"{"active":0}"#,
            r#"{"active":[false]}"#,
        ] {
            assert!(text(json).unwrap_err().starts_with("`active`: "), "{json}");
        }
    }

    #[test]
    fn meta_and_groups_are_no_content_and_what_is_no_object_is_no_resource() {
        let resource = Resource::parse(
            ResourceType::User,
            r#"{"META":{"CREATED":"2024-11-04T07:15:22Z"},"groups":[{"value":"g"}],"id":"a"}"#,
        )
        .unwrap();
        assert_eq!(resource.to_text(), r#"{"id":"a"}"#);
        assert_eq!(
            resource.created_at(),
            Some("2024-11-04T07:15:22Z".parse().unwrap())
        );
        assert_eq!(
            text(r#"["a"]"#).unwrap_err(),
            "an array where a resource should be"
        );
    }

    proptest! {
        #[test]
        fn order_blanks_escapes_and_empty_values_do_not_count(user in user(), seed: u64) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let canonical = text(&user.write()).unwrap();
            prop_assert_eq!(&text(&user.respell(&mut rng)).unwrap(), &canonical);
            prop_assert_eq!(&text(&canonical).unwrap(), &canonical);
        }

        #[test]
        fn nothing_but_meta_and_groups_is_lost(mut user in user()) {
            let canonical = text(&user.write()).unwrap();
            user.members().retain(|(name, _)| !matches!(name.as_str(), "meta" | "groups" | "active"));
            let mut read = content(&canonical);
            read.as_object_mut().unwrap().remove("active");
            let mut expected = content(&user.write());
            for (name, value) in expected.as_object_mut().unwrap() {
                if MULTI_VALUED.contains(&&**name) && !value.is_array() {
                    *value = serde_json::Value::Array(vec![value.take()]);
                }
            }
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn active_is_set_and_found(json in anything(), active: bool) {
            let json = format!(r#"{{"A":1,"accounts":{0},"z":{0}}}"#, json.write());
            let canonical = with_active(ResourceType::User, &text(&json).unwrap(), active);
            prop_assert_eq!(super::active(&canonical), Some(active));
            prop_assert_eq!(&text(&canonical).unwrap(), &canonical);
        }

        #[test]
        fn no_text_makes_it_panic(json in "[\\[\\]{}:,\"a-c0-9eE.+\\\\u-]{0,40}") {
            let _ = text(&json);
        }
    }
}
