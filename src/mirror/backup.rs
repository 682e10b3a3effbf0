//! Whole copies of a mirror: a backup while the daemon writes, and one put back in its place.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::apply::Writer;
use super::error::Error;
use super::lock::Lock;
use super::read::Reader;
use super::seal::Touched;
use super::verify::Verified;
use super::{beside, connect, file, migrate, truncate_log};

impl Reader {
    /// Writes the state that the mirror has now into a new file: consistent, whatever is written meanwhile, and nobody waits for
    /// it. The file gets its name when it is complete and on the disk; until then it is `TO.unfinished`.
    ///
    /// # Errors
    /// When there is such a file, or of the file system or the database. Then there is no new file.
    pub fn back_up(&self, to: &Path) -> Result<(), Error> {
        if to.symlink_metadata().is_ok() {
            return Err(Error::Exists(to.to_owned()));
        }
        copy_as(&self.conn, to, &beside(to, "unfinished"))
    }
}

/// The same as [`copy`], under a name of its own until it is whole.
pub(super) fn copy_as(conn: &Connection, to: &Path, unfinished: &Path) -> Result<(), Error> {
    copy(conn, unfinished)?;
    std::fs::rename(unfinished, to).map_err(Error::file("name the copy", to))?;
    file::sync_directory(to)
}

/// Writes one state of a mirror into a file that is made anew, and lets it reach the disk. Leaves no file behind where that fails.
fn copy(conn: &Connection, to: &Path) -> Result<(), Error> {
    file::remove(to)?;
    // `VACUUM INTO` fills an empty file, and keeps its mode.
    file::create_new(to, 0o640)?;
    let copied = match to.to_str() {
        Some(name) => conn.execute("VACUUM INTO ?1", [name]),
        None => Err(rusqlite::Error::InvalidPath(to.to_owned())),
    };
    let written = copied.map_err(Error::from).and_then(|_| {
        std::fs::File::open(to)
            .and_then(|written| written.sync_all())
            .map_err(Error::file("finish the copy", to))
    });
    if written.is_err() {
        file::remove(to)?;
    }
    written
}

/// What [`restore`] did.
#[derive(Debug)]
pub struct Restored {
    /// What the backup was found to be before anything was put in its place.
    pub verified: Verified,
    /// Where the mirror that was there before is kept, if there was one.
    pub kept: Option<PathBuf>,
}

/// Puts a backup in the place of a mirror, or where none is. `epoch` is a new one: readers see by it that the numbers of the feed
/// begin anew, and read `users` again. The next sync of each source is a full one, because people may have left since the backup.
/// `stamp` is what the name of the file begins with that keeps the mirror of before.
///
/// A sound mirror is overwritten in one transaction, so that a reader that has it open sees the one or the other, and being killed
/// at any point leaves the one or the other. One that cannot be read is moved aside.
///
/// # Errors
/// When the backup is none, damaged, or written by a newer program; when the mirror is in use, or is no mirror; or of the file
/// system. Then the mirror is what it was.
pub fn restore(path: &Path, backup: &Path, epoch: &str, stamp: &str) -> Result<Restored, Error> {
    let directory = file::directory_of(path);
    if !directory.is_dir() {
        return Err(Error::NoDirectory(directory.to_owned()));
    }
    let lock = Lock::take(path)?;
    file::refuse_odd(path)?;
    let was_there = match file::check_header(path) {
        Err(Error::Missing(_)) => false,
        // It may be why an older program puts back what it had.
        Err(Error::Newer { .. }) => true,
        // Not ours: it stays what it is.
        checked => checked.map(|()| true)?,
    };
    let unborn = Unborn::of(path, backup, epoch)?;
    let verified = Reader::open(&unborn.path)?.verify(&mut |_| {})?;
    if let Some(difference) = &verified.difference {
        return Err(Error::BadBackup {
            path: backup.to_owned(),
            why: difference.clone(),
        });
    }
    let kept = was_there.then(|| beside(path, &format!("{stamp}.before-restore")));
    if let Some(kept) = &kept {
        if kept.symlink_metadata().is_ok() {
            return Err(Error::Exists(kept.clone()));
        }
        match overwrite(path, &unborn.path, kept) {
            Err(error) if error.is_damage() => move_aside(path, kept)?,
            overwritten => overwritten?,
        }
    }
    remove_stages(path)?;
    if path.symlink_metadata().is_err() {
        std::fs::rename(&unborn.path, path).map_err(Error::file("name the mirror", path))?;
    }
    file::sync_directory(path)?;
    drop(lock);
    Ok(Restored { verified, kept })
}

/// A copy of the backup beside the mirror, as the mirror is to be. Removed unless it gets the name of the mirror.
struct Unborn {
    path: PathBuf,
}

impl Unborn {
    fn of(path: &Path, backup: &Path, epoch: &str) -> Result<Self, Error> {
        file::check_header(backup).map_err(|error| match error {
            Error::Missing(path) => Error::file("open", path)(io::ErrorKind::NotFound.into()),
            error => error,
        })?;
        let unborn = Self {
            path: beside(path, "restored"),
        };
        let damaged = |error: Error| match error.is_damage() {
            true => Error::BadBackup {
                path: backup.to_owned(),
                why: "it cannot be read".into(),
            },
            false => error,
        };
        connect::reader(backup)
            .and_then(|from| copy(&from, &unborn.path))
            .map_err(damaged)?;
        let mut conn = connect::writer(&unborn.path)?;
        migrate::climb_to_newest(&mut conn)?;
        if let Some(why) = migrate::schema_difference(&conn)? {
            return Err(Error::BadBackup {
                path: backup.to_owned(),
                why,
            });
        }
        let touched = Touched::watch(&mut conn)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Writer::new(&tx).begin_anew(epoch)?;
        touched.seal(&tx)?;
        tx.commit()?;
        truncate_log(&conn)?;
        Ok(unborn)
    }
}

impl Drop for Unborn {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm"] {
            // What is left is removed by the next restore.
            let _removed = file::remove(&file::companion(&self.path, suffix));
        }
    }
}

impl Writer<'_> {
    /// Says that the numbers of the feed begin anew, and lets each source be read in full.
    fn begin_anew(&self, epoch: &str) -> Result<(), Error> {
        self.conn.execute("UPDATE feed SET epoch = ?1", [epoch])?;
        self.conn
            .execute("UPDATE sources SET watermark = NULL", [])?;
        Ok(())
    }
}

/// Makes the content of one mirror that of another, in one transaction of it. What it was is in `kept`.
fn overwrite(path: &Path, with: &Path, kept: &Path) -> Result<(), Error> {
    let mut conn = connect::writer(path)?;
    copy_as(&conn, kept, &beside(path, "before-new"))?;
    let from = connect::reader(with)?;
    let copied = Backup::new(&from, &mut conn)?.step(-1)?;
    if copied != StepResult::Done {
        return Err(Error::Busy(path.to_owned()));
    }
    truncate_log(&conn)
}

/// Moves a mirror that cannot be read out of the way, its log first: were the log left beside a new file, SQLite might take it for
/// that one's.
fn move_aside(path: &Path, kept: &Path) -> Result<(), Error> {
    // A copy, where its pages are read in another order than they were written over.
    file::remove(kept)?;
    file::remove(&file::companion(path, "-shm"))?;
    for suffix in ["-wal", ""] {
        let (from, to) = (file::companion(path, suffix), file::companion(kept, suffix));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("move aside", from)(error));
            }
            _ => {}
        }
    }
    file::sync_directory(path)
}

/// What an interrupted sync has read goes with what it was read for.
fn remove_stages(path: &Path) -> Result<(), Error> {
    let directory = file::directory_of(path);
    let stages = beside(path, "stage-");
    let entries = std::fs::read_dir(directory).map_err(Error::file("read", directory))?;
    for entry in entries {
        let entry = entry.map_err(Error::file("read", directory))?.path();
        let names =
            [&entry, &stages].map(|path| path.file_name().unwrap_or_default().as_encoded_bytes());
        if names[0].starts_with(names[1]) {
            file::remove(&entry)?;
        }
    }
    Ok(())
}

impl Error {
    /// Whether a database cannot be read, or is none.
    fn is_damage(&self) -> bool {
        match self {
            Self::Database(source) | Self::Unreadable { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            Self::Damaged(_) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::Mirror;
    use super::super::testing::{FULL, World, titled};
    use super::*;

    const STAMP: &str = "20260101T000000Z";

    /// A mirror of two users, and a backup of it; then one of the two has another title, and a third came.
    async fn backed_up() -> (World, PathBuf) {
        let mut world = World::new().await;
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss")])
            .await;
        let file = world.dir.path().join("backup.db");
        world.reader().back_up(&file).unwrap();
        let now = [
            titled("a", "Chief"),
            titled("b", "Boss"),
            titled("c", "Clerk"),
        ];
        world.sync(&now).await;
        (world, file)
    }

    /// The world with its mirror closed, as when the daemon was stopped.
    async fn closed(world: World) -> (tempfile::TempDir, PathBuf) {
        let path = world.path().to_owned();
        let World { mirror, dir, .. } = world;
        mirror.close().await.unwrap();
        (dir, path)
    }

    fn ask<T: rusqlite::types::FromSql>(conn: &Connection, sql: &str) -> T {
        conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    const TITLES: &str = "SELECT group_concat(id || title) FROM users";

    #[tokio::test]
    async fn a_backup_is_one_state_also_while_somebody_writes() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        let (path, file) = (world.path().to_owned(), world.dir.path().join("backup.db"));
        let to = file.clone();
        // The writer is in the middle of a transaction.
        let written = world.mirror.write(move |writer| {
            writer
                .conn
                .execute("UPDATE feed SET epoch = 'not yet'", [])?;
            Reader::open(&path)?.back_up(&to)
        });
        written.await.unwrap();
        let copy = Reader::open(&file).unwrap();
        assert_eq!(copy.verify(&mut |_| {}).unwrap().difference, None);
        assert_ne!(
            ask::<String>(&copy.conn, "SELECT epoch FROM feed"),
            "not yet"
        );
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(world.ask::<String>("SELECT epoch FROM feed"), "not yet");

        // What is there already is somebody's only backup.
        let again = world.reader().back_up(&file);
        assert!(matches!(again, Err(Error::Exists(_))));
        assert!(!beside(&file, "unfinished").exists());
    }

    #[tokio::test]
    async fn a_restored_mirror_has_a_new_epoch_and_its_next_sync_is_full() {
        let (world, file) = backed_up().await;
        let reading = Connection::open(world.path()).unwrap();
        assert_eq!(ask::<String>(&reading, TITLES), "aChief,bBoss,cClerk");
        let before: String = ask(&reading, "SELECT epoch FROM feed");
        let stage = beside(world.path(), "stage-acme-full");
        std::fs::write(&stage, "").unwrap();
        let (_dir, path) = closed(world).await;

        let restored = restore(&path, &file, "e2", STAMP).unwrap();
        assert_eq!(restored.verified.users, 2);
        // Who has it open sees it without opening it again.
        assert_eq!(ask::<String>(&reading, TITLES), "aAgent,bBoss");
        assert_eq!(ask::<String>(&reading, "SELECT epoch FROM feed"), "e2");
        assert!(ask::<bool>(
            &reading,
            "SELECT watermark IS NULL AND baseline_at IS NOT NULL FROM sources"
        ));
        assert!(!stage.exists() && !beside(&path, "restored").exists());
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.verify(&mut |_| {}).unwrap().difference, None);

        let kept = Reader::open(&restored.kept.unwrap()).unwrap();
        assert_eq!(ask::<String>(&kept.conn, TITLES), "aChief,bBoss,cClerk");
        assert_eq!(ask::<String>(&kept.conn, "SELECT epoch FROM feed"), before);
        Mirror::open(&path, "unused")
            .unwrap()
            .close()
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_mirror_that_is_missing_damaged_or_newer_gives_way() {
        for case in ["missing", "damaged", "newer"] {
            let (world, file) = backed_up().await;
            let (_dir, path) = closed(world).await;
            match case {
                "missing" => migrate_away(&path),
                "damaged" => {
                    let mut bytes = std::fs::read(&path).unwrap();
                    bytes[200..].fill(0xa5);
                    std::fs::write(&path, bytes).unwrap();
                }
                _ => Connection::open(&path)
                    .unwrap()
                    .pragma_update(None, "user_version", 99)
                    .unwrap(),
            }
            let restored = restore(&path, &file, "e2", STAMP).unwrap();
            assert_eq!(restored.kept.is_some(), case != "missing", "{case}");
            assert!(restored.kept.is_none_or(|kept| kept.exists()), "{case}");
            // What readers need comes with the first start.
            Mirror::open(&path, "unused")
                .unwrap()
                .close()
                .await
                .unwrap();
            let reader = Reader::open(&path).unwrap();
            assert_eq!(
                reader.verify(&mut |_| {}).unwrap().difference,
                None,
                "{case}"
            );
            assert_eq!(
                ask::<String>(&reader.conn, TITLES),
                "aAgent,bBoss",
                "{case}"
            );
        }
    }

    fn migrate_away(path: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            std::fs::remove_file(file::companion(path, suffix)).unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_no_sound_backup_changes_nothing() {
        let (world, file) = backed_up().await;
        let in_use = restore(world.path(), &file, "e2", STAMP);
        assert!(matches!(in_use, Err(Error::Locked(_))));
        let folder = world.dir.path().to_owned();
        let (_dir, path) = closed(world).await;
        let bytes = || std::fs::read(&path).unwrap();
        let before = bytes();
        let with = |name: &str, change: &dyn Fn(&Connection)| {
            let bad = folder.join(name);
            std::fs::copy(&file, &bad).unwrap();
            change(&Connection::open(&bad).unwrap());
            bad
        };
        let altered = with("altered.db", &|conn| {
            conn.execute_batch("UPDATE users SET title = 'Thief'")
                .unwrap();
        });
        let trigger = with("trigger.db", &|conn| {
            conn.execute_batch(
                "CREATE TRIGGER t AFTER UPDATE ON users BEGIN DELETE FROM feed; END",
            )
            .unwrap();
        });
        let newer = with("newer.db", &|conn| {
            conn.pragma_update(None, "user_version", 99).unwrap();
        });
        let torn = folder.join("torn.db");
        let mut bytes_of_it = std::fs::read(&file).unwrap();
        bytes_of_it[8192..].fill(0x5a);
        std::fs::write(&torn, bytes_of_it).unwrap();
        let text = folder.join("text.db");
        std::fs::write(&text, "users: a, b").unwrap();
        for (bad, expected) in [
            (altered, "column `title`"),
            (trigger, "trigger"),
            (newer, "schema version 99"),
            (torn, "not sound"),
            (text, "not a mirror"),
            (folder.join("nowhere.db"), "nowhere.db"),
        ] {
            let told = restore(&path, &bad, "e2", STAMP).err().unwrap().to_string();
            assert!(told.contains(expected), "{told}");
            assert_eq!(bytes(), before, "{}", bad.display());
            assert!(!beside(&path, "restored").exists());
        }
        // Nor is anything but a mirror overwritten.
        let other = folder.join("other.db");
        Connection::open(&other)
            .unwrap()
            .execute_batch("CREATE TABLE t (x)")
            .unwrap();
        let other_before = std::fs::read(&other).unwrap();
        let told = restore(&other, &file, "e2", STAMP);
        assert!(matches!(told, Err(Error::Foreign { .. })));
        assert_eq!(std::fs::read(&other).unwrap(), other_before);
    }

    #[tokio::test]
    async fn the_feed_goes_on_after_a_restore() {
        let (world, file) = backed_up().await;
        let (dir, path) = closed(world).await;
        restore(&path, &file, "e2", STAMP).unwrap();
        let mirror = Mirror::open(&path, "unused").unwrap();
        let mut world = World {
            mirror,
            dir,
            ..World::new().await
        };
        world
            .sync_as(
                FULL,
                &[
                    titled("a", "Chief"),
                    titled("b", "Boss"),
                    titled("c", "Clerk"),
                ],
            )
            .await;
        assert_eq!(world.ask::<String>(TITLES), "aChief,bBoss,cClerk");
        assert_eq!(world.difference(), None);
    }
}
