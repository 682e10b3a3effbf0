//! The list of a group in the transaction that writes the group.

use std::collections::BTreeMap;

use rusqlite::params;

use super::super::due::{Due, Known};
use super::super::error::Error;
use super::super::gate::Passed;
use super::super::holding::Left;
use super::super::lists;
use super::super::record::IN_PART;
use super::Work;
use crate::model::{Base, InstanceName, Kind, MembersKnown, ResourceId, ResourceType};

impl Work<'_> {
    /// Writes a group and its list: who is in it begins behind its record, and ends before that where it is gone. What has no
    /// room is left to the next transaction, which finds the rest by comparing again.
    pub(super) fn write_group(
        &mut self,
        id: &ResourceId,
        known: Option<Known>,
        passed: Passed,
        change: lists::Change,
        is_bounded: bool,
    ) -> Result<bool, Error> {
        let instance = self.writer_instance();
        let applying = lists::Applying {
            mirror: self.writer.conn,
            instance: &instance,
            has_baseline: self.has_baseline,
            observed_at: self.pen.observed_at(),
        };
        let decided = applying.decide(&mut self.gate, id, change)?;
        let membership = ResourceType::Membership;
        for kept in &decided.kept {
            self.applied.held += u64::from(self.stage.hold(kept)?);
        }
        let mut released: BTreeMap<&ResourceId, Vec<i64>> = BTreeMap::new();
        for (hold_id, member, is_released) in &decided.left {
            if *is_released {
                released.entry(member).or_default().push(*hold_id);
                continue;
            }
            self.writer
                .leave_hold(*hold_id, membership, member, Left::Resolved)?;
            self.left.insert(*hold_id);
        }
        let fingerprint = match &passed.due {
            Due::Nothing(fingerprint) => Some(*fingerprint),
            Due::Record(_, fingerprint) => *fingerprint,
            _ => None,
        };
        let is_gone = (passed.due.written()).is_some_and(|record| record.after.gone_at.is_some());
        let mut seq = known.map(|known| known.changed_seq);
        let (mut own, mut n_written) = (Some(passed), 0_usize);
        if !is_gone && let Some(passed) = own.take() {
            seq = self.write_own(known, passed)?.or(seq);
        }
        let n_entries = decided.entries.len();
        for entry in decided.entries {
            if is_bounded && self.is_full() && (n_written > 0 || self.pen.room() == 0) {
                break;
            }
            let record = entry.record(id, self.pen.observed_at());
            self.pen.write_membership(id, &entry, &record)?;
            match entry.kind {
                Kind::Create => self.applied.created += 1,
                Kind::Update | Kind::Deactivate => self.applied.deactivated += 1,
            }
            let member = &record.id;
            for hold_id in released.remove(member).into_iter().flatten() {
                self.writer
                    .leave_hold(hold_id, membership, member, Left::Released)?;
                self.left.insert(hold_id);
            }
            n_written += 1;
        }
        let mut is_whole = n_written == n_entries;
        if is_whole && let Some(passed) = own.take() {
            match is_bounded && self.pen.room() == 0 && n_written > 0 {
                true => is_whole = false,
                false => seq = self.write_own(known, passed)?.or(seq),
            }
        }
        self.count_members(&instance, id, decided.known.filter(|_| is_whole))?;
        let Some(seq) = seq else {
            return Ok(is_whole);
        };
        if !is_whole {
            self.pen.remember(id, &IN_PART, seq)?;
            let base = Base {
                seq: self.pen.last_seq(),
                tx: self.stage.own_tx,
            };
            self.in_hand = Some((id.clone(), base));
            return Ok(false);
        }
        match fingerprint.filter(|_| decided.is_settled) {
            _ if is_gone => self.pen.forget(id)?,
            Some(fingerprint) => self.pen.remember(id, &fingerprint, seq)?,
            // It is looked at again. What was known before is so no more, and nothing else needs to be written.
            None if n_written > 0
                || known.is_none_or(|known| known.changed_seq != seq)
                || !decided.kept.is_empty()
                || self.pen.knows_in_full(id)? =>
            {
                self.pen.remember(id, &IN_PART, seq)?;
            }
            None => {}
        }
        if n_written == 0 {
            self.idle += 1;
        }
        Ok(true)
    }

    /// Writes what is due of the group itself; the `seq` of its record, if there is one.
    fn write_own(&mut self, known: Option<Known>, passed: Passed) -> Result<Option<i64>, Error> {
        let Due::Record(due, _) = passed.due else {
            return Ok(None);
        };
        let (record, columns) = *due;
        let seq = self.pen.write(known, &record, &columns, passed.hold_id)?;
        self.count(record.kind);
        // With its record and not before: a group that is gone may get that in a later transaction, which must find it held.
        if let Some(hold_id) = passed.hold_id {
            self.leave(hold_id, &record.id, Left::Released)?;
        }
        Ok(Some(seq))
    }

    /// Says in the group's row how many members it has, and whether these are all, where that is another than before.
    fn count_members(
        &self,
        instance: &InstanceName,
        group: &ResourceId,
        known: Option<MembersKnown>,
    ) -> Result<(), Error> {
        let conn = self.writer.conn;
        let count: i64 = conn
            .prepare_cached(
                "SELECT count(*) FROM memberships WHERE instance = ?1 AND group_id = ?2 AND ended_at IS NULL",
            )?
            .query_row([instance.as_str(), group.as_str()], |row| row.get(0))?;
        conn.prepare_cached(
            "UPDATE groups SET member_count = ?3, members_known = coalesce(?4, members_known)
             WHERE instance = ?1 AND id = ?2
               AND (member_count <> ?3 OR members_known <> coalesce(?4, members_known))",
        )?
        .execute(params![
            instance.as_str(),
            group.as_str(),
            count,
            known.map(MembersKnown::as_str)
        ])?;
        Ok(())
    }
}
