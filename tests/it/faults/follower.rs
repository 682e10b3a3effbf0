//! A program that reads the mirror while it is being written: it follows the feed, folds it, and holds
//! what it has folded against `users`, `groups` and `memberships` each time it looks (promises P2, P3 and P12).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// One user, group or membership of one instance.
type Key = (String, String, String);

/// A record as it was read: nothing of it may ever change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    seq: i64,
    key: Key,
    kind: String,
    after: String,
    rest: String,
}

/// Follows one mirror.
#[derive(Default)]
pub(super) struct Follower {
    line: Option<Connection>,
    epoch: String,
    records: Vec<Record>,
    folded: BTreeMap<Key, (String, i64)>,
    watermarks: BTreeMap<(String, String), (Option<String>, i64)>,
    n_looks: u64,
}

/// What the fold is held against; who is in a group is told by the record's own text.
const MIRRORED: &str = "
    SELECT instance, 'User', id, attributes, changed_seq FROM users
    UNION ALL
    SELECT instance, 'Group', id, attributes, changed_seq FROM groups
    UNION ALL
    SELECT instance, 'Membership',
           replace(replace(group_id, '%', '%25'), '/', '%2F') || '/' || replace(replace(member_id, '%', '%25'), '/', '%2F'),
           iif(ended_at IS NULL, 'lives', 'ended'), changed_seq
    FROM memberships";

const RECORDS: &str = "SELECT seq, instance, resource, id, kind, after,
        json_array(sync_id, reason, changed, proof, hold_id, source_modified_at, observed_at)
    FROM changes WHERE seq > ?1 ORDER BY seq";

impl Follower {
    /// Looks once: one snapshot, and no wait for anybody.
    ///
    /// # Panics
    /// When the feed has a gap, or its fold is not `users`, or the snapshot has to be waited for.
    pub(super) fn look(&mut self, mirror: &Path) {
        if !mirror.exists() {
            return;
        }
        let line = self.line.take().unwrap_or_else(|| open(mirror));
        let snapshot = line.unchecked_transaction().unwrap();
        self.n_looks += 1;
        let epoch: String = one(&line, "SELECT epoch FROM feed");
        assert!(
            self.epoch.is_empty() || self.epoch == epoch,
            "the epoch changed under a reader"
        );
        self.epoch = epoch;
        self.read_on(&line);
        self.watch_watermarks(&line);
        drop(snapshot);
        self.line = Some(line);
    }

    /// How often it has looked.
    pub(super) fn n_looks(&self) -> u64 {
        self.n_looks
    }

    /// Reads everything again: what was read before stands as it stood.
    pub(super) fn read_again(&self) {
        let line = self.line.as_ref().expect("it has looked");
        assert!(
            records(line, 0) == self.records,
            "a record that was read is another one now"
        );
    }

    fn read_on(&mut self, line: &Connection) {
        let last = self.records.last().map_or(0, |record| record.seq);
        let new = records(line, last);
        let last_seq: i64 = one(line, "SELECT last_seq FROM feed");
        assert_eq!(
            last + new.len() as i64,
            last_seq,
            "the feed is dense, and `feed` says how far it goes"
        );
        for (record, seq) in new.iter().zip(last + 1..) {
            assert_eq!(record.seq, seq, "`seq` grows by 1");
            let known = self.folded.contains_key(&record.key);
            let is_membership = record.key.1 == "Membership";
            // A membership that comes back is created again.
            assert!(
                (record.kind != "create") == known || is_membership && known,
                "only who is new is created: {record:?}"
            );
            let after = match (is_membership, &*record.kind) {
                (false, _) => record.after.clone(),
                (true, "create") => "lives".to_owned(),
                (true, _) => "ended".to_owned(),
            };
            let before = self.folded.get(&record.key);
            assert!(
                !is_membership || before.is_none_or(|(before, _)| *before != after),
                "it is already so: {record:?}"
            );
            let state = (after, record.seq);
            self.folded.insert(record.key.clone(), state);
        }
        if new.is_empty() && self.n_looks % 10 != 1 {
            return;
        }
        self.records.extend(new);
        let mut users = line.prepare_cached(MIRRORED).unwrap();
        let rows = users.query_map([], |row| {
            let key = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((key, (row.get(3)?, row.get(4)?)))
        });
        let users: BTreeMap<Key, (String, i64)> = rows.unwrap().map(Result::unwrap).collect();
        for (key, folded) in &self.folded {
            assert_eq!(users.get(key), Some(folded), "the fold is not the mirror");
        }
        assert_eq!(users.len(), self.folded.len(), "somebody has no record");
    }

    /// A watermark moves with a sync that succeeded, and with nothing else.
    fn watch_watermarks(&mut self, line: &Connection) {
        let mut sources = line
            .prepare_cached(
                "SELECT instance, resource, watermark,
                    (SELECT coalesce(max(id), 0) FROM syncs
                     WHERE syncs.instance = sources.instance AND syncs.resource = sources.resource
                         AND outcome = 'succeeded')
                 FROM sources",
            )
            .unwrap();
        let rows = sources.query_map([], |row| {
            let source = (row.get(0)?, row.get(1)?);
            Ok((source, (row.get(2)?, row.get(3)?)))
        });
        for (source, now) in rows.unwrap().map(Result::unwrap) {
            let before = self.watermarks.insert(source.clone(), now.clone());
            if let Some(before) = before {
                assert!(
                    before.0 == now.0 || before.1 < now.1,
                    "the watermark of {source:?} moved without a sync that succeeded: {before:?}, {now:?}"
                );
            }
        }
    }
}

fn open(mirror: &Path) -> Connection {
    let line = Connection::open_with_flags(
        format!("file:{}?mode=ro", mirror.display()),
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
    )
    .unwrap();
    // Whoever has to wait gets an error instead.
    line.busy_timeout(Duration::ZERO).unwrap();
    line
}

fn records(line: &Connection, after: i64) -> Vec<Record> {
    let mut query = line.prepare_cached(RECORDS).unwrap();
    let rows = query.query_map([after], |row| {
        Ok(Record {
            seq: row.get(0)?,
            key: (row.get(1)?, row.get(2)?, row.get(3)?),
            kind: row.get(4)?,
            after: row.get(5)?,
            rest: row.get(6)?,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn one<T: rusqlite::types::FromSql>(line: &Connection, sql: &str) -> T {
    line.query_row(sql, [], |row| row.get(0)).unwrap()
}
