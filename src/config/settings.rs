//! The configuration, checked: everything here is possible and complete.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::model::{InstanceName, Mode, ResourceType, Rule};
use crate::reconcile::guard::{Limits, ShareLimit};
use crate::schedule::Schedule;
use crate::scim;
use crate::scim::auth::{AuthOptions, SecretSource};

/// The whole configuration in force.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `[mirror]`.
    pub mirror: MirrorSettings,
    /// Where the daemon listens: see [`super::socket_path`].
    pub socket: PathBuf,
    /// `[daemon]`.
    pub daemon: DaemonSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// `[metrics]`.
    pub metrics: MetricsSettings,
    /// `[instances.*]`, by name.
    pub instances: BTreeMap<InstanceName, InstanceSettings>,
    /// What is allowed but unwise, in sentences: a literal secret, a secret file others may read.
    pub warnings: Vec<String>,
}

/// `[mirror]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorSettings {
    /// The SQLite file.
    pub path: PathBuf,
    /// How long change records are kept; `None` is for ever. Where a guard's window is longer, they are kept as
    /// long as that.
    pub history: Option<Duration>,
    /// How long rows of `syncs` that changed nothing are kept.
    pub sync_history: Duration,
}

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Full crawls at a time, over all instances.
    pub max_full_syncs: usize,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// A level or a tracing filter.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// `[metrics]`: nothing unless it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricsSettings {
    /// The file for a node exporter, absolute; its folder was there when the configuration was read.
    pub textfile: Option<PathBuf>,
    /// Where metrics are served over HTTP: a loopback address.
    pub listen: Option<SocketAddr>,
    /// Holds the URL that is called after syncs that succeeded: see [`super::heartbeat_url`].
    pub heartbeat: Option<SecretSource>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, journald under systemd, else JSON.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
    /// Fields to the journal.
    Journald,
}

/// `[instances.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceSettings {
    /// What the SCIM client needs.
    pub client: scim::client::Options,
    /// What is mirrored.
    pub resources: Vec<ResourceType>,
    /// How far an incremental sync looks back behind the watermark.
    pub overlap: Duration,
    /// When to sync.
    pub schedule: ScheduleSettings,
    /// What to hold back.
    pub guard: Limits,
    /// How own profiles are matched.
    pub identity: IdentitySettings,
}

/// `[instances.NAME.identity]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySettings {
    /// The keys that profiles are matched by, in this order.
    pub rules: Vec<Rule>,
    /// How many profiles an import removes without being told that this is meant.
    pub removals: ShareLimit,
}

impl InstanceSettings {
    /// A digest of what decides which resources a crawl sees: the address, the resources, the
    /// account. An interrupted crawl may go on only if it is the same; how fast it reads and what its
    /// secrets are may change.
    #[must_use]
    pub fn crawl_digest(&self) -> String {
        let client = &self.client;
        let mut parts = vec![client.origin.as_str(), &client.scim_path];
        parts.extend(self.resources.iter().map(|resource| resource.as_str()));
        parts.extend(match &client.auth {
            AuthOptions::ClientCredentials { client_id, .. } => ["client_credentials", client_id],
            AuthOptions::Password { username, .. } => ["password", username],
            AuthOptions::RefreshToken { client_id, .. } => ["refresh_token", client_id],
            AuthOptions::Basic { username, .. } => ["basic", username],
            AuthOptions::Bearer { .. } => ["bearer", ""],
        });
        let mut hash = Sha256::new();
        for part in parts {
            // With its length before it, no part can run into the next.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        format!("{:x}", hash.finalize())
    }
}

/// `[instances.NAME.schedule]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduleSettings {
    /// When incremental syncs are due.
    pub incremental: Schedule,
    /// When full syncs of users are due.
    pub full: Schedule,
    /// When full syncs of groups are due.
    pub groups: Schedule,
    /// Incremental syncs start up to so much after their tick.
    pub splay_incremental: Duration,
    /// Full syncs of users start up to so much after their tick.
    pub splay_full: Duration,
    /// Full syncs of groups start up to so much after their tick.
    pub splay_groups: Duration,
}

impl ScheduleSettings {
    /// When syncs of a resource type and a mode are due. Incremental ones have one schedule for all.
    #[must_use]
    pub fn of(&self, resource: ResourceType, mode: Mode) -> &Schedule {
        match (resource, mode) {
            (_, Mode::Incremental) => &self.incremental,
            (ResourceType::User, Mode::Full) => &self.full,
            (ResourceType::Group | ResourceType::Membership, Mode::Full) => &self.groups,
        }
    }

    /// They start up to so much after their tick.
    #[must_use]
    pub fn splay(&self, resource: ResourceType, mode: Mode) -> Duration {
        match (resource, mode) {
            (_, Mode::Incremental) => self.splay_incremental,
            (ResourceType::User, Mode::Full) => self.splay_full,
            (ResourceType::Group | ResourceType::Membership, Mode::Full) => self.splay_groups,
        }
    }
}
