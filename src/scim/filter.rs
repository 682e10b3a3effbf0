//! Filters as they are sent, and the check of rows against them: an instance may drop a condition
//! without a word (facts page, section 5.3).

use jiff::Timestamp;

use crate::model::Row;

/// A text as a filter's value: a JSON string (RFC 7644 section 3.4.2.2). The one place that quotes.
#[must_use]
pub fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `id` comes after this one.
pub(super) fn id_after(id: &str) -> String {
    format!("id gt {}", literal(id))
}

/// `id` is this one or comes after it.
pub(super) fn id_from(id: &str) -> String {
    format!("id ge {}", literal(id))
}

/// `id` comes before this one.
pub(super) fn id_before(id: &str) -> String {
    format!("id lt {}", literal(id))
}

/// Last modified at this time or later. Whole seconds in UTC is the only form that is known to be
/// accepted (facts page, section 5.2); a fraction is cut off, which asks for more, never for less.
pub(super) fn modified_from(since: Timestamp) -> String {
    format!(
        "meta.lastModified ge \"{}\"",
        since.strftime("%Y-%m-%dT%H:%M:%SZ")
    )
}

/// All of the conditions; `None` if there is none.
pub(super) fn all(conditions: impl IntoIterator<Item = Option<String>>) -> Option<String> {
    let conditions: Vec<String> = conditions.into_iter().flatten().collect();
    (!conditions.is_empty()).then(|| conditions.join(" and "))
}

/// Whether a row obeys [`modified_from`]; `None` when its stamp cannot tell.
pub(super) fn obeys_modified_from(row: &Row, since: Timestamp) -> Option<bool> {
    row.modified_at
        .map(|stamp| stamp.as_second() >= since.as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ResourceId;

    #[test]
    fn filters_read_as_the_facts_page_says() {
        let since = "2026-03-01T08:00:00.75Z".parse().unwrap();
        let filter = all([
            Some(modified_from(since)),
            None,
            Some(id_after(r#"a" or id pr or id eq "\"#)),
        ]);
        assert_eq!(
            filter.unwrap(),
            r#"meta.lastModified ge "2026-03-01T08:00:00Z" and id gt "a\" or id pr or id eq \"\\""#
        );
        assert_eq!(all([None, None]), None);
    }

    #[test]
    fn a_row_is_held_against_what_was_asked_for() {
        let since = "2026-03-01T08:00:00.75Z".parse().unwrap();
        let row = |stamp: Option<&str>| Row {
            id: ResourceId::new("a"),
            modified_at: stamp.map(|s| s.parse().unwrap()),
            raw: "{}".into(),
        };
        let obeys = |stamp| obeys_modified_from(&row(stamp), since);
        assert_eq!(obeys(Some("2026-03-01T08:00:00Z")), Some(true));
        assert_eq!(obeys(Some("2026-03-01T07:59:59.999Z")), Some(false));
        assert_eq!(obeys(None), None);
    }

    proptest! {
        #[test]
        fn a_literal_reads_back_as_the_text(text in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&literal(&text)).unwrap(), text);
        }
    }
}
