//! The list of own profiles of an instance: imported as a whole, piece by piece in the order of profiles, and what a person says of
//! one of them.

mod leaving;

use std::iter::Peekable;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::apply::Writer;
use super::column::{count, whole};
use super::error::Error;
use super::identities::{self, Register};
use super::read::Reader;
use super::syncs::known_instance;
use super::user_keys::{self, COLUMNS, Matcher, UserKeys};
use crate::model::{Identity, IdentityState, InstanceName, MatchedBy, Profile, Reason, Rule};
use crate::reconcile::identity::{MOST_OF_A_KEY, folded};

pub use self::leaving::Removals;

/// Profiles of the mirror that one transaction looks at, beside as many of the list: the writer is free again after a fraction of a
/// second (promise P7).
pub const MOST_PROFILES: usize = 2_000;

/// Users whose keys one transaction takes up, before the first list of an instance.
const MOST_USERS: u64 = 5_000;

/// A piece of a list: which profiles there are in a range of them.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The instance.
    pub instance: InstanceName,
    /// Which import it is of: [`Imported::number`] of its first piece; `None`: it is the first.
    pub number: Option<u64>,
    /// By what profiles are matched, in this order.
    pub rules: Vec<Rule>,
    /// The range begins behind this profile; `None`: with the first there is.
    pub after: Option<String>,
    /// All profiles of the range, ascending and none twice.
    pub profiles: Vec<Profile>,
    /// Whether the range goes on to the last profile there is; else it ends with the last of `profiles`.
    pub is_last: bool,
    /// How many profiles it may remove.
    pub most_removals: u64,
    /// Whether those may be among them that would be others if they came again.
    pub may_forget: bool,
    /// By our clock.
    pub now: Timestamp,
}

/// What one transaction made of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Which import of the instance this is: its further pieces name it.
    pub number: u64,
    /// Profiles that are new.
    pub created: u64,
    /// Profiles with other keys than before.
    pub changed: u64,
    /// Profiles that are not in the list any more.
    pub removed: u64,
    /// Profiles whose link is to another user than before.
    pub moved: u64,
    /// Where the next transaction goes on, behind this profile; `None`: the piece is done.
    pub next_after: Option<String>,
}

impl Reader {
    /// Calls `each` with every profile of the list that was imported for an instance, ascending. Returns `false` where none was.
    ///
    /// # Errors
    /// Of the database, and of `each`.
    pub fn profiles<E: From<Error>>(
        &self,
        instance: &InstanceName,
        mut each: impl FnMut(Profile) -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut rows = self
            .conn
            .prepare_cached(&format!(
                "SELECT profile, {COLUMNS} FROM profiles WHERE instance = ?1 ORDER BY profile"
            ))
            .map_err(Error::from)?;
        let rows = rows
            .query_map([instance.as_str()], |row| of_row(row, 0))
            .map_err(Error::from)?;
        for row in rows {
            each(row.map_err(Error::from)?)?;
        }
        Ok(user_keys::list_of(&self.conn, instance)?.is_some())
    }

    /// How many profiles the list of an instance has.
    ///
    /// # Errors
    /// Of the database.
    pub fn n_profiles(&self, instance: &InstanceName) -> Result<u64, Error> {
        let mut counted = self
            .conn
            .prepare_cached("SELECT count(*) FROM profiles WHERE instance = ?1")?;
        Ok(counted.query_row([instance.as_str()], |row| count(row, 0))?)
    }
}

/// A profile, whose name stands at this place and then [`COLUMNS`].
pub(super) fn of_row(row: &Row<'_>, place: usize) -> rusqlite::Result<Profile> {
    Ok(Profile {
        profile: row.get(place)?,
        employee_number: row.get(place + 1)?,
        email: row.get(place + 2)?,
        user_name: row.get(place + 3)?,
    })
}

/// A profile as it was imported; `None` where there is no such.
pub(super) fn load(
    conn: &Connection,
    instance: &InstanceName,
    name: &str,
) -> Result<Option<Profile>, Error> {
    let mut row = conn.prepare_cached(&format!(
        "SELECT profile, {COLUMNS} FROM profiles WHERE instance = ?1 AND profile = ?2"
    ))?;
    Ok(row
        .query_row([instance.as_str(), name], |row| of_row(row, 0))
        .optional()?)
}

impl Writer<'_> {
    /// Takes up the keys of users of an instance that has no list yet, those behind `after` and a few thousand at most. Returns behind
    /// whom the next transaction goes on; `None`: everybody is taken up, or was before. Syncs go on meanwhile, and take up whom they
    /// change. Killed on the way, it is begun again.
    ///
    /// # Errors
    /// When the mirror does not know the instance, or it is not linked any more; of the database.
    pub fn take_up_keys(
        &self,
        instance: &InstanceName,
        rules: &[Rule],
        after: Option<&str>,
    ) -> Result<Option<String>, Error> {
        self.is_linked(instance)?;
        let name = instance.as_str();
        match user_keys::list_of(self.conn, instance)? {
            Some(list) if list.ready => return Ok(None),
            Some(_) => {}
            None => {
                self.conn.execute(
                    "INSERT INTO identity_maps (instance, rules, ready) VALUES (?1, ?2, 0)",
                    [name, &user_keys::rules_text(rules)],
                )?;
            }
        }
        // The id of somebody may be empty.
        let (from, behind) = match after {
            Some(after) => (after, ">"),
            None => ("", ">="),
        };
        let mut users = self.conn.prepare_cached(&format!(
            "SELECT id, gone_at IS NULL, {COLUMNS} FROM users WHERE instance = ?1 AND id {behind} ?2 ORDER BY id LIMIT ?3"
        ))?;
        let mut rows = users.query(params![name, from, whole(MOST_USERS)])?;
        let (mut n_users, mut last) = (0, None);
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            if row.get(1)? {
                let keys = UserKeys::of_row(row, 2)?;
                user_keys::replace(self.conn, instance, &id, &UserKeys::default(), &keys)?;
            }
            (n_users, last) = (n_users + 1, Some(id));
        }
        if n_users == MOST_USERS {
            return Ok(last);
        }
        self.conn.execute(
            "UPDATE identity_maps SET ready = 1 WHERE instance = ?1",
            [name],
        )?;
        Ok(None)
    }

    /// Imports a piece of a list, or as much of it as one transaction may hold: each profile of the range is looked at anew, those that
    /// are not in the piece are removed. The same piece once more changes nothing.
    ///
    /// # Errors
    /// When the instance is not linked, the keys of its users were not taken up, another import was begun after this one, or more or
    /// others would be removed than may be; of the database. Then nothing of this transaction happened.
    pub fn import(&self, piece: &Piece) -> Result<Imported, Error> {
        let instance = &piece.instance;
        self.is_linked(instance)?;
        match user_keys::list_of(self.conn, instance)? {
            Some(list) if list.ready => {
                if list.rules != piece.rules {
                    self.conn.execute(
                        "UPDATE identity_maps SET rules = ?2 WHERE instance = ?1",
                        [instance.as_str(), &user_keys::rules_text(&piece.rules)],
                    )?;
                }
            }
            _ => return Err(Error::NoList(instance.clone())),
        }
        let number = self.import_number(instance, piece.number)?;
        let (known, end) = self.known(piece)?;
        let is_within = |profile: &&Profile| match &end {
            End::Open => true,
            End::With(end) => profile.profile <= *end,
        };
        let mut import = Import {
            writer: self,
            instance,
            matcher: Matcher::new(self.conn, instance, piece.rules.clone())?,
            register: Register::open(self.conn, instance, piece.now)?,
            done: Imported {
                number,
                ..Imported::default()
            },
        };
        let listed = piece.profiles.iter().take_while(is_within).peekable();
        import.merge(known.into_iter().peekable(), listed, piece)?;
        import.register.finish()?;
        let is_through = match &end {
            End::Open => true,
            // The range of a piece that is not the last ends with its last profile.
            End::With(end) => {
                !piece.is_last
                    && piece
                        .profiles
                        .last()
                        .is_none_or(|last| last.profile <= *end)
            }
        };
        Ok(Imported {
            next_after: match end {
                End::With(end) if !is_through => Some(end),
                _ => None,
            },
            ..import.done
        })
    }

    /// The number of an import: of one that begins the next there is, else its own, where none was begun after it.
    fn import_number(&self, instance: &InstanceName, own: Option<u64>) -> Result<u64, Error> {
        let name = instance.as_str();
        let Some(own) = own else {
            let mut begun = self.conn.prepare_cached(
                "INSERT INTO imports (instance, number) VALUES (?1, 1)
                 ON CONFLICT (instance) DO UPDATE SET number = number + 1 RETURNING number",
            )?;
            return Ok(begun.query_row([name], |row| count(row, 0))?);
        };
        let mut newest = self
            .conn
            .prepare_cached("SELECT number FROM imports WHERE instance = ?1")?;
        let newest = newest.query_row([name], |row| count(row, 0)).optional()?;
        match newest == Some(own) {
            true => Ok(own),
            false => Err(Error::Overtaken(instance.clone())),
        }
    }

    /// What the mirror has of a piece's range, [`MOST_PROFILES`] at most, and where what is looked at ends.
    fn known(&self, piece: &Piece) -> Result<(Vec<Known>, End), Error> {
        let range_end = match piece.profiles.last() {
            _ if piece.is_last => None,
            Some(last) => Some(last.profile.as_str()),
            // Nothing is said of any profile.
            None => {
                return Ok((
                    Vec::new(),
                    End::With(piece.after.clone().unwrap_or_default()),
                ));
            }
        };
        // A profile is never empty.
        let after = piece.after.as_deref().unwrap_or_default();
        let mut rows = self.conn.prepare_cached(&format!(
            "SELECT profiles.profile, {COLUMNS}, {} FROM profiles
             JOIN identities ON identities.instance = profiles.instance AND identities.profile = profiles.profile
             WHERE profiles.instance = ?1 AND profiles.profile > ?2 AND (?3 IS NULL OR profiles.profile <= ?3)
             ORDER BY profiles.profile LIMIT ?4",
            identities::COLUMNS
        ))?;
        let most = whole(MOST_PROFILES as u64);
        let mut rows = rows.query(params![piece.instance.as_str(), after, range_end, most])?;
        let mut known = Vec::new();
        while let Some(row) = rows.next()? {
            known.push(Known {
                profile: of_row(row, 0)?,
                identity: identities::identity(row, 4)?,
            });
        }
        let end = match (known.last(), range_end) {
            (Some(last), _) if known.len() == MOST_PROFILES => {
                End::With(last.profile.profile.clone())
            }
            (_, Some(end)) => End::With(end.to_owned()),
            (_, None) => End::Open,
        };
        Ok((known, end))
    }

    /// Links a profile to a user because a person says so: whatever its keys say, the link stays until it is unpinned.
    ///
    /// # Errors
    /// When there is no such profile, or the instance does not show such a user; of the database.
    pub fn pin(
        &self,
        instance: &InstanceName,
        profile: &str,
        user_id: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let (listed, rules) = self.listed(instance, profile)?;
        let mut matcher = Matcher::new(self.conn, instance, rules)?;
        if !matcher.is_shown(user_id)? {
            return Err(Error::NotShown {
                instance: instance.clone(),
                user_id: user_id.to_owned(),
            });
        }
        let before = identities::load(self.conn, instance, profile)?;
        if before.and_then(|before| before.user_id).as_deref() != Some(user_id) {
            self.has_room(instance, user_id)?;
        }
        let pinned = Identity {
            user_id: Some(user_id.to_owned()),
            matched_by: Some(MatchedBy::Pin),
            state: IdentityState::Pinned,
            candidates: Vec::new(),
        };
        self.say(instance, &listed, now, &pinned)
    }

    /// Whoever a user's change makes look again must fit into the transaction of that change.
    fn has_room(&self, instance: &InstanceName, user_id: &str) -> Result<(), Error> {
        let mut linked = self.conn.prepare_cached(
            "SELECT 1 FROM identities WHERE instance = ?1 AND user_id = ?2 LIMIT 1 OFFSET ?3",
        )?;
        let last = whole(MOST_OF_A_KEY as u64 - 1);
        match linked.exists(params![instance.as_str(), user_id, last])? {
            true => Err(Error::TooManyLinks {
                instance: instance.clone(),
                user_id: user_id.to_owned(),
            }),
            false => Ok(()),
        }
    }

    /// Takes a pin away: the profile is matched by its keys, as if it were new. Returns how it stands then.
    ///
    /// # Errors
    /// When there is no such profile, or it is not pinned; of the database.
    pub fn unpin(
        &self,
        instance: &InstanceName,
        profile: &str,
        now: Timestamp,
    ) -> Result<Identity, Error> {
        let (listed, rules) = self.listed(instance, profile)?;
        let before = identities::load(self.conn, instance, profile)?;
        if before.and_then(|before| before.matched_by) != Some(MatchedBy::Pin) {
            return Err(Error::NotPinned {
                instance: instance.clone(),
                profile: profile.to_owned(),
            });
        }
        let matched = Matcher::new(self.conn, instance, rules)?.identity(&listed, None, None)?;
        self.say(instance, &listed, now, &matched)?;
        Ok(matched)
    }

    fn say(
        &self,
        instance: &InstanceName,
        profile: &Profile,
        now: Timestamp,
        after: &Identity,
    ) -> Result<(), Error> {
        let before = identities::load(self.conn, instance, &profile.profile)?;
        let mut register = Register::open(self.conn, instance, now)?;
        register.put(&profile.profile, before.as_ref(), after)?;
        register.finish()
    }

    /// A profile of the list, and the rules that it is matched by.
    fn listed(
        &self,
        instance: &InstanceName,
        profile: &str,
    ) -> Result<(Profile, Vec<Rule>), Error> {
        self.is_linked(instance)?;
        let list = user_keys::list_of(self.conn, instance)?;
        let list = list.ok_or_else(|| Error::NoList(instance.clone()))?;
        let found = load(self.conn, instance, profile)?;
        let found = found.ok_or_else(|| Error::UnknownProfile {
            instance: instance.clone(),
            profile: profile.to_owned(),
        })?;
        Ok((found, list.rules))
    }

    fn is_linked(&self, instance: &InstanceName) -> Result<(), Error> {
        let state: Option<String> = self
            .conn
            .prepare_cached("SELECT state FROM instances WHERE name = ?1")?
            .query_row([instance.as_str()], |row| row.get(0))
            .optional()?;
        match state.as_deref() {
            None => known_instance(0, instance),
            Some("unlinked") => Err(Error::NotLinked(instance.clone())),
            Some(_) => Ok(()),
        }
    }

    /// Removes at most `most` profiles of an instance whose users are about to be removed, with a record for each. Returns how many;
    /// fewer than `most`: none is left.
    pub(super) fn remove_profiles(
        &self,
        instance: &InstanceName,
        register: &mut Register<'_>,
        most: u64,
    ) -> Result<u64, Error> {
        let mut next = self.conn.prepare_cached(
            "SELECT profile FROM profiles WHERE instance = ?1 ORDER BY profile LIMIT 1",
        )?;
        for n_removed in 0..most {
            let found: Option<String> = next
                .query_row([instance.as_str()], |row| row.get(0))
                .optional()?;
            let Some(profile) = found else {
                return Ok(n_removed);
            };
            if let Some(before) = identities::load(self.conn, instance, &profile)? {
                register.remove(self.touched, &profile, &before, Reason::Unlinked)?;
            }
            self.remove_listed(instance, &profile)?;
        }
        Ok(most)
    }

    /// Removes a profile from the list, and its keys.
    fn remove_listed(&self, instance: &InstanceName, profile: &str) -> Result<(), Error> {
        let name = instance.as_str();
        self.touched
            .drop_seal(self.conn, "profiles", &format!("{name} {profile}"))?;
        self.conn
            .prepare_cached("DELETE FROM profiles WHERE instance = ?1 AND profile = ?2")?
            .execute([name, profile])?;
        for rule in Rule::ALL {
            self.remove_key(instance, profile, rule)?;
        }
        Ok(())
    }

    fn remove_key(&self, instance: &InstanceName, profile: &str, rule: Rule) -> Result<(), Error> {
        let (name, rule) = (instance.as_str(), rule.as_str());
        let removed = self
            .conn
            .prepare_cached(
                "DELETE FROM identity_keys WHERE instance = ?1 AND profile = ?2 AND rule = ?3",
            )?
            .execute([name, profile, rule])?;
        if removed > 0 {
            self.touched.drop_seal(
                self.conn,
                "identity_keys",
                &format!("{name} {rule} {profile}"),
            )?;
        }
        Ok(())
    }

    /// Writes a profile into the list as it is now, and its keys.
    fn list(
        &self,
        instance: &InstanceName,
        before: Option<&Profile>,
        after: &Profile,
    ) -> Result<(), Error> {
        let name = instance.as_str();
        self.conn
            .prepare_cached(
                "INSERT INTO profiles (instance, profile, employee_number, email, user_name) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (instance, profile) DO UPDATE
                 SET employee_number = excluded.employee_number, email = excluded.email, user_name = excluded.user_name",
            )?
            .execute(params![
                name,
                after.profile,
                after.employee_number,
                after.email,
                after.user_name
            ])?;
        for rule in Rule::ALL {
            let key = after.key(rule);
            if before.is_some_and(|before| before.key(rule) == key) {
                continue;
            }
            let Some(key) = key else {
                self.remove_key(instance, &after.profile, rule)?;
                continue;
            };
            self.conn
                .prepare_cached(
                    "INSERT INTO identity_keys (instance, profile, rule, folded, exact) VALUES (?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT (instance, profile, rule) DO UPDATE SET folded = excluded.folded, exact = excluded.exact",
                )?
                .execute(params![name, after.profile, rule.as_str(), folded(key), key])?;
        }
        Ok(())
    }
}

/// A profile that the mirror has.
struct Known {
    profile: Profile,
    identity: Identity,
}

/// Up to where a transaction looks at profiles.
enum End {
    /// To the last there is.
    Open,
    /// This one is the last.
    With(String),
}

/// One transaction of an import.
struct Import<'a> {
    writer: &'a Writer<'a>,
    instance: &'a InstanceName,
    matcher: Matcher<'a>,
    register: Register<'a>,
    done: Imported,
}

impl Import<'_> {
    /// Walks what is known and what is listed side by side, both ascending.
    fn merge<'p>(
        &mut self,
        mut known: Peekable<impl Iterator<Item = Known>>,
        mut listed: Peekable<impl Iterator<Item = &'p Profile>>,
        piece: &Piece,
    ) -> Result<(), Error> {
        let (most_removals, may_forget) = (piece.most_removals, piece.may_forget);
        loop {
            match (known.peek(), listed.peek()) {
                (None, None) => return Ok(()),
                (Some(was), new) if new.is_none_or(|new| was.profile.profile < new.profile) => {
                    self.done.removed += 1;
                    if self.done.removed > most_removals {
                        return Err(Error::TooManyRemovals(self.instance.clone()));
                    }
                    if let Some(Known { profile, identity }) = known.next() {
                        let name = &profile.profile;
                        if !may_forget
                            && leaving::is_to_be_kept(&mut self.matcher, &profile, &identity)?
                        {
                            return Err(Error::ToBeKept(self.instance.clone()));
                        }
                        let touched = self.writer.touched;
                        self.register
                            .remove(touched, name, &identity, Reason::Gone)?;
                        self.writer.remove_listed(self.instance, name)?;
                    }
                }
                (was, Some(new)) => {
                    let new = *new;
                    let was = was.is_some_and(|was| was.profile.profile == new.profile);
                    let was = if was { known.next() } else { None };
                    listed.next();
                    self.take(was, new)?;
                }
                // The guard above takes it.
                (Some(_), None) => return Ok(()),
            }
        }
    }

    fn take(&mut self, was: Option<Known>, new: &Profile) -> Result<(), Error> {
        let (profile, identity) = match was {
            Some(Known { profile, identity }) => (Some(profile), Some(identity)),
            None => (None, None),
        };
        let is_same = profile.as_ref() == Some(new);
        if !is_same {
            self.writer.list(self.instance, profile.as_ref(), new)?;
            *match profile {
                None => &mut self.done.created,
                Some(_) => &mut self.done.changed,
            } += 1;
        }
        let was = profile.as_ref().filter(|_| !is_same);
        let after = self.matcher.identity(new, identity.as_ref(), was)?;
        let user_before = identity.as_ref().and_then(|before| before.user_id.as_ref());
        let is_moved = user_before.is_some() && user_before != after.user_id.as_ref();
        self.done.moved += u64::from(is_moved);
        self.register.put(&new.profile, identity.as_ref(), &after)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
