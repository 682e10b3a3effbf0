//! The past of one user or group, as the feed has it.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, params};
use serde_json::value::RawValue;

use super::column::json;
use super::error::Error;
use super::feed::{COLUMNS, ChangeRow};
use super::read::Reader;
use super::users::UserRow;
use crate::model::time::our_text;
use crate::model::{Kind, ResourceType};
use crate::reconcile::fold::{FoldInput, Folded, fold};
use crate::reconcile::mapping;

/// What the feed says of a user or a group at a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum AsOf {
    /// The row of `users` or `groups` as it was. Of a group nothing says then whether all members were known, and where records
    /// were trimmed since, not how many.
    Known(UserRow),
    /// The mirror had none of this id: not yet, or not any more (`unlink --drop`).
    Nobody,
    /// The feed does not reach back to that moment.
    Trimmed {
        /// From when on it says something of this id.
        since: String,
    },
}

/// A row of `users_history`, in the view's column names.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the columns of `users_history`")]
pub struct StateRow {
    pub instance: String,
    pub id: String,
    pub valid_from: String,
    pub valid_to: Option<String>,
    pub seq: i64,
    pub kind: String,
    pub reason: String,
    pub active: bool,
    pub gone: bool,
    pub changed: Option<Box<RawValue>>,
    pub attributes: Option<Box<RawValue>>,
}

const STATES: &str = "
    SELECT instance, id, valid_from, valid_to, seq, kind, reason, active, gone, changed, attributes
    FROM users_history WHERE instance = ?1 AND id = ?2 ORDER BY seq";

impl Reader {
    /// Each state of one user, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub fn states(&self, instance: &str, id: &str) -> Result<Vec<StateRow>, Error> {
        let mut statement = self.conn.prepare_cached(STATES)?;
        let states = statement.query_map([instance, id], |row| {
            Ok(StateRow {
                instance: row.get(0)?,
                id: row.get(1)?,
                valid_from: row.get(2)?,
                valid_to: row.get(3)?,
                seq: row.get(4)?,
                kind: row.get(5)?,
                reason: row.get(6)?,
                active: row.get(7)?,
                gone: row.get(8)?,
                changed: json(row, 9)?,
                attributes: json(row, 10)?,
            })
        })?;
        Ok(states.collect::<Result<_, _>>()?)
    }

    /// All change records of one user or group, oldest first. Of those that were trimmed the newest is left, which says what
    /// the user was when the rest begins.
    ///
    /// # Errors
    /// Of the database.
    pub fn history(
        &self,
        resource: ResourceType,
        instance: &str,
        id: &str,
    ) -> Result<Vec<ChangeRow>, Error> {
        let of = "WHERE instance = ?1 AND resource = ?2 AND id = ?3";
        self.rows(
            &format!(
                "SELECT {COLUMNS} FROM changes_base {of} UNION ALL SELECT {COLUMNS} FROM changes {of} ORDER BY seq"
            ),
            params![instance, resource.as_str(), id],
        )
    }

    /// The user with this id as the mirror had him at a moment: what had been observed by then, and no later. His records are folded,
    /// so that the answer is exactly the row of `users` that a reader saw.
    ///
    /// # Errors
    /// Of the database; where a record cannot follow those before it.
    pub fn user_as_of(&self, instance: &str, id: &str, moment: Timestamp) -> Result<AsOf, Error> {
        self.as_of(ResourceType::User, instance, id, moment)
    }

    /// The same of a group. Its row has as many members as `memberships_history` has for that moment.
    ///
    /// # Errors
    /// Of the database; where a record cannot follow those before it.
    pub fn group_as_of(&self, instance: &str, id: &str, moment: Timestamp) -> Result<AsOf, Error> {
        self.as_of(ResourceType::Group, instance, id, moment)
    }

    fn as_of(
        &self,
        resource: ResourceType,
        instance: &str,
        id: &str,
        moment: Timestamp,
    ) -> Result<AsOf, Error> {
        // Trimming between two of the questions would take a record for one that begins the past.
        let snapshot = self.conn.is_autocommit().then(|| self.snapshot());
        let snapshot = snapshot.transpose()?;
        let first_seq = self.feed()?.first_seq;
        let records = self.history(resource, instance, id)?;
        let begins_at = self.begins_at(first_seq)?;
        let now = match resource {
            ResourceType::Group => {
                self.groups_where("instance = ?1 AND id = ?2", [instance, id])?
            }
            _ => self.select("instance = ?1 AND id = ?2", [instance, id])?,
        };
        let n_members = match resource {
            ResourceType::Group => self.n_members(instance, id, moment)?,
            _ => None,
        };
        drop(snapshot);

        let moment = our_text(moment);
        let mut state = None;
        for record in records.iter().filter(|record| record.observed_at <= moment) {
            state = fold(state, &input(record, first_seq))
                .map_err(|error| damaged(instance, id, &error))?;
        }
        if let Some(state) = state {
            let columns = Columns {
                resource,
                state,
                now: now.first(),
                n_members,
            };
            return Ok(AsOf::Known(columns.row(instance, id)?));
        }
        // Of who was removed nothing is left once that is trimmed: before the feed begins nobody knows who had been there, also of whom
        // came, or came again, after that.
        let since = match (records.first(), begins_at) {
            // What it changed is not there any more.
            (Some(first), _) if first.kind != Kind::Create.as_str() => {
                Some(first.observed_at.clone())
            }
            (Some(first), Some(begins_at)) => Some(begins_at.min(first.observed_at.clone())),
            (_, begins_at) => begins_at,
        };
        Ok(match since {
            Some(since) if since > moment => AsOf::Trimmed { since },
            _ => AsOf::Nobody,
        })
    }

    /// Since when the feed is complete, where that is only after a moment.
    ///
    /// # Errors
    /// Of the database.
    pub fn trimmed_before(&self, moment: Timestamp) -> Result<Option<String>, Error> {
        let begins_at = self.begins_at(self.feed()?.first_seq)?;
        Ok(begins_at.filter(|begins_at| *begins_at > our_text(moment)))
    }

    /// How many were in a group at a moment; `None` where the feed does not reach back to it.
    fn n_members(&self, instance: &str, id: &str, moment: Timestamp) -> Result<Option<i64>, Error> {
        if self.trimmed_before(moment)?.is_some() {
            return Ok(None);
        }
        let n_members = self
            .conn
            .prepare_cached(
                "SELECT count(*) FROM memberships_history
                 WHERE instance = ?1 AND group_id = ?2 AND valid_from <= ?3 AND (valid_to IS NULL OR valid_to > ?3)",
            )?
            .query_row([instance, id, &our_text(moment)], |row| row.get(0))?;
        Ok(Some(n_members))
    }

    /// When the oldest record was written that is still in the feed, where older ones were trimmed.
    fn begins_at(&self, first_seq: i64) -> Result<Option<String>, Error> {
        let begins_at = self
            .conn
            .prepare_cached("SELECT observed_at FROM changes WHERE seq = ?1 AND seq > 1")?
            .query_row([first_seq], |row| row.get(0))
            .optional()?;
        Ok(begins_at)
    }
}

fn input(record: &ChangeRow, first_seq: i64) -> FoldInput<'_> {
    FoldInput {
        seq: record.seq,
        resource: &record.resource,
        is_base: record.seq < first_seq,
        kind: &record.kind,
        reason: &record.reason,
        has_proof: record.proof.is_some(),
        after: record.after.as_ref().map_or("", |after| after.get()),
        source_modified_at: record.source_modified_at.as_deref(),
        observed_at: &record.observed_at,
    }
}

fn damaged(instance: &str, id: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Damaged(format!("the feed of `{id:?}` of `{instance}`: {why}"))
}

/// What the columns of a row are made of.
struct Columns<'a> {
    resource: ResourceType,
    state: Folded,
    now: Option<&'a UserRow>,
    n_members: Option<i64>,
}

impl Columns<'_> {
    /// The row that the state had. What no record says is as it is now: when the instance made it, and when it was first
    /// seen if that was trimmed.
    fn row(&self, instance: &str, id: &str) -> Result<UserRow, Error> {
        let state = &self.state;
        let mapped = mapping::columns(self.resource, &state.canonical)
            .map_err(|error| damaged(instance, id, &error))?;
        let text = |text: Option<String>| text.map_or(Value::Null, Value::Text);
        let names: &[&'static str] = match self.resource {
            ResourceType::Group => &super::groups::COLUMNS,
            _ => &super::users::COLUMNS,
        };
        let row = names.iter().map(|&column| {
            let value = match column {
                "instance" => Value::Text(instance.to_owned()),
                "id" => Value::Text(id.to_owned()),
                "active" => Value::Integer(i64::from(state.active)),
                "created_at" => self.now(column),
                "modified_at" => text(state.modified_at.clone()),
                "attributes" => Value::Text(state.canonical.clone()),
                "member_count" => self.n_members.map_or(Value::Null, Value::Integer),
                // Makes no record.
                "members_known" => Value::Null,
                "first_seen_at" => state
                    .first_seen_at
                    .clone()
                    .map_or_else(|| self.now(column), Value::Text),
                "changed_at" => Value::Text(state.changed_at.clone()),
                "changed_seq" => Value::Integer(state.changed_seq),
                "gone_at" => text(state.gone_at.clone()),
                column => text(mapped.get_of(self.resource, column).map(str::to_owned)),
            };
            (column, value)
        });
        Ok(row.collect())
    }

    fn now(&self, column: &str) -> Value {
        let columns = self.now.into_iter().flatten();
        let mut values = columns.filter(|(name, _)| *name == column);
        values
            .next()
            .map_or(Value::Null, |(_, value)| value.clone())
    }
}

#[cfg(test)]
mod histories;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{World, plan_of, titled, user};
    use super::super::trim::TrimOptions;
    use super::*;

    fn of_a(world: &World, moment: Timestamp) -> AsOf {
        world.reader().user_as_of("acme", "a", moment).unwrap()
    }

    fn rows(world: &World) -> Vec<UserRow> {
        world.reader().users("acme", "a").unwrap()
    }

    /// At each moment the answer is what the table was.
    #[tokio::test]
    async fn a_user_is_folded_to_the_row_that_he_was() {
        let mut world = World::new().await;
        let stamp = "2026-01-01T00:00:00Z";
        let directories = [
            Some(titled("a", "one")),
            Some(user(
                "a",
                stamp,
                r#","title":"two","active":false,"nickName":"A""#,
            )),
            None,
            Some(titled("a", "back")),
        ];
        let mut was = vec![(world.now, AsOf::Nobody)];
        for state in directories {
            world.now += Duration::from_secs(60);
            let mut directory = vec![titled("b", "witness"), titled("c", "witness")];
            directory.extend(state);
            world.sync(&directory).await;
            let row = rows(&world).pop().unwrap();
            was.push((world.now, AsOf::Known(row)));
        }
        for (moment, row) in &was {
            assert_eq!(of_a(&world, *moment), *row);
            assert_eq!(of_a(&world, *moment + Duration::from_secs(59)), *row);
        }
        let states = world.reader().states("acme", "a").unwrap();
        let from = |state: &StateRow| state.valid_from.parse::<Timestamp>().unwrap();
        assert_eq!(
            states.iter().map(from).collect::<Vec<_>>(),
            was[1..]
                .iter()
                .map(|(moment, _)| *moment)
                .collect::<Vec<_>>()
        );
        // He came and changed, left, and is back.
        let AsOf::Known(gone) = &was[3].1 else {
            panic!("{was:?}")
        };
        assert!(
            gone.iter()
                .any(|(column, value)| *column == "gone_at" && *value != Value::Null)
        );

        // All but the newest state is trimmed.
        let now = world.now + Duration::from_secs(3_600);
        let options = TrimOptions {
            changes_before: Some(now),
            syncs_before: world.now,
            batch: 99,
        };
        let trimmed = world.mirror.write(move |writer| writer.trim(&options));
        trimmed.await.unwrap();
        let (last, row) = was.last().unwrap();
        assert_eq!(of_a(&world, *last), *row);
        assert!(matches!(of_a(&world, was[1].0), AsOf::Trimmed { .. }));
        let nobody = |moment| world.reader().user_as_of("acme", "nobody", moment).unwrap();
        assert_eq!(nobody(now), AsOf::Nobody);
        assert!(
            matches!(nobody(was[1].0), AsOf::Trimmed { .. }),
            "nobody knows any more"
        );
    }

    /// A feed of millions of records is not read for one user.
    #[tokio::test]
    async fn the_states_of_one_user_are_found_by_index() {
        let plan = plan_of(&World::new().await.reader().conn, STATES);
        assert!(!plan.contains("SCAN changes"), "{plan}");
        assert_eq!(
            plan.matches("(instance=? AND resource=? AND id=?").count(),
            4,
            "{plan}"
        );
    }
}
