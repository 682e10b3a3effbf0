//! The Debian package: built from the binary at hand, looked into, and then installed, upgraded, removed and purged
//! below a folder, as dpkg does it for a system that is not booted. Where a program for that is missing, or root's
//! rights, a test says so and ends; with `MUSTERD_REQUIRE_PACKAGE=1` that is a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::BINARY;

#[test]
fn the_package_holds_all_that_an_installation_needs() {
    let Some(package) = package() else { return };
    let listed = run(Command::new("dpkg-deb").arg("--contents").arg(package));
    let mut files: Vec<String> = listed
        .lines()
        .filter(|line| !line.starts_with('d'))
        .map(|line| {
            let [mode, owner, _, _, _, path] = line.split_whitespace().collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            format!("{mode} {owner} {path}")
        })
        .collect();
    files.sort_by(|a, b| a.split(' ').next_back().cmp(&b.split(' ').next_back()));
    insta::assert_snapshot!(files.join("\n"), @"
    -rwxr-xr-x 0/0 ./usr/bin/musterd
    -rw-r--r-- 0/0 ./usr/lib/systemd/system/musterd.service
    -rw-r--r-- 0/0 ./usr/lib/sysusers.d/musterd.conf
    -rw-r--r-- 0/0 ./usr/lib/tmpfiles.d/musterd.conf
    -rw-r--r-- 0/0 ./usr/share/bash-completion/completions/musterd
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/NOTICES.gz
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/README.md
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/SECURITY.md
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/changelog.Debian.gz
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/config/alerts.yml
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/config/default.toml
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/config/grafana.json
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/config/minimal.toml
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/copyright
    -rw-r--r-- 0/0 ./usr/share/doc/musterd/musterd.cdx.json
    -rw-r--r-- 0/0 ./usr/share/fish/vendor_completions.d/musterd.fish
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-backup.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-chain.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-changes.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-check.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-completions.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-config.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-demo.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-group.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-groups.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-holds-approve.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-holds-list.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-holds-show.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-holds.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-link.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-map-export.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-map-import.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-map-list.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-map-pin.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-map-unpin.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-map.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-relink.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-rename.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-restore.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-run.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-sandbox.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-status.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-sync.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-unlink.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-user.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-verify.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd-wait.1.gz
    -rw-r--r-- 0/0 ./usr/share/man/man1/musterd.1.gz
    -rw-r--r-- 0/0 ./usr/share/zsh/vendor-completions/_musterd
    ");

    let field = |name| {
        run(Command::new("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg(name))
    };
    let depends = field("Depends");
    for needed in ["ca-certificates", "libc6 (>= ", "procps", "systemd | "] {
        assert!(depends.contains(needed), "{depends}");
    }
    let version = field("Version");
    assert!(version.starts_with(env!("CARGO_PKG_VERSION")), "{version}");
    let changes = document(package, "changelog.Debian.gz");
    let first = format!("musterd ({}) ", version.trim());
    assert!(changes.starts_with(&first), "{changes}");
}

#[test]
fn the_bill_of_materials_is_that_of_the_lock_file() {
    let Some(package) = package() else { return };
    let text = document(package, "musterd.cdx.json");
    assert_says_nothing_of_this_machine(&text);
    let bill: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(bill["bomFormat"], "CycloneDX");
    assert_eq!(bill["metadata"]["component"]["name"], "musterd");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(bill["metadata"]["component"]["version"], version);

    // Nothing in it is drawn by lot or comes from the clock: its date is that of the release.
    assert!(bill.get("serialNumber").is_none());
    let mut lines = include_str!("../../systemd/debian/changelog").lines();
    let date = lines.find(|line| line.starts_with(" -- ")).unwrap();
    let date = jiff::fmt::rfc2822::parse(date.split_once(">  ").unwrap().1).unwrap();
    let told: jiff::Timestamp = bill["metadata"]["timestamp"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(told, date.timestamp());

    let lock: toml::Value = include_str!("../../Cargo.lock")
        .parse::<toml::Table>()
        .unwrap()
        .into();
    let checksums: BTreeMap<String, &str> = lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| {
            let text = |key| package.get(key)?.as_str();
            let name = format!("{}-{}", text("name")?, text("version")?);
            Some((name, text("checksum")?))
        })
        .collect();
    let mut named = BTreeSet::new();
    for component in bill["components"].as_array().unwrap() {
        let text = |key: &str| component[key].as_str().unwrap();
        let (name, version) = (text("name"), text("version"));
        let crate_name = format!("{name}-{version}");
        let checksum = checksums.get(&crate_name).copied();
        assert_eq!(
            component["hashes"][0]["content"].as_str(),
            checksum,
            "{crate_name}"
        );
        assert_eq!(text("purl"), format!("pkg:cargo/{name}@{version}"));
        assert!(
            text("bom-ref").starts_with("registry+https://github.com/rust-lang/crates.io-index#")
        );
        assert!(
            component["licenses"][0]["expression"].is_string(),
            "{crate_name}"
        );
        named.insert(crate_name);
    }
    let linked = linked();
    let missing: Vec<_> = linked.difference(&named).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_licences_of_what_is_linked_in_go_with_it() {
    let Some(package) = package() else { return };
    let notices = document(package, "NOTICES.gz");
    assert_says_nothing_of_this_machine(&notices);
    let (list, texts) = notices.split_once("\n\n---").unwrap();
    let (_, list) = list.split_once("\n\n").unwrap();
    let listed: BTreeSet<String> = list
        .lines()
        .map(|line| line.split_once(' ').unwrap().0.to_owned())
        .collect();
    assert_eq!(listed, linked());
    let with_text: BTreeSet<&str> = texts.lines().collect();
    let without: Vec<_> = listed
        .iter()
        .filter(|name| !with_text.contains(name.as_str()))
        .collect();
    assert!(without.is_empty(), "{without:?}");
    assert!(texts.contains("Copyright"), "no text names an owner");
}

/// NAME-VERSION of each crate that is linked into the program.
fn linked() -> BTreeSet<String> {
    let tree = run(Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--quiet",
            "--edges=normal,no-proc-macro",
        ])
        .args(["--prefix=none", "--no-dedupe", "--format={p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR")));
    let names = tree.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        format!("{}-{}", words[0], words[1].trim_start_matches('v'))
    });
    let linked: BTreeSet<String> = names.filter(|name| !name.starts_with("musterd-")).collect();
    assert!(
        linked
            .iter()
            .any(|name| name.starts_with("libsqlite3-sys-")),
        "{tree}"
    );
    linked
}

/// Nobody is told where it was built.
#[track_caller]
fn assert_says_nothing_of_this_machine(text: &str) {
    for place in [
        env!("CARGO_MANIFEST_DIR"),
        "file:",
        "/.cargo/",
        "/registry/src/",
    ] {
        let line = text.lines().find(|line| line.contains(place));
        assert_eq!(line, None, "{place}");
    }
}

/// The text of a file in `/usr/share/doc/musterd`.
fn document(package: &Path, name: &str) -> String {
    let folder = TempDir::new().unwrap();
    run(Command::new("dpkg-deb")
        .arg("--extract")
        .args([package, folder.path()]));
    let file = folder.path().join("usr/share/doc/musterd").join(name);
    if file.extension().is_some_and(|kind| kind == "gz") {
        return run(Command::new("gzip").arg("-dc").arg(file));
    }
    fs::read_to_string(file).unwrap()
}

#[test]
fn nothing_is_started_before_it_is_configured_and_the_mirror_outlives_a_purge() {
    let Some(package) = package() else { return };
    let host = Host::new(true);
    host.dpkg(&["--install", package.to_str().unwrap()]);
    assert_eq!(host.calls(), ["daemon-reload"]);
    assert!(!host.path("etc/systemd").exists(), "it is enabled");
    let group = host.stat("var/lib/musterd").2;
    assert!(
        fs::read_to_string(host.path("etc/passwd"))
            .unwrap()
            .contains(&format!(":{group}:musterd directory mirror:"))
    );
    for (path, mode, user) in [
        ("var/lib/musterd", 0o750, group),
        ("etc/musterd", 0o750, 0),
        ("etc/musterd/instances.d", 0o750, 0),
        ("etc/musterd/secrets", 0o700, group),
    ] {
        assert_eq!(host.stat(path), (mode, user, group), "{path}");
    }
    host.works();

    // What an operator and the daemon write.
    let kept = [
        ("etc/musterd/musterd.toml", "[log]\n"),
        ("etc/musterd/instances.d/acme.toml", "url = \"…\"\n"),
        ("etc/musterd/secrets/acme", "secret"),
        ("var/lib/musterd/mirror.db", "a mirror"),
    ];
    for (path, text) in kept {
        fs::write(host.path(path), text).unwrap();
    }
    let assert_kept = |when: &str| {
        for (path, text) in kept {
            let now = fs::read_to_string(host.path(path)).ok();
            assert_eq!(now.as_deref(), Some(text), "{path} {when}");
        }
    };

    let newer = newer(package, &host.folder);
    for (package, when) in [
        (package, "after it was installed again"),
        (&newer, "after an upgrade"),
    ] {
        host.dpkg(&["--install", package.to_str().unwrap()]);
        assert_eq!(
            host.calls(),
            ["daemon-reload", "try-restart musterd.service"],
            "{when}"
        );
        assert_kept(when);
        host.works();
    }

    let enabled = host.enable();
    host.dpkg(&["--remove", "musterd"]);
    assert_eq!(host.calls(), ["stop musterd.service", "daemon-reload"]);
    assert_kept("after a removal");
    assert!(!enabled.is_symlink(), "it is still enabled");
    assert!(!host.path("usr/bin/musterd").exists());
    assert!(!host.path("usr/lib/systemd/system/musterd.service").exists());

    let said = host.dpkg(&["--purge", "musterd"]);
    assert!(said.contains("rm -r /var/lib/musterd"), "{said}");
    assert_eq!(host.calls(), [""; 0]);
    assert!(!host.path("etc/musterd").exists(), "secrets are left");
    let mirror = fs::read_to_string(host.path("var/lib/musterd/mirror.db"));
    assert_eq!(mirror.unwrap(), "a mirror");
}

#[test]
fn where_systemd_does_not_run_it_is_not_called() {
    let Some(package) = package() else { return };
    let host = Host::new(false);
    for _ in 0..2 {
        host.dpkg(&["--install", package.to_str().unwrap()]);
    }
    let enabled = host.enable();
    host.dpkg(&["--remove", "musterd"]);
    assert!(!enabled.is_symlink(), "it is still enabled");
    let said = host.dpkg(&["--purge", "musterd"]);
    assert_eq!(host.calls(), [""; 0]);
    // Nothing was ever in them.
    assert!(!host.path("var/lib/musterd").exists());
    assert!(!host.path("etc/musterd").exists());
    assert!(!said.contains("stays"), "{said}");
}

/// The root of a system with no more in it than the package and the checks need, and a `systemctl` that writes down
/// how it is called.
struct Host {
    folder: TempDir,
}

impl Host {
    fn new(is_booted: bool) -> Self {
        let host = Self {
            folder: TempDir::new().unwrap(),
        };
        for folder in ["etc", "var/lib/dpkg", "usr/bin", "usr/lib/systemd/system"] {
            fs::create_dir_all(host.path(folder)).unwrap();
        }
        symlink("usr/bin", host.path("bin")).unwrap();
        fs::write(host.path("var/lib/dpkg/status"), "").unwrap();
        // What the unit names.
        fs::copy("/bin/kill", host.path("bin/kill")).unwrap();
        let sysinit = host.path("usr/lib/systemd/system/sysinit.target");
        fs::write(sysinit, "[Unit]\nDescription=Start of the system\n").unwrap();
        if is_booted {
            fs::create_dir_all(host.path("run/systemd/system")).unwrap();
        }
        fs::create_dir(host.path("programs")).unwrap();
        let systemctl = host.path("programs/systemctl");
        fs::write(&systemctl, "#!/bin/sh\necho \"$@\" >> \"${0%/*}/called\"\n").unwrap();
        fs::set_permissions(&systemctl, PermissionsExt::from_mode(0o755)).unwrap();
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Mode, user and group.
    fn stat(&self, path: &str) -> (u32, u32, u32) {
        let found = fs::metadata(self.path(path)).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid())
    }

    /// Scripts run outside of the folder, as they do where a system is put together for another machine.
    fn dpkg(&self, args: &[&str]) -> String {
        let path = std::env::var("PATH").unwrap();
        run(Command::new("dpkg")
            .arg(format!("--root={}", self.folder.path().display()))
            .args(["--force-script-chrootless", "--force-depends"])
            .args(args)
            .env(
                "PATH",
                format!("{}:{path}", self.path("programs").display()),
            ))
    }

    /// Does what `systemctl enable` does, and returns the link that it makes.
    fn enable(&self) -> PathBuf {
        let link = self.path("etc/systemd/system/multi-user.target.wants/musterd.service");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink("/usr/lib/systemd/system/musterd.service", &link).unwrap();
        link
    }

    /// How `systemctl` was called since this was asked last.
    fn calls(&self) -> Vec<String> {
        let file = self.path("programs/called");
        let calls = fs::read_to_string(&file).unwrap_or_default();
        if !calls.is_empty() {
            fs::remove_file(file).unwrap();
        }
        calls.lines().map(String::from).collect()
    }

    /// What is installed is sound.
    fn works(&self) {
        let root = self.folder.path().display();
        let told = run(Command::new("systemd-analyze")
            .args(["verify", "--man=no", "musterd.service"])
            .arg(format!("--root={root}")));
        assert_eq!(told, "");
        let version = run(Command::new(self.path("usr/bin/musterd")).arg("--version"));
        assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
        let page = self.path("usr/share/man/man1/musterd.1.gz");
        let page = run(Command::new("gzip").arg("-dc").arg(page));
        assert!(page.contains(".SH FILES"), "{page}");
        let script = self.path("usr/share/bash-completion/completions/musterd");
        let completes = run(Command::new("bash")
            .args(["-c", "source \"$0\" && complete -p musterd"])
            .arg(script));
        assert!(completes.contains("_musterd"), "{completes}");
    }
}

/// The package, built once; `None` where that cannot be, and why is said.
fn package() -> Option<&'static Path> {
    static PACKAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PACKAGE.get_or_init(build) {
        Ok(file) => Some(file),
        Err(why) => {
            assert!(
                std::env::var_os("MUSTERD_REQUIRE_PACKAGE").is_none_or(|value| value != "1"),
                "{why}, and MUSTERD_REQUIRE_PACKAGE=1 is set"
            );
            eprintln!("skipped: {why}");
            None
        }
    }
}

/// # Errors
/// What it lacks.
fn build() -> Result<PathBuf, String> {
    for program in [
        "dpkg",
        "dpkg-deb",
        "dpkg-shlibdeps",
        "strip",
        "dpkg-parsechangelog",
        "cargo-deb",
        "cargo-cyclonedx",
        "systemd-analyze",
        "systemd-sysusers",
        "systemd-tmpfiles",
    ] {
        if Command::new(program).arg("--version").output().is_err() {
            return Err(format!("`{program}` is not installed"));
        }
    }
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Err("only root can give files to other accounts".to_owned());
    }

    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    run(Command::new(tree.join("systemd/share")).arg(BINARY));
    // Where a release would be built: the binary at hand is as good, and here already.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("package");
    fs::create_dir_all(target.join("release")).unwrap();
    fs::copy(BINARY, target.join("release/musterd")).unwrap();
    let file = target.join("musterd.deb");
    run(Command::new(env!("CARGO"))
        .args(["deb", "--locked", "--no-build", "--strip", "--fast"])
        .arg("--output")
        .arg(&file)
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(tree));
    Ok(file)
}

/// The same with a higher version.
fn newer(package: &Path, folder: &TempDir) -> PathBuf {
    let content = folder.path().join("content");
    run(Command::new("dpkg-deb")
        .arg("--raw-extract")
        .arg(package)
        .arg(&content));
    let control = content.join("DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let (before, after) = text.split_once("\nVersion: ").unwrap();
    fs::write(&control, format!("{before}\nVersion: 9.{after}")).unwrap();
    let file = folder.path().join("newer.deb");
    run(Command::new("dpkg-deb")
        .args(["-Znone", "--build"])
        .args([&content, &file]));
    fs::remove_dir_all(content).unwrap();
    file
}

/// What a command says on both streams; it must succeed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    assert!(status.success(), "{command:?}: {told}");
    told
}
