//! What the port's helpers and the /metrics responder share: the listen backlog, and
//! which errors of accept(2) are transient.

use std::io;

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
