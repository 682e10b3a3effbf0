//! The command line from outside: exit codes, what goes to which stream, and what a terminal is shown.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::filled::{Filled, person};
use crate::harness::{BINARY, Home, Running, TIME_LIMIT};

/// The commands that `--help` lists, in its order.
const COMMANDS: [&str; 23] = [
    "run",
    "sync",
    "link",
    "unlink",
    "check",
    "status",
    "changes",
    "user",
    "chain",
    "group",
    "groups",
    "holds",
    "map",
    "wait",
    "verify",
    "backup",
    "restore",
    "relink",
    "rename",
    "config",
    "sandbox",
    "demo",
    "completions",
];

#[test]
fn help_lists_exactly_the_commands_that_work_each_with_an_example() {
    let home = Home::new(&[]);
    let help = home.run(&["--help"]);
    assert_eq!(help.code, Some(0), "{help}");
    let listed: Vec<&str> = help
        .stdout
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(listed, COMMANDS);
    for command in COMMANDS {
        let help = home.run(&[command, "--help"]);
        assert_eq!(help.code, Some(0), "{help}");
        assert!(help.stdout.contains("Example"), "`{command}`: {help}");
    }
}

#[test]
fn wrong_usage_exits_2_and_says_what_is_wrong() {
    let home = Home::new(&[]);
    for (args, said) in [
        (&[][..], "Usage"),
        (&["frobnicate"], "frobnicate"),
        (&["status", "--max-age", "soon"], "soon"),
        (&["changes", "--kind", "delete"], "deactivate"),
        (&["changes", "--after", "-1"], "-1"),
        (&["changes", "--epoch", "e"], "--after"),
        (&["changes", "--limit", "0"], "0"),
        (
            &["changes", "--after", "1", "--limit", "1", "--follow"],
            "--limit",
        ),
        (&["user", "acme"], "KEY"),
    ] {
        let ran = home.run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran}");
        assert!(ran.stderr.contains(said), "{args:?}: {ran}");
        assert_eq!(ran.stdout, "", "{args:?}");
    }
}

#[test]
fn a_mirror_that_is_not_there_is_named() {
    let home = Home::new(&[]);
    for args in [
        &["status"][..],
        &["changes"],
        &["user", "acme", "ada"],
        &["verify"],
    ] {
        let ran = home.run(&[args, &["--mirror", "nowhere/mirror.db"]].concat());
        assert_eq!(ran.code, Some(1), "{args:?}: {ran}");
        assert!(ran.stderr.starts_with("error: "), "{ran}");
        assert!(ran.stderr.contains("nowhere/mirror.db"), "{ran}");
        assert_eq!(ran.stdout, "", "{args:?}");
    }
}

#[test]
fn the_configuration_names_the_mirror_and_its_secrets_are_not_asked_for() {
    let filled = Filled::new(&[person("u1", "ada.lovelace")]);
    let home = filled.home();
    std::fs::write(
        home.config_path(),
        format!(
            "[mirror]\npath = {:?}\n[instances.acme]\nurl = \"https://acme.service-now.com\"\n\
             auth = {{ type = \"bearer\", token = {{ file = \"/nowhere/secret\" }} }}\n",
            home.mirror_path()
        ),
    )
    .unwrap();
    let ran = home.run(&["user", "acme", "ada.lovelace"]);
    assert_eq!(ran.code, Some(0), "{ran}");

    let ran = home.run(&["status", "--config", "nowhere.toml"]);
    assert_eq!(ran.code, Some(78), "{ran}");
    assert!(ran.stderr.contains("nowhere.toml"), "{ran}");
}

#[test]
fn every_reading_command_answers_in_json_by_column_name() {
    let filled = Filled::new(&[person("u1", "ada.lovelace"), person("u2", "alan.turing")]);
    let keys = |args: &[&str]| {
        let ran = filled.run(&[args, &["--json"]].concat());
        let line = ran.stdout.lines().next().unwrap_or_else(|| panic!("{ran}"));
        let object: Value = serde_json::from_str(line).unwrap();
        (ran.stdout.lines().count(), object)
    };
    let (n_lines, status) = keys(&["status"]);
    assert_eq!((n_lines, &status["instance"]), (1, &json!("acme")));
    let (n_lines, change) = keys(&["changes"]);
    assert_eq!(n_lines, 2);
    assert_eq!(change["after"]["userName"], "ada.lovelace");
    assert_eq!(change["seq"], 1);
    let (n_lines, user) = keys(&["user", "acme", "u2"]);
    assert_eq!(n_lines, 1);
    assert_eq!(user["user_name"], "alan.turing");
    assert_eq!(user["active"], true);
    assert_eq!(user["attributes"]["userName"], "alan.turing");
    let (n_lines, chain) = keys(&["chain", "acme", "u2"]);
    assert_eq!(n_lines, 1);
    assert_eq!(chain, json!({ "chain": [], "approver": null }));
    let (n_lines, state) = keys(&["user", "acme", "u2", "--history"]);
    assert_eq!((n_lines, &state["valid_to"]), (1, &Value::Null));
    assert_eq!(state["attributes"], user["attributes"]);
    let (n_lines, then) = keys(&["user", "acme", "u2", "--as-of", "9999-01-01"]);
    assert_eq!((n_lines, then), (1, user));
    let (n_lines, verified) = keys(&["verify"]);
    assert_eq!((n_lines, &verified["difference"]), (1, &Value::Null));
}

#[test]
fn a_user_is_found_by_id_name_or_email_and_several_are_all_shown() {
    let twin = |id: &str| {
        let mut user = person(id, &format!("name.{id}"));
        user["emails"] = json!([{ "type": "work", "value": "shared@example.com" }]);
        user
    };
    let filled = Filled::new(&[twin("u1"), twin("u2")]);
    for key in ["u1", "NAME.U1"] {
        let ran = filled.run(&["user", "acme", key]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(
            ran.stdout.contains("name.u1") && !ran.stdout.contains("name.u2"),
            "{ran}"
        );
    }
    let both = filled.run(&["user", "acme", "shared@example.com"]);
    assert_eq!(both.code, Some(3), "{both}");
    assert!(
        both.stdout.contains("name.u1") && both.stdout.contains("name.u2"),
        "{both}"
    );
    let nobody = filled.run(&["user", "acme", "nobody"]);
    assert_eq!(
        (nobody.code, nobody.stdout.as_str()),
        (Some(1), ""),
        "{nobody}"
    );
    let nowhere = filled.run(&["user", "acne", "u1"]);
    assert_eq!(nowhere.code, Some(1), "{nowhere}");
    assert!(
        nowhere.stderr.contains("acne") && nowhere.stderr.contains("acme"),
        "{nowhere}"
    );
}

#[test]
fn a_user_is_shown_as_he_was_and_with_all_that_he_was() {
    let titled = |title: &str| {
        let mut user = person("u1", "ada");
        user["title"] = json!(title);
        user
    };
    let mut filled = Filled::new(&[titled("Clerk"), person("u2", "alan")]);
    filled.apply(&[titled("Boss")]);
    let history = filled.run(&["user", "acme", "ada", "--history"]);
    assert_eq!(history.code, Some(0), "{history}");
    let lines: Vec<&str> = history.stdout.lines().collect();
    assert!(
        matches!(lines[..], [new, changed] if new.contains("create/baseline") && changed.contains("title: Clerk → Boss")),
        "{history}"
    );

    let json = filled.run(&["user", "acme", "ada", "--history", "--json"]);
    let states: Vec<Value> = json
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(states[0]["valid_to"], states[1]["valid_from"]);
    let title = |moment: &Value| {
        let ran = filled.run(&[
            "user",
            "acme",
            "ada",
            "--as-of",
            moment.as_str().unwrap(),
            "--json",
        ]);
        assert_eq!(ran.code, Some(0), "{ran}");
        serde_json::from_str::<Value>(&ran.stdout).unwrap()["title"].clone()
    };
    let began = states.iter().map(|state| title(&state["valid_from"]));
    assert_eq!(began.collect::<Vec<_>>(), ["Clerk", "Boss"]);

    let before = filled.run(&["user", "acme", "ada", "--as-of", "2020-01-01"]);
    assert_eq!((before.code, &*before.stdout), (Some(1), ""), "{before}");
    assert!(before.stderr.contains("had no user `u1` then"), "{before}");
    for wrong in [
        &["--as-of", "soon"][..],
        &["--as-of", "2020-01-01", "--history"],
    ] {
        let ran = filled.run(&[&["user", "acme", "ada"], wrong].concat());
        assert_eq!(ran.code, Some(2), "{ran}");
    }
}

#[test]
fn a_place_that_is_not_in_the_feed_exits_3() {
    let filled = Filled::new(&[person("u1", "ada"), person("u2", "alan")]);
    let epoch: String = filled.home().one("SELECT epoch FROM feed");
    let after = |args: &[&str]| filled.run(&[&["changes", "--json"], args].concat());
    let rest = after(&["--after", "1", "--epoch", &epoch]);
    assert_eq!(
        (rest.code, rest.stdout.lines().count()),
        (Some(0), 1),
        "{rest}"
    );
    let end = after(&["--after", "2"]);
    assert_eq!((end.code, end.stdout.as_str()), (Some(0), ""), "{end}");
    for (gone, said) in [
        (&["--after", "3"][..], "ends at 2"),
        (&["--after", "1", "--epoch", "other"], "epoch"),
    ] {
        let ran = after(gone);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), ""), "{ran}");
        assert!(ran.stderr.contains(said), "{ran}");
        assert!(ran.stderr.contains("read `users` again"), "{ran}");
    }
}

#[test]
fn following_shows_what_is_committed_until_ctrl_c() {
    let mut filled = Filled::new(&[person("u1", "ada")]);
    let mut following = filled
        .home()
        .start(&["changes", "--follow", "--kind", "update"]);
    // Nothing to see yet: the first record that fits is committed after the start.
    let mut ada = person("u1", "ada");
    ada["title"] = json!("Countess");
    filled.apply(&[ada]);
    let line = following
        .wait_for(TIME_LIMIT, |line| line.contains("Countess"))
        .unwrap();
    assert!(line.contains("(none) → Countess"), "{line}");
    following.interrupt();
    assert_eq!(following.finish(TIME_LIMIT).code, Some(130));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let many: Vec<Value> = (0..2_000)
        .map(|n| person(&format!("u{n:04}"), &format!("user.{n}")))
        .collect();
    let filled = Filled::new(&many);
    let mut child = Command::new(env!("CARGO_BIN_EXE_musterd"))
        .args(["changes", "--after", "0", "--mirror"])
        .arg(filled.home().mirror_path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(stderr, "");
    assert!(line.contains("user.0"), "{line}");
}

#[test]
fn names_from_an_instance_steer_no_terminal() {
    let hostile: Vec<char> = ('\0'..='\u{1f}')
        .chain('\u{7f}'..='\u{9f}')
        .chain("\u{61c}\u{200b}\u{200e}\u{202a}\u{202e}\u{2028}\u{2029}\u{2066}\u{2069}\u{feff}\u{e0041}".chars())
        .collect();
    let users: Vec<Value> = hostile
        .iter()
        .enumerate()
        .map(|(n, c)| {
            let mut user = person(&format!("u{n:03}"), &format!("n{c}[2J{n}"));
            user["displayName"] = json!(format!("D{c}]0;x\u{7}{n}"));
            user["title"] = json!(format!("{c}"));
            user
        })
        .collect();
    let filled = Filled::new(&users);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["changes", "--after", "0"],
        &["changes", "--after", "0", "--json"],
        &["user", "acme", "u027"],
        &["user", "acme", "u027", "--json"],
        &["user", "acme", "u027", "--history"],
        &["user", "acme", "u027", "--history", "--json"],
        &["user", "acme", "u027", "--as-of", "9999-01-01"],
        &["user", "acme", "\u{1b}[31m"],
        &["chain", "acme", "u027"],
        &["chain", "acme", "u027", "--json"],
        &["user", "acme", "\u{1b}[31m", "--as-of", "2026-01-01"],
    ] {
        let ran = filled.run(args);
        for stream in [&ran.stdout, &ran.stderr] {
            let unsafe_chars: Vec<char> = stream
                .chars()
                .filter(|c| *c != '\n' && hostile.contains(c))
                .collect();
            assert!(unsafe_chars.is_empty(), "{args:?}: {unsafe_chars:?}");
        }
    }
    let lines = filled.run(&["changes", "--after", "0"]).stdout;
    assert_eq!(lines.lines().count(), users.len(), "one record, one line");
    // Exact for programs: what was escaped is what was stored.
    let json = filled.run(&["user", "acme", "u027", "--json"]).stdout;
    let user: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(user["user_name"], users[27]["userName"]);
}

#[test]
fn a_terminal_is_shown_the_status_anew_until_it_is_interrupted() {
    let mut filled = Filled::new(&[person("u1", "ada.lovelace")]);
    let refused = filled.run(&["status", "--watch"]);
    assert_eq!(refused.code, Some(1), "{refused}");
    assert!(
        refused.stderr.contains("`--watch` shows on a terminal"),
        "{refused}"
    );

    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = std::fs::File::options()
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut command = filled.home().command(BINARY);
    command.args(["status", "--watch"]).env("TERM", "xterm");
    let watching = Running::start_on(command, terminal);
    let mut screen = BufReader::new(std::fs::File::from(master));
    let mut wait_for = |wanted: &str| {
        let deadline = Instant::now() + TIME_LIMIT;
        let mut shown = String::new();
        // It says something every two seconds.
        while !shown.contains(wanted) {
            assert!(Instant::now() < deadline, "{shown:?}");
            screen.read_line(&mut shown).unwrap();
        }
        shown
    };
    let first = wait_for("Ctrl-C ends it");
    assert!(first.contains("acme") && first.contains(" 1 "), "{first:?}");
    filled.apply(&[person("u1", "ada.lovelace"), person("u2", "alan.turing")]);
    let next = wait_for(" 2 ");
    assert!(next.contains("\u{1b}[2J"), "{next:?}");
    watching.interrupt();
    assert_eq!(watching.finish(TIME_LIMIT).code, Some(130));
}

#[test]
fn completions_are_written_for_every_shell() {
    let home = Home::new(&[]);
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert!(ran.stdout.contains("max-age"), "{shell}: {ran}");
    }
}

/// A demo whose folder is made in this home.
fn demo(home: &Home, args: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_musterd"));
    command.arg("demo").args(args).env("TMPDIR", home.path());
    Running::start(command)
}

fn demo_mirror(home: &Home) -> String {
    let folders = std::fs::read_dir(home.path()).unwrap();
    let names = folders.map(|entry| entry.unwrap().path().join("mirror.db"));
    let mirrors: Vec<_> = names.filter(|mirror| mirror.exists()).collect();
    assert_eq!(mirrors.len(), 1, "{mirrors:?}");
    mirrors[0].to_str().unwrap().to_owned()
}

#[test]
fn a_demo_shows_the_baseline_and_then_what_changes_and_leaves_a_sound_mirror() {
    let home = Home::new(&[]);
    let mut demo = demo(&home, &[]);
    let sum = demo.wait_for(TIME_LIMIT, |line| line.starts_with("The baseline took"));
    assert!(sum.unwrap().contains("500 users"));
    let mirror = demo_mirror(&home);
    demo.wait_for(TIME_LIMIT, |line| line.contains("  demo  update/changed  "))
        .unwrap();
    demo.interrupt();
    let ended = demo.finish(TIME_LIMIT);
    assert_eq!(ended.code, Some(130), "{ended}");
    assert!(ended.stdout.contains(&mirror), "{ended}");
    let verified = home.run(&["verify", "--mirror", &mirror]);
    assert_eq!(verified.code, Some(0), "{verified}");
}

#[test]
fn a_demo_ends_by_itself_after_its_time() {
    let home = Home::new(&[]);
    let ended = demo(&home, &["--for", "1s"]).finish(TIME_LIMIT);
    assert_eq!(ended.code, Some(0), "{ended}");
    let verified = home.run(&["verify", "--mirror", &demo_mirror(&home)]);
    assert_eq!(verified.code, Some(0), "{verified}");
}
