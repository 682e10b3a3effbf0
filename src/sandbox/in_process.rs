//! The simulated instance as the client's other half, in process: nothing but the clock passes
//! between a request and its answer.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use secrecy::ExposeSecret as _;

use super::Sandbox;
use super::message::{Delivery, Incoming};
use crate::scim::client::{Answer, BoxFuture, Exchange, Request};
use crate::scim::error::{Body, ExchangeError};

/// Answers a client in process.
#[derive(Clone)]
pub struct InProcess {
    sandbox: Sandbox,
    timeout: Duration,
}

impl InProcess {
    /// An exchange that gives up on an answer after `timeout`.
    #[must_use]
    pub fn new(sandbox: Sandbox, timeout: Duration) -> Self {
        Self { sandbox, timeout }
    }
}

impl Exchange for InProcess {
    fn exchange(&self, request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
        Box::pin(async move {
            let reply = self.sandbox.answer(&incoming(&request));
            let on_its_way = match reply.delivery {
                Delivery::Whole => Some(reply.delay),
                Delivery::Drip(pause) => {
                    let bytes = u32::try_from(reply.body.len()).unwrap_or(u32::MAX);
                    Some(reply.delay.saturating_add(pause.saturating_mul(bytes)))
                }
                Delivery::Reset | Delivery::Cut(_) | Delivery::GzipCut => {
                    tokio::time::sleep(reply.delay.min(self.timeout)).await;
                    return Err(ExchangeError::Broken(
                        "the sandbox cut the connection".into(),
                    ));
                }
                Delivery::GzipBomb(megabytes) => {
                    tokio::time::sleep(reply.delay.min(self.timeout)).await;
                    // No client has room for it, as the configuration cannot ask for so much.
                    return Err(ExchangeError::TooLarge {
                        limit_bytes: megabytes as usize * 1024 * 1024,
                        start: Body(Bytes::from_static(b" ")),
                    });
                }
                Delivery::Stalled(_) => None,
            };
            match on_its_way {
                Some(time) if time <= self.timeout => {
                    tokio::time::sleep(time).await;
                    Ok(Answer {
                        status: reply.status,
                        headers: reply.headers,
                        body: reply.body,
                    })
                }
                _ => {
                    tokio::time::sleep(self.timeout).await;
                    Err(ExchangeError::TimedOut(self.timeout))
                }
            }
        })
    }
}

fn incoming(request: &Request) -> Incoming {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let mut body = Bytes::new();
    if !request.form.is_empty() {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let fields = request
            .form
            .iter()
            .map(|(name, value)| (*name, value.expose_secret()));
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        body = form.extend_pairs(fields).finish().into();
    }
    let authorization = request.authorization.as_ref();
    if let Some(value) = authorization.and_then(|secret| secret.expose_secret().parse().ok()) {
        headers.insert(header::AUTHORIZATION, value);
    }
    Incoming {
        method: request.method.clone(),
        path: request.url.path().to_owned(),
        query: request.url.query().map(str::to_owned),
        headers,
        body,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Method;
    use secrecy::SecretString;
    use tokio::time::Instant;

    use super::super::{Effect, Fault, Options};
    use super::*;
    use crate::clock::ManualClock;

    const TIMEOUT: Duration = Duration::from_secs(60);

    fn sandbox() -> Sandbox {
        let start = "2026-03-01T08:00:00Z".parse().unwrap();
        Sandbox::new(
            Options::default(),
            Arc::new(ManualClock::starting_at(start)),
        )
    }

    async fn ask(
        sandbox: &Sandbox,
        target: &str,
        form: &[(&'static str, &str)],
    ) -> Result<Answer, ExchangeError> {
        let secret = |text: &str| SecretString::from(text.to_owned());
        let request = Request {
            method: if form.is_empty() {
                Method::GET
            } else {
                Method::POST
            },
            url: format!("https://acme.example{target}").parse().unwrap(),
            authorization: Some(secret(&format!("Bearer {}", sandbox.issue_token()))),
            form: form
                .iter()
                .map(|(name, value)| (*name, secret(value)))
                .collect(),
        };
        InProcess::new(sandbox.clone(), TIMEOUT)
            .exchange(request)
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_and_a_page_are_had_without_a_network() {
        let sandbox = sandbox();
        let auth = sandbox.auth();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", auth.client_id.as_str()),
            ("client_secret", auth.client_secret.as_str()),
        ];
        let token = ask(&sandbox, "/oauth_token.do", &form).await.unwrap();
        let token: serde_json::Value = serde_json::from_slice(&token.body).unwrap();
        assert_eq!(
            token["access_token"].as_str(),
            Some(sandbox.issue_token().as_str())
        );
        let page = ask(&sandbox, "/api/now/scim/Users?count=7", &[])
            .await
            .unwrap();
        let page: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        assert_eq!(page["itemsPerPage"], 7);
    }

    #[tokio::test(start_paused = true)]
    async fn faults_of_the_way_are_errors_in_their_time() {
        let sandbox = sandbox();
        for (effect, ms, broken) in [
            (Effect::Reset, 0, true),
            (Effect::Cut { share: 0.5 }, 0, true),
            (Effect::GzipCut, 0, true),
            (Effect::Stall { share: 0.5 }, 60_000, false),
            (Effect::Slow { ms: 60_001 }, 60_000, false),
            (Effect::Drip { ms: 1_000 }, 60_000, false),
        ] {
            sandbox.set_faults(vec![Fault::new(effect.clone())]);
            let start = Instant::now();
            let error = ask(&sandbox, "/api/now/scim/Users", &[]).await.unwrap_err();
            assert_eq!(
                matches!(error, ExchangeError::Broken(_)),
                broken,
                "{effect:?}"
            );
            assert_eq!(start.elapsed().as_millis(), ms, "{effect:?}");
        }
        sandbox.set_faults(vec![Fault::new(Effect::Slow { ms: 900 })]);
        let start = Instant::now();
        assert!(ask(&sandbox, "/api/now/scim/Users", &[]).await.is_ok());
        assert_eq!(start.elapsed().as_millis(), 900);
    }
}
