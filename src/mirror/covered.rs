//! Up to when the mirror is known to have all that an instance had.

use jiff::{SignedDuration, Timestamp};
use rusqlite::params;

use super::column::{json, time};
use super::error::Error;
use super::holds::SourceChange;
use super::read::Reader;
use crate::model::{Certificate, InstanceName, Mode, ResourceType};

/// A sync that succeeded, as far as it says up to when the mirror is complete. In the order of that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Covered {
    /// By the instance's clock, to the second: what had a stamp before that second began was there to be read.
    pub before: Timestamp,
    /// Its `syncs.id`.
    pub sync_id: i64,
}

/// What is known of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// No sync is known that received every row, or it is forgotten (`mirror.sync_history`).
    Nothing,
    /// This one did.
    Covered(Covered),
    /// A source looks like another directory: nothing that was read of it is in the mirror before a person approves this hold.
    Open(ResourceType, i64),
    /// A person approved this hold: the next complete full sync takes the directory over, and until then nothing is applied.
    Approved(ResourceType, i64),
}

/// Read only as far as needed: there may be millions of syncs, but the newest that covers anything is hardly older than a day.
const NEWEST_FIRST: &str = "
    SELECT id, certificate, mode, started_at, finished_at FROM syncs
    WHERE instance = ?1 AND resource = ?2 AND outcome = 'succeeded' AND (mode = ?3 OR NOT ?4)
    ORDER BY id DESC";

impl Reader {
    /// What is covered by syncs that succeeded and received every row; with `full`, by complete full ones, which also notice who is
    /// gone, changes without a stamp, and who is in a group. Of an instance whose groups are mirrored, what is covered of users and
    /// of groups.
    ///
    /// # Errors
    /// Of the database.
    pub fn coverage(&self, instance: &InstanceName, full: bool) -> Result<Coverage, Error> {
        let _snapshot = self.conn.unchecked_transaction()?;
        let users = self.coverage_of(instance, ResourceType::User, full)?;
        if !self.mirrors_groups(instance)? {
            return Ok(users);
        }
        let groups = self.coverage_of(instance, ResourceType::Group, full)?;
        Ok(match (users, groups) {
            (Coverage::Covered(users), Coverage::Covered(groups)) => {
                Coverage::Covered(users.min(groups))
            }
            // What needs a person is said first.
            (waits @ (Coverage::Open(..) | Coverage::Approved(..)), _)
            | (_, waits @ (Coverage::Open(..) | Coverage::Approved(..))) => waits,
            (Coverage::Nothing, _) | (_, Coverage::Nothing) => Coverage::Nothing,
        })
    }

    /// Whether the groups of an instance are mirrored, and the account was not refused from the beginning.
    fn mirrors_groups(&self, instance: &InstanceName) -> Result<bool, Error> {
        let known = self.source(instance, ResourceType::Group)?.capabilities;
        let is_known = (self.resources(instance)?).contains(&ResourceType::Group);
        Ok(is_known && !known.left_out && !known.forbidden)
    }

    fn coverage_of(
        &self,
        instance: &InstanceName,
        resource: ResourceType,
        full: bool,
    ) -> Result<Coverage, Error> {
        match self.source_change(instance, resource)? {
            SourceChange::None => {}
            SourceChange::Open(hold_id) => return Ok(Coverage::Open(resource, hold_id)),
            SourceChange::Approved(hold_id) => return Ok(Coverage::Approved(resource, hold_id)),
        }
        let mut best: Option<Covered> = None;
        let mut syncs = self.conn.prepare_cached(NEWEST_FIRST)?;
        let bound = params![
            instance.as_str(),
            resource.as_str(),
            Mode::Full.as_str(),
            full
        ];
        let mut rows = syncs.query(bound)?;
        while let Some(row) = rows.next()? {
            let is_full = row.get_ref(2)?.as_str().ok() == Some(Mode::Full.as_str());
            let certificate: Option<Certificate> = json(row, 1)?;
            let is_enough = |certificate: &Certificate| match full {
                true => certificate.as_complete().is_some(),
                false => certificate.read_every_row(),
            };
            let date = certificate
                .filter(is_enough)
                .and_then(|found| found.first_date);
            let Some(date) = date else { continue };
            // A full crawl begins after the answer that has the date. An incremental one's rows are in that answer, which is dated
            // when it is sent: they were read within the time that all of it took.
            let took = match (is_full, time(row, 3)?, time(row, 4)?) {
                (false, Some(started_at), Some(finished_at)) => {
                    finished_at.duration_since(started_at).as_secs().max(0) + 1
                }
                _ => 0,
            };
            let before = date
                .saturating_sub(SignedDuration::from_secs(took))
                .unwrap_or(date);
            if best.is_none_or(|best| before > best.before) {
                let sync_id = row.get(0)?;
                best = Some(Covered { sync_id, before });
            }
            // A full one that ended later may have begun earlier than the newest incremental one.
            if full || !is_full {
                break;
            }
        }
        Ok(best.map_or(Coverage::Nothing, Coverage::Covered))
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
    use super::super::read::Pin;
    use super::super::testing::{
        FULL, How, INCREMENTAL, USER, World, name, pin, plan_of, time, titled,
    };
    use super::*;
    use crate::model::{Capabilities, Doubt, Outcome, Verdict};

    /// How, the date of its first answer, the seconds it took, its outcome, its doubts; and what is covered then, by full ones and
    /// by any.
    type Step<'a> = (How, &'a str, i64, Outcome, &'a [Doubt], [&'a str; 2]);

    /// A sync with this outcome and certificate, that took so many seconds.
    async fn sync(
        world: &mut World,
        (of, how): (ResourceType, How),
        date: &str,
        took: i64,
        outcome: Outcome,
        doubts: &[Doubt],
    ) {
        let stage = world.stage(how.mode);
        let (batch, finish) = world.ending(&stage).await;
        let mut row = finish.sync;
        row.resource = of;
        row.id = batch.sync_id;
        row.outcome = outcome;
        row.started_at = row.finished_at - SignedDuration::from_secs(took);
        row.certificate = row.certificate.map(|certificate| Certificate {
            verdict: if doubts.is_empty() {
                Verdict::Complete
            } else {
                Verdict::Partial
            },
            reasons: doubts.to_vec(),
            first_date: Some(time(date)),
            ..certificate
        });
        let written = world.mirror.write(move |writer| writer.fail(&row, None));
        written.await.unwrap();
    }

    fn covered(world: &World, full: bool) -> Option<String> {
        match world.reader().coverage(&name("acme"), full).unwrap() {
            Coverage::Nothing => None,
            Coverage::Covered(covered) => Some(covered.before.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_covered_is_told_by_crawls_that_received_every_row() {
        let mut world = World::new().await;
        assert_eq!(covered(&world, false), None);
        world.sync_as(FULL, &[titled("a", "1")]).await;
        assert_eq!(covered(&world, false), None, "no answer had a date");

        let (good, bad) = (Outcome::Succeeded, Outcome::Failed);
        let (unreadable, hidden) = ([Doubt::UnreadableId], [Doubt::RowsHidden]);
        let steps: [Step<'_>; 7] = [
            (FULL, "12:00:00", 90, good, &[], ["12:00:00", "12:00:00"]),
            (
                FULL,
                "12:01:00",
                90,
                good,
                &unreadable,
                ["12:00:00", "12:01:00"],
            ),
            // Its rows may have been read as long before the date as all of it took.
            (
                INCREMENTAL,
                "12:02:00",
                6,
                good,
                &[],
                ["12:00:00", "12:01:53"],
            ),
            (
                INCREMENTAL,
                "12:03:00",
                1,
                good,
                &hidden,
                ["12:00:00", "12:01:53"],
            ),
            (
                INCREMENTAL,
                "12:04:00",
                1,
                bad,
                &[],
                ["12:00:00", "12:01:53"],
            ),
            // One that began earlier, and ends now.
            (FULL, "12:00:50", 300, good, &[], ["12:00:50", "12:01:53"]),
            (FULL, "12:05:00", 9, good, &[], ["12:05:00", "12:05:00"]),
        ];
        for (how, date, took, outcome, doubts, expected) in steps {
            let date = format!("2026-03-01T{date}Z");
            sync(&mut world, (USER, how), &date, took, outcome, doubts).await;
            let expected = expected.map(|time| Some(format!("2026-03-01T{time}Z")));
            assert_eq!(
                [true, false].map(|full| covered(&world, full)),
                expected,
                "{date}"
            );
        }
        let other = world.reader().coverage(&name("globex"), false).unwrap();
        assert_eq!(other, Coverage::Nothing);
        assert_eq!(plan_of(&world.reader().conn, NEWEST_FIRST), "SCAN syncs");
    }

    /// Says anew which resources the configuration mirrors of `acme`.
    async fn link(world: &World, resources: &[ResourceType]) {
        let pin = Pin {
            resources: resources.to_vec(),
            ..pin("acme")
        };
        let linked = world.mirror.write(move |writer| writer.link(&[pin]));
        linked.await.unwrap();
    }

    #[tokio::test]
    async fn groups_are_waited_for_as_long_as_they_are_mirrored() {
        let (users, groups) = (ResourceType::User, ResourceType::Group);
        let mut world = World::new().await;
        let steps = [
            (groups, FULL, "11:57:00", "11:57:00"),
            (users, FULL, "12:10:00", "11:57:00"),
            (groups, INCREMENTAL, "12:20:00", "11:57:00"),
            (groups, FULL, "12:30:00", "12:10:00"),
            (users, FULL, "12:40:00", "12:30:00"),
        ];
        let date = |time: &str| format!("2026-03-01T{time}Z");
        let good = Outcome::Succeeded;
        sync(&mut world, (users, FULL), &date("11:58:00"), 1, good, &[]).await;
        assert_eq!(covered(&world, true), Some(date("11:58:00")), "no groups");
        link(&world, &[users, groups]).await;
        assert_eq!(covered(&world, true), None, "they were not read yet");
        for (of, how, at, expected) in steps {
            sync(&mut world, (of, how), &date(at), 1, good, &[]).await;
            assert_eq!(covered(&world, true), Some(date(expected)), "{at}");
        }
        link(&world, &[users]).await;
        assert_eq!(covered(&world, true), Some(date("12:40:00")), "left out");
        let health = world.reader().health(world.now).unwrap();
        assert!(health[0].groups.as_ref().unwrap().left_out);
        link(&world, &[users, groups]).await;
        assert_eq!(covered(&world, true), Some(date("12:30:00")), "named again");
        let off = Capabilities {
            forbidden: true,
            ..Capabilities::default()
        };
        let written = (world.mirror)
            .write(move |writer| writer.set_capabilities(&name("acme"), groups, &off));
        written.await.unwrap();
        assert_eq!(covered(&world, true), Some(date("12:40:00")), "not shown");
    }

    /// Its syncs succeed, and nothing of what they read is in the mirror.
    #[tokio::test]
    async fn nothing_is_covered_while_it_looks_like_another_directory() {
        let mut world = World::new().await;
        let date = "2026-03-01T12:00:00Z";
        sync(&mut world, (USER, FULL), date, 1, Outcome::Succeeded, &[]).await;
        let hold = |state: &'static str| {
            world.mirror.write(move |writer| {
                writer.conn.execute("DELETE FROM holds", [])?;
                writer.conn.execute(
                    "INSERT INTO holds VALUES (7, 'acme', 1, 'source_changed', NULL, 1, 'l', 'd', ?1, '2026', NULL)",
                    [state],
                )?;
                writer.conn.execute(
                    "INSERT OR IGNORE INTO hold_changes VALUES (7, 'User', 'a', 'all', 'create', NULL, '{}', NULL, 'held')",
                    [],
                )?;
                Ok(())
            })
        };
        for (state, expected) in [
            ("open", Coverage::Open(ResourceType::User, 7)),
            ("approved", Coverage::Approved(ResourceType::User, 7)),
        ] {
            hold(state).await.unwrap();
            for full in [true, false] {
                let found = world.reader().coverage(&name("acme"), full).unwrap();
                assert_eq!(found, expected);
            }
        }
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
