//! No secret of the configuration, and no token that it was exchanged for, is in anything that musterd writes or shows
//! (promise P11).

use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use musterd::sandbox::{Effect, Fault, RequestKind};

use crate::harness::served::Served;
use crate::harness::{BINARY, Home, Running, TIME_LIMIT, files};
use crate::login::{Login, login};

const LOGINS: [Login; 5] = [
    Login::ClientCredentials,
    Login::Password,
    Login::RefreshToken,
    Login::Basic,
    Login::Bearer,
];

/// As much as there is to log, of the libraries as well.
const LEVEL: &str = "trace,musterd=trace,hyper=trace,hyper_util=trace,reqwest=trace,rustls=trace,h2=trace,tower=trace";

#[test]
fn no_secret_is_written_or_shown_at_any_level() {
    let home = Home::new(&[]);
    let mut secrets = Vec::new();
    let mut text = format!(
        "[mirror]\npath = {:?}\n[log]\nlevel = {LEVEL:?}\nformat = \"text\"\n",
        home.mirror_path()
    );
    let mut instances = Vec::new();
    for (place, way) in LOGINS.into_iter().enumerate() {
        let served = Served::of(12);
        let (sandbox, url) = (&served.sandbox, &served.url);
        sandbox.set_auth(|rules| {
            rules.client_secret = format!("canary-of-client-{place}");
            rules.password = format!("canary-of-account-{place}");
            rules.rotate_refresh = true;
        });
        let rules = sandbox.auth();
        let auth = login(way, &rules, sandbox);
        let tables = format!(
            "[instances.i{place}]\nurl = {url:?}\ntimeout = \"5s\"\nrate = {{ per_second = 1000, burst = 1000 }}\n\
             retry = {{ attempts = 2, max_wait = \"2s\" }}\n[instances.i{place}.auth]\n"
        );
        text += &tables;
        for line in auth.lines() {
            // Each secret in a file of its own; whatever is no secret stands as it is.
            let (key, value) = line.split_once(" = ").unwrap();
            let value = value.trim_matches('"');
            if ["client_secret", "password", "refresh_token", "token"].contains(&key) {
                let path = home.path().join(format!("secret-{place}-{key}"));
                std::fs::write(&path, value).unwrap();
                text += &format!("{key} = {{ file = {path:?} }}\n");
                secrets.push(value.to_owned());
            } else {
                writeln!(text, "{line}").unwrap();
            }
        }
        let basic = format!("{}:{}", rules.username, rules.password);
        secrets.push(STANDARD.encode(basic));
        instances.push(served);
    }
    std::fs::write(home.config_path(), text).unwrap();

    let mut said = Vec::new();
    let mut run = |args: &[&str], code: i32| {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(code), "{args:?}");
        said.push((args.join(" "), ran.stdout + &ran.stderr));
    };
    run(&["check"], 0);
    run(&["check", "--json"], 0);
    run(&["config"], 0);
    run(&["config", "--json"], 0);
    run(&["sync", "--json"], 0);
    let mut daemon = home.start(&["run"]);
    for _ in LOGINS {
        daemon
            .wait_for(TIME_LIMIT, |line| line.contains("sync finished"))
            .expect("a sync of each");
    }
    let processes = daemon.shown_by_the_system();
    run(&["sync", "--mode", "full", "--dry-run"], 0);
    run(&["sync", "--mode", "full"], 0);
    // The refresh token that was given in place of the configured one.
    let kept = std::fs::read(home.path().join("mirror.db.auth-i2")).unwrap();
    let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
    secrets.push(
        kept["rotated"]["refresh_token"]
            .as_str()
            .unwrap()
            .to_owned(),
    );
    // The access tokens in use.
    secrets.extend(instances.iter().map(|served| served.sandbox.issue_token()));
    // What goes wrong is told with what the instance said, which may be what it was sent.
    for Served { sandbox, .. } in &instances {
        sandbox.add_fault(
            Fault::new(Effect::BrokenJson { share: 0.5 })
                .named("broken")
                .on(&[RequestKind::List]),
        );
    }
    run(&["sync", "--mode", "full"], 1);
    for Served { sandbox, .. } in &instances {
        sandbox.remove_fault("broken");
        sandbox.add_fault(Fault::new(Effect::LoginRefused));
        sandbox.end_token();
        sandbox.set_auth(|rules| {
            rules.client_secret.push('x');
            rules.password.push('x');
        });
    }
    run(&["sync"], 1);
    run(&["check"], 1);
    for args in [&["status"][..], &["status", "--json"]] {
        let ran = home.run(args);
        said.push((args.join(" "), ran.stdout + &ran.stderr));
    }
    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    said.push(("run".to_owned(), ran.stdout + &ran.stderr));
    said.push(("/proc".to_owned(), processes));
    for args in [
        &["verify"][..],
        &["changes"],
        &["holds"],
        &["user", "i0", "a"],
        &["chain", "i0", "a"],
    ] {
        let ran = home.run(args);
        said.push((args.join(" "), ran.stdout + &ran.stderr));
    }

    assert!(secrets.len() > 15, "{}", secrets.len());
    assert!(secrets.iter().all(|secret| secret.len() > 8));
    let log = said.iter().find(|(what, _)| what == "run").unwrap();
    assert!(log.1.contains("TRACE"), "nothing was traced");
    // What may be shown is found in the same way.
    let client_id = instances[0].sandbox.auth().client_id;
    assert!(said.iter().any(|(_, text)| text.contains(&client_id)));
    for (what, text) in &said {
        for (place, secret) in secrets.iter().enumerate() {
            assert!(!text.contains(secret), "`{what}` shows secret {place}");
        }
    }
    for (path, bytes) in files(home.path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if is_for_secrets(name) {
            continue;
        }
        for (place, secret) in secrets.iter().enumerate() {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "`{name}` has secret {place}");
        }
    }
}

#[test]
fn a_proxy_of_the_environment_is_not_used() {
    let served = Served::of(3);
    let (sandbox, url) = (&served.sandbox, &served.url);
    let proxy = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let home = Home::new(&[]);
    let text = format!(
        "[mirror]\npath = {:?}\n[instances.acme]\nurl = {url:?}\nrate = {{ per_second = 1000, burst = 1000 }}\n\
         [instances.acme.auth]\n{}",
        home.mirror_path(),
        login(Login::ClientCredentials, &sandbox.auth(), sandbox)
    );
    std::fs::write(home.config_path(), text).unwrap();
    let mut command = home.command(BINARY);
    command.arg("sync");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command
            .env(name, &address)
            .env(name.to_lowercase(), &address);
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    let ran = Running::start(command).finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
    let nobody = proxy.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// Those of the test, and where a rotated refresh token is kept.
fn is_for_secrets(name: &str) -> bool {
    name.starts_with("secret-")
        || Path::new(name)
            .file_stem()
            .is_some_and(|stem| stem == "mirror.db")
            && name.contains(".auth-")
}
