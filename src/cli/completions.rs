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

pub(crate) fn run(args: &Args, command: &mut Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "musterd", &mut script);
    let mut out = Output::stdout();
    out.bytes(&script)?;
    out.flush()?;
    Ok(Exit::Done)
}
