//! What goes wrong at an instance: every effect that the sandbox knows, with members drawn by lot.

use std::collections::BTreeSet;

use fastrand::Rng;
use musterd::sandbox::{Effect, Fault, Poison, RequestKind, StampForm};

use super::plan::{Trouble, pick};
use crate::login::Login;

/// Draws the members of one effect. The ids are those of living users.
type Kind = fn(&mut Rng, &[String]) -> Effect;

/// One of each effect, those with members of very different consequences more than once.
pub(super) const KINDS: &[Kind] = &[
    |_, _| Effect::HtmlPage,
    |rng, _| Effect::EdgeError {
        status: pick(rng, &[(502, 1), (503, 1), (504, 1)]),
    },
    |_, _| Effect::Redirect {
        location: "https://login.example.org/".to_owned(),
    },
    |_, _| Effect::Dropped,
    |rng, _| Effect::RateLimited {
        retry_after: pick(
            rng,
            &[
                ("1", 2),
                ("45", 2),
                ("900", 2),
                ("3600", 1),
                ("-5", 1),
                ("soon", 1),
                ("99999999999999999999", 1),
                ("Fri, 31 Dec 9999 23:59:59 GMT", 1),
            ],
        )
        .to_owned(),
    },
    |_, _| Effect::SemaphoreFull,
    |_, _| Effect::Unauthorized,
    |_, _| Effect::RoleMissing,
    |_, _| Effect::ScopeMissing,
    |rng, _| Effect::PluginInactive {
        status: pick(rng, &[(400, 1), (404, 2)]),
    },
    |_, _| Effect::Cancelled,
    |_, _| Effect::ErrorInstead,
    |_, _| Effect::LoginRefused,
    |rng, _| Effect::BrokenJson { share: rng.f64() },
    |_, _| Effect::TrailingError,
    |rng, ids| Effect::PoisonedRow {
        id: one(ids, rng),
        with: pick(
            rng,
            &[
                (Poison::InvalidUtf8, 1),
                (Poison::ControlCharacter, 1),
                (Poison::Deep, 1),
                (Poison::HugeNumber, 1),
                (Poison::LoneSurrogate, 1),
                (Poison::DoubledKey, 1),
                (Poison::NoId, 1),
            ],
        ),
    },
    |_, _| Effect::Reset,
    |rng, _| Effect::Cut { share: rng.f64() },
    |rng, _| Effect::Stall { share: rng.f64() },
    |rng, _| Effect::Drip {
        ms: rng.u64(1..=1_000),
    },
    |rng, _| Effect::Slow {
        ms: rng.u64(1..=90_000),
    },
    |_, _| Effect::GzipCut,
    |rng, _| {
        let (header, value) = pick(
            rng,
            &[
                (("Date", ""), 2),
                (("Date", "Thu, 01 Jan 2099 00:00:00 GMT"), 2),
                (("Date", "Thu, 01 Jan 2015 00:00:00 GMT"), 2),
                (("Date", "tomorrow"), 1),
                (("Content-Type", "text/plain"), 1),
                (("Content-Type", ""), 1),
                (("X-RateLimit-Limit", "100"), 1),
                (("X-RateLimit-Limit", "-1"), 1),
                (("Retry-After", "600"), 1),
            ],
        );
        Effect::Header {
            header: header.to_owned(),
            value: value.to_owned(),
        }
    },
    |_, _| Effect::OrderScrambled,
    |_, _| Effect::TiesShuffled,
    |_, _| Effect::SortIgnored,
    |_, _| Effect::SortRefused,
    |rng, _| Effect::FilterIgnored {
        attribute: filtered(rng),
    },
    |rng, _| Effect::FilterRefused {
        attribute: filtered(rng),
    },
    |rng, _| Effect::FilterFindsNobody {
        attribute: filtered(rng),
    },
    |rng, _| Effect::FilterReversed {
        attribute: filtered(rng),
    },
    |_, _| Effect::StartIndexIgnored,
    |_, _| Effect::FirstPageAgain,
    |rng, _| Effect::ShortPage {
        rows: rng.usize(0..=3),
    },
    |_, _| Effect::EmptyPage,
    |_, _| Effect::RepeatedRow,
    |_, _| Effect::RowDropped,
    |_, _| Effect::ResourcesMissing,
    |_, _| Effect::EmptyWithoutResources,
    |rng, _| Effect::TotalOff {
        by: rng.i64(-40..=40),
    },
    |_, _| Effect::InactiveHidden,
    |rng, _| Effect::RowsHidden {
        share: pick(rng, &[(1.0, 1), (0.5, 2), (0.2, 2), (0.05, 2)]),
    },
    |rng, _| Effect::RowsHiddenAfterCut {
        share: pick(rng, &[(0.5, 1), (0.2, 1), (0.05, 1)]),
    },
    |rng, ids| {
        let n = rng.usize(1..=8).min(ids.len());
        let from = rng.usize(..=ids.len() - n);
        Effect::UsersHidden {
            ids: ids[from..from + n].to_vec(),
        }
    },
    |rng, _| Effect::RowsUnlisted {
        share: pick(rng, &[(0.5, 1), (0.2, 1), (0.05, 1)]),
        ids: Vec::new(),
    },
    |_, _| Effect::AnotherUser,
    |rng, _| Effect::NodeBehind {
        seconds: pick(rng, &[(30, 2), (120, 2), (900, 1), (7_200, 1)]),
    },
    |rng, _| Effect::AttributeHidden {
        attribute: pick(
            rng,
            &[
                ("title", 2),
                ("active", 1),
                ("emails", 1),
                ("name", 1),
                (
                    "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User",
                    1,
                ),
            ],
        )
        .to_owned(),
    },
    |_, _| Effect::EmptyForms,
    |_, _| Effect::MembersShuffled,
    |_, _| Effect::CoreSchemaFirst,
    |_, _| Effect::PlainReferences,
    |_, _| Effect::DisplayLabels,
    |_, _| Effect::ActiveAsText,
    |rng, _| Effect::MemberMissing {
        member: pick(
            rng,
            &[
                ("active", 3),
                ("meta", 2),
                ("schemas", 1),
                ("title", 1),
                ("userName", 1),
            ],
        )
        .to_owned(),
    },
    |rng, _| {
        let (member, json) = pick(
            rng,
            &[
                (("urn:example:custom", r#"{"badge":7,"tags":["b","a"]}"#), 2),
                (("nickName", r#""Nick""#), 1),
                (("title", "12.50"), 1),
                (("active", "\"maybe\""), 1),
                (("emails", "\"none\""), 1),
                (("externalId", "null"), 1),
            ],
        );
        Effect::MemberAdded {
            member: member.to_owned(),
            json: json.to_owned(),
        }
    },
    |rng, _| Effect::StampForm {
        form: pick(
            rng,
            &[
                (StampForm::Fraction, 1),
                (StampForm::Offset, 1),
                (StampForm::NoZone, 1),
                (StampForm::Missing, 1),
                (StampForm::Nonsense, 1),
                (StampForm::Future, 1),
            ],
        ),
    },
    |_, _| Effect::LinksElsewhere {
        base: "https://elsewhere.example.org/scim".to_owned(),
    },
    |_, _| Effect::RowInserted,
    |_, _| Effect::RowDeleted,
    |_, _| Effect::EverybodyInactive,
    |rng, _| Effect::StampsMoved { share: rng.f64() },
    |rng, _| Effect::SilentChange { share: rng.f64() },
    |rng, _| Effect::LateCommit {
        share: rng.f64() / 2.0,
        seconds: rng.u64(1..=1_200),
    },
    |_, _| Effect::DepartmentRenamed,
    |_, _| Effect::Undeleted,
    |rng, _| Effect::RolledBack {
        seconds: rng.u64(60..=40_000),
    },
    |rng, _| Effect::Cloned { seed: rng.u64(..) },
    |_, _| Effect::TokenEnds,
];

/// The same of effects that only requests about groups meet. The ids are those of groups.
pub(super) const OF_GROUPS: &[Kind] = &[
    |_, _| Effect::GroupsForbidden,
    |rng, ids| Effect::GroupsUnreadable {
        ids: some(ids, rng),
        status: pick(rng, &[(404, 2), (403, 1)]),
    },
    |rng, ids| Effect::GroupsBlanked {
        ids: some(ids, rng),
    },
    |rng, ids| Effect::MembersCut {
        most: rng.usize(0..=3),
        ids: some(ids, rng),
    },
    |rng, ids| Effect::MembersCut {
        most: rng.usize(1..=6),
        ids: some(ids, rng),
    },
    |rng, ids| Effect::MembersEmpty {
        ids: some(ids, rng),
    },
    |rng, ids| Effect::MembersMislinked {
        ids: some(ids, rng),
    },
    |_, _| Effect::MembershipsShown,
    |_, _| Effect::AttributeHidden {
        attribute: "members".to_owned(),
    },
    |_, _| Effect::MemberVanished,
    |_, _| Effect::GroupsTangled,
    |_, _| Effect::GroupRenamed,
    |_, _| Effect::GroupRemade,
    |rng, ids| Effect::PoisonedRow {
        id: one(ids, rng),
        // No doubled `active`: where another fault writes the row anew the last of the two is left, and a group has none of its
        // own behind them.
        with: pick(
            rng,
            &[
                (Poison::InvalidUtf8, 1),
                (Poison::Deep, 1),
                (Poison::NoId, 1),
            ],
        ),
    },
];

/// What a fault of groups meets: lists, single groups, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Lists,
    Singles,
    Both,
}

/// Draws which effect a fault of groups has.
pub(super) fn draw_kind_of_groups(rng: &mut Rng) -> usize {
    KINDS.len() + rng.usize(..OF_GROUPS.len())
}

/// Whether a kind is one of groups, whose ids its members are drawn from.
pub(super) fn is_of_groups(kind: usize) -> bool {
    kind >= KINDS.len()
}

/// Draws which effect a fault of an instance has.
pub(super) fn draw_kind(auth: Login, rng: &mut Rng) -> usize {
    loop {
        let kind = rng.usize(..KINDS.len());
        // Which one it is does not depend on what is drawn.
        let effect = KINDS[kind](&mut Rng::with_seed(0), &[String::new()]);
        let ends_token = matches!(effect, Effect::Cloned { .. } | Effect::TokenEnds);
        // A token that was given by hand is given anew by hand: that would be all that is seen.
        if !(ends_token && auth == Login::Bearer) {
            return kind;
        }
    }
}

/// The fault itself, and what it meets.
pub(super) fn fault(trouble: Trouble, ids: &[String]) -> (Fault, Reach) {
    let mut rng = Rng::with_seed(trouble.lot);
    let kind = match trouble.kind.checked_sub(KINDS.len()) {
        None => KINDS[trouble.kind],
        Some(place) => OF_GROUPS[place],
    };
    let effect = kind(&mut rng, ids);
    let reach = match effect {
        // What a list of groups says, and the group alone does not, or the other way round.
        Effect::GroupsBlanked { .. } | Effect::MembersCut { .. } | Effect::MembersEmpty { .. } => {
            let reaches = [(Reach::Lists, 3), (Reach::Both, 3), (Reach::Singles, 1)];
            pick(&mut rng, &reaches)
        }
        _ => Reach::Both,
    };
    // What changes the whole directory with each request leaves nothing to be seen of all else.
    let times = match effect {
        Effect::Cloned { .. }
        | Effect::RolledBack { .. }
        | Effect::EverybodyInactive
        | Effect::Undeleted
        | Effect::TokenEnds => trouble.times.min(2),
        Effect::RowInserted
        | Effect::RowDeleted
        | Effect::StampsMoved { .. }
        | Effect::SilentChange { .. }
        | Effect::LateCommit { .. }
        | Effect::DepartmentRenamed
        | Effect::MemberVanished
        | Effect::GroupsTangled
        | Effect::GroupRenamed
        | Effect::GroupRemade => trouble.times.min(6),
        _ => trouble.times,
    };
    let fault = Fault::new(effect)
        .named(name(trouble.number))
        .probability(trouble.probability)
        .times(times);
    let fault = match reach {
        Reach::Lists => fault.on(&[RequestKind::List]),
        Reach::Singles => fault.on(&[RequestKind::Get]),
        Reach::Both => fault,
    };
    (fault, reach)
}

/// What the report of the sandbox calls the fault of this number.
pub(super) fn name(number: usize) -> String {
    format!("fault {number}")
}

fn one(ids: &[String], rng: &mut Rng) -> String {
    rng.choice(ids).cloned().unwrap_or_default()
}

/// Some of them, or, as none is named, all.
fn some(ids: &[String], rng: &mut Rng) -> Vec<String> {
    let mut some = ids.to_vec();
    rng.shuffle(&mut some);
    some.truncate(pick(rng, &[(1, 4), (2, 2), (4, 1), (0, 2)]));
    some
}

fn filtered(rng: &mut Rng) -> Option<String> {
    pick(
        rng,
        &[(None, 2), (Some("meta.lastModified"), 2), (Some("id"), 2)],
    )
    .map(str::to_owned)
}

/// What the effects are called.
pub(super) fn names() -> BTreeSet<String> {
    let effects = KINDS
        .iter()
        .chain(OF_GROUPS)
        .map(|kind| kind(&mut Rng::with_seed(0), &[String::new()]));
    effects.map(|effect| effect.name()).collect()
}
