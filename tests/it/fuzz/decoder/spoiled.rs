//! One record spoils its page: what is told of it is never the id of somebody else.

use std::sync::atomic::Ordering;

use fastrand::Rng;
use musterd::model::{Reject, Row};
use musterd::scim::answer;
use musterd::scim::salvage;
use proptest::{prop_assert, prop_assert_eq};

use super::{REACHED, answered};
use crate::fuzz::Checked;

/// Pages of one resource, spoiled in one place.
const SPOILED: usize = 4;

pub(super) fn check(row: &Row, rng: &mut Rng) -> Checked {
    let page = page_of_one(&row.raw, rng);
    prop_assert!(answer::judge_list(&answered(&page), 1).is_ok());
    let whole = salvage::reject(&page, "why");
    prop_assert!(
        whole.id.as_ref().is_none_or(|id| *id == row.id),
        "{:?}",
        whole.id
    );
    for _ in 0..SPOILED {
        let spoiled = spoil(&page, rng);
        if answer::judge_list(&answered(&spoiled), 1).is_ok() {
            // Another page, and a good one.
            continue;
        }
        let reject = salvage::reject(&spoiled, "why");
        prop_assert_eq!(&reject.reason, "why");
        prop_assert!(reject.body.len() <= Reject::MAX_BODY_BYTES);
        let reached = match &reject.id {
            Some(id) => {
                let page = spoiled.escape_ascii();
                prop_assert_eq!(id, &row.id, "the id of somebody else, of \"{}\"", page);
                &REACHED.salvaged
            }
            None => &REACHED.unsalvaged,
        };
        reached.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn page_of_one(raw: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut members = [
        br#""schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"]"#.to_vec(),
        br#""totalResults":1"#.to_vec(),
        [&b"\"Resources\":["[..], raw, b"]"].concat(),
    ];
    rng.shuffle(&mut members);
    [&b"{"[..], &members.join(&b','), b"}"].concat()
}

/// One byte that is wrong, one too many, or the end too early.
fn spoil(page: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut spoiled = page.to_vec();
    let place = rng.usize(..page.len());
    let byte = match rng.u8(..4) {
        0 => 0x01,
        1 => rng.u8(..),
        _ => 0xff,
    };
    match rng.u8(..8) {
        0 => spoiled.truncate(place),
        1 | 2 => spoiled.insert(place, byte),
        _ => spoiled[place] = byte,
    }
    spoiled
}
