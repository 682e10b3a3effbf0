//! Cron ticks, coalesced into wake-ups.
//!
//! The cron crate is the alarm clock: it rings once a second, in UTC. What a ring means is decided
//! here, from the wall clock alone, so that a suspended machine, a clock that was set, and the two
//! odd nights of a time zone all end in one wake-up: never in many, never in none.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, Timelike as _};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use crate::clock::Clock;

/// A cron expression with seconds, in a time zone.
#[derive(Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
}

/// Why a text is no schedule.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSchedule {
    /// Not a cron expression of six fields.
    #[error("is not a schedule: {0}")]
    Pattern(String),
    /// Not a time zone of the IANA database.
    #[error("`{0}` is not an IANA time zone")]
    Zone(String),
    /// A date that never comes.
    #[error("never comes: there is no such time from now on")]
    Never,
}

impl Schedule {
    /// Reads an expression of six fields: second, minute, hour, day of month, month, day of week.
    ///
    /// # Errors
    /// [`InvalidSchedule`], also for one without a time after `now`.
    pub fn parse(cron: &str, zone: &str, now: Timestamp) -> Result<Self, InvalidSchedule> {
        let cron = CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Disallowed)
            .build()
            .parse(cron)
            .map_err(|error| {
                InvalidSchedule::Pattern(error.to_string().trim_end_matches('.').to_owned())
            })?;
        let zone =
            TimeZone::get(zone).map_err(|_unknown| InvalidSchedule::Zone(zone.to_owned()))?;
        let schedule = Self { cron, zone };
        schedule.next_after(now).ok_or(InvalidSchedule::Never)?;
        Ok(schedule)
    }

    /// The first tick after `time`. A daily tick whose local time a clock change skips comes when the
    /// clock has jumped; one whose local time comes twice comes the first time only. Ticks of every hour
    /// or less just go on.
    #[must_use]
    pub fn next_after(&self, time: Timestamp) -> Option<Timestamp> {
        let offset = self.zone.to_offset(time);
        let mut local = to_chrono(offset.to_datetime(time))?;
        // Each round is one local tick; in the repeated hour those of its first pass lie in the past.
        loop {
            let next = self.next_local(local)?;
            let is_frequent = self
                .next_local(next)
                .is_some_and(|following| following - next <= chrono::TimeDelta::hours(1));
            let instant = if is_frequent {
                offset.to_timestamp(to_jiff(next)?).ok()?
            } else {
                self.zone
                    .to_ambiguous_timestamp(to_jiff(next)?)
                    .compatible()
                    .ok()?
            };
            if instant > time {
                return Some(instant);
            }
            local = next;
        }
    }

    /// The first local time after `local`; always later, so that a loop over it ends.
    fn next_local(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let next = self
            .cron
            .find_next_occurrence(&local.and_utc(), false)
            .ok()?
            .naive_utc();
        (next > local).then_some(next)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.cron.as_str() == other.cron.as_str() && self.zone == other.zone
    }
}

impl Eq for Schedule {}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({})",
            self.cron.as_str(),
            self.zone.iana_name().unwrap_or("UTC")
        )
    }
}

fn to_chrono(civil: DateTime) -> Option<NaiveDateTime> {
    let date = NaiveDate::from_ymd_opt(
        i32::from(civil.year()),
        u32::try_from(civil.month()).ok()?,
        u32::try_from(civil.day()).ok()?,
    )?;
    let time = NaiveTime::from_hms_opt(
        u32::try_from(civil.hour()).ok()?,
        u32::try_from(civil.minute()).ok()?,
        u32::try_from(civil.second()).ok()?,
    )?;
    Some(date.and_time(time))
}

fn to_jiff(naive: NaiveDateTime) -> Option<DateTime> {
    // Whole seconds, so that the text has one form in both libraries.
    DateTime::from_str(
        &naive
            .with_nanosecond(0)?
            .format("%Y-%m-%dT%H:%M:%S")
            .to_string(),
    )
    .ok()
}

/// How long after its tick an instance starts: a stable share of `splay` by its name, so that many
/// instances do not start in the same second, and each starts at the same place every time.
#[must_use]
pub fn splay_of(name: &str, splay: Duration) -> Duration {
    let digest = Sha256::digest(name.as_bytes());
    let share = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    splay.mul_f64(f64::from(share) / (f64::from(u32::MAX) + 1.0))
}

/// Rings [`Alarm::bell`] once a second.
pub struct Alarm {
    scheduler: JobScheduler,
    /// Rung by the alarm clock; a simulation rings it from its own.
    pub bell: Arc<Notify>,
}

impl Alarm {
    /// Sets the alarm clock.
    ///
    /// # Errors
    /// Of the cron crate.
    pub async fn set() -> Result<Self, JobSchedulerError> {
        let bell = Arc::new(Notify::new());
        let scheduler = JobScheduler::new().await?;
        let rings = Arc::clone(&bell);
        scheduler
            .add(Job::new_async("* * * * * *", move |_id, _scheduler| {
                let rings = Arc::clone(&rings);
                // Nothing else: runs overlap in this crate, and its end waits for none of them.
                Box::pin(async move { rings.notify_one() })
            })?)
            .await?;
        scheduler.start().await?;
        Ok(Self { scheduler, bell })
    }

    /// Stops the alarm clock.
    ///
    /// # Errors
    /// Of the cron crate.
    pub async fn stop(mut self) -> Result<(), JobSchedulerError> {
        self.scheduler.shutdown().await
    }
}

/// Turns rings of an alarm clock into wake-ups of one listener.
#[derive(Debug)]
pub struct Ticker {
    schedule: Schedule,
    due_at: Option<Timestamp>,
    looked_at: Timestamp,
    wake: Arc<Notify>,
}

impl Ticker {
    /// A ticker whose first tick is the first one after `now`.
    #[must_use]
    pub fn new(schedule: Schedule, wake: Arc<Notify>, now: Timestamp) -> Self {
        let due_at = schedule.next_after(now);
        Self {
            schedule,
            due_at,
            looked_at: now,
            wake,
        }
    }

    /// The alarm clock rang: wakes the listener if a tick is due. Ticks that were missed are one.
    pub fn ring(&mut self, clock: &dyn Clock) {
        let now = clock.now();
        if now < self.looked_at {
            // The clock was set back: the tick that is noted may be days away.
            self.due_at = self.schedule.next_after(now);
        }
        self.looked_at = now;
        if self.due_at.is_some_and(|due_at| due_at <= now) {
            self.due_at = self.schedule.next_after(now);
            self.wake.notify_one();
        }
    }

    /// When the next tick is due.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        self.due_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn ticks(cron: &str, zone: &str, from: &str, n: usize) -> Vec<String> {
        let schedule = Schedule::parse(cron, zone, at(from)).unwrap();
        let mut time = at(from);
        (0..n)
            .map(|_| {
                time = schedule.next_after(time).unwrap();
                time.to_string()
            })
            .collect()
    }

    #[test]
    fn a_minute_schedule_ticks_every_minute() {
        assert_eq!(
            ticks("0 * * * * *", "UTC", "2026-03-01T10:00:30Z", 2),
            ["2026-03-01T10:01:00Z", "2026-03-01T10:02:00Z"]
        );
    }

    #[test]
    fn half_past_two_comes_once_in_the_night_that_has_it_twice() {
        // Berlin sets its clocks back on 2026-10-25 at 03:00 local, 01:00 UTC.
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
    }

    #[test]
    fn half_past_two_comes_in_the_night_that_skips_it() {
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
    }

    #[test]
    fn minutes_go_on_through_both_odd_nights() {
        for night in ["2026-10-24T23:10:00Z", "2026-03-28T23:10:00Z"] {
            let ticks = ticks("0 */20 * * * *", "Europe/Berlin", night, 12);
            for pair in ticks.windows(2) {
                assert_eq!(
                    at(&pair[1]).duration_since(at(&pair[0])).as_secs(),
                    20 * 60,
                    "{ticks:?}"
                );
            }
        }
    }

    #[test]
    fn what_never_comes_is_refused() {
        let now = at("2026-03-01T00:00:00Z");
        for bad in [
            "0 0 0 30 2 *",
            "* * * * *",
            "",
            "61 * * * * *",
            "a b c d e f",
        ] {
            assert!(Schedule::parse(bad, "UTC", now).is_err(), "{bad}");
        }
        assert!(Schedule::parse("0 * * * * *", "Europe/Atlantis", now).is_err());
    }

    #[test]
    fn splay_is_stable_and_within_its_bound() {
        let splay = Duration::from_secs(30);
        for name in ["acme", "globex", "initech", "a", ""] {
            assert!(splay_of(name, splay) < splay);
            assert_eq!(splay_of(name, splay), splay_of(name, splay));
        }
        assert_ne!(splay_of("acme", splay), splay_of("globex", splay));
        assert_eq!(splay_of("acme", Duration::ZERO), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn three_days_of_missed_ticks_are_one() {
        let clock = crate::clock::ManualClock::starting_at(at("2026-03-01T10:00:30Z"));
        let schedule = Schedule::parse("0 * * * * *", "UTC", clock.now()).unwrap();
        let wake = Arc::new(Notify::new());
        let mut ticker = Ticker::new(schedule, Arc::clone(&wake), clock.now());
        tokio::time::advance(Duration::from_hours(72)).await;
        for _ring in 0..5 {
            ticker.ring(&clock);
        }
        wake.notified().await;
        let second = tokio::time::timeout(Duration::from_secs(1), wake.notified()).await;
        assert!(second.is_err(), "a second wake-up");
    }
}
