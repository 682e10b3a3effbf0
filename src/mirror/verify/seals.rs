//! Each row is the one that was sealed, and each seal has its row.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, Row, params};

use super::super::column::count;
use super::super::record::IN_PART;
use super::super::seal::{self, TABLES, Table};
use super::{Stop, Verification, differ, named_as};
use crate::model::{Foreign, ResourceType};

impl Verification<'_> {
    pub(super) fn check_seals(&mut self) -> Result<(), Stop> {
        let conn = &self.reader.conn;
        let mut seals: BTreeMap<String, u64> = conn
            .prepare("SELECT of, count(*) FROM seals GROUP BY of")?
            .query_map([], |row| Ok((row.get(0)?, count(row, 1)?)))?
            .collect::<Result<_, _>>()?;
        for table in &TABLES {
            let sealed = seals.remove(table.name).unwrap_or_default();
            if self.check_rows(table)? != sealed {
                return self.missing_row(table);
            }
        }
        match seals.into_keys().next() {
            Some(of) => differ(format!(
                "`seals` has rows of `{}`, which is no table of the mirror",
                Foreign(&of)
            )),
            None => Ok(()),
        }
    }

    /// Compares each row with its seal; returns how many there are.
    fn check_rows(&mut self, table: &Table) -> Result<u64, Stop> {
        let mut statement = self.reader.conn.prepare(&table.with_seals())?;
        // A key before them, a seal behind.
        let n_cells = statement.column_count() - 2;
        let columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query([])?;
        let mut n_rows = 0;
        while let Some(row) = rows.next()? {
            let ValueRef::Blob(kept) = row.get_ref(n_cells + 1)? else {
                return differ(format!(
                    "{}: it was not written by musterd, or its seal is lost",
                    self.place_of_unknown(table, row)?
                ));
            };
            let found = table.seal_of(row, n_cells)?;
            if found != kept {
                let place = place(table, row)?;
                let cell = found.iter().zip(kept).take(n_cells);
                let cell = cell.enumerate().find(|(_, (found, kept))| found != kept);
                return differ(match cell {
                    _ if found.len() != kept.len() => {
                        format!("{place}: it is not sealed as it is")
                    }
                    Some((cell, _)) => format!(
                        "{place}: column `{}` is not what was written",
                        columns[cell + 1]
                    ),
                    None => format!(
                        "{place}: it is not what was written, and its checksums do not tell which column"
                    ),
                });
            }
            n_rows += 1;
            self.looked_at_one()?;
        }
        Ok(n_rows)
    }

    /// Table and row, as far as the row's key can be told: where two pages have changed places, what stands in the place of a key may be
    /// anybody's address.
    fn place_of_unknown(&self, table: &Table, row: &Row<'_>) -> Result<String, Stop> {
        let key = match row.get_ref(0)? {
            ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            _ => return Ok(place(table, row)?),
        };
        // Names of instances, numbers, ids and words of ours; no address, no name of a person.
        let is_plain = |part: &str| {
            let is_ours = |c: char| c.is_ascii_alphanumeric() || "-_/%".contains(c);
            (1..=64).contains(&part.len()) && part.chars().all(is_ours)
        };
        let first = key.split(' ').next().unwrap_or_default();
        let is_known = first.parse::<u64>().is_ok()
            || TABLES.iter().any(|table| table.name == first)
            || (self.reader.conn)
                .prepare_cached("SELECT 1 FROM instances WHERE name = ?1")?
                .exists([first])?;
        Ok(match is_known && key.split(' ').all(is_plain) {
            true => place(table, row)?,
            false => format!("`{}`, a row", table.name),
        })
    }

    fn missing_row(&self, table: &Table) -> Result<(), Stop> {
        let first = format!(
            "SELECT CAST(key AS TEXT) FROM ({}) LIMIT 1",
            table.without_rows()
        );
        let key: Option<String> = self
            .reader
            .conn
            .query_row(&first, [], |row| row.get(0))
            .optional()?;
        differ(match key {
            Some(key) => format!("`{}`: row `{}` is missing", table.name, Foreign(&key)),
            None => format!("`{}`: a row is there twice", table.name),
        })
    }

    /// An old or altered fingerprint, or one without a living user, would hide a change. Of somebody gone whose return is held
    /// there may be one that nothing is equal to.
    pub(super) fn check_fingerprints(&mut self) -> Result<(), Stop> {
        let mut statement = self.reader.conn.prepare(
            "SELECT fingerprints.instance, fingerprints.id, fingerprint, seal,
                    coalesce(users.changed_seq, groups.changed_seq), tx, fingerprints.resource
             FROM fingerprints
             LEFT JOIN users ON fingerprints.resource = ?1
                 AND users.instance = fingerprints.instance AND users.id = fingerprints.id
                 AND (users.gone_at IS NULL OR fingerprint = ?3)
             LEFT JOIN groups ON fingerprints.resource = ?2
                 AND groups.instance = fingerprints.instance AND groups.id = fingerprints.id
                 AND (groups.gone_at IS NULL OR fingerprint = ?3)",
        )?;
        let (users, groups) = (ResourceType::User, ResourceType::Group);
        let mut rows = statement.query(params![users.as_str(), groups.as_str(), IN_PART])?;
        while let Some(row) = rows.next()? {
            let [instance, id]: [String; 2] = [row.get(0)?, row.get(1)?];
            let is_group = row.get_ref(6)?.as_str_or_null() == Ok(Some(groups.as_str()));
            let resource = if is_group { groups } else { users };
            let named = named_as(resource, &instance, &id);
            let (fingerprint, kept): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
            let Some(changed_seq) = row.get::<_, Option<i64>>(4)? else {
                return differ(format!("{named} has a fingerprint, but is gone or missing"));
            };
            if seal::tie(&fingerprint, row.get(5)?, &id, changed_seq) != kept[..] {
                return differ(format!(
                    "{named}: the fingerprint is not the one of record {changed_seq}, at which the mirror is"
                ));
            }
            self.looked_at_one()?;
        }
        Ok(())
    }
}

/// Table and row, for people.
fn place(table: &Table, row: &Row<'_>) -> rusqlite::Result<String> {
    let key = match row.get_ref(0)? {
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Text(text) => Foreign(&String::from_utf8_lossy(text)).to_string(),
        other => other.data_type().to_string(),
    };
    Ok(format!("`{}`, row `{key}`", table.name))
}
