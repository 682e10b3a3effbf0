//! What is wrong with a configuration: every mistake at once, each with its place and what to do.

use std::fmt;

use super::origin::Origin;
use crate::model::Foreign;

/// The configuration cannot be used. Exit code 78.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    problems: Vec<Problem>,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    place: String,
    key: Option<String>,
    what: String,
    got: Option<String>,
    expected: Option<String>,
    hint: Option<String>,
}

impl Error {
    /// What the process exits with (`EX_CONFIG`): the unit does not restart on it.
    pub const EXIT_CODE: u8 = 78;

    /// An error of these mistakes, in this order.
    #[must_use]
    pub fn new(problems: Vec<Problem>) -> Self {
        Self { problems }
    }

    /// The mistakes.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong")?;
        for problem in &self.problems {
            write!(f, "\n{problem}")?;
        }
        Ok(())
    }
}

impl Problem {
    /// The longest part of a wrong value that is shown, in characters.
    const MAX_SHOWN_CHARS: usize = 100;

    /// A mistake about a file or a folder as a whole.
    #[must_use]
    pub fn in_place(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            key: None,
            what: what.into(),
            got: None,
            expected: None,
            hint: None,
        }
    }

    /// A mistake about one key, named by its whole path.
    #[must_use]
    pub fn at(origin: &Origin, key: &str, what: impl Into<String>) -> Self {
        let (place, key) = origin.place(key);
        Self {
            key: Some(key),
            ..Self::in_place(place, what)
        }
    }

    /// What was written. Never called with what may be a secret.
    #[must_use]
    pub fn got(mut self, got: impl Into<String>) -> Self {
        self.got = Some(got.into());
        self
    }

    /// What can stand there.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", Foreign(&self.place))?;
        if let Some(key) = &self.key {
            write!(f, "`{}`: ", Foreign(key))?;
        }
        write!(f, "{}", Foreign(&self.what))?;
        if let Some(got) = &self.got {
            let shown: String = got.chars().take(Self::MAX_SHOWN_CHARS).collect();
            let rest = if shown.len() < got.len() { "…" } else { "" };
            write!(f, " (got `{}{rest}`)", Foreign(&shown))?;
        }
        if let Some(expected) = &self.expected {
            write!(f, ", expected {}", Foreign(expected))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "; {}", Foreign(hint))?;
        }
        Ok(())
    }
}
