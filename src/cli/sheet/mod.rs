//! One hold on one sheet, for the person who is woken by it: who, where, since when, what the instance said, and
//! what to do.

mod groups;
mod saying;

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;

use self::groups::Groups;
use self::saying::Saying;
use super::holds::since;
use super::output::Output;
use super::words;
use crate::clock::{Clock as _, SystemClock};
use crate::mirror::Reader;
use crate::mirror::read::{HeldRow, HoldRow};
use crate::model::Foreign;

/// The hold on one sheet, which fits 80 columns: what, since when, why; where they work and what the instance said,
/// the largest groups first; each of them, or the first of many; and what to do.
pub(super) fn print(
    out: &mut Output,
    reader: &Reader,
    hold: &HoldRow,
    all: bool,
) -> anyhow::Result<()> {
    let mut sum = Sum::default();
    reader.held(hold.id, |row| {
        sum.add(&row);
        Ok::<_, anyhow::Error>(())
    })?;
    out.text(&headline(hold, SystemClock.now()))?;
    out.text(&sum.groups.text())?;
    out.text("\n")?;
    if all {
        reader.held(hold.id, |row| {
            Ok::<_, anyhow::Error>(out.text(&person(&row))?)
        })?;
    } else {
        out.text(&sum.first)?;
    }
    if !all && sum.n_users > PEOPLE_SHOWN {
        let more = words::number(sum.n_users - PEOPLE_SHOWN);
        out.text(&format!(
            "and {more} more: `musterd holds show {} --all` shows everybody\n",
            hold.id
        ))?;
    }
    out.text(&advice(hold))?;
    Ok(())
}

/// People who are shown one by one without `--all`.
const PEOPLE_SHOWN: u64 = 20;

/// The longest line, with room for the spaces before it.
const LINE_CHARS: usize = 74;

/// What all users of a hold have in common.
#[derive(Default)]
struct Sum {
    n_users: u64,
    groups: Groups,
    /// The first of them, as they are shown.
    first: String,
}

impl Sum {
    fn add(&mut self, row: &HeldRow) {
        self.groups.add(row);
        if self.n_users < PEOPLE_SHOWN {
            self.first.push_str(&person(row));
        }
        self.n_users += 1;
    }
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
    let limit = Foreign(&hold.limit_text).to_string();
    for (place, part) in words::wrap(&limit, LINE_CHARS - 11).iter().enumerate() {
        line(if place == 0 { "limit" } else { "" }, part);
    }
    line("digest", &Foreign(&hold.digest).to_string());
    text
}

/// One user: who, where, and what the instance said of them.
fn person(row: &HeldRow) -> String {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let name = Foreign(row.display_name.as_deref().unwrap_or(&row.id)).to_string();
    let name = words::clip(&name, MAX_NAME_CHARS);
    let mut text = format!("{bold}{name}{bold:#}  {dim}{}{dim:#}\n", Foreign(&row.id));
    let about = [&row.title, &row.department, &row.company];
    let about: Vec<String> = about
        .into_iter()
        .flatten()
        .map(|text| Foreign(text).to_string())
        .collect();
    if !about.is_empty() {
        let _ = writeln!(text, "    {}", words::clip(&about.join(", "), LINE_CHARS));
    }
    let mut said = Saying::of(row).of_one();
    match row.changed_at.as_deref() {
        _ if row.state != "held" => {
            let _ = write!(said, "; {}", Foreign(&row.state));
        }
        Some(changed_at) => {
            let day = changed_at.split('T').next().unwrap_or_default();
            let _ = write!(said, "; unchanged since {}", Foreign(day));
        }
        None => {}
    }
    for line in words::wrap(&said, LINE_CHARS) {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// The longest name that is shown in full, beside an id of 32 characters.
const MAX_NAME_CHARS: usize = 44;

/// What to do, or what comes next.
fn advice(hold: &HoldRow) -> String {
    if hold.state == "approved" && hold.held > 0 {
        return format!(
            "\nIt is approved: the next complete full sync takes over what it finds.\n\n  \
             musterd sync {} --mode full\n",
            Foreign(&hold.instance)
        );
    }
    if hold.state != "open" {
        return String::new();
    }
    let then = match hold.guard.as_str() {
        "source_changed" => {
            "Is it another directory on purpose (a clone, a restore)? Then approve it, and\n\
             the next complete full sync takes it over. If not, put the right one back: then\n\
             the next full sync resolves the hold by itself."
        }
        _ => {
            "If this is right, approve it: each of them is asked for again, and those for\n\
             whom it still stands go through. If not, mend it at the source: the next sync\n\
             that reads them takes them out of the hold by itself."
        }
    };
    format!(
        "\n{then}\n\n  musterd holds approve {} \\\n    --digest {}\n",
        hold.id,
        Foreign(&hold.digest)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn hold(guard: &str, attribute: Option<&str>, count: u64) -> HoldRow {
        HoldRow {
            id: 3,
            instance: "acme".to_owned(),
            sync_id: 12,
            guard: guard.to_owned(),
            attribute: attribute.map(str::to_owned),
            count,
            limit_text: format!("{count} within 24h: more than 5 and more than 5 % of 60 users"),
            digest: "0123456789abcdef".repeat(4),
            state: "open".to_owned(),
            opened_at: "2026-03-01T11:55:00.000Z".to_owned(),
            closed_at: None,
            held: count,
        }
    }

    fn row(path: &str, changed: &Value, proof: Option<Value>) -> HeldRow {
        let raw = |value: &Value| serde_json::value::to_raw_value(value).unwrap();
        HeldRow {
            hold_id: 3,
            resource: "User".to_owned(),
            id: "3f1c0a7e9b2d4e10aa51c0ffee00b201".to_owned(),
            path: path.to_owned(),
            kind: "deactivate".to_owned(),
            changed: Some(raw(changed)),
            after: None,
            proof: proof.as_ref().map(raw),
            state: "held".to_owned(),
            display_name: Some("Noor Valdimar".to_owned()),
            title: Some("Reliability Engineer II".to_owned()),
            company: Some("ACME North America".to_owned()),
            department: Some("Platform Operations".to_owned()),
            manager: None,
            changed_at: Some("2026-02-27T16:40:09.000Z".to_owned()),
        }
    }

    fn gone() -> Value {
        json!({"active": {"from": true, "to": false}, "gone_at": {"from": null, "to": "2026-03-01T11:55:00Z"}})
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn show(hold: &HoldRow, rows: impl IntoIterator<Item = HeldRow>) -> String {
        let mut sum = Sum::default();
        rows.into_iter().for_each(|row| sum.add(&row));
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        plain(&format!(
            "{}{}\n{}{}",
            headline(hold, now),
            sum.groups.text(),
            sum.first,
            advice(hold)
        ))
    }

    #[test]
    fn a_small_hold_is_shown_whole_with_what_the_instance_said_and_what_to_do() {
        let proof = json!({"distinct": 57, "asked_at": "2026-03-01T11:54:58Z", "status": 404, "witnesses": [
            {"id": "w1", "shares": "company", "answered_at": "2026-03-01T11:54:57Z"},
            {"id": "w2", "shares": "company", "answered_at": "2026-03-01T11:54:59Z"},
        ]});
        let proved = row("all", &gone(), Some(proof));
        let unseen = HeldRow {
            display_name: Some("Ilse Okonkwo-Brandt".to_owned()),
            department: None,
            ..row("all", &gone(), None)
        };
        let inactive = row(
            "active",
            &json!({"active": {"from": true, "to": false}}),
            None,
        );
        insta::assert_snapshot!(show(&hold("deactivations", None, 3), [proved, unseen, inactive]), @r"
        hold 3 of acme: deactivations  open
          opened       5m ago (2026-03-01T11:55:00.000Z), by sync 12
          held         3 of 3 changes
          limit        3 within 24h: more than 5 and more than 5 % of 60 users
          digest       0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
          companies    3  ACME North America
          departments  2  Platform Operations
                       1  (none)
          users        1  answer 404 when asked for, between two living witnesses
                       1  are inactive (`active: false`)
                       1  are not shown any more, and were not asked for

        Noor Valdimar  3f1c0a7e9b2d4e10aa51c0ffee00b201
            Reliability Engineer II, Platform Operations, ACME North America
            answered 404 when asked for at 2026-03-01T11:54:58Z, between two living
            witnesses of the same company; unchanged since 2026-02-27
        Ilse Okonkwo-Brandt  3f1c0a7e9b2d4e10aa51c0ffee00b201
            Reliability Engineer II, ACME North America
            not shown any more, and not asked for: no proof yet, approving asks;
            unchanged since 2026-02-27
        Noor Valdimar  3f1c0a7e9b2d4e10aa51c0ffee00b201
            Reliability Engineer II, Platform Operations, ACME North America
            says `active: false`; unchanged since 2026-02-27

        If this is right, approve it: each of them is asked for again, and those for
        whom it still stands go through. If not, mend it at the source: the next sync
        that reads them takes them out of the hold by itself.

          musterd holds approve 3 \
            --digest 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        ");
    }

    #[test]
    fn a_blanking_shows_the_old_values() {
        let changed = json!({
            "department": {"from": "Platform Operations", "to": null},
            "department_id": {"from": "d1", "to": null},
        });
        let without_label = json!({
            "department": {"from": null, "to": null},
            "department_id": {"from": "d1", "to": null},
        });
        let rows = [
            row("department", &changed, None),
            row("department", &without_label, None),
        ];
        insta::assert_snapshot!(show(&hold("blanking", Some("department"), 2), rows), @r"
        hold 3 of acme: blanking of `department`  open
          opened       5m ago (2026-03-01T11:55:00.000Z), by sync 12
          held         2 of 2 changes
          limit        2 within 24h: more than 5 and more than 5 % of 60 users
          digest       0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
          companies    2  ACME North America
          departments  2  Platform Operations
          users        2  have nothing for `department`, where the mirror has a value

        Noor Valdimar  3f1c0a7e9b2d4e10aa51c0ffee00b201
            Reliability Engineer II, Platform Operations, ACME North America
            says nothing for `department`, which was Platform Operations; unchanged
            since 2026-02-27
        Noor Valdimar  3f1c0a7e9b2d4e10aa51c0ffee00b201
            Reliability Engineer II, Platform Operations, ACME North America
            says nothing for `department`, which was d1; unchanged since 2026-02-27

        If this is right, approve it: each of them is asked for again, and those for
        whom it still stands go through. If not, mend it at the source: the next sync
        that reads them takes them out of the hold by itself.

          musterd holds approve 3 \
            --digest 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        ");
    }

    #[test]
    fn another_directory_shows_what_was_measured_and_whom_it_has() {
        let another = HoldRow {
            limit_text:
                "40 of 60 (66 %) known users were not seen, 3 of 20 (15 %) seen have an older \
                         `meta.lastModified` than the mirror: of either at most 20 or 20 % pass"
                    .to_owned(),
            ..hold("source_changed", None, 3)
        };
        let new = HeldRow {
            kind: "create".to_owned(),
            changed_at: None,
            ..row("all", &Value::Null, None)
        };
        let other = row(
            "all",
            &json!({"title": {"from": "a", "to": "b"}, "email": {"from": "a", "to": "b"}}),
            None,
        );
        let rows = [new, other, row("all", &gone(), None)];
        insta::assert_snapshot!(show(&another, rows), @r"
        hold 3 of acme: source_changed  open
          opened       5m ago (2026-03-01T11:55:00.000Z), by sync 12
          held         3 of 3 changes
          limit        40 of 60 (66 %) known users were not seen, 3 of 20 (15 %) seen
                       have an older `meta.lastModified` than the mirror: of either at
                       most 20 or 20 % pass
          digest       0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
          companies    3  ACME North America
          departments  3  Platform Operations
          users        1  are new: they were not known before
                       1  are not shown any more, and were not asked for
                       1  are other than the mirror has them

        Noor Valdimar  3f1c0a7e9b2d4e10aa51c0ffee00b201
            Reliability Engineer II, Platform Operations, ACME North America
            not known before
        Noor Valdimar  3f1c0a7e9b2d4e10aa51c0ffee00b201
            Reliability Engineer II, Platform Operations, ACME North America
            says otherwise: email, title; unchanged since 2026-02-27
        Noor Valdimar  3f1c0a7e9b2d4e10aa51c0ffee00b201
            Reliability Engineer II, Platform Operations, ACME North America
            not shown any more, and not asked for: no proof yet, approving asks;
            unchanged since 2026-02-27

        Is it another directory on purpose (a clone, a restore)? Then approve it, and
        the next complete full sync takes it over. If not, put the right one back: then
        the next full sync resolves the hold by itself.

          musterd holds approve 3 \
            --digest 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        ");
        let approved = HoldRow {
            state: "approved".to_owned(),
            ..another
        };
        assert!(advice(&approved).contains("musterd sync acme --mode full"));
        let taken_over = HoldRow {
            held: 0,
            ..approved
        };
        assert_eq!(advice(&taken_over), "");
    }

    /// Whatever the names are, and however many.
    #[test]
    fn a_large_hold_fits_a_screen_and_80_columns() {
        for n in [300, 30_000] {
            let rows = (0..n).map(|n| HeldRow {
                display_name: Some("Maximiliana ".repeat(9)),
                title: Some("Deputy ".repeat(20)),
                company: Some(format!("{} {}", "Company".repeat(12), n % 7)),
                department: Some(format!("Department {}", n % 1_000)),
                ..row("all", &gone(), None)
            });
            let text = show(&hold("deactivations", None, n), rows);
            for line in text.lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
            assert!(text.lines().count() <= 110, "{n}: {text}");
            let most = words::number(n.div_ceil(7));
            assert!(text.contains(&most), "the largest first: {text}");
        }
        let sum = (0..30_000).fold(Sum::default(), |mut sum, n| {
            let department = Some(format!("Department {}", n % 1_000));
            sum.add(&HeldRow {
                department,
                ..row("all", &gone(), None)
            });
            sum
        });
        insta::assert_snapshot!(sum.groups.text(), @"
        companies    30,000  ACME North America
        departments      30  Department 0
                         30  Department 1
                         30  Department 10
                         30  Department 100
                         30  Department 101
                         30  Department 102
                         30  Department 103
                         30  Department 104
                     29,760  in 992 more
        users        30,000  are not shown any more, and were not asked for
        ");
    }

    #[test]
    fn what_an_instance_says_steers_no_terminal() {
        let hostile = "a\u{1b}[2J\u{9b}1m\u{202e}b\nc";
        let mut odd = row(
            hostile,
            &json!({hostile: {"from": hostile, "to": null}}),
            None,
        );
        for text in [&mut odd.display_name, &mut odd.title, &mut odd.company] {
            *text = Some(hostile.to_owned());
        }
        let odd_hold = HoldRow {
            attribute: Some(hostile.to_owned()),
            ..hold("blanking", None, 1)
        };
        let text = show(&odd_hold, [odd]);
        assert!(
            !text.replace('\n', "").chars().any(Foreign::is_unsafe),
            "{text:?}"
        );
    }
}
