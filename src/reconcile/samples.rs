//! Random resources for the laws of this module, and the model they are compared with.

use std::fmt::Write as _;

use bytes::Bytes;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::decode::{decode, head};
use super::names::{CUSTOM_USER, ENTERPRISE_USER, SERVICENOW_USER};
use crate::model::{Arrived, Proof, Reject, ResourceType, Row, Shares, Witness};

/// JSON as it is written: members in their order, numbers as they stand.
#[derive(Clone, Debug)]
pub(super) enum Json {
    /// A number, `true`, `false` or `null`.
    Bare(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn members(&mut self) -> &mut Vec<(String, Self)> {
        match self {
            Self::Object(members) => members,
            other => panic!("{other:?} has no members"),
        }
    }

    pub(super) fn write(&self) -> String {
        self.write_as(&mut |text| serde_json::to_string(text).unwrap(), "")
    }

    /// The same, spelled in another way: other order, blanks, escapes, and empty values between.
    pub(super) fn respell(&self, rng: &mut fastrand::Rng) -> String {
        let shuffled = self.shuffle(rng);
        let blank = rng.choice(["", " ", "\n\t "]).unwrap();
        shuffled.write_as(
            &mut |text| {
                let mut out = String::from("\"");
                for unit in text.encode_utf16() {
                    let c = char::from_u32(u32::from(unit));
                    match c.filter(|c| c.is_ascii_alphanumeric() && rng.bool()) {
                        Some(c) => out.push(c),
                        None => write!(out, "\\u{unit:04X}").unwrap(),
                    }
                }
                out + "\""
            },
            blank,
        )
    }

    fn shuffle(&self, rng: &mut fastrand::Rng) -> Self {
        let empty = |rng: &mut fastrand::Rng| match rng.u8(..4) {
            0 => Self::Bare("null".to_owned()),
            1 => Self::text(""),
            2 => Self::List(Vec::new()),
            _ => Self::Object(Vec::new()),
        };
        match self {
            Self::List(elements) => {
                let mut elements: Vec<_> = elements.iter().map(|e| e.shuffle(rng)).collect();
                if rng.bool() {
                    elements.push(empty(rng));
                }
                rng.shuffle(&mut elements);
                Self::List(elements)
            }
            Self::Object(members) => {
                let mut members: Vec<_> = members
                    .iter()
                    .map(|(name, json)| (name.clone(), json.shuffle(rng)))
                    .collect();
                if rng.bool() {
                    members.push(("nothing".to_owned(), empty(rng)));
                }
                rng.shuffle(&mut members);
                Self::Object(members)
            }
            other => other.clone(),
        }
    }

    fn write_as(&self, spell: &mut impl FnMut(&str) -> String, blank: &str) -> String {
        match self {
            Self::Bare(text) => text.clone(),
            Self::Text(text) => spell(text),
            Self::List(elements) => {
                let elements: Vec<_> = elements.iter().map(|e| e.write_as(spell, blank)).collect();
                format!("[{blank}{}{blank}]", elements.join(&format!("{blank},")))
            }
            Self::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, json)| {
                        format!("{}:{blank}{}", spell(name), json.write_as(spell, blank))
                    })
                    .collect();
                format!("{{{blank}{}}}", members.join(&format!(",{blank}")))
            }
        }
    }
}

/// Cuts out and decodes, as a crawl does.
pub(super) fn arrive(raw: &str) -> Result<Arrived, Reject> {
    let head = head(raw).map_err(|reason| Reject::new(None, reason, raw.as_bytes()))?;
    let row = Row {
        id: head.id,
        modified_at: head.modified_at,
        raw: Bytes::copy_from_slice(raw.as_bytes()),
    };
    decode(ResourceType::User, &row)
}

/// A proof that somebody is gone.
pub(super) fn proof() -> Proof {
    let asked_at = "2026-03-01T00:00:00Z".parse().unwrap();
    let witness = |id: &str| Witness {
        id: id.to_owned(),
        shares: Shares::Nothing,
        answered_at: asked_at,
    };
    Proof {
        distinct: Some(7),
        asked_at,
        status: 404,
        witnesses: [witness("b"), witness("c")],
    }
}

/// What two resources must share to be one content, reckoned another way: no empty values, no
/// links, elements in any order.
pub(super) fn content(canonical: &str) -> Value {
    fn strip(value: Value) -> Value {
        match value {
            Value::Array(elements) => {
                let mut elements: Vec<_> = elements
                    .into_iter()
                    .map(strip)
                    .filter(|element| !element.is_null())
                    .collect();
                elements.sort_by_key(Value::to_string);
                if elements.is_empty() {
                    Value::Null
                } else {
                    Value::Array(elements)
                }
            }
            Value::Object(members) => {
                let members: serde_json::Map<_, _> = members
                    .into_iter()
                    .filter(|(name, _)| name != "$ref")
                    .map(|(name, value)| (name, strip(value)))
                    .filter(|(_, value)| !value.is_null())
                    .collect();
                if members.is_empty() {
                    Value::Null
                } else {
                    Value::Object(members)
                }
            }
            Value::String(text) if text.is_empty() => Value::Null,
            other => other,
        }
    }
    strip(serde_json::from_str(canonical).unwrap())
}

/// A user of the ServiceNow shape with the oddities of the facts page's section 17. Values are
/// drawn from few, so that two users often agree.
pub(super) fn user() -> impl Strategy<Value = Json> {
    let name = object(vec![
        member("givenName", word()),
        member("familyName", word()),
        member("middleName", word()),
    ]);
    object(vec![
        always("id", Json::text("6f1a")),
        member("schemas", list(word())),
        member("externalId", scalar()),
        member("userName", word()),
        member("name", name),
        member("displayName", word()),
        member("title", scalar()),
        member("userType", word()),
        member("preferredLanguage", word()),
        member("locale", word()),
        member("timezone", word()),
        member("active", active()),
        member("emails", multi_valued(&["work", "home", "Work"])),
        member("phoneNumbers", multi_valued(&["work", "mobile", "home"])),
        member("addresses", anything()),
        member("nickName", anything()),
        member("department", word()),
        member("meta", anything()),
        member("groups", anything()),
        member(SERVICENOW_USER, extension()),
        member(ENTERPRISE_USER, extension()),
        member(
            CUSTOM_USER,
            object(vec![
                member("source", anything()),
                member("score", anything()),
            ]),
        ),
    ])
}

/// Two users, often with only a few attributes apart.
pub(super) fn two_users() -> impl Strategy<Value = (Json, Json)> {
    let near = (user(), user(), any::<prop::sample::Index>(), 0..3_usize).prop_map(
        |(one, mut source, index, more)| {
            let mut other = one.clone();
            let taken = source.members();
            let first = index.index(taken.len());
            for (name, json) in taken.drain(first..).take(more + 1) {
                other.members().retain(|(own, _)| *own != name);
                other.members().push((name, json));
            }
            (one, other)
        },
    );
    prop_oneof![4 => near, 1 => (user(), user())]
}

/// JSON of any shape, empty values and links among it.
pub(super) fn anything() -> BoxedStrategy<Json> {
    let names = select(vec!["value", "$ref", "type", "a", "b.c", "Zoë"]);
    scalar()
        .prop_recursive(3, 12, 3, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Json::List),
                prop::collection::btree_map(names.clone(), inner, 0..3).prop_map(|members| {
                    Json::Object(
                        members
                            .into_iter()
                            .map(|(name, json)| (name.to_owned(), json))
                            .collect(),
                    )
                }),
            ]
        })
        .boxed()
}

type Member = BoxedStrategy<Option<(String, Json)>>;

fn object(members: Vec<Member>) -> BoxedStrategy<Json> {
    members
        .prop_map(|members| Json::Object(members.into_iter().flatten().collect()))
        .boxed()
}

fn member(name: &'static str, json: impl Strategy<Value = Json> + 'static) -> Member {
    option::of(json)
        .prop_map(move |json| Some((name.to_owned(), json?)))
        .boxed()
}

fn always(name: &'static str, json: Json) -> Member {
    Just(Some((name.to_owned(), json))).boxed()
}

fn word() -> BoxedStrategy<Json> {
    let words = vec![
        "",
        "a",
        "b",
        "5",
        "true",
        "Zoë \u{1f600}",
        "\"q\"\\\n\u{1}\u{7f}\u{2028}",
    ];
    prop_oneof![6 => select(words).prop_map(Json::text), 1 => ".{0,6}".prop_map(Json::text)].boxed()
}

fn scalar() -> BoxedStrategy<Json> {
    let bare = select(vec![
        "null",
        "true",
        "false",
        "5",
        "-0",
        "1.0",
        "1e5",
        "0.1E+9",
        "18446744073709551616",
    ]);
    prop_oneof![3 => word(), 1 => bare.prop_map(|text| Json::Bare(text.to_owned()))].boxed()
}

fn active() -> BoxedStrategy<Json> {
    prop_oneof![
        select(vec!["true", "false", "null"]).prop_map(|text| Json::Bare(text.to_owned())),
        select(vec!["True", "false", ""]).prop_map(Json::text),
    ]
    .boxed()
}

fn list(element: BoxedStrategy<Json>) -> BoxedStrategy<Json> {
    prop::collection::vec(element, 0..4)
        .prop_map(Json::List)
        .boxed()
}

fn multi_valued(kinds: &'static [&'static str]) -> BoxedStrategy<Json> {
    let kind = select(kinds).prop_map(Json::text);
    let plain = object(vec![
        member("value", word()),
        always("type", Json::text("work")),
    ]);
    let odd = object(vec![
        member("value", scalar()),
        member("type", kind),
        member("primary", active()),
        member("display", word()),
        member("$ref", word()),
    ]);
    let element = prop_oneof![3 => plain, 3 => odd, 1 => scalar()].boxed();
    prop_oneof![4 => list(element.clone()), 1 => element].boxed()
}

fn extension() -> BoxedStrategy<Json> {
    let reference = || {
        let object = object(vec![
            member("value", scalar()),
            member("displayName", word()),
            member("name", word()),
            member("display", word()),
            member("$ref", word()),
        ]);
        prop_oneof![3 => object, 1 => scalar()]
    };
    object(vec![
        member("employeeNumber", scalar()),
        member("gender", word()),
        member("department", reference()),
        member("manager", reference()),
        member("company", reference()),
    ])
}
