//! The sandbox before an independent SCIM conformance checker, `scim2 test`. Where ServiceNow is not
//! what the RFCs ask for, by its facts page (`servicenow-scim.md`), the sandbox is not either: every
//! such deviation stands in [`EXPECTED`] with its section. One that is not listed fails the test, and
//! so does a listed one that is gone.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use musterd::clock::SystemClock;
use musterd::sandbox::{Effect, Fault, Options, Sandbox, serve};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::harness::python;

/// The checker takes some 15 s.
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// Deviations that belong together: each of `checks` complains about each of `subjects`.
struct Expected {
    section: &'static str,
    reason: &'static str,
    checks: &'static [&'static str],
    subjects: &'static [&'static str],
}

const EXPECTED: &[Expected] = &[
    Expected {
        section: "8.2",
        reason: "`schemas` lists the extension before the core schema; the order carries no \
                 meaning, but the checker takes the first for the type. It is run twice, the second \
                 time with the order turned round, and sees the rest then",
        checks: &[
            "object_creation",
            "object_query",
            "object_query_without_id",
            "object_query_with_attributes",
            "object_list_with_attributes",
            "search_with_attributes",
            "object_replacement",
            "object_deletion",
            "check_add_attribute",
            "check_remove_attribute",
            "check_replace_attribute",
        ],
        subjects: &["the order of schemas"],
    },
    Expected {
        section: "9.1 and 9.3",
        reason: "groups name two extensions in `schemas` that are advertised nowhere, and the checker reads \
                 no such group. The second time they name none, and it sees the rest",
        checks: &[
            "object_creation",
            "object_query",
            "object_query_without_id",
            "object_replacement",
            "object_deletion",
            "check_add_attribute",
            "check_replace_attribute",
        ],
        subjects: &["extensions that are not advertised"],
    },
    Expected {
        section: "8.1",
        reason: "one mail address, one telephone number of each of three types, one address, \
                 without `display` and `primary`; names without `formatted` and suffix; \
                 `displayName` is computed",
        checks: &["check_add_attribute", "check_replace_attribute"],
        subjects: &["emails", "phoneNumbers", "addresses", "name", "displayName"],
    },
    Expected {
        section: "8.1",
        reason: "`displayName` is computed, and a flag always has a value",
        checks: &["check_remove_attribute"],
        subjects: &["displayName", "active"],
    },
    Expected {
        section: "9.3",
        reason: "the schemas are boilerplate and offer what no column keeps",
        checks: &["check_add_attribute", "check_replace_attribute"],
        subjects: &[
            "nickName",
            "profileUrl",
            "locale",
            "ims",
            "photos",
            "entitlements",
            "roles",
            "x509Certificates",
        ],
    },
    Expected {
        section: "8.3",
        reason: "the enterprise extension is advertised, accepted and not stored",
        checks: &["check_add_attribute", "check_replace_attribute"],
        subjects: &[
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:employeeNumber",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:costCenter",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:organization",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:division",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:manager",
        ],
    },
    Expected {
        section: "10",
        reason: "a reference is written by the `sys_id` of something that exists; the checker \
                 invents one, and nothing comes of it",
        checks: &["check_add_attribute", "check_replace_attribute"],
        subjects: &[
            "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User",
            "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User:costCenter",
            "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User:company",
            "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User:department",
            "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User:location",
        ],
    },
    Expected {
        section: "8.2",
        reason: "a reference is answered with the label of what it points to, which was not written",
        checks: &["check_add_attribute", "check_replace_attribute"],
        subjects: &["urn:ietf:params:scim:schemas:extension:servicenow:2.0:User:manager"],
    },
    Expected {
        section: "9.1",
        reason: "a member is answered with its name, which was not written",
        checks: &["check_add_attribute", "check_replace_attribute"],
        subjects: &["members"],
    },
    Expected {
        section: "3",
        reason: "companies, cost centres, departments and locations can only be read",
        checks: &[
            "object_creation",
            "object_query",
            "object_query_without_id",
            "object_query_with_attributes",
            "object_list_with_attributes",
            "search_with_attributes",
            "object_replacement",
            "object_deletion",
            "check_add_attribute",
            "check_remove_attribute",
            "check_replace_attribute",
        ],
        subjects: &["405 without a SCIM error"],
    },
    Expected {
        section: "3",
        reason: "`/.search` is not supported",
        checks: &["search_with_attributes"],
        subjects: &["400 without a SCIM error"],
    },
    Expected {
        section: "11.2",
        reason: "a path that no interface has is refused by the platform, in its own shape",
        checks: &["random_url"],
        subjects: &["400 without a SCIM error"],
    },
];

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_deviates_from_the_rfcs_where_servicenow_does_and_nowhere_else() {
    let Some(tools) = python::tools() else { return };
    let as_it_is = check(tools, Vec::new()).await;
    let turned = check(tools, plain_schemas()).await;
    assert!(turned.passed > 80, "only {} checks passed", turned.passed);

    let found: BTreeSet<(String, String)> =
        as_it_is.failed.union(&turned.failed).cloned().collect();
    let mut problems = Vec::new();
    for expected in EXPECTED {
        for check in expected.checks {
            for subject in expected.subjects {
                let key = ((*check).to_owned(), (*subject).to_owned());
                if !found.contains(&key) {
                    problems.push(format!(
                        "no longer: {check}: {subject} (section {}: {})",
                        expected.section, expected.reason
                    ));
                }
            }
        }
    }
    for (check, subject) in &found {
        let is_expected = EXPECTED.iter().any(|expected| {
            expected.checks.contains(&check.as_str())
                && expected.subjects.contains(&subject.as_str())
        });
        if !is_expected {
            problems.push(format!("not in the list: {check}: {subject}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// The core schema first, and for groups nothing else: what the checker needs to see the rest.
fn plain_schemas() -> Vec<Fault> {
    let of_groups = |effect: Effect| Fault::new(effect).path("*/Groups*");
    vec![
        Fault::new(Effect::CoreSchemaFirst),
        of_groups(Effect::MemberAdded {
            member: "schemas".to_owned(),
            json: r#"["urn:ietf:params:scim:schemas:core:2.0:Group"]"#.to_owned(),
        }),
        of_groups(Effect::AttributeHidden {
            attribute: "urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group".to_owned(),
        }),
    ]
}

/// What the checker found.
struct Verdict {
    passed: usize,
    /// Check and subject.
    failed: BTreeSet<(String, String)>,
}

async fn check(tools: &'static Path, faults: Vec<Fault>) -> Verdict {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let options = Options {
        // Few enough for the default page of ten to show those that the checker makes.
        users: 3,
        groups: 2,
        public_url: url.clone(),
        ..Options::default()
    };
    let sandbox = Sandbox::new(options, Arc::new(SystemClock));
    sandbox.set_faults(faults);
    let cancel = CancellationToken::new();
    let server = tokio::spawn(serve(listener, sandbox.clone(), cancel.clone()));

    let token = token(&url, &sandbox).await;
    let checker = tokio::task::spawn_blocking(move || {
        Command::new(tools.join("scim2"))
            .env("SCIM_CLI_URL", format!("{url}/api/now/scim"))
            .env("SCIM_CLI_HEADERS", format!("Authorization: Bearer {token}"))
            .arg("test")
            .output()
            .unwrap()
    });
    let output = tokio::time::timeout(TIME_LIMIT, checker)
        .await
        .expect("the checker ends in time")
        .unwrap();
    cancel.cancel();
    server.await.unwrap().unwrap();
    read(&output)
}

async fn token(url: &str, sandbox: &Sandbox) -> String {
    let auth = sandbox.auth();
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", &auth.client_id),
        ("client_secret", &auth.client_secret),
    ];
    let answer = reqwest::Client::new()
        .post(format!("{url}/oauth_token.do"))
        .form(&form)
        .send()
        .await
        .unwrap();
    let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

/// Reads a report: `STATUS check`, and the reason indented below.
fn read(output: &Output) -> Verdict {
    let text = String::from_utf8_lossy(&output.stdout);
    let mut verdict = Verdict {
        passed: 0,
        failed: BTreeSet::new(),
    };
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((status, check)) = line.split_once(' ') else {
            continue;
        };
        match status {
            "SUCCESS" => verdict.passed += 1,
            "ERROR" | "CRITICAL" | "DEVIATION" => {
                let mut reasons = Vec::new();
                while let Some(reason) = lines.next_if(|line| line.starts_with(' ')) {
                    reasons.push(reason.trim());
                }
                verdict.failed.insert((check.to_owned(), subject(&reasons)));
            }
            _ => {}
        }
    }
    assert!(
        verdict.passed > 0,
        "no report: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    verdict
}

/// What a complaint is about, without what the checker made up.
fn subject(reasons: &[&str]) -> String {
    let reason = reasons.first().copied().unwrap_or_default();
    let quoted = || reason.split('\'').nth(1).map(str::to_owned);
    if reason.contains("got unknown resource with schemas") {
        "the order of schemas".to_owned()
    } else if reasons
        .iter()
        .any(|reason| reason.starts_with("Unknown extension schemas: "))
    {
        "extensions that are not advertised".to_owned()
    } else if reason.starts_with("PATCH modify() ") {
        quoted().unwrap_or_else(|| reason.to_owned())
    } else if let Some(answered) = reason.strip_prefix("The server answered ") {
        answered.to_owned()
    } else {
        reason.to_owned()
    }
}
