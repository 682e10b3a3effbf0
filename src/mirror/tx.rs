//! Numbers of the transactions that apply something: by them a sync knows what others have read since it asked (promise P6),
//! also where they found no change and wrote no record.

use rusqlite::{Connection, params};

use super::error::Error;
use super::read::Reader;
use super::syncs::known_instance;
use crate::model::{Base, InstanceName, ResourceType};

impl Reader {
    /// Where the mirror stands.
    ///
    /// # Errors
    /// Of the database.
    pub fn base(&self) -> Result<Base, Error> {
        base(&self.conn)
    }
}

/// Where the mirror stands.
pub(super) fn base(conn: &Connection) -> Result<Base, Error> {
    Ok(conn
        .prepare_cached(
            "SELECT last_seq, (SELECT coalesce(max(tx), 0) FROM source_counts) FROM feed",
        )?
        .query_row([], |row| {
            Ok(Base {
                seq: row.get(0)?,
                tx: row.get(1)?,
            })
        })?)
}

/// Gives the transaction under way the next number, as one of this source. Refused where the users of the instance are being removed,
/// or were (`musterd unlink --drop`): a sync that began before would write them back. A removal takes the row of `sources` first.
pub(super) fn begin(
    conn: &Connection,
    instance: &InstanceName,
    resource: ResourceType,
) -> Result<i64, Error> {
    let next = base(conn)?.tx + 1;
    let known = conn
        .prepare_cached(
            "UPDATE source_counts SET tx = ?3
             WHERE instance = ?1 AND resource = ?2
               AND EXISTS (SELECT 1 FROM sources WHERE sources.instance = ?1 AND sources.resource = ?2)",
        )?
        .execute(params![instance.as_str(), resource.as_str(), next])?;
    known_instance(known, instance)?;
    Ok(next)
}
