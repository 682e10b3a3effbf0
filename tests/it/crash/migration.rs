//! Mirrors of earlier schema versions are migrated when they are opened. `tests/data/mirror-vN.db.gz` is
//! what version N left; a version that is the newest has nothing to be migrated. The oldest climbs every step there is, and the newest
//! climbs the last alone: what lies between them climbs a part of the same steps, and nothing more is written at any of them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::scenes::Trial;
use super::state::{State, newest_schema_version, verify};
use super::traced::copy_mirror;
use super::{points, workplace};
use crate::harness::{Auth, BINARY, Home, Instance};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

#[test]
fn migrations() {
    let mut files: Vec<PathBuf> = Path::new(DATA)
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| version(path).is_some())
        .collect();
    files.sort();
    let [oldest, .., newest] = files.as_slice() else {
        panic!("{files:?} are not two mirrors");
    };
    for file in [oldest, newest] {
        let migration = Migration::of(file, version(file).unwrap());
        if migration.before.schema_version() != newest_schema_version() {
            points::every_point(|| migration);
        }
    }
}

/// The version that a file is of, as `v1`.
fn version(file: &Path) -> Option<&str> {
    let name = file.file_name()?.to_str()?;
    name.strip_prefix("mirror-")?.strip_suffix(".db.gz")
}

/// A command opens a mirror of an earlier version.
struct Migration {
    name: String,
    prepared: Home,
    before: State,
}

impl Migration {
    fn of(file: &Path, version: &str) -> Self {
        let prepared = home();
        let mut bytes = Vec::new();
        GzDecoder::new(std::fs::File::open(file).unwrap())
            .read_to_end(&mut bytes)
            .unwrap();
        std::fs::write(prepared.mirror_path(), bytes).unwrap();
        let looked_at = home();
        copy_mirror(prepared.path(), looked_at.path());
        Self {
            name: format!("migration of {version}"),
            before: State::of(&looked_at.mirror_path()),
            prepared,
        }
    }
}

impl Trial for Migration {
    fn name(&self) -> &str {
        &self.name
    }

    /// It confirms an address that is the pinned one already, and asks nobody for anything.
    fn program(&self) -> Vec<&str> {
        vec![BINARY, "relink", "acme"]
    }

    fn copy(&self) -> Home {
        let home = home();
        copy_mirror(self.prepared.path(), home.path());
        home
    }

    fn go_on(&self, home: &Home) {
        let ran = home.run(&["relink", "acme"]);
        assert_eq!(ran.code, Some(0), "{ran}");
    }

    fn assert_true(&self, home: &Home) {
        let after = State::of(&home.mirror_path());
        assert_eq!(after.schema_version(), newest_schema_version());
        assert_eq!(
            self.before.column("syncs", "id"),
            after.column("syncs", "id")
        );
        // `relink` forgets what was probed, and nothing else.
        let [before, after] = [&self.before, &after].map(|state| state.content().unversioned());
        assert!(before == after, "{}", before.differences(&after));
        verify(&home.mirror_path());
    }

    /// A copy that has its name is whole.
    fn look_beside(&self, folder: &Path) {
        for entry in folder.read_dir().unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name();
            if name.to_str().unwrap().starts_with("mirror.db.before-v") {
                let copy = State::of(&entry.path());
                assert!(copy == self.before, "{}", copy.differences(&self.before));
            }
        }
    }
}

/// What the mirrors in `tests/data` are of.
fn home() -> Home {
    let instance = Instance {
        name: "acme",
        url: "https://acme.service-now.com",
        scim_path: "/api/now/scim",
        auth: Auth::Bearer("token"),
        page_size: 20,
        more: "",
    };
    Home::new_in(&workplace(), &[instance])
}
