//! The port. Open means a listening socket whose connections are accepted and closed at
//! once. Closed means no listening socket, so that the kernel answers RST; a listener
//! that merely stops accepting would still complete handshakes (kubernetes#103632).
//!
//! No program of another user gets the port meanwhile: from the first [`Ports::set`] to the end,
//! a second socket is bound to it and never listens.
//!
//! Each address has a helper thread from the first [`Ports::set`] to the end. It accepts, and
//! watches the lease: if the loop stalls, the helper closes the port by itself. It never
//! logs and takes no lock that the loop holds, so nothing that stalls the loop can stall
//! it. Nor does the loop wait for a helper in order to close the port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::accept::{BACKLOG, Connections};
use crate::helper::{self, Helper};
use crate::lease::Lease;
use crate::reason::reason;
use crate::sys::{self, SO_REUSEADDR, SO_REUSEPORT};

/// The state of one listening address after [`Ports::set`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// A connect succeeds.
    Open,
    /// A connect is refused, as it should be.
    Closed,
    /// A connect is refused although the port should be open, or the port cannot
    /// be reserved: the sentence says what the system refused.
    Failed(String),
}

/// All listening addresses; they open and close together.
#[derive(Debug)]
pub struct Ports {
    pub lease: Arc<Lease>,
    pub connections: Arc<Connections>,
    ports: Vec<Port>,
}

impl Ports {
    /// All closed, nothing reserved yet. `max_age` is how long an open port outlives the
    /// last [`Ports::renew`].
    pub fn new(addresses: &[SocketAddr], max_age: Duration) -> Ports {
        let port = |&address| Port {
            address,
            reservation: None,
            helper: None,
            next: None,
            listener: None,
        };
        Ports {
            lease: Arc::new(Lease::new(max_age)),
            connections: Arc::default(),
            ports: addresses.iter().map(port).collect(),
        }
    }

    /// Renews the lease; false if an open port was closed because the lease had expired.
    /// Call it before [`Ports::set`].
    pub fn renew(&mut self) -> bool {
        if self.lease.renew() {
            return true;
        }
        let held = self.ports.iter().any(|port| port.listener.is_some());
        self.close();
        // The helpers may have shut them down.
        self.ports.iter_mut().for_each(Port::discard);
        self.lease.restart();
        !held
    }

    /// Opens or closes every address, and returns their states in the same order. The
    /// next call retries an address that could not be reserved or opened; no other
    /// address is tried in its place.
    pub fn set(&mut self, open: bool) -> Vec<State> {
        if !open {
            self.close();
        }
        let (lease, connections) = (&self.lease, &self.connections);
        let set = |port: &mut Port| match port.set(open, lease, connections) {
            Ok(()) if open => State::Open,
            Ok(()) => State::Closed,
            Err(sentence) => State::Failed(sentence),
        };
        self.ports.iter_mut().map(set).collect()
    }

    /// Closes all sockets, before anything else is done.
    fn close(&mut self) {
        self.ports.iter_mut().for_each(Port::close);
    }
}

impl Drop for Ports {
    /// The helpers own the listeners too, which would otherwise live on until the lease
    /// expires.
    fn drop(&mut self) {
        self.close();
        self.ports.iter_mut().for_each(Port::discard);
    }
}

#[derive(Debug)]
struct Port {
    address: SocketAddr,
    reservation: Option<OwnedFd>,
    helper: Option<Helper>,
    /// For the next opening: its helper watches it already, which takes three system
    /// calls and two changes of threads out of the reaction.
    next: Option<Arc<TcpListener>>,
    listener: Option<Arc<TcpListener>>,
}

impl Port {
    fn set(
        &mut self,
        open: bool,
        lease: &Arc<Lease>,
        connections: &Arc<Connections>,
    ) -> Result<(), String> {
        let address = self.address;
        let cannot_listen = |error| cannot_listen(address, &error);
        get(&mut self.reservation, || reserve(address)).map_err(cannot_listen)?;
        if open && self.listener.is_some() {
            return self.look_after(lease);
        }
        let prepared = self.prepare(lease, connections);
        if !open {
            return Ok(()); // If it was not prepared, the next opening says so.
        }
        prepared.map_err(cannot_listen)?;
        self.open()
    }

    fn prepare(&mut self, lease: &Arc<Lease>, connections: &Arc<Connections>) -> io::Result<()> {
        let helper = get(&mut self.helper, || Helper::start(lease, connections))?;
        let address = self.address;
        get(&mut self.next, || {
            let listener = helper::listener(address)?;
            helper.watch(&listener);
            Ok(listener)
        })
        .map(drop)
    }

    fn open(&mut self) -> Result<(), String> {
        let address = self.address;
        let (Some(reservation), Some(helper)) = (&self.reservation, &mut self.helper) else {
            return Err(cannot_accept(address, "there is no helper"));
        };
        // The helper watches before the socket listens: if the loop stood still after
        // listen(2), nobody else would close the port.
        helper
            .is_watching()
            .map_err(|problem| cannot_accept(address, problem))?;
        self.listener = self.next.take();
        let listens = match &self.listener {
            Some(listener) => listen(listener, address, reservation),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        helper.accept();
        listens.map_err(|error| {
            self.close();
            cannot_listen(address, &error)
        })
    }

    /// Whether the helper still serves the open port.
    fn look_after(&mut self, lease: &Lease) -> Result<(), String> {
        let address = self.address;
        // Stay closed for one cycle, so that a helper that fails at once cannot make us
        // spin.
        if let Some(error) = self.helper.as_ref().and_then(Helper::failed) {
            self.listener = None;
            return Err(cannot_accept(address, &reason(&error)));
        }
        // The next renewal closes the port, and `rise` must be earned again.
        let expired = || cannot_accept(address, "the lease expired");
        lease.is_running().then_some(()).ok_or_else(expired)
    }

    fn discard(&mut self) {
        if let (Some(listener), Some(helper)) = (self.next.take(), &self.helper) {
            helper::stop(&listener);
            helper.accept();
        }
    }

    /// Neither tells the helper nor waits for it: the kernel makes its `accept` fail.
    fn close(&mut self) {
        if let Some(listener) = self.listener.take() {
            helper::stop(&listener);
        }
    }
}

/// What is there, or what can be made.
fn get<T>(slot: &mut Option<T>, make: impl FnOnce() -> io::Result<T>) -> io::Result<&mut T> {
    let value = match slot.take() {
        Some(value) => value,
        None => make()?,
    };
    Ok(slot.insert(value))
}

fn cannot_accept(address: SocketAddr, problem: &str) -> String {
    format!("cannot accept on {address}: {problem}")
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> String {
    // The system's error does not say what to change: the unit (EPERM), or a port below
    // 1024 (EACCES).
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ", see SocketBindAllow= in the unit; ports below 1024 need a privilege"
        }
        _ => "",
    };
    format!("cannot listen on {address}: {}{hint}", reason(error))
}

/// A socket that holds the port and never listens. While it exists, the kernel refuses
/// the port to every other socket that would listen on it or connect from it, and
/// answers a SYN with RST.
///
/// The first attempt is without SO_REUSEADDR. If the first socket on a port was bound
/// with it, some kernels remember that (6.1 does, 6.12 does not) and let a second
/// healthport reserve the port too, after which neither can open it. Only connections
/// of an earlier process in TIME_WAIT require the option, and then the kernel checks
/// every socket.
fn reserve(address: SocketAddr) -> io::Result<OwnedFd> {
    let bind = |options: &[_]| {
        let socket = sys::socket(address, options)?;
        sys::bind(&socket, address).map(|()| socket)
    };
    bind(&[]).or_else(|_| {
        let socket = bind(&[SO_REUSEADDR])?;
        sys::set(&socket, SO_REUSEADDR, false)?;
        Ok(socket)
    })
}

/// Listens beside the reservation. With SO_REUSEPORT on both, the kernel allows that to
/// sockets of the same user only. With SO_REUSEADDR on both it would allow it to
/// everybody: another user's program took the port between the two calls by opening
/// 2. The listener has SO_REUSEADDR all the same, for connections of the last
/// opening that are in TIME_WAIT; the reservation does not have it.
fn listen(socket: &TcpListener, address: SocketAddr, reservation: &OwnedFd) -> io::Result<()> {
    sys::set(reservation, SO_REUSEPORT, true)?;
    sys::bind(socket, address)?;
    sys::listen(socket, BACKLOG)
}
