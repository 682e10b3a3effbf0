//! `musterd group` and `musterd groups`, and the views of the past, on a mirror that a daemon has filled from an instance.

use std::collections::BTreeSet;

use musterd::sandbox::{GroupValues, Member, Sandbox};
use serde_json::Value;

use crate::groups::{Scene, simulate};
use crate::harness::{Home, Ran};

/// An instance and its mirror, and where commands run.
struct Reading {
    scene: Scene,
    home: Home,
}

impl Reading {
    async fn start() -> Self {
        Self {
            scene: Scene::with(3).await,
            home: Home::new(&[]),
        }
    }

    fn acme(&self) -> &Sandbox {
        self.scene.acme()
    }

    /// Until the next full sync of groups is over.
    async fn next(&self) {
        self.scene.next().await;
    }

    fn run(&self, args: &[&str]) -> Ran {
        let path = self.scene.world.mirror_path();
        let mirror = ["--mirror", path.to_str().unwrap()];
        self.home.run(&[args, &mirror].concat())
    }

    fn json(&self, args: &[&str]) -> (Option<i32>, Vec<Value>) {
        let ran = self.run(&[args, &["--json"]].concat());
        let lines = ran.stdout.lines();
        let lines = lines.map(|line| serde_json::from_str(line).unwrap());
        (ran.code, lines.collect())
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
    simulate(async || {
        let reading = Reading::start().await;
        let ids: Vec<String> = reading.acme().ids();
        let group = reading
            .acme()
            .create_group(&GroupValues::named("Night Desk"));
        let people: Vec<Member> = ids[..4].iter().map(|id| Member::user(id)).collect();
        let three: BTreeSet<String> = ids[..3].iter().cloned().collect();
        let mut was = Vec::new();
        for (leave, join) in [
            (&people[..0], &people[..3]),
            (&people[..1], &people[3..]),
            (&people[1..2], &people[..1]),
        ] {
            assert!(reading.acme().change_members(&group, leave, join));
            reading.next().await;
            let newest: String = reading.scene.ask("SELECT max(observed_at) FROM changes");
            was.push((newest, reading.scene.mirrored()));
        }
        // Each state that the mirror had is the one that its past has.
        for (moment, living) in &was {
            let then = format!(
                "SELECT group_id, member_id FROM memberships_history
                 WHERE valid_from <= '{moment}' AND (valid_to IS NULL OR valid_to > '{moment}')"
            );
            assert_eq!(reading.scene.pairs(&then), *living, "{moment}");
            let (code, shown) = reading.json(&[
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
                &reading
                    .json(&["group", "acme", &group, "--members", "--as-of", &was[0].0])
                    .1[0]
            ),
            three
        );

        let (code, now) = reading.json(&["group", "acme", &group, "--members"]);
        assert_eq!(
            (code, &now[0]["members_known"]),
            (Some(0), &Value::from("all"))
        );
        assert_eq!(members(&now[0]), [0, 2, 3].map(|n| ids[n].clone()).into());
        assert_eq!(now[0]["members"][0]["state"], "active");
        let before = reading.run(&["group", "acme", &group, "--as-of", "2020-01-01"]);
        assert_eq!(before.code, Some(1), "{before}");
        assert!(before.stderr.contains("had no group"), "{before}");

        // Deleted and made anew, there are two of one name.
        assert!(reading.acme().delete_group(&group));
        reading
            .acme()
            .create_group(&GroupValues::named("Night Desk"));
        reading.next().await;
        let (code, both) = reading.json(&["group", "acme", "Night Desk", "--members"]);
        assert_eq!((code, both.len()), (Some(3), 2));
        assert_eq!(
            (&both[0]["active"], &both[1]["active"]),
            (&true.into(), &false.into())
        );
        assert!(members(&both[1]).is_empty());
        let shown = reading.run(&["group", "acme", "Night Desk", "--members"]);
        assert!(shown.stderr.contains("2 groups match"), "{shown}");
        assert!(shown.stdout.contains("no members"), "{shown}");
        let nothing = reading.run(&["group", "acme", "Nobody"]);
        assert_eq!((nothing.code, &*nothing.stdout), (Some(1), ""), "{nothing}");
        reading.scene.end().await;
    });
}

#[test]
fn the_groups_of_a_user_are_those_that_the_instance_says() {
    simulate(async || {
        let reading = Reading::start().await;
        let user = reading.acme().ids()[0].clone();
        let group = reading
            .acme()
            .create_group(&GroupValues::named("Night Desk"));
        assert!(
            reading
                .acme()
                .change_members(&group, &[], &[Member::user(&user)])
        );
        reading.next().await;
        let ids = |groups: &[Value]| -> BTreeSet<String> {
            groups
                .iter()
                .map(|group| group["id"].as_str().unwrap().to_owned())
                .collect()
        };
        let (code, all) = reading.json(&["groups", "acme"]);
        assert_eq!(
            (code, ids(&all)),
            (Some(0), reading.acme().group_ids().into_iter().collect())
        );
        let (code, of_user) = reading.json(&["groups", "acme", "--of", &user]);
        let living = reading.scene.mirrored();
        let of_member = living.iter().filter(|(_, member)| *member == user);
        let expected: BTreeSet<String> = of_member.map(|(group, _)| group.clone()).collect();
        assert!(expected.contains(&group));
        assert_eq!((code, ids(&of_user)), (Some(0), expected));
        assert!(of_user.iter().all(|group| group["member_id"] == *user));
        let shown = reading.run(&["groups", "acme", "--of", &user]);
        assert!(shown.stdout.contains("Night Desk"), "{shown}");
        let nobody = reading.run(&["groups", "acme", "--of", "nobody"]);
        assert_eq!(nobody.code, Some(1), "{nobody}");

        // A group is gone from the list, and one that is left from those of the user.
        assert!(reading.acme().delete_group(&group));
        reading.next().await;
        assert!(!ids(&reading.json(&["groups", "acme"]).1).contains(&group));
        assert!(!ids(&reading.json(&["groups", "acme", "--of", &user]).1).contains(&group));
        reading.scene.end().await;
    });
}
