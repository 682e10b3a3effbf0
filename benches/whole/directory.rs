//! The users and groups of an instance, each rendered once, in the order of their ids.

mod groups;

use std::fmt::{self, Write as _};
use std::ops::Range;

use jiff::{SignedDuration, Timestamp};

pub(crate) use groups::{Changed, Groups, OnePercent};

/// What links begin with.
const BASE: &str = "https://example-dev.service-now.com/api/now/scim";

/// Every so many users one is inactive, the second one first: a probe sees it among its first rows.
const INACTIVE_EVERY: usize = 97;

/// Between two changes of the directory, by its own clock: more than an incremental sync looks back.
const STEP: SignedDuration = SignedDuration::from_hours(1);

/// The last user of a change is stamped so much later than the others: more than an incremental sync
/// looks back, so that the next one reads that user alone again.
const TAIL: SignedDuration = SignedDuration::from_mins(10);

pub(crate) struct Directory {
    shape: Shape,
    users: Vec<User>,
    /// No more of them are in lists; all are answered for by id.
    listed: usize,
    pub(crate) groups: Groups,
    /// Places in `users`, in the order of the stamps: what changed since is found without a look at everybody.
    by_stamp: Vec<usize>,
    /// Its own clock.
    now: Timestamp,
    changes: usize,
}

/// What a list shows.
trait Shown {
    fn id(&self) -> &str;
    fn json(&self) -> &[u8];
}

/// How much is said of each user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// About 300 bytes: a name, a title.
    Slim,
    /// About 1,559 bytes: what ServiceNow shows of an employee.
    Usual,
    /// About 5,000 bytes: the same, and a long text in a custom attribute.
    Large,
}

struct User {
    number: usize,
    id: String,
    modified: Timestamp,
    json: Vec<u8>,
}

impl Directory {
    pub(crate) fn new(count: usize, shape: Shape) -> Self {
        let month = SignedDuration::from_hours(30 * 24);
        let start = Timestamp::from_second((Timestamp::now() - month).as_second())
            .expect("whole seconds of a time are a time");
        let users = (0..count)
            .map(|number| User::new(number, count, start, shape))
            .collect();
        let mut directory = Self {
            shape,
            users,
            listed: usize::MAX,
            groups: Groups::default(),
            by_stamp: Vec::new(),
            now: start,
            changes: 0,
        };
        directory.order();
        directory
    }

    /// The same, with so many users in lists, and groups of these sizes over all of them.
    pub(crate) fn with_groups(mut self, listed: usize, sizes: impl Iterator<Item = usize>) -> Self {
        self.listed = listed;
        self.groups = Groups::new(sizes, &self.users, self.now);
        self
    }

    /// Changes who is in which group.
    pub(crate) fn change_members(&mut self, what: OnePercent) -> Changed {
        self.groups.change(what, &self.users)
    }

    fn order(&mut self) {
        self.by_stamp = (0..self.users.len()).collect();
        self.by_stamp
            .sort_by_key(|&place| self.users[place].modified);
    }

    /// Gives so many users, spread over all, another title and a new stamp.
    pub(crate) fn change(&mut self, count: usize) {
        self.now += STEP;
        self.changes += 1;
        let length = self.users.len();
        for nth in 0..count {
            let user = &mut self.users[nth * length / count];
            let tail = if nth + 1 == count {
                TAIL
            } else {
                SignedDuration::ZERO
            };
            user.modified = self.now + tail;
            user.render(self.changes, self.shape);
        }
        self.order();
    }

    /// Takes so many active users out, spread over all.
    pub(crate) fn remove(&mut self, count: usize) {
        // One more than needed: an inactive user in the way moves all later ones by one.
        let every = (self.users.len() / (count + 1)).max(1);
        let mut left = count;
        let mut nth = 0;
        self.users.retain(|user| {
            nth += 1;
            let goes = left > 0 && nth >= every && user.is_active();
            if goes {
                left -= 1;
                nth = 0;
            }
            !goes
        });
        self.order();
        assert_eq!(left, 0, "fewer users than asked for could be removed");
    }

    pub(crate) fn user(&self, id: &str) -> Option<&[u8]> {
        find(&self.users, id)
    }

    pub(crate) fn bytes_a_user(&self) -> usize {
        let bytes: usize = self.users.iter().map(|user| user.json.len()).sum();
        bytes / self.users.len()
    }

    /// The id of an active user in the middle.
    pub(crate) fn somebody(&self) -> &str {
        let behind = &self.users[self.users.len() / 2..];
        let found = behind.iter().find(|user| user.is_active());
        &found.expect("most users are active").id
    }

    /// A page of users.
    pub(crate) fn page(&self, wanted: &Wanted) -> Vec<u8> {
        let (total, shown) = self.selected(wanted);
        page_of(total, wanted.skip, &shown)
    }

    fn listed(&self) -> &[User] {
        &self.users[..self.listed.min(self.users.len())]
    }

    /// How many users the conditions select, and those on the page.
    fn selected(&self, wanted: &Wanted) -> (usize, Vec<&User>) {
        let range = range(self.listed(), wanted);
        let mut places: Vec<usize> = match wanted.since {
            None if !wanted.inactive => {
                let users = &self.users[range];
                let shown = users.iter().skip(wanted.skip).take(wanted.count);
                return (users.len(), shown.collect());
            }
            None => range.collect(),
            Some(since) => {
                let older = |&place: &usize| self.users[place].modified < since;
                let from = self.by_stamp.partition_point(older);
                let since = self.by_stamp[from..].iter().copied();
                since.filter(|place| range.contains(place)).collect()
            }
        };
        places.retain(|&place| !(wanted.inactive && self.users[place].is_active()));
        places.sort_unstable();
        let shown = places.iter().skip(wanted.skip).take(wanted.count);
        (
            places.len(),
            shown.map(|&place| &self.users[place]).collect(),
        )
    }
}

/// A page of these, of so many that the conditions select.
fn page_of<T: Shown>(total: usize, skip: usize, shown: &[&T]) -> Vec<u8> {
    let bytes: usize = shown.iter().map(|one| one.json().len() + 1).sum();
    let mut body = String::with_capacity(bytes + 200);
    write!(
        body,
        r#"{{"schemas":["urn:ietf:params:scim:api:messages:2.0:ListResponse"],"totalResults":{total},"startIndex":{},"itemsPerPage":{},"Resources":["#,
        skip + 1,
        shown.len()
    )
    .expect("a string takes everything");
    let mut body = body.into_bytes();
    for (nth, one) in shown.iter().enumerate() {
        if nth > 0 {
            body.push(b',');
        }
        body.extend_from_slice(one.json());
    }
    body.extend_from_slice(b"]}");
    body
}

/// The one with this id.
fn find<'a, T: Shown>(sorted: &'a [T], id: &str) -> Option<&'a [u8]> {
    let place = sorted.binary_search_by(|one| one.id().cmp(id));
    place.ok().map(|place| sorted[place].json())
}

/// Those that the conditions on `id` select.
fn range<T: Shown>(sorted: &[T], wanted: &Wanted) -> Range<usize> {
    let place = |bound: &Bound| sorted.partition_point(|one| bound.is_behind(one.id()));
    let from = wanted.from.as_ref().map_or(0, place);
    let to = wanted.before.as_ref().map_or(sorted.len(), place);
    from..to.max(from)
}

/// What a list request asks for.
#[derive(Default)]
pub(crate) struct Wanted {
    pub(crate) from: Option<Bound>,
    pub(crate) before: Option<Bound>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) inactive: bool,
    pub(crate) skip: usize,
    pub(crate) count: usize,
}

/// A place in the order of ids.
pub(crate) enum Bound {
    Before(String),
    Behind(String),
}

impl Bound {
    /// Whether it is behind this id.
    fn is_behind(&self, id: &str) -> bool {
        match self {
            Self::Before(bound) => id < bound.as_str(),
            Self::Behind(bound) => id <= bound.as_str(),
        }
    }
}

impl Shown for User {
    fn id(&self) -> &str {
        &self.id
    }

    fn json(&self) -> &[u8] {
        &self.json
    }
}

impl User {
    fn new(number: usize, count: usize, modified: Timestamp, shape: Shape) -> Self {
        let spread = (number as u64) * (u64::MAX / count as u64);
        let mut user = Self {
            number,
            id: format!("{spread:016x}{:016x}", mixed(number, 0)),
            modified,
            json: Vec::new(),
        };
        user.render(0, shape);
        user
    }

    fn is_active(&self) -> bool {
        self.number % INACTIVE_EVERY != 1
    }

    /// `version` is part of the title.
    fn render(&mut self, version: usize, shape: Shape) {
        let mut json = String::new();
        let rendered = match shape {
            Shape::Slim => self.slim(version, &mut json),
            Shape::Usual => self.usual(version, "", &mut json),
            Shape::Large => {
                let sentence = "Keeps what runs running, and says so when it does not. ";
                let about = format!(r#""u_about":"{}","#, sentence.repeat(62));
                self.usual(version, &about, &mut json)
            }
        };
        rendered.expect("a string takes everything");
        self.json = json.into_bytes();
    }

    /// As `usual` shows it.
    fn name(&self) -> String {
        let (given, family) = self.names();
        format!("{given} {family}")
    }

    fn names(&self) -> (String, String) {
        let number = self.number;
        (format!("Noor{}", number % 1000), format!("Okonkwo{number}"))
    }

    fn slim(&self, version: usize, json: &mut String) -> fmt::Result {
        let (number, id) = (self.number, &self.id);
        write!(
            json,
            r#"{{"schemas":["urn:ietf:params:scim:schemas:core:2.0:User"],"id":"{id}","meta":{{"resourceType":"User","lastModified":"{}"}},"userName":"user.{number}","displayName":"Valdimar Okonkwo {number}","title":"Engineer {version}","active":{}}}"#,
            self.modified,
            self.is_active(),
        )
    }

    /// `custom` is more members of the extension, each with a comma behind it.
    fn usual(&self, version: usize, custom: &str, json: &mut String) -> fmt::Result {
        const EXTENSION: &str = "urn:ietf:params:scim:schemas:extension:servicenow:2.0:User";
        let (number, id) = (self.number, &self.id);
        let reference = |salt, of: usize| {
            let one = number % of;
            format!("{:016x}{:016x}", mixed(one, salt), mixed(one, salt + 1))
        };
        let (department, cost_center) = (reference(2, 200), reference(4, 100));
        let (company, location) = (reference(6, 20), reference(8, 50));
        let manager = reference(10, 500);
        let (given, family) = self.names();
        write!(
            json,
            r#"{{"schemas":["{EXTENSION}","urn:ietf:params:scim:schemas:core:2.0:User"],"id":"{id}","externalId":"hr-{number:07}","meta":{{"resourceType":"User","created":"2024-11-04T07:15:22Z","lastModified":"{}","location":"{BASE}/Users/{id}"}},"userName":"user.{number}","name":{{"familyName":"{family}","givenName":"{given}"}},"displayName":"{given} {family}","title":"Reliability Engineer {version}","userType":"Employee","preferredLanguage":"en","timezone":"Europe/Oslo","active":{},"emails":[{{"value":"user.{number}@example.org","type":"work"}}],"phoneNumbers":[{{"value":"+47 555 {number:07}","type":"work"}},{{"value":"+47 559 {number:07}","type":"mobile"}}],"#,
            self.modified,
            self.is_active(),
        )?;
        write!(
            json,
            r#""addresses":[{{"type":"home","streetAddress":"{} Harbour Street","locality":"Oslo","postalCode":"0150","country":"NO"}}],"{EXTENSION}":{{{custom}"employeeNumber":"E-{number:07}","costCenter":{{"value":"{cost_center}","name":"Cost centre {}"}},"company":{{"value":"{company}","name":"Company {}"}},"department":{{"value":"{department}","name":"Department {}","$ref":"{BASE}/Departments/{department}"}},"manager":{{"value":"{manager}","displayName":"Manager {}","$ref":"{BASE}/Users/{manager}"}},"location":{{"value":"{location}","name":"Location {}"}}}}}}"#,
            number % 300,
            number % 100,
            number % 20,
            number % 200,
            number % 500,
            number % 50,
        )
    }
}

/// Digits that look drawn by lot and are the same in every run.
fn mixed(number: usize, salt: u64) -> u64 {
    let mut x = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
