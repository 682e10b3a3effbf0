//! `musterd restore`, killed at every write: the mirror is what it was or what was put back.

use std::io::Read as _;
use std::time::Duration;

use flate2::read::GzDecoder;
use musterd::clock::{Clock as _, SystemClock};
use musterd::mirror::Mirror;
use musterd::model::Mode;

use super::state::{State, verify};
use super::traced::{self, Fault, copy_mirror};
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
    if !traced::is_possible() {
        return;
    }
    let prepared = prepared();
    let copy = || {
        let home = Home::new_in(&workplace(), &[]);
        copy_mirror(prepared.path(), home.path());
        home
    };
    let state = |home: &Home| {
        let left = tempfile::tempdir_in(workplace()).unwrap();
        copy_mirror(home.path(), left.path());
        verify(&left.path().join("mirror.db"));
        State::of(&left.path().join("mirror.db"))
    };
    let restore = |home: &Home| {
        let ran = home.run(&["restore", home.path().join(NAME).to_str().unwrap()]);
        assert_eq!(ran.code, Some(0), "{ran}");
        state(home)
    };
    let before = state(&copy());
    let after = restore(&copy());
    let is_before = |left: &State| *left == before;
    let is_after = |left: &State| {
        left.timeless() == after.timeless()
            && left.column("feed", "epoch") != before.column("feed", "epoch")
    };
    assert!(is_after(&after) && !is_before(&after) && !is_after(&before));
    let mut seen = [0, 0];
    for point in 1.. {
        let home = copy();
        let backup = home.path().join(NAME);
        let program = [BINARY, "restore", backup.to_str().unwrap()];
        let Some(call) = traced::run(&home, &program, Fault::Kill, point).call else {
            break;
        };
        let left = state(&home);
        let place = usize::from(!is_before(&left));
        assert!(
            place == 0 || is_after(&left),
            "{call}: {}",
            left.differences(&after)
        );
        assert!(place == 1 || seen[1] == 0, "{call}: back again");
        seen[place] += 1;
        // What is left beside the mirror is in nobody's way, wherever it was killed.
        if point % 8 == 0 {
            assert!(is_after(&restore(&home)), "{call}");
        }
        ledger::enter_case("crash_points", &format!("restoring {point:04}"));
    }
    assert!(seen[0] > 20 && seen[1] > 1, "{seen:?}");
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
        mirror.close().await.unwrap();
    });
    let mut bytes = Vec::new();
    GzDecoder::new(BACKUP).read_to_end(&mut bytes).unwrap();
    std::fs::write(home.path().join(NAME), bytes).unwrap();
    home
}
