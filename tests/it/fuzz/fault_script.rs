//! A fault script for the sandbox: any text is faults or an error, and whatever faults it names, every
//! request is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, Method};
use jiff::Timestamp;
use musterd::clock::Clock;
use musterd::sandbox::{Incoming, Options, Sandbox, ScriptError, read_script};
use proptest::prop_assert;

use super::{Corpus, Target, mutate};

const WORDS: &[&str] = &[
    "[[fault]]\n",
    "[[fault]]\nkind = \"reset\"\n",
    "kind = \"header\"\n",
    "header = \"X\\nY\"\n",
    "value = \"\\u001b\"\n",
    "on = [\"list\"]\n",
    "on = []\n",
    "path = \"*\"\n",
    "path = \"**?*\"\n",
    "request = 1\n",
    "request = [1, 18446744073709551615]\n",
    "request = [2, 1]\n",
    "every = 0\n",
    "every = 9223372036854775807\n",
    "after = \"1h\"\n",
    "after = \"999999999999h\"\n",
    "until = \"-1s\"\n",
    "until = \"PT1H\"\n",
    "probability = 0.5\n",
    "probability = nan\n",
    "times = 1\n",
    "times = -1\n",
    "ms = 18446744073709551615\n",
    "share = 0.5\n",
    "share = nan\n",
    "share = -1\n",
    "share = 1e308\n",
    "seconds = -9223372036854775808\n",
    "rows = 0\n",
    "most = 0\n",
    "ids = [\"\"]\n",
    "by = -1\n",
    "status = 999\n",
    "status = 99\n",
    "x = 1979-05-27T07:32:00Z\n",
    "\"$__toml_private_datetime\" = \"x\"\n",
    "a.b = 1\n",
    "= ",
    "[",
    "]",
    "\"",
    "\\",
    "#",
];

const TARGET: Target = Target {
    name: "fault_script",
    executions: 1_500,
    make,
};

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = corpus.draw(rng).to_vec();
    let other = corpus.draw(rng);
    if rng.bool() {
        input.extend_from_slice(other);
    }
    if rng.u8(..4) > 0 {
        mutate::spoil(rng, &mut input, WORDS, other);
    }
    input
}

/// Shows whatever time it is set to.
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

#[test]
fn fuzz() {
    const START: i64 = 1_772_352_000;
    let file = tempfile::NamedTempFile::new().unwrap();
    TARGET.run(|input| {
        std::fs::write(file.path(), input).unwrap();
        let faults = match read_script(file.path()) {
            Ok(faults) => faults,
            Err(ScriptError::Unreadable { .. }) => {
                prop_assert!(std::str::from_utf8(input).is_err());
                return Ok(());
            }
            Err(error) => {
                prop_assert!(!error.to_string().is_empty());
                return Ok(());
            }
        };
        let hands = Arc::new(Hands(AtomicI64::new(START)));
        let options = Options {
            users: 12,
            groups: 6,
            ..Options::default()
        };
        let sandbox = Sandbox::new(options, Arc::clone(&hands) as _);
        let names: Vec<String> = faults.iter().map(|fault| fault.name.clone()).collect();
        sandbox.set_faults(faults);
        for hour in 0..3 {
            hands.0.store(START + hour * 3600, Ordering::Relaxed);
            answers(&sandbox);
        }
        let fired: Vec<String> = sandbox
            .fired()
            .into_iter()
            .map(|fired| fired.name)
            .collect();
        prop_assert!(
            fired.iter().all(|name| names.contains(name)),
            "{fired:?} of {names:?}"
        );
        Ok(())
    });
}

/// No answer about twelve people is longer.
const MOST_BYTES: usize = 4 << 20;

/// Asks for something of each kind.
fn answers(sandbox: &Sandbox) {
    const USERS: &str = "/api/now/scim/Users";
    const GROUPS: &str = "/api/now/scim/Groups";
    let id = sandbox.ids().first().cloned().unwrap_or_default();
    let one = format!("{USERS}/{id}");
    let group = sandbox.group_ids().first().cloned().unwrap_or_default();
    let group = format!("{GROUPS}/{group}");
    let members = format!(
        r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[{{"op":"add","path":"members","value":[{{"value":"{id}"}}]}}]}}"#
    );
    let patch = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:PatchOp"],"Operations":[{"op":"replace","path":"title","value":"x"}]}"#;
    for (method, path, query, body) in [
        (
            Method::GET,
            USERS,
            Some("count=5&sortBy=id&sortOrder=ascending"),
            "",
        ),
        (
            Method::GET,
            USERS,
            Some("filter=id%20gt%20%22a%22&count=3&startIndex=2"),
            "",
        ),
        (
            Method::GET,
            USERS,
            Some("filter=meta.lastModified%20ge%20%222026-01-01T00:00:00Z%22"),
            "",
        ),
        (Method::GET, &one, None, ""),
        (Method::PATCH, &one, None, patch),
        (
            Method::GET,
            GROUPS,
            Some("count=5&sortBy=id&sortOrder=ascending"),
            "",
        ),
        (Method::GET, &group, None, ""),
        (Method::PATCH, &group, None, &members),
        (Method::GET, "/api/now/scim/ServiceProviderConfig", None, ""),
        (
            Method::POST,
            "/oauth_token.do",
            None,
            "grant_type=client_credentials",
        ),
        (Method::GET, "/nav_to.do", None, ""),
    ] {
        let mut headers = HeaderMap::new();
        let token = format!("Bearer {}", sandbox.issue_token());
        headers.insert("authorization", token.parse().unwrap());
        headers.insert("accept", "application/json".parse().unwrap());
        let reply = sandbox.answer(&Incoming {
            method,
            path: path.to_owned(),
            query: query.map(Into::into),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        });
        assert!(reply.body.len() < MOST_BYTES, "{} bytes", reply.body.len());
    }
}
