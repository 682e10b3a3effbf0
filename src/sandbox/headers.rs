//! The headers that real answers carry (facts page, section 7).

use jiff::Timestamp;

use super::message::{Incoming, Reply};

/// Adds what every answer of the platform has. `number` tells transactions apart.
pub(super) fn dress(reply: &mut Reply, now: Timestamp, number: u64, logged_in: bool) {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let date = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    reply.set("date", &httpdate::fmt_http_date(date));
    reply.set("server", "snow_adc");
    reply.set(
        "server-timing",
        "wall;dur=12, sem_wait;dur=0, sesh_wait;dur=0",
    );
    reply.set("pragma", "no-store,no-cache");
    reply.set(
        "cache-control",
        "no-cache,no-store,must-revalidate,max-age=-1",
    );
    reply.set("expires", "0");
    reply.set(
        "strict-transport-security",
        "max-age=63072000; includeSubDomains",
    );
    if logged_in {
        reply.set("x-is-logged-in", "true");
    }
    reply.set("x-transaction-id", &format!("{number:012x}"));
    for cookie in [
        format!("JSESSIONID={number:032X}; Path=/; HttpOnly; SameSite=None; Secure"),
        format!("glide_user_route=glide.{number:032x}; Max-Age=2147483647; Path=/; HttpOnly"),
        "glide_user=; Max-Age=0; Path=/; HttpOnly".to_owned(),
    ] {
        if let Ok(value) = cookie.parse() {
            reply.headers.append(http::header::SET_COOKIE, value);
        }
    }
}

/// The media type that `Accept` asks for; `None` if none is served (section 7).
#[must_use]
pub(super) fn media_type(incoming: &Incoming) -> Option<&'static str> {
    const JSON: &str = "application/json;charset=UTF-8";
    const SCIM: &str = "application/scim+json;charset=UTF-8";
    let Some(accept) = incoming.header("accept") else {
        return Some(JSON);
    };
    accept.split(',').find_map(|range| {
        let range = range.split(';').next().unwrap_or_default().trim();
        match range.to_ascii_lowercase().as_str() {
            "application/json" | "application/*" | "*/*" => Some(JSON),
            "application/scim+json" => Some(SCIM),
            _ => None,
        }
    })
}

/// Whether the body of a write is of a type that is read.
#[must_use]
pub(super) fn has_json_body(incoming: &Incoming) -> bool {
    incoming.header("content-type").is_none_or(|given| {
        let given = given.split(';').next().unwrap_or_default().trim();
        ["application/json", "application/scim+json"]
            .iter()
            .any(|known| given.eq_ignore_ascii_case(known))
    })
}
