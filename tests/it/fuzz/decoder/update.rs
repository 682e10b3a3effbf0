//! Two states of one resource: what is said to have changed has, and a guard can read it.

use musterd::model::{ChangeEvent, ChangeRecord, Kind, Row, State};
use musterd::reconcile::canonical::Resource;
use musterd::reconcile::{diff, fold, guard, keep};
use proptest::test_runner::TestCaseError;
use proptest::{prop_assert, prop_assert_eq};

use super::{USER, fail};
use crate::fuzz::json::Json;

/// What two states of one resource differ in.
pub(super) fn check(
    row: &Row,
    before: &State,
    after: &State,
) -> Result<Option<ChangeRecord>, TestCaseError> {
    let event = ChangeEvent {
        resource: USER,
        id: row.id.clone(),
        before: Some(before.clone()),
        after: after.clone(),
        proof: None,
    };
    let Some(record) = diff::record(event, true) else {
        let content =
            |state: &State| without_links(&Json::parse(state.canonical.as_bytes()).unwrap());
        prop_assert_eq!(content(before), content(after));
        return Ok(None);
    };
    let changed = record.changed.as_deref().unwrap();
    // As everybody reads it, and not only with the reader that wrote it.
    let json: serde_json::Value =
        serde_json::from_str(changed).map_err(|error| fail(&error.to_string()))?;
    let mine = Json::parse(changed.as_bytes());
    prop_assert_eq!(
        Ok(Json::parse(json.to_string().as_bytes()).unwrap().content()),
        mine.as_ref().map(Json::content)
    );
    let Ok(Json::Object(paths)) = &mine else {
        return Err(fail(changed));
    };
    prop_assert!(!paths.is_empty());
    for (path, change) in paths {
        prop_assert!(
            change.get("from").is_some() && change.get("to").is_some(),
            "{path}: {change:?}"
        );
    }

    // What a guard does with it, whether it lets it through or keeps it back.
    let concerns = guard::concerns(record.resource, record.kind, Some(changed));
    prop_assert_eq!(
        concerns.contains(&guard::Concern::Deactivation),
        record.kind == Kind::Deactivate
    );
    let paths: Vec<&str> = concerns.iter().map(|concern| concern.path(false)).collect();
    for concern in &concerns {
        let shift = guard::shift(
            record.resource,
            concern,
            record.kind,
            Some(changed),
            &after.canonical,
        );
        prop_assert_eq!(shift, -1, "{:?} of {}", concern, changed);
    }
    let kept = keep::keep(USER, &before.canonical, &after.canonical, &paths);
    prop_assert_eq!(&Resource::parse(USER, &kept).unwrap().to_text(), &kept);
    let input = fold::FoldInput {
        resource: "User",
        seq: 2,
        is_base: true,
        kind: record.kind.as_str(),
        reason: record.reason.as_str(),
        has_proof: false,
        after: &record.after.canonical,
        source_modified_at: None,
        observed_at: "2026-03-01T00:00:00.000Z",
    };
    let folded = fold::fold(None, &input).map_err(|error| fail(&error.to_string()))?;
    let folded = folded.ok_or_else(|| fail("nobody is left"))?;
    prop_assert_eq!(&folded.canonical, &after.canonical);
    prop_assert_eq!(
        Some(folded.active),
        Resource::parse(USER, &after.canonical).unwrap().active()
    );
    Ok(Some(record))
}

/// The content of a value without its links.
fn without_links(value: &Json) -> Option<Json> {
    let stripped = match value {
        Json::List(elements) => Json::List(elements.iter().filter_map(without_links).collect()),
        Json::Object(members) => Json::Object(
            members
                .iter()
                .filter(|(name, _)| name != "$ref")
                .filter_map(|(name, value)| Some((name.clone(), without_links(value)?)))
                .collect(),
        ),
        other => other.clone(),
    };
    stripped.content()
}
