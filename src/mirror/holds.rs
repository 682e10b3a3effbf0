//! Reading holds: for the person who decides, and for the syncs that go by them.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde_json::value::RawValue;

use super::apply::Writer;
use super::column::{count, json};
use super::error::Error;
use super::gate::Watch;
use super::read::Reader;
use super::table::of_table;
use crate::model::{InstanceName, ResourceId, ResourceType, UserColumns, membership};
use crate::reconcile::guard::Concern;
use crate::reconcile::mapping::columns;
use crate::reconcile::members;
use crate::reconcile::names::MULTI_VALUED;

/// A row of `holds`, with how many of its changes are held still.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the columns of `holds`")]
pub struct HoldRow {
    pub id: i64,
    pub instance: String,
    pub sync_id: i64,
    pub guard: String,
    pub attribute: Option<String>,
    pub count: u64,
    pub limit_text: String,
    pub digest: String,
    pub state: String,
    pub opened_at: String,
    pub closed_at: Option<String>,
    /// Of `count`, those in the state `held`.
    pub held: u64,
}

/// A row of `hold_changes`, with what the mirror knows of the user.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(
    missing_docs,
    reason = "the names are the columns of `hold_changes` and `users`"
)]
pub struct HeldRow {
    pub hold_id: i64,
    pub resource: String,
    pub id: String,
    pub path: String,
    pub kind: String,
    pub changed: Option<Box<RawValue>>,
    pub after: Option<Box<RawValue>>,
    pub proof: Option<Box<RawValue>>,
    pub state: String,
    /// Of the user in the mirror, or of the resource as it was read where the mirror has none.
    pub display_name: Option<String>,
    pub title: Option<String>,
    pub company: Option<String>,
    pub department: Option<String>,
    pub manager: Option<String>,
    /// `users.changed_at`: since when the mirror has them as they are.
    pub changed_at: Option<String>,
}

/// Whether an instance looks like another directory, and what a person said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChange {
    /// It does not.
    None,
    /// It does, by this hold, and nobody has said anything.
    Open(i64),
    /// A person approved this hold: the next complete full sync takes over.
    Approved(i64),
}

/// What approving a hold asks about.
#[derive(Clone, Debug)]
pub struct HeldUsers {
    /// The users who are held still, in the order of ids, and whether they were not seen at all.
    pub users: Vec<(ResourceId, bool)>,
    /// Living users of whom no hold says that they are not there, or not active: active ones first, and of those whoever has not
    /// changed for longest.
    pub witnesses: Vec<ResourceId>,
    /// Distinct ids that the complete crawl saw by which the hold was opened, which is the one that did not see
    /// those. `None` where it was opened by another one, which notices nobody's absence.
    pub distinct: Option<u64>,
}

const HOLD: &str = "
    SELECT id, instance, sync_id, guard, attribute, count, limit_text, digest, state, opened_at, closed_at,
           (SELECT count(*) FROM hold_changes WHERE hold_id = holds.id AND state = 'held')
    FROM holds";

/// A hold because of which another one cannot be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InTheWay {
    /// The instance looks like another directory.
    AnotherDirectory(i64),
    /// A list of the user is held whole, and the change is part of it.
    WholeList(i64),
}

/// Which row of `holds` says that an instance may be another directory, by its users: one that waits for a person, or for the
/// full sync that takes over. The state of an instance goes by its users alone.
pub(super) const ANOTHER_DIRECTORY: &str = "
    guard = 'source_changed'
    AND (holds.state = 'open'
         OR holds.state = 'approved'
            AND EXISTS (SELECT 1 FROM hold_changes WHERE hold_id = holds.id AND hold_changes.state = 'held'))
    AND EXISTS (SELECT 1 FROM hold_changes WHERE hold_id = holds.id AND hold_changes.resource = 'User')";

/// The same by its groups.
const OTHER_GROUPS: &str = "
    guard = 'source_changed'
    AND (holds.state = 'open'
         OR holds.state = 'approved'
            AND EXISTS (SELECT 1 FROM hold_changes WHERE hold_id = holds.id AND hold_changes.state = 'held'))
    AND EXISTS (SELECT 1 FROM hold_changes WHERE hold_id = holds.id AND hold_changes.resource = 'Group')";

/// Which row of `holds` says that a source may be another directory's.
pub(super) fn another_directory(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::User => ANOTHER_DIRECTORY,
        ResourceType::Group | ResourceType::Membership => OTHER_GROUPS,
    }
}

impl Reader {
    /// Holds, oldest first; of those that are closed too only where `closed` asks for them.
    ///
    /// # Errors
    /// Of the database.
    pub fn holds(&self, closed: bool) -> Result<Vec<HoldRow>, Error> {
        let mut holds = self
            .conn
            .prepare(&format!("{HOLD} WHERE ?1 OR state = 'open' ORDER BY id"))?;
        let holds = holds.query_map([closed], hold)?;
        Ok(holds.collect::<Result<_, _>>()?)
    }

    /// One hold.
    ///
    /// # Errors
    /// Of the database.
    pub fn hold(&self, hold_id: i64) -> Result<Option<HoldRow>, Error> {
        one(&self.conn, hold_id)
    }

    /// A hold that may be approved by this digest.
    ///
    /// # Errors
    /// When there is none, it is closed, or its digest is another; of the database.
    pub fn approvable(&self, hold_id: i64, digest: &str) -> Result<HoldRow, Error> {
        approvable(&self.conn, hold_id, digest)
    }

    /// The changes of a hold, in the order of ids, one by one.
    ///
    /// # Errors
    /// Of the database, and what `each` returns.
    pub fn held<E: From<Error>>(
        &self,
        hold_id: i64,
        mut each: impl FnMut(HeldRow) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut changes = self.conn.prepare(HELD).map_err(Error::from)?;
        let mut rows = changes.query([hold_id]).map_err(Error::from)?;
        while let Some(row) = rows.next().map_err(Error::from)? {
            each(held(row).map_err(Error::from)?)?;
        }
        Ok(())
    }

    /// How many holds of an instance are open.
    ///
    /// # Errors
    /// Of the database.
    pub fn open_holds(&self, instance: &InstanceName) -> Result<u64, Error> {
        Ok(self
            .conn
            .prepare_cached("SELECT count(*) FROM holds WHERE instance = ?1 AND state = 'open'")?
            .query_row([instance.as_str()], |row| count(row, 0))?)
    }

    /// Whether a source looks like another directory's.
    ///
    /// # Errors
    /// Of the database.
    pub fn source_change(
        &self,
        instance: &InstanceName,
        resource: ResourceType,
    ) -> Result<SourceChange, Error> {
        let found: Option<(i64, String)> = self
            .conn
            .prepare_cached(&format!(
                "SELECT id, state FROM holds WHERE instance = ?1 AND {} ORDER BY id DESC LIMIT 1",
                another_directory(resource)
            ))?
            .query_row([instance.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(match found {
            None => SourceChange::None,
            Some((id, state)) if state == "open" => SourceChange::Open(id),
            Some((id, _approved)) => SourceChange::Approved(id),
        })
    }

    /// The source that a hold is of.
    ///
    /// # Errors
    /// Of the database.
    pub fn source_of_hold(&self, hold_id: i64) -> Result<ResourceType, Error> {
        let of_users = self
            .conn
            .prepare_cached("SELECT 1 FROM hold_changes WHERE hold_id = ?1 AND resource = 'User'")?
            .exists([hold_id])?;
        Ok(match of_users {
            true => ResourceType::User,
            false => ResourceType::Group,
        })
    }

    /// Whom approving a hold asks about, and who can witness.
    ///
    /// # Errors
    /// Of the database.
    pub fn held_users(
        &self,
        hold: &HoldRow,
        resource: ResourceType,
        witnesses: usize,
    ) -> Result<HeldUsers, Error> {
        let mut users = self.conn.prepare(
            "SELECT id, path = 'all' FROM hold_changes WHERE hold_id = ?1 AND state = 'held' ORDER BY id",
        )?;
        let users = users
            .query_map([hold.id], |row| {
                Ok((ResourceId::new(row.get::<_, String>(0)?), row.get(1)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut living = self.conn.prepare(of_table!(
            resource,
            "SELECT id FROM ",
            " AS known
             WHERE instance = ?1 AND gone_at IS NULL AND NOT EXISTS
                 (SELECT 1 FROM hold_changes JOIN holds ON holds.id = hold_id
                  WHERE hold_changes.resource = ?2 AND hold_changes.id = known.id AND hold_changes.state = 'held'
                    AND hold_changes.path IN ('active', 'all') AND holds.instance = ?1)
             ORDER BY active DESC, changed_seq LIMIT ?3"
        ))?;
        let limit = i64::try_from(witnesses).unwrap_or(i64::MAX);
        let living = living
            .query_map(params![hold.instance, resource.as_str(), limit], |row| {
                Ok(ResourceId::new(row.get::<_, String>(0)?))
            })?
            .collect::<Result<_, _>>()?;
        let distinct = self
            .conn
            .prepare(
                "SELECT seen FROM syncs
                 WHERE id = ?1 AND mode = 'full' AND json_extract(certificate, '$.verdict') = 'complete'",
            )?
            .query_row([hold.sync_id], |row| count(row, 0))
            .optional()?;
        Ok(HeldUsers {
            users,
            witnesses: living,
            distinct,
        })
    }

    /// What open holds keep of the memberships of a group, and which of them.
    ///
    /// # Errors
    /// Of the database.
    pub fn held_of_group(
        &self,
        watch: &Watch,
        group: &ResourceId,
    ) -> Result<BTreeMap<ResourceId, i64>, Error> {
        OpenHolds::of(&self.conn, watch)?.of_group(group)
    }

    /// The state of one change of a hold.
    ///
    /// # Errors
    /// Of the database.
    pub fn held_state(&self, hold_id: i64, id: &ResourceId) -> Result<Option<String>, Error> {
        Ok(self
            .conn
            .prepare_cached("SELECT state FROM hold_changes WHERE hold_id = ?1 AND id = ?2")?
            .query_row(params![hold_id, id.as_str()], |row| row.get(0))
            .optional()?)
    }

    /// The other hold because of which a change of a user that still stands was not released; `None` for another reason.
    ///
    /// # Errors
    /// Of the database.
    pub fn in_the_way(
        &self,
        instance: &InstanceName,
        hold_id: i64,
        id: &ResourceId,
    ) -> Result<Option<InTheWay>, Error> {
        let resource = self.source_of_hold(hold_id)?;
        if let SourceChange::Open(other) | SourceChange::Approved(other) =
            self.source_change(instance, resource)?
        {
            return Ok(Some(InTheWay::AnotherDirectory(other)));
        }
        let lists = MULTI_VALUED.map(|name| format!("'{name}'")).join(", ");
        let other = self
            .conn
            .prepare_cached(&format!(
                "SELECT hold_id FROM hold_changes JOIN holds ON holds.id = hold_id
                 WHERE hold_changes.id = ?1 AND hold_id <> ?2 AND instance = ?3 AND holds.state = 'open'
                   AND hold_changes.state = 'held' AND path IN ({lists})
                 ORDER BY hold_id LIMIT 1"
            ))?
            .query_row(params![id.as_str(), hold_id, instance.as_str()], |row| {
                row.get(0)
            })
            .optional()?;
        Ok(other.map(InTheWay::WholeList))
    }
}

impl Writer<'_> {
    /// The same within a transaction that releases what is held: whoever approved it before has closed it.
    ///
    /// # Errors
    /// As [`Reader::approvable`].
    pub fn approvable(&self, hold_id: i64, digest: &str) -> Result<HoldRow, Error> {
        approvable(self.conn, hold_id, digest)
    }
}

fn approvable(conn: &Connection, hold_id: i64, digest: &str) -> Result<HoldRow, Error> {
    let hold = one(conn, hold_id)?.ok_or(Error::UnknownHold(hold_id))?;
    if hold.state != "open" {
        let state = hold.state;
        return Err(Error::HoldClosed { hold_id, state });
    }
    if hold.digest != digest {
        return Err(Error::OtherDigest(hold_id));
    }
    Ok(hold)
}

fn one(conn: &Connection, hold_id: i64) -> Result<Option<HoldRow>, Error> {
    let mut one = conn.prepare(&format!("{HOLD} WHERE id = ?1"))?;
    Ok(one.query_row([hold_id], hold).optional()?)
}

const HELD: &str = "
    SELECT hold_id, hold_changes.resource, hold_changes.id, path, kind, changed, after, proof, hold_changes.state,
           users.id IS NOT NULL, coalesce(display_name, user_name), title, company, department, manager, changed_at
    FROM hold_changes
    JOIN holds ON holds.id = hold_id
    LEFT JOIN users ON hold_changes.resource = 'User'
        AND users.instance = holds.instance AND users.id = hold_changes.id
    WHERE hold_id = ?1
    ORDER BY hold_changes.id";

fn hold(row: &Row<'_>) -> rusqlite::Result<HoldRow> {
    Ok(HoldRow {
        id: row.get(0)?,
        instance: row.get(1)?,
        sync_id: row.get(2)?,
        guard: row.get(3)?,
        attribute: row.get(4)?,
        count: count(row, 5)?,
        limit_text: row.get(6)?,
        digest: row.get(7)?,
        state: row.get(8)?,
        opened_at: row.get(9)?,
        closed_at: row.get(10)?,
        held: count(row, 11)?,
    })
}

fn held(row: &Row<'_>) -> rusqlite::Result<HeldRow> {
    let after: String = row.get(6)?;
    let is_known: bool = row.get(9)?;
    // Somebody new, who is held because all of another directory is.
    let resource = match &*row.get::<_, String>(1)? {
        "Group" => ResourceType::Group,
        "Membership" => ResourceType::Membership,
        _ => ResourceType::User,
    };
    let read = match is_known {
        true => UserColumns::default(),
        false => columns(resource, &after).unwrap_or_default(),
    };
    let label = match resource {
        ResourceType::Membership => members::label(&after),
        _ => None,
    };
    let text = |place, column: &str| -> rusqlite::Result<Option<String>> {
        let known: Option<String> = row.get(place)?;
        let known = known.or_else(|| read.get_of(resource, column).map(str::to_owned));
        Ok(known.or_else(|| label.clone().filter(|_| column == "display_name")))
    };
    Ok(HeldRow {
        hold_id: row.get(0)?,
        resource: row.get(1)?,
        id: row.get(2)?,
        path: row.get(3)?,
        kind: row.get(4)?,
        changed: json(row, 5)?,
        after: json(row, 6)?,
        proof: json(row, 7)?,
        state: row.get(8)?,
        display_name: text(10, "display_name")?,
        title: text(11, "title")?,
        company: text(12, "company")?,
        department: text(13, "department")?,
        manager: text(14, "manager")?,
        changed_at: row.get(15)?,
    })
}

/// What is held of the users of one source, by the guards that hold one path of a user.
pub(super) struct OpenHolds<'a> {
    conn: &'a Connection,
    instance: &'a str,
    resource: ResourceType,
    /// As a rule there are none, and nobody needs to be looked up.
    any: bool,
    /// The same of memberships.
    any_members: bool,
}

impl<'a> OpenHolds<'a> {
    pub(super) fn of(conn: &'a Connection, watch: &'a Watch) -> Result<Self, Error> {
        let instance = watch.instance.as_str();
        let mut open = conn.prepare_cached(
            "SELECT 1 FROM holds
             WHERE instance = ?1 AND state = 'open' AND guard <> 'source_changed'
               AND EXISTS (SELECT 1 FROM hold_changes WHERE hold_id = holds.id AND hold_changes.resource = ?2)",
        )?;
        let mut any = |resource: ResourceType| open.exists([instance, resource.as_str()]);
        Ok(Self {
            conn,
            instance,
            resource: watch.resource,
            any: any(watch.resource)?,
            any_members: watch.resource == ResourceType::Group && any(ResourceType::Membership)?,
        })
    }

    /// What is held of the memberships of a group, and by which hold.
    pub(super) fn of_group(&self, group: &ResourceId) -> Result<BTreeMap<ResourceId, i64>, Error> {
        if !self.any_members {
            return Ok(BTreeMap::new());
        }
        let [first, behind] = membership::range(group.as_str());
        let mut held = self.conn.prepare_cached(
            "SELECT hold_changes.id, hold_id FROM hold_changes JOIN holds ON holds.id = hold_id
             WHERE hold_changes.resource = ?1 AND hold_changes.id >= ?2 AND hold_changes.id < ?3
               AND hold_changes.state = 'held' AND instance = ?4 AND holds.state = 'open' AND guard <> 'source_changed'
             ORDER BY hold_id",
        )?;
        let bound = params![
            ResourceType::Membership.as_str(),
            first,
            behind,
            self.instance
        ];
        let held = held.query_map(bound, |row| {
            Ok((ResourceId::new(row.get::<_, String>(0)?), row.get(1)?))
        })?;
        Ok(held.collect::<Result<_, _>>()?)
    }

    pub(super) fn of_user(&self, id: &ResourceId) -> Result<Vec<(i64, Concern)>, Error> {
        if !self.any {
            return Ok(Vec::new());
        }
        let mut held = self.conn.prepare_cached(
            "SELECT hold_id, guard, path FROM hold_changes JOIN holds ON holds.id = hold_id
             WHERE hold_changes.resource = ?1 AND hold_changes.id = ?2 AND hold_changes.state = 'held'
               AND instance = ?3 AND holds.state = 'open' AND guard <> 'source_changed'
             ORDER BY hold_id",
        )?;
        let held = held.query_map(
            params![self.resource.as_str(), id.as_str(), self.instance],
            |row| {
                let (guard, path): (String, String) = (row.get(1)?, row.get(2)?);
                let concern = match &*guard {
                    "deactivations" => Concern::Deactivation,
                    _ => Concern::Blanking(path),
                };
                Ok((row.get(0)?, concern))
            },
        )?;
        Ok(held.collect::<Result<_, _>>()?)
    }
}
