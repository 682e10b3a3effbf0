//! Section A: the source lies.
//!
//! A crawl goes by key where the instance honours a filter on `id`. Cases about `startIndex` have it
//! refuse that filter.

use std::collections::BTreeSet;
use std::time::Duration;

use musterd::sandbox::{Column, RequestKind, Values};

use super::cases;
use super::course::{CASE, Case, Ends, INCOMPLETE, Meanwhile, NO_FILTER, Own};
use super::laws::Healing;
use super::matrix::Promise::P6;
use super::trial::{SETUP, Setup, Trial};
use crate::harness::text;

cases! {
    /// `refused`, and not one change record. Incremental syncs may well find nobody: that is what they
    /// find most of the time.
    1 empty_first_page_with_200 = Case {
        fault: r#"
            [[fault]]
            kind = "rows_hidden"
            share = 1.0
            on = ["list"]
        "#,
        full: Ends::Refused,
        incremental: Ends::Open,
        meanwhile: Meanwhile::Nothing,
        episodes: None,
        ..CASE
    };

    2 resources_key_missing = Case {
        fault: r#"
            [[fault]]
            kind = "resources_missing"
        "#,
        full: Ends::Partial,
        warnings: &[INCOMPLETE],
        incremental: Ends::Partial,
        meanwhile: Meanwhile::Nothing,
        ..CASE
    };

    3 search_time_limit_returns_error_object_in_200 = Case {
        fault: r#"
            [[fault]]
            kind = "error_instead"
            on = ["list"]
        "#,
        full: Ends::Fails,
        incremental: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        episodes: Some(1),
        demands: |trial| trial.fails_with("error inside"),
        ..CASE
    };

    4 html_page_with_200 = Case {
        fault: r#"
            [[fault]]
            kind = "html_page"
        "#,
        full: Ends::Fails,
        incremental: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        episodes: Some(1),
        demands: |trial| {
            assert_eq!(trial.state(), "failing");
            trial.fails_with("hibernates");
        },
        ..CASE
    };

    /// A failed page, and the same page again.
    5 json_cut_off_after_first_bytes = Case {
        fault: r#"
            [[fault]]
            kind = "broken_json"
            share = 0.1
            every = 3
        "#,
        demands: |trial| trial.retried(),
        ..CASE
    };

    6 trailing_error_object_after_valid_list = Case {
        fault: r#"
            [[fault]]
            kind = "trailing_error"
        "#,
        full: Ends::Fails,
        incremental: Ends::Fails,
        meanwhile: Meanwhile::Nothing,
        episodes: Some(1),
        ..CASE
    };

    /// 50 of 200: it reads on, finds all 200, and says that the numbers do not agree.
    7 total_results_too_small = Case {
        setup: Setup { users: 200, ..SETUP },
        fault: r#"
            [[fault]]
            kind = "total_off"
            by = -150

            [[fault]]
            kind = "filter_refused"
            attribute = "id "
            path = "*filter=id*"
        "#,
        full: Ends::Partial,
        warnings: &[INCOMPLETE],
        incremental: Ends::Open,
        meanwhile: Meanwhile::AllButTheDeleted,
        demands: |trial| trial.every_full(|certificate| certificate["distinct"] == 200),
        ..CASE
    };

    8 total_results_too_large_for_ever = Case {
        fault: r#"
            [[fault]]
            kind = "total_off"
            by = 40
        "#,
        full: Ends::Partial,
        warnings: &[NO_FILTER, INCOMPLETE],
        incremental: Ends::Open,
        meanwhile: Meanwhile::AllButTheDeleted,
        ..CASE
    };

    9 start_index_ignored = Case {
        fault: r#"
            [[fault]]
            kind = "start_index_ignored"

            [[fault]]
            kind = "filter_refused"
            attribute = "id "
            path = "*filter=id*"
        "#,
        full: Ends::Partial,
        warnings: &[INCOMPLETE],
        incremental: Ends::Open,
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            trial.stays(&trial.people.deleted);
            trial.every_full(|certificate| certificate["distinct"] == 20);
            trial.ended_within_bounds();
        },
        ..CASE
    };

    10 page_past_the_end_repeats_first_page = Case {
        fault: r#"
            [[fault]]
            kind = "first_page_again"

            [[fault]]
            kind = "filter_refused"
            attribute = "id "
            path = "*filter=id*"
        "#,
        demands: Trial::ended_within_bounds,
        ..CASE
    };

    /// Ten million users are announced, and the first page comes for ever.
    11 page_token_cycle_or_10_000_pages = Case {
        fault: r#"
            [[fault]]
            kind = "total_off"
            by = 10_000_000

            [[fault]]
            kind = "start_index_ignored"

            [[fault]]
            kind = "filter_refused"
            attribute = "id "
            path = "*filter=id*"
        "#,
        full: Ends::Partial,
        lasts: Duration::from_mins(34),
        warnings: &[NO_FILTER, INCOMPLETE],
        incremental: Ends::Open,
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            trial.stays(&trial.people.deleted);
            trial.every_full_doubts("bound_reached");
            trial.ended_within_bounds();
        },
        ..CASE
    };

    12 short_page_in_the_middle = Case {
        fault: r#"
            [[fault]]
            kind = "short_page"
            rows = 7
            path = "*startIndex=21&*"

            [[fault]]
            kind = "filter_refused"
            attribute = "id "
            path = "*filter=id*"
        "#,
        ..CASE
    };

    13 empty_page_in_the_middle = Case {
        fault: r#"
            [[fault]]
            kind = "empty_page"
            path = "*startIndex=21&*"

            [[fault]]
            kind = "filter_refused"
            attribute = "id "
            path = "*filter=id*"
        "#,
        full: Ends::Partial,
        warnings: &[INCOMPLETE],
        meanwhile: Meanwhile::AllButTheDeleted,
        demands: |trial| trial.every_full_doubts("rows_hidden"),
        ..CASE
    };

    /// First a user is neither shown nor counted: the crawl is `complete`, he is asked for by id, answers,
    /// and is kept. Then rows are left out and counted: nobody is asked for at all.
    14 one_user_dropped_from_page_but_counted = Case {
        fault: r#"
            [[fault]]
            kind = "rows_unlisted"
            ids = ["$victim"]
            until = "40m"

            [[fault]]
            kind = "row_dropped"
            path = "*count=20&*"
            after = "40m"
        "#,
        full: Ends::Open,
        incremental: Ends::Open,
        meanwhile: Meanwhile::All,
        demands: |trial| {
            let [unlisted, dropped] = &trial.syncs("full")[..] else { panic!("two full syncs") };
            assert_eq!(Trial::certificate(unlisted)["verdict"], "complete", "{}", trial.told());
            let asked = trial.asked(RequestKind::Get);
            let path = format!("/Users/{}", trial.people.victim);
            assert!(asked.iter().any(|one| one.line.ends_with(&path) && one.status == 200));
            trial.stays(&trial.people.victim);
            assert_eq!(Trial::certificate(dropped)["verdict"], "partial", "{}", trial.told());
        },
        ..CASE
    };

    15 unsorted_paging_repeats_and_skips = Case {
        fault: r#"
            [[fault]]
            kind = "sort_ignored"

            [[fault]]
            kind = "order_scrambled"
        "#,
        full: Ends::Partial,
        warnings: &[INCOMPLETE],
        incremental: Ends::Open,
        meanwhile: Meanwhile::AllButTheDeleted,
        demands: |trial| trial.every_full(|certificate| {
            certificate["distinct"].as_u64() < certificate["total_before"].as_u64()
        }),
        ..CASE
    };

    /// Somebody with the lowest of all ids joins between two pages: a row comes again, and that is all.
    16 row_inserted_before_position = Case {
        fault: r#"
            [[fault]]
            kind = "row_inserted"
            path = "*startIndex=41&*"
            times = 1

            [[fault]]
            kind = "filter_refused"
            attribute = "id "
            path = "*filter=id*"
        "#,
        full: Ends::Open,
        demands: |trial| {
            let certificate = Trial::certificate(&trial.syncs("full")[0]);
            assert!(certificate["rows"].as_u64() > certificate["distinct"].as_u64());
            assert_eq!(certificate["verdict"], "partial", "{certificate}");
        },
        ..CASE
    };

    /// Somebody with a low id is deleted between two pages, so that a page begins one row too late. Who
    /// stood there is never gone; who was deleted is, by the next full sync.
    17 row_deleted_before_position = Case {
        fault: r#"
            [[fault]]
            kind = "row_deleted"
            path = "*startIndex=41&*"
            times = 1

            [[fault]]
            kind = "filter_refused"
            attribute = "id "
            path = "*filter=id*"
        "#,
        full: Ends::Open,
        demands: |trial| {
            let certificate = Trial::certificate(&trial.syncs("full")[0]);
            assert_eq!(certificate["verdict"], "partial", "{certificate}");
            assert!(certificate["distinct"].as_u64() < certificate["total_before"].as_u64());
        },
        ..CASE
    };

    /// Each condition is dropped, and each row comes. The first incremental sync sees that, and from then
    /// on they are full ones.
    18 filter_ignored_in_silence = Case {
        fault: r#"
            [[fault]]
            kind = "filter_ignored"
            path = "*filter=*"
        "#,
        incremental: Ends::Refused,
        warnings: &[NO_FILTER],
        episodes: None,
        demands: |trial| {
            assert_eq!(trial.capability("modified_filter"), "ignored");
            assert_eq!(trial.syncs("incremental").len(), 1, "{}", trial.told());
            assert!(trial.syncs("full").len() > 10, "instead of them");
        },
        ..CASE
    };

    19 filter_answers_nobody_for_ever = Case {
        fault: r#"
            [[fault]]
            kind = "filter_finds_nobody"
            path = "*filter=*"
        "#,
        incremental: Ends::Open,
        warnings: &[NO_FILTER],
        demands: |trial| {
            assert_ne!(trial.capability("id_after"), "obeyed", "{}", trial.told());
            assert_ne!(trial.capability("modified_filter"), "obeyed", "{}", trial.told());
        },
        ..CASE
    };

    /// Rows come that are older than what was asked for: nothing of that answer is believed.
    20 filter_reversed_or_wrong_operator = Case {
        fault: r#"
            [[fault]]
            kind = "filter_reversed"
            attribute = "meta.lastModified"
            path = "*filter=meta*"
        "#,
        incremental: Ends::Refused,
        warnings: &[NO_FILTER],
        episodes: None,
        demands: |trial| assert_ne!(trial.capability("modified_filter"), "obeyed"),
        ..CASE
    };

    /// One `blanking` hold with everybody who has a title; every other change goes through.
    21 attribute_lost_for_everybody = Case {
        fault: r#"
            [[fault]]
            kind = "attribute_hidden"
            attribute = "title"
        "#,
        edits: |trial| trial.blanks_below_the_guard("title"),
        holds: &[("blanking", Some("title"))],
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let people = &trial.people;
            trial.went(&people.inactive, "inactive");
            trial.went(&people.deleted, "gone");
            assert_eq!(trial.column(&people.emptied, "mobile_phone"), None);
            assert!(trial.column(&people.hired, "user_name").is_some());
            let mut blanked = trial.blanked("title");
            // Who came without a title has none to lose.
            blanked.insert(people.hired.clone());
            trial.holds_exactly(&trial.whose(|user| {
                !user.get(Column::Title).is_empty() && !blanked.contains(&*user.sys_id)
            }));
        },
        ..CASE
    };

    /// A third of fifty: too few to look like another directory. They answer 404, and others answer 200,
    /// but they are too many: all of them are held, with the one who was really deleted, until a person
    /// has looked. Meanwhile people join.
    22 rows_lost_for_a_third = Case {
        setup: Setup { users: 50, ..SETUP },
        fault: r#"
            [[fault]]
            kind = "users_hidden"
            ids = [$third]
        "#,
        holds: &[("deactivations", None)],
        incremental: Ends::Open,
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let mut held: BTreeSet<String> = trial.people.third.iter().cloned().collect();
            held.insert(trial.people.deleted.clone());
            held.retain(|id| trial.left.borrow().contains(id) || trial.row(id).active);
            assert!((10..=20).contains(&held.len()), "{held:?}");
            trial.holds_exactly(&held);
            assert_eq!(trial.records_of(&trial.people.hired), ["create new"]);
        },
        healing: Healing::BY_APPROVAL,
        ..CASE
    };

    /// Whoever is inactive is not shown any more. He is `gone`, his last state is kept, no guard counts
    /// him; and when he is shown again he has returned.
    23 inactive_users_hidden = Case {
        fault: r#"
            [[fault]]
            kind = "inactive_hidden"
        "#,
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let hidden = trial.whose(|user| !user.active);
            assert!(hidden.len() > 6, "more than the guard lets through");
            for id in hidden {
                assert!(trial.column(&id, "gone_at").is_some(), "{id}");
                assert_eq!(trial.column(&id, "active").as_deref(), Some("0"));
                assert!(trial.column(&id, "display_name").is_some());
            }
            assert_eq!(trial.records_of(&trial.people.inactive), ["deactivate gone"]);
            trial.went(&trial.people.deleted, "gone");
        },
        healing: Healing { inactive: "returned", ..Healing::BY_ITSELF },
        ..CASE
    };

    /// The plugin is off by the time in which people are asked for by id: nobody answers, so that no 404
    /// proves anything.
    24 canary_404_too = Case {
        fault: r#"
            [[fault]]
            kind = "plugin_inactive"
            status = 404
            on = ["get"]
        "#,
        meanwhile: Meanwhile::AllButTheDeleted,
        warnings: &["users were not shown"],
        ..CASE
    };

    25 get_by_id_returns_another_user = Case {
        fault: r#"
            [[fault]]
            kind = "another_user"
            path = "*/Users/$deleted"
        "#,
        meanwhile: Meanwhile::AllButTheDeleted,
        warnings: &["users were not shown"],
        ..CASE
    };

    26 get_by_id_404_as_html_from_proxy = Case {
        fault: r#"
            [[fault]]
            kind = "edge_error"
            status = 404
            path = "*/Users/$deleted"
        "#,
        meanwhile: Meanwhile::AllButTheDeleted,
        warnings: &["users were not shown"],
        ..CASE
    };

    /// The account was moved, and sees next to nobody of those whom it saw.
    27 scope_change_matches_nobody = Case {
        fault: r#"
            [[fault]]
            kind = "rows_hidden"
            share = 0.95
        "#,
        incremental: Ends::Open,
        holds: &[("source_changed", None)],
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            assert_eq!(trial.state(), "source_changed");
            for one in [&trial.people.deleted, &trial.people.victim] {
                trial.stays(one);
            }
            trial.no_record_since_the_hold();
            assert!(trial.syncs("incremental").len() <= 5, "they wait for a person");
        },
        ..CASE
    };

    /// Another instance's backup was laid over this one. Not one record, and the mirror serves what it
    /// had; a person says that it is so, and the next full sync takes all of it over.
    28 instance_replaced_by_clone = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        trial.fault(r#"
            [[fault]]
            kind = "cloned"
            seed = 77
            times = 1
        "#);
        trial.pass(Duration::from_mins(60)).await;
        trial.opened(&[("source_changed", None)]);
        assert_eq!(trial.state(), "source_changed");
        assert_eq!(trial.seq(), trial.seq_before, "{}", trial.told());
        let served: i64 = trial.one("SELECT count(*) FROM active_users WHERE instance = 'acme'");
        assert!(served > 100, "the mirror serves what it had");
        trial.lift();

        let before: BTreeSet<String> = trial.known_active();
        trial.left.borrow_mut().extend(before);
        trial.approve_the_hold().await;
        trial.pass(Duration::from_mins(38)).await;
        trial.equals_the_directory();
        let reasons = trial.list(&format!(
            "SELECT DISTINCT reason FROM changes WHERE instance = 'acme' AND seq > {}",
            trial.seq_before
        ));
        assert_eq!(reasons, ["source_changed"]);
        trial.is_well();
        trial.ends().await;
    });

    /// The instance was set back by a day's work: everybody's stamp is older than the one that the mirror
    /// has. One alarm; after a person has approved, content decides, and the watermark starts from there.
    29 time_goes_backwards_after_restore = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        let day = trial.whose(|user| user.active);
        for id in &day {
            trial.sandbox().update(id, &Values::new().with(Column::City, "Oslo"));
        }
        trial.edit();
        trial.pass(Duration::from_mins(30)).await;
        let ahead = trial.watermark();
        trial.fault(r#"
            [[fault]]
            kind = "rolled_back"
            seconds = 2000
            times = 1
        "#);
        trial.pass(Duration::from_mins(64)).await;
        trial.opened(&[("source_changed", None)]);
        assert_eq!(trial.n_lines("ERROR", ""), 1, "one alarm");
        assert_eq!(trial.seq(), trial.seq_before);
        trial.lift();
        trial.approve_the_hold().await;
        let hired = trial.people.hired.clone();
        trial.left.borrow_mut().insert(hired);
        trial.pass(Duration::from_mins(38)).await;
        trial.equals_the_directory();
        assert_eq!(trial.column(&trial.people.inactive, "active").as_deref(), Some("1"));
        assert!(trial.watermark() > ahead, "that crawl's start is later than all that was");
        trial.is_well();
        trial.keeps(P6);
        trial.ends().await;
    });

    /// Every second answer comes from a node that is an hour behind.
    30 totals_flap_between_nodes = Case {
        fault: r#"
            [[fault]]
            kind = "node_behind"
            seconds = 3600
            every = 2
            on = ["list"]
        "#,
        edits: |trial| {
            for n in 0..3 {
                trial.hire(&format!("hired.{n}"));
            }
        },
        full: Ends::Open,
        incremental: Ends::Open,
        warnings: &[NO_FILTER, INCOMPLETE],
        meanwhile: Meanwhile::Open,
        demands: |trial| {
            let first = &trial.syncs("full")[0];
            assert_eq!(Trial::certificate(first)["verdict"], "partial", "{}", trial.told());
        },
        ..CASE
    };

    /// Everybody is inactive, and somebody joined: one hold with everybody who was active, and the one who
    /// joined is in the mirror.
    31 everybody_inactive_in_one_sync = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        let everybody = trial.known_active();
        trial.fault(r#"
            [[fault]]
            kind = "everybody_inactive"
            times = 1
        "#);
        trial.people.hired = trial.hire("hired.anew");
        trial.pass(Duration::from_mins(64)).await;
        trial.opened(&[("deactivations", None)]);
        trial.holds_exactly(&everybody);
        assert_eq!(trial.records_of(&trial.people.hired), ["create new"]);
        let together: bool = trial.one(
            "SELECT holds.sync_id = changes.sync_id FROM holds, changes WHERE reason = 'new'",
        );
        assert!(together, "he came with the sync that opened the hold");
        trial.keeps_the_laws();
        trial.lift();

        // A reorganisation was rolled out by mistake: it is set right at the source, and resolves itself.
        for id in &everybody {
            trial.sandbox().update(id, &Values::new().active(true));
        }
        trial.pass(Duration::from_mins(38)).await;
        trial.equals_the_directory();
        let hold: String = trial.one("SELECT state FROM holds");
        assert_eq!(hold, "resolved");
        trial.is_well();
        trial.ends().await;
    });

    /// The control of all others: nothing is wrong, and exactly the real leavers go.
    32 genuine_leavers_below_the_guard = Case {
        fault: r#"
            [[fault]]
            kind = "users_deleted"
            ids = ["$victim"]
            times = 1
        "#,
        demands: |trial| {
            trial.went(&trial.people.victim, "gone");
            let went = trial.list(&format!(
                "SELECT id FROM changes WHERE kind = 'deactivate' AND seq > {} ORDER BY id",
                trial.seq_before
            ));
            let people = &trial.people;
            let expected = BTreeSet::from([&people.inactive, &people.deleted, &people.victim]);
            assert!(went.iter().eq(expected), "{went:?}");
        },
        ..CASE
    };

    /// Sixteen leave in a day, and are held; a person approves exactly those. One more leaves afterwards,
    /// who was not shown to that person: he goes by himself, because what was approved does not count.
    33 mass_leaver_day_approved_by_digest = Own(SETUP, async |trial: &mut Trial| {
        trial.baseline().await;
        let active: Vec<String> = trial.known_active().into_iter().collect();
        let (first, second) = (&active[..8], &active[8..16]);
        for id in first {
            trial.leaves(id);
        }
        trial.fault(&format!("
            [[fault]]
            kind = \"users_deleted\"
            ids = {second:?}
            times = 1
        "));
        trial.left.borrow_mut().extend(second.iter().cloned());
        trial.pass(Duration::from_mins(64)).await;
        trial.opened(&[("deactivations", None), ("deactivations", None)]);
        let held: BTreeSet<String> = active[..16].iter().cloned().collect();
        let shown: BTreeSet<String> =
            trial.list("SELECT id FROM users_held WHERE instance = 'acme'").into_iter().collect();
        assert_eq!(shown, held);
        trial.lift();

        // Another digest than that of the hold changes nothing.
        let holds = trial.rows("SELECT id, digest FROM holds WHERE state = 'open' ORDER BY id");
        let of = |place: usize, column| text(&holds[place], column).unwrap();
        trial.is_refused(of(0, "id").parse().unwrap(), &of(1, "digest")).await;

        let more = active[16].clone();
        trial.leaves(&more);
        for place in 0..2 {
            let hold_id = of(place, "id").parse().unwrap();
            trial.approves(hold_id, &of(place, "digest")).await;
            let released = trial.list(&format!(
                "SELECT id FROM changes WHERE hold_id = {hold_id} AND kind = 'deactivate' ORDER BY id"
            ));
            assert_eq!(released, active[8 * place..8 * place + 8], "{}", trial.told());
        }
        trial.is_refused(of(0, "id").parse().unwrap(), &of(0, "digest")).await;
        assert_eq!(trial.column(&more, "active").as_deref(), Some("1"), "he was in no hold");
        trial.pass(Duration::from_mins(6)).await;
        trial.went(&more, "inactive");
        trial.pass(Duration::from_mins(32)).await;
        trial.equals_the_directory();
        trial.is_well();
        trial.ends().await;
    });
}
