//! A frame on the control socket (T25): what is no request is refused and does nothing, what is one is
//! done once, and the socket goes on listening.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fastrand::Rng;
use musterd::control::{self, Ended, Execute, Line, Lines, Request};
use proptest::{prop_assert, prop_assert_eq};
use tokio_util::sync::CancellationToken;

use super::{Checked, Corpus, Target, mutate};

const WORDS: &[&str] = &[
    "{\"request\":\"sync\"}\n",
    "{\"request\":\"check\",\"instances\":[]}\n",
    "\"request\":",
    "\"approve\"",
    "\"relink\"",
    "\"instances\":[\"acme\"]",
    "\"mode\":\"full\"",
    "\"mode\":null",
    "\"dry_run\":true",
    "\"dry_run\":1",
    "\"hold_id\":9223372036854775808",
    "\"hold_id\":-1",
    "\"digest\":\"\"",
    "\"instance\":\"../x\"",
    "\"more\":1",
    "null",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\\",
    "\\ud800",
    "1e400",
    "\n",
    "\r\n",
    "\0",
    "\u{1b}[31m",
    "\"request\":\"sync\",\"request\":\"check\"",
];

/// The longest request that is read.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;

/// What a reader takes at once: behind an answer that comes earlier, a client still writing is cut off.
const AT_ONCE: usize = 8 * 1024;

const TARGET: Target = Target {
    name: "control_frame",
    executions: 10_000,
    make,
};

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = corpus.draw(rng).to_vec();
    let other = corpus.draw(rng);
    mutate::spoil(rng, &mut input, WORDS, other);
    if rng.u8(..3) > 0 {
        input.push(b'\n');
    }
    input
}

/// Counts what it is asked to do.
#[derive(Default)]
struct Counting {
    done: AtomicUsize,
}

impl Execute for Counting {
    async fn execute(&self, _: Request, _: Lines, _: CancellationToken) -> Ended {
        self.done.fetch_add(1, Ordering::SeqCst);
        Ended::Done
    }
}

#[test]
fn fuzz() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let counting = Arc::<Counting>::default();
    let stop = CancellationToken::new();
    let server = {
        let _entered = runtime.enter();
        control::listen(&path).unwrap()
    };
    let served = runtime.spawn(server.run(Arc::clone(&counting), stop.clone()));
    TARGET.run(|input| {
        let before = counting.done.load(Ordering::SeqCst);
        let answer = exchanged(&path, input);
        let done = counting.done.load(Ordering::SeqCst) - before;
        let first = input
            .split_inclusive(|byte| *byte == b'\n')
            .next()
            .unwrap_or_default();
        let first = &first[..first.len().min(MAX_REQUEST_BYTES)];
        judge(first, answer, done, input.len() > AT_ONCE)
    });
    stop.cancel();
    runtime.block_on(served).unwrap();
    assert!(!path.exists());
}

/// `first` is the line as the other end reads it, `done` how often something was done for it.
fn judge(first: &[u8], answer: Option<Vec<u8>>, done: usize, is_long: bool) -> Checked {
    let text = std::str::from_utf8(first).ok();
    let request = text.and_then(|text| serde_json::from_str::<Request>(text).ok());
    let is_whole = first.ends_with(b"\n");
    prop_assert_eq!(done, usize::from(request.is_some() && is_whole));
    if let Some(request) = &request {
        let again = serde_json::to_string(request).unwrap();
        let again = serde_json::from_str::<Request>(&again).ok();
        prop_assert_eq!(again.as_ref(), Some(request));
    }
    let Some(answer) = answer.filter(|_| !is_long) else {
        return Ok(());
    };
    if text.is_none() || request.is_some() && !is_whole {
        prop_assert!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
        return Ok(());
    }
    prop_assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), 1);
    let Ok(Line::Result(ended)) = serde_json::from_slice(&answer) else {
        prop_assert!(false, "{:?}", String::from_utf8_lossy(&answer));
        return Ok(());
    };
    match request {
        Some(_) => prop_assert_eq!(ended, Ended::Done),
        None => prop_assert!(
            matches!(&ended, Ended::Failed(why) if why.starts_with("not a request: ")),
            "{ended:?}"
        ),
    }
    Ok(())
}

/// Sends a frame, and what came back; `None` when the line broke, as it does under who still writes.
fn exchanged(path: &Path, frame: &[u8]) -> Option<Vec<u8>> {
    let mut stream = UnixStream::connect(path).unwrap();
    let _cut_off = stream.write_all(frame);
    let _cut_off = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok().map(|_| answer)
}
