//! Profiles that an import removes, and those of them that would be others if they came again.

use rusqlite::params;

use super::super::error::Error;
use super::super::identities;
use super::super::read::Reader;
use super::super::user_keys::{self, COLUMNS, Matcher};
use super::of_row;
use crate::model::{Identity, InstanceName, MatchedBy, Profile, Rule};

/// Profiles that the mirror has and that are not in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removals {
    /// How many.
    pub all: u64,
    /// Of those, such as would be others if they came again: a person pinned them, or their keys do not lead to their user any more.
    pub to_be_kept: u64,
}

impl Reader {
    /// What an import by these rules, or without any by those of the last one, would remove of an instance.
    ///
    /// # Errors
    /// Of the database.
    pub fn removals(
        &self,
        instance: &InstanceName,
        rules: Option<&[Rule]>,
        is_listed: impl Fn(&str) -> bool,
    ) -> Result<Removals, Error> {
        let mut removals = Removals::default();
        let Some(list) = user_keys::list_of(&self.conn, instance)? else {
            return Ok(removals);
        };
        let rules = rules.map_or(list.rules, <[Rule]>::to_vec);
        let mut matcher = Matcher::new(&self.conn, instance, rules)?;
        let mut rows = self.conn.prepare_cached(&format!(
            "SELECT profiles.profile, {COLUMNS}, {} FROM profiles
             JOIN identities ON identities.instance = profiles.instance AND identities.profile = profiles.profile
             WHERE profiles.instance = ?1",
            identities::COLUMNS
        ))?;
        let mut rows = rows.query(params![instance.as_str()])?;
        while let Some(row) = rows.next()? {
            let profile = of_row(row, 0)?;
            if !is_listed(&profile.profile) {
                let identity = identities::identity(row, 4)?;
                removals.all += 1;
                removals.to_be_kept += u64::from(is_to_be_kept(&mut matcher, &profile, &identity)?);
            }
        }
        Ok(removals)
    }
}

/// Whether a profile would be another one if it left the list and came again: a person has pinned it, or nothing but the mirror knows
/// whom it is linked to, because its keys lead to nobody now, to somebody else or to several.
pub(super) fn is_to_be_kept(
    matcher: &mut Matcher<'_>,
    profile: &Profile,
    identity: &Identity,
) -> Result<bool, Error> {
    Ok(match (&identity.user_id, identity.matched_by) {
        (None, _) => false,
        (_, Some(MatchedBy::Pin)) => true,
        (linked, _) => matcher.identity(profile, None, None)?.user_id != *linked,
    })
}
