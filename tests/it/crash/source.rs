//! A simulated instance over loopback, in a thread of this process: its directory is edited by hand and
//! its clock stands still, so that it answers the same questions with the same bytes for as long as a
//! test asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use jiff::{SignedDuration, Timestamp};
use musterd::clock::{Clock, SharedClock, SystemClock};
use musterd::sandbox::{self, Options, Sandbox};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::{Auth, Home, Instance};

/// What people are known by, of the attributes that the mirror keeps as they are shown.
const ATTRIBUTES: [&str; 6] = [
    "userName",
    "displayName",
    "title",
    "active",
    "name",
    "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User",
];

/// When it is there, in the past of every machine that runs this.
const START: &str = "2026-03-01T08:00:00Z";

/// The instance.
pub(super) struct Source {
    pub(super) sandbox: Sandbox,
    clock: Arc<HandClock>,
    url: String,
    username: String,
    password: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// A clock that moves by hand.
#[derive(Default)]
struct HandClock {
    seconds: AtomicI64,
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        let start: Timestamp = START.parse().unwrap();
        start + SignedDuration::from_secs(self.seconds.load(Ordering::Relaxed))
    }
}

impl Source {
    /// Serves a directory of so many users.
    pub(super) fn start(users: usize) -> Self {
        Self::with_groups(users, 0)
    }

    /// The same, and so many groups.
    pub(super) fn with_groups(users: usize, groups: usize) -> Self {
        let clock = Arc::new(HandClock::default());
        let options = Options {
            users,
            groups,
            ..Options::default()
        };
        Self::serve(options, Arc::clone(&clock) as _, clock)
    }

    /// Serves a directory that changes so many times a minute, by the computer's clock.
    pub(super) fn alive(users: usize, churn_per_minute: u32) -> Self {
        let options = Options {
            users,
            churn_per_minute,
            ..Options::default()
        };
        Self::serve(options, Arc::new(SystemClock), Arc::default())
    }

    fn serve(options: Options, time: SharedClock, clock: Arc<HandClock>) -> Self {
        let options = Options {
            odd: false,
            ..options
        };
        let sandbox = Sandbox::new(options, time);
        let stop = CancellationToken::new();
        let (told, address) = mpsc::channel();
        let (served, stopped) = (sandbox.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                sandbox::serve(listener, served, stopped).await.unwrap();
            });
        });
        let rules = sandbox.auth();
        Self {
            url: format!("http://{}", address.recv().unwrap()),
            sandbox,
            clock,
            username: rules.username,
            password: rules.password,
            stop,
            thread: Some(thread),
        }
    }

    /// The instance `acme`, with more lines of its configuration.
    pub(super) fn instance<'a>(&'a self, more: &'a str) -> Instance<'a> {
        Instance {
            name: "acme",
            url: &self.url,
            scim_path: "/api/now/scim",
            auth: Auth::Basic {
                username: &self.username,
                password: &self.password,
            },
            page_size: 20,
            more,
        }
    }

    /// The living users are those of the directory, save who is held, and who is gone is not active.
    pub(super) fn assert_mirrored_in(&self, home: &Home) {
        let held = home.list("SELECT id FROM users_held");
        let unheld = |ids: Vec<String>| -> Vec<String> {
            ids.into_iter().filter(|id| !held.contains(id)).collect()
        };
        let ids = unheld(self.sandbox.ids());
        let living = home.list("SELECT id FROM users WHERE gone_at IS NULL ORDER BY id");
        assert_eq!(unheld(living), ids);
        for id in ids {
            let shown: Value = serde_json::from_str(&self.sandbox.user_json(&id).unwrap()).unwrap();
            let kept: String = home.one(&format!("SELECT attributes FROM users WHERE id = '{id}'"));
            let kept: Value = serde_json::from_str(&kept).unwrap();
            for attribute in ATTRIBUTES {
                assert_eq!(shown[attribute], kept[attribute], "{id} {attribute}");
            }
        }
        let gone = "SELECT count(*) FROM users WHERE gone_at IS NOT NULL AND active = 1";
        assert_eq!(home.one::<i64>(gone), 0);
    }

    /// The living groups are those of the directory, and whoever is in one of them is so in the mirror, or his leaving is held.
    pub(super) fn assert_groups_mirrored_in(&self, home: &Home) {
        let groups = "SELECT id FROM groups WHERE gone_at IS NULL ORDER BY id";
        assert_eq!(home.list(groups), self.sandbox.group_ids());
        let mut expected = Vec::new();
        for group in self.sandbox.group_ids() {
            let members = self
                .sandbox
                .with_directory(|directory| directory.members(&group).to_vec());
            expected.extend(members.iter().map(|one| format!("{group}/{}", one.id)));
        }
        let held = "SELECT id FROM hold_changes WHERE resource = 'Membership' AND state = 'held'";
        expected.extend(home.list(held));
        expected.sort();
        let living = "SELECT group_id || '/' || member_id FROM memberships WHERE ended_at IS NULL ORDER BY 1";
        assert_eq!(home.list(living), expected);
        let miscounted = "
            SELECT count(*) FROM groups WHERE member_count <>
                (SELECT count(*) FROM memberships WHERE group_id = groups.id AND ended_at IS NULL)";
        assert_eq!(home.one::<i64>(miscounted), 0);
    }

    /// Lets time pass at the instance.
    pub(super) fn pass(&self, seconds: i64) {
        self.clock.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// The ids of its active users, in the order of ids.
    pub(super) fn active_ids(&self) -> Vec<String> {
        self.sandbox.with_directory(|directory| {
            let active = directory.users().iter().filter(|user| user.active);
            active.map(|user| user.sys_id.to_string()).collect()
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // It panicked: the test has failed for that already.
            drop(thread.join());
        }
    }
}
