//! What every reading command takes: which mirror to read, and whether people or programs read the
//! answer.

use std::path::{Path, PathBuf};

use super::exit::{self, Exit, Failure};
use super::{outside, words};
use crate::config::{self, Secrets};
use crate::mirror::Reader;
use crate::model::Foreign;

/// The options of a reading command.
#[derive(Debug, clap::Args)]
pub(crate) struct Reading {
    /// The mirror to read; without it, the one that the configuration names
    #[arg(
        long,
        value_name = "FILE",
        env = "MUSTERD_MIRROR",
        hide_env_values = true
    )]
    mirror: Option<PathBuf>,

    /// Print JSON, one object a line, with the mirror's column names
    #[arg(long)]
    pub(crate) json: bool,
}

impl Reading {
    /// The mirror's file: as told, else as `[mirror]` says, which needs no secret.
    pub(crate) fn path(&self, config: &Path) -> anyhow::Result<PathBuf> {
        match &self.mirror {
            Some(path) => Ok(path.clone()),
            None => Ok(config::mirror_path(&outside::sources(
                config,
                Secrets::None,
            ))?),
        }
    }

    /// Opens the mirror read-only.
    pub(crate) fn open(&self, config: &Path) -> anyhow::Result<Reader> {
        Ok(Reader::open(&self.path(config)?)?)
    }
}

/// Whether the mirror knows an instance: a mistyped name must not look like an empty answer.
pub(crate) fn check_instance(reader: &Reader, instance: &str) -> anyhow::Result<()> {
    let known: Vec<String> = reader
        .pins()?
        .into_iter()
        .map(|pin| pin.instance.to_string())
        .collect();
    // Of one whose users were removed there is the past.
    if known.iter().any(|name| name == instance) || reader.is_in_feed(instance)? {
        return Ok(());
    }
    let hint = match known.len() {
        0 => "no instance is linked yet".to_owned(),
        _ => format!("it knows: {}", known.join(", ")),
    };
    let message = format!("the mirror knows no instance `{}`", Foreign(instance));
    Err(Failure::new(message).hint(hint).into())
}

/// How a command ends that was asked for one of what is called `noun`, by one of its `keys`, and found so many.
pub(crate) fn ending(
    n_found: usize,
    noun: &str,
    keys: &str,
    instance: &str,
    key: &str,
) -> anyhow::Result<Exit> {
    let key = Foreign(key);
    match n_found {
        0 => Err(Failure::new(format!(
            "no {noun} of `{}` has the {keys} `{key}`",
            Foreign(instance)
        ))
        .into()),
        1 => Ok(Exit::Done),
        n => {
            let n_found = words::count(n as i128, noun);
            exit::note(&format!("{n_found} match `{key}`"));
            Ok(Exit::Attention)
        }
    }
}
