//! Counts what the syncs of this process come to, and tells whoever follows that one has ended. What the mirror knows
//! is not counted here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::metrics::{Counted, MODES, OUTCOMES};
use crate::mirror::apply::SyncRow;
use crate::model::{InstanceName, Outcome, ResourceType};

/// Counts what syncs come to.
#[derive(Debug, Default)]
pub struct Meter {
    counted: Mutex<BTreeMap<InstanceName, Counted>>,
    ended: watch::Sender<u64>,
    succeeded: watch::Sender<u64>,
}

impl Meter {
    /// A sync came to its end.
    pub fn finished(&self, row: &SyncRow) {
        self.count(row);
        // Groups that are read say nothing of the users.
        if row.outcome == Outcome::Succeeded && row.resource == ResourceType::User {
            self.succeeded.send_modify(|n| *n += 1);
        }
        self.ended.send_modify(|n| *n += 1);
    }

    /// An approval came to its end. It asked about a few users, and says nothing of whether syncs succeed.
    pub fn approved(&self, row: &SyncRow) {
        self.count(row);
        self.ended.send_modify(|n| *n += 1);
    }

    /// What the syncs of an instance have come to since the start.
    #[must_use]
    pub fn counted(&self, instance: &InstanceName) -> Counted {
        let counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.get(instance).copied().unwrap_or_default()
    }

    /// How many syncs have ended; changes with each.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// How many syncs have succeeded; changes with each.
    #[must_use]
    pub fn succeeded(&self) -> watch::Receiver<u64> {
        self.succeeded.subscribe()
    }

    fn count(&self, row: &SyncRow) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counted.entry(row.instance.clone()).or_default();
        let modes = MODES.iter().zip(&mut counted.syncs);
        for (_mode, outcomes) in modes.filter(|(mode, _)| **mode == row.mode) {
            let outcomes = OUTCOMES.iter().zip(outcomes);
            for (_outcome, n) in outcomes.filter(|(outcome, _)| **outcome == row.outcome) {
                *n += 1;
            }
        }
        counted.created += row.created;
        counted.updated += row.updated;
        counted.deactivated += row.deactivated;
    }
}
