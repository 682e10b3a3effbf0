//! Credentials and tokens: one token for all that talks to an instance, and patience with refusals,
//! because accounts lock after a few tries.

use std::time::Duration;

use http::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::auth_state::{AuthState, Digest, Refused, Rotated};
use super::client::{Request, Session};
pub use super::credentials::AuthOptions;
use super::error::{Fault, Refusal};
pub use super::secret::SecretSource;
use super::token::{self, Token};

/// Refused credentials are not tried again for so long, unless they change. An account that locked
/// after five wrong tries unlocks after 15 minutes (facts page, section 13.1).
pub const REFUSED_FOR: Duration = Duration::from_secs(30 * 60);

/// Tries of a token request that the token endpoint refuses: good credentials are refused for
/// moments, but five bad ones lock the account (facts page, sections 13.1 and 13.3).
const TRIES_AT_ENDPOINT: u32 = 2;

/// Tries of what the API refuses with 401 (facts page, section 13.3).
const TRIES_AT_API: u32 = 3;

/// The wait after the first refusal; it doubles twice.
const REFUSAL_PAUSE: Duration = Duration::from_secs(8);

/// When a token cannot be renewed though it still works, the next try is so much later.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);

/// The credentials of one instance.
#[derive(Default)]
pub struct Auth {
    /// `None` until the state was read from disk.
    inner: Mutex<Option<Inner>>,
}

/// What one request authenticates with.
pub struct Grant<'a> {
    /// The `Authorization` header.
    pub header: SecretString,
    /// Which token or secret it is.
    number: u64,
    /// Held while nobody knows whether it is accepted: then one request at a time tries it.
    trial: Option<MappedMutexGuard<'a, Inner>>,
}

struct Inner {
    state: AuthState,
    /// Whether `state` holds a refresh token that is not on disk yet.
    unsaved: bool,
    /// Of the secrets as last read.
    digest: Option<Digest>,
    /// Counts the tokens and secrets used so far.
    number: u64,
    /// Whether the API accepted the one in use.
    proven: bool,
    token: Option<Token>,
    /// Refusals by the token endpoint.
    at_endpoint: Patience,
    /// Refusals by the API.
    at_api: Patience,
}

/// Refusals in a row, and when the next try may be made.
#[derive(Default)]
struct Patience {
    refusals: u32,
    not_before: Option<Instant>,
}

impl Patience {
    /// One more refusal; whether that was the last try.
    fn refused(&mut self, tries: u32) -> bool {
        let pause = REFUSAL_PAUSE * (1 << self.refusals.min(2));
        self.refusals += 1;
        self.not_before = Some(Instant::now() + pause);
        self.refusals >= tries
    }

    /// Sits out the pause after a refusal.
    async fn wait(&self, cancel: &CancellationToken) -> Result<(), Fault> {
        let Some(moment) = self.not_before else {
            return Ok(());
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(Fault::Cancelled),
            () = tokio::time::sleep_until(moment) => Ok(()),
        }
    }

    /// Refused before, by what was remembered: one more try is the last.
    fn last_chance(tries: u32) -> Self {
        Self {
            refusals: tries - 1,
            not_before: None,
        }
    }
}

impl Auth {
    /// What the next request authenticates with: a secret, or a token that has not ended.
    ///
    /// # Errors
    /// When there is none; where a token was asked for, also what became of that request.
    pub async fn grant(&self, session: &Session) -> Result<Grant<'_>, Fault> {
        let mut inner = self.lock(session).await?;
        let header = match session.client.options().auth.token_url() {
            Some(token_url) => inner.token(session, token_url).await?,
            None => inner.secret(session).await?,
        };
        let number = inner.number;
        let trial = if inner.proven {
            None
        } else {
            inner.at_api.wait(&session.cancel).await?;
            Some(inner)
        };
        Ok(Grant {
            header,
            number,
            trial,
        })
    }

    /// The API accepted it.
    pub async fn accepted(&self, session: &Session, grant: Grant<'_>) {
        let Some(mut inner) = grant.trial else { return };
        inner.proven = true;
        inner.at_api = Patience::default();
        if session.client.options().auth.token_url().is_none() {
            inner.forgive(session).await;
        }
    }

    /// The API refused it with 401. A token that worked before is renewed; anything else is tried a
    /// few times more, and then not sent again for a while. A request that does not `decide` about credentials ends at once.
    pub async fn rejected(
        &self,
        session: &Session,
        grant: Grant<'_>,
        refusal: Refusal,
        decides: bool,
    ) -> Fault {
        let mut inner = match grant.trial {
            Some(inner) => inner,
            None => match self.lock(session).await {
                Ok(inner) => inner,
                Err(fault) => return fault,
            },
        };
        if inner.number != grant.number {
            // Somebody else has seen to it.
            return Fault::Status(refusal);
        }
        let refusal = inner.discreet(session, refusal).await;
        let worked = std::mem::take(&mut inner.proven);
        let auth = &session.client.options().auth;
        if auth.token_url().is_none() {
            if !decides {
                return Fault::Refused {
                    refusal,
                    by_systemd: auth.is_by_systemd(),
                };
            }
            if inner.at_api.refused(TRIES_AT_API) {
                return inner.give_up(session, refusal).await;
            }
            return Fault::Status(refusal);
        }
        if worked {
            // Whoever else holds it need not be told twice.
            inner.number += 1;
            inner.token = None;
            return Fault::Status(refusal);
        }
        if !inner.at_api.refused(TRIES_AT_API) {
            return Fault::Status(refusal);
        }
        // The credentials themselves were accepted: no account locks, and the next sync may ask again.
        inner.token = None;
        Fault::Refused {
            refusal,
            by_systemd: auth.is_by_systemd(),
        }
    }

    async fn lock(&self, session: &Session) -> Result<MappedMutexGuard<'_, Inner>, Fault> {
        let mut place = tokio::select! {
            biased;
            () = session.cancel.cancelled() => return Err(Fault::Cancelled),
            place = self.inner.lock() => place,
        };
        let inner = match place.take() {
            Some(inner) => inner,
            None => Inner::new(AuthState::load(&session.client.options().auth_state).await?),
        };
        Ok(MutexGuard::map(place, |place| place.insert(inner)))
    }
}

impl Inner {
    fn new(state: AuthState) -> Self {
        Self {
            state,
            unsaved: false,
            digest: None,
            number: 0,
            proven: false,
            token: None,
            at_endpoint: Patience::default(),
            at_api: Patience::default(),
        }
    }

    /// The header of Basic or of a token from elsewhere.
    async fn secret(&mut self, session: &Session) -> Result<SecretString, Fault> {
        let auth = &session.client.options().auth;
        let secrets = auth.read().await?;
        let digest = self.state.digest(&auth.parts(&secrets));
        if self.notice(digest) {
            self.number += 1;
            self.proven = false;
        }
        if !self.proven {
            self.expect_not_refused(session)?;
        }
        // One source, one secret.
        Ok(secrets
            .last()
            .map_or_else(SecretString::default, |secret| auth.header(secret)))
    }

    /// The header of the token in use, which is renewed where that is due.
    async fn token(&mut self, session: &Session, token_url: &Url) -> Result<SecretString, Fault> {
        let options = session.client.options();
        let now = Instant::now();
        let works = self.token.as_ref().is_some_and(|token| token.works(now));
        let is_due = self.token.as_ref().is_some_and(|token| token.is_due(now));
        if !works || is_due {
            match (self.renew(session, token_url).await, &mut self.token) {
                (Ok(()), _) => {}
                (Err(fault), Some(token)) if works && !matches!(fault, Fault::Cancelled) => {
                    tracing::debug!(
                        instance = %options.instance,
                        error = %fault,
                        "token not renewed, the one in use still works"
                    );
                    token.renew_at = Some(Instant::now() + RENEWAL_PAUSE);
                }
                (Err(fault), _) => return Err(fault),
            }
        }
        let token = self.token.as_ref();
        Ok(token.map_or_else(SecretString::default, |token| {
            options.auth.header(&token.text)
        }))
    }

    /// Asks for a token. A rotated refresh token is on disk before the token that came with it is
    /// used.
    async fn renew(&mut self, session: &Session, token_url: &Url) -> Result<(), Fault> {
        if self.unsaved {
            self.save(session).await?;
        }
        let auth = &session.client.options().auth;
        let rotates = matches!(auth, AuthOptions::RefreshToken { .. });
        let mut secrets = auth.read().await?;
        let descent = self.state.digest(&auth.descent(&secrets));
        if let Some(rotated) = &self.state.rotated
            && rotates
            && rotated.derived_from == descent
        {
            secrets.pop();
            secrets.push(SecretString::from(rotated.refresh_token.as_str()));
        }
        self.notice(self.state.digest(&auth.parts(&secrets)));
        self.expect_not_refused(session)?;
        self.at_endpoint.wait(&session.cancel).await?;

        let request = Request {
            method: Method::POST,
            url: token_url.clone(),
            authorization: None,
            form: auth.form(&secrets),
        };
        let answer = token::judge(&session.send(request).await?).map_err(|fault| match fault {
            Fault::Status(refusal) => Fault::Status(refusal.without(&secrets)),
            fault => fault,
        });
        let given = match answer {
            Ok(given) => given,
            Err(Fault::Status(refusal)) if token::is_definite(&refusal) => {
                return Err(self.give_up(session, refusal).await);
            }
            Err(Fault::Status(refusal)) if refusal.status == StatusCode::UNAUTHORIZED => {
                let last = self.at_endpoint.refused(TRIES_AT_ENDPOINT);
                return Err(if last {
                    self.give_up(session, refusal).await
                } else {
                    Fault::Status(refusal)
                });
            }
            Err(fault) => return Err(fault),
        };

        let used = secrets.last().map(|secret| secret.expose_secret());
        if let Some(refresh_token) = given.refresh_token
            && rotates
            && used != Some(refresh_token.expose_secret())
        {
            self.state.rotated = Some(Rotated {
                refresh_token: refresh_token.expose_secret().to_owned(),
                derived_from: descent,
            });
            self.save(session).await?;
        }
        self.forgive(session).await;
        self.at_endpoint = Patience::default();
        self.put_into_use(Token::new(given.token, given.life, Instant::now()));
        Ok(())
    }

    /// Puts a token into use. The platform gives the same one again while it lives (facts page,
    /// section 13.1).
    fn put_into_use(&mut self, token: Token) {
        let is_same = self
            .token
            .as_ref()
            .is_some_and(|known| known.text.expose_secret() == token.text.expose_secret());
        self.token = Some(token);
        if !is_same {
            self.number += 1;
            self.proven = false;
        }
    }

    /// Notes which credentials are in use; whether they are others than before.
    fn notice(&mut self, digest: Digest) -> bool {
        if self.digest.as_ref() == Some(&digest) {
            return false;
        }
        let refused = self.state.refused.as_ref();
        let refused = refused.is_some_and(|refused| refused.digest == digest);
        (self.at_endpoint, self.at_api) = if refused {
            (
                Patience::last_chance(TRIES_AT_ENDPOINT),
                Patience::last_chance(TRIES_AT_API),
            )
        } else {
            Default::default()
        };
        self.digest = Some(digest);
        true
    }

    /// Nothing is sent with credentials that were refused a short while ago.
    fn expect_not_refused(&self, session: &Session) -> Result<(), Fault> {
        let Some(refused) = &self.state.refused else {
            return Ok(());
        };
        let age = session.client.now().duration_since(refused.at);
        // A time to come means that our clock was set back: nobody knows how long ago it was.
        let is_young = Duration::try_from(age).is_ok_and(|age| age < REFUSED_FOR);
        if is_young && self.digest.as_ref() == Some(&refused.digest) {
            return Err(Fault::RefusedBefore {
                at: refused.at,
                said: refused.said.clone(),
                by_systemd: session.client.options().auth.is_by_systemd(),
            });
        }
        Ok(())
    }

    /// What the API said of the secret or the token in use, without it.
    async fn discreet(&self, session: &Session, refusal: Refusal) -> Refusal {
        let secrets = session.client.options().auth.read().await;
        let token = self.token.as_ref().map(|token| &token.text);
        refusal.without(secrets.iter().flatten().chain(token))
    }

    /// That was the last try.
    async fn give_up(&mut self, session: &Session, refusal: Refusal) -> Fault {
        self.state.refused = self.digest.clone().map(|digest| Refused {
            at: session.client.now(),
            digest,
            said: Some(refusal.to_string()),
        });
        self.save_if_possible(session).await;
        Fault::Refused {
            refusal,
            by_systemd: session.client.options().auth.is_by_systemd(),
        }
    }

    /// The credentials are good.
    async fn forgive(&mut self, session: &Session) {
        if self.state.refused.take().is_some() {
            self.save_if_possible(session).await;
        }
    }

    async fn save(&mut self, session: &Session) -> Result<(), Fault> {
        self.unsaved = true;
        self.state
            .save(&session.client.options().auth_state)
            .await?;
        self.unsaved = false;
        Ok(())
    }

    /// Remembers what would only be good to know after a restart: this process knows it anyway.
    async fn save_if_possible(&mut self, session: &Session) {
        let was_unsaved = self.unsaved;
        if let Err(fault) = self.save(session).await {
            self.unsaved = was_unsaved;
            tracing::warn!(
                instance = %session.client.options().instance,
                error = %fault,
                "it cannot be remembered that credentials were refused: each start tries them again, until the account locks"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::super::client::Priority;
    use super::super::error::Error;
    use super::super::script::{
        Reply, Script, Sent, access_denied, basic, client_credentials, first, json, literal,
        options, page, session, session_at, token, token_url, unauthorized,
    };
    use super::*;
    use crate::clock::ManualClock;
    use crate::model::ResourceType;

    async fn list(session: &Session) -> Result<(), Error> {
        let listing = session.list(ResourceType::User, &first(2)).await;
        listing.map(|_| ())
    }

    fn refresh_token(text: &str) -> AuthOptions {
        AuthOptions::RefreshToken {
            client_id: "c1".into(),
            client_secret: literal("hush"),
            refresh_token: literal(text),
            token_url: token_url(),
        }
    }

    fn bearer_is(sent: &Sent, token: &str) -> bool {
        sent.authorization.as_deref() == Some(&format!("Bearer {token}"))
    }

    #[tokio::test(start_paused = true)]
    async fn each_grant_sends_what_the_token_endpoint_wants() {
        let password = AuthOptions::Password {
            client_id: "c1".into(),
            client_secret: literal("hush"),
            username: "sync".into(),
            password: literal("pass"),
            token_url: token_url(),
        };
        let secret = ("client_secret", "hush");
        let client = ("client_id", "c1");
        for (auth, form) in [
            (
                client_credentials(),
                vec![("grant_type", "client_credentials"), client, secret],
            ),
            (
                password,
                vec![
                    ("grant_type", "password"),
                    client,
                    ("username", "sync"),
                    secret,
                    ("password", "pass"),
                ],
            ),
            (
                refresh_token("r1"),
                vec![
                    ("grant_type", "refresh_token"),
                    client,
                    secret,
                    ("refresh_token", "r1"),
                ],
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let script = Script::new(|sent, _| {
                if sent.is_for_token() {
                    token("t1", 1800)
                } else {
                    page(0, &[])
                }
            });
            list(&session(options(auth, folder.path()), &script))
                .await
                .unwrap();
            let sent = script.sent();
            assert_eq!(sent[0].url, token_url());
            assert_eq!(sent[0].authorization, None);
            let sent_form: Vec<_> = sent[0]
                .form
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            assert_eq!(sent_form, form);
            assert!(bearer_is(&sent[1], "t1"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_share_one_token_request() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|sent, _| match sent.is_for_token() {
            true => Reply::Late(Duration::from_secs(2), Box::new(token("t1", 1800))),
            false => page(0, &[]),
        });
        let session = session(options(client_credentials(), folder.path()), &script);
        let asking: Vec<_> = (0..20)
            .map(|_| {
                let session = session.clone();
                tokio::spawn(async move { list(&session).await })
            })
            .collect();
        for task in asking {
            task.await.unwrap().unwrap();
        }
        assert_eq!(script.count(true), 1);
        assert_eq!(script.count(false), 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|sent, before| match sent.is_for_token() {
            true => token(&format!("t{before}"), 1800),
            false => page(0, &[]),
        });
        let session = session(options(client_credentials(), folder.path()), &script);
        for seconds in [0, 1000, 1739, 1741, 3000] {
            tokio::time::sleep_until(Instant::now() + Duration::from_secs(seconds)).await;
            list(&session).await.unwrap();
        }
        let used: Vec<_> = script
            .sent()
            .into_iter()
            .filter(|sent| !sent.is_for_token())
            .map(|sent| sent.authorization.unwrap())
            .collect();
        assert_eq!(
            used,
            [
                "Bearer t0",
                "Bearer t0",
                "Bearer t1",
                "Bearer t2",
                "Bearer t3"
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_in_use_works_on_while_the_endpoint_is_down() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|sent, before| match (sent.is_for_token(), before) {
            (true, 0) => token("t0", 1800),
            (true, _) => json(503, ""),
            (false, _) => page(0, &[]),
        });
        let session = session(options(client_credentials(), folder.path()), &script);
        list(&session).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1750)).await;
        for _ in 0..10 {
            list(&session).await.unwrap();
        }
        assert_eq!(script.count(true), 2, "not asked for with every request");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let error = list(&session).await.unwrap_err();
        assert!(error.is_transient() && !error.is_auth(), "{error}");
        assert!(error.to_string().contains("cannot authenticate"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_ends_between_pages_is_renewed_once_and_the_request_repeated() {
        let folder = tempfile::tempdir().unwrap();
        // The first token dies after five pages.
        let script = Script::new(|sent, before| match sent.is_for_token() {
            true => token(&format!("t{before}"), 1800),
            false if bearer_is(sent, "t0") && before >= 5 => {
                Reply::Late(Duration::from_millis(100), Box::new(unauthorized()))
            }
            false => Reply::Late(Duration::from_millis(100), Box::new(page(0, &[]))),
        });
        let session = session(options(client_credentials(), folder.path()), &script);
        for _ in 0..5 {
            list(&session).await.unwrap();
        }
        let began = Instant::now();
        let asking: Vec<_> = (0..4)
            .map(|_| {
                let session = session.clone();
                tokio::spawn(async move { list(&session).await })
            })
            .collect();
        for task in asking {
            task.await.unwrap().unwrap();
        }
        assert_eq!(script.count(true), 2, "one renewal for all four");
        assert_eq!(script.count(false), 5 + 4 + 4, "each repeated once");
        assert!(began.elapsed() < Duration::from_secs(1), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn good_credentials_refused_for_seconds_are_tried_again() {
        for (auth, refused) in [
            (basic(), unauthorized as fn() -> Reply),
            (client_credentials(), unauthorized),
            (client_credentials(), access_denied),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let at_endpoint = std::ptr::fn_addr_eq(refused, access_denied as fn() -> Reply);
            let script = Script::new(move |sent, before| {
                if sent.is_for_token() == at_endpoint && before == 0 {
                    refused()
                } else if sent.is_for_token() {
                    token("t0", 1800)
                } else {
                    page(0, &[])
                }
            });
            list(&session(options(auth, folder.path()), &script))
                .await
                .unwrap();
        }
    }

    /// An instance that refuses the password `hush`, and accepts every other.
    fn refusing() -> Arc<Script> {
        Script::new(|sent, _| {
            let wrong = match sent.is_for_token() {
                true => sent.field("client_secret") == Some("hush"),
                false => sent.authorization.as_deref() == Some("Basic c3luYzpodXNo"),
            };
            match (wrong, sent.is_for_token()) {
                (true, true) => access_denied(),
                (true, false) => unauthorized(),
                (false, true) => token("t0", 1800),
                (false, false) => page(0, &[]),
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_credentials_are_tried_three_times_at_most_also_across_restarts() {
        for auth in [basic(), client_credentials()] {
            let folder = tempfile::tempdir().unwrap();
            let start = "2026-03-01T08:00:00Z".parse().unwrap();
            let clock = Arc::new(ManualClock::starting_at(start));
            let script = refusing();
            let restart = || {
                session_at(
                    options(auth.clone(), folder.path()),
                    &script,
                    Arc::clone(&clock),
                )
            };

            let session = restart();
            let asking: Vec<_> = (0..8)
                .map(|_| {
                    let session = session.clone();
                    tokio::spawn(async move { list(&session).await })
                })
                .collect();
            for task in asking {
                let error = task.await.unwrap().unwrap_err();
                assert!(error.is_auth() && !error.is_transient(), "{error}");
                assert!(error.hint().is_some());
            }
            let tries = script.sent().len();
            assert!(tries <= 3, "{tries}");

            // Nor within half an hour, nor after a restart; and what was answered is still told.
            tokio::time::sleep(Duration::from_secs(20 * 60)).await;
            list(&session).await.unwrap_err();
            let error = list(&restart()).await.unwrap_err();
            assert!(error.to_string().contains(": answered 401 ("), "{error}");
            assert!(
                matches!(error.fault(), Fault::RefusedBefore { .. }),
                "{error}"
            );
            assert_eq!(script.sent().len(), tries);

            // Then once, in the same process as after a restart.
            for session in [session, restart()] {
                tokio::time::sleep(Duration::from_secs(31 * 60)).await;
                let before = script.sent().len();
                assert!(list(&session).await.unwrap_err().is_auth());
                assert!(list(&session).await.unwrap_err().is_auth());
                assert_eq!(script.sent().len(), before + 1);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changed_secrets_are_tried_at_once() {
        for of_tokens in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("secret");
            std::fs::write(&file, "hush\n").unwrap();
            let secret = SecretSource::File(file.clone());
            let auth = match of_tokens {
                false => AuthOptions::Basic {
                    username: "sync".into(),
                    password: secret,
                },
                true => AuthOptions::ClientCredentials {
                    client_id: "c1".into(),
                    client_secret: secret,
                    token_url: token_url(),
                },
            };
            let script = refusing();
            let session = session(options(auth, folder.path()), &script);
            assert!(list(&session).await.unwrap_err().is_auth());
            std::fs::write(&file, "mended\n").unwrap();
            list(&session).await.unwrap();
            let remembered = std::fs::read_to_string(folder.path().join("acme.auth")).unwrap();
            assert!(remembered.contains(r#""refused":null"#), "{remembered}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_known_to_be_unwelcome_is_not_tried_twice() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|_, _| json(400, r#"{"error":"unauthorized_client"}"#));
        let session = session(options(client_credentials(), folder.path()), &script);
        let error = list(&session).await.unwrap_err();
        assert!(error.is_auth());
        assert!(error.hint().unwrap().contains("application user"));
        assert_eq!(script.sent().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_that_refuses_fresh_tokens_locks_nobody_out() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|sent, before| match sent.is_for_token() {
            true => token(&format!("t{before}"), 1800),
            false => unauthorized(),
        });
        let session = session(options(client_credentials(), folder.path()), &script);
        assert!(list(&session).await.unwrap_err().is_auth());
        assert_eq!((script.count(true), script.count(false)), (1, 3));
        // The next sync asks again, once.
        assert!(list(&session).await.unwrap_err().is_auth());
        assert_eq!((script.count(true), script.count(false)), (2, 4));
    }

    /// What the file says is the refresh token.
    fn on_disk(folder: &Path) -> Option<String> {
        let text = std::fs::read_to_string(folder.join("acme.auth")).ok()?;
        let state: AuthState = serde_json::from_str(&text).ok()?;
        Some(state.rotated?.refresh_token)
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotated_refresh_token_is_on_disk_before_its_token_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        // Every refresh token works once.
        let script = Script::new(move |sent, before| {
            if !sent.is_for_token() {
                let number = sent
                    .authorization
                    .as_ref()
                    .unwrap()
                    .strip_prefix("Bearer t");
                let expected = format!("r{}", number.unwrap());
                assert_eq!(on_disk(&path), Some(expected), "stored before used");
                return page(0, &[]);
            }
            let given = before + 1;
            assert_eq!(
                sent.field("refresh_token"),
                Some(format!("r{before}").as_str())
            );
            json(
                200,
                &format!(
                    r#"{{"access_token":"t{given}","token_type":"Bearer","expires_in":1800,"refresh_token":"r{given}"}}"#
                ),
            )
        });
        let restart = || session(options(refresh_token("r0"), folder.path()), &script);
        let running = restart();
        list(&running).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1800)).await;
        list(&running).await.unwrap();
        list(&restart()).await.unwrap();
        assert_eq!(on_disk(folder.path()).as_deref(), Some("r3"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rotated_refresh_token_that_cannot_be_stored_is_not_used_and_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let state_folder = folder.path().join("state");
        let script = Script::new(|sent, before| match sent.is_for_token() {
            false => page(0, &[]),
            true => json(
                200,
                &format!(
                    r#"{{"access_token":"t{before}","token_type":"Bearer","expires_in":1800,"refresh_token":"r{}"}}"#,
                    before + 1
                ),
            ),
        });
        let session = session(options(refresh_token("r0"), &state_folder), &script);
        let error = list(&session).await.unwrap_err();
        assert!(
            matches!(error.fault(), Fault::State { verb: "write", .. }),
            "{error}"
        );
        assert_eq!(script.count(false), 0);
        std::fs::create_dir(&state_folder).unwrap();
        list(&session).await.unwrap();
        let asked_with: Vec<_> = script
            .sent()
            .iter()
            .filter_map(|sent| sent.field("refresh_token").map(ToOwned::to_owned))
            .collect();
        assert_eq!(asked_with, ["r0", "r1"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_newly_configured_refresh_token_counts_more_than_a_rotated_one() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|sent, _| match sent.is_for_token() {
            false => page(0, &[]),
            true => json(
                200,
                r#"{"access_token":"t","token_type":"Bearer","expires_in":1800,"refresh_token":"rotated"}"#,
            ),
        });
        for configured in ["old", "new"] {
            let auth = refresh_token(configured);
            list(&session(options(auth, folder.path()), &script))
                .await
                .unwrap();
            let asked = script.sent();
            let last = asked.iter().rfind(|sent| sent.is_for_token()).unwrap();
            assert_eq!(last.field("refresh_token"), Some(configured));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_client_secret_does_not_void_a_rotated_refresh_token() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|sent, _| match sent.is_for_token() {
            false => page(0, &[]),
            true => json(
                200,
                r#"{"access_token":"t","token_type":"Bearer","expires_in":1800,"refresh_token":"rotated"}"#,
            ),
        });
        for secret in ["hush", "louder"] {
            let mut auth = refresh_token("r0");
            if let AuthOptions::RefreshToken { client_secret, .. } = &mut auth {
                *client_secret = literal(secret);
            }
            list(&session(options(auth, folder.path()), &script))
                .await
                .unwrap();
        }
        let asked_with: Vec<_> = script
            .sent()
            .iter()
            .filter_map(|sent| sent.field("refresh_token").map(ToOwned::to_owned))
            .collect();
        assert_eq!(asked_with, ["r0", "rotated"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_repeats_a_secret_is_neither_shown_nor_kept() {
        for auth in [basic(), client_credentials()] {
            let folder = tempfile::tempdir().unwrap();
            let script = Script::new(|_, _| {
                json(
                    401,
                    r#"{"error":"hush","error_description":"no such secret: hush\u001b[2J"}"#,
                )
            });
            let clock = Arc::new(ManualClock::starting_at(
                "2026-03-01T08:00:00Z".parse().unwrap(),
            ));
            let restart = || {
                let options = options(auth.clone(), folder.path());
                session_at(options, &script, Arc::clone(&clock))
            };
            let first = list(&restart()).await.unwrap_err();
            let later = list(&restart()).await.unwrap_err();
            assert!(
                matches!(later.fault(), Fault::RefusedBefore { said: Some(_), .. }),
                "{later}"
            );
            let file = std::fs::read_to_string(folder.path().join("acme.auth")).unwrap();
            for text in [
                first.to_string(),
                format!("{first:?}"),
                later.to_string(),
                file,
            ] {
                assert!(!text.contains("hush"), "{text}");
            }
            assert!(later.to_string().contains("401 (Unauthorized)"), "{later}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_answered_is_kept_inert_and_a_file_without_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|_, _| {
            json(
                400,
                r#"{"error":"invalid_client","error_description":"a\u001b[2Jb"}"#,
            )
        });
        let clock = Arc::new(ManualClock::starting_at(
            "2026-03-01T08:00:00Z".parse().unwrap(),
        ));
        let restart = || {
            let options = options(client_credentials(), folder.path());
            session_at(options, &script, Arc::clone(&clock))
        };
        list(&restart()).await.unwrap_err();
        let later = list(&restart()).await.unwrap_err().to_string();
        assert!(later.contains(r"a\u{1b}[2Jb"), "{later}");
        // As an older program left it.
        let path = folder.path().join("acme.auth");
        let mut state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        state["refused"]
            .as_object_mut()
            .unwrap()
            .remove("said")
            .unwrap();
        std::fs::write(&path, state.to_string()).unwrap();
        let later = list(&restart()).await.unwrap_err();
        assert!(
            matches!(later.fault(), Fault::RefusedBefore { said: None, .. }),
            "{later}"
        );
        assert_eq!(script.sent().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_secret_is_printed() {
        let folder = tempfile::tempdir().unwrap();
        let auth = AuthOptions::Password {
            client_id: "c1".into(),
            client_secret: literal("hush1"),
            username: "sync".into(),
            password: literal("hush2"),
            token_url: token_url(),
        };
        let options = options(auth, folder.path());
        let shown = format!("{options:?}");
        let script = Script::new(|_, _| access_denied());
        let error = list(&session(options, &script)).await.unwrap_err();
        let shown = format!("{shown} {error} {error:?}");
        assert!(!shown.contains("hush"), "{shown}");
        let remembered = std::fs::read_to_string(folder.path().join("acme.auth")).unwrap();
        assert!(!remembered.contains("hush"), "{remembered}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_waits_for_a_token_can_be_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|_, _| Reply::Hang);
        let first = session(options(client_credentials(), folder.path()), &script);
        let second = first
            .client
            .session(Priority::Low, CancellationToken::new());
        let asking = tokio::spawn({
            let first = first.clone();
            async move { list(&first).await }
        });
        let cancel = second.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            cancel.cancel();
        });
        let began = Instant::now();
        assert!(list(&second).await.unwrap_err().is_cancelled());
        assert!(began.elapsed() < Duration::from_secs(2));
        first.cancel.cancel();
        assert!(asking.await.unwrap().unwrap_err().is_cancelled());
    }
}
