//! Commands that need the instances: handed to the daemon while it holds the mirror's lock, done
//! here when the lock is free.

use std::ffi::OsStr;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::{Exit, Failure, Misconfigured};
use super::outside;
use crate::config::settings::InstanceSettings;
use crate::config::{self, Secrets, Settings};
use crate::control::{self, Ended, Execute as _, Line, Lines, Request};
use crate::daemon::execute::{self, Executor};
use crate::daemon::fleet::Fleet;
use crate::daemon::requests::{self, Keep};
use crate::daemon::{link, map, removal};
use crate::mirror::lock::Lock;
use crate::mirror::{self, Mirror, Reader};
use crate::model::InstanceName;

/// Has the running daemon read its configuration anew. `None`: none runs.
///
/// # Errors
/// What the daemon refused, or why it cannot be asked.
pub(super) async fn reload(config: &Path) -> anyhow::Result<Option<Exit>> {
    let mirror = config::mirror_path(&outside::sources(config, Secrets::None))?;
    if !mirror::lock::is_held(&mirror)? {
        return Ok(None);
    }
    let exit = carry_out(config, Request::Reload, |_line| Ok(())).await?;
    Ok(Some(exit))
}

/// Why the daemon alone could do what a request asks for, where none runs.
///
/// # Errors
/// When that cannot be found out.
pub(super) fn needs_daemon(mirror: &Path) -> anyhow::Result<Option<String>> {
    match mirror::lock::is_held(mirror)? {
        true => Ok(None),
        false => not_as_root(mirror),
    }
}

fn not_as_root(mirror: &Path) -> anyhow::Result<Option<String>> {
    let owner = outside::other_owner_of_the_folder(mirror)?;
    Ok(owner.map(|owner| {
        format!(
            "no daemon runs, and the folder of `{}` belongs to the account {owner}, which could not open what root makes \
             there: run this as that account, with `sudo -u`",
            mirror.display()
        )
    }))
}

/// Does what a request asks for, here or in the daemon; `show` is given each line.
pub(super) async fn carry_out(
    config: &Path,
    request: Request,
    mut show: impl FnMut(Line) -> anyhow::Result<()>,
) -> anyhow::Result<Exit> {
    let stop = CancellationToken::new();
    let (lines, mut told) = Lines::channel();
    let work = work(config.to_owned(), request, lines, stop.clone());
    let mut task = tokio::spawn(work);
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupted = false;
    let ended = loop {
        tokio::select! {
            biased;
            Some(()) = told_to_stop(&mut interrupt, &mut terminate) => {
                if interrupted {
                    return Ok(Exit::Interrupted);
                }
                // The first one lets a sync come to its own end, the second one does not.
                interrupted = true;
                stop.cancel();
            }
            Some(line) = told.recv() => show(line)?,
            ended = &mut task => break ended.context("the command did not come to its end")??,
        }
    };
    while let Ok(line) = told.try_recv() {
        show(line)?;
    }
    if interrupted {
        return Ok(Exit::Interrupted);
    }
    match ended {
        Ended::Done => Ok(Exit::Done),
        Ended::Attention => Ok(Exit::Attention),
        Ended::Failed(reason) if reason.is_empty() => Ok(Exit::Failed),
        Ended::Failed(reason) => Err(Failure::new(reason).into()),
        Ended::Misconfigured(reason) => Err(Misconfigured(reason).into()),
    }
}

async fn told_to_stop(interrupt: &mut Signal, terminate: &mut Signal) -> Option<()> {
    tokio::select! {
        told = interrupt.recv() => told,
        told = terminate.recv() => told,
    }
}

async fn work(
    config: PathBuf,
    request: Request,
    lines: Lines,
    stop: CancellationToken,
) -> anyhow::Result<Ended> {
    let path = config::mirror_path(&outside::sources(&config, Secrets::None))?;
    if mirror::lock::is_held(&path)? {
        let sockets = sockets(&path);
        return tokio::select! {
            // The daemon goes on with what it was asked for.
            () = stop.cancelled() => Ok(Ended::Done),
            ended = control::ask(&sockets, &request, &lines) => ended.with_context(|| {
                format!("another process holds the mirror `{}`, and it cannot be asked", path.display())
            }),
        };
    }
    // It has ended since it was looked for, and nothing is to be done in its place.
    anyhow::ensure!(request != Request::Reload, "the daemon has just ended");
    let secrets = match request {
        // What cannot be had is part of what a check finds.
        Request::Check { .. } => Secrets::AllButCredentials,
        Request::Relink { .. }
        | Request::Drop { .. }
        | Request::Import { .. }
        | Request::Pin { .. }
        | Request::Unpin { .. } => Secrets::None,
        // Before anything is written: a sync without them would only fail.
        _ => Secrets::All,
    };
    let settings = config::load(&outside::sources(&config, secrets))?;
    if let Some(why) = not_as_root(&settings.mirror.path)? {
        return Ok(Ended::Failed(why));
    }
    // The first piece of a list has done so.
    let goes_on = matches!(request, Request::Import { after: Some(_), .. });
    if !goes_on && !log_aside() {
        outside::log(&settings.log)?;
    }
    // `check` tells of them itself.
    let is_told = goes_on || matches!(request, Request::Check { .. });
    for warning in settings.warnings.iter().filter(|_| !is_told) {
        super::exit::note(warning);
    }
    alone(&config, settings, request, lines, stop).await
}

/// Where the daemon's control socket may lie: where this process would put it, beside the mirror, or
/// where systemd's unit has it.
fn sockets(mirror: &Path) -> Vec<PathBuf> {
    let runtime_directory = std::env::var_os("RUNTIME_DIRECTORY");
    let mut paths = vec![
        config::socket_path(mirror, runtime_directory.as_deref()),
        config::socket_path(mirror, None),
        config::socket_path(mirror, Some(OsStr::new(RUNTIME_DIRECTORY_OF_THE_UNIT))),
    ];
    paths.dedup();
    paths
}

/// `RuntimeDirectory=musterd`.
const RUNTIME_DIRECTORY_OF_THE_UNIT: &str = "/run/musterd";

/// On a terminal the progress bars and the results say it all.
fn log_aside() -> bool {
    std::io::stderr().is_terminal()
}

/// Nobody holds the lock: does the work in this process.
async fn alone(
    config: &Path,
    settings: Settings,
    request: Request,
    lines: Lines,
    stop: CancellationToken,
) -> anyhow::Result<Ended> {
    let surroundings = outside::surroundings()?;
    // A daemon that starts meanwhile would ask the same instances at its own pace (promise P8).
    let is_read_only = matches!(
        request,
        Request::Check { .. } | Request::Sync { dry_run: true, .. }
    );
    let path = &settings.mirror.path;
    let _lock = match is_read_only && path.try_exists()? {
        true => Some(Lock::take(path)?),
        false => None,
    };
    match request {
        Request::Check { instances } => {
            let links = link::prepare(&settings, &surroundings)?;
            let links = link::named(&links, &instances)?;
            requests::heed(path, &links, &surroundings.clock).await;
            let read = || match path.try_exists()? {
                true => Ok(Some(Reader::open(path)?)),
                false => Ok(None),
            };
            let ended = execute::check(&links, &read, &surroundings.clock, &lines, &stop).await;
            requests::add(path, links, &surroundings.clock).await;
            ended
        }
        Request::Sync {
            instances,
            mode,
            dry_run: true,
        } => {
            let links = link::prepare(&settings, &surroundings)?;
            let links = link::named(&links, &instances)?;
            let known = Known::open(&settings.mirror.path)?;
            link::check_pins(&link::pins(&settings), &known.reader()?.pins()?)?;
            let read = || known.reader();
            requests::heed(path, &links, &surroundings.clock).await;
            // What it sends is not counted for `status`, nor what it is told to wait: it writes nothing.
            execute::dry_run(&links, &read, mode, &surroundings.clock, &lines, &stop).await
        }
        request => {
            if let Request::Sync { instances, .. } = &request {
                // A mistyped name leaves no empty mirror behind.
                link::named(&link::prepare(&settings, &surroundings)?, instances)?;
            }
            if let Some(instance) = map::instance_of(&request) {
                configured(&settings, instance)?;
                let path = &settings.mirror.path;
                // Without a mirror there is nobody to be linked to.
                anyhow::ensure!(
                    path.try_exists()?,
                    "there is no mirror `{}` yet",
                    path.display()
                );
            }
            let mirror = Mirror::open(&settings.mirror.path, &outside::epoch()?)?;
            let ended = in_mirror(config, &settings, mirror.clone(), request, lines, stop).await;
            mirror.close().await?;
            ended
        }
    }
}

async fn in_mirror(
    config: &Path,
    settings: &Settings,
    mirror: Mirror,
    request: Request,
    lines: Lines,
    stop: CancellationToken,
) -> anyhow::Result<Ended> {
    if let Request::Relink { instance } = &request {
        execute::relink(&mirror, settings, instance).await?;
        return Ok(Ended::Done);
    }
    let surroundings = outside::surroundings()?;
    if let Request::Drop { instance } = &request {
        let (name, pins) = (InstanceName::parse(instance)?, link::pins(settings));
        // As at a start: whoever is not configured is unlinked.
        mirror.write(move |writer| writer.link(&pins)).await?;
        return removal::remove(&mirror, &surroundings.clock, &name, &lines, &stop).await;
    }
    if let Some(instance) = map::instance_of(&request) {
        let (name, configured) = configured(settings, instance)?;
        let pins = link::pins(settings);
        // As at a start: the mirror may not know it yet.
        mirror.write(move |writer| writer.link(&pins)).await?;
        let of = map::Of {
            mirror: &mirror,
            clock: &surroundings.clock,
            instance: name,
            settings: &configured.identity,
        };
        if let Some(ended) = map::carry_out(of, request.clone(), &lines, &stop).await {
            return Ok(ended.unwrap_or_else(|error| execute::failed(&error)));
        }
    }
    let fleet = Fleet::assemble(settings, mirror, &surroundings).await?;
    let fleet = Arc::new(fleet);
    let executor = Executor {
        fleet: Arc::clone(&fleet),
        load: outside::loader(config),
        reload: None,
    };
    let ended = executor.execute(request, lines, stop).await;
    fleet.keep_requests(Keep::Now).await;
    Ok(ended)
}

fn configured<'s>(
    settings: &'s Settings,
    instance: &str,
) -> anyhow::Result<(&'s InstanceName, &'s InstanceSettings)> {
    let mut instances = settings.instances.iter();
    instances
        .find(|(name, _settings)| name.as_str() == instance)
        .with_context(|| format!("no instance `{instance}` in the configuration"))
}

/// What a dry run compares with: the mirror, or an empty one where there is none yet.
enum Known {
    Mirror(PathBuf),
    Nothing {
        empty: Mirror,
        _folder: tempfile::TempDir,
    },
}

impl Known {
    fn open(path: &Path) -> anyhow::Result<Self> {
        if path.try_exists()? {
            return Ok(Self::Mirror(path.to_owned()));
        }
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let empty = Mirror::open(&folder.path().join("empty.db"), &outside::epoch()?)?;
        Ok(Self::Nothing {
            empty,
            _folder: folder,
        })
    }

    fn reader(&self) -> anyhow::Result<Reader> {
        Ok(match self {
            Self::Mirror(path) => Reader::open(path)?,
            Self::Nothing { empty, .. } => empty.reader()?,
        })
    }
}
