//! The server, and `scim`, the client that edits it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::expected::string;
use super::people::{CORE, CUSTOM, ENTERPRISE, SERVICENOW, display_name, person, user_name};
use crate::harness::{Running, TIME_LIMIT, free_port, http};

/// The only token the server accepts.
pub(crate) const TOKEN: &str = "a-token-of-the-test";
pub(crate) const N_USERS: usize = 300;
/// Everybody after these has one of them as manager.
const N_MANAGERS: usize = 20;

/// The server; it ends when dropped, by its process id.
pub(crate) struct Scim2Server<'a> {
    _running: Running,
    tools: &'a Path,
    port: u16,
}

/// Whom the other client touched, by id.
pub(crate) struct Edited {
    pub(crate) joined: String,
    pub(crate) left: String,
    pub(crate) retitled: String,
    pub(crate) moved: String,
    pub(crate) replaced: String,
    pub(crate) deleted: BTreeSet<String>,
}

impl<'a> Scim2Server<'a> {
    pub(crate) fn start(tools: &'a Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let schemas = folder.path().join("schemas.json");
        std::fs::write(&schemas, schemas_text(tools)).expect("the schemas are written");
        let mut said = String::new();
        // The port is free when it is chosen; somebody may take it before the server does.
        for _ in 0..5 {
            let port = free_port();
            let mut command = Command::new(tools.join("scim2-server"));
            command
                .arg("--port")
                .arg(port.to_string())
                .arg("--schema")
                .arg(&schemas)
                .arg("--resource-type")
                .arg(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/tests/servers/scim2/resource-types.json"
                ))
                .args(["--bearer-token", TOKEN]);
            let mut running = Running::start(command);
            match running.wait_for(TIME_LIMIT, |line| line.starts_with("Serving SCIM on")) {
                Ok(_) => {
                    return Self {
                        _running: running,
                        tools,
                        port,
                    };
                }
                Err(output) => said = output,
            }
        }
        panic!("`scim2-server` does not start: {said}");
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everybody the server knows, in its own words: read in one page, by another HTTP client than
    /// the program's.
    pub(crate) fn users(&self) -> Vec<Value> {
        self.all("Users")
    }

    /// The same of groups.
    pub(crate) fn groups(&self) -> Vec<Value> {
        self.all("Groups")
    }

    fn all(&self, endpoint: &str) -> Vec<Value> {
        let url = format!("{}/v2/{endpoint}?count=1000", self.origin());
        let (status, body) = http::get(&url.parse().expect("a URL"), TOKEN);
        assert_eq!(status, 200);
        let list: Value = serde_json::from_slice(&body).expect("JSON");
        let all = list["Resources"].as_array().expect("resources").clone();
        assert_eq!(list["totalResults"].as_u64(), Some(all.len() as u64));
        all
    }

    /// Ids by user name.
    pub(crate) fn ids(&self) -> BTreeMap<String, String> {
        let of = |user: &Value, name: &str| string(&user[name]).expect("a name and an id");
        self.users()
            .iter()
            .map(|user| (of(user, "userName"), of(user, "id")))
            .collect()
    }

    /// The baseline: first everybody, then, as the ids are known, who reports to whom.
    pub(crate) fn fill(&self) {
        self.bulk((0..N_USERS).map(|n| {
            json!({"method": "POST", "path": "/Users", "bulkId": n.to_string(), "data": person(n)})
        }));
        let ids = self.ids();
        assert_eq!(ids.len(), N_USERS);
        self.bulk((N_MANAGERS..N_USERS).map(|n| {
            let boss = n % N_MANAGERS;
            let id = &ids[&user_name(boss)];
            // Some as ServiceNow has it, some only in the enterprise extension.
            let value = if n % 10 == 7 {
                json!({ENTERPRISE: {"manager": {"value": id}}})
            } else {
                json!({SERVICENOW: {"manager": {"value": id, "displayName": display_name(boss)}}})
            };
            json!({"method": "PATCH", "path": format!("/Users/{}", ids[&user_name(n)]), "data": {
                "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
                "Operations": [{"op": "add", "value": value}],
            }})
        }));
    }

    pub(crate) fn bulk(&self, operations: impl Iterator<Item = Value>) {
        let operations: Vec<Value> = operations.collect();
        let n = operations.len();
        let answer = self.scim(
            &["bulk"],
            &json!({
                "schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"],
                "Operations": operations,
            }),
        );
        let answer: Value = serde_json::from_str(&answer).expect("a bulk answer");
        let done = answer["Operations"].as_array().expect("operations");
        assert_eq!(done.len(), n);
        for operation in done {
            let status = operation["status"].to_string();
            assert!(status.trim_matches('"').starts_with('2'), "{operation}");
        }
    }

    /// What an administrator's tool does in a day.
    pub(crate) fn edit(&self) -> Edited {
        let ids = self.ids();
        let id = |n: usize| ids[&user_name(n)].clone();
        let edited = Edited {
            joined: String::new(),
            left: id(250),
            retitled: id(17),
            moved: id(101),
            replaced: id(222),
            deleted: [id(55), id(256), id(4)].into(),
        };
        self.scim(
            &["modify", "user", &edited.left, "replace", "active", "false"],
            &Value::Null,
        );
        self.scim(
            &[
                "modify",
                "user",
                &edited.retitled,
                "replace",
                "title",
                "Principal, Night Desk ",
                "remove",
                "externalId",
            ],
            &Value::Null,
        );
        self.scim(
            &[
                "modify",
                "user",
                &edited.moved,
                "replace",
                &format!("{SERVICENOW}:department.value"),
                "dep-new",
                "replace",
                &format!("{SERVICENOW}:department.name"),
                "Brand New Department",
                "replace",
                &format!("{SERVICENOW}:manager.value"),
                &id(3),
                "replace",
                &format!("{SERVICENOW}:manager.displayName"),
                &display_name(3),
                "replace",
                &format!("{CUSTOM}:floors"),
                r#"["2","9"]"#,
            ],
            &Value::Null,
        );
        // A replacement: whatever is not in it is no more.
        self.scim(
            &["replace", "user"],
            &json!({
                "schemas": [CORE, SERVICENOW],
                "id": edited.replaced,
                "userName": user_name(222),
                "displayName": "Somebody Else Entirely",
                "active": true,
                "phoneNumbers": [{"value": "+47 555 77", "type": "mobile"}],
                SERVICENOW: {"location": {"value": "loc-9", "name": "Kiruna"}},
            }),
        );
        for id in &edited.deleted {
            self.scim(&["delete", "user", id], &Value::Null);
        }
        self.scim(&["create", "user"], &person(N_USERS));
        Edited {
            joined: self.ids()[&user_name(N_USERS)].clone(),
            ..edited
        }
    }

    /// One command of the other client, `input` on its standard input.
    pub(crate) fn scim(&self, args: &[&str], input: &Value) -> String {
        let mut child = Command::new(self.tools.join("scim"))
            .args(["--url", &format!("{}/v2", self.origin())])
            .args(args)
            .env("SCIM_CLI_HEADERS", format!("Authorization: Bearer {TOKEN}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`scim` starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        if !input.is_null() {
            // A client that does not read it says why on its own.
            drop(stdin.write_all(input.to_string().as_bytes()));
        }
        drop(stdin);
        let output = child.wait_with_output().expect("`scim` ends");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "`scim {args:?}`: {stdout}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        stdout
    }
}

/// The server's own schemas with the extensions of ServiceNow added.
fn schemas_text(tools: &Path) -> String {
    let output = Command::new(tools.join("python"))
        .args([
            "-c",
            "from importlib.resources import files; \
             print((files('scim2_server') / 'resources' / 'default-schemas.json').read_text())",
        ])
        .output()
        .expect("python runs");
    let mut schemas: Vec<Value> =
        serde_json::from_slice(&output.stdout).expect("the server's default schemas");
    let extensions: Vec<Value> =
        serde_json::from_str(include_str!("../../servers/scim2/extensions.json")).expect("JSON");
    schemas.extend(extensions);
    serde_json::to_string(&schemas).expect("JSON")
}
