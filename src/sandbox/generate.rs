//! A seeded organisation: companies, places, departments, a tree of managers, leavers, accounts of
//! machines, and the odd records that every old directory has (facts page, sections 15 and 17).

mod groups;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::column::Column;
use super::directory::Directory;
use super::row::{Named, User, Values, whole_seconds};
use super::table::Table;
use super::words;

pub(super) use groups::{GroupOptions, group_rng, new_group_name};

/// How many people one manager has.
const SPAN: usize = 8;
/// One of so many has left.
const ONE_IN_LEAVERS: usize = 12;
/// One of so many is the account of a machine.
const ONE_IN_MACHINES: usize = 60;
/// From so many users on there are odd records, one of each kind for each so many.
const ONE_IN_ODD: usize = 200;
/// The smallest directory with odd records.
const ODD_FROM: usize = 40;
/// So many users carry one odd record of each kind, ids apart.
const ODD_EACH: usize = 17;

/// The rows of a new directory.
#[derive(Debug)]
pub(super) struct Organisation {
    /// Users, in the order in which they were hired: a manager comes before who reports to him.
    pub users: Vec<User>,
    /// Companies, cost centres, departments and locations.
    pub names: BTreeMap<Table, Vec<Named>>,
}

impl Organisation {
    /// The tables of this organisation, with groups of its people. They are drawn from a generator of their
    /// own, so that the people of a seed are the same with other groups and without any.
    #[must_use]
    pub(super) fn into_directory(
        self,
        options: &GroupOptions,
        seed: u64,
        now: Timestamp,
    ) -> Directory {
        let drawn = groups::draw(&self, options, now, &mut group_rng(seed));
        Directory::new(self.users, self.names).with_groups(drawn.groups, drawn.members)
    }
}

/// Makes an organisation of `n_users`, whose stamps all lie before `now`.
#[must_use]
pub(super) fn organisation(
    n_users: usize,
    odd: bool,
    now: Timestamp,
    rng: &mut fastrand::Rng,
) -> Organisation {
    let names = names(n_users, now, rng);
    let mut users: Vec<User> = Vec::with_capacity(n_users);
    for number in 0..n_users {
        let manager = (number > 0).then(|| (number - 1) / SPAN);
        let user = person(number, manager.map(|place| &users[place]), &names, now, rng);
        users.push(user);
    }
    if odd && n_users >= ODD_FROM {
        make_odd(&mut users, n_users.div_ceil(ONE_IN_ODD), rng);
    }
    Organisation { users, names }
}

/// Somebody who joins: a name, a title and an address that fit the organisation.
///
/// `draw` draws the `sys_id` of a row of a table of names.
pub(super) fn newcomer(
    number: usize,
    manager: Option<&User>,
    draw: &dyn Fn(Table, &mut fastrand::Rng) -> Option<String>,
    rng: &mut fastrand::Rng,
) -> Values {
    let first = pick(words::FIRST_NAMES, rng);
    let last = pick(words::LAST_NAMES, rng);
    let user_name = format!("{}.{}{number}", ascii(first), ascii(last));
    let (city, country, zone, language) = pick(words::CITIES, rng);
    let title = format!("{}{}", pick(words::RANKS, rng), pick(words::JOBS, rng));
    let mut values = Values::new()
        .active(true)
        .with(Column::FirstName, first)
        .with(Column::LastName, last)
        .with(Column::Email, format!("{user_name}@example.org"))
        .with(Column::UserName, user_name)
        .with(Column::Title, title)
        .with(Column::PreferredLanguage, language)
        .with(Column::TimeZone, zone)
        .with(Column::City, city)
        .with(Column::Country, country)
        .with(
            Column::Phone,
            format!("+47 555 {:02} {:02}", number / 100 % 100, number % 100),
        )
        .with(Column::EmployeeNumber, format!("E-{:05}", 10_000 + number))
        .with(
            Column::UserType,
            if rng.u8(..10) == 0 {
                "Contractor"
            } else {
                "Employee"
            },
        );
    if rng.bool() {
        let mobile = format!("+47 9{:07}", rng.u32(..10_000_000));
        values = values.with(Column::MobilePhone, mobile);
    }
    if rng.u8(..5) == 0 {
        values = values
            .with(Column::MiddleName, pick(words::FIRST_NAMES, rng))
            .with(
                Column::Street,
                format!("{} {}", pick(words::LAST_NAMES, rng), rng.u8(1..)),
            )
            .with(Column::Zip, format!("{:04}", rng.u16(..10_000)));
    }
    if rng.u8(..4) == 0 {
        values = values.with(Column::ExternalId, format!("hr-{number}"));
    }
    for (table, column) in [
        (Table::Company, Column::Company),
        (Table::CostCenter, Column::CostCenter),
        (Table::Department, Column::Department),
        (Table::Location, Column::Location),
    ] {
        // Who reports to somebody mostly works where he works.
        let inherited = manager
            .map(|manager| manager.get(column).to_owned())
            .filter(|id| !id.is_empty() && rng.u8(..8) > 0);
        let id = inherited.or_else(|| draw(table, rng));
        values = values.with(column, id.unwrap_or_default());
    }
    if let Some(manager) = manager {
        values = values.with(Column::Manager, &*manager.sys_id);
    }
    values
}

/// 32 hexadecimal digits, as a `sys_id` is made.
pub(super) fn sys_id(rng: &mut fastrand::Rng) -> String {
    format!("{:032x}", rng.u128(..))
}

fn person(
    number: usize,
    manager: Option<&User>,
    names: &BTreeMap<Table, Vec<Named>>,
    now: Timestamp,
    rng: &mut fastrand::Rng,
) -> User {
    let mut user = User::new(&sys_id(rng), now);
    let values = if number % ONE_IN_MACHINES == ONE_IN_MACHINES - 1 {
        let name = format!("svc.{}{number}", pick(words::MACHINES, rng));
        Values::new().with(Column::UserName, name)
    } else {
        let draw = |table: Table, rng: &mut fastrand::Rng| {
            let row = rng.choice(names.get(&table)?)?;
            Some(row.sys_id.to_string())
        };
        newcomer(number, manager, &draw, rng)
    };
    user.set(&values);
    user.active = number % ONE_IN_LEAVERS != ONE_IN_LEAVERS - 1;
    user.created = past(now, rng);
    let age = now.duration_since(user.created).as_secs().max(1);
    user.updated = user.created + SignedDuration::from_secs(rng.i64(0..age));
    user
}

fn names(n_users: usize, now: Timestamp, rng: &mut fastrand::Rng) -> BTreeMap<Table, Vec<Named>> {
    let companies = (n_users / 2_000).clamp(1, words::COMPANIES.len());
    let departments = (n_users / 40).clamp(4, words::DEPARTMENTS.len() * words::SITES.len());
    let mut tables = BTreeMap::new();
    let mut add = |table: Table, texts: Vec<String>, rng: &mut fastrand::Rng| {
        let rows = texts.into_iter().map(|name| {
            let created = past(now, rng);
            Named {
                sys_id: sys_id(rng).into(),
                name: name.into(),
                created,
                updated: created,
            }
        });
        tables.insert(table, rows.collect::<Vec<_>>());
    };
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    add(Table::Company, owned(&words::COMPANIES[..companies]), rng);
    let department = |place: usize| {
        let plain = words::DEPARTMENTS[place % words::DEPARTMENTS.len()];
        // Names repeat, as they do in directories of several companies (Q32).
        match place / words::DEPARTMENTS.len() {
            0 => plain.to_owned(),
            more => format!("{plain}{}", words::SITES[more]),
        }
    };
    add(
        Table::Department,
        (0..departments).map(department).collect(),
        rng,
    );
    let cost_center = |place: usize| format!("CC-{:04}", 1_000 + place * 10);
    add(
        Table::CostCenter,
        (0..departments).map(cost_center).collect(),
        rng,
    );
    let place = |(city, country, ..): &(&str, &str, &str, &str)| format!("{city}, {country}");
    add(
        Table::Location,
        words::CITIES.iter().map(place).collect(),
        rng,
    );
    tables
}

/// So many odd records of each kind, all at different users.
fn make_odd(users: &mut [User], of_each: usize, rng: &mut fastrand::Rng) {
    // The highest manager stays as he is, so that the tree has a root.
    let mut victims: Vec<usize> = (1..users.len()).collect();
    rng.shuffle(&mut victims);
    let mut new_ids = BTreeMap::new();
    for victims in victims.chunks_exact(ODD_EACH).take(of_each) {
        let mut victims = victims.iter().copied();
        make_odd_data(users, &mut || victims.next().unwrap_or(1), rng);
    }
    // Ids that somebody set by hand (Q31). Who reports to them still does.
    for &odd in victims.iter().rev().take(of_each) {
        let user = &mut users[odd];
        let name = ascii(user.get(Column::UserName));
        let new = format!("{name}_Import-{:04X}.x{odd}", rng.u16(..));
        let old = std::mem::replace(&mut user.sys_id, new.clone().into());
        new_ids.insert(old, new);
    }
    for user in users {
        if let Some(new) = new_ids.get(user.get(Column::Manager)) {
            set(user, Column::Manager, &new.clone());
        }
    }
}

/// One odd record of each kind that is not about ids; `next` draws whose.
fn make_odd_data(users: &mut [User], next: &mut dyn FnMut() -> usize, rng: &mut fastrand::Rng) {
    // Twins (Q26, Q27): the second differs in case.
    let (one, twin) = (next(), next());
    let name = users[one].get(Column::UserName).to_uppercase();
    set(&mut users[twin], Column::UserName, &name);
    let (one, twin) = (next(), next());
    let mail = users[one].get(Column::Email).to_owned();
    set(&mut users[twin], Column::Email, &mail);

    // Missing names (Q28).
    set(&mut users[next()], Column::FirstName, "");
    let nameless = next();
    for column in [Column::UserName, Column::Email, Column::MiddleName] {
        set(&mut users[nameless], column, "");
    }

    // Managers who are the user, a cycle, nobody, or inactive (Q30).
    let own = next();
    let (one, other) = (next(), next());
    let (user, left) = (next(), next());
    users[left].active = false;
    for (user, manager) in [(own, own), (one, other), (other, one), (user, left)] {
        let id = users[manager].sys_id.clone();
        set(&mut users[user], Column::Manager, &id);
    }
    set(&mut users[next()], Column::Manager, &sys_id(rng));
    // A department that is no more.
    set(&mut users[next()], Column::Department, &sys_id(rng));

    // Titles as people type them (Q33).
    for title in words::ODD_TITLES {
        set(&mut users[next()], Column::Title, title);
    }
}

fn set(user: &mut User, column: Column, text: &str) {
    user.set(&Values::new().with(column, text));
}

/// A moment of the last ten years, mostly of the last three.
fn past(now: Timestamp, rng: &mut fastrand::Rng) -> Timestamp {
    const YEAR: i64 = 365 * 24 * 3_600;
    let years = if rng.u8(..3) == 0 { 10 } else { 3 };
    whole_seconds(now - SignedDuration::from_secs(rng.i64(60..years * YEAR)))
}

fn pick<T: Copy>(words: &[T], rng: &mut fastrand::Rng) -> T {
    words[rng.usize(..words.len())]
}

/// The letters of a user name.
fn ascii(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            'å' | 'ä' | 'Å' | 'á' | 'ã' => 'a',
            'ö' | 'ø' | 'Ø' | 'Ö' | 'ó' => 'o',
            'é' | 'ë' => 'e',
            'ü' | 'ú' => 'u',
            'í' | 'ï' => 'i',
            'ñ' | 'ń' => 'n',
            'ç' => 'c',
            other => other.to_ascii_lowercase(),
        })
        .filter(char::is_ascii_alphanumeric)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn of(n_users: usize, seed: u64) -> Organisation {
        let now = "2026-03-01T08:00:00Z".parse().unwrap();
        organisation(n_users, true, now, &mut fastrand::Rng::with_seed(seed))
    }

    #[test]
    fn the_same_seed_makes_the_same_organisation_and_another_another() {
        assert_eq!(of(300, 7).users, of(300, 7).users);
        assert_ne!(of(300, 7).users, of(300, 8).users);
        let small = of(3, 7);
        assert_eq!(small.users.len(), 3);
        assert!(of(0, 7).users.is_empty());
    }

    #[test]
    fn it_has_a_tree_and_everything_that_is_odd() {
        let Organisation { users, names } = of(400, 7);
        let ids: BTreeSet<&str> = users.iter().map(|user| &*user.sys_id).collect();
        assert_eq!(ids.len(), 400);
        let count = |odd: &dyn Fn(&User) -> bool| users.iter().filter(|user| odd(user)).count();

        let reports = count(&|user| ids.contains(user.get(Column::Manager)));
        assert!(reports > 350, "{reports}");
        assert!(count(&|user| !user.active) > 25);
        assert!(count(&|user| user.get(Column::Manager) == &*user.sys_id) > 0);
        let dangling = |user: &User| {
            let id = user.get(Column::Manager);
            !id.is_empty() && !ids.contains(id)
        };
        assert!(count(&dangling) > 0);
        let manager_of = |user: &User| {
            let id = user.get(Column::Manager).to_owned();
            users.iter().find(move |other| *other.sys_id == *id)
        };
        let in_cycle = |user: &User| {
            manager_of(user)
                .and_then(manager_of)
                .is_some_and(|above| above.sys_id == user.sys_id)
        };
        assert!(count(&in_cycle) > count(&|u| u.get(Column::Manager) == &*u.sys_id));
        assert!(count(&|user| user.get(Column::UserName).is_empty()) > 0);
        assert!(count(&|user| user.get(Column::UserName).starts_with("svc.")) > 0);
        assert!(count(&|user| user.sys_id.len() != 32) > 0);
        assert!(count(&|user| user.get(Column::Title).contains('\n')) > 0);
        let lower: BTreeSet<String> = users
            .iter()
            .map(|user| user.get(Column::UserName).to_lowercase())
            .collect();
        assert!(lower.len() < 400);
        for table in Table::ALL {
            assert!(!names[&table].is_empty());
        }
        assert!(users.iter().all(|user| user.created <= user.updated));
    }
}
