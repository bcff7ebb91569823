//! The zoo: every way to answer a probe, good, bad and mad, and what the log, curl and
//! HAProxy make of it. tests/stories/zoo.rs gives each to all three, tests/soak.rs all of
//! them to the running program under a storm.

use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::{drain, read_head};

pub const LATE: &str = "no complete answer within ";
pub const NO_HTTP: &str = "no HTTP answer: ";
pub const BAD: &str = "an answer with a header that breaks the rules: ";
pub const GOOD: &str = "answered 200";
pub const LONG: &str = "headers of more than ";
pub const EMPTY: &str = "closed the connection without a complete answer";

/// How an answer is given.
#[derive(Clone, Copy)]
pub enum Way {
    /// At once, then close.
    Say(&'static [u8]),
    /// A head, so many of a part, and a tail.
    Long(&'static [u8], &'static [u8], usize, &'static [u8]),
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

/// An answer; what the log must say of it; whether curl and HAProxy's httpchk, in this
/// order, take it for good (`+`) or not (`-`): those of Debian 12 (7.88 and 2.6), and, if
/// they differ, those of Debian 13 (8.14 and 3.0); and, if any differs from us, why.
pub type Animal = (Way, &'static str, &'static str, &'static str);

// Why they differ. In doubt the port is closed.
const BODY: &str = "a probe is decided when the head is in; the body is not read";
const INTERIM: &str = "HAProxy takes an interim answer for the answer";
const HALF: &str = "curl takes half a head for a whole one";
const VERSION: &str = "RFC 9112, 2.3: no version of HTTP/1 that is known";
const STATUS_LINE: &str = "RFC 9112, 4: a blank, three digits, a blank";
const BLANKS: &str = "a blank or more, or a tab, as one of the two releases has it";
const NUL: &str = "RFC 9110, 5.5: curl and we reject NUL";
const CR: &str = "RFC 9112, 2.2: a CR alone ends no line";
const NAME: &str = "RFC 9110, 5.1: a name is a token, and its colon follows at once";
const FOLD: &str = "RFC 9112, 5.2: a fold is as good as blanks in every header";
const EMPTY_LINE: &str = "RFC 9112, 2.2: an empty line before the status line is ignored";
const LENGTH: &str = "RFC 9112, 6.3: an invalid length is an error";
const SIZE: &str = "there is a limit, as there is in HAProxy";
const COUNT: &str = "the limit is 128 headers, in HAProxy 101";

#[rustfmt::skip] // a table
pub const ZOO: &[Animal] = &[
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 \r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.0 200 OK\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 No, not at all\r\ncontent-length: 0\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk"), GOOD, "--", BODY),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nmore than it said"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nless"), GOOD, "-+", BODY),
    (Say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), GOOD, "+-", INTERIM),
    (Slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Slowly(b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\n\r\n"), "answered 500, expected 200", "--", ""),
    (Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"), GOOD, "-+", BODY),
    (Flood(b"HTTP/1.1 200 OK\r\n\r\n", b"xxxxxxxxxxxxxxxx"), GOOD, "-+", BODY),
    (Drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"), GOOD, "-+", BODY),
    (Say(b"HTTP/1.1 204 No Content\r\n\r\n"), "answered 204, expected 200", "--", ""),
    (Say(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"), "answered 302, expected 200", "--", ""),
    (Say(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "answered 304, expected 200", "--", ""),
    (Say(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\n\r\n"), "answered 401, expected 200", "--", ""),
    (Say(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "answered 404, expected 200", "--", ""),
    (Say(b"HTTP/1.1 500 Error\r\nContent-Length: 3\r\n\r\nok\n"), "answered 500, expected 200", "--", ""),
    (Say(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\n\r\n"), "answered 503, expected 200", "--", ""),
    (Flood(b"HTTP/1.1 500 Error\r\n\r\n", b"xxxxxxxxxxxxxxxx"), "answered 500, expected 200", "--", ""),
    (Hang(b"HTTP/1.1 503 Error\r\nContent-Length: 9\r\n\r\n"), "answered 503, expected 200", "--", ""),
    (Say(b""), EMPTY, "--", ""),
    (Say(b"\r\n"), EMPTY, "--", ""),
    (Say(b"HTTP/1.1 200"), EMPTY, "--", ""),
    (Say(b"HTTP/1.1 200 OK"), EMPTY, "--", ""),
    (Say(b"HTTP/1.1"), EMPTY, "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\n"), EMPTY, "+-", HALF),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"), EMPTY, "--", ""),
    (Say(b"HTTP/1.1 100 Continue\r\n\r\n"), EMPTY, "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n"), BAD, "--", ""),
    (Say(b"HTTP/1.1 2000 OK\r\n\r\n"), NO_HTTP, "--+-", STATUS_LINE),
    (Say(b"HTTP/1.1 099 OK\r\n\r\n"), NO_HTTP, "--", ""),
    (Say(b"HTTP/1.1 -20 OK\r\n\r\n"), NO_HTTP, "--", ""),
    (Say(b"HTTP/2 200 OK\r\n\r\n"), NO_HTTP, "+---", VERSION),
    (Say(b"HTTP/1.9 200 OK\r\n\r\n"), NO_HTTP, "-+", VERSION),
    (Say(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), NO_HTTP, "--", ""),
    (Say(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64"), NO_HTTP, "--", ""),
    (Say(b"\xff\xfe\xfd\x00\x01garbage\x80"), NO_HTTP, "--", ""),
    (Say(b"200 OK\r\n\r\n"), NO_HTTP, "--", ""),
    (Say(b"<html>ok</html>\n"), NO_HTTP, "--", ""),
    (Say(b"\x15\x03\x03\x00\x02\x02\x46"), NO_HTTP, "--", ""),
    (Say(b"SSH-2.0-OpenSSH_9.2\r\n"), NO_HTTP, "--", ""),
    (Flood(b"", b"xxxxxxxxxxxxxxxx"), NO_HTTP, "--", ""),
    (Flood(b"", b"\r\n\r\n\r\n\r\n"), LONG, "--", ""),
    (Flood(b"HTTP/1.1 200 OK\r\nX-Long: ", b"xxxxxxxxxxxxxxxx"), LONG, "--", ""),
    (Flood(b"HTTP/1.1 200 OK\r\n", b"X-Header: 0123456789\r\n"), BAD, "--", ""),
    (Hang(b""), LATE, "--", ""),
    (Hang(b"HTTP/1.1 200 OK\r\nContent-Le"), LATE, "--", ""),
    (Drip(b"HTTP/1.1 200 ", b"O"), LATE, "--", ""),
    (Drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), LATE, "--", ""),
    (Drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"), LATE, "--", ""),
    (Drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), LATE, "--", ""),
    (Reset, "connection lost: ", "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Security-Policy: a;\n  b;\n\tc\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\nX: a\n b\n\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX:\r\n a\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX: a\r\n \r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 3\r\n\r\nok\n"), GOOD, "-+", FOLD),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nX: a\r\n b"), GOOD, "++", ""),
    (Slowly(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 503 No\r\nX: a\r\n b\r\n\r\n"), "answered 503, expected 200", "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\n X: a\r\nContent-Length: 3\r\n\r\nok\n"), BAD, "--+-", NAME),
    (Say(b"HTTP/1.1 200\r\n OK\r\n\r\n"), BAD, "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX\r\n : a\r\n\r\n"), BAD, "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX: a\x01b\x1b[31m\x0b\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; domain=\x7fexample\x7f.org\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 O\x01\x7fK\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n"), BAD, "-+--", NUL),
    (Say(b"HTTP/1.1 200 O\0K\r\n\r\n"), NO_HTTP, "-+", NUL),
    (Say(b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n"), BAD, "+-", CR),
    (Say(b"HTTP/1.1 200 OK\r\r\nX: a\r\r\n\r\n"), NO_HTTP, "+-", CR),
    (Say(b"HTTP/1.1 200 OK\r\nX: \xff caf\xc3\xa9\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 \xd1\x83\xd1\x81\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX:\r\nY:  \t\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX\x7f: a\r\n\r\n"), BAD, "+-", NAME),
    (Say(b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n"), BAD, "+-", NAME),
    (Say(b"HTTP/1.1 200 OK\r\nX Y: a\r\n\r\n"), BAD, "+-", NAME),
    (Say(b"HTTP/1.1 200 OK\r\n: a\r\n\r\n"), BAD, "+-", NAME),
    (Say(b"HTTP/1.1 200 OK\r\nX(Y): a\r\n\r\n"), BAD, "+-", NAME),
    (Say(b"HTTP/1.1 200 OK\r\nX\xc3\xa9: a\r\n\r\n"), BAD, "+-", NAME),
    (Say(b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1   200 OK\r\n\r\n"), GOOD, "++-+", BLANKS),
    (Say(b"HTTP/1.1\t200 OK\r\n\r\n"), GOOD, "-+++", BLANKS),
    (Say(b"http/1.1 200 OK\r\n\r\n"), NO_HTTP, "+-", VERSION),
    (Say(b"HTTP/2.0 200 OK\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.2 200 OK\r\n\r\n"), NO_HTTP, "-+", VERSION),
    (Say(b"HTTP/0.9 200 OK\r\n\r\n"), NO_HTTP, "-+", VERSION),
    (Say(b"HTTP/1.10 200 OK\r\n\r\n"), NO_HTTP, "--", ""),
    (Say(b"HTTP/1.1 200OK\r\n\r\n"), NO_HTTP, "+-", STATUS_LINE),
    (Say(b"HTTP/1.1 200.5 OK\r\n\r\n"), NO_HTTP, "+-", STATUS_LINE),
    (Say(b"HTTP/1.1 0200 OK\r\n\r\n"), NO_HTTP, "-+", STATUS_LINE),
    (Say(b"HTTP/1.1 20 OK\r\n\r\n"), NO_HTTP, "--", ""),
    (Say(b"ICY 200 OK\r\nContent-Length: 3\r\n\r\nok\n"), NO_HTTP, "--", ""),
    (Say(b"\r\nHTTP/1.1 200 OK\r\n\r\n"), GOOD, "-+", EMPTY_LINE),
    (Say(b" HTTP/1.1 200 OK\r\n\r\n"), NO_HTTP, "--", ""),
    (Say(b"\xef\xbb\xbfHTTP/1.1 200 OK\r\n\r\n"), NO_HTTP, "--", ""),
    (Say(b"HTTP/1.1 200 OK\nContent-Length: 3\n\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\nX: a\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nX: a\r\n\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\n\nContent-Type: text/plain\r\n\nContent-Length: 8\r\n\n\r\n\nMaster\r\n"), GOOD, "++", ""),
    (Long(b"HTTP/1.1 200 ", b"x", 4000, b"\r\n\r\n"), GOOD, "++", ""),
    (Long(b"HTTP/1.1 200 OK\r\nX: ", b"x", 9000, b"\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Long(b"HTTP/1.1 200 OK\r\nX: ", b"x", 14000, b"\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Long(b"HTTP/1.1 200 OK\r\n", b"X: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\r\n", 95, b"\r\n"), GOOD, "++", ""),
    (Long(b"HTTP/1.1 200 OK\r\nX: ", b"x", 20000, b"\r\n\r\n"), LONG, "+-", SIZE),
    (Long(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 95, b"\r\n"), GOOD, "++", ""),
    (Long(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 120, b"\r\n"), GOOD, "+-", COUNT),
    (Long(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 129, b"\r\n"), BAD, "+-", COUNT),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 003\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nok\n"), BAD, "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), BAD, "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3 bytes\r\n\r\nok\n"), BAD, "+-", LENGTH),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nok\n"), BAD, "+---", LENGTH),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: undefined\r\n\r\nok\n"), BAD, "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok\n"), BAD, "+-", LENGTH),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nok\n\r\n0\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nok\n\r\n0\r\n\r\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n"), GOOD, "+-", BODY),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n"), GOOD, "--", BODY),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "+-", BODY),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\n\r\nok\n"), GOOD, "--", BODY),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\nok\n\n0\n\n"), GOOD, "+++-", BODY),
    (Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000000000000003\r\nok\n\r\n0\r\n\r\n"), GOOD, "-+", BODY),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nok\n"), GOOD, "++", ""),
    (Say(b"HTTP/1.1 100 Continue\r\nServer: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), GOOD, "+-", INTERIM),
    (Say(b"HTTP/1.1 100 Continue\r\nX: a\r\n b\r\n\r\nHTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"), GOOD, "+-", INTERIM),
    (Say(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), GOOD, "+-", INTERIM),
    (Say(b"HTTP/1.1 100 Continue\r\nServer: x\r\n\r\nHTTP/1.1 503 No\r\n\r\n"), "answered 503, expected 200", "--", ""),
    (Say(b"HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), "answered 101, expected 200", "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nok\n"), EMPTY, "--", ""),
    (Say(b"HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"), GOOD, "++", ""),
    (Gone, "cannot connect to", "--", ""),
];

/// The bytes as text.
impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, parts): (_, &[&[u8]]) = match self {
            Say(bytes) => ("Say", &[bytes]),
            Long(head, part, _, tail) => ("Long", &[head, part, tail]),
            Slowly(bytes) => ("Slowly", &[bytes]),
            Hang(bytes) => ("Hang", &[bytes]),
            Flood(head, part) => ("Flood", &[head, part]),
            Drip(head, part) => ("Drip", &[head, part]),
            Reset => ("Reset", &[]),
            Gone => ("Gone", &[]),
        };
        f.write_str(name)?;
        let mut parts = parts.iter();
        parts.try_for_each(|part| write!(f, " \"{}\"", part.escape_ascii()))
    }
}

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
            Long(head, part, count, tail) => {
                let _ = stream.write_all(&[head, &part.repeat(count), tail].concat());
            }
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
