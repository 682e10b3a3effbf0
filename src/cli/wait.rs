//! `musterd wait`: until the mirror has what a script has just written to an instance.

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
use crate::mirror::read::{Covered, Health};
use crate::model::time::our_text;
use crate::model::{Foreign, InstanceName, ResourceType};

/// Wait until the mirror has every change up to a moment
///
/// Returns once a sync has succeeded whose first answer was dated, by the instance, in a later second than this moment: every change
/// that had its stamp by then is in the mirror. A script that has changed a user reads its own write so. TIME is of the
/// instance's clock: `musterd check` says how far it is from ours.
///
/// Who is gone, and a change without a stamp, is noticed by complete full syncs only: --full waits for one. Exits 3 when the time is
/// up, or when something of the instance is held, since the mirror keeps the old value of that.
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
    let found = match args.timeout {
        Some(timeout) => tokio::time::timeout(timeout, covered(&args, &mut mirror)).await,
        None => Ok(covered(&args, &mut mirror).await),
    };
    let health = health(&args, mirror.reader())?;
    let Ok(found) = found else {
        exit::note(&time_is_up(&args, mirror.reader(), health.as_ref())?);
        return Ok(Exit::Attention);
    };
    let found = found?;
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

/// Waits for the sync that covers the moment.
async fn covered(args: &Args, mirror: &mut Following) -> anyhow::Result<Covered> {
    let name = InstanceName::parse(&args.instance)?;
    let mut looked_at = None;
    loop {
        let reader = mirror.reader();
        let source = reader.source(&name, ResourceType::User)?;
        let succeeded_at = match args.full {
            true => source.last_full_success_at,
            false => source.last_success_at,
        };
        // Syncs of other instances are committed as well; of all of them those of this one are looked for only when there is one.
        if succeeded_at.is_some() && succeeded_at != looked_at {
            looked_at = succeeded_at;
            let found = reader.covered(&args.instance, args.full)?;
            if let Some(found) = found.filter(|found| found.covers(args.covers)) {
                return Ok(found);
            }
        }
        let health = health(args, reader)?;
        if health.is_none_or(|health| health.state == "unlinked") {
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

fn time_is_up(args: &Args, reader: &Reader, health: Option<&Health>) -> anyhow::Result<String> {
    let so_far = match reader.covered(&args.instance, args.full)? {
        Some(found) => format!("the mirror has everything before {}", found.before),
        None if args.full => "no complete full sync is known yet".to_owned(),
        None => "no sync is known yet that received everything".to_owned(),
    };
    let error = health.and_then(|health| health.last_error.as_deref());
    let error = error.filter(|_| health.is_some_and(|health| health.state == "failing"));
    let error = error.map_or_else(String::new, |error| {
        format!("; the last error: {}", Foreign(error))
    });
    Ok(format!("the time is up: {so_far}{error}"))
}
