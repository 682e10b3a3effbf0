//! Groups are mirrored by the laws of users, beside them and never in their way.

use jiff::Timestamp;
use musterd::sandbox::Group;
use rusqlite::Connection;
use serde_json::Value;

use super::super::truth::{Span, Truth, disguises_groups, hides_groups};
use super::super::watch::Seen;
use super::syncs::is_rejected;
use super::{GROUP, Law, Laws, Record, Sync, USER, broken};

impl Laws {
    /// What is recorded of a group had a cause (promise P1).
    pub(super) fn has_cause_of_group(
        &self,
        record: &Record,
        sync: Option<&Sync>,
        truth: &Truth,
        span: Span,
        seen: &Seen,
    ) -> Law {
        let states = truth.groups.states(&record.id, span);
        let was_there = states.iter().any(|(_, group)| group.is_some());
        let was_absent =
            states.iter().any(|(_, group)| group.is_none()) || truth.any_wrong(span, hides_groups);
        match (record.kind.as_str(), record.reason.as_str()) {
            ("create", _) if !was_there => {
                return broken("a group that is created existed", format!("{record:?}"));
            }
            (_, "gone") => return self.is_gone(record, sync, was_absent, span, seen),
            ("deactivate", "source_changed") if was_absent => {}
            // No instance says of a group that it is inactive.
            ("deactivate", _) => {
                return broken(
                    "a group that ends was not there",
                    format!("{record:?} within {span:?}"),
                );
            }
            _ => {}
        }
        let changed = record.changed.as_deref().unwrap_or("{}");
        let changed: Value = serde_json::from_str(changed).unwrap();
        let turns_empty = changed
            .get("display_name")
            .is_some_and(|change| change["to"].is_null());
        if turns_empty && !truth.any_wrong(span, disguises_groups) {
            return broken("no group loses its name", format!("{record:?}"));
        }
        Ok(())
    }

    /// Each group that existed all the time of a complete crawl is in the mirror, and so is whoever was in it all that time,
    /// unless lists were not shown as they are.
    pub(super) fn every_group_is_there(
        &self,
        conn: &Connection,
        sync: &Sync,
        truth: &Truth,
        span: Span,
    ) -> Law {
        const LAW: &str = "what a complete crawl of groups must have seen is in the mirror";
        if truth.any_wrong(span, hides_groups) {
            return Ok(());
        }
        for id in truth.groups.all_along(span) {
            let folded = self.folded(&sync.instance, GROUP, id);
            if is_rejected(conn, &sync.instance, id) {
                continue;
            }
            if folded.is_none_or(|folded| folded.is_gone) {
                return broken(LAW, format!("{id}: {folded:?}: {sync:?}"));
            }
        }
        Ok(())
    }

    /// The state of an instance goes by its users: groups never stop them.
    pub(super) fn goes_by_its_users(&self, conn: &Connection) -> Law {
        let mut stopped = conn
            .prepare_cached("SELECT name FROM instances WHERE state = 'source_changed'")
            .unwrap();
        for name in stopped.query_map([], |row| row.get(0)).unwrap() {
            let name: String = name.unwrap();
            let by_its_users = self.holds.values().any(|hold| {
                (&*hold.instance, &*hold.source) == (&*name, USER)
                    && hold.guard == "source_changed"
                    && hold.state != "resolved"
            });
            if !by_its_users {
                return broken(
                    "groups never stop users",
                    format!("{name}: {:?}", self.holds),
                );
            }
        }
        Ok(())
    }

    /// Whether groups of an instance look like those of another directory, and its users do not.
    pub(in super::super) fn waits_for_groups_alone(&self, instance: &str) -> bool {
        self.is_held_whole(instance, GROUP) && !self.is_held_whole(instance, USER)
    }

    /// Counts a sync of users that succeeded while something of the instance's groups waited for a person.
    pub(super) fn count_beside_held_groups(&mut self, id: i64) {
        let sync = &self.syncs[&id];
        let is_of_users = sync.resource == USER && sync.outcome == "succeeded";
        let is_held = self.holds.values().any(|hold| {
            (&hold.instance, &*hold.source, &*hold.state) == (&sync.instance, GROUP, "open")
        });
        self.beside_held_groups += u64::from(is_of_users && is_held);
    }
}

/// Since when a group was in truth what a canonical resource says.
pub(super) fn fits(truth: &Truth, id: &str, after: &Value, span: Span) -> Vec<Timestamp> {
    let shows = |group: &Group| after["displayName"].as_str().unwrap_or_default() == &*group.name;
    let states = truth.groups.states(id, span).into_iter();
    states
        .filter(|(_, group)| group.is_some_and(shows))
        .map(|(from, _)| from)
        .collect()
}
