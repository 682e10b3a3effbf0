//! How connections to the mirror are opened: one for writing, one for checkpoints, any number for reading.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::Error;

/// A row of `users` takes 2 to 3 KiB: in the default pages of 4 KiB most of them would spill into a second one.
pub(super) const PAGE_BYTES: u32 = 8192;

/// One batch for every connection. Numbers are fixed so that memory does not grow with the directory (promise P10).
const PRAGMAS: &str = "
    PRAGMA trusted_schema = OFF;     -- a file may come from elsewhere: no function runs because a schema says so
    PRAGMA cell_size_check = ON;     -- a damaged page is found when it is read, not when it is followed
    PRAGMA cache_size = -8192;       -- 8 MiB
";

/// What the writer needs besides.
const WRITER_PRAGMAS: &str = "
    PRAGMA cache_size = -16384;              -- 16 MiB: names and addresses go anywhere into their indexes
    PRAGMA synchronous = FULL;               -- a `seq` that a reader has read survives a power cut (promise P3)
    PRAGMA journal_size_limit = 67108864;    -- 64 MiB: a log that was once longer is cut after it was moved
    PRAGMA wal_autocheckpoint = 32768;       -- 256 MiB: the mirror checkpoints between transactions by itself, outside of
                                             -- them; this only bounds the log when it cannot
";

/// Waits for another program's write transaction, which only a read-write shell can hold.
const BUSY: Duration = Duration::from_secs(5);

/// A checkpoint waits no longer for readers: the next one comes within a minute.
const CHECKPOINT_BUSY: Duration = Duration::from_millis(100);

/// Statements that one sync uses over and over.
const CACHED_STATEMENTS: usize = 64;

/// The one connection that writes.
pub(super) fn writer(path: &Path) -> Result<Connection, Error> {
    let conn = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, BUSY)?;
    let mode = use_log(&conn)?;
    if mode != "wal" {
        return Err(Error::NoLog {
            path: path.to_owned(),
            mode,
        });
    }
    conn.execute_batch(WRITER_PRAGMAS)?;
    Ok(conn)
}

/// Readers never wait (promise P12). Returns the mode that the file is in: SQLite may refuse without an error.
fn use_log(conn: &Connection) -> Result<String, Error> {
    let mut pragma = conn.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = pragma.query([])?;
    let mut mode = String::new();
    // To its end: the answer comes first, and only then the file is written.
    while let Some(row) = rows.next()? {
        mode = row.get(0)?;
    }
    Ok(mode)
}

/// A connection that only moves the log into the file.
pub(super) fn checkpointer(path: &Path) -> Result<Connection, Error> {
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, CHECKPOINT_BUSY)
}

/// A connection that cannot write: what `mode=ro` is in a URI.
pub(super) fn reader(path: &Path) -> Result<Connection, Error> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, BUSY).map_err(|error| match error {
        Error::Database(source)
            if source.sqlite_error_code() == Some(ErrorCode::CannotOpen)
                || source.sqlite_error_code() == Some(ErrorCode::ReadOnly) =>
        {
            Error::Unreadable {
                path: path.to_owned(),
                source,
            }
        }
        other => other,
    })
}

fn open(path: &Path, access: OpenFlags, busy: Duration) -> Result<Connection, Error> {
    // Without `SQLITE_OPEN_URI`: a path is a path, also when it starts with `file:`.
    let conn = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // The last connection to close would otherwise remove `-wal` and `-shm`, and an unprivileged reader cannot make them
    // (promise P12). Before anything is read, so that it also holds when that fails.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    keep_plans(&conn)?;
    conn.busy_timeout(busy)?;
    conn.execute_batch(PRAGMAS)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    // Nothing of the file was read so far; this does, and fails here if it cannot be.
    conn.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))?;
    Ok(conn)
}

/// A statement keeps its plan whatever is bound to it. SQLite would otherwise prepare one with a bound `LIMIT` anew each time that
/// is bound, to plan with the number: with each page of a crawl.
pub(super) fn keep_plans(conn: &Connection) -> Result<(), Error> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// `PRAGMA user_version`, as the log has it.
pub(super) fn schema_version(conn: &Connection) -> Result<i64, Error> {
    Ok(conn.pragma_query_value(None, "user_version", |row| row.get(0))?)
}
