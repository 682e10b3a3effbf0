//! The daemon as a service manager and its neighbours see it: it keeps its schedule, stops when told,
//! shares one mirror with commands, and one silent instance does not hold up another.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Auth, Home, Instance, Running, TIME_LIMIT, text};
use crate::odd_servers::directory::{Directory, sys_id};
use crate::odd_servers::scim::WELL_BEHAVED;
use crate::odd_servers::server::{SCIM_PATH, Server, TOKEN};

/// An incremental sync every second, a full one only at the start and on request.
const SCHEDULE: &str = "schedule = { incremental = \"* * * * * *\", full = \"0 0 0 1 1 *\", \
     splay = { incremental = \"0s\", full = \"0s\" } }";

fn instance<'a>(name: &'a str, url: &'a str) -> Instance<'a> {
    Instance {
        name,
        url,
        scim_path: SCIM_PATH,
        auth: Auth::Bearer(TOKEN),
        page_size: 20,
        more: SCHEDULE,
    }
}

/// Waits until the log tells of a finished sync of this instance that fits.
fn wait_for_sync(daemon: &mut Running, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut found = Value::Null;
    let line = daemon.wait_for(TIME_LIMIT, |line| {
        let Ok(line) = serde_json::from_str::<Value>(line) else {
            return false;
        };
        // Formatters differ in whether fields stand at the top.
        let fields = line.get("fields").unwrap_or(&line).clone();
        let wanted =
            fields["message"] == json!("sync finished") && fields["instance"] == json!(name);
        if wanted && fits(&fields) {
            found = fields;
        }
        !found.is_null()
    });
    if let Err(output) = line {
        panic!("the daemon ended: {output}");
    }
    found
}

#[test]
fn the_daemon_finds_a_leaver_stops_when_told_and_leaves_a_readable_mirror() {
    let server = Server::start(Directory::of(60, sys_id), WELL_BEHAVED);
    let home = Home::new(&[instance("acme", &server.url())]);
    let mut daemon = home.start(&["run"]);
    let first = wait_for_sync(&mut daemon, "acme", |_| true);
    assert_eq!(
        first["mode"],
        json!("full"),
        "there is no baseline: {first}"
    );
    assert_eq!(first["outcome"], json!("succeeded"), "{first}");
    assert_eq!(home.one::<i64>("SELECT count(*) FROM active_users"), 60);

    server.edit(|directory| directory.set(7, "active", json!(false)));
    let found = wait_for_sync(&mut daemon, "acme", |sync| sync["deactivated"] != json!(0));
    assert_eq!(found["mode"], json!("incremental"), "{found}");
    assert_eq!(found["trigger"], json!("schedule"), "{found}");
    assert_eq!(home.one::<i64>("SELECT count(*) FROM active_users"), 59);

    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    // Unprivileged readers can open the file only where these two stay.
    for suffix in ["-wal", "-shm"] {
        let mut name = home.mirror_path().into_os_string();
        name.push(suffix);
        assert!(std::path::Path::new(&name).exists(), "{name:?}");
    }
    assert_eq!(home.one::<i64>("SELECT count(*) FROM active_users"), 59);
    home.verify();
}

#[test]
fn a_command_is_handed_to_the_daemon_and_a_second_daemon_is_refused() {
    let server = Server::start(Directory::of(60, sys_id), WELL_BEHAVED);
    let home = Home::new(&[instance("acme", &server.url())]);
    let mut daemon = home.start(&["run"]);
    wait_for_sync(&mut daemon, "acme", |_| true);

    let second = home.run(&["run"]);
    assert_eq!(second.code, Some(1), "{second}");
    assert!(second.stderr.contains("lock"), "it says why: {second}");

    server.edit(|directory| drop(directory.leave(12)));
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    let by_request = home.rows("SELECT * FROM syncs WHERE trigger = 'request' AND mode = 'full'");
    assert_eq!(by_request.len(), 1, "{by_request:?}");
    assert_eq!(text(&by_request[0], "deactivated").as_deref(), Some("1"));
    // The daemon did it: it is its log that tells.
    wait_for_sync(&mut daemon, "acme", |sync| {
        sync["trigger"] == json!("request")
    });
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    home.verify();
}

/// While the daemon holds the lock, it is the daemon that approves.
#[test]
fn a_hold_is_approved_through_the_daemon() {
    let server = Server::start(Directory::of(60, sys_id), WELL_BEHAVED);
    let home = Home::new(&[instance("acme", &server.url())]);
    let mut daemon = home.start(&["run"]);
    wait_for_sync(&mut daemon, "acme", |_| true);
    server.edit(|directory| {
        for n in 0..30 {
            directory.set(n, "active", json!(false));
        }
    });
    let held = wait_for_sync(&mut daemon, "acme", |sync| sync["held"] != json!(0));
    assert_eq!(held["held"], json!(30), "{held}");
    let status = home.run(&["status"]);
    assert_eq!(status.code, Some(3), "{status}");
    assert!(status.stdout.contains("musterd holds"), "{status}");

    let digest: String = home.one("SELECT digest FROM holds");
    let wrong = home.run(&["holds", "approve", "1", "--digest", "0"]);
    assert_eq!(wrong.code, Some(1), "{wrong}");
    assert_eq!(home.one::<i64>("SELECT count(*) FROM users_held"), 30);
    let ran = home.run(&["holds", "approve", "1", "--digest", &digest]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(home.one::<i64>("SELECT count(*) FROM active_users"), 30);
    let again = home.run(&["holds", "approve", "1", "--digest", &digest]);
    assert_eq!(again.code, Some(1), "{again}");
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    home.verify();
}

/// One instance takes connections and never answers. The other keeps its schedule.
#[test]
fn a_silent_instance_does_not_hold_up_another() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let server = Server::start(Directory::of(60, sys_id), WELL_BEHAVED);
    let url = server.url();
    let home = Home::new(&[instance("acme", &url), instance("silent", &silent_url)]);
    let mut daemon = home.start(&["run"]);
    wait_for_sync(&mut daemon, "acme", |_| true);
    // The silent one has not even timed out by now (20 s): its first request is still open.
    for title in ["First", "Second", "Third"] {
        server.edit(|directory| directory.set(5, "title", json!(title)));
        wait_for_sync(&mut daemon, "acme", |sync| sync["updated"] == json!(1));
        assert_eq!(
            home.one::<String>(&format!(
                "SELECT title FROM users WHERE id = '{}'",
                sys_id(5)
            )),
            title
        );
    }
    // Told to stop, it does not wait for an answer that never comes.
    daemon.terminate();
    let ran = daemon.finish(Duration::from_secs(15));
    assert_eq!(ran.code, Some(0), "{ran}");
    home.verify();
    drop(silent);
}

/// By the order of ids, twenty a page.
const ON_THE_SECOND_PAGE: usize = 32;

/// A page that was read before a change, and arrives after an incremental sync has applied that
/// change, does not undo it (promise P6), though both edits carry the same stamp; and the incremental
/// sync did not wait for it (promise P7).
#[test]
fn a_late_page_of_a_full_sync_undoes_nothing() {
    let server = Server::start(Directory::of(60, sys_id), WELL_BEHAVED);
    let home = Home::new(&[instance("acme", &server.url())]);
    let on_page = server.with(|directory| {
        let mut ids = directory
            .users()
            .map(|(id, _)| id.clone())
            .skip(20)
            .take(20);
        ids.any(|id| id == sys_id(ON_THE_SECOND_PAGE))
    });
    assert!(on_page);
    let mut daemon = home.start(&["run"]);
    wait_for_sync(&mut daemon, "acme", |_| true);
    server.edit(|directory| directory.set(ON_THE_SECOND_PAGE, "title", json!("First")));
    wait_for_sync(&mut daemon, "acme", |sync| sync["updated"] == json!(1));

    // The full crawl's second page has the edited user on it; it is made before the second edit.
    server.hold_back(|request| {
        let filter = request.query.get("filter").map_or("", |filter| filter);
        filter.starts_with("id gt") && request.count() > 1
    });
    let full = home.start(&["sync", "--mode", "full", "--json"]);
    server.wait_for_held_back(1);
    server.edit(|directory| directory.set_unstamped(ON_THE_SECOND_PAGE, "title", json!("Second")));
    wait_for_sync(&mut daemon, "acme", |sync| sync["updated"] == json!(1));
    server.let_go();
    let ran = full.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(
        home.list(&format!(
            "SELECT kind || ' ' || json_extract(after, '$.title') FROM changes WHERE id = '{}' ORDER BY seq",
            sys_id(ON_THE_SECOND_PAGE)
        )),
        ["create Engineer 4", "update First", "update Second"]
    );
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    home.verify();
}
