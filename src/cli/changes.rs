//! `musterd changes`: the feed, from the end or from a place on, and what comes as it comes.

use std::path::PathBuf;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::exit::{self, Exit};
use super::feed::{FeedReader, Filter, Next};
use super::output::{self, Output};
use super::reading::{self, Reading};
use super::record;
use crate::mirror::Reader;
use crate::mirror::read::ChangeRow;

/// Records that are shown where nobody said how many.
const DEFAULT_LAST: usize = 50;

/// The feed: every change record, in order
///
/// Without --after, the last 50 records (or --limit). A program that keeps the epoch and the seq of
/// the last record it used goes on with --epoch and --after, and misses nothing: where the feed cannot
/// promise that any more (another epoch, a seq that is not in the feed), the command says that the table
/// `users` must be read again, and exits 3.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  musterd changes --follow
  musterd changes --instance acme --kind deactivate --limit 10
  musterd changes --epoch EPOCH --after 1042 --json")]
pub(crate) struct Args {
    /// Start with the record after this seq
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,

    /// The epoch that the seq belongs to, from the table `feed`
    #[arg(long, value_name = "E", requires = "after")]
    epoch: Option<String>,

    /// Only records of this instance
    #[arg(long, value_name = "I")]
    instance: Option<String>,

    /// Only records of this kind
    #[arg(long, value_name = "K", value_parser = ["create", "update", "deactivate"])]
    kind: Option<String>,

    /// At most so many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,

    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    follow: bool,

    #[command(flatten)]
    reading: Reading,
}

pub(crate) async fn run(args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    if args.follow && args.after.is_some() && args.limit.is_some() {
        // Whatever such a limit left out, the reader would miss.
        return Err(super::Cli::command()
            .error(
                ErrorKind::ArgumentConflict,
                "the argument '--limit <N>' cannot be used with both '--after <SEQ>' and '--follow'",
            )
            .into());
    }
    let path = args.reading.path(&config)?;
    let reader = Reader::open(&path)?;
    if let Some(instance) = &args.instance {
        reading::check_instance(&reader, instance)?;
    }
    let filter = Filter {
        instance: args.instance,
        kind: args.kind,
    };
    let limit = args
        .limit
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let feed = reader.feed()?;
    let mut out = Output::stdout();
    let (start, mut left) = match args.after {
        Some(after) => (after, limit.unwrap_or(usize::MAX)),
        None => {
            let rows = reader.last_changes(&filter.query(0, limit.unwrap_or(DEFAULT_LAST)))?;
            show(&mut out, &rows, args.reading.json)?;
            let last = rows
                .last()
                .map_or(feed.last_seq, |row| row.seq.max(feed.last_seq));
            (last, if args.follow { usize::MAX } else { 0 })
        }
    };
    let epoch = args.epoch.unwrap_or(feed.epoch);
    let mut feed = FeedReader::new(reader, &path, filter, epoch, start)?;
    loop {
        while left > 0 {
            match feed.next(left)? {
                Next::Records(rows) => {
                    show(&mut out, &rows, args.reading.json)?;
                    left -= rows.len();
                }
                Next::End => break,
                Next::ReadAgain(why) => {
                    out.flush()?;
                    exit::note(&why.to_string());
                    return Ok(Exit::Attention);
                }
            }
        }
        out.flush()?;
        if !args.follow {
            return Ok(Exit::Done);
        }
        feed.committed().await?;
    }
}

fn show(out: &mut Output, rows: &[ChangeRow], json: bool) -> Result<(), output::Error> {
    for row in rows {
        if json {
            out.json(row)?;
        } else {
            out.text(&record::line(row))?;
        }
    }
    Ok(())
}
