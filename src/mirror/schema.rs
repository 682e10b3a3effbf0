//! What a file declares, and whether that is what this program makes.

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use sha2::{Digest as _, Sha256};

use super::error::Error;
use super::migrate;

/// What [`digest`] gives for a mirror of the newest version, to which nobody has added anything.
const DIGEST: &str = "5a66d72b5ae2858f28379b6a8832dcf24ccc6ec7c726e6cc07a9eb300d40124d";

/// The first object of ours that is missing or not as this program makes it, or a trigger, which we have none of: whoever
/// can write the file could otherwise change what our statements do. Indexes and tables that somebody added are theirs.
pub(super) fn difference(conn: &Connection) -> Result<Option<String>, Error> {
    // Climbing the ladder to compare with it would be most of what opening a mirror takes.
    if digest(conn)? == DIGEST {
        return Ok(None);
    }
    let ours = migrate::in_memory()?;
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

#[cfg(test)]
mod tests {
    use rusqlite::ErrorCode;

    use super::super::connect;
    use super::super::testing::ROWS;
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

    fn new_mirror() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mirror.db");
        migrate::create(&path, "e").unwrap();
        let conn = connect::writer(&path).unwrap();
        (dir, conn)
    }

    fn text(conn: &Connection, sql: &str) -> String {
        conn.query_row(sql, [], |row| row.get::<_, Option<String>>(0))
            .unwrap()
            .unwrap_or_default()
    }

    #[test]
    fn tables_have_the_columns_of_the_contract_in_its_order() {
        let (_dir, conn) = new_mirror();
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
    fn words_and_flags_are_checked() {
        let (_dir, conn) = new_mirror();
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
    fn the_digest_is_that_of_the_ladder() {
        let (_dir, conn) = new_mirror();
        assert_eq!(digest(&conn).unwrap(), DIGEST);
    }

    /// For `IN` with three words or more SQLite builds a table with each row that is written.
    #[test]
    fn no_row_that_is_written_in_numbers_has_its_words_looked_up_in_a_table() {
        let (_dir, conn) = new_mirror();
        for sql in ROWS {
            let program = format!("EXPLAIN {sql}");
            let mut steps = conn.prepare(&program).unwrap();
            let steps = steps.query_map([], |row| row.get::<_, String>(1)).unwrap();
            let steps: Vec<String> = steps.map(Result::unwrap).collect();
            assert!(!steps.iter().any(|step| step == "OpenEphemeral"), "{sql}");
            conn.execute(sql, []).unwrap();
        }
    }

    #[test]
    fn an_object_of_others_may_be_typed_in_any_encoding() {
        let (_dir, conn) = new_mirror();
        conn.execute_batch(
            "CREATE INDEX theirs ON users (title);
             PRAGMA writable_schema = ON;
             UPDATE sqlite_master SET sql = sql || CAST(x'202d2d20df' AS TEXT) WHERE name = 'theirs';
             PRAGMA writable_schema = RESET",
        )
        .unwrap();
        assert_ne!(digest(&conn).unwrap(), DIGEST);
        assert_eq!(difference(&conn).unwrap(), None);
    }

    #[test]
    fn an_altered_schema_is_seen_and_an_added_index_is_not_minded() {
        let (_dir, conn) = new_mirror();
        conn.execute_batch("CREATE INDEX theirs ON users (title); CREATE TABLE notes (x)")
            .unwrap();
        assert_eq!(difference(&conn).unwrap(), None);
        conn.execute_batch("DROP VIEW users_held").unwrap();
        let found = difference(&conn).unwrap().unwrap();
        assert!(found.contains("`users_held`"), "{found}");

        let (_dir, conn) = new_mirror();
        conn.execute_batch(
            "CREATE TRIGGER evil AFTER INSERT ON users BEGIN DELETE FROM users; END",
        )
        .unwrap();
        assert!(difference(&conn).unwrap().is_some());
    }
}
