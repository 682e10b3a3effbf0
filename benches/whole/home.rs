//! A folder with a configuration and a mirror, on the disk of the target directory: memory would hide what writing costs.

use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::measure::{self, Cost, Running};

const BINARY: &str = env!("CARGO_BIN_EXE_musterd");

/// A schedule that does not tick while anything is measured.
pub(crate) const NEVER: &str = "defaults.schedule.incremental = \"0 0 0 29 2 *\"\n\
                                defaults.schedule.full = \"0 0 0 29 2 *\"\n";

pub(crate) struct Home {
    dir: tempfile::TempDir,
    url: String,
    instances: usize,
    resources: &'static str,
}

impl Home {
    /// So many instances at this address, each an account of its own, of which users are mirrored; `more` is appended to the
    /// configuration. Neither the rate nor a guard is in the way.
    pub(crate) fn new(url: &str, instances: usize, more: &str) -> Self {
        Self::of(url, instances, r#"["users"]"#, more)
    }

    /// One instance at this address, of which groups are mirrored as well.
    pub(crate) fn with_groups(url: &str) -> Self {
        Self::of(url, 1, r#"["users", "groups"]"#, "")
    }

    fn of(url: &str, instances: usize, resources: &'static str, more: &str) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let home = Self {
            dir,
            url: url.to_owned(),
            instances,
            resources,
        };
        home.configure(more);
        home
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, more: &str) {
        let mut text = format!(
            "mirror.path = {:?}\nlog.level = \"warn\"\nlog.format = \"json\"\n\
             defaults.rate = {{ per_second = 10000, burst = 10000 }}\n\
             defaults.guard.deactivations.at_least = 1000000\n\
             defaults.resources = {}\n",
            self.mirror(),
            self.resources
        );
        let url = &self.url;
        for account in 0..self.instances {
            let name = instance(account);
            write!(
                text,
                "instances.{name}.url = {url:?}\n\
                 instances.{name}.auth = {{ type = \"bearer\", token = \"account-{account}\" }}\n"
            )
            .expect("a string takes everything");
        }
        text.push_str(more);
        std::fs::write(self.config(), text).expect("the configuration is written");
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn mirror(&self) -> PathBuf {
        self.path().join("mirror.db")
    }

    fn config(&self) -> PathBuf {
        self.path().join("musterd.toml")
    }

    /// The file and its log.
    pub(crate) fn mirror_bytes(&self) -> u64 {
        let sizes = ["mirror.db", "mirror.db-wal"].map(|name| {
            let file = std::fs::metadata(self.path().join(name));
            file.map_or(0, |file| file.len())
        });
        sizes.iter().sum()
    }

    /// Opens the mirror as a reader does, once it is there.
    pub(crate) fn reader(&self) -> Connection {
        measure::wait_for("the mirror", || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let reader = Connection::open_with_flags(self.mirror(), flags).ok()?;
            let tables = "SELECT count(*) FROM feed";
            let is_made = reader.query_row(tables, [], |row| row.get(0)).ok();
            (is_made == Some(1)).then_some(reader)
        })
    }

    /// Waits until so many instances have their baseline and are healthy.
    pub(crate) fn wait_for_baselines(&self, reader: &Connection) {
        let healthy = "SELECT count(*) FROM sources JOIN instances ON name = instance \
                       WHERE baseline_at IS NOT NULL AND state = 'healthy'";
        let wanted = i64::try_from(self.instances).expect("a small number");
        measure::wait_for("the baseline of every instance", || {
            let found = reader.query_row(healthy, [], |row| row.get::<_, i64>(0));
            (found.expect("the mirror is readable") == wanted).then_some(())
        });
    }

    /// Runs the built binary.
    pub(crate) fn musterd(&self, arguments: &[&str]) -> (Cost, String) {
        let config = self.config();
        let config = config.to_str().expect("a path of text");
        let mut all = vec!["--config", config];
        all.extend(arguments);
        measure::run(self.path(), BINARY, &all)
    }

    /// Starts the daemon, and waits until it listens.
    pub(crate) fn start(&self) -> Running {
        let config = self.config();
        let config = config.to_str().expect("a path of text");
        let running = Running::start(self.path(), BINARY, &["--config", config, "run"]);
        let socket = self.path().join("mirror.db.sock");
        measure::wait_for("the daemon's socket", || UnixStream::connect(&socket).ok());
        running
    }

    /// One sync of the first instance, and its row: of its groups, where they are mirrored.
    pub(crate) fn sync(&self, mode: &str) -> (Cost, Value) {
        let (cost, said) = self.musterd(&["sync", "acme", "--mode", mode, "--json"]);
        let row = said
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        let row = row.unwrap_or_else(|| panic!("no row of a sync in: {said}"));
        (cost, row)
    }
}

/// What the instance of an account is called.
pub(crate) fn instance(account: usize) -> String {
    match account {
        0 => "acme".to_owned(),
        _ => format!("i{account:03}"),
    }
}
