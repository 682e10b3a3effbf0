//! Servers with odd behaviour: whatever they answer, nobody is deactivated by mistake, the
//! certificate says honestly what was read, and a real leaver goes through where that is proved.
//!
//! Each case is one line of the table below. All of them go the same way: a baseline of sixty users;
//! one is deleted, one turns inactive, one gets a title, one is hired; an incremental and a full sync
//! against the server as the case has it; then the server behaves well again, and everything that was
//! kept back must go through. That last step is the control: a suite in which nobody ever leaves
//! proves nothing.

mod cases;
pub(crate) mod directory;
mod held;
mod interrupted;
mod leavers;
mod poison;
pub(crate) mod scim;
pub(crate) mod server;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Auth, Home, Instance, Ran, Row, text};
use directory::Directory;
use scim::{Odd, WELL_BEHAVED};
use server::{SCIM_PATH, Server, TOKEN};

const N_USERS: usize = 60;
/// Four pages, so that there is a middle.
const PAGE_SIZE: u32 = 16;
/// The default of the configuration.
const CONCURRENCY: usize = 2;

const LEAVER: usize = 12;
const TURNS_INACTIVE: usize = 25;
const GETS_TITLE: usize = 31;
const HIRED: usize = N_USERS;

/// One odd server and what the contract demands of a full sync against it.
struct Case {
    odd: Odd,
    /// Whether the baseline is read from the odd server, too.
    from_start: bool,
    /// How ids look.
    id: fn(usize) -> String,
    expect: Expect,
}

/// What the contract demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The certificate is `complete` and everything goes through, the leaver too.
    Complete,
    /// The certificate is `complete`, but asking for the leaver proves nothing: he stays.
    Unproved,
    /// Everybody was read, but the numbers do not agree: `partial`, all but the leaver goes through.
    Partial,
    /// Not everybody was read: not `complete`, the leaver stays.
    Short,
    /// Not even what was read is believed: `refused`, and the sync fails.
    Refused,
    /// There is no page to be had: the sync fails, nothing changes.
    Fails,
    /// The contract leaves open what is made of it, but nobody is deactivated by mistake.
    Harmless,
}

impl Case {
    /// The server has always been like this.
    const fn always(odd: Odd, expect: Expect) -> Self {
        Self {
            odd,
            from_start: true,
            id: directory::sys_id,
            expect,
        }
    }

    /// The server behaved well up to the baseline.
    const fn later(odd: Odd, expect: Expect) -> Self {
        Self {
            from_start: false,
            ..Self::always(odd, expect)
        }
    }

    fn run(self) {
        let first = if self.from_start {
            self.odd
        } else {
            WELL_BEHAVED
        };
        let world = World::start(Directory::of(N_USERS, self.id), first);
        world.baseline();
        let (watermark, seq) = (world.watermark(), world.seq());

        world.server.edit(|directory| {
            directory.leave(LEAVER);
            directory.set(TURNS_INACTIVE, "active", json!(false));
            directory.set(GETS_TITLE, "title", json!("Principal"));
            directory.join(HIRED);
        });
        world.server.turn(self.odd);
        let (leaver, inactive) = world
            .server
            .with(|directory| (directory.id(LEAVER), directory.id(TURNS_INACTIVE)));

        let ran = world.home.sync("incremental");
        // Where the filter on stamps is of no use, incremental syncs are full ones.
        if text(&world.home.last_sync(), "mode").as_deref() == Some("full")
            && matches!(self.expect, Expect::Complete | Expect::Harmless)
        {
            world.deactivated_at_most(&[&leaver, &inactive], &ran);
        } else {
            world.deactivated_at_most(&[&inactive], &ran);
        }
        let ran = world.home.sync("full");
        match self.expect {
            Expect::Complete => {
                world.succeeded(&ran, "complete");
                world.equals_the_directory(&ran);
            }
            Expect::Unproved | Expect::Partial => {
                let verdict = match self.expect {
                    Expect::Partial => "partial",
                    _ => "complete",
                };
                // Who is not proved gone may be held, which is not a failure.
                assert!(matches!(ran.code, Some(0 | 3)), "{ran}");
                assert_eq!(world.verdict().as_deref(), Some(verdict), "{ran}");
                world.deactivated_exactly(&[&inactive], &ran);
                world.has_title("Principal");
                assert!(
                    world
                        .mirrored()
                        .contains(&world.server.with(|d| d.id(HIRED)))
                );
            }
            Expect::Short => {
                assert_ne!(world.verdict(), Some("complete".into()), "{ran}");
                world.deactivated_at_most(&[&inactive], &ran);
            }
            Expect::Refused | Expect::Fails => {
                assert_eq!(ran.code, Some(1), "{ran}");
                let sync = world.home.last_sync();
                assert_eq!(text(&sync, "outcome").as_deref(), Some("failed"), "{ran}");
                assert!(text(&sync, "error").is_some(), "{sync:?}");
                if self.expect == Expect::Refused {
                    assert_eq!(world.verdict().as_deref(), Some("refused"), "{sync:?}");
                }
                assert_eq!((world.watermark(), world.seq()), (watermark, seq), "{ran}");
                assert_eq!(
                    world.home.one::<String>("SELECT state FROM instances"),
                    "failing"
                );
            }
            Expect::Harmless => world.deactivated_at_most(&[&leaver, &inactive], &ran),
        }
        world.home.verify();

        // The control. What was learnt of the server while it was odd may cost one more sync.
        if !self.from_start {
            world.server.turn(WELL_BEHAVED);
        }
        let ran = world.full_until_complete();
        world.equals_the_directory(&ran);
        assert_eq!(
            world.home.list(
                "SELECT reason || ' ' || id FROM changes WHERE kind = 'deactivate' ORDER BY 1"
            ),
            [format!("gone {leaver}"), format!("inactive {inactive}")],
        );
        let seq = world.seq();
        let ran = world.home.sync("full");
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(world.seq(), seq, "nothing changed, so nothing is written");
        world.was_asked_as_promised();
        world.home.verify();
    }
}

/// An odd server and a mirror of it.
struct World {
    server: Server,
    home: Home,
}

impl World {
    fn start(directory: Directory, odd: Odd) -> Self {
        let server = Server::start(directory, odd);
        let url = server.url();
        let world = Self {
            server,
            home: Home::new(&[]),
        };
        world.configure(&url, TOKEN);
        world
    }

    /// Where the instance is from now on, and how to log in there.
    fn configure(&self, url: &str, token: &str) {
        self.home.configure(&[Instance {
            name: "odd",
            url,
            scim_path: SCIM_PATH,
            auth: Auth::Bearer(token),
            page_size: PAGE_SIZE,
            more: "",
        }]);
    }

    /// The first complete full sync.
    fn baseline(&self) {
        let ran = self.full_until_complete();
        self.equals_the_directory(&ran);
        assert!(
            self.home
                .one::<bool>("SELECT baseline_at IS NOT NULL FROM sources")
        );
    }

    /// A full sync. What it learns of the server, such as an order of ids that is not known here, may
    /// make it `partial`; the next one knows.
    fn full_until_complete(&self) -> Ran {
        let mut ran = self.home.sync("full");
        let n_syncs: i64 = self.home.one("SELECT count(*) FROM syncs");
        assert_ne!(n_syncs, 0, "the sync is not on record: {ran}");
        if self.verdict().as_deref() != Some("complete") {
            ran = self.home.sync("full");
        }
        self.succeeded(&ran, "complete");
        ran
    }

    /// The verdict of the newest sync; `None` when it has no certificate.
    fn verdict(&self) -> Option<String> {
        let certificate = text(&self.home.last_sync(), "certificate")?;
        let certificate: Value = serde_json::from_str(&certificate).expect("JSON");
        certificate["verdict"].as_str().map(Into::into)
    }

    #[track_caller]
    fn succeeded(&self, ran: &Ran, verdict: &str) {
        let sync = self.home.last_sync();
        let asked = || self.server.asked().join("\n");
        assert_eq!(ran.code, Some(0), "{ran}\n{sync:?}\n{}", asked());
        assert_eq!(
            text(&sync, "outcome").as_deref(),
            Some("succeeded"),
            "{ran}"
        );
        assert_eq!(
            self.verdict().as_deref(),
            Some(verdict),
            "{sync:?}\n{}",
            asked()
        );
    }

    fn watermark(&self) -> Option<String> {
        self.home.one("SELECT watermark FROM sources")
    }

    fn seq(&self) -> i64 {
        self.home.one("SELECT last_seq FROM feed")
    }

    /// Ids in the mirror that are not gone.
    fn mirrored(&self) -> BTreeSet<String> {
        let ids = self.home.list("SELECT id FROM users WHERE gone_at IS NULL");
        ids.into_iter().collect()
    }

    /// Every request was one that the instance can bear (sections 3 and 7).
    #[track_caller]
    fn was_asked_as_promised(&self) {
        assert_eq!(self.server.n_elsewhere(), 0, "a redirect was followed");
        assert!(self.server.most_at_once() <= CONCURRENCY);
        for target in self.server.asked() {
            let Some((_, query)) = target.split_once("/Users?") else {
                continue;
            };
            let query: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
            let of = |name| query.get(name).map(|value| &**value);
            assert_eq!(of("sortBy"), Some("id"), "{target}");
            assert_eq!(of("sortOrder"), Some("ascending"), "{target}");
            let count = of("count").and_then(|count| count.parse::<u32>().ok());
            assert!(count.is_some_and(|count| count <= PAGE_SIZE), "{target}");
        }
    }

    /// The mirror has whom the server has, and of each what the server says.
    #[track_caller]
    fn equals_the_directory(&self, ran: &Ran) {
        let users = self.server.users();
        let ids: BTreeSet<String> = users.keys().cloned().collect();
        assert_eq!(self.mirrored(), ids, "{ran}");
        for row in self.home.rows("SELECT * FROM users WHERE gone_at IS NULL") {
            let user = &users[&text(&row, "id").expect("an id")];
            agrees(&row, user);
        }
    }

    #[track_caller]
    fn has_title(&self, title: &str) {
        let id = self.server.with(|directory| directory.id(GETS_TITLE));
        let rows = self.home.rows("SELECT id, title FROM users");
        let row = rows
            .iter()
            .find(|row| text(row, "id").as_ref() == Some(&id));
        assert_eq!(
            row.and_then(|row| text(row, "title")).as_deref(),
            Some(title)
        );
    }

    fn deactivated(&self) -> Vec<String> {
        self.home
            .list("SELECT id FROM users WHERE active = 0 OR gone_at IS NOT NULL ORDER BY id")
    }

    #[track_caller]
    fn deactivated_at_most(&self, allowed: &[&String], ran: &Ran) {
        for id in self.deactivated() {
            assert!(
                allowed.contains(&&id),
                "{id} was deactivated by mistake: {ran}\n{}",
                self.server.asked().join("\n")
            );
        }
    }

    #[track_caller]
    fn deactivated_exactly(&self, expected: &[&String], ran: &Ran) {
        let found = self.deactivated();
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{ran}");
    }
}

/// Some columns of a row against what the server says; all of them are compared in `scim2_server`.
#[track_caller]
fn agrees(row: &Row, user: &Value) {
    let extension = &user["urn:ietf:params:scim:schemas:extension:servicenow:2.0:User"];
    let active = match &user["active"] {
        Value::String(text) => text == "true",
        other => other.as_bool().unwrap_or(true),
    };
    let of = |value: &Value| value.as_str().map(String::from);
    for (column, expected) in [
        ("user_name", of(&user["userName"])),
        ("title", of(&user["title"])),
        ("active", Some(u8::from(active).to_string())),
        ("company_id", of(&extension["company"]["value"])),
        ("department", of(&extension["department"]["name"])),
    ] {
        assert_eq!(text(row, column), expected, "`{column}` of {user}");
    }
}
