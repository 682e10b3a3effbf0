//! The laws that the mirror must keep, whatever happens: read with a connection of its own after each
//! commit, and only what is new.

mod causes;
mod end;
mod feed;
mod groups;
mod guards;
mod lists;
mod members;
mod order;
mod rate;
mod reads;
mod syncs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use musterd::mirror::Reader;
use musterd::model::membership;
use rusqlite::{Connection, OpenFlags};

use super::plan::{Instance, Plan};
use super::watch::Seen;

/// A law that is broken, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) law: &'static str,
    pub(super) what: String,
}

/// What a law says.
pub(super) type Law<T = ()> = Result<T, Broken>;

/// Breaks a law.
pub(super) fn broken<T>(law: &'static str, what: impl Into<String>) -> Law<T> {
    Err(Broken {
        law,
        what: what.into(),
    })
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

/// A change record, as a reader of the mirror sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) seq: i64,
    pub(super) sync_id: i64,
    pub(super) instance: String,
    pub(super) resource: String,
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) reason: String,
    pub(super) changed: Option<String>,
    pub(super) after: String,
    pub(super) proof: Option<String>,
    pub(super) hold_id: Option<i64>,
    pub(super) observed_at: Timestamp,
}

/// Of whom or what a record is: instance, resource type and id.
type Key = (String, String, String);

impl Record {
    fn key(&self) -> Key {
        let Self {
            instance,
            resource,
            id,
            ..
        } = self;
        (instance.clone(), resource.clone(), id.clone())
    }

    /// The resource type of the source that it was read from.
    fn source(&self) -> &str {
        source_of(&self.resource)
    }

    /// The group and the member that it is of, if it is of a membership.
    fn membership(&self) -> Option<[String; 2]> {
        (self.resource == MEMBERSHIP).then(|| membership::parts(&self.id).unwrap())
    }
}

const USER: &str = "User";
const GROUP: &str = "Group";
const MEMBERSHIP: &str = "Membership";

/// Memberships are read with their groups.
fn source_of(resource: &str) -> &str {
    match resource {
        MEMBERSHIP => GROUP,
        other => other,
    }
}

/// A row of `syncs`.
#[derive(Clone, Debug)]
pub(super) struct Sync {
    pub(super) id: i64,
    pub(super) instance: String,
    pub(super) resource: String,
    pub(super) mode: String,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) outcome: String,
    pub(super) certificate: serde_json::Value,
    pub(super) counts: [i64; 4],
    pub(super) error: Option<String>,
    /// The check that found it, and how many requests had been sent to its instance by then.
    pub(super) check: u64,
    pub(super) n_sent: usize,
}

/// A hold, as far as it was seen.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) instance: String,
    /// The resource type of the source that it was read from.
    pub(super) source: String,
    pub(super) sync_id: i64,
    pub(super) guard: String,
    pub(super) attribute: Option<String>,
    pub(super) count: i64,
    pub(super) digest: String,
    pub(super) state: String,
}

/// The state of a user, a group or a membership that the feed adds up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folded {
    pub(super) seq: i64,
    pub(super) after: String,
    pub(super) active: bool,
    pub(super) is_gone: bool,
}

/// What was read of a mirror, and what it is held against.
pub(super) struct Laws {
    path: PathBuf,
    conn: Option<Connection>,
    version: i64,
    instances: BTreeMap<String, Instance>,
    epoch: Option<String>,
    first_seq: i64,
    /// All records that were ever read; the one of `seq` is at `seq - 1`.
    pub(super) records: Vec<Record>,
    /// Of each of them the check that found it, and how many requests had been sent to its instance by then.
    found: Vec<(u64, usize)>,
    /// How often the mirror was held against the laws.
    checks: u64,
    folded: BTreeMap<Key, Folded>,
    /// Records whose sync has no row yet.
    waiting: BTreeSet<i64>,
    pub(super) syncs: BTreeMap<i64, Sync>,
    pub(super) holds: BTreeMap<i64, Hold>,
    /// By instance and resource type.
    watermarks: BTreeMap<(String, String), Timestamp>,
    /// Who is held, and who was at the last check.
    held: [BTreeSet<Key>; 2],
    newest_hold: i64,
    /// Of how many users a full sync, and meanwhile an incremental one, were told different things.
    pub(super) told_twice: u64,
    /// How many syncs of users succeeded while something of groups waited for a person.
    pub(super) beside_held_groups: u64,
    /// The most groups at a time whose members were not all known.
    pub(super) lists_disbelieved: u64,
    /// Records of users of whom something was held when they were written.
    beside_hold: BTreeSet<i64>,
    /// Since when at the earliest what the newest record of a user says was true.
    known_true: BTreeMap<Key, Timestamp>,
    /// Approved holds of the guard `source_changed` that have let a watermark go back.
    spent: BTreeSet<i64>,
}

impl Laws {
    pub(super) fn new(path: PathBuf, plan: &Plan) -> Self {
        let instances = plan.instances.iter();
        Self {
            path,
            conn: None,
            version: 0,
            instances: instances
                .map(|instance| (instance.name.to_owned(), instance.clone()))
                .collect(),
            epoch: None,
            first_seq: 1,
            records: Vec::new(),
            found: Vec::new(),
            checks: 0,
            folded: BTreeMap::new(),
            waiting: BTreeSet::new(),
            syncs: BTreeMap::new(),
            holds: BTreeMap::new(),
            watermarks: BTreeMap::new(),
            spent: BTreeSet::new(),
            held: Default::default(),
            newest_hold: 0,
            told_twice: 0,
            beside_held_groups: 0,
            lists_disbelieved: 0,
            beside_hold: BTreeSet::new(),
            known_true: BTreeMap::new(),
        }
    }

    /// How many records are not in the feed any more.
    pub(super) fn trimmed(&self) -> u64 {
        u64::try_from(self.first_seq - 1).unwrap()
    }

    /// Whether anything was committed since the last look.
    pub(super) fn is_due(&mut self) -> bool {
        if self.conn.is_none() && !self.path.exists() {
            return false;
        }
        let conn = self.conn.get_or_insert_with(|| {
            Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
        });
        let version: i64 = conn
            .prepare_cached("PRAGMA data_version")
            .unwrap()
            .query_row([], |row| row.get(0))
            .unwrap();
        std::mem::replace(&mut self.version, version) != version
    }

    /// Holds what is new against the laws.
    pub(super) fn check(&mut self, seen: &Seen, now: Timestamp) -> Law {
        let conn = self.conn.take().expect("`is_due` opened it");
        let result = self.check_with(&conn, seen, now);
        self.conn = Some(conn);
        result
    }

    fn check_with(&mut self, conn: &Connection, seen: &Seen, now: Timestamp) -> Law {
        // One moment of the mirror for all of it.
        let _snapshot = conn.unchecked_transaction().unwrap();
        self.checks += 1;
        let new = self.read_feed(conn, seen)?;
        let ended = self.read_syncs(conn, seen)?;
        self.read_holds(conn)?;
        self.goes_by_its_users(conn)?;
        self.lists_are_whole(conn)?;
        self.note_held(new.clone());
        self.watch_watermarks(conn, seen, now)?;
        for record in new.clone() {
            self.guarded(conn, record)?;
        }
        self.waiting.extend(new);
        for id in ended {
            self.caused(id, seen)?;
            self.honest(conn, id, seen)?;
            self.is_fresh(conn, &self.syncs[&id], seen)?;
            self.count_beside_held_groups(id);
        }
        Ok(())
    }

    /// A life has ended: all that was read is there still, all of it adds up, and what is left without the
    /// row of its sync was written by one that died.
    pub(super) fn check_whole(&mut self, seen: &Seen) -> Law {
        let orphans = std::mem::take(&mut self.waiting);
        self.caused_by_the_dead(orphans, seen)?;
        if let Some(conn) = &self.conn {
            self.reread(conn)?;
            self.is_released(conn)?;
        }
        let reader = Reader::open(&self.path).unwrap();
        match reader.verify(&mut |_| {}).unwrap().difference {
            None => Ok(()),
            Some(difference) => broken("`verify` finds no difference", difference),
        }
    }

    /// Whether a source waits for a person to say which directory it is.
    fn is_held_whole(&self, instance: &str, resource: &str) -> bool {
        self.holds.values().any(|hold| {
            (&*hold.instance, &*hold.source) == (instance, source_of(resource))
                && hold.guard == "source_changed"
                && hold.state == "open"
        })
    }

    /// Whether groups are read of an instance.
    pub(super) fn reads_groups(&self, instance: &str) -> bool {
        self.instances[instance].groups.is_some()
    }

    fn record(&self, seq: i64) -> &Record {
        &self.records[usize::try_from(seq - 1).unwrap()]
    }

    /// The check that found a record, and how many requests had been sent to its instance by then.
    fn read_at(&self, seq: i64) -> (u64, usize) {
        self.found[usize::try_from(seq - 1).unwrap()]
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}
