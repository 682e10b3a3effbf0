//! Cuts a page into its resources in one quick pass.
//!
//! Most of what an unchanged directory costs is finding where each resource ends. This reader knows the whole grammar and is
//! strict: what it accepts, `serde_json` accepts with the same borders. Of all else it says nothing, and `serde_json` reads the
//! page as if this were not here: every error is that reader's.

use crate::model::scan::Specials;

/// A page in three pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sliced<'a> {
    /// Up to the resources, their opening bracket included.
    pub(super) before: &'a str,
    /// Each resource as the text it is.
    pub(super) resources: Vec<&'a str>,
    /// From the closing bracket on.
    pub(super) after: &'a str,
}

/// Levels of nesting that are followed; deeper pages are left to the other reader.
const DEEPEST: u32 = 64;

/// Cuts a page that is one JSON object with one array `Resources` (in any case) among its members. `None` for all else.
pub(super) fn slice(page: &str) -> Option<Sliced<'_>> {
    let mut at = Place {
        text: page.as_bytes(),
        at: 0,
        specials: Specials::of(page.as_bytes()),
    };
    let mut found = None;
    at.blank();
    at.take(b'{')?;
    at.blank();
    loop {
        let name = at.at;
        at.string()?;
        let name = page.get(name + 1..at.at - 1)?;
        if name.contains('\\') {
            // It might spell `Resources`.
            return None;
        }
        at.blank();
        at.take(b':')?;
        at.blank();
        if name.eq_ignore_ascii_case("Resources") {
            let (before, resources, after) = at.elements(page)?;
            let pieces = Sliced {
                before: page.get(..before)?,
                resources,
                after: page.get(after..)?,
            };
            if found.replace(pieces).is_some() {
                return None;
            }
        } else {
            at.value(DEEPEST)?;
        }
        at.blank();
        if at.take(b',').is_none() {
            break;
        }
        at.blank();
    }
    at.take(b'}')?;
    at.blank();
    found.filter(|_| at.at == page.len())
}

/// A place in a text. Each method goes past what it is named after; `None` where that does not stand there.
struct Place<'a> {
    text: &'a [u8],
    at: usize,
    specials: Specials<'a>,
}

impl Place<'_> {
    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then(|| self.at += 1)
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.next() {
            self.at += 1;
        }
    }

    /// The elements of an array, and where they begin and end.
    fn elements<'p>(&mut self, page: &'p str) -> Option<(usize, Vec<&'p str>, usize)> {
        let mut elements = Vec::new();
        self.take(b'[')?;
        let before = self.at;
        self.blank();
        if self.next()? != b']' {
            loop {
                let start = self.at;
                self.value(DEEPEST)?;
                elements.push(page.get(start..self.at)?);
                self.blank();
                if self.take(b',').is_none() {
                    break;
                }
                self.blank();
            }
        }
        let after = self.at;
        self.take(b']')?;
        Some((before, elements, after))
    }

    fn value(&mut self, levels: u32) -> Option<()> {
        match self.next()? {
            b'"' => self.string(),
            b'{' => self.members(levels.checked_sub(1)?),
            b'[' => self.items(levels.checked_sub(1)?),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn members(&mut self, levels: u32) -> Option<()> {
        self.at += 1;
        self.blank();
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            self.string()?;
            self.blank();
            self.take(b':')?;
            self.blank();
            self.value(levels)?;
            self.blank();
            if self.take(b',').is_none() {
                return self.take(b'}');
            }
            self.blank();
        }
    }

    fn items(&mut self, levels: u32) -> Option<()> {
        self.at += 1;
        self.blank();
        if self.take(b']').is_some() {
            return Some(());
        }
        loop {
            self.value(levels)?;
            self.blank();
            if self.take(b',').is_none() {
                return self.take(b']');
            }
            self.blank();
        }
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let stands = self.text.get(self.at..)?.starts_with(word);
        stands.then(|| self.at += word.len())
    }

    fn string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            self.at = self.specials.next(self.at)?;
            match self.next()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.escape()?,
                // A control character.
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let kind = *self.text.get(self.at + 1)?;
        self.at += 2;
        match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.text.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.digits()?;
        }
        if self.take(b'.').is_some() {
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.next() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.next() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// One digit or more.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.next() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::super::ListResponse;
    use super::*;

    /// What `serde_json` makes of a page, without the quick pass.
    fn slowly(page: &str) -> Result<Vec<&str>, serde_json::Error> {
        let list: ListResponse<'_> = serde_json::from_str(page)?;
        Ok(list.resources.unwrap_or_default())
    }

    /// Whatever this reader accepts, the other one does, with the same borders.
    fn holds(page: &str) -> Result<(), TestCaseError> {
        let Some(sliced) = slice(page) else {
            return Ok(());
        };
        for resource in &sliced.resources {
            let raw: Result<&RawValue, _> = serde_json::from_str(resource);
            prop_assert_eq!(raw.map_or("", RawValue::get), *resource);
        }
        let rest = [sliced.before, sliced.after].concat();
        match (slowly(page), slowly(&rest)) {
            (Ok(whole), Ok(rest)) => {
                prop_assert_eq!(whole, sliced.resources);
                prop_assert_eq!(rest.len(), 0);
            }
            // Both refuse what stands around the resources.
            (whole, rest) => prop_assert!(whole.is_err() && rest.is_err(), "{}", page),
        }
        Ok(())
    }

    #[test]
    fn a_page_is_cut_whatever_its_spelling() {
        for (page, resources) in [
            (r#"{"Resources":[]}"#, vec![]),
            (
                r#"{"Resources":[{"id":"a"},{"id":"b"}]}"#,
                vec![r#"{"id":"a"}"#, r#"{"id":"b"}"#],
            ),
            (
                " { \"x\" : [ 1 , { } ] ,\r\n\"RESOURCES\" : [ {\"a\":[[],{\"b\":null}] , \"c\":-0.5e+7}\t, 7 ,\"\\u00e9\\\\\" ] , \"y\":false } \n",
                vec![
                    "{\"a\":[[],{\"b\":null}] , \"c\":-0.5e+7}",
                    "7",
                    "\"\\u00e9\\\\\"",
                ],
            ),
        ] {
            let sliced = slice(page).unwrap();
            assert_eq!(sliced.resources, resources, "{page}");
            holds(page).unwrap();
        }
    }

    #[test]
    fn what_is_not_sure_is_left_to_the_other_reader() {
        let good = r#"{"totalResults":2,"Resources":[{"id":"a\n"},{"x":[-1.5e3,true,false,null]}],"z":{"y":""}}"#;
        assert!(slice(good).is_some());
        for length in 0..good.len() {
            assert_eq!(slice(&good[..length]), None, "{length}");
        }
        let deep = format!(r#"{{"Resources":[{}1{}]}}"#, "[".repeat(65), "]".repeat(65));
        for page in [
            "",
            "[]",
            "{}",
            r#"{"Resources":null}"#,
            r#"{"Resources":{}}"#,
            r#"{"Resources":[],"resources":[]}"#,
            r#"{"Resourc\u0065s":[]}"#,
            r#"{"Resources":[],}"#,
            r#"{"Resources":[1,]}"#,
            r#"{"Resources":[,1]}"#,
            r#"{"Resources":[1 2]}"#,
            r#"{"Resources":[01]}"#,
            r#"{"Resources":[1.]}"#,
            r#"{"Resources":[.5]}"#,
            r#"{"Resources":[1e]}"#,
            r#"{"Resources":[-]}"#,
            r#"{"Resources":[+1]}"#,
            r#"{"Resources":[tru]}"#,
            r#"{"Resources":["\x"]}"#,
            r#"{"Resources":["\u00g0"]}"#,
            "{\"Resources\":[\"\t\"]}",
            r#"{"Resources":[{1:2}]}"#,
            r#"{"Resources":[{"a"}]}"#,
            r#"{"Resources":[{"a":1,}]}"#,
            r#"{"Resources":[]} x"#,
            r#"{"Resources":[]}}"#,
            &deep,
        ] {
            assert_eq!(slice(page), None, "{page}");
        }
    }

    /// JSON as servers write it, and spoiled in one place.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            any::<f64>().prop_map(|number| format!("{number:e}")),
            any::<i32>().prop_map(|number| number.to_string()),
            "[ -~é\u{1f600}]{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
            Just(r#""\ud83d\/\b""#.to_owned()),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let name = prop_oneof![Just("id".to_owned()), "[a-z\"\\\\]{0,4}"];
            let member = (name, inner.clone()).prop_map(|(name, value)| {
                format!("{}: {value}", serde_json::to_string(&name).unwrap())
            });
            prop_oneof![
                proptest::collection::vec(inner, 0..5)
                    .prop_map(|items| format!("[{}]", items.join(" ,"))),
                proptest::collection::vec(member, 0..5)
                    .prop_map(|members| format!("{{{}}}", members.join(", "))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_it_accepts_is_what_the_other_reader_finds(
            resources in proptest::collection::vec(json(), 0..4),
            other in json(),
            edit in proptest::option::of((any::<proptest::sample::Index>(), "[\\[\\]{}\",:\\\\ 0-9a-fu.\t-]{0,2}")),
        ) {
            let sound = format!(r#"{{"schemas":["x"],"other":{other},"Resources":[{}]}}"#, resources.join(","));
            prop_assert_eq!(&slice(&sound).unwrap().resources, &resources);
            let mut page = sound;
            if let Some((place, text)) = edit {
                let at = place.index(page.len());
                if page.is_char_boundary(at) && page.is_char_boundary(at + 1) {
                    page.replace_range(at..=at, &text);
                }
            }
            holds(&page)?;
        }

        #[test]
        fn no_text_makes_it_panic(page in "\\{\"Resources\":\\[[{}\\[\\]\"\\\\:,a1é\u{0} .-]{0,20}\\]\\}") {
            holds(&page)?;
        }
    }
}
