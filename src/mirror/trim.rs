//! Old change records move to `changes_base`, old rows of `syncs` go.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::apply::Writer;
use super::column::whole;
use super::error::Error;
use crate::model::time::our_text;

/// How far back the mirror remembers.
#[derive(Clone, Copy, Debug)]
pub struct TrimOptions {
    /// Change records observed before this go to `changes_base`; `None` keeps them for ever.
    pub changes_before: Option<Timestamp>,
    /// Syncs that changed nothing and finished before this are forgotten.
    pub syncs_before: Timestamp,
    /// Records in one transaction.
    pub batch: usize,
}

/// Records trimmed in one transaction at most: in a long feed each is a page of its own in an index.
const MAX_BATCH: usize = 2_000;

/// No fewer are worth a transaction.
const MIN_BATCH: usize = 50;

/// The writer must be free again after a fraction of a second, however slow the disk (promise P7).
const LONG_TRANSACTION: Duration = Duration::from_millis(300);

impl TrimOptions {
    /// As much at a time as goes at first.
    #[must_use]
    pub fn new(changes_before: Option<Timestamp>, syncs_before: Timestamp) -> Self {
        Self {
            changes_before,
            syncs_before,
            batch: MAX_BATCH,
        }
    }

    /// Fewer records for the next transaction where the last one took long, more where it did not.
    pub fn pace(&mut self, took: Duration) {
        self.batch = match took {
            long if long > LONG_TRANSACTION => self.batch / 2,
            short if short < LONG_TRANSACTION / 4 => self.batch * 2,
            _ => self.batch,
        }
        .clamp(MIN_BATCH, MAX_BATCH);
    }
}

/// Whether an old record is the last of something that is in no table any more: of somebody who was dropped with his instance, or of a
/// profile that is not in the list. `fold` has the same.
const LEAVES: &str =
    "(old.reason = 'unlinked' OR (old.resource = 'Identity' AND old.kind = 'deactivate'))";

impl Writer<'_> {
    /// Trims one batch from the tail. Returns whether there is more to trim. The newest record always stays: the next one
    /// must not be observed before it.
    ///
    /// # Errors
    /// Of the database.
    pub fn trim(&self, options: &TrimOptions) -> Result<bool, Error> {
        let batch = whole(options.batch.max(1) as u64);
        let changes = match options.changes_before {
            Some(before) => self.trim_changes(&our_text(before), batch)?,
            None => false,
        };
        let syncs = self.trim_syncs(&our_text(options.syncs_before), batch)?;
        Ok(changes || syncs)
    }

    fn trim_changes(&self, before: &str, batch: i64) -> Result<bool, Error> {
        let (first, last): (i64, i64) =
            self.conn
                .query_row("SELECT first_seq, last_seq FROM feed", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
        let bound = last.min(first.saturating_add(batch));
        // `observed_at` never goes back: what is old enough is one piece at the tail.
        let young: Option<i64> = self
            .conn
            .query_row(
                "SELECT seq FROM changes WHERE seq >= ?1 AND seq < ?2 AND observed_at >= ?3 ORDER BY seq LIMIT 1",
                params![first, bound, before],
                |row| row.get(0),
            )
            .optional()?;
        let end = young.unwrap_or(bound);
        if end <= first {
            return Ok(false);
        }
        let insert = format!(
            "INSERT INTO changes_base
             SELECT * FROM changes AS old
             WHERE seq < ?1 AND NOT {LEAVES} AND NOT EXISTS
                 (SELECT 1 FROM changes AS newer
                  WHERE newer.instance = old.instance AND newer.resource = old.resource AND newer.id = old.id
                    AND newer.seq > old.seq AND newer.seq < ?1)
             ON CONFLICT (instance, resource, id) DO UPDATE
             SET seq = excluded.seq, sync_id = excluded.sync_id, kind = excluded.kind, reason = excluded.reason,
                 changed = excluded.changed, after = excluded.after, proof = excluded.proof, hold_id = excluded.hold_id,
                 source_modified_at = excluded.source_modified_at, observed_at = excluded.observed_at"
        );
        self.conn.execute(&insert, [end])?;
        self.forget_leavers(end)?;
        self.conn
            .execute("DELETE FROM changes WHERE seq < ?1", [end])?;
        self.conn.execute("UPDATE feed SET first_seq = ?1", [end])?;
        Ok(young.is_none() && end < last)
    }

    /// Of whatever left its table by its newest record before `end` nothing is left to fold.
    fn forget_leavers(&self, end: i64) -> Result<(), Error> {
        let mut forgotten = self.conn.prepare_cached(&format!(
            "SELECT old.instance, old.resource, old.id FROM changes AS old
             JOIN changes_base AS base
                 ON base.instance = old.instance AND base.resource = old.resource AND base.id = old.id
             WHERE old.seq < ?1 AND {LEAVES} AND base.seq < old.seq"
        ))?;
        let mut rows = forgotten.query([end])?;
        while let Some(row) = rows.next()? {
            let key: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            self.conn
                .prepare_cached(
                    "DELETE FROM changes_base WHERE instance = ?1 AND resource = ?2 AND id = ?3",
                )?
                .execute([&key[0], &key[1], &key[2]])?;
            self.touched
                .drop_seal(self.conn, "changes_base", &key.join(" "))?;
        }
        Ok(())
    }

    fn trim_syncs(&self, before: &str, batch: i64) -> Result<bool, Error> {
        let removed = self.conn.execute(
            "DELETE FROM syncs WHERE id IN
                 (SELECT id FROM syncs
                  WHERE created = 0 AND updated = 0 AND deactivated = 0 AND held = 0 AND finished_at < ?1
                  ORDER BY finished_at LIMIT ?2)",
            params![before, batch],
        )?;
        Ok(whole(removed as u64) == batch)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::testing::{FULL, USER, World, sync_row, titled, user};
    use super::*;
    use crate::model::{Mode, Outcome};

    async fn trim(world: &World, options: TrimOptions) -> bool {
        let trimmed = world.mirror.write(move |writer| writer.trim(&options));
        trimmed.await.unwrap()
    }

    #[test]
    fn transactions_become_shorter_on_a_slow_disk_and_longer_again() {
        let mut options = TrimOptions::new(None, Timestamp::UNIX_EPOCH);
        let mut pace = |ms: u64| {
            options.pace(Duration::from_millis(ms));
            options.batch
        };
        assert_eq!(
            [1, 2_000, 301, 300].map(&mut pace),
            [2_000, 1_000, 500, 500]
        );
        assert_eq!([900; 5].map(&mut pace), [250, 125, 62, 50, 50]);
        assert_eq!([74, 75, 10].map(&mut pace), [100, 100, 200]);
    }

    #[tokio::test]
    async fn the_tail_goes_batch_by_batch_and_the_newest_of_each_user_stays() {
        let mut world = World::new().await;
        let start = world.now;
        world.sync(&[titled("a", "1"), titled("b", "1")]).await;
        world.sync(&[titled("a", "2"), titled("b", "1")]).await;
        world.sync(&[titled("a", "3"), titled("b", "1")]).await;
        let minute = |minutes: i64| start + SignedDuration::from_mins(minutes);
        let options = |before, batch| TrimOptions {
            changes_before: before,
            syncs_before: start,
            batch,
        };
        let base =
            "SELECT group_concat(seq || id, ' ') FROM (SELECT * FROM changes_base ORDER BY seq)";
        let first = |world: &World| world.reader().feed().unwrap().first_seq;

        assert!(!trim(&world, options(None, 9)).await);
        // The first sync was in minute 1: nothing is older than that.
        assert!(!trim(&world, options(Some(minute(1)), 9)).await);
        assert_eq!(first(&world), 1);
        assert!(trim(&world, options(Some(minute(3)), 2)).await);
        assert_eq!(
            (first(&world), world.ask::<String>(base)),
            (3, "1a 2b".into())
        );
        assert_eq!(world.difference(), None);
        assert!(!trim(&world, options(Some(minute(3)), 2)).await);
        assert_eq!(
            (first(&world), world.ask::<String>(base)),
            (4, "2b 3a".into())
        );
        assert_eq!(world.difference(), None);

        // However old, the newest record of all stays.
        assert!(!trim(&world, options(Some(minute(99)), 9)).await);
        assert_eq!(first(&world), 4);
        assert_eq!(world.reader().history(USER, "acme", "a").unwrap().len(), 2);
        world.sync(&[titled("a", "4"), titled("b", "4")]).await;
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn a_history_says_what_held_when_also_behind_the_trimmed_part() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "1")]).await;
        world.sync(&[titled("a", "2")]).await;
        world
            .sync(&[user(
                "a",
                "2026-02-01T00:00:00Z",
                r#","title":"3","active":false"#,
            )])
            .await;
        world.sync(&[]).await;
        let at = |world: &World, time: &str| -> Option<String> {
            world.ask(&format!(
                "SELECT group_concat(json_extract(attributes, '$.title') || active || gone, ' ') FROM users_history
                 WHERE instance = 'acme' AND id = 'a' AND valid_from <= '{time}' AND (valid_to IS NULL OR valid_to > '{time}')"
            ))
        };
        let states = [
            ("2026-03-01T12:00:59.999Z", None),
            ("2026-03-01T12:01:00.000Z", Some("110")),
            ("2026-03-01T12:01:59.999Z", Some("110")),
            ("2026-03-01T12:02:00.000Z", Some("210")),
            ("2026-03-01T12:03:00.000Z", Some("300")),
            ("2026-03-01T12:04:00.000Z", Some("301")),
            ("2030-01-01T00:00:00.000Z", Some("301")),
        ];
        for (time, state) in states {
            assert_eq!(at(&world, time).as_deref(), state, "{time}");
        }
        let options = TrimOptions {
            changes_before: Some("2026-03-01T12:02:30Z".parse().unwrap()),
            syncs_before: world.now,
            batch: 9,
        };
        trim(&world, options).await;
        for (time, state) in &states[3..] {
            assert_eq!(at(&world, time).as_deref(), *state, "{time}");
        }
    }

    #[tokio::test]
    async fn old_syncs_that_changed_nothing_are_forgotten() {
        let mut world = World::new().await;
        let directory = [titled("a", "1")];
        for _ in 0..4 {
            world.sync_as(FULL, &directory).await;
        }
        let now = world.now;
        let held = world.mirror.write(move |writer| {
            let mut row = sync_row(
                writer.reserve_sync()?,
                Mode::Full,
                now - SignedDuration::from_hours(9),
            );
            row.outcome = Outcome::Failed;
            row.held = 1;
            writer.fail(&row, None)
        });
        held.await.unwrap();
        let options = TrimOptions {
            changes_before: None,
            syncs_before: world.now,
            batch: 1,
        };
        let ids = |world: &World| world.ask::<String>("SELECT group_concat(id) FROM syncs");
        assert!(trim(&world, options).await);
        assert_eq!(ids(&world), "1,3,4,5");
        while trim(&world, options).await {}
        // What changed something, held something, or is not old.
        assert_eq!(ids(&world), "1,4,5");
    }
}
