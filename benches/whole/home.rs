//! A folder with a configuration and a mirror, on the disk of the target directory: memory would hide what writing costs.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::measure::{self, Cost};

const BINARY: &str = env!("CARGO_BIN_EXE_musterd");

pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// One instance, `acme`, at this address. Neither the rate nor a guard is in the way.
    pub(crate) fn new(url: &str) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let home = Self { dir };
        let text = format!(
            "[mirror]\npath = {:?}\n[log]\nlevel = \"warn\"\nformat = \"json\"\n\
             [instances.acme]\nurl = {url:?}\n\
             auth = {{ type = \"bearer\", token = \"opensesame\" }}\n\
             rate = {{ per_second = 10000, burst = 10000 }}\n\
             guard.deactivations = {{ at_least = 1000000, count = 1000000, percent = 100, window = \"24h\" }}\n",
            home.mirror()
        );
        std::fs::write(home.config(), text).expect("the configuration is written");
        home
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

    /// Runs the built binary.
    pub(crate) fn musterd(&self, arguments: &[&str]) -> (Cost, String) {
        let config = self.config();
        let config = config.to_str().expect("a path of text");
        let mut all = vec!["--config", config];
        all.extend(arguments);
        measure::run(self.path(), BINARY, &all)
    }

    /// One sync, and its row.
    pub(crate) fn sync(&self, mode: &str) -> (Cost, Value) {
        let (cost, said) = self.musterd(&["sync", "--mode", mode, "--json"]);
        let row = said
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok());
        let row = row.unwrap_or_else(|| panic!("no row of a sync in: {said}"));
        (cost, row)
    }
}
