//! `musterd holds`: what a guard kept back, who it concerns, and the approval of a person.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::Value;

use super::exit::{Exit, Failure};
use super::output::{self, Output};
use super::progress::Bars;
use super::reading::Reading;
use super::{handover, interruptible, words};
use crate::clock::{Clock as _, SystemClock};
use crate::control::{Line, Request};
use crate::mirror::Reader;
use crate::mirror::read::{HeldRow, HoldRow};
use crate::model::{Foreign, Kind};

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
#[derive(Debug, clap::Args)]
struct Show {
    /// The hold
    #[arg(value_name = "ID")]
    id: i64,

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
        sheet(&mut out, &reader, &hold)?;
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

fn since(at: &str, now: Timestamp) -> String {
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

/// Companies and departments that are named one by one; the others are summed up.
const PLACES_SHOWN: usize = 8;

/// The hold on one sheet: what, since when, why; where they work; each of them; and what to do.
fn sheet(out: &mut Output, reader: &Reader, hold: &HoldRow) -> anyhow::Result<()> {
    let now = SystemClock.now();
    out.text(&headline(hold, now))?;
    let mut places = [BTreeMap::new(), BTreeMap::new()];
    reader.held(hold.id, |row| {
        for (place, counts) in [row.company, row.department].into_iter().zip(&mut places) {
            *counts.entry(place).or_insert(0_u64) += 1;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    for (name, counts) in ["companies", "departments"].into_iter().zip(&places) {
        out.text(&format!("  {name:<13}{}\n", summary(counts)))?;
    }
    out.text("\n")?;
    reader.held(hold.id, |row| {
        out.text(&person(&row))?;
        Ok::<_, output::Error>(()).map_err(anyhow::Error::from)
    })?;
    if hold.state == "open" {
        out.text(&format!("\n{}", advice(hold)))?;
    }
    Ok(())
}

fn headline(hold: &HoldRow, now: Timestamp) -> String {
    let bold = Style::new().bold();
    let state = match hold.state.as_str() {
        "open" => AnsiColor::Red.on_default().bold(),
        _ => AnsiColor::Green.on_default(),
    };
    let what = match hold.attribute.as_deref() {
        Some(attribute) => format!("{} of `{}`", Foreign(&hold.guard), Foreign(attribute)),
        None => Foreign(&hold.guard).to_string(),
    };
    let mut text = format!(
        "{bold}hold {} of {}: {what}{bold:#}  {state}{}{state:#}\n",
        hold.id,
        Foreign(&hold.instance),
        Foreign(&hold.state)
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "  {name:<13}{value}");
    };
    line(
        "opened",
        &format!(
            "{} ({}), by sync {}",
            since(&hold.opened_at, now),
            Foreign(&hold.opened_at),
            hold.sync_id
        ),
    );
    if let Some(closed_at) = &hold.closed_at {
        line("closed", &Foreign(closed_at).to_string());
    }
    line(
        "held",
        &format!(
            "{} of {}",
            words::number(hold.held),
            words::count(hold.count, "change")
        ),
    );
    line("limit", &Foreign(&hold.limit_text).to_string());
    line("digest", &Foreign(&hold.digest).to_string());
    text
}

/// The largest first: `Sales 12, Support 3, none 1`.
fn summary(counts: &BTreeMap<Option<String>, u64>) -> String {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let mut parts: Vec<String> = sorted
        .iter()
        .take(PLACES_SHOWN)
        .map(|(place, n)| {
            let place = place
                .as_deref()
                .map_or("none".to_owned(), |place| Foreign(place).to_string());
            format!("{place} {}", words::number(**n))
        })
        .collect();
    if sorted.len() > PLACES_SHOWN {
        parts.push(format!("and {} more", sorted.len() - PLACES_SHOWN));
    }
    parts.join(", ")
}

/// One user: who, where, and what the instance said of them.
fn person(row: &HeldRow) -> String {
    let bold = Style::new().bold();
    let name = row.display_name.as_deref().unwrap_or(&row.id);
    let mut text = format!("{bold}{}{bold:#}", Foreign(name));
    let about = [&row.title, &row.department, &row.company];
    let about: Vec<String> = about
        .into_iter()
        .flatten()
        .map(|text| Foreign(text).to_string())
        .collect();
    if !about.is_empty() {
        let _ = write!(text, ", {}", about.join(", "));
    }
    let dim = Style::new().dimmed();
    let _ = write!(text, "  {dim}{}{dim:#}", Foreign(&row.id));
    let _ = write!(text, "\n    {}", said(row));
    if let Some(changed_at) = row.changed_at.as_deref().filter(|_| row.state == "held") {
        let _ = write!(
            text,
            "; unchanged in the mirror since {}",
            Foreign(changed_at)
        );
    }
    if row.state != "held" {
        let _ = write!(text, "; {}", Foreign(&row.state));
    }
    text.push('\n');
    text
}

/// What the instance said.
fn said(row: &HeldRow) -> String {
    let changed: Value = row
        .changed
        .as_ref()
        .and_then(|json| serde_json::from_str(json.get()).ok())
        .unwrap_or_default();
    let is_gone = changed["gone_at"]["to"].is_string();
    match row.path.as_str() {
        _ if is_gone && row.proof.is_some() => "answers 404 when asked for".to_owned(),
        _ if is_gone => "not shown any more, and not asked for".to_owned(),
        "active" => "says `active: false`".to_owned(),
        "all" if row.kind == Kind::Create.as_str() => "not known before".to_owned(),
        "all" => {
            let paths: Vec<String> = changed
                .as_object()
                .into_iter()
                .flat_map(|paths| paths.keys())
                .map(|path| Foreign(path).to_string())
                .collect();
            format!("says otherwise: {}", paths.join(", "))
        }
        path => {
            let from = match &changed[path]["from"] {
                Value::String(text) => Foreign(text).to_string(),
                Value::Null => Foreign(
                    changed[format!("{path}_id")]["from"]
                        .as_str()
                        .unwrap_or("-"),
                )
                .to_string(),
                other => Foreign(&other.to_string()).to_string(),
            };
            format!(
                "says nothing for `{}`, which was {}",
                Foreign(path),
                words::clip(&from, MAX_VALUE_CHARS)
            )
        }
    }
}

/// The longest old value that is shown in full; `--json` has them all.
const MAX_VALUE_CHARS: usize = 60;

fn advice(hold: &HoldRow) -> String {
    let then = match hold.guard.as_str() {
        "source_changed" => {
            "Is it another directory on purpose (a clone, a restore)? Then the next complete full sync takes it\n\
             over once you approve. If not, put the right one back: then the hold resolves itself."
        }
        _ => {
            "If this is right, approve it: each of them is asked for again, and those for whom it still stands go\n\
             through. If not, mend it at the source: then the hold resolves itself."
        }
    };
    format!(
        "{then}\n\n  musterd holds approve {} --digest {}\n",
        hold.id,
        Foreign(&hold.digest)
    )
}
