//! `musterd holds`: what a guard kept back, who it concerns, and the approval of a person.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anstyle::Style;
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::Value;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::progress::Bars;
use super::reading::Reading;
use super::{handover, interruptible, sheet, words};
use crate::clock::{Clock as _, SystemClock};
use crate::control::{Line, Request};
use crate::mirror::read::HoldRow;
use crate::model::Foreign;

/// What a guard kept back until somebody approves it
///
/// Without a command, lists the open holds, and exits 3 where there is one.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "\
Examples:
  musterd holds
  musterd holds show 3
  musterd holds approve 3 --digest DIGEST"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    list: List,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(List),
    Show(Show),
    Approve(Approve),
}

/// The open holds
#[derive(Debug, clap::Args)]
struct List {
    /// Those that are approved or resolved too
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    reading: Reading,
}

/// One hold: whom it concerns, since when, and what the instance said
///
/// Of many users the first few are shown, `--all` shows each of them. `--json` has all of them with the
/// resource as it was read, and the proof.
#[derive(Debug, clap::Args)]
struct Show {
    /// The hold
    #[arg(value_name = "ID")]
    id: i64,

    /// Every user, however many
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    reading: Reading,
}

/// Release a hold: each user is asked for again, and those for whom the change still stands go through
///
/// The digest is that of the hold that was looked at, so that nothing else is approved. Exits 3 where
/// somebody could not be asked for: those stay held.
#[derive(Debug, clap::Args)]
struct Approve {
    /// The hold
    #[arg(value_name = "ID")]
    id: i64,

    /// The digest, as `musterd holds show ID` prints it
    #[arg(long, value_name = "D")]
    digest: String,

    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    match args.command.unwrap_or(Command::List(args.list)) {
        Command::List(args) => interruptible(async move { list(&args, &config) }).await,
        Command::Show(args) => interruptible(async move { show(&args, &config) }).await,
        Command::Approve(args) => approve(args, &config).await,
    }
}

fn list(args: &List, config: &Path) -> anyhow::Result<Exit> {
    let holds = args.reading.open(config)?.holds(args.all)?;
    let mut out = Output::stdout();
    if args.reading.json {
        for hold in &holds {
            out.json(hold)?;
        }
    } else {
        out.text(&table(&holds, SystemClock.now()))?;
    }
    out.flush()?;
    let is_open = holds.iter().any(|hold| hold.state == "open");
    Ok(if is_open { Exit::Attention } else { Exit::Done })
}

fn show(args: &Show, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    let Some(hold) = reader.hold(args.id)? else {
        let message = format!("there is no hold {}", args.id);
        return Err(Failure::new(message)
            .hint("`musterd holds --all` lists them")
            .into());
    };
    let mut out = Output::stdout();
    if args.reading.json {
        out.json(&hold)?;
        reader.held(hold.id, |row| Ok::<_, anyhow::Error>(out.json(&row)?))?;
    } else {
        sheet::print(&mut out, &reader, &hold, args.all)?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

async fn approve(args: Approve, config: &Path) -> anyhow::Result<Exit> {
    let request = Request::Approve {
        hold_id: args.id,
        digest: args.digest,
    };
    let mut out = Output::stdout();
    let bars = Bars::on_a_terminal();
    let exit = handover::carry_out(config, request, |line| {
        match line {
            Line::Progress(progress) => bars.show(&progress),
            Line::Row(row) if args.json => bars.aside(|| out.json(&row))?,
            Line::Row(row) => bars.aside(|| out.text(&answer(&row)))?,
            Line::Result(_) => {}
        }
        Ok(())
    })
    .await?;
    bars.clear();
    out.flush()?;
    Ok(exit)
}

/// What became of one user, or the sync that it was.
fn answer(row: &Value) -> String {
    let text = |name: &str| Foreign(row[name].as_str().unwrap_or("-")).to_string();
    if row.get("result").is_none() {
        let mut line = format!(
            "{}: {} updated, {} deactivated",
            text("instance"),
            row["updated"],
            row["deactivated"]
        );
        if row["error"].is_string() {
            let _ = write!(line, ": {}", text("error"));
        }
        line.push('\n');
        return line;
    }
    let mut line = text("result");
    if row["id"].is_string() {
        let _ = write!(line, "  {}", text("id"));
    }
    if row["why"].is_string() {
        let _ = write!(line, ": {}", text("why"));
    }
    line.push('\n');
    line
}

const HEADERS: [&str; 7] = [
    "ID",
    "INSTANCE",
    "GUARD",
    "ATTRIBUTE",
    "HELD",
    "STATE",
    "OPENED",
];

fn table(holds: &[HoldRow], now: Timestamp) -> String {
    if holds.is_empty() {
        return "no hold is open\n".to_owned();
    }
    let rows: Vec<[String; 7]> = holds.iter().map(|hold| cells(hold, now)).collect();
    let mut widths = HEADERS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    table_line(
        &mut text,
        &HEADERS.map(str::to_owned),
        &widths,
        Style::new().bold(),
    );
    for row in &rows {
        table_line(&mut text, row, &widths, Style::new());
    }
    text
}

fn cells(hold: &HoldRow, now: Timestamp) -> [String; 7] {
    [
        hold.id.to_string(),
        Foreign(&hold.instance).to_string(),
        Foreign(&hold.guard).to_string(),
        Foreign(hold.attribute.as_deref().unwrap_or("-")).to_string(),
        match hold.held == hold.count {
            true => words::number(hold.count),
            false => format!(
                "{} of {}",
                words::number(hold.held),
                words::number(hold.count)
            ),
        },
        Foreign(&hold.state).to_string(),
        since(&hold.opened_at, now),
    ]
}

pub(super) fn since(at: &str, now: Timestamp) -> String {
    at.parse::<Timestamp>().map_or_else(
        |_| Foreign(at).to_string(),
        |at| format!("{} ago", words::span(now.as_second() - at.as_second())),
    )
}

fn table_line(text: &mut String, cells: &[String; 7], widths: &[usize; 7], style: Style) {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if column > 0 {
            text.push_str("  ");
        }
        // The last column needs no padding.
        let width = if column + 1 == cells.len() { 0 } else { *width };
        words::cell(text, cell, width, matches!(column, 0 | 4), style);
    }
    text.push('\n');
}
