//! Bad records at any place of a directory, alone and several at once, against the built binary: each
//! costs itself alone (P9), whoever is next to it.

use std::collections::BTreeSet;

use fastrand::Rng;
use serde_json::{Value, json};

use super::rng_of;
use crate::harness::{Auth, Home, Instance, Ran, text};
use crate::ledger;
use crate::odd_servers::directory::{Directory, sys_id};
use crate::odd_servers::scim::{Odd, WELL_BEHAVED};
use crate::odd_servers::server::{SCIM_PATH, Server, TOKEN};

/// Rows of a page: places at its start, in its middle and at its end.
const PAGE_SIZE: u32 = 7;

/// Where a test writes how a user's record is spoiled.
const MARK: &str = "nickName";

/// How a record is spoiled, and whether it still says whose it is.
struct Spoiled {
    how: fn(&mut Vec<u8>),
    says_who: bool,
}

const fn says_who(how: fn(&mut Vec<u8>)) -> Spoiled {
    Spoiled {
        how,
        says_who: true,
    }
}

const fn says_nothing(how: fn(&mut Vec<u8>)) -> Spoiled {
    Spoiled {
        how,
        says_who: false,
    }
}

const SPOILED: [Spoiled; 17] = [
    says_who(|record| replace(record, b"\"User ", b"\"\xff")),
    says_who(|record| replace(record, b"\"User ", b"\"\x01")),
    says_who(|record| replace(record, b"\"Engineer ", b"\"a\xc0\xaf\xed\xa0\x80")),
    says_who(|record| replace(record, b"\"User ", b"\"\\ud800")),
    says_who(|record| replace(record, b"{", b"{\"x\":1e400,")),
    says_who(|record| replace(record, b"{", b"{\"TITLE\":\"x\",")),
    says_who(|record| {
        let deep = format!("{{\"x\":{}{},", "[".repeat(60), "]".repeat(60));
        replace(record, b"{", deep.as_bytes());
    }),
    says_who(|record| {
        replace(
            record,
            b"{",
            b"{\"x\":{\"$serde_json::private::RawValue\":\"1\"},",
        )
    }),
    says_who(|record| replace(record, b"\"active\":true", b"\"active\":1")),
    says_who(|record| {
        replace(
            record,
            b"\"emails\":[",
            b"\"emails\":[{\"value\":{}},{\"value\":[1]},",
        )
    }),
    says_nothing(|record| replace(record, b"\"id\":", b"\"xid\":")),
    says_nothing(|record| replace(record, b"\"id\":", b"\"id\":{},\"x\":")),
    says_nothing(|record| replace(record, b"\"id\":\"", b"\"id\":\"\xff")),
    says_nothing(|record| *record = b"null".to_vec()),
    // A bracket of somebody's reference, so that what is in it looks like the record's own.
    says_nothing(|record| {
        replace(
            record,
            b"\"location\":{",
            b"\"location\":\xff\"id\":\"somebody\",",
        );
    }),
    says_nothing(|record| replace(record, b"\"title\":", b"\"title\xff\":")),
    says_nothing(|record| replace(record, b",\"title\"", b"\xff\"title\"")),
];

const SPOILING: Odd = Odd {
    text: |record, user, _| {
        if let Some(n) = user[MARK].as_u64() {
            (SPOILED[usize::try_from(n).unwrap()].how)(record);
        }
    },
    ..WELL_BEHAVED
};

fn replace(record: &mut Vec<u8>, old: &[u8], new: &[u8]) {
    let found = record.windows(old.len()).position(|window| window == old);
    let place = found.unwrap_or_else(|| panic!("no {:?}", old.escape_ascii().to_string()));
    record.splice(place..place + old.len(), new.iter().copied());
}

/// A server that spoils records, and a mirror of it.
struct World {
    server: Server,
    home: Home,
    n_users: usize,
}

impl World {
    fn with_baseline(n_users: usize) -> Self {
        let server = Server::start(Directory::of(n_users, sys_id), SPOILING);
        let home = Home::new(&[Instance {
            name: "odd",
            url: &server.url(),
            scim_path: SCIM_PATH,
            auth: Auth::Bearer(TOKEN),
            page_size: PAGE_SIZE,
            more: "",
        }]);
        let world = Self {
            server,
            home,
            n_users,
        };
        world.synced("full", "complete");
        world
    }

    fn spoil(&self, n: usize, how: Option<usize>) {
        self.server
            .edit(|directory| directory.set_unstamped(n, MARK, json!(how)));
    }

    #[track_caller]
    fn synced(&self, mode: &str, verdict: &str) -> Ran {
        let ran = self.home.sync(mode);
        let sync = self.home.last_sync();
        // Rejects alone are a warning.
        assert_eq!(ran.code, Some(0), "{ran}\n{sync:?}");
        let certificate = text(&sync, "certificate").unwrap();
        let certificate: Value = serde_json::from_str(&certificate).unwrap();
        assert_eq!(certificate["verdict"], verdict, "{certificate}\n{ran}");
        ran
    }

    /// Users whose rows are not what the server has, by id.
    fn behind(&self) -> BTreeSet<String> {
        let rows = self
            .home
            .rows("SELECT id, title, active FROM users WHERE gone_at IS NULL");
        let rows: BTreeSet<_> = rows
            .iter()
            .map(|row| (text(row, "id"), text(row, "title"), text(row, "active")))
            .collect();
        let has = |user: &Value| {
            let of = |name: &str| user[name].as_str().map(str::to_owned);
            (
                of("id"),
                of("title"),
                Some(u8::from(user["active"] == true).to_string()),
            )
        };
        let users = self.server.users();
        users
            .into_iter()
            .filter(|(_, user)| !rows.contains(&has(user)))
            .map(|(id, _)| id)
            .collect()
    }

    fn gone(&self) -> Vec<String> {
        self.home
            .list("SELECT id FROM users WHERE gone_at IS NOT NULL OR active = 0")
    }
}

/// One byte spoils one record, at each place of the directory in turn: all others are mirrored.
#[test]
fn a_bad_record_at_any_place_costs_itself_alone() {
    const N_USERS: usize = 16;
    let world = World::with_baseline(N_USERS);
    for n in 0..N_USERS {
        // Everybody gets another title, and one of them cannot be read.
        world.server.edit(|directory| {
            for other in 0..world.n_users {
                directory.set(other, "title", json!(format!("Engineer of year {n}")));
            }
        });
        world.spoil(n, Some(n % 3));
        let ran = world.synced("full", "complete");
        assert_eq!(world.behind(), BTreeSet::from([sys_id(n)]), "{ran}");
        assert_eq!(world.home.list("SELECT key FROM rejects"), [sys_id(n)]);
        world.spoil(n, None);
    }
    world.synced("incremental", "complete");
    world.synced("full", "complete");
    assert_eq!(world.behind(), BTreeSet::new());
    assert_eq!(
        world.home.list("SELECT key FROM rejects"),
        Vec::<String>::new()
    );
    assert_eq!(world.gone(), Vec::<String>::new());
    world.home.verify();
    ledger::enter("bad_record_places", N_USERS);
}

/// Several records are bad, next to each other or apart, each in its own way, while one user leaves.
#[test]
fn bad_records_side_by_side_cost_themselves_alone() {
    const SEEDS: u64 = 8;
    for seed in 0..SEEDS {
        several(&mut rng_of("bad records", seed), seed);
    }
    ledger::enter("bad_record_mixes", usize::try_from(SEEDS).unwrap());
}

fn several(rng: &mut Rng, seed: u64) {
    const N_USERS: usize = 40;
    const LEAVER: usize = 12;
    let world = World::with_baseline(N_USERS);
    // Neighbours are neighbours in the order of their ids.
    let mut in_order: Vec<usize> = (0..N_USERS).filter(|n| *n != LEAVER).collect();
    in_order.sort_by_cached_key(|n| sys_id(*n));
    let n_bad = rng.usize(2..12);
    let first = rng.usize(..in_order.len() - n_bad);
    let bad: Vec<usize> = match rng.bool() {
        true => in_order[first..first + n_bad].to_vec(),
        false => rng.choose_multiple(in_order, n_bad),
    };
    // In half of the mixes all say who they are, so that a leaver can be told.
    let n_ways = if seed.is_multiple_of(2) {
        10
    } else {
        SPOILED.len()
    };
    let ways: Vec<usize> = bad.iter().map(|_| rng.usize(..n_ways)).collect();
    let say_who = ways.iter().all(|way| SPOILED[*way].says_who);
    world.server.edit(|directory| {
        for n in 0..N_USERS {
            directory.set(n, "title", json!("Engineer of the second year"));
        }
        directory.leave(LEAVER);
    });
    for (n, way) in bad.iter().zip(&ways) {
        world.spoil(*n, Some(*way));
    }
    let ids: BTreeSet<String> = bad.iter().map(|n| sys_id(*n)).collect();
    let told = format!("seed {seed}: {bad:?} in {ways:?}");

    world.synced("incremental", if say_who { "complete" } else { "partial" });
    assert_eq!(world.behind(), ids, "{told}");
    let ran = world.synced("full", if say_who { "complete" } else { "partial" });
    assert_eq!(world.behind(), ids, "{told}: {ran}");
    let rejected = text(&world.home.last_sync(), "rejected");
    assert_eq!(rejected, Some(bad.len().to_string()), "{told}: {ran}");
    let kept = world
        .home
        .list("SELECT key FROM rejects WHERE reason <> '' AND length(body) <= 4096");
    assert_eq!(kept.len(), bad.len(), "{told}: {kept:?}");
    for key in kept.iter().filter(|key| !key.starts_with("sha256:")) {
        assert!(ids.contains(key), "{told}: a reject of {key}");
    }
    let leaver = if say_who {
        vec![sys_id(LEAVER)]
    } else {
        Vec::new()
    };
    assert_eq!(world.gone(), leaver, "{told}: {ran}");
    world.home.verify();

    for n in bad {
        world.spoil(n, None);
    }
    let ran = world.synced("full", "complete");
    assert_eq!(world.behind(), BTreeSet::new(), "{told}: {ran}");
    assert_eq!(
        world.home.list("SELECT key FROM rejects"),
        Vec::<String>::new(),
        "{told}"
    );
    assert_eq!(world.gone(), [sys_id(LEAVER)], "{told}: {ran}");
    world.home.verify();
}
