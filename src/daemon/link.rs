//! One linked instance: its client, its turns, and what the mirror pins of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use tokio::sync::{Mutex, MutexGuard};

use crate::clock::SharedClock;
use crate::config::Settings;
use crate::config::settings::InstanceSettings;
use crate::mirror::read::Pin;
use crate::model::{InstanceName, Mode, ResourceType};
use crate::scim::client::{Client, Exchange};
use crate::sync::Source;

/// Makes the line to an instance: the network, or a sandbox in process.
pub type ExchangeMaker =
    Arc<dyn Fn(&InstanceSettings) -> anyhow::Result<Arc<dyn Exchange>> + Send + Sync>;

/// What a fleet is given from outside.
#[derive(Clone)]
pub struct Surroundings {
    /// Wall time.
    pub clock: SharedClock,
    /// Makes the line to an instance.
    pub exchange: ExchangeMaker,
    /// Feeds everything that is drawn by lot.
    pub seed: u64,
}

/// Linked instances by name.
pub type Links = BTreeMap<InstanceName, Arc<Link>>;

/// One linked instance.
pub struct Link {
    /// Its name.
    pub name: InstanceName,
    /// Its settings.
    pub settings: InstanceSettings,
    /// All that talks to it.
    pub client: Arc<Client>,
    pub(super) lanes: Arc<Lanes>,
    /// Of all requests that were sent to it, how many are counted as of a minute.
    pub(super) noted: Arc<AtomicU64>,
}

/// One sync of each source and mode at a time, and one approval. What an instance has under way when its settings
/// change has to end first: both would use the same stage.
#[derive(Default)]
pub(super) struct Lanes {
    full: Mutex<()>,
    incremental: Mutex<()>,
    groups_full: Mutex<()>,
    groups_incremental: Mutex<()>,
    approval: Mutex<()>,
}

impl Lanes {
    /// All turns, when what is under way has ended.
    pub(super) async fn all(&self) -> [MutexGuard<'_, ()>; 5] {
        [
            self.full.lock().await,
            self.incremental.lock().await,
            self.groups_full.lock().await,
            self.groups_incremental.lock().await,
            self.approval.lock().await,
        ]
    }
}

/// The configuration and the mirror disagree about what an instance is (contract, section 4a).
#[derive(Debug, thiserror::Error)]
#[error(
    "`instances.{instance}`: the mirror holds users of {pinned}, the configuration says {configured}; if that is the \
     same directory at a new address, run `musterd relink {instance}`; if it is another one, give it another name"
)]
pub struct PinError {
    instance: InstanceName,
    pinned: String,
    configured: String,
}

/// The instances that a command names, or all.
///
/// # Errors
/// When one is not among `links`.
pub fn named(links: &Links, names: &[String]) -> anyhow::Result<Vec<Arc<Link>>> {
    if names.is_empty() {
        return Ok(links.values().cloned().collect());
    }
    let find = |name: &String| {
        let link = InstanceName::parse(name)
            .ok()
            .and_then(|name| links.get(&name))
            .cloned();
        link.with_context(|| {
            format!(
                "no instance `{name}` in the configuration; {}",
                known(links)
            )
        })
    };
    names.iter().map(find).collect()
}

fn known(links: &Links) -> String {
    if links.is_empty() {
        return "there is none yet: add a section `[instances.NAME]`".to_owned();
    }
    let names: Vec<&str> = links.keys().map(InstanceName::as_str).collect();
    format!("there are: {}", names.join(", "))
}

/// The clients of all configured instances, without a mirror: for commands that do not write.
///
/// # Errors
/// What the HTTP client says.
pub fn prepare(settings: &Settings, surroundings: &Surroundings) -> anyhow::Result<Links> {
    reuse(settings, surroundings, &Links::new())
}

pub(super) fn reuse(
    settings: &Settings,
    surroundings: &Surroundings,
    known: &Links,
) -> anyhow::Result<Links> {
    let link = |((name, instance), place): ((&InstanceName, &InstanceSettings), u64)| {
        let link = match known.get(name) {
            Some(link) if link.settings == *instance => Arc::clone(link),
            before => {
                let before = before.map(Arc::as_ref);
                Arc::new(Link::new(name, instance, surroundings, place, before)?)
            }
        };
        Ok((name.clone(), link))
    };
    settings.instances.iter().zip(0_u64..).map(link).collect()
}

impl Link {
    fn new(
        name: &InstanceName,
        settings: &InstanceSettings,
        surroundings: &Surroundings,
        place: u64,
        before: Option<&Self>,
    ) -> anyhow::Result<Self> {
        let exchange = (surroundings.exchange)(settings)
            .with_context(|| format!("`instances.{name}`: cannot prepare its connections"))?;
        let mut client = Client::new(
            settings.client.clone(),
            exchange,
            Arc::clone(&surroundings.clock),
            surroundings.seed.wrapping_add(place),
        );
        // Another address is another server, with limits and waits of its own.
        let same_server =
            before.filter(|link| link.settings.client.origin == settings.client.origin);
        if let Some(link) = same_server {
            client = client.going_on(&link.client);
        }
        Ok(Self {
            name: name.clone(),
            settings: settings.clone(),
            client: Arc::new(client),
            lanes: before.map_or_else(Arc::default, |link| Arc::clone(&link.lanes)),
            noted: same_server.map_or_else(Arc::default, |link| Arc::clone(&link.noted)),
        })
    }

    pub(super) fn lane(&self, resource: ResourceType, mode: Mode) -> &Mutex<()> {
        match (resource, mode) {
            (ResourceType::User, Mode::Full) => &self.lanes.full,
            (ResourceType::User, Mode::Incremental) => &self.lanes.incremental,
            (_, Mode::Full) => &self.lanes.groups_full,
            (_, Mode::Incremental) => &self.lanes.groups_incremental,
        }
    }

    /// Where approvals take turns. Syncs do not wait for them.
    pub(super) fn approval_lane(&self) -> &Mutex<()> {
        &self.lanes.approval
    }

    /// What is synced of this instance.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        self.settings
            .resources
            .iter()
            .map(|resource| self.source(*resource))
    }

    pub(super) fn source(&self, resource: ResourceType) -> Source {
        Source {
            instance: self.name.clone(),
            resource,
            client: Arc::clone(&self.client),
            overlap: self.settings.overlap,
            limits: self.settings.guard.clone(),
            crawl_digest: self.settings.crawl_digest(),
        }
    }
}

/// What the mirror pins of a configured instance.
#[must_use]
pub fn pin(name: &InstanceName, settings: &InstanceSettings) -> Pin {
    Pin {
        instance: name.clone(),
        url: settings.client.origin.origin().ascii_serialization(),
        scim_path: settings.client.scim_path.clone(),
        resources: settings.resources.clone(),
    }
}

/// What the mirror pins of all configured instances.
#[must_use]
pub fn pins(settings: &Settings) -> Vec<Pin> {
    let instances = settings.instances.iter();
    instances
        .map(|(name, instance)| pin(name, instance))
        .collect()
}

/// Holds the configuration against what the mirror has pinned.
///
/// # Errors
/// [`PinError`] for the first instance whose origin or path changed.
pub fn check_pins(configured: &[Pin], pinned: &[Pin]) -> Result<(), PinError> {
    for pin in configured {
        let known = pinned.iter().find(|known| known.instance == pin.instance);
        if let Some(known) = known
            && (&known.url, &known.scim_path) != (&pin.url, &pin.scim_path)
        {
            return Err(PinError {
                instance: pin.instance.clone(),
                pinned: format!("{}{}", known.url, known.scim_path),
                configured: format!("{}{}", pin.url, pin.scim_path),
            });
        }
    }
    Ok(())
}
