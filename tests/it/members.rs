//! `musterd group` and `musterd groups`, and the views of the past, on a mirror that a daemon has filled from an instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use musterd::clock::{ManualClock, SharedClock};
use musterd::sandbox::{GroupValues, Member, Options, Sandbox};
use serde_json::Value;

use crate::harness::{Home, Ran};
use crate::world::{START, Simulated, World};

const CONFIGURATION: &str = r#"
[defaults]
resources = ["users", "groups"]
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

/// An instance, its mirror, and where commands run.
struct Scene {
    world: World,
    home: Home,
}

impl Scene {
    async fn start() -> Self {
        let clock: SharedClock = Arc::new(ManualClock::starting_at(START.parse().unwrap()));
        let options = Options {
            users: 20,
            groups: 3,
            odd: false,
            ..Options::default()
        };
        let sandbox = Sandbox::new(options, Arc::clone(&clock));
        // No token that ends on the way.
        let auth = sandbox.auth();
        let sandboxes = BTreeMap::from([("acme".to_owned(), sandbox)]);
        let mut world = World::of(1, clock, sandboxes);
        let configuration = CONFIGURATION.replace("NAME", &auth.username);
        world.write_configuration(&configuration.replace("WORD", &auth.password));
        world.ring_every(Duration::from_secs(5));
        world.start();
        let home = Home::new(&[]);
        let scene = Self { world, home };
        // Halfway between two syncs of groups.
        scene.world.pass(Duration::from_secs(300)).await;
        scene
    }

    /// Until the next full sync of groups is over.
    async fn next(&self) {
        self.world.pass(Duration::from_secs(600)).await;
    }

    fn acme(&self) -> &Sandbox {
        self.world.sandbox("acme")
    }

    fn run(&self, args: &[&str]) -> Ran {
        let path = self.world.mirror_path();
        let mirror = ["--mirror", path.to_str().unwrap()];
        self.home.run(&[args, &mirror].concat())
    }

    fn json(&self, args: &[&str]) -> (Option<i32>, Vec<Value>) {
        let ran = self.run(&[args, &["--json"]].concat());
        let lines = ran.stdout.lines();
        let lines = lines.map(|line| serde_json::from_str(line).unwrap());
        (ran.code, lines.collect())
    }

    fn pairs(&self, sql: &str) -> BTreeSet<(String, String)> {
        let conn = self.world.read();
        let mut rows = conn.prepare(sql).unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn living(&self) -> BTreeSet<(String, String)> {
        self.pairs("SELECT group_id, member_id FROM memberships WHERE ended_at IS NULL")
    }

    /// The time of the newest record.
    fn moment(&self) -> String {
        let newest = "SELECT max(observed_at) FROM changes";
        let conn = self.world.read();
        conn.query_row(newest, [], |row| row.get(0)).unwrap()
    }
}

/// The ids of the members of an object.
fn members(group: &Value) -> BTreeSet<String> {
    let members = group["members"].as_array().unwrap().iter();
    let id = |member: &Value| member["member_id"].as_str().unwrap().to_owned();
    members.map(id).collect()
}

#[test]
fn a_group_is_found_with_its_members_now_and_at_each_moment_before() {
    Simulated::new().block_on(async {
        let mut scene = Scene::start().await;
        let ids: Vec<String> = scene.acme().ids();
        let group = scene.acme().create_group(&GroupValues::named("Night Desk"));
        let people: Vec<Member> = ids[..4].iter().map(|id| Member::user(id)).collect();
        let three: BTreeSet<String> = ids[..3].iter().cloned().collect();
        let mut was = Vec::new();
        for (leave, join) in [
            (&people[..0], &people[..3]),
            (&people[..1], &people[3..]),
            (&people[1..2], &people[..1]),
        ] {
            assert!(scene.acme().change_members(&group, leave, join));
            scene.next().await;
            was.push((scene.moment(), scene.living()));
        }
        // Each state that the mirror had is the one that its past has.
        for (moment, living) in &was {
            let then = format!(
                "SELECT group_id, member_id FROM memberships_history
                 WHERE valid_from <= '{moment}' AND (valid_to IS NULL OR valid_to > '{moment}')"
            );
            assert_eq!(scene.pairs(&then), *living, "{moment}");
            let (code, shown) = scene.json(&[
                "group",
                "acme",
                "NIGHT desk",
                "--members",
                "--as-of",
                moment,
            ]);
            assert_eq!((code, shown.len()), (Some(0), 1));
            let of_group = living.iter().filter(|(one, _)| *one == group);
            let expected: BTreeSet<String> = of_group.map(|(_, member)| member.clone()).collect();
            assert_eq!(members(&shown[0]), expected);
            assert_eq!(shown[0]["member_count"], expected.len());
            assert_eq!(shown[0]["members_known"], Value::Null);
        }
        assert_eq!(
            members(
                &scene
                    .json(&["group", "acme", &group, "--members", "--as-of", &was[0].0])
                    .1[0]
            ),
            three
        );

        let (code, now) = scene.json(&["group", "acme", &group, "--members"]);
        assert_eq!(
            (code, &now[0]["members_known"]),
            (Some(0), &Value::from("all"))
        );
        assert_eq!(members(&now[0]), [0, 2, 3].map(|n| ids[n].clone()).into());
        assert_eq!(now[0]["members"][0]["state"], "active");
        let before = scene.run(&["group", "acme", &group, "--as-of", "2020-01-01"]);
        assert_eq!(before.code, Some(1), "{before}");
        assert!(before.stderr.contains("had no group"), "{before}");

        // Deleted and made anew, there are two of one name.
        assert!(scene.acme().delete_group(&group));
        scene.acme().create_group(&GroupValues::named("Night Desk"));
        scene.next().await;
        let (code, both) = scene.json(&["group", "acme", "Night Desk", "--members"]);
        assert_eq!((code, both.len()), (Some(3), 2));
        assert_eq!(
            (&both[0]["active"], &both[1]["active"]),
            (&true.into(), &false.into())
        );
        assert!(members(&both[1]).is_empty());
        let shown = scene.run(&["group", "acme", "Night Desk", "--members"]);
        assert!(shown.stderr.contains("2 groups match"), "{shown}");
        assert!(shown.stdout.contains("no members"), "{shown}");
        let nothing = scene.run(&["group", "acme", "Nobody"]);
        assert_eq!((nothing.code, &*nothing.stdout), (Some(1), ""), "{nothing}");
        scene.world.stop().await;
    });
}

#[test]
fn the_groups_of_a_user_are_those_that_the_instance_says() {
    Simulated::new().block_on(async {
        let mut scene = Scene::start().await;
        let user = scene.acme().ids()[0].clone();
        let group = scene.acme().create_group(&GroupValues::named("Night Desk"));
        assert!(
            scene
                .acme()
                .change_members(&group, &[], &[Member::user(&user)])
        );
        scene.next().await;
        let ids = |groups: &[Value]| -> BTreeSet<String> {
            groups
                .iter()
                .map(|group| group["id"].as_str().unwrap().to_owned())
                .collect()
        };
        let (code, all) = scene.json(&["groups", "acme"]);
        assert_eq!(
            (code, ids(&all)),
            (Some(0), scene.acme().group_ids().into_iter().collect())
        );
        let (code, of_user) = scene.json(&["groups", "acme", "--of", &user]);
        let living = scene.living();
        let of_member = living.iter().filter(|(_, member)| *member == user);
        let expected: BTreeSet<String> = of_member.map(|(group, _)| group.clone()).collect();
        assert!(expected.contains(&group));
        assert_eq!((code, ids(&of_user)), (Some(0), expected));
        assert!(of_user.iter().all(|group| group["member_id"] == *user));
        let shown = scene.run(&["groups", "acme", "--of", &user]);
        assert!(shown.stdout.contains("Night Desk"), "{shown}");
        let nobody = scene.run(&["groups", "acme", "--of", "nobody"]);
        assert_eq!(nobody.code, Some(1), "{nobody}");

        // A group is gone from the list, and one that is left from those of the user.
        assert!(scene.acme().delete_group(&group));
        scene.next().await;
        assert!(!ids(&scene.json(&["groups", "acme"]).1).contains(&group));
        assert!(!ids(&scene.json(&["groups", "acme", "--of", &user]).1).contains(&group));
        scene.world.stop().await;
    });
}
