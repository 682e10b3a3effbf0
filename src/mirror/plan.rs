//! What a sync would write and hold: the steps of applying, without a writer. A dry run ends here.

use std::ops::ControlFlow;

use super::due::{Due, Lookup};
use super::error::Error;
use super::gate::{Gate, Treatment, Watch};
use super::lists;
use super::read::Reader;
use super::record;
use super::stage::Stage;
use super::staged::Which;
use crate::model::{ChangeRecord, ResourceType};

/// One line of a plan.
#[derive(Clone, Copy, Debug)]
pub enum Planning<'a> {
    /// The sync would write this record.
    Write(&'a ChangeRecord),
    /// The sync would hold this change.
    Hold(Held<'a>),
}

/// A change that a sync would hold.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// What would be written, were it not held.
    pub record: &'a ChangeRecord,
    /// The path at which the mirror would keep the old value.
    pub path: &'a str,
    /// Which guard.
    pub guard: &'static str,
    /// The attribute of a blanking.
    pub attribute: Option<&'a str>,
    /// The limit that is exceeded, for people.
    pub limit_text: &'a str,
}

/// The plan of a sync: every record it would write now and every change it would hold, in the order of
/// ids, handed one by one to `each`.
///
/// # Errors
/// Of the databases.
pub fn plan(
    stage: &Stage,
    reader: &Reader,
    watch: &Watch,
    treatment: &Treatment,
    each: &mut dyn FnMut(Planning<'_>),
) -> Result<(), Error> {
    // One moment of the mirror for the whole plan.
    let _snapshot = reader.conn.unchecked_transaction()?;
    let observed_at = record::observed_at(&reader.conn, watch.now)?;
    let mut lookup = Lookup::new(&reader.conn, watch, observed_at, stage)?;
    let mut gate = Gate::new(&reader.conn, watch, treatment, 0)?;
    stage.each_staged(Which::After(None), &mut |mut staged| {
        let id = staged.id.clone();
        let change = lists::change(&reader.conn, &watch.instance, &mut staged)?;
        let is_any = change.as_ref().is_some_and(lists::Change::is_any);
        let (_, due) = lookup.due(staged, is_any)?;
        let passed = gate.pass(&mut lookup, &id, due)?;
        let is_gone = (passed.due.written()).is_some_and(|record| record.after.gone_at.is_some());
        let change = match watch.resource {
            ResourceType::Group if is_gone => {
                Some(lists::all_of(&reader.conn, &watch.instance, &id)?)
            }
            _ => change
                .filter(|_| matches!(passed.due, Due::Record(..) | Due::Nothing(_) | Due::Kept)),
        };
        let applying = lists::Applying {
            mirror: &reader.conn,
            instance: &watch.instance,
            has_baseline: watch.baseline_at.is_some(),
            observed_at,
        };
        let decided = match change {
            Some(change) => applying.decide(&mut gate, &id, change)?,
            None => lists::Decided::default(),
        };
        // In the order of the feed.
        let write_members = |each: &mut dyn FnMut(Planning<'_>)| {
            for entry in &decided.entries {
                each(Planning::Write(&entry.record(&id, observed_at)));
            }
        };
        if is_gone {
            write_members(each);
        }
        if let Due::Record(due, _) = &passed.due {
            each(Planning::Write(&due.0));
        }
        if !is_gone {
            write_members(each);
        }
        for kept in passed.kept.iter().chain(&decided.kept) {
            each(Planning::Hold(Held {
                record: &kept.record,
                path: &kept.path,
                guard: kept.guard,
                attribute: kept.attribute.as_deref(),
                limit_text: &kept.limit_text,
            }));
        }
        Ok(ControlFlow::Continue(()))
    })
}
