//! A whole world in one process under a paused clock: simulated instances called without a network,
//! the real daemon over a real SQLite file, and one seed for everything. Hours pass in seconds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use musterd::clock::SharedClock;
use musterd::config::settings::InstanceSettings;
use musterd::config::{self, Sources};
use musterd::control::{self, Ended, Line, Lines, Request};
use musterd::daemon::link::Surroundings;
use musterd::daemon::{self, Outside};
use musterd::mirror::Mirror;
use musterd::sandbox::{InProcess, Sandbox};
use musterd::scim::client::Exchange;
use musterd::scim::error::ExchangeError;
use musterd::sync::Progressing;
use musterd::systemd::Notifier;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where a world's time begins.
pub(crate) const START: &str = "2026-03-01T09:00:30Z";

/// Simulated instances, a configuration that links them all, and the daemon that syncs them.
pub(crate) struct World {
    folder: tempfile::TempDir,
    seed: u64,
    clock: SharedClock,
    sandboxes: BTreeMap<String, Sandbox>,
    lines: LineMaker,
    bell_every: Duration,
    look_every: Duration,
    has_socket: bool,
    progress: Progressing,
    life: Option<Life>,
}

/// Makes the line to the instance of this name of the one that does nothing but carry.
pub(crate) type LineMaker = Arc<dyn Fn(&str, InProcess) -> Arc<dyn Exchange> + Send + Sync>;

/// A runtime whose time is simulated, and in which nothing depends on how fast threads are. What waits for
/// the disk and what does not take turns: all that can go on goes on until everybody waits, then one
/// thread does all that was asked of the disk, in that order, while all else stands still.
pub(crate) struct Simulated {
    runtime: Runtime,
    disk: Arc<Disk>,
}

impl Simulated {
    pub(crate) fn new() -> Self {
        Self::with_threads(|| {})
    }

    /// One whose threads do this first.
    pub(crate) fn with_threads(begin: impl Fn() + Send + Sync + 'static) -> Self {
        let disk = Arc::new(Disk::default());
        let [named, begun, ended, parked] = std::array::from_fn(|_| Arc::clone(&disk));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            // Who was woken by another goes before who was woken by the disk.
            .global_queue_interval(u32::MAX)
            // One thread at a time for the disk. It is named when the first piece of work is asked for, waits
            // for its turn, and ends when all is done.
            .max_blocking_threads(1)
            .thread_keep_alive(Duration::ZERO)
            .thread_name_fn(move || {
                named.ask();
                "disk".to_owned()
            })
            .on_thread_start(move || {
                begin();
                begun.wait_for_turn();
            })
            .on_thread_stop(move || ended.end())
            .on_thread_park(move || parked.catch_up())
            .build()
            .unwrap();
        Self { runtime, disk }
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub(crate) fn disk(&self) -> Arc<Disk> {
        Arc::clone(&self.disk)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        // The runtime waits for its thread, which does nothing more than end.
        self.disk.state().is_its_turn = true;
        self.disk.changed.notify_all();
    }
}

/// Lets what waits for the disk and all else take turns.
#[derive(Default)]
pub(crate) struct Disk {
    state: Mutex<Turns>,
    changed: Condvar,
}

#[derive(Default)]
struct Turns {
    is_its_turn: bool,
    /// Whether a thread was asked for that has not ended.
    is_busy: bool,
}

impl Disk {
    /// Waits until all that was asked of the disk is done.
    pub(crate) fn catch_up(&self) {
        let mut state = self.state();
        state.is_its_turn = true;
        self.changed.notify_all();
        let wait = self.changed.wait_while(state, |state| state.is_busy);
        wait.unwrap_or_else(PoisonError::into_inner).is_its_turn = false;
    }

    fn ask(&self) {
        self.state().is_busy = true;
    }

    fn wait_for_turn(&self) {
        let wait = self
            .changed
            .wait_while(self.state(), |state| !state.is_its_turn);
        drop(wait);
    }

    fn end(&self) {
        self.state().is_busy = false;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, Turns> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running daemon.
struct Life {
    daemon: JoinHandle<anyhow::Result<()>>,
    alarm: JoinHandle<()>,
    stop: CancellationToken,
    reload: mpsc::Sender<()>,
}

impl World {
    /// These instances by this clock, not yet configured.
    pub(crate) fn of(seed: u64, clock: SharedClock, sandboxes: BTreeMap<String, Sandbox>) -> Self {
        // Where the system keeps files in memory, nothing waits for a disk.
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        Self {
            folder: folder.unwrap(),
            seed,
            clock,
            sandboxes,
            lines: Arc::new(|_name, line| Arc::new(line)),
            bell_every: Duration::from_secs(1),
            look_every: daemon::LOOK_EVERY,
            has_socket: false,
            progress: Arc::new(|_progress| {}),
            life: None,
        }
    }

    /// Puts something between the daemon and its instances, from the next start on.
    pub(crate) fn set_lines(&mut self, lines: LineMaker) {
        self.lines = lines;
    }

    /// How often the alarm clock rings, and the daemon looks after its file, from the next start on.
    /// Seldom is cheap: it is all that goes on in a mirror at rest.
    pub(crate) fn set_paces(&mut self, bell_every: Duration, look_every: Duration) {
        (self.bell_every, self.look_every) = (bell_every, look_every);
    }

    /// How often the alarm clock rings, from the next start on: seldom is cheap, and makes syncs late.
    pub(crate) fn ring_every(&mut self, every: Duration) {
        self.bell_every = every;
    }

    /// Told of every sync's progress, from the next start on.
    pub(crate) fn set_progress(&mut self, progress: Progressing) {
        self.progress = progress;
    }

    /// Lets the daemon listen on its control socket, from the next start on.
    pub(crate) fn listen(&mut self) {
        self.has_socket = true;
    }

    /// Writes the configuration anew: this text, behind where the mirror is.
    pub(crate) fn write_configuration(&self, text: &str) {
        let text = format!("[mirror]\npath = {:?}\n{text}\n", self.mirror_path());
        std::fs::write(self.folder.path().join("musterd.toml"), text).unwrap();
    }

    /// The instance of this name.
    pub(crate) fn sandbox(&self, name: &str) -> &Sandbox {
        &self.sandboxes[name]
    }

    /// All instances by name.
    pub(crate) fn sandboxes(&self) -> &BTreeMap<String, Sandbox> {
        &self.sandboxes
    }

    /// The mirror's file.
    pub(crate) fn mirror_path(&self) -> PathBuf {
        self.folder.path().join("mirror.db")
    }

    /// Where a daemon that listens does so.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.folder.path().join("mirror.db.sock")
    }

    /// The mirror as any other program reads it.
    pub(crate) fn read(&self) -> Connection {
        Connection::open_with_flags(self.mirror_path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    /// Starts the daemon.
    pub(crate) fn start(&mut self) {
        let sources = Sources {
            file: self.folder.path().join("musterd.toml"),
            env: BTreeMap::default(),
            now: self.clock.now(),
            secrets: config::Secrets::All,
        };
        let settings = config::load(&sources).unwrap();
        let mirror = Mirror::open(&self.mirror_path(), "5eed").unwrap();
        let (bell, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let (reload, asked) = mpsc::channel(1);
        let (lines, sandboxes) = (Arc::clone(&self.lines), self.sandboxes.clone());
        let outside = Outside {
            surroundings: Surroundings {
                clock: Arc::clone(&self.clock),
                exchange: Arc::new(move |settings: &InstanceSettings| {
                    let name = settings.client.instance.as_str();
                    let line = InProcess::new(sandboxes[name].clone(), settings.client.timeout);
                    Ok(lines(name, line))
                }),
                seed: self.seed,
            },
            bell: Arc::clone(&bell),
            load: Arc::new(move || Ok(config::load(&sources)?)),
            in_force: Arc::new(|_settings| Ok(())),
            // Nobody waits for heartbeats here.
            heartbeat: Arc::new(|_url| Err(ExchangeError::Setup("no line".into()))),
            notifier: Notifier::new(None).unwrap(),
            watchdog_every: None,
            look_every: self.look_every,
            socket: self.has_socket.then(|| self.socket_path()),
            progress: Arc::clone(&self.progress),
            stop: stop.clone(),
            reload: asked,
        };
        let every = self.bell_every;
        let alarm = tokio::spawn(async move {
            let mut rings = tokio::time::interval(every);
            loop {
                rings.tick().await;
                bell.notify_one();
            }
        });
        self.life = Some(Life {
            daemon: tokio::spawn(daemon::run(settings, mirror, outside)),
            alarm,
            stop,
            reload,
        });
    }

    /// Lets simulated time pass. The paused clock makes this a wait for all that is due until then,
    /// not for time.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::timeout(time, std::future::pending::<()>())
            .await
            .unwrap_err();
    }

    /// Asks the running daemon by its socket, as a command does; with the rows that it told.
    pub(crate) async fn command(&self, request: Request) -> (Ended, Vec<Value>) {
        let sockets = [self.socket_path()];
        let (lines, mut told) = Lines::channel();
        let asked = async {
            let ended = control::ask(&sockets, &request, &lines).await.unwrap();
            drop(lines);
            ended
        };
        let told = async {
            let mut rows = Vec::new();
            while let Some(line) = told.recv().await {
                if let Line::Row(row) = line {
                    rows.push(row);
                }
            }
            rows
        };
        tokio::join!(asked, told)
    }

    /// Tells the daemon to read its configuration anew.
    pub(crate) async fn reload(&mut self) {
        let life = self.life.as_ref().expect("a daemon that was started");
        life.reload.send(()).await.unwrap();
    }

    /// Whether the daemon that was started runs still.
    pub(crate) fn is_running(&self) -> bool {
        self.life
            .as_ref()
            .is_some_and(|life| !life.daemon.is_finished())
    }

    /// Forgets a daemon whose runtime has ended, as a process forgets that was killed.
    pub(crate) fn bury(&mut self) {
        self.life = None;
    }

    /// Tells the daemon to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        let life = self.life.take().expect("a daemon that was started");
        life.stop.cancel();
        life.daemon.await.unwrap().unwrap();
        life.alarm.abort();
    }

    /// The folder of the configuration and the mirror.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}
