//! musterd against `scim2-server`, a SCIM server that we did not write, edited by `scim`, a client
//! that we did not write: the mirror equals what the server says, row by row and field by field.
//!
//! What is unlike ServiceNow about it, seen by asking it, and why that is worth a test:
//! - It answers in HTTP/1.0 with `application/scim+json`, and sends `Location` with a 200.
//! - Its base path is `/v2`; its only login is a static bearer token.
//! - It honours `sortBy=id`, `filter=id gt "…"`, the two-sided form, and `meta.lastModified ge "…"`;
//!   `count=0` is a total without rows, a `count` above 1,000 is cut to 1,000 in silence, and
//!   `startIndex` past the end is an empty page with the whole total.
//! - Its stamps have microseconds; members it does not know are refused in a write, so the
//!   extensions of ServiceNow are given to it as schemas.
//! - An attribute that was never set is missing, `active` too: such a user is active.
//! - It keeps the enterprise extension, which ServiceNow never returns, and drops the manager's
//!   `displayName` in it, which is read-only there.
//! - A deleted user is a 404 as SCIM error.

pub(crate) mod expected;
mod groups;
mod people;
mod server;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::harness::{Auth, Home, Instance, Row, python, text};
use expected::{expected_attributes, expected_columns, string};
use server::{Scim2Server, TOKEN};

#[test]
fn the_mirror_equals_what_a_server_of_others_says() {
    let Some(tools) = python::tools() else { return };
    let server = Scim2Server::start(tools);
    server.fill();
    let home = Home::new(&[Instance {
        name: "other",
        url: &server.origin(),
        scim_path: "/v2",
        auth: Auth::Bearer(TOKEN),
        page_size: 50,
        more: "",
    }]);

    // The baseline.
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    let sync = home.last_sync();
    assert_eq!(text(&sync, "outcome").as_deref(), Some("succeeded"));
    assert_eq!(verdict(&sync), "complete", "{sync:?}");
    assert_eq!(text(&sync, "created").as_deref(), Some("300"));
    assert_eq!(
        home.list("SELECT DISTINCT kind || ' ' || reason FROM changes"),
        ["create baseline"]
    );
    compare(&home, &server, &BTreeSet::new());

    // Nothing changed: nothing is written, in either mode.
    for mode in ["incremental", "full"] {
        let before = home.rows("SELECT * FROM users ORDER BY id");
        let ran = home.sync(mode);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(
            home.rows("SELECT * FROM users ORDER BY id"),
            before,
            "{mode}"
        );
        assert_eq!(home.one::<i64>("SELECT last_seq FROM feed"), 300, "{mode}");
    }

    // Another client edits the directory.
    let edited = server.edit();
    let ran = home.sync("incremental");
    assert_eq!(ran.code, Some(0), "{ran}");
    // An incremental sync sees every edit but the deletes.
    compare(&home, &server, &edited.deleted);
    assert_eq!(
        home.list(
            "SELECT kind || ' ' || reason || ' ' || id FROM changes WHERE seq > 300 ORDER BY 1"
        ),
        sorted([
            format!("create new {}", edited.joined),
            format!("deactivate inactive {}", edited.left),
            format!("update changed {}", edited.replaced),
            format!("update changed {}", edited.retitled),
            format!("update changed {}", edited.moved),
        ])
    );
    let seq: i64 = home.one("SELECT last_seq FROM feed");

    // A full sync finds who is gone, and asks for each before it says so.
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(verdict(&home.last_sync()), "complete");
    compare(&home, &server, &BTreeSet::new());
    let gone = home.rows(&format!(
        "SELECT id, kind, reason, proof FROM changes WHERE seq > {seq} ORDER BY id"
    ));
    assert_eq!(
        gone.iter()
            .filter_map(|row| text(row, "id"))
            .collect::<BTreeSet<_>>(),
        edited.deleted
    );
    for row in &gone {
        assert_eq!(text(row, "kind").as_deref(), Some("deactivate"));
        assert_eq!(text(row, "reason").as_deref(), Some("gone"));
        assert!(text(row, "proof").is_some(), "{row:?}");
    }
    assert_eq!(
        home.list("SELECT id FROM users WHERE gone_at IS NOT NULL AND active = 0")
            .into_iter()
            .collect::<BTreeSet<_>>(),
        edited.deleted
    );
    home.verify();
}

/// Holds every row of `users` against the server's own answer. Of those in `unseen` the mirror
/// cannot know yet that they are deleted.
fn compare(home: &Home, server: &Scim2Server, unseen: &BTreeSet<String>) {
    let told: BTreeMap<String, Value> = server
        .users()
        .into_iter()
        .map(|user| (string(&user["id"]).expect("an id"), user))
        .collect();
    let mirrored: BTreeMap<String, Row> = home
        .rows("SELECT * FROM users WHERE instance = 'other' AND gone_at IS NULL")
        .into_iter()
        .map(|row| (text(&row, "id").expect("an id"), row))
        .collect();
    let known: BTreeSet<&String> = mirrored.keys().filter(|id| !unseen.contains(*id)).collect();
    assert_eq!(known, told.keys().collect(), "who is in the mirror");
    assert!(unseen.iter().all(|id| mirrored.contains_key(id)));
    for (id, user) in &told {
        let row = &mirrored[id];
        for (column, expected) in expected_columns(user) {
            assert_eq!(text(row, column), expected, "`{column}` of {user}");
        }
        for (column, member) in [("created_at", "created"), ("modified_at", "lastModified")] {
            let time = |text: Option<String>| text.and_then(|t| t.parse::<Timestamp>().ok());
            assert_eq!(
                time(text(row, column)),
                time(string(&user["meta"][member])),
                "`{column}` of {user}"
            );
        }
        let attributes = text(row, "attributes").expect("attributes");
        assert_eq!(
            serde_json::from_str::<Value>(&attributes).expect("JSON"),
            expected_attributes(user),
            "`attributes` of {user}"
        );
        assert_eq!(
            home.one::<String>(&format!(
                "SELECT after FROM changes WHERE id = '{id}' ORDER BY seq DESC LIMIT 1"
            )),
            attributes,
            "the feed's last word on {id}"
        );
    }
}
fn verdict(sync: &Row) -> String {
    let certificate = text(sync, "certificate").unwrap_or_default();
    serde_json::from_str::<Value>(&certificate).map_or(certificate, |certificate| {
        string(&certificate["verdict"]).unwrap_or_default()
    })
}

fn sorted<const N: usize>(mut lines: [String; N]) -> [String; N] {
    lines.sort();
    lines
}
