//! The account that the daemon runs as, and what it may read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::unit::Unit;

/// An account of this machine.
pub(super) struct Account {
    pub(super) uid: u32,
    gid: u32,
    pub(super) name: String,
}

impl Account {
    /// The one that the unit names; else whose the mirror's folder is, which is who can write there.
    pub(super) fn of_the_daemon(unit: Option<&Unit>, folder: &Path) -> Option<Self> {
        let named = unit.and_then(Unit::user).and_then(|name| {
            let (uid, gid) = accounts()
                .find(|known| known.0 == name)
                .map(|known| known.1)?;
            let name = name.to_owned();
            Some(Self { uid, gid, name })
        });
        named.or_else(|| {
            let folder = folder.metadata().ok()?;
            Some(Self {
                uid: folder.uid(),
                gid: folder.gid(),
                name: name_of(folder.uid()),
            })
        })
    }

    /// Whether the modes let it read. Groups that it is in besides its own are not known here.
    pub(super) fn may_read(&self, file: &Metadata) -> bool {
        let bit = match file {
            _ if self.uid == 0 => return true,
            file if file.uid() == self.uid => 0o400,
            file if file.gid() == self.gid => 0o040,
            _ => 0o004,
        };
        file.mode() & bit != 0
    }
}

/// The accounts of this machine itself: name, user and group.
fn accounts() -> impl Iterator<Item = (String, (u32, u32))> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, uid, gid) = (fields.first()?, fields.get(2)?, fields.get(3)?);
        Some(((*name).to_owned(), (uid.parse().ok()?, gid.parse().ok()?)))
    };
    let accounts: Vec<_> = text.lines().filter_map(account).collect();
    accounts.into_iter()
}

/// What an account is called, or its number.
pub(super) fn name_of(uid: u32) -> String {
    let named = accounts().find(|(_, (known, _))| *known == uid);
    named.map_or_else(|| uid.to_string(), |(name, _)| name)
}
