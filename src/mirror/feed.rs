//! Reading the feed: its state and its records.

use rusqlite::{Row, params};
use serde_json::value::RawValue;

use super::column::{json, whole};
use super::error::Error;
use super::read::Reader;

/// The row of `feed`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Feed {
    /// Of this file's history.
    pub epoch: String,
    /// The oldest record still kept.
    pub first_seq: i64,
    /// The newest.
    pub last_seq: i64,
}

/// A row of `changes` as text and JSON, in the contract's column names.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the columns of `changes`")]
pub struct ChangeRow {
    pub seq: i64,
    pub sync_id: i64,
    pub instance: String,
    pub resource: String,
    pub id: String,
    pub kind: String,
    pub reason: String,
    pub changed: Option<Box<RawValue>>,
    pub after: Option<Box<RawValue>>,
    pub proof: Option<Box<RawValue>>,
    pub hold_id: Option<i64>,
    pub source_modified_at: Option<String>,
    pub observed_at: String,
}

/// Which change records to read.
#[derive(Clone, Debug, Default)]
pub struct ChangeQuery {
    /// Records with a greater `seq`.
    pub after: i64,
    /// Only of this instance.
    pub instance: Option<String>,
    /// Only of this kind.
    pub kind: Option<String>,
    /// At most so many.
    pub limit: usize,
}

pub(super) const COLUMNS: &str = "seq, sync_id, instance, resource, id, kind, reason, changed, after, proof, hold_id, \
                       source_modified_at, observed_at";

/// Filters are written so that the feed is read in the order of `seq`, whatever indexes there are.
const FITS: &str = "(?1 IS NULL OR instance = ?1) AND (?2 IS NULL OR kind = ?2)";

impl Reader {
    /// The feed's row.
    ///
    /// # Errors
    /// Of the database.
    pub fn feed(&self) -> Result<Feed, Error> {
        Ok(self
            .conn
            .prepare_cached("SELECT epoch, first_seq, last_seq FROM feed")?
            .query_row([], |row| {
                Ok(Feed {
                    epoch: row.get(0)?,
                    first_seq: row.get(1)?,
                    last_seq: row.get(2)?,
                })
            })?)
    }

    /// Change records in the order of `seq`.
    ///
    /// # Errors
    /// Of the database.
    pub fn changes(&self, query: &ChangeQuery) -> Result<Vec<ChangeRow>, Error> {
        self.rows(
            &format!(
                "SELECT {COLUMNS} FROM changes WHERE {FITS} AND seq > ?4 ORDER BY seq LIMIT ?3"
            ),
            params![
                query.instance,
                query.kind,
                whole(query.limit as u64),
                query.after
            ],
        )
    }

    /// The last `limit` change records that fit `query` (its `after` is ignored), oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub fn last_changes(&self, query: &ChangeQuery) -> Result<Vec<ChangeRow>, Error> {
        let mut rows = self.rows(
            &format!("SELECT {COLUMNS} FROM changes WHERE {FITS} ORDER BY seq DESC LIMIT ?3"),
            params![query.instance, query.kind, whole(query.limit as u64)],
        )?;
        rows.reverse();
        Ok(rows)
    }

    pub(super) fn rows(
        &self,
        sql: &str,
        bound: impl rusqlite::Params,
    ) -> Result<Vec<ChangeRow>, Error> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let rows = statement.query_map(bound, change)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn change(row: &Row<'_>) -> rusqlite::Result<ChangeRow> {
    Ok(ChangeRow {
        seq: row.get(0)?,
        sync_id: row.get(1)?,
        instance: row.get(2)?,
        resource: row.get(3)?,
        id: row.get(4)?,
        kind: row.get(5)?,
        reason: row.get(6)?,
        changed: json(row, 7)?,
        after: json(row, 8)?,
        proof: json(row, 9)?,
        hold_id: row.get(10)?,
        source_modified_at: row.get(11)?,
        observed_at: row.get(12)?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FULL, INCREMENTAL, World, plan_of, titled};
    use super::*;
    use crate::model::Mode;

    #[tokio::test]
    async fn the_feed_is_read_forward_from_a_place_and_from_its_end() {
        let mut world = World::new().await;
        let link = world.mirror.write(|writer| {
            writer.link(&[
                super::super::testing::pin("acme"),
                super::super::testing::pin("globex"),
            ])
        });
        link.await.unwrap();
        world.sync(&[titled("a", "1"), titled("b", "1")]).await;
        let mut stage = world.stage_of("globex", Mode::Full);
        world.page(&mut stage, &[titled("g", "1")]);
        world.apply(stage, FULL).await;
        world
            .sync_as(INCREMENTAL, &[titled("a", "2"), titled("c", "1")])
            .await;

        let reader = world.reader();
        let query = |after, instance: &str, kind: &str, limit| ChangeQuery {
            after,
            instance: (!instance.is_empty()).then(|| instance.to_owned()),
            kind: (!kind.is_empty()).then(|| kind.to_owned()),
            limit,
        };
        let seqs = |rows: Vec<ChangeRow>| rows.iter().map(|row| row.seq).collect::<Vec<_>>();
        assert_eq!(
            seqs(reader.changes(&query(1, "", "", 3)).unwrap()),
            [2, 3, 4]
        );
        assert_eq!(
            seqs(reader.changes(&query(0, "acme", "create", 9)).unwrap()),
            [1, 2, 5]
        );
        assert_eq!(seqs(reader.changes(&query(5, "", "", 9)).unwrap()), [0; 0]);
        assert_eq!(
            seqs(reader.last_changes(&query(99, "acme", "", 2)).unwrap()),
            [4, 5]
        );

        let row = &reader.last_changes(&query(0, "", "update", 1)).unwrap()[0];
        let json = serde_json::to_value(row).unwrap();
        assert_eq!(json["changed"]["title"]["to"], "2");
        assert_eq!(json["after"]["title"], "2");
        assert_eq!(
            world.ask::<String>("SELECT attributes FROM users WHERE id = 'a'"),
            row.after.as_ref().unwrap().get()
        );
    }

    #[tokio::test]
    async fn filters_do_not_make_it_sort() {
        let world = World::new().await;
        let sql = format!(
            "SELECT {COLUMNS} FROM changes WHERE {FITS} AND seq > ?4 ORDER BY seq LIMIT ?3"
        );
        let plan = plan_of(&world.reader().conn, &sql);
        assert_eq!(plan, "SEARCH changes USING INTEGER PRIMARY KEY (rowid>?)");
    }
}
