//! A simulated ServiceNow instance: faithful to the facts about real ones (the facts page), not to
//! our client. The same code answers in process, under a paused clock, and over HTTP.
//!
//! ```text
//! request ─> churn, mishaps ─> fault instead? ─> door (auth, limits) ─> list, get, write ─> spoil ─> answer
//! ```

mod answer;
mod auth;
mod churn;
mod column;
mod directory;
mod discovery;
mod effect;
mod error;
mod faults;
mod filter;
mod generate;
mod group;
mod headers;
mod in_process;
mod instead;
mod json;
mod limits;
mod list;
mod membership;
mod message;
mod mishap;
mod patch;
mod projection;
mod query;
mod render;
mod requests;
mod resource;
mod resource_type;
mod route;
mod row;
mod schemas;
mod scope;
mod script;
mod serve;
mod shape;
mod sight;
mod table;
#[cfg(test)]
mod testbed;
mod words;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use auth::AuthRules;
pub use churn::Churned;
pub use column::Column;
pub use directory::{Directory, Stamp};
pub use effect::{Effect, Poison, StampForm};
pub use faults::{Fault, Fired};
pub use group::{Group, GroupValues};
pub use in_process::InProcess;
pub use limits::RateRule;
pub use membership::{Member, MemberKind};
pub use message::{Delivery, Incoming, Reply};
pub use requests::Logged;
pub use route::RequestKind;
pub use row::{Named, User, Values};
pub use script::{ScriptError, read_script};
pub use serve::serve;
pub use table::Table;

use crate::clock::SharedClock;
use answer::Core;

/// What kind of instance to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Users at the start.
    pub users: usize,
    /// Groups at the start, [`Options::largest_group`] apart.
    pub groups: usize,
    /// The members of one more group, at most all users; 0 is none such.
    pub largest_group: usize,
    /// Whether a PATCH of a group is answered with 204: the property "Enable Group Patch API response with
    /// No Content", which is off unless somebody turns it on.
    pub group_patch_no_content: bool,
    /// What everything that is drawn by lot comes from.
    pub seed: u64,
    /// Whether there are odd records: twins, cycles, missing names, ids set by hand, members who are gone.
    pub odd: bool,
    /// Accounts and tokens.
    pub auth: AuthRules,
    /// A rate limit rule; real instances have none unless somebody makes one.
    pub rate_limit: Option<RateRule>,
    /// Changes of users a minute; with each something changes in a group.
    pub churn_per_minute: u32,
    /// How long each answer takes.
    pub latency: Duration,
    /// The instance's own name: what links start with, whatever host was asked.
    pub public_url: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            users: 1_000,
            groups: 40,
            largest_group: 0,
            group_patch_no_content: false,
            seed: 1,
            odd: true,
            auth: AuthRules::default(),
            rate_limit: None,
            churn_per_minute: 0,
            latency: Duration::ZERO,
            public_url: "https://sandbox.example.org".to_owned(),
        }
    }
}

/// A simulated instance. Clones share it.
#[derive(Clone)]
pub struct Sandbox {
    core: Arc<Mutex<Core>>,
    clock: SharedClock,
}

impl Sandbox {
    /// Makes an instance with a generated directory.
    #[must_use]
    pub fn new(options: Options, clock: SharedClock) -> Self {
        let core = Core::new(options, clock.now());
        Self {
            core: Arc::new(Mutex::new(core)),
            clock,
        }
    }

    /// Answers one request at once. [`Reply::delay`] and [`Reply::delivery`] are left to whoever
    /// carries the answer.
    #[must_use]
    pub fn answer(&self, incoming: &Incoming) -> Reply {
        let now = self.clock.now();
        self.core().answer(incoming, now)
    }

    /// The user name, password, client id and secret that it lets in, and its policies.
    #[must_use]
    pub fn auth(&self) -> AuthRules {
        self.core().door.rules().clone()
    }

    /// Changes passwords or policies, as a person in the instance's forms does.
    pub fn set_auth(&self, change: impl FnOnce(&mut AuthRules)) {
        change(self.core().door.rules());
    }

    /// A living access token, as the token endpoint gives it, without a request.
    #[must_use]
    pub fn issue_token(&self) -> String {
        let now = self.clock.now();
        self.core().issue_token(now)
    }

    /// Makes the living access token invalid.
    pub fn end_token(&self) {
        self.core().door.forget_access();
    }

    /// Whether bad passwords have locked the account.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        let now = self.clock.now();
        self.core().door.is_locked(now)
    }

    /// Makes, changes or takes away the rate limit rule. Resets the counts.
    pub fn set_rate_limit(&self, rule: Option<RateRule>) {
        self.core().set_rate_limit(rule);
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // A panic elsewhere leaves tables that are still whole: each edit is one step.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The directory as an administrator of the instance edits it.
impl Sandbox {
    /// Looks at the tables.
    pub fn with_directory<T>(&self, look: impl FnOnce(&Directory) -> T) -> T {
        let now = self.clock.now();
        let mut core = self.core();
        core.catch_up(now);
        look(&core.directory)
    }

    /// The ids of all users, in the order of the key.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.with_directory(|directory| {
            let ids = directory.users().iter();
            ids.map(|user| user.sys_id.to_string()).collect()
        })
    }

    /// A user as the instance shows him, in JSON.
    #[must_use]
    pub fn user_json(&self, id: &str) -> Option<String> {
        self.core().json::<User>(id)
    }

    /// Creates a user and gives his id.
    pub fn create(&self, values: &Values) -> String {
        self.edit(|core, now| {
            let id = generate::sys_id(&mut core.ids);
            core.create(&id, values, now);
            id
        })
    }

    /// Creates a user under an id set by hand, or replaces the one who has it.
    pub fn create_as(&self, id: &str, values: &Values) {
        self.edit(|core, now| core.create(id, values, now));
    }

    /// Sets columns of a user; the stamp moves if anything of `sys_user` changed. `false` if there
    /// is no such user.
    pub fn update(&self, id: &str, values: &Values) -> bool {
        self.edit(|core, now| core.directory.update(id, values, Stamp::Ruled, now))
    }

    /// Sets columns and leaves the stamp as it is (facts page, Q19).
    pub fn update_silently(&self, id: &str, values: &Values) -> bool {
        self.edit(|core, now| core.directory.update(id, values, Stamp::Kept, now))
    }

    /// Sets columns in a transaction that is stamped now and commits after so long (facts page,
    /// Q16).
    pub fn update_late(&self, id: &str, values: Values, after: Duration) {
        self.edit(|core, now| core.directory.update_late(id, values, now + after, now));
    }

    /// Moves the stamp and nothing else (facts page, Q20).
    pub fn touch(&self, id: &str) -> bool {
        self.edit(|core, now| core.directory.update(id, &Values::new(), Stamp::Moved, now))
    }

    /// Deletes a user for good.
    pub fn delete(&self, id: &str) -> bool {
        self.edit(|core, now| core.directory.delete(id, now))
    }

    /// Recovers a deleted user under the same id, with what he was a member of (facts page, Q23).
    pub fn undelete(&self, id: &str) -> bool {
        self.edit(|core, now| core.directory.undelete(id, now))
    }

    /// Renames a company, a cost centre, a department or a location: its members show the new name,
    /// and none of their stamps moves (facts page, section 8.2).
    pub fn rename(&self, table: Table, id: &str, name: &str) -> bool {
        self.edit(|core, now| core.directory.rename(table, id, name, now))
    }

    /// Deletes a company, a cost centre, a department or a location, whoever points at it.
    pub fn delete_name(&self, table: Table, id: &str) -> bool {
        self.edit(|core, _| core.directory.delete_name(table, id))
    }

    /// Sets users, groups and memberships back to what they were at that time, stamps included (facts page,
    /// Q18).
    pub fn roll_back(&self, ago: Duration) {
        self.edit(|core, now| core.directory.roll_back(now - ago));
    }

    /// Shows these bytes in place of the resource of a user or a group, or the resource again.
    pub fn show_raw(&self, id: &str, raw: Option<Vec<u8>>) {
        let mut core = self.core();
        match raw {
            Some(raw) => core.raw.insert(id.to_owned(), raw),
            None => core.raw.remove(id),
        };
    }

    /// Changes a minute from now on.
    pub fn set_churn(&self, per_minute: u32) {
        self.edit(|core, now| core.churn.set_rate(per_minute, now));
    }

    /// What churn has done so far.
    #[must_use]
    pub fn churned(&self) -> Churned {
        self.edit(|core, _| core.churn.done())
    }

    fn edit<T>(&self, change: impl FnOnce(&mut Core, jiff::Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut core = self.core();
        core.catch_up(now);
        change(&mut core, now)
    }
}

/// Groups as an administrator of the instance edits them.
impl Sandbox {
    /// The ids of all groups, in the order of the key.
    #[must_use]
    pub fn group_ids(&self) -> Vec<String> {
        self.with_directory(|directory| {
            let ids = directory.groups().iter();
            ids.map(|group| group.sys_id.to_string()).collect()
        })
    }

    /// A group as the instance shows it, in JSON.
    #[must_use]
    pub fn group_json(&self, id: &str) -> Option<String> {
        self.core().json::<Group>(id)
    }

    /// Creates a group without members and gives its id.
    pub fn create_group(&self, values: &GroupValues) -> String {
        self.edit(|core, now| {
            let id = generate::sys_id(&mut core.ids);
            core.create_group(&id, values, now);
            id
        })
    }

    /// Creates a group under an id set by hand, or replaces the one that has it; its members stay.
    pub fn create_group_as(&self, id: &str, values: &GroupValues) {
        self.edit(|core, now| core.create_group(id, values, now));
    }

    /// Sets columns of a group; the stamp moves if anything of `sys_user_group` changed. `false` if there
    /// is no such group.
    pub fn update_group(&self, id: &str, values: &GroupValues) -> bool {
        self.edit(|core, now| {
            let directory = &mut core.directory;
            directory.update_group(id, values, Stamp::Ruled, now)
        })
    }

    /// Deletes a group for good, with its memberships.
    pub fn delete_group(&self, id: &str) -> bool {
        self.edit(|core, now| core.directory.delete_group(id, now))
    }

    /// Recovers a deleted group under the same id, with its memberships.
    pub fn undelete_group(&self, id: &str) -> bool {
        self.edit(|core, now| core.directory.undelete_group(id, now))
    }

    /// Takes members out of a group and then adds those that are not in it, whether they exist or not. No
    /// stamp moves. `false` if there is no such group.
    pub fn change_members(&self, id: &str, leave: &[Member], join: &[Member]) -> bool {
        self.edit(|core, now| core.directory.change_members(id, leave, join, now))
    }
}

/// Misbehaviour, and what was asked.
impl Sandbox {
    /// Puts these faults in force, in place of those before; time and requests count from now.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        let now = self.clock.now();
        self.core().set_faults(faults, now);
    }

    /// Puts one more fault in force.
    pub fn add_fault(&self, fault: Fault) {
        self.core().faults.add(fault);
    }

    /// Ends the faults of this name.
    pub fn remove_fault(&self, name: &str) {
        self.core().faults.remove(name);
    }

    /// How often each fault in force has fired.
    #[must_use]
    pub fn fired(&self) -> Vec<Fired> {
        self.core().faults.fired()
    }

    /// How many requests of a kind came.
    #[must_use]
    pub fn count(&self, kind: RequestKind) -> u64 {
        self.core().log.count(kind)
    }

    /// The newest requests, oldest first, with the times at which they came.
    #[must_use]
    pub fn requests(&self) -> Vec<Logged> {
        self.core().log.entries()
    }

    /// Forgets which requests came.
    pub fn forget_requests(&self) {
        self.core().log.clear();
    }
}
