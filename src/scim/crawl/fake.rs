//! For tests: a directory in memory that answers as an instance would, and misbehaves by switches.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::model::{InstanceName, ResourceId, ResourceType, Row};
use crate::scim::client::{ListQuery, Listing};
use crate::scim::error::{Body, Error, ExchangeError, Fault, Refusal, What};
use crate::scim::script::{Reply, Sent, json, json_with};
use crate::scim::wire::ErrorForm;

/// How the instance puts ids, and compares them in filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scim) enum Sorted {
    Bytes,
    Lower,
    Upper,
    /// As numbers: an order that a crawl does not know.
    Numbers,
    /// It ignores `sortBy`; the order is stable.
    Not,
    /// A new order for every request (facts page, Q3).
    Scrambled,
}

/// What is wrong with the totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scim) enum Totals {
    Right,
    /// Always so many more or fewer.
    Off(i64),
    /// Another one with every request.
    Flapping,
    /// The rows of the page, as poor servers do.
    OfThePage,
    Huge,
}

/// Which conditions count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scim) enum Filters {
    Honoured,
    /// Every filter gives everybody.
    Ignored,
    /// Upper bounds on `id` are dropped in silence.
    OneSided,
    /// Every condition on `id` is dropped in silence.
    IdIgnored,
    /// Conditions are turned round.
    Reversed,
    /// Every filter gives nobody.
    Nobody,
    /// Every condition on `id` gives nobody.
    IdNobody,
    /// A condition on `id` is refused.
    IdRefused,
}

#[derive(Clone, Debug)]
pub(in crate::scim) struct Fake {
    /// Id and `meta.lastModified` in seconds, in the order of the table.
    pub(in crate::scim) people: Vec<(String, Option<i64>)>,
    pub(in crate::scim) sorted: Sorted,
    pub(in crate::scim) totals: Totals,
    pub(in crate::scim) filters: Filters,
    /// Never more rows than this, in silence.
    pub(in crate::scim) cap: Option<usize>,
    pub(in crate::scim) ignores_start: bool,
    /// A page past the end is the first page.
    pub(in crate::scim) repeats_first: bool,
    /// Counted, but taken out of the page after it was cut (facts page, section 13.4).
    pub(in crate::scim) hidden: BTreeSet<String>,
    /// Their bytes spoil the whole page; true if a reader can still make out the id.
    pub(in crate::scim) poisoned: BTreeMap<String, bool>,
    /// Pages of more than so many take too long.
    pub(in crate::scim) too_slow_above: Option<u32>,
    /// Who is not active.
    pub(in crate::scim) inactive: BTreeSet<String>,
    /// Says every row of a page twice.
    pub(in crate::scim) stutters: bool,
    pub(in crate::scim) now: i64,
    pub(in crate::scim) rng: fastrand::Rng,
    /// What was asked.
    pub(in crate::scim) asked: Vec<ListQuery>,
}

impl Fake {
    pub(in crate::scim) fn new<'a>(ids: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            people: (1000..)
                .zip(ids)
                .map(|(at, id)| (id.to_owned(), Some(at)))
                .collect(),
            sorted: Sorted::Bytes,
            totals: Totals::Right,
            filters: Filters::Honoured,
            cap: None,
            ignores_start: false,
            repeats_first: false,
            hidden: BTreeSet::new(),
            poisoned: BTreeMap::new(),
            too_slow_above: None,
            inactive: BTreeSet::new(),
            stutters: false,
            now: 100_000,
            rng: fastrand::Rng::with_seed(7),
            asked: Vec::new(),
        }
    }

    /// Ids as a ServiceNow instance makes them, spread over all hex digits.
    pub(in crate::scim) fn of_size(n: usize) -> Self {
        let ids: Vec<String> = (0..n)
            .map(|i| format!("{:08x}", i.wrapping_mul(0x9e37_79b1) as u32))
            .collect();
        Self::new(ids.iter().map(String::as_str))
    }

    pub(in crate::scim) fn ids(&self) -> BTreeSet<String> {
        self.people.iter().map(|(id, _)| id.clone()).collect()
    }

    pub(in crate::scim) fn list(&mut self, query: &ListQuery) -> Result<Listing, Error> {
        self.asked.push(query.clone());
        let conditions: Vec<&str> = query
            .filter
            .as_deref()
            .map_or(vec![], |f| f.split(" and ").collect());
        if self.filters == Filters::IdRefused && conditions.iter().any(|c| c.starts_with("id ")) {
            return Err(error(refused()));
        }
        let mut rows: Vec<(String, Option<i64>)> = (self.people.iter())
            .filter(|person| conditions.iter().all(|c| self.holds(c, person)))
            .cloned()
            .collect();
        match self.sorted {
            Sorted::Not => {}
            Sorted::Scrambled => self.rng.shuffle(&mut rows),
            sorted => rows.sort_by(|a, b| compare(sorted, &a.0, &b.0)),
        }
        let n = rows.len();
        let mut skip = usize::try_from(query.start_index.saturating_sub(1)).unwrap_or(usize::MAX);
        if self.ignores_start || (self.repeats_first && skip >= n) {
            skip = 0;
        }
        let count = (query.count as usize).min(self.cap.unwrap_or(usize::MAX));
        let mut page: Vec<_> = rows.into_iter().skip(skip).take(count).collect();
        page.retain(|(id, _)| !self.hidden.contains(id));
        if self.stutters {
            page = page
                .into_iter()
                .flat_map(|row| [row.clone(), row])
                .take(count)
                .collect();
        }
        if self.too_slow_above.is_some_and(|most| query.count > most) {
            return Err(error(Fault::Exchange(ExchangeError::TimedOut(
                Duration::from_secs(60),
            ))));
        }
        if let Some((id, _)) = page.iter().find(|(id, _)| self.poisoned.contains_key(id)) {
            let shown = if self.poisoned[id] { id.as_str() } else { "" };
            return Err(unreadable(shown));
        }
        let total = match self.totals {
            Totals::Right => n as u64,
            Totals::Off(by) => (n as i64 + by).max(0) as u64,
            Totals::Flapping => n as u64 + self.rng.u64(0..3),
            Totals::OfThePage => page.len() as u64,
            Totals::Huge => 1_000_000_000_000,
        };
        Ok(Listing {
            total,
            rows: page.into_iter().map(|(id, at)| row(&id, at)).collect(),
            rejects: Vec::new(),
            date: Some(time(self.now)),
        })
    }

    /// The same over the wire.
    pub(in crate::scim) fn serve(&mut self, sent: &Sent) -> Reply {
        let asked: BTreeMap<_, _> = sent.url.query_pairs().into_owned().collect();
        let path = sent.url.path();
        if let Some(id) = path.strip_prefix("/api/now/scim/Users/") {
            return match self.people.iter().find(|(known, _)| known == id) {
                Some((id, at)) => json(200, &self.resource(id, *at)),
                None => json(404, &scim_error(404, "User not found")),
            };
        }
        assert_eq!(path, "/api/now/scim/Users");
        assert_eq!(
            (asked["sortBy"].as_str(), asked["sortOrder"].as_str()),
            ("id", "ascending")
        );
        let query = ListQuery {
            filter: asked.get("filter").cloned(),
            start_index: asked.get("startIndex").map_or(1, |n| n.parse().unwrap()),
            count: asked["count"].parse().unwrap(),
        };
        let date = time(self.now)
            .strftime("%a, %d %b %Y %H:%M:%S GMT")
            .to_string();
        match self.list(&query) {
            Ok(listing) => {
                let rows = listing.rows.iter().map(|row| {
                    let at = row.modified_at.map(|at| at.as_second() - ZERO);
                    self.resource(row.id.as_str(), at)
                });
                let rows: Vec<String> = rows.collect();
                let body = format!(
                    r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":{},"Resources":[{}]}}"#,
                    listing.total,
                    rows.join(",")
                );
                json_with(200, &[("date", &date)], &body)
            }
            Err(error) => match error.fault() {
                Fault::Unreadable { body, .. } => json(200, std::str::from_utf8(&body.0).unwrap()),
                Fault::Status(_) => json(400, &scim_error(400, "Invalid filter")),
                _ => Reply::Fail(ExchangeError::TimedOut(Duration::from_secs(60))),
            },
        }
    }

    fn resource(&self, id: &str, at: Option<i64>) -> String {
        resource(id, at, !self.inactive.contains(id))
    }

    fn holds(&self, condition: &str, person: &(String, Option<i64>)) -> bool {
        let mut parts = condition.splitn(3, ' ');
        let (Some(path), Some(op), Some(value)) = (parts.next(), parts.next(), parts.next()) else {
            panic!("not a condition: {condition}");
        };
        let value: Value = serde_json::from_str(value).unwrap();
        let ordering = match path {
            "id" => compare(self.sorted, &person.0, value.as_str().unwrap()),
            "active" => value
                .as_bool()
                .unwrap()
                .cmp(&!self.inactive.contains(&person.0)),
            "meta.lastModified" => {
                let value: Timestamp = value.as_str().unwrap().parse().unwrap();
                match person.1 {
                    Some(at) => time(at).cmp(&value),
                    None => return false,
                }
            }
            _ => panic!("not filterable: {condition}"),
        };
        let holds = match op {
            "eq" => ordering.is_eq(),
            "gt" => ordering.is_gt(),
            "ge" => ordering.is_ge(),
            "lt" => ordering.is_lt(),
            _ => panic!("not an operator: {condition}"),
        };
        match self.filters {
            Filters::Honoured | Filters::IdRefused => holds,
            Filters::Ignored => true,
            Filters::OneSided => holds || op == "lt",
            Filters::IdIgnored => holds || path == "id",
            Filters::IdNobody => holds && path != "id",
            Filters::Reversed => !holds,
            Filters::Nobody => false,
        }
    }
}

fn compare(sorted: Sorted, a: &str, b: &str) -> Ordering {
    match sorted {
        Sorted::Lower => a.to_ascii_lowercase().cmp(&b.to_ascii_lowercase()),
        Sorted::Upper => a.to_ascii_uppercase().cmp(&b.to_ascii_uppercase()),
        Sorted::Numbers => (a.len(), a).cmp(&(b.len(), b)),
        Sorted::Bytes | Sorted::Not | Sorted::Scrambled => a.cmp(b),
    }
}

/// Where the fake's seconds begin.
const ZERO: i64 = 1_700_000_000;

pub(in crate::scim) fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(ZERO + seconds).unwrap()
}

/// Nobody was modified after he was created.
fn resource(id: &str, at: Option<i64>, active: bool) -> String {
    let meta = at.map_or_else(String::new, |at| {
        format!(
            r#","meta":{{"created":"{0}","lastModified":"{0}"}}"#,
            time(at)
        )
    });
    format!(r#"{{"id":"{id}"{meta},"active":{active}}}"#)
}

fn scim_error(status: u16, detail: &str) -> String {
    format!(
        r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"{status}","detail":"{detail}"}}"#
    )
}

pub(in crate::scim) fn row(id: &str, at: Option<i64>) -> Row {
    Row {
        id: ResourceId::new(id),
        modified_at: at.map(time),
        raw: resource(id, at, true).into(),
    }
}

fn error(fault: Fault) -> Error {
    let instance = InstanceName::parse("fake").unwrap();
    Error::new(instance, What::List(ResourceType::User), 1, fault)
}

fn refused() -> Fault {
    Fault::Status(Refusal {
        status: http::StatusCode::BAD_REQUEST,
        form: Some(ErrorForm::Scim),
        code: Some("invalidFilter".to_owned()),
        text: "Invalid filter".to_owned(),
        html: false,
        second_factor: false,
    })
}

fn unreadable(id: &str) -> Error {
    let start = r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":1,"Resources":[{"#;
    let row = if id.is_empty() {
        "\"id\":\"\u{1}\"".to_owned()
    } else {
        format!("\"id\":\"{id}\",\"title\":\"\u{1}\"")
    };
    let body = format!("{start}{row}}}]}}");
    error(Fault::Unreadable {
        reason: serde_json::from_str::<Value>(&body).unwrap_err(),
        body: Body(body.into()),
    })
}
