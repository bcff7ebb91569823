//! What both accept loops, the port's helpers and the /metrics responder, share: the listen
//! backlog, which errors of accept(2) are transient, and the count of what was accepted.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many connections may wait to be accepted. The kernel caps it at
/// net.core.somaxconn, which is 4096 by default. With the 128 of `std`, one in four of
/// 1,000 simultaneous checks waited a second to send its SYN again.
pub const BACKLOG: i32 = 4096;

/// Whether an error of `accept` says nothing about the listener: the wait ended, or the
/// connection was lost before it was accepted (accept(2), "Error handling": treat
/// network errors of the new socket like EAGAIN).
pub fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        WouldBlock
            | Interrupted
            | ConnectionAborted
            | ConnectionReset
            | NetworkDown
            | NetworkUnreachable
            | HostUnreachable
            | TimedOut
    )
}

/// The connections that the port's helpers accepted: the checks.
#[derive(Debug, Default)]
pub struct Connections {
    count: AtomicU64,
    /// In milliseconds since 1970, 0 = never.
    last: AtomicU64,
}

impl Connections {
    pub fn add(&self) {
        self.last.store(unix_millis(), Relaxed);
        self.count.fetch_add(1, Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// When the last one came, in milliseconds since 1970, 0 = never.
    pub fn last(&self) -> u64 {
        self.last.load(Relaxed)
    }

    /// How long ago the last one came. Zero if the clock was set back meanwhile.
    pub fn since_last(&self) -> Option<Duration> {
        let ago = |last| Duration::from_millis(unix_millis().saturating_sub(last));
        Some(self.last()).filter(|&last| last > 0).map(ago)
    }
}

/// Now, in milliseconds since 1970.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
