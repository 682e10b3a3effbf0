//! What the headers of an answer say about time: its `Date`, and how long or how often to ask.
//! Whatever cannot be read is as if it had not been sent (facts page, Q47 and Q60).

use std::num::NonZeroU32;
use std::time::Duration;

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;

/// The longest wait that is believed. Rules count by the hour (facts page, section 12.1), so that no
/// honest wait is longer.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The tightest hourly limit that is believed: one request a minute still keeps a mirror fresh. An
/// instance that means less says so by status 429.
pub const TIGHTEST_PER_HOUR: u32 = 60;

/// What an answer asks of those who come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Not before so much time has passed.
    pub wait: Option<Duration>,
    /// No more often than this.
    pub limit: Option<ToldLimit>,
}

/// An hourly limit and how long it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToldLimit {
    /// `X-RateLimit-Limit`.
    pub per_hour: NonZeroU32,
    /// Until `X-RateLimit-Reset`.
    pub stands_for: Duration,
}

impl Told {
    /// Reads `Retry-After` and `X-RateLimit-*`. Points in time are measured from the answer's own
    /// `Date` where it has one: our clock and the instance's may differ.
    #[must_use]
    pub fn read(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Self {
        let now = date(headers).unwrap_or(now);
        let reset = reset_after(headers, now);
        let limited = status == StatusCode::TOO_MANY_REQUESTS;
        Self {
            wait: retry_after(headers, now).or(if limited { reset } else { None }),
            limit: text(headers, "x-ratelimit-limit")
                .and_then(|limit| limit.parse::<u32>().ok())
                .filter(|limit| *limit > 0)
                .and_then(|limit| NonZeroU32::new(limit.max(TIGHTEST_PER_HOUR)))
                .map(|per_hour| ToldLimit {
                    per_hour,
                    stands_for: reset.unwrap_or(LONGEST_WAIT),
                }),
        }
    }
}

/// The `Date` header.
#[must_use]
pub fn date(headers: &HeaderMap) -> Option<Timestamp> {
    http_date(text(headers, DATE.as_str())?)
}

/// `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), clamped.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER.as_str())?;
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Digits that do not fit are a very long wait.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date that does not fit is a very long wait as well.
    Some(until(
        Timestamp::try_from(date).unwrap_or(Timestamp::MAX),
        now,
    ))
}

/// The time until `X-RateLimit-Reset`, a Unix time; `None` when it is past or makes no sense.
fn reset_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let seconds = text(headers, "x-ratelimit-reset")?.parse::<i64>().ok()?;
    let wait = until(Timestamp::from_second(seconds).ok()?, now);
    (!wait.is_zero()).then_some(wait)
}

/// The time from `now` to `then`, nothing if it is past, clamped.
fn until(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now))
        .unwrap_or_default()
        .min(LONGEST_WAIT)
}

fn http_date(text: &str) -> Option<Timestamp> {
    Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, pairs: &[(&'static str, &str)]) -> Told {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, value.parse().unwrap());
        }
        let now = "2026-03-01T08:00:00Z".parse().unwrap();
        Told::read(StatusCode::from_u16(status).unwrap(), &headers, now)
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_clamped() {
        let wait = |value: &str| told(429, &[("retry-after", value)]).wait;
        assert_eq!(wait("0"), Some(Duration::ZERO));
        assert_eq!(wait(" 1312 "), Some(Duration::from_secs(1312)));
        assert_eq!(
            wait("Sun, 01 Mar 2026 08:00:30 GMT"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(
            wait("Sun, 01 Mar 2026 07:00:00 GMT"),
            Some(Duration::ZERO),
            "past"
        );
        for long in [
            "1000000000000",
            "99999999999999999999999999",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(wait(long), Some(LONGEST_WAIT), "{long}");
        }
        for garbage in ["", "-5", "soon", "1.5", "NaN", "Sun, 99 Mar 2026"] {
            assert_eq!(wait(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_date_is_measured_by_the_clock_of_the_instance() {
        let told = told(
            503,
            &[
                ("date", "Sun, 01 Mar 2020 00:00:00 GMT"),
                ("retry-after", "Sun, 01 Mar 2020 00:01:00 GMT"),
            ],
        );
        assert_eq!(told.wait, Some(Duration::from_secs(60)));
    }

    #[test]
    fn an_hourly_limit_is_read_and_garbage_is_not() {
        let with = |limit: &str, reset: &str| {
            told(
                200,
                &[("x-ratelimit-limit", limit), ("x-ratelimit-reset", reset)],
            )
        };
        let limit = |limit, reset| with(limit, reset).limit;
        // 2026-03-01T08:10:00Z
        let fine = limit("600", "1772352600").unwrap();
        assert_eq!(fine.per_hour.get(), 600);
        assert_eq!(fine.stands_for, Duration::from_secs(600));
        assert_eq!(limit("1", "1772352600").unwrap().per_hour.get(), 60);
        for reset in ["", "never", "253402300799", "-1", "99999999999999999999"] {
            assert_eq!(
                limit("600", reset).unwrap().stands_for,
                LONGEST_WAIT,
                "{reset}"
            );
        }
        for garbage in ["", "0", "-600", "many", "1e3"] {
            assert_eq!(limit(garbage, "1772352600"), None, "{garbage}");
        }
        assert_eq!(
            with("600", "1772352600").wait,
            None,
            "a reset alone is no wait"
        );
    }

    #[test]
    fn over_the_limit_without_retry_after_waits_for_the_reset() {
        let told = told(429, &[("x-ratelimit-reset", "1772352600")]);
        assert_eq!(told.wait, Some(Duration::from_secs(600)));
    }
}
