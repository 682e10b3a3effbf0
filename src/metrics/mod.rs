//! Metrics: what is known of the daemon at one moment, as text in the OpenMetrics format. Who reads it, and when it is
//! written, is the business of the rooms below.
//!
//! The same text is served over HTTP and read by a node exporter from a file. The latter knows the older Prometheus
//! format alone, in which `# UNIT` and `# EOF` are comments and an `info` is an error: so there are gauges and counters
//! here, and no other type.

pub mod heartbeat;
pub mod listen;
pub mod process;
pub mod textfile;

use std::fmt;

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::model::{InstanceName, Mode, Outcome, TallySnapshot};

/// The guards that a hold can be of. Each has its number, also where that is 0, so that an alert ends.
pub const GUARDS: [&str; 5] = [
    "deactivations",
    "blanking",
    "source_changed",
    "memberships",
    "group_memberships",
];

/// The media type of [`text()`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is known at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The program's version.
    pub version: &'static str,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The feed's newest `seq`.
    pub feed_last_seq: i64,
    /// Length of the mirror's file.
    pub mirror_bytes: u64,
    /// Length of its write-ahead log.
    pub wal_bytes: u64,
    /// The linked instances, by name.
    pub instances: Vec<Instance>,
    /// The process, where its metrics are wanted: a node exporter has some of the same names of its own, and would
    /// refuse them.
    pub process: Option<Process>,
}

/// What is known of one linked instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its name.
    pub name: InstanceName,
    /// When a sync of either mode last succeeded.
    pub last_success_at: Option<Timestamp>,
    /// When a complete full sync last succeeded.
    pub last_full_success_at: Option<Timestamp>,
    /// Up to when incremental syncs are complete, by the instance's clock.
    pub watermark: Option<Timestamp>,
    /// Open holds by guard, in the order of [`GUARDS`].
    pub open_holds: [i64; GUARDS.len()],
    /// Changes that are held.
    pub held_changes: i64,
    /// Resources that could not be understood, users and groups.
    pub rejects: i64,
    /// Users that are not gone.
    pub living: i64,
    /// Of those, active.
    pub active: i64,
    /// What is known of its groups; `None` where they were never mirrored.
    pub groups: Option<Groups>,
    /// Own profiles of which a person must say who they are.
    pub ambiguous_profiles: i64,
    /// Failed syncs since the last success.
    pub consecutive_failures: i64,
    /// What talking to it has cost this process.
    pub spent: TallySnapshot,
    /// What its syncs have come to in this process.
    pub counted: Counted,
}

/// What is known of the groups of one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// When a complete full sync of them last succeeded.
    pub last_full_success_at: Option<Timestamp>,
    /// Groups that are not gone.
    pub living: i64,
    /// Of those, the ones whose members are not all known.
    pub known_in_part: i64,
    /// Memberships that live.
    pub memberships: i64,
}

/// What the syncs of one instance have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Syncs that ended, by mode in the order of [`MODES`] and outcome in the order of [`OUTCOMES`].
    pub syncs: [[u64; OUTCOMES.len()]; MODES.len()],
    /// `create` records.
    pub created: u64,
    /// `update` records.
    pub updated: u64,
    /// `deactivate` records.
    pub deactivated: u64,
}

/// The modes of a sync.
pub const MODES: [Mode; 2] = [Mode::Full, Mode::Incremental];
/// The ends of a sync.
pub const OUTCOMES: [Outcome; 3] = [Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled];

/// What is known of the process.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// When the daemon began.
    pub started_at: Timestamp,
    /// Memory in use, where the system says so.
    pub resident_memory_bytes: Option<u64>,
    /// Open file descriptors, where the system says so.
    pub open_fds: Option<u64>,
}

/// The whole exposition.
///
/// # Errors
/// Never, as long as text can be added to a string; but the encoder says that it may.
pub fn text(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(snapshot));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Snapshot {
    /// In the order in which it is written here, and by name of instance. (A `Family` of the library has the order of
    /// a hash map.)
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.freshness(&mut page)?;
        self.trouble(&mut page)?;
        self.contents(&mut page)?;
        self.work(&mut page)?;
        self.program(&mut page)
    }
}

impl Snapshot {
    fn freshness(&self, page: &mut Page<'_>) -> fmt::Result {
        let stamps = self.instances.iter().flat_map(|instance| {
            let full = ("full", instance.last_full_success_at);
            let either = ("incremental", instance.last_success_at);
            [full, either].into_iter().filter_map(|(mode, at)| {
                Some((vec![label(instance), ("mode", mode)], seconds(at?)))
            })
        });
        page.gauge(
            "musterd_last_success_timestamp",
            "When a sync last succeeded. mode incremental: a sync of either mode, because a full one reads what an \
             incremental one would; mode full: a complete full one. Missing until there was one.",
            Some(Unit::Seconds),
            stamps,
        )?;
        let groups = self.instances.iter().filter_map(|instance| {
            let at = instance.groups?.last_full_success_at?;
            Some((vec![label(instance)], seconds(at)))
        });
        page.gauge(
            "musterd_groups_last_success_timestamp",
            "When a complete full sync of groups last succeeded, which alone finds who joined and who left them. Missing \
             until there was one.",
            Some(Unit::Seconds),
            groups,
        )?;
        let lags = self.instances.iter().filter_map(|instance| {
            // A clock that is behind the instance's makes nothing younger than new.
            let lag = self.taken_at.duration_since(instance.watermark?);
            Some((vec![label(instance)], lag.as_secs_f64().max(0.0)))
        });
        page.gauge(
            "musterd_watermark_lag",
            "Time since the watermark, which is the newest change that was seen in the instance, by its clock. Where \
             nobody changes it grows, and nothing is wrong: alert on musterd_last_success_timestamp_seconds.",
            Some(Unit::Seconds),
            lags,
        )
    }

    fn trouble(&self, page: &mut Page<'_>) -> fmt::Result {
        let holds = self.instances.iter().flat_map(|instance| {
            let counts = GUARDS.into_iter().zip(instance.open_holds);
            counts.map(|(guard, n)| (vec![label(instance), ("guard", guard)], n))
        });
        page.gauge(
            "musterd_open_holds",
            "Holds that wait for a person: see musterd holds.",
            None,
            holds,
        )?;
        self.each(
            page,
            "musterd_held_changes",
            "Changes that are kept back by open holds.",
            |one| one.held_changes,
        )?;
        self.each(
            page,
            "musterd_rejects",
            "Resources that could not be understood, and stay as they were: see the table rejects.",
            |one| one.rejects,
        )?;
        self.each(
            page,
            "musterd_consecutive_failures",
            "Failed syncs since the last that showed the instance to be well.",
            |one| one.consecutive_failures,
        )
    }

    fn contents(&self, page: &mut Page<'_>) -> fmt::Result {
        let users = self.instances.iter().flat_map(|instance| {
            let counts = [("living", instance.living), ("active", instance.active)];
            counts.map(|(state, n)| (vec![label(instance), ("state", state)], n))
        });
        page.gauge(
            "musterd_users",
            "Users in the mirror. living: not gone; active: of those, the active ones.",
            None,
            users,
        )?;
        let with_groups = || {
            let instances = self.instances.iter();
            instances.filter_map(|instance| Some((instance, instance.groups?)))
        };
        let groups = with_groups().flat_map(|(instance, groups)| {
            let counts = [
                ("living", groups.living),
                ("known_in_part", groups.known_in_part),
            ];
            counts.map(|(state, n)| (vec![label(instance), ("state", state)], n))
        });
        page.gauge(
            "musterd_groups",
            "Groups in the mirror. living: not gone; known_in_part: of those, the ones whose list of members was cut or \
             could not be read, so that nobody leaves them.",
            None,
            groups,
        )?;
        let memberships =
            with_groups().map(|(instance, groups)| (vec![label(instance)], groups.memberships));
        page.gauge(
            "musterd_memberships",
            "Memberships that live.",
            None,
            memberships,
        )?;
        self.each(
            page,
            "musterd_ambiguous_profiles",
            "Own profiles of which a person must say who they are: see musterd map list --state ambiguous.",
            |one| one.ambiguous_profiles,
        )?;
        page.gauge(
            "musterd_feed_last_seq",
            "The newest record of the feed.",
            None,
            [(vec![], self.feed_last_seq)],
        )?;
        page.gauge(
            "musterd_mirror",
            "Length of the mirror's file.",
            Some(Unit::Bytes),
            [(vec![], self.mirror_bytes)],
        )?;
        page.gauge(
            "musterd_wal",
            "Length of the mirror's write-ahead log. It stays long while a reader keeps a transaction open.",
            Some(Unit::Bytes),
            [(vec![], self.wal_bytes)],
        )
    }

    fn work(&self, page: &mut Page<'_>) -> fmt::Result {
        let of = |count: fn(&TallySnapshot) -> u64| {
            let instances = self.instances.iter();
            instances.map(move |instance| (vec![label(instance)], count(&instance.spent)))
        };
        page.counter(
            "musterd_requests",
            "Requests sent since the start, token requests and repeats included, whatever became of the sync.",
            None,
            of(|spent| spent.requests),
        )?;
        page.counter(
            "musterd_retries",
            "Of the requests, repeats of a failed one.",
            None,
            of(|spent| spent.retries),
        )?;
        let throttled = of(|spent| spent.throttled_ms)
            // Exact below 285,000 years.
            .map(|(labels, ms)| (labels, ms as f64 / 1000.0));
        page.counter(
            "musterd_throttled",
            "Time waited since the start because the instance said so, added up over all that waited.",
            Some(Unit::Seconds),
            throttled,
        )?;
        let syncs = self.instances.iter().flat_map(|instance| {
            MODES
                .into_iter()
                .zip(instance.counted.syncs)
                .flat_map(move |(mode, counts)| {
                    OUTCOMES.into_iter().zip(counts).map(move |(outcome, n)| {
                        let (mode, outcome) =
                            (("mode", mode.as_str()), ("outcome", outcome.as_str()));
                        (vec![label(instance), mode, outcome], n)
                    })
                })
        });
        page.counter(
            "musterd_syncs",
            "Syncs that ended since the start, approvals of holds included.",
            None,
            syncs,
        )?;
        let records = self.instances.iter().flat_map(|instance| {
            let counted = &instance.counted;
            let counts = [
                ("create", counted.created),
                ("update", counted.updated),
                ("deactivate", counted.deactivated),
            ];
            counts.map(|(kind, n)| (vec![label(instance), ("kind", kind)], n))
        });
        page.counter(
            "musterd_records",
            "Change records written since the start.",
            None,
            records,
        )
    }

    fn program(&self, page: &mut Page<'_>) -> fmt::Result {
        page.gauge(
            "musterd_build_info",
            "The version that runs; always 1.",
            None,
            [(vec![("version", self.version)], 1_u64)],
        )?;
        let Some(process) = &self.process else {
            return Ok(());
        };
        if let Some(bytes) = process.resident_memory_bytes {
            page.gauge(
                "process_resident_memory",
                "Resident memory.",
                Some(Unit::Bytes),
                [(vec![], bytes)],
            )?;
        }
        if let Some(n) = process.open_fds {
            page.gauge(
                "process_open_fds",
                "Open file descriptors.",
                None,
                [(vec![], n)],
            )?;
        }
        page.gauge(
            "process_start_time",
            "When the daemon began.",
            Some(Unit::Seconds),
            [(vec![], seconds(process.started_at))],
        )
    }

    /// A gauge of one number an instance.
    fn each(
        &self,
        page: &mut Page<'_>,
        name: &str,
        help: &str,
        value: fn(&Instance) -> i64,
    ) -> fmt::Result {
        let rows = self.instances.iter();
        page.gauge(
            name,
            help,
            None,
            rows.map(|one| (vec![label(one)], value(one))),
        )
    }
}

type Labels<'a> = Vec<(&'static str, &'a str)>;

fn label(instance: &Instance) -> (&'static str, &str) {
    ("instance", instance.name.as_str())
}

/// Whole milliseconds are exact in it for longer than there are dates.
fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

/// Where families are written, one after the other.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge<'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let mut family = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A counter; its samples end in `_total`.
    fn counter<'l, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        rows: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let mut family =
            self.0
                .encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in rows {
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, V, f64>(&value, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn new(name: &str) -> Instance {
        Instance {
            name: InstanceName::parse(name).unwrap(),
            last_success_at: None,
            last_full_success_at: None,
            watermark: None,
            open_holds: [0; GUARDS.len()],
            held_changes: 0,
            rejects: 0,
            living: 0,
            active: 0,
            groups: None,
            ambiguous_profiles: 0,
            consecutive_failures: 0,
            spent: TallySnapshot::default(),
            counted: Counted::default(),
        }
    }

    fn snapshot(instances: Vec<Instance>) -> Snapshot {
        Snapshot {
            version: "1.2.3",
            taken_at: time(NOW),
            feed_last_seq: 70_007,
            mirror_bytes: 409_600,
            wal_bytes: 8_192,
            instances,
            process: None,
        }
    }

    #[test]
    fn every_metric_has_its_type_and_its_numbers() {
        let acme = Instance {
            last_success_at: Some(time("2026-03-01T11:59:00.250Z")),
            last_full_success_at: Some(time("2026-03-01T02:30:00Z")),
            watermark: Some(time("2026-03-01T11:58:30Z")),
            open_holds: [2, 0, 1, 0, 0],
            held_changes: 41,
            rejects: 3,
            living: 60,
            active: 55,
            groups: Some(Groups {
                last_full_success_at: Some(time("2026-03-01T11:30:00Z")),
                living: 12,
                known_in_part: 2,
                memberships: 345,
            }),
            ambiguous_profiles: 5,
            consecutive_failures: 4,
            spent: TallySnapshot {
                requests: 9,
                retries: 2,
                bytes: 1,
                throttled_ms: 1_500,
                ..TallySnapshot::default()
            },
            counted: Counted {
                syncs: [[1, 2, 3], [4, 5, 6]],
                created: 60,
                updated: 7,
                deactivated: 1,
            },
            ..new("acme")
        };
        insta::assert_snapshot!(text(snapshot(vec![acme])).unwrap(), @r#"
        # HELP musterd_last_success_timestamp_seconds When a sync last succeeded. mode incremental: a sync of either mode, because a full one reads what an incremental one would; mode full: a complete full one. Missing until there was one.
        # TYPE musterd_last_success_timestamp_seconds gauge
        # UNIT musterd_last_success_timestamp_seconds seconds
        musterd_last_success_timestamp_seconds{instance="acme",mode="full"} 1772332200.0
        musterd_last_success_timestamp_seconds{instance="acme",mode="incremental"} 1772366340.25
        # HELP musterd_groups_last_success_timestamp_seconds When a complete full sync of groups last succeeded, which alone finds who joined and who left them. Missing until there was one.
        # TYPE musterd_groups_last_success_timestamp_seconds gauge
        # UNIT musterd_groups_last_success_timestamp_seconds seconds
        musterd_groups_last_success_timestamp_seconds{instance="acme"} 1772364600.0
        # HELP musterd_watermark_lag_seconds Time since the watermark, which is the newest change that was seen in the instance, by its clock. Where nobody changes it grows, and nothing is wrong: alert on musterd_last_success_timestamp_seconds.
        # TYPE musterd_watermark_lag_seconds gauge
        # UNIT musterd_watermark_lag_seconds seconds
        musterd_watermark_lag_seconds{instance="acme"} 90.0
        # HELP musterd_open_holds Holds that wait for a person: see musterd holds.
        # TYPE musterd_open_holds gauge
        musterd_open_holds{instance="acme",guard="deactivations"} 2
        musterd_open_holds{instance="acme",guard="blanking"} 0
        musterd_open_holds{instance="acme",guard="source_changed"} 1
        musterd_open_holds{instance="acme",guard="memberships"} 0
        musterd_open_holds{instance="acme",guard="group_memberships"} 0
        # HELP musterd_held_changes Changes that are kept back by open holds.
        # TYPE musterd_held_changes gauge
        musterd_held_changes{instance="acme"} 41
        # HELP musterd_rejects Resources that could not be understood, and stay as they were: see the table rejects.
        # TYPE musterd_rejects gauge
        musterd_rejects{instance="acme"} 3
        # HELP musterd_consecutive_failures Failed syncs since the last that showed the instance to be well.
        # TYPE musterd_consecutive_failures gauge
        musterd_consecutive_failures{instance="acme"} 4
        # HELP musterd_users Users in the mirror. living: not gone; active: of those, the active ones.
        # TYPE musterd_users gauge
        musterd_users{instance="acme",state="living"} 60
        musterd_users{instance="acme",state="active"} 55
        # HELP musterd_groups Groups in the mirror. living: not gone; known_in_part: of those, the ones whose list of members was cut or could not be read, so that nobody leaves them.
        # TYPE musterd_groups gauge
        musterd_groups{instance="acme",state="living"} 12
        musterd_groups{instance="acme",state="known_in_part"} 2
        # HELP musterd_memberships Memberships that live.
        # TYPE musterd_memberships gauge
        musterd_memberships{instance="acme"} 345
        # HELP musterd_ambiguous_profiles Own profiles of which a person must say who they are: see musterd map list --state ambiguous.
        # TYPE musterd_ambiguous_profiles gauge
        musterd_ambiguous_profiles{instance="acme"} 5
        # HELP musterd_feed_last_seq The newest record of the feed.
        # TYPE musterd_feed_last_seq gauge
        musterd_feed_last_seq 70007
        # HELP musterd_mirror_bytes Length of the mirror's file.
        # TYPE musterd_mirror_bytes gauge
        # UNIT musterd_mirror_bytes bytes
        musterd_mirror_bytes 409600
        # HELP musterd_wal_bytes Length of the mirror's write-ahead log. It stays long while a reader keeps a transaction open.
        # TYPE musterd_wal_bytes gauge
        # UNIT musterd_wal_bytes bytes
        musterd_wal_bytes 8192
        # HELP musterd_requests Requests sent since the start, token requests and repeats included, whatever became of the sync.
        # TYPE musterd_requests counter
        musterd_requests_total{instance="acme"} 9
        # HELP musterd_retries Of the requests, repeats of a failed one.
        # TYPE musterd_retries counter
        musterd_retries_total{instance="acme"} 2
        # HELP musterd_throttled_seconds Time waited since the start because the instance said so, added up over all that waited.
        # TYPE musterd_throttled_seconds counter
        # UNIT musterd_throttled_seconds seconds
        musterd_throttled_seconds_total{instance="acme"} 1.5
        # HELP musterd_syncs Syncs that ended since the start, approvals of holds included.
        # TYPE musterd_syncs counter
        musterd_syncs_total{instance="acme",mode="full",outcome="succeeded"} 1
        musterd_syncs_total{instance="acme",mode="full",outcome="failed"} 2
        musterd_syncs_total{instance="acme",mode="full",outcome="cancelled"} 3
        musterd_syncs_total{instance="acme",mode="incremental",outcome="succeeded"} 4
        musterd_syncs_total{instance="acme",mode="incremental",outcome="failed"} 5
        musterd_syncs_total{instance="acme",mode="incremental",outcome="cancelled"} 6
        # HELP musterd_records Change records written since the start.
        # TYPE musterd_records counter
        musterd_records_total{instance="acme",kind="create"} 60
        musterd_records_total{instance="acme",kind="update"} 7
        musterd_records_total{instance="acme",kind="deactivate"} 1
        # HELP musterd_build_info The version that runs; always 1.
        # TYPE musterd_build_info gauge
        musterd_build_info{version="1.2.3"} 1
        # EOF
        "#);
    }

    /// Alerts end by a number: what is not there has none.
    #[test]
    fn what_never_was_is_missing_and_what_is_not_held_is_0() {
        let text = text(snapshot(vec![new("globex")])).unwrap();
        let of_globex: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("globex"))
            .collect();
        let (holds, others): (Vec<_>, Vec<_>) = of_globex
            .into_iter()
            .partition(|line| line.starts_with("musterd_open_holds"));
        assert_eq!(holds.len(), GUARDS.len());
        assert!(
            others
                .iter()
                .all(|line| !line.contains("timestamp") && !line.contains("lag"))
        );
        assert!(
            holds
                .iter()
                .chain(&others)
                .all(|line| line.ends_with(" 0") || line.ends_with(" 0.0"))
        );
    }

    #[test]
    fn the_process_is_told_of_only_where_it_is_asked_for() {
        assert!(!text(snapshot(vec![])).unwrap().contains("process_"));
        let process = Process {
            started_at: time(NOW) - Duration::from_millis(1),
            resident_memory_bytes: Some(4_096),
            open_fds: None,
        };
        let with_process = Snapshot {
            process: Some(process),
            ..snapshot(vec![])
        };
        let text = text(with_process).unwrap();
        assert!(
            text.contains("\nprocess_resident_memory_bytes 4096\n"),
            "{text}"
        );
        assert!(
            text.contains("\nprocess_start_time_seconds 1772366399.999\n"),
            "{text}"
        );
        assert!(!text.contains("process_open_fds"), "{text}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
    }

    #[test]
    fn a_watermark_that_is_ahead_of_our_clock_makes_no_negative_lag() {
        let ahead = Instance {
            watermark: Some(time(NOW) + Duration::from_mins(5)),
            ..new("acme")
        };
        let text = text(snapshot(vec![ahead])).unwrap();
        assert!(
            text.contains("\nmusterd_watermark_lag_seconds{instance=\"acme\"} 0.0\n"),
            "{text}"
        );
    }
}
