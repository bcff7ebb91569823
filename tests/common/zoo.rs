//! The zoo: every way to answer a probe, good, bad and mad, and what the log must say of
//! it. tests/stories/probe.rs gives each to a single probe, tests/soak.rs all of them to
//! the running program under a storm.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::{drain, read_head};

pub const LATE: &str = "no complete answer within ";
pub const BAD: &str = "not a valid HTTP answer";
pub const GOOD: &str = "answered 200";
pub const LONG: &str = "headers of more than 8192 bytes";
pub const EMPTY: &str = "closed the connection without a complete answer";

/// How an answer is given.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// At once, then close.
    Say(&'static [u8]),
    /// Byte by byte, in time.
    Slowly(&'static [u8]),
    /// Then nothing, until the probe gives up.
    Hang(&'static [u8]),
    /// Then this again and again, until the probe gives up.
    Flood(&'static [u8], &'static [u8]),
    /// Then this every 20 ms, until the probe gives up.
    Drip(&'static [u8], &'static [u8]),
    /// Closed with the request unread, which resets the connection.
    Reset,
    /// Nobody listens for a while.
    Gone,
}
use Way::*;

/// Each answer, and what the log must say of it.
pub const ZOO: [(Way, &str); 56] = [
    (
        Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"),
        GOOD,
    ),
    (Say(b"HTTP/1.1 200 OK\r\n\r\n"), GOOD),
    (Say(b"HTTP/1.1 200 \r\n\r\n"), GOOD),
    (Say(b"HTTP/1.0 200 OK\r\n\r\nok\n"), GOOD),
    (
        Say(b"HTTP/1.1 200 No, not at all\r\ncontent-length: 0\r\n\r\n"),
        GOOD,
    ),
    (
        Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk"),
        GOOD,
    ),
    (
        Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nmore than it said"),
        GOOD,
    ),
    (
        Say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nless"),
        GOOD,
    ),
    (
        Say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"),
        GOOD,
    ),
    (
        Slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"),
        GOOD,
    ),
    (
        Slowly(b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n"),
        "answered 500, expected 200",
    ),
    (Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"), GOOD),
    (Flood(b"HTTP/1.1 200 OK\r\n\r\n", b"xxxxxxxxxxxxxxxx"), GOOD),
    (Drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"), GOOD),
    (
        Say(b"HTTP/1.1 204 No Content\r\n\r\n"),
        "answered 204, expected 200",
    ),
    (
        Say(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"),
        "answered 302, expected 200",
    ),
    (
        Say(b"HTTP/1.1 304 Not Modified\r\n\r\n"),
        "answered 304, expected 200",
    ),
    (
        Say(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n"),
        "answered 401, expected 200",
    ),
    (
        Say(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        "answered 404, expected 200",
    ),
    (
        Say(b"HTTP/1.1 500 Error\r\nContent-Length: 3\r\n\r\nok\n"),
        "answered 500, expected 200",
    ),
    (
        Say(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\n\r\n"),
        "answered 503, expected 200",
    ),
    (
        Flood(b"HTTP/1.1 500 Error\r\n\r\n", b"xxxxxxxxxxxxxxxx"),
        "answered 500, expected 200",
    ),
    (
        Hang(b"HTTP/1.1 503 Error\r\nContent-Length: 9\r\n\r\n"),
        "answered 503, expected 200",
    ),
    (Say(b""), EMPTY),
    (Say(b"\r\n"), EMPTY),
    (Say(b"HTTP/1.1 200"), EMPTY),
    (Say(b"HTTP/1.1 200 OK"), EMPTY),
    (Say(b"HTTP/1.1"), EMPTY),
    (Say(b"HTTP/1.1 200 OK\r\n"), EMPTY),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"), EMPTY),
    (Say(b"HTTP/1.1 100 Continue\r\n\r\n"), EMPTY),
    (Say(b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n"), BAD),
    (Say(b"HTTP/1.1 2000 OK\r\n\r\n"), BAD),
    (Say(b"HTTP/1.1 099 OK\r\n\r\n"), BAD),
    (Say(b"HTTP/1.1 -20 OK\r\n\r\n"), BAD),
    (Say(b"HTTP/2 200 OK\r\n\r\n"), BAD),
    (Say(b"HTTP/1.9 200 OK\r\n\r\n"), BAD),
    (Say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), BAD),
    // A SETTINGS frame of HTTP/2.
    (
        Say(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"),
        BAD,
    ),
    (Say(b"\xff\xfe\xfd\x00\x01garbage\x80"), BAD),
    (Say(b"200 OK\r\n\r\n"), BAD),
    (Say(b"<html>ok</html>\n"), BAD),
    (Say(b"\x15\x03\x03\x00\x02\x02\x46"), BAD),
    (Say(b"SSH-2.0-OpenSSH_9.2\r\n"), BAD),
    (Flood(b"", b"xxxxxxxxxxxxxxxx"), BAD),
    (Flood(b"", b"\r\n\r\n\r\n\r\n"), LONG),
    (
        Flood(b"HTTP/1.1 200 OK\r\nX-Long: ", b"xxxxxxxxxxxxxxxx"),
        LONG,
    ),
    (
        Flood(b"HTTP/1.1 200 OK\r\n", b"X-Header: 0123456789\r\n"),
        BAD,
    ),
    (Hang(b""), LATE),
    (Hang(b"HTTP/1.1 200 OK\r\nContent-Le"), LATE),
    (Drip(b"HTTP/1.1 200 ", b"O"), LATE),
    (Drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), LATE),
    (Drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"), LATE),
    (Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), LATE),
    (Reset, "connection lost: Connection reset by peer"),
    (Gone, "cannot connect to"),
];

impl Way {
    /// Gives the answer; returns when the probe has what it needs.
    pub fn give(self, stream: &mut TcpStream) {
        if !matches!(self, Reset) {
            read_head(stream);
        }
        let mut repeat = |head: &[u8], part: &[u8], pause: Duration| {
            let mut sent = stream.write_all(head);
            while sent.is_ok() {
                sent = stream.write_all(part);
                thread::sleep(pause);
            }
        };
        match self {
            Say(bytes) => drop(stream.write_all(bytes)),
            Slowly(bytes) => {
                for byte in bytes {
                    let _ = stream.write_all(&[*byte]);
                }
            }
            Hang(bytes) => {
                let _ = stream.write_all(bytes);
                drain(stream);
            }
            Flood(head, part) => repeat(head, part, Duration::ZERO),
            Drip(head, part) => repeat(head, part, Duration::from_millis(20)),
            Reset => {
                // A close resets the connection if something is unread.
                let _ = stream.peek(&mut [0]);
            }
            Gone => {}
        }
    }
}
