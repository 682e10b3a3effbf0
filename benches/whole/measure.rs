//! What one process cost, from its start to its end.
//!
//! A process is started by a small one of our own, in the role `measure`: the peak of a process counts what its parent held
//! when it was started, and the server's process holds a whole directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
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
    let ran = launcher(folder, &report, program, arguments)
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
    (read_report(&report), said)
}

/// Runs this program in another role.
pub(crate) fn run_self(folder: &Path, arguments: &[&str]) -> Cost {
    let this = std::env::current_exe().expect("the path of this program");
    run(folder, this.to_str().expect("a path of text"), arguments).0
}

fn launcher(folder: &Path, report: &Path, program: &str, arguments: &[&str]) -> Command {
    let this = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(this);
    command
        .arg("role:measure")
        .arg(report)
        .arg(program)
        .args(arguments)
        .env_remove("MUSTERD_CONFIG")
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn read_report(report: &Path) -> Cost {
    let cost = std::fs::read(report).expect("the report of what it cost");
    serde_json::from_slice(&cost).expect("the report is JSON")
}

/// A process that runs until it is told to stop.
pub(crate) struct Running {
    launcher: Child,
    process: Pid,
    report: PathBuf,
    /// What it said.
    log: PathBuf,
}

impl Running {
    pub(crate) fn start(folder: &Path, program: &str, arguments: &[&str]) -> Self {
        let (report, log) = (folder.join("daemon.json"), folder.join("daemon.log"));
        // Of one that was started here before.
        let _there_was_none = std::fs::remove_file(process_file(&report));
        let file = File::create(&log).expect("a file for what it says");
        let twin = file.try_clone().expect("the same file once more");
        let mut launcher = launcher(folder, &report, program, arguments)
            .stdout(file)
            .stderr(twin)
            .spawn()
            .expect("this program starts itself");
        let id = process_file(&report);
        let process = wait_for("the launcher to say which process it started", || {
            let ended = launcher.try_wait().expect("it is our child");
            assert!(ended.is_none(), "`{program}` ended at once");
            let id = std::fs::read_to_string(&id).ok()?.parse().ok()?;
            Pid::from_raw(id)
        });
        Self {
            launcher,
            process,
            report,
            log,
        }
    }

    /// User and system, so far.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        /// What Linux counts a second, on every usual machine.
        const TICKS: f64 = 100.0;
        let path = format!("/proc/{}/stat", self.process.as_raw_pid());
        let stat = std::fs::read_to_string(path).expect("it runs");
        // The second field is a name in parentheses, and may hold anything.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks = ticks.map(|field| field.parse::<f64>().expect("a number of ticks"));
        ticks.sum::<f64>() / TICKS
    }

    pub(crate) fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.as_raw_pid());
        std::fs::read_dir(path).expect("it runs").count()
    }

    /// Tells it to stop, and gives what it cost from its start to its end.
    ///
    /// # Panics
    /// When its exit code is another than 0.
    pub(crate) fn stop(mut self) -> Cost {
        kill_process(self.process, Signal::TERM).expect("it runs");
        let ended = self.launcher.wait().expect("it is our child");
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(ended.success(), "told to stop, it failed: {said}");
        read_report(&self.report)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only where a check failed before it was stopped: then nothing may stay behind.
        if matches!(self.launcher.try_wait(), Ok(None)) {
            let _ended_meanwhile = kill_process(self.process, Signal::KILL);
            let _its_end = self.launcher.wait();
        }
    }
}

/// Set when it goes out of scope, also by a panic: what runs beside must not be waited for in vain.
pub(crate) struct StopsWhenDropped<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopsWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks every few milliseconds.
///
/// # Panics
/// After ten minutes.
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            began.elapsed() < Duration::from_mins(10),
            "waited in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn process_file(report: &Path) -> PathBuf {
    report.with_extension("pid")
}

/// The role `measure`: runs the program with our own output, and writes what it cost.
pub(crate) fn launch(report: &str, program: &str, arguments: &[&str]) {
    let began = Instant::now();
    let mut child = Command::new(program)
        .args(arguments)
        .spawn()
        .unwrap_or_else(|error| panic!("`{program}` does not start: {error}"));
    std::fs::write(process_file(Path::new(report)), child.id().to_string())
        .expect("the process id is written");
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
