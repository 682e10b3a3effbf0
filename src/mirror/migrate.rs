//! The ladder of schema versions over `user_version`: one transaction a step, forward only.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use sha2::{Digest as _, Sha256};

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

/// What [`digest`] gives for a mirror of the newest version, to which nobody has added anything.
const DIGEST: &str = "5a66d72b5ae2858f28379b6a8832dcf24ccc6ec7c726e6cc07a9eb300d40124d";

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

/// The first object of ours that is missing or not as this program makes it, or a trigger, which we have none of: whoever
/// can write the file could otherwise change what our statements do. Indexes and tables that somebody added are theirs.
pub(super) fn schema_difference(conn: &Connection) -> Result<Option<String>, Error> {
    // Climbing the ladder to compare with it would be most of what opening a mirror takes.
    if digest(conn)? == DIGEST {
        return Ok(None);
    }
    let ours = Connection::open_in_memory()?;
    for step in STEPS {
        ours.execute_batch(step.sql)?;
    }
    let mut expected = ours.prepare(
        "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name",
    )?;
    let mut found =
        conn.prepare("SELECT 1 FROM sqlite_master WHERE type = ?1 AND name = ?2 AND sql = ?3")?;
    let mut rows = expected.query([])?;
    while let Some(row) = rows.next()? {
        let (kind, name, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if !found.exists((&kind, &name, &sql))? {
            return Ok(Some(format!("the {kind} `{name}` is missing or altered")));
        }
    }
    let mut triggers = conn.prepare("SELECT 1 FROM sqlite_master WHERE type = 'trigger'")?;
    Ok(triggers
        .exists([])?
        .then(|| "somebody added a trigger".into()))
}

/// A digest of all that a file declares, SQLite's own objects included; empty where something is declared by what is no text.
fn digest(conn: &Connection) -> Result<String, Error> {
    let mut objects = conn.prepare("SELECT type, name, sql FROM sqlite_master ORDER BY name")?;
    let mut objects = objects.query([])?;
    let mut digest = Sha256::new();
    while let Some(object) = objects.next()? {
        for place in 0..3 {
            // Whoever added an object may have typed it in any encoding.
            let text = match object.get_ref(place)? {
                ValueRef::Text(text) => text,
                ValueRef::Null => &[],
                _ => return Ok(String::new()),
            };
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        }
    }
    Ok(format!("{:x}", digest.finalize()))
}

fn to_version(steps: usize) -> i64 {
    i64::try_from(steps).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The contract's section 5, word for word.
    const CONTRACT: &[(&str, &str)] = &[
        ("feed", "epoch, first_seq, last_seq"),
        (
            "instances",
            "name, url, state, not_before, last_success_at, last_error, last_error_at, consecutive_failures",
        ),
        (
            "sources",
            "instance, resource, watermark, baseline_at, last_success_at, last_full_success_at, capabilities",
        ),
        (
            "users",
            "instance, id, external_id, user_name, active, display_name, given_name, family_name, email, title, \
             department_id, department, manager_id, manager, cost_center_id, cost_center, company_id, company, \
             location_id, location, employee_number, user_type, phone, mobile_phone, preferred_language, locale, \
             timezone, created_at, modified_at, attributes, first_seen_at, changed_at, changed_seq, gone_at",
        ),
        (
            "groups",
            "instance, id, external_id, display_name, description, email, manager_id, manager, type, active, \
             created_at, modified_at, attributes, member_count, members_known, first_seen_at, changed_at, \
             changed_seq, gone_at",
        ),
        (
            "memberships",
            "instance, group_id, member_id, member_type, label, first_seen_at, changed_seq, ended_at",
        ),
        (
            "changes",
            "seq, sync_id, instance, resource, id, kind, reason, changed, after, proof, hold_id, \
             source_modified_at, observed_at",
        ),
        (
            "changes_base",
            "seq, sync_id, instance, resource, id, kind, reason, changed, after, proof, hold_id, \
             source_modified_at, observed_at",
        ),
        (
            "syncs",
            "id, instance, resource, mode, trigger, started_at, finished_at, outcome, certificate, seen, created, \
             updated, deactivated, held, rejected, requests, retries, bytes, throttled_ms, error",
        ),
        (
            "holds",
            "id, instance, sync_id, guard, attribute, count, limit_text, digest, state, opened_at, closed_at",
        ),
        (
            "hold_changes",
            "hold_id, resource, id, path, kind, changed, after, proof, state",
        ),
        (
            "rejects",
            "instance, resource, key, reason, body, first_seen_at, last_seen_at",
        ),
        (
            "fingerprints",
            "instance, resource, id, fingerprint, tx, seal",
        ),
        (
            "identities",
            "instance, profile, user_id, matched_by, state, candidates, changed_seq",
        ),
        ("assignable", "instance, profile, user_id, user_name"),
        ("users_held", "instance, id, path, hold_id"),
        (
            "manager_chain",
            "instance, id, depth, manager_id, manager, email, title, active, state",
        ),
        ("direct_reports", "instance, manager_id, id"),
        ("org_size", "instance, id, size"),
    ];

    const KEYS: &[(&str, &str)] = &[
        ("instances", "name"),
        ("sources", "instance, resource"),
        ("users", "instance, id"),
        ("groups", "instance, id"),
        ("memberships", "instance, group_id, member_id"),
        ("changes", "seq"),
        ("changes_base", "instance, resource, id"),
        ("syncs", "id"),
        ("holds", "id"),
        ("hold_changes", "hold_id, resource, id"),
        ("rejects", "instance, resource, key"),
        ("fingerprints", "instance, resource, id"),
        ("identities", "instance, profile"),
    ];

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
    fn tables_have_the_columns_of_the_contract_in_its_order() {
        let (_dir, _path, conn) = new_mirror();
        for (table, columns) in CONTRACT {
            let found = text(
                &conn,
                &format!("SELECT group_concat(name, ', ') FROM pragma_table_info('{table}')"),
            );
            assert_eq!(found, *columns, "{table}");
        }
        for (table, key) in KEYS {
            let found = text(
                &conn,
                &format!(
                    "SELECT group_concat(name, ', ') FROM
                         (SELECT name FROM pragma_table_info('{table}') WHERE pk > 0 ORDER BY pk)"
                ),
            );
            assert_eq!(found, *key, "{table}");
        }
        for view in [
            "active_users",
            "users_held",
            "users_history",
            "mirror_health",
        ] {
            conn.prepare(&format!("SELECT * FROM {view}")).unwrap();
        }
        let page_bytes: u32 = conn
            .pragma_query_value(None, "page_size", |row| row.get(0))
            .unwrap();
        assert_eq!(page_bytes, connect::PAGE_BYTES);
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
    fn words_and_flags_are_checked() {
        let (_dir, _path, conn) = new_mirror();
        for sql in [
            "INSERT INTO instances (name, url, state) VALUES ('a', 'u', 'fine')",
            "INSERT INTO feed VALUES ('other', 1, 0)",
            "UPDATE feed SET first_seq = 5",
            "INSERT INTO users (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)
             VALUES ('a', 'b', 2, '{}', 't', 't', 1)",
            "INSERT INTO changes (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
             VALUES (1, 1, 'a', 'User', 'b', 'delete', 'gone', '{}', 't')",
        ] {
            let error = conn.execute(sql, []).unwrap_err();
            assert_eq!(
                error.sqlite_error_code(),
                Some(ErrorCode::ConstraintViolation),
                "{sql}"
            );
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
        assert_eq!(schema_difference(&reading).unwrap(), None);
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

        assert_eq!(schema_difference(&conn).unwrap(), None);
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

    #[test]
    fn the_digest_is_that_of_the_ladder() {
        let (_dir, _path, conn) = new_mirror();
        assert_eq!(digest(&conn).unwrap(), DIGEST);
    }

    /// For `IN` with three words or more SQLite builds a table with each row that is written.
    #[test]
    fn no_row_that_is_written_in_numbers_has_its_words_looked_up_in_a_table() {
        let (_dir, _path, conn) = new_mirror();
        for sql in [
            "INSERT INTO changes (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
             VALUES (1, 1, 'a', 'User', 'b', 'create', 'new', '{}', 't')",
            "INSERT INTO changes_base (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
             VALUES (1, 1, 'a', 'User', 'b', 'create', 'new', '{}', 't')",
            "INSERT INTO users (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)
             VALUES ('a', 'b', 1, '{}', 't', 't', 1)",
            "INSERT INTO groups (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)
             VALUES ('a', 'b', 1, '{}', 't', 't', 1)",
            "INSERT INTO memberships (instance, group_id, member_id, member_type, first_seen_at, changed_seq)
             VALUES ('a', 'b', 'c', 'User', 't', 1)",
            "INSERT INTO fingerprints (instance, resource, id, fingerprint, tx, seal)
             VALUES ('a', 'User', 'b', x'', 1, x'')",
            "INSERT INTO seals (of, key, seal) VALUES ('changes', 1, x'')",
            "INSERT INTO hold_changes (hold_id, resource, id, path, kind, after, state)
             VALUES (1, 'User', 'b', 'active', 'update', '{}', 'held')",
            "INSERT INTO identities (instance, profile, user_id, matched_by, state, changed_seq)
             VALUES ('a', 'p', 'b', 'email', 'matched', 1)",
            "INSERT INTO identity_keys (instance, rule, profile, folded, exact) VALUES ('a', 'email', 'p', 'k', 'K')",
            "INSERT INTO user_keys (instance, rule, folded, id, exact) VALUES ('a', 'email', 'k', 'b', 'K')",
        ] {
            let program = format!("EXPLAIN {sql}");
            let mut steps = conn.prepare(&program).unwrap();
            let steps = steps.query_map([], |row| row.get::<_, String>(1)).unwrap();
            let steps: Vec<String> = steps.map(Result::unwrap).collect();
            assert!(!steps.iter().any(|step| step == "OpenEphemeral"), "{sql}");
            conn.execute(sql, []).unwrap();
        }
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
        let rows = [
            "INSERT INTO changes (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
             VALUES (1, 1, 'a', 'User', 'b', 'create', 'new', '{}', 't')",
            "INSERT INTO changes_base (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
             VALUES (1, 1, 'a', 'User', 'b', 'create', 'new', '{}', 't')",
            "INSERT INTO hold_changes (hold_id, resource, id, path, kind, after, state)
             VALUES (1, 'User', 'b', 'active', 'update', '{}', 'held')",
            "INSERT INTO groups (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)
             VALUES ('a', 'b', 1, '{}', 't', 't', 1)",
            "INSERT INTO identities (instance, profile, user_id, matched_by, state, changed_seq)
             VALUES ('a', 'p', 'b', 'email', 'matched', 1)",
            "INSERT INTO identity_keys (instance, rule, profile, folded, exact) VALUES ('a', 'email', 'p', 'k', 'K')",
            "INSERT INTO user_keys (instance, rule, folded, id, exact) VALUES ('a', 'email', 'k', 'b', 'K')",
        ];
        for row in rows {
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

    #[test]
    fn an_object_of_others_may_be_typed_in_any_encoding() {
        let (_dir, _path, conn) = new_mirror();
        conn.execute_batch(
            "CREATE INDEX theirs ON users (title);
             PRAGMA writable_schema = ON;
             UPDATE sqlite_master SET sql = sql || CAST(x'202d2d20df' AS TEXT) WHERE name = 'theirs';
             PRAGMA writable_schema = RESET",
        )
        .unwrap();
        assert_ne!(digest(&conn).unwrap(), DIGEST);
        assert_eq!(schema_difference(&conn).unwrap(), None);
    }

    #[test]
    fn an_altered_schema_is_seen_and_an_added_index_is_not_minded() {
        let (_dir, _path, conn) = new_mirror();
        conn.execute_batch("CREATE INDEX theirs ON users (title); CREATE TABLE notes (x)")
            .unwrap();
        assert_eq!(schema_difference(&conn).unwrap(), None);
        conn.execute_batch("DROP VIEW users_held").unwrap();
        let difference = schema_difference(&conn).unwrap().unwrap();
        assert!(difference.contains("`users_held`"), "{difference}");

        let (_dir, _path, conn) = new_mirror();
        conn.execute_batch(
            "CREATE TRIGGER evil AFTER INSERT ON users BEGIN DELETE FROM users; END",
        )
        .unwrap();
        assert!(schema_difference(&conn).unwrap().is_some());
    }
}
