//! Telling unchanged resources from others by their fingerprints, before anything is decoded.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension as _, params};

use super::column::whole;
use super::error::Error;
use super::read::Reader;
use super::stage::Stage;
use super::table::of_table;
use crate::model::{Fingerprint, Mode, Page, ResourceId, ResourceType, Row};
use crate::reconcile::fingerprint::fingerprint;

/// What the mirror has of one row of a page.
#[derive(Clone, Copy, Default)]
struct Found {
    rowid: Option<i64>,
    fingerprint: Option<Fingerprint>,
}

/// A merge join reads every known id between the first and the last of a page. Where there are many more of those than
/// rows in the page, looking up each row is cheaper, and an instance cannot make us read the whole table for each page.
const MERGE_AT_MOST: usize = 4;

/// What a merge join reads: a piece of an index each.
const FINGERPRINTS: &str = "
    SELECT id, fingerprint FROM fingerprints
    WHERE instance = ?1 AND resource = ?2 AND id BETWEEN ?3 AND ?4
    ORDER BY id LIMIT ?5";

fn known_of(resource: ResourceType) -> &'static str {
    of_table!(
        resource,
        "SELECT id, rowid FROM ",
        " WHERE instance = ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id LIMIT ?4"
    )
}

impl Stage {
    /// Compares a page with the stored fingerprints: marks what is unchanged as seen and returns the
    /// places in `page.rows` of everything else, which the caller decodes and puts. In an incremental sync that is all of
    /// them: applied, each tells a full one beside it that it was read since (promise P6), and they are few.
    ///
    /// # Errors
    /// Of the databases.
    pub fn compare(&mut self, reader: &Reader, page: &Page) -> Result<Vec<usize>, Error> {
        let rows = &page.rows;
        if self.key.mode == Mode::Incremental {
            return Ok((0..rows.len()).collect());
        }
        let ascending = rows.is_sorted_by(|one, next| one.id < next.id);
        let merged = if ascending {
            self.merge(reader, rows)?
        } else {
            None
        };
        let found = match merged {
            Some(found) => found,
            None => self.look_up(reader, rows)?,
        };
        // Of twins within a page the last must win, whichever of them the mirror has: all of them are put.
        let twins = if ascending {
            BTreeMap::new()
        } else {
            occurrences(rows)
        };
        let mut rest = Vec::new();
        for (place, (row, found)) in rows.iter().zip(found).enumerate() {
            match found.rowid {
                Some(rowid)
                    if found.fingerprint == Some(fingerprint(&row.raw))
                        && twins.get(&row.id).is_none_or(|count| *count == 1) =>
                {
                    self.see_unchanged(&row.id, rowid)?;
                }
                _ => rest.push(place),
            }
        }
        Ok(rest)
    }

    /// Merges ascending rows with `fingerprints` and with the index of the resources' table, both read in the order of ids. `None` when
    /// that would read too much.
    fn merge(&self, reader: &Reader, rows: &[Row]) -> Result<Option<Vec<Found>>, Error> {
        let mut found = vec![Found::default(); rows.len()];
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Ok(Some(found));
        };
        let (instance, resource) = (self.key.instance.as_str(), self.key.resource.as_str());
        let (first, last) = (first.id.as_str(), last.id.as_str());
        let limit = rows.len() * MERGE_AT_MOST + 64;

        let mut fingerprints = reader.conn.prepare_cached(FINGERPRINTS)?;
        let bound = params![instance, resource, first, last, whole(limit as u64)];
        let read = join(rows, &mut fingerprints.query(bound)?, |place, row| {
            found[place].fingerprint = row.get(1)?;
            Ok(())
        })?;
        if read >= limit {
            return Ok(None);
        }

        let mut known = reader.conn.prepare_cached(known_of(self.key.resource))?;
        let bound = params![instance, first, last, whole(limit as u64)];
        let read = join(rows, &mut known.query(bound)?, |place, row| {
            found[place].rowid = row.get(1)?;
            Ok(())
        })?;
        Ok((read < limit).then_some(found))
    }

    /// Looks up each row by itself: ids out of order, or far apart.
    fn look_up(&self, reader: &Reader, rows: &[Row]) -> Result<Vec<Found>, Error> {
        let (instance, resource) = (self.key.instance.as_str(), self.key.resource.as_str());
        let mut statement = reader.conn.prepare_cached(of_table!(
            self.key.resource,
            "SELECT known.rowid, fingerprints.fingerprint FROM ",
            " AS known
             LEFT JOIN fingerprints
                 ON fingerprints.instance = known.instance AND fingerprints.resource = ?2 AND fingerprints.id = known.id
             WHERE known.instance = ?1 AND known.id = ?3"
        ))?;
        rows.iter()
            .map(|row| {
                let found = statement
                    .query_row(params![instance, resource, row.id.as_str()], |row| {
                        Ok(Found {
                            rowid: row.get(0)?,
                            fingerprint: row.get(1)?,
                        })
                    })
                    .optional()?;
                Ok(found.unwrap_or_default())
            })
            .collect()
    }
}

/// Walks two ascending sequences side by side and calls `each` where the ids are equal. Returns how many rows the
/// database gave.
fn join(
    rows: &[Row],
    known: &mut rusqlite::Rows<'_>,
    mut each: impl FnMut(usize, &rusqlite::Row<'_>) -> rusqlite::Result<()>,
) -> Result<usize, Error> {
    let (mut place, mut read) = (0, 0);
    while let Some(row) = known.next()? {
        read += 1;
        let id = row.get_ref(0)?.as_bytes().map_err(rusqlite::Error::from)?;
        while rows
            .get(place)
            .is_some_and(|row| row.id.as_str().as_bytes() < id)
        {
            place += 1;
        }
        if rows
            .get(place)
            .is_some_and(|row| row.id.as_str().as_bytes() == id)
        {
            each(place, row)?;
        }
    }
    Ok(read)
}

fn occurrences(rows: &[Row]) -> BTreeMap<&ResourceId, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(&row.id).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FULL, World, plan_of, titled};
    use super::*;

    #[tokio::test]
    async fn far_apart_ids_are_looked_up_and_give_the_same() {
        let mut world = World::new().await;
        let directory: Vec<Row> = (0..200).map(|n| titled(&format!("{n:03}"), "x")).collect();
        world.sync_as(FULL, &directory).await;
        let stage = world.stage(Mode::Full);
        let reader = world.reader();
        let few = [
            titled("", "x"),
            directory[0].clone(),
            directory[199].clone(),
            titled("zzz", "x"),
        ];
        assert!(stage.merge(&reader, &few).unwrap().is_none());
        let near = &directory[50..60];
        for rows in [&few[..], near] {
            let looked_up = stage.look_up(&reader, rows).unwrap();
            let known: Vec<bool> = looked_up
                .iter()
                .map(|found| found.rowid.is_some())
                .collect();
            let expected: Vec<bool> = rows
                .iter()
                .map(|row| row.id.as_str().len() == 3 && row.id.as_str() != "zzz")
                .collect();
            assert_eq!(known, expected);
            if let Some(merged) = stage.merge(&reader, rows).unwrap() {
                for (merged, looked_up) in merged.iter().zip(&looked_up) {
                    assert_eq!(
                        (merged.rowid, merged.fingerprint),
                        (looked_up.rowid, looked_up.fingerprint)
                    );
                }
            }
        }
        assert!(stage.merge(&reader, near).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_page_reads_a_piece_of_an_index() {
        let world = World::new().await;
        for sql in [
            FINGERPRINTS,
            known_of(ResourceType::User),
            known_of(ResourceType::Group),
        ] {
            let plan = plan_of(&world.reader().conn, sql);
            assert!(plan.ends_with("id>? AND id<?)"), "{plan}");
            assert!(sql == FINGERPRINTS || plan.contains("COVERING"), "{plan}");
        }
    }
}
