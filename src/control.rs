//! The control socket: one JSON object a line. A request, then progress lines, then one result; a
//! lost client cancels nothing.

use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::model::{Mode, Profile};
use crate::sync::Progress;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// Sync now.
    Sync {
        /// Which instances; all when empty.
        #[serde(default)]
        instances: Vec<String>,
        /// `None`: full when there is no baseline, else incremental.
        #[serde(default)]
        mode: Option<Mode>,
        /// Print the plan and write nothing.
        #[serde(default)]
        dry_run: bool,
    },
    /// Probe now.
    Check {
        /// Which instances; all when empty.
        #[serde(default)]
        instances: Vec<String>,
    },
    /// Ask again about the users of a hold, and release those for whom the change still stands.
    Approve {
        /// The hold.
        hold_id: i64,
        /// The digest of the hold that the person saw.
        digest: String,
    },
    /// Take over the configured origin of an instance.
    Relink {
        /// The instance.
        instance: String,
    },
    /// Remove the users of an instance that is not configured any more, with a record for each.
    Drop {
        /// The instance.
        instance: String,
    },
    /// Import a piece of a list of own profiles: see [`crate::mirror::profiles::Piece`].
    Import {
        /// The instance.
        instance: String,
        /// Which import it is of, as the answer to its first piece says; nothing: it is the first.
        #[serde(default)]
        number: Option<u64>,
        /// The range begins behind this profile.
        #[serde(default)]
        after: Option<String>,
        /// All profiles of the range.
        profiles: Vec<Profile>,
        /// Whether the range goes on to the last profile there is.
        last: bool,
        /// How many profiles the whole list would remove, or what is left of that.
        removals: u64,
        /// Whether that is meant, also above the guard, and of profiles that a person pinned or has to decide about.
        yes: bool,
    },
    /// Link a profile to a user, whatever its keys say.
    Pin {
        /// The instance.
        instance: String,
        /// The profile.
        profile: String,
        /// The user.
        user_id: String,
    },
    /// Take a pin away.
    Unpin {
        /// The instance.
        instance: String,
        /// The profile.
        profile: String,
    },
    /// Put the configuration in force as it is now.
    Reload,
}

/// One line of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// Where a sync stands.
    Progress(Progress),
    /// One of the things that were asked for is done: a row of `syncs`, a planned record, a finding. Names are the column names.
    Row(serde_json::Value),
    /// The last line.
    Result(Ended),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// All of it was done.
    Done,
    /// It was done, but something is held, unhealthy, or must be looked at.
    Attention,
    /// It failed, with the reason; empty where the rows say it.
    Failed(String),
    /// The configuration is wrong.
    Misconfigured(String),
}

/// Where lines go. A few wait for a client that is slower than the work, then the work waits for it: a
/// plan may have a line for everybody. Lines to a client that has gone are dropped.
#[derive(Clone, Debug)]
pub struct Lines(mpsc::Sender<Line>);

impl Lines {
    /// Lines that wait at a time.
    const WAITING: usize = 64;

    /// Where lines go in, and where they come out.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Line>) {
        let (lines, told) = mpsc::channel(Self::WAITING);
        (Self(lines), told)
    }

    /// Tells where a sync stands. Nobody waits for that: while others wait to be read it is dropped.
    pub fn progress(&self, progress: Progress) {
        let _full_or_gone = self.0.try_send(Line::Progress(progress));
    }

    /// Tells of a thing that is done.
    pub async fn row(&self, row: serde_json::Value) {
        let _gone = self.0.send(Line::Row(row)).await;
    }

    /// The same from a thread that may wait.
    pub fn row_from_thread(&self, row: serde_json::Value) {
        let _gone = self.0.blocking_send(Line::Row(row));
    }
}

/// Does what requests ask for.
pub trait Execute: Send + Sync + 'static {
    /// Does it, telling of progress, to the result.
    fn execute(
        &self,
        request: Request,
        lines: Lines,
        stop: CancellationToken,
    ) -> impl Future<Output = Ended> + Send;
}

/// The longest request: a piece of a list of profiles.
const MAX_REQUEST_BYTES: u64 = 2 * 1024 * 1024;

/// How long a client may take to say what it wants.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);

/// How long a client may leave a line unread before it counts as gone: the work waits for it, and a plan
/// keeps a state of the mirror open meanwhile.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// The same once everything was told to stop.
const READ_WITHIN_AT_THE_END: Duration = Duration::from_secs(1);

/// How many clients are heard at a time: the socket is for a person and a few scripts.
const MAX_CLIENTS: usize = 32;

/// A socket that listens.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

/// Listens on a socket that only its owner and root may use.
///
/// # Errors
/// When something else than an old socket lies there, or it cannot be made.
pub fn listen(path: &Path) -> io::Result<Server> {
    let with_path = |error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("control socket `{}`: {error}", path.display()),
        )
    };
    // The mirror's lock is held: a socket that is still there is a dead daemon's.
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(with_path)?;
        }
        Ok(_other) => {
            return Err(with_path(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something that is not a socket lies there; move it away",
            )));
        }
        Err(_missing) => {}
    }
    let listener = UnixListener::bind(path).map_err(with_path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(with_path)?;
    let owner = std::fs::symlink_metadata(path).map_err(with_path)?.uid();
    Ok(Server {
        listener,
        path: path.to_owned(),
        owner,
    })
}

impl Server {
    /// Serves until told to stop; requests under way come to their end first.
    pub async fn run<E: Execute>(self, executor: Arc<E>, stop: CancellationToken) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(_ended) = clients.join_next() => {}
                accepted = self.listener.accept(), if clients.len() < MAX_CLIENTS => match accepted {
                    Ok((stream, _address)) => {
                        let (executor, stop, owner) = (Arc::clone(&executor), stop.clone(), self.owner);
                        clients.spawn(async move {
                            if let Err(error) = serve(stream, owner, &*executor, stop).await {
                                debug!(%error, "a control client went away");
                            }
                        });
                    }
                    Err(error) => {
                        // Out of file descriptors, as a rule: it passes when clients end.
                        debug!(%error, "cannot accept a control client");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
        while clients.join_next().await.is_some() {}
        // A socket that stays is removed by the next start.
        let _stays = std::fs::remove_file(&self.path);
    }
}

async fn serve(
    stream: UnixStream,
    owner: u32,
    executor: &impl Execute,
    stop: CancellationToken,
) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (read, mut write) = stream.into_split();
    if peer != 0 && peer != owner {
        let refusal = Ended::Failed("only root and the daemon's own account may ask".to_owned());
        return send(&mut write, &Line::Result(refusal)).await;
    }
    let mut line = String::new();
    let mut reader = BufReader::new(read.take(MAX_REQUEST_BYTES));
    let n_bytes = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        read = tokio::time::timeout(REQUEST_WITHIN, reader.read_line(&mut line)) => read??,
    };
    let request = match serde_json::from_str::<Request>(&line) {
        Ok(request) if n_bytes > 0 && line.ends_with('\n') => request,
        Ok(_) => return Ok(()),
        Err(error) => {
            let refusal = Ended::Failed(format!("not a request: {error}"));
            return send(&mut write, &Line::Result(refusal)).await;
        }
    };
    let (lines, mut told) = Lines::channel();
    let work = executor.execute(request, lines, stop.clone());
    let forward = async {
        let mut is_read = Ok(());
        while let Some(line) = told.recv().await {
            if is_read.is_ok() {
                is_read = send_in_time(&mut write, &line, &stop).await;
            }
        }
        is_read
    };
    // The work owns the sender: when it is done, the forwarding ends by itself.
    let (ended, is_read) = tokio::join!(work, forward);
    is_read?;
    send_in_time(&mut write, &Line::Result(ended), &stop).await
}

async fn send_in_time(
    write: &mut (impl tokio::io::AsyncWrite + Unpin),
    line: &Line,
    stop: &CancellationToken,
) -> io::Result<()> {
    let the_end = async {
        stop.cancelled().await;
        tokio::time::sleep(READ_WITHIN_AT_THE_END).await;
    };
    tokio::select! {
        biased;
        sent = send(write, line) => sent,
        () = tokio::time::sleep(READ_WITHIN) => Err(io::ErrorKind::TimedOut.into()),
        () = the_end => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn send(write: &mut (impl tokio::io::AsyncWrite + Unpin), line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line).map_err(io::Error::other)?;
    text.push('\n');
    write.write_all(text.as_bytes()).await
}

/// Asks a running daemon, and hands on its lines.
///
/// # Errors
/// When nobody listens, or the daemon goes away before its result.
pub async fn ask(paths: &[PathBuf], request: &Request, lines: &Lines) -> io::Result<Ended> {
    let mut stream = connect(paths).await?;
    let mut text = serde_json::to_string(request).map_err(io::Error::other)?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await?;
    let mut answer = BufReader::new(stream).lines();
    while let Some(line) = answer.next_line().await? {
        match serde_json::from_str(&line).map_err(io::Error::other)? {
            Line::Result(ended) => return Ok(ended),
            Line::Progress(progress) => lines.progress(progress),
            Line::Row(row) => lines.row(row).await,
        }
    }
    Err(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the daemon went away before it was done; look at its log",
    ))
}

async fn connect(paths: &[PathBuf]) -> io::Result<UnixStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no control socket");
    for path in paths {
        match UnixStream::connect(path).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                last = io::Error::new(error.kind(), format!("`{}`: {error}", path.display()));
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Tells more than any socket's buffer holds.
    #[derive(Default)]
    struct Chatty {
        told: AtomicUsize,
    }

    const ROWS: usize = 1000;

    impl Execute for Chatty {
        async fn execute(&self, _: Request, lines: Lines, _: CancellationToken) -> Ended {
            for _ in 0..ROWS {
                lines.row("x".repeat(10_000).into()).await;
                self.told.fetch_add(1, Ordering::Relaxed);
            }
            Ended::Done
        }
    }

    fn started(
        chatty: &Arc<Chatty>,
    ) -> (tempfile::TempDir, PathBuf, CancellationToken, JoinSet<()>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock");
        let (server, stop) = (listen(&path).unwrap(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(server.run(Arc::clone(chatty), stop.clone()));
        (folder, path, stop, tasks)
    }

    #[tokio::test]
    async fn who_reads_gets_every_line() {
        let (_folder, path, stop, mut tasks) = started(&Arc::default());
        let (lines, mut told) = Lines::channel();
        let (request, paths) = (Request::Check { instances: vec![] }, [path]);
        let count = async {
            let mut rows = 0;
            while told.recv().await.is_some() {
                rows += 1;
            }
            rows
        };
        let ask = async move { ask(&paths, &request, &{ lines }).await };
        let (ended, rows) = tokio::join!(ask, count);
        assert_eq!((ended.unwrap(), rows), (Ended::Done, ROWS));
        stop.cancel();
        tasks.join_next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_fills_no_memory_and_holds_up_no_end() {
        let chatty = Arc::<Chatty>::default();
        let (_folder, path, stop, mut tasks) = started(&chatty);
        let mut client = UnixStream::connect(&path).await.unwrap();
        client
            .write_all(b"{\"request\":\"check\"}\n")
            .await
            .unwrap();
        // Until the work waits for the client.
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let told = chatty.told.load(Ordering::Relaxed);
            if told > 0 && told == before {
                break;
            }
            before = told;
        }
        assert!(before < ROWS / 2, "{before} lines wait to be read");
        stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(9), tasks.join_next()).await;
        ended
            .expect("it ends although nobody reads")
            .unwrap()
            .unwrap();
        drop(client);
    }
}
