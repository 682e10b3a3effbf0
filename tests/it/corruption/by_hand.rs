//! What somebody does to a mirror with an SQLite shell, or a program by mistake.

use fastrand::Rng;
use rusqlite::types::Value;
use rusqlite::{Connection, ToSql, params, params_from_iter};

/// One kind of alteration. Each draws what it alters, and fails where that cannot be written.
pub(crate) type Alter = fn(&Connection, &mut Rng) -> rusqlite::Result<String>;

pub(crate) const KINDS: [(&str, Alter); 12] = [
    ("another value", |conn, rng| alter_cell(conn, rng, another)),
    ("another type", |conn, rng| alter_cell(conn, rng, retyped)),
    ("no value", |conn, rng| {
        alter_cell(conn, rng, |_, _| Value::Null)
    }),
    ("a bit of a cell", |conn, rng| {
        alter_cell(conn, rng, bit_flipped)
    }),
    ("a cell of another row", swap_cells),
    ("a row deleted", delete_row),
    ("a row doubled", double_row),
    ("seq shifted", shift_seq),
    ("two records swapped", swap_records),
    ("the feed's numbers", alter_feed),
    ("a user and its record", alter_user_and_record),
    ("a seal", |conn, rng| {
        let row = Row::draw(conn, rng, "seals")?;
        row.alter(conn, rng, bit_flipped)
    }),
];

/// Tables with something in them, for readers and not. The large ones are not drawn more often.
const TABLES: [&str; 14] = [
    "feed",
    "instances",
    "pins",
    "sources",
    "source_counts",
    "users",
    "changes",
    "changes_base",
    "syncs",
    "holds",
    "hold_changes",
    "rejects",
    "fingerprints",
    "sqlite_sequence",
];

/// One row, and how it is found again.
struct Row {
    table: &'static str,
    columns: Vec<String>,
    cells: Vec<Value>,
    key: Vec<usize>,
}

impl Row {
    fn draw(conn: &Connection, rng: &mut Rng, table: &'static str) -> rusqlite::Result<Self> {
        let count: i64 = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
            row.get(0)
        })?;
        let place = rng.i64(0..count.max(1));
        Self::at(conn, table, place)
    }

    fn at(conn: &Connection, table: &'static str, place: i64) -> rusqlite::Result<Self> {
        let mut row = conn.prepare(&format!("SELECT * FROM {table} LIMIT 1 OFFSET ?1"))?;
        let columns: Vec<String> = row.column_names().map(Into::into).collect();
        let cells = row.query_row([place], |row| {
            (0..columns.len()).map(|place| row.get(place)).collect()
        })?;
        let in_key = conn
            .prepare(&format!(
                "SELECT name FROM pragma_table_info('{table}') WHERE pk > 0"
            ))?
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        let is_key = |place: &usize| in_key.contains(&columns[*place]);
        let key = match in_key.is_empty() {
            true => vec![0],
            false => (0..columns.len()).filter(is_key).collect(),
        };
        Ok(Self {
            table,
            columns,
            cells,
            key,
        })
    }

    fn set(&self, conn: &Connection, column: usize, value: &Value) -> rusqlite::Result<usize> {
        let conditions: Vec<String> = self
            .key
            .iter()
            .zip(2..)
            .map(|(place, bound)| format!("{} IS ?{bound}", self.columns[*place]))
            .collect();
        // Text that is no UTF-8 cannot be bound as text.
        let bound = match value {
            Value::Blob(_) if matches!(self.cells[column], Value::Text(_)) => "CAST(?1 AS TEXT)",
            _ => "?1",
        };
        let (table, column) = (self.table, &self.columns[column]);
        let condition = conditions.join(" AND ");
        let key = self.key.iter().map(|place| &self.cells[*place]);
        conn.execute(
            &format!("UPDATE {table} SET {column} = {bound} WHERE {condition}"),
            params_from_iter(std::iter::once(value).chain(key)),
        )
    }

    fn alter(
        &self,
        conn: &Connection,
        rng: &mut Rng,
        alter: fn(&Value, &mut Rng) -> Value,
    ) -> rusqlite::Result<String> {
        let column = rng.usize(0..self.columns.len());
        self.set(conn, column, &alter(&self.cells[column], rng))?;
        Ok(format!("{}.{}", self.table, self.columns[column]))
    }
}

fn alter_cell(
    conn: &Connection,
    rng: &mut Rng,
    alter: fn(&Value, &mut Rng) -> Value,
) -> rusqlite::Result<String> {
    let table = TABLES[rng.usize(0..TABLES.len())];
    Row::draw(conn, rng, table)?.alter(conn, rng, alter)
}

fn another(old: &Value, rng: &mut Rng) -> Value {
    match old {
        Value::Integer(number) => Value::Integer(match rng.u8(0..4) {
            0 => number.wrapping_add(1),
            1 => number.wrapping_sub(1),
            2 => 0,
            _ => rng.i64(..),
        }),
        Value::Text(text) => {
            let mut chars: Vec<char> = text.chars().collect();
            let place = rng.usize(0..=chars.len());
            match rng.u8(0..4) {
                0 => chars.insert(place, 'x'),
                1 if place < chars.len() => drop(chars.remove(place)),
                2 if place < chars.len() => chars[place] = 'ö',
                _ => chars = vec!['x'],
            }
            Value::Text(chars.into_iter().collect())
        }
        Value::Null => Value::Text(if rng.bool() { "x" } else { "" }.into()),
        Value::Real(number) => Value::Real(number + 1.0),
        Value::Blob(bytes) => Value::Blob([&**bytes, b"x"].concat()),
    }
}

fn retyped(old: &Value, rng: &mut Rng) -> Value {
    match old {
        Value::Integer(number) if rng.bool() => Value::Blob(number.to_string().into()),
        Value::Integer(number) => Value::Text(format!("{number}x")),
        // Bound as it is, see `Row::set`: so one of another length.
        Value::Text(text) => Value::Integer(text.len() as i64),
        Value::Null => Value::Blob(Vec::new()),
        Value::Real(number) => Value::Text(number.to_string()),
        Value::Blob(bytes) => Value::Text(format!("{bytes:02x?}")),
    }
}

fn bit_flipped(old: &Value, rng: &mut Rng) -> Value {
    let mut flip = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if !bytes.is_empty() {
            let place = rng.usize(0..bytes.len());
            bytes[place] ^= 1 << rng.u8(0..8);
        }
        bytes
    };
    match old {
        Value::Text(text) => Value::Blob(flip(text.as_bytes())),
        Value::Blob(bytes) => Value::Blob(flip(bytes)),
        Value::Integer(number) => Value::Integer(number ^ (1 << rng.u8(0..64))),
        other => other.clone(),
    }
}

fn swap_cells(conn: &Connection, rng: &mut Rng) -> rusqlite::Result<String> {
    let table = TABLES[rng.usize(0..TABLES.len())];
    let (one, other) = (Row::draw(conn, rng, table)?, Row::draw(conn, rng, table)?);
    let column = rng.usize(0..one.columns.len());
    one.set(conn, column, &other.cells[column])?;
    if !one.key.contains(&column) {
        other.set(conn, column, &one.cells[column])?;
    }
    Ok(format!("{table}.{}", one.columns[column]))
}

fn delete_row(conn: &Connection, rng: &mut Rng) -> rusqlite::Result<String> {
    let table = TABLES[rng.usize(0..TABLES.len())];
    let row = Row::draw(conn, rng, table)?;
    let conditions: Vec<String> = row
        .key
        .iter()
        .zip(1..)
        .map(|(place, bound)| format!("{} IS ?{bound}", row.columns[*place]))
        .collect();
    let key = row.key.iter().map(|place| &row.cells[*place]);
    conn.execute(
        &format!("DELETE FROM {table} WHERE {}", conditions.join(" AND ")),
        params_from_iter(key),
    )?;
    Ok(table.to_owned())
}

/// The same row under another key.
fn double_row(conn: &Connection, rng: &mut Rng) -> rusqlite::Result<String> {
    let table = TABLES[rng.usize(0..TABLES.len())];
    let mut row = Row::draw(conn, rng, table)?;
    let place = row.key[rng.usize(0..row.key.len())];
    row.cells[place] = another(&row.cells[place], rng);
    let bound: Vec<&dyn ToSql> = row.cells.iter().map(|cell| cell as &dyn ToSql).collect();
    let marks = vec!["?"; bound.len()].join(", ");
    conn.execute(&format!("INSERT INTO {table} VALUES ({marks})"), &*bound)?;
    Ok(table.to_owned())
}

/// Moves the newest records up by hand, carefully or not.
fn shift_seq(conn: &Connection, rng: &mut Rng) -> rusqlite::Result<String> {
    let (first, last): (i64, i64) =
        conn.query_row("SELECT first_seq, last_seq FROM feed", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let (from, by) = (rng.i64(first..=last), rng.i64(1..4));
    let shift = |sql: &str| conn.execute(sql, params![from, by]);
    // Upwards a unique number may be in the way: over the negative ones there is none.
    shift("UPDATE changes SET seq = -(seq + ?2) WHERE seq >= ?1")?;
    conn.execute("UPDATE changes SET seq = -seq WHERE seq < 0", [])?;
    if rng.bool() {
        shift("UPDATE users SET changed_seq = changed_seq + ?2 WHERE changed_seq >= ?1")?;
        shift("UPDATE feed SET last_seq = last_seq + ?2 WHERE ?1 > 0")?;
        if from == first {
            shift("UPDATE feed SET first_seq = first_seq + ?2 WHERE ?1 > 0")?;
        }
    }
    Ok(format!("from {from} by {by}"))
}

fn swap_records(conn: &Connection, rng: &mut Rng) -> rusqlite::Result<String> {
    let one = Row::draw(conn, rng, "changes")?;
    let other = Row::draw(conn, rng, "changes")?;
    let (a, b) = (&one.cells[0], &other.cells[0]);
    let swap = "UPDATE changes SET seq = ?2 WHERE seq = ?1";
    conn.execute(swap, params![a, -1])?;
    conn.execute(swap, params![b, a])?;
    conn.execute(swap, params![-1, b])?;
    Ok(format!("{a:?} and {b:?}"))
}

fn alter_feed(conn: &Connection, rng: &mut Rng) -> rusqlite::Result<String> {
    let row = Row::draw(conn, rng, "feed")?;
    row.alter(conn, rng, another)
}

/// Somebody who knows that both are compared.
fn alter_user_and_record(conn: &Connection, rng: &mut Rng) -> rusqlite::Result<String> {
    let user = Row::draw(conn, rng, "users")?;
    let cell = |name: &str| {
        let place = user.columns.iter().position(|column| column == name);
        place.map_or(&Value::Null, |place| &user.cells[place])
    };
    let seq = cell("changed_seq");
    match rng.u8(0..3) {
        0 => {
            let title = r#"json_set({}, '$.title', 'Thief')"#;
            for (table, column) in [
                ("users", "attributes"),
                ("changes", "after"),
                ("changes_base", "after"),
            ] {
                let of = if table == "users" {
                    "changed_seq"
                } else {
                    "seq"
                };
                let set = title.replace("{}", column);
                conn.execute(
                    &format!("UPDATE {table} SET {column} = {set} WHERE {of} = ?1"),
                    [seq],
                )?;
            }
            conn.execute(
                "UPDATE users SET title = 'Thief' WHERE changed_seq = ?1",
                [seq],
            )?;
        }
        1 => {
            conn.execute(
                "UPDATE users SET modified_at = '2026-02-02T00:00:00Z' WHERE changed_seq = ?1",
                [seq],
            )?;
            for table in ["changes", "changes_base"] {
                conn.execute(
                    &format!(
                        "UPDATE {table} SET source_modified_at = '2026-02-02T00:00:00Z' WHERE seq = ?1"
                    ),
                    [seq],
                )?;
            }
        }
        _ => {
            // The user and all that was ever said of it.
            let key = params![cell("instance"), cell("id")];
            for table in ["changes_base", "changes", "users", "fingerprints"] {
                conn.execute(
                    &format!("DELETE FROM {table} WHERE instance = ?1 AND id = ?2"),
                    key,
                )?;
            }
        }
    }
    Ok(format!("record {seq:?}"))
}
