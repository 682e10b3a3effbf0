//! What `musterd check` finds out about an instance, before a sync has to.

use musterd::sandbox::{Effect, Fault, RateRule};
use serde_json::Value;

use crate::harness::served::Served;
use crate::harness::{Auth, Home, Instance};

const USERS: usize = 120;

fn linked(served: &Served) -> Home {
    let rules = served.sandbox.auth();
    Home::new(&[Instance {
        name: "acme",
        url: &served.url,
        scim_path: "/api/now/scim",
        auth: Auth::ClientCredentials {
            client_id: &rules.client_id,
            client_secret: &rules.client_secret,
        },
        page_size: 50,
        more: "",
    }])
}

fn found(home: &Home) -> Value {
    let ran = home.run(&["check", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn a_page_the_time_of_a_full_sync_and_what_is_shown_are_told() {
    let served = Served::of(USERS);
    let home = linked(&served);
    let told = found(&home);
    for (key, is) in [("asked", 50), ("rows", 50), ("total", USERS as u64)] {
        assert_eq!(told["page"][key], is, "{told}");
    }
    assert_eq!(told["full_sync"]["requests"], 3);
    let seconds = |told: &Value| told["full_sync"]["seconds"].as_f64().unwrap();
    assert!(seconds(&told) >= 3.0 / 1_000.0, "{told}");
    assert_eq!(told["told_per_hour"], Value::Null);
    for name in ["active", "email", "title", "department", "manager"] {
        assert_eq!(told["visible"][name]["of"], 50, "{told}");
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
