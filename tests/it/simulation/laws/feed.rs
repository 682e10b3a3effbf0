//! The feed is dense, what was read of it stays, and it adds up to the mirror (promises P2 and P3).

use std::ops::RangeInclusive;

use rusqlite::{Connection, Row};
use serde_json::Value;

use super::super::watch::Seen;
use super::{Folded, Law, Laws, Record, broken, time};

const RECORD: &str =
    "seq, sync_id, instance, id, kind, reason, changed, after, proof, hold_id, observed_at";

impl Laws {
    /// Reads the new records. Returns their numbers.
    pub(super) fn read_feed(&mut self, conn: &Connection, seen: &Seen) -> Law<RangeInclusive<i64>> {
        let (epoch, first, last): (String, i64, i64) = conn
            .query_row("SELECT epoch, first_seq, last_seq FROM feed", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        let known = self.records.len() as i64;
        if self.epoch.get_or_insert_with(|| epoch.clone()) != &epoch {
            return broken("the epoch stays", epoch);
        }
        if last < known || first < self.first_seq {
            return broken(
                "the feed only grows",
                format!(
                    "from {first} to {last}, was from {} to {known}",
                    self.first_seq
                ),
            );
        }
        if first > self.first_seq && first > known + 1 {
            return broken(
                "what is trimmed was readable",
                format!("{first} after {known}"),
            );
        }
        self.first_seq = first;
        let mut rows = conn
            .prepare_cached(&format!(
                "SELECT {RECORD} FROM changes WHERE seq > ?1 ORDER BY seq"
            ))
            .unwrap();
        let rows: Vec<Record> = rows
            .query_map([known], record)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for row in rows {
            self.found
                .push((self.checks, seen.requests[&row.instance].len()));
            self.add(row)?;
        }
        if self.records.len() as i64 != last {
            return broken(
                "the feed is dense",
                format!("{} records up to {last}", self.records.len()),
            );
        }
        for seq in known + 1..=last {
            self.mirrored(conn, seq)?;
        }
        if known < last {
            self.nobody_else(conn)?;
        }
        Ok(known + 1..=last)
    }

    fn add(&mut self, record: Record) -> Law {
        let expected = self.records.len() as i64 + 1;
        if record.seq != expected {
            return broken(
                "the feed is dense",
                format!("{} where {expected} comes", record.seq),
            );
        }
        if let Some(last) = self.records.last()
            && last.observed_at > record.observed_at
        {
            return broken("`observed_at` never goes back", format!("{record:?}"));
        }
        self.fold(&record)?;
        self.records.push(record);
        Ok(())
    }

    fn fold(&mut self, record: &Record) -> Law {
        let key = (record.instance.clone(), record.id.clone());
        let before = self.folded.get(&key);
        let after: Value = serde_json::from_str(&record.after).unwrap();
        let folded = Folded {
            seq: record.seq,
            after: record.after.clone(),
            active: after["active"] == true,
            is_gone: is_gone_by(record),
        };
        let was_active = before.is_some_and(|before| before.active);
        let fits = match record.kind.as_str() {
            "create" => before.is_none() && record.changed.is_none(),
            "update" => before.is_some() && (folded.active || !was_active),
            "deactivate" => was_active && !folded.active,
            _ => false,
        };
        if !fits {
            return broken(
                "a record is what its kind says",
                format!("{record:?} after {before:?}"),
            );
        }
        self.folded.insert(key, folded);
        Ok(())
    }

    /// The mirror has what the newest record of a user says.
    fn mirrored(&self, conn: &Connection, seq: i64) -> Law {
        let record = self.record(seq);
        let folded = &self.folded[&(record.instance.clone(), record.id.clone())];
        if folded.seq != seq {
            return Ok(());
        }
        let row = conn
            .prepare_cached(
                "SELECT changed_seq, attributes, active, gone_at IS NOT NULL FROM users
                 WHERE instance = ?1 AND id = ?2",
            )
            .unwrap()
            .query_row([&record.instance, &record.id], |row| {
                Ok(Folded {
                    seq: row.get(0)?,
                    after: row.get(1)?,
                    active: row.get(2)?,
                    is_gone: row.get(3)?,
                })
            });
        if row.as_ref() == Ok(folded) {
            return Ok(());
        }
        broken(
            "the feed adds up to the mirror",
            format!("{record:?}: {folded:?}, but {row:?}"),
        )
    }

    fn nobody_else(&self, conn: &Connection) -> Law {
        let users: i64 = conn
            .query_row("SELECT count(*) FROM users", [], |row| row.get(0))
            .unwrap();
        if users == self.folded.len() as i64 {
            return Ok(());
        }
        broken(
            "the feed adds up to the mirror",
            format!("{users} users, {} in the feed", self.folded.len()),
        )
    }

    /// What was read before is there still.
    pub(super) fn reread(&self, conn: &Connection) -> Law {
        let mut rows = conn
            .prepare_cached(&format!("SELECT {RECORD} FROM changes ORDER BY seq"))
            .unwrap();
        for row in rows.query_map([], record).unwrap() {
            let row = row.unwrap();
            let known = self.records.get(usize::try_from(row.seq - 1).unwrap());
            if known.is_some_and(|known| *known != row) {
                return broken(
                    "a `seq` is never issued again",
                    format!("{known:?}, now {row:?}"),
                );
            }
        }
        Ok(())
    }

    /// Somebody of the mirror, as the feed adds up.
    pub(super) fn folded(&self, instance: &str, id: &str) -> Option<&Folded> {
        self.folded.get(&(instance.to_owned(), id.to_owned()))
    }
}

/// Whether a record says that the instance does not show the user any more.
pub(super) fn is_gone_by(record: &Record) -> bool {
    let Some(changed) = record
        .changed
        .as_ref()
        .filter(|text| text.contains("gone_at"))
    else {
        return false;
    };
    let changed: Value = serde_json::from_str(changed).unwrap();
    changed["gone_at"]["to"].is_string()
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        seq: row.get(0)?,
        sync_id: row.get(1)?,
        instance: row.get(2)?,
        id: row.get(3)?,
        kind: row.get(4)?,
        reason: row.get(5)?,
        changed: row.get(6)?,
        after: row.get(7)?,
        proof: row.get(8)?,
        hold_id: row.get(9)?,
        observed_at: time(&row.get::<_, String>(10)?),
    })
}
