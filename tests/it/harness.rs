//! What a black-box test needs: a folder with a configuration, the built binary run in it within a
//! time limit, and the mirror read the way any other program reads it.
//!
//! Nothing here sleeps: a test blocks on a line of output or on the end of a process, both bounded.

pub(crate) mod http;
pub(crate) mod python;
pub(crate) mod served;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rusqlite::types::{FromSql, Value};
use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

/// No command of a test takes this long, however busy the machine is.
pub(crate) const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The built binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_musterd");

/// How an instance of a test is reached. Everything else of its configuration is the same for all:
/// a rate that no test waits for, and retries that end soon.
pub(crate) struct Instance<'a> {
    pub(crate) name: &'a str,
    /// Scheme, host and port.
    pub(crate) url: &'a str,
    pub(crate) scim_path: &'a str,
    pub(crate) auth: Auth<'a>,
    pub(crate) page_size: u32,
    /// Lines of TOML that come last: `guard.deactivations = { … }`.
    pub(crate) more: &'a str,
}

/// The credentials of an instance. Secrets go into files of mode 0600.
#[derive(Clone, Copy)]
pub(crate) enum Auth<'a> {
    Bearer(&'a str),
    Basic {
        username: &'a str,
        password: &'a str,
    },
    ClientCredentials {
        client_id: &'a str,
        client_secret: &'a str,
    },
}

/// A folder of its own with a configuration and a mirror; gone when dropped.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// A home with these instances configured.
    pub(crate) fn new(instances: &[Instance<'_>]) -> Self {
        Self::new_in(&std::env::temp_dir(), instances)
    }

    /// A home below this folder.
    pub(crate) fn new_in(folder: &Path, instances: &[Instance<'_>]) -> Self {
        let home = Self {
            dir: tempfile::tempdir_in(folder).expect("a folder for the test"),
        };
        home.configure(instances);
        home
    }

    /// Writes the configuration anew.
    pub(crate) fn configure(&self, instances: &[Instance<'_>]) {
        let mut text = format!(
            "[mirror]\npath = {:?}\n\n[log]\nlevel = \"info\"\nformat = \"json\"\n",
            self.mirror_path()
        );
        for instance in instances {
            let auth = self.auth_lines(instance);
            // Most scenes are of users, and many of their servers know no groups.
            let resources = match instance.more.contains("resources") {
                true => "",
                false => "resources = [\"users\"]\n",
            };
            write!(
                text,
                "\n[instances.{}]\nurl = {:?}\nscim_path = {:?}\npage_size = {}\ntimeout = \"20s\"\n\
                 rate = {{ per_second = 1000, burst = 1000 }}\n\
                 retry = {{ attempts = 2, max_wait = \"100ms\" }}\n{resources}{auth}{}\n",
                instance.name, instance.url, instance.scim_path, instance.page_size, instance.more,
            )
            .expect("writing to a string");
        }
        std::fs::write(self.config_path(), text).expect("the configuration is written");
    }

    fn auth_lines(&self, instance: &Instance<'_>) -> String {
        let secret = |text| format!("{{ file = {:?} }}", self.secret(instance.name, text));
        match instance.auth {
            Auth::Bearer(token) => {
                format!(
                    "auth = {{ type = \"bearer\", token = {} }}\n",
                    secret(token)
                )
            }
            Auth::Basic { username, password } => format!(
                "auth = {{ type = \"basic\", username = {username:?}, password = {} }}\n",
                secret(password)
            ),
            Auth::ClientCredentials {
                client_id,
                client_secret,
            } => format!(
                "auth = {{ type = \"client_credentials\", client_id = {client_id:?}, client_secret = {} }}\n",
                secret(client_secret)
            ),
        }
    }

    fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(format!("secret-{name}"));
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .expect("the secret is written");
        path
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("musterd.toml")
    }

    pub(crate) fn mirror_path(&self) -> PathBuf {
        self.dir.path().join("mirror.db")
    }

    /// Starts the built binary on this home's configuration.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(BINARY);
        command.args(args);
        Running::start(command)
    }

    /// A program in this home's folder, in an environment without surprises.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("MUSTERD_CONFIG", self.config_path())
            .current_dir(self.path());
        command
    }

    /// Runs the built binary to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.start(args).finish(TIME_LIMIT)
    }

    /// One sync of every configured instance.
    pub(crate) fn sync(&self, mode: &str) -> Ran {
        self.run(&["sync", "--mode", mode, "--json"])
    }

    /// Holds the mirror against the feed.
    pub(crate) fn verify(&self) {
        let ran = self.run(&["verify"]);
        assert_eq!(ran.code, Some(0), "`musterd verify`: {ran}");
    }

    /// The mirror, opened as README tells every reader to.
    pub(crate) fn mirror(&self) -> Connection {
        let uri = format!("file:{}?mode=ro", self.mirror_path().display());
        Connection::open_with_flags(
            uri,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI,
        )
        .expect("the mirror opens read-only")
    }

    /// The rows of a query, each by column name.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Row> {
        rows(&self.mirror(), sql)
    }

    /// The one value of a query.
    pub(crate) fn one<T: FromSql>(&self, sql: &str) -> T {
        self.mirror()
            .query_row(sql, [], |row| row.get(0))
            .unwrap_or_else(|error| panic!("`{sql}`: {error}"))
    }

    /// The first column of a query, as text.
    pub(crate) fn list(&self, sql: &str) -> Vec<String> {
        let mirror = self.mirror();
        let mut query = mirror.prepare(sql).expect(sql);
        query
            .query_map([], |row| row.get(0))
            .and_then(Iterator::collect)
            .unwrap_or_else(|error| panic!("`{sql}`: {error}"))
    }

    /// The newest row of `syncs`.
    pub(crate) fn last_sync(&self) -> Row {
        self.rows("SELECT * FROM syncs ORDER BY id DESC LIMIT 1")
            .pop()
            .expect("a sync is on record")
    }
}

/// Every file of a folder with its content, the mirror's log and index, its lock and stages among them.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = folder.read_dir().expect("the folder can be read");
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), std::fs::read(path).expect("the file is read")))
        .collect()
}

/// No file of a folder was made, removed or written.
#[track_caller]
pub(crate) fn untouched(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
    place: &str,
) {
    let names = before.keys().chain(after.keys());
    let written: Vec<&PathBuf> = names
        .filter(|name| before.get(*name) != after.get(*name))
        .collect();
    assert!(written.is_empty(), "{place}: {written:?} changed");
}

/// A row by column name.
pub(crate) type Row = BTreeMap<String, Value>;

/// The rows of a query, each by column name.
pub(crate) fn rows(connection: &Connection, sql: &str) -> Vec<Row> {
    let mut query = connection
        .prepare(sql)
        .unwrap_or_else(|error| panic!("`{sql}`: {error}"));
    let names: Vec<String> = query.column_names().map(Into::into).collect();
    query
        .query_map([], |row| {
            names
                .iter()
                .enumerate()
                .map(|(place, name)| Ok((name.clone(), row.get(place)?)))
                .collect()
        })
        .and_then(Iterator::collect)
        .unwrap_or_else(|error| panic!("`{sql}`: {error}"))
}

/// A value of a row as text, for comparing and for messages; NULL is `None`.
pub(crate) fn text(row: &Row, column: &str) -> Option<String> {
    match row.get(column) {
        None => panic!("no column `{column}` in {row:?}"),
        Some(Value::Null) => None,
        Some(Value::Integer(n)) => Some(n.to_string()),
        Some(Value::Real(n)) => Some(n.to_string()),
        Some(Value::Text(text)) => Some(text.clone()),
        Some(Value::Blob(bytes)) => Some(format!("{bytes:02x?}")),
    }
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    /// `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "exit code {:?}\n--- stdout\n{}--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// One line of a running program.
#[derive(Clone, Debug)]
enum Line {
    Out(String),
    Err(String),
}

/// A program that runs; ended by its process id when dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<Line>,
    ran: Ran,
}

impl Running {
    /// Starts a program with its output read line by line, so that it never blocks on a full pipe.
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::piped())
    }

    /// Starts a program that writes its results on a terminal.
    pub(crate) fn start_on(command: Command, terminal: std::fs::File) -> Self {
        Self::start_with(command, terminal.into())
    }

    fn start_with(mut command: Command, stdout: Stdio) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("`{command:?}` does not start: {error}"));
        let (sender, lines) = channel();
        let out = child.stdout.take();
        let err = child.stderr.take().expect("stderr is piped");
        let to_out = sender.clone();
        if let Some(out) = out {
            std::thread::spawn(move || each_line(out, |line| to_out.send(Line::Out(line)).is_ok()));
        }
        std::thread::spawn(move || each_line(err, |line| sender.send(Line::Err(line)).is_ok()));
        Self {
            child,
            lines,
            ran: Ran {
                code: None,
                stdout: String::new(),
                stderr: String::new(),
            },
        }
    }

    /// The next line of either stream; `None` when both have ended.
    fn next_line(&mut self, deadline: Instant) -> Result<Option<String>, RecvTimeoutError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = match self.lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (text, kept) = match line {
            Line::Out(text) => (text, &mut self.ran.stdout),
            Line::Err(text) => (text, &mut self.ran.stderr),
        };
        kept.push_str(&text);
        kept.push('\n');
        Ok(Some(text))
    }

    /// Waits for a line on either stream; `Err` with everything it said when it ended before.
    ///
    /// # Panics
    /// When the line does not come in time.
    pub(crate) fn wait_for(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<String, String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_line(deadline) {
                Ok(Some(line)) if wanted(&line) => return Ok(line),
                Ok(Some(_)) => {}
                Ok(None) => return Err(self.ran.to_string()),
                Err(_) => panic!("the line did not come within {limit:?}: {}", self.ran),
            }
        }
    }

    /// Takes what it has said so far.
    ///
    /// # Panics
    /// When it has ended by itself.
    #[track_caller]
    pub(crate) fn is_alive(&mut self) {
        self.listen(Instant::now());
    }

    /// Whether it has come to its end.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Takes what it says until then.
    ///
    /// # Panics
    /// When it ends by itself.
    #[track_caller]
    pub(crate) fn listen(&mut self, until: Instant) {
        loop {
            match self.next_line(until) {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended by itself: {}", self.ran),
                Err(_) => return,
            }
        }
    }

    /// Its command line and its environment, as other accounts may read them.
    pub(crate) fn shown_by_the_system(&self) -> String {
        let read = |name| std::fs::read(self.proc(name)).unwrap();
        ["cmdline", "environ"]
            .map(|name| String::from_utf8_lossy(&read(name)).into_owned())
            .join("\n")
    }

    /// What the system tells of it, in these files of its own below `/proc`.
    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc")
            .join(self.child.id().to_string())
            .join(name)
    }

    /// Until a command that waits for a daemon listens for signals: it begins with SIGTERM last.
    pub(crate) fn wait_until_it_listens(&self) {
        const SIGTERM: u32 = 15;
        let listens = || {
            let status = std::fs::read_to_string(self.proc("status")).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = u64::from_str_radix(caught.unwrap().trim(), 16).unwrap();
            caught & 1 << (SIGTERM - 1) != 0
        };
        let deadline = Instant::now() + TIME_LIMIT;
        while !listens() {
            assert!(Instant::now() < deadline, "it does not listen");
            std::thread::yield_now();
        }
    }

    /// Halts it where it is, every thread of it, until [`Running::resume`]: signals wait meanwhile.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        let threads = self.proc("task");
        // Behind the name in parentheses comes the state; `T` is stopped.
        let is_halted = |stat: String| stat.rsplit(')').next().is_some_and(|s| s.starts_with(" T"));
        let are_halted = || {
            std::fs::read_dir(&threads).is_ok_and(|mut threads| {
                threads.all(|thread| {
                    let stat = thread.map(|thread| thread.path().join("stat"));
                    stat.and_then(std::fs::read_to_string).is_ok_and(is_halted)
                })
            })
        };
        let deadline = Instant::now() + TIME_LIMIT;
        while !are_halted() {
            assert!(Instant::now() < deadline, "it does not halt");
            std::thread::yield_now();
        }
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Asks it to stop, as a service manager does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Asks it to read its configuration anew.
    pub(crate) fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Asks it to stop, as a person at a terminal does.
    pub(crate) fn interrupt(&self) {
        self.signal("INT");
    }

    /// Ends it without a chance to put anything in order.
    pub(crate) fn kill(&self) {
        self.signal("KILL");
    }

    fn signal(&self, name: &str) {
        let id = self.child.id();
        let sent = Command::new("sh")
            .args(["-c", "kill -\"$0\" \"$1\"", name, &id.to_string()])
            .status()
            .expect("a shell");
        assert!(sent.success(), "SIG{name} to {id}");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time.
    pub(crate) fn finish(mut self, limit: Duration) -> Ran {
        let deadline = Instant::now() + limit;
        loop {
            match self.next_line(deadline) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => panic!("it did not end within {limit:?}: {}", self.ran),
            }
        }
        // Both streams are closed: it has ended, or is about to.
        self.ran.code = self.child.wait().expect("it is our child").code();
        std::mem::replace(
            &mut self.ran,
            Ran {
                code: None,
                stdout: String::new(),
                stderr: String::new(),
            },
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Hands on each line until the stream ends or nobody listens; what is no UTF-8 is shown as such.
fn each_line(stream: impl std::io::Read, mut take: impl FnMut(String) -> bool) {
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { return };
        if !take(String::from_utf8_lossy(&line).into_owned()) {
            return;
        }
    }
}

/// A port of the loopback address that was free a moment ago, for a server that must be told one.
/// Somebody else may take it before that server does: try again then.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port()
}
