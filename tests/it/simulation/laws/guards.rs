//! What exceeds a guard is held, by the exact set that a person then approves (promise P5, contract
//! sections 4 and 7). The counts are made anew from the feed.

use std::ops::RangeInclusive;

use jiff::{SignedDuration, Timestamp};
use musterd::model::membership;
use rusqlite::{Connection, OptionalExtension as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::super::plan::MemberGuard;
use super::feed::is_gone_by;
use super::{Hold, Key, Law, Laws, MEMBERSHIP, Record, USER, broken, source_of};

impl Laws {
    /// Reads the holds, and looks whether each is what it says.
    pub(super) fn read_holds(&mut self, conn: &Connection) -> Law {
        let mut rows = conn
            .prepare_cached(
                "SELECT id, instance, sync_id, guard, count, digest, state, attribute,
                        (SELECT resource FROM hold_changes WHERE hold_id = holds.id LIMIT 1)
                 FROM holds ORDER BY id",
            )
            .unwrap();
        let rows: Vec<(i64, Hold)> = rows
            .query_map([], |row| {
                let hold = Hold {
                    instance: row.get(1)?,
                    sync_id: row.get(2)?,
                    guard: row.get(3)?,
                    count: row.get(4)?,
                    digest: row.get(5)?,
                    state: row.get(6)?,
                    attribute: row.get(7)?,
                    source: source_of(&row.get::<_, String>(8)?).to_owned(),
                };
                Ok((row.get(0)?, hold))
            })
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (id, hold) in rows {
            match self.holds.get(&id) {
                None => is_exact(conn, id, &hold)?,
                Some(known) => {
                    let same = known.count == hold.count && known.digest == hold.digest;
                    let forward = known.state == "open" || known.state == hold.state;
                    if !same || !forward {
                        return broken("a hold only closes", format!("{known:?}, now {hold:?}"));
                    }
                }
            }
            if hold.state == "open" {
                keeps_the_old(conn, id, &hold)?;
            }
            self.holds.insert(id, hold);
        }
        self.read_held(conn);
        Ok(())
    }

    /// Reads who is held. Who came into a hold and left it since the last look counts as one who was.
    fn read_held(&mut self, conn: &Connection) {
        let mut rows = conn
            .prepare_cached(
                "SELECT instance, hold_changes.resource, hold_changes.id, hold_id, hold_changes.state = 'held'
                 FROM hold_changes JOIN holds ON holds.id = hold_id
                 WHERE hold_changes.state = 'held' OR hold_id > ?1",
            )
            .unwrap();
        let rows = rows.query_map([self.newest_hold], |row| {
            let who: Key = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((who, row.get(3)?, row.get(4)?))
        });
        let [now, before] = &mut self.held;
        *before = std::mem::take(now);
        for row in rows.unwrap() {
            let (who, hold_id, is_held): (_, i64, bool) = row.unwrap();
            match is_held {
                true => now.insert(who),
                false => before.insert(who),
            };
            self.newest_hold = self.newest_hold.max(hold_id);
        }
    }

    /// Notes which of these records are of somebody of whom something was held when they were written.
    pub(super) fn note_held(&mut self, records: RangeInclusive<i64>) {
        for seq in records {
            let record = self.record(seq);
            let key = record.key();
            if self.is_or_was_held(&key) {
                self.beside_hold.insert(seq);
            }
        }
    }

    /// Whether something of a user is held, or was at the last check.
    pub(super) fn is_or_was_held(&self, key: &Key) -> bool {
        self.held.iter().any(|held| held.contains(key))
    }

    /// A record that nobody approved is within the guards, and not of an instance that may be another.
    pub(super) fn guarded(&self, conn: &Connection, seq: i64) -> Law {
        let record = self.record(seq);
        if let Some(hold_id) = record.hold_id {
            return self.was_approved(conn, record, hold_id);
        }
        let waits = self.holds.values().any(|hold| {
            hold.guard == "source_changed"
                && hold.state == "open"
                && (&*hold.instance, &*hold.source) == (&*record.instance, record.source())
                && hold.sync_id < record.sync_id
        });
        if waits {
            return broken("another directory writes nothing", format!("{record:?}"));
        }
        if record.resource == MEMBERSHIP {
            return self.may_lose_members(conn, record);
        }
        let guard = self.instances[&record.instance].guard;
        let limit = MemberGuard {
            at_least: guard.at_least,
            count: guard.count,
            percent: guard.percent,
            window_hours: guard.window_hours,
        };
        if record.kind == "deactivate" {
            self.is_within(
                conn,
                record,
                limit,
                &|one| one.kind == "deactivate",
                &|_, active| active,
            )?;
        }
        for path in blanked(record) {
            let blanks = |one: &Record| blanked(one).contains(&path);
            self.is_within(conn, record, limit, &blanks, &|_, _| true)?;
        }
        Ok(())
    }

    /// What was held is written once, by the hold that it was released from, and is the change that was held.
    fn was_approved(&self, conn: &Connection, record: &Record, hold_id: i64) -> Law {
        const LAW: &str = "what was held is released by its hold";
        let hold = self.holds.get(&hold_id);
        let Some(hold) = hold.filter(|hold| hold.instance == record.instance) else {
            return broken(LAW, format!("{record:?}: {hold:?}"));
        };
        let change: Option<(String, String)> = conn
            .prepare_cached(
                "SELECT path, state FROM hold_changes
                 WHERE hold_id = ?1 AND resource = ?2 AND id = ?3",
            )
            .unwrap()
            .query_row((hold_id, &record.resource, &record.id), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
            .unwrap();
        let is_taken_over = hold.guard == "source_changed";
        let is_the_change = match (&*hold.guard, &change) {
            // What is taken over is what the next full sync finds. It is settled with the end of that one.
            ("source_changed", change) => {
                hold.state == "approved"
                    && change.as_ref().is_none_or(|(_, state)| state != "resolved")
            }
            ("memberships" | "group_memberships", Some((path, state))) => {
                let group = record.membership().map(|[group, _]| group);
                state == "released"
                    && path == "all"
                    && record.reason == "removed"
                    && (hold.guard == "memberships" || hold.attribute == group)
            }
            ("deactivations", Some((path, state))) => {
                state == "released"
                    && ["active", "all"].contains(&path.as_str())
                    && record.kind == "deactivate"
            }
            (_, Some((path, state))) => state == "released" && blanked(record).contains(path),
            (_, None) => false,
        };
        let is_first = is_taken_over
            || !self.records.iter().any(|other| {
                other.seq < record.seq
                    && other.hold_id == record.hold_id
                    && (&other.resource, &other.id) == (&record.resource, &record.id)
            });
        if is_the_change && is_first && is_taken_over == (record.reason == "source_changed") {
            return Ok(());
        }
        broken(LAW, format!("{change:?}: {record:?}: {hold:?}"))
    }

    /// Who was released from a hold is in the feed, by it or by another directory that was taken over.
    pub(super) fn is_released(&self, conn: &Connection) -> Law {
        let mut rows = conn
            .prepare_cached(
                "SELECT hold_id, resource, id, path FROM hold_changes WHERE state = 'released'",
            )
            .unwrap();
        let rows = rows.query_map([], |row| {
            let [resource, id, path]: [String; 3] = [row.get(1)?, row.get(2)?, row.get(3)?];
            Ok((row.get(0)?, resource, id, path))
        });
        for row in rows.unwrap() {
            let (hold_id, resource, id, path): (i64, _, _, _) = row.unwrap();
            let hold = &self.holds[&hold_id];
            let is_written = self.records.iter().any(|record| {
                let by = record.hold_id.and_then(|by| self.holds.get(&by));
                (&record.instance, &record.resource, &record.id) == (&hold.instance, &resource, &id)
                    && (record.hold_id == Some(hold_id)
                        || by.is_some_and(|by| by.guard == "source_changed"))
            });
            if !is_written {
                return broken(
                    "what is released is in the feed",
                    format!("{resource} {id} {path}: {hold:?}"),
                );
            }
        }
        Ok(())
    }

    /// So many like this record are within the window as the guard lets through.
    pub(super) fn is_within(
        &self,
        conn: &Connection,
        record: &Record,
        guard: MemberGuard,
        alike: &dyn Fn(&Record) -> bool,
        counts: &dyn Fn(&str, bool) -> bool,
    ) -> Law {
        let began = record.observed_at - SignedDuration::from_hours(guard.window_hours.into());
        let n = self
            .records
            .iter()
            .rev()
            .skip_while(|one| one.seq > record.seq)
            .take_while(|one| one.observed_at > began)
            .filter(|one| {
                (&one.instance, &one.resource) == (&record.instance, &record.resource)
                    && one.hold_id.is_none()
                    && alike(one)
            })
            .count() as u64;
        if n <= guard.at_least {
            return Ok(());
        }
        let users = self.users_at(conn, record, began, counts);
        if n > guard.count || n * 100 > guard.percent * users {
            return broken(
                "what exceeds a guard is held",
                format!("{n} of {users} since {began}: {record:?}: {guard:?}"),
            );
        }
        Ok(())
    }

    /// How many users count, or groups or memberships where the record is of one, when a window began or at the baseline, whichever
    /// is later.
    fn users_at(
        &self,
        conn: &Connection,
        counted: &Record,
        began: Timestamp,
        counts: &dyn Fn(&str, bool) -> bool,
    ) -> u64 {
        let baseline_at: Option<String> = conn
            .query_row(
                "SELECT baseline_at FROM sources WHERE instance = ?1 AND resource = ?2",
                [&*counted.instance, counted.source()],
                |row| row.get(0),
            )
            .unwrap();
        let began = baseline_at.map_or(began, |at| began.max(super::time(&at)));
        let mut users = std::collections::BTreeMap::new();
        for record in &self.records {
            if (&record.instance, &record.resource) == (&counted.instance, &counted.resource)
                && (record.observed_at <= began || record.reason == "baseline")
            {
                let after: Value = serde_json::from_str(&record.after).unwrap();
                let active = after["active"] == true;
                users.insert(
                    &record.id,
                    !is_gone_by(record) && counts(&record.id, active),
                );
            }
        }
        users.values().filter(|counted| **counted).count() as u64
    }
}

/// The attributes that a record empties; of a reference, its label's column, and nothing else of it.
fn blanked(record: &Record) -> Vec<String> {
    let Some(changed) = &record.changed else {
        return Vec::new();
    };
    let changed: serde_json::Map<String, Value> = serde_json::from_str(changed).unwrap();
    let turns_empty = |path: &str| {
        changed
            .get(path)
            .is_some_and(|change| change["to"].is_null() && !change["from"].is_null())
    };
    let is_empty = |path: &str| {
        changed
            .get(path)
            .is_none_or(|change| change["to"].is_null())
    };
    let blanked: Vec<String> = changed
        .keys()
        .filter(|path| {
            let id = format!("{path}_id");
            path.as_str() != "gone_at"
                // The id's column stands for itself in nothing.
                && !path.ends_with("_id")
                && match changed.contains_key(&id) {
                    true => is_empty(path) && is_empty(&id) && (turns_empty(path) || turns_empty(&id)),
                    false => turns_empty(path),
                }
        })
        .cloned()
        .collect();
    // A label in another spelling is no attribute by itself: what counts is the column.
    let is_part_of_reference = |path: &str| {
        if record.resource != USER {
            // No reference of a group that the instance shows is a column.
            return false;
        }
        let name = path.rsplit(':').next().unwrap_or_default();
        let references = ["department", "manager", "costCenter", "company", "location"];
        path.contains(':') && references.contains(&name.split('.').next().unwrap_or_default())
    };
    let alone = blanked.iter().filter(|path| !is_part_of_reference(path));
    alone.cloned().collect()
}

/// A new hold has the count and the digest of its set.
fn is_exact(conn: &Connection, id: i64, hold: &Hold) -> Law {
    let mut rows = conn
        .prepare_cached("SELECT resource, id, path FROM hold_changes WHERE hold_id = ?1")
        .unwrap();
    let mut lines: Vec<String> = rows
        .query_map([id], |row| {
            let [resource, id, path]: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            Ok(format!("{resource} {id} {path}\n"))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    lines.sort();
    let digest = Sha256::digest(lines.concat());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if lines.len() as i64 == hold.count && digest == hold.digest && hold.count > 0 {
        return Ok(());
    }
    broken("a hold names its exact set", format!("{lines:?}: {hold:?}"))
}

/// While a change is held the mirror has the old value.
fn keeps_the_old(conn: &Connection, id: i64, hold: &Hold) -> Law {
    if hold.guard == "source_changed" {
        return Ok(());
    }
    let mut rows = conn
        .prepare_cached(
            "SELECT resource, id, path FROM hold_changes WHERE hold_id = ?1 AND state = 'held'",
        )
        .unwrap();
    let rows = rows.query_map([id], |row| {
        let [resource, id, path]: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
        Ok((resource, id, path))
    });
    for row in rows.unwrap() {
        let (resource, id, path) = row.unwrap();
        let state = state_of(conn, &hold.instance, &resource, &id);
        let keeps = match (hold.guard.as_str(), &state) {
            ("deactivations" | "memberships" | "group_memberships", state) => {
                *state == Some((true, false))
            }
            (_, Some((_, is_gone))) => {
                !is_gone && has_value(conn, &hold.instance, table_of(&resource), &id, &path)
            }
            (_, None) => false,
        };
        if !keeps {
            return broken(
                "what is held keeps its old value",
                format!("{resource} {id} {path}: {state:?}: {hold:?}"),
            );
        }
    }
    Ok(())
}

fn table_of(resource: &str) -> &'static str {
    match resource {
        USER => "users",
        _ => "groups",
    }
}

/// Whether somebody is active, or a membership lives, and whether he is gone.
fn state_of(conn: &Connection, instance: &str, resource: &str, id: &str) -> Option<(bool, bool)> {
    let (sql, ids) = match resource {
        MEMBERSHIP => (
            "SELECT ended_at IS NULL, ended_at IS NOT NULL FROM memberships
             WHERE instance = ?1 AND group_id = ?2 AND member_id = ?3"
                .to_owned(),
            membership::parts(id).unwrap(),
        ),
        _ => (
            format!(
                "SELECT active, gone_at IS NOT NULL FROM {} WHERE instance = ?1 AND id = ?2 AND ?3 = ''",
                table_of(resource)
            ),
            [id.to_owned(), String::new()],
        ),
    };
    conn.prepare_cached(&sql)
        .unwrap()
        .query_row((instance, &ids[0], &ids[1]), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .unwrap()
}

/// Whether a user has a value in a column; for what is not one, nobody looks.
fn has_value(conn: &Connection, instance: &str, table: &str, id: &str, path: &str) -> bool {
    let is_name = path.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let sql = format!(
        "SELECT coalesce({path}, {path}_id) IS NOT NULL FROM {table} WHERE instance = ?1 AND id = ?2"
    );
    let plain = format!("SELECT {path} IS NOT NULL FROM {table} WHERE instance = ?1 AND id = ?2");
    if !is_name {
        return true;
    }
    let statement = conn.prepare(&sql).or_else(|_| conn.prepare(&plain));
    statement.is_ok_and(|mut statement| {
        statement
            .query_row([instance, id], |row| row.get(0))
            .unwrap_or(false)
    }) || conn.prepare(&plain).is_err()
}
