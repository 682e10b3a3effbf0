//! Answers that come instead of the one that was asked for (facts page, sections 11.2, 12 and 14).

use std::time::Duration;

use jiff::Timestamp;

use super::auth::{Door, access_denied};
use super::effect::Effect;
use super::error::Refusal;
use super::message::{Delivery, Reply};
use super::route::RequestKind;

const CANCELLED: &str = r#"{"error":{"message":"Transaction cancelled: maximum execution time exceeded","detail":"Transaction cancelled: maximum execution time exceeded Check logs for error trace or enable glide.rest.debug property to verify REST request processing"},"status":"failure"}"#;

/// The answer that the first such effect gives; `None` if the request is answered as it should be.
pub(super) fn instead(
    effects: &[Effect],
    kind: RequestKind,
    door: &Door,
    now: Timestamp,
) -> Option<Reply> {
    effects.iter().find_map(|effect| match effect {
        Effect::HtmlPage => Some(Reply::html(
            200,
            "Instance Hibernating page",
            "Your instance is hibernating. Sign in to the developer site to wake it.",
        )),
        Effect::EdgeError { status } => Some(Reply::html(
            *status,
            "Service unavailable",
            "The node that should answer does not.",
        )),
        Effect::Redirect { location } => {
            let mut reply = Reply::empty(302);
            reply.set("location", location);
            Some(reply)
        }
        Effect::Dropped => Some(Reply::empty(202)),
        Effect::RateLimited { retry_after } => {
            let mut reply = Reply::from(Refusal::platform(
                429,
                "Rate limit exceeded",
                Some("Rate limit of 600 requests per hour for SCIM API exceeded"),
            ));
            let reset = now.as_second().saturating_add(3_600).to_string();
            reply.set("x-ratelimit-limit", "600");
            reply.set("x-ratelimit-reset", &reset);
            reply.set("x-ratelimit-rule", "7c0ffee0a1b24d0f9e110badc0de0429");
            reply.set("retry-after", retry_after);
            Some(reply)
        }
        Effect::SemaphoreFull => Some(Reply::empty(429)),
        Effect::Unauthorized => Some(door.refusal().into()),
        Effect::RoleMissing | Effect::GroupsForbidden => {
            Some(Refusal::platform(403, "User Not Authorized", None).into())
        }
        Effect::ScopeMissing => {
            Some(Refusal::platform(403, "Missing required api access scope", None).into())
        }
        Effect::PluginInactive { status } => Some(
            Refusal::platform(
                *status,
                "Requested URI does not represent any resource",
                None,
            )
            .into(),
        ),
        Effect::Cancelled => Some(Reply::json(500, CANCELLED)),
        Effect::ErrorInstead => Some(Reply::json(200, CANCELLED)),
        Effect::LoginRefused if kind == RequestKind::Token => {
            let answer = access_denied();
            Some(Reply::json(answer.status, answer.body))
        }
        _ => None,
    })
}

/// Spoils an answer that was right: its body, its headers, its way.
pub(super) fn spoil(reply: &mut Reply, effects: &[Effect]) {
    for effect in effects {
        let length = reply.body.len();
        match effect {
            Effect::BrokenJson { share } => {
                let mut body = reply.body[..part(length, *share)].to_vec();
                body.extend_from_slice(CANCELLED.as_bytes());
                reply.body = body.into();
            }
            Effect::TrailingError => {
                let mut body = reply.body.to_vec();
                body.extend_from_slice(CANCELLED.as_bytes());
                reply.body = body.into();
            }
            Effect::Header { header, value } if value.is_empty() => {
                reply.headers.remove(header.to_ascii_lowercase());
            }
            Effect::Header { header, value } => reply.set(header, value),
            Effect::Slow { ms } => reply.delay += Duration::from_millis(*ms),
            Effect::Reset => reply.delivery = Delivery::Reset,
            Effect::Cut { share } => reply.delivery = Delivery::Cut(part(length, *share)),
            Effect::Stall { share } => reply.delivery = Delivery::Stalled(part(length, *share)),
            Effect::Drip { ms } => reply.delivery = Delivery::Drip(Duration::from_millis(*ms)),
            Effect::GzipCut => reply.delivery = Delivery::GzipCut,
            Effect::GzipBomb { megabytes } => reply.delivery = Delivery::GzipBomb(*megabytes),
            _ => {}
        }
    }
}

/// A share of a length.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a body that is in memory"
)]
fn part(length: usize, share: f64) -> usize {
    ((length as f64 * share.clamp(0.0, 1.0)) as usize).min(length)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::testbed::{Answered, Testbed};
    use super::*;

    fn answered(effect: Effect) -> Answered {
        let bed = Testbed::of(20);
        bed.fault(effect);
        let answered = bed.get("/Users?count=20");
        assert_eq!(bed.sandbox.fired()[0].times, 1);
        answered
    }

    #[test]
    fn each_other_answer_has_its_status_and_its_shape() {
        let html = |answered: &Answered| {
            answered.reply.headers["content-type"] == "text/html;charset=UTF-8"
        };
        let page = answered(Effect::HtmlPage);
        assert!(page.status == 200 && html(&page));
        let edge = answered(Effect::EdgeError { status: 502 });
        assert!(edge.status == 502 && html(&edge));
        let away = answered(Effect::Redirect {
            location: "https://elsewhere.example/".into(),
        });
        assert_eq!(
            (away.status, &away.reply.headers["location"]),
            (302, &"https://elsewhere.example/".parse().unwrap())
        );
        let dropped = answered(Effect::Dropped);
        assert!(dropped.status == 202 && dropped.reply.body.is_empty());
        let limited = answered(Effect::RateLimited {
            retry_after: "-1".into(),
        });
        assert_eq!(
            (limited.status, &limited.reply.headers["retry-after"]),
            (429, &"-1".parse().unwrap())
        );
        assert_eq!(limited.json["error"]["message"], "Rate limit exceeded");
        let full = answered(Effect::SemaphoreFull);
        assert!(full.status == 429 && full.reply.headers.get("retry-after").is_none());
        let spurious = answered(Effect::Unauthorized);
        assert!(spurious.status == 401 && spurious.reply.headers.contains_key("www-authenticate"));
        assert_eq!(
            answered(Effect::RoleMissing).json["error"]["message"],
            "User Not Authorized"
        );
        let scope = answered(Effect::ScopeMissing);
        assert_eq!(
            (scope.status, &scope.json["error"]["message"]),
            (403, &"Missing required api access scope".into())
        );
        assert_eq!(answered(Effect::PluginInactive { status: 404 }).status, 404);
        assert_eq!(answered(Effect::Cancelled).status, 500);
        let error = answered(Effect::ErrorInstead);
        assert!(error.status == 200 && error.json["status"] == "failure");
        assert_eq!(answered(Effect::TokenEnds).status, 401);
    }

    #[test]
    fn bodies_break_behind_a_good_status() {
        let whole = Testbed::of(20).get("/Users?count=20").reply.body;
        let broken = answered(Effect::BrokenJson { share: 0.5 });
        assert!(broken.status == 200 && broken.json.is_null());
        assert!(broken.reply.body.starts_with(&whole[..whole.len() / 2]));
        assert!(broken.reply.body.ends_with(CANCELLED.as_bytes()));
        let trailing = answered(Effect::TrailingError);
        assert_eq!(trailing.reply.body, [&whole, CANCELLED.as_bytes()].concat());
        let half = |effect| answered(effect).reply.delivery;
        assert_eq!(
            half(Effect::Cut { share: 0.5 }),
            Delivery::Cut(whole.len() / 2)
        );
        assert_eq!(
            half(Effect::Stall { share: 9.0 }),
            Delivery::Stalled(whole.len())
        );
        assert_eq!(half(Effect::Reset), Delivery::Reset);
        assert_eq!(half(Effect::GzipCut), Delivery::GzipCut);
        assert_eq!(
            half(Effect::Drip { ms: 5 }),
            Delivery::Drip(Duration::from_millis(5))
        );
        assert_eq!(
            answered(Effect::Slow { ms: 7 }).reply.delay,
            Duration::from_millis(7)
        );
        let header = |value: &str| {
            answered(Effect::Header {
                header: "Date".into(),
                value: value.into(),
            })
        };
        assert_eq!(header("tomorrow").reply.headers["date"], "tomorrow");
        assert!(header("").reply.headers.get("date").is_none());
    }

    #[test]
    fn a_refused_login_is_one_at_the_token_endpoint_only() {
        let bed = Testbed::of(1);
        bed.fault(Effect::LoginRefused);
        assert_eq!(bed.get("/Users").status, 200);
        let token = bed.send(Method::POST, "/oauth_token.do", http::HeaderMap::new(), "");
        assert_eq!(
            (token.status, &token.json["error"]),
            (401, &"server_error".into())
        );
        assert_eq!(bed.sandbox.fired()[0].times, 1);
    }
}
