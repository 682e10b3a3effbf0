//! Whole copies of a mirror, made while others write it.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::error::Error;
use super::file;
use super::read::Reader;
use super::seal::Touched;
use super::verify::Verified;

/// Of a copy, as of the mirror.
const MODE: u32 = 0o640;

impl Reader {
    /// Writes the state that the mirror has now into a new file: consistent, whatever is written meanwhile, and nobody waits for
    /// it. Its feed has this epoch, a new one: were the file put in the mirror's place by hand, its numbers would be given out
    /// a second time (promise P3). The file gets its name when it is verified and on the disk. Returns what it was found to be.
    ///
    /// # Errors
    /// When there is such a file, when what would be in it is not sound, or of the file system or the database. Then there is no
    /// new file.
    pub fn back_up(&self, to: &Path, epoch: &str) -> Result<Verified, Error> {
        if to.symlink_metadata().is_ok() {
            return Err(Error::Exists(to.to_owned()));
        }
        let mut prefix = to.file_name().unwrap_or_default().to_owned();
        prefix.push(".unfinished-");
        // Two that make the same backup are in nobody's way.
        let unfinished = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(file::directory_of(to))
            .map_err(Error::file("create a file beside", to))?;
        vacuum_into(&self.conn, unfinished.path())?;
        // Before anything of it is written and sealed anew.
        let verified = Self::open(unfinished.path())?.verify(&mut |_| {})?;
        if let Some(difference) = verified.difference {
            return Err(Error::Damaged(difference));
        }
        name_anew(unfinished.path(), epoch)?;
        sync(unfinished.path())?;
        unfinished
            .persist_noclobber(to)
            .map_err(|error| match error.error.kind() {
                std::io::ErrorKind::AlreadyExists => Error::Exists(to.to_owned()),
                _ => Error::file("name the backup", to)(error.error),
            })?;
        file::sync_directory(to)?;
        Ok(verified)
    }
}

/// Gives the feed of a copy another epoch.
fn name_anew(copy: &Path, epoch: &str) -> Result<(), Error> {
    let mut conn = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let touched = Touched::watch(&mut conn)?;
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute("UPDATE feed SET epoch = ?1", [epoch])?;
    touched.seal(&tx)?;
    tx.commit()?;
    conn.close().map_err(|(_, error)| error.into())
}

/// Writes one state of a mirror into a file that nobody else writes: as `unfinished` until it is whole and on the disk. Leaves no
/// file behind where that fails.
pub(super) fn copy_as(conn: &Connection, to: &Path, unfinished: &Path) -> Result<(), Error> {
    copy(conn, unfinished)?;
    std::fs::rename(unfinished, to).map_err(Error::file("name the copy", to))?;
    file::sync_directory(to)
}

/// The same under its own name.
pub(super) fn copy(conn: &Connection, to: &Path) -> Result<(), Error> {
    // What lies there was left by somebody who was killed.
    file::remove(to)?;
    file::create_new(to, MODE)?;
    let written = vacuum_into(conn, to).and_then(|()| sync(to));
    if written.is_err() {
        file::remove(to)?;
    }
    written
}

/// Fills an empty file, which keeps its mode.
fn vacuum_into(conn: &Connection, to: &Path) -> Result<(), Error> {
    let name = to
        .to_str()
        .ok_or_else(|| rusqlite::Error::InvalidPath(to.to_owned()))?;
    conn.execute("VACUUM INTO ?1", [name])?;
    Ok(())
}

fn sync(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|written| written.sync_all())
        .map_err(Error::file("finish the copy", path))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};

    use super::super::testing::{World, titled};
    use super::*;

    fn epoch_of(path: &Path) -> String {
        let reader = Reader::open(path).unwrap();
        assert_eq!(reader.verify(&mut |_| {}).unwrap().difference, None);
        reader.feed().unwrap().epoch
    }

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
                .execute("UPDATE users SET title = 'not yet'", [])?;
            Reader::open(&path)?.back_up(&to, "e2")
        });
        written.await.unwrap();
        assert_eq!(epoch_of(&file), "e2");
        let copy = Reader::open(&file).unwrap();
        let title = copy
            .conn
            .query_row("SELECT title FROM users", [], |row| row.get(0));
        assert_eq!(title, Ok("Agent".to_owned()));
        assert_eq!(world.ask::<String>("SELECT title FROM users"), "not yet");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
        assert_ne!(world.ask::<String>("SELECT epoch FROM feed"), "e2");
    }

    #[tokio::test]
    async fn what_is_not_sound_is_not_backed_up() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        let to = world.dir.path().join("backup.db");
        for damage in [
            "UPDATE users SET title = 'Thief'",
            "UPDATE feed SET first_seq = 2",
            "UPDATE sqlite_sequence SET seq = 9",
        ] {
            Connection::open(world.path())
                .unwrap()
                .execute_batch(damage)
                .unwrap();
            let told = world.reader().back_up(&to, "e2");
            assert!(matches!(told, Err(Error::Damaged(_))), "{damage}");
            assert_eq!(world.dir.path().read_dir().unwrap().count(), 4, "{damage}");
        }
    }

    #[tokio::test]
    async fn of_two_backups_to_one_name_one_is_made_and_the_other_told() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        let (path, to) = (world.path().to_owned(), world.dir.path().join("backup.db"));
        let together = Arc::new(Barrier::new(2));
        let threads = ["e2", "e3"].map(|epoch| {
            let (path, to, together) = (path.clone(), to.clone(), Arc::clone(&together));
            std::thread::spawn(move || {
                let reader = Reader::open(&path).unwrap();
                together.wait();
                reader.back_up(&to, epoch).map(|_| epoch)
            })
        });
        let made = threads.map(|thread| thread.join().unwrap());
        let [epoch] = &made.iter().flatten().collect::<Vec<_>>()[..] else {
            panic!("{made:?}");
        };
        assert_eq!(epoch_of(&to), **epoch);
        assert!(
            made.iter()
                .any(|made| matches!(made, Err(Error::Exists(_))))
        );
        let names = world.dir.path().read_dir().unwrap();
        let left = names.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().contains("unfinished")
        });
        assert_eq!(left.count(), 0);
    }
}
