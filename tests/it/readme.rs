//! What README tells people to paste works.

use std::path::Path;

use serde_json::json;

use crate::filled::{Filled, group, person};
use crate::harness::Home;

const README: &str = include_str!("../../README.md");

/// The fenced blocks of one language, each with the line before it.
fn blocks(language: &str) -> Vec<(&str, &str)> {
    let fence = format!("\n```{language}\n");
    let mut blocks = Vec::new();
    let mut rest = README;
    while let Some((before, after)) = rest.split_once(&fence) {
        let (block, next) = after.split_once("```").unwrap();
        let name = before.trim_end().lines().next_back().unwrap();
        blocks.push((name, block));
        rest = next;
    }
    blocks
}

#[test]
fn the_queries_answer() {
    let extension = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
    let mut ada = person("u1", "ada.lovelace");
    ada[extension] = json!({
        "department": { "value": "d1", "name": "Platform" },
        "manager": { "value": "u3", "displayName": "Alan Turing" },
    });
    let mut alan = person("u3", "alan.turing");
    alan[extension] = json!({ "manager": { "value": "u2", "displayName": "Grace Hopper" } });
    let mut filled = Filled::new(&[ada.clone(), person("u2", "grace.hopper"), alan.clone()]);
    filled.apply_groups(&[
        group("g1", "Service Desk", &["u1", "u3", "u9"]),
        group("g2", "Change Approvers", &["u2", "u3"]),
    ]);
    let moment: String = filled.home().one("SELECT max(observed_at) FROM changes");
    ada[extension]["manager"] = json!({ "value": "u2", "displayName": "Grace Hopper" });
    alan["active"] = json!(false);
    filled.apply(&[ada, alan]);
    filled.import(&["ada.lovelace", "alan.turing", "joan.clarke"]);

    let epoch: String = filled.home().one("SELECT epoch FROM feed");
    let queries = blocks("sql");
    let answers: Vec<Vec<String>> = queries
        .iter()
        .map(|(_, sql)| {
            let sql = sql.replace("EPOCH", &epoch).replace("1042", "11");
            let sql = sql
                .replace("'ID'", "'u1'")
                .replace("'GROUP'", "'g2'")
                .replace("2026-03-01T12:00:00.000Z", &moment);
            let mut rows = filled.home().rows(&sql);
            rows.iter_mut()
                .for_each(|row| drop(row.remove("observed_at")));
            rows.iter().map(|row| format!("{row:?}")).collect()
        })
        .collect();
    let names: Vec<&str> = queries.iter().map(|(name, _)| *name).collect();
    insta::assert_snapshot!(
        names
            .iter()
            .zip(&answers)
            .map(|(name, rows)| format!("{name}\n{}\n", rows.join("\n")))
            .collect::<String>(),
        @r#"
        **Living users, for `assigned_to` and `caller_id`: `id` is the `sys_id`**
        {"display_name": Text("Name of ada.lovelace"), "email": Null, "id": Text("u1"), "user_name": Text("ada.lovelace")}
        {"display_name": Text("Name of grace.hopper"), "email": Null, "id": Text("u2"), "user_name": Text("grace.hopper")}
        **Active members of an assignment group, for routing a ticket**
        {"display_name": Text("Name of ada.lovelace"), "email": Null, "id": Text("u1"), "user_name": Text("ada.lovelace")}
        **Leavers who still are in privileged groups**
        {"display_name": Text("Name of alan.turing"), "gone_at": Null, "id": Text("u3"), "privileged": Text("Change Approvers")}
        {"display_name": Text("Name of alan.turing"), "gone_at": Null, "id": Text("u3"), "privileged": Text("Service Desk")}
        **Leavers of the last seven days**
        {"id": Text("u3"), "instance": Text("acme"), "name": Text("Name of alan.turing"), "reason": Text("inactive")}
        **Users by department**
        {"department": Null, "users": Integer(1)}
        {"department": Text("Platform"), "users": Integer(1)}
        **Direct reports of a user**
        {"display_name": Text("Name of ada.lovelace"), "title": Null}
        **Everybody below a manager**
        {"display_name": Text("Name of ada.lovelace"), "id": Text("u1"), "title": Null}
        **Who may approve for a user: the first living manager above**
        {"depth": Integer(1), "display_name": Text("Name of grace.hopper"), "email": Null, "id": Text("u2")}
        **Who could approve for a user at a moment (audit)**
        {"depth": Integer(1), "id": Text("u3"), "name": Text("Name of alan.turing")}
        **Who was in a group at a moment, and active then (audit)**
        {"id": Text("u2"), "name": Text("Name of grace.hopper")}
        {"id": Text("u3"), "name": Text("Name of alan.turing")}
        **Own profiles and the `sys_id` that a ticket of each may name**
        {"profile": Text("ada.lovelace"), "user_id": Text("u1"), "user_name": Text("ada.lovelace")}
        **Own profiles without a living `sys_id`**
        {"candidates": Null, "profile": Text("alan.turing"), "state": Text("matched"), "user_id": Text("u3")}
        {"candidates": Null, "profile": Text("joan.clarke"), "state": Text("missing"), "user_id": Null}
        **What changed since the place (`epoch`, `seq`) that a reader has kept**
        {"can_go_on": Integer(1), "changed": Text("{\"active\":{\"from\":true,\"to\":false}}"), "id": Text("u3"), "instance": Text("acme"), "kind": Text("deactivate"), "reason": Text("inactive"), "resource": Text("User"), "seq": Integer(12)}
        {"can_go_on": Integer(1), "changed": Null, "id": Text("ada.lovelace"), "instance": Text("acme"), "kind": Text("create"), "reason": Text("new"), "resource": Text("Identity"), "seq": Integer(13)}
        {"can_go_on": Integer(1), "changed": Null, "id": Text("alan.turing"), "instance": Text("acme"), "kind": Text("create"), "reason": Text("new"), "resource": Text("Identity"), "seq": Integer(14)}
        {"can_go_on": Integer(1), "changed": Null, "id": Text("joan.clarke"), "instance": Text("acme"), "kind": Text("create"), "reason": Text("new"), "resource": Text("Identity"), "seq": Integer(15)}
        "#
    );
}

/// Who could approve then is found by the manager that the column `manager_id` had, in whatever form the instance sent it.
#[test]
fn the_audit_of_approvals_reads_a_manager_as_the_mirror_does() {
    let servicenow = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
    let enterprise = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
    let boss = json!({ "value": "boss" });
    let forms = [
        (json!({ servicenow: { "manager": boss } }), Some("boss")),
        (json!({ servicenow: { "manager": "boss" } }), Some("boss")),
        (json!({ servicenow: { "manager": 7 } }), Some("7")),
        (
            json!({ servicenow: { "manager": { "value": 7 } } }),
            Some("7"),
        ),
        (json!({ enterprise: { "manager": "boss" } }), Some("boss")),
        (json!({ enterprise: { "manager": boss } }), Some("boss")),
        (
            json!({ servicenow: { "manager": "boss" }, enterprise: { "manager": { "value": "7" } } }),
            Some("boss"),
        ),
        (
            json!({ servicenow: { "manager": { "value": "7", "name": "Seven" } }, enterprise: { "manager": boss } }),
            Some("7"),
        ),
        // It names somebody, although nobody knows whom.
        (
            json!({ servicenow: { "manager": { "displayName": "Boss" } }, enterprise: { "manager": boss } }),
            None,
        ),
        (
            json!({ servicenow: { "manager": { "name": "Boss" } }, enterprise: { "manager": "boss" } }),
            None,
        ),
        (
            json!({ servicenow: { "manager": { "display": "Boss" } }, enterprise: { "manager": boss } }),
            None,
        ),
        // It names nobody.
        (
            json!({ servicenow: { "manager": { "$ref": "x" } }, enterprise: { "manager": boss } }),
            Some("boss"),
        ),
        (json!({ servicenow: { "title": "x" } }), None),
        (json!({}), None),
    ];
    let mut people = vec![person("boss", "the.boss"), person("7", "seven")];
    for (place, (extensions, _)) in forms.iter().enumerate() {
        let mut one = person(&format!("u{place}"), &format!("user.{place}"));
        for (urn, extension) in extensions.as_object().unwrap() {
            one[urn] = extension.clone();
        }
        people.push(one);
    }
    let filled = Filled::new(&people);
    let home = filled.home();
    let moment: String = home.one("SELECT max(observed_at) FROM changes");
    let queries = blocks("sql");
    let (_, query) = queries
        .iter()
        .find(|(name, _)| name.contains("could approve"))
        .unwrap();
    let query = query.replace("2026-03-01T12:00:00.000Z", &moment);
    for (place, (form, expected)) in forms.iter().enumerate() {
        let rows = home.rows(&query.replace("'ID'", &format!("'u{place}'")));
        let ids: Vec<String> = rows.iter().map(|row| format!("{:?}", row["id"])).collect();
        let wanted = expected.map(|id| format!("Text({id:?})"));
        assert_eq!(ids, Vec::from_iter(wanted), "{form}");
        let column = format!("SELECT manager_id FROM users WHERE id = 'u{place}'");
        let column: Option<String> = home.one(&column);
        assert_eq!(column.as_deref(), *expected, "{form}");
    }
}

/// Who is asked for by a name is not looked for among all others, and a name in other case is the same one.
#[test]
fn names_in_the_queries_are_found_by_index() {
    let mut ada = person("u1", "ada.lovelace");
    ada["urn:ietf:params:scim:schemas:extension:servicenow:2.0:User"] =
        json!({ "manager": { "value": "u2" } });
    ada["active"] = json!(false);
    let mut alan = ada.clone();
    (alan["id"], alan["userName"]) = (json!("u3"), json!("alan.turing"));
    alan["active"] = json!(true);
    let mut filled = Filled::new(&[ada, person("u2", "GRACE.Hopper"), alan]);
    filled.apply_groups(&[
        group("g1", "SERVICE desk", &["u1", "u3"]),
        group("g2", "change APPROVERS", &["u1"]),
    ]);
    let queries = blocks("sql");
    for (named, n_rows) in [
        ("for routing a ticket", 1),
        ("privileged groups", 2),
        ("Direct reports", 1),
    ] {
        let (_, query) = queries
            .iter()
            .find(|(name, _)| name.contains(named))
            .unwrap();
        assert_eq!(filled.home().rows(query).len(), n_rows, "{named}");
        let plan = filled.home().rows(&format!("EXPLAIN QUERY PLAN {query}"));
        let plan: Vec<String> = plan
            .iter()
            .map(|row| format!("{:?}", row["detail"]))
            .collect();
        let plan = plan.join("\n");
        assert!(!plan.contains("(instance=?)"), "{named}: {plan}");
    }
}

#[test]
fn the_configuration_shown_is_the_one_that_ships() {
    let minimal = include_str!("../../config/minimal.toml");
    let [(_, shown)] = blocks("toml")[..] else {
        panic!("one configuration is shown");
    };
    assert!(minimal.ends_with(shown), "{shown}");
}

#[test]
fn readers_are_warned_of_formulas() {
    assert!(README.contains("must quote it: a name may begin with `=`"));
}

#[test]
fn each_threat_names_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut threats = Vec::new();
    let mut untested = Vec::new();
    for line in include_str!("../../SECURITY.md").lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let Some(threat) = cells[0].strip_prefix("| T") else {
            continue;
        };
        let tests = cells.last().unwrap();
        let mut names = 0;
        let mut text = String::new();
        for word in tests.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                let places = ["tests/it", "src"].map(|folder| root.join(folder).join(word));
                let place = places.iter().find(|place| place.exists());
                let place = place.unwrap_or_else(|| panic!("T{threat}: there is no `{word}`"));
                text = std::fs::read_to_string(place).unwrap();
            } else {
                let is_there =
                    text.contains(&format!("fn {word}(")) || text.contains(&format!(" {word} = "));
                assert!(is_there, "T{threat}: there is no test `{word}`");
                names += 1;
            }
        }
        if names == 0 {
            assert!(tests.contains("none yet"), "{line}");
            untested.push(threat.to_owned());
        }
        threats.push(threat.to_owned());
    }
    let all: Vec<String> = (1..=31).map(|number: i32| number.to_string()).collect();
    assert_eq!(threats, all);
    assert_eq!(untested, [""; 0]);
}

#[test]
fn every_command_shown_is_one() {
    let home = Home::new(&[]);
    let mut n_commands = 0;
    for (_, block) in blocks("sh") {
        for line in block.lines() {
            // What the shell would put there.
            let line = &line.replace("$(date -u +%FT%TZ)", "2026-03-01T12:00:00Z");
            // A line that goes on in the next one may have a quote that is still open.
            let Some(words) = shlex::split(line) else {
                continue;
            };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let Some(place) = words.iter().rposition(|word| *word == "musterd") else {
                continue;
            };
            let args = &words[place + 1..];
            let is_command = |word: &&str| word.bytes().all(|b| b.is_ascii_lowercase());
            if !args.first().is_some_and(is_command) {
                continue;
            }
            // Names of commands and options are judged before the help is shown.
            let ran = home.run(&[args, &["--help"]].concat());
            assert_eq!(ran.code, Some(0), "`{line}`: {ran}");
            n_commands += 1;
        }
    }
    assert!(n_commands >= 15, "{n_commands}");
}
