//! Users and groups in shapes that customised, poisoned or curtailed answers have (facts page, sections 2,
//! 13.4 and 17). Without such an effect a resource is written as it stands.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::effect::{Effect, Poison, StampForm};
use super::json;
use super::render::Renderer;
use super::resource_type::Resource;
use super::sight::names;

/// How resources are written in one answer.
pub(super) struct Shape<'a> {
    /// Whole resources, as raw bytes, that are shown for these ids.
    pub raw: &'a BTreeMap<String, Vec<u8>>,
    /// The effects that met the request.
    pub effects: &'a [Effect],
    /// For what comes in any order.
    pub rng: &'a mut fastrand::Rng,
}

impl Shape<'_> {
    /// Writes a user or a group.
    pub(super) fn resource<T: Resource>(
        &mut self,
        renderer: &Renderer<'_>,
        row: &T,
        out: &mut Vec<u8>,
    ) {
        if let Some(raw) = self.raw.get(row.sys_id()) {
            out.extend_from_slice(raw);
            return;
        }
        let start = out.len();
        row.show(renderer, out);
        for effect in self.effects {
            match effect {
                Effect::PoisonedRow { id, with } if id == row.sys_id() => {
                    let poisoned = poison(&out[start..], *with);
                    out.truncate(start);
                    out.extend_from_slice(&poisoned);
                }
                _ => {}
            }
        }
        if self.effects.iter().any(is_shape)
            && let Ok(Value::Object(mut resource)) = serde_json::from_slice(&out[start..])
        {
            let mut shuffled = false;
            for effect in self.effects {
                shuffled |= *effect == Effect::MembersShuffled;
                reshape::<T>(&mut resource, row.sys_id(), effect);
            }
            out.truncate(start);
            write(
                &Value::Object(resource),
                shuffled.then_some(&mut *self.rng),
                out,
            );
        }
    }
}

fn is_shape(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::EmptyForms
            | Effect::MembersShuffled
            | Effect::CoreSchemaFirst
            | Effect::PlainReferences
            | Effect::DisplayLabels
            | Effect::ActiveAsText
            | Effect::MemberMissing { .. }
            | Effect::MemberAdded { .. }
            | Effect::StampForm { .. }
            | Effect::AttributeHidden { .. }
            | Effect::GroupsBlanked { .. }
            | Effect::MembersCut { .. }
            | Effect::MembersEmpty { .. }
            | Effect::MembersMislinked { .. }
    )
}

fn reshape<T: Resource>(resource: &mut Map<String, Value>, row: &str, effect: &Effect) {
    match effect {
        Effect::EmptyForms => {
            for (name, empty) in T::EMPTY_FORMS {
                let empty = serde_json::from_str(empty).unwrap_or_default();
                resource.entry(*name).or_insert(empty);
            }
        }
        Effect::CoreSchemaFirst => {
            if let Some(Value::Array(schemas)) = resource.get_mut("schemas") {
                schemas.sort_by_key(|urn| *urn != T::CORE);
            }
        }
        Effect::PlainReferences => each_reference::<T>(resource, |reference| {
            reference.get("value").cloned().unwrap_or_default()
        }),
        Effect::DisplayLabels => each_reference::<T>(resource, |reference| {
            let mut renamed = reference.clone();
            for name in ["name", "displayName"] {
                if let Some(label) = renamed.remove(name) {
                    renamed.insert("display".to_owned(), label);
                }
            }
            Value::Object(renamed)
        }),
        Effect::ActiveAsText => {
            if let Some(active) = resource.get_mut("active") {
                *active = Value::from(active.to_string());
            }
        }
        Effect::MemberMissing { member } => {
            resource.remove(member);
        }
        Effect::MemberAdded { member, json } => {
            if let Ok(value) = serde_json::from_str(json) {
                resource.insert(member.clone(), value);
            }
        }
        Effect::StampForm { form } => {
            if let Some(meta) = resource.get_mut("meta").and_then(Value::as_object_mut) {
                for name in ["created", "lastModified"] {
                    restamp(meta, name, *form);
                }
            }
        }
        Effect::AttributeHidden { attribute } => hide::<T>(resource, attribute),
        Effect::GroupsBlanked { ids } if names(ids, row) => {
            resource.retain(|name, _| ["schemas", "id", "meta"].contains(&name.as_str()));
        }
        Effect::MembersCut { most, ids } if names(ids, row) => {
            if let Some(Value::Array(members)) = resource.get_mut("members") {
                members.truncate(*most);
            }
        }
        Effect::MembersEmpty { ids } if names(ids, row) => {
            resource.remove("members");
        }
        Effect::MembersMislinked { ids } if names(ids, row) => {
            let members = resource.get_mut("members").and_then(Value::as_array_mut);
            for member in members.into_iter().flatten() {
                mislink(member);
            }
        }
        _ => {}
    }
}

/// Lets a link end in the id of nobody.
fn mislink(member: &mut Value) {
    if let Some(Value::String(link)) = member.get_mut("$ref")
        && let Some((start, _)) = link.rsplit_once('/')
    {
        *link = format!("{start}/{:032}", 0);
    }
}

/// Takes an attribute away: `title`, `name.givenName`, `urn:…:User:department`.
fn hide<T: Resource>(resource: &mut Map<String, Value>, attribute: &str) {
    let (whole, part) = match attribute.strip_prefix(T::EXTENSION) {
        Some(part) => (T::EXTENSION, part.strip_prefix(':')),
        None => match attribute.split_once('.') {
            Some((whole, part)) => (whole, Some(part)),
            None => (attribute, None),
        },
    };
    match (part, resource.get_mut(whole)) {
        (Some(part), Some(Value::Object(inner))) => {
            inner.remove(part);
        }
        (Some(part), Some(Value::Array(elements))) => {
            for element in elements.iter_mut().filter_map(Value::as_object_mut) {
                element.remove(part);
            }
        }
        _ => {
            resource.remove(whole);
        }
    }
}

fn each_reference<T: Resource>(
    resource: &mut Map<String, Value>,
    change: impl Fn(&Map<String, Value>) -> Value,
) {
    let extension = resource
        .get_mut(T::EXTENSION)
        .and_then(Value::as_object_mut);
    for value in extension.into_iter().flat_map(Map::values_mut) {
        if let Value::Object(reference) = value {
            *value = change(reference);
        }
    }
}

fn restamp(meta: &mut Map<String, Value>, name: &str, form: StampForm) {
    let Some(Value::String(stamp)) = meta.get(name) else {
        return;
    };
    let bare = stamp.trim_end_matches('Z').to_owned();
    let other = match form {
        StampForm::Fraction => format!("{bare}.000Z"),
        StampForm::Offset => format!("{bare}+00:00"),
        StampForm::NoZone => bare,
        StampForm::Nonsense => "a while ago".to_owned(),
        StampForm::Future => format!("2099{}Z", bare.get(4..).unwrap_or_default()),
        StampForm::Missing => {
            meta.remove(name);
            return;
        }
    };
    meta.insert(name.to_owned(), Value::from(other));
}

/// Spoils one resource; the page around it stays as it is.
fn poison(resource: &[u8], with: Poison) -> Vec<u8> {
    let inner = resource.strip_prefix(b"{").unwrap_or(resource);
    let with_member = |member: &[u8]| [b"{", member, b",", inner].concat();
    match with {
        Poison::InvalidUtf8 => with_member(b"\"nickName\":\"\xff\""),
        Poison::ControlCharacter => with_member(b"\"nickName\":\"a\x01b\""),
        Poison::Deep => {
            let depth = 100_000;
            let nested = [vec![b'['; depth], vec![b']'; depth]].concat();
            with_member(&[b"\"nickName\":", nested.as_slice()].concat())
        }
        Poison::HugeNumber => with_member(b"\"nickName\":1e400"),
        Poison::LoneSurrogate => with_member(br#""nickName":"\ud800""#),
        Poison::DoubledKey => with_member(br#""active":true,"active":false"#),
        Poison::NoId => {
            let text = String::from_utf8_lossy(resource);
            text.replacen("\"id\":", "\"nickName\":", 1).into_bytes()
        }
    }
}

/// Writes a value; with a generator, members and elements in an order of its own.
fn write(value: &Value, mut rng: Option<&mut fastrand::Rng>, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            if let Some(rng) = rng.as_deref_mut() {
                rng.shuffle(&mut members);
            }
            out.push(b'{');
            for (place, (name, member)) in members.into_iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                json::string(out, name);
                out.push(b':');
                write(member, rng.as_deref_mut(), out);
            }
            out.push(b'}');
        }
        Value::Array(elements) => {
            let mut elements: Vec<_> = elements.iter().collect();
            if let Some(rng) = rng.as_deref_mut() {
                rng.shuffle(&mut elements);
            }
            out.push(b'[');
            for (place, element) in elements.into_iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write(element, rng.as_deref_mut(), out);
            }
            out.push(b']');
        }
        plain => out.extend_from_slice(plain.to_string().as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::SERVICENOW_USER;
    use super::super::testbed::{Answered, Testbed};
    use super::super::{Column, Values};
    use super::*;

    fn shaped(effect: Effect) -> (Value, Value) {
        let bed = Testbed::of(9);
        let id = bed.sandbox.ids()[4].clone();
        let values = Values::new()
            .with(Column::ExternalId, "")
            .with(Column::FirstName, "Noor")
            .with(Column::MiddleName, "")
            .with(Column::Manager, bed.sandbox.ids()[0].clone());
        bed.sandbox.update(&id, &values);
        let before = bed.get(&format!("/Users/{id}")).json;
        bed.fault(effect);
        let list = bed.list("count=9").rows()[4].clone();
        let one = bed.get(&format!("/Users/{id}")).json;
        assert_eq!(list, one);
        assert_eq!(bed.sandbox.fired()[0].times, 2);
        (before, one)
    }

    #[test]
    fn customised_answers_have_their_shapes() {
        let (before, empty) = shaped(Effect::EmptyForms);
        assert!(before.get("externalId").is_none());
        assert_eq!(empty["externalId"], "");

        let (before, plain) = shaped(Effect::PlainReferences);
        let department = |user: &Value| user[SERVICENOW_USER]["department"].clone();
        assert_eq!(department(&plain), department(&before)["value"]);

        let (before, display) = shaped(Effect::DisplayLabels);
        assert_eq!(department(&display)["display"], department(&before)["name"]);
        assert!(display[SERVICENOW_USER]["manager"]["display"].is_string());

        let (_, text) = shaped(Effect::ActiveAsText);
        assert_eq!(text["active"], "true");

        let (_, missing) = shaped(Effect::MemberMissing {
            member: "meta".into(),
        });
        assert!(missing.get("meta").is_none());

        let urn = "urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:User";
        let (_, added) = shaped(Effect::MemberAdded {
            member: urn.into(),
            json: r#"{"badge": 7}"#.into(),
        });
        assert_eq!(added[urn]["badge"], 7);

        let (before, turned) = shaped(Effect::CoreSchemaFirst);
        assert_eq!(before["schemas"][1], turned["schemas"][0]);

        let (_, elsewhere) = shaped(Effect::LinksElsewhere {
            base: "http://10.0.0.1".into(),
        });
        assert!(
            elsewhere["meta"]["location"]
                .as_str()
                .unwrap()
                .starts_with("http://10.0.0.1/Users/")
        );

        for (attribute, gone) in [
            ("title", "/title"),
            ("name.givenName", "/name/givenName"),
            ("emails.value", "/emails/0/value"),
            (
                &format!("{SERVICENOW_USER}:department"),
                "/urn:ietf:params:scim:schemas:extension:servicenow:2.0:User/department",
            ),
        ] {
            let (before, hidden) = shaped(Effect::AttributeHidden {
                attribute: attribute.into(),
            });
            assert!(
                before.pointer(gone).is_some() && hidden.pointer(gone).is_none(),
                "{attribute}"
            );
        }
    }

    #[test]
    fn stamps_are_written_in_every_odd_form() {
        for (form, ending) in [
            (StampForm::Fraction, ".000Z"),
            (StampForm::Offset, "+00:00"),
            (StampForm::NoZone, "00"),
            (StampForm::Nonsense, "a while ago"),
            (StampForm::Future, "Z"),
        ] {
            let (_, user) = shaped(Effect::StampForm { form });
            let stamp = user["meta"]["lastModified"].as_str().unwrap();
            assert!(stamp.ends_with(ending), "{stamp}");
            assert_eq!(stamp.starts_with("2099"), form == StampForm::Future);
        }
        let (_, user) = shaped(Effect::StampForm {
            form: StampForm::Missing,
        });
        assert!(user["meta"].get("lastModified").is_none() && user["meta"]["location"].is_string());
    }

    #[test]
    fn a_shuffled_answer_says_the_same_in_another_order() {
        let bed = Testbed::of(9);
        let straight = bed.list("count=9");
        bed.fault(Effect::MembersShuffled);
        let (one, two) = (bed.list("count=9"), bed.list("count=9"));
        assert_ne!(one.reply.body, two.reply.body);
        let sorted = |answered: &Answered| {
            let mut text: Vec<u8> = answered.reply.body.to_vec();
            text.sort_unstable();
            text
        };
        assert_eq!(sorted(&one), sorted(&straight));
    }

    #[test]
    fn one_poisoned_row_leaves_the_page_around_it_as_it_was() {
        for (with, readable) in [
            (Poison::InvalidUtf8, false),
            (Poison::ControlCharacter, false),
            (Poison::Deep, false),
            (Poison::HugeNumber, true),
            (Poison::LoneSurrogate, false),
            (Poison::DoubledKey, true),
            (Poison::NoId, true),
        ] {
            let bed = Testbed::of(5);
            let id = bed.sandbox.ids()[2].clone();
            bed.fault(Effect::PoisonedRow { id, with });
            let page = bed.list("count=5");
            assert_eq!(!page.json.is_null(), readable, "{with:?}");
            let text = String::from_utf8_lossy(&page.reply.body).into_owned();
            assert_eq!(text.matches("\"meta\"").count(), 5, "{with:?}");
            let others = bed.list("count=2");
            assert_eq!(others.rows().len(), 2);
        }
    }

    #[test]
    fn raw_bytes_stand_in_for_a_resource_until_they_are_taken_back() {
        let bed = Testbed::of(3);
        let id = bed.sandbox.ids()[1].clone();
        bed.sandbox.show_raw(&id, Some(b"{\"id\":7}".to_vec()));
        assert_eq!(bed.list("").rows()[1]["id"], 7);
        assert_eq!(bed.get(&format!("/Users/{id}")).json["id"], 7);
        bed.sandbox.show_raw(&id, None);
        assert_eq!(bed.get(&format!("/Users/{id}")).json["id"], id);
    }

    /// Two groups of three members each, as an effect shows the first and the second.
    fn shaped_groups(effect: impl Fn(Vec<String>) -> Effect) -> [(Value, Value); 2] {
        let bed = Testbed::with(super::super::Options {
            users: 9,
            groups: 0,
            odd: false,
            ..super::super::Options::default()
        });
        let user = |id: &String| super::super::Member::user(id);
        let members: Vec<_> = bed.sandbox.ids()[..3].iter().map(user).collect();
        let company = bed.get("/Companies").rows()[0]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        for id in ["a", "b"] {
            let values = super::super::GroupValues {
                company: Some(company.clone()),
                ..super::super::GroupValues::named(id)
            };
            bed.sandbox.create_group_as(id, &values);
            bed.sandbox.change_members(id, &[], &members);
        }
        ["a", "b"].map(|id| {
            bed.sandbox.set_faults(Vec::new());
            let before = bed.group(id);
            bed.fault(effect(vec!["a".to_owned()]));
            let page = bed.groups("");
            let listed = page.rows().iter().find(|row| row["id"] == id).unwrap();
            assert_eq!(bed.group(id), *listed);
            assert_eq!(bed.sandbox.fired()[0].times, 2);
            // Users are shown as they are.
            assert!(
                bed.list("")
                    .rows()
                    .iter()
                    .all(|user| user["userName"].is_string())
            );
            assert_eq!(bed.sandbox.fired()[0].times, 2);
            (before, listed.clone())
        })
    }

    #[test]
    fn groups_lose_members_or_all_that_they_have() {
        let n_members = |group: &Value| group["members"].as_array().map(Vec::len);
        let [(before, cut), (other, same)] =
            shaped_groups(|ids| Effect::MembersCut { most: 2, ids });
        assert_eq!((n_members(&before), n_members(&cut)), (Some(3), Some(2)));
        assert_eq!(cut["members"][0], before["members"][0]);
        assert_eq!(other, same);

        let [(mut before, empty), (other, same)] =
            shaped_groups(|ids| Effect::MembersEmpty { ids });
        before.as_object_mut().unwrap().remove("members");
        assert_eq!((before, other), (empty, same));

        let [(before, blank), (other, same)] = shaped_groups(|ids| Effect::GroupsBlanked { ids });
        let keys: Vec<&String> = blank.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["id", "meta", "schemas"]);
        assert_eq!((&before["meta"], &other), (&blank["meta"], &same));

        let [(before, linked), (other, same)] =
            shaped_groups(|ids| Effect::MembersMislinked { ids });
        assert_eq!(linked["members"][1]["value"], before["members"][1]["value"]);
        let link = linked["members"][1]["$ref"].as_str().unwrap();
        assert!(link.ends_with("/Users/00000000000000000000000000000000"));
        assert_eq!(other, same);

        // None named means all.
        let [_, (_, cut)] = shaped_groups(|_| Effect::MembersCut {
            most: 0,
            ids: Vec::new(),
        });
        assert_eq!(n_members(&cut), Some(0));
    }

    #[test]
    fn groups_have_the_shapes_of_customised_answers_as_well() {
        use super::super::group::SERVICENOW_GROUP;

        let first = |effect: Effect| {
            let bed = Testbed::with(super::super::Options {
                users: 40,
                groups: 1,
                odd: false,
                ..super::super::Options::default()
            });
            let id = bed.sandbox.group_ids()[0].clone();
            let company = bed.get("/Companies").rows()[0]["id"]
                .as_str()
                .unwrap()
                .to_owned();
            let values = super::super::GroupValues {
                company: Some(company),
                external_id: Some(String::new()),
                ..super::super::GroupValues::default()
            };
            bed.sandbox.update_group(&id, &values);
            bed.fault(effect);
            bed.group(&id)
        };
        assert_eq!(first(Effect::EmptyForms)["externalId"], "");
        let company = |group: &Value| group[SERVICENOW_GROUP]["company"].clone();
        assert!(company(&first(Effect::PlainReferences)).is_string());
        assert!(company(&first(Effect::DisplayLabels))["display"].is_string());
        let hidden = |attribute: &str| {
            first(Effect::AttributeHidden {
                attribute: attribute.into(),
            })
        };
        assert!(hidden("members").get("members").is_none());
        assert!(
            hidden("members.display")["members"][0]
                .get("display")
                .is_none()
        );
        assert!(company(&hidden(&format!("{SERVICENOW_GROUP}:company"))).is_null());
    }
}
