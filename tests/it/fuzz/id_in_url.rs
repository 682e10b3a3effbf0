//! An id in the URL of its resource (T12): the request asks for that id, or is not sent.

use std::sync::Arc;

use fastrand::Rng;
use musterd::model::ResourceId;
use musterd::scim::client::Asked;
use proptest::{prop_assert, prop_assert_eq};
use url::Url;

use super::line::{Line, Recorder, USERS, listen, percent_decoded};
use super::{Checked, Corpus, Target, mutate, rng_of};

/// What may stand in a segment of a path as it is, beside what may everywhere (RFC 3986 section 3.3).
const IN_SEGMENT: &str = "!$&'()*+,;=:@";

const WORDS: &[&str] = &[
    ".",
    "..",
    "/",
    "//",
    "\\",
    "%",
    "%2e",
    "%2E%2e",
    "%2f",
    "%5c",
    "%00",
    "%25",
    "?",
    "?count=500",
    "#",
    ";",
    ":",
    "@",
    "https://evil.example/",
    "\0",
    "\n",
    "\r\n",
    "\t",
    " ",
    "\u{85}",
    "\u{a0}",
    "\u{2028}",
    "\u{ff0e}\u{ff0e}",
    "\u{2024}",
    "\u{2215}",
    "|",
    "^",
    "`",
    "{",
    "}",
    "<",
    ">",
    "\"",
    "'",
    "é",
    "\u{1f600}",
    "+",
    "&",
    "=",
    "~",
];

const TARGET: Target = Target {
    name: "id_in_url",
    executions: 10_000,
    make,
};

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = match rng.u8(..3) {
        0 => corpus.draw(rng).to_vec(),
        1 => (0..rng.u8(..4))
            .flat_map(|_| rng.choice(WORDS).unwrap().bytes())
            .collect(),
        _ => mutate::text(rng, 20).into_bytes(),
    };
    if rng.bool() {
        let other = corpus.draw(rng);
        mutate::spoil(rng, &mut input, WORDS, other);
    }
    input.truncate(1_000);
    input
}

#[test]
fn fuzz() {
    let recorder = Arc::<Recorder>::default();
    let line = Line::in_process(Arc::clone(&recorder) as _);
    TARGET.run(|input| {
        let id = ResourceId::new(String::from_utf8_lossy(input));
        let asked = line.get(&id).unwrap();
        let urls = recorder.urls();
        if is_refused(id.as_str()) {
            prop_assert!(
                urls.is_empty() && matches!(asked, Asked::Unclear(_)),
                "asked for {urls:?}"
            );
            return Ok(());
        }
        prop_assert!(matches!(asked, Asked::NotFound));
        let [url] = urls.as_slice() else {
            panic!("{urls:?}");
        };
        prop_assert_eq!(url.origin().ascii_serialization(), "https://acme.example");
        prop_assert!(url.username().is_empty() && url.password().is_none());
        prop_assert_eq!((url.query(), url.fragment()), (None, None));
        asks_for(url.path(), id.as_str())?;
        // Read again, by the rules that also undo dots: it stays what it was.
        prop_assert_eq!(&Url::parse(url.as_str()).unwrap(), url);
        prop_assert_eq!(&url.join(url.path()).unwrap(), url);
        Ok(())
    });
}

/// What the client makes of it reaches the other end of a socket as it is.
#[test]
fn the_request_line_asks_for_the_id() {
    let (origin, targets) = listen();
    let line = Line::over_http(&origin);
    let corpus = Corpus::read(TARGET.name);
    let made = (0..1_000).map(|number| make(&mut rng_of("id_in_url on the line", number), &corpus));
    let kept = corpus.inputs.iter().map(|(_, input)| input.clone());
    for input in kept.chain(made) {
        let id = ResourceId::new(String::from_utf8_lossy(&input));
        let asked = line.get(&id).unwrap();
        if is_refused(id.as_str()) {
            assert!(matches!(asked, Asked::Unclear(_)));
        } else {
            asks_for(&targets.recv().unwrap(), id.as_str()).unwrap();
        }
        // Nothing was sent beside it.
        assert!(targets.try_recv().is_err());
    }
}

/// The ids that the contract does not ask for.
fn is_refused(id: &str) -> bool {
    let steers = |c: char| c < ' ' || ('\u{7f}'..='\u{9f}').contains(&c);
    ["", ".", ".."].contains(&id) || id.contains(steers)
}

/// Whether a path is that of users with exactly one segment more, which is the id.
fn asks_for(path: &str, id: &str) -> Checked {
    let segment = path
        .strip_prefix(USERS)
        .and_then(|rest| rest.strip_prefix('/'));
    let Some(segment) = segment else {
        panic!("{path}");
    };
    let decoded = percent_decoded(segment, IN_SEGMENT);
    prop_assert_eq!(decoded.as_deref(), Some(id), "{}", path);
    Ok(())
}
