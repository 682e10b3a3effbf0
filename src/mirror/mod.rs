//! The mirror and the feed: the only place with SQL.
//!
//! One writer connection behind an async mutex, used from `spawn_blocking`; any number of read-only
//! connections. A paused test clock holds still while `spawn_blocking` works, which it does not for a
//! thread of our own.

pub mod apply;
pub mod plan;
mod planned;
pub mod stage;
pub mod trim;

pub mod read;
pub mod verify;

pub mod backup;
pub mod error;
pub mod restore;

mod due;
pub mod gate;
pub mod holding;
mod record;
mod rejects;
pub mod syncs;
mod window;

pub mod identities;
pub mod profiles;
mod rematch;
mod user_keys;

mod absent;
mod compare;
pub mod lists;
mod missed;
mod packed;
mod seen;
mod staged;
mod table;
mod twins;
mod tx;

pub mod chains;
pub mod covered;
pub mod feed;
mod folded;
pub mod groups;
pub mod health;
pub mod holds;
pub mod instances;
pub mod past;
pub mod removal;
pub mod users;

mod column;
mod connect;
mod file;
pub mod lock;
mod migrate;
mod schema;
mod seal;

#[cfg(test)]
mod testing;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rusqlite::{Connection, TransactionBehavior};

pub use apply::Writer;
pub use error::Error;
pub use read::Reader;

use file::Identity;
use lock::Lock;
use seal::Touched;

use crate::model::Base;

/// The mirror, opened for writing by the one process that holds its lock.
#[derive(Clone)]
pub struct Mirror {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    files: Identity,
    base: Mutex<Base>,
    /// Set for good when writing on could lose or spoil something: see [`Error::is_fatal`].
    broken: AtomicBool,
    writer: Arc<tokio::sync::Mutex<Option<Owned>>>,
    /// Connections that were read with. To open one, SQLite reads and parses the whole schema: a third of what a sync costs that
    /// finds nothing.
    resting: Mutex<Vec<Reader>>,
    /// The connection that moves the log, once there is one: kept for the same reason.
    mover: Mutex<Option<Connection>>,
}

/// What only the holder of the mutex has. The connection is dropped before the lock is given back.
struct Owned {
    conn: Connection,
    touched: Touched,
    _lock: Lock,
}

impl Mirror {
    /// Takes the lock, opens or creates the file, migrates it, and checks that it is ours.
    /// `epoch` is drawn by the caller and used only for a new file.
    ///
    /// # Errors
    /// See [`Error`]; a foreign or newer file is left untouched.
    pub fn open(path: &Path, epoch: &str) -> Result<Self, Error> {
        let directory = file::directory_of(path);
        if !directory.is_dir() {
            return Err(Error::NoDirectory(directory.to_owned()));
        }
        let lock = Lock::take(path)?;
        file::refuse_odd(path)?;
        match file::check_header(path) {
            Err(Error::Missing(_)) => migrate::create(path, epoch)?,
            checked => checked?,
        }
        let mut conn = connect::writer(path)?;
        // The header may lag behind the log.
        file::check_version(path, connect::schema_version(&conn)?)?;
        migrate::migrate(&mut conn, path)?;
        if let Some(difference) = schema::difference(&conn)? {
            return Err(Error::Damaged(difference));
        }
        let touched = Touched::watch(&mut conn)?;
        let base = tx::base(&conn)?;
        let files = Identity::of(path)?;
        Ok(Self {
            shared: Arc::new(Shared {
                path: path.to_owned(),
                files,
                base: Mutex::new(base),
                broken: AtomicBool::new(false),
                writer: Arc::new(tokio::sync::Mutex::new(Some(Owned {
                    conn,
                    touched,
                    _lock: lock,
                }))),
                resting: Mutex::default(),
                mover: Mutex::default(),
            }),
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Where the mirror stands, without a query. May lag behind a commit by a moment, never lead.
    #[must_use]
    pub fn base(&self) -> Base {
        *self.shared.base()
    }

    /// The feed's last `seq`, like [`Mirror::base`].
    #[must_use]
    pub fn head(&self) -> i64 {
        self.base().seq
    }

    /// A new read-only connection.
    ///
    /// # Errors
    /// When the file cannot be opened, or is another one now.
    pub fn reader(&self) -> Result<Reader, Error> {
        self.shared.reader()
    }

    /// Gives `read` a read-only connection, from `spawn_blocking`: for async code, which must not wait
    /// for a disk.
    ///
    /// # Errors
    /// What `read` returned, or why the file could not be opened.
    pub async fn read<T, F>(&self, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Reader) -> Result<T, Error> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            let reader = shared.lend()?;
            let value = read(&reader)?;
            shared.rest(reader);
            Ok(value)
        })
        .await
        // Nothing aborts it: it panicked, or the runtime is stopping.
        .unwrap_or(Err(Error::Closed))
    }

    /// A read-only connection for a piece of work of many steps. [`Mirror::rest`] takes it back; one that is dropped is closed.
    ///
    /// # Errors
    /// When the file cannot be opened, or is another one now.
    pub async fn lend(&self) -> Result<Reader, Error> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.lend())
            .await
            .unwrap_or(Err(Error::Closed))
    }

    /// Takes a connection back that was lent, for the next who reads.
    pub fn rest(&self, reader: Reader) {
        self.shared.rest(reader);
    }

    /// Runs `write` inside one IMMEDIATE transaction on the writer connection, from
    /// `spawn_blocking`. Waiters take turns in the order they came. Dropping the future does not stop a
    /// transaction that has begun.
    ///
    /// # Errors
    /// What `write` returned, or why the transaction could not be committed; then nothing happened. After an error that
    /// [`Error::is_fatal`] every later call fails as well.
    pub async fn write<T, F>(&self, write: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Writer<'_>) -> Result<T, Error> + Send + 'static,
    {
        let mut writer = Arc::clone(&self.shared.writer).lock_owned().await;
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            let owned = writer.as_mut().ok_or(Error::Closed)?;
            shared.transaction(owned, write)
        })
        .await
        // Panics are caught inside: the runtime is stopping.
        .unwrap_or(Err(Error::Closed))
    }

    /// Tries to move the write-ahead log into the file, on a connection of its own, and then for at most 100 ms to empty it.
    /// Returns the size of the log in bytes when it stays.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn checkpoint(&self) -> Result<u64, Error> {
        self.with_log(|shared, log| {
            shared.with_mover(|conn| {
                // Writers go on meanwhile, as they cannot while it is emptied: of that little is left then (promise P7).
                move_log(conn)?;
                truncate_log(conn)
            })?;
            length(log)
        })
        .await
    }

    /// Moves a long write-ahead log into the file, between two transactions that follow on each other: a commit that did it would
    /// keep all others from writing meanwhile (promise P7). Nothing is lost where it fails; a later commit then has to.
    pub async fn move_long_log(&self) {
        let moved = self.with_log(|shared, log| {
            if length(log)? > LONG_LOG_BYTES {
                shared.with_mover(move_log)?;
            }
            Ok(())
        });
        if let Err(error) = moved.await {
            tracing::debug!(%error, "the log of the mirror could not be moved");
        }
    }

    /// Does something with the write-ahead log, whose path it gets, without the writer.
    async fn with_log<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Shared, &Path) -> Result<T, Error> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            shared.usable()?;
            work(&shared, &file::companion(&shared.path, "-wal"))
        })
        .await
        .unwrap_or(Err(Error::Closed))
    }

    /// The last checkpoint, and an end that leaves `-wal` and `-shm` for unprivileged readers. Gives the lock back.
    ///
    /// # Errors
    /// When the checkpoint fails; everything committed is safe all the same.
    pub async fn close(self) -> Result<(), Error> {
        let mut writer = Arc::clone(&self.shared.writer).lock_owned().await;
        let shared = self.shared;
        tokio::task::spawn_blocking(move || {
            let Some(owned) = writer.take() else {
                return Ok(());
            };
            shared.usable()?;
            truncate_log(&owned.conn)
        })
        .await
        .unwrap_or(Err(Error::Closed))
    }
}

impl Shared {
    fn base(&self) -> MutexGuard<'_, Base> {
        // It is replaced as a whole: a panic cannot leave half of it.
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the three files are those that were opened, and nothing went wrong for good.
    fn usable(&self) -> Result<(), Error> {
        if self.broken.load(Ordering::Acquire) {
            return Err(Error::Panicked);
        }
        self.files.check()
    }

    /// What is read decides what is written: it must be the file that is written.
    fn reader(&self) -> Result<Reader, Error> {
        self.files.check()?;
        let reader = Reader::beside_writer(&self.path)?;
        self.files.check()?;
        Ok(reader)
    }

    /// A connection that rests, or a new one.
    fn lend(&self) -> Result<Reader, Error> {
        let rested = self.resting().pop();
        match rested {
            Some(reader) => self.files.check().map(|()| reader),
            None => self.reader(),
        }
    }

    fn rest(&self, reader: Reader) {
        // Within a transaction it would show the mirror of that moment, and keep the log from being moved. What it has read is
        // given up: so many pages a connection are not to be kept for whom may never come.
        let sound = reader.conn.is_autocommit()
            && reader.conn.execute_batch("PRAGMA shrink_memory").is_ok();
        let mut resting = self.resting();
        if sound && resting.len() < MOST_RESTING {
            resting.push(reader);
        }
    }

    /// Lends the connection that moves the log. Who finds it lent does nothing: somebody moves the log already. One that failed is not
    /// used again.
    fn with_mover(&self, work: impl FnOnce(&Connection) -> Result<(), Error>) -> Result<(), Error> {
        let mut mover = match self.mover.try_lock() {
            Ok(mover) => mover,
            // It is taken out while it is used: a panic leaves none.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let conn = match mover.take() {
            Some(conn) => conn,
            None => connect::checkpointer(&self.path)?,
        };
        work(&conn)?;
        *mover = Some(conn);
        Ok(())
    }

    fn resting(&self) -> MutexGuard<'_, Vec<Reader>> {
        // Pushing and popping cannot leave half of it.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transaction<T>(
        &self,
        owned: &mut Owned,
        write: impl FnOnce(&Writer<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.usable()?;
        owned.touched.forget();
        let tx = owned
            .conn
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        // A panic rolls back, like any error. But whatever else it left behind in this process is unknown, so the
        // mirror takes no more writes and the daemon ends: half a daemon would look alive.
        let writer = Writer::new(&tx, &owned.touched);
        let value = catch_unwind(AssertUnwindSafe(|| write(&writer))).unwrap_or_else(|_| {
            self.broken.store(true, Ordering::Release);
            Err(Error::Panicked)
        })?;
        owned.touched.seal(&tx)?;
        let base = tx::base(&tx)?;
        self.files.check()?;
        tx.commit()?;
        *self.base() = base;
        Ok(value)
    }
}

/// Connections that are kept to be read with again: as many syncs as run side by side most of the time.
const MOST_RESTING: usize = 4;

/// A log that is longer is moved. To this length, the `journal_size_limit`, SQLite cuts one that was moved and is written from its
/// start again.
pub const LONG_LOG_BYTES: u64 = 64 << 20;

/// Moves the log into the file, as far as readers let it, while others write.
fn move_log(conn: &Connection) -> Result<(), Error> {
    conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
    Ok(())
}

/// The length of the log in bytes.
fn length(log: &Path) -> Result<u64, Error> {
    let found = log.metadata().map_err(Error::file("look at", log))?;
    Ok(found.len())
}

/// Moves the log into the file and empties it, as far as readers let it.
fn truncate_log(conn: &Connection) -> Result<(), Error> {
    // The answer's row (busy, pages, moved) says less than the size of the log does.
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// `MIRROR.suffix`: the names of the lock, the socket, staging and state files.
#[must_use]
pub fn beside(mirror: &Path, suffix: &str) -> PathBuf {
    file::companion(mirror, &format!(".{suffix}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::testing::{FULL, World, refusal, titled};
    use super::*;

    fn bytes(path: &Path) -> Vec<u8> {
        std::fs::read(path).unwrap()
    }

    #[test]
    fn files_that_are_not_ours_are_refused_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other.db");
        Connection::open(&other)
            .unwrap()
            .execute_batch("PRAGMA application_id = 77; CREATE TABLE t (x)")
            .unwrap();
        let newer = dir.path().join("newer.db");
        migrate::create(&newer, "e").unwrap();
        Connection::open(&newer)
            .unwrap()
            .pragma_update(None, "user_version", migrate::VERSION + 1)
            .unwrap();
        let empty = dir.path().join("empty.db");
        std::fs::write(&empty, "").unwrap();
        let text = dir.path().join("text.db");
        std::fs::write(&text, "SQLite format 3, or so it says").unwrap();
        let version_0 = dir.path().join("version_0.db");
        Connection::open(&version_0)
            .unwrap()
            .execute_batch(&format!(
                "PRAGMA application_id = {}; CREATE TABLE t (x)",
                file::APPLICATION_ID
            ))
            .unwrap();

        for (path, expected) in [
            (other, "another program"),
            (newer, &*format!("schema version {}", migrate::VERSION + 1)),
            (empty, "is empty"),
            (text, "no SQLite database"),
            (version_0, "version is 0"),
        ] {
            let before = bytes(&path);
            let (_, told) = refusal(&path);
            assert!(told.contains(expected), "{told}");
            let read = Reader::open(&path).err().unwrap().to_string();
            assert_eq!(read, told);
            assert_eq!(bytes(&path), before, "{expected}");
            assert!(!file::companion(&path, "-wal").exists());
        }
    }

    #[test]
    fn what_is_missing_or_odd_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (error, told) = refusal(&dir.path().join("no/mirror.db"));
        assert!(matches!(error, Error::NoDirectory(_)), "{told}");
        assert!(told.contains("/no`"), "{told}");
        let missing = dir.path().join("mirror.db");
        assert!(matches!(Reader::open(&missing), Err(Error::Missing(_))));
        let link = dir.path().join("link.db");
        std::os::unix::fs::symlink(&missing, &link).unwrap();
        assert!(matches!(refusal(&link).0, Error::NotAFile(_)));
        assert!(!missing.exists());
    }

    #[test]
    fn a_damaged_file_is_an_error_and_never_a_panic() {
        let dir = tempfile::tempdir().unwrap();
        let sound = dir.path().join("sound.db");
        migrate::create(&sound, "e").unwrap();
        let sound = bytes(&sound);
        let path = dir.path().join("mirror.db");
        let mut rng = fastrand::Rng::with_seed(7);
        let mut refused = 0;
        for _ in 0..200 {
            let mut damaged = sound.clone();
            let from = rng.usize(16..damaged.len());
            let to = (from + rng.usize(1..600)).min(damaged.len());
            rng.fill(&mut damaged[from..to]);
            damaged.truncate(rng.usize(to..=sound.len()));
            std::fs::write(&path, &damaged).unwrap();
            match Mirror::open(&path, "f") {
                Err(_) => refused += 1,
                Ok(mirror) => {
                    let _ = mirror
                        .reader()
                        .and_then(|reader| reader.verify(&mut |_| {}));
                }
            }
            for suffix in ["", "-wal", "-shm"] {
                file::remove(&file::companion(&path, suffix)).unwrap();
            }
        }
        assert!(refused > 50, "{refused}");
    }

    #[tokio::test]
    async fn one_process_at_a_time_and_what_it_leaves_behind() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        let path = world.path().to_owned();
        let (error, told) = refusal(&path);
        assert!(matches!(error, Error::Locked(_)), "{told}");

        let clone = world.mirror.clone();
        world.mirror.clone().close().await.unwrap();
        assert!(matches!(
            clone.write(|writer| writer.reserve_sync()).await,
            Err(Error::Closed)
        ));
        drop(clone);
        // An unprivileged reader cannot make these two.
        assert_eq!(file::companion(&path, "-wal").metadata().unwrap().len(), 0);
        for suffix in ["", "-wal", "-shm"] {
            let mode = file::companion(&path, suffix)
                .metadata()
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o640, "{suffix}");
        }
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.feed().unwrap().last_seq, 1);
        drop(reader);
        assert!(file::companion(&path, "-shm").exists());

        let again = Mirror::open(&path, "epoch two").unwrap();
        assert_eq!(again.head(), 1);
        assert_eq!(again.reader().unwrap().feed().unwrap().epoch, "epoch one");
    }

    #[tokio::test]
    async fn readers_see_the_old_state_until_the_commit() {
        let world = World::new().await;
        let reader = world.reader();
        let states = world
            .mirror
            .write(move |writer| {
                writer
                    .conn
                    .execute("UPDATE feed SET epoch = 'changed'", [])?;
                Ok((reader.feed()?.epoch, reader))
            })
            .await
            .unwrap();
        assert_eq!(states.0, "epoch one");
        assert_eq!(states.1.feed().unwrap().epoch, "changed");
    }

    #[tokio::test]
    async fn a_connection_that_rested_shows_what_was_written_meanwhile() {
        let mut world = World::new().await;
        let mirror = world.mirror.clone();
        let head = || mirror.read(|reader| Ok((reader.feed()?.last_seq, reader.data_version()?)));
        let (before, first) = head().await.unwrap();
        world.sync(&[titled("a", "Agent")]).await;
        let (after, second) = head().await.unwrap();
        assert_eq!((before, after), (0, 1));
        // Another connection would begin to count anew.
        assert_ne!(first, second);

        // One within a transaction would go on to show the same moment.
        let reader = mirror.lend().await.unwrap();
        reader
            .conn
            .execute_batch("BEGIN; SELECT * FROM feed")
            .unwrap();
        mirror.rest(reader);
        world.sync(&[titled("a", "Boss")]).await;
        assert_eq!(head().await.unwrap().0, 2);
    }

    #[tokio::test]
    async fn an_error_or_a_panic_writes_nothing_and_a_panic_ends_the_writing() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        let before = world.dump();
        let failed = world
            .mirror
            .write(|writer| {
                writer.conn.execute("UPDATE feed SET last_seq = 99", [])?;
                Err::<(), _>(Error::Closed)
            })
            .await;
        assert!(matches!(failed, Err(Error::Closed)));
        assert_eq!((world.mirror.head(), &world.dump()), (1, &before));

        let panicked = world
            .mirror
            .write(|writer| -> Result<(), Error> {
                writer.conn.execute("DELETE FROM users", [])?;
                panic!("on purpose");
            })
            .await;
        assert!(panicked.is_err_and(|error| error.is_fatal()));
        let next = world.mirror.write(|writer| writer.reserve_sync()).await;
        assert!(next.is_err_and(|error| error.is_fatal()));
        assert_eq!(world.dump(), before);
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn a_file_that_was_replaced_or_lost_is_not_written() {
        for suffix in ["", "-wal", "-shm"] {
            let world = World::new().await;
            let file = file::companion(world.path(), suffix);
            let aside = world.dir.path().join("aside");
            let moved = file.clone();
            let written = world
                .mirror
                .write(move |writer| {
                    writer.reserve_sync()?;
                    std::fs::copy(&moved, &aside).unwrap();
                    std::fs::rename(&aside, &moved).unwrap();
                    Ok(())
                })
                .await;
            let told = written.unwrap_err();
            assert!(
                matches!(&told, Error::Replaced(path) if *path == file),
                "{told}"
            );
            assert!(world.mirror.checkpoint().await.is_err());
            // Nor is it read, for a sync that would compare with another file than it writes.
            let read = world.mirror.read(|reader| reader.feed()).await;
            assert!(matches!(read, Err(Error::Replaced(_))));
            let next = world.mirror.write(|writer| writer.reserve_sync()).await;
            assert!(matches!(next, Err(Error::Replaced(_))));
            assert!(world.mirror.close().await.is_err());
        }
    }

    #[tokio::test]
    async fn a_checkpoint_empties_the_log_unless_a_reader_holds_it() {
        let mut world = World::new().await;
        world.sync_as(FULL, &[titled("a", "Agent")]).await;
        let reader = world.reader();
        let hold = reader.conn.unchecked_transaction().unwrap();
        reader.feed().unwrap();
        world.sync_as(FULL, &[titled("a", "Boss")]).await;
        assert!(world.mirror.checkpoint().await.unwrap() > 0);
        drop(hold);
        assert_eq!(world.mirror.checkpoint().await.unwrap(), 0);
    }
}
