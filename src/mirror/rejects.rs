//! Resources that could not be understood (promise P9): the newest of each source, and how many there are.

use rusqlite::{Connection, OptionalExtension as _, params};
use sha2::{Digest as _, Sha256};

use super::apply::Writer;
use super::column::whole;
use super::error::Error;
use super::stage::Stage;
use super::syncs::SyncRow;
use super::table::of_table;
use crate::model::time::our_text;
use crate::model::{Certificate, Mode, Reject, ResourceId};

/// Rejects of one source that are kept with reason and body: at 4 KiB each they stay below 4 MiB. Who has more of them
/// has one cause, and sees it in these.
pub(super) const KEPT_REJECTS: u64 = 1000;

/// By what a reject is known again: its id, or a digest of its text where not even that could be read. The reason
/// says where in its page it stood, which is another place once somebody before it comes or goes.
pub(super) fn key(reject: &Reject) -> String {
    match &reject.id {
        Some(id) => id.as_str().to_owned(),
        None => format!("sha256:{:x}", Sha256::digest(&reject.body)),
    }
}

impl Writer<'_> {
    /// Brings `rejects` up to what the sync found: adds what it could not read, removes what it could, and after a
    /// full sync what it did not meet any more. That need not be a complete one, which there is none of while an id
    /// cannot be read: it is enough that it received every row.
    pub(super) fn settle_rejects(&self, stage: &Stage, sync: &SyncRow) -> Result<(), Error> {
        let met_all = sync.mode == Mode::Full
            && sync
                .certificate
                .as_ref()
                .is_some_and(Certificate::read_every_row);
        let source = Source {
            conn: self.conn,
            instance: sync.instance.as_str(),
            resource: sync.resource.as_str(),
        };
        let mut removed = 0;
        for key in source.keys()? {
            if !stage.is_rejected(&key)? && (met_all || source.was_read(stage, &key)?) {
                source.remove(&key)?;
                removed += 1;
            }
        }
        source.add(stage, &our_text(sync.finished_at))?;
        source.trim()?;
        // The count goes on above what is kept.
        let met = whole(stage.rejects());
        let before = if met_all {
            0
        } else {
            source.count()? - removed
        };
        let kept = whole(source.keys()?.len() as u64);
        source.set_count(before.max(kept).max(met))?;
        Ok(())
    }
}

/// The rejects of one source.
struct Source<'a> {
    conn: &'a Connection,
    instance: &'a str,
    resource: &'a str,
}

impl Source<'_> {
    fn keys(&self) -> Result<Vec<String>, Error> {
        let mut keys = self
            .conn
            .prepare_cached("SELECT key FROM rejects WHERE instance = ?1 AND resource = ?2")?;
        let keys = keys.query_map([self.instance, self.resource], |row| row.get(0))?;
        Ok(keys.collect::<Result<_, _>>()?)
    }

    /// Whether the crawl saw the id, and could read it.
    fn was_read(&self, stage: &Stage, key: &str) -> Result<bool, Error> {
        let id = ResourceId::new(key);
        if stage.is_staged(&id)? || stage.is_counted(&id)? {
            return Ok(true);
        }
        let rowid: Option<i64> = self
            .conn
            .prepare_cached(of_table!(
                stage.key.resource,
                "SELECT rowid FROM ",
                " WHERE instance = ?1 AND id = ?2"
            ))?
            .query_row([self.instance, key], |row| row.get(0))
            .optional()?;
        Ok(rowid.is_some_and(|rowid| stage.seen.has(rowid)))
    }

    fn remove(&self, key: &str) -> Result<(), Error> {
        self.conn
            .prepare_cached(
                "DELETE FROM rejects WHERE instance = ?1 AND resource = ?2 AND key = ?3",
            )?
            .execute([self.instance, self.resource, key])?;
        Ok(())
    }

    fn add(&self, stage: &Stage, now: &str) -> Result<(), Error> {
        let mut found = stage.conn.prepare(
            "SELECT key, reason, body FROM rejects WHERE reason IS NOT NULL ORDER BY key",
        )?;
        let mut add = self.conn.prepare_cached(
            "INSERT INTO rejects (instance, resource, key, reason, body, first_seen_at, last_seen_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
             ON CONFLICT (instance, resource, key) DO UPDATE
             SET reason = excluded.reason, body = excluded.body, last_seen_at = excluded.last_seen_at",
        )?;
        let mut rows = found.query([])?;
        while let Some(row) = rows.next()? {
            let [key, reason, body]: [String; 3] = [row.get(0)?, row.get(1)?, row.get(2)?];
            add.execute([self.instance, self.resource, &key, &reason, &body, now])?;
        }
        Ok(())
    }

    /// Keeps the newest.
    fn trim(&self) -> Result<(), Error> {
        self.conn
            .prepare_cached(
                "DELETE FROM rejects WHERE instance = ?1 AND resource = ?2 AND key IN
                     (SELECT key FROM rejects WHERE instance = ?1 AND resource = ?2
                      ORDER BY last_seen_at DESC, first_seen_at DESC, key LIMIT -1 OFFSET ?3)",
            )?
            .execute(params![self.instance, self.resource, whole(KEPT_REJECTS)])?;
        Ok(())
    }

    fn count(&self) -> Result<i64, Error> {
        Ok(self
            .conn
            .prepare_cached(
                "SELECT rejected FROM source_counts WHERE instance = ?1 AND resource = ?2",
            )?
            .query_row([self.instance, self.resource], |row| row.get(0))?)
    }

    fn set_count(&self, count: i64) -> Result<(), Error> {
        self.conn
            .prepare_cached(
                "UPDATE source_counts SET rejected = ?3
                 WHERE instance = ?1 AND resource = ?2 AND rejected <> ?3",
            )?
            .execute(params![self.instance, self.resource, count])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FULL, INCREMENTAL, World, take, titled, user};
    use super::*;
    use crate::model::{Page, Row};

    fn nonsense(id: &str) -> Row {
        user(id, "2026-01-01T00:00:00Z", r#","active":5"#)
    }

    fn kept(world: &World) -> Option<String> {
        world.ask("SELECT group_concat(key, ' ') FROM (SELECT key FROM rejects ORDER BY key)")
    }

    fn counted(world: &World) -> i64 {
        world.reader().health(world.now).unwrap()[0].rejects
    }

    #[tokio::test]
    async fn a_reject_costs_one_record_and_goes_when_it_is_read_again() {
        let mut world = World::new().await;
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss")])
            .await;
        world
            .sync(&[nonsense("a"), titled("b", "Bishop"), nonsense("n")])
            .await;
        assert_eq!(kept(&world).as_deref(), Some("a n"));
        assert_eq!(counted(&world), 2);
        // Neither mirrored nor absent.
        let users = "SELECT group_concat(id || title || active, ' ') FROM users";
        assert_eq!(world.ask::<String>(users), "aAgent1 bBishop1");
        let reject: String =
            world.ask("SELECT reason || body || (first_seen_at = last_seen_at) FROM rejects");
        assert!(
            reject.contains("active") && reject.contains(r#""active":5"#) && reject.ends_with('1'),
            "{reject}"
        );

        world
            .sync(&[nonsense("a"), titled("b", "Bishop"), nonsense("n")])
            .await;
        assert!(world.ask::<bool>("SELECT min(first_seen_at < last_seen_at) FROM rejects"));
        // Not seen is not read; seen unchanged is.
        world.sync_as(INCREMENTAL, &[titled("a", "Agent")]).await;
        assert_eq!((kept(&world).as_deref(), counted(&world)), (Some("n"), 1));
        world
            .sync(&[titled("a", "Agent"), titled("b", "Bishop")])
            .await;
        assert_eq!((kept(&world), counted(&world)), (None, 0));
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn what_has_no_id_is_known_by_its_text() {
        let mut world = World::new().await;
        let page = |body: &str| Page {
            rejects: vec![Reject::new(None, "no `id`", body.as_bytes())],
            ..Page::default()
        };
        for round in 0..2 {
            let mut stage = world.stage(Mode::Full);
            for body in ["{}", "[]", "{}"] {
                let report = take(&mut stage, &world.reader(), page(body));
                assert_eq!(report.new_ids, 0);
            }
            assert_eq!((stage.distinct(), stage.rejects()), (0, 2), "{round}");
            world.apply(stage, FULL).await;
            assert_eq!(counted(&world), 2);
            assert!(world.ask::<bool>("SELECT min(key LIKE 'sha256:%') FROM rejects"));
        }
    }

    #[tokio::test]
    async fn the_table_is_capped_and_the_count_goes_on() {
        let mut world = World::new().await;
        let many: Vec<Row> = (0..KEPT_REJECTS + 5)
            .map(|n| nonsense(&format!("{n:05}")))
            .collect();
        world.sync(&many).await;
        let rows = "SELECT count(*) FROM rejects";
        assert_eq!(world.ask::<i64>(rows), whole(KEPT_REJECTS));
        assert_eq!(counted(&world), whole(KEPT_REJECTS) + 5);
        assert_eq!(
            world.ask::<i64>("SELECT rejected FROM syncs"),
            whole(KEPT_REJECTS) + 5
        );
        // The newest are kept, and one that can be read again is counted off.
        world
            .sync_as(INCREMENTAL, &[nonsense("z"), titled("00000", "x")])
            .await;
        assert_eq!(world.ask::<i64>(rows), whole(KEPT_REJECTS));
        assert_eq!(
            world.ask::<i64>("SELECT count(*) FROM rejects WHERE key IN ('z', '00000')"),
            1
        );
        assert_eq!(counted(&world), whole(KEPT_REJECTS) + 4);
        world.sync(&[titled("00000", "x")]).await;
        assert_eq!(counted(&world), 0);
    }
}
