//! Ids that are equal but for case: an instance whose database ignores case cannot be paged by key past them.

use super::error::Error;
use super::read::Reader;
use super::stage::Stage;
use super::table::of_table;
use crate::model::ResourceType;

fn with_capitals(resource: ResourceType) -> &'static str {
    of_table!(
        resource,
        "SELECT lower(id), id FROM ",
        " WHERE instance = ?1 AND id <> lower(id)"
    )
}

impl Stage {
    /// Whether two ids were staged or known that are equal but for ASCII case.
    ///
    /// Only ids with a capital in them can have a twin, and `sys_id`s have none: as a rule this is one look into an index that is
    /// empty.
    ///
    /// # Errors
    /// Of the databases.
    pub fn has_case_twins(&self, reader: &Reader) -> Result<bool, Error> {
        self.conn.execute_batch(
            "CREATE TABLE capitals (lower TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (lower, id)) WITHOUT ROWID;
             INSERT INTO capitals
                 SELECT lower(id), id FROM staged WHERE id <> lower(id)
                 UNION SELECT lower(id), id FROM ids WHERE id <> lower(id);",
        )?;
        let instance = self.key.instance.as_str();
        let mut known = reader
            .conn
            .prepare_cached(with_capitals(self.key.resource))?;
        let mut rows = known.query([instance])?;
        let mut add = self
            .conn
            .prepare("INSERT OR IGNORE INTO capitals (lower, id) VALUES (?1, ?2)")?;
        while let Some(row) = rows.next()? {
            add.execute([row.get::<_, String>(0)?, row.get(1)?])?;
        }
        drop(add);
        let twins = self.two_capitals()? || self.capital_and_small(reader)?;
        self.conn.execute_batch("DROP TABLE capitals")?;
        Ok(twins)
    }

    /// `Ab` and `aB`.
    fn two_capitals(&self) -> Result<bool, Error> {
        Ok(self
            .conn
            .prepare("SELECT 1 FROM capitals GROUP BY lower HAVING count(*) > 1")?
            .exists([])?)
    }

    /// `Ab` and `ab`.
    fn capital_and_small(&self, reader: &Reader) -> Result<bool, Error> {
        let staged = self
            .conn
            .prepare(
                "SELECT 1 FROM capitals
                 WHERE lower IN (SELECT id FROM staged) OR lower IN (SELECT id FROM ids)",
            )?
            .exists([])?;
        if staged {
            return Ok(true);
        }
        let mut known = reader.conn.prepare_cached(of_table!(
            self.key.resource,
            "SELECT 1 FROM ",
            " WHERE instance = ?1 AND id = ?2"
        ))?;
        let mut capitals = self.conn.prepare("SELECT lower FROM capitals")?;
        let mut rows = capitals.query([])?;
        while let Some(row) = rows.next()? {
            let lower: String = row.get(0)?;
            if known.exists([self.key.instance.as_str(), &lower])? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, plan_of, titled};
    use super::*;
    use crate::model::Mode;

    #[tokio::test]
    async fn ids_without_capitals_are_not_looked_at() {
        let world = World::new().await;
        for resource in [ResourceType::User, ResourceType::Group] {
            let plan = plan_of(&world.reader().conn, with_capitals(resource));
            let index = "COVERING INDEX users_with_capitals (instance=?)";
            let index = index.replace("users", super::super::table::name(resource));
            assert!(plan.contains(&index), "{plan}");
        }
    }

    #[tokio::test]
    async fn ids_that_differ_in_case_are_found_wherever_they_are() {
        let mut world = World::new().await;
        world
            .sync(&[titled("ab", "x"), titled("CD", "x"), titled("é", "x")])
            .await;
        for (seen, expected) in [
            (vec!["b", "c", "É"], false),
            (vec!["Z", "Y"], false),
            (vec!["Ab"], true),
            (vec!["cd"], true),
            (vec!["Cd"], true),
            (vec!["xY", "Xy"], true),
            (vec!["xy", "Xy"], true),
            (vec![], false),
        ] {
            let mut stage = world.stage(Mode::Full);
            for id in &seen {
                world.page(&mut stage, &[titled(id, "x")]);
            }
            assert_eq!(
                stage.has_case_twins(&world.reader()).unwrap(),
                expected,
                "{seen:?}"
            );
            assert_eq!(
                stage.has_case_twins(&world.reader()).unwrap(),
                expected,
                "{seen:?}"
            );
        }
    }
}
