//! Serde shapes of the messages of RFC 7644, of the platform's errors and of the token endpoint,
//! nothing else: what an answer *means* is judged in [`super::answer`].

mod slice;

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// The URN of a list answer (RFC 7644 section 3.4.2).
pub const LIST_RESPONSE: &str = "urn:ietf:params:scim:api:messages:2.0:ListResponse";

/// The URN of an error (RFC 7644 section 3.12).
pub const ERROR: &str = "urn:ietf:params:scim:api:messages:2.0:Error";

/// A list answer. Members come in any order and any case (facts page, Q11 and Q58), unknown ones
/// are skipped, and resources are borrowed from the page as the text they are.
#[derive(Debug, Default)]
pub struct ListResponse<'a> {
    /// `schemas`.
    pub schemas: Option<Vec<String>>,
    /// `totalResults`, as it was written.
    pub total_results: Option<Box<RawValue>>,
    /// `Resources`, each a JSON text.
    pub resources: Option<Vec<&'a str>>,
    /// Whether there is an `error` or `errors`: a platform's error inside what says it succeeded.
    pub has_error: bool,
}

impl<'a> ListResponse<'a> {
    /// Reads a page as its text is spelled most of the time: one object with an array of resources. `None` for all else, also for
    /// what is wrong with it: then the page is to be deserialized, which gives the same for what this reads, and errors.
    #[must_use]
    pub fn read_quickly(page: &'a [u8]) -> Option<Self> {
        let sliced = slice::slice(std::str::from_utf8(page).ok()?)?;
        let around = [sliced.before, sliced.after].concat();
        let around: ListResponse<'_> = serde_json::from_str(&around).ok()?;
        Some(Self {
            schemas: around.schemas,
            total_results: around.total_results,
            resources: Some(sliced.resources),
            has_error: around.has_error,
        })
    }

    /// Whether `schemas` names this URN. URNs are compared without case (RFC 8141 section 3.1).
    #[must_use]
    pub fn has_schema(&self, urn: &str) -> bool {
        self.schemas
            .iter()
            .flatten()
            .any(|schema| schema.eq_ignore_ascii_case(urn))
    }
}

impl<'de> Deserialize<'de> for ListResponse<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListVisitor)
    }
}

struct ListVisitor;

impl<'de> Visitor<'de> for ListVisitor {
    type Value = ListResponse<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut list = ListResponse::default();
        let (mut resources, mut error) = (None::<Vec<&RawValue>>, None::<&RawValue>);
        while let Some(member) = map.next_key::<ListMember>()? {
            match member {
                ListMember::Schemas => once(&mut list.schemas, map.next_value()?, "schemas")?,
                ListMember::TotalResults => {
                    once(&mut list.total_results, map.next_value()?, "totalResults")?;
                }
                ListMember::Resources => {
                    once(&mut resources, map.next_value()?, "Resources")?;
                }
                ListMember::Error => once(&mut error, map.next_value()?, "error")?,
                ListMember::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        list.resources = resources.map(|rows| rows.into_iter().map(RawValue::get).collect());
        list.has_error = error.is_some();
        Ok(list)
    }
}

/// Takes a member that may come once: of two, nobody can say which one counts.
fn once<T, E: de::Error>(
    place: &mut Option<T>,
    value: Option<T>,
    name: &'static str,
) -> Result<(), E> {
    if place.is_some() {
        return Err(E::duplicate_field(name));
    }
    *place = value;
    Ok(())
}

/// The members of a list answer that matter here.
enum ListMember {
    Schemas,
    TotalResults,
    Resources,
    Error,
    Other,
}

impl<'de> Deserialize<'de> for ListMember {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ListMemberVisitor)
    }
}

struct ListMemberVisitor;

impl Visitor<'_> for ListMemberVisitor {
    type Value = ListMember;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        Ok(if is("schemas") {
            ListMember::Schemas
        } else if is("totalResults") {
            ListMember::TotalResults
        } else if is("Resources") {
            ListMember::Resources
        } else if is("error") || is("errors") {
            ListMember::Error
        } else {
            ListMember::Other
        })
    }
}

/// Whose form an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorForm {
    /// RFC 7644 section 3.12 (facts page, section 11.1).
    Scim,
    /// The platform's own (facts page, section 11.2).
    Platform,
    /// RFC 6749 section 5.2 (facts page, section 13.1).
    OAuth,
}

/// An error as JSON, of whichever form. All texts are the instance's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    /// Its form.
    pub form: ErrorForm,
    /// `status` of the SCIM form.
    pub status: Option<String>,
    /// `scimType`, or the error code of the OAuth form.
    pub code: Option<String>,
    /// What it says, in one text.
    pub text: String,
}

impl ErrorMessage {
    /// Reads an error; `None` when the JSON is none of the three forms.
    #[must_use]
    pub fn read(value: &Value) -> Option<Self> {
        match member(value, "error") {
            Some(inner @ Value::Object(_)) => return Some(Self::platform(inner)),
            Some(Value::String(code)) => return Some(Self::oauth(code, value)),
            _ => {}
        }
        // The documentation also describes an object `errors`, some servers send an array of them.
        let inner = match member(value, "errors") {
            Some(Value::Array(list)) => list.first()?,
            Some(inner) => inner,
            None => value,
        };
        let says_so = member(inner, "schemas")
            .and_then(Value::as_array)
            .is_some_and(|schemas| {
                schemas.iter().any(|schema| {
                    schema
                        .as_str()
                        .is_some_and(|urn| urn.eq_ignore_ascii_case(ERROR))
                })
            });
        (says_so || !std::ptr::eq(inner, value)).then(|| Self {
            form: ErrorForm::Scim,
            status: text(inner, "status"),
            code: text(inner, "scimType"),
            text: text(inner, "detail")
                .or_else(|| text(inner, "details"))
                .unwrap_or_default(),
        })
    }

    fn platform(inner: &Value) -> Self {
        let parts = [text(inner, "message"), text(inner, "detail")];
        Self {
            form: ErrorForm::Platform,
            status: None,
            code: None,
            text: parts.into_iter().flatten().collect::<Vec<_>>().join(": "),
        }
    }

    fn oauth(code: &str, value: &Value) -> Self {
        let parts = [Some(code.to_owned()), text(value, "error_description")];
        Self {
            form: ErrorForm::OAuth,
            status: None,
            code: Some(code.to_owned()),
            text: parts.into_iter().flatten().collect::<Vec<_>>().join(": "),
        }
    }
}

/// A member by its name, whatever its case.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value
        .as_object()?
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// A member as text: a string, or a number as it was written.
fn text(value: &Value, name: &str) -> Option<String> {
    match member(value, name)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What the token endpoint answers (RFC 6749 section 5.1). Not printable: it holds secrets.
#[derive(serde::Deserialize)]
pub struct TokenResponse {
    /// The token.
    pub access_token: Option<String>,
    /// `Bearer`.
    pub token_type: Option<String>,
    /// Seconds left, as a number or as text.
    pub expires_in: Option<Value>,
    /// For grants that have one.
    pub refresh_token: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_in_any_case_and_order_and_resources_are_borrowed() {
        let text = r#"{"RESOURCES":[{"id":"a"}, 7],"x":{"deep":[1e400]},"TotalResults":"2","Schemas":["URN:ietf:params:scim:api:messages:2.0:LISTRESPONSE"],"error":null}"#;
        let list: ListResponse<'_> = serde_json::from_str(text).unwrap();
        assert!(list.has_schema(LIST_RESPONSE));
        assert_eq!(list.total_results.unwrap().get(), r#""2""#);
        let rows = list.resources.unwrap();
        assert_eq!(rows, [r#"{"id":"a"}"#, "7"]);
        assert!(!list.has_error);
    }

    #[test]
    fn a_doubled_member_is_an_error() {
        let doubled = r#"{"Resources":[],"resources":[]}"#;
        assert!(serde_json::from_str::<ListResponse<'_>>(doubled).is_err());
    }

    #[test]
    fn errors_of_all_forms_are_read() {
        let read = |text: &str| ErrorMessage::read(&serde_json::from_str(text).unwrap());
        let scim = read(r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"404","detail":"User not found 0"}"#).unwrap();
        assert_eq!(
            (scim.form, scim.status.as_deref()),
            (ErrorForm::Scim, Some("404"))
        );
        assert_eq!(scim.text, "User not found 0");
        let documented =
            read(r#"{"errors":{"status":400,"scimType":"invalidFilter","details":"Bad"}}"#)
                .unwrap();
        assert_eq!(documented.code.as_deref(), Some("invalidFilter"));
        assert_eq!(documented.status.as_deref(), Some("400"));
        let platform =
            read(r#"{"error":{"message":"User Not Authorized","detail":null},"status":"failure"}"#)
                .unwrap();
        assert_eq!(
            (platform.form, platform.text.as_str()),
            (ErrorForm::Platform, "User Not Authorized")
        );
        let oauth =
            read(r#"{"error_description":"access_denied","error":"server_error"}"#).unwrap();
        assert_eq!(oauth.code.as_deref(), Some("server_error"));
        assert_eq!(oauth.text, "server_error: access_denied");
        assert_eq!(read(r#"{"id":"a","status":"busy"}"#), None);
        assert_eq!(read("[1]"), None);
    }
}
