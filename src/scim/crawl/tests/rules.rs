//! What a crawl does on each kind of instance.

use std::collections::BTreeSet;

use super::super::fake::{Filters, Sorted, Totals, row};
use super::*;
use crate::model::{Base, Doubt, Paging, Verdict};
use crate::scim::client::Listing;

#[test]
fn an_instance_that_honours_keys_is_read_by_key() {
    let mut bench = Bench::new(Fake::of_size(25));
    let outcome = bench.full(honest());
    assert_eq!(
        outcome.certificate.verdict,
        Verdict::Complete,
        "{outcome:?}"
    );
    assert_eq!(outcome.certificate.paging, Paging::Key);
    assert_eq!(outcome.ids, bench.fake.ids());
    let asked: Vec<_> = bench
        .fake
        .asked
        .iter()
        .map(|q| (q.filter.clone(), q.start_index, q.count))
        .collect();
    let ids: Vec<String> = bench.fake.ids().into_iter().collect();
    let after = |n: usize| Some(format!("id gt \"{}\"", ids[n - 1]));
    let expected = [
        (None, 1, 1),
        (None, 1, 10),
        (after(10), 1, 10),
        (after(20), 1, 10),
        (after(25), 1, 10),
        (None, 1, 1),
    ];
    assert_eq!(asked, expected);
}

#[test]
fn a_large_one_is_read_in_sixteen_ranges() {
    let mut bench = Bench::new(Fake::of_size(1000));
    bench.concurrency = 4;
    let outcome = bench.full(honest());
    assert_eq!(
        outcome.certificate.verdict,
        Verdict::Complete,
        "{:?}",
        outcome.certificate
    );
    assert_eq!(outcome.ids, bench.fake.ids());
    let mut filters = bench.fake.asked.iter().filter_map(|q| q.filter.as_deref());
    assert!(filters.clone().any(|f| f == r#"id lt "1""#));
    assert!(filters.clone().any(|f| f == r#"id ge "9" and id lt "a""#));
    assert!(filters.any(|f| f == r#"id ge "f""#));
}

#[test]
fn any_other_is_read_by_index() {
    let mut bench = Bench::new(Fake::of_size(25));
    let outcome = bench.full(Capabilities::default());
    assert_eq!(
        outcome.certificate.verdict,
        Verdict::Complete,
        "{outcome:?}"
    );
    assert_eq!(outcome.certificate.paging, Paging::Index);
    assert_eq!(outcome.ids, bench.fake.ids());
    let asked: Vec<_> = bench
        .fake
        .asked
        .iter()
        .map(|q| (q.start_index, q.count))
        .collect();
    assert_eq!(asked, [(1, 1), (1, 10), (11, 10), (21, 10), (1, 1)]);
}

#[test]
fn nobody_at_all_is_never_believed() {
    let outcome = Bench::new(Fake::of_size(0)).full(honest());
    assert_eq!(outcome.certificate.verdict, Verdict::Refused);
    assert_eq!(outcome.certificate.reasons, [Doubt::Empty]);
}

#[test]
fn an_incremental_that_fits_one_page_is_one_request() {
    for capabilities in [honest(), Capabilities::default()] {
        for since in [1020, 90_000] {
            let mut bench = Bench::new(Fake::of_size(25));
            let outcome = bench.since(since, capabilities.clone());
            assert_eq!(
                outcome.certificate.verdict,
                Verdict::Complete,
                "{outcome:?}"
            );
            assert_eq!(bench.fake.asked.len(), 1);
            assert_eq!(outcome.ids.len(), if since == 1020 { 5 } else { 0 });
            assert_eq!(outcome.certificate.first_date, Some(time(bench.fake.now)));
        }
    }
}

#[test]
fn a_longer_incremental_goes_by_key_under_the_same_filter() {
    let mut bench = Bench::new(Fake::of_size(60));
    let outcome = bench.since(1015, honest());
    assert_eq!(
        outcome.certificate.verdict,
        Verdict::Complete,
        "{outcome:?}"
    );
    assert_eq!(outcome.ids.len(), 45);
    assert_eq!(outcome.certificate.newest_modified_at, Some(time(1059)));
    assert!(
        bench.fake.asked.iter().skip(1).all(|q| q
            .filter
            .as_deref()
            .unwrap()
            .contains(" and id gt "))
    );
}

#[test]
fn an_incremental_that_is_cut_off_by_its_second_condition_is_not_complete() {
    let mut bench = Bench::new(Fake::of_size(60));
    bench.fake.filters = Filters::IdNobody;
    let outcome = bench.since(1015, honest());
    assert_eq!(outcome.certificate.verdict, Verdict::Partial, "{outcome:?}");
    assert!(!outcome.certificate.read_every_row());
}

#[test]
fn an_incremental_whose_filter_is_not_honoured_is_refused() {
    for (filters, obeyed) in [
        (Filters::Ignored, Obeyed::Ignored),
        (Filters::Reversed, Obeyed::Ignored),
    ] {
        let mut bench = Bench::new(Fake::of_size(60));
        bench.fake.filters = filters;
        let outcome = bench.since(1030, honest());
        assert_eq!(outcome.certificate.verdict, Verdict::Refused, "{outcome:?}");
        assert_eq!(outcome.certificate.reasons, [Doubt::FilterIgnored]);
        assert_eq!(outcome.capabilities.modified_filter, obeyed);
        assert!(outcome.ids.is_empty());
        assert_eq!(bench.fake.asked.len(), 1);
    }
}

#[test]
fn one_row_without_a_stamp_does_not_spoil_an_incremental() {
    let course = |stamps: &[Option<i64>]| {
        let start = CrawlPosition::start(Some(time(0)), honest());
        let mut course = Course::new(ResourceType::User, 10, 1, start);
        let ask = course.ask().unwrap();
        let rows = (0..)
            .zip(stamps)
            .map(|(i, at)| row(&format!("a{i}"), *at))
            .collect::<Vec<_>>();
        let listing = Listing {
            total: rows.len() as u64,
            rows,
            rejects: vec![],
            date: None,
        };
        course.answer(&ask, Base::default(), Ok(listing));
        course.hand_out().unwrap();
        course.is_refused()
    };
    assert!(!course(&[Some(5), None]));
    assert!(course(&[None, None]));
    assert!(course(&[Some(5), Some(-1)]));
}

#[test]
fn an_unknown_order_is_read_by_index_at_once_and_ever_after() {
    let ids: Vec<String> = (1..=25).map(|n| n.to_string()).collect();
    let mut bench = Bench::new(Fake::new(ids.iter().map(String::as_str)));
    bench.fake.sorted = Sorted::Numbers;
    let outcome = bench.full(honest());
    assert_eq!(
        outcome.certificate.verdict,
        Verdict::Complete,
        "{outcome:?}"
    );
    assert_eq!(outcome.certificate.paging, Paging::Index);
    assert!(outcome.capabilities.order_unknown);
    assert_eq!(outcome.ids, bench.fake.ids());
}

#[test]
fn case_twins_are_both_seen_and_turn_the_crawl_to_index() {
    let mut bench = Bench::new(Fake::new(["Ab", "aB", "b", "c"]));
    bench.fake.sorted = Sorted::Lower;
    let outcome = bench.full(honest());
    assert_eq!(
        outcome.certificate.verdict,
        Verdict::Complete,
        "{outcome:?}"
    );
    assert!(outcome.capabilities.ids_differ_in_case);
    assert_eq!(outcome.ids.len(), 4);
}

#[test]
fn a_twin_that_gt_skips_is_missed_once_and_found_by_index() {
    let mut ids: Vec<String> = (0..9).map(|n| format!("a{n}")).collect();
    ids.extend(["b1x".to_owned(), "b1X".to_owned(), "c".to_owned()]);
    let mut bench = Bench::new(Fake::new(ids.iter().map(String::as_str)));
    bench.fake.sorted = Sorted::Lower;
    let outcome = bench.full(honest());
    assert_eq!(outcome.certificate.verdict, Verdict::Partial, "{outcome:?}");
    assert!(outcome.capabilities.order_unknown);
    let outcome = bench.full(outcome.capabilities);
    assert_eq!(
        outcome.certificate.verdict,
        Verdict::Complete,
        "{outcome:?}"
    );
    assert_eq!(outcome.ids, bench.fake.ids());
}

#[test]
fn a_filter_on_ids_that_is_not_honoured_is_never_complete_and_everybody_is_read() {
    for filters in [
        Filters::Ignored,
        Filters::IdIgnored,
        Filters::OneSided,
        Filters::IdRefused,
    ] {
        for n in [60, 400] {
            let mut bench = Bench::new(Fake::of_size(n));
            bench.concurrency = 3;
            bench.fake.filters = filters;
            let outcome = bench.full(honest());
            assert_eq!(outcome.ids, bench.fake.ids(), "{filters:?}");
            if outcome.certificate.paging == Paging::Index {
                assert_ne!(outcome.capabilities, honest());
            } else {
                assert_eq!((filters, n), (Filters::OneSided, 60));
            }
            let again = bench.full(outcome.capabilities);
            let again = bench.full(again.capabilities);
            assert_eq!(
                again.certificate.verdict,
                Verdict::Complete,
                "{filters:?} {again:?}"
            );
        }
    }
}

#[test]
fn a_filter_that_gives_nobody_is_partial() {
    for filters in [Filters::Nobody, Filters::IdNobody, Filters::Reversed] {
        let mut bench = Bench::new(Fake::of_size(60));
        bench.fake.filters = filters;
        let outcome = bench.full(honest());
        assert_ne!(
            outcome.certificate.verdict,
            Verdict::Complete,
            "{outcome:?}"
        );
    }
}

#[test]
fn too_small_a_total_does_not_end_a_crawl_by_index() {
    for (total, cap) in [(-150, None), (-197, None), (-150, Some(3))] {
        let mut bench = Bench::new(Fake::of_size(200));
        bench.fake.totals = Totals::Off(total);
        bench.fake.cap = cap;
        let outcome = bench.full(Capabilities::default());
        assert_eq!(outcome.ids, bench.fake.ids());
        assert_eq!(outcome.certificate.verdict, Verdict::Partial);
    }
}

#[test]
fn a_silent_cap_changes_nothing_but_the_number_of_requests() {
    for capabilities in [honest(), Capabilities::default()] {
        for cap in 1..=5 {
            let mut bench = Bench::new(Fake::of_size(60));
            bench.concurrency = 2;
            bench.fake.cap = Some(cap);
            let outcome = bench.full(capabilities.clone());
            assert_eq!(
                outcome.certificate.verdict,
                Verdict::Complete,
                "{outcome:?}"
            );
            assert_eq!(outcome.ids, bench.fake.ids());
        }
    }
}

#[test]
fn a_total_beyond_all_bounds_hides_nobody() {
    for capabilities in [honest(), Capabilities::default()] {
        let mut bench = Bench::new(Fake::of_size(60));
        bench.concurrency = 2;
        bench.fake.totals = Totals::Huge;
        let outcome = bench.full(capabilities);
        assert_eq!(outcome.ids, bench.fake.ids());
        assert_eq!(outcome.certificate.verdict, Verdict::Partial);
        assert!(outcome.certificate.reasons.contains(&Doubt::BoundReached));
        assert!(bench.fake.asked.len() < 200, "{}", bench.fake.asked.len());
    }
}

#[test]
fn hidden_rows_are_stepped_over_and_make_it_partial() {
    for capabilities in [honest(), Capabilities::default()] {
        let mut bench = Bench::new(Fake::of_size(120));
        let ids: Vec<String> = bench.fake.ids().into_iter().collect();
        bench.fake.hidden = ids[20..75].iter().cloned().collect();
        let outcome = bench.full(capabilities);
        let shown: BTreeSet<String> = &bench.fake.ids() - &bench.fake.hidden;
        assert_eq!(outcome.ids, shown);
        assert_eq!(outcome.certificate.verdict, Verdict::Partial);
        assert!(
            outcome.certificate.reasons.contains(&Doubt::RowsHidden),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_record_that_spoils_its_page_costs_only_itself() {
    for capabilities in [honest(), Capabilities::default()] {
        for k in 0..25 {
            for id_is_known in [true, false] {
                let mut bench = Bench::new(Fake::of_size(25));
                bench.concurrency = 2;
                let poisoned = bench.fake.ids().into_iter().nth(k).unwrap();
                bench.fake.poisoned.insert(poisoned.clone(), id_is_known);
                let outcome = bench.full(capabilities.clone());
                let mut expected = bench.fake.ids();
                let verdict = if id_is_known {
                    Verdict::Complete
                } else {
                    expected.remove(&poisoned);
                    assert!(
                        outcome.certificate.read_every_row(),
                        "{k} {:?}",
                        outcome.certificate
                    );
                    Verdict::Partial
                };
                assert_eq!(outcome.ids, expected, "{k}");
                assert_eq!(
                    outcome.certificate.verdict, verdict,
                    "{k} {:?}",
                    outcome.certificate
                );
                assert_eq!(outcome.rejects, 1, "{k}");
            }
        }
    }
}

#[test]
fn an_instance_of_which_nothing_can_be_read_is_an_error() {
    let mut bench = Bench::new(Fake::of_size(300));
    bench.fake.poisoned = bench
        .fake
        .ids()
        .into_iter()
        .skip(5)
        .map(|id| (id, false))
        .collect();
    for capabilities in [honest(), Capabilities::default()] {
        let start = CrawlPosition::start(None, capabilities);
        assert!(
            bench
                .run(start, BTreeSet::new())
                .unwrap_err()
                .is_unreadable()
        );
    }
}

#[test]
fn slow_pages_are_asked_for_in_smaller_ones() {
    for capabilities in [honest(), Capabilities::default()] {
        let mut bench = Bench::new(Fake::of_size(60));
        bench.fake.too_slow_above = Some(3);
        let outcome = bench.full(capabilities);
        assert_eq!(
            outcome.certificate.verdict,
            Verdict::Complete,
            "{outcome:?}"
        );
        bench.fake.too_slow_above = Some(0);
        let start = CrawlPosition::start(Some(time(0)), honest());
        assert!(bench.run(start, BTreeSet::new()).unwrap_err().is_timeout());
    }
}

#[test]
fn the_same_row_twice_in_a_page_is_one() {
    let mut bench = Bench::new(Fake::of_size(25));
    bench.fake.stutters = true;
    let outcome = bench.full(honest());
    assert_eq!(
        outcome.certificate.verdict,
        Verdict::Complete,
        "{outcome:?}"
    );
    assert_eq!(outcome.certificate.paging, Paging::Key);
    assert_eq!(outcome.ids, bench.fake.ids());
    // By index nobody can tell how many rows of the list such a page stands for.
    let outcome = bench.full(Capabilities::default());
    assert_eq!(outcome.certificate.verdict, Verdict::Partial, "{outcome:?}");
}

#[test]
fn an_instance_that_never_ends_is_left_at_a_bound() {
    for (capabilities, total) in [
        (honest(), 30),
        (Capabilities::default(), 30),
        (Capabilities::default(), u64::MAX),
    ] {
        let mut course = Course::new(
            ResourceType::User,
            10,
            2,
            CrawlPosition::start(None, capabilities),
        );
        course.open(total, None);
        let mut people = 0_u64..;
        let mut n_pages = 0;
        while !course.is_over() {
            let asks: Vec<Ask> = std::iter::from_fn(|| course.ask()).collect();
            for ask in asks {
                let rows = (people.by_ref().take(10))
                    .map(|n| row(&format!("{n:09}"), None))
                    .collect();
                let listing = Listing {
                    total,
                    rows,
                    rejects: vec![],
                    date: None,
                };
                course.answer(&ask, Base::default(), Ok(listing));
            }
            while course.hand_out().unwrap().is_some() {
                course.report(10);
                n_pages += 1;
                assert!(n_pages < 5_000_000, "does not end");
            }
        }
        assert!(course.conclude().seen.doubts.contains(&Doubt::BoundReached));
    }
}

#[test]
fn a_delete_and_an_insert_that_keep_the_total_do_not_hide_the_skipped_row() {
    let mut bench = Bench::new(Fake::of_size(40));
    bench.churn = Box::new(|fake, n| {
        if n == 2 {
            fake.people.sort();
            fake.people.remove(0);
            fake.now += 1;
            fake.people.push(("zz".to_owned(), Some(fake.now)));
        }
    });
    let outcome = bench.full(Capabilities::default());
    // The one who came makes up for the one who was skipped.
    assert_eq!(outcome.ids.len(), 40);
    assert_eq!(outcome.certificate.reasons, [Doubt::Shifted]);
}

#[test]
fn a_position_that_no_crawl_can_have_is_refused() {
    let mut bench = Bench::new(Fake::of_size(300));
    bench.concurrency = 2;
    bench.keeps_positions = true;
    for capabilities in [honest(), Capabilities::default()] {
        let outcome = bench.full(capabilities);
        let (position, _) = &outcome.positions[3];
        let text = position.to_text();
        assert_eq!(&CrawlPosition::parse(&text).unwrap(), position);
        assert!(CrawlPosition::parse(&text[1..]).is_err());
        assert!(
            CrawlPosition::parse(&text.replace("\"next\":31", "\"next\":0")).is_err()
                || text.contains("ranges")
        );
        let broken = text.replacen("\"from\":\"1\"", "\"from\":\"2\"", 1);
        assert!(broken == text || CrawlPosition::parse(&broken).is_err());
        let broken = text.replacen("\"now\":10", "\"now\":0", 1);
        assert!(CrawlPosition::parse(&broken).is_err());
    }
    assert!(CrawlPosition::parse("{}").is_err());
}
