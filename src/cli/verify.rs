//! `musterd verify`: whether the mirror is what was written, and what its feed folds to.

use std::path::Path;
use std::time::Duration;

use indicatif::ProgressBar;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::reading::Reading;
use super::{progress, words};
use crate::mirror::verify::Verified;
use crate::model::Foreign;

/// Prove that every row is as it was written, and that the feed folds to the users
///
/// Every cell of every row and every attribute of every user is compared, the feed is counted, the
/// database file is checked, and the first difference is named (exit code 1): by table, row and column,
/// without a value of anybody. Runs beside the daemon; neither waits for the other. Two things no file
/// can tell of itself: that it is the newest copy, and that nobody altered it who knows how to hide that.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd verify --mirror /var/lib/musterd/mirror.db")]
pub(crate) struct Args {
    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    // A page that cannot be read is named by what looks at all of them.
    let n_rows = reader.rows_to_verify().unwrap_or_default();
    // Drawn on stderr, and only on a terminal.
    let bar = ProgressBar::new(n_rows).with_style(progress::style_of(
        "{bar:24} {human_pos}/{human_len} rows compared{pace}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let verified = reader.verify(&mut |rows| bar.set_position(rows));
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
        Some(difference) => {
            let message = format!("the mirror is not sound: {}", Foreign(difference));
            Err(Failure::new(message).hint(REMEDY).into())
        }
    }
}

/// What keeps the readers of the feed safe: a new epoch, whichever way.
const REMEDY: &str = "stop the daemon and keep the file. `musterd restore` puts a backup in its place; without one, \
    move the file away: the daemon builds a new one, but old records and who was gone are lost. Either way the \
    feed has a new epoch, which tells its readers to read `users` again";

fn render(verified: &Verified) -> String {
    format!(
        "feed and mirror agree: {} folded from {}; every row is as it was written; the database is sound\n",
        words::count(verified.users, "user"),
        words::count(verified.records, "record"),
    )
}
