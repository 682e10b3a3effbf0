//! The files that configure an instance: `instances.d/NAME.toml`, and `secrets/NAME` or `secrets/NAME.KEY`.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::exit::Failure;
use super::outside::folder_of;
use crate::config;
use crate::model::InstanceName;

/// The folder of secrets, beside the configuration.
const SECRETS_FOLDER: &str = "secrets";

/// How a file begins that `musterd link` made.
pub(super) const MADE_BY_LINK: &str = "# Made by `musterd link`.";

/// Where the files of an instance are.
pub(super) struct Places {
    /// The folder of the files of instances.
    pub(super) instances: PathBuf,
    /// The file of this instance.
    pub(super) instance: PathBuf,
    /// The folder of secrets.
    pub(super) secrets: PathBuf,
}

impl Places {
    pub(super) fn of(config: &Path, name: &InstanceName) -> Self {
        let instances = config.with_file_name(config::INSTANCES_FOLDER);
        Self {
            instance: instances.join(format!("{name}.toml")),
            instances,
            secrets: config.with_file_name(SECRETS_FOLDER),
        }
    }
}

/// Files and folders that go again unless they are kept.
#[derive(Default)]
pub(super) struct Made {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Made {
    /// Makes a folder that is not there. Owner and group are those of another one, if that is there, else of the folder around it.
    pub(super) fn folder(&mut self, path: &Path, mode: u32, like: &Path) -> anyhow::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        let what = || format!("cannot make the folder `{}`", path.display());
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .with_context(what)?;
        self.folders.push(path.to_owned());
        let folder = File::open(path).with_context(what)?;
        let (opened, there) = (folder.metadata()?, path.symlink_metadata()?);
        // Whoever may write around it could have put a link there meanwhile.
        anyhow::ensure!(
            (opened.dev(), opened.ino()) == (there.dev(), there.ino()),
            "`{}` was replaced while it was made",
            path.display()
        );
        let like = if like.is_dir() { like } else { folder_of(path) };
        give(&folder, path, mode, like)
    }

    /// Makes a file that is not there. Owner and group are those of its folder.
    pub(super) fn file(&mut self, path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| {
                let failure = Failure::new(format!("cannot make `{}`", path.display()));
                match error.kind() {
                    ErrorKind::AlreadyExists => {
                        failure.hint("move it away if nothing needs it any more")
                    }
                    _ => failure,
                }
                .because(error)
            })?;
        self.files.push(path.to_owned());
        give(&file, path, mode, folder_of(path))?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("cannot write `{}`", path.display()))
    }

    /// They stay.
    pub(super) fn keep(&mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in &self.files {
            let _removed = std::fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _removed = std::fs::remove_dir(folder);
        }
    }
}

/// Gives what root made to whom a folder belongs: the daemon must read it, whatever the umask. By what was opened,
/// not by its name: the account of the daemon may write around it, and could put a link to anybody's file in its place (T31).
fn give(made: &File, path: &Path, mode: u32, like: &Path) -> anyhow::Result<()> {
    let what = || format!("cannot give `{}` to the daemon's account", path.display());
    let around = like.metadata()?;
    let found = made.metadata()?;
    if found.uid() == 0 && (found.uid(), found.gid()) != (around.uid(), around.gid()) {
        fchown(made, Some(around.uid()), Some(around.gid())).with_context(what)?;
    }
    made.set_permissions(Permissions::from_mode(mode))
        .with_context(what)
}
