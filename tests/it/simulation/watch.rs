//! Whoever looks on: it sees each request leave and each answer come, keeps what was true at that time,
//! counts towards the death of the flow, and holds what the mirror has against the laws.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use musterd::clock::Clock as _;
use musterd::sandbox::{Effect, InProcess, Poison, Sandbox};
use musterd::scim::client::{Answer, BoxFuture, Exchange, Request};
use musterd::scim::error::ExchangeError;
use musterd::sync::{Phase, Progress};
use tokio::sync::Notify;
use url::Url;

use super::clock::LifeClock;
use super::edits::{Edit, GroupEdit};
use super::laws::{Broken, Laws};
use super::mishaps::{self, Reach};
use super::plan::{Amid, Arm, Death, Plan, Race, Trouble};
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
    /// A race whose page has not been asked for.
    race: Option<Racing>,
    troubles: BTreeMap<usize, String>,
    death: Option<Death>,
    /// What was told and answered in this life.
    answers: u64,
    applies: u64,
    askings: u64,
    pub(super) phase: Option<Phase>,
}

/// A race that has begun.
struct Racing {
    instance: String,
    race: Race,
    on_its_way: Arc<Notify>,
}

/// One request, and what was answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// When it was sent.
    pub(super) at: Timestamp,
    /// Whether it is about groups.
    pub(super) is_of_groups: bool,
    /// Whose resource, where it was one.
    pub(super) id: Option<String>,
    /// Whether it asks for a page of those who changed, as incremental syncs do.
    pub(super) is_page_of_changes: bool,
    /// When an answer came, and its status; `None` where none did.
    pub(super) answer: Option<(Timestamp, u16)>,
    /// The body of an answer of late.
    pub(super) body: Option<Bytes>,
}

/// Bodies are kept for as long as somebody may go on with what he has read, and some more.
const BODIES_KEPT: SignedDuration = SignedDuration::from_hours(8);

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
            race: None,
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
                Edit::Spoil(_) | Edit::Group(GroupEdit::Spoil) => truth.begin(
                    at,
                    SPOILT,
                    Effect::PoisonedRow {
                        id: String::new(),
                        with: Poison::InvalidUtf8,
                    },
                    Reach::Both,
                ),
                Edit::Unspoil => truth.end(at, SPOILT),
                _ => {}
            }
        }
    }

    /// Lets a fault begin.
    pub(super) fn begin(&self, name: &str, trouble: Trouble) {
        let sandbox = &self.sandboxes[name];
        let ids = match mishaps::is_of_groups(trouble.kind) {
            true => sandbox.group_ids(),
            false => sandbox.ids(),
        };
        let (fault, reach) = mishaps::fault(trouble, &ids);
        self.note(|| format!("{name}: {} begins: {:?}", fault.name, fault.effect));
        let at = self.clock.now();
        let mut seen = self.seen();
        seen.troubles.insert(trouble.number, fault.effect.name());
        if let Some(truth) = seen.truths.get_mut(name) {
            truth.begin(at, trouble.number, fault.effect.clone(), reach);
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
        seen.race = None;
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
        seen.race = None;
    }

    /// Holds the mirror against the laws, if anything was committed since the last time.
    pub(super) fn check(&self) {
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

    /// One of the next pages of a full sync is to be late. Tells when it is on its way, or never will be.
    pub(super) fn begin_race(&self, name: &str, race: Race) -> Arc<Notify> {
        let on_its_way = Arc::new(Notify::new());
        self.seen().race = Some(Racing {
            instance: name.to_owned(),
            race,
            on_its_way: Arc::clone(&on_its_way),
        });
        on_its_way
    }

    /// No page is to be late any more.
    pub(super) fn end_race(&self) {
        if let Some(racing) = self.seen().race.take() {
            racing.on_its_way.notify_one();
        }
    }

    /// The race that is about the page that is asked for now.
    fn raced(&self, name: &str, url: &Url) -> Option<Racing> {
        let mut seen = self.seen();
        let racing = seen.race.as_mut()?;
        if racing.instance != name
            || !is_page(url)
            || is_of_changes(url)
            || is_of_groups(url) != racing.race.is_of_groups
        {
            return None;
        }
        racing.race.page -= 1;
        match racing.race.page {
            0 => seen.race.take(),
            _ => None,
        }
    }

    /// The answer of the instance is on its way, and is late.
    async fn delay(&self, racing: &Racing) {
        let Racing {
            instance,
            race,
            on_its_way,
        } = racing;
        let began = self.clock.now();
        tokio::time::sleep(race.undone_after).await;
        let undo = race.undo.unwrap_or_else(|| {
            let passed = Duration::try_from(self.clock.now().duration_since(began));
            Edit::Restore(passed.unwrap_or_default() + Duration::from_millis(1))
        });
        self.edit(instance, undo, race.lot);
        on_its_way.notify_one();
        tokio::time::sleep(race.late).await;
    }

    /// A request leaves. Returns its place among the requests.
    fn sent(&self, name: &str, url: &Url) -> usize {
        let at = self.clock.now();
        let mut seen = self.seen();
        let requests = seen.requests.entry(name.to_owned()).or_default();
        let old = |asked: &&mut Asked| at.duration_since(asked.at) > BODIES_KEPT;
        let old = requests.iter_mut().rev().skip_while(|asked| !old(asked));
        for asked in old.take_while(|asked| asked.body.is_some()) {
            asked.body = None;
        }
        requests.push(Asked {
            at,
            is_of_groups: is_of_groups(url),
            id: asked_for(url.path()),
            is_page_of_changes: is_page(url) && is_of_changes(url),
            answer: None,
            body: None,
        });
        requests.len() - 1
    }

    fn answered(
        &self,
        name: &str,
        place: usize,
        answer: Result<&Answer, &ExchangeError>,
        line: &str,
    ) {
        let now = self.clock.now();
        let mut seen = self.seen();
        seen.answers += 1;
        let told = answer.map_or("no answer".to_owned(), |answer| {
            answer.status.as_u16().to_string()
        });
        seen.note(format!("{now} {name}: {line}: {told}"));
        if let (Some(requests), Ok(answer)) = (seen.requests.get_mut(name), answer) {
            requests[place].answer = Some((now, answer.status.as_u16()));
            requests[place].body = Some(answer.body.clone());
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
            // What was committed until now was committed before this request.
            self.watch.check();
            self.watch.amid(&self.name);
            let racing = self.watch.raced(&self.name, &request.url);
            if let Some(Racing { race, .. }) = &racing {
                self.watch.edit(&self.name, race.edit, race.lot);
            }
            let line = match request.url.query() {
                Some(query) => format!("{} {}?{query}", request.method, request.url.path()),
                None => format!("{} {}", request.method, request.url.path()),
            };
            let place = self.watch.sent(&self.name, &request.url);
            let mut answer = pin!(self.line.exchange(request));
            // The instance answers at once, then the answer travels: what its directory was is seen here.
            let first = poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await;
            self.watch.observe();
            if let Some(racing) = &racing {
                self.watch.delay(racing).await;
            }
            let answer = match first {
                Poll::Ready(answer) => answer,
                Poll::Pending => answer.await,
            };
            self.watch
                .answered(&self.name, place, answer.as_ref(), &line);
            self.watch.check();
            answer
        })
    }
}

/// Whether a request is for a page. Who asks for a row or two only tries what is honoured.
fn is_page(url: &Url) -> bool {
    let count = url.query_pairs().find(|(name, _)| name == "count");
    count.is_some_and(|(_, count)| !["0", "1", "2"].contains(&&*count))
}

/// Whether a request is about groups.
fn is_of_groups(url: &Url) -> bool {
    url.path().contains("/Groups")
}

/// Whether a request is for those who changed.
fn is_of_changes(url: &Url) -> bool {
    url.query_pairs()
        .any(|(name, value)| name == "filter" && value.contains("meta.lastModified"))
}

/// The id in a path of one resource.
fn asked_for(path: &str) -> Option<String> {
    let (_, id) = path
        .split_once("/Users/")
        .or_else(|| path.split_once("/Groups/"))?;
    let pair = format!("id={}", id.replace('+', "%2B"));
    let (_, id) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
    Some(id.into_owned())
}
