//! `musterd demo`: a simulated instance, the daemon that mirrors it, and a live view of the feed, in
//! one process and a folder of its own.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::future::pending;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::live::LiveView;
use super::output::Output;
use super::{outside, words};
use crate::clock::SystemClock;
use crate::config::{self, Sources};
use crate::daemon::{self, Outside};
use crate::logging;
use crate::mirror::Mirror;
use crate::mirror::read::FIRST_QUERY;
use crate::model::InstanceName;
use crate::sandbox::{self, AuthRules, Sandbox};
use crate::schedule::Alarm;
use crate::sync::Progress;
use crate::systemd::Notifier;

/// Watch a simulated instance being mirrored, live
///
/// Starts a simulated ServiceNow instance in which people join, move, change managers and leave,
/// mirrors it, and shows the feed as it grows. Reads no configuration and reaches no network. Everything
/// lies in a new folder under the system's temporary folder, which stays when the demo ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: musterd demo --for 2m")]
pub(crate) struct Args {
    /// End after this time, like `90s` or `5m`; otherwise on Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = words::parse_duration)]
    duration: Option<Duration>,
}

/// People in the directory: enough for a tree of managers, few enough to be there in a moment.
const USERS: usize = 500;

/// Changes a minute: something to see, slow enough to read.
const CHURN_PER_MINUTE: u32 = 40;

/// What a real configuration says, but for a schedule that nobody has to wait for and a guard for a directory
/// that people leave by the minute. Paths count from the file's folder.
fn configuration(url: &str, client_id: &str) -> String {
    format!(
        r#"[mirror]
path = "mirror.db"

[log]
format = "text"

[instances.demo]
url = "{url}"
page_size = 50

[instances.demo.auth]
type = "client_credentials"
client_id = "{client_id}"
client_secret = {{ file = "secret" }}

[instances.demo.schedule]
incremental = "*/3 * * * * *"
full = "*/20 * * * * *"
groups = "*/10 * * * * *"
splay = {{ incremental = "0s", full = "0s", groups = "0s" }}

[instances.demo.rate]
per_second = 20
burst = 20

[instances.demo.guard]
deactivations = {{ at_least = 50, count = 500, percent = 100, window = "1h" }}
"#
    )
}

pub(crate) async fn run(args: Args) -> anyhow::Result<Exit> {
    let folder = tempfile::Builder::new()
        .prefix("musterd-demo-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .context("cannot make a folder for the demo")?
        .keep();
    let mirror = folder.join("mirror.db");
    let over = CancellationToken::new();
    let (url, sandbox) = start_instance(&over).await?;
    let config = configure(&folder, &url, &sandbox.auth())?;
    let mut out = Output::stdout();
    out.text(&welcome(&url, &folder, &mirror))?;
    out.flush()?;

    let stop = CancellationToken::new();
    let (progress, told) = watch::channel(None);
    let alarm = Alarm::set().await.context("cannot set the alarm clock")?;
    let mut daemon = tokio::spawn(start_daemon(&config, &alarm, progress, &stop)?);
    let mut view = LiveView {
        mirror: mirror.clone(),
        instance: InstanceName::parse("demo")?,
        progress: told,
        out,
    };
    // On a thread of its own, so that Ctrl-C is heard while a pager does not read.
    let mut view = tokio::spawn(async move {
        view.baseline().await?;
        sandbox.set_churn(CHURN_PER_MINUTE);
        view.feed().await
    });
    let ended = tokio::select! {
        biased;
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("cannot listen for Ctrl-C").map(|()| Exit::Interrupted)
        }
        () = time_is_up(args.duration) => Ok(Exit::Done),
        ended = &mut daemon => return Err(ended?.err().unwrap_or_else(|| anyhow!("the daemon has ended unasked"))),
        shown = &mut view => shown?.map(|never| match never {}),
    };
    view.abort();
    stop.cancel();
    daemon.await??;
    alarm.stop().await.context("cannot stop the alarm clock")?;
    over.cancel();
    let ended = ended?;
    let mut out = Output::stdout();
    out.text(&farewell(&folder, &mirror))?;
    out.flush()?;
    Ok(ended)
}

/// Serves a simulated instance, in which nothing happens yet, on a free port of the loopback address.
async fn start_instance(over: &CancellationToken) -> anyhow::Result<(String, Sandbox)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .context("cannot listen on the loopback address")?;
    let url = format!("http://{}", listener.local_addr()?);
    let options = sandbox::Options {
        users: USERS,
        public_url: url.clone(),
        ..sandbox::Options::default()
    };
    let sandbox = Sandbox::new(options, Arc::new(SystemClock));
    tokio::spawn(sandbox::serve(listener, sandbox.clone(), over.clone()));
    Ok((url, sandbox))
}

/// Writes the configuration and its secret, and says where.
fn configure(folder: &Path, url: &str, auth: &AuthRules) -> anyhow::Result<PathBuf> {
    let config = folder.join("musterd.toml");
    let write = |path: &Path, text: &str| {
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write `{}`", path.display()))
    };
    write(&folder.join("secret"), &auth.client_secret)?;
    write(&config, &configuration(url, &auth.client_id))?;
    Ok(config)
}

/// The daemon as `run` has it, without systemd and signals, and with its log in the folder.
fn start_daemon(
    config: &Path,
    alarm: &Alarm,
    progress: watch::Sender<Option<Progress>>,
    stop: &CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + use<>> {
    // The environment is left out: what a real daemon is told there is not for this one.
    let sources = Sources {
        env: BTreeMap::new(),
        ..outside::sources(config, config::Secrets::All)
    };
    let settings = config::load(&sources)?;
    let log_file =
        File::create_new(config.with_file_name("musterd.log")).context("cannot write the log")?;
    let surroundings = logging::Surroundings {
        terminal: false,
        colors: false,
        journal: false,
    };
    let log = logging::init(
        &settings.log,
        surroundings,
        Arc::new(SystemClock),
        Mutex::new(log_file),
    )?;
    let mirror = Mirror::open(&settings.mirror.path, &outside::epoch()?)?;
    let (_reload, asked) = mpsc::channel(1);
    let outside = Outside {
        surroundings: outside::surroundings()?,
        bell: Arc::clone(&alarm.bell),
        load: Arc::new(move || Ok(config::load(&sources)?)),
        in_force: Arc::new(move |settings| Ok(log.apply(&settings.log)?)),
        heartbeat: outside::heartbeat(),
        notifier: Notifier::new(None)?,
        watchdog_every: None,
        look_every: daemon::LOOK_EVERY,
        socket: Some(config::socket_path(&settings.mirror.path, None)),
        // Nobody looks any more: that is no concern of the daemon's.
        progress: Arc::new(move |now| drop(progress.send_replace(Some(now)))),
        stop: stop.clone(),
        reload: asked,
    };
    Ok(daemon::run(settings, mirror, outside))
}

async fn time_is_up(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => pending().await,
    }
}

fn welcome(url: &str, folder: &Path, mirror: &Path) -> String {
    format!(
        "A simulated ServiceNow instance with {USERS} users is at {url}.\n\
         Once they are mirrored, about {CHURN_PER_MINUTE} things a minute happen to them. The mirror is\n\
         {}, and beside it is the daemon's log.\n\
         Try, while this runs and after it:\n\n{}\n\
         Ctrl-C ends it.\n\n",
        mirror.display(),
        queries(folder, mirror),
    )
}

fn farewell(folder: &Path, mirror: &Path) -> String {
    format!(
        "\nThe demo has ended, its mirror stays:\n\n{}  rm -r {}\n",
        queries(folder, mirror),
        folder.display(),
    )
}

/// This program as a shell finds it: in a fresh clone it is not on the path.
fn program() -> String {
    std::env::current_exe().map_or_else(|_| "musterd".to_owned(), |path| path.display().to_string())
}

/// What to try, ready to be pasted.
fn queries(folder: &Path, mirror: &Path) -> String {
    format!(
        "  sqlite3 'file:{}?mode=ro' '{FIRST_QUERY}'\n  {} status --config {}\n",
        mirror.display(),
        program(),
        folder.join("musterd.toml").display(),
    )
}
