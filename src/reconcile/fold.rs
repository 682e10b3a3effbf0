//! Folding the feed gives the mirror: what one record makes of the state before it.

use super::{canonical, identity};
use crate::model::{Kind, Reason, ResourceType};

/// A row of `changes` or `changes_base`, as far as a fold reads it. The texts are the columns'.
#[derive(Clone, Copy, Debug)]
pub struct FoldInput<'a> {
    /// `seq`.
    pub seq: i64,
    /// `resource`.
    pub resource: &'a str,
    /// Whether the row is from `changes_base`: then what came before it is forgotten.
    pub is_base: bool,
    /// `kind`.
    pub kind: &'a str,
    /// `reason`.
    pub reason: &'a str,
    /// Whether `proof` is there.
    pub has_proof: bool,
    /// `after`.
    pub after: &'a str,
    /// `source_modified_at`.
    pub source_modified_at: Option<&'a str>,
    /// `observed_at`.
    pub observed_at: &'a str,
}

/// What the feed says of one resource: the columns of its table that are not mapped from `attributes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folded {
    /// `attributes`, the canonical text.
    pub canonical: String,
    /// `active`; of a profile always `false`.
    pub active: bool,
    /// `gone_at`; `None` while the resource exists.
    pub gone_at: Option<String>,
    /// `modified_at`.
    pub modified_at: Option<String>,
    /// `first_seen_at`; `None` when the create record has been trimmed.
    pub first_seen_at: Option<String>,
    /// `changed_at`.
    pub changed_at: String,
    /// `changed_seq`.
    pub changed_seq: i64,
}

/// A record that cannot follow the ones before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The resource was there already.
    #[error("record {seq} creates a resource that is there already")]
    CreatedTwice {
        /// Of the record.
        seq: i64,
    },
    /// The resource is not there.
    #[error("record {seq} changes a resource that no record before it created")]
    NeverCreated {
        /// Of the record.
        seq: i64,
    },
    /// The records do not come in the order of `seq`.
    #[error("record {seq} comes after record {last}")]
    OutOfOrder {
        /// Of the record.
        seq: i64,
        /// Of the one before it.
        last: i64,
    },
    /// `after` is not a canonical text.
    #[error("`after` of record {seq} has no `active`")]
    NoActive {
        /// Of the record.
        seq: i64,
    },
}

/// Folds one record over what the records before it gave for the same resource.
///
/// Somebody is gone whose last record has a proof or the reason `gone` (a replaced directory's
/// records say `source_changed` instead); any other record clears that. `None` is nobody: after the reason `unlinked` the mirror
/// has no such user, and the next record creates one. So it is with a profile after the kind `deactivate`.
///
/// # Errors
/// [`FoldError`] when the feed is damaged.
pub fn fold(before: Option<Folded>, record: &FoldInput<'_>) -> Result<Option<Folded>, FoldError> {
    let seq = record.seq;
    let is_create = record.kind == Kind::Create.as_str();
    // A membership that begins again is created again; when it began first, what was trimmed does not tell.
    let is_membership = record.resource == ResourceType::Membership.as_str();
    let first_seen_at = match before {
        None if is_create && !(record.is_base && is_membership) => {
            Some(record.observed_at.to_owned())
        }
        None if record.is_base => None,
        None => return Err(FoldError::NeverCreated { seq }),
        Some(before) if before.changed_seq >= seq => {
            let last = before.changed_seq;
            return Err(FoldError::OutOfOrder { seq, last });
        }
        Some(before) if is_create && is_membership && before.gone_at.is_some() => {
            before.first_seen_at
        }
        Some(_) if is_create => return Err(FoldError::CreatedTwice { seq }),
        Some(before) => before.first_seen_at,
    };
    let is_profile = record.resource == identity::RESOURCE;
    let leaves_list = is_profile && record.kind == Kind::Deactivate.as_str();
    if record.reason == Reason::Unlinked.as_str() || leaves_list {
        return Ok(None);
    }
    let is_gone = record.has_proof
        || record.reason == Reason::Gone.as_str()
        || is_membership && record.kind == Kind::Deactivate.as_str();
    let active = match canonical::active(record.after) {
        Some(active) => active,
        // A profile says nothing of that.
        None if is_profile => false,
        None => return Err(FoldError::NoActive { seq }),
    };
    Ok(Some(Folded {
        active,
        canonical: record.after.to_owned(),
        gone_at: is_gone.then(|| record.observed_at.to_owned()),
        modified_at: record.source_modified_at.map(str::to_owned),
        first_seen_at,
        changed_at: record.observed_at.to_owned(),
        changed_seq: seq,
    }))
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;

    use super::super::samples::{arrive, proof, two_users};
    use super::super::{diff, event};
    use super::*;
    use crate::model::time::{our_text, their_text};
    use crate::model::{ChangeRecord, ResourceId, ResourceType, State};

    fn input<'a>(seq: i64, kind: &'a str, reason: &'a str) -> FoldInput<'a> {
        FoldInput {
            seq,
            resource: "User",
            is_base: false,
            kind,
            reason,
            has_proof: false,
            after: r#"{"active":true,"id":"a"}"#,
            source_modified_at: None,
            observed_at: "2026-03-01T00:00:00.000Z",
        }
    }

    /// Somebody who is there after a record.
    fn stays(before: Option<Folded>, record: &FoldInput<'_>) -> Folded {
        fold(before, record).unwrap().unwrap()
    }

    #[test]
    fn gone_lasts_until_the_next_record() {
        let create = stays(None, &input(1, "create", "new"));
        assert_eq!((create.gone_at.as_deref(), create.active), (None, true));
        let time = Some("2026-03-01T00:00:00.000Z");
        assert_eq!(create.first_seen_at.as_deref(), time);
        let gone = stays(Some(create.clone()), &input(3, "deactivate", "gone"));
        assert_eq!((gone.gone_at.as_deref(), gone.changed_seq), (time, 3));
        let approved = FoldInput {
            resource: "User",
            has_proof: true,
            ..input(3, "deactivate", "source_changed")
        };
        assert_eq!(stays(Some(create), &approved), gone);
        let back = stays(Some(gone), &input(4, "update", "returned"));
        assert_eq!(
            (back.gone_at.as_deref(), back.first_seen_at.as_deref()),
            (None, time)
        );
    }

    #[test]
    fn who_was_dropped_is_nobody_until_created_again() {
        let unlinked = |seq| input(seq, "deactivate", "unlinked");
        let create = stays(None, &input(1, "create", "new"));
        let gone = stays(Some(create.clone()), &input(2, "deactivate", "gone"));
        for before in [create, gone] {
            assert_eq!(fold(Some(before), &unlinked(3)), Ok(None));
        }
        for later in [unlinked(4), input(4, "update", "changed")] {
            assert_eq!(fold(None, &later), Err(FoldError::NeverCreated { seq: 4 }));
        }
        assert_eq!(stays(None, &input(4, "create", "baseline")).changed_seq, 4);
    }

    #[test]
    fn a_damaged_feed_is_named() {
        let create = stays(None, &input(5, "create", "new"));
        let seq = 6;
        assert_eq!(
            fold(None, &input(seq, "update", "changed")),
            Err(FoldError::NeverCreated { seq })
        );
        assert_eq!(
            fold(Some(create.clone()), &input(seq, "create", "new")),
            Err(FoldError::CreatedTwice { seq })
        );
        assert_eq!(
            fold(Some(create), &input(5, "update", "changed")),
            Err(FoldError::OutOfOrder { seq: 5, last: 5 })
        );
        let cut = FoldInput {
            after: r#"{"act"#,
            ..input(seq, "create", "new")
        };
        assert_eq!(fold(None, &cut), Err(FoldError::NoActive { seq }));
        let base = FoldInput {
            is_base: true,
            ..input(seq, "update", "changed")
        };
        assert_eq!(stays(None, &base).first_seen_at, None);
    }

    fn fold_record(
        before: Option<Folded>,
        record: &ChangeRecord,
        seq: i64,
        now: Timestamp,
    ) -> Option<Folded> {
        let source_modified_at = record.after.modified_at.map(their_text);
        let input = FoldInput {
            seq,
            resource: "User",
            is_base: false,
            kind: record.kind.as_str(),
            reason: record.reason.as_str(),
            has_proof: record.proof.is_some(),
            after: &record.after.canonical,
            source_modified_at: source_modified_at.as_deref(),
            observed_at: &our_text(now),
        };
        fold(before, &input).unwrap()
    }

    proptest! {
        #[test]
        fn any_history_folds_to_the_last_state(
            (one, other) in two_users(),
            steps in prop::collection::vec(0..4_u8, 1..12),
            baseline_at in 0..12_usize,
        ) {
            let users = [one.write(), other.write()];
            let mut state: Option<State> = None;
            let mut folded: Option<Folded> = None;
            for (place, step) in steps.into_iter().enumerate() {
                let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(place as i64);
                let seq = place as i64 + 1;
                let event = match (step, &state) {
                    (2 | 3, None) => continue,
                    (3, Some(before)) => {
                        let record = diff::unlinked(ResourceType::User, ResourceId::new("6f1a"), before.clone());
                        prop_assert_eq!(canonical::active(&record.after.canonical), Some(false));
                        folded = fold_record(folded, &record, seq, now);
                        prop_assert_eq!(&folded, &None);
                        state = None;
                        continue;
                    }
                    (2, Some(state)) => event::gone(
                        ResourceType::User,
                        ResourceId::new("6f1a"),
                        state.clone(),
                        Some(proof()),
                        now,
                    ),
                    (step, _) => event::seen(state.clone(), arrive(&users[usize::from(step)]).unwrap()),
                };
                let Some(record) = diff::record(event, place >= baseline_at) else { continue };
                folded = fold_record(folded, &record, seq, now);
                state = Some(record.after);
            }
            let (Some(state), Some(folded)) = (&state, &folded) else {
                prop_assert!(state.is_none() && folded.is_none());
                return Ok(());
            };
            prop_assert_eq!(&folded.canonical, &state.canonical);
            prop_assert_eq!(Some(folded.active), canonical::active(&state.canonical));
            prop_assert_eq!(&folded.gone_at, &state.gone_at.map(our_text));
            prop_assert_eq!(&folded.modified_at, &state.modified_at.map(their_text));
            prop_assert!(!(folded.active && folded.gone_at.is_some()));
        }
    }
}
