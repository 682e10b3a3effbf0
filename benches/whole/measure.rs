//! What one process cost, from its start to its end.
//!
//! A process is started by a small one of our own, in the role `measure`: the peak of a process counts what its parent held
//! when it was started, and the server's process holds a whole directory.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};
use wait4::Wait4 as _;

/// The cost of one process.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Cost {
    pub(crate) wall_seconds: f64,
    /// User and system.
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_bytes: u64,
    /// Handed to the block layer.
    pub(crate) written_bytes: u64,
}

/// Runs a program to its end, and gives what it cost and what it said.
///
/// # Panics
/// When its exit code is another than 0.
pub(crate) fn run(folder: &Path, program: &str, arguments: &[&str]) -> (Cost, String) {
    let report = folder.join("cost.json");
    let this = std::env::current_exe().expect("the path of this program");
    let ran = Command::new(this)
        .arg("role:measure")
        .arg(&report)
        .arg(program)
        .args(arguments)
        .env_remove("MUSTERD_CONFIG")
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("this program starts itself");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(
        ran.status.success(),
        "`{program} {}` ended with {}:\n{said}{}",
        arguments.join(" "),
        ran.status,
        String::from_utf8_lossy(&ran.stderr)
    );
    let cost = std::fs::read(&report).expect("the report of what it cost");
    let cost = serde_json::from_slice(&cost).expect("the report is JSON");
    (cost, said)
}

/// The role `measure`: runs the program with our own output, and writes what it cost.
pub(crate) fn launch(report: &str, program: &str, arguments: &[&str]) {
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .spawn()
        .unwrap_or_else(|error| panic!("`{program}` does not start: {error}"));
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let id = id.expect("a process id");
    // Once it has ended, and before it is reaped.
    waitid(
        WaitId::Pid(id),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    )
    .expect("it is our child");
    let wall_seconds = began.elapsed().as_secs_f64();
    let io = std::fs::read_to_string(format!("/proc/{}/io", child.id()))
        .expect("the counts of a process that was not reaped");
    let written = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    let used = child.wait4().expect("it is our child");
    assert!(
        used.status.success(),
        "`{program}` ended with {}",
        used.status
    );
    let cost = Cost {
        wall_seconds,
        cpu_seconds: (used.rusage.utime + used.rusage.stime).as_secs_f64(),
        peak_bytes: used.rusage.maxrss,
        written_bytes: written.and_then(|n| n.parse().ok()).expect("`write_bytes`"),
    };
    let cost = serde_json::to_vec(&cost).expect("numbers are JSON");
    std::fs::write(report, cost).expect("the report is written");
}
