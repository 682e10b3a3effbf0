//! Secrets that systemd lays out for the unit, as somebody meets them who types commands beside it.

use crate::harness::served::Served;
use crate::harness::{BINARY, Home, Ran, Running, TIME_LIMIT};

/// An instance whose secret is the credential `acme`, and the folder in which systemd would lay that out.
struct Scene {
    served: Served,
    home: Home,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let served = Served::of(20);
        let home = Home::new(&[]);
        let folder = tempfile::tempdir().unwrap();
        let rules = served.sandbox.auth();
        std::fs::write(folder.path().join("acme"), &rules.client_secret).unwrap();
        let text = format!(
            "url = {:?}\nrate = {{ per_second = 1000, burst = 1000 }}\n[auth]\ntype = \"client_credentials\"\n\
             client_id = {:?}\nclient_secret = {{ credential = \"acme\" }}\n",
            served.url, rules.client_id
        );
        let instances = home.path().join("instances.d");
        std::fs::create_dir(&instances).unwrap();
        std::fs::write(instances.join("acme.toml"), text).unwrap();
        Self {
            served,
            home,
            folder,
        }
    }

    /// A process to which systemd has handed the credentials of the unit.
    fn in_the_unit(&self, args: &[&str]) -> Running {
        let mut command = self.home.command(BINARY);
        command
            .args(args)
            .env("CREDENTIALS_DIRECTORY", self.folder.path());
        Running::start(command)
    }

    fn link_another(&self) -> Ran {
        let mut command = self.home.command("sh");
        command.args([
            "-c",
            "echo token | \"$0\" link globex https://globex.service-now.com --auth bearer --no-check",
            BINARY,
        ]);
        Running::start(command).finish(TIME_LIMIT)
    }
}

#[test]
fn beside_the_daemon_commands_need_no_credential() {
    let scene = Scene::new();
    let mut daemon = scene.in_the_unit(&["run"]);
    daemon
        .wait_for(TIME_LIMIT, |line| line.contains("sync finished"))
        .expect("the first sync");
    for (args, said) in [
        (&["check", "acme"][..], "20 users"),
        (&["sync", "acme"], "acme"),
        (&["check", "--offline"], "1 instance in order"),
        (&["config"], "{ credential = \"acme\" }"),
    ] {
        let ran = scene.home.run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran}");
        assert!(ran.stdout.contains(said), "{args:?}: {ran}");
    }
    let ran = scene.link_another();
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("has taken it up"), "{ran}");
    for name in ["globex", "acme"] {
        let ran = scene.home.run(&["unlink", name]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(ran.stdout.contains("has stopped syncing it"), "{ran}");
    }
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
}

#[test]
fn without_the_daemon_check_says_what_is_missing_and_how_to_have_it() {
    let scene = Scene::new();
    let ran = scene.home.run(&["check", "acme"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    for said in ["the credential `acme` is not here", "systemd-run"] {
        assert!(ran.stdout.contains(said), "{said}: {ran}");
    }
    assert_eq!(scene.served.sandbox.requests().len(), 0, "nothing is sent");
    // Handed the credential, it is like any other.
    let ran = scene.in_the_unit(&["check", "acme"]).finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");

    // Whoever would write something is refused before, and so is the daemon.
    for args in [&["sync"][..], &["sync", "--dry-run"], &["run"]] {
        let ran = scene.home.run(args);
        assert_eq!(ran.code, Some(78), "{args:?}: {ran}");
        let said = "the credential `acme` is not here";
        assert!(ran.stderr.contains(said), "{args:?}: {ran}");
        assert!(!scene.home.mirror_path().exists(), "{args:?}");
    }
    std::fs::remove_file(scene.folder.path().join("acme")).unwrap();
    let ran = scene.in_the_unit(&["run"]).finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(78), "{ran}");
    assert!(ran.stderr.contains("client_secret.credential"), "{ran}");

    // Linking another one, and taking one out, asks for none.
    let ran = scene.link_another();
    assert_eq!(ran.code, Some(0), "{ran}");
    std::fs::remove_file(scene.home.path().join("secrets/globex")).unwrap();
    for name in ["acme", "globex"] {
        let ran = scene.home.run(&["unlink", name]);
        assert_eq!(ran.code, Some(0), "{ran}");
    }
}
