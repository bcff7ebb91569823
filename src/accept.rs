//! What the helpers of the port and the responder of /metrics have in common: how
//! many connections may wait for them, and what accept(2) says in passing.

use std::io;

/// How many connections may wait to be accepted; the kernel caps it at
/// net.core.somaxconn, which is 4096 by default. With the 128 of `std`, of 1,000
/// checks at the same moment one in four waited a second for another SYN.
pub const BACKLOG: i32 = 4096;

/// Whether an error of `accept` says nothing about the listener: the wait is
/// over, or the connection was lost before it was accepted (accept(2), "Error
/// handling": treat the network errors of the new socket like EAGAIN).
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
