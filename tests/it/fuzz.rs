//! Fuzzing on stable: what comes from outside is made up, spoiled and put together again, and the
//! function that reads it is held to its laws.
//!
//! Each target replays its corpus, `tests/corpus/TARGET/*`, and then makes so many inputs of its own.
//! The input of an execution depends on its number alone, so that every run of the same size is the
//! same run. `MUSTERD_FUZZ=20` makes it twenty times as many; `MUSTERD_FUZZ_ONLY=4711` makes it that
//! one, for an execution that did not live to tell what it was given: its number is in
//! `target/tmp/fuzz/TARGET.at`.

mod bad_records;
mod config_text;
mod control_frame;
mod decoder;
mod fault_script;
mod filter_literal;
mod foreign;
mod headers;
mod id_in_url;
mod json;
mod line;
mod mutate;
mod times;

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;
use proptest::test_runner::TestCaseError;
use tokio::time::Instant;

use crate::ledger;

/// Whether the laws held, and which did not.
type Checked = Result<(), TestCaseError>;

/// One function that reads what comes from outside.
struct Target {
    /// Names its corpus; with `fuzz_` before it, its line in the ledger.
    name: &'static str,
    /// Inputs that are made in an ordinary run.
    executions: u64,
    /// Makes the input of one execution.
    make: fn(&mut Rng, &Corpus) -> Vec<u8>,
}

/// The inputs that are kept for ever.
struct Corpus {
    inputs: Vec<(String, Vec<u8>)>,
}

/// No input may take longer than this and so much for each of its bytes. Far above what any needs in a
/// build that is not optimized: what is quadratic is above it all the same.
const LONGEST: Duration = Duration::from_secs(3);
const LONGEST_PER_BYTE: Duration = Duration::from_micros(30);

/// How often a failing input is made smaller before it is shown.
const REDUCTIONS: usize = 2_000;

impl Target {
    /// Replays the corpus, executes, and enters how much that was.
    ///
    /// # Panics
    /// When a law does not hold; says for which input, and how to keep and replay it.
    fn run(&self, check: impl Fn(&[u8]) -> Checked) {
        let corpus = Corpus::read(self.name);
        let mut broken = String::new();
        for (name, input) in &corpus.inputs {
            if let Err(failed) = execute(&check, input) {
                let _ = writeln!(broken, "tests/corpus/{}/{name}: {failed}", self.name);
            }
        }
        assert!(broken.is_empty(), "\n{broken}");
        let numbers = match number_from("MUSTERD_FUZZ_ONLY") {
            Some(only) => only..only + 1,
            None => 0..self.executions * number_from("MUSTERD_FUZZ").unwrap_or(1),
        };
        let n_made = usize::try_from(numbers.end - numbers.start).unwrap();
        let kept = kept();
        let at = fs::File::create(kept.join(format!("{}.at", self.name))).unwrap();
        for number in numbers {
            at.write_all_at(format!("{number:20}\n").as_bytes(), 0)
                .unwrap();
            let input = (self.make)(&mut rng_of(self.name, number), &corpus);
            if let Err(failed) = execute(&check, &input) {
                self.fail(&kept, number, input, failed, check);
            }
        }
        ledger::enter(&format!("fuzz_{}", self.name), corpus.inputs.len() + n_made);
    }

    fn fail(
        &self,
        kept: &Path,
        number: u64,
        input: Vec<u8>,
        failed: String,
        check: impl Fn(&[u8]) -> Checked,
    ) -> ! {
        let (input, failed) = reduced(input, failed, check);
        let file = kept.join(format!("{}-{number}", self.name));
        fs::write(&file, &input).unwrap();
        panic!(
            "`{name}`, execution {number}: {failed}\n\
             the input, {len} bytes: \"{text}\"\n\
             to keep and replay it:\n  \
             cp {file} tests/corpus/{name}/NAME\n  \
             cargo test --test it fuzz::{name}",
            name = self.name,
            len = input.len(),
            text = input.escape_ascii(),
            file = file.display(),
        );
    }
}

impl Corpus {
    fn read(target: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpus")
            .join(target);
        let entries = folder
            .read_dir()
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut inputs: Vec<_> = entries
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read(path).unwrap())
            })
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} is empty", folder.display());
        Self { inputs }
    }

    /// One of its inputs.
    fn draw(&self, rng: &mut Rng) -> &[u8] {
        &self.inputs[rng.usize(..self.inputs.len())].1
    }
}

/// Runs the check once, its panics caught and its time taken. A machine may be busy: what took too long
/// is tried again.
fn execute(check: &impl Fn(&[u8]) -> Checked, input: &[u8]) -> Result<(), String> {
    let most = LONGEST + LONGEST_PER_BYTE * u32::try_from(input.len()).unwrap();
    let mut took = Duration::MAX;
    for _ in 0..3 {
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| check(input))) {
            Ok(Ok(())) => {}
            Ok(Err(broken)) => return Err(broken.to_string()),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or(panic.downcast_ref::<&str>().copied());
                return Err(format!("panicked: {}", text.unwrap_or("without a text")));
            }
        }
        took = took.min(began.elapsed());
        if took <= most {
            return Ok(());
        }
    }
    Err(format!("took {took:?} of at most {most:?}"))
}

/// Cuts pieces out of a failing input as long as it fails.
fn reduced(
    mut input: Vec<u8>,
    mut failed: String,
    check: impl Fn(&[u8]) -> Checked,
) -> (Vec<u8>, String) {
    let mut left = REDUCTIONS;
    let mut piece = input.len().div_ceil(2);
    while piece > 0 && left > 0 {
        let mut start = 0;
        while start < input.len() && left > 0 {
            left -= 1;
            let end = (start + piece).min(input.len());
            let smaller = [&input[..start], &input[end..]].concat();
            match execute(&check, &smaller) {
                Ok(()) => start = end,
                Err(still) => (input, failed) = (smaller, still),
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    (input, failed)
}

/// The generator of one execution.
fn rng_of(target: &str, number: u64) -> Rng {
    // FNV-1a: neighbours must not have neighbouring seeds.
    let mut seed = 0xcbf2_9ce4_8422_2325_u64;
    for byte in target.bytes().chain(number.to_le_bytes()) {
        seed = (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    Rng::with_seed(seed)
}

/// A generator for what a check draws by lot: the same for the same input.
fn rng_for(input: &[u8]) -> Rng {
    let mut text = String::new();
    for chunk in input.chunks(512) {
        let _ = write!(
            text,
            "{:x}.",
            rng_of(&String::from_utf8_lossy(chunk), 0).u64(..)
        );
    }
    rng_of(&text, 1)
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: a number, not `{text}`")),
    )
}

/// Where failing inputs are kept until somebody takes them into the corpus.
fn kept() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
    fs::create_dir_all(&folder).unwrap();
    folder
}
