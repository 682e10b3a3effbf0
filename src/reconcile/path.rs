//! How a place in a resource is written: `name.middleName`, `emails[0].value`,
//! `urn:…:User:source` (RFC 7644 section 3.10).

use super::canonical::Node;
use super::names::{CORE_GROUP, CORE_USER};
use super::tree::write_text;
use crate::model::ResourceType;
use crate::model::user::text_columns;

/// Where a change is, as `changed` writes it. The names of columns belong to the columns: an
/// attribute that happens to have such a name is written with the URN of the core schema.
pub(super) fn of_change(resource: ResourceType, names: &[&str]) -> String {
    let mut path = ScimPath::default();
    if let [name] = names
        && (text_columns(resource).contains(name) || *name == "gone_at")
    {
        path.member(match resource {
            ResourceType::User => CORE_USER,
            ResourceType::Group | ResourceType::Membership => CORE_GROUP,
        });
    }
    for name in names {
        path.member(name);
    }
    path.into_text()
}

/// The names that lead to the value which [`of_change`] writes as `path`, if the resource has it.
pub(super) fn find<'n>(
    resource: ResourceType,
    content: &'n Node<'_>,
    path: &str,
) -> Option<Vec<&'n str>> {
    let mut names = Vec::new();
    leads_to(resource, content, path, &mut names).then_some(names)
}

fn leads_to<'n>(
    resource: ResourceType,
    node: &'n Node<'_>,
    path: &str,
    names: &mut Vec<&'n str>,
) -> bool {
    let Node::Object(members) = node else {
        return false;
    };
    for (name, node) in members {
        names.push(name);
        if of_change(resource, names) == path || leads_to(resource, node, path, names) {
            return true;
        }
        names.pop();
    }
    false
}

/// A SCIM path, built from the top of a resource downwards.
#[derive(Debug, Default)]
pub(super) struct ScimPath {
    text: String,
    steps: usize,
}

/// One step down.
#[derive(Debug)]
pub(super) enum Step {
    Member(String),
    Element(usize),
}

impl ScimPath {
    /// Goes on to a member. A colon follows the URN of an extension, a dot all else. A name that no SCIM attribute has (RFC
    /// 7643 section 2.1) and that could be taken for several stands as text in brackets: no two places have one path.
    pub(super) fn member(&mut self, name: &str) {
        let is_urn = self.steps == 0 && name.contains(':') && !name.contains('[');
        if !is_urn && name.contains(['.', ':', '[']) {
            self.text.push('[');
            write_text(name, &mut self.text);
            self.text.push(']');
        } else {
            match self.steps {
                0 => {}
                1 if self.text.contains(':') && !self.text.contains('[') => self.text.push(':'),
                _ => self.text.push('.'),
            }
            self.text.push_str(name);
        }
        self.steps += 1;
    }

    /// Goes on to an element of a list, counted from 0.
    pub(super) fn element(&mut self, place: usize) {
        self.text.push_str(&format!("[{place}]"));
        self.steps += 1;
    }

    pub(super) fn step(&mut self, step: &Step) {
        match step {
            Step::Member(name) => self.member(name),
            Step::Element(place) => self.element(*place),
        }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(names: &[&str]) -> String {
        let mut path = ScimPath::default();
        for name in names {
            path.member(name);
        }
        path.into_text()
    }

    #[test]
    fn no_two_places_have_one_path() {
        let places: [&[&str]; 9] = [
            &["cost.code"],
            &["cost", "code"],
            &["urn:a", "b", "c"],
            &["urn:a", "b.c"],
            &["urn:a", "b:c"],
            &["urn:a:b", "c"],
            &["a", "b:c"],
            &["a[\"b.c\"]"],
            &["a", "b.c"],
        ];
        let paths: std::collections::BTreeSet<String> =
            places.iter().map(|names| path(names)).collect();
        assert_eq!(paths.len(), places.len(), "{paths:?}");
        assert!(paths.contains(r#"["cost.code"]"#) && paths.contains(r#"urn:a["b.c"]"#));
    }

    #[test]
    fn a_colon_follows_a_urn_and_a_dot_all_else() {
        assert_eq!(path(&["name", "middleName"]), "name.middleName");
        assert_eq!(path(&["urn:a:2.0:User", "x", "y"]), "urn:a:2.0:User:x.y");
        let mut path = ScimPath::default();
        path.member("emails");
        path.element(2);
        path.member("value");
        assert_eq!(path.into_text(), "emails[2].value");
    }
}
