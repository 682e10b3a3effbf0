//! What the work costs at least: reading all pages and dropping them, and letting SQLite copy the same rows.

use std::path::Path;

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OpenFlags, Statement};

use crate::measure::{self, Cost};

/// Resources on a page.
const PAGE: usize = 200;

/// Users of a transaction where rows are written one by one: as many as the mirror writes at most.
const TRANSACTION: usize = 10_000;

/// No user is rendered shorter than this.
const LEAST_USER_BYTES: usize = 1_000;

/// And no group.
const LEAST_GROUP_BYTES: usize = 400;

/// What reading so many users and groups costs a process that does nothing else.
pub(crate) fn reading(folder: &Path, url: &str, users: usize, groups: usize) -> Cost {
    let [users, groups] = [users, groups].map(|count| count.to_string());
    measure::run_self(folder, &["role:floor", url, &users, &groups])
}

/// What SQLite needs for copying what a first sync wrote, by one of the roles below.
pub(crate) fn writing(folder: &Path, role: &str, mirror: &Path, copy: &Path) -> Cost {
    let [mirror, copy] = [mirror, copy].map(|path| path.to_str().expect("a path of text"));
    measure::run_self(folder, &[role, mirror, copy])
}

/// The role `floor`: reads so many users and groups by `startIndex` on one connection, with the client's HTTP library.
pub(crate) fn read(url: &str, users: &str, groups: &str) {
    let [users, groups] = [users, groups].map(|count| count.parse().expect("a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let bytes = runtime.block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .gzip(false)
            .build()
            .expect("an HTTP client");
        let mut bytes = 0;
        for (endpoint, count) in [("Users", users), ("Groups", groups)] {
            for start in (1..=count).step_by(PAGE) {
                let page = format!(
                    "{url}/api/now/scim/{endpoint}?startIndex={start}&count={PAGE}&sortBy=id&sortOrder=ascending"
                );
                let answer = client.get(page).send().await.expect("an answer");
                let answer = answer.error_for_status().expect("a page");
                bytes += answer.bytes().await.expect("a body").len();
            }
        }
        bytes
    });
    let least = users * LEAST_USER_BYTES + groups * LEAST_GROUP_BYTES;
    assert!(bytes > least, "only {bytes} bytes came");
}

/// The role `write-floor`: copies what a first sync writes for each user, group and membership into an empty file of the same schema. SQLite does not
/// even look into the rows, and fills each index in its own order.
pub(crate) fn write(mirror: &str, copy: &str) {
    let db = empty_beside(mirror, copy);
    db.execute_batch(
        "BEGIN IMMEDIATE;
         INSERT INTO main.users SELECT * FROM mirror.users;
         INSERT INTO main.groups SELECT * FROM mirror.groups;
         INSERT INTO main.memberships SELECT * FROM mirror.memberships;
         INSERT INTO main.changes SELECT * FROM mirror.changes;
         INSERT INTO main.fingerprints SELECT * FROM mirror.fingerprints;
         INSERT INTO main.seals SELECT * FROM mirror.seals;
         COMMIT;",
    )
    .expect("the copy");
    move_log(&db);
}

/// The role `row-floor`: the same rows user by user through bound values, as whoever computes rows must write them.
pub(crate) fn write_by_row(mirror: &str, copy: &str) {
    let db = empty_beside(mirror, copy);
    let mirror = Connection::open_with_flags(mirror, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .expect("the finished mirror");
    let ordered = |table: &str, order: &str| {
        let sql = format!("SELECT * FROM {table} ORDER BY {order}");
        mirror.prepare(&sql).expect("a table of the mirror")
    };
    let mut from = [
        ordered("users", "rowid"),
        ordered("changes", "rowid"),
        ordered("fingerprints", "instance, resource, id"),
        ordered("seals WHERE of = 'users'", "key"),
        ordered("seals WHERE of = 'changes'", "key"),
    ];
    let mut into: Vec<Statement<'_>> = from
        .iter()
        .zip(["users", "changes", "fingerprints", "seals", "seals"])
        .map(|(from, table)| {
            let marks = vec!["?"; from.column_count()].join(", ");
            let sql = format!("INSERT INTO {table} VALUES ({marks})");
            db.prepare(&sql).expect("the same table")
        })
        .collect();
    let mut from: Vec<_> = from
        .iter_mut()
        .map(|rows| rows.query([]).expect("its rows"))
        .collect();
    let mut users = 0_usize;
    loop {
        if users.is_multiple_of(TRANSACTION) {
            let between = if users > 0 {
                "COMMIT; BEGIN IMMEDIATE"
            } else {
                "BEGIN IMMEDIATE"
            };
            db.execute_batch(between).expect("a transaction");
        }
        users += 1;
        let mut any = false;
        for (rows, into) in from.iter_mut().zip(&mut into) {
            if let Some(row) = rows.next().expect("a row") {
                for place in 0..into.parameter_count() {
                    let value = row.get_ref(place).expect("a value");
                    into.raw_bind_parameter(place + 1, ToSqlOutput::Borrowed(value))
                        .expect("the same value");
                }
                into.raw_execute().expect("the same row");
                any = true;
            }
        }
        if !any {
            break;
        }
    }
    db.execute_batch("COMMIT").expect("the last transaction");
    drop((from, into));
    move_log(&db);
}

/// An empty file of the mirror's schema and with its settings, and the mirror beside it.
fn empty_beside(mirror: &str, copy: &str) -> Connection {
    let db = Connection::open(copy).expect("an empty file");
    db.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 32768;",
    )
    .expect("the pragmas of the mirror");
    db.execute("ATTACH ?1 AS mirror", [mirror])
        .expect("the finished mirror");
    db.execute_batch("PRAGMA mirror.cache_size = -8192")
        .expect("a cache for reading");
    let schema: Vec<String> = db
        .prepare("SELECT sql FROM mirror.sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type DESC")
        .expect("the schema")
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .expect("its statements");
    for statement in schema {
        db.execute_batch(&statement).expect("a table or an index");
    }
    db
}

fn move_log(db: &Connection) {
    db.query_row("PRAGMA main.wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("the log is moved into the file");
}
