//! Users by the keys that profiles are matched by, and which instances have a list of profiles at all.

use rusqlite::{CachedStatement, Connection, OptionalExtension as _, Row, params};

use super::error::Error;
use crate::model::identity::is_key;
use crate::model::{Identity, InstanceName, MatchedBy, Profile, Rule, UserColumns};
use crate::reconcile::identity::{
    self, Fit, Link, MOST_CANDIDATES, decide, decide_anew, find, folded,
};

/// A row of `identity_maps`.
pub(super) struct ListOf {
    /// The rules, in their order.
    pub(super) rules: Vec<Rule>,
    /// Whether `user_keys` has everybody.
    pub(super) ready: bool,
}

/// What is known of the list of an instance; `None` where none was ever imported.
pub(super) fn list_of(conn: &Connection, instance: &InstanceName) -> Result<Option<ListOf>, Error> {
    let row: Option<(String, bool)> = conn
        .prepare_cached("SELECT rules, ready FROM identity_maps WHERE instance = ?1")?
        .query_row([instance.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((words, ready)) = row else {
        return Ok(None);
    };
    let rules = words.split(' ').map(Rule::parse).collect::<Option<_>>();
    let rules =
        rules.ok_or_else(|| Error::Damaged("`identity_maps` has a rule that is none".into()))?;
    Ok(Some(ListOf { rules, ready }))
}

/// Rules as `identity_maps.rules` has them.
pub(super) fn rules_text(rules: &[Rule]) -> String {
    let words: Vec<&str> = rules.iter().map(|rule| rule.as_str()).collect();
    words.join(" ")
}

/// The columns of `users` that are keys, in the order of [`Rule::ALL`].
pub(super) const COLUMNS: &str = "employee_number, email, user_name";

/// The keys of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UserKeys(Vec<(Rule, String)>);

impl UserKeys {
    /// Of columns of a row of `users`, [`COLUMNS`] from this place on.
    pub(super) fn of_row(row: &Row<'_>, place: usize) -> rusqlite::Result<Self> {
        let mut keys = Vec::new();
        for (rule, place) in Rule::ALL.into_iter().zip(place..) {
            let key: Option<String> = row.get(place)?;
            keys.extend(key.filter(|key| is_key(key)).map(|key| (rule, key)));
        }
        Ok(Self(keys))
    }

    /// Of the columns that a user is about to have.
    pub(super) fn of(columns: &UserColumns) -> Self {
        let key = |rule: Rule| Some((rule, columns.get(rule.as_str())?.to_owned()));
        let keys = Rule::ALL.into_iter().filter_map(key);
        Self(keys.filter(|(_, key)| is_key(key)).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Rule, &str)> {
        self.0.iter().map(|(rule, key)| (*rule, key.as_str()))
    }

    /// Those that another one has not.
    fn without(&self, other: &Self) -> impl Iterator<Item = (Rule, &str)> {
        let keys = self.0.iter().filter(|key| !other.0.contains(key));
        keys.map(|(rule, key)| (*rule, key.as_str()))
    }
}

/// Gives a user other keys in `user_keys`. It does not matter whether those of before were there yet.
pub(super) fn replace(
    conn: &Connection,
    instance: &InstanceName,
    id: &str,
    before: &UserKeys,
    after: &UserKeys,
) -> Result<(), Error> {
    let mut delete = conn.prepare_cached(
        "DELETE FROM user_keys WHERE instance = ?1 AND rule = ?2 AND folded = ?3 AND id = ?4",
    )?;
    for (rule, key) in before.without(after) {
        delete.execute(params![instance.as_str(), rule.as_str(), folded(key), id])?;
    }
    let mut insert = conn.prepare_cached(
        "INSERT INTO user_keys (instance, rule, folded, id, exact) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (instance, rule, folded, id) DO UPDATE SET exact = excluded.exact",
    )?;
    for (rule, key) in after.iter() {
        insert.execute(params![
            instance.as_str(),
            rule.as_str(),
            folded(key),
            id,
            key
        ])?;
    }
    Ok(())
}

/// Says which user a profile is, as the mirror stands.
pub(super) struct Matcher<'a> {
    instance: &'a InstanceName,
    rules: Vec<Rule>,
    exact: CachedStatement<'a>,
    folded: CachedStatement<'a>,
    is_shown: CachedStatement<'a>,
}

impl<'a> Matcher<'a> {
    pub(super) fn new(
        conn: &'a Connection,
        instance: &'a InstanceName,
        rules: Vec<Rule>,
    ) -> Result<Self, Error> {
        let ids = |condition: &str| {
            conn.prepare_cached(&format!(
                "SELECT id FROM user_keys WHERE instance = ?1 AND rule = ?2 AND folded = ?3 {condition}
                 ORDER BY id LIMIT ?4"
            ))
        };
        Ok(Self {
            instance,
            rules,
            exact: ids("AND exact = ?5")?,
            folded: ids("")?,
            is_shown: conn.prepare_cached(
                "SELECT gone_at IS NULL FROM users WHERE instance = ?1 AND id = ?2",
            )?,
        })
    }

    /// How a profile stands now; `was`: as a person had it before, who has just given it other keys.
    pub(super) fn identity(
        &mut self,
        profile: &Profile,
        before: Option<&Identity>,
        was: Option<&Profile>,
    ) -> Result<Identity, Error> {
        let link = before.and_then(link_of);
        let link = match link {
            Some((user_id, matched_by)) => Some(Link {
                is_shown: self.is_shown(&user_id)?,
                user_id,
                matched_by,
            }),
            None => None,
        };
        let found = self.found(profile)?;
        Ok(match was {
            Some(was) => decide_anew(link.as_ref(), found, was, profile),
            None => decide(link.as_ref(), found),
        })
    }

    fn found(&mut self, profile: &Profile) -> Result<Option<identity::Found>, Error> {
        // One more than is kept tells nothing more: several are several.
        let most = MOST_CANDIDATES as i64;
        let Self {
            instance,
            rules,
            exact,
            folded: by_folded,
            ..
        } = self;
        find(rules, |rule, fit| {
            let Some(key) = profile.key(rule) else {
                return Ok(Vec::new());
            };
            let id = |row: &Row<'_>| row.get(0);
            let (instance, rule) = (instance.as_str(), rule.as_str());
            let ids = match fit {
                Fit::Exact => {
                    exact.query_map(params![instance, rule, folded(key), most, key], id)?
                }
                Fit::Folded => {
                    by_folded.query_map(params![instance, rule, folded(key), most], id)?
                }
            };
            Ok(ids.collect::<Result<_, _>>()?)
        })
    }

    /// Whether the instance shows a user, active or not. Somebody unknown is not shown.
    pub(super) fn is_shown(&mut self, user_id: &str) -> Result<bool, Error> {
        let bound = [self.instance.as_str(), user_id];
        let shown = self.is_shown.query_row(bound, |row| row.get(0));
        Ok(shown.optional()?.unwrap_or(false))
    }
}

fn link_of(identity: &Identity) -> Option<(String, MatchedBy)> {
    Some((identity.user_id.clone()?, identity.matched_by?))
}
