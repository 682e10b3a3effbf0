//! Progress bars of syncs on a terminal, nothing of them in a pipe.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

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
            Some(_) => "{prefix:>16} {bar:24} {human_pos}/{human_len} {msg}, {eta} left",
            None => "{prefix:>16} {spinner} {human_pos} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(style) {
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
