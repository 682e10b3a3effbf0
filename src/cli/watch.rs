//! `musterd status --watch`: one look over the other, on a terminal.

use std::path::Path;
use std::time::Duration;

use console::Term;
use tokio::time::MissedTickBehavior;

use super::exit::{Exit, Failure};
use super::output::Output;
use super::status::{self, Args};
use crate::clock::{Clock as _, SystemClock};
use crate::model::Foreign;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Shows the status until a signal ends it.
///
/// # Errors
/// When there is no terminal, or what is asked for is wrong from the beginning, like a mistyped name.
pub(super) async fn watch(args: &Args, config: &Path) -> anyhow::Result<Exit> {
    let screen = Term::stdout();
    if !screen.is_term() {
        return Err(
            Failure::new("`--watch` shows on a terminal, and this is none")
                .hint("`musterd status --json` is for programs")
                .into(),
        );
    }
    status::shown(args, config, SystemClock.now())?;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let now = SystemClock.now();
        // A daemon that is replaced, or a mirror that is restored, is there again.
        let shown = status::shown(args, config, now)
            .unwrap_or_else(|error| format!("{}\n", Foreign(&format!("{error:#}"))));
        screen.clear_screen()?;
        let mut out = Output::stdout();
        out.text(&format!("{shown}\n{now:.0}, every 2 s; Ctrl-C ends it\n"))?;
        out.flush()?;
    }
}
