//! The order of the checks, and the two halves of them that run side by side.
//!
//! What is found does not depend on which half is faster: the first difference is the one that comes first in
//! [`Verification::run_alone`].

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rusqlite::ffi;

use super::super::error::Error;
use super::super::read::Reader;
use super::super::schema;
use super::Stop;

/// How often progress is told, in rows.
const PROGRESS_EVERY: u64 = 4096;

/// How often the half that is ready looks whether progress is to be told of the other one.
const WAIT: Duration = Duration::from_millis(100);

/// What the halves know of each other. Nothing else is handed over by it, so no order of memory is asked for.
#[derive(Default)]
pub(super) struct Shared {
    /// Looked at so far, those that were looked at twice counted twice.
    rows: AtomicU64,
    /// The second half ended early with what comes before all that the first one can find.
    first_is_overruled: AtomicBool,
    /// The first half ended early: what comes after it is not asked any more.
    first_has_stopped: AtomicBool,
}

/// Checks on one connection, which is in a transaction.
pub(super) struct Verification<'a> {
    pub(super) reader: &'a Reader,
    progress: &'a mut dyn FnMut(u64),
    shared: &'a Shared,
    /// With which number of rows progress was told last.
    told: u64,
    pub(super) users: u64,
    pub(super) records: u64,
}

impl<'a> Verification<'a> {
    pub(super) fn new(
        reader: &'a Reader,
        progress: &'a mut dyn FnMut(u64),
        shared: &'a Shared,
    ) -> Self {
        Self {
            reader,
            progress,
            shared,
            told: 0,
            users: 0,
            records: 0,
        }
    }

    /// All checks, one after the other.
    pub(super) fn run_alone(&mut self) -> Result<(), Stop> {
        self.check_schema()?;
        self.check_written()?;
        self.check_folded()?;
        self.check_database()?;
        self.tell();
        Ok(())
    }

    /// The same with half of them on a second connection, which is in a transaction of the same state, and a thread.
    pub(super) fn run_beside(&mut self, second: Reader) -> Result<(), Stop> {
        self.check_schema()?;
        let shared = self.shared;
        let (end, ended) = mpsc::channel();
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("verify".into());
            let Ok(half) = builder.spawn_scoped(scope, move || {
                // Given up at the end, also by a panic.
                let _end = end;
                second_half(&second, shared)
            }) else {
                // The host has no thread to spare.
                return self.run_alone();
            };
            let folded = self.check_folded();
            if folded.is_err() {
                shared.first_has_stopped.store(true, Ordering::Relaxed);
            }
            self.wait(&ended);
            let (written, database) = half.join().unwrap_or_else(|panic| resume_unwind(panic));
            if written.is_err() {
                // How far this half came is chance; one after the other, it would not have begun.
                (self.users, self.records) = (0, 0);
            }
            written?;
            folded?;
            database?;
            self.tell();
            Ok(())
        })
    }

    fn check_schema(&self) -> Result<(), Stop> {
        match schema::difference(&self.reader.conn)? {
            Some(difference) => Err(Stop::Difference(difference)),
            None => Ok(()),
        }
    }

    /// The seals come first: they tell which row it is that was altered, where all else tells that two do not agree.
    fn check_written(&mut self) -> Result<(), Stop> {
        self.check_seals()?;
        self.check_sequence()
    }

    /// What is in the mirror against what is in the feed.
    fn check_folded(&mut self) -> Result<(), Stop> {
        let counted = self.check_users()?;
        self.check_counts(counted)?;
        self.check_fingerprints()?;
        self.check_lists()?;
        self.check_holds()
    }

    pub(super) fn looked_at_one(&mut self) -> Result<(), Stop> {
        self.shared.rows.fetch_add(1, Ordering::Relaxed);
        self.tell_when_due();
        // The second half reads it as well, but has ended its own streams when it sets it.
        if self.shared.first_is_overruled.load(Ordering::Relaxed) {
            return Err(interrupted());
        }
        Ok(())
    }

    /// Until the other half has given up its end.
    fn wait(&mut self, ended: &Receiver<()>) {
        while ended.recv_timeout(WAIT) == Err(RecvTimeoutError::Timeout) {
            self.tell_when_due();
        }
    }

    fn tell_when_due(&mut self) {
        if self.shared.rows.load(Ordering::Relaxed) - self.told >= PROGRESS_EVERY {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.told = self.shared.rows.load(Ordering::Relaxed);
        (self.progress)(self.told);
    }
}

/// What comes before the first half, and what comes after it.
fn second_half(reader: &Reader, shared: &Shared) -> (Result<(), Stop>, Result<(), Stop>) {
    // The caller's `progress` is called on the caller's thread.
    let mut untold = |_| {};
    let mut verification = Verification::new(reader, &mut untold, shared);
    let written = verification.check_written();
    if written.is_err() {
        shared.first_is_overruled.store(true, Ordering::Relaxed);
        return (written, Ok(()));
    }
    let database = match shared.first_has_stopped.load(Ordering::Relaxed) {
        true => Ok(()),
        false => verification.check_database(),
    };
    (written, database)
}

/// What SQLite says when it is told to stop. Nobody gets to see it: the other half's end comes first.
fn interrupted() -> Stop {
    let interrupted = ffi::Error::new(ffi::SQLITE_INTERRUPT);
    Stop::Failed(Error::Database(rusqlite::Error::SqliteFailure(
        interrupted,
        None,
    )))
}
