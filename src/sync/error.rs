//! Why a sync did not succeed.

use crate::mirror;
use crate::model::Certificate;
use crate::scim;

/// Why a sync did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The instance could not be read.
    #[error("the instance could not be read")]
    Scim(#[from] scim::error::Error),
    /// The mirror could not be read or written.
    #[error("the mirror could not be used")]
    Mirror(#[from] mirror::Error),
    /// What was read contradicts itself, so that none of it is believed.
    #[error("what the instance answered is not believed: {}", reasons(.0))]
    Refused(Box<Certificate>),
    /// The hold to approve was closed meanwhile.
    #[error(transparent)]
    NotApprovable(mirror::Error),
    /// It was told to stop.
    #[error("told to stop")]
    Cancelled,
    /// A piece of work ended with a panic, which is a defect of musterd.
    #[error("a step of the sync ended unasked, which is a defect of musterd")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Error {
    /// Whether it was told to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled => true,
            Self::Scim(error) => error.is_cancelled(),
            _ => false,
        }
    }

    /// Whether the instance refused the filter.
    #[must_use]
    pub fn is_refused_query(&self) -> bool {
        matches!(self, Self::Scim(error) if error.is_refused_query())
    }

    /// Whether the account may not read what was asked for, or the instance has no such thing.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Scim(error) if error.is_forbidden())
    }

    /// Whether credentials or rights must be mended.
    #[must_use]
    pub fn is_auth(&self) -> bool {
        matches!(self, Self::Scim(error) if error.is_auth())
    }

    /// The whole chain in one line, with what to do about it.
    #[must_use]
    pub fn chain(&self) -> String {
        use std::error::Error as _;
        let mut text = match self {
            // The outer sentence says nothing that the inner one does not.
            Self::Scim(error) => error.to_string(),
            other => other.to_string(),
        };
        let mut cause = match self {
            Self::Scim(error) => error.source(),
            other => other.source(),
        };
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        let hint = match self {
            Self::Scim(error) => error.hint(),
            Self::Mirror(error) => error.hint(),
            _ => None,
        };
        if let Some(hint) = hint {
            text.push_str("; ");
            text.push_str(hint);
        }
        text
    }
}

fn reasons(certificate: &Certificate) -> String {
    let sentences: Vec<String> = certificate
        .reasons
        .iter()
        .map(ToString::to_string)
        .collect();
    sentences.join(", ")
}
