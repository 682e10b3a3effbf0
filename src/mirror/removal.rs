//! Removes everybody of an instance that is not linked any more, with a record for each (`musterd unlink --drop`).

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, params};

use super::apply::{self, Writer};
use super::column::{count, time};
use super::error::Error;
use super::identities::Register;
use super::read::Reader;
use super::record::{Entry, Place, append, observed_at};
use super::syncs::known_instance;
use super::user_keys::{self, UserKeys};
use super::{lists, table};
use crate::model::time::{our_text, their_text};
use crate::model::{InstanceName, Member, ResourceId, ResourceType, State, membership};
use crate::reconcile::{diff, members};

/// What one transaction of a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Users that it removed.
    pub users: u64,
    /// Whether nothing is left of the instance but the past: `changes`, `syncs`, and closed holds.
    pub is_over: bool,
}

impl Reader {
    /// How many users the mirror has of an instance, also those who are inactive or gone. `None`: it knows no such instance.
    ///
    /// # Errors
    /// Of the database.
    pub fn users_of(&self, instance: &InstanceName) -> Result<Option<u64>, Error> {
        Ok(self
            .conn
            .prepare(
                "SELECT (SELECT count(*) FROM users WHERE instance = name) FROM instances WHERE name = ?1",
            )?
            .query_row([instance.as_str()], |row| count(row, 0))
            .optional()?)
    }

    /// Whether the feed has a record of an instance, which need not be known any more.
    ///
    /// # Errors
    /// Of the database.
    pub fn is_in_feed(&self, instance: &str) -> Result<bool, Error> {
        Ok(self
            .conn
            .prepare(
                "SELECT 1 FROM changes WHERE instance = ?1 UNION ALL SELECT 1 FROM changes_base WHERE instance = ?1",
            )?
            .exists([instance])?)
    }
}

impl Writer<'_> {
    /// Begins to remove the users of an unlinked instance: closes what is held of it, and forgets what syncs go by, so that it
    /// starts as new if it is linked again before the end. Returns the number that its records have in `sync_id`, which no sync has.
    ///
    /// Killed before its end, a removal is begun again, and goes on with those who are left.
    ///
    /// # Errors
    /// When the mirror does not know the instance, or it is linked; of the database.
    pub fn begin_removal(&self, instance: &InstanceName, now: Timestamp) -> Result<i64, Error> {
        self.unlinked(instance)?;
        self.forget_source(instance, now)?;
        self.reserve_sync()
    }

    /// Removes at most `most` of its profiles, memberships, groups and users, in this order, and writes a record for each; once nobody
    /// is left, forgets the instance.
    ///
    /// # Errors
    /// As [`Writer::begin_removal`]: it may have been linked again meanwhile.
    pub fn remove_users(
        &self,
        instance: &InstanceName,
        sync_id: i64,
        now: Timestamp,
        most: u64,
    ) -> Result<Removed, Error> {
        self.unlinked(instance)?;
        let removed = self.remove_some(instance, sync_id, now, most)?;
        if removed.is_over {
            self.forget_instance(instance)?;
        }
        Ok(removed)
    }

    fn unlinked(&self, instance: &InstanceName) -> Result<(), Error> {
        let state: Option<String> = self
            .conn
            .prepare_cached("SELECT state FROM instances WHERE name = ?1")?
            .query_row([instance.as_str()], |row| row.get(0))
            .optional()?;
        match state.as_deref() {
            Some("unlinked") => Ok(()),
            Some(_) => Err(Error::StillLinked(instance.clone())),
            None => known_instance(0, instance),
        }
    }

    /// Nothing of it is held any more, and it has no baseline.
    fn forget_source(&self, instance: &InstanceName, now: Timestamp) -> Result<(), Error> {
        let name = instance.as_str();
        self.conn.execute(
            "UPDATE hold_changes SET state = 'resolved'
             WHERE state = 'held' AND hold_id IN (SELECT id FROM holds WHERE instance = ?1)",
            [name],
        )?;
        self.conn.execute(
            "UPDATE holds SET state = 'resolved', closed_at = ?2 WHERE instance = ?1 AND state = 'open'",
            params![name, our_text(now)],
        )?;
        self.conn.execute(
            "UPDATE instances
             SET last_success_at = NULL, last_error = NULL, last_error_at = NULL, consecutive_failures = 0
             WHERE name = ?1",
            [name],
        )?;
        self.conn.execute(
            "UPDATE source_counts SET rejected = 0 WHERE instance = ?1",
            [name],
        )?;
        for table in ["sources", "rejects"] {
            self.conn
                .execute(&format!("DELETE FROM {table} WHERE instance = ?1"), [name])?;
        }
        Ok(())
    }

    /// The profiles that are linked to users first, then who is in which group, then the groups, then the users.
    fn remove_some(
        &self,
        instance: &InstanceName,
        sync_id: i64,
        now: Timestamp,
        most: u64,
    ) -> Result<Removed, Error> {
        let name = instance.as_str();
        let observed_at = observed_at(self.conn, now)?;
        let last_seq = apply::last_seq(self.conn)?;
        let mut register = Register::behind(self.conn, instance, sync_id, observed_at, last_seq);
        let profiles = self.remove_profiles(instance, &mut register, most)?;
        let first_seq = register.last_seq();
        let observed_at = our_text(observed_at);
        let mut seq = first_seq;
        let mut users = 0;
        for resource in [
            ResourceType::Membership,
            ResourceType::Group,
            ResourceType::User,
        ] {
            let (mut living, mut active) = (0, 0);
            let mut next = self.conn.prepare_cached(next_of(resource))?;
            while profiles + seq.abs_diff(first_seq) < most {
                let Some(one) = next
                    .query_row([name], |row| left(resource, row))
                    .optional()?
                else {
                    break;
                };
                seq += 1;
                living += i64::from(one.before.gone_at.is_none());
                active += i64::from(one.active);
                users += u64::from(resource == ResourceType::User);
                self.remove(instance, resource, &one)?;
                let place = Place {
                    seq,
                    sync_id,
                    instance,
                    hold_id: None,
                    observed_at: &observed_at,
                };
                let record = diff::unlinked(resource, one.id, one.before);
                let modified_at = record.after.modified_at.map(their_text);
                append(
                    self.conn,
                    &place,
                    &Entry::of(&record, None, modified_at.as_deref()),
                )?;
            }
            self.conn.execute(
                "UPDATE source_counts SET living = living - ?3, active = active - ?4
                 WHERE instance = ?1 AND resource = ?2",
                params![name, resource.as_str(), living, active],
            )?;
        }
        self.conn.execute("UPDATE feed SET last_seq = ?1", [seq])?;
        Ok(Removed {
            users,
            is_over: profiles + seq.abs_diff(first_seq) < most,
        })
    }

    fn remove(
        &self,
        instance: &InstanceName,
        resource: ResourceType,
        one: &Left,
    ) -> Result<(), Error> {
        let (name, id) = (instance.as_str(), one.id.as_str());
        self.touched
            .drop_seal(self.conn, table::name(resource), &one.seal_key)?;
        let delete = match resource {
            ResourceType::User => "DELETE FROM users WHERE rowid = ?1",
            ResourceType::Group => "DELETE FROM groups WHERE rowid = ?1",
            ResourceType::Membership => "DELETE FROM memberships WHERE rowid = ?1",
        };
        self.conn.prepare_cached(delete)?.execute([one.rowid])?;
        if let (ResourceType::Membership, None, Some([group, _])) =
            (resource, one.before.gone_at, membership::parts(id))
        {
            // What is not removed yet still says how many there are.
            self.conn
                .prepare_cached(
                    "UPDATE groups SET member_count = member_count - 1 WHERE instance = ?1 AND id = ?2",
                )?
                .execute([name, &group])?;
            return Ok(());
        }
        self.conn
            .prepare_cached(
                "DELETE FROM fingerprints WHERE instance = ?1 AND resource = ?2 AND id = ?3",
            )?
            .execute([name, resource.as_str(), id])?;
        user_keys::replace(self.conn, instance, id, &one.keys, &UserKeys::default())
    }

    /// Its row of `source_counts` stays, with nobody in it: the numbers of transactions never go back, and the last one may be
    /// there.
    fn forget_instance(&self, instance: &InstanceName) -> Result<(), Error> {
        let name = instance.as_str();
        for table in ["pins", "identity_maps", "imports"] {
            self.conn
                .execute(&format!("DELETE FROM {table} WHERE instance = ?1"), [name])?;
        }
        self.conn
            .execute("DELETE FROM instances WHERE name = ?1", [name])?;
        Ok(())
    }
}

/// A row, as far as its end needs it.
struct Left {
    rowid: i64,
    id: ResourceId,
    active: bool,
    before: State,
    seal_key: String,
    /// Of a user.
    keys: UserKeys,
}

/// The next row of an instance: in the order of ids.
fn next_of(resource: ResourceType) -> &'static str {
    match resource {
        ResourceType::User => {
            "SELECT rowid, id, active, attributes, created_at, modified_at, gone_at, instance || ' ' || id,
                    employee_number, email, user_name FROM users
             WHERE instance = ?1 ORDER BY id LIMIT 1"
        }
        ResourceType::Group => {
            "SELECT rowid, id, active, attributes, created_at, modified_at, gone_at, instance || ' ' || id FROM groups
             WHERE instance = ?1 ORDER BY id LIMIT 1"
        }
        ResourceType::Membership => {
            "SELECT rowid, group_id, member_id, member_type, label, ended_at,
                    instance || ' ' || length(group_id) || ' ' || group_id || ' ' || member_id FROM memberships
             WHERE instance = ?1 ORDER BY group_id, member_id LIMIT 1"
        }
    }
}

fn left(resource: ResourceType, row: &Row<'_>) -> rusqlite::Result<Left> {
    if resource == ResourceType::Membership {
        let group: String = row.get(1)?;
        let member = Member {
            id: row.get(2)?,
            kind: lists::kind(row, 3)?,
            label: row.get(4)?,
        };
        let gone_at = time(row, 5)?;
        return Ok(Left {
            rowid: row.get(0)?,
            id: membership::id(&group, &member.id),
            active: gone_at.is_none(),
            before: State {
                canonical: members::canonical(&group, &member, gone_at.is_none()),
                created_at: None,
                modified_at: None,
                gone_at,
            },
            seal_key: row.get(6)?,
            keys: UserKeys::default(),
        });
    }
    Ok(Left {
        rowid: row.get(0)?,
        id: ResourceId::new(row.get::<_, String>(1)?),
        active: row.get(2)?,
        before: State {
            canonical: row.get(3)?,
            created_at: time(row, 4)?,
            modified_at: time(row, 5)?,
            gone_at: time(row, 6)?,
        },
        seal_key: row.get(7)?,
        keys: match resource {
            ResourceType::User => UserKeys::of_row(row, 8)?,
            ResourceType::Group | ResourceType::Membership => UserKeys::default(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::Mirror;
    use super::super::instances::Pin;
    use super::super::testing::{FULL, INCREMENTAL, World, name, pin, strict, titled, user};
    use super::super::trim::TrimOptions;
    use super::*;
    use crate::model::Mode;

    async fn link(world: &World, names: &[&str]) {
        let pins: Vec<Pin> = names.iter().map(|name| pin(name)).collect();
        let linked = world.mirror.write(move |writer| writer.link(&pins));
        linked.await.unwrap();
    }

    async fn begin(world: &World) -> Result<i64, Error> {
        let now = world.now;
        let begun = world
            .mirror
            .write(move |writer| writer.begin_removal(&name("acme"), now));
        begun.await
    }

    async fn remove(world: &World, sync_id: i64, most: u64) -> Result<Removed, Error> {
        let now = world.now;
        let removed = world
            .mirror
            .write(move |writer| writer.remove_users(&name("acme"), sync_id, now, most));
        removed.await
    }

    async fn drop_all(world: &World) {
        let sync_id = begin(world).await.unwrap();
        assert!(remove(world, sync_id, 99).await.unwrap().is_over);
        assert_eq!(world.difference(), None);
    }

    /// Users of `acme` in every state, and something in every table; one user of `globex`.
    async fn lived() -> World {
        let mut world = World::new().await;
        link(&world, &["acme", "globex"]).await;
        world
            .sync(&["a", "b", "c", "d", "e"].map(|id| titled(id, "x")))
            .await;
        let left = user(
            "b",
            "2026-02-01T00:00:00Z",
            r#","title":"x","active":false"#,
        );
        world
            .sync(&[
                titled("a", "y"),
                left.clone(),
                titled("d", "x"),
                titled("e", "x"),
            ])
            .await;
        let mut stage = world.stage_of("globex", Mode::Full);
        world.page(&mut stage, &[titled("a", "other")]);
        world.apply(stage, FULL).await;
        world.limits = strict();
        world.limits.deactivations.at_least = 0;
        world.limits.deactivations.count = 0;
        let held = user(
            "d",
            "2026-02-02T00:00:00Z",
            r#","title":"x","active":false"#,
        );
        world.sync_as(INCREMENTAL, &[held]).await;
        let reject = world.mirror.write(|writer| {
            writer.conn.execute_batch(
                "INSERT INTO rejects VALUES ('acme', 'User', 'k', 'r', '', '', '');
                 UPDATE source_counts SET rejected = 1 WHERE instance = 'acme'",
            )?;
            Ok(())
        });
        reject.await.unwrap();
        assert_eq!(world.difference(), None);
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM users_held"), 1);
        world
    }

    /// Records of the reason `unlinked`, with what they say.
    const RECORDS: &str = "
        SELECT group_concat(id || ' ' || kind || ' ' || changed || ' ' || json_extract(after, '$.title')
                                || json_extract(after, '$.active'), '; ')
        FROM (SELECT * FROM changes WHERE instance = 'acme' AND reason = 'unlinked' ORDER BY seq)";

    #[tokio::test]
    async fn everybody_leaves_with_a_record_whatever_he_was_and_nothing_is_left_but_the_past() {
        let world = lived().await;
        link(&world, &["globex"]).await;
        let before = world.dump();
        drop_all(&world).await;
        let turns = r#"{"active":{"from":true,"to":false}}"#;
        assert_eq!(
            world.ask::<String>(RECORDS),
            format!(
                "a deactivate {turns} y0; b deactivate {{}} x0; c deactivate {{}} x0; d deactivate {turns} x0; e deactivate {turns} x0"
            )
        );
        let after = world.dump();
        for (table, rows) in &after {
            let of_acme = rows
                .iter()
                .filter(|row| format!("{row:?}").contains("\"acme\""))
                .count();
            let stays = ["changes", "syncs", "holds", "source_counts"].contains(&&**table);
            assert_eq!(of_acme > 0, stays, "{table}");
            let of_globex = |rows: &Vec<Vec<_>>| {
                let rows = rows.iter().map(|row| format!("{row:?}"));
                rows.filter(|row| row.contains("globex"))
                    .collect::<Vec<_>>()
            };
            assert_eq!(of_globex(rows), of_globex(&before[table]), "{table}");
        }
        assert_eq!(
            world.ask::<String>("SELECT group_concat(state) FROM holds"),
            "resolved"
        );
        assert_eq!(
            world.ask::<String>("SELECT group_concat(DISTINCT state) FROM hold_changes"),
            "resolved"
        );
        assert_eq!(
            world.ask::<i64>(
                "SELECT count(DISTINCT sync_id) FROM changes WHERE reason = 'unlinked'"
            ),
            1
        );
        assert!(world.reader().is_in_feed("acme").unwrap());
        assert_eq!(world.reader().users_of(&name("acme")).unwrap(), None);
        assert_eq!(world.reader().users_of(&name("globex")).unwrap(), Some(1));
        // What was, was; from then on there is nobody.
        let states = "SELECT count(*), count(valid_to) FROM users_history WHERE instance = 'acme'";
        let states: (i64, i64) = world
            .reader()
            .conn
            .query_row(states, [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(states, (8, 8));
    }

    #[tokio::test]
    async fn a_sync_that_outlives_it_writes_nobody_back() {
        let mut world = lived().await;
        let mut late = Vec::new();
        for _ in 0..2 {
            let mut stage = world.stage(Mode::Full);
            world.page(&mut stage, &[titled("a", "z"), titled("n", "new")]);
            let (mut batch, end) = world.ending(&stage).await;
            // One that is not the sync's last transaction: that finds by itself what is missing.
            batch.limit = 1;
            late.push((stage, batch, end));
        }
        link(&world, &["globex"]).await;
        let sync_id = begin(&world).await.unwrap();
        let mut left = 5;
        for (mut stage, batch, end) in late {
            let applied = world
                .mirror
                .write(move |writer| writer.apply(&mut stage, &batch, None, &end));
            assert!(matches!(applied.await, Err(Error::UnknownInstance(_))));
            let users = world.ask::<i64>("SELECT count(*) FROM users WHERE instance = 'acme'");
            assert_eq!(users, left, "before the removal, and behind it");
            remove(&world, sync_id, 99).await.ok();
            left = 0;
        }
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn killed_between_two_transactions_it_goes_on_with_those_who_are_left() {
        let world = lived().await;
        link(&world, &["globex"]).await;
        let being_removed = |world: &World| {
            let health = world.reader().health(world.now).unwrap();
            health
                .iter()
                .map(|row| row.being_removed)
                .collect::<Vec<_>>()
        };
        assert_eq!(being_removed(&world), [false, false]);
        let sync_id = begin(&world).await.unwrap();
        assert_eq!(world.difference(), None);
        let first = remove(&world, sync_id, 2).await.unwrap();
        assert_eq!(
            first,
            Removed {
                users: 2,
                is_over: false
            }
        );
        assert_eq!(world.difference(), None);
        assert_eq!(
            world.ask::<i64>("SELECT max(seq) - (SELECT last_seq FROM feed) FROM changes"),
            0
        );

        let path = world.path().to_owned();
        world.mirror.close().await.unwrap();
        let world = World {
            mirror: Mirror::open(&path, "not used").unwrap(),
            ..world
        };
        assert_eq!(being_removed(&world), [true, false]);
        drop_all(&world).await;
        assert_eq!(
            world.ask::<i64>("SELECT count(*) FROM changes WHERE reason = 'unlinked'"),
            5
        );
        assert_eq!(world.ask::<i64>("SELECT count(*) FROM users"), 1);
        // And once it is over, there is nothing to begin.
        assert!(matches!(
            begin(&world).await,
            Err(Error::UnknownInstance(_))
        ));
    }

    #[tokio::test]
    async fn who_is_linked_again_meanwhile_keeps_the_rest_and_has_no_baseline() {
        let mut world = lived().await;
        assert!(matches!(begin(&world).await, Err(Error::StillLinked(_))));
        link(&world, &["globex"]).await;
        let sync_id = begin(&world).await.unwrap();
        remove(&world, sync_id, 2).await.unwrap();
        link(&world, &["acme", "globex"]).await;
        assert!(matches!(
            remove(&world, sync_id, 2).await,
            Err(Error::StillLinked(_))
        ));
        assert_eq!(
            world.ask::<String>("SELECT state FROM instances WHERE name = 'acme'"),
            "new"
        );
        world.limits = strict();
        world
            .sync(&[titled("a", "x"), titled("c", "x"), titled("d", "x")])
            .await;
        assert_eq!(
            world.ask::<String>("SELECT group_concat(DISTINCT reason) FROM changes WHERE sync_id = (SELECT max(id) FROM syncs)"),
            "baseline"
        );
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn linked_again_it_starts_as_new_and_no_guard_counts_what_was() {
        let mut world = lived().await;
        link(&world, &["globex"]).await;
        drop_all(&world).await;
        link(&world, &["acme", "globex"]).await;
        world.limits = strict();
        let people = ["a", "b", "c", "d"];
        let applied = world.sync(&people.map(|id| titled(id, "z"))).await;
        assert_eq!((applied[0].created, applied[0].held), (4, 0));
        assert_eq!(
            world.ask::<String>("SELECT group_concat(DISTINCT reason) FROM changes WHERE sync_id = (SELECT max(id) FROM syncs)"),
            "baseline"
        );
        // Two may turn inactive within the window, and there have been none: who left before was of another life.
        let leave = |id| user(id, "2026-02-03T00:00:00Z", r#","title":"z","active":false"#);
        let applied = world.sync_as(INCREMENTAL, &[leave("a"), leave("b")]).await;
        assert_eq!((applied[0].deactivated, applied[0].held), (2, 0));
        let applied = world.sync_as(INCREMENTAL, &[leave("c")]).await;
        assert_eq!((applied[0].deactivated, applied[0].held), (0, 1));
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn a_record_that_is_trimmed_leaves_nothing_to_fold() {
        let mut world = lived().await;
        let trim = |world: &World, batch| {
            let options = TrimOptions {
                changes_before: Some("2030-01-01T00:00:00Z".parse().unwrap()),
                syncs_before: world.now,
                batch,
            };
            let mirror = world.mirror.clone();
            async move {
                while mirror
                    .write(move |writer| writer.trim(&options))
                    .await
                    .unwrap()
                {}
            }
        };
        let base = |world: &World| {
            world.ask::<String>(
            "SELECT coalesce(group_concat(instance || ' ' || id), '') FROM (SELECT * FROM changes_base ORDER BY instance, id)",
        )
        };
        trim(&world, 3).await;
        assert!(
            base(&world).starts_with("acme a,acme b"),
            "{}",
            base(&world)
        );
        link(&world, &["globex"]).await;
        drop_all(&world).await;
        link(&world, &["acme", "globex"]).await;
        // Of whom is there again the newest record stays; the last record of all is never trimmed.
        world.limits = strict();
        world.sync(&[titled("a", "z"), titled("b", "z")]).await;
        for batch in [1, 2, 99] {
            trim(&world, batch).await;
            assert_eq!(world.difference(), None);
        }
        assert_eq!(base(&world), "acme a,globex a");
        world.sync(&[titled("a", "z"), titled("b", "zz")]).await;
        trim(&world, 99).await;
        assert_eq!(world.difference(), None);
    }

    #[tokio::test]
    async fn nobody_looks_through_all_seals_for_those_of_the_removed() {
        let world = lived().await;
        link(&world, &["globex"]).await;
        let sync_id = begin(&world).await.unwrap();
        // A seal without a row would be found by that.
        let planted = world.mirror.write(|writer| {
            writer
                .conn
                .execute("INSERT INTO seals VALUES ('users', 'acme zzz', x'00')", [])?;
            Ok(())
        });
        planted.await.unwrap();
        remove(&world, sync_id, 2).await.unwrap();
        assert_eq!(
            world.ask::<String>("SELECT group_concat(key) FROM (SELECT key FROM seals WHERE of = 'users' ORDER BY key)"),
            "acme c,acme d,acme e,acme zzz,globex a"
        );
    }
}
