//! The commands that are killed, each in front of a mirror and a directory of its own.

use std::path::Path;

use musterd::mirror::Mirror;
use musterd::sandbox::{Column, GroupValues, Member, Values};

use super::source::Source;
use super::traced::copy_mirror;
use super::workplace;
use crate::harness::{BINARY, Home, Ran};

/// Small enough for a small directory: five people may turn inactive or be gone, and three may lose one
/// and the same attribute; more is held.
fn guards(window: &str) -> String {
    format!(
        "guard.deactivations = {{ at_least = 5, count = 5, percent = 100, window = {window:?} }}\n\
         guard.blanking = {{ at_least = 3, count = 3, percent = 100, window = {window:?} }}"
    )
}

/// Groups are read, too, and one of them may lose two members; more is held.
const GROUPS: &str = "resources = [\"users\", \"groups\"]\n\
    guard.group_memberships = { at_least = 2, count = 2, percent = 100, window = \"24h\" }";

/// What may be cut off at any write.
pub(super) trait Trial {
    fn name(&self) -> &str;

    /// The program and its arguments.
    fn program(&self) -> Vec<&str>;

    /// Its exit code when nothing disturbs it.
    fn code(&self) -> i32 {
        0
    }

    /// Its exit code when the disk fails.
    fn code_of_failure(&self) -> i32 {
        1
    }

    /// A folder of its own with what the program starts from.
    fn copy(&self) -> Home;

    /// Goes on as it would without anybody's help; panics when that does not work.
    fn go_on(&self, home: &Home);

    /// Asserts that what an undisturbed run and what comes next have left is the truth.
    fn assert_true(&self, home: &Home);

    /// Looks at what else lies beside the mirror.
    fn look_beside(&self, _folder: &Path) {}
}

/// A command, the mirror it finds, and the instance it asks.
pub(super) struct Scene {
    name: &'static str,
    source: Source,
    /// Where it starts from.
    prepared: Home,
    /// The command.
    args: Vec<String>,
    code: i32,
    /// What the operator or the schedule does next, whatever happened.
    then: Vec<Then>,
    history: &'static str,
    has_groups: bool,
}

/// A command that comes after.
enum Then {
    /// A sync in this mode; it exits 3 while something is held.
    Sync(&'static str),
    /// The approval, unless it went through.
    ApproveIfOpen(Vec<String>),
}

impl Scene {
    /// A mirror is made, by the schema's first migrations, and gets its baseline.
    pub(super) fn creation() -> Self {
        let source = Source::start(8);
        let prepared = home(&source, "400d", false);
        Self::new("creation", source, prepared, &["sync", "--json"], 0)
    }

    /// The first complete full sync of a mirror that is there.
    pub(super) fn baseline() -> Self {
        let source = Source::start(45);
        let prepared = home(&source, "400d", false);
        drop(Mirror::open(&prepared.mirror_path(), "0f0e0d0c0b0a0908").unwrap());
        Self::new("baseline", source, prepared, &["sync", "--json"], 0)
    }

    /// An incremental sync that finds creates, updates and a leaver.
    pub(super) fn incremental() -> Self {
        let source = Source::start(25);
        let prepared = with_baseline(&source, "400d");
        let ids = source.active_ids();
        for id in &ids[..6] {
            edit(&source, id, Values::new().with(Column::Title, "Astronaut"));
        }
        // The newest stamp is further from these than an incremental sync looks back: a watermark that moves before
        // all is written would lose them.
        source.pass(1_200);
        edit(&source, &ids[7], Values::new().active(false));
        for n in 0..3 {
            hire(&source, n);
        }
        let args = ["sync", "--mode", "incremental", "--json"];
        Self::new("incremental", source, prepared, &args, 0)
    }

    /// A full sync that finds creates, updates, somebody inactive and two who are gone, and opens a hold.
    pub(super) fn full() -> Self {
        let source = Source::start(25);
        let prepared = with_baseline(&source, "400d");
        let ids = source.active_ids();
        for id in &ids[..4] {
            edit(&source, id, Values::new().with(Column::Title, "Astronaut"));
        }
        for id in &ids[4..9] {
            edit(&source, id, Values::new().with(Column::Email, ""));
        }
        edit(&source, &ids[9], Values::new().active(false));
        for id in &ids[10..12] {
            assert!(source.sandbox.delete(id));
        }
        for n in 0..3 {
            hire(&source, n);
        }
        let args = ["sync", "--mode", "full", "--json"];
        Self {
            // Who is gone only a full one finds.
            then: vec![Then::Sync("full")],
            ..Self::new("full", source, prepared, &args, 3)
        }
    }

    /// A person approves a hold of users who are inactive, and of some who are gone.
    pub(super) fn approval() -> Self {
        let source = Source::start(30);
        let prepared = with_baseline(&source, "400d");
        let ids = source.active_ids();
        for id in &ids[..5] {
            edit(&source, id, Values::new().active(false));
        }
        for id in &ids[5..8] {
            assert!(source.sandbox.delete(id));
        }
        done(&prepared.run(&["sync", "--mode", "full"]), 3);
        let digest: String = prepared.one("SELECT digest FROM holds WHERE id = 1");
        let args = ["holds", "approve", "1", "--digest", &digest, "--json"];
        let scene = Self::new("approval", source, prepared, &args, 0);
        Self {
            then: vec![
                Then::Sync("incremental"),
                Then::ApproveIfOpen(scene.args.clone()),
            ],
            ..scene
        }
    }

    /// A full sync of groups: members come and leave, a group is new, one is renamed, one is gone with all who were in it, and of one
    /// so many leave that it is held.
    pub(super) fn groups() -> Self {
        let source = Source::with_groups(12, 0);
        let ids = source.active_ids();
        let people = |range: std::ops::Range<usize>| -> Vec<Member> {
            ids[range].iter().map(|id| Member::user(id)).collect()
        };
        let found = |name: &str, members: &[Member]| {
            let group = source.sandbox.create_group(&GroupValues::named(name));
            assert!(source.sandbox.change_members(&group, &[], members));
            group
        };
        let desk = found("Desk", &people(0..4));
        let gone = found("Gone", &people(0..3));
        let thinned = found("Thinned", &people(0..7));
        let named = found(
            "Named",
            &[people(4..6), vec![Member::group(&desk)]].concat(),
        );
        let prepared = home(&source, "400d", true);
        done(&prepared.sync("full"), 0);
        source.pass(600);
        let change = |group: &str, leave: &[Member], join: &[Member]| {
            assert!(source.sandbox.change_members(group, leave, join));
        };
        change(&desk, &people(0..2), &people(4..6));
        assert!(source.sandbox.delete_group(&gone));
        change(&thinned, &people(0..5), &people(7..8));
        let name = GroupValues::named("Renamed");
        assert!(source.sandbox.update_group(&named, &name));
        found("New", &people(1..3));
        let args = ["sync", "--mode", "full", "--json"];
        Self {
            has_groups: true,
            then: vec![Then::Sync("full")],
            ..Self::new("groups", source, prepared, &args, 3)
        }
    }

    /// Everything but the newest record is older than the mirror is told to remember.
    pub(super) fn trimming() -> Self {
        let source = Source::start(25);
        let prepared = with_baseline(&source, "400d");
        let ids = source.active_ids();
        for title in ["Astronaut", "Baker", "Clown"] {
            source.pass(60);
            for id in &ids[..8] {
                edit(&source, id, Values::new().with(Column::Title, title));
            }
            done(&prepared.run(&["sync", "--mode", "incremental"]), 0);
        }
        // A second is the shortest memory; nothing is asked here that changes anything.
        let is_old = "SELECT max(observed_at) < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1.2 seconds') FROM changes";
        while !prepared.one::<bool>(is_old) {
            std::thread::yield_now();
        }
        let args = ["sync", "--mode", "incremental", "--json"];
        Self {
            history: "1s",
            ..Self::new("trimming", source, prepared, &args, 0)
        }
    }

    fn new(name: &'static str, source: Source, prepared: Home, args: &[&str], code: i32) -> Self {
        Self {
            name,
            source,
            prepared,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            code,
            // A full one, where there is no baseline yet.
            then: vec![Then::Sync("incremental")],
            history: "400d",
            has_groups: false,
        }
    }
}

impl Trial for Scene {
    fn name(&self) -> &str {
        self.name
    }

    fn program(&self) -> Vec<&str> {
        let args = self.args.iter().map(String::as_str);
        std::iter::once(BINARY).chain(args).collect()
    }

    fn code(&self) -> i32 {
        self.code
    }

    fn copy(&self) -> Home {
        let copy = home(&self.source, self.history, self.has_groups);
        copy_mirror(self.prepared.path(), copy.path());
        copy
    }

    fn go_on(&self, home: &Home) {
        for then in &self.then {
            match then {
                Then::Sync(mode) => {
                    let ran = home.sync(mode);
                    assert!(matches!(ran.code, Some(0 | 3)), "the next sync: {ran}");
                }
                Then::ApproveIfOpen(args) => {
                    if home.one("SELECT count(*) > 0 FROM holds WHERE state = 'open'") {
                        let args: Vec<&str> = args.iter().map(String::as_str).collect();
                        done(&home.run(&args), 0);
                    }
                }
            }
        }
    }

    fn assert_true(&self, home: &Home) {
        self.source.assert_mirrored_in(home);
        if self.has_groups {
            self.source.assert_groups_mirrored_in(home);
        }
    }
}

fn home(source: &Source, history: &str, has_groups: bool) -> Home {
    // Nothing is trimmed that a guard still counts.
    let window = if history == "400d" { "24h" } else { history };
    let of_groups = if has_groups {
        GROUPS
    } else {
        "resources = [\"users\"]"
    };
    let more = format!("{}\n{of_groups}", guards(window));
    let home = Home::new_in(&workplace(), &[source.instance(&more)]);
    let config = std::fs::read_to_string(home.config_path()).unwrap();
    let config = config.replace("[log]", &format!("history = {history:?}\n\n[log]"));
    std::fs::write(home.config_path(), config).unwrap();
    home
}

fn with_baseline(source: &Source, history: &str) -> Home {
    let home = home(source, history, false);
    done(&home.sync("full"), 0);
    source.pass(600);
    home
}

fn done(ran: &Ran, code: i32) {
    assert_eq!(ran.code, Some(code), "{ran}");
}

fn edit(source: &Source, id: &str, values: Values) {
    assert!(source.sandbox.update(id, &values), "{id}");
}

fn hire(source: &Source, n: usize) {
    let values = Values::new()
        .active(true)
        .with(Column::UserName, format!("new.hire.{n}"))
        .with(Column::Title, "Trainee");
    source.sandbox.create(&values);
}
