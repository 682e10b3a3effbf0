//! What a person approves, and what waits for a person.

use super::*;

#[tokio::test]
async fn what_was_approved_does_not_count() {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    let changed = ["a", "b", "c"].map(|id| inactive(id, "x"));
    world.sync_as(INCREMENTAL, &changed).await;
    assert_eq!(held(&world), "a:active b:active c:active");
    assert_eq!(approve(&mut world, 1, &changed).await.deactivated, 3);
    // Two more pass as if those three had never been, and the third does not.
    let applied = world
        .sync_as(INCREMENTAL, &["d", "e"].map(|id| inactive(id, "x")))
        .await;
    assert_eq!((applied[0].deactivated, applied[0].held), (2, 0));
    let applied = world.sync_as(INCREMENTAL, &[inactive("f", "x")]).await;
    assert_eq!((applied[0].deactivated, applied[0].held), (0, 1));
    assert_eq!(world.difference(), None);
}

/// They have the label of a reference in three spellings, lose one of them, and then all of it.
#[tokio::test]
async fn a_reference_is_held_and_released_as_a_whole() {
    let urn = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
    let managed = |manager: &str| IDS.map(|id| with(id, &format!(r#""{urn}":{{{manager}}}"#)));
    let all = r#""manager":{"value":"m","displayName":"M","display":"M","name":"M"}"#;
    let mut world = guarded(&managed(all)).await;
    let fewer = r#""manager":{"value":"m","name":"M","display":"M"}"#;
    world.sync(&managed(fewer)).await;
    assert_eq!(held(&world), "");
    let nobody = managed("");
    world.sync(&nobody).await;
    let paths = "SELECT DISTINCT path AS x FROM users_held";
    assert_eq!(column(&world, paths), "manager");
    assert_eq!(approve(&mut world, 1, &nobody).await.updated, 6);
    assert_eq!(held(&world), "");
    let left =
        "SELECT count(manager) + count(manager_id) + sum(attributes LIKE '%display%') FROM users";
    assert_eq!(world.ask::<i64>(left), 0);
    assert_eq!(world.difference(), None);
}

/// Nobody can prove that he is gone, and his title will never be asked for again.
#[tokio::test]
async fn who_is_not_shown_leaves_a_blanking_that_a_person_approves() {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    world.sync(&IDS.map(|id| titled(id, ""))).await;
    let mut stage = world.stage(Mode::Incremental);
    stage.put_absent(world.mirror.base(), &id("a")).unwrap();
    let head = world.mirror.head();
    let applied = apply_as(&mut world, stage, Treatment::Approved(1)).await;
    assert_eq!((applied.held, world.mirror.head()), (0, head));
    assert_eq!(held(&world), "b:title c:title d:title e:title f:title");
    let kept = "SELECT active AND title = 'x' FROM users WHERE id = 'a'";
    assert!(world.ask::<bool>(kept));
    // Shown again, it is news like any other.
    assert_eq!(
        world.sync(&IDS.map(|id| titled(id, ""))).await[0].updated,
        1
    );
    assert_eq!(world.difference(), None);
}

/// Two holds of one list: one keeps the whole of it, so that the other cannot be released alone.
#[tokio::test]
async fn what_another_hold_keeps_is_not_released() {
    let mails = |work: &str, home: &str| {
        let one = |kind: &str, mail: &str| match mail {
            "" => String::new(),
            mail => format!(r#"{{"type":"{kind}","value":"{mail}"}}"#),
        };
        let both = [one("work", work), one("home", home)].join(",");
        let both = both.trim_matches(',').to_owned();
        IDS.map(|id| with(id, &format!(r#""emails":[{both}]"#)))
    };
    let mut world = guarded(&mails("w", "h")).await;
    let none = mails("", "");
    world.sync(&none).await;
    let holds = "SELECT id || attribute || state AS x FROM holds ORDER BY id";
    assert_eq!(column(&world, holds), "1emailopen 2emailsopen");
    let head = world.mirror.head();
    let applied = approve(&mut world, 1, &none).await;
    assert_eq!((applied.updated, world.mirror.head()), (0, head));
    assert_eq!(column(&world, holds), "1emailopen 2emailsopen");
    assert_eq!(approve(&mut world, 2, &none).await.updated, 6);
    assert_eq!(world.ask::<i64>("SELECT count(email) FROM users"), 6);
    assert_eq!(approve(&mut world, 1, &none).await.updated, 6);
    assert_eq!(world.ask::<i64>("SELECT count(email) FROM users"), 0);
    assert_eq!(column(&world, holds), "1emailapproved 2emailsapproved");
    assert_eq!(world.difference(), None);
}

/// What a guard holds already is no part of the hold of another directory (contract, section 4: nobody is held twice).
#[tokio::test]
async fn another_directory_holds_nobody_a_second_time() {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    let leavers = ["a", "b", "c"].map(|id| inactive(id, "x"));
    world.sync_as(INCREMENTAL, &leavers).await;
    let mut stage = world.stage(Mode::Full);
    let directory = [
        inactive("a", "x"),
        inactive("b", "y"),
        titled("d", "x"),
        titled("e", "z"),
    ];
    world.crawl(&mut stage, &directory);
    let whole = Treatment::HeldWhole("6 of 6".to_owned());
    assert_eq!(apply_as(&mut world, stage, whole).await.held, 2);
    assert_eq!(held(&world), "a:active b:active b:all c:active e:all");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn somebody_gone_may_be_held_with_another_directory() {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    world
        .sync(
            &IDS[1..]
                .iter()
                .map(|id| titled(id, "x"))
                .collect::<Vec<_>>(),
        )
        .await;
    assert!(world.ask::<bool>("SELECT gone_at IS NOT NULL FROM users WHERE id = 'a'"));
    let mut stage = world.stage(Mode::Full);
    world.crawl(&mut stage, &[titled("a", "x")]);
    let whole = Treatment::HeldWhole("6 of 6".to_owned());
    assert_eq!(apply_as(&mut world, stage, whole).await.held, 1);
    assert_eq!(held(&world), "a:all");
    assert_eq!(world.difference(), None);
}

/// All stamps went back, and nothing else: there is nothing to undo, so nobody has to say what it is. What a hold keeps from
/// being undone is no reason either.
#[tokio::test]
async fn an_older_stamp_with_nothing_to_undo_is_no_sign_of_another_directory() {
    let at = |day: u8, title: &str| {
        IDS.map(|id| {
            user(
                id,
                &format!("2026-01-0{day}T00:00:00Z"),
                &format!(r#","title":"{title}""#),
            )
        })
    };
    let mut world = guarded(&at(3, "x")).await;
    let older = |world: &World, rows: &[Row]| {
        let mut stage = world.stage(Mode::Full);
        world.crawl(&mut stage, rows);
        let watch = Watch {
            instance: name("acme"),
            resource: ResourceType::User,
            baseline_at: Some(world.now),
            limits: world.limits.clone(),
            now: world.now,
        };
        let likeness = stage.likeness(&world.reader(), &watch, &[]);
        likeness.unwrap().older
    };
    assert_eq!(older(&world, &at(2, "x")), 0);
    assert_eq!(older(&world, &at(2, "y")), 6);
    assert_eq!(older(&world, &at(2, "")), 6);
    world.sync(&at(4, "")).await;
    assert_eq!(column(&world, "SELECT count AS x FROM holds"), "6");
    assert_eq!(older(&world, &at(2, "")), 0);
    assert_eq!(older(&world, &at(2, "y")), 6);
}

/// Between the judgement and the end another sync has applied all that differed.
#[tokio::test]
async fn another_directory_of_which_nothing_is_left_to_hold_waits_for_nobody() {
    let directory = IDS.map(|id| titled(id, "x"));
    let mut world = guarded(&directory).await;
    let mut stage = world.stage(Mode::Full);
    world.crawl(&mut stage, &directory);
    let whole = Treatment::HeldWhole("6 of 6".to_owned());
    assert_eq!(apply_as(&mut world, stage, whole).await.opened, []);
    let state = "SELECT state AS x FROM instances UNION ALL SELECT state FROM holds";
    assert_eq!(column(&world, state), "healthy");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn a_takeover_sets_the_watermark_to_its_start_unless_somebody_was_left_out() {
    let start = time("2026-02-01T00:00:00Z");
    for left_out in [false, true] {
        let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
        let whole = |world: &World| {
            let mut stage = world.stage(Mode::Full);
            world.page(&mut stage, &[titled("y", "new"), titled("z", "new")]);
            stage.take_over();
            stage
        };
        let mut stage = whole(&world);
        let (mut batch, finish) = world.ending(&stage).await;
        batch.treatment = Treatment::HeldWhole("6 of 6".to_owned());
        let now = world.now;
        let held = world.mirror.write(move |writer| {
            writer.apply(&mut stage, &batch, None, &finish)?;
            let digest: String = writer
                .conn
                .query_row("SELECT digest FROM holds", [], |row| row.get(0))?;
            writer.approve_source_change(1, &digest, now)
        });
        held.await.unwrap();

        let mut stage = whole(&world);
        if left_out {
            // It was to be asked for by itself, and the answer was unclear.
            stage.leave_out(&id("y")).unwrap();
        }
        let (mut batch, mut finish) = world.ending(&stage).await;
        batch.treatment = Treatment::TakenOver(1);
        finish.restart_at = Some(start);
        assert!(finish.watermark > finish.restart_at, "it goes back");
        let written = world
            .mirror
            .write(move |writer| writer.apply(&mut stage, &batch, None, &finish));
        assert_eq!(written.await.unwrap().created, 2 - u64::from(left_out));
        let source = world.reader().source(&name("acme"), ResourceType::User);
        // Without a watermark the next sync is a full one: nothing else would ever read `y`.
        let expected = (!left_out).then_some(start);
        assert_eq!(source.unwrap().watermark, expected);
        assert_eq!(
            world.ask::<String>("SELECT state FROM instances"),
            "healthy"
        );
        assert_eq!(world.difference(), None);
    }
}

#[tokio::test]
async fn approving_another_change_of_somebody_is_no_proof_that_he_is_gone() {
    let mut world = guarded(&IDS.map(|id| inactive(id, "x"))).await;
    world.sync(&IDS.map(|id| inactive(id, ""))).await;
    assert_eq!(world.ask::<String>("SELECT attribute FROM holds"), "title");
    let mut stage = world.stage(Mode::Incremental);
    let base = stage.base();
    stage.put_gone(base, &id("a"), &proof(world.now)).unwrap();
    let (mut batch, finish) = world.ending(&stage).await;
    batch.treatment = Treatment::Approved(1);
    let applied = world
        .mirror
        .write(move |writer| writer.apply(&mut stage, &batch, None, &finish))
        .await
        .unwrap();
    assert_eq!((applied.updated, applied.deactivated), (0, 0));
    assert!(world.ask::<bool>("SELECT max(gone_at) IS NULL FROM users"));
    // Nor does anybody ask for the title any more.
    assert_eq!(held(&world), "b:title c:title d:title e:title f:title");
    assert_eq!(world.difference(), None);
}

#[tokio::test]
async fn an_incremental_sync_under_way_writes_nothing_once_it_looks_like_another_directory() {
    let mut world = guarded(&IDS.map(|id| titled(id, "x"))).await;
    let mut stage = world.stage(Mode::Incremental);
    world.page(&mut stage, &[titled("a", "y")]);
    let (batch, finish) = world.ending(&stage).await;
    let mut whole = world.stage(Mode::Full);
    world.page(&mut whole, &[titled("z", "new")]);
    whole.take_over();
    whole.put_absent(whole.base(), &id("a")).unwrap();
    let (mut held_whole, end) = world.ending(&whole).await;
    held_whole.treatment = Treatment::HeldWhole("6 of 6".to_owned());
    let head = world.mirror.head();
    let (kept, frozen) = world
        .mirror
        .write(move |writer| {
            let kept = writer.apply(&mut whole, &held_whole, None, &end)?;
            Ok((kept, writer.apply(&mut stage, &batch, None, &finish)?))
        })
        .await
        .unwrap();
    assert_eq!(
        (kept.held, frozen.updated, world.mirror.head()),
        (2, 0, head)
    );
    assert_eq!(
        world.ask::<String>("SELECT state FROM instances"),
        "source_changed"
    );
    assert_eq!(held(&world), "a:all z:all");
    let reader = world.reader();
    let change = reader
        .source_change(&name("acme"), ResourceType::User)
        .unwrap();
    assert_eq!(change, SourceChange::Open(1));
    assert_eq!(world.difference(), None);
}

/// A full sync that has found the old directory again comes to its end after a person has approved the other one: there is
/// nothing to take over any more, and the guards are as they were.
#[tokio::test]
async fn approving_a_directory_that_is_away_again_takes_nothing_over() {
    let old = IDS.map(|id| titled(id, "x"));
    let mut world = guarded(&old).await;
    let mut stage = world.stage(Mode::Full);
    world.crawl(&mut stage, &IDS.map(|id| titled(id, "y")));
    let whole = Treatment::HeldWhole("6 of 6".to_owned());
    assert_eq!(apply_as(&mut world, stage, whole).await.held, 6);

    let mut stage = world.stage(Mode::Full);
    world.crawl(&mut stage, &old);
    let (mut batch, finish) = world.ending(&stage).await;
    batch.mends = Some(1);
    let digest: String = world.ask("SELECT digest FROM holds");
    let now = world.now;
    let written = world.mirror.write(move |writer| {
        writer.approve_source_change(1, &digest, now)?;
        writer.apply(&mut stage, &batch, None, &finish)
    });
    assert_eq!(written.await.unwrap().updated, 0);
    let change = world
        .reader()
        .source_change(&name("acme"), ResourceType::User);
    assert_eq!(change.unwrap(), SourceChange::None);
    let states =
        "SELECT state AS x FROM instances UNION ALL SELECT DISTINCT state FROM hold_changes";
    assert_eq!(column(&world, states), "healthy resolved");
    assert_eq!(world.difference(), None);
}
