//! What a seed stands for: a world, and everything that will happen in it.
//!
//! Each part of a plan draws from a generator of its own, so that a new part leaves the others as they
//! were and a seed that once found something goes on doing so.

use std::time::Duration;

use fastrand::Rng;
use musterd::model::Mode;

use super::edits::{Edit, GroupEdit};
use super::mishaps;
use crate::login::Login;

/// Everything that one seed stands for.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) instances: Vec<Instance>,
    /// How long the mirror remembers, in days.
    pub(super) history_days: u32,
    /// Until when things happen; then it must become calm.
    pub(super) busy: Duration,
    /// What happens at times, in their order.
    pub(super) moments: Vec<Moment>,
    /// What happens between two requests.
    pub(super) amid: Vec<Amid>,
    /// How each life of the daemon ends, before the last.
    pub(super) deaths: Vec<Death>,
}

/// One instance, and how it is synced.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) name: &'static str,
    pub(super) users: usize,
    pub(super) seed: u64,
    pub(super) auth: Login,
    pub(super) latency: Duration,
    pub(super) rate_limit: Option<u32>,
    pub(super) page_size: u32,
    pub(super) concurrency: u32,
    pub(super) overlap_minutes: u32,
    pub(super) incremental: Every,
    pub(super) full: Every,
    pub(super) splay: [Duration; 2],
    pub(super) per_second: u32,
    pub(super) burst: u32,
    pub(super) per_hour: Option<u32>,
    pub(super) guard: Guard,
    /// What is read beside users; `None`: nothing.
    pub(super) groups: Option<Groups>,
}

/// The groups of an instance, and how they are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups {
    /// How many there are at the start.
    pub(super) number: usize,
    pub(super) full: Every,
    pub(super) splay: Duration,
    pub(super) memberships: MemberGuard,
    pub(super) group_memberships: MemberGuard,
}

/// A schedule that a cron expression can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Every {
    pub(super) minutes: u32,
    /// The minute of the hour, where it is hours.
    pub(super) at: u32,
}

/// What the guards let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) at_least: u64,
    pub(super) count: u64,
    pub(super) percent: u64,
    pub(super) window_hours: u32,
    pub(super) source_at_least: u64,
    pub(super) source_percent: u64,
}

/// How many members may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberGuard {
    pub(super) at_least: u64,
    pub(super) count: u64,
    pub(super) percent: u64,
    pub(super) window_hours: u32,
}

/// Something that happens at a time.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// Since the world began.
    pub(super) at: Duration,
    pub(super) what: What,
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// Somebody changes a directory.
    Edit(usize, Edit, u64),
    /// A fault begins.
    Begin(usize, Trouble),
    /// The fault of this number ends.
    End(usize, usize),
    /// A person looks at what is held. A careful one approves nothing while something is wrong there.
    Person { careful: bool },
    /// The daemon is told to stop, and started again after so long.
    Stop(Duration),
    /// The configuration changes in the daemon's life: this page size.
    Reload(usize, u32),
    /// A person asks for a sync.
    Sync(usize, Option<Mode>),
    /// A person asks for a full sync, and for an incremental one while a page of it is on its way.
    Race(usize, Race),
    /// A person asks for a full sync; so long after the daemon is told to stop, and started again after so long.
    Break(usize, Duration, Duration),
}

/// What becomes of a full sync, one of whose pages is long on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Race {
    /// Whether it is a page of groups.
    pub(super) is_of_groups: bool,
    /// Which page, counted from the start of the race.
    pub(super) page: u32,
    /// What happens right before the instance answers,
    pub(super) edit: Edit,
    /// and that it is undone so long after; `None`: the whole directory is set back.
    pub(super) undo: Option<Edit>,
    pub(super) undone_after: Duration,
    /// The answer is on its way for so much longer.
    pub(super) late: Duration,
    pub(super) lot: u64,
}

/// A fault to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) number: usize,
    /// Which of [`mishaps::KINDS`], and behind them of [`mishaps::OF_GROUPS`].
    pub(super) kind: usize,
    /// What its members are drawn from.
    pub(super) lot: u64,
    pub(super) probability: f64,
    /// At most so often.
    pub(super) times: u64,
}

/// Something that happens between two requests.
#[derive(Clone, Debug)]
pub(super) struct Amid {
    pub(super) instance: usize,
    /// Before the request of this number.
    pub(super) request: u64,
    pub(super) edit: Edit,
    pub(super) lot: u64,
}

/// A death of the flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    pub(super) after: Arm,
    /// So many turns of the disk later: in each, all that waits for it is done. With none, what is asked of it at the
    /// moment of the death is not done.
    pub(super) steps: u32,
    /// How long until somebody starts it again.
    pub(super) down: Duration,
}

/// What a death waits for, counted from the start of the life.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arm {
    /// An answer, of whichever instance.
    Answer(u64),
    /// A transaction of an apply that is about to begin.
    Apply(u64),
    /// A question for a single resource.
    Asking(u64),
}

const NAMES: [&str; 4] = ["acme", "globex", "initech", "umbrella"];

const MINUTE: Duration = Duration::from_mins(1);

impl Plan {
    /// Draws the plan of a seed. Whether it has groups is drawn, too, where nothing is said of it; without them it is what it
    /// was before there were any.
    pub(super) fn of(seed: u64, has_groups: Option<bool>) -> Self {
        let rng = |part: u64| part_of(seed, part);
        let mut plan = Self::of_users(seed);
        if has_groups.unwrap_or_else(|| rng(8).bool()) {
            plan.draw_groups(&mut rng(9));
            plan.moments.sort_by_key(|moment| moment.at);
        }
        plan
    }

    fn of_users(seed: u64) -> Self {
        let rng = |part: u64| part_of(seed, part);
        let mut world = rng(1);
        let incremental = draw_incremental(&mut world);
        let full = draw_full(incremental, &mut world);
        let n_instances = pick(&mut world, &[(1, 8), (2, 6), (3, 3), (4, 2)]);
        let n_syncs = world.u32(24..=60);
        let busy = MINUTE * incremental.minutes * n_syncs / n_instances;
        let busy = busy.clamp(MINUTE * full.minutes * 2, Duration::from_hours(24 * 24));
        let instances: Vec<Instance> = (0..n_instances as usize)
            .map(|place| draw_instance(place, incremental, full, &mut rng(100 + place as u64)))
            .collect();
        let mut plan = Self {
            seed,
            history_days: pick(&mut world, &[(400, 8), (2, 1), (1, 1)]),
            instances,
            busy,
            moments: Vec::new(),
            amid: Vec::new(),
            deaths: Vec::new(),
        };
        plan.draw_edits(&mut rng(2));
        plan.draw_faults(&mut rng(3));
        plan.draw_people(&mut rng(4));
        plan.draw_deaths(&mut rng(5));
        plan.draw_amid(&mut rng(6));
        plan.draw_races(&mut rng(7));
        plan.moments.sort_by_key(|moment| moment.at);
        plan
    }

    /// The longest time until everything was read in full once more.
    pub(super) fn full_period(&self) -> Duration {
        let periods = self.instances.iter().flat_map(|instance| {
            let groups = instance.groups.as_ref();
            let of_groups = groups.map(|groups| MINUTE * groups.full.minutes + groups.splay);
            [MINUTE * instance.full.minutes + instance.splay[1]]
                .into_iter()
                .chain(of_groups)
        });
        periods.max().unwrap_or_default()
    }

    fn time(&self, rng: &mut Rng) -> Duration {
        self.busy.mul_f64(rng.f64())
    }

    fn instance(&self, rng: &mut Rng) -> usize {
        rng.usize(..self.instances.len())
    }

    fn add(&mut self, at: Duration, what: What) {
        self.moments.push(Moment { at, what });
    }

    fn draw_edits(&mut self, rng: &mut Rng) {
        for _ in 0..rng.usize(12..=30 + 10 * self.instances.len()) {
            let (at, instance) = (self.time(rng), self.instance(rng));
            let edit = Edit::draw(rng);
            self.add(at, What::Edit(instance, edit, rng.u64(..)));
        }
    }

    fn draw_faults(&mut self, rng: &mut Rng) {
        for number in 0..rng.usize(1..=4 + 3 * self.instances.len()) {
            let (at, instance) = (self.time(rng), self.instance(rng));
            let settings = &self.instances[instance];
            let sync = MINUTE * settings.incremental.minutes;
            let long = MINUTE * settings.full.minutes;
            let length = match rng.u8(..10) {
                0..2 => sync.mul_f64(rng.f64()),
                2..6 => sync.mul_f64(1.0 + 3.0 * rng.f64()),
                6..9 => long.mul_f64(0.3 + rng.f64()),
                _ => long.mul_f64(1.0 + 2.0 * rng.f64()),
            };
            let kind = mishaps::draw_kind(settings.auth, rng);
            let trouble = Trouble {
                number,
                kind,
                lot: rng.u64(..),
                probability: pick(rng, &[(1.0, 5), (0.5, 2), (0.2, 2), (0.05, 1)]),
                times: pick(rng, &[(u64::MAX, 6), (1, 2), (3, 1), (9, 1)]),
            };
            self.add(at, What::Begin(instance, trouble));
            self.add((at + length).min(self.busy), What::End(instance, number));
        }
    }

    fn draw_people(&mut self, rng: &mut Rng) {
        if rng.u8(..10) < 7 {
            let careful = rng.bool();
            let every = MINUTE * rng.u32(90..=900);
            let mut at = every;
            while at < self.busy {
                self.add(at, What::Person { careful });
                at += every;
            }
        }
        for _ in 0..pick(rng, &[(0, 3), (1, 2), (2, 1)]) {
            let (at, down) = (self.time(rng), draw_down(rng));
            self.add(at, What::Stop(down));
        }
        for _ in 0..pick(rng, &[(0, 3), (1, 2), (2, 1)]) {
            let (at, instance) = (self.time(rng), self.instance(rng));
            let page_size = draw_page_size(self.instances[instance].users, rng);
            self.add(at, What::Reload(instance, page_size));
        }
        for _ in 0..pick(rng, &[(0, 3), (1, 2), (3, 1)]) {
            let (at, instance) = (self.time(rng), self.instance(rng));
            let mode = pick(
                rng,
                &[
                    (None, 1),
                    (Some(Mode::Full), 2),
                    (Some(Mode::Incremental), 1),
                ],
            );
            self.add(at, What::Sync(instance, mode));
        }
    }

    fn draw_deaths(&mut self, rng: &mut Rng) {
        for _ in 0..pick(rng, &[(0, 2), (1, 2), (2, 3), (3, 3), (5, 2), (8, 1)]) {
            let after = match rng.u8(..10) {
                0..5 => Arm::Answer(rng.u64(1..=80)),
                5..9 => Arm::Apply(rng.u64(1..=14)),
                _ => Arm::Asking(rng.u64(1..=6)),
            };
            self.deaths.push(Death {
                after,
                steps: rng.u32(0..=9),
                down: draw_down(rng),
            });
        }
    }

    fn draw_amid(&mut self, rng: &mut Rng) {
        for _ in 0..rng.usize(0..=6) {
            self.amid.push(Amid {
                instance: self.instance(rng),
                request: rng.u64(4..=160),
                edit: Edit::draw(rng),
                lot: rng.u64(..),
            });
        }
    }
}

impl Plan {
    /// Towards the end, so that what happened before them still does.
    fn draw_races(&mut self, rng: &mut Rng) {
        for _ in 0..pick(rng, &[(0, 1), (1, 2), (3, 1)]) {
            let at = self.busy.mul_f64(0.8 + 0.2 * rng.f64());
            let instance = self.instance(rng);
            let (edit, undo) = pick(
                rng,
                &[
                    ((Edit::Turn(false), Some(Edit::Turn(true))), 4),
                    ((Edit::Turn(true), Some(Edit::Turn(false))), 1),
                    ((Edit::Turn(false), None), 2),
                    ((Edit::Retitle(6), None), 2),
                    ((Edit::Delete(3), Some(Edit::Undelete)), 2),
                ],
            );
            let race = Race {
                is_of_groups: false,
                // The first is one by which it finds out what the instance honours.
                page: pick(rng, &[(2, 4), (3, 2), (4, 1)]),
                edit,
                undo,
                undone_after: Duration::from_millis(pick(rng, &[(0, 1), (300, 1), (4_000, 1)])),
                late: Duration::from_secs(rng.u64(5..=40)),
                lot: rng.u64(..),
            };
            self.add(at, What::Race(instance, race));
        }
        if rng.u8(..3) == 0 {
            let at = self.busy.mul_f64(0.8 + 0.2 * rng.f64());
            let instance = self.instance(rng);
            let after = Duration::from_secs_f64(4.0 * rng.f64());
            self.add(at, What::Break(instance, after, draw_down(rng)));
        }
    }
}

/// Groups, beside what is there without them.
impl Plan {
    fn draw_groups(&mut self, rng: &mut Rng) {
        for instance in &mut self.instances {
            instance.groups = Some(Groups::draw(instance.full, rng));
        }
        let n_instances = self.instances.len();
        for _ in 0..rng.usize(8..=20 + 8 * n_instances) {
            let (at, instance) = (self.time(rng), self.instance(rng));
            let edit = Edit::Group(GroupEdit::draw(rng));
            self.add(at, What::Edit(instance, edit, rng.u64(..)));
        }
        for number in 0..rng.usize(1..=3 + 2 * n_instances) {
            let (at, instance) = (self.time(rng), self.instance(rng));
            let every = self.instances[instance].groups.map(|groups| groups.full);
            let period = MINUTE * every.map_or(60, |every| every.minutes);
            let length = period.mul_f64(0.2 + 3.0 * rng.f64());
            let trouble = Trouble {
                number: OF_GROUPS_FROM + number,
                kind: mishaps::draw_kind_of_groups(rng),
                lot: rng.u64(..),
                probability: pick(rng, &[(1.0, 6), (0.5, 2), (0.2, 1)]),
                times: pick(rng, &[(u64::MAX, 6), (1, 1), (3, 1)]),
            };
            self.add(at, What::Begin(instance, trouble));
            let end = What::End(instance, trouble.number);
            self.add((at + length).min(self.busy), end);
        }
        for _ in 0..rng.usize(0..=4) {
            self.amid.push(Amid {
                instance: self.instance(rng),
                request: rng.u64(4..=400),
                edit: Edit::Group(GroupEdit::draw(rng)),
                lot: rng.u64(..),
            });
        }
        for _ in 0..rng.usize(0..=2) {
            let at = self.busy.mul_f64(0.7 + 0.3 * rng.f64());
            let instance = self.instance(rng);
            let turn = |comes| Edit::Group(GroupEdit::Turn(comes));
            let (edit, undo) = pick(
                rng,
                &[
                    ((turn(false), Some(turn(true))), 4),
                    ((turn(true), Some(turn(false))), 3),
                    ((turn(false), None), 2),
                ],
            );
            let race = Race {
                is_of_groups: true,
                page: pick(rng, &[(2, 4), (3, 1)]),
                edit,
                undo,
                undone_after: Duration::from_millis(pick(rng, &[(0, 1), (300, 1), (4_000, 1)])),
                late: Duration::from_secs(rng.u64(5..=40)),
                lot: rng.u64(..),
            };
            self.add(at, What::Race(instance, race));
        }
    }
}

/// The numbers of faults of groups begin here, behind those of all others.
const OF_GROUPS_FROM: usize = 1_000;

impl Groups {
    fn draw(full_of_users: Every, rng: &mut Rng) -> Self {
        let few = [1, 2, 3, 4, 6, 12, 24];
        let hours = few
            .iter()
            .filter(|hours| **hours * 60 <= full_of_users.minutes);
        let hours: Vec<u32> = hours.copied().collect();
        let guard = pick(
            rng,
            &[
                ([MemberGuard::REAL, MemberGuard::REAL_OF_GROUP], 5),
                ([MemberGuard::NONE, MemberGuard::NONE], 3),
                ([MemberGuard::NARROW, MemberGuard::NARROW], 4),
                ([MemberGuard::REAL, MemberGuard::NARROW], 4),
                ([MemberGuard::ANY, MemberGuard::ANY], 1),
            ],
        );
        Self {
            number: match rng.u8(..10) {
                0..7 => rng.usize(2..=9),
                7..9 => rng.usize(9..=16),
                _ => rng.usize(24..=32),
            },
            full: Every {
                minutes: 60 * rng.choice(hours).unwrap_or(1),
                at: rng.u32(..60),
            },
            splay: MINUTE * rng.u32(0..=10),
            memberships: guard[0],
            group_memberships: guard[1],
        }
    }
}

impl MemberGuard {
    /// As they are unless somebody says otherwise.
    const REAL: Self = Self {
        at_least: 50,
        count: 2_000,
        percent: 5,
        window_hours: 24,
    };
    const REAL_OF_GROUP: Self = Self {
        at_least: 10,
        count: 500,
        percent: 50,
        window_hours: 24,
    };
    const NARROW: Self = Self {
        at_least: 2,
        count: 6,
        percent: 20,
        window_hours: 6,
    };
    /// Nothing is held.
    const NONE: Self = Self {
        at_least: 10_000,
        count: 10_000,
        percent: 100,
        window_hours: 24,
    };
    /// Whatever is lost is held.
    const ANY: Self = Self {
        at_least: 0,
        count: 0,
        percent: 5,
        window_hours: 24,
    };
}

/// The generator that a part of a seed's plan is drawn from.
fn part_of(seed: u64, part: u64) -> Rng {
    Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part)
}

fn draw_instance(place: usize, incremental: Every, full: Every, rng: &mut Rng) -> Instance {
    let users = match rng.u8(..10) {
        0..4 => rng.usize(5..=20),
        4..8 => rng.usize(20..=45),
        _ => rng.usize(45..=80),
    };
    let burst = rng.u32(1..=20);
    Instance {
        name: NAMES[place],
        users,
        seed: rng.u64(..),
        auth: pick(
            rng,
            &[
                (Login::ClientCredentials, 6),
                (Login::Password, 2),
                (Login::RefreshToken, 2),
                (Login::Basic, 2),
                (Login::Bearer, 1),
            ],
        ),
        latency: Duration::from_millis(pick(
            rng,
            &[(0, 3), (20, 3), (150, 3), (900, 2), (4_000, 1)],
        )),
        rate_limit: pick(rng, &[(None, 12), (Some(900), 1), (Some(400), 1)]),
        page_size: draw_page_size(users, rng),
        concurrency: rng.u32(1..=4),
        overlap_minutes: pick(rng, &[(5, 6), (1, 1), (30, 1)]),
        incremental,
        full: Every {
            at: rng.u32(..60),
            ..full
        },
        splay: [
            MINUTE.mul_f64(f64::from(incremental.minutes.min(20)) * rng.f64() / 3.0),
            MINUTE * rng.u32(0..=10),
        ],
        per_second: rng.u32(1..=20),
        burst,
        per_hour: pick(rng, &[(None, 9), (Some(900), 1), (Some(3_000), 1)]),
        guard: pick(
            rng,
            &[
                (Guard::REAL, 12),
                (
                    Guard {
                        at_least: 1_000,
                        count: 1_000,
                        percent: 100,
                        ..Guard::REAL
                    },
                    3,
                ),
                (
                    Guard {
                        at_least: 1,
                        count: 3,
                        percent: 5,
                        window_hours: 6,
                        source_at_least: 5,
                        source_percent: 20,
                    },
                    3,
                ),
                (
                    Guard {
                        at_least: 0,
                        count: 0,
                        ..Guard::REAL
                    },
                    1,
                ),
                (
                    Guard {
                        at_least: 3,
                        percent: 20,
                        ..Guard::REAL
                    },
                    2,
                ),
            ],
        ),
        groups: None,
    }
}

impl Guard {
    /// As it is unless somebody says otherwise.
    const REAL: Self = Self {
        at_least: 5,
        count: 200,
        percent: 5,
        window_hours: 24,
        source_at_least: 20,
        source_percent: 20,
    };
}

impl Every {
    /// The cron expression.
    pub(super) fn cron(self) -> String {
        match self.minutes {
            minutes @ ..60 => format!("0 */{minutes} * * * *"),
            1_440 => format!("0 {} 3 * * *", self.at),
            minutes => format!("0 {} */{} * * *", self.at, minutes / 60),
        }
    }
}

fn draw_incremental(rng: &mut Rng) -> Every {
    let minutes = pick(
        rng,
        &[
            (1, 1),
            (2, 1),
            (5, 2),
            (10, 4),
            (15, 4),
            (20, 4),
            (30, 6),
            (60, 3),
            (120, 2),
            (360, 1),
        ],
    );
    Every {
        minutes,
        at: rng.u32(..60),
    }
}

/// So seldom that a full sync is worth its name, and so often that one period of it is soon over.
fn draw_full(incremental: Every, rng: &mut Rng) -> Every {
    let fits = |hours: &&u32| {
        let ratio = **hours * 60 / incremental.minutes;
        (2..=24).contains(&ratio) || (incremental.minutes < 3 && **hours == 1)
    };
    let hours: Vec<&u32> = [1, 2, 3, 4, 6, 8, 12, 24].iter().filter(fits).collect();
    Every {
        minutes: 60 * rng.choice(hours).copied().unwrap_or(24),
        at: 0,
    }
}

/// A page for each user is many pages.
fn draw_page_size(users: usize, rng: &mut Rng) -> u32 {
    let sizes: Vec<u32> = [1, 2, 3, 5, 7, 10, 20, 50, 200]
        .into_iter()
        .filter(|size| users <= 14 * *size as usize)
        .collect();
    rng.choice(sizes).unwrap_or(200)
}

fn draw_down(rng: &mut Rng) -> Duration {
    match rng.u8(..10) {
        0..4 => Duration::ZERO,
        4..7 => MINUTE * rng.u32(1..=40),
        7..9 => MINUTE * rng.u32(40..=420),
        _ => Duration::from_hours(rng.u64(8..=60)),
    }
}

/// One of these, as often as its weight says.
pub(super) fn pick<T: Copy>(rng: &mut Rng, weighted: &[(T, u32)]) -> T {
    let all: u32 = weighted.iter().map(|(_, weight)| weight).sum();
    let mut lot = rng.u32(..all);
    for (one, weight) in weighted {
        match lot.checked_sub(*weight) {
            Some(rest) => lot = rest,
            None => return *one,
        }
    }
    weighted[0].0
}
