//! Folds the feed and compares it with the mirror, and checks the database.
//!
//! Everything is read as streams in the order of keys and side by side, in one snapshot: memory stays flat.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{ErrorCode, Row};

use super::column::whole;
use super::error::Error;
use super::feed::Feed;
use super::folded::{RECORDS, Records, Resource, same};
use super::holding::HoldDigest;
use super::read::Reader;
use super::{migrate, users};
use crate::model::user::TEXT_COLUMNS;
use crate::model::{Foreign, ResourceType, UserColumns};
use crate::reconcile::fold::Folded;
use crate::reconcile::guard;
use crate::reconcile::mapping::user_columns;

/// What `verify` looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Rows of `users` compared.
    pub users: u64,
    /// Records folded, `changes_base` included.
    pub records: u64,
    /// The first difference in words a person can act on; `None` when all is well.
    pub difference: Option<String>,
}

impl Reader {
    /// Verifies; `progress` is called now and then with the number of resources compared.
    ///
    /// # Errors
    /// Of the database; a difference is a result, and so is a damaged database.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Verified, Error> {
        let _snapshot = self.conn.unchecked_transaction()?;
        let mut verification = Verification {
            reader: self,
            users: 0,
            records: 0,
            counts: BTreeMap::new(),
        };
        let difference = match verification.run(progress) {
            Ok(()) => None,
            Err(Stop::Difference(difference)) => Some(difference),
            Err(Stop::Failed(error)) => return Err(error),
        };
        Ok(Verified {
            users: verification.users,
            records: verification.records,
            difference,
        })
    }
}

/// Why a verification ends early.
enum Stop {
    Difference(String),
    Failed(Error),
}

/// How often progress is told, in resources.
const PROGRESS_EVERY: u64 = 4096;

/// The longest piece of a value that a difference shows, in characters.
const SHOWN_CHARS: usize = 200;

struct Verification<'a> {
    reader: &'a Reader,
    users: u64,
    records: u64,
    /// Living and active users by instance, as counted on the way.
    counts: BTreeMap<String, (i64, i64)>,
}

impl Verification<'_> {
    fn run(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), Stop> {
        if let Some(difference) = migrate::schema_difference(&self.reader.conn)? {
            return Err(Stop::Difference(difference));
        }
        let feed = self.reader.feed()?;
        self.check_feed(&feed)?;
        self.check_users(progress)?;
        self.check_counts()?;
        self.check_fingerprints()?;
        self.check_holds()?;
        self.check_database()
    }

    /// `seq` is dense from `first_seq` to `last_seq`, `observed_at` never goes back, and what was trimmed is older.
    fn check_feed(&self, feed: &Feed) -> Result<(), Stop> {
        let mut changes = self
            .reader
            .conn
            .prepare("SELECT seq, observed_at FROM changes ORDER BY seq")?;
        let mut rows = changes.query([])?;
        let mut next = feed.first_seq;
        let mut newest = String::new();
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if seq != next {
                return differ(format!(
                    "the feed has record {seq} where {next} should follow"
                ));
            }
            let observed_at = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
            if observed_at < newest.as_str() {
                return differ(format!(
                    "record {seq} of the feed was observed at {}, before the one in front of it ({newest})",
                    Foreign(observed_at)
                ));
            }
            newest.clear();
            newest.push_str(observed_at);
            next += 1;
        }
        if next != feed.last_seq + 1 {
            return differ(format!(
                "the feed ends with record {}, but `feed.last_seq` is {}",
                next - 1,
                feed.last_seq
            ));
        }
        let mut base = self
            .reader
            .conn
            .prepare("SELECT seq FROM changes_base WHERE seq >= ?1 LIMIT 1")?;
        if let Some(row) = base.query([feed.first_seq])?.next()? {
            let seq: i64 = row.get(0)?;
            return differ(format!(
                "`changes_base` has record {seq}, but `feed.first_seq` is {}",
                feed.first_seq
            ));
        }
        Ok(())
    }

    /// Each user is what its records fold to, in every column that they decide, and each record has its user.
    fn check_users(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), Stop> {
        let mut users = self.reader.conn.prepare(&format!(
            "SELECT {} FROM users ORDER BY instance, id",
            users::COLUMNS.join(", ")
        ))?;
        let mut users = users.query([])?;
        let checks = checks();
        let mut records = self.reader.conn.prepare(RECORDS)?;
        let mut records = Records::start(records.query([])?)?;
        while let Some(resource) = records.next()? {
            self.records += resource.records;
            let Resource { instance, id, .. } = &resource;
            let named = format!("user `{}` of `{}`", Foreign(id), Foreign(instance));
            if resource.kind != ResourceType::User.as_str() {
                return differ(format!(
                    "the feed has records of an unknown resource `{}`",
                    Foreign(&resource.kind)
                ));
            }
            let Some(row) = users.next()? else {
                return differ(format!("{named}: in the feed, but not in the mirror"));
            };
            let found: [String; 2] = [row.get(0)?, row.get(1)?];
            if (&found[0], &found[1]) != (instance, id) {
                let is_missing = (&found[0], &found[1]) > (instance, id);
                return differ(if is_missing {
                    format!("{named}: in the feed, but not in the mirror")
                } else {
                    let [instance, id] = &found;
                    format!(
                        "user `{}` of `{}`: in the mirror, but not in the feed",
                        Foreign(id),
                        Foreign(instance)
                    )
                });
            }
            let folded = resource
                .folded
                .map_err(|why| Stop::Difference(format!("{named}: {why}")))?;
            let columns = user_columns(&folded.canonical).map_err(|why| {
                Stop::Difference(format!(
                    "{named}: the feed's last state does not map: {why}"
                ))
            })?;
            compare(&named, row, &checks, &folded, &columns)?;
            let counts = self.counts.entry(resource.instance).or_default();
            counts.0 += i64::from(folded.gone_at.is_none());
            counts.1 += i64::from(folded.active);
            self.users += 1;
            if self.users.is_multiple_of(PROGRESS_EVERY) {
                progress(self.users);
            }
        }
        if let Some(row) = users.next()? {
            let [instance, id]: [String; 2] = [row.get(0)?, row.get(1)?];
            return differ(format!(
                "user `{}` of `{}`: in the mirror, but not in the feed",
                Foreign(&id),
                Foreign(&instance)
            ));
        }
        progress(self.users);
        Ok(())
    }

    fn check_counts(&self) -> Result<(), Stop> {
        let mut statement = self.reader.conn.prepare(
            "SELECT name, coalesce(living, 0), coalesce(active, 0) FROM instances
             LEFT JOIN source_counts ON instance = name AND resource = ?1",
        )?;
        let mut rows = statement.query([ResourceType::User.as_str()])?;
        let mut counts = self.counts.clone();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let kept: (i64, i64) = (row.get(1)?, row.get(2)?);
            let (living, active) = counts.remove(&name).unwrap_or_default();
            if kept != (living, active) {
                return differ(format!(
                    "`{}` has {living} living users, {active} of them active, but `source_counts` says {} and {}",
                    Foreign(&name),
                    kept.0,
                    kept.1
                ));
            }
        }
        match counts.into_keys().next() {
            Some(name) => differ(format!(
                "`{}` has users, but is not in `instances`",
                Foreign(&name)
            )),
            None => Ok(()),
        }
    }

    /// A fingerprint without a living user would hide that this user is missing.
    fn check_fingerprints(&self) -> Result<(), Stop> {
        let mut statement = self.reader.conn.prepare(
            "SELECT instance, id FROM fingerprints WHERE resource = ?1 AND NOT EXISTS
                 (SELECT 1 FROM users
                  WHERE users.instance = fingerprints.instance AND users.id = fingerprints.id AND gone_at IS NULL)
             LIMIT 1",
        )?;
        if let Some(row) = statement.query([ResourceType::User.as_str()])?.next()? {
            let [instance, id]: [String; 2] = [row.get(0)?, row.get(1)?];
            return differ(format!(
                "user `{}` of `{}` has a fingerprint, but is gone or missing",
                Foreign(&id),
                Foreign(&instance)
            ));
        }
        Ok(())
    }

    /// Each hold has the exact set that it was opened with, its state says whether somebody is held still, and the mirror
    /// keeps the old value of whoever is.
    fn check_holds(&self) -> Result<(), Stop> {
        let mut holds = self.reader.conn.prepare(
            "SELECT id, guard, state, count, digest FROM holds
             UNION ALL SELECT DISTINCT hold_id, '', '', 0, '' FROM hold_changes WHERE hold_id NOT IN (SELECT id FROM holds)
             ORDER BY 1",
        )?;
        let mut rows = holds.query([])?;
        while let Some(row) = rows.next()? {
            let (id, kept): (i64, i64) = (row.get(0)?, row.get(3)?);
            let [guard, state, digest]: [String; 3] = [row.get(1)?, row.get(2)?, row.get(4)?];
            if state.is_empty() {
                return differ(format!(
                    "`hold_changes` has rows of a hold {id} that is not in `holds`"
                ));
            }
            let (found, held) = self.held_of(id)?;
            if (whole(found.count), found.finish()) != (kept, digest) {
                return differ(format!(
                    "hold {id} has not the changes that it was opened with: count or digest differ"
                ));
            }
            // Of another directory that was approved, they are held until the next full sync.
            let may_be_held = state == "open" || (state == "approved" && guard == "source_changed");
            if (held == 0 && state == "open") || (held > 0 && !may_be_held) {
                return differ(format!(
                    "hold {id} is `{}`, but {held} are held",
                    Foreign(&state)
                ));
            }
        }
        self.check_held_values()
    }

    fn held_of(&self, hold_id: i64) -> Result<(HoldDigest, u64), Stop> {
        let mut changes = self.reader.conn.prepare(
            "SELECT resource, id, path, state FROM hold_changes
             WHERE hold_id = ?1 ORDER BY resource || ' ' || id || ' ' || path",
        )?;
        let (mut digest, mut held) = (HoldDigest::default(), 0);
        let mut rows = changes.query([hold_id])?;
        while let Some(row) = rows.next()? {
            let [resource, id, path, state]: [String; 4] =
                [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            digest.add(&resource, &id, &path);
            held += u64::from(state == "held");
        }
        Ok((digest, held))
    }

    fn check_held_values(&self) -> Result<(), Stop> {
        let mut held = self.reader.conn.prepare(
            "SELECT hold_id, holds.instance, hold_changes.id, path, users.active, users.attributes
             FROM hold_changes
             JOIN holds ON holds.id = hold_id AND holds.state = 'open' AND guard <> 'source_changed'
             LEFT JOIN users ON users.instance = holds.instance AND users.id = hold_changes.id
             WHERE hold_changes.state = 'held'",
        )?;
        let mut rows = held.query([])?;
        while let Some(row) = rows.next()? {
            let path: String = row.get(3)?;
            let (active, attributes): (Option<bool>, Option<String>) = (row.get(4)?, row.get(5)?);
            let has_value = match &*path {
                "active" | "all" => active == Some(true),
                path => attributes.is_some_and(|attributes| guard::has(&attributes, path)),
            };
            if !has_value {
                let (hold_id, instance, id): (i64, String, String) =
                    (row.get(0)?, row.get(1)?, row.get(2)?);
                return differ(format!(
                    "user `{}` of `{}` is in hold {hold_id}, but the mirror does not keep the old value of `{}`",
                    Foreign(&id),
                    Foreign(&instance),
                    Foreign(&path)
                ));
            }
        }
        Ok(())
    }

    /// SQLite's own check of pages, rows and indexes.
    fn check_database(&self) -> Result<(), Stop> {
        let found: String = self
            .reader
            .conn
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return differ(format!(
                "SQLite finds the file damaged: {}",
                Foreign(&found)
            ));
        }
        Ok(())
    }
}

/// What a column of `users` is compared with.
enum Check {
    /// The feed does not tell: keys, and `created_at`.
    Untold,
    Number(fn(&Folded) -> i64),
    Text(fn(&Folded) -> Option<&str>),
    /// The create record was trimmed.
    FirstSeen,
    /// The place in [`TEXT_COLUMNS`].
    Mapped(usize),
}

/// The checks of `users`' columns, in their order.
fn checks() -> Vec<Check> {
    let check = |name: &&str| match *name {
        "active" => Check::Number(|folded| i64::from(folded.active)),
        "changed_seq" => Check::Number(|folded| folded.changed_seq),
        "attributes" => Check::Text(|folded| Some(&folded.canonical)),
        "modified_at" => Check::Text(|folded| folded.modified_at.as_deref()),
        "changed_at" => Check::Text(|folded| Some(&folded.changed_at)),
        "gone_at" => Check::Text(|folded| folded.gone_at.as_deref()),
        "first_seen_at" => Check::FirstSeen,
        name => match TEXT_COLUMNS.iter().position(|column| *column == name) {
            Some(place) => Check::Mapped(place),
            None => Check::Untold,
        },
    };
    users::COLUMNS.iter().map(check).collect()
}

fn compare(
    named: &str,
    row: &Row<'_>,
    checks: &[Check],
    folded: &Folded,
    columns: &UserColumns,
) -> Result<(), Stop> {
    for (place, check) in checks.iter().enumerate() {
        let found = row.get_ref(place)?;
        let number: String;
        let (equal, expected) = match check {
            Check::Untold => continue,
            Check::Number(of) => {
                let expected = of(folded);
                number = expected.to_string();
                (found == ValueRef::Integer(expected), Some(number.as_str()))
            }
            Check::Text(of) => (same(found, of(folded)), of(folded)),
            Check::FirstSeen => match folded.first_seen_at.as_deref() {
                Some(at) => (same(found, Some(at)), Some(at)),
                None => continue,
            },
            Check::Mapped(column) => {
                let expected = columns.text[*column].as_deref();
                (same(found, expected), expected)
            }
        };
        if !equal {
            let found = match found {
                ValueRef::Null => None,
                ValueRef::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Integer(number) => Some(number.to_string()),
                other => Some(format!("{other:?}")),
            };
            let (found, expected) = excerpts(found.as_deref(), expected);
            return differ(format!(
                "{named}: column `{}` is {found} in the mirror, {expected} by the feed",
                users::COLUMNS[place]
            ));
        }
    }
    Ok(())
}

/// Two values from a little before where they differ, escaped for a terminal.
fn excerpts(one: Option<&str>, other: Option<&str>) -> (String, String) {
    let common = match (one, other) {
        (Some(one), Some(other)) => one
            .chars()
            .zip(other.chars())
            .take_while(|(one, other)| one == other)
            .count(),
        _ => 0,
    };
    let skipped = if common > SHOWN_CHARS / 2 {
        common - SHOWN_CHARS / 4
    } else {
        0
    };
    let show = |text: Option<&str>| match text {
        None => "empty".to_owned(),
        Some(text) => {
            let shown: String = text.chars().skip(skipped).take(SHOWN_CHARS).collect();
            let before = if skipped > 0 { "…" } else { "" };
            format!("`{before}{}`", Foreign(&shown))
        }
    };
    (show(one), show(other))
}

fn differ<T>(difference: String) -> Result<T, Stop> {
    Err(Stop::Difference(difference))
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Database(error) => error.into(),
            other => Self::Failed(other),
        }
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, InvalidColumnType, QueryReturnedNoRows};
        let is_damage = matches!(
            error,
            FromSqlConversionFailure(..) | InvalidColumnType(..) | QueryReturnedNoRows
        ) || matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        );
        if is_damage {
            let what = error.to_string();
            Self::Difference(format!("the database cannot be read: {}", Foreign(&what)))
        } else {
            Self::Failed(error.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, plan_of, titled, user};
    use super::*;

    async fn three_users() -> World {
        let mut world = World::new().await;
        let left = user(
            "c",
            "2026-01-01T00:00:00Z",
            r#","title":"Clerk","active":false"#,
        );
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss"), left.clone()])
            .await;
        world
            .sync(&[titled("a", "Chief"), titled("b", "Boss")])
            .await;
        world
    }

    #[tokio::test]
    async fn all_is_well_and_counted() {
        let world = three_users().await;
        let mut told = Vec::new();
        let verified = world
            .reader()
            .verify(&mut |users| told.push(users))
            .unwrap();
        assert_eq!(
            (verified.users, verified.records, verified.difference),
            (3, 5, None)
        );
        assert_eq!(told, [3]);
        let plan = plan_of(&world.reader().conn, RECORDS);
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }

    #[tokio::test]
    async fn every_column_is_compared() {
        let world = three_users().await;
        let untold = ["instance", "id", "created_at"];
        for column in users::COLUMNS
            .iter()
            .filter(|column| !untold.contains(column))
        {
            let value = match *column {
                "active" => "0",
                "changed_seq" => "1",
                "attributes" => "replace(attributes, 'Chief', 'Thief')",
                _ => "'other'",
            };
            let conn = rusqlite::Connection::open(world.path()).unwrap();
            conn.execute_batch(&format!(
                "CREATE TEMP TABLE old AS SELECT {column} AS value FROM users WHERE id = 'a'"
            ))
            .unwrap();
            conn.execute(
                &format!("UPDATE users SET {column} = {value} WHERE id = 'a'"),
                [],
            )
            .unwrap();
            let difference = world.difference().unwrap();
            assert!(
                difference.starts_with(&format!("user `a` of `acme`: column `{column}` is `")),
                "{difference}"
            );
            conn.execute(
                &format!("UPDATE users SET {column} = (SELECT value FROM old) WHERE id = 'a'"),
                [],
            )
            .unwrap();
            assert_eq!(world.difference(), None);
        }
    }

    #[tokio::test]
    async fn every_other_difference_is_named() {
        for (damage, expected) in [
            ("DELETE FROM users WHERE id = 'a'", "user `a` of `acme`: in the feed, but not in the mirror"),
            ("DELETE FROM users WHERE id = 'c'", "user `c` of `acme`: in the feed, but not in the mirror"),
            ("UPDATE users SET id = 'aa' WHERE id = 'a'", "user `a` of `acme`: in the feed, but not in the mirror"),
            (
                "INSERT INTO users (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)
                 VALUES ('acme', '0\u{1b}[31m', 1, '{}', '', '', 1)",
                "user `0\\u{1b}[31m` of `acme`: in the mirror, but not in the feed",
            ),
            (
                "INSERT INTO users (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)
                 VALUES ('acme', 'z', 1, '{}', '', '', 1)",
                "user `z` of `acme`: in the mirror, but not in the feed",
            ),
            ("DELETE FROM changes WHERE seq = 2", "the feed has record 3 where 2 should follow"),
            ("DELETE FROM changes WHERE seq = 5", "the feed ends with record 4, but `feed.last_seq` is 5"),
            ("UPDATE feed SET last_seq = 9", "the feed ends with record 5, but `feed.last_seq` is 9"),
            ("UPDATE changes SET observed_at = '2020' WHERE seq = 5", "record 5 of the feed was observed at 2020"),
            ("INSERT INTO changes_base SELECT * FROM changes WHERE seq = 1", "`changes_base` has record 1"),
            ("UPDATE changes SET kind = 'create' WHERE seq = 4", "user `a` of `acme`: record 4 creates"),
            ("UPDATE source_counts SET living = 9", "`acme` has 2 living users, 2 of them active"),
            ("INSERT INTO fingerprints VALUES ('acme', 'User', 'c', x'00')", "user `c` of `acme` has a fingerprint"),
            ("DROP INDEX users_by_email", "the index `users_by_email` is missing or altered"),
            ("DELETE FROM feed", "the database cannot be read"),
            ("UPDATE changes SET resource = 'Robot' WHERE id = 'a'", "unknown resource `Robot`"),
        ] {
            let world = three_users().await;
            let conn = rusqlite::Connection::open(world.path()).unwrap();
            conn.execute_batch(damage).unwrap();
            let difference = world.difference().unwrap();
            assert!(difference.contains(expected), "{damage}: {difference}");
        }
    }

    #[tokio::test]
    async fn a_hold_that_was_altered_is_named() {
        for (damage, expected) in [
            ("", ""),
            ("UPDATE hold_changes SET id = 'z' WHERE id = 'a'", "digest"),
            ("DELETE FROM hold_changes WHERE id = 'a'", "digest"),
            (
                "UPDATE hold_changes SET path = 'all' WHERE id = 'a'",
                "digest",
            ),
            ("UPDATE holds SET count = 4", "count"),
            ("UPDATE holds SET state = 'resolved'", "3 are held"),
            ("UPDATE hold_changes SET state = 'resolved'", "0 are held"),
            ("DELETE FROM holds", "not in `holds`"),
        ] {
            let mut world = World::new().await;
            world.limits = super::super::testing::strict();
            let users = ["a", "b", "c"];
            world.sync(&users.map(|id| titled(id, "x"))).await;
            let inactive = |id| user(id, "2026-01-01T00:00:00Z", r#","active":false,"title":"x""#);
            world.sync(&users.map(inactive)).await;
            let conn = rusqlite::Connection::open(world.path()).unwrap();
            conn.execute_batch(damage).unwrap();
            let difference = world.difference();
            assert_eq!(difference.is_some(), !damage.is_empty(), "{damage}");
            let difference = difference.unwrap_or_default();
            assert!(difference.contains(expected), "{damage}: {difference}");
        }
    }

    #[test]
    fn long_values_are_shown_where_they_differ() {
        let (one, other) = ("x".repeat(5000) + "a\nz", "x".repeat(5000) + "b");
        let (one, other) = excerpts(Some(&one), Some(&other));
        assert!(
            one.len() < 120 && one.starts_with("`…x") && one.ends_with("xa\\u{a}z`"),
            "{one}"
        );
        assert!(other.ends_with("xb`"), "{other}");
        assert_eq!(excerpts(None, Some("a")), ("empty".into(), "`a`".into()));
    }
}
