//! Nobody is deactivated, made or emptied without a cause that was true (promise P1).

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use musterd::model::{Proof, Shares, Witness};
use musterd::sandbox::{Column, Effect, User};
use serde_json::Value;

use super::super::truth::{Span, Truth, disguises, hides};
use super::super::watch::{Asked, Seen};
use super::feed::is_gone_by;
use super::{GROUP, Law, Laws, MEMBERSHIP, Record, Sync, broken};

impl Laws {
    /// What a sync that has ended wrote had causes.
    pub(super) fn caused(&mut self, sync_id: i64, seen: &Seen) -> Law {
        let of = |seq: &i64| self.records[usize::try_from(*seq - 1).unwrap()].sync_id == sync_id;
        let (mine, others) = self.waiting.iter().partition(|seq| of(seq));
        self.waiting = others;
        let mine: BTreeSet<i64> = mine;
        let sync = self.syncs[&sync_id].clone();
        for seq in mine {
            let record = self.record(seq);
            if (&*record.instance, record.source()) != (&*sync.instance, &*sync.resource) {
                return broken(
                    "a record is of its sync's source",
                    format!("{record:?}: {sync:?}"),
                );
            }
            self.has_cause(record, Some(&sync), seen)?;
            self.was_true(seq, self.span_of(self.record(seq), Some(&sync), seen), seen)?;
            self.undoes_no_read(seq, &sync, seen)?;
            self.undoes_no_list(seq, &sync, seen)?;
        }
        self.count_told_twice(&sync, seen);
        Ok(())
    }

    /// So did what a sync wrote that died before its end: nobody knows when it began.
    pub(super) fn caused_by_the_dead(&mut self, orphans: BTreeSet<i64>, seen: &Seen) -> Law {
        for seq in orphans {
            self.has_cause(self.record(seq), None, seen)?;
            self.was_true(seq, self.span_of(self.record(seq), None, seen), seen)?;
        }
        Ok(())
    }

    fn has_cause(&self, record: &Record, sync: Option<&Sync>, seen: &Seen) -> Law {
        let truth = &seen.truths[&record.instance];
        let span = self.span_of(record, sync, seen);
        match record.resource.as_str() {
            GROUP => return self.has_cause_of_group(record, sync, truth, span, seen),
            MEMBERSHIP => return self.has_cause_of_membership(record, sync, truth, span, seen),
            _ => {}
        }
        match (record.kind.as_str(), record.reason.as_str()) {
            ("create", _) => {
                if !truth.was(&record.id, span, |user| user.is_some()) {
                    return broken("who is created existed", format!("{record:?}"));
                }
            }
            (_, "gone") => {
                let absent = |user: Option<&User>| user.is_none();
                let was_absent =
                    truth.was(&record.id, span, absent) || truth.any_wrong(span, hides);
                self.is_gone(record, sync, was_absent, span, seen)?;
            }
            ("deactivate", "inactive") => {
                let left = |user: Option<&User>| user.is_some_and(|user| !user.active);
                if !truth.was(&record.id, span, left) {
                    return broken(
                        "who is deactivated was inactive",
                        format!("{record:?}: {sync:?} within {span:?}"),
                    );
                }
            }
            ("deactivate", "source_changed") => {
                let left = |user: Option<&User>| user.is_none_or(|user| !user.active);
                if !truth.was(&record.id, span, left) && !truth.any_wrong(span, hides) {
                    return broken(
                        "who is deactivated left",
                        format!("{record:?} within {span:?}"),
                    );
                }
            }
            _ => self.is_empty_in_truth(record, truth, span)?,
        }
        Ok(())
    }

    /// The instance did not show the user or the group, and the whole proof was there.
    pub(super) fn is_gone(
        &self,
        record: &Record,
        sync: Option<&Sync>,
        was_absent: bool,
        span: Span,
        seen: &Seen,
    ) -> Law {
        const LAW: &str = "who is gone was not shown, and it was proved";
        if !was_absent {
            return broken(
                LAW,
                format!("never left: {record:?}: {sync:?} within {span:?}"),
            );
        }
        let proof: Option<Proof> = record
            .proof
            .as_ref()
            .map(|text| serde_json::from_str(text).unwrap());
        let Some(proof) = proof else {
            return broken(LAW, format!("no proof: {record:?}"));
        };
        let is_approved = record.hold_id.is_some();
        if !is_approved && sync.is_some_and(|sync| !sync.is_complete()) {
            return broken(LAW, format!("not complete: {record:?}: {sync:?}"));
        }
        let requests = &seen.requests[&record.instance];
        let answered = |id: &str, status, from, to| {
            let is_of_groups = record.resource == GROUP;
            let mut alike = requests.iter().rev();
            alike.any(|asked| {
                asked.is_of_groups == is_of_groups && answered(asked, id, status, from, to)
            })
        };
        let asked = answered(&record.id, 404, proof.asked_at, proof.asked_at);
        let [before, after] = &proof.witnesses;
        let witnessed = |witness: &Witness, from: Timestamp, to: Timestamp| {
            witness.answered_at >= from
                && witness.answered_at <= to
                && answered(&witness.id, 200, witness.answered_at, witness.answered_at)
        };
        if !(asked
            && proof.status == 404
            && witnessed(before, span.from, proof.asked_at)
            && witnessed(after, proof.asked_at, record.observed_at))
        {
            return broken(LAW, format!("not asked so: {record:?}"));
        }
        if !is_approved {
            self.is_of_the_same(record, &proof)?;
        }
        Ok(())
    }

    /// The witnesses are of the company of the one who is gone, else of the department, else of the
    /// location, wherever the mirror knew another living user of it.
    fn is_of_the_same(&self, record: &Record, proof: &Proof) -> Law {
        const KINDS: [Shares; 3] = [Shares::Company, Shares::Department, Shares::Location];
        let living = self.living_before(record, proof.witnesses[0].answered_at);
        let mine = places(record);
        let closest = (0..3).find(|kind| {
            let others = living.iter().filter(|(id, _)| **id != record.id.as_str());
            mine[*kind].is_some()
                && others
                    .map(|(_, theirs)| &theirs[*kind])
                    .any(|at| *at == mine[*kind])
        });
        let expected = closest.map_or(Shares::Nothing, |kind| KINDS[kind]);
        let fits = proof.witnesses.iter().all(|witness| {
            let theirs = living.get(witness.id.as_str());
            witness.shares == expected
                && theirs
                    .is_some_and(|theirs| closest.is_none_or(|kind| theirs[kind] == mine[kind]))
        });
        if fits {
            return Ok(());
        }
        broken(
            "a witness is of the same company",
            format!("{expected:?}: {record:?}"),
        )
    }

    /// The living users of an instance, and where they work, as the mirror had them at a time.
    fn living_before(&self, record: &Record, time: Timestamp) -> BTreeMap<&str, Places> {
        let mut living = BTreeMap::new();
        for one in self.records.iter().take_while(|one| one.observed_at < time) {
            if (&one.instance, &one.resource) != (&record.instance, &record.resource) {
                continue;
            }
            if is_gone_by(one) {
                living.remove(one.id.as_str());
            } else {
                living.insert(one.id.as_str(), one);
            }
        }
        living
            .into_iter()
            .map(|(id, one)| (id, places(one)))
            .collect()
    }

    /// What turns empty was empty, unless the instance showed people otherwise than they were.
    fn is_empty_in_truth(&self, record: &Record, truth: &Truth, span: Span) -> Law {
        let Some(changed) = &record.changed else {
            return Ok(());
        };
        let changed: Value = serde_json::from_str(changed).unwrap();
        for (path, column) in [("title", Column::Title), ("user_name", Column::UserName)] {
            let turns_empty = changed
                .get(path)
                .is_some_and(|change| change["to"].is_null());
            let was_empty =
                |user: Option<&User>| user.is_none_or(|user| user.get(column).is_empty());
            let lied = |effect: &Effect| disguises(effect);
            if turns_empty
                && !truth.any_wrong(span, lied)
                && !truth.was(&record.id, span, was_empty)
            {
                return broken("what turns empty was empty", format!("{path}: {record:?}"));
            }
        }
        Ok(())
    }
}

type Places = [Option<String>; 3];

/// Whether asking for somebody gave this status at a time.
fn answered(asked: &Asked, id: &str, status: u16, from: Timestamp, to: Timestamp) -> bool {
    // Times in the mirror are in whole milliseconds.
    let slack = jiff::SignedDuration::from_millis(1);
    asked.id.as_deref() == Some(id)
        && asked
            .answer
            .is_some_and(|(at, given)| given == status && at >= from - slack && at <= to + slack)
}

/// Company, department and location of a canonical resource: the id, or the label where there is no id. Of a group an instance
/// shows the company alone.
fn places(record: &Record) -> Places {
    const EXTENSION: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
    const OF_GROUP: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group";
    let after: Value = serde_json::from_str(&record.after).unwrap();
    if record.resource == GROUP {
        let company = after[OF_GROUP]["company"]["value"].as_str();
        return [company.map(str::to_owned), None, None];
    }
    ["company", "department", "location"].map(|name| {
        let place = &after[EXTENSION][name];
        let text = [&place["value"], &place["name"], place];
        text.into_iter()
            .find_map(|value| value.as_str().map(str::to_owned))
    })
}
