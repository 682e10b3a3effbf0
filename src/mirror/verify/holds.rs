//! Holds: each has the exact set that it was opened with, and what is held is not in the mirror.

use super::super::column::whole;
use super::super::holding::HoldDigest;
use super::{Stop, Verification, differ, named_as};
use crate::model::{Foreign, ResourceType, membership};
use crate::reconcile::guard;

impl Verification<'_> {
    /// Each hold has the exact set that it was opened with, its state says whether somebody is held still, the mirror
    /// keeps the old value of whoever is, and what the feed has by a hold is what was released from it.
    pub(super) fn check_holds(&self) -> Result<(), Stop> {
        let mut holds = self.reader.conn.prepare(
            "SELECT id, guard, state, count, digest FROM holds
             UNION ALL SELECT DISTINCT hold_id, '', '', 0, '' FROM hold_changes WHERE hold_id NOT IN (SELECT id FROM holds)
             ORDER BY 1",
        )?;
        let mut rows = holds.query([])?;
        while let Some(row) = rows.next()? {
            let (id, kept): (i64, i64) = (row.get(0)?, row.get(3)?);
            let [guard, state, digest]: [String; 3] = [row.get(1)?, row.get(2)?, row.get(4)?];
            if state.is_empty() {
                return differ(format!(
                    "`hold_changes` has rows of a hold {id} that is not in `holds`"
                ));
            }
            let (found, held) = self.held_of(id)?;
            if (whole(found.count), found.finish()) != (kept, digest) {
                return differ(format!(
                    "hold {id} has not the changes that it was opened with: count or digest differ"
                ));
            }
            // Of another directory that was approved, they are held until the next full sync.
            let may_be_held = state == "open" || (state == "approved" && guard == "source_changed");
            if (held == 0 && state == "open") || (held > 0 && !may_be_held) {
                return differ(format!(
                    "hold {id} is `{}`, but {held} are held",
                    Foreign(&state)
                ));
            }
        }
        self.check_held_values()?;
        self.check_released()
    }

    /// A record that names a hold was released from it. Of another directory that was approved it is whatever the next full
    /// sync found, in the hold or not.
    fn check_released(&self) -> Result<(), Stop> {
        let mut odd = self.reader.conn.prepare(
            "SELECT seq, record.hold_id
             FROM (SELECT seq, instance, resource, id, reason, hold_id FROM changes WHERE hold_id IS NOT NULL
                   UNION ALL
                   SELECT seq, instance, resource, id, reason, hold_id FROM changes_base WHERE hold_id IS NOT NULL) record
             LEFT JOIN holds ON holds.id = record.hold_id AND holds.instance = record.instance
             LEFT JOIN hold_changes ON hold_changes.hold_id = record.hold_id
                 AND hold_changes.resource = record.resource AND hold_changes.id = record.id
             WHERE CASE guard WHEN 'source_changed' THEN holds.state = 'approved' AND reason = 'source_changed'
                              ELSE hold_changes.state = 'released' AND reason <> 'source_changed' END IS NOT 1
             ORDER BY seq LIMIT 1",
        )?;
        let mut rows = odd.query([])?;
        match rows.next()? {
            Some(row) => {
                let (seq, hold_id): (i64, i64) = (row.get(0)?, row.get(1)?);
                differ(format!(
                    "record {seq} of the feed names hold {hold_id}, but was not released from it"
                ))
            }
            None => Ok(()),
        }
    }

    fn held_of(&self, hold_id: i64) -> Result<(HoldDigest, u64), Stop> {
        let mut changes = self.reader.conn.prepare(
            "SELECT resource, id, path, state FROM hold_changes
             WHERE hold_id = ?1 ORDER BY resource || ' ' || id || ' ' || path",
        )?;
        let (mut digest, mut held) = (HoldDigest::default(), 0);
        let mut rows = changes.query([hold_id])?;
        while let Some(row) = rows.next()? {
            let [resource, id, path, state]: [String; 4] =
                [row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?];
            digest.add(&resource, &id, &path);
            held += u64::from(state == "held");
        }
        Ok((digest, held))
    }

    /// Whether a membership lives.
    fn is_member(&self, instance: &str, id: &str) -> Result<bool, Stop> {
        let Some([group, member]) = membership::parts(id) else {
            return Ok(false);
        };
        Ok(self
            .reader
            .conn
            .prepare_cached(
                "SELECT 1 FROM memberships
                 WHERE instance = ?1 AND group_id = ?2 AND member_id = ?3 AND ended_at IS NULL",
            )?
            .exists([instance, &group, &member])?)
    }

    fn check_held_values(&self) -> Result<(), Stop> {
        let mut held = self.reader.conn.prepare(
            "SELECT hold_id, holds.instance, hold_changes.id, path, coalesce(users.active, groups.active),
                    coalesce(users.attributes, groups.attributes), hold_changes.resource
             FROM hold_changes
             JOIN holds ON holds.id = hold_id AND holds.state = 'open' AND guard <> 'source_changed'
             LEFT JOIN users ON hold_changes.resource = 'User'
                 AND users.instance = holds.instance AND users.id = hold_changes.id
             LEFT JOIN groups ON hold_changes.resource = 'Group'
                 AND groups.instance = holds.instance AND groups.id = hold_changes.id
             WHERE hold_changes.state = 'held'",
        )?;
        let mut rows = held.query([])?;
        while let Some(row) = rows.next()? {
            let path: String = row.get(3)?;
            let (active, attributes): (Option<bool>, Option<String>) = (row.get(4)?, row.get(5)?);
            let resource = match &*row.get::<_, String>(6)? {
                "Group" => ResourceType::Group,
                "Membership" => ResourceType::Membership,
                _ => ResourceType::User,
            };
            let (hold_id, instance, id): (i64, String, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let has_value = match &*path {
                _ if resource == ResourceType::Membership => self.is_member(&instance, &id)?,
                "active" | "all" => active == Some(true),
                path => {
                    attributes.is_some_and(|attributes| guard::has(resource, &attributes, path))
                }
            };
            if !has_value {
                return differ(format!(
                    "{} is in hold {hold_id}, but the mirror does not keep the old value of `{}`",
                    named_as(resource, &instance, &id),
                    Foreign(&path)
                ));
            }
        }
        Ok(())
    }
}
