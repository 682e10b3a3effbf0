//! What can go wrong with the mirror's files.

use std::io;
use std::path::PathBuf;

use crate::model::InstanceName;

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
    /// The file is not ours. It was left as it is.
    #[error("`{}` is not a mirror of musterd and was left untouched: {why}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that was seen.
        why: String,
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
