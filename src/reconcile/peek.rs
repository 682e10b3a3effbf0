//! The members of an object one after the other, as raw text: what is wanted before, or without,
//! decoding a resource.
//!
//! Nothing is judged here: what is broken must not hide an `id` that stands after it, and is found
//! when the resource is decoded. Of a text that is no JSON some members may be missed.

use std::borrow::Cow;

use crate::model::scan::first_special;

/// A place in an object: before a name, or before the value that follows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Members<'a> {
    rest: &'a str,
}

impl<'a> Members<'a> {
    /// Before the first member; of anything but an object there is none.
    pub(super) fn of(json: &'a str) -> Self {
        let rest = json.trim_ascii_start().strip_prefix('{');
        Self {
            rest: rest.unwrap_or_default(),
        }
    }

    /// Goes past the next name.
    pub(super) fn name(&mut self) -> Option<Name<'a>> {
        let (name, rest) = split_string(self.rest.trim_ascii_start())?;
        let rest = rest.trim_ascii_start().strip_prefix(':')?;
        self.rest = rest.trim_ascii_start();
        Some(Name(name))
    }

    /// Goes past the value.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        let (value, rest) = split_value(self.rest)?;
        let rest = rest.trim_ascii_start();
        self.rest = rest.strip_prefix(',').unwrap_or_default();
        Some(value)
    }

    /// Goes into the value, which stays the next of this object.
    pub(super) fn inside(&self) -> Self {
        Self::of(self.rest)
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

/// Cuts behind the value that the text starts with.
fn split_value(json: &str) -> Option<(&str, &str)> {
    match json.as_bytes().first()? {
        b'"' => split_string(json),
        b'{' | b'[' => {
            let mut open = 0_usize;
            let mut place = 0;
            loop {
                match json.as_bytes().get(place)? {
                    b'"' => {
                        place += string_len(&json.as_bytes()[place..])?;
                        continue;
                    }
                    b'{' | b'[' => open += 1,
                    b'}' | b']' => open -= 1,
                    _ => {}
                }
                place += 1;
                if open == 0 {
                    return json.split_at_checked(place);
                }
            }
        }
        _ => json.split_at_checked(json.find([',', '}', ']', ' ', '\t', '\n', '\r'])?),
    }
}

/// Cuts behind the string that the text starts with.
fn split_string(json: &str) -> Option<(&str, &str)> {
    json.split_at_checked(string_len(json.as_bytes())?)
}

/// The length of the string that the text starts with, quotes included.
fn string_len(json: &[u8]) -> Option<usize> {
    let mut place = 1;
    if json.first() != Some(&b'"') {
        return None;
    }
    loop {
        place = first_special(json, place)?;
        match json.get(place)? {
            b'"' => return Some(place + 1),
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
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
