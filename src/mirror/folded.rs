//! The feed folded, one resource after the other: what `verify` compares the mirror with.

use rusqlite::types::ValueRef;
use rusqlite::{Row, Rows};

use super::error::Error;
use crate::reconcile::fold::{FoldInput, Folded, fold};

/// All records in the order of resources, oldest first. Both halves are read along an index and merged.
pub(super) const RECORDS: &str = "
    SELECT instance, resource, id, seq, 1 AS is_base, kind, reason, proof IS NOT NULL, after, source_modified_at, observed_at
    FROM changes_base
    UNION ALL
    SELECT instance, resource, id, seq, 0 AS is_base, kind, reason, proof IS NOT NULL, after, source_modified_at, observed_at
    FROM changes
    ORDER BY instance, resource, id, seq";

/// Folds the stream of records, one resource at a time.
pub(super) struct Records<'a> {
    rows: Rows<'a>,
    /// The first record of the next resource was read already.
    pending: Option<Resource>,
}

/// One resource, and what its records fold to.
pub(super) struct Resource {
    pub(super) instance: String,
    pub(super) kind: String,
    pub(super) id: String,
    pub(super) records: u64,
    /// `None`: nobody is left of it.
    pub(super) folded: Result<Option<Folded>, String>,
}

impl<'a> Records<'a> {
    pub(super) fn start(rows: Rows<'a>) -> Result<Self, Error> {
        let mut records = Self {
            rows,
            pending: None,
        };
        records.pending = match records.rows.next()? {
            Some(row) => Some(Resource::begin(row)?),
            None => None,
        };
        Ok(records)
    }

    pub(super) fn next(&mut self) -> Result<Option<Resource>, Error> {
        let Some(mut resource) = self.pending.take() else {
            return Ok(None);
        };
        while let Some(row) = self.rows.next()? {
            if !resource.owns(row)? {
                self.pending = Some(Resource::begin(row)?);
                break;
            }
            resource.add(row)?;
        }
        Ok(Some(resource))
    }
}

impl Resource {
    fn begin(row: &Row<'_>) -> Result<Self, Error> {
        Ok(Self {
            instance: row.get(0)?,
            kind: row.get(1)?,
            id: row.get(2)?,
            records: 1,
            folded: folded(None, row)?,
        })
    }

    fn owns(&self, row: &Row<'_>) -> rusqlite::Result<bool> {
        Ok(same(row.get_ref(2)?, Some(&self.id))
            && same(row.get_ref(0)?, Some(&self.instance))
            && same(row.get_ref(1)?, Some(&self.kind)))
    }

    fn add(&mut self, row: &Row<'_>) -> Result<(), Error> {
        self.records += 1;
        self.folded = match std::mem::replace(&mut self.folded, Err(String::new())) {
            Ok(before) => folded(before, row)?,
            Err(why) => Err(why),
        };
        Ok(())
    }
}

fn folded(
    before: Option<Folded>,
    row: &Row<'_>,
) -> rusqlite::Result<Result<Option<Folded>, String>> {
    let record = FoldInput {
        seq: row.get(3)?,
        resource: row.get_ref(1)?.as_str()?,
        is_base: row.get(4)?,
        kind: row.get_ref(5)?.as_str()?,
        reason: row.get_ref(6)?.as_str()?,
        has_proof: row.get(7)?,
        after: row.get_ref(8)?.as_str()?,
        source_modified_at: row.get_ref(9)?.as_str_or_null()?,
        observed_at: row.get_ref(10)?.as_str()?,
    };
    Ok(fold(before, &record).map_err(|error| error.to_string()))
}

/// Whether a column holds this text.
pub(super) fn same(found: ValueRef<'_>, expected: Option<&str>) -> bool {
    match (found, expected) {
        (ValueRef::Null, None) => true,
        (ValueRef::Text(found), Some(expected)) => found == expected.as_bytes(),
        _ => false,
    }
}
