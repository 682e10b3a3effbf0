//! What the work costs at least: reading all pages and dropping them, and letting SQLite copy the same rows.

use std::path::Path;

use rusqlite::Connection;

use crate::measure::{self, Cost};

/// Users on a page.
const PAGE: usize = 200;

/// No user is rendered shorter than this.
const LEAST_USER_BYTES: usize = 1_000;

/// What reading so many users costs a process that does nothing else.
pub(crate) fn reading(folder: &Path, url: &str, users: usize) -> Cost {
    measure::run_self(folder, &["role:floor", url, &users.to_string()])
}

/// What SQLite needs for copying what a first sync wrote.
pub(crate) fn writing(folder: &Path, mirror: &Path, copy: &Path) -> Cost {
    let [mirror, copy] = [mirror, copy].map(|path| path.to_str().expect("a path of text"));
    measure::run_self(folder, &["role:write-floor", mirror, copy])
}

/// The role `floor`: reads so many users by `startIndex` on one connection, with the client's HTTP library.
pub(crate) fn read(url: &str, users: &str) {
    let users: usize = users.parse().expect("a number of users");
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
        for start in (1..=users).step_by(PAGE) {
            let page = format!(
                "{url}/api/now/scim/Users?startIndex={start}&count={PAGE}&sortBy=id&sortOrder=ascending"
            );
            let answer = client.get(page).send().await.expect("an answer");
            let answer = answer.error_for_status().expect("a page");
            bytes += answer.bytes().await.expect("a body").len();
        }
        bytes
    });
    assert!(bytes > users * LEAST_USER_BYTES, "only {bytes} bytes came");
}

/// The role `write-floor`: copies what a first sync writes for each user into an empty file of the same schema.
pub(crate) fn write(mirror: &str, copy: &str) {
    let db = Connection::open(copy).expect("an empty file");
    db.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA cache_size = -24576; PRAGMA wal_autocheckpoint = 16384;",
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
    db.execute_batch(
        "BEGIN IMMEDIATE;
         INSERT INTO main.users SELECT * FROM mirror.users;
         INSERT INTO main.changes SELECT * FROM mirror.changes;
         INSERT INTO main.fingerprints SELECT * FROM mirror.fingerprints;
         INSERT INTO main.seals SELECT * FROM mirror.seals;
         COMMIT;",
    )
    .expect("the copy");
    db.query_row("PRAGMA main.wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("the log is moved into the file");
}
