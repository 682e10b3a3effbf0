//! The groups of an instance, with who is in them.

use std::fmt::{self, Write as _};

use jiff::Timestamp;

use super::{BASE, Shown, User, Wanted, find, mixed, page_of, range};

/// From one member of a group to the next, among all users: it has no divisor with any of their numbers, so that nobody is met twice.
const STRIDE: usize = 7919;

/// Of so many memberships one ends, and in the middle between two such another one begins: 1 % changes.
const ENDS_EVERY: usize = 200;

/// Of so many groups one changes: it has no divisor with the number of sizes, so that groups of each size are among them.
const CHANGES_EVERY: usize = 101;

/// Where more than one leaves such a group, it is one of so many members.
const LEAVES_EVERY: usize = 10;

/// Lists of a multiple of this length may be cut ones, by which nobody leaves a group.
const CAP: usize = 100;

/// All groups, in the order of ids.
#[derive(Default)]
pub(crate) struct Groups {
    groups: Vec<Group>,
}

struct Group {
    number: usize,
    id: String,
    modified: Timestamp,
    /// Places among the users, in no order.
    members: Vec<usize>,
    /// How many were ever in it.
    met: usize,
    json: Vec<u8>,
}

/// What changes, of a hundred.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OnePercent {
    /// One group: one member leaves and another one comes.
    Groups,
    /// The same group, of whose members every tenth is another one then, and somebody at least.
    TenthsOfGroups,
    /// One membership, wherever it comes: of a large group more than of a small one.
    Memberships,
}

/// How many memberships changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changed {
    pub(crate) began: usize,
    pub(crate) ended: usize,
    /// Groups that somebody left.
    pub(crate) lost: usize,
    /// Groups that changed at all.
    pub(crate) groups: usize,
}

impl Groups {
    /// A group of each of these sizes.
    pub(super) fn new(
        sizes: impl Iterator<Item = usize>,
        users: &[User],
        modified: Timestamp,
    ) -> Self {
        let sizes: Vec<usize> = sizes.collect();
        let count = sizes.len();
        let group = |(number, size): (usize, usize)| {
            assert!(size <= users.len(), "more members than users");
            let spread = (number as u64) * (u64::MAX / count as u64);
            let mut group = Group {
                number,
                id: format!("{spread:016x}{:016x}", mixed(number, 20)),
                modified,
                members: Vec::new(),
                met: 0,
                json: Vec::new(),
            };
            for _ in 0..size {
                group.meet(users);
            }
            group.render(users);
            group
        };
        Self {
            groups: sizes.into_iter().enumerate().map(group).collect(),
        }
    }

    /// Ends and begins memberships. No stamp moves.
    pub(super) fn change(&mut self, what: OnePercent, users: &[User]) -> Changed {
        let mut changed = Changed::default();
        let mut passed = 0;
        for group in &mut self.groups {
            let before = group.members.len();
            let (places, mut began): (Vec<usize>, usize) = match what {
                OnePercent::Groups | OnePercent::TenthsOfGroups
                    if !group.number.is_multiple_of(CHANGES_EVERY) =>
                {
                    continue;
                }
                OnePercent::Groups => (vec![before / 2], 1),
                OnePercent::TenthsOfGroups => {
                    let leaves = (0..before).step_by(LEAVES_EVERY);
                    (leaves.clone().collect(), leaves.len())
                }
                OnePercent::Memberships => {
                    let places = passed..passed + before;
                    passed += before;
                    let nth = |rest| {
                        places
                            .clone()
                            .enumerate()
                            .filter(move |(_, place)| place % ENDS_EVERY == rest)
                            .map(|(nth, _)| nth)
                    };
                    (nth(0).collect(), nth(ENDS_EVERY / 2).count())
                }
            };
            if began + places.len() == 0 {
                continue;
            }
            for place in places.iter().rev() {
                group.members.remove(*place);
            }
            let left = group.members.len() + began;
            // A list that may be cut says nothing of who left, and one without anybody waits for a person.
            began += usize::from(left.is_multiple_of(CAP));
            for _ in 0..began {
                group.meet(users);
            }
            group.render(users);
            changed.began += began;
            changed.ended += places.len();
            changed.lost += usize::from(!places.is_empty());
            changed.groups += 1;
        }
        changed
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn memberships(&self) -> usize {
        self.groups.iter().map(|group| group.members.len()).sum()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.groups.iter().map(|group| group.json.len()).sum()
    }

    pub(crate) fn group(&self, id: &str) -> Option<&[u8]> {
        find(&self.groups, id)
    }

    /// A page of groups.
    pub(crate) fn page(&self, wanted: &Wanted) -> Vec<u8> {
        let since = |group: &&Group| wanted.since.is_none_or(|since| group.modified >= since);
        let of_range = || self.groups[range(&self.groups, wanted)].iter();
        let total = of_range().filter(since).count();
        let shown = of_range().filter(since).skip(wanted.skip);
        let shown: Vec<&Group> = shown.take(wanted.count).collect();
        page_of(total, wanted.skip, &shown)
    }
}

impl Shown for Group {
    fn id(&self) -> &str {
        &self.id
    }

    fn json(&self) -> &[u8] {
        &self.json
    }
}

impl Group {
    /// Somebody who never was in it begins to be.
    fn meet(&mut self, users: &[User]) {
        assert!(self.met < users.len(), "everybody was in it already");
        let place = (self.number * 104_729 + self.met * STRIDE) % users.len();
        self.members.push(place);
        self.met += 1;
    }

    fn render(&mut self, users: &[User]) {
        let mut json = String::new();
        self.write(users, &mut json)
            .expect("a string takes everything");
        self.json = json.into_bytes();
    }

    /// As ServiceNow shows a group; one without members has no list.
    fn write(&self, users: &[User], json: &mut String) -> fmt::Result {
        const CORE: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";
        const EXTENSION: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:Group";
        const CUSTOM: &str = "urn:ietf:params:scim:schemas:extension:servicenow:custom:2.0:Group";
        let (number, id) = (self.number, &self.id);
        write!(
            json,
            r#"{{"schemas":["{CORE}","{EXTENSION}","{CUSTOM}"],"id":"{id}","meta":{{"resourceType":"Group","created":"2023-05-16T09:41:00Z","lastModified":"{}","location":"{BASE}/Groups/{id}"}},"displayName":"Night Desk {number}","#,
            self.modified,
        )?;
        for (nth, place) in self.members.iter().enumerate() {
            let user = &users[*place];
            let before = if nth == 0 { r#""members":["# } else { "," };
            write!(
                json,
                r#"{before}{{"value":"{}","display":"{}","$ref":"{BASE}/Users/{}"}}"#,
                user.id,
                user.name(),
                user.id
            )?;
        }
        if !self.members.is_empty() {
            json.push_str("],");
        }
        let company = number % 20;
        let company_id = format!("{:016x}{:016x}", mixed(company, 6), mixed(company, 7));
        write!(
            json,
            r#""{EXTENSION}":{{"company":{{"value":"{company_id}","name":"Company {company}","$ref":"{BASE}/Companies/{company_id}"}}}}}}"#
        )
    }
}
