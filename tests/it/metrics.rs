//! Metrics as those see them who read them: a file, a port, a heartbeat; and the files that are shipped for them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use jiff::Timestamp;
use musterd::metrics::{self, Counted, Process, Snapshot};
use musterd::model::{InstanceName, TallySnapshot};
use serde_json::Value;

use crate::harness::{Auth, BINARY, Home, Instance, Running, TIME_LIMIT, http, python};
use crate::odd_servers::directory::{Directory, sys_id};
use crate::odd_servers::scim::{Odd, WELL_BEHAVED};
use crate::odd_servers::server::{Answer, SCIM_PATH, Server, TOKEN};

const ALERTS: &str = include_str!("../../config/alerts.yml");
const DASHBOARD: &str = include_str!("../../config/grafana.json");

/// Once at the start, and then on request only.
const SCHEDULE: &str = "schedule = { incremental = \"0 0 0 1 1 *\", full = \"0 0 0 1 1 *\" }";

const NOT_YET: &str = "metrics cannot be served yet, it is tried again every minute";

/// What is in the heartbeat's URL and nowhere else.
const CANARY: &str = "c4nary";

const FAILING: Odd = Odd {
    list: |answer, _| *answer = Answer::scim_error(500, "it broke"),
    ..WELL_BEHAVED
};

#[test]
fn what_is_told_follows_each_sync_and_never_tells_a_secret() {
    let server = Server::start(Directory::of(60, sys_id), FAILING);
    let beats = Beats::listen();
    let scene = Scene::new(&server);
    let secret = scene.home.path().join("hidden");
    fs::write(&secret, beats.url()).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    scene.configure(&format!(
        "textfile = {:?}\nlisten = \"127.0.0.1:0\"\nheartbeat = {{ file = {secret:?} }}",
        scene.textfile()
    ));
    let mut daemon = scene.start("trace,musterd=trace");
    let served = event(&mut daemon, "metrics are served");
    let address: SocketAddr = served["address"].as_str().unwrap().parse().unwrap();

    let failed = event(&mut daemon, "sync finished");
    assert_eq!(failed["outcome"], "failed", "{failed}");
    let told = scene.wait_for(
        &mut daemon,
        &["musterd_consecutive_failures{instance=\"acme\"} 1"],
    );
    let has = |told: &str, line: &str| told.lines().any(|other| other == line);
    assert!(has(
        &told,
        "musterd_syncs_total{instance=\"acme\",mode=\"full\",outcome=\"failed\"} 1"
    ));
    assert!(
        !told.contains("musterd_last_success_timestamp_seconds{"),
        "{told}"
    );
    // What failed has asked all the same.
    assert!(
        number(&told, "musterd_requests_total{instance=\"acme\"}") >= 2.0,
        "{told}"
    );
    assert!(
        number(&told, "musterd_retries_total{instance=\"acme\"}") >= 1.0,
        "{told}"
    );
    assert!(
        beats.came.try_recv().is_err(),
        "a heartbeat after a failure"
    );
    let mode = fs::metadata(scene.textfile()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);

    server.turn(WELL_BEHAVED);
    assert_eq!(scene.home.sync("full").code, Some(0));
    let told = scene.wait_for(
        &mut daemon,
        &[
            "musterd_consecutive_failures{instance=\"acme\"} 0",
            "musterd_syncs_total{instance=\"acme\",mode=\"full\",outcome=\"succeeded\"} 1",
            "musterd_records_total{instance=\"acme\",kind=\"create\"} 60",
            "musterd_users{instance=\"acme\",state=\"living\"} 60",
            "musterd_users{instance=\"acme\",state=\"active\"} 60",
            "musterd_feed_last_seq 60",
            "musterd_open_holds{instance=\"acme\",guard=\"deactivations\"} 0",
        ],
    );
    for mode in ["full", "incremental"] {
        let name =
            format!("musterd_last_success_timestamp_seconds{{instance=\"acme\",mode=\"{mode}\"}}");
        let at: String = scene.home.one("SELECT last_full_success_at FROM sources");
        let at: Timestamp = at.parse().unwrap();
        assert!((number(&told, &name) - at.as_millisecond() as f64 / 1000.0).abs() < 0.0005);
    }
    let beat = beats.came.recv_timeout(TIME_LIMIT).unwrap();
    assert_eq!(beat, format!("GET /beat/{CANARY}?from=musterd HTTP/1.1"));

    server.edit(|directory| (0..30).for_each(|n| directory.set(n, "active", false.into())));
    assert_eq!(scene.home.sync("full").code, Some(3));
    let told = scene.wait_for(
        &mut daemon,
        &["musterd_open_holds{instance=\"acme\",guard=\"deactivations\"} 1"],
    );
    assert!(
        has(&told, "musterd_held_changes{instance=\"acme\"} 30"),
        "{told}"
    );
    let digest: String = scene.home.one("SELECT digest FROM holds");
    let ran = scene
        .home
        .run(&["holds", "approve", "1", "--digest", &digest]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let written = scene.wait_for(
        &mut daemon,
        &[
            "musterd_open_holds{instance=\"acme\",guard=\"deactivations\"} 0",
            "musterd_held_changes{instance=\"acme\"} 0",
            "musterd_records_total{instance=\"acme\",kind=\"deactivate\"} 30",
        ],
    );

    // The port says the same, and what a node exporter has of its own besides.
    let (status, served) = http::get(&format!("http://{address}/metrics").parse().unwrap(), "");
    let served = String::from_utf8(served).unwrap();
    assert_eq!(status, 200, "{served}");
    // The time goes on, and the log is moved into the file.
    let goes_on = |line: &&str| line.contains("_lag_") || line.contains("_bytes");
    let lines = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !goes_on(line) && !line.contains("process_"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(lines(&written), lines(&served));
    for name in [
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_start_time_seconds ",
    ] {
        assert!(number(&served, name.trim_end()) > 0.0, "{served}");
        assert!(!written.contains(name));
    }
    read_by_others(&[&written, &served]);

    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("heartbeat arrived"), "{ran}");
    for told in [&ran.stderr, &ran.stdout, &written, &served] {
        assert!(!told.contains(CANARY) && !told.contains("/beat"), "{told}");
        assert!(!told.contains(TOKEN));
    }
    for person in scene
        .home
        .list("SELECT user_name FROM users UNION SELECT id FROM users")
    {
        assert!(!served.contains(&person), "{person}: {served}");
    }
}

/// What is switched on and off while the daemon runs.
#[test]
fn a_reload_applies_what_is_told() {
    let server = Server::start(Directory::of(20, sys_id), WELL_BEHAVED);
    let scene = Scene::new(&server);
    scene.configure("");
    let mut daemon = scene.start("debug");
    event(&mut daemon, "sync finished");

    scene.configure(&format!("textfile = {:?}", scene.textfile()));
    daemon.hang_up();
    event(&mut daemon, "configuration reloaded");
    scene.wait_for(
        &mut daemon,
        &["musterd_users{instance=\"acme\",state=\"living\"} 20"],
    );

    // A port that another program has is a warning, as at the start.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    scene.configure(&format!("listen = \"{taken}\""));
    daemon.hang_up();
    let warned = event(&mut daemon, NOT_YET);
    assert_eq!(warned["address"], taken.to_string());

    drop(other);
    let mut told = events(
        &mut daemon,
        ["metrics are served", "metrics are no longer written here"],
    );
    assert_eq!(told.swap_remove(0)["address"], taken.to_string());
    assert!(
        !scene.textfile().exists(),
        "what is no longer written would be read for ever"
    );
    let url = format!("http://{taken}/metrics").parse().unwrap();
    assert_eq!(http::get(&url, "").0, 200);
    // The same again leaves the port as it is.
    daemon.hang_up();
    event(&mut daemon, "configuration reloaded");
    assert_eq!(http::get(&url, "").0, 200);

    // A folder that goes away: told once, and nothing else goes wrong.
    let folder = scene.home.path().join("folder");
    fs::create_dir(&folder).unwrap();
    scene.configure(&format!("textfile = {:?}", folder.join("m.prom")));
    daemon.hang_up();
    event(&mut daemon, "metrics written");
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(scene.home.sync("incremental").code, Some(0));
    event(
        &mut daemon,
        "metrics cannot be written; under systemd the unit needs `ReadWritePaths=` for their folder",
    );
    fs::create_dir(&folder).unwrap();
    assert_eq!(scene.home.sync("incremental").code, Some(0));
    event(&mut daemon, "metrics are written again");
    // The port was given back.
    TcpListener::bind(taken).unwrap();

    // What is no longer linked is no longer told.
    let told = fs::read_to_string(folder.join("m.prom")).unwrap();
    assert!(told.contains("instance=\"acme\""), "{told}");
    scene.home.configure(&[]);
    let nobody = fs::read_to_string(scene.home.config_path()).unwrap();
    let nobody = format!(
        "{nobody}\n[metrics]\ntextfile = {:?}\n",
        folder.join("m.prom")
    );
    fs::write(scene.home.config_path(), nobody).unwrap();
    daemon.hang_up();
    let told = loop {
        let told = read(&folder.join("m.prom"));
        if !told.contains("acme") {
            break told;
        }
        event(&mut daemon, "metrics written");
    };
    assert!(
        told.contains("musterd_users") && told.ends_with("# EOF\n"),
        "{told}"
    );

    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
}

/// Neither a port nor a folder that cannot be had keeps the daemon from its work.
#[test]
fn what_cannot_be_had_at_the_start_is_taken_up_when_it_can() {
    let server = Server::start(Directory::of(20, sys_id), WELL_BEHAVED);
    let scene = Scene::new(&server);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let folder = scene.home.path().join("folder");
    scene.configure(&format!(
        "listen = \"{taken}\"\ntextfile = {:?}",
        folder.join("m.prom")
    ));
    let mut daemon = scene.start("debug");
    let told = event(&mut daemon, NOT_YET);
    assert!(
        told["error"].as_str().unwrap().contains("already in use"),
        "{told}"
    );
    let told = events(
        &mut daemon,
        [
            "metrics cannot be written; under systemd the unit needs `ReadWritePaths=` for their folder",
            "sync finished",
        ],
    );
    assert_eq!(told[1]["outcome"], "succeeded", "{told:?}");

    drop(other);
    fs::create_dir(&folder).unwrap();
    assert_eq!(scene.home.sync("incremental").code, Some(0));
    let told = events(
        &mut daemon,
        ["metrics are served", "metrics are written again"],
    );
    assert_eq!(told[0]["address"], taken.to_string());
    let url = format!("http://{taken}/metrics").parse().unwrap();
    assert_eq!(http::get(&url, "").0, 200);
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn every_metric_that_was_promised_is_told() {
    let told = told();
    for name in [
        "musterd_last_success_timestamp_seconds",
        "musterd_watermark_lag_seconds",
        "musterd_open_holds",
        "musterd_held_changes",
        "musterd_rejects",
        "musterd_users",
        "musterd_groups",
        "musterd_groups_last_success_timestamp_seconds",
        "musterd_memberships",
        "musterd_ambiguous_profiles",
        "musterd_consecutive_failures",
        "musterd_feed_last_seq",
        "musterd_requests_total",
        "musterd_throttled_seconds_total",
        "musterd_syncs_total",
        "musterd_records_total",
        "musterd_wal_bytes",
        "musterd_mirror_bytes",
        "musterd_build_info",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(told.contains(name), "{name}: {told:?}");
    }
}

#[test]
fn the_shipped_rules_and_dashboard_ask_for_what_there_is() {
    let told = told();
    for (file, text) in [("alerts.yml", ALERTS), ("grafana.json", DASHBOARD)] {
        let asked = names(text);
        assert!(asked.len() >= 5, "{file}: {asked:?}");
        for name in asked {
            assert!(told.contains(&name), "{file}: `{name}` is told by nobody");
        }
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() >= 8);
}

#[test]
fn names_are_found_wherever_they_stand() {
    let found = names(
        "rate(musterd_a_total[5m]) - musterd_b{x=\"musterd_c\"} musterd.prom job=\"musterd\"",
    );
    let expected = ["musterd_a_total", "musterd_b", "musterd_c"];
    assert_eq!(found, expected.map(String::from).into());
}

/// One parser of the format that we did not write, and one of the older format, which a node exporter reads.
const CHECK: &str = r#"
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as new
from prometheus_client.parser import text_string_to_metric_families as old
for path in sys.argv[1:]:
    text = open(path).read()
    families = list(new(text))
    assert families, path
    for family in families:
        assert family.documentation, family
        assert family.type in ("gauge", "counter"), family
        assert family.samples or family.name.startswith("musterd_"), family
        assert family.unit == "" or family.name.endswith("_" + family.unit), family
        assert not any(sample.timestamp for sample in family.samples), family
    count = lambda families: sum(len(family.samples) for family in families)
    assert count(families) == count(old(text)) > 20, path
print("fine")
"#;

fn read_by_others(texts: &[&str]) {
    let Some(tools) = python::tools() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(tools.join("python"));
    command.args(["-c", CHECK]);
    for (place, text) in texts.iter().enumerate() {
        let path = folder.path().join(place.to_string());
        fs::write(&path, text).unwrap();
        command.arg(path);
    }
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        told,
        "fine\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The names of all samples that can be told.
fn told() -> BTreeSet<String> {
    let now = Timestamp::UNIX_EPOCH;
    let acme = metrics::Instance {
        name: InstanceName::parse("acme").unwrap(),
        last_success_at: Some(now),
        last_full_success_at: Some(now),
        watermark: Some(now),
        open_holds: [0; 5],
        held_changes: 0,
        rejects: 0,
        living: 0,
        active: 0,
        groups: Some(metrics::Groups {
            last_full_success_at: Some(now),
            ..metrics::Groups::default()
        }),
        ambiguous_profiles: 0,
        consecutive_failures: 0,
        spent: TallySnapshot::default(),
        counted: Counted::default(),
    };
    let text = metrics::text(Snapshot {
        version: "0",
        taken_at: now,
        feed_last_seq: 0,
        mirror_bytes: 0,
        wal_bytes: 0,
        instances: vec![acme],
        process: Some(Process {
            started_at: now,
            resident_memory_bytes: Some(0),
            open_fds: Some(0),
        }),
    });
    let text = text.unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .collect()
}

/// Every word of a text that begins with `musterd_`.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("musterd_"))
        .map(str::to_owned)
        .collect()
}

/// The value of a sample.
#[track_caller]
fn number(text: &str, name: &str) -> f64 {
    let rest = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let rest = rest.unwrap_or_else(|| panic!("no `{name}` in {text}"));
    rest.parse().unwrap()
}

/// The fields of the next line of the log with this message.
#[track_caller]
fn event(daemon: &mut Running, message: &str) -> Value {
    events(daemon, [message]).remove(0)
}

/// The fields of the next lines of the log with these messages, in whatever order they come.
#[track_caller]
fn events<const N: usize>(daemon: &mut Running, messages: [&str; N]) -> Vec<Value> {
    let mut found = vec![Value::Null; N];
    let line = daemon.wait_for(TIME_LIMIT, |line| {
        let line = serde_json::from_str::<Value>(line).unwrap_or_default();
        // Formatters differ in whether fields stand at the top.
        let fields = line.get("fields").unwrap_or(&line).clone();
        for (message, found) in messages.iter().zip(&mut found) {
            if found.is_null() && fields["message"] == *message {
                found.clone_from(&fields);
            }
        }
        !found.contains(&Value::Null)
    });
    assert!(
        line.is_ok(),
        "the daemon ended before {messages:?}: {line:?}"
    );
    found
}

/// A home with one instance, and a place for the file.
struct Scene {
    home: Home,
    url: String,
}

impl Scene {
    fn new(server: &Server) -> Self {
        Self {
            home: Home::new(&[]),
            url: server.url(),
        }
    }

    fn textfile(&self) -> PathBuf {
        self.home.path().join("musterd.prom")
    }

    /// Writes the configuration with these lines in `[metrics]`.
    fn configure(&self, metrics: &str) {
        let mut more = SCHEDULE.to_owned();
        write!(more, "\n[metrics]\n{metrics}\n").unwrap();
        self.home.configure(&[Instance {
            name: "acme",
            url: &self.url,
            scim_path: SCIM_PATH,
            auth: Auth::Bearer(TOKEN),
            page_size: 20,
            more: &more,
        }]);
    }

    fn start(&self, level: &str) -> Running {
        let mut command = self.home.command(BINARY);
        command.arg("run").env("MUSTERD__LOG__LEVEL", level);
        Running::start(command)
    }

    /// Waits until the file has these lines, looking at it whenever it was written.
    #[track_caller]
    fn wait_for(&self, daemon: &mut Running, lines: &[&str]) -> String {
        loop {
            let text = read(&self.textfile());
            if lines
                .iter()
                .all(|line| text.lines().any(|other| other == *line))
            {
                return text;
            }
            event(daemon, "metrics written");
        }
    }
}

/// Nothing yet is nothing.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Who waits for heartbeats.
struct Beats {
    address: SocketAddr,
    /// The first line of each request.
    came: Receiver<String>,
}

impl Beats {
    fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, came) = channel();
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut lines = Vec::new();
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    if line.trim_end().is_empty() {
                        break;
                    }
                    lines.push(line.trim_end().to_owned());
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nOK";
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
                if tell.send(lines.swap_remove(0)).is_err() {
                    return;
                }
            }
        });
        Self { address, came }
    }

    fn url(&self) -> String {
        format!("http://{}/beat/{CANARY}?from=musterd", self.address)
    }
}
