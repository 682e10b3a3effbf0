//! One step of a check: what was looked at, what came of it, and how to mend it.

use serde::Serialize;

/// Something that a check has looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it was, in a word for programs: `name_resolution`.
    pub name: &'static str,
    /// The request that it was seen by: method, path and query, values of filters left out. `None` where none was sent
    /// for it.
    pub request: Option<String>,
    /// What is to be thought of it.
    pub outcome: Outcome,
    /// What was found; may hold text of the instance.
    pub says: String,
    /// What a person does about it.
    pub mend: Option<String>,
}

/// What is to be thought of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// It works, but costs something or is unwise.
    Warned,
    /// Syncs, or the daemon, will fail of it.
    Failed,
    /// It cannot be told.
    Unknown,
}

impl Step {
    /// A step, without request and remedy.
    #[must_use]
    pub fn new(name: &'static str, outcome: Outcome, says: impl Into<String>) -> Self {
        Self {
            name,
            request: None,
            outcome,
            says: says.into(),
            mend: None,
        }
    }

    /// Seen by this request.
    #[must_use]
    pub fn by(mut self, request: impl Into<String>) -> Self {
        self.request = Some(request.into());
        self
    }

    /// What a person does about it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}
