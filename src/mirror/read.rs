//! Reading the mirror: what the flow asks before it syncs.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction};

use super::column::{json, time};
use super::error::Error;
use super::file::Place;
use super::{connect, file, migrate};
use crate::model::{Capabilities, InstanceName, ResourceType};

pub use super::chains::{Chain, ChainRow};
pub use super::covered::{Coverage, Covered};
pub use super::feed::{ChangeQuery, ChangeRow, Feed};
pub use super::groups::{GroupRow, MemberRow};
pub use super::health::{FileSizes, GroupHealth, Health, HeldCount, wal_bytes};
pub use super::holds::{HeldRow, HeldUsers, HoldRow, InTheWay, SourceChange};
pub use super::instances::Pin;
pub use super::past::AsOf;
pub use super::users::UserRow;

/// A first query for a person with a SQLite shell.
pub const FIRST_QUERY: &str = "SELECT department, count(*) FROM active_users GROUP BY department";

/// A read-only connection.
pub struct Reader {
    pub(super) conn: Connection,
    /// What `conn` reads, to open it once more; `None` where the path got another file meanwhile.
    pub(super) place: Option<Place>,
}

/// One state of the mirror: [`Reader::snapshot`].
#[derive(Debug)]
pub struct Snapshot<'a> {
    _transaction: Transaction<'a>,
}

/// A row of `sources`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRow {
    /// Up to when incremental syncs are complete, by the source's clock.
    pub watermark: Option<Timestamp>,
    /// When the first complete full sync was applied.
    pub baseline_at: Option<Timestamp>,
    /// When a sync last succeeded.
    pub last_success_at: Option<Timestamp>,
    /// When a complete full sync last succeeded.
    pub last_full_success_at: Option<Timestamp>,
    /// What was probed.
    pub capabilities: Capabilities,
}

impl Reader {
    /// Opens a mirror read-only, as any program on the host may, and checks that it is one.
    ///
    /// # Errors
    /// When it is not there, not readable, foreign, or newer than this program.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let place = Place::of(path);
        file::check_header(path)?;
        let conn = connect::reader(path)?;
        // The header may lag behind the log.
        let found = connect::schema_version(&conn)?;
        file::check_version(path, found)?;
        if found < migrate::VERSION {
            return Err(Error::Older {
                path: path.to_owned(),
                found,
                needed: migrate::VERSION,
            });
        }
        Ok(Self {
            conn,
            place: place.filter(Place::holds),
        })
    }

    /// Another connection of the process that has the mirror open for writing, which has checked what it is. The file is opened by
    /// SQLite alone: whoever closes it beside SQLite gives up all locks that the process has on it (POSIX), and a program that
    /// closes the mirror next would take itself for the last one, and remove the log.
    pub(super) fn beside_writer(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            place: Place::of(path),
            conn: connect::reader(path)?,
        })
    }

    /// While it is there, all that is asked of this reader is answered as of one state of the mirror. Drop it before a person or a pipe
    /// is waited for: the write-ahead log grows meanwhile.
    ///
    /// # Errors
    /// Of the database.
    pub fn snapshot(&self) -> Result<Snapshot<'_>, Error> {
        Ok(Snapshot {
            _transaction: self.conn.unchecked_transaction()?,
        })
    }

    /// A number that differs once another connection has committed (`PRAGMA data_version`): what a
    /// follower polls, because it reads no page of the file.
    ///
    /// # Errors
    /// Of the database.
    pub fn data_version(&self) -> Result<i64, Error> {
        self.conn
            .pragma_query_value(None, "data_version", |row| row.get(0))
            .map_err(Error::Database)
    }

    /// The state of a source; the default where it was never synced.
    ///
    /// # Errors
    /// Of the database.
    pub fn source(
        &self,
        instance: &InstanceName,
        resource: ResourceType,
    ) -> Result<SourceRow, Error> {
        let row = self
            .conn
            .prepare_cached(
                "SELECT watermark, baseline_at, last_success_at, last_full_success_at, capabilities
                 FROM sources WHERE instance = ?1 AND resource = ?2",
            )?
            .query_row([instance.as_str(), resource.as_str()], |row| {
                Ok(SourceRow {
                    watermark: time(row, 0)?,
                    baseline_at: time(row, 1)?,
                    last_success_at: time(row, 2)?,
                    last_full_success_at: time(row, 3)?,
                    capabilities: json(row, 4)?.unwrap_or_default(),
                })
            })
            .optional()?;
        Ok(row.unwrap_or_default())
    }

    /// What is pinned of every instance the mirror knows, `unlinked` ones included, by name.
    ///
    /// # Errors
    /// Of the database.
    pub fn pins(&self) -> Result<Vec<Pin>, Error> {
        let mut pins = self.conn.prepare_cached(
            "SELECT name, url, scim_path FROM instances JOIN pins ON pins.instance = instances.name ORDER BY name",
        )?;
        let mut rows = pins.query([])?;
        let mut pins = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let instance = InstanceName::parse(&name)
                .map_err(|_| Error::Damaged(format!("`{name:?}` cannot name an instance")))?;
            pins.push(Pin {
                resources: self.resources(&instance)?,
                instance,
                url: row.get(1)?,
                scim_path: row.get(2)?,
            });
        }
        Ok(pins)
    }

    /// When an instance may be asked again.
    ///
    /// # Errors
    /// Of the database.
    pub fn not_before(&self, instance: &InstanceName) -> Result<Option<Timestamp>, Error> {
        Ok(self
            .conn
            .prepare_cached("SELECT not_before FROM instances WHERE name = ?1")?
            .query_row([instance.as_str()], |row| time(row, 0))
            .optional()?
            .flatten())
    }

    pub(super) fn resources(&self, instance: &InstanceName) -> Result<Vec<ResourceType>, Error> {
        // A resource type of a newer program is not ours to sync.
        let known = [ResourceType::User, ResourceType::Group];
        let mut sources = self
            .conn
            .prepare_cached("SELECT 1 FROM sources WHERE instance = ?1 AND resource = ?2")?;
        let mut resources = Vec::new();
        for resource in known {
            if sources.exists([instance.as_str(), resource.as_str()])? {
                resources.push(resource);
            }
        }
        Ok(resources)
    }
}
