//! `musterd check`: reads the configuration, then looks at each instance.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::exit::Exit;
use super::handover;
use super::output::Output;
use super::outside;
use super::words;
use crate::config::{self, Secrets, Settings};
use crate::control::{Line, Request};
use crate::daemon::link;
use crate::mirror::Reader;
use crate::model::Foreign;

/// Check the configuration, then ask each instance
///
/// One authenticated look: does it answer, how many users does it show, what does it honour of filters and sorting, and
/// does its clock agree with ours; and is anything of it held. Works before the daemon was ever started. Exits 1 if an
/// instance does not answer, else 3 if something is held.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd check acme")]
pub(crate) struct Args {
    /// Which instances; all when none is named
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,

    /// Read the configuration only
    #[arg(long)]
    offline: bool,

    /// Print JSON, one object an instance
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    let settings = config::load(&outside::sources(&config, Secrets::AllButCredentials))?;
    check_mirror(&settings.mirror.path, &settings)?;
    let mut output = Output::stdout();
    if !args.json {
        for warning in &settings.warnings {
            super::exit::note(warning);
        }
        output.text(&format!(
            "configuration: {} in order\n",
            words::count(settings.instances.len() as u64, "instance")
        ))?;
        output.flush()?;
    }
    if args.offline {
        if args.json {
            output.json(&serde_json::json!({
                "instances": settings.instances.keys().map(ToString::to_string).collect::<Vec<_>>(),
                "warnings": settings.warnings,
            }))?;
            output.flush()?;
        }
        return Ok(Exit::Done);
    }
    let request = Request::Check {
        instances: args.instances,
    };
    let exit = handover::carry_out(&config, request, |line| {
        if let Line::Row(found) = line {
            if args.json {
                output.json(&found)?;
            } else {
                output.text(&render(&found))?;
            }
            output.flush()?;
        }
        Ok(())
    })
    .await?;
    Ok(exit)
}

/// Holds the configuration against the mirror, where there is one already.
fn check_mirror(path: &Path, settings: &Settings) -> anyhow::Result<()> {
    if !path.try_exists()? {
        return Ok(());
    }
    for suffix in ["-wal", "-shm"] {
        let mut companion = path.as_os_str().to_owned();
        companion.push(suffix);
        if !Path::new(&companion).try_exists()? {
            super::exit::note(&format!(
                "`{}` is missing, so that readers without write right cannot open the mirror: a read-write shell \
                 removed it; starting the daemon mends that",
                Path::new(&companion).display()
            ));
        }
    }
    let pinned = Reader::open(path)?.pins()?;
    link::check_pins(&link::pins(settings), &pinned)?;
    Ok(())
}

/// An open hold, and where to look at it.
fn held(hold: &Value) -> String {
    let guard = Foreign(hold["guard"].as_str().unwrap_or("-"));
    let of = hold["attribute"]
        .as_str()
        .map_or_else(String::new, |attribute| {
            format!(" of `{}`", Foreign(attribute))
        });
    let held = words::count(hold["held"].as_u64().unwrap_or_default(), "change");
    format!(
        "{guard}{of}, {held}: see `musterd holds show {}`",
        hold["id"]
    )
}

fn render(found: &Value) -> String {
    let text = |value: &Value| Foreign(value.as_str().unwrap_or("-")).to_string();
    let mut lines = format!("{} ({})\n", text(&found["instance"]), text(&found["url"]));
    let mut line = |what: &str, says: &str| {
        lines.push_str(&format!("  {what:<22} {says}\n"));
    };
    if let Some(total) = found["total"].as_u64() {
        let users = words::count(total, "user");
        line("answers", &format!("yes, {users} shown"));
    }
    if let Some(skew) = found["clock_skew_seconds"].as_i64() {
        let says = match skew.abs() {
            0..=60 => "agrees with ours".to_owned(),
            seconds => format!(
                "{seconds} s {} ours: watermarks go by the instance's clock, schedules by ours",
                if skew > 0 { "ahead of" } else { "behind" }
            ),
        };
        line("clock", &says);
    }
    if let Some(asked) = found["page"]["asked"].as_u64() {
        let page = |key: &str| found["page"][key].as_u64().unwrap_or_default();
        let seconds = found["page"]["seconds"].as_f64().unwrap_or_default();
        let rows = page("rows");
        let says = match found["short_by"].as_str() {
            None => format!("whole, {rows} users in {seconds:.1} s"),
            Some("cap") => format!(
                "{rows} users where {asked} were asked for, in {seconds:.1} s: set `page_size` to what it gives"
            ),
            Some(_) => format!(
                "{rows} users where {asked} were asked for, and a smaller page is short as well: the account may not see some rows"
            ),
        };
        line("pages", &says);
    }
    if let Some(seconds) = found["full_sync"]["seconds"].as_f64() {
        let requests = words::count(found["full_sync"]["requests"].as_u64().unwrap_or(1), "page");
        let span = words::span(seconds.ceil() as i64);
        line(
            "a full sync",
            &format!("{requests}, at least {span} at this pace"),
        );
    }
    if let Some(limit) = found["told_per_hour"].as_u64() {
        let limit = words::count(limit, "request");
        line(
            "its rate limit",
            &format!("tighter than `rate`: {limit} an hour are kept to"),
        );
    }
    if found["unreadable"].as_bool() == Some(true) {
        line(
            "records",
            "one that cannot be read is among the first: a sync sets it aside, see the table `rejects`",
        );
    }
    for (name, counts) in found["visible"].as_object().into_iter().flatten() {
        let count = |key: &str| counts[key].as_u64().unwrap_or_default();
        let says = match (count("seen"), count("of")) {
            (0, of) => format!(
                "not shown for any of {of} users: nobody has one, or the account may not read it"
            ),
            (seen, of) => format!("shown, for {seen} of {of} users"),
        };
        line(&Foreign(name).to_string(), &says);
    }
    let capabilities = &found["capabilities"];
    if let Some(unknown) = capabilities["order_unknown"].as_bool() {
        let twins = capabilities["ids_differ_in_case"].as_bool() == Some(true);
        line(
            "sort by id",
            match (unknown, twins) {
                (true, _) => "not honoured, or by no order that is known: pages go by startIndex",
                (false, true) => "honoured; some ids differ in case alone",
                (false, false) => "honoured",
            },
        );
    }
    for (name, what, otherwise) in [
        ("id_after", "filter by id", "pages go by startIndex"),
        ("id_range", "filter by id, ranges", "one range at a time"),
        (
            "modified_filter",
            "filter by lastModified",
            "every sync is a full one",
        ),
        (
            "modified_and_id",
            "both joined by `and`",
            "long incremental syncs go by startIndex",
        ),
        (
            "inactive_shown",
            "inactive users",
            "leavers are found by full syncs only",
        ),
    ] {
        match capabilities[name].as_str() {
            Some("obeyed") => line(
                what,
                if name == "inactive_shown" {
                    "shown"
                } else {
                    "honoured"
                },
            ),
            Some("unknown") => line(what, "cannot be told from what the instance answers"),
            Some("ignored") if name == "inactive_shown" => line(
                what,
                "none is shown: either there is none, or leavers are found by full syncs only",
            ),
            Some(word) => line(what, &format!("{word}: {otherwise}")),
            None => {}
        }
    }
    if let Some(error) = found["error"].as_str() {
        line("failed", &Foreign(error).to_string());
    }
    if let Some(hint) = found["hint"].as_str() {
        line("what to do", hint);
    }
    for hold in found["holds"].as_array().into_iter().flatten() {
        line("held", &held(hold));
    }
    if let Some(note) = found["note"].as_str() {
        line("taken over", &Foreign(note).to_string());
    }
    lines
}
