//! Groups of a server that we did not write: the mirror has each of them, and exactly the members that the server says.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::expected::string;
use super::people::{person, user_name};
use super::server::{Scim2Server, TOKEN};
use super::verdict;
use crate::harness::{Auth, Home, Instance, python};

const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
const N_USERS: usize = 60;
const N_GROUPS: usize = 30;

#[test]
fn the_mirror_has_the_groups_and_members_of_a_server_of_others() {
    let Some(tools) = python::tools() else { return };
    let server = Scim2Server::start(tools);
    let users = fill(&server);
    let home = Home::new(&[Instance {
        name: "other",
        url: &server.origin(),
        scim_path: "/v2",
        auth: Auth::Bearer(TOKEN),
        page_size: 7,
        more: r#"resources = ["users", "groups"]"#,
    }]);

    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(verdict(&home.last_sync()), "complete");
    assert_eq!(home.one::<i64>("SELECT count(*) FROM groups"), 30);
    compare(&home, &server);
    let kinds = "SELECT DISTINCT resource || ' ' || kind || ' ' || reason FROM changes ORDER BY 1";
    let baseline = [
        "Group create baseline",
        "Membership create baseline",
        "User create baseline",
    ];
    assert_eq!(home.list(kinds), baseline);

    let seq: i64 = home.one("SELECT last_seq FROM feed");
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(
        home.one::<i64>("SELECT last_seq FROM feed"),
        seq,
        "nothing changed"
    );

    edit(&server, &users);
    let ran = home.sync("full");
    assert_eq!(ran.code, Some(0), "{ran}");
    compare(&home, &server);
    let records = home.list(&format!(
        "SELECT resource || ' ' || kind || ' ' || reason || ' ' || count(*) FROM changes
         WHERE seq > {seq} GROUP BY resource, kind, reason ORDER BY 1"
    ));
    let expected = [
        "Group create new 1",
        "Group deactivate gone 1",
        "Group update changed 1",
        // The one who joined, and the two of the group made anew.
        "Membership create new 3",
        // Those of the group that was deleted.
        "Membership deactivate gone 5",
        "Membership deactivate removed 1",
    ];
    assert_eq!(records, expected);
    home.verify();
}

/// The display name of the `n`th group.
fn group_name(n: usize) -> String {
    format!("Grüppe {n:02}")
}

/// So many members has the `n`th group: none, a few, or all users.
fn members(n: usize, users: &[String]) -> Vec<&String> {
    let most = if n == 7 { N_USERS } else { n % 6 };
    users.iter().skip(n % 7).take(most).collect()
}

fn group(n: usize, users: &[String]) -> Value {
    let members: Vec<Value> = members(n, users)
        .iter()
        .map(|id| json!({"value": id, "type": "User"}))
        .collect();
    let mut group = json!({
        "schemas": [GROUP],
        "displayName": group_name(n),
        "members": members,
    });
    if n.is_multiple_of(4) {
        group["externalId"] = json!(format!("ext-{n}"));
    }
    group
}

/// People, groups of them, and one group in another. Returns the ids of the people in the order of their names.
fn fill(server: &Scim2Server) -> Vec<String> {
    let post = |path: &str, n: usize, data: Value| json!({"method": "POST", "path": path, "bulkId": n.to_string(), "data": data});
    server.bulk((0..N_USERS).map(|n| post("/Users", n, person(n))));
    let ids = server.ids();
    let users: Vec<String> = (0..N_USERS).map(|n| ids[&user_name(n)].clone()).collect();
    server.bulk((0..N_GROUPS).map(|n| post("/Groups", n, group(n, &users))));
    let groups = group_ids(server);
    change(
        server,
        &groups[&group_name(1)],
        &json!([{"op": "add", "path": "members", "value": [{"value": groups[&group_name(2)], "type": "Group"}]}]),
    );
    users
}

fn group_ids(server: &Scim2Server) -> BTreeMap<String, String> {
    let of = |group: &Value, name: &str| string(&group[name]).expect("a name and an id");
    let groups = server.groups();
    let ids = groups
        .iter()
        .map(|group| (of(group, "displayName"), of(group, "id")));
    ids.collect()
}

fn change(server: &Scim2Server, id: &str, operations: &Value) {
    let patch = json!({"method": "PATCH", "path": format!("/Groups/{id}"), "data": {
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        "Operations": operations,
    }});
    server.bulk(std::iter::once(patch));
}

/// One joins a group, one leaves another, one group has another name, and one is deleted and made anew under the same name.
fn edit(server: &Scim2Server, users: &[String]) {
    let groups = group_ids(server);
    let id = |n: usize| &groups[&group_name(n)];
    let joins =
        json!([{"op": "add", "path": "members", "value": [{"value": users[50], "type": "User"}]}]);
    change(server, id(3), &joins);
    let leaves = format!(r#"members[value eq "{}"]"#, members(4, users)[1]);
    change(server, id(4), &json!([{"op": "remove", "path": leaves}]));
    let renamed = json!([{"op": "replace", "path": "displayName", "value": "Another name"}]);
    change(server, id(10), &renamed);
    server.scim(&["delete", "group", id(5)], &Value::Null);
    let mut anew = group(5, users);
    anew["members"] =
        json!([{"value": users[1], "type": "User"}, {"value": users[2], "type": "User"}]);
    server.bulk(std::iter::once(
        json!({"method": "POST", "path": "/Groups", "bulkId": "a", "data": anew}),
    ));
}

/// Holds the living rows of `groups` and `memberships` against the server's own answer.
fn compare(home: &Home, server: &Scim2Server) {
    let told = server.groups();
    let mut groups = BTreeSet::new();
    let mut memberships = BTreeSet::new();
    for group in &told {
        let id = string(&group["id"]).expect("an id");
        let name = string(&group["displayName"]).expect("a name");
        let external_id = string(&group["externalId"]).unwrap_or_default();
        let members = group["members"].as_array().map_or(&[][..], Vec::as_slice);
        groups.insert(format!("{id} {name} {external_id} {} all", members.len()));
        for member in members {
            let member_id = string(&member["value"]).expect("an id");
            let kind = string(&member["type"]).expect("a type");
            memberships.insert(format!("{id} {member_id} {kind}"));
        }
    }
    let found = |sql: &str| home.list(sql).into_iter().collect::<BTreeSet<String>>();
    let living = found(
        "SELECT id || ' ' || display_name || ' ' || coalesce(external_id, '') || ' ' || member_count || ' ' || members_known
         FROM groups WHERE gone_at IS NULL",
    );
    assert_eq!(living, groups);
    let living = found(
        "SELECT group_id || ' ' || member_id || ' ' || member_type FROM memberships WHERE ended_at IS NULL",
    );
    assert_eq!(living, memberships);
}
