//! The members of an object one after the other, as raw text: what is wanted before, or without,
//! decoding a resource.
//!
//! Nothing is judged here: what is broken must not hide an `id` that stands after it, and is found
//! when the resource is decoded. Of a text that is no JSON some members may be missed.

use std::borrow::Cow;

use crate::model::scan::Specials;

/// A place in an object: before a name, or before the value that follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    text: &'a str,
    at: usize,
    specials: Specials<'a>,
}

impl<'a> Members<'a> {
    /// Before the first member; of anything but an object there is none.
    pub(super) fn of(json: &'a str) -> Self {
        let start = Self {
            text: json,
            at: 0,
            specials: Specials::of(json.as_bytes()),
        };
        start
            .blank(0)
            .map_or(start, |at| Self { at, ..start })
            .inside()
    }

    /// Goes past the next name.
    pub(super) fn name(&mut self) -> Option<Name<'a>> {
        let start = self.blank(self.at)?;
        let end = self.string_end(start)?;
        let colon = self.blank(end)?;
        if self.byte(colon)? != b':' {
            return None;
        }
        self.at = self.blank(colon + 1)?;
        Some(Name(self.text.get(start..end)?))
    }

    /// Goes past the value.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        let end = self.value_end(self.at)?;
        let value = self.text.get(self.at..end)?;
        self.at = match self.blank(end) {
            Some(comma) if self.byte(comma) == Some(b',') => comma + 1,
            _ => self.text.len(),
        };
        Some(value)
    }

    /// Goes into the value, which stays the next of this object.
    pub(super) fn inside(&self) -> Self {
        let at = match self.byte(self.at) {
            Some(b'{') => self.at + 1,
            _ => self.text.len(),
        };
        Self { at, ..*self }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    /// The first place from `at` on that is no blank; `None` at the end.
    fn blank(&self, at: usize) -> Option<usize> {
        let rest = self.text.as_bytes().get(at..)?;
        Some(at + rest.iter().position(|byte| !byte.is_ascii_whitespace())?)
    }

    /// The end of the value that starts at `at`.
    fn value_end(&mut self, at: usize) -> Option<usize> {
        match self.byte(at)? {
            b'"' => self.string_end(at),
            b'{' | b'[' => {
                let mut open = 0_usize;
                let mut at = at;
                loop {
                    match self.byte(at)? {
                        b'"' => {
                            at = self.string_end(at)?;
                            continue;
                        }
                        b'{' | b'[' => open += 1,
                        b'}' | b']' => open -= 1,
                        _ => {}
                    }
                    at += 1;
                    if open == 0 {
                        return Some(at);
                    }
                }
            }
            _ => {
                let ends =
                    |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
                Some(at + self.text.as_bytes()[at..].iter().position(ends)?)
            }
        }
    }

    /// The end of the string that starts at `at`, quotes included.
    fn string_end(&mut self, at: usize) -> Option<usize> {
        if self.byte(at)? != b'"' {
            return None;
        }
        let mut at = at + 1;
        loop {
            at = self.specials.next(at)?;
            match self.byte(at)? {
                b'"' => return Some(at + 1),
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
    }
}

/// A name in its quotes, as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// The name itself; `None` for what is no Unicode.
    pub(super) fn text(self) -> Option<Cow<'a, str>> {
        string(self.0)
    }

    /// Whether it is this attribute's (RFC 7643 section 2.1).
    pub(super) fn is(self, attribute: &str) -> bool {
        let inside = self.0.trim_matches('"');
        inside.eq_ignore_ascii_case(attribute)
            // Escapes are longer than what they spell.
            || inside.len() > attribute.len()
                && inside.contains('\\')
                && (self.text()).is_some_and(|name| name.eq_ignore_ascii_case(attribute))
    }
}

/// The text of a JSON string; `None` for anything else.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    if json.contains('\\') {
        return serde_json::from_str(json).ok().map(Cow::Owned);
    }
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    Some(Cow::Borrowed(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::super::samples::{Json, anything, user};
    use super::*;

    fn all(json: &str) -> Vec<(String, &str)> {
        let mut members = Members::of(json);
        std::iter::from_fn(|| {
            let name = members.name()?.text()?.into_owned();
            Some((name, members.value()?))
        })
        .collect()
    }

    #[test]
    fn broken_values_do_not_hide_what_follows() {
        let json = r#" { "a" : [1e999,{"\ud800":"]\"\ud800"}] ,"b":tru,"c":"\\", "d": broken"#;
        let expected = [
            ("a".to_owned(), r#"[1e999,{"\ud800":"]\"\ud800"}]"#),
            ("b".to_owned(), "tru"),
            ("c".to_owned(), r#""\\""#),
        ];
        assert_eq!(all(json), expected);
        let mut members = Members::of(r#"{"\ud800":1,"I\u0064":2}"#);
        assert!(members.name().unwrap().text().is_none());
        assert_eq!(members.value(), Some("1"));
        assert!(members.name().unwrap().is("id"));
        for none in [
            "",
            "[1]",
            "{",
            "{}",
            "{1:2}",
            r#"{"a"}"#,
            r#"{"a":"#,
            r#"{"a":"b\"#,
        ] {
            assert_eq!(all(none), [], "{none}");
        }
    }

    #[test]
    fn inside_is_the_value_that_comes_next() {
        let mut members = Members::of(r#"{"a":{"b":1},"c":2}"#);
        assert!(members.name().unwrap().is("a"));
        let mut inside = members.inside();
        assert!(inside.name().unwrap().is("b"));
        assert_eq!(members.value(), Some(r#"{"b":1}"#));
        assert!(members.name().unwrap().is("c"));
        assert!(members.inside().name().is_none());
    }

    proptest! {
        #[test]
        fn the_members_are_those_that_a_parser_finds(user in user(), odd in anything(), seed: u64) {
            for json in [user, Json::Object(vec![("a".to_owned(), odd)])] {
                let json = json.respell(&mut fastrand::Rng::with_seed(seed));
                let parse = |json: &str| serde_json::from_str::<Value>(json).unwrap();
                let found = all(&json).into_iter().map(|(name, value)| (name, parse(value)));
                prop_assert_eq!(Value::Object(found.collect()), parse(&json));
            }
        }

        #[test]
        fn no_text_makes_it_panic(json in "\\{[{}\\[\\]\"\\\\:,a1é ]{0,30}") {
            let _ = all(&json);
        }
    }
}
