//! What can go wrong between us and an instance, and what the caller must decide about it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use secrecy::{ExposeSecret as _, SecretString};

use super::hint;
use super::retry::{self, Class};
use super::salvage;
use super::secret::SecretError;
use super::wire::ErrorForm;
use crate::model::{Foreign, InstanceName, Reject, ResourceType};

/// A cause of whatever type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request that got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The host name has no address.
    #[error("cannot resolve the host name")]
    Resolve(#[source] BoxError),
    /// No connection was made.
    #[error("cannot connect")]
    Connect(#[source] BoxError),
    /// The connection is not the instance's: wrong, expired or unknown certificate, or no TLS.
    #[error("cannot make a secure connection")]
    Tls(#[source] BoxError),
    /// The answer was not complete in time.
    #[error("no complete answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// The connection ended, or what came was not HTTP, not gzip, not whole.
    #[error("connection broke before the answer was complete")]
    Broken(#[source] BoxError),
    /// The body is longer than allowed, counted after decompression.
    #[error("answer is longer than {limit_bytes} bytes")]
    TooLarge {
        /// The cap.
        limit_bytes: usize,
        /// How it begins.
        start: Body,
    },
    /// The HTTP client cannot be made on this machine.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] BoxError),
}

impl ExchangeError {
    /// What a person does about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        hint::exchange_hint(self)
    }
}

/// Bytes of a body. Never printed: they hold names and addresses.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(pub Bytes);

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// A request that got no usable answer, or may not be sent: what was asked of whom, and why it
/// failed.
#[derive(Debug)]
pub struct Error {
    instance: InstanceName,
    what: What,
    attempts: u32,
    fault: Fault,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A page of a list.
    List(ResourceType),
    /// One resource by its id.
    Get(ResourceType),
    /// The right to ask: a secret, or a token for it.
    Credentials,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It was told to stop.
    #[error("told to stop")]
    Cancelled,
    /// There was no answer.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// An answer with another status than 200.
    #[error("answered {0}")]
    Status(Refusal),
    /// 200, but not JSON: a page for people.
    #[error("answered 200 with {0} instead of JSON")]
    NotJson(Page),
    /// 200, but an error object instead of what was asked for.
    #[error("answered 200 with an error inside: {}", Foreign(text))]
    ErrorInside {
        /// What it says; the instance's text.
        text: String,
        /// Whether a transaction quota cut it off.
        out_of_time: bool,
    },
    /// 200, but the JSON stops in the middle, or more follows it.
    #[error("answered 200 with JSON that was cut off")]
    Cut {
        /// Where.
        #[source]
        reason: serde_json::Error,
        /// Whether a transaction quota cut it off.
        out_of_time: bool,
        /// What came.
        body: Body,
    },
    /// 200, and whole, but not JSON throughout: a record spoils the page.
    #[error("answered 200 with JSON that cannot be read")]
    Unreadable {
        /// Where.
        #[source]
        reason: serde_json::Error,
        /// What came.
        body: Body,
    },
    /// JSON, but not the message that was asked for.
    #[error("answered 200, but {}", Foreign(.0))]
    NotAsAsked(String),
    /// More resources than were asked for (RFC 7644 section 3.4.2.4).
    #[error("answered {got} resources where {asked} were asked for")]
    TooManyRows {
        /// `count`.
        asked: u32,
        /// Resources.
        got: usize,
    },
    /// The instance asks to be left alone for longer than a sync waits.
    #[error("the instance asks to be left alone for {} s more, longer than `retry.max_wait`", .0.as_secs())]
    ToldToWait(Duration),
    /// Credentials were refused, and are not tried again for a while.
    #[error("credentials refused: answered {refusal}")]
    Refused {
        /// The last answer.
        refusal: Refusal,
        /// Whether a secret comes from a systemd credential.
        by_systemd: bool,
    },
    /// The same credentials were refused a short while ago; nothing was sent.
    #[error(
        "these credentials were refused at {at:.0}{}; they are tried again when they change, or after {} minutes",
        answered(said.as_deref()),
        super::auth::REFUSED_FOR.as_secs() / 60
    )]
    RefusedBefore {
        /// When.
        at: jiff::Timestamp,
        /// What was answered then; the instance's text.
        said: Option<String>,
        /// Whether a secret comes from a systemd credential.
        by_systemd: bool,
    },
    /// A secret cannot be had.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The file of rotated tokens and refused credentials cannot be used.
    #[error("cannot {verb} `{}`", path.display())]
    State {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The token endpoint said 200, but gave no token that can be used.
    #[error("the token endpoint's answer cannot be used: {0}")]
    NoToken(&'static str),
    /// A URL of another origin than the instance's: no credential goes there.
    #[error("`{origin}` is not the instance's own origin")]
    ForeignOrigin {
        /// The origin refused.
        origin: String,
    },
}

fn answered(said: Option<&str>) -> String {
    said.map_or_else(String::new, |said| format!(": answered {}", Foreign(said)))
}

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// The form of its error object; `None` for all that is not one.
    pub form: Option<ErrorForm>,
    /// `scimType`, or OAuth's error code.
    pub code: Option<String>,
    /// What it says; the instance's text, capped.
    pub text: String,
    /// Whether it came as HTML.
    pub html: bool,
    /// Whether the instance demands a second factor (facts page, section 11.2).
    pub second_factor: bool,
}

impl Refusal {
    /// The same without its text, where that repeats one of these secrets: it goes to the log and to the mirror.
    #[must_use]
    pub fn without<'a>(mut self, secrets: impl IntoIterator<Item = &'a SecretString>) -> Self {
        let repeats = |secret: &SecretString| {
            let secret = secret.expose_secret();
            let said = [Some(&self.text), self.code.as_ref()];
            !secret.is_empty() && said.into_iter().flatten().any(|text| text.contains(secret))
        };
        if secrets.into_iter().any(repeats) {
            self.code = None;
            "what it says repeats a secret".clone_into(&mut self.text);
        }
        self
    }

    /// Whether its text contains this, whatever the case.
    #[must_use]
    pub fn says(&self, words: &str) -> bool {
        self.text.to_lowercase().contains(words)
    }

    /// Whether it was written for this account, so that its credentials were accepted: an error
    /// object about rights, the query or the resource.
    #[must_use]
    pub fn speaks_to_the_account(&self) -> bool {
        self.form.is_some() && matches!(self.status.as_u16(), 400 | 403 | 404)
    }

    /// Whether no API is there at all: a wrong path, or an inactive plugin (facts page, section
    /// 11.2). Says nothing about any resource.
    #[must_use]
    pub fn no_such_api(&self) -> bool {
        self.says("does not represent any resource")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status.as_u16())?;
        if let Some(reason) = self.status.canonical_reason() {
            write!(f, " ({reason})")?;
        }
        if self.html {
            f.write_str(" with an HTML page")?;
        }
        // The text of the OAuth form begins with its code.
        if let Some(code) = &self.code
            && !self.text.starts_with(code)
        {
            write!(f, ": {}", Foreign(code))?;
        }
        if !self.text.is_empty() {
            write!(f, ": {}", Foreign(&self.text))?;
        }
        Ok(())
    }
}

/// A page for people where JSON was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its content type; the instance's text, capped.
    pub content_type: String,
    /// Its title; the instance's text, capped.
    pub title: Option<String>,
    /// Whether it says that the instance hibernates (facts page, section 14).
    pub hibernating: bool,
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.content_type.is_empty() {
            f.write_str("no content type")?;
        } else {
            write!(f, "`{}`", Foreign(&self.content_type))?;
        }
        match &self.title {
            Some(title) => write!(f, " (`{}`)", Foreign(title)),
            None => Ok(()),
        }
    }
}

impl Error {
    /// An error of one request to `instance`, after so many attempts.
    #[must_use]
    pub fn new(instance: InstanceName, what: What, attempts: u32, fault: Fault) -> Self {
        Self {
            instance,
            what,
            attempts,
            fault,
        }
    }

    /// Why it failed.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// What was asked for.
    #[must_use]
    pub fn what(&self) -> What {
        self.what
    }

    /// Whether the same request may succeed later without anybody mending anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.fault, Fault::ToldToWait(_))
            || matches!(retry::class(&self.fault), Class::Passing | Class::Busy)
    }

    /// Whether credentials or rights must be mended.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        match &self.fault {
            Fault::Refused { .. } | Fault::RefusedBefore { .. } | Fault::Secret(_) => true,
            // A 403 page for people comes from a proxy or a firewall, not from the rights of the account.
            Fault::Status(refusal) => match refusal.status {
                StatusCode::UNAUTHORIZED => true,
                StatusCode::FORBIDDEN => !refusal.html,
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether a list is refused to the account, or the instance has none of these: its credentials were accepted.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self.what, What::List(_))
            && match &self.fault {
                Fault::Status(refusal) => match refusal.status {
                    StatusCode::FORBIDDEN => !refusal.html,
                    StatusCode::NOT_FOUND => true,
                    _ => false,
                },
                _ => false,
            }
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.fault, Fault::Cancelled)
    }

    /// Whether the page itself could not be read as a whole: fewer resources at a time isolate the
    /// one that spoils it. [`Error::to_reject`] makes a reject of a page of one.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.body().is_some()
    }

    /// Whether the instance did not manage the page in time: fewer resources at a time may help
    /// (facts page, Q55).
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        if self.what == What::Credentials {
            return false;
        }
        match &self.fault {
            Fault::Exchange(ExchangeError::TimedOut(_)) => true,
            Fault::Status(refusal) => matches!(
                refusal.status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT
            ),
            Fault::ErrorInside { out_of_time, .. } | Fault::Cut { out_of_time, .. } => *out_of_time,
            _ => false,
        }
    }

    /// Whether the instance refuses what the query asks (RFC 7644 section 3.12): another query may
    /// be answered.
    #[must_use]
    pub fn is_refused_query(&self) -> bool {
        match &self.fault {
            Fault::Status(refusal) => {
                matches!(
                    refusal.status,
                    StatusCode::BAD_REQUEST | StatusCode::NOT_IMPLEMENTED
                ) && !refusal.no_such_api()
                    && refusal.code.as_deref() != Some("tooMany")
            }
            _ => false,
        }
    }

    /// Whether the API gave an answer, one that asking again would not change.
    #[must_use]
    pub fn is_final_answer(&self) -> bool {
        self.what != What::Credentials
            && match &self.fault {
                Fault::Status(refusal) => retry::status_class(refusal.status) == Class::Final,
                Fault::Unreadable { .. }
                | Fault::NotAsAsked(_)
                | Fault::Exchange(ExchangeError::TooLarge { .. }) => true,
                _ => false,
            }
    }

    /// How long the instance asked to be left alone, beyond `retry.max_wait`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.fault {
            Fault::ToldToWait(wait) => Some(wait),
            _ => None,
        }
    }

    /// What can still be told of the one resource of an unreadable page; `None` if the error is
    /// another.
    #[must_use]
    pub fn to_reject(&self) -> Option<Reject> {
        let body = self.body()?;
        let reason = std::error::Error::source(self)
            .map_or_else(|| self.fault.to_string(), ToString::to_string);
        Some(salvage::reject(body, &Foreign(&reason).to_string()))
    }

    /// What came in place of a page; an answer about credentials is none, and nobody may see it.
    fn body(&self) -> Option<&Bytes> {
        if self.what == What::Credentials {
            return None;
        }
        match &self.fault {
            Fault::Unreadable { body, .. }
            | Fault::Cut { body, .. }
            | Fault::Exchange(ExchangeError::TooLarge { start: body, .. }) => Some(&body.0),
            _ => None,
        }
    }

    /// What a person does about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        hint::hint(self.what, &self.fault)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "instance `{}`: cannot ", self.instance)?;
        match self.what {
            What::List(resource) => write!(f, "list {resource} resources")?,
            What::Get(resource) => write!(f, "get a {resource} resource")?,
            What::Credentials => f.write_str("authenticate")?,
        }
        write!(f, ": {}", self.fault)?;
        if self.attempts > 1 {
            write!(f, " ({} attempts)", self.attempts)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    /// The cause of the fault: the fault itself is part of the message.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.fault)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{answer, script};
    use super::*;

    fn error(what: What, status: u16, body: &str) -> Error {
        let headers = [("content-type", "application/json")];
        let refusal = answer::refusal(&script::answer(status, &headers, body.as_bytes()));
        let instance = InstanceName::parse("acme").unwrap();
        Error::new(instance, what, 1, Fault::Status(refusal))
    }

    const LIST: What = What::List(ResourceType::User);

    #[test]
    fn an_answer_about_credentials_is_no_page() {
        let instance = || InstanceName::parse("acme").unwrap();
        let faults: [fn() -> Fault; 2] = [
            || ExchangeError::TimedOut(Duration::from_secs(1)).into(),
            || {
                let start = Body(Bytes::from_static(b"{\"access_token\":\"hush"));
                ExchangeError::TooLarge {
                    limit_bytes: 9,
                    start,
                }
                .into()
            },
        ];
        for fault in faults {
            let page = Error::new(instance(), LIST, 1, fault());
            assert!(page.is_timeout() || page.is_unreadable(), "{page}");
            let token = Error::new(instance(), What::Credentials, 1, fault());
            assert!(!token.is_timeout() && !token.is_unreadable(), "{token}");
            assert!(token.to_reject().is_none());
            assert!(!token.hint().unwrap_or_default().contains("page_size"));
        }
    }

    #[test]
    fn a_refused_query_is_told_from_a_missing_api() {
        let scim = |status: &str, code: &str| {
            format!(
                r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"{status}","scimType":"{code}","detail":"x"}}"#
            )
        };
        for (status, body, refused) in [
            (400, scim("400", "invalidFilter"), true),
            (400, r#"{"errors":{"status":"400","details":"Invalid filter"}}"#.into(), true),
            (400, String::new(), true),
            (501, String::new(), true),
            (400, scim("400", "tooMany"), false),
            (400, r#"{"error":{"message":"Requested URI does not represent any resource","detail":null},"status":"failure"}"#.into(), false),
            (403, scim("403", "invalidFilter"), false),
            (500, String::new(), false),
        ] {
            assert_eq!(
                error(LIST, status, &body).is_refused_query(),
                refused,
                "{status} {body}"
            );
        }
    }

    #[test]
    fn a_message_names_instance_deed_and_status_in_safe_letters() {
        let error = error(LIST, 403, r#"{"error":{"message":"No\u001b[31m\nentry"}}"#);
        assert_eq!(
            error.to_string(),
            "instance `acme`: cannot list User resources: answered 403 (Forbidden): No\\u{1b}[31m\\u{a}entry"
        );
        assert!(error.is_auth() && !error.is_transient());
    }
}
