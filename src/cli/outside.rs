//! What a real process is surrounded by: the computer's clock, the network, its environment, its lot.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::clock::{Clock as _, SystemClock};
use crate::config::settings::{InstanceSettings, LogSettings};
use crate::config::{self, Secrets, Sources};
use crate::daemon::link::Surroundings;
use crate::daemon::{HeartbeatLine, Loader};
use crate::logging::{self, ReloadHandle};
use crate::scim::client::Exchange;
use crate::scim::http::HttpExchange;

/// Clock, network and lot of this process.
pub(super) fn surroundings() -> anyhow::Result<Surroundings> {
    Ok(Surroundings {
        clock: Arc::new(SystemClock),
        exchange: Arc::new(|settings: &InstanceSettings| {
            Ok(Arc::new(HttpExchange::new(&settings.client)?) as Arc<dyn Exchange>)
        }),
        seed: u64::from_le_bytes(drawn()?),
    })
}

/// The line to whoever waits for heartbeats.
pub(super) fn heartbeat() -> HeartbeatLine {
    Arc::new(|url| {
        Ok(Arc::new(HttpExchange::towards(url, MAX_HEARTBEAT_BYTES)?) as Arc<dyn Exchange>)
    })
}

/// What is answered to a heartbeat says nothing beyond its status.
const MAX_HEARTBEAT_BYTES: usize = 64 * 1024;

/// Where the configuration comes from, and which of its secrets are needed.
pub(super) fn sources(config: &Path, secrets: Secrets) -> Sources {
    Sources {
        file: config.to_owned(),
        env: std::env::vars_os().collect(),
        now: SystemClock.now(),
        secrets,
    }
}

/// Reads the configuration of a daemon anew.
pub(super) fn loader(config: &Path) -> Loader {
    let config = config.to_owned();
    Arc::new(move || Ok(config::load(&sources(&config, Secrets::All))?))
}

/// Starts the log of this process on stderr.
pub(super) fn log(settings: &LogSettings) -> anyhow::Result<ReloadHandle> {
    let surroundings = logging::Surroundings::of_stderr(|name| std::env::var_os(name));
    Ok(logging::init(
        settings,
        surroundings,
        Arc::new(SystemClock),
        io::stderr,
    )?)
}

/// The folder that a file is in.
pub(super) fn folder_of(file: &Path) -> &Path {
    let folder = file.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new("."))
}

/// Whose folder the mirror is in, where this process is root's and the folder another account's: what root makes in it the
/// daemon could not open.
pub(super) fn other_owner_of_the_folder(mirror: &Path) -> anyhow::Result<Option<u32>> {
    let own = Path::new("/proc/self").metadata()?.uid();
    let owner = folder_of(mirror).metadata().map(|found| found.uid());
    // A folder that is not there is told of by whoever needs it.
    Ok(owner.ok().filter(|owner| own == 0 && *owner != 0))
}

/// A new feed's epoch.
pub(super) fn epoch() -> anyhow::Result<String> {
    let drawn: [u8; 16] = drawn()?;
    Ok(drawn.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn drawn<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the computer has no random numbers")?;
    Ok(bytes)
}
