//! The feed folds to the mirror, in every attribute of every user and of every group.

use std::collections::BTreeMap;

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::de::IgnoredAny;

use super::super::folded::{RECORDS, Records, Resource, same};
use super::super::{table, users};
use super::memberships::Memberships;
use super::{Stop, Verification, differ, identities, named_as};
use crate::model::user::text_columns;
use crate::model::{ChangeEvent, Foreign, ResourceId, ResourceType, State, UserColumns};
use crate::reconcile::diff;
use crate::reconcile::fold::Folded;
use crate::reconcile::{identity, mapping};

/// Living and active ones by resource and instance.
pub(super) type Counted = BTreeMap<(&'static str, String), (i64, i64)>;

/// What is folded, in the order of their names, which is the order of the records of an instance.
const RESOURCES: [ResourceType; 3] = [
    ResourceType::Group,
    ResourceType::Membership,
    ResourceType::User,
];

impl Verification<'_> {
    /// Each user, group and membership is what its records fold to, in every column that they decide, and each record has its
    /// row.
    pub(super) fn check_users(&mut self) -> Result<Counted, Stop> {
        let select = |resource| {
            format!(
                "SELECT {} FROM {} ORDER BY instance, id",
                columns_of(resource).join(", "),
                table::name(resource)
            )
        };
        let conn = &self.reader.conn;
        let mut users = conn.prepare(&select(ResourceType::User))?;
        let mut groups = conn.prepare(&select(ResourceType::Group))?;
        let (mut users, mut groups) = (users.query([])?, groups.query([])?);
        let mut memberships = Memberships::of(conn)?;
        let mut counted = Counted::new();
        let mut identities = conn.prepare(identities::ROWS)?;
        let mut identities = identities.query([])?;
        let mut records = self.reader.conn.prepare(RECORDS)?;
        let mut records = Records::start(records.query([])?)?;
        let checks = RESOURCES.map(checks);
        while let Some(one) = records.next()? {
            self.records += one.records;
            let Resource {
                instance,
                id,
                kind,
                folded,
                ..
            } = one;
            if kind == identity::RESOURCE {
                identities::compare(&mut identities, &instance, &id, folded)?;
                self.looked_at_one()?;
                continue;
            }
            let known = RESOURCES
                .into_iter()
                .zip(&checks)
                .find(|(resource, _)| resource.as_str() == kind);
            let Some((resource, checks)) = known else {
                return differ(format!(
                    "the feed has records of an unknown resource `{}`",
                    Foreign(&kind)
                ));
            };
            let named = named_as(resource, &instance, &id);
            let Some(folded) = folded.transpose() else {
                // Removed, with all others of the instance.
                self.looked_at_one()?;
                continue;
            };
            let of_feed = |why| Stop::Difference(format!("{named}: {why}"));
            let rows = match resource {
                ResourceType::User => &mut users,
                ResourceType::Group => &mut groups,
                ResourceType::Membership => {
                    let folded = folded.map_err(of_feed)?;
                    memberships.check(&named, &instance, &id, &folded)?;
                    let counts = counted.entry((resource.as_str(), instance)).or_default();
                    counts.0 += i64::from(folded.gone_at.is_none());
                    counts.1 += i64::from(folded.active);
                    self.looked_at_one()?;
                    continue;
                }
            };
            let Some(row) = rows.next()? else {
                return differ(format!("{named}: in the feed, but not in the mirror"));
            };
            let found: [String; 2] = [row.get(0)?, row.get(1)?];
            if (&found[0], &found[1]) != (&instance, &id) {
                let is_missing = (&found[0], &found[1]) > (&instance, &id);
                return match is_missing {
                    true => differ(format!("{named}: in the feed, but not in the mirror")),
                    false => not_in_feed(resource, &found),
                };
            }
            let folded = folded.map_err(of_feed)?;
            let columns = mapping::columns(resource, &folded.canonical).map_err(|why| {
                Stop::Difference(format!(
                    "{named}: the feed's last state does not map: {why}"
                ))
            })?;
            compare(resource, &named, row, checks, &folded, &columns)?;
            let counts = counted.entry((resource.as_str(), instance)).or_default();
            counts.0 += i64::from(folded.gone_at.is_none());
            counts.1 += i64::from(folded.active);
            self.users += u64::from(resource == ResourceType::User);
            self.looked_at_one()?;
        }
        for (resource, rows) in [
            (ResourceType::User, &mut users),
            (ResourceType::Group, &mut groups),
        ] {
            if let Some(row) = rows.next()? {
                return not_in_feed(resource, &[row.get(0)?, row.get(1)?]);
            }
        }
        identities::end(&mut identities)?;
        memberships.check_all()?;
        Ok(counted)
    }

    pub(super) fn check_counts(&self, mut counted: Counted) -> Result<(), Stop> {
        let mut statement = self.reader.conn.prepare(
            "SELECT name, coalesce(living, 0), coalesce(active, 0) FROM instances
             LEFT JOIN source_counts ON instance = name AND resource = ?1",
        )?;
        for resource in RESOURCES {
            let mut rows = statement.query([resource.as_str()])?;
            while let Some(row) = rows.next()? {
                let name: String = row.get(0)?;
                let kept: (i64, i64) = (row.get(1)?, row.get(2)?);
                let found = counted.remove(&(resource.as_str(), name.clone()));
                let (living, active) = found.unwrap_or_default();
                if kept != (living, active) {
                    return differ(format!(
                        "`{}` has {living} living {}s, {active} of them active, but `source_counts` says {} and {}",
                        Foreign(&name),
                        resource.noun(),
                        kept.0,
                        kept.1
                    ));
                }
            }
        }
        match counted.into_keys().next() {
            Some((resource, name)) => differ(format!(
                "`{}` has rows of `{resource}`, but is not in `instances`",
                Foreign(&name)
            )),
            None => self.check_member_counts(),
        }
    }

    /// Each group says how many members it has.
    fn check_member_counts(&self) -> Result<(), Stop> {
        let mut odd = self.reader.conn.prepare(
            "SELECT instance, id FROM groups
             WHERE member_count <> (SELECT count(*) FROM memberships
                                    WHERE memberships.instance = groups.instance AND group_id = groups.id
                                      AND ended_at IS NULL)
             LIMIT 1",
        )?;
        let mut rows = odd.query([])?;
        match rows.next()? {
            Some(row) => {
                let found: [String; 2] = [row.get(0)?, row.get(1)?];
                differ(format!(
                    "{}: column `member_count` is not the number of its living memberships",
                    named_as(ResourceType::Group, &found[0], &found[1])
                ))
            }
            None => Ok(()),
        }
    }
}

fn not_in_feed<T>(resource: ResourceType, [instance, id]: &[String; 2]) -> Result<T, Stop> {
    differ(format!(
        "{}: in the mirror, but not in the feed",
        named_as(resource, instance, id)
    ))
}

fn columns_of(resource: ResourceType) -> &'static [&'static str] {
    match resource {
        ResourceType::User => &users::COLUMNS,
        ResourceType::Group | ResourceType::Membership => &GROUPS,
    }
}

/// The columns of `groups` in the table's order.
const GROUPS: [&str; 19] = [
    "instance",
    "id",
    "external_id",
    "display_name",
    "description",
    "email",
    "manager_id",
    "manager",
    "type",
    "active",
    "created_at",
    "modified_at",
    "attributes",
    "member_count",
    "members_known",
    "first_seen_at",
    "changed_at",
    "changed_seq",
    "gone_at",
];

/// What a column is compared with.
enum Check {
    /// The feed does not tell: keys, `created_at`, and what makes no record.
    Untold,
    Number(fn(&Folded) -> i64),
    Text(fn(&Folded) -> Option<&str>),
    /// The create record was trimmed.
    FirstSeen,
    /// The place in [`text_columns`].
    Mapped(usize),
}

/// The checks of a table's columns, in their order.
fn checks(resource: ResourceType) -> Vec<Check> {
    let check = |name: &&str| match *name {
        "active" => Check::Number(|folded| i64::from(folded.active)),
        "changed_seq" => Check::Number(|folded| folded.changed_seq),
        "attributes" => Check::Text(|folded| Some(&folded.canonical)),
        "modified_at" => Check::Text(|folded| folded.modified_at.as_deref()),
        "changed_at" => Check::Text(|folded| Some(&folded.changed_at)),
        "gone_at" => Check::Text(|folded| folded.gone_at.as_deref()),
        "first_seen_at" => Check::FirstSeen,
        name => match text_columns(resource)
            .iter()
            .position(|column| *column == name)
        {
            Some(place) => Check::Mapped(place),
            None => Check::Untold,
        },
    };
    columns_of(resource).iter().map(check).collect()
}

fn compare(
    resource: ResourceType,
    named: &str,
    row: &Row<'_>,
    checks: &[Check],
    folded: &Folded,
    columns: &UserColumns,
) -> Result<(), Stop> {
    for (place, check) in checks.iter().enumerate() {
        let found = row.get_ref(place)?;
        let equal = match check {
            Check::Untold => true,
            Check::Number(of) => found == ValueRef::Integer(of(folded)),
            Check::Text(of) => same(found, of(folded)),
            Check::FirstSeen => {
                folded.first_seen_at.is_none() || same(found, folded.first_seen_at.as_deref())
            }
            Check::Mapped(column) => same(found, columns.text[*column].as_deref()),
        };
        if !equal {
            let column = columns_of(resource)[place];
            let path = match (column, found) {
                ("attributes", ValueRef::Text(found)) => {
                    first_path(resource, &folded.canonical, found)
                }
                _ => None,
            };
            let path = path.map(|path| format!(" (at `{}`)", Foreign(&path)));
            return differ(format!(
                "{named}: column `{column}`{} is not what the feed says",
                path.unwrap_or_default()
            ));
        }
    }
    Ok(())
}

/// The first path at which two texts of one resource differ; `None` where one cannot be read, or the content is the same.
fn first_path(resource: ResourceType, feed: &str, mirror: &[u8]) -> Option<String> {
    let mirror = std::str::from_utf8(mirror).ok()?;
    serde_json::from_str::<IgnoredAny>(mirror).ok()?;
    let state = |canonical: &str| State {
        canonical: canonical.to_owned(),
        created_at: None,
        modified_at: None,
        gone_at: None,
    };
    let event = ChangeEvent {
        resource,
        id: ResourceId::new(""),
        before: Some(state(feed)),
        after: state(mirror),
        proof: None,
    };
    let changed = diff::record(event, true)?.changed?;
    let paths: BTreeMap<String, IgnoredAny> = serde_json::from_str(&changed).ok()?;
    paths.into_keys().next()
}
