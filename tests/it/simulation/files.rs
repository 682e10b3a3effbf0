//! What a mirror and its stages are made of, to be put back: a death before the disk has its turn.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The files of a mirror and of its stages as they were.
pub(super) struct Files(BTreeMap<PathBuf, Vec<u8>>);

impl Files {
    /// Those of the mirror in this folder, while nobody writes.
    pub(super) fn of(folder: &Path) -> Self {
        let read = |path: PathBuf| (path.clone(), fs::read(path).unwrap());
        Self(names(folder).map(read).collect())
    }

    /// Puts them back. Who has one of them open reads it as it was, as nobody writes it any more.
    pub(super) fn put_back(&self, folder: &Path) {
        let later = names(folder).filter(|path| !self.0.contains_key(path));
        for path in later.collect::<Vec<_>>() {
            fs::remove_file(path).unwrap();
        }
        for (path, bytes) in &self.0 {
            let mut options = OpenOptions::new();
            // Never shorter than it is while a reader has a part of it in its memory.
            let mut file = options
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .unwrap();
            file.write_all(bytes).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
        }
    }
}

/// A refresh token that was used is no longer one, whoever dies: the file of tokens is left as it is.
fn names(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let is_of_it = ["mirror.db", "mirror.db-wal", "mirror.db-shm"].contains(&name.as_str());
        (is_of_it || name.starts_with("mirror.db.stage-")).then(|| entry.path())
    })
}
