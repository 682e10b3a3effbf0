//! A text as the value of a filter (T9): whoever reads the filter reads that text and no other
//! condition, and the request carries that filter and no other parameter.

use std::sync::Arc;

use fastrand::Rng;
use musterd::clock::SystemClock;
use musterd::sandbox::{self, Column, Incoming, Sandbox, Values};
use musterd::scim::filter::literal;
use proptest::{prop_assert, prop_assert_eq};
use serde_json::Value;

use super::json::text_of;
use super::line::{COUNT, Line, Recorder, USERS, listen, percent_decoded};
use super::{Checked, Corpus, Target, mutate, rng_of};

/// What may stand in a query as it is, beside what may everywhere (RFC 3986 section 3.4), but for `&`
/// and `=`, which part it, and `+`, which some servers take for a blank.
const IN_QUERY: &str = "!$'()*,;:@/?";

const WORDS: &[&str] = &[
    "\"",
    "\\",
    "\\\"",
    "\" or id pr or id eq \"",
    "\") or (id pr",
    "' or 1=1 --",
    "'; drop table users; --",
    " and ",
    " or ",
    "%",
    "%22",
    "%5C%22",
    "+",
    "&filter=",
    "&count=0",
    "#",
    "=",
    "\\u0022",
    "\0",
    "\n",
    "\r\n",
    "\u{2028}",
    "\u{fffd}",
    "javascript:",
    "^",
    "^OR",
    "^NQ",
    "[type eq \"work\"]",
];

const TARGET: Target = Target {
    name: "filter_literal",
    executions: 5_000,
    make,
};

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = match rng.bool() {
        true => mutate::text(rng, 40).into_bytes(),
        false => corpus.draw(rng).to_vec(),
    };
    if rng.bool() {
        let other = corpus.draw(rng);
        mutate::spoil(rng, &mut input, WORDS, other);
    }
    input.truncate(2_000);
    input
}

#[test]
fn fuzz() {
    let recorder = Arc::<Recorder>::default();
    let line = Line::in_process(Arc::clone(&recorder) as _);
    let instance = Instance::start();
    TARGET.run(|input| {
        let text = String::from_utf8_lossy(input);
        let literal = literal(&text);
        let read = text_of(&literal);
        prop_assert_eq!(read.as_deref(), Some(&*text));

        let filter = format!("id gt {literal} and userName eq {literal}");
        line.list(&filter).unwrap_err();
        let urls = recorder.urls();
        prop_assert_eq!(urls.len(), 1);
        prop_assert_eq!(urls[0].path(), USERS);
        prop_assert_eq!(urls[0].fragment(), None);
        carries(urls[0].query().unwrap(), &filter)?;
        instance.finds(&line, &recorder, &text)
    });
}

/// What the client makes of it reaches the other end of a socket as it is.
#[test]
fn the_request_line_carries_the_filter() {
    let (origin, targets) = listen();
    let line = Line::over_http(&origin);
    let corpus = Corpus::read(TARGET.name);
    for number in 0..300 {
        let input = make(&mut rng_of("filter_literal on the line", number), &corpus);
        let filter = format!("id gt {}", literal(&String::from_utf8_lossy(&input)));
        line.list(&filter).unwrap_err();
        let target = targets.recv().unwrap();
        let (path, query) = target.split_once('?').unwrap();
        assert_eq!(path, USERS);
        carries(query, &filter).unwrap();
    }
}

/// Whether a query holds this filter, what every list request holds, and nothing else.
fn carries(query: &str, filter: &str) -> Checked {
    let pairs: Option<Vec<_>> = query
        .split('&')
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), percent_decoded(value, IN_QUERY)?))
        })
        .collect();
    let count = COUNT.to_string();
    let wanted = [
        ("filter", filter),
        ("count", &count),
        ("sortBy", "id"),
        ("sortOrder", "ascending"),
    ];
    let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
    prop_assert_eq!(pairs.as_deref(), Some(&wanted[..]));
    // As a form, too: the other way in which servers read it.
    let as_form: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    prop_assert_eq!(as_form, wanted);
    Ok(())
}

/// The simulated instance, with a parser of its own.
struct Instance {
    sandbox: Sandbox,
}

impl Instance {
    fn start() -> Self {
        let options = sandbox::Options {
            users: 20,
            odd: false,
            ..sandbox::Options::default()
        };
        Self {
            sandbox: Sandbox::new(options, Arc::new(SystemClock)),
        }
    }

    /// Somebody who has this text for a name or for an id is found by it, alone.
    fn finds(&self, line: &Line, recorder: &Recorder, text: &str) -> Checked {
        if text.trim().is_empty() {
            return Ok(());
        }
        let mut values = Values::new();
        values.text.insert(Column::UserName, text.to_owned());
        self.sandbox.create_as(text, &values);
        for attribute in ["userName", "id"] {
            line.list(&format!("{attribute} eq {}", literal(text)))
                .unwrap_err();
            let url = recorder.urls().remove(0);
            let (status, found) = self.ask(url.path(), url.query());
            let ids: Vec<_> = found["Resources"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|user| &user["id"])
                .collect();
            prop_assert_eq!(&ids, &[text], "{} {}", status, found);
        }
        prop_assert!(self.sandbox.delete(text));
        Ok(())
    }

    fn ask(&self, path: &str, query: Option<&str>) -> (u16, Value) {
        let token = format!("Bearer {}", self.sandbox.issue_token());
        let mut headers = http::HeaderMap::new();
        headers.insert("authorization", token.parse().unwrap());
        headers.insert("accept", "application/json".parse().unwrap());
        let reply = self.sandbox.answer(&Incoming {
            method: http::Method::GET,
            path: path.to_owned(),
            query: query.map(Into::into),
            headers,
            body: bytes::Bytes::new(),
        });
        (
            reply.status.as_u16(),
            serde_json::from_slice(&reply.body).unwrap_or_default(),
        )
    }
}
