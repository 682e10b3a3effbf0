//! `musterd run`: the daemon.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::exit::{Exit, Failure};
use super::outside;
use crate::config::{self, Secrets};
use crate::daemon::{self, Outside};
use crate::mirror::Mirror;
use crate::schedule::Alarm;
use crate::systemd::{self, Notifier};

/// Run the daemon
///
/// Syncs each instance once, then on its schedule, until SIGTERM or Ctrl-C. SIGHUP reads the
/// configuration anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd run --config ./musterd.toml")]
pub(crate) struct Args {}

pub(crate) async fn run(_args: Args, config: PathBuf) -> anyhow::Result<Exit> {
    let settings = config::load(&outside::sources(&config, Secrets::All))?;
    let log = outside::log(&settings.log)?;
    for warning in &settings.warnings {
        warn!("{warning}");
    }
    let mirror = Mirror::open(&settings.mirror.path, &outside::epoch()?)?;
    let alarm = Alarm::set().await.context("cannot set the alarm clock")?;
    let stop = CancellationToken::new();
    let (reload, asked) = mpsc::channel(1);
    let outside = Outside {
        surroundings: outside::surroundings()?,
        bell: Arc::clone(&alarm.bell),
        load: outside::loader(&config),
        in_force: Arc::new(move |settings| Ok(log.apply(&settings.log)?)),
        heartbeat: outside::heartbeat(),
        notifier: Notifier::new(env("NOTIFY_SOCKET").as_deref())?,
        watchdog_every: systemd::watchdog_interval(
            env("WATCHDOG_USEC").as_deref(),
            env("WATCHDOG_PID").as_deref(),
            std::process::id(),
        ),
        look_every: daemon::LOOK_EVERY,
        socket: Some(settings.socket.clone()),
        progress: Arc::new(|_progress| {}),
        stop: stop.clone(),
        reload: asked,
    };
    let signals = Signals::listen()?;
    let interrupted = AtomicBool::new(false);
    let ended = tokio::select! {
        ended = daemon::run(settings, mirror, outside) => ended,
        aborted = signals.forward(stop, reload, &interrupted) => Err(aborted),
    };
    alarm.stop().await.context("cannot stop the alarm clock")?;
    ended.map(|()| match interrupted.load(Ordering::Relaxed) {
        true => Exit::Interrupted,
        false => Exit::Done,
    })
}

fn env(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Tells the daemon. The first signal to end lets it drain, the second one does not.
    async fn forward(
        mut self,
        stop: CancellationToken,
        reload: mpsc::Sender<()>,
        interrupted: &AtomicBool,
    ) -> anyhow::Error {
        loop {
            tokio::select! {
                Some(()) = self.terminate.recv() => {}
                Some(()) = self.interrupt.recv() => interrupted.store(true, Ordering::Relaxed),
                Some(()) = self.hang_up.recv() => {
                    // One that waits already covers this one.
                    let _waits = reload.try_send(());
                    continue;
                }
            }
            if stop.is_cancelled() {
                return Failure::new("stopped by a second signal before it had drained").into();
            }
            info!("told to stop");
            stop.cancel();
        }
    }
}
