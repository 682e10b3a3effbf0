//! What cases demand beside the laws, in words that they share.

use std::collections::BTreeSet;

use musterd::control::{Ended, Request};
use serde_json::Value;

use super::matrix::Promise::{P5, P10};
use super::trial::Trial;
use crate::harness::text;

impl Trial {
    /// Each sync that failed said this.
    #[track_caller]
    pub(super) fn fails_with(&self, words: &str) {
        let failed = self.list(
            "SELECT error FROM syncs WHERE instance = 'acme' AND outcome = 'failed' ORDER BY id",
        );
        assert!(!failed.is_empty(), "{}", self.told());
        for error in failed {
            assert!(error.contains(words), "{error}");
        }
    }

    /// What failed was asked again.
    #[track_caller]
    pub(super) fn retried(&self) {
        for mode in ["full", "incremental"] {
            let retries = self.syncs(mode).into_iter();
            let retries =
                retries.map(|sync| text(&sync, "retries").unwrap().parse::<u64>().unwrap());
            assert!(retries.sum::<u64>() > 0, "{mode}\n{}", self.told());
        }
    }

    /// This holds of the certificate of each full sync.
    #[track_caller]
    pub(super) fn every_full(&self, holds: impl Fn(&Value) -> bool) {
        for sync in self.syncs("full") {
            let certificate = Self::certificate(&sync);
            assert!(holds(&certificate), "{certificate}\n{}", self.told());
        }
    }

    /// Each full sync has this doubt.
    #[track_caller]
    pub(super) fn every_full_doubts(&self, doubt: &str) {
        for sync in self.syncs("full") {
            let doubts = Self::doubts(&sync);
            assert!(
                doubts.iter().any(|one| one == doubt),
                "{doubts:?}\n{}",
                self.told()
            );
        }
    }

    /// No sync asked for more than the pages that there are and some patience.
    #[track_caller]
    pub(super) fn ended_within_bounds(&self) {
        for sync in self.syncs("full").iter().chain(&self.syncs("incremental")) {
            let requests: u64 = text(sync, "requests").unwrap().parse().unwrap();
            assert!(requests <= 250, "{requests} requests\n{}", self.told());
        }
        self.keeps(P10);
    }

    /// A few users lose this attribute in the mirror, no more than the guard lets through.
    pub(super) fn blanks_below_the_guard(&self, path: &'static str) {
        *self.few_blanked.borrow_mut() = Some(path);
    }

    /// Who lost this attribute in the mirror since the fault began.
    pub(super) fn blanked(&self, path: &str) -> BTreeSet<String> {
        let ids = self.list(&format!(
            "SELECT id FROM changes WHERE instance = 'acme' AND seq > {}
                AND json_extract(changed, '$.{path}.from') IS NOT NULL
                AND json_extract(changed, '$.{path}.to') IS NULL",
            self.seq_before
        ));
        ids.into_iter().collect()
    }

    /// Whom the mirror has as active.
    pub(super) fn known_active(&self) -> BTreeSet<String> {
        let ids = self.list("SELECT id FROM users WHERE instance = 'acme' AND active = 1");
        ids.into_iter().collect()
    }

    /// Since the last hold was opened, nothing was written.
    #[track_caller]
    pub(super) fn no_record_since_the_hold(&self) {
        let since = self.list(
            "SELECT id || ' ' || reason FROM changes
             WHERE instance = 'acme' AND sync_id >= (SELECT max(sync_id) FROM holds)",
        );
        assert_eq!(since, Vec::<String>::new(), "{}", self.told());
        self.keeps(P5);
    }

    /// A person approves the one open hold.
    pub(super) async fn approve_the_hold(&self) -> Vec<Value> {
        let holds = self.rows("SELECT id, digest FROM holds WHERE state = 'open'");
        let [hold] = &holds[..] else {
            panic!("one open hold: {holds:?}\n{}", self.told())
        };
        let hold_id = text(hold, "id").unwrap().parse().unwrap();
        let rows = self.approves(hold_id, &text(hold, "digest").unwrap()).await;
        self.keeps(P5);
        rows
    }

    /// Nothing comes of this approval.
    pub(super) async fn is_refused(&self, hold_id: i64, digest: &str) {
        let before = self.seq();
        let digest = digest.to_owned();
        let (ended, rows) = self.command(Request::Approve { hold_id, digest }).await;
        assert!(matches!(ended, Ended::Failed(_)), "{ended:?} {rows:?}");
        assert_eq!(self.seq(), before);
        self.keeps(P5);
    }
}
