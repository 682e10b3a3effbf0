//! `musterd map import`, `pin` and `unpin`, carried out.

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::clock::SharedClock;
use crate::config::settings::IdentitySettings;
use crate::control::{Ended, Lines, Request};
use crate::mirror::Mirror;
use crate::mirror::profiles::{Imported, Piece};
use crate::model::{InstanceName, MatchedBy, Profile, ResourceType};

/// Whose profiles, and how they are matched.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    /// The mirror.
    pub mirror: &'a Mirror,
    /// Wall time.
    pub clock: &'a SharedClock,
    /// The instance.
    pub instance: &'a InstanceName,
    /// What is configured.
    pub settings: &'a IdentitySettings,
}

/// A piece of a list as a client sends it: see [`Piece`].
#[derive(Debug)]
struct Sent {
    /// Which import it is of; `None`: it is the first piece.
    number: Option<u64>,
    /// The range begins behind this profile.
    after: Option<String>,
    /// All profiles of the range.
    profiles: Vec<Profile>,
    /// Whether the range goes on to the last profile there is.
    is_last: bool,
    /// How many profiles the whole list would remove, or what is left of that.
    removals: u64,
    /// Whether that is meant, also above the guard.
    yes: bool,
}

/// Carries out one of the requests `import`, `pin` and `unpin`; `None` for any other.
///
/// # Errors
/// When the mirror cannot be used, the instance is not linked, or there is no such profile, user or pin.
pub async fn carry_out(
    of: Of<'_>,
    request: Request,
    lines: &Lines,
    stop: &CancellationToken,
) -> Option<anyhow::Result<Ended>> {
    Some(match request {
        Request::Import {
            number,
            after,
            profiles,
            last,
            removals,
            yes,
            ..
        } => {
            let sent = Sent {
                number,
                after,
                profiles,
                is_last: last,
                removals,
                yes,
            };
            import(of, sent, lines, stop).await
        }
        Request::Pin {
            profile, user_id, ..
        } => pin(of, profile, user_id).await,
        Request::Unpin { profile, .. } => unpin(of, profile, lines).await,
        _ => return None,
    })
}

/// The instance of such a request; `None` for any other.
#[must_use]
pub fn instance_of(request: &Request) -> Option<&str> {
    match request {
        Request::Import { instance, .. }
        | Request::Pin { instance, .. }
        | Request::Unpin { instance, .. } => Some(instance),
        _ => None,
    }
}

/// Imports a piece of a list, in several transactions where one would be long. Tells what came of it in one row; with the last piece
/// also how many profiles are in which state.
///
/// # Errors
/// When the mirror cannot be used, the instance is not linked, or another import was begun after this one. What earlier transactions imported stays: the same list once more goes
/// on with the rest.
async fn import(
    of: Of<'_>,
    sent: Sent,
    lines: &Lines,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let profiles = &sent.profiles;
    let is_sound = |one: &Profile| !one.profile.is_empty();
    anyhow::ensure!(
        profiles.iter().all(is_sound)
            && profiles.is_sorted_by(|one, next| one.profile < next.profile),
        "the profiles of a piece are not in order"
    );
    if !has_baseline(of).await? {
        // Whom a key leads to is not known before everybody was seen.
        return Ok(Ended::Failed(format!(
            "`{0}` has no baseline yet, nothing was changed: import again after its first full sync (`musterd status`)",
            of.instance
        )));
    }
    if sent.number.is_none()
        && let Some(why) = too_many(of, &sent).await?
    {
        return Ok(Ended::Failed(why));
    }
    take_up_keys(of, stop).await?;
    let mut piece = Piece {
        instance: of.instance.clone(),
        number: sent.number,
        rules: of.settings.rules.clone(),
        after: sent.after,
        profiles: sent.profiles,
        is_last: sent.is_last,
        most_removals: sent.removals,
        may_forget: sent.yes,
        now: of.clock.now(),
    };
    let mut sum = Imported::default();
    loop {
        piece.now = of.clock.now();
        let (returned, imported) = of
            .mirror
            .write(move |writer| {
                let imported = writer.import(&piece)?;
                Ok((piece, imported))
            })
            .await?;
        piece = returned;
        piece.number = Some(imported.number);
        piece.most_removals -= imported.removed;
        sum.created += imported.created;
        sum.changed += imported.changed;
        sum.removed += imported.removed;
        sum.moved += imported.moved;
        of.mirror.move_long_log().await;
        let Some(after) = imported.next_after else {
            break;
        };
        if stop.is_cancelled() {
            return Ok(Ended::Failed("stopped on the way: import again".to_owned()));
        }
        let done = piece.profiles.partition_point(|one| one.profile <= after);
        piece.profiles.drain(..done);
        piece.after = Some(after);
    }
    let states = match piece.is_last {
        true => Some(states(of).await?),
        false => None,
    };
    if let Some(states) = &states {
        info!(instance = %of.instance, states = %json!(states), "a list of profiles was imported");
    }
    lines
        .row(json!({
            "instance": of.instance.as_str(),
            "number": piece.number,
            "created": sum.created,
            "changed": sum.changed,
            "removed": sum.removed,
            "moved": sum.moved,
            "states": states,
        }))
        .await;
    Ok(Ended::Done)
}

/// Whether all users of the instance were seen once.
async fn has_baseline(of: Of<'_>) -> anyhow::Result<bool> {
    let name = of.instance.clone();
    let source = of
        .mirror
        .read(move |reader| reader.source(&name, ResourceType::User))
        .await?;
    Ok(source.baseline_at.is_some())
}

/// Why an import may not remove so many, in words; `None` where it may.
async fn too_many(of: Of<'_>, sent: &Sent) -> anyhow::Result<Option<String>> {
    let name = of.instance.clone();
    let n_profiles = of
        .mirror
        .read(move |reader| reader.n_profiles(&name))
        .await?;
    let is_whole = sent.after.is_none() && sent.is_last;
    if is_whole && sent.profiles.is_empty() && n_profiles > 0 && !sent.yes {
        // The guard lets a few leave: a short list would go with a file into which nothing was written.
        return Ok(Some(format!(
            "the list has no profile at all, and all {n_profiles} of `{}` would be removed, nothing was changed: `--yes` says that this is meant",
            of.instance
        )));
    }
    let limit = of.settings.removals;
    if sent.yes || !limit.is_exceeded(sent.removals, n_profiles) {
        return Ok(None);
    }
    Ok(Some(format!(
        "{} of {n_profiles} profiles of `{}` are not in the list and would be removed, more than {} and more than {} % \
         (`identity.removals`), nothing was changed: `--yes` says that this is meant",
        sent.removals, of.instance, limit.at_least, limit.percent
    )))
}

/// Before the first list of an instance the keys of its users are taken up, some thousand in a transaction.
async fn take_up_keys(of: Of<'_>, stop: &CancellationToken) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let (name, rules) = (of.instance.clone(), of.settings.rules.clone());
        let next = of
            .mirror
            .write(move |writer| writer.take_up_keys(&name, &rules, after.as_deref()))
            .await?;
        if next.is_none() {
            return Ok(());
        }
        anyhow::ensure!(!stop.is_cancelled(), "stopped before anything was imported");
        of.mirror.move_long_log().await;
        after = next;
    }
}

async fn states(of: Of<'_>) -> anyhow::Result<Map<String, Value>> {
    let name = of.instance.clone();
    let counts = of
        .mirror
        .read(move |reader| reader.identity_counts(&name))
        .await?;
    Ok(counts
        .into_iter()
        .map(|(state, n)| (state, json!(n)))
        .collect())
}

/// Links a profile to a user, whatever its keys say.
///
/// # Errors
/// When there is no such profile or user; when the mirror cannot be used.
async fn pin(of: Of<'_>, profile: String, user_id: String) -> anyhow::Result<Ended> {
    let (name, now) = (of.instance.clone(), of.clock.now());
    of.mirror
        .write(move |writer| writer.pin(&name, &profile, &user_id, now))
        .await?;
    Ok(Ended::Done)
}

/// Takes such a link away, and tells in one row how the profile stands without it.
///
/// # Errors
/// When there is no such profile, or no pin; when the mirror cannot be used.
async fn unpin(of: Of<'_>, profile: String, lines: &Lines) -> anyhow::Result<Ended> {
    let (name, now) = (of.instance.clone(), of.clock.now());
    let (profile, identity) = of
        .mirror
        .write(move |writer| {
            let identity = writer.unpin(&name, &profile, now)?;
            Ok((profile, identity))
        })
        .await?;
    lines
        .row(json!({
            "instance": of.instance.as_str(),
            "profile": profile,
            "user_id": identity.user_id,
            "matched_by": identity.matched_by.map(MatchedBy::as_str),
            "state": identity.state.as_str(),
            "candidates": identity.candidates,
        }))
        .await;
    Ok(Ended::Done)
}
