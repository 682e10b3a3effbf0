//! Up to when the mirror is known to have all that an instance had.

use jiff::Timestamp;
use rusqlite::params;

use super::column::json;
use super::error::Error;
use super::read::Reader;
use crate::model::{Certificate, Mode, ResourceType};

/// A sync that succeeded, as far as it says up to when the mirror is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Its `syncs.id`.
    pub sync_id: i64,
    /// The `Date` of the first page's answer, by the instance's clock, to the second: what had a stamp before that second began was
    /// there to be read.
    pub before: Timestamp,
}

/// Read only until one is found: there may be millions of syncs, but the newest that covers anything is hardly older than a day.
const NEWEST_FIRST: &str = "
    SELECT id, certificate FROM syncs
    WHERE instance = ?1 AND resource = ?2 AND outcome = 'succeeded' AND (mode = ?3 OR NOT ?4)
    ORDER BY id DESC";

impl Reader {
    /// What the newest sync covers that succeeded and received every row; with `full`, the newest complete full one, which also
    /// notices who is gone and changes without a stamp. `None`: there was none, or it is forgotten (`mirror.sync_history`).
    ///
    /// # Errors
    /// Of the database.
    pub fn covered(&self, instance: &str, full: bool) -> Result<Option<Covered>, Error> {
        let mut syncs = self.conn.prepare_cached(NEWEST_FIRST)?;
        let resource = ResourceType::User.as_str();
        let mut rows = syncs.query(params![instance, resource, Mode::Full.as_str(), full])?;
        while let Some(row) = rows.next()? {
            let certificate: Option<Certificate> = json(row, 1)?;
            let is_enough = |certificate: &Certificate| match full {
                true => certificate.as_complete().is_some(),
                false => certificate.read_every_row(),
            };
            let before = certificate
                .filter(is_enough)
                .and_then(|found| found.first_date);
            if let Some(before) = before {
                let sync_id = row.get(0)?;
                return Ok(Some(Covered { sync_id, before }));
            }
        }
        Ok(None)
    }
}

impl Covered {
    /// Whether all that was stamped up to a moment of the instance's clock is in the mirror. Stamps and dates have whole
    /// seconds: what was changed later in the second of the date may have come behind the page.
    #[must_use]
    pub fn covers(&self, moment: Timestamp) -> bool {
        self.before.as_second() > moment.as_second()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FULL, INCREMENTAL, World, plan_of, time, titled};
    use super::*;
    use crate::model::{Doubt, Outcome, Verdict};

    #[tokio::test]
    async fn what_is_covered_is_told_by_the_newest_crawl_that_received_every_row() {
        let mut world = World::new().await;
        assert_eq!(world.reader().covered("acme", false).unwrap(), None);
        world.sync_as(FULL, &[titled("a", "1")]).await;
        // No answer had a date.
        assert_eq!(world.reader().covered("acme", false).unwrap(), None);

        let rows = [
            (
                "full",
                "2026-03-01T12:00:00Z",
                Verdict::Complete,
                Outcome::Succeeded,
                vec![],
            ),
            (
                "full",
                "2026-03-01T12:01:00Z",
                Verdict::Partial,
                Outcome::Succeeded,
                vec![Doubt::UnreadableId],
            ),
            (
                "incremental",
                "2026-03-01T12:02:00Z",
                Verdict::Complete,
                Outcome::Succeeded,
                vec![],
            ),
            (
                "incremental",
                "2026-03-01T12:03:00Z",
                Verdict::Partial,
                Outcome::Succeeded,
                vec![Doubt::RowsHidden],
            ),
            (
                "incremental",
                "2026-03-01T12:04:00Z",
                Verdict::Complete,
                Outcome::Failed,
                vec![],
            ),
        ];
        let mut before = Vec::new();
        for (mode, date, verdict, outcome, reasons) in rows {
            let how = if mode == "full" { FULL } else { INCREMENTAL };
            let stage = world.stage(how.mode);
            let (batch, finish) = world.ending(&stage).await;
            let mut row = finish.sync;
            row.outcome = outcome;
            row.certificate = row.certificate.map(|certificate| Certificate {
                verdict,
                reasons,
                first_date: Some(time(date)),
                ..certificate
            });
            row.id = batch.sync_id;
            let written = world.mirror.write(move |writer| writer.fail(&row, None));
            written.await.unwrap();
            let covered = |full| world.reader().covered("acme", full).unwrap();
            before.push(
                [false, true].map(|full| covered(full).map(|found| found.before.to_string())),
            );
        }
        let [first, second, third] =
            ["12:00:00", "12:01:00", "12:02:00"].map(|time| Some(format!("2026-03-01T{time}Z")));
        let expected = [
            [first.clone(), first.clone()],
            [second, first.clone()],
            [third.clone(), first.clone()],
            [third.clone(), first.clone()],
            [third, first],
        ];
        assert_eq!(before, expected);
        assert_eq!(world.reader().covered("globex", false).unwrap(), None);
        assert_eq!(plan_of(&world.reader().conn, NEWEST_FIRST), "SCAN syncs");
    }

    #[test]
    fn the_second_of_the_date_itself_is_not_covered() {
        let covered = Covered {
            sync_id: 1,
            before: time("2026-03-01T12:00:00Z"),
        };
        assert!(covered.covers(time("2026-03-01T11:59:59.999Z")));
        assert!(!covered.covers(time("2026-03-01T12:00:00Z")));
        assert!(!covered.covers(time("2026-03-01T12:00:00.5Z")));
    }
}
