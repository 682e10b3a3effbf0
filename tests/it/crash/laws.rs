//! What the states between the transactions of one run must show by themselves, whatever the program is:
//! they were found by watching it, so that a program that commits too early would otherwise agree with
//! itself (promise P2).

use std::collections::BTreeSet;

use super::state::State;

/// What moves with the last transaction of a sync that succeeded, and never without its row.
const MOVES_WITH_THE_SYNC: [&str; 4] = [
    "watermark",
    "baseline_at",
    "last_success_at",
    "last_full_success_at",
];

/// Holds the states of a run, in their order, against the promise.
pub(super) fn assert_kept(states: &[State]) {
    for pair in states.windows(2) {
        let [earlier, later] = [&pair[0], &pair[1]];
        let has_ended = succeeded(later).len() == succeeded(earlier).len() + 1;
        for column in MOVES_WITH_THE_SYNC {
            let has_moved = known(earlier, column) != known(later, column);
            assert!(!has_moved || has_ended, "`{column}` moved by itself");
        }
    }
    for state in states {
        let of_changes = state.column("changes", "sync_id");
        let of_base = state.column("changes_base", "sync_id");
        for (sync_id, n_records) in succeeded(state) {
            // What was trimmed is not there any more to be counted.
            if of_base.is_empty() {
                let found = of_changes.iter().filter(|id| **id == sync_id).count();
                assert_eq!(found, n_records, "the records of sync {sync_id}");
            }
        }
        let syncs: BTreeSet<&str> = state.column("syncs", "id").into_iter().collect();
        for sync_id in state.column("holds", "sync_id") {
            assert!(syncs.contains(sync_id), "a hold before its sync {sync_id}");
        }
    }
}

/// The values of a source that is there and was synced.
fn known<'a>(state: &'a State, column: &str) -> Vec<&'a str> {
    let mut values = state.column("sources", column);
    values.retain(|value| *value != "NULL");
    values
}

/// Each sync that succeeded, and how many records it says it has written.
fn succeeded(state: &State) -> Vec<(&str, usize)> {
    let counts = ["created", "updated", "deactivated"].map(|name| state.column("syncs", name));
    let outcomes = state.column("syncs", "outcome").into_iter();
    let ids = state.column("syncs", "id");
    outcomes
        .enumerate()
        .filter(|(_, outcome)| *outcome == "'succeeded'")
        .map(|(place, _)| {
            let number = |text: &str| -> usize { text.trim().parse().unwrap() };
            let n_records = counts.iter().map(|count| number(count[place])).sum();
            (ids[place], n_records)
        })
        .collect()
}
