//! What can be told of a resource whose page is not JSON: its id, if the bytes around it allow.

use crate::model::{Reject, ResourceId};

/// Makes a reject of a page of one resource that cannot be read. The id is searched for where strings
/// and numbers alone are spoiled: one raw byte in a name spoils JSON, but not its structure. Of a page
/// that breaks off, what came before is believed. In doubt there is no id.
#[must_use]
pub fn reject(page: &[u8], reason: &str) -> Reject {
    let Found { start, end, id } = Found::search(page);
    // What the page says behind it is of where it stands among the others, and no part of it.
    let body = &page[start.unwrap_or(0)..end.unwrap_or(page.len())];
    Reject::new(id.map(ResourceId::new), reason, body)
}

/// What was found of the resource.
#[derive(Default)]
struct Found {
    /// Where it begins.
    start: Option<usize>,
    /// Behind it.
    end: Option<usize>,
    /// The one `id` among its own members.
    id: Option<String>,
}

impl Found {
    fn search(page: &[u8]) -> Self {
        let mut found = Self::default();
        if found.walk(page).is_none() {
            (found.id, found.end) = (None, None);
        }
        found
    }

    /// Walks over the page's tokens; `None` as soon as they come in no order that JSON knows: a quote
    /// or a bracket that is spoiled could make the `id` of a manager the resource's own.
    fn walk(&mut self, page: &[u8]) -> Option<()> {
        let (mut n_lists, mut n_elements, mut n_ids) = (0_u32, 0_u32, 0_u32);
        let (mut in_resources, mut is_id) = (false, false);
        let mut grammar = Grammar::default();
        let mut tokens = Tokens { page, at: 0 };
        while let Some((at, token)) = tokens.next() {
            let place = grammar.place();
            match (place, grammar.take(&token)?) {
                (Place::Page, Role::Name) => {
                    in_resources = token.name()?.eq_ignore_ascii_case("Resources");
                    n_lists += u32::from(in_resources);
                }
                (Place::Resources, Role::Value) if in_resources => {
                    n_elements += 1;
                    self.start.get_or_insert(at);
                }
                (Place::Resource, Role::Name) => is_id = token.name()?.eq_ignore_ascii_case("id"),
                (Place::Resource, Role::Value) if in_resources && is_id => {
                    n_ids += 1;
                    self.id = token.id().filter(|_| tokens.at < page.len());
                }
                _ => {}
            }
            let is_behind = matches!(grammar.place(), Place::Resources) && self.start.is_some();
            if in_resources && is_behind && !matches!(token, Token::Comma) {
                self.end = Some(tokens.at);
            }
        }
        // Of two resources, or two ids, which is it?
        (n_lists <= 1 && n_elements <= 1 && n_ids <= 1).then_some(())
    }
}

/// Where a token stands, as far as it matters here.
#[derive(Clone, Copy)]
enum Place {
    /// Among the members of the page.
    Page,
    /// Among the elements of an array of the page.
    Resources,
    /// Among the members of such an element.
    Resource,
    Elsewhere,
}

/// What a token is there.
enum Role {
    /// The name of a member.
    Name,
    /// A value, or its beginning.
    Value,
    Mark,
}

/// The grammar of JSON (RFC 8259), as far as tokens go.
#[derive(Default)]
struct Grammar {
    /// The brackets that are open.
    open: Vec<u8>,
    next: Next,
}

/// What may come next. A bracket may close where nothing is before it, but not behind a comma.
#[derive(Clone, Copy, Default)]
enum Next {
    #[default]
    Value,
    ValueOrClose,
    Name,
    NameOrClose,
    Colon,
    CommaOrClose,
}

impl Grammar {
    fn place(&self) -> Place {
        match self.open.as_slice() {
            b"{" => Place::Page,
            b"{[" => Place::Resources,
            b"{[{" => Place::Resource,
            _ => Place::Elsewhere,
        }
    }

    /// Goes past one token; `None` if it may not come here.
    fn take(&mut self, token: &Token<'_>) -> Option<Role> {
        let (role, next) = match (token, self.next) {
            (Token::Text(_) | Token::Bare(_), Next::Value | Next::ValueOrClose) => {
                (Role::Value, Next::CommaOrClose)
            }
            (Token::Text(_), Next::Name | Next::NameOrClose) => (Role::Name, Next::Colon),
            (Token::Open(bracket), Next::Value | Next::ValueOrClose) => {
                self.open.push(*bracket);
                let is_object = *bracket == b'{';
                (
                    Role::Value,
                    if is_object {
                        Next::NameOrClose
                    } else {
                        Next::ValueOrClose
                    },
                )
            }
            (
                Token::Close(bracket),
                Next::ValueOrClose | Next::NameOrClose | Next::CommaOrClose,
            ) => {
                let closes = if *bracket == b'}' { b'{' } else { b'[' };
                self.open.pop().filter(|open| *open == closes)?;
                (Role::Mark, Next::CommaOrClose)
            }
            (Token::Colon, Next::Colon) => (Role::Mark, Next::Value),
            (Token::Comma, Next::CommaOrClose) => match self.open.last()? {
                b'{' => (Role::Mark, Next::Name),
                _ => (Role::Mark, Next::Value),
            },
            _ => return None,
        };
        self.next = next;
        Some(role)
    }
}

enum Token<'a> {
    Open(u8),
    Close(u8),
    Colon,
    Comma,
    /// A string, its quotes included.
    Text(&'a [u8]),
    /// Anything else up to the next mark.
    Bare(&'a [u8]),
}

impl Token<'_> {
    /// The text of a string that is not spoiled.
    fn name(&self) -> Option<String> {
        match self {
            Self::Text(text) => serde_json::from_slice(text).ok(),
            _ => None,
        }
    }

    /// What it is as an `id`, as [`crate::reconcile::decode::head`] would have it.
    fn id(&self) -> Option<String> {
        match self {
            Self::Text(_) => self.name().filter(|id| !id.is_empty()),
            Self::Bare(text) => {
                let number: serde_json::Number = serde_json::from_slice(text).ok()?;
                number.as_f64().filter(|number| number.is_finite())?;
                Some(number.to_string())
            }
            _ => None,
        }
    }
}

struct Tokens<'a> {
    page: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<(usize, Token<'a>)> {
        let rest = &self.page[self.at..];
        let start = self.at + rest.iter().position(|b| !b.is_ascii_whitespace())?;
        let length = match self.page[start] {
            b'"' => string_length(&self.page[start..]),
            b'{' | b'}' | b'[' | b']' | b':' | b',' => 1,
            _ => {
                let ends = |b: &u8| b"{}[]:,\"".contains(b) || b.is_ascii_whitespace();
                let bare = &self.page[start..];
                bare.iter().position(ends).unwrap_or(bare.len())
            }
        };
        self.at = start + length;
        let text = &self.page[start..self.at];
        let token = match text[0] {
            b'"' => Token::Text(text),
            bracket @ (b'{' | b'[') => Token::Open(bracket),
            bracket @ (b'}' | b']') => Token::Close(bracket),
            b':' => Token::Colon,
            b',' => Token::Comma,
            _ => Token::Bare(text),
        };
        Some((start, token))
    }
}

/// The length of the string that `text` begins with, its quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    for (place, byte) in text.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return place + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(page: &[u8]) -> Option<String> {
        reject(page, "why").id.map(|id| id.as_str().to_owned())
    }

    #[test]
    fn the_id_survives_a_spoiled_record() {
        let page = b"{\"totalResults\":1,\"Resources\":[{\"manager\":{\"id\":\"m\"},\"name\":\"a\xff\x01 } ] \\\" {\",\"id\":\"u\\u0031\"}]}";
        let reject = reject(page, "why");
        assert_eq!(reject.id, Some(ResourceId::new("u1")));
        assert!(reject.body.starts_with("{\"manager\""), "{}", reject.body);
        assert_eq!(reject.reason, "why");
        assert_eq!(
            id(b"{\"Resources\":[{\"id\":17,\"x\":\"\xff\"}]}").as_deref(),
            Some("17")
        );
    }

    /// Somebody before it came or went: it is the same record, wherever it stands.
    #[test]
    fn the_body_is_the_record_and_nothing_of_its_page() {
        for record in [
            &b"{\"id\":\"a\xff\",\"emails\":[{\"value\":\"x\"}]}"[..],
            b"{}",
            b"[[\xff]]",
            b"\"\xff\"",
            b"\xff7",
        ] {
            for (total, start) in [(9, 9), (60, 10)] {
                let head = format!("{{\"totalResults\":{total},\"Resources\":[ ");
                let tail = format!(" ],\"schemas\":[\"urn\"],\"startIndex\":{start}}}");
                let page = [head.as_bytes(), record, tail.as_bytes()].concat();
                let reject = reject(&page, "why");
                assert_eq!(reject.body, String::from_utf8_lossy(record));
                assert_eq!(reject.id, None);
            }
        }
    }

    #[test]
    fn what_came_before_a_page_broke_off_is_believed() {
        let page = br#"{"Resources":[{"id":"a","x":["y"#;
        assert_eq!(id(page).as_deref(), Some("a"));
        assert_eq!(id(br#"{"Resources":[{"id":17,"#).as_deref(), Some("17"));
    }

    #[test]
    fn in_doubt_there_is_no_id() {
        for page in [
            &b"{\"Resources\":[{\"id\":\"a\",\"ID\":\"b\"}]}"[..],
            b"{\"Resources\":[{\"id\":\"a\"},{\"id\":\"b\"}]}",
            b"{\"Resources\":[{\"x\":{\"id\":\"a\"}}]}",
            b"{\"id\":\"a\",\"Resources\":[]}",
            b"{\"Resources\":[{\"id\":\"a\xff\"}]}",
            b"{\"Resources\":[{\"id\":{\"id\":\"a\"}}]}",
            b"{\"x\":[{\"id\":\"a\"}],\"Resources\":[{}]}",
            b"{\"Resources\":[{\"id\":\"\",\"x\":\"\xff\"}]}",
            b"{\"Resources\":[{\"id\":1e400,\"x\":\"\xff\"}]}",
            b"{\"Resources\":[7,{\"id\":\"a\",\"x\":\"\xff\"}]}",
            b"{\"Resources\":{\"x\":{\"id\":\"a\",\"x\":\"\xff\"}}}",
            // The same name, escaped.
            b"{\"Resources\":[{\"\\u0069d\":\"a\",\"id\":\"b\",\"x\":\"\xff\"}]}",
            // A spoiled bracket, colon, comma or quote.
            b"{\"Resources\":[{\"manager\":\xff\"id\":\"m\"},\"id\":\"a\"}]}",
            b"{\"Resources\":[{\"manager\":[\"id\":\"m\"},\"id\":\"a\"}]}",
            b"{\"Resources\":[{\"manager\":{\"id\":\"m\"\xff,\"id\":\"a\"}]}",
            b"{\"Resources\":[{\"id\":\"a\"\xff\"x\":1}]}",
            b"{\"Resources\":[{\"x\":\"a\xff,\"id\":\"b\"}]}",
            // Perhaps more digits followed.
            b"{\"Resources\":[{\"id\":17",
            b"",
        ] {
            assert_eq!(id(page), None, "{}", String::from_utf8_lossy(page));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(page in prop::collection::vec(any::<u8>(), 0..200), marks in r#"[{}\[\]:,"\\idR ]{0,60}"#) {
            let _ = reject(&page, "why");
            let _ = reject(marks.as_bytes(), "why");
        }
    }
}
