//! What README tells the person who is paged is what the program says: each class of fault is provoked
//! in a simulated instance, and every line that README quotes must come.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use musterd::sandbox::{Effect, Fault, RequestKind, Values};

use crate::harness::served::Served;
use crate::harness::{Home, Running, TIME_LIMIT};

const README: &str = include_str!("../../README.md");

/// Goes wrong, and lets people look.
type Provoke = fn(&mut Scene);

/// The classes of README's section, and how each is provoked.
const CLASSES: &[(&str, Provoke)] = &[
    ("It says that there is nobody.", |scene| {
        scene.fault(Effect::RowsHidden { share: 1.0 });
        scene.run(&["sync", "--mode", "full"], 1);
        // No end of the trouble.
        scene.run(&["sync", "--mode", "incremental"], 0);
        scene.run(&["status"], 3);
    }),
    (
        "Pages are lost, short, repeated or shifted, or totals lie.",
        |scene| {
            scene.fault(Effect::TotalOff { by: 7 });
            let daemon = scene.daemon();
            scene.run(&["sync", "--mode", "full"], 0);
            scene.run(&["sync", "--mode", "full"], 0);
            scene.stop(daemon);
        },
    ),
    ("A filter is ignored, refused, or finds nobody.", |scene| {
        scene.fault(Effect::FilterIgnored {
            attribute: Some("meta.lastModified".to_owned()),
        });
        scene.run(&["sync", "--mode", "full"], 0);
        scene.run(&["status"], 0);
    }),
    ("Some users are out of sight, or really left.", |scene| {
        // Two are not listed, and still there: but who is asked for is another.
        let ids = scene.served.sandbox.ids();
        for id in &ids[3..5] {
            scene.served.sandbox.delete(id);
        }
        let another = Fault::new(Effect::AnotherUser).named("another");
        scene.served.sandbox.add_fault(another);
        scene.run(&["sync", "--mode", "full"], 0);
        scene.served.sandbox.remove_fault("another");
        scene.fault(Effect::RowsHidden { share: 0.15 });
        scene.run(&["sync", "--mode", "full"], 3);
        scene.run(&["status"], 3);
    }),
    ("Many turn inactive at once.", |scene| {
        let ids = scene.served.sandbox.ids();
        let mut left = 12;
        for id in ids {
            let is_active = scene
                .served
                .sandbox
                .user_json(&id)
                .is_some_and(|user| user.contains(r#""active":true"#));
            if is_active && left > 0 {
                scene
                    .served
                    .sandbox
                    .update(&id, &Values::new().active(false));
                left -= 1;
            }
        }
        scene.run(&["sync", "--mode", "full"], 3);
        let digest: String = scene.home.one("SELECT digest FROM holds");
        scene.run(&["holds", "approve", "1", "--digest", &digest], 0);
    }),
    ("An attribute turns empty for many.", |scene| {
        scene.fault(Effect::AttributeHidden {
            attribute: "title".to_owned(),
        });
        scene.run(&["sync", "--mode", "full"], 3);
    }),
    (
        "It is another directory: a clone, a restore, a mass loss of sight.",
        |scene| {
            scene.fault(Effect::RowsHidden { share: 0.5 });
            scene.run(&["sync", "--mode", "full"], 3);
            scene.run(&["sync", "--mode", "incremental"], 3);
            scene.run(&["status"], 3);
        },
    ),
    ("Single records cannot be read.", |scene| {
        let id = scene.served.sandbox.ids().swap_remove(7);
        let raw = format!(r#"{{"id":"{id}","active":"perhaps"}}"#);
        scene.served.sandbox.show_raw(&id, Some(raw.into_bytes()));
        scene.run(&["sync", "--mode", "full"], 0);
        scene.run(&["status"], 0);
        scene.served.sandbox.show_raw(&id, None);
        scene.run(&["sync", "--mode", "full"], 0);
        assert_eq!(scene.home.one::<i64>("SELECT count(*) FROM rejects"), 0);
    }),
    (
        "A login, maintenance or hibernation page, a redirect, an error in place of JSON.",
        |scene| {
            scene.served.sandbox.add_fault(
                Fault::new(Effect::HtmlPage)
                    .named("page")
                    .on(&[RequestKind::List]),
            );
            scene.run(&["sync", "--mode", "full"], 1);
            scene.served.sandbox.remove_fault("page");
            scene.run(&["sync", "--mode", "full"], 0);
        },
    ),
    ("It throttles.", |scene| {
        scene.fault(Effect::RateLimited {
            retry_after: "600".to_owned(),
        });
        scene.run(&["sync"], 1);
        scene.run(&["status"], 3);
    }),
    (
        "Credentials are refused, or the account is locked.",
        |scene| {
            scene.fault(Effect::LoginRefused);
            scene.run(&["sync"], 1);
            scene.run(&["sync"], 1);
            scene.run(&["status"], 3);
        },
    ),
    ("A role or a scope was taken away.", |scene| {
        scene.fault(Effect::RoleMissing);
        scene.run(&["sync"], 1);
    }),
    ("Clocks or stamps are wrong.", |scene| {
        scene.fault(Effect::Header {
            header: "date".to_owned(),
            value: "Fri, 01 Jan 2100 00:00:00 GMT".to_owned(),
        });
        scene.run(&["sync", "--mode", "full"], 0);
        scene.run(&["check"], 0);
    }),
    ("It is slow, hangs, or drops connections.", |scene| {
        scene
            .served
            .sandbox
            .add_fault(Fault::new(Effect::Slow { ms: 60_000 }).on(&[RequestKind::List]));
        scene.run(&["sync"], 1);
    }),
    (
        "Here: another daemon, a full disk, a damaged file.",
        |scene| {
            let mut daemon = scene.home.start(&["run"]);
            daemon
                .wait_for(TIME_LIMIT, |line| line.contains("started"))
                .expect("it runs");
            scene.run(&["run"], 1);
            daemon.terminate();
            assert_eq!(daemon.finish(TIME_LIMIT).code, Some(0));
            let mirror = rusqlite::Connection::open(scene.home.mirror_path()).unwrap();
            let changed = mirror.execute("UPDATE users SET title = 'x' WHERE rowid = 3", []);
            assert_eq!(changed.unwrap(), 1);
            drop(mirror);
            scene.run(&["verify"], 1);
            std::fs::write(scene.home.mirror_path(), "no database at all").unwrap();
            scene.run(&["sync"], 1);
        },
    ),
];

#[test]
fn every_line_that_is_quoted_comes() {
    let section = section();
    let told: Vec<&str> = section.iter().map(|(title, _)| *title).collect();
    let provoked: Vec<&str> = CLASSES.iter().map(|(title, _)| *title).collect();
    assert_eq!(
        told, provoked,
        "README and this table name the same classes"
    );
    // They wait more than they work.
    std::thread::scope(|scope| {
        for ((title, quoted), (_, provoke)) in section.iter().zip(CLASSES) {
            scope.spawn(move || says(title, quoted, *provoke));
        }
    });
}

fn says(title: &str, quoted: &[&str], provoke: Provoke) {
    let mut scene = Scene::new();
    provoke(&mut scene);
    assert!(!quoted.is_empty(), "{title}");
    for line in quoted {
        assert!(
            scene.said.lines().any(|said| fits(line, said)),
            "{title}\nnobody said: {line}\nbut:\n{}",
            scene.said
        );
    }
    let fired = scene.served.sandbox.fired();
    assert!(
        fired.iter().all(|fault| fault.times > 0),
        "{title}: {fired:?}"
    );
}

#[test]
fn dots_stand_for_what_differs() {
    assert!(fits("a … b", "a 12 b"));
    assert!(fits("b …", "2026 WARN b and more"));
    assert!(!fits("a … b", "b a"));
    assert!(!fits("a b", "a  b"));
}

/// Whether a line was said; where README has `…` anything may stand, and before it as well.
fn fits(quoted: &str, said: &str) -> bool {
    let mut rest = said;
    quoted.split('…').all(|part| {
        let part = part.trim();
        match rest.find(part) {
            Some(place) => {
                rest = &rest[place + part.len()..];
                true
            }
            None => false,
        }
    })
}

/// The bold sentences of the section, each with the lines that are quoted below it.
fn section() -> Vec<(&'static str, Vec<&'static str>)> {
    let (_, rest) = README.split_once("### When the source lies\n").unwrap();
    let (section, _) = rest.split_once("\n### ").unwrap();
    let mut classes: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut is_quoted = false;
    for line in section.lines() {
        if line.starts_with("```") {
            is_quoted = line == "```text";
        } else if is_quoted {
            classes.last_mut().unwrap().1.push(line);
        } else if let Some((title, _)) = line
            .strip_prefix("**")
            .and_then(|rest| rest.split_once("**"))
        {
            classes.push((title, Vec::new()));
        }
    }
    let titles: BTreeSet<&str> = classes.iter().map(|(title, _)| *title).collect();
    assert_eq!(titles.len(), classes.len());
    classes
}

/// A simulated instance of sixty users, mirrored once before anything is wrong with it.
struct Scene {
    served: Served,
    home: Home,
    said: String,
}

impl Scene {
    fn new() -> Self {
        let served = Served::of(60);
        let url = served.url.clone();
        let mut scene = Self {
            home: Home::new(&[]),
            served,
            said: String::new(),
        };
        let rules = scene.served.sandbox.auth();
        let text = format!(
            "[mirror]\npath = {:?}\n[log]\nlevel = \"info\"\nformat = \"text\"\n[instances.acme]\nurl = {url:?}\nresources = [\"users\"]\n\
             timeout = \"5s\"\npage_size = 2\nrate = {{ per_second = 1000, burst = 1000 }}\nretry = {{ attempts = 2, max_wait = \"2s\" }}\n\
             auth = {{ type = \"client_credentials\", client_id = {:?}, client_secret = {:?} }}\n",
            scene.home.mirror_path(),
            rules.client_id,
            rules.client_secret,
        );
        std::fs::write(scene.home.config_path(), text).unwrap();
        scene.run(&["sync", "--mode", "full"], 0);
        scene.said.clear();
        scene
    }

    fn fault(&self, effect: Effect) {
        self.served.sandbox.add_fault(Fault::new(effect));
    }

    /// A daemon that has started.
    fn daemon(&self) -> Running {
        let mut daemon = self.home.start(&["run"]);
        daemon
            .wait_for(TIME_LIMIT, |line| line.contains("started"))
            .expect("it runs");
        daemon
    }

    fn stop(&mut self, daemon: Running) {
        daemon.terminate();
        let ran = daemon.finish(TIME_LIMIT);
        assert_eq!(ran.code, Some(0), "{ran}");
        write!(self.said, "{}{}", ran.stdout, ran.stderr).unwrap();
    }

    #[track_caller]
    fn run(&mut self, args: &[&str], code: i32) {
        let ran = self.home.run(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {ran}");
        write!(self.said, "{}{}", ran.stdout, ran.stderr).unwrap();
    }
}
