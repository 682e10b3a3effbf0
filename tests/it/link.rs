//! `musterd link` and `musterd unlink`, as somebody meets them who has an address and a client's secret.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::harness::served::Served;
use crate::harness::{BINARY, Home, Ran, Running, TIME_LIMIT};

/// A configuration without instances, and a simulated instance to link.
struct Scene {
    home: Home,
    served: Served,
}

impl Scene {
    fn new() -> Self {
        let home = Home::new(&[]);
        let mut text = std::fs::read_to_string(home.config_path()).unwrap();
        text += "[defaults]\nresources = [\"users\"]\n";
        std::fs::write(home.config_path(), text).unwrap();
        Self {
            home,
            served: Served::of(20),
        }
    }

    /// Runs `link` with these lines on stdin.
    fn link(&self, args: &[&str], stdin: &str) -> Ran {
        let lines = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(lines.path(), stdin).unwrap();
        let mut command = self.home.command("sh");
        command
            .args(["-c", "exec \"$0\" link \"$@\" < \"$LINES\"", BINARY])
            .args(args)
            .env("LINES", lines.path());
        Running::start(command).finish(TIME_LIMIT)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.config_path().with_file_name(name)
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn an_instance_is_linked_checked_synced_and_taken_out_again() {
    let scene = Scene::new();
    let rules = scene.served.sandbox.auth();
    let secret = rules.client_secret.clone();
    let before = tree(scene.home.path());
    let args = ["acme", &scene.served.url, "--client-id", &rules.client_id];
    let ran = scene.link(&args, &secret);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("20 users"), "{ran}");
    assert!(ran.stdout.contains("systemctl start musterd"), "{ran}");
    assert!(!format!("{ran}").contains(&secret), "the secret is shown");
    let [instance, kept] = [
        scene.file("instances.d/acme.toml"),
        scene.file("secrets/acme"),
    ];
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), secret);
    let modes = [
        &kept,
        &instance,
        &scene.file("secrets"),
        &scene.file("instances.d"),
    ]
    .map(|path| mode(path));
    assert_eq!(modes, [0o600, 0o640, 0o700, 0o750]);

    let mut daemon = scene.home.start(&["run"]);
    daemon
        .wait_for(TIME_LIMIT, |line| line.contains("sync finished"))
        .expect("the first sync");
    let ran = scene.home.run(&["unlink", "acme"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("`unlinked`"), "{ran}");
    assert!(!instance.exists() && !kept.exists());
    assert_eq!(
        scene.home.one::<String>("SELECT state FROM instances"),
        "unlinked"
    );
    assert_eq!(scene.home.one::<i64>("SELECT count(*) FROM users"), 20);
    assert_eq!(
        scene.home.one::<i64>("SELECT count(*) FROM active_users"),
        0
    );
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));

    // Linked again it goes on, without a daemon as well.
    assert_eq!(scene.link(&args, &secret).code, Some(0));
    assert_eq!(scene.home.run(&["sync"]).code, Some(0));
    assert_ne!(
        scene.home.one::<i64>("SELECT count(*) FROM active_users"),
        0
    );
    let ran = scene.home.run(&["unlink", "acme"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("no daemon runs"), "{ran}");
    scene.home.verify();
    // The folders stay.
    let mut left = tree(scene.home.path());
    for folder in ["instances.d", "secrets"] {
        assert!(left.remove(&scene.file(folder)));
    }
    assert_eq!(left, before);
}

#[test]
fn a_running_daemon_takes_an_instance_up_and_leaves_it_out() {
    let scene = Scene::new();
    let rules = scene.served.sandbox.auth();
    let mut daemon = scene.home.start(&["run"]);
    let mut said = |what: &str| {
        let line = daemon.wait_for(TIME_LIMIT, |line| line.contains(what));
        line.unwrap_or_else(|all| panic!("not `{what}`: {all:?}"))
    };
    said("\"started\"");
    let args = ["acme", &scene.served.url, "--client-id", &rules.client_id];
    let ran = scene.link(&args, &rules.client_secret);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("has taken it up"), "{ran}");
    // The check is answered by the daemon, which knows it.
    assert!(ran.stdout.contains("20 users"), "{ran}");
    said("sync finished");

    // What is wrong without the instance would be so for the daemon, too.
    let before = tree(scene.home.path());
    let text = std::fs::read_to_string(scene.home.config_path()).unwrap();
    std::fs::write(scene.home.config_path(), format!("nonsense = 1\n{text}")).unwrap();
    let ran = scene.home.run(&["unlink", "acme"]);
    assert_eq!(ran.code, Some(78), "{ran}");
    std::fs::write(scene.home.config_path(), &text).unwrap();
    assert_eq!(tree(scene.home.path()), before);

    let ran = scene.home.run(&["unlink", "acme"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(!scene.file("instances.d/acme.toml").exists());
    // What the daemon refuses it could not start with either: the name is that of another directory in the mirror.
    let before = tree(scene.home.path());
    let elsewhere = scene.served.url.replace("127.0.0.1", "localhost");
    let ran = scene.link(
        &["acme", &elsewhere, "--client-id", &rules.client_id],
        &rules.client_secret,
    );
    assert_eq!(ran.code, Some(78), "{ran}");
    assert!(ran.stderr.contains("is taken out again"), "{ran}");
    assert_eq!(tree(scene.home.path()), before);

    daemon.terminate();
    let ran = daemon.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");
}

#[test]
fn its_users_are_dropped_by_the_daemon_with_a_record_each() {
    let scene = Scene::new();
    let rules = scene.served.sandbox.auth();
    let mut daemon = scene.home.start(&["run"]);
    let mut said = |what: &str| {
        let line = daemon.wait_for(TIME_LIMIT, |line| line.contains(what));
        line.unwrap_or_else(|all| panic!("not `{what}`: {all:?}"))
    };
    said("\"started\"");
    let args = ["acme", &scene.served.url, "--client-id", &rules.client_id];
    assert_eq!(scene.link(&args, &rules.client_secret).code, Some(0));
    said("sync finished");
    assert_eq!(scene.home.one::<i64>("SELECT count(*) FROM users"), 20);

    // Nobody was asked.
    let before = tree(scene.home.path());
    let ran = scene.home.run(&["unlink", "acme", "--drop"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(
        ran.stderr.contains("20 users") && ran.stderr.contains("`--yes`"),
        "{ran}"
    );
    assert_eq!(tree(scene.home.path()), before);
    assert_eq!(scene.home.one::<i64>("SELECT count(*) FROM users"), 20);

    let ran = scene.home.run(&["unlink", "acme", "--drop", "--yes"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("20 users of acme removed"), "{ran}");
    said("were removed");
    scene.home.verify();
    let counts = "SELECT (SELECT count(*) FROM users) || ' ' || (SELECT count(*) FROM instances) || ' ' || count(*)
                  FROM changes WHERE kind = 'deactivate' AND reason = 'unlinked'";
    assert_eq!(scene.home.one::<String>(counts), "0 0 20");
    // The past can still be read by its name.
    let ran = scene.home.run(&["changes", "--instance", "acme", "--json"]);
    assert_eq!(
        (ran.code, ran.stdout.lines().count()),
        (Some(0), 40),
        "{ran}"
    );

    // Linked again it is new, at any address.
    let elsewhere = scene.served.url.replace("127.0.0.1", "localhost");
    let args = ["acme", &elsewhere, "--client-id", &rules.client_id];
    let ran = scene.link(&args, &rules.client_secret);
    assert_eq!(ran.code, Some(0), "{ran}");
    said("sync finished");
    scene.home.verify();
    let baseline =
        "SELECT count(*) FROM changes WHERE kind = 'create' AND reason = 'baseline' AND seq > 40";
    assert_eq!(scene.home.one::<i64>(baseline), 20);
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
}

#[test]
fn its_users_are_dropped_without_a_daemon_also_later() {
    let scene = Scene::new();
    let rules = scene.served.sandbox.auth();
    let args = ["acme", &scene.served.url, "--client-id", &rules.client_id];
    let unlink = |more: &[&str]| scene.home.run(&[&["unlink", "acme"], more].concat());
    let left = || scene.home.one::<i64>("SELECT count(*) FROM users");
    for is_later in [false, true] {
        assert_eq!(scene.link(&args, &rules.client_secret).code, Some(0));
        assert_eq!(scene.home.run(&["sync"]).code, Some(0));
        assert_eq!(left(), 20);
        if is_later {
            assert_eq!(unlink(&[]).code, Some(0));
        }
        let ran = unlink(&["--drop", "--yes"]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(ran.stdout.contains("20 users of acme removed"), "{ran}");
        assert_eq!(left(), 0);
        scene.home.verify();
    }
    let ran = unlink(&["--drop", "--yes"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(
        ran.stderr.contains("does not stand in the configuration"),
        "{ran}"
    );
}

#[test]
fn a_person_is_asked_before_users_are_dropped() {
    let scene = Scene::new();
    let rules = scene.served.sandbox.auth();
    let args = ["acme", &scene.served.url, "--client-id", &rules.client_id];
    assert_eq!(scene.link(&args, &rules.client_secret).code, Some(0));
    assert_eq!(scene.home.run(&["sync"]).code, Some(0));
    let answer = |line: &str| {
        let terminal = Terminal::open();
        let mut command = scene.home.command("sh");
        command
            .args([
                "-c",
                "exec setsid --ctty --wait \"$0\" unlink acme --drop < \"$TERMINAL\"",
                BINARY,
            ])
            .env("TERMINAL", &terminal.name);
        let running = Running::start(command);
        rustix::io::write(&terminal.master, line.as_bytes()).unwrap();
        running.finish(TIME_LIMIT)
    };
    for refusal in ["\n", "n\n", "acme\n"] {
        let ran = answer(refusal);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("nothing was changed"), "{ran}");
        assert_eq!(scene.home.one::<i64>("SELECT count(*) FROM users"), 20);
        assert!(scene.file("instances.d/acme.toml").exists());
    }
    let ran = answer("y\n");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(scene.home.one::<i64>("SELECT count(*) FROM users"), 0);
}

/// A terminal of its own.
struct Terminal {
    master: std::os::fd::OwnedFd,
    name: String,
}

impl Terminal {
    fn open() -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        Self {
            master,
            name: name.into_string().unwrap(),
        }
    }
}

#[test]
fn secrets_that_are_not_of_an_instance_alone_stay() {
    let scene = Scene::new();
    let link = |name: &str, url: &str| {
        let ran = scene.link(
            &[name, url, "--auth", "bearer", "--no-check"],
            "token-of-it\n",
        );
        assert_eq!(ran.code, Some(0), "{ran}");
    };
    let other = "https://b.service-now.com";
    let unlink = |name: &str| assert_eq!(scene.home.run(&["unlink", name]).code, Some(0));
    // A name that begins another's is not the other's.
    link("acme", &scene.served.url);
    link("acme_b", other);
    unlink("acme");
    assert!(!scene.file("secrets/acme").exists() && scene.file("secrets/acme_b").exists());

    // One that another instance uses as well.
    link("acme", &scene.served.url);
    let file = scene.file("instances.d/acme_b.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("secrets/acme_b", "secrets/acme")).unwrap();
    unlink("acme");
    assert!(scene.file("secrets/acme").exists());

    // And those of a file that was written by hand.
    std::fs::write(&file, text.split_once('\n').unwrap().1).unwrap();
    unlink("acme_b");
    assert!(scene.file("secrets/acme_b").exists());
}

/// All files and folders but the mirror's.
fn tree(folder: &Path) -> BTreeSet<PathBuf> {
    let mut all = BTreeSet::new();
    for entry in folder.read_dir().unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("mirror.db") {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            all.extend(tree(&entry.path()));
        }
        all.insert(entry.path());
    }
    all
}

#[test]
fn what_cannot_be_linked_leaves_nothing_behind() {
    let scene = Scene::new();
    let rules = scene.served.sandbox.auth();
    let id = ["--client-id", "some-id"];
    let before = tree(scene.home.path());
    for (args, stdin, said) in [
        // Not an address that an instance can have.
        (
            [&["acme", "http://acme.service-now.com"][..], &id].concat(),
            "secret\n",
            "https",
        ),
        (
            [&["Acme", &scene.served.url][..], &id].concat(),
            "secret\n",
            "at most 40",
        ),
        (vec!["acme", &scene.served.url], "secret\n", "--client-id"),
        (
            [&["acme", &scene.served.url][..], &id].concat(),
            "",
            "client_secret",
        ),
        (
            [&["acme", &scene.served.url][..], &id].concat(),
            "\n",
            "empty",
        ),
        (
            [&["acme", &scene.served.url][..], &id].concat(),
            "one\ntwo\n",
            "more lines",
        ),
        (
            vec![
                "acme",
                &scene.served.url,
                "--auth",
                "password",
                "--client-id",
                "i",
                "--username",
                "u",
            ],
            "one\n",
            "password",
        ),
        (
            vec!["acme", &scene.served.url, "--auth", "magic"],
            "",
            "magic",
        ),
    ] {
        let ran = scene.link(&args, stdin);
        assert_ne!(ran.code, Some(0), "{args:?}: {ran}");
        assert!(ran.stderr.contains(said), "{args:?}: {ran}");
        assert_eq!(tree(scene.home.path()), before, "{args:?}");
    }

    // One that does not answer is linked, and says so.
    let args = ["acme", &scene.served.url, "--client-id", &rules.client_id];
    let ran = scene.link(&args, "not the secret\n");
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("musterd unlink acme"), "{ran}");
    // The name is taken now, and the secret stays what it is.
    let ran = scene.link(&args, "another\n");
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains("already"), "{ran}");
    let kept = std::fs::read_to_string(scene.file("secrets/acme")).unwrap();
    assert_eq!(kept, "not the secret");
    // Another name with the same account is no other instance.
    let twin = ["globex", &scene.served.url, "--client-id", &rules.client_id];
    let before = tree(scene.home.path());
    let ran = scene.link(&twin, "not the secret\n");
    assert_eq!(ran.code, Some(78), "{ran}");
    assert_eq!(tree(scene.home.path()), before);

    for (name, said) in [("globex", "does not stand"), ("../etc", "at most 40")] {
        let ran = scene.home.run(&["unlink", name]);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains(said), "{ran}");
    }
}

#[test]
fn each_type_of_authentication_is_written_as_it_is_read() {
    let scene = Scene::new();
    for (auth, args, stdin) in [
        (
            "client_credentials",
            &["--client-id", "a \"quoted\" id"][..],
            "s1\n",
        ),
        (
            "password",
            &["--client-id", "i", "--username", "ü\\ser"],
            "s1\ns2\n",
        ),
        ("refresh_token", &["--client-id", "j"], "s1\ns3\n"),
        ("basic", &["--username", "ada"], "s2\n"),
        ("bearer", &[], "s4\n"),
    ] {
        let name = auth.to_owned();
        let all = [
            &[
                &*name,
                &scene.served.url,
                "--auth",
                auth,
                "--no-check",
                "--per-hour",
                "500",
            ],
            args,
        ]
        .concat();
        let ran = scene.link(&all, stdin);
        assert_eq!(ran.code, Some(0), "{auth}: {ran}");
    }
    let ran = scene.home.run(&["check", "--offline"]);
    assert!(ran.stdout.contains("5 instances in order"), "{ran}");
    let shown = scene.home.run(&["config"]);
    for expected in ["a \\\"quoted\\\" id", "ü\\\\ser", "500"] {
        assert!(shown.stdout.contains(expected), "{expected}: {shown}");
    }
    for name in ["password", "refresh_token"] {
        assert_eq!(scene.home.run(&["unlink", name]).code, Some(0));
    }
    let mut left: Vec<_> = std::fs::read_dir(scene.file("secrets"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["basic", "bearer", "client_credentials"]);
}
