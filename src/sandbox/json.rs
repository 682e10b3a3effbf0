//! Writes JSON with its members in a chosen order, and leaves out what has no value, as the
//! platform does (facts page, section 8).

/// An object that is being written.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

/// Writes one object.
pub(super) fn object(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    let mut inner = Object { out, empty: true };
    write(&mut inner);
    out.push(b'}');
}

/// Writes a text as a JSON string.
#[expect(
    clippy::expect_used,
    reason = "a text can always be written into memory"
)]
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a text into memory");
}

impl Object<'_> {
    /// A text, left out when it is empty.
    pub(super) fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.key(key);
            string(self.out, text);
        }
    }

    /// Something that reads the same in JSON: a number or a flag.
    pub(super) fn literal(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    /// An array of texts.
    pub(super) fn texts(&mut self, key: &str, texts: &[&str]) {
        self.array(key, |array| {
            for text in texts {
                array.item(|out| string(out, text));
            }
        });
    }

    /// An object, left out when nothing is written into it.
    pub(super) fn object(&mut self, key: &str, write: impl FnOnce(&mut Object<'_>)) {
        let start = self.out.len();
        let was_empty = self.empty;
        self.key(key);
        self.out.push(b'{');
        let mut inner = Object {
            out: self.out,
            empty: true,
        };
        write(&mut inner);
        if inner.empty {
            self.out.truncate(start);
            self.empty = was_empty;
        } else {
            self.out.push(b'}');
        }
    }

    /// An array, kept also when it is empty.
    pub(super) fn array(&mut self, key: &str, write: impl FnOnce(&mut Array<'_>)) {
        self.key(key);
        self.out.push(b'[');
        let mut inner = Array {
            out: self.out,
            empty: true,
        };
        write(&mut inner);
        self.out.push(b']');
    }

    /// An array of objects, without the empty ones; left out when none is left.
    pub(super) fn objects(&mut self, key: &str, writes: &[&dyn Fn(&mut Object<'_>)]) {
        self.each(key, writes, |o, write| write(o));
    }

    /// An array with an object for each item, without the empty ones; left out when none is left.
    pub(super) fn each<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Object<'_>, T),
    ) {
        let start = self.out.len();
        let was_empty = self.empty;
        let mut none = true;
        self.array(key, |array| {
            for item in items {
                none &= !array.object(|o| write(o, item));
            }
        });
        if none {
            self.out.truncate(start);
            self.empty = was_empty;
        }
    }

    fn key(&mut self, key: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        string(self.out, key);
        self.out.push(b':');
    }
}

/// An array that is being written.
pub(super) struct Array<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl Array<'_> {
    /// One element.
    pub(super) fn item(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        write(self.out);
    }

    /// One object, left out when nothing is written into it. Tells whether it was written.
    pub(super) fn object(&mut self, write: impl FnOnce(&mut Object<'_>)) -> bool {
        let start = self.out.len();
        let was_empty = self.empty;
        let mut written = false;
        self.item(|out| {
            out.push(b'{');
            let mut inner = Object { out, empty: true };
            write(&mut inner);
            written = !inner.empty;
            out.push(b'}');
        });
        if !written {
            self.out.truncate(start);
            self.empty = was_empty;
        }
        written
    }
}
