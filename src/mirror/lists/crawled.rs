//! What is asked of the lists that a crawl has read, before they are applied.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{OptionalExtension as _, params};
use tracing::debug;

use super::super::error::Error;
use super::super::gate::{Treatment, Watch};
use super::super::holds::OpenHolds;
use super::super::read::Reader;
use super::super::stage::Stage;
use super::super::staged::Which;
use super::{ListState, change};
use crate::model::{Foreign, InstanceName, Member, MemberList, ResourceId};
use crate::reconcile::members;

/// A list that lost members, as far as it must be looked at before it is believed.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The group.
    pub group: ResourceId,
    /// How many are shown.
    pub shown: usize,
    /// Whether it ends where a list that is cut would end.
    pub at_cap: bool,
    /// How many are missing whom no hold keeps.
    pub missing: usize,
}

impl Stage {
    /// The groups whose list as it was read has less members than the mirror, in the order of ids. Who is in an open hold for
    /// that already asks for nothing, unless another directory is taken over: that settles all holds.
    ///
    /// # Errors
    /// Of the databases.
    pub fn lists_that_lost(
        &self,
        reader: &Reader,
        watch: &Watch,
        treatment: &Treatment,
    ) -> Result<Vec<Lost>, Error> {
        let holds = OpenHolds::of(&reader.conn, watch)?;
        let held = |group: &ResourceId| match treatment {
            Treatment::TakenOver(_) => Ok(BTreeMap::new()),
            _ => holds.of_group(group),
        };
        let mut lost = Vec::new();
        self.each_staged(Which::After(None), &mut |mut staged| {
            if let Some(change) = change(&reader.conn, &self.key.instance, &mut staged)?
                && change.list.unreadable.is_none()
                && change.state == ListState::Read
                && !change.missing.is_empty()
            {
                let missing = change.n_missing_but(&held(&staged.id)?, &staged.id);
                if missing > 0 {
                    lost.push(Lost {
                        shown: change.list.n_shown,
                        at_cap: members::ends_at_cap(change.list.n_arrived),
                        missing,
                        group: staged.id,
                    });
                }
            }
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        Ok(lost)
    }

    /// The list of a staged group, and who is missing from it.
    ///
    /// # Errors
    /// Of the databases.
    pub fn list_of(
        &self,
        reader: &Reader,
        group: &ResourceId,
    ) -> Result<Option<(MemberList, Vec<Member>)>, Error> {
        let mut found = None;
        self.each_staged(Which::One(group), &mut |mut staged| {
            found = change(&reader.conn, &self.key.instance, &mut staged)?;
            Ok(std::ops::ControlFlow::Break(()))
        })?;
        found
            .map(|change| {
                let missing = change.missing.iter().map(|one| one.member(&reader.conn));
                Ok((change.list.to_list(), missing.collect::<Result<_, _>>()?))
            })
            .transpose()
    }

    /// Notes which lists are cut by their length alone: where two groups or more have as many members as the largest, and that is
    /// where lists are cut, the instance cuts them there. Nobody would be missed otherwise from a list that was cut from the first.
    ///
    /// # Errors
    /// Of the databases.
    pub fn note_cut_lists(&self, reader: &Reader) -> Result<(), Error> {
        let longest: Option<i64> =
            (self.conn).query_row("SELECT max(n_members) FROM lists", [], |row| row.get(0))?;
        let is_cap = |length: &i64| usize::try_from(*length).is_ok_and(members::ends_at_cap);
        let Some(longest) = longest.filter(is_cap) else {
            return Ok(());
        };
        let mut lists = self.conn.prepare(
            "SELECT lists.id FROM lists JOIN staged ON staged.id = lists.id WHERE n_members = ?1 AND list = 'read'",
        )?;
        let lists = lists.query_map([longest], |row| row.get::<_, String>(0))?;
        let lists: BTreeSet<String> = lists.collect::<Result<_, _>>()?;
        let mut known = reader.conn.prepare_cached(
            "SELECT id, member_count > ?2 FROM groups
             WHERE instance = ?1 AND member_count >= ?2 AND gone_at IS NULL",
        )?;
        let mut known = known.query(params![self.key.instance.as_str(), longest])?;
        let mut n_groups = lists.len();
        while let Some(row) = known.next()? {
            if row.get(1)? {
                return Ok(());
            }
            n_groups += usize::from(!lists.contains(&row.get::<_, String>(0)?));
        }
        if n_groups < 2 {
            return Ok(());
        }
        for id in lists {
            let instance = &self.key.instance;
            debug!(%instance, group_id = %Foreign(&id), "the list of a group is as long as others are, and that is where lists are cut");
            self.judge_list(&ResourceId::new(id), ListState::Cut)?;
        }
        Ok(())
    }

    /// Whether this crawl saw any group with a member in it: then members are in sight.
    ///
    /// # Errors
    /// Of the databases.
    pub fn saw_members(&self, reader: &Reader) -> Result<bool, Error> {
        let staged = self
            .conn
            .prepare("SELECT 1 FROM lists WHERE n_members > 0")?
            .exists([])?;
        if staged {
            return Ok(true);
        }
        // Those that were unchanged are not staged.
        let mut filled = reader.conn.prepare_cached(
            "SELECT rowid, id FROM groups WHERE instance = ?1 AND member_count > 0 AND gone_at IS NULL",
        )?;
        let mut rows = filled.query([self.key.instance.as_str()])?;
        while let Some(row) = rows.next()? {
            let id = ResourceId::new(row.get::<_, String>(1)?);
            if self.seen.has(row.get(0)?) && !self.is_staged(&id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Living groups that the mirror knows with members and that are not staged: one that is shown with a member says that
    /// members are in sight.
    ///
    /// # Errors
    /// Of the databases.
    pub fn filled_groups(&self, reader: &Reader, limit: usize) -> Result<Vec<ResourceId>, Error> {
        let mut filled = reader.conn.prepare_cached(
            "SELECT id FROM groups WHERE instance = ?1 AND member_count > 0 AND gone_at IS NULL ORDER BY id",
        )?;
        let mut rows = filled.query([self.key.instance.as_str()])?;
        let mut groups = Vec::new();
        while groups.len() < limit
            && let Some(row) = rows.next()?
        {
            let id = ResourceId::new(row.get::<_, String>(0)?);
            if !self.is_staged(&id)? {
                groups.push(id);
            }
        }
        Ok(groups)
    }
}

impl Reader {
    /// Of these users those whom the instance shows, as far as the mirror knows.
    ///
    /// # Errors
    /// Of the database.
    pub fn living_users(
        &self,
        instance: &InstanceName,
        users: &[ResourceId],
    ) -> Result<BTreeSet<ResourceId>, Error> {
        let mut living = self.conn.prepare_cached(
            "SELECT 1 FROM users WHERE instance = ?1 AND id = ?2 AND gone_at IS NULL",
        )?;
        let mut found = BTreeSet::new();
        for user in users {
            if living.exists([instance.as_str(), user.as_str()])? {
                found.insert(user.clone());
            }
        }
        Ok(found)
    }

    /// The first user who is in a group, by id.
    ///
    /// # Errors
    /// Of the database.
    pub fn user_in(
        &self,
        instance: &InstanceName,
        group: &ResourceId,
    ) -> Result<Option<ResourceId>, Error> {
        let user: Option<String> = self
            .conn
            .prepare_cached(
                "SELECT member_id FROM memberships
                 WHERE instance = ?1 AND group_id = ?2 AND ended_at IS NULL AND member_type = 'User'
                 ORDER BY member_id LIMIT 1",
            )?
            .query_row([instance.as_str(), group.as_str()], |row| row.get(0))
            .optional()?;
        Ok(user.map(ResourceId::new))
    }
}
