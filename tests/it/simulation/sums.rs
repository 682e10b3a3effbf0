//! What many seeds together have seen: a law that nothing could have broken proves nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::laws::Laws;
use super::mishaps;
use super::person::Person;
use super::watch::Seen;

/// Counts over seeds.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) seeds: u64,
    pub(super) lives: u64,
    pub(super) days: u64,
    pub(super) stops: u64,
    pub(super) reloads: u64,
    pub(super) calm_rounds: u64,
    pub(super) requests: u64,
    pub(super) approvals: u64,
    pub(super) approvals_refused: u64,
    pub(super) trimmed: u64,
    /// Users of whom a full sync, and meanwhile an incremental one, were told different things.
    pub(super) told_twice: u64,
    /// Seeds with groups.
    pub(super) with_groups: u64,
    /// Syncs of users that succeeded while something of groups waited for a person.
    pub(super) beside_held_groups: u64,
    /// Of each seed the most groups at a time whose members were not all known.
    pub(super) lists_disbelieved: u64,
    /// By the step that the flow was at.
    pub(super) deaths: BTreeMap<&'static str, u64>,
    /// By effect.
    pub(super) fired: BTreeMap<String, u64>,
    /// By kind and reason; `approved` where a hold was released.
    pub(super) records: BTreeMap<String, u64>,
    /// By guard and state.
    pub(super) holds: BTreeMap<String, u64>,
    /// By mode, outcome and verdict.
    pub(super) syncs: BTreeMap<String, u64>,
}

impl Sums {
    pub(super) fn add_person(&mut self, person: &Person) {
        self.approvals += person.approved;
        self.approvals_refused += person.refused;
    }

    /// Adds what was seen of one world.
    pub(super) fn add(&mut self, laws: &Laws, seen: &Seen) {
        self.requests += seen
            .requests
            .values()
            .map(|requests| requests.len() as u64)
            .sum::<u64>();
        for (effect, times) in &seen.fired {
            *self.fired.entry(effect.clone()).or_default() += times;
        }
        for record in &laws.records {
            let approved = if record.hold_id.is_some() {
                " approved"
            } else {
                ""
            };
            let of = match record.resource.as_str() {
                "User" => String::new(),
                other => format!("{other} "),
            };
            let name = format!("{of}{} {}{approved}", record.kind, record.reason);
            *self.records.entry(name).or_default() += 1;
        }
        self.trimmed += laws.trimmed();
        self.told_twice += laws.told_twice;
        self.beside_held_groups += laws.beside_held_groups;
        self.lists_disbelieved += laws.lists_disbelieved;
        for hold in laws.holds.values() {
            let of = if hold.source == "Group" { "Group " } else { "" };
            let name = format!("{of}{} {}", hold.guard, hold.state);
            *self.holds.entry(name).or_default() += 1;
        }
        for sync in laws.syncs.values() {
            let verdict = sync.certificate["verdict"].as_str().unwrap_or("-");
            let of = if sync.resource == "Group" {
                "Group "
            } else {
                ""
            };
            let name = format!("{of}{} {} {verdict}", sync.mode, sync.outcome);
            *self.syncs.entry(name).or_default() += 1;
        }
    }

    /// How many of the effects that there are have fired.
    pub(super) fn n_fault_kinds(&self) -> u64 {
        self.fired.values().filter(|times| **times > 0).count() as u64
    }

    /// How many have left, and were seen to.
    pub(super) fn n_leavers(&self) -> u64 {
        let records = self.records.iter();
        let left = records.filter(|(name, _)| name.starts_with("deactivate"));
        left.map(|(_, count)| count).sum()
    }

    /// Whether all was there that the laws are about. Where nobody leaves, nobody is deactivated by mistake.
    pub(super) fn demand_everything(&self) {
        for effect in mishaps::names() {
            assert!(
                self.fired.get(&effect).is_some_and(|n| *n > 0),
                "`{effect}` never fired"
            );
        }
        let at_least = |counts: &BTreeMap<String, u64>, name: &str, least: u64| {
            let count = counts.get(name).copied().unwrap_or_default();
            assert!(count >= least, "{name}: {count} of {least}");
        };
        for step in [
            "at the start",
            "probing",
            "reading",
            "asking",
            "before the transaction",
            "after the transaction",
            "tidying",
        ] {
            assert!(self.deaths.contains_key(step), "nobody died {step}");
        }
        for (name, least) in [
            ("create new", 100),
            ("deactivate gone", 50),
            ("deactivate gone approved", 50),
            ("deactivate inactive", 100),
            ("deactivate inactive approved", 100),
            ("deactivate source_changed approved", 10),
            ("update gone", 5),
            ("update reactivated", 20),
            ("update returned", 20),
            ("Group create new", 50),
            ("Group update changed", 20),
            ("Group update returned", 5),
            ("Group deactivate gone", 20),
            ("Membership create new", 100),
            ("Membership create returned", 20),
            ("Membership deactivate removed", 100),
            ("Membership deactivate removed approved", 20),
            ("Membership deactivate gone", 50),
        ] {
            at_least(&self.records, name, least);
        }
        for guard in ["deactivations", "blanking", "source_changed"] {
            for state in ["approved", "resolved"] {
                at_least(&self.holds, &format!("{guard} {state}"), 1);
            }
        }
        for guard in ["memberships", "group_memberships"] {
            for state in ["approved", "resolved"] {
                at_least(&self.holds, &format!("Group {guard} {state}"), 1);
            }
        }
        at_least(&self.holds, "Group source_changed approved", 1);
        for name in [
            "full succeeded complete",
            "full succeeded partial",
            "full failed refused",
            "full cancelled -",
            "incremental failed refused",
            "incremental cancelled -",
            "Group full succeeded complete",
            "Group full succeeded partial",
            "Group full failed -",
            "Group full cancelled -",
            "Group incremental succeeded complete",
        ] {
            at_least(&self.syncs, name, 1);
        }
        assert!(self.trimmed > 0, "nothing was trimmed");
        assert!(
            self.told_twice > 40,
            "hardly anybody was told of in two ways"
        );
        assert!(
            self.beside_held_groups > 20 && self.lists_disbelieved > 10,
            "groups stood in nobody's way, and all lists were whole"
        );
        assert!(self.stops > 0 && self.reloads > 0 && self.approvals > 0);
    }

    /// Adds those of other seeds.
    pub(super) fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.lives += other.lives;
        self.days += other.days;
        self.stops += other.stops;
        self.reloads += other.reloads;
        self.calm_rounds += other.calm_rounds;
        self.requests += other.requests;
        self.approvals += other.approvals;
        self.approvals_refused += other.approvals_refused;
        self.trimmed += other.trimmed;
        self.told_twice += other.told_twice;
        self.lists_disbelieved += other.lists_disbelieved;
        self.beside_held_groups += other.beside_held_groups;
        self.with_groups += other.with_groups;
        for (mine, theirs) in [
            (&mut self.fired, other.fired),
            (&mut self.records, other.records),
            (&mut self.holds, other.holds),
            (&mut self.syncs, other.syncs),
        ] {
            for (name, count) in theirs {
                *mine.entry(name).or_default() += count;
            }
        }
        for (step, count) in other.deaths {
            *self.deaths.entry(step).or_default() += count;
        }
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {} days, {} lives, {} requests; {} stops, {} reloads, {} rounds of calm; {} approvals, {} not carried out; {} users told of in two ways; {} seeds with groups, {} syncs of users while groups were held, {} lists not believed",
            self.seeds,
            self.days,
            self.lives,
            self.requests,
            self.stops,
            self.reloads,
            self.calm_rounds,
            self.approvals,
            self.approvals_refused,
            self.told_twice,
            self.with_groups,
            self.beside_held_groups,
            self.lists_disbelieved,
        )?;
        writeln!(f, "deaths: {:?}", self.deaths)?;
        writeln!(f, "records: {:?}", self.records)?;
        writeln!(f, "holds: {:?}", self.holds)?;
        writeln!(f, "syncs: {:?}", self.syncs)?;
        write!(f, "faults: {:?}", self.fired)
    }
}
