//! What of a list ends, what waits, and what is written of it transaction by transaction.

use std::time::Duration;

use serde_json::json;

use super::super::apply::{Applied, Batch, Finish, Planned};
use super::super::read::Pin;
use super::super::stage::{Stage, StageKey};
use super::super::testing::{FULL, USER, World, id, key, name, pin, plan_of, proof};
use super::*;
use crate::model::{Mode, Row};
use crate::reconcile::decode::decode;
use crate::reconcile::guard::WindowLimit;

const GROUP: ResourceType = ResourceType::Group;

/// A group and the values of its members; an empty one is a member of whom nothing is shown.
fn group(members: &[&str]) -> Row {
    let members: Vec<_> = (members.iter())
        .map(|member| json!({"value": member}))
        .collect();
    let raw = json!({"id": "g", "displayName": "Desk", "members": members}).to_string();
    Row {
        id: id("g"),
        modified_at: None,
        raw: raw.into(),
    }
}

/// A mirror in which the group has these members.
async fn with(members: &[&str]) -> World {
    let mut world = World::new().await;
    let both = Pin {
        resources: vec![USER, GROUP],
        ..pin("acme")
    };
    let linked = world.mirror.write(move |writer| writer.link(&[both]));
    linked.await.unwrap();
    sync(&mut world, members, ListState::Confirmed).await;
    assert_eq!(living_members(&world), members.join(" "));
    world
}

/// Guards that hold whatever is more than this.
fn limited(world: &mut World, count: u64) {
    let limit = WindowLimit {
        at_least: count,
        count,
        percent: 100,
        window: Duration::from_secs(24 * 3600),
    };
    world.limits.deactivations = limit.clone();
    world.limits.memberships = limit;
}

fn blank_stage(world: &World) -> Stage {
    let key = StageKey {
        resource: GROUP,
        ..key(Mode::Full)
    };
    let hour = Duration::from_secs(3600);
    Stage::open(None, &key, &world.reader(), world.now, hour)
        .unwrap()
        .0
}

/// The group was read alone, and this is thought of its list.
fn put(world: &World, stage: &mut Stage, members: &[&str], state: ListState) {
    let arrived = decode(GROUP, &group(members)).unwrap();
    stage.put_asked(world.mirror.base(), arrived).unwrap();
    stage.judge_list(&id("g"), state).unwrap();
}

/// What the transactions of one sync of groups share, guarded, and what its last one writes.
async fn ending(world: &mut World, stage: &Stage) -> (Batch, Finish) {
    let (mut batch, mut finish) = world.ending(stage).await;
    finish.sync.resource = GROUP;
    batch.watch.resource = GROUP;
    let reader = world.reader();
    batch.watch.baseline_at = reader.source(&name("acme"), GROUP).unwrap().baseline_at;
    batch.treatment = Treatment::Guarded(Planned::of(stage, &reader, &batch.watch).unwrap());
    (batch, finish)
}

async fn one_transaction(
    world: &World,
    mut stage: Stage,
    (batch, finish): &(Batch, Finish),
    after: Option<ResourceId>,
) -> (Stage, Applied) {
    let (batch, finish) = (batch.clone(), finish.clone());
    let written = world.mirror.write(move |writer| {
        let applied = writer.apply(&mut stage, &batch, after.as_ref(), &finish)?;
        Ok((stage, applied))
    });
    written.await.unwrap()
}

/// All transactions of a sync, of so many records each. Guarded, unless it is treated otherwise.
async fn apply(
    world: &mut World,
    mut stage: Stage,
    treatment: Option<Treatment>,
    limit: usize,
) -> Vec<Applied> {
    let mut ends = ending(world, &stage).await;
    ends.0.limit = limit;
    ends.0.treatment = treatment.unwrap_or(ends.0.treatment);
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let (returned, applied) = one_transaction(world, stage, &ends, after.take()).await;
        (stage, after) = (returned, applied.next_after.clone());
        all.push(applied);
        if after.is_none() {
            assert_eq!(world.difference(), None);
            return all;
        }
    }
}

async fn sync(world: &mut World, members: &[&str], state: ListState) -> Vec<Applied> {
    let mut stage = blank_stage(world);
    put(world, &mut stage, members, state);
    apply(world, stage, None, FULL.limit).await
}

/// A person approves the first hold, and the instance answers this.
async fn approve(world: &mut World, members: &[&str]) -> Vec<Applied> {
    let mut stage = blank_stage(world);
    put(world, &mut stage, members, ListState::Confirmed);
    apply(world, stage, Some(Treatment::Approved(1)), FULL.limit).await
}

fn text(world: &World, sql: &str) -> String {
    world.ask::<Option<String>>(sql).unwrap_or_default()
}

fn living_members(world: &World) -> String {
    text(
        world,
        "SELECT group_concat(member_id, ' ') FROM
             (SELECT member_id FROM memberships WHERE ended_at IS NULL ORDER BY member_id)",
    )
}

fn held(world: &World) -> String {
    text(
        world,
        "SELECT group_concat(id, ' ') FROM (SELECT id FROM hold_changes WHERE state = 'held' ORDER BY id)",
    )
}

fn known(world: &World) -> String {
    text(world, "SELECT members_known FROM groups")
}

#[tokio::test]
async fn who_is_in_a_group_is_found_by_index() {
    let world = World::new().await;
    let plan = plan_of(&world.reader().conn, LIVING);
    let index = "INDEX memberships_living (instance=? AND group_id=?)";
    assert!(plan.ends_with(index), "{plan}");
}

/// What a step thinks of a list is noted many times, and the list itself is long.
#[tokio::test]
async fn a_list_that_was_read_again_alike_is_not_written_again() {
    let world = with(&["a", "b"]).await;
    let mut stage = blank_stage(&world);
    put(&world, &mut stage, &["b", "c"], ListState::Read);
    let changes = |stage: &Stage| stage.conn.total_changes();
    let before = changes(&stage);
    put(&world, &mut stage, &["c", "b"], ListState::Cut);
    // The row of the group, and what is thought of its list.
    assert_eq!(changes(&stage) - before, 2);
    put(&world, &mut stage, &["c"], ListState::Cut);
    assert_eq!(changes(&stage) - before, 5);
    let (list, missing) = stage.list_of(&world.reader(), &id("g")).unwrap().unwrap();
    let ids = |members: Vec<Member>| {
        members
            .into_iter()
            .map(|member| member.id)
            .collect::<String>()
    };
    assert_eq!(
        (ids(list.members), ids(missing)),
        ("c".to_owned(), "ab".to_owned())
    );
    stage.drop_staged(&id("g")).unwrap();
    assert!(stage.list_of(&world.reader(), &id("g")).unwrap().is_none());
    assert!(!stage.saw_members(&world.reader()).unwrap());
}

/// Then it is not decoded again; but what another sync has read since the page is no reason to doubt it any more.
#[tokio::test]
async fn an_answer_like_the_page_stands_from_when_it_was_asked_for() {
    let mut world = with(&["a", "b"]).await;
    let mut stage = blank_stage(&world);
    let arrived = decode(GROUP, &group(&["a"])).unwrap();
    let fingerprint = arrived.fingerprint;
    let base = world.mirror.base();
    stage
        .put(&world.reader(), base, vec![arrived], Vec::new())
        .unwrap();
    sync(&mut world, &["a", "b", "c"], ListState::Confirmed).await;
    let asked = |stage: &mut Stage, fingerprint| {
        let base = world.mirror.base();
        let is_alike = stage.is_asked_alike(base, &id("g"), fingerprint).unwrap();
        (is_alike, stage.doubtful(&world.reader()).unwrap())
    };
    assert_eq!(asked(&mut stage, &[7; 16]), (false, vec![id("g")]));
    assert_eq!(asked(&mut stage, &fingerprint), (true, Vec::new()));
    let (list, missing) = stage.list_of(&world.reader(), &id("g")).unwrap().unwrap();
    assert_eq!((list.members.len(), missing.len()), (1, 2));
}

#[tokio::test]
async fn taking_another_directory_over_ends_nobody_by_a_list_that_is_not_confirmed() {
    use ListState::{Cut, Read, Unasked, Unknown};
    for state in [Read, Unasked, Cut, Unknown] {
        let mut world = with(&["a", "b", "c"]).await;
        // The group is gone from it, and that is held.
        let mut stage = blank_stage(&world);
        let base = world.mirror.base();
        stage.put_gone(base, &id("g"), &proof(world.now)).unwrap();
        let whole = Treatment::HeldWhole("another directory".to_owned());
        apply(&mut world, stage, Some(whole), FULL.limit).await;
        assert_eq!(held(&world), "g");
        let mut stage = blank_stage(&world);
        put(&world, &mut stage, &["a"], state);
        apply(&mut world, stage, Some(Treatment::TakenOver(1)), FULL.limit).await;
        assert_eq!(living_members(&world), "a b c", "{state:?}");
        assert_eq!(held(&world), "");
    }
}

/// What a person approved is written, also where nothing of it is what was held.
#[tokio::test]
async fn a_take_over_that_ends_memberships_alone_is_told_by_its_hold() {
    let mut world = with(&["a", "b", "c"]).await;
    let mut stage = blank_stage(&world);
    let base = world.mirror.base();
    stage.put_gone(base, &id("g"), &proof(world.now)).unwrap();
    let whole = Treatment::HeldWhole("another directory".to_owned());
    apply(&mut world, stage, Some(whole), FULL.limit).await;
    let (digest, now) = (text(&world, "SELECT digest FROM holds"), world.now);
    let approved = world
        .mirror
        .write(move |writer| writer.approve_source_change(1, &digest, now));
    approved.await.unwrap();
    let mut stage = blank_stage(&world);
    put(&world, &mut stage, &["a"], ListState::Confirmed);
    apply(&mut world, stage, Some(Treatment::TakenOver(1)), FULL.limit).await;
    assert_eq!((&*living_members(&world), &*held(&world)), ("a", ""));
    let told = "SELECT group_concat(id || ' ' || reason || ' ' || hold_id, '; ')
                FROM (SELECT * FROM changes WHERE hold_id IS NOT NULL ORDER BY seq)";
    assert_eq!(
        text(&world, told),
        "g/b source_changed 1; g/c source_changed 1"
    );
    assert_eq!(world.difference(), None);
}

/// Whoever takes over settles all holds, so that it must look at those who are held as well.
#[tokio::test]
async fn who_is_held_is_asked_for_again_only_by_a_take_over() {
    let mut world = with(&["a", "b", "c", "d"]).await;
    limited(&mut world, 2);
    sync(&mut world, &["a"], ListState::Confirmed).await;
    assert_eq!(held(&world), "g/b g/c g/d");
    let mut stage = blank_stage(&world);
    put(&world, &mut stage, &["a"], ListState::Read);
    let (batch, _) = ending(&mut world, &stage).await;
    let lost = |treatment: &Treatment| {
        let lost = stage.lists_that_lost(&world.reader(), &batch.watch, treatment);
        lost.unwrap().len()
    };
    assert_eq!(
        (lost(&batch.treatment), lost(&Treatment::TakenOver(2))),
        (0, 1)
    );
}

#[tokio::test]
async fn a_group_that_is_gone_stays_in_its_hold_until_its_own_record_is_written() {
    let members = ["a", "b", "c", "d", "e"];
    let mut world = with(&members).await;
    limited(&mut world, 0);
    let gone = |world: &World| {
        let mut stage = blank_stage(world);
        let base = world.mirror.base();
        stage.put_gone(base, &id("g"), &proof(world.now)).unwrap();
        stage
    };
    let stage = gone(&world);
    apply(&mut world, stage, None, FULL.limit).await;
    assert_eq!(
        (&*held(&world), &*living_members(&world)),
        ("g", "a b c d e")
    );
    let stage = gone(&world);
    let applied = apply(&mut world, stage, Some(Treatment::Approved(1)), 2).await;
    assert!(applied.len() > 2, "{applied:?}");
    assert_eq!(applied.iter().map(|one| one.deactivated).sum::<u64>(), 6);
    assert!(world.ask::<bool>("SELECT gone_at IS NOT NULL FROM groups"));
    assert_eq!(living_members(&world), "");
    let last = "SELECT resource || ' ' || hold_id FROM changes ORDER BY seq DESC LIMIT 1";
    assert_eq!(text(&world, last), "Group 1");
    let states = "SELECT holds.state || ' ' || hold_changes.state FROM holds JOIN hold_changes ON hold_id = holds.id";
    assert_eq!(text(&world, states), "approved released");
}

#[tokio::test]
async fn approving_ends_nobody_by_a_list_that_cannot_be_read() {
    let mut world = with(&["a", "b", "c", "d"]).await;
    limited(&mut world, 2);
    sync(&mut world, &["a"], ListState::Confirmed).await;
    assert_eq!(held(&world), "g/b g/c g/d");
    approve(&mut world, &["a", ""]).await;
    assert_eq!(living_members(&world), "a b c d");
    assert_eq!(held(&world), "g/b g/c g/d");
    assert_eq!(known(&world), "unknown");
}

#[tokio::test]
async fn approving_says_that_all_are_known_only_where_nobody_is_missing_still() {
    let mut world = with(&["a", "b", "c", "d"]).await;
    limited(&mut world, 2);
    sync(&mut world, &["a"], ListState::Confirmed).await;
    sync(&mut world, &["a"], ListState::Cut).await;
    assert_eq!((&*held(&world), &*known(&world)), ("g/b g/c g/d", "cut"));
    // Of `a` the person said nothing.
    approve(&mut world, &["e"]).await;
    assert_eq!((&*held(&world), &*living_members(&world)), ("", "a e"));
    assert_eq!(known(&world), "cut");
}

#[tokio::test]
async fn who_is_held_and_comes_back_makes_no_room_for_others_to_leave() {
    let all = ["a", "b", "c", "d", "e", "f", "g"];
    let mut world = with(&all).await;
    limited(&mut world, 2);
    sync(&mut world, &all[3..], ListState::Confirmed).await;
    assert_eq!(held(&world), "g/a g/b g/c");
    // Those three are back, and three others left.
    let mut stage = blank_stage(&world);
    put(&world, &mut stage, &["a", "b", "c", "d"], ListState::Read);
    let (batch, _) = ending(&mut world, &stage).await;
    let lost = stage.lists_that_lost(&world.reader(), &batch.watch, &batch.treatment);
    let [lost] = &lost.unwrap()[..] else {
        panic!("one list lost members");
    };
    assert_eq!(lost.missing, 3);
    let reader = world.reader();
    assert!(reader.would_hold_members(&batch.watch, 3).unwrap());
    assert!(!reader.would_hold_members(&batch.watch, 2).unwrap());
    stage.judge_list(&id("g"), ListState::Confirmed).unwrap();
    apply(&mut world, stage, None, FULL.limit).await;
    assert_eq!(held(&world), "g/e g/f g/g");
    assert_eq!(living_members(&world), all.join(" "));
}

#[tokio::test]
async fn a_long_list_that_was_doubtful_is_written_in_several_transactions_too() {
    let mut world = with(&["a"]).await;
    let mut stage = blank_stage(&world);
    let arrived = decode(GROUP, &group(&["a", "x"])).unwrap();
    let base = world.mirror.base();
    stage
        .put(&world.reader(), base, vec![arrived], Vec::new())
        .unwrap();
    // Another sync reads it meanwhile.
    sync(&mut world, &["a", "b"], ListState::Confirmed).await;
    let mut ends = ending(&mut world, &stage).await;
    ends.0.limit = 2;
    let (mut stage, applied) = one_transaction(&world, stage, &ends, None).await;
    assert_eq!(applied.doubtful, [id("g")]);
    let all = ["a", "b", "c", "d", "e", "f", "h"];
    put(&world, &mut stage, &all, ListState::Confirmed);
    let mut created = Vec::new();
    let mut after = Some(id("g"));
    while let Some(behind) = after {
        let (returned, applied) = one_transaction(&world, stage, &ends, Some(behind)).await;
        assert!(applied.doubtful.is_empty());
        created.push(applied.created);
        (stage, after) = (returned, applied.next_after);
    }
    assert_eq!(created, [2, 2, 1]);
    assert_eq!(living_members(&world), all.join(" "));
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn a_slow_bleed_of_members_counts() {
    let mut world = with(&["a", "b", "c", "d"]).await;
    limited(&mut world, 2);
    for left in [&["b", "c", "d"][..], &["c", "d"], &["d"]] {
        sync(&mut world, left, ListState::Confirmed).await;
    }
    assert_eq!(living_members(&world), "c d", "the third one is held");
}

#[tokio::test]
async fn nobody_says_of_a_list_that_nobody_asked_about_that_it_is_whole() {
    let mut world = with(&["a", "b", "c", "d"]).await;
    limited(&mut world, 2);
    sync(&mut world, &["d"], ListState::Unasked).await;
    assert_eq!(living_members(&world), "a b c d");
    assert_eq!(text(&world, "SELECT members_known FROM groups"), "unknown");
}
