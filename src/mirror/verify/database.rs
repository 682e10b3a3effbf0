//! SQLite's own check of pages, rows, indexes and constraints.

use super::{Stop, Verification, differ};
use crate::model::Foreign;

impl Verification<'_> {
    pub(super) fn check_database(&self) -> Result<(), Stop> {
        let found: String = self
            .reader
            .conn
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return differ(format!(
                "SQLite finds the file damaged: {}",
                Foreign(&found)
            ));
        }
        Ok(())
    }
}
