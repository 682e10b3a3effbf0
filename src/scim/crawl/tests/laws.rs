//! What holds whatever the instance does.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::fake::{Filters, Sorted, Totals};
use super::*;
use crate::model::Verdict;

#[derive(Clone, Debug)]
struct Case {
    ids: BTreeSet<String>,
    page_size: u32,
    concurrency: usize,
    by_key: bool,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    (
        prop::collection::btree_set("[0-9a-fA-F]{2,3}|[a-c_X]{1,2}", 1..60),
        2_u32..8,
        1_usize..=4,
        any::<bool>(),
        any::<u64>(),
    )
        .prop_map(|(ids, page_size, concurrency, by_key, seed)| Case {
            ids,
            page_size,
            concurrency,
            by_key,
            seed,
        })
}

impl Case {
    fn bench(&self) -> Bench {
        let mut bench = Bench::new(Fake::new(self.ids.iter().map(String::as_str)));
        bench.page_size = self.page_size;
        bench.concurrency = self.concurrency;
        bench.rng = fastrand::Rng::with_seed(self.seed);
        bench.fake.rng = fastrand::Rng::with_seed(self.seed);
        bench
    }

    /// Without case twins: those cost a crawl by key its certificate, once.
    fn without_twins(mut self) -> Self {
        let mut folded = BTreeSet::new();
        self.ids.retain(|id| folded.insert(id.to_ascii_lowercase()));
        self
    }

    fn capabilities(&self) -> Capabilities {
        if self.by_key {
            honest()
        } else {
            Capabilities::default()
        }
    }
}

#[derive(Clone, Debug)]
struct Switches {
    sorted: Sorted,
    totals: Totals,
    filters: Filters,
    cap: Option<usize>,
    ignores_start: bool,
    repeats_first: bool,
    hidden: u8,
    poisoned: u8,
    stutters: bool,
    churn: u8,
}

fn switches() -> impl Strategy<Value = Switches> {
    let mostly = |p: f64| prop::bool::weighted(p);
    let sorted = prop_oneof![
        6 => Just(Sorted::Bytes), 2 => Just(Sorted::Lower), 2 => Just(Sorted::Upper),
        1 => Just(Sorted::Numbers), 1 => Just(Sorted::Not), 1 => Just(Sorted::Scrambled),
    ];
    let totals = prop_oneof![
        6 => Just(Totals::Right), 1 => (-70_i64..70).prop_map(Totals::Off), 1 => Just(Totals::Flapping),
        1 => Just(Totals::OfThePage), 1 => Just(Totals::Huge),
    ];
    let filters = prop_oneof![
        6 => Just(Filters::Honoured), 1 => Just(Filters::Ignored), 1 => Just(Filters::OneSided),
        1 => Just(Filters::IdIgnored), 1 => Just(Filters::IdNobody), 1 => Just(Filters::Reversed), 1 => Just(Filters::Nobody),
        1 => Just(Filters::IdRefused),
    ];
    (
        (sorted, totals, filters),
        prop::option::weighted(0.3, 1_usize..6),
        mostly(0.1),
        mostly(0.2),
        prop_oneof![3 => Just(0), 1 => 0_u8..60],
        prop_oneof![3 => Just(0), 1 => 0_u8..5],
        mostly(0.1),
        prop_oneof![1 => Just(0), 1 => 1_u8..100],
    )
        .prop_map(
            |(
                (sorted, totals, filters),
                cap,
                ignores_start,
                repeats_first,
                hidden,
                poisoned,
                stutters,
                churn,
            )| Switches {
                sorted,
                totals,
                filters,
                cap,
                ignores_start,
                repeats_first,
                hidden,
                poisoned,
                stutters,
                churn,
            },
        )
}

/// Somebody leaves, comes, or both at once, so that no total tells.
fn churn(percent: u8, seed: u64) -> Churn {
    let mut rng = fastrand::Rng::with_seed(seed ^ 0xc0ffee);
    Box::new(move |fake, n| {
        // Some day nobody is hired any more, and by then a crawl has to end.
        if n > 1_000 || rng.u8(0..100) >= percent {
            return;
        }
        let what = rng.u8(0..4);
        if what != 0 && fake.people.len() > 1 {
            let leaver = rng.usize(0..fake.people.len());
            fake.people.remove(leaver);
        }
        if what != 1 {
            let place = rng.usize(0..=fake.people.len());
            let id = format!("{:x}n{n}", rng.u8(..));
            if !fake.people.iter().any(|(known, _)| *known == id) {
                fake.now += 1;
                fake.people.insert(place, (id, Some(fake.now)));
            }
        }
    })
}

proptest! {
    #[test]
    fn a_directory_that_behaves_is_read_exactly(case in cases()) {
        let case = case.without_twins();
        let mut bench = case.bench();
        let outcome = bench.full(case.capabilities());
        prop_assert_eq!(outcome.certificate.verdict, Verdict::Complete, "{:?}", outcome.certificate);
        prop_assert_eq!(&outcome.ids, &case.ids);
        prop_assert_eq!(outcome.certificate.rejects, 0);
    }

    #[test]
    fn an_incremental_reads_exactly_what_was_modified_since(
        case in cases(), since in 995_i64..1070, cap in prop::option::of(1_usize..6),
    ) {
        let case = case.without_twins();
        let mut bench = case.bench();
        bench.fake.cap = cap;
        let outcome = bench.since(since, case.capabilities());
        let modified = (bench.fake.people.iter()).filter(|(_, at)| *at >= Some(since));
        let modified: BTreeSet<String> = modified.map(|(id, _)| id.clone()).collect();
        prop_assert_eq!(outcome.certificate.verdict, Verdict::Complete, "{:?}", outcome.certificate);
        prop_assert_eq!(&outcome.ids, &modified);
        prop_assert!(modified.len() >= case.page_size as usize || cap.is_some() || bench.fake.asked.len() == 1);
    }

    #[test]
    fn a_crawl_that_was_interrupted_at_any_page_sees_the_same(case in cases(), at in any::<prop::sample::Index>()) {
        let case = case.without_twins();
        let mut bench = case.bench();
        bench.keeps_positions = true;
        let whole = bench.full(case.capabilities());
        let (position, seen) = at.get(&whole.positions);
        let position = CrawlPosition::parse(&position.to_text()).unwrap();
        let outcome = bench.run(position, seen.clone()).unwrap();
        prop_assert_eq!(outcome.certificate.verdict, Verdict::Complete, "{:?}", outcome.certificate);
        prop_assert_eq!(&outcome.ids, &case.ids);
        // Nothing is read twice but the row that ties two pages together.
        prop_assert!(outcome.certificate.pages <= whole.certificate.pages + 1);
    }

    #[test]
    fn whatever_the_instance_does_a_complete_crawl_has_seen_everybody(case in cases(), switches in switches()) {
        let mut bench = case.bench();
        bench.fake.sorted = switches.sorted;
        let ids: Vec<String> = case.ids.iter().cloned().collect();
        let mut rng = fastrand::Rng::with_seed(case.seed);
        let mut some = |n: u8| (0..n).filter_map(|_| rng.choice(&ids[3.min(ids.len())..]).cloned()).collect::<BTreeSet<String>>();
        // One that lies in its totals, and shows as many people as it tells, is one with fewer people:
        // nobody can tell from its pages.
        if switches.totals == Totals::Right {
            bench.fake.ignores_start = switches.ignores_start;
            bench.fake.filters = switches.filters;
            bench.fake.hidden = some(switches.hidden);
        } else if switches.sorted != Sorted::Scrambled {
            bench.fake.totals = switches.totals;
        }
        bench.fake.cap = switches.cap;
        bench.fake.repeats_first = switches.repeats_first;
        bench.fake.stutters = switches.stutters;
        bench.fake.poisoned = some(switches.poisoned).into_iter().map(|id| (id.clone(), id.len() > 2)).collect();
        // No number can tell who was missed where a new order comes with every request, or where `gt`
        // skips the twin of an id, while people come and go: there the proof by id has to do.
        let folds = matches!(switches.sorted, Sorted::Lower | Sorted::Upper);
        let twins = folds && {
            let folded: BTreeSet<String> = ids.iter().map(|id| id.to_ascii_lowercase()).collect();
            folded.len() < ids.len()
        };
        if switches.sorted != Sorted::Scrambled && !twins {
            bench.churn = churn(switches.churn, case.seed);
        }
        let mut throughout = &case.ids - &bench.fake.hidden;
        let outcome = bench.run(CrawlPosition::start(None, case.capabilities()), BTreeSet::new());
        throughout.retain(|id| bench.fake.ids().contains(id));
        if let Ok(outcome) = outcome && outcome.certificate.verdict == Verdict::Complete {
            let missed: Vec<_> = throughout.difference(&outcome.ids).collect();
            prop_assert!(missed.is_empty(), "missed {:?}\n{:?}", missed, outcome.certificate);
        }
    }
}
