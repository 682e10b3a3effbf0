//! `musterd relink` and `musterd rename`: an instance has a new address, or a new name.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::{handover, outside};
use crate::config::{self, Secrets};
use crate::control::Request;
use crate::daemon::{link, requests};
use crate::mirror::{Mirror, stage};
use crate::model::{InstanceName, Mode, ResourceType};
use crate::sync;

/// Confirm the new address of an instance
///
/// The mirror keeps the origin that an instance's users came from. After `url` or `scim_path` was changed
/// because the same directory has moved, this takes the new one over.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd relink acme")]
pub(crate) struct Relink {
    /// The instance, as the configuration names it
    #[arg(value_name = "INSTANCE")]
    instance: String,
}

pub(crate) async fn relink(args: Relink, config: PathBuf) -> anyhow::Result<Exit> {
    let instance = args.instance;
    let request = Request::Relink {
        instance: instance.clone(),
    };
    let mut output = Output::stdout();
    let exit = handover::carry_out(&config, request, |_line| Ok(())).await?;
    if exit == Exit::Done {
        output.text(&format!(
            "{instance}: the mirror now goes by the configured address\n"
        ))?;
        output.flush()?;
    }
    Ok(exit)
}

/// Give an instance's users to its new name
///
/// Once NEW stands in the configuration and OLD does not, moves everything the mirror has of OLD to NEW.
/// Readers of the feed see a new epoch and read `users` again. The daemon must be stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd rename acme acme_emea")]
pub(crate) struct Rename {
    /// The name that the mirror knows
    #[arg(value_name = "OLD")]
    old: String,

    /// The name that the configuration has
    #[arg(value_name = "NEW")]
    new: String,
}

pub(crate) async fn rename(args: Rename, config: PathBuf) -> anyhow::Result<Exit> {
    let settings = config::load(&outside::sources(&config, Secrets::None))?;
    let old = InstanceName::parse(&args.old)?;
    if settings.instances.contains_key(&old) {
        let message = format!("`{old}` still stands in the configuration");
        return Err(Failure::new(message).hint("rename it there first").into());
    }
    let Some((new, instance)) = settings
        .instances
        .iter()
        .find(|(name, _settings)| name.as_str() == args.new)
    else {
        let message = format!("`{}` does not stand in the configuration", args.new);
        return Err(Failure::new(message).hint("add it there first").into());
    };
    let pin = link::pin(new, instance);
    let epoch = outside::epoch()?;
    let mirror = Mirror::open(&settings.mirror.path, &epoch)?;
    let name = old.clone();
    let renamed = mirror
        .write(move |writer| writer.rename(&name, &pin, &epoch))
        .await;
    // While the lock is held nobody else looks at these files.
    let moved = renamed
        .map_err(anyhow::Error::from)
        .and_then(|()| move_files(mirror.path(), &old, &instance.client.auth_state));
    if moved.is_ok() {
        requests::rename(mirror.path(), &old, new).await;
    }
    mirror.close().await?;
    moved?;
    let mut output = Output::stdout();
    output.text(&format!(
        "{old} is {new} now; the feed has a new epoch, its readers read `users` again\n"
    ))?;
    output.flush()?;
    Ok(Exit::Done)
}

/// A rotated refresh token goes with its instance; an interrupted crawl starts anew.
fn move_files(mirror: &Path, old: &InstanceName, new_auth_state: &Path) -> anyhow::Result<()> {
    let auth_state = config::auth_state_path(mirror, old);
    if auth_state.try_exists()? && !new_auth_state.try_exists()? {
        std::fs::rename(&auth_state, new_auth_state)
            .with_context(|| format!("cannot rename `{}`", auth_state.display()))?;
    }
    for resource in [ResourceType::User, ResourceType::Group] {
        for mode in [Mode::Full, Mode::Incremental] {
            stage::remove_files(&sync::stage_path(mirror, old, resource, mode))?;
        }
    }
    Ok(())
}
