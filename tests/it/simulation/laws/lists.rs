//! What lists of members said, and to whom: nobody leaves a group by one answer, and what one sync has read does not undo what
//! another one read later (promises P1 and P6).

use musterd::model::membership;
use serde_json::Value;

use super::super::truth::Span;
use super::super::watch::{Asked, Seen};
use super::{Law, Laws, MEMBERSHIP, Record, Sync, broken};

impl Laws {
    /// A list without somebody was read, then the group by itself, without him again; and nobody heard from himself that he is in it.
    pub(super) fn was_said_twice(
        &self,
        record: &Record,
        sync: &Sync,
        span: Span,
        seen: &Seen,
    ) -> Law {
        const LAW: &str = "who leaves a group is missing twice";
        let [group, member] = record.membership().unwrap();
        let (_, n_sent) = self.read_at(record.seq);
        let requests = &seen.requests[&record.instance][..n_sent];
        let first = requests.partition_point(|asked| asked.at < span.from);
        let without = |asked: &Asked| {
            let told = Told::of(asked, &group, &member);
            matches!(told, Told::Without | Told::Unclear)
        };
        let is_alone = |asked: &Asked| asked.is_of_groups && asked.id.as_deref() == Some(&*group);
        let alone = (first..n_sent)
            .rev()
            .find(|place| is_alone(&requests[*place]) && without(&requests[*place]));
        let Some(alone) = alone else {
            return broken(LAW, format!("not asked for: {record:?}: {sync:?}"));
        };
        if !requests[first..alone].iter().any(without) {
            return broken(LAW, format!("once: {record:?}: {sync:?}"));
        }
        let says_otherwise = |asked: &Asked| {
            !asked.is_of_groups
                && asked.id.as_deref() == Some(&*member)
                && says_to_be_in(asked, &group)
        };
        if requests[alone..].iter().any(says_otherwise) {
            return broken(LAW, format!("he says otherwise: {record:?}: {sync:?}"));
        }
        Ok(())
    }

    /// A full sync has written nothing of a list that contradicts what an incremental one was told later, and had come to its end
    /// before.
    pub(super) fn undoes_no_list(&self, seq: i64, sync: &Sync, seen: &Seen) -> Law {
        let record = self.record(seq);
        if sync.mode != "full" || record.resource != MEMBERSHIP || record.reason == "gone" {
            return Ok(());
        }
        let [group, member] = membership::parts(&record.id).unwrap();
        let requests = &seen.requests[&record.instance];
        let (wrote, against) = match &*record.kind {
            "create" => (Told::With, Told::Without),
            _ => (Told::Without, Told::With),
        };
        let (check, n_sent) = self.read_at(seq);
        for other in self.read_meanwhile(record, sync, check, seen) {
            let sent = requests[..other.n_sent].iter().enumerate().rev();
            let page = sent
                .take_while(|(_, asked)| asked.at >= other.started_at)
                .filter(|(_, asked)| asked.is_page_of_changes)
                .map(|(place, asked)| (place, Told::of(asked, &group, &member)))
                .find(|(_, told)| *told != Told::Nothing);
            let Some((later, told)) = page else { continue };
            let asked_again = requests[later..other.n_sent]
                .iter()
                .any(|asked| asked.is_of_groups && asked.id.as_deref() == Some(&*group));
            if told != against || asked_again {
                continue;
            }
            let answers = requests[..n_sent].iter().enumerate().rev();
            let source = answers
                .filter(|(_, asked)| asked.at >= sync.span().from)
                .find(|(_, asked)| {
                    let told = Told::of(asked, &group, &member);
                    told == wrote || told == Told::Unclear
                });
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
}

/// What an answer says of somebody and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// It does not speak of that group.
    Nothing,
    /// Nobody can say what somebody makes of it.
    Unclear,
    With,
    Without,
}

impl Told {
    fn of(asked: &Asked, group: &str, member: &str) -> Self {
        let (Some(body), Some((_, 200)), true) = (&asked.body, asked.answer, asked.is_of_groups)
        else {
            return Self::Nothing;
        };
        let Ok(text) = std::str::from_utf8(body) else {
            return Self::Unclear;
        };
        if !text.contains(group) {
            return Self::Nothing;
        }
        let Ok(body) = serde_json::from_str::<Value>(text) else {
            return Self::Unclear;
        };
        let one = std::slice::from_ref(&body);
        let rows = body["Resources"].as_array().map_or(one, Vec::as_slice);
        let Some(row) = rows.iter().rev().find(|row| row["id"] == group) else {
            return Self::Nothing;
        };
        let mut members = row["members"].as_array().into_iter().flatten();
        match members.any(|one| one["value"] == member) {
            true => Self::With,
            false => Self::Without,
        }
    }
}

/// Whether an answer about a user names a group as one that he is in directly.
fn says_to_be_in(asked: &Asked, group: &str) -> bool {
    let body = asked.body.as_ref();
    let body = body.and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let groups = body.as_ref().and_then(|user| user["groups"].as_array());
    groups
        .into_iter()
        .flatten()
        .any(|one| one["value"] == group && one["type"] != "indirect")
}
