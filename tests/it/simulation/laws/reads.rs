//! What one sync has read does not undo what another one read later (promise P6): not by what the mirror
//! believes, but by what the instance told whom, and when.

use std::collections::BTreeSet;

use musterd::sandbox::Effect;
use serde_json::Value;

use super::super::watch::{Asked, Seen};
use super::feed::is_gone_by;
use super::{Law, Laws, Record, Sync, USER, broken};

impl Laws {
    /// A full sync has written nothing that contradicts an incremental one which was told of that user later, and had
    /// come to its end before, be it without finding a change.
    pub(super) fn undoes_no_read(&self, seq: i64, sync: &Sync, seen: &Seen) -> Law {
        let record = self.record(seq);
        // A hold keeps what was read from the mirror.
        if sync.mode != "full" || record.resource != USER || self.beside_hold.contains(&seq) {
            return Ok(());
        }
        let requests = &seen.requests[&record.instance];
        let wrote = Told::by(record);
        let (check, n_sent) = self.read_at(seq);
        for other in self.read_meanwhile(record, sync, check, seen) {
            let Some((later, told)) = last_page_with(&record.id, other, requests) else {
                continue;
            };
            if !wrote.contradicts(&told) || was_asked_again(&record.id, later, other, requests) {
                continue;
            }
            let answers = requests[..n_sent].iter().enumerate().rev();
            let source = answers
                .filter(|(_, asked)| asked.at >= sync.span().from)
                .find(|(_, asked)| wrote.may_be_from(&Told::to(asked, &record.id)));
            if let Some((place, source)) = source
                && place < later
            {
                return broken(
                    "a read does not undo a later read",
                    format!(
                        "{record:?} of {sync:?}, told at {}; told {told:?} at {}: {other:?}",
                        source.at, requests[later].at
                    ),
                );
            }
        }
        Ok(())
    }

    /// The incremental syncs of the same source that came to their end before a full one wrote this, newest first.
    pub(super) fn read_meanwhile(
        &self,
        record: &Record,
        sync: &Sync,
        check: u64,
        seen: &Seen,
    ) -> impl Iterator<Item = &Sync> {
        let was_before = move |other: &Sync| {
            other.check < check || (other.check == check && other.finished_at < record.observed_at)
        };
        self.syncs.values().rev().filter(move |other| {
            (&other.instance, &other.resource) == (&sync.instance, &sync.resource)
                && other.mode == "incremental"
                && other.outcome == "succeeded"
                // Who approves reads no pages.
                && !other.certificate.is_null()
                && other.finished_at >= sync.span().from
                && was_before(other)
                && !self.may_have_refused(other, seen)
        })
    }

    /// Counts whom a full sync and, meanwhile, an incremental one were told different things of: where there are none, the
    /// law says nothing.
    pub(super) fn count_told_twice(&mut self, sync: &Sync, seen: &Seen) {
        if sync.mode != "full" || sync.resource != USER || sync.outcome != "succeeded" {
            return;
        }
        let requests = &seen.requests[&sync.instance][..sync.n_sent];
        let begun = requests.partition_point(|asked| asked.at < sync.started_at);
        let is_meanwhile = |other: &&Sync| {
            (&other.instance, &other.resource) == (&sync.instance, &sync.resource)
                && other.mode == "incremental"
                && other.outcome == "succeeded"
                && (sync.started_at..sync.finished_at).contains(&other.finished_at)
        };
        let mut told_twice = BTreeSet::new();
        for other in self.syncs.values().rev().filter(is_meanwhile) {
            let pages = (begun..other.n_sent).filter(|place| {
                requests[*place].is_page_of_changes && !requests[*place].is_of_groups
            });
            for place in pages {
                for id in ids_in(&requests[place]) {
                    let later = Told::to(&requests[place], &id);
                    let earlier = requests[begun..place].iter().rev();
                    let earlier = earlier
                        .filter(|asked| !asked.is_page_of_changes)
                        .map(|asked| Told::to(asked, &id))
                        .find(|told| matches!(told, Told::Shows { .. }));
                    if earlier.is_some_and(|earlier| earlier.contradicts(&later)) {
                        told_twice.insert(id);
                    }
                }
            }
        }
        self.told_twice += told_twice.len() as u64;
    }

    /// Whether a sync may have read users without taking over what it read.
    fn may_have_refused(&self, sync: &Sync, seen: &Seen) -> bool {
        let spoils = |effect: &Effect| {
            matches!(
                effect,
                Effect::PoisonedRow { .. } | Effect::MemberAdded { .. }
            )
        };
        let was_held_whole = self.holds.values().any(|hold| {
            (&hold.instance, &hold.source) == (&sync.instance, &sync.resource)
                && hold.guard == "source_changed"
                && self
                    .syncs
                    .get(&hold.sync_id)
                    .is_none_or(|opener| opener.finished_at >= sync.started_at)
        });
        was_held_whole || seen.truths[&sync.instance].any_wrong(sync.span(), spoils)
    }
}

/// What an answer, or a record, says of a user.
#[derive(Debug)]
enum Told {
    /// It does not speak of him.
    Nothing,
    /// Nobody can say what somebody makes of it.
    Unclear,
    NotFound,
    Shows {
        /// `None` where nothing is said of it.
        active: Option<bool>,
        title: String,
        user_name: String,
        family_name: String,
    },
}

impl Told {
    fn by(record: &Record) -> Self {
        match is_gone_by(record) {
            true => Self::NotFound,
            false => Self::of(&serde_json::from_str(&record.after).unwrap()),
        }
    }

    fn to(asked: &Asked, id: &str) -> Self {
        if asked.is_of_groups {
            return Self::Nothing;
        }
        let is_about = asked.id.as_deref() == Some(id);
        let status = asked.answer.map(|(_, status)| status);
        match (&asked.body, status) {
            (_, Some(404)) if is_about => Self::NotFound,
            (Some(body), Some(200)) => Self::within(body, id),
            _ => Self::Nothing,
        }
    }

    /// The last that a body says of a user.
    fn within(body: &[u8], id: &str) -> Self {
        let Ok(text) = std::str::from_utf8(body) else {
            return Self::Unclear;
        };
        if !text.contains(id) {
            return Self::Nothing;
        }
        let Ok(body) = serde_json::from_str::<Value>(text) else {
            return Self::Unclear;
        };
        let one = std::slice::from_ref(&body);
        let rows = body["Resources"].as_array().map_or(one, Vec::as_slice);
        let row = rows.iter().rev().find(|row| row["id"] == id);
        row.map_or(Self::Nothing, Self::of)
    }

    fn of(resource: &Value) -> Self {
        let active = match &resource["active"] {
            Value::Null => Ok(None),
            Value::Bool(active) => Ok(Some(*active)),
            Value::String(active) => active.to_ascii_lowercase().parse().map(Some).map_err(drop),
            _ => Err(()),
        };
        let text = |value: &Value| match value {
            Value::Null => Some(String::new()),
            value => value.as_str().map(str::to_owned),
        };
        let texts = [
            text(&resource["title"]),
            text(&resource["userName"]),
            text(&resource["name"]["familyName"]),
        ];
        match (active, texts) {
            (Ok(active), [Some(title), Some(user_name), Some(family_name)]) => Self::Shows {
                active,
                title,
                user_name,
                family_name,
            },
            _ => Self::Unclear,
        }
    }

    /// Whether this was written, and something else read.
    fn contradicts(&self, read: &Self) -> bool {
        matches!((self, read), (Self::NotFound, Self::Shows { .. }))
            || matches!((self, read), (Self::Shows { .. }, Self::Shows { .. }))
                && !self.may_be_from(read)
    }

    /// Whether somebody may have written this who read that.
    fn may_be_from(&self, read: &Self) -> bool {
        let (
            Self::Shows {
                active,
                title,
                user_name,
                family_name,
            },
            Self::Shows {
                active: read_active,
                title: read_title,
                user_name: read_user_name,
                family_name: read_family_name,
            },
        ) = (self, read)
        else {
            return matches!(read, Self::Unclear)
                || matches!((self, read), (Self::NotFound, Self::NotFound));
        };
        let is_active_alike = active.is_none() || read_active.is_none() || active == read_active;
        is_active_alike
            && (title, user_name, family_name) == (read_title, read_user_name, read_family_name)
    }
}

/// The ids on a page.
fn ids_in(page: &Asked) -> Vec<String> {
    let body = page.body.as_ref();
    let body = body.and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let Some(Value::Array(rows)) = body.map(|mut body| body["Resources"].take()) else {
        return Vec::new();
    };
    let ids = rows.iter().filter_map(|row| row["id"].as_str());
    ids.map(str::to_owned).collect()
}

/// What the last page of an incremental sync with a user on it said, and its place among the requests.
fn last_page_with(id: &str, sync: &Sync, requests: &[Asked]) -> Option<(usize, Told)> {
    let sent = requests[..sync.n_sent].iter().enumerate().rev();
    sent.take_while(|(_, asked)| asked.at >= sync.started_at)
        .filter(|(_, asked)| asked.is_page_of_changes)
        .map(|(place, asked)| (place, Told::to(asked, id)))
        .find(|(_, told)| !matches!(told, Told::Nothing))
}

/// Whether somebody asked for the user by himself after a page: what came of that decided.
fn was_asked_again(id: &str, page: usize, sync: &Sync, requests: &[Asked]) -> bool {
    let later = &requests[page..sync.n_sent];
    later
        .iter()
        .any(|asked| !asked.is_of_groups && asked.id.as_deref() == Some(id))
}
