//! Two connections that read one state of the mirror.
//!
//! SQLite's own way (`sqlite3_snapshot_open`) is not in rusqlite, and works in WAL mode only. What always works is to begin on the
//! second connection between two beginnings on the first, and to see that nobody committed between these two.
//!
//! Why that is right: a read transaction sees what was committed when its first statement ran, until it ends. `PRAGMA
//! data_version`, read twice on one connection, differs when another one committed in the interim (SQLite's documentation of
//! it); inside a transaction, where it is itself a read, it tells of the state that the transaction sees. So when it is the same
//! in both transactions of the first connection, which a mere reader never commits on, both see the same state; and the second
//! connection's transaction began in between, when there was no other. A number of the second connection proves nothing: the
//! two count for themselves.

use rusqlite::types::Value;
use rusqlite::{Connection, Transaction};

use super::super::connect;
use super::super::error::Error;
use super::super::read::Reader;

/// A try takes far less than a millisecond, and a sync commits a few times a second. SQLite may also answer each with another
/// version: so it does where it may not write `-shm` and nobody who may has the mirror open.
const TRIES: usize = 100;

/// Begins a read transaction, and one of the same state on a second connection; the second is `None` when that cannot be had.
///
/// # Errors
/// When the reader is in a transaction. What else is wrong with the file is for the checks to tell, by its name and in their order.
pub(super) fn begin(reader: &Reader) -> Result<(Transaction<'_>, Option<Reader>), Error> {
    begin_with(reader, &mut || {})
}

/// With `between`, which is called before and after the second transaction begins.
fn begin_with<'a>(
    reader: &'a Reader,
    between: &mut dyn FnMut(),
) -> Result<(Transaction<'a>, Option<Reader>), Error> {
    if let Some(second) = open_again(reader) {
        for _ in 0..TRIES {
            match pair(&reader.conn, &second.conn, between) {
                Ok(Some(snapshot)) => return Ok((snapshot, Some(second))),
                Ok(None) => {}
                Err(_) => break,
            }
        }
    }
    Ok((reader.conn.unchecked_transaction()?, None))
}

/// `None` where no other connection can be had, or the path leads to another file by now.
///
/// Not by [`Reader::open`]: it opens and closes the file beside SQLite, which takes away all locks that this process has on it
/// (POSIX). What it checks of the schema is checked on the first connection.
fn open_again(reader: &Reader) -> Option<Reader> {
    let place = reader.place.as_ref()?;
    let conn = connect::reader(place.path()).ok()?;
    place.holds().then_some(Reader { conn, place: None })
}

/// `None` when somebody committed meanwhile; neither is in a transaction then.
fn pair<'a>(
    first: &'a Connection,
    second: &Connection,
    between: &mut dyn FnMut(),
) -> rusqlite::Result<Option<Transaction<'a>>> {
    let earlier = first.unchecked_transaction()?;
    let before = read(first)?;
    between();
    // Not a `Transaction`, which would borrow what goes to another thread. It ends with the connection.
    second.execute_batch("BEGIN")?;
    let beside = read(second)?;
    between();
    earlier.finish()?;
    let later = first.unchecked_transaction()?;
    let after = read(first)?;
    if before == after && beside.feed == after.feed {
        return Ok(Some(later));
    }
    second.execute_batch("ROLLBACK")?;
    Ok(None)
}

/// What a transaction sees.
#[derive(PartialEq)]
struct Seen {
    /// Epoch and last `seq`, of whatever type: the checks tell what is wrong with them. Of another mirror, which was at the path
    /// for a moment, they would differ.
    feed: (Value, Value),
    data_version: i64,
}

/// The first read of a transaction, with which it begins: `BEGIN` alone does not.
fn read(conn: &Connection) -> rusqlite::Result<Seen> {
    let feed = conn.query_row("SELECT epoch, last_seq FROM feed", [], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(Seen {
        feed,
        data_version: conn.pragma_query_value(None, "data_version", |row| row.get(0))?,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::testing::{World, titled};
    use super::*;

    async fn world() -> World {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        world
    }

    fn titles(conn: &Connection) -> String {
        conn.query_row("SELECT title FROM users", [], |row| row.get(0))
            .unwrap()
    }

    /// Commits another title, with the same feed.
    fn commit(path: &Path, title: &str) {
        let conn = Connection::open(path).unwrap();
        conn.execute("UPDATE users SET title = ?1", [title])
            .unwrap();
    }

    /// Commits at the calls of `between` that `when` names; returns how many calls there were, and what both see.
    fn begin_while(world: &World, when: impl Fn(usize) -> bool) -> (usize, String, Option<String>) {
        let reader = world.reader();
        let mut calls = 0;
        let (snapshot, second) = begin_with(&reader, &mut || {
            if when(calls) {
                commit(world.path(), &format!("after call {calls}"));
            }
            calls += 1;
        })
        .unwrap();
        let seen = titles(&snapshot);
        // Whatever is committed from now on is seen by neither.
        commit(world.path(), "later");
        assert_eq!(titles(&snapshot), seen);
        (calls, seen, second.map(|second| titles(&second.conn)))
    }

    #[tokio::test]
    async fn both_see_one_state() {
        let world = world().await;
        let agent = "Agent".to_owned();
        assert_eq!(
            begin_while(&world, |_| false),
            (2, agent.clone(), Some(agent))
        );
    }

    #[tokio::test]
    async fn a_commit_between_makes_a_new_try() {
        let world = world().await;
        for at in [0, 1] {
            let title = format!("after call {at}");
            assert_eq!(
                begin_while(&world, |call| call == at),
                (4, title.clone(), Some(title))
            );
        }
    }

    #[tokio::test]
    async fn commits_without_end_leave_one_connection() {
        let world = world().await;
        for at in [0, 1] {
            let last = 2 * TRIES - 2 + at;
            assert_eq!(
                begin_while(&world, |call| call % 2 == at),
                (2 * TRIES, format!("after call {last}"), None)
            );
        }
    }

    #[tokio::test]
    async fn a_file_without_a_log_is_paired_as_well() {
        let world = world().await;
        let path = world.dir.path().join("copy.db");
        world
            .reader()
            .conn
            .execute("VACUUM INTO ?1", [path.to_str()])
            .unwrap();
        let reader = Reader::open(&path).unwrap();
        assert!(begin(&reader).unwrap().1.is_some());
    }

    #[tokio::test]
    async fn another_file_at_the_path_is_not_read() {
        let world = world().await;
        let [path, copy] = ["moved.db", "copy.db"].map(|name| world.dir.path().join(name));
        let reader = world.reader();
        for path in [&path, &copy] {
            reader
                .conn
                .execute("VACUUM INTO ?1", [path.to_str()])
                .unwrap();
        }
        let reader = Reader::open(&path).unwrap();
        std::fs::rename(&copy, &path).unwrap();
        assert!(begin(&reader).unwrap().1.is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(begin(&reader).unwrap().1.is_none());
    }
}
