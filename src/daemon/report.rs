//! What the log is told of syncs: one line for each, one when trouble starts, one when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tracing::{debug, error, info, warn};

use crate::mirror::apply::{Opened, SyncRow};
use crate::mirror::read::Health;
use crate::model::{Foreign, InstanceName, Mode, Outcome, ResourceType};

/// Remembers what was said, so that nothing is said twice.
#[derive(Debug, Default)]
pub struct Reporter {
    said: Mutex<Said>,
}

/// An instance, and what is read of it: trouble with its groups is none of its users'.
type Source = (InstanceName, ResourceType);

fn source_of(row: &SyncRow) -> Source {
    (row.instance.clone(), row.resource)
}

#[derive(Debug, Default)]
struct Said {
    failing: BTreeMap<Source, Episode>,
    /// Whose clock is far from ours.
    skewed: BTreeSet<InstanceName>,
    /// Full syncs in a row that were not complete.
    incomplete: BTreeMap<Source, u64>,
    /// Where people are missing of whom nobody can say that they are gone.
    unproved: BTreeSet<Source>,
    /// What the account may not read.
    forbidden: BTreeSet<Source>,
    quiet: Quiet,
    wal_warned: bool,
}

#[derive(Debug)]
struct Episode {
    started_at: Timestamp,
    n_failures: u64,
}

/// Incremental syncs that changed nothing, since the last hourly line.
#[derive(Debug, Default)]
struct Quiet {
    n_syncs: u64,
    requests: u64,
    bytes: u64,
}

/// A clock that is this far off is worth a line: no answer takes so long.
const SKEW_WARN_SECS: i64 = 300;

/// A write-ahead log above this is a reader that keeps a transaction open.
const WAL_WARN_BYTES: u64 = 1 << 30;

impl Reporter {
    /// A sync was told that the account may not read its source, or was not. Said once, until it may.
    pub fn forbidden(&self, row: &SyncRow, error: Option<&str>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error else {
            said.forbidden.remove(&source_of(row));
            return;
        };
        if said.forbidden.insert(source_of(row)) {
            warn!(
                instance = %row.instance,
                error,
                "groups are left out: the account is not shown any; each full sync of them asks again"
            );
        }
    }

    /// Goes on with the episodes that the mirror knows of: a new process tells nobody twice that an
    /// instance fails, and everybody once that it is well again.
    pub fn resume(&self, health: &[Health]) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        for row in health {
            let is_off = row.groups.as_ref().is_some_and(|groups| groups.off);
            if let (true, Ok(name)) = (is_off, InstanceName::parse(&row.instance)) {
                said.forbidden.insert((name, ResourceType::Group));
            }
        }
        for row in health.iter().filter(|row| row.state == "failing") {
            let since = row.last_success_at.as_ref().or(row.last_error_at.as_ref());
            let started_at = since.and_then(|since| since.parse().ok());
            if let (Ok(name), Some(started_at)) = (InstanceName::parse(&row.instance), started_at) {
                let n_failures = u64::try_from(row.consecutive_failures).unwrap_or_default();
                said.failing
                    .entry((name, ResourceType::User))
                    .or_insert(Episode {
                        started_at,
                        n_failures,
                    });
            }
        }
    }

    /// A sync came to its end.
    pub fn finished(&self, row: &SyncRow) {
        let changed = row.created + row.updated + row.deactivated + row.held + row.rejected;
        let is_quiet =
            row.mode == Mode::Incremental && row.outcome == Outcome::Succeeded && changed == 0;
        log_row(row, is_quiet);
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if is_quiet {
            said.quiet.n_syncs += 1;
            said.quiet.requests += row.cost.requests;
            said.quiet.bytes += row.cost.bytes;
        }
        said.clock_read(row);
        match row.outcome {
            Outcome::Succeeded => {
                said.recovered(row);
                said.completed(row);
            }
            Outcome::Failed => said.failed(row),
            Outcome::Cancelled => {}
        }
    }

    /// An approval came to its end. It asked about a few users, which neither starts nor ends trouble.
    pub fn approved(&self, row: &SyncRow) {
        log_row(row, false);
    }

    /// A sync opened these holds.
    pub fn held(&self, row: &SyncRow, opened: &[Opened]) {
        for hold in opened {
            error!(
                instance = %row.instance,
                sync_id = row.id,
                hold_id = hold.hold_id,
                guard = hold.guard,
                attribute = hold.attribute.as_deref().map(|path| tracing::field::display(Foreign(path))),
                count = hold.count,
                limit_text = hold.limit_text,
                "changes are held until somebody approves them: see `musterd holds show {}`",
                hold.hold_id
            );
        }
    }

    /// A sync could not prove of so many that they are gone. Said once, until one can.
    pub fn unproved(&self, row: &SyncRow, n_users: u64) {
        if row.mode != Mode::Full || row.outcome != Outcome::Succeeded {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if n_users == 0 {
            said.unproved.remove(&source_of(row));
        } else if said.unproved.insert(source_of(row)) {
            warn!(
                instance = %row.instance,
                sync_id = row.id,
                n_users,
                "{}s were not shown, and it could not be proved that they are gone: they stay as they were",
                row.resource.noun()
            );
        }
    }

    /// An hour is over: sums up the syncs that had no line of their own.
    pub fn hourly(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Quiet {
            n_syncs,
            requests,
            bytes,
        } = std::mem::take(&mut said.quiet);
        if n_syncs > 0 {
            info!(
                n_syncs,
                requests, bytes, "incremental syncs of the last hour that changed nothing"
            );
        }
    }

    /// The write-ahead log stands at so many bytes after a checkpoint.
    pub fn wal(&self, wal_bytes: u64) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let is_large = wal_bytes > WAL_WARN_BYTES;
        if is_large && !said.wal_warned {
            warn!(
                wal_bytes,
                "the write-ahead log grows: a reader keeps a transaction open, end it or restart that program"
            );
        }
        said.wal_warned = is_large;
    }
}

/// One full sync that was not complete is nothing: somebody joined while it read. A second one in a row
/// may be the first of many.
const INCOMPLETE_IS_SAID_AT: u64 = 2;

impl Said {
    /// Until a full sync is complete, nobody who was deleted is found to be gone: somebody has to know.
    fn completed(&mut self, row: &SyncRow) {
        let Some(certificate) = row.certificate.as_ref().filter(|_| row.mode == Mode::Full) else {
            return;
        };
        if certificate.as_complete().is_some() {
            let n_syncs = self.incomplete.remove(&source_of(row)).unwrap_or_default();
            if n_syncs >= INCOMPLETE_IS_SAID_AT {
                info!(instance = %row.instance, n_syncs, "full syncs are complete again");
            }
            return;
        }
        let n_syncs = self.incomplete.entry(source_of(row)).or_default();
        *n_syncs += 1;
        if *n_syncs == INCOMPLETE_IS_SAID_AT {
            let reasons: Vec<String> = certificate
                .reasons
                .iter()
                .map(ToString::to_string)
                .collect();
            warn!(
                instance = %row.instance,
                sync_id = row.id,
                reasons = reasons.join("; "),
                "full syncs are not complete: until one is, nobody who was deleted is found to be gone"
            );
        }
    }

    fn failed(&mut self, row: &SyncRow) {
        let episode = self.failing.entry(source_of(row)).or_insert_with(|| {
            warn!(
                instance = %row.instance,
                resource = %row.resource,
                mode = row.mode.as_str(),
                error = row.error.as_deref().unwrap_or_default(),
                "instance started failing"
            );
            Episode {
                started_at: row.started_at,
                n_failures: 0,
            }
        });
        episode.n_failures += 1;
    }

    fn clock_read(&mut self, row: &SyncRow) {
        let read = row
            .certificate
            .as_ref()
            .filter(|certificate| !certificate.resumed);
        let Some(date) = read.and_then(|certificate| certificate.first_date) else {
            return;
        };
        let ahead = date.duration_since(row.started_at).as_secs();
        // A slow first answer makes no skew, and neither does a sync that waited for its turn.
        let within = row.started_at..=row.finished_at;
        if within.contains(&date) || ahead.abs() < SKEW_WARN_SECS {
            self.skewed.remove(&row.instance);
        } else if self.skewed.insert(row.instance.clone()) {
            warn!(
                instance = %row.instance,
                clock_skew_seconds = ahead,
                "the instance's clock is far from ours: watermarks go by its clock, schedules by ours"
            );
        }
    }

    fn recovered(&mut self, row: &SyncRow) {
        if !row.shows_recovery() {
            return;
        }
        if let Some(episode) = self.failing.remove(&source_of(row)) {
            let failing_secs = row.finished_at.duration_since(episode.started_at).as_secs();
            warn!(
                instance = %row.instance,
                resource = %row.resource,
                failing_secs,
                n_failures = episode.n_failures,
                "instance recovered"
            );
        }
    }
}

fn log_row(row: &SyncRow, is_quiet: bool) {
    let certificate = row
        .certificate
        .as_ref()
        .and_then(|certificate| serde_json::to_string(certificate).ok());
    // A clock that was set back meanwhile makes no negative duration.
    let duration = row.finished_at.duration_since(row.started_at);
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or_default();
    // The level is part of a call site's identity, so there are two of them.
    macro_rules! line {
        ($level:ident) => {
            $level!(
                sync_id = row.id,
                instance = %row.instance,
                resource = %row.resource,
                mode = row.mode.as_str(),
                trigger = row.trigger.as_str(),
                outcome = row.outcome.as_str(),
                certificate,
                duration_ms,
                seen = row.seen,
                created = row.created,
                updated = row.updated,
                deactivated = row.deactivated,
                held = row.held,
                rejected = row.rejected,
                requests = row.cost.requests,
                retries = row.cost.retries,
                bytes = row.cost.bytes,
                throttled_ms = row.cost.throttled_ms,
                error = row.error,
                "sync finished"
            )
        };
    }
    if is_quiet {
        line!(debug);
    } else {
        line!(info);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_log_that_grows_is_said_once_until_it_was_short_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(file.reopen().unwrap());
        let log = tracing_subscriber::fmt().with_writer(writer).finish();
        tracing::subscriber::with_default(log, || {
            let reporter = Reporter::default();
            let long = WAL_WARN_BYTES + 1;
            for wal_bytes in [0, WAL_WARN_BYTES, long, long, 2 * long, 0, long] {
                reporter.wal(wal_bytes);
            }
        });
        let told = std::fs::read_to_string(file.path()).unwrap();
        let warned = told.matches("a reader keeps a transaction open").count();
        assert_eq!(warned, 2, "{told}");
    }
}
