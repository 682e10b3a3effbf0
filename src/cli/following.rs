//! A mirror that is read again each time something was committed to it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

use crate::mirror::{self, Reader};

/// How often it is asked whether anything was committed: a pragma that reads a few bytes of shared memory.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// A connection to a mirror, and what was last seen of its file.
pub(crate) struct Following {
    reader: Reader,
    path: PathBuf,
    version: i64,
    file: Option<(u64, u64)>,
    poll: Interval,
}

impl Following {
    /// Follows a mirror from its state of now on.
    pub(crate) fn new(reader: Reader, path: &Path) -> Result<Self, mirror::Error> {
        let mut poll = tokio::time::interval(POLL_EVERY);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            version: reader.data_version()?,
            file: file_id(path),
            path: path.to_owned(),
            reader,
            poll,
        })
    }

    /// What reads it. Another one after [`Following::committed`].
    pub(crate) fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Waits until something was committed, or another file has taken the place of this one.
    pub(crate) async fn committed(&mut self) -> Result<(), mirror::Error> {
        loop {
            self.poll.tick().await;
            let file = file_id(&self.path);
            if file.is_some() && file != self.file {
                self.reader = Reader::open(&self.path)?;
                self.file = file;
                self.version = self.reader.data_version()?;
                return Ok(());
            }
            let version = self.reader.data_version()?;
            if version != self.version {
                self.version = version;
                return Ok(());
            }
        }
    }
}

/// What tells one file from another under the same name.
fn file_id(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
