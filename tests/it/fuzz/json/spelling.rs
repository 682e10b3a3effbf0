//! JSON in as many spellings as there are.

use std::fmt::Write as _;

use fastrand::Rng;

use super::Json;

impl Json {
    /// Writes it in some spelling: blanks and escapes by lot.
    pub(in crate::fuzz) fn spell(&self, rng: &mut Rng) -> String {
        let mut out = String::new();
        let escapes = rng.u8(..4);
        self.spell_to(rng, escapes, &mut out);
        out
    }

    fn spell_to(&self, rng: &mut Rng, escapes: u8, out: &mut String) {
        let blank = |rng: &mut Rng, out: &mut String| {
            if rng.u8(..8) == 0 {
                out.push_str(rng.choice([" ", "\n", "\t", "\r\n  "]).unwrap());
            }
        };
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(is) => out.push_str(if *is { "true" } else { "false" }),
            Self::Number(text) => out.push_str(text),
            Self::Text(text) => spell_text(text, rng, escapes, out),
            Self::List(elements) => {
                out.push('[');
                for (place, element) in elements.iter().enumerate() {
                    out.push_str(if place > 0 { "," } else { "" });
                    blank(rng, out);
                    element.spell_to(rng, escapes, out);
                }
                blank(rng, out);
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (place, (name, value)) in members.iter().enumerate() {
                    out.push_str(if place > 0 { "," } else { "" });
                    blank(rng, out);
                    spell_text(name, rng, escapes, out);
                    blank(rng, out);
                    out.push(':');
                    blank(rng, out);
                    value.spell_to(rng, escapes, out);
                }
                blank(rng, out);
                out.push('}');
            }
        }
    }

    /// The same content in another order, with empty values between.
    pub(in crate::fuzz) fn shuffled(&self, rng: &mut Rng, depth: usize) -> Self {
        let empty = |rng: &mut Rng| {
            let empty = [
                Self::Null,
                Self::Text(String::new()),
                Self::List(vec![]),
                Self::Object(vec![]),
            ];
            rng.choice(empty).unwrap()
        };
        // An empty value in the deepest place would be too deep.
        let add = depth < 3 && rng.bool();
        match self {
            Self::List(elements) => {
                let mut elements: Vec<_> = elements
                    .iter()
                    .map(|one| one.shuffled(rng, depth + 1))
                    .collect();
                elements.extend(add.then(|| empty(rng)));
                rng.shuffle(&mut elements);
                Self::List(elements)
            }
            Self::Object(members) => {
                let mut members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| (name.clone(), value.shuffled(rng, depth + 1)))
                    .collect();
                let free = !members.iter().any(|(name, _)| name == "nothing");
                members.extend((add && free).then(|| ("nothing".to_owned(), empty(rng))));
                rng.shuffle(&mut members);
                Self::Object(members)
            }
            other => other.clone(),
        }
    }
}

fn spell_text(text: &str, rng: &mut Rng, escapes: u8, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        let short = match c {
            '"' => Some("\\\""),
            '\\' => Some("\\\\"),
            '/' => Some("\\/"),
            '\u{8}' => Some("\\b"),
            '\u{c}' => Some("\\f"),
            '\n' => Some("\\n"),
            '\r' => Some("\\r"),
            '\t' => Some("\\t"),
            _ => None,
        };
        let must = matches!(c, '"' | '\\' | '\0'..='\x1f');
        match short {
            Some(short) if rng.bool() => out.push_str(short),
            _ if must || rng.u8(..4) < escapes => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = if rng.bool() {
                        write!(out, "\\u{unit:04x}")
                    } else {
                        write!(out, "\\u{unit:04X}")
                    };
                }
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}
