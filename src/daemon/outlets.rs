//! Where metrics go: a file, a port, a heartbeat. Each is there while the configuration asks for it. None of them can
//! delay a sync, or end the daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::HeartbeatLine;
use super::fleet::Fleet;
use crate::config::heartbeat_url;
use crate::config::settings::MetricsSettings;
use crate::metrics::heartbeat::{self, Missed};
use crate::metrics::{
    self, GUARDS, Groups, Instance, Process, Snapshot, listen, process, textfile,
};
use crate::mirror;
use crate::model::InstanceName;
use crate::scim::auth::SecretSource;

/// Where metrics go.
pub(super) struct Outlets {
    fleet: Arc<Fleet>,
    started_at: Timestamp,
    settings: watch::Sender<MetricsSettings>,
    served: Option<Served>,
}

/// A port that metrics are served at, as soon as it can be had.
struct Served {
    address: SocketAddr,
    stop: CancellationToken,
}

/// A port that was taken for a configuration which is not in force yet; given back when dropped. Empty where there is nothing to
/// take, or it cannot be had.
#[derive(Default)]
pub(super) struct Port(Option<TcpListener>);

/// How long after a port could not be had it is tried again: at first, and at most.
const TAKE_AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_mins(1)];

impl Outlets {
    pub(super) fn new(fleet: &Arc<Fleet>) -> Self {
        Self {
            fleet: Arc::clone(fleet),
            started_at: fleet.clock.now(),
            settings: watch::Sender::new(MetricsSettings::default()),
            served: None,
        }
    }

    /// Takes the port of a new configuration, unless it is served already. That it cannot be had is a warning: to mirror is more than
    /// to tell of it.
    pub(super) async fn take_port(&self, new: &MetricsSettings) -> Port {
        let served = self.served.as_ref().map(|served| served.address);
        let Some(address) = new.listen.filter(|address| served != Some(*address)) else {
            return Port::default();
        };
        match TcpListener::bind(address).await {
            Ok(listener) => Port(Some(listener)),
            Err(error) => {
                warn!(%address, %error, "metrics cannot be served yet, it is tried again every minute");
                Port::default()
            }
        }
    }

    /// Puts settings in force. Returns the server of a new port, which ends with `stop` or with the next settings. A port that
    /// was not taken yet is tried for again until it can be had.
    pub(super) fn follow(
        &mut self,
        new: &MetricsSettings,
        port: Port,
        stop: &CancellationToken,
    ) -> Option<impl Future<Output = ()> + Send + 'static> {
        if self.served.as_ref().map(|served| served.address) != new.listen
            && let Some(served) = self.served.take()
        {
            served.stop.cancel();
        }
        self.settings.send_replace(new.clone());
        let address = new.listen.filter(|_| self.served.is_none())?;
        let stop = stop.child_token();
        self.served = Some(Served {
            address,
            stop: stop.clone(),
        });
        let text = self.text();
        Some(async move {
            let listener = match port.0 {
                Some(listener) => listener,
                None => tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    listener = take_at_last(address) => listener,
                },
            };
            let bound = listener.local_addr().unwrap_or(address);
            info!(address = %bound, "metrics are served");
            listen::serve(listener, text, stop).await;
        })
    }

    /// Makes the text that is served.
    fn text(&self) -> listen::Text {
        let (fleet, started_at) = (Arc::clone(&self.fleet), self.started_at);
        Arc::new(move || {
            let fleet = Arc::clone(&fleet);
            Box::pin(async move {
                let process = Process {
                    started_at,
                    resident_memory_bytes: process::resident_memory_bytes(),
                    open_fds: process::open_fds(),
                };
                match exposition(&fleet, Some(process)).await {
                    Ok(text) => Some(text),
                    Err(error) => {
                        debug!(error = format!("{error:#}"), "metrics cannot be served");
                        None
                    }
                }
            })
        })
    }

    /// Keeps the file for a node exporter: written after each sync, and every so often for what no sync changes.
    pub(super) fn keep_file(
        &self,
        every: Duration,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let fleet = Arc::clone(&self.fleet);
        let mut settings = self.settings.subscribe();
        async move {
            let mut ended = fleet.meter.ended();
            let mut beat = tokio::time::interval(every);
            beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut file = File::default();
            loop {
                let path = settings.borrow_and_update().textfile.clone();
                ended.mark_unchanged();
                file.moves_to(path.as_deref()).await;
                if let Some(path) = path {
                    file.write(&fleet, path).await;
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    // Neither sender goes before the daemon does.
                    Ok(()) = settings.changed() => {}
                    Ok(()) = ended.changed() => {}
                    _ = beat.tick() => {}
                }
            }
        }
    }

    /// Keeps the heartbeat, over lines that `line` makes.
    pub(super) fn keep_heartbeat(
        &self,
        line: HeartbeatLine,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let settings = self.settings.subscribe();
        let beat = move || {
            let source = settings.borrow().heartbeat.clone();
            let line = Arc::clone(&line);
            async move { Some(beat(source?, &line).await) }
        };
        heartbeat::keep(self.fleet.meter.succeeded(), beat, stop)
    }
}

/// Calls the URL that is in the secret now: a file may have another one than at the start.
async fn beat(source: SecretSource, line: &HeartbeatLine) -> Result<(), Missed> {
    let read = tokio::task::spawn_blocking(move || source.read()).await;
    let secret = match read {
        Ok(Ok(secret)) => secret,
        Ok(Err(error)) => return Err(Missed::Address(error.to_string())),
        // Nothing aborts it: the runtime is stopping.
        Err(_) => return Err(Missed::Address("it was not read".to_owned())),
    };
    let url = heartbeat_url(secret.expose_secret())
        .map_err(|wrong| Missed::Address(format!("the URL that it holds {wrong}")))?;
    let exchange = line(&url).map_err(Missed::Exchange)?;
    heartbeat::call(&*exchange, url).await
}

/// The file for a node exporter, as far as it is written.
#[derive(Default)]
struct File {
    written: Option<PathBuf>,
    is_failing: bool,
}

impl File {
    /// Takes away what was written elsewhere: it would be read for ever.
    async fn moves_to(&mut self, path: Option<&Path>) {
        let Some(left) = self.written.take_if(|written| path != Some(&**written)) else {
            return;
        };
        match tokio::fs::remove_file(&left).await {
            Ok(()) => info!(path = %left.display(), "metrics are no longer written here"),
            Err(error) => warn!(
                path = %left.display(),
                %error,
                "metrics are no longer written here, but the file stays: remove it"
            ),
        }
    }

    async fn write(&mut self, fleet: &Fleet, path: PathBuf) {
        match exposition(fleet, None).await {
            Ok(text) => {
                let to = path.clone();
                let written =
                    tokio::task::spawn_blocking(move || textfile::write(&to, &text)).await;
                // Nothing aborts it: it panicked, or the runtime is stopping.
                let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
                match &written {
                    Ok(()) if self.is_failing => {
                        info!(path = %path.display(), "metrics are written again");
                    }
                    Ok(()) => debug!(path = %path.display(), "metrics written"),
                    Err(error) if self.is_failing => {
                        debug!(path = %path.display(), %error, "metrics cannot be written");
                    }
                    Err(error) => warn!(
                        path = %path.display(),
                        %error,
                        "metrics cannot be written; under systemd the unit needs `ReadWritePaths=` for their folder"
                    ),
                }
                self.is_failing = written.is_err();
                if written.is_ok() {
                    self.written = Some(path);
                }
            }
            // Whoever uses the mirror says so. The file grows old, and that is seen.
            Err(error) => debug!(error = format!("{error:#}"), "metrics cannot be told"),
        }
    }
}

async fn exposition(fleet: &Fleet, process: Option<Process>) -> anyhow::Result<String> {
    Ok(metrics::text(snapshot(fleet, process).await?)?)
}

/// What is known now: of the mirror by asking it, as `musterd status` does, and of this process by its counts.
async fn snapshot(fleet: &Fleet, process: Option<Process>) -> Result<Snapshot, mirror::Error> {
    let now = fleet.clock.now();
    let read = fleet
        .mirror
        .read(move |reader| Ok((reader.health(now)?, reader.held_counts()?, reader.feed()?)));
    let (health, held, feed) = read.await?;
    let sizes = fleet.mirror.file_sizes().await?;
    let links: BTreeMap<InstanceName, _> = fleet
        .links()
        .into_iter()
        .map(|link| (link.name.clone(), link))
        .collect();
    let linked = health.into_iter().filter(|row| row.state != "unlinked");
    let instances = linked.filter_map(|row| {
        // What another program wrote there is no instance of ours.
        let name = InstanceName::parse(&row.instance).ok()?;
        let time = |text: &Option<String>| text.as_ref()?.parse().ok();
        let held: Vec<_> = held
            .iter()
            .filter(|held| held.instance == row.instance)
            .collect();
        let of_guard = |guard: &str| {
            let counts = held.iter().filter(|held| held.guard == guard);
            counts.map(|held| held.open_holds).sum()
        };
        let spent = links.get(&name).map(|link| link.client.spent().snapshot());
        let groups = row.groups.as_ref().filter(|groups| !groups.left_out);
        Some(Instance {
            last_success_at: time(&row.last_success_at),
            last_full_success_at: time(&row.last_full_success_at),
            watermark: time(&row.watermark),
            open_holds: GUARDS.map(of_guard),
            held_changes: held.iter().map(|held| held.held_changes).sum(),
            rejects: row.rejects + groups.map_or(0, |groups| groups.rejects),
            living: row.users,
            active: row.active,
            groups: groups.map(|groups| Groups {
                last_full_success_at: time(&groups.last_full_success_at),
                living: groups.groups,
                known_in_part: groups.known_in_part,
                memberships: groups.memberships,
            }),
            ambiguous_profiles: row.ambiguous_profiles,
            consecutive_failures: row.consecutive_failures,
            spent: spent.unwrap_or_default(),
            counted: fleet.meter.counted(&name),
            name,
        })
    });
    Ok(Snapshot {
        version: env!("CARGO_PKG_VERSION"),
        taken_at: now,
        feed_last_seq: feed.last_seq,
        mirror_bytes: sizes.mirror_bytes,
        wal_bytes: sizes.wal_bytes,
        instances: instances.collect(),
        process,
    })
}

/// Takes a port that another program has, when it gives it up.
async fn take_at_last(address: SocketAddr) -> TcpListener {
    let [mut wait, at_most] = TAKE_AGAIN_AFTER;
    loop {
        tokio::time::sleep(wait).await;
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => debug!(%address, %error, "metrics cannot be served yet"),
        }
        wait = at_most.min(wait * 2);
    }
}
