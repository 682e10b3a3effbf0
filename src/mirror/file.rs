//! The mirror's file before SQLite touches it: whether it is ours, and whether it still is the one that was opened.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::Error;
use super::migrate;

/// `PRAGMA application_id` of a mirror: "must" in ASCII. It tells our files from other programs' (and `file(1)` shows it).
pub(super) const APPLICATION_ID: i32 = 0x6d75_7374;

/// Where SQLite keeps things in the first 100 bytes of a file (its file format page, section 1.3).
const HEADER_BYTES: u64 = 100;
const MAGIC: &[u8] = b"SQLite format 3\0";
const USER_VERSION: std::ops::Range<usize> = 60..64;
const APPLICATION: std::ops::Range<usize> = 68..72;

/// Refuses a path where something else than a regular file is. Nothing there is fine.
pub(super) fn refuse_odd(path: &Path) -> Result<(), Error> {
    match path.symlink_metadata() {
        Ok(found) if !found.is_file() => Err(Error::NotAFile(path.to_owned())),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::file("look at", path)(error)),
    }
}

/// Reads the header of an existing file without SQLite, so that a foreign or newer one stays byte for byte what it is.
///
/// An empty file is foreign as well: we never leave one (a new mirror gets its name when it is complete), so something
/// was lost, and filling it would hide that.
pub(super) fn check_header(path: &Path) -> Result<(), Error> {
    let foreign = |why: String| Error::Foreign {
        path: path.to_owned(),
        why,
    };
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Missing(path.to_owned()),
        _ => Error::file("open", path)(error),
    })?;
    let mut header = Vec::with_capacity(100);
    file.take(HEADER_BYTES)
        .read_to_end(&mut header)
        .map_err(Error::file("read", path))?;
    let no_database = |why| Error::NoDatabase {
        path: path.to_owned(),
        why,
    };
    if header.is_empty() {
        return Err(no_database("it is empty"));
    }
    let number = |place: std::ops::Range<usize>| {
        header
            .get(place)
            .and_then(|bytes| bytes.try_into().ok())
            .map(i32::from_be_bytes)
    };
    let (Some(version), Some(application), true) = (
        number(USER_VERSION),
        number(APPLICATION),
        header.starts_with(MAGIC),
    ) else {
        return Err(no_database("it is no SQLite database"));
    };
    if application != APPLICATION_ID {
        return Err(foreign(format!(
            "it is the database of another program (application id {application:#010x})"
        )));
    }
    check_version(path, i64::from(version))
}

/// Refuses a schema version that this program does not know.
pub(super) fn check_version(path: &Path, found: i64) -> Result<(), Error> {
    let known = migrate::VERSION;
    match found {
        found if found > known => Err(Error::Newer {
            path: path.to_owned(),
            found,
            known,
        }),
        found if found < 1 => Err(Error::Foreign {
            path: path.to_owned(),
            why: format!("its schema version is {found}"),
        }),
        _ => Ok(()),
    }
}

/// Refuses to begin what a nearly full disk would only let fail halfway.
pub(super) fn check_room(path: &Path, needed: u64) -> Result<(), Error> {
    // Where the system does not tell, the disk does when it is full.
    let Ok(found) = rustix::fs::statvfs(directory_of(path)) else {
        return Ok(());
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let path = path.to_owned();
    Err(Error::NoRoom { path, free, needed })
}

/// Creates an empty file that must not exist yet.
pub(super) fn create_new(path: &Path, mode: u32) -> Result<(), Error> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(Error::file("create", path))?;
    Ok(())
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::file("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Moves the log of a file that is there no more, or cannot be read, out of the way: beside a new file of the name SQLite would take
/// it for that one's, and write its pages over it. Returns where it is, if anything was in it.
pub(super) fn set_log_aside(path: &Path, to: &Path) -> Result<Option<PathBuf>, Error> {
    remove(&companion(path, "-shm"))?;
    let log = companion(path, "-wal");
    let length = match log.symlink_metadata() {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("look at", log)(error)),
    };
    if length == 0 {
        remove(&log)?;
    } else {
        std::fs::rename(&log, to).map_err(Error::file("move aside", log))?;
    }
    // It is gone before the new file has the name, also after a power cut.
    sync_directory(path)?;
    Ok((length > 0).then(|| to.to_owned()))
}

/// Makes a rename or a new name in the file's directory survive a power cut.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    let directory = directory_of(path);
    File::open(directory)
        .and_then(|open| open.sync_all())
        .map_err(Error::file("sync the directory", directory))
}

/// The directory that holds a file.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// `FILE-suffix`: the names that SQLite gives its own files.
pub(super) fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// What the open mirror consists of: the file, `-wal` and `-shm`, by device and inode.
///
/// SQLite writes on into a file that was unlinked, and would lose it all in silence. While we have the mirror open nobody
/// who keeps to SQLite's locks removes or replaces one of the three.
#[derive(Debug)]
pub(super) struct Identity([(PathBuf, (u64, u64)); 3]);

impl Identity {
    /// Of a mirror that is open in WAL mode and was read from.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let of = |path: PathBuf| match inode(&path) {
            Ok(inode) => Ok((path, inode)),
            Err(error) => Err(Error::file("look at", path)(error)),
        };
        Ok(Self([
            of(path.to_owned())?,
            of(companion(path, "-wal"))?,
            of(companion(path, "-shm"))?,
        ]))
    }

    /// Three `stat` calls: cheap enough before each commit.
    pub(super) fn check(&self) -> Result<(), Error> {
        for (path, known) in &self.0 {
            if inode(path).ok() != Some(*known) {
                return Err(Error::Replaced(path.clone()));
            }
        }
        Ok(())
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    Ok(inode_of(&path.symlink_metadata()?))
}

fn inode_of(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// The file that a path led to, links followed: by device and inode.
///
/// SQLite opens a file by its path. It is the same file where this is asked before, and holds afterwards.
pub(super) struct Place {
    path: PathBuf,
    inode: (u64, u64),
}

impl Place {
    /// `None` where nothing is that can be looked at.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let found = path.metadata().ok()?;
        Some(Self {
            path: path.to_owned(),
            inode: inode_of(&found),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path leads to the same file as before.
    pub(super) fn holds(&self) -> bool {
        Self::of(&self.path).is_some_and(|found| found.inode == self.inode)
    }
}
