//! A dry run shows exactly what the sync then writes and holds: over random histories of a simulated
//! instance every planned line is held against the record, or the held change, that the sync leaves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use musterd::control::Ended;
use musterd::daemon::fleet::Fleet;
use musterd::model::Mode;
use musterd::sandbox::{self, Column, Effect, Fault, Sandbox, Values};
use serde_json::{Value, json};

use crate::fleet::{Linked, one};
use crate::harness::{files, untouched};
use crate::ledger;

/// Small enough that a few edits exceed a guard, and that as many do not.
const GUARDS: &str = r#"
guard.deactivations = { at_least = 2, count = 6, percent = 10, window = "24h" }
guard.blanking = { at_least = 2, count = 6, percent = 10, window = "24h" }
guard.source_changed = { at_least = 8, percent = 30 }
"#;

const SEEDS: u64 = 24;
const ROUNDS: usize = 6;

/// What all seeds together have met, so that none of it can be missed in silence.
#[derive(Default)]
struct Met {
    rounds: usize,
    planned: BTreeMap<String, usize>,
}

#[tokio::test(start_paused = true)]
async fn what_a_dry_run_shows_is_what_the_sync_then_writes_and_holds() {
    let mut met = Met::default();
    for seed in 0..SEEDS {
        compare(seed, &mut met).await;
    }
    for what in [
        "create new",
        "update changed",
        "update gone",
        "update returned",
        "deactivate inactive",
        "deactivate gone",
        "create source_changed",
        "deactivate source_changed",
        "held deactivations",
        "held blanking",
        "held source_changed",
    ] {
        let n = met.planned.get(what).copied().unwrap_or_default();
        assert!(n > 0, "no seed met `{what}`: {:?}", met.planned);
    }
    ledger::enter("dry_run_rounds", met.rounds);
}

/// One history: after each round of edits a dry run and then the sync, which must agree.
async fn compare(seed: u64, met: &mut Met) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let options = sandbox::Options {
        users: rng.usize(20..80),
        seed,
        ..sandbox::Options::default()
    };
    let linked = Linked::new(options, "", GUARDS).await;
    let folder = linked.folder();
    linked.sync(Mode::Full).await;
    for round in 0..ROUNDS {
        let place = format!("seed {seed}, round {round}");
        edit(&linked.sandbox, &mut rng);
        // Before the clock moves on the newest edits are of the instance's own second.
        tokio::time::sleep(Duration::from_mins(rng.u64(1..90))).await;
        let mode = if rng.u8(..4) > 0 {
            Mode::Full
        } else {
            Mode::Incremental
        };
        let before = kept(folder);
        let (ended, shown) = linked.dry_run(mode).await;
        untouched(&before, &kept(folder), &place);

        let open_before: i64 = one(folder, "SELECT count(*) FROM holds WHERE state = 'open'");
        let since: i64 = one(folder, "SELECT last_seq FROM feed");
        let done = linked.sync(mode).await;
        let Some((plan, lines)) = shown
            .split_last()
            .filter(|(last, _)| last.get("plan").is_some())
        else {
            assert!(done.is_none(), "{place}: {shown:?}");
            assert_eq!(ended, Ended::Attention, "{place}: {shown:?}");
            continue;
        };
        let done = done.unwrap_or_else(|| panic!("{place}: no sync"));
        let counts = [done.created, done.updated, done.deactivated, done.held];
        // Why nothing is done is said before the sum, and needs no line of its own here.
        let lines: Vec<&Value> = lines.iter().filter(|line| line["note"].is_null()).collect();
        for line in &lines {
            let what = match line["guard"].as_str() {
                Some(guard) => format!("held {guard}"),
                None => format!("{} {}", text(&line["kind"]), text(&line["reason"])),
            };
            *met.planned.entry(what).or_default() += 1;
        }
        let (held, written): (Vec<&Value>, Vec<&Value>) =
            lines.into_iter().partition(|line| !line["held"].is_null());
        let mut held: Vec<Value> = held.into_iter().map(held_change).collect();
        held.sort_by_key(Value::to_string);
        let written = written.into_iter().map(record).collect();
        agree(&place, held, held_changes(folder, done.id));
        agree(&place, written, records(folder, since));
        assert_eq!(plan["plan"]["holds"], holds(folder, done.id), "{place}");
        let planned = ["created", "updated", "deactivated", "held"]
            .map(|count| plan["plan"][count].as_u64().unwrap());
        assert_eq!(planned, counts, "{place}");
        let is_held = open_before > 0 || counts[3] > 0;
        let expected = if is_held {
            Ended::Attention
        } else {
            Ended::Done
        };
        assert_eq!(ended, expected, "{place}");
        met.rounds += 1;
        approve_another_directory(&linked.fleet, &mut rng).await;
    }
}

/// What an administrator, a mistake or a clone does to a directory.
fn edit(sandbox: &Sandbox, rng: &mut fastrand::Rng) {
    for name in ["users_hidden", "attribute_hidden", "rows_hidden"] {
        sandbox.remove_fault(name);
    }
    let ids = sandbox.ids();
    let mut some = |most: usize| -> Vec<String> {
        let n = rng.usize(0..=most);
        (0..n)
            .map(|_| ids[rng.usize(..ids.len())].clone())
            .collect()
    };
    for id in some(5) {
        sandbox.update(&id, &Values::new().active(false));
    }
    for id in some(2) {
        sandbox.update(&id, &Values::new().active(true));
    }
    for id in some(4) {
        sandbox.delete(&id);
        if sandbox.ids().len().is_multiple_of(3) {
            sandbox.undelete(&id);
        }
    }
    for id in some(6) {
        sandbox.update(
            &id,
            &Values::new().with(Column::Title, format!("T{}", id.len())),
        );
    }
    for id in some(5) {
        sandbox.update(&id, &Values::new().with(Column::Title, ""));
    }
    for id in some(1) {
        sandbox.show_raw(
            &id,
            Some(format!(r#"{{"id":"{id}","active":5}}"#).into_bytes()),
        );
    }
    let hidden = some(5);
    for n in 0..rng.usize(0..4) {
        let user = Values::new().with(Column::UserName, format!("new.{n}.{}", rng.u32(..)));
        sandbox.create(&user);
    }
    match rng.u8(..6) {
        0 => sandbox.add_fault(Fault::new(Effect::UsersHidden { ids: hidden })),
        1 => sandbox.add_fault(Fault::new(Effect::AttributeHidden {
            attribute: "title".to_owned(),
        })),
        2 => sandbox.add_fault(Fault::new(Effect::RowsHidden { share: 0.5 })),
        _ => {}
    }
}

/// Says of every second clone that it was made on purpose.
async fn approve_another_directory(fleet: &Fleet, rng: &mut fastrand::Rng) {
    let holds = fleet.mirror.reader().unwrap().holds(false).unwrap();
    let now = fleet.clock.now();
    for hold in holds {
        if hold.guard == "source_changed" && rng.bool() {
            let approved = fleet
                .mirror
                .write(move |writer| writer.approve_source_change(hold.id, &hold.digest, now));
            approved.await.unwrap();
        }
    }
}

/// All files but `mirror.db-shm`, in which SQLite notes how far each reader of a log reads.
fn kept(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files(folder);
    files.remove(&folder.join("mirror.db-shm"));
    files
}

/// Rows of one text column in JSON.
fn all(folder: &Path, sql: &str) -> Vec<Value> {
    let mirror = rusqlite::Connection::open(folder.join("mirror.db")).unwrap();
    let mut rows = mirror.prepare(sql).unwrap();
    let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
    rows.map(|row| timeless(serde_json::from_str(&row.unwrap()).unwrap()))
        .collect()
}

const CHANGE: &str =
    "'id', id, 'kind', kind, 'changed', json(changed), 'after', json(after), 'proof', json(proof)";

fn records(folder: &Path, since: i64) -> Vec<Value> {
    all(
        folder,
        &format!(
            "SELECT json_object({CHANGE}, 'reason', reason) FROM changes WHERE seq > {since} ORDER BY seq"
        ),
    )
}

fn held_changes(folder: &Path, sync_id: i64) -> Vec<Value> {
    let mut changes = all(
        folder,
        &format!(
            "SELECT json_object({}, 'path', path, 'guard', guard)
             FROM hold_changes JOIN holds ON holds.id = hold_id WHERE sync_id = {sync_id}",
            CHANGE.replacen("id, ", "hold_changes.id, ", 1)
        ),
    );
    changes.sort_by_key(Value::to_string);
    changes
}

fn holds(folder: &Path, sync_id: i64) -> Value {
    json!(all(
        folder,
        &format!(
            "SELECT json_object('guard', guard, 'attribute', attribute, 'count', count, 'limit_text', limit_text)
             FROM holds WHERE sync_id = {sync_id} ORDER BY id"
        ),
    ))
}

fn record(line: &Value) -> Value {
    let mut record = change(line);
    record["reason"] = line["reason"].clone();
    record
}

fn held_change(line: &Value) -> Value {
    let mut held = change(line);
    held["path"] = line["held"].clone();
    held["guard"] = line["guard"].clone();
    held
}

fn change(line: &Value) -> Value {
    timeless(json!({
        "id": line["id"], "kind": line["kind"], "changed": line["changed"], "after": line["after"], "proof": line["proof"],
    }))
}

/// The same but for when it was found: the sync comes later than its dry run.
fn timeless(mut value: Value) -> Value {
    for place in [
        "/changed/gone_at/to",
        "/proof/asked_at",
        "/proof/witnesses/0/answered_at",
        "/proof/witnesses/1/answered_at",
    ] {
        if let Some(time) = value.pointer_mut(place)
            && !time.is_null()
        {
            *time = json!("then");
        }
    }
    value
}

/// Planned and done, one by one.
#[track_caller]
fn agree(place: &str, planned: Vec<Value>, done: Vec<Value>) {
    let only = |these: &[Value], those: &[Value]| -> Vec<Value> {
        let mut only = these.to_vec();
        only.retain(|one| !those.contains(one));
        only
    };
    let (not_done, not_planned) = (only(&planned, &done), only(&done, &planned));
    assert!(
        planned == done,
        "{place}: planned and not done {not_done:#?}, done and not planned {not_planned:#?}"
    );
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test(start_paused = true)]
async fn groups_that_are_not_shown_are_left_out_as_a_sync_leaves_them_out() {
    let options = sandbox::Options {
        users: 20,
        groups: 0,
        largest_group: 0,
        odd: false,
        ..sandbox::Options::default()
    };
    let linked = Linked::new(options, "", "resources = [\"users\", \"groups\"]").await;
    let left_out = async || {
        let (ended, shown) = linked.dry_run(Mode::Full).await;
        assert_eq!(ended, Ended::Done, "{shown:?}");
        let is_note =
            |row: &&Value| row["note"] == "groups are left out: the account is not shown any";
        (
            shown.iter().filter(is_note).count(),
            shown.iter().filter(|row| !row["plan"].is_null()).count(),
        )
    };
    // The list is empty, or it is refused: of users there is a plan all the same.
    assert_eq!(left_out().await, (1, 1));
    let forbidden = Fault::new(Effect::GroupsForbidden);
    linked.sandbox.add_fault(forbidden);
    assert_eq!(left_out().await, (1, 1));
    linked.sync(Mode::Full).await;
    let rows: i64 = one(
        linked.folder(),
        "SELECT count(*) FROM syncs WHERE resource = 'Group'",
    );
    assert_eq!(rows, 0);
}
