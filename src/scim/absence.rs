//! Asking for those whom a complete crawl did not see, one by one, between witnesses: the second half
//! of promise P1. Nothing but a 404 between two 200s is evidence; everything else leaves them be.

use jiff::Timestamp;

use super::client::{Asked, Session};
use super::crawl::Head;
use super::error::Error;
use crate::clock::Clock;
use crate::model::{Base, Proof, ResourceId, ResourceType, Row, Shares, Witness};

/// Candidates between two witnesses.
pub const BATCH: usize = 20;

/// How many are tried as one witness: some of those whom the crawl saw may have left since.
const MOST_TRIED_AS_WITNESS: usize = 3;

/// Questions without an answer, one behind the other, after which an instance is taken to fail.
const MOST_UNANSWERED_IN_A_ROW: u32 = 3;

/// Candidates who have the same in common with their witnesses.
#[derive(Clone, Debug)]
pub struct Group {
    /// Who is to be asked for.
    pub candidates: Vec<ResourceId>,
    /// What they share with `same`.
    pub shares: Shares,
    /// Living users whom this crawl saw and who share it. Where there are none although they should
    /// share something, sight may be lost, and nobody is asked for.
    pub same: Vec<ResourceId>,
    /// Any living users whom this crawl saw: the witnesses with [`Shares::Nothing`].
    pub anybody: Vec<ResourceId>,
}

/// What asking for one candidate gave.
#[derive(Clone, Debug)]
pub enum Finding {
    /// The instance does not know the id.
    Gone {
        /// The id.
        id: ResourceId,
        /// Where the mirror stood when it was asked for (promise P6).
        base: Base,
        /// The evidence.
        proof: Proof,
    },
    /// There it is: to be reconciled as seen.
    Seen {
        /// The resource.
        row: Row,
        /// Where the mirror stood when it was asked for (promise P6).
        base: Base,
    },
    /// Nothing is known.
    Unresolved {
        /// The id.
        id: ResourceId,
        /// Why, for a log or a person.
        why: String,
    },
}

/// How long an instance is asked on that gives no answer. One resource may have none for ever, and must not hide those behind
/// it; but where the instance fails, each further question sits out all its retries and adds to its trouble.
#[derive(Debug, Default)]
pub struct Silence {
    unanswered_in_a_row: u32,
}

impl Silence {
    /// Takes whether a question had an answer.
    pub fn note(&mut self, is_answered: bool) {
        self.unanswered_in_a_row = match is_answered {
            true => 0,
            false => self.unanswered_in_a_row + 1,
        };
    }

    /// Whether the instance is asked no more.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.unanswered_in_a_row >= MOST_UNANSWERED_IN_A_ROW
    }
}

/// What is said of who is not asked for, after a [`Silence`] that is long.
pub const NOT_ASKED: &str = "not asked for: the instance gave no answer to the questions before";

/// What all candidates of a crawl, or of an approval, have in common.
#[derive(Clone)]
pub struct Inquiry<'a> {
    /// How to ask.
    pub session: &'a Session,
    /// What is asked for.
    pub resource: ResourceType,
    /// Distinct ids that the complete crawl saw which did not see them, for the proof; `None` without one.
    pub distinct: Option<u64>,
    /// Where the feed stands.
    pub head: &'a Head,
    /// For the times in the proof.
    pub clock: &'a dyn Clock,
}

impl Inquiry<'_> {
    /// Asks for each candidate of a group, in batches with a witness before the first and after the
    /// last. Findings come in the order of the candidates.
    ///
    /// # Errors
    /// Only when told to stop.
    pub async fn ask(&self, group: &Group, silence: &mut Silence) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::with_capacity(group.candidates.len());
        for batch in group.candidates.chunks(BATCH) {
            findings.extend(self.ask_batch(group, batch, silence).await?);
        }
        Ok(findings)
    }

    async fn ask_batch(
        &self,
        group: &Group,
        batch: &[ResourceId],
        silence: &mut Silence,
    ) -> Result<Vec<Finding>, Error> {
        let opening = match self.witness(group, None, silence).await? {
            Ok(witness) => witness,
            Err(why) => return Ok(batch.iter().map(|id| unresolved(id, &why)).collect()),
        };
        let mut answers = Vec::with_capacity(batch.len());
        for id in batch {
            answers.push(self.question(id, silence).await?);
        }
        let closing = match answers.iter().any(|a| matches!(a, Answer::NotFound { .. })) {
            true => Some(self.witness(group, Some(&opening), silence).await?),
            false => None,
        };
        let finding = |(id, answer): (&ResourceId, Answer)| match (answer, &closing) {
            (Answer::Found { row, base }, _) => Finding::Seen { row, base },
            (Answer::NotFound { at, base }, Some(Ok(closing))) => Finding::Gone {
                id: id.clone(),
                base,
                proof: Proof {
                    distinct: self.distinct,
                    asked_at: at,
                    status: http::StatusCode::NOT_FOUND.as_u16(),
                    witnesses: [opening.clone(), closing.clone()],
                },
            },
            (Answer::NotFound { .. }, Some(Err(why))) => unresolved(id, why),
            (Answer::NotFound { .. }, None) => unresolved(id, "no witness was asked"),
            (Answer::None(why), _) => unresolved(id, &why),
        };
        Ok(batch.iter().zip(answers).map(finding).collect())
    }

    /// Finds a living witness; else the reason why there is none. Both share what the candidates share:
    /// where there is but one who does, that one says twice that this part of the directory is in sight.
    async fn witness(
        &self,
        group: &Group,
        opening: Option<&Witness>,
        silence: &mut Silence,
    ) -> Result<Result<Witness, String>, Error> {
        let living = match group.shares {
            Shares::Nothing => &group.anybody,
            _ => &group.same,
        };
        let is_other = |id: &&ResourceId| opening.is_none_or(|o| o.id != id.as_str());
        let mut tried: Vec<_> = living.iter().filter(is_other).cloned().collect();
        if tried.is_empty() {
            tried.extend(opening.map(|o| ResourceId::new(o.id.clone())));
        }
        let mut absent =
            "sight may be lost: no living user is known who could be a witness".to_owned();
        for id in tried.into_iter().take(MOST_TRIED_AS_WITNESS) {
            match self.question(&id, silence).await? {
                Answer::Found { .. } => {
                    return Ok(Ok(Witness {
                        id: id.as_str().to_owned(),
                        shares: group.shares,
                        answered_at: self.clock.now(),
                    }));
                }
                Answer::NotFound { .. } => {
                    absent =
                        "sight may be lost: a witness who should be there answers 404".to_owned();
                }
                Answer::None(reason) => {
                    absent = format!("a witness could not be asked for: {reason}");
                }
            }
        }
        Ok(Err(absent))
    }

    async fn question(&self, id: &ResourceId, silence: &mut Silence) -> Result<Answer, Error> {
        if silence.is_long() {
            return Ok(Answer::None(NOT_ASKED.to_owned()));
        }
        if !id.is_askable() {
            return Ok(Answer::None("the id cannot be asked for safely".to_owned()));
        }
        let base = (self.head)();
        let answer = self.session.get(self.resource, id).await;
        silence.note(answer.is_ok());
        Ok(match answer {
            Ok(Asked::Found(row)) => Answer::Found { row, base },
            Ok(Asked::NotFound) => Answer::NotFound {
                at: self.clock.now(),
                base,
            },
            Ok(Asked::Unclear(why)) => Answer::None(why),
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => Answer::None(error.to_string()),
        })
    }
}

/// What asking for one id gave.
enum Answer {
    Found {
        row: Row,
        base: Base,
    },
    NotFound {
        at: Timestamp,
        base: Base,
    },
    /// It says nothing about the resource, or there is none.
    None(String),
}

fn unresolved(id: &ResourceId, why: &str) -> Finding {
    Finding::Unresolved {
        id: id.clone(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::clock::SystemClock;
    use crate::scim::crawl::fake::Fake;
    use crate::scim::script::{self, Reply, Script, Sent, json};

    /// Who is there; `instead` may answer in their place.
    async fn ask(
        there: &[&str],
        group: &Group,
        instead: impl Fn(&str, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> (Vec<Finding>, Vec<String>) {
        let fake = Mutex::new(Fake::new(there.iter().copied()));
        let script = Script::new(move |sent, before| {
            instead(&asked(sent), before).unwrap_or_else(|| fake.lock().unwrap().serve(sent))
        });
        let folder = tempfile::tempdir().unwrap();
        let session = script::session(script::options(script::basic(), folder.path()), &script);
        let seq = AtomicI64::new(40);
        let head: Head = Arc::new(move || Base {
            seq: seq.fetch_add(1, Ordering::Relaxed),
            tx: 0,
        });
        let inquiry = Inquiry {
            session: &session,
            resource: ResourceType::User,
            distinct: Some(there.len() as u64),
            head: &head,
            clock: &SystemClock,
        };
        let findings = inquiry.ask(group, &mut Silence::default()).await.unwrap();
        (findings, script.sent().iter().map(asked).collect())
    }

    fn asked(sent: &Sent) -> String {
        sent.url.path().rsplit('/').next().unwrap().to_owned()
    }

    fn ids(texts: &[&str]) -> Vec<ResourceId> {
        texts.iter().copied().map(ResourceId::new).collect()
    }

    fn group(candidates: &[&str], same: &[&str], anybody: &[&str]) -> Group {
        Group {
            candidates: ids(candidates),
            shares: Shares::Company,
            same: ids(same),
            anybody: ids(anybody),
        }
    }

    fn gone(findings: &[Finding]) -> Vec<&str> {
        let gone = findings.iter().filter_map(|finding| match finding {
            Finding::Gone { id, .. } => Some(id.as_str()),
            _ => None,
        });
        gone.collect()
    }

    fn never(_: &str, _: usize) -> Option<Reply> {
        None
    }

    #[tokio::test(start_paused = true)]
    async fn a_404_between_two_witnesses_is_proof() {
        let group = group(&["x", "y"], &["a", "b"], &["a", "b", "c"]);
        let (findings, asked) = ask(&["a", "b", "c", "y"], &group, never).await;
        assert_eq!(asked, ["a", "x", "y", "b"]);
        let [Finding::Gone { base, proof, .. }, Finding::Seen { row, .. }] = &findings[..] else {
            panic!("{findings:?}");
        };
        assert_eq!((proof.status, proof.distinct, base.seq), (404, Some(4), 41));
        let witnesses = proof
            .witnesses
            .each_ref()
            .map(|w| (w.id.as_str(), w.shares));
        assert_eq!(witnesses, [("a", Shares::Company), ("b", Shares::Company)]);
        assert_eq!(row.id.as_str(), "y");
    }

    #[tokio::test(start_paused = true)]
    async fn twenty_at_a_time_have_witnesses_of_their_own() {
        let candidates: Vec<String> = (0..45).map(|n| format!("x{n}")).collect();
        let candidates: Vec<&str> = candidates.iter().map(String::as_str).collect();
        let group = group(&candidates, &["a", "b"], &[]);
        let (findings, asked) = ask(&["a", "b"], &group, never).await;
        assert_eq!(gone(&findings), candidates);
        assert_eq!(asked.len(), 45 + 3 * 2);
        let places: Vec<usize> = (0..asked.len())
            .filter(|n| !asked[*n].starts_with('x'))
            .collect();
        assert_eq!(places, [0, 21, 22, 43, 44, 50]);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_for_where_no_witness_of_the_company_was_seen() {
        let group = group(&["x"], &[], &["c"]);
        let (findings, asked) = ask(&["c"], &group, never).await;
        assert!(gone(&findings).is_empty());
        assert!(asked.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn sight_that_is_lost_meanwhile_proves_nothing() {
        // From the third request on, the whole company answers 404.
        let hidden = |id: &str, n| {
            (n >= 2 && id != "c").then(|| {
                json(
                    404,
                    r#"{"error":{"message":"No Record found"},"status":"failure"}"#,
                )
            })
        };
        let group = group(&["x", "y"], &["a", "b"], &["a", "b", "c"]);
        let (findings, asked) = ask(&["a", "b", "c"], &group, hidden).await;
        assert!(gone(&findings).is_empty(), "{findings:?}");
        assert_eq!(asked, ["a", "x", "y", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_witness_of_the_company_speaks_twice() {
        let group = group(&["x"], &["a"], &["a", "c"]);
        let (findings, asked) = ask(&["a", "c"], &group, never).await;
        assert_eq!(gone(&findings), ["x"]);
        assert_eq!(asked, ["a", "x", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn another_company_that_stays_in_sight_does_not_witness_for_one_that_does_not() {
        // Behind the first request the whole company answers 404.
        let hidden = |id: &str, n| {
            (n >= 1 && id != "c").then(|| {
                json(
                    404,
                    r#"{"error":{"message":"No Record found"},"status":"failure"}"#,
                )
            })
        };
        let group = group(&["x", "y"], &["a"], &["a", "c"]);
        let (findings, _) = ask(&["a", "c", "x", "y"], &group, hidden).await;
        assert!(gone(&findings).is_empty(), "{findings:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_left_alone_is_witness_twice() {
        let mut group = group(&["x"], &[], &["a"]);
        group.shares = Shares::Nothing;
        let (findings, asked) = ask(&["a"], &group, never).await;
        assert_eq!(gone(&findings), ["x"]);
        assert_eq!(asked, ["a", "x", "a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_witness_who_left_is_replaced() {
        let group = group(&["x"], &["l", "a", "b"], &[]);
        let (findings, asked) = ask(&["a", "b"], &group, never).await;
        assert_eq!(gone(&findings), ["x"]);
        assert_eq!(asked, ["l", "a", "x", "l", "b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_a_404_in_json_proves_nothing() {
        type Instead = fn(&str, usize) -> Option<Reply>;
        let answers: [Instead; 5] = [
            |id, _| {
                (id == "x").then(|| {
                    Reply::Answer(script::answer(
                        404,
                        &[("content-type", "text/html")],
                        b"<html>",
                    ))
                })
            },
            |id, _| (id == "x").then(|| json(200, r#"{"id":"z"}"#)),
            |id, _| {
                (id == "x").then(|| json(403, r#"{"error":{"message":"no"},"status":"failure"}"#))
            },
            |id, _| (id == "x").then(|| json(500, "{}")),
            |id, _| {
                (id == "x").then(|| json(404, r#"{"error":{"message":"Requested URI does not represent any resource"},"status":"failure"}"#))
            },
        ];
        for instead in answers {
            let group = group(&["x"], &["a", "b"], &[]);
            let (findings, _) = ask(&["a", "b"], &group, instead).await;
            assert!(
                matches!(&findings[..], [Finding::Unresolved { .. }]),
                "{findings:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_never_answered_for_hides_nobody() {
        let broken = |id: &str, _| matches!(id, "x" | "z" | "a").then(|| json(500, "{}"));
        let group = group(&["x", "y", "z", "v"], &["a", "b", "c"], &[]);
        let (findings, _) = ask(&["a", "b", "c"], &group, broken).await;
        assert_eq!(gone(&findings), ["y", "v"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_answers_nothing_is_asked_a_few_times() {
        let candidates: Vec<String> = (0..9).map(|n| format!("x{n}")).collect();
        let candidates: Vec<&str> = candidates.iter().map(String::as_str).collect();
        let group = group(&candidates, &["a", "b"], &[]);
        for (answered, expected) in [
            (0, &["a", "b"][..]),
            (1, &["a", "x0", "x1", "x2"]),
            (4, &["a", "x0", "x1", "x2", "x3", "x4", "x5"]),
        ] {
            let down = move |_: &str, n| (n >= answered).then(|| json(503, "{}"));
            let (findings, mut asked) = ask(&["a", "b"], &group, down).await;
            assert!(gone(&findings).is_empty(), "{findings:?}");
            asked.dedup();
            assert_eq!(asked, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ids_that_would_ask_for_something_else_are_not_asked_for() {
        let group = group(&["", ".", "..", "a\nb", "x"], &["a", "b"], &[]);
        let (findings, asked) = ask(&["a", "b"], &group, never).await;
        assert_eq!(gone(&findings), ["x"]);
        assert_eq!(asked, ["a", "x", "b"]);
    }
}
