//! One request, one typed answer. The seam of the whole program: an [`Exchange`] is the network, or
//! the sandbox called in process.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use jiff::Timestamp;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use url::{Url, form_urlencoded};

use super::answer;
use super::auth::{Auth, AuthOptions};
use super::error::{Error, ExchangeError, Fault, What};
use super::headers::Told;
use super::rate::{Pace, RateOptions};
use super::retry::{self, Class, RetryOptions};
use crate::clock::SharedClock;
use crate::model::{InstanceName, ResourceId, ResourceType, Row, Tally};

/// How often one request is repeated because of 401.
const MAX_UNAUTHORIZED: u32 = 5;

/// A future in a box: what a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One HTTP request, complete.
#[derive(Debug)]
pub struct Request {
    /// `GET` or `POST`.
    pub method: Method,
    /// The whole URL, built from the configured base only.
    pub url: Url,
    /// The `Authorization` header.
    pub authorization: Option<SecretString>,
    /// Form fields of a token request.
    pub form: Vec<(&'static str, SecretString)>,
}

/// One HTTP answer, its body decompressed and within the cap.
#[derive(Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl fmt::Debug for Answer {
    /// Without what may hold names, addresses and tokens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Sends one request and receives one answer.
pub trait Exchange: Send + Sync + 'static {
    /// Sends it once. Redirects are answers like any other.
    fn exchange(&self, request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>>;
}

/// What a client needs to know; the configuration fills it.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The instance's name, for messages.
    pub instance: InstanceName,
    /// `https://acme.service-now.com`: scheme, host and port; never a path.
    pub origin: Url,
    /// `/api/now/scim`.
    pub scim_path: String,
    /// Resources asked for at a time, 1 to 500.
    pub page_size: u32,
    /// Requests in flight at a time, 1 to 4.
    pub concurrency: usize,
    /// Total time of one request.
    pub timeout: Duration,
    /// The most bytes of one answer, after decompression.
    pub max_body_bytes: usize,
    /// Credentials.
    pub auth: AuthOptions,
    /// Where a rotated refresh token and refused credentials are remembered: a file of mode 0600.
    pub auth_state: PathBuf,
    /// How often to ask.
    pub rate: RateOptions,
    /// How often to repeat a failed request.
    pub retry: RetryOptions,
}

/// Who goes first when requests wait for the rate limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Incremental syncs and `check`.
    High,
    /// Full syncs.
    Low,
}

/// All that talks to one instance: shared by every sync, probe and command, so that rate, token and
/// waits are shared as well.
pub struct Client {
    options: Options,
    exchange: Arc<dyn Exchange>,
    clock: SharedClock,
    pace: Arc<Pace>,
    auth: Auth,
    /// What talking to the instance has cost this process, all sessions together.
    spent: Arc<Tally>,
    /// Draws the jitter of each request's retries.
    lots: Mutex<fastrand::Rng>,
}

/// The client as one sync uses it: with its priority, its counts, and its end.
#[derive(Clone)]
pub struct Session {
    /// The shared client.
    pub client: Arc<Client>,
    /// Before or after others.
    pub priority: Priority,
    /// What this session cost.
    pub tally: Arc<Tally>,
    /// Ends waits and requests.
    pub cancel: CancellationToken,
    /// How often a failed request is repeated: as configured, unless a person waits for the answer.
    pub retry: RetryOptions,
}

/// A list request (facts page, section 4). Always sorted by `id`, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// `filter`, already in SCIM's grammar.
    pub filter: Option<String>,
    /// `startIndex`, 1-based; 1 is not sent.
    pub start_index: u64,
    /// `count`, always sent (facts page, Q1).
    pub count: u32,
}

/// A list answer that passed every rule of the facts page's section 11.3.
#[derive(Clone, Debug)]
pub struct Listing {
    /// `totalResults`.
    pub total: u64,
    /// Resources cut out as raw text.
    pub rows: Vec<Row>,
    /// Resources without a readable id.
    pub rejects: Vec<crate::model::Reject>,
    /// The `Date` header.
    pub date: Option<Timestamp>,
}

impl Listing {
    /// How many resources it has, those without a readable id included.
    pub(super) fn len(&self) -> u64 {
        (self.rows.len() + self.rejects.len()) as u64
    }
}

/// What asking for one id gave.
#[derive(Clone, Debug)]
pub enum Asked {
    /// 200 with a JSON resource of the same id.
    Found(Row),
    /// 404 as JSON, SCIM- or platform-shaped.
    NotFound,
    /// Any other answer that is final: it says nothing about the resource. With the reason.
    Unclear(String),
}

impl Client {
    /// A client of one instance. `seed` feeds the jitter of retries.
    pub fn new(
        options: Options,
        exchange: Arc<dyn Exchange>,
        clock: SharedClock,
        seed: u64,
    ) -> Self {
        Self {
            pace: Arc::new(Pace::new(
                options.rate,
                options.concurrency,
                options.retry.max_wait,
            )),
            options,
            exchange,
            clock,
            auth: Auth::default(),
            spent: Arc::default(),
            lots: Mutex::new(fastrand::Rng::with_seed(seed)),
        }
    }

    /// Goes on with the pace and the counts of the client that this one replaces, whose sessions may still run: all of them go
    /// through one gate, and keep to what the instance asked for.
    #[must_use]
    pub fn going_on(mut self, before: &Self) -> Self {
        self.spent = Arc::clone(&before.spent);
        self.pace = Arc::clone(&before.pace);
        self
    }

    /// Puts the limits in force that this client was made with, where it goes on with the pace of another one.
    pub fn keep_to_own_limits(&self) {
        let Options {
            rate,
            concurrency,
            retry,
            ..
        } = &self.options;
        self.pace.change(*rate, *concurrency, retry.max_wait);
    }

    /// What talking to the instance has cost this process: all sessions, those that failed and those under way
    /// included.
    #[must_use]
    pub fn spent(&self) -> &Tally {
        &self.spent
    }

    /// The options it was made with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// A session for one sync or command.
    #[must_use]
    pub fn session(self: &Arc<Self>, priority: Priority, cancel: CancellationToken) -> Session {
        Session {
            client: Arc::clone(self),
            priority,
            tally: Arc::new(Tally::part_of(Arc::clone(&self.spent))),
            cancel,
            retry: self.options.retry,
        }
    }

    /// The requests an hour that are kept to because the instance told a tighter limit than ours.
    #[must_use]
    pub fn told_per_hour(&self) -> Option<u32> {
        self.pace.told_per_hour().map(std::num::NonZeroU32::get)
    }

    /// The requests an hour that are kept to: ours, or what the instance told where that is tighter. `None` where there is neither.
    #[must_use]
    pub fn per_hour(&self) -> Option<u32> {
        self.pace.per_hour().map(std::num::NonZeroU32::get)
    }

    /// Until when the instance asked to be left alone; kept across restarts by the caller.
    #[must_use]
    pub fn not_before(&self) -> Option<Timestamp> {
        Some(self.now() + self.pace.held_for()?)
    }

    /// Waits until the instance asks to be left alone; once for each time, also where that was before.
    pub async fn told_to_wait(&self) {
        self.pace.held().await;
    }

    /// Leaves the instance alone until `moment`, as it asked before a restart. Clamped like anything
    /// an instance asks for.
    pub fn set_not_before(&self, moment: Timestamp) {
        if let Ok(wait) = Duration::try_from(moment.duration_since(self.now())) {
            self.pace.hold(wait);
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn draw(&self) -> u64 {
        // A generator cannot be left half done by a panic.
        let mut lots = self.lots.lock().unwrap_or_else(PoisonError::into_inner);
        lots.u64(..)
    }

    /// The URL of a resource type's endpoint: the origin and the path as configured, nothing else.
    fn endpoint(&self, resource: ResourceType) -> Url {
        let mut url = self.options.origin.clone();
        url.set_query(None);
        url.set_fragment(None);
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear()
                .extend(
                    self.options
                        .scim_path
                        .split('/')
                        .filter(|part| !part.is_empty()),
                )
                .push(resource.endpoint());
        }
        url
    }

    pub(super) fn list_url(&self, resource: ResourceType, query: &ListQuery) -> Url {
        let mut url = self.endpoint(resource);
        let mut pairs = form_urlencoded::Serializer::new(String::new());
        if let Some(filter) = &query.filter {
            pairs.append_pair("filter", filter);
        }
        if query.start_index > 1 {
            pairs.append_pair("startIndex", &query.start_index.to_string());
        }
        pairs
            .append_pair("count", &query.count.to_string())
            // Without both there is no promised order (facts page, section 6 and Q3).
            .append_pair("sortBy", "id")
            .append_pair("sortOrder", "ascending");
        // A blank as `%20` (facts page, section 5.4): the only `+` in here is a blank.
        url.set_query(Some(&pairs.finish().replace('+', "%20")));
        url
    }

    /// `None` for an id that would ask for the list, or for somebody else.
    fn resource_url(&self, resource: ResourceType, id: &ResourceId) -> Option<Url> {
        if !id.is_askable() {
            return None;
        }
        let mut url = self.endpoint(resource);
        // As strict as RFC 3986 section 3.3: what a browser leaves as it is, such as `|` and `[`, servers
        // refuse.
        let segment: String = form_urlencoded::byte_serialize(id.as_str().as_bytes()).collect();
        url.set_path(&format!("{}/{}", url.path(), segment.replace('+', "%20")));
        Some(url)
    }
}

impl Session {
    /// Asks for one page, with retries. Judged by the rules of the facts page's section 11.3.
    ///
    /// # Errors
    /// When no attempt gave a page; see [`Error`]'s predicates.
    pub async fn list(&self, resource: ResourceType, query: &ListQuery) -> Result<Listing, Error> {
        let url = self.client.list_url(resource, query);
        let judge = |answer: &Answer| answer::judge_list(answer, query.count);
        self.ask(What::List(resource), url, judge).await
    }

    /// Asks for one resource by its id, with retries.
    ///
    /// # Errors
    /// When no attempt gave an answer, or it was told to stop.
    pub async fn get(&self, resource: ResourceType, id: &ResourceId) -> Result<Asked, Error> {
        let Some(url) = self.client.resource_url(resource, id) else {
            return Ok(Asked::Unclear("this id cannot be asked for".to_owned()));
        };
        let judge = |answer: &Answer| answer::judge_get(answer, id);
        match self.ask(What::Get(resource), url, judge).await {
            Err(error) if error.is_final_answer() => Ok(Asked::Unclear(error.fault().to_string())),
            asked => asked,
        }
    }

    /// Asks for a user with the groups that the user is in, which an instance may show only where they are asked for by name (facts
    /// page, section 8.1), and else as for any resource.
    ///
    /// # Errors
    /// As of [`Session::get`].
    pub async fn get_with_groups(&self, user: &ResourceId) -> Result<Asked, Error> {
        if let Some(mut url) = self.client.resource_url(ResourceType::User, user) {
            url.query_pairs_mut().append_pair("attributes", "groups");
            let judge = |answer: &Answer| answer::judge_get(answer, user);
            match self.ask(What::Get(ResourceType::User), url, judge).await {
                // It may be that it does not know how.
                Err(error) if error.is_final_answer() => {}
                asked => return asked,
            }
        }
        self.get(ResourceType::User, user).await
    }

    /// Asks until an attempt succeeds, or fails for good.
    async fn ask<T>(
        &self,
        what: What,
        url: Url,
        judge: impl Fn(&Answer) -> Result<T, Fault>,
    ) -> Result<T, Error> {
        let client = &*self.client;
        let mut waits = retry::waits(self.retry, client.draw());
        let mut attempts = 0;
        let mut unauthorized = 0;
        loop {
            attempts += 1;
            let (what, fault) = match self.attempt(what, &url, &judge).await {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            let failed = |fault| {
                Err(Error::new(
                    client.options.instance.clone(),
                    what,
                    attempts,
                    fault,
                ))
            };
            let class = retry::class(&fault);
            let wait = match class {
                Class::Final => return failed(fault),
                // How long to wait is up to `Auth`, which also ends it; this is for a server that
                // accepts and refuses by turns.
                Class::Unauthorized if unauthorized < MAX_UNAUTHORIZED => {
                    unauthorized += 1;
                    Duration::ZERO
                }
                Class::Unauthorized => return failed(fault),
                Class::Passing | Class::Busy => match waits.next() {
                    Some(wait) => wait,
                    None => return failed(client.pace.too_long().map_or(fault, Fault::ToldToWait)),
                },
            };
            tracing::debug!(
                instance = %client.options.instance,
                error = %fault,
                attempt = attempts,
                wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                "request failed, asking again"
            );
            if class == Class::Busy {
                client.pace.hold(wait);
            } else {
                tokio::select! {
                    biased;
                    () = self.cancel.cancelled() => return failed(Fault::Cancelled),
                    () = tokio::time::sleep(wait) => {}
                }
            }
            self.tally.retry();
        }
    }

    /// One attempt, with what was being asked for when it failed.
    async fn attempt<T>(
        &self,
        what: What,
        url: &Url,
        judge: impl Fn(&Answer) -> Result<T, Fault>,
    ) -> Result<T, (What, Fault)> {
        let auth = &self.client.auth;
        let grant = auth
            .grant(self)
            .await
            .map_err(|fault| (What::Credentials, fault))?;
        let request = Request {
            method: Method::GET,
            url: url.clone(),
            authorization: Some(grant.header.clone()),
            form: Vec::new(),
        };
        let answer = self.send(request).await.map_err(|fault| (what, fault))?;
        match judge(&answer) {
            Ok(value) => {
                auth.accepted(self, grant).await;
                Ok(value)
            }
            Err(Fault::Status(refusal)) if refusal.status == StatusCode::UNAUTHORIZED => {
                // What is refused for groups alone says nothing of the credentials: users are asked for with the same ones.
                let decides = !matches!(
                    what,
                    What::List(ResourceType::Group) | What::Get(ResourceType::Group)
                );
                let fault = auth.rejected(self, grant, refusal, decides).await;
                Err((what, fault))
            }
            Err(fault) => {
                if matches!(&fault, Fault::Status(refusal) if refusal.speaks_to_the_account()) {
                    auth.accepted(self, grant).await;
                }
                Err((what, fault))
            }
        }
    }

    /// Sends one request: the one way out. Takes its place in the queue, keeps the total time, and
    /// heeds what the answer's headers ask for.
    pub(super) async fn send(&self, request: Request) -> Result<Answer, Fault> {
        let client = &*self.client;
        if request.url.origin() != client.options.origin.origin() {
            return Err(Fault::ForeignOrigin {
                origin: request.url.origin().ascii_serialization(),
            });
        }
        let _slot = client
            .pace
            .admit(self.priority, &self.cancel, &self.tally)
            .await?;
        self.tally.request();
        let began = tokio::time::Instant::now();
        let timeout = client.options.timeout;
        let answer = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Fault::Cancelled),
            answer = tokio::time::timeout(timeout, client.exchange.exchange(request)) => {
                answer.unwrap_or(Err(ExchangeError::TimedOut(timeout)))?
            }
        };
        self.tally.received(answer.body.len());
        self.tally.answered(began.elapsed());
        tracing::trace!(
            instance = %client.options.instance,
            status = answer.status.as_u16(),
            bytes = answer.body.len(),
            duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "answer received"
        );
        let told = Told::read(answer.status, &answer.headers, client.now());
        if let Some(kept) = told.limit.and_then(|limit| client.pace.learn(limit)) {
            tracing::warn!(
                instance = %client.options.instance,
                per_hour = kept.get(),
                "the instance allows fewer requests than `rate`: as many are sent in an hour at most, incremental syncs first"
            );
        }
        // One that does not say for how long is repeated like any other failure.
        if answer.status == http::StatusCode::TOO_MANY_REQUESTS
            && let Some(wait) = told.wait
            && client.pace.refused(wait)
        {
            tracing::warn!(
                instance = %client.options.instance,
                "the instance refuses requests because there are too many: it is left alone for as long as it asks"
            );
        }
        if answer.status.is_success()
            && let Some(over) = client.pace.taken()
        {
            tracing::info!(
                instance = %client.options.instance,
                n_refused = over.count,
                lasted_s = over.lasted().as_secs(),
                "the instance takes requests again"
            );
        }
        if let Some(wait) = told.wait
            && matches!(
                retry::status_class(answer.status),
                Class::Passing | Class::Busy
            )
        {
            client.pace.hold(wait);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{
        Reply, Script, Sent, answer, basic, first, json, json_with, literal, options, origin, page,
        session,
    };
    use super::*;

    const USER: ResourceType = ResourceType::User;

    /// What a list request gives when the instance answers like this, and what was sent.
    async fn listed(
        rule: impl Fn(&Sent, usize) -> Reply + Send + Sync + 'static,
    ) -> (Result<Listing, Error>, Vec<Sent>, Session) {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(rule);
        let session = session(options(basic(), folder.path()), &script);
        let listing = session.list(USER, &first(2)).await;
        (listing, script.sent(), session)
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_request_is_sorted_and_counted_and_quotes_its_filter() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|_, _| page(0, &[]));
        let session = session(options(basic(), folder.path()), &script);
        let query = ListQuery {
            filter: Some(r#"userName eq "a+b & c""#.into()),
            start_index: 201,
            count: 200,
        };
        session.list(USER, &query).await.unwrap();
        let sent = &script.sent()[0];
        assert_eq!(
            sent.url.as_str(),
            "https://acme.service-now.com/api/now/scim/Users?filter=userName%20eq%20%22a%2Bb%20%26%20c%22&startIndex=201&count=200&sortBy=id&sortOrder=ascending"
        );
        assert_eq!(
            sent.authorization.as_deref(),
            Some("Basic c3luYzpodXNo"),
            "sync:hush"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_id_is_one_segment_of_the_path_or_is_not_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|sent, _| {
            let mut segments = sent.url.path_segments().unwrap();
            let id = segments.next_back().unwrap();
            assert_eq!(
                segments.collect::<Vec<_>>(),
                ["api", "now", "scim", "Users"]
            );
            assert_eq!(sent.url.query(), None);
            let id = percent_decoded(id);
            json(200, &format!(" {{\"id\":{}}} ", serde_json::json!(id)))
        });
        let session = session(options(basic(), folder.path()), &script);
        let askable = [
            "3f1c", "a/b", "a\\b", "%2e%2e", "..a", "a?b#c", "ä ö", "a;b=c", " ",
        ];
        for id in askable {
            let asked = session.get(USER, &ResourceId::new(id)).await.unwrap();
            let Asked::Found(row) = asked else {
                panic!("{id}: {asked:?}");
            };
            assert_eq!(row.id.as_str(), id);
            assert!(row.raw.starts_with(b"{") && row.raw.ends_with(b"}"));
        }
        assert_eq!(script.sent().len(), askable.len());
        for id in ["", ".", "..", "a\nb", "a\0b", "\u{85}"] {
            let asked = session.get(USER, &ResourceId::new(id)).await.unwrap();
            assert!(matches!(asked, Asked::Unclear(_)), "{id:?}");
        }
        assert_eq!(script.sent().len(), askable.len(), "nothing was sent");
    }

    fn percent_decoded(text: &str) -> String {
        // As the name of a form field, with what would end it escaped first.
        let name = text
            .replace('+', "%2B")
            .replace('=', "%3D")
            .replace('&', "%26");
        let mut pairs = form_urlencoded::parse(name.as_bytes());
        pairs.next().map(|(name, _)| name.into_owned()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_asked_again_and_what_does_not_is_not() {
        type Failure = fn() -> Reply;
        let html = || {
            Reply::Answer(answer(
                200,
                &[("content-type", "text/html")],
                b"<title>Instance Hibernating page</title>",
            ))
        };
        let passing: &[(&str, Failure)] = &[
            ("429", || json(429, "")),
            ("202", || json(202, "")),
            ("500", || json(500, "")),
            ("502", || json(502, "")),
            ("503", || json(503, "")),
            ("504", || json(504, "")),
            ("408", || json(408, "")),
            ("html", html),
            ("reset", || {
                Reply::Fail(ExchangeError::Broken("reset".into()))
            }),
            ("connect", || {
                Reply::Fail(ExchangeError::Connect("refused".into()))
            }),
            ("dns", || {
                Reply::Fail(ExchangeError::Resolve("nobody".into()))
            }),
            ("stalled", || Reply::Hang),
            ("cut", || json(200, r#"{"schemas":["urn"#)),
            ("error inside", || {
                json(200, r#"{"error":{"message":"busy"},"status":"failure"}"#)
            }),
        ];
        for (name, failure) in passing {
            let failure = *failure;
            let (listing, sent, session) =
                listed(move |_, before| if before == 0 { failure() } else { page(0, &[]) }).await;
            assert!(listing.is_ok(), "{name}: {listing:?}");
            assert_eq!(sent.len(), 2, "{name}");
            let tally = session.tally.snapshot();
            assert_eq!((tally.requests, tally.retries), (2, 1), "{name}");
            let other = session
                .client
                .session(Priority::Low, CancellationToken::new());
            assert_eq!(other.tally.snapshot().requests, 0, "{name}");
            assert_eq!(session.client.spent().snapshot(), tally, "{name}");

            let (listing, sent, _) = listed(move |_, _| failure()).await;
            let error = listing.unwrap_err();
            assert!(error.is_transient(), "{name}");
            assert_eq!(sent.len(), 5, "{name}");
            assert!(error.to_string().contains("(5 attempts)"), "{error}");
        }
        let lasting: &[(&str, Failure)] = &[
            ("tls", || Reply::Fail(ExchangeError::Tls("expired".into()))),
            ("302", || json_with(302, &[("location", "/login")], "")),
            ("400", || json(400, "")),
            ("403", || json(403, "")),
            ("404", || json(404, "")),
            ("406", || json(406, "")),
            ("not a list", || json(200, "{}")),
            ("unreadable", || json(200, "{\"a\":\"\u{1}\"}")),
        ];
        for (name, failure) in lasting {
            let failure = *failure;
            let (listing, sent, _) = listed(move |_, _| failure()).await;
            let error = listing.unwrap_err();
            assert!(!error.is_transient(), "{name}");
            assert_eq!(sent.len(), 1, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_the_instance_asks_for_is_kept_by_everybody() {
        let (listing, sent, session) = listed(|_, before| match before {
            0 => json_with(429, &[("retry-after", "100")], ""),
            _ => page(0, &[]),
        })
        .await;
        listing.unwrap();
        assert!(sent[1].at >= sent[0].at + Duration::from_secs(100));
        assert!(sent[1].at < sent[0].at + Duration::from_secs(101));
        let throttled = session.tally.snapshot().throttled_ms;
        assert!((100_000..101_000).contains(&throttled), "{throttled}");
        assert_eq!(session.client.not_before(), None, "it is over");
    }

    #[tokio::test(start_paused = true)]
    async fn told_to_wait_longer_than_a_sync_waits_is_an_error_that_says_how_long() {
        let (listing, sent, first_session) =
            listed(|_, _| json_with(429, &[("retry-after", "1312")], "")).await;
        let error = listing.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1312)));
        assert!(error.is_transient() && !error.is_auth());
        assert_eq!(sent.len(), 1);

        // Whoever comes next does not ask, and after a restart neither.
        let until = first_session.client.not_before().unwrap();
        let next = first_session.list(USER, &first(2)).await.unwrap_err();
        assert!(next.retry_after().is_some());
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|_, _| page(0, &[]));
        let restarted = session(options(basic(), folder.path()), &script);
        restarted.client.set_not_before(until);
        assert!(
            restarted
                .list(USER, &first(2))
                .await
                .unwrap_err()
                .retry_after()
                .is_some()
        );
        assert_eq!(script.sent().len(), 0);
        tokio::time::sleep(Duration::from_secs(1312)).await;
        restarted.list(USER, &first(2)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_wait_ends_within_the_hour() {
        let (_, _, session) =
            listed(|_, _| json_with(429, &[("retry-after", "1000000000000")], "")).await;
        let until = session.client.not_before().unwrap();
        assert!(until <= session.client.now() + Duration::from_secs(3600));
        session
            .client
            .set_not_before("9999-01-01T00:00:00Z".parse().unwrap());
        let until = session.client.not_before().unwrap();
        assert!(until <= session.client.now() + Duration::from_secs(3600));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_hangs_ends_with_its_time() {
        let (listing, sent, _) = listed(|_, _| Reply::Hang).await;
        assert!(listing.unwrap_err().is_timeout());
        let between = sent[1].at - sent[0].at;
        assert!(between >= Duration::from_secs(61), "{between:?}");
        assert!(between < Duration::from_secs(63), "{between:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_ends_waits_and_requests_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for rule in [
            (|_: &Sent, _| Reply::Hang) as fn(&Sent, usize) -> Reply,
            |_, _| json(500, ""),
            |_, _| json_with(429, &[("retry-after", "200")], ""),
        ] {
            let script = Script::new(rule);
            let session = session(options(basic(), folder.path()), &script);
            let cancel = session.cancel.clone();
            let stopped_after = Duration::from_millis(1500);
            tokio::spawn(async move {
                tokio::time::sleep(stopped_after).await;
                cancel.cancel();
            });
            let began = tokio::time::Instant::now();
            let error = session.list(USER, &first(2)).await.unwrap_err();
            assert!(error.is_cancelled());
            assert!(began.elapsed() < stopped_after + Duration::from_millis(10));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_is_gone_only_if_the_instance_says_so_in_json() {
        let folder = tempfile::tempdir().unwrap();
        let asked = async |reply: fn() -> Reply| {
            let script = Script::new(move |_, _| reply());
            let session = session(options(basic(), folder.path()), &script);
            session.get(USER, &ResourceId::new("u1")).await
        };
        let not_found: [fn() -> Reply; 3] = [
            || {
                json(
                    404,
                    r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"404","detail":"User not found u1"}"#,
                )
            },
            || {
                json(
                    404,
                    r#"{"error":{"message":"No Record found","detail":"Record doesn't exist or ACL restricts the record retrieval"},"status":"failure"}"#,
                )
            },
            || {
                json(
                    404,
                    r#"{"errors":{"status":"404","detail":"User not found u1"}}"#,
                )
            },
        ];
        for reply in not_found {
            assert!(matches!(asked(reply).await, Ok(Asked::NotFound)));
        }
        let unclear: [fn() -> Reply; 10] = [
            || {
                Reply::Answer(answer(
                    404,
                    &[("content-type", "text/html")],
                    b"<h1>Not found</h1>",
                ))
            },
            || {
                Reply::Answer(answer(
                    404,
                    &[("content-type", "text/html")],
                    br#"{"error":{"message":"No Record found"}}"#,
                ))
            },
            || {
                json(
                    404,
                    r#"{"error":{"message":"Requested URI does not represent any resource","detail":null},"status":"failure"}"#,
                )
            },
            || {
                json(
                    400,
                    r#"{"error":{"message":"Requested URI does not represent any resource","detail":null},"status":"failure"}"#,
                )
            },
            || {
                json(
                    404,
                    r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"403","detail":"no"}"#,
                )
            },
            || json(404, "{}"),
            || json(404, ""),
            || {
                json(
                    403,
                    r#"{"error":{"message":"User Not Authorized","detail":null},"status":"failure"}"#,
                )
            },
            || {
                json(
                    410,
                    r#"{"schemas":["urn:ietf:params:scim:api:messages:2.0:Error"],"status":"410"}"#,
                )
            },
            || json(200, r#"{"id":"u2"}"#),
        ];
        for (place, reply) in unclear.into_iter().enumerate() {
            let asked = asked(reply).await;
            assert!(matches!(asked, Ok(Asked::Unclear(_))), "{place}: {asked:?}");
        }
        let failed: [fn() -> Reply; 3] = [
            || json(503, ""),
            || json(200, r#"{"error":{"message":"busy"},"status":"failure"}"#),
            || json(200, r#"{"id":"u1""#),
        ];
        for (place, reply) in failed.into_iter().enumerate() {
            let asked = asked(reply).await;
            assert!(asked.unwrap_err().is_transient(), "{place}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_credential_goes_to_another_origin() {
        let folder = tempfile::tempdir().unwrap();
        for elsewhere in [
            "https://evil.example/oauth_token.do",
            "http://acme.service-now.com/oauth_token.do",
            "https://acme.service-now.com:8443/oauth_token.do",
            "https://x.acme.service-now.com/oauth_token.do",
        ] {
            let script = Script::new(|_, _| page(0, &[]));
            let auth = AuthOptions::ClientCredentials {
                client_id: "c1".into(),
                client_secret: literal("hush"),
                token_url: elsewhere.parse().unwrap(),
            };
            let session = session(options(auth, folder.path()), &script);
            let error = session.list(USER, &first(1)).await.unwrap_err();
            assert!(
                matches!(error.fault(), Fault::ForeignOrigin { .. }),
                "{error}"
            );
            assert_eq!(script.sent().len(), 0);
        }
        assert_eq!(origin().path(), "/");
    }
}
