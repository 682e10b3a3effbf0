//! `musterd sync`: syncs now, here or in the daemon.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::Value;

use super::exit::{self, Exit};
use super::handover;
use super::output::Output;
use super::progress::Bars;
use super::words;
use crate::control::{Line, Request};
use crate::model::{Foreign, Mode};

/// Sync instances now
///
/// While the daemon runs the sync is handed to it, with its progress; otherwise this command does it
/// and holds the mirror's lock meanwhile.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd sync acme --mode full --dry-run")]
pub(crate) struct Args {
    /// Which instances; all when none is named
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,

    /// Without it: full when there is no baseline, else incremental
    #[arg(long, value_enum)]
    mode: Option<Wanted>,

    /// Print the plan and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Print JSON, one object a line, with the mirror's column names
    #[arg(long)]
    json: bool,
}

/// A mode as it is written on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wanted {
    /// Reads every user; the only sync that notices absence
    Full,
    /// Reads what was changed since the watermark
    Incremental,
}

impl From<Wanted> for Mode {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Full => Self::Full,
            Wanted::Incremental => Self::Incremental,
        }
    }
}

pub(crate) async fn run(args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    let request = Request::Sync {
        instances: args.instances,
        mode: args.mode.map(Mode::from),
        dry_run: args.dry_run,
    };
    let mut output = Output::stdout();
    let bars = Bars::on_a_terminal();
    let json = args.json;
    let wants_incremental = matches!(args.mode, Some(Wanted::Incremental));
    let exit = handover::carry_out(&config, request, |line| {
        match line {
            Line::Progress(progress) => bars.show(&progress),
            Line::Row(row) => {
                if wants_incremental && row["mode"] == "full" {
                    exit::note(
                        "a full sync was needed: there is nothing to go on from, or the instance does not honour the filter",
                    );
                }
                bars.aside(|| print(&mut output, &row, json))?;
            }
            Line::Result(_) => {}
        }
        Ok(())
    })
    .await?;
    bars.clear();
    output.flush()?;
    Ok(exit)
}

fn print(output: &mut Output, row: &Value, json: bool) -> anyhow::Result<()> {
    if json {
        output.json(row)?;
    } else {
        output.text(&render(row))?;
    }
    output.flush()?;
    Ok(())
}

/// A finished sync, one that did nothing, a planned record, or the sum of a plan, in a line.
fn render(row: &Value) -> String {
    if let Some(plan) = row.get("plan") {
        let verdict = text(&plan["certificate"]["verdict"]);
        let sum = format!(
            "{}: {} {} sync would write {}, {}, {}{}; the crawl is {verdict}; nothing was written\n",
            text(&plan["instance"]),
            if plan["mode"] == "incremental" {
                "an"
            } else {
                "a"
            },
            text(&plan["mode"]),
            words::count(number(&plan["created"]), "create"),
            words::count(number(&plan["updated"]), "update"),
            words::count(number(&plan["deactivated"]), "deactivate"),
            match number(&plan["held"]) {
                0 => String::new(),
                held => format!(", and hold {}", words::count(held, "change")),
            },
        );
        return sum + &would_hold(&plan["holds"]);
    }
    if row.get("note").is_some() {
        return format!("{}: {}\n", text(&row["instance"]), text(&row["note"]));
    }
    if row.get("kind").is_some() {
        return planned(row);
    }
    finished(row)
}

/// The holds that a sync would open, and why, a line each.
fn would_hold(holds: &Value) -> String {
    let holds = holds.as_array().into_iter().flatten();
    let line = |hold: &Value| {
        let of = hold["attribute"]
            .as_str()
            .map_or_else(String::new, |attribute| {
                format!(" of `{}`", Foreign(attribute))
            });
        format!(
            "  would be held: {}{of}, {}: {}\n",
            text(&hold["guard"]),
            words::count(number(&hold["count"]), "change"),
            text(&hold["limit_text"]),
        )
    };
    holds.map(line).collect()
}

fn planned(row: &Value) -> String {
    let name = row["after"]["displayName"]
        .as_str()
        .or(row["after"]["userName"].as_str());
    let held = match row["held"].as_str() {
        Some(path) => format!(" (held: {})", Foreign(path)),
        None => String::new(),
    };
    let mut line = format!(
        "{} {}/{}{held} {} {}",
        text(&row["instance"]),
        text(&row["kind"]),
        text(&row["reason"]),
        text(&row["id"]),
        Foreign(name.unwrap_or_default()),
    );
    for (path, change) in row["changed"].as_object().into_iter().flatten() {
        line.push_str(&format!(
            "; {}: {} → {}",
            Foreign(path),
            value(&change["from"]),
            value(&change["to"])
        ));
    }
    line.push('\n');
    line
}

fn finished(row: &Value) -> String {
    // A sync of groups writes memberships as well, which nobody counts as seen.
    let [of, seen, created] = match row["resource"].as_str() {
        Some("Group") => [" of groups", " groups", " groups and memberships"],
        _ => ["", "", ""],
    };
    let mut line = format!(
        "{}: {} sync{of} {}",
        text(&row["instance"]),
        text(&row["mode"]),
        text(&row["outcome"])
    );
    if row["outcome"] == "succeeded" {
        line.push_str(&format!(
            ": {}{seen} seen, {}{created} created, {} updated, {} deactivated",
            number(&row["seen"]),
            number(&row["created"]),
            number(&row["updated"]),
            number(&row["deactivated"]),
        ));
        for (what, word) in [("held", "held"), ("rejected", "rejected")] {
            if number(&row[what]) > 0 {
                line.push_str(&format!(", {} {word}", number(&row[what])));
            }
        }
    }
    if let Some(error) = row["error"].as_str() {
        line.push_str(&format!(": {}", Foreign(error)));
    }
    if row["certificate"]["verdict"] == "partial" {
        let doubts = row["certificate"]["reasons"].as_array().map_or(0, Vec::len);
        line.push_str(&format!(
            "; the crawl is partial ({}), nobody is absent by it",
            words::count(doubts as u64, "doubt")
        ));
    }
    line.push('\n');
    line
}

fn text(value: &Value) -> Foreign<'_> {
    Foreign(value.as_str().unwrap_or("-"))
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) => Foreign(text).to_string(),
        other => Foreign(&other.to_string()).to_string(),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
