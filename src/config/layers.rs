//! Reads the layers and lays them over each other. What the keys mean is not known here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Environment, FileFormat, Format as _, Map, Source, Value};

use toml::de::{DeTable, DeValue};

use super::Sources;
use super::origin::{ENV_PREFIX, Origin};
use super::problem::Problem;
use crate::model::InstanceName;

/// The lowest layer: every key that has a default.
const BUILT_IN: &str = include_str!("../../config/default.toml");

/// The folder beside the file, with one instance a file.
pub(crate) const INSTANCES_FOLDER: &str = "instances.d";

/// All layers, one over the other.
pub(super) struct Layers {
    /// The tree in which later layers have replaced earlier ones, each value with its origin.
    pub(super) tree: Map<String, Value>,
    /// The file that introduces each instance; one that is not here exists in the environment only.
    pub(super) homes: BTreeMap<String, Origin>,
    /// What could not be read.
    pub(super) problems: Vec<Problem>,
    /// Whether a file could not be read: what it would have said is not missing.
    pub(super) unread: bool,
}

/// Which instances are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// The file, and `instances.d` beside it.
    Everything,
    /// The file alone: who only wants `[mirror]` need not be able to read the rest.
    FileAlone,
}

/// Reads everything that `sources` names.
pub(super) fn read(sources: &Sources, extent: Extent) -> Layers {
    let mut layers = Layers {
        tree: Map::new(),
        homes: BTreeMap::new(),
        problems: Vec::new(),
        unread: false,
    };
    let mut builder = Config::builder();

    let built_in = layers.parse(&Origin::BuiltIn, BUILT_IN);
    builder = builder.add_source(Layer(built_in));

    let origin = Origin::File(sources.file.clone());
    if let Some(text) = layers.read_file(&sources.file) {
        let table = layers.parse(&origin, &text);
        if let Some(instances) = table.get("instances").and_then(as_table) {
            let homes = instances.keys().map(|name| (name.clone(), origin.clone()));
            layers.homes.extend(homes);
        }
        builder = builder.add_source(Layer(table));
    }
    if extent == Extent::Everything {
        let folder = sources.file.with_file_name(INSTANCES_FOLDER);
        for (name, table) in layers.read_folder(&folder) {
            builder = builder.add_source(Layer(under_instances(&name, table)));
        }
    }
    let environment = Environment::with_prefix(ENV_PREFIX.trim_end_matches('_'))
        .prefix_separator("__")
        .separator("__")
        .source(Some(layers.variables(&sources.env)));
    builder = builder.add_source(environment);

    match builder.build().and_then(|config| config.collect()) {
        Ok(tree) => layers.tree = tree,
        Err(error) => layers
            .problems
            .push(Problem::in_place("configuration", error.to_string())),
    }
    layers
}

/// The table that a value is, if it is one.
pub(super) fn as_table(value: &Value) -> Option<&Map<String, Value>> {
    match &value.kind {
        config::ValueKind::Table(table) => Some(table),
        _ => None,
    }
}

/// One parsed file as a source of the `config` crate.
#[derive(Clone, Debug)]
struct Layer(Map<String, Value>);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

fn under_instances(name: &InstanceName, table: Map<String, Value>) -> Map<String, Value> {
    let instance = Map::from_iter([(name.to_string(), Value::from(table))]);
    Map::from_iter([("instances".to_owned(), Value::from(instance))])
}

impl Layers {
    fn read_file(&mut self, path: &Path) -> Option<String> {
        let problem = match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => return Some(text),
            Ok(Err(_)) => Problem::in_place(path.display().to_string(), "is not UTF-8 text"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Problem::in_place(path.display().to_string(), "there is no such file")
                    .hint("write one (a few lines are enough, see `config/minimal.toml`), or name another with `--config FILE` or `MUSTERD_CONFIG`")
            }
            Err(error) => {
                Problem::in_place(path.display().to_string(), format!("cannot be read: {error}"))
                    .hint("the account that musterd runs as needs to read it")
            }
        };
        self.problems.push(problem);
        self.unread = true;
        None
    }

    /// Parses one file. A syntax error shows its position, but not the text there: that may be a
    /// secret.
    fn parse(&mut self, origin: &Origin, text: &str) -> Map<String, Value> {
        let mut table = match FileFormat::Toml.parse(Some(&origin.uri()), text) {
            Ok(table) => table,
            Err(cause) => {
                let problem = match cause.downcast_ref::<toml::de::Error>() {
                    Some(error) => {
                        let (line, column) = position(text, error.span().map_or(0, |s| s.start));
                        let message = error.message();
                        let what = format!("line {line}, column {column}: is not TOML: {message}");
                        Problem::in_place(origin.place("").0, what)
                    }
                    // The crate's only other error comes from turning a number into a machine's.
                    None => {
                        let key = number_out_of_range(text).unwrap_or_default();
                        Problem::at(origin, &key, "is a number out of range")
                            .expected("a number of at most 64 bits")
                    }
                };
                self.problems.push(problem);
                self.unread = true;
                return Map::new();
            }
        };
        // At the top level the `config` crate reads a key as an expression: `"a[9]"` makes a list.
        let is_bare = |key: &str| {
            !key.is_empty()
                && key
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        let mut odd: Vec<String> = table.keys().filter(|key| !is_bare(key)).cloned().collect();
        odd.sort();
        for key in odd {
            table.remove(&key);
            self.problems
                .push(Problem::at(origin, &key, "is not a known key"));
        }
        table
    }

    fn read_folder(&mut self, folder: &Path) -> Vec<(InstanceName, Map<String, Value>)> {
        let paths = match list(folder) {
            Ok(paths) => paths,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                let place = folder.display().to_string();
                self.problems.push(
                    Problem::in_place(place, format!("cannot be read: {error}"))
                        .hint("the account that musterd runs as needs to list it"),
                );
                return Vec::new();
            }
        };
        let mut instances = Vec::new();
        for path in paths {
            let place = path.display().to_string();
            let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
            let Ok(name) = InstanceName::parse(stem) else {
                let problem = Problem::in_place(place, "the file's name cannot name an instance")
                    .got(stem)
                    .expected(format!("{} and `.toml`", super::instance::NAME_PATTERN));
                self.problems.push(problem);
                continue;
            };
            let origin = Origin::InstanceFile(path.clone());
            match self.homes.entry(name.to_string()) {
                Entry::Occupied(other) => {
                    let (other, _) = other.get().place("");
                    let what =
                        format!("the instance `{name}` is defined twice, here and in {other}");
                    self.problems
                        .push(Problem::in_place(place, what).hint("remove one of the two"));
                    continue;
                }
                Entry::Vacant(home) => home.insert(origin.clone()),
            };
            if let Some(text) = self.read_file(&path) {
                instances.push((name, self.parse(&origin, &text)));
            }
        }
        instances
    }

    /// The variables that set keys. The `config` crate would take them in any case and any shape.
    fn variables(&mut self, env: &BTreeMap<OsString, OsString>) -> Map<String, String> {
        let mut taken = BTreeMap::new();
        for (name, value) in env {
            let Some(name) = name.to_str() else { continue };
            let upper = name.to_ascii_uppercase();
            let Some(path) = upper.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            let is_key = |part: &str| {
                !part.is_empty()
                    && !part.starts_with('_')
                    && !part.ends_with('_')
                    && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            let problem = |what: &str| Problem::in_place(format!("environment: `{name}`"), what);
            if name != upper {
                let problem = problem("is not in upper case");
                self.problems.push(problem.expected(format!("`{upper}`")));
            } else if !path.split("__").all(is_key) {
                let problem = problem("names no key");
                self.problems.push(
                    problem.expected("`MUSTERD__SECTION__KEY`, such as `MUSTERD__LOG__LEVEL`"),
                );
            } else if let Some(value) = value.to_str() {
                taken.insert(name.to_owned(), value.to_owned());
            } else {
                self.problems.push(problem("is not UTF-8 text"));
            }
        }
        for name in taken.keys() {
            let below = format!("{name}__");
            if let Some(other) = taken.keys().find(|other| other.starts_with(&below)) {
                let what = format!("is set as a whole, and `{other}` sets a part of it");
                self.problems.push(
                    Problem::in_place(format!("environment: `{name}`"), what)
                        .hint("unset one of the two"),
                );
            }
        }
        taken.into_iter().collect()
    }
}

/// The `*.toml` of a folder in the order of their names, without hidden ones (an editor's).
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension() == Some(OsStr::new("toml")) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Line and column, both counted from 1, of a place in a text given in bytes.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// The key of the first number in a document that no machine's number can hold.
fn number_out_of_range(text: &str) -> Option<String> {
    fn search(path: &str, value: &DeValue<'_>) -> Option<String> {
        match value {
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                parsed.is_err().then(|| path.to_owned())
            }
            DeValue::Float(number) => {
                let parsed = number.as_str().parse::<f64>();
                (!parsed.is_ok_and(f64::is_finite)).then(|| path.to_owned())
            }
            DeValue::Array(array) => array.iter().find_map(|part| search(path, part.get_ref())),
            DeValue::Table(table) => table.iter().find_map(|(key, value)| {
                let dot = if path.is_empty() { "" } else { "." };
                search(&format!("{path}{dot}{}", key.get_ref()), value.get_ref())
            }),
            _ => None,
        }
    }
    let document = DeTable::parse(text).ok()?.into_inner();
    search("", &DeValue::Table(document))
}
