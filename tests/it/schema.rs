//! The mirror's tables are read by other programs: names, order and keys are held against the
//! contract, copied here by hand.

use musterd::mirror::Mirror;
use rusqlite::Connection;

use crate::harness::{Row, rows, text};

/// Table, columns in their order, primary key.
const TABLES: [(&str, &str, &str); 14] = [
    ("feed", "epoch first_seq last_seq", ""),
    (
        "instances",
        "name url state not_before last_success_at last_error last_error_at consecutive_failures",
        "name",
    ),
    (
        "sources",
        "instance resource watermark baseline_at last_success_at last_full_success_at capabilities",
        "instance resource",
    ),
    (
        "users",
        "instance id external_id user_name active display_name given_name family_name email title \
         department_id department manager_id manager cost_center_id cost_center company_id company \
         location_id location employee_number user_type phone mobile_phone preferred_language locale \
         timezone created_at modified_at attributes first_seen_at changed_at changed_seq gone_at",
        "instance id",
    ),
    (
        "groups",
        "instance id external_id display_name description email manager_id manager type active created_at \
         modified_at attributes member_count members_known first_seen_at changed_at changed_seq gone_at",
        "instance id",
    ),
    (
        "memberships",
        "instance group_id member_id member_type label first_seen_at changed_seq ended_at",
        "instance group_id member_id",
    ),
    (
        "changes",
        "seq sync_id instance resource id kind reason changed after proof hold_id source_modified_at \
         observed_at",
        "seq",
    ),
    (
        "changes_base",
        "seq sync_id instance resource id kind reason changed after proof hold_id source_modified_at \
         observed_at",
        "instance resource id",
    ),
    (
        "syncs",
        "id instance resource mode trigger started_at finished_at outcome certificate seen created \
         updated deactivated held rejected requests retries bytes throttled_ms error",
        "id",
    ),
    (
        "holds",
        "id instance sync_id guard attribute count limit_text digest state opened_at closed_at",
        "id",
    ),
    (
        "hold_changes",
        "hold_id resource id path kind changed after proof state",
        "hold_id resource id",
    ),
    (
        "rejects",
        "instance resource key reason body first_seen_at last_seen_at",
        "instance resource key",
    ),
    (
        "fingerprints",
        "instance resource id fingerprint tx seal",
        "instance resource id",
    ),
    (
        "identities",
        "instance profile user_id matched_by state candidates changed_seq",
        "instance profile",
    ),
];

/// View and the columns it has at least.
const VIEWS: [(&str, &str); 10] = [
    ("active_users", "instance id user_name active"),
    ("users_held", "instance id path hold_id"),
    ("users_history", "instance id valid_from valid_to"),
    (
        "groups_history",
        "instance id valid_from valid_to seq kind reason display_name active changed attributes",
    ),
    (
        "memberships_history",
        "instance group_id member_id member_type label valid_from valid_to seq reason",
    ),
    ("mirror_health", "instance state"),
    (
        "manager_chain",
        "instance id depth manager_id manager email title active state",
    ),
    ("direct_reports", "instance manager_id id"),
    ("org_size", "instance id size"),
    ("assignable", "instance profile user_id user_name"),
];

#[test]
fn tables_have_the_columns_and_keys_of_the_contract() {
    let mirror = new_mirror();
    for (table, columns, key) in TABLES {
        let info = rows(&mirror.connection, &format!("PRAGMA table_info({table})"));
        assert_eq!(
            names(&info),
            columns.split_whitespace().collect::<Vec<_>>(),
            "`{table}`"
        );
        let mut in_key: Vec<(String, String)> = info
            .iter()
            .filter(|column| text(column, "pk").as_deref() != Some("0"))
            .map(|column| (text(column, "pk").unwrap(), text(column, "name").unwrap()))
            .collect();
        in_key.sort();
        // A key may also be a unique index: `users` is a rowid table, which is half the size.
        let in_key: Vec<String> = if in_key.is_empty() {
            unique_index(&mirror.connection, table)
        } else {
            in_key.into_iter().map(|(_, name)| name).collect()
        };
        assert_eq!(
            in_key,
            key.split_whitespace().collect::<Vec<_>>(),
            "key of `{table}`"
        );
    }
}

#[test]
fn there_are_no_other_tables_for_readers() {
    let mirror = new_mirror();
    let mut found: Vec<String> = list(
        &mirror.connection,
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    );
    found.sort();
    let mut named = TABLES.map(|(name, ..)| name);
    named.sort_unstable();
    for name in named {
        assert!(
            found.iter().any(|table| table == name),
            "`{name}` is missing"
        );
    }
}

#[test]
fn views_have_the_columns_of_the_contract() {
    let mirror = new_mirror();
    for (view, columns) in VIEWS {
        let kind = list(
            &mirror.connection,
            &format!("SELECT type FROM sqlite_master WHERE name = '{view}'"),
        );
        assert_eq!(kind, ["view"], "`{view}`");
        let found = names(&rows(
            &mirror.connection,
            &format!("PRAGMA table_info({view})"),
        ));
        for column in columns.split_whitespace() {
            assert!(
                found.iter().any(|name| name == column),
                "`{view}` has no `{column}`: {found:?}"
            );
        }
        // A view is compiled only when it is read.
        rows(&mirror.connection, &format!("SELECT * FROM {view}"));
    }
    for (view, columns) in VIEWS {
        if !["active_users", "users_history", "mirror_health"].contains(&view) {
            let found = names(&rows(
                &mirror.connection,
                &format!("PRAGMA table_info({view})"),
            ));
            assert_eq!(found.join(" "), columns, "`{view}` has no more");
        }
    }
}

#[test]
fn old_shells_can_read_it_and_it_explains_itself() {
    let mirror = new_mirror();
    let all = rows(
        &mirror.connection,
        "SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL",
    );
    for object in &all {
        let (name, sql) = (text(object, "name").unwrap(), text(object, "sql").unwrap());
        for newer in [
            "STRICT",
            "->>",
            "GENERATED",
            "unixepoch(",
            "IIF(",
            "MATERIALIZED",
        ] {
            assert!(!sql.contains(newer), "`{name}` uses `{newer}`: {sql}");
        }
    }
    for (table, columns, _) in TABLES {
        let sql = all
            .iter()
            .find(|object| text(object, "name").as_deref() == Some(table))
            .and_then(|object| text(object, "sql"))
            .unwrap();
        for column in columns.split_whitespace() {
            let line = sql
                .lines()
                .find(|line| line.split_whitespace().next() == Some(column))
                .unwrap_or_else(|| panic!("`{table}.{column}` has no line of its own: {sql}"));
            let before = sql[..sql.find(line).unwrap()].trim_end();
            let above = before.lines().last().unwrap_or_default().trim_start();
            assert!(
                line.contains("--") || above.starts_with("--"),
                "`{table}.{column}` is not explained"
            );
        }
    }
}

#[test]
fn flags_and_enumerations_are_checked() {
    let mirror = new_mirror();
    for (table, column) in [
        ("instances", "state"),
        ("users", "active"),
        ("groups", "active"),
        ("groups", "members_known"),
        ("memberships", "member_type"),
        ("changes", "kind"),
        ("changes", "reason"),
        ("syncs", "mode"),
        ("syncs", "trigger"),
        ("syncs", "outcome"),
        ("holds", "guard"),
        ("holds", "state"),
        ("hold_changes", "state"),
        ("identities", "matched_by"),
        ("identities", "state"),
    ] {
        let sql = &list(
            &mirror.connection,
            &format!("SELECT sql FROM sqlite_master WHERE name = '{table}'"),
        )[0];
        let checked = sql.split("CHECK").skip(1).any(|check| {
            check
                .trim_start_matches([' ', '(', '"'])
                .starts_with(column)
        });
        assert!(checked, "`{table}.{column}` is not checked: {sql}");
    }
}

#[test]
fn the_file_is_ours_and_made_for_readers() {
    let mirror = new_mirror();
    let pragma = |name: &str| -> String {
        mirror
            .connection
            .query_row(&format!("PRAGMA {name}"), [], |row| {
                row.get::<_, rusqlite::types::Value>(0)
            })
            .map(|value| match value {
                rusqlite::types::Value::Integer(n) => n.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => format!("{other:?}"),
            })
            .unwrap()
    };
    assert_eq!(pragma("journal_mode"), "wal");
    assert_eq!(pragma("page_size"), "8192");
    assert_eq!(pragma("integrity_check"), "ok");
    assert_ne!(pragma("application_id"), "0");
    assert_ne!(pragma("user_version"), "0");
    for (table, rowid) in [("users", true), ("changes", true), ("fingerprints", false)] {
        let sql = &list(
            &mirror.connection,
            &format!("SELECT sql FROM sqlite_master WHERE name = '{table}'"),
        )[0];
        assert_eq!(!sql.contains("WITHOUT ROWID"), rowid, "`{table}`");
    }
    let feed = rows(&mirror.connection, "SELECT * FROM feed");
    assert_eq!(feed.len(), 1);
    assert_eq!(text(&feed[0], "epoch").as_deref(), Some("0123456789abcdef"));
    assert_eq!(text(&feed[0], "first_seq").as_deref(), Some("1"));
    assert_eq!(text(&feed[0], "last_seq").as_deref(), Some("0"));
}

/// A mirror as the program makes it, and a reader of it.
struct NewMirror {
    connection: Connection,
    _mirror: Mirror,
    _dir: tempfile::TempDir,
}

fn new_mirror() -> NewMirror {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mirror.db");
    let mirror = Mirror::open(&path, "0123456789abcdef").unwrap();
    NewMirror {
        connection: Connection::open_with_flags(&path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .unwrap(),
        _mirror: mirror,
        _dir: dir,
    }
}

fn names(table_info: &[Row]) -> Vec<String> {
    table_info
        .iter()
        .map(|column| text(column, "name").unwrap())
        .collect()
}

fn list(connection: &Connection, sql: &str) -> Vec<String> {
    connection
        .prepare(sql)
        .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
        .unwrap()
}

/// The columns of the table's first unique index. An index on an expression is no key.
fn unique_index(connection: &Connection, table: &str) -> Vec<String> {
    rows(connection, &format!("PRAGMA index_list({table})"))
        .iter()
        .rev()
        .filter(|index| text(index, "unique").as_deref() == Some("1"))
        .filter_map(|index| {
            let name = text(index, "name")?;
            let columns = rows(connection, &format!("PRAGMA index_info('{name}')"));
            columns.iter().map(|column| text(column, "name")).collect()
        })
        .next()
        .unwrap_or_default()
}
