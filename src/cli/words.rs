//! Text and columns as people read them.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::Style;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::model::time;
pub(crate) use crate::model::words::{count, number, span};

/// Reads a duration from the command line.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    time::parse_duration(text).ok_or("not a duration such as `90s`, `15m` or `7d`")
}

/// Reads a moment from the command line: a time by RFC 3339, or a day, which begins at midnight UTC.
pub(crate) fn parse_moment(text: &str) -> Result<Timestamp, &'static str> {
    let midnight = |day: Date| TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok();
    // A day is read from a time without an offset, too, whose hour would be lost.
    let is_day = text.len() == "2026-03-01".len();
    let day = || midnight(is_day.then(|| text.parse().ok())??);
    let moment = text.parse().ok().or_else(day);
    moment.ok_or("not a time such as `2026-03-01T12:00:00Z`, nor a day such as `2026-03-01`")
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

/// A column of a table: how wide it is, and to which side what stands in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) width: usize,
    pub(crate) right: bool,
}

/// Words, to the left.
pub(crate) const fn left(width: usize) -> Column {
    let right = false;
    Column { width, right }
}

/// Numbers, to the right.
pub(crate) const fn right(width: usize) -> Column {
    let right = true;
    Column { width, right }
}

/// Appends a line of a table, each cell in its style. No blanks stand at its end.
pub(crate) fn row<const N: usize>(
    text: &mut String,
    columns: &[Column; N],
    cells: &[String; N],
    styles: [Style; N],
) {
    let mut line = String::new();
    for (nth, (column, cell)) in columns.iter().zip(cells).enumerate() {
        if nth > 0 {
            line.push_str("  ");
        }
        self::cell(&mut line, cell, column.width, column.right, styles[nth]);
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_moment_is_a_time_or_a_day() {
        for (text, moment) in [
            ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
            ("2026-03-01T12:00:00.5+01:00", "2026-03-01T11:00:00.5Z"),
            ("2026-03-01", "2026-03-01T00:00:00Z"),
        ] {
            assert_eq!(parse_moment(text), Ok(moment.parse().unwrap()), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2026-03-01T12:00",
            "2026-02-30",
            "1772366400",
        ] {
            assert!(parse_moment(text).is_err(), "{text}");
        }
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
