//! Results on stdout: text or JSON lines. A reader that has closed the pipe has read enough.

use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::json;

/// Where results go.
pub(crate) struct Output {
    stream: BufWriter<Box<dyn Write + Send>>,
}

/// Why a result could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The reader of the pipe is gone: the command ends quietly.
    #[error("the reader has closed the pipe")]
    Closed,
    /// The disk behind it is full, or the like.
    #[error("cannot write to the standard output")]
    Write(#[source] io::Error),
}

impl Output {
    /// The standard output, with colours only where a terminal shows them (and `NO_COLOR` is unset).
    #[must_use]
    pub(crate) fn stdout() -> Self {
        Self::to(anstream::stdout())
    }

    /// Any other writer.
    pub(crate) fn to(stream: impl Write + Send + 'static) -> Self {
        Self {
            stream: BufWriter::new(Box::new(stream)),
        }
    }

    /// Writes text, which brings its own line ends.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Error> {
        self.bytes(text.as_bytes())
    }

    /// Writes what is ready as it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.stream.write_all(bytes)?;
        Ok(())
    }

    /// Writes one JSON object on a line of its own.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        json::write(&mut self.stream, value)?;
        self.text("\n")
    }

    /// Hands on what was written so far. A command ends with it, so that a full disk is an error.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        self.stream.flush()?;
        Ok(())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Write(error),
        }
    }
}

/// Whether an error is only that the reader of the pipe is gone.
#[must_use]
pub(crate) fn is_closed(error: &anyhow::Error) -> bool {
    let closed = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref::<Error>(), Some(Error::Closed))
    };
    error.chain().any(closed)
}
