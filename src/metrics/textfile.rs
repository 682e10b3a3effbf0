//! The file that a node exporter reads. It appears as a whole or not at all.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Who scrapes is another account, and nothing in the file concerns a person.
const MODE: u32 = 0o644;

/// Replaces the file at `path` by one with this text. Does file I/O: not for the runtime's own threads.
///
/// Nothing is synced to the disk: after a power cut the next write, a minute later, puts right what is left.
///
/// # Errors
/// Of the file system; the file is as it was then.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    replace(path, text, MODE)
}

/// The same for a file with these rights.
///
/// # Errors
/// As [`write()`].
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let beside = beside(path)?;
    // One that a killed process left is in the way of `create_new`, which follows no link that somebody laid there.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _gone => {}
    }
    let written = fill(&beside, text, mode).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // What is left would be taken away by the next write as well.
        let _stays = fs::remove_file(&beside);
    }
    written
}

fn fill(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // The process's umask has taken the rights of others away.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())
}

/// In the same folder, so that renaming is one step; hidden and with another ending, so that no exporter reads it.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
    Ok(path.with_file_name(hidden))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_file_is_replaced_as_a_whole_and_everybody_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("musterd.prom");
        write(&path, "first, and longer\n").unwrap();
        let reader = fs::File::open(&path).unwrap();
        let before = reader.metadata().unwrap();
        assert_eq!(before.mode() & 0o7777, 0o644);
        write(&path, "second\n").unwrap();
        // Who had opened the first one still reads all of it: it is another file now.
        assert_eq!(io::read_to_string(reader).unwrap(), "first, and longer\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "second\n");
        assert_ne!(fs::metadata(&path).unwrap().ino(), before.ino());
        assert_eq!(names(folder.path()), ["musterd.prom"]);
    }

    #[test]
    fn what_a_killed_process_left_is_in_nobodys_way_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("m.prom"), folder.path().join("other"));
        fs::write(&other, "mine").unwrap();
        std::os::unix::fs::symlink(&other, folder.path().join(".m.prom.tmp")).unwrap();
        write(&path, "text\n").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "mine");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text\n");
    }

    #[test]
    fn a_write_that_fails_leaves_the_file_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        // A folder with something in it cannot be replaced by a file.
        let path = folder.path().join("m.prom");
        fs::create_dir_all(path.join("full")).unwrap();
        assert!(write(&path, "text\n").is_err());
        assert_eq!(names(folder.path()), ["m.prom"]);
    }
}
