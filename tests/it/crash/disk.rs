//! A disk as its contract is: what was synced is there after a power cut, of everything else any part may
//! be, down to single sectors, in any order. Names last once their folder was synced, and are lost only
//! from the end, as a journal of a file system does it.

use std::collections::BTreeMap;
use std::path::Path;

use super::state::State;

/// What a drive writes as one.
const SECTOR_BYTES: usize = 512;

/// One change of the disk, by names in the mirror's folder.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create {
        name: String,
    },
    Write {
        name: String,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        name: String,
        len: usize,
    },
    Sync {
        name: String,
    },
    Unlink {
        name: String,
    },
    Rename {
        from: String,
        to: String,
    },
    SyncNames,
}

/// Files by name, as somebody finds them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Image(pub(super) BTreeMap<String, Vec<u8>>);

/// Files and names, those that last and those that may not.
pub(super) struct Disk {
    files: Vec<File>,
    names: BTreeMap<String, usize>,
    lasting_names: BTreeMap<String, usize>,
    unsynced_names: Vec<Named>,
}

#[derive(Default)]
struct File {
    lasting: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// A name gets a file, or none.
type Named = (String, Option<usize>);

impl Image {
    /// The files of a mirror in a folder.
    pub(super) fn of(folder: &Path) -> Self {
        let mut files = BTreeMap::new();
        for entry in folder.read_dir().unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if ["mirror.db", "mirror.db-wal", "mirror.db-journal"].contains(&&*name) {
                files.insert(name, std::fs::read(entry.path()).unwrap());
            }
        }
        Self(files)
    }

    /// Lays the files into a folder in place of what is there.
    pub(super) fn lay_out(&self, folder: &Path) {
        for entry in folder.read_dir().unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for (name, bytes) in &self.0 {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }

    /// What the mirror in it says.
    pub(super) fn state(&self, scratch: &Path) -> State {
        self.lay_out(scratch);
        State::of(&scratch.join("mirror.db"))
    }
}

impl Disk {
    /// A disk on which all of this lasts.
    pub(super) fn holding(image: &Image) -> Self {
        let mut disk = Self {
            files: Vec::new(),
            names: BTreeMap::new(),
            lasting_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
        };
        for (name, bytes) in &image.0 {
            disk.lasting_names.insert(name.clone(), disk.files.len());
            disk.files.push(File {
                lasting: bytes.clone(),
                unsynced: Vec::new(),
            });
        }
        disk.names.clone_from(&disk.lasting_names);
        disk
    }

    /// Does what a program did.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { name } if !self.names.contains_key(name) => {
                self.files.push(File::default());
                self.name(name, Some(self.files.len() - 1));
            }
            Op::Create { .. } => {}
            Op::Write { name, at, bytes } => self.change(
                name,
                Change::Write {
                    at: *at,
                    bytes: bytes.clone(),
                },
            ),
            Op::Truncate { name, len } => self.change(name, Change::Truncate(*len)),
            Op::Sync { name } => {
                let file = &mut self.files[self.names[name]];
                for change in std::mem::take(&mut file.unsynced) {
                    change.apply(&mut file.lasting);
                }
            }
            Op::Unlink { name } => self.name(name, None),
            Op::Rename { from, to } => {
                let file = self.names[from];
                self.name(from, None);
                self.name(to, Some(file));
            }
            Op::SyncNames => {
                self.lasting_names.clone_from(&self.names);
                self.unsynced_names.clear();
            }
        }
    }

    fn name(&mut self, name: &str, file: Option<usize>) {
        set(&mut self.names, name, file);
        self.unsynced_names.push((name.to_owned(), file));
    }

    fn change(&mut self, name: &str, change: Change) {
        let file = self.names[name];
        self.files[file].unsynced.push(change);
    }

    /// What every program sees, and what is left when a process dies: all of it.
    pub(super) fn whole(&self) -> Image {
        self.image(&self.names, |file| file.unsynced.clone())
    }

    /// What is left when the power goes.
    pub(super) fn after_power_cut(&self, lot: &mut fastrand::Rng) -> Image {
        let mut names = self.lasting_names.clone();
        for (name, file) in &self.unsynced_names[..lot.usize(0..=self.unsynced_names.len())] {
            set(&mut names, name, *file);
        }
        let how = lot.u8(0..4);
        self.image(&names, |file| {
            let changes = file.unsynced.iter();
            match how {
                // Most of it got there, or little, or each with a chance; torn or not.
                0 => changes.filter(|_| lot.u8(0..8) > 0).cloned().collect(),
                1 => changes.filter(|_| lot.bool()).cloned().collect(),
                2 => changes.flat_map(|change| change.torn(lot, 7)).collect(),
                _ => changes.flat_map(|change| change.torn(lot, 1)).collect(),
            }
        })
    }

    fn image(
        &self,
        names: &BTreeMap<String, usize>,
        mut kept: impl FnMut(&File) -> Vec<Change>,
    ) -> Image {
        let content = |(name, file): (&String, &usize)| {
            let file = &self.files[*file];
            let mut bytes = file.lasting.clone();
            for change in kept(file) {
                change.apply(&mut bytes);
            }
            (name.clone(), bytes)
        };
        Image(names.iter().map(content).collect())
    }
}

impl Change {
    fn apply(self, file: &mut Vec<u8>) {
        match self {
            Self::Write { at, bytes } => {
                let end = at + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[at..end].copy_from_slice(&bytes);
            }
            Self::Truncate(len) => file.resize(len, 0),
        }
    }

    /// The sectors of a write that got there, each with a chance of `most` in 8.
    fn torn(&self, lot: &mut fastrand::Rng, most: u8) -> Vec<Self> {
        let Self::Write { at, bytes } = self else {
            return if lot.bool() {
                vec![self.clone()]
            } else {
                Vec::new()
            };
        };
        let mut pieces = Vec::new();
        let mut from = *at;
        while from < at + bytes.len() {
            let next = (from / SECTOR_BYTES + 1) * SECTOR_BYTES;
            let to = next.min(at + bytes.len());
            if lot.u8(0..8) < most {
                pieces.push(Self::Write {
                    at: from,
                    bytes: bytes[from - at..to - at].to_vec(),
                });
            }
            from = to;
        }
        pieces
    }
}

fn set(names: &mut BTreeMap<String, usize>, name: &str, file: Option<usize>) {
    match file {
        Some(file) => names.insert(name.to_owned(), file),
        None => names.remove(name),
    };
}
