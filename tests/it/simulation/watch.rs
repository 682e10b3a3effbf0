//! Whoever looks on: it sees each request leave and each answer come, keeps what was true at that time,
//! counts towards the death of the flow, and holds what the mirror has against the laws.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use jiff::Timestamp;
use musterd::clock::Clock as _;
use musterd::sandbox::{Effect, InProcess, Poison, Sandbox};
use musterd::scim::client::{Answer, BoxFuture, Exchange, Request};
use musterd::scim::error::ExchangeError;
use musterd::sync::{Phase, Progress};
use tokio::sync::Notify;

use super::clock::LifeClock;
use super::edits::Edit;
use super::laws::{Broken, Laws};
use super::mishaps;
use super::plan::{Amid, Arm, Death, Plan, Trouble};
use super::truth::Truth;

/// Lines of what happened that a report of a broken law shows.
const LAST_LINES: usize = 60;

/// The number of what an edit made unreadable, beside those of faults.
const SPOILT: usize = usize::MAX;

/// Everything that is seen of one world.
pub(super) struct Watch {
    pub(super) clock: Arc<LifeClock>,
    sandboxes: BTreeMap<String, Sandbox>,
    seen: Mutex<Seen>,
    laws: Mutex<Laws>,
    doom: Notify,
}

/// What was seen so far.
pub(super) struct Seen {
    pub(super) truths: BTreeMap<String, Truth>,
    pub(super) requests: BTreeMap<String, Vec<Asked>>,
    /// How often each effect fired.
    pub(super) fired: BTreeMap<String, u64>,
    pub(super) broken: Option<Broken>,
    pub(super) lines: VecDeque<String>,
    /// All of them, for who compares two runs.
    pub(super) trace: Option<Vec<String>>,
    amid: Vec<Amid>,
    troubles: BTreeMap<usize, String>,
    death: Option<Death>,
    /// What was told and answered in this life.
    answers: u64,
    applies: u64,
    askings: u64,
    pub(super) phase: Option<Phase>,
}

/// One request, and what was answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// When it was sent.
    pub(super) at: Timestamp,
    /// Whose resource, where it was one.
    pub(super) id: Option<String>,
    /// When an answer came, and its status; `None` where none did.
    pub(super) answer: Option<(Timestamp, u16)>,
}

impl Watch {
    pub(super) fn new(
        plan: &Plan,
        clock: Arc<LifeClock>,
        sandboxes: BTreeMap<String, Sandbox>,
        laws: Laws,
        traced: bool,
    ) -> Self {
        let names = || sandboxes.keys().cloned();
        let seen = Seen {
            truths: names().map(|name| (name, Truth::default())).collect(),
            requests: names().map(|name| (name, Vec::new())).collect(),
            fired: BTreeMap::new(),
            broken: None,
            lines: VecDeque::new(),
            trace: traced.then(Vec::new),
            amid: plan.amid.clone(),
            troubles: BTreeMap::new(),
            death: None,
            answers: 0,
            applies: 0,
            askings: 0,
            phase: None,
        };
        let watch = Self {
            clock,
            seen: Mutex::new(seen),
            laws: Mutex::new(laws),
            doom: Notify::new(),
            sandboxes,
        };
        watch.observe();
        watch
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The laws, with what they know of the mirror.
    pub(super) fn laws(&self) -> MutexGuard<'_, Laws> {
        self.laws.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One of the instances.
    pub(super) fn sandbox(&self, name: &str) -> &Sandbox {
        &self.sandboxes[name]
    }

    /// Notes something that happened.
    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        let line = format!("{} {}", self.clock.now(), what());
        self.seen().note(line);
    }

    /// Notes how the directories are now.
    pub(super) fn observe(&self) {
        let at = self.clock.now();
        let mut seen = self.seen();
        for (name, truth) in &mut seen.truths {
            truth.observe(at, &self.sandboxes[name]);
        }
    }

    /// Lets somebody change a directory.
    pub(super) fn edit(&self, name: &str, edit: Edit, lot: u64) {
        self.note(|| format!("{name}: {edit:?}"));
        edit.happen(&self.sandboxes[name], lot);
        self.observe();
        let at = self.clock.now();
        if let Some(truth) = self.seen().truths.get_mut(name) {
            match edit {
                Edit::Spoil(_) => truth.begin(
                    at,
                    SPOILT,
                    Effect::PoisonedRow {
                        id: String::new(),
                        with: Poison::InvalidUtf8,
                    },
                ),
                Edit::Unspoil => truth.end(at, SPOILT),
                _ => {}
            }
        }
    }

    /// Lets a fault begin.
    pub(super) fn begin(&self, name: &str, trouble: Trouble) {
        let sandbox = &self.sandboxes[name];
        let fault = mishaps::fault(trouble, &sandbox.ids());
        self.note(|| format!("{name}: {} begins: {:?}", fault.name, fault.effect));
        let at = self.clock.now();
        let mut seen = self.seen();
        seen.troubles.insert(trouble.number, fault.effect.name());
        if let Some(truth) = seen.truths.get_mut(name) {
            truth.begin(at, trouble.number, fault.effect.clone());
        }
        drop(seen);
        sandbox.add_fault(fault);
    }

    /// Ends a fault, if it is in force still.
    pub(super) fn end(&self, name: &str, number: usize) {
        let sandbox = &self.sandboxes[name];
        let fault = mishaps::name(number);
        let fired = sandbox
            .fired()
            .into_iter()
            .find(|fired| fired.name == fault);
        let Some(fired) = fired else {
            return;
        };
        sandbox.remove_fault(&fault);
        self.note(|| format!("{name}: {fault} ends, fired {} times", fired.times));
        let at = self.clock.now();
        let mut seen = self.seen();
        let effect = seen.troubles.get(&number).cloned().unwrap_or_default();
        *seen.fired.entry(effect).or_default() += fired.times;
        if let Some(truth) = seen.truths.get_mut(name) {
            truth.end(at, number);
        }
    }

    /// A life begins, which ends like this.
    pub(super) fn begin_life(&self, death: Option<Death>) {
        let mut seen = self.seen();
        (seen.answers, seen.applies, seen.askings) = (0, 0, 0);
        (seen.phase, seen.death) = (None, death);
    }

    /// What was waited for has come: so many steps are left to live.
    pub(super) async fn doomed(&self) -> Death {
        loop {
            self.doom.notified().await;
            if let Some(death) = self.seen().death.take() {
                return death;
            }
        }
    }

    /// Nobody dies any more, and nothing happens between two requests.
    pub(super) fn spare(&self) {
        let mut seen = self.seen();
        seen.death = None;
        seen.amid.clear();
    }

    /// Holds the mirror against the laws, in turn with all other work on the disk.
    pub(super) async fn check(self: &Arc<Self>) {
        let watch = Arc::clone(self);
        let checked = tokio::task::spawn_blocking(move || watch.check_now());
        // It does not panic, and nothing aborts it but the end of this life.
        let _ended = checked.await;
    }

    /// Holds the mirror against the laws.
    pub(super) fn check_now(&self) {
        let now = self.clock.now();
        let mut laws = self.laws();
        if !laws.is_due() {
            return;
        }
        let mut seen = self.seen();
        if seen.broken.is_none()
            && let Err(broken) = laws.check(&seen, now)
        {
            seen.broken = Some(broken);
        }
    }

    /// A law is broken.
    pub(super) fn fail(&self, broken: Broken) {
        self.seen().broken.get_or_insert(broken);
    }

    /// Whether one is.
    pub(super) fn is_broken(&self) -> bool {
        self.seen().broken.is_some()
    }

    /// Told of a sync's progress.
    pub(super) fn progressed(&self, progress: &Progress) {
        let mut seen = self.seen();
        seen.phase = Some(progress.phase);
        match progress.phase {
            Phase::Applying => seen.applies += 1,
            Phase::Asking => seen.askings += 1,
            Phase::Probing | Phase::Reading => {}
        }
        self.toll(&seen);
    }

    fn toll(&self, seen: &Seen) {
        let is_due = seen.death.is_some_and(|death| match death.after {
            Arm::Answer(n) => seen.answers >= n,
            Arm::Apply(n) => seen.applies >= n,
            Arm::Asking(n) => seen.askings >= n,
        });
        if is_due {
            self.doom.notify_one();
        }
    }

    /// What was to happen before the request that is sent now.
    fn amid(&self, name: &str) {
        let mut seen = self.seen();
        let place = self.sandboxes.keys().position(|known| known == name);
        let number = seen.requests[name].len() as u64 + 1;
        let due = |amid: &Amid| Some(amid.instance) == place && amid.request == number;
        let edits: Vec<Amid> = seen.amid.extract_if(.., |amid| due(amid)).collect();
        drop(seen);
        for amid in edits {
            self.note(|| format!("{name}: between two requests"));
            self.edit(name, amid.edit, amid.lot);
        }
    }

    /// A request leaves. Returns its place among the requests.
    fn sent(&self, name: &str, id: Option<String>) -> usize {
        let at = self.clock.now();
        let mut seen = self.seen();
        let requests = seen.requests.entry(name.to_owned()).or_default();
        requests.push(Asked {
            at,
            id,
            answer: None,
        });
        requests.len() - 1
    }

    fn answered(&self, name: &str, place: usize, status: Option<u16>, line: &str) {
        let now = self.clock.now();
        let mut seen = self.seen();
        seen.answers += 1;
        let told = status.map_or("no answer".to_owned(), |status| status.to_string());
        seen.note(format!("{now} {name}: {line}: {told}"));
        if let (Some(requests), Some(status)) = (seen.requests.get_mut(name), status) {
            requests[place].answer = Some((now, status));
        }
        self.toll(&seen);
    }
}

impl Seen {
    fn note(&mut self, line: String) {
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        if let Some(trace) = &mut self.trace {
            trace.push(line.clone());
        }
        self.lines.push_back(line);
    }
}

/// The line to an instance, looked at.
pub(super) struct Line {
    name: String,
    line: InProcess,
    watch: Arc<Watch>,
}

impl Line {
    pub(super) fn new(name: &str, line: InProcess, watch: Arc<Watch>) -> Self {
        Self {
            name: name.to_owned(),
            line,
            watch,
        }
    }
}

impl Exchange for Line {
    fn exchange(&self, request: Request) -> BoxFuture<'_, Result<Answer, ExchangeError>> {
        Box::pin(async move {
            self.watch.amid(&self.name);
            let line = match request.url.query() {
                Some(query) => format!("{} {}?{query}", request.method, request.url.path()),
                None => format!("{} {}", request.method, request.url.path()),
            };
            let place = self.watch.sent(&self.name, asked_for(request.url.path()));
            let mut answer = pin!(self.line.exchange(request));
            // The instance answers at once, then the answer travels: what its directory was is seen here.
            let first = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
            self.watch.observe();
            let answer = match first {
                Poll::Ready(answer) => answer,
                Poll::Pending => answer.await,
            };
            let status = answer.as_ref().ok().map(|answer| answer.status.as_u16());
            self.watch.answered(&self.name, place, status, &line);
            self.watch.check().await;
            answer
        })
    }
}

/// The id in a path of one resource.
fn asked_for(path: &str) -> Option<String> {
    let (_, id) = path.split_once("/Users/")?;
    let pair = format!("id={}", id.replace('+', "%2B"));
    let (_, id) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
    Some(id.into_owned())
}
