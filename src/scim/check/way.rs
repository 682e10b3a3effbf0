//! The way to the first answer, step by step, told from what became of its requests: nothing is asked for it besides.
//! What was not seen is not claimed.

use std::error::Error as _;

use url::Host;

use super::super::client::Options;
use super::super::error::{Error, ExchangeError, Fault, What};
use super::super::http::CONNECT_TIMEOUT;
use crate::model::{Step, StepOutcome};

/// The steps up to the first list, and including the one that failed. `list` is that request, and `n_requests` counts what
/// was sent for it, each but the last with an answer: a failed request is not repeated.
pub(super) fn way(
    options: &Options,
    list: &str,
    n_requests: u64,
    error: Option<&Error>,
) -> Vec<Step> {
    let fault = error.map(Error::fault);
    let failed = |name| failed(name, error);
    if let Some(Fault::Secret(_)) = fault {
        return vec![failed("secret")];
    }
    let mut steps = vec![passed("secret", "can be had")];
    let token = options.auth.token_url();
    let token = token.map(|url| format!("POST {}", url.path()));
    let is_at_token = error.is_some_and(|error| error.what() == What::Credentials);
    // A daemon may have one from before.
    let asks_for_token = token
        .as_ref()
        .filter(|_| n_requests > 1 || n_requests > 0 && is_at_token);
    let first = asks_for_token.map_or(list, String::as_str);
    let connection = connection(options);
    match reached(fault, n_requests) {
        Reached::Untold => {}
        Reached::Instance => steps.extend(connection.map(|step| step.by(first))),
        Reached::Before(name) => {
            let before = connection.take_while(|step| step.name != name);
            steps.extend(before.map(|step| step.by(first)));
            steps.push(failed(name).by(first));
            return steps;
        }
        Reached::Unclear => {
            steps.push(failed("connection").by(first));
            return steps;
        }
    }
    if is_at_token {
        let step = failed(if token.is_some() { "token" } else { "sign_in" });
        steps.push(match asks_for_token {
            Some(request) => step.by(request),
            None => step,
        });
        return steps;
    }
    if token.is_some() {
        steps.push(match asks_for_token {
            Some(request) => passed("token", "one was given").by(request),
            None => passed("token", "the one in use"),
        });
    }
    steps.extend(answer(error).into_iter().map(|step| step.by(list)));
    steps
}

/// What the answer to the list, or its absence, tells.
fn answer(error: Option<&Error>) -> Vec<Step> {
    let signed_in = || passed("sign_in", "accepted");
    let failed = |name| failed(name, error);
    match error.map(Error::fault) {
        None => vec![
            signed_in(),
            passed("scim_plugin", "answers as SCIM does"),
            passed("role", "not refused"),
        ],
        Some(Fault::Refused { .. }) => vec![failed("sign_in")],
        Some(Fault::Status(refusal)) => {
            let step = match refusal.status.as_u16() {
                401 => return vec![failed("sign_in")],
                _ if refusal.no_such_api() => "scim_plugin",
                300..=399 | 404 => "scim_plugin",
                403 if !refusal.html => "role",
                // The one thing that its query asks for.
                _ if error.is_some_and(Error::is_refused_query) => "sort_by_id",
                _ => "answers",
            };
            let is_signed_in = refusal.speaks_to_the_account();
            let before = is_signed_in.then(signed_in);
            let step = match (step, failed(step)) {
                ("sort_by_id", failed) => failed.mend(SORT_HINT),
                (_, failed) => failed,
            };
            before.into_iter().chain([step]).collect()
        }
        Some(Fault::NotJson(_) | Fault::NotAsAsked(_) | Fault::TooManyRows { .. }) => {
            vec![failed("scim_plugin")]
        }
        Some(_) => vec![failed("answers")],
    }
}

/// What to do where sorting alone is refused.
const SORT_HINT: &str =
    "have the instance accept `sortBy=id`: without an order that is known no page can be trusted";

/// How far the requests came.
enum Reached {
    /// Nothing was sent, or nothing is known of it.
    Untold,
    /// The instance took a request.
    Instance,
    /// Up to this step, which failed.
    Before(&'static str),
    /// A connection may have failed in any way.
    Unclear,
}

fn reached(fault: Option<&Fault>, n_requests: u64) -> Reached {
    if n_requests > 1 {
        return Reached::Instance;
    }
    match fault {
        Some(Fault::Exchange(error)) => match error {
            ExchangeError::Resolve(_) => Reached::Before("name_resolution"),
            ExchangeError::Connect(_) => Reached::Before("connection"),
            ExchangeError::Tls(_) => Reached::Before("tls"),
            // A connection that is not made ends earlier.
            ExchangeError::TimedOut(within) if *within > CONNECT_TIMEOUT => Reached::Instance,
            ExchangeError::TimedOut(_) | ExchangeError::Setup(_) => Reached::Unclear,
            ExchangeError::Broken(_) | ExchangeError::TooLarge { .. } => Reached::Instance,
        },
        Some(Fault::Cancelled) => Reached::Untold,
        _ if n_requests == 0 => Reached::Untold,
        _ => Reached::Instance,
    }
}

/// The steps of a connection, where all of them go well.
fn connection(options: &Options) -> impl Iterator<Item = Step> {
    let origin = &options.origin;
    let host = origin.host_str().unwrap_or_default();
    let name = match origin.host() {
        Some(Host::Ipv4(_) | Host::Ipv6(_)) => format!("`{host}` is an address itself"),
        _ => format!("`{host}` has an address"),
    };
    let port = origin.port_or_known_default().unwrap_or_default();
    let tls = "the certificate is one that this machine trusts";
    [
        passed("name_resolution", name),
        passed("connection", format!("port {port} takes it")),
    ]
    .into_iter()
    .chain((origin.scheme() == "https").then(|| passed("tls", tls)))
}

fn passed(name: &'static str, says: impl Into<String>) -> Step {
    Step::new(name, StepOutcome::Passed, says)
}

/// The step that an error ended.
pub(super) fn failed(name: &'static str, error: Option<&Error>) -> Step {
    let fault = error.map(Error::fault);
    let mut says = fault.map_or_else(String::new, ToString::to_string);
    // The cause of what happened to a connection holds nothing of a person.
    if let Some(Fault::Exchange(
        cause @ (ExchangeError::Resolve(_) | ExchangeError::Connect(_) | ExchangeError::Tls(_)),
    )) = fault
    {
        let mut innermost = cause.source();
        while let Some(below) = innermost.and_then(std::error::Error::source) {
            innermost = Some(below);
        }
        if let Some(cause) = innermost {
            says.push_str(&format!(": {cause}"));
        }
    }
    let step = Step::new(name, StepOutcome::Failed, says);
    match error.and_then(Error::hint) {
        Some(hint) => step.mend(hint),
        None => step,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::check::{Finding, check};
    use super::super::super::client::Session;
    use super::super::super::script::{
        self, Reply, Script, Sent, client_credentials, literal, page, token,
    };
    use super::*;
    use crate::clock::SystemClock;
    use crate::model::ResourceType;
    use crate::scim::auth::{AuthOptions, SecretSource};

    /// An instance that shows nobody: a check of it ends with its first list.
    fn session(auth: AuthOptions, rule: fn(&Sent) -> Reply) -> (tempfile::TempDir, Session) {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::new(move |sent, _| match sent.is_for_token() {
            true => token("t", 1800),
            false => rule(sent),
        });
        let session = script::session(script::options(auth, folder.path()), &script);
        (folder, session)
    }

    async fn checked(session: Session) -> Finding {
        check(session, &[ResourceType::User], &SystemClock).await
    }

    fn told(found: &Finding) -> Vec<(&str, StepOutcome, Option<&str>)> {
        let steps = found.steps.iter();
        steps
            .map(|step| {
                let method = step
                    .request
                    .as_deref()
                    .and_then(|line| line.split(' ').next());
                (step.name, step.outcome, method)
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_in_use_is_not_asked_for() {
        use StepOutcome::{Failed, Passed};
        let (_folder, session) = session(client_credentials(), |_| page(0, &[]));
        let way = |by: &'static str, token| {
            [
                ("secret", Passed, None),
                ("name_resolution", Passed, Some(by)),
                ("connection", Passed, Some(by)),
                ("tls", Passed, Some(by)),
                ("token", Passed, token),
                ("sign_in", Passed, Some("GET")),
                ("scim_plugin", Passed, Some("GET")),
                ("role", Passed, Some("GET")),
                ("answers", Failed, Some("GET")),
                ("clock", StepOutcome::Unknown, Some("GET")),
            ]
        };
        let found = checked(session.clone()).await;
        assert_eq!(told(&found), way("POST", Some("POST")));
        let client = &session.client;
        let next = client.session(session.priority, session.cancel.clone());
        assert_eq!(told(&checked(next).await), way("GET", None));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_seen_is_not_claimed() {
        use StepOutcome::{Failed, Passed};
        let secret = ("secret", Passed, None);
        // Nothing is sent without a secret, nor with one that was refused before.
        let absent = AuthOptions::Bearer {
            token: SecretSource::Credential {
                name: "acme".to_owned(),
                path: None,
            },
        };
        let (_folder, no_secret) = session(absent, |_| page(0, &[]));
        let found = checked(no_secret).await;
        assert_eq!(told(&found), [("secret", Failed, None)]);
        assert!(found.steps[0].says.contains("the credential `acme`"));

        let bearer = || AuthOptions::Bearer {
            token: literal("t"),
        };
        let (_folder, refused) = session(bearer(), |_| script::unauthorized());
        let found = checked(refused.clone()).await;
        let connected = ["name_resolution", "connection", "tls"];
        let connected = connected.map(|name| (name, Passed, Some("GET")));
        let mut expected = vec![secret];
        expected.extend(connected);
        expected.push(("sign_in", Failed, Some("GET")));
        assert_eq!(told(&found), expected);
        let found = checked(refused).await;
        assert_eq!(told(&found), [secret, ("sign_in", Failed, None)]);

        // A page of a proxy does not tell whether the account was let in.
        let (_folder, proxy) = session(bearer(), |_| {
            let html = [("content-type", "text/html")];
            Reply::Answer(script::answer(403, &html, b"<html>no</html>"))
        });
        let found = checked(proxy).await;
        expected.pop();
        expected.push(("answers", Failed, Some("GET")));
        assert_eq!(told(&found), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_late_tells_of_a_connection_only_if_one_would_have_failed_before() {
        for (timeout, steps) in [
            (CONNECT_TIMEOUT, vec!["secret", "connection"]),
            (
                CONNECT_TIMEOUT + Duration::from_secs(1),
                vec!["secret", "name_resolution", "connection", "tls", "answers"],
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let script = Script::new(|_, _| Reply::Hang);
            let mut options = script::options(script::basic(), folder.path());
            options.timeout = timeout;
            let found = checked(script::session(options, &script)).await;
            let names: Vec<&str> = found.steps.iter().map(|step| step.name).collect();
            assert_eq!(names, steps, "{timeout:?}");
            let last = found.steps.last().unwrap();
            assert_eq!(last.outcome, StepOutcome::Failed);
        }
    }
}
