//! `musterd sandbox`: a simulated ServiceNow instance on this machine.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use jiff::SignedDuration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::sandbox::{self, AuthRules, Fired, Options, RateRule, Sandbox};

/// Simulate a ServiceNow instance on this machine.
///
/// It has an organisation of invented people and their groups, answers SCIM and token requests like a real
/// instance, takes writes, and can misbehave on request. Nothing is kept when it stops.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd sandbox --users 500 --churn 40")]
pub(crate) struct Args {
    /// Where to listen; an address that is not loopback lets other machines in
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8044")]
    listen: SocketAddr,

    /// Users at the start
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    users: usize,

    /// Groups at the start: of departments, of places, nested ones, empty ones
    #[arg(long, value_name = "N", default_value_t = 40)]
    groups: usize,

    /// One more group, with so many members; at most all users
    #[arg(long, value_name = "MEMBERS", default_value_t = 0)]
    largest_group: usize,

    /// Answer a PATCH of a group with 204, without the group
    #[arg(long)]
    group_patch_no_content: bool,

    /// The same seed makes the same directory, ids and traffic
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,

    /// Changes of users a minute: joins, moves, leavers, deletions, renamed departments
    ///
    /// With each of them something changes in a group: members come and go, groups are made, renamed and
    /// deleted.
    #[arg(long, value_name = "PER_MINUTE", default_value_t = 0)]
    churn: u32,

    /// A fault script (TOML): how to misbehave, and when
    ///
    /// One `[[fault]]` table for each fault. `kind` says what happens; a kind that there is not is
    /// answered with the list of all. When it happens, all conditions together: `on` (`list`, `get`,
    /// `write`, `token`, `discovery`, `other`), `path` (with `*`), `request` (a number, or the first and
    /// the last), `every`, `after`, `until`, `probability`, `times`. For instance: kind = "html_page",
    /// on = ["list"], after = "5m", times = 3. Which fired is told at the end.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,

    /// Leave out twins, cycles of managers, missing names, ids set by hand and members who are gone
    #[arg(long)]
    tidy: bool,

    /// The client id of the registry record
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// Its secret
    #[arg(long, value_name = "SECRET")]
    client_secret: Option<String>,

    /// The integration user, for the password grant and for Basic
    #[arg(long, value_name = "NAME")]
    username: Option<String>,

    /// Its password
    #[arg(long, value_name = "PASSWORD")]
    password: Option<String>,

    /// How long an access token lives
    #[arg(long, value_name = "DURATION", default_value = "30m")]
    token_lifetime: SignedDuration,

    /// A rate limit rule: requests an hour
    #[arg(long, value_name = "PER_HOUR")]
    rate_limit: Option<u32>,

    /// How long each answer takes
    #[arg(long, value_name = "DURATION", default_value = "0s")]
    latency: SignedDuration,
}

/// Serves until told to stop; then tells which faults fired.
///
/// # Errors
/// When the address cannot be had or the fault script cannot be read.
pub(crate) async fn run(args: Args, cancel: CancellationToken) -> anyhow::Result<()> {
    let faults = args
        .faults
        .as_deref()
        .map(sandbox::read_script)
        .transpose()?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on `{}`", args.listen))?;
    let address = listener
        .local_addr()
        .context("cannot tell where the sandbox listens")?;
    let options = options(&args, address)?;
    let greeting = greeting(&options);
    let sandbox = Sandbox::new(options, Arc::new(SystemClock));
    let has_faults = faults.is_some();
    sandbox.set_faults(faults.unwrap_or_default());

    let mut stdout = anstream::stdout();
    write!(stdout, "{greeting}")?;
    stdout.flush()?;
    sandbox::serve(listener, sandbox.clone(), cancel)
        .await
        .context("the sandbox cannot serve any longer")?;
    if has_faults {
        write!(stdout, "{}", report(&sandbox.fired()))?;
    }
    Ok(())
}

fn options(args: &Args, address: SocketAddr) -> anyhow::Result<Options> {
    let standard = AuthRules::default();
    let given = |text: &Option<String>, standard: String| text.clone().unwrap_or(standard);
    Ok(Options {
        users: args.users,
        groups: args.groups,
        largest_group: args.largest_group,
        group_patch_no_content: args.group_patch_no_content,
        seed: args.seed,
        odd: !args.tidy,
        auth: AuthRules {
            client_id: given(&args.client_id, standard.client_id),
            client_secret: given(&args.client_secret, standard.client_secret),
            username: given(&args.username, standard.username),
            password: given(&args.password, standard.password),
            access_lifetime: positive("--token-lifetime", args.token_lifetime)?,
            ..AuthRules::default()
        },
        rate_limit: args.rate_limit.map(RateRule::per_hour),
        churn_per_minute: args.churn,
        latency: positive("--latency", args.latency)?,
        public_url: format!("http://{address}"),
    })
}

fn positive(option: &str, given: SignedDuration) -> anyhow::Result<Duration> {
    Duration::try_from(given)
        .ok()
        .filter(|duration| *duration <= Duration::from_secs(10 * 365 * 24 * 3_600))
        .with_context(|| format!("`{option}` must be from 0 s to ten years (got `{given:#}`)"))
}

/// What a person needs to start: where it is, who may come in, what to ask.
fn greeting(options: &Options) -> String {
    let Options {
        users,
        groups,
        largest_group,
        seed,
        auth,
        ..
    } = options;
    let groups = groups + usize::from(*largest_group > 0);
    let url = &options.public_url;
    let toml = |text: &str| toml::Value::from(text).to_string();
    let shell = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    format!(
        r#"A simulated ServiceNow instance with {users} users and {groups} groups (seed {seed}) listens on {url}
Ctrl-C stops it; nothing is kept.

  client id      {client_id}
  client secret  {client_secret}
  user name      {username}
  password       {password}

Ask it:

  TOKEN=$(curl -s {url}/oauth_token.do -d grant_type=client_credentials \
    --data-urlencode client_id={shell_id} --data-urlencode client_secret={shell_secret} |
    sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -s -H "Authorization: Bearer $TOKEN" \
    '{url}/api/now/scim/Users?count=2&sortBy=id&sortOrder=ascending'

Mirror it, with this in the configuration:

  [instances.sandbox]
  url = "{url}"

  [instances.sandbox.auth]
  type = "client_credentials"
  client_id = {toml_id}
  client_secret = {toml_secret}

"#,
        client_id = auth.client_id,
        client_secret = auth.client_secret,
        username = auth.username,
        password = auth.password,
        shell_id = shell(&auth.client_id),
        shell_secret = shell(&auth.client_secret),
        toml_id = toml(&auth.client_id),
        toml_secret = toml(&auth.client_secret),
    )
}

fn report(fired: &[Fired]) -> String {
    let mut text = String::from("Faults that fired:\n");
    for fault in fired {
        text.push_str(&format!("  {:>6} × {}\n", fault.times, fault.name));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &[&str]) -> Args {
        Line::parse_from([&["sandbox"], line].concat()).args
    }

    #[test]
    fn it_listens_on_loopback_unless_told_otherwise() {
        assert!(parse(&[]).listen.ip().is_loopback());
        let elsewhere = parse(&["--listen", "0.0.0.0:1"]);
        assert!(!elsewhere.listen.ip().is_loopback());
    }

    #[test]
    fn the_greeting_can_be_pasted_whatever_the_secret_is() {
        let args = parse(&["--client-secret", r#"it's "so" \ $secret"#]);
        let options = options(&args, args.listen).unwrap();
        let text = greeting(&options);
        let start = text.find("[instances.sandbox]").unwrap();
        let config: toml::Table = text[start..].parse().unwrap();
        let secret = &config["instances"]["sandbox"]["auth"]["client_secret"];
        assert_eq!(secret.as_str(), Some(r#"it's "so" \ $secret"#));
        assert!(text.contains(r#"client_secret='it'\''s "so" \ $secret'"#));
    }

    #[tokio::test]
    async fn a_script_that_cannot_be_understood_is_told_before_anything_listens() {
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "[[fault]]\nkind = \"htlm_page\"\n").unwrap();
        let path = script.path().to_str().unwrap();
        let args = parse(&["--listen", "127.0.0.1:0", "--faults", path]);
        let error = run(args, CancellationToken::new()).await.unwrap_err();
        let chain = format!("{error:#}");
        assert!(
            chain.contains("fault 1 of the script") && chain.contains("htlm_page"),
            "{chain}"
        );
    }
}
