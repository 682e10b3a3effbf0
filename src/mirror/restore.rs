//! Puts a backup in the place of a mirror.

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
use super::{backup, beside, connect, file, migrate, schema, truncate_log};

/// What [`restore`] did.
#[derive(Debug)]
pub struct Restored {
    /// What the backup was found to be before anything was put in its place.
    pub verified: Verified,
    /// Where the mirror that was there before is kept, if there was one; its log, if that was all.
    pub kept: Option<PathBuf>,
    /// What could not be put in order after the backup was in its place.
    pub untidy: Option<Error>,
}

/// Puts a backup in the place of a mirror, or where none is. `epoch` is a new one: readers see by it that the numbers of the feed
/// begin anew, and read `users` again. The next sync of each source is a full one, because people may have left since the backup;
/// an instance that asked to be let be is let be (promise P8). `stamp` is what the name of the file begins with that keeps the
/// mirror of before.
///
/// A sound mirror is overwritten in one transaction, so that a reader that has it open sees the one or the other. The place of one
/// that cannot be read is taken in one step. Being killed at any point leaves the one or the other.
///
/// # Errors
/// When the backup is none, damaged, or written by a newer program; when the mirror is in use, or is another program's database;
/// or of the file system. Then the mirror is what it was.
pub fn restore(path: &Path, backup: &Path, epoch: &str, stamp: &str) -> Result<Restored, Error> {
    let directory = file::directory_of(path);
    if !directory.is_dir() {
        return Err(Error::NoDirectory(directory.to_owned()));
    }
    let lock = Lock::take(path)?;
    file::refuse_odd(path)?;
    let found = Found::at(path)?;
    let kept = beside(path, &format!("{stamp}.before-restore"));
    for suffix in ["", "-wal"] {
        let kept = file::companion(&kept, suffix);
        if kept.symlink_metadata().is_ok() {
            return Err(Error::Exists(kept));
        }
    }
    let unborn = Unborn::of(path, backup)?;
    let verified = Reader::open(&unborn.path)?.verify(&mut |_| {})?;
    if let Some(difference) = &verified.difference {
        return Err(bad(backup, difference.clone()));
    }
    let waits = match found {
        Found::Mirror => waits_of(path).unwrap_or_default(),
        Found::Nothing | Found::Unreadable => Vec::new(),
    };
    unborn.begin_anew(epoch, &waits)?;
    let (kept, untidy) = match found {
        Found::Mirror => match overwrite(path, &unborn.path, &kept) {
            Ok(untidy) => (Some(kept), untidy),
            Err(error) if is_damage(&error) => (replace(path, &unborn, &kept)?, None),
            Err(error) => return Err(error),
        },
        Found::Nothing | Found::Unreadable => (replace(path, &unborn, &kept)?, None),
    };
    let untidy = untidy.or(remove_stages(path).err());
    drop(lock);
    Ok(Restored {
        verified,
        kept,
        untidy,
    })
}

/// `ENOENT`, the same on every Unix.
const ENOENT: i32 = 2;

/// What has the mirror's name.
#[derive(Clone, Copy)]
enum Found {
    Nothing,
    /// Ours, as far as its first bytes tell.
    Mirror,
    /// No database at all: its first page is lost.
    Unreadable,
}

impl Found {
    fn at(path: &Path) -> Result<Self, Error> {
        match file::check_header(path) {
            Ok(()) => Ok(Self::Mirror),
            // It may be why an older program puts back what it had.
            Err(Error::Newer { .. }) => Ok(Self::Mirror),
            Err(Error::Missing(_)) => Ok(Self::Nothing),
            Err(Error::NoDatabase { .. }) => Ok(Self::Unreadable),
            // Another program's: it stays what it is.
            Err(error) => Err(error),
        }
    }
}

/// A copy of the backup beside the mirror, as the mirror is to be. Removed unless it gets the name of the mirror.
struct Unborn {
    path: PathBuf,
}

impl Unborn {
    /// The backup in this program's schema, and not yet verified.
    fn of(path: &Path, backup: &Path) -> Result<Self, Error> {
        file::check_header(backup).map_err(|error| match error {
            Error::Missing(path) => Error::file("open", path)(io::Error::from_raw_os_error(ENOENT)),
            error => error,
        })?;
        let unborn = Self {
            path: beside(path, "restored"),
        };
        // Beside a file of this name they would be taken for its own.
        unborn.remove_companions()?;
        let copied = connect::reader(backup).and_then(|from| backup::copy(&from, &unborn.path));
        // A page number that leads nowhere is taken for the end of the room as well.
        let is_full = |error: &Error| matches!(error, Error::Database(cause) if cause.sqlite_error_code() == Some(ErrorCode::DiskFull));
        copied.map_err(|error| {
            match is_damage(&error) || is_full(&error) && !is_sound(backup) {
                true => bad(backup, "it cannot be read".into()),
                false => error,
            }
        })?;
        let mut conn = connect::writer(&unborn.path)?;
        migrate::climb_to_newest(&mut conn)?;
        match schema::difference(&conn)? {
            Some(why) => Err(bad(backup, why)),
            None => Ok(unborn),
        }
    }

    /// Says that the numbers of the feed begin anew, and lets each source be read in full.
    fn begin_anew(&self, epoch: &str, waits: &[Wait]) -> Result<(), Error> {
        let mut conn = connect::writer(&self.path)?;
        let touched = Touched::watch(&mut conn)?;
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Writer::new(&tx, &touched).begin_anew(epoch, waits)?;
        touched.seal(&tx)?;
        tx.commit()?;
        truncate_log(&conn)
    }

    fn remove_companions(&self) -> Result<(), Error> {
        for suffix in ["-wal", "-shm"] {
            file::remove(&file::companion(&self.path, suffix))?;
        }
        Ok(())
    }
}

impl Drop for Unborn {
    fn drop(&mut self) {
        // What is left is removed by the next restore.
        let _left = self.remove_companions();
        let _left = file::remove(&self.path);
    }
}

/// Whether every page of a file leads where it should.
fn is_sound(path: &Path) -> bool {
    let first = |conn: Connection| {
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
            .map_err(Error::Database)
    };
    connect::reader(path)
        .and_then(first)
        .is_ok_and(|found| found == "ok")
}

/// Until when an instance asked to be let be: its name, and the time as text.
type Wait = (String, String);

/// What the mirror knows of that.
fn waits_of(path: &Path) -> Result<Vec<Wait>, Error> {
    let conn = connect::reader(path)?;
    let mut waits =
        conn.prepare("SELECT name, not_before FROM instances WHERE not_before IS NOT NULL")?;
    let rows = waits.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Writer<'_> {
    fn begin_anew(&self, epoch: &str, waits: &[Wait]) -> Result<(), Error> {
        self.conn.execute("UPDATE feed SET epoch = ?1", [epoch])?;
        self.conn
            .execute("UPDATE sources SET watermark = NULL", [])?;
        for (instance, not_before) in waits {
            // Our times are texts in the order of time.
            self.conn.execute(
                "UPDATE instances SET not_before = max(coalesce(not_before, ''), ?2) WHERE name = ?1",
                [instance, not_before],
            )?;
        }
        Ok(())
    }
}

/// Makes the content of a mirror that of another, in one transaction of it. What it was is in `kept`. Returns what could not be
/// put in order afterwards.
fn overwrite(path: &Path, with: &Path, kept: &Path) -> Result<Option<Error>, Error> {
    let mut conn = connect::writer(path)?;
    backup::copy_as(&conn, kept, &beside(path, "before-new"))?;
    let copied = copy_pages(with, path, &mut conn);
    if copied.is_err() {
        // The mirror is what it was, and nobody would ask for a copy of it.
        file::remove(kept)?;
    }
    copied?;
    Ok(truncate_log(&conn).err())
}

fn copy_pages(from: &Path, path: &Path, to: &mut Connection) -> Result<(), Error> {
    let from = connect::reader(from)?;
    match Backup::new(&from, to)?.step(-1)? {
        StepResult::Done => Ok(()),
        _ => Err(Error::Busy(path.to_owned())),
    }
}

/// Takes the place of a mirror that cannot be read, or of none, in one step. Returns where it is kept, or what was left of it.
fn replace(path: &Path, unborn: &Unborn, kept: &Path) -> Result<Option<PathBuf>, Error> {
    let log = file::set_log_aside(path, &file::companion(kept, "-wal"))?;
    let was_there = match std::fs::hard_link(path, kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        linked => linked
            .map(|()| true)
            .map_err(Error::file("keep the mirror as", kept))?,
    };
    std::fs::rename(&unborn.path, path).map_err(Error::file("name the mirror", path))?;
    file::sync_directory(path)?;
    Ok(was_there.then(|| kept.to_owned()).or(log))
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

fn bad(backup: &Path, why: String) -> Error {
    Error::BadBackup {
        path: backup.to_owned(),
        why,
    }
}

/// Whether a database cannot be read, or is none.
fn is_damage(error: &Error) -> bool {
    match error {
        Error::Database(source) | Error::Unreadable { source, .. } => matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ),
        Error::Damaged(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
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
        world.reader().back_up(&file, "of the backup").unwrap();
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

    /// What was killed leaves its log beside the file: with an unmoved change of the mirror, as `-wal` and `-shm` have it.
    async fn killed(world: World) -> (tempfile::TempDir, PathBuf) {
        let path = world.path().to_owned();
        let World { mirror, dir, .. } = world;
        // Copies are what a process that died has left, whose locks are gone.
        let left = tempfile::tempdir().unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let from = file::companion(&path, suffix);
            std::fs::copy(&from, left.path().join(from.file_name().unwrap())).unwrap();
        }
        std::fs::copy(dir.path().join("backup.db"), left.path().join("backup.db")).unwrap();
        drop(mirror);
        let path = left.path().join(path.file_name().unwrap());
        assert!(file::companion(&path, "-wal").metadata().unwrap().len() > 0);
        (left, path)
    }

    #[tokio::test]
    async fn whatever_is_in_its_place_gives_way() {
        type Damage = fn(&Path);
        let cases: [(&str, Damage); 6] = [
            ("moved away", |path| std::fs::remove_file(path).unwrap()),
            ("moved away with all", |path| {
                for suffix in ["", "-wal", "-shm"] {
                    std::fs::remove_file(file::companion(path, suffix)).unwrap();
                }
            }),
            ("damaged", |path| {
                let mut bytes = std::fs::read(path).unwrap();
                bytes[200..].fill(0xa5);
                std::fs::write(path, bytes).unwrap();
                std::fs::remove_file(file::companion(path, "-wal")).unwrap();
            }),
            ("of zeros", |path| {
                let length = path.metadata().unwrap().len();
                std::fs::write(path, vec![0; usize::try_from(length).unwrap()]).unwrap();
            }),
            ("empty", |path| std::fs::write(path, "").unwrap()),
            ("newer", |path| {
                let conn = Connection::open(path).unwrap();
                conn.pragma_update(None, "user_version", 99).unwrap();
            }),
        ];
        for (case, damage) in cases {
            let (world, _) = backed_up().await;
            let (dir, path) = killed(world).await;
            damage(&path);
            let file = dir.path().join("backup.db");
            let restored = restore(&path, &file, "e2", STAMP).unwrap();
            assert_eq!(
                restored.kept.is_some(),
                case != "moved away with all",
                "{case}"
            );
            assert!(restored.kept.is_none_or(|kept| kept.exists()), "{case}");
            assert!(restored.untidy.is_none(), "{case}");
            // What readers need comes with the first start.
            let mirror = Mirror::open(&path, "unused").unwrap();
            mirror.close().await.unwrap();
            let reader = Reader::open(&path).unwrap();
            let verified = reader.verify(&mut |_| {}).unwrap();
            assert_eq!(verified.difference, None, "{case}");
            let titles: String = ask(&reader.conn, TITLES);
            assert_eq!(titles, "aAgent,bBoss", "{case}");
            let epoch: String = ask(&reader.conn, "SELECT epoch FROM feed");
            assert_eq!(epoch, "e2", "{case}");
        }
    }

    #[tokio::test]
    async fn a_new_mirror_takes_no_log_of_another_for_its_own() {
        let (world, _) = backed_up().await;
        let (dir, path) = killed(world).await;
        std::fs::remove_file(&path).unwrap();
        let mirror = Mirror::open(&path, "e3").unwrap();
        let reader = mirror.reader().unwrap();
        assert_eq!(ask::<i64>(&reader.conn, "SELECT count(*) FROM users"), 0);
        assert_eq!(ask::<String>(&reader.conn, "SELECT epoch FROM feed"), "e3");
        assert!(dir.path().join("mirror.db.e3.orphaned-wal").exists());
    }

    #[tokio::test]
    async fn an_instance_that_asked_to_be_let_be_is_let_be() {
        let (world, file) = backed_up().await;
        let waits = |at: &str| format!("UPDATE instances SET not_before = '{at}'");
        let later = waits("2030-01-01T00:00:00.000Z");
        let write = world
            .mirror
            .write(move |writer| Ok(writer.conn.execute(&later, [])?));
        assert_eq!(write.await.unwrap(), 1);
        let (_dir, path) = closed(world).await;
        restore(&path, &file, "e2", STAMP).unwrap();
        let reader = Reader::open(&path).unwrap();
        let not_before: String = ask(&reader.conn, "SELECT not_before FROM instances");
        assert_eq!(not_before, "2030-01-01T00:00:00.000Z");
        assert_eq!(reader.verify(&mut |_| {}).unwrap().difference, None);
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
        let source = with("source.db", &|conn| {
            conn.execute_batch("UPDATE sources SET baseline_at = NULL")
                .unwrap();
        });
        let number = with("number.db", &|conn| {
            conn.execute_batch("UPDATE sqlite_sequence SET seq = 99")
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
            (source, "column `baseline_at`"),
            (number, "column `seq`"),
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
