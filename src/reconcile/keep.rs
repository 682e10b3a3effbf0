//! What was read, with the old value at the paths that are held.

use std::borrow::Cow;

use super::canonical::{self, Node, Resource};
use super::{mapping, path};
use crate::model::ResourceType;
use crate::model::user::text_columns;

/// The canonical text of `new` with what `old` has at `paths`, as a held change names them: `active`,
/// a column (of a reference, its label's), or a SCIM path.
#[must_use]
pub fn keep(resource: ResourceType, old: &str, new: &str, paths: &[&str]) -> String {
    let before = Resource::stored(resource, old);
    let after = Resource::stored(resource, new);
    let mut merged = after.content().clone();
    let columns = text_columns(resource);
    let column = |path: &str| columns.iter().position(|column| *column == path);
    // Columns come last: an element that one of them puts back must not be overwritten by the path of its list.
    for path in paths
        .iter()
        .filter(|path| column(path).is_none() && **path != "active")
    {
        if let Some(names) = path::find(resource, before.content(), path) {
            put(before.content(), &mut merged, &names);
        }
    }
    for place in paths.iter().filter_map(|path| column(path)) {
        mapping::put_back(resource, place, before.content(), &mut merged);
    }
    let text = merged.to_text();
    match canonical::active(old).filter(|_| paths.contains(&"active")) {
        Some(active) => canonical::with_active(resource, &text, active),
        None => text,
    }
}

/// Puts the value that `old` has at these names, if there is one, into `new`.
pub(super) fn put<'n>(old: &Node<'n>, new: &mut Node<'n>, names: &[&str]) {
    let [name, rest @ ..] = names else {
        *new = old.clone();
        return;
    };
    let Some(value) = old.get(name) else { return };
    if !matches!(new, Node::Object(_)) {
        // Something else stands where the object was: an object cannot be put into that.
        *new = Node::Object(Vec::new());
    }
    let Node::Object(members) = new else { return };
    let place = match members.binary_search_by(|(member, _)| (**member).cmp(name)) {
        Ok(place) => place,
        Err(place) => {
            let empty = Node::Object(Vec::new());
            members.insert(place, (Cow::Owned((*name).to_owned()), empty));
            place
        }
    };
    put(value, &mut members[place].1, rest);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::samples::{arrive, two_users};
    use super::super::{diff, event, guard};
    use super::*;
    use crate::model::{ChangeEvent, Kind, State};

    fn state(raw: &str) -> State {
        event::seen(None, arrive(raw).unwrap()).after
    }

    fn changed(before: &State, after: &State) -> Value {
        let event = ChangeEvent {
            resource: ResourceType::User,
            id: crate::model::ResourceId::new("a"),
            before: Some(before.clone()),
            after: after.clone(),
            proof: None,
        };
        let record = diff::record(event, true);
        let json = record.and_then(|record| record.changed);
        json.map_or_else(
            || Value::Object(Default::default()),
            |json| serde_json::from_str(&json).unwrap(),
        )
    }

    fn kept(old: &str, new: &str, paths: &[&str]) -> String {
        let text = |raw: &str| state(raw).canonical;
        keep(ResourceType::User, &text(old), &text(new), paths)
    }

    #[test]
    fn the_old_value_stays_at_its_path_and_all_else_is_new() {
        let old = r#"{"id":"a","active":true,"title":"x","name":{"givenName":"g","middleName":"m"},
            "emails":[{"type":"work","value":"w"},{"type":"home","value":"h"}],
            "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User":{"manager":{"value":"m1","displayName":"M"},"vip":true}}"#;
        let new = r#"{"id":"a","active":false,"name":{"givenName":"G"},"nickName":"n"}"#;
        assert_eq!(
            kept(old, new, &["active", "title", "name.middleName"]),
            r#"{"active":true,"id":"a","name":{"givenName":"G","middleName":"m"},"nickName":"n","title":"x"}"#
        );
        assert_eq!(
            kept(old, new, &["email", "manager"]),
            r#"{"active":false,"emails":[{"type":"work","value":"w"}],"id":"a","name":{"givenName":"G"},"nickName":"n","urn:ietf:params:scim:schemas:extension:servicenow:2.0:User":{"manager":{"displayName":"M","value":"m1"}}}"#
        );
    }

    proptest! {
        /// Some of what is held may keep the rest whole, such as a list the mail in it; never each the other.
        #[test]
        fn what_is_held_can_be_released_one_by_one((one, other) in two_users()) {
            let (mut before, after) = (state(&one.write()), state(&other.write()));
            let concerns = |before: &State| {
                let changed = changed(before, &after).to_string();
                guard::concerns(ResourceType::User, Kind::Update, Some(&changed))
            };
            let mut held = concerns(&before);
            while !held.is_empty() {
                let released = held.iter().find_map(|concern| {
                    let paths: Vec<&str> =
                        held.iter().filter(|one| *one != concern).map(|one| one.path(false)).collect();
                    let canonical =
                        keep(ResourceType::User, &before.canonical, &after.canonical, &paths);
                    let event = ChangeEvent {
                        resource: ResourceType::User,
                        id: crate::model::ResourceId::new("a"),
                        before: Some(before.clone()),
                        after: State { canonical, ..after.clone() },
                        proof: None,
                    };
                    let record = diff::record(event, true)?;
                    guard::tells(&record, concern).then_some(record.after)
                });
                let Some(rest) = released else {
                    return Err(TestCaseError::fail(format!("{held:?} of {} and {}", before.canonical, after.canonical)));
                };
                before = rest;
                let left = concerns(&before);
                prop_assert!(left.len() < held.len(), "{:?} and then {:?}", held, left);
                held = left;
            }
        }

        #[test]
        fn a_held_path_does_not_change_and_nothing_else_is_made_up((one, other) in two_users()) {
            let (before, after) = (state(&one.write()), state(&other.write()));
            let all = changed(&before, &after);
            let concerns = guard::concerns(ResourceType::User, Kind::Update, Some(&all.to_string()));
            let paths: Vec<&str> = concerns.iter().map(|concern| concern.path(false)).collect();
            let merged = State {
                canonical: keep(ResourceType::User, &before.canonical, &after.canonical, &paths),
                ..after
            };
            let rest = changed(&before, &merged);
            for path in &paths {
                prop_assert!(rest.get(path).is_none(), "{path} in {rest}");
                prop_assert!(guard::has(ResourceType::User, &merged.canonical, path), "{path}");
            }
            // What moved from one extension to the other, which a column reads from either, is told by
            // other paths when half of it stays.
            let moves = paths.iter().any(|path| path.starts_with("urn:"));
            // A mail or a number that is put back stands beside what else came in its list: that the list
            // differs is true, and told by its own path.
            let is_list = |path: &str| matches!(path, "emails" | "phoneNumbers");
            let made = rest.as_object().unwrap().keys().filter(|path| !moves && !is_list(path));
            for path in made {
                prop_assert!(all.get(path).is_some(), "{path} is made up: {all}");
            }
            let reread = Resource::stored(ResourceType::User, &merged.canonical).to_text();
            prop_assert_eq!(reread, merged.canonical);
        }
    }
}
