//! What can be asked for, and how large each group is.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measures whole processes of musterd against their floors
#[derive(Debug, clap::Parser)]
pub(crate) struct Cli {
    /// Sizes of the directory in the group `sync`
    #[arg(long, value_delimiter = ',', default_value = "20000,100000")]
    users: Vec<usize>,

    /// 1,000,000 users as well in `sync`, and in one sync of `load`
    #[arg(long)]
    million: bool,

    /// How often each case of `sync`, `groups` and `delay` is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// How long a page takes in the group `delay`, in milliseconds
    #[arg(long, value_delimiter = ',', default_value = "0,100")]
    delay: Vec<u64>,

    /// Records in the feed of the group `feed`
    #[arg(long, default_value_t = 10_000_000)]
    records: usize,

    /// Sizes of the directory in the group `growth`
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    growth: Vec<usize>,

    /// What is measured; `growth` and `feed` take long and much disk, and are left out unless named
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "sync,groups,delay,daemon,load"
    )]
    only: Vec<Group>,

    /// A smoke run of all groups, tiny and once
    #[arg(long)]
    quick: bool,

    /// Where the figures go as JSON
    #[arg(long)]
    json: Option<PathBuf>,

    /// Given by Cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Cases that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    /// One directory from its first sync on, beside its floors
    Sync,
    /// Groups and who is in them, beside their floors
    Groups,
    /// Slow pages, one at a time and four
    Delay,
    /// A daemon with many instances, and what a sync that finds nothing costs it
    Daemon,
    /// Large users, and a reader and an instance beside a sync in which everybody changed
    Load,
    /// The cases of `sync` at sizes far apart
    Growth,
    /// A feed of many records
    Feed,
}

/// How large the groups are.
pub(crate) struct Sizes {
    pub(crate) groups: Vec<Group>,
    pub(crate) rounds: usize,
    pub(crate) sync_users: Vec<usize>,
    /// Groups of the case that is measured in rounds.
    pub(crate) groups_of_rounds: usize,
    /// Groups in the cases of few and of many small ones.
    pub(crate) small_groups: [usize; 2],
    /// Members of the one large group.
    pub(crate) large_group: usize,
    /// Who the members are among.
    pub(crate) group_users: usize,
    pub(crate) delays: Vec<Duration>,
    pub(crate) delay_users: usize,
    pub(crate) instances: usize,
    /// How long their incremental syncs are looked at.
    pub(crate) watched: Duration,
    pub(crate) large_users: usize,
    pub(crate) load_users: usize,
    pub(crate) growth_users: Vec<usize>,
    pub(crate) feed_users: usize,
    pub(crate) feed_records: usize,
}

impl Cli {
    pub(crate) fn sizes(&self) -> Sizes {
        if self.quick {
            return self.quick_sizes();
        }
        let million = self.million.then_some(1_000_000);
        Sizes {
            groups: self.only.clone(),
            rounds: self.rounds.max(1),
            sync_users: self.users.iter().copied().chain(million).collect(),
            groups_of_rounds: 5_000,
            small_groups: [2_000, 20_000],
            large_group: 20_000,
            group_users: 25_000,
            delays: milliseconds(&self.delay),
            delay_users: 20_000,
            instances: 200,
            watched: Duration::from_mins(1),
            large_users: 100_000,
            load_users: million.unwrap_or(200_000),
            growth_users: self.growth.clone(),
            feed_users: 100_000,
            feed_records: self.records,
        }
    }

    fn quick_sizes(&self) -> Sizes {
        use clap::ValueEnum as _;
        let all = Group::value_variants().to_vec();
        let defaults = [
            Group::Sync,
            Group::Groups,
            Group::Delay,
            Group::Daemon,
            Group::Load,
        ];
        Sizes {
            groups: if self.only == defaults {
                all
            } else {
                self.only.clone()
            },
            rounds: 1,
            sync_users: vec![2_000],
            groups_of_rounds: 400,
            small_groups: [200, 1_000],
            large_group: 2_000,
            group_users: 2_500,
            delays: milliseconds(&[0, 20]),
            delay_users: 2_000,
            instances: 20,
            watched: Duration::from_secs(10),
            large_users: 2_000,
            load_users: 20_000,
            growth_users: vec![1_000, 4_000],
            feed_users: 2_000,
            feed_records: 20_000,
        }
    }

    pub(crate) fn json_path(&self) -> PathBuf {
        let default = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("whole.json");
        self.json.clone().unwrap_or_else(default)
    }
}

fn milliseconds(delays: &[u64]) -> Vec<Duration> {
    delays.iter().copied().map(Duration::from_millis).collect()
}
