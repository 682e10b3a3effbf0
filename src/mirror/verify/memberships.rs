//! The feed folds to the memberships. Their ids are in another order than their rows, so that each is looked up.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Statement};

use super::super::folded::same;
use super::{Stop, differ};
use crate::model::membership;
use crate::reconcile::fold::Folded;
use crate::reconcile::members;

/// The memberships of the mirror.
pub(super) struct Memberships<'a> {
    conn: &'a Connection,
    row: Statement<'a>,
    checked: i64,
}

impl<'a> Memberships<'a> {
    pub(super) fn of(conn: &'a Connection) -> Result<Self, Stop> {
        let row = conn.prepare(
            "SELECT member_type, label, first_seen_at, changed_seq, ended_at FROM memberships
             WHERE instance = ?1 AND group_id = ?2 AND member_id = ?3",
        )?;
        Ok(Self {
            conn,
            row,
            checked: 0,
        })
    }

    /// One is what its records fold to.
    pub(super) fn check(
        &mut self,
        named: &str,
        instance: &str,
        id: &str,
        folded: &Folded,
    ) -> Result<(), Stop> {
        let Some([group, member]) = membership::parts(id) else {
            return differ(format!("{named}: its id is not that of a membership"));
        };
        let mut rows = self.row.query([instance, &group, &member])?;
        let Some(row) = rows.next()? else {
            return differ(format!("{named}: in the feed, but not in the mirror"));
        };
        self.checked += 1;
        let Some(told) = members::of_canonical(&folded.canonical) else {
            return differ(format!("{named}: the feed's last state cannot be read"));
        };
        let first_seen = folded.first_seen_at.as_deref();
        let columns = [
            ("member_id", (told.1.id == member) && (told.0 == group)),
            (
                "member_type",
                same(row.get_ref(0)?, Some(told.1.kind.as_str())),
            ),
            ("label", same(row.get_ref(1)?, told.1.label.as_deref())),
            (
                "first_seen_at",
                first_seen.is_none() || same(row.get_ref(2)?, first_seen),
            ),
            (
                "changed_seq",
                row.get_ref(3)? == ValueRef::Integer(folded.changed_seq),
            ),
            ("ended_at", same(row.get_ref(4)?, folded.gone_at.as_deref())),
        ];
        match columns.into_iter().find(|(_, is_same)| !is_same) {
            Some((column, _)) => differ(format!(
                "{named}: column `{column}` is not what the feed says"
            )),
            None => Ok(()),
        }
    }

    /// Every row was in the feed.
    pub(super) fn check_all(&self) -> Result<(), Stop> {
        let rows: i64 = self
            .conn
            .query_row("SELECT count(*) FROM memberships", [], |row| row.get(0))?;
        match rows == self.checked {
            true => Ok(()),
            false => differ(format!(
                "`memberships` has {rows} rows, but the feed tells of {}",
                self.checked
            )),
        }
    }
}
