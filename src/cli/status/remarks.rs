//! What is worth saying about an instance below the table of `musterd status`.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;

use super::super::words;
use crate::mirror::read::{GroupHealth, Health};
use crate::model::Foreign;

/// What is worth saying about an instance beside its numbers.
pub(super) struct Remark {
    pub(super) sentence: String,
    /// Whether somebody should look: exit code 3.
    pub(super) urgent: bool,
}

/// The remarks on one instance, the most urgent first.
pub(super) fn remarks(row: &Health, now: Timestamp, max_age: Option<Duration>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let mut say = |urgent, sentence: String| remarks.push(Remark { sentence, urgent });
    match row.state.as_str() {
        "unlinked" => {
            let sentence = match row.being_removed {
                true => format!(
                    "its users are being removed; if no `musterd unlink` runs, that was interrupted, and \
                     `musterd unlink {} --drop` goes on with it",
                    Foreign(&row.instance)
                ),
                false => "no longer in the configuration: its rows stay as they are".to_owned(),
            };
            say(false, sentence);
            return remarks;
        }
        "failing" => say(true, failing(row, now)),
        "source_changed" => say(true, source_changed(row)),
        _ => {}
    }
    if let Some(wait) = wait(row, now).filter(|_| row.state != "failing") {
        say(
            false,
            format!(
                "it asked to be left alone: the next request is sent in {}",
                words::span(wait)
            ),
        );
    }
    match row.last_success_age_seconds {
        // A first full sync takes its time; who asks for an age has to be told.
        None => say(max_age.is_some(), "no sync has succeeded yet".to_owned()),
        Some(age) if max_age.is_some_and(|max| i128::from(age) > i128::from(max.as_secs())) => say(
            true,
            format!(
                "the last success is {} old, more than `--max-age` allows",
                words::span(age)
            ),
        ),
        Some(_) => {}
    }
    if row.open_holds > 0 {
        let holds = words::count(row.open_holds, "open hold");
        say(
            true,
            format!("changes are kept back: {holds}, see `musterd holds`"),
        );
    }
    if row.rejects > 0 {
        let rejects = words::count(row.rejects, "resource");
        say(
            false,
            format!("{rejects} could not be understood: see the table `rejects`"),
        );
    }
    if row.ambiguous_profiles > 0 {
        let profiles = words::count(row.ambiguous_profiles, "profile");
        let verb = if row.ambiguous_profiles == 1 {
            "is"
        } else {
            "are"
        };
        say(
            false,
            format!("{profiles} {verb} ambiguous: see `musterd map list --state ambiguous`"),
        );
    }
    if row.last_success_at.is_some() && row.baseline_at.is_none() {
        say(
            false,
            "no complete full sync yet: nobody who is missing is noticed".to_owned(),
        );
    }
    if let Some(age) = row
        .last_full_success_at
        .as_deref()
        .and_then(|at| seconds_since(at, now))
        && age >= LONG_WITHOUT_COMPLETE_SYNC_SECS
    {
        say(
            false,
            format!(
                "the last complete full sync was {} ago: who left since is not noticed",
                words::span(age)
            ),
        );
    }
    for (urgent, sentence) in row.groups.iter().flat_map(|groups| of_groups(row, groups)) {
        say(urgent, sentence);
    }
    let probed = row.capabilities.clone().unwrap_or_default();
    if probed.modified_filter.is_lacking() {
        say(
            false,
            "the instance does not filter by `meta.lastModified`: every sync is a full one"
                .to_owned(),
        );
    } else if probed.inactive_shown.is_lacking() {
        say(
            false,
            "no inactive user was ever shown: if there are any, leavers are found by full syncs only"
                .to_owned(),
        );
    }
    remarks
}

/// What is worth saying of the groups of an instance, and whether somebody should look.
fn of_groups(row: &Health, groups: &GroupHealth) -> Vec<(bool, String)> {
    let mut sentences = Vec::new();
    if groups.left_out {
        let since = groups.last_success_at.as_deref().unwrap_or("never");
        let sentence = format!(
            "groups are not mirrored any more (`resources`): what the mirror has of them is as of {}",
            Foreign(since)
        );
        return vec![(false, sentence)];
    }
    if groups.off {
        let sentence = "groups are left out: the account is not shown any".to_owned();
        sentences.push((false, sentence));
    }
    if let Some(hold_id) = groups.source_changed_hold_id {
        let sentence = format!(
            "its groups look like another directory's: they wait, see `musterd holds show {hold_id}`"
        );
        sentences.push((true, sentence));
    }
    if let Some(error) = &groups.last_error {
        let sentence = format!("the last sync of groups failed: {}", Foreign(error));
        sentences.push((true, sentence));
    }
    if groups.known_in_part > 0 {
        let named: Vec<String> = (groups.examples.iter())
            .map(|id| format!("`{}`", Foreign(id)))
            .collect();
        let more = groups.known_in_part - i64::try_from(named.len()).unwrap_or_default();
        let more = match more {
            more if more > 0 => format!(" and {more} more"),
            _ => String::new(),
        };
        let sentence = format!(
            "not all members are known of {}: {}{more}, so nobody leaves them (`members_known` of the table `groups`)",
            words::count(groups.known_in_part, "group"),
            named.join(", ")
        );
        sentences.push((false, sentence));
    }
    if groups.rejects > 0 {
        let rejects = words::count(groups.rejects, "group");
        let sentence = format!("{rejects} could not be understood: see the table `rejects`");
        sentences.push((false, sentence));
    }
    if row.state != "new" && groups.last_success_at.is_some() && groups.baseline_at.is_none() {
        let sentence = "no complete full sync of groups yet".to_owned();
        sentences.push((false, sentence));
    }
    sentences
}

/// Two of the default schedule's days and some hours.
const LONG_WITHOUT_COMPLETE_SYNC_SECS: i64 = 54 * 3_600;

fn source_changed(row: &Health) -> String {
    match row.approved_hold_id {
        None => {
            "looks like another directory: incremental syncs wait until its hold is approved, and \
                 the mirror keeps what it had"
                .to_owned()
        }
        Some(hold_id) => format!(
            "hold {hold_id} is approved: the next complete full sync takes the new directory over, \
             `musterd sync {} --mode full` does so now",
            Foreign(&row.instance)
        ),
    }
}

fn failing(row: &Health, now: Timestamp) -> String {
    let failures = words::count(row.consecutive_failures, "failure");
    let mut text = format!("{failures} in a row");
    if let Some(ago) = row
        .last_error_at
        .as_deref()
        .and_then(|at| seconds_since(at, now))
    {
        let _ = write!(text, ", the last {} ago", words::span(ago));
    }
    if let Some(error) = &row.last_error {
        let _ = write!(text, ": {}", Foreign(error));
    }
    if let Some(wait) = wait(row, now) {
        let _ = write!(text, "; asked again in {}", words::span(wait));
    }
    text
}

/// For how many seconds the instance wants to be left alone.
fn wait(row: &Health, now: Timestamp) -> Option<i64> {
    let since = seconds_since(row.not_before.as_deref()?, now)?;
    (since < 0).then_some(-since)
}

fn seconds_since(at: &str, now: Timestamp) -> Option<i64> {
    let at: Timestamp = at.parse().ok()?;
    Some(now.as_second() - at.as_second())
}
