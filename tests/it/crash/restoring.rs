//! `musterd restore`, killed at every write: the mirror is what it was or what was put back.

use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;
use musterd::clock::{Clock as _, SystemClock};
use musterd::mirror::Mirror;
use musterd::model::Mode;

use super::state::{State, verify};
use super::traced::{self, Fault, Point, WRITES, copy_mirror};
use super::workplace;
use crate::filled::{self, person};
use crate::harness::{BINARY, Home};
use crate::ledger;

/// What version 1 left: it is migrated on its way.
const BACKUP: &[u8] = include_bytes!("../../data/mirror-v1.db.gz");

/// It lies beside the mirror, so that it is copied with it.
const NAME: &str = "mirror.db.before-v2";

#[test]
fn a_restore_that_is_killed_leaves_the_one_or_the_other() {
    let prepared = prepared();
    let before = state(&copy_of(&prepared));
    let is_before = |home: &Home| state(home) == before;
    at_each_write(&prepared, &before, &is_before);
}

#[test]
fn a_mirror_that_cannot_be_read_is_there_until_the_restored_one_is() {
    let prepared = prepared();
    let before = state(&copy_of(&prepared));
    // The log is not empty, and would be replayed over whatever had the mirror's name next.
    let log = prepared.path().join("mirror.db-wal");
    assert!(log.metadata().unwrap().len() > 0);
    let mut damaged = std::fs::read(prepared.mirror_path()).unwrap();
    damaged[..8192].fill(0);
    std::fs::write(prepared.mirror_path(), &damaged).unwrap();
    let is_before = |home: &Home| std::fs::read(home.mirror_path()).unwrap() == damaged;
    at_each_write(&prepared, &before, &is_before);
}

/// So many writes of each kind are tried one by one.
const FIRST_WRITES: usize = 60;

/// Kills a restore at each of its writes, but for pages of a copy that are like their neighbours. What is left is what `is_before` knows, or what was put back and nothing of `before`.
fn at_each_write(prepared: &Home, before: &State, is_before: &dyn Fn(&Home) -> bool) {
    if !traced::is_possible() {
        return;
    }
    let after = restored(&copy_of(prepared));
    let is_after = |left: &State| {
        left.timeless() == after.timeless()
            && left.column("feed", "epoch") != before.column("feed", "epoch")
    };
    assert!(is_after(&after) && !is_after(before));
    let mut seen = [0, 0];
    for kind in WRITES {
        // Of one kind, the later call is killed later.
        let mut is_over = false;
        // Most of the writes are pages of one copy, one as the other: of those a fifth is tried, and all of the first and the last.
        let (mut nth, mut stride, mut reached) = (1, 1, 0);
        loop {
            let point = Point { kind, nth };
            let home = copy_of(prepared);
            let backup = home.path().join(NAME);
            let program = [BINARY, "restore", backup.to_str().unwrap()];
            let Some(call) = traced::run(&home, &program, Fault::Kill, point).call else {
                if stride == 1 {
                    break;
                }
                (nth, stride) = (reached + 1, 1);
                continue;
            };
            is_over = is_over || !is_before(&home);
            if is_over {
                let left = state(&home);
                assert!(is_after(&left), "{call}: {}", left.differences(&after));
            }
            seen[usize::from(is_over)] += 1;
            // What is left beside the mirror is in nobody's way, wherever it was killed.
            if kind != "pwrite64" || nth % 16 == 0 {
                assert!(is_after(&restored(&home)), "{call}");
            }
            ledger::enter_case("crash_points", &format!("restoring {}", point.name()));
            reached = nth;
            if nth == FIRST_WRITES {
                stride = 5;
            }
            nth += stride;
        }
    }
    assert!(seen[0] > 20 && seen[1] > 1, "{seen:?}");
}

fn copy_of(prepared: &Home) -> Home {
    let home = Home::new_in(&workplace(), &[]);
    copy_mirror(prepared.path(), home.path());
    home
}

/// What a copy of the mirror says, so that the next command finds it untouched.
fn state(home: &Home) -> State {
    let left = tempfile::tempdir_in(workplace()).unwrap();
    copy_mirror(home.path(), left.path());
    verify(&left.path().join("mirror.db"));
    State::of(&left.path().join("mirror.db"))
}

fn restored(home: &Home) -> State {
    let ran = home.run(&["restore", home.path().join(NAME).to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{ran}");
    state(home)
}

/// A mirror of two users, and what version 1 left.
fn prepared() -> Home {
    let home = Home::new_in(&workplace(), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mirror = Mirror::open(&home.mirror_path(), "before").unwrap();
        filled::link(&mirror).await.unwrap();
        let users = [person("u1", "ada.lovelace"), person("u2", "alan.turing")];
        let now = SystemClock.now() - Duration::from_secs(3600);
        filled::apply(&mirror, &users, Mode::Full, now, 10_000)
            .await
            .unwrap();
        // Not closed: its log is as a kill leaves it.
    });
    let mut bytes = Vec::new();
    GzDecoder::new(BACKUP).read_to_end(&mut bytes).unwrap();
    std::fs::write(home.path().join(NAME), bytes).unwrap();
    home
}
