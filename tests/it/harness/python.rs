//! Programs from the Python world that we test against, in an environment of their own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Pins what is installed.
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/requirements.txt");

/// The folder of the programs that `tests/requirements.txt` installs, made once.
///
/// `None` when this machine has no Python with `venv`, or the packages cannot be had; the reason is
/// printed and the calling test has nothing to do. `MUSTERD_REQUIRE_PYTHON=1` makes that a failure.
/// `MUSTERD_PYTHON_TOOLS` names an environment that is there already.
pub(crate) fn tools() -> Option<&'static Path> {
    static TOOLS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match TOOLS.get_or_init(environment) {
        Ok(folder) => Some(folder),
        Err(reason) => {
            assert!(
                std::env::var_os("MUSTERD_REQUIRE_PYTHON").is_none_or(|value| value != "1"),
                "{reason}"
            );
            eprintln!("not run: {reason}");
            None
        }
    }
}

fn environment() -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os("MUSTERD_PYTHON_TOOLS") {
        let programs = PathBuf::from(folder).join("bin");
        return if programs.join("python").exists() {
            Ok(programs)
        } else {
            Err(format!(
                "`MUSTERD_PYTHON_TOOLS`: there is no `{}`",
                programs.join("python").display()
            ))
        };
    }
    let wanted = std::fs::read_to_string(REQUIREMENTS).expect("the requirements are readable");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python");
    let done = folder.join("installed.txt");
    // Another `cargo test` of this folder may be at it.
    let lock = File::create(folder.with_extension("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(folder.join("bin"));
    }
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder))?;
    run(Command::new(folder.join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(REQUIREMENTS))?;
    std::fs::write(&done, wanted).map_err(|error| error.to_string())?;
    Ok(folder.join("bin"))
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(Output { status, stderr, .. }) => Err(format!(
            "`{command:?}` ended with {status}: {}",
            String::from_utf8_lossy(&stderr)
        )),
        Err(error) => Err(format!("`{command:?}` cannot be run: {error}")),
    }
}
