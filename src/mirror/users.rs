//! Finding users in the mirror.

use rusqlite::types::Value;
use rusqlite::{Params, Row, params};

use super::error::Error;
use super::read::Reader;

/// A row of `users`, in the order of its columns: name and value.
pub type UserRow = Vec<(&'static str, Value)>;

/// The columns of `users`, in the table's order.
pub(super) const COLUMNS: [&str; 34] = [
    "instance",
    "id",
    "external_id",
    "user_name",
    "active",
    "display_name",
    "given_name",
    "family_name",
    "email",
    "title",
    "department_id",
    "department",
    "manager_id",
    "manager",
    "cost_center_id",
    "cost_center",
    "company_id",
    "company",
    "location_id",
    "location",
    "employee_number",
    "user_type",
    "phone",
    "mobile_phone",
    "preferred_language",
    "locale",
    "timezone",
    "created_at",
    "modified_at",
    "attributes",
    "first_seen_at",
    "changed_at",
    "changed_seq",
    "gone_at",
];

/// By user name or email, whoever was not found by id. Two look-ups in indexes, where an OR would read the instance.
const NAMED: &str = "
    rowid IN (SELECT rowid FROM users WHERE instance = ?1 AND user_name = ?2 COLLATE NOCASE
              UNION
              SELECT rowid FROM users WHERE instance = ?1 AND email = ?2 COLLATE NOCASE)
    AND id <> ?2
    ORDER BY active DESC, id";

impl Reader {
    /// Users of an instance whose id, user name or email is `key` (names and addresses without
    /// regard to case; an id only exactly), id matches first, then active ones.
    ///
    /// # Errors
    /// Of the database.
    pub fn users(&self, instance: &str, key: &str) -> Result<Vec<UserRow>, Error> {
        let mut users = self.select("instance = ?1 AND id = ?2", [instance, key])?;
        if key.is_ascii() {
            users.extend(self.select(NAMED, [instance, key])?);
        } else {
            // SQLite knows the case of ASCII letters only.
            for rowid in self.named(instance, &key.to_lowercase())? {
                users.extend(self.select("rowid = ?1 AND id <> ?2", params![rowid, key])?);
            }
        }
        Ok(users)
    }

    pub(super) fn select(
        &self,
        condition: &str,
        bound: impl Params,
    ) -> Result<Vec<UserRow>, Error> {
        let mut statement = self.conn.prepare_cached(&format!(
            "SELECT {} FROM users WHERE {condition}",
            COLUMNS.join(", ")
        ))?;
        let rows = statement.query_map(bound, user)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The rows whose user name or email in lower case is this one: reads all of an instance.
    fn named(&self, instance: &str, lower: &str) -> Result<Vec<i64>, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT rowid, user_name, email FROM users WHERE instance = ?1 ORDER BY active DESC, id",
        )?;
        let mut rows = statement.query([instance])?;
        let mut named = Vec::new();
        while let Some(row) = rows.next()? {
            let names: [Option<String>; 2] = [row.get(1)?, row.get(2)?];
            if names
                .iter()
                .flatten()
                .any(|name| name.to_lowercase() == lower)
            {
                named.push(row.get(0)?);
            }
        }
        Ok(named)
    }
}

fn user(row: &Row<'_>) -> rusqlite::Result<UserRow> {
    COLUMNS
        .iter()
        .enumerate()
        .map(|(place, name)| Ok((*name, row.get(place)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, plan_of, user};
    use super::*;

    #[tokio::test]
    async fn users_are_found_by_id_name_and_address() {
        let mut world = World::new().await;
        let stamp = "2026-01-01T00:00:00Z";
        let mail = |mail: &str| format!(r#","emails":[{{"type":"work","value":"{mail}"}}]"#);
        world
            .sync(&[
                user("A.name", stamp, &mail("x@example.com")),
                user(
                    "a",
                    stamp,
                    &format!(r#"{},"active":false"#, mail("X@Example.com")),
                ),
                user("b", stamp, &mail("zoë@example.com")),
            ])
            .await;
        let reader = world.reader();
        let found = |key: &str| -> Vec<String> {
            let rows = reader.users("acme", key).unwrap();
            rows.iter()
                .map(|row| match &row[1] {
                    ("id", Value::Text(id)) => id.clone(),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        assert_eq!(found("A.name"), ["A.name", "a"]);
        assert_eq!(found("a.NAME"), ["a"]);
        assert_eq!(found("x@EXAMPLE.com"), ["A.name", "a"]);
        assert_eq!(found("ZOË@example.com"), ["b"]);
        assert_eq!(found("B"), Vec::<String>::new());
        assert_eq!(found(""), Vec::<String>::new());
        assert!(reader.users("globex", "a").unwrap().is_empty());
        assert_eq!(reader.users("acme", "b").unwrap()[0].len(), COLUMNS.len());
    }

    #[tokio::test]
    async fn the_columns_are_the_tables_and_a_name_is_found_by_index() {
        let world = World::new().await;
        let columns: String =
            world.ask("SELECT group_concat(name) FROM pragma_table_info('users')");
        assert_eq!(columns, COLUMNS.join(","));
        let plan = plan_of(
            &world.reader().conn,
            &format!("SELECT 1 FROM users WHERE {NAMED}"),
        );
        assert!(
            plan.contains("users_by_user_name (instance=? AND user_name=?)"),
            "{plan}"
        );
        assert!(
            plan.contains("users_by_email (instance=? AND email=?)"),
            "{plan}"
        );
        assert!(!plan.contains("SCAN users"), "{plan}");
    }
}
