//! A small mirror that has lived: everything that the mirror keeps is in it, written through the
//! library the way syncs write. The same history gives the same content, by a clock of its own.
//!
//! The mirrors in `tests/data` lived through it as well, those of earlier versions through less of it, so the users of `acme` must end
//! as they do here.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use musterd::mirror::apply::{Applied, Batch, Finish, Planned, SyncRow, Treatment, Watch};
use musterd::mirror::lists::ListState;
use musterd::mirror::profiles::Piece;
use musterd::mirror::read::Pin;
use musterd::mirror::stage::{Stage, StageKey};
use musterd::mirror::trim::TrimOptions;
use musterd::mirror::{Error, Mirror, Reader, Writer};
use musterd::model::{
    Capabilities, Certificate, InstanceName, Mode, Obeyed, Outcome, Paging, Profile, Proof, Reject,
    ResourceId, ResourceType, Rule, Shares, TallySnapshot, Trigger, Verdict, Witness,
};
use musterd::reconcile::decode::decode;
use musterd::reconcile::guard::{Limits, ShareLimit, WindowLimit};
use serde_json::{Value, json};

use super::people::{URN, desk, id, person, row};

const START: &str = "2026-03-01T12:00:00Z";
const USER: ResourceType = ResourceType::User;
const GROUP: ResourceType = ResourceType::Group;

/// Users of an instance, by id.
pub(crate) type Directory = BTreeMap<String, Value>;

/// A mirror that is open, and the directories that it has read.
pub(crate) struct History {
    mirror: Mirror,
    runtime: tokio::runtime::Runtime,
    now: Timestamp,
    directories: BTreeMap<&'static str, Directory>,
    /// Records of one transaction.
    limit: usize,
    /// Called after each transaction.
    after_each: Box<dyn FnMut()>,
}

/// What becomes of one sync.
struct Plan {
    mode: Mode,
    treatment: Option<Treatment>,
    /// Only these users were read.
    only: Option<Vec<String>>,
    /// Stops after so many transactions, as if killed.
    transactions: usize,
    rejects: Vec<Reject>,
}

impl Plan {
    fn full() -> Self {
        Self {
            mode: Mode::Full,
            treatment: None,
            only: None,
            transactions: usize::MAX,
            rejects: Vec::new(),
        }
    }

    fn incremental(only: &[String]) -> Self {
        Self {
            mode: Mode::Incremental,
            only: Some(only.to_vec()),
            ..Self::full()
        }
    }
}

/// Lives through everything, in a new mirror. `after_each` is called after each transaction. Returns what an instance that is
/// synced still looks like.
pub(crate) fn live(path: &Path, after_each: impl FnMut() + 'static) -> Directory {
    let mut history = History::begin(path, after_each);
    history.baselines();
    history.people_come_and_go();
    history.guards_hold();
    history.old_records_are_trimmed();
    history.another_directory();
    history.a_name_changes();
    history.groups_come_and_go();
    history.profiles_are_linked();
    history.end().remove("acme").unwrap()
}

/// Goes on with a mirror long after that: a full sync that finds the same directory, and one that finds a user changed.
pub(crate) fn go_on(path: &Path, directory: Directory, between: impl FnOnce()) {
    let mut history = History::begin(path, || {});
    history.now += SignedDuration::from_hours(30 * 24);
    history.directories.insert("acme", directory);
    history.sync("acme", Plan::full());
    between();
    history.change("acme", &[4], |user| user["title"] = "Chief".into());
    history.end();
}

impl History {
    fn begin(path: &Path, after_each: impl FnMut() + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            mirror: Mirror::open(path, "0f0e0d0c0b0a0908").unwrap(),
            runtime,
            now: START.parse().unwrap(),
            directories: BTreeMap::new(),
            limit: 7,
            after_each: Box::new(after_each),
        }
    }

    fn baselines(&mut self) {
        self.write(|writer| writer.link(&["acme", "globex", "old"].map(pin)));
        for (instance, n_users) in [("acme", 30), ("globex", 12), ("old", 4)] {
            let users = (0..n_users).map(|n| (id(n), person(n)));
            self.directories.insert(instance, users.collect());
        }
        let killed = Plan {
            transactions: 2,
            ..Plan::full()
        };
        self.sync("acme", killed);
        for instance in ["acme", "globex", "old"] {
            self.sync(instance, Plan::full());
        }
    }

    fn people_come_and_go(&mut self) {
        self.change("acme", &[1, 2, 3], |user| user["title"] = "Chief".into());
        self.change("acme", &[2], |user| user["active"] = false.into());
        self.change("globex", &[4, 5], |user| {
            user[URN]["department"] = json!({"value": "d9", "name": "Sales & Söhne"});
        });
        // Content is the same in another order: only the fingerprint is new.
        self.change("acme", &[6], |user| user["x"] = Value::Null);
        let gone: Vec<(String, Value)> = [7, 8]
            .iter()
            .filter_map(|n| self.directories.get_mut("acme")?.remove_entry(&id(*n)))
            .collect();
        self.sync("acme", Plan::full());
        self.change("acme", &[2], |user| user["active"] = true.into());
        self.directories
            .get_mut("acme")
            .unwrap()
            .extend(gone.into_iter().take(1));
        self.sync("acme", Plan::full());
        self.sync(
            "globex",
            Plan {
                rejects: vec![
                    Reject::new(
                        Some(ResourceId::new("odd")),
                        "`active` is a number",
                        b"{\"active\":5}",
                    ),
                    Reject::new(None, "no `id`", b"{}"),
                ],
                ..Plan::full()
            },
        );
        self.fail("globex");
    }

    fn guards_hold(&mut self) {
        // Four at once are more than the guard lets through; one comes back by itself.
        self.change("acme", &[10, 11, 12, 13], |user| {
            user["active"] = false.into();
            user["nickName"] = "Nick".into();
        });
        self.change("acme", &[10], |user| user["active"] = true.into());
        let open = Treatment::Approved(1);
        let approved = Plan {
            treatment: Some(open),
            ..Plan::incremental(&[id(11)])
        };
        self.sync("acme", approved);
        // A reference that turns empty for four people, and is seen again for all of them.
        self.change("globex", &[0, 1, 2, 3], |user| {
            user[URN]["company"] = Value::Null;
        });
        self.change("globex", &[0, 1, 2, 3], |user| {
            user[URN]["company"] = json!({"value": "c1", "name": "Globex"});
        });
        // One that stays.
        self.change("globex", &[6, 7, 8], |user| user["title"] = "".into());
    }

    fn old_records_are_trimmed(&mut self) {
        for minutes in [4, 7] {
            let start: Timestamp = START.parse().unwrap();
            let options = TrimOptions {
                changes_before: Some(start + SignedDuration::from_mins(minutes)),
                syncs_before: start,
                batch: 20,
            };
            while self.write(move |writer| writer.trim(&options)) {}
        }
        let hired = [30, 31].map(|n| (id(n), person(n)));
        self.directories.get_mut("acme").unwrap().extend(hired);
        self.change("acme", &[1, 3, 30, 31], |user| {
            user["title"] = "Head".into()
        });
    }

    fn another_directory(&mut self) {
        for user in self.directories.get_mut("old").unwrap().values_mut() {
            user["displayName"] = "Somebody else".into();
        }
        let held = Plan {
            treatment: Some(Treatment::HeldWhole("4 of 4 users are others".into())),
            ..Plan::full()
        };
        self.sync("old", held);
        self.write(|writer| writer.link(&["acme", "globex"].map(pin)));
    }

    fn a_name_changes(&mut self) {
        self.write(|writer| writer.rename(&name("globex"), &pin("globex_two"), "1a1b1c1d1e1f1011"));
        let directory = self.directories.remove("globex").unwrap();
        self.directories.insert("globex_two", directory);
        self.change("globex_two", &[9], |user| user["title"] = "Clerk".into());
    }

    fn groups_come_and_go(&mut self) {
        self.write(|writer| {
            writer.link(&["acme", "globex_two"].map(|instance| Pin {
                resources: vec![USER, GROUP],
                ..pin(instance)
            }))
        });
        let whole = ListState::Confirmed;
        self.groups(&[
            ("desk", &["0", "1", "2", "3", "4"], whole),
            ("board", &["0", "5", "9", "10", "11"], whole),
            ("night", &["6", "9"], whole),
            ("all/of them", &["desk", "night"], whole),
        ]);
        // Two left, and one came. The board lost more than a guard lets through, and the list of the night is cut.
        self.groups(&[
            ("desk", &["0", "1", "2", "12"], whole),
            ("board", &["0"], whole),
            ("night", &["", "6"], ListState::Cut),
            ("all/of them", &["desk", "night"], whole),
        ]);
        // One is back, one group is gone with its members, and one is new.
        self.groups(&[
            ("desk", &["0", "1", "2", "3", "12"], whole),
            ("board", &["0"], ListState::Cut),
            ("day", &["13"], whole),
            ("all/of them", &["desk"], whole),
        ]);
    }

    fn profiles_are_linked(&mut self) {
        let mail = |n: usize| format!("USER.{n}@example.com");
        let profile = |name: &str, email: Option<String>| Profile {
            profile: name.to_owned(),
            email,
            ..Profile::default()
        };
        let list = |more: &[Profile]| {
            let mut all = vec![
                profile("a", Some(mail(0))),
                profile("b", Some(mail(1))),
                profile("c", Some(mail(2))),
                profile("e", None),
            ];
            all.extend_from_slice(more);
            all
        };
        self.import(list(&[profile("z", Some(mail(5)))]));
        self.import(list(&[profile("f", Some("nobody@example.com".to_owned()))]));
        let now = self.now;
        self.write(move |writer| writer.pin(&name("globex_two"), "e", &id(7), now));
        // The address of one is somebody else's now.
        self.change("globex_two", &[2, 3], |user| {
            let own = user["id"] == id(3);
            let value = if own { mail(2) } else { mail(99) };
            user["emails"] = json!([{"type": "work", "value": value, "primary": true}]);
        });
        self.directories
            .get_mut("globex_two")
            .unwrap()
            .remove(&id(1));
        self.sync("globex_two", Plan::full());
    }

    fn import(&mut self, profiles: Vec<Profile>) {
        self.now += SignedDuration::from_mins(1);
        let now = self.now;
        let rules = Rule::ALL.to_vec();
        let of = rules.clone();
        self.write(move |writer| writer.take_up_keys(&name("globex_two"), &of, None));
        let piece = Piece {
            instance: name("globex_two"),
            number: None,
            rules,
            after: None,
            profiles,
            is_last: true,
            most_removals: 1,
            may_forget: true,
            now,
        };
        self.write(move |writer| writer.import(&piece));
    }

    /// A full sync of groups finds these, with members by the number of a user or the name of a group (nothing: without one), and
    /// this is thought of their lists.
    fn groups(&mut self, found: &[(&str, &[&str], ListState)]) {
        self.now += SignedDuration::from_mins(1);
        let key = StageKey {
            instance: name("acme"),
            resource: GROUP,
            mode: Mode::Full,
            fits: String::new(),
        };
        let reader = self.mirror.reader().unwrap();
        let (mut stage, _) = Stage::open(None, &key, &reader, self.now, Duration::ZERO).unwrap();
        let arrived = found
            .iter()
            .map(|(group, members, _)| decode(GROUP, &row(&desk(group, members))).unwrap())
            .collect();
        let base = self.mirror.base();
        stage.put(&reader, base, arrived, Vec::new()).unwrap();
        for (group, _, state) in found {
            stage.judge_list(&ResourceId::new(*group), *state).unwrap();
        }
        self.apply(&key, stage, &reader, Plan::full());
    }

    fn end(self) -> BTreeMap<&'static str, Directory> {
        self.runtime.block_on(self.mirror.close()).unwrap();
        self.directories
    }

    /// Changes these users of a directory; an incremental sync reads them.
    fn change(&mut self, instance: &'static str, users: &[usize], change: impl Fn(&mut Value)) {
        let ids: Vec<String> = users.iter().map(|n| id(*n)).collect();
        let stamp = (self.now + SignedDuration::from_secs(30)).to_string();
        let directory = self.directories.get_mut(instance).unwrap();
        for id in &ids {
            let user = directory.get_mut(id).unwrap();
            change(user);
            user["meta"]["lastModified"] = stamp.clone().into();
        }
        self.sync(instance, Plan::incremental(&ids));
    }

    /// Reads a directory and applies what was found.
    fn sync(&mut self, instance: &'static str, mut plan: Plan) {
        self.now += SignedDuration::from_mins(1);
        let now = self.now;
        let key = StageKey {
            instance: name(instance),
            resource: USER,
            mode: plan.mode,
            fits: String::new(),
        };
        let reader = self.mirror.reader().unwrap();
        let (mut stage, _) = Stage::open(None, &key, &reader, now, Duration::ZERO).unwrap();
        let arrived = self.directories[instance]
            .iter()
            .filter(|(id, _)| plan.only.as_ref().is_none_or(|only| only.contains(id)))
            .map(|(_, user)| decode(USER, &row(user)).unwrap())
            .collect();
        let base = self.mirror.base();
        let rejects = std::mem::take(&mut plan.rejects);
        stage.put(&reader, base, arrived, rejects).unwrap();
        self.apply(&key, stage, &reader, plan);
    }

    /// Applies what was staged just now.
    fn apply(&mut self, key: &StageKey, mut stage: Stage, reader: &Reader, plan: Plan) {
        let (now, base, resource) = (self.now, self.mirror.base(), key.resource);
        let source = reader.source(&key.instance, resource).unwrap();
        let certificate = complete(stage.distinct());
        if plan.mode == Mode::Full && source.baseline_at.is_some() {
            let certificate = certificate.as_complete().unwrap();
            for absent in stage.candidates(reader, certificate).unwrap() {
                stage.put_gone(base, &absent.id, &proof(now)).unwrap();
            }
        }
        let watch = Watch {
            instance: key.instance.clone(),
            resource,
            baseline_at: source.baseline_at,
            limits: limits(),
            now,
        };
        let treatment = match plan.treatment {
            Some(treatment) => treatment,
            None => Treatment::Guarded(Planned::of(&stage, reader, &watch).unwrap()),
        };
        let sync_id = self.write(|writer| writer.reserve_sync());
        let mut finish = Finish {
            sync: sync_row(sync_id, &watch.instance, plan.mode, now),
            watermark: Some(now),
            restart_at: None,
            full_and_complete: plan.mode == Mode::Full,
            capabilities: Some(Capabilities {
                probed_at: Some(now),
                id_after: Obeyed::Obeyed,
                ..Capabilities::default()
            }),
        };
        finish.sync.resource = resource;
        finish.sync.seen = stage.distinct();
        finish.sync.rejected = stage.rejects();
        finish.sync.certificate = Some(certificate);
        let batch = Batch {
            watch,
            treatment,
            mends: None,
            sync_id,
            limit: self.limit,
            time: Duration::MAX,
        };
        let mut after: Option<ResourceId> = None;
        for _ in 0..plan.transactions {
            let (batch, end, from) = (batch.clone(), finish.clone(), after.clone());
            let (returned, applied): (Stage, Applied) = self.write(move |writer| {
                let applied = writer.apply(&mut stage, &batch, from.as_ref(), &end)?;
                Ok((stage, applied))
            });
            stage = returned;
            finish.sync.created += applied.created;
            finish.sync.updated += applied.updated;
            finish.sync.deactivated += applied.deactivated;
            finish.sync.held += applied.held;
            after = applied.next_after;
            if after.is_none() {
                assert!(applied.finished, "{:?} is doubtful", applied.doubtful);
                break;
            }
        }
    }

    fn fail(&mut self, instance: &'static str) {
        self.now += SignedDuration::from_mins(1);
        let now = self.now;
        self.write(move |writer| {
            let sync = SyncRow {
                outcome: Outcome::Failed,
                error: Some("the instance answered 503".into()),
                ..sync_row(writer.reserve_sync()?, &name(instance), Mode::Full, now)
            };
            writer.fail(&sync, Some(now + SignedDuration::from_mins(1)))
        });
    }

    fn write<T: Send + 'static>(
        &mut self,
        write: impl FnOnce(&Writer<'_>) -> Result<T, Error> + Send + 'static,
    ) -> T {
        let written = self.runtime.block_on(self.mirror.write(write)).unwrap();
        self.runtime.block_on(self.mirror.checkpoint()).unwrap();
        (self.after_each)();
        written
    }
}

fn name(text: &str) -> InstanceName {
    InstanceName::parse(text).unwrap()
}

fn pin(instance: &str) -> Pin {
    Pin {
        instance: name(instance),
        url: format!("https://{instance}.service-now.com"),
        scim_path: "/api/now/scim".into(),
        resources: vec![USER],
    }
}

/// Guards that hold more than two.
fn limits() -> Limits {
    let limit = WindowLimit {
        at_least: 2,
        count: 2,
        percent: 100,
        window: Duration::from_secs(150),
    };
    Limits {
        deactivations: limit.clone(),
        blanking: limit.clone(),
        memberships: limit.clone(),
        group_memberships: limit,
        source_changed: ShareLimit {
            at_least: u64::MAX,
            percent: 100,
        },
    }
}

fn complete(distinct: u64) -> Certificate {
    Certificate {
        verdict: Verdict::Complete,
        reasons: Vec::new(),
        paging: Paging::Key,
        pages: 1,
        rows: distinct,
        distinct,
        total_before: Some(distinct),
        total_after: Some(distinct),
        rejects: 0,
        first_date: None,
        newest_modified_at: None,
        resumed: false,
    }
}

fn proof(asked_at: Timestamp) -> Proof {
    let witness = Witness {
        id: id(0),
        shares: Shares::Nothing,
        answered_at: asked_at,
    };
    Proof {
        distinct: Some(29),
        asked_at,
        status: 404,
        witnesses: [witness.clone(), witness],
    }
}

fn sync_row(id: i64, instance: &InstanceName, mode: Mode, now: Timestamp) -> SyncRow {
    SyncRow {
        id,
        instance: instance.clone(),
        resource: USER,
        mode,
        trigger: Trigger::Schedule,
        started_at: now,
        finished_at: now,
        outcome: Outcome::Succeeded,
        certificate: None,
        seen: 0,
        created: 0,
        updated: 0,
        deactivated: 0,
        held: 0,
        rejected: 0,
        cost: TallySnapshot::default(),
        error: None,
    }
}
