//! Progress bars of syncs on a terminal, nothing of them in a pipe.

use std::collections::BTreeMap;
use std::fmt;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use indicatif::style::TemplateError;
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::words;
use crate::sync::{Phase, Progress};

/// A bar for each instance that is being synced.
pub(crate) struct Bars {
    all: Option<MultiProgress>,
    by_instance: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Bars {
    /// Bars on stderr where that is a terminal, else none.
    pub(crate) fn on_a_terminal() -> Self {
        let all = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self {
            all,
            by_instance: Mutex::default(),
        }
    }

    /// Moves the bar of an instance.
    pub(crate) fn show(&self, progress: &Progress) {
        let Some(all) = &self.all else { return };
        let mut bars = self
            .by_instance
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let bar = bars
            .entry(progress.instance.clone())
            .or_insert_with(|| all.add(ProgressBar::new_spinner()));
        let style = match progress.total {
            Some(_) => "{prefix:>16} {bar:24} {human_pos}/{human_len} {msg}{pace}",
            None => "{prefix:>16} {spinner} {human_pos} {msg}",
        };
        if let Ok(style) = style_of(style) {
            bar.set_style(style);
        }
        bar.set_prefix(progress.instance.clone());
        bar.set_message(match progress.phase {
            Phase::Probing => "asking what it honours",
            Phase::Reading => "read",
            Phase::Asking => "asked by id",
            Phase::Applying => "written",
        });
        if let Some(total) = progress.total {
            bar.set_length(total);
        }
        bar.set_position(progress.done);
    }

    /// Lets something else be printed without a bar in it.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.all {
            Some(all) => all.suspend(print),
            None => print(),
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&self) {
        if let Some(all) = &self.all {
            // A terminal that does not take it back shows a last bar.
            let _shown = all.clear();
        }
    }
}

/// A style that also knows `{pace}`: whole things a second, and the time that is left. Nothing of it before the first thing is done.
///
/// # Errors
/// When the template is none.
pub(crate) fn style_of(template: &str) -> Result<ProgressStyle, TemplateError> {
    let pace = |state: &ProgressState, out: &mut dyn fmt::Write| {
        if state.pos() > 0 && state.per_sec() > 0.0 {
            let rate = words::number(state.per_sec().round() as i64);
            // One that cannot be written is not shown.
            let _unshown = write!(out, ", {rate}/s, {:#} left", HumanDuration(state.eta()));
        }
    };
    Ok(ProgressStyle::with_template(template)?.with_key("pace", pace))
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;
    use crate::model::Mode;

    #[test]
    fn a_bar_shows_how_far_how_fast_and_how_long() {
        let terminal = InMemoryTerm::new(4, 80);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let bars = Bars {
            all: Some(MultiProgress::with_draw_target(target)),
            by_instance: Mutex::default(),
        };
        let show = |done| {
            bars.show(&Progress {
                instance: "acme".to_owned(),
                mode: Mode::Full,
                phase: Phase::Reading,
                done,
                total: Some(4_000),
            });
            bars.by_instance.lock().unwrap()["acme"].tick();
            terminal.contents()
        };
        let shown = show(0);
        assert!(shown.ends_with(" 0/4,000 read"), "{shown}");
        let shown = show(1_000);
        assert!(shown.contains("1,000/4,000 read, "), "{shown}");
        assert!(shown.contains("/s, ") && shown.contains(" left"), "{shown}");
        bars.clear();
        assert_eq!(terminal.contents(), "");
    }
}
