//! The port. Open means a listening socket whose connections are accepted and closed at
//! once. Closed means no listening socket, so that the kernel answers RST; a listener
//! that merely stops accepting would still complete handshakes (kubernetes#103632).
//!
//! No other program gets the port meanwhile: from the first [`Ports::set`] to the end,
//! a second socket is bound to it and never listens.
//!
//! Each address that is open has a helper thread, which blocks in `accept`. The port
//! stays open only while the loop renews the lease: if the loop stalls, the helper
//! closes the port by itself. The helper never logs and takes no lock, so nothing that
//! stalls the loop can stall it. Nor does the loop wait for a helper in order to close
//! the port.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use crate::accept::{BACKLOG, Connections, is_transient};
use crate::lease::Lease;
use crate::sys::{self, SO_REUSEADDR, SO_REUSEPORT};

/// How many helpers of earlier openings may still be running. A helper ends some 50 us
/// after its socket is shut down. On a node under load it may not run for 100 ms, which
/// is no reason to stay closed: the kernel answers for the next helper. If this many
/// are left, they hang in the kernel, and another one would hang too.
const OLD_HELPERS: usize = 8;

/// How long an opening waits for the oldest of them to end.
const PATIENCE: Duration = Duration::from_secs(1);

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
    lease: Arc<Lease>,
    connections: Arc<Connections>,
    ports: Vec<Port>,
}

impl Ports {
    /// All closed, nothing reserved yet. `max_age` is how long an open port outlives
    /// the last [`Ports::renew`].
    pub fn new(addresses: &[SocketAddr], max_age: Duration) -> Ports {
        let port = |&address| Port {
            address,
            reservation: None,
            listener: None,
            ending: Vec::new(),
        };
        Ports {
            lease: Arc::new(Lease::new(max_age)),
            connections: Arc::default(),
            ports: addresses.iter().map(port).collect(),
        }
    }

    /// The lease, for its readers.
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease)
    }

    /// The accepted connections, for their readers.
    pub fn connections(&self) -> Arc<Connections> {
        Arc::clone(&self.connections)
    }

    /// Renews the lease; false if an open port was closed because the lease had
    /// expired. Call it once per cycle, after the probe and before [`Ports::set`].
    pub fn renew(&mut self) -> bool {
        let in_time = self.lease.renew();
        if in_time || self.ports.iter().all(|port| port.listener.is_none()) {
            return true;
        }
        self.close();
        false
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
    /// The helpers own the listeners, which would otherwise live on until the lease
    /// expires.
    fn drop(&mut self) {
        self.close();
    }
}

/// One listening address.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    reservation: Option<OwnedFd>,
    listener: Option<Listener>,
    /// The helpers of earlier openings, the oldest first, until they are known to
    /// have ended.
    ending: Vec<Receiver<io::Error>>,
}

impl Port {
    fn set(
        &mut self,
        open: bool,
        lease: &Arc<Lease>,
        connections: &Arc<Connections>,
    ) -> Result<(), String> {
        let address = self.address;
        let cannot_listen = |error: io::Error| {
            // The system's error does not say what to change: the unit (EPERM), or a
            // port below 1024 (EACCES).
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    ", see SocketBindAllow= in the unit; ports below 1024 need a privilege"
                }
                _ => "",
            };
            format!("cannot listen on {address}: {error}{hint}")
        };
        let reservation = match self.reservation.take() {
            Some(reservation) => reservation,
            None => reserve(address).map_err(cannot_listen)?,
        };
        let reservation = self.reservation.insert(reservation);
        if !open {
            return Ok(());
        }
        if let Some(listener) = &self.listener {
            let error = match listener.helper.try_recv() {
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => "the helper thread died".to_string(),
                Ok(error) => error.to_string(),
            };
            // The helper has given up since the last cycle and closed the port. Stay
            // closed for one cycle, so that a helper that fails at once cannot make us
            // spin.
            self.close();
            return Err(format!("cannot accept on {address}: {error}"));
        }
        let runs = |helper: &Receiver<_>| matches!(helper.try_recv(), Err(TryRecvError::Empty));
        self.ending.retain(runs);
        let hangs = |helper: &Receiver<_>| {
            matches!(
                helper.recv_timeout(PATIENCE),
                Err(RecvTimeoutError::Timeout)
            )
        };
        if self.ending.len() >= OLD_HELPERS && self.ending.first().is_some_and(hangs) {
            return Err(format!(
                "cannot accept on {address}: {OLD_HELPERS} helpers of earlier openings hang"
            ));
        }
        let listener = listen(address, reservation).map_err(cannot_listen)?;
        let listener = Listener::start(listener, lease, connections).map_err(cannot_listen)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Neither tells the helper nor waits for it: the kernel makes its `accept` fail.
    fn close(&mut self) {
        if let Some(listener) = self.listener.take() {
            close(&listener.socket);
            self.ending.push(listener.helper);
        }
    }
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
    sys::bind(address, &[]).or_else(|_| {
        let socket = sys::bind(address, &[SO_REUSEADDR])?;
        sys::set(&socket, SO_REUSEADDR, false)?;
        Ok(socket)
    })
}

/// Opens a listener beside the reservation. With SO_REUSEPORT on both, the kernel
/// allows that to sockets of the same user only. With SO_REUSEADDR on both it would
/// allow it to everybody: another user's program took the port between the two calls
/// within ten openings. The listener has SO_REUSEADDR all the same, for connections of
/// the last opening that are in TIME_WAIT; the reservation does not have it.
///
/// Always a new socket. Listening again on the one that was shut down would orphan
/// connections in CLOSE_WAIT, and those block the port for good.
fn listen(address: SocketAddr, reservation: &OwnedFd) -> io::Result<TcpListener> {
    sys::set(reservation, SO_REUSEPORT, true)?;
    let listener = sys::bind(address, &[SO_REUSEADDR, SO_REUSEPORT])
        .and_then(|socket| sys::listen(socket, BACKLOG));
    sys::set(reservation, SO_REUSEPORT, false)?;
    listener
}

#[derive(Debug)]
struct Listener {
    /// The listening socket, shared with the helper, as a [`TcpStream`]: shutdown and
    /// timeouts work on any socket, but `std` offers them on that type only.
    socket: Arc<TcpStream>,
    /// Receives the error with which the helper ended, and disconnects when it has
    /// ended.
    helper: Receiver<io::Error>,
}

impl Listener {
    fn start(
        listener: TcpListener,
        lease: &Arc<Lease>,
        connections: &Arc<Connections>,
    ) -> io::Result<Listener> {
        let socket = Arc::new(TcpStream::from(OwnedFd::from(listener.try_clone()?)));
        let own = Arc::clone(&socket);
        let (lease, connections) = (Arc::clone(lease), Arc::clone(connections));
        let (end, helper) = mpsc::channel();
        thread::Builder::new()
            .name("accept".to_string())
            .spawn(move || {
                if let Some(error) = accept(&listener, &own, &lease, &connections) {
                    let _ = end.send(error);
                }
            })?;
        Ok(Listener { socket, helper })
    }
}

/// The helper: accept, close, watch the lease. Returns the error that ended it (EINVAL
/// if the loop closed the port), or nothing if the lease expired.
fn accept(
    listener: &TcpListener,
    socket: &TcpStream,
    lease: &Lease,
    connections: &Connections,
) -> Option<io::Error> {
    loop {
        let Some(left) = lease.left() else {
            close(socket);
            return None;
        };
        // The timeout bounds how long accept() blocks, so the lease is checked again
        // when this time is up, whether the lease has expired or was renewed.
        let accepted = socket
            .set_read_timeout(Some(left))
            .and_then(|()| listener.accept());
        match accepted {
            // Dropping the connection closes it: the handshake was the answer.
            Ok(_) => connections.add(),
            Err(error) if is_transient(&error) => {}
            // Out of descriptors or memory, or an error that nobody foresaw. Accepting
            // again at once would spin; waiting would leave a port open that nobody
            // serves. The loop notices in its next cycle and opens the port again in
            // the one after.
            Err(error) => {
                close(socket);
                return Some(error);
            }
        }
    }
}

/// Stops listening: the next SYN gets RST, even while descriptors of the socket remain,
/// and a blocked `accept` returns EINVAL. An error would mean that the socket no longer
/// listens.
fn close(socket: &TcpStream) {
    let _ = socket.shutdown(Shutdown::Both);
}
