//! Text that came from an instance, on its way to a terminal or a log.

use std::fmt::{self, Write as _};

/// Text from outside. `Display` escapes what could forge a line or steer a terminal: C0, DEL, C1,
/// bidirectional controls, line and paragraph separators. `SQLite` gets the exact text instead.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Foreign<'a>(pub &'a str);

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if Self::is_unsafe(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Foreign<'_> {
    /// Whether a character could forge a line or steer a terminal.
    #[must_use]
    pub fn is_unsafe(c: char) -> bool {
        c.is_control()
            || matches!(c,
                '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_comes_out() {
        let text = "a\u{1b}[31mb\nc\rd\u{7f}\u{9b}e\u{202e}f\u{2028}g";
        let shown = Foreign(text).to_string();
        assert!(!shown.chars().any(Foreign::is_unsafe), "{shown}");
        assert_eq!(Foreign("Zoë Ödegård 東").to_string(), "Zoë Ödegård 東");
    }
}
