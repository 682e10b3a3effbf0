//! The JSON of a resource as a tree: read by one visitor, written by one writer.
//!
//! The visitor is our own because serde's values hide what must be a reject here: a doubled name, and
//! a number that no `f64` can hold.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::names::{LINK, NOTHING_KNOWN, Names};
use super::path::{ScimPath, Step};

/// A value that is not empty. `null`, `""`, `[]` and `{}` are no value (RFC 7643 section 2.5): they
/// are left out where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node<'a> {
    /// `true` or `false`.
    Bool(bool),
    /// A number, as the text that arrived; only an exponent has one spelling (`1e+5`).
    Number(String),
    /// A text.
    Text(Cow<'a, str>),
    /// Elements in the order of their texts, doubles kept; of what [stays as it arrived](Names::stays_as_it_arrived) in that order,
    /// an empty one as a list of nothing.
    List(Vec<Node<'a>>),
    /// Members in the bytewise order of their names, each name once.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// Why a resource cannot be understood. Both texts may quote the instance: show them through
/// [`crate::model::Foreign`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The SCIM path of what cannot be understood; empty for the resource as a whole.
    pub path: String,
    /// What is wrong there.
    pub problem: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.problem)
        } else {
            write!(f, "`{}`: {}", self.path, self.problem)
        }
    }
}

impl std::error::Error for Unreadable {}

impl<'a> Node<'a> {
    /// Reads one JSON text; `None` when it is an empty value. Names that are known get their one
    /// spelling.
    ///
    /// # Errors
    /// [`Unreadable`] for what is not JSON or nested too deep, lone surrogates, doubled names, and
    /// numbers that are not finite.
    pub(super) fn read(json: &'a str, names: &'static Names) -> Result<Option<Self>, Unreadable> {
        let trail = RefCell::default();
        let reading = Reading {
            names,
            depth: 0,
            trail: &trail,
        };
        let mut deserializer = serde_json::Deserializer::from_str(json);
        let read = reading
            .deserialize(&mut deserializer)
            .and_then(|node| deserializer.end().map(|()| node));
        read.map_err(|error| {
            let mut path = ScimPath::default();
            for step in trail.take().iter().rev() {
                path.step(step);
            }
            Unreadable {
                path: path.into_text(),
                problem: error.to_string(),
            }
        })
    }

    /// A member of an object.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let place = members
            .binary_search_by(|(member, _)| (**member).cmp(name))
            .ok()?;
        Some(&members[place].1)
    }

    /// The value without its links; `None` when nothing else is in it.
    #[must_use]
    pub fn without_links(&self) -> Option<Node<'_>> {
        match self {
            Self::Bool(value) => Some(Node::Bool(*value)),
            Self::Number(text) => Some(Node::Number(text.clone())),
            Self::Text(text) => Some(Node::Text(Cow::Borrowed(text))),
            Self::List(elements) => list(elements.iter().filter_map(Self::without_links).collect()),
            Self::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .filter(|(name, _)| name != LINK)
                    .filter_map(|(name, node)| {
                        Some((Cow::Borrowed(&**name), node.without_links()?))
                    })
                    .collect();
                (!members.is_empty()).then_some(Node::Object(members))
            }
        }
    }

    /// Writes the value as compact JSON.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => write_text(text, out),
            Self::List(elements) => {
                out.push('[');
                for (place, element) in elements.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    element.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (place, (name, node)) in members.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    write_text(name, out);
                    out.push(':');
                    node.write(out);
                }
                out.push('}');
            }
        }
    }

    /// The value as compact JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    /// What kind of value it is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Writes a JSON string. Only what must be escaped is (RFC 8259 section 7), in the spelling of RFC
/// 8785 section 3.2.2.2: what is compared byte for byte must not hang on a library's version.
pub(super) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let must_be_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    // Without a way out of the loop the compiler looks at many bytes at a time.
    if !text
        .bytes()
        .fold(false, |found, byte| found | must_be_escaped(byte))
    {
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut written = 0;
    for (place, byte) in text.bytes().enumerate() {
        if !must_be_escaped(byte) {
            continue;
        }
        out.push_str(&text[written..place]);
        written = place + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\x08' => out.push_str("\\b"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            b'\x0c' => out.push_str("\\f"),
            b'\r' => out.push_str("\\r"),
            control => out.push_str(&format!("\\u{control:04x}")),
        }
    }
    out.push_str(&text[written..]);
    out.push('"');
}

fn list(mut elements: Vec<Node<'_>>) -> Option<Node<'_>> {
    elements.sort_by_cached_key(Node::to_text);
    (!elements.is_empty()).then_some(Node::List(elements))
}

/// How deep a resource may nest; SCIM needs four. The mirror and the feed wrap a resource in more JSON,
/// and readers stop at 64 levels (.NET) or at 127 (`serde_json`): a guard would, too, and a guard that
/// cannot read a change does not count it.
pub(super) const DEEPEST: u32 = 50;

/// The visitor. On the way out of an error each level leaves its step in `trail`, so that a path
/// costs nothing where all is well.
#[derive(Clone, Copy)]
struct Reading<'t> {
    names: &'static Names,
    /// How many lists and objects this value stands in.
    depth: u32,
    trail: &'t RefCell<Vec<Step>>,
}

impl Reading<'_> {
    /// How a value inside of this one is read.
    fn inside(self, names: &'static Names) -> Self {
        Self {
            names,
            depth: self.depth + 1,
            ..self
        }
    }

    fn at<E>(self, step: Step) -> impl FnOnce(E) -> E {
        move |error| {
            self.trail.borrow_mut().push(step);
            error
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Option<Node<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        if self.depth > DEEPEST {
            return Err(D::Error::custom(format_args!(
                "nested more than {DEEPEST} deep"
            )));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Option<Node<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Node::Bool(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(Node::Number(value.to_string())))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Node::Number(value.to_string())))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok((!text.is_empty()).then_some(Node::Text(Cow::Borrowed(text))))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((!text.is_empty()).then(|| Node::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        let mut place = 0;
        let as_it_arrived = self.names.stays_as_it_arrived();
        while let Some(element) = seq
            .next_element_seed(self.inside(self.names))
            .map_err(self.at(Step::Element(place)))?
        {
            match element {
                None if as_it_arrived => elements.push(Node::List(Vec::new())),
                element => elements.extend(element),
            }
            place += 1;
        }
        Ok(match as_it_arrived {
            true => (!elements.is_empty()).then_some(Node::List(elements)),
            false => list(elements),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key_seed(Name)? {
            if name == NUMBER {
                let text = map.next_value_seed(NumberText)?;
                return Ok(Some(Node::Number(text)));
            }
            if name == RAW_JSON {
                return Err(not_allowed(RAW_JSON));
            }
            let (name, names) = match self.names.known(&name) {
                Some((known, below)) => (Cow::Borrowed(known), below),
                None => (name, &NOTHING_KNOWN),
            };
            match map.next_value_seed(self.inside(names)) {
                Ok(value) => members.push((name, value)),
                Err(error) => return Err(self.at(Step::Member(name.into_owned()))(error)),
            }
        }
        members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(twins) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let name = twins[0].0.clone().into_owned();
            return Err(self.at(Step::Member(name))(A::Error::custom(
                "the attribute is there twice",
            )));
        }
        let members: Vec<_> = members
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        Ok((!members.is_empty()).then_some(Node::Object(members)))
    }
}

/// With `arbitrary_precision`, `serde_json` hands over a number that is not a plain integer as a map
/// with this one member.
const NUMBER: &str = "$serde_json::private::Number";

/// What `serde_json`'s own value takes for JSON inside a text. A resource with a member of that name
/// is a reject, too: whoever reads it or its change with that value reads something else, or nothing at
/// all, and a guard that reads nothing holds nothing.
const RAW_JSON: &str = "$serde_json::private::RawValue";

fn not_allowed<E: Error>(name: &str) -> E {
    E::custom(format_args!("no attribute may be named `{name}`"))
}

/// The text of such a number. It comes as an owned `String`, which no JSON string does: so a
/// resource with a member of that name is a reject, never a number.
struct NumberText;

impl<'de> DeserializeSeed<'de> for NumberText {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for NumberText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no attribute named `{NUMBER}`")
    }

    fn visit_string<E: Error>(self, text: String) -> Result<String, E> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(text),
            _ => Err(E::custom("the number is out of range")),
        }
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<String, E> {
        Err(not_allowed(NUMBER))
    }
}

/// The name of a member, borrowed where it has no escapes.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Option<Node<'_>>, String> {
        Node::read(json, &NOTHING_KNOWN).map_err(|error| error.to_string())
    }

    fn text(json: &str) -> String {
        read(json)
            .unwrap()
            .map_or_else(String::new, |node| node.to_text())
    }

    #[test]
    fn numbers_keep_their_text_and_huge_ones_are_refused() {
        for number in [
            "0",
            "-0",
            "7",
            "1.10",
            "-1e-7",
            "18446744073709551616",
            "0.30000000000000004441",
            "1e+5",
        ] {
            assert_eq!(text(&format!("[{number}]")), format!("[{number}]"));
        }
        assert_eq!(text("[1E5,2e05]"), "[1e+5,2e+05]");
        let error = read(r#"{"a":{"b":[1,1e400]}}"#).unwrap_err();
        assert!(
            error.starts_with("`a.b[1]`: the number is out of range"),
            "{error}"
        );
    }

    #[test]
    fn the_parsers_own_names_are_refused_in_a_resource() {
        for value in [r#""12""#, r#""\u0031""#, "12", "1.5", "null", "[]", "{}"] {
            for name in [
                NUMBER,
                "\\u0024serde_json::private::Number",
                RAW_JSON,
                "\\u0024serde_json::private::RawValue",
            ] {
                for json in [
                    format!(r#"{{"a":{{"{name}":{value}}}}}"#),
                    format!(r#"{{"a":{{"x":1,"{name}":{value}}}}}"#),
                ] {
                    let error = read(&json).unwrap_err();
                    assert!(error.starts_with("`a`: "), "{json}: {error}");
                    assert!(error.contains("`$serde_json::private::"), "{json}: {error}");
                }
            }
        }
    }

    #[test]
    fn broken_and_ambiguous_texts_are_refused_with_their_path() {
        for (json, path) in [
            (r#"{"a":[{"b":1,"c":2,"b":null}]}"#, "`a[0].b`"),
            (r#"{"a":{"\u0062":1,"b":2}}"#, "`a.b`"),
            (r#"{"a":["x","\ud800"]}"#, "`a[1]`"),
            (r#"{"a":{"\udc00":1}}"#, "`a`"),
            (r#"{"urn:x:User":{"a":{"b":tru}}}"#, "`urn:x:User:a.b`"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.starts_with(path), "{json}: {error}");
        }
        assert!(read("{} {}").is_err());
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&nested(50)).is_ok());
        for depth in [51, 127, 1000, 1_000_000] {
            let error = read(&nested(depth)).unwrap_err();
            assert!(error.contains("nested more than 50 deep"), "{error}");
        }
    }

    #[test]
    fn empty_values_are_left_out_and_the_rest_is_in_order() {
        assert_eq!(
            text(r#"{"b":[3,"",1,[null,{}],1],"a":{"x":null,"y":[]},"B":"\u00e9\/"}"#),
            r#"{"B":"é/","b":[1,1,3]}"#
        );
        assert_eq!(read(r#"[{"a":""},null]"#), Ok(None));
    }

    #[test]
    fn only_what_must_be_is_escaped() {
        assert_eq!(
            text(r#"["\u0000\u001f\u007f\u2028\ud83d\ude00\b\f\n\r\t\"\\\/"]"#),
            "[\"\\u0000\\u001f\u{7f}\u{2028}\u{1f600}\\b\\f\\n\\r\\t\\\"\\\\/\"]"
        );
    }
}
