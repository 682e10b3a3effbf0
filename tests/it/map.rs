//! `musterd map`: own profiles and who each of them is, beside a daemon and without one.

use musterd::sandbox::{Column, Values};
use serde_json::Value;

use crate::harness::served::Served;
use crate::harness::{Home, Ran, Running, TIME_LIMIT};
use crate::rate::{done, heard};

/// Syncs when it is told to.
const SELDOM: &str = "schedule = { incremental = \"0 0 0 1 1 *\", full = \"0 0 0 1 1 *\" }\n";

struct Scene {
    served: Served,
    home: Home,
}

impl Scene {
    /// An instance of thirty users, of whom three have keys that are known here, and their ids.
    fn new(more: &str) -> (Self, [String; 3]) {
        let served = Served::of(30);
        let home = served.home(&format!("{SELDOM}{more}"));
        let made = ["ada", "grace", "alan"].map(|name| {
            let values = Values::new()
                .with(Column::UserName, format!("{name}.own"))
                .with(Column::Email, format!("{name}@own.example"))
                .with(Column::EmployeeNumber, format!("own-{name}"))
                .active(true);
            served.sandbox.create(&values)
        });
        (Self { served, home }, made)
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn map(&self, args: &[&str]) -> Ran {
        self.home.run(&[&["map"], args].concat())
    }

    fn import(&self, file: &str) -> Ran {
        self.map(&["import", "acme", file])
    }

    fn sync(&self, mode: &str) {
        done(&self.home.sync(mode));
    }

    fn update(&self, id: &str, values: &Values) {
        assert!(self.served.sandbox.update(id, values));
    }

    /// Every profile: name, state, user.
    fn standing(&self) -> Vec<String> {
        self.home.list(
            "SELECT profile || ' ' || state || ' ' || coalesce(user_id, '-') FROM identities ORDER BY profile",
        )
    }

    fn daemon(&self) -> Running {
        let mut daemon = self.home.start(&["run"]);
        // Its socket listens from then on.
        heard(&mut daemon, "\"started\"");
        daemon
    }
}

fn stop(daemon: Running) -> Ran {
    daemon.terminate();
    daemon.finish(TIME_LIMIT)
}

fn failed(ran: &Ran, said: &str) {
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stderr.contains(said), "{ran}");
}

#[test]
fn csv_and_jsonl_say_the_same_with_a_daemon_and_without() {
    let (scene, [ada, grace, alan]) = Scene::new("");
    scene.sync("full");
    let csv = scene.file(
        "a.csv",
        "\u{feff}email,profile,employee_number\r\nADA@own.example,p1,\r\n,\"p,2\",own-grace\r\nalan@own.example,p3,\r\nx,p4,\r\n",
    );
    let ran = scene.import(&csv);
    done(&ran);
    assert!(ran.stdout.contains("4 profiles new"), "{ran}");
    assert!(ran.stdout.contains("3 matched, 1 missing"), "{ran}");
    let expected = [
        format!("p,2 matched {grace}"),
        format!("p1 matched {ada}"),
        format!("p3 matched {alan}"),
        "p4 missing -".to_owned(),
    ];
    assert_eq!(scene.standing(), expected);
    scene.home.verify();

    let daemon = scene.daemon();
    let head = || scene.home.one::<i64>("SELECT last_seq FROM feed");
    let before = head();
    let jsonl = scene.file(
        "a.jsonl",
        "{\"profile\":\"p1\",\"email\":\"ADA@own.example\"}\n\n{\"employee_number\":\"own-grace\",\"profile\":\"p,2\"}\n\
         {\"profile\":\"p3\",\"email\":\"alan@own.example\",\"user_name\":null}\n{\"profile\":\"p4\",\"email\":\"x\"}",
    );
    let ran = scene.import(&jsonl);
    done(&ran);
    assert!(
        ran.stdout.contains("0 profiles new, 0 changed, 0 removed"),
        "{ran}"
    );
    assert_eq!(head(), before, "nothing changed, nothing is written");
    // By the daemon, too, a profile may come and go.
    done(&scene.import(&scene.file(
        "b.csv",
        "profile,email\np3,alan@own.example\np5,grace@own.example\n",
    )));
    assert_eq!(
        scene.standing(),
        [format!("p3 matched {alan}"), format!("p5 matched {grace}")]
    );
    let ran = stop(daemon);
    done(&ran);
    for private in ["own.example", "own-grace", "p,2"] {
        assert!(!ran.stderr.contains(private), "not in the log: {ran}");
    }
    scene.home.verify();
}

#[test]
fn a_wrong_file_changes_nothing_and_names_its_line() {
    let (scene, _) = Scene::new("");
    scene.sync("full");
    done(&scene.import(&scene.file("a.csv", "profile,email\np1,ada@own.example\n")));
    let (standing, head) = (
        scene.standing(),
        scene.home.one::<i64>("SELECT last_seq FROM feed"),
    );
    let long = format!("profile,email\np,{}\n", "x".repeat(1_025));
    let shared: String = (0..1_001).map(|n| format!("s{n},desk@x\n")).collect();
    let shared = format!("profile,email\n{shared}");
    for (name, text, said) in [
        (
            "b.csv",
            "profile,e-mail\np,x\n",
            "line 1: `e-mail` is none of the fields",
        ),
        ("b.csv", "email\nx\n", "line 1: there is no field `profile`"),
        (
            "b.csv",
            "profile,email,email\n",
            "line 1: the field `email` stands there twice",
        ),
        ("b.csv", "", "line 1: there is no line with the names"),
        (
            "b.csv",
            "profile,email\np,x\nq,x,y\n",
            "line 3: it has 3 fields",
        ),
        (
            "b.csv",
            "profile,email\np,x\n\"q\",\"x\nr,y\ns,z\n",
            "line 3: `email` has a line break",
        ),
        (
            "b.csv",
            "profile,email\n ,x\n",
            "line 2: `profile` is empty",
        ),
        (
            "b.csv",
            "profile,email\np,x\nq,y\np,z\n",
            "line 4: the profile `p` stands in line 2 already",
        ),
        ("b.csv", &long, "line 2: `email` is longer than 1024 bytes"),
        (
            "b.csv",
            &shared,
            "line 1002: more than 1000 profiles have the `email`",
        ),
        (
            "b.jsonl",
            "{\"profile\":\"p\"}\n{\"profile\":\"q\",\"mail\":\"x\"}\n",
            "line 2: unknown field `mail`",
        ),
        // As spreadsheets write it, and with blank lines.
        (
            "b.csv",
            "\u{feff}profile,email\r\np,x\r\nq,y\r\np,z\r\n",
            "line 4: the profile `p` stands in line 2 already",
        ),
        (
            "b.csv",
            "profile,email\r\n\r\n\r\np,x\r\nq,x,y\r\n",
            "line 5: it has 3 fields",
        ),
        ("b.csv", "profile\rp\rp\r", "line 3: the profile `p`"),
        (
            "b.jsonl",
            "{\"profile\":\"p\"}\n[\"q\",\"x\",\"y\",\"z\"]\n",
            "line 2: it is not an object",
        ),
        (
            "b.jsonl",
            "{\"profile\":\"p\",\"employee_number\":7}\n",
            "line 1: invalid type",
        ),
        (
            "b.jsonl",
            "{\"email\":\"p\"}\n",
            "line 1: missing field `profile`",
        ),
        (
            "b.jsonl",
            "{\"profile\":\"p\"}\n{\"profile\":\"p\"}\n",
            "line 2: the profile `p` stands in line 1 already",
        ),
        ("b.txt", "profile\np\n", "neither in .csv nor in .jsonl"),
    ] {
        failed(&scene.import(&scene.file(name, text)), said);
    }
    std::fs::write(scene.home.path().join("b.csv"), b"profile\np\n\xff\n").unwrap();
    failed(&scene.import("b.csv"), "line 3: it is not UTF-8");
    failed(&scene.import("absent.csv"), "absent.csv");
    failed(
        &scene.map(&["import", "globex", "a.csv"]),
        "no instance `globex` in the configuration",
    );
    assert_eq!(scene.standing(), standing);
    assert_eq!(scene.home.one::<i64>("SELECT last_seq FROM feed"), head);
    scene.home.verify();
}

#[test]
fn nobody_is_linked_before_everybody_was_seen() {
    let (scene, _) = Scene::new("");
    let list = scene.file("a.csv", "profile,email\np1,ada@own.example\n");
    failed(&scene.import(&list), "there is no mirror");
    failed(
        &scene.map(&["pin", "acme", "p1", "x"]),
        "there is no mirror",
    );
    assert!(!scene.home.mirror_path().exists());
    // A mirror of an instance that was never read to the end.
    scene
        .served
        .sandbox
        .set_auth(|rules| rules.client_secret = "another".to_owned());
    assert_eq!(scene.home.sync("full").code, Some(1));
    failed(&scene.import(&list), "`acme` has no baseline yet");
    assert_eq!(scene.standing(), [""; 0]);
}

#[test]
fn an_address_of_a_new_person_is_reported_and_not_followed() {
    let (scene, [ada, grace, _]) = Scene::new("");
    scene.sync("full");
    done(&scene.import(&scene.file("a.csv", "profile,email\np1,ada@own.example\n")));
    let assignable = || {
        scene
            .home
            .list("SELECT profile || ' ' || user_id || ' ' || user_name FROM assignable")
    };
    assert_eq!(assignable(), [format!("p1 {ada} ada.own")]);

    let daemon = scene.daemon();
    // She left, and somebody else got her address.
    scene.update(&ada, &Values::new().active(false));
    scene.update(
        &grace,
        &Values::new().with(Column::Email, "ada@own.example"),
    );
    scene.sync("full");
    assert_eq!(scene.standing(), [format!("p1 ambiguous {ada}")]);
    assert!(assignable().is_empty());
    let told = "SELECT count(*) FROM changes JOIN syncs ON syncs.id = sync_id
                WHERE changes.resource = 'Identity' AND kind = 'update'";
    assert_eq!(scene.home.one::<i64>(told), 1, "once, with a sync");
    let ran = scene.home.run(&["status"]);
    assert!(ran.stdout.contains("1 profile is ambiguous"), "{ran}");
    let ran = scene.map(&["list", "--state", "ambiguous", "--json"]);
    done(&ran);
    let row: Value = serde_json::from_str(&ran.stdout).unwrap();
    let mut candidates = [ada.clone(), grace.clone()];
    candidates.sort();
    assert_eq!(row["candidates"], serde_json::json!(candidates));
    assert_eq!(row["user_id"], ada.as_str());

    // A person decides, by the daemon.
    done(&scene.map(&["pin", "acme", "p1", &grace]));
    assert_eq!(assignable(), [format!("p1 {grace} grace.own")]);
    scene.sync("full");
    assert_eq!(scene.standing(), [format!("p1 pinned {grace}")]);
    failed(
        &scene.map(&["pin", "acme", "p1", "nobody"]),
        "shows no user",
    );
    failed(
        &scene.map(&["pin", "acme", "p9", &grace]),
        "has no profile `p9`",
    );
    done(&stop(daemon));
    scene.home.verify();
}

#[test]
fn who_is_gone_is_gone_and_returns_and_a_new_name_is_the_same_person() {
    let (scene, [ada, grace, alan]) = Scene::new("");
    scene.sync("full");
    done(&scene.import(&scene.file(
        "a.csv",
        "profile,user_name\np1,ada.own\np2,grace.own\np3,alan.own\n",
    )));
    assert!(scene.served.sandbox.delete(&ada));
    scene.update(&grace, &Values::new().with(Column::UserName, "hopper"));
    scene.update(&alan, &Values::new().active(false));
    scene.sync("full");
    let standing = [
        format!("p1 gone {ada}"),
        format!("p2 matched {grace}"),
        format!("p3 matched {alan}"),
    ];
    assert_eq!(scene.standing(), standing);
    let assignable = "SELECT group_concat(profile || ' ' || user_name, '; ') FROM assignable";
    assert_eq!(scene.home.one::<String>(assignable), "p2 hopper");
    assert!(scene.served.sandbox.undelete(&ada));
    scene.sync("full");
    assert_eq!(scene.standing()[0], format!("p1 matched {ada}"));
    let reasons = "SELECT group_concat(reason, ' ') FROM
                       (SELECT reason FROM changes WHERE resource = 'Identity' AND id = 'p1' ORDER BY seq)";
    assert_eq!(scene.home.one::<String>(reasons), "new gone returned");
    scene.home.verify();
}

#[test]
fn what_is_exported_is_what_was_imported_and_pins_stay() {
    let (scene, [ada, grace, _]) = Scene::new("");
    scene.sync("full");
    let ran = scene.map(&["export", "acme"]);
    failed(&ran, "no list of profiles was imported");
    assert_eq!(ran.stdout, "", "no line of a list that is none");
    let text = "profile,email,user_name,employee_number\n\"a \"\"b\"\"\",ada@own.example,,\nz,,grace.own,own,1\n"
        .replace("own,1", "\"own,1\"");
    done(&scene.import(&scene.file("a.csv", &text)));
    failed(&scene.map(&["unpin", "acme", "z"]), "is not pinned");
    done(&scene.map(&["pin", "acme", "z", &ada]));
    let pinned = [format!("a \"b\" matched {ada}"), format!("z pinned {ada}")];
    assert_eq!(scene.standing(), pinned);
    let ran = scene.map(&["export", "acme"]);
    done(&ran);
    assert_eq!(ran.stdout, text);
    for (name, args) in [
        ("b.csv", &["export", "acme"][..]),
        ("b.jsonl", &["export", "acme", "--json"]),
    ] {
        let exported = scene.map(args).stdout;
        let ran = scene.import(&scene.file(name, &exported));
        done(&ran);
        assert!(
            ran.stdout.contains("0 profiles new, 0 changed, 0 removed"),
            "{ran}"
        );
        assert_eq!(scene.standing(), pinned);
    }
    // A pin is taken out of the list only where that is meant.
    let without = scene.file("c.csv", "profile,email\n\"a \"\"b\"\"\",ada@own.example\n");
    let ran = scene.import(&without);
    failed(&ran, "1 profile that a person pinned");
    let hint = "`musterd map list --instance acme` shows them";
    assert!(ran.stderr.contains(hint), "{ran}");
    assert_eq!(scene.standing(), pinned);
    let ran = scene.map(&["unpin", "acme", "z"]);
    done(&ran);
    let told = format!("acme: z is matched by its keys again, and is {grace} by user_name\n");
    assert_eq!(ran.stdout, told);
    assert_eq!(scene.standing()[1], format!("z matched {grace}"));
    done(&scene.import(&without));
    scene.home.verify();
}

#[test]
fn who_left_a_list_does_not_come_back_as_whoever_has_the_old_address() {
    let (scene, [ada, grace, alan]) = Scene::new("");
    scene.sync("full");
    let all = scene.file(
        "all.csv",
        "profile,email\nada,ada@own.example\nalan,alan@own.example\n",
    );
    done(&scene.import(&all));
    scene.update(&ada, &Values::new().with(Column::Email, "new@own.example"));
    scene.sync("full");
    let standing = [format!("ada matched {ada}"), format!("alan matched {alan}")];
    assert_eq!(scene.standing(), standing);
    let without = scene.file("few.csv", "profile,email\nalan,alan@own.example\n");
    let daemon = scene.daemon();
    let ran = scene.import(&without);
    failed(&ran, "whose keys do not lead to their user any more");
    assert!(ran.stderr.contains("--yes"), "{ran}");
    assert_eq!(scene.standing(), standing);
    // Whose keys still lead to its user is made the same again.
    let without = scene.file("other.csv", "profile,email\nada,ada@own.example\n");
    done(&scene.import(&without));
    scene.update(
        &grace,
        &Values::new().with(Column::Email, "ada@own.example"),
    );
    scene.sync("full");
    done(&scene.import(&all));
    let standing = [
        format!("ada ambiguous {ada}"),
        format!("alan matched {alan}"),
    ];
    assert_eq!(scene.standing(), standing);
    done(&stop(daemon));
    scene.home.verify();
}

#[test]
fn a_list_of_nobody_takes_a_list_away_only_where_that_is_meant() {
    let (scene, [ada, ..]) = Scene::new("");
    scene.sync("full");
    // Where there is no list there is nothing to lose.
    done(&scene.import(&scene.file("a.jsonl", "")));
    done(&scene.import(&scene.file("a.csv", "profile,email\np1,ada@own.example\n")));
    let standing = [format!("p1 matched {ada}")];
    let empty = [
        ("b.jsonl", ""),
        ("b.jsonl", "\n  \n\n"),
        ("b.csv", "profile,email\n"),
    ];
    for (name, text) in empty {
        let ran = scene.import(&scene.file(name, text));
        failed(&ran, "the list has no profile at all");
        assert!(ran.stderr.contains("--yes"), "{ran}");
        assert_eq!(scene.standing(), standing);
    }
    let daemon = scene.daemon();
    failed(&scene.import("b.csv"), "the list has no profile at all");
    assert_eq!(scene.standing(), standing);
    done(&scene.map(&["import", "acme", "b.csv", "--yes"]));
    assert_eq!(scene.standing(), [""; 0]);
    done(&stop(daemon));
    scene.home.verify();
}

#[test]
fn links_that_move_are_counted_and_who_is_unpinned_is_told() {
    let (scene, [ada, grace, _]) = Scene::new("");
    scene.sync("full");
    let ran = scene.import(&scene.file(
        "a.csv",
        "profile,email\np1,ada@own.example\np2,grace@own.example\np3,x\n",
    ));
    done(&ran);
    assert!(ran.stdout.contains("0 links moved; now"), "{ran}");
    let daemon = scene.daemon();
    let ran = scene.import(&scene.file(
        "b.csv",
        "profile,email\np1,grace@own.example\np2,y\np3,alan@own.example\n",
    ));
    done(&ran);
    assert!(
        ran.stdout
            .contains("0 profiles new, 3 changed, 0 removed, 1 link moved; now"),
        "{ran}"
    );
    assert_eq!(scene.standing()[0], format!("p1 matched {grace}"));
    let unpinned = |profile: &str, user: &str| {
        done(&scene.map(&["pin", "acme", profile, user]));
        let ran = scene.map(&["unpin", "acme", profile]);
        done(&ran);
        let told = format!("acme: {profile} is matched by its keys again, and ");
        ran.stdout
            .strip_prefix(&told)
            .unwrap()
            .trim_end()
            .to_owned()
    };
    assert_eq!(unpinned("p1", &ada), format!("is {grace} by email"));
    assert_eq!(unpinned("p2", &ada), "missing: they lead to nobody");
    let shared = Values::new().with(Column::Email, "grace@own.example");
    scene.update(&ada, &shared);
    scene.sync("full");
    let mut both = [ada.clone(), grace];
    both.sort();
    let told = format!("ambiguous: they lead to {}", both.join(", "));
    assert_eq!(unpinned("p1", &ada), told);
    done(&stop(daemon));
    scene.home.verify();
}

#[test]
fn an_import_that_is_interrupted_says_what_is_left_to_do() {
    let (scene, [ada, ..]) = Scene::new("");
    scene.sync("full");
    let list = scene.file("a.csv", "profile,email\np1,ada@own.example\n");
    let daemon = scene.daemon();
    // It holds the mirror and answers nobody.
    daemon.pause();
    let client = scene.home.start(&["map", "import", "acme", &list]);
    client.wait_until_it_listens();
    client.interrupt();
    let ran = client.finish(TIME_LIMIT);
    assert_eq!(ran.code, Some(130), "{ran}");
    assert!(
        ran.stderr.contains("importing it again completes it"),
        "{ran}"
    );
    daemon.resume();
    done(&scene.import(&list));
    assert_eq!(scene.standing(), [format!("p1 matched {ada}")]);
    done(&stop(daemon));
    scene.home.verify();
}

#[test]
fn many_profiles_leave_a_list_only_where_that_is_meant() {
    let (scene, _) = Scene::new("identity.removals = { at_least = 2, percent = 10 }\n");
    scene.sync("full");
    let list = |n: usize| {
        let lines: String = (0..n).map(|n| format!("p{n:05},{n}@x\n")).collect();
        format!("profile,email\n{lines}")
    };
    // More than one piece.
    let n_all = 4_500;
    done(&scene.import(&scene.file("a.csv", &list(n_all))));
    let count = || scene.home.one::<i64>("SELECT count(*) FROM identities");
    assert_eq!(count(), 4_500);
    // All pieces were of one import.
    let n_imports = || scene.home.one::<i64>("SELECT number FROM imports");
    assert_eq!(n_imports(), 1);
    let daemon = scene.daemon();
    let few = scene.file("few.csv", &list(3));
    let ran = scene.import(&few);
    failed(&ran, "4497 of 4500 profiles of `acme`");
    assert!(ran.stderr.contains("--yes"), "{ran}");
    assert_eq!(count(), 4_500);
    // Within the guard it goes through.
    done(&scene.import(&scene.file("most.csv", &list(n_all - 450))));
    assert_eq!(count(), 4_050);
    assert_eq!(n_imports(), 2);
    let ran = scene.map(&["import", "acme", &few, "--yes"]);
    done(&ran);
    assert!(ran.stdout.contains("4,047 removed"), "{ran}");
    assert_eq!(count(), 3);
    done(&stop(daemon));
    // Two are never too many.
    done(&scene.import(&scene.file("one.csv", &list(1))));
    assert_eq!(count(), 1);
    scene.home.verify();
}

#[test]
fn the_rules_are_those_of_the_configuration_in_their_order() {
    let (scene, [ada, grace, alan]) = Scene::new("identity.match = [\"user_name\", \"email\"]\n");
    scene.sync("full");
    done(&scene.import(&scene.file(
        "a.csv",
        "profile,email,user_name,employee_number\np1,ada@own.example,grace.own,own-alan\np2,,,own-alan\n",
    )));
    assert_eq!(
        scene.standing(),
        [format!("p1 matched {grace}"), "p2 missing -".to_owned()]
    );
    // Other rules hold from the next import on, and move no link.
    let text = std::fs::read_to_string(scene.home.config_path()).unwrap();
    let text = text.replace("[\"user_name\", \"email\"]", "[\"employee_number\"]");
    std::fs::write(scene.home.config_path(), text).unwrap();
    let before = scene.standing();
    scene.sync("full");
    assert_eq!(scene.standing(), before);
    let list = scene.map(&["export", "acme"]).stdout;
    done(&scene.import(&scene.file("b.csv", &list)));
    assert_eq!(
        scene.standing(),
        [
            format!("p1 ambiguous {grace}"),
            format!("p2 matched {alan}")
        ]
    );
    assert_ne!(ada, grace);
    scene.home.verify();
}
