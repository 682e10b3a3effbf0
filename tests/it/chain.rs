//! `musterd chain`, and the views about managers as a program reads them.

use serde_json::{Value, json};

use crate::filled::{Filled, person};

const SERVICENOW: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";

/// A user who has the manager of this id.
fn below(id: &str, manager: &str) -> Value {
    let mut user = person(id, &format!("name.{id}"));
    user["title"] = json!(format!("Title of {id}"));
    user["emails"] = json!([{ "type": "work", "value": format!("{id}@example.com") }]);
    if !manager.is_empty() {
        user[SERVICENOW] = json!({ "manager": { "value": manager, "displayName": format!("Label of {manager}") } });
    }
    user
}

fn inactive(mut user: Value) -> Value {
    user["active"] = json!(false);
    user
}

fn answers(filled: &Filled, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let ran = filled.run(&[&["chain", "acme"], args, &["--json"]].concat());
    let answers = ran.stdout.lines();
    let answers = answers.map(|line| serde_json::from_str(line).unwrap());
    (ran.code, answers.collect())
}

/// Ids and states of a chain.
fn steps(answer: &Value) -> Vec<(&str, &str)> {
    let rows = answer["chain"].as_array().unwrap();
    rows.iter()
        .map(|row| {
            (
                row["manager_id"].as_str().unwrap(),
                row["state"].as_str().unwrap(),
            )
        })
        .collect()
}

#[test]
fn a_chain_in_json_is_one_object_with_the_rows_of_the_view_and_the_approver() {
    let filled = Filled::new(&[
        below("u1", "u2"),
        inactive(below("u2", "u3")),
        below("u3", "u9"),
    ]);
    let (code, answers) = answers(&filled, &["NAME.U1"]);
    assert_eq!((code, answers.len()), (Some(0), 1));
    let approver = json!({
        "instance": "acme", "id": "u1", "depth": 2, "manager_id": "u3", "manager": "Name of name.u3",
        "email": "u3@example.com", "title": "Title of u3", "active": true, "state": "ok",
    });
    let expected = json!({
        "chain": [
            {
                "instance": "acme", "id": "u1", "depth": 1, "manager_id": "u2", "manager": "Name of name.u2",
                "email": "u2@example.com", "title": "Title of u2", "active": false, "state": "inactive",
            },
            approver.clone(),
            {
                "instance": "acme", "id": "u1", "depth": 3, "manager_id": "u9", "manager": "Label of u9",
                "email": null, "title": null, "active": null, "state": "missing",
            },
        ],
        "approver": approver,
    });
    assert_eq!(answers[0], expected);
}

#[test]
fn cycles_are_named_and_levels_bound_what_is_shown() {
    let filled = Filled::new(&[
        below("u1", "u2"),
        below("u2", "u3"),
        below("u3", "u2"),
        below("u4", "u4"),
        below("u5", ""),
        inactive(below("u6", "u7")),
        inactive(below("u7", "u6")),
    ]);
    let chain = |key: &str, more: &[&str]| {
        let (code, mut answers) = answers(&filled, &[&[key], more].concat());
        assert_eq!((code, answers.len()), (Some(0), 1));
        answers.remove(0)
    };
    let round = chain("u1", &[]);
    assert_eq!(steps(&round), [("u2", "ok"), ("u3", "ok"), ("u2", "cycle")]);
    assert_eq!(steps(&chain("u1", &["--levels", "1"])), [("u2", "ok")]);
    let own = chain("u4", &[]);
    assert_eq!(
        (steps(&own), &own["approver"]),
        (vec![("u4", "self")], &Value::Null)
    );
    assert_eq!(chain("u5", &[]), json!({ "chain": [], "approver": null }));
    let nobody = chain("u6", &[]);
    assert_eq!(steps(&nobody), [("u7", "inactive"), ("u6", "cycle")]);
    assert_eq!(nobody["approver"], Value::Null);

    let refused = filled.run(&["chain", "acme", "u1", "--levels", "0"]);
    assert_eq!(refused.code, Some(2), "{refused}");
}

#[test]
fn who_is_meant_is_found_as_by_the_command_user() {
    let twin = |id: &str, manager: &str| {
        let mut user = below(id, manager);
        user["emails"] = json!([{ "type": "work", "value": "shared@example.com" }]);
        user
    };
    let filled = Filled::new(&[twin("u1", "u2"), twin("u2", "")]);
    let (code, both) = answers(&filled, &["shared@example.com"]);
    assert_eq!(code, Some(3));
    assert_eq!(steps(&both[0]), [("u2", "ok")]);
    assert_eq!(steps(&both[1]), []);
    let shown = filled.run(&["chain", "acme", "shared@example.com"]);
    assert_eq!(shown.code, Some(3), "{shown}");
    assert!(shown.stderr.contains("2 users match"), "{shown}");
    insta::assert_snapshot!(shown.stdout, @"
    Name of name.u1  u1
    LEVEL  STATE     MANAGER                     TITLE
        1  ok        Name of name.u2             Title of u2
    approver: Name of name.u2  u2  level 1

    Name of name.u2  u2
    no manager is set
    approver: nobody
    ");
    let nobody = filled.run(&["chain", "acme", "nobody"]);
    assert_eq!((nobody.code, &*nobody.stdout), (Some(1), ""), "{nobody}");
    let nowhere = filled.run(&["chain", "acne", "u1"]);
    assert_eq!(nowhere.code, Some(1), "{nowhere}");
    assert!(nowhere.stderr.contains("it knows: acme"), "{nowhere}");
}
