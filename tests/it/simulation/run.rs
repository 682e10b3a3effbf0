//! Runs a plan: life after life of the daemon over one mirror, until all is calm again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use musterd::clock::{Clock as _, SharedClock};
use musterd::model::Mode;
use musterd::sandbox::{self, RateRule, Sandbox};
use musterd::sync::Phase;

use super::clock::LifeClock;
use super::edits::{self, Edit};
use super::files::Files;
use super::laws::{Broken, Laws, Record, Sync};
use super::person;
use super::plan::{Arm, Death, Moment, Plan, Race, What};
use super::settings;
use super::sums::Sums;
use super::watch::{Line, Watch};
use crate::login::Login;
use crate::world::{Disk, START, Simulated, World};

/// What became of a seed.
pub(super) struct Report {
    pub(super) sums: Sums,
    pub(super) broken: Option<Broken>,
    /// What happened last.
    pub(super) lines: Vec<String>,
    /// All that happened, the feed, and the syncs, if that was asked for.
    pub(super) trace: Vec<String>,
}

/// Runs a plan to its end.
pub(super) fn run(plan: &Plan, traced: bool) -> Report {
    let mut run = Run::new(plan, traced);
    let ended = catch_unwind(AssertUnwindSafe(|| run.live_on()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("something");
        run.watch.fail(Broken {
            law: "nothing panics",
            what: text.to_owned(),
        });
    }
    run.report()
}

struct Run<'a> {
    plan: &'a Plan,
    world: World,
    clock: Arc<LifeClock>,
    watch: Arc<Watch>,
    next: usize,
    sums: Sums,
}

/// How a life ended.
enum End {
    Over,
    Stopped(Duration),
    /// With the files to put back, where what waited for the disk is not done.
    Died(Death, Option<Files>),
}

/// How long after a fault what it did may last, beside the period of full syncs: credentials that were
/// refused are let be for half an hour, and an instance that asks for it for an hour.
const AFTERMATH: Duration = Duration::from_mins(30 + 60);

/// What the syncs themselves take, slow as their rates are.
const SYNCING: Duration = Duration::from_mins(20);

impl<'a> Run<'a> {
    fn new(plan: &'a Plan, traced: bool) -> Self {
        let clock = Arc::new(LifeClock::starting_at(START.parse().unwrap()));
        let shared: SharedClock = Arc::clone(&clock) as _;
        let sandboxes: BTreeMap<String, Sandbox> = plan
            .instances
            .iter()
            .map(|instance| {
                let options = sandbox::Options {
                    users: instance.users,
                    groups: instance.groups.map_or(0, |groups| groups.number),
                    seed: instance.seed,
                    latency: instance.latency,
                    rate_limit: instance.rate_limit.map(RateRule::per_hour),
                    auth: settings::rules(instance),
                    ..sandbox::Options::default()
                };
                let sandbox = Sandbox::new(options, Arc::clone(&shared));
                (instance.name.to_owned(), sandbox)
            })
            .collect();
        let mut world = World::of(plan.seed, shared, sandboxes.clone());
        let laws = Laws::new(world.mirror_path(), plan);
        let watch = Arc::new(Watch::new(
            plan,
            Arc::clone(&clock),
            sandboxes,
            laws,
            traced,
        ));
        world.write_configuration(&settings::text(plan, &watch));
        world.listen();
        // Often enough for every minute that a schedule can name, and a mirror at rest costs nothing.
        world.set_paces(Duration::from_secs(60), Duration::from_hours(2));
        let looked_at = Arc::clone(&watch);
        world.set_lines(Arc::new(move |name, line| {
            Arc::new(Line::new(name, line, Arc::clone(&looked_at)))
        }));
        let told = Arc::clone(&watch);
        world.set_progress(Arc::new(move |progress| told.progressed(&progress)));
        Self {
            plan,
            world,
            clock,
            watch,
            next: 0,
            sums: Sums::default(),
        }
    }

    fn live_on(&mut self) {
        let mut deaths = self.plan.deaths.iter().copied();
        loop {
            let simulated = Simulated::new();
            let disk = simulated.disk();
            let end = simulated.block_on(self.live(deaths.next(), &disk));
            drop(simulated);
            self.world.bury();
            if let End::Died(death, files) = &end {
                if let Some(files) = files {
                    files.put_back(self.world.folder());
                }
                let step = self.step(death);
                *self.sums.deaths.entry(step).or_default() += 1;
                self.watch.note(|| format!("dies {step}: {death:?}"));
            }
            self.sums.lives += 1;
            self.watch.check();
            self.check_whole();
            if self.watch.is_broken() {
                return;
            }
            match end {
                End::Over => return,
                End::Stopped(down) => self.lie_still(down),
                End::Died(death, _) => self.lie_still(death.down),
            }
        }
    }

    /// One life of the daemon. Ends with nothing under way on the disk.
    async fn live(&mut self, death: Option<Death>, disk: &Disk) -> End {
        self.clock.begin_life();
        self.watch.begin_life(death);
        self.watch.note(|| format!("starts, to die: {death:?}"));
        self.world.start();
        let watch = Arc::clone(&self.watch);
        let dies = async {
            let death = watch.doomed().await;
            for _ in 0..death.steps {
                // Each is one turn of the disk: one step of every flow that waits for it.
                let _done = tokio::task::spawn_blocking(|| ()).await;
            }
            death
        };
        let mut end = tokio::select! {
            biased;
            death = dies => End::Died(death, None),
            end = self.go_through() => end,
        };
        if let End::Died(death, files) = &mut end
            && death.steps == 0
        {
            *files = Some(Files::of(self.world.folder()));
        }
        // What has begun comes to its end, as a write does whose process is killed.
        disk.catch_up();
        self.clock.end_life();
        end
    }

    /// What the flow was doing, by what it had told and what it left behind.
    fn step(&self, death: &Death) -> &'static str {
        let left = std::fs::read_dir(self.world.folder()).unwrap();
        let mut names = left.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
        let has_stage = names.any(|name| name.contains(".stage-"));
        let at_once = death.steps == 0 && matches!(death.after, Arm::Apply(_));
        match self.watch.seen().phase {
            None => "at the start",
            Some(Phase::Probing) => "probing",
            Some(Phase::Reading) => "reading",
            Some(Phase::Asking) => "asking",
            Some(Phase::Applying) if at_once => "before the transaction",
            Some(Phase::Applying) if has_stage => "after the transaction",
            Some(Phase::Applying) => "tidying",
        }
    }

    /// What happens in a life, up to the end of it or of all.
    async fn go_through(&mut self) -> End {
        while let Some(moment) = self.plan.moments.get(self.next) {
            self.wait_until(moment.at).await;
            if self.has_failed() {
                return End::Over;
            }
            // A moment that a death cuts off has been.
            self.next += 1;
            match moment.what {
                What::Stop(down) => return self.stop(down).await,
                What::Break(instance, after, down) => {
                    return self.break_off(instance, after, down).await;
                }
                _ => {}
            }
            self.happen(moment).await;
            self.watch.check();
        }
        self.wait_until(self.plan.busy).await;
        self.become_calm().await;
        End::Over
    }

    async fn wait_until(&self, at: Duration) {
        let left = at.saturating_sub(self.age());
        if !left.is_zero() {
            self.world.pass(left).await;
        }
    }

    /// How old the world is.
    fn age(&self) -> Duration {
        let began = START.parse::<jiff::Timestamp>().unwrap();
        Duration::try_from(self.clock.now().duration_since(began)).unwrap_or_default()
    }

    fn has_failed(&self) -> bool {
        if !self.world.is_running() {
            self.watch.fail(Broken {
                law: "the daemon runs until it is told to stop",
                what: self.clock.now().to_string(),
            });
        }
        self.watch.is_broken()
    }

    async fn stop(&mut self, down: Duration) -> End {
        self.watch.note(|| "is told to stop".to_owned());
        self.world.stop().await;
        self.sums.stops += 1;
        End::Stopped(down)
    }

    /// A full sync is under way when the daemon is told to stop, unless it was quick.
    async fn break_off(&mut self, instance: usize, after: Duration, down: Duration) -> End {
        let name = self.plan.instances[instance].name;
        self.watch
            .note(|| format!("{name}: a full sync to be broken off"));
        tokio::select! {
            biased;
            () = person::sync(&self.world, name, Some(Mode::Full)) => {}
            () = self.world.pass(after) => {}
        }
        self.stop(down).await
    }

    async fn happen(&mut self, moment: &Moment) {
        let names: Vec<&str> = self.plan.instances.iter().map(|one| one.name).collect();
        match &moment.what {
            What::Person { careful } => {
                let person = person::look(&self.world, &self.watch, *careful).await;
                self.sums.add_person(&person);
            }
            What::Reload(instance, page_size) => {
                self.watch
                    .note(|| format!("{}: page size {page_size}", names[*instance]));
                let text = settings::reloaded(self.plan, &self.watch, *instance, *page_size);
                self.world.write_configuration(&text);
                self.world.reload().await;
                self.sums.reloads += 1;
            }
            What::Sync(instance, mode) => {
                self.watch
                    .note(|| format!("{}: a person syncs {mode:?}", names[*instance]));
                person::sync(&self.world, names[*instance], *mode).await;
            }
            What::Race(instance, race) => self.race(names[*instance], race).await,
            _ => self.change(moment),
        }
    }

    /// People come and go while a full sync reads, and an incremental one sees first what became of it.
    async fn race(&self, name: &str, race: &Race) {
        self.watch.note(|| format!("{name}: a race of syncs"));
        let on_its_way = self.watch.begin_race(name, *race);
        let slow = async {
            person::sync(&self.world, name, Some(Mode::Full)).await;
            self.watch.end_race();
        };
        let fast = async {
            on_its_way.notified().await;
            person::sync(&self.world, name, Some(Mode::Incremental)).await;
        };
        tokio::join!(slow, fast);
    }

    /// What needs no daemon.
    fn change(&self, moment: &Moment) {
        let name = |instance: usize| self.plan.instances[instance].name;
        match &moment.what {
            What::Edit(instance, edit, lot) => {
                self.watch.edit(name(*instance), *edit, *lot);
            }
            What::Begin(instance, trouble) => self.watch.begin(name(*instance), *trouble),
            What::End(instance, number) => self.watch.end(name(*instance), *number),
            What::Person { .. }
            | What::Stop(_)
            | What::Reload(..)
            | What::Sync(..)
            | What::Race(..)
            | What::Break(..) => {}
        }
    }

    /// Nobody lives for a while; the directories do.
    fn lie_still(&mut self, down: Duration) {
        let until = self.age() + down;
        while let Some(moment) = self.plan.moments.get(self.next)
            && moment.at <= until
        {
            self.clock.pass(moment.at.saturating_sub(self.age()));
            self.change(moment);
            self.next += 1;
        }
        self.clock.pass(until.saturating_sub(self.age()));
    }

    /// Everything that was wrong ends. After one full period, and what the contract allows beside it, the
    /// mirror is the directory; after one more round nothing was written.
    async fn become_calm(&mut self) {
        self.watch.spare();
        for instance in &self.plan.instances {
            for moment in &self.plan.moments {
                if let What::Begin(_, trouble) = moment.what {
                    self.watch.end(instance.name, trouble.number);
                }
            }
            let sandbox = self.watch.sandbox(instance.name);
            self.watch.edit(instance.name, Edit::Unspoil, 0);
            edits::unlock(sandbox);
            let mut lots = fastrand::Rng::with_seed(instance.seed);
            while sandbox.ids().len() < 3 {
                edits::join(sandbox, None, &mut lots);
            }
            if instance.groups.is_some() {
                // Where nobody is shown in any group, that is not believed.
                for _ in 0..3 {
                    edits::found_desk(sandbox, &mut lots);
                }
            }
        }
        self.watch.observe();
        self.watch.note(|| "it is calm".to_owned());
        // A token that a person got while the door was locked is none.
        let is_given_by_hand = |login: Login| matches!(login, Login::Bearer | Login::RefreshToken);
        if self
            .plan
            .instances
            .iter()
            .any(|one| is_given_by_hand(one.auth))
        {
            self.world
                .write_configuration(&settings::text(self.plan, &self.watch));
            self.world.reload().await;
        }
        let began = self.clock.now();
        if person::is_anything_failing(&self.world) {
            self.world.pass(AFTERMATH).await;
        }
        loop {
            let round_began = self.clock.now();
            self.world.pass(self.plan.full_period() + SYNCING).await;
            self.watch.check();
            self.users_went_on(round_began);
            if self.has_failed() {
                return;
            }
            let person = person::look(&self.world, &self.watch, false).await;
            self.sums.add_person(&person);
            self.sums.calm_rounds += 1;
            let needs_another = self.needs_another(began);
            if self.sums.calm_rounds > 5 {
                self.watch.fail(Broken {
                    law: "it becomes calm",
                    what: format!("{person:?}"),
                });
                return;
            }
            // Above a guard nobody is asked for, and what was approved as another directory is taken over by the
            // next full sync; what a crawl had read before all was well is read anew by it, and so is what it read
            // before it met two ids that differ in case alone, which says how to read that instance. Who left before there
            // was a baseline is noticed by the crawl after the one that makes it.
            if person.looked_at == 0 && !needs_another {
                break;
            }
        }
        self.watch.check();
        for (name, sandbox) in self.world.sandboxes() {
            let laws = self.watch.laws();
            let has_groups = laws.reads_groups(name);
            let is_it = laws.is_the_directory(name, sandbox).and_then(|()| {
                let groups = || laws.has_its_groups(name, sandbox);
                if has_groups { groups() } else { Ok(()) }
            });
            drop(laws);
            if let Err(broken) = is_it {
                self.watch.fail(broken);
            }
        }
        self.rest().await;
        self.world.stop().await;
        // Of a sync that was under way, too.
        self.watch.check();
        self.is_tidy();
    }

    /// Groups never stop users: while something of them waits for a person, users were not only read in full.
    fn users_went_on(&self, since: jiff::Timestamp) {
        let laws = self.watch.laws();
        let stopped = self.plan.instances.iter().find(|instance| {
            let of_users = |sync: &&Sync| {
                sync.instance == instance.name
                    && sync.resource == "User"
                    && sync.started_at >= since
            };
            // In the longest period there are at least two ticks of incremental ones.
            laws.waits_for_groups_alone(instance.name)
                && laws.syncs.values().filter(of_users).count() < 2
        });
        let stopped = stopped.map(|instance| instance.name);
        drop(laws);
        if let Some(name) = stopped {
            self.watch.fail(Broken {
                law: "groups never stop users",
                what: format!("{name}: hardly any sync of users since {since}"),
            });
        }
    }

    /// What a sync kept beside the mirror is gone when it has succeeded. What one kept that was cut short is
    /// the next one's to go on with.
    fn is_tidy(&self) {
        let laws = self.watch.laws();
        let left = std::fs::read_dir(self.world.folder()).unwrap();
        let names = left.map(|file| file.unwrap().file_name().into_string().unwrap());
        let names: Vec<String> = names.collect();
        let sources = self.sources().flat_map(|source| {
            let modes = ["full", "incremental"].into_iter();
            modes.map(move |mode| (source, mode))
        });
        for ((instance, resource), mode) in sources {
            {
                let mut all = laws.syncs.values().rev();
                let newest = all.find(|sync| {
                    // Who approves keeps nothing.
                    sync.instance == instance
                        && sync.resource == resource
                        && sync.mode == mode
                        && (sync.outcome != "succeeded" || !sync.certificate.is_null())
                });
                let of = if resource == "Group" { "groups-" } else { "" };
                let stage = format!("mirror.db.stage-{instance}-{of}{mode}");
                if newest.is_some_and(|sync| sync.outcome == "succeeded")
                    // It, its log and its index.
                    && names.iter().any(|name| name.starts_with(&stage))
                {
                    self.watch.fail(Broken {
                        law: "no stage outlives its sync",
                        what: format!("{stage}: {newest:?}"),
                    });
                }
            }
        }
    }

    /// What is read: instance and resource type.
    fn sources(&self) -> impl Iterator<Item = (&'a str, &'static str)> {
        self.plan.instances.iter().flat_map(|instance| {
            let groups = instance.groups.is_some().then_some("Group");
            let resources = ["User"].into_iter().chain(groups);
            resources.map(|resource| (instance.name, resource))
        })
    }

    /// Whether the newest full sync of a source is one that went on with what an earlier one had read, that was not complete,
    /// as where it began by key and met two ids that differ in case alone, that made the baseline, or that found somebody gone, of whose company nobody
    /// is left for whose absence there was no witness.
    fn needs_another(&self, began: jiff::Timestamp) -> bool {
        let laws = self.watch.laws();
        self.sources().any(|(instance, resource)| {
            let mut full = laws.syncs.values().rev().filter(|sync| {
                sync.instance == instance
                    && sync.resource == resource
                    && sync.mode == "full"
                    && sync.outcome == "succeeded"
                    && sync.finished_at > began
            });
            let newest = full.next();
            let is_complete = |sync: &&Sync| {
                sync.instance == instance
                    && sync.resource == resource
                    && sync.mode == "full"
                    && sync.certificate["verdict"] == "complete"
            };
            let n_complete = laws.syncs.values().filter(is_complete).count();
            newest.is_some_and(|sync| {
                let is_its = |record: &&Record| record.sync_id == sync.id;
                let mut written = laws.records.iter().rev().filter(is_its);
                // Whoever is not shown stays in a group until proved gone: the crawl behind that believes the list.
                let is_left = |record: &&Record| {
                    record.instance == instance
                        && record.resource == "User"
                        && ["gone", "source_changed"].contains(&&*record.reason)
                };
                let mut left = laws.records.iter().rev();
                let left = left.find(is_left).map(|record| record.observed_at);
                resource == "Group" && left.is_some_and(|left| left > sync.started_at)
                    || sync.certificate["resumed"] == true
                    || is_complete(&sync) && n_complete == 1
                    || written.any(|record| record.reason == "gone")
                    || !is_complete(&sync)
            })
        })
    }

    /// Nothing changes, so nothing is written (promise P4).
    async fn rest(&mut self) {
        if self.has_failed() {
            return;
        }
        let n_records = self.watch.laws().records.len();
        let before = person::lists(&self.world);
        for instance in &self.plan.instances {
            person::sync(&self.world, instance.name, Some(Mode::Full)).await;
            person::sync(&self.world, instance.name, Some(Mode::Incremental)).await;
        }
        self.watch.check();
        let laws = self.watch.laws();
        let more = laws.records.get(n_records).cloned();
        drop(laws);
        if let Some(record) = more {
            self.watch.fail(Broken {
                law: "nothing changed writes nothing",
                what: format!("{record:?}"),
            });
        }
        let after = person::lists(&self.world);
        if let Some((one, other)) = before.iter().zip(&after).find(|(a, b)| a != b) {
            self.watch.fail(Broken {
                law: "nothing changed rewrites no row",
                what: format!("{one}, now {other}"),
            });
        }
    }

    fn check_whole(&self) {
        let checked = {
            let mut laws = self.watch.laws();
            let seen = self.watch.seen();
            laws.check_whole(&seen)
                .and_then(|()| laws.check_rates(&seen))
        };
        if let Err(broken) = checked {
            self.watch.fail(broken);
        }
    }

    fn report(mut self) -> Report {
        let laws = self.watch.laws();
        let mut seen = self.watch.seen();
        self.sums.seeds = 1;
        let has_groups = self.plan.instances.iter().any(|one| one.groups.is_some());
        self.sums.with_groups = has_groups.into();
        self.sums.days = self.age().as_secs() / 86_400;
        self.sums.add(&laws, &seen);
        let mut trace = seen.trace.take().unwrap_or_default();
        trace.extend(laws.records.iter().map(|record| format!("{record:?}")));
        trace.extend(laws.syncs.values().map(|sync| format!("{sync:?}")));
        Report {
            broken: seen.broken.take(),
            lines: seen.lines.iter().cloned().collect(),
            trace,
            sums: std::mem::take(&mut self.sums),
        }
    }
}
