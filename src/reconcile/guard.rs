//! The guards: how many deactivations, and how many blankings of one attribute, are too many to be
//! believed, and whether this is still the same directory (contract, sections 4a and 7).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::canonical::{self, Resource};
use super::mapping;
use super::path;
use crate::model::{ChangeRecord, Kind, ResourceType, UserColumns};

/// What the guards of one instance let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Users who turn inactive or are gone.
    pub deactivations: WindowLimit,
    /// Users of whom one and the same attribute turns empty.
    pub blanking: WindowLimit,
    /// Members whom groups lose, all groups together.
    pub memberships: WindowLimit,
    /// Members whom one and the same group loses.
    pub group_memberships: WindowLimit,
    /// Users who look like another directory's.
    pub source_changed: ShareLimit,
}

/// Held above `at_least` and above either limit, within the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowLimit {
    /// Never held up to so many.
    pub at_least: u64,
    /// Held above so many.
    pub count: u64,
    /// Held above this share of the users.
    pub percent: u64,
    /// The sliding window.
    pub window: Duration,
}

/// Held above both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareLimit {
    /// Never held up to so many.
    pub at_least: u64,
    /// Held above this share of the users.
    pub percent: u64,
}

/// What a guard counts. The records of one sync that share a concern are held or released together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Active before, not after.
    Deactivation,
    /// This attribute had a value before, and has none after.
    Blanking(String),
    /// A group has a member less, and lives.
    Membership,
    /// This group has a member less, and lives.
    GroupMembership(String),
}

/// What a complete full crawl tells of the directory behind the instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Likeness {
    /// Living users whom the mirror knew when the crawl started.
    pub known: u64,
    /// Of those, not seen, and in no open hold for that.
    pub unseen: u64,
    /// Of those, seen.
    pub seen: u64,
    /// Of the seen, with a stamp before the one that the mirror has.
    pub older: u64,
}

impl Limits {
    /// The limit of a concern.
    #[must_use]
    pub fn of(&self, concern: &Concern) -> &WindowLimit {
        match concern {
            Concern::Deactivation => &self.deactivations,
            Concern::Blanking(_) => &self.blanking,
            Concern::Membership => &self.memberships,
            Concern::GroupMembership(_) => &self.group_memberships,
        }
    }

    /// How far back a guard counts: what was released since then must be known.
    #[must_use]
    pub fn longest_window(&self) -> Duration {
        let members = (self.memberships.window).max(self.group_memberships.window);
        (self.deactivations.window)
            .max(self.blanking.window)
            .max(members)
    }

    /// Why this looks like another directory, in words for people, with both shares as they were measured; `None`
    /// while it does not.
    #[must_use]
    pub fn is_another_directory(&self, resource: ResourceType, found: &Likeness) -> Option<String> {
        let ShareLimit { at_least, percent } = self.source_changed;
        let shares = [(found.unseen, found.known), (found.older, found.seen)];
        let [unseen, older] = shares.map(|(n, of)| {
            let share = u128::from(n) * 100 / u128::from(of.max(1));
            format!("{n} of {of} ({share} %)")
        });
        let exceeds = |(n, of)| n > at_least && is_above_share(n, percent, of);
        shares.into_iter().any(exceeds).then(|| {
            format!(
                "{unseen} known {}s were not seen, {older} seen have an older `meta.lastModified` than the mirror: \
                 of either at most {at_least} or {percent} % pass",
                resource.noun()
            )
        })
    }
}

#[cfg(test)]
impl Limits {
    /// Guards that hold nothing.
    pub(crate) fn none() -> Self {
        let none = WindowLimit {
            at_least: u64::MAX,
            count: u64::MAX,
            percent: 100,
            window: Duration::from_secs(86_400),
        };
        Self {
            deactivations: none.clone(),
            blanking: none.clone(),
            memberships: none.clone(),
            group_memberships: none,
            source_changed: ShareLimit {
                at_least: u64::MAX,
                percent: 100,
            },
        }
    }
}

impl WindowLimit {
    /// Whether the share counts: else the number of users need not be known.
    #[must_use]
    pub fn asks_for_share(&self, n: u64) -> bool {
        n > self.at_least && n <= self.count
    }

    /// Why so many within the window are too many, in words for people; `None` while they are not.
    /// `all` is how many there were when the window began, and `noun` what one of them is called.
    #[must_use]
    pub fn exceeded(&self, n: u64, all: u64, noun: &str) -> Option<String> {
        if n <= self.at_least {
            return None;
        }
        let limit = if n > self.count {
            format!("more than {}", self.count)
        } else if is_above_share(n, self.percent, all) {
            format!(
                "more than {} and more than {} % of {all} {noun}s",
                self.at_least, self.percent
            )
        } else {
            return None;
        };
        let window = jiff::SignedDuration::try_from(self.window).unwrap_or_default();
        Some(format!("{n} within {window:#}: {limit}"))
    }
}

impl ShareLimit {
    /// Whether so many of all are too many.
    #[must_use]
    pub fn is_exceeded(&self, n: u64, all: u64) -> bool {
        n > self.at_least && is_above_share(n, self.percent, all)
    }
}

/// Whether `n` is more than this share of all.
fn is_above_share(n: u64, percent: u64, all: u64) -> bool {
    u128::from(n) * 100 > u128::from(percent) * u128::from(all)
}

impl Concern {
    /// The path at which the mirror keeps the old value while such a change is held; `is_gone` says
    /// whether the user is absent, who has no new value anywhere.
    #[must_use]
    pub fn path(&self, is_gone: bool) -> &str {
        match self {
            Self::Deactivation if is_gone => "all",
            Self::Deactivation => "active",
            Self::Blanking(path) => path,
            Self::Membership | Self::GroupMembership(_) => "all",
        }
    }

    /// What `holds.guard` calls it, and what stands in `holds.attribute`.
    #[must_use]
    pub fn guard(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Deactivation => ("deactivations", None),
            Self::Blanking(path) => ("blanking", Some(path)),
            Self::Membership => ("memberships", None),
            Self::GroupMembership(group) => ("group_memberships", Some(group)),
        }
    }

    /// Whether somebody of this state counts among the users of a share: is active, or lives and has
    /// the attribute.
    fn applies(&self, resource: ResourceType, canonical: &str) -> bool {
        match self {
            Self::Blanking(path) => has(resource, canonical, path),
            Self::Deactivation | Self::Membership | Self::GroupMembership(_) => {
                canonical::active(canonical).unwrap_or(true)
            }
        }
    }
}

/// What of a change record, or of a row of `changes`, a guard counts. In the order of concerns.
#[must_use]
pub fn concerns(resource: ResourceType, kind: Kind, changed: Option<&str>) -> Vec<Concern> {
    let mut concerns = Vec::new();
    if kind == Kind::Deactivate {
        concerns.push(Concern::Deactivation);
    }
    // Nearly no record empties anything: those need not be read.
    if let Some(changed) = changed.filter(|changed| changed.contains(TURNS_EMPTY)) {
        let changes = Changes::read(resource, changed);
        let blanked = changes.by_path.keys().filter(|path| changes.blanks(path));
        concerns.extend(blanked.map(|path| Concern::Blanking(path.clone())));
    }
    concerns
}

/// Whether a record says that something of this concern changed.
#[must_use]
pub fn tells(record: &ChangeRecord, concern: &Concern) -> bool {
    match concern {
        Concern::Deactivation => record.kind == Kind::Deactivate,
        Concern::Blanking(path) => {
            let changed = record.changed.as_deref();
            changed.is_some_and(|changed| {
                Changes::read(record.resource, changed)
                    .by_path
                    .contains_key(path)
            })
        }
        Concern::Membership | Concern::GroupMembership(_) => false,
    }
}

/// What `changed` of a record has that empties an attribute.
pub const TURNS_EMPTY: &str = r#""to":null"#;

/// How a record of the feed changed the number of users that a concern's share is of: -1, 0 or 1.
#[must_use]
pub fn shift(
    resource: ResourceType,
    concern: &Concern,
    kind: Kind,
    changed: Option<&str>,
    after: &str,
) -> i64 {
    let Some(changed) = changed else {
        return i64::from(kind == Kind::Create && concern.applies(resource, after));
    };
    let changes = Changes::read(resource, changed);
    let path = match concern {
        Concern::Deactivation => "active",
        Concern::Blanking(path) => path,
        // Each begins or ends by a record of its own.
        Concern::Membership | Concern::GroupMembership(_) => {
            return -i64::from(kind == Kind::Deactivate);
        }
    };
    let value = changes.presence(path);
    let lives = match (concern, changes.presence("gone_at")) {
        (Concern::Blanking(_), Some([was_gone, is_gone])) => [!was_gone, !is_gone],
        _ => [true, true],
    };
    if value.is_none() && lives[0] == lives[1] {
        return 0;
    }
    let [before, now] = value.unwrap_or_else(|| [concern.applies(resource, after); 2]);
    i64::from(now && lives[1]) - i64::from(before && lives[0])
}

/// Whether a resource has a value at a path of `changed`; of a reference, its id or its label.
#[must_use]
pub fn has(resource: ResourceType, canonical: &str, path: &str) -> bool {
    if let Some(names) = mapping::columns_of(resource, path) {
        let has = |columns: UserColumns| {
            let mut names = names.iter();
            names.any(|name| columns.get_of(resource, name).is_some())
        };
        return mapping::columns(resource, canonical).is_ok_and(has);
    }
    let stored = Resource::stored(resource, canonical);
    let content = stored.content().without_links();
    content.is_some_and(|content| path::find(resource, &content, path).is_some())
}

/// The column `changed` of a record.
struct Changes {
    resource: ResourceType,
    by_path: BTreeMap<String, Value>,
}

impl Changes {
    fn read(resource: ResourceType, changed: &str) -> Self {
        Self {
            resource,
            // Ours to write; in a damaged file nothing can be counted.
            by_path: serde_json::from_str(changed).unwrap_or_default(),
        }
    }

    fn other_column(&self, column: &str) -> Option<&'static str> {
        let columns = mapping::columns_of(self.resource, column)?;
        columns.get(1).copied()
    }

    /// Whether there is a value at this path, before and after; `None` when nothing changed there.
    /// Of a reference its two columns are one value. `active` is present when it is true.
    fn presence(&self, path: &str) -> Option<[bool; 2]> {
        let change = self.by_path.get(path)?;
        let other = self.other_column(path);
        let other = other.and_then(|other| self.by_path.get(other));
        Some(["from", "to"].map(|side| {
            let is_there = |change: &Value| match &change[side] {
                Value::Null => false,
                Value::Bool(is_active) if path == "active" => *is_active,
                _ => true,
            };
            is_there(change) || other.is_some_and(is_there)
        }))
    }

    /// Whether this path is an attribute that turns empty. A reference goes by its label's name.
    fn blanks(&self, path: &str) -> bool {
        let is_id = path.ends_with("_id") && self.other_column(path).is_some();
        !is_id
            // A label in another spelling, and the like: no attribute by itself.
            && !mapping::belongs_to_column(self.resource, path)
            && path != "gone_at"
            && path != "active"
            && self.presence(path) == Some([true, false])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{arrive, two_users};
    use super::super::{diff, event};
    use super::*;

    const LIMIT: WindowLimit = WindowLimit {
        at_least: 5,
        count: 200,
        percent: 5,
        window: Duration::from_secs(86_400),
    };

    #[test]
    fn held_is_what_is_above_at_least_and_above_either_limit() {
        let is_held = |n, users| LIMIT.exceeded(n, users, "user").is_some();
        assert!(!is_held(5, 10) && is_held(6, 10));
        assert!(!is_held(6, 120) && is_held(7, 120), "exactly 5 % pass");
        assert!(!is_held(200, 100_000) && is_held(201, 100_000));
        let any = WindowLimit {
            at_least: 0,
            count: 0,
            ..LIMIT
        };
        assert!(
            any.exceeded(1, 1_000_000, "user").is_some() && any.exceeded(0, 0, "user").is_none()
        );
        assert_eq!(
            LIMIT.exceeded(7, 120, "user").unwrap(),
            "7 within 24h: more than 5 and more than 5 % of 120 users"
        );
        assert_eq!(
            LIMIT.exceeded(201, 300, "user").unwrap(),
            "201 within 24h: more than 200"
        );
        assert!(LIMIT.asks_for_share(6) && LIMIT.asks_for_share(200));
        assert!(!LIMIT.asks_for_share(5) && !LIMIT.asks_for_share(201));
    }

    #[test]
    fn another_directory_is_above_both_limits_by_either_number() {
        let limits = Limits {
            deactivations: LIMIT,
            blanking: LIMIT,
            memberships: LIMIT,
            group_memberships: LIMIT,
            source_changed: ShareLimit {
                at_least: 20,
                percent: 20,
            },
        };
        let asks = |unseen, older, known| {
            let found = Likeness {
                known,
                unseen,
                seen: known - unseen,
                older,
            };
            limits
                .is_another_directory(ResourceType::User, &found)
                .is_some()
        };
        assert!(!asks(20, 0, 60) && asks(21, 0, 60));
        assert!(!asks(21, 0, 105) && asks(22, 0, 105), "exactly 20 % pass");
        assert!(!asks(0, 20, 60) && asks(0, 21, 60));
        let both = Likeness {
            known: 60,
            unseen: 40,
            seen: 20,
            older: 3,
        };
        assert_eq!(
            limits
                .is_another_directory(ResourceType::User, &both)
                .unwrap(),
            "40 of 60 (66 %) known users were not seen, 3 of 20 (15 %) seen have an older `meta.lastModified` than \
             the mirror: of either at most 20 or 20 % pass"
        );
    }

    fn found(changed: &str) -> Vec<Concern> {
        concerns(ResourceType::User, Kind::Update, Some(changed))
    }

    #[test]
    fn an_attribute_is_blanked_when_nothing_is_left_of_it() {
        let blanking = |path: &str| Concern::Blanking(path.to_owned());
        assert_eq!(
            found(r#"{"title":{"from":"a","to":null},"emails":{"from":[1],"to":null}}"#),
            [blanking("emails"), blanking("title")]
        );
        // A reference counts once, by its label's name.
        assert_eq!(
            found(r#"{"manager_id":{"from":"m","to":null},"manager":{"from":null,"to":null}}"#),
            [blanking("manager")]
        );
        for passes in [
            r#"{"manager_id":{"from":"m","to":"m"},"manager":{"from":"M","to":null}}"#,
            r#"{"manager_id":{"from":"m","to":null},"manager":{"from":"M","to":"M"}}"#,
            r#"{"title":{"from":null,"to":"a"}}"#,
            r#"{"active":{"from":false,"to":true},"gone_at":{"from":"2026","to":null}}"#,
            r#"{"urn:x:User:vip":{"from":true,"to":false}}"#,
        ] {
            assert_eq!(found(passes), [], "{passes}");
        }
        assert_eq!(
            concerns(
                ResourceType::User,
                Kind::Deactivate,
                Some(r#"{"title":{"from":"a","to":null}}"#)
            ),
            [Concern::Deactivation, blanking("title")]
        );
    }

    #[test]
    fn what_else_a_reference_had_is_no_attribute_by_itself() {
        let urn = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
        let is_found = |path: &str| {
            let changed = format!(r#"{{"{path}":{{"from":"x","to":null}}}}"#);
            found(&changed) == [Concern::Blanking(path.to_owned())]
        };
        for part in [
            "costCenter",
            "costCenter.display",
            "costCenter.value",
            "employeeNumber",
        ] {
            assert!(!is_found(&format!("{urn}:{part}")), "{part}");
        }
        for own in [
            "costCenterOwner",
            "division",
            "name.costCenter",
            "location.building",
        ] {
            assert!(is_found(&format!("{urn}:{own}")), "{own}");
        }
        assert!(is_found("urn:x:User:costCenter.display"));
    }

    #[test]
    fn the_share_is_of_those_who_had_it_when_the_window_began() {
        let title = Concern::Blanking("title".to_owned());
        let manager = Concern::Blanking("manager".to_owned());
        let with = r#"{"active":true,"id":"a","title":"x"}"#;
        let without = r#"{"active":false,"id":"a"}"#;
        for (concern, kind, changed, after, expected) in [
            (&Concern::Deactivation, Kind::Create, None, with, 1),
            (&Concern::Deactivation, Kind::Create, None, without, 0),
            (
                &Concern::Deactivation,
                Kind::Deactivate,
                Some(r#"{"active":{"from":true,"to":false}}"#),
                without,
                -1,
            ),
            (
                &Concern::Deactivation,
                Kind::Update,
                Some(r#"{"active":{"from":false,"to":true},"gone_at":{"from":"t","to":null}}"#),
                with,
                1,
            ),
            (&title, Kind::Create, None, with, 1),
            (&title, Kind::Create, None, without, 0),
            (
                &title,
                Kind::Update,
                Some(r#"{"locale":{"from":"a","to":null}}"#),
                with,
                0,
            ),
            (
                &title,
                Kind::Deactivate,
                Some(r#"{"active":{"from":true,"to":false},"gone_at":{"from":null,"to":"t"}}"#),
                with,
                -1,
            ),
            (
                &title,
                Kind::Update,
                Some(r#"{"gone_at":{"from":"t","to":null},"title":{"from":"x","to":null}}"#),
                without,
                0,
            ),
            (
                &manager,
                Kind::Update,
                Some(r#"{"manager_id":{"from":"m","to":null},"manager":{"from":null,"to":null}}"#),
                without,
                -1,
            ),
        ] {
            assert_eq!(
                shift(ResourceType::User, concern, kind, changed, after),
                expected,
                "{concern:?} {changed:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_blanked_was_there_and_is_not((one, other) in two_users()) {
            let before = event::seen(None, arrive(&one.write()).unwrap()).after;
            let after = event::seen(Some(before.clone()), arrive(&other.write()).unwrap());
            let Some(record) = diff::record(after, true) else { return Ok(()) };
            for concern in concerns(ResourceType::User, record.kind, record.changed.as_deref()) {
                prop_assert!(concern.applies(ResourceType::User, &before.canonical), "{:?}", concern);
                prop_assert!(!concern.applies(ResourceType::User, &record.after.canonical), "{:?}", concern);
                let by = shift(ResourceType::User, &concern, record.kind, record.changed.as_deref(), &record.after.canonical);
                prop_assert_eq!(by, -1);
            }
        }
    }
}
