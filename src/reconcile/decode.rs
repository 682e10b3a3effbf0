//! A resource as raw text, decoded into canonical form, or rejected with its path.

use jiff::Timestamp;

use super::canonical::{Node, Resource, Unreadable};
use super::fingerprint::fingerprint;
use super::names::NOTHING_KNOWN;
use super::peek::{self, Members};
use super::{mapping, members};
use crate::model::time::parse_lenient;
use crate::model::{Arrived, MemberList, Reject, ResourceId, ResourceType, Row};

/// The longest resource that is decoded, in bytes of raw text, members left out. Users have a few thousand; one of
/// megabytes, kept with each of its changes, would fill the feed.
const MOST_BYTES: usize = 1 << 20;

/// The same of a group with its members, of whom each takes some 200 bytes.
const MOST_BYTES_OF_GROUP: usize = 1 << 25;

/// Decodes one row of a page. A user whose known attributes have impossible types is a reject.
///
/// # Errors
/// A [`Reject`] that names the id and the JSON path.
pub fn decode(resource: ResourceType, row: &Row) -> Result<Arrived, Reject> {
    read(resource, row)
        .map_err(|reason| Reject::new(Some(row.id.clone()), reason.to_string(), &row.raw))
}

fn read(resource: ResourceType, row: &Row) -> Result<Arrived, Unreadable> {
    let most = match resource {
        ResourceType::User | ResourceType::Membership => MOST_BYTES,
        ResourceType::Group => MOST_BYTES_OF_GROUP,
    };
    let too_long = |bytes, most| Unreadable {
        path: String::new(),
        problem: format!("{bytes} bytes, more than {most}"),
    };
    if row.raw.len() > most {
        return Err(too_long(row.raw.len(), most));
    }
    let text = std::str::from_utf8(&row.raw).map_err(|error| Unreadable {
        path: String::new(),
        problem: error.to_string(),
    })?;
    let parsed = Resource::parse(resource, text)?;
    // The id was read before by a reader that stops early.
    if parsed.id() != Some(row.id.as_str()) {
        return Err(Unreadable {
            path: "id".to_owned(),
            problem: match parsed.content().get("id") {
                Some(id) => format!("is {} in the whole resource", id.to_text()),
                None => "is missing in the whole resource".to_owned(),
            },
        });
    }
    let columns = mapping::text_columns(resource, parsed.content())?;
    let canonical = parsed.to_text();
    if canonical.len() > MOST_BYTES {
        return Err(too_long(canonical.len(), MOST_BYTES));
    }
    Ok(Arrived {
        resource,
        id: row.id.clone(),
        members: (resource == ResourceType::Group).then(|| members_of(&parsed)),
        canonical,
        created_at: parsed.created_at(),
        modified_at: row.modified_at,
        columns,
        fingerprint: fingerprint(&row.raw),
    })
}

/// The members of a group. One that shows neither a name nor anybody is one whose columns the account may not read any more (facts
/// page, section 13.4): that nobody is shown then says nothing of who is in it.
fn members_of(group: &Resource<'_>) -> MemberList {
    let mut list = members::list(group.members());
    if list.n_arrived == 0 && group.content().get("displayName").is_none() {
        let why = "`members`: nobody is shown, nor is `displayName`";
        list.unreadable.get_or_insert_with(|| why.to_owned());
    }
    list
}

/// The little that a crawl reads of a resource before it is decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The `id`; a number counts as its text.
    pub id: ResourceId,
    /// `meta.lastModified`; `None` when missing or unreadable.
    pub modified_at: Option<Timestamp>,
}

/// Reads the head of one resource and nothing after it where `id` and `meta` come first. What is
/// wrong elsewhere is left to [`decode`], so that such a resource still has its id.
///
/// # Errors
/// What is wrong with it, for the reject's reason.
pub fn head(raw: &str) -> Result<Head, String> {
    let mut id = None;
    let mut meta = None;
    let mut members = Members::of(raw);
    while let Some(name) = members.name() {
        if id.is_none() && name.is("id") {
            id = members.value();
        } else {
            if meta.is_none() && name.is("meta") {
                meta = Some(members.inside());
            }
            // Not past `meta` if that was the last thing wanted: it is read once.
            if id.is_none() || meta.is_none() {
                members.value();
            }
        }
        if id.is_some() && meta.is_some() {
            break;
        }
    }
    Ok(Head {
        id: resource_id(id, raw)?,
        modified_at: meta.and_then(last_modified),
    })
}

fn resource_id(json: Option<&str>, raw: &str) -> Result<ResourceId, String> {
    let Some(json) = json else {
        return Err(match Node::read(raw, &NOTHING_KNOWN) {
            Ok(Some(Node::Object(_)) | None) => "`id`: missing".to_owned(),
            Ok(Some(other)) => format!("{} where a resource should be", other.kind()),
            Err(error) => error.to_string(),
        });
    };
    if let Some(id) = peek::string(json).filter(|id| !id.is_empty()) {
        return Ok(ResourceId::new(id));
    }
    match Node::read(json, &NOTHING_KNOWN) {
        Ok(Some(Node::Number(id))) => Ok(ResourceId::new(id)),
        Ok(Some(other)) => Err(format!("`id`: {} where a text should be", other.kind())),
        Ok(None) => Err("`id`: missing".to_owned()),
        Err(error) => Err(format!("`id`: {error}")),
    }
}

fn last_modified(mut meta: Members<'_>) -> Option<Timestamp> {
    loop {
        if meta.name()?.is("lastModified") {
            return parse_lenient(&peek::string(meta.value()?)?);
        }
        meta.value()?;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::samples::{Json, arrive, user};
    use super::*;

    #[test]
    fn the_head_needs_nothing_of_the_rest() {
        let stamp = Some("2026-02-27T16:40:09Z".parse().unwrap());
        let meta = r#""meta":{"created":1,"lastModified":"2026-02-27T16:40:09Z"}"#;
        for (raw, id, modified_at) in [
            (format!(r#"{{"id":"a",{meta},broken"#), "a", stamp),
            (format!(r#"{{{meta},"x":"\ud800","ID":"b"}}"#), "b", stamp),
            (format!(r#"{{"\ud800":1e999,{meta},"id":12}}"#), "12", stamp),
            (r#"{"id":1E5,"meta":"odd"}"#.to_owned(), "1e+5", None),
            (
                r#"{"meta":{"lastModified":"soon"},"id":"..\n"}"#.to_owned(),
                "..\n",
                None,
            ),
            (r#"{"id":"a","x":tru"#.to_owned(), "a", None),
        ] {
            let head = head(&raw).unwrap();
            assert_eq!(head.id.as_str(), id, "{raw}");
            assert_eq!(head.modified_at, modified_at, "{raw}");
        }
    }

    #[test]
    fn a_group_without_a_name_and_without_members_shows_no_list() {
        let members = |text: &str| {
            let row = Row {
                id: ResourceId::new("g"),
                modified_at: None,
                raw: Bytes::copy_from_slice(text.as_bytes()),
            };
            decode(ResourceType::Group, &row).unwrap().members.unwrap()
        };
        for (text, is_list) in [
            (r#"{"id":"g","displayName":"Desk"}"#, true),
            (r#"{"id":"g","members":[{"value":"a"}]}"#, true),
            (r#"{"id":"g","meta":{"resourceType":"Group"}}"#, false),
            (r#"{"id":"g","displayName":"","members":[]}"#, false),
            (r#"{"id":"g","displayName":null,"members":null}"#, false),
        ] {
            assert_eq!(members(text).unreadable.is_none(), is_list, "{text}");
        }
    }

    #[test]
    fn a_missing_or_odd_id_says_so() {
        for (raw, reason) in [
            ("{}", "`id`: missing"),
            (r#"{"id":null}"#, "`id`: missing"),
            (r#"{"id":""}"#, "`id`: missing"),
            (r#"{"id":true}"#, "`id`: a boolean where a text should be"),
            (r#"{"id":["a"]}"#, "`id`: an array where a text should be"),
            (
                r#"{"id":{"a":1}}"#,
                "`id`: an object where a text should be",
            ),
        ] {
            assert_eq!(head(raw).unwrap_err(), reason, "{raw}");
        }
        assert!(
            head(r#"{"id":"\ud800"}"#)
                .unwrap_err()
                .starts_with("`id`: ")
        );
        assert_eq!(
            head("[1]").unwrap_err(),
            "an array where a resource should be"
        );
        assert!(head("").is_err());
    }

    #[test]
    fn a_reject_keeps_its_id_and_names_the_path() {
        for (raw, reason) in [
            (
                r#"{"id":"a","meta":{},"id":"b"}"#,
                "`id`: the attribute is there twice",
            ),
            (r#"{"id":"a","meta":{},"title":"\udead"}"#, "`title`: "),
            (
                r#"{"id":"a","name":{"givenName":["x"]}}"#,
                "`name.givenName`: an array where a text should be",
            ),
            (
                r#"{"id":"a","emails":[{"value":{"x":1}}]}"#,
                "`emails[0].value`: an object where a text should be",
            ),
            (r#"{"id":"a","active":"maybe"}"#, "`active`: "),
        ] {
            let reject = arrive(raw).unwrap_err();
            assert_eq!(reject.id, Some(ResourceId::new("a")), "{raw}");
            assert!(
                reject.reason.starts_with(reason),
                "{raw}: {}",
                reject.reason
            );
            assert_eq!(reject.body, raw);
        }
        let row = Row {
            id: ResourceId::new("a"),
            modified_at: None,
            raw: Bytes::from_static(br#"{"id":"b"}"#),
        };
        let reject = decode(ResourceType::User, &row).unwrap_err();
        assert_eq!(reject.reason, r#"`id`: is "b" in the whole resource"#);
    }

    #[test]
    fn one_that_is_too_long_is_a_reject_with_its_id() {
        let of = |bytes: usize| format!(r#"{{"id":"a","title":"{}"}}"#, "x".repeat(bytes - 21));
        assert_eq!(of(MOST_BYTES).len(), MOST_BYTES);
        assert!(arrive(&of(MOST_BYTES)).is_ok());
        let reject = arrive(&of(MOST_BYTES + 1)).unwrap_err();
        assert_eq!(reject.id, Some(ResourceId::new("a")));
        assert_eq!(reject.reason, "1048577 bytes, more than 1048576");
        assert!(reject.body.len() <= Reject::MAX_BODY_BYTES);
    }

    proptest! {
        #[test]
        fn the_columns_are_those_of_the_canonical_text(user in user(), seed: u64) {
            let raw = user.respell(&mut fastrand::Rng::with_seed(seed));
            if let Ok(arrived) = arrive(&raw) {
                let columns = mapping::user_columns(&arrived.canonical).unwrap();
                prop_assert_eq!(arrived.columns, columns.text);
            }
        }

        #[test]
        fn what_is_read_first_is_what_is_decoded(mut user in user(), seed: u64) {
            user.members().retain(|(name, _)| name != "meta");
            user.members().push((
                "meta".to_owned(),
                Json::Object(vec![
                    ("created".to_owned(), Json::text("2024-11-04T07:15:22+01:00")),
                    ("lastModified".to_owned(), Json::text("2026-02-27T16:40:09Z")),
                ]),
            ));
            let raw = user.respell(&mut fastrand::Rng::with_seed(seed));
            let arrived = arrive(&raw).unwrap();
            prop_assert_eq!(arrived.id.as_str(), "6f1a");
            prop_assert_eq!(arrived.modified_at, Some("2026-02-27T16:40:09Z".parse().unwrap()));
            prop_assert_eq!(arrived.created_at, Some("2024-11-04T06:15:22Z".parse().unwrap()));
            let again = arrive(&arrived.canonical).unwrap();
            prop_assert_eq!(again.canonical, arrived.canonical);
        }

        #[test]
        fn no_bytes_make_it_panic(user in user(), cut: prop::sample::Index, byte: u8, noise: Vec<u8>) {
            let mut spoilt = user.write().into_bytes();
            let place = cut.index(spoilt.len());
            spoilt[place] = byte;
            for raw in [spoilt.clone(), spoilt[..place].to_vec(), noise] {
                let _ = std::str::from_utf8(&raw).map(head);
                let row = Row {
                    id: ResourceId::new("6f1a"),
                    modified_at: None,
                    raw: raw.into(),
                };
                if let Err(reject) = decode(ResourceType::User, &row) {
                    prop_assert_eq!(reject.id, Some(row.id));
                }
            }
        }
    }
}
