//! What a SCIM server says of its users, and in what it may be odd.

use jiff::Timestamp;
use serde_json::Value;

use super::directory::Directory;
use super::server::{Answer, Request};

/// What becomes of one kind of condition in a filter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    Honoured,
    /// 400 `invalidFilter`.
    Refused,
    /// Everybody matches.
    Ignored,
    /// Nobody matches.
    Nobody,
    /// Exactly the others match.
    Reversed,
}

/// In what a server is odd. [`WELL_BEHAVED`] in nothing.
#[derive(Clone, Copy)]
pub(crate) struct Odd {
    /// By what ids are sorted, compared and found.
    pub(crate) key: fn(&str) -> String,
    pub(crate) id_filter: Filter,
    pub(crate) modified_filter: Filter,
    /// Who may be seen in lists at all; the others are not counted.
    pub(crate) listed: fn(&Value) -> bool,
    /// `startIndex` as it is understood.
    pub(crate) start: fn(usize, &Request) -> usize,
    /// `count` as it is understood.
    pub(crate) count: fn(usize) -> usize,
    /// What becomes of a page after it was cut.
    pub(crate) rows: fn(&mut Vec<Value>, &Request),
    /// `totalResults`.
    pub(crate) total: fn(usize, &Request) -> usize,
    /// How a user looks.
    pub(crate) user: fn(&mut Value),
    /// How a user's text looks.
    pub(crate) text: fn(&mut Vec<u8>, &Value, &Request),
    /// What becomes of an answer about many.
    pub(crate) list: fn(&mut Answer, &Request),
    /// What becomes of an answer about one.
    pub(crate) one: fn(&mut Answer, &Request),
}

pub(crate) const WELL_BEHAVED: Odd = Odd {
    key: |id| id.to_owned(),
    id_filter: Filter::Honoured,
    modified_filter: Filter::Honoured,
    listed: |_| true,
    start: |asked, _| asked,
    count: |asked| asked,
    rows: |_, _| {},
    total: |honest, _| honest,
    user: |_| {},
    text: |_, _, _| {},
    list: |_, _| {},
    one: |_, _| {},
};

/// What requests are answered from.
pub(crate) struct State {
    pub(crate) directory: Directory,
    pub(crate) odd: Odd,
    /// The targets of all requests so far.
    pub(crate) asked: Vec<String>,
    pub(crate) n_by_id: usize,
    /// Which answers are made but not sent for now.
    pub(crate) held_back: Option<fn(&Request) -> bool>,
    pub(crate) n_held_back: usize,
    pub(crate) n_at_once: usize,
    pub(crate) most_at_once: usize,
}

impl State {
    pub(crate) fn one(&self, id: &str, request: &Request) -> Answer {
        match self.directory.get(id) {
            Some(user) => Answer::bytes(200, JSON, self.render(user, request)),
            None => Answer::scim_error(404, &format!("User not found {id}")),
        }
    }

    pub(crate) fn list(&self, request: &Request) -> Answer {
        let conditions = match request.query.get("filter").map(|text| conditions(text)) {
            None => Vec::new(),
            Some(Some(conditions)) => conditions,
            Some(None) => return Answer::scim_error(400, "Invalid filter"),
        };
        let refused = |condition: &Condition| self.filter(condition) == Filter::Refused;
        if conditions.iter().any(refused) {
            return Answer::scim_error(400, "Invalid filter");
        }
        let mut found: Vec<(&String, &Value)> = self
            .directory
            .users()
            .filter(|(_, user)| (self.odd.listed)(user))
            .filter(|(id, user)| {
                conditions
                    .iter()
                    .all(|condition| self.matches(condition, id, user))
            })
            .collect();
        found.sort_by_cached_key(|(id, _)| (self.odd.key)(id));
        let start = (self.odd.start)(request.start_index(), request).max(1);
        let count = (self.odd.count)(request.count());
        let mut rows: Vec<Value> = found
            .iter()
            .skip(start - 1)
            .take(count)
            .map(|(_, user)| (*user).clone())
            .collect();
        (self.odd.rows)(&mut rows, request);
        let texts: Vec<Vec<u8>> = rows.iter().map(|user| self.render(user, request)).collect();
        let mut body = format!(
            "{{\"schemas\":[\"urn:ietf:params:scim:api:messages:2.0:ListResponse\"],\"totalResults\":{},\"Resources\":[",
            (self.odd.total)(found.len(), request)
        )
        .into_bytes();
        body.extend(texts.join(&b','));
        body.extend(format!("],\"startIndex\":{start},\"itemsPerPage\":{}}}", rows.len()).bytes());
        Answer::bytes(200, JSON, body)
    }

    fn render(&self, user: &Value, request: &Request) -> Vec<u8> {
        let mut user = user.clone();
        (self.odd.user)(&mut user);
        let mut text = user.to_string().into_bytes();
        (self.odd.text)(&mut text, &user, request);
        text
    }

    fn filter(&self, condition: &Condition) -> Filter {
        match condition.attribute.as_str() {
            "id" => self.odd.id_filter,
            "meta.lastModified" => self.odd.modified_filter,
            _ => Filter::Honoured,
        }
    }

    fn matches(&self, condition: &Condition, id: &str, user: &Value) -> bool {
        let mut shown = user.clone();
        (self.odd.user)(&mut shown);
        let honest = match condition.attribute.as_str() {
            "id" => condition.holds(&(self.odd.key)(id), &(self.odd.key)(&condition.value)),
            "meta.lastModified" => {
                let time = |text: &str| text.parse::<Timestamp>().ok();
                shown["meta"]["lastModified"]
                    .as_str()
                    .and_then(time)
                    .zip(time(&condition.value))
                    .is_some_and(|(stamp, wanted)| condition.holds(&stamp, &wanted))
            }
            "active" => condition.holds(&shown["active"].to_string(), &condition.value),
            name => shown[name]
                .as_str()
                .is_some_and(|text| condition.holds(text, condition.value.as_str())),
        };
        match self.filter(condition) {
            Filter::Honoured | Filter::Refused => honest,
            Filter::Ignored => true,
            Filter::Nobody => false,
            Filter::Reversed => !honest,
        }
    }
}

const JSON: &str = "application/json;charset=UTF-8";

/// `id gt "3f"`, one of several joined by `and`.
struct Condition {
    attribute: String,
    operator: String,
    value: String,
}

impl Condition {
    fn holds<T: PartialOrd + ?Sized>(&self, left: &T, right: &T) -> bool {
        match self.operator.as_str() {
            "eq" => left == right,
            "ne" => left != right,
            "gt" => left > right,
            "ge" => left >= right,
            "lt" => left < right,
            _ => left <= right,
        }
    }
}

/// Reads what ServiceNow documents of the grammar: comparisons joined by `and`.
fn conditions(filter: &str) -> Option<Vec<Condition>> {
    let mut conditions = Vec::new();
    let mut rest = filter.trim();
    loop {
        let (attribute, after) = rest.split_once(' ')?;
        let (operator, after) = after.trim_start().split_once(' ')?;
        let operator = operator.to_ascii_lowercase();
        if !["eq", "ne", "gt", "ge", "lt", "le"].contains(&operator.as_str()) {
            return None;
        }
        // A value is a JSON literal.
        let mut literals = serde_json::Deserializer::from_str(after).into_iter::<Value>();
        let value = match literals.next()?.ok()? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        rest = after[literals.byte_offset()..].trim_start();
        conditions.push(Condition {
            attribute: attribute.to_owned(),
            operator,
            value,
        });
        if rest.is_empty() {
            return Some(conditions);
        }
        rest = rest.strip_prefix("and ")?.trim_start();
    }
}
