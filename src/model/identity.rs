//! Own profiles, and which user of an instance each of them is.

use serde::{Deserialize, Serialize};

/// By what a profile and a user are known to be one person: a key that both have. The names are those of columns of `users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The employee number.
    EmployeeNumber,
    /// The work address.
    Email,
    /// The user name.
    UserName,
}

impl Rule {
    /// All of them, in the order of the default configuration.
    pub const ALL: [Self; 3] = [Self::EmployeeNumber, Self::Email, Self::UserName];

    /// The word in tables, files and the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EmployeeNumber => "employee_number",
            Self::Email => "email",
            Self::UserName => "user_name",
        }
    }

    /// The rule of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == word)
    }
}

/// One of somebody's own profiles, with the keys by which it is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What the profile is known by where it comes from.
    pub profile: String,
    /// The employee number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub employee_number: Option<String>,
    /// The address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
}

impl Profile {
    /// The key of a rule, exactly as it was imported. An empty one matches nobody, and is none.
    #[must_use]
    pub fn key(&self, rule: Rule) -> Option<&str> {
        let key = match rule {
            Rule::EmployeeNumber => &self.employee_number,
            Rule::Email => &self.email,
            Rule::UserName => &self.user_name,
        };
        key.as_deref().filter(|key| is_key(key))
    }
}

/// Whether a text can tell one person from another: blanks cannot.
#[must_use]
pub fn is_key(text: &str) -> bool {
    !text.trim().is_empty()
}

/// By what a link was made: `identities.matched_by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedBy {
    /// A key that both have.
    Rule(Rule),
    /// A person said so.
    Pin,
}

impl MatchedBy {
    /// The word in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule(rule) => rule.as_str(),
            Self::Pin => "pin",
        }
    }

    /// What a word of a table stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "pin" => Some(Self::Pin),
            word => Rule::parse(word).map(Self::Rule),
        }
    }
}

/// How a profile stands: `identities.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityState {
    /// Its keys lead to its user, or to nobody else.
    Matched,
    /// A person said which user it is.
    Pinned,
    /// Its keys lead to several users, or to another one than its own.
    Ambiguous,
    /// Its keys lead to nobody, and never did.
    Missing,
    /// The instance does not show its user any more.
    Gone,
}

impl IdentityState {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Matched,
        Self::Pinned,
        Self::Ambiguous,
        Self::Missing,
        Self::Gone,
    ];

    /// The word in tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Pinned => "pinned",
            Self::Ambiguous => "ambiguous",
            Self::Missing => "missing",
            Self::Gone => "gone",
        }
    }

    /// The state of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// What is known of one profile: a row of `identities` without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user it is linked to. The link is to the id: it outlives every key.
    pub user_id: Option<String>,
    /// By what that link was made.
    pub matched_by: Option<MatchedBy>,
    /// How it stands.
    pub state: IdentityState,
    /// Whom its keys lead to where it is ambiguous, by id.
    pub candidates: Vec<String>,
}
