//! The switches of the facts page's section 19.3, word by word, and those of groups: for each the TOML that
//! does it, read as `musterd sandbox --faults` reads it, and seen to do it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use musterd::clock::SystemClock;
use musterd::sandbox::{self, Delivery, Incoming, Reply, Sandbox};
use serde_json::Value;

/// A word of section 19.3, the script, and what shows that it happened.
struct Switch {
    word: &'static str,
    script: &'static str,
    shows: fn(&Bed) -> bool,
}

macro_rules! switches {
    ($($word:literal: $script:literal => $shows:expr;)*) => {
        &[$(Switch { word: $word, script: $script, shows: $shows }),*]
    };
}

const SWITCHES: &[Switch] = switches! {
    "default order scrambled per request": "kind = 'order_scrambled'" => |bed| {
        bed.ids("count=60") != bed.ids("count=60")
    };
    "ties shuffled": "kind = 'ties_shuffled'" => |bed| {
        let by = "count=60&sortBy=timezone&sortOrder=ascending";
        bed.ids(by) != bed.ids(by)
    };
    "row inserted": "kind = 'row_inserted'\npath = '*startIndex=11*'" => |bed| {
        let first = bed.ids(FIRST);
        bed.ids(SECOND)[0] == first[9]
    };
    "row deleted between pages": "kind = 'row_deleted'\npath = '*startIndex=11*'" => |bed| {
        let eleventh = bed.ids("count=11&sortBy=id&sortOrder=ascending")[10].clone();
        !bed.ids(SECOND).contains(&eleventh)
    };
    "lagging second node": "kind = 'node_behind'\nseconds = 3600\nevery = 2" => |bed| {
        let id = bed.sandbox.ids()[0].clone();
        bed.sandbox.delete(&id);
        bed.ids(FIRST).contains(&id) && !bed.ids(FIRST).contains(&id)
    };
    "rows hidden after the cut with the total kept": "kind = 'rows_hidden_after_cut'\nshare = 0.3" => |bed| {
        let list = bed.list("count=60");
        list["totalResults"] == 60 && rows(&list).len() < 60
    };
    "rows hidden before the cut": "kind = 'rows_hidden'\nshare = 0.3" => |bed| {
        let list = bed.list("count=60");
        list["totalResults"].as_u64() < Some(60) && rows(&list).len() < 60
    };
    "filter ignored": "kind = 'filter_ignored'" => |bed| {
        bed.ids("count=60&filter=id%20eq%20%22nobody%22").len() == 60
    };
    "filter refused": "kind = 'filter_refused'" => |bed| {
        bed.get("/Users?filter=id%20eq%20%22nobody%22").status == 400
    };
    "sort refused": "kind = 'sort_refused'" => |bed| bed.get(&format!("/Users?{FIRST}")).status == 400;
    "`Resources` absent": "kind = 'resources_missing'" => |bed| {
        let list = bed.list(FIRST);
        list.get("Resources").is_none() && list["totalResults"] == 60
    };
    "`Resources` is `[]`": "kind = 'empty_page'" => |bed| rows(&bed.list(FIRST)).is_empty();
    "`Resources` absent where it would be `[]`": "kind = 'empty_without_resources'" => |bed| {
        bed.list("startIndex=90").get("Resources").is_none()
    };
    "repeated rows": "kind = 'repeated_row'" => |bed| {
        let mut ids = bed.ids(FIRST);
        ids.sort();
        ids.windows(2).any(|pair| pair[0] == pair[1])
    };
    "change without stamp": "kind = 'silent_change'\nshare = 1.0\ntimes = 1" => |bed| {
        let (before, after) = (bed.shown(), bed.users());
        differ(&before, &after, "title") && !differ(&before, &after, "meta")
    };
    "stamp without change": "kind = 'stamps_moved'\nshare = 1.0\ntimes = 1" => |bed| {
        let (before, after) = (bed.shown(), bed.users());
        !differ(&before, &after, "title") && differ(&before, &after, "meta")
    };
    "late commit": "kind = 'late_commit'\nshare = 1.0\nseconds = 0\ntimes = 1" => |bed| {
        let (before, _) = (bed.shown(), bed.list(FIRST));
        differ(&before, &bed.users(), "title")
    };
    "hard delete": "kind = 'users_deleted'\nshare = 0.2\ntimes = 1" => |bed| {
        (1..60).contains(&bed.ids("count=60").len())
    };
    "undelete": "kind = 'undeleted'" => |bed| {
        let id = bed.sandbox.ids()[0].clone();
        bed.sandbox.delete(&id);
        bed.ids("count=60").contains(&id)
    };
    "clone": "kind = 'cloned'\nseed = 9\ntimes = 1" => |bed| {
        let before = bed.sandbox.ids();
        bed.get("/Users");
        before.iter().all(|id| !bed.sandbox.ids().contains(id))
    };
    "rollback": "kind = 'rolled_back'\nseconds = 3600" => |bed| {
        let id = bed.sandbox.create(&sandbox::Values::new());
        !bed.ids("count=60").contains(&id)
    };
    "mass disappearance": "kind = 'rows_hidden'\nshare = 1.0" => |bed| bed.list(FIRST)["totalResults"] == 0;
    "mass disappearance, for good": "kind = 'users_deleted'\nshare = 1.0\ntimes = 1" => |bed| {
        bed.list(FIRST)["totalResults"] == 0
    };
    "everybody flips to inactive": "kind = 'everybody_inactive'" => |bed| {
        rows(&bed.list("count=60")).iter().all(|user| user["active"] == false)
    };
    "manager cycles and dangling references": "kind = 'managers_tangled'\ntimes = 1" => |bed| {
        let list = bed.list("count=60");
        let manager = |user: &Value| user[EXTENSION]["manager"]["value"].clone();
        let own = rows(&list).iter().filter(|user| user["id"] == manager(user)).count();
        let dangling = rows(&list).iter().filter(|user| manager(user) == "0".repeat(32)).count();
        let mutual = rows(&list).iter().filter(|one| {
            rows(&list).iter().any(|other| {
                one["id"] != other["id"] && manager(one) == other["id"] && manager(other) == one["id"]
            })
        });
        own >= 1 && dangling == 1 && mutual.count() == 2
    };
    "twins": "kind = 'twins'\ntimes = 1" => |bed| {
        let list = bed.list("count=60");
        let texts = |of: &dyn Fn(&Value) -> Value| {
            let mut texts: Vec<String> =
                rows(&list).iter().filter_map(|user| Some(of(user).as_str()?.to_lowercase())).collect();
            texts.sort();
            texts.windows(2).any(|pair| pair[0] == pair[1])
        };
        texts(&|user| user["userName"].clone()) && texts(&|user| user["emails"][0]["value"].clone())
    };
    "odd ids": "kind = 'odd_id'\nid = 'import_No.7/é'\ntimes = 1" => |bed| {
        bed.ids("count=500").contains(&"import_No.7/é".to_owned())
    };
    "label rename": "kind = 'department_renamed'" => |bed| {
        let before = bed.shown();
        // One of them may be a department of nobody.
        for _ in 0..8 {
            bed.list(FIRST);
        }
        let after = bed.users();
        differ(&before, &after, EXTENSION) && !differ(&before, &after, "meta")
    };
    "empty forms": "kind = 'empty_forms'" => |bed| {
        rows(&bed.list("count=60")).iter().any(|user| user["externalId"] == "")
    };
    "HTML 200": "kind = 'html_page'" => |bed| bed.get("/Users").is_html(200);
    "HTML 302": "kind = 'redirect'\nlocation = 'https://elsewhere.example/login.do'" => |bed| {
        let answered = bed.get("/Users");
        answered.status == 302 && answered.headers.contains_key("location")
    };
    "HTML 503": "kind = 'edge_error'" => |bed| bed.get("/Users").is_html(503);
    "broken JSON with 200": "kind = 'broken_json'" => |bed| {
        let answered = bed.get("/Users");
        answered.status == 200 && serde_json::from_slice::<Value>(&answered.body).is_err()
    };
    "trailing error with 200": "kind = 'trailing_error'" => |bed| {
        let answered = bed.get("/Users");
        answered.status == 200 && serde_json::from_slice::<Value>(&answered.body).is_err()
    };
    "202": "kind = 'dropped'" => |bed| bed.get("/Users").status == 202;
    "429 with headers": "kind = 'rate_limited'" => |bed| {
        let answered = bed.get("/Users");
        answered.status == 429 && answered.headers["retry-after"] == "3600"
    };
    "429 without headers": "kind = 'semaphore_full'" => |bed| {
        let answered = bed.get("/Users");
        answered.status == 429 && !answered.headers.contains_key("retry-after")
    };
    "a header that is no number": "kind = 'header'\nheader = 'X-RateLimit-Reset'\nvalue = 'soon'" => |bed| {
        bed.get("/Users").headers["x-ratelimit-reset"] == "soon"
    };
    "token expiry mid-scan": "kind = 'token_ends'\npath = '*startIndex=11*'" => |bed| {
        let token = bed.sandbox.issue_token();
        let ask = |query: &str| bed.send(Method::GET, &format!("/api/now/scim/Users?{query}"), &token, "").status;
        ask(FIRST) == 200 && ask(SECOND) == 401
    };
    "shared token": "kind = 'token_shared'\nseconds = 3" => |bed| {
        let rules = bed.sandbox.auth();
        let form = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}",
            rules.client_id, rules.client_secret
        );
        let others = bed.sandbox.issue_token();
        let answered = bed.send(Method::POST, "/oauth_token.do", "", &form);
        let token: Value = serde_json::from_slice(&answered.body).unwrap();
        token["access_token"] == others && token["expires_in"].as_i64() <= Some(3)
    };
    "account lock-out": "kind = 'account_locked'\ntimes = 1" => |bed| {
        bed.get("/Users");
        bed.sandbox.is_locked()
    };
    "spurious 401": "kind = 'unauthorized'\ntimes = 1" => |bed| {
        bed.get("/Users").status == 401 && bed.get("/Users").status == 200
    };
    "role removed": "kind = 'role_missing'" => |bed| bed.get("/Users").status == 403;
    "slow page": "kind = 'slow'\nms = 70000" => |bed| bed.get("/Users").delay.as_secs() == 70;
    "cancelled": "kind = 'cancelled'" => |bed| bed.get("/Users").status == 500;
    "connection cut": "kind = 'cut'" => |bed| matches!(bed.get("/Users").delivery, Delivery::Cut(_));
    "connection reset": "kind = 'reset'" => |bed| bed.get("/Users").delivery == Delivery::Reset;
    "compressed body cut": "kind = 'gzip_cut'" => |bed| bed.get("/Users").delivery == Delivery::GzipCut;
};

/// What groups and their members can do, with the word for each case, in the same form.
const OF_GROUPS: &[Switch] = switches! {
    "cut member list": "kind = 'members_cut'\nmost = 1" => |bed| {
        let (before, after) = (bed.shown_groups(), bed.groups());
        differ(&before, &after, "members") && after.iter().all(|group| n_members(group) < 2)
    };
    "cut member list of one group": "kind = 'members_cut'\nmost = 0\nids = ['desk']" => |bed| {
        bed.sandbox.create_group_as("desk", &sandbox::GroupValues::named("Desk"));
        bed.sandbox.change_members("desk", &[], &[sandbox::Member::user("x")]);
        let groups = bed.groups();
        let (desks, others): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group["id"] == "desk");
        n_members(desks[0]) == 0 && others.into_iter().any(|group| n_members(group) > 0)
    };
    "member list empty by error": "kind = 'members_empty'" => |bed| {
        let (before, after) = (bed.shown_groups(), bed.groups());
        let had = before.iter().any(|group| n_members(group) > 0);
        had && after.iter().all(|group| group.get("members").is_none()) && !differ(&before, &after, "meta")
    };
    "members linked to somebody else": "kind = 'members_mislinked'" => |bed| {
        let groups = bed.groups();
        let mut members = groups.iter().filter_map(|group| group["members"].as_array()).flatten();
        members.all(|member| {
            let (id, link) = (member["value"].as_str().unwrap(), member["$ref"].as_str().unwrap());
            !link.ends_with(id)
        })
    };
    "list of groups empty by error":
        "kind = 'rows_hidden'\nshare = 1.0\npath = '*/Groups*'" => |bed| {
        bed.groups().is_empty() && bed.list("count=60")["totalResults"] == 60
    };
    "group not readable": "kind = 'groups_unreadable'" => |bed| {
        let id = bed.sandbox.group_ids()[0].clone();
        bed.groups().is_empty() && bed.get(&format!("/Groups/{id}")).status == 404
    };
    "group forbidden": "kind = 'groups_unreadable'\nstatus = 403" => |bed| {
        let id = bed.sandbox.group_ids()[0].clone();
        bed.get(&format!("/Groups/{id}")).status == 403
    };
    "member vanished": "kind = 'member_vanished'\ntimes = 1" => |bed| {
        let before = bed.sandbox.ids();
        let groups = bed.groups();
        let after = bed.sandbox.ids();
        let mut gone = before.iter().filter(|id| !after.contains(id));
        let text = Value::from(groups).to_string();
        gone.any(|id| text.contains(&format!("\"value\":\"{id}\"")))
    };
    "nested cycle": "kind = 'groups_tangled'\ntimes = 1" => |bed| {
        let groups = bed.groups();
        let has = |one: &Value, other: &Value| one["members"].to_string().contains(&other["id"].to_string());
        has(&groups[0], &groups[0]) && has(&groups[1], &groups[2]) && has(&groups[2], &groups[1])
    };
    "renamed group": "kind = 'group_renamed'\ntimes = 1" => |bed| {
        let (before, after) = (bed.shown_groups(), bed.groups());
        differ(&before, &after, "displayName") && !differ(&before, &after, "id")
    };
    "group deleted and made anew under the same name": "kind = 'group_remade'\ntimes = 1" => |bed| {
        let names = |groups: &[Value]| {
            let names = groups.iter().map(|group| group["displayName"].to_string());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        let (before, after) = (bed.shown_groups(), bed.groups());
        names(&before) == names(&after) && differ(&before, &after, "id")
    };
    "403 on groups only": "kind = 'groups_forbidden'" => |bed| {
        bed.get("/Groups").status == 403 && bed.get("/Users").status == 200
    };
    "a group blanked by a lost right": "kind = 'groups_blanked'" => |bed| {
        bed.groups().iter().all(|group| {
            group["meta"].is_object() && group.get("displayName").is_none() && group.get("members").is_none()
        })
    };
    "users show their memberships": "kind = 'memberships_shown'" => |bed| {
        rows(&bed.list("count=60")).iter().any(|user| user["groups"].is_array())
    };
};

fn all() -> impl Iterator<Item = &'static Switch> {
    SWITCHES.iter().chain(OF_GROUPS)
}

const EXTENSION: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
const FIRST: &str = "count=10&sortBy=id&sortOrder=ascending";
const SECOND: &str = "startIndex=11&count=10&sortBy=id&sortOrder=ascending";

#[test]
fn every_word_of_the_list_is_a_switch_that_is_read_and_fires() {
    for switch in all() {
        let bed = Bed::under(switch.script);
        assert!(
            (switch.shows)(&bed),
            "{}: `{}` did nothing",
            switch.word,
            switch.script
        );
        let fired = bed.sandbox.fired();
        assert!(
            fired.iter().all(|one| one.times > 0),
            "{}: {fired:?}",
            switch.word
        );
    }
}

/// The other way round: without its script none of them shows itself.
#[test]
fn none_of_them_is_seen_where_nothing_is_wrong() {
    for switch in all() {
        let quiet = Bed::under("kind = 'html_page'\nrequest = 1_000_000");
        let shows =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (switch.shows)(&quiet)));
        // A header that is not there, or a page that is one, may be a panic as well.
        assert!(!shows.unwrap_or(false), "`{}` is seen anyway", switch.word);
    }
}

/// A sandbox with one fault in force.
struct Bed {
    sandbox: Sandbox,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn under(fault: &str) -> Self {
        let options = sandbox::Options {
            users: 60,
            odd: false,
            ..sandbox::Options::default()
        };
        let sandbox = Sandbox::new(options, Arc::new(SystemClock));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faults.toml");
        std::fs::write(&path, format!("[[fault]]\n{fault}\n")).unwrap();
        let faults = sandbox::read_script(&path)
            .unwrap_or_else(|error| panic!("`{fault}`: {:#}", anyhow::Error::new(error)));
        sandbox.set_faults(faults);
        Self {
            sandbox,
            _folder: folder,
        }
    }

    fn send(&self, method: Method, target: &str, token: &str, form: &str) -> Reply {
        let mut headers = HeaderMap::new();
        if !token.is_empty() {
            let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            headers.insert("authorization", bearer);
        }
        if !form.is_empty() {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert("content-type", kind);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        self.sandbox.answer(&Incoming {
            method,
            path: path.to_owned(),
            query,
            headers,
            body: Bytes::copy_from_slice(form.as_bytes()),
        })
    }

    fn get(&self, target: &str) -> Reply {
        let token = self.sandbox.issue_token();
        self.send(Method::GET, &format!("/api/now/scim{target}"), &token, "")
    }

    fn list(&self, query: &str) -> Value {
        serde_json::from_slice(&self.get(&format!("/Users?{query}")).body).unwrap_or_default()
    }

    fn ids(&self, query: &str) -> Vec<String> {
        let list = self.list(query);
        let ids = rows(&list)
            .iter()
            .map(|user| user["id"].as_str().unwrap_or_default());
        ids.map(str::to_owned).collect()
    }

    fn users(&self) -> Vec<Value> {
        rows(&self.list("count=60")).to_vec()
    }

    fn groups(&self) -> Vec<Value> {
        let by_key = "/Groups?count=500&sortBy=id&sortOrder=ascending";
        let list: Value = serde_json::from_slice(&self.get(by_key).body).unwrap_or_default();
        rows(&list).to_vec()
    }

    /// All groups as a list would have them, without a request.
    fn shown_groups(&self) -> Vec<Value> {
        let groups = self.sandbox.group_ids();
        let groups = groups.iter().map(|id| self.sandbox.group_json(id).unwrap());
        groups
            .map(|json| serde_json::from_str(&json).unwrap())
            .collect()
    }

    /// All users as a list would have them, without a request.
    fn shown(&self) -> Vec<Value> {
        let users = self.sandbox.ids();
        let users = users.iter().map(|id| self.sandbox.user_json(id).unwrap());
        users
            .map(|json| serde_json::from_str(&json).unwrap())
            .collect()
    }
}

trait IsHtml {
    fn is_html(&self, status: u16) -> bool;
}

impl IsHtml for Reply {
    fn is_html(&self, status: u16) -> bool {
        let kind = self
            .headers
            .get("content-type")
            .and_then(|kind| kind.to_str().ok());
        self.status == status && kind.is_some_and(|kind| kind.starts_with("text/html"))
    }
}

fn rows(list: &Value) -> &[Value] {
    list["Resources"].as_array().map_or(&[], Vec::as_slice)
}

fn n_members(group: &Value) -> usize {
    group["members"].as_array().map_or(0, Vec::len)
}

/// Whether this member of somebody differs in two lists of the same resources.
fn differ(before: &[Value], after: &[Value], member: &str) -> bool {
    let mut pairs = before.iter().zip(after);
    pairs.any(|(one, other)| one[member] != other[member])
}
