//! Finding groups in the mirror, and who is in them.

use jiff::Timestamp;
use rusqlite::{Params, Row, params};

use super::column::count;
use super::error::Error;
use super::read::Reader;
use super::users::UserRow;
use crate::model::time::our_text;

/// A row of `groups`, in the order of its columns: name and value.
pub type GroupRow = UserRow;

/// The columns of `groups`, in the table's order.
pub(super) const COLUMNS: [&str; 19] = [
    "instance",
    "id",
    "external_id",
    "display_name",
    "description",
    "email",
    "manager_id",
    "manager",
    "type",
    "active",
    "created_at",
    "modified_at",
    "attributes",
    "member_count",
    "members_known",
    "first_seen_at",
    "changed_at",
    "changed_seq",
    "gone_at",
];

/// Who is in a group: the membership's columns, and what is known of the member.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[expect(
    missing_docs,
    reason = "most names are the columns of `memberships` and `memberships_history`"
)]
pub struct MemberRow {
    pub instance: String,
    pub group_id: String,
    pub member_id: String,
    pub member_type: String,
    pub label: Option<String>,
    /// Of who is in it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen_at: Option<String>,
    /// Of who was in it at a moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<String>,
    /// What the member is called in the mirror; else the label.
    pub name: Option<String>,
    /// `active`, `inactive`, `gone`; `missing`, of whom the mirror knows no more than the id; `unknown` where that was trimmed.
    pub state: String,
}

const NAMED: &str = "
    instance = ?1 AND display_name = ?2 COLLATE NOCASE AND id <> ?2
    ORDER BY active DESC, id";

/// The groups that somebody is in directly.
const OF_MEMBER: &str = "
    FROM memberships
    CROSS JOIN groups ON groups.instance = memberships.instance AND groups.id = memberships.group_id
    WHERE memberships.instance = ?1 AND memberships.member_id = ?2 AND memberships.ended_at IS NULL
    ORDER BY groups.display_name COLLATE NOCASE, groups.id";

/// Who is in a group now.
const MEMBERS: &str = "
    SELECT it.instance, it.group_id, it.member_id, it.member_type, it.label, it.first_seen_at,
           coalesce(person.display_name, person.user_name, team.display_name, it.label) AS name,
           CASE
               WHEN person.id IS NULL AND team.id IS NULL THEN 'missing'
               WHEN coalesce(person.gone_at, team.gone_at) IS NOT NULL THEN 'gone'
               WHEN coalesce(person.active, team.active) THEN 'active'
               ELSE 'inactive'
           END AS state
    FROM memberships AS it
    LEFT JOIN users AS person ON it.member_type = 'User' AND person.instance = it.instance AND person.id = it.member_id
    LEFT JOIN groups AS team ON it.member_type = 'Group' AND team.instance = it.instance AND team.id = it.member_id
    WHERE it.instance = ?1 AND it.group_id = ?2 AND it.ended_at IS NULL
    ORDER BY it.member_type DESC, state <> 'active', name COLLATE NOCASE, it.member_id";

/// Who was in a group at a moment, and what they were then: name and state as a JSON array. A group that was gone has no row of its
/// own, but a record.
const MEMBERS_AS_OF: &str = "
    SELECT it.instance, it.group_id, it.member_id, it.member_type, it.label, it.valid_from,
           coalesce(json_extract(it.was, '$[0]'), it.label) AS name,
           coalesce(json_extract(it.was, '$[1]'), 'missing') AS state
    FROM (
        SELECT instance, group_id, member_id, member_type, label, valid_from,
               CASE member_type
               WHEN 'User' THEN
                   (SELECT json_array(coalesce(json_extract(attributes, '$.displayName'), json_extract(attributes, '$.userName')),
                                      CASE WHEN gone THEN 'gone' WHEN active THEN 'active' ELSE 'inactive' END)
                    FROM users_history AS person
                    WHERE person.instance = history.instance AND person.id = history.member_id
                      AND person.valid_from <= ?3 AND (person.valid_to IS NULL OR person.valid_to > ?3))
               ELSE
                   coalesce(
                       (SELECT json_array(display_name, CASE WHEN active THEN 'active' ELSE 'inactive' END)
                        FROM groups_history AS team
                        WHERE team.instance = history.instance AND team.id = history.member_id
                          AND team.valid_from <= ?3 AND (team.valid_to IS NULL OR team.valid_to > ?3)),
                       CASE WHEN coalesce(
                           (SELECT reason FROM changes AS past
                            WHERE past.instance = history.instance AND past.resource = 'Group' AND past.id = history.member_id
                              AND past.observed_at <= ?3
                            ORDER BY past.seq DESC LIMIT 1),
                           (SELECT reason FROM changes_base AS past
                            WHERE past.instance = history.instance AND past.resource = 'Group' AND past.id = history.member_id
                              AND past.observed_at <= ?3),
                           'unlinked') <> 'unlinked'
                       THEN json_array(NULL, 'gone') END)
               END AS was
        FROM memberships_history AS history
        WHERE instance = ?1 AND group_id = ?2 AND valid_from <= ?3 AND (valid_to IS NULL OR valid_to > ?3)
    ) AS it
    ORDER BY it.member_type DESC, state <> 'active', name COLLATE NOCASE, it.member_id";

impl Reader {
    /// Groups of an instance whose id or name is `key` (names without regard to case; an id only exactly), id matches first, then
    /// active ones.
    ///
    /// # Errors
    /// Of the database.
    pub fn groups(&self, instance: &str, key: &str) -> Result<Vec<GroupRow>, Error> {
        let mut groups = self.groups_where("instance = ?1 AND id = ?2", [instance, key])?;
        if key.is_ascii() {
            groups.extend(self.groups_where(NAMED, [instance, key])?);
        } else {
            // SQLite knows the case of ASCII letters only.
            for rowid in self.groups_named(instance, &key.to_lowercase())? {
                groups.extend(self.groups_where("rowid = ?1 AND id <> ?2", params![rowid, key])?);
            }
        }
        Ok(groups)
    }

    /// The groups that an instance shows, by name.
    ///
    /// # Errors
    /// Of the database.
    pub fn living_groups(&self, instance: &str) -> Result<Vec<GroupRow>, Error> {
        self.groups_where(
            "instance = ?1 AND gone_at IS NULL ORDER BY display_name COLLATE NOCASE, id",
            [instance],
        )
    }

    /// The groups that a member is in directly, by name.
    ///
    /// # Errors
    /// Of the database.
    pub fn groups_of(&self, instance: &str, member: &str) -> Result<Vec<GroupRow>, Error> {
        self.group_rows(OF_MEMBER, [instance, member])
    }

    /// How many groups that an instance shows may have more members than the mirror knows.
    ///
    /// # Errors
    /// Of the database.
    pub fn groups_known_in_part(&self, instance: &str) -> Result<u64, Error> {
        let n_groups = self
            .conn
            .prepare_cached(
                "SELECT count(*) FROM groups WHERE instance = ?1 AND members_known <> 'all' AND gone_at IS NULL",
            )?
            .query_row([instance], |row| count(row, 0))?;
        Ok(n_groups)
    }

    /// Who is in a group: people first, then groups, each with the active ones first, by name.
    ///
    /// # Errors
    /// Of the database.
    pub fn members(&self, instance: &str, group: &str) -> Result<Vec<MemberRow>, Error> {
        let mut statement = self.conn.prepare_cached(MEMBERS)?;
        let members = statement.query_map([instance, group], |row| {
            Ok(MemberRow {
                first_seen_at: row.get(5)?,
                ..member(row)?
            })
        })?;
        Ok(members.collect::<Result<_, _>>()?)
    }

    /// Who was in a group at a moment, as far as the feed tells, and what they were then.
    ///
    /// # Errors
    /// Of the database.
    pub fn members_as_of(
        &self,
        instance: &str,
        group: &str,
        moment: Timestamp,
    ) -> Result<Vec<MemberRow>, Error> {
        let reaches_back = self.trimmed_before(moment)?.is_none();
        let mut statement = self.conn.prepare_cached(MEMBERS_AS_OF)?;
        let members = statement.query_map([instance, group, &our_text(moment)], |row| {
            let mut member = MemberRow {
                valid_from: row.get(5)?,
                ..member(row)?
            };
            if member.state == "missing" && !reaches_back {
                member.state = "unknown".to_owned();
            }
            Ok(member)
        })?;
        Ok(members.collect::<Result<_, _>>()?)
    }

    pub(super) fn groups_where(
        &self,
        condition: &str,
        bound: impl Params,
    ) -> Result<Vec<GroupRow>, Error> {
        self.group_rows(&format!("FROM groups WHERE {condition}"), bound)
    }

    fn group_rows(&self, rest: &str, bound: impl Params) -> Result<Vec<GroupRow>, Error> {
        let columns = COLUMNS.map(|column| format!("groups.{column}")).join(", ");
        let mut statement = self
            .conn
            .prepare_cached(&format!("SELECT {columns} {rest}"))?;
        let rows = statement.query_map(bound, group)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The rows whose name in lower case is this one: reads all of an instance.
    fn groups_named(&self, instance: &str, lower: &str) -> Result<Vec<i64>, Error> {
        let mut statement = self.conn.prepare_cached(
            "SELECT rowid, display_name FROM groups WHERE instance = ?1 ORDER BY active DESC, id",
        )?;
        let mut rows = statement.query([instance])?;
        let mut named = Vec::new();
        while let Some(row) = rows.next()? {
            let name: Option<String> = row.get(1)?;
            if name.is_some_and(|name| name.to_lowercase() == lower) {
                named.push(row.get(0)?);
            }
        }
        Ok(named)
    }
}

fn group(row: &Row<'_>) -> rusqlite::Result<GroupRow> {
    COLUMNS
        .iter()
        .enumerate()
        .map(|(place, name)| Ok((*name, row.get(place)?)))
        .collect()
}

/// What both statements begin and end with.
fn member(row: &Row<'_>) -> rusqlite::Result<MemberRow> {
    Ok(MemberRow {
        instance: row.get(0)?,
        group_id: row.get(1)?,
        member_id: row.get(2)?,
        member_type: row.get(3)?,
        label: row.get(4)?,
        first_seen_at: None,
        valid_from: None,
        name: row.get(6)?,
        state: row.get(7)?,
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;
    use rusqlite::types::Value;

    use super::super::migrate;
    use super::super::testing::plan_of;
    use super::*;

    /// A mirror with groups (id, name, whether active, how far members are known) and who is in which.
    fn mirror(groups: &[(&str, &str, bool, &str)], members: &[(&str, &str, &str)]) -> Reader {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate::climb_to_newest(&mut conn).unwrap();
        for (id, name, active, known) in groups {
            conn.execute(
                "INSERT INTO groups (instance, id, display_name, active, attributes, members_known, first_seen_at, changed_at, changed_seq)
                 VALUES ('acme', ?1, ?2, ?3, '{}', ?4, 't', 't', 1)",
                params![id, name, active, known],
            )
            .unwrap();
        }
        for (group, member, kind) in members {
            conn.execute(
                "INSERT INTO memberships VALUES ('acme', ?1, ?2, ?3, 'Label of ' || ?2, 't', 1, NULL)",
                [group, member, kind],
            )
            .unwrap();
        }
        Reader { conn, place: None }
    }

    fn ids(groups: &[GroupRow]) -> Vec<String> {
        let id = |row: &GroupRow| match &row[1] {
            ("id", Value::Text(id)) => id.clone(),
            other => panic!("{other:?}"),
        };
        groups.iter().map(id).collect()
    }

    #[test]
    fn groups_are_found_by_id_and_name() {
        let groups = [
            ("a", "Desk", false, "all"),
            ("b", "DESK", true, "all"),
            ("desk", "Other", true, "all"),
            ("c", "Zoë", true, "all"),
        ];
        let reader = mirror(&groups, &[]);
        let found = |key: &str| ids(&reader.groups("acme", key).unwrap());
        // The id exactly, then active ones first.
        assert_eq!(found("desk"), ["desk", "b", "a"]);
        assert_eq!(found("Desk"), ["b", "a"]);
        assert_eq!(found("ZOË"), ["c"]);
        assert_eq!(found("A"), Vec::<String>::new());
        assert!(reader.groups("globex", "a").unwrap().is_empty());
    }

    #[test]
    fn a_member_is_what_the_mirror_knows_of_it() {
        let groups = [("g", "Desk", true, "all"), ("n", "Nested", true, "cut")];
        let members = [
            ("g", "u1", "User"),
            ("g", "u2", "User"),
            ("g", "u3", "User"),
            ("g", "u9", "User"),
            ("g", "n", "Group"),
            ("g", "g", "Group"),
            ("n", "u1", "User"),
        ];
        let reader = mirror(&groups, &members);
        reader
            .conn
            .execute_batch(
                "INSERT INTO users (instance, id, user_name, active, attributes, first_seen_at, changed_at, changed_seq, gone_at)
                 VALUES ('acme', 'u1', 'ada', 1, '{}', 't', 't', 1, NULL),
                        ('acme', 'u2', 'alan', 0, '{}', 't', 't', 1, NULL),
                        ('acme', 'u3', 'grace', 0, '{}', 't', 't', 1, 't'),
                        ('globex', 'u9', 'other', 1, '{}', 't', 't', 1, NULL);
                 UPDATE memberships SET ended_at = 't' WHERE group_id = 'g' AND member_id = 'g'",
            )
            .unwrap();
        let members = reader.members("acme", "g").unwrap();
        let told: Vec<[&str; 3]> = members
            .iter()
            .map(|member| {
                [
                    &*member.member_id,
                    member.name.as_deref().unwrap(),
                    &*member.state,
                ]
            })
            .collect();
        assert_eq!(
            told,
            [
                ["u1", "ada", "active"],
                ["u2", "alan", "inactive"],
                ["u3", "grace", "gone"],
                ["u9", "Label of u9", "missing"],
                ["n", "Nested", "active"],
            ]
        );
        assert_eq!(ids(&reader.groups_of("acme", "u1").unwrap()), ["g", "n"]);
        assert!(reader.groups_of("acme", "g").unwrap().is_empty());
        assert_eq!(reader.groups_known_in_part("acme").unwrap(), 1);
        reader
            .conn
            .execute("UPDATE groups SET gone_at = 't' WHERE id = 'n'", [])
            .unwrap();
        assert_eq!(ids(&reader.living_groups("acme").unwrap()), ["g"]);
        assert_eq!(reader.groups_known_in_part("acme").unwrap(), 0);
    }

    #[test]
    fn the_columns_are_the_tables_and_nothing_is_scanned_for_one_group_or_member() {
        let reader = mirror(&[], &[]);
        let columns: String = reader
            .conn
            .query_row(
                "SELECT group_concat(name) FROM pragma_table_info('groups')",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(columns, COLUMNS.join(","));
        let named = format!("SELECT 1 FROM groups WHERE {NAMED}");
        let of_member = format!("SELECT 1 {OF_MEMBER}");
        for sql in [&named, &of_member, MEMBERS, MEMBERS_AS_OF] {
            let plan = plan_of(&reader.conn, sql);
            for table in [
                "changes",
                "changes_base",
                "memberships",
                "groups",
                "users",
                "person",
                "team",
            ] {
                let steps = plan.split("; ");
                let reads_all = |step: &str| {
                    step.trim() == format!("SCAN {table}")
                        || step.starts_with(&format!("SCAN {table} "))
                };
                assert_eq!(steps.filter(|step| reads_all(step)).count(), 0, "{plan}");
            }
            assert!(!plan.contains("AUTOMATIC"), "{plan}");
        }
        assert!(plan_of(&reader.conn, &named).contains("groups_by_name"));
        assert!(
            plan_of(&reader.conn, &of_member)
                .contains("memberships_by_member (instance=? AND member_id=?")
        );
    }
}
