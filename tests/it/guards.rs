//! Guards and holds as the whole program keeps them, over hours of simulated time.

use std::time::Duration;

use musterd::model::Mode;
use musterd::sandbox::{self, Column, Values};

use crate::fleet::Linked;

async fn linked(users: usize, mirror: &str, guards: &str) -> Linked {
    let options = sandbox::Options {
        users,
        odd: false,
        ..sandbox::Options::default()
    };
    let linked = Linked::new(options, mirror, guards).await;
    linked.sync(Mode::Full).await;
    linked
}

async fn hours(n: u64) {
    tokio::time::sleep(Duration::from_hours(n)).await;
}

impl Linked {
    fn active_ids(&self) -> Vec<String> {
        self.sandbox.with_directory(|directory| {
            let active = directory.users().iter().filter(|user| user.active);
            active.map(|user| user.sys_id.to_string()).collect()
        })
    }

    /// How many of these the next incremental sync deactivates, and how many it holds.
    async fn leave(&self, ids: &[String]) -> (u64, u64) {
        for id in ids {
            assert!(
                self.sandbox.update(id, &Values::new().active(false)),
                "{id}"
            );
        }
        let row = self.sync(Mode::Incremental).await.unwrap();
        (row.deactivated, row.held)
    }
}

/// A guard counts in the feed, so that what is within its window is not trimmed, and goes when it is over.
#[tokio::test(start_paused = true)]
async fn a_history_shorter_than_the_window_makes_no_guard_blind() {
    let guards = "guard.deactivations = { at_least = 2, count = 2, percent = 100, window = \"24h\" }\n\
                  guard.blanking.window = \"1h\"";
    let linked = linked(40, "history = \"1h\"", guards).await;
    let ids = linked.active_ids();
    assert_eq!(linked.leave(&ids[..2]).await, (2, 0));
    hours(12).await;
    assert_eq!(linked.leave(&ids[2..3]).await, (0, 1));
    assert_eq!(linked.one::<i64>("SELECT first_seq FROM feed"), 1);
    hours(13).await;
    assert_eq!(linked.leave(&ids[3..4]).await, (1, 0));
    // The newest record always stays, and so do those of the last 24 h.
    hours(25).await;
    linked.sync(Mode::Incremental).await;
    assert_eq!(
        linked.one::<i64>("SELECT last_seq - first_seq FROM feed"),
        0
    );
}

/// Those who came within the window do not count towards the share, whatever the history is.
#[tokio::test(start_paused = true)]
async fn the_share_is_of_the_users_at_the_windows_start_whatever_the_history() {
    for history in ["1h", "forever"] {
        let guards =
            "guard.deactivations = { at_least = 1, count = 1000, percent = 10, window = \"24h\" }";
        let linked = linked(20, &format!("history = {history:?}"), guards).await;
        let ids = linked.active_ids();
        // Two of at most twenty are a tenth.
        let most = ids.len() / 10;
        hours(48).await;
        for n in 0..15 {
            let name = format!("new.{n}");
            linked
                .sandbox
                .create(&Values::new().active(true).with(Column::UserName, name));
        }
        linked.sync(Mode::Incremental).await;
        hours(3).await;
        linked.sync(Mode::Incremental).await;
        let leavers = &ids[..=most];
        assert_eq!(
            linked.leave(leavers).await,
            (0, leavers.len() as u64),
            "{history}: {} users",
            ids.len()
        );
    }
}
