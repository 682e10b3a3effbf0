//! The feed is dense, what was read of it stays, and it adds up to the mirror (promises P2 and P3).

use std::ops::RangeInclusive;

use rusqlite::{Connection, Row};
use serde_json::Value;

use super::super::watch::Seen;
use super::{Folded, GROUP, Law, Laws, MEMBERSHIP, Record, USER, broken, time};

const RECORD: &str = "seq, sync_id, instance, resource, id, kind, reason, changed, after, proof, hold_id, observed_at";

/// Of which tables the feed is the history, and what of a row is the newest record's.
const TABLES: [(&str, &str, &str); 3] = [
    (
        USER,
        "users",
        "SELECT changed_seq, attributes, active, gone_at IS NOT NULL FROM users
         WHERE instance = ?1 AND id = ?2 AND ?3 IS NULL",
    ),
    (
        GROUP,
        "groups",
        "SELECT changed_seq, attributes, active, gone_at IS NOT NULL FROM groups
         WHERE instance = ?1 AND id = ?2 AND ?3 IS NULL",
    ),
    (
        MEMBERSHIP,
        "memberships",
        "SELECT changed_seq,
                json_patch(json_object('active', json(iif(ended_at IS NULL, 'true', 'false')), 'group_id', group_id,
                                       'member_id', member_id, 'member_type', member_type),
                           json_object('label', label)),
                ended_at IS NULL, ended_at IS NOT NULL
         FROM memberships WHERE instance = ?1 AND group_id = ?2 AND member_id = ?3",
    ),
];

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
        let key = record.key();
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
            kind if record.resource == MEMBERSHIP => fits_a_membership(record, kind, before),
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
        let folded = &self.folded[&record.key()];
        if folded.seq != seq {
            return Ok(());
        }
        let mut tables = TABLES.iter();
        let table = tables.find(|(resource, ..)| *resource == record.resource);
        let Some((_, _, sql)) = table else {
            return broken("a record is of what is mirrored", format!("{record:?}"));
        };
        let bound = match record.membership() {
            Some([group, member]) => (&record.instance, group, Some(member)),
            None => (&record.instance, record.id.clone(), None),
        };
        let row = conn.prepare_cached(sql).unwrap().query_row(bound, |row| {
            Ok(Folded {
                seq: row.get(0)?,
                after: row.get(1)?,
                active: row.get(2)?,
                is_gone: row.get(3)?,
            })
        });
        let is_it = |row: &Folded| match record.resource.as_str() {
            // Its columns, in whatever order.
            MEMBERSHIP => {
                let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
                let columns = (value(&row.after), value(&folded.after));
                columns.0 == columns.1 && (row.seq, row.active) == (folded.seq, folded.active)
            }
            _ => row == folded,
        };
        if row.as_ref().is_ok_and(is_it) {
            return Ok(());
        }
        broken(
            "the feed adds up to the mirror",
            format!("{record:?}: {folded:?}, but {row:?}"),
        )
    }

    fn nobody_else(&self, conn: &Connection) -> Law {
        for (resource, table, _) in TABLES {
            let rows: i64 = conn
                .prepare_cached(&format!("SELECT count(*) FROM {table}"))
                .unwrap()
                .query_row([], |row| row.get(0))
                .unwrap();
            let of = |key: &&super::Key| key.1 == resource;
            let folded = self.folded.keys().filter(of).count() as i64;
            if rows != folded {
                return broken(
                    "the feed adds up to the mirror",
                    format!("{rows} {table}, {folded} in the feed"),
                );
            }
        }
        Ok(())
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

    /// Somebody of the mirror, or a group, as the feed adds up.
    pub(super) fn folded(&self, instance: &str, resource: &str, id: &str) -> Option<&Folded> {
        let key = [instance, resource, id].map(str::to_owned);
        self.folded.get(&key.into())
    }
}

/// A membership begins by a record and ends by one, and nothing else is told of it.
fn fits_a_membership(record: &Record, kind: &str, before: Option<&Folded>) -> bool {
    let lived = before.is_some_and(|before| before.active);
    let changed = record.changed.as_deref().unwrap_or_default();
    let lives = record.after.contains("\"active\":true");
    let [group, member] = record.membership().unwrap();
    let after: Value = serde_json::from_str(&record.after).unwrap();
    let is_its = after["group_id"] == *group && after["member_id"] == *member;
    is_its
        && match kind {
            "create" => {
                let comes_back = before.is_some();
                let reasons: &[&str] = match comes_back {
                    true => &["returned", "source_changed"],
                    false => &["baseline", "new", "source_changed"],
                };
                !lived && lives && changed.is_empty() && reasons.contains(&&*record.reason)
            }
            "deactivate" => {
                let reasons = ["removed", "gone", "source_changed"];
                lived
                    && !lives
                    && changed.contains("\"ended_at\"")
                    && record.proof.is_none()
                    && reasons.contains(&&*record.reason)
            }
            _ => false,
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
        resource: row.get(3)?,
        id: row.get(4)?,
        kind: row.get(5)?,
        reason: row.get(6)?,
        changed: row.get(7)?,
        after: row.get(8)?,
        proof: row.get(9)?,
        hold_id: row.get(10)?,
        observed_at: time(&row.get::<_, String>(11)?),
    })
}
