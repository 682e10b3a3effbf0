//! A person who looks at what is held and approves it, through the daemon's socket as a command does.

use musterd::control::{self, Ended, Lines, Request};
use musterd::model::Mode;

use super::watch::Watch;
use crate::world::World;

/// What a person did.
#[derive(Clone, Debug, Default)]
pub(super) struct Person {
    /// Holds that were open.
    pub(super) looked_at: u64,
    /// Holds that were approved, whole or in part.
    pub(super) approved: u64,
    /// Approvals that the daemon did not carry out.
    pub(super) refused: u64,
}

/// Looks at all that is held. A careful one lets be what is of an instance in trouble.
pub(super) async fn look(world: &World, watch: &Watch, careful: bool) -> Person {
    let mut person = Person::default();
    // What was committed until now was committed before anybody approved anything.
    watch.check();
    for (hold_id, instance, guard, digest) in open_holds(world) {
        if careful && watch.seen().truths[&instance].is_troubled() {
            continue;
        }
        watch.note(|| format!("{instance}: a person approves hold {hold_id}, {guard}"));
        let ended = ask(world, Request::Approve { hold_id, digest }).await;
        match ended {
            Some(Ended::Done | Ended::Attention) => person.approved += 1,
            _ => person.refused += 1,
        }
        person.looked_at += 1;
    }
    person
}

/// Asks for a sync.
pub(super) async fn sync(world: &World, instance: &str, mode: Option<Mode>) {
    let request = Request::Sync {
        instances: vec![instance.to_owned()],
        mode,
        dry_run: false,
    };
    ask(world, request).await;
}

async fn ask(world: &World, request: Request) -> Option<Ended> {
    let (lines, mut told) = Lines::channel();
    let paths = [world.socket_path()];
    let asking = async {
        let ended = control::ask(&paths, &request, &lines).await;
        drop(lines);
        ended.ok()
    };
    let reading = async { while told.recv().await.is_some() {} };
    let (ended, ()) = tokio::join!(asking, reading);
    ended
}

/// Whether the last sync of an instance failed.
pub(super) fn is_anything_failing(world: &World) -> bool {
    let mirror = world.read();
    mirror
        .prepare("SELECT 1 FROM instances WHERE consecutive_failures > 0 OR not_before IS NOT NULL")
        .unwrap()
        .exists([])
        .unwrap()
}

/// All users, groups and memberships, whose rows nothing rewrites while nothing changes.
pub(super) fn lists(world: &World) -> Vec<String> {
    let mirror = world.read();
    let sql = "
        SELECT json_array(instance, id, attributes, changed_seq, changed_at, gone_at) FROM users
        UNION ALL
        SELECT json_array(instance, id, attributes, changed_seq, changed_at, gone_at, member_count, members_known) FROM groups
        UNION ALL
        SELECT json_array(instance, group_id, member_id, label, changed_seq, ended_at) FROM memberships";
    let mut rows = mirror.prepare(sql).unwrap();
    let rows = rows.query_map([], |row| row.get(0)).unwrap();
    rows.map(Result::unwrap).collect()
}

fn open_holds(world: &World) -> Vec<(i64, String, String, String)> {
    let mirror = world.read();
    let mut holds = mirror
        .prepare("SELECT id, instance, guard, digest FROM holds WHERE state = 'open' ORDER BY id")
        .unwrap();
    let holds = holds.query_map([], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
    });
    holds.unwrap().map(Result::unwrap).collect()
}
