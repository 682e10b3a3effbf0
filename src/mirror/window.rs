//! What the feed says of the sliding window of a guard: what was released in it, and how many users
//! there were when it began.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::apply;
use super::error::Error;
use super::gate::Watch;
use super::table;
use crate::model::time::our_text;
use crate::model::{Kind, ResourceType, membership};
use crate::reconcile::guard::{self, Concern};
use crate::reconcile::mapping;

/// What was released since the window began, by concern.
#[derive(Debug, Default)]
pub(super) struct Released {
    /// By this sync.
    pub(super) here: BTreeMap<Concern, u64>,
    /// By others.
    pub(super) elsewhere: BTreeMap<Concern, u64>,
}

/// Records of one source from a `seq` on, along an index: what other instances wrote costs nothing, nor does what is older, nor the
/// baseline, by which nobody left.
const SINCE: &str = "
    FROM changes INDEXED BY changes_since
    WHERE instance = ?1 AND resource = ?2 AND reason <> 'baseline' AND seq >= ?3";

/// The same of the resources whose ids lie between two, along another: of one group's members the others' cost nothing.
const SINCE_BETWEEN: &str = "
    FROM changes INDEXED BY changes_by_resource
    WHERE instance = ?1 AND resource = ?2 AND reason <> 'baseline' AND seq >= ?3 AND id >= ?5 AND id < ?6";

/// Of those, whose user has not been dropped with all others of the instance since: one that is linked again has no past.
const STILL_THERE: &str = "
    reason <> 'unlinked' AND NOT EXISTS
        (SELECT 1 FROM changes AS later
         WHERE later.instance = changes.instance AND later.resource = changes.resource AND later.id = changes.id
           AND later.seq > changes.seq AND later.reason = 'unlinked')";

/// Counts what the feed has in the windows of both guards. What a person approved does not count.
pub(super) fn released(conn: &Connection, watch: &Watch, sync_id: i64) -> Result<Released, Error> {
    let deactivations_since = window_began(conn, watch, &Concern::Deactivation)?;
    let blankings_since = window_began(conn, watch, &Concern::Blanking(String::new()))?;
    let mut records = conn.prepare_cached(&format!(
        "SELECT seq, sync_id, kind, changed {SINCE} AND hold_id IS NULL
             AND (kind = 'deactivate' OR instr(changed, ?4) > 0) AND {STILL_THERE}"
    ))?;
    let mut rows = records.query(params![
        watch.instance.as_str(),
        watch.resource.as_str(),
        deactivations_since.min(blankings_since),
        guard::TURNS_EMPTY
    ])?;
    let mut released = Released::default();
    while let Some(row) = rows.next()? {
        let (seq, by): (i64, i64) = (row.get(0)?, row.get(1)?);
        let changed = row
            .get_ref(3)?
            .as_str_or_null()
            .map_err(rusqlite::Error::from)?;
        let count = match by == sync_id {
            true => &mut released.here,
            false => &mut released.elsewhere,
        };
        for concern in guard::concerns(watch.resource, kind(row, 2)?, changed) {
            let since = match concern {
                Concern::Blanking(_) => blankings_since,
                _ => deactivations_since,
            };
            if seq >= since {
                *count.entry(concern).or_default() += 1;
            }
        }
    }
    if watch.resource == ResourceType::Group {
        memberships_released(conn, watch, sync_id, &mut released)?;
    }
    Ok(released)
}

/// Adds the memberships that ended while their group lived.
fn memberships_released(
    conn: &Connection,
    watch: &Watch,
    sync_id: i64,
    released: &mut Released,
) -> Result<(), Error> {
    let since = [
        window_began(conn, watch, &Concern::Membership)?,
        window_began(conn, watch, &Concern::GroupMembership(String::new()))?,
    ];
    let mut records = conn.prepare_cached(&format!(
        "SELECT seq, sync_id, id {SINCE} AND hold_id IS NULL AND reason = 'removed' AND {STILL_THERE}"
    ))?;
    let mut rows = records.query(params![
        watch.instance.as_str(),
        ResourceType::Membership.as_str(),
        since[0].min(since[1]),
    ])?;
    while let Some(row) = rows.next()? {
        let (seq, by): (i64, i64) = (row.get(0)?, row.get(1)?);
        let id = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        let count = match by == sync_id {
            true => &mut released.here,
            false => &mut released.elsewhere,
        };
        if seq >= since[0] {
            *count.entry(Concern::Membership).or_default() += 1;
        }
        if let (true, Some([group, _])) = (seq >= since[1], membership::parts(id)) {
            *count.entry(Concern::GroupMembership(group)).or_default() += 1;
        }
    }
    Ok(())
}

/// The resource whose records a concern is about.
fn resource_of(watch: &Watch, concern: &Concern) -> ResourceType {
    match concern {
        Concern::Deactivation | Concern::Blanking(_) => watch.resource,
        Concern::Membership | Concern::GroupMembership(_) => ResourceType::Membership,
    }
}

/// How many users a concern's share is of: active ones, or those who live and have the attribute, when
/// the window began, or at the baseline if that is later.
pub(super) fn users(conn: &Connection, watch: &Watch, concern: &Concern) -> Result<u64, Error> {
    let began = window_start(watch, concern).max(watch.baseline_at.unwrap_or(Timestamp::MIN));
    let since = first_after(conn, began)?;
    // The counts of `source_counts` are moved with `feed.last_seq`, at a transaction's end; users one by one.
    let until = match concern {
        Concern::Deactivation | Concern::Membership => apply::last_seq(conn)?,
        Concern::Blanking(_) | Concern::GroupMembership(_) => i64::MAX,
    };
    let resource = resource_of(watch, concern);
    let records = |which| {
        conn.prepare_cached(&format!(
            "SELECT kind, changed, after {which} AND seq <= ?4 AND {STILL_THERE}"
        ))
    };
    let (instance, name) = (watch.instance.as_str(), resource.as_str());
    let mut records = match concern {
        Concern::GroupMembership(_) => records(SINCE_BETWEEN)?,
        _ => records(SINCE)?,
    };
    let mut rows = match concern {
        Concern::GroupMembership(group) => {
            let [first, end] = membership::range(group);
            records.query(params![instance, name, since, until, first, end])?
        }
        _ => records.query(params![instance, name, since, until])?,
    };
    let mut count = users_now(conn, watch, concern)?;
    while let Some(row) = rows.next()? {
        let changed = row
            .get_ref(1)?
            .as_str_or_null()
            .map_err(rusqlite::Error::from)?;
        let after = row.get_ref(2)?.as_str().map_err(rusqlite::Error::from)?;
        count -= guard::shift(resource, concern, kind(row, 0)?, changed, after);
    }
    Ok(u64::try_from(count).unwrap_or_default())
}

fn users_now(conn: &Connection, watch: &Watch, concern: &Concern) -> Result<i64, Error> {
    let instance = watch.instance.as_str();
    match concern {
        Concern::GroupMembership(group) => Ok(conn
            .prepare_cached(
                "SELECT count(*) FROM memberships WHERE instance = ?1 AND group_id = ?2 AND ended_at IS NULL",
            )?
            .query_row([instance, group], |row| row.get(0))?),
        Concern::Deactivation | Concern::Membership => Ok(conn
            .prepare_cached(
                "SELECT active FROM source_counts WHERE instance = ?1 AND resource = ?2",
            )?
            .query_row([instance, resource_of(watch, concern).as_str()], |row| row.get(0))
            .optional()?
            .unwrap_or_default()),
        Concern::Blanking(path) => {
            let table = table::name(watch.resource);
            if let Some(columns) = mapping::columns_of(watch.resource, path) {
                let filled: Vec<String> = columns
                    .iter()
                    .map(|column| format!("{column} IS NOT NULL"))
                    .collect();
                let sql = format!(
                    "SELECT count(*) FROM {table} WHERE instance = ?1 AND gone_at IS NULL AND ({})",
                    filled.join(" OR ")
                );
                return Ok(conn.query_row(&sql, [instance], |row| row.get(0))?);
            }
            let mut users = conn.prepare_cached(&format!(
                "SELECT attributes FROM {table} WHERE instance = ?1 AND gone_at IS NULL"
            ))?;
            let mut rows = users.query([instance])?;
            let mut count = 0;
            while let Some(row) = rows.next()? {
                let attributes = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
                count += i64::from(guard::has(watch.resource, attributes, path));
            }
            Ok(count)
        }
    }
}

/// The first `seq` within a concern's window.
fn window_began(conn: &Connection, watch: &Watch, concern: &Concern) -> Result<i64, Error> {
    first_after(conn, window_start(watch, concern))
}

fn window_start(watch: &Watch, concern: &Concern) -> Timestamp {
    let window = watch.limits.of(concern).window;
    watch.now.saturating_sub(window).unwrap_or(Timestamp::MIN)
}

/// The first `seq` that was observed after a time. `observed_at` never goes back, so halving finds it.
fn first_after(conn: &Connection, time: Timestamp) -> Result<i64, Error> {
    let time = our_text(time);
    let (mut low, mut high): (i64, i64) = conn
        .prepare_cached("SELECT first_seq, last_seq + 1 FROM feed")?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut is_later =
        conn.prepare_cached("SELECT observed_at > ?2 FROM changes WHERE seq = ?1")?;
    while low < high {
        let middle = low + (high - low) / 2;
        let is_later = is_later
            .query_row(params![middle, time], |row| row.get(0))
            .optional()?;
        if is_later.unwrap_or(true) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

fn kind(row: &rusqlite::Row<'_>, place: usize) -> Result<Kind, Error> {
    let text: String = row.get(place)?;
    [Kind::Create, Kind::Update, Kind::Deactivate]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| {
            Error::Damaged(format!(
                "a record of `changes` has the kind `{}`",
                text.escape_debug()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::testing::{World, plan_of};

    #[tokio::test]
    async fn what_is_older_than_the_window_is_not_read() {
        let world = World::new().await;
        for (which, along) in [
            (
                SINCE,
                "SEARCH changes USING INDEX changes_since (instance=? AND resource=? AND seq>?)",
            ),
            (
                SINCE_BETWEEN,
                "SEARCH changes USING INDEX changes_by_resource (instance=? AND resource=? AND id>? AND id<?)",
            ),
        ] {
            let plan = plan_of(&world.reader().conn, &format!("SELECT kind {which}"));
            assert_eq!(plan, along);
        }
    }
}
