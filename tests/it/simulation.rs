//! The whole daemon in one process under a paused clock: the sandbox called without a network, real
//! SQLite, one seed for everything. Hours pass in seconds, and the same seed gives the same feed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use musterd::clock::{ManualClock, SharedClock};
use musterd::config::settings::InstanceSettings;
use musterd::config::{self, Sources};
use musterd::daemon::link::Surroundings;
use musterd::daemon::{self, Outside};
use musterd::mirror::Mirror;
use musterd::sandbox::{self, InProcess, Sandbox};
use musterd::scim::client::Exchange;
use musterd::systemd::Notifier;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

const START: &str = "2026-03-01T09:00:30Z";

/// Incremental syncs every minute, full ones every hour, starts spread over part of that.
const CONFIGURATION: &str = r#"
[defaults.schedule]
incremental = "0 * * * * *"
full = "0 0 * * * *"
splay = { incremental = "20s", full = "10m" }
[defaults.guard]
# Nobody is there to approve: the churn of a small directory is above every share.
deactivations = { at_least = 100000, count = 100000, percent = 100, window = "24h" }
blanking = { at_least = 100000, count = 100000, percent = 100, window = "24h" }

[instances.acme]
url = "https://acme.example"
[instances.acme.auth]
type = "client_credentials"
client_id = "CLIENT_ID"
client_secret = "CLIENT_SECRET"

[instances.globex]
url = "https://globex.example"
[instances.globex.auth]
type = "basic"
username = "USERNAME"
password = "PASSWORD"
"#;

/// What one run left: the feed, and where the mirror differs from the directories.
struct Left {
    feed: Vec<String>,
    syncs: BTreeMap<(String, String), i64>,
    differences: Vec<String>,
    n_requests: usize,
}

/// Runs the daemon for so long with churn, then for a full period without, and looks at what it left.
async fn simulate(seed: u64, busy: Duration) -> Left {
    let folder = tempfile::tempdir().unwrap();
    let clock: SharedClock = Arc::new(ManualClock::starting_at(START.parse().unwrap()));
    let sandboxes: BTreeMap<String, Sandbox> = ["acme", "globex"]
        .into_iter()
        .zip(seed..)
        .map(|(name, seed)| {
            let options = sandbox::Options {
                users: 150,
                seed,
                ..sandbox::Options::default()
            };
            (name.to_owned(), Sandbox::new(options, Arc::clone(&clock)))
        })
        .collect();
    let rules = sandboxes["acme"].auth();
    let text = CONFIGURATION
        .replace("CLIENT_ID", &rules.client_id)
        .replace("CLIENT_SECRET", &rules.client_secret)
        .replace("USERNAME", &rules.username)
        .replace("PASSWORD", &rules.password);
    let file = folder.path().join("musterd.toml");
    let path = folder.path().join("mirror.db");
    std::fs::write(&file, format!("[mirror]\npath = {path:?}\n{text}")).unwrap();
    let sources = Sources {
        file,
        env: BTreeMap::default(),
        now: clock.now(),
    };
    let settings = config::load(&sources).unwrap();

    let mirror = Mirror::open(&path, "5eed").unwrap();
    let (bell, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let (_reload, asked) = mpsc::channel(1);
    let lines = sandboxes.clone();
    let outside = Outside {
        surroundings: Surroundings {
            clock: Arc::clone(&clock),
            exchange: Arc::new(move |settings: &InstanceSettings| {
                let sandbox = lines[settings.client.instance.as_str()].clone();
                let timeout = settings.client.timeout;
                Ok(Arc::new(InProcess::new(sandbox, timeout)) as Arc<dyn Exchange>)
            }),
            seed,
        },
        bell: Arc::clone(&bell),
        load: Arc::new(move || Ok(config::load(&sources)?)),
        in_force: Arc::new(|_settings| Ok(())),
        notifier: Notifier::new(None).unwrap(),
        watchdog_every: None,
        socket: None,
        progress: Arc::new(|_progress| {}),
        stop: stop.clone(),
        reload: asked,
    };
    let alarm = tokio::spawn(async move {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            seconds.tick().await;
            bell.notify_one();
        }
    });
    let daemon = tokio::spawn(daemon::run(settings, mirror, outside));
    // The paused clock makes this a wait for all that is due until then, not for time.
    for sandbox in sandboxes.values() {
        sandbox.set_churn(3);
    }
    tokio::time::timeout(busy, std::future::pending::<()>())
        .await
        .unwrap_err();
    for sandbox in sandboxes.values() {
        sandbox.set_churn(0);
    }
    let calm = Duration::from_mins(75);
    tokio::time::timeout(calm, std::future::pending::<()>())
        .await
        .unwrap_err();
    stop.cancel();
    daemon.await.unwrap().unwrap();
    alarm.abort();
    look(&path, &sandboxes)
}

fn look(path: &std::path::Path, sandboxes: &BTreeMap<String, Sandbox>) -> Left {
    let mirror = rusqlite::Connection::open(path).unwrap();
    let mut feed = Vec::new();
    let mut rows = mirror
        .prepare(
            "SELECT seq || ' ' || sync_id || ' ' || observed_at || ' ' || instance || ' ' || id || ' ' || kind || ' '
                    || reason || ' ' || coalesce(changed, '') || ' ' || after
             FROM changes ORDER BY seq",
        )
        .unwrap();
    for row in rows.query_map([], |row| row.get::<_, String>(0)).unwrap() {
        feed.push(row.unwrap());
    }
    let mut syncs = BTreeMap::new();
    let mut counted = mirror
        .prepare("SELECT mode, outcome, count(*) FROM syncs GROUP BY mode, outcome")
        .unwrap();
    let counts = counted
        .query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))
        .unwrap();
    for count in counts {
        let (key, n) = count.unwrap();
        syncs.insert(key, n);
    }
    let mut differences = Vec::new();
    for (name, sandbox) in sandboxes {
        differences.extend(differences_of(&mirror, name, sandbox));
    }
    let n_requests = sandboxes
        .values()
        .map(|sandbox| sandbox.requests().len())
        .sum();
    Left {
        feed,
        syncs,
        differences,
        n_requests,
    }
}

/// Where the mirror's living users are not the directory's, by what people are known by.
fn differences_of(mirror: &rusqlite::Connection, name: &str, sandbox: &Sandbox) -> Vec<String> {
    let mut differences = Vec::new();
    let ids = sandbox.ids();
    let living: i64 = mirror
        .query_row(
            "SELECT count(*) FROM users WHERE instance = ?1 AND gone_at IS NULL",
            [name],
            |row| row.get(0),
        )
        .unwrap();
    if living != ids.len() as i64 {
        differences.push(format!("{name}: {living} living users of {}", ids.len()));
    }
    for id in ids {
        let shown: Value = serde_json::from_str(&sandbox.user_json(&id).unwrap()).unwrap();
        let held: Option<String> = mirror
            .query_row(
                "SELECT attributes FROM users WHERE instance = ?1 AND id = ?2 AND gone_at IS NULL",
                [name, &id],
                |row| row.get(0),
            )
            .ok();
        let held: Value = held.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
        for attribute in [
            "id",
            "userName",
            "displayName",
            "title",
            "active",
            "name",
            EXTENSION,
        ] {
            if shown[attribute] != held[attribute] {
                differences.push(format!(
                    "{name} {id} {attribute}: the instance shows {}, the mirror has {}",
                    shown[attribute], held[attribute]
                ));
            }
        }
    }
    differences
}

const EXTENSION: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";

#[tokio::test(start_paused = true)]
async fn after_hours_of_churn_the_mirror_is_the_directory_and_the_same_seed_gives_the_same_feed() {
    let busy = Duration::from_mins(90);
    let first = simulate(7, busy).await;
    assert_eq!(first.differences, Vec::<String>::new());
    let full = first.syncs[&("full".to_owned(), "succeeded".to_owned())];
    let incremental = first.syncs[&("incremental".to_owned(), "succeeded".to_owned())];
    assert_eq!(first.syncs.len(), 2, "all succeeded: {:?}", first.syncs);
    assert!(
        full >= 6,
        "at the start and every hour, of two instances: {full}"
    );
    assert!(
        incremental >= 2 * 150,
        "one a minute and instance: {incremental}"
    );
    let of = |word: &str| first.feed.iter().filter(|line| line.contains(word)).count();
    // Who left must be found to have left, or the rest of this proves little.
    assert!(
        of("deactivate inactive") > 5 && of("deactivate gone") > 0,
        "leavers went"
    );
    assert!(first.n_requests > 2 * 150);

    let second = simulate(7, busy).await;
    assert_eq!(first.feed, second.feed, "the same seed, the same feed");
    let other = simulate(8, Duration::ZERO).await;
    assert_ne!(
        first.feed[..300],
        other.feed[..300],
        "another seed, another directory"
    );
}
