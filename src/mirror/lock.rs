//! One daemon owns one mirror: an OS lock on `MIRROR.lock`.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::error::Error;
use super::{beside, file};

/// The lock. It ends with the process at the latest, however that ends; the file stays.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a mirror without waiting.
    ///
    /// # Errors
    /// When another process holds it, or its file cannot be opened.
    pub fn take(mirror: &Path) -> Result<Self, Error> {
        let path = beside(mirror, "lock");
        // `O_NOFOLLOW` has no portable value without libc. So: refuse what is there and is no regular file (opening a
        // pipe would wait for ever), and compare afterwards what was opened with what has the name.
        file::refuse_odd(&path)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::file("open the lock", &path))?;
        let opened = lock.metadata().map_err(Error::file("look at", &path))?;
        let named = path
            .symlink_metadata()
            .map_err(Error::file("look at", &path))?;
        if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) {
            return Err(Error::NotAFile(path));
        }
        match lock.try_lock() {
            Ok(()) => Ok(Self { _file: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(mirror.to_owned())),
            Err(TryLockError::Error(source)) => Err(Error::File {
                doing: "lock",
                path,
                source,
            }),
        }
    }
}

/// Whether a process holds the lock of a mirror at this moment.
///
/// # Errors
/// When the lock's file cannot be opened.
pub fn is_held(mirror: &Path) -> Result<bool, Error> {
    let path = beside(mirror, "lock");
    file::refuse_odd(&path)?;
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::file("open the lock", &path)(error)),
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(Error::file("look at the lock", &path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_lock_is_held_once_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = dir.path().join("mirror.db");
        assert!(!is_held(&mirror).unwrap());
        let held = Lock::take(&mirror).unwrap();
        assert!(is_held(&mirror).unwrap());
        let second = Lock::take(&mirror).unwrap_err();
        assert!(matches!(second, Error::Locked(_)));
        assert!(second.to_string().contains("mirror.db.lock"), "{second}");
        drop(held);
        Lock::take(&mirror).unwrap();
        let mode = beside(&mirror, "lock")
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let mirror = dir.path().join("mirror.db");
        let victim = dir.path().join("victim");
        std::os::unix::fs::symlink(&victim, beside(&mirror, "lock")).unwrap();
        assert!(matches!(Lock::take(&mirror), Err(Error::NotAFile(_))));
        assert!(!victim.exists());
    }
}
