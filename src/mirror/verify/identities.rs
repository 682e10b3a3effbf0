//! The feed folds to `identities`, and what is kept to find profiles and users by their keys is what it is computed from.

use std::collections::BTreeMap;

use rusqlite::{Rows, params};
use serde_json::{Map, Value};

use super::super::column::count;
use super::super::user_keys::{COLUMNS, UserKeys};
use super::super::{identities as rows, profiles};
use super::{Stop, Verification, differ};
use crate::model::{Foreign, ResourceType, Rule};
use crate::reconcile::fold::Folded;
use crate::reconcile::identity::{folded, text};

/// Every row, in the order of the feed's resources.
pub(super) const ROWS: &str = "
    SELECT instance, profile, user_id, matched_by, state, candidates, changed_seq FROM identities ORDER BY instance, profile";

/// Compares the next row with what the records of a profile fold to. Of one that is not in the list any more there is none.
pub(super) fn compare(
    identities: &mut Rows<'_>,
    instance: &str,
    profile: &str,
    folded: Result<Option<Folded>, String>,
) -> Result<(), Stop> {
    let named = named(instance, profile);
    let Some(folded) = folded.transpose() else {
        return Ok(());
    };
    let folded = folded.map_err(|why| Stop::Difference(format!("{named}: {why}")))?;
    let is_missing = || differ(format!("{named}: in the feed, but not in the mirror"));
    let Some(row) = identities.next()? else {
        return is_missing();
    };
    let found: [String; 2] = [row.get(0)?, row.get(1)?];
    let found = [found[0].as_str(), found[1].as_str()];
    if found != [instance, profile] {
        return match found > [instance, profile] {
            true => is_missing(),
            false => not_in_feed(found),
        };
    }
    let is_other = |column: &str| {
        differ(format!(
            "{named}: column `{column}` is not what the feed says"
        ))
    };
    let found = text(profile, &rows::identity(row, 2)?);
    if found != folded.canonical {
        return is_other(&first_member(&found, &folded.canonical));
    }
    if row.get::<_, i64>(6)? != folded.changed_seq {
        return is_other("changed_seq");
    }
    Ok(())
}

/// Whatever is left is not in the feed.
pub(super) fn end(identities: &mut Rows<'_>) -> Result<(), Stop> {
    let Some(row) = identities.next()? else {
        return Ok(());
    };
    let [instance, profile]: [String; 2] = [row.get(0)?, row.get(1)?];
    not_in_feed([&instance, &profile])
}

fn not_in_feed([instance, profile]: [&str; 2]) -> Result<(), Stop> {
    let named = named(instance, profile);
    differ(format!("{named}: in the mirror, but not in the feed"))
}

/// A profile, for people.
fn named(instance: &str, profile: &str) -> String {
    format!("profile `{}` of `{}`", Foreign(profile), Foreign(instance))
}

/// The first column in which two texts differ.
fn first_member(one: &str, other: &str) -> String {
    let read = |text| serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let (one, other) = (read(one), read(other));
    let mut names = one.keys().chain(other.keys());
    let name = names.find(|name| one.get(*name) != other.get(*name));
    name.cloned().unwrap_or_else(|| "profile".to_owned())
}

impl Verification<'_> {
    /// What the feed does not tell of profiles.
    pub(super) fn check_lists(&self) -> Result<(), Stop> {
        for (sql, what) in ODD_PROFILES {
            let mut odd = self.reader.conn.prepare(sql)?;
            let mut rows = odd.query([])?;
            if let Some(row) = rows.next()? {
                let [instance, profile]: [String; 2] = [row.get(0)?, row.get(1)?];
                return differ(format!("{}: {what}", named(&instance, &profile)));
            }
        }
        self.check_profile_keys()?;
        self.check_user_keys()
    }

    /// The keys of profiles are those of the list.
    fn check_profile_keys(&self) -> Result<(), Stop> {
        let conn = &self.reader.conn;
        let mut profiles = conn.prepare(&format!(
            "SELECT instance, profile, {COLUMNS} FROM profiles"
        ))?;
        let mut key = conn.prepare(
            "SELECT 1 FROM identity_keys WHERE instance = ?1 AND profile = ?2 AND rule = ?3 AND folded = ?4 AND exact = ?5",
        )?;
        let mut rows = profiles.query([])?;
        let mut n_keys = 0;
        while let Some(row) = rows.next()? {
            let (instance, profile) = (row.get::<_, String>(0)?, profiles::of_row(row, 1)?);
            for rule in Rule::ALL {
                let Some(found) = profile.key(rule) else {
                    continue;
                };
                let bound = params![
                    instance,
                    profile.profile,
                    rule.as_str(),
                    folded(found),
                    found
                ];
                if !key.exists(bound)? {
                    let named = named(&instance, &profile.profile);
                    return differ(format!(
                        "{named}: `identity_keys` has not its `{}`",
                        rule.as_str()
                    ));
                }
                n_keys += 1;
            }
        }
        let all: u64 = conn.query_row("SELECT count(*) FROM identity_keys", [], |row| {
            count(row, 0)
        })?;
        if all != n_keys {
            return differ(format!(
                "`identity_keys` has {all} keys, and the lists of profiles {n_keys}"
            ));
        }
        Ok(())
    }

    /// The keys of users are those of whom the instance shows, and where a list was imported, of all of them.
    fn check_user_keys(&self) -> Result<(), Stop> {
        let conn = &self.reader.conn;
        let mut n_keys: BTreeMap<String, u64> = BTreeMap::new();
        let mut keys = conn.prepare(&format!(
            "SELECT user_keys.instance, user_keys.id, rule, folded, exact, {COLUMNS} FROM user_keys
             LEFT JOIN users ON users.instance = user_keys.instance AND users.id = user_keys.id AND gone_at IS NULL"
        ))?;
        let mut rows = keys.query([])?;
        while let Some(row) = rows.next()? {
            let (instance, id): (String, String) = (row.get(0)?, row.get(1)?);
            let [rule, kept, exact]: [String; 3] = [row.get(2)?, row.get(3)?, row.get(4)?];
            let has = UserKeys::of_row(row, 5)?
                .iter()
                .any(|(of, key)| of.as_str() == rule && key == exact && folded(key) == kept);
            if !has {
                let named = super::named_as(ResourceType::User, &instance, &id);
                return differ(format!(
                    "{named}: `user_keys` has a key that is not the user's"
                ));
            }
            *n_keys.entry(instance).or_default() += 1;
        }
        let mut users = conn.prepare(&format!(
            "SELECT {COLUMNS} FROM users WHERE instance = ?1 AND gone_at IS NULL"
        ))?;
        let mut lists = conn.prepare("SELECT instance FROM identity_maps WHERE ready = 1")?;
        for instance in lists.query_map([], |row| row.get::<_, String>(0))? {
            let instance = instance?;
            let mut rows = users.query([&instance])?;
            let mut expected = 0;
            while let Some(row) = rows.next()? {
                expected += UserKeys::of_row(row, 0)?.iter().count() as u64;
            }
            let found = n_keys.get(&instance).copied().unwrap_or_default();
            if found != expected {
                return differ(format!(
                    "`user_keys` has {found} keys of users of `{}`, who have {expected}",
                    Foreign(&instance)
                ));
            }
        }
        Ok(())
    }
}

/// Queries that find a profile with which something is wrong, and what that is.
const ODD_PROFILES: [(&str, &str); 4] = [
    (
        "SELECT identities.instance, identities.profile FROM identities
         LEFT JOIN profiles ON profiles.instance = identities.instance AND profiles.profile = identities.profile
         WHERE profiles.profile IS NULL",
        "in `identities`, but not in the list",
    ),
    (
        "SELECT profiles.instance, profiles.profile FROM profiles
         LEFT JOIN identities ON identities.instance = profiles.instance AND identities.profile = profiles.profile
         WHERE identities.profile IS NULL",
        "in the list, but not in `identities`",
    ),
    (
        "SELECT profiles.instance, profiles.profile FROM profiles
         LEFT JOIN identity_maps ON identity_maps.instance = profiles.instance AND ready = 1
         WHERE identity_maps.instance IS NULL",
        "in the list of an instance that has none",
    ),
    (
        "SELECT identities.instance, profile FROM identities
         LEFT JOIN users ON users.instance = identities.instance AND users.id = user_id
         WHERE state IN ('matched', 'pinned', 'gone') AND (users.id IS NULL OR (gone_at IS NULL) = (state = 'gone'))",
        "its state is not that of its user",
    ),
];
