//! `[mirror]`, `[daemon]`, `[log]`, `[metrics]`, and the instances as a whole.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Map, Value};
use secrecy::ExposeSecret as _;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

use super::instance::{self, Instance};
use super::layers::Layers;
use super::metrics;
use super::notes::Notes;
use super::origin::Origin;
use super::problem::Problem;
use super::section::{Section, table_at};
use super::settings::{
    DaemonSettings, InstanceSettings, LogFormat, LogSettings, MirrorSettings, Settings,
};
use super::value::{Found, Wrong, short};
use super::{Sources, socket_path};
use crate::model::InstanceName;
use crate::reconcile::guard::Limits;

/// The longest path that a unix socket can have (`sun_path` of unix(7), less its final zero).
const MAX_SOCKET_BYTES: usize = 107;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anybody keeps anything, and short enough to compute with.
const CENTURY: Duration = Duration::from_secs(36_500 * 24 * 3600);

/// Reads the whole tree. `None` only if something was noted that is wrong with it.
pub(super) fn read(layers: &Layers, notes: &Notes, sources: &Sources) -> Option<Settings> {
    let mut root = root(layers, notes, sources);
    let mut section = root.section("mirror");
    let found = section.key("path");
    let path = found.as_ref().and_then(Found::path);
    let socket = found
        .zip(path.as_deref())
        .and_then(|(found, path)| read_socket(path, &found, notes, sources));
    let mirror = read_mirror(section, path.clone());
    let daemon = read_daemon(root.section("daemon"));
    let log = read_log(root.section("log"));
    let metrics = metrics::read(root.section("metrics"), notes, sources);
    let instances = read_instances(layers, path.as_deref(), notes, sources);
    if let (Some(mirror), Some(instances)) = (&mirror, &instances) {
        warn_of_longer_window(mirror, instances, notes);
    }
    root.known(&["instances", "defaults"]);
    root.close();
    Some(Settings {
        mirror: mirror?,
        socket: socket?,
        daemon: daemon?,
        log: log?,
        metrics: metrics?,
        instances: instances?,
        warnings: Vec::new(),
    })
}

/// Reads `mirror.path` alone.
pub(super) fn read_mirror_path(
    layers: &Layers,
    notes: &Notes,
    sources: &Sources,
) -> Option<PathBuf> {
    let mut root = root(layers, notes, sources);
    root.section("mirror").key("path")?.path()
}

fn root<'a>(layers: &'a Layers, notes: &'a Notes, sources: &Sources) -> Section<'a> {
    let home = Origin::File(sources.file.clone());
    Section::stacked(notes, vec![("", &layers.tree)], home, layers.unread)
}

fn read_mirror(mut section: Section<'_>, path: Option<PathBuf>) -> Option<MirrorSettings> {
    let history = section
        .key("history")
        .and_then(|found| found.duration_or_forever(SECOND..=CENTURY));
    let sync_history = section
        .key("sync_history")
        .and_then(|found| found.duration(SECOND..=CENTURY));
    section.close();
    Some(MirrorSettings {
        path: path?,
        history: history?,
        sync_history: sync_history?,
    })
}

/// A guard counts in the change records, which are therefore not trimmed before its window is over.
fn warn_of_longer_window(
    mirror: &MirrorSettings,
    instances: &BTreeMap<InstanceName, InstanceSettings>,
    notes: &Notes,
) {
    let windows = instances.iter().flat_map(|(name, instance)| {
        let Limits {
            deactivations,
            blanking,
            memberships,
            group_memberships,
            source_changed: _,
        } = &instance.guard;
        [
            ("deactivations", deactivations),
            ("blanking", blanking),
            ("memberships", memberships),
            ("group_memberships", group_memberships),
        ]
        .map(|(guard, limit)| {
            (
                limit.window,
                format!("instances.{name}.guard.{guard}.window"),
            )
        })
    });
    // Of equal ones the first.
    let longest = windows.reduce(|one, other| if other.0 > one.0 { other } else { one });
    if let (Some(history), Some((window, key))) = (mirror.history, longest)
        && history < window
    {
        let (history, window) = (short(history), short(window));
        notes.warning(format!(
            "`mirror.history` is {history}, but `{key}` is {window}, within which a guard counts: change records are \
             kept {window}; shorten the window as well if they must go sooner"
        ));
    }
}

fn read_socket(
    mirror: &Path,
    found: &Found<'_>,
    notes: &Notes,
    sources: &Sources,
) -> Option<PathBuf> {
    let folder = sources.env.get(OsStr::new("RUNTIME_DIRECTORY"));
    let socket = socket_path(mirror, folder.map(|folder| folder.as_os_str()));
    let bytes = socket.as_os_str().len();
    if bytes > MAX_SOCKET_BYTES {
        let what = format!("makes a control socket whose path has {bytes} bytes");
        let problem = found.problem(what).got(socket.display().to_string());
        notes.problem(
            problem
                .expected(format!("at most {MAX_SOCKET_BYTES}"))
                .hint("choose a shorter folder or name"),
        );
        return None;
    }
    Some(socket)
}

fn read_daemon(mut section: Section<'_>) -> Option<DaemonSettings> {
    let max_full_syncs = section
        .key("max_full_syncs")
        .and_then(|found| found.count(1..=1000));
    section.close();
    Some(DaemonSettings {
        max_full_syncs: max_full_syncs?,
    })
}

fn read_log(mut section: Section<'_>) -> Option<LogSettings> {
    const LEVEL: &str = "\"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a filter such as \"info,musterd::scim=debug\"";
    let level = section
        .key("level")
        .and_then(|found| found.text(LEVEL, parse_level));
    let format = section.key("format").and_then(|found| {
        found.word(&[
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
            ("journald", LogFormat::Journald),
        ])
    });
    section.close();
    Some(LogSettings {
        level: level?,
        format: format?,
    })
}

fn parse_level(text: &str) -> Result<String, Wrong> {
    // A filter of one word that is no level names a target, and silences all others: a typing error.
    let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if text.trim().is_empty() || is_word && text.parse::<LevelFilter>().is_err() {
        return Err(Wrong::new("is not a level"));
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(Wrong::new(format!("is not a filter: {error}"))),
    }
}

fn read_instances(
    layers: &Layers,
    mirror: Option<&Path>,
    notes: &Notes,
    sources: &Sources,
) -> Option<BTreeMap<InstanceName, InstanceSettings>> {
    let empty = Map::new();
    let table = |path: &str| match layers.tree.get(path) {
        None => Some(&empty),
        Some(value) => table_at(path, value, notes),
    };
    let file = Origin::File(sources.file.clone());
    let (defaults, instances) = (table("defaults"), table("instances"));
    if let Some(defaults) = defaults {
        let section = Section::stacked(notes, vec![("defaults", defaults)], file, true);
        instance::read(section, None, mirror, notes, sources);
    }
    let mut written: Vec<(&String, &Value)> = instances?.iter().collect();
    written.sort_by_key(|(name, _)| *name);
    if written.is_empty() && !layers.unread {
        notes.warning("no instance is configured, so that there is nothing to sync".to_owned());
    }
    let mut read = BTreeMap::new();
    let mut all_read = true;
    for (name, value) in written {
        let home = layers
            .homes
            .get(name)
            .cloned()
            .unwrap_or(Origin::Environment);
        let path = format!("instances.{name}");
        let instance = parse_name(&path, name, &home, notes).and_then(|name| {
            let own = table_at(&path, value, notes)?;
            let tables = std::iter::once((path.as_str(), own))
                .chain(defaults.map(|table| ("defaults", table)))
                .collect();
            let partial = defaults.is_none() || layers.unread;
            let section = Section::stacked(notes, tables, home.clone(), partial);
            let instance = instance::read(section, Some(&name), mirror, notes, sources)?;
            Some((name, instance))
        });
        match instance {
            Some((name, instance)) => {
                refuse_double(&read, &name, &instance, &home, notes);
                read.insert(name, instance);
            }
            None => all_read = false,
        }
    }
    let settings = |(name, instance): (_, Instance)| (name, instance.settings);
    all_read.then(|| read.into_iter().map(settings).collect())
}

fn parse_name(path: &str, name: &str, home: &Origin, notes: &Notes) -> Option<InstanceName> {
    let parsed = InstanceName::parse(name);
    if parsed.is_err() {
        let problem = Problem::at(home, path, "cannot name an instance");
        notes.problem(problem.got(name).expected(instance::NAME_PATTERN));
    }
    parsed.ok()
}

/// Two instances that are the same one, seen by the same account, would mirror everybody twice.
fn refuse_double(
    others: &BTreeMap<InstanceName, Instance>,
    name: &InstanceName,
    instance: &Instance,
    home: &Origin,
    notes: &Notes,
) {
    let identity = |instance: &Instance| {
        let url = &instance.settings.client.origin;
        // A final dot in a host's name says the same host again.
        let host = url
            .host_str()
            .map(|host| host.trim_end_matches('.').to_owned());
        let account = instance.account.expose_secret().to_owned();
        (
            url.scheme().to_owned(),
            host,
            url.port_or_known_default(),
            account,
        )
    };
    let same = others
        .iter()
        .find(|(_, other)| identity(other) == identity(instance));
    if let Some((other, _)) = same {
        let what = format!("has the same origin and the same account as the instance `{other}`");
        let problem = Problem::at(home, &format!("instances.{name}.url"), what);
        notes.problem(
            problem
                .got(instance.settings.client.origin.as_str())
                .expected("each instance once for each account")
                .hint("remove one of the two"),
        );
    }
}
