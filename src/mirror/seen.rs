//! Which of the known users a crawl has seen: a bit a user, by rowid.
//!
//! 125 KB a million users, and a nanosecond a user where a row in a table takes a microsecond. Kept in chunks, so that
//! saving writes only what changed, and a rowid far away costs one chunk.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::error::Error;

/// Users in a chunk of 4 KiB.
const CHUNK_USERS: i64 = 8 * CHUNK_BYTES as i64;
const CHUNK_BYTES: usize = 4096;

/// The table in the stage.
pub(super) const TABLE: &str = "
    CREATE TABLE seen (
        chunk INTEGER NOT NULL PRIMARY KEY, -- rowid of the user / 32768
        bits  BLOB    NOT NULL -- 4096 bytes; the lowest bit of the first byte is the lowest rowid
    );
";

/// The bits.
#[derive(Debug, Default)]
pub(super) struct Seen {
    chunks: BTreeMap<i64, Chunk>,
    ones: u64,
}

#[derive(Debug)]
struct Chunk {
    bits: Box<[u8]>,
    unsaved: bool,
}

impl Seen {
    /// Reads what [`Seen::save`] wrote; `None` when that cannot be.
    pub(super) fn load(conn: &Connection) -> Result<Option<Self>, Error> {
        let mut seen = Self::default();
        let mut statement = conn.prepare("SELECT chunk, bits FROM seen")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let bits: Box<[u8]> = row.get(1)?;
            if bits.len() != CHUNK_BYTES {
                return Ok(None);
            }
            seen.ones += bits
                .iter()
                .map(|byte| u64::from(byte.count_ones()))
                .sum::<u64>();
            let unsaved = false;
            seen.chunks.insert(row.get(0)?, Chunk { bits, unsaved });
        }
        Ok(Some(seen))
    }

    /// Writes the chunks that changed since the last time.
    pub(super) fn save(&mut self, conn: &Connection) -> Result<(), Error> {
        let mut statement = conn.prepare_cached(
            "INSERT INTO seen (chunk, bits) VALUES (?1, ?2)
             ON CONFLICT (chunk) DO UPDATE SET bits = excluded.bits",
        )?;
        for (number, chunk) in self.chunks.iter_mut().filter(|(_, chunk)| chunk.unsaved) {
            statement.execute(params![number, chunk.bits])?;
            chunk.unsaved = false;
        }
        Ok(())
    }

    /// Marks a user as seen. Returns whether that is new.
    pub(super) fn set(&mut self, rowid: i64) -> bool {
        let (number, byte, bit) = place(rowid);
        let chunk = self.chunks.entry(number).or_insert_with(|| Chunk {
            bits: vec![0; CHUNK_BYTES].into(),
            unsaved: true,
        });
        let new = chunk.bits[byte] & bit == 0;
        if new {
            chunk.bits[byte] |= bit;
            chunk.unsaved = true;
            self.ones += 1;
        }
        new
    }

    /// Whether a user was seen.
    pub(super) fn has(&self, rowid: i64) -> bool {
        let (number, byte, bit) = place(rowid);
        self.chunks
            .get(&number)
            .is_some_and(|chunk| chunk.bits[byte] & bit != 0)
    }

    /// Users seen.
    pub(super) fn ones(&self) -> u64 {
        self.ones
    }
}

fn place(rowid: i64) -> (i64, usize, u8) {
    let within = usize::try_from(rowid.rem_euclid(CHUNK_USERS)).unwrap_or_default();
    (rowid.div_euclid(CHUNK_USERS), within / 8, 1 << (within % 8))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_that_survives(
            before in proptest::collection::vec(prop_oneof![0i64..100_000, any::<i64>()], 0..50),
            after in proptest::collection::vec(0i64..100_000, 0..50),
        ) {
            let conn = Connection::open_in_memory().unwrap();
            conn.execute_batch(TABLE).unwrap();
            let (mut model, mut seen) = (BTreeSet::new(), Seen::default());
            for rowid in before {
                prop_assert_eq!(seen.set(rowid), model.insert(rowid));
            }
            seen.save(&conn).unwrap();
            let mut seen = Seen::load(&conn).unwrap().unwrap();
            for rowid in after {
                prop_assert_eq!(seen.has(rowid), model.contains(&rowid));
                prop_assert_eq!(seen.set(rowid), model.insert(rowid));
            }
            seen.save(&conn).unwrap();
            let seen = Seen::load(&conn).unwrap().unwrap();
            prop_assert_eq!(seen.ones(), model.len() as u64);
            prop_assert!(model.iter().all(|rowid| seen.has(*rowid)));
        }
    }
}
