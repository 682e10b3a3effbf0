//! What `musterd check` finds out about an instance, before a sync has to.

use musterd::sandbox::{Effect, Fault, Poison, RateRule};
use serde_json::Value;

use crate::harness::Home;
use crate::harness::served::{PAGE_SIZE, Served};

const USERS: usize = 120;

fn found(home: &Home) -> Value {
    let ran = home.run(&["check", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn a_page_the_time_of_a_full_sync_and_what_is_shown_are_told() {
    let served = Served::of(USERS);
    let home = served.home("");
    let told = found(&home);
    for (key, is) in [
        ("asked", PAGE_SIZE.into()),
        ("rows", PAGE_SIZE.into()),
        ("total", USERS as u64),
    ] {
        assert_eq!(told["page"][key], is, "{told}");
    }
    assert_eq!(told["full_sync"]["requests"], 3);
    let seconds = |told: &Value| told["full_sync"]["seconds"].as_f64().unwrap();
    let page = told["page"]["seconds"].as_f64().unwrap();
    assert!(page > 0.0, "{told}");
    assert!(seconds(&told) <= (3.0 * page).max(3.0 / 1_000.0), "{told}");
    assert_eq!(told["told_per_hour"], Value::Null);
    for name in ["active", "email", "title", "department", "manager"] {
        assert_eq!(told["visible"][name]["of"], PAGE_SIZE, "{told}");
        assert_ne!(told["visible"][name]["seen"], 0, "{name}: {told}");
    }

    let hide = |attribute: &str| {
        Fault::new(Effect::AttributeHidden {
            attribute: attribute.to_owned(),
        })
    };
    served.sandbox.set_faults(vec![
        hide("title"),
        Fault::new(Effect::ShortPage { rows: 20 }),
    ]);
    served
        .sandbox
        .set_rate_limit(Some(RateRule::per_hour(100_000)));
    let told = found(&home);
    assert_eq!(told["visible"]["title"]["seen"], 0, "{told}");
    assert_ne!(told["visible"]["email"]["seen"], 0, "{told}");
    assert_eq!(told["page"]["rows"], 20);
    assert_eq!(told["full_sync"]["requests"], 6);
    // A tenth is left to others who use the account.
    assert_eq!(told["told_per_hour"], 90_000);
    assert!(seconds(&told) >= 6.0 / 25.0, "{told}");

    assert_eq!(told["short_by"], "cap");

    let ran = home.run(&["check"]);
    for line in [
        "pages                  20 users where 50 were asked for",
        "a full sync            6 pages, at least 1s",
        "its rate limit         tighter than `rate`: 90,000 requests an hour are kept to",
        "title                  not shown for any of 20 users: nobody has one, or the account may not read it",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {ran}");
    }
}

#[test]
fn what_a_sync_would_stumble_over_is_told_before() {
    let served = Served::of(USERS);
    let home = served.home("");
    let told = |effects: &[Effect], code: i32| {
        let faults = effects.iter().cloned().map(Fault::new);
        served.sandbox.set_faults(faults.collect());
        let ran = home.run(&["check"]);
        assert_eq!(ran.code, Some(code), "{ran}");
        ran.stdout
    };
    let said = told(&[Effect::SortIgnored, Effect::OrderScrambled], 0);
    assert!(
        said.contains("sort by id             not honoured"),
        "{said}"
    );
    let said = told(&[Effect::RowsHiddenAfterCut { share: 0.3 }], 0);
    assert!(said.contains("the account may not see some rows"), "{said}");
    let first = served.sandbox.ids()[0].clone();
    let poisoned = Effect::PoisonedRow {
        id: first,
        with: Poison::ControlCharacter,
    };
    let said = told(&[poisoned], 0);
    assert!(said.contains("one that cannot be read"), "{said}");
    let said = told(&[Effect::RowsHidden { share: 1.0 }], 1);
    assert!(said.contains("there is nobody at all"), "{said}");
    assert!(said.contains("give the account its rights"), "{said}");
}
