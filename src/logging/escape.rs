//! Writers that let no character through that could forge a line or steer a terminal.

use std::fmt::{self, Write as _};
use std::io;

use anstyle::Style;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::MakeWriter;

use crate::model::Foreign;

/// Writes the fields of events and spans for people: the message as it is, others as `name=value`.
pub(super) struct EscapedFields;

impl<'w> FormatFields<'w> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let style = if writer.has_ansi_escapes() {
            Style::new().dimmed()
        } else {
            Style::new()
        };
        let mut fields_so_far = Fields {
            writer,
            style,
            is_first: true,
            result: Ok(()),
        };
        fields.record(&mut fields_so_far);
        fields_so_far.result
    }
}

struct Fields<'w> {
    writer: Writer<'w>,
    style: Style,
    is_first: bool,
    result: fmt::Result,
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.result.is_err() {
            return;
        }
        let gap = if self.is_first { "" } else { " " };
        self.is_first = false;
        let value = format!("{value:?}");
        let (style, name, value) = (self.style, field.name(), Foreign(&value));
        self.result = match name {
            "message" => write!(self.writer, "{gap}{value}"),
            _ => write!(self.writer, "{gap}{style}{name}={style:#}{value}"),
        };
    }
}

/// Wraps the writer of JSON lines. JSON itself escapes C0; the rest is escaped here as JSON would, so
/// that a parser gets back the text as it was.
pub(super) struct EscapedJson<W>(pub(super) W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for EscapedJson<W> {
    type Writer = EscapedJsonWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        EscapedJsonWriter(self.0.make_writer())
    }
}

/// Writes one line, which arrives as a whole.
pub(super) struct EscapedJsonWriter<W>(W);

impl<W: io::Write> io::Write for EscapedJsonWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let mut escaped = String::with_capacity(text.len());
        for c in text.chars() {
            // The line's own end is the only line break: those in texts are escaped already.
            if c == '\n' || !Foreign::is_unsafe(c) {
                escaped.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(escaped, "\\u{unit:04x}");
                }
            }
        }
        self.0.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
