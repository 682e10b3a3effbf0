//! The diff engine: a change event becomes a create, update or deactivate record, or nothing.

use super::canonical::{Node, Resource};
use super::compare::{self, Differences, text_or_null};
use super::event;
use super::tree::write_text;
use crate::model::time::our_text;
use crate::model::{ChangeEvent, ChangeRecord, Kind, Reason, ResourceId, ResourceType, State};

/// Makes the record of an event; `None` when no tracked field changed. Before there is a baseline,
/// creates and updates have the reason `baseline`.
///
/// The texts of two states that differ in links alone are one content: the mirror keeps the old one.
#[must_use]
pub fn record(event: ChangeEvent, has_baseline: bool) -> Option<ChangeRecord> {
    let (kind, reason, changed) = match &event.before {
        // Nobody knew them, so nobody misses them.
        None if event.after.gone_at.is_some() => return None,
        None => (Kind::Create, Reason::New, None),
        Some(before) => {
            let changes = Changes::between(event.resource, before, &event.after)?;
            let (kind, reason) = changes.verdict(before, &event.after);
            (kind, reason, Some(changes.into_json()))
        }
    };
    let reason = match (kind, reason) {
        // A deactivation says what it is at any time, and so does what a fold must know.
        (Kind::Deactivate, reason) | (_, reason @ Reason::Gone) => reason,
        (Kind::Create | Kind::Update, _) if !has_baseline => Reason::Baseline,
        (_, reason) => reason,
    };
    Some(ChangeRecord {
        resource: event.resource,
        id: event.id,
        kind,
        reason,
        changed,
        after: event.after,
        proof: event.proof,
    })
}

/// The record of somebody who leaves the mirror because the instance is not linked any more, whatever he was: the readers of the
/// feed must know of everybody whose row goes. It keeps what he was last, with `active` false.
#[must_use]
pub fn unlinked(resource: ResourceType, id: ResourceId, before: State) -> ChangeRecord {
    let after = event::inactive(resource, before.clone());
    let changed = Changes::between(resource, &before, &after);
    ChangeRecord {
        resource,
        id,
        kind: Kind::Deactivate,
        reason: Reason::Unlinked,
        changed: Some(changed.map_or_else(|| "{}".to_owned(), Changes::into_json)),
        after,
        proof: None,
    }
}

/// What changed, and `active` before and after.
struct Changes {
    by_path: Differences,
    active: [bool; 2],
}

impl Changes {
    /// `None` when nothing did.
    fn between(resource: ResourceType, before: &State, after: &State) -> Option<Self> {
        if before.canonical == after.canonical && before.gone_at == after.gone_at {
            return None;
        }
        let old = Resource::stored(resource, &before.canonical);
        let new = Resource::stored(resource, &after.canonical);
        let nothing = || Node::Object(Vec::new());
        let [old_user, new_user] = [&old, &new].map(|resource| {
            let user = resource.content().without_links();
            user.unwrap_or_else(nothing)
        });
        let mut by_path = compare::differences(resource, &old_user, &new_user);

        let active = [&old, &new].map(Resource::active);
        if active[0] != active[1] {
            let json = active.map(|active| active.map_or("null".to_owned(), |is| is.to_string()));
            by_path.insert("active".to_owned(), json);
        }
        let gone_at = [before, after].map(|state| state.gone_at.map(our_text));
        if gone_at[0] != gone_at[1] {
            by_path.insert("gone_at".to_owned(), gone_at.map(text_or_null));
        }
        (!by_path.is_empty()).then_some(Self {
            by_path,
            // A missing `active` is unknown, never false.
            active: active.map(|active| active.unwrap_or(true)),
        })
    }

    fn verdict(&self, before: &State, after: &State) -> (Kind, Reason) {
        match (
            before.gone_at.is_some(),
            after.gone_at.is_some(),
            self.active,
        ) {
            (_, true, [true, _]) => (Kind::Deactivate, Reason::Gone),
            (_, true, [false, _]) => (Kind::Update, Reason::Gone),
            (true, false, _) => (Kind::Update, Reason::Returned),
            (false, false, [true, false]) => (Kind::Deactivate, Reason::Inactive),
            (false, false, [false, true]) => (Kind::Update, Reason::Reactivated),
            (false, false, _) => (Kind::Update, Reason::Changed),
        }
    }

    fn into_json(self) -> String {
        let mut json = String::from("{");
        for (path, [from, to]) in &self.by_path {
            if json.len() > 1 {
                json.push(',');
            }
            write_text(path, &mut json);
            json.push_str(":{\"from\":");
            json.push_str(from);
            json.push_str(",\"to\":");
            json.push_str(to);
            json.push('}');
        }
        json.push('}');
        json
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::mapping::user_columns;
    use super::super::names::{CORE_USER, CUSTOM_USER, ENTERPRISE_USER, SERVICENOW_USER};
    use super::super::path::ScimPath;
    use super::super::samples::{arrive, content, proof, two_users};
    use super::*;
    use crate::model::user::TEXT_COLUMNS;

    fn state(raw: &str) -> State {
        event::seen(None, arrive(raw).unwrap()).after
    }

    fn update(before: &str, after: &str) -> Option<ChangeRecord> {
        let seen = event::seen(Some(state(before)), arrive(after).unwrap());
        record(seen, true)
    }

    fn changed(record: Option<&ChangeRecord>) -> Value {
        let changed = record.and_then(|record| record.changed.as_deref());
        changed.map_or(Value::Null, |json| serde_json::from_str(json).unwrap())
    }

    /// What changed between two users who have these members beside an `id`.
    fn difference(before: &str, after: &str) -> Value {
        let user = |members: &str| format!(r#"{{"id":"a",{members}}}"#);
        changed(update(&user(before), &user(after)).as_ref())
    }

    #[test]
    fn kind_and_reason_follow_from_what_was_and_is() {
        let time = |text: &str| Some(text.parse().unwrap());
        let living = |active: bool| state(&format!(r#"{{"id":"a","active":{active}}}"#));
        let gone = || State {
            gone_at: time("2026-03-01T00:00:00Z"),
            ..living(false)
        };
        let titled = || state(r#"{"id":"a","active":true,"title":"x"}"#);
        use Kind::{Create, Deactivate, Update};
        for (before, after, kind, reason, without_baseline) in [
            (None, living(true), Create, Reason::New, Reason::Baseline),
            (None, living(false), Create, Reason::New, Reason::Baseline),
            (
                Some(living(true)),
                titled(),
                Update,
                Reason::Changed,
                Reason::Baseline,
            ),
            (
                Some(living(true)),
                living(false),
                Deactivate,
                Reason::Inactive,
                Reason::Inactive,
            ),
            (
                Some(titled()),
                living(false),
                Deactivate,
                Reason::Inactive,
                Reason::Inactive,
            ),
            (
                Some(living(false)),
                living(true),
                Update,
                Reason::Reactivated,
                Reason::Baseline,
            ),
            (
                Some(living(true)),
                gone(),
                Deactivate,
                Reason::Gone,
                Reason::Gone,
            ),
            (
                Some(living(false)),
                gone(),
                Update,
                Reason::Gone,
                Reason::Gone,
            ),
            (
                Some(gone()),
                living(true),
                Update,
                Reason::Returned,
                Reason::Baseline,
            ),
            (
                Some(gone()),
                living(false),
                Update,
                Reason::Returned,
                Reason::Baseline,
            ),
        ] {
            for (has_baseline, reason) in [(true, reason), (false, without_baseline)] {
                let event = ChangeEvent {
                    resource: ResourceType::User,
                    id: ResourceId::new("a"),
                    before: before.clone(),
                    after: after.clone(),
                    proof: None,
                };
                let record = record(event, has_baseline).unwrap();
                assert_eq!(
                    (record.kind, record.reason),
                    (kind, reason),
                    "{before:?} {after:?}"
                );
                assert_eq!(record.after, after);
                assert_eq!(record.changed.is_none(), kind == Kind::Create);
            }
        }
    }

    #[test]
    fn gone_and_returned_tell_since_when() {
        let now = "2026-03-01T00:00:00.25Z".parse().unwrap();
        let gone = |before: State| {
            let id = ResourceId::new("a");
            event::gone(ResourceType::User, id, before, Some(proof()), now)
        };
        let active = record(gone(state(r#"{"id":"a"}"#)), true).unwrap();
        assert_eq!(
            active.changed.as_deref().unwrap(),
            r#"{"active":{"from":true,"to":false},"gone_at":{"from":null,"to":"2026-03-01T00:00:00.250Z"}}"#
        );
        assert_eq!(active.proof, Some(proof()));
        let inactive = record(gone(state(r#"{"id":"a","active":false}"#)), true);
        assert_eq!(
            changed(inactive.as_ref()),
            json!({"gone_at": {"from": null, "to": "2026-03-01T00:00:00.250Z"}})
        );
        assert_eq!(record(gone(active.after.clone()), true), None);
        let seen = event::seen(
            Some(active.after),
            arrive(r#"{"id":"a","title":"x"}"#).unwrap(),
        );
        assert_eq!(
            changed(record(seen, true).as_ref()),
            json!({
                "active": {"from": false, "to": true},
                "gone_at": {"from": "2026-03-01T00:00:00.250Z", "to": null},
                "title": {"from": null, "to": "x"},
            })
        );
    }

    #[test]
    fn stamps_groups_links_and_spelling_are_no_change() {
        for (before, after) in [
            (
                r#""meta":{"lastModified":"2026-01-01T00:00:00Z"}"#,
                r#""meta":{}"#,
            ),
            (r#""groups":[{"value":"a"}]"#, r#""groups":[]"#),
            (
                r#""x":[{"$ref":"1","v":2},{"$ref":"2","v":1}]"#,
                r#""x":[{"$ref":"3","v":1},{"v":2}]"#,
            ),
            (r#""x":{"$ref":"a"},"y":[{"$ref":"b"}]"#, r#""z":null"#),
            (
                r#""emails":[{"type":"work","value":"a"}],"active":"TRUE""#,
                r#""EMAILS":[{"Value":"a","Type":"work"}]"#,
            ),
        ] {
            assert_eq!(difference(before, after), Value::Null, "{before} {after}");
        }
    }

    #[test]
    fn what_a_column_tells_is_not_told_twice() {
        let mail = |value: &str| format!(r#"{{"type":"work","value":"{value}"}}"#);
        let home = r#"{"type":"home","value":"h"}"#;
        let (a, b) = (mail("a"), mail("b"));
        let email = |from: Value, to: Value| json!({"email": {"from": from, "to": to}});
        for (before, after, expected) in [
            (
                format!("[{a}]"),
                format!("[{b}]"),
                email(json!("a"), json!("b")),
            ),
            (
                format!("[{a},{home}]"),
                format!("[{b},{home}]"),
                email(json!("a"), json!("b")),
            ),
            (
                "[]".to_owned(),
                format!("[{a}]"),
                email(Value::Null, json!("a")),
            ),
            (
                format!("[{a},{home}]"),
                format!("[{home}]"),
                email(json!("a"), json!("h")),
            ),
            (a.clone(), b.clone(), email(json!("a"), json!("b"))),
            (
                r#""a""#.to_owned(),
                r#""b""#.to_owned(),
                email(json!("a"), json!("b")),
            ),
        ] {
            let difference = difference(
                &format!(r#""emails":{before}"#),
                &format!(r#""emails":{after}"#),
            );
            assert_eq!(difference, expected, "{before} {after}");
        }
        assert_eq!(
            difference(
                r#""phoneNumbers":[{"type":"work","value":"1"},{"type":"mobile","value":"2"}]"#,
                r#""phoneNumbers":[{"type":"work","value":"2"},{"type":"mobile","value":"1"}]"#,
            ),
            json!({"phone": {"from": "1", "to": "2"}, "mobile_phone": {"from": "2", "to": "1"}})
        );
        assert_eq!(
            difference(
                &format!(
                    r#""{SERVICENOW_USER}":{{"manager":{{"value":"m","name":"M","$ref":"r"}}}}"#
                ),
                &format!(r#""{SERVICENOW_USER}":{{"manager":{{"value":"m","name":"N"}}}}"#),
            ),
            json!({"manager_id": {"from": "m", "to": "m"}, "manager": {"from": "M", "to": "N"}})
        );
    }

    #[test]
    fn what_no_column_tells_has_its_scim_path() {
        for (before, after, expected) in [
            (
                r#""name":{"middleName":"m"}"#.to_owned(),
                r#""name":{"givenName":"g"}"#.to_owned(),
                json!({
                    "given_name": {"from": null, "to": "g"},
                    "name.middleName": {"from": "m", "to": null},
                }),
            ),
            (
                format!(r#""{CUSTOM_USER}":{{"source":"hr","deep":{{"a":1.0}}}}"#),
                format!(r#""{CUSTOM_USER}":{{"source":"ad","deep":{{"a":1}}}}"#),
                json!({
                    format!("{CUSTOM_USER}:source"): {"from": "hr", "to": "ad"},
                    format!("{CUSTOM_USER}:deep.a"):
                        {"from": serde_json::from_str::<Value>("1.0").unwrap(), "to": 1},
                }),
            ),
            (
                r#""addresses":[{"type":"home","country":"NO"}]"#.to_owned(),
                r#""addresses":null"#.to_owned(),
                json!({"addresses": {"from": [{"country": "NO", "type": "home"}], "to": null}}),
            ),
            // More of a mail than its value.
            (
                r#""emails":[{"type":"work","value":"a"}]"#.to_owned(),
                r#""emails":[{"type":"home","value":"b"}]"#.to_owned(),
                json!({
                    "email": {"from": "a", "to": "b"},
                    "emails": {
                        "from": [{"type": "work", "value": "a"}],
                        "to": [{"type": "home", "value": "b"}],
                    },
                }),
            ),
            (
                r#""emails":[{"type":"work","value":"a","display":"A"}]"#.to_owned(),
                r#""emails":[{"type":"work","value":"b","display":"A"}]"#.to_owned(),
                json!({
                    "email": {"from": "a", "to": "b"},
                    "emails": {
                        "from": [{"display": "A", "type": "work", "value": "a"}],
                        "to": [{"display": "A", "type": "work", "value": "b"}],
                    },
                }),
            ),
            // Nothing but a link is nothing.
            (
                r#""x":{"a":1}"#.to_owned(),
                r#""x":[{"$ref":"r"}]"#.to_owned(),
                json!({"x.a": {"from": 1, "to": null}}),
            ),
            // The same column from another place.
            (
                format!(r#""{SERVICENOW_USER}":{{"employeeNumber":"E"}}"#),
                format!(r#""{ENTERPRISE_USER}":{{"employeeNumber":"E"}}"#),
                json!({
                    format!("{SERVICENOW_USER}:employeeNumber"): {"from": "E", "to": null},
                    format!("{ENTERPRISE_USER}:employeeNumber"): {"from": null, "to": "E"},
                }),
            ),
            // A name that belongs to a column.
            (
                r#""email":"a","title":"5""#.to_owned(),
                r#""email":"b","title":5"#.to_owned(),
                json!({
                    format!("{CORE_USER}:email"): {"from": "a", "to": "b"},
                    format!("{CORE_USER}:title"): {"from": "5", "to": 5},
                }),
            ),
        ] {
            assert_eq!(difference(&before, &after), expected, "{before} {after}");
        }
    }

    #[test]
    fn a_damaged_text_in_the_mirror_is_replaced() {
        let before = State {
            canonical: r#"{"id":"#.to_owned(),
            ..state(r#"{"id":"a"}"#)
        };
        let seen = event::seen(Some(before), arrive(r#"{"id":"a","title":"x"}"#).unwrap());
        let record = record(seen, true).unwrap();
        assert_eq!(
            (record.kind, record.reason),
            (Kind::Update, Reason::Changed)
        );
        assert_eq!(
            record.after.canonical,
            r#"{"active":true,"id":"a","title":"x"}"#
        );
    }

    /// Every place where two values differ: objects go down, all else is whole.
    fn differences(path: &mut Vec<String>, old: &Value, new: &Value, out: &mut Vec<Found>) {
        if old == new {
            return;
        }
        let empty = serde_json::Map::new();
        match (old, new) {
            (Value::Object(_) | Value::Null, Value::Object(_) | Value::Null) => {
                let (old, new) = (old.as_object(), new.as_object());
                let (old, new) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
                for name in old
                    .keys()
                    .chain(new.keys().filter(|name| !old.contains_key(*name)))
                {
                    path.push(name.clone());
                    let of = |side: &serde_json::Map<_, _>| side.get(name).cloned();
                    let (old, new) = (of(old).unwrap_or_default(), of(new).unwrap_or_default());
                    differences(path, &old, &new, out);
                    path.pop();
                }
            }
            _ => out.push((path.clone(), old.clone(), new.clone())),
        }
    }

    type Found = (Vec<String>, Value, Value);

    /// Whether a value is told by the `from` (or `to`) of some column.
    fn in_a_column(changed: &Value, side: &str, value: &Value) -> bool {
        let text = match value {
            Value::Null => return true,
            Value::String(text) => text.clone(),
            Value::Array(elements) => {
                return elements
                    .iter()
                    .all(|element| in_a_column(changed, side, element));
            }
            Value::Object(members) => {
                return members.keys().all(|name| name == "value" || name == "type")
                    && members
                        .get("value")
                        .is_some_and(|value| in_a_column(changed, side, value));
            }
            other => other.to_string(),
        };
        TEXT_COLUMNS
            .iter()
            .any(|column| changed[*column][side] == json!(text))
            || value.is_boolean() && changed["active"][side] == *value
    }

    /// The elements of one list that the other has not.
    fn without(list: &Value, other: &Value) -> Value {
        let Value::Array(elements) = list else {
            return list.clone();
        };
        let mut other = other.as_array().cloned().unwrap_or_default();
        let mut elements = elements.clone();
        elements.retain(
            |element| match other.iter().position(|one| one == element) {
                Some(place) => {
                    other.remove(place);
                    false
                }
                None => true,
            },
        );
        Value::Array(elements)
    }

    proptest! {
        #[test]
        fn there_is_a_record_exactly_if_the_content_differs((one, other) in two_users()) {
            let (before, arrived) = (state(&one.write()), arrive(&other.write()).unwrap());
            let event = event::seen(Some(before.clone()), arrived);
            let after = event.after.clone();
            let record = record(event, true);
            prop_assert_eq!(record.is_some(), content(&before.canonical) != content(&after.canonical));
            if let Some(record) = record {
                prop_assert_eq!(&record.after, &after);
                prop_assert!(record.proof.is_none());
            }
        }

        #[test]
        fn columns_that_differ_are_told_and_no_others((one, other) in two_users()) {
            let changed = changed(update(&one.write(), &other.write()).as_ref());
            let before = state(&one.write());
            let after = event::seen(Some(before.clone()), arrive(&other.write()).unwrap()).after;
            let old = user_columns(&before.canonical).unwrap();
            let new = user_columns(&after.canonical).unwrap();
            for column in TEXT_COLUMNS {
                let stem = column.trim_end_matches("_id");
                let pair = [column.to_owned(), stem.to_owned(), format!("{stem}_id")];
                let differs = pair.iter().any(|column| old.get(column) != new.get(column));
                let told = differs.then(|| json!({"from": old.get(column), "to": new.get(column)}));
                prop_assert_eq!(changed.get(column), told.as_ref(), "{}", column);
            }
            let told = (old.active != new.active).then(|| json!({"from": old.active, "to": new.active}));
            prop_assert_eq!(changed.get("active"), told.as_ref());
        }

        #[test]
        fn no_difference_is_lost_and_none_is_made_up((one, other) in two_users()) {
            let before = state(&one.write());
            let record = update(&one.write(), &other.write());
            let changed = changed(record.as_ref());
            let Some(record) = record else { return Ok(()) };
            let mut found = Vec::new();
            let (old, new) = (content(&before.canonical), content(&record.after.canonical));
            differences(&mut Vec::new(), &old, &new, &mut found);
            let mut paths = Vec::new();
            for (names, old, new) in found {
                let mut path = ScimPath::default();
                if names.len() == 1 && TEXT_COLUMNS.contains(&names[0].as_str()) {
                    path.member(CORE_USER);
                }
                names.iter().for_each(|name| path.member(name));
                let path = path.into_text();
                let told = in_a_column(&changed, "from", &without(&old, &new))
                    && in_a_column(&changed, "to", &without(&new, &old));
                prop_assert!(told || changed.get(&path).is_some(), "{path} is not in {changed}");
                paths.push(path);
            }
            for (path, values) in changed.as_object().unwrap() {
                let is_column = TEXT_COLUMNS.contains(&path.as_str()) || path == "active";
                prop_assert!(is_column || paths.contains(path), "{path} has not changed");
                let is_pair = is_column && values["from"] == values["to"];
                prop_assert!(is_pair || content(&values["from"].to_string()) != content(&values["to"].to_string()));
            }
        }

        #[test]
        fn a_second_look_and_another_spelling_find_nothing((one, other) in two_users(), seed: u64) {
            let before = state(&one.write());
            let after = event::seen(Some(before), arrive(&other.write()).unwrap()).after;
            let again = arrive(&other.respell(&mut fastrand::Rng::with_seed(seed))).unwrap();
            prop_assert_eq!(record(event::seen(Some(after), again), true), None);
        }
    }
}
