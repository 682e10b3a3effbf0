//! Who may do what with the files of a mirror, tried by real accounts (promise P12, threats T21 and T23): the daemon's, a
//! reader's, who is in its group and writes nowhere, and a stranger's; and what root makes for the daemon (threat T31). Only root can
//! become them.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use musterd::sandbox::{Effect, Fault, RequestKind};

use crate::crash::traced;
use crate::harness::served::Served;
use crate::harness::{BINARY, Ran, Running, TIME_LIMIT};

/// An account: its user and its only group. They need no names.
type Account = (u32, u32);

const DAEMON: Account = (61_001, 61_001);
const READER: Account = (61_002, 61_001);
const STRANGER: Account = (61_003, 61_003);

const USERS: usize = 24;

/// The folders of an installation, and the instance that is mirrored.
struct Host {
    folder: tempfile::TempDir,
    served: Served,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            folder: tempfile::tempdir().unwrap(),
            served: Served::of(USERS),
        };
        let rules = host.served.sandbox.auth();
        let url = &host.served.url;
        let text = format!(
            "[mirror]\npath = {:?}\n[log]\nlevel = \"info\"\nformat = \"text\"\n[instances.acme]\nurl = {url:?}\n\
             page_size = 2\nrate = {{ per_second = 1000, burst = 1000 }}\n\
             auth = {{ type = \"client_credentials\", client_id = {:?}, client_secret = {{ file = {:?} }} }}\n",
            host.mirror(),
            rules.client_id,
            host.path("secret"),
        );
        // As `systemd/musterd.tmpfiles.conf` makes them.
        host.make(".", 0o755, (0, 0), None);
        host.make("state", 0o750, DAEMON, None);
        host.make("musterd.toml", 0o640, (0, DAEMON.1), Some(&text));
        host.make("secret", 0o600, DAEMON, Some(&rules.client_secret));
        // By a process of its own: a child that another test starts meanwhile would inherit the open file, and what is open for
        // writing cannot be run.
        let mut copy = Command::new("cp");
        copy.arg(BINARY).arg(host.path("musterd"));
        assert!(copy.status().unwrap().success());
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn mirror(&self) -> PathBuf {
        self.path("state/mirror.db")
    }

    fn make(&self, name: &str, mode: u32, owner: Account, text: Option<&str>) {
        let path = self.path(name);
        match text {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::create_dir_all(&path).unwrap(),
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        chown(&path, Some(owner.0), Some(owner.1)).unwrap();
    }

    fn command(&self, account: Account, program: &Path, args: &[&str]) -> Running {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir("/")
            .env("MUSTERD_CONFIG", self.path("musterd.toml"))
            .env("HOME", "/nonexistent")
            .uid(account.0)
            .gid(account.1);
        Running::start(command)
    }

    fn run(&self, account: Account, program: &str, args: &[&str]) -> Ran {
        let program = match program {
            "musterd" => self.path("musterd"),
            program => PathBuf::from(program),
        };
        self.command(account, &program, args).finish(TIME_LIMIT)
    }

    /// A daemon that has said so much.
    fn daemon(&self, said: &str) -> Running {
        let mut daemon = self.command(DAEMON, &self.path("musterd"), &["run"]);
        daemon
            .wait_for(TIME_LIMIT, |line| line.contains(said))
            .expect("it runs");
        daemon
    }

    /// What an account reads of the mirror, in three ways; each must be the number of users, or refused.
    fn assert_reads(&self, account: Account, may: bool, when: &str) {
        let mirror = self.mirror();
        let mirror = mirror.to_str().unwrap();
        let uri = format!("file:{mirror}?mode=ro");
        let count = "SELECT count(*) FROM users";
        let python = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1], uri=True)\
                      .execute(sys.argv[2]).fetchone()[0])";
        for (program, args, said) in [
            ("sqlite3", vec![&*uri, count], USERS.to_string()),
            (
                "python3",
                vec!["-c", python, &uri, count],
                USERS.to_string(),
            ),
            (
                "musterd",
                vec!["status", "--json", "--mirror", mirror],
                format!("\"users\":{USERS}"),
            ),
        ] {
            let ran = self.run(account, program, &args);
            let has_read = ran.stdout.contains(&said);
            assert_eq!(has_read, may, "{account:?} by {program} {when}: {ran}");
        }
    }
}

/// Whether this process may become others; where not, the reason is printed, and `MUSTERD_REQUIRE_ROOT=1` makes that a failure.
fn may_become_others() -> bool {
    let own = Path::new("/proc/self").metadata().unwrap().uid();
    let is_needed = std::env::var_os("MUSTERD_REQUIRE_ROOT").is_some_and(|value| value == "1");
    assert!(own == 0 || !is_needed, "only root becomes other accounts");
    if own != 0 {
        eprintln!("not run: only root becomes other accounts");
    }
    own == 0
}

#[test]
fn readers_read_at_any_time_write_nowhere_and_strangers_see_nothing() {
    if !may_become_others() {
        return;
    }
    let host = Host::new();
    let daemon = host.daemon("sync finished");
    host.assert_reads(READER, true, "while it runs");
    host.assert_reads(STRANGER, false, "while it runs");

    // While a full sync is under way, with its stage beside the mirror.
    host.served.sandbox.add_fault(
        Fault::new(Effect::Slow { ms: 300 })
            .named("slow")
            .on(&[RequestKind::List]),
    );
    let sync = host.command(DAEMON, &host.path("musterd"), &["sync", "--mode", "full"]);
    host.assert_reads(READER, true, "during a sync");
    let beside = |suffix: &str| host.path(&format!("state/mirror.db{suffix}"));
    let until = tokio::time::Instant::now() + TIME_LIMIT;
    while !beside(".stage-acme-full").exists() {
        assert!(tokio::time::Instant::now() < until, "no sync is under way");
        std::thread::yield_now();
    }
    for (path, readable) in [
        (host.mirror(), true),
        (beside("-wal"), true),
        (beside("-shm"), true),
        (beside(".lock"), false),
        (beside(".stage-acme-full"), false),
        (host.path("musterd.toml"), true),
        (host.path("secret"), false),
    ] {
        for (account, may) in [(READER, readable), (STRANGER, false)] {
            let path = path.to_str().unwrap();
            let ran = host.run(account, "head", &["-c", "0", path]);
            assert_eq!(ran.code == Some(0), may, "{account:?} reads {path}: {ran}");
            let ran = host.run(account, "sh", &["-c", ": >> \"$0\"", path]);
            assert_ne!(ran.code, Some(0), "{account:?} writes {path}");
            let ran = host.run(account, "rm", &["-f", path]);
            assert_ne!(ran.code, Some(0), "{account:?} removes {path}");
        }
    }
    // The daemon has read its own file meanwhile, for this sync. A shell of its account that closes the mirror is not the last one,
    // and leaves the log where it is.
    let log = || beside("-wal").metadata().unwrap().ino();
    let before = log();
    let ran = host.run(
        DAEMON,
        "sqlite3",
        &[
            host.mirror().to_str().unwrap(),
            "SELECT count(*) FROM users",
        ],
    );
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(log(), before);
    host.served.sandbox.remove_fault("slow");
    let ran = sync.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(0), "{ran}");

    // What only the daemon's account may ask for, a reader may not.
    let ran = host.run(READER, "musterd", &["sync", "--mode", "full"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    let path = host.mirror();
    for statement in [
        "DELETE FROM users",
        "UPDATE feed SET last_seq = 0",
        "DROP TABLE users",
    ] {
        let ran = host.run(READER, "sqlite3", &[path.to_str().unwrap(), statement]);
        assert_ne!(ran.code, Some(0), "{statement}: {ran}");
    }

    daemon.kill();
    assert_eq!(daemon.finish(TIME_LIMIT).code, None);
    host.assert_reads(READER, true, "after it was killed");
    // The index of the log is in nobody's memory after a reboot, and is never written to the disk on purpose.
    std::fs::write(beside("-shm"), "").unwrap();
    host.assert_reads(READER, true, "after a reboot");
    let daemon = host.daemon("started");
    daemon.terminate();
    assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
    host.assert_reads(READER, true, "while it is stopped");
    host.assert_reads(STRANGER, false, "while it is stopped");
    let ran = host.run(DAEMON, "musterd", &["verify"]);
    assert_eq!(ran.code, Some(0), "{ran}");
}

/// Root writes where the daemon's account may put what it likes: nothing of that is followed.
#[test]
fn what_root_links_is_the_daemons_and_no_link_leads_it_elsewhere() {
    if !may_become_others() || !traced::is_possible() {
        return;
    }
    let host = Host::new();
    let readable = (0, DAEMON.1);
    host.make(".", 0o750, readable, None);
    host.make("instances.d", 0o750, readable, None);
    host.make("secrets", 0o700, DAEMON, None);
    host.make("roots", 0o600, (0, 0), Some("root's own"));
    host.make("stdin", 0o600, (0, 0), Some("the-new-secret"));
    let link = || {
        let log = host.path("strace.log");
        let line = format!(
            "umask 077; exec strace -f -qq -o {log:?} -e trace=?chown,?lchown,fchown,fchownat,?chmod,fchmodat \
             {:?} link globex https://globex.service-now.com --auth bearer --no-check < {:?}",
            host.path("musterd"),
            host.path("stdin")
        );
        let ran = host.run((0, 0), "sh", &["-c", &line]);
        (ran, std::fs::read_to_string(log).unwrap())
    };

    let secret = host.path("secrets/globex");
    std::os::unix::fs::symlink(host.path("roots"), &secret).unwrap();
    let (ran, _) = link();
    assert_eq!(ran.code, Some(1), "{ran}");
    let found = host.path("roots").metadata().unwrap();
    assert_eq!((found.uid(), found.gid(), found.len()), (0, 0, 10));
    std::fs::remove_file(&secret).unwrap();

    // What was opened is given away, and nothing by its name: that may be a link by then.
    let (ran, calls) = link();
    assert_eq!(ran.code, Some(0), "{ran}");
    let is_call = |line: &&str| line.contains("chown") || line.contains("chmod");
    let calls: Vec<&str> = calls.lines().filter(is_call).collect();
    assert!(!calls.is_empty());
    for call in calls {
        assert!(call.contains(" fchown("), "{call}");
    }
    for (path, mode, owner) in [
        (secret, 0o600, DAEMON),
        (host.path("instances.d/globex.toml"), 0o640, readable),
    ] {
        let found = path.metadata().unwrap();
        let has = (found.mode() & 0o777, (found.uid(), found.gid()));
        assert_eq!(has, (mode, owner), "{}", path.display());
    }
    // Nor does root make a mirror that the daemon could not open, whatever the daemon does meanwhile.
    for args in [&["sync"][..], &["check"], &["sync", "--dry-run"]] {
        let ran = host.run((0, 0), "musterd", args);
        assert_eq!(ran.code, Some(1), "{ran}");
        assert!(ran.stderr.contains("`sudo -u`"), "{ran}");
    }
    assert_eq!(host.path("state").read_dir().unwrap().count(), 0);
    let ran = host.run(DAEMON, "musterd", &["check", "--offline"]);
    assert!(ran.stdout.contains("2 instances in order"), "{ran}");
}
