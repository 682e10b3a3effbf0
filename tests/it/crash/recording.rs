//! What a command wrote, read from its trace: every change of a file of the mirror or of a name, every
//! byte, and what was made to last.

use std::collections::BTreeMap;
use std::path::Path;

use super::disk::{Disk, Image, Op};
use super::state::State;

/// What a command wrote to a mirror.
pub(super) struct Recording {
    start: Image,
    pub(super) ops: Vec<Op>,
}

/// The states between the transactions of a recording.
pub(super) struct States {
    /// Each once, in their order; the first is the one before.
    pub(super) all: Vec<State>,
    /// After each operation, the place of the state that a reader may have seen by then, so that it must last.
    pub(super) lasting: Vec<usize>,
}

impl Recording {
    /// Reads a trace. `folder` is where the mirror lies, `start` what lay there before.
    pub(super) fn read(log: &str, folder: &Path, start: Image) -> Self {
        let mut ops = Vec::new();
        let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
        for line in log.lines() {
            let (thread, call) = line.split_once(' ').unwrap();
            let call = call.trim_start();
            // A call that another thread's came into is told in two parts.
            let call = match (
                call.strip_suffix(" <unfinished ...>"),
                call.split_once(" resumed>"),
            ) {
                (Some(first), _) => {
                    begun.insert(thread, first);
                    continue;
                }
                (None, Some((_, second))) => format!("{}{second}", begun.remove(thread).unwrap()),
                (None, None) => call.to_owned(),
            };
            ops.extend(parse(&call, folder));
        }
        Self { start, ops }
    }

    /// The files before the first operation.
    pub(super) fn disk(&self) -> Disk {
        Disk::holding(&self.start)
    }

    /// Finds the states between the transactions: what was readable after each commit, and each time that
    /// something was made to last.
    pub(super) fn states(&self, scratch: &Path) -> States {
        let mut disk = self.disk();
        let mut states = States {
            all: vec![disk.whole().state(scratch)],
            lasting: Vec::new(),
        };
        let mut frames = Frames::default();
        for op in &self.ops {
            let told = states.all.len() - 1;
            disk.apply(op);
            let is_commit = frames.is_commit(op);
            if is_commit || matches!(op, Op::Sync { .. } | Op::SyncNames) {
                let state = disk.whole().state(scratch);
                if states.all.last() != Some(&state) {
                    states.all.push(state);
                }
            }
            // Readers are told of a commit before anything else is done, and after it was made to last.
            states.lasting.push(if is_commit {
                told
            } else {
                states.all.len() - 1
            });
        }
        states
    }
}

/// Follows the frames of the log: a header of 24 bytes, then the page (SQLite's file format page, section
/// 4.1).
#[derive(Default)]
struct Frames {
    is_last: bool,
}

impl Frames {
    /// Whether this is the page that completes a transaction.
    fn is_commit(&mut self, op: &Op) -> bool {
        match op {
            Op::Write { name, bytes, .. } if name.ends_with("-wal") => {
                let was_last = std::mem::take(&mut self.is_last);
                // The header of the last frame has the size of the database, that of every other one has 0.
                self.is_last = bytes.len() == 24 && bytes[4..8] != [0; 4];
                was_last
            }
            _ => false,
        }
    }
}

/// One line of the trace, if it is about a file that lasts.
fn parse(call: &str, folder: &Path) -> Option<Op> {
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest
        .rsplit_once(") = ")
        .or_else(|| rest.rsplit_once(")  = "))?;
    if result.starts_with('-') || result.starts_with('?') {
        return None;
    }
    let arguments: Vec<&str> = arguments.split(", ").collect();
    let file = |argument: &str| lasting_name(&path(argument)?, folder);
    let number = |argument: &str| argument.trim().parse::<usize>().ok();
    match name {
        "pwrite64" => {
            let bytes = unescape(arguments[1]);
            assert_eq!(Some(bytes.len()), number(result), "a short write: {call}");
            Some(Op::Write {
                name: file(arguments[0])?,
                at: number(arguments[3])?,
                bytes,
            })
        }
        "ftruncate" => Some(Op::Truncate {
            name: file(arguments[0])?,
            len: number(arguments[1])?,
        }),
        "fsync" | "fdatasync" if path(arguments[0])? == folder.to_str()? => Some(Op::SyncNames),
        "fsync" | "fdatasync" => Some(Op::Sync {
            name: file(arguments[0])?,
        }),
        "unlink" => Some(Op::Unlink {
            name: file(arguments[0])?,
        }),
        "unlinkat" => Some(Op::Unlink {
            name: file(arguments[1])?,
        }),
        "rename" => rename(&file, arguments[0], arguments[1]),
        "renameat" | "renameat2" => rename(&file, arguments[1], arguments[3]),
        "openat" if arguments[2].contains("O_CREAT") => Some(Op::Create {
            name: file(arguments[1])?,
        }),
        "openat" | "clone" | "clone3" => None,
        other => panic!("`{other}` is not understood: {call}"),
    }
}

fn rename(file: &impl Fn(&str) -> Option<String>, from: &str, to: &str) -> Option<Op> {
    Some(Op::Rename {
        from: file(from)?,
        to: file(to)?,
    })
}

/// The path in `"…"`, or of the open file in `12<…>`.
fn path(argument: &str) -> Option<String> {
    let text = match argument.split_once('<') {
        Some((_, rest)) => rest.strip_suffix('>')?,
        None => argument,
    };
    String::from_utf8(unescape(text)).ok()
}

/// The name of a file that must survive a power cut: the mirror's own, not the index of its log (which is
/// made anew) nor a stage (which may be lost).
fn lasting_name(path: &str, folder: &Path) -> Option<String> {
    let name = Path::new(path).strip_prefix(folder).ok()?.to_str()?;
    let lasts = name.starts_with("mirror.db")
        && !name.ends_with("-shm")
        && !name.ends_with(".lock")
        && !name.contains(".stage-");
    lasts.then(|| name.to_owned())
}

/// `"\x2f\x74"` as bytes.
fn unescape(text: &str) -> Vec<u8> {
    let digits = text.trim_matches('"').split("\\x").skip(1);
    digits
        .map(|digits| u8::from_str_radix(digits, 16).unwrap())
        .collect()
}
