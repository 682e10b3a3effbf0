//! The ladder of schema versions over `user_version`: one transaction a step, forward only.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::error::Error;
use super::{backup, beside, connect, file, seal};

/// A step of the ladder.
#[derive(Clone, Copy)]
struct Step {
    sql: &'static str,
    /// Whether rows are others after it, or have no seal: then all are sealed in its transaction, as they are. That reads and hashes
    /// the whole file, and whatever was altered before is not found any more.
    seals: bool,
}

/// Each step leads to the version that is its place, counted from 1. A step that was released is never edited.
const STEPS: &[Step] = &[
    Step {
        sql: include_str!("migrations/0001_mirror_and_feed.sql"),
        // There is no table for them yet.
        seals: false,
    },
    Step {
        sql: include_str!("migrations/0002_seals.sql"),
        seals: true,
    },
    Step {
        sql: include_str!("migrations/0003_unlinked.sql"),
        // Only what may be written is another.
        seals: false,
    },
    Step {
        sql: include_str!("migrations/0004_manager_chains.sql"),
        // It adds an index and views.
        seals: false,
    },
    Step {
        sql: include_str!("migrations/0005_groups.sql"),
        // It adds tables that are empty, and what may be written is another.
        seals: false,
    },
    Step {
        sql: include_str!("migrations/0006_identities.sql"),
        // It adds tables, which are empty, and a view.
        seals: false,
    },
    Step {
        sql: include_str!("migrations/0007_imports.sql"),
        // It adds a table that is empty.
        seals: false,
    },
    Step {
        sql: include_str!("migrations/0008_changes_since.sql"),
        // It adds an index.
        seals: false,
    },
    Step {
        sql: include_str!("migrations/0009_checks_by_word.sql"),
        // What may be written is the same, and is said in other words; and it adds indexes.
        seals: false,
    },
];

/// The newest schema version.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Makes a new mirror. It gets its name when it is complete and on the disk, so that a crash leaves either nothing or a
/// whole one.
pub(super) fn create(path: &Path, epoch: &str) -> Result<(), Error> {
    let unborn = beside(path, "new");
    // We hold the lock: what lies there was left by a crash.
    file::remove(&unborn)?;
    file::remove(&file::companion(&unborn, "-journal"))?;
    file::create_new(&unborn, 0o640)?;
    let mut conn = Connection::open_with_flags(&unborn, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    conn.pragma_update(None, "page_size", connect::PAGE_BYTES)?;
    conn.pragma_update(None, "application_id", file::APPLICATION_ID)?;
    climb(&mut conn, STEPS)?;
    conn.execute(
        "INSERT INTO feed (epoch, first_seq, last_seq) VALUES (?1, 1, 0)",
        [epoch],
    )?;
    seal::everything(&conn)?;
    conn.close().map_err(|(_, error)| error)?;
    if let Some(log) = file::set_log_aside(path, &beside(path, &format!("{epoch}.orphaned-wal")))? {
        tracing::warn!(
            path = %log.display(),
            "a log lay where the mirror is made, and was moved aside: what was written last to a file that is gone may be in it"
        );
    }
    std::fs::rename(&unborn, path).map_err(Error::file("name the new mirror", path))?;
    file::sync_directory(path)
}

/// Brings an existing mirror up to the newest version, after a copy beside the file where space allows.
pub(super) fn migrate(conn: &mut Connection, path: &Path) -> Result<(), Error> {
    migrate_by(conn, path, STEPS)
}

/// The same without a copy: of a file that is one.
pub(super) fn climb_to_newest(conn: &mut Connection) -> Result<(), Error> {
    climb(conn, STEPS)
}

fn migrate_by(conn: &mut Connection, path: &Path, steps: &[Step]) -> Result<(), Error> {
    let target = steps.len();
    if connect::schema_version(conn)? < to_version(target) {
        copy_beside(conn, path, target)?;
        climb(conn, steps)?;
    }
    Ok(())
}

fn climb(conn: &mut Connection, steps: &[Step]) -> Result<(), Error> {
    for (place, step) in steps.iter().enumerate() {
        let version = to_version(place + 1);
        if connect::schema_version(conn)? >= version {
            continue;
        }
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(step.sql)?;
        if step.seals {
            seal::everything(&tx)?;
        }
        tx.pragma_update(None, "user_version", version)?;
        tx.commit()?;
    }
    Ok(())
}

/// `MIRROR.before-vN`, with the mode of the mirror. A full disk does not stop the migration, which needs less room.
fn copy_beside(conn: &Connection, path: &Path, target: usize) -> Result<(), Error> {
    let copy = beside(path, &format!("before-v{target}"));
    let unfinished = beside(path, "before-new");
    match backup::copy_as(conn, &copy, &unfinished) {
        Err(Error::Database(error))
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure)
            ) =>
        {
            tracing::warn!(%error, "no room for a copy of the mirror before its migration");
            Ok(())
        }
        copied => copied,
    }
}

/// The newest version, made in memory and without a row.
pub(super) fn in_memory() -> Result<Connection, Error> {
    let conn = Connection::open_in_memory()?;
    for step in STEPS {
        conn.execute_batch(step.sql)?;
    }
    Ok(conn)
}

fn to_version(steps: usize) -> i64 {
    i64::try_from(steps).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::schema;
    use super::super::testing::ROWS;
    use super::*;

    fn new_mirror() -> (tempfile::TempDir, std::path::PathBuf, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mirror.db");
        create(&path, "e").unwrap();
        let conn = connect::writer(&path).unwrap();
        (dir, path, conn)
    }

    fn step(sql: &'static str) -> Step {
        Step { sql, seals: true }
    }

    fn text(conn: &Connection, sql: &str) -> String {
        conn.query_row(sql, [], |row| row.get::<_, Option<String>>(0))
            .unwrap()
            .unwrap_or_default()
    }

    #[test]
    fn every_column_and_index_says_what_it_is_for() {
        for step in STEPS {
            let step = step.sql;
            for line in step.lines().filter(|line| line.starts_with("    ")) {
                let is_column =
                    line.contains(" TEXT") || line.contains(" INTEGER") || line.contains(" BLOB");
                assert!(
                    !is_column || line.contains("-- ") || line.contains("CAST("),
                    "{line}"
                );
            }
            for line in step
                .lines()
                .filter(|line| line.contains("CREATE") && line.contains("INDEX"))
            {
                assert!(line.contains("-- "), "{line}");
            }
            for newer in [
                "STRICT",
                "GENERATED",
                "->",
                "RETURNING",
                "unixepoch",
                "FILTER",
            ] {
                assert!(!step.contains(newer), "{newer} is newer than SQLite 3.26");
            }
        }
    }

    #[test]
    fn a_step_is_climbed_once_after_a_copy() {
        let (_dir, path, mut conn) = new_mirror();
        let steps = [STEPS, &[step("CREATE TABLE more (x)")]].concat();
        migrate_by(&mut conn, &path, &steps).unwrap();
        migrate_by(&mut conn, &path, &steps).unwrap();
        assert_eq!(connect::schema_version(&conn).unwrap(), VERSION + 1);
        conn.prepare("SELECT x FROM more").unwrap();

        let copy = beside(&path, &format!("before-v{}", VERSION + 1));
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        let copy = Connection::open(copy).unwrap();
        assert_eq!(connect::schema_version(&copy).unwrap(), VERSION);
        assert_eq!(text(&copy, "SELECT epoch FROM feed"), "e");
        assert!(!beside(&path, "before-new").exists());
    }

    #[test]
    fn a_step_that_fails_leaves_the_version_before_it() {
        let (_dir, path, mut conn) = new_mirror();
        let twice = "CREATE TABLE more (x); CREATE TABLE more (x)";
        let steps = [STEPS, &[step(twice)]].concat();
        migrate_by(&mut conn, &path, &steps).unwrap_err();
        assert_eq!(connect::schema_version(&conn).unwrap(), VERSION);
        assert!(conn.prepare("SELECT x FROM more").is_err());
    }

    #[test]
    fn the_step_to_version_3_touches_no_row_and_keeps_indexes_of_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mirror.db");
        let mut conn = Connection::open(&path).unwrap();
        climb(&mut conn, &STEPS[..2]).unwrap();
        let record = "INSERT INTO changes (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
                      VALUES (?1, 1, 'a', 'User', 'b', 'deactivate', ?2, '{}', 't')";
        let refused = |conn: &Connection, reason: &str| conn.execute(record, (9, reason)).is_err();
        assert!(refused(&conn, "unlinked"));
        conn.execute(record, (1, "gone")).unwrap();
        conn.execute_batch("CREATE INDEX theirs ON changes (kind)")
            .unwrap();
        seal::everything(&conn).unwrap();
        conn.execute("UPDATE changes SET id = 'altered'", [])
            .unwrap();
        let reading = Connection::open(&path).unwrap();
        // An index of a later step is another matter.
        let table = "SELECT group_concat(rootpage) FROM sqlite_master
                     WHERE name IN ('changes', 'changes_by_resource', 'changes_base')";
        let pages = text(&reading, table);
        climb(&mut conn, STEPS).unwrap();

        assert_eq!(text(&reading, table), pages, "where it was");
        assert_eq!(schema::difference(&reading).unwrap(), None);
        // Each text that was to be replaced was there.
        let schema = text(&reading, "SELECT group_concat(sql) FROM sqlite_master");
        for replaced in [
            "`unlinked`: removed from",
            "of `unlinked` a number",
            "`gone_at`, and stays.",
        ] {
            assert_eq!(schema.matches(replaced).count(), 1, "{replaced}");
        }
        // A row that was altered is not sealed as it is now.
        let sealed = "SELECT group_concat(hex(seal)) FROM seals WHERE of = 'changes'";
        let kept = text(&conn, sealed);
        conn.execute(record, (2, "unlinked")).unwrap();
        assert!(refused(&conn, "fired"));
        assert_eq!(text(&reading, "PRAGMA integrity_check"), "ok");
        seal::everything(&conn).unwrap();
        assert!(!text(&conn, sealed).starts_with(&kept));
    }

    #[test]
    fn the_step_to_version_5_lets_new_words_in_and_touches_no_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mirror.db");
        let mut conn = Connection::open(&path).unwrap();
        climb(&mut conn, &STEPS[..4]).unwrap();
        let record = |table: &str| {
            format!(
                "INSERT INTO {table} (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
                 VALUES (?1, 1, 'a', 'Membership', ?2, 'deactivate', ?3, '{{}}', 't')"
            )
        };
        let hold = "INSERT INTO holds (instance, sync_id, guard, count, limit_text, digest, state, opened_at)
                    VALUES ('a', 1, ?1, 1, 'l', 'd', 'open', 't')";
        for table in ["changes", "changes_base"] {
            conn.execute(&record(table), (1, "g/u", "removed"))
                .unwrap_err();
        }
        conn.execute(hold, ["memberships"]).unwrap_err();
        conn.execute(hold, ["blanking"]).unwrap();
        seal::everything(&conn).unwrap();
        conn.execute("UPDATE holds SET count = 2", []).unwrap();
        let sealed = "SELECT group_concat(hex(seal)) FROM seals WHERE of = 'holds'";
        let kept = text(&conn, sealed);
        climb(&mut conn, STEPS).unwrap();

        assert_eq!(schema::difference(&conn).unwrap(), None);
        // A row that was altered is not sealed as it is now.
        assert_eq!(text(&conn, sealed), kept);
        for table in ["changes", "changes_base"] {
            conn.execute(&record(table), (1, "g/u", "removed")).unwrap();
            conn.execute(&record(table), (2, "g/v", "fired"))
                .unwrap_err();
        }
        for guard in ["memberships", "group_memberships"] {
            conn.execute(hold, [guard]).unwrap();
        }
        conn.execute(hold, ["whims"]).unwrap_err();
        // Each text that was to be replaced was there.
        let schema = text(&conn, "SELECT group_concat(sql) FROM sqlite_master");
        for (replaced, times) in [
            ("`removed`: from a group;", 1),
            ("of a membership its columns", 1),
            ("of `group_memberships` the group's id", 1),
            ("the SCIM resource type: `User` or `Group`", 1),
            ("-- `User` or `Group`", 3),
            ("-- `User`, `Group` or `Membership`", 3),
            ("of a membership `GROUP/MEMBER`", 2),
            ("-- `User`\n", 0),
        ] {
            assert_eq!(schema.matches(replaced).count(), times, "{replaced}");
        }
        assert_eq!(text(&conn, "PRAGMA integrity_check"), "ok");
    }

    /// The words that a column may have, as an earlier version declares it.
    fn words_of(conn: &Connection, table: &str, column: &str) -> Vec<String> {
        let declared = text(
            conn,
            &format!("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = '{table}'"),
        );
        let (_, words) = declared
            .split_once(&format!("CHECK ({column} IN ("))
            .unwrap();
        let (words, _) = words.split_once(')').unwrap();
        let word = |word: &str| word.trim_matches([' ', '\'']).to_owned();
        words.split(',').map(word).collect()
    }

    #[test]
    fn the_step_to_version_9_allows_the_same_words_and_touches_no_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mirror.db");
        let mut conn = Connection::open(&path).unwrap();
        climb(&mut conn, &STEPS[..8]).unwrap();
        for row in ROWS {
            conn.execute(row, []).unwrap();
        }
        seal::everything(&conn).unwrap();
        let checked = [
            ("changes", "kind"),
            ("changes", "reason"),
            ("changes_base", "kind"),
            ("changes_base", "reason"),
            ("hold_changes", "kind"),
            ("hold_changes", "state"),
            ("groups", "members_known"),
            ("identities", "matched_by"),
            ("identities", "state"),
            ("identity_keys", "rule"),
            ("user_keys", "rule"),
        ];
        let words = checked.map(|(table, column)| words_of(&conn, table, column));
        let tables = checked.map(|(table, _)| format!("'{table}'")).join(", ");
        let pages =
            format!("SELECT group_concat(rootpage) FROM sqlite_master WHERE name IN ({tables})");
        let sealed = "SELECT group_concat(hex(seal)) FROM seals";
        let before = (text(&conn, &pages), text(&conn, sealed));
        climb(&mut conn, STEPS).unwrap();

        assert_eq!((text(&conn, &pages), text(&conn, sealed)), before);
        assert_eq!(text(&conn, "PRAGMA integrity_check"), "ok");
        for ((table, column), words) in checked.iter().zip(words) {
            assert!(words.len() > 2, "{table}.{column}: {words:?}");
            let set = format!("UPDATE {table} SET {column} = ?1");
            for word in words {
                assert_eq!(
                    conn.execute(&set, [&word]),
                    Ok(1),
                    "{table}.{column} = {word}"
                );
            }
            assert!(conn.execute(&set, ["whim"]).is_err(), "{table}.{column}");
        }
        let unlinked = "UPDATE changes_base SET reason = 'unlinked'";
        assert!(
            conn.execute(unlinked, []).is_err(),
            "trimming keeps none of these"
        );
    }
}
