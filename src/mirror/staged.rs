//! Putting resources into the stage, and reading them back in the order of ids.

use std::ops::ControlFlow;

use rusqlite::types::{Type, Value};
use rusqlite::{OptionalExtension as _, Row, params};
use tracing::debug;

use super::column::{count, json, time, to_json, whole};
use super::error::Error;
use super::packed::Packed;
use super::read::Reader;
use super::rejects::{self, KEPT_REJECTS};
use super::stage::{Stage, Staged};
use super::table::of_table;
use crate::model::{
    Arrived, Base, Fingerprint, Foreign, PageReport, Proof, Reject, ResourceId, ResourceType,
};

/// The tables in the stage.
pub(super) const TABLES: &str = "
    CREATE TABLE staged (
        id          TEXT    NOT NULL PRIMARY KEY,
        base_seq    INTEGER NOT NULL, -- where the mirror stood when it was asked for
        base_tx     INTEGER NOT NULL,
        counted     INTEGER NOT NULL, -- 1: not known at the crawl's start, and this row is what counts it as seen
        asked       INTEGER NOT NULL, -- 1: the answer about this one id
        doubted     INTEGER NOT NULL DEFAULT 0, -- 1: was doubtful when it was to be applied
        canonical   TEXT, -- null: gone, or not seen
        columns     TEXT, -- JSON: the mapped columns of `canonical`
        created_at  TEXT,
        modified_at TEXT,
        fingerprint BLOB,
        proof       TEXT, -- null beside a null `canonical`: not asked for
        list        TEXT NOT NULL DEFAULT 'read' -- of a group what is thought of the members that it was shown with
    );
    CREATE TABLE lists ( -- apart from `staged`: a row there is small and often written
        id        TEXT    NOT NULL PRIMARY KEY, -- of a staged group
        n_members INTEGER NOT NULL,
        members   TEXT    NOT NULL -- who is in it, as it was shown: see `Packed`
    );
    CREATE TABLE rejects (
        key    TEXT NOT NULL PRIMARY KEY, -- the id, or a digest
        reason TEXT, -- null: one of too many, only counted
        body   TEXT
    );
";

/// A staged resource with what must be known to apply it.
#[derive(Debug)]
pub(super) struct StagedRow {
    pub(super) id: ResourceId,
    /// Where the mirror stood when it was asked for (promise P6).
    pub(super) base: Base,
    /// Whether it is the answer about this one id, which stands.
    pub(super) asked: bool,
    /// Without the members of a group.
    pub(super) staged: Staged,
    /// Who is in it, of a group.
    pub(super) members: Option<Packed>,
    /// What is thought of them.
    pub(super) list: ListState,
}

impl StagedRow {
    /// To be written: nothing is thought of its list yet.
    fn new(id: ResourceId, base: Base, asked: bool, mut staged: Staged) -> Self {
        let members = match &mut staged {
            Staged::Seen(arrived) => arrived.members.take().as_ref().map(Packed::pack),
            Staged::Gone(_) | Staged::Absent => None,
        };
        Self {
            id,
            base,
            asked,
            staged,
            members,
            list: ListState::Read,
        }
    }
}

/// What is thought of the list of a group that was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListState {
    /// It is as it was read: nobody who is missing leaves the group for it.
    #[default]
    Read,
    /// Who is missing is not in the group any more.
    Confirmed,
    /// So many are missing in all groups that nobody was asked: who is missing can be held, and no more.
    Unasked,
    /// It shows nobody, twice alike, and nobody who was in it says anything of groups: who is missing can be held, and no more.
    Unwitnessed,
    /// There may be more members than it shows.
    Cut,
    /// It says nothing.
    Unknown,
}

impl ListState {
    const ALL: [Self; 6] = [
        Self::Read,
        Self::Confirmed,
        Self::Unasked,
        Self::Unwitnessed,
        Self::Cut,
        Self::Unknown,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Confirmed => "confirmed",
            Self::Unasked => "unasked",
            Self::Unwitnessed => "unwitnessed",
            Self::Cut => "cut",
            Self::Unknown => "unknown",
        }
    }
}

/// Which staged resources to read.
#[derive(Clone, Copy)]
pub(super) enum Which<'a> {
    /// Those behind an id; all without one.
    After(Option<&'a ResourceId>),
    /// The one with this id.
    One(&'a ResourceId),
    /// Those up to an id that were once doubtful.
    DoubtedUpTo(&'a ResourceId),
    /// Those whose mirror row can differ from what the crawl knew when it asked, `feed.last_seq` being this.
    MayBeDoubtful(i64),
}

impl Stage {
    /// Stages what was decoded and what could not be, and reports how many ids of the page were new
    /// to this crawl (those that [`Stage::compare`] marked included). The last of twins wins. Belongs behind each
    /// page, also behind one that leaves nothing to put; the page's own rejects come with the others.
    ///
    /// # Errors
    /// Of the database.
    pub fn put(
        &mut self,
        reader: &Reader,
        base: Base,
        arrived: Vec<Arrived>,
        rejects: Vec<Reject>,
    ) -> Result<PageReport, Error> {
        for arrived in arrived {
            self.put_seen(reader, base, arrived)?;
        }
        for reject in rejects {
            self.put_reject(reader, &reject)?;
        }
        let new_ids = self.distinct().saturating_sub(self.reported);
        self.reported = self.distinct();
        Ok(PageReport { new_ids })
    }

    /// Stages an answer about one id that was asked for by itself: it replaces what was staged, and
    /// is not doubted again for a stamp that went back.
    ///
    /// # Errors
    /// Of the database.
    pub fn put_asked(&mut self, base: Base, arrived: Arrived) -> Result<(), Error> {
        self.tell_unreadable(&arrived);
        self.forget_reject(&arrived.id)?;
        let row = StagedRow::new(
            arrived.id.clone(),
            base,
            true,
            Staged::Seen(Box::new(arrived)),
        );
        self.write(&row, false)?;
        Ok(())
    }

    /// The same of an answer whose fingerprint this is, if that is what is staged: then there is nothing to decode. Returns whether it
    /// is.
    ///
    /// # Errors
    /// Of the database.
    pub fn is_asked_alike(
        &mut self,
        base: Base,
        id: &ResourceId,
        fingerprint: &Fingerprint,
    ) -> Result<bool, Error> {
        let n_alike = self
            .conn
            .prepare_cached(
                "UPDATE staged SET base_seq = ?3, base_tx = ?4, asked = 1, list = ?5
                 WHERE id = ?1 AND fingerprint = ?2 AND canonical IS NOT NULL",
            )?
            .execute(params![
                id.as_str(),
                fingerprint,
                base.seq,
                base.tx,
                ListState::Read.as_str()
            ])?;
        Ok(n_alike > 0)
    }

    /// Stages a proof that somebody is gone.
    ///
    /// # Errors
    /// Of the database.
    pub fn put_gone(&mut self, base: Base, id: &ResourceId, proof: &Proof) -> Result<(), Error> {
        let row = StagedRow::new(id.clone(), base, true, Staged::Gone(proof.clone()));
        self.write(&row, false)?;
        Ok(())
    }

    /// Stages somebody whom the crawl did not see and who is not asked for.
    ///
    /// # Errors
    /// Of the database.
    pub fn put_absent(&mut self, base: Base, id: &ResourceId) -> Result<(), Error> {
        let row = StagedRow::new(id.clone(), base, true, Staged::Absent);
        self.write(&row, false)?;
        Ok(())
    }

    /// Takes a resource out of the stage: it is left for the next sync. It still counts as seen.
    ///
    /// # Errors
    /// Of the database.
    pub fn drop_staged(&mut self, id: &ResourceId) -> Result<(), Error> {
        let counted: Option<bool> = self
            .conn
            .prepare_cached("DELETE FROM staged WHERE id = ?1 RETURNING counted")?
            .query_row([id.as_str()], |row| row.get(0))
            .optional()?;
        if counted == Some(true) {
            self.counted_rows -= 1;
            self.count_id(id)?;
        }
        self.write_list(id, None)
    }

    /// Takes a doubtful resource out of the stage that could not be settled. What the mirror has of it may be
    /// older than what was read, so that this sync moves no watermark: the next one reads it again.
    ///
    /// # Errors
    /// Of the database.
    pub fn leave_out(&mut self, id: &ResourceId) -> Result<(), Error> {
        self.is_short = true;
        self.drop_staged(id)
    }

    /// Marks a resource as seen that needs no row: the mirror has it as it is.
    pub(super) fn see_unchanged(&mut self, id: &ResourceId, rowid: i64) -> Result<(), Error> {
        let new = if self.is_known(rowid) {
            self.seen.set(rowid)
        } else {
            // Created by another sync during this crawl.
            self.drop_staged(id)?;
            self.count_id(id)?
        };
        if !new {
            // The last of twins wins.
            self.drop_staged(id)?;
            self.forget_reject(id)?;
        }
        Ok(())
    }

    fn put_seen(&mut self, reader: &Reader, base: Base, arrived: Arrived) -> Result<(), Error> {
        self.tell_unreadable(&arrived);
        self.forget_reject(&arrived.id)?;
        let row = StagedRow::new(
            arrived.id.clone(),
            base,
            false,
            Staged::Seen(Box::new(arrived)),
        );
        if let Some(rowid) = self.known(reader, &row.id)? {
            self.seen.set(rowid);
            self.write(&row, false)?;
        } else {
            let counted = !self.is_counted(&row.id)?;
            if self.write(&row, counted)? && counted {
                self.counted_rows += 1;
            }
        }
        Ok(())
    }

    /// Says why nobody leaves a group by the list that arrived.
    fn tell_unreadable(&self, arrived: &Arrived) {
        let list = arrived.members.as_ref();
        if let Some(why) = list.and_then(|list| list.unreadable.as_ref()) {
            let (instance, group_id) = (&self.key.instance, Foreign(arrived.id.as_str()));
            debug!(%instance, %group_id, why = %Foreign(why), "the list of a group cannot be read");
        }
    }

    fn put_reject(&mut self, reader: &Reader, reject: &Reject) -> Result<(), Error> {
        if let Some(id) = &reject.id {
            self.drop_staged(id)?;
            if let Some(rowid) = self.known(reader, id)? {
                self.seen.set(rowid);
            } else {
                self.count_id(id)?;
            }
        }
        self.add_reject(&rejects::key(reject), &reject.reason, &reject.body)
    }

    /// Turns a staged resource into a reject.
    pub(super) fn refuse(&mut self, id: &ResourceId, reason: &str) -> Result<(), Error> {
        let body: Option<String> = self
            .conn
            .query_row(
                "SELECT canonical FROM staged WHERE id = ?1",
                [id.as_str()],
                |row| row.get(0),
            )
            .optional()?
            .flatten();
        let reject = Reject::new(
            Some(id.clone()),
            reason,
            body.unwrap_or_default().as_bytes(),
        );
        self.drop_staged(id)?;
        self.add_reject(id.as_str(), reason, &reject.body)
    }

    fn add_reject(&mut self, key: &str, reason: &str, body: &str) -> Result<(), Error> {
        // A million bad records must not fill the disk: behind the cap only the key is kept.
        let kept = self.rejects < KEPT_REJECTS;
        let added = self
            .conn
            .prepare_cached(
                "INSERT OR IGNORE INTO rejects (key, reason, body) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![key, kept.then_some(reason), kept.then_some(body)])?;
        self.rejects += added as u64;
        Ok(())
    }

    fn forget_reject(&mut self, id: &ResourceId) -> Result<(), Error> {
        if self.rejects > 0 {
            let removed = self
                .conn
                .prepare_cached("DELETE FROM rejects WHERE key = ?1")?
                .execute([id.as_str()])?;
            self.rejects -= removed as u64;
        }
        Ok(())
    }

    /// Whether this crawl could not understand the resource.
    pub(super) fn is_rejected(&self, key: &str) -> Result<bool, Error> {
        Ok(self.rejects > 0
            && self
                .conn
                .prepare_cached("SELECT 1 FROM rejects WHERE key = ?1")?
                .exists([key])?)
    }

    /// Whether something is staged for this id.
    pub(super) fn is_staged(&self, id: &ResourceId) -> Result<bool, Error> {
        Ok(self
            .conn
            .prepare_cached("SELECT 1 FROM staged WHERE id = ?1")?
            .exists([id.as_str()])?)
    }

    /// How many resources are staged, members counted as well.
    pub(super) fn count_staged(&self) -> Result<u64, Error> {
        let sql = match self.key.resource {
            ResourceType::User => "SELECT count(*) FROM staged",
            ResourceType::Group | ResourceType::Membership => {
                "SELECT (SELECT count(*) FROM staged) + coalesce(sum(n_members), 0) FROM lists"
            }
        };
        Ok(self.conn.query_row(sql, [], |row| count(row, 0))?)
    }

    /// Notes what is thought of the list of a group that is staged.
    ///
    /// # Errors
    /// Of the database.
    pub fn judge_list(&self, group: &ResourceId, state: ListState) -> Result<(), Error> {
        self.conn
            .prepare_cached("UPDATE staged SET list = ?2 WHERE id = ?1")?
            .execute(params![group.as_str(), state.as_str()])?;
        Ok(())
    }

    /// The rowid of a user that was known at the crawl's start.
    pub(super) fn known(&self, reader: &Reader, id: &ResourceId) -> Result<Option<i64>, Error> {
        if self.horizon.nobody {
            return Ok(None);
        }
        let rowid: Option<i64> = reader
            .conn
            .prepare_cached(of_table!(
                self.key.resource,
                "SELECT rowid FROM ",
                " WHERE instance = ?1 AND id = ?2"
            ))?
            .query_row(params![self.key.instance.as_str(), id.as_str()], |row| {
                row.get(0)
            })
            .optional()?;
        Ok(rowid.filter(|rowid| self.is_known(*rowid)))
    }

    fn is_known(&self, rowid: i64) -> bool {
        rowid <= self.horizon.max_rowid
    }

    /// Whether an id that was not known is counted by a row in `ids`.
    pub(super) fn is_counted(&self, id: &ResourceId) -> Result<bool, Error> {
        Ok(self.other_ids > 0
            && self
                .conn
                .prepare_cached("SELECT 1 FROM ids WHERE id = ?1")?
                .exists([id.as_str()])?)
    }

    fn count_id(&mut self, id: &ResourceId) -> Result<bool, Error> {
        let added = self
            .conn
            .prepare_cached("INSERT OR IGNORE INTO ids (id) VALUES (?1)")?
            .execute([id.as_str()])?;
        self.other_ids += added as u64;
        Ok(added > 0)
    }

    /// Writes a row of `staged`. Returns whether there was none; `counted` is used only then.
    fn write(&self, row: &StagedRow, counted: bool) -> Result<bool, Error> {
        let (arrived, proof) = match &row.staged {
            Staged::Seen(arrived) => (Some(arrived), None),
            Staged::Gone(proof) => (None, Some(to_json(proof)?)),
            Staged::Absent => (None, None),
        };
        let values = params![
            row.id.as_str(),
            row.base.seq,
            counted,
            row.asked,
            arrived.map(|arrived| &arrived.canonical),
            arrived.and_then(|arrived| arrived.created_at.map(|at| at.to_string())),
            arrived.and_then(|arrived| arrived.modified_at.map(|at| at.to_string())),
            arrived.map(|arrived| arrived.fingerprint),
            proof,
            row.base.tx,
            arrived
                .map(|arrived| to_json(&arrived.columns))
                .transpose()?,
            row.list.as_str(),
        ];
        let inserted = self
            .conn
            .prepare_cached(
                "INSERT OR IGNORE INTO staged
                     (id, base_seq, counted, asked, canonical, created_at, modified_at, fingerprint, proof, base_tx,
                      columns, list)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(values)?;
        if inserted == 0 {
            self.conn
                .prepare_cached(
                    "UPDATE staged
                     SET base_seq = ?2, asked = ?4, canonical = ?5, created_at = ?6, modified_at = ?7,
                         fingerprint = ?8, proof = ?9, base_tx = ?10, columns = ?11, list = ?12
                     WHERE id = ?1",
                )?
                .execute(values)?;
        }
        self.write_list(&row.id, row.members.as_ref())?;
        Ok(inserted > 0)
    }

    /// Writes who is in a staged group; one that was shown with the same members before costs no page.
    fn write_list(&self, group: &ResourceId, members: Option<&Packed>) -> Result<(), Error> {
        match (members, self.key.resource) {
            (Some(list), _) => self
                .conn
                .prepare_cached(
                    "INSERT INTO lists (id, n_members, members) VALUES (?1, ?2, ?3)
                     ON CONFLICT (id) DO UPDATE SET n_members = excluded.n_members, members = excluded.members
                     WHERE members <> excluded.members",
                )?
                .execute(params![
                    group.as_str(),
                    whole(list.n_shown as u64),
                    list.text()
                ])?,
            (None, ResourceType::User) => 0,
            (None, ResourceType::Group | ResourceType::Membership) => self
                .conn
                .prepare_cached("DELETE FROM lists WHERE id = ?1")?
                .execute([group.as_str()])?,
        };
        Ok(())
    }

    /// Forgets that these were doubtful: they are applied.
    pub(super) fn doubt_no_more(&self, ids: &[ResourceId]) -> Result<(), Error> {
        let mut mark = self
            .conn
            .prepare_cached("UPDATE staged SET doubted = 0 WHERE id = ?1")?;
        for id in ids {
            mark.execute([id.as_str()])?;
        }
        Ok(())
    }

    /// Notes that these were doubtful, so that the last transaction looks at them once more.
    pub(super) fn doubt(&self, ids: &[ResourceId]) -> Result<(), Error> {
        let mut mark = self
            .conn
            .prepare_cached("UPDATE staged SET doubted = 1 WHERE id = ?1")?;
        for id in ids {
            mark.execute([id.as_str()])?;
        }
        Ok(())
    }

    /// Reads staged resources in the order of ids, until `each` breaks.
    pub(super) fn each_staged(
        &self,
        which: Which<'_>,
        each: &mut dyn FnMut(StagedRow) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let (condition, bound) = match which {
            Which::After(None) => ("id >= ?1", Value::from(String::new())),
            Which::After(Some(id)) => ("id > ?1", Value::from(id.as_str().to_owned())),
            Which::One(id) => ("id = ?1", Value::from(id.as_str().to_owned())),
            Which::DoubtedUpTo(id) => (
                "id <= ?1 AND doubted = 1",
                Value::from(id.as_str().to_owned()),
            ),
            Which::MayBeDoubtful(head) => (
                "canonical IS NOT NULL AND (counted = 0 OR base_seq < ?1)",
                Value::from(head),
            ),
        };
        let members = match self.key.resource {
            ResourceType::User => "NULL",
            ResourceType::Group | ResourceType::Membership => {
                "(SELECT members FROM lists WHERE lists.id = staged.id)"
            }
        };
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT id, base_seq, asked, canonical, created_at, modified_at, fingerprint, proof, base_tx, columns,
                    {members}, list
             FROM staged WHERE {condition} ORDER BY id"
        ))?;
        let mut rows = statement.query([bound])?;
        while let Some(row) = rows.next()? {
            if each(staged_row(row, self.key.resource)?)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn staged_row(row: &Row<'_>, resource: ResourceType) -> rusqlite::Result<StagedRow> {
    let id = ResourceId::new(row.get::<_, String>(0)?);
    let canonical: Option<String> = row.get(3)?;
    let staged = match (json(row, 7)?, canonical) {
        (Some(proof), _) => Staged::Gone(proof),
        (None, None) => Staged::Absent,
        (None, Some(canonical)) => Staged::Seen(Box::new(Arrived {
            resource,
            id: id.clone(),
            canonical,
            created_at: time(row, 4)?,
            modified_at: time(row, 5)?,
            columns: json(row, 9)?.ok_or_else(|| {
                rusqlite::Error::InvalidColumnType(9, "columns".to_owned(), Type::Null)
            })?,
            fingerprint: row.get(6)?,
            members: None,
        })),
    };
    let list: String = row.get(11)?;
    let list = ListState::ALL
        .into_iter()
        .find(|state| state.as_str() == list);
    Ok(StagedRow {
        id,
        base: Base {
            seq: row.get(1)?,
            tx: row.get(8)?,
        },
        asked: row.get(2)?,
        staged,
        members: row.get::<_, Option<_>>(10)?.map(Packed::of).transpose()?,
        list: list.unwrap_or_default(),
    })
}
