//! A sync of several transactions. In the program each has up to 10,000 records, too many to be written
//! again for every point: so here it is this test binary that applies them, through the library and in
//! the same way, a few at a time.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use musterd::mirror::{self, Mirror};
use musterd::model::Mode;
use serde_json::Value;

use super::scenes::Trial;
use super::traced::copy_mirror;
use super::{points, workplace};
use crate::filled::{self, person};
use crate::harness::{Home, Running, TIME_LIMIT};

const N_USERS: usize = 40;

/// Four transactions.
const RECORDS_PER_TRANSACTION: usize = 10;

#[test]
fn several_transactions() {
    points::every_point(Several::new);
}

#[test]
#[ignore = "the program that the tests of this file run"]
fn apply() {
    // As a program it has a home, whose mirror lies beside the configuration.
    let Some(config) = std::env::var_os("MUSTERD_CONFIG") else {
        eprintln!("not run: only the tests of this file run it");
        return;
    };
    let mirror = Path::new(&config).with_file_name("mirror.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    if let Err(error) = runtime.block_on(apply_to(&mirror)) {
        let hint = error.hint().unwrap_or_default();
        panic!("{:#}; {hint}", anyhow::Error::new(error));
    }
}

async fn apply_to(path: &Path) -> Result<(), mirror::Error> {
    let mirror = Mirror::open(path, "0f0e0d0c0b0a0908")?;
    filled::link(&mirror).await?;
    let users: Vec<Value> = (0..N_USERS)
        .map(|n| person(&format!("u{n:02}"), &format!("user.{n}")))
        .collect();
    let now = "2026-03-01T12:00:00Z".parse().unwrap();
    filled::apply(&mirror, &users, Mode::Full, now, RECORDS_PER_TRANSACTION).await?;
    mirror.close().await
}

/// A baseline in four transactions.
pub(super) struct Several {
    prepared: Home,
}

impl Several {
    pub(super) fn new() -> Self {
        let prepared = Home::new_in(&workplace(), &[]);
        drop(Mirror::open(&prepared.mirror_path(), "0f0e0d0c0b0a0908").unwrap());
        Self { prepared }
    }
}

impl Trial for Several {
    fn name(&self) -> &str {
        "several"
    }

    fn program(&self) -> Vec<&str> {
        static BINARY: OnceLock<PathBuf> = OnceLock::new();
        let binary = BINARY.get_or_init(|| std::env::current_exe().unwrap());
        let this = concat!(module_path!(), "::apply");
        let (_crate, this) = this.split_once("::").unwrap();
        vec![
            binary.to_str().unwrap(),
            "--ignored",
            "--exact",
            this,
            "--nocapture",
            "--test-threads=1",
        ]
    }

    /// A test that panicked.
    fn code_of_failure(&self) -> i32 {
        101
    }

    fn copy(&self) -> Home {
        let home = Home::new_in(&workplace(), &[]);
        copy_mirror(self.prepared.path(), home.path());
        home
    }

    fn go_on(&self, home: &Home) {
        let program = self.program();
        let mut command = home.command(program[0]);
        command.args(&program[1..]);
        let ran = Running::start(command).finish(TIME_LIMIT);
        assert_eq!(ran.code, Some(0), "{ran}");
    }

    fn assert_true(&self, home: &Home) {
        let users = "SELECT count(*) FROM active_users";
        assert_eq!(home.one::<i64>(users), 40);
        let states = "SELECT count(DISTINCT sync_id) FROM changes";
        assert_eq!(home.one::<i64>(states), 1, "undisturbed it is one sync");
    }
}
