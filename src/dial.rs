//! From the URL's host to a connection: which addresses, in which order, and what to
//! report if none of them answers. Errors made here are about the connection; ureq's
//! own errors come later and are about the answer.
//!
//! Names are not looked up. To look up a name, a static glibc loads the host's NSS
//! modules, and can die of it (SIGFPE with `hosts: files dns myhostname` on a host with
//! a newer glibc). And a health check that depends on DNS is a check of DNS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

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
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let address: IpAddr = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok()?.into(),
        None => host.parse::<Ipv4Addr>().ok()?.into(),
    };
    Some(vec![(address, port).into()])
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

/// Gives the first address all the time there is, and tries the next only if nothing
/// can be listening on the first. ureq's own connector gives each address a share of
/// the time (one lost SYN, and half of --timeout failed a healthy service), reports the
/// last error (without IPv6, "Address family not supported" for a service that is down
/// on 127.0.0.1), and does not expose its socket.
#[derive(Debug)]
pub struct Dial;

impl Connector for Dial {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let start = Instant::now();
        let mut first = None;
        for &address in details.addrs.iter() {
            let left = details.timeout.after.saturating_sub(start.elapsed());
            let (error, may_be_at_the_next) = match connect(address, left) {
                Ok(stream) => {
                    let input = details.config.input_buffer_size();
                    let output = details.config.output_buffer_size();
                    let buffers = LazyBuffers::new(input, output);
                    return Ok(Some(Connection { stream, buffers }));
                }
                Err(failure) => failure,
            };
            first.get_or_insert(error);
            if !may_be_at_the_next {
                break;
            }
        }
        Err(first.unwrap_or(Error::HostNotFound))
    }
}

/// Connects to one address. The flag beside an error says whether certainly nothing
/// listens there: the address refused, or there is no route to it.
fn connect(address: SocketAddr, left: Duration) -> Result<TcpStream, (Error, bool)> {
    // `connect_timeout` rejects a timeout of zero.
    if left.is_zero() {
        return Err((Error::Timeout(Timeout::Connect), false));
    }
    let connected = TcpStream::connect_timeout(&address, left).and_then(|stream| {
        stream.set_nodelay(true)?;
        let own = stream.local_addr()?;
        Ok((stream, own))
    });
    let (reason, nobody) = match connected {
        Ok((stream, own)) if own == address => {
            hang_up(&stream);
            let reason = "connected to itself, nothing listens there";
            (reason.to_string(), true)
        }
        Ok((stream, _)) => return Ok(stream),
        Err(error) => match error.kind() {
            ErrorKind::TimedOut => return Err((Error::Timeout(Timeout::Connect), false)),
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => (error.to_string(), true),
            _ => (error.to_string(), false),
        },
    };
    let sentence = format!("cannot connect to {address}: {reason}");
    Err((Error::Other(sentence.into()), nobody))
}

/// Ends a connection to itself: the kernel chose as its source port the very port that
/// nothing listens on. A plain close would leave the connection in TIME_WAIT, and the
/// service could not bind its port for a minute. Closing with unread data sends a
/// reset, which leaves nothing behind.
fn hang_up(mut stream: &TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(10)));
    let _ = stream.write(b"x").and_then(|_| stream.peek(&mut [0]));
}

/// The connection, in the form that ureq needs.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let start = Instant::now();
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            let sent = within(timeout, start, |left| {
                self.stream.set_write_timeout(Some(left))?;
                self.stream.write(rest)
            })?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let input = self.buffers.input_append_buf();
        let length = within(timeout, Instant::now(), |left| {
            self.stream.set_read_timeout(Some(left))?;
            self.stream.read(input)
        })?;
        self.buffers.input_appended(length);
        Ok(length > 0)
    }

    /// Whether another request may use the connection: each serves only one.
    fn is_open(&mut self) -> bool {
        false
    }
}

/// Runs a read or a write within the time that is left, and again after a signal
/// (SA_RESTART does not restart a call that has a timeout).
fn within(
    timeout: NextTimeout,
    start: Instant,
    mut run: impl FnMut(Duration) -> io::Result<usize>,
) -> Result<usize, Error> {
    loop {
        let left = timeout.after.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        match run(left) {
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => return Err(Error::Timeout(timeout.reason)),
                _ => return Err(error.into()),
            },
            Ok(length) => return Ok(length),
        }
    }
}
