//! One bad record costs one record: it is kept as a reject, its user stays as last known, everybody
//! else is mirrored, and, where the bad record says who it is, a real leaver still goes.

use serde_json::json;

use super::directory::{Directory, sys_id};
use super::scim::{Odd, WELL_BEHAVED};
use super::{GETS_TITLE, HIRED, LEAVER, N_USERS, World};
use crate::harness::text;

/// Whose record is bad.
const BAD: &str = "user.05";
const BAD_NUMBER: usize = 5;

macro_rules! poison {
    ($($name:ident: $text:expr, $says_who:expr;)*) => {
        $(#[test] fn $name() {
            one_record_is_bad(Odd {
                text: |text, user, _| if user["userName"] == json!(BAD) {
                    let change: fn(&mut Vec<u8>) = $text;
                    change(text);
                },
                ..WELL_BEHAVED
            }, $says_who);
        })*
    };
}

poison! {
    a_byte_that_is_no_utf8: |text| replace(text, b"User 05", b"User \xff5"), true;
    a_raw_control_character: |text| replace(text, b"User 05", b"User\n\x0105"), true;
    a_number_beyond_all_numbers: |text| replace(text, b"\"Engineer 5\"", b"1e400"), true;
    half_a_surrogate_pair: |text| replace(text, b"User 05", b"User \\ud83d"), true;
    a_member_twice: |text| replace(text, b"{", b"{\"title\":\"Another\","), true;
    a_member_twice_but_for_case: |text| replace(text, b"{", b"{\"TITLE\":\"Another\","), true;
    json_a_thousand_deep: |text| {
        let deep = format!("{{\"deep\":{}1{},", "[".repeat(1000), "]".repeat(1000));
        replace(text, b"{", deep.as_bytes());
    }, true;
    a_user_name_that_is_an_object: |text| replace(text, b"\"user.05\"", b"{\"name\":\"user.05\"}"), true;
    active_that_is_neither: |text| replace(text, b"\"active\":true", b"\"active\":\"perhaps\""), true;
    an_id_that_is_missing: |text| replace(text, b"\"id\":", b"\"identity\":"), false;
    an_id_that_is_empty: |text| {
        let id = sys_id(BAD_NUMBER);
        replace(text, format!("\"{id}\"").as_bytes(), b"\"\"");
    }, false;
    an_id_that_is_an_object: |text| {
        let id = sys_id(BAD_NUMBER);
        replace(text, format!("\"{id}\"").as_bytes(), b"{}");
    }, false;
    a_record_that_is_null: |text| *text = b"null".to_vec(), false;
    a_record_that_is_a_list: |text| *text = b"[]".to_vec(), false;
}

fn replace(text: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    let place = text
        .windows(old.len())
        .position(|window| window == old)
        .expect("what is to be replaced");
    text.splice(place..place + old.len(), new.iter().copied());
}

/// A record whose id cannot be read, on a page that cannot be read either: it is the same reject wherever it stands,
/// and one that can be read again is none, although another one keeps the crawl from being complete.
#[test]
fn a_record_that_does_not_say_who_it_is_stays_one_reject() {
    let world = World::start(Directory::of(N_USERS, sys_id), WELL_BEHAVED);
    world.baseline();
    world.server.turn(Odd {
        text: |text, user, _| {
            if user["title"] == json!("Spoiled") {
                let id = user["id"].as_str().expect("an id").to_owned();
                let spoiled = format!("\u{1}{id}");
                replace(text, id.as_bytes(), spoiled.as_bytes());
            }
        },
        ..WELL_BEHAVED
    });
    world.server.edit(|directory| {
        for n in [BAD_NUMBER, BAD_NUMBER + 1] {
            directory.set(n, "title", json!("Spoiled"));
        }
    });
    let rejects = || {
        let rows = world
            .home
            .rows("SELECT key, first_seen_at, body FROM rejects ORDER BY key");
        let n: i64 = world.home.one("SELECT rejects FROM mirror_health");
        assert_eq!(n, i64::try_from(rows.len()).expect("few"), "{rows:?}");
        rows
    };
    let ran = world.home.sync("full");
    assert_eq!(world.verdict().as_deref(), Some("partial"), "{ran}");
    let first = rejects();
    assert_eq!(first.len(), 2, "{ran}");

    // Many come before and behind them.
    world.server.edit(|directory| {
        for n in N_USERS..N_USERS + 50 {
            directory.join(n);
        }
    });
    for mode in ["incremental", "full"] {
        let ran = world.home.sync(mode);
        assert_eq!(rejects(), first, "{ran}");
    }
    world
        .server
        .edit(|directory| directory.set(BAD_NUMBER, "title", json!("Engineer")));
    let ran = world.home.sync("full");
    assert_eq!(world.verdict().as_deref(), Some("partial"), "{ran}");
    let left = rejects();
    assert_eq!(left.len(), 1, "{ran}");
    assert!(first.contains(&left[0]), "{left:?}");
    world.home.verify();
}

/// `says_who`: whether the id of the bad record can still be read.
fn one_record_is_bad(odd: Odd, says_who: bool) {
    let world = World::start(Directory::of(N_USERS, sys_id), WELL_BEHAVED);
    world.baseline();
    let bad = sys_id(BAD_NUMBER);
    let row = || {
        world
            .home
            .rows(&format!("SELECT * FROM users WHERE id = '{bad}'"))
    };
    let before = row();
    world.server.edit(|directory| {
        directory.leave(LEAVER);
        directory.set(GETS_TITLE, "title", json!("Principal"));
        directory.join(HIRED);
    });
    world.server.turn(odd);

    let ran = world.home.sync("full");
    let sync = world.home.last_sync();
    // Rejects alone are a warning.
    assert_eq!(ran.code, Some(0), "{ran}\n{sync:?}");
    assert_eq!(text(&sync, "rejected").as_deref(), Some("1"), "{sync:?}");
    let rejects = world.home.rows("SELECT * FROM rejects");
    assert_eq!(rejects.len(), 1, "{rejects:?}");
    assert!(text(&rejects[0], "reason").is_some_and(|reason| !reason.is_empty()));
    assert!(text(&rejects[0], "body").is_some_and(|body| body.len() <= 4096));
    assert_eq!(row(), before, "the user stays as last known");
    world.has_title("Principal");
    assert!(world.mirrored().contains(&sys_id(HIRED)));
    if says_who {
        assert_eq!(world.verdict().as_deref(), Some("complete"), "{sync:?}");
        world.deactivated_exactly(&[&sys_id(LEAVER)], &ran);
    } else {
        // Somebody was not seen, and nobody knows who: nobody is absent.
        assert_eq!(world.verdict().as_deref(), Some("partial"), "{sync:?}");
        world.deactivated_exactly(&[], &ran);
    }
    world.home.verify();

    world.server.turn(WELL_BEHAVED);
    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    world.deactivated_exactly(&[&sys_id(LEAVER)], &ran);
    world.home.verify();
}

/// Keys and the elements of arrays come in another order in every answer: nothing changed.
#[test]
fn another_order_in_every_answer_changes_nothing() {
    let world = World::start(
        Directory::of(N_USERS, sys_id),
        Odd {
            text: |text, user, request| *text = shuffled(user, request.number).into_bytes(),
            ..WELL_BEHAVED
        },
    );
    world.baseline();
    let rows = |world: &World| world.home.rows("SELECT * FROM users ORDER BY id");
    let before = rows(&world);
    for mode in ["full", "incremental", "full"] {
        let ran = world.home.sync(mode);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(world.seq(), 60, "no change record");
        assert_eq!(rows(&world), before, "no row rewritten");
    }
    world.home.verify();
}

/// JSON with the members of objects and the elements of arrays turned round by `turn` places.
fn shuffled(value: &serde_json::Value, turn: usize) -> String {
    let turned = |mut parts: Vec<String>| {
        let n = parts.len().max(1);
        parts.rotate_left(turn % n);
        parts.join(",")
    };
    match value {
        serde_json::Value::Array(values) => {
            let parts = values.iter().map(|value| shuffled(value, turn)).collect();
            format!("[{}]", turned(parts))
        }
        serde_json::Value::Object(members) => {
            let parts = members
                .iter()
                .map(|(name, value)| format!("{} : {}", json!(name), shuffled(value, turn)))
                .collect();
            format!("{{{}}}", turned(parts))
        }
        other => other.to_string(),
    }
}

/// `null`, `""`, `[]` and `{}` are one with missing, in every answer another one.
#[test]
fn another_spelling_of_nothing_in_every_answer_changes_nothing() {
    let world = World::start(
        Directory::of(N_USERS, sys_id),
        Odd {
            text: |text, _, request| {
                let nothing = ["null", "\"\"", "[]", "{}", "[null]", "{\"value\":\"\"}"];
                let nothing = nothing[request.number % nothing.len()];
                let members = format!(
                    "{{\"nickName\":{nothing},\"urn:example:custom\":{{\"badge\":{nothing}}},"
                );
                replace(text, b"{", members.as_bytes());
            },
            ..WELL_BEHAVED
        },
    );
    world.baseline();
    for mode in ["full", "incremental", "full"] {
        let ran = world.home.sync(mode);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(world.seq(), 60, "no change record");
    }
    assert_eq!(world.home.one::<i64>("SELECT count(*) FROM rejects"), 0);
    world.home.verify();
}

/// One stamp from the future moves no watermark: what is edited today is still found.
#[test]
fn a_stamp_from_the_future_freezes_nothing() {
    let world = World::start(
        Directory::of(N_USERS, sys_id),
        Odd {
            user: |user| {
                if user["userName"] == json!(BAD) {
                    user["meta"]["lastModified"] = json!("2099-01-01T00:00:00Z");
                }
            },
            ..WELL_BEHAVED
        },
    );
    world.baseline();
    assert!(
        world
            .watermark()
            .is_some_and(|watermark| watermark.as_str() < "2026")
    );
    world.server.edit(|directory| {
        directory.set(GETS_TITLE, "title", json!("Principal"));
        directory.set(BAD_NUMBER, "title", json!("From The Future"));
    });
    let ran = world.home.sync("incremental");
    assert_eq!(ran.code, Some(0), "{ran}");
    world.has_title("Principal");
    let ran = world.full_until_complete();
    world.equals_the_directory(&ran);
    assert!(
        world
            .watermark()
            .is_some_and(|watermark| watermark.as_str() < "2026")
    );
    world.home.verify();
}
