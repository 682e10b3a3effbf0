//! A configuration, its file and its environment: any text is settings or mistakes with their places,
//! each on a line of its own, and no secret in any of them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use fastrand::Rng;
use musterd::config::{self, Sources};
use musterd::model::Foreign;
use proptest::prop_assert;

use super::{Checked, Corpus, Target, mutate};

/// Between the file, one of `instances.d`, and the environment.
const PARTS: &str = "\n--- ";

/// What stands for a secret in the corpus.
const SECRET: &str = "S3CR3T-CANARY";

const WORDS: &[&str] = &[
    "[instances.acme]\n",
    "[instances.acme.auth]\n",
    "[defaults.rate]\n",
    "[defaults]\n",
    "[log]\n",
    "[mirror]\n",
    "[daemon]\n",
    "[[instances]]\n",
    "level = \"debug\"\n",
    "\n--- instance globex\n",
    "\n--- environment\n",
    "MUSTERD__LOG__LEVEL=info\n",
    "MUSTERD__INSTANCES__ACME__RATE__PER_SECOND=1\n",
    "MUSTERD__INSTANCES__ACME=x\n",
    "MUSTERD__A[9]=1\n",
    "MUSTERD____=\n",
    "musterd__log__level=x\n",
    "page_size = 501\n",
    "page_size = 2.7\n",
    "page_size = 99999999999999999999\n",
    "timeout = \"1y\"\n",
    "timeout = \"0s\"\n",
    "history = \"forever\"\n",
    "history = \"-1d\"\n",
    "url = \"https://u:p@h\"\n",
    "url = \"http://169.254.169.254\"\n",
    "url = \"//\"\n",
    "incremental = \"* * * * * *\"\n",
    "incremental = \"0 0 0 30 2 *\"\n",
    "full = \"@daily\"\n",
    "timezone = \"Europe/Nowhere\"\n",
    "percent = 101\n",
    "percent = -1\n",
    "\"a[9]\" = 1\n",
    "\"a.b\" = 1\n",
    "\"\" = 1\n",
    "a.b.c.d = 1\n",
    "type = \"bearer\"\n",
    "type = \"oauth\"\n",
    "token = { env = \"X\" }\n",
    "{ file = \"/nowhere\" }",
    "{ credential = \"../x\" }",
    "{ env = 1, file = 2 }",
    "x = nan\n",
    "x = -inf\n",
    "x = 1e400\n",
    "x = 1979-05-27\n",
    "x = { \"$__toml_private_datetime\" = \"x\" }\n",
    "[a",
    "]",
    "=",
    "\"",
    "#",
    "\u{1b}[31m",
    "\u{202e}",
];

const TARGET: Target = Target {
    name: "config_text",
    executions: 600,
    make,
};

fn make(rng: &mut Rng, corpus: &Corpus) -> Vec<u8> {
    let mut input = corpus.draw(rng).to_vec();
    let other = corpus.draw(rng);
    mutate::spoil(rng, &mut input, WORDS, other);
    if rng.bool() {
        mutate::spoil(rng, &mut input, WORDS, other);
    }
    input
}

#[test]
fn fuzz() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("instances.d")).unwrap();
    TARGET.run(|input| {
        let sources = sources(folder.path(), input);
        let reading = config::read(&sources);
        let mut told = format!(
            "{:?}{}{}",
            reading.shown,
            reading.shown.to_toml(),
            reading.shown.to_json()
        );
        match &reading.settings {
            Ok(settings) => {
                for instance in settings.instances.values() {
                    let client = &instance.client;
                    prop_assert!((1..=500).contains(&client.page_size), "{client:?}");
                    prop_assert!((1..=4).contains(&client.concurrency), "{client:?}");
                    prop_assert!(!client.timeout.is_zero(), "{client:?}");
                    prop_assert!(client.origin.username().is_empty(), "{client:?}");
                }
                told.push_str(&format!("{settings:?}"));
            }
            Err(error) => {
                prop_assert!(!error.problems().is_empty());
                let lines = error.to_string();
                prop_assert!(
                    lines
                        .lines()
                        .all(|line| !line.chars().any(Foreign::is_unsafe)),
                    "{lines:?}"
                );
                prop_assert!(
                    lines.lines().count() == error.problems().len() + 1,
                    "{lines}"
                );
                told.push_str(&lines);
            }
        }
        let _ = config::mirror_path(&sources);
        keeps_the_secret(input, &told)
    });
}

/// What stands where a secret belongs is in no message and in nothing that is shown.
fn keeps_the_secret(input: &[u8], told: &str) -> Checked {
    let text = String::from_utf8_lossy(input);
    let is_a_secret = ["client_secret", "password", "token"].iter().any(|key| {
        text.lines()
            .any(|line| line == format!("{key} = \"{SECRET}\""))
    });
    // In a text of several lines it is no secret but a part of something else.
    let alone =
        text.matches(SECRET).count() == 1 && !text.contains("\"\"\"") && !text.contains("'''");
    if is_a_secret && alone {
        prop_assert!(!told.contains(SECRET), "{told}");
    }
    Ok(())
}

/// Writes the files that an input describes, and gives what it says of the environment.
fn sources(folder: &Path, input: &[u8]) -> Sources {
    let file = folder.join("musterd.toml");
    let instance = folder.join("instances.d/globex.toml");
    let _none = std::fs::remove_file(&instance);
    let mut env = BTreeMap::new();
    let mut rest = input;
    let mut target = Some(file.as_path());
    loop {
        let end = rest
            .windows(PARTS.len())
            .position(|window| window == PARTS.as_bytes());
        let part = &rest[..end.unwrap_or(rest.len())];
        match target {
            Some(path) => std::fs::write(path, part).unwrap(),
            None => {
                let lines = part.split(|byte| *byte == b'\n');
                env.extend(lines.filter_map(|line| {
                    let place = line.iter().position(|byte| *byte == b'=')?;
                    let text = |bytes| OsString::from(std::ffi::OsStr::from_bytes(bytes));
                    Some((text(&line[..place]), text(&line[place + 1..])))
                }));
            }
        }
        let Some(end) = end else { break };
        rest = &rest[end + PARTS.len()..];
        let name_ends = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(rest.len(), |end| end + 1);
        target = rest.starts_with(b"instance").then_some(instance.as_path());
        rest = &rest[name_ends..];
    }
    Sources {
        file,
        env,
        now: "2026-03-01T08:00:00Z".parse().unwrap(),
        secrets: config::Secrets::All,
    }
}
