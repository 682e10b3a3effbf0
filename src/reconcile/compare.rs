//! What differs between two resources: in their columns, and in all that no column tells.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::canonical::Node;
use super::mapping::{self, Leaves};
use super::path;
use super::tree::write_text;
use crate::model::ResourceType;
use crate::model::user::{TEXT_COLUMNS, text_columns};

/// What differs, by path: the JSON before and after, `null` for absent.
pub(super) type Differences = BTreeMap<String, [String; 2]>;

/// What differs between two resources of one type without their links, `active` aside.
///
/// Every difference in content is told: by its path, or by changed columns that hold the old and
/// the new value.
pub(super) fn differences<'n>(
    resource: ResourceType,
    old: &'n Node<'n>,
    new: &'n Node<'n>,
) -> Differences {
    // What does not fit its column was never mirrored; in a damaged file it fills none.
    let leaves = [old, new].map(|one| mapping::leaves(resource, one).unwrap_or_default());
    let columns: [_; TEXT_COLUMNS.len()] =
        std::array::from_fn(|place| leaves.map(|leaves| leaves[place].and_then(mapping::text)));
    let changed = std::array::from_fn(|place| columns[place][0] != columns[place][1]);

    let mut comparison = Comparison {
        resource,
        leaves,
        changed,
        path: Vec::new(),
        found: Differences::new(),
    };
    comparison.members(Some(old), Some(new));

    let mut found = comparison.found;
    for (place, (column, texts)) in text_columns(resource).iter().zip(columns).enumerate() {
        let other = mapping::other_of_reference(resource, place);
        if changed[place] || other.is_some_and(|other| changed[other]) {
            found.insert((*column).to_owned(), texts.map(text_or_null));
        }
    }
    found
}

/// A text as JSON.
pub(super) fn text_or_null(text: Option<impl AsRef<str>>) -> String {
    let mut json = String::new();
    match text {
        Some(text) => write_text(text.as_ref(), &mut json),
        None => json.push_str("null"),
    }
    json
}

/// Compares two resources member by member, and keeps what no changed column tells.
struct Comparison<'n> {
    resource: ResourceType,
    leaves: [Leaves<'n>; 2],
    /// The columns that differ.
    changed: [bool; TEXT_COLUMNS.len()],
    /// Where we are, from the top.
    path: Vec<&'n str>,
    found: Differences,
}

/// Before or after.
#[derive(Clone, Copy)]
enum Side {
    Old,
    New,
}

impl<'n> Comparison<'n> {
    /// Two objects, or one beside nothing, which is the same as an empty one.
    fn members(&mut self, old: Option<&'n Node<'n>>, new: Option<&'n Node<'n>>) {
        let of = |node: Option<&'n Node<'n>>| {
            let members = match node {
                Some(Node::Object(members)) => members.as_slice(),
                _ => &[],
            };
            members.iter().map(|(name, node)| (&**name, node))
        };
        for (name, old, new) in side_by_side(of(old), of(new)) {
            self.path.push(name);
            self.member(old, new);
            self.path.pop();
        }
    }

    fn member(&mut self, old: Option<&'n Node<'n>>, new: Option<&'n Node<'n>>) {
        // `active` has its own column.
        if old == new || self.path == ["active"] {
            return;
        }
        let both = |is: fn(&Node<'_>) -> bool| old.is_none_or(is) && new.is_none_or(is);
        if both(|node| matches!(node, Node::Object(_))) {
            return self.members(old, new);
        }
        let told = if both(|node| matches!(node, Node::List(_))) {
            self.elements_are_told(old, new)
        } else {
            self.is_told(Side::Old, old) && self.is_told(Side::New, new)
        };
        if !told {
            let json = [old, new].map(|node| node.map_or("null".to_owned(), Node::to_text));
            self.found
                .insert(path::of_change(self.resource, &self.path), json);
        }
    }

    /// Whether a value, if there is one, stands in a changed column.
    fn is_told(&self, side: Side, node: Option<&Node<'_>>) -> bool {
        node.is_none_or(|node| self.changed_column(side, node).is_some())
    }

    fn changed_column(&self, side: Side, node: &Node<'_>) -> Option<usize> {
        let leaves = &self.leaves[side as usize];
        leaves.iter().zip(self.changed).position(|(leaf, changed)| {
            changed && leaf.is_some_and(|leaf| std::ptr::eq(leaf, node))
        })
    }

    /// Whether all elements that only one side has are values of changed columns with no more than
    /// their `type`, and that is the same before and after.
    fn elements_are_told(&self, old: Option<&'n Node<'n>>, new: Option<&'n Node<'n>>) -> bool {
        let (old, new) = only_in_one(old, new);
        let told = |side, elements: &[&'n Node<'n>]| -> Option<Vec<_>> {
            elements
                .iter()
                .map(|element| self.told_element(side, element))
                .collect()
        };
        let (Some(old), Some(new)) = (told(Side::Old, &old), told(Side::New, &new)) else {
            return false;
        };
        old.iter().all(|(column, kind)| {
            new.iter()
                .all(|(other, new_kind)| column != other || kind == new_kind)
        })
    }

    /// The changed column and the `type` of an element that has nothing else to tell.
    fn told_element(
        &self,
        side: Side,
        element: &'n Node<'n>,
    ) -> Option<(usize, Option<&'n Node<'n>>)> {
        let Node::Object(members) = element else {
            return Some((self.changed_column(side, element)?, None));
        };
        members
            .iter()
            .all(|(name, _)| matches!(&**name, "value" | "type"))
            .then_some(())?;
        let column = self.changed_column(side, element.get("value")?)?;
        Some((column, element.get("type")))
    }
}

/// The elements of one list that the other has not, and the other way round.
fn only_in_one<'n>(
    old: Option<&'n Node<'n>>,
    new: Option<&'n Node<'n>>,
) -> (Vec<&'n Node<'n>>, Vec<&'n Node<'n>>) {
    let of = |node: Option<&'n Node<'n>>| {
        let elements = match node {
            Some(Node::List(elements)) => elements.as_slice(),
            _ => &[],
        };
        elements.iter().map(|node| (node.to_text(), node))
    };
    let (mut only_old, mut only_new) = (Vec::new(), Vec::new());
    for (_, old, new) in side_by_side(of(old), of(new)) {
        match (old, new) {
            (Some(_), Some(_)) => {}
            (old, new) => {
                only_old.extend(old);
                only_new.extend(new);
            }
        }
    }
    (only_old, only_new)
}

/// Goes through two sequences in the order of their keys: what has the same key comes together.
fn side_by_side<K: Ord, T>(
    old: impl Iterator<Item = (K, T)>,
    new: impl Iterator<Item = (K, T)>,
) -> impl Iterator<Item = (K, Option<T>, Option<T>)> {
    let (mut old, mut new) = (old.peekable(), new.peekable());
    std::iter::from_fn(move || {
        let order = match (old.peek(), new.peek()) {
            (Some((a, _)), Some((b, _))) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let a = old.next_if(|_| order.is_le());
        let b = new.next_if(|_| order.is_ge());
        match (a, b) {
            (Some((key, a)), b) => Some((key, Some(a), b.map(|(_, b)| b))),
            (None, Some((key, b))) => Some((key, None, Some(b))),
            (None, None) => None,
        }
    })
}
