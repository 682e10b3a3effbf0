//! How a case goes: the course that most of them take, from a table row, or one of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use super::laws::Healing;
use super::log::Log;
use super::matrix::{self, Promise};
use super::trial::{SETUP, Setup, Trial};
use crate::harness::{Row, text};
use crate::ledger;

/// A fault and what the contract demands while it lasts. Everything else is demanded of all cases alike.
pub(super) struct Case {
    /// The fault script, as `musterd sandbox --faults` reads it. `$victim`, `$deleted` and so on are
    /// people's ids.
    pub(super) fault: &'static str,
    /// What the world begins with.
    pub(super) setup: Setup,
    /// Whether the fault is there before the first sync, so that the baseline is read through it.
    pub(super) from_start: bool,
    /// What else happens in the moment in which the fault begins.
    pub(super) edits: fn(&Trial),
    /// How long it lasts. At least one full sync falls into it.
    pub(super) lasts: Duration,
    /// How all full syncs end that began meanwhile.
    pub(super) full: Ends,
    /// The same of incremental ones.
    pub(super) incremental: Ends,
    /// What arrives of what went on in the directory, while the fault lasts.
    pub(super) meanwhile: Meanwhile,
    /// How often the instance starts failing; `None` where that is left open.
    pub(super) episodes: Option<usize>,
    /// The guards that open a hold, each with the attribute.
    pub(super) holds: &'static [(&'static str, Option<&'static str>)],
    /// Further warnings that the log has: each begins like this, and comes once.
    pub(super) warnings: &'static [&'static str],
    /// What else is demanded before the fault ends.
    pub(super) demands: fn(&Trial),
    /// How it heals.
    pub(super) healing: Healing,
}

/// A case in which nothing is demanded but what always is.
pub(super) const CASE: Case = Case {
    fault: "",
    setup: SETUP,
    from_start: false,
    edits: |_| {},
    lasts: Duration::from_mins(64),
    full: Ends::Complete,
    incremental: Ends::Complete,
    meanwhile: Meanwhile::All,
    episodes: Some(0),
    holds: &[],
    warnings: &[],
    demands: |_| {},
    healing: Healing::BY_ITSELF,
};

/// What is said once when incremental syncs turn out to be of no use.
pub(super) const NO_FILTER: &str = "the instance does not filter by `meta.lastModified`";

/// What is said once full syncs are not complete twice in a row.
pub(super) const INCOMPLETE: &str = "full syncs are not complete";

/// How syncs end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// Succeeded, with a `complete` certificate.
    Complete,
    /// Succeeded, `partial`.
    Partial,
    /// Failed, `refused`.
    Refused,
    /// Failed without a certificate.
    Fails,
    /// There is none at all.
    Never,
    /// Left open; `demands` may say more.
    Open,
}

/// What arrives while the fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// All of it: the mirror is the directory, and both leavers are gone.
    All,
    /// All but what needs a proof of absence: who was deleted stays as he was.
    AllButTheDeleted,
    /// Nothing: the feed and the watermark stand still.
    Nothing,
    /// Left open; `demands` may say more.
    Open,
}

/// How a case goes; what it gives are the promises that it was held against.
pub(super) trait Course {
    fn run(self, number: u64) -> BTreeSet<Promise>;
}

/// A course of a case's own, in a world that begins like this.
pub(super) struct Own<F>(pub(super) Setup, pub(super) F);

impl<F: AsyncFnOnce(&mut Trial)> Course for Own<F> {
    fn run(self, number: u64) -> BTreeSet<Promise> {
        let Self(setup, course) = self;
        in_a_world(number, setup, course)
    }
}

impl Course for Case {
    fn run(self, number: u64) -> BTreeSet<Promise> {
        let setup = self.setup;
        in_a_world(number, setup, async |trial: &mut Trial| {
            self.follow(trial).await
        })
    }
}

/// Makes a world in a runtime of its own, all of whose threads log to the trial.
pub(super) fn in_a_world(
    number: u64,
    setup: Setup,
    course: impl AsyncFnOnce(&mut Trial),
) -> BTreeSet<Promise> {
    let log = Log::default();
    tracing::dispatcher::with_default(&log.dispatch(), || {
        log.runtime().block_on(async {
            let mut trial = Trial::start(number, setup, &log).await;
            course(&mut trial).await;
            trial.promises.take()
        })
    })
}

impl Case {
    /// The course that most cases take.
    async fn follow(self, trial: &mut Trial) {
        if self.from_start {
            trial.fault(self.fault);
        }
        trial.baseline().await;
        if self.from_start {
            trial.seq_before = trial.seq();
            trial.watermark_before = trial.watermark();
        } else {
            trial.fault(self.fault);
        }
        trial.edit();
        (self.edits)(trial);
        trial.pass(self.lasts).await;

        for (mode, ends) in [("full", self.full), ("incremental", self.incremental)] {
            let syncs = trial.syncs(mode);
            assert_eq!(
                syncs.is_empty(),
                ends == Ends::Never && !self.from_start,
                "{mode} syncs while the fault lasted\n{}",
                trial.told()
            );
            for sync in &syncs {
                ends.judge(sync, trial);
            }
        }
        self.meanwhile.judge(trial);
        trial.opened(self.holds);
        trial.failed_so_often(self.episodes);
        trial.warned(self.warnings);
        (self.demands)(trial);
        trial.keeps_the_laws();

        trial.lift();
        trial.heals(&self.healing).await;
        trial.ends().await;
    }
}

impl Ends {
    #[track_caller]
    pub(super) fn judge(self, sync: &Row, trial: &Trial) {
        let outcome = text(sync, "outcome").unwrap();
        let certificate = Trial::certificate(sync);
        let verdict = certificate["verdict"].as_str().unwrap_or("none");
        let expected = match self {
            Self::Complete => ("succeeded", "complete"),
            Self::Partial => ("succeeded", "partial"),
            Self::Refused => ("failed", "refused"),
            Self::Fails => ("failed", "none"),
            Self::Never | Self::Open => return,
        };
        assert_eq!(
            (outcome.as_str(), verdict),
            expected,
            "{sync:?}\n{}",
            trial.told()
        );
    }
}

impl Meanwhile {
    #[track_caller]
    pub(super) fn judge(self, trial: &Trial) {
        let people = &trial.people;
        match self {
            Self::All => {
                trial.equals_the_directory();
                trial.went(&people.inactive, "inactive");
                trial.went(&people.deleted, "gone");
            }
            Self::AllButTheDeleted => {
                trial.equals_the_directory_but(&[&people.deleted]);
                trial.went(&people.inactive, "inactive");
                trial.stays(&people.deleted);
            }
            Self::Nothing => {
                assert_eq!(trial.seq(), trial.seq_before, "{}", trial.told());
                assert_eq!(trial.watermark(), trial.watermark_before);
            }
            Self::Open => {}
        }
    }
}

/// Runs a case to its end, and enters what it was held against.
pub(super) fn run(number: u64, name: &str, case: impl Course) {
    let promises = case.run(number);
    // A test cannot be called `202_not_executed`.
    let name = name.trim_start_matches('_');
    matrix::enter(name, &promises);
    ledger::enter_case("fault_cases", name);
}
