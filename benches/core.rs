//! What the pure core costs: one user of ServiceNow's shape at each step, and a page of 200.
//!
//! `cargo bench --bench core`. Times are a user's, but for the page, whose items a second are users.

#![expect(
    clippy::expect_used,
    reason = "a bench whose sample is not what it should be has nothing to measure"
)]

use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use musterd::model::{Arrived, ResourceType, Row, State};
use musterd::reconcile::canonical::Resource;
use musterd::reconcile::fold::{FoldInput, Folded, fold};
use musterd::reconcile::{decode, diff, event, fingerprint, mapping};
use musterd::scim::answer::judge_list;
use musterd::scim::client::Answer;

const USER: ResourceType = ResourceType::User;

/// Users in a page, as an instance is asked for by default.
const PAGE: u32 = 200;

fn main() {
    divan::main();
}

/// One user as an instance shows it: about 1,550 bytes.
fn user(number: u32, title: &str) -> String {
    let reference = |list: &str, of: u32, key: &str, name: &str| {
        format!(
            r#"{{"value":"{of:032x}","{key}":"{name} {of}","$ref":"https://acme.service-now.com/api/now/scim/{list}/{of:032x}"}}"#
        )
    };
    format!(
        r#"{{"schemas":["urn:ietf:params:scim:schemas:extension:servicenow:2.0:User","urn:ietf:params:scim:schemas:core:2.0:User"],"id":"{number:032x}","externalId":"hr-{number}","meta":{{"resourceType":"User","created":"2025-05-11T03:54:58Z","lastModified":"2026-10-06T17:34:21Z","location":"https://acme.service-now.com/api/now/scim/Users/{number:032x}"}},"userName":"zoe.petrov{number}","name":{{"familyName":"Petrov","givenName":"Zoë"}},"displayName":"Zoë Petrov","title":"{title}","userType":"Employee","preferredLanguage":"pt","timezone":"Europe/Lisbon","active":true,"emails":[{{"value":"zoe.petrov{number}@example.org","type":"work"}}],"phoneNumbers":[{{"value":"+47 555 84 47","type":"work"}},{{"value":"+47 97123267","type":"mobile"}}],"addresses":[{{"type":"home","locality":"Lisboa","country":"PT"}}],"urn:ietf:params:scim:schemas:extension:servicenow:2.0:User":{{"employeeNumber":"E-{number}","costCenter":{},"company":{},"department":{},"manager":{},"location":{}}}}}"#,
        reference("CostCenters", number % 300, "name", "CC"),
        reference("Companies", number % 7, "name", "Example Energy SpA"),
        reference("Departments", number % 40, "name", "Customer Support"),
        reference("Users", number / 10, "displayName", "Fatima Weiss"),
        reference("Locations", number % 20, "name", "Chicago, US"),
    )
}

fn row(title: &str) -> Row {
    let raw = user(1, title);
    let head = decode::head(&raw).expect("the sample has an id");
    Row {
        id: head.id,
        modified_at: head.modified_at,
        raw: Bytes::from(raw),
    }
}

fn arrived(title: &str) -> Arrived {
    decode::decode(USER, &row(title)).expect("the sample is a user")
}

fn state(title: &str) -> State {
    event::seen(None, arrived(title)).after
}

/// A whole page judged and cut into its users, heads read.
#[divan::bench]
fn slice_a_page(bencher: Bencher<'_, '_>) {
    let users: Vec<String> = (0..PAGE).map(|number| user(number, "Analyst")).collect();
    let body = format!(
        r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":100000,"Resources":[{}],"startIndex":1,"itemsPerPage":{PAGE}}}"#,
        users.join(",")
    );
    let json = HeaderValue::from_static("application/json;charset=UTF-8");
    let answer = Answer {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
        body: Bytes::from(body),
    };
    bencher
        .counter(ItemsCount::new(PAGE))
        .bench(|| judge_list(black_box(&answer), PAGE).expect("the sample is a page"));
}

/// The id and the stamp, without decoding.
#[divan::bench]
fn head(bencher: Bencher<'_, '_>) {
    let raw = user(1, "Analyst");
    bencher.bench(|| decode::head(black_box(&raw)));
}

#[divan::bench]
fn fingerprint_of_what_arrived(bencher: Bencher<'_, '_>) {
    let raw = user(1, "Analyst");
    bencher
        .counter(BytesCount::of_str(&raw))
        .bench(|| fingerprint::fingerprint(black_box(raw.as_bytes())));
}

/// Raw text to canonical text, all checks included.
#[divan::bench]
fn decode_to_canonical(bencher: Bencher<'_, '_>) {
    let row = row("Analyst");
    bencher.bench(|| decode::decode(USER, black_box(&row)));
}

/// A tree that was read, written as canonical text.
#[divan::bench]
fn canonical_text(bencher: Bencher<'_, '_>) {
    let raw = user(1, "Analyst");
    let resource = Resource::parse(USER, &raw).expect("the sample is a user");
    bencher.bench(|| black_box(&resource).to_text());
}

/// Canonical text to the columns of `users`.
#[divan::bench]
fn map_columns(bencher: Bencher<'_, '_>) {
    let canonical = state("Analyst").canonical;
    bencher.bench(|| mapping::user_columns(black_box(&canonical)));
}

/// Two equal users: another spelling arrived, or an incremental sync read somebody again.
#[divan::bench]
fn diff_of_nothing(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(|| event::seen(Some(state("Analyst")), arrived("Analyst")))
        .bench_values(|event| diff::record(event, true));
}

/// One attribute that changed.
#[divan::bench]
fn diff_of_a_title(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(|| event::seen(Some(state("Analyst")), arrived("Chief Analyst")))
        .bench_values(|event| diff::record(event, true));
}

/// A create and an update folded to the mirror's row.
#[divan::bench]
fn fold_two_records(bencher: Bencher<'_, '_>) {
    let (first, second) = (state("Analyst").canonical, state("Chief Analyst").canonical);
    let record = |seq, kind, reason, after| FoldInput {
        resource: "User",
        seq,
        is_base: false,
        kind,
        reason,
        has_proof: false,
        after,
        source_modified_at: Some("2026-10-06T17:34:21Z"),
        observed_at: "2026-10-06T17:35:00.000Z",
    };
    let create = record(1, "create", "baseline", &*first);
    let update = record(2, "update", "changed", &*second);
    let both = || -> Option<Folded> {
        let created = fold(None, black_box(&create)).ok()?;
        fold(created, black_box(&update)).ok()?
    };
    assert!(both().is_some(), "the sample folds");
    bencher.counter(ItemsCount::new(2_u32)).bench(both);
}
