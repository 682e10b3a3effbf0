//! A mirror with users in it, written through the library the way a sync writes.

use std::time::Duration;

use jiff::Timestamp;
use musterd::clock::{Clock as _, SystemClock};
use musterd::mirror::apply::{Batch, Finish, Planned, SyncRow, Treatment, Watch};
use musterd::mirror::profiles::Piece;
use musterd::mirror::read::Pin;
use musterd::mirror::stage::{Stage, StageKey};
use musterd::mirror::{self, Mirror};
use musterd::model::{
    InstanceName, Mode, Outcome, Profile, ResourceId, ResourceType, Row, Rule, TallySnapshot,
    Trigger,
};
use musterd::reconcile::decode::decode;
use musterd::reconcile::guard::{Limits, ShareLimit, WindowLimit};
use serde_json::{Value, json};

use crate::harness::{Home, Ran};

/// A home whose mirror is open in this process and knows the instance `acme`.
pub(crate) struct Filled {
    home: Home,
    mirror: Mirror,
    runtime: tokio::runtime::Runtime,
    has_baseline: bool,
}

/// A user as an instance shows it.
pub(crate) fn person(id: &str, user_name: &str) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "id": id,
        "userName": user_name,
        "displayName": format!("Name of {user_name}"),
        "active": true,
    })
}

impl Filled {
    /// A mirror whose baseline has these users.
    pub(crate) fn new(users: &[Value]) -> Self {
        let home = Home::new(&[]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let mirror = Mirror::open(&home.mirror_path(), "0f0e0d0c0b0a0908").unwrap();
        runtime.block_on(link(&mirror)).unwrap();
        let mut filled = Self {
            home,
            mirror,
            runtime,
            has_baseline: false,
        };
        filled.apply(users);
        filled.has_baseline = true;
        filled
    }

    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Runs a reading command on this mirror.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let path = self.home.mirror_path();
        let mirror = ["--mirror", path.to_str().unwrap()];
        self.home.run(&[args, &mirror].concat())
    }

    /// A full sync of groups that reads these.
    pub(crate) fn apply_groups(&mut self, groups: &[Value]) {
        let now = SystemClock.now();
        let (mirror, runtime) = (&self.mirror, &self.runtime);
        runtime
            .block_on(async {
                link_sources(mirror, vec![ResourceType::User, ResourceType::Group]).await?;
                apply_of(mirror, ResourceType::Group, groups, Mode::Full, now, 10_000).await
            })
            .unwrap();
    }

    /// A sync that reads these users and nobody else: a full one while there is no baseline, then
    /// incremental ones.
    pub(crate) fn apply(&mut self, users: &[Value]) {
        let mode = if self.has_baseline {
            Mode::Incremental
        } else {
            Mode::Full
        };
        let now = SystemClock.now();
        let applying = apply(&self.mirror, users, mode, now, 10_000);
        self.runtime.block_on(applying).unwrap();
    }
}

impl Filled {
    /// Imports a list of profiles that go by these user names.
    pub(crate) fn import(&self, user_names: &[&str]) {
        let profile = |name: &&str| Profile {
            profile: (*name).to_owned(),
            user_name: Some((*name).to_owned()),
            ..Profile::default()
        };
        let piece = Piece {
            instance: acme(),
            number: None,
            rules: Rule::ALL.to_vec(),
            after: None,
            profiles: user_names.iter().map(profile).collect(),
            is_last: true,
            most_removals: 0,
            may_forget: false,
            now: SystemClock.now(),
        };
        let imported = self.mirror.write(move |writer| {
            writer.take_up_keys(&acme(), &Rule::ALL, None)?;
            writer.import(&piece)
        });
        self.runtime.block_on(imported).unwrap();
    }
}

/// A group as an instance shows it, with these users in it.
pub(crate) fn group(id: &str, name: &str, members: &[&str]) -> Value {
    let member =
        |id: &&str| json!({ "value": id, "type": "User", "display": format!("Label of {id}") });
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
        "id": id,
        "displayName": name,
        "members": members.iter().map(member).collect::<Vec<_>>(),
    })
}

/// Lets a mirror know the instance `acme`.
pub(crate) async fn link(mirror: &Mirror) -> Result<(), mirror::Error> {
    link_sources(mirror, vec![ResourceType::User]).await
}

async fn link_sources(mirror: &Mirror, resources: Vec<ResourceType>) -> Result<(), mirror::Error> {
    let pin = Pin {
        instance: acme(),
        url: "https://acme.service-now.com".to_owned(),
        scim_path: "/api/now/scim".to_owned(),
        resources,
    };
    mirror.write(move |writer| writer.link(&[pin])).await
}

/// A sync of `acme` that reads these users and nobody else, in transactions of at most `limit` records.
pub(crate) async fn apply(
    mirror: &Mirror,
    users: &[Value],
    mode: Mode,
    now: Timestamp,
    limit: usize,
) -> Result<(), mirror::Error> {
    apply_of(mirror, ResourceType::User, users, mode, now, limit).await
}

async fn apply_of(
    mirror: &Mirror,
    resource: ResourceType,
    shown: &[Value],
    mode: Mode,
    now: Timestamp,
    limit: usize,
) -> Result<(), mirror::Error> {
    let key = StageKey {
        instance: acme(),
        resource,
        mode,
        fits: String::new(),
    };
    let reader = mirror.reader()?;
    let (mut stage, _) = Stage::open(None, &key, &reader, now, Duration::ZERO)?;
    let arrived = shown
        .iter()
        .map(|one| {
            let row = Row {
                id: ResourceId::new(one["id"].as_str().unwrap()),
                modified_at: None,
                raw: one.to_string().into(),
            };
            decode(resource, &row).unwrap()
        })
        .collect();
    stage.put(&reader, mirror.base(), arrived, Vec::new())?;
    let source = reader.source(&acme(), resource)?;
    let watch = Watch {
        instance: acme(),
        resource,
        baseline_at: source.baseline_at,
        limits: limits(),
        now,
    };
    let planned = Planned::of(&stage, &reader, &watch)?;
    let reserved = mirror.write(|writer| writer.reserve_sync());
    let batch = Batch {
        watch,
        treatment: Treatment::Guarded(planned),
        mends: None,
        sync_id: reserved.await?,
        limit,
        time: Duration::MAX,
    };
    let mut finish = finish(batch.sync_id, resource, mode, now, shown.len() as u64);
    let mut after: Option<ResourceId> = None;
    loop {
        let (now_batch, now_finish) = (batch.clone(), finish.clone());
        let written = mirror.write(move |writer| {
            let applied = writer.apply(&mut stage, &now_batch, after.as_ref(), &now_finish)?;
            Ok((stage, applied))
        });
        let (returned, applied) = written.await?;
        if applied.finished {
            return Ok(());
        }
        finish.sync.created += applied.created;
        finish.sync.updated += applied.updated;
        stage = returned;
        after = applied.next_after;
        assert!(after.is_some(), "nothing is doubtful here");
    }
}

fn acme() -> InstanceName {
    InstanceName::parse("acme").unwrap()
}

/// The defaults of the configuration.
fn limits() -> Limits {
    let limit = WindowLimit {
        at_least: 5,
        count: 200,
        percent: 5,
        window: Duration::from_secs(24 * 3600),
    };
    Limits {
        deactivations: limit.clone(),
        blanking: limit.clone(),
        memberships: limit.clone(),
        group_memberships: limit,
        source_changed: ShareLimit {
            at_least: 20,
            percent: 20,
        },
    }
}

fn finish(id: i64, resource: ResourceType, mode: Mode, now: Timestamp, seen: u64) -> Finish {
    Finish {
        sync: SyncRow {
            id,
            instance: acme(),
            resource,
            mode,
            trigger: Trigger::Request,
            started_at: now,
            finished_at: now,
            outcome: Outcome::Succeeded,
            certificate: None,
            seen,
            created: 0,
            updated: 0,
            deactivated: 0,
            held: 0,
            rejected: 0,
            cost: TallySnapshot::default(),
            error: None,
        },
        watermark: Some(now),
        restart_at: None,
        full_and_complete: mode == Mode::Full,
        capabilities: None,
    }
}
