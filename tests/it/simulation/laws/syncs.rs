//! A row of `syncs` is honest: its numbers are those of its records, its certificate is kept to, and the
//! watermark goes forward only (promise P2, contract sections 3 and 4a).

use std::collections::btree_map::Entry;

use jiff::{SignedDuration, Timestamp};
use musterd::sandbox::Effect;
use rusqlite::Connection;
use serde_json::Value;

use super::super::truth::{Span, hides};
use super::super::watch::Seen;
use super::{GROUP, Law, Laws, Sync, USER, broken, time};

/// How far an instance's clock may be ahead of ours before it is not believed.
const AHEAD: SignedDuration = SignedDuration::from_hours(24);

/// An interrupted crawl is picked up again so late.
const RESUMED_WITHIN: SignedDuration = SignedDuration::from_hours(6);

impl Sync {
    /// From when on what it wrote may have been read, until it was written.
    pub(super) fn span(&self) -> Span {
        let back = match self.certificate["resumed"] == true {
            true => RESUMED_WITHIN,
            false => SignedDuration::ZERO,
        };
        Span {
            from: self.started_at - back,
            to: self.finished_at,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.mode == "full" && self.certificate["verdict"] == "complete"
    }
}

impl Laws {
    /// Reads the syncs that ended since the last look. Returns their ids.
    pub(super) fn read_syncs(&mut self, conn: &Connection, seen: &Seen) -> Law<Vec<i64>> {
        // Ids are drawn before a sync ends: one of a few before may end last.
        let from = self.syncs.last_key_value().map_or(0, |(last, _)| last - 50);
        let mut rows = conn
            .prepare_cached(
                "SELECT id, instance, mode, started_at, finished_at, outcome, certificate,
                        created, updated, deactivated, held, error, resource
                 FROM syncs WHERE id > ?1 ORDER BY id",
            )
            .unwrap();
        let rows: Vec<Sync> = rows
            .query_map([from], |row| {
                let certificate: Option<String> = row.get(6)?;
                let instance: String = row.get(1)?;
                Ok(Sync {
                    id: row.get(0)?,
                    check: self.checks,
                    n_sent: seen.requests[&instance].len(),
                    instance,
                    resource: row.get(12)?,
                    mode: row.get(2)?,
                    started_at: time(&row.get::<_, String>(3)?),
                    finished_at: time(&row.get::<_, String>(4)?),
                    outcome: row.get(5)?,
                    certificate: certificate
                        .map_or(Value::Null, |text| serde_json::from_str(&text).unwrap()),
                    counts: [row.get(7)?, row.get(8)?, row.get(9)?, row.get(10)?],
                    error: row.get(11)?,
                })
            })
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let mut ended = Vec::new();
        for row in rows {
            if let Entry::Vacant(place) = self.syncs.entry(row.id) {
                ended.push(row.id);
                place.insert(row);
            }
        }
        Ok(ended)
    }

    /// The numbers of a sync are true, and so is what its certificate says.
    pub(super) fn honest(&self, conn: &Connection, id: i64, seen: &Seen) -> Law {
        let sync = &self.syncs[&id];
        self.counted(conn, sync)?;
        let has_error = sync.error.is_some();
        if has_error == (sync.outcome == "succeeded") || sync.finished_at < sync.started_at {
            return broken("an outcome is honest", format!("{sync:?}"));
        }
        let reasons = sync.certificate["reasons"].as_array().map_or(0, Vec::len);
        let is_complete = sync.certificate["verdict"] == "complete";
        if !sync.certificate.is_null() && is_complete != (reasons == 0) {
            return broken("a verdict has its reasons", format!("{sync:?}"));
        }
        if sync.outcome == "succeeded" && sync.is_complete() {
            self.everybody_is_there(conn, sync, seen)?;
        }
        Ok(())
    }

    fn counted(&self, conn: &Connection, sync: &Sync) -> Law {
        let of = |kind: &str| {
            let records = self.records.iter();
            let of = |record: &&super::Record| record.sync_id == sync.id && record.kind == kind;
            records.filter(of).count() as i64
        };
        let held: i64 = conn
            .prepare_cached(
                "SELECT count(*) FROM hold_changes WHERE hold_id IN (SELECT id FROM holds WHERE sync_id = ?1)",
            )
            .unwrap()
            .query_row([sync.id], |row| row.get(0))
            .unwrap();
        let counts = [of("create"), of("update"), of("deactivate"), held];
        if counts == sync.counts {
            return Ok(());
        }
        broken(
            "the numbers of a sync are those of its records",
            format!("{counts:?}: {sync:?}"),
        )
    }

    /// Who lived all the time of a complete crawl, and was shown, is in the mirror.
    fn everybody_is_there(&self, conn: &Connection, sync: &Sync, seen: &Seen) -> Law {
        let truth = &seen.truths[&sync.instance];
        let span = truth.with_lag(sync.span());
        let is_odd = |effect: &Effect| {
            hides(effect)
                || matches!(
                    effect,
                    Effect::RowsUnlisted { .. }
                        | Effect::PoisonedRow { .. }
                        | Effect::MemberAdded { .. }
                        | Effect::MemberMissing { .. }
                        | Effect::NodeBehind { .. }
                        | Effect::RowDropped
                        | Effect::TotalOff { .. }
                )
        };
        if self.is_held_whole(&sync.instance, &sync.resource) || truth.any_wrong(span, is_odd) {
            return Ok(());
        }
        if sync.resource == GROUP {
            return self.every_group_is_there(conn, sync, truth, span);
        }
        for user in truth.unedited(span) {
            let folded = self.folded(&sync.instance, USER, &user.sys_id);
            if folded.is_none_or(|folded| folded.is_gone)
                && !is_rejected(conn, &sync.instance, &user.sys_id)
            {
                return broken(
                    "whom a complete crawl must have seen is in the mirror",
                    format!("{}: {folded:?}: {sync:?}", user.sys_id),
                );
            }
        }
        Ok(())
    }

    /// The watermark goes forward only, unless a person said that this is another directory.
    pub(super) fn watch_watermarks(
        &mut self,
        conn: &Connection,
        seen: &Seen,
        now: Timestamp,
    ) -> Law {
        let mut rows = conn
            .prepare_cached(
                "SELECT instance, resource, watermark FROM sources WHERE watermark IS NOT NULL",
            )
            .unwrap();
        let rows: Vec<(String, String, String)> = rows
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (instance, resource, watermark) in rows {
            let watermark = time(&watermark);
            let source = (instance.clone(), resource.clone());
            let before = self.watermarks.insert(source, watermark);
            if before.is_some_and(|before| before > watermark) {
                let approved = self.holds.iter().find(|(id, hold)| {
                    (&hold.instance, &hold.source) == (&instance, &resource)
                        && hold.guard == "source_changed"
                        && hold.state == "approved"
                        && !self.spent.contains(id)
                });
                let Some((id, _)) = approved else {
                    return broken(
                        "the watermark never moves back",
                        format!("{instance} {resource}: {before:?} to {watermark}"),
                    );
                };
                self.spent.insert(*id);
            }
            let lies = |effect: &Effect| matches!(effect, Effect::Header { .. });
            let ever = Span {
                from: Timestamp::MIN,
                to: now,
            };
            if watermark > now + AHEAD && !seen.truths[&instance].any_wrong(ever, lies) {
                return broken(
                    "the watermark is not ahead of time",
                    format!("{instance}: {watermark} at {now}"),
                );
            }
        }
        Ok(())
    }
}

pub(super) fn is_rejected(conn: &Connection, instance: &str, id: &str) -> bool {
    conn.prepare_cached("SELECT 1 FROM rejects WHERE instance = ?1 AND key = ?2")
        .unwrap()
        .exists([instance, id])
        .unwrap()
}
