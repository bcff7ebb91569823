//! sd_notify(3): tells systemd that the service is ready, what state it is in, and that
//! the loop makes progress. Without NOTIFY_SOCKET it does nothing. It never blocks and
//! never fails the loop.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::time::Duration;

/// The channel to the service manager, if there is one.
#[derive(Debug)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// WatchdogSec= of the unit.
    pub watchdog: Option<Duration>,
}

impl Notify {
    /// Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.
    ///
    /// # Errors
    /// One line, if NOTIFY_SOCKET is set but cannot be used.
    pub fn from_env() -> Result<Notify, String> {
        let manager = match env::var_os("NOTIFY_SOCKET") {
            None => None,
            Some(path) => Some(socket(&path).map_err(|error| {
                format!("cannot notify systemd on NOTIFY_SOCKET {path:?}: {error}")
            })?),
        };
        let variable = |name| {
            env::var(name)
                .ok()
                .and_then(|value| value.parse::<u64>().ok())
        };
        // Set for another process (a wrapper that forked): not our watchdog.
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = variable("WATCHDOG_USEC").filter(|&usec| ours && usec > 0);
        Ok(Notify {
            watchdog: watchdog
                .map(Duration::from_micros)
                .filter(|_| manager.is_some()),
            manager,
        })
    }

    /// Sends assignments such as `READY=1`, one per line. Without a service manager it
    /// sends nothing.
    ///
    /// # Errors
    /// The system's. `WouldBlock` means that there is no room for the datagram; waiting
    /// for room could stall the loop.
    pub fn send(&self, assignments: &str) -> io::Result<()> {
        if let Some((socket, address)) = &self.manager {
            socket.send_to_addr(assignments.as_bytes(), address)?;
        }
        Ok(())
    }
}

/// Decides what systemd needs to hear: each state once, and keep-alives in time.
#[derive(Debug)]
pub struct Updates {
    watchdog: Option<Duration>,
    last: Option<(Duration, String)>,
    failure: Option<ErrorKind>,
}

impl Updates {
    /// Nothing sent yet; `watchdog` is [`Notify::watchdog`].
    pub fn new(watchdog: Option<Duration>) -> Updates {
        Updates {
            watchdog,
            last: None,
            failure: None,
        }
    }

    /// The longest sleep between two keep-alives: WatchdogSec / 4. A probe in between
    /// adds up to --timeout.
    pub fn longest_sleep(&self) -> Duration {
        self.watchdog.map_or(Duration::MAX, |watchdog| watchdog / 4)
    }

    /// What to send at `now`, before a sleep of `sleep`, if anything. The first message
    /// carries READY, because the first probe is done. A keep-alive that would be due
    /// during the sleep is sent before it, because a probe may follow at once.
    pub fn message(&self, now: Duration, sleep: Duration, status: &str) -> Option<String> {
        match &self.last {
            None => Some(format!("READY=1\nSTATUS={status}\nWATCHDOG=1")),
            Some((_, last)) if last != status => Some(format!("STATUS={status}\nWATCHDOG=1")),
            Some((then, _)) => (now.saturating_sub(*then) + sleep >= self.longest_sleep())
                .then(|| "WATCHDOG=1".to_string()),
        }
    }

    /// Records that the message was sent.
    pub fn sent(&mut self, now: Duration, status: &str) {
        self.last = Some((now, status.to_string()));
        self.failure = None;
    }

    /// Records that the message was not sent; it stays due. Returns whether that is
    /// worth a log line: a repeated error is not, nor is a lack of room for the
    /// datagram, which passes.
    pub fn failed(&mut self, error: &io::Error) -> bool {
        let failure = Some(error.kind());
        self.failure.replace(error.kind()) != failure && failure != Some(ErrorKind::WouldBlock)
    }
}

fn socket(path: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    // Not connected: a connection would not survive a manager that recreates its
    // socket.
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
