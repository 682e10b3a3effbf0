//! The groups of an organisation: those that tickets are assigned to, by department and by place, groups
//! of groups, empty ones, and on request one that nearly everybody is in (facts page, section 9.1).

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::super::column::Column;
use super::super::group::{Group, GroupValues};
use super::super::membership::Member;
use super::super::row::{Named, User};
use super::super::table::Table;
use super::super::words;
use super::{Organisation, past, pick, sys_id};

/// The most members of an ordinary group.
const MOST_MEMBERS: usize = 25;
/// One of so many groups has odd members, where there are odd records.
const ONE_IN_ODD: usize = 10;

/// Which groups there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct GroupOptions {
    /// How many, the largest apart.
    pub groups: usize,
    /// The members of one more; 0 is none such. There are no more than users.
    pub largest: usize,
    /// Whether members are missing, and stand there twice.
    pub odd: bool,
}

/// The rows of new groups.
pub(super) struct Drawn {
    /// The groups.
    pub(super) groups: Vec<Group>,
    /// Their members.
    pub(super) members: Vec<(Box<str>, Vec<Member>)>,
}

/// The generator for all that concerns groups: nothing that is drawn from it is missed elsewhere.
#[must_use]
pub(in super::super) fn group_rng(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed ^ 0x0067_726f_7570_7300)
}

/// A name for a group that is made later.
#[must_use]
pub(in super::super) fn new_group_name(rng: &mut fastrand::Rng) -> String {
    let department = pick(words::DEPARTMENTS, rng);
    let duty = pick(words::DUTIES, rng);
    format!("{department}{duty} {:04}", rng.u16(..10_000))
}

/// Makes groups of an organisation's people.
pub(super) fn draw(
    organisation: &Organisation,
    options: &GroupOptions,
    now: Timestamp,
    rng: &mut fastrand::Rng,
) -> Drawn {
    let mut founder = Founder {
        people: People::of(&organisation.users),
        organisation,
        names: BTreeSet::new(),
        drawn: Drawn {
            groups: Vec::new(),
            members: Vec::new(),
        },
        now,
        rng,
    };
    for number in 0..options.groups {
        founder.ordinary(number);
        if options.odd && number % ONE_IN_ODD == ONE_IN_ODD / 2 {
            founder.make_odd();
        }
    }
    if options.largest > 0 {
        let everybody = organisation.users.iter().take(options.largest);
        let members = everybody.map(|user| Member::user(&user.sys_id)).collect();
        founder.found("All Employees", members);
    }
    founder.drawn
}

/// Who works where.
struct People<'a> {
    all: &'a [User],
    by: BTreeMap<(Column, &'a str), Vec<&'a User>>,
}

impl<'a> People<'a> {
    fn of(all: &'a [User]) -> Self {
        let mut by: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for user in all {
            for column in [Column::Department, Column::Location] {
                by.entry((column, user.get(column))).or_default().push(user);
            }
        }
        Self { all, by }
    }

    /// A few of those who work somewhere; of all, where nobody does. Leavers are among them: nobody takes
    /// them out.
    fn some(&self, place: Option<(Column, &str)>, rng: &mut fastrand::Rng) -> Vec<Member> {
        let here = place.and_then(|place| self.by.get(&place));
        let n_here = here.map_or(self.all.len(), Vec::len);
        let at = |number: usize| here.map_or_else(|| &self.all[number], |here| here[number]);
        let wanted = rng.usize(2..=MOST_MEMBERS).min(n_here);
        let chosen = rng.choose_multiple(0..n_here, wanted).into_iter();
        chosen
            .map(|number| Member::user(&at(number).sys_id))
            .collect()
    }
}

struct Founder<'a> {
    people: People<'a>,
    organisation: &'a Organisation,
    names: BTreeSet<String>,
    drawn: Drawn,
    now: Timestamp,
    rng: &'a mut fastrand::Rng,
}

impl Founder<'_> {
    /// Ten in a row: of departments, of places, one of groups, and an empty one.
    fn ordinary(&mut self, number: usize) {
        let round = number / 10;
        let of_round = |each: usize| round * each + number % 10;
        match number % 10 {
            0..5 => {
                let place = of_round(5);
                if let Some((row, more)) = self.name(Table::Department, place) {
                    let department = Some((Column::Department, &*row.sys_id));
                    let members = self.people.some(department, self.rng);
                    let duty = words::DUTIES[more % words::DUTIES.len()];
                    self.found(&format!("{}{duty}", row.name), members);
                }
            }
            5..8 => {
                if let Some((row, _)) = self.name(Table::Location, of_round(3) - 5) {
                    let location = Some((Column::Location, &*row.sys_id));
                    let members = self.people.some(location, self.rng);
                    let city = row.name.split(',').next().unwrap_or_default();
                    self.found(&format!("Service Desk {city}"), members);
                }
            }
            8 => {
                let mut members = self.people.some(None, self.rng);
                members.truncate(3);
                let n_inner = self.rng.usize(2..=5);
                let groups = self.drawn.groups.iter();
                let inner = self.rng.choose_multiple(groups, n_inner).into_iter();
                members.extend(inner.map(|group| Member::group(&group.sys_id)));
                let region = words::SITES[1 + round % (words::SITES.len() - 1)].trim();
                self.found(&format!("Major Incident {region}"), members);
            }
            _ => self.found(&format!("Project {}", 100 + number), Vec::new()),
        }
    }

    /// The last group gets a member who is gone, a group that is gone, and one twice.
    fn make_odd(&mut self) {
        let gone = [sys_id(self.rng), sys_id(self.rng)];
        if let Some((_, members)) = self.drawn.members.last_mut() {
            members.extend(members.first().cloned());
            members.extend([Member::user(&gone[0]), Member::group(&gone[1])]);
        }
    }

    /// The row of a table of names at a place, from the start again where the table ends; and how often it
    /// ended.
    fn name(&self, table: Table, place: usize) -> Option<(Named, usize)> {
        let rows = self.organisation.names.get(&table)?;
        let times = place.checked_div(rows.len())?;
        Some((rows.get(place % rows.len())?.clone(), times))
    }

    fn found(&mut self, name: &str, members: Vec<Member>) {
        let mut unique = name.to_owned();
        for more in 2.. {
            if self.names.insert(unique.to_lowercase()) {
                break;
            }
            unique = format!("{name} {more}");
        }
        let mut group = Group::new(&sys_id(self.rng), self.now);
        let is_provisioned = self.rng.u8(..4) == 0;
        let company = self
            .rng
            .bool()
            .then(|| self.name(Table::Company, 0))
            .flatten();
        group.set(&GroupValues {
            name: Some(unique),
            company: company.map(|(row, _)| row.sys_id.into()),
            external_id: is_provisioned.then(|| format!("idp-{:08x}", self.rng.u32(..))),
        });
        group.created = past(self.now, self.rng);
        let age = self.now.duration_since(group.created).as_secs().max(1);
        group.updated = group.created + SignedDuration::from_secs(self.rng.i64(0..age));
        self.drawn.members.push((group.sys_id.clone(), members));
        self.drawn.groups.push(group);
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::membership::MemberKind;
    use super::super::organisation;
    use super::*;

    fn of(users: usize, options: GroupOptions, seed: u64) -> (Vec<User>, Drawn) {
        let now = "2026-03-01T08:00:00Z".parse().unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let organisation = organisation(users, options.odd, now, &mut rng);
        let drawn = draw(&organisation, &options, now, &mut group_rng(seed));
        (organisation.users, drawn)
    }

    const ODD: GroupOptions = GroupOptions {
        groups: 60,
        largest: 0,
        odd: true,
    };

    #[test]
    fn the_same_seed_makes_the_same_groups_and_another_others() {
        let (_, one) = of(300, ODD, 7);
        let (_, same) = of(300, ODD, 7);
        assert_eq!((&one.groups, &one.members), (&same.groups, &same.members));
        assert_ne!(one.members, of(300, ODD, 8).1.members);
        for (users, groups) in [(0, 0), (0, 60), (1, 60), (3, 2)] {
            let (_, drawn) = of(users, GroupOptions { groups, ..ODD }, 7);
            assert_eq!(drawn.groups.len(), groups);
        }
    }

    #[test]
    fn there_is_all_that_groups_are_known_for() {
        let (users, Drawn { groups, members }) = of(300, ODD, 7);
        let names: BTreeSet<String> = groups.iter().map(|one| one.name.to_lowercase()).collect();
        assert_eq!(names.len(), 60);
        assert!(groups.iter().all(|one| one.created <= one.updated));
        let some = |has: &dyn Fn(&Group) -> bool| groups.iter().any(has);
        assert!(
            some(&|one| !one.external_id.is_empty()) && some(&|one| one.external_id.is_empty())
        );
        assert!(some(&|one| !one.company.is_empty()) && some(&|one| one.company.is_empty()));

        let user_ids: BTreeSet<&str> = users.iter().map(|user| &*user.sys_id).collect();
        let group_ids: BTreeSet<&str> = groups.iter().map(|group| &*group.sys_id).collect();
        let rows = || members.iter().flat_map(|(_, members)| members);
        let count = |kind: MemberKind, there: bool| {
            let ids = match kind {
                MemberKind::User => &user_ids,
                MemberKind::Group => &group_ids,
            };
            let of_kind = rows().filter(|member| member.kind == kind);
            of_kind
                .filter(|member| ids.contains(&*member.id) == there)
                .count()
        };
        assert!(count(MemberKind::User, true) > 300);
        assert!(count(MemberKind::Group, true) > 10);
        assert_eq!(count(MemberKind::User, false), 6);
        assert_eq!(count(MemberKind::Group, false), 6);
        let empty = members.iter().filter(|(_, members)| members.is_empty());
        assert_eq!(empty.count(), 6);
        let twice = members.iter().filter(|(_, members)| {
            let distinct: BTreeSet<&Member> = members.iter().collect();
            distinct.len() < members.len()
        });
        assert_eq!(twice.count(), 6);

        // Assignment groups are of people who work together.
        let (of_department, members) = (&groups[0], &members[0].1);
        assert!(!members.is_empty(), "{}", of_department.name);
        let departments: BTreeSet<&str> = users
            .iter()
            .filter(|user| members.contains(&Member::user(&user.sys_id)))
            .map(|user| user.get(Column::Department))
            .collect();
        assert_eq!(departments.len(), 1);
    }

    #[test]
    fn tidy_groups_have_nobody_twice_and_nobody_who_is_gone() {
        let options = GroupOptions {
            groups: 60,
            largest: 120,
            odd: false,
        };
        let (users, Drawn { groups, members }) = of(100, options, 7);
        assert_eq!(groups.len(), 61);
        assert_eq!(members[60].1.len(), 100);
        for (_, members) in &members {
            let distinct: BTreeSet<&Member> = members.iter().collect();
            assert_eq!(distinct.len(), members.len());
            assert!(members.iter().all(|member| match member.kind {
                MemberKind::User => users.iter().any(|user| user.sys_id == member.id),
                MemberKind::Group => groups.iter().any(|group| group.sys_id == member.id),
            }));
        }
    }
}
