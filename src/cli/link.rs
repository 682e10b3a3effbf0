//! `musterd link` and `musterd unlink`: the files of an instance, without an editor.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::exit::{Exit, Failure};
use super::handover;
use super::output::Output;
use super::outside;
use crate::config;
use crate::control::Request;
use crate::mirror;
use crate::model::InstanceName;

/// The folder of secrets, beside the configuration.
const SECRETS_FOLDER: &str = "secrets";

/// Link an instance: write its configuration, and check it
///
/// Makes `instances.d/NAME.toml` beside the configuration, and a file of mode 0600 for each secret. What is
/// missing is asked for on a terminal; elsewhere secrets are read from stdin, one a line. A secret is never an
/// argument, which everybody on the host could read. Then does what `musterd check NAME` does, as the account
/// that the mirror's folder belongs to.
#[derive(Debug, clap::Args)]
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

pub(crate) fn link(args: &Link, config: &Path) -> anyhow::Result<Exit> {
    let name = InstanceName::parse(&args.name)?;
    let config = std::path::absolute(config).context("where is the working directory")?;
    let places = Places::of(&config, &name);
    if config.try_exists()? {
        let settings = config::load(&outside::sources(&config))?;
        if settings.instances.contains_key(&name) {
            let message = format!("`{name}` stands in the configuration already");
            return Err(Failure::new(message)
                .hint(format!(
                    "`musterd check {name}` looks at it; another name links another instance"
                ))
                .into());
        }
    }
    let answers = answers(args)?;
    let mut made = Made::default();
    if !config.try_exists()? {
        made.file(
            &config,
            0o640,
            "# Every key is explained in config/default.toml of musterd.\n",
        )?;
    }
    let text = write_secrets(args, &places, &answers, &mut made)?;
    made.folder(&places.instances, 0o750)?;
    made.file(&places.instance, 0o640, &text)?;
    // It may be wrong: an address that no instance can have, or an account that another one has. Then nothing is left of it.
    let settings = config::load(&outside::sources(&config))?;
    made.keep();

    let mut output = Output::stdout();
    output.text(&format!(
        "{name} is linked by `{}`\n",
        places.instance.display()
    ))?;
    output.flush()?;
    let answers = args.no_check || check(&config, &settings.mirror.path, &name)?;
    output.text("the running daemon takes it up with: sudo systemctl reload musterd\n")?;
    output.flush()?;
    match answers {
        true => Ok(Exit::Done),
        false => Err(Failure::new(format!("`{name}` is linked, but cannot be synced yet"))
            .hint(format!(
                "mend what is named above, then `musterd check {name}`; `musterd unlink {name}` takes it out again"
            ))
            .into()),
    }
}

/// Where the files of an instance are.
struct Places {
    instances: PathBuf,
    instance: PathBuf,
    secrets: PathBuf,
}

impl Places {
    fn of(config: &Path, name: &InstanceName) -> Self {
        let instances = config.with_file_name(config::INSTANCES_FOLDER);
        Self {
            instance: instances.join(format!("{name}.toml")),
            instances,
            secrets: config.with_file_name(SECRETS_FOLDER),
        }
    }
}

/// What `auth` needs, in its order.
fn answers(args: &Link) -> anyhow::Result<Vec<(Key, SecretString)>> {
    let on_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
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

fn ask(name: &str) -> anyhow::Result<SecretString> {
    let mut error = io::stderr();
    write!(error, "{name}: ").and_then(|()| error.flush())?;
    let mut line = String::new();
    io::stdin()
        .read_line(&mut line)
        .context("cannot read from the terminal")?;
    Ok(line.trim().into())
}

/// Makes the files of the secrets. Returns the text of the instance's file.
fn write_secrets(
    args: &Link,
    places: &Places,
    answers: &[(Key, SecretString)],
    made: &mut Made,
) -> anyhow::Result<String> {
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let mut text = format!(
        "# Made by `musterd link`. Every other key is explained in config/default.toml of musterd.\nurl = {}\n",
        quoted(&args.url)
    );
    if let Some(per_hour) = args.per_hour {
        let _infallible = writeln!(text, "rate = {{ per_hour = {per_hour} }}");
    }
    let _infallible = writeln!(text, "\n[auth]\ntype = {}", quoted(args.auth.word()));
    made.folder(&places.secrets, 0o700)?;
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

/// Files and folders that go again unless they are kept.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Made {
    /// Makes a folder that is not there. Its owner is that of the folder around it.
    fn folder(&mut self, path: &Path, mode: u32) -> anyhow::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .mode(mode)
            .create(path)
            .with_context(|| format!("cannot make the folder `{}`", path.display()))?;
        self.folders.push(path.to_owned());
        inherit(path)
    }

    /// Makes a file that is not there. Owner and group are those of its folder.
    fn file(&mut self, path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .with_context(|| format!("cannot make `{}`", path.display()))?;
        self.files.push(path.to_owned());
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        inherit(path)
    }

    fn keep(&mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in &self.files {
            let _removed = std::fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _removed = std::fs::remove_dir(folder);
        }
    }
}

/// Gives what root made to whom the folder around it belongs: the daemon must read it.
fn inherit(path: &Path) -> anyhow::Result<()> {
    let around = path.parent().unwrap_or(Path::new("/")).metadata()?;
    let made = path.metadata()?;
    if made.uid() == 0 && (made.uid(), made.gid()) != (around.uid(), around.gid()) {
        chown(path, Some(around.uid()), Some(around.gid()))
            .with_context(|| format!("cannot give `{}` to the daemon's account", path.display()))?;
    }
    Ok(())
}

/// Checks the instance as the account of the daemon, which has to read the same files. Returns whether it can be synced.
fn check(config: &Path, mirror: &Path, name: &InstanceName) -> anyhow::Result<bool> {
    let program = std::env::current_exe().context("where is this program")?;
    let mut command = Command::new(program);
    command
        .arg("--config")
        .arg(config)
        .args(["check", name.as_str()]);
    let folder = mirror.parent().filter(|folder| *folder != Path::new(""));
    let owner = folder.unwrap_or(Path::new(".")).metadata();
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

/// Take an instance out of the configuration
///
/// Removes `instances.d/NAME.toml` and the files of its secrets that `musterd link` made, and tells the running
/// daemon. The instance is not synced any more. The mirror keeps its users, in the state `unlinked`, and leaves them
/// out of `active_users`; linked again, it goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: sudo musterd unlink acme")]
pub(crate) struct Unlink {
    /// The instance
    #[arg(value_name = "NAME")]
    name: String,
}

pub(crate) async fn unlink(args: Unlink, config: PathBuf) -> anyhow::Result<Exit> {
    let name = InstanceName::parse(&args.name)?;
    let config = std::path::absolute(config).context("where is the working directory")?;
    let places = Places::of(&config, &name);
    if !places.instance.try_exists()? {
        let settings = config::load(&outside::sources(&config))?;
        let failure = match settings.instances.contains_key(&name) {
            true => {
                Failure::new(format!("`{name}` does not stand in a file of its own")).hint(format!(
                    "take its section out of `{}`, then reload",
                    config.display()
                ))
            }
            false => Failure::new(format!("`{name}` does not stand in the configuration")),
        };
        return Err(failure.into());
    }
    let remove = |path: &Path| {
        std::fs::remove_file(path).with_context(|| format!("cannot remove `{}`", path.display()))
    };
    remove(&places.instance)?;
    let mut output = Output::stdout();
    output.text(&format!("{name} is not configured any more\n"))?;
    for path in secrets_of(&places.secrets, &name)? {
        remove(&path)?;
        output.text(&format!("`{}` is removed\n", path.display()))?;
    }
    output.flush()?;
    if !mirror::lock::is_held(&config::mirror_path(&outside::sources(&config))?)? {
        output.text("no daemon runs: the next one to start leaves it out\n")?;
        output.flush()?;
        return Ok(Exit::Done);
    }
    let exit = handover::carry_out(&config, Request::Reload, |_line| Ok(())).await?;
    if exit == Exit::Done {
        output.text("the daemon has stopped syncing it; its users are `unlinked`\n")?;
        output.flush()?;
    }
    Ok(exit)
}

/// The files that [`link`] makes for the secrets of an instance, as far as they are there.
fn secrets_of(folder: &Path, name: &InstanceName) -> anyhow::Result<Vec<PathBuf>> {
    let suffixes = ["", ".client_secret", ".password", ".refresh_token"];
    let mut found = Vec::new();
    for suffix in suffixes {
        let path = folder.join(format!("{name}{suffix}"));
        if path.try_exists()? {
            found.push(path);
        }
    }
    Ok(found)
}
