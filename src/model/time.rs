//! Times as text: RFC 3339, UTC.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo, Timestamp};

/// Our own times have milliseconds, always three digits, so that text order is time order.
#[must_use]
pub fn our_text(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// The instance's times are written as exactly as they arrived: whole seconds as a rule.
#[must_use]
pub fn their_text(time: Timestamp) -> String {
    time.to_string()
}

/// Reads a time of an instance (facts page, Q42): RFC 3339, also with fractions, with an offset, or
/// with none, which means UTC. `None` for all else: such a stamp is unknown.
#[must_use]
pub fn parse_lenient(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    text.parse::<Timestamp>().ok().or_else(|| {
        let civil: jiff::civil::DateTime = text.parse().ok()?;
        // A bare date is not a dateTime (RFC 7643 section 2.3.5).
        if !text.contains(':') {
            return None;
        }
        jiff::tz::TimeZone::UTC.to_timestamp(civil).ok()
    })
}

/// Reads a duration as people write it: `90s`, `15m`, `1h 30m`, `400d`. A day has 24 hours. `None` for all
/// else: months and years have no fixed length.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    Duration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_instances_send_and_nothing_else() {
        let noon = "2026-02-27T12:00:00Z".parse::<Timestamp>().unwrap();
        for good in [
            "2026-02-27T12:00:00Z",
            "2026-02-27T12:00:00.000Z",
            "2026-02-27T13:00:00+01:00",
            "2026-02-27T12:00:00",
            "2026-02-27 12:00:00",
        ] {
            assert_eq!(parse_lenient(good), Some(noon), "{good}");
        }
        for bad in [
            "",
            "yesterday",
            "2026-02-27",
            "1772193600",
            "2026-13-01T00:00:00Z",
        ] {
            assert_eq!(parse_lenient(bad), None, "{bad}");
        }
    }

    #[test]
    fn text_order_is_time_order() {
        let whole = "2026-02-27T12:00:00Z".parse::<Timestamp>().unwrap();
        let later = whole + jiff::SignedDuration::from_millis(500);
        assert!(our_text(whole) < our_text(later));
        assert_eq!(our_text(whole), "2026-02-27T12:00:00.000Z");
    }
}
