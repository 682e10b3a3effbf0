//! Configuration: what may be written, and what is true once it was checked.
//!
//! The layers are laid over each other by the `config` crate and then read key by key here, instead of
//! being deserialized: so every mistake is found at once, each with its file and its key, nothing is
//! rounded or guessed, and a secret is never part of a message.

pub mod settings;

mod address;
mod auth;
mod global;
mod instance;
mod layers;
mod metrics;
mod notes;
mod origin;
mod problem;
mod secret;
mod section;
mod shown;
mod value;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use self::layers::Extent;
use self::notes::Notes;
use crate::mirror;
use crate::model::InstanceName;

pub use self::address::{NotAnAddress, heartbeat_url};
pub(crate) use self::layers::INSTANCES_FOLDER;
pub use self::origin::Origin;
pub use self::problem::{Error, Problem};
pub use self::settings::Settings;
pub use self::shown::{Shown, ShownKey};

/// The file that is read when no other is named.
pub const DEFAULT_FILE: &str = "/etc/musterd/musterd.toml";

/// What the configuration is read from. Not printable: the environment may hold secrets.
#[derive(Clone)]
pub struct Sources {
    /// The file; `instances.d` stands beside it.
    pub file: PathBuf,
    /// The environment: `MUSTERD__…`, `{ env }` secrets, `CREDENTIALS_DIRECTORY` and
    /// `RUNTIME_DIRECTORY`.
    pub env: BTreeMap<OsString, OsString>,
    /// The time, after which every schedule must tick.
    pub now: Timestamp,
    /// Which secrets must be there.
    pub secrets: Secrets,
}

/// Which secrets must be there when the configuration is read. Whatever is not asked for here fails when it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secrets {
    /// All: the daemon starts with none missing.
    All,
    /// All but the credentials of systemd, which only the unit has: for a command that is run by hand.
    AllButCredentials,
    /// None is looked at: for a command that uses none.
    None,
}

/// A configuration that was read, for those who look at it although it may be wrong.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What is in force, as far as it could be read.
    pub shown: Shown,
    /// The settings, or everything that is wrong.
    pub settings: Result<Settings, Error>,
}

/// Reads and checks the configuration.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn load(sources: &Sources) -> Result<Settings, Error> {
    read(sources).settings
}

/// Reads and checks the configuration, and shows what is in force even if it is wrong.
#[must_use]
pub fn read(sources: &Sources) -> Reading {
    let layers = layers::read(sources, Extent::Everything);
    let notes = Notes::default();
    let settings = global::read(&layers, &notes, sources);
    let (found, warnings, shown) = notes.into_parts();
    let problems = [layers.problems, found].concat();
    let settings = match settings {
        Some(settings) if problems.is_empty() => Ok(Settings {
            warnings,
            ..settings
        }),
        _ => Err(Error::new(problems)),
    };
    Reading { shown, settings }
}

/// Where the mirror is: all that a command needs that only reads. Looks at no instance and no secret,
/// so that it also works for those who may not read them.
///
/// # Errors
/// What is wrong with the file itself or with `mirror.path`.
pub fn mirror_path(sources: &Sources) -> Result<PathBuf, Error> {
    let layers = layers::read(sources, Extent::FileAlone);
    let notes = Notes::default();
    let path = global::read_mirror_path(&layers, &notes, sources);
    let (found, _, _) = notes.into_parts();
    let problems = [layers.problems, found].concat();
    match path {
        Some(path) if problems.is_empty() => Ok(path),
        _ => Err(Error::new(problems)),
    }
}

/// Where an instance's authentication is remembered: beside the mirror.
#[must_use]
pub fn auth_state_path(mirror: &Path, instance: &InstanceName) -> PathBuf {
    mirror::beside(mirror, &format!("auth-{instance}"))
}

/// Where the control socket is: beside the mirror, or where systemd gives a folder for it
/// (`RuntimeDirectory=`; of several the first).
#[must_use]
pub fn socket_path(mirror: &Path, runtime_directory: Option<&OsStr>) -> PathBuf {
    let beside = mirror::beside(mirror, "sock");
    let folder = runtime_directory
        .and_then(|folders| std::env::split_paths(folders).next())
        .filter(|folder| !folder.as_os_str().is_empty());
    match (folder, beside.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => beside,
    }
}
