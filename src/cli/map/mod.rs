//! `musterd map`: own profiles, and which user of an instance each of them is.

mod file;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::Value;

use self::file::Format;
use super::exit::{Exit, Failure};
use super::output::Output;
use super::reading::{Reading, check_instance};
use super::{exit, handover, interruptible, outside, words};
use crate::config::{self, Secrets};
use crate::control::{Line, Request};
use crate::mirror::Reader;
use crate::mirror::identities::IdentityRow;
use crate::mirror::profiles::Removals;
use crate::model::{Foreign, IdentityState, InstanceName, Profile};

/// Own profiles, and which user of an instance each of them is
///
/// A list of profiles is imported with the keys by which they are looked for; each is linked to the id of a user once, and from
/// then on follows no key to another one. Readers find whom a ticket may be given to in the view `assignable`.
#[derive(Debug, clap::Args)]
#[command(
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "\
Examples:
  musterd map import acme profiles.csv
  musterd map list --state ambiguous
  musterd map pin acme ada 6816f79cc0a8016401c5a33be04be441"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Import(Import),
    List(List),
    Pin(Pin),
    Unpin(Unpin),
    Export(Export),
}

/// Import the whole list of profiles of an instance
///
/// The fields are `profile`, `email`, `user_name` and `employee_number`, in any order: the names in the first line of a .csv, or the
/// members of an object a line in a .jsonl. Only `profile` must be there. A profile that is not in the file is removed; where that
/// would be many, or one that a person pinned or whose keys do not lead to its user any more, `--yes` is asked for. A file with a
/// mistake changes nothing, and the line is named.
#[derive(Debug, clap::Args)]
struct Import {
    /// The instance, as the configuration names it
    #[arg(value_name = "INSTANCE")]
    instance: String,

    /// The list: FILE.csv or FILE.jsonl
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Remove as many profiles as are not in the file, pinned ones too
    #[arg(long)]
    yes: bool,
}

/// The profiles and how they stand
#[derive(Debug, clap::Args)]
struct List {
    /// Only of this instance
    #[arg(long, value_name = "I")]
    instance: Option<String>,

    /// Only those in this state
    #[arg(
        long,
        value_name = "STATE",
        value_parser = clap::builder::PossibleValuesParser::new(IdentityState::ALL.map(IdentityState::as_str))
    )]
    state: Option<String>,

    #[command(flatten)]
    reading: Reading,
}

/// Link a profile to a user, whatever its keys say
///
/// The link stays until it is unpinned, or another one is pinned.
#[derive(Debug, clap::Args)]
struct Pin {
    /// The instance, as the configuration names it
    #[arg(value_name = "INSTANCE")]
    instance: String,

    /// The profile
    #[arg(value_name = "PROFILE")]
    profile: String,

    /// The id of the user: the `sys_id`
    #[arg(value_name = "USER_ID")]
    user_id: String,
}

/// Take a pin away: the profile is matched by its keys again
#[derive(Debug, clap::Args)]
struct Unpin {
    /// The instance, as the configuration names it
    #[arg(value_name = "INSTANCE")]
    instance: String,

    /// The profile
    #[arg(value_name = "PROFILE")]
    profile: String,
}

/// The list of profiles of an instance as it was imported, as CSV
///
/// Imported again, it changes nothing. With `--json` it is an object a line, which can be imported as .jsonl.
#[derive(Debug, clap::Args)]
struct Export {
    /// The instance
    #[arg(value_name = "INSTANCE")]
    instance: String,

    #[command(flatten)]
    reading: Reading,
}

pub(crate) async fn run(args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    match args.command {
        Command::Import(args) => import(args, &config).await,
        Command::List(args) => interruptible(async move { list(&args, &config) }).await,
        Command::Pin(args) => {
            let told = format!(
                "{}: {} is {} now\n",
                args.instance,
                Foreign(&args.profile),
                Foreign(&args.user_id)
            );
            let request = Request::Pin {
                instance: args.instance,
                profile: args.profile,
                user_id: args.user_id,
            };
            say(&config, request, |_row| told).await
        }
        Command::Unpin(args) => {
            let told = format!(
                "{}: {} is matched by its keys again",
                args.instance,
                Foreign(&args.profile)
            );
            let request = Request::Unpin {
                instance: args.instance,
                profile: args.profile,
            };
            say(&config, request, |row| format!("{told}{}\n", standing(row))).await
        }
        Command::Export(args) => interruptible(async move { export(&args, &config) }).await,
    }
}

/// Has a request carried out, and says what came of it by the row that it told, if it told one.
async fn say(
    config: &Path,
    request: Request,
    told: impl FnOnce(&Value) -> String,
) -> anyhow::Result<Exit> {
    let mut row = Value::Null;
    let exit = handover::carry_out(config, request, |line| {
        if let Line::Row(told) = line {
            row = told;
        }
        Ok(())
    })
    .await?;
    if exit == Exit::Done {
        let mut out = Output::stdout();
        out.text(&told(&row))?;
        out.flush()?;
    }
    Ok(exit)
}

/// How a profile stands whose pin was taken away, behind what was done.
fn standing(row: &Value) -> String {
    let text = |name: &str| Foreign(row[name].as_str().unwrap_or_default()).to_string();
    match row["state"].as_str().and_then(IdentityState::parse) {
        Some(IdentityState::Matched) => {
            format!(", and is {} by {}", text("user_id"), text("matched_by"))
        }
        Some(IdentityState::Missing) => ", and missing: they lead to nobody".to_owned(),
        Some(state) => {
            let candidates = row["candidates"].as_array().into_iter().flatten();
            let ids = candidates.filter_map(Value::as_str);
            let ids: Vec<String> = ids.map(|id| Foreign(id).to_string()).collect();
            format!(", and {}: they lead to {}", state.as_str(), ids.join(", "))
        }
        None => String::new(),
    }
}

/// Profiles of one piece of a list at most, and bytes of their fields: a request of that length is read at once.
const PIECE_PROFILES: usize = 2_000;
const PIECE_BYTES: usize = 256 * 1024;

async fn import(args: Import, config: &Path) -> anyhow::Result<Exit> {
    let name = InstanceName::parse(&args.instance)?;
    let path = &args.file;
    let format = Format::of(path).ok_or_else(|| {
        Failure::new(format!(
            "`{}` ends neither in .csv nor in .jsonl",
            path.display()
        ))
        .hint("the end of its name tells what is in it")
    })?;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let profiles = file::read(format, &bytes).map_err(|wrong| {
        Failure::new(format!("`{}`, {wrong}", path.display())).hint("nothing was changed")
    })?;
    drop(bytes);
    let Removals {
        all: mut removals,
        to_be_kept,
    } = removals(config, &name, &profiles)?;
    if to_be_kept > 0 && !args.yes {
        let message = format!(
            "{} that a person pinned, or whose keys do not lead to their user any more, would be removed, and be matched anew if they came back",
            words::count(to_be_kept, "profile")
        );
        return Err(Failure::new(message)
            .hint(format!("nothing was changed: `--yes` says that this is meant, `musterd map list --instance {name}` shows them"))
            .into());
    }
    let mut sum = [0; 4];
    let mut states = Value::Null;
    let (mut number, mut after) = (None, None::<String>);
    let mut rest = profiles.as_slice();
    loop {
        let (piece, left) = rest.split_at(length_of_piece(rest));
        rest = left;
        let request = Request::Import {
            instance: name.to_string(),
            number,
            after: after.take(),
            profiles: piece.to_vec(),
            last: rest.is_empty(),
            removals,
            yes: args.yes,
        };
        after = piece.last().map(|last| last.profile.clone());
        let exit = handover::carry_out(config, request, |line| {
            if let Line::Row(row) = line {
                for (sum, name) in sum
                    .iter_mut()
                    .zip(["created", "changed", "removed", "moved"])
                {
                    *sum += row[name].as_u64().unwrap_or_default();
                }
                number = row["number"].as_u64();
                states = row["states"].clone();
                removals = removals.saturating_sub(row["removed"].as_u64().unwrap_or_default());
            }
            Ok(())
        })
        .await?;
        if exit == Exit::Interrupted {
            exit::note(
                "stopped on the way: a part of the list may be in, importing it again completes it",
            );
        }
        if exit != Exit::Done {
            return Ok(exit);
        }
        if rest.is_empty() {
            break;
        }
    }
    let mut out = Output::stdout();
    out.text(&summary(&name, sum, &states))?;
    out.flush()?;
    Ok(Exit::Done)
}

/// How many profiles of a list go into its next piece.
fn length_of_piece(profiles: &[Profile]) -> usize {
    let mut bytes = 0;
    let fits = |profile: &&Profile| {
        bytes += file::fields(profile).map(str::len).iter().sum::<usize>();
        bytes <= PIECE_BYTES
    };
    let most = profiles.iter().take(PIECE_PROFILES);
    let n = most.take_while(fits).count();
    n.max(usize::from(!profiles.is_empty()))
}

fn removals(config: &Path, name: &InstanceName, profiles: &[Profile]) -> anyhow::Result<Removals> {
    let mirror = config::mirror_path(&outside::sources(config, Secrets::None))?;
    if !mirror.try_exists()? {
        let message = format!("there is no mirror `{}` yet", mirror.display());
        return Err(Failure::new(message)
            .hint("import after the first full sync")
            .into());
    }
    if let Some(why) = handover::needs_daemon(&mirror)? {
        return Err(Failure::new(why).hint("nothing was changed").into());
    }
    let is_listed = |name: &str| {
        let found = profiles.binary_search_by(|profile| profile.profile.as_str().cmp(name));
        found.is_ok()
    };
    // Where they cannot be had here, those of the last import are as near as can be; the import itself looks again.
    let settings = config::load(&outside::sources(config, Secrets::None)).ok();
    let instance = settings
        .as_ref()
        .and_then(|settings| settings.instances.get(name));
    let rules = instance.map(|instance| instance.identity.rules.as_slice());
    Ok(Reader::open(&mirror)?.removals(name, rules, is_listed)?)
}

fn summary(
    name: &InstanceName,
    [created, changed, removed, moved]: [u64; 4],
    states: &Value,
) -> String {
    let mut text = format!(
        "{name}: {} new, {} changed, {} removed, {} moved",
        words::count(created, "profile"),
        words::number(changed),
        words::number(removed),
        words::count(moved, "link")
    );
    let mut sep = "; now ";
    for (state, n) in states.as_object().into_iter().flatten() {
        let n = words::number(n.as_u64().unwrap_or_default());
        let _ = write!(text, "{sep}{n} {}", Foreign(state));
        sep = ", ";
    }
    text.push('\n');
    text
}

fn list(args: &List, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    if let Some(instance) = &args.instance {
        check_instance(&reader, instance)?;
    }
    let state = args.state.as_deref().and_then(IdentityState::parse);
    let mut out = Output::stdout();
    let mut n_rows = 0;
    reader.identities(args.instance.as_deref(), state, |row| {
        n_rows += 1;
        match args.reading.json {
            true => out.json(&row)?,
            false => out.text(&line(&row))?,
        }
        Ok::<_, anyhow::Error>(())
    })?;
    if n_rows == 0 && !args.reading.json {
        out.text("no such profile: `musterd map import INSTANCE FILE` makes the map\n")?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

/// One profile: where, which, how, whom. No column is as wide as the widest of a list that may be long.
fn line(row: &IdentityRow) -> String {
    let mut line = format!(
        "{}  {}  {}",
        Foreign(&row.instance),
        Foreign(&row.profile),
        Foreign(&row.state)
    );
    if let Some(user_id) = &row.user_id {
        let _ = write!(line, "  {}", Foreign(user_id));
    }
    if let Some(matched_by) = row.matched_by.as_deref().filter(|by| *by != "pin") {
        let _ = write!(line, " by {}", Foreign(matched_by));
    }
    if let Some(candidates) = &row.candidates {
        let ids: Vec<String> = candidates
            .iter()
            .map(|id| Foreign(id).to_string())
            .collect();
        let _ = write!(line, "  its keys lead to {}", ids.join(", "));
    }
    line.push('\n');
    line
}

fn export(args: &Export, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    check_instance(&reader, &args.instance)?;
    let name = InstanceName::parse(&args.instance)?;
    let mut out = Output::stdout();
    // Where there is no list, there is no line.
    let mut header = (!args.reading.json).then_some(&file::HEADER);
    let is_there = reader.profiles(&name, |profile| {
        if let Some(header) = header.take() {
            out.bytes(&csv_line(header)?)?;
        }
        match args.reading.json {
            true => out.json(&profile)?,
            false => out.bytes(&csv_line(&file::fields(&profile))?)?,
        }
        Ok::<_, anyhow::Error>(())
    })?;
    if !is_there {
        let message = format!("no list of profiles was imported for `{name}`");
        return Err(Failure::new(message)
            .hint(format!("`musterd map import {name} FILE` does"))
            .into());
    }
    if let Some(header) = header {
        out.bytes(&csv_line(header)?)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn csv_line(fields: &[&str; 4]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields)?;
    Ok(writer.into_inner()?)
}
