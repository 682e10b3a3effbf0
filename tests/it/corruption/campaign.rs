//! Random corruptions of one mirror, each by a seed of its own: whatever changes what it says, `verify` notices.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use musterd::mirror::Reader;
use rusqlite::{Connection, OpenFlags};

use super::content::Content;
use super::{by_disk, by_hand, history};

/// A mirror, and what it was after each transaction before.
pub(crate) struct Specimen {
    file: Vec<u8>,
    older: Vec<Vec<u8>>,
    content: Content,
}

/// What became of one corruption.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) kind: &'static str,
    /// What was altered.
    pub(crate) what: String,
    /// Where the content is another; `None` where it is not.
    pub(crate) change: Option<String>,
    /// What `verify` says.
    pub(crate) noticed: Option<String>,
}

impl Specimen {
    /// Lives through a history.
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        let path = folder.mirror();
        let images = folder.path().join("images");
        std::fs::create_dir(&images).unwrap();
        let (from, to) = (path.clone(), images.clone());
        let mut n_images = 0;
        history::live(&path, move || {
            std::fs::copy(&from, to.join(format!("{n_images:04}"))).unwrap();
            n_images += 1;
        });
        let mut names: Vec<PathBuf> = images
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        let file = std::fs::read(&path).unwrap();
        let older = names
            .iter()
            .map(|name| std::fs::read(name).unwrap())
            .filter(|image| *image != file)
            .collect();
        let content = Content::of(&Connection::open(&path).unwrap()).unwrap();
        Self {
            file,
            older,
            content,
        }
    }

    /// Corrupts a copy by this seed, and verifies it. The corrupted file stays in the folder.
    pub(crate) fn trial(&self, seed: u64, folder: &Folder) -> Trial {
        let mut rng = Rng::with_seed(seed);
        let n_kinds = by_hand::KINDS.len() + by_disk::KINDS.len();
        // What is drawn may not be possible, as a second row of `feed`: then something else is.
        loop {
            let kind = rng.usize(0..n_kinds);
            let done = match kind.checked_sub(by_hand::KINDS.len()) {
                None => self.alter(by_hand::KINDS[kind], &mut rng, folder),
                Some(kind) => self.damage(by_disk::KINDS[kind], &mut rng, folder),
            };
            if let Some((kind, what)) = done {
                return Trial {
                    kind,
                    what,
                    change: self.change(folder),
                    noticed: noticed(&folder.mirror()),
                };
            }
        }
    }

    /// The sound file.
    pub(crate) fn lay_out(&self, folder: &Folder) {
        folder.lay_out(&self.file);
    }

    fn alter(
        &self,
        (kind, alter): (&'static str, by_hand::Alter),
        rng: &mut Rng,
        folder: &Folder,
    ) -> Option<(&'static str, String)> {
        self.lay_out(folder);
        let conn = Connection::open(folder.mirror()).unwrap();
        conn.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = OFF; PRAGMA ignore_check_constraints = ON; BEGIN",
        )
        .unwrap();
        let what = alter(&conn, rng).ok()?;
        conn.execute_batch("COMMIT").unwrap();
        conn.close().unwrap();
        Some((kind, what))
    }

    fn damage(
        &self,
        (kind, damage): (&'static str, by_disk::Damage),
        rng: &mut Rng,
        folder: &Folder,
    ) -> Option<(&'static str, String)> {
        let mut file = self.file.clone();
        let what = damage(&mut file, &self.older, rng)?;
        (file != self.file).then(|| folder.lay_out(&file))?;
        Some((kind, what))
    }

    /// Where the mirror in a folder says something else, or cannot be read.
    fn change(&self, folder: &Folder) -> Option<String> {
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let now = Connection::open_with_flags(folder.mirror(), read_only)
            .and_then(|conn| Content::of(&conn));
        folder.tidy();
        match now {
            Ok(now) => self.content.first_change(&now).map(str::to_owned),
            Err(error) => Some(format!("unreadable: {error}")),
        }
    }
}

/// What `verify` says of a mirror that is not sound; an error and a panic are told as well.
pub(crate) fn noticed(path: &Path) -> Option<String> {
    let verified = catch_unwind(AssertUnwindSafe(|| {
        Reader::open(path).and_then(|reader| reader.verify(&mut |_| {}))
    }));
    match verified {
        Ok(Ok(verified)) => verified.difference,
        Ok(Err(error)) => Some(format!("error: {error}")),
        Err(_) => Some("PANIC".to_owned()),
    }
}

/// How many there were of each kind.
#[derive(Default)]
pub(crate) struct Tally(BTreeMap<&'static str, [usize; 3]>);

impl Tally {
    pub(crate) fn add(&mut self, trial: &Trial) {
        let counts = self.0.entry(trial.kind).or_default();
        counts[0] += 1;
        counts[1] += usize::from(trial.change.is_some());
        counts[2] += usize::from(trial.noticed.is_some());
    }

    pub(crate) fn join(&mut self, other: Self) {
        for (kind, counts) in other.0 {
            let sum = self.0.entry(kind).or_default();
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }

    /// Tried, changed content, noticed.
    pub(crate) fn sum(&self) -> [usize; 3] {
        let of = |place: usize| self.0.values().map(|counts| counts[place]).sum();
        [of(0), of(1), of(2)]
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["corruption", "tried", "changed content", "noticed"];
        let [kind, tried, changed, noticed] = columns;
        writeln!(f, "{kind:<24} {tried:>8} {changed:>16} {noticed:>8}")?;
        for (kind, [tried, changed, noticed]) in &self.0 {
            writeln!(f, "{kind:<24} {tried:>8} {changed:>16} {noticed:>8}")?;
        }
        Ok(())
    }
}

/// A folder for one mirror, in memory where there is such a file system.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        Self(dir.unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn mirror(&self) -> PathBuf {
        self.path().join("mirror.db")
    }

    fn lay_out(&self, file: &[u8]) {
        self.tidy();
        std::fs::write(self.mirror(), file).unwrap();
    }

    /// What SQLite leaves beside a file belongs to that file.
    fn tidy(&self) {
        for suffix in ["-wal", "-shm", "-journal"] {
            let _none = std::fs::remove_file(self.path().join(format!("mirror.db{suffix}")));
        }
    }
}
