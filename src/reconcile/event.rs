//! What arrived or is proved gone, beside what the mirror knows: change events.

use jiff::Timestamp;

use super::canonical;
use crate::model::{Arrived, ChangeEvent, Proof, ResourceId, ResourceType, State};

/// A resource was read. `active` is settled here: what the instance does not say keeps the last
/// value, and is true for somebody new. So it is for somebody who returns: that they were inactive
/// while gone was our word, not the instance's.
#[must_use]
pub fn seen(before: Option<State>, arrived: Arrived) -> ChangeEvent {
    let canonical = match canonical::active(&arrived.canonical) {
        Some(_) => arrived.canonical,
        None => {
            let last = before
                .as_ref()
                .filter(|state| state.gone_at.is_none())
                .and_then(|state| canonical::active(&state.canonical));
            canonical::with_active(arrived.resource, &arrived.canonical, last.unwrap_or(true))
        }
    };
    let created_before = before.as_ref().and_then(|state| state.created_at);
    ChangeEvent {
        resource: arrived.resource,
        id: arrived.id,
        before,
        after: State {
            canonical,
            // Never changes: an answer without `meta` does not unmake it.
            created_at: arrived.created_at.or(created_before),
            modified_at: arrived.modified_at,
            gone_at: None,
        },
        proof: None,
    }
}

/// A resource is gone: what it was, with `active` false, and gone since `observed_at`, the time of the
/// record to be. Who was gone already stays gone since then. Without a proof it is only held.
#[must_use]
pub fn gone(
    resource: ResourceType,
    id: ResourceId,
    before: State,
    proof: Option<Proof>,
    observed_at: Timestamp,
) -> ChangeEvent {
    let after = State {
        gone_at: before.gone_at.or(Some(observed_at)),
        ..inactive(resource, before.clone())
    };
    ChangeEvent {
        resource,
        id,
        before: Some(before),
        after,
        proof,
    }
}

/// What somebody was, with `active` false.
pub(super) fn inactive(resource: ResourceType, state: State) -> State {
    match canonical::active(&state.canonical) {
        Some(false) => state,
        _ => State {
            canonical: canonical::with_active(resource, &state.canonical, false),
            ..state
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{arrive, proof};
    use super::*;

    fn state(canonical: &str, gone_at: Option<&str>) -> State {
        State {
            canonical: canonical.to_owned(),
            created_at: Some("2020-01-01T00:00:00Z".parse().unwrap()),
            modified_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            gone_at: gone_at.map(|time| time.parse().unwrap()),
        }
    }

    #[test]
    fn a_missing_active_keeps_the_last_value_and_is_true_for_who_is_new_or_returns() {
        let now = Some("2026-03-01T00:00:00Z");
        let before = |active: bool| format!(r#"{{"Z":1,"active":{active},"id":"a"}}"#);
        for (raw, before, active) in [
            (r#"{"id":"a","Z":1}"#, None, true),
            (
                r#"{"id":"a","Z":1}"#,
                Some(state(&before(false), None)),
                false,
            ),
            (
                r#"{"id":"a","Z":1}"#,
                Some(state(&before(true), None)),
                true,
            ),
            (
                r#"{"id":"a","Z":1}"#,
                Some(state(&before(false), now)),
                true,
            ),
            (
                r#"{"id":"a","Z":1,"active":"False"}"#,
                Some(state(&before(true), None)),
                false,
            ),
            (
                r#"{"id":"a","Z":1,"active":false}"#,
                Some(state(&before(false), now)),
                false,
            ),
            (r#"{"id":"a","Z":1,"active":true}"#, None, true),
        ] {
            let event = seen(before.clone(), arrive(raw).unwrap());
            let expected = format!(r#"{{"Z":1,"active":{active},"id":"a"}}"#);
            assert_eq!(event.after.canonical, expected, "{raw} {before:?}");
            assert_eq!(event.after.gone_at, None);
            assert_eq!(event.before, before);
        }
    }

    #[test]
    fn an_answer_without_meta_forgets_the_stamp_but_not_the_birth() {
        let before = state(r#"{"active":true,"id":"a"}"#, None);
        let event = seen(Some(before.clone()), arrive(r#"{"id":"a"}"#).unwrap());
        assert_eq!(event.after.created_at, before.created_at);
        assert_eq!(event.after.modified_at, None);
    }

    #[test]
    fn who_is_gone_is_what_they_were_but_inactive() {
        let now = "2026-03-01T00:00:00Z".parse().unwrap();
        let id = || ResourceId::new("a");
        let before = state(r#"{"active":true,"id":"a","title":"x"}"#, None);
        let event = gone(ResourceType::User, id(), before.clone(), Some(proof()), now);
        assert_eq!(
            event.after,
            State {
                canonical: r#"{"active":false,"id":"a","title":"x"}"#.to_owned(),
                gone_at: Some(now),
                ..before.clone()
            }
        );
        assert_eq!((event.before, event.proof), (Some(before), Some(proof())));
        let later = "2026-04-01T00:00:00Z".parse().unwrap();
        let again = gone(
            ResourceType::User,
            id(),
            event.after.clone(),
            Some(proof()),
            later,
        );
        assert_eq!(again.after, event.after);
    }
}
