//! List requests: their parameters, and the page they get (facts page, sections 4, 6 and 7).

use std::cmp::Ordering;
use std::sync::Arc;

use super::column::{Attribute, Column};
use super::directory::Directory;
use super::error::Refusal;
use super::filter::Filter;
use super::projection::Projection;
use super::row::User;
use super::table::{Field, Record};

/// Without `count` a page has so many rows (Q1).
const DEFAULT_COUNT: usize = 10;
/// More are refused, not trimmed (Q2).
const MAX_COUNT: i64 = 500;

/// The parameters of one list request.
#[derive(Clone, Debug)]
pub(super) struct ListRequest {
    /// What to show of it.
    pub filter: Option<Filter>,
    /// In which order.
    pub sort: Option<Sort>,
    /// The first row, counted from 1.
    pub start_index: usize,
    /// The most rows.
    pub count: usize,
    /// Which members.
    pub projection: Projection,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    /// The one key.
    pub by: Attribute,
    /// Whether the last comes first.
    pub descending: bool,
}

/// Query parameters as they arrived, decoded.
#[derive(Clone, Debug, Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the part of a URL behind `?`.
    #[must_use]
    pub(super) fn parse(query: Option<&str>) -> Self {
        Self(
            url::form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// The first parameter of this name. Unknown names are ignored (RFC 7644 section 3.4.2).
    #[must_use]
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Which members of a resource to show.
    ///
    /// # Errors
    /// 400 when both parameters are given.
    pub(super) fn projection(&self) -> Result<Projection, Refusal> {
        Projection::parse(self.get("attributes"), self.get("excludedAttributes"))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        self.get(name)
            .map(|text| {
                text.trim().parse().map_err(|_| {
                    Refusal::invalid_value(format!("The parameter {name} must be a number"))
                })
            })
            .transpose()
    }
}

impl ListRequest {
    /// Reads the parameters of a list of rows of type `T`.
    ///
    /// # Errors
    /// 400 for what section 4 refuses.
    pub(super) fn parse<T: Record>(parameters: &Parameters) -> Result<Self, Refusal> {
        let projection = parameters.projection()?;
        let count = match parameters.number("count")? {
            None => DEFAULT_COUNT,
            Some(more) if more > MAX_COUNT => {
                return Err(Refusal::invalid_value(format!(
                    "The parameter count must not be greater than {MAX_COUNT}"
                )));
            }
            Some(count) => usize::try_from(count).unwrap_or(0),
        };
        let start_index = parameters
            .number("startIndex")?
            .map_or(1, |start| usize::try_from(start).unwrap_or(0).max(1));
        let filter = parameters
            .get("filter")
            .map(Filter::parse::<T>)
            .transpose()?;
        Ok(Self {
            filter,
            sort: sort::<T>(parameters)?,
            start_index,
            count,
            projection,
        })
    }
}

/// Both or neither (section 6).
fn sort<T: Record>(parameters: &Parameters) -> Result<Option<Sort>, Refusal> {
    let (by, order) = match (parameters.get("sortBy"), parameters.get("sortOrder")) {
        (None, None) => return Ok(None),
        (Some(by), Some(order)) => (by, order),
        _ => {
            return Err(Refusal::invalid_value(
                "The parameters sortBy and sortOrder must be used together",
            ));
        }
    };
    let descending = match order.to_ascii_lowercase().as_str() {
        "ascending" => false,
        "descending" => true,
        _ => {
            return Err(Refusal::invalid_value(
                "The parameter sortOrder must be ascending or descending",
            ));
        }
    };
    let by = T::sortable(by)
        .ok_or_else(|| Refusal::invalid_value(format!("Attribute {by} cannot be used to sort")))?;
    Ok(Some(Sort { by, descending }))
}

/// The rows of all pages together: what a list request finds.
#[derive(Debug)]
pub(super) enum Found<'a, T> {
    /// A run of the table.
    Run(&'a [Arc<T>]),
    /// Picked rows.
    Picked(Vec<&'a Arc<T>>),
}

impl<'a, T> Found<'a, T> {
    /// How many.
    #[must_use]
    pub(super) fn total(&self) -> usize {
        match self {
            Self::Run(rows) => rows.len(),
            Self::Picked(rows) => rows.len(),
        }
    }

    /// The rows from `start_index` on, at most `count`.
    #[must_use]
    pub(super) fn page(&self, start_index: usize, count: usize) -> Vec<&'a Arc<T>> {
        let start = (start_index - 1).min(self.total());
        let end = start.saturating_add(count).min(self.total());
        match self {
            Self::Run(rows) => rows[start..end].iter().collect(),
            Self::Picked(rows) => rows[start..end].to_vec(),
        }
    }
}

/// Finds what a request asks for in `rows`, which ascend by key; `visible` says which of them the
/// account can see at all. A request by key alone costs no more than its page.
pub(super) fn find<'a, T: Record>(
    rows: &'a [Arc<T>],
    directory: &Directory,
    filter: Option<&Filter>,
    sort: Option<Sort>,
    visible: Option<&dyn Fn(&T) -> bool>,
) -> Found<'a, T> {
    let (bounds, more) = filter.map(Filter::key_bounds).unwrap_or_default();
    let run = &rows[bounds.range(rows)];
    let by_key = sort.is_none_or(|sort| {
        sort == Sort {
            by: Attribute::Id,
            descending: false,
        }
    });
    if by_key && !more && visible.is_none() {
        return Found::Run(run);
    }
    let filter = filter.filter(|_| more);
    let mut picked: Vec<&Arc<T>> = run
        .iter()
        .filter(|row| visible.is_none_or(|visible| visible(row)))
        .filter(|row| filter.is_none_or(|filter| filter.matches(row.as_ref(), directory)))
        .collect();
    if let Some(sort) = sort {
        if sort.by != Attribute::Id {
            picked.sort_by_cached_key(|row| Key::of(&row.field(sort.by, directory)));
        }
        if sort.descending {
            picked.reverse();
        }
    }
    Found::Picked(picked)
}

/// Finds users. `externalId eq "…"` falls back to the user name, then to the mail address (facts
/// page, section 5.2).
pub(super) fn find_users<'a>(
    directory: &'a Directory,
    filter: Option<&Filter>,
    sort: Option<Sort>,
    visible: Option<&dyn Fn(&User) -> bool>,
) -> Found<'a, User> {
    let rows = directory.users();
    let found = find(rows, directory, filter, sort, visible);
    let Some(value) = filter.and_then(Filter::lone_external_id) else {
        return found;
    };
    [Column::UserName, Column::Email]
        .into_iter()
        .fold(found, |found, column| {
            if found.total() > 0 {
                return found;
            }
            let instead = Filter::column_is(column, value);
            find(rows, directory, Some(&instead), sort, visible)
        })
}

/// A sort key: missing values first when ascending, text without regard to case (section 6).
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Missing,
    Flag(bool),
    Time(jiff::Timestamp),
    Text(String),
}

impl Key {
    fn of(field: &Field<'_>) -> Self {
        match field {
            Field::Missing => Self::Missing,
            Field::Flag(flag) => Self::Flag(*flag),
            Field::Time(time) => Self::Time(*time),
            Field::Text(text) => Self::Text(text.to_lowercase()),
        }
    }
}

/// Whether two rows tie under a sort, so that their order is anybody's guess (Q4).
#[must_use]
pub(super) fn tie<T: Record>(a: &T, b: &T, sort: Option<Sort>, directory: &Directory) -> bool {
    sort.is_some_and(|sort| {
        let key = |row: &T| Key::of(&row.field(sort.by, directory));
        key(a).cmp(&key(b)) == Ordering::Equal
    })
}

#[cfg(test)]
mod tests {
    use super::super::testbed::Testbed;
    use super::super::{Column, Options, Values};

    #[test]
    fn pages_follow_the_parameters_of_section_4() {
        let bed = Testbed::of(45);
        let page = bed.list("");
        assert_eq!((page.total(), page.rows().len()), (45, 10));
        assert_eq!(page.json["startIndex"], 1);
        assert_eq!(page.json["itemsPerPage"], 10);

        let all = bed.list("count=500");
        assert!(all.ids().is_sorted());
        let middle = bed.list("startIndex=41&count=20&unknown=1");
        assert_eq!(middle.ids(), all.ids()[40..]);
        assert_eq!(middle.json["itemsPerPage"], 5);

        for (query, rows, start) in [
            ("count=0", 0, 1),
            ("count=-3", 0, 1),
            ("startIndex=-5&count=2", 2, 1),
            ("startIndex=46&count=2", 0, 46),
            ("startIndex=999999999999&count=2", 0, 999_999_999_999_u64),
        ] {
            let page = bed.list(query);
            assert_eq!((page.total(), page.rows().len()), (45, rows), "{query}");
            assert_eq!(page.json["startIndex"], start, "{query}");
            assert!(page.json["Resources"].is_array(), "{query}");
        }
        for refused in [
            "count=501",
            "count=ten",
            "startIndex=x",
            "sortBy=id",
            "sortOrder=ascending",
            "sortBy=id&sortOrder=up",
            "sortBy=externalId&sortOrder=ascending",
            "sortBy=userType&sortOrder=ascending",
            "attributes=id&excludedAttributes=meta",
            "filter=userName is 1",
        ] {
            let answered = bed.get(&format!("/Users?{refused}"));
            assert_eq!(answered.status, 400, "{refused}");
            assert_eq!(answered.json["status"], "400", "{refused}");
        }
    }

    #[test]
    fn missing_values_come_first_and_case_does_not_count() {
        let bed = Testbed::of(0);
        for (id, title) in [("1", "beta"), ("2", ""), ("3", "Alpha"), ("4", "Gamma")] {
            let values = Values::new().with(Column::Title, title);
            bed.sandbox.create_as(id, &values);
        }
        let up = bed.list("sortBy=title&sortOrder=ascending");
        assert_eq!(up.ids(), ["2", "3", "1", "4"]);
        let down = bed.list("sortBy=title&sortOrder=descending");
        assert_eq!(down.ids(), ["4", "1", "3", "2"]);
    }

    #[test]
    fn keys_are_in_one_order_without_regard_to_case() {
        let bed = Testbed::of(0);
        for id in ["b", "A", "a", "C", "_"] {
            bed.sandbox.create_as(id, &Values::new());
        }
        let order = ["_", "A", "a", "b", "C"];
        assert_eq!(bed.list("sortBy=id&sortOrder=ascending").ids(), order);
        let mut down = order;
        down.reverse();
        assert_eq!(bed.list("sortBy=id&sortOrder=descending").ids(), down);
        for (filter, ids) in [
            (r#"id gt "a""#, &["b", "C"][..]),
            (r#"id ge "A" and id lt "c""#, &["A", "a", "b"]),
            (r#"id eq "A""#, &["A", "a"]),
            (r#"id le "a" and id gt "_""#, &["A", "a"]),
            (r#"id gt "b" and id gt "_""#, &["C"]),
            (r#"id ne "a""#, &["_", "b", "C"]),
        ] {
            assert_eq!(bed.list(&format!("filter={filter}")).ids(), ids, "{filter}");
        }
        assert_eq!(bed.get("/Users/A").json["id"], "A");
        assert_eq!(bed.get("/Users/B").status, 404);
    }

    #[test]
    fn external_ids_fall_back_to_user_names_and_addresses() {
        let bed = Testbed::of(0);
        let values = |external: &str, name: &str, mail: &str| {
            Values::new()
                .with(Column::ExternalId, external)
                .with(Column::UserName, name)
                .with(Column::Email, mail)
        };
        bed.sandbox.create_as("1", &values("x", "y", ""));
        bed.sandbox.create_as("2", &values("", "x", "z"));
        for (value, ids) in [("X", &["1"][..]), ("y", &["1"]), ("z", &["2"]), ("w", &[])] {
            let found = bed.list(&format!(r#"filter=externalId eq "{value}""#));
            assert_eq!(found.ids(), ids, "{value}");
        }
    }

    #[test]
    fn the_four_tables_of_names_can_be_read() {
        let bed = Testbed::with(Options {
            users: 100,
            ..Options::default()
        });
        for table in ["Companies", "CostCenters", "Departments", "Locations"] {
            let list = bed.get(&format!("/{table}?count=500"));
            assert!(list.total() > 0, "{table}");
            let first = &list.rows()[0];
            let id = first["id"].as_str().unwrap();
            assert_eq!(bed.get(&format!("/{table}/{id}")).json, *first);
            let name = first["name"].as_str().unwrap();
            for attribute in ["name", "displayName"] {
                let filter = format!(
                    r#"/{table}?filter={attribute} eq "{}" and meta.lastModified gt "2001-01-01T00:00:00Z""#,
                    name.replace('&', "%26")
                );
                assert!(bed.get(&filter).ids().contains(&id), "{filter}");
            }
            let write = bed.write(http::Method::POST, &format!("/{table}"), first);
            assert_eq!(write.status, 405);
        }
    }
}
