//! The floors of the source tree: imports go down only, and what belongs to one module stays there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every module of the crate with its floor. A module of two words is a room that is on another floor
/// than the rest of its house.
const FLOORS: [(&str, u8); 22] = [
    // Values.
    ("model", 0),
    ("clock", 0),
    // Rules: values in, values out.
    ("reconcile", 1),
    ("scim::wire", 1),
    ("metrics", 1),
    // Edges: each knows the world outside and none of the others.
    ("scim", 2),
    ("mirror", 2),
    ("systemd", 2),
    ("metrics::listen", 2),
    ("metrics::process", 2),
    ("metrics::textfile", 2),
    // Flow.
    ("sync", 3),
    ("schedule", 3),
    // Sends through `scim`, as all does that is sent.
    ("metrics::heartbeat", 3),
    // Settings.
    ("config", 4),
    // Assembly. The daemon is put together from everything below it, the socket included.
    ("control", 5),
    ("sandbox", 5),
    ("daemon", 6),
    // Door. A command that runs for long sets the log's level anew.
    ("logging", 7),
    ("cli", 8),
    ("lib", 9),
    ("main", 9),
];

/// What is the business of some modules alone: a word that others must not contain, where it may
/// stand, and why.
const RESERVED: [(&str, &[&str], &str); 6] = [
    (
        "rusqlite::Connection",
        &["mirror"],
        "only `mirror` contains SQL",
    ),
    ("\"SELECT ", &["mirror"], "only `mirror` contains SQL"),
    ("\"PRAGMA ", &["mirror"], "only `mirror` contains SQL"),
    ("reqwest", &["scim"], "only `scim::client` sends requests"),
    (
        "tokio_cron_scheduler",
        &["schedule"],
        "only `schedule` knows the cron crate",
    ),
    (
        "process::exit",
        &[],
        "stopping is the business of `main` alone, by returning",
    ),
];

/// What a rule must not contain, so that the same input gives the same output.
const NOT_IN_RULES: [&str; 9] = [
    "async ",
    ".await",
    "tokio",
    "rusqlite",
    "reqwest",
    "std::fs",
    "std::net",
    "std::env",
    "crate::clock",
];

#[test]
fn imports_go_down_only() {
    let mut wrong = Vec::new();
    for file in sources() {
        let from = room(&file.module);
        for path in crate_paths(&file.code) {
            let to = room(&path);
            if house(from) == house(to) && floor(to) >= 2 && floor(from) >= 2 {
                continue;
            }
            if from != to && floor(to) >= floor(from) {
                wrong.push(format!(
                    "{}: `crate::{path}`: `{from}` is on floor {}, `{to}` on floor {}",
                    file.path.display(),
                    floor(from),
                    floor(to)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_has_a_floor_and_every_floor_its_modules() {
    let found: BTreeSet<String> = sources()
        .iter()
        .map(|file| room(&file.module).to_owned())
        .collect();
    let named: BTreeSet<String> = FLOORS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, named);
}

#[test]
fn rules_know_neither_time_nor_the_world() {
    for file in sources() {
        if floor(room(&file.module)) == 1 {
            for word in NOT_IN_RULES {
                assert!(
                    !file.code.contains(word),
                    "{}: a rule must not contain `{word}`",
                    file.path.display()
                );
            }
        }
    }
}

#[test]
fn what_belongs_to_one_module_stays_there() {
    for file in sources() {
        for (word, at_home, reason) in RESERVED {
            assert!(
                !file.code.contains(word) || at_home.contains(&house(&file.module)),
                "{}: `{word}`: {reason}",
                file.path.display()
            );
        }
    }
}

/// The sandbox is there to find our own misreading of SCIM, so it may share the seam with our client
/// and nothing of what our client believes.
#[test]
fn the_sandbox_shares_no_belief_with_the_client() {
    for file in sources() {
        if house(&file.module) == "sandbox" {
            for path in crate_paths(&file.code) {
                let fine = ["clock", "sandbox", "scim::client", "scim::error"]
                    .iter()
                    .any(|allowed| path == *allowed || path.starts_with(&format!("{allowed}::")));
                assert!(
                    fine,
                    "{}: the sandbox uses `crate::{path}`",
                    file.path.display()
                );
            }
        }
    }
}

#[test]
fn paths_are_found_in_every_spelling() {
    let code = without_comments_and_tests(
        "use crate::model::{Page, Row};\n\
         use crate::{clock::Clock, scim::{self, wire::Error, client::{Session, Options}}};\n\
         // crate::comment\n\
         pub(crate) fn f() { crate::mirror::open(); }\n\
         #[cfg(test)]\nmod tests { use crate::cli; }\n",
    );
    let paths: BTreeSet<String> = crate_paths(&code).into_iter().collect();
    let expected = [
        "clock::Clock",
        "mirror::open",
        "model::Page",
        "model::Row",
        "scim",
        "scim::client::Options",
        "scim::client::Session",
        "scim::wire::Error",
    ];
    assert_eq!(paths, expected.map(String::from).into());
}

/// One source file, as far as it becomes part of the program.
struct Source {
    path: PathBuf,
    /// `scim::wire`, `cli::status`, `lib`.
    module: String,
    code: String,
}

/// All files under `src`, without comments and without tests.
fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                files.insert(path, text);
            }
        }
    }
    files
        .into_iter()
        .filter_map(|(path, text)| {
            let parts: Vec<&str> = path
                .strip_prefix(&top)
                .ok()?
                .to_str()?
                .trim_end_matches(".rs")
                .trim_end_matches("/mod")
                .split('/')
                .collect();
            if parts.contains(&"tests") {
                return None;
            }
            Some(Source {
                module: parts.join("::"),
                code: without_comments_and_tests(&text),
                path,
            })
        })
        .collect()
}

/// Everything before the tests at the end of a file, without comment lines.
fn without_comments_and_tests(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end]
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Every path below `crate::` in the code, braces spread out: `crate::{a, b::c}` is `a` and `b::c`.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (start, word) in code.match_indices("crate::") {
        let named = |c: char| c.is_alphanumeric() || c == '_';
        // `$crate` and a name that ends in `crate` are something else.
        if !code[..start].ends_with(|c: char| named(c) || c == '$') {
            spread("", &code[start + word.len()..], &mut paths);
        }
    }
    paths
}

/// Reads one path or one group of paths at the start of `rest`, and returns what follows it.
fn spread<'a>(prefix: &str, rest: &'a str, paths: &mut Vec<String>) -> &'a str {
    let rest = rest.trim_start();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            inside = spread(prefix, inside, paths).trim_start();
            match inside.strip_prefix(',') {
                Some(more) if !more.trim_start().starts_with('}') => inside = more,
                Some(more) => return more.trim_start().trim_start_matches('}'),
                None => return inside.strip_prefix('}').unwrap_or(inside),
            }
        }
    }
    let end = rest
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let path = match (prefix, name) {
        (_, "self") => prefix.to_owned(),
        ("", _) => name.to_owned(),
        _ => format!("{prefix}::{name}"),
    };
    match rest.strip_prefix("::") {
        Some(more) => spread(&path, more, paths),
        None => {
            paths.push(path);
            rest.strip_prefix(" as ").map_or(rest, |more| {
                more.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_')
            })
        }
    }
}

/// The longest name in [`FLOORS`] that a path starts with.
fn room(path: &str) -> &str {
    FLOORS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| path == *name || path.starts_with(&format!("{name}::")))
        .max_by_key(|name| name.len())
        .unwrap_or_else(|| panic!("`{path}` has no floor: name its module in `FLOORS`"))
}

/// The module at the top: imports inside one are free, but for its rooms on a lower floor.
fn house(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn floor(room: &str) -> u8 {
    FLOORS
        .iter()
        .find(|(name, _)| *name == room)
        .map_or(0, |(_, floor)| *floor)
}
