//! Large and lopsided pages: what they cost grows with their bytes and no faster (T7), and no stack
//! overflows.

use std::time::Duration;

use bytes::Bytes;
use musterd::model::{ResourceType, State};
use musterd::reconcile::decode::decode;
use musterd::reconcile::{diff, event, guard};
use musterd::scim::{answer, salvage};
use tokio::time::Instant;

use super::{ASKED, answered};

const BYTES: usize = 200_000;

/// Far above what any shape takes in a build that is not optimized; what is quadratic takes hours.
const LONGEST: Duration = Duration::from_secs(20);

#[test]
fn large_pages_cost_what_they_weigh() {
    let n = |piece: &str| BYTES / piece.len();
    let many = |piece: &str| piece.repeat(n(piece));
    let numbered =
        |make: &dyn Fn(usize) -> String| (0..8_000).map(make).collect::<Vec<_>>().join(",");
    let elements = many(r#"{"value":"b","type":"work"},"#);
    for (shape, resource) in [
        (
            "elements",
            format!(r#"{{"id":"a","emails":[{elements}1]}}"#),
        ),
        (
            "elements that differ",
            format!(
                r#"{{"id":"a","roles":[{}]}}"#,
                numbered(&|n| format!(r#"{{"value":"{}"}}"#, n * 7919 % 8_000))
            ),
        ),
        (
            "members",
            format!(
                r#"{{"id":"a","urn:x:User":{{{}}}}}"#,
                numbered(&|n| format!(r#""a{n}":"{n}""#))
            ),
        ),
        (
            "one member again and again",
            format!(r#"{{"id":"a",{}"x":1}}"#, many(r#""x":1,"#)),
        ),
        ("a text", format!(r#"{{"id":"a","title":"{}"}}"#, many("x"))),
        (
            "a text of escapes",
            format!(r#"{{"title":"{}","id":"a"}}"#, many(r"\u00e9\\\n")),
        ),
        ("a name", format!(r#"{{"{}":1,"id":"a"}}"#, many(r"\u0041"))),
        ("a number", format!(r#"{{"id":"a","x":{}.5}}"#, many("7"))),
        ("an id", format!(r#"{{"id":"{}"}}"#, many("a"))),
        (
            "brackets",
            format!(
                r#"{{"id":"a","x":{}{}}}"#,
                "[".repeat(BYTES),
                "]".repeat(BYTES)
            ),
        ),
        (
            "braces",
            format!(
                r#"{{"id":"a","x":{}1{}}}"#,
                r#"{"a":"#.repeat(100_000),
                "}".repeat(100_000)
            ),
        ),
        (
            "wide and deep",
            format!(
                r#"{{"id":"a","x":{}{}{}}}"#,
                "[".repeat(45),
                many(r#""b","a","#).trim_end_matches(','),
                "]".repeat(45)
            ),
        ),
        ("blanks", format!("{{\"id\":{}\"a\"}}", many(" \n\t"))),
        (
            "nothing",
            format!(r#"{{"id":"a","x":[{}null]}}"#, many("null,{},[],\"\",")),
        ),
    ] {
        let page = format!(
            r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":2,"Resources":[{resource},{{"id":"b"}}]}}"#
        );
        let began = Instant::now();
        read(page.as_bytes());
        let took = began.elapsed();
        println!("{shape}: {took:?}");
        assert!(took < LONGEST, "{shape}: {took:?} for {} bytes", page.len());
    }
}

/// Everything that a sync does with a page, of each resource as a change of the other.
fn read(page: &[u8]) {
    const USER: ResourceType = ResourceType::User;
    let mut states: Vec<State> = Vec::new();
    for row in &answer::judge_list(&answered(page), ASKED).unwrap().rows {
        if let Ok(arrived) = decode(USER, row) {
            states.push(event::seen(None, arrived).after);
        }
        let spoiled = Bytes::from([&b"{\"Resources\":["[..], &row.raw, b"\xff]}"].concat());
        assert_eq!(salvage::reject(&spoiled, "why").id, None);
    }
    for (before, after) in [(0, 1), (1, 0)] {
        if let (Some(before), Some(after)) = (states.get(before), states.get(after)) {
            let event = musterd::model::ChangeEvent {
                resource: USER,
                id: musterd::model::ResourceId::new("a"),
                before: Some(before.clone()),
                after: after.clone(),
                proof: None,
            };
            let record = diff::record(event, true).unwrap();
            let concerns = guard::concerns(record.resource, record.kind, record.changed.as_deref());
            assert!(!concerns.contains(&guard::Concern::Deactivation));
        }
    }
}
