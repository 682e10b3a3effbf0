//! JSON for people's terminals too: exact when parsed, and without a character that would steer
//! the terminal it is shown on.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::model::Foreign;

/// Writes one value, compact.
///
/// # Errors
/// Of the writer.
pub(super) fn write(stream: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(stream, Inert))?;
    Ok(())
}

/// JSON leaves DEL, C1 and bidirectional controls as they are: here they are escaped like C0.
struct Inert;

impl Formatter for Inert {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_inert(writer, fragment)
    }

    /// Valid JSON that is taken over as it is: what must be escaped can only be inside its strings.
    fn write_raw_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        write_inert(writer, fragment)
    }
}

fn write_inert<W: ?Sized + Write>(writer: &mut W, fragment: &str) -> io::Result<()> {
    let mut written = 0;
    for (place, c) in fragment.char_indices() {
        if !Foreign::is_unsafe(c) {
            continue;
        }
        writer.write_all(&fragment.as_bytes()[written..place])?;
        written = place + c.len_utf8();
        if c.is_ascii_whitespace() {
            // Between two tokens: a line break inside a string is not valid JSON.
            writer.write_all(b" ")?;
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            write!(writer, "\\u{unit:04x}")?;
        }
    }
    writer.write_all(&fragment.as_bytes()[written..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn line(value: &impl Serialize) -> String {
        let mut bytes = Vec::new();
        write(&mut bytes, value).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn controls_are_escaped_and_other_scripts_are_not() {
        let text = "Zoë\u{7f}\u{9b}\u{202e}\u{e0041}\n東";
        assert_eq!(line(&text), r#""Zoë\u007f\u009b\u202e\udb40\udc41\n東""#);
        let raw = RawValue::from_string("{\"a\":\n\t\"\u{9b}\"}".to_owned()).unwrap();
        assert_eq!(line(&raw), r#"{"a":  "\u009b"}"#);
    }

    proptest! {
        #[test]
        fn a_line_is_inert_and_means_the_same(text in any::<String>()) {
            let raw = RawValue::from_string(serde_json::to_string(&text).unwrap()).unwrap();
            for line in [line(&text), line(&raw)] {
                prop_assert!(!line.chars().any(Foreign::is_unsafe));
                prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text.clone());
            }
        }
    }
}
