//! Who is above a user: the view `manager_chain`, and the first who may approve.

use rusqlite::Row;

use super::column::count;
use super::error::Error;
use super::read::Reader;

/// The managers above a user.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Chain {
    /// The direct manager first, and no more rows than were asked for.
    pub chain: Vec<ChainRow>,
    /// The first living manager, however far above, unless the instance is not linked any more.
    pub approver: Option<ChainRow>,
    /// The rows of the whole chain.
    #[serde(skip)]
    pub n_levels: u64,
    /// Whether a manager above lives, but nobody of the instance is in `active_users`.
    #[serde(skip)]
    pub unlinked: bool,
}

/// A row of `manager_chain`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[expect(missing_docs, reason = "the names are the columns of `manager_chain`")]
pub struct ChainRow {
    pub instance: String,
    pub id: String,
    pub depth: u64,
    pub manager_id: String,
    pub manager: Option<String>,
    pub email: Option<String>,
    pub title: Option<String>,
    pub active: Option<bool>,
    pub state: String,
}

/// The chain of one user, and of each row whether the manager may be given work.
const CHAIN: &str = "
    SELECT instance, id, depth, manager_id, manager, email, title, active, state,
           EXISTS (SELECT 1 FROM active_users AS living
                   WHERE living.instance = chain.instance AND living.id = chain.manager_id)
    FROM manager_chain AS chain
    WHERE instance = ?1 AND id = ?2
    ORDER BY depth";

impl Reader {
    /// The managers above the user of this id, at most `levels` of them, and the approver among all.
    ///
    /// # Errors
    /// Of the database.
    pub fn chain(&self, instance: &str, id: &str, levels: u64) -> Result<Chain, Error> {
        let mut chain = Chain {
            chain: Vec::new(),
            approver: None,
            n_levels: 0,
            unlinked: false,
        };
        let mut statement = self.conn.prepare_cached(CHAIN)?;
        let mut rows = statement.query([instance, id])?;
        while let Some(row) = rows.next()? {
            let (above, may_approve) = (chain_row(row)?, row.get(9)?);
            // Who closes a cycle was met before, or is the user.
            if above.state == "ok" && chain.approver.is_none() {
                match may_approve {
                    true => chain.approver = Some(above.clone()),
                    false => chain.unlinked = true,
                }
            }
            chain.n_levels = above.depth;
            if above.depth <= levels {
                chain.chain.push(above);
            }
        }
        Ok(chain)
    }
}

fn chain_row(row: &Row<'_>) -> rusqlite::Result<ChainRow> {
    Ok(ChainRow {
        instance: row.get(0)?,
        id: row.get(1)?,
        depth: count(row, 2)?,
        manager_id: row.get(3)?,
        manager: row.get(4)?,
        email: row.get(5)?,
        title: row.get(6)?,
        active: row.get(7)?,
        state: row.get(8)?,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rusqlite::{Connection, StatementStatus};

    use super::super::testing::plan_of;
    use super::super::{Reader, migrate};
    use super::*;

    /// Whom a user has for a manager, and whether they are active or gone.
    #[derive(Clone, Debug)]
    struct Person {
        manager: Option<String>,
        active: bool,
        gone: bool,
    }

    type Forest = BTreeMap<String, Person>;

    /// People by number, whoever they are: each has the manager of a number, or nobody.
    fn forest(managers: impl IntoIterator<Item = Option<usize>>) -> Forest {
        managers
            .into_iter()
            .enumerate()
            .map(|(n, manager)| {
                let person = Person {
                    manager: manager.map(id),
                    active: true,
                    gone: false,
                };
                (id(n), person)
            })
            .collect()
    }

    /// Ids that differ in case are two ids.
    fn id(n: usize) -> String {
        let name = format!("u{}", n / 2);
        if n.is_multiple_of(2) {
            name
        } else {
            name.to_uppercase()
        }
    }

    fn mirror(forests: &[(&str, &Forest)]) -> Reader {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate::climb_to_newest(&mut conn).unwrap();
        for (instance, forest) in forests {
            conn.execute(
                "INSERT INTO instances (name, url, state) VALUES (?1, 'https://x', 'healthy')",
                [instance],
            )
            .unwrap();
            let mut insert = conn
                .prepare(
                    "INSERT INTO users (instance, id, active, display_name, manager_id, manager, attributes,
                                        first_seen_at, changed_at, changed_seq, gone_at)
                     VALUES (?1, ?2, ?3, 'Name of ' || ?2, ?4, 'Label of ' || ?4, '{}', 't', 't', 1, ?5)",
                )
                .unwrap();
            for (id, person) in *forest {
                let gone = person.gone.then_some("t");
                insert
                    .execute((instance, id, person.active, &person.manager, gone))
                    .unwrap();
            }
        }
        Reader { conn, place: None }
    }

    /// The chain, step by step and with everybody who was met in mind.
    fn walked(instance: &str, forest: &Forest, id: &str) -> Vec<ChainRow> {
        let mut rows: Vec<ChainRow> = Vec::new();
        let mut met = vec![id];
        let mut below = id;
        while let Some(manager) = forest
            .get(below)
            .and_then(|person| person.manager.as_deref())
        {
            let found = forest.get(manager);
            let state = match found {
                None => "missing",
                Some(_) if manager == below => "self",
                Some(_) if met.contains(&manager) => "cycle",
                Some(person) if !person.active || person.gone => "inactive",
                Some(_) => "ok",
            };
            let name = if found.is_some() { "Name" } else { "Label" };
            rows.push(ChainRow {
                instance: instance.to_owned(),
                id: id.to_owned(),
                depth: rows.len() as u64 + 1,
                manager_id: manager.to_owned(),
                manager: Some(format!("{name} of {manager}")),
                email: None,
                title: None,
                active: found.map(|person| person.active),
                state: state.to_owned(),
            });
            if matches!(state, "missing" | "self" | "cycle") {
                break;
            }
            met.push(manager);
            below = manager;
        }
        rows
    }

    fn states(chain: &Chain) -> Vec<&str> {
        chain.chain.iter().map(|row| &*row.state).collect()
    }

    fn sizes(reader: &Reader, condition: &str) -> Vec<(String, u64)> {
        let sql = format!("SELECT id, size FROM org_size WHERE {condition} ORDER BY id");
        let mut sizes = reader.conn.prepare(&sql).unwrap();
        let sizes = sizes.query_map([], |row| Ok((row.get(0)?, count(row, 1)?)));
        sizes.unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn forests() -> impl Strategy<Value = Forest> {
        (1..12_usize).prop_flat_map(|n_people| {
            // Some managers are not there.
            let manager = prop::option::weighted(0.85, 0..=n_people);
            let person = (
                manager,
                prop::bool::weighted(0.7),
                prop::bool::weighted(0.2),
            );
            prop::collection::vec(person, n_people).prop_map(|people| {
                let mut forest = forest(people.iter().map(|(manager, ..)| *manager));
                for (place, (_, active, gone)) in people.into_iter().enumerate() {
                    let person = forest.get_mut(&id(place)).unwrap();
                    (person.active, person.gone) = (active, gone);
                }
                forest
            })
        })
    }

    proptest! {
        #[test]
        fn the_views_are_what_a_walk_step_by_step_finds(acme in forests(), globex in forests()) {
            let both = [("acme", &acme), ("globex", &globex)];
            let reader = mirror(&both);
            for (instance, forest) in both {
                let chains: BTreeMap<&String, Vec<ChainRow>> =
                    forest.keys().map(|id| (id, walked(instance, forest, id))).collect();
                for (id, expected) in &chains {
                    let found = reader.chain(instance, id, u64::MAX).unwrap();
                    prop_assert_eq!(&found.chain, expected);
                    prop_assert_eq!(found.n_levels, expected.len() as u64);
                    let approver = expected.iter().find(|row| row.state == "ok");
                    prop_assert_eq!(found.approver.as_ref(), approver);
                    prop_assert!(!found.unlinked);
                }
                let expected: Vec<(String, u64)> = chains
                    .keys()
                    .map(|id| {
                        let is_above = |(below, rows): &(&&String, &Vec<ChainRow>)| {
                            *below != id && rows.iter().any(|row| row.manager_id == **id)
                        };
                        ((*id).clone(), chains.iter().filter(is_above).count() as u64)
                    })
                    .collect();
                prop_assert_eq!(sizes(&reader, &format!("instance = '{instance}'")), expected);
            }
            // Of everybody at once they say the same.
            let n_rows = reader
                .conn
                .query_row("SELECT count(*) FROM manager_chain", [], |row| count(row, 0))
                .unwrap();
            let n_each: usize = both
                .iter()
                .flat_map(|(instance, forest)| forest.keys().map(|id| walked(instance, forest, id).len()))
                .sum();
            prop_assert_eq!(n_rows, n_each as u64);
        }
    }

    #[test]
    fn what_ends_a_chain_is_named_and_comes_last() {
        // 0 and 1 have each other, 2 is below them, 3 is below nobody known, 4 is their own manager, above 5.
        let acme = forest([Some(1), Some(0), Some(1), Some(9), Some(4), Some(4), None]);
        let reader = mirror(&[("acme", &acme)]);
        let chain = |n| reader.chain("acme", &id(n), 10).unwrap();
        for (n, expected) in [
            (0, &["ok", "cycle"][..]),
            (2, &["ok", "ok", "cycle"]),
            (3, &["missing"]),
            (4, &["self"]),
            (5, &["ok", "self"]),
            (6, &[]),
        ] {
            assert_eq!(states(&chain(n)), expected, "{n}");
        }
        let missing = &chain(3).chain[0];
        assert_eq!(missing.manager.as_deref(), Some("Label of U4"));
        assert_eq!(missing.active, None);
        assert!(chain(4).approver.is_none());
        assert_eq!(sizes(&reader, "id = 'u0'"), [("u0".to_owned(), 2)]);
        let reports: String = reader
            .conn
            .query_row(
                "SELECT group_concat(id) FROM direct_reports WHERE instance = 'acme' AND manager_id = 'U0'",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(reports, "u0,u1");
    }

    #[test]
    fn the_approver_is_the_first_who_lives_however_few_levels_are_shown() {
        let mut acme = forest([Some(1), Some(2), Some(3), Some(4), None]);
        acme.get_mut(&id(1)).unwrap().active = false;
        acme.get_mut(&id(2)).unwrap().gone = true;
        let reader = mirror(&[("acme", &acme)]);
        let chain = reader.chain("acme", &id(0), 1).unwrap();
        assert_eq!(states(&chain), ["inactive"]);
        assert_eq!((chain.n_levels, chain.unlinked), (4, false));
        let approver = chain.approver.unwrap();
        assert_eq!((approver.depth, approver.manager_id), (3, id(3)));

        // As `active_users` has it, nobody of an instance that is not linked may be given work.
        reader
            .conn
            .execute("UPDATE instances SET state = 'unlinked'", [])
            .unwrap();
        let chain = reader.chain("acme", &id(0), 4).unwrap();
        assert_eq!(states(&chain), ["inactive", "inactive", "ok", "ok"]);
        assert!(chain.approver.is_none() && chain.unlinked);
    }

    /// What SQLite does for it is counted, since time depends on the machine.
    fn n_steps(reader: &Reader, sql: &str) -> i32 {
        let mut statement = reader.conn.prepare(sql).unwrap();
        let mut rows = statement.raw_query();
        while rows.next().unwrap().is_some() {}
        drop(rows);
        statement.get_status(StatementStatus::VmStep)
    }

    #[test]
    fn a_chain_of_thousands_takes_a_step_a_person_also_in_a_cycle() {
        const ABOVE: &str = "SELECT * FROM manager_chain WHERE instance = 'acme' AND id = 'u0'";
        const BELOW: &str = "SELECT * FROM org_size WHERE instance = 'acme' AND id = 'u0'";
        for is_cycle in [false, true] {
            let [few, many] = [500_usize, 5_000].map(|n| {
                let next = |person| (is_cycle || person + 1 < n).then_some((person + 1) % n);
                let acme = forest((0..n).map(next));
                let reader = mirror(&[("acme", &acme)]);
                let chain = reader.chain("acme", "u0", u64::MAX).unwrap();
                assert_eq!(chain.n_levels, n as u64 - u64::from(!is_cycle));
                let n_below = if is_cycle { n as u64 - 1 } else { 0 };
                assert_eq!(sizes(&reader, "id = 'u0'"), [("u0".to_owned(), n_below)]);
                [ABOVE, BELOW].map(|sql| n_steps(&reader, sql))
            });
            assert!(many[0] < few[0] * 11, "{few:?} {many:?}");
            assert!(many[1] < few[1] * 11, "{few:?} {many:?}");
        }
    }

    #[test]
    fn of_one_user_nobody_else_is_looked_at_and_below_a_manager_only_the_index() {
        let acme = forest((0..2_000).map(|n: usize| n.checked_sub(1).map(|n| n / 3)));
        let reader = mirror(&[("acme", &acme)]);
        let conn = &reader.conn;
        for view in ["manager_chain", "org_size"] {
            let sql = format!("SELECT * FROM {view} WHERE instance = 'acme' AND id = 'u900'");
            let plan = plan_of(conn, &sql);
            assert!(!plan.contains("SCAN users"), "{view}: {plan}");
            for alias in ["start", "head", "boss", "below USING INDEX", "report"] {
                assert!(!plan.contains(&format!("SCAN {alias}")), "{view}: {plan}");
            }
            let n_steps = n_steps(&reader, &sql);
            assert!(n_steps < 2_000, "{view}: {n_steps}");
        }
        for sql in [
            "SELECT id FROM direct_reports WHERE instance = 'acme' AND manager_id = 'u1'",
            "SELECT * FROM org_size WHERE instance = 'acme' AND id = 'u1'",
        ] {
            let plan = plan_of(conn, sql);
            let by_manager = "USING COVERING INDEX users_by_manager (instance=? AND manager_id=?)";
            assert!(plan.contains(by_manager), "{plan}");
        }
    }
}
