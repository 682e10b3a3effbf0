//! The tasks of a running daemon: for each instance one that keeps it synced, one that turns the
//! alarm clock's rings into wake-ups, the control socket's, and those that metrics go out by.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Outside;
use super::execute::Executor;
use super::fleet::Fleet;
use super::link::Link;
use super::outlets::{Outlets, Port};
use crate::config::Settings;
use crate::control;
use crate::mirror;
use crate::model::{InstanceName, Mode, ResourceType, Trigger};
use crate::schedule::{Ticker, splay_of};
use crate::sync::{Order, Progressing};

/// The tasks of a running daemon.
pub(super) struct Keepers {
    fleet: Arc<Fleet>,
    progress: Progressing,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    kept: BTreeMap<InstanceName, Kept>,
    tickers: Tickers,
    outlets: Outlets,
}

/// One instance that is being kept synced.
struct Kept {
    link: Arc<Link>,
    stop: CancellationToken,
}

type Tickers = Arc<Mutex<BTreeMap<(InstanceName, ResourceType, Mode), Ticker>>>;

/// At a start, instance after instance: the first syncs of many must not come in one second.
const STARTS_APART: Duration = Duration::from_millis(100);

impl Keepers {
    /// Starts the tasks that listen to the alarm clock and to the ends of syncs.
    pub(super) fn start(fleet: &Arc<Fleet>, outlets: Outlets, outside: &Outside) -> Self {
        let tickers = Tickers::default();
        let mut keepers = Self {
            fleet: Arc::clone(fleet),
            progress: Arc::clone(&outside.progress),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
            kept: BTreeMap::new(),
            tickers: Arc::clone(&tickers),
            outlets,
        };
        let stop = keepers.stop.clone();
        let file = keepers.outlets.keep_file(outside.look_every, stop.clone());
        let line = Arc::clone(&outside.heartbeat);
        let heartbeat = keepers.outlets.keep_heartbeat(line, stop);
        keepers.spawn_outlet(file);
        keepers.spawn_outlet(heartbeat);
        let (bell, clock) = (Arc::clone(&outside.bell), Arc::clone(&fleet.clock));
        let stop = keepers.stop.clone();
        keepers.spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return Ok(()),
                    () = bell.notified() => {}
                }
                let mut tickers = tickers.lock().unwrap_or_else(PoisonError::into_inner);
                for ticker in tickers.values_mut() {
                    ticker.ring(&*clock);
                }
            }
        });
        keepers
    }

    /// Brings the tasks up to the fleet: what is no longer linked or has changed stops, what is new or
    /// has changed starts, all else goes on undisturbed.
    pub(super) fn follow(&mut self, settings: &Settings, port: Port) {
        let server = self.outlets.follow(&settings.metrics, port, &self.stop);
        if let Some(server) = server {
            self.spawn_outlet(server);
        }
        let links: BTreeMap<_, _> = self
            .fleet
            .links()
            .into_iter()
            .map(|link| (link.name.clone(), link))
            .collect();
        self.kept.retain(|name, kept| {
            let stays = links
                .get(name)
                .is_some_and(|link| Arc::ptr_eq(link, &kept.link));
            if !stays {
                kept.stop.cancel();
            }
            stays
        });
        let mut tickers = self.tickers.lock().unwrap_or_else(PoisonError::into_inner);
        tickers.retain(|(name, ..), _ticker| self.kept.contains_key(name));
        let now = self.fleet.clock.now();
        let mut starts = Vec::new();
        for (name, link) in links {
            if self.kept.contains_key(&name) {
                continue;
            }
            let mut wakes = Vec::new();
            for resource in link.settings.resources.iter().copied() {
                let wake = |mode| {
                    let wake = Arc::new(Notify::new());
                    let schedule = link.settings.schedule.of(resource, mode).clone();
                    let ticker = Ticker::new(schedule, Arc::clone(&wake), now);
                    tickers.insert((name.clone(), resource, mode), ticker);
                    wake
                };
                let modes = [Mode::Incremental, Mode::Full].map(wake);
                wakes.push((resource, modes));
            }
            let stop = self.stop.child_token();
            self.kept.insert(
                name,
                Kept {
                    link: Arc::clone(&link),
                    stop: stop.clone(),
                },
            );
            starts.push((link, wakes, stop));
        }
        drop(tickers);
        for (place, (link, wakes, stop)) in (0_u32..).zip(starts) {
            // Each source by itself: groups never stop users.
            for (resource, wakes) in wakes {
                self.keep(Arc::clone(&link), resource, place, wakes, stop.clone());
            }
        }
        debug_assert_eq!(
            self.kept.len(),
            settings.instances.len(),
            "one keeper an instance"
        );
    }

    fn keep(
        &mut self,
        link: Arc<Link>,
        resource: ResourceType,
        place: u32,
        [incremental, full]: [Arc<Notify>; 2],
        stop: CancellationToken,
    ) {
        let keeper = Keeper {
            fleet: Arc::clone(&self.fleet),
            link,
            resource,
            progress: Arc::clone(&self.progress),
            stop,
        };
        self.spawn({
            let keeper = keeper.clone();
            async move {
                if keeper.pause(STARTS_APART * place).await {
                    keeper.sync(None, Trigger::Startup).await?;
                }
                keeper.on_ticks(Mode::Incremental, &incremental).await
            }
        });
        self.spawn(async move { keeper.on_ticks(Mode::Full, &full).await });
    }

    /// Serves the control socket.
    pub(super) fn serve(&mut self, server: control::Server, executor: Executor) {
        let stop = self.stop.clone();
        self.spawn(async move {
            server.run(Arc::new(executor), stop).await;
            Ok(())
        });
    }

    /// Takes the port of new settings: see [`Outlets::take_port`].
    pub(super) async fn take_port(&self, new: &Settings) -> Port {
        self.outlets.take_port(&new.metrics).await
    }

    /// One that ends unasked does not end the daemon: to mirror is more than to tell of it, and that nothing is told
    /// any more is seen by those who wait for it.
    fn spawn_outlet(&mut self, outlet: impl Future<Output = ()> + Send + 'static) {
        self.spawn(async move {
            if let Err(failure) = tokio::spawn(outlet).await {
                error!(error = %failure, "metrics are not told any more: restart the daemon, and report this");
            }
            Ok(())
        });
    }

    fn spawn(&mut self, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Resolves when a task ends unasked, with the reason.
    pub(super) async fn failed(&mut self) -> anyhow::Error {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(failure))) => return failure,
                Some(Err(failure)) => {
                    return anyhow::Error::new(failure)
                        .context("a part of the daemon ended unasked");
                }
                None => std::future::pending().await,
            }
        }
    }

    /// When the next tick is due, of all schedules.
    pub(super) fn next_due_at(&self) -> Option<Timestamp> {
        let tickers = self.tickers.lock().unwrap_or_else(PoisonError::into_inner);
        tickers.values().filter_map(Ticker::due_at).min()
    }

    /// Tells everything to stop and waits for it, at most so long.
    ///
    /// # Errors
    /// When something had to be cut off.
    pub(super) async fn drain(mut self, at_most: Duration) -> anyhow::Result<()> {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        match tokio::time::timeout(at_most, all).await {
            Ok(()) => Ok(()),
            Err(_elapsed) => {
                self.tasks.abort_all();
                Err(anyhow::anyhow!(
                    "a sync did not stop within {} s and was cut off; what it had not committed is read again",
                    at_most.as_secs()
                ))
            }
        }
    }
}

/// Keeps one source of an instance synced.
#[derive(Clone)]
struct Keeper {
    fleet: Arc<Fleet>,
    link: Arc<Link>,
    resource: ResourceType,
    progress: Progressing,
    stop: CancellationToken,
}

impl Keeper {
    /// Syncs after each tick. A tick during a sync becomes at most one more.
    async fn on_ticks(&self, mode: Mode, wake: &Notify) -> anyhow::Result<()> {
        let splay = splay_of(
            self.link.name.as_str(),
            self.link.settings.schedule.splay(self.resource, mode),
        );
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = wake.notified() => {}
            }
            if !self.pause(splay).await {
                return Ok(());
            }
            self.sync(Some(mode), Trigger::Schedule).await?;
        }
    }

    /// Syncs once. An error is one that only a new process can mend.
    async fn sync(&self, mode: Option<Mode>, trigger: Trigger) -> anyhow::Result<()> {
        // Told to wait longer than a sync may, the instance is left alone until then.
        if let Some(not_before) = self.link.client.not_before() {
            let wait = not_before.duration_since(self.fleet.clock.now());
            if let Ok(wait) = Duration::try_from(wait) {
                let began = Instant::now();
                let goes_on = self.pause(wait).await;
                // No sync counts it: there is none yet.
                self.link.client.spent().throttled(began.elapsed());
                if !goes_on {
                    return Ok(());
                }
            }
        }
        let order = Order { mode, trigger };
        let synced = self
            .fleet
            .sync_one(&self.link, self.resource, order, &self.stop, &self.progress)
            .await;
        match synced {
            // It was taken out while it waited for its turn.
            Ok(_) | Err(mirror::Error::NotLinked(_)) => Ok(()),
            Err(error) if error.is_fatal() => {
                Err(anyhow::Error::new(error).context("the mirror cannot be used any more"))
            }
            Err(error) => {
                error!(
                    instance = %self.link.name,
                    error = format!("{:#}", anyhow::Error::new(error)),
                    "the mirror cannot be used; the next sync tries again"
                );
                Ok(())
            }
        }
    }

    /// Waits, unless told to stop: then `false`.
    async fn pause(&self, wait: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}
