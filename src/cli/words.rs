//! Numbers, ages and columns as people read them.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::Style;

use crate::model::time;

/// An age or a span in its largest whole unit: `42s`, `5m`, `3h`, `12d`. A negative one (somebody's clock was set
/// back) is `0s`.
pub(crate) fn span(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    match seconds.max(0) {
        s if s < MINUTE => format!("{s}s"),
        s if s < HOUR => format!("{}m", s / MINUTE),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s => format!("{}d", s / DAY),
    }
}

/// Reads a duration from the command line.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    time::parse_duration(text).ok_or("not a duration such as `90s`, `15m` or `7d`")
}

/// A number with its thousands apart: `1,204,000`.
pub(crate) fn number(n: impl Into<i128>) -> String {
    let digits = n.into().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 user`, `2,000 users`.
pub(crate) fn count(n: impl Into<i128>, what: &str) -> String {
    let n = n.into();
    let plural = if n == 1 { "" } else { "s" };
    format!("{} {what}{plural}", number(n))
}

/// At most `limit` characters: what is cut off is shown as `…`.
pub(crate) fn clip(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => {
            let mut clipped: String = text.chars().take(limit.saturating_sub(1)).collect();
            clipped.push('…');
            clipped
        }
    }
}

/// Breaks text between words into lines of at most `limit` characters; a longer word has a line of its own.
pub(crate) fn wrap(text: &str, limit: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Appends `text` in a column `width` wide, to the right for numbers, and in its style. What is too
/// wide is not cut.
pub(crate) fn cell(line: &mut String, text: &str, width: usize, right: bool, style: Style) {
    let padding = width.saturating_sub(text.chars().count());
    let (before, after) = if right { (padding, 0) } else { (0, padding) };
    let _ = write!(line, "{:before$}{style}{text}{style:#}{:after$}", "", "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_at_a_glance() {
        for (seconds, text) in [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3_599, "59m"),
            (3_600, "1h"),
            (47 * 3_600, "47h"),
            (48 * 3_600, "2d"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("1h 30m", 5_400),
            ("7d", 604_800),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "15", "soon", "1mo", "-5s", "99999999999y"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn thousands_stand_apart() {
        for (n, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_234_567, "1,234,567"),
            (-100, "-100"),
            (-1_000, "-1,000"),
        ] {
            assert_eq!(number(n), text);
        }
        assert_eq!(count(1, "user"), "1 user");
        assert_eq!(count(2_000, "user"), "2,000 users");
    }

    #[test]
    fn wrapping_breaks_between_words_and_loses_none() {
        assert_eq!(
            wrap("a bc  def\nlonger g", 4),
            ["a bc", "def", "longer", "g"]
        );
        assert_eq!(wrap("Zoë Ö", 5), ["Zoë Ö"]);
        assert!(wrap("", 5).is_empty());
    }

    #[test]
    fn clipping_counts_characters() {
        assert_eq!(clip("Zoë", 3), "Zoë");
        assert_eq!(clip("Zoë Ö", 4), "Zoë…");
    }
}
