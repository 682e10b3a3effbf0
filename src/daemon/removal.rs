//! `musterd unlink --drop`, carried out: the users of an instance that is not linked any more leave the mirror.

use anyhow::Context as _;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::clock::SharedClock;
use crate::control::{Ended, Lines};
use crate::mirror::{self, Mirror, stage};
use crate::model::{InstanceName, Mode, ResourceType};
use crate::sync;

/// Users removed in one transaction: about as much work as trimming so many records, so that the writer is free again after a
/// fraction of a second (promise P7).
const BATCH: u64 = 2_000;

/// Removes them. Nothing of the instance may be under way, or begin: it is `unlinked`.
///
/// # Errors
/// When the instance is linked; when the mirror cannot be used.
pub async fn remove(
    mirror: &Mirror,
    clock: &SharedClock,
    instance: &InstanceName,
    lines: &Lines,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let (name, now) = (instance.clone(), clock.now());
    let begun = mirror
        .write(move |writer| writer.begin_removal(&name, now))
        .await;
    let sync_id = match begun {
        // Another removal was first: whoever asked for it wanted just that.
        Err(mirror::Error::UnknownInstance(_)) => return Ok(Ended::Done),
        begun => begun?,
    };
    // An interrupted crawl would take whom it saw for known. Killed before this, the removal is begun again.
    for resource in [ResourceType::User, ResourceType::Group] {
        for mode in [Mode::Full, Mode::Incremental] {
            let path = sync::stage_path(mirror.path(), instance, resource, mode);
            stage::remove_files(&path)?;
        }
    }
    let (mut users, mut is_over) = (0, false);
    while !is_over {
        if stop.is_cancelled() {
            return Ok(Ended::Failed(format!(
                "stopped after {users} users of `{instance}`: begun again, it goes on with the others"
            )));
        }
        let (name, now) = (instance.clone(), clock.now());
        let removed = mirror
            .write(move |writer| writer.remove_users(&name, sync_id, now, BATCH))
            .await
            .with_context(|| format!("{users} users of `{instance}` are removed so far"))?;
        (users, is_over) = (users + removed.users, removed.is_over);
        mirror.move_long_log().await;
    }
    info!(%instance, n_users = users, "the users of an unlinked instance were removed");
    lines
        .row(json!({ "instance": instance.as_str(), "removed": users }))
        .await;
    Ok(Ended::Done)
}
