//! What can go wrong with the mirror's files.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::model::{Foreign, InstanceName};
use crate::reconcile::identity::MOST_OF_A_KEY;

/// An error of the mirror.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory that should hold the mirror is not there.
    #[error("the mirror's directory `{}` does not exist: create it, or change `mirror.path`", .0.display())]
    NoDirectory(PathBuf),
    /// The file system refused.
    #[error("could not {doing} `{}`", path.display())]
    File {
        /// What was tried: an infinitive.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something else than a regular file has the name of one of ours. It was not followed: a link could have been
    /// planted to make us write elsewhere.
    #[error("`{}` is not a regular file: remove it, or name the real path", .0.display())]
    NotAFile(PathBuf),
    /// Another process holds the lock.
    #[error("another process uses the mirror `{}` (it holds `{}.lock`): only one may write it", .0.display(), .0.display())]
    Locked(PathBuf),
    /// There is no such file.
    #[error("there is no mirror at `{}`: `musterd run` or `musterd sync` makes one", .0.display())]
    Missing(PathBuf),
    /// A file has the name that a new one is to get.
    #[error("there is a file `{}` already, and it was left untouched: name another one, or move it away", .0.display())]
    Exists(PathBuf),
    /// What was to be put back is not sound.
    #[error("the backup `{}` is not sound, and nothing was changed: {why}", path.display())]
    BadBackup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another program writes the mirror.
    #[error("another program keeps a transaction on the mirror `{}` open for writing, and nobody but musterd may: end it", .0.display())]
    Busy(PathBuf),
    /// The file is not ours. It was left as it is.
    #[error("`{}` is not a mirror of musterd and was left untouched: {why}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that was seen.
        why: String,
    },
    /// The file is no database. It was left as it is.
    #[error("`{}` is not a mirror of musterd and was left untouched: {why}", path.display())]
    NoDatabase {
        /// The file.
        path: PathBuf,
        /// How that was seen.
        why: &'static str,
    },
    /// A newer musterd wrote the file. It was left as it is.
    #[error(
        "the mirror `{}` has schema version {found}, this program knows up to {known}: it was left untouched, upgrade musterd",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// An older musterd wrote the file, and it is opened for reading only.
    #[error(
        "the mirror `{}` has schema version {found}, this program needs {needed}: start `musterd run` once to migrate it",
        path.display()
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its `user_version`.
        found: i64,
        /// What this program needs.
        needed: i64,
    },
    /// SQLite could not open the file for reading.
    #[error(
        "could not open the mirror `{}` for reading: `-wal` and `-shm` must lie beside it and be readable; starting `musterd run` once puts them back",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// The disk has less room than a sync may need.
    #[error(
        "the disk of `{}` has {} MiB left, and a sync needs {} MiB at least: nothing was asked",
        path.display(), free >> 20, needed >> 20
    )]
    NoRoom {
        /// What would be written there.
        path: PathBuf,
        /// Bytes that are left for this account.
        free: u64,
        /// Bytes that have to be.
        needed: u64,
    },
    /// SQLite did not put the file into WAL mode.
    #[error(
        "the mirror `{}` stays in journal mode `{mode}`, and needs a write-ahead log: make room on its disk, or end the program that has it open",
        path.display()
    )]
    NoLog {
        /// The file.
        path: PathBuf,
        /// The mode it stays in.
        mode: String,
    },
    /// A database failed: the mirror, or the stage beside it.
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
    /// Something in the mirror contradicts itself.
    #[error(
        "the mirror is damaged: {0}; see what `musterd verify` says, then restore a backup or start with a new file"
    )]
    Damaged(String),
    /// The file, `-wal` or `-shm` was replaced or deleted under us. Writing on would be lost, or spoil the new one.
    #[error("`{}` was replaced or deleted while in use, nothing is written any more: restart musterd, then run `musterd verify`", .0.display())]
    Replaced(PathBuf),
    /// The writer panicked. Its transaction was rolled back.
    #[error(
        "writing the mirror panicked, nothing was committed and nothing is written any more: restart musterd, and report this"
    )]
    Panicked,
    /// The mirror was closed, or the runtime is stopping.
    #[error("the mirror is closed")]
    Closed,
    /// The mirror has no such instance.
    #[error("the mirror knows no instance `{0}`")]
    UnknownInstance(InstanceName),
    /// It was taken out of the configuration before a sync of it had its turn.
    #[error("instance `{0}` is not linked any more: nothing was done")]
    NotLinked(InstanceName),
    /// Its users are not removed while it is synced.
    #[error("instance `{0}` is linked: only of one that is `unlinked` are the users removed")]
    StillLinked(InstanceName),
    /// The mirror has no such hold.
    #[error("there is no hold {0}: see `musterd holds`")]
    UnknownHold(i64),
    /// The hold is closed: somebody else approved it, or nothing of it stands.
    #[error("hold {hold_id} is {state} already, nothing was changed")]
    HoldClosed {
        /// `holds.id`.
        hold_id: i64,
        /// `holds.state`.
        state: String,
    },
    /// The digest is that of another set than the hold's.
    #[error(
        "this is not the digest of hold {0}, nothing was changed: look again at `musterd holds show {0}`"
    )]
    OtherDigest(i64),
    /// No list of profiles was imported for it, or its import was never ended.
    #[error("no list of profiles was imported for `{0}`: `musterd map import {0} FILE` does")]
    NoList(InstanceName),
    /// The list has no such profile.
    #[error(
        "the list of `{instance}` has no profile `{}`: see `musterd map list --instance {instance}`",
        Foreign(profile)
    )]
    UnknownProfile {
        /// The instance.
        instance: InstanceName,
        /// The profile.
        profile: String,
    },
    /// Nobody is pinned to whom the instance does not show.
    #[error(
        "`{instance}` shows no user with the id `{}`, nothing was changed: `musterd user {instance} KEY` finds one",
        Foreign(user_id)
    )]
    NotShown {
        /// The instance.
        instance: InstanceName,
        /// The id.
        user_id: String,
    },
    /// There is no pin to take away.
    #[error(
        "the profile `{}` of `{instance}` is not pinned, nothing was changed",
        Foreign(profile)
    )]
    NotPinned {
        /// The instance.
        instance: InstanceName,
        /// The profile.
        profile: String,
    },
    /// Another import of the same list was begun meanwhile: the later one goes on.
    #[error(
        "another import for `{0}` was begun meanwhile and goes on instead of this one: see `musterd map list --instance {0}` when it has ended"
    )]
    Overtaken(InstanceName),
    /// As many profiles as may be are pinned to this user.
    #[error(
        "{} profiles of `{instance}` are linked to `{}` already, nothing was changed: `musterd map list --instance {instance}` shows them",
        MOST_OF_A_KEY,
        Foreign(user_id)
    )]
    TooManyLinks {
        /// The instance.
        instance: InstanceName,
        /// The user.
        user_id: String,
    },
    /// An import would remove more than was agreed to: another one came between.
    #[error("more profiles of `{0}` would be removed than when it was looked at: import again")]
    TooManyRemovals(InstanceName),
    /// An import would remove a profile that would be another one if it came again, and that was not agreed to.
    #[error(
        "a profile of `{0}` would be removed that a person pinned, or whose keys do not lead to its user any more: `--yes` says that this is meant"
    )]
    ToBeKept(InstanceName),
    /// The new name of an instance is taken.
    #[error(
        "instance `{0}` already has rows of its own in the mirror: a rename would mix two directories"
    )]
    NameTaken(InstanceName),
}

impl Error {
    /// Whether this process can write the mirror no more, whatever is tried: it must end, and be restarted.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Replaced(_) | Self::Panicked | Self::Damaged(_))
    }

    /// Whether a hold cannot be approved, for a reason that is no trouble of the mirror.
    #[must_use]
    pub fn is_about_a_hold(&self) -> bool {
        matches!(
            self,
            Self::UnknownHold(_) | Self::HoldClosed { .. } | Self::OtherDigest(_)
        )
    }

    /// What to do about it, where the sentence does not say so already.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::File { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => Some(OTHER_ACCOUNT),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(MAKE_ROOM),
                io::ErrorKind::ReadOnlyFilesystem => Some(LOOK_AT_THE_DISK),
                // EIO has no kind of its own.
                _ => (source.raw_os_error() == Some(EIO)).then_some(LOOK_AT_THE_DISK),
            },
            Self::NoRoom { .. } => Some(MAKE_ROOM),
            Self::StillLinked(_) => Some(
                "take it out of the configuration, and have a running daemon read that: `sudo systemctl reload musterd`",
            ),
            Self::Database(source) => match source.sqlite_error_code()? {
                ErrorCode::DiskFull => Some(MAKE_ROOM),
                ErrorCode::SystemIoFailure => Some(LOOK_AT_THE_DISK),
                ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(
                    "another program keeps a transaction on the mirror open for writing, and nobody but musterd may: end it",
                ),
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Some(
                    "stop musterd and keep the file; see what `musterd verify` says, then restore a backup, or move the file away and let musterd build a new one",
                ),
                ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
                    Some(OTHER_ACCOUNT)
                }
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File {
            doing,
            path,
            source,
        }
    }
}

const OTHER_ACCOUNT: &str = "the mirror belongs to another account, or its folder may not be written: run this as that one, `sudo -u musterd musterd …`; to read, being in its group is enough";

const MAKE_ROOM: &str =
    "make room on the disk of the mirror; nothing is half-written, and the next sync goes on";

const LOOK_AT_THE_DISK: &str = "look at the disk's room and at the system log, then run `musterd verify`; nothing is half-written, and the next sync goes on";

/// `EIO`, the same on every Unix.
const EIO: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_disk_does_there_is_a_word_on_what_to_do() {
        let sqlite = |code| {
            Error::Database(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(code),
                None,
            ))
        };
        let system = |code| Error::file("write", "mirror.db")(io::Error::from_raw_os_error(code));
        for (error, expected) in [
            (sqlite(rusqlite::ffi::SQLITE_FULL), Some(MAKE_ROOM)),
            (
                sqlite(rusqlite::ffi::SQLITE_IOERR_FSYNC),
                Some(LOOK_AT_THE_DISK),
            ),
            (system(5), Some(LOOK_AT_THE_DISK)),
            (system(28), Some(MAKE_ROOM)),
            (system(13), Some(OTHER_ACCOUNT)),
            (Error::Closed, None),
        ] {
            assert_eq!(error.hint(), expected, "{error:?}");
        }
    }
}
