//! `musterd backup` and `musterd restore`: a whole copy of the mirror, and one put back.

use std::path::{Path, PathBuf};

use super::exit::{self, Exit, Failure};
use super::output::Output;
use super::reading::Reading;
use super::{outside, words};
use crate::clock::{Clock as _, SystemClock};
use crate::config::{self, Secrets};
use crate::mirror;
use crate::mirror::restore::restore as put_back;
use crate::mirror::verify::Verified;

/// Copy the mirror into a new file, while the daemon goes on
///
/// The copy is what the mirror was at one moment, verified as `musterd verify` does, with an epoch of its own. A
/// file that is there already is left untouched. It holds what the mirror holds: keep it where only those can
/// read it who may.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: sudo -u musterd musterd backup /var/lib/musterd/backup-1.db")]
pub(crate) struct Backup {
    #[command(flatten)]
    reading: Reading,

    /// The file to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn back_up(args: &Backup, config: &Path) -> anyhow::Result<Exit> {
    let reader = args.reading.open(config)?;
    let verified = reader.back_up(&args.file, &outside::epoch()?)?;
    let mut output = Output::stdout();
    match args.reading.json {
        true => output.json(&verified)?,
        false => output.text(&format!("backed up and verified: {}\n", content(&verified)))?,
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// Put a backup in the place of the mirror
///
/// The daemon must be stopped. The backup is verified first, and brought to this program's schema; the
/// mirror that was there is kept beside it. The feed gets a new epoch, by which its readers see that they
/// must read `users` again, and the next sync of each instance is a full one. Run it as the account of the
/// daemon. `--config` says where the mirror is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: sudo -u musterd musterd restore /var/lib/musterd/backup-1.db")]
pub(crate) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn restore(args: &Restore, config: &Path) -> anyhow::Result<Exit> {
    let path = config::mirror_path(&outside::sources(config, Secrets::None))?;
    if let Some(owner) = outside::other_owner_of_the_folder(&path)? {
        let message = format!("the folder of the mirror belongs to another account (uid {owner})");
        return Err(Failure::new(message)
            .hint("files made by root could not be opened by the daemon: run this as its account, `sudo -u musterd musterd restore …`")
            .into());
    }
    let stamp = SystemClock.now().strftime("%Y%m%dT%H%M%S%.3fZ").to_string();
    let restored = put_back(&path, &args.file, &outside::epoch()?, &stamp);
    let restored = restored.map_err(|error| match error {
        error @ mirror::Error::Locked(_) => Failure::new("the mirror is in use")
            .hint("stop the daemon first: `systemctl stop musterd`")
            .because(error)
            .into(),
        error => anyhow::Error::from(error),
    })?;
    let mut output = Output::stdout();
    output.text(&format!(
        "restored and verified: {}; the feed has a new epoch, its readers read `users` again\n",
        content(&restored.verified)
    ))?;
    if let Some(kept) = restored.kept {
        output.text(&format!(
            "what was there is kept as `{}`: remove it once nobody misses it\n",
            kept.display()
        ))?;
    }
    output.flush()?;
    if let Some(untidy) = restored.untidy {
        let untidy = anyhow::Error::from(untidy);
        exit::note(&format!(
            "the backup is in its place, but not all could be put in order: {untidy:#}"
        ));
    }
    Ok(Exit::Done)
}

fn content(verified: &Verified) -> String {
    format!(
        "{}, {}",
        words::count(verified.users, "user"),
        words::count(verified.records, "record")
    )
}
