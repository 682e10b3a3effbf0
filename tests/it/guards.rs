//! Guards and holds as the whole program keeps them, over hours of simulated time.

use std::time::Duration;

use musterd::control::{Ended, Request};
use musterd::model::Mode;
use musterd::sandbox::{self, Column, Effect, Fault, Values};
use serde_json::Value;

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

    /// An approval as it comes in through the socket, of the one open hold.
    fn approval(&self) -> Request {
        let open = "SELECT id || ' ' || digest FROM holds WHERE state = 'open'";
        let open: String = self.one(open);
        let (id, digest) = open.split_once(' ').unwrap();
        Request::Approve {
            hold_id: id.parse().unwrap(),
            digest: digest.to_owned(),
        }
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

const FIVE_PASS: &str =
    "guard.deactivations = { at_least = 5, count = 5, percent = 100, window = \"24h\" }";

/// One hold is approved once, whoever else says so at the same moment.
#[tokio::test(start_paused = true)]
async fn of_two_approvals_at_once_one_is_told_that_it_came_late() {
    let linked = linked(40, "", FIVE_PASS).await;
    let ids = linked.active_ids();
    for (approve, n_records) in [("users", 6), ("another directory", 0)] {
        match approve {
            "users" => assert_eq!(linked.leave(&ids[..6]).await, (0, 6)),
            _ => {
                linked
                    .sandbox
                    .add_fault(Fault::new(Effect::RowsHidden { share: 0.9 }));
                assert!(linked.sync(Mode::Full).await.unwrap().held > 20);
            }
        }
        let request = linked.approval();
        let before: (i64, i64) = (
            linked.one("SELECT last_seq FROM feed"),
            linked.one("SELECT count(*) FROM syncs"),
        );
        let (one, other) = tokio::join!(linked.ask(request.clone()), linked.ask(request));
        assert_eq!(one.0, Ended::Done, "{approve}: {one:?}");
        let hold_id: i64 = linked.one("SELECT max(id) FROM holds");
        let late = format!("hold {hold_id} is approved already, nothing was changed");
        let nothing: Vec<Value> = Vec::new();
        assert_eq!(other, (Ended::Failed(late), nothing), "{approve}");
        let after: (i64, i64) = (
            linked.one("SELECT last_seq FROM feed"),
            linked.one("SELECT count(*) FROM syncs"),
        );
        assert_eq!(after.0 - before.0, n_records, "{approve}");
        assert_eq!(after.1 - before.1, i64::from(n_records > 0), "{approve}");
    }
}
