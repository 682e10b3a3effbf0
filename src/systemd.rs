//! What systemd is told: readiness, reloads, one status line, and that we are alive. Without systemd
//! nobody is told, and nothing fails.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::model::Foreign;

/// A line to the service manager (`sd_notify(3)`).
#[derive(Clone, Debug)]
pub struct Notifier {
    socket: Option<SocketAddr>,
}

impl Notifier {
    /// How long a message may wait for a service manager that does not read.
    const SEND_TIMEOUT: Duration = Duration::from_secs(5);

    /// A notifier to `$NOTIFY_SOCKET`: a path, or an abstract name after `@`. Unset, it is silent.
    ///
    /// # Errors
    /// When the text cannot be a socket's address.
    pub fn new(notify_socket: Option<&OsStr>) -> io::Result<Self> {
        let address = |name: &OsStr| match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let named = notify_socket.filter(|name| !name.is_empty());
        Ok(Self {
            socket: named.map(address).transpose()?,
        })
    }

    /// Starting, or reloading, is over.
    ///
    /// # Errors
    /// When the message cannot be sent.
    pub fn ready(&self) -> io::Result<()> {
        self.send(&[NotifyState::Ready])
    }

    /// The configuration is read again; [`Self::ready`] follows. systemd wants to know since when, to
    /// tell this reload from an earlier one.
    ///
    /// # Errors
    /// When the message cannot be sent.
    pub fn reloading(&self) -> io::Result<()> {
        self.send(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])
    }

    /// The process is on its way out.
    ///
    /// # Errors
    /// When the message cannot be sent.
    pub fn stopping(&self) -> io::Result<()> {
        self.send(&[NotifyState::Stopping])
    }

    /// The line that `systemctl status` shows. A line break in it would begin another message.
    ///
    /// # Errors
    /// When the message cannot be sent.
    pub fn status(&self, line: &str) -> io::Result<()> {
        self.send(&[NotifyState::Status(&Foreign(line).to_string())])
    }

    /// We are alive. Due at least every [`watchdog_interval`].
    ///
    /// # Errors
    /// When the message cannot be sent.
    pub fn watchdog(&self) -> io::Result<()> {
        self.send(&[NotifyState::Watchdog])
    }

    // The crate's own `notify` asks the process's environment where to send, which no test may set.
    fn send(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some(address) = &self.socket else {
            return Ok(());
        };
        let mut message = String::new();
        for state in states {
            let _ = writeln!(message, "{state}");
        }
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(Self::SEND_TIMEOUT))?;
        socket.send_to_addr(message.as_bytes(), address)?;
        Ok(())
    }
}

/// How often [`Notifier::watchdog`] must be called: half of `$WATCHDOG_USEC`, as
/// `sd_watchdog_enabled(3)` advises. `None` if no watchdog waits for this process (`$WATCHDOG_PID`).
#[must_use]
pub fn watchdog_interval(
    watchdog_usec: Option<&OsStr>,
    watchdog_pid: Option<&OsStr>,
    own_pid: u32,
) -> Option<Duration> {
    let is_other = watchdog_pid.is_some_and(|pid| pid.to_str() != Some(&own_pid.to_string()));
    let micros: u64 = watchdog_usec?.to_str()?.parse().ok()?;
    (micros > 0 && !is_other).then(|| Duration::from_micros(micros) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    #[test]
    fn messages_are_those_of_the_protocol() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();

        notifier.ready().unwrap();
        assert_eq!(receive(&systemd), "READY=1\n");
        notifier.stopping().unwrap();
        assert_eq!(receive(&systemd), "STOPPING=1\n");
        notifier.watchdog().unwrap();
        assert_eq!(receive(&systemd), "WATCHDOG=1\n");

        notifier.reloading().unwrap();
        let message = receive(&systemd);
        let since = message
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(since.trim_end().parse::<u64>().unwrap() > 0, "{message}");
    }

    #[test]
    fn a_status_is_one_line_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(Some(path.as_os_str())).unwrap();
        notifier.status("2 instances\nMAINPID=1\u{1b}[2J").unwrap();
        assert_eq!(
            receive(&systemd),
            "STATUS=2 instances\\u{a}MAINPID=1\\u{1b}[2J\n"
        );
    }

    #[test]
    fn an_abstract_socket_is_found() {
        let name = format!("musterd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::new(Some(OsStr::new(&format!("@{name}")))).unwrap();
        notifier.ready().unwrap();
        assert_eq!(receive(&systemd), "READY=1\n");
    }

    #[test]
    fn without_systemd_nothing_is_sent_and_nothing_fails() {
        for unset in [None, Some(OsStr::new(""))] {
            let notifier = Notifier::new(unset).unwrap();
            notifier.ready().unwrap();
            notifier.reloading().unwrap();
            notifier.status("idle").unwrap();
        }
    }

    #[test]
    fn a_service_manager_that_is_gone_is_an_error() {
        let notifier = Notifier::new(Some(OsStr::new("/nonexistent/notify"))).unwrap();
        assert!(notifier.ready().is_err());
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_and_only_by_whom_it_waits_for() {
        let interval = |usec: &str, pid: Option<&str>| {
            watchdog_interval(Some(OsStr::new(usec)), pid.map(OsStr::new), 42)
        };
        assert_eq!(interval("60000000", None), Some(Duration::from_secs(30)));
        assert_eq!(
            interval("60000000", Some("42")),
            Some(Duration::from_secs(30))
        );
        assert_eq!(interval("60000000", Some("43")), None);
        assert_eq!(interval("0", None), None);
        assert_eq!(interval("soon", None), None);
        assert_eq!(watchdog_interval(None, None, 42), None);
    }
}
