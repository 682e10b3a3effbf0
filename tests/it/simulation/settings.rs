//! The configuration of a plan.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use musterd::sandbox::{AuthRules, Incoming, Sandbox};

use super::plan::{Instance, Login, Plan};
use super::watch::Watch;
use std::time::Duration;

/// Who may come in.
pub(super) fn rules(instance: &Instance) -> AuthRules {
    let mut rules = AuthRules::default();
    if instance.auth == Login::Bearer {
        // A token that a person was given by hand.
        rules.access_lifetime = Duration::from_hours(24 * 365);
    }
    rules
}

/// The configuration of all instances.
pub(super) fn text(plan: &Plan, watch: &Watch) -> String {
    let mut text = format!("history = \"{}d\"\n", plan.history_days);
    for instance in &plan.instances {
        text += &section(instance, watch.sandbox(instance.name), instance.page_size);
    }
    text
}

/// The same, with another page size for one of them.
pub(super) fn reloaded(plan: &Plan, watch: &Watch, place: usize, page_size: u32) -> String {
    let mut plan = plan.clone();
    plan.instances[place].page_size = page_size;
    text(&plan, watch)
}

fn section(instance: &Instance, sandbox: &Sandbox, page_size: u32) -> String {
    let Instance {
        name,
        concurrency,
        overlap_minutes,
        incremental,
        full,
        splay: [splay_incremental, splay_full],
        per_second,
        burst,
        per_hour,
        guard,
        ..
    } = instance;
    let per_hour = per_hour.map_or(String::new(), |n| format!("per_hour = {n}\n"));
    let limit = format!(
        "{{ at_least = {}, count = {}, percent = {}, window = \"{}h\" }}",
        guard.at_least, guard.count, guard.percent, guard.window_hours
    );
    format!(
        r#"
[instances.{name}]
url = "https://{name}.example"
page_size = {page_size}
concurrency = {concurrency}
overlap = "{overlap_minutes}m"
[instances.{name}.auth]
{}
[instances.{name}.schedule]
incremental = "{}"
full = "{}"
splay = {{ incremental = "{}s", full = "{}s" }}
[instances.{name}.rate]
per_second = {per_second}
burst = {burst}
{per_hour}
[instances.{name}.guard]
deactivations = {limit}
blanking = {limit}
source_changed = {{ at_least = {}, percent = {} }}
"#,
        login(instance.auth, sandbox),
        incremental.cron(),
        full.cron(),
        splay_incremental.as_secs(),
        splay_full.as_secs(),
        guard.source_at_least,
        guard.source_percent,
    )
}

fn login(login: Login, sandbox: &Sandbox) -> String {
    let AuthRules {
        client_id,
        client_secret,
        username,
        password,
        ..
    } = AuthRules::default();
    let client = format!("client_id = {client_id:?}\nclient_secret = {client_secret:?}\n");
    let account = format!("username = {username:?}\npassword = {password:?}\n");
    match login {
        Login::ClientCredentials => format!("type = \"client_credentials\"\n{client}"),
        Login::Password => format!("type = \"password\"\n{client}{account}"),
        Login::RefreshToken => {
            let token = refresh_token(sandbox);
            format!("type = \"refresh_token\"\n{client}refresh_token = {token:?}\n")
        }
        Login::Basic => format!("type = \"basic\"\n{account}"),
        Login::Bearer => format!("type = \"bearer\"\ntoken = {:?}\n", sandbox.issue_token()),
    }
}

/// A refresh token, as a person gets it once by logging in.
fn refresh_token(sandbox: &Sandbox) -> String {
    let rules = AuthRules::default();
    let form = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("grant_type", "password"),
            ("client_id", &rules.client_id),
            ("client_secret", &rules.client_secret),
            ("username", &rules.username),
            ("password", &rules.password),
        ])
        .finish();
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    let reply = sandbox.answer(&Incoming {
        method: Method::POST,
        path: "/oauth_token.do".to_owned(),
        query: None,
        headers,
        body: Bytes::from(form),
    });
    let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    answer["refresh_token"]
        .as_str()
        .unwrap_or("none")
        .to_owned()
}
