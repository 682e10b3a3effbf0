//! How a command ends: the exit codes of the contract (section 6), and an error printed once, as a
//! chain, outermost first.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};

use crate::config;
use crate::daemon::link::PinError;
use crate::mirror;
use crate::model::Foreign;

/// How a command ended that has said all there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Done,
    /// Failed, and the output says what.
    Failed,
    /// Done, but something is held, unhealthy or must be read again.
    Attention,
    /// Stopped by Ctrl-C.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::FAILURE,
            Exit::Attention => 3.into(),
            Exit::Interrupted => 130.into(),
        }
    }
}

/// A failure that a command found itself, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    message: String,
    hint: Option<String>,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// A failure in one sentence: lower case, no final period.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            cause: None,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Why it happened.
    #[must_use]
    pub fn because(mut self, cause: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.cause = Some(Box::new(cause));
        self
    }
}

/// The exit code of an error: clap's own (2 for wrong usage, 0 for help); 78 (`EX_CONFIG`) where the
/// configuration is wrong, so that the unit does not restart on it; 1 for all else.
#[must_use]
pub fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(usage) = error.downcast_ref::<clap::Error>() {
        return u8::try_from(usage.exit_code()).unwrap_or(2);
    }
    let is_config = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<config::Error>() || cause.is::<PinError>() || cause.is::<Misconfigured>()
    };
    if error.chain().any(is_config) { 78 } else { 1 }
}

/// The daemon found that the configuration is wrong, and said why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(pub String);

/// Prints an error to stderr, or the help that was asked for to stdout. Where that is closed,
/// nobody is there to be told.
pub fn print(error: &anyhow::Error) {
    let _ = match error.downcast_ref::<clap::Error>() {
        Some(usage) => usage.print(),
        None => anstream::stderr().write_all(render(error).as_bytes()),
    };
}

/// Says on stderr why a command that did its work exits 3, or what is left of one that was stopped.
pub(crate) fn note(message: &str) {
    let mut text = String::new();
    entry(
        &mut text,
        "note",
        AnsiColor::Yellow.on_default().bold(),
        message,
    );
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// The chain, outermost first, then the first hint that one of its links has.
fn render(error: &anyhow::Error) -> String {
    let red = AnsiColor::Red.on_default().bold();
    let mut text = String::new();
    for (place, cause) in error.chain().enumerate() {
        let (label, style) = match place {
            0 => ("error", red),
            _ => ("caused by", Style::new().bold()),
        };
        entry(&mut text, label, style, &cause.to_string());
    }
    if let Some(hint) = error.chain().find_map(hint_of) {
        entry(
            &mut text,
            "hint",
            AnsiColor::Cyan.on_default().bold(),
            &hint,
        );
    }
    text
}

/// One entry. A message may have several lines (all mistakes of a configuration at once); none of
/// them may steer the terminal, whatever a path or a server put into it.
fn entry(text: &mut String, label: &str, style: Style, message: &str) {
    for (place, line) in message.lines().enumerate() {
        let line = Foreign(line);
        let _ = match place {
            0 => writeln!(text, "{style}{label}:{style:#} {line}"),
            _ => writeln!(text, "  {line}"),
        };
    }
}

fn hint_of<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<Cow<'a, str>> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return failure.hint.as_deref().map(Cow::Borrowed);
    }
    let hint = cause.downcast_ref::<mirror::Error>()?.hint()?;
    Some(Cow::Borrowed(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(error: &anyhow::Error) -> String {
        anstream::adapter::strip_str(&render(error)).to_string()
    }

    #[test]
    fn the_chain_is_printed_outermost_first_with_its_hint_last() {
        let cause = Failure::new("no such file").hint("look elsewhere");
        let error = anyhow::Error::new(Failure::new("cannot read `a`\nand `b`").because(cause));
        insta::assert_snapshot!(plain(&error), @r"
        error: cannot read `a`
          and `b`
        caused by: no such file
        hint: look elsewhere
        ");
    }

    #[test]
    fn an_error_steers_no_terminal() {
        let error = anyhow::anyhow!("`\u{1b}[2J\u{9b}1m\u{202e}`");
        assert_eq!(plain(&error), "error: `\\u{1b}[2J\\u{9b}1m\\u{202e}`\n");
    }
}
