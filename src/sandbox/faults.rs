//! Misbehaviour on request: which fault fires for which request, and a report of those that did.
//! What a fault does is in [`super::effect`]; how a script writes it down in [`super::script`].

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::effect::Effect;
use super::route::{RequestKind, Target};

/// A fault: an effect, and when it fires. Every condition that is given must hold.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What the report calls it.
    pub name: String,
    /// What it does.
    pub effect: Effect,
    on: BTreeSet<RequestKind>,
    path: Option<String>,
    from_request: u64,
    to_request: u64,
    every: u64,
    after: Duration,
    until: Option<Duration>,
    probability: f64,
    times: u64,
}

/// How often a fault fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// The fault.
    pub name: String,
    /// Requests that it met.
    pub times: u64,
}

/// The faults in force.
#[derive(Debug)]
pub(super) struct Faults {
    faults: Vec<(Fault, Count)>,
    started_at: Timestamp,
    rng: fastrand::Rng,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    matched: u64,
    fired: u64,
}

impl Fault {
    /// A fault that meets every request its effect can show itself in.
    #[must_use]
    pub fn new(effect: Effect) -> Self {
        Self {
            name: effect.name(),
            on: effect.scope().iter().copied().collect(),
            effect,
            path: None,
            from_request: 1,
            to_request: u64::MAX,
            every: 1,
            after: Duration::ZERO,
            until: None,
            probability: 1.0,
            times: u64::MAX,
        }
    }

    /// Gives it a name of its own.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Only requests of these kinds.
    #[must_use]
    pub fn on(mut self, kinds: &[RequestKind]) -> Self {
        self.on = kinds.iter().copied().collect();
        self
    }

    /// Only where path and query together match the pattern; `*` stands for anything.
    #[must_use]
    pub fn path(mut self, pattern: impl Into<String>) -> Self {
        self.path = Some(pattern.into());
        self
    }

    /// Only from the `from`-th to the `to`-th of the requests that its kinds and path let through,
    /// counted from 1.
    #[must_use]
    pub fn requests(mut self, from: u64, to: u64) -> Self {
        (self.from_request, self.to_request) = (from, to);
        self
    }

    /// Only each `nth` of those.
    #[must_use]
    pub fn every(mut self, nth: u64) -> Self {
        self.every = nth.max(1);
        self
    }

    /// Only from so long after the faults were set.
    #[must_use]
    pub fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }

    /// Only until so long after the faults were set.
    #[must_use]
    pub fn until(mut self, until: Duration) -> Self {
        self.until = Some(until);
        self
    }

    /// Only by lot, from 0 for never to 1 for always.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }
}

impl Faults {
    /// Faults that count time from `now`.
    #[must_use]
    pub(super) fn new(faults: Vec<Fault>, now: Timestamp, rng: fastrand::Rng) -> Self {
        Self {
            faults: faults
                .into_iter()
                .map(|fault| (fault, Count::default()))
                .collect(),
            started_at: now,
            rng,
        }
    }

    /// Adds one, beside those that are there.
    pub(super) fn add(&mut self, fault: Fault) {
        self.faults.push((fault, Count::default()));
    }

    /// Takes those of this name away; what they did stays done.
    pub(super) fn remove(&mut self, name: &str) {
        self.faults.retain(|(fault, _)| fault.name != name);
    }

    /// How often each of them fired.
    #[must_use]
    pub(super) fn fired(&self) -> Vec<Fired> {
        self.faults
            .iter()
            .map(|(fault, count)| Fired {
                name: fault.name.clone(),
                times: count.fired,
            })
            .collect()
    }

    /// The effects that meet this request. `line` is its path with its query.
    pub(super) fn meet(
        &mut self,
        kind: RequestKind,
        target: &Target,
        line: &str,
        now: Timestamp,
    ) -> Vec<Effect> {
        let age = Duration::try_from(now.duration_since(self.started_at)).unwrap_or_default();
        let mut effects = Vec::new();
        for (fault, count) in &mut self.faults {
            let fits = fault.on.contains(&kind)
                && (target.is_groups() || !fault.effect.is_about_groups())
                && fault
                    .path
                    .as_ref()
                    .is_none_or(|pattern| matches_pattern(pattern, line));
            if !fits {
                continue;
            }
            count.matched += 1;
            let due = (fault.from_request..=fault.to_request).contains(&count.matched)
                && (count.matched - fault.from_request).is_multiple_of(fault.every)
                && fault.after <= age
                && fault.until.is_none_or(|until| age < until)
                && count.fired < fault.times;
            if due && (fault.probability >= 1.0 || self.rng.f64() < fault.probability) {
                count.fired += 1;
                effects.push(fault.effect.clone());
            }
        }
        effects
    }
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let head = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(head) else {
        return false;
    };
    let Some(tail) = pattern.contains('*').then(|| parts.next_back()).flatten() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(place) = rest.find(part) else {
            return false;
        };
        rest = &rest[place + part.len()..];
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meets(faults: &mut Faults, kind: RequestKind, line: &str, second: i64) -> bool {
        let now = Timestamp::from_second(second).unwrap();
        let target = Target::of(line.split('?').next().unwrap());
        !faults.meet(kind, &target, line, now).is_empty()
    }

    fn one(fault: Fault) -> Faults {
        Faults::new(
            vec![fault],
            Timestamp::UNIX_EPOCH,
            fastrand::Rng::with_seed(1),
        )
    }

    #[test]
    fn every_condition_must_hold_and_what_fired_is_told() {
        let mut faults = one(Fault::new(Effect::HtmlPage)
            .on(&[RequestKind::List])
            .path("/api/*/Users?*count=5*")
            .requests(2, 4)
            .every(2)
            .after(Duration::from_secs(10))
            .until(Duration::from_secs(20)));
        let target = "/api/now/scim/Users?count=50";
        let mut hits = Vec::new();
        for second in [0, 11, 12, 13, 14, 21] {
            hits.push(meets(&mut faults, RequestKind::List, target, second));
        }
        assert_eq!(hits, [false, true, false, true, false, false]);
        assert!(!meets(&mut faults, RequestKind::Get, target, 12));
        assert!(!meets(
            &mut faults,
            RequestKind::List,
            "/api/now/scim/Users",
            12
        ));
        let fired = faults.fired();
        assert_eq!((fired[0].name.as_str(), fired[0].times), ("html_page", 2));
    }

    #[test]
    fn a_fault_of_groups_meets_no_request_for_anything_else() {
        let mut faults = one(Fault::new(Effect::GroupRenamed).requests(2, 2));
        let mut hits = Vec::new();
        for endpoint in ["Groups", "Users", "Departments", "Groups", "Groups"] {
            let line = format!("/api/now/scim/{endpoint}?count=5");
            hits.push(meets(&mut faults, RequestKind::List, &line, 0));
        }
        assert_eq!(hits, [false, false, false, true, false]);
        assert_eq!(faults.fired()[0].times, 1);
    }

    #[test]
    fn times_and_probability_bound_it() {
        let mut twice = one(Fault::new(Effect::HtmlPage).times(2));
        let hits = (0..9).filter(|s| meets(&mut twice, RequestKind::List, "/", *s));
        assert_eq!(hits.count(), 2);

        let mut seldom = one(Fault::new(Effect::HtmlPage).probability(0.2));
        let hits = (0..1_000).filter(|s| meets(&mut seldom, RequestKind::List, "/", *s));
        assert!((150..250).contains(&hits.count()));
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, fits) in [
            ("/a", "/a", true),
            ("/a", "/ab", false),
            ("/a*", "/ab", true),
            ("*b", "/ab", true),
            ("*", "", true),
            ("/a*b*c", "/a-b-c", true),
            ("/a*b*c", "/a-c-b", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches_pattern(pattern, text), fits, "{pattern} {text}");
        }
    }
}
