//! What can be asked for.

use std::path::{Path, PathBuf};

/// Measures whole processes of musterd against their floors
#[derive(Debug, clap::Parser)]
pub(crate) struct Cli {
    /// Sizes of the directory
    #[arg(long, value_delimiter = ',', default_value = "20000,100000")]
    users: Vec<usize>,

    /// A directory of 1,000,000 users as well
    #[arg(long)]
    million: bool,

    /// How often each case is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// A smoke run: 2,000 users, once
    #[arg(long)]
    quick: bool,

    /// Where the figures go as JSON
    #[arg(long)]
    json: Option<PathBuf>,

    /// Given by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

impl Cli {
    pub(crate) fn sizes(&self) -> Vec<usize> {
        if self.quick {
            return vec![2_000];
        }
        let million = self.million.then_some(1_000_000);
        self.users.iter().copied().chain(million).collect()
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    pub(crate) fn json_path(&self) -> PathBuf {
        let default = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("whole.json");
        self.json.clone().unwrap_or_else(default)
    }
}
