//! Seals: by what `verify` knows each row again as the one that was written.
//!
//! What a transaction wrote is sealed before it commits, in a table of its own and so on other pages. Who writes need not
//! think of it: SQLite's update hook tells which rows were touched.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::hooks::Action;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Params, Row, Statement, params};
use sha2::{Digest as _, Sha256};

use super::error::Error;

/// A table whose rows are sealed.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    key: Key,
    /// The sealed columns.
    cells: &'static str,
}

/// By what the seal of a row is found.
#[derive(Clone, Copy, Debug)]
enum Key {
    /// Its number, which is the rowid.
    Number,
    /// A text of columns, the instance first.
    OfInstance(&'static str),
    /// Another expression. None of them goes by the rowid, where that has no column: VACUUM may give out others.
    Other(&'static str),
}

const ALL: &str = "*";

/// Every table that has rowids. [`fingerprints`](tie) has none, nor has `user_keys`, all of which `verify` computes anew.
pub(super) const TABLES: [Table; 20] = [
    Table {
        name: "feed",
        key: Key::Other("1"),
        cells: ALL,
    },
    Table {
        name: "instances",
        key: Key::OfInstance("instances.name"),
        cells: ALL,
    },
    Table {
        name: "pins",
        key: Key::OfInstance("pins.instance"),
        cells: ALL,
    },
    Table {
        name: "sources",
        key: Key::OfInstance("sources.instance || ' ' || sources.resource"),
        cells: ALL,
    },
    Table {
        name: "source_counts",
        key: Key::OfInstance("source_counts.instance || ' ' || source_counts.resource"),
        cells: ALL,
    },
    Table {
        name: "syncs",
        key: Key::Number,
        cells: ALL,
    },
    Table {
        name: "changes",
        key: Key::Number,
        cells: ALL,
    },
    Table {
        name: "changes_base",
        key: Key::OfInstance(
            "changes_base.instance || ' ' || changes_base.resource || ' ' || changes_base.id",
        ),
        cells: ALL,
    },
    Table {
        name: "users",
        key: Key::OfInstance("users.instance || ' ' || users.id"),
        // `attributes` is the text of a sealed record, and all other columns are computed from it: they are compared.
        cells: "instance, id, active, created_at, modified_at, first_seen_at, changed_at, changed_seq, gone_at",
    },
    Table {
        name: "groups",
        key: Key::OfInstance("groups.instance || ' ' || groups.id"),
        // As of `users`; what makes no record is nowhere else.
        cells: "instance, id, active, created_at, modified_at, member_count, members_known, first_seen_at, changed_at, \
                changed_seq, gone_at",
    },
    Table {
        name: "memberships",
        key: Key::OfInstance(
            "memberships.instance || ' ' || length(memberships.group_id) || ' ' || memberships.group_id || ' ' || memberships.member_id",
        ),
        cells: ALL,
    },
    Table {
        name: "holds",
        key: Key::Number,
        cells: ALL,
    },
    Table {
        name: "hold_changes",
        key: Key::Other(
            "hold_changes.hold_id || ' ' || hold_changes.resource || ' ' || hold_changes.id",
        ),
        cells: ALL,
    },
    Table {
        name: "rejects",
        key: Key::OfInstance("rejects.instance || ' ' || rejects.resource || ' ' || rejects.key"),
        cells: ALL,
    },
    Table {
        name: "identities",
        key: Key::OfInstance("identities.instance || ' ' || identities.profile"),
        cells: ALL,
    },
    Table {
        name: "identity_maps",
        key: Key::OfInstance("identity_maps.instance"),
        cells: ALL,
    },
    Table {
        name: "imports",
        key: Key::OfInstance("imports.instance"),
        cells: ALL,
    },
    Table {
        name: "profiles",
        key: Key::OfInstance("profiles.instance || ' ' || profiles.profile"),
        cells: ALL,
    },
    Table {
        name: "identity_keys",
        key: Key::OfInstance(
            "identity_keys.instance || ' ' || identity_keys.rule || ' ' || identity_keys.profile",
        ),
        cells: ALL,
    },
    Table {
        name: NUMBERS,
        key: Key::Other("sqlite_sequence.name"),
        cells: ALL,
    },
];

/// The last numbers of syncs and holds that were given out. The update hook does not tell who writes to it, so that every
/// transaction seals its few rows.
const NUMBERS: &str = "sqlite_sequence";

/// What a hash begins with, so that it is one of a seal of this kind.
const DOMAIN: &[u8] = b"musterd seal 1\0";

/// Bytes of the hash of a row. 16 leave no collision to chance.
const ROW_BYTES: usize = 16;

const PUT: &str = "
    INSERT INTO seals (of, key, seal) VALUES (?1, ?2, ?3)
    ON CONFLICT (of, key) DO UPDATE SET seal = excluded.seal WHERE seal <> excluded.seal";

/// The rows that the transaction under way has touched.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched(Arc<Mutex<[Ranges; TABLES.len()]>>);

impl Touched {
    /// Notes from now on what a connection writes.
    pub(super) fn watch(conn: &mut Connection) -> Result<Self, Error> {
        let touched = Self::default();
        let noted = touched.clone();
        let note = move |action: Action, _: &str, table: &str, rowid: i64| {
            if let Some(place) = TABLES.iter().position(|sealed| sealed.name == table) {
                let touched = &mut noted.lock()[place];
                touched.add(rowid);
                touched.deleted += u64::from(action == Action::SQLITE_DELETE);
            }
        };
        conn.update_hook(Some(note))?;
        Ok(touched)
    }

    /// Forgets what a transaction wrote that did not come to its end.
    pub(super) fn forget(&self) {
        *self.lock() = Default::default();
    }

    /// Drops the seal of a row that the transaction deletes, by its key. Nobody then looks for it among all seals of its table,
    /// which takes as long as the table is large.
    pub(super) fn drop_seal(&self, conn: &Connection, table: &str, key: &str) -> Result<(), Error> {
        let dropped = conn
            .prepare_cached("DELETE FROM seals WHERE of = ?1 AND key = ?2")?
            .execute([table, key])?;
        if let Some(place) = TABLES.iter().position(|sealed| sealed.name == table) {
            self.lock()[place].dropped += dropped as u64;
        }
        Ok(())
    }

    /// Seals what was touched, in the transaction that did.
    pub(super) fn seal(&self, conn: &Connection) -> Result<(), Error> {
        let touched = std::mem::take(&mut *self.lock());
        for (table, ranges) in TABLES.iter().zip(touched) {
            if table.name == NUMBERS {
                table.put(conn, &mut *conn.prepare_cached(&table.select(""))?, [])?;
            } else if !ranges.pieces.is_empty() {
                table.seal(conn, ranges)?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, [Ranges; TABLES.len()]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rowids, first and last of those that follow on each other: as a rule they do, and then this does not grow.
#[derive(Debug, Default)]
struct Ranges {
    pieces: Vec<(i64, i64)>,
    /// Rows that were deleted. Another one may have got the rowid of one.
    deleted: u64,
    /// Seals that were dropped with such a row.
    dropped: u64,
}

impl Ranges {
    fn add(&mut self, rowid: i64) {
        match self.pieces.last_mut() {
            Some((first, last)) if (*first..=last.saturating_add(1)).contains(&rowid) => {
                *last = rowid.max(*last);
            }
            _ => self.pieces.push((rowid, rowid)),
        }
    }

    fn into_sorted(mut self) -> Vec<(i64, i64)> {
        self.pieces.sort_unstable();
        self.pieces.dedup_by(|(first, last), before| {
            let follows = *first <= before.1.saturating_add(1);
            if follows {
                before.1 = before.1.max(*last);
            }
            follows
        });
        self.pieces
    }
}

/// Seals every row that there is, as it is. At the end of a migration: what was altered before that is not found any more.
pub(super) fn everything(conn: &Connection) -> Result<(), Error> {
    conn.execute("DELETE FROM seals", [])?;
    let mut exists = conn.prepare("SELECT 1 FROM sqlite_master WHERE name = ?1")?;
    for table in &TABLES {
        // In a step of the ladder those of a later version are not there yet.
        if table.name == NUMBERS || exists.exists([table.name])? {
            let mut rows = conn.prepare(&table.select("ORDER BY rowid"))?;
            table.put(conn, &mut rows, [])?;
        }
    }
    seal_fingerprints(conn)
}

/// Drops the seals of an instance's rows, which are about to get another name.
pub(super) fn drop_instance(conn: &Connection, instance: &str) -> Result<(), Error> {
    // Its name, or its name and a space: `!` is what follows on a space, and no name has either.
    let mut drop =
        conn.prepare("DELETE FROM seals WHERE of = ?1 AND key >= ?2 AND key < ?2 || '!'")?;
    for table in &TABLES {
        if let Key::OfInstance(_) = table.key {
            drop.execute([table.name, instance])?;
        }
    }
    Ok(())
}

impl Table {
    /// Key, cells and seal of every row.
    pub(super) fn with_seals(&self) -> String {
        let (name, cells, key) = (self.name, self.cells, self.key());
        format!(
            "SELECT {key}, {cells}, (SELECT seal FROM seals WHERE of = '{name}' AND seals.key = {key}) FROM {name}"
        )
    }

    /// The keys of seals without a row.
    pub(super) fn without_rows(&self) -> String {
        let (name, key) = (self.name, self.key());
        format!(
            "SELECT key FROM seals WHERE of = '{name}' AND key NOT IN (SELECT {key} FROM {name}) ORDER BY key"
        )
    }

    fn select(&self, condition: &str) -> String {
        let (name, cells, key) = (self.name, self.cells, self.key());
        format!("SELECT {key}, {cells} FROM {name} {condition}")
    }

    fn key(&self) -> String {
        match self.key {
            // The plus takes the column's affinity away, so that the key of `seals` is found by index.
            Key::Number => format!("+{}.rowid", self.name),
            Key::OfInstance(key) | Key::Other(key) => key.to_owned(),
        }
    }

    fn seal(&self, conn: &Connection, ranges: Ranges) -> Result<(), Error> {
        let piece = "rowid BETWEEN ?1 AND ?2";
        let mut rows = conn.prepare_cached(&self.select(&format!("WHERE {piece}")))?;
        // A row that goes by its columns leaves its seal behind, also where another one took its rowid.
        let any_left = ranges.deleted > ranges.dropped && !matches!(self.key, Key::Number);
        for (first, last) in ranges.into_sorted() {
            let sealed = self.put(conn, &mut rows, [first, last])?;
            let any_gone = sealed <= last.abs_diff(first);
            if any_gone && matches!(self.key, Key::Number) {
                let name = self.name;
                conn.prepare_cached(&format!(
                    "DELETE FROM seals WHERE of = '{name}' AND key BETWEEN ?1 AND ?2
                         AND key NOT IN (SELECT rowid FROM {name} WHERE {piece})"
                ))?
                .execute([first, last])?;
            }
        }
        if any_left {
            // Rows of a few small tables go, and seldom.
            let gone = self.without_rows();
            conn.execute(
                &format!("DELETE FROM seals WHERE of = ?1 AND key IN ({gone})"),
                [self.name],
            )?;
        }
        Ok(())
    }

    /// Seals the rows of a statement; returns how many.
    fn put(
        &self,
        conn: &Connection,
        rows: &mut Statement<'_>,
        bound: impl Params,
    ) -> Result<u64, Error> {
        let mut put = conn.prepare_cached(PUT)?;
        let n_cells = rows.column_count() - 1;
        let mut rows = rows.query(bound)?;
        let mut n_rows = 0;
        while let Some(row) = rows.next()? {
            let key = ToSqlOutput::Borrowed(row.get_ref(0)?);
            put.execute(params![self.name, key, self.seal_of(row, n_cells)?])?;
            n_rows += 1;
        }
        Ok(n_rows)
    }

    /// The seal of a row: a checksum of each cell, which tells the one that was altered, and a hash of them all.
    pub(super) fn seal_of(&self, row: &Row<'_>, n_cells: usize) -> rusqlite::Result<Vec<u8>> {
        let mut text = Text::of(self.name);
        let mut seal = Vec::with_capacity(n_cells + ROW_BYTES);
        for place in 1..=n_cells {
            let cell = text.add(row.get_ref(place)?);
            // Weak, and cheap: it tells every alteration of one byte, and one in 256 of the others it does not. That is told
            // by the hash, without the column.
            let checksum = |sum: u8, byte: &u8| sum.wrapping_mul(31).wrapping_add(*byte);
            seal.push(cell.iter().fold(0, checksum));
        }
        seal.extend_from_slice(&text.hash::<ROW_BYTES>());
        Ok(seal)
    }
}

/// The seal of a fingerprint: of it, of the transaction that wrote it, and of the record that its user's row is at. An old page of `fingerprints` would have
/// fingerprints of older content, and hide a change that goes back to it.
///
/// Without the instance, which a rename changes; nobody else's row is at the same record.
pub(super) fn tie(fingerprint: &[u8], tx: i64, id: &str, changed_seq: i64) -> [u8; 8] {
    let mut text = Text::of("fingerprints");
    text.add(ValueRef::Blob(fingerprint));
    text.add(ValueRef::Integer(tx));
    text.add(ValueRef::Text(id.as_bytes()));
    text.add(ValueRef::Integer(changed_seq));
    text.hash()
}

/// What is hashed of a row.
struct Text(Vec<u8>);

impl Text {
    fn of(table: &str) -> Self {
        let mut text = Vec::with_capacity(2048);
        text.extend_from_slice(DOMAIN);
        text.extend_from_slice(table.as_bytes());
        text.push(0);
        Self(text)
    }

    /// Adds a cell, and returns what was added. Type and length stand before each value, so that no two rows have one text.
    fn add(&mut self, cell: ValueRef<'_>) -> &[u8] {
        let (kind, number, bytes) = match cell {
            ValueRef::Null => (0, 0, &[][..]),
            ValueRef::Integer(number) => (1, number.cast_unsigned(), &[][..]),
            ValueRef::Real(number) => (2, number.to_bits(), &[][..]),
            ValueRef::Text(bytes) => (3, bytes.len() as u64, bytes),
            ValueRef::Blob(bytes) => (4, bytes.len() as u64, bytes),
        };
        let from = self.0.len();
        self.0.push(kind);
        self.0.extend_from_slice(&number.to_le_bytes());
        self.0.extend_from_slice(bytes);
        &self.0[from..]
    }

    fn hash<const N: usize>(&self) -> [u8; N] {
        let hash = Sha256::digest(&self.0);
        std::array::from_fn(|place| hash[place])
    }
}

fn seal_fingerprints(conn: &Connection) -> Result<(), Error> {
    let mut exists = conn.prepare("SELECT 1 FROM sqlite_master WHERE name = ?1")?;
    for (table, resource) in [("users", "User"), ("groups", "Group")] {
        if !exists.exists([table])? {
            continue;
        }
        let mut known = conn.prepare(&format!(
            "SELECT known.instance, known.id, fingerprint, changed_seq, tx
             FROM {table} AS known CROSS JOIN fingerprints -- in this order: `fingerprints` is written meanwhile
                 ON fingerprints.instance = known.instance AND resource = ?1 AND fingerprints.id = known.id"
        ))?;
        let mut put = conn.prepare(
            "UPDATE fingerprints SET seal = ?3 WHERE instance = ?1 AND resource = ?4 AND id = ?2",
        )?;
        let mut rows = known.query([resource])?;
        while let Some(row) = rows.next()? {
            let (id, fingerprint): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
            let tie = tie(&fingerprint, row.get(4)?, &id, row.get(3)?);
            let instance = ToSqlOutput::Borrowed(row.get_ref(0)?);
            put.execute(params![instance, id, tie, resource])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::Value;

    use super::super::testing::{World, titled};
    use super::*;

    #[tokio::test]
    async fn every_table_with_rowids_is_sealed() {
        let world = World::new().await;
        let reader = world.reader();
        let mut tables = reader
            .conn
            .prepare(
                "SELECT name FROM pragma_table_list
                 WHERE schema = 'main' AND type = 'table' AND wr = 0 AND name <> 'sqlite_schema' ORDER BY name",
            )
            .unwrap();
        let tables: Vec<String> = tables
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let mut sealed = TABLES.map(|table| table.name);
        sealed.sort_unstable();
        assert_eq!(tables, sealed);
    }

    #[tokio::test]
    async fn whatever_is_written_and_removed_is_sealed_at_the_commit() {
        let mut world = World::new().await;
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss")])
            .await;
        const REJECT: &str = "INSERT INTO rejects VALUES ('acme', 'User', 'k1', '', '', '', ''),
                                  ('acme', 'User', 'k2', '', '', '', ''), ('acme', 'User', 'k3', '', '', '', '')";
        for sql in [
            REJECT,
            "DELETE FROM rejects WHERE key = 'k2'",
            "DELETE FROM rejects WHERE key = 'k3'; INSERT INTO rejects VALUES ('acme', 'User', 'k3b', '', '', '', '')",
            "DELETE FROM rejects WHERE key = 'k3b'; INSERT INTO rejects VALUES ('acme', 'User', 'k3', '', '', '', '')",
            "UPDATE rejects SET key = 'k4' WHERE key = 'k3'; DELETE FROM rejects WHERE key = 'k4'",
            "INSERT INTO syncs SELECT 9, instance, resource, mode, trigger, started_at, finished_at, outcome, certificate,
                 seen, created, updated, deactivated, held, rejected, requests, retries, bytes, throttled_ms, error
             FROM syncs; UPDATE sqlite_sequence SET seq = 9",
            "DELETE FROM syncs WHERE id = 9",
            "UPDATE users SET first_seen_at = first_seen_at; UPDATE users SET created_at = '2020' WHERE id = 'b'",
        ] {
            let written = world.mirror.write(move |writer| {
                writer.conn.execute_batch(sql)?;
                Ok(())
            });
            written.await.unwrap();
            assert_eq!(world.difference(), None, "{sql}");
        }
    }

    #[test]
    fn rows_that_follow_on_each_other_are_one_range() {
        let mut ranges = Ranges::default();
        for rowid in [7, 8, 9, 8, 3, 10, 4, i64::MAX, i64::MAX, i64::MIN] {
            ranges.add(rowid);
        }
        assert_eq!(
            ranges.into_sorted(),
            [(i64::MIN, i64::MIN), (3, 4), (7, 10), (i64::MAX, i64::MAX)]
        );
    }

    fn cell() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            (-2..3_i64).prop_map(Value::Integer),
            (-2..3_i8).prop_map(|number| Value::Real(number.into())),
            "[ab\u{0}\u{3}]{0,3}".prop_map(Value::Text),
            proptest::collection::vec(0..4_u8, 0..3).prop_map(Value::Blob),
        ]
    }

    proptest! {
        #[test]
        fn no_two_rows_have_one_text(
            one in proptest::collection::vec(cell(), 0..4),
            other in proptest::collection::vec(cell(), 0..4),
        ) {
            let [one_text, other_text] = [&one, &other].map(|row| {
                let mut text = Text::of("t");
                for cell in row {
                    text.add(cell.into());
                }
                text.0
            });
            prop_assert_eq!(one == other, one_text == other_text);
        }

        #[test]
        fn any_rows_are_in_a_range_once(rowids in proptest::collection::vec(-9..9_i64, 0..20)) {
            let mut ranges = Ranges::default();
            rowids.iter().for_each(|rowid| ranges.add(*rowid));
            let within: Vec<i64> = ranges.into_sorted().into_iter().flat_map(|(first, last)| first..=last).collect();
            let expected: Vec<i64> = rowids.into_iter().collect::<std::collections::BTreeSet<_>>().into_iter().collect();
            prop_assert_eq!(within, expected);
        }
    }
}
