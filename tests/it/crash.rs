//! What holds when a process dies, the disk fails or the power goes, at every point where it can
//! (promises P2 and P3): the mirror is in a state between two transactions, and the next sync goes on
//! without help.
//!
//! Each scene is prepared once. For each point its folder is copied, the command runs in the copy until
//! the fault, and what is left is judged twice: as it lies there, and after the commands that would come
//! next. What the states between the transactions are is read from a recording of the undisturbed run.

mod daemon;
mod hostile;
mod migration;
mod points;
mod power;
mod restoring;
mod several;

mod disk;
mod laws;
mod recording;
mod scenes;
mod source;
mod state;
pub(crate) mod traced;

use std::path::{Path, PathBuf};

/// Where many short-lived copies of a mirror lie: in memory where there is such a folder, because a
/// real disk makes every `fsync` of every point wait.
fn workplace() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}
