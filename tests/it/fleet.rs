//! One simulated instance and the fleet that links it, in this process and under a paused clock: syncs
//! and requests are called one by one, as a test wants them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use musterd::clock::{ManualClock, SharedClock};
use musterd::config::settings::InstanceSettings;
use musterd::config::{self, Sources};
use musterd::control::{Ended, Execute as _, Line, Lines, Request};
use musterd::daemon::execute::{self, Executor};
use musterd::daemon::fleet::Fleet;
use musterd::daemon::link::Surroundings;
use musterd::mirror::Mirror;
use musterd::mirror::apply::SyncRow;
use musterd::model::{Mode, Outcome, Trigger};
use musterd::sandbox::{self, InProcess, Sandbox};
use musterd::scim::client::Exchange;
use musterd::sync::Order;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Where its time begins.
const START: &str = "2026-03-01T09:00:30Z";

/// The instance `acme`, and the fleet that has it linked.
pub(crate) struct Linked {
    pub(crate) sandbox: Sandbox,
    pub(crate) fleet: Arc<Fleet>,
    folder: tempfile::TempDir,
}

impl Linked {
    /// A simulated instance, with further lines of `[mirror]` and of its own section.
    pub(crate) async fn new(options: sandbox::Options, mirror: &str, instance: &str) -> Self {
        let clock: SharedClock = Arc::new(ManualClock::starting_at(START.parse().unwrap()));
        let sandbox = Sandbox::new(options, Arc::clone(&clock));
        let folder = tempfile::tempdir().unwrap();
        let rules = sandbox.auth();
        let (file, path) = (
            folder.path().join("musterd.toml"),
            folder.path().join("mirror.db"),
        );
        // Most scenes are of users.
        let resources = match instance.contains("resources") {
            true => "",
            false => "resources = [\"users\"]\n",
        };
        let text = format!(
            "[mirror]\npath = {path:?}\n{mirror}\n\
             [instances.acme]\nurl = \"https://acme.example\"\npage_size = 20\n\
             rate = {{ per_second = 1000, burst = 1000 }}\n{resources}{instance}\n\
             [instances.acme.auth]\ntype = \"basic\"\nusername = {:?}\npassword = {:?}\n",
            rules.username, rules.password
        );
        std::fs::write(&file, text).unwrap();
        let sources = Sources {
            file,
            env: BTreeMap::default(),
            now: clock.now(),
            secrets: config::Secrets::All,
        };
        let settings = config::load(&sources).unwrap();
        let line = sandbox.clone();
        let surroundings = Surroundings {
            clock,
            exchange: Arc::new(move |settings: &InstanceSettings| {
                let timeout = settings.client.timeout;
                Ok(Arc::new(InProcess::new(line.clone(), timeout)) as Arc<dyn Exchange>)
            }),
            seed: 5,
        };
        let mirror = Mirror::open(&path, "5eed").unwrap();
        let fleet = Fleet::assemble(&settings, mirror, &surroundings)
            .await
            .unwrap();
        Self {
            sandbox,
            fleet: Arc::new(fleet),
            folder,
        }
    }

    /// Where the configuration and the mirror are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// One value of the mirror.
    pub(crate) fn one<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        one(self.folder(), sql)
    }

    /// The row of a sync that succeeded; `None` where it did nothing.
    pub(crate) async fn sync(&self, mode: Mode) -> Option<SyncRow> {
        let order = Order {
            mode: Some(mode),
            trigger: Trigger::Request,
        };
        let link = self.fleet.links().pop().unwrap();
        let quiet: musterd::sync::Progressing = Arc::new(|_| {});
        let rows = self
            .fleet
            .sync(&link, order, &CancellationToken::new(), &quiet)
            .await
            .unwrap();
        let row = rows.into_iter().next_back()?;
        assert_eq!(row.outcome, Outcome::Succeeded, "{row:?}");
        Some(row)
    }

    /// How a dry run ends, and what it prints as `--json`.
    pub(crate) async fn dry_run(&self, mode: Mode) -> (Ended, Vec<Value>) {
        let fleet = &self.fleet;
        let (lines, mut told) = Lines::channel();
        let read = || Ok(fleet.mirror.reader()?);
        let links = fleet.links();
        let stop = CancellationToken::new();
        let run = async move {
            let mode = Some(mode);
            let ended = execute::dry_run(&links, &read, mode, &fleet.clock, &lines, &stop).await;
            drop(lines);
            ended
        };
        let (ended, rows) = tokio::join!(run, rows(&mut told));
        (ended.unwrap(), rows)
    }

    /// How a request ends that came in through the socket, and the rows of its answer.
    pub(crate) async fn ask(&self, request: Request) -> (Ended, Vec<Value>) {
        let executor = Executor {
            fleet: Arc::clone(&self.fleet),
            load: Arc::new(|| anyhow::bail!("nothing is loaded here")),
            reload: None,
        };
        let (lines, mut told) = Lines::channel();
        let stop = CancellationToken::new();
        let run = executor.execute(request, lines, stop);
        tokio::join!(run, rows(&mut told))
    }
}

async fn rows(told: &mut tokio::sync::mpsc::Receiver<Line>) -> Vec<Value> {
    let mut rows = Vec::new();
    while let Some(line) = told.recv().await {
        if let Line::Row(row) = line {
            rows.push(row);
        }
    }
    rows
}

/// One value of the mirror in a folder.
pub(crate) fn one<T: rusqlite::types::FromSql>(folder: &Path, sql: &str) -> T {
    let mirror = rusqlite::Connection::open(folder.join("mirror.db")).unwrap();
    mirror.query_row(sql, [], |row| row.get(0)).unwrap()
}
