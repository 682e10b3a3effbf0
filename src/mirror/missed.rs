//! What incremental syncs should have seen: a full sync counts it, to find a filter that is honoured
//! for a known id and answers nobody all the same.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::column::time;
use super::error::Error;
use super::read::Reader;
use super::stage::{Stage, Staged};
use super::staged::Which;
use super::table::of_table;
use crate::model::time::our_text;

/// What every incremental sync since the last full one should have shown.
struct Covered {
    /// The instance's time at the start of that full sync: what was stamped before, it saw itself.
    from: Timestamp,
    /// The instance's time at the start of the last of the incremental ones.
    to: Timestamp,
}

impl Stage {
    /// Whether this full crawl found a resource whose stamp moved after the last full sync and in time
    /// for an incremental one that succeeded since, while all of those saw nobody at all.
    ///
    /// `overlap` is left to the instance: a stamp may become visible so long after it was taken.
    ///
    /// # Errors
    /// Of the databases.
    pub fn incrementals_see_nobody(
        &self,
        reader: &Reader,
        last_full_at: Timestamp,
        overlap: Duration,
    ) -> Result<bool, Error> {
        let Some(covered) = self.covered_without_seeing(reader, last_full_at)? else {
            return Ok(false);
        };
        let to = covered
            .to
            .saturating_sub(overlap)
            .unwrap_or(Timestamp::UNIX_EPOCH);
        let mut known = reader.conn.prepare_cached(of_table!(
            self.key.resource,
            "SELECT modified_at FROM ",
            " WHERE instance = ?1 AND id = ?2 AND modified_at IS NOT NULL"
        ))?;
        let mut missed = false;
        self.each_staged(Which::After(None), &mut |entry| {
            let Staged::Seen(arrived) = &entry.staged else {
                return Ok(ControlFlow::Continue(()));
            };
            // The mirror has the stamp of the last change that was recorded, not the last one seen: a
            // label may change long after a login had moved the stamp.
            let in_time = |stamp: &Timestamp| covered.from < *stamp && *stamp <= to;
            let Some(modified_at) = arrived.modified_at.filter(in_time) else {
                return Ok(ControlFlow::Continue(()));
            };
            let before: Option<Timestamp> = known
                .query_row(
                    params![self.key.instance.as_str(), entry.id.as_str()],
                    |row| time(row, 0),
                )
                .optional()?
                .flatten();
            missed = before.is_some_and(|before| modified_at > before);
            Ok(if missed {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        Ok(missed)
    }

    /// `None` where there was no incremental sync since the last full one, or one of them saw somebody.
    fn covered_without_seeing(
        &self,
        reader: &Reader,
        last_full_at: Timestamp,
    ) -> Result<Option<Covered>, Error> {
        let source = (self.key.instance.as_str(), self.key.resource.as_str());
        // From the newest row backwards: there may be a month of everybody's syncs before it.
        let full: Option<(i64, Option<Timestamp>)> = reader
            .conn
            .prepare_cached(
                "SELECT id, json_extract(certificate, '$.first_date') FROM syncs
                 WHERE instance = ?1 AND resource = ?2 AND mode = 'full' AND outcome = 'succeeded'
                   AND json_extract(certificate, '$.verdict') = 'complete'
                 ORDER BY id DESC LIMIT 1",
            )?
            .query_row(source, |row| Ok((row.get(0)?, time(row, 1)?)))
            .optional()?;
        let Some((full_id, Some(from))) = full else {
            return Ok(None);
        };
        let (seen, to): (i64, Option<Timestamp>) = reader
            .conn
            .prepare_cached(
                "SELECT coalesce(sum(seen), 0), max(json_extract(certificate, '$.first_date'))
                 FROM syncs
                 WHERE id > ?3 AND instance = ?1 AND resource = ?2 AND mode = 'incremental'
                   AND outcome = 'succeeded' AND certificate IS NOT NULL AND started_at > ?4",
            )?
            .query_row(
                params![source.0, source.1, full_id, our_text(last_full_at)],
                |row| Ok((row.get(0)?, time(row, 1)?)),
            )?;
        Ok(to.filter(|_| seen == 0).map(|to| Covered { from, to }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FULL, World, complete, name, time, user};
    use super::*;
    use crate::mirror::testing::USER;
    use crate::model::{Certificate, Mode, Row};

    /// A sync whose first answer had the time of our clock.
    async fn dated(world: &mut World, mode: Mode, rows: &[Row]) {
        let mut stage = world.stage(mode);
        world.crawl(&mut stage, rows);
        let (batch, mut finish) = world.ending(&stage).await;
        finish.sync.certificate = Some(Certificate {
            first_date: Some(world.now),
            ..complete(rows.len() as u64)
        });
        let written = world.mirror.write(move |writer| {
            writer.apply(&mut stage, &batch, None, &finish)?;
            stage.remove()
        });
        written.await.unwrap();
    }

    fn missed(world: &World, rows: &[Row]) -> bool {
        let reader = world.reader();
        let mut stage = world.stage(FULL.mode);
        world.crawl(&mut stage, rows);
        let source = reader.source(&name("acme"), USER).unwrap();
        let last_full_at = source.last_full_success_at.unwrap();
        stage
            .incrementals_see_nobody(&reader, last_full_at, Duration::ZERO)
            .unwrap()
    }

    fn ada(modified_at: &str, title: &str) -> Row {
        user("a", modified_at, &format!(r#","title":"{title}""#))
    }

    #[tokio::test]
    async fn who_changed_between_a_full_sync_and_one_that_saw_nobody_was_missed() {
        let mut world = World::new().await;
        dated(
            &mut world,
            Mode::Full,
            &[ada("2026-01-01T00:00:00Z", "Agent")],
        )
        .await;
        let full_at = world.now;
        world.now = time("2026-03-01T13:00:00Z");
        dated(&mut world, Mode::Incremental, &[]).await;
        assert!(full_at < time("2026-03-01T12:30:00Z"));
        assert!(missed(&world, &[ada("2026-03-01T12:30:00Z", "Boss")]));
        // After the last incremental sync: it could not see that.
        assert!(!missed(&world, &[ada("2026-03-01T13:30:00Z", "Boss")]));
    }

    #[tokio::test]
    async fn a_stamp_that_the_last_full_sync_saw_itself_proves_nothing() {
        let mut world = World::new().await;
        dated(
            &mut world,
            Mode::Full,
            &[ada("2026-01-01T00:00:00Z", "Agent")],
        )
        .await;
        // A login moved the stamp and nothing else, so that the mirror keeps the old one.
        let logged_in = "2026-02-01T00:00:00Z";
        dated(&mut world, Mode::Full, &[ada(logged_in, "Agent")]).await;
        dated(&mut world, Mode::Incremental, &[]).await;
        // Then a label changes, and the stamp does not.
        assert!(!missed(&world, &[ada(logged_in, "Agent, first class")]));
    }
}
