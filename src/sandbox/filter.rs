//! The filters that ServiceNow's SCIM interface accepts (facts page, section 5): comparisons joined
//! by `and`, and the fixed bracket forms. `or`, `not` and parentheses are refused, and so is what is
//! known but cannot be filtered by.

use std::cmp::Ordering;

use jiff::Timestamp;

use super::column::{Attribute, Column, multi_valued};
use super::directory::Directory;
use super::error::Refusal;
use super::table::{Field, KeyBounds, Record};

/// A filter: every comparison must hold, or not all of them if it is reversed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filter {
    comparisons: Vec<Comparison>,
    is_reversed: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    attribute: Attribute,
    operator: Operator,
    value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Eq,
    Ne,
    Co,
    Sw,
    Ew,
    Pr,
    Gt,
    Ge,
    Lt,
    Le,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// In lower case: text is compared without regard to case.
    Text(String),
    Flag(bool),
    Time(Timestamp),
    None,
}

impl Filter {
    /// Reads a filter for rows of type `T`.
    ///
    /// # Errors
    /// 400 `invalidFilter` for all that ServiceNow is not known to accept.
    pub(super) fn parse<T: Record>(text: &str) -> Result<Self, Refusal> {
        let mut reader = Reader { text, at: 0 };
        let mut comparisons = Vec::new();
        loop {
            comparisons.push(reader.condition::<T>()?);
            match reader.word() {
                None => {
                    return Ok(Self {
                        comparisons,
                        is_reversed: false,
                    });
                }
                Some((word, _)) if word.eq_ignore_ascii_case("and") => {}
                Some((word, at)) => return Err(unexpected(word, reader.position(at))),
            }
        }
    }

    /// Whether a row meets every condition.
    pub(super) fn matches<T: Record>(&self, row: &T, directory: &Directory) -> bool {
        let all = self
            .comparisons
            .iter()
            .all(|one| one.matches(&row.field(one.attribute, directory)));
        all != self.is_reversed
    }

    /// The bounds that it sets on `id`, and whether it says anything else.
    #[must_use]
    pub(super) fn key_bounds(&self) -> (KeyBounds, bool) {
        let mut bounds = KeyBounds::default();
        if self.is_reversed {
            return (bounds, true);
        }
        let mut more = false;
        for one in &self.comparisons {
            let (Attribute::Id, Value::Text(text)) = (one.attribute, &one.value) else {
                more = true;
                continue;
            };
            match one.operator {
                Operator::Gt if bounds.low.is_none() => bounds.low = Some((text.clone(), false)),
                Operator::Ge if bounds.low.is_none() => bounds.low = Some((text.clone(), true)),
                Operator::Lt if bounds.high.is_none() => bounds.high = Some((text.clone(), false)),
                Operator::Le if bounds.high.is_none() => bounds.high = Some((text.clone(), true)),
                Operator::Eq if bounds == KeyBounds::default() => {
                    bounds.low = Some((text.clone(), true));
                    bounds.high = Some((text.clone(), true));
                }
                _ => more = true,
            }
        }
        (bounds, more)
    }

    /// The value of a lone `externalId eq "…"`, in lower case: such a filter falls back to the user
    /// name and then to the mail address (facts page, section 5.2).
    #[must_use]
    pub(super) fn lone_external_id(&self) -> Option<&str> {
        match self.comparisons.as_slice() {
            _ if self.is_reversed => None,
            [
                Comparison {
                    attribute: Attribute::Plain(Column::ExternalId),
                    operator: Operator::Eq,
                    value: Value::Text(text),
                },
            ] => Some(text),
            _ => None,
        }
    }

    /// The filter without its conditions on an attribute.
    #[must_use]
    pub(super) fn without(mut self, attribute: Option<Attribute>) -> Self {
        self.comparisons
            .retain(|one| Some(one.attribute) != attribute);
        self
    }

    /// The filter that finds everybody else.
    #[must_use]
    pub(super) fn reversed(mut self) -> Self {
        self.is_reversed = !self.is_reversed;
        self
    }

    /// `column eq "…"`, with the value in lower case.
    #[must_use]
    pub(super) fn column_is(column: Column, value: &str) -> Self {
        Self {
            comparisons: vec![Comparison {
                attribute: Attribute::Plain(column),
                operator: Operator::Eq,
                value: Value::Text(value.to_owned()),
            }],
            is_reversed: false,
        }
    }
}

impl Comparison {
    fn matches(&self, field: &Field<'_>) -> bool {
        match (field, &self.value) {
            (Field::Missing, _) => self.operator == Operator::Ne,
            (_, Value::None) => self.operator == Operator::Pr,
            (Field::Text(text), Value::Text(value)) => {
                let text = fold(self.attribute, text);
                match self.operator {
                    Operator::Co => text.contains(value.as_str()),
                    Operator::Sw => text.starts_with(value.as_str()),
                    Operator::Ew => text.ends_with(value.as_str()),
                    other => other.accepts(text.as_str().cmp(value)),
                }
            }
            (Field::Flag(flag), Value::Flag(value)) => self.operator.accepts(flag.cmp(value)),
            (Field::Time(time), Value::Time(value)) => self.operator.accepts(time.cmp(value)),
            _ => false,
        }
    }
}

impl Operator {
    fn parse(word: &str) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_str() {
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "co" => Self::Co,
            "sw" => Self::Sw,
            "ew" => Self::Ew,
            "pr" => Self::Pr,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "lt" => Self::Lt,
            "le" => Self::Le,
            _ => return None,
        })
    }

    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Eq => order.is_eq(),
            Self::Ne => order.is_ne(),
            Self::Gt => order.is_gt(),
            Self::Ge => order.is_ge(),
            Self::Lt => order.is_lt(),
            Self::Le => order.is_le(),
            Self::Co | Self::Sw | Self::Ew | Self::Pr => false,
        }
    }

    fn is_order(self) -> bool {
        matches!(self, Self::Gt | Self::Ge | Self::Lt | Self::Le)
    }

    fn is_part(self) -> bool {
        matches!(self, Self::Co | Self::Sw | Self::Ew)
    }
}

/// Reads a filter from left to right. Positions in messages count characters from 0.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn condition<T: Record>(&mut self) -> Result<Comparison, Refusal> {
        let (path, at) = self.word().ok_or_else(ended)?;
        if let Some((attribute, _)) = path.split_once('[') {
            self.at = at + attribute.len() + 1;
            return self.brackets(attribute, at);
        }
        if !is_path(path) {
            let position = self.position(at);
            return Err(Refusal::invalid_filter(format!(
                "Attribute path expected at position {position}"
            )));
        }
        let attribute = T::filterable(path).ok_or_else(|| {
            Refusal::invalid_filter(format!("Attribute {path} cannot be used in a filter"))
        })?;
        let operator = self.operator()?;
        if operator == Operator::Pr {
            return Self::checked(path, attribute, operator, Value::None);
        }
        let value = self.value(attribute)?;
        Self::checked(path, attribute, operator, value)
    }

    /// `emails[type eq "work" and value eq "…"]`, the only shape there is (section 5.2).
    fn brackets(&mut self, attribute: &str, at: usize) -> Result<Comparison, Refusal> {
        let not_offered = || {
            Refusal::invalid_filter(format!(
                "Value filter on {attribute} is not supported in this form"
            ))
        };
        let kind = self.inner("type")?.ok_or_else(not_offered)?.1;
        if self.closes()? {
            return Err(not_offered());
        }
        match self.word() {
            Some((word, _)) if word.eq_ignore_ascii_case("and") => {}
            Some((word, at)) => return Err(unexpected(word, self.position(at))),
            None => return Err(ended()),
        }
        let (sub, value) = self.inner("")?.ok_or_else(not_offered)?;
        if !self.closes()? {
            let next = self.rest().chars().next();
            return Err(next.map_or_else(ended, |c| {
                unexpected(&c.to_string(), self.position(self.at))
            }));
        }
        let column = multi_valued(attribute, &kind, &sub).ok_or_else(|| {
            let position = self.position(at);
            Refusal::invalid_filter(format!(
                "Attribute {attribute} of type {kind} with {sub} cannot be used in a filter, at position {position}"
            ))
        })?;
        Ok(Comparison {
            attribute: Attribute::Plain(column),
            operator: Operator::Eq,
            value: Value::Text(value.to_lowercase()),
        })
    }

    /// Whether the bracket closes here; nothing may follow it but a blank.
    fn closes(&mut self) -> Result<bool, Refusal> {
        self.skip_blanks();
        if !self.rest().starts_with(']') {
            return Ok(false);
        }
        self.at += 1;
        match self.rest().chars().next() {
            Some(c) if !c.is_whitespace() => {
                Err(unexpected(&c.to_string(), self.position(self.at)))
            }
            _ => Ok(true),
        }
    }

    /// `NAME eq "…"` within brackets: the name and the text. `None` when it is another shape;
    /// an empty `expected` takes any name.
    fn inner(&mut self, expected: &str) -> Result<Option<(String, String)>, Refusal> {
        let (name, _) = self.word().ok_or_else(ended)?;
        let operator = self.operator()?;
        if operator != Operator::Eq || !(expected.is_empty() || name.eq_ignore_ascii_case(expected))
        {
            return Ok(None);
        }
        match self.literal()? {
            serde_json::Value::String(text) => Ok(Some((name.to_owned(), text))),
            _ => Ok(None),
        }
    }

    fn operator(&mut self) -> Result<Operator, Refusal> {
        let (word, at) = self.word().ok_or_else(ended)?;
        Operator::parse(word).ok_or_else(|| {
            let position = self.position(at);
            Refusal::invalid_filter(format!(
                "Unrecognized attribute operator '{word}' at position {position}. Expected: eq,ne,co,sw,ew,pr,gt,ge,lt,le"
            ))
        })
    }

    fn value(&mut self, attribute: Attribute) -> Result<Value, Refusal> {
        let at = self.at;
        let literal = self.literal()?;
        let value = match (attribute, literal) {
            (Attribute::Created | Attribute::LastModified, serde_json::Value::String(text)) => {
                stamp(&text).map(Value::Time)
            }
            (Attribute::Active, serde_json::Value::Bool(flag)) => Some(Value::Flag(flag)),
            (
                Attribute::Id | Attribute::DisplayName | Attribute::Plain(_) | Attribute::Label(_),
                serde_json::Value::String(text),
            ) => Some(Value::Text(fold(attribute, &text))),
            _ => None,
        };
        value.ok_or_else(|| {
            let position = self.position(at);
            Refusal::invalid_filter(format!("Invalid comparison value at position {position}"))
        })
    }

    /// A JSON string, number, `true`, `false` or `null`.
    fn literal(&mut self) -> Result<serde_json::Value, Refusal> {
        self.skip_blanks();
        if self.rest().is_empty() {
            return Err(ended());
        }
        let position = self.position(self.at);
        let mut values =
            serde_json::Deserializer::from_str(self.rest()).into_iter::<serde_json::Value>();
        match values.next() {
            Some(Ok(value)) if !value.is_array() && !value.is_object() => {
                self.at += values.byte_offset();
                Ok(value)
            }
            _ => Err(Refusal::invalid_filter(format!(
                "Invalid comparison value at position {position}"
            ))),
        }
    }

    /// Which operators go with which values (RFC 7644 section 3.4.2.2; `externalId` knows `eq` only,
    /// facts page, section 5.2).
    fn checked(
        path: &str,
        attribute: Attribute,
        operator: Operator,
        value: Value,
    ) -> Result<Comparison, Refusal> {
        let fits = match attribute {
            Attribute::Plain(Column::ExternalId) => operator == Operator::Eq,
            Attribute::Active => !operator.is_order() && !operator.is_part(),
            Attribute::Created | Attribute::LastModified => !operator.is_part(),
            _ => true,
        };
        if !fits {
            return Err(Refusal::invalid_filter(format!(
                "Operator is not supported for attribute {path}"
            )));
        }
        Ok(Comparison {
            attribute,
            operator,
            value,
        })
    }

    /// The next word, up to a blank, and where it starts; brackets and quotes end it as well.
    fn word(&mut self) -> Option<(&'a str, usize)> {
        self.skip_blanks();
        let start = self.at;
        let rest = &self.text[start..];
        let end = rest
            .char_indices()
            .find(|(place, c)| {
                c.is_whitespace() || (*place > 0 && matches!(c, '"' | '(' | ')' | ']'))
            })
            .map_or(rest.len(), |(place, _)| place);
        self.at += end;
        (end > 0).then(|| (&rest[..end], start))
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn position(&self, byte: usize) -> usize {
        self.text[..byte].chars().count()
    }
}

/// Text as it is compared: keys in the order of their table, all else without regard to case.
fn fold(attribute: Attribute, text: &str) -> String {
    if attribute == Attribute::Id {
        text.to_ascii_lowercase()
    } else {
        text.to_lowercase()
    }
}

/// An attribute path: a name with dots, perhaps below a URN.
fn is_path(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:$".contains(&b))
        && !word.eq_ignore_ascii_case("not")
}

/// `YYYY-MM-DDThh:mm:ssZ` and nothing else: whether more is accepted is not known (section 5.2).
fn stamp(text: &str) -> Option<Timestamp> {
    let shape = text.len() == 20 && text.ends_with('Z') && text.as_bytes()[10] == b'T';
    shape.then(|| text.parse().ok())?
}

fn ended() -> Refusal {
    Refusal::invalid_filter("Unexpected end of filter string")
}

fn unexpected(what: &str, at: usize) -> Refusal {
    Refusal::invalid_filter(format!("Unexpected character '{what}' at position {at}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::row::{User, Values};
    use super::*;

    fn user() -> User {
        let mut user = User::new("3F1c0a7e", "2026-02-27T16:40:09Z".parse().unwrap());
        user.set(
            &Values::new()
                .with(Column::UserName, "Noor.Valdimar")
                .with(Column::Email, "noor@example.org")
                .with(Column::ExternalId, "hr-88412")
                .with(Column::Department, "d7"),
        );
        user
    }

    fn matches(filter: &str) -> bool {
        let filter = Filter::parse::<User>(filter).unwrap();
        filter.matches(&user(), &Directory::default())
    }

    fn refusal(filter: &str) -> String {
        let refusal = Filter::parse::<User>(filter).unwrap_err();
        assert_eq!(refusal.status(), 400, "{filter}");
        String::from_utf8(refusal.body()).unwrap()
    }

    #[test]
    fn conditions_of_the_facts_page_are_understood() {
        for yes in [
            r#"id eq "3f1c0a7e""#,
            r#"ID GT "3f1c0a7d" AND id lt "3f1c0a7f""#,
            r#"userName sw "noor" and userName ew "DIMAR" and userName co "r.v""#,
            r#"meta.lastModified ge "2026-02-27T16:40:09Z""#,
            r#"meta.lastModified lt "2026-02-27T16:40:10Z""#,
            "active eq true",
            "title ne \"x\"",
            "userName pr",
            r#"emails[type eq "work" and value eq "NOOR@example.org"]"#,
            r#"urn:ietf:params:scim:schemas:extension:servicenow:2.0:User:department.value eq "d7""#,
            r#"urn:ietf:params:scim:schemas:core:2.0:User:userName eq "noor.valdimar""#,
            r#"externalId eq "HR-88412" and active eq true"#,
        ] {
            assert!(matches(yes), "{yes}");
        }
        for no in [
            r#"id gt "3f1c0a7e""#,
            "active eq false",
            "title pr",
            r#"title eq "x""#,
            r#"title gt "a""#,
            r#"meta.created gt "2026-02-27T16:40:09Z""#,
            r#"phoneNumbers[type eq "home" and value eq "1"]"#,
        ] {
            assert!(!matches(no), "{no}");
        }
    }

    #[test]
    fn all_else_is_refused_in_the_words_of_the_sdk() {
        for (filter, words) in [
            ("", "Unexpected end of filter string"),
            ("userName", "Unexpected end of filter string"),
            ("userName eq", "Unexpected end of filter string"),
            (
                r#"userName is "x""#,
                "Unrecognized attribute operator 'is' at position 9. Expected:",
            ),
            (
                r#"userName eq "a" or userName eq "b""#,
                "Unexpected character 'or' at position 16",
            ),
            (
                r#"(userName eq "a")"#,
                "Attribute path expected at position 0",
            ),
            (
                r#"not (userName eq "a")"#,
                "Attribute path expected at position 0",
            ),
            (
                r#"emails[type eq "work"].value eq "x""#,
                "Unexpected character '.' at position 22",
            ),
            (
                r#"emails[type eq "work" and value eq "x"].value eq "y""#,
                "Unexpected character '.'",
            ),
            (
                r#"emails[type eq "work" and value co "x"]"#,
                "not supported in this form",
            ),
            (
                r#"emails[value eq "x" and type eq "work"]"#,
                "not supported in this form",
            ),
            (
                r#"emails[type eq "home" and value eq "x"]"#,
                "cannot be used in a filter",
            ),
            (r#"emails.value eq "x""#, "cannot be used in a filter"),
            (r#"userType eq "x""#, "cannot be used in a filter"),
            (
                r#"name.honorificPrefix eq "x""#,
                "cannot be used in a filter",
            ),
            (r#"externalId sw "x""#, "Operator is not supported"),
            ("active gt true", "Operator is not supported"),
            ("userName eq 1", "Invalid comparison value at position 11"),
            ("userName eq x", "Invalid comparison value at position 12"),
            (
                r#"meta.lastModified ge "2026-02-27T16:40:09.5Z""#,
                "Invalid comparison value",
            ),
            (
                r#"meta.lastModified ge "2026-02-27T16:40:09+00:00""#,
                "Invalid comparison value",
            ),
            (
                r#"urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department eq "x""#,
                "cannot be used",
            ),
        ] {
            let body = refusal(filter);
            assert!(
                body.contains("Invalid filter: ") && body.contains(words),
                "{filter}: {body}"
            );
            assert!(body.contains(r#""scimType":"invalidFilter""#));
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", tail in r#"[ a-z"\[\]()\\.:é]{0,40}"#) {
            let _ = Filter::parse::<User>(&text);
            let _ = Filter::parse::<User>(&format!("emails[type eq {tail}"));
            let _ = Filter::parse::<User>(&format!("userName {tail}"));
            let _ = Filter::parse::<User>(&tail);
        }

        #[test]
        fn a_quoted_value_is_found_as_it_is(value in "[^\u{0}]{1,20}") {
            let mut user = user();
            user.set(&Values::new().with(Column::Title, value.clone()));
            let literal = serde_json::to_string(&value).unwrap();
            let filter = Filter::parse::<User>(&format!("title eq {literal}")).unwrap();
            prop_assert!(filter.matches(&user, &Directory::default()));
        }
    }
}
