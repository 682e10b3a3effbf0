//! What a sync found, kept beside the mirror until it is applied: `MIRROR.stage-INSTANCE-MODE`.
//!
//! An unchanged resource leaves one bit. Memory stays flat, and nothing is visible early. Everything since the last
//! [`Stage::checkpoint`] is one open transaction: a stage that goes on has bits, rows and position of one moment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::column::{count, time, whole};
use super::error::Error;
use super::read::Reader;
use super::seen::{self, Seen};
use super::table::of_table;
use super::{file, holding, staged, tx};
use crate::model::{Arrived, Base, InstanceName, Mode, Proof, ResourceId, ResourceType, Shares};

/// What a stage belongs to. An interrupted crawl goes on only where all of it is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageKey {
    /// The instance.
    pub instance: InstanceName,
    /// The resource type.
    pub resource: ResourceType,
    /// The mode of the sync.
    pub mode: Mode,
    /// A digest of the configuration that decides what a crawl reads, of the mapping's version and of
    /// the feed's epoch.
    pub fits: String,
}

/// What an interrupted crawl left.
#[derive(Clone, Debug)]
pub struct Interrupted {
    /// The crawl's position, as it was given to [`Stage::checkpoint`].
    pub position: String,
    /// When the crawl started, by our clock.
    pub started_at: Timestamp,
}

/// One staged resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Staged {
    /// It was read.
    Seen(Box<Arrived>),
    /// It is proved gone.
    Gone(Proof),
    /// A complete crawl did not see it, and nobody asked.
    Absent,
}

/// A user that a complete crawl did not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The id.
    pub id: ResourceId,
    /// Whether it is active in the mirror: else nobody is deactivated by its absence.
    pub active: bool,
    /// Whether an open hold keeps it active already.
    pub held: bool,
    /// What its witness must share, and the id or label of that; by `Shares::Nothing` none.
    pub shares: Shares,
    /// The shared company's, department's or location's key; empty for [`Shares::Nothing`].
    pub group: String,
}

/// A group whose members a transaction has written in part, and where the mirror stood behind that.
pub(super) type InHand = (ResourceId, Base);

/// The staging database of one sync.
pub struct Stage {
    pub(super) conn: Connection,
    pub(super) key: StageKey,
    pub(super) horizon: Horizon,
    /// Users known at the crawl's start that were seen.
    pub(super) seen: Seen,
    /// Other ids that were seen: those with a row in `ids`, and those that a row in `staged` counts.
    pub(super) other_ids: u64,
    pub(super) counted_rows: u64,
    /// Resources that could not be understood.
    pub(super) rejects: u64,
    /// [`Stage::distinct`] when a page was last reported.
    pub(super) reported: u64,
    /// Whether something that was read could not be settled and is left to the next sync.
    pub(super) is_short: bool,
    /// The number of this sync's newest transaction.
    pub(super) own_tx: i64,
    /// The group whose members the newest transaction has written in part, and where the mirror stood behind that.
    pub(super) in_hand: Option<InHand>,
    /// Whether what was read is another directory's: then stamps that went back are no reason to doubt it.
    pub(super) takes_over: bool,
    files: Files,
}

/// Where the files are. A temporary directory goes when it is dropped, after the connection.
enum Files {
    Beside(PathBuf),
    Temporary { _directory: tempfile::TempDir },
}

/// What the mirror knew when the crawl started (its first attempt).
#[derive(Clone, Copy, Debug)]
pub(super) struct Horizon {
    /// Where it stood.
    pub(super) base: Base,
    /// The id given to a sync last: that of this sync is higher.
    pub(super) sync_id: i64,
    /// The highest rowid of the resources' table: rowids only grow, so this tells who was known. Rowids stay what they are unless
    /// somebody runs VACUUM on the mirror during a crawl; that confuses who was seen, and so at worst asks for living
    /// users by id, or leaves a leaver to the next full sync.
    pub(super) max_rowid: i64,
    /// Whether no user of this instance was known: then nobody needs to be looked up.
    pub(super) nobody: bool,
}

/// Statements that one crawl uses over and over.
const CACHED_STATEMENTS: usize = 32;

/// What must be free on the disk: as much as the mirror's log becomes before it is moved into the file, while the stage lies there.
const MIN_FREE_BYTES: u64 = super::LONG_LOG_BYTES;

/// Changes with the tables below, and with what is kept in them.
const STAGE_VERSION: i64 = 11;

const TABLES: &str = "
    CREATE TABLE stage (
        instance     TEXT    NOT NULL,
        resource     TEXT    NOT NULL,
        mode         TEXT    NOT NULL,
        fits         TEXT    NOT NULL,
        started_at   TEXT    NOT NULL,
        base_seq     INTEGER NOT NULL,
        base_tx      INTEGER NOT NULL,
        sync_id      INTEGER NOT NULL,
        max_rowid    INTEGER NOT NULL,
        position     TEXT,
        distinct_ids INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE ids ( -- seen, but not known at the crawl's start, and not counted by a row of `staged`
        id TEXT NOT NULL PRIMARY KEY
    ) WITHOUT ROWID;
    CREATE TABLE witnesses (
        shares INTEGER NOT NULL,
        name   TEXT    NOT NULL,
        place  INTEGER NOT NULL,
        id     TEXT    NOT NULL,
        PRIMARY KEY (shares, name, place)
    ) WITHOUT ROWID;
";

/// A power cut may lose what was staged, at worst all of it; then the crawl starts anew.
const PRAGMAS: &str = "
    PRAGMA page_size = 16384;    -- a staged user takes 2 to 3 KiB: smaller pages would stay half empty
    PRAGMA trusted_schema = OFF;
    PRAGMA cell_size_check = ON;
    PRAGMA cache_size = -4096;   -- 4 MiB: it grows with nothing (promise P10)
    PRAGMA synchronous = OFF;    -- only for the next line, which has nothing to lose yet
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL; -- checkpoints are synced, commits are not
    PRAGMA wal_autocheckpoint = 16384; -- 256 MiB: most stages are removed before any of it was written twice
";

impl Stage {
    /// Opens the stage of a sync. With a path, a stage that fits `key` and is younger than
    /// `max_age` goes on, and any other is deleted; without one (a dry run) it is a temporary file.
    /// `reader` fixes what the mirror knew at the crawl's start.
    ///
    /// # Errors
    /// Of the file or the database.
    pub fn open(
        path: Option<&Path>,
        key: &StageKey,
        reader: &Reader,
        now: Timestamp,
        max_age: Duration,
    ) -> Result<(Self, Option<Interrupted>), Error> {
        let today = Horizon::of(reader, key)?;
        let Some(path) = path else {
            let directory = tempfile::tempdir()
                .map_err(Error::file("make a directory in", std::env::temp_dir()))?;
            let path = directory.path().join("stage");
            let files = Files::Temporary {
                _directory: directory,
            };
            return Ok((Self::start(&path, files, key, today, now)?, None));
        };
        let files = Files::Beside(path.to_owned());
        if path.symlink_metadata().is_ok_and(|found| found.is_file()) {
            match Self::resume(path, key, reader, today, now, max_age) {
                Ok(Some((stage, interrupted))) => return Ok((stage, Some(interrupted))),
                Ok(None) => {}
                Err(error) => {
                    tracing::info!(%error, "an interrupted crawl cannot go on, it starts anew");
                }
            }
        }
        remove_files(path)?;
        Ok((Self::start(path, files, key, today, now)?, None))
    }

    fn start(
        path: &Path,
        files: Files,
        key: &StageKey,
        horizon: Horizon,
        now: Timestamp,
    ) -> Result<Self, Error> {
        file::create_new(path, 0o600)?;
        let conn = connect(path)?;
        // Until the first checkpoint the file stays empty: there is nothing to go on with.
        conn.execute_batch("BEGIN")?;
        conn.execute_batch(TABLES)?;
        conn.execute_batch(seen::TABLE)?;
        conn.execute_batch(staged::TABLES)?;
        conn.execute_batch(holding::TABLE)?;
        conn.pragma_update(None, "user_version", STAGE_VERSION)?;
        conn.execute(
            "INSERT INTO stage (instance, resource, mode, fits, started_at, base_seq, base_tx, max_rowid, sync_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                key.instance.as_str(),
                key.resource.as_str(),
                key.mode.as_str(),
                key.fits,
                now.to_string(),
                horizon.base.seq,
                horizon.base.tx,
                horizon.max_rowid,
                horizon.sync_id
            ],
        )?;
        Ok(Self {
            conn,
            key: key.clone(),
            horizon,
            seen: Seen::default(),
            other_ids: 0,
            counted_rows: 0,
            rejects: 0,
            reported: 0,
            is_short: false,
            own_tx: 0,
            in_hand: None,
            takes_over: false,
            files,
        })
    }

    /// Goes on with a stage, if it fits, is young, whole, and adds up.
    fn resume(
        path: &Path,
        key: &StageKey,
        reader: &Reader,
        today: Horizon,
        now: Timestamp,
        max_age: Duration,
    ) -> Result<Option<(Self, Interrupted)>, Error> {
        let conn = connect(path)?;
        if super::connect::schema_version(&conn)? != STAGE_VERSION {
            return Ok(None);
        }
        let found = conn
            .query_row(
                "SELECT started_at, base_seq, base_tx, max_rowid, position, distinct_ids, sync_id FROM stage
                 WHERE instance = ?1 AND resource = ?2 AND mode = ?3 AND fits = ?4 AND position IS NOT NULL",
                params![
                    key.instance.as_str(),
                    key.resource.as_str(),
                    key.mode.as_str(),
                    key.fits
                ],
                |row| {
                    let horizon = Horizon {
                        base: Base {
                            seq: row.get(1)?,
                            tx: row.get(2)?,
                        },
                        max_rowid: row.get(3)?,
                        sync_id: row.get(6)?,
                        nobody: false,
                    };
                    Ok((time(row, 0)?, horizon, row.get(4)?, count(row, 5)?))
                },
            )
            .optional()?;
        let Some((Some(started_at), mut horizon, position, distinct)) = found else {
            return Ok(None);
        };
        let age = now.duration_since(started_at);
        let max_age = SignedDuration::try_from(max_age).unwrap_or(SignedDuration::MAX);
        // A mirror that is behind its own stage was put back from a copy.
        if age.is_negative()
            || age > max_age
            || horizon.base.seq > today.base.seq
            || horizon.base.tx > today.base.tx
            || horizon.max_rowid > today.max_rowid
            || Self::has_ended(reader, key, horizon.sync_id)?
        {
            return Ok(None);
        }
        let sound: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        let Some(seen) = Seen::load(&conn)?.filter(|_| sound == "ok") else {
            return Ok(None);
        };
        let rows = |table: &str| -> Result<u64, Error> {
            let sql = format!("SELECT count(*) FROM {table}");
            Ok(conn.query_row(&sql, [], |row| count(row, 0))?)
        };
        let other_ids = rows("ids")?;
        let counted_rows = rows("staged WHERE counted = 1")?;
        let rejects = rows("rejects")?;
        if seen.ones() + other_ids + counted_rows != distinct {
            return Ok(None);
        }
        horizon.nobody = !knows_anybody(reader, key, horizon.max_rowid)?;
        conn.execute_batch("BEGIN")?;
        let stage = Self {
            conn,
            key: key.clone(),
            horizon,
            seen,
            other_ids,
            counted_rows,
            rejects,
            reported: distinct,
            is_short: false,
            own_tx: 0,
            in_hand: None,
            takes_over: false,
            files: Files::Beside(path.to_owned()),
        };
        let interrupted = Interrupted {
            position,
            started_at,
        };
        Ok(Some((stage, interrupted)))
    }

    /// Whether the sync of this stage has come to its end, and was killed before it could remove it: what it saw is applied, and
    /// says nothing of those who left since.
    fn has_ended(reader: &Reader, key: &StageKey, since: i64) -> Result<bool, Error> {
        Ok(reader
            .conn
            .prepare_cached(
                "SELECT 1 FROM syncs
                 WHERE id > ?4 AND instance = ?1 AND resource = ?2 AND mode = ?3 AND outcome = 'succeeded'",
            )?
            .exists(params![
                key.instance.as_str(),
                key.resource.as_str(),
                key.mode.as_str(),
                since
            ])?)
    }

    /// Where the mirror stood at the crawl's start (of the first attempt).
    #[must_use]
    pub fn base(&self) -> Base {
        self.horizon.base
    }

    /// Numbers the transaction under way, which is about to apply something of this stage.
    pub(super) fn begin(&mut self, mirror: &Connection) -> Result<(), Error> {
        let (instance, resource) = (&self.key.instance, self.key.resource);
        self.own_tx = tx::begin(mirror, instance, resource)?;
        Ok(())
    }

    /// Makes what was staged so far survive an interruption, together with the crawl's position.
    ///
    /// # Errors
    /// Of the database.
    pub fn checkpoint(&mut self, position: &str) -> Result<(), Error> {
        self.seen.save(&self.conn)?;
        self.conn
            .prepare_cached("UPDATE stage SET position = ?1, distinct_ids = ?2")?
            .execute(params![position, whole(self.distinct())])?;
        self.conn.execute_batch("COMMIT; BEGIN")?;
        Ok(())
    }

    /// Distinct ids seen by this crawl, rejects with an id included.
    #[must_use]
    pub fn distinct(&self) -> u64 {
        self.seen.ones() + self.other_ids + self.counted_rows
    }

    /// Rejects of this crawl.
    #[must_use]
    pub fn rejects(&self) -> u64 {
        self.rejects
    }

    /// What was read is another directory's.
    pub fn take_over(&mut self) {
        self.takes_over = true;
    }

    /// Ends the stage and removes its files.
    ///
    /// # Errors
    /// Of the file system.
    pub fn remove(self) -> Result<(), Error> {
        let Self { conn, files, .. } = self;
        drop(conn);
        match files {
            Files::Beside(path) => remove_files(&path),
            Files::Temporary { .. } => Ok(()),
        }
    }

    /// Ends the stage of a crawl that is not believed: also where its files stay, nobody goes on with it.
    pub fn abandon(self) {
        let forgotten = self
            .conn
            .execute_batch("ROLLBACK; UPDATE stage SET position = NULL");
        if let Err(error) = forgotten {
            tracing::debug!(%error, "a stage could not be made useless");
        }
        self.end();
    }

    /// Removes the stage of a sync that is in the mirror with its outcome. What stays of it says nothing of that outcome: the
    /// next sync sees that it has succeeded, and begins its own by removing it.
    pub fn end(self) {
        let instance = self.key.instance.clone();
        if let Err(error) = self.remove() {
            tracing::warn!(
                %instance,
                %error,
                "what a sync staged could not be removed, the next sync of its mode tries again"
            );
        }
    }
}

impl Horizon {
    fn of(reader: &Reader, key: &StageKey) -> Result<Self, Error> {
        let base = tx::base(&reader.conn)?;
        let newest = of_table!(key.resource, "SELECT coalesce(max(rowid), 0) FROM ", "");
        let max_rowid = reader.conn.query_row(newest, [], |row| row.get(0))?;
        let sync_id = reader
            .conn
            .query_row(
                "SELECT seq FROM sqlite_sequence WHERE name = 'syncs'",
                [],
                |row| row.get(0),
            )
            .optional()?;
        Ok(Self {
            base,
            sync_id: sync_id.unwrap_or(0),
            max_rowid,
            nobody: !knows_anybody(reader, key, max_rowid)?,
        })
    }
}

fn knows_anybody(reader: &Reader, key: &StageKey, max_rowid: i64) -> Result<bool, Error> {
    Ok(reader
        .conn
        .prepare_cached(of_table!(
            key.resource,
            "SELECT 1 FROM ",
            " WHERE instance = ?1 AND rowid <= ?2"
        ))?
        .exists(params![key.instance.as_str(), max_rowid])?)
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let conn = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    // What is about to be removed need not be moved into the file first.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    super::connect::keep_plans(&conn)?;
    conn.execute_batch(PRAGMAS)?;
    conn.set_prepared_statement_cache_capacity(CACHED_STATEMENTS);
    Ok(conn)
}

/// Whether there is room for a stage and what follows from it. To be asked before anything costs the instance a request.
///
/// # Errors
/// [`Error::NoRoom`].
pub fn check_room(path: &Path) -> Result<(), Error> {
    file::check_room(path, MIN_FREE_BYTES)
}

/// Removes the stage of a sync that will never go on, if there is one.
///
/// # Errors
/// Of the file system.
pub fn remove_files(path: &Path) -> Result<(), Error> {
    for suffix in ["", "-wal", "-shm"] {
        file::remove(&file::companion(path, suffix))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::super::Mirror;
    use super::super::testing::{FULL, INCREMENTAL, World, complete, id, key, titled, user};
    use super::*;
    use crate::model::{PageReport, Row};

    const HOUR: Duration = Duration::from_secs(3600);

    impl World {
        fn open(&self, key: &StageKey, now: Timestamp) -> (Stage, Option<Interrupted>) {
            let path = self.stage_path();
            Stage::open(Some(&path), key, &self.reader(), now, HOUR).unwrap()
        }
    }

    #[tokio::test]
    async fn an_interrupted_crawl_goes_on_only_where_everything_fits() {
        let mut world = World::new().await;
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss")])
            .await;
        let (full, now) = (key(Mode::Full), world.now);
        let (mut stage, none) = world.open(&full, now);
        assert!(none.is_none());
        let mode = world.stage_path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        world.page(&mut stage, &[titled("a", "Agent"), titled("n", "New")]);
        stage.checkpoint("page 1").unwrap();
        world.page(&mut stage, &[titled("b", "Bishop")]);
        drop(stage);

        // Without a checkpoint behind it, the second page is read again.
        let (stage, interrupted) = world.open(&full, now + HOUR);
        let interrupted = interrupted.unwrap();
        assert_eq!(
            (&*interrupted.position, interrupted.started_at),
            ("page 1", now)
        );
        assert_eq!((stage.distinct(), stage.base().seq), (2, 2));
        drop(stage);
        // What another sync does meanwhile does not move the horizon.
        world.sync_as(INCREMENTAL, &[titled("c", "Clerk")]).await;
        assert_eq!(world.open(&full, now).0.base().seq, 2);

        let conn = Connection::open(world.stage_path()).unwrap();
        conn.execute_batch("PRAGMA wal_checkpoint").unwrap();
        drop(conn);
        let keep = std::fs::read(world.stage_path()).unwrap();
        let put_back = |bytes: &[u8]| {
            remove_files(&world.stage_path()).unwrap();
            std::fs::write(world.stage_path(), bytes).unwrap();
        };
        put_back(&keep);
        assert!(world.open(&full, now).1.is_some());
        let other = StageKey {
            fits: "another digest".into(),
            ..full.clone()
        };
        let later = now + HOUR + Duration::from_millis(1);
        let earlier = now - Duration::from_millis(1);
        for (key, now) in [(&other, now), (&full, later), (&full, earlier)] {
            put_back(&keep);
            let (stage, interrupted) = world.open(key, now);
            assert!(
                interrupted.is_none() && stage.distinct() == 0,
                "{key:?} {now}"
            );
        }
        for damaged in [&b"not a database"[..], &[], &keep[..keep.len() / 2]] {
            put_back(damaged);
            assert!(world.open(&full, now).1.is_none());
        }
        put_back(&keep);
        let conn = Connection::open(world.stage_path()).unwrap();
        conn.execute("UPDATE seen SET bits = zeroblob(4096)", [])
            .unwrap();
        drop(conn);
        assert!(world.open(&full, now).1.is_none(), "the bits do not add up");

        // A link at its name is not followed.
        let victim = world.dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        remove_files(&world.stage_path()).unwrap();
        std::os::unix::fs::symlink(&victim, world.stage_path()).unwrap();
        let (stage, _) = world.open(&full, now);
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        stage.remove().unwrap();
        let left: Vec<_> = std::fs::read_dir(world.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("stage"))
            .collect();
        assert_eq!(left, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_stage_that_was_applied_and_not_removed_is_no_crawl_to_go_on_with() {
        let mut world = World::new().await;
        let everybody = [titled("a", "Agent"), titled("b", "Boss")];
        world.sync(&everybody).await;
        let (full, now) = (key(Mode::Full), world.now);
        let (mut stage, _) = world.open(&full, now);
        world.crawl(&mut stage, &everybody);
        stage.checkpoint("the end").unwrap();
        drop(stage);
        assert!(world.open(&full, now).1.is_some());
        // It is applied; of another mode a sync says nothing.
        world.sync_as(INCREMENTAL, &everybody).await;
        assert!(world.open(&full, world.now).1.is_some());
        world.sync(&everybody).await;
        assert!(world.open(&full, world.now).1.is_none());
    }

    #[tokio::test]
    async fn a_mirror_that_was_put_back_is_behind_its_stage() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        let (full, now) = (key(Mode::Full), world.now);
        let (mut stage, _) = world.open(&full, now);
        stage.checkpoint("page 0").unwrap();
        let path = world.stage_path();
        drop(stage);
        let other = tempfile::tempdir().unwrap();
        let other = Mirror::open(&other.path().join("mirror.db"), "e").unwrap();
        let reader = other.reader().unwrap();
        assert!(
            Stage::open(Some(&path), &full, &reader, now, HOUR)
                .unwrap()
                .1
                .is_none()
        );
    }

    #[tokio::test]
    async fn an_unchanged_user_leaves_a_bit_and_nothing_else() {
        let mut world = World::new().await;
        let directory: Vec<Row> = ["a", "b", "c", "d"].map(|id| titled(id, "x")).to_vec();
        world.sync(&directory).await;
        let (mut stage, _) = world.open(&key(Mode::Full), world.now);
        world.crawl(&mut stage, &directory);
        for table in ["staged", "ids", "rejects"] {
            let sql = format!("SELECT count(*) FROM {table}");
            let rows: i64 = stage.conn.query_row(&sql, [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 0, "{table}");
        }
        assert_eq!(stage.distinct(), 4);
    }

    #[tokio::test]
    async fn a_user_created_by_another_sync_meanwhile_counts_once() {
        let mut world = World::new().await;
        world.sync(&[titled("a", "Agent")]).await;
        let new = titled("n", "New");
        let (mut before, mut after) = (world.stage(Mode::Full), world.stage(Mode::Full));
        world.page(&mut before, std::slice::from_ref(&new));
        world.sync_as(INCREMENTAL, std::slice::from_ref(&new)).await;
        for stage in [&mut before, &mut after] {
            for _ in 0..2 {
                world.page(stage, &[new.clone(), titled("a", "Agent")]);
            }
            assert_eq!(
                (stage.distinct(), stage.is_staged(&id("n")).unwrap()),
                (2, false)
            );
            // It changes back and forth, and is still one.
            world.page(stage, &[titled("n", "Newer")]);
            world.page(stage, std::slice::from_ref(&new));
            world.page(
                stage,
                &[user("n", "2026-01-01T00:00:00Z", r#","active":5"#)],
            );
            assert_eq!((stage.distinct(), stage.rejects()), (2, 1));
        }
    }

    /// What one row of a random page says: a title, or nonsense.
    fn row((id, title): (u8, u8)) -> Row {
        let id = format!("u{id}");
        match title {
            0 => user(&id, "2026-01-01T00:00:00Z", r#","active":5"#),
            title => titled(&id, &format!("t{title}")),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Six users are known with the title `t1`. Pages come in any order, with repeats and twins.
        #[test]
        fn every_id_counts_once_and_the_last_answer_stands(
            pages in proptest::collection::vec(
                (proptest::collection::vec((0..9_u8, 0..4_u8), 0..6), any::<bool>()), 0..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut world = World::new().await;
                world.sync(&(0..6).map(|id| row((id, 1))).collect::<Vec<_>>()).await;
                let full = key(Mode::Full);
                let (mut stage, _) = world.open(&full, world.now);
                let mut last: BTreeMap<u8, u8> = BTreeMap::new();
                for (page, interrupted) in &pages {
                    let rows: Vec<Row> = page.iter().map(|user| row(*user)).collect();
                    let before = last.len();
                    // Within a page nonsense wins: which of twins is the right one cannot be known.
                    last.extend(page.iter().copied().filter(|(_, title)| *title != 0));
                    last.extend(page.iter().copied().filter(|(_, title)| *title == 0));
                    let new_ids = (last.len() - before) as u64;
                    assert_eq!(world.page(&mut stage, &rows), PageReport { new_ids });
                    if *interrupted {
                        stage.checkpoint("here").unwrap();
                        drop(stage);
                        stage = match world.open(&full, world.now) {
                            (stage, Some(_)) => stage,
                            (_, None) => panic!("it must go on"),
                        };
                    }
                    let nonsense = last.values().filter(|title| **title == 0).count();
                    assert_eq!((stage.distinct(), stage.rejects()), (last.len() as u64, nonsense as u64));
                }
                let certificate = complete(stage.distinct());
                let candidates = stage.candidates(&world.reader(), certificate.as_complete().unwrap()).unwrap();
                let absent: Vec<_> = (0..6_u8).filter(|user| !last.contains_key(user)).map(|user| id(&format!("u{user}"))).collect();
                assert_eq!(candidates.into_iter().map(|candidate| candidate.id).collect::<Vec<_>>(), absent);
                world.apply(stage, FULL).await;
                for user in 0..9 {
                    let expected = match last.get(&user) {
                        None | Some(0) if user < 6 => Some("t1".to_owned()),
                        None | Some(0) => None,
                        Some(title) => Some(format!("t{title}")),
                    };
                    let sql = format!("SELECT max(title) FROM users WHERE id = 'u{user}'");
                    assert_eq!(world.ask::<Option<String>>(&sql), expected, "u{user}");
                }
                assert_eq!(world.difference(), None);
            });
        }
    }
}
