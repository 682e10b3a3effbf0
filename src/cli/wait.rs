//! `musterd wait`: until the mirror has what a script has just written to an instance.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::exit::{self, Exit, Failure};
use super::following::Following;
use super::output::Output;
use super::reading::{self, Reading};
use super::words;
use crate::clock::{Clock as _, SystemClock};
use crate::mirror::Reader;
use crate::mirror::read::{Coverage, Covered, Health};
use crate::model::time::our_text;
use crate::model::{Foreign, InstanceName, ResourceType};

/// Wait until the mirror has every change up to a moment
///
/// Returns once a sync has succeeded whose first answer was dated, by the instance, in a later second than this moment: every change
/// that had its stamp by then is in the mirror, but for resources that could not be understood (see the table `rejects`). A
/// script that has changed a user reads its own write so. TIME is of the instance's clock: best is the `meta.lastModified` of the
/// answer to the write; `musterd check` says how far that clock is from ours.
///
/// Who is gone, a change without a stamp, and who is in a group are noticed by complete full syncs only: --full waits for one of users
/// and, where groups are mirrored, for one of groups. Exits 3 when the time is up, or when something of the instance is held, since the
/// mirror keeps the old value of that; at once where it looks like another directory, of which nothing is applied.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  musterd wait acme --covers \"$(date -u +%FT%TZ)\" --timeout 5m
  musterd wait acme --covers 2026-03-01T12:00:00Z --full")]
pub(crate) struct Args {
    /// The instance, by its configured name
    instance: String,

    /// Up to when: a time like `2026-03-01T12:00:00Z`, or a day, at its midnight UTC
    #[arg(long, value_name = "TIME", value_parser = words::parse_moment)]
    covers: Timestamp,

    /// Wait for a complete full sync
    #[arg(long)]
    full: bool,

    /// Wait no longer than this, like `90s` or `15m`; without it, as long as it takes
    #[arg(long, value_name = "D", value_parser = words::parse_duration)]
    timeout: Option<Duration>,

    #[command(flatten)]
    reading: Reading,
}

pub(crate) async fn run(args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    let path = args.reading.path(&config)?;
    let reader = Reader::open(&path)?;
    reading::check_instance(&reader, &args.instance)?;
    let mut mirror = Following::new(reader, &path)?;
    let name = InstanceName::parse(&args.instance)?;
    let found = match args.timeout {
        Some(timeout) => tokio::time::timeout(timeout, covered(&args, &name, &mut mirror)).await,
        None => Ok(covered(&args, &name, &mut mirror).await),
    };
    let health = health(&args, mirror.reader())?;
    let Ok(found) = found else {
        exit::note(&time_is_up(&args, &name, mirror.reader(), health.as_ref())?);
        return Ok(Exit::Attention);
    };
    let found = match found? {
        Ok(found) => found,
        Err(why) => {
            exit::note(&why);
            return Ok(Exit::Attention);
        }
    };
    let mut out = Output::stdout();
    if args.reading.json {
        out.json(&json!({
            "instance": args.instance,
            "covers": our_text(args.covers),
            "sync_id": found.sync_id,
            "covered_before": found.before.to_string(),
        }))?;
    } else {
        out.text(&format!(
            "{}: everything before {} is in the mirror, by sync {}\n",
            Foreign(&args.instance),
            found.before,
            found.sync_id
        ))?;
    }
    out.flush()?;
    let open_holds = health.map_or(0, |health| health.open_holds);
    if open_holds > 0 {
        let holds = words::count(open_holds, "open hold");
        exit::note(&format!("but what is held: {holds}, see `musterd holds`"));
        return Ok(Exit::Attention);
    }
    Ok(Exit::Done)
}

/// Waits for the sync that covers the moment. Inside, an error says why none will come before a person has done something.
async fn covered(
    args: &Args,
    name: &InstanceName,
    mirror: &mut Following,
) -> anyhow::Result<Result<Covered, String>> {
    let mut looked_at = None;
    loop {
        let reader = mirror.reader();
        let health = health(args, reader)?;
        let [users, groups] =
            [ResourceType::User, ResourceType::Group].map(|resource| reader.source(name, resource));
        let state = health.map(|health| health.state);
        // Syncs of other instances are committed as well: those of this one are looked for where something is new.
        let is_now = Some((users?, groups?, state.clone()));
        if is_now != looked_at {
            looked_at = is_now;
            let instance = Foreign(&args.instance);
            match reader.coverage(name, args.full)? {
                Coverage::Covered(found) if found.covers(args.covers) => return Ok(Ok(found)),
                Coverage::Covered(_) | Coverage::Nothing => {}
                Coverage::Open(resource, hold_id) => {
                    let noun = resource.noun();
                    return Ok(Err(format!(
                        "`{instance}` looks like another directory: nothing of its {noun}s is applied before hold {hold_id} is \
                         approved, see `musterd holds show {hold_id}`"
                    )));
                }
                Coverage::Approved(_, hold_id) => {
                    return Ok(Err(format!(
                        "hold {hold_id} is approved, and nothing is applied before a complete full sync has taken the new \
                         directory over: `musterd sync {instance} --mode full` does so now"
                    )));
                }
            }
        }
        if state.is_none_or(|state| state == "unlinked") {
            let instance = Foreign(&args.instance);
            let message =
                format!("`{instance}` is not in the configuration: it is not synced any more");
            return Err(Failure::new(message)
                .hint("link it again, and wait then")
                .into());
        }
        mirror.committed().await?;
    }
}

fn health(args: &Args, reader: &Reader) -> anyhow::Result<Option<Health>> {
    let mut all = reader.health(SystemClock.now())?.into_iter();
    Ok(all.find(|health| health.instance == args.instance))
}

fn time_is_up(
    args: &Args,
    name: &InstanceName,
    reader: &Reader,
    health: Option<&Health>,
) -> anyhow::Result<String> {
    let so_far = match reader.coverage(name, args.full)? {
        Coverage::Covered(found) => format!("the mirror has everything before {}", found.before),
        _ if args.full => "no complete full sync is known yet".to_owned(),
        _ => "no sync is known yet that received everything".to_owned(),
    };
    let error = health.and_then(|health| health.last_error.as_deref());
    let error = error.filter(|_| health.is_some_and(|health| health.state == "failing"));
    let of_groups = health.and_then(|health| health.groups.as_ref()?.last_error.as_deref());
    let mut message = format!("the time is up: {so_far}");
    for error in error.into_iter().chain(of_groups) {
        let _ = write!(message, "; the last error: {}", Foreign(error));
    }
    Ok(message)
}
