//! What holds in every case, whatever the fault. Each law enters the promise that it is about.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use musterd::control::{Ended, Request};
use musterd::mirror::read::Reader;
use musterd::sandbox::Logged;
use serde_json::Value;

use super::matrix::Promise::{self, P1, P2, P3, P4, P5, P7, P8, P9, P10, P11, P12};
use super::trial::{ACME, GLOBEX, Trial};
use crate::harness::{Row, text};
use crate::scim2_server::expected::{expected_attributes, expected_columns};

/// How it goes on once the fault has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Healing {
    /// Within how long all must be well.
    pub(super) within: Duration,
    /// Whether a person has to approve what is still held then: who really left is in the hold, too.
    pub(super) approves: bool,
    /// Why the leaver who was made inactive is inactive in the end.
    pub(super) inactive: &'static str,
    /// And what became of the one who was deleted.
    pub(super) deleted: &'static str,
}

impl Healing {
    /// Within one full period.
    pub(super) const BY_ITSELF: Self = Self {
        within: Duration::from_mins(38),
        approves: false,
        inactive: "inactive",
        deleted: "gone",
    };

    /// The real leaver is in a hold, and a person says so.
    pub(super) const BY_APPROVAL: Self = Self {
        approves: true,
        ..Self::BY_ITSELF
    };
}

/// So many blankings of one attribute are always believed: `guard.blanking.at_least`.
const AT_LEAST: usize = 5;

/// No sync asks more often than this, whatever the instance does: the pages that there are, one by one,
/// and the pages without anybody that a crawl takes before it ends.
const MOST_REQUESTS_OF_A_SYNC: i64 = 1_000;

impl Trial {
    pub(super) fn keeps(&self, promise: Promise) {
        self.promises.borrow_mut().insert(promise);
    }

    /// All laws that hold at any time.
    #[track_caller]
    pub(super) fn keeps_the_laws(&self) {
        self.look();
        self.nobody_left_by_mistake();
        self.nobody_was_blanked();
        self.outcomes_are_honest();
        if self.clocks_go.get() {
            self.the_other_one_was_on_time();
        }
        self.the_rate_was_kept();
        self.the_log_is_calm();
        self.secrets_stayed();
    }

    /// P1: whoever was deactivated has left; and who is gone was proved to be.
    #[track_caller]
    fn nobody_left_by_mistake(&self) {
        let left = self.left.borrow();
        let active = self.whose(|user| user.active);
        let records = self.rows(&format!(
            "SELECT * FROM changes WHERE instance = 'acme' AND resource = 'User' AND seq > {}
                AND (kind = 'deactivate' OR reason = 'gone')",
            self.seq_before
        ));
        for record in records {
            let id = text(&record, "id").unwrap();
            assert!(
                left.contains(&id) || !active.contains(&id),
                "{id} lives and was deactivated: {record:?}\n{}",
                self.told()
            );
            if text(&record, "reason").as_deref() == Some("gone") {
                self.was_proved(&record, "Users");
            }
        }
        for user in self.rows("SELECT id, active, gone_at FROM users WHERE instance = 'acme'") {
            let id = text(&user, "id").unwrap();
            if active.contains(&id) && !left.contains(&id) {
                let state = (text(&user, "active"), text(&user, "gone_at"));
                assert_eq!(
                    state,
                    (Some("1".into()), None),
                    "{id} lives\n{}",
                    self.told()
                );
            }
        }
        self.keeps(P1);
    }

    /// The instance itself has it on record that it said 404 to this id, between two answers about
    /// others.
    #[track_caller]
    pub(super) fn was_proved(&self, record: &Row, endpoint: &str) {
        let id = text(record, "id").unwrap();
        let proof = text(record, "proof").unwrap_or_else(|| panic!("no proof: {record:?}"));
        let proof: Value = serde_json::from_str(&proof).unwrap();
        let requests = self.sandbox().requests();
        let answered = |of: &str, status: u16, fits: &dyn Fn(&Logged) -> bool| {
            let path = format!("/{endpoint}/{of}");
            requests.iter().any(|request| {
                request.line.ends_with(&path) && request.status == status && fits(request)
            })
        };
        let witness = |place: usize| {
            let witness = &proof["witnesses"][place]["id"];
            witness.as_str().expect("a witness").to_owned()
        };
        let asked = |request: &&Logged| answered(&id, 404, &|r| r == *request);
        let mut times = requests.iter().filter(asked).map(|request| request.at);
        // Who was in a group may be asked for again later, for another reason.
        let is_between = times.any(|at| {
            answered(&witness(0), 200, &|r| r.at <= at)
                && answered(&witness(1), 200, &|r| r.at >= at)
        });
        assert!(is_between, "{id} was not asked for so: {proof}");
        assert!(witness(0) != id && witness(1) != id);
    }

    /// Where an attribute turned empty, the directory has it empty.
    #[track_caller]
    fn nobody_was_blanked(&self) {
        let records = self.rows(&format!(
            "SELECT seq, id, changed FROM changes
             WHERE instance = 'acme' AND resource = 'User' AND changed LIKE '%\"to\":null%' AND seq > {}",
            self.seq_before
        ));
        for record in records {
            let id = text(&record, "id").unwrap();
            let Some(user) = self.shown(&id) else {
                continue;
            };
            let columns: BTreeMap<_, _> = expected_columns(&user).into_iter().collect();
            let changed: BTreeMap<String, Value> =
                serde_json::from_str(&text(&record, "changed").unwrap()).unwrap();
            for (path, change) in changed {
                if !change["to"].is_null() || path == "gone_at" {
                    continue;
                }
                let has = match columns.get(path.as_str()) {
                    Some(value) => value.is_some(),
                    None => has_at(&user, &path),
                };
                let few = *self.few_blanked.borrow() == Some(path.as_str());
                assert!(
                    !has || few && self.blanked(&path).len() <= AT_LEAST,
                    "`{path}` of {id} was blanked, and the directory has it: {record:?}\n{}",
                    self.told()
                );
            }
        }
        self.keeps(P1);
    }

    /// P2: a sync has written what its row says, and one that failed nothing; a certificate is `complete`
    /// only if its numbers are.
    #[track_caller]
    fn outcomes_are_honest(&self) {
        let syncs = self.rows(
            "SELECT syncs.*, (SELECT count(*) FROM changes WHERE sync_id = syncs.id) AS records
             FROM syncs",
        );
        for sync in syncs {
            let number = |column| text(&sync, column).unwrap().parse::<i64>().unwrap();
            let failed = text(&sync, "outcome").as_deref() != Some("succeeded");
            let written = number("created") + number("updated") + number("deactivated");
            assert_eq!(number("records"), written, "{sync:?}");
            assert_eq!(failed, text(&sync, "error").is_some(), "{sync:?}");
            assert!(!failed || written == 0, "{sync:?}");
            assert!(number("requests") <= MOST_REQUESTS_OF_A_SYNC, "{sync:?}");
            let certificate = Self::certificate(&sync);
            if certificate["verdict"] == "complete" && text(&sync, "mode").unwrap() == "full" {
                assert_eq!(
                    certificate["distinct"], certificate["total_before"],
                    "{sync:?}"
                );
                assert_eq!(
                    certificate["distinct"], certificate["total_after"],
                    "{sync:?}"
                );
            }
        }
        self.keeps(P2);
    }

    /// P7: the instance beside it was synced when it was due, each time with success.
    #[track_caller]
    fn the_other_one_was_on_time(&self) {
        let syncs = self.rows(&format!(
            "SELECT started_at, outcome FROM syncs
             WHERE instance = '{GLOBEX}' AND trigger = 'schedule' ORDER BY id"
        ));
        let mut before: Option<Timestamp> = None;
        for sync in &syncs {
            assert_eq!(
                text(sync, "outcome").as_deref(),
                Some("succeeded"),
                "{sync:?}"
            );
            let at: Timestamp = text(sync, "started_at").unwrap().parse().unwrap();
            // Ticks are on the quarter.
            let late = at.as_second().rem_euclid(15 * 60);
            assert!(late <= 31, "{late} s late: {sync:?}");
            if let Some(before) = before {
                let pause = at.duration_since(before).as_secs();
                assert!(pause <= 15 * 60 + 31, "a tick was left out before {sync:?}");
            }
            before = Some(at);
        }
        assert!(!syncs.is_empty(), "none was due yet");
        self.keeps(P7);
    }

    /// P8: what the instances have seen of it.
    #[track_caller]
    pub(super) fn the_rate_was_kept(&self) {
        for (name, sandbox) in self.world.sandboxes() {
            let at: Vec<i64> = sandbox
                .requests()
                .iter()
                .map(|request| request.at.as_millisecond())
                .collect();
            // Of the n requests from one to another, both included: no more than `burst` and what
            // `per_second` adds. The longest of windows is the one with the hour's limit.
            let mut least = i64::MAX;
            for (n, at) in (0..).zip(&at) {
                // `at - n / per_second` never falls by more than the burst.
                let level = at - 1_000 * n / 4;
                least = least.min(-level);
                let used = 1 + (-level - least) * 4 / 1_000;
                assert!(used <= 8, "{name}: {used} at once above the rate");
            }
            for (n, first) in at.iter().enumerate() {
                let within = at[n..].partition_point(|at| *at < first + 3_600_000);
                assert!(within <= 3_600, "{name}: {within} requests within an hour");
            }
        }
        self.keeps(P8);
    }

    /// One line when an instance starts failing, one when it is well again, one for each hold; and
    /// nobody's name or address.
    #[track_caller]
    fn the_log_is_calm(&self) {
        let lines = self.log.lines();
        let n = |level: &str, message: &str| {
            let fits =
                |line: &&super::log::Line| line.level == level && line.message.starts_with(message);
            lines.iter().filter(fits).count()
        };
        // An incremental sync that saw nobody says nothing of an instance whose full syncs fail.
        let (mut episodes, mut over) = (0, 0);
        for resource in ["User", "Group"] {
            let outcomes = self.list(&format!(
                "SELECT outcome FROM syncs
                 WHERE instance = 'acme' AND resource = '{resource}' AND outcome <> 'cancelled'
                     AND (outcome = 'failed' OR mode = 'full' OR seen > 0) ORDER BY id",
            ));
            let failing = |at: usize| outcomes.get(at).is_some_and(|one| one == "failed");
            let begun = (0..outcomes.len())
                .filter(|at| failing(*at) && !(*at > 0 && failing(at - 1)))
                .count();
            episodes += begun;
            over += begun - usize::from(outcomes.last().is_some_and(|one| one == "failed"));
        }
        assert_eq!(
            n("WARN", "instance started failing"),
            episodes,
            "{}",
            self.told()
        );
        assert_eq!(n("WARN", "instance recovered"), over, "{}", self.told());
        let holds: i64 = self.one("SELECT count(*) FROM holds");
        assert_eq!(n("ERROR", "") as i64, holds, "{}", self.told());

        let people = self.sandbox().with_directory(|directory| {
            use musterd::sandbox::Column::{Email, LastName, UserName};
            let of = |user: &musterd::sandbox::User| {
                [UserName, Email, LastName].map(|column| user.get(column).to_owned())
            };
            directory
                .users()
                .iter()
                .flat_map(|user| of(user))
                .collect::<BTreeSet<_>>()
        });
        let text = self.log.text();
        for person in people.iter().filter(|text| text.chars().count() > 4) {
            assert!(!text.contains(person.as_str()), "`{person}` is in the log");
        }
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!text.contains(steers), "a control character is in the log");
    }

    /// P11: no secret and no token in the log or in any file beside the configuration.
    #[track_caller]
    fn secrets_stayed(&self) {
        let rules = self.sandbox().auth();
        let secrets = [
            rules.client_secret,
            rules.password,
            self.sandbox().issue_token(),
        ];
        let mut places = vec![("the log".to_owned(), self.log.text())];
        for suffix in ["", "-wal"] {
            let path = format!("{}{suffix}", self.world.mirror_path().display());
            let bytes = std::fs::read(&path).unwrap_or_default();
            places.push((path, String::from_utf8_lossy(&bytes).into_owned()));
        }
        for secret in &secrets {
            for (place, text) in &places {
                assert!(!text.contains(secret.as_str()), "a secret in {place}");
            }
        }
        self.keeps(P11);
    }

    /// Since the fault began, these guards opened a hold, and no others.
    #[track_caller]
    pub(super) fn opened(&self, expected: &[(&str, Option<&str>)]) {
        let mut found = Vec::new();
        for hold in self.rows("SELECT guard, attribute FROM holds ORDER BY id") {
            found.push((text(&hold, "guard").unwrap(), text(&hold, "attribute")));
        }
        let found: Vec<(&str, Option<&str>)> = found
            .iter()
            .map(|(guard, attribute)| (guard.as_str(), attribute.as_deref()))
            .collect();
        assert_eq!(found, expected, "{}", self.told());
        self.keeps(P5);
    }

    /// The one open hold keeps back exactly these.
    #[track_caller]
    pub(super) fn holds_exactly(&self, expected: &BTreeSet<String>) {
        let held: BTreeSet<String> = self
            .list("SELECT id FROM users_held WHERE instance = 'acme'")
            .into_iter()
            .collect();
        assert_eq!(&held, expected, "{}", self.told());
        let counted: i64 = self.one("SELECT count FROM holds WHERE state = 'open'");
        assert_eq!(counted, expected.len() as i64);
        self.keeps(P5);
    }

    /// Exactly these are in `rejects`.
    #[track_caller]
    pub(super) fn rejects_exactly(&self, expected: &[&str]) {
        assert_eq!(self.rejected(), expected, "{}", self.told());
        self.keeps(P9);
    }

    /// So often the instance started failing.
    #[track_caller]
    pub(super) fn failed_so_often(&self, expected: Option<usize>) {
        if let Some(expected) = expected {
            let n = self.n_lines("WARN", "instance started failing");
            assert_eq!(n, expected, "{}", self.told());
        }
    }

    /// Beside those about failing, the log has these warnings, each once.
    #[track_caller]
    pub(super) fn warned(&self, expected: &[&str]) {
        let known = ["instance started failing", "instance recovered"];
        let lines = self.log.lines();
        let found: Vec<&str> = lines
            .iter()
            .filter(|line| line.level == "WARN" && !known.contains(&line.message.as_str()))
            .map(|line| line.message.as_str())
            .collect();
        let fits = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, start)| found.starts_with(start));
        assert!(
            fits,
            "warned of {found:#?}, and not of {expected:#?}\n{}",
            self.told()
        );
    }

    pub(super) fn n_lines(&self, level: &str, message: &str) -> usize {
        let lines = self.log.lines();
        let fits = lines
            .iter()
            .filter(|line| line.level == level && line.message.starts_with(message));
        fits.count()
    }

    /// A user as the instance shows him when nothing is wrong.
    pub(super) fn shown(&self, id: &str) -> Option<Value> {
        let json = self.sandbox().user_json(id)?;
        Some(serde_json::from_str(&json).unwrap())
    }

    /// The mirror is the directory: column by column, and the whole resource.
    #[track_caller]
    pub(super) fn equals_the_directory(&self) {
        self.equals_the_directory_but(&[]);
    }

    /// The same, but for these, who are looked at elsewhere.
    #[track_caller]
    pub(super) fn equals_the_directory_but(&self, but: &[&str]) {
        let rows = self.rows("SELECT * FROM users WHERE instance = 'acme' AND gone_at IS NULL");
        let mut rows: BTreeMap<String, Row> = rows
            .into_iter()
            .map(|row| (text(&row, "id").unwrap(), row))
            .collect();
        rows.retain(|id, _| !but.contains(&id.as_str()));
        for id in self.sandbox().ids() {
            if but.contains(&id.as_str()) {
                continue;
            }
            let shown = self.shown(&id).unwrap();
            let row = rows
                .remove(&id)
                .unwrap_or_else(|| panic!("{id} is not in the mirror\n{}", self.told()));
            for (column, expected) in expected_columns(&shown) {
                assert_eq!(
                    text(&row, column),
                    expected,
                    "`{column}` of {id}\n{}",
                    self.told()
                );
            }
            let kept: Value = serde_json::from_str(&text(&row, "attributes").unwrap()).unwrap();
            let expected = without_links(expected_attributes(&shown));
            assert_eq!(without_links(kept), expected, "{}", self.told());
        }
        let more: Vec<&String> = rows.keys().collect();
        assert_eq!(
            more,
            Vec::<&String>::new(),
            "they are gone\n{}",
            self.told()
        );
    }

    /// Somebody left, for this reason, and once.
    #[track_caller]
    pub(super) fn went(&self, id: &str, reason: &str) {
        assert_eq!(
            self.column(id, "active").as_deref(),
            Some("0"),
            "{}",
            self.told()
        );
        let records = self.records_of(id);
        assert!(
            records.iter().any(|one| one.ends_with(reason)),
            "{records:?} of {id}\n{}",
            self.told()
        );
        let deactivated = records.iter().filter(|one| one.starts_with("deactivate"));
        assert!(deactivated.count() <= 1, "{records:?}");
        let is_gone = self.column(id, "gone_at").is_some();
        assert_eq!(is_gone, reason == "gone");
        self.keeps(P1);
    }

    /// Somebody is as he was.
    #[track_caller]
    pub(super) fn stays(&self, id: &str) {
        let state = (self.column(id, "active"), self.column(id, "gone_at"));
        assert_eq!(state, (Some("1".into()), None), "{id}\n{}", self.told());
        assert_eq!(self.records_of(id), Vec::<String>::new(), "{}", self.told());
        self.keeps(P1);
    }

    /// Lets the next syncs come, and sees that all is well then.
    pub(super) async fn heals(&self, healing: &Healing) {
        self.pass(healing.within).await;
        if healing.approves {
            for hold in self.rows("SELECT id, digest FROM holds WHERE state = 'open'") {
                let hold_id = text(&hold, "id").unwrap().parse().unwrap();
                self.approves(hold_id, &text(&hold, "digest").unwrap())
                    .await;
            }
        }
        self.equals_the_directory();
        self.went(&self.people.inactive, healing.inactive);
        match healing.deleted {
            "gone" => self.went(&self.people.deleted, "gone"),
            returned => {
                let records = self.records_of(&self.people.deleted);
                assert!(
                    records.iter().any(|one| one.ends_with(returned)),
                    "{records:?}"
                );
            }
        }
        self.is_well();
        self.keeps_the_laws();
    }

    /// A person approves a hold; every answer is that it stood, or that it does not any more.
    pub(super) async fn approves(&self, hold_id: i64, digest: &str) -> Vec<Value> {
        let digest = digest.to_owned();
        let (ended, rows) = self.command(Request::Approve { hold_id, digest }).await;
        assert_eq!(ended, Ended::Done, "{rows:?}\n{}", self.told());
        rows
    }

    /// Nothing is held, nothing is rejected, and the instance is healthy.
    #[track_caller]
    pub(super) fn is_well(&self) {
        assert_eq!(self.state(), "healthy", "{}", self.told());
        let open = self.list("SELECT guard FROM holds WHERE state = 'open'");
        assert_eq!(open, Vec::<String>::new(), "{}", self.told());
        let held: i64 = self.one("SELECT count(*) FROM users_held");
        assert_eq!(held, 0);
        assert_eq!(self.rejected(), Vec::<String>::new(), "{}", self.told());
        let counted: i64 = self.one("SELECT rejects FROM mirror_health WHERE instance = 'acme'");
        assert_eq!(counted, 0, "{}", self.told());
        self.keeps(P9);
    }

    /// A quiet half hour in which nothing is written, and then the end.
    pub(super) async fn ends(&mut self) {
        let contents = |trial: &Self| {
            trial.list(
                "SELECT json_array(instance, id, attributes, changed_seq, changed_at, gone_at) FROM users
                 UNION ALL
                 SELECT json_array(instance, id, attributes, changed_seq, gone_at, member_count, members_known) FROM groups
                 UNION ALL
                 SELECT json_array(instance, group_id, member_id, label, changed_seq, ended_at) FROM memberships",
            )
        };
        let before = (self.seq(), contents(self));
        let since: i64 = self.one("SELECT max(id) FROM syncs");
        self.pass(Duration::from_mins(31)).await;
        assert_eq!(
            (self.seq(), contents(self)),
            before,
            "nothing changed, and something was written\n{}",
            self.told()
        );
        self.keeps(P4);
        self.cost_little(since);

        self.world.stop().await;
        self.look();
        self.follower.borrow().read_again();
        assert!(self.follower.borrow().n_looks() > 30);
        self.keeps(P3);
        self.keeps(P12);
        self.verifies();
        self.keeps_the_laws();
        let strays: i64 =
            self.one("SELECT count(*) FROM changes WHERE sync_id NOT IN (SELECT id FROM syncs)");
        assert_eq!(strays, 0, "records without their sync");
        let stages = std::fs::read_dir(self.world.folder()).unwrap();
        let stages = stages.map(|entry| entry.unwrap().file_name());
        let stages: Vec<_> = stages
            .filter(|name| name.to_string_lossy().contains(".stage-"))
            .collect();
        assert!(stages.is_empty(), "left behind: {stages:?}");
        self.keeps(P2);
    }

    /// P3: `verify` finds nothing.
    #[track_caller]
    pub(super) fn verifies(&self) {
        let reader = Reader::open(&self.world.mirror_path()).unwrap();
        let verified = reader.verify(&mut |_| {}).unwrap();
        assert_eq!(verified.difference, None);
        self.keeps(P3);
    }

    /// P10: an incremental sync that finds nothing asks little, a full one what there is.
    #[track_caller]
    fn cost_little(&self, since: i64) {
        let syncs = self.rows(&format!(
            "SELECT mode, resource, requests, seen, outcome FROM syncs WHERE instance = '{ACME}' AND id > {since}"
        ));
        let n_users = self.sandbox().ids().len() as i64;
        let n_groups = self.sandbox().group_ids().len() as i64;
        for sync in &syncs {
            let number = |column| text(sync, column).unwrap().parse::<i64>().unwrap();
            let requests = number("requests");
            let n_rows = match text(sync, "resource").as_deref() {
                Some("Group") => n_groups,
                _ => n_users,
            };
            let most = match text(sync, "mode").as_deref() {
                // A token, and the pages of what was stamped within the overlap.
                Some("incremental") => 4 + number("seen") / 20,
                // Probing, counting twice, and pages of 20 in up to sixteen ranges, each with its end.
                _ => 14 + n_rows / 20 + 2 * 16,
            };
            assert!(requests <= most, "{sync:?}\n{}", self.told());
        }
        assert!(syncs.len() >= 6, "{syncs:?}");
        self.keeps(P10);
    }
}

/// Whether a resource has something at a path that is no column: `name.middleName`, `addresses`,
/// `urn:…:User:gender`.
fn has_at(user: &Value, path: &str) -> bool {
    let value = match path.rsplit_once(':') {
        Some((urn, name)) => &user[urn][name],
        None => match path.split_once('.') {
            Some((whole, part)) => &user[whole][part],
            None => &user[path],
        },
    };
    !matches!(value, Value::Null) && value.as_array().is_none_or(|values| !values.is_empty())
}

/// A resource without its links, which are no content.
fn without_links(mut value: Value) -> Value {
    match &mut value {
        Value::Object(members) => {
            members.remove("$ref");
            for member in members.values_mut() {
                *member = without_links(member.take());
            }
        }
        Value::Array(elements) => {
            for element in elements {
                *element = without_links(element.take());
            }
        }
        _ => {}
    }
    value
}
