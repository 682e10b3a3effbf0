//! `musterd user`: one user as the mirror knows it, found by id, user name or email.

use std::path::Path;

use jiff::Timestamp;

use super::card::{JsonRow, card, text};
use super::exit::{self, Exit, Failure};
use super::output::Output;
use super::reading::{self, Reading};
use super::{record, words};
use crate::mirror::Reader;
use crate::mirror::read::{AsOf, UserRow};
use crate::model::{Foreign, ResourceType};

/// A user, by id, user name or email
///
/// Names and addresses are compared without regard to case, an id exactly. Several matches are all
/// printed, and the command exits 3: only the id tells them apart. The past is that of whoever matches now, and of an id that
/// was removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  musterd user acme ada.lovelace
  musterd user acme ada.lovelace --as-of 2026-03-01")]
pub(crate) struct Args {
    /// The instance, by its configured name
    instance: String,

    /// The id, user name or email
    key: String,

    /// As the mirror had the user at this moment: a time like `2026-03-01T12:00:00Z`, or a day, at its midnight UTC
    #[arg(long, value_name = "TIME", value_parser = words::parse_moment)]
    as_of: Option<Timestamp>,

    /// Each state of the user, oldest first: when it began, and what changed
    #[arg(long, conflicts_with = "as_of")]
    history: bool,

    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    reading::check_instance(&reader, &args.instance)?;
    let rows = reader.users(&args.instance, &args.key)?;
    let mut out = Output::stdout();
    if args.history || args.as_of.is_some() {
        return past(args, &reader, &rows, out);
    }
    for (place, row) in rows.iter().enumerate() {
        if args.reading.json {
            out.json(&JsonRow(row))?;
            continue;
        }
        if place > 0 {
            out.text("\n")?;
        }
        out.text(&card(row))?;
    }
    out.flush()?;
    ending(rows.len(), &args.instance, &args.key)
}

/// How a command ends that was asked for a user and found so many.
pub(super) fn ending(n_found: usize, instance: &str, key: &str) -> anyhow::Result<Exit> {
    let keys = "id, user name or email";
    reading::ending(n_found, "user", keys, instance, key)
}

/// What the feed says of those who match, and of the key as an id: whose users were removed are in the feed alone.
fn past(args: &Args, reader: &Reader, rows: &[UserRow], mut out: Output) -> anyhow::Result<Exit> {
    let mut ids: Vec<&str> = rows.iter().filter_map(|row| text(row, "id")).collect();
    if !ids.contains(&args.key.as_str())
        && !reader
            .history(ResourceType::User, &args.instance, &args.key)?
            .is_empty()
    {
        ids.push(&args.key);
    }
    let (mut n_shown, mut unknown) = (0, Vec::new());
    for id in &ids {
        match args.as_of {
            Some(moment) => match reader.user_as_of(&args.instance, id, moment)? {
                AsOf::Known(row) if args.reading.json => out.json(&JsonRow(&row))?,
                AsOf::Known(row) => {
                    let between = if n_shown > 0 { "\n" } else { "" };
                    out.text(&format!("{between}{}", card(&row)))?;
                }
                AsOf::Nobody => {
                    unknown.push(format!("the mirror had no user `{}` then", Foreign(id)));
                    continue;
                }
                AsOf::Trimmed { since } => {
                    unknown.push(format!(
                        "what the mirror had of `{}` before {} was trimmed (`mirror.history`)",
                        Foreign(id),
                        Foreign(&since)
                    ));
                    continue;
                }
            },
            None if args.reading.json => {
                for state in reader.states(&args.instance, id)? {
                    out.json(&state)?;
                }
            }
            None => {
                for record in reader.history(ResourceType::User, &args.instance, id)? {
                    out.text(&record::line(&record))?;
                }
            }
        }
        n_shown += 1;
    }
    out.flush()?;
    if n_shown == 0 && !unknown.is_empty() {
        return Err(Failure::new(unknown.join("; ")).into());
    }
    for reason in &unknown {
        exit::note(reason);
    }
    ending(ids.len(), &args.instance, &args.key)
}
