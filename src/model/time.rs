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

/// Reads a time of an instance (facts page, Q42): RFC 3339, also with a blank for the `T`, with more
/// digits than are kept, with an offset as Java writes it (`+0100`), or with none, which means UTC.
/// `None` for all else: such a stamp is unknown. Other forms of ISO 8601 are among that, since what is
/// not understood in them, such as a zone in brackets, would move the time by hours.
#[must_use]
pub fn parse_lenient(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let (civil, rest) = text.split_at_checked("0000-00-00T00:00:00".len())?;
    if !has_shape(civil, "0000-00-00T00:00:00") {
        return None;
    }
    let n_digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, offset) = match rest.strip_prefix('.') {
        Some(digits) if n_digits(digits) > 0 => rest.split_at(1 + n_digits(digits)),
        _ => ("", rest),
    };
    let (sign, hours, minutes) = match offset {
        "" | "Z" | "z" => ("+", "00", "00"),
        _ if has_shape(offset, "+00:00") => (&offset[..1], &offset[1..3], &offset[4..]),
        _ if has_shape(offset, "+0000") => (&offset[..1], &offset[1..3], &offset[3..]),
        _ => return None,
    };
    if hours > "23" {
        return None;
    }
    let time: Timestamp = if offset == "Z" && fraction.len() <= FRACTION_CHARS {
        // As instances write it: nothing to mend.
        text.parse().ok()?
    } else {
        let fraction = &fraction[..fraction.len().min(FRACTION_CHARS)];
        format!("{civil}{fraction}{sign}{hours}:{minutes}")
            .parse()
            .ok()?
    };
    (time.as_second() >= YEAR_ZERO).then_some(time)
}

/// A point and nine digits: what a [`Timestamp`] keeps.
const FRACTION_CHARS: usize = 10;

/// 0000-01-01T00:00:00Z in Unix seconds: RFC 3339 has no text for what was before.
const YEAR_ZERO: i64 = -62_167_219_200;

/// Whether a text looks like this one: a digit for a digit, a sign for `+`, a `T` or a blank for `T`.
fn has_shape(text: &str, shape: &str) -> bool {
    let fits = |(byte, wanted): (u8, u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        b'+' => matches!(byte, b'+' | b'-'),
        b'T' => matches!(byte, b'T' | b't' | b' '),
        _ => byte == wanted,
    };
    text.len() == shape.len() && text.bytes().zip(shape.bytes()).all(fits)
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
            "2026-02-27T12:00:00.00000000000000000001Z",
            "2026-02-27T13:00:00+0100",
            " 2026-02-27t12:00:00z ",
        ] {
            assert_eq!(parse_lenient(good), Some(noon), "{good}");
        }
        for bad in [
            "",
            "yesterday",
            "2026-02-27",
            "1772193600",
            "2026-13-01T00:00:00Z",
            "2026-02-27T12:00:00[America/New_York]",
            "2026-02-27T12:00:00+24:00",
            "2026-02-27T12:00:00.Z",
            "-000001-02-27T12:00:00Z",
            // Out of range: not the same digits without their offset.
            "9999-12-30T21:59:59-23:59",
            "0000-01-01T00:00:00+00:01",
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
