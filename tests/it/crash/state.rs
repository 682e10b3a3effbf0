//! The whole content of a mirror as text, so that "before or after" is an equality of everything.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use musterd::mirror::{Mirror, Reader};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

/// Every table that the contract names, and those behind them that decide what the next sync does.
const TABLES: [&str; 15] = [
    "feed",
    "instances",
    "sources",
    "users",
    "groups",
    "memberships",
    "changes",
    "changes_base",
    "syncs",
    "holds",
    "hold_changes",
    "rejects",
    "fingerprints",
    "pins",
    "source_counts",
];

/// Those that earlier versions do not have: nothing is in them.
const LATER: [&str; 2] = ["groups", "memberships"];

/// The schema's version, kept like a table with one row.
const VERSION: &str = "user_version";

/// What one sync differs in from another one that found the same: its id, its trouble, and the numbers of its transactions,
/// which the seals of fingerprints go by.
const OF_THE_SYNC: [&str; 5] = ["sync_id", "last_error", "last_error_at", "tx", "seal"];

/// All rows of a mirror by table, in the order of their keys. No mirror has no tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State(BTreeMap<&'static str, Vec<Row>>);

/// A row by column, as SQL spells values.
type Row = Vec<(String, String)>;

impl State {
    /// Reads a mirror as whoever opens it next would find it; may write the log and its index.
    pub(super) fn of(mirror: &Path) -> Self {
        if !mirror.exists() {
            return Self::default();
        }
        let conn = Connection::open_with_flags(mirror, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
        let mut tables: BTreeMap<_, _> = TABLES
            .into_iter()
            .map(|table| (table, rows(&conn, table)))
            .collect();
        let version = conn.pragma_query_value(None, VERSION, |row| row.get::<_, i64>(0));
        let version = (VERSION.to_owned(), version.unwrap().to_string());
        tables.insert(VERSION, vec![vec![version]]);
        Self(tables)
    }

    /// The same with our own times and the epoch left out: two runs differ in nothing else up to the fault.
    pub(super) fn timeless(&self) -> Self {
        self.each_row(|_, row| {
            row.retain(|(column, _)| column != "epoch");
            for (_, value) in row {
                *value = without_our_times(value);
            }
        })
    }

    /// What the mirror says, without the bookkeeping of which sync said it: what must be the same however
    /// many syncs it took.
    pub(super) fn content(&self) -> Self {
        let mut content = self.timeless().each_row(|table, row| {
            row.retain(|(column, _)| !OF_THE_SYNC.contains(&column.as_str()));
            if table == "sources" {
                // What a failed sync has learnt may be older than what a later one has.
                row.retain(|(column, _)| column != "capabilities");
            }
        });
        content.0.remove("syncs");
        content
    }

    /// What a sync that failed may touch beside its own row of `syncs` is left out too.
    pub(super) fn substance(&self) -> Self {
        let mut substance = self.content();
        substance.0.remove("instances");
        substance
    }

    fn each_row(&self, change: impl Fn(&'static str, &mut Row)) -> Self {
        let mut changed = self.clone();
        for (table, rows) in &mut changed.0 {
            for row in rows {
                change(table, row);
            }
        }
        changed
    }

    /// The values of a column, by row.
    pub(super) fn column(&self, table: &str, name: &str) -> Vec<&str> {
        self.0
            .get(table)
            .into_iter()
            .flatten()
            .filter_map(|row| row.iter().find(|(column, _)| column == name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The schema's version; `None` of no mirror.
    pub(super) fn schema_version(&self) -> Option<String> {
        let version = self.column(VERSION, VERSION).first().copied();
        version.map(str::to_owned)
    }

    /// All of it but the schema's version, and but what instances were found to honour, which `relink` forgets.
    pub(super) fn unversioned(&self) -> Self {
        let mut unversioned = self.clone();
        unversioned.0.remove(VERSION);
        let sources = unversioned.0.get_mut("sources").into_iter().flatten();
        for (column, value) in sources.flatten() {
            if column == "capabilities" {
                value.clear();
            }
        }
        // Columns of version 2.
        for table in ["fingerprints", "source_counts"] {
            for row in unversioned.0.get_mut(table).into_iter().flatten() {
                row.retain(|(column, _)| !["tx", "seal"].contains(&column.as_str()));
            }
        }
        unversioned
    }

    /// Each record of the feed, by `seq`: what a reader may have kept.
    pub(super) fn feed(&self) -> BTreeMap<i64, Row> {
        let records = self.0.get("changes").into_iter().flatten();
        records
            .map(|row| (row[0].1.trim().parse().unwrap(), row.clone()))
            .collect()
    }

    /// The first differences, for a message.
    pub(super) fn differences(&self, other: &Self) -> String {
        let mut text = String::new();
        for table in TABLES.into_iter().chain([VERSION]) {
            let [ours, theirs] =
                [self, other].map(|state| state.0.get(table).cloned().unwrap_or_default());
            if ours.len() != theirs.len() {
                let _ = writeln!(text, "{table}: {} rows and {}", ours.len(), theirs.len());
            }
            for (ours, theirs) in ours.iter().zip(&theirs).filter(|(a, b)| a != b).take(2) {
                for (ours, theirs) in ours.iter().zip(theirs).filter(|(a, b)| a != b) {
                    let _ = writeln!(
                        text,
                        "{table}.{}: {:.200} and {:.200}",
                        ours.0, ours.1, theirs.1
                    );
                }
            }
        }
        text
    }
}

fn rows(conn: &Connection, table: &str) -> Vec<Row> {
    if LATER.contains(&table) && !conn.table_exists(None, table).unwrap() {
        return Vec::new();
    }
    let mut query = conn.prepare(&format!("SELECT * FROM {table}")).unwrap();
    let columns: Vec<String> = query.column_names().map(str::to_owned).collect();
    let mut rows: Vec<Row> = query
        .query_map([], |row| {
            columns
                .iter()
                .enumerate()
                .map(|(place, column)| Ok((column.clone(), spelled(row.get_ref(place)?))))
                .collect()
        })
        .and_then(Iterator::collect)
        .unwrap_or_else(|error| panic!("`{table}`: {error}"));
    rows.sort();
    rows
}

/// A value so that two different ones are two different texts, and numbers sort as such.
fn spelled(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => format!("{number:6}"),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
        ValueRef::Blob(bytes) => format!("X{bytes:02X?}"),
    }
}

/// `2026-03-01T12:00:03.123Z` becomes a dash: only our clock has fractions of a second.
fn without_our_times(text: &str) -> String {
    const SECONDS: &str = "0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let mut kept = String::with_capacity(text.len());
    let mut from = 0;
    for (point, _) in text.match_indices('.') {
        let Some(start) = point.checked_sub(SECONDS.len()) else {
            continue;
        };
        let has_shape = bytes[start..point]
            .iter()
            .zip(SECONDS.bytes())
            .all(|(found, wanted)| match wanted {
                b'0' => found.is_ascii_digit(),
                other => *found == other,
            });
        let fraction = bytes[point + 1..].iter();
        let end = point + 1 + fraction.take_while(|byte| byte.is_ascii_digit()).count();
        if has_shape && bytes.get(end) == Some(&b'Z') {
            kept.push_str(&text[from..start]);
            kept.push('-');
            from = end + 1;
        }
    }
    kept.push_str(&text[from..]);
    kept
}

/// The version of a mirror that is made now.
pub(super) fn newest_schema_version() -> Option<String> {
    static VERSION: OnceLock<Option<String>> = OnceLock::new();
    let version = VERSION.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let mirror = folder.path().join("mirror.db");
        drop(Mirror::open(&mirror, "0f0e0d0c0b0a0908").unwrap());
        State::of(&mirror).schema_version()
    });
    version.clone()
}

/// Folds the feed and checks the database, as `musterd verify` does.
pub(super) fn verify(mirror: &Path) {
    let verified = Reader::open(mirror)
        .and_then(|reader| reader.verify(&mut |_| {}))
        .unwrap_or_else(|error| panic!("`{}`: {error:?}", mirror.display()));
    assert_eq!(verified.difference, None, "{}", mirror.display());
}
