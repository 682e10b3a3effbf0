//! The feed's numbers: dense, in the order of time, and never given out twice.

use super::super::feed::Feed;
use super::{Stop, Verification, differ};

impl Verification<'_> {
    pub(super) fn check_sequence(&mut self) -> Result<(), Stop> {
        let feed = self.reader.feed()?;
        let newest_sync = self.check_changes(&feed)?.max(self.check_base(&feed)?);
        self.check_ids(newest_sync)
    }

    /// `seq` is dense from `first_seq` to `last_seq`, and `observed_at` never goes back. Returns the highest `sync_id`.
    fn check_changes(&mut self, feed: &Feed) -> Result<i64, Stop> {
        let mut changes = self
            .reader
            .conn
            .prepare("SELECT seq, sync_id, observed_at FROM changes ORDER BY seq")?;
        let mut rows = changes.query([])?;
        let mut next = feed.first_seq;
        let mut newest = String::new();
        let mut newest_sync = 0;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if seq != next {
                return differ(format!(
                    "the feed has record {seq} where {next} should follow"
                ));
            }
            newest_sync = newest_sync.max(row.get(1)?);
            let observed_at = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
            if observed_at < newest.as_str() {
                return differ(format!(
                    "record {seq} of the feed was observed before the one in front of it"
                ));
            }
            newest.clear();
            newest.push_str(observed_at);
            next += 1;
            self.looked_at_one()?;
        }
        if next != feed.last_seq + 1 {
            return differ(format!(
                "the feed ends with record {}, but `feed.last_seq` is {}",
                next - 1,
                feed.last_seq
            ));
        }
        Ok(newest_sync)
    }

    /// What was trimmed is older than what was not. Returns the highest `sync_id`.
    fn check_base(&self, feed: &Feed) -> Result<i64, Stop> {
        let (newest, newest_sync): (i64, i64) = self.reader.conn.query_row(
            "SELECT coalesce(max(seq), 0), coalesce(max(sync_id), 0) FROM changes_base",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if newest >= feed.first_seq {
            return differ(format!(
                "`changes_base` has record {newest}, but `feed.first_seq` is {}",
                feed.first_seq
            ));
        }
        Ok(newest_sync)
    }

    /// The next sync and the next hold get a number that none had.
    fn check_ids(&self, newest_sync: i64) -> Result<(), Stop> {
        let mut given = self.reader.conn.prepare(
            "SELECT 'syncs', coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'syncs'), 0),
                    max(?1, coalesce((SELECT max(id) FROM syncs), 0), coalesce((SELECT max(sync_id) FROM holds), 0))
             UNION ALL
             SELECT 'holds', coalesce((SELECT max(seq) FROM sqlite_sequence WHERE name = 'holds'), 0),
                    coalesce((SELECT max(id) FROM holds), 0)",
        )?;
        let mut rows = given.query([newest_sync])?;
        while let Some(row) = rows.next()? {
            let (last, used): (i64, i64) = (row.get(1)?, row.get(2)?);
            if last < used {
                return differ(format!(
                    "`sqlite_sequence` says that {last} is the last number of `{}`, but {used} is in use",
                    row.get::<_, String>(0)?
                ));
            }
        }
        Ok(())
    }
}
