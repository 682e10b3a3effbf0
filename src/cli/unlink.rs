//! `musterd unlink`: takes out what `musterd link` put in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::exit::{Exit, Failure};
use super::handover;
use super::instance_files::{MADE_BY_LINK, Places};
use super::output::Output;
use super::outside;
use crate::config::{self, Sources};
use crate::model::InstanceName;

/// Take an instance out of the configuration
///
/// Removes `instances.d/NAME.toml`, and tells the running daemon. Then removes the files of secrets that `musterd link`
/// made for it, unless something else in the configuration names them. The instance is not synced any more. The mirror
/// keeps its users, in the state `unlinked`, and leaves them out of `active_users`; linked again, it goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: sudo musterd unlink acme")]
pub(crate) struct Unlink {
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) async fn unlink(args: Unlink, config: PathBuf) -> anyhow::Result<Exit> {
    let name = InstanceName::parse(&args.name)?;
    let config = std::path::absolute(config).context("where is the working directory")?;
    let places = Places::of(&config, &name);
    if !places.instance.try_exists()? {
        let settings = config::load(&outside::sources(&config))?;
        let failure = match settings.instances.contains_key(&name) {
            true => {
                Failure::new(format!("`{name}` does not stand in a file of its own")).hint(format!(
                    "take its section out of `{}`, then reload",
                    config.display()
                ))
            }
            false => Failure::new(format!("`{name}` does not stand in the configuration")),
        };
        return Err(failure.into());
    }

    let aside = Aside::of(&places.instance)?;
    // What is wrong without it would be so for the daemon, too: then it stays.
    let settings = config::load(&outside::sources(&config))?;
    if settings.instances.contains_key(&name) {
        let message = format!("`{name}` stands elsewhere in the configuration, too");
        return Err(Failure::new(message)
            .hint(format!(
                "take its section out of `{}`, or its variables `MUSTERD__INSTANCES__…` out of the environment, first",
                config.display()
            ))
            .into());
    }
    let exit = handover::reload(&config)
        .await
        .with_context(|| format!("`{name}` stays: the running daemon cannot leave it out"))?;
    let is_running = match exit {
        Some(Exit::Done) => true,
        None => false,
        Some(interrupted) => return Ok(interrupted),
    };
    let text = aside.remove()?;
    let mut output = Output::stdout();
    output.text(&format!("{name} is not configured any more\n"))?;
    let mut secrets = own_secrets(&name, &places, &text, &outside::sources(&config))?;
    // The token that the instance gave in place of the configured one.
    let exchanged = config::auth_state_path(&settings.mirror.path, &name);
    if exchanged.symlink_metadata().is_ok() {
        secrets.insert(exchanged);
    }
    for path in secrets {
        std::fs::remove_file(&path)
            .with_context(|| format!("cannot remove `{}`", path.display()))?;
        output.text(&format!("`{}` is removed\n", path.display()))?;
    }
    output.text(match is_running {
        true => "the daemon has stopped syncing it; its users are `unlinked`\n",
        false => "no daemon runs: the next one to start leaves it out\n",
    })?;
    output.flush()?;
    Ok(Exit::Done)
}

/// The file of an instance under a name that is not read, until it is removed. Dropped, it has its own name again.
struct Aside<'a> {
    file: &'a Path,
    aside: PathBuf,
}

impl<'a> Aside<'a> {
    fn of(file: &'a Path) -> anyhow::Result<Self> {
        let aside = file.with_extension("unlinked");
        std::fs::rename(file, &aside)
            .with_context(|| format!("cannot rename `{}`", file.display()))?;
        Ok(Self { file, aside })
    }

    /// Removes it, and returns what was in it.
    fn remove(self) -> anyhow::Result<String> {
        let what = || format!("cannot remove `{}`", self.aside.display());
        let text = std::fs::read_to_string(&self.aside).with_context(what)?;
        std::fs::remove_file(&self.aside).with_context(what)?;
        Ok(text)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        // Removed, it is not there.
        let _removed = std::fs::rename(&self.aside, self.file);
    }
}

/// The files of secrets that `musterd link` made for an instance, by the text of its file; without those that something else
/// in the configuration names.
fn own_secrets(
    name: &InstanceName,
    places: &Places,
    text: &str,
    sources: &Sources,
) -> anyhow::Result<BTreeSet<PathBuf>> {
    let of_link = text.starts_with(MADE_BY_LINK);
    let table: toml::Table = toml::from_str(text).unwrap_or_default();
    let auth = table.get("auth").and_then(toml::Value::as_table);
    let files = auth.into_iter().flatten().filter_map(|(key, value)| {
        let path = PathBuf::from(value.get("file")?.as_str()?);
        let names = [name.to_string(), format!("{name}.{key}")];
        let is_own = of_link && names.iter().any(|own| path == places.secrets.join(own));
        is_own.then_some(path)
    });
    let mut own: BTreeSet<PathBuf> = files.collect();
    let others = others(places, sources)?;
    own.retain(|path| path.is_file() && !others.iter().any(|text| names(text, path)));
    Ok(own)
}

/// Whether a text has a path in it, and not only the beginning of a longer one.
fn names(text: &str, path: &Path) -> bool {
    let goes_on = |rest: &str| {
        rest.starts_with(|next: char| next.is_ascii_alphanumeric() || "._-/".contains(next))
    };
    path.to_str().is_none_or(|path| {
        text.match_indices(path)
            .any(|(at, found)| !goes_on(&text[at + found.len()..]))
    })
}

/// All that is left of the configuration, as text.
fn others(places: &Places, sources: &Sources) -> anyhow::Result<Vec<String>> {
    let mut paths = vec![sources.file.clone()];
    for entry in std::fs::read_dir(&places.instances)? {
        paths.push(entry?.path());
    }
    let mut texts: Vec<String> = sources
        .env
        .values()
        .map(|value| value.to_string_lossy().into_owned())
        .collect();
    for path in paths.iter().filter(|path| path.is_file()) {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        texts.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(texts)
}
