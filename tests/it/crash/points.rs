//! Every write of every scene: the process dies there, the disk is full from there on, the disk fails
//! there.

use rusqlite::{Connection, OpenFlags};

use super::disk::Image;
use super::laws;
use super::recording::Recording;
use super::scenes::{Scene, Trial};
use super::state::{self, State, newest_schema_version};
use super::traced::{self, Fault, Hit, Point, WRITES, copy_mirror};
use super::workplace;
use crate::harness::Home;
use crate::ledger;

/// What an undisturbed run leaves, and what lies on its way.
struct Expected {
    before: State,
    /// The states between its transactions, from the one before to the one after.
    states: Vec<State>,
    /// After the commands that come next.
    end: State,
}

#[test]
fn creation() {
    every_point(Scene::creation);
}

#[test]
fn baseline() {
    every_point(Scene::baseline);
}

#[test]
fn incremental() {
    every_point(Scene::incremental);
}

#[test]
fn full() {
    every_point(Scene::full);
}

#[test]
fn approval() {
    every_point(Scene::approval);
}

/// What a failing disk does is no other here than to users, and two syncs have many points.
#[test]
fn groups() {
    if !traced::is_possible() {
        return;
    }
    let scene = Scene::groups();
    assert!(kill_at_each_point(&scene, &undisturbed(&scene)) > 50);
}

#[test]
fn trimming() {
    every_point(Scene::trimming);
}

/// Makes every fault at every write of a trial, the kinds of faults side by side: most of the time is spent on starting processes.
pub(super) fn every_point<T: Trial + Sync>(prepare: impl FnOnce() -> T) {
    if !traced::is_possible() {
        return;
    }
    let scene = &prepare();
    let expected = &undisturbed(scene);
    let fail = |fault| {
        each_point(scene, fault, |_, home, hit| {
            judge_failed(scene, expected, home, hit);
        })
    };
    let (n_kills, failed) = std::thread::scope(|scope| {
        let failed =
            [Fault::NoSpace, Fault::Broken].map(|fault| (fault, scope.spawn(move || fail(fault))));
        let n_kills = kill_at_each_point(scene, expected);
        let joined = failed.map(|(fault, points)| (fault, points.join()));
        (n_kills, joined)
    });
    for (fault, n_faults) in failed {
        let n_faults = n_faults.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // A failed call may be followed by others, that put things in order; hardly ever is one missing.
        assert!(
            n_faults >= n_kills - n_kills / 20,
            "{fault:?}: {n_faults} of {n_kills}"
        );
    }
}

/// Lets the process die at every write. Returns how many there were.
fn kill_at_each_point(scene: &impl Trial, expected: &Expected) -> usize {
    let mut last = 0;
    each_point(scene, Fault::Kill, |point, home, hit| {
        if point.nth == 1 {
            last = 0;
        }
        last = judge_killed(scene, expected, home, hit, last);
    })
}

fn undisturbed(scene: &impl Trial) -> Expected {
    let home = scene.copy();
    let (ran, log) = traced::record(&home, &scene.program());
    assert_eq!(ran.code, Some(scene.code()), "{ran}");
    let scratch = tempfile::tempdir_in(workplace()).unwrap();
    let start = scene.copy();
    let recording = Recording::read(&log, home.path(), Image::of(start.path()));
    let states = recording.states(scratch.path()).all;
    laws::assert_kept(&states);
    let left = State::of(&home.mirror_path());
    let last = states.last().unwrap();
    assert_eq!(
        last,
        &left,
        "a write was missed: {}",
        last.differences(&left)
    );
    scene.go_on(&home);
    scene.assert_true(&home);
    let verified = home.run(&["verify"]);
    assert_eq!(verified.code, Some(0), "{verified}");
    Expected {
        before: State::of(&scene.copy().mirror_path()),
        states: states.iter().map(State::timeless).collect(),
        end: State::of(&home.mirror_path()),
    }
}

/// Makes the fault at the first call of a kind, the second, and so on until the command comes to its end without it; and so for
/// each kind. `judge` is given what is left. Returns how many points there were.
fn each_point(
    scene: &impl Trial,
    fault: Fault,
    mut judge: impl FnMut(Point, &Home, &Hit),
) -> usize {
    let what = match fault {
        Fault::Kill => "crash_points",
        Fault::NoSpace | Fault::Broken => "disk_fault_points",
    };
    let mut n_points = 0;
    for kind in WRITES {
        for nth in 1.. {
            let point = Point { kind, nth };
            let home = scene.copy();
            let reader = keep_index(&home);
            let hit = traced::run(&home, &scene.program(), fault, point);
            drop(reader);
            if hit.call.is_none() {
                assert_eq!(hit.ran.code, Some(scene.code()), "{}", hit.ran);
                break;
            }
            judge(point, &home, &hit);
            let name = format!("{} {fault:?} {}", scene.name(), point.name());
            ledger::enter_case(what, &name);
            n_points += 1;
        }
    }
    n_points
}

/// Keeps the log's index from being written by another thread than the one that is counted.
fn keep_index(home: &Home) -> Option<Connection> {
    let path = home.mirror_path();
    path.exists().then(|| {
        let reader = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let any = reader.query_row("SELECT 1 FROM feed", [], |_| Ok(()));
        any.map(|()| reader).unwrap()
    })
}

/// The process died. `last` is the place of the state that it left at the point before; returns that of this one.
fn judge_killed(
    scene: &impl Trial,
    expected: &Expected,
    home: &Home,
    hit: &Hit,
    last: usize,
) -> usize {
    let left = look(scene, home);
    let timeless = left.timeless();
    let place = expected.states[last..]
        .iter()
        .position(|state| *state == timeless)
        .unwrap_or_else(|| {
            panic!(
                "{}: neither before nor after at {:?}: {}",
                scene.name(),
                hit.call,
                expected.states[last].differences(&timeless)
            )
        });
    go_on(scene, expected, home, hit, &left);
    last + place
}

/// A call failed, and the command told of it, or did without.
fn judge_failed(scene: &impl Trial, expected: &Expected, home: &Home, hit: &Hit) {
    let left = look(scene, home);
    let substance = left.substance();
    let is_between = |state: &State| state.substance() == substance;
    assert!(
        expected.states.iter().any(is_between),
        "{}: neither before nor after at {:?}: {}\n{}",
        scene.name(),
        hit.call,
        expected.states[0].substance().differences(&substance),
        hit.ran
    );
    let after = expected.states.last().unwrap();
    if hit.ran.code == Some(scene.code()) {
        // It could do without that call; and says so by having done its work.
        assert_eq!(
            after.content(),
            left.content(),
            "{}: done in spite of {:?}: {}",
            scene.name(),
            hit.call,
            hit.ran
        );
    } else {
        let failure = Some(scene.code_of_failure());
        assert_eq!(hit.ran.code, failure, "{:?}: {}", hit.call, hit.ran);
        assert_is_clear(hit);
    }
    let outcomes = left.column("syncs", "outcome");
    let errors = left.column("syncs", "error");
    for (outcome, error) in outcomes.into_iter().zip(errors) {
        assert_eq!(outcome == "'failed'", error != "NULL", "{outcome} {error}");
    }
    go_on(scene, expected, home, hit, &left);
}

/// Says what failed and what to do about it.
fn assert_is_clear(hit: &Hit) {
    let said = format!("{}{}", hit.ran.stdout, hit.ran.stderr);
    let what = [
        "disk is full",
        "disk I/O error",
        "No space left",
        "Input/output error",
        "write-ahead log",
    ];
    assert!(
        what.iter().any(|what| said.contains(what)),
        "{:?}: {said}",
        hit.call
    );
    let to_do = ["make room on", "the system log"];
    assert!(
        to_do.iter().any(|to_do| said.contains(to_do)),
        "{:?}: {said}",
        hit.call
    );
}

/// Reads a copy of what is left, so that the next command finds it untouched.
fn look(scene: &impl Trial, home: &Home) -> State {
    let copy = tempfile::tempdir_in(workplace()).unwrap();
    copy_mirror(home.path(), copy.path());
    let mirror = copy.path().join("mirror.db");
    let state = State::of(&mirror);
    // One that is still to be migrated is not ours to verify.
    if mirror.exists() && state.schema_version() == newest_schema_version() {
        state::verify(&mirror);
    }
    scene.look_beside(copy.path());
    state
}

/// The next commands end in the truth, and no `seq` becomes another record's.
fn go_on(scene: &impl Trial, expected: &Expected, home: &Home, hit: &Hit, left: &State) {
    assert_goes_on(&expected.before, left);
    scene.go_on(home);
    let end = State::of(&home.mirror_path());
    assert_goes_on(left, &end);
    let [wanted, found] = [expected.end.content(), end.content()];
    assert!(
        wanted == found,
        "{}: another end after {:?}: {}",
        scene.name(),
        hit.call,
        wanted.differences(&found)
    );
    state::verify(&home.mirror_path());
}

/// Whatever a reader has read of the feed is there as it was, or was trimmed; nothing took its `seq`.
pub(super) fn assert_goes_on(earlier: &State, later: &State) {
    for (earlier, later) in earlier
        .column("feed", "epoch")
        .iter()
        .zip(later.column("feed", "epoch"))
    {
        assert_eq!(*earlier, later, "a reader would have to begin anew");
    }
    let (earlier, later) = (earlier.feed(), later.feed());
    for (seq, record) in &earlier {
        if let Some(found) = later.get(seq) {
            assert_eq!(found, record);
        }
    }
    if let Some((last, _)) = earlier.last_key_value() {
        assert!(later.last_key_value().is_some_and(|(seq, _)| seq >= last));
    }
    let seqs: Vec<i64> = later.keys().copied().collect();
    assert!(
        seqs.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{seqs:?}"
    );
}
