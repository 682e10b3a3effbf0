//! What an instance honours, found out by asking it about users that it has just shown.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::client::{ListQuery, Listing, Session};
use super::crawl::order::{Orders, are_case_twins};
use super::error::Error;
use super::filter;
use crate::model::{Capabilities, Obeyed, ResourceType, Row};

/// Rows to choose from. Enough to tell an order by number (9, 10) from one by text.
pub(super) const ROWS: u32 = 20;

/// Rows of a range that holds one.
pub(super) const RANGE: u32 = 2;

/// Who is inactive.
pub(super) const INACTIVE: &str = "active eq false";

/// Windows of rows that are tried, where one holds a record that cannot be read.
const MOST_WINDOWS: u64 = 3;

/// How far beyond its own clock nothing of an instance should be stamped.
const FUTURE: SignedDuration = SignedDuration::from_hours(366 * 24);

/// Asks what the instance honours of filters on `id` and `meta.lastModified`, and whether it shows
/// inactive users: about six requests.
///
/// # Errors
/// When it cannot be asked at all; a refused filter is a finding, not an error.
pub async fn probe(session: &Session, resource: ResourceType) -> Result<Capabilities, Error> {
    let probe = Probe { session, resource };
    let shown = probe.window().await?;
    let mut found = Capabilities {
        probed_at: Some(session.client.now()),
        ..Capabilities::default()
    };
    let ids: Vec<&str> = shown.rows.iter().map(|row| row.id.as_str()).collect();
    let mut orders = Orders::ALL;
    for pair in ids.windows(2) {
        found.ids_differ_in_case |= are_case_twins(pair[0], pair[1]);
        if pair[0] != pair[1] {
            orders = orders.ascending(pair[0], pair[1]);
        }
    }
    found.order_unknown = orders.is_none() && !found.ids_differ_in_case;

    if !orders.is_none() {
        found.id_after = probe.id_after(&ids, orders).await?;
        if found.id_after == Obeyed::Obeyed {
            found.id_range = probe.id_range(&ids).await?;
        }
    }
    let mut both = Obeyed::Unknown;
    if found.id_after == Obeyed::Obeyed {
        both = probe.modified(&shown.rows, true).await?;
    }
    found.modified_filter = probe.future(&shown).await?;
    if found.modified_filter == Obeyed::Obeyed {
        found.modified_and_id = both;
        if both != Obeyed::Obeyed {
            found.modified_filter = probe.modified(&shown.rows, false).await?;
        }
    }
    // Of groups nobody asks.
    if resource == ResourceType::User {
        found.inactive_shown = probe.inactive(&shown.rows).await?;
    }
    Ok(found)
}

struct Probe<'a> {
    session: &'a Session,
    resource: ResourceType,
}

/// What a filter gave.
enum Given {
    Rows(Listing),
    Refused,
    /// A record on the page cannot be read, or the page took too long.
    Unclear,
}

impl Probe<'_> {
    /// The first rows that can be read.
    async fn window(&self) -> Result<Listing, Error> {
        let mut query = ListQuery {
            filter: None,
            start_index: 1,
            count: ROWS.min(self.session.client.options().page_size),
        };
        loop {
            match self.session.list(self.resource, &query).await {
                Err(error)
                    if error.is_unreadable()
                        && query.start_index < MOST_WINDOWS * u64::from(query.count) =>
                {
                    query.start_index += u64::from(query.count);
                }
                shown => return shown,
            }
        }
    }

    async fn given(&self, filter: Option<String>, count: u32) -> Result<Given, Error> {
        let query = ListQuery {
            filter,
            start_index: 1,
            count,
        };
        match self.session.list(self.resource, &query).await {
            Ok(listing) => Ok(Given::Rows(listing)),
            Err(error) if error.is_refused_query() => Ok(Given::Refused),
            Err(error) if error.is_unreadable() || error.is_timeout() => Ok(Given::Unclear),
            Err(error) => Err(error),
        }
    }

    /// Behind the second of three comes the third: a filter that is ignored or turned round would
    /// show the first.
    async fn id_after(&self, ids: &[&str], orders: Orders) -> Result<Obeyed, Error> {
        let after = match ids {
            [_, after, _, ..] | [after, _] => after,
            _ => return Ok(Obeyed::Unknown),
        };
        let given = self.given(Some(filter::id_after(after)), 1).await?;
        let comes_after = |row: &Row| !orders.ascending(after, row.id.as_str()).is_none();
        Ok(given.obeyed(|listing| matches!(&listing.rows[..], [row] if comes_after(row))))
    }

    /// From the second to before the third is the second, and nobody else.
    async fn id_range(&self, ids: &[&str]) -> Result<Obeyed, Error> {
        let [_, from, before, ..] = ids else {
            return Ok(Obeyed::Unknown);
        };
        let range = filter::all([Some(filter::id_from(from)), Some(filter::id_before(before))]);
        let given = self.given(range, RANGE).await?;
        Ok(given.obeyed(|listing| {
            listing.total == 1 && matches!(&listing.rows[..], [row] if row.id.as_str() == *from)
        }))
    }

    /// From the newest stamp on there is somebody, and nobody older. With `and_id` only behind the
    /// first row, in the form that a crawl by key uses.
    async fn modified(&self, rows: &[Row], and_id: bool) -> Result<Obeyed, Error> {
        let (first, behind) = match rows {
            [first, behind @ ..] if and_id => (Some(first.id.as_str()), behind),
            _ => (None, rows),
        };
        let Some(newest) = behind.iter().filter_map(|row| row.modified_at).max() else {
            return Ok(Obeyed::Unknown);
        };
        let condition = filter::all([
            Some(filter::modified_from(newest)),
            first.map(filter::id_after),
        ]);
        let given = self.given(condition, 1).await?;
        Ok(given.obeyed(|listing| {
            let obeys = |row: &Row| {
                filter::obeys_modified_from(row, newest) == Some(true)
                    && first.is_none_or(|first| row.id.as_str() != first)
            };
            matches!(&listing.rows[..], [row] if obeys(row))
        }))
    }

    /// From a time far beyond the instance's clock on there is nobody.
    async fn future(&self, shown: &Listing) -> Result<Obeyed, Error> {
        let newest = shown.rows.iter().filter_map(|row| row.modified_at).max();
        let Some(newest) = newest else {
            return Ok(Obeyed::Unknown);
        };
        let now = shown.date.map_or(newest, |date| date.max(newest));
        let future = now.checked_add(FUTURE).unwrap_or(Timestamp::MAX);
        let given = self.given(Some(filter::modified_from(future)), 1).await?;
        Ok(given.obeyed(|listing| {
            (listing.rows.iter()).all(|row| filter::obeys_modified_from(row, future) == Some(true))
                && (listing.total == 0 || !listing.rows.is_empty())
        }))
    }

    /// Whether anybody inactive is shown. Where none is, there may be none, but as a rule they are
    /// hidden from the account (facts page, section 13.4).
    async fn inactive(&self, rows: &[Row]) -> Result<Obeyed, Error> {
        if rows.iter().any(is_inactive) {
            return Ok(Obeyed::Obeyed);
        }
        let given = self.given(Some(INACTIVE.to_owned()), 1).await?;
        Ok(match given {
            Given::Rows(listing) if listing.rows.iter().any(is_inactive) => Obeyed::Obeyed,
            Given::Rows(listing) if listing.rows.is_empty() && listing.total == 0 => {
                Obeyed::Ignored
            }
            Given::Rows(_) | Given::Refused | Given::Unclear => Obeyed::Unknown,
        })
    }
}

impl Given {
    fn obeyed(&self, as_asked: impl FnOnce(&Listing) -> bool) -> Obeyed {
        match self {
            Self::Rows(listing) if as_asked(listing) => Obeyed::Obeyed,
            Self::Rows(_) => Obeyed::Ignored,
            Self::Refused => Obeyed::Refused,
            Self::Unclear => Obeyed::Unknown,
        }
    }
}

/// Whether a resource says `active: false`, also as text (facts page, Q37). Names are
/// case-insensitive.
pub(super) fn is_inactive(row: &Row) -> bool {
    let Ok(Value::Object(members)) = serde_json::from_slice(&row.raw) else {
        return false;
    };
    let mut active = members
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("active"));
    active.any(|(_, value)| match value {
        Value::Bool(active) => !active,
        Value::String(active) => active.eq_ignore_ascii_case("false"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::scim::crawl::fake::{Fake, Filters, Sorted};
    use crate::scim::script::{self, Script};

    async fn probed(fake: Fake) -> (Capabilities, usize) {
        let fake = Mutex::new(fake);
        let script = Script::new(move |sent, _| fake.lock().unwrap().serve(sent));
        let folder = tempfile::tempdir().unwrap();
        let session = script::session(script::options(script::basic(), folder.path()), &script);
        let found = probe(&session, ResourceType::User).await.unwrap();
        assert!(found.probed_at.is_some());
        (found, script.sent().len())
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_honours_everything_is_known_by_six_requests() {
        let mut fake = Fake::of_size(50);
        fake.inactive.insert("9e3779b1".to_owned());
        let (found, requests) = probed(fake).await;
        let all = [
            found.id_after,
            found.id_range,
            found.modified_filter,
            found.modified_and_id,
            found.inactive_shown,
        ];
        assert_eq!(all, [Obeyed::Obeyed; 5]);
        assert!(!found.order_unknown && !found.ids_differ_in_case);
        assert_eq!(requests, 6);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_honoured_is_found_out() {
        use Obeyed::{Ignored, Obeyed as Yes, Refused, Unknown};
        let cases = [
            (Filters::Ignored, [Ignored, Unknown, Ignored, Unknown]),
            (Filters::Nobody, [Ignored, Unknown, Ignored, Unknown]),
            (Filters::Reversed, [Ignored, Unknown, Ignored, Unknown]),
            (Filters::OneSided, [Yes, Ignored, Yes, Yes]),
            (Filters::IdIgnored, [Ignored, Unknown, Yes, Unknown]),
            (Filters::IdNobody, [Ignored, Unknown, Yes, Unknown]),
            (Filters::IdRefused, [Refused, Unknown, Yes, Unknown]),
        ];
        for (filters, expected) in cases {
            let mut fake = Fake::of_size(50);
            fake.filters = filters;
            let (found, requests) = probed(fake).await;
            let got = [
                found.id_after,
                found.id_range,
                found.modified_filter,
                found.modified_and_id,
            ];
            assert_eq!(got, expected, "{filters:?}");
            assert!(requests <= 7);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn orders_and_twins_are_seen_in_the_first_rows() {
        let numbers: Vec<String> = (1..30).map(|n| n.to_string()).collect();
        let mut fake = Fake::new(numbers.iter().map(String::as_str));
        fake.sorted = Sorted::Numbers;
        let (found, _) = probed(fake).await;
        assert!(found.order_unknown);
        assert_eq!(found.id_after, Obeyed::Unknown);
        assert_eq!(found.modified_filter, Obeyed::Obeyed);

        let mut fake = Fake::new(["Ab", "aB", "c"]);
        fake.sorted = Sorted::Lower;
        let (found, _) = probed(fake).await;
        assert!(found.ids_differ_in_case && !found.order_unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_concluded_from_nobody() {
        for people in [vec![], vec!["a"]] {
            let (found, _) = probed(Fake::new(people)).await;
            assert_eq!(
                (found.id_after, found.id_range),
                (Obeyed::Unknown, Obeyed::Unknown)
            );
            assert_eq!(found.inactive_shown, Obeyed::Ignored);
        }
        let mut fake = Fake::of_size(30);
        for (_, stamp) in &mut fake.people {
            *stamp = None;
        }
        let (found, _) = probed(fake).await;
        assert_eq!(
            (found.modified_filter, found.modified_and_id),
            (Obeyed::Unknown, Obeyed::Unknown)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_cannot_be_read_does_not_hinder() {
        let mut fake = Fake::of_size(50);
        let spoilt = fake.ids().into_iter().nth(3).unwrap();
        fake.poisoned.insert(spoilt, false);
        let (found, _) = probed(fake).await;
        assert_eq!(
            (found.id_after, found.modified_filter),
            (Obeyed::Obeyed, Obeyed::Obeyed)
        );
    }

    #[test]
    fn inactive_is_read_in_every_spelling() {
        let is_inactive = |raw: &str| {
            super::is_inactive(&Row {
                id: crate::model::ResourceId::new("a"),
                modified_at: None,
                raw: raw.to_owned().into(),
            })
        };
        assert!(is_inactive(r#"{"active":false}"#));
        assert!(is_inactive(r#"{"Active":"False"}"#));
        for raw in [
            r#"{"active":true}"#,
            r#"{"active":null}"#,
            "{}",
            "[]",
            r#"{"active":0}"#,
        ] {
            assert!(!is_inactive(raw), "{raw}");
        }
    }
}
