//! Nobody comes into a group or leaves one without a cause that was true: whatever is wrong with a list, it is never "everybody
//! left" (promise P1).

use jiff::Timestamp;
use rusqlite::Connection;

use super::super::truth::{Span, Truth, hides_groups, shortens};
use super::super::watch::Seen;
use super::feed::is_gone_by;
use super::{GROUP, Law, Laws, Record, Sync, broken};

impl Laws {
    /// What is recorded of a membership had a cause.
    pub(super) fn has_cause_of_membership(
        &self,
        record: &Record,
        sync: Option<&Sync>,
        truth: &Truth,
        span: Span,
        seen: &Seen,
    ) -> Law {
        let [group, member] = record.membership().unwrap();
        let states = truth.groups.memberships(&group, &member, span);
        let was = |wanted| states.iter().any(|(_, is)| *is == wanted);
        let is_mistaken = match (&*record.kind, &*record.reason) {
            ("create", _) => !was(true),
            (_, "gone") => {
                self.ends_with_its_group(record, sync, &group)?;
                !was(false) && !truth.any_wrong(span, hides_groups)
            }
            (_, "source_changed") => {
                !was(false)
                    && !truth.any_wrong(span, hides_groups)
                    && !is_lied_about(record, truth, &group, span)
            }
            _ => {
                if let (None, Some(sync)) = (record.hold_id, sync) {
                    self.was_said_twice(record, sync, span, seen)?;
                }
                !was(false) && !is_lied_about(record, truth, &group, span)
            }
        };
        match (is_mistaken, &*record.kind) {
            (false, _) => Ok(()),
            (true, "create") => broken(
                "who comes into a group was in it",
                format!("{record:?} within {span:?}"),
            ),
            (true, _) => broken(
                "who leaves a group was not in it",
                format!("{record:?}: {sync:?} within {span:?}"),
            ),
        }
    }

    /// Behind a membership that ends with its group comes the end of that group, of the same sync. Of a sync that died before its
    /// end nobody knows.
    fn ends_with_its_group(&self, record: &Record, sync: Option<&Sync>, group: &str) -> Law {
        let mut later = self.records[usize::try_from(record.seq).unwrap()..].iter();
        let end = later.find(|one| {
            (&*one.resource, &*one.id, &one.instance) == (GROUP, group, &record.instance)
        });
        let is_its = |end: &Record| end.sync_id == record.sync_id && is_gone_by(end);
        match (end, sync) {
            (Some(end), _) if is_its(end) => Ok(()),
            (_, None) => Ok(()),
            (end, _) => broken(
                "who ends with a group ends before it",
                format!("{record:?}: {end:?}"),
            ),
        }
    }

    /// No membership outlives its group, and a group counts those that it has.
    pub(super) fn lists_are_whole(&mut self, conn: &Connection) -> Law {
        const WRONG: &str = "
            SELECT instance || ' ' || id || ' counts ' || member_count FROM groups
            WHERE member_count <>
                (SELECT count(*) FROM memberships AS one
                 WHERE one.instance = groups.instance AND one.group_id = groups.id AND one.ended_at IS NULL)
               OR gone_at IS NOT NULL AND member_count > 0
            UNION ALL
            SELECT instance || ' ' || group_id || ' is no group' FROM memberships AS one
            WHERE ended_at IS NULL AND NOT EXISTS
                (SELECT 1 FROM groups WHERE groups.instance = one.instance AND groups.id = one.group_id)
            LIMIT 1";
        let mut wrong = conn.prepare_cached(WRONG).unwrap();
        let mut wrong = wrong.query([]).unwrap();
        if let Some(row) = wrong.next().unwrap() {
            let what: String = row.get(0).unwrap();
            return broken("a group has the members that it counts", what);
        }
        let disbelieved: i64 = conn
            .prepare_cached(
                "SELECT count(*) FROM groups WHERE members_known <> 'all' AND gone_at IS NULL",
            )
            .unwrap()
            .query_row([], |row| row.get(0))
            .unwrap();
        self.lists_disbelieved = self.lists_disbelieved.max(disbelieved.unsigned_abs());
        Ok(())
    }

    /// Nobody leaves unless the guards let it: neither one group nor all of them lose too many at a time (promise P5). Who ends
    /// with a group does not count.
    pub(super) fn may_lose_members(&self, conn: &Connection, record: &Record) -> Law {
        if record.reason != "removed" {
            return Ok(());
        }
        let Some(groups) = self.instances[&record.instance].groups else {
            return broken(
                "groups are read where that is configured",
                format!("{record:?}"),
            );
        };
        let group = record.membership().map(|[group, _]| group);
        let of_group = |id: &str| {
            let of = musterd::model::membership::parts(id).map(|[group, _]| group);
            of == group
        };
        let ends = |one: &Record| one.kind == "deactivate" && one.reason == "removed";
        self.is_within(conn, record, groups.memberships, &ends, &|_, lives| lives)?;
        self.is_within(
            conn,
            record,
            groups.group_memberships,
            &|one| ends(one) && of_group(&one.id),
            &|id, lives| lives && of_group(id),
        )
    }
}

/// Since when somebody was in truth in a group, or was not.
pub(super) fn fits(truth: &Truth, record: &Record, span: Span) -> Vec<Timestamp> {
    let [group, member] = record.membership().unwrap();
    let states = truth.groups.memberships(&group, &member, span).into_iter();
    states
        .filter(|(_, is)| *is == (record.kind == "create"))
        .map(|(from, _)| from)
        .collect()
}

/// Whether what is recorded may be what was shown and not what was true: of who ends with a group that is hidden, and where lists lie.
pub(super) fn may_be_untrue(truth: &Truth, record: &Record, span: Span) -> bool {
    let [group, _] = record.membership().unwrap();
    let ends_hidden = ["gone", "source_changed"].contains(&&*record.reason)
        && truth.any_wrong(span, hides_groups);
    record.kind == "deactivate" && (ends_hidden || is_lied_about(record, truth, &group, span))
}

/// Whether a list that is not whole cannot be told from one that is: lists of groups and the group alone lie alike. Where a person
/// approved it, the group alone was asked for.
pub(super) fn is_lied_about(record: &Record, truth: &Truth, group: &str, span: Span) -> bool {
    let lies = |effect: &_| shortens(effect, group);
    match record.hold_id.is_some() && record.reason == "removed" {
        true => truth.any_wrong(span, lies),
        false => truth.lies_alike(span, lies),
    }
}
