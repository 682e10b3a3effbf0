//! `musterd verify`: folds the feed, compares it with the mirror, and checks the database.

use std::path::Path;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::exit::{Exit, Failure};
use super::output::Output;
use super::reading::Reading;
use super::words;
use crate::mirror::verify::Verified;
use crate::model::Foreign;

/// Prove that feed and mirror agree: folds the feed and compares it with the mirror
///
/// Every attribute of every user is compared, the database file is checked, and the first difference is
/// named (exit code 1). Runs beside the daemon; neither waits for the other.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd verify --mirror /var/lib/musterd/mirror.db")]
pub(crate) struct Args {
    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    // Drawn on stderr, and only on a terminal.
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
        "{spinner} {human_pos} users compared ({per_sec})",
    )?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let verified = reader.verify(&mut |compared| bar.set_position(compared));
    bar.finish_and_clear();
    let verified = verified?;

    let mut out = Output::stdout();
    if args.reading.json {
        out.json(&verified)?;
    } else if verified.difference.is_none() {
        out.text(&render(&verified))?;
    }
    out.flush()?;
    match &verified.difference {
        None => Ok(Exit::Done),
        Some(difference) => Err(Failure::new(format!(
            "feed and mirror differ: {}",
            Foreign(difference)
        ))
        .hint("stop the daemon and keep the file; restore a backup, or move the file away and let the daemon build a new one: readers then see another epoch")
        .into()),
    }
}

fn render(verified: &Verified) -> String {
    format!(
        "feed and mirror agree: {} folded from {}; the database is sound\n",
        words::count(verified.users, "user"),
        words::count(verified.records, "record"),
    )
}
