//! A small instance and its syncs, for the tests of this module.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::apply::{Applied, Batch, Finish, Planned, SyncRow, Treatment, Watch};
use super::read::Pin;
use super::stage::{Stage, StageKey};
use super::{Error, Mirror, Reader, beside};
use crate::model::{
    Base, Certificate, InstanceName, Mode, Outcome, Page, PageReport, Paging, Proof, ResourceId,
    ResourceType, Row, Shares, TallySnapshot, Trigger, Verdict, Witness,
};
use crate::reconcile::decode::decode;
use crate::reconcile::guard::{Limits, WindowLimit};

pub(super) const USER: ResourceType = ResourceType::User;

/// A row for each table of which many rows are written.
pub(super) const ROWS: [&str; 11] = [
            "INSERT INTO changes (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
             VALUES (1, 1, 'a', 'User', 'b', 'create', 'new', '{}', 't')",
            "INSERT INTO changes_base (seq, sync_id, instance, resource, id, kind, reason, after, observed_at)
             VALUES (1, 1, 'a', 'User', 'b', 'create', 'new', '{}', 't')",
            "INSERT INTO users (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)
             VALUES ('a', 'b', 1, '{}', 't', 't', 1)",
            "INSERT INTO groups (instance, id, active, attributes, first_seen_at, changed_at, changed_seq)
             VALUES ('a', 'b', 1, '{}', 't', 't', 1)",
            "INSERT INTO memberships (instance, group_id, member_id, member_type, first_seen_at, changed_seq)
             VALUES ('a', 'b', 'c', 'User', 't', 1)",
            "INSERT INTO fingerprints (instance, resource, id, fingerprint, tx, seal)
             VALUES ('a', 'User', 'b', x'', 1, x'')",
            "INSERT INTO seals (of, key, seal) VALUES ('changes', 1, x'')",
            "INSERT INTO hold_changes (hold_id, resource, id, path, kind, after, state)
             VALUES (1, 'User', 'b', 'active', 'update', '{}', 'held')",
            "INSERT INTO identities (instance, profile, user_id, matched_by, state, changed_seq)
             VALUES ('a', 'p', 'b', 'email', 'matched', 1)",
            "INSERT INTO identity_keys (instance, rule, profile, folded, exact) VALUES ('a', 'email', 'p', 'k', 'K')",
            "INSERT INTO user_keys (instance, rule, folded, id, exact) VALUES ('a', 'email', 'k', 'b', 'K')",
];

/// A mirror in a directory of its own, with one linked instance, `acme`.
pub(super) struct World {
    pub(super) mirror: Mirror,
    pub(super) now: Timestamp,
    pub(super) limits: Limits,
    pub(super) dir: tempfile::TempDir,
}

/// What a sync of a test does beside what it reads.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) mode: Mode,
    pub(super) limit: usize,
    pub(super) time: Duration,
    /// Stops after so many transactions, as if killed.
    pub(super) transactions: usize,
}

pub(super) const FULL: How = How {
    mode: Mode::Full,
    limit: 10_000,
    time: Duration::MAX,
    transactions: usize::MAX,
};

pub(super) const INCREMENTAL: How = How {
    mode: Mode::Incremental,
    ..FULL
};

/// Guards that hold more than two.
pub(super) fn strict() -> Limits {
    let limit = WindowLimit {
        at_least: 2,
        count: 2,
        percent: 100,
        window: Duration::from_secs(24 * 3600),
    };
    Limits {
        deactivations: limit.clone(),
        blanking: limit,
        ..Limits::none()
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mirror = Mirror::open(&dir.path().join("mirror.db"), "epoch one").unwrap();
        mirror
            .write(|writer| writer.link(&[pin("acme")]))
            .await
            .unwrap();
        let now = time("2026-03-01T12:00:00Z");
        Self {
            mirror,
            now,
            limits: Limits::none(),
            dir,
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.mirror.path()
    }

    pub(super) fn reader(&self) -> Reader {
        self.mirror.reader().unwrap()
    }

    pub(super) fn stage_path(&self) -> PathBuf {
        beside(self.path(), "stage-acme-full")
    }

    pub(super) fn stage(&self, mode: Mode) -> Stage {
        self.stage_of("acme", mode)
    }

    pub(super) fn stage_of(&self, instance: &str, mode: Mode) -> Stage {
        let key = StageKey {
            instance: name(instance),
            ..key(mode)
        };
        let hour = Duration::from_secs(3600);
        Stage::open(None, &key, &self.reader(), self.now, hour)
            .unwrap()
            .0
    }

    /// Reads a directory in pages of three.
    pub(super) fn crawl(&self, stage: &mut Stage, rows: &[Row]) {
        for rows in rows.chunks(3) {
            self.page(stage, rows);
        }
    }

    /// Reads one page.
    pub(super) fn page(&self, stage: &mut Stage, rows: &[Row]) -> PageReport {
        self.page_asked_at(stage, self.mirror.base(), rows)
    }

    /// Reads one page that was asked for earlier.
    pub(super) fn page_asked_at(&self, stage: &mut Stage, base: Base, rows: &[Row]) -> PageReport {
        let page = Page {
            base,
            rows: rows.to_vec(),
            rejects: Vec::new(),
        };
        take(stage, &self.reader(), page)
    }

    /// Reads a whole directory, asks for nobody, believes everything, and applies it.
    pub(super) async fn sync(&mut self, rows: &[Row]) -> Vec<Applied> {
        self.sync_as(FULL, rows).await
    }

    pub(super) async fn sync_as(&mut self, how: How, rows: &[Row]) -> Vec<Applied> {
        let mut stage = self.stage(how.mode);
        self.crawl(&mut stage, rows);
        self.prove_gone(&mut stage, how.mode);
        self.apply(stage, how).await
    }

    /// Everybody unseen is gone, where there is a baseline.
    pub(super) fn prove_gone(&self, stage: &mut Stage, mode: Mode) {
        let reader = self.reader();
        let source = reader.source(&stage.key.instance, USER).unwrap();
        if mode == Mode::Full && source.baseline_at.is_some() {
            let certificate = complete(stage.distinct());
            let complete = certificate.as_complete().unwrap();
            for candidate in stage.candidates(&reader, complete).unwrap() {
                let base = self.mirror.base();
                stage
                    .put_gone(base, &candidate.id, &proof(self.now))
                    .unwrap();
            }
        }
    }

    /// What the transactions of one sync share, and what its last one writes. A minute passes.
    pub(super) async fn ending(&mut self, stage: &Stage) -> (Batch, Finish) {
        self.now += SignedDuration::from_mins(1);
        let (instance, mode) = (stage.key.instance.clone(), stage.key.mode);
        let source = self.reader().source(&instance, USER).unwrap();
        let sync_id = self.mirror.write(|writer| writer.reserve_sync()).await;
        let watch = Watch {
            instance: instance.clone(),
            resource: USER,
            baseline_at: source.baseline_at,
            limits: self.limits.clone(),
            now: self.now,
        };
        let planned = Planned::of(stage, &self.reader(), &watch).unwrap();
        let batch = Batch {
            watch,
            treatment: Treatment::Guarded(planned),
            mends: None,
            sync_id: sync_id.unwrap(),
            limit: FULL.limit,
            time: FULL.time,
        };
        let finish = Finish {
            sync: SyncRow {
                instance,
                seen: stage.distinct(),
                rejected: stage.rejects(),
                ..sync_row(batch.sync_id, mode, self.now)
            },
            watermark: Some(self.now),
            restart_at: None,
            full_and_complete: mode == Mode::Full,
            capabilities: None,
        };
        (batch, finish)
    }

    /// Applies a stage, transaction after transaction.
    pub(super) async fn apply(&mut self, mut stage: Stage, how: How) -> Vec<Applied> {
        let (mut batch, mut finish) = self.ending(&stage).await;
        (batch.limit, batch.time) = (how.limit, how.time);
        let mut applied: Vec<Applied> = Vec::new();
        let mut after: Option<ResourceId> = None;
        for _ in 0..how.transactions {
            let (batch, end) = (batch.clone(), finish.clone());
            let written = self.mirror.write(move |writer| {
                let one = writer.apply(&mut stage, &batch, after.as_ref(), &end)?;
                Ok((stage, one))
            });
            let (returned, one) = written.await.unwrap();
            finish.sync.created += one.created;
            finish.sync.updated += one.updated;
            finish.sync.deactivated += one.deactivated;
            finish.sync.held += one.held;
            (stage, after) = (returned, one.next_after.clone());
            applied.push(one);
            if after.is_none() {
                break;
            }
        }
        applied
    }

    /// The first difference that `verify` finds.
    pub(super) fn difference(&self) -> Option<String> {
        self.reader().verify(&mut |_| {}).unwrap().difference
    }

    /// Every row of every table but `seals`, rowids included.
    pub(super) fn dump(&self) -> BTreeMap<String, Vec<Vec<Value>>> {
        dump(&Connection::open(self.path()).unwrap())
    }

    /// One value of the mirror.
    pub(super) fn ask<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let reader = self.reader();
        reader.conn.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

pub(super) fn dump(conn: &Connection) -> BTreeMap<String, Vec<Vec<Value>>> {
    let all = |sql: &str| -> Vec<Vec<Value>> {
        let mut statement = conn.prepare(sql).unwrap();
        let columns = statement.column_count();
        let rows =
            statement.query_map([], |row| (0..columns).map(|place| row.get(place)).collect());
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    };
    // Seals are made of all the others.
    all("SELECT name, wr FROM pragma_table_list
         WHERE schema = 'main' AND type = 'table' AND name NOT IN ('sqlite_schema', 'seals')")
    .into_iter()
    .map(|table| {
        let [Value::Text(name), Value::Integer(without_rowid)] = &table[..] else {
            panic!("{table:?}");
        };
        let rowid = if *without_rowid == 1 { "" } else { "rowid, " };
        (name.clone(), all(&format!("SELECT {rowid}* FROM {name}")))
    })
    .collect()
}

/// How SQLite would go about a statement, step by step.
pub(super) fn plan_of(conn: &Connection, sql: &str) -> String {
    let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = plan.raw_query();
    let mut steps: Vec<String> = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        steps.push(row.get(3).unwrap());
    }
    steps.join("; ")
}

pub(super) fn take(stage: &mut Stage, reader: &Reader, page: Page) -> PageReport {
    let rest = stage.compare(reader, &page).unwrap();
    let mut rejects = page.rejects;
    let mut arrived = Vec::new();
    for place in rest {
        match decode(USER, &page.rows[place]) {
            Ok(resource) => arrived.push(resource),
            Err(reject) => rejects.push(reject),
        }
    }
    stage.put(reader, page.base, arrived, rejects).unwrap()
}

pub(super) fn name(text: &str) -> InstanceName {
    InstanceName::parse(text).unwrap()
}

pub(super) fn id(text: &str) -> ResourceId {
    ResourceId::new(text)
}

pub(super) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn pin(instance: &str) -> Pin {
    Pin {
        instance: name(instance),
        url: format!("https://{instance}.service-now.com"),
        scim_path: "/api/now/scim".into(),
        resources: vec![USER],
    }
}

pub(super) fn key(mode: Mode) -> StageKey {
    StageKey {
        instance: name("acme"),
        resource: USER,
        mode,
        fits: "digest".into(),
    }
}

/// A user as it arrives: `more` are further members.
pub(super) fn user(id: &str, modified_at: &str, more: &str) -> Row {
    let raw = format!(
        r#"{{"id":"{id}","meta":{{"lastModified":"{modified_at}"}},"userName":"{id}.name"{more}}}"#
    );
    Row {
        id: ResourceId::new(id),
        modified_at: modified_at.parse().ok(),
        raw: Bytes::from(raw),
    }
}

/// A user with a title.
pub(super) fn titled(id: &str, title: &str) -> Row {
    user(
        id,
        "2026-01-01T00:00:00Z",
        &format!(r#","active":true,"title":"{title}""#),
    )
}

pub(super) fn complete(distinct: u64) -> Certificate {
    Certificate {
        verdict: Verdict::Complete,
        reasons: Vec::new(),
        paging: Paging::Key,
        pages: 1,
        rows: distinct,
        distinct,
        total_before: Some(distinct),
        total_after: Some(distinct),
        rejects: 0,
        first_date: None,
        newest_modified_at: None,
        resumed: false,
    }
}

pub(super) fn proof(asked_at: Timestamp) -> Proof {
    let witness = Witness {
        id: "w".into(),
        shares: Shares::Nothing,
        answered_at: asked_at,
    };
    Proof {
        distinct: Some(1),
        asked_at,
        status: 404,
        witnesses: [witness.clone(), witness],
    }
}

pub(super) fn sync_row(id: i64, mode: Mode, now: Timestamp) -> SyncRow {
    SyncRow {
        id,
        instance: name("acme"),
        resource: USER,
        mode,
        trigger: Trigger::Schedule,
        started_at: now,
        finished_at: now,
        outcome: Outcome::Succeeded,
        certificate: Some(complete(0)),
        seen: 0,
        created: 0,
        updated: 0,
        deactivated: 0,
        held: 0,
        rejected: 0,
        cost: TallySnapshot::default(),
        error: None,
    }
}

/// The first error of an opening, in words.
pub(super) fn refusal(path: &Path) -> (Error, String) {
    let error = Mirror::open(path, "epoch two").err().unwrap();
    let text = error.to_string();
    (error, text)
}
