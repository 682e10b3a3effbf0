//! Mirrors that earlier versions wrote (`tests/data/README.md`) are migrated, verified and synced on.

use std::io::Read as _;
use std::path::Path;

use musterd::mirror::{Mirror, beside};
use rusqlite::{Connection, OpenFlags};

use super::campaign::{Folder, noticed};
use super::content::Content;
use super::history;

/// A mirror of each version before this one that was released, which tables are others when it has been migrated, and how many records
/// its feed has.
const MIRRORS: [(&[u8], &[&str], u64); 6] = [
    (
        include_bytes!("../../data/mirror-v1.db.gz"),
        // It has a column more.
        &["schema", "source_counts"],
        66,
    ),
    (
        include_bytes!("../../data/mirror-v2.db.gz"),
        &["schema"],
        66,
    ),
    (
        include_bytes!("../../data/mirror-v3.db.gz"),
        &["schema"],
        66,
    ),
    (
        include_bytes!("../../data/mirror-v4.db.gz"),
        &["schema"],
        66,
    ),
    (
        include_bytes!("../../data/mirror-v6.db.gz"),
        &["schema"],
        104,
    ),
    (
        include_bytes!("../../data/mirror-v8.db.gz"),
        &["schema"],
        104,
    ),
];

/// Writes a mirror to this path.
fn write(mirror: &[u8], path: &Path) {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(mirror)
        .read_to_end(&mut bytes)
        .unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn content(path: &Path) -> Content {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    Content::of(&conn).unwrap()
}

#[test]
fn a_mirror_of_each_version_is_migrated_and_says_what_it_said() {
    for (mirror, changed, n_records) in MIRRORS {
        let folder = Folder::new();
        let path = folder.mirror();
        write(mirror, &path);
        let before = content(&path);
        let mirror = Mirror::open(&path, "5eed").unwrap();
        let verified = mirror.reader().unwrap().verify(&mut |_| {}).unwrap();
        assert_eq!(verified.difference, None);
        assert_eq!((verified.users, verified.records), (48, n_records));
        assert_eq!(before.changed_tables(&content(&path)), changed);
        let copy = beside(&path, "before-v9");
        assert_eq!(before.changed_tables(&content(&copy)), [""; 0]);
    }
}

#[test]
fn what_was_altered_in_a_mirror_that_has_seals_is_found_after_its_migration() {
    let folder = Folder::new();
    let path = folder.mirror();
    write(MIRRORS[1].0, &path);
    Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE syncs SET seen = seen + 1 WHERE id = (SELECT max(id) FROM syncs)")
        .unwrap();
    let mirror = Mirror::open(&path, "5eed").unwrap();
    let verified = mirror.reader().unwrap().verify(&mut |_| {}).unwrap();
    let difference = verified.difference.unwrap();
    assert!(difference.contains("`seen`"), "{difference}");
}

#[test]
fn a_backup_of_each_version_is_put_back_and_stays_what_it_is() {
    for (mirror, _, n_records) in MIRRORS {
        let folder = Folder::new();
        let path = folder.mirror();
        let backup = beside(&path, "before-v9");
        write(mirror, &backup);
        let before = std::fs::read(&backup).unwrap();
        let restored = musterd::mirror::restore::restore(&path, &backup, "5eed", "now").unwrap();
        assert_eq!(
            (restored.verified.users, restored.verified.records),
            (48, n_records)
        );
        assert_eq!(restored.verified.difference, None);
        assert_eq!(std::fs::read(&backup).unwrap(), before);
        assert_eq!(noticed(&path), None);
    }
}

#[test]
fn a_mirror_of_each_version_is_synced_on() {
    for (mirror, changed, n_records) in MIRRORS {
        sync_on(mirror, changed, n_records);
    }
}

fn sync_on(mirror: &[u8], migrated: &'static [&str], n_records: u64) {
    let (folder, now) = (Folder::new(), Folder::new());
    let path = folder.mirror();
    write(mirror, &path);
    let directory = history::live(&now.mirror(), || {});
    let before = content(&path);
    let between = path.clone();
    history::go_on(&path, directory, move || {
        assert_eq!(noticed(&between), None);
        let mut changed = before.changed_tables(&content(&between));
        // What a sync writes, and what the migration does.
        let written = [
            "instances",
            "source_counts",
            "sources",
            "sqlite_sequence",
            "syncs",
        ];
        changed.retain(|table| !written.contains(&&**table) && !migrated.contains(&&**table));
        assert_eq!(changed, [""; 0], "nobody changed");
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
    // Four were trimmed away behind newer ones.
    let seq = n_records + 5;
    assert_eq!(
        newest,
        format!(r#"{seq} update {{"title":{{"from":"Boss","to":"Chief"}}}}"#)
    );
}
