//! From the URL's host to a connection: which addresses, in which order, and what to
//! report if none of them answers.
//!
//! Names are not looked up. To look up a name, a static glibc loads the host's NSS
//! modules, and can die of it (SIGFPE with `hosts: files dns myhostname` on a host with
//! a newer glibc). And a health check that depends on DNS is a check of DNS.

use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ureq::Error;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::reason::reason;
use crate::sys::{self, POLLIN};

/// The addresses of the URL's host, in the order in which they are tried. None if the
/// host is neither an IP address nor `localhost`. `localhost` stands for both loopback
/// addresses (RFC 6761), since services listen on one, the other, or both
/// (openshift/origin#7432).
pub fn addresses(url: &Uri) -> Option<Vec<SocketAddr>> {
    let (host, port) = (url.host()?, url.port_u16().unwrap_or(80));
    if host.eq_ignore_ascii_case("localhost") {
        return Some(vec![
            (Ipv4Addr::LOCALHOST, port).into(),
            (Ipv6Addr::LOCALHOST, port).into(),
        ]);
    }
    if host.contains('%') {
        return None; // a scope, which SocketAddr would take
    }
    Some(vec![format!("{host}:{port}").parse().ok()?])
}

/// [`addresses`] for ureq, whose own resolver calls getaddrinfo.
#[derive(Debug)]
pub struct Addresses;

impl Resolver for Addresses {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let mut resolved = self.empty();
        for address in addresses(uri).ok_or(Error::HostNotFound)? {
            resolved.push(address);
        }
        Ok(resolved)
    }
}

#[derive(Debug)]
pub struct Failure {
    /// One line for people.
    pub sentence: String,
    /// Whether certainly nothing listens there: the address refused, or there is no route
    /// to it.
    pub is_nobody: bool,
}

impl Failure {
    /// The system refused a connection to `address`.
    pub fn new(address: SocketAddr, error: &io::Error) -> Failure {
        let is_nobody = matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
        );
        Failure {
            sentence: format!("cannot connect to {address}: {}", reason(error)),
            is_nobody,
        }
    }
}

/// Whether a connect to `address` that is over has led to a service.
///
/// # Errors
/// The system's reason, or that the other side is this very socket: the kernel chose as
/// its source port the port that nothing listens on.
pub fn check(stream: &TcpStream, address: SocketAddr) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::new(address, &error);
    if let Some(error) = stream.take_error().map_err(failed)? {
        return Err(failed(error));
    }
    let own = stream.local_addr().map_err(failed)?;
    // The address of the URL may be a wildcard, which stands for another one.
    if own.port() != address.port() || stream.peer_addr().map_err(failed)? != own {
        return Ok(());
    }
    reset(stream);
    Err(Failure {
        sentence: format!(
            "cannot connect to {address}: connected to itself, nothing listens there"
        ),
        is_nobody: true,
    })
}

/// Ends a connection to itself. A plain close would leave it in TIME_WAIT, and the
/// service could not bind its port for a minute. Closing with unread data sends a reset,
/// which leaves nothing behind.
fn reset(mut stream: &TcpStream) {
    let arrives = |_| sys::wait(stream, POLLIN, Duration::from_millis(10));
    let _ = stream.write(b"x").and_then(arrives);
}
