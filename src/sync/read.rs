//! The reading half of a sync: crawl, reconcile page by page, ask for the absent. No writer here.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use tracing::{debug, info, warn};

use super::error::Error;
use super::{Context, Phase, Progress, RESUME_MAX_AGE, Source, absent, lists, settle};
use crate::mirror::Reader;
use crate::mirror::apply::{Planned, Treatment, Watch};
use crate::mirror::read::SourceRow;
use crate::mirror::stage::{self, Interrupted, Stage, StageKey};
use crate::model::{
    Arrived, Capabilities, Certificate, Mode, Page, PageReport, Reject, ResourceType, Row,
};
use crate::reconcile;
use crate::scim::client::Session;
use crate::scim::crawl::{Crawl, CrawlOptions, CrawlPosition, Head};
use crate::scim::probe;

/// A sync as far as it reads: it has no writer, so that a dry run cannot write.
pub struct Reading {
    /// What is read.
    pub source: Source,
    /// Full or incremental.
    pub mode: Mode,
    /// What the mirror knew of the source at the start.
    pub before: SourceRow,
    /// The line to the instance.
    pub session: Session,
    /// Clock, end, progress.
    pub context: Context,
    /// Where the mirror stands.
    pub head: Head,
    /// Where the stage lies; `None` for a dry run.
    pub stage_path: Option<PathBuf>,
    /// Of the feed: a stage of another epoch does not fit.
    pub epoch: String,
}

/// What was read, ready to be applied.
pub struct Read {
    /// What was found, outside the mirror.
    pub stage: Stage,
    /// The connection that was read with.
    pub reader: Reader,
    /// What the crawl knows of its own completeness.
    pub certificate: Certificate,
    /// What the instance honours, where it was found out anew.
    pub capabilities: Option<Capabilities>,
    /// What becomes of what was found, the plan counted.
    pub treatment: Treatment,
    /// The hold of the guard `source_changed` that this read shows not to stand any more.
    pub mends: Option<i64>,
    /// Users who were not seen, and of whom it could not be proved that they are gone.
    pub unproved: u64,
}

/// What all pages of a crawl together say of the instance.
struct LookedBack {
    has_case_twins: bool,
    incrementals_see_nobody: bool,
}

/// Pages between two checkpoints of an interruptible crawl: a checkpoint costs about as much as
/// staging a page, and re-reading so many pages costs little.
const PAGES_PER_CHECKPOINT: u64 = 16;

/// How long an instance whose incremental syncs saw nobody is read in full, before it gets another chance.
const DISTRUST_INCREMENTALS_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Reading {
    /// Reads everything that the sync needs, and settles absence.
    ///
    /// # Errors
    /// Why the instance could not be read; what was staged stays for the next attempt.
    pub async fn read(&self, reader: Reader) -> Result<Read, Error> {
        let path = self.stage_path.clone();
        let check = move |_: &Reader| path.as_deref().map_or(Ok(()), stage::check_room);
        let (reader, ()) = with(reader, check).await?;
        let probed = self.probe().await?;
        let capabilities = probed.as_ref().unwrap_or(&self.before.capabilities).clone();
        let (reader, (stage, interrupted)) = with(reader, self.stage_opener()).await?;
        let resume = interrupted.and_then(|left| CrawlPosition::parse(&left.position).ok());
        let (stage, reader) = if resume.is_none() && stage.distinct() > 0 {
            self.afresh(stage, reader).await?
        } else {
            (stage, reader)
        };
        let mut crawl = Crawl::start(
            self.session.clone(),
            self.crawl_options(capabilities),
            Arc::clone(&self.head),
            resume,
        );
        let (stage, reader) = self.crawl_pages(&mut crawl, stage, reader).await?;

        let (stage, reader, seen) = self.look_back(stage, reader).await?;
        let finished = crawl.finish(stage.distinct(), stage.rejects()).await?;
        let certificate = finished.certificate;
        let capabilities = self.learn(finished.capabilities, probed.is_some(), seen);

        let (stage, reader, judgement) = absent::judge(self, stage, reader, &certificate).await?;
        let (stage, reader) = match judgement.treatment {
            // What is not applied need not be settled.
            Treatment::HeldWhole(_) | Treatment::Left => (stage, reader),
            _ => {
                let (stage, reader) = settle::doubtful(self, stage, reader).await?;
                lists::settle(self, stage, reader, &judgement.treatment).await?
            }
        };
        let (stage, reader, treatment) = self.plan(stage, reader, judgement.treatment).await?;
        Ok(Read {
            stage,
            reader,
            certificate,
            capabilities,
            treatment,
            mends: judgement.mends,
            unproved: judgement.unproved,
        })
    }

    /// Counts the whole plan, before anything of it is written.
    async fn plan(
        &self,
        stage: Stage,
        reader: Reader,
        treatment: Treatment,
    ) -> Result<(Stage, Reader, Treatment), Error> {
        if !matches!(treatment, Treatment::Guarded(_)) {
            return Ok((stage, reader, treatment));
        }
        let watch = self.watch();
        blocking(move || {
            let planned = Planned::of(&stage, &reader, &watch)?;
            Ok((stage, reader, Treatment::Guarded(planned)))
        })
        .await
    }

    /// The source, and what guards it, at this moment.
    pub(super) fn watch(&self) -> Watch {
        Watch {
            instance: self.source.instance.clone(),
            resource: self.source.resource,
            baseline_at: self.before.baseline_at,
            limits: self.source.limits.clone(),
            now: self.context.clock.now(),
        }
    }

    /// A full sync asks anew what the instance honours; an incremental one goes by what is known.
    async fn probe(&self) -> Result<Option<Capabilities>, Error> {
        if self.mode != Mode::Full {
            return Ok(None);
        }
        self.tell(Phase::Probing, 0, None);
        let found = probe::probe(&self.session, self.source.resource).await?;
        let known = &self.before.capabilities;
        Ok(Some(Capabilities {
            probed_at: Some(self.context.clock.now()),
            incrementals_missed_at: known.incrementals_missed_at.filter(|missed_at| {
                self.context.clock.now().duration_since(*missed_at) < DISTRUST_INCREMENTALS_FOR
            }),
            ids_differ_in_case: known.ids_differ_in_case,
            order_unknown: known.order_unknown,
            ..found
        }))
    }

    /// What all pages of a crawl together say of the instance.
    async fn look_back(
        &self,
        stage: Stage,
        reader: Reader,
    ) -> Result<(Stage, Reader, LookedBack), Error> {
        let last_full_at = match self.mode {
            Mode::Full => self.before.last_full_success_at,
            Mode::Incremental => None,
        };
        let is_full = self.mode == Mode::Full;
        let overlap = self.source.overlap;
        blocking(move || {
            let has_case_twins = is_full && stage.has_case_twins(&reader)?;
            let incrementals_see_nobody = match last_full_at {
                Some(at) => stage.incrementals_see_nobody(&reader, at, overlap)?,
                None => false,
            };
            Ok((
                stage,
                reader,
                LookedBack {
                    has_case_twins,
                    incrementals_see_nobody,
                },
            ))
        })
        .await
    }

    /// What was found out is kept for the next sync.
    fn learn(
        &self,
        mut known: Capabilities,
        probed: bool,
        seen: LookedBack,
    ) -> Option<Capabilities> {
        // It was read.
        known.forbidden = false;
        if self.mode == Mode::Full {
            known.ids_differ_in_case = seen.has_case_twins;
        }
        if seen.incrementals_see_nobody {
            warn!(
                instance = %self.source.instance,
                "incremental syncs saw nobody although {}s had changed: for a week every sync is a full one",
                self.source.resource.noun()
            );
            known.incrementals_missed_at = Some(self.context.clock.now());
        }
        self.tell_what_is_lacking(&known);
        (probed || known != self.before.capabilities).then_some(known)
    }

    /// Says once what the instance turned out not to honour, and that it does again.
    fn tell_what_is_lacking(&self, known: &Capabilities) {
        let before = &self.before.capabilities;
        let instance = &self.source.instance;
        match (
            before.modified_filter.is_lacking(),
            known.modified_filter.is_lacking(),
        ) {
            (false, true) => warn!(
                %instance,
                "the instance does not filter by `meta.lastModified`: every sync is a full one"
            ),
            (true, false) => info!(%instance, "the instance filters by `meta.lastModified` again"),
            _ => {}
        }
        if before.forbidden {
            info!(%instance, "groups can be read: they are mirrored from now on");
        }
        if self.source.resource != ResourceType::User {
            return;
        }
        match (
            before.inactive_shown.is_lacking(),
            known.inactive_shown.is_lacking(),
        ) {
            // It may be that there is none.
            (false, true) => info!(
                %instance,
                "no inactive user is shown: if there are any, leavers are found by full syncs only"
            ),
            (true, false) => info!(%instance, "inactive users are shown again"),
            _ => {}
        }
    }

    fn crawl_options(&self, capabilities: Capabilities) -> CrawlOptions {
        CrawlOptions {
            resource: self.source.resource,
            capabilities,
            since: self.since(),
        }
    }

    /// From where this sync reads; a full one reads everything.
    fn since(&self) -> Option<Timestamp> {
        match self.mode {
            Mode::Full => None,
            Mode::Incremental => self.before.watermark.map(|watermark| {
                watermark
                    .saturating_sub(self.source.overlap)
                    .unwrap_or(Timestamp::UNIX_EPOCH)
            }),
        }
    }

    fn stage_key(&self) -> StageKey {
        StageKey {
            instance: self.source.instance.clone(),
            resource: self.source.resource,
            mode: self.mode,
            fits: format!(
                "{} {} {} {:?}",
                self.source.crawl_digest,
                reconcile::mapping::MAPPING_VERSION,
                self.epoch,
                self.since(),
            ),
        }
    }

    /// Opens the stage of this sync, for a thread that waits for the disk.
    fn stage_opener(
        &self,
    ) -> impl FnOnce(&Reader) -> Result<(Stage, Option<Interrupted>), crate::mirror::Error>
    + Send
    + 'static {
        let key = self.stage_key();
        let (path, now) = (self.stage_path.clone(), self.context.clock.now());
        move |reader| {
            let path = path.as_deref();
            Stage::open(path, &key, reader, now, RESUME_MAX_AGE)
        }
    }

    /// Throws a stage away whose crawl cannot go on, and opens an empty one.
    async fn afresh(&self, stage: Stage, reader: Reader) -> Result<(Stage, Reader), Error> {
        let open = self.stage_opener();
        let (reader, (stage, _)) = with(reader, move |reader| {
            stage.remove()?;
            open(reader)
        })
        .await?;
        Ok((stage, reader))
    }

    async fn crawl_pages(
        &self,
        crawl: &mut Crawl,
        mut stage: Stage,
        mut reader: Reader,
    ) -> Result<(Stage, Reader), Error> {
        let mut pages = 0_u64;
        loop {
            let page = match crawl.next().await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok((stage, reader)),
                Err(error) => {
                    self.keep(stage, crawl).await?;
                    return Err(error.into());
                }
            };
            let resource = self.source.resource;
            let report;
            (stage, reader, report) = blocking(move || {
                let report = take(&mut stage, &reader, resource, page)?;
                Ok((stage, reader, report))
            })
            .await?;
            crawl.report(report);
            pages += 1;
            if pages.is_multiple_of(PAGES_PER_CHECKPOINT) {
                stage = self.keep(stage, crawl).await?;
            }
            self.tell(Phase::Reading, stage.distinct(), crawl.total());
        }
    }

    /// Makes what was read so far survive an interruption.
    async fn keep(&self, mut stage: Stage, crawl: &Crawl) -> Result<Stage, Error> {
        let position = crawl.position().to_text();
        blocking(move || {
            stage.checkpoint(&position)?;
            Ok(stage)
        })
        .await
    }

    /// Tells of progress.
    pub(super) fn tell(&self, phase: Phase, done: u64, total: Option<u64>) {
        (self.context.progress)(Progress {
            instance: self.source.instance.to_string(),
            mode: self.mode,
            phase,
            done,
            total,
        });
    }
}

/// One page: what is unchanged leaves a bit, the rest is decoded and staged.
fn take(
    stage: &mut Stage,
    reader: &Reader,
    resource: ResourceType,
    page: Page,
) -> Result<PageReport, Error> {
    let fresh = stage.compare(reader, &page)?;
    let mut arrived = Vec::with_capacity(fresh.len());
    let mut rejects = page.rejects;
    for decoded in decode(resource, &page.rows, &fresh) {
        match decoded {
            Ok(resource) => {
                if let Some(list) = resource.members.as_ref().filter(|list| list.mislinked > 0) {
                    debug!(
                        n_members = list.mislinked,
                        "members of a group are linked to another id than their value: their value counts"
                    );
                }
                arrived.push(resource);
            }
            Err(reject) => rejects.push(reject),
        }
    }
    Ok(stage.put(reader, page.base, arrived, rejects)?)
}

/// Fewer resources are not worth a thread.
const WORTH_A_THREAD: usize = 64;

/// Decodes these places of a page, a whole one on two cores: a first sync decodes everybody.
fn decode(resource: ResourceType, rows: &[Row], places: &[usize]) -> Vec<Result<Arrived, Reject>> {
    let decode = |places: &[usize]| -> Vec<_> {
        let rows = places.iter().map(|place| &rows[*place]);
        rows.map(|row| reconcile::decode::decode(resource, row))
            .collect()
    };
    if places.len() < WORTH_A_THREAD {
        return decode(places);
    }
    let (one, other) = places.split_at(places.len() / 2);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| decode(other));
        let mut decoded = decode(one);
        match other.join() {
            Ok(others) => decoded.extend(others),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        decoded
    })
}

/// Runs a piece of work that waits for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await?
}

/// Lends a reader to a piece of work that waits for the disk.
pub(super) async fn with<T: Send + 'static>(
    reader: Reader,
    work: impl FnOnce(&Reader) -> Result<T, crate::mirror::Error> + Send + 'static,
) -> Result<(Reader, T), Error> {
    blocking(move || {
        let value = work(&reader)?;
        Ok((reader, value))
    })
    .await
}
