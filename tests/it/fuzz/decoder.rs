//! A list answer, from its bytes to change records: nothing panics, every resource is canonical or a
//! reject with its reason, how it was spelled does not count, and what is read fast is what is read
//! in full.

mod contract;
mod large;
mod people;
mod spoiled;
mod update;

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, HeaderValue, StatusCode};
use musterd::model::time::parse_lenient;
use musterd::model::{Foreign, InstanceName, Kind, Reject, ResourceId, ResourceType, Row, State};
use musterd::reconcile::canonical::Resource;
use musterd::reconcile::decode::{decode, head};
use musterd::reconcile::mapping::user_columns;
use musterd::reconcile::{diff, event};
use musterd::scim::answer;
use musterd::scim::client::{Answer, Asked};
use musterd::scim::error::{Error, Fault, What};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

use super::json::{Json, end_of_value};
use super::{Checked, Corpus, Target, mutate, rng_for};

const USER: ResourceType = ResourceType::User;

/// Resources that a page was asked for.
const ASKED: u32 = 500;

/// Resources of a page that are looked at closely.
const MOST_CLOSELY: usize = 4;

/// How often each end was reached: a run that never got there proves nothing about it.
struct Reached {
    faults: AtomicU64,
    decoded: AtomicU64,
    rejected: AtomicU64,
    updates: AtomicU64,
    salvaged: AtomicU64,
    unsalvaged: AtomicU64,
}

static REACHED: Reached = Reached {
    faults: AtomicU64::new(0),
    decoded: AtomicU64::new(0),
    rejected: AtomicU64::new(0),
    updates: AtomicU64::new(0),
    salvaged: AtomicU64::new(0),
    unsalvaged: AtomicU64::new(0),
};

#[test]
fn fuzz() {
    let target = Target {
        name: "decoder",
        executions: 6_000,
        make,
    };
    target.run(check);
    for (end, n) in [
        ("fault", &REACHED.faults),
        ("decoded", &REACHED.decoded),
        ("rejected", &REACHED.rejected),
        ("update", &REACHED.updates),
        ("salvaged", &REACHED.salvaged),
        ("not salvaged", &REACHED.unsalvaged),
    ] {
        let n = n.load(Ordering::Relaxed);
        println!("{end}: {n}");
        assert!(n >= 100, "{end}: {n}");
    }
}

/// Of the language of SCIM, and of what spoils it.
const WORDS: &[&str] = &[
    "\"id\":",
    "\"ID\":\"x\",",
    "\"\\u0069d\":\"y\",",
    "\"meta\":",
    "\"lastModified\":",
    "\"meta\":{\"lastModified\":\"2026-02-27T16:40:09Z\"},",
    "\"active\":",
    "\"False\"",
    "false",
    "true",
    "null",
    "\"\"",
    "[]",
    "{}",
    "[null]",
    "{\"value\":\"\"}",
    "1e400",
    "-0",
    "1E5",
    "0.10",
    "18446744073709551616",
    "\"\\ud800\"",
    "\"\\ud83d\\ude00\"",
    "\\u0000",
    "\"userName\":",
    "\"emails\":[",
    "{\"value\":\"a\",\"type\":\"work\"}",
    "\"$ref\":\"x\"",
    "\"groups\":[],",
    "\"Resources\":[",
    "\"totalResults\":1,",
    "\"error\":{\"message\":\"x\"},",
    "\"schemas\":[",
    "urn:ietf:params:scim:api:messages:2.0:ListResponse",
    "urn:ietf:params:scim:api:messages:2.0:Error",
    "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User",
    "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
    "\"manager\":{\"value\":\"m\",\"displayName\":\"M\"}",
    "\"manager\":{\"id\":\"m\"},",
    "$serde_json::private::Number",
    "$serde_json::private::RawValue",
    "\"x\":{\"$serde_json::private::RawValue\":\"1\"},",
    "\"x\":{\"$serde_json::private::Number\":\"1\"},",
    "\"name\":{\"givenName\":\"g\"},",
    "\"title\":\"t\",",
    ",",
    ":",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
];

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = match rng.u8(..8) {
        0 => corpus.draw(rng).to_vec(),
        _ => people::page(rng).into_bytes(),
    };
    if rng.u8(..5) < 2 {
        let other = corpus.draw(rng);
        mutate::spoil(rng, &mut input, WORDS, other);
    }
    input
}

fn answered(body: &[u8]) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(
        "content-type",
        HeaderValue::from_static("application/json;charset=UTF-8"),
    );
    Answer {
        status: StatusCode::OK,
        headers,
        body: Bytes::copy_from_slice(body),
    }
}

fn check(body: &[u8]) -> Checked {
    let answer = answered(body);
    let listing = match answer::judge_list(&answer, ASKED) {
        Ok(listing) => listing,
        Err(fault) => return is_told_safely(fault),
    };
    // Every resource of the page, cut where another reader cuts, is a row or a reject.
    let (mut rows, mut rejects) = (listing.rows.iter(), listing.rejects.iter());
    for raw in resources(body) {
        match head(std::str::from_utf8(raw).unwrap()) {
            Ok(_) => prop_assert_eq!(&rows.next().unwrap().raw[..], raw),
            Err(reason) => {
                let reject = rejects.next().unwrap();
                prop_assert_eq!(&reject.reason, &reason);
                is_a_reject(reject, None, raw)?;
            }
        }
    }
    prop_assert!(rows.next().is_none() && rejects.next().is_none());

    let mut rng = rng_for(body);
    let mut before: Option<State> = None;
    for row in listing.rows.iter().take(MOST_CLOSELY) {
        let after = resource(row, &mut rng)?;
        if let (Some(before), Some(after)) = (&before, &after) {
            let record = update::check(row, before, after)?;
            REACHED
                .updates
                .fetch_add(u64::from(record.is_some()), Ordering::Relaxed);
        }
        before = after.or(before);
    }
    if let Some(row) = rng.choice(&listing.rows) {
        spoiled::check(row, &mut rng)?;
    }
    Ok(())
}

/// Why a page is not believed is told without a byte that steers a terminal, and its questions can be
/// asked.
fn is_told_safely(fault: Fault) -> Checked {
    REACHED.faults.fetch_add(1, Ordering::Relaxed);
    let error = Error::new(
        InstanceName::parse("acme").unwrap(),
        What::List(USER),
        1,
        fault,
    );
    let told = format!("{error} {error:?} {:?}", error.hint());
    prop_assert!(!told.chars().any(Foreign::is_unsafe), "{told:?}");
    let _ = (
        error.is_timeout(),
        error.is_transient(),
        error.is_final_answer(),
    );
    if let Some(reject) = error.to_reject() {
        prop_assert!(!reject.reason.is_empty());
        prop_assert!(
            !reject.reason.chars().any(Foreign::is_unsafe),
            "{:?}",
            reject.reason
        );
    }
    Ok(())
}

/// The elements of `Resources`, found by the reader of these tests.
fn resources(body: &[u8]) -> Vec<&[u8]> {
    let blanks = |at: usize| {
        let blank = |byte: &&u8| byte.is_ascii_whitespace();
        at + body[at..].iter().take_while(blank).count()
    };
    let mut at = blanks(0) + 1;
    loop {
        at = blanks(at);
        let name_ends = end_of_value(body, at);
        let name = Json::parse(&body[at..name_ends]);
        let value = blanks(blanks(name_ends) + 1);
        at = end_of_value(body, value);
        let is_it = matches!(name, Ok(Json::Text(name)) if name.eq_ignore_ascii_case("Resources"));
        if is_it && body[value] == b'[' {
            let mut found = Vec::new();
            let mut at = blanks(value + 1);
            while body[at] != b']' {
                let end = end_of_value(body, at);
                found.push(&body[at..end]);
                at = blanks(end);
                at = blanks(at + usize::from(body[at] == b','));
            }
            return found;
        }
        at = blanks(at);
        if body[at] != b',' {
            return Vec::new();
        }
        at += 1;
    }
}

fn is_a_reject(reject: &Reject, id: Option<&ResourceId>, raw: &[u8]) -> Checked {
    REACHED.rejected.fetch_add(1, Ordering::Relaxed);
    prop_assert_eq!(reject.id.as_ref(), id);
    prop_assert!(!reject.reason.is_empty());
    prop_assert!(reject.body.len() <= Reject::MAX_BODY_BYTES);
    let begins = reject.body.trim_end_matches(char::REPLACEMENT_CHARACTER);
    prop_assert!(raw.starts_with(begins.as_bytes()));
    Ok(())
}

/// One resource: its state, as a mirror would keep it; `None` for a reject.
fn resource(row: &Row, rng: &mut Rng) -> Result<Option<State>, TestCaseError> {
    let oracle = Json::parse(&row.raw);
    let arrived = match decode(USER, row) {
        Ok(arrived) => arrived,
        Err(reject) => {
            is_a_reject(&reject, Some(&row.id), &row.raw)?;
            contract::is_rightly_rejected(&reject, &oracle)?;
            return Ok(None);
        }
    };
    REACHED.decoded.fetch_add(1, Ordering::Relaxed);
    let Ok(oracle) = oracle else {
        prop_assert!(false, "decoded what is no JSON: {oracle:?}");
        return Ok(None);
    };
    prop_assert!(
        !contract::has_ambiguities(&oracle),
        "decoded what is ambiguous"
    );
    prop_assert!(
        oracle.depth() <= contract::DEEPEST,
        "decoded what nests too deep"
    );
    let canonical = &arrived.canonical;

    // Nothing is lost, added or changed but what the contract says.
    let wanted = contract::as_kept(&oracle);
    let kept = Json::parse(canonical.as_bytes());
    prop_assert_eq!(kept.as_ref().ok().and_then(Json::content), wanted);
    // An escape becomes what it means, `1E5` gets its sign, an `id` its quotes, and three attributes a list's brackets:
    // nothing else grows.
    prop_assert!(canonical.len() <= row.raw.len() * 5 / 4 + 8);

    // The fast reading is the full one.
    let parsed = Resource::parse(USER, canonical).unwrap();
    prop_assert_eq!(parsed.id(), Some(row.id.as_str()));
    let meta = |name| match oracle.get("meta")?.get(name)? {
        Json::Text(text) => parse_lenient(text),
        _ => None,
    };
    prop_assert_eq!(arrived.modified_at, meta("lastModified"));
    prop_assert_eq!(arrived.created_at, meta("created"));

    // Canonical is canonical.
    prop_assert_eq!(&parsed.to_text(), canonical);
    let columns = user_columns(canonical).unwrap();
    for spelling in [canonical.clone(), oracle.shuffled(rng, 0).spell(rng)] {
        let head = head(&spelling).unwrap();
        prop_assert_eq!(&head.id, &row.id);
        let spelling = Bytes::from(spelling);
        let again = Row {
            id: head.id,
            modified_at: head.modified_at,
            raw: spelling.clone(),
        };
        let again = decode(USER, &again).map_err(|reject| fail(&reject.reason))?;
        prop_assert_eq!(&again.canonical, canonical);
        prop_assert_eq!(&user_columns(&again.canonical).unwrap(), &columns);
        prop_assert_eq!(
            again.fingerprint == arrived.fingerprint,
            spelling == row.raw
        );
    }

    // Asked for by itself it is the same one, and nobody else.
    let answer = answered(&row.raw);
    if let Ok(Asked::Found(found)) = answer::judge_get(&answer, &row.id) {
        prop_assert_eq!(&found.id, &row.id);
    }
    let other = ResourceId::new(format!("{}x", row.id.as_str()));
    prop_assert!(!matches!(
        answer::judge_get(&answer, &other),
        Ok(Asked::Found(_))
    ));

    // It is created once.
    let created = event::seen(None, arrived.clone());
    let state = created.after.clone();
    let record = diff::record(created, true);
    prop_assert_eq!(record.map(|record| record.kind), Some(Kind::Create));
    let again = event::seen(Some(state.clone()), arrived);
    prop_assert_eq!(diff::record(again, true), None);
    Ok(Some(state))
}

fn fail(reason: &str) -> TestCaseError {
    TestCaseError::fail(reason.to_owned())
}
