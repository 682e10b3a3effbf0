//! Requests per window: one gate for all that talks to an instance (promise P8).
//!
//! Whoever wants to send a request waits here for a [`Slot`]. Of those who wait, one with
//! [`Priority::High`] goes first, else the one who came first. But once four of high
//! priority have gone while one of low priority waited, that one goes: no full sync waits for ever.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::Priority;
use super::error::Fault;
use super::headers::{LONGEST_WAIT, ToldLimit};
use super::limiter::Limiter;
use crate::model::Tally;

/// The limits; all hold at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateOptions {
    /// Requests a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once, after a pause.
    pub burst: NonZeroU32,
    /// Requests in any 3,600 seconds.
    pub per_hour: Option<NonZeroU32>,
}

/// The gate.
pub struct Pace {
    state: Mutex<State>,
    /// Rung whenever somebody else may be the first in the queue, or wait for something else.
    turn: Notify,
    /// Rung once for each wait that was asked for.
    held: Notify,
}

/// The right to send one request now. Its end makes room for the next one in flight.
#[must_use]
pub struct Slot<'a> {
    pace: &'a Pace,
}

struct State {
    options: RateOptions,
    /// The longest wait that the instance may ask for before a request is given up.
    max_wait: Duration,
    second: Limiter,
    hour: Option<Limiter>,
    told: Option<ToldLimiter>,
    /// The tightest limit that was told so far.
    tightest_told: Option<NonZeroU32>,
    /// While the instance refuses requests because there are too many.
    refusals: Option<Refusals>,
    /// Nobody sends anything before.
    not_before: Option<Instant>,
    /// High priority first, then by the number drawn.
    waiting: BTreeSet<(Rank, u64)>,
    next_number: u64,
    /// How many of high priority have gone since one of low priority began to wait.
    ahead: u32,
    in_flight: usize,
    max_in_flight: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    High,
    Low,
}

/// How long, and how often, an instance has refused requests because there were too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// Since when.
    began: Instant,
    /// Until when the last of them asked to be left alone.
    last: Instant,
    /// Requests that were refused.
    pub count: u64,
}

impl Refusals {
    /// From the first refusal to the end of the last wait.
    #[must_use]
    pub fn lasted(&self) -> Duration {
        self.last - self.began
    }
}

/// A refusal so soon after the wait that another one asked for is the same trouble: requests between them that were taken end nothing.
const APART: Duration = Duration::from_mins(5);

/// A limit that the instance told us.
struct ToldLimiter {
    limit: NonZeroU32,
    limiter: Limiter,
    until: Instant,
}

/// Why the first in the queue still waits.
enum Wait {
    /// For a moment; whether the instance said so.
    Until { moment: Instant, told: bool },
    /// For one in flight to end.
    InFlight,
}

impl Pace {
    /// A gate that lets at most `max_in_flight` requests be under way. All limits start used up, so
    /// that a restart adds nothing to any window.
    #[must_use]
    pub fn new(options: RateOptions, max_in_flight: usize, max_wait: Duration) -> Self {
        let (second, hour) = options.limiters();
        Self {
            state: Mutex::new(State {
                options,
                max_wait,
                second,
                hour,
                told: None,
                tightest_told: None,
                refusals: None,
                not_before: None,
                waiting: BTreeSet::new(),
                next_number: 0,
                ahead: 0,
                in_flight: 0,
                max_in_flight: max_in_flight.max(1),
            }),
            turn: Notify::new(),
            held: Notify::new(),
        }
    }

    /// Puts other limits in force, for those who wait as well: what is under way when the settings of an instance change goes through
    /// the same gate as what comes after it. Limits that change start used up.
    pub fn change(&self, options: RateOptions, max_in_flight: usize, max_wait: Duration) {
        let mut state = self.lock();
        if state.options != options {
            (state.second, state.hour) = options.limiters();
            state.options = options;
        }
        state.max_in_flight = max_in_flight.max(1);
        state.max_wait = max_wait;
        drop(state);
        self.turn.notify_waiters();
    }

    /// Waits for the right to send one request.
    ///
    /// # Errors
    /// [`Fault::Cancelled`], or [`Fault::ToldToWait`] when the instance asked for more patience than
    /// there is.
    pub async fn admit(
        &self,
        priority: Priority,
        cancel: &CancellationToken,
        tally: &Tally,
    ) -> Result<Slot<'_>, Fault> {
        let ticket = Ticket::draw(self, priority);
        loop {
            // Enlisted before looking: what rings in between is not missed.
            let turn = self.turn.notified();
            tokio::pin!(turn);
            turn.as_mut().enable();
            let wait = {
                let mut state = self.lock();
                let now = Instant::now();
                if let Some(wait) = state.told_wait(now)
                    && wait > state.max_wait
                {
                    return Err(Fault::ToldToWait(wait));
                }
                if state.next() == Some(ticket.place) {
                    match state.pass(now) {
                        Ok(()) => {
                            state.count(ticket.place.0);
                            return Ok(Slot { pace: self });
                        }
                        Err(wait) => wait,
                    }
                } else {
                    Wait::InFlight
                }
            };
            let moment = match wait {
                Wait::Until { moment, .. } => Some(moment),
                Wait::InFlight => None,
            };
            let began = Instant::now();
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Fault::Cancelled),
                () = &mut turn => {}
                () = sleep_until(moment) => {}
            }
            if matches!(wait, Wait::Until { told: true, .. }) {
                tally.throttled(began.elapsed());
            }
        }
    }

    /// Nobody sends anything for so long, clamped to what is believed. Never shortens a wait.
    pub fn hold(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_WAIT);
        let mut state = self.lock();
        state.not_before = state.not_before.max(Some(until));
        drop(state);
        self.turn.notify_waiters();
        self.held.notify_one();
    }

    /// Waits until the instance asks to be left alone; once for each time, also where that was before.
    pub async fn held(&self) {
        self.held.notified().await;
    }

    /// How long the instance still wants to be left alone.
    #[must_use]
    pub fn held_for(&self) -> Option<Duration> {
        self.lock().told_wait(Instant::now())
    }

    /// The wait, if it is longer than a request waits.
    #[must_use]
    pub fn too_long(&self) -> Option<Duration> {
        let mut state = self.lock();
        let max_wait = state.max_wait;
        state
            .told_wait(Instant::now())
            .filter(|wait| *wait > max_wait)
    }

    /// Notes that the instance refused a request because there were too many, and asked for this wait. Returns whether the trouble
    /// begins with it.
    pub fn refused(&self, wait: Duration) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let refusals = state.refusals.get_or_insert(Refusals {
            began: now,
            last: now,
            count: 0,
        });
        refusals.last = refusals.last.max(now + wait.min(LONGEST_WAIT));
        refusals.count += 1;
        refusals.count == 1
    }

    /// Notes that the instance took a request. Returns the trouble that is over with it.
    pub fn taken(&self) -> Option<Refusals> {
        let now = Instant::now();
        let mut state = self.lock();
        let is_over = |refusals: &Refusals| now.saturating_duration_since(refusals.last) >= APART;
        let over = state.refusals.filter(is_over)?;
        state.refusals = None;
        Some(over)
    }

    /// Keeps an hourly limit that the instance told, if it is tighter than ours, until it is reset. Returns what is kept to where
    /// that is news: no limit as tight was told before.
    pub fn learn(&self, told: ToldLimit) -> Option<NonZeroU32> {
        // Others use the same account (facts page, Q48 and Q49): a tenth is left to them.
        let limit = NonZeroU32::new(told.per_hour.get() - told.per_hour.get() / 10)
            .unwrap_or(NonZeroU32::MIN);
        let until = Instant::now() + told.stands_for.min(LONGEST_WAIT);
        let mut state = self.lock();
        let is_tighter = u64::from(limit.get()) < state.options.own_per_hour();
        let burst = state.options.burst;
        match &mut state.told {
            place if !is_tighter => *place = None,
            // Every answer tells it anew: what was used of it stays used.
            Some(known) if known.limit == limit => known.until = until,
            place => {
                *place = Some(ToldLimiter {
                    limit,
                    limiter: Limiter::per_hour(limit, burst),
                    until,
                });
            }
        }
        let is_news = is_tighter && state.tightest_told.is_none_or(|known| limit < known);
        if is_news {
            state.tightest_told = Some(limit);
        }
        drop(state);
        self.turn.notify_waiters();
        is_news.then_some(limit)
    }

    /// The requests an hour that are kept to now: the tighter one of `per_hour` and what the instance told. `None` where there is
    /// neither.
    #[must_use]
    pub fn per_hour(&self) -> Option<NonZeroU32> {
        let own = self.lock().options.per_hour;
        own.into_iter().chain(self.told_per_hour()).min()
    }

    /// The hourly limit that is kept because the instance told it; `None` while ours is the tighter one.
    #[must_use]
    pub fn told_per_hour(&self) -> Option<NonZeroU32> {
        let now = Instant::now();
        let state = self.lock();
        let told = state.told.as_ref().filter(|told| told.until > now)?;
        Some(told.limit)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here can be left half done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateOptions {
    /// Both limits, used up.
    fn limiters(&self) -> (Limiter, Option<Limiter>) {
        let hour = self.per_hour;
        (
            Limiter::per_second(self.per_second, self.burst),
            hour.map(|limit| Limiter::per_hour(limit, self.burst)),
        )
    }

    /// What they come to in an hour.
    fn own_per_hour(&self) -> u64 {
        let by_second = u64::from(self.per_second.get()) * 3600;
        self.per_hour
            .map_or(by_second, |limit| by_second.min(u64::from(limit.get())))
    }
}

/// So many of high priority go while one of low priority waits.
const AHEAD: u32 = 4;

impl State {
    /// Whose turn it is.
    fn next(&self) -> Option<(Rank, u64)> {
        let first = self.waiting.first().copied();
        if self.ahead < AHEAD {
            return first;
        }
        self.low().or(first)
    }

    fn low(&self) -> Option<(Rank, u64)> {
        self.waiting.range((Rank::Low, 0)..).next().copied()
    }

    /// One of this rank goes.
    fn count(&mut self, rank: Rank) {
        self.ahead = match rank {
            Rank::High if self.low().is_some() => self.ahead + 1,
            Rank::High | Rank::Low => 0,
        };
    }

    fn told_wait(&mut self, now: Instant) -> Option<Duration> {
        if self.not_before.is_some_and(|until| until <= now) {
            self.not_before = None;
        }
        Some(self.not_before? - now)
    }

    /// Takes one request from every limit, or from none.
    fn pass(&mut self, now: Instant) -> Result<(), Wait> {
        if let Some(moment) = self.not_before {
            return Err(Wait::Until { moment, told: true });
        }
        if self.in_flight >= self.max_in_flight {
            return Err(Wait::InFlight);
        }
        if self.told.as_ref().is_some_and(|told| told.until <= now) {
            self.told = None;
        }
        let ours = self.hour.iter().chain([&self.second]);
        let own_wait = ours.clone().filter_map(|limiter| limiter.wait(now)).max();
        let told_wait = self.told.as_ref().and_then(|told| {
            // When their limit is reset, nothing is left of it to wait for.
            Some(told.limiter.wait(now)?.min(told.until))
        });
        if let Some(moment) = own_wait.max(told_wait) {
            return Err(Wait::Until {
                moment,
                told: told_wait > own_wait,
            });
        }
        let theirs = self.told.iter().map(|told| &told.limiter);
        ours.chain(theirs).for_each(Limiter::take);
        self.in_flight += 1;
        Ok(())
    }
}

/// A place in the queue, given back when the wait ends, however it ends.
struct Ticket<'a> {
    pace: &'a Pace,
    place: (Rank, u64),
}

impl<'a> Ticket<'a> {
    fn draw(pace: &'a Pace, priority: Priority) -> Self {
        let rank = match priority {
            Priority::High => Rank::High,
            Priority::Low => Rank::Low,
        };
        let mut state = pace.lock();
        let place = (rank, state.next_number);
        state.next_number += 1;
        state.waiting.insert(place);
        Self { pace, place }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pace.lock().waiting.remove(&self.place);
        self.pace.turn.notify_waiters();
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.pace.lock().in_flight -= 1;
        self.pace.turn.notify_waiters();
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn options(per_second: u32, burst: u32, per_hour: Option<u32>) -> RateOptions {
        let number = |n: u32| NonZeroU32::new(n).unwrap();
        RateOptions {
            per_second: number(per_second),
            burst: number(burst),
            per_hour: per_hour.map(number),
        }
    }

    fn pace(options: RateOptions, in_flight: usize) -> Arc<Pace> {
        Arc::new(Pace::new(options, in_flight, Duration::from_secs(300)))
    }

    async fn pass(pace: &Pace, priority: Priority) -> Instant {
        let tally = Tally::default();
        let slot = pace
            .admit(priority, &CancellationToken::new(), &tally)
            .await
            .unwrap();
        drop(slot);
        Instant::now()
    }

    /// The most that any window of this length holds, both of its ends included.
    fn most_within(moments: &[Instant], window: Duration) -> usize {
        let within = |start: &Instant| {
            moments
                .iter()
                .filter(|moment| **moment >= *start && **moment - *start <= window)
                .count()
        };
        moments.iter().map(within).max().unwrap_or(0)
    }

    fn paused<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(test)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// Promise P8, with restarts in between: whatever is asked for and when.
        #[test]
        fn no_window_holds_more_than_its_limit(
            per_second in 1_u32..6,
            burst in 1_u32..12,
            per_hour in prop::option::of(1_u32..60),
            // Pauses before each request in milliseconds, mostly none; one in eight is a restart.
            requests in prop::collection::vec(
                (prop_oneof![3 => Just(0_u64), 1 => 0_u64..3_000, 1 => 0_u64..900_000], 0_u8..8), 1..120),
        ) {
            let limits = options(per_second, burst, per_hour);
            let moments = paused(async move {
                let mut gate = pace(limits, 4);
                let mut moments = Vec::new();
                for (pause_ms, fate) in requests {
                    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
                    if fate == 0 {
                        gate = pace(limits, 4);
                    }
                    moments.push(pass(&gate, Priority::Low).await);
                }
                moments
            });
            for window_secs in [0, 1, 2, 5, 60, 600, 3600] {
                let most = most_within(&moments, Duration::from_secs(window_secs)) as u64;
                prop_assert!(
                    most <= u64::from(burst) + u64::from(per_second) * window_secs,
                    "{most} within {window_secs} s"
                );
            }
            if let Some(per_hour) = per_hour {
                let most = most_within(&moments, Duration::from_secs(3600));
                prop_assert!(most <= per_hour as usize, "{most} within an hour");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn incremental_syncs_that_ask_for_everything_leave_every_fifth_slot() {
        let gate = pace(options(1, 1, None), 1);
        let done = CancellationToken::new();
        let high: Vec<_> = (0..3)
            .map(|_| {
                let (gate, done) = (Arc::clone(&gate), done.clone());
                tokio::spawn(async move {
                    let mut passed = 0;
                    while !done.is_cancelled() {
                        pass(&gate, Priority::High).await;
                        passed += 1;
                    }
                    passed
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        let low = async {
            for _ in 0..10 {
                pass(&gate, Priority::Low).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1000), low)
            .await
            .expect("a full sync gets its slots");
        let took = began.elapsed().as_secs();
        assert!((49..=52).contains(&took), "{took} s");
        done.cancel();
        let mut passed = 0;
        for task in high {
            passed += task.await.unwrap();
        }
        assert!((40..=44).contains(&passed), "{passed}");
    }

    #[tokio::test(start_paused = true)]
    async fn limits_are_used_to_the_full() {
        // An hour at one a second and 3,600 an hour: neither limit costs the other anything.
        let gate = pace(options(1, 8, Some(3600)), 4);
        let began = Instant::now();
        for _ in 0..1000 {
            pass(&gate, Priority::Low).await;
        }
        assert!(
            began.elapsed() < Duration::from_secs(1010),
            "{:?}",
            began.elapsed()
        );
        // After a pause the burst is there.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..8 {
            pass(&gate, Priority::Low).await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn high_priority_goes_first_at_every_slot_then_who_came_first() {
        let gate = pace(options(1, 1, None), 4);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for (name, priority, after_ms) in [
            ("low 1", Priority::Low, 0),
            ("low 2", Priority::Low, 10),
            ("high 1", Priority::High, 1500),
            ("high 2", Priority::High, 1600),
            ("low 3", Priority::Low, 1700),
        ] {
            let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                pass(&gate, priority).await;
                order.lock().unwrap().push(name);
            }));
        }
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(
            *order.lock().unwrap(),
            ["low 1", "high 1", "high 2", "low 2", "low 3"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_in_flight_than_allowed() {
        let gate = pace(options(1000, 1000, None), 2);
        let tally = Tally::default();
        let cancel = CancellationToken::new();
        let admit = || gate.admit(Priority::Low, &cancel, &tally);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = admit().await.unwrap();
        let _second = admit().await.unwrap();
        let third = tokio::time::timeout(Duration::from_secs(60), admit()).await;
        assert!(third.is_err(), "three at once");
        drop(first);
        let third = tokio::time::timeout(Duration::from_secs(60), admit()).await;
        assert!(third.is_ok_and(|slot| slot.is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_gives_up_does_not_block_those_behind() {
        let gate = pace(options(1, 1, None), 1);
        let cancel = CancellationToken::new();
        let tally = Tally::default();
        let gone = gate.admit(Priority::High, &cancel, &tally);
        let dropped = tokio::time::timeout(Duration::from_millis(100), gone).await;
        assert!(dropped.is_err());
        cancel.cancel();
        let stopped = gate.admit(Priority::High, &cancel, &tally).await;
        assert!(matches!(stopped, Err(Fault::Cancelled)));
        pass(&gate, Priority::Low).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_told_limit_slows_down_until_it_is_reset_and_is_not_started_anew() {
        let told = |per_hour: u32, secs| ToldLimit {
            per_hour: NonZeroU32::new(per_hour).unwrap(),
            stands_for: Duration::from_secs(secs),
        };
        let gate = pace(options(4, 8, None), 4);
        // As loose as our own: nothing to learn.
        gate.learn(told(20_000, 3600));
        let began = Instant::now();
        for _ in 0..40 {
            pass(&gate, Priority::Low).await;
        }
        assert!(began.elapsed() <= Duration::from_secs(10));

        // Tighter: every answer tells it again.
        let began = Instant::now();
        let mut n_passed = 0;
        while began.elapsed() < Duration::from_secs(1800) {
            gate.learn(told(600, 1800 - began.elapsed().as_secs()));
            pass(&gate, Priority::Low).await;
            n_passed += 1;
        }
        assert!((200..=300).contains(&n_passed), "{n_passed}");

        // Reset.
        let began = Instant::now();
        for _ in 0..40 {
            pass(&gate, Priority::Low).await;
        }
        assert!(began.elapsed() <= Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn limits_that_change_go_for_those_who_wait_and_start_used_up() {
        let gate = pace(options(1, 8, None), 4);
        tokio::time::sleep(Duration::from_secs(60)).await;
        gate.change(options(1, 8, None), 4, Duration::from_secs(300));
        let began = Instant::now();
        pass(&gate, Priority::Low).await;
        assert_eq!(
            began.elapsed(),
            Duration::ZERO,
            "what stays is not started anew"
        );
        gate.change(options(2, 8, Some(3_000)), 4, Duration::from_secs(300));
        assert_eq!(gate.per_hour(), NonZeroU32::new(3_000));
        for _ in 0..20 {
            pass(&gate, Priority::Low).await;
        }
        let took = began.elapsed().as_millis();
        assert!((10_000..=24_100).contains(&took), "{took} ms");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_is_news_once() {
        let told = |per_hour: u32| ToldLimit {
            per_hour: NonZeroU32::new(per_hour).unwrap(),
            stands_for: Duration::from_secs(60),
        };
        let gate = pace(options(4, 8, None), 4);
        assert_eq!(gate.learn(told(20_000)), None, "not tighter");
        assert_eq!(gate.per_hour(), None);
        assert_eq!(gate.learn(told(1_000)), NonZeroU32::new(900));
        assert_eq!(gate.learn(told(1_000)), None);
        assert_eq!(gate.per_hour(), NonZeroU32::new(900));
        // It is reset, and told anew.
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(gate.per_hour(), None);
        assert_eq!(gate.learn(told(1_000)), None);
        assert_eq!(gate.learn(told(500)), NonZeroU32::new(450));

        // Always exhausted: it takes one request after each wait.
        let wait = Duration::from_secs(600);
        assert!(gate.refused(wait));
        for _ in 0..3 {
            tokio::time::sleep(wait).await;
            assert_eq!(gate.taken(), None, "by turns");
            assert!(!gate.refused(wait));
        }
        tokio::time::sleep(wait + APART).await;
        let over = gate.taken().unwrap();
        assert_eq!((over.count, over.lasted().as_secs()), (4, 2_400));
        assert_eq!(gate.taken(), None, "once");
        assert!(gate.refused(wait), "another time");
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_the_instance_is_counted_and_waiting_for_our_rate_is_not() {
        let gate = pace(options(1, 1, None), 4);
        let tally = Tally::default();
        let cancel = CancellationToken::new();
        for _ in 0..5 {
            drop(gate.admit(Priority::Low, &cancel, &tally).await);
        }
        assert_eq!(tally.snapshot().throttled_ms, 0);
        gate.hold(Duration::from_secs(20));
        gate.hold(Duration::from_secs(10));
        drop(gate.admit(Priority::Low, &cancel, &tally).await);
        let throttled = tally.snapshot().throttled_ms;
        assert!((20_000..20_010).contains(&throttled), "{throttled}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_waits_hears_of_a_wait_that_is_too_long() {
        let gate = pace(options(1, 1, None), 4);
        let waiting = tokio::spawn({
            let gate = Arc::clone(&gate);
            async move {
                let tally = Tally::default();
                let cancel = CancellationToken::new();
                gate.admit(Priority::Low, &cancel, &tally)
                    .await
                    .map(|_slot| ())
            }
        });
        tokio::task::yield_now().await;
        gate.hold(Duration::from_secs(301));
        let began = Instant::now();
        assert!(matches!(waiting.await.unwrap(), Err(Fault::ToldToWait(_))));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
