//! All linked instances over one mirror: who may sync now, and what follows a sync.
//!
//! The daemon and a command that found the lock free do the same work through this.

use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use jiff::Timestamp;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::link::{Link, Links, Surroundings, check_pins, named, pins, reuse};
use super::meter::Meter;
use super::report::Reporter;
use super::requests::{Keep, Requests};
use crate::clock::SharedClock;
use crate::config::Settings;
use crate::config::settings::MirrorSettings;
use crate::mirror::apply::SyncRow;
use crate::mirror::read::{HoldRow, SourceChange};
use crate::mirror::trim::TrimOptions;
use crate::mirror::{self, Mirror};
use crate::model::{InstanceName, Mode, ResourceType};
use crate::sync::approve::Answer;
use crate::sync::{self, Context, Order, Progressing, Source};

/// All linked instances over one mirror.
pub struct Fleet {
    /// The mirror, opened for writing.
    pub mirror: Mirror,
    /// Wall time.
    pub clock: SharedClock,
    /// Tells the log what happened.
    pub reporter: Reporter,
    /// Counts what syncs come to.
    pub meter: Meter,
    /// Counts what was sent within the hour.
    requests: Arc<Requests>,
    in_force: RwLock<InForce>,
    /// One removal of an instance's users at a time.
    pub(super) removals: Mutex<()>,
}

/// What a new configuration replaces.
struct InForce {
    links: Links,
    /// Links that were taken out: what is under way of them comes to its end, and goes on to count.
    leaving: Vec<Arc<Link>>,
    full_syncs: Places,
    kept: MirrorSettings,
}

/// Places for full syncs. A new number goes for those under way as well.
#[derive(Clone)]
struct Places {
    free: Arc<Semaphore>,
    n_places: usize,
}

impl Fleet {
    /// Builds the clients of all instances, after the mirror has agreed that they are the ones it knows.
    ///
    /// # Errors
    /// [`super::link::PinError`] for a changed origin, which is a configuration error; what the mirror or the
    /// HTTP client says.
    pub async fn assemble(
        settings: &Settings,
        mirror: Mirror,
        surroundings: &Surroundings,
    ) -> anyhow::Result<Self> {
        let links = link_all(settings, &mirror, surroundings, &Links::new()).await?;
        let in_force = InForce {
            links,
            leaving: Vec::new(),
            full_syncs: Places::new(settings.daemon.max_full_syncs),
            kept: settings.mirror.clone(),
        };
        let now = surroundings.clock.now();
        let reporter = Reporter::default();
        reporter.resume(&mirror.read(move |reader| reader.health(now)).await?);
        let requests = Requests::beside(mirror.path()).await;
        requests.heed(in_force.links.values(), now);
        Ok(Self {
            requests: Arc::new(requests),
            mirror,
            clock: Arc::clone(&surroundings.clock),
            reporter,
            meter: Meter::default(),
            in_force: RwLock::new(in_force),
            removals: Mutex::default(),
        })
    }

    /// Puts a new configuration in force. Instances whose settings did not change keep their client
    /// with its token, its pace and its syncs under way. One that was taken out and is put back meanwhile goes on with those, too:
    /// else two syncs would share a stage, and each had a rate of its own (promise P8).
    ///
    /// # Errors
    /// As [`Fleet::assemble`]; then nothing changed.
    pub async fn reassemble(
        &self,
        settings: &Settings,
        surroundings: &Surroundings,
    ) -> anyhow::Result<()> {
        let known = self.in_force().known();
        let links = link_all(settings, &self.mirror, surroundings, &known).await?;
        self.requests.note(known.values(), self.clock.now());
        self.requests.heed(links.values(), self.clock.now());
        for link in links.values() {
            link.client.keep_to_own_limits();
        }
        let mut in_force = self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let left = known
            .values()
            .filter(|link| !settings.instances.contains_key(&link.name));
        in_force.leaving = left.cloned().collect();
        in_force.links = links;
        in_force.full_syncs.resize(settings.daemon.max_full_syncs);
        in_force.kept = settings.mirror.clone();
        Ok(())
    }

    fn in_force(&self) -> RwLockReadGuard<'_, InForce> {
        self.in_force.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All linked instances, by name.
    #[must_use]
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.in_force().links.values().cloned().collect()
    }

    /// An instance that was taken out, while something of it is under way.
    pub(super) fn leaving(&self, instance: &InstanceName) -> Option<Arc<Link>> {
        let in_force = self.in_force();
        let mut leaving = in_force.leaving();
        leaving.find(|link| link.name == *instance).cloned()
    }

    /// The instances that a command names, or all.
    ///
    /// # Errors
    /// When one is not in the configuration.
    pub fn named(&self, names: &[String]) -> anyhow::Result<Vec<Arc<Link>>> {
        named(&self.in_force().links, names)
    }

    /// Syncs every resource type of one instance, one after the other, each to its row of `syncs`. An
    /// incremental sync of an instance that looks like another directory does nothing, and has no row; so does a sync of groups
    /// that the account may not read.
    ///
    /// # Errors
    /// When the mirror cannot be used.
    pub async fn sync(
        &self,
        link: &Link,
        order: Order,
        cancel: &CancellationToken,
        progress: &Progressing,
    ) -> Result<Vec<SyncRow>, mirror::Error> {
        let mut rows = Vec::new();
        for source in link.sources() {
            let one = self.sync_one(link, source.resource, order, cancel, progress);
            rows.extend(one.await?);
        }
        Ok(rows)
    }

    /// The same of one resource type.
    ///
    /// # Errors
    /// When the mirror cannot be used.
    pub async fn sync_one(
        &self,
        link: &Link,
        resource: ResourceType,
        order: Order,
        cancel: &CancellationToken,
        progress: &Progressing,
    ) -> Result<Vec<SyncRow>, mirror::Error> {
        let context = Context {
            clock: Arc::clone(&self.clock),
            cancel: cancel.clone(),
            progress: Arc::clone(progress),
        };
        let source = link.source(resource);
        self.sync_source(link, &source, order, &context).await
    }

    async fn sync_source(
        &self,
        link: &Link,
        source: &Source,
        order: Order,
        context: &Context,
    ) -> Result<Vec<SyncRow>, mirror::Error> {
        let mut rows = Vec::new();
        let mut asked = order.mode;
        loop {
            let mode = self.mode_of(source, asked).await?;
            if source.resource == ResourceType::Group
                && (asked, mode) == (Some(Mode::Incremental), Mode::Full)
            {
                // Groups have a schedule of their own for that.
                break;
            }
            if mode == Mode::Incremental && self.waits_for_a_person(source).await? {
                debug!(instance = %source.instance, "no incremental sync while it looks like another directory");
                break;
            }
            // One sync of a source and mode at a time; full ones also wait for a place among all
            // instances. Whoever waited looks again: the baseline may have come meanwhile.
            let _turn = link.lane(source.resource, mode).lock().await;
            if self.mode_of(source, asked).await? != mode {
                continue;
            }
            let places = Arc::clone(&self.in_force().full_syncs.free);
            let _place = match mode {
                // The semaphore is never closed.
                Mode::Full => places.acquire_owned().await.ok(),
                Mode::Incremental => None,
            };
            if !self.in_force().links.contains_key(&link.name) {
                return Err(mirror::Error::NotLinked(link.name.clone()));
            }
            let order = Order {
                mode: Some(mode),
                ..order
            };
            let run = sync::run(&self.mirror, source, order, context);
            let ended = self.keeping_waits(link, run).await?;
            self.reporter
                .forbidden(&ended.row, ended.forbidden.as_deref());
            if ended.forbidden.is_some() {
                break;
            }
            // Before the log tells of it: whoever reads that finds it counted.
            self.meter.finished(&ended.row);
            self.reporter.finished(&ended.row);
            self.reporter.held(&ended.row, &ended.opened);
            self.reporter.unproved(&ended.row, ended.unproved);
            let follows = ended.follows;
            rows.push(ended.row);
            match follows {
                Some(mode) => asked = Some(mode),
                None => break,
            }
        }
        self.tidy(&context.cancel).await?;
        Ok(rows)
    }

    /// Approves a hold of one path of each user, as a sync of its own, to its row of `syncs`.
    ///
    /// # Errors
    /// When the mirror cannot be used.
    pub async fn approve(
        &self,
        link: &Link,
        hold: &HoldRow,
        cancel: &CancellationToken,
        progress: &Progressing,
    ) -> Result<(SyncRow, Vec<Answer>), mirror::Error> {
        let context = Context {
            clock: Arc::clone(&self.clock),
            cancel: cancel.clone(),
            progress: Arc::clone(progress),
        };
        let hold_id = hold.id;
        let resource = self
            .mirror
            .read(move |reader| reader.source_of_hold(hold_id));
        let source = link.source(resource.await?);
        let approve = sync::approve::approve(&self.mirror, &source, hold, &context);
        let (row, answers) = self.keeping_waits(link, approve).await?;
        self.meter.approved(&row);
        self.reporter.approved(&row);
        self.tidy(cancel).await?;
        Ok((row, answers))
    }

    /// Does something that asks an instance. What it is told to wait is kept at once, so that a death on the way forgets none of it
    /// (promise P8).
    async fn keeping_waits<T>(&self, link: &Link, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = link.client.told_to_wait() => self.keep_requests(Keep::Now).await,
            }
        }
    }

    async fn waits_for_a_person(&self, source: &Source) -> Result<bool, mirror::Error> {
        let (instance, resource) = (source.instance.clone(), source.resource);
        let read = self
            .mirror
            .read(move |reader| reader.source_change(&instance, resource));
        Ok(read.await? != SourceChange::None)
    }

    async fn mode_of(&self, source: &Source, asked: Option<Mode>) -> Result<Mode, mirror::Error> {
        let (instance, resource) = (source.instance.clone(), source.resource);
        let read = self
            .mirror
            .read(move |reader| reader.source(&instance, resource));
        Ok(sync::choose_mode(asked, &read.await?))
    }

    /// Trims what is older than the mirror remembers, and moves the write-ahead log into the file. Told
    /// to stop, it leaves the rest to the next time: after a shorter `mirror.history` that can be years.
    /// What a guard counts within its window is never too old: the feed is where it counts.
    ///
    /// # Errors
    /// When the mirror cannot be used.
    pub async fn tidy(&self, cancel: &CancellationToken) -> Result<(), mirror::Error> {
        let now = self.clock.now();
        let before = |age| now.saturating_sub(age).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut options = {
            let in_force = self.in_force();
            let links = in_force.links.values();
            let windows = links.map(|link| link.settings.guard.longest_window());
            let longest = windows.max().unwrap_or_default();
            let history = in_force.kept.history.map(|history| history.max(longest));
            TrimOptions::new(history.map(before), before(in_force.kept.sync_history))
        };
        while !cancel.is_cancelled() {
            let began = Instant::now();
            if !(self.mirror)
                .write(move |writer| writer.trim(&options))
                .await?
            {
                break;
            }
            options.pace(began.elapsed());
            self.mirror.move_long_log().await;
        }
        self.keep_requests(Keep::Soon).await;
        self.checkpoint().await
    }

    /// Keeps what was sent within the hour for `musterd status`.
    pub async fn keep_requests(&self, when: Keep) {
        let known = self.in_force().known();
        self.requests.note(known.values(), self.clock.now());
        self.requests.keep(when).await;
    }

    /// Moves the write-ahead log into the file where readers allow it.
    ///
    /// # Errors
    /// When the mirror cannot be used.
    pub async fn checkpoint(&self) -> Result<(), mirror::Error> {
        let wal_bytes = self.mirror.checkpoint().await?;
        self.reporter.wal(wal_bytes);
        Ok(())
    }
}

async fn link_all(
    settings: &Settings,
    mirror: &Mirror,
    surroundings: &Surroundings,
    known: &Links,
) -> anyhow::Result<Links> {
    let pins = pins(settings);
    let names: Vec<InstanceName> = settings.instances.keys().cloned().collect();
    let (pinned, not_before) = mirror
        .read(move |reader| {
            let not_before = names.iter().map(|name| reader.not_before(name));
            Ok((reader.pins()?, not_before.collect::<Result<Vec<_>, _>>()?))
        })
        .await?;
    check_pins(&pins, &pinned)?;
    let links = reuse(settings, surroundings, known)?;
    for (link, not_before) in links.values().zip(not_before) {
        if let Some(not_before) = not_before {
            link.client.set_not_before(not_before);
        }
    }
    mirror.write(move |writer| writer.link(&pins)).await?;
    Ok(links)
}

impl InForce {
    /// All links by name, those included that were taken out and of which something is under way.
    fn known(&self) -> Links {
        let leaving = self.leaving();
        let mut known: Links = leaving
            .map(|link| (link.name.clone(), Arc::clone(link)))
            .collect();
        known.extend(self.links.clone());
        known
    }

    /// Those of which something is under way, if it began with earlier settings, too: somebody else has the link, or its lanes.
    fn leaving(&self) -> impl Iterator<Item = &Arc<Link>> {
        (self.leaving.iter())
            .filter(|link| Arc::strong_count(link) > 1 || Arc::strong_count(&link.lanes) > 1)
    }
}

impl Places {
    fn new(n_places: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(n_places)),
            n_places,
        }
    }

    /// Makes it so many. Those that are taken go when they are given back.
    fn resize(&mut self, n_places: usize) {
        let before = std::mem::replace(&mut self.n_places, n_places);
        self.free.add_permits(n_places.saturating_sub(before));
        let surplus = before.saturating_sub(n_places);
        let taken = surplus - self.free.forget_permits(surplus);
        if let (Ok(taken), true) = (u32::try_from(taken), taken > 0) {
            let free = Arc::clone(&self.free);
            tokio::spawn(async move {
                // The semaphore is never closed.
                if let Ok(given_back) = free.acquire_many_owned(taken).await {
                    given_back.forget();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use super::super::outlets::Outlets;
    use super::*;
    use crate::clock::SystemClock;
    use crate::config::settings::MetricsSettings;
    use crate::config::{self, Sources};
    use crate::model::{Outcome, TallySnapshot, Trigger};
    use crate::scim::client::Exchange;
    use crate::scim::client::{Answer, BoxFuture, Request};
    use crate::scim::error::ExchangeError;

    struct Silent;

    impl Exchange for Silent {
        fn exchange(&self, _: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
            Box::pin(std::future::pending())
        }
    }

    fn surroundings() -> Surroundings {
        Surroundings {
            clock: Arc::new(SystemClock),
            exchange: Arc::new(|_| Ok(Arc::new(Silent))),
            seed: 1,
        }
    }

    fn settings(folder: &Path, max_full_syncs: usize, page_size: u32) -> Settings {
        let file = folder.join("musterd.toml");
        let text = format!(
            "daemon.max_full_syncs = {max_full_syncs}\nmirror.path = \"mirror.db\"\n\
             [instances.acme]\nurl = \"https://acme.service-now.com\"\npage_size = {page_size}\n\
             auth = {{ type = \"bearer\", token = \"t\" }}\n"
        );
        std::fs::write(&file, text).unwrap();
        let sources = Sources {
            file,
            env: BTreeMap::new(),
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
            secrets: config::Secrets::All,
        };
        config::load(&sources).unwrap()
    }

    async fn fleet(folder: &Path) -> Fleet {
        let settings = settings(folder, 2, 100);
        let mirror = Mirror::open(&settings.mirror.path, "epoch").unwrap();
        Fleet::assemble(&settings, mirror, &surroundings())
            .await
            .unwrap()
    }

    fn acme_of(settings: &Settings) -> Arc<Link> {
        let links = super::super::link::prepare(settings, &surroundings());
        links.unwrap().into_values().next().unwrap()
    }

    fn acme(fleet: &Fleet) -> Arc<Link> {
        fleet.links().pop().unwrap()
    }

    #[tokio::test]
    async fn what_is_under_way_ends_before_the_new_settings_sync() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = fleet(folder.path()).await;
        let before = acme(&fleet);
        before
            .client
            .set_not_before(fleet.clock.now() + Duration::from_secs(60));
        before.client.spent().request();
        let under_way = before.lane(ResourceType::User, Mode::Full).lock().await;
        fleet
            .reassemble(&settings(folder.path(), 2, 50), &surroundings())
            .await
            .unwrap();
        let after = acme(&fleet);
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(
            after
                .lane(ResourceType::User, Mode::Full)
                .try_lock()
                .is_err()
        );
        assert!(
            after
                .lane(ResourceType::User, Mode::Incremental)
                .try_lock()
                .is_ok()
        );
        assert!(
            after.client.not_before().is_some(),
            "it asked to be left alone"
        );
        // They share one gate: what one is told goes for both.
        let later = fleet.clock.now() + Duration::from_secs(600);
        before.client.set_not_before(later);
        assert!(after.client.not_before() > Some(later - Duration::from_secs(60)));
        // What is under way counts on, and so does what comes.
        before.client.spent().request();
        after.client.spent().request();
        assert_eq!(after.client.spent().snapshot().requests, 3);
        drop(under_way);
        assert!(
            after
                .lane(ResourceType::User, Mode::Full)
                .try_lock()
                .is_ok()
        );
    }

    /// What was told by one server is none of the other's, in this process or behind a restart.
    #[tokio::test]
    async fn a_new_address_has_no_wait_of_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = fleet(folder.path()).await;
        let before = acme(&fleet);
        let later = fleet.clock.now() + Duration::from_secs(600);
        before.client.set_not_before(later);
        before.client.spent().request();
        fleet.keep_requests(Keep::Now).await;
        let mut moved = settings(folder.path(), 2, 100);
        let instance = moved.instances.values_mut().next().unwrap();
        instance.client.origin = "https://new.service-now.com".parse().unwrap();
        let pin = super::super::link::pins(&moved).pop().unwrap();
        let relinked = fleet.mirror.write(move |writer| writer.relink(&pin));
        relinked.await.unwrap();
        fleet.reassemble(&moved, &surroundings()).await.unwrap();
        assert_eq!(acme(&fleet).client.not_before(), None);
        acme(&fleet).client.spent().request();

        // As a start finds it: the file had it of the old address.
        before.client.set_not_before(later);
        fleet.requests.note([&before], fleet.clock.now());
        fleet.requests.keep(Keep::Now).await;
        let path = fleet.mirror.path();
        super::super::requests::heed(path, &[acme(&fleet)], &fleet.clock).await;
        assert_eq!(acme(&fleet).client.not_before(), None);
        let again = acme_of(&settings(folder.path(), 2, 100));
        super::super::requests::heed(path, std::slice::from_ref(&again), &fleet.clock).await;
        assert!(
            again.client.not_before().is_some(),
            "of the address that asked for it"
        );
    }

    #[tokio::test]
    async fn an_instance_that_is_taken_out_and_put_back_goes_on_with_what_is_under_way() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = fleet(folder.path()).await;
        let load = async |settings: Settings| {
            fleet.reassemble(&settings, &surroundings()).await.unwrap();
        };
        let none = || {
            let mut settings = settings(folder.path(), 2, 100);
            settings.instances.clear();
            settings
        };
        let before = acme(&fleet);
        let under_way = before.lane(ResourceType::User, Mode::Full).lock().await;
        load(none()).await;
        // Another reload meanwhile forgets nothing.
        load(none()).await;
        assert!(fleet.leaving(&before.name).is_some());
        before.client.spent().request();
        load(settings(folder.path(), 2, 50)).await;
        let after = acme(&fleet);
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(fleet.leaving(&before.name).is_none());
        assert!(
            after
                .lane(ResourceType::User, Mode::Full)
                .try_lock()
                .is_err()
        );
        assert_eq!(after.client.spent().snapshot().requests, 1);
        let later = fleet.clock.now() + Duration::from_secs(600);
        before.client.set_not_before(later);
        assert!(after.client.not_before().is_some(), "one gate");
        // It began with other settings than those that are taken out now.
        drop(after);
        load(none()).await;
        assert!(fleet.leaving(&before.name).is_some());
        drop(under_way);
        // Nothing is under way any more: it leaves for good.
        drop(before);
        assert!(fleet.in_force().known().is_empty());
    }

    #[tokio::test]
    async fn nothing_begins_of_an_instance_that_was_taken_out_while_it_waited() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = fleet(folder.path()).await;
        let link = acme(&fleet);
        let mut settings = settings(folder.path(), 2, 100);
        settings.instances.clear();
        fleet.reassemble(&settings, &surroundings()).await.unwrap();
        let order = Order {
            mode: Some(Mode::Full),
            trigger: Trigger::Request,
        };
        let progress: Progressing = Arc::new(|_| {});
        let cancel = CancellationToken::new();
        let synced = fleet.sync(&link, order, &cancel, &progress).await;
        assert!(matches!(
            synced,
            Err(mirror::Error::NotLinked(name)) if name == link.name
        ));
        assert_eq!(link.client.spent().snapshot().requests, 0);
    }

    /// The file follows the ends of syncs, and not only the clock, which stands for a day here.
    #[tokio::test]
    async fn the_file_of_metrics_is_written_after_each_sync() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = Arc::new(fleet(folder.path()).await);
        let path = folder.path().join("m.prom");
        let (mut outlets, stop) = (Outlets::new(&fleet), CancellationToken::new());
        let settings = MetricsSettings {
            textfile: Some(path.clone()),
            ..MetricsSettings::default()
        };
        let port = outlets.take_port(&settings).await;
        assert!(outlets.follow(&settings, port, &stop).is_none());
        let day = Duration::from_secs(24 * 3600);
        let keeper = tokio::spawn(outlets.keep_file(day, stop.clone()));
        // The clock's first tick comes at once, and is no answer to a sync.
        let written = async |n: u64| {
            let line = format!(
                "musterd_syncs_total{{instance=\"acme\",mode=\"full\",outcome=\"failed\"}} {n}\n"
            );
            while !std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&line)) {
                tokio::task::yield_now().await;
            }
        };
        let in_time = Duration::from_secs(60);
        for n in 0..3 {
            tokio::time::timeout(in_time, written(n)).await.unwrap();
            fleet.meter.finished(&failed(fleet.clock.now()));
        }
        tokio::time::timeout(in_time, written(3)).await.unwrap();
        stop.cancel();
        keeper.await.unwrap();
    }

    fn failed(now: Timestamp) -> SyncRow {
        SyncRow {
            id: 1,
            instance: InstanceName::parse("acme").unwrap(),
            resource: ResourceType::User,
            mode: Mode::Full,
            trigger: Trigger::Schedule,
            started_at: now,
            finished_at: now,
            outcome: Outcome::Failed,
            certificate: None,
            seen: 0,
            created: 0,
            updated: 0,
            deactivated: 0,
            held: 0,
            rejected: 0,
            cost: TallySnapshot::default(),
            error: None,
        }
    }

    #[tokio::test]
    async fn a_reload_makes_no_more_places_for_full_syncs_than_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let fleet = fleet(folder.path()).await;
        let places = || Arc::clone(&fleet.in_force().full_syncs.free);
        let load = async |n| {
            fleet
                .reassemble(&settings(folder.path(), n, 100), &surroundings())
                .await
                .unwrap();
        };
        let taken = places().acquire_many_owned(2).await.unwrap();
        load(2).await;
        assert_eq!(places().available_permits(), 0);
        load(3).await;
        assert_eq!(places().available_permits(), 1);
        load(1).await;
        assert_eq!(places().available_permits(), 0);
        drop(taken);
        tokio::task::yield_now().await;
        assert_eq!(places().available_permits(), 1);
    }
}
