//! `musterd config`: the configuration in force, and where each value came from.

use std::io::Write;

use crate::config::{self, Sources};

/// Show the configuration in force, where each value came from, secrets left out
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd config --config ./musterd.toml")]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Prints what is in force, also when it is wrong; secrets are left out.
///
/// # Errors
/// [`config::Error`] with everything that is wrong, after what could be read was printed; or what
/// writing fails with.
pub fn run(args: &Args, sources: &Sources, out: &mut impl Write) -> anyhow::Result<()> {
    let reading = config::read(sources);
    if args.json {
        writeln!(out, "{}", reading.shown.to_json())?;
    } else {
        write!(out, "{}", reading.shown.to_toml())?;
    }
    out.flush()?;
    reading.settings?;
    Ok(())
}
