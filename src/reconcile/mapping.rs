//! The mapped columns of a user or a group: where in the resource each of them is found.
//!
//! The table gives the place, not only the text, so that the diff engine knows what of a resource
//! its columns tell already.

use std::borrow::Cow;

use super::canonical::{Node, Resource};
use super::keep;
use super::names::{CUSTOM_GROUP, ENTERPRISE_USER, SERVICENOW_GROUP, SERVICENOW_USER};
use crate::model::user::{GROUP_COLUMNS, TEXT_COLUMNS, TextColumns};
use crate::model::{ResourceType, UserColumns};

/// A value that does not fit its column, or a text that is no resource.
pub use super::canonical::Unreadable as MappingError;

/// Changes whenever the canonical form or the mapping does: part of every fingerprint, so that a
/// new version looks at everything once more.
pub const MAPPING_VERSION: u32 = 2;

/// Reads the mapped columns out of the canonical text of a user.
///
/// # Errors
/// The path and what is wrong there.
pub fn user_columns(canonical: &str) -> Result<UserColumns, MappingError> {
    columns(ResourceType::User, canonical)
}

/// The same of any resource.
///
/// # Errors
/// The path and what is wrong there.
pub fn columns(resource: ResourceType, canonical: &str) -> Result<UserColumns, MappingError> {
    let parsed = Resource::parse(resource, canonical)?;
    Ok(UserColumns {
        active: parsed.active(),
        text: text_columns(resource, parsed.content())?,
    })
}

/// Reads the mapped columns, but for `active`, out of a resource.
pub(super) fn text_columns(
    resource: ResourceType,
    content: &Node<'_>,
) -> Result<TextColumns, MappingError> {
    let leaves = leaves(resource, content)?;
    Ok(leaves.map(|leaf| Some(text(leaf?)?.into_owned())))
}

/// One place in the resource for each of its columns, in their order: the scalar that is the column's value.
pub(super) type Leaves<'n> = [Option<&'n Node<'n>>; TEXT_COLUMNS.len()];

/// Finds the place of every column.
pub(super) fn leaves<'n>(
    resource: ResourceType,
    content: &'n Node<'n>,
) -> Result<Leaves<'n>, MappingError> {
    let urns = extensions_of(resource);
    let mut extensions = Vec::with_capacity(urns.len());
    for urn in urns.iter().copied() {
        match within(content, urn) {
            None => {}
            Some(extension @ Node::Object(_)) => extensions.push((urn, extension)),
            Some(other) => return Err(misfit(urn, other, "an object")),
        }
    }
    let mut leaves = [None; TEXT_COLUMNS.len()];
    for (leaf, (_, source)) in leaves.iter_mut().zip(columns_table(resource)) {
        *leaf = source.find(content, &extensions)?;
    }
    Ok(leaves)
}

/// An extension, or by an empty URN the resource itself.
fn within<'n>(content: &'n Node<'n>, urn: &str) -> Option<&'n Node<'n>> {
    match urn {
        "" => Some(content),
        urn => content.get(urn),
    }
}

/// What a scalar is in a text column: one of another type than text becomes its text.
pub(super) fn text<'n>(leaf: &'n Node<'_>) -> Option<Cow<'n, str>> {
    match leaf {
        Node::Text(text) => Some(Cow::Borrowed(text)),
        Node::Number(text) => Some(Cow::Borrowed(text)),
        Node::Bool(true) => Some(Cow::Borrowed("true")),
        Node::Bool(false) => Some(Cow::Borrowed("false")),
        Node::List(_) | Node::Object(_) => None,
    }
}

/// The other column of a reference: of its id the label, and the other way round.
pub(super) fn other_of_reference(resource: ResourceType, place: usize) -> Option<usize> {
    match columns_table(resource).get(place)?.1 {
        Source::Reference(_, Part::Id) | Source::ShownReference(_, Part::Id) => Some(place + 1),
        Source::Reference(_, Part::Label) | Source::ShownReference(_, Part::Label) => {
            Some(place - 1)
        }
        _ => None,
    }
}

/// The columns that a path of `changed` stands for: of a reference both; `None` for an attribute that
/// is not mapped.
#[must_use]
pub fn columns_of(resource: ResourceType, path: &str) -> Option<Vec<&'static str>> {
    let table = columns_table(resource);
    let place = table.iter().position(|(column, _)| *column == path)?;
    let places = std::iter::once(place).chain(other_of_reference(resource, place));
    Some(places.map(|place| table[place].0).collect())
}

/// Whether a SCIM path leads to what a column may be read from in either extension, such as a label in another spelling: it is
/// no attribute by itself, and [`put_back`] puts it back with the column.
pub(super) fn belongs_to_column(resource: ResourceType, path: &str) -> bool {
    let inside = |urn: &&str| match *urn {
        // The name of a column at the top goes by the URN of the core schema.
        "" => Some(path.strip_prefix(CORE_GROUP_COLON).unwrap_or(path)),
        urn => path.strip_prefix(urn)?.strip_prefix(':'),
    };
    // The extensions first: what stands at the top has no prefix.
    let Some(inside) = extensions_of(resource).iter().rev().find_map(inside) else {
        return false;
    };
    let is_half = |name| name == "value" || LABELS.contains(&name);
    columns_table(resource)
        .iter()
        .any(|(_, source)| match source {
            Source::Extension(attribute) | Source::Shown(attribute) => inside == *attribute,
            Source::Reference(reference, _) | Source::ShownReference(reference, _) => {
                match inside.strip_prefix(reference.attribute) {
                    Some("") => true,
                    Some(below) => below.strip_prefix('.').is_some_and(is_half),
                    None => false,
                }
            }
            Source::Core(_) | Source::Element(..) => false,
        })
}

/// Puts what a column is read from back into `new`, as `old` has it: of a reference the whole of it,
/// of a multi-valued attribute the value of the one element and its type.
pub(super) fn put_back<'n>(
    resource: ResourceType,
    place: usize,
    old: &'n Node<'n>,
    new: &mut Node<'n>,
) {
    match &columns_table(resource)[place].1 {
        Source::Core(names) => keep::put(old, new, names),
        Source::Extension(name) | Source::Shown(name) => {
            put_extensions_back(resource, name, old, new);
        }
        Source::Reference(reference, _) | Source::ShownReference(reference, _) => {
            put_extensions_back(resource, reference.attribute, old, new);
        }
        Source::Element(name, rank) => put_element_back(name, *rank, old, new),
    }
}

fn put_extensions_back<'n>(resource: ResourceType, name: &str, old: &Node<'n>, new: &mut Node<'n>) {
    for urn in extensions_of(resource).iter().copied() {
        match urn {
            "" if old.get(name).is_some() => keep::put(old, new, &[name]),
            "" => {}
            urn if old.get(urn).is_some_and(|it| it.get(name).is_some()) => {
                keep::put(old, new, &[urn, name]);
            }
            _ => {}
        }
    }
}

fn put_element_back<'n>(
    name: &'static str,
    rank: fn(&Element<'_>) -> Option<u8>,
    old: &'n Node<'n>,
    new: &mut Node<'n>,
) {
    let Some(element) = element_of(old, name, rank) else {
        return;
    };
    if element_of(new, name, rank).is_some_and(|other| other.value == element.value) {
        // Its whole list was put back before.
        return;
    }
    let mut list = match new.get(name) {
        Some(Node::List(elements)) => elements.clone(),
        _ => Vec::new(),
    };
    list.push(match element.node {
        // What else it had is told by the path of its list.
        Node::Object(members) => Node::Object(
            members
                .iter()
                .filter(|(name, _)| matches!(&**name, "value" | "type"))
                .cloned()
                .collect(),
        ),
        single => single.clone(),
    });
    list.sort_by_cached_key(Node::to_text);
    let list = Node::Object(vec![(Cow::Borrowed(name), Node::List(list))]);
    keep::put(&list, new, &[name]);
}

/// The element that a column is read from, if the list can be read.
fn element_of<'n>(
    user: &'n Node<'_>,
    name: &str,
    rank: fn(&Element<'_>) -> Option<u8>,
) -> Option<Element<'n>> {
    first_of(elements(user, name).ok()?, rank)
}

/// The element with the lowest rank, and of equals the first.
fn first_of<'n>(
    elements: Vec<Element<'n>>,
    rank: fn(&Element<'_>) -> Option<u8>,
) -> Option<Element<'n>> {
    let ranked = elements
        .into_iter()
        .filter_map(|element| Some((rank(&element)?, element)));
    let first = ranked.min_by(|(a, x), (b, y)| {
        // Links are no content, so they must not decide who is first.
        a.cmp(b)
            .then_with(|| x.text_without_links().cmp(&y.text_without_links()))
    });
    first.map(|(_, element)| element)
}

/// Where the value of a column is found.
enum Source {
    /// By these names, from the top.
    Core(&'static [&'static str]),
    /// In the first extension that has it.
    Extension(&'static str),
    /// One part of a reference, in the first extension that has either part.
    Reference(&'static Reference, Part),
    /// The value of one element of a multi-valued attribute: the one with the lowest rank, and of
    /// equals the first.
    Element(&'static str, fn(&Element<'_>) -> Option<u8>),
    /// As [`Source::Extension`], where nobody knows whether it is shown, nor in which form: what is no text is not mapped.
    Shown(&'static str),
    /// As [`Source::Reference`], in the same way.
    ShownReference(&'static Reference, Part),
}

/// In the order of [`GROUP_COLUMNS`].
static SHOWN_COLUMNS: [(&str, Source); GROUP_COLUMNS.len()] = [
    ("external_id", Source::Core(&["externalId"])),
    ("display_name", Source::Core(&["displayName"])),
    ("description", Source::Shown("description")),
    ("email", Source::Shown("email")),
    ("manager_id", Source::ShownReference(&MANAGER, Part::Id)),
    ("manager", Source::ShownReference(&MANAGER, Part::Label)),
    ("type", Source::Shown("type")),
];

/// The columns of a resource, in their order, and where each is found.
fn columns_table(resource: ResourceType) -> &'static [(&'static str, Source)] {
    match resource {
        ResourceType::User => &COLUMNS,
        ResourceType::Group => &SHOWN_COLUMNS,
        ResourceType::Membership => &[],
    }
}

/// Where columns are looked for, the first one first. Groups have none of their own in ServiceNow: an instance that shows more
/// than the name shows it at the top, or in an extension.
fn extensions_of(resource: ResourceType) -> &'static [&'static str] {
    match resource {
        ResourceType::User => &EXTENSIONS,
        ResourceType::Group => &["", SERVICENOW_GROUP, CUSTOM_GROUP],
        ResourceType::Membership => &[],
    }
}

/// What the name of a column at the top of a group is written with.
const CORE_GROUP_COLON: &str = "urn:ietf:params:scim:schemas:core:2.0:Group:";

/// In the order of [`TEXT_COLUMNS`]; of a reference the label follows the id.
static COLUMNS: [(&str, Source); TEXT_COLUMNS.len()] = [
    ("external_id", Source::Core(&["externalId"])),
    ("user_name", Source::Core(&["userName"])),
    ("display_name", Source::Core(&["displayName"])),
    ("given_name", Source::Core(&["name", "givenName"])),
    ("family_name", Source::Core(&["name", "familyName"])),
    ("email", Source::Element("emails", as_mail)),
    ("title", Source::Core(&["title"])),
    ("department_id", Source::Reference(&DEPARTMENT, Part::Id)),
    ("department", Source::Reference(&DEPARTMENT, Part::Label)),
    ("manager_id", Source::Reference(&MANAGER, Part::Id)),
    ("manager", Source::Reference(&MANAGER, Part::Label)),
    ("cost_center_id", Source::Reference(&COST_CENTER, Part::Id)),
    ("cost_center", Source::Reference(&COST_CENTER, Part::Label)),
    ("company_id", Source::Reference(&COMPANY, Part::Id)),
    ("company", Source::Reference(&COMPANY, Part::Label)),
    ("location_id", Source::Reference(&LOCATION, Part::Id)),
    ("location", Source::Reference(&LOCATION, Part::Label)),
    ("employee_number", Source::Extension("employeeNumber")),
    ("user_type", Source::Core(&["userType"])),
    ("phone", Source::Element("phoneNumbers", as_phone)),
    (
        "mobile_phone",
        Source::Element("phoneNumbers", as_mobile_phone),
    ),
    ("preferred_language", Source::Core(&["preferredLanguage"])),
    ("locale", Source::Core(&["locale"])),
    ("timezone", Source::Core(&["timezone"])),
];

/// ServiceNow's own comes first (facts page, Q36).
const EXTENSIONS: [&str; 2] = [SERVICENOW_USER, ENTERPRISE_USER];

/// One of them that a user has, an object.
type Extension<'n> = (&'static str, &'n Node<'n>);

impl Source {
    fn find<'n>(
        &self,
        user: &'n Node<'n>,
        extensions: &[Extension<'n>],
    ) -> Result<Option<&'n Node<'n>>, MappingError> {
        match self {
            Self::Core(names) => {
                let mut node = user;
                for (depth, name) in names.iter().enumerate() {
                    let Some(member) = node.get(name) else {
                        return match node {
                            Node::Object(_) => Ok(None),
                            other => Err(misfit(&names[..depth].join("."), other, "an object")),
                        };
                    };
                    node = member;
                }
                scalar(node, || names.join(".")).map(Some)
            }
            Self::Extension(name) => {
                for (urn, extension) in extensions {
                    if let Some(node) = extension.get(name) {
                        return scalar(node, || format!("{urn}:{name}")).map(Some);
                    }
                }
                Ok(None)
            }
            Self::Reference(reference, part) => reference.find(extensions, *part),
            Self::Shown(name) => {
                let mut shown = extensions.iter().filter_map(|(_, inside)| inside.get(name));
                Ok(shown.find(|node| text(node).is_some()))
            }
            Self::ShownReference(reference, part) => {
                Ok(reference.find(extensions, *part).unwrap_or_default())
            }
            Self::Element(name, rank) => {
                Ok(first_of(elements(user, name)?, *rank).map(|element| element.value))
            }
        }
    }
}

/// A reference to another record (facts page, section 8.2, Q32 and Q35).
struct Reference {
    attribute: &'static str,
    /// What a plain text in its place means.
    plain: Part,
}

/// The two columns of a reference.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Id,
    Label,
}

static DEPARTMENT: Reference = Reference::with_plain_label("department");
static COST_CENTER: Reference = Reference::with_plain_label("costCenter");
static COMPANY: Reference = Reference::with_plain_label("company");
static LOCATION: Reference = Reference::with_plain_label("location");
static MANAGER: Reference = Reference {
    attribute: "manager",
    plain: Part::Id,
};

/// The names of a label, in the order they are read.
const LABELS: [&str; 3] = ["displayName", "name", "display"];

impl Reference {
    const fn with_plain_label(attribute: &'static str) -> Self {
        Self {
            attribute,
            plain: Part::Label,
        }
    }

    fn find<'n>(
        &self,
        extensions: &[Extension<'n>],
        part: Part,
    ) -> Result<Option<&'n Node<'n>>, MappingError> {
        for (urn, extension) in extensions {
            let Some(node) = extension.get(self.attribute) else {
                continue;
            };
            let (id, label) = match node {
                Node::Object(_) => {
                    let member = |name: &str| {
                        node.get(name)
                            .map(|node| scalar(node, || format!("{urn}:{}.{name}", self.attribute)))
                            .transpose()
                    };
                    let label = LABELS.into_iter().find(|name| node.get(name).is_some());
                    (member("value")?, label.map(member).transpose()?.flatten())
                }
                plain => {
                    let plain = scalar(plain, || format!("{urn}:{}", self.attribute))?;
                    match self.plain {
                        Part::Id => (Some(plain), None),
                        Part::Label => (None, Some(plain)),
                    }
                }
            };
            if id.is_some() || label.is_some() {
                return Ok(match part {
                    Part::Id => id,
                    Part::Label => label,
                });
            }
        }
        Ok(None)
    }
}

/// An element of a multi-valued attribute that has a value (RFC 7643 section 2.4).
struct Element<'n> {
    node: &'n Node<'n>,
    value: &'n Node<'n>,
    kind: Option<Cow<'n, str>>,
    is_primary: bool,
}

/// The `work` mail, else the primary one, else the first.
fn as_mail(element: &Element<'_>) -> Option<u8> {
    Some(match (element.is_kind("work"), element.is_primary) {
        (true, true) => 0,
        (true, false) => 1,
        (false, true) => 2,
        (false, false) => 3,
    })
}

/// The `work` phone, else one that does not say what it is.
fn as_phone(element: &Element<'_>) -> Option<u8> {
    match (element.is_kind("work"), element.is_primary) {
        (true, true) => Some(0),
        (true, false) => Some(1),
        (false, _) => element.kind.is_none().then_some(2),
    }
}

fn as_mobile_phone(element: &Element<'_>) -> Option<u8> {
    element
        .is_kind("mobile")
        .then_some(u8::from(!element.is_primary))
}

impl Element<'_> {
    fn is_kind(&self, kind: &str) -> bool {
        self.kind
            .as_ref()
            .is_some_and(|own| own.eq_ignore_ascii_case(kind))
    }

    fn text_without_links(&self) -> Option<String> {
        Some(self.node.without_links()?.to_text())
    }
}

/// The elements of a multi-valued attribute that have a value.
fn elements<'n>(user: &'n Node<'n>, name: &str) -> Result<Vec<Element<'n>>, MappingError> {
    let Some(Node::List(nodes)) = user.get(name) else {
        return Ok(Vec::new());
    };
    let mut elements = Vec::with_capacity(nodes.len());
    for (place, node) in nodes.iter().enumerate() {
        let member = |member: &str| {
            node.get(member)
                .map(|node| scalar(node, || format!("{name}[{place}].{member}")))
                .transpose()
        };
        let value = match node {
            Node::Object(_) => member("value")?,
            other => Some(scalar(other, || format!("{name}[{place}]"))?),
        };
        let kind = member("type")?.and_then(text);
        let is_primary = member("primary")?
            .and_then(text)
            .is_some_and(|primary| primary.eq_ignore_ascii_case("true"));
        elements.extend(value.map(|value| Element {
            node,
            value,
            kind,
            is_primary,
        }));
    }
    Ok(elements)
}

fn scalar<'n>(
    node: &'n Node<'n>,
    path: impl FnOnce() -> String,
) -> Result<&'n Node<'n>, MappingError> {
    match node {
        Node::List(_) | Node::Object(_) => Err(misfit(&path(), node, "a text")),
        _ => Ok(node),
    }
}

fn misfit(path: &str, node: &Node<'_>, wanted: &str) -> MappingError {
    MappingError {
        path: path.to_owned(),
        problem: format!("{} where {wanted} should be", node.kind()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{anything, arrive, user};
    use super::*;

    fn columns(json: &str) -> UserColumns {
        user_columns(json).unwrap()
    }

    /// The columns that are filled.
    fn filled(json: &str) -> Vec<(&'static str, String)> {
        let columns = columns(json).text;
        let filled = TEXT_COLUMNS.into_iter().zip(columns);
        filled
            .filter_map(|(name, text)| Some((name, text?)))
            .collect()
    }

    fn in_servicenow(attributes: &str) -> String {
        format!(r#"{{"{SERVICENOW_USER}":{{{attributes}}}}}"#)
    }

    #[test]
    fn the_table_has_the_columns_in_their_order_and_label_after_id() {
        assert_eq!(COLUMNS.each_ref().map(|(name, _)| *name), TEXT_COLUMNS);
        for (place, name) in TEXT_COLUMNS.into_iter().enumerate() {
            let other =
                other_of_reference(ResourceType::User, place).map(|other| TEXT_COLUMNS[other]);
            let expected = TEXT_COLUMNS
                .into_iter()
                .find(|other| *other == format!("{name}_id") || name == format!("{other}_id"));
            assert_eq!(other, expected, "{name}");
        }
    }

    #[test]
    fn every_column_of_a_servicenow_user_is_found() {
        let reference = |label: &str| format!(r#"{{"value":"{label}-id","{label}":"{label}"}}"#);
        let json = format!(
            r#"{{"id":"3f","externalId":"hr-1","userName":"noor","active":false,"displayName":"Noor V",
            "name":{{"givenName":"Noor","familyName":"V","middleName":"m"}},"title":"Engineer ",
            "userType":"Employee","preferredLanguage":"en","locale":"en-GB","timezone":"Europe/Oslo",
            "emails":[{{"value":"n@x","type":"work"}}],
            "phoneNumbers":[{{"value":"2","type":"mobile"}},{{"value":"1","type":"work"}},{{"value":"3","type":"home"}}],
            "{SERVICENOW_USER}":{{"employeeNumber":"E-1","department":{name},"costCenter":{display},
            "company":{name},"location":{name},"manager":{display_name}}}}}"#,
            name = reference("name"),
            display = reference("display"),
            display_name = reference("displayName"),
        );
        let columns = columns(&json);
        assert_eq!(columns.active, Some(false));
        let texts = columns.text.map(Option::unwrap);
        assert_eq!(
            texts.join("|"),
            "hr-1|noor|Noor V|Noor|V|n@x|Engineer |name-id|name|displayName-id|displayName|\
            display-id|display|name-id|name|name-id|name|E-1|Employee|1|2|en|en-GB|Europe/Oslo"
        );
    }

    #[test]
    fn a_reference_is_read_in_all_its_forms() {
        for (attributes, expected) in [
            (r#""manager":"m""#, vec![("manager_id", "m")]),
            (r#""manager":7"#, vec![("manager_id", "7")]),
            (r#""department":"Ops""#, vec![("department", "Ops")]),
            (
                r#""department":{"value":"d"}"#,
                vec![("department_id", "d")],
            ),
            (
                r#""location":{"display":"c","name":"b"}"#,
                vec![("location", "b")],
            ),
            (
                r#""company":{"value":1,"displayName":"a","display":"c","name":"b"}"#,
                vec![("company_id", "1"), ("company", "a")],
            ),
            (r#""costCenter":{"$ref":"x"}"#, vec![]),
        ] {
            let filled = filled(&in_servicenow(attributes));
            let filled: Vec<_> = filled.iter().map(|(name, text)| (*name, &**text)).collect();
            assert_eq!(filled, expected, "{attributes}");
        }
    }

    #[test]
    fn the_enterprise_extension_counts_where_servicenows_has_nothing() {
        let both = |own: &str| {
            format!(
                r#"{{"{SERVICENOW_USER}":{{{own}}},"{ENTERPRISE_USER}":
                {{"manager":{{"value":"e","displayName":"E"}},"employeeNumber":"e","department":"e"}}}}"#
            )
        };
        let all = columns(&both(
            r#""manager":{"value":"s"},"employeeNumber":"s","department":"s""#,
        ));
        for (column, text) in [
            ("manager_id", Some("s")),
            // Half of one person and half of another would be nobody.
            ("manager", None),
            ("employee_number", Some("s")),
            ("department", Some("s")),
        ] {
            assert_eq!(all.get(column), text, "{column}");
        }
        let none = columns(&both(r#""manager":{"$ref":"s"}"#));
        for (column, text) in [
            ("manager_id", "e"),
            ("manager", "E"),
            ("employee_number", "e"),
            ("department", "e"),
        ] {
            assert_eq!(none.get(column), Some(text), "{column}");
        }
    }

    #[test]
    fn of_several_mails_and_phones_the_right_one_is_taken() {
        for (emails, email) in [
            (
                r#"[{"value":"b","type":"home","primary":true},{"value":"a","type":"WORK"}]"#,
                "a",
            ),
            (
                r#"[{"value":"a","type":"work"},{"value":"b","type":"work","primary":true}]"#,
                "b",
            ),
            (r#"[{"value":"a"},{"value":"b","primary":"true"}]"#, "b"),
            (r#"[{"value":"b"},{"value":"a"},{"type":"work"}]"#, "a"),
            (
                r#"[{"value":"b","$ref":"1"},{"value":"a","$ref":"2"}]"#,
                "a",
            ),
            (r#"{"value":"a"}"#, "a"),
            (r#"["b","a"]"#, "a"),
            (r#""a""#, "a"),
        ] {
            let json = format!(r#"{{"emails":{emails}}}"#);
            assert_eq!(filled(&json), [("email", email.to_owned())], "{emails}");
        }
        for (phones, expected) in [
            (r#""1""#, vec![("phone", "1")]),
            (
                r#"[{"value":"1"},{"value":"2","type":"work"}]"#,
                vec![("phone", "2")],
            ),
            (
                r#"{"value":"1","type":"mobile"}"#,
                vec![("mobile_phone", "1")],
            ),
            (r#"[{"value":"1","type":"home","primary":true}]"#, vec![]),
        ] {
            let filled = filled(&format!(r#"{{"phoneNumbers":{phones}}}"#));
            let filled: Vec<_> = filled.iter().map(|(name, text)| (*name, &**text)).collect();
            assert_eq!(filled, expected, "{phones}");
        }
    }

    #[test]
    fn what_does_not_fit_its_column_is_named() {
        for (json, message) in [
            (
                r#"{"title":["a"]}"#.to_owned(),
                "`title`: an array where a text should be".to_owned(),
            ),
            (
                r#"{"name":"Noor"}"#.to_owned(),
                "`name`: a text where an object should be".to_owned(),
            ),
            (
                r#"{"emails":[["a"]]}"#.to_owned(),
                "`emails[0]`: an array where a text should be".to_owned(),
            ),
            (
                in_servicenow(r#""manager":{"value":{"a":1}}"#),
                format!("`{SERVICENOW_USER}:manager.value`: an object where a text should be"),
            ),
            (
                in_servicenow(r#""company":["a"]"#),
                format!("`{SERVICENOW_USER}:company`: an array where a text should be"),
            ),
            (
                format!(r#"{{"{ENTERPRISE_USER}":1}}"#),
                format!("`{ENTERPRISE_USER}`: a number where an object should be"),
            ),
        ] {
            assert_eq!(user_columns(&json).unwrap_err().to_string(), message);
        }
        assert!(user_columns("").is_err());
        assert_eq!(
            columns(r#"{"title":true,"userName":1.50}"#).get("user_name"),
            Some("1.50")
        );
    }

    proptest! {
        #[test]
        fn any_json_gives_columns_or_a_reason(
            mut user in user(),
            odd in anything(),
            place: prop::sample::Index,
        ) {
            let members = user.members();
            let place = place.index(members.len());
            members[place].1 = odd.clone();
            let _ = user_columns(&user.write());
            let _ = user_columns(&odd.write());
        }

        #[test]
        fn the_columns_are_those_of_the_canonical_text(user in user(), seed: u64) {
            let arrived = arrive(&user.respell(&mut fastrand::Rng::with_seed(seed))).unwrap();
            prop_assert_eq!(user_columns(&user.write()), user_columns(&arrived.canonical));
        }
    }
}
