//! Build from settings, run until told to stop, drain.

pub mod execute;
pub mod fleet;
mod keep;
pub mod link;
pub mod map;
pub mod meter;
mod outlets;
pub mod removal;
pub mod report;
pub mod requests;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use url::Url;

use crate::config::Settings;
use crate::control;
use crate::mirror::Mirror;
use crate::scim::client::Exchange;
use crate::scim::error::ExchangeError;
use crate::sync::Progressing;
use crate::systemd::Notifier;
use fleet::Fleet;
use keep::Keepers;
use link::Surroundings;
use outlets::Outlets;
use requests::Keep;

/// Reads the configuration anew.
pub type Loader = Arc<dyn Fn() -> anyhow::Result<Settings> + Send + Sync>;

/// Told of a configuration that came into force while the daemon runs.
pub type InForce = Arc<dyn Fn(&Settings) -> anyhow::Result<()> + Send + Sync>;

/// Makes the line to whoever waits for heartbeats.
pub type HeartbeatLine =
    Arc<dyn Fn(&Url) -> Result<Arc<dyn Exchange>, ExchangeError> + Send + Sync>;

/// Everything that comes from outside.
pub struct Outside {
    /// Clock, network, lot.
    pub surroundings: Surroundings,
    /// Rung by the alarm clock once a second, or by a simulation's.
    pub bell: Arc<Notify>,
    /// Reads the configuration anew.
    pub load: Loader,
    /// Told of a configuration that came into force while the daemon runs.
    pub in_force: InForce,
    /// Makes the line to whoever waits for heartbeats.
    pub heartbeat: HeartbeatLine,
    /// What systemd is told.
    pub notifier: Notifier,
    /// How often its watchdog must hear from us; `None` without one.
    pub watchdog_every: Option<Duration>,
    /// How often the write-ahead log is looked at and the status line told: [`LOOK_EVERY`], or seldom in a
    /// simulation, where nobody reads the line.
    pub look_every: Duration,
    /// Where the control socket lies; `None` without one.
    pub socket: Option<PathBuf>,
    /// Told of every sync's progress.
    pub progress: Progressing,
    /// Ends the daemon: syncs stop at their next step.
    pub stop: CancellationToken,
    /// A message asks for the configuration to be read anew.
    pub reload: mpsc::Receiver<()>,
}

/// How long the end may take before what still runs is cut off. Nothing is lost by that either: what
/// was not committed was not there.
const DRAIN_AT_MOST: Duration = Duration::from_secs(10);

/// How often the write-ahead log is looked at and the status line told.
pub const LOOK_EVERY: Duration = Duration::from_mins(1);

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part of it ends unasked.
pub async fn run(settings: Settings, mirror: Mirror, outside: Outside) -> anyhow::Result<()> {
    let fleet = Arc::new(Fleet::assemble(&settings, mirror.clone(), &outside.surroundings).await?);
    fleet.tidy(&outside.stop).await?;
    let ended = serve(settings, &fleet, outside).await;
    drop(fleet);
    let closed = mirror.close().await.context("cannot close the mirror");
    ended.and(closed)
}

async fn serve(
    mut settings: Settings,
    fleet: &Arc<Fleet>,
    mut outside: Outside,
) -> anyhow::Result<()> {
    let (reload_by_command, mut commands) = mpsc::channel(1);
    let server = match &outside.socket {
        Some(path) => Some(control::listen(path)?),
        None => None,
    };
    let outlets = Outlets::new(fleet);
    let port = outlets.take_port(&settings.metrics).await;
    let mut keepers = Keepers::start(fleet, outlets, &outside);
    keepers.follow(&settings, port);
    if let Some(server) = server {
        let executor = execute::Executor {
            fleet: Arc::clone(fleet),
            load: Arc::clone(&outside.load),
            reload: Some(reload_by_command),
        };
        keepers.serve(server, executor);
    }
    info!(
        version = env!("CARGO_PKG_VERSION"),
        n_instances = settings.instances.len(),
        "started"
    );
    told(outside.notifier.ready());

    let mut look = tokio::time::interval(outside.look_every);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut hour = tokio::time::interval(Duration::from_hours(1));
    hour.set_missed_tick_behavior(MissedTickBehavior::Skip);
    hour.reset();
    let mut alive = tokio::time::interval(outside.watchdog_every.unwrap_or(LOOK_EVERY));
    alive.set_missed_tick_behavior(MissedTickBehavior::Skip);

    let ended = loop {
        tokio::select! {
            biased;
            () = outside.stop.cancelled() => break Ok(()),
            failure = keepers.failed() => break Err(failure),
            Some(()) = outside.reload.recv() => {
                told(outside.notifier.reloading());
                if let Err(error) = reload(&mut settings, fleet, &mut keepers, &outside).await {
                    error!(error = format!("{error:#}"), "the configuration stays as it was");
                }
                told(outside.notifier.ready());
            }
            Some(reply) = commands.recv() => {
                let result = reload(&mut settings, fleet, &mut keepers, &outside).await;
                // Whoever asked may have gone; the work is done all the same.
                let _gone = execute::Reply::send(reply, result);
            }
            _ = alive.tick() => told(outside.notifier.watchdog()),
            _ = hour.tick() => fleet.reporter.hourly(),
            _ = look.tick() => {
                if let Err(error) = fleet.checkpoint().await {
                    warn!(error = format!("{:#}", anyhow::Error::new(error)), "cannot look at the mirror");
                }
                fleet.keep_requests(Keep::Now).await;
                let line = status::line(fleet, keepers.next_due_at()).await;
                told(outside.notifier.status(&line));
            }
        }
    };
    told(outside.notifier.stopping());
    info!("stopping");
    let drained = keepers.drain(DRAIN_AT_MOST).await;
    fleet.keep_requests(Keep::Now).await;
    info!("stopped");
    ended.and(drained)
}

/// A service manager that cannot be told is no reason to stop: it will notice by itself.
fn told(result: std::io::Result<()>) {
    if let Err(error) = result {
        warn!(%error, "systemd cannot be told");
    }
}

/// Puts a new configuration in force; a bad one changes nothing.
async fn reload(
    settings: &mut Settings,
    fleet: &Arc<Fleet>,
    keepers: &mut Keepers,
    outside: &Outside,
) -> anyhow::Result<()> {
    let new = (outside.load)()?;
    anyhow::ensure!(
        new.mirror.path == settings.mirror.path,
        "`mirror.path` cannot change while the daemon runs: restart it"
    );
    let port = keepers.take_port(&new).await;
    fleet.reassemble(&new, &outside.surroundings).await?;
    (outside.in_force)(&new)?;
    keepers.follow(&new, port);
    info!(n_instances = new.instances.len(), "configuration reloaded");
    *settings = new;
    Ok(())
}
