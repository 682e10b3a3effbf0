//! For tests: an instance whose every answer is written down, called in process under a paused clock.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, Method, StatusCode};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::auth::{AuthOptions, SecretSource};
use super::client::{
    Answer, BoxFuture, Client, Exchange, ListQuery, Options, Priority, Request, Session,
};
use super::error::ExchangeError;
use super::rate::RateOptions;
use super::retry::RetryOptions;
use crate::clock::ManualClock;
use crate::model::InstanceName;

/// What a request asked for, and when.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Since the script began.
    pub(crate) at: Duration,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) authorization: Option<String>,
    pub(crate) form: Vec<(&'static str, String)>,
}

impl Sent {
    pub(crate) fn is_for_token(&self) -> bool {
        self.method == Method::POST
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let field = self.form.iter().find(|(key, _)| *key == name)?;
        Some(&field.1)
    }
}

/// What becomes of a request.
pub(crate) enum Reply {
    Answer(Answer),
    Fail(ExchangeError),
    /// Never anything.
    Hang,
    Late(Duration, Box<Reply>),
}

type Rule = Box<dyn Fn(&Sent, usize) -> Reply + Send + Sync>;

/// Answers by a rule, which is told the request and how many of its kind (token or not) came before.
pub(crate) struct Script {
    rule: Rule,
    zero: Instant,
    sent: Mutex<Vec<Sent>>,
}

impl Script {
    pub(crate) fn new(rule: impl Fn(&Sent, usize) -> Reply + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            rule: Box::new(rule),
            zero: Instant::now(),
            sent: Mutex::default(),
        })
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, of_tokens: bool) -> usize {
        let sent = self.sent();
        sent.iter()
            .filter(|sent| sent.is_for_token() == of_tokens)
            .count()
    }
}

impl Exchange for Script {
    fn exchange(&self, request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
        let sent = Sent {
            at: self.zero.elapsed(),
            method: request.method,
            url: request.url,
            authorization: request
                .authorization
                .map(|header| header.expose_secret().to_owned()),
            form: request
                .form
                .into_iter()
                .map(|(name, value)| (name, value.expose_secret().to_owned()))
                .collect(),
        };
        let before = self.count(sent.is_for_token());
        let mut reply = (self.rule)(&sent, before);
        self.sent.lock().unwrap().push(sent);
        Box::pin(async move {
            loop {
                match reply {
                    Reply::Answer(answer) => return Ok(answer),
                    Reply::Fail(error) => return Err(error),
                    Reply::Hang => std::future::pending().await,
                    Reply::Late(delay, then) => {
                        tokio::time::sleep(delay).await;
                        reply = *then;
                    }
                }
            }
        })
    }
}

/// An answer of JSON.
pub(crate) fn json(status: u16, body: &str) -> Reply {
    Reply::Answer(answer(
        status,
        &[("content-type", "application/json;charset=UTF-8")],
        body.as_bytes(),
    ))
}

/// A JSON answer with further headers.
pub(crate) fn json_with(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut answer = answer(status, headers, body.as_bytes());
    answer
        .headers
        .insert(CONTENT_TYPE, "application/json".parse().unwrap());
    Reply::Answer(answer)
}

pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: map,
        body: Bytes::copy_from_slice(body),
    }
}

/// A page of users with these ids.
pub(crate) fn page(total: usize, ids: &[&str]) -> Reply {
    let rows: Vec<_> = ids.iter().map(|id| format!(r#"{{"id":"{id}"}}"#)).collect();
    json(
        200,
        &format!(
            r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":{total},"Resources":[{}]}}"#,
            rows.join(",")
        ),
    )
}

/// A token of this text, alive for so many seconds.
pub(crate) fn token(text: &str, expires_in: u64) -> Reply {
    json(
        200,
        &format!(
            r#"{{"access_token":"{text}","token_type":"Bearer","expires_in":{expires_in},"scope":"useraccount"}}"#
        ),
    )
}

/// The platform's 401.
pub(crate) fn unauthorized() -> Reply {
    json(
        401,
        r#"{"error":{"message":"User is not authenticated","detail":"Required to provide Auth information"},"status":"failure"}"#,
    )
}

/// What the token endpoint says to wrong credentials.
pub(crate) fn access_denied() -> Reply {
    json(
        401,
        r#"{"error_description":"access_denied","error":"server_error"}"#,
    )
}

pub(crate) fn origin() -> Url {
    "https://acme.service-now.com".parse().unwrap()
}

pub(crate) fn token_url() -> Url {
    origin().join("/oauth_token.do").unwrap()
}

pub(crate) fn literal(secret: &str) -> SecretSource {
    SecretSource::Literal(secret.into())
}

pub(crate) fn basic() -> AuthOptions {
    AuthOptions::Basic {
        username: "sync".into(),
        password: literal("hush"),
    }
}

pub(crate) fn client_credentials() -> AuthOptions {
    AuthOptions::ClientCredentials {
        client_id: "c1".into(),
        client_secret: literal("hush"),
        token_url: token_url(),
    }
}

/// Options with a rate that tests do not notice.
pub(crate) fn options(auth: AuthOptions, folder: &Path) -> Options {
    Options {
        instance: InstanceName::parse("acme").unwrap(),
        origin: origin(),
        scim_path: "/api/now/scim".into(),
        page_size: 200,
        concurrency: 4,
        timeout: Duration::from_secs(60),
        max_body_bytes: 1 << 20,
        auth,
        auth_state: folder.join("acme.auth"),
        rate: RateOptions {
            per_second: 1000.try_into().unwrap(),
            burst: 1000.try_into().unwrap(),
            per_hour: None,
        },
        retry: RetryOptions {
            attempts: 5,
            max_wait: Duration::from_secs(300),
        },
    }
}

/// A session with this instance.
pub(crate) fn session(options: Options, script: &Arc<Script>) -> Session {
    let start = "2026-03-01T08:00:00Z".parse().unwrap();
    let clock = Arc::new(ManualClock::starting_at(start));
    session_at(options, script, clock)
}

pub(crate) fn session_at(
    options: Options,
    script: &Arc<Script>,
    clock: Arc<ManualClock>,
) -> Session {
    let exchange: Arc<dyn Exchange> = Arc::clone(script) as _;
    Arc::new(Client::new(options, exchange, clock, 7))
        .session(Priority::High, CancellationToken::new())
}

/// The first page.
pub(crate) fn first(count: u32) -> ListQuery {
    ListQuery {
        filter: None,
        start_index: 1,
        count,
    }
}
