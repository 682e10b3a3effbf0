//! A token, and the judgement on what the token endpoint answers.

use std::time::Duration;

use http::StatusCode;
use secrecy::SecretString;
use serde_json::Value;
use tokio::time::Instant;

use super::answer;
use super::client::Answer;
use super::error::{ExchangeError, Fault, Refusal};
use super::wire::{ErrorForm, TokenResponse};

/// A token is renewed when a tenth of its life is left, but no earlier than this before its end and
/// no later than a second before it.
const RENEWED_EARLY: Duration = Duration::from_secs(60);

/// A longer life is not believed: the token is renewed once a day at least.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// What the token endpoint gave.
pub struct Given {
    /// The access token.
    pub token: SecretString,
    /// The time it has left; `None` if the endpoint did not say, or said nonsense.
    pub life: Option<Duration>,
    /// A refresh token, perhaps the one that was used.
    pub refresh_token: Option<SecretString>,
}

/// A token in use.
pub struct Token {
    /// Its text.
    pub text: SecretString,
    /// When it is renewed.
    pub renew_at: Option<Instant>,
    /// When it ends.
    pub ends_at: Option<Instant>,
}

impl Token {
    /// A token that was given at `now`.
    #[must_use]
    pub fn new(text: SecretString, life: Option<Duration>, now: Instant) -> Self {
        let early = |life: Duration| (life / 10).clamp(Duration::from_secs(1), RENEWED_EARLY);
        Self {
            text,
            renew_at: life.map(|life| now + life.saturating_sub(early(life))),
            ends_at: life.map(|life| now + life),
        }
    }

    /// Whether it has not ended yet.
    #[must_use]
    pub fn works(&self, now: Instant) -> bool {
        self.ends_at.is_none_or(|ends_at| now < ends_at)
    }

    /// Whether it is time to renew it.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.renew_at.is_some_and(|renew_at| renew_at <= now)
    }
}

/// Judges the answer to a token request.
///
/// # Errors
/// The fault. None of them holds a byte of the answer: it has secrets in it.
pub fn judge(answer: &Answer) -> Result<Given, Fault> {
    answer::expect_json(answer)?;
    let response: TokenResponse = answer::parse(&answer.body).map_err(|fault| match fault {
        Fault::Cut { reason, .. } => ExchangeError::Broken(reason.into()).into(),
        _ => Fault::NoToken("it is no JSON object with the members of RFC 6749"),
    })?;
    let token = response.access_token.unwrap_or_default();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Fault::NoToken(
            "`access_token` is missing or cannot be sent",
        ));
    }
    let is_bearer = |kind: &String| kind.eq_ignore_ascii_case("bearer");
    if !response.token_type.as_ref().is_some_and(is_bearer) {
        return Err(Fault::NoToken("`token_type` is not `Bearer`"));
    }
    Ok(Given {
        token: token.into(),
        life: response.expires_in.as_ref().and_then(seconds),
        refresh_token: response
            .refresh_token
            .filter(|token| !token.is_empty())
            .map(SecretString::from),
    })
}

/// Whether the endpoint says for good that it knows the client or the grant and wants neither. A
/// bare 401 may be a moment's weakness (facts page, section 13.3), `server_error` with it as well.
#[must_use]
pub fn is_definite(refusal: &Refusal) -> bool {
    refusal.status == StatusCode::BAD_REQUEST && refusal.form == Some(ErrorForm::OAuth)
}

/// Seconds as a number or as text.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds: f64 = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    (seconds > 0.0)
        .then(|| Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_LIFE))
        .map(|life| life.min(LONGEST_LIFE))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, header::CONTENT_TYPE};

    use secrecy::ExposeSecret as _;

    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            "application/json;charset=UTF-8".parse().unwrap(),
        );
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn a_token_is_taken_with_its_life_as_number_or_text() {
        for (expires_in, life) in [
            (r#""expires_in":1799,"#, Some(1799)),
            (r#""expires_in":"1799","#, Some(1799)),
            (r#""expires_in":1e12,"#, Some(86_400)),
            (r#""expires_in":0,"#, None),
            (r#""expires_in":-5,"#, None),
            (r#""expires_in":"soon","#, None),
            ("", None),
        ] {
            let body = format!(r#"{{{expires_in}"access_token":"t1","token_type":"bearer"}}"#);
            let given =
                judge(&answer(200, &body)).unwrap_or_else(|fault| panic!("{body}: {fault}"));
            assert_eq!(given.token.expose_secret(), "t1");
            assert_eq!(given.life, life.map(Duration::from_secs), "{body}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        for body in [
            r#"{"token_type":"Bearer"}"#,
            r#"{"access_token":"","token_type":"Bearer"}"#,
            r#"{"access_token":"hush\nhush","token_type":"Bearer"}"#,
            r#"{"access_token":"hush"}"#,
            r#"{"access_token":"hush","token_type":"mac"}"#,
            r#"{"access_token":["hush"],"token_type":"Bearer"}"#,
            r#"{"access_token":"hush","token_type":"Bearer""#,
            r#"["hush"]"#,
            r#"{"access_token":"hush","token_type":"Bearer"}{}"#,
        ] {
            let Err(fault) = judge(&answer(200, body)) else {
                panic!("{body}");
            };
            let text = format!("{fault} {fault:?}");
            assert!(!text.contains("hush"), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_before_it_ends_however_short_it_lives() {
        let now = Instant::now();
        for (life, renewed_before) in [(1800, 60), (100, 10), (3, 1), (1, 1)] {
            let token = Token::new("t".into(), Some(Duration::from_secs(life)), now);
            let ends_at = token.ends_at.unwrap();
            assert_eq!(
                (ends_at - token.renew_at.unwrap()).as_secs(),
                renewed_before,
                "{life}"
            );
            assert!(token.works(now) && !token.works(ends_at));
        }
    }
}
