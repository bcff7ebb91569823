//! sd_notify(3): tells systemd that the service is ready, what state it is in, and that
//! the loop makes progress. Without NOTIFY_SOCKET it does nothing. It never blocks and
//! never fails the loop.

use std::env;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use std::{mem, process};

use crate::reason::reason;

/// The channel to the service manager, if there is one.
#[derive(Debug)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// WatchdogSec= of the unit.
    pub watchdog: Option<Duration>,
}

impl Notify {
    /// Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. A NOTIFY_SOCKET that cannot be
    /// used costs the messages, not the port.
    pub fn from_env() -> Notify {
        let path = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        let manager = path.and_then(|path| {
            let cannot = |error: io::Error| {
                let reason = reason(&error);
                log::warn!(target: "healthport", "cannot notify systemd on NOTIFY_SOCKET {path:?}: {reason}");
            };
            socket(&path).map_err(cannot).ok()
        });
        let variable = |name| {
            env::var(name)
                .ok()
                .and_then(|value| value.parse::<u64>().ok())
        };
        // Set for another process (a wrapper that forked): not our watchdog.
        let ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = variable("WATCHDOG_USEC").filter(|&usec| ours && usec > 0);
        Notify {
            watchdog: watchdog
                .map(Duration::from_micros)
                .filter(|_| manager.is_some()),
            manager,
        }
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

/// The warning where systemd may kill a stalled process before its lease has closed the
/// port: SIGKILL ends the helper, the lease's only keeper, at once, while a main thread
/// that hangs in the kernel keeps the listener open (25 s measured).
pub fn kills_before(watchdog: Option<Duration>, max_age: Duration) -> Option<String> {
    let watchdog = watchdog.filter(|&watchdog| watchdog <= max_age)?;
    Some(format!(
        "WatchdogSec={watchdog:?} is not longer than --max-age {max_age:?}: systemd may kill a stalled healthport before its port is closed"
    ))
}

/// Decides what systemd needs to hear: each state once, and keep-alives in time.
#[derive(Debug)]
pub struct Updates {
    watchdog: Option<Duration>,
    last: Option<(Duration, String)>,
    has_failed: bool,
}

impl Updates {
    pub fn new(watchdog: Option<Duration>) -> Updates {
        Updates {
            watchdog,
            last: None,
            has_failed: false,
        }
    }

    /// What to send at `now`, if anything. Call it at every beat of the loop. The first
    /// message carries READY, because the first probe is done. A keep-alive is due when a
    /// quarter of WatchdogSec has passed, and a beat later at most it is sent: within half
    /// of WatchdogSec if that is 4 s or more (sd_watchdog_enabled(3)), and in time at all
    /// if it is 2 s or more.
    pub fn message(&self, now: Duration, status: &str) -> Option<String> {
        let is_due = |then: Duration| {
            let watchdog = self.watchdog.unwrap_or(Duration::MAX);
            now.saturating_sub(then) >= watchdog / 4
        };
        match &self.last {
            None => Some(format!("READY=1\nSTATUS={status}\nWATCHDOG=1")),
            Some((_, last)) if last != status => Some(format!("STATUS={status}\nWATCHDOG=1")),
            Some((then, _)) => is_due(*then).then(|| "WATCHDOG=1".to_string()),
        }
    }

    pub fn sent(&mut self, now: Duration, status: &str) {
        self.last = Some((now, status.to_string()));
        self.has_failed = false;
    }

    /// Records that the message was not sent; it stays due. Returns whether to log the
    /// error: the first since a message was sent, unless it passes by itself (no room for
    /// the datagram).
    pub fn failed(&mut self, error: &io::Error) -> bool {
        error.kind() != ErrorKind::WouldBlock && !mem::replace(&mut self.has_failed, true)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_beat_of_a_second_keeps_the_watchdog_quiet() {
        // The limit for a pause, in milliseconds, for a beat at any time.
        for (watchdog, limit) in [
            (2_000, 1_500),
            (4_000, 2_000),
            (6_000, 2_500),
            (60_000, 16_000),
        ] {
            let mut updates = Updates::new(Some(Duration::from_millis(watchdog)));
            let ms = Duration::from_millis;
            let (mut now, mut last, mut sent) = (0, 0, 0);
            for beat in (0..10_000).map(|number| 1 + number * 7_919 % 1_000) {
                if let Some(message) = updates.message(ms(now), "x") {
                    assert!(now - last <= limit, "{watchdog}: {} ms", now - last);
                    assert_eq!(message.contains("READY=1"), sent == 0, "{message}");
                    (last, sent) = (now, sent + 1);
                    updates.sent(ms(now), "x");
                }
                now += beat;
            }
            // It does not flood systemd either.
            assert!(sent <= now / (watchdog / 4) + 1, "{watchdog}: {sent}");
        }
        let mut updates = Updates::new(None);
        updates.sent(SECOND, "x");
        assert_eq!(updates.message(1_000_000 * SECOND, "x"), None);
        let change = updates.message(SECOND, "y");
        assert_eq!(change.as_deref(), Some("STATUS=y\nWATCHDOG=1"));
    }

    #[test]
    fn a_failure_is_logged_once_until_a_message_was_sent() {
        let mut updates = Updates::new(None);
        let mut failed = |kind: ErrorKind| updates.failed(&kind.into());
        assert!(!failed(ErrorKind::WouldBlock));
        assert!(failed(ErrorKind::NotFound));
        assert!(!failed(ErrorKind::NotFound));
        assert!(!failed(ErrorKind::WouldBlock));
        assert!(!failed(ErrorKind::ConnectionRefused));
        updates.sent(SECOND, "x");
        assert!(updates.failed(&ErrorKind::NotFound.into()));
    }

    #[test]
    fn a_watchdog_that_may_kill_before_the_lease_is_named() {
        let line = kills_before(Some(4 * SECOND), 4 * SECOND).unwrap();
        assert!(line.starts_with("WatchdogSec=4s is not longer than --max-age 4s: "));
        assert_eq!(kills_before(Some(6 * SECOND), 4 * SECOND), None);
        assert_eq!(kills_before(None, 4 * SECOND), None);
    }
}
