//! The feed folds to the mirror, in every attribute of every user.

use std::collections::BTreeMap;

use rusqlite::Row;
use rusqlite::types::ValueRef;
use serde::de::IgnoredAny;

use super::super::folded::{RECORDS, Records, Resource, same};
use super::super::users;
use super::{Stop, Verification, differ, named};
use crate::model::user::TEXT_COLUMNS;
use crate::model::{ChangeEvent, Foreign, ResourceId, ResourceType, State, UserColumns};
use crate::reconcile::diff;
use crate::reconcile::fold::Folded;
use crate::reconcile::mapping::user_columns;

/// Living and active users by instance.
pub(super) type Counted = BTreeMap<String, (i64, i64)>;

impl Verification<'_> {
    /// Each user is what its records fold to, in every column that they decide, and each record has its user.
    pub(super) fn check_users(&mut self) -> Result<Counted, Stop> {
        let mut users = self.reader.conn.prepare(&format!(
            "SELECT {} FROM users ORDER BY instance, id",
            users::COLUMNS.join(", ")
        ))?;
        let mut users = users.query([])?;
        let checks = checks();
        let mut counted = Counted::new();
        let mut records = self.reader.conn.prepare(RECORDS)?;
        let mut records = Records::start(records.query([])?)?;
        while let Some(resource) = records.next()? {
            self.records += resource.records;
            let Resource {
                instance,
                id,
                kind,
                folded,
                ..
            } = resource;
            let named = named(&instance, &id);
            if kind != ResourceType::User.as_str() {
                return differ(format!(
                    "the feed has records of an unknown resource `{}`",
                    Foreign(&kind)
                ));
            }
            let Some(folded) = folded.transpose() else {
                // Removed, with all others of the instance.
                self.looked_at_one()?;
                continue;
            };
            let Some(row) = users.next()? else {
                return differ(format!("{named}: in the feed, but not in the mirror"));
            };
            let found: [String; 2] = [row.get(0)?, row.get(1)?];
            if (&found[0], &found[1]) != (&instance, &id) {
                let is_missing = (&found[0], &found[1]) > (&instance, &id);
                return match is_missing {
                    true => differ(format!("{named}: in the feed, but not in the mirror")),
                    false => not_in_feed(&found),
                };
            }
            let folded = folded.map_err(|why| Stop::Difference(format!("{named}: {why}")))?;
            let columns = user_columns(&folded.canonical).map_err(|why| {
                Stop::Difference(format!(
                    "{named}: the feed's last state does not map: {why}"
                ))
            })?;
            compare(&named, row, &checks, &folded, &columns)?;
            let counts = counted.entry(instance).or_default();
            counts.0 += i64::from(folded.gone_at.is_none());
            counts.1 += i64::from(folded.active);
            self.users += 1;
            self.looked_at_one()?;
        }
        match users.next()? {
            Some(row) => not_in_feed(&[row.get(0)?, row.get(1)?]),
            None => Ok(counted),
        }
    }

    pub(super) fn check_counts(&self, mut counted: Counted) -> Result<(), Stop> {
        let mut statement = self.reader.conn.prepare(
            "SELECT name, coalesce(living, 0), coalesce(active, 0) FROM instances
             LEFT JOIN source_counts ON instance = name AND resource = ?1",
        )?;
        let mut rows = statement.query([ResourceType::User.as_str()])?;
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let kept: (i64, i64) = (row.get(1)?, row.get(2)?);
            let (living, active) = counted.remove(&name).unwrap_or_default();
            if kept != (living, active) {
                return differ(format!(
                    "`{}` has {living} living users, {active} of them active, but `source_counts` says {} and {}",
                    Foreign(&name),
                    kept.0,
                    kept.1
                ));
            }
        }
        match counted.into_keys().next() {
            Some(name) => differ(format!(
                "`{}` has users, but is not in `instances`",
                Foreign(&name)
            )),
            None => Ok(()),
        }
    }
}

fn not_in_feed<T>([instance, id]: &[String; 2]) -> Result<T, Stop> {
    differ(format!(
        "{}: in the mirror, but not in the feed",
        named(instance, id)
    ))
}

/// What a column of `users` is compared with.
enum Check {
    /// The feed does not tell: keys, and `created_at`.
    Untold,
    Number(fn(&Folded) -> i64),
    Text(fn(&Folded) -> Option<&str>),
    /// The create record was trimmed.
    FirstSeen,
    /// The place in [`TEXT_COLUMNS`].
    Mapped(usize),
}

/// The checks of `users`' columns, in their order.
fn checks() -> Vec<Check> {
    let check = |name: &&str| match *name {
        "active" => Check::Number(|folded| i64::from(folded.active)),
        "changed_seq" => Check::Number(|folded| folded.changed_seq),
        "attributes" => Check::Text(|folded| Some(&folded.canonical)),
        "modified_at" => Check::Text(|folded| folded.modified_at.as_deref()),
        "changed_at" => Check::Text(|folded| Some(&folded.changed_at)),
        "gone_at" => Check::Text(|folded| folded.gone_at.as_deref()),
        "first_seen_at" => Check::FirstSeen,
        name => match TEXT_COLUMNS.iter().position(|column| *column == name) {
            Some(place) => Check::Mapped(place),
            None => Check::Untold,
        },
    };
    users::COLUMNS.iter().map(check).collect()
}

fn compare(
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
            let column = users::COLUMNS[place];
            let path = match (column, found) {
                ("attributes", ValueRef::Text(found)) => first_path(&folded.canonical, found),
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
fn first_path(feed: &str, mirror: &[u8]) -> Option<String> {
    let mirror = std::str::from_utf8(mirror).ok()?;
    serde_json::from_str::<IgnoredAny>(mirror).ok()?;
    let state = |canonical: &str| State {
        canonical: canonical.to_owned(),
        created_at: None,
        modified_at: None,
        gone_at: None,
    };
    let event = ChangeEvent {
        resource: ResourceType::User,
        id: ResourceId::new(""),
        before: Some(state(feed)),
        after: state(mirror),
        proof: None,
    };
    let changed = diff::record(event, true)?.changed?;
    let paths: BTreeMap<String, IgnoredAny> = serde_json::from_str(&changed).ok()?;
    paths.into_keys().next()
}
