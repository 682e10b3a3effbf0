//! What requests ask for, done: by the daemon for a client of its socket, or by a command that found
//! the mirror's lock free.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Loader;
use super::fleet::Fleet;
use super::link::{self, Link, PinError};
use super::map;
use super::removal;
use super::requests::Keep;
use crate::clock::SharedClock;
use crate::config::{self, Settings};
use crate::control::{Ended, Execute, Lines, Request};
use crate::mirror::apply::SyncRow;
use crate::mirror::plan::Planning;
use crate::mirror::read::{HoldRow, SourceChange};
use crate::mirror::{self, Mirror, Reader};
use crate::model::{InstanceName, Mode, Outcome, ResourceType, Trigger};
use crate::scim::check;
use crate::scim::client::Priority;
use crate::sync::approve::Fate;
use crate::sync::{self, Context, Order, Progressing};

/// Told when a reload that a command asked for is over.
pub type Reply = oneshot::Sender<anyhow::Result<()>>;

/// Does what requests ask for.
pub struct Executor {
    /// The linked instances.
    pub fleet: Arc<Fleet>,
    /// Reads the configuration anew, for `relink`.
    pub load: Loader,
    /// Asks the daemon to put a new configuration in force; `None` outside of one.
    pub reload: Option<mpsc::Sender<Reply>>,
}

impl Execute for Executor {
    async fn execute(&self, request: Request, lines: Lines, stop: CancellationToken) -> Ended {
        let ended = match request {
            Request::Sync {
                instances,
                mode,
                dry_run: false,
            } => self.sync(&instances, mode, &lines, &stop).await,
            Request::Sync {
                instances,
                mode,
                dry_run: true,
            } => {
                let read = || Ok(self.fleet.mirror.reader()?);
                let clock = &self.fleet.clock;
                match self.fleet.named(&instances) {
                    Ok(links) => {
                        let planned = dry_run(&links, &read, mode, clock, &lines, &stop).await;
                        // What it was told to wait stands for all.
                        self.fleet.keep_requests(Keep::Now).await;
                        planned
                    }
                    Err(error) => Err(error),
                }
            }
            Request::Check { instances } => match self.fleet.named(&instances) {
                Ok(links) => {
                    let read = || Ok(Some(self.fleet.mirror.reader()?));
                    let checked = check(&links, &read, &self.fleet.clock, &lines, &stop).await;
                    self.fleet.keep_requests(Keep::Now).await;
                    checked
                }
                Err(error) => Err(error),
            },
            Request::Approve { hold_id, digest } => {
                self.approve(hold_id, &digest, &lines, &stop).await
            }
            Request::Relink { instance } => self.relink(&instance).await,
            Request::Drop { instance } => self.drop_users(&instance, &lines, &stop).await,
            request @ (Request::Import { .. } | Request::Pin { .. } | Request::Unpin { .. }) => {
                self.map(request, &lines, &stop).await
            }
            Request::Reload => self.put_in_force().await,
        };
        ended.unwrap_or_else(|error| failed(&error))
    }
}

/// A failure by its exit code: a wrong configuration is one, all else is another.
#[must_use]
pub fn failed(error: &anyhow::Error) -> Ended {
    if error.is::<config::Error>() || error.is::<PinError>() {
        Ended::Misconfigured(format!("{error:#}"))
    } else {
        let mut reason = format!("{error:#}");
        let of_the_mirror = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<mirror::Error>()?.hint()
        };
        if let Some(hint) = error.chain().find_map(of_the_mirror) {
            reason.push_str("; ");
            reason.push_str(hint);
        }
        Ended::Failed(reason)
    }
}

impl Executor {
    async fn sync(
        &self,
        names: &[String],
        mode: Option<Mode>,
        lines: &Lines,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let mut tasks = JoinSet::new();
        for link in self.fleet.named(names)? {
            let (fleet, lines, stop) = (Arc::clone(&self.fleet), lines.clone(), stop.clone());
            tasks.spawn(async move {
                let order = Order {
                    mode,
                    trigger: Trigger::Request,
                };
                let rows = fleet.sync(&link, order, &stop, &progress(&lines)).await?;
                for row in &rows {
                    lines.row(report(row)).await;
                }
                let mut ended = Ended::Done;
                for resource in link.settings.resources.iter().copied() {
                    let last = rows.iter().rfind(|row| row.resource == resource);
                    ended = worse(ended, outcome(&fleet, &link, resource, last, &lines).await?);
                }
                Ok::<_, anyhow::Error>(ended)
            });
        }
        let mut ended = Ended::Done;
        let mut trouble = None;
        // Each comes to its end: one that was dropped could have written records and no row of `syncs`.
        while let Some(one) = tasks.join_next().await {
            match one.map_err(anyhow::Error::from).flatten() {
                Ok(one) => ended = worse(ended, one),
                Err(error) => trouble = Some(error),
            }
        }
        trouble.map_or(Ok(ended), Err)
    }

    async fn approve(
        &self,
        hold_id: i64,
        digest: &str,
        lines: &Lines,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let approvable = || self.fleet.mirror.reader()?.approvable(hold_id, digest);
        let hold = approvable()?;
        let links = self.fleet.named(std::slice::from_ref(&hold.instance))?;
        let Some(link) = links.first() else {
            return Ok(Ended::Failed(String::new()));
        };
        // Whoever waited looks again: it may be approved by now.
        let _turn = link.approval_lane().lock().await;
        let hold = approvable()?;
        if hold.guard == "source_changed" {
            let (now, digest) = (self.fleet.clock.now(), digest.to_owned());
            self.fleet
                .mirror
                .write(move |writer| writer.approve_source_change(hold_id, &digest, now))
                .await?;
            lines
                .row(json!({
                    "hold_id": hold_id,
                    "result": Fate::Approved,
                    "why": format!(
                        "the next complete full sync of `{}` takes over what it finds: \
                         `musterd sync {0} --mode full` does so now",
                        hold.instance
                    ),
                }))
                .await;
            return Ok(Ended::Done);
        }
        let reader = self.fleet.mirror.reader()?;
        let resource = reader.source_of_hold(hold_id)?;
        match reader.source_change(&link.name, resource)? {
            SourceChange::None => {}
            SourceChange::Open(other) => bail!(
                "`{}` looks like another directory: hold {other} comes first, nothing was changed",
                hold.instance
            ),
            SourceChange::Approved(_) => bail!(
                "`{0}` is about to be taken over, which settles this hold too, nothing was changed: \
                 `musterd sync {0} --mode full` does so now",
                hold.instance
            ),
        }
        let (row, answers) = self
            .fleet
            .approve(link, &hold, stop, &progress(lines))
            .await?;
        let is_left = answers.iter().any(|answer| answer.result == Fate::Failed);
        for answer in &answers {
            lines.row(json!(answer)).await;
        }
        lines.row(report(&row)).await;
        Ok(match row.outcome {
            Outcome::Succeeded if is_left => Ended::Attention,
            Outcome::Succeeded => Ended::Done,
            Outcome::Failed | Outcome::Cancelled => Ended::Failed(String::new()),
        })
    }

    async fn relink(&self, instance: &str) -> anyhow::Result<Ended> {
        relink(&self.fleet.mirror, &(self.load)()?, instance).await?;
        self.put_in_force().await
    }

    async fn drop_users(
        &self,
        instance: &str,
        lines: &Lines,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let name = InstanceName::parse(instance)?;
        let _only = self.fleet.removals.lock().await;
        let leaving = self.fleet.leaving(&name);
        // Linked again meanwhile, it waits for its turn as well.
        let _turns = match &leaving {
            Some(link) => Some(link.lanes.all().await),
            None => None,
        };
        removal::remove(&self.fleet.mirror, &self.fleet.clock, &name, lines, stop).await
    }

    async fn map(
        &self,
        request: Request,
        lines: &Lines,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let instance = map::instance_of(&request).unwrap_or_default().to_owned();
        let links = self.fleet.named(&[instance])?;
        let link = links.first().context("an instance is named")?;
        let of = map::Of {
            mirror: &self.fleet.mirror,
            clock: &self.fleet.clock,
            instance: &link.name,
            settings: &link.settings.identity,
        };
        let ended = map::carry_out(of, request, lines, stop).await;
        ended.unwrap_or_else(|| Ok(Ended::Failed(String::new())))
    }

    async fn put_in_force(&self) -> anyhow::Result<Ended> {
        if let Some(reload) = &self.reload {
            let (reply, done) = oneshot::channel();
            if reload.send(reply).await.is_ok() {
                done.await??;
            }
        }
        Ok(Ended::Done)
    }
}

/// What a command makes of the syncs of one source, of which this was the last.
async fn outcome(
    fleet: &Fleet,
    link: &Link,
    resource: ResourceType,
    last: Option<&SyncRow>,
    lines: &Lines,
) -> anyhow::Result<Ended> {
    let name = link.name.clone();
    let standing = fleet.mirror.read(move |reader| {
        let change = reader.source_change(&name, resource)?;
        Ok((reader.open_holds(&name)?, change))
    });
    let (open_holds, change) = standing.await?;
    let is_held = open_holds > 0 || change != SourceChange::None;
    let nothing_done = match last {
        // Groups that are left out have no row either, and need nobody.
        None if resource != ResourceType::User && change == SourceChange::None => {
            return Ok(Ended::Done);
        }
        None => Some(Mode::Incremental),
        // The one that opened the hold says so by what it held.
        Some(row) if row.outcome == Outcome::Succeeded && row.held == 0 => {
            (change != SourceChange::None).then_some(row.mode)
        }
        Some(_) => None,
    };
    if let Some(mode) = nothing_done {
        lines.row(why_nothing(&link.name, mode, change)).await;
    }
    Ok(match last.map(|row| row.outcome) {
        Some(Outcome::Failed | Outcome::Cancelled) => Ended::Failed(String::new()),
        Some(Outcome::Succeeded) if !is_held => Ended::Done,
        // Nothing is done for what looks like another directory.
        Some(Outcome::Succeeded) | None => Ended::Attention,
    })
}

/// Says why a sync did nothing for what looks like another directory.
fn why_nothing(instance: &InstanceName, mode: Mode, change: SourceChange) -> serde_json::Value {
    let note = match (change, mode) {
        (SourceChange::Open(hold_id), Mode::Incremental) => format!(
            "looks like another directory, so incremental syncs wait: see `musterd holds show {hold_id}`"
        ),
        (SourceChange::Open(hold_id), Mode::Full) => format!(
            "looks like another directory, so nothing of it is applied: see `musterd holds show {hold_id}`"
        ),
        (SourceChange::Approved(_), Mode::Full) => format!(
            "only a complete full sync takes the new directory over, so nothing of this one is applied: \
             `musterd sync {instance} --mode full` tries again"
        ),
        (SourceChange::Approved(_) | SourceChange::None, _) => full_sync_first(instance),
    };
    json!({ "instance": instance.as_str(), "note": note })
}

fn full_sync_first(instance: &InstanceName) -> String {
    format!(
        "a full sync comes first: `musterd sync {instance} --mode full` takes the new directory over"
    )
}

/// Of two ends the one that a person must rather know of.
fn worse(one: Ended, other: Ended) -> Ended {
    let rank = |ended: &Ended| match ended {
        Ended::Done => 0,
        Ended::Attention => 1,
        Ended::Failed(_) | Ended::Misconfigured(_) => 2,
    };
    if rank(&other) > rank(&one) {
        other
    } else {
        one
    }
}

/// Takes over the configured origin of an instance.
///
/// # Errors
/// When the configuration or the mirror does not know it.
pub async fn relink(mirror: &Mirror, settings: &Settings, instance: &str) -> anyhow::Result<()> {
    let (name, configured) = settings
        .instances
        .iter()
        .find(|(name, _settings)| name.as_str() == instance)
        .ok_or_else(|| anyhow::anyhow!("no instance `{instance}` in the configuration"))?;
    let pin = link::pin(name, configured);
    Ok(mirror.write(move |writer| writer.relink(&pin)).await?)
}

/// Prints the plan of a sync of each instance, and writes nothing.
///
/// # Errors
/// Why a plan could not be made.
pub async fn dry_run(
    links: &[Arc<Link>],
    read: &(dyn Fn() -> anyhow::Result<Reader> + Sync),
    mode: Option<Mode>,
    clock: &SharedClock,
    lines: &Lines,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let mut ended = Ended::Done;
    for link in links {
        for source in link.sources() {
            let context = Context {
                clock: Arc::clone(clock),
                cancel: stop.clone(),
                progress: progress(lines),
            };
            let reader = read()?;
            let change = reader.source_change(&source.instance, source.resource)?;
            let known = reader.source(&source.instance, source.resource)?;
            if source.resource == ResourceType::Group
                && mode == Some(Mode::Incremental)
                && sync::choose_mode(mode, &known) == Mode::Full
            {
                continue;
            }
            if change != SourceChange::None && sync::choose_mode(mode, &known) == Mode::Incremental
            {
                let note = why_nothing(&source.instance, Mode::Incremental, change);
                lines.row(note).await;
                ended = Ended::Attention;
                continue;
            }
            let order = Order {
                mode,
                trigger: Trigger::Request,
            };
            let (instance, told) = (source.instance.clone(), lines.clone());
            let each = move |planning: Planning<'_>| {
                told.row_from_thread(planned(&instance, planning));
            };
            let planned = match sync::dry_run(reader, &source, order, &context, each).await {
                Err(error) if sync::shows_no_groups(source.resource, &known, &error) => {
                    let note = "groups are left out: the account is not shown any";
                    lines
                        .row(json!({ "instance": source.instance.as_str(), "note": note }))
                        .await;
                    continue;
                }
                planned => planned?,
            };
            if planned.left {
                let note = why_nothing(&source.instance, planned.mode, change);
                lines.row(note).await;
                ended = Ended::Attention;
            }
            let mut sum = serde_json::to_value(&planned)?;
            sum["instance"] = json!(source.instance.as_str());
            sum["resource"] = json!(source.resource.as_str());
            lines.row(json!({ "plan": sum })).await;
            if planned.held > 0 || read()?.open_holds(&source.instance)? > 0 {
                ended = Ended::Attention;
            }
        }
    }
    Ok(ended)
}

/// Probes each instance, and tells what was found and what is held of it. `read` is `None` while there is no
/// mirror.
///
/// # Errors
/// When the mirror cannot be read, or a probe ends unasked; what it finds wrong is a finding.
pub async fn check(
    links: &[Arc<Link>],
    read: &(dyn Fn() -> anyhow::Result<Option<Reader>> + Sync),
    clock: &SharedClock,
    lines: &Lines,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let mut tasks = JoinSet::new();
    for link in links {
        let standing = match read()? {
            Some(reader) => Standing::of(&reader, &link.name)?,
            None => Standing::default(),
        };
        let (link, lines, stop) = (Arc::clone(link), lines.clone(), stop.clone());
        let clock = Arc::clone(clock);
        tasks.spawn(async move {
            let session = link.client.session(Priority::High, stop);
            let found = check::check(session, &link.settings.resources, &*clock).await;
            let mut row = json!(found);
            row["holds"] = json!(standing.holds);
            row["note"] = json!(standing.note);
            row["groups_known_in_part"] = json!(standing.groups_known_in_part);
            lines.row(row).await;
            match (found.error, standing.is_calm()) {
                (Some(_), _) => Ended::Failed(String::new()),
                (None, false) => Ended::Attention,
                (None, true) => Ended::Done,
            }
        });
    }
    let mut ended = Ended::Done;
    while let Some(one) = tasks.join_next().await {
        ended = worse(ended, one?);
    }
    Ok(ended)
}

/// What of an instance waits for a person, or for what a person has approved.
#[derive(Default)]
struct Standing {
    /// Its open holds.
    holds: Vec<HoldRow>,
    /// What comes next, where that is not an approval.
    note: Option<String>,
    /// The first groups whose members are not all known.
    groups_known_in_part: Vec<String>,
}

/// So many groups are named by a check.
const GROUPS_NAMED: usize = 10;

impl Standing {
    fn of(reader: &Reader, instance: &InstanceName) -> Result<Self, mirror::Error> {
        let mut holds = reader.holds(false)?;
        holds.retain(|hold| hold.instance == instance.as_str());
        let note = match reader.source_change(instance, ResourceType::User)? {
            SourceChange::Approved(_) => Some(full_sync_first(instance)),
            SourceChange::Open(_) | SourceChange::None => None,
        };
        let groups_known_in_part = reader.known_in_part(instance.as_str(), GROUPS_NAMED)?;
        Ok(Self {
            holds,
            note,
            groups_known_in_part,
        })
    }

    fn is_calm(&self) -> bool {
        self.holds.is_empty() && self.note.is_none()
    }
}

fn progress(lines: &Lines) -> Progressing {
    let lines = lines.clone();
    Arc::new(move |progress| lines.progress(progress))
}

/// A row of `syncs` by its column names.
#[must_use]
pub fn report(row: &SyncRow) -> serde_json::Value {
    json!({
        "id": row.id,
        "instance": row.instance.as_str(),
        "resource": row.resource.as_str(),
        "mode": row.mode,
        "trigger": row.trigger,
        "started_at": crate::model::time::our_text(row.started_at),
        "finished_at": crate::model::time::our_text(row.finished_at),
        "outcome": row.outcome,
        "certificate": row.certificate,
        "seen": row.seen,
        "created": row.created,
        "updated": row.updated,
        "deactivated": row.deactivated,
        "held": row.held,
        "rejected": row.rejected,
        "requests": row.cost.requests,
        "retries": row.cost.retries,
        "bytes": row.cost.bytes,
        "throttled_ms": row.cost.throttled_ms,
        "error": row.error,
    })
}

/// A planned record by the column names of `changes`, without what only the feed gives it. One that would
/// be held has the path and the guard too.
fn planned(instance: &InstanceName, planning: Planning<'_>) -> serde_json::Value {
    let (record, held) = match planning {
        Planning::Write(record) => (record, None),
        Planning::Hold(held) => (held.record, Some(held)),
    };
    let raw = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    json!({
        "instance": instance.as_str(),
        "resource": record.resource.as_str(),
        "id": record.id.as_str(),
        "kind": record.kind.as_str(),
        "reason": record.reason.as_str(),
        "changed": record.changed.as_deref().map(raw),
        "after": raw(&record.after.canonical),
        "proof": record.proof,
        "held": held.map(|held| held.path),
        "guard": held.map(|held| held.guard),
    })
}
