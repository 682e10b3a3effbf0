//! A mirror that the first version wrote (`tests/data/README.md`) is migrated, verified and synced on.

use std::io::Read as _;
use std::path::Path;

use musterd::mirror::{Mirror, beside};
use rusqlite::{Connection, OpenFlags};

use super::campaign::{Folder, noticed};
use super::content::Content;
use super::history;

const MIRROR: &[u8] = include_bytes!("../../data/mirror-v1.db.gz");

/// Writes the mirror of version 1 to this path.
fn write(path: &Path) {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(MIRROR)
        .read_to_end(&mut bytes)
        .unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn content(path: &Path) -> Content {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    Content::of(&conn).unwrap()
}

#[test]
fn a_mirror_of_version_1_is_migrated_and_says_what_it_said() {
    let folder = Folder::new();
    let path = folder.mirror();
    write(&path);
    let before = content(&path);
    let mirror = Mirror::open(&path, "5eed").unwrap();
    let verified = mirror.reader().unwrap().verify(&mut |_| {}).unwrap();
    assert_eq!(verified.difference, None);
    assert_eq!((verified.users, verified.records), (48, 66));
    // It has a column more.
    let changed = ["schema", "source_counts"];
    assert_eq!(before.changed_tables(&content(&path)), changed);
    let copy = beside(&path, "before-v2");
    assert_eq!(before.changed_tables(&content(&copy)), [""; 0]);
}

#[test]
fn a_backup_of_version_1_is_put_back_and_stays_what_it_is() {
    let folder = Folder::new();
    let path = folder.mirror();
    let backup = beside(&path, "before-v2");
    write(&backup);
    let before = std::fs::read(&backup).unwrap();
    let restored = musterd::mirror::restore::restore(&path, &backup, "5eed", "now").unwrap();
    assert_eq!(
        (restored.verified.users, restored.verified.records),
        (48, 66)
    );
    assert_eq!(restored.verified.difference, None);
    assert_eq!(std::fs::read(&backup).unwrap(), before);
    assert_eq!(noticed(&path), None);
}

#[test]
fn a_mirror_of_version_1_is_synced_on() {
    let (folder, now) = (Folder::new(), Folder::new());
    let path = folder.mirror();
    write(&path);
    let directory = history::live(&now.mirror(), || {});
    let before = content(&path);
    let (between, before_change) = (path.clone(), before);
    history::go_on(&path, directory, move || {
        assert_eq!(noticed(&between), None);
        let changed = ["instances", "schema", "source_counts", "sources", "syncs"];
        assert_eq!(
            before_change.changed_tables(&content(&between)),
            changed,
            "nobody changed"
        );
    });
    assert_eq!(noticed(&path), None);
    let conn = Connection::open(&path).unwrap();
    let newest: String = conn
        .query_row(
            "SELECT seq || ' ' || kind || ' ' || changed FROM changes ORDER BY seq DESC LIMIT 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(
        newest,
        r#"71 update {"title":{"from":"Boss","to":"Chief"}}"#
    );
}
