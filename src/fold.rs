//! Makes the head of an answer as strict as ureq's parser wants it. What both curl and
//! HAProxy's httpchk take for good must be good (tests/common/zoo.rs has the table): a
//! folded header, which nginx sends for an add_header over several lines, closed healthy
//! services. The body is not touched.

/// Where the major version and the code begin, and the code ends, in `HTTP/1.1 200 OK`.
const MAJOR: usize = 5;
const CODE: usize = 9;
const CODE_END: usize = 12;

/// Rewrites the head of an answer once it is whole. False: more of it must arrive.
pub fn unfold(answer: &mut Vec<u8>) -> bool {
    // `start` is where the head of this answer begins, after those of interim ones.
    let (mut head, mut start, mut headers, mut read) = (Vec::new(), 0, 0, 0);
    for line in answer.split_inclusive(|&byte| byte == b'\n') {
        let Some(text) = line.strip_suffix(b"\n") else {
            break;
        };
        read += line.len();
        match text.strip_suffix(b"\r").unwrap_or(text) {
            // Before the status line.
            [] if head.len() == start => {}
            [] if is_interim(&head[start..]) => {
                head.extend(b"\r\n");
                (start, headers) = (head.len(), 0);
            }
            [] => {
                head.extend(b"\r\n");
                answer.splice(..read, head);
                return true;
            }
            text if head.len() == start => put(&mut head, &status(text), CODE_END),
            // ureq rejects a 100 with headers, and nobody reads them.
            _ if is_interim(&head[start..]) => {}
            text @ [b' ' | b'\t', ..] if headers > 0 => {
                head.truncate(head.len() - b"\r\n".len());
                put(&mut head, text, 0);
            }
            text => {
                let colon = text.iter().position(|&byte| byte == b':');
                put(&mut head, text, colon.unwrap_or(text.len()));
                headers += 1;
            }
        }
    }
    // What will never be HTTP need not be waited for.
    let begin = answer.trim_ascii_start();
    !b"HTTP/"
        .iter()
        .zip(begin)
        .all(|(wanted, byte)| wanted == byte)
}

/// Whether another head comes after this one. After 101, another protocol does.
fn is_interim(head: &[u8]) -> bool {
    match head.get(CODE..) {
        Some([b'1', b'0', b'1', ..]) => false,
        Some([b'1', b'0'..=b'9', b'0'..=b'9', b' ' | b'\r', ..]) => true,
        _ => false,
    }
}

fn status(line: &[u8]) -> Vec<u8> {
    let mut line = line.to_vec();
    // "HTTP/2.0 200 OK", in answer to a request of HTTP/1.1.
    if let Some(major @ b'2') = line.get_mut(MAJOR) {
        *major = b'1';
    }
    // More than one blank before the code, or a tab.
    while let Some(b' ' | b'\t') = line.get(CODE) {
        line.remove(CODE);
    }
    if let Some(tab @ b'\t') = line.get_mut(CODE - 1) {
        *tab = b' ';
    }
    line
}

/// Adds a line, with blanks for control characters from its byte `from` on: not for NUL,
/// which curl rejects.
fn put(head: &mut Vec<u8>, line: &[u8], from: usize) {
    let is_control = |byte| matches!(byte, 0x01..=0x08 | 0x0b..=0x0c | 0x0e..=0x1f | 0x7f);
    let clean = |(at, &byte)| {
        if at >= from && is_control(byte) {
            b' '
        } else {
            byte
        }
    };
    head.extend(line.iter().enumerate().map(clean));
    head.extend(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip] // a table
    const CASES: &[(&str, &str)] = &[
        // Folds.
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "HTTP/1.1 200 OK\r\nX: a b\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n\tb\r\n\r\n", "HTTP/1.1 200 OK\r\nX: a\tb\r\n\r\n"),
        ("HTTP/1.1 200 OK\nX: a\n  b\n\tc\n\n", "HTTP/1.1 200 OK\r\nX: a  b\tc\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nX:\r\n a\r\nY: b\r\n\r\n", "HTTP/1.1 200 OK\r\nX: a\r\nY: b\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nX: a\r\n \r\n\r\n", "HTTP/1.1 200 OK\r\nX: a \r\n\r\n"),
        // No folds.
        ("HTTP/1.1 200 OK\r\n X: a\r\nY: b\r\n\r\n", "HTTP/1.1 200 OK\r\n X: a\r\nY: b\r\n\r\n"),
        ("HTTP/1.1 200\r\n OK\r\n\r\n", "HTTP/1.1 200\r\n OK\r\n\r\n"),
        // The body, and what looks like a head in it.
        ("HTTP/1.1 200 OK\r\n\r\n X: a\r\n b\x01", "HTTP/1.1 200 OK\r\n\r\n X: a\r\n b\x01"),
        ("HTTP/1.1 200 OK\r\n\nX: a\r\n b", "HTTP/1.1 200 OK\r\n\r\nX: a\r\n b"),
        ("HTTP/1.1 200 OK\r\nX: a\r\rb\r\r\n\r\n", "HTTP/1.1 200 OK\r\nX: a\r\rb\r\r\n\r\n"),
        // Before the status line.
        ("\r\n\nHTTP/1.1 200 OK\r\nX: a\n b\n\n", "HTTP/1.1 200 OK\r\nX: a b\r\n\r\n"),
        // The status line.
        ("HTTP/1.1\t  200 O\x01\x7f\tK\r\n\r\n", "HTTP/1.1 200 O  \tK\r\n\r\n"),
        ("HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\r\n\r\n", "HTTP/1.1 200 OK\r\r\n\r\n"),
        // Control characters, in a value only, and not NUL.
        ("HTTP/1.1 200 OK\r\nX: \x01\x1f\x7f\t\0\r\n\r\n", "HTTP/1.1 200 OK\r\nX:    \t\0\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nX\x01: a\x01\r\n b\x01\r\n\r\n", "HTTP/1.1 200 OK\r\nX\x01: a  b \r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nno colon\x01\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\x01\r\n\r\n"),
        // Interim answers lose their headers; 101 is final.
        ("HTTP/1.1 100 Continue\r\nX: a\r\n b\r\n\r\nHTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX: a b\r\n\r\n"),
        ("HTTP/1.1 103 Hints\nX: a\n\nHTTP/1.1 103\n\nHTTP/1.1 200 OK\n\nX: a\n b", "HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 103\r\n\r\nHTTP/1.1 200 OK\r\n\r\nX: a\n b"),
        ("HTTP/1.1 101 Upgrade\r\n\r\nX: a\r\n b", "HTTP/1.1 101 Upgrade\r\n\r\nX: a\r\n b"),
        ("HTTP/1.1 1000 No\n\nHTTP/1.1 200 OK\n\n", "HTTP/1.1 1000 No\r\n\r\nHTTP/1.1 200 OK\n\n"),
        ("HTTP/1.1 1\n\nX: a\n b", "HTTP/1.1 1\r\n\r\nX: a\n b"),
        // No HTTP: nothing to wait for, and nothing to change.
        ("SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2\r\n"),
        ("\r\n220 mail", "\r\n220 mail"),
    ];

    /// However the answer is cut, it waits for the whole head, and changes nothing before.
    #[test]
    fn head_is_unfolded_once_it_is_whole() {
        for (input, expected) in CASES {
            let mut answer = input.as_bytes().to_vec();
            assert!(unfold(&mut answer), "{input:?}");
            assert_eq!(String::from_utf8_lossy(&answer), *expected);
            for cut in 0..input.len() {
                let (first, rest) = input.as_bytes().split_at(cut);
                let mut answer = first.to_vec();
                if unfold(&mut answer) {
                    assert!(
                        expected.as_bytes().starts_with(&answer),
                        "{input:?} cut at {cut}"
                    );
                } else {
                    assert_eq!(answer, first, "{input:?} cut at {cut}");
                    assert!(unfold(&mut [first, rest].concat()));
                }
            }
        }
    }
}
