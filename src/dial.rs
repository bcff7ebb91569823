//! From the URL's host to a connection: which addresses, in which order, and what
//! to say if none of them answers. Errors that are made here are about the
//! connection; ureq's own, later ones, are about the answer.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, TcpConnector};
use ureq::{Error, Timeout};

/// The most addresses that ureq takes for a name.
const MAX_ADDRESSES: usize = 16;

/// Name look-up. For an address there is nothing to look up, and `localhost` is
/// both loopback addresses (RFC 6761), as services listen on one, the other, or
/// both (openshift/origin#7432).
///
/// Any other name takes a thread, since getaddrinfo knows no timeout. ureq's own
/// resolver starts one for every probe: while a DNS server does not answer they
/// pile up (21 at four probes a second, measured), and it panics when the system
/// has no more. Here is at most one, and the next probe waits for it too.
#[derive(Debug, Default)]
pub struct Lookup {
    pending: Mutex<Option<Receiver<io::Result<Vec<SocketAddr>>>>>,
}

impl Lookup {
    fn name(&self, host: &str, port: u16, timeout: Duration) -> Result<Vec<SocketAddr>, Error> {
        let failed = |error: &dyn fmt::Display| {
            Error::Other(format!("cannot look up {host}: {error}").into())
        };
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (receiver, is_late) = match pending.take() {
            Some(receiver) => (receiver, true),
            None => {
                let (sender, receiver) = mpsc::channel();
                let name = (host.to_string(), port);
                let look_up = move || sender.send(name.to_socket_addrs().map(Iterator::collect));
                let thread = thread::Builder::new()
                    .name("lookup".to_string())
                    .spawn(look_up);
                thread.map_err(|error| failed(&error))?;
                (receiver, false)
            }
        };
        match receiver.recv_timeout(timeout) {
            // It took longer than a probe may: in what way it failed in the end is
            // no news, and would be a line in the log every time.
            Ok(Err(_)) if is_late => Err(Error::Timeout(Timeout::Resolve)),
            Ok(addresses) => addresses.map_err(|error| failed(&error)),
            Err(RecvTimeoutError::Timeout) => {
                *pending = Some(receiver);
                Err(Error::Timeout(Timeout::Resolve))
            }
            Err(RecvTimeoutError::Disconnected) => Err(failed(&"no answer")),
        }
    }
}

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &Uri,
        _: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(80);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let found = if host.eq_ignore_ascii_case("localhost") {
            vec![
                (Ipv4Addr::LOCALHOST, port).into(),
                (Ipv6Addr::LOCALHOST, port).into(),
            ]
        } else if let Ok(address) = bare.parse::<IpAddr>() {
            vec![(address, port).into()]
        } else {
            self.name(host, port, *timeout.after)?
        };
        let mut addresses = self.empty();
        for address in found.into_iter().take(MAX_ADDRESSES) {
            addresses.push(address);
        }
        Ok(addresses)
    }
}

/// Connects to one address after the other. ureq's own connector does too, but
/// reports only the last error: where there is no IPv6, a service that is down
/// on 127.0.0.1 would read "Address family not supported".
#[derive(Debug, Default)]
pub struct Dial(TcpConnector);

impl Connector for Dial {
    type Out = <TcpConnector as Connector>::Out;

    fn connect(
        &self,
        details: &ConnectionDetails,
        chained: Option<()>,
    ) -> Result<Option<Self::Out>, Error> {
        let start = Instant::now();
        let mut first = None;
        for (tried, &address) in details.addrs.iter().enumerate() {
            // An address that swallows SYNs leaves their share to the others.
            let left = details.timeout.after.saturating_sub(start.elapsed());
            if left.is_zero() {
                break; // ureq takes zero for a whole second
            }
            let share = left / (details.addrs.len() - tried) as u32;
            let mut addrs = details.resolver.empty();
            addrs.push(address);
            let one = ConnectionDetails {
                addrs,
                timeout: NextTimeout {
                    after: share.into(),
                    ..details.timeout
                },
                current_time: details.current_time.clone(),
                run_connector: details.run_connector.clone(),
                register_shutdown: details.register_shutdown.clone(),
                ..*details
            };
            let error = match self.0.connect(&one, chained) {
                Err(Error::Timeout(_)) => Error::Timeout(Timeout::Connect),
                Err(error) => {
                    let error = error.into_io();
                    Error::Other(format!("cannot connect to {address}: {error}").into())
                }
                connected => return connected,
            };
            first.get_or_insert(error);
        }
        Err(first.unwrap_or(Error::Timeout(Timeout::Connect)))
    }
}
