//! The command line: one file per command.

mod backup;
mod card;
mod chain;
mod changes;
mod check;
mod completions;
pub mod config;
mod demo;
pub mod exit;
mod feed;
mod following;
mod group;
mod groups;
mod handover;
mod holds;
mod instance_files;
mod json;
mod link;
mod live;
mod man;
mod map;
mod output;
mod outside;
mod progress;
mod reading;
mod record;
mod relink;
mod run;
mod sandbox;
mod sheet;
mod status;
mod sync;
mod unlink;
mod user;
mod verify;
mod wait;
mod watch;
mod words;

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::exit::Exit;
use self::output::Output;
use crate::config::Secrets;

/// What `musterd` was asked to do.
#[derive(Debug, Parser)]
#[command(
    name = "musterd",
    version,
    about = "Keeps a local SQLite mirror of ServiceNow user directories, and an exact feed of what changed in them",
    after_help = EXIT_CODES,
    after_long_help = format!("{EXIT_CODES}\n\n{PLACES}"),
    disable_help_subcommand = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100
)]
struct Cli {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "MUSTERD_CONFIG",
        hide_env_values = true,
        default_value = crate::config::DEFAULT_FILE
    )]
    config: PathBuf,

    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 done, but something is held, unhealthy or must be
read again; 78 the configuration is wrong; 130 Ctrl-C.";

/// What else the manual says of all commands.
const PLACES: &str = "\
Files:
  /etc/musterd/musterd.toml        the configuration
  /etc/musterd/instances.d/*.toml  more of it, one instance a file
  /etc/musterd/secrets/            secrets, a file each
  /var/lib/musterd/mirror.db       the mirror, as `mirror.path` says

Environment:
  MUSTERD_CONFIG         in place of `--config`
  MUSTERD_MIRROR         in place of `--mirror`
  MUSTERD__SECTION__KEY  a key, such as MUSTERD__LOG__LEVEL
  NO_COLOR               no colours";

/// The commands, in the order of the contract. One that does not work yet is not in the list.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Sync(sync::Args),
    Link(link::Link),
    Unlink(unlink::Unlink),
    Check(check::Args),
    Status(status::Args),
    Changes(changes::Args),
    User(user::Args),
    Chain(chain::Args),
    Group(group::Args),
    Groups(groups::Args),
    Holds(holds::Args),
    Map(map::Args),
    Wait(wait::Args),
    Verify(verify::Args),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Relink(relink::Relink),
    Rename(relink::Rename),
    Config(config::Args),
    Sandbox(sandbox::Args),
    Demo(demo::Args),
    Completions(completions::Args),
    // Hidden: nobody who runs musterd needs it.
    Man(man::Args),
}

impl Command {
    /// Most commands may be dropped wherever they are. What has something to put in order when it
    /// is stopped (the daemon, a demo) listens for Ctrl-C itself.
    async fn run(self, config: PathBuf) -> anyhow::Result<Exit> {
        match self {
            Self::Run(args) => run::run(args, config).await,
            Self::Sync(args) => sync::run(args, config).await,
            // A signal ends it: the terminal is as it was, and what was made is complete.
            Self::Link(args) => link::link(args, config).await,
            Self::Unlink(args) => unlink::unlink(args, config).await,
            Self::Check(args) => check::run(args, config).await,
            Self::Relink(args) => relink::relink(args, config).await,
            Self::Rename(args) => relink::rename(args, config).await,
            Self::Status(args) => interruptible(status::run(args, config)).await,
            Self::Changes(args) => interruptible(changes::run(args, config)).await,
            Self::User(args) => interruptible(async move { user::run(&args, &config) }).await,
            Self::Chain(args) => interruptible(async move { chain::run(&args, &config) }).await,
            Self::Group(args) => interruptible(async move { group::run(&args, &config) }).await,
            Self::Groups(args) => interruptible(async move { groups::run(&args, &config) }).await,
            Self::Holds(args) => holds::run(args, config).await,
            Self::Map(args) => map::run(args, config).await,
            Self::Wait(args) => interruptible(wait::run(args, config)).await,
            Self::Verify(args) => interruptible(async move { verify::run(&args, &config) }).await,
            Self::Backup(args) => {
                interruptible(async move { backup::back_up(&args, &config) }).await
            }
            Self::Restore(args) => backup::restore(&args, &config),
            Self::Config(args) => print_config(&args, &config),
            Self::Sandbox(args) => serve_sandbox(args).await,
            Self::Demo(args) => demo::run(args).await,
            Self::Completions(args) => completions::run(&args, &Cli::command()),
            Self::Man(args) => man::run(&args, Cli::command()),
        }
    }
}

/// Reads the arguments and does what they say.
///
/// # Errors
/// Why the command failed; a [`clap::Error`] is wrong usage, or the help that was asked for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> anyhow::Result<Exit> {
    let cli = Cli::try_parse_from(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(cli.command.run(cli.config));
    // A command that was interrupted may still be reading or writing on its thread.
    runtime.shutdown_background();
    match ended {
        Err(error) if output::is_closed(&error) => Ok(Exit::Done),
        ended => ended,
    }
}

/// Serves the sandbox until Ctrl-C or SIGTERM.
async fn serve_sandbox(args: sandbox::Args) -> anyhow::Result<Exit> {
    let stop = CancellationToken::new();
    let told = stop.clone();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let signals = async move {
        let interrupted = tokio::select! {
            _ = terminate.recv() => false,
            _ = tokio::signal::ctrl_c() => true,
        };
        told.cancel();
        interrupted
    };
    let mut serving = std::pin::pin!(sandbox::run(args, stop.clone()));
    let (served, interrupted) = tokio::select! {
        served = &mut serving => (served, false),
        // It has to tell which faults fired.
        interrupted = signals => (serving.await, interrupted),
    };
    served?;
    Ok(if interrupted {
        Exit::Interrupted
    } else {
        Exit::Done
    })
}

/// Prints what could be read of the configuration before it says what is wrong with it.
fn print_config(args: &config::Args, file: &Path) -> anyhow::Result<Exit> {
    let mut shown = Vec::new();
    let ended = config::run(
        args,
        &outside::sources(file, Secrets::AllButCredentials),
        &mut shown,
    );
    let mut out = Output::stdout();
    out.bytes(&shown)?;
    out.flush()?;
    ended.map(|()| Exit::Done)
}

/// Runs a command on a thread of its own, so that Ctrl-C ends it also while it reads the mirror or writes
/// to a pipe that nobody reads.
async fn interruptible(
    command: impl Future<Output = anyhow::Result<Exit>> + Send + 'static,
) -> anyhow::Result<Exit> {
    let task = tokio::spawn(command);
    tokio::select! {
        biased;
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("cannot listen for Ctrl-C")?;
            Ok(Exit::Interrupted)
        }
        ended = task => ended.context("the command did not come to its end")?,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Error;
    use crate::model::InstanceName;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_that_errors_about_a_map_name_are_commands() {
        let instance = InstanceName::parse("acme").unwrap();
        let (profile, user_id) = ("p".to_owned(), "u".to_owned());
        for error in [
            Error::NoList(instance.clone()),
            Error::UnknownProfile {
                instance: instance.clone(),
                profile,
            },
            Error::NotShown {
                instance: instance.clone(),
                user_id: user_id.clone(),
            },
            Error::TooManyLinks {
                instance: instance.clone(),
                user_id,
            },
            Error::Overtaken(instance),
        ] {
            let said = error.to_string();
            let quoted = said.split('`').skip(1).step_by(2);
            let mut n_commands = 0;
            for command in quoted.filter(|quoted| quoted.starts_with("musterd ")) {
                let parsed = Cli::try_parse_from(command.split(' '));
                assert!(parsed.is_ok(), "{said}: {}", parsed.unwrap_err());
                n_commands += 1;
            }
            assert_eq!(n_commands, 1, "{said}");
        }
    }
}
