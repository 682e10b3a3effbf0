//! What is held, and what goes through.

mod decided;

use std::time::Duration;

use jiff::SignedDuration;

use super::super::apply::Applied;
use super::super::holds::SourceChange;
use super::super::stage::Stage;
use super::super::testing::{
    FULL, How, INCREMENTAL, World, id, name, proof, strict, time, titled, user,
};
use super::*;
use crate::model::{Mode, Row};
use crate::reconcile::decode::decode;
use crate::reconcile::guard::WindowLimit;

const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

async fn guarded(directory: &[Row]) -> World {
    let mut world = World::new().await;
    world.limits = strict();
    world.sync(directory).await;
    world
}

fn with(id: &str, members: &str) -> Row {
    user(id, "2026-01-01T00:00:00Z", &format!(",{members}"))
}

fn inactive(id: &str, title: &str) -> Row {
    with(id, &format!(r#""active":false,"title":"{title}""#))
}

/// A person approves a hold, and the instance answers this of its users.
async fn approve(world: &mut World, hold_id: i64, answers: &[Row]) -> Applied {
    let mut stage = world.stage(Mode::Incremental);
    for row in answers {
        let answer = decode(ResourceType::User, row).unwrap();
        stage.put_asked(world.mirror.base(), answer).unwrap();
    }
    apply_as(world, stage, Treatment::Approved(hold_id)).await
}

async fn apply_as(world: &mut World, mut stage: Stage, treatment: Treatment) -> Applied {
    let (mut batch, finish) = world.ending(&stage).await;
    batch.treatment = treatment;
    let written = world
        .mirror
        .write(move |writer| writer.apply(&mut stage, &batch, None, &finish));
    written.await.unwrap()
}

fn column(world: &World, sql: &str) -> String {
    world
        .ask::<Option<String>>(&format!("SELECT group_concat(x, ' ') FROM ({sql})"))
        .unwrap_or_default()
}

fn held(world: &World) -> String {
    column(
        world,
        "SELECT id || ':' || path AS x FROM users_held ORDER BY id, path",
    )
}

#[tokio::test]
async fn two_go_and_three_are_held_while_all_else_of_them_goes_through() {
    let directory = IDS.map(|id| titled(id, "x"));
    for n in [2, 3] {
        let mut world = guarded(&directory).await;
        let changed: Vec<Row> = IDS[..n].iter().map(|id| inactive(id, "y")).collect();
        let applied = world.sync_as(INCREMENTAL, &changed).await.remove(0);
        assert_eq!(
            column(&world, "SELECT id AS x FROM users WHERE title = 'y'"),
            IDS[..n].join(" ")
        );
        if n == 2 {
            assert_eq!((applied.deactivated, applied.held), (2, 0));
            assert_eq!(held(&world), "");
        } else {
            assert_eq!(
                (applied.deactivated, applied.updated, applied.held),
                (0, 3, 3)
            );
            assert_eq!(held(&world), "a:active b:active c:active");
            assert_eq!(world.ask::<i64>("SELECT count(*) FROM active_users"), 6);
            assert!(
                world.ask::<bool>("SELECT min(json_extract(attributes, '$.active')) FROM users")
            );
            // As it was read.
            assert!(
                world.ask::<bool>(
                    "SELECT max(json_extract(after, '$.active')) = 0 FROM hold_changes"
                )
            );
            assert_eq!(applied.opened[0].count, 3);
        }
        assert_eq!(world.difference(), None);
    }
}

#[tokio::test]
async fn an_open_hold_is_not_written_again_and_heals_user_by_user() {
    let mut directory = IDS.map(|id| titled(id, "x"));
    let mut world = guarded(&directory).await;
    for place in 0..3 {
        directory[place] = inactive(IDS[place], "x");
    }
    world.sync(&directory).await;
    let tables = |world: &World| {
        let mut tables = world.dump();
        for table in [
            "syncs",
            "sqlite_sequence",
            "sources",
            "source_counts",
            "instances",
        ] {
            tables.remove(table);
        }
        tables
    };
    let before = tables(&world);
    let applied = world.sync(&directory).await.remove(0);
    assert_eq!((applied.held, applied.opened.len()), (0, 0));
    assert_eq!(tables(&world), before);

    directory[0] = titled("a", "x");
    world.sync(&directory).await;
    assert_eq!(held(&world), "b:active c:active");
    // Two more are new candidates, and a hold of their own: in the window there are five.
    directory[3] = inactive("d", "x");
    directory[4] = inactive("e", "x");
    world.limits.deactivations.count = 1;
    world.limits.deactivations.at_least = 1;
    world.sync(&directory).await;
    assert_eq!(
        column(
            &world,
            "SELECT hold_id || id AS x FROM users_held ORDER BY hold_id, id"
        ),
        "1b 1c 2d 2e"
    );
    world.sync(&IDS.map(|id| titled(id, "x"))).await;
    assert_eq!(
        column(
            &world,
            "SELECT state AS x FROM holds UNION ALL SELECT DISTINCT state FROM hold_changes"
        ),
        "resolved resolved resolved"
    );
    assert_eq!(
        world.ask::<i64>("SELECT count(*) FROM changes WHERE kind <> 'create'"),
        0
    );
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn one_attribute_turning_empty_is_held_by_itself_and_a_reference_counts_once() {
    let urn = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
    let full = IDS.map(|id| {
        with(id, &format!(
            r#""title":"t","nickName":"n","{urn}":{{"department":{{"value":"d1","name":"D"}},"company":{{"value":"c1","name":"C"}}}}"#
        ))
    });
    let mut world = guarded(&full).await;
    // Departments are lost, and the labels of companies; two titles, three nicknames.
    let lost: Vec<Row> = IDS.iter().zip(0..).map(|(id, n)| {
        let title = if n < 2 { "" } else { "t" };
        let nick = if n < 3 { "" } else { "n" };
        with(id, &format!(
            r#""title":"{title}","nickName":"{nick}","{urn}":{{"company":{{"value":"c1"}}}}"#
        ))
    }).collect();
    world.sync(&lost).await;
    assert_eq!(
        column(
            &world,
            "SELECT attribute || count AS x FROM holds ORDER BY attribute"
        ),
        "department6 nickName3"
    );
    assert_eq!(
        column(
            &world,
            "SELECT coalesce(title, '-') || coalesce(company, '-') || department || department_id AS x FROM users ORDER BY id"
        ),
        "--Dd1 --Dd1 t-Dd1 t-Dd1 t-Dd1 t-Dd1"
    );
    assert_eq!(
        world.ask::<i64>("SELECT sum(attributes LIKE '%nickName%') FROM users"),
        6
    );
    assert_eq!(world.difference(), None);
    world.sync(&full).await;
    assert_eq!(held(&world), "");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn the_share_is_of_those_who_were_there_before_this_sync_wrote_anything() {
    let known: Vec<String> = (0..20).map(|n| format!("k{n:02}")).collect();
    for (leavers, n_held) in [(2, 0), (3, 3)] {
        let directory: Vec<Row> = known.iter().map(|id| titled(id, "x")).collect();
        let mut world = guarded(&directory).await;
        world.limits.deactivations = WindowLimit {
            at_least: 1,
            count: 1_000,
            percent: 10,
            ..strict().deactivations
        };
        // Those who come are written first, by the order of ids.
        let changed: Vec<Row> = (0..15)
            .map(|n| titled(&format!("a{n:02}"), "new"))
            .chain(known.iter().take(leavers).map(|id| inactive(id, "x")))
            .collect();
        let applied = world.sync_as(INCREMENTAL, &changed).await.remove(0);
        assert_eq!(
            (applied.created, applied.held),
            (15, n_held),
            "10 % of 20 are 2"
        );
    }
}

/// Two are the most that pass; the window is a day.
#[tokio::test]
async fn a_slow_bleed_counts_until_it_leaves_the_window() {
    for (later, n_held) in [
        (Duration::from_secs(24 * 3600 - 121), 1),
        (Duration::from_secs(24 * 3600 - 120), 0),
    ] {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        world.sync_as(INCREMENTAL, &[inactive("a", "x")]).await;
        world.sync_as(INCREMENTAL, &[inactive("b", "x")]).await;
        // A sync takes a minute: `b` was a minute before this, `a` two.
        world.now += later;
        let applied = world
            .sync_as(INCREMENTAL, &[inactive("c", "x")])
            .await
            .remove(0);
        assert_eq!(applied.held, n_held, "{later:?}");
        assert_eq!(world.difference(), None);
    }
}

/// Each attribute has a window of its own, and a value that comes back gives nothing back.
#[tokio::test]
async fn a_slow_bleed_of_one_attribute_counts_by_itself() {
    let filled = |id: &str| with(id, r#""title":"t","nickName":"n""#);
    let mut world = guarded(&IDS.map(filled)).await;
    let titleless = |id: &str| with(id, r#""nickName":"n""#);
    for id in ["a", "b"] {
        world.sync_as(INCREMENTAL, &[titleless(id)]).await;
    }
    assert_eq!(held(&world), "");
    // Two other attributes and a title that is back: nothing of it is a third title.
    world
        .sync_as(INCREMENTAL, &[with("c", r#""title":"t""#), filled("a")])
        .await;
    world
        .sync_as(INCREMENTAL, &[with("d", r#""title":"t""#)])
        .await;
    assert_eq!(held(&world), "");
    let applied = world
        .sync_as(INCREMENTAL, &[titleless("e")])
        .await
        .remove(0);
    assert_eq!((applied.held, &*held(&world)), (1, "e:title"));
    // A day later those two are forgotten, and the one that is held is not asked about again.
    world.now += SignedDuration::from_hours(24);
    let late = [titleless("e"), titleless("f")];
    let applied = world.sync_as(INCREMENTAL, &late).await.remove(0);
    assert_eq!((applied.updated, applied.held), (1, 0));
    assert_eq!(held(&world), "e:title");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn who_was_inactive_already_goes_uncounted() {
    let mut directory = IDS.map(|id| inactive(id, "x"));
    directory[5] = titled("f", "x");
    let mut world = guarded(&directory).await;
    let applied = world.sync(&directory[5..]).await.remove(0);
    assert_eq!(
        (applied.updated, applied.deactivated, applied.held),
        (5, 0, 0)
    );
    assert_eq!(
        column(
            &world,
            "SELECT DISTINCT kind || '/' || reason AS x FROM changes WHERE seq > 6"
        ),
        "update/gone"
    );
    assert_eq!(world.difference(), None);
}

/// The base is what there was when the window began, or at the baseline if that is later.
#[tokio::test]
async fn the_share_is_of_the_users_at_the_window_or_at_a_later_baseline() {
    let many: Vec<Row> = (0..30).map(|n| titled(&format!("k{n:02}"), "x")).collect();
    let share = WindowLimit {
        at_least: 1,
        count: 1_000,
        percent: 10,
        ..strict().deactivations
    };
    let leave =
        |n: usize| -> Vec<Row> { (0..n).map(|n| inactive(&format!("k{n:02}"), "x")).collect() };
    for (days, n_leavers, n_held) in [
        // Ten at the baseline, within the window: twenty came since, which do not count.
        (0, 1, 0),
        (0, 2, 2),
        // They were there when the window began.
        (2, 3, 0),
        (2, 4, 4),
    ] {
        let mut world = guarded(&many[..10]).await;
        world.limits.deactivations = share.clone();
        world.sync_as(INCREMENTAL, &many[10..]).await;
        world.now += SignedDuration::from_hours(24 * days);
        let applied = world
            .sync_as(INCREMENTAL, &leave(n_leavers))
            .await
            .remove(0);
        assert_eq!(applied.held, n_held, "{n_leavers} after {days} days");
    }
}

#[tokio::test]
async fn what_another_sync_released_since_the_plan_counts() {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    let mut stage = world.stage(Mode::Full);
    let mut directory = IDS.map(|id| titled(id, "x"));
    directory[0] = inactive("a", "x");
    directory[1] = inactive("b", "x");
    world.crawl(&mut stage, &directory);
    let (batch, finish) = world.ending(&stage).await;
    // Planned, two pass. But now there are two of an incremental sync before them.
    world
        .sync_as(INCREMENTAL, &[inactive("e", "x"), inactive("f", "x")])
        .await;
    let applied = world
        .mirror
        .write(move |writer| writer.apply(&mut stage, &batch, None, &finish))
        .await
        .unwrap();
    assert_eq!((applied.deactivated, applied.held), (0, 2));
    assert_eq!(held(&world), "a:active b:active");
}

#[tokio::test]
async fn a_hold_is_there_with_the_end_of_its_sync_and_not_before() {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    let changed: Vec<Row> = IDS.iter().map(|id| inactive(id, "y")).collect();
    let killed = How {
        limit: 2,
        transactions: 2,
        ..FULL
    };
    world.sync_as(killed, &changed).await;
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM holds"), 0);
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM active_users"), 6);
    assert_eq!(world.difference(), None);
    let small = How { limit: 2, ..FULL };
    let applied = world.sync_as(small, &changed).await;
    assert_eq!(applied.iter().map(|one| one.held).sum::<u64>(), 6);
    assert_eq!(
        world.ask::<i64>("SELECT held FROM syncs ORDER BY id DESC"),
        6
    );
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM users_held"), 6);
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn who_is_held_and_then_gone_is_not_held_twice() {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    let changed: Vec<Row> = IDS.iter().map(|id| inactive(id, "x")).collect();
    world.sync(&changed).await;
    world.sync(&changed[1..]).await;
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM holds"), 1);
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM users_held"), 6);
    assert_eq!(world.ask::<i64>("SELECT count(*) FROM active_users"), 6);
    assert_eq!(world.difference(), None);
}

/// Who is held because an attribute turned empty, and is then not shown, may come back as empty as he was.
#[tokio::test]
async fn a_blanking_stays_held_until_the_user_is_seen_well_or_is_really_gone() {
    let filled = IDS.map(|id| titled(id, "x"));
    let mut blank = filled.clone();
    for place in 0..3 {
        blank[place] = titled(IDS[place], "");
    }
    let titles = "a:title b:title c:title";
    let mut world = guarded(&filled).await;
    world.sync(&blank).await;
    assert_eq!(held(&world), titles);
    // All three are unseen, and proved gone: one more than may go at once.
    world.sync(&blank[3..]).await;
    assert_eq!(
        held(&world),
        "a:all a:title b:all b:title c:all c:title",
        "held, and not gone"
    );
    // Two are seen again, as few as would pass if they were counted anew.
    world.sync(&[&blank[..2], &blank[3..]].concat()).await;
    assert_eq!(held(&world), "a:title b:title c:all c:title");
    let n_titles = "SELECT count(*) FROM users WHERE title = 'x'";
    assert_eq!(world.ask::<i64>(n_titles), 6);
    assert_eq!(world.difference(), None);
    world.sync(&filled).await;
    assert_eq!(held(&world), "");

    let mut world = guarded(&filled).await;
    world.sync(&blank).await;
    let applied = world.sync(&blank[1..]).await.remove(0);
    assert_eq!((applied.deactivated, applied.held), (1, 0));
    assert_eq!(held(&world), "b:title c:title", "one is really gone");
    assert_eq!(world.difference(), None);
}

/// Between two transactions of a full sync, for which all are inactive, another sync does something about `a`, whom the first
/// transaction has kept back. Nothing of him is in a hold then.
async fn a_is_in_no_hold_after(other: impl AsyncFnOnce(&mut World)) {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    let mut stage = world.stage(Mode::Full);
    world.crawl(&mut stage, &IDS.map(|id| inactive(id, "x")));
    let (mut batch, finish) = world.ending(&stage).await;
    batch.limit = 1;
    let first_batch = (batch.clone(), finish.clone());
    let written = world.mirror.write(move |writer| {
        let first = writer.apply(&mut stage, &first_batch.0, None, &first_batch.1)?;
        Ok((stage, first))
    });
    let (mut stage, first) = written.await.unwrap();
    assert!(first.next_after.is_some(), "{first:?}");
    other(&mut world).await;
    batch.limit = 100;
    let written = world
        .mirror
        .write(move |writer| writer.apply(&mut stage, &batch, first.next_after.as_ref(), &finish));
    assert!(written.await.unwrap().finished);
    assert_eq!(held(&world), "b:active c:active d:active e:active f:active");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn whom_another_sync_has_read_meanwhile_is_in_no_hold() {
    a_is_in_no_hold_after(async |world| {
        let well = with("a", r#""title":"x","nickName":"well""#);
        world.sync_as(INCREMENTAL, &[well]).await;
    })
    .await;
}

#[tokio::test]
async fn whom_another_sync_found_gone_meanwhile_is_in_no_hold() {
    a_is_in_no_hold_after(async |world| {
        let mut other = world.stage(Mode::Incremental);
        let base = world.mirror.base();
        other.put_gone(base, &id("a"), &proof(world.now)).unwrap();
        world.limits = Limits::none();
        assert_eq!(world.apply(other, INCREMENTAL).await[0].deactivated, 1);
    })
    .await;
}
