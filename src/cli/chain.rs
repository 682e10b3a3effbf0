//! `musterd chain`: the managers above a user, and the first of them who may approve.

use std::fmt::Write as _;
use std::path::Path;

use anstyle::{AnsiColor, Style};

use super::exit::Exit;
use super::output::Output;
use super::reading::{self, Reading};
use super::{card, user, words};
use crate::mirror::read::{Chain, ChainRow};
use crate::model::Foreign;

/// The managers above a user, and who may approve
///
/// A row a manager, the direct one first. Its state is `ok`; `inactive`, who may be gone as well; `missing`, of
/// whom the mirror knows no more than the id; or `cycle` or `self` where the chain comes back to somebody, and
/// ends. The approver is the first living manager, however far above.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd chain acme ada.lovelace")]
pub(crate) struct Args {
    /// The instance, by its configured name
    instance: String,

    /// The id, user name or email; several matches are all shown, and the command exits 3
    key: String,

    /// The most managers that are shown
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    levels: u64,

    #[command(flatten)]
    reading: Reading,
}

pub(crate) fn run(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    reading::check_instance(&reader, &args.instance)?;
    // Between two looks somebody could be removed, and would be shown as one without a manager.
    let snapshot = reader.snapshot()?;
    let rows = reader.users(&args.instance, &args.key)?;
    let mut chains = Vec::new();
    for row in &rows {
        let id = card::text(row, "id").unwrap_or_default();
        chains.push((id, reader.chain(&args.instance, id, args.levels)?));
    }
    drop(snapshot);
    let mut out = Output::stdout();
    for (place, (row, (id, chain))) in rows.iter().zip(&chains).enumerate() {
        if args.reading.json {
            out.json(chain)?;
            continue;
        }
        if place > 0 {
            out.text("\n")?;
        }
        out.text(&headline(card::name(row), id))?;
        out.text(&table(chain))?;
        out.text(&approver(chain))?;
    }
    out.flush()?;
    user::ending(rows.len(), &args.instance, &args.key)
}

/// The longest name that is shown in full in the table.
const MAX_NAME_CHARS: usize = 26;

const COLUMNS: [words::Column; 4] = [
    words::right(5),
    words::left(8),
    words::left(MAX_NAME_CHARS),
    words::left(0),
];

/// The longest title that is shown in full, with which a row fits 80 columns. An id of ServiceNow (32) is shorter.
const MAX_TITLE_CHARS: usize = 35;

/// The longest name of a user that is shown in full, beside such an id.
const MAX_HEADLINE_CHARS: usize = 46;

/// The longest name of an approver that is shown in full, beside such an id and a level of five digits.
const MAX_APPROVER_CHARS: usize = 23;

/// Whose what follows is.
pub(super) fn headline(name: &str, id: &str) -> String {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let name = words::clip(&Foreign(name).to_string(), MAX_HEADLINE_CHARS);
    format!("{bold}{name}{bold:#}  {dim}{}{dim:#}\n", Foreign(id))
}

fn table(chain: &Chain) -> String {
    if chain.n_levels == 0 {
        return "no manager is set\n".to_owned();
    }
    let mut text = String::new();
    let header = ["LEVEL", "STATE", "MANAGER", "TITLE"].map(str::to_owned);
    words::row(&mut text, &COLUMNS, &header, [Style::new().bold(); 4]);
    for row in &chain.chain {
        let state = match row.state.as_str() {
            "ok" => AnsiColor::Green.on_default(),
            _ => AnsiColor::Red.on_default(),
        };
        let plain = Style::new();
        words::row(
            &mut text,
            &COLUMNS,
            &cells(row),
            [plain, state, plain, plain],
        );
    }
    let above = chain.n_levels - chain.chain.len() as u64;
    if above > 0 {
        let _ = writeln!(
            text,
            "and {} more above: `--levels {}` shows all of them",
            words::number(above),
            chain.n_levels
        );
    }
    text
}

fn cells(row: &ChainRow) -> [String; 4] {
    // Of whom there is no more, the id is shown, by which the instance can be asked.
    let title = match row.state.as_str() {
        "missing" => Some(&row.manager_id),
        _ => row.title.as_ref(),
    };
    [
        row.depth.to_string(),
        Foreign(&row.state).to_string(),
        words::clip(&name(row), MAX_NAME_CHARS),
        words::clip(
            &Foreign(title.map_or("", String::as_str)).to_string(),
            MAX_TITLE_CHARS,
        ),
    ]
}

fn name(row: &ChainRow) -> String {
    let unnamed = match row.state.as_str() {
        "missing" => "-",
        _ => &row.manager_id,
    };
    Foreign(row.manager.as_deref().unwrap_or(unnamed)).to_string()
}

/// Who may approve, in a line.
fn approver(chain: &Chain) -> String {
    let who = match &chain.approver {
        Some(row) => format!(
            "{}  {}  level {}",
            words::clip(&name(row), MAX_APPROVER_CHARS),
            Foreign(&row.manager_id),
            row.depth
        ),
        None if chain.unlinked => "nobody: the instance is not linked any more".to_owned(),
        None => "nobody".to_owned(),
    };
    format!("approver: {who}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(depth: u64, manager: Option<&str>, state: &str) -> ChainRow {
        ChainRow {
            instance: "acme".to_owned(),
            id: "u1".to_owned(),
            depth,
            manager_id: format!("{depth:032x}"),
            manager: manager.map(str::to_owned),
            email: None,
            title: (state != "missing").then(|| "Director".to_owned()),
            active: Some(state == "ok"),
            state: state.to_owned(),
        }
    }

    fn shown(chain: &Chain) -> String {
        let text = [
            headline("Ada Lovelace", "u1"),
            table(chain),
            approver(chain),
        ]
        .concat();
        anstream::adapter::strip_str(&text).to_string()
    }

    fn chain(rows: Vec<ChainRow>) -> Chain {
        Chain {
            approver: rows.iter().find(|row| row.state == "ok").cloned(),
            n_levels: rows.len() as u64,
            chain: rows,
            unlinked: false,
        }
    }

    #[test]
    fn a_chain_is_a_table_with_the_approver_below() {
        let mut found = chain(vec![
            row(1, Some("Grace Hopper"), "inactive"),
            row(2, Some("Alan Turing"), "ok"),
            row(3, None, "missing"),
        ]);
        insta::assert_snapshot!(shown(&found), @"
        Ada Lovelace  u1
        LEVEL  STATE     MANAGER                     TITLE
            1  inactive  Grace Hopper                Director
            2  ok        Alan Turing                 Director
            3  missing   -                           00000000000000000000000000000003
        approver: Alan Turing  00000000000000000000000000000002  level 2
        ");
        found.n_levels = 4_999;
        assert!(
            shown(&found).contains("and 4,996 more above: `--levels 4999` shows all of them\n")
        );
    }

    #[test]
    fn where_nobody_may_approve_it_says_so() {
        assert_eq!(
            shown(&chain(Vec::new())),
            "Ada Lovelace  u1\nno manager is set\napprover: nobody\n"
        );
        let of_unlinked = Chain {
            approver: None,
            unlinked: true,
            ..chain(vec![row(1, None, "ok")])
        };
        assert!(shown(&of_unlinked).ends_with("nobody: the instance is not linked any more\n"));
    }

    #[test]
    fn it_fits_80_columns_and_steers_no_terminal() {
        let hostile = "\u{1b}[2J\u{202e}\n".repeat(40);
        let rows = ["inactive", "ok", "missing", "cycle"].map(|state| {
            let mut row = row(u64::from(u16::MAX), Some(&hostile), state);
            row.title = Some(hostile.clone());
            row
        });
        let mut found = chain(rows.to_vec());
        found.n_levels = u64::from(u32::MAX);
        let mut text = headline(&hostile, &"0".repeat(32));
        text.push_str(&table(&found));
        text.push_str(&approver(&found));
        let text = anstream::adapter::strip_str(&text).to_string();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
            assert!(!line.chars().any(Foreign::is_unsafe), "{line:?}");
        }
    }
}
