//! Which instances the mirror knows, what is pinned of them, and under which name (contract, section 4a).

use rusqlite::{OptionalExtension as _, params};

use super::apply::Writer;
use super::column::json;
use super::error::Error;
use super::holds::ANOTHER_DIRECTORY;
use super::seal;
use super::syncs::known_instance;
use crate::model::{Capabilities, InstanceName, ResourceType};

/// What the mirror pins of an instance (contract, section 4a).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The instance.
    pub instance: InstanceName,
    /// Its origin, as `url` says.
    pub url: String,
    /// Its SCIM path.
    pub scim_path: String,
    /// The resource types that are mirrored.
    pub resources: Vec<ResourceType>,
}

/// Every table but `instances` itself that has rows of an instance, by its column `instance`.
const TABLES: [&str; 18] = [
    "pins",
    "sources",
    "source_counts",
    "users",
    "groups",
    "memberships",
    "fingerprints",
    "changes",
    "changes_base",
    "syncs",
    "holds",
    "rejects",
    "identities",
    "identity_maps",
    "profiles",
    "identity_keys",
    "user_keys",
    "imports",
];

/// Of those, the ones that an instance fills only when something of it was read, or imported for it.
const CONTENT: [&str; 9] = [
    "users",
    "groups",
    "memberships",
    "fingerprints",
    "changes",
    "changes_base",
    "holds",
    "rejects",
    // Whoever is in the other tables of a list is in this one.
    "identity_maps",
];

/// The state of an instance that is configured (again), by what is known of it.
fn state_when_linked() -> String {
    format!(
        "CASE WHEN EXISTS (SELECT 1 FROM holds WHERE instance = name AND {ANOTHER_DIRECTORY}) THEN 'source_changed'
              WHEN consecutive_failures > 0 THEN 'failing'
              WHEN last_success_at IS NULL THEN 'new'
              ELSE 'healthy' END"
    )
}

impl Writer<'_> {
    /// Brings `instances` and `sources` up to the configuration: new ones are added with their origin
    /// pinned, known ones keep their pins, those no longer configured become `unlinked`.
    ///
    /// # Errors
    /// Of the database.
    pub fn link(&self, configured: &[Pin]) -> Result<(), Error> {
        for pin in configured {
            let name = pin.instance.as_str();
            self.conn.execute(
                "INSERT OR IGNORE INTO instances (name, url, state) VALUES (?1, ?2, 'new')",
                [name, &pin.url],
            )?;
            self.conn.execute(
                "INSERT OR IGNORE INTO pins (instance, scim_path) VALUES (?1, ?2)",
                [name, &pin.scim_path],
            )?;
            self.add_sources(&pin.instance, &pin.resources)?;
            self.leave_out_groups(pin)?;
            self.conn.execute(
                &format!(
                    "UPDATE instances SET state = {} WHERE name = ?1 AND state = 'unlinked'",
                    state_when_linked()
                ),
                [name],
            )?;
        }
        let mut known = self
            .conn
            .prepare("SELECT name FROM instances WHERE state <> 'unlinked'")?;
        let known: Vec<String> = known
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for name in known {
            if !configured.iter().any(|pin| pin.instance.as_str() == name) {
                self.conn.execute(
                    "UPDATE instances SET state = 'unlinked' WHERE name = ?1",
                    [name],
                )?;
            }
        }
        Ok(())
    }

    /// Confirms a changed origin (`musterd relink`): pins the new one. What was probed of the old one is forgotten, and so
    /// is the time it asked to be left alone until.
    ///
    /// # Errors
    /// When the instance is not in the mirror.
    pub fn relink(&self, pin: &Pin) -> Result<(), Error> {
        let name = pin.instance.as_str();
        let known = self.conn.execute(
            "UPDATE instances SET url = ?2, not_before = NULL WHERE name = ?1",
            [name, &pin.url],
        )?;
        known_instance(known, &pin.instance)?;
        self.conn.execute(
            "INSERT INTO pins (instance, scim_path) VALUES (?1, ?2)
             ON CONFLICT (instance) DO UPDATE SET scim_path = excluded.scim_path",
            [name, &pin.scim_path],
        )?;
        self.conn.execute(
            "UPDATE sources SET capabilities = NULL WHERE instance = ?1",
            [name],
        )?;
        Ok(())
    }

    /// Moves an instance's rows to a new name (`musterd rename`), in every table and without records, and gives the feed
    /// a new epoch. The pins move along: where the configuration has another origin under the new name, that still
    /// takes a `relink`.
    ///
    /// # Errors
    /// When OLD is not in the mirror or NEW already has rows.
    pub fn rename(&self, old: &InstanceName, new: &Pin, epoch: &str) -> Result<(), Error> {
        let (from, to) = (old.as_str(), new.instance.as_str());
        let is_known = self
            .conn
            .prepare("SELECT 1 FROM instances WHERE name = ?1")?
            .exists([from])?;
        known_instance(usize::from(is_known), old)?;
        if from == to || self.has_content(to)? {
            return Err(Error::NameTaken(new.instance.clone()));
        }
        // NEW stands in the configuration: a start may have linked it already, with nothing in it but failed syncs.
        self.conn
            .execute("DELETE FROM instances WHERE name = ?1", [to])?;
        for table in ["pins", "sources", "source_counts"] {
            self.conn
                .execute(&format!("DELETE FROM {table} WHERE instance = ?1"), [to])?;
        }
        seal::drop_instance(self.conn, from)?;
        for table in TABLES {
            self.conn.execute(
                &format!("UPDATE {table} SET instance = ?2 WHERE instance = ?1"),
                [from, to],
            )?;
        }
        self.conn
            .execute("UPDATE instances SET name = ?2 WHERE name = ?1", [from, to])?;
        self.conn.execute(
            &format!(
                "UPDATE instances SET state = {} WHERE name = ?1 AND state = 'unlinked'",
                state_when_linked()
            ),
            [to],
        )?;
        self.add_sources(&new.instance, &new.resources)?;
        self.conn.execute("UPDATE feed SET epoch = ?1", [epoch])?;
        Ok(())
    }

    fn add_sources(
        &self,
        instance: &InstanceName,
        resources: &[ResourceType],
    ) -> Result<(), Error> {
        for resource in resources {
            if *resource == ResourceType::Group {
                self.conn.execute(
                    "INSERT OR IGNORE INTO source_counts (instance, resource) VALUES (?1, ?2)",
                    [instance.as_str(), ResourceType::Membership.as_str()],
                )?;
            }
            let source = params![instance.as_str(), resource.as_str()];
            for table in ["sources", "source_counts"] {
                self.conn.execute(
                    &format!("INSERT OR IGNORE INTO {table} (instance, resource) VALUES (?1, ?2)"),
                    source,
                )?;
            }
        }
        Ok(())
    }

    /// Keeps whether the configuration has ceased to name the groups of an instance, or names them again.
    fn leave_out_groups(&self, pin: &Pin) -> Result<(), Error> {
        let groups = ResourceType::Group;
        let known: Option<Option<Capabilities>> = self
            .conn
            .prepare_cached(
                "SELECT capabilities FROM sources WHERE instance = ?1 AND resource = ?2",
            )?
            .query_row([pin.instance.as_str(), groups.as_str()], |row| json(row, 0))
            .optional()?;
        let Some(known) = known else {
            return Ok(());
        };
        let known = known.unwrap_or_default();
        let left_out = !pin.resources.contains(&groups);
        if known.left_out == left_out {
            return Ok(());
        }
        let known = Capabilities { left_out, ..known };
        self.set_capabilities(&pin.instance, groups, &known)
    }

    fn has_content(&self, instance: &str) -> Result<bool, Error> {
        for table in CONTENT {
            let mut rows = self
                .conn
                .prepare(&format!("SELECT 1 FROM {table} WHERE instance = ?1"))?;
            if rows.exists([instance])? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::syncs::SyncRow;
    use super::super::testing::{FULL, World, name, pin, sync_row, titled};
    use super::*;
    use crate::model::{Mode, Outcome};

    async fn link(world: &World, names: &[&str]) {
        let pins: Vec<Pin> = names.iter().map(|name| pin(name)).collect();
        let linked = world.mirror.write(move |writer| writer.link(&pins));
        linked.await.unwrap();
    }

    fn state(world: &World, name: &str) -> String {
        world.ask(&format!(
            "SELECT state FROM instances WHERE name = '{name}'"
        ))
    }

    #[tokio::test]
    async fn who_is_no_longer_configured_is_unlinked_and_comes_back_as_it_was() {
        let mut world = World::new().await;
        link(&world, &["acme", "globex"]).await;
        assert_eq!(world.reader().pins().unwrap(), [pin("acme"), pin("globex")]);
        world.sync(&[titled("a", "Agent")]).await;
        let active = "SELECT count(*) FROM active_users";
        assert_eq!(world.ask::<i64>(active), 1);

        link(&world, &["globex"]).await;
        assert_eq!(
            (&*state(&world, "acme"), &*state(&world, "globex")),
            ("unlinked", "new")
        );
        assert_eq!(world.ask::<i64>(active), 0);
        assert_eq!(
            world.ask::<i64>("SELECT count(*) FROM users WHERE active"),
            1
        );

        link(&world, &["acme", "globex"]).await;
        assert_eq!(
            (&*state(&world, "acme"), world.ask::<i64>(active)),
            ("healthy", 1)
        );
        let before = world.dump();
        link(&world, &["acme", "globex"]).await;
        assert_eq!(world.dump(), before);
    }

    #[tokio::test]
    async fn a_pin_changes_only_by_relink() {
        let world = World::new().await;
        let moved = Pin {
            url: "https://new.service-now.com".into(),
            scim_path: "/scim/v2".into(),
            ..pin("acme")
        };
        let pins = [moved.clone()];
        world
            .mirror
            .write(move |writer| writer.link(&pins))
            .await
            .unwrap();
        assert_eq!(world.reader().pins().unwrap(), [pin("acme")]);
        let confirmed = moved.clone();
        world
            .mirror
            .write(move |writer| writer.relink(&confirmed))
            .await
            .unwrap();
        assert_eq!(world.reader().pins().unwrap(), [moved]);
        let unknown = world
            .mirror
            .write(|writer| writer.relink(&pin("nobody")))
            .await;
        assert_eq!(
            unknown.unwrap_err().to_string(),
            "the mirror knows no instance `nobody`"
        );
    }

    #[tokio::test]
    async fn a_rename_moves_every_row_and_makes_no_record() {
        let mut world = World::new().await;
        world
            .sync(&[titled("a", "Agent"), titled("b", "Boss")])
            .await;
        world.sync(&[titled("a", "Chief")]).await;
        // Rows of the tables that nothing above fills.
        let fill = world.mirror.write(|writer| {
            writer.conn.execute_batch(
                "INSERT INTO holds (instance, sync_id, guard, count, limit_text, digest, state, opened_at)
                     VALUES ('acme', 1, 'deactivations', 0, '',
                             'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', 'resolved', '');
                 INSERT INTO rejects VALUES ('acme', 'User', 'k', 'r', '', '', '');
                 INSERT INTO changes_base SELECT * FROM changes WHERE seq = 1;
                 DELETE FROM changes WHERE seq = 1;
                 UPDATE feed SET first_seq = 2;",
            )?;
            Ok(())
        });
        fill.await.unwrap();
        // The new name was linked at a start, and could not be read.
        link(&world, &["acme_two"]).await;
        let now = world.now;
        let failed = world.mirror.write(move |writer| {
            let row = SyncRow {
                instance: name("acme_two"),
                outcome: Outcome::Failed,
                ..sync_row(writer.reserve_sync()?, Mode::Full, now)
            };
            writer.fail(&row, None)
        });
        failed.await.unwrap();
        let before = world.dump();

        let renamed = world
            .mirror
            .write(|writer| writer.rename(&name("acme"), &pin("acme_two"), "epoch two"));
        renamed.await.unwrap();
        let after = world.dump();
        for (table, rows) in &after {
            let text = format!("{rows:?}");
            assert!(!text.contains("\"acme\""), "{table}: {text}");
            let gone = if ["instances", "pins", "sources", "source_counts"].contains(&&**table) {
                1
            } else {
                0
            };
            assert_eq!(rows.len() + gone, before[table].len(), "{table}");
        }
        let feed = world.reader().feed().unwrap();
        assert_eq!((&*feed.epoch, feed.last_seq), ("epoch two", 4));
        assert_eq!(state(&world, "acme_two"), "healthy");
        assert_eq!(world.difference(), None);
        let pins = world.reader().pins().unwrap();
        assert_eq!(
            (&*pins[0].url, pins.len()),
            ("https://acme.service-now.com", 1)
        );
    }

    #[tokio::test]
    async fn a_name_with_a_directory_of_its_own_is_not_taken() {
        let mut world = World::new().await;
        link(&world, &["acme", "globex"]).await;
        world.sync(&[titled("a", "Agent")]).await;
        let mut stage = world.stage_of("globex", Mode::Full);
        world.page(&mut stage, &[titled("a", "Agent")]);
        world.apply(stage, FULL).await;
        for (old, new) in [("globex", "acme"), ("acme", "acme"), ("nobody", "fresh")] {
            let before = world.dump();
            let renamed = world
                .mirror
                .write(move |writer| writer.rename(&name(old), &pin(new), "e"));
            assert!(renamed.await.is_err(), "{old} {new}");
            assert_eq!(world.dump(), before);
        }
        // The same id in two instances is two users.
        assert_eq!(world.reader().users("globex", "a").unwrap().len(), 1);
        assert_eq!(world.difference(), None);
    }
}
