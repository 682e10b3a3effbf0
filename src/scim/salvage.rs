//! What can be told of a resource whose page is not JSON: its id, if the bytes around it allow.

use crate::model::{Reject, ResourceId};

/// Makes a reject of a page of one resource that cannot be read. The id is searched for without
/// trusting anything else of the page: one raw byte in a name spoils JSON, but not its structure. In
/// doubt there is none.
#[must_use]
pub fn reject(page: &[u8], reason: &str) -> Reject {
    let found = Found::search(page);
    Reject::new(
        found.id.map(ResourceId::new),
        reason,
        &page[found.start.unwrap_or(0)..],
    )
}

/// What was found of the resource.
#[derive(Default)]
struct Found {
    /// Where it begins.
    start: Option<usize>,
    /// The one `id` among its own members.
    id: Option<String>,
}

impl Found {
    /// Walks over the page's tokens. The resource's own members stand three levels deep: in the
    /// page, in `Resources`, in the resource.
    fn search(page: &[u8]) -> Self {
        const OF_PAGE: usize = 1;
        const OF_RESOURCES: usize = 2;
        const OF_RESOURCE: usize = 3;
        let mut found = Self::default();
        let mut depth = 0_usize;
        let mut in_resources = false;
        let mut ids = 0_u32;
        let mut tokens = Tokens { page, at: 0 };
        let mut before: Option<&[u8]> = None;
        while let Some((at, token)) = tokens.next() {
            match token {
                Token::Open => {
                    depth += 1;
                    if in_resources && depth == OF_RESOURCE {
                        if found.start.is_some() {
                            // Two resources: which of them is unreadable?
                            return Self::default();
                        }
                        found.start = Some(at);
                    }
                }
                Token::Close => {
                    depth = depth.saturating_sub(1);
                    in_resources &= depth >= OF_RESOURCES;
                }
                Token::Colon => {
                    let key = before.unwrap_or_default();
                    if depth == OF_PAGE {
                        in_resources = key.eq_ignore_ascii_case(br#""Resources""#);
                    } else if in_resources
                        && depth == OF_RESOURCE
                        && key.eq_ignore_ascii_case(br#""id""#)
                    {
                        ids += 1;
                        found.id = match tokens.clone().next() {
                            Some((_, Token::Text(text))) => serde_json::from_slice(text).ok(),
                            Some((_, Token::Bare(text))) => {
                                serde_json::from_slice::<serde_json::Number>(text)
                                    .ok()
                                    .map(|number| number.to_string())
                            }
                            _ => None,
                        };
                    }
                }
                Token::Text(_) | Token::Bare(_) | Token::Comma => {}
            }
            before = match token {
                Token::Text(text) => Some(text),
                _ => None,
            };
        }
        if ids > 1 {
            found.id = None;
        }
        found
    }
}

enum Token<'a> {
    Open,
    Close,
    Colon,
    Comma,
    /// A string, its quotes included.
    Text(&'a [u8]),
    /// Anything else up to the next mark.
    Bare(&'a [u8]),
}

#[derive(Clone)]
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
            b'{' | b'[' => Token::Open,
            b'}' | b']' => Token::Close,
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
