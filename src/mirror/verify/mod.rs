//! Whether the mirror is what was written, and what its feed folds to.
//!
//! Everything is read as streams, of one state of the mirror: memory stays flat.

mod database;
mod halves;
mod holds;
mod identities;
mod memberships;
mod pair;
mod seals;
mod sequence;
mod users;

use rusqlite::ErrorCode;

use self::halves::Verification;
use super::error::Error;
use super::read::Reader;
use crate::model::{Foreign, ResourceType};

/// What `verify` looked at.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Verified {
    /// Rows of `users` compared.
    pub users: u64,
    /// Records folded, `changes_base` included.
    pub records: u64,
    /// The first difference: in which table, which row, and which column or path where that is known. No value of a
    /// user is in it. `None` when all is well.
    pub difference: Option<String>,
}

impl Reader {
    /// How many rows [`Reader::verify`] looks at where it finds no difference.
    ///
    /// # Errors
    /// Of the database.
    pub fn rows_to_verify(&self) -> Result<u64, Error> {
        // Each row has a seal; that of a record and that of a user is looked at again in the feed.
        let rows = self.conn.query_row(
            "SELECT (SELECT count(*) FROM seals) + (SELECT count(*) FROM users) + (SELECT count(*) FROM groups)
                    + (SELECT count(*) FROM memberships) + (SELECT count(*) FROM fingerprints)
                    + (SELECT last_seq - first_seq + 1 FROM feed)",
            [],
            |row| row.get::<_, i64>(0),
        )?;
        Ok(u64::try_from(rows).unwrap_or_default())
    }

    /// Verifies; `progress` is called now and then with the number of rows looked at so far, those that were looked at twice
    /// counted twice.
    ///
    /// One state of the mirror is read, whatever is committed meanwhile: by two threads, of which one reads on a connection of
    /// its own. Where that cannot be had, all is read on this one.
    ///
    /// What it proves:
    /// * Each row of each table is one that musterd wrote, in every cell, and none is missing: altered by hand, lost
    ///   with a page that was never written, or put back from an older page. Each row has a seal on another page.
    /// * The feed is dense and in order, and its last `seq` is `feed.last_seq`; ids that are given out are none that were.
    /// * The feed folds to `users`, `groups` and `memberships`: every attribute, and every column that is computed from them; and to
    ///   `identities`.
    /// * Each profile of the list stands in `identities`, and its keys and those of users are in the tables that are searched.
    /// * What is counted, held and known by its fingerprint agrees with that.
    /// * `SQLite` finds every page, index and constraint sound.
    ///
    /// What it cannot prove, because the file is all that it has:
    /// * That the file is the newest one. An older copy of all of it is sound; readers tell it by `feed.epoch` and `feed.last_seq`.
    /// * That nobody who knows how made new seals for what he altered. They are hashes, and not signed.
    /// * That what was there when a migration sealed it had been sound; and, of the table `fingerprints`, that none is missing:
    ///   without one, a user is read once more.
    ///
    /// # Errors
    /// Of the database; a difference is a result, and so is a damaged database.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Verified, Error> {
        let (_snapshot, second) = pair::begin(self)?;
        let shared = halves::Shared::default();
        let mut verification = Verification::new(self, progress, &shared);
        let found = match second {
            Some(second) => verification.run_beside(second),
            None => verification.run_alone(),
        };
        let difference = match found {
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

fn differ<T>(difference: String) -> Result<T, Stop> {
    Err(Stop::Difference(difference))
}

/// A user, a group or a membership, for people. An id is the instance's own name for somebody, and says nothing of the person.
fn named_as(resource: ResourceType, instance: &str, id: &str) -> String {
    format!(
        "{} `{}` of `{}`",
        resource.noun(),
        Foreign(id),
        Foreign(instance)
    )
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
    use rusqlite::Connection;

    use super::super::folded::RECORDS;
    use super::super::testing::{World, plan_of, strict, titled, user};
    use super::super::{seal, users};
    use super::*;

    async fn three_users() -> World {
        let mut world = World::new().await;
        let left = user(
            "c",
            "2026-01-01T00:00:00Z",
            r#","title":"Clerk","active":false"#,
        );
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss"), left])
            .await;
        world
            .sync(&[titled("a", "Chief"), titled("b", "Boss")])
            .await;
        world
    }

    async fn three_held() -> World {
        let mut world = World::new().await;
        world.limits = strict();
        let users = ["a", "b", "c"];
        world.sync(&users.map(|id| titled(id, "x"))).await;
        let inactive = |id| user(id, "2026-01-01T00:00:00Z", r#","active":false,"title":"x""#);
        world.sync(&users.map(inactive)).await;
        world
    }

    /// What `verify` says when the file was altered, and when somebody sealed it after that as well.
    fn differences(world: &World, damage: &str) -> [Option<String>; 2] {
        let conn = Connection::open(world.path()).unwrap();
        conn.execute_batch(damage).unwrap();
        let found = world.difference();
        if damage.contains("INDEX") {
            return [found.clone(), found];
        }
        seal::everything(&conn).unwrap();
        [found, world.difference()]
    }

    #[tokio::test]
    async fn all_is_well_and_counted() {
        for (world, users, records) in [(three_users().await, 3, 5), (three_held().await, 3, 3)] {
            let mut told = Vec::new();
            let verified = world.reader().verify(&mut |rows| told.push(rows)).unwrap();
            assert_eq!(
                (verified.users, verified.records, verified.difference),
                (users, records, None)
            );
            assert_eq!(told, [world.reader().rows_to_verify().unwrap()]);
            assert!(told[0] > users + records);
        }
    }

    #[tokio::test]
    async fn streams_are_not_sorted_and_seals_are_found_by_index() {
        let world = three_users().await;
        let conn = &world.reader().conn;
        let plan = plan_of(conn, RECORDS);
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
        for table in &seal::TABLES {
            let plan = plan_of(conn, &table.with_seals());
            assert!(plan.contains("(of=? AND key=?)"), "{plan}");
        }
    }

    #[tokio::test]
    async fn a_cell_of_a_user_is_named() {
        let world = three_users().await;
        let conn = Connection::open(world.path()).unwrap();
        conn.execute_batch("CREATE TEMP TABLE kept AS SELECT * FROM users WHERE id = 'a'")
            .unwrap();
        for column in users::COLUMNS {
            if ["instance", "id"].contains(&column) {
                continue;
            }
            let value = match column {
                "active" => "0",
                "changed_seq" => "1",
                "attributes" => "replace(attributes, 'Chief', 'Thief')",
                _ => "'other'",
            };
            let alter = format!("UPDATE users SET {column} = {value} WHERE id = 'a'");
            let [found, resealed] = differences(&world, &alter);
            let (found, is_told) = (found.unwrap(), column != "created_at");
            assert!(found.contains(&format!("column `{column}`")), "{found}");
            assert!(found.contains('a') && !found.contains("hief"), "{found}");
            assert_eq!(resealed.is_some(), is_told, "{column}");
            let resealed = resealed.unwrap_or_default();
            assert!(!is_told || resealed.starts_with("user `a` of `acme`: column `"));
            assert_eq!(
                resealed.contains("(at `title`)"),
                column == "attributes",
                "{resealed}"
            );
            conn.execute_batch(&format!(
                "UPDATE users SET {column} = (SELECT {column} FROM kept) WHERE id = 'a'"
            ))
            .unwrap();
            seal::everything(&conn).unwrap();
            assert_eq!(world.difference(), None);
        }
    }

    #[tokio::test]
    async fn every_other_difference_is_named() {
        const NEW: &str = "INSERT INTO users (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)";
        let esc = "('acme', '0\u{1b}[31m', 1, '{}', '', '', 1)";
        for (damage, expected, resealed) in [
            (
                "DELETE FROM users WHERE id = 'a'",
                "`users`: row `acme a` is missing",
                "user `a` of `acme`: in the feed, but not in the mirror",
            ),
            (
                "DELETE FROM users WHERE id = 'c'",
                "`users`: row `acme c` is missing",
                "user `c` of `acme`: in the feed, but not in the mirror",
            ),
            (
                "UPDATE users SET id = 'aa' WHERE id = 'a'",
                "`users`, row `acme aa`: it was not written",
                "user `a` of `acme`: in the feed, but not in the mirror",
            ),
            (
                &format!("{NEW} VALUES {esc}"),
                "`users`, a row: it was not written",
                "user `0\\u{1b}[31m` of `acme`: in the mirror, but not in the feed",
            ),
            (
                &format!("{NEW} VALUES ('acme', 'z', 1, '{{}}', '', '', 1)"),
                "row `acme z`",
                "user `z` of `acme`: in the mirror, but not in the feed",
            ),
            (
                "DELETE FROM changes WHERE seq = 2",
                "`changes`: row `2` is missing",
                "the feed has record 3 where 2 should follow",
            ),
            (
                "DELETE FROM changes WHERE seq = 5",
                "`changes`: row `5` is missing",
                "the feed ends with record 4, but `feed.last_seq` is 5",
            ),
            (
                "UPDATE feed SET last_seq = 9",
                "`feed`, row `1`: column `last_seq`",
                "the feed ends with record 5, but `feed.last_seq` is 9",
            ),
            (
                "UPDATE changes SET observed_at = '2020' WHERE seq = 5",
                "`changes`, row `5`: column `observed_at`",
                "record 5 of the feed was observed before",
            ),
            (
                "INSERT INTO changes_base SELECT * FROM changes WHERE seq = 1",
                "`changes_base`, row `acme User a`: it was not written",
                "`changes_base` has record 1",
            ),
            (
                "UPDATE changes SET kind = 'create' WHERE seq = 4",
                "`changes`, row `4`: column `kind`",
                "user `a` of `acme`: record 4 creates",
            ),
            (
                "UPDATE source_counts SET living = 9",
                "`source_counts`, row `acme User`: column `living`",
                "`acme` has 2 living users, 2 of them active",
            ),
            (
                "INSERT INTO fingerprints VALUES ('acme', 'User', 'c', x'00', 1, x'00')",
                "user `c` of `acme` has a fingerprint",
                "user `c` of `acme` has a fingerprint",
            ),
            (
                "UPDATE changes SET resource = 'Robot' WHERE id = 'a'",
                "column `resource`",
                "unknown resource `Robot`",
            ),
            (
                "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'syncs'",
                "`sqlite_sequence`, row `syncs`: column `seq`",
                "1 is the last number of `syncs`, but 2",
            ),
            (
                "UPDATE sqlite_sequence SET seq = 9 WHERE name = 'syncs'",
                "`sqlite_sequence`, row `syncs`: column `seq`",
                "",
            ),
            (
                "INSERT INTO sqlite_sequence VALUES ('changes', 9)",
                "`sqlite_sequence`, row `changes`: it was not written",
                "",
            ),
            (
                "UPDATE changes SET hold_id = 7 WHERE seq = 4",
                "`changes`, row `4`: column `hold_id`",
                "record 4 of the feed names hold 7, but was not released from it",
            ),
            (
                "DROP INDEX users_by_email",
                "the index `users_by_email` is missing or altered",
                "the index",
            ),
            (
                "DELETE FROM feed",
                "`feed`: row `1` is missing",
                "the database cannot be read",
            ),
            // Nothing but a seal tells these.
            (
                "UPDATE fingerprints SET fingerprint = x'00' WHERE id = 'b'",
                "user `b` of `acme`: the fingerprint",
                "",
            ),
            (
                "UPDATE sources SET watermark = '2030-01-01T00:00:00Z'",
                "`sources`, row `acme User`: column `watermark`",
                "",
            ),
            (
                "UPDATE changes SET changed = '{}' WHERE seq = 4",
                "row `4`: column `changed`",
                "",
            ),
            (
                "UPDATE changes SET proof = CAST(proof AS BLOB) WHERE seq = 5",
                "row `5`: column `proof`",
                "",
            ),
            (
                "DELETE FROM syncs WHERE id = 1",
                "`syncs`: row `1` is missing",
                "",
            ),
            (
                "UPDATE instances SET url = url || '/'",
                "`instances`, row `acme`: column `url`",
                "",
            ),
            (
                "DELETE FROM seals WHERE of = 'pins'",
                "`pins`, row `acme`: it was not written by musterd, or its seal is lost",
                "",
            ),
            // What stands in the place of a key may be anybody's address.
            (
                "INSERT INTO pins (instance, scim_path) VALUES ('ada@example.com', '/x')",
                "`pins`, a row: it was not written by musterd",
                "",
            ),
            (
                "INSERT INTO source_counts (instance, resource) VALUES ('acme', 'ada@example.com')",
                "`source_counts`, a row: it was not written by musterd",
                "",
            ),
            (
                "UPDATE seals SET seal = CAST(substr(seal, 1, length(seal) - 1) || x'00' AS BLOB) WHERE of = 'pins'",
                "`pins`, row `acme`: it is not what was written, and its checksums do not tell which column",
                "",
            ),
            (
                "UPDATE seals SET seal = x'00' WHERE of = 'pins'",
                "`pins`, row `acme`: it is not sealed as it is",
                "",
            ),
            (
                "INSERT INTO seals VALUES ('robots', 1, x'00')",
                "`robots`, which is no table",
                "",
            ),
        ] {
            let world = three_users().await;
            let [found, anew] = differences(&world, damage);
            let (found, anew) = (found.unwrap(), anew.unwrap_or_default());
            assert!(found.contains(expected), "{damage}: {found}");
            assert!(anew.contains(resealed), "{damage}: {anew}");
            assert_eq!(anew.is_empty(), resealed.is_empty(), "{damage}: {anew}");
        }
    }

    /// Which half is faster does not decide.
    #[tokio::test]
    async fn the_first_of_two_differences_is_named_and_what_was_compared_before() {
        let world = three_users().await;
        let conn = Connection::open(world.path()).unwrap();
        let verified = || world.reader().verify(&mut |_| {}).unwrap();
        // SQLite's check, which is the last, finds a user neither active nor inactive.
        conn.execute_batch(
            "PRAGMA ignore_check_constraints = ON; UPDATE users SET active = 7 WHERE id = 'b'",
        )
        .unwrap();
        seal::everything(&conn).unwrap();
        let difference = verified().difference.unwrap();
        assert!(difference.contains("column `active`"), "{difference}");
        conn.execute_batch("DELETE FROM changes WHERE seq = 1")
            .unwrap();
        for expected in ["row `1` is missing", "record 2 where 1 should follow"] {
            let Verified {
                users,
                records,
                difference,
            } = verified();
            let difference = difference.unwrap();
            assert!(difference.contains(expected), "{difference}");
            assert_eq!((users, records), (0, 0));
            seal::everything(&conn).unwrap();
        }
    }

    #[tokio::test]
    async fn a_hold_that_was_altered_is_named() {
        let world = three_held().await;
        for (damage, expected, resealed) in [
            (
                "UPDATE hold_changes SET id = 'z' WHERE id = 'a'",
                "row `1 User z`",
                "digest",
            ),
            (
                "DELETE FROM hold_changes WHERE id = 'a'",
                "row `1 User a` is missing",
                "digest",
            ),
            (
                "UPDATE hold_changes SET path = 'all' WHERE id = 'a'",
                "column `path`",
                "digest",
            ),
            (
                "UPDATE holds SET count = 4",
                "`holds`, row `1`: column `count`",
                "count",
            ),
            (
                "UPDATE holds SET state = 'resolved'",
                "column `state`",
                "3 are held",
            ),
            (
                "UPDATE hold_changes SET state = 'resolved'",
                "column `state`",
                "0 are held",
            ),
            (
                "DELETE FROM holds",
                "`holds`: row `1` is missing",
                "not in `holds`",
            ),
            (
                "UPDATE hold_changes SET after = '{}' WHERE id = 'b'",
                "row `1 User b`: column `after`",
                "",
            ),
        ] {
            let path = world.dir.path().join("copy.db");
            let copy = path.to_str().unwrap();
            Connection::open(world.path())
                .unwrap()
                .execute("VACUUM INTO ?1", [copy])
                .unwrap();
            let conn = Connection::open(&path).unwrap();
            let difference = || {
                Reader::open(&path)
                    .unwrap()
                    .verify(&mut |_| {})
                    .unwrap()
                    .difference
            };
            assert_eq!(difference(), None);
            conn.execute_batch(damage).unwrap();
            let found = difference().unwrap();
            assert!(found.contains(expected), "{damage}: {found}");
            seal::everything(&conn).unwrap();
            let anew = difference().unwrap_or_default();
            assert!(anew.contains(resealed), "{damage}: {anew}");
            assert_eq!(anew.is_empty(), resealed.is_empty(), "{damage}: {anew}");
            drop(conn);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
