//! One sync of one source, readable as a recipe: read, reconcile, settle what is doubtful, apply.
//!
//! Reading and writing are different types: [`Reading`] has no writer, and a dry run ends with it.

mod absent;
mod apply;
pub mod approve;
mod error;
mod lists;
mod read;
mod settle;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::mirror::apply::{Opened, SyncRow, Treatment};
use crate::mirror::plan::{Held, Planning, plan};
use crate::mirror::{self, Mirror, Reader};
use crate::model::{Capabilities, Doubt, InstanceName, Kind, Mode, Outcome, ResourceType, Trigger};
use crate::reconcile::guard::Limits;
use crate::scim::client::{Client, Priority, Session};

pub use error::Error;
pub use read::{Read, Reading};

/// What a sync reads and how: one resource type of one instance.
#[derive(Clone)]
pub struct Source {
    /// The instance.
    pub instance: InstanceName,
    /// The resource type.
    pub resource: ResourceType,
    /// All that talks to the instance.
    pub client: Arc<Client>,
    /// How far an incremental sync looks back behind the watermark.
    pub overlap: Duration,
    /// What its guards let through.
    pub limits: Limits,
    /// A digest of the configuration that decides what a crawl reads.
    pub crawl_digest: String,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// `None`: full when there is no baseline, else incremental.
    pub mode: Option<Mode>,
    /// What asked.
    pub trigger: Trigger,
}

/// Where a sync stands, for a progress bar and the status line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The instance.
    pub instance: String,
    /// The mode it runs in.
    pub mode: Mode,
    /// What it is doing.
    pub phase: Phase,
    /// Resources seen, absent ones asked, or records written, by phase.
    pub done: u64,
    /// Of how many, where that is known.
    pub total: Option<u64>,
}

/// What a sync is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Asking what the instance honours.
    Probing,
    /// Reading pages.
    Reading,
    /// Asking for those who were not seen, and for the doubtful.
    Asking,
    /// Writing records.
    Applying,
}

/// Told of progress now and then.
pub type Progressing = Arc<dyn Fn(Progress) + Send + Sync>;

/// All that a sync is given beside its source.
#[derive(Clone)]
pub struct Context {
    /// Wall time.
    pub clock: SharedClock,
    /// Ends the sync at its next step; nothing is lost.
    pub cancel: CancellationToken,
    /// Told of progress.
    pub progress: Progressing,
}

/// Where the stage of a sync lies: beside the mirror.
#[must_use]
pub fn stage_path(
    mirror: &Path,
    instance: &InstanceName,
    resource: ResourceType,
    mode: Mode,
) -> PathBuf {
    // No instance has a dash in its name.
    let of = match resource {
        ResourceType::User => "",
        ResourceType::Group | ResourceType::Membership => "groups-",
    };
    mirror::beside(mirror, &format!("stage-{instance}-{of}{}", mode.as_str()))
}

/// How long an interrupted crawl may be picked up again (contract, section 3).
const RESUME_MAX_AGE: Duration = Duration::from_hours(6);

/// Change records in one transaction (promise P2).
const RECORDS_PER_TRANSACTION: usize = 10_000;

/// How long one of several transactions goes on before it ends: with its commit, for which others wait as well, about a second
/// (promise P7), however slow the machine.
const TIME_PER_TRANSACTION: Duration = Duration::from_millis(250);

/// How a sync ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its row of `syncs`.
    pub row: SyncRow,
    /// The mode of the sync that must follow at once: a full one, where the filter of an incremental
    /// one turned out not to be honoured.
    pub follows: Option<Mode>,
    /// The holds that it opened.
    pub opened: Vec<Opened>,
    /// Users whom the instance did not show, and of whom it could not be proved that they are gone.
    pub unproved: u64,
    /// Whether the account may not read this source at all, though others: nothing was done, and there is no row.
    pub forbidden: Option<String>,
}

/// Runs one sync to its end, which is a row of `syncs` whatever happens.
///
/// # Errors
/// When the mirror cannot even record the end.
pub async fn run(
    mirror: &Mirror,
    source: &Source,
    order: Order,
    context: &Context,
) -> Result<Ended, mirror::Error> {
    Attempt::begin(mirror, source, order, context)
        .await?
        .run()
        .await
}

/// What a sync would write and hold, in the order of ids, handed one by one to `each`. Writes nothing
/// but a temporary file.
///
/// # Errors
/// Why it could not be found out.
pub async fn dry_run(
    reader: Reader,
    source: &Source,
    order: Order,
    context: &Context,
    mut each: impl FnMut(Planning<'_>) + Send + 'static,
) -> Result<Planned, Error> {
    let before = reader.source(&source.instance, source.resource)?;
    let mode = choose_mode(order.mode, &before);
    let session = session(source, mode, context);
    let (base, epoch) = (reader.base()?, reader.feed()?.epoch);
    let reading = Reading {
        source: source.clone(),
        mode,
        before,
        session,
        context: context.clone(),
        head: Arc::new(move || base),
        stage_path: None,
        epoch,
    };
    let read = reading.read(reader).await?;
    if read.certificate.verdict == crate::model::Verdict::Refused {
        return Err(Error::Refused(Box::new(read.certificate)));
    }
    let watch = reading.watch();
    read::blocking(move || {
        let Read {
            stage,
            reader,
            certificate,
            treatment,
            ..
        } = read;
        let mut planned = Planned {
            mode,
            certificate,
            created: 0,
            updated: 0,
            deactivated: 0,
            held: 0,
            holds: Vec::new(),
            left: treatment == Treatment::Left,
        };
        let mut each = |planning: Planning<'_>| {
            planned.count(planning);
            each(planning);
        };
        plan(&stage, &reader, &watch, &treatment, &mut each)?;
        stage.remove()?;
        Ok(planned)
    })
    .await
}

/// The sum of a dry run.
#[derive(Clone, Debug, Serialize)]
pub struct Planned {
    /// The mode it ran in.
    pub mode: Mode,
    /// What the crawl knows of its completeness.
    pub certificate: crate::model::Certificate,
    /// `create` records.
    pub created: u64,
    /// `update` records.
    pub updated: u64,
    /// `deactivate` records.
    pub deactivated: u64,
    /// Changes that would be kept back.
    pub held: u64,
    /// The holds that would be opened with them.
    pub holds: Vec<PlannedHold>,
    /// Whether all of it would be left as it is, because it looks like another directory.
    #[serde(skip)]
    pub left: bool,
}

/// A hold that a sync would open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedHold {
    /// Which guard.
    pub guard: &'static str,
    /// The attribute of a blanking.
    pub attribute: Option<String>,
    /// Changes in it.
    pub count: u64,
    /// The limit that is exceeded, for people; of several, each of them.
    #[serde(serialize_with = "joined")]
    pub limit_text: BTreeSet<String>,
}

fn joined<S: serde::Serializer>(limits: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
    let limits: Vec<&str> = limits.iter().map(String::as_str).collect();
    to.serialize_str(&limits.join(mirror::apply::BETWEEN_LIMITS))
}

impl Planned {
    fn count(&mut self, planning: Planning<'_>) {
        let count = match planning {
            Planning::Hold(held) => {
                self.hold(held);
                &mut self.held
            }
            Planning::Write(record) => match record.kind {
                Kind::Create => &mut self.created,
                Kind::Update => &mut self.updated,
                Kind::Deactivate => &mut self.deactivated,
            },
        };
        *count += 1;
    }

    /// Holds are in the order of guards and attributes, as a sync opens them.
    fn hold(&mut self, held: Held<'_>) {
        let group = (held.guard, held.attribute);
        let of = |hold: &PlannedHold| (hold.guard, hold.attribute.as_deref()).cmp(&group);
        let place = self.holds.binary_search_by(of).unwrap_or_else(|place| {
            let hold = PlannedHold {
                guard: held.guard,
                attribute: held.attribute.map(str::to_owned),
                count: 0,
                limit_text: BTreeSet::new(),
            };
            self.holds.insert(place, hold);
            place
        });
        let hold = &mut self.holds[place];
        hold.count += 1;
        if !hold.limit_text.contains(held.limit_text) {
            hold.limit_text.insert(held.limit_text.to_owned());
        }
    }
}

/// One sync under way.
struct Attempt<'a> {
    mirror: &'a Mirror,
    source: &'a Source,
    context: &'a Context,
    trigger: Trigger,
    started_at: Timestamp,
    reading: Reading,
}

impl<'a> Attempt<'a> {
    async fn begin(
        mirror: &'a Mirror,
        source: &'a Source,
        order: Order,
        context: &'a Context,
    ) -> Result<Self, mirror::Error> {
        let (instance, resource) = (source.instance.clone(), source.resource);
        let read = mirror
            .read(move |reader| Ok((reader.source(&instance, resource)?, reader.feed()?.epoch)));
        let (before, epoch) = read.await?;
        let mode = choose_mode(order.mode, &before);
        let head = {
            let mirror = mirror.clone();
            Arc::new(move || mirror.base())
        };
        let reading = Reading {
            source: source.clone(),
            mode,
            before,
            session: session(source, mode, context),
            context: context.clone(),
            head,
            stage_path: Some(stage_path(
                mirror.path(),
                &source.instance,
                source.resource,
                mode,
            )),
            epoch,
        };
        Ok(Self {
            mirror,
            source,
            context,
            trigger: order.trigger,
            started_at: context.clock.now(),
            reading,
        })
    }

    /// The recipe, and what must be done when it fails.
    async fn run(self) -> Result<Ended, mirror::Error> {
        let mut row = self.blank_row();
        let mut learned = None;
        match self.recipe(&mut row, &mut learned).await {
            Ok((opened, unproved)) => Ok(Ended {
                row,
                follows: None,
                opened,
                unproved,
                forbidden: None,
            }),
            Err(error) if shows_no_groups(self.source.resource, &self.reading.before, &error) => {
                self.note_forbidden().await?;
                Ok(Ended {
                    row,
                    follows: None,
                    opened: Vec::new(),
                    unproved: 0,
                    forbidden: Some(error.chain()),
                })
            }
            Err(error) => {
                let follows = self.follows(&error);
                self.record_failure(&mut row, error, learned).await?;
                Ok(Ended {
                    row,
                    follows,
                    opened: Vec::new(),
                    unproved: 0,
                    forbidden: None,
                })
            }
        }
    }

    /// What is `learned` of the instance is kept also when nothing else is believed.
    async fn recipe(
        &self,
        row: &mut SyncRow,
        learned: &mut Option<Capabilities>,
    ) -> Result<(Vec<Opened>, u64), Error> {
        let reader = self.mirror.lend().await?;
        let read = self.reading.read(reader).await?;
        row.certificate = Some(read.certificate.clone());
        row.seen = read.certificate.distinct;
        row.rejected = read.certificate.rejects;
        if read.certificate.verdict == crate::model::Verdict::Refused {
            read.stage.abandon();
            *learned = read.capabilities;
            return Err(Error::Refused(Box::new(read.certificate)));
        }
        let unproved = read.unproved;
        Ok((apply::apply(self, read, row).await?, unproved))
    }

    fn blank_row(&self) -> SyncRow {
        SyncRow {
            id: 0,
            instance: self.source.instance.clone(),
            resource: self.source.resource,
            mode: self.reading.mode,
            trigger: self.trigger,
            started_at: self.started_at,
            finished_at: self.started_at,
            outcome: Outcome::Succeeded,
            certificate: None,
            seen: 0,
            created: 0,
            updated: 0,
            deactivated: 0,
            held: 0,
            rejected: 0,
            cost: self.reading.session.tally.snapshot(),
            error: None,
        }
    }

    /// An incremental sync that the instance does not really answer is followed by a full one.
    fn follows(&self, error: &Error) -> Option<Mode> {
        let unheeded = matches!(error, Error::Refused(certificate)
            if certificate.reasons.iter().any(|doubt| matches!(doubt, Doubt::FilterIgnored | Doubt::FilterRefused)));
        (self.reading.mode == Mode::Incremental && unheeded).then_some(Mode::Full)
    }

    /// Keeps that the account may not read this source: said once, also over restarts.
    async fn note_forbidden(&self) -> Result<(), mirror::Error> {
        let (instance, resource) = (self.source.instance.clone(), self.source.resource);
        let capabilities = Capabilities {
            forbidden: true,
            ..self.reading.before.capabilities.clone()
        };
        self.mirror
            .write(move |writer| writer.set_capabilities(&instance, resource, &capabilities))
            .await
    }

    async fn record_failure(
        &self,
        row: &mut SyncRow,
        error: Error,
        learned: Option<Capabilities>,
    ) -> Result<(), mirror::Error> {
        row.cost = self.reading.session.tally.snapshot();
        row.outcome = if error.is_cancelled() {
            Outcome::Cancelled
        } else {
            Outcome::Failed
        };
        row.error = Some(error.chain());
        // Also one that a sync would have sat out: the next start must keep to it (promise P8).
        let not_before = self.source.client.not_before();
        let mut record = row.clone();
        let clock = Arc::clone(&self.context.clock);
        *row = self
            .mirror
            .write(move |writer| {
                writer.stamp(&mut record, &*clock)?;
                writer.fail(&record, not_before)?;
                if let Some(capabilities) = &learned {
                    writer.set_capabilities(&record.instance, record.resource, capabilities)?;
                }
                Ok(record)
            })
            .await?;
        Ok(())
    }
}

/// Whether the account is shown no groups, and never was: by a refusal, or by an empty list. Where groups are mirrored already a
/// refusal is a failure, because what the mirror has of them grows old; and that their list is empty is not believed.
#[must_use]
pub fn shows_no_groups(
    resource: ResourceType,
    before: &mirror::read::SourceRow,
    error: &Error,
) -> bool {
    let is_empty = matches!(error, Error::Refused(found) if found.reasons == [Doubt::Empty]);
    resource != ResourceType::User
        && before.baseline_at.is_none()
        && (error.is_forbidden() || is_empty)
}

/// Full when that was asked for, when there is nothing to go on from, or when the instance does not
/// honour the filter of incremental syncs. A tick of the incremental schedule needs no baseline: where
/// people come and go all day no crawl may ever be complete, and leavers must be seen all the same.
#[must_use]
pub fn choose_mode(asked: Option<Mode>, before: &mirror::read::SourceRow) -> Mode {
    let can_be_incremental = before.watermark.is_some()
        && before.capabilities.incrementals_missed_at.is_none()
        && !before.capabilities.modified_filter.is_lacking();
    match asked {
        Some(Mode::Full) => Mode::Full,
        Some(Mode::Incremental) if can_be_incremental => Mode::Incremental,
        None if can_be_incremental && before.baseline_at.is_some() => Mode::Incremental,
        Some(Mode::Incremental) | None => Mode::Full,
    }
}

/// Incremental syncs go before full ones, whoever asked (promise P8).
fn session(source: &Source, mode: Mode, context: &Context) -> Session {
    let priority = match mode {
        Mode::Incremental => Priority::High,
        Mode::Full => Priority::Low,
    };
    source.client.session(priority, context.cancel.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::mirror::read::Pin;
    use crate::scim::client::Exchange;
    use crate::scim::script::{self, Script, json_with};

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_was_asked_for_outlives_the_process_that_sat_it_out() {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(|_, _| json_with(429, &[("retry-after", "120")], "{}"));
        let options = script::options(script::basic(), folder.path());
        let instance = options.instance.clone();
        let clock: SharedClock = Arc::new(ManualClock::starting_at(
            "2026-03-01T08:00:00Z".parse().unwrap(),
        ));
        let mirror = Mirror::open(&folder.path().join("mirror.db"), "epoch").unwrap();
        let pin = Pin {
            instance: instance.clone(),
            url: script::origin().to_string(),
            scim_path: options.scim_path.clone(),
            resources: vec![ResourceType::User],
        };
        let link = mirror.write(move |writer| writer.link(&[pin]));
        link.await.unwrap();
        let exchange: Arc<dyn Exchange> = Arc::clone(&script) as _;
        let source = Source {
            instance: instance.clone(),
            resource: ResourceType::User,
            client: Arc::new(Client::new(options, exchange, Arc::clone(&clock), 7)),
            overlap: Duration::ZERO,
            limits: Limits::none(),
            crawl_digest: String::new(),
        };
        let context = Context {
            clock: Arc::clone(&clock),
            cancel: CancellationToken::new(),
            progress: Arc::new(|_| {}),
        };
        let order = Order {
            mode: None,
            trigger: Trigger::Startup,
        };
        let stop = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            context.cancel.cancel();
        };
        let (ended, ()) = tokio::join!(run(&mirror, &source, order, &context), stop);
        assert_eq!(ended.unwrap().row.outcome, Outcome::Cancelled);
        assert_eq!(script.count(false), 1);
        let not_before = mirror.reader().unwrap().not_before(&instance).unwrap();
        let left = not_before.unwrap().duration_since(clock.now()).as_secs();
        assert!((90..=100).contains(&left), "{left} s");
    }
}
