//! What is recorded was true, a later record never goes back to what was true before (promise P6), and
//! what is stamped is seen by the next incremental sync (promise P7).

use jiff::SignedDuration;
use musterd::sandbox::{Column, Effect, User};
use rusqlite::Connection;
use serde_json::Value;

use super::super::truth::{Span, disguises, disguises_groups};
use super::super::watch::Seen;
use super::feed::is_gone_by;
use super::{GROUP, Law, Laws, Record, Sync, USER, broken};

impl Laws {
    /// A record says of a user, a group or a membership what was true within its sync, and not less than the one before it did.
    pub(super) fn was_true(&mut self, seq: i64, span: Span, seen: &Seen) -> Law {
        const LAW: &str = "what is recorded was true, and nothing goes back";
        let record = self.record(seq);
        let key = record.key();
        let truth = &seen.truths[&record.instance];
        let lagged = |effect: &Effect| matches!(effect, Effect::NodeBehind { .. });
        let is_shown_otherwise = match record.resource.as_str() {
            USER => truth.any_wrong(span, disguises),
            GROUP => truth.any_wrong(span, disguises_groups),
            _ => super::members::may_be_untrue(truth, record, span),
        };
        // A hold keeps an old value; who is gone keeps all of them.
        if self.beside_hold.contains(&seq)
            || is_gone_by(record)
            || is_shown_otherwise
            || truth.any_wrong(span, lagged)
        {
            return Ok(());
        }
        let after: Value = serde_json::from_str(&record.after).unwrap();
        let fits = match record.resource.as_str() {
            USER => truth
                .states(&record.id, span)
                .filter(|(_, user)| user.is_some_and(|user| shows(user, &after)))
                .map(|(from, _)| from)
                .collect(),
            GROUP => super::groups::fits(truth, &record.id, &after, span),
            _ => super::members::fits(truth, record, span),
        };
        let (Some(earliest), Some(latest)) = (fits.first().copied(), fits.last().copied()) else {
            return broken(LAW, format!("never true within {span:?}: {record:?}"));
        };
        let before = self.known_true.get(&key);
        if before.is_some_and(|before| latest < *before) {
            return broken(
                LAW,
                format!("true since {before:?}, back to {latest}: {record:?}"),
            );
        }
        self.known_true.insert(key, earliest);
        Ok(())
    }

    /// An incremental sync that believes that it saw everything has seen every stamp.
    pub(super) fn is_fresh(&self, conn: &Connection, sync: &Sync, seen: &Seen) -> Law {
        if sync.resource != USER
            || sync.mode != "incremental"
            || sync.outcome != "succeeded"
            || sync.certificate["verdict"] != "complete"
            || self.is_held_whole(&sync.instance, USER)
        {
            return Ok(());
        }
        let truth = &seen.truths[&sync.instance];
        for (from, user) in truth.newest(sync.started_at) {
            let key = (
                sync.instance.clone(),
                USER.to_owned(),
                user.sys_id.to_string(),
            );
            let is_stamped = from.as_second() == user.updated.as_second();
            // What went wrong before may have kept the watermark.
            let span = Span {
                from: from - SignedDuration::from_mins(30),
                to: sync.finished_at,
            };
            if !is_stamped || self.is_or_was_held(&key) || truth.any_wrong(span, |_| true) {
                continue;
            }
            let is_there = self
                .folded(&sync.instance, USER, &user.sys_id)
                .is_some_and(|folded| {
                    let after: Value = serde_json::from_str(&folded.after).unwrap();
                    !folded.is_gone && shows(user, &after)
                });
            if !is_there && !super::syncs::is_rejected(conn, &sync.instance, &user.sys_id) {
                return broken(
                    "an incremental sync sees what is stamped",
                    format!("{} since {from}: {sync:?}", user.sys_id),
                );
            }
        }
        Ok(())
    }

    /// The span of what a record may have been read in.
    pub(super) fn span_of(&self, record: &Record, sync: Option<&Sync>, seen: &Seen) -> Span {
        let truth = &seen.truths[&record.instance];
        truth.with_lag(match sync {
            Some(sync) => sync.span(),
            None => Span {
                from: record.observed_at - SignedDuration::from_hours(12),
                to: record.observed_at,
            },
        })
    }
}

/// Whether a canonical resource is what a user was, in what labels have no part in.
fn shows(user: &User, after: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    after["active"] == user.active
        && text(&after["title"]) == user.get(Column::Title)
        && text(&after["userName"]) == user.get(Column::UserName)
        && text(&after["name"]["familyName"]) == user.get(Column::LastName)
}
