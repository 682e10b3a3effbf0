//! What a mirror says, row by row: whether a corruption changed it.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use rusqlite::types::ValueRef;

/// Rows of a table, each as one text of its cells; equal ones are counted.
type Rows = BTreeMap<Vec<u8>, usize>;

/// Everything that musterd or its readers go by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    tables: BTreeMap<String, Rows>,
    /// Of the table `fingerprints`. One that is missing says nothing: its user is read once more.
    fingerprints: BTreeSet<Vec<u8>>,
    /// The last number given out, by table.
    numbers: BTreeMap<Vec<u8>, i64>,
}

/// What the tables and their keys are: whatever somebody added beside them is theirs.
const SCHEMA: &str = "
    SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'
    UNION ALL SELECT 'user_version', user_version, NULL, NULL FROM pragma_user_version
    UNION ALL SELECT 'application_id', application_id, NULL, NULL FROM pragma_application_id";

impl Content {
    /// Reads all of it, each table by itself: no index has a say.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub(crate) fn of(conn: &Connection) -> rusqlite::Result<Self> {
        let names: Vec<String> = conn
            .prepare(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let mut tables = BTreeMap::from([("schema".to_owned(), rows(conn, SCHEMA)?)]);
        let mut fingerprints = BTreeSet::new();
        for name in names {
            let rows = rows(conn, &format!("SELECT * FROM {name} NOT INDEXED"))?;
            match &*name {
                // Seals say nothing by themselves.
                "seals" => {}
                "fingerprints" => fingerprints = rows.into_keys().collect(),
                _ => {
                    tables.insert(name, rows);
                }
            }
        }
        let mut numbers = conn.prepare("SELECT CAST(name AS BLOB), seq FROM sqlite_sequence")?;
        let numbers = numbers.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(Self {
            tables,
            fingerprints,
            numbers: numbers.collect::<Result<_, _>>()?,
        })
    }

    /// The tables, and `schema`, in which `now` has other rows than this.
    pub(crate) fn changed_tables(&self, now: &Self) -> Vec<&str> {
        let changed = |(name, rows): &(&String, &Rows)| now.tables.get(*name) != Some(rows);
        let tables = self.tables.iter().filter(changed);
        tables.map(|(name, _)| &**name).collect()
    }

    /// The first table in which `now` says something else than this.
    pub(crate) fn first_change(&self, now: &Self) -> Option<&str> {
        if let Some(name) = self.changed_tables(now).first() {
            return Some(name);
        }
        if !now.fingerprints.is_subset(&self.fingerprints) {
            return Some("fingerprints");
        }
        (self.numbers != now.numbers).then_some("sqlite_sequence")
    }
}

fn rows(conn: &Connection, sql: &str) -> rusqlite::Result<Rows> {
    let mut statement = conn.prepare(sql)?;
    let n_columns = statement.column_count();
    let mut found = statement.query([])?;
    let mut rows = Rows::new();
    while let Some(row) = found.next()? {
        let mut text = Vec::new();
        for place in 0..n_columns {
            let (kind, bytes) = match row.get_ref(place)? {
                ValueRef::Null => (0, Vec::new()),
                ValueRef::Integer(number) => (1, number.to_le_bytes().to_vec()),
                ValueRef::Real(number) => (2, number.to_le_bytes().to_vec()),
                ValueRef::Text(bytes) => (3, bytes.to_vec()),
                ValueRef::Blob(bytes) => (4, bytes.to_vec()),
            };
            text.push(kind);
            text.extend_from_slice(&bytes.len().to_le_bytes());
            text.extend_from_slice(&bytes);
        }
        *rows.entry(text).or_default() += 1;
    }
    Ok(rows)
}
