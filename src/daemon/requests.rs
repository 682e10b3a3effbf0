//! How many requests each instance was sent within the hour, by the minute, and until when it asked to be left alone, in a file
//! beside the mirror: `musterd status` shows it also to those who may not ask the daemon, and while none runs, and a restart forgets
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::debug;

use super::link::Link;
use crate::clock::SharedClock;
use crate::metrics::textfile;
use crate::mirror;
use crate::model::InstanceName;

/// What one instance was sent, as `musterd status` shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Requests within the hour: token requests, probes and repeats included.
    pub last_hour: u64,
    /// How many more the hourly limit allows that is kept to; `None` where there is none.
    pub left: Option<u64>,
    /// Until when it asked to be left alone.
    pub not_before: Option<Timestamp>,
}

/// What is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Hour(BTreeMap<String, OfInstance>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfInstance {
    /// The hourly limit that is kept to.
    per_hour: Option<u32>,
    /// Until when it asked to be left alone.
    #[serde(default)]
    wait: Option<Wait>,
    /// Requests by minute, counted from 1970.
    minutes: BTreeMap<i64, u64>,
}

/// What an instance asked for. Where it has moved since, that is another server's to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Wait {
    /// Where it was.
    origin: String,
    /// Nothing is sent before.
    until: Timestamp,
}

/// What is left of a wait is measured from now, so that its end is never the same to the nanosecond.
const SAME_WITHIN: SignedDuration = SignedDuration::from_millis(20);

impl Wait {
    /// Whether this is the same one: the file is not to be written again for it.
    fn is(&self, origin: &str, until: Timestamp) -> bool {
        self.origin == origin && self.until.duration_since(until).abs() <= SAME_WITHIN
    }
}

/// When the file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// If it was not just before: somebody does so again within a minute.
    Soon,
    /// At any rate.
    Now,
}

/// Counts requests, and keeps the file.
#[derive(Debug)]
pub struct Requests {
    path: PathBuf,
    hour: Mutex<Hour>,
    /// What is in the file, and since when.
    kept: tokio::sync::Mutex<(Hour, Option<Instant>)>,
}

/// Many instances end their syncs in the same minute.
const APART: Duration = Duration::from_secs(5);

/// Longer than the file of some thousand instances.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Minutes of an hour.
const MINUTES: i64 = 60;

/// What each instance was sent within the hour, by name. `None`: nothing was kept, or it cannot be read.
#[must_use]
pub fn sent(mirror: &Path, now: Timestamp) -> Option<BTreeMap<String, Sent>> {
    let mut hour = read(&path(mirror))?;
    hour.forget(now);
    let sent = |instance: &OfInstance| {
        let sum = |sum: u64, n: &u64| sum.saturating_add(*n);
        let last_hour = instance.minutes.values().fold(0, sum);
        let left = |limit| u64::from(limit).saturating_sub(last_hour);
        Sent {
            last_hour,
            left: instance.per_hour.map(left),
            not_before: instance.wait.as_ref().map(|wait| wait.until),
        }
    };
    let instances = hour.0.iter();
    let sent = instances.map(|(name, instance)| (name.clone(), sent(instance)));
    Some(sent.collect())
}

/// Leaves instances alone for as long as they asked to be, whoever was told so (promise P8).
pub async fn heed(mirror: &Path, links: &[Arc<Link>], clock: &SharedClock) {
    Requests::beside(mirror).await.heed(links, clock.now());
}

/// Adds what a command has sent while no daemon runs, also before there is a mirror.
pub async fn add(mirror: &Path, links: Vec<Arc<Link>>, clock: &SharedClock) {
    if mirror.parent().is_some_and(Path::is_dir) {
        let requests = Requests::beside(mirror).await;
        requests.note(&links, clock.now());
        requests.keep(Keep::Now).await;
    }
}

/// Gives what is kept of an instance to its new name, while no daemon runs.
pub async fn rename(mirror: &Path, old: &InstanceName, new: &InstanceName) {
    let requests = Requests::beside(mirror).await;
    requests.give(old, new);
    requests.keep(Keep::Now).await;
}

impl Requests {
    /// Goes on with what is beside the mirror.
    pub(super) async fn beside(mirror: &Path) -> Self {
        let path = path(mirror);
        let from = path.clone();
        let hour = tokio::task::spawn_blocking(move || read(&from)).await;
        // Nothing aborts it: the runtime is stopping.
        let hour = hour.ok().flatten().unwrap_or_default();
        Self {
            path,
            kept: tokio::sync::Mutex::new((hour.clone(), None)),
            hour: Mutex::new(hour),
        }
    }

    /// What the new name has of its own stays.
    fn give(&self, old: &InstanceName, new: &InstanceName) {
        let mut hour = self.hour.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = hour.0.remove(old.as_str()) {
            hour.0.entry(new.to_string()).or_insert(instance);
        }
    }

    /// Leaves each instance alone for as long as it asked to be.
    pub(super) fn heed<'a>(&self, links: impl IntoIterator<Item = &'a Arc<Link>>, now: Timestamp) {
        let mut hour = self.hour.lock().unwrap_or_else(PoisonError::into_inner);
        hour.forget(now);
        for link in links {
            let kept = hour.0.get(link.name.as_str());
            let wait = kept.and_then(|instance| instance.wait.as_ref());
            if let Some(wait) = wait.filter(|wait| wait.origin == origin(link)) {
                link.client.set_not_before(wait.until);
            }
        }
    }

    /// Counts what was sent since the last time, as of this minute.
    pub(super) fn note<'a>(&self, links: impl IntoIterator<Item = &'a Arc<Link>>, now: Timestamp) {
        let mut hour = self.hour.lock().unwrap_or_else(PoisonError::into_inner);
        let mut linked = BTreeSet::new();
        for link in links {
            linked.insert(link.name.as_str());
            let total = link.client.spent().snapshot().requests;
            let new = total - link.noted.swap(total, Ordering::Relaxed).min(total);
            let instance = hour.0.entry(link.name.to_string()).or_default();
            instance.per_hour = link.client.per_hour();
            let known = instance.wait.take();
            instance.wait = link.client.not_before().map(|until| {
                let origin = origin(link);
                let same = known.filter(|known| known.is(&origin, until));
                same.unwrap_or(Wait { origin, until })
            });
            if new > 0 {
                let sent = instance.minutes.entry(minute(now)).or_default();
                *sent = sent.saturating_add(new);
            }
        }
        hour.forget(now);
        hour.0.retain(|name, instance| {
            linked.contains(&**name) || !instance.minutes.is_empty() || instance.wait.is_some()
        });
    }

    /// Writes the file, if something else is in it.
    pub(super) async fn keep(&self, when: Keep) {
        let mut kept = self.kept.lock().await;
        let is_early = kept.1.is_some_and(|at| at.elapsed() < APART);
        let hour = self
            .hour
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if kept.0 == hour || (is_early && when == Keep::Soon) {
            return;
        }
        let (path, written) = (self.path.clone(), hour.clone());
        match tokio::task::spawn_blocking(move || write(&path, &written)).await {
            Ok(Ok(())) => *kept = (hour, Some(Instant::now())),
            // It is tried again within a minute. A disk that is full is told of by syncs.
            Ok(Err(error)) => {
                debug!(%error, "what was sent within the hour, and what instances asked to wait, cannot be kept")
            }
            Err(error) => debug!(%error, "what was sent within the hour is not kept"),
        }
    }
}

impl Hour {
    /// What was sent before the hour is of no interest. Nor is what was sent later than now: the clock was set back.
    fn forget(&mut self, now: Timestamp) {
        let minute = minute(now);
        let hour = minute - MINUTES + 1..=minute;
        for instance in self.0.values_mut() {
            instance.minutes.retain(|minute, _| hour.contains(minute));
            instance.wait = instance.wait.take().filter(|wait| wait.until > now);
        }
    }
}

fn minute(moment: Timestamp) -> i64 {
    moment.as_second().div_euclid(60)
}

fn origin(link: &Link) -> String {
    link.client.options().origin.origin().ascii_serialization()
}

fn path(mirror: &Path) -> PathBuf {
    mirror::beside(mirror, "requests")
}

fn read(path: &Path) -> Option<Hour> {
    // A pipe would be waited for.
    let is_file = path.symlink_metadata().ok()?.is_file();
    let file = is_file.then(|| std::fs::File::open(path).ok())??;
    let mut text = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// After a power cut the file is what it was some seconds before.
fn write(path: &Path, hour: &Hour) -> io::Result<()> {
    textfile::replace(path, &serde_json::to_string(hour)?, 0o640)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hour(minutes: &[(&str, u64)]) -> Hour {
        let instance = OfInstance {
            per_hour: Some(100),
            wait: Some(Wait {
                origin: "https://acme.service-now.com".to_owned(),
                until: at("2026-03-01T12:45:00Z"),
            }),
            minutes: minutes
                .iter()
                .map(|(text, n)| (minute(at(text)), *n))
                .collect(),
        };
        Hour(BTreeMap::from([("acme".to_owned(), instance)]))
    }

    #[test]
    fn what_is_older_than_an_hour_or_of_another_clock_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = folder.path().join("mirror.db");
        let now = at("2026-03-01T12:30:30Z");
        assert_eq!(sent(&mirror, now), None);
        let kept = hour(&[
            ("2026-03-01T11:30:59Z", 1),
            ("2026-03-01T11:31:00Z", 2),
            ("2026-03-01T12:30:59Z", 4),
            ("2026-03-01T12:31:00Z", 8),
        ]);
        write(&path(&mirror), &kept).unwrap();
        assert_eq!(
            path(&mirror).metadata().unwrap().permissions().mode() & 0o777,
            0o640
        );
        let acme = |now| sent(&mirror, now).unwrap()["acme"];
        assert_eq!(
            acme(now),
            Sent {
                last_hour: 6,
                left: Some(94),
                not_before: Some(at("2026-03-01T12:45:00Z")),
            }
        );
        assert_eq!(
            acme(at("2026-03-02T12:30:30Z")),
            Sent {
                last_hour: 0,
                left: Some(100),
                not_before: None,
            }
        );
        write(&path(&mirror), &hour(&[("2026-03-01T12:30:00Z", 101)])).unwrap();
        assert_eq!(acme(now).left, Some(0));
        let absurd = [
            ("2026-03-01T12:30:00Z", u64::MAX),
            ("2026-03-01T12:29:00Z", 1),
        ];
        write(&path(&mirror), &hour(&absurd)).unwrap();
        assert_eq!(acme(now).last_hour, u64::MAX);
        std::fs::write(path(&mirror), "{").unwrap();
        assert_eq!(sent(&mirror, now), None);
    }

    #[test]
    fn a_wait_is_kept_as_it_was_told_and_not_again_for_the_clocks_jitter() {
        let wait = Wait {
            origin: "https://acme.service-now.com".to_owned(),
            until: at("2026-03-01T12:45:00.050Z"),
        };
        for (until, same) in [
            ("2026-03-01T12:45:00.049999Z", true),
            ("2026-03-01T12:45:00.070Z", true),
            ("2026-03-01T12:45:00.100Z", false),
            ("2026-03-01T12:45:00Z", false),
        ] {
            assert_eq!(wait.is(&wait.origin, at(until)), same, "{until}");
        }
        assert!(!wait.is("https://new.service-now.com", wait.until));
    }

    #[tokio::test]
    async fn what_was_sent_and_asked_for_goes_with_a_new_name() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = folder.path().join("mirror.db");
        let kept = hour(&[("2026-03-01T12:30:00Z", 3)]);
        write(&path(&mirror), &kept).unwrap();
        let name = |name| InstanceName::parse(name).unwrap();
        rename(&mirror, &name("acme"), &name("emea")).await;
        let renamed = read(&path(&mirror)).unwrap();
        assert_eq!(renamed.0.keys().collect::<Vec<_>>(), ["emea"]);
        assert_eq!(renamed.0["emea"], kept.0["acme"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_not_written_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let mirror = folder.path().join("mirror.db");
        let requests = Requests::beside(&mirror).await;
        let now = at("2026-03-01T12:30:30Z");
        let count = async |n, when| {
            *requests.hour.lock().unwrap() = hour(&[("2026-03-01T12:30:00Z", n)]);
            requests.keep(when).await;
            sent(&mirror, now).map(|sent| sent["acme"].last_hour)
        };
        assert_eq!(count(1, Keep::Soon).await, Some(1));
        assert_eq!(count(2, Keep::Soon).await, Some(1));
        assert_eq!(count(3, Keep::Now).await, Some(3));
        tokio::time::sleep(APART).await;
        assert_eq!(count(4, Keep::Soon).await, Some(4));
        assert_eq!(
            Requests::beside(&mirror).await.hour.lock().unwrap().0.len(),
            1
        );
    }
}
