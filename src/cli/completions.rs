//! `musterd completions`: what a shell needs to complete commands and options.

use clap::Command;
use clap_complete::Shell;

use super::exit::Exit;
use super::output::Output;

/// Print shell completions
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd completions bash > /etc/bash_completion.d/musterd")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &Args, command: &Command) -> anyhow::Result<Exit> {
    let mut out = Output::stdout();
    out.bytes(&script(args.shell, command))?;
    out.flush()?;
    Ok(Exit::Done)
}

/// What completes the commands that are in the list.
pub(crate) fn script(shell: Shell, command: &Command) -> Vec<u8> {
    let listed = command.get_subcommands().filter(|c| !c.is_hide_set());
    let mut command = Command::new("musterd")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(command.get_arguments())
        .subcommands(listed);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "musterd", &mut script);
    script
}
