//! Pages of made-up users, with every oddity that was met or is feared. Values are drawn from few, so
//! that two users often agree.

use fastrand::Rng;

use crate::fuzz::json::Json;
use crate::fuzz::mutate;

const LIST: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

const EXTENSIONS: [&str; 4] = [
    "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User",
    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
    "urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:User",
    "urn:example:User",
];

const NAME_PARTS: [&str; 3] = ["givenName", "familyName", "middleName"];
const ELEMENT_PARTS: [&str; 5] = ["value", "type", "primary", "display", "$ref"];
const REFERENCE_PARTS: [&str; 5] = ["value", "displayName", "name", "display", "$ref"];

/// A list answer with up to three users.
pub(super) fn page(rng: &mut Rng) -> String {
    let users: Vec<Json> = (0..rng.u8(..=3)).map(|_| user(rng)).collect();
    let total = match rng.u8(..4) {
        0 => Json::Text(users.len().to_string()),
        _ => Json::Number(users.len().to_string()),
    };
    let mut members = vec![
        ("schemas".to_owned(), Json::List(vec![text(LIST)])),
        ("totalResults".to_owned(), total),
        ("Resources".to_owned(), Json::List(users)),
        ("startIndex".to_owned(), number("1")),
    ];
    if rng.u8(..4) == 0 {
        rng.shuffle(&mut members);
    }
    Json::Object(members).spell(rng)
}

fn user(rng: &mut Rng) -> Json {
    let mut members = vec![("id".to_owned(), id(rng))];
    for name in [
        "userName",
        "displayName",
        "title",
        "userType",
        "externalId",
        "locale",
        "timezone",
    ] {
        some(rng, &mut members, name, |rng| {
            one_in(rng, 100, anything, scalar)
        });
    }
    some(rng, &mut members, "active", active);
    some(rng, &mut members, "name", |rng| {
        one_in(rng, 100, anything, |rng| object(rng, &NAME_PARTS, word))
    });
    for name in ["emails", "phoneNumbers", "addresses", "roles"] {
        some(rng, &mut members, name, |rng| {
            one_in(rng, 50, anything, multi_valued)
        });
    }
    for urn in EXTENSIONS {
        some(rng, &mut members, urn, |rng| {
            one_in(rng, 100, anything, extension)
        });
    }
    some(rng, &mut members, "nickName", anything);
    some(rng, &mut members, "groups", anything);
    some(rng, &mut members, "meta", |rng| {
        one_in(rng, 50, anything, meta)
    });
    if rng.u8(..16) == 0 {
        // Once more, perhaps in another case.
        let (name, value) = rng.choice(&members).cloned().unwrap();
        let name = if rng.bool() {
            name.to_uppercase()
        } else {
            name
        };
        members.push((name, value));
    }
    if rng.bool() {
        rng.shuffle(&mut members);
    }
    for (name, _) in &mut members {
        if rng.u8(..16) == 0 {
            *name = name.to_uppercase();
        }
    }
    Json::Object(members)
}

type Make = fn(&mut Rng) -> Json;

fn some(rng: &mut Rng, members: &mut Vec<(String, Json)>, name: &str, make: Make) {
    if rng.bool() {
        members.push((name.to_owned(), make(rng)));
    }
}

fn one_in(rng: &mut Rng, n: u8, rare: Make, usual: Make) -> Json {
    if rng.u8(..n) == 0 {
        rare(rng)
    } else {
        usual(rng)
    }
}

fn text(text: &str) -> Json {
    Json::Text(text.to_owned())
}

fn number(text: &str) -> Json {
    Json::Number(text.to_owned())
}

fn id(rng: &mut Rng) -> Json {
    match rng.u8(..24) {
        0 => number("17"),
        1 => number("1E5"),
        2 => Json::Text(mutate::text(rng, 12)),
        3 => anything(rng),
        4 => text("../Users"),
        _ => Json::Text(format!("{:032x}", rng.u128(..))),
    }
}

fn word(rng: &mut Rng) -> Json {
    match rng.u8(..12) {
        0 => Json::Text(mutate::text(rng, 10)),
        _ => text(
            rng.choice([
                "",
                "a",
                "b",
                "5",
                "true",
                "Zoë \u{1f600}",
                "\"q\"\\\n\u{1}\u{7f}\u{2028}",
                "\",\"id\":\"x",
            ])
            .unwrap(),
        ),
    }
}

fn scalar(rng: &mut Rng) -> Json {
    match rng.u8(..8) {
        0 => number(
            rng.choice([
                "5",
                "-0",
                "1.0",
                "1e5",
                "0.1E+9",
                "18446744073709551616",
                "-1E-400",
                "0.30000000000000004441",
            ])
            .unwrap(),
        ),
        1 => Json::Bool(rng.bool()),
        2 => Json::Null,
        3 if rng.u8(..50) == 0 => number("1e400"),
        _ => word(rng),
    }
}

fn active(rng: &mut Rng) -> Json {
    match rng.u8(..24) {
        0 => text("maybe"),
        1 => number("0"),
        2 => Json::Null,
        3 => text(""),
        4..8 => text(rng.choice(["True", "FALSE", "false"]).unwrap()),
        _ => Json::Bool(rng.bool()),
    }
}

fn meta(rng: &mut Rng) -> Json {
    object(
        rng,
        &["created", "lastModified", "location", "version"],
        |rng| {
            text(
                rng.choice([
                    "2026-02-27T16:40:09Z",
                    "2024-11-04T07:15:22.5+01:00",
                    "2099-01-01T00:00:00Z",
                    "soon",
                    "0000-01-01T00:00:00Z",
                    "9999-12-31T23:59:59-23:59",
                ])
                .unwrap(),
            )
        },
    )
}

fn multi_valued(rng: &mut Rng) -> Json {
    let element: Make = |rng| {
        one_in(rng, 6, scalar, |rng| {
            object(rng, &ELEMENT_PARTS, |rng| match rng.u8(..4) {
                0 => text("work"),
                1 => Json::Bool(true),
                _ => scalar(rng),
            })
        })
    };
    match rng.u8(..8) {
        0 => element(rng),
        _ => Json::List((0..rng.u8(..4)).map(|_| element(rng)).collect()),
    }
}

fn extension(rng: &mut Rng) -> Json {
    let attributes = [
        "employeeNumber",
        "department",
        "manager",
        "company",
        "location",
        "costCenter",
        "source",
        "$ref",
    ];
    object(rng, &attributes, |rng| {
        one_in(rng, 2, scalar, |rng| object(rng, &REFERENCE_PARTS, scalar))
    })
}

/// JSON of any shape, names of the library among it.
fn anything(rng: &mut Rng) -> Json {
    nested(rng, 3)
}

fn nested(rng: &mut Rng, depth: u8) -> Json {
    const NAMES: [&str; 8] = [
        "value",
        "$ref",
        "type",
        "a",
        "A",
        "b.c",
        "$serde_json::private::Number",
        "$serde_json::private::RawValue",
    ];
    match rng.u8(..6) {
        0 if depth > 0 => Json::List((0..rng.u8(..4)).map(|_| nested(rng, depth - 1)).collect()),
        1 | 2 if depth > 0 => {
            let n_usual = if rng.u8(..20) == 0 { NAMES.len() } else { 6 };
            let names = NAMES[..n_usual].iter();
            let n_members = rng.usize(..4);
            let names = rng.choose_multiple(names, n_members);
            let members = names
                .into_iter()
                .map(|name| ((*name).to_owned(), nested(rng, depth - 1)));
            Json::Object(members.collect())
        }
        3 if rng.u8(..20) == 0 => {
            let depth = rng.u8(40..60);
            (0..depth).fold(number("1"), |inner, _| Json::List(vec![inner]))
        }
        _ => scalar(rng),
    }
}

fn object(rng: &mut Rng, names: &[&str], make: Make) -> Json {
    let mut members = Vec::new();
    for name in names {
        some(rng, &mut members, name, make);
    }
    Json::Object(members)
}
