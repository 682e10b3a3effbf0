//! A strict reader of JSON (RFC 8259), written for these tests alone, so that what the program reads is
//! held against somebody else's reading.

mod spelling;

/// A value as it is written: members in their order and as often as they come, numbers as they stand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Why a text is no JSON that anybody has to understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It breaks the grammar.
    Syntax,
    /// Half a surrogate pair: no text.
    Surrogate,
    /// More than [`DEEPEST`] brackets in one another.
    Deep,
}

/// Deeper than the program reads.
const DEEPEST: usize = 127;

impl Json {
    /// Reads a whole text.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Flaw> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.blanks();
        if reader.at == text.len() {
            Ok(value)
        } else {
            Err(Flaw::Syntax)
        }
    }

    /// A member by its name, whatever its case; `None` if there is not exactly one.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let mut found = members
            .iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name));
        found
            .next()
            .map(|(_, value)| value)
            .filter(|_| found.next().is_none())
    }

    /// What all spellings of a value have in common, as the contract has it: no empty values, members
    /// and elements in any order, names in any case.
    pub(super) fn content(&self) -> Option<Self> {
        match self {
            Self::Null => None,
            Self::Bool(_) => Some(self.clone()),
            Self::Number(text) => Some(Self::Number(with_signed_exponent(text))),
            Self::Text(text) => (!text.is_empty()).then(|| self.clone()),
            Self::List(elements) => {
                let mut elements: Vec<_> = elements.iter().filter_map(Self::content).collect();
                elements.sort();
                (!elements.is_empty()).then_some(Self::List(elements))
            }
            Self::Object(members) => {
                let mut members: Vec<_> = members
                    .iter()
                    .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), value.content()?)))
                    .collect();
                members.sort();
                (!members.is_empty()).then_some(Self::Object(members))
            }
        }
    }

    /// Whether this, or anything in it, is so.
    pub(super) fn any(&self, is: &impl Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::List(elements) => elements.iter().any(|element| element.any(is)),
                Self::Object(members) => members.iter().any(|(_, value)| value.any(is)),
                _ => false,
            }
    }

    /// How many brackets stand around its innermost value.
    pub(super) fn depth(&self) -> usize {
        let inside = match self {
            Self::List(elements) => elements.iter().map(Self::depth).max(),
            Self::Object(members) => members.iter().map(|(_, value)| value.depth()).max(),
            _ => None,
        };
        inside.map_or(0, |depth| depth + 1)
    }
}

/// The text of a JSON string, quotes included and nothing around them.
pub(super) fn text_of(literal: &str) -> Option<String> {
    match Json::parse(literal.as_bytes()) {
        Ok(Json::Text(text)) if literal.starts_with('"') && literal.ends_with('"') => Some(text),
        _ => None,
    }
}

/// Where the value that starts at `at` ends, in a text that is known to be JSON.
pub(super) fn end_of_value(text: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = at;
    loop {
        match text[at] {
            b'"' => {
                at += 1;
                while text[at] != b'"' {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
        let goes_on =
            |byte: &u8| !matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let in_scalar =
            !matches!(text[at - 1], b'"' | b']' | b'}') && text.get(at).is_some_and(goes_on);
        if depth == 0 && !in_scalar {
            return at;
        }
    }
}

/// A number's exponent has a small `e` and a sign; all else stays as it is.
fn with_signed_exponent(number: &str) -> String {
    match number.split_once(['e', 'E']) {
        Some((base, exponent)) if exponent.starts_with(['+', '-']) => format!("{base}e{exponent}"),
        Some((base, exponent)) => format!("{base}e+{exponent}"),
        None => number.to_owned(),
    }
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self) -> Result<u8, Flaw> {
        let byte = self.peek().ok_or(Flaw::Syntax)?;
        self.at += 1;
        Ok(byte)
    }

    fn expect(&mut self, word: &[u8]) -> Result<(), Flaw> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Flaw::Syntax);
        }
        self.at += word.len();
        Ok(())
    }

    fn value(&mut self, depth: usize) -> Result<Json, Flaw> {
        self.blanks();
        match self.peek().ok_or(Flaw::Syntax)? {
            b'n' => self.expect(b"null").map(|()| Json::Null),
            b't' => self.expect(b"true").map(|()| Json::Bool(true)),
            b'f' => self.expect(b"false").map(|()| Json::Bool(false)),
            b'"' => self.string().map(Json::Text),
            b'[' if depth < DEEPEST => self.list(depth),
            b'{' if depth < DEEPEST => self.object(depth),
            b'[' | b'{' => Err(Flaw::Deep),
            _ => self.number(),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Json, Flaw> {
        let mut elements = Vec::new();
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::List(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.blanks();
            match self.take()? {
                b',' => {}
                b']' => return Ok(Json::List(elements)),
                _ => return Err(Flaw::Syntax),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, Flaw> {
        let mut members = Vec::new();
        self.at += 1;
        self.blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        loop {
            self.blanks();
            let name = self.string()?;
            self.blanks();
            self.expect(b":")?;
            members.push((name, self.value(depth + 1)?));
            self.blanks();
            match self.take()? {
                b',' => {}
                b'}' => return Ok(Json::Object(members)),
                _ => return Err(Flaw::Syntax),
            }
        }
    }

    fn number(&mut self) -> Result<Json, Flaw> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.take()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return Err(Flaw::Syntax),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(Json::Number(
            String::from_utf8_lossy(&self.text[start..self.at]).into_owned(),
        ))
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        self.digits();
        if self.at > start {
            Ok(())
        } else {
            Err(Flaw::Syntax)
        }
    }

    fn string(&mut self) -> Result<String, Flaw> {
        self.expect(b"\"")?;
        let mut bytes = Vec::new();
        loop {
            match self.take()? {
                b'"' => return String::from_utf8(bytes).map_err(|_| Flaw::Syntax),
                b'\\' => {
                    let c = self.escape()?;
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..=0x1f => return Err(Flaw::Syntax),
                byte => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Flaw> {
        Ok(match self.take()? {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                let is_high = (0xd800..0xdc00).contains(&unit);
                let units = if is_high && self.expect(b"\\u").is_ok() {
                    vec![unit, self.unit()?]
                } else {
                    vec![unit]
                };
                let text = String::from_utf16(&units).map_err(|_| Flaw::Surrogate)?;
                text.chars().next().ok_or(Flaw::Surrogate)?
            }
            _ => return Err(Flaw::Syntax),
        })
    }

    fn unit(&mut self) -> Result<u16, Flaw> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.take()?).to_digit(16).ok_or(Flaw::Syntax)?;
            unit = unit * 16 + u16::try_from(digit).unwrap();
        }
        Ok(unit)
    }
}

#[test]
fn the_reader_reads_what_the_grammar_has_and_nothing_else() {
    let text = |json: &str| Json::parse(json.as_bytes());
    assert_eq!(
        text(r#" {"a" : [1.5e-7, "\ud83d\ude00\u00e9\/", null ], "a":true} "#),
        Ok(Json::Object(vec![
            (
                "a".to_owned(),
                Json::List(vec![
                    Json::Number("1.5e-7".to_owned()),
                    Json::Text("\u{1f600}é/".to_owned()),
                    Json::Null,
                ]),
            ),
            ("a".to_owned(), Json::Bool(true)),
        ]))
    );
    for broken in [
        "",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "-",
        "[1,]",
        "[1 2]",
        "{\"a\"}",
        "{a:1}",
        "{\"a\":1,}",
        "tru",
        "\"\u{1}\"",
        "\"\\x\"",
        "\"\\u12\"",
        "'a'",
        "[1]]",
        "\"a",
        "nul",
        "\u{c}1",
        "{\"a\":1}x",
    ] {
        assert_eq!(text(broken), Err(Flaw::Syntax), "{broken}");
    }
    for half in [r#""\ud800""#, r#""\ud800\u0041""#, r#""\udc00""#] {
        assert_eq!(text(half), Err(Flaw::Surrogate), "{half}");
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(text(&nested(DEEPEST)).is_ok());
    assert_eq!(text(&nested(DEEPEST + 1)), Err(Flaw::Deep));
    assert_eq!(Json::parse(b"\"\xff\""), Err(Flaw::Syntax));
}
