//! `musterd status`: how fresh and how well each instance is.

mod remarks;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;

use super::exit::Exit;
use super::output::Output;
use super::reading::Reading;
use super::{watch, words};
use crate::clock::{Clock as _, SystemClock};
use crate::daemon::requests::{self, Sent};
use crate::mirror::LONG_LOG_BYTES;
use crate::mirror::read::{Health, wal_bytes};
use crate::model::Foreign;
use crate::model::time::our_text;
use remarks::remarks;

/// Each instance: state, last success, users, holds, rejects, requests
///
/// REQ/H is what the instance was sent within the last hour, to the minute: syncs, probes, repeats, tokens. LEFT is how
/// many more the hourly limit allows: `rate.per_hour`, or what the instance told where that is tighter.
///
/// Exits 3 if an instance is failing, looks like another directory, has an open hold, or had its
/// last success longer ago than --max-age; also if no instance is linked at all. One that was
/// taken out of the configuration (`unlinked`) is shown and not judged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  musterd status --max-age 15m
  musterd status --watch")]
pub(crate) struct Args {
    /// How old the last success of an instance may be, like `90s`, `15m` or `2h`
    #[arg(long, value_name = "DURATION", value_parser = words::parse_duration)]
    max_age: Option<Duration>,

    /// Show it anew every two seconds, on a terminal, until Ctrl-C
    #[arg(long, conflicts_with = "json")]
    watch: bool,

    #[command(flatten)]
    reading: Reading,
}

pub(crate) async fn run(args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    match args.watch {
        true => watch::watch(&args, &config).await,
        false => once(&args, &config),
    }
}

fn once(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let now = SystemClock.now();
    let (rows, sent) = read(args, config, now)?;
    let mut out = Output::stdout();
    if args.reading.json {
        for row in &rows {
            out.json(&JsonRow::of(row, sent.as_ref()))?;
        }
    } else {
        out.text(&text(args, config, &rows, sent.as_ref(), now)?)?;
    }
    out.flush()?;
    Ok(verdict(&rows, now, args.max_age))
}

/// How the instances are, and what each was sent within the hour.
fn read(
    args: &Args,
    config: &Path,
    now: Timestamp,
) -> anyhow::Result<(Vec<Health>, Option<AllSent>)> {
    let mut rows = args.reading.open(config)?.health(now)?;
    let sent = requests::sent(&args.reading.path(config)?, now);
    for row in &mut rows {
        // The mirror has it with the end of a sync only.
        let told = sent_to(&row.instance, sent.as_ref()).and_then(|sent| sent.not_before);
        row.not_before = row.not_before.take().max(told.map(our_text));
    }
    Ok((rows, sent))
}

/// What a person is shown at this moment.
///
/// # Errors
/// When the mirror cannot be read.
pub(super) fn shown(args: &Args, config: &Path, now: Timestamp) -> anyhow::Result<String> {
    let (rows, sent) = read(args, config, now)?;
    text(args, config, &rows, sent.as_ref(), now)
}

fn text(
    args: &Args,
    config: &Path,
    rows: &[Health],
    sent: Option<&AllSent>,
    now: Timestamp,
) -> anyhow::Result<String> {
    let mut text = render(rows, sent, now, args.max_age);
    text.push_str(&of_the_log(wal_bytes(&args.reading.path(config)?)));
    Ok(text)
}

/// What each instance was sent within the hour, by name.
type AllSent = BTreeMap<String, Sent>;

/// What one was sent; `None` where that is not known.
fn sent_to(instance: &str, sent: Option<&AllSent>) -> Option<Sent> {
    Some(sent?.get(instance).copied().unwrap_or_default())
}

#[derive(serde::Serialize)]
struct JsonRow<'a> {
    #[serde(flatten)]
    health: &'a Health,
    requests_last_hour: Option<u64>,
    requests_left: Option<u64>,
}

impl<'a> JsonRow<'a> {
    fn of(health: &'a Health, sent: Option<&AllSent>) -> Self {
        let sent = sent_to(&health.instance, sent);
        Self {
            health,
            requests_last_hour: sent.map(|sent| sent.last_hour),
            requests_left: sent.and_then(|sent| sent.left),
        }
    }
}

/// A line on a write-ahead log that grows, if it does.
fn of_the_log(wal_bytes: u64) -> String {
    if wal_bytes <= LONG_LOG_BYTES {
        return String::new();
    }
    format!(
        "\nthe mirror's write-ahead log is {} MiB long: a reader keeps a transaction open, or no daemon moves it into the file\n",
        wal_bytes >> 20
    )
}

/// Whether somebody should look.
fn verdict(rows: &[Health], now: Timestamp, max_age: Option<Duration>) -> Exit {
    let is_urgent = |row| {
        remarks(row, now, max_age)
            .iter()
            .any(|remark| remark.urgent)
    };
    if rows.is_empty() || rows.iter().any(is_urgent) {
        Exit::Attention
    } else {
        Exit::Done
    }
}

/// The widest line of the table: what every terminal shows.
const COLUMNS: usize = 80;

const N_COLUMNS: usize = 9;

/// `REQ/H`: requests within the last hour. `LEFT`: how many more the hourly limit allows.
const HEADERS: [&str; N_COLUMNS] = [
    "INSTANCE", "STATE", "SUCCESS", "USERS", "ACTIVE", "HOLDS", "REJECTS", "REQ/H", "LEFT",
];

/// The table, then one line for each instance that there is something to say about.
fn render(
    rows: &[Health],
    sent: Option<&AllSent>,
    now: Timestamp,
    max_age: Option<Duration>,
) -> String {
    if rows.is_empty() {
        return "no instance is linked: the mirror is empty until the daemon has read a configuration with one\n".to_owned();
    }
    let cells: Vec<[String; N_COLUMNS]> = rows
        .iter()
        .map(|row| cells(row, sent_to(&row.instance, sent)))
        .collect();
    let mut widths = HEADERS.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // A long name gets a line of its own: it is what people copy, so it is never cut.
    let beside_name: usize = widths[1..].iter().map(|width| width + 2).sum();
    widths[0] = widths[0].min(COLUMNS.saturating_sub(beside_name));

    let mut text = String::new();
    line(&mut text, &HEADERS, &widths, |_| Style::new().bold());
    for (row, cells) in rows.iter().zip(&cells) {
        let cells = cells.each_ref().map(String::as_str);
        let style = |column| {
            if column == 1 {
                state_style(row)
            } else {
                Style::new()
            }
        };
        line(&mut text, &cells, &widths, style);
    }
    let mut separate = true;
    for row in rows {
        let sentences: Vec<String> = remarks(row, now, max_age)
            .into_iter()
            .map(|remark| remark.sentence)
            .collect();
        if sentences.is_empty() {
            continue;
        }
        if std::mem::take(&mut separate) {
            text.push('\n');
        }
        let _ = writeln!(text, "{}: {}", Foreign(&row.instance), sentences.join("; "));
    }
    text
}

fn cells(row: &Health, sent: Option<Sent>) -> [String; N_COLUMNS] {
    let number = |n: Option<u64>| n.map_or_else(|| "-".to_owned(), words::number);
    [
        Foreign(&row.instance).to_string(),
        Foreign(&row.state).to_string(),
        row.last_success_age_seconds.map_or_else(
            || "never".to_owned(),
            |age| format!("{} ago", words::span(age)),
        ),
        words::number(row.users),
        words::number(row.active),
        words::number(row.open_holds),
        words::number(row.rejects),
        number(sent.map(|sent| sent.last_hour)),
        number(sent.and_then(|sent| sent.left)),
    ]
}

/// One line of the table: words to the left, numbers to the right.
fn line(
    text: &mut String,
    cells: &[&str; N_COLUMNS],
    widths: &[usize; N_COLUMNS],
    style: impl Fn(usize) -> Style,
) {
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        if column > 0 {
            text.push_str("  ");
        }
        words::cell(text, cell, *width, column > 2, style(column));
        if column == 0 && cell.chars().count() > *width {
            let _ = write!(text, "\n{:width$}", "");
        }
    }
    text.push('\n');
}

fn state_style(row: &Health) -> Style {
    match row.state.as_str() {
        "healthy" => AnsiColor::Green.on_default(),
        "failing" | "source_changed" => AnsiColor::Red.on_default().bold(),
        "new" => AnsiColor::Yellow.on_default(),
        _ => Style::new().dimmed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::read::GroupHealth;
    use crate::model::{Capabilities, Obeyed};

    fn healthy(instance: &str) -> Health {
        Health {
            instance: instance.to_owned(),
            url: format!("https://{instance}.service-now.com"),
            state: "healthy".to_owned(),
            being_removed: false,
            not_before: None,
            last_success_at: Some("2026-03-01T11:59:48.000Z".to_owned()),
            last_success_age_seconds: Some(12),
            last_error: None,
            last_error_at: None,
            consecutive_failures: 0,
            users: 1_204,
            active: 1_180,
            open_holds: 0,
            approved_hold_id: None,
            rejects: 0,
            ambiguous_profiles: 0,
            baseline_at: Some("2026-02-01T00:00:00.000Z".to_owned()),
            last_full_success_at: Some("2026-03-01T02:30:00.000Z".to_owned()),
            watermark: Some("2026-03-01T11:59:00Z".to_owned()),
            capabilities: None,
            groups: None,
        }
    }

    fn failing(instance: &str) -> Health {
        Health {
            state: "failing".to_owned(),
            last_success_age_seconds: Some(3 * 3_600),
            last_error: Some("the token endpoint answered 401: access\u{1b}[31m denied".to_owned()),
            last_error_at: Some("2026-03-01T11:58:00.000Z".to_owned()),
            not_before: Some("2026-03-01T12:05:00.000Z".to_owned()),
            consecutive_failures: 12,
            users: 2_000_000,
            active: 1_800_000,
            open_holds: 1,
            rejects: 2,
            ambiguous_profiles: 0,
            ..healthy(instance)
        }
    }

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn show(rows: &[Health], max_age: Option<u64>) -> String {
        let sent = |last_hour, left| Sent {
            last_hour,
            left,
            not_before: None,
        };
        let sent = BTreeMap::from([
            ("acme".to_owned(), sent(62, Some(3_538))),
            ("globex".to_owned(), sent(14_400, None)),
        ]);
        let max_age = max_age.map(Duration::from_secs);
        let text = render(rows, Some(&sent), now(), max_age);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn the_table_says_what_is_well_and_the_lines_below_what_is_not() {
        let unlinked = Health {
            state: "unlinked".to_owned(),
            ..healthy("old")
        };
        let being_removed = Health {
            state: "unlinked".to_owned(),
            being_removed: true,
            ..healthy("tyrell")
        };
        let new = Health {
            state: "new".to_owned(),
            last_success_at: None,
            last_success_age_seconds: None,
            users: 0,
            active: 0,
            ..healthy("umbrella")
        };
        insta::assert_snapshot!(
            show(&[healthy("acme"), failing("globex"), unlinked, being_removed, new], None),
            @r"
            INSTANCE  STATE     SUCCESS      USERS     ACTIVE  HOLDS  REJECTS   REQ/H   LEFT
            acme      healthy   12s ago      1,204      1,180      0        0      62  3,538
            globex    failing   3h ago   2,000,000  1,800,000      1        2  14,400      -
            old       unlinked  12s ago      1,204      1,180      0        0       0      -
            tyrell    unlinked  12s ago      1,204      1,180      0        0       0      -
            umbrella  new       never            0          0      0        0       0      -

            globex: 12 failures in a row, the last 2m ago: the token endpoint answered 401: access\u{1b}[31m denied; asked again in 5m; changes are kept back: 1 open hold, see `musterd holds`; 2 resources could not be understood: see the table `rejects`
            old: no longer in the configuration: its rows stay as they are
            tyrell: its users are being removed; if no `musterd unlink` runs, that was interrupted, and `musterd unlink tyrell --drop` goes on with it
            umbrella: no sync has succeeded yet
            "
        );
    }

    #[test]
    fn of_groups_it_says_why_they_grow_old_and_who_may_be_missing() {
        let known_in_part = GroupHealth {
            groups: 20,
            known_in_part: 3,
            examples: vec!["g1".to_owned(), "g\u{1b}2".to_owned()],
            last_error: Some("answered 403".to_owned()),
            last_success_at: Some("2026-02-27T16:40:09.000Z".to_owned()),
            ..GroupHealth::default()
        };
        let left_out = GroupHealth {
            left_out: true,
            ..known_in_part.clone()
        };
        let with = |name: &str, groups| Health {
            groups: Some(groups),
            ..healthy(name)
        };
        let text = show(
            &[with("acme", known_in_part), with("globex", left_out)],
            None,
        );
        let (_, below) = text.split_once("\n\n").unwrap();
        insta::assert_snapshot!(below, @r"
        acme: the last sync of groups failed: answered 403; not all members are known of 3 groups: `g1`, `g\u{1b}2` and 1 more, so nobody leaves them (`members_known` of the table `groups`); no complete full sync of groups yet
        globex: groups are not mirrored any more (`resources`): what the mirror has of them is as of 2026-02-27T16:40:09.000Z
        ");
    }

    #[test]
    fn the_table_fits_80_columns_and_cuts_no_name() {
        let name = "a".repeat(40);
        let text = show(&[failing(&name), healthy("b")], None);
        insta::assert_snapshot!(text, @r"
        INSTANCE     STATE    SUCCESS      USERS     ACTIVE  HOLDS  REJECTS  REQ/H  LEFT
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
                     failing  3h ago   2,000,000  1,800,000      1        2      0     -
        b            healthy  12s ago      1,204      1,180      0        0      0     -

        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa: 12 failures in a row, the last 2m ago: the token endpoint answered 401: access\u{1b}[31m denied; asked again in 5m; changes are kept back: 1 open hold, see `musterd holds`; 2 resources could not be understood: see the table `rejects`
        ");
        let table = text.lines().take_while(|line| !line.is_empty());
        assert!(table.map(|line| line.chars().count()).max() <= Some(80));
    }

    #[test]
    fn what_is_not_believed_or_not_possible_is_said() {
        let changed = Health {
            state: "source_changed".to_owned(),
            open_holds: 1,
            ..healthy("acme")
        };
        let approved = Health {
            state: "source_changed".to_owned(),
            approved_hold_id: Some(3),
            ..healthy("approved")
        };
        let blind = Health {
            capabilities: Some(Capabilities {
                inactive_shown: Obeyed::Ignored,
                ..Capabilities::default()
            }),
            ..healthy("globex")
        };
        let throttled = Health {
            not_before: Some("2026-03-01T12:03:00.000Z".to_owned()),
            ..healthy("throttled")
        };
        let partial = Health {
            last_full_success_at: Some("2026-02-26T02:30:00.000Z".to_owned()),
            ..healthy("partial")
        };
        insta::assert_snapshot!(show(&[changed, approved, blind, partial, throttled], Some(5)), @"
        INSTANCE   STATE           SUCCESS  USERS  ACTIVE  HOLDS  REJECTS   REQ/H   LEFT
        acme       source_changed  12s ago  1,204   1,180      1        0      62  3,538
        approved   source_changed  12s ago  1,204   1,180      0        0       0      -
        globex     healthy         12s ago  1,204   1,180      0        0  14,400      -
        partial    healthy         12s ago  1,204   1,180      0        0       0      -
        throttled  healthy         12s ago  1,204   1,180      0        0       0      -

        acme: looks like another directory: incremental syncs wait until its hold is approved, and the mirror keeps what it had; the last success is 12s old, more than `--max-age` allows; changes are kept back: 1 open hold, see `musterd holds`
        approved: hold 3 is approved: the next complete full sync takes the new directory over, `musterd sync approved --mode full` does so now; the last success is 12s old, more than `--max-age` allows
        globex: the last success is 12s old, more than `--max-age` allows; no inactive user was ever shown: if there are any, leavers are found by full syncs only
        partial: the last success is 12s old, more than `--max-age` allows; the last complete full sync was 3d ago: who left since is not noticed
        throttled: it asked to be left alone: the next request is sent in 3m; the last success is 12s old, more than `--max-age` allows
        ");
    }

    #[test]
    fn only_what_somebody_must_look_at_exits_3() {
        let of = |row: Health, max_age: Option<u64>| {
            verdict(&[row], now(), max_age.map(Duration::from_secs))
        };
        let never = || Health {
            last_success_age_seconds: None,
            ..healthy("a")
        };
        let held = Health {
            open_holds: 1,
            ..healthy("a")
        };
        let rejected = Health {
            rejects: 7,
            ambiguous_profiles: 0,
            ..healthy("a")
        };
        let unlinked = Health {
            state: "unlinked".to_owned(),
            ..failing("a")
        };
        assert_eq!(of(healthy("a"), None), Exit::Done);
        assert_eq!(of(healthy("a"), Some(12)), Exit::Done);
        assert_eq!(of(healthy("a"), Some(11)), Exit::Attention);
        assert_eq!(of(failing("a"), None), Exit::Attention);
        assert_eq!(of(never(), None), Exit::Done);
        assert_eq!(of(never(), Some(86_400)), Exit::Attention);
        assert_eq!(of(held, None), Exit::Attention);
        assert_eq!(of(rejected, None), Exit::Done);
        assert_eq!(of(unlinked, Some(1)), Exit::Done);
        assert_eq!(verdict(&[], now(), None), Exit::Attention);
    }
}
