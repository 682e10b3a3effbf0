//! What `musterd check` finds out about an instance, before a sync has to.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use musterd::sandbox::{Effect, Fault, Poison, RateRule, RequestKind};
use serde_json::Value;

use crate::harness::served::{PAGE_SIZE, Served};
use crate::harness::{Auth, BINARY, Home, Instance, Ran, Running, TIME_LIMIT, free_port};

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
        "pages                  warning: 20 users where 50 were asked for",
        "a full sync            6 pages, at least 1s",
        "its rate limit         warning: tighter than `rate`: 90,000 requests an hour are kept to",
        "title                  warning: not shown for any of 20 users: nobody has one, or the account may not read it",
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
        said.contains("sort by id             warning: not honoured"),
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
    let said = told(&[Effect::EmptyPage], 1);
    assert!(
        said.contains("FAILED: no user where 50 were asked for"),
        "{said}"
    );
    assert!(
        !said.contains("sort by id"),
        "nothing is claimed behind it: {said}"
    );
    let said = told(&[Effect::RowsHidden { share: 1.0 }], 1);
    assert!(said.contains("there is nobody at all"), "{said}");
    assert!(said.contains("give the account its rights"), "{said}");
}

/// The steps of an instance: name, outcome, request and remedy.
fn steps(found: &Value) -> Vec<[String; 4]> {
    let steps = found["steps"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    steps
        .map(|step| ["name", "outcome", "request", "mend"].map(|key| text(&step[key])))
        .collect()
}

/// A request as it arrived, without the values of its filter.
fn without_values(line: &str) -> String {
    let line = line.replace("%20", " ").replace("%22", "\"");
    let parts: Vec<&str> = line.split('"').collect();
    let shown = |(place, part): (usize, &&str)| match place % 2 {
        0 => (*part).to_owned(),
        _ => "\"…\"".to_owned(),
    };
    parts.iter().enumerate().map(shown).collect()
}

#[test]
fn each_step_names_the_request_that_was_made_for_it() {
    let served = Served::of(USERS);
    let home = served.home("");
    let found = found(&home);
    let steps = steps(&found);
    let names: Vec<&str> = steps.iter().map(|[name, ..]| &**name).collect();
    assert_eq!(
        names,
        [
            "secret",
            "name_resolution",
            "connection",
            "token",
            "sign_in",
            "scim_plugin",
            "role",
            "answers",
            "clock",
            "pages",
            "full_sync",
            "rate_limit",
            "active",
            "department",
            "email",
            "manager",
            "title",
            "sort_by_id",
            "filter_by_id",
            "filter_by_id_range",
            "filter_by_last_modified",
            "both_filters",
            "inactive_users",
        ]
    );
    let made: Vec<String> = served
        .sandbox
        .requests()
        .iter()
        .map(|request| without_values(&request.line))
        .collect();
    let mut told = std::collections::BTreeSet::new();
    for [name, outcome, request, mend] in &steps {
        assert_eq!((&**outcome, &**mend), ("passed", "-"), "{name}");
        if request != "-" {
            assert!(
                made.contains(request),
                "{name}: {request} is not among {made:#?}"
            );
            told.insert(request);
        }
    }
    // None of what was asked is left out, but for the limits of time that no row can lie beyond.
    let untold: Vec<_> = made.iter().filter(|line| !told.contains(line)).collect();
    assert!(untold.is_empty(), "{untold:#?}");

    let ran = home.run(&["check"]);
    let said = ran.stdout.lines().map(str::trim_end).collect::<Vec<_>>();
    let at = |line: &str| {
        let place = said.iter().position(|said| *said == line);
        place.unwrap_or_else(|| panic!("`{line}`: {ran}"))
    };
    assert!(at("  POST /oauth_token.do") < at("    token                  one was given"));
    let list = "  GET /api/now/scim/Users?count=1&sortBy=id&sortOrder=ascending";
    assert!(at("    token                  one was given") < at(list));
    assert!(at(list) < at("    role                   not refused"));
}

#[test]
fn the_step_that_fails_is_the_last_one_and_says_how_to_mend_it() {
    let served = Served::of(USERS);
    let home = served.home("");
    let way = ["secret", "name_resolution", "connection"];
    let token = [&way[..], &["token"]].concat();
    let in_there = [&token[..], &["sign_in"]].concat();
    let list = "GET /api/now/scim/Users?count=1&sortBy=id&sortOrder=ascending";
    let cases = [
        (
            Effect::EdgeError { status: 503 },
            RequestKind::Token,
            &way[..],
            "token",
            "POST /oauth_token.do",
            "token endpoint",
        ),
        (
            Effect::RoleMissing,
            RequestKind::List,
            &in_there,
            "role",
            list,
            "`scim_admin`",
        ),
        (
            Effect::ScopeMissing,
            RequestKind::List,
            &in_there,
            "role",
            list,
            "scope",
        ),
        (
            Effect::PluginInactive { status: 404 },
            RequestKind::List,
            &in_there,
            "scim_plugin",
            list,
            "com.snc.integration.scim2",
        ),
        (
            Effect::PluginInactive { status: 400 },
            RequestKind::List,
            &in_there,
            "scim_plugin",
            list,
            "com.snc.integration.scim2",
        ),
        (
            Effect::HtmlPage,
            RequestKind::List,
            &token,
            "scim_plugin",
            list,
            "hibernates",
        ),
        (
            Effect::Redirect {
                location: "/login.do".to_owned(),
            },
            RequestKind::List,
            &token,
            "scim_plugin",
            list,
            "redirects are not followed",
        ),
        (
            Effect::SortRefused,
            RequestKind::List,
            &in_there,
            "sort_by_id",
            list,
            "accept `sortBy=id`",
        ),
        (
            Effect::SemaphoreFull,
            RequestKind::List,
            &token,
            "answers",
            list,
            "`rate`",
        ),
    ];
    for (effect, kind, before, name, request, mend) in cases {
        served
            .sandbox
            .set_faults(vec![Fault::new(effect.clone()).on(&[kind])]);
        let ran = home.run(&["check", "--json"]);
        assert_eq!(ran.code, Some(1), "{effect:?}: {ran}");
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        let mut steps = steps(&found);
        let last = steps.pop().unwrap();
        assert_eq!(
            [&*last[0], &*last[1], &*last[2]],
            [name, "failed", request],
            "{effect:?}"
        );
        assert!(last[3].contains(mend), "{effect:?}: {last:?}");
        assert_eq!(found["hint"].as_str().unwrap_or("-"), last[3], "{effect:?}");
        let passed: Vec<&str> = steps.iter().map(|[name, ..]| &**name).collect();
        assert_eq!(passed, before, "{effect:?}");
        assert!(steps.iter().all(|step| step[1] == "passed"), "{steps:?}");
    }
    served
        .sandbox
        .set_faults(vec![Fault::new(Effect::RoleMissing)]);
    let ran = home.run(&["check"]);
    for line in [
        "role                   FAILED: answered 403 (Forbidden): ",
        "what to do           the account needs the role `scim_admin`",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {ran}");
    }
}

#[test]
fn a_connection_that_is_not_made_is_told_by_where_it_ended() {
    let served = Served::of(1);
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let plain = served.url.replace("http://", "https://");
    for (url, before, name) in [
        ("https://acme.invalid", &["secret"][..], "name_resolution"),
        (&nobody, &["secret", "name_resolution"], "connection"),
        (&plain, &["secret", "name_resolution", "connection"], "tls"),
    ] {
        let home = Home::new(&[Instance {
            name: "acme",
            url,
            scim_path: "/api/now/scim",
            auth: Auth::Bearer("token"),
            page_size: PAGE_SIZE,
            more: "",
        }]);
        let ran = home.run(&["check", "--json"]);
        assert_eq!(ran.code, Some(1), "{url}: {ran}");
        let found: Value = serde_json::from_str(&ran.stdout).unwrap();
        let mut steps = steps(&found);
        let last = steps.pop().unwrap();
        assert_eq!([&*last[0], &*last[1]], [name, "failed"], "{ran}");
        let names: Vec<&str> = steps.iter().map(|[name, ..]| &**name).collect();
        assert_eq!(names, before, "{ran}");
    }
}

/// A machine on which the unit is installed: this configuration, and the mirror in a folder of its own.
struct Machine {
    home: Home,
}

impl Machine {
    fn new(more: &str) -> Self {
        let machine = Self {
            home: Home::new(&[]),
        };
        let text = format!(
            "[mirror]\npath = {:?}\n{more}",
            machine.path("state/mirror.db")
        );
        machine.write("musterd.toml", 0o640, &text);
        machine.write("secret", 0o600, "hush");
        machine.unit(BINARY, "");
        std::fs::create_dir(machine.path("state")).unwrap();
        machine.set_mode("state", 0o750);
        machine
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn set_mode(&self, name: &str, mode: u32) {
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn write(&self, name: &str, mode: u32, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
        self.set_mode(name, mode);
    }

    fn unit(&self, program: &str, more: &str) {
        let config = self.home.config_path();
        let text = format!(
            "[Service]\nExecStart={program} --config {} run\n{more}\n",
            config.display()
        );
        self.write("units/musterd.service", 0o644, &text);
    }

    fn check(&self, args: &[&str]) -> Ran {
        let mut command = self.home.command(BINARY);
        command
            .arg("check")
            .args(args)
            .env("SYSTEMD_UNIT_PATH", self.path("units"));
        Running::start(command).finish(TIME_LIMIT)
    }

    /// Exit code, and the steps that did not pass: name, outcome, and what to do about it.
    fn trouble(&self) -> (Option<i32>, Vec<[String; 3]>) {
        let ran = self.check(&["--offline", "--json"]);
        let found: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran}"));
        let steps = found["local"].as_array().unwrap().iter();
        let told = steps
            .filter(|step| step["outcome"] != "passed")
            .map(|step| {
                ["name", "outcome", "mend"].map(|key| step[key].as_str().unwrap_or("-").to_owned())
            });
        (ran.code, told.collect())
    }

    #[track_caller]
    fn assert_trouble(&self, code: i32, name: &str, outcome: &str, mend: &str) {
        let (exit, told) = self.trouble();
        assert_eq!(exit, Some(code), "{told:?}");
        let [[named, thought, remedy]] = &told[..] else {
            panic!("one step: {told:?}");
        };
        assert_eq!([&**named, &**thought], [name, outcome]);
        assert!(remedy.contains(mend), "{remedy}");
    }
}

const WITH_CREDENTIAL: &str = "[instances.acme]\nurl = 'https://acme.service-now.com'\n\
    auth = { type = 'bearer', token = { credential = 'acme' } }\n\
    [instances.globex]\nurl = 'https://globex.service-now.com'\n\
    auth = { type = 'bearer', token = { file = 'secret' } }\n";

#[test]
fn this_machine_is_looked_at_before_anything_runs() {
    let machine = Machine::new(WITH_CREDENTIAL);
    machine.unit(
        BINARY,
        &format!("LoadCredential=acme:{}", machine.path("secret").display()),
    );
    assert_eq!(machine.trouble(), (Some(0), vec![]));
    let ran = machine.check(&["--offline"]);
    for line in [
        "this machine\n",
        "which is this program",
        "    credentials            1 credential, in order",
        "    secret files           1 secret file, in order",
        "    mirror files           no mirror file",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {ran}");
    }
    assert!(!format!("{ran}").contains("hush"));

    // What makes the daemon fail is a failure, what is unwise a warning.
    let drop_in = "units/musterd.service.d/credentials.conf";
    machine.write(drop_in, 0o644, "[Service]\nLoadCredential=\n");
    machine.assert_trouble(1, "credentials", "failed", "LoadCredential=acme:FILE");
    machine.write(
        drop_in,
        0o644,
        "[Service]\nLoadCredential=\nLoadCredentialEncrypted=acme:/absent/acme\n",
    );
    machine.assert_trouble(1, "credentials", "failed", "systemd-creds");
    machine.write(
        drop_in,
        0o644,
        "[Service]\nLoadCredential=\nSetCredentialEncrypted=acme: abc\n",
    );
    assert_eq!(machine.trouble(), (Some(0), vec![]));

    for (name, mode, step, mend) in [
        ("state", 0o755, "mirror_folder", "chmod 0750"),
        ("musterd.toml", 0o660, "configuration_files", "chmod 0640"),
        ("secret", 0o640, "secret_files", "chmod 0600"),
    ] {
        let before = machine.path(name).metadata().unwrap().permissions();
        machine.set_mode(name, mode);
        machine.assert_trouble(0, step, "warned", mend);
        std::fs::set_permissions(machine.path(name), before).unwrap();
    }
    for (file, right, wrong, mend) in [
        ("state/mirror.db-wal", 0o640, 0o644, "chmod 0640"),
        ("state/mirror.db.auth-acme", 0o600, 0o640, "chmod 0600"),
    ] {
        machine.write(file, right, "");
        assert_eq!(machine.trouble(), (Some(0), vec![]), "{file}");
        machine.set_mode(file, wrong);
        machine.assert_trouble(0, "mirror_files", "warned", mend);
        std::fs::remove_file(machine.path(file)).unwrap();
    }

    std::fs::remove_dir(machine.path("state")).unwrap();
    machine.assert_trouble(1, "mirror_folder", "failed", "install -d -m 0750");
}

#[test]
fn the_unit_is_this_programs_and_this_configurations() {
    let machine = Machine::new("");
    machine.unit("/absent/musterd", "");
    machine.assert_trouble(1, "unit", "failed", "install the program there");
    machine.unit("/bin/sh", "");
    machine.assert_trouble(0, "unit", "warned", "restart musterd");
    std::fs::copy(BINARY, machine.path("copy")).unwrap();
    machine.unit(machine.path("copy").to_str().unwrap(), "");
    assert_eq!(machine.trouble(), (Some(0), vec![]));

    // One of another configuration says nothing about this one.
    let elsewhere = format!("[Service]\nExecStart={BINARY} run\nUser=nobody\n");
    machine.write("units/musterd.service", 0o644, &elsewhere);
    machine.assert_trouble(0, "unit", "unknown", "-");
    std::fs::remove_file(machine.path("units/musterd.service")).unwrap();
    machine.assert_trouble(0, "unit", "unknown", "README");
}

/// The account that the unit names decides, whoever looks.
#[test]
fn what_the_account_of_the_daemon_cannot_read_makes_it_fail() {
    let machine = Machine::new(
        "[instances.acme]\nurl = 'https://acme.service-now.com'\n\
        auth = { type = 'bearer', token = { file = 'secret' } }\n",
    );
    if Path::new("/proc/self")
        .metadata()
        .map(|own| std::os::unix::fs::MetadataExt::uid(&own))
        .unwrap()
        != 0
    {
        return eprintln!("skipped: only root can give files to other accounts");
    }
    machine.unit(BINARY, "User=nobody");
    let (code, told) = machine.trouble();
    assert_eq!(code, Some(1));
    let failed: Vec<&str> = told
        .iter()
        .filter(|[_, outcome, mend]| outcome == "failed" && mend.contains("nobody"))
        .map(|[name, ..]| &**name)
        .collect();
    assert_eq!(
        failed,
        ["mirror_folder", "configuration_files", "secret_files"],
        "{told:?}"
    );
    // A daemon that may read its secret may still find a file that root has made.
    machine.unit(BINARY, "");
    machine.write("state/mirror.db.before-v1", 0o640, "");
    std::os::unix::fs::chown(
        machine.path("state/mirror.db.before-v1"),
        Some(61_001),
        None,
    )
    .unwrap();
    let ran = machine.check(&["--offline", "--json"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stdout.contains("belongs to 61001"), "{ran}");
}

#[test]
fn a_failure_here_counts_beside_instances_that_answer() {
    let served = Served::of(20);
    let home = served.home("");
    let units = home.path().join("units");
    std::fs::create_dir(&units).unwrap();
    let text = format!(
        "[Service]\nExecStart=/absent --config {} run\n",
        home.config_path().display()
    );
    std::fs::write(units.join("musterd.service"), text).unwrap();
    let mut command = home.command(BINARY);
    command
        .args(["check", "--json"])
        .env("SYSTEMD_UNIT_PATH", &units);
    let ran = Running::start(command).finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(1), "{ran}");
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["error"], Value::Null, "{ran}");
    let local = found["local"].as_array().unwrap();
    assert!(
        local
            .iter()
            .any(|step| step["name"] == "unit" && step["outcome"] == "failed")
    );
}
