//! Lists of members: read, compared with who was known, and believed or not (facts page, Q40).

use super::canonical::Node;
use super::mapping::text;
use super::tree::write_text;
use crate::model::{Member, MemberKind, MemberList, MembersKnown, Shown};

/// Lists may be cut at so many, and at a multiple of it, without a word (facts page, section 10).
const CAP: usize = 100;

/// Reads the members of a group. What cannot be read of them is told, and costs nobody else (promise P9).
#[must_use]
pub(super) fn list(node: Option<&Node<'_>>) -> MemberList {
    let elements = match node {
        None => &[],
        Some(Node::List(elements)) => elements.as_slice(),
        Some(single) => std::slice::from_ref(single),
    };
    let n_arrived = elements.len();
    let mut list = MemberList {
        members: Vec::with_capacity(n_arrived),
        n_arrived,
        ..MemberList::default()
    };
    // A member whose fields were blanked is a member, and nobody knows which.
    let is_empty = |element: &&Node<'_>| matches!(element, Node::List(inside) if inside.is_empty());
    let n_empty = elements.iter().filter(is_empty).count();
    if n_empty > 0 {
        list.unreadable = Some(format!("`members`: {n_empty} of {n_arrived} are empty"));
    }
    for (place, element) in elements.iter().enumerate() {
        match member(element) {
            Some((member, is_mislinked)) => {
                list.mislinked += u64::from(is_mislinked);
                list.members.push(member);
            }
            None => {
                let why = || format!("`members[{place}]`: {} without a `value`", element.kind());
                list.unreadable.get_or_insert_with(why);
            }
        }
    }
    // Of one who stands there twice a user counts, and of two names the first: in whatever order they arrived.
    list.members
        .sort_by(|a, b| (&a.id, a.kind, &a.label).cmp(&(&b.id, b.kind, &b.label)));
    list.members.dedup_by(|later, first| later.id == first.id);
    list
}

/// One member, and whether its link leads to another id than its value.
fn member(element: &Node<'_>) -> Option<(Member, bool)> {
    let (value, node) = match element {
        Node::Object(_) => (text(element.get("value")?)?, Some(element)),
        // What is neither a list nor an object is the id itself.
        Node::Text(_) | Node::Number(_) => (text(element)?, None),
        Node::Bool(_) | Node::List(_) => return None,
    };
    let member = |name: &str| node.and_then(|node| text(node.get(name)?));
    let link = member("$ref");
    let mut link = link.as_deref().unwrap_or_default().rsplit('/');
    let (linked, endpoint) = (link.next().unwrap_or_default(), link.next());
    let kind = member("type").map(|kind| kind.to_ascii_lowercase());
    let kind = match (kind.as_deref(), endpoint) {
        (Some("group"), _) => MemberKind::Group,
        (Some("user"), _) => MemberKind::User,
        (_, Some("Groups")) => MemberKind::Group,
        _ => MemberKind::User,
    };
    let is_mislinked = !linked.is_empty() && !linked.contains('%') && *linked != *value;
    let one = Member {
        id: value.into_owned(),
        kind,
        label: member("display").map(std::borrow::Cow::into_owned),
    };
    Some((one, is_mislinked))
}

/// The groups that a user says to be in directly; `None` where the user says nothing of groups.
#[must_use]
pub fn groups_of_user(raw: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(raw).ok()?;
    let user: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let named = |name: &str, wanted: &str| name.eq_ignore_ascii_case(wanted);
    let (_, groups) = user.iter().find(|(name, _)| named(name, "groups"))?;
    let groups = groups.as_array()?;
    let value = |group: &serde_json::Value| {
        let member = |wanted: &str| {
            let found = group
                .as_object()?
                .iter()
                .find(|(name, _)| named(name, wanted));
            found?.1.as_str().map(str::to_owned)
        };
        // Whoever is in a group that is nested in another is not in that one's list.
        let is_direct = member("type").is_none_or(|kind| !kind.eq_ignore_ascii_case("indirect"));
        member("value").filter(|_| is_direct)
    };
    Some(groups.iter().filter_map(value).collect())
}

/// Holds a list, which has each member once and in the order of ids, against who is known, told one by one in the same order.
#[derive(Debug)]
pub struct Comparison<'l, L: Iterator<Item = Shown<'l>>> {
    left: std::iter::Peekable<L>,
    came: Vec<Member>,
}

impl<'l, L: Iterator<Item = Shown<'l>>> Comparison<'l, L> {
    /// Nobody is told yet.
    pub fn of(list: L) -> Self {
        Self {
            left: list.peekable(),
            came: Vec::new(),
        }
    }

    /// Whether the next of those who are known is in the list.
    pub fn has(&mut self, known: &[u8]) -> bool {
        while let Some(shown) = self.left.next_if(|shown| shown.id.as_bytes() < known) {
            self.came.push(shown.to_member());
        }
        let is_known = |shown: &Shown<'_>| shown.id.as_bytes() == known;
        self.left.next_if(is_known).is_some()
    }

    /// Who is in the list and was not told.
    pub fn came(mut self) -> Vec<Member> {
        self.came.extend(self.left.map(Shown::to_member));
        self.came
    }
}

/// Whether a list ends where one that is cut would end: by how many arrived, of whom somebody may stand there twice.
#[must_use]
pub fn ends_at_cap(n_arrived: usize) -> bool {
    n_arrived > 0 && n_arrived.is_multiple_of(CAP)
}

/// Whether two answers about one group show the same members. Their names are no matter.
#[must_use]
pub fn agree(one: &MemberList, other: &MemberList) -> bool {
    let ids = |list: &MemberList| list.unreadable.is_some();
    !ids(one)
        && !ids(other)
        && one.members.len() == other.members.len()
        && (one.members.iter().zip(&other.members)).all(|(one, other)| one.id == other.id)
}

/// What is known by a list that lost members and could not be confirmed.
#[must_use]
pub fn disbelieved(list: &MemberList) -> MembersKnown {
    match list.members.is_empty() || list.unreadable.is_some() {
        true => MembersKnown::Unknown,
        false => MembersKnown::Cut,
    }
}

/// The canonical text of a membership: its columns, and `active` while it lives.
#[must_use]
pub fn canonical(group: &str, member: &Member, active: bool) -> String {
    let mut text = String::from("{\"active\":");
    text.push_str(if active { "true" } else { "false" });
    let columns = [
        ("group_id", Some(group)),
        ("label", member.label.as_deref()),
        ("member_id", Some(&*member.id)),
        ("member_type", Some(member.kind.as_str())),
    ];
    for (name, value) in columns {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text.push(',');
            write_text(name, &mut text);
            text.push(':');
            write_text(value, &mut text);
        }
    }
    text.push('}');
    text
}

/// Group and member of the canonical text of a membership.
#[must_use]
pub fn of_canonical(canonical: &str) -> Option<(String, Member)> {
    let columns: serde_json::Value = serde_json::from_str(canonical).ok()?;
    let text = |name: &str| Some(columns.get(name)?.as_str()?.to_owned());
    let kind = match &*text("member_type")? {
        "User" => MemberKind::User,
        "Group" => MemberKind::Group,
        _ => return None,
    };
    let member = Member {
        id: text("member_id")?,
        kind,
        label: text("label"),
    };
    Some((text("group_id")?, member))
}

/// The member's name in the canonical text of a membership.
#[must_use]
pub fn label(canonical: &str) -> Option<String> {
    of_canonical(canonical)?.1.label
}

/// `changed` of a membership that ends.
#[must_use]
pub fn ended(at: &str) -> String {
    let mut text = String::from("{\"ended_at\":{\"from\":null,\"to\":");
    write_text(at, &mut text);
    text.push_str("}}");
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::canonical::Resource;
    use super::*;
    use crate::model::ResourceType;

    /// The list of a group that has these members, and its canonical text.
    fn read(members: &serde_json::Value) -> (MemberList, String) {
        let text = json!({"id": "g", "displayName": "Desk", "members": members}).to_string();
        let group = Resource::parse(ResourceType::Group, &text).unwrap();
        let list = list(group.members());
        (list, group.to_text())
    }

    fn ids(list: &MemberList) -> Vec<&str> {
        list.members.iter().map(|member| &*member.id).collect()
    }

    fn list_of<'i>(ids: impl IntoIterator<Item = &'i str>) -> MemberList {
        let member = |id: &str| Member {
            id: id.to_owned(),
            kind: MemberKind::User,
            label: None,
        };
        let members: Vec<Member> = ids.into_iter().map(member).collect();
        MemberList {
            n_arrived: members.len(),
            members,
            ..MemberList::default()
        }
    }

    #[test]
    fn members_are_a_set_whatever_form_they_have_and_no_content_of_their_group() {
        let (list, canonical) = read(&json!([
            {"value": "b", "display": "Bea", "$ref": "https://x/Users/b"},
            {"value": "a", "$ref": "https://x/Groups/a"},
            {"value": "b", "display": "Another", "$ref": "https://x/Users/b"},
            {"value": 7, "type": "GROUP"},
            "plain",
        ]));
        assert_eq!(ids(&list), ["7", "a", "b", "plain"]);
        let kinds: Vec<MemberKind> = list.members.iter().map(|member| member.kind).collect();
        assert_eq!(
            kinds,
            [
                MemberKind::Group,
                MemberKind::Group,
                MemberKind::User,
                MemberKind::User
            ]
        );
        assert_eq!(list.members[2].label.as_deref(), Some("Another"));
        assert_eq!((list.unreadable, list.mislinked), (None, 0));
        assert_eq!(canonical, r#"{"displayName":"Desk","id":"g"}"#);
    }

    #[test]
    fn nobody_is_a_list_too_and_what_cannot_be_read_is_told() {
        for nobody in [json!(null), json!([]), json!({}), json!("")] {
            assert_eq!(read(&nobody).0, MemberList::default(), "{nobody}");
        }
        let (list, _) = read(&json!([{"display": "No value"}, {"value": "a"}]));
        assert_eq!(ids(&list), ["a"]);
        assert!(list.unreadable.unwrap().contains("`members["));
        assert!(read(&json!(true)).0.unreadable.is_some());
        assert_eq!(ids(&read(&json!({"value": "a"})).0), ["a"]);
    }

    #[test]
    fn members_that_are_blank_are_members_that_cannot_be_read() {
        let blank = json!({"value": "", "display": "", "$ref": ""});
        for blank in [blank, json!({}), json!(null), json!("")] {
            let (list, _) = read(&json!([{"value": "a"}, blank, {"value": "b"}]));
            assert_eq!((ids(&list), list.n_arrived), (vec!["a", "b"], 3), "{blank}");
            assert_eq!(
                list.unreadable.as_deref(),
                Some("`members`: 1 of 3 are empty")
            );
            let (list, _) = read(&json!([blank]));
            assert!(list.unreadable.is_some() && list.members.is_empty());
        }
        let whole = json!([{"value": "a"}, {"value": "a", "$ref": null}]);
        assert_eq!(read(&whole).0.unreadable, None);
        let odd = r#"{"id":"g","x":{"members":[1]},"MEMBERS":[{},[2,3],"]"],"y":1}"#;
        let odd = Resource::parse(ResourceType::Group, odd).unwrap();
        assert_eq!(list(odd.members()).n_arrived, 3);
    }

    #[test]
    fn a_link_to_somebody_else_is_counted_and_the_value_counts() {
        let (list, _) = read(&json!([
            {"value": "a", "$ref": "https://x/Users/b"},
            {"value": "c/d", "$ref": "https://x/Users/c%2Fd"},
        ]));
        assert_eq!(ids(&list), ["a", "c/d"]);
        assert_eq!(list.mislinked, 1);
    }

    #[test]
    fn users_say_what_they_are_in_directly() {
        let groups = |json: serde_json::Value| groups_of_user(json.to_string().as_bytes());
        assert_eq!(groups(json!({"id": "u"})), None);
        assert_eq!(groups(json!({"Groups": []})), Some(vec![]));
        let listed = json!({"groups": [
            {"value": "a", "type": "direct"},
            {"value": "b", "type": "indirect"},
            {"VALUE": "c"},
            "odd",
        ]});
        assert_eq!(groups(listed), Some(vec!["a".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn a_list_may_be_cut_where_its_length_is_a_multiple_of_the_cap() {
        assert!([100, 200, 5_000].into_iter().all(ends_at_cap));
        assert!(![0, 99, 101].into_iter().any(ends_at_cap));
        // One stands there twice: the list is as long as a cut one all the same.
        let mut doubled: Vec<_> = (0..99).map(|n| json!({"value": n})).collect();
        doubled.push(json!({"value": 7}));
        let (doubled, _) = read(&doubled.into());
        assert_eq!(doubled.members.len(), 99);
        assert!(ends_at_cap(doubled.n_arrived));
        assert_eq!(disbelieved(&list_of([])), MembersKnown::Unknown);
        assert_eq!(disbelieved(&list_of(["a"])), MembersKnown::Cut);
    }

    #[test]
    fn two_answers_agree_by_who_is_in_them() {
        assert!(agree(&list_of(["a", "b"]), &list_of(["a", "b"])));
        assert!(!agree(&list_of(["a", "b"]), &list_of(["a"])));
        assert!(!agree(&list_of(["a"]), &list_of(["b"])));
        let unreadable = MemberList {
            unreadable: Some("why".to_owned()),
            ..list_of(["a"])
        };
        assert!(!agree(&unreadable, &unreadable));
    }

    #[test]
    fn a_membership_tells_its_columns() {
        let member = Member {
            id: "u\"1".to_owned(),
            kind: MemberKind::Group,
            label: Some("Zoë".to_owned()),
        };
        let text = canonical("g", &member, true);
        assert_eq!(
            text,
            r#"{"active":true,"group_id":"g","label":"Zoë","member_id":"u\"1","member_type":"Group"}"#
        );
        assert_eq!(of_canonical(&text), Some(("g".to_owned(), member.clone())));
        assert_eq!(label(&text).as_deref(), Some("Zoë"));
        // What a fold and a removal make of it is one text.
        let parsed = Resource::parse(ResourceType::Membership, &text).unwrap();
        assert_eq!(parsed.to_text(), text);
        assert_eq!(
            ended("2026-03-01T00:00:00.000Z"),
            r#"{"ended_at":{"from":null,"to":"2026-03-01T00:00:00.000Z"}}"#
        );
    }

    proptest! {
        #[test]
        fn comparing_gives_exactly_who_is_on_one_side(
            known in prop::collection::btree_set("[a-d]{0,2}", 0..8),
            shown in prop::collection::btree_set("[a-d]{0,2}", 0..8),
        ) {
            let list = list_of(shown.iter().map(String::as_str));
            let mut comparison = Comparison::of(list.members.iter().map(Member::shown));
            let mut missing = known.clone();
            missing.retain(|one| !comparison.has(one.as_bytes()));
            let came: BTreeSet<String> = comparison.came().into_iter().map(|one| one.id).collect();
            prop_assert_eq!(came, shown.difference(&known).cloned().collect());
            prop_assert_eq!(missing, known.difference(&shown).cloned().collect());
        }
    }
}
