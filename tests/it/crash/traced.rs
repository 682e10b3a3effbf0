//! Runs a command under `strace`, which makes one system call fail, or the process die in front of it.
//!
//! `strace` counts the calls of each thread by itself, so "the third write" would be as many points as
//! there are threads. Hence all writes are made by one thread: no more than one of those that wait for a
//! disk can be started (the runtime then queues), and a reader that has the mirror open already keeps the
//! main thread from writing the log's index anew.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::harness::{Home, Ran, Running, TIME_LIMIT};

/// Every call that changes a file or a name, or makes such a change last. A question mark: not every
/// machine has it.
pub(super) const WRITES: [&str; 13] = [
    "pwrite64",
    "pwritev",
    "ftruncate",
    "?fallocate",
    "fsync",
    "fdatasync",
    "?link",
    "?linkat",
    "?unlink",
    "?unlinkat",
    "?rename",
    "?renameat",
    "?renameat2",
];

/// A call of a command, where something happens to it. `strace` counts the calls of each kind by themselves: the third write
/// and the third `fsync` are two points, and of all kinds together there is no third.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    /// One of [`WRITES`].
    pub(super) kind: &'static str,
    /// Counted from 1.
    pub(super) nth: usize,
}

impl Point {
    /// The name of a case.
    pub(super) fn name(self) -> String {
        format!("{} {:04}", self.kind.trim_start_matches('?'), self.nth)
    }
}

/// One thread for each that exists at the start, and one for all work that waits for a disk.
const ONE_WRITER: &str = "inject=?clone,?clone3:error=EAGAIN:when=2+";

/// Where the trace goes, in the home.
const LOG: &str = "strace.log";

/// What happens at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process dies in front of the call.
    Kill,
    /// The disk is full from this call on, for calls of this kind.
    NoSpace,
    /// This call fails with an I/O error.
    Broken,
}

impl Fault {
    fn injected_at(self, point: Point) -> String {
        let Point { kind, nth } = point;
        match self {
            Self::Kill => format!("inject={kind}:signal=KILL:when={nth}"),
            Self::NoSpace => format!("inject={kind}:error=ENOSPC:when={nth}+"),
            Self::Broken => format!("inject={kind}:error=EIO:when={nth}"),
        }
    }
}

/// How a command with a fault ended.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) ran: Ran,
    /// The call that the fault hit first; `None`: the command did not come that far.
    pub(super) call: Option<String>,
}

/// Whether there is a `strace` that may trace. Where there is none the reason is printed, and the calling
/// test has nothing to do; `MUSTERD_REQUIRE_STRACE=1` makes that a failure.
pub(crate) fn is_possible() -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        let tried = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "true"])
            .output();
        match tried {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(error.to_string()),
        }
    });
    let Some(reason) = reason else { return true };
    assert!(
        std::env::var_os("MUSTERD_REQUIRE_STRACE").is_none_or(|value| value != "1"),
        "`strace`: {reason}"
    );
    eprintln!("not run: `strace`: {reason}");
    false
}

/// Runs a program with a fault at a point.
pub(super) fn run(home: &Home, program: &[&str], fault: Fault, point: Point) -> Hit {
    let injected = fault.injected_at(point);
    let traced = format!("trace={},?clone,?clone3", WRITES.join(","));
    let mut options = vec!["-y", "-s", "0", "-e", &traced, "-e", &injected];
    if fault != Fault::Kill {
        // Stops at the traced calls only, which is faster; a signal cannot be injected that way.
        options.push("--seccomp-bpf");
    }
    let ran = trace(home, &options, program);
    let log = std::fs::read_to_string(home.path().join(LOG)).unwrap();
    let call = match fault {
        // All threads die; the one that was at the call has not come back from it.
        Fault::Kill if ran.code.is_none() => {
            assert!(log.contains("killed by SIGKILL"), "{ran}");
            last_write(&log)
        }
        Fault::Kill => None,
        Fault::NoSpace | Fault::Broken => log
            .lines()
            .find(|line| line.contains("(INJECTED)") && !line.contains("clone"))
            .map(str::to_owned),
    };
    Hit { ran, call }
}

/// Runs a program and returns every write it made, with all bytes, as `strace` prints them.
pub(super) fn record(home: &Home, program: &[&str]) -> (Ran, String) {
    let traced = format!("trace={},openat,?clone,?clone3", WRITES.join(","));
    let options = ["-y", "-xx", "-s", "1000000", "-e", &traced, "--seccomp-bpf"];
    let ran = trace(home, &options, program);
    let log = std::fs::read_to_string(home.path().join(LOG)).unwrap();
    (ran, log)
}

fn trace(home: &Home, options: &[&str], program: &[&str]) -> Ran {
    let mut command = home.command("strace");
    command
        .args(["-f", "-qq", "-o"])
        .arg(home.path().join(LOG))
        .args(options)
        .args(["-e", ONE_WRITER])
        .arg("--")
        .args(program)
        .env("TOKIO_WORKER_THREADS", "1");
    Running::start(command).finish(TIME_LIMIT)
}

fn last_write(log: &str) -> Option<String> {
    let is_open_ended = |line: &&str| line.ends_with("= ?") || line.ends_with("<unfinished ...>");
    let is_write = |line: &&str| !line.contains("clone");
    let call = log.lines().rev().filter(is_open_ended).find(is_write);
    Some(call.unwrap_or("between two calls").to_owned())
}

/// Copies a prepared mirror with all that lies beside it.
pub(super) fn copy_mirror(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        let is_of_the_mirror = name
            .to_str()
            .is_some_and(|name| name.starts_with("mirror.db") && !name.ends_with(".lock"));
        // The daemon's socket is none of it.
        if is_of_the_mirror && entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}
