//! Memberships that wait for a person, and what an approval makes of them.

use musterd::control::{Ended, Request};
use musterd::sandbox::{self, Effect, Fault, Member, RequestKind};

use serde_json::Value;

use crate::groups::{CONFIGURATION, Scene, mute, of, simulate};

#[test]
fn an_empty_list_of_which_no_user_says_anything_waits_for_a_person() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let group = scene.group_of("Night Desk", 4);
        scene.next().await;
        scene.acme().add_fault(mute());
        // Some may leave, as two answers agree.
        scene.leave(&group, 1);
        scene.next().await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (3, "all"));
        scene.leave(&group, 3);
        scene.next().await;
        assert_eq!((scene.count(&group), &*scene.known(&group)), (3, "unknown"));
        let (_, approve) = scene.open_hold("guard = 'group_memberships'");
        scene.next().await;
        let holds: i64 = scene.ask("SELECT count(*) FROM holds");
        assert_eq!(holds, 1, "it waits, and is not held again");
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Done, "{rows:?}");
        assert_eq!((scene.count(&group), &*scene.known(&group)), (0, "all"));
        scene.end().await;
    });
}

#[test]
fn a_group_that_loses_most_of_its_members_waits_for_a_person_and_users_do_not() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let group = scene.group_of("Night Desk", 30);
        scene.next().await;
        scene.leave(&group, 20);
        let newcomer = scene
            .acme()
            .create(&sandbox::Values::new().with(sandbox::Column::FirstName, "New"));
        scene.next().await;
        assert_eq!(scene.count(&group), 30);
        let (guard, attribute, count): (String, String, i64) = scene
            .world
            .read()
            .query_row(
                "SELECT guard, attribute, count FROM holds WHERE state = 'open'",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        assert_eq!(
            (&*guard, &*attribute, count),
            ("group_memberships", &*group, 20)
        );
        let hired: i64 = scene.ask(&format!(
            "SELECT count(*) FROM users WHERE id = '{newcomer}' AND active = 1"
        ));
        assert_eq!(hired, 1);
        // Who comes back leaves the hold, and the others stay.
        let back = scene.ask::<String>(
            "SELECT substr(id, instr(id, '/') + 1) FROM hold_changes WHERE state = 'held' LIMIT 1",
        );
        scene
            .acme()
            .change_members(&group, &[], &[Member::user(&back)]);
        scene.next().await;
        let held: i64 = scene.ask("SELECT count(*) FROM hold_changes WHERE state = 'held'");
        assert_eq!(held, 19);
        // All of them: nothing is left to approve.
        let rest: Vec<Member> = {
            let conn = scene.world.read();
            let mut ids = conn
                .prepare(
                    "SELECT substr(id, instr(id, '/') + 1) FROM hold_changes WHERE state = 'held'",
                )
                .unwrap();
            let ids = ids.query_map([], |row| row.get::<_, String>(0)).unwrap();
            ids.map(|id| Member::user(&id.unwrap())).collect()
        };
        scene.acme().change_members(&group, &[], &rest);
        scene.next().await;
        let state: String = scene.ask("SELECT state FROM holds");
        assert_eq!(state, "resolved");
        assert_eq!(scene.mirrored(), scene.true_ones());
        scene.end().await;
    });
}

#[test]
fn approving_what_is_held_of_a_group_asks_for_it_once_and_releases_who_is_missing_still() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let group = scene.group_of("Night Desk", 30);
        scene.next().await;
        scene.leave(&group, 20);
        scene.next().await;
        let (hold_id, approve) = scene.open_hold("true");
        let back: String = scene.ask(
            "SELECT substr(id, instr(id, '/') + 1) FROM hold_changes WHERE state = 'held' LIMIT 1",
        );
        scene
            .acme()
            .change_members(&group, &[], &[Member::user(&back)]);
        scene.acme().forget_requests();
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Done, "{rows:?}");
        let results = |result: &str| {
            let answers = rows.iter().filter(|row| row["result"] == result);
            answers
                .filter(|row| row["resource"] == "Membership")
                .count()
        };
        assert_eq!(
            (results("approved"), results("resolved")),
            (19, 1),
            "{rows:?}"
        );
        let asked = scene.acme().requests();
        let asked = asked
            .iter()
            .filter(|logged| logged.line.contains(&format!("Groups/{group}")));
        assert_eq!(asked.count(), 1);
        assert_eq!(scene.mirrored(), scene.true_ones());
        let released: i64 = scene.ask(&format!(
            "SELECT count(*) FROM changes WHERE hold_id = {hold_id} AND reason = 'removed' AND kind = 'deactivate'"
        ));
        assert_eq!(released, 19);
        // What was approved does not count: a few more may leave.
        scene.leave(&group, 5);
        scene.next().await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        let open: i64 = scene.ask("SELECT count(*) FROM holds WHERE state = 'open'");
        assert_eq!(open, 0);
        scene.end().await;
    });
}

#[test]
fn groups_of_another_directory_wait_for_a_person_and_users_do_not() {
    simulate(async || {
        let scene = Scene::with(40).await;
        for group in scene.acme().group_ids().iter().take(30) {
            scene.acme().delete_group(group);
        }
        let user = scene.acme().ids()[7].clone();
        let before = scene.mirrored();
        scene.next().await;
        let guard: String = scene.ask("SELECT group_concat(guard) FROM holds WHERE state = 'open'");
        assert_eq!(guard, "source_changed");
        assert_eq!(scene.mirrored(), before, "the lists follow their groups");
        scene.acme().update(
            &user,
            &sandbox::Values::new().with(sandbox::Column::Title, "Principal"),
        );
        scene.next().await;
        let title: String = scene.ask(&format!("SELECT title FROM users WHERE id = '{user}'"));
        assert_eq!(title, "Principal");
        let state: String = scene.ask("SELECT state FROM instances");
        assert_eq!(state, "healthy");
        let (_, approve) = scene.open_hold("true");
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Done, "{rows:?}");
        scene.next().await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        let living: i64 = scene.ask("SELECT count(*) FROM groups WHERE gone_at IS NULL");
        assert_eq!(living, 10);
        let open: i64 = scene.ask("SELECT count(*) FROM hold_changes WHERE state = 'held'");
        assert_eq!(open, 0);
        scene.end().await;
    });
}

/// A clone is taken over, and so many are missing from lists that are cut that a guard would hold them.
#[test]
fn taking_groups_over_asks_for_each_list_that_lost_members() {
    simulate(async || {
        let scene = Scene::with(40).await;
        let old = scene.acme().group_ids();
        let desks: Vec<String> = (0..12)
            .map(|n| scene.group_of(&format!("Desk {n}"), 12))
            .collect();
        scene.next().await;
        for group in &old {
            scene.acme().delete_group(group);
        }
        let cut = Effect::MembersCut {
            most: 4,
            ids: desks.clone(),
        };
        scene
            .acme()
            .add_fault(Fault::new(cut).on(&[RequestKind::List]).named("cut"));
        scene.next().await;
        let (_, approve) = scene.open_hold("guard = 'source_changed'");
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Done, "{rows:?}");
        scene.next().await;
        let living: i64 = scene.ask("SELECT count(*) FROM groups WHERE gone_at IS NULL");
        assert_eq!(living, 12);
        for group in &desks {
            assert_eq!((scene.count(group), &*scene.known(group)), (12, "cut"));
        }
        scene.acme().remove_fault("cut");
        scene.next().await;
        assert_eq!(scene.mirrored(), scene.true_ones());
        scene.end().await;
    });
}

#[test]
fn so_many_missing_members_that_the_guard_would_hold_them_are_not_asked_for_to_confirm_it() {
    simulate(async || {
        let scene = Scene::with(6).await;
        let groups: Vec<String> = (0..12)
            .map(|n| scene.group_of(&format!("Desk {n}"), 12))
            .collect();
        scene.next().await;
        for group in &groups {
            scene.leave(group, 8);
        }
        scene.acme().forget_requests();
        scene.next().await;
        let guard: String = scene.ask("SELECT group_concat(guard) FROM holds WHERE state = 'open'");
        assert_eq!(guard, "memberships");
        let asked = scene.acme().requests();
        let asked = asked.iter().filter(|logged| {
            groups
                .iter()
                .any(|group| logged.line.contains(&format!("Groups/{group}")))
        });
        // Two syncs read them side by side: the one that is later finds that the other has read them since, and asks once
        // (promise P6). Nobody asks to confirm the lists, nor again while they are held.
        assert!(asked.count() <= groups.len());
        assert!(groups.iter().all(|group| scene.count(group) == 12));
        scene.end().await;
    });
}

/// A group of 30 of whom 20 are held, the hold, and the request that approves it.
async fn held(scene: &Scene) -> (String, i64, Request) {
    let group = scene.group_of("Night Desk", 30);
    scene.next().await;
    scene.leave(&group, 20);
    scene.next().await;
    let (hold_id, approve) = scene.open_hold("count = 20");
    (group, hold_id, approve)
}

/// Whoever approves has read that twenty have left, not that nobody is left.
#[test]
fn an_approval_of_some_believes_no_list_that_shows_nobody() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let (group, _, approve) = held(&scene).await;
        let ids = vec![group.clone()];
        scene
            .acme()
            .add_fault(Fault::new(Effect::MembersEmpty { ids }).named("blank"));
        let (ended, rows) = scene.command(approve.clone()).await;
        assert_eq!(ended, Ended::Attention, "{rows:?}");
        assert_kept(&rows, "shows nobody at all");
        assert_eq!((scene.count(&group), &*scene.known(&group)), (30, "all"));
        scene.acme().remove_fault("blank");
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Done, "{rows:?}");
        assert_eq!(scene.mirrored(), scene.true_ones());
        scene.end().await;
    });
}

#[test]
fn an_approval_believes_no_list_against_the_users_who_are_missing_from_it() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let (group, _, approve) = held(&scene).await;
        // They came back, and the list is cut amid them. The first of those who are missing are not shown at all, and say nothing.
        let left: Vec<String> = scene
            .pairs("SELECT 'User', substr(id, instr(id, '/') + 1) FROM hold_changes")
            .into_iter()
            .map(|(_, id)| id)
            .collect();
        let back: Vec<Member> = left.iter().map(|id| Member::user(id)).collect();
        scene.acme().change_members(&group, &[], &back);
        let ids = left[10..15].to_vec();
        scene
            .acme()
            .add_fault(Fault::new(Effect::UsersHidden { ids }));
        let ids = vec![group.clone()];
        scene
            .acme()
            .add_fault(Fault::new(Effect::MembersCut { most: 10, ids }));
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Attention, "{rows:?}");
        assert_kept(&rows, "says to be in the group");
        assert_eq!((scene.count(&group), &*scene.known(&group)), (30, "all"));
        scene.end().await;
    });
}

/// No hold opens on such a list, and by none is one released.
#[test]
fn an_approval_believes_no_list_that_ends_where_lists_are_cut() {
    simulate(async || {
        let scene = Scene::start(of(180, 5), CONFIGURATION).await;
        let group = scene.group_of("Everybody", 150);
        scene.next().await;
        scene.leave(&group, 80);
        scene.next().await;
        let (_, approve) = scene.open_hold("count = 80");
        // Thirty others join: a hundred are shown.
        let members = scene.mirrored();
        let ids = scene.acme().ids();
        let is_new = |id: &&String| !members.contains(&(group.clone(), (*id).clone()));
        let others: Vec<Member> = (ids.iter().filter(is_new).take(30))
            .map(|id| Member::user(id))
            .collect();
        scene.acme().change_members(&group, &[], &others);
        scene.acme().add_fault(mute());
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Attention, "{rows:?}");
        let kept = rows.iter().filter(|row| row["result"] == "failed");
        for answer in kept {
            assert_eq!(answer["why"], "the list ends where lists are cut");
        }
        let held: i64 = scene.ask("SELECT count(*) FROM hold_changes WHERE state = 'held'");
        assert!(held > 0);
        let released: i64 = scene.ask("SELECT count(*) FROM hold_changes WHERE state = 'released'");
        assert_eq!(released, 0);
        scene.end().await;
    });
}

/// Those whom a hold names left before, the others after it: together they are all, and no user says which groups the user is in.
#[test]
fn a_group_that_emptied_in_two_steps_is_approved_hold_by_hold() {
    simulate(async || {
        let scene = Scene::with(12).await;
        scene.acme().add_fault(mute());
        let (group, hold_id, approve) = held(&scene).await;
        scene.leave(&group, 10);
        scene.next().await;
        let (_, second) = scene.open_hold(&format!("id <> {hold_id}"));
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Done, "{rows:?}");
        assert_eq!(scene.count(&group), 10);
        let (ended, rows) = scene.command(second).await;
        assert_eq!(ended, Ended::Done, "{rows:?}");
        assert_eq!((scene.count(&group), &*scene.known(&group)), (0, "all"));
        scene.end().await;
    });
}

/// A hold of several groups, of which one is shown blank when it is approved.
#[test]
fn one_group_that_cannot_be_believed_keeps_its_own_members_in_the_hold() {
    simulate(async || {
        let scene = Scene::with(12).await;
        let desks: Vec<String> = (0..8)
            .map(|n| scene.group_of(&format!("Desk {n}"), 16))
            .collect();
        scene.next().await;
        for desk in &desks {
            scene.leave(desk, 9);
        }
        scene.next().await;
        let (hold_id, approve) = scene.open_hold("guard = 'memberships' AND count = 72");
        let ids = vec![desks[3].clone()];
        scene
            .acme()
            .add_fault(Fault::new(Effect::MembersEmpty { ids }));
        assert!(scene.acme().delete_group(&desks[5]));
        let (ended, rows) = scene.command(approve).await;
        assert_eq!(ended, Ended::Attention, "{rows:?}");
        let counts: Vec<i64> = desks.iter().map(|desk| scene.count(desk)).collect();
        assert_eq!(counts, [7, 7, 7, 16, 7, 16, 7, 7]);
        let with = |why: &str| {
            let told = |row: &&Value| row["why"].as_str().is_some_and(|told| told.contains(why));
            rows.iter().filter(told).count()
        };
        assert_eq!(with("shows nobody at all"), 9, "{rows:?}");
        assert_eq!(with("the group is not shown"), 9, "{rows:?}");
        let state: String = scene.ask(&format!("SELECT state FROM holds WHERE id = {hold_id}"));
        assert_eq!(state, "open");
        scene.end().await;
    });
}

/// None of these twenty is released: whoever is shown has come back, and the others are held still, for this reason.
fn assert_kept(rows: &[Value], why: &str) {
    let answers = rows.iter().filter(|row| row["resource"] == "Membership");
    let (back, kept): (Vec<&Value>, Vec<&Value>) =
        answers.partition(|answer| answer["result"] == "resolved");
    assert_eq!(back.len() + kept.len(), 20, "{rows:?}");
    assert!(!kept.is_empty(), "{rows:?}");
    for answer in kept {
        assert_eq!(answer["result"], "failed", "{answer}");
        assert!(answer["why"].as_str().unwrap().contains(why), "{answer}");
    }
}
