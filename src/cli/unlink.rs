//! `musterd unlink`: takes out what `musterd link` put in.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;

use super::exit::{Exit, Failure};
use super::handover;
use super::instance_files::{MADE_BY_LINK, Places};
use super::link::{ask, on_the_terminal};
use super::output::Output;
use super::{outside, words};
use crate::config::{self, Secrets, Sources};
use crate::control::{Line, Request};
use crate::mirror::Reader;
use crate::model::InstanceName;

/// Take an instance out of the configuration
///
/// Removes `instances.d/NAME.toml`, and tells the running daemon. Then removes the files of secrets that `musterd link`
/// made for it, unless something else in the configuration names them. The instance is not synced any more. The mirror
/// keeps its users, in the state `unlinked`, and leaves them out of `active_users`; linked again, it goes on where it was.
///
/// With `--drop` the mirror keeps none of them: each leaves `users` with a `deactivate` record of the reason `unlinked`. That
/// cannot be undone; linked again, the instance starts as new. It also goes for one that was taken out before, and after an
/// interruption it goes on with those who are left.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo musterd unlink acme
  sudo musterd unlink acme --drop")]
pub(crate) struct Unlink {
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,

    /// Remove its users from the mirror, with a record for each
    #[arg(long)]
    drop: bool,

    /// Ask nothing before `--drop`
    #[arg(long, requires = "drop")]
    yes: bool,
}

pub(crate) async fn unlink(args: Unlink, config: PathBuf) -> anyhow::Result<Exit> {
    let name = InstanceName::parse(&args.name)?;
    let config = std::path::absolute(config).context("where is the working directory")?;
    let places = Places::of(&config, &name);
    let stands_in_its_file = places.instance.try_exists()?;
    let users = match args.drop {
        true => users_of(&config, &name, stands_in_its_file)?,
        false => None,
    };
    if !stands_in_its_file {
        may_be_missing(&config, &name, users)?;
    }
    if let (Some(users), false) = (users, args.yes)
        && !is_confirmed(&name, users).await?
    {
        return Ok(Exit::Interrupted);
    }
    if stands_in_its_file {
        let exit = take_out(&name, &config, &places).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    match users {
        Some(_) => drop_users(&name, &config).await,
        None => Ok(Exit::Done),
    }
}

/// Nothing is to be taken out: that is right only of an instance that was taken out before, and whose users are still there.
fn may_be_missing(config: &Path, name: &InstanceName, users: Option<u64>) -> anyhow::Result<()> {
    let settings = config::load(&outside::sources(config, Secrets::None))?;
    if settings.instances.contains_key(name) {
        let message = format!("`{name}` does not stand in a file of its own");
        return Err(Failure::new(message)
            .hint(format!(
                "take its section out of `{}`, then reload",
                config.display()
            ))
            .into());
    }
    match users {
        Some(_) => Ok(()),
        None => Err(Failure::new(format!("`{name}` does not stand in the configuration")).into()),
    }
}

async fn take_out(name: &InstanceName, config: &Path, places: &Places) -> anyhow::Result<Exit> {
    let aside = Aside::of(&places.instance)?;
    // What is wrong without it would be so for the daemon, too: then it stays.
    let settings = config::load(&outside::sources(config, Secrets::None))?;
    if settings.instances.contains_key(name) {
        let message = format!("`{name}` stands elsewhere in the configuration, too");
        return Err(Failure::new(message)
            .hint(format!(
                "take its section out of `{}`, or its variables `MUSTERD__INSTANCES__…` out of the environment, first",
                config.display()
            ))
            .into());
    }
    let exit = handover::reload(config)
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
    let mut secrets = own_secrets(
        name,
        places,
        &text,
        &outside::sources(config, Secrets::None),
    )?;
    // The token that the instance gave in place of the configured one.
    let exchanged = config::auth_state_path(&settings.mirror.path, name);
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

/// How many users the mirror has of it; `None` where there is nothing to remove. Fails where they could not be removed.
fn users_of(
    config: &Path,
    name: &InstanceName,
    stands_in_its_file: bool,
) -> anyhow::Result<Option<u64>> {
    let mirror = config::mirror_path(&outside::sources(config, Secrets::None))?;
    if !mirror.try_exists()? {
        return Ok(None);
    }
    if let Some(why) = handover::needs_daemon(&mirror)? {
        // That account may not write in the folder of the configuration.
        let first = match stands_in_its_file {
            true => format!("take it out with `musterd unlink {name}` first; "),
            false => String::new(),
        };
        let hint = format!("{first}or start the daemon; nothing was changed");
        return Err(Failure::new(why).hint(hint).into());
    }
    Ok(Reader::open(&mirror)?.users_of(name)?)
}

/// Asks a person on the terminal. `false` after Ctrl-C.
async fn is_confirmed(name: &InstanceName, users: u64) -> anyhow::Result<bool> {
    let users = words::count(users, "user");
    if !std::io::stdin().is_terminal() {
        let message = format!("{users} of `{name}` would be removed from the mirror for good");
        return Err(Failure::new(message)
            .hint("`--yes` says that this is meant; nothing was changed")
            .into());
    }
    let question = format!("remove {users} of `{name}` from the mirror for good? [y/N]");
    let answer = on_the_terminal(move || ask(&question)).await?;
    match answer {
        None => Ok(false),
        Some(answer) if ["y", "yes"].contains(&answer.expose_secret().to_lowercase().as_str()) => {
            Ok(true)
        }
        Some(_) => Err(Failure::new("nothing was changed").into()),
    }
}

async fn drop_users(name: &InstanceName, config: &Path) -> anyhow::Result<Exit> {
    let request = Request::Drop {
        instance: name.to_string(),
    };
    let mut removed = None;
    let exit = handover::carry_out(config, request, |line| {
        if let Line::Row(row) = line {
            removed = row["removed"].as_i64();
        }
        Ok(())
    })
    .await
    .with_context(|| {
        format!("users of `{name}` are still in the mirror: `musterd unlink {name} --drop` goes on")
    })?;
    if let Some(removed) = removed {
        let mut output = Output::stdout();
        output.text(&format!(
            "{} of {name} removed from the mirror, with a record for each\n",
            words::count(removed, "user")
        ))?;
        output.flush()?;
    }
    Ok(exit)
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
