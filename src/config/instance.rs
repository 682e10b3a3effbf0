//! `[instances.NAME]`: what one instance is configured to be.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::Sources;
use super::address;
use super::auth;

use super::notes::Notes;
use super::section::Section;
use super::settings::{IdentitySettings, InstanceSettings, ScheduleSettings};
use super::value::Wrong;
use crate::model::{InstanceName, ResourceType, Rule};
use crate::reconcile::guard::{Limits, ShareLimit, WindowLimit};
use crate::schedule::Schedule;
use crate::scim::client;
use crate::scim::rate::RateOptions;
use crate::scim::retry::RetryOptions;

/// What an instance's name looks like.
pub(super) const NAME_PATTERN: &str =
    "lower-case letters and digits, in words joined by single underscores, at most 40 characters";

/// The most bytes of one answer. A page of 500 users with every custom attribute is some MB.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// What instances can be asked to mirror.
const RESOURCES: [(&str, ResourceType); 2] = [
    ("users", ResourceType::User),
    ("groups", ResourceType::Group),
];

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Beyond the largest directory there is.
const MOST_USERS: u64 = 1_000_000_000;

/// An instance, with what is needed to compare it with others.
pub(super) struct Instance {
    pub(super) settings: InstanceSettings,
    pub(super) account: secrecy::SecretString,
}

/// Reads one instance. `mirror` is where its state stands beside; without a name nothing is made of
/// it, and `[defaults]` is only looked at.
pub(super) fn read(
    mut section: Section<'_>,
    name: Option<&InstanceName>,
    mirror: Option<&Path>,
    notes: &Notes,
    sources: &Sources,
) -> Option<Instance> {
    let url = section
        .required("url", address::EXPECTED_ORIGIN)
        .and_then(|found| found.text(address::EXPECTED_ORIGIN, address::parse_origin));
    let scim_path = section
        .key("scim_path")
        .and_then(|found| found.text(address::EXPECTED_SCIM_PATH, address::parse_scim_path));
    let resources = section.key("resources").and_then(|found| {
        let mut resources = found.words(&RESOURCES)?;
        if !resources.contains(&ResourceType::User) {
            let problem = found.problem("has no \"users\"");
            notes.problem(problem.expected("\"users\" among them: groups are read beside users"));
            return None;
        }
        // Users first, in whatever order they stand.
        resources.sort_unstable();
        Some(resources)
    });
    let page_size = section
        .key("page_size")
        .and_then(|found| found.count(1..=500));
    let concurrency = section
        .key("concurrency")
        .and_then(|found| found.count(1..=4));
    let timeout = duration(&mut section, "timeout", SECOND..=HOUR);
    let overlap = duration(&mut section, "overlap", Duration::ZERO..=7 * DAY);
    let auth = auth::read(section.section("auth"), url.as_ref(), notes, sources);
    let schedule = read_schedule(section.section("schedule"), sources);
    let rate = read_rate(section.section("rate"), notes);
    let retry = read_retry(section.section("retry"));
    let guard = read_guard(section.section("guard"));
    let identity = read_identity(section.section("identity"));
    section.close();

    let (name, auth) = (name?, auth?);
    Some(Instance {
        account: auth.account,
        settings: InstanceSettings {
            client: client::Options {
                instance: name.clone(),
                origin: url?,
                scim_path: scim_path?,
                page_size: page_size?,
                concurrency: concurrency?,
                timeout: timeout?,
                max_body_bytes: MAX_BODY_BYTES,
                auth: auth.options,
                auth_state: super::auth_state_path(mirror?, name),
                rate: rate?,
                retry: retry?,
            },
            resources: resources?,
            overlap: overlap?,
            schedule: schedule?,
            guard: guard?,
            identity: identity?,
        },
    })
}

fn read_schedule(mut section: Section<'_>, sources: &Sources) -> Option<ScheduleSettings> {
    let zone = section.key("timezone").and_then(|found| {
        found.text(
            "the IANA name of a time zone, such as \"Europe/Vienna\"",
            |text| match TimeZone::get(text) {
                Ok(_) => Ok(text.to_owned()),
                Err(_) => Err(Wrong::new("is not a time zone that is known here")),
            },
        )
    });
    // With a zone that is not known the schedules are judged all the same.
    let in_zone = zone.as_deref().unwrap_or("UTC");
    let incremental = schedule(&mut section, "incremental", in_zone, sources);
    let full = schedule(&mut section, "full", in_zone, sources);
    let groups = schedule(&mut section, "groups", in_zone, sources);
    let mut splay = section.section("splay");
    let splay_incremental = duration(&mut splay, "incremental", Duration::ZERO..=DAY);
    let splay_full = duration(&mut splay, "full", Duration::ZERO..=DAY);
    let splay_groups = duration(&mut splay, "groups", Duration::ZERO..=DAY);
    splay.close();
    section.close();
    zone?;
    Some(ScheduleSettings {
        incremental: incremental?,
        full: full?,
        groups: groups?,
        splay_incremental: splay_incremental?,
        splay_full: splay_full?,
        splay_groups: splay_groups?,
    })
}

fn read_rate(mut section: Section<'_>, notes: &Notes) -> Option<RateOptions> {
    let positive = |found: super::value::Found<'_>, most| {
        let number: u32 = found.count(1..=most)?;
        NonZeroU32::new(number)
    };
    let per_second = section
        .key("per_second")
        .and_then(|found| positive(found, 10_000));
    let burst = section
        .key("burst")
        .and_then(|found| positive(found, 10_000));
    let hourly = section.optional("per_hour");
    section.close();
    let per_hour = match hourly {
        None => None,
        Some(found) => {
            let per_hour = positive(found.clone(), 10_000_000)?;
            // The burst is part of the hour: all of it at once would leave nothing to spread.
            if burst.is_some_and(|burst| per_hour <= burst) {
                let problem = found.problem("is not greater than `burst`");
                notes.problem(
                    problem
                        .got(per_hour.to_string())
                        .expected("more than one burst"),
                );
                return None;
            }
            Some(per_hour)
        }
    };
    Some(RateOptions {
        per_second: per_second?,
        burst: burst?,
        per_hour,
    })
}

fn read_retry(mut section: Section<'_>) -> Option<RetryOptions> {
    let attempts = section
        .key("attempts")
        .and_then(|found| found.count(1..=20));
    let max_wait = duration(&mut section, "max_wait", Duration::ZERO..=DAY);
    section.close();
    Some(RetryOptions {
        attempts: attempts?,
        max_wait: max_wait?,
    })
}

fn read_guard(mut section: Section<'_>) -> Option<Limits> {
    let deactivations = read_window(section.section("deactivations"));
    let blanking = read_window(section.section("blanking"));
    let memberships = read_window(section.section("memberships"));
    let group_memberships = read_window(section.section("group_memberships"));
    let source_changed = read_share(section.section("source_changed"));
    section.close();
    Some(Limits {
        deactivations: deactivations?,
        blanking: blanking?,
        memberships: memberships?,
        group_memberships: group_memberships?,
        source_changed: source_changed?,
    })
}

fn read_identity(mut section: Section<'_>) -> Option<IdentitySettings> {
    let rules = section
        .key("match")
        .and_then(|found| found.words(&Rule::ALL.map(|rule| (rule.as_str(), rule))));
    let removals = read_share(section.section("removals"));
    section.close();
    Some(IdentitySettings {
        rules: rules?,
        removals: removals?,
    })
}

fn read_share(mut section: Section<'_>) -> Option<ShareLimit> {
    let at_least = users(&mut section, "at_least");
    let percent = percent(&mut section);
    section.close();
    Some(ShareLimit {
        at_least: at_least?,
        percent: percent?,
    })
}

fn read_window(mut section: Section<'_>) -> Option<WindowLimit> {
    let at_least = users(&mut section, "at_least");
    let count = users(&mut section, "count");
    let percent = percent(&mut section);
    let window = duration(&mut section, "window", SECOND..=366 * DAY);
    section.close();
    Some(WindowLimit {
        at_least: at_least?,
        count: count?,
        percent: percent?,
        window: window?,
    })
}

fn users(section: &mut Section<'_>, key: &'static str) -> Option<u64> {
    section.key(key)?.count(0..=MOST_USERS)
}

fn percent(section: &mut Section<'_>) -> Option<u64> {
    section.key("percent")?.count(0..=100)
}

fn duration(
    section: &mut Section<'_>,
    key: &'static str,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    section.key(key)?.duration(range)
}

fn schedule(
    section: &mut Section<'_>,
    key: &'static str,
    zone: &str,
    sources: &Sources,
) -> Option<Schedule> {
    section.key(key)?.text(SCHEDULE, |text| {
        Schedule::parse(text, zone, sources.now).map_err(|error| Wrong::new(error.to_string()))
    })
}

/// What a schedule looks like.
const SCHEDULE: &str =
    "cron with six fields (second minute hour day month weekday), such as \"0 30 2 * * *\"";
