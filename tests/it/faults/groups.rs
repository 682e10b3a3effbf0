//! Groups and who is in them: the cases beside those of the page. Users are held to all that is demanded of them anywhere,
//! because groups never stop them; and nobody leaves a group by mistake, while real leavers go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use musterd::model::membership;
use musterd::sandbox::{GroupValues, Member};

use super::cases;
use super::course::{Course, Ends, INCOMPLETE, Meanwhile, in_a_world};
use super::laws::Healing;
use super::matrix::Promise::{self, P1, P4, P5, P7};
use super::trial::{SETUP, Setup, Trial};
use crate::harness::text;

/// Groups are read every ten minutes.
const GROUPS: Setup = Setup {
    users: 60,
    groups: 12,
    config: r#"
        [instances.acme.schedule]
        groups = "0 */10 * * * *"
        splay = { incremental = "0s", full = "0s", groups = "0s" }
    "#,
    ..SETUP
};

/// Groups with a part in each case.
struct Desks {
    /// What the fault is about, with eight members who stay.
    wrong: String,
    /// Of six members two leave it, and one comes.
    thinned: String,
    /// Is deleted.
    closed: String,
    /// Is called otherwise.
    renamed: String,
}

/// A fault of groups, and what is demanded while it lasts. `$desk` in the script is the id of the group that it is about.
struct Case {
    fault: &'static str,
    /// How full syncs of groups end.
    full: Ends,
    /// What arrives of what went on among groups. `All` is all but of the group that the fault is about.
    meanwhile: Meanwhile,
    /// `members_known` of that group.
    known: &'static str,
    holds: &'static [(&'static str, Option<&'static str>)],
    /// How often the groups of the instance start failing.
    episodes: usize,
    warnings: &'static [&'static str],
    demands: fn(&Trial, &Desks),
}

const CASE: Case = Case {
    fault: "",
    full: Ends::Complete,
    meanwhile: Meanwhile::All,
    known: "all",
    holds: &[],
    episodes: 0,
    warnings: &[],
    demands: |_, _| {},
};

cases! {
    /// The list of groups shows five of eight; the group alone shows all of them.
    201 cut_member_list = Case {
        fault: r#"
            [[fault]]
            kind = "members_cut"
            most = 5
            ids = ["$desk"]
            on = ["list"]
        "#,
        known: "cut",
        ..CASE
    };

    /// The group alone is cut as well, and its members say that they are in it.
    202 cut_member_list_that_users_contradict = Case {
        fault: r#"
            [[fault]]
            kind = "members_cut"
            most = 6
            ids = ["$desk"]

            [[fault]]
            kind = "memberships_shown"
        "#,
        known: "cut",
        ..CASE
    };

    203 member_list_empty_by_error = Case {
        fault: r#"
            [[fault]]
            kind = "members_empty"
            ids = ["$desk"]

            [[fault]]
            kind = "memberships_shown"
        "#,
        known: "unknown",
        ..CASE
    };

    /// Nobody is shown in any group, and nobody says otherwise.
    204 every_member_list_empty_by_error = Case {
        fault: r#"
            [[fault]]
            kind = "members_empty"
        "#,
        meanwhile: Meanwhile::Open,
        known: "unknown",
        demands: |trial, desks| {
            let known = trial.list("SELECT DISTINCT members_known FROM groups WHERE member_count > 0");
            assert_eq!(known, ["unknown"], "{}", trial.told());
            let left = trial.list("SELECT id FROM changes WHERE resource = 'Membership' AND reason = 'removed'");
            assert_eq!(left, Vec::<String>::new(), "not even those who really left");
            trial.is_called(&desks.renamed, "Late Desk");
            trial.is_closed(&desks.closed, 4);
        },
        ..CASE
    };

    /// Lists count it and do not show it, and asking for it says that it is not there: who was not seen may not be gone.
    205 group_not_readable = Case {
        fault: r#"
            [[fault]]
            kind = "groups_unreadable"
            ids = ["$desk"]
        "#,
        full: Ends::Partial,
        meanwhile: Meanwhile::AllButTheDeleted,
        warnings: &[INCOMPLETE],
        ..CASE
    };

    206 group_forbidden = Case {
        fault: r#"
            [[fault]]
            kind = "groups_unreadable"
            status = 403
            ids = ["$desk"]
        "#,
        full: Ends::Partial,
        meanwhile: Meanwhile::AllButTheDeleted,
        warnings: &[INCOMPLETE],
        ..CASE
    };

    /// A user is gone for good; the membership is there still, of somebody of whom nobody knows more than the id.
    207 member_vanished = Case {
        fault: r#"
            [[fault]]
            kind = "member_vanished"
            times = 1
        "#,
        demands: |trial, _| {
            let vanished = trial.list(
                "SELECT DISTINCT users.id FROM users JOIN memberships ON member_id = users.id
                 WHERE gone_at IS NOT NULL AND ended_at IS NULL",
            );
            assert_eq!(vanished.len(), 1, "{vanished:?}");
            assert!(!trial.sandbox().ids().contains(&vanished[0]));
        },
        ..CASE
    };

    /// One group is nested in itself, and two in each other: members like others.
    208 nested_cycle = Case {
        fault: r#"
            [[fault]]
            kind = "groups_tangled"
            times = 1
        "#,
        demands: |trial, _| {
            let circles = trial.list(
                "SELECT one.group_id FROM memberships AS one JOIN memberships AS other
                    ON other.group_id = one.member_id AND other.member_id = one.group_id
                 WHERE one.ended_at IS NULL AND other.ended_at IS NULL
                    AND one.member_type = 'Group' AND other.member_type = 'Group'",
            );
            assert_eq!(circles.len(), 3, "{circles:?}");
        },
        ..CASE
    };

    /// Its own record says so, by the next incremental sync; whoever is in it stays.
    209 renamed_group = Case {
        fault: r#"
            [[fault]]
            kind = "group_renamed"
            times = 1
        "#,
        demands: |trial, desks| {
            let renamed = trial.rows(&format!(
                "SELECT id, (SELECT mode FROM syncs WHERE syncs.id = sync_id) AS mode, changed FROM changes
                 WHERE resource = 'Group' AND reason = 'changed' AND seq > {}",
                trial.seq_before
            ));
            assert_eq!(renamed.len(), 2, "{renamed:?}");
            for one in renamed {
                assert_eq!(text(&one, "mode").as_deref(), Some("incremental"), "{one:?}");
                assert!(text(&one, "changed").unwrap().starts_with(r#"{"display_name":{"#));
                let id = text(&one, "id").unwrap();
                assert_eq!(trial.lost_or_won(&id), 0, "{id}");
            }
            trial.is_called(&desks.renamed, "Late Desk");
        },
        ..CASE
    };

    /// It is another group: the one is gone with all who were in it, and they are in the other one.
    210 group_deleted_and_made_anew_under_the_same_name = Case {
        fault: r#"
            [[fault]]
            kind = "group_remade"
            times = 1
        "#,
        demands: |trial, desks| {
            let twice = trial.rows(
                "SELECT old.id AS old, new.id AS new, new.member_count AS n FROM groups AS old
                 JOIN groups AS new ON new.display_name = old.display_name AND new.id <> old.id
                 WHERE old.gone_at IS NOT NULL AND new.gone_at IS NULL",
            );
            let [pair] = &twice[..] else { panic!("{twice:?}") };
            let n: i64 = text(pair, "n").unwrap().parse().unwrap();
            trial.is_closed(&text(pair, "old").unwrap(), n);
            trial.is_closed(&desks.closed, 4);
        },
        ..CASE
    };

    /// The role that reads groups was taken away. What is known of them grows old, and is said to; users go on.
    211 groups_alone_forbidden = Case {
        fault: r#"
            [[fault]]
            kind = "groups_forbidden"
        "#,
        full: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        episodes: 1,
        demands: |trial, _| {
            trial.fails_with("403");
            assert_eq!(trial.state(), "healthy");
            let is_left_out: Option<bool> = trial.one(
                "SELECT json_extract(capabilities, '$.forbidden') FROM sources WHERE resource = 'Group'",
            );
            assert_ne!(is_left_out, Some(true), "what was read once is not left out in silence");
        },
        ..CASE
    };

    /// It shows nothing but its id: neither its name nor anybody who is in it. One name is less than the guard holds.
    212 a_group_blanked_by_a_lost_right = Case {
        fault: r#"
            [[fault]]
            kind = "groups_blanked"
            ids = ["$desk"]
        "#,
        known: "unknown",
        ..CASE
    };

    /// All of them: their names are held, and nobody leaves, not even who really left.
    213 every_group_blanked_by_a_lost_right = Case {
        fault: r#"
            [[fault]]
            kind = "groups_blanked"
        "#,
        meanwhile: Meanwhile::Open,
        known: "unknown",
        holds: &[
            ("blanking", Some("display_name")),
            ("blanking", Some("urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group:company.name")),
            ("blanking", Some("urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group:company.value")),
        ],
        demands: |trial, desks| {
            let named: i64 = trial.one("SELECT count(*) FROM groups WHERE display_name IS NOT NULL AND gone_at IS NULL");
            assert!(named > 10, "{named}");
            assert_eq!(trial.lost_or_won(&desks.thinned), 0);
            trial.is_closed(&desks.closed, 4);
        },
        ..CASE
    };
}

impl Course for Case {
    fn run(self, number: u64) -> BTreeSet<Promise> {
        in_a_world(number, GROUPS, async |trial: &mut Trial| {
            self.follow(trial).await
        })
    }
}

impl Case {
    async fn follow(self, trial: &mut Trial) {
        let desks = Desks::found(trial);
        trial.baseline().await;
        trial.pass(Duration::from_mins(5)).await;
        trial.groups_are_the_directory_but(&[]);
        let before = trial.memberships();
        trial.fault(&self.fault.replace("$desk", &desks.wrong));
        trial.edit();
        desks.change(trial);
        trial.pass(Duration::from_mins(64)).await;

        // Users are none the worse.
        for (mode, resource, ends) in [
            ("full", "User", Ends::Complete),
            ("incremental", "User", Ends::Complete),
            ("full", "Group", self.full),
        ] {
            let syncs = trial.syncs_of(resource, mode);
            assert!(!syncs.is_empty(), "{resource} {mode}\n{}", trial.told());
            for sync in &syncs {
                ends.judge(sync, trial);
            }
        }
        Meanwhile::All.judge(trial);
        trial.keeps(P7);
        let n_members = trial.members_of(&desks.wrong).len();
        assert!(
            n_members >= 8 || trial.is_gone(&desks.wrong),
            "{n_members} of the group that the fault is about\n{}",
            trial.told()
        );
        assert_eq!(trial.known(&desks.wrong), self.known, "{}", trial.told());
        // Of a list that is not believed nothing is told, not even later.
        let is_still = |trial: &Trial| self.known == "all" || trial.lost_or_won(&desks.wrong) == 0;
        assert!(is_still(trial), "{}", trial.told());
        match self.meanwhile {
            Meanwhile::All => {
                trial.groups_are_the_directory_but(&[&desks.wrong]);
                trial.is_closed(&desks.closed, 4);
                trial.is_called(&desks.renamed, "Late Desk");
                // Two have left, and one came.
                assert_eq!(trial.lost_or_won(&desks.thinned), 3);
            }
            Meanwhile::AllButTheDeleted => {
                trial.groups_are_the_directory_but(&[&desks.wrong, &desks.closed]);
                assert!(!trial.is_gone(&desks.closed));
                assert_eq!(trial.members_of(&desks.closed).len(), 4);
            }
            Meanwhile::Nothing => {
                assert_eq!(trial.memberships(), before, "{}", trial.told());
            }
            Meanwhile::Open => {}
        }
        trial.opened(self.holds);
        trial.failed_so_often(Some(self.episodes));
        trial.warned(self.warnings);
        (self.demands)(trial, &desks);
        trial.nobody_left_a_group_by_mistake(&before);
        trial.keeps_the_laws();

        trial.lift();
        trial.heals(&Healing::BY_ITSELF).await;
        trial.groups_are_the_directory_but(&[]);
        let unknown = trial.list("SELECT id FROM groups WHERE members_known <> 'all'");
        assert_eq!(unknown, Vec::<String>::new(), "{}", trial.told());
        trial.nobody_left_a_group_by_mistake(&before);
        assert!(is_still(trial), "{}", trial.told());
        trial.keeps(P4);
        trial.ends().await;
    }
}

impl Desks {
    /// Makes them, of people who have no part in the case.
    fn found(trial: &Trial) -> Self {
        let people = &trial.people.third;
        let found = |name: &str, range: std::ops::Range<usize>| {
            let group = trial.sandbox().create_group(&GroupValues::named(name));
            let members: Vec<Member> = people[range].iter().map(|id| Member::user(id)).collect();
            assert!(trial.sandbox().change_members(&group, &[], &members));
            group
        };
        Self {
            wrong: found("Night Desk", 0..8),
            thinned: found("Day Desk", 8..14),
            closed: found("Old Desk", 3..7),
            renamed: found("Early Desk", 5..9),
        }
    }

    /// What goes on among groups in every case.
    fn change(&self, trial: &Trial) {
        let people = &trial.people.third;
        let users = |range: std::ops::Range<usize>| -> Vec<Member> {
            people[range].iter().map(|id| Member::user(id)).collect()
        };
        let sandbox = trial.sandbox();
        assert!(sandbox.change_members(&self.thinned, &users(8..10), &users(0..1)));
        assert!(sandbox.delete_group(&self.closed));
        assert!(sandbox.update_group(&self.renamed, &GroupValues::named("Late Desk")));
    }
}

/// Who is in which group: group and member.
type Memberships = BTreeSet<[String; 2]>;

impl Trial {
    /// By the mirror.
    fn memberships(&self) -> Memberships {
        let ids = self.list(
            "SELECT json_array(group_id, member_id) FROM memberships
             WHERE instance = 'acme' AND ended_at IS NULL",
        );
        ids.iter()
            .map(|pair| serde_json::from_str(pair).unwrap())
            .collect()
    }

    /// By the instance.
    fn true_memberships(&self) -> Memberships {
        self.sandbox().with_directory(|directory| {
            let groups = directory.groups().iter();
            let pairs = groups.flat_map(|group| {
                let members = directory.members(&group.sys_id).iter();
                members.map(|one| [group.sys_id.to_string(), one.id.to_string()])
            });
            pairs.collect()
        })
    }

    fn members_of(&self, group: &str) -> Vec<String> {
        let all = self.memberships().into_iter();
        let of_group = all.filter(|[one, _]| one == group);
        of_group.map(|[_, member]| member).collect()
    }

    fn known(&self, group: &str) -> String {
        self.one(&format!(
            "SELECT members_known FROM groups WHERE id = '{group}'"
        ))
    }

    fn is_gone(&self, group: &str) -> bool {
        self.one(&format!(
            "SELECT gone_at IS NOT NULL FROM groups WHERE id = '{group}'"
        ))
    }

    #[track_caller]
    fn is_called(&self, group: &str, name: &str) {
        let found: String = self.one(&format!(
            "SELECT display_name FROM groups WHERE id = '{group}'"
        ));
        assert_eq!(found, name, "{}", self.told());
    }

    /// Records of a group's memberships since the fault began.
    fn lost_or_won(&self, group: &str) -> usize {
        let records = self.list(&format!(
            "SELECT id FROM changes WHERE resource = 'Membership' AND seq > {}",
            self.seq_before
        ));
        let of_group = |id: &&String| membership::parts(id).unwrap()[0] == group;
        records.iter().filter(of_group).count()
    }

    /// A group is gone, and so many who were in it ended with it, in front of its own record.
    #[track_caller]
    fn is_closed(&self, group: &str, n_members: i64) {
        assert!(self.is_gone(group), "{}", self.told());
        let own: i64 = self.one(&format!(
            "SELECT seq FROM changes WHERE resource = 'Group' AND id = '{group}' AND reason = 'gone'"
        ));
        let ended: i64 = self.one(&format!(
            "SELECT count(*) FROM changes
             WHERE resource = 'Membership' AND id GLOB '{group}/*' AND kind = 'deactivate' AND reason = 'gone' AND seq < {own}"
        ));
        assert_eq!(ended, n_members, "{}", self.told());
        self.keeps(P5);
    }

    /// P1: who left a group is not in it, and a group that is gone was proved to be; whoever was in one, and is, is in it in the mirror.
    #[track_caller]
    fn nobody_left_a_group_by_mistake(&self, before: &Memberships) {
        let truth = self.true_memberships();
        let ended = self.rows(&format!(
            "SELECT * FROM changes WHERE instance = 'acme' AND kind = 'deactivate' AND resource <> 'User' AND seq > {}",
            self.seq_before
        ));
        for record in ended {
            let id = text(&record, "id").unwrap();
            if text(&record, "resource").as_deref() == Some("Group") {
                assert!(!self.sandbox().group_ids().contains(&id), "{record:?}");
                self.was_proved(&record, "Groups");
                continue;
            }
            let pair = membership::parts(&id).unwrap();
            assert!(
                !truth.contains(&pair),
                "he is in it, and left: {record:?}\n{}",
                self.told()
            );
        }
        let mirrored = self.memberships();
        let lost: Vec<_> = before
            .intersection(&truth)
            .filter(|pair| !mirrored.contains(*pair))
            .collect();
        assert_eq!(lost, Vec::<&[String; 2]>::new(), "{}", self.told());
        self.keeps(P1);
    }

    /// The groups of the mirror are those of the directory, with their names and their members, but these.
    #[track_caller]
    fn groups_are_the_directory_but(&self, but: &[&str]) {
        let of = |all: Memberships| -> Memberships {
            all.into_iter()
                .filter(|[group, _]| !but.contains(&group.as_str()))
                .collect()
        };
        assert_eq!(
            of(self.memberships()),
            of(self.true_memberships()),
            "{}",
            self.told()
        );
        let rows = self.rows(
            "SELECT id, display_name FROM groups WHERE instance = 'acme' AND gone_at IS NULL",
        );
        let named = rows.iter().map(|row| {
            let column = |name| text(row, name).unwrap_or_default();
            (column("id"), column("display_name"))
        });
        let mut mirrored: BTreeMap<String, String> = named.collect();
        mirrored.retain(|id, _| !but.contains(&id.as_str()));
        let mut truth: BTreeMap<String, String> = self.sandbox().with_directory(|directory| {
            let groups = directory.groups().iter();
            let named = groups.map(|group| (group.sys_id.to_string(), group.name.to_string()));
            named.collect()
        });
        truth.retain(|id, _| !but.contains(&id.as_str()));
        assert_eq!(mirrored, truth, "{}", self.told());
    }
}
