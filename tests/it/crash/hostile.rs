//! Surroundings that work against the mirror: it is refused with a word on what to do, what is not ours is
//! left as it is, and once it is mended the next sync works.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use musterd::mirror::lock::Lock;
use musterd::sandbox::{Column, RequestKind, Values};
use rusqlite::Connection;

use super::source::Source;
use super::workplace;
use crate::harness::{BINARY, Home, Ran, Running, TIME_LIMIT};

/// An incremental sync every second.
const EVERY_SECOND: &str = "schedule = { incremental = \"* * * * * *\", full = \"0 0 0 1 1 *\", \
     splay = { incremental = \"0s\", full = \"0s\" } }";

/// A mirror with a baseline, and what it mirrors.
fn mirrored() -> (Source, Home) {
    let source = Source::start(25);
    let home = Home::new_in(&workplace(), &[source.instance(EVERY_SECOND)]);
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    (source, home)
}

/// It works again, and what changed meanwhile is there.
fn assert_mended(source: &Source, home: &Home) {
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    source.assert_mirrored_in(home);
    home.verify();
}

fn assert_refused(ran: &Ran, said: &[&str]) {
    assert_eq!(ran.code, Some(1), "{ran}");
    for said in said {
        assert!(ran.stderr.contains(said), "`{said}`: {ran}");
    }
    assert!(!ran.stderr.contains("panicked"), "{ran}");
}

fn promote(source: &Source) {
    let id = &source.active_ids()[3];
    source.pass(60);
    let values = Values::new().with(Column::Title, "Astronaut");
    assert!(source.sandbox.update(id, &values));
}

fn beside(home: &Home, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", home.mirror_path().display()))
}

/// The mirror itself and its log, byte for byte.
fn bytes(home: &Home) -> [Option<Vec<u8>>; 2] {
    [home.mirror_path(), beside(home, "-wal")].map(|file| std::fs::read(file).ok())
}

/// Runs the program without the right of `root` to overlook modes; `None` where that cannot be done.
fn run_without_privilege(home: &Home, args: &[&str]) -> Option<Ran> {
    if Path::new("/proc/self").metadata().unwrap().uid() != 0 {
        return Some(home.run(args));
    }
    if Command::new("setpriv").arg("--version").output().is_err() {
        eprintln!("not run: there is no `setpriv`");
        return None;
    }
    let mut command = home.command("setpriv");
    command
        .args(["--bounding-set", "-dac_override,-dac_read_search"])
        .arg(BINARY)
        .args(args);
    Some(Running::start(command).finish(TIME_LIMIT))
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_read_only_folder() {
    let source = Source::start(25);
    let home = Home::new_in(&workplace(), &[source.instance(EVERY_SECOND)]);
    // Nothing is there yet, and then everything is.
    for is_new in [true, false] {
        set_mode(home.path(), 0o555);
        for args in [&["sync", "--mode", "full"][..], &["run"]] {
            // With a mirror that it may write the daemon runs on, and says why nothing is synced.
            if args == ["run"] && !is_new {
                continue;
            }
            let Some(ran) = run_without_privilege(&home, args) else {
                return set_mode(home.path(), 0o755);
            };
            let path = home.mirror_path();
            assert_refused(
                &ran,
                &[
                    path.to_str().unwrap(),
                    "Permission denied",
                    "may not be written",
                ],
            );
        }
        set_mode(home.path(), 0o755);
        assert_mended(&source, &home);
        promote(&source);
    }
}

#[test]
fn read_only_files() {
    let (source, home) = mirrored();
    promote(&source);
    let files = ["", "-wal", "-shm"].map(|suffix| beside(&home, suffix));
    for file in &files {
        set_mode(file, 0o440);
    }
    let before = bytes(&home);
    let Some(ran) = run_without_privilege(&home, &["sync", "--mode", "full"]) else {
        return;
    };
    assert_refused(&ran, &["may not be written"]);
    assert_eq!(bytes(&home), before);
    for file in &files {
        set_mode(file, 0o640);
    }
    assert_mended(&source, &home);
}

#[test]
fn damaged_files() {
    let (source, home) = mirrored();
    promote(&source);
    let sound = std::fs::read(home.mirror_path()).unwrap();
    let page = 8_192;
    let mut lot = fastrand::Rng::with_seed(7);
    let mut noise = vec![0; page];
    lot.fill(&mut noise);
    let with = |at: usize, piece: &[u8]| {
        let mut damaged = sound.clone();
        damaged[at..at + piece.len()].copy_from_slice(piece);
        damaged
    };
    let kinds: [(&str, Vec<u8>); 7] = [
        (
            "truncated within a page",
            sound[..sound.len() / 2 + 99].to_vec(),
        ),
        ("truncated to one page", sound[..page].to_vec()),
        ("header overwritten", with(0, &noise[..100])),
        (
            "first page overwritten behind its header",
            with(100, &noise[100..]),
        ),
        (
            "first page of zeros behind its header",
            with(100, &vec![0; page - 100]),
        ),
        (
            "all but the first page of zeros",
            with(page, &vec![0; sound.len() - page]),
        ),
        ("all but the first page of noise", {
            let mut damaged = sound.clone();
            lot.fill(&mut damaged[page..]);
            damaged
        }),
    ];
    for (kind, damaged) in &kinds {
        std::fs::write(home.mirror_path(), damaged).unwrap();
        for args in [&["sync", "--mode", "full"][..], &["verify"], &["run"]] {
            let ran = home.run(args);
            assert_eq!(ran.code, Some(1), "{kind}: {args:?}: {ran}");
            assert!(!ran.stderr.contains("panicked"), "{kind}: {ran}");
            let to_do = ["keep the file", "is not a mirror of musterd"];
            assert!(
                to_do.iter().any(|to_do| ran.stderr.contains(to_do)),
                "{kind}: {args:?}: {ran}"
            );
        }
        // A backup is put back, with nothing of the damaged one beside it.
        for suffix in ["-wal", "-shm"] {
            std::fs::remove_file(beside(&home, suffix)).unwrap_or_default();
        }
        std::fs::write(home.mirror_path(), &sound).unwrap();
    }
    assert_mended(&source, &home);
}

/// One page of many: what does not meet it may go on, `verify` names it.
#[test]
fn one_page_of_zeros() {
    let (source, home) = mirrored();
    let sound = std::fs::read(home.mirror_path()).unwrap();
    let page = 8_192;
    for n in (1..sound.len() / page).filter(|n| {
        sound[n * page..(n + 1) * page]
            .iter()
            .any(|byte| *byte != 0)
    }) {
        let mut damaged = sound.clone();
        damaged[n * page..(n + 1) * page].fill(0);
        std::fs::write(home.mirror_path(), damaged).unwrap();
        let ran = home.run(&["verify"]);
        assert_eq!(ran.code, Some(1), "page {n}: {ran}");
        assert!(ran.stderr.contains("keep the file"), "page {n}: {ran}");
    }
    std::fs::write(home.mirror_path(), &sound).unwrap();
    assert_mended(&source, &home);
}

#[test]
fn files_that_are_not_ours() {
    let (source, home) = mirrored();
    let ours = std::fs::read(home.mirror_path()).unwrap();
    let foreign = {
        let path = home.path().join("foreign.db");
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA application_id = 77; CREATE TABLE tickets (id)")
            .unwrap();
        drop(conn);
        std::fs::read(path).unwrap()
    };
    let newer = {
        let mut newer = ours.clone();
        // `user_version`, in SQLite's header.
        newer[60..64].copy_from_slice(&99_u32.to_be_bytes());
        newer
    };
    for (content, said) in [
        (Vec::new(), "it is empty"),
        (foreign, "another program"),
        (newer, "upgrade musterd"),
        (b"name,title\nAda,Countess\n".to_vec(), "no SQLite database"),
    ] {
        for suffix in ["-wal", "-shm"] {
            std::fs::remove_file(beside(&home, suffix)).unwrap_or_default();
        }
        std::fs::write(home.mirror_path(), &content).unwrap();
        let before = bytes(&home);
        for args in [
            &["sync"][..],
            &["run"],
            &["verify"],
            &["status"],
            &["relink", "acme"],
        ] {
            let ran = home.run(args);
            assert_refused(
                &ran,
                &[said, "untouched", home.mirror_path().to_str().unwrap()],
            );
            assert_eq!(bytes(&home), before, "{args:?}");
        }
    }
    std::fs::write(home.mirror_path(), ours).unwrap();
    assert_mended(&source, &home);
}

#[test]
fn a_lock_that_another_process_holds() {
    let (source, home) = mirrored();
    promote(&source);
    let before = bytes(&home);
    let lock = Lock::take(&home.mirror_path()).unwrap();
    for args in [&["sync"][..], &["run"]] {
        assert_refused(&home.run(args), &["another process", "mirror.db"]);
    }
    assert_eq!(bytes(&home), before);
    // Who only reads does not care.
    home.verify();
    drop(lock);
    assert_mended(&source, &home);
}

/// Somebody has opened the mirror in a read-write shell and left a transaction open.
#[test]
fn a_transaction_that_another_program_keeps_open() {
    let (source, home) = mirrored();
    promote(&source);
    let shell = Connection::open(home.mirror_path()).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ran = home.sync("full");
    assert_refused(&ran, &["database is locked", "end it"]);
    shell.execute_batch("ROLLBACK").unwrap();
    assert_mended(&source, &home);
}

/// The daemon runs, and one of its three files goes or is another: it must not write on.
#[test]
fn files_that_are_taken_from_under_the_daemon() {
    for suffix in ["", "-wal", "-shm"] {
        for is_replaced in [false, true] {
            let (source, home) = mirrored();
            let mut daemon = home.start(&["run"]);
            daemon
                .wait_for(TIME_LIMIT, |line| line.contains("\"started\""))
                .unwrap();
            let file = beside(&home, suffix);
            let content = std::fs::read(&file).unwrap();
            let aside = home.path().join("aside");
            std::fs::rename(&file, &aside).unwrap();
            if is_replaced {
                std::fs::write(&file, &content).unwrap();
            }
            promote(&source);
            let ran = daemon.finish(TIME_LIMIT);
            let what = format!("`{}` was replaced or deleted", file.display());
            assert_refused(&ran, &[&what, "restart musterd"]);
            if is_replaced && suffix.is_empty() {
                assert_eq!(std::fs::read(&file).unwrap(), content, "it is not written");
            }
            if suffix.is_empty() {
                std::fs::rename(&aside, &file).unwrap();
            }
            assert_mended(&source, &home);
        }
    }
}

/// As a read-write shell leaves it, which removes both when it closes.
#[test]
fn a_log_that_was_deleted_between_two_runs() {
    let (source, home) = mirrored();
    promote(&source);
    for suffixes in [&["-wal", "-shm"][..], &["-shm"], &["-wal"]] {
        for suffix in suffixes {
            std::fs::remove_file(beside(&home, suffix)).unwrap();
        }
        assert_mended(&source, &home);
        for suffix in suffixes {
            assert!(
                beside(&home, suffix).exists(),
                "readers find `{suffix}` again"
            );
        }
    }
}

/// A sync on a disk with little room is refused before anything is asked.
#[test]
fn a_nearly_full_disk() {
    // A disk of its own, which is there for one command only.
    let command = |home: &Home, mebibytes: u32| {
        let disk = home.path().join("disk");
        std::fs::create_dir_all(&disk).unwrap();
        let mut command = home.command("unshare");
        let script = format!(
            "mount -t tmpfs -o size={mebibytes}m tmpfs \"$0\" && exec \"$1\" sync --mode full"
        );
        command
            .args(["--mount", "sh", "-c", &script])
            .arg(&disk)
            .arg(BINARY)
            .env("MUSTERD__MIRROR__PATH", disk.join("mirror.db"));
        Running::start(command).finish(TIME_LIMIT)
    };
    let source = Source::start(25);
    let home = Home::new(&[source.instance("")]);
    let ran = command(&home, 200);
    if ran.code != Some(0) && ran.stderr.contains("unshare") {
        let needed = std::env::var_os("MUSTERD_REQUIRE_ROOT").is_some_and(|value| value == "1");
        assert!(!needed, "{ran}");
        eprintln!("not run: {}", ran.stderr);
        return;
    }
    assert_eq!(ran.code, Some(0), "{ran}");
    let asked = source.sandbox.count(RequestKind::List);
    assert_ne!(asked, 0);
    let ran = command(&home, 40);
    assert_refused(&ran, &[]);
    assert!(
        ran.stdout
            .contains("MiB left, and a sync needs 64 MiB at least"),
        "{ran}"
    );
    assert_eq!(source.sandbox.count(RequestKind::List), asked);
}
