//! Why the system refused something, in words that are the same with every C library.

use std::io::{self, ErrorKind};

/// The words of the error's kind; the system's where it has none, without Rust's
/// "(os error N)". For EADDRINUSE glibc says "Address already in use" and musl "Address in
/// use", and nobody can search for both.
pub fn reason(error: &io::Error) -> String {
    let words = error.to_string();
    let Some(code) = error.raw_os_error() else {
        return words; // Rust's own, without a number
    };
    // Without a kind, and musl says "No file descriptors available".
    if code == libc::EMFILE {
        return "Too many open files".to_string();
    }
    match error.kind().to_string() {
        // Stable Rust cannot name this kind.
        kind if kind == "uncategorized error" => {}
        // EAGAIN: "operation would block" misleads where no thread could be started.
        _ if error.kind() == ErrorKind::WouldBlock => {}
        kind => return kind,
    }
    let suffix = format!(" (os error {code})");
    words.strip_suffix(&suffix).unwrap_or(&words).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_speaks_and_else_the_system() {
        let of = |code| reason(&io::Error::from_raw_os_error(code));
        assert_eq!(of(libc::EADDRINUSE), "address in use");
        assert_eq!(of(libc::EADDRNOTAVAIL), "address not available");
        assert_eq!(of(libc::ECONNREFUSED), "connection refused");
        assert_eq!(of(libc::EACCES), "permission denied");
        assert_eq!(of(libc::EAGAIN), "Resource temporarily unavailable");
        assert_eq!(of(libc::EMFILE), "Too many open files");
        assert_eq!(of(libc::ENODEV), "No such device");
        let own = io::Error::new(ErrorKind::InvalidInput, "path must be shorter");
        assert_eq!(reason(&own), "path must be shorter");
        assert_eq!(
            reason(&ErrorKind::UnexpectedEof.into()),
            "unexpected end of file"
        );
        for code in 1..200 {
            let reason = of(code);
            assert!(
                !reason.is_empty() && !reason.contains("os error"),
                "{reason}"
            );
        }
    }
}
