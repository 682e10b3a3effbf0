//! `musterd link`: an instance without an editor.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use rustix::termios::{self, OptionalActions};
use secrecy::{ExposeSecret as _, SecretString};

use super::exit::{Exit, Failure, Misconfigured};
use super::handover;
use super::instance_files::{MADE_BY_LINK, Made, Places};
use super::output::Output;
use super::outside;
use crate::config::{self, Secrets};
use crate::model::InstanceName;

/// Link an instance: write its configuration, and check it
///
/// Makes `instances.d/NAME.toml` beside the configuration, and a file of mode 0600 for each secret. What is
/// missing is asked for on a terminal; elsewhere secrets are read from stdin, one a line. A secret is never an
/// argument, which everybody on the host could read. A running daemon takes the instance up. Then does what
/// `musterd check NAME` does, as the account that the mirror's folder belongs to.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo musterd link acme https://acme.service-now.com
  sudo musterd link acme https://acme.service-now.com --client-id 4f3c < secret.txt")]
pub(crate) struct Link {
    /// What the instance is called here: letters a to z, digits and single `_`
    #[arg(value_name = "NAME")]
    name: String,

    /// Its address
    #[arg(value_name = "URL")]
    url: String,

    /// How musterd authenticates
    #[arg(
        long,
        value_name = "TYPE",
        value_enum,
        default_value = "client_credentials"
    )]
    auth: Auth,

    /// The OAuth client's id
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// The account's name, for `password` and `basic`
    #[arg(long, value_name = "NAME")]
    username: Option<String>,

    /// The most requests in an hour, where a rate limit rule covers the account
    #[arg(long, value_name = "N")]
    per_hour: Option<u32>,

    /// Ask the instance nothing yet
    #[arg(long)]
    no_check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Auth {
    ClientCredentials,
    Password,
    RefreshToken,
    Basic,
    Bearer,
}

/// A key of `auth` that must be known.
#[derive(Clone, Copy)]
enum Key {
    Plain(&'static str),
    Secret(&'static str),
}

impl Auth {
    fn word(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::Password => "password",
            Self::RefreshToken => "refresh_token",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
        }
    }

    fn keys(self) -> &'static [Key] {
        use Key::{Plain, Secret};
        match self {
            Self::ClientCredentials => &[Plain("client_id"), Secret("client_secret")],
            Self::Password => &[
                Plain("client_id"),
                Secret("client_secret"),
                Plain("username"),
                Secret("password"),
            ],
            Self::RefreshToken => &[
                Plain("client_id"),
                Secret("client_secret"),
                Secret("refresh_token"),
            ],
            Self::Basic => &[Plain("username"), Secret("password")],
            Self::Bearer => &[Secret("token")],
        }
    }
}

pub(crate) async fn link(args: Link, config: PathBuf) -> anyhow::Result<Exit> {
    let name = InstanceName::parse(&args.name)?;
    let config = std::path::absolute(config).context("where is the working directory")?;
    let places = Places::of(&config, &name);
    if config.try_exists()? {
        let settings = config::load(&outside::sources(&config, Secrets::AllButCredentials))?;
        if settings.instances.contains_key(&name) {
            let message = format!("`{name}` stands in the configuration already");
            return Err(Failure::new(message)
                .hint(format!(
                    "`musterd check {name}` looks at it; another name links another instance"
                ))
                .into());
        }
    }
    let asked = args.clone();
    let Some(answers) = on_the_terminal(move || answers(&asked)).await? else {
        return Ok(Exit::Interrupted);
    };
    let mut made = Made::default();
    if !config.try_exists()? {
        made.file(
            &config,
            0o640,
            "# Every key is explained in config/default.toml of musterd.\n",
        )?;
    }
    let text = write_secrets(&args, &config, &places, &answers, &mut made)?;
    made.folder(
        &places.instances,
        0o750,
        outside::folder_of(&places.instances),
    )?;
    made.file(&places.instance, 0o640, &text)?;
    // It may be wrong: an address that no instance can have, or an account that another one has. Then nothing is left of it.
    let settings = config::load(&outside::sources(&config, Secrets::AllButCredentials))?;
    let is_running = match take_up(&config, &name, &mut made).await? {
        Some(Exit::Done) => true,
        None => false,
        Some(interrupted) => return Ok(interrupted),
    };

    let mut output = Output::stdout();
    output.text(&format!(
        "{name} is linked by `{}`\n{}\n",
        places.instance.display(),
        match is_running {
            true => "the running daemon has taken it up, as after `sudo systemctl reload musterd`",
            false =>
                "no daemon runs: `sudo systemctl start musterd` starts it; one that runs takes changes up with \
                 `sudo systemctl reload musterd`",
        }
    ))?;
    output.flush()?;
    if args.no_check || check(&config, &settings.mirror.path, &name)? {
        return Ok(Exit::Done);
    }
    Err(Failure::new(format!("`{name}` is linked, but cannot be synced yet"))
        .hint(format!(
            "mend what is named above, then `musterd check {name}`; `musterd unlink {name}` takes it out again"
        ))
        .into())
}

/// Has a running daemon take the instance up. What the daemon refuses it could not start with either: then nothing is left of it.
async fn take_up(
    config: &Path,
    name: &InstanceName,
    made: &mut Made,
) -> anyhow::Result<Option<Exit>> {
    match handover::reload(config).await {
        Ok(exit) => {
            made.keep();
            Ok(exit)
        }
        Err(error) if error.is::<Misconfigured>() => Err(error.context(format!(
            "the running daemon refuses the configuration with `{name}`, which is taken out again"
        ))),
        Err(error) => {
            made.keep();
            let message = format!(
                "`{name}` is linked, but the running daemon has not taken it up: {error:#}"
            );
            Err(Failure::new(message)
                .hint(format!(
                    "`sudo systemctl reload musterd`, then `musterd check {name}`"
                ))
                .into())
        }
    }
}

/// Asks on a thread of its own. `None` after Ctrl-C, with the terminal as it was: a secret is typed unseen.
pub(super) async fn on_the_terminal<T: Send + 'static>(
    ask: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<Option<T>> {
    let before = termios::tcgetattr(io::stdin()).ok();
    tokio::select! {
        biased;
        pressed = tokio::signal::ctrl_c() => {
            pressed.context("cannot listen for Ctrl-C")?;
            if let Some(before) = before {
                let _stays = termios::tcsetattr(io::stdin(), OptionalActions::Now, &before);
            }
            Ok(None)
        }
        asked = tokio::task::spawn_blocking(ask) => asked.context("asking did not come to its end")?.map(Some),
    }
}

/// What `auth` needs, in its order.
fn answers(args: &Link) -> anyhow::Result<Vec<(Key, SecretString)>> {
    let on_terminal = io::stdin().is_terminal();
    let mut lines = match on_terminal {
        true => Vec::new(),
        false => lines_of_stdin()?,
    }
    .into_iter();
    let mut answers = Vec::new();
    for key in args.auth.keys() {
        let answer = match *key {
            Key::Plain(name) => {
                let given = match name {
                    "username" => &args.username,
                    _ => &args.client_id,
                };
                match given {
                    Some(text) => text.clone().into(),
                    None if on_terminal => ask(name)?,
                    None => {
                        let flag = name.replace('_', "-");
                        return Err(Failure::new(format!("`--{flag}` is missing")).into());
                    }
                }
            }
            Key::Secret(name) if on_terminal => {
                let typed = rpassword::prompt_password(format!("{name} (not shown): "));
                typed.context("cannot read from the terminal")?.into()
            }
            Key::Secret(name) => lines.next().ok_or_else(|| {
                Failure::new(format!("stdin has no line for `{name}`"))
                    .hint("each secret is a line of it, in the order of `config/default.toml`")
            })?,
        };
        if answer.expose_secret().is_empty() {
            let (Key::Plain(name) | Key::Secret(name)) = *key;
            return Err(Failure::new(format!("`{name}` is empty")).into());
        }
        answers.push((*key, answer));
    }
    match lines.next() {
        None => Ok(answers),
        Some(_) => Err(Failure::new("stdin has more lines than there are secrets").into()),
    }
}

fn lines_of_stdin() -> anyhow::Result<Vec<SecretString>> {
    /// No secret is longer, whatever is piped in by mistake.
    const MOST: u64 = 64 << 10;
    let mut text = String::new();
    io::stdin()
        .take(MOST)
        .read_to_string(&mut text)
        .context("cannot read the secrets from stdin")?;
    let text = SecretString::from(text);
    Ok(text
        .expose_secret()
        .lines()
        .map(SecretString::from)
        .collect())
}

pub(super) fn ask(name: &str) -> anyhow::Result<SecretString> {
    // Where the secrets are asked for, also if stderr goes elsewhere.
    let terminal = std::fs::File::options().write(true).open("/dev/tty");
    terminal
        .and_then(|mut terminal| write!(terminal, "{name}: "))
        .context("cannot write to the terminal")?;
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .context("cannot read from the terminal")?;
    Ok(line.trim().into())
}

/// Makes the files of the secrets. Returns the text of the instance's file.
fn write_secrets(
    args: &Link,
    config: &Path,
    places: &Places,
    answers: &[(Key, SecretString)],
    made: &mut Made,
) -> anyhow::Result<String> {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = format!(
        "{MADE_BY_LINK} Every other key is explained in config/default.toml of musterd.\nurl = {}\n",
        quoted(&args.url)
    );
    if let Some(per_hour) = args.per_hour {
        let _infallible = writeln!(text, "rate = {{ per_hour = {per_hour} }}");
    }
    let _infallible = writeln!(text, "\n[auth]\ntype = {}", quoted(args.auth.word()));
    // Those of the account that the daemon runs as, and of nobody else.
    let sources = outside::sources(config, Secrets::None);
    let mirror = config::mirror_path(&sources)?;
    made.folder(&places.secrets, 0o700, outside::folder_of(&mirror))?;
    let is_secret = |(key, _): &&(Key, SecretString)| matches!(key, Key::Secret(_));
    let only_one = answers.iter().filter(is_secret).count() == 1;
    for (key, answer) in answers {
        let line = match key {
            Key::Plain(key) => format!("{key} = {}", quoted(answer.expose_secret())),
            Key::Secret(key) => {
                let name = match only_one {
                    true => args.name.clone(),
                    false => format!("{}.{key}", args.name),
                };
                let path = places.secrets.join(name);
                made.file(&path, 0o600, answer.expose_secret())?;
                let path = path.to_str().context("the folder's name is not UTF-8")?;
                format!("{key} = {{ file = {} }}", quoted(path))
            }
        };
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// Checks the instance as the account of the daemon, which has to read the same files. Returns whether it can be synced.
fn check(config: &Path, mirror: &Path, name: &InstanceName) -> anyhow::Result<bool> {
    let program = std::env::current_exe().context("where is this program")?;
    let mut command = Command::new(program);
    command
        .arg("--config")
        .arg(config)
        .args(["check", name.as_str()]);
    let owner = outside::folder_of(mirror).metadata();
    let own_uid = Path::new("/proc/self").metadata()?.uid();
    if let Ok(owner) = owner
        && own_uid == 0
        && owner.uid() != 0
    {
        command.uid(owner.uid()).gid(owner.gid());
    }
    let status = command.status().context("cannot run `musterd check`")?;
    Ok(matches!(status.code(), Some(0 | 3)))
}
