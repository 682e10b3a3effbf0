//! The log: one line for each event, on stderr for people or programs, or as fields in the journal.
//!
//! Text that came from an instance is escaped where it is logged, by its type
//! ([`crate::model::Foreign`]). The writers here are a second net: whatever an event holds, it is one
//! line and steers no terminal. The journal keeps each field with its length, so that there a line break
//! is part of the field and no new line.

mod escape;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;

use tracing::Subscriber;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, ParseError};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::writer::MakeWriter;
use tracing_subscriber::layer::{Layered, SubscriberExt as _};
use tracing_subscriber::{Layer, Registry, reload};

use crate::clock::SharedClock;
use crate::config::settings::{LogFormat, LogSettings};
use crate::model::time::our_text;

use self::escape::{EscapedFields, EscapedJson};

/// Why there is no log, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `log.level` is neither a level nor a filter.
    #[error("`{level}` is not a log level or filter")]
    Level {
        /// What was asked for.
        level: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// `log.format` is `journald`, and there is no journal.
    #[error("the journal cannot be reached; set `log.format` to `auto`")]
    Journal(#[source] io::Error),
    /// The log was started before.
    #[error("the log cannot be started twice")]
    Started(#[source] tracing::subscriber::SetGlobalDefaultError),
    /// The log has ended.
    #[error("the log level cannot be changed")]
    Reload(#[source] reload::Error),
}

/// What decides how `auto` lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether stderr is a terminal.
    pub terminal: bool,
    /// Whether that terminal shows colours, and may.
    pub colors: bool,
    /// Whether systemd has connected stderr to the journal.
    pub journal: bool,
}

impl Surroundings {
    /// The surroundings of this process. `env` gives a variable of its environment.
    pub fn of_stderr(env: impl Fn(&str) -> Option<OsString>) -> Self {
        let is_set = |name| env(name).is_some_and(|value| !value.is_empty());
        let terminal = io::stderr().is_terminal();
        Self {
            terminal,
            // https://no-color.org
            colors: terminal
                && !is_set("NO_COLOR")
                && env("TERM").is_none_or(|term| term != "dumb"),
            journal: is_journal(env("JOURNAL_STREAM").as_deref(), &io::stderr()),
        }
    }
}

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub struct ReloadHandle(reload::Handle<EnvFilter, Registry>);

impl ReloadHandle {
    /// Lets through what `settings.level` says from now on. The format stays as it was at the start.
    ///
    /// # Errors
    /// When the level cannot be read; the old one stays.
    pub fn apply(&self, settings: &LogSettings) -> Result<(), Error> {
        let filter = parse_filter(&settings.level)?;
        self.0.reload(filter).map_err(Error::Reload)
    }
}

/// Starts the log of this process, on `writer` unless it goes to the journal.
///
/// # Errors
/// See [`Error`].
pub fn init<W>(
    settings: &LogSettings,
    surroundings: Surroundings,
    clock: SharedClock,
    writer: W,
) -> Result<ReloadHandle, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (subscriber, handle) = subscriber(
        settings,
        surroundings,
        clock,
        writer,
        tracing_journald::layer,
    )?;
    tracing::subscriber::set_global_default(subscriber).map_err(Error::Started)?;
    Ok(handle)
}

/// What all formats are put upon: the registry behind a filter that can be replaced.
type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;

fn subscriber<W>(
    settings: &LogSettings,
    surroundings: Surroundings,
    clock: SharedClock,
    writer: W,
    connect: impl FnOnce() -> io::Result<tracing_journald::Layer>,
) -> Result<(impl Subscriber + Send + Sync, ReloadHandle), Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse_filter(&settings.level)?);
    let layer = match choose(settings.format, surroundings) {
        LogFormat::Journald => match connect() {
            Ok(journal) => journal_layer(journal),
            // Asked for by nobody: systemd keeps stderr as well.
            Err(_) if settings.format == LogFormat::Auto => json_layer(clock, writer),
            Err(error) => return Err(Error::Journal(error)),
        },
        LogFormat::Text => text_layer(surroundings.colors, clock, writer),
        LogFormat::Json | LogFormat::Auto => json_layer(clock, writer),
    };
    let subscriber = Registry::default().with(filter).with(layer);
    Ok((subscriber, ReloadHandle(handle)))
}

/// What `auto` means here. Never `auto` itself.
fn choose(format: LogFormat, surroundings: Surroundings) -> LogFormat {
    match format {
        LogFormat::Auto if surroundings.terminal => LogFormat::Text,
        LogFormat::Auto if surroundings.journal => LogFormat::Journald,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    }
}

type BoxedLayer = Box<dyn Layer<Filtered> + Send + Sync>;

fn text_layer<W>(colors: bool, clock: SharedClock, writer: W) -> BoxedLayer
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_timer(OurTime(clock))
        .with_target(false)
        .with_ansi(colors)
        .fmt_fields(EscapedFields)
        .with_writer(writer)
        .boxed()
}

fn json_layer<W>(clock: SharedClock, writer: W) -> BoxedLayer
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_timer(OurTime(clock))
        .with_writer(EscapedJson(writer))
        .boxed()
}

/// Fields go to the journal under their own names in capitals: `INSTANCE=`, `SYNC_ID=`.
fn journal_layer(journal: tracing_journald::Layer) -> BoxedLayer {
    journal
        .with_field_prefix(None)
        .with_syslog_identifier("musterd".to_owned())
        // By default `info` would be a notice, and `journalctl -p info` would show `debug` as well.
        .with_priority_mappings(PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        })
        .boxed()
}

/// A bare level is ours: what the libraries tell beyond warnings is for those who ask for it by a filter.
fn parse_filter(level: &str) -> Result<EnvFilter, Error> {
    let directives = match level.parse::<LevelFilter>() {
        Ok(ours) => format!("{},musterd={ours}", ours.min(LevelFilter::WARN)),
        Err(_filter) => level.to_owned(),
    };
    EnvFilter::builder()
        .parse(directives)
        .map_err(|source| Error::Level {
            level: level.to_owned(),
            source,
        })
}

/// Whether `stream` is the one that systemd has connected to the journal: `$JOURNAL_STREAM` has its
/// device and inode (systemd.exec(5)); a redirected one has others.
fn is_journal(journal_stream: Option<&OsStr>, stream: &impl AsFd) -> bool {
    let Some((device, inode)) = journal_stream
        .and_then(OsStr::to_str)
        .and_then(|text| text.split_once(':'))
    else {
        return false;
    };
    let Ok(metadata) = stream
        .as_fd()
        .try_clone_to_owned()
        .and_then(|fd| File::from(fd).metadata())
    else {
        return false;
    };
    device.parse() == Ok(metadata.dev()) && inode.parse() == Ok(metadata.ino())
}

/// Wall time as everywhere else.
struct OurTime(SharedClock);

impl FormatTime for OurTime {
    fn format_time(&self, w: &mut Writer<'_>) -> fmt::Result {
        w.write_str(&our_text(self.0.now()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use tracing::{debug, info, info_span};

    use super::*;
    use crate::clock::Clock;
    use crate::model::Foreign;

    const NOWHERE: Surroundings = Surroundings {
        terminal: false,
        colors: false,
        journal: false,
    };

    const HOSTILE: [&str; 12] = [
        "plain",
        "two\nlines",
        "carriage\rreturn",
        "\u{1b}[2J\u{1b}[31mred",
        "\u{1b}]0;title\u{7}",
        "\u{9b}31m and \u{85}",
        "del \u{7f} nul \0 back \u{8}",
        "\u{202e}desrever\u{202c}",
        "\u{2028}line\u{2029}paragraph",
        "{\"level\":\"ERROR\"}\" \\ \\u001b",
        "2026-02-27T12:00:00.000Z ERROR forged",
        "ünïcödé 東 \u{e0041}\u{feff}",
    ];

    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            "2026-02-27T12:00:00Z".parse().unwrap()
        }
    }

    fn settings(level: &str, format: LogFormat) -> LogSettings {
        LogSettings {
            level: level.to_owned(),
            format,
        }
    }

    fn no_journal() -> io::Result<tracing_journald::Layer> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// What `log` writes when it is given a handle on the log.
    fn written(
        settings: &LogSettings,
        surroundings: Surroundings,
        log: impl FnOnce(&ReloadHandle),
    ) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(file.reopen().unwrap());
        let clock = Arc::new(Noon);
        let (subscriber, handle) =
            subscriber(settings, surroundings, clock, writer, no_journal).unwrap();
        tracing::subscriber::with_default(subscriber, || log(&handle));
        std::fs::read_to_string(file.path()).unwrap()
    }

    /// An event with a text in every place that can hold one.
    fn log(text: &str) {
        let error = io::Error::other(text.to_owned());
        let error = &error as &dyn std::error::Error;
        let _span = info_span!("sync", instance = "acme", name = text, shown = %text).entered();
        info!(seen = 3, text, display = %text, debug = ?text, error, "{text}");
    }

    #[test]
    fn text_is_one_line_that_steers_nothing() {
        for text in HOSTILE {
            let line = written(&settings("info", LogFormat::Text), NOWHERE, |_| log(text));
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(Foreign::is_unsafe), "{line:?}");
        }
    }

    #[test]
    fn colours_are_ours_alone() {
        let colors = Surroundings {
            terminal: true,
            colors: true,
            journal: false,
        };
        let escapes = |text| {
            let line = written(&settings("info", LogFormat::Auto), colors, |_| log(text));
            let line = line.strip_suffix('\n').unwrap().to_owned();
            let (ours, others): (Vec<char>, Vec<char>) = line
                .chars()
                .filter(|c| Foreign::is_unsafe(*c))
                .partition(|c| *c == '\u{1b}');
            assert!(others.is_empty(), "{line:?}");
            ours.len()
        };
        let ours = escapes("plain");
        assert!(ours > 0);
        for text in HOSTILE {
            assert_eq!(escapes(text), ours, "{text:?}");
        }
    }

    #[test]
    fn json_is_one_line_that_steers_nothing_and_loses_nothing() {
        for text in HOSTILE {
            let line = written(&settings("info", LogFormat::Json), NOWHERE, |_| log(text));
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(Foreign::is_unsafe), "{line:?}");
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            for field in ["message", "text", "display", "error"] {
                assert_eq!(json[field], text, "{field}");
            }
            assert_eq!(json["span"]["shown"], text);
        }
    }

    #[test]
    fn lines_look_like_this() {
        let log = |_: &ReloadHandle| {
            let _span = info_span!("sync", instance = "acme").entered();
            info!(sync_id = 7, outcome = "succeeded", "sync finished");
        };
        insta::assert_snapshot!(
            written(&settings("info", LogFormat::Text), NOWHERE, log),
            @r#"2026-02-27T12:00:00.000Z  INFO sync{instance="acme"}: sync finished sync_id=7 outcome="succeeded""#
        );
        insta::assert_snapshot!(
            written(&settings("info", LogFormat::Json), NOWHERE, log),
            @r#"{"timestamp":"2026-02-27T12:00:00.000Z","level":"INFO","message":"sync finished","sync_id":7,"outcome":"succeeded","target":"musterd::logging::tests","span":{"instance":"acme","name":"sync"}}"#
        );
    }

    #[test]
    fn the_level_changes_while_the_log_runs_and_a_bad_one_changes_nothing() {
        let text = written(&settings("info", LogFormat::Text), NOWHERE, |handle| {
            debug!("first");
            handle.apply(&settings("debug", LogFormat::Text)).unwrap();
            debug!("second");
            assert!(handle.apply(&settings("a=b=c", LogFormat::Text)).is_err());
            debug!("third");
            handle
                .apply(&settings("musterd=warn", LogFormat::Text))
                .unwrap();
            info!("fourth");
        });
        assert!(
            !text.contains("first") && !text.contains("fourth"),
            "{text}"
        );
        assert!(text.contains("second") && text.contains("third"), "{text}");
    }

    #[test]
    fn auto_is_text_on_a_terminal_the_journal_under_systemd_and_else_json() {
        let on = |terminal, journal| {
            let surroundings = Surroundings {
                terminal,
                colors: false,
                journal,
            };
            choose(LogFormat::Auto, surroundings)
        };
        assert_eq!(on(true, false), LogFormat::Text);
        assert_eq!(on(true, true), LogFormat::Text);
        assert_eq!(on(false, true), LogFormat::Journald);
        assert_eq!(on(false, false), LogFormat::Json);
        assert_eq!(choose(LogFormat::Text, NOWHERE), LogFormat::Text);
    }

    #[test]
    fn without_a_journal_auto_falls_back_to_json_and_journald_is_an_error() {
        let under_systemd = Surroundings {
            journal: true,
            ..NOWHERE
        };
        let line = written(&settings("info", LogFormat::Auto), under_systemd, |_| {
            info!("here")
        });
        assert!(line.starts_with('{'), "{line}");
        let asked = settings("info", LogFormat::Journald);
        let refused = subscriber(&asked, NOWHERE, Arc::new(Noon), io::sink, no_journal);
        assert!(matches!(refused.map(|_| ()), Err(Error::Journal(_))));
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let metadata = file.metadata().unwrap();
        let stream = |dev: u64, ino: u64| OsString::from(format!("{dev}:{ino}"));
        let own = stream(metadata.dev(), metadata.ino());
        assert!(is_journal(Some(&own), &file));
        let other = stream(metadata.dev(), metadata.ino() + 1);
        assert!(!is_journal(Some(&other), &file));
        assert!(!is_journal(Some(OsStr::new("journal")), &file));
        assert!(!is_journal(None, &file));
    }
}
