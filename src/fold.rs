//! Makes the head of an answer as strict as ureq's parser wants it. What both curl and
//! HAProxy's httpchk take for good must be good (tests/common/zoo.rs has the table): a
//! folded header, which nginx sends for an add_header over several lines, closed healthy
//! services.
//!
//! Rewrites in place, as the bytes arrive, wherever they are cut, and never makes them
//! more. A line end is known to be a fold only with the next byte. So the line end of a
//! header is held back, one or two bytes; the empty line that ends the head never is. The
//! body is not touched.

use std::mem;

use self::Part::{Body, Line, Name, Status, Value};

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// In a status line, behind so many of its bytes, or before it.
    Status(usize),
    /// At the start of a line after the status line.
    Line,
    /// In a header, before its colon.
    Name,
    /// In a header, after its colon.
    Value,
    Body,
}

/// The major version and the first digit of the code in `HTTP/1.1 200 OK`.
const MAJOR: usize = 5;
const CODE: usize = 9;

/// What is known of the input of one connection.
#[derive(Debug)]
pub struct Unfold {
    part: Part,
    /// The line end of a header, or the CR that may begin it.
    held: &'static [u8],
    /// Whether the status is 1xx, after which another head comes.
    is_interim: bool,
}

/// Nothing has been read.
impl Default for Unfold {
    fn default() -> Unfold {
        Unfold {
            part: Status(0),
            held: b"",
            is_interim: false,
        }
    }
}

impl Unfold {
    /// How many bytes are held back: 0 to 2.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Takes a buffer that begins with room for the [`held`](Unfold::held) bytes, followed
    /// by what was read. Returns how many bytes are ready at its start. None of them does
    /// not mean that the input has ended.
    pub fn pass(&mut self, buffer: &mut [u8]) -> usize {
        let (mut read, mut ready) = (self.held(), 0);
        while read < buffer.len() && self.part != Body {
            let byte = buffer[read];
            read += 1;
            let held = mem::take(&mut self.held);
            if (held, byte) == (b"\r", b'\n') {
                self.held = b"\r\n";
                continue;
            }
            let mut put = |unfold: &Unfold, bytes: &[u8]| {
                // ureq refuses a 100 with headers, and nobody reads them.
                if !unfold.is_interim || !matches!(unfold.part, Name | Value) {
                    buffer[ready..ready + bytes.len()].copy_from_slice(bytes);
                    ready += bytes.len();
                }
            };
            let is_line_end = held.ends_with(b"\n");
            if is_line_end && matches!(byte, b' ' | b'\t') {
                put(self, &b"  "[..held.len()]);
            } else {
                put(self, held);
                if is_line_end {
                    self.part = Line;
                }
            }
            if let Some(byte) = self.take(byte) {
                put(self, &[byte]);
            }
        }
        buffer.copy_within(read.., ready);
        ready + buffer.len() - read
    }

    /// Takes one byte of a head, and returns what to make of it. Nothing: it is held, or
    /// left out.
    fn take(&mut self, byte: u8) -> Option<u8> {
        // Not NUL, which curl refuses.
        let is_control = matches!(byte, 0x01..=0x08 | 0x0b..=0x1f | 0x7f);
        match (self.part, byte) {
            // Empty lines before the status line.
            (Status(0), b'\r' | b'\n') => {}
            (Status(_), b'\n') => self.part = Line,
            // More than one blank before the code.
            (Status(CODE), b' ') => return None,
            (Status(at), _) => {
                self.part = Status(at + 1);
                match at {
                    // "HTTP/2.0 200 OK", in answer to a request of HTTP/1.1.
                    MAJOR if byte == b'2' => return Some(b'1'),
                    CODE => self.is_interim = byte == b'1',
                    12.. if is_control && byte != b'\r' => return Some(b' '),
                    _ => {}
                }
            }
            (Line, b'\r') => {}
            (Line, b'\n') if self.is_interim => self.part = Status(0),
            (Line, b'\n') => self.part = Body,
            (Name | Value, b'\r') => {
                self.held = b"\r";
                return None;
            }
            (Name | Value, b'\n') => {
                self.held = b"\n";
                return None;
            }
            (Line | Name, b':') => self.part = Value,
            // Also a blank: a first header that begins with one is no fold.
            (Line, _) => self.part = Name,
            (Value, _) if is_control => return Some(b' '),
            (Name | Value | Body, _) => {}
        }
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes the pieces as a transport does. Returns what is ready after each.
    fn pass<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
        let mut unfold = Unfold::default();
        let pass = |piece: &[u8]| {
            // The room holds anything but what belongs there.
            let mut buffer = [&b"??"[..unfold.held()], piece].concat();
            let length = buffer.len();
            let ready = unfold.pass(&mut buffer);
            assert!(ready + unfold.held() <= length, "more than was read");
            buffer.truncate(ready);
            buffer
        };
        pieces.into_iter().map(pass).collect()
    }

    const CASES: &[(&str, &str)] = &[
        // Folds.
        (
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a   b\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a  \tb\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\nX: a\n  b\n\tc\n\n",
            "HTTP/1.1 200 OK\nX: a   b \tc\n\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nX: a\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a  b\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nX:\r\n a\r\nY: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX:   a\r\nY: b\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nX: a\r\n \r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a   \r\n\r\n",
        ),
        (
            "HTTP/1.1 503 No\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 503 No\r\nX: a   b\r\n\r\n",
        ),
        // No folds.
        (
            "HTTP/1.1 200 OK\r\n X: a\r\nY: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\n X: a\r\nY: b\r\n\r\n",
        ),
        ("HTTP/1.1 200\r\n OK\r\n\r\n", "HTTP/1.1 200\r\n OK\r\n\r\n"),
        (
            "HTTP/1.1 200 OK\r\n\r\n X: a\r\n b\r\n",
            "HTTP/1.1 200 OK\r\n\r\n X: a\r\n b\r\n",
        ),
        (
            "HTTP/1.1 200 OK\n\nX: a\n b\x01\x7f",
            "HTTP/1.1 200 OK\n\nX: a\n b\x01\x7f",
        ),
        (
            "HTTP/1.1 200 OK\r\nX: a\r\rb\r\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\r\rb\r\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\n\nX: a\r\n b",
            "HTTP/1.1 200 OK\r\n\nX: a\r\n b",
        ),
        // Before the status line.
        (
            "\r\n\nHTTP/1.1 200 OK\r\nX: a\n b\n\n",
            "\r\n\nHTTP/1.1 200 OK\r\nX: a  b\n\n",
        ),
        // The status line.
        (
            "HTTP/1.1   200 O\x01\x7f\tK\r\n\r\n",
            "HTTP/1.1 200 O  \tK\r\n\r\n",
        ),
        ("HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\r\n\r\n", "HTTP/1.1 200 OK\r\r\n\r\n"),
        // Control characters, in a value only, and not NUL.
        (
            "HTTP/1.1 200 OK\r\nX: \x01\x1f\x7f\t\0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX:    \t\0\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nX\x01: a\x01\r\n b\x01\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX\x01: a    b \r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nno colon\x01\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\x01\r\n\r\n",
        ),
        // Interim answers lose their headers; each head may be folded.
        (
            "HTTP/1.1 100 Continue\r\nX: a\r\n b\r\nY: c\r\n\r\nHTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: a   b\r\n\r\n",
        ),
        (
            "HTTP/1.1 103 Hints\nX: a\n\nHTTP/1.1 103 Hints\n\nHTTP/1.1 200 OK\n\nX: a\n b",
            "HTTP/1.1 103 Hints\n\nHTTP/1.1 103 Hints\n\nHTTP/1.1 200 OK\n\nX: a\n b",
        ),
        // No HTTP.
        ("SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2\r\n"),
        ("", ""),
    ];

    #[test]
    fn heads_cut_anywhere_are_unfolded() {
        for (input, expected) in CASES {
            let (input, expected) = (input.as_bytes(), expected.as_bytes());
            let check = |passed: Vec<Vec<u8>>, how: &str| {
                let passed = passed.concat();
                assert_eq!(
                    passed,
                    expected,
                    "{how}: {}",
                    String::from_utf8_lossy(&passed)
                );
            };
            check(pass([input]), "whole");
            check(pass(input.chunks(1)), "byte by byte");
            for at in 0..=input.len() {
                let (first, second) = input.split_at(at);
                check(pass([first, second]), &format!("cut at {at}"));
                for end in at..=input.len() {
                    check(pass([first, &input[at..end], &input[end..]]), "cut twice");
                }
            }
        }
    }

    /// Only the line end of a header waits for the next byte.
    #[test]
    fn nothing_else_is_held_back() {
        let ready = |input: &str| pass([input.as_bytes()]).concat().len();
        assert_eq!(ready("HTTP/1.1 200 OK\r\n"), 17);
        assert_eq!(ready("HTTP/1.1 200 OK\r\nX: a"), 21);
        assert_eq!(ready("HTTP/1.1 200 OK\r\nX: a\r"), 21);
        assert_eq!(ready("HTTP/1.1 200 OK\r\nX: a\r\n"), 21);
        assert_eq!(ready("HTTP/1.1 200 OK\r\nX: a\r\n\r"), 24);
        assert_eq!(ready("HTTP/1.1 200 OK\r\nX: a\r\n\r\n"), 25);
        assert_eq!(ready("HTTP/1.1 200 OK\r\nX: a\r\n\r\n\r\n"), 27);
    }

    /// Any bytes, however they are cut: the body is what follows the head, unchanged.
    #[test]
    fn the_same_however_it_is_cut() {
        let mut random = fastrand::Rng::with_seed(1);
        let words = [
            "HTTP/1.1 200 OK",
            "HTTP/1.1 100",
            "X: a",
            ":",
            " ",
            "\t",
            "\r",
            "\n",
            "\r\n",
            "\x01",
            "\r\n\r\n",
        ];
        for _ in 0..20_000 {
            let input: String = (0..random.usize(..12))
                .map(|_| words[random.usize(..words.len())])
                .collect();
            let whole = pass([input.as_bytes()]).concat();
            let (mut pieces, mut rest) = (Vec::new(), input.as_bytes());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.usize(1..=rest.len()));
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(pass(pieces).concat(), whole, "{input:?}");
        }
    }
}
