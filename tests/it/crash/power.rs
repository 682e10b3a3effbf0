//! The power goes, at every point of every scene: what was not synced is there in part, in any order, torn
//! at sectors. A transaction that somebody may have read survives, whole.

use std::collections::BTreeSet;
use std::path::Path;

use musterd::mirror::Mirror;
use sha2::{Digest as _, Sha256};

use super::disk::Image;
use super::recording::Recording;
use super::scenes::{Scene, Trial};
use super::several::Several;
use super::state::{State, verify};
use super::{traced, workplace};
use crate::ledger;

/// Different ones, over all scenes.
const N_IMAGES: usize = 10_000;

/// Draws at a point that bring nothing new before the next point has its turn.
const N_DRAWS_IN_VAIN: usize = 3;

#[test]
fn power_cuts() {
    if !traced::is_possible() {
        return;
    }
    let recordings = [
        record(&Scene::creation()),
        record(&Scene::baseline()),
        record(&Scene::incremental()),
        record(&Scene::full()),
        record(&Scene::approval()),
        record(&Scene::trimming()),
        record(&Several::new()),
    ];
    let scratch = tempfile::tempdir_in(workplace()).unwrap();
    let mut lot = fastrand::Rng::with_seed(0x5eed);
    let mut seen = BTreeSet::new();
    // Round after round over all points, so that none of them is tried less than another.
    while seen.len() < N_IMAGES {
        let n_before = seen.len();
        for (name, recording) in &recordings {
            cut_at_every_point(name, recording, scratch.path(), &mut lot, &mut seen);
        }
        assert!(seen.len() > n_before, "no more images can be drawn");
    }
    ledger::enter("power_cut_images", seen.len());
}

fn record(scene: &impl Trial) -> (String, Recording) {
    let home = scene.copy();
    let start = Image::of(scene.copy().path());
    let (ran, log) = traced::record(&home, &scene.program());
    assert_eq!(ran.code, Some(scene.code()), "{ran}");
    let recording = Recording::read(&log, home.path(), start);
    (scene.name().to_owned(), recording)
}

fn cut_at_every_point(
    name: &str,
    recording: &Recording,
    scratch: &Path,
    lot: &mut fastrand::Rng,
    seen: &mut BTreeSet<[u8; 32]>,
) {
    let states = recording.states(scratch);
    let mut disk = recording.disk();
    for (point, op) in recording.ops.iter().enumerate() {
        disk.apply(op);
        for _ in 0..N_DRAWS_IN_VAIN {
            let image = disk.after_power_cut(lot);
            if seen.insert(digest(name, &image)) {
                // What lasted had been readable; the transaction under way may have got there, or not.
                let lasting = states.lasting[point];
                let allowed = &states.all[lasting..states.all.len().min(lasting + 2)];
                judge(&image, allowed, seen.len().is_multiple_of(4), scratch).unwrap_or_else(
                    |why| {
                        panic!("{name}: the power goes after operation {point}, {op:.60?}: {why}")
                    },
                );
                break;
            }
        }
    }
}

/// One of these tells two images from each other.
fn digest(name: &str, image: &Image) -> [u8; 32] {
    let mut digest = Sha256::new_with_prefix(name);
    for (name, bytes) in &image.0 {
        digest.update(name);
        digest.update(bytes.len().to_le_bytes());
        digest.update(bytes);
    }
    digest.finalize().into()
}

/// What the next start finds, or (three times as often, because that is faster) the next reader.
fn judge(image: &Image, allowed: &[State], is_opened: bool, scratch: &Path) -> Result<(), String> {
    image.lay_out(scratch);
    let path = scratch.join("mirror.db");
    if !path.exists() {
        // Nothing was readable, or it would be lost.
        return match allowed[0] == State::default() {
            true => Ok(()),
            false => Err("the mirror is not there".to_owned()),
        };
    }
    // A new file gets its log by a transaction of the older kind, which a reader cannot take back.
    if is_opened || path.with_file_name("mirror.db-journal").exists() {
        let mirror = Mirror::open(&path, "another").map_err(|error| format!("{error:?}"))?;
        drop(mirror);
    }
    verify(&path);
    let found = State::of(&path);
    if allowed.contains(&found) {
        return Ok(());
    }
    Err(format!(
        "neither before nor after: {}",
        allowed[0].differences(&found)
    ))
}
