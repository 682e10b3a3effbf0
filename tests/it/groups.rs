//! Groups and who is in them, through the daemon under a paused clock: what is mirrored, what a list that is not whole
//! does not do, and what waits for a person. Each fault of groups by itself is a case of [`crate::faults`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use musterd::clock::{ManualClock, SharedClock};
use musterd::control::{Ended, Request};
use musterd::mirror::read::Pin;
use musterd::mirror::{Mirror, Reader};
use musterd::model::{InstanceName, ResourceType};
use musterd::sandbox::{self, Effect, Fault, GroupValues, Member, RequestKind, Sandbox};
use rusqlite::types::FromSql;
use serde_json::Value;

use crate::world::{START, Simulated, World};

const ACME: &str = "acme";

/// Groups are read every ten minutes, users changed each five.
pub(crate) const CONFIGURATION: &str = r#"
[defaults]
resources = ["users", "groups"]
page_size = 20
[defaults.schedule]
incremental = "0 */5 * * * *"
full = "0 0 * * * *"
groups = "0 */10 * * * *"
splay = { incremental = "0s", full = "0s", groups = "0s" }
[defaults.rate]
per_second = 50
burst = 50
[instances.acme]
url = "https://acme.service-now.com"
[instances.acme.auth]
type = "basic"
username = "NAME"
password = "WORD"
"#;

/// A plain directory of this size.
pub(crate) fn of(users: usize, groups: usize) -> sandbox::Options {
    sandbox::Options {
        users,
        groups,
        odd: false,
        ..sandbox::Options::default()
    }
}

/// A world with one instance under way.
pub(crate) struct Scene {
    pub(crate) world: World,
}

impl Scene {
    /// Starts the daemon, and waits for the baseline.
    pub(crate) async fn start(options: sandbox::Options, configuration: &str) -> Self {
        Self::start_with(options, configuration, Vec::new()).await
    }

    /// The same of an instance that has these faults from the beginning.
    async fn start_with(
        options: sandbox::Options,
        configuration: &str,
        faults: Vec<Fault>,
    ) -> Self {
        let clock: SharedClock = Arc::new(ManualClock::starting_at(START.parse().unwrap()));
        let sandbox = Sandbox::new(options, Arc::clone(&clock));
        sandbox.set_faults(faults);
        // No token that ends on the way.
        let auth = sandbox.auth();
        let sandboxes = BTreeMap::from([(ACME.to_owned(), sandbox)]);
        let mut world = World::of(1, clock, sandboxes);
        let configuration = configuration.replace("NAME", &auth.username);
        world.write_configuration(&configuration.replace("WORD", &auth.password));
        world.ring_every(Duration::from_secs(5));
        world.listen();
        world.start();
        let scene = Self { world };
        scene.minutes(5).await;
        scene
    }

    /// One with so many groups.
    pub(crate) async fn with(groups: usize) -> Self {
        Self::start(of(60, groups), CONFIGURATION).await
    }

    pub(crate) async fn minutes(&self, minutes: u64) {
        self.world.pass(Duration::from_secs(60 * minutes)).await;
    }

    /// Until the next full sync of groups is over.
    pub(crate) async fn next(&self) {
        self.minutes(10).await;
    }

    /// The instance.
    pub(crate) fn acme(&self) -> &Sandbox {
        self.world.sandbox(ACME)
    }

    /// The one value of a query.
    pub(crate) fn ask<T: FromSql>(&self, sql: &str) -> T {
        let conn = self.world.read();
        conn.query_row(sql, [], |row| row.get(0))
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Who is in which group by the mirror: group, member.
    pub(crate) fn mirrored(&self) -> BTreeSet<(String, String)> {
        self.pairs("SELECT group_id, member_id FROM memberships WHERE ended_at IS NULL")
    }

    /// The rows of a query for two columns.
    pub(crate) fn pairs(&self, sql: &str) -> BTreeSet<(String, String)> {
        let conn = self.world.read();
        let mut rows = conn.prepare(sql).unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// The same by the instance.
    pub(crate) fn true_ones(&self) -> BTreeSet<(String, String)> {
        let mut found = BTreeSet::new();
        for group in self.acme().group_ids() {
            let json: serde_json::Value =
                serde_json::from_str(&self.acme().group_json(&group).unwrap()).unwrap();
            for member in json["members"].as_array().into_iter().flatten() {
                found.insert((group.clone(), member["value"].as_str().unwrap().to_owned()));
            }
        }
        found
    }

    pub(crate) fn members_of(&self, group: &str) -> Vec<String> {
        let all = self.true_ones();
        let of_group = all.into_iter().filter(|(one, _)| one == group);
        of_group.map(|(_, member)| member).collect()
    }

    /// A group of its own with so many users in it.
    pub(crate) fn group_of(&self, name: &str, n_users: usize) -> String {
        let group = self.acme().create_group(&GroupValues::named(name));
        let users: Vec<Member> = (self.acme().ids().iter().take(n_users))
            .map(|id| Member::user(id))
            .collect();
        assert!(self.acme().change_members(&group, &[], &users));
        group
    }

    pub(crate) fn leave(&self, group: &str, n_users: usize) {
        let leave: Vec<Member> = (self.members_of(group).iter().take(n_users))
            .map(|id| Member::user(id))
            .collect();
        assert!(self.acme().change_members(group, &leave, &[]));
    }

    /// Whether the mirror knows that the account is not shown any groups.
    fn is_off(&self) -> bool {
        self.ask(
            "SELECT coalesce(json_extract(capabilities, '$.forbidden'), 0) FROM sources WHERE resource = 'Group'",
        )
    }

    pub(crate) fn known(&self, group: &str) -> String {
        self.ask(&format!(
            "SELECT members_known FROM groups WHERE id = '{group}'"
        ))
    }

    pub(crate) fn count(&self, group: &str) -> i64 {
        self.ask(&format!(
            "SELECT count(*) FROM memberships WHERE group_id = '{group}' AND ended_at IS NULL"
        ))
    }

    pub(crate) fn last_seq(&self) -> i64 {
        self.ask("SELECT last_seq FROM feed")
    }

    /// Asks the running daemon by its socket, as a command does.
    pub(crate) async fn command(&self, request: Request) -> (Ended, Vec<Value>) {
        self.world.command(request).await
    }

    /// Stops the daemon; the mirror is what its feed folds to.
    /// The one open hold of which this holds, and the request that approves it.
    pub(crate) fn open_hold(&self, condition: &str) -> (i64, Request) {
        let sql = format!("SELECT id, digest FROM holds WHERE state = 'open' AND {condition}");
        let conn = self.world.read();
        let mut holds = conn.prepare(&sql).unwrap();
        let holds = holds.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let holds: Vec<(i64, String)> = holds.unwrap().map(Result::unwrap).collect();
        let [(hold_id, digest)] = <[_; 1]>::try_from(holds).unwrap();
        (hold_id, Request::Approve { hold_id, digest })
    }

    pub(crate) async fn end(mut self) {
        self.world.stop().await;
        let reader = Reader::open(&self.world.mirror_path()).unwrap();
        assert_eq!(reader.verify(&mut |_| {}).unwrap().difference, None);
    }
}

/// No user is shown with groups.
pub(crate) fn mute() -> Fault {
    Fault::new(Effect::MemberMissing {
        member: "groups".to_owned(),
    })
}

/// Under a paused clock.
pub(crate) fn simulate(scene: impl AsyncFnOnce()) {
    Simulated::new().block_on(scene());
}

#[test]
fn groups_and_memberships_are_mirrored_and_nothing_happens_when_nothing_changed() {
    simulate(async || {
        let scene = Scene::with(12).await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        assert!(scene.mirrored().len() > 12);
        let groups: i64 = scene.ask("SELECT count(*) FROM groups WHERE members_known = 'all'");
        assert_eq!(groups, 12);
        let others: i64 = scene.ask(
            "SELECT count(*) FROM changes WHERE resource = 'Membership' AND (kind, reason) <> ('create', 'baseline')",
        );
        assert_eq!(others, 0);
        let before = scene.last_seq();
        scene.minutes(40).await;
        assert_eq!(scene.last_seq(), before, "nothing changed");

        let user = scene.acme().ids()[59].clone();
        let group = scene.group_of("Night Desk", 3);
        scene
            .acme()
            .change_members(&group, &[], &[Member::user(&user)]);
        scene.next().await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        scene
            .acme()
            .change_members(&group, &[Member::user(&user)], &[]);
        scene.next().await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        let told = |what: &str| -> String {
            scene.ask(&format!(
                "SELECT group_concat(kind || ' ' || reason) FROM
                     (SELECT kind, reason FROM changes WHERE id = '{what}' ORDER BY seq)"
            ))
        };
        let id = format!("{group}/{user}");
        assert_eq!(told(&id), "create new,deactivate removed");
        scene
            .acme()
            .change_members(&group, &[], &[Member::user(&user)]);
        scene.next().await;
        assert_eq!(told(&id), "create new,deactivate removed,create returned");
        assert_eq!(scene.count(&group), 4);
        scene.end().await;
    });
}

#[test]
fn a_group_that_is_deleted_ends_with_its_members_before_it_and_a_new_one_of_its_name_is_another() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let group = scene.group_of("Night Desk", 15);
        scene.next().await;
        assert_eq!(scene.count(&group), 15);
        assert!(scene.acme().delete_group(&group));
        let again = scene.group_of("Night Desk", 4);
        scene.next().await;
        let gone: i64 = scene.ask(&format!(
            "SELECT count(*) FROM groups WHERE id = '{group}' AND gone_at IS NOT NULL AND active = 0 AND member_count = 0"
        ));
        assert_eq!(gone, 1);
        // More than the guard of one group lets through: they ended with the group's own proof.
        let (ended, last): (i64, i64) = scene
            .world
            .read()
            .query_row(
                "SELECT count(*), max(seq) FROM changes
                 WHERE resource = 'Membership' AND kind = 'deactivate' AND reason = 'gone' AND id LIKE ?1",
                [format!("{group}/%")],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .unwrap();
        assert_eq!(ended, 15);
        let own: i64 = scene.ask(&format!(
            "SELECT seq FROM changes WHERE resource = 'Group' AND id = '{group}' AND kind = 'deactivate' AND proof IS NOT NULL"
        ));
        assert!(last < own, "members first");
        assert_eq!(scene.count(&again), 4);
        let holds: i64 = scene.ask("SELECT count(*) FROM holds");
        assert_eq!(holds, 0);

        assert!(scene.acme().undelete_group(&group));
        scene.next().await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        let returned: i64 = scene.ask(
            "SELECT count(*) FROM changes WHERE resource = 'Membership' AND reason = 'returned' AND kind = 'create'",
        );
        assert_eq!(returned, 15);
        scene.end().await;
    });
}

#[test]
fn a_list_that_is_cut_ends_nothing_while_no_user_can_be_asked() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let group = scene.group_of("Night Desk", 8);
        scene.next().await;
        scene.leave(&group, 2);
        let unanswered = Fault::new(Effect::Cancelled)
            .on(&[RequestKind::Get])
            .path("*/Users/*");
        scene.acme().add_fault(unanswered.named("unanswered"));
        scene.minutes(20).await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (8, "unknown"));
        scene.acme().remove_fault("unanswered");
        scene.next().await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (6, "all"));
        scene.end().await;
    });
}

#[test]
fn users_who_left_their_only_group_silence_nobody_who_is_in_another() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let acme = scene.acme();
        // The one is asked for before the other.
        for (id, name) in [("0", "Left"), ("zzz", "Night Desk")] {
            acme.create_group_as(id, &GroupValues::named(name));
        }
        let hired: Vec<Member> = (0..3)
            .map(|_| Member::user(&acme.create(&sandbox::Values::new())))
            .collect();
        assert!(acme.change_members("0", &[], &hired));
        let ids = acme.ids();
        let others: Vec<Member> = ids[..8].iter().map(|id| Member::user(id)).collect();
        assert!(acme.change_members("zzz", &[], &others));
        scene.next().await;
        assert_eq!((scene.count("0"), scene.count("zzz")), (3, 8));
        assert!(acme.change_members("0", &hired, &[]));
        let cut = Effect::MembersCut {
            most: 6,
            ids: vec!["zzz".to_owned()],
        };
        acme.add_fault(Fault::new(cut));
        scene.next().await;
        assert_eq!(scene.count("0"), 0);
        assert_eq!((scene.count("zzz"), &*scene.known("zzz")), (8, "cut"));
        scene.end().await;
    });
}

#[test]
fn lists_that_were_cut_from_the_first_say_so() {
    simulate(async || {
        let cut = Fault::new(Effect::MembersCut {
            most: 100,
            ids: Vec::new(),
        });
        let scene = Scene::start_with(of(130, 5), CONFIGURATION, vec![cut.named("cut")]).await;
        let [first, other] = ["Everybody", "Everybody else"].map(|name| scene.group_of(name, 120));
        let small = scene.group_of("Night Desk", 8);
        scene.next().await;
        let known =
            || [&first, &other, &small].map(|group| (scene.count(group), scene.known(group)));
        let cut = || (100, "cut".to_owned());
        assert_eq!(known(), [cut(), cut(), (8, "all".to_owned())]);
        scene.next().await;
        assert_eq!(known()[0], cut(), "nor does it change");
        scene.acme().remove_fault("cut");
        scene.next().await;
        assert_eq!(
            known()[..2],
            [(120, "all".to_owned()), (120, "all".to_owned())]
        );
        scene.end().await;
    });
}

#[test]
fn one_list_that_is_empty_by_error_ends_nothing() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let group = scene.group_of("Night Desk", 4);
        scene.next().await;
        let empty = Effect::MembersEmpty {
            ids: vec![group.clone()],
        };
        scene.acme().add_fault(Fault::new(empty).named("empty"));
        scene.next().await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (4, "unknown"));
        scene.acme().remove_fault("empty");
        scene.leave(&group, 4);
        scene.next().await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (0, "all"));
        scene.end().await;
    });
}

#[test]
fn whoever_is_gone_is_no_witness_for_the_others() {
    // One of those who are asked, and all of them.
    for gone in [&[0][..], &[0, 1, 3]] {
        simulate(async || {
            let scene = Scene::with(12).await;
            let group = scene.group_of("Night Desk", 4);
            scene.next().await;
            scene.acme().add_fault(mute());
            let empty = Effect::MembersEmpty {
                ids: vec![group.clone()],
            };
            scene.acme().add_fault(Fault::new(empty));
            let members = scene.members_of(&group);
            for place in gone {
                assert!(scene.acme().delete(&members[*place]));
            }
            scene.minutes(80).await;
            let n_gone: i64 = scene.ask("SELECT count(*) FROM users WHERE gone_at IS NOT NULL");
            assert_eq!(n_gone, i64::try_from(gone.len()).unwrap());
            assert_eq!((scene.count(&group), &*scene.known(&group)), (4, "unknown"));
            scene.end().await;
        });
    }
}

#[test]
fn whom_the_instance_does_not_show_stays_in_a_group_until_proved_gone() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let group = scene.group_of("Night Desk", 8);
        scene.next().await;
        let hidden = scene.members_of(&group)[..2].to_vec();
        scene.leave(&group, 2);
        let effect = Effect::UsersHidden {
            ids: hidden.clone(),
        };
        scene.acme().add_fault(Fault::new(effect));
        scene.next().await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (8, "unknown"));
        // The full sync of users proves them gone, and the next one of groups believes the list.
        scene.minutes(60).await;
        let gone: i64 = scene.ask("SELECT count(*) FROM users WHERE gone_at IS NOT NULL");
        assert_eq!(gone, 2);
        assert_eq!((scene.count(&group), &*scene.known(&group)), (6, "all"));
        scene.end().await;
    });
}

#[test]
fn a_list_that_ends_at_a_cap_ends_nothing() {
    simulate(async || {
        let scene = Scene::start(of(130, 5), CONFIGURATION).await;
        let group = scene.group_of("Everybody", 104);
        scene.next().await;
        scene.leave(&group, 4);
        scene.next().await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (104, "cut"));
        // One more, and it is a length that no cap has.
        scene.leave(&group, 1);
        scene.next().await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (99, "all"));
        scene.end().await;
    });
}

#[test]
fn lists_that_are_all_blank_say_that_sight_was_lost() {
    simulate(async || {
        let scene = Scene::with(6).await;
        let before = scene.mirrored();
        let feed = scene.last_seq();
        let ids = Vec::new();
        scene
            .acme()
            .add_fault(Fault::new(Effect::MembersEmpty { ids }).named("blank"));
        // Nor does any user tell that this is wrong.
        scene.acme().add_fault(mute());
        scene.minutes(30).await;
        let holds: i64 = scene.ask("SELECT count(*) FROM holds");
        assert_eq!(holds, 0, "nothing is left to a person");
        assert_eq!(scene.mirrored(), before);
        assert_eq!(scene.last_seq(), feed);
        let unknown: i64 = scene.ask("SELECT count(*) FROM groups WHERE members_known = 'unknown'");
        let filled: i64 = scene.ask("SELECT count(*) FROM groups WHERE member_count > 0");
        assert_eq!(unknown, filled);
        scene.acme().remove_fault("blank");
        scene.next().await;
        let all: i64 = scene.ask("SELECT count(*) FROM groups WHERE members_known = 'all'");
        assert_eq!(all, 6);
        assert_eq!(scene.last_seq(), feed);
        scene.end().await;
    });
}

#[test]
fn a_name_that_changes_and_a_removal_take_groups_and_memberships_along() {
    simulate(async || {
        let mut scene = Scene::with(12).await;
        let n_rows: i64 = scene.ask(
            "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM groups) + (SELECT count(*) FROM memberships)",
        );
        scene.world.stop().await;
        let mirror = Mirror::open(&scene.world.mirror_path(), "5eed").unwrap();
        let [acme, globex] = [ACME, "globex"].map(|name| InstanceName::parse(name).unwrap());
        let pin = Pin {
            instance: globex.clone(),
            url: "https://acme.service-now.com".to_owned(),
            scim_path: "/api/now/scim".to_owned(),
            resources: vec![ResourceType::User, ResourceType::Group],
        };
        mirror
            .write(move |writer| writer.rename(&acme, &pin, "1a1b1c1d1e1f1011"))
            .await
            .unwrap();
        let difference = || {
            let reader = Reader::open(&scene.world.mirror_path()).unwrap();
            reader.verify(&mut |_| {}).unwrap().difference
        };
        assert_eq!(difference(), None);
        let renamed: i64 = scene.ask("SELECT count(*) FROM memberships WHERE instance = 'globex'");
        assert!(renamed > 0);

        mirror.write(|writer| writer.link(&[])).await.unwrap();
        let now = START.parse().unwrap();
        let before = scene.last_seq();
        let name = globex.clone();
        let sync_id = mirror
            .write(move |writer| writer.begin_removal(&name, now))
            .await
            .unwrap();
        loop {
            let name = globex.clone();
            let removed = mirror
                .write(move |writer| writer.remove_users(&name, sync_id, now, 50))
                .await
                .unwrap();
            assert_eq!(difference(), None, "after each transaction");
            if removed.is_over {
                break;
            }
        }
        assert_eq!(scene.last_seq() - before, n_rows);
        let left: i64 = scene.ask(
            "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM groups) + (SELECT count(*) FROM memberships)",
        );
        assert_eq!(left, 0);
        mirror.close().await.unwrap();
    });
}

#[test]
fn lists_that_lost_somebody_are_read_again_several_at_a_time() {
    simulate(async || {
        let configuration =
            CONFIGURATION.replace("page_size = 20", "page_size = 20\nconcurrency = 4");
        let scene = Scene::start(of(60, 6), &configuration).await;
        let groups: Vec<String> = (0..6)
            .map(|n| scene.group_of(&format!("Desk {n}"), 12))
            .collect();
        scene.next().await;
        for group in &groups {
            scene.leave(group, 1);
        }
        let slow = Fault::new(Effect::Slow { ms: 20_000 });
        let slow = slow.on(&[RequestKind::Get]).path("*/Groups/*");
        scene.acme().add_fault(slow);
        scene.acme().forget_requests();
        scene.next().await;
        let asked = scene.acme().requests();
        let mut asked = asked
            .iter()
            .filter(|logged| logged.kind == RequestKind::Get && logged.line.contains("/Groups/"));
        let first = asked.next().unwrap();
        // Before the first answer came.
        let ahead = asked.filter(|logged| logged.at.as_second() < first.at.as_second() + 20);
        let ahead: BTreeSet<&str> = ahead.chain([first]).map(|logged| &*logged.line).collect();
        assert_eq!(ahead.len(), 4, "{ahead:?}");
        assert!(groups.iter().all(|group| scene.count(group) == 11));
        scene.end().await;
    });
}

#[test]
fn an_account_that_may_not_read_groups_mirrors_its_users() {
    simulate(async || {
        let forbidden = Fault::new(Effect::GroupsForbidden).named("forbidden");
        let scene = Scene::start_with(of(60, 6), CONFIGURATION, vec![forbidden]).await;
        let user = scene.acme().ids()[7].clone();
        scene.acme().update(
            &user,
            &sandbox::Values::new().with(sandbox::Column::Title, "Principal"),
        );
        scene.minutes(40).await;
        assert!(scene.mirrored().is_empty());
        let n_rows: i64 = scene.ask("SELECT count(*) FROM syncs WHERE resource = 'Group'");
        assert_eq!(n_rows, 0, "no row for what is left out");
        let title: String = scene.ask(&format!("SELECT title FROM users WHERE id = '{user}'"));
        assert_eq!(title, "Principal");
        let state: String = scene.ask("SELECT state FROM instances");
        assert_eq!(state, "healthy");
        assert!(scene.is_off());
        scene.acme().remove_fault("forbidden");
        let group = scene.group_of("Night Desk", 3);
        scene.next().await;
        assert_eq!(scene.count(&group), 3);
        assert!(!scene.is_off());
        scene.end().await;
    });
}

#[test]
fn credentials_that_are_refused_for_groups_alone_go_on_to_read_users() {
    simulate(async || {
        let scene = Scene::with(6).await;
        scene.next().await;
        let refused = Fault::new(Effect::Unauthorized).path("*/Groups*");
        scene.acme().add_fault(refused.named("refused"));
        scene.next().await;
        let user = scene.acme().ids()[7].clone();
        let retitled = sandbox::Values::new().with(sandbox::Column::Title, "Principal");
        scene.acme().update(&user, &retitled);
        scene.minutes(20).await;
        let title: String = scene.ask(&format!("SELECT title FROM users WHERE id = '{user}'"));
        assert_eq!(title, "Principal");
        let error: String =
            scene.ask("SELECT error FROM syncs WHERE resource = 'Group' ORDER BY id DESC LIMIT 1");
        assert!(error.contains("401"), "{error}");
        scene.acme().remove_fault("refused");
        scene.next().await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        scene.end().await;
    });
}

#[test]
fn groups_in_circles_and_members_that_nobody_knows_are_members_like_others() {
    simulate(async || {
        let scene = Scene::with(6).await;
        let [one, other] = ["Inner", "Outer"].map(|name| scene.group_of(name, 1));
        scene.acme().change_members(
            &one,
            &[],
            &[
                Member::group(&one),
                Member::group(&other),
                Member::user("nobody/%2F"),
            ],
        );
        scene
            .acme()
            .change_members(&other, &[], &[Member::group(&one)]);
        scene.next().await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        let nested: i64 = scene.ask(
            "SELECT count(*) FROM memberships WHERE member_type = 'Group' AND ended_at IS NULL",
        );
        assert!(nested >= 3);
        let id: String = scene
            .ask("SELECT id FROM changes WHERE id LIKE '%nobody%' AND resource = 'Membership'");
        assert_eq!(id, format!("{one}/nobody%2F%252F"));
        scene.end().await;
    });
}

#[test]
fn a_group_of_many_is_applied_in_several_transactions() {
    simulate(async || {
        let options = sandbox::Options {
            users: 20_000,
            groups: 3,
            largest_group: 20_000,
            odd: false,
            ..sandbox::Options::default()
        };
        let configuration = CONFIGURATION.replace("page_size = 20", "page_size = 500");
        let scene = Scene::start(options, &configuration).await;
        scene.minutes(30).await;
        assert_eq!(scene.mirrored().len(), scene.true_ones().len());
        let largest: i64 =
            scene.ask("SELECT max(member_count) FROM groups WHERE members_known = 'all'");
        assert_eq!(largest, 20_000);
        let before = scene.last_seq();
        scene.minutes(20).await;
        assert_eq!(scene.last_seq(), before);
        scene.end().await;
    });
}
