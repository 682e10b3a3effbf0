//! Headers of an answer (T16): whatever they hold, nobody waits longer than an hour, no limit is
//! tighter than one request a minute, no stamp beyond the instance's own clock counts, and nothing of
//! them steers a terminal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use musterd::clock::{Clock as _, SystemClock};
use musterd::model::{Base, Capabilities, Foreign, PageReport, ResourceId, ResourceType};
use musterd::scim::answer;
use musterd::scim::client::{Answer, BoxFuture, Exchange, Request};
use musterd::scim::crawl::{Crawl, CrawlOptions};
use musterd::scim::error::{ExchangeError, Fault};
use musterd::scim::headers::{LONGEST_WAIT, TIGHTEST_PER_HOUR, Told, date};
use proptest::{prop_assert, prop_assert_eq};
use tokio::time::Instant;

use super::line::Line;
use super::{Checked, Corpus, Target, mutate};

/// Of an answer: its status, and its headers one a line.
const WORDS: &[&str] = &[
    "200\n",
    "429\n",
    "503\n",
    "401\n",
    "404\n",
    "500\n",
    "302\n",
    "\n",
    ": ",
    "retry-after: ",
    "x-ratelimit-limit: ",
    "x-ratelimit-reset: ",
    "date: ",
    "content-type: ",
    "location: ",
    "www-authenticate: ",
    "x-mfa_token: invalid",
    "application/json",
    "text/html",
    "application/scim+json",
    ";charset=UTF-8",
    "0",
    "-1",
    "+5",
    "1e9",
    "0x10",
    "1000000000000",
    "18446744073709551616",
    "253402300799",
    "-9223372036854775808",
    "60.5",
    "NaN",
    "Sun, 01 Mar 2026 08:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "Sun, 99 Mar 2026 08:00:00 GMT",
    "Mon, 01 Jan 2099 00:00:00 GMT",
    "2026-03-01T08:00:00Z",
    "soon",
    ",",
    "\t",
    "\u{1b}[31m",
    "é",
    "\u{202e}",
];

const NAMES: [&str; 9] = [
    "retry-after",
    "x-ratelimit-limit",
    "x-ratelimit-reset",
    "date",
    "content-type",
    "location",
    "www-authenticate",
    "x-mfa_token",
    "x-ratelimit-remaining",
];

const TARGET: Target = Target {
    name: "headers",
    executions: 2_000,
    make,
};

/// The resources of the page that every answer carries, one from the future among them.
const PAGE: &str = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":3,"Resources":[{"id":"a","meta":{"lastModified":"1994-11-06T08:49:37Z"}},{"id":"b","meta":{"lastModified":"2026-03-01T08:00:00.5Z"}},{"id":"c","meta":{"lastModified":"2099-01-01T00:00:01Z"}}]}"#;

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = match rng.u8(..4) {
        0 => corpus.draw(rng).to_vec(),
        _ => {
            let status = rng
                .choice([200, 200, 200, 401, 403, 404, 429, 429, 503, 503, 302, 202])
                .unwrap();
            let mut text = format!("{status}\n");
            for name in NAMES {
                for _ in 0..rng.choice([0, 0, 1, 1, 1, 2]).unwrap() {
                    let value = rng.choice(WORDS).unwrap().trim();
                    text.push_str(&format!("{name}: {value}\n"));
                }
            }
            text.into_bytes()
        }
    };
    if rng.u8(..3) == 0 {
        let other = corpus.draw(rng);
        mutate::spoil(rng, &mut input, WORDS, other);
    }
    input.truncate(4_000);
    input
}

#[test]
fn fuzz() {
    TARGET.run(|input| {
        let answer = answer_of(input);
        told(&answer)?;
        judged(&answer)?;
        waited(&answer)?;
        certified(&answer)
    });
}

/// The answer that an input describes; what HTTP cannot carry is left out.
fn answer_of(input: &[u8]) -> Answer {
    let mut lines = input.split(|byte| *byte == b'\n');
    let status = lines
        .next()
        .and_then(|line| StatusCode::from_bytes(line).ok());
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    Answer {
        status: status.unwrap_or(StatusCode::OK),
        headers,
        body: Bytes::from_static(PAGE.as_bytes()),
    }
}

/// Waits and limits are within bounds, and whole seconds are taken at their word.
fn told(answer: &Answer) -> Checked {
    for now in [
        "0000-01-01T00:00:00Z",
        "2026-03-01T08:00:00Z",
        "9999-12-30T22:00:00Z",
    ] {
        let told = Told::read(answer.status, &answer.headers, now.parse().unwrap());
        prop_assert!(
            told.wait.is_none_or(|wait| wait <= LONGEST_WAIT),
            "{told:?}"
        );
        if let Some(limit) = told.limit {
            prop_assert!(
                limit.per_hour.get() >= TIGHTEST_PER_HOUR && limit.stands_for <= LONGEST_WAIT,
                "{told:?}"
            );
        }
        let retry_after = answer
            .headers
            .get("retry-after")
            .map(|value| value.to_str().unwrap_or_default().trim());
        if let Some(digits) =
            retry_after.filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
        {
            let wanted = digits.parse().map_or(LONGEST_WAIT, |seconds| {
                LONGEST_WAIT.min(Duration::from_secs(seconds))
            });
            prop_assert_eq!(told.wait, Some(wanted));
        }
        if retry_after.is_none() && answer.status != StatusCode::TOO_MANY_REQUESTS {
            prop_assert_eq!(told.wait, None);
        }
    }
    Ok(())
}

/// Whether a page is believed hangs on the status and on the type alone, and no word of a header gets
/// out as it is.
fn judged(answer: &Answer) -> Checked {
    let essence = answer
        .headers
        .get("content-type")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = essence
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_json = essence == "application/json"
        || essence.starts_with("application/") && essence.ends_with("+json");
    let listing = answer::judge_list(answer, 3);
    prop_assert_eq!(listing.is_ok(), answer.status == StatusCode::OK && is_json);
    let gotten = answer::judge_get(answer, &ResourceId::new("a"));
    let faults = [
        listing.err(),
        gotten.err(),
        Some(Fault::Status(answer::refusal(answer))),
    ];
    for fault in faults.into_iter().flatten() {
        let told = format!("{fault} {fault:?}");
        prop_assert!(!told.chars().any(Foreign::is_unsafe), "{told:?}");
        prop_assert!(told.len() < 2_000, "{told:?}");
    }
    Ok(())
}

/// After one such answer a client that keeps asking has its page within two hours: the longest wait,
/// and the pace of the tightest limit.
fn waited(answer: &Answer) -> Checked {
    let line = Line::in_process(Arc::new(FirstThen::of(answer.clone(), good(None))));
    let elapsed = line.block_on(|session| async move {
        let began = Instant::now();
        let users = ResourceType::User;
        let query = super::line::first_page();
        // The first one takes the answer; from then on it is known what was asked for.
        let _ = session.list(users, &query).await;
        let most = SystemClock.now() + LONGEST_WAIT + Duration::from_secs(1);
        let is_held = session
            .client
            .not_before()
            .is_some_and(|until| until > most);
        while session.list(users, &query).await.is_err() {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        (!is_held).then(|| began.elapsed())
    });
    prop_assert!(
        elapsed.is_some_and(|elapsed| elapsed <= 2 * LONGEST_WAIT),
        "{elapsed:?}"
    );
    Ok(())
}

/// The newest stamp that a crawl believes is never beyond the `Date` of the answer that had it.
fn certified(answer: &Answer) -> Checked {
    let page = good(answer.headers.get("date"));
    let dated: Option<Timestamp> = date(&page.headers);
    let line = Line::in_process(Arc::new(FirstThen::of(page.clone(), page)));
    let certificate = line.block_on(|session| async move {
        let options = CrawlOptions {
            resource: ResourceType::User,
            capabilities: Capabilities::default(),
            since: Some(Timestamp::UNIX_EPOCH),
        };
        let mut crawl = Crawl::start(session, options, Arc::new(Base::default), None);
        let mut new_ids = 3;
        while crawl.next().await.unwrap().is_some() {
            crawl.report(PageReport { new_ids });
            new_ids = 0;
        }
        crawl.finish(3, 0).await.unwrap().certificate
    });
    let stamps = [
        "1994-11-06T08:49:37Z",
        "2026-03-01T08:00:00.5Z",
        "2099-01-01T00:00:01Z",
    ];
    let stamps = stamps.iter().map(|text| text.parse::<Timestamp>().unwrap());
    let believed = stamps
        .filter(|stamp| dated.is_some_and(|dated| *stamp <= dated))
        .max();
    prop_assert_eq!(certificate.first_date, dated);
    prop_assert_eq!(certificate.newest_modified_at, believed);
    Ok(())
}

/// The page as a well-behaved instance sends it.
fn good(date: Option<&HeaderValue>) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.extend(date.map(|date| (HeaderName::from_static("date"), date.clone())));
    Answer {
        status: StatusCode::OK,
        headers,
        body: Bytes::from_static(PAGE.as_bytes()),
    }
}

/// One answer first, and from then on another.
struct FirstThen {
    first: Mutex<Option<Answer>>,
    then: Answer,
}

impl FirstThen {
    fn of(first: Answer, then: Answer) -> Self {
        Self {
            first: Mutex::new(Some(first)),
            then,
        }
    }
}

impl Exchange for FirstThen {
    fn exchange(&self, _: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
        let first = self.first.lock().unwrap().take();
        let answer = first.unwrap_or_else(|| self.then.clone());
        Box::pin(async { Ok(answer) })
    }
}
