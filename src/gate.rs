//! The port. Open: a listening socket whose connections are accepted and closed
//! at once. Closed: no listening socket, so that the kernel answers RST; a
//! listener that merely stops accepting would still complete handshakes
//! (kubernetes#103632).
//!
//! An open port belongs to a helper thread that sits in `accept`. It stays open
//! only while the loop renews the lease: the helper closes it by itself when the
//! loop stands still. The helper never logs and takes no lock: nothing that
//! stalls the loop can stall it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::lease::Lease;

/// The state of one listening address after [`Gate::set`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Port {
    /// A connect succeeds.
    Open,
    /// A connect is refused, as it should be.
    Closed,
    /// A connect is refused although the port should be open: the sentence says
    /// what the system refused.
    Failed(String),
}

/// All listening addresses; they open and close together.
#[derive(Debug)]
pub struct Gate {
    lease: Arc<Lease>,
    visits: Arc<Visits>,
    doors: Vec<Door>,
}

impl Gate {
    /// A closed gate. `max_age` is how long an open port outlives the last
    /// [`Gate::renew`].
    pub fn new(addresses: &[SocketAddr], max_age: Duration) -> Gate {
        let door = |&address| Door {
            address,
            listening: None,
        };
        Gate {
            lease: Arc::new(Lease::new(max_age)),
            visits: Arc::default(),
            doors: addresses.iter().map(door).collect(),
        }
    }

    /// The lease, to look at.
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease)
    }

    /// The accepted connections, to look at.
    pub fn visits(&self) -> Arc<Visits> {
        Arc::clone(&self.visits)
    }

    /// Renews the lease; false if an open port was closed because it had run
    /// out. Call it once per cycle, after the probe and before [`Gate::set`].
    pub fn renew(&mut self) -> bool {
        let in_time = self.lease.renew();
        if in_time || self.doors.iter().all(|door| door.listening.is_none()) {
            return true;
        }
        self.close();
        false
    }

    /// Opens or closes every address, and says what came of it, in the order of
    /// the addresses. One that could not be opened is tried again by the next
    /// call, and never at another address.
    pub fn set(&mut self, open: bool) -> Vec<Port> {
        if !open {
            self.close();
            return vec![Port::Closed; self.doors.len()];
        }
        let (lease, visits) = (&self.lease, &self.visits);
        let open = |door: &mut Door| match door.open(lease, visits) {
            Ok(()) => Port::Open,
            Err(sentence) => Port::Failed(sentence),
        };
        self.doors.iter_mut().map(open).collect()
    }

    /// First all sockets, then the helpers: no port stays open while the helper
    /// of another one ends.
    fn close(&mut self) {
        let listening = self.doors.iter().filter_map(|door| door.listening.as_ref());
        listening.for_each(|listening| close(&listening.socket));
        for door in &mut self.doors {
            door.end();
        }
    }
}

impl Drop for Gate {
    /// The helpers own the listeners: without this they would live on until the
    /// lease runs out.
    fn drop(&mut self) {
        self.close();
    }
}

/// One listening address.
#[derive(Debug)]
struct Door {
    address: SocketAddr,
    listening: Option<Listening>,
}

impl Door {
    fn open(&mut self, lease: &Arc<Lease>, visits: &Arc<Visits>) -> Result<(), String> {
        if self
            .listening
            .as_ref()
            .is_some_and(|l| l.helper.is_finished())
        {
            // The helper gave up since the last cycle and has closed the port.
            // One cycle closed, so that a helper that fails at once cannot spin.
            let error = self.end().unwrap_or_else(|| "the helper died".to_string());
            return Err(format!("cannot accept on {}: {error}", self.address));
        }
        if self.listening.is_none() {
            let listening = Listening::start(self.address, lease, visits).map_err(|error| {
                // What the system says leaves open what to do: it is the
                // unit (EPERM) or a port below 1024 (EACCES).
                let hint = match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        ", see SocketBindAllow= in the unit; ports below 1024 take a privilege"
                    }
                    _ => "",
                };
                format!("cannot listen on {}: {error}{hint}", self.address)
            })?;
            self.listening = Some(listening);
        }
        Ok(())
    }

    /// Ends what listened, once it is shut, and returns what its helper says.
    fn end(&mut self) -> Option<String> {
        let helper = self.listening.take()?.helper;
        // Not a wait: `accept` has been made to fail, or has failed (50 us).
        Some(helper.join().ok()??.to_string())
    }
}

#[derive(Debug)]
struct Listening {
    /// The listening socket, shared with the helper, as something that can be
    /// shut down and given a timeout. Both work on any socket, but `std` offers
    /// them on [`TcpStream`] only.
    socket: Arc<TcpStream>,
    helper: JoinHandle<Option<io::Error>>,
}

impl Listening {
    /// The listener that `std` makes has SO_REUSEADDR: connections of the last
    /// opening that are in TIME_WAIT do not keep it from opening again.
    fn start(
        address: SocketAddr,
        lease: &Arc<Lease>,
        visits: &Arc<Visits>,
    ) -> io::Result<Listening> {
        let listener = TcpListener::bind(address)?;
        let socket = Arc::new(TcpStream::from(OwnedFd::from(listener.try_clone()?)));
        let own = Arc::clone(&socket);
        let (lease, visits) = (Arc::clone(lease), Arc::clone(visits));
        let helper = thread::Builder::new()
            .name("accept".to_string())
            .spawn(move || accept(&listener, &own, &lease, &visits))?;
        Ok(Listening { socket, helper })
    }
}

/// The helper: accept, close, watch the lease. Returns the error that ended it
/// (EINVAL if the loop closed the port), or nothing if the lease ran out.
fn accept(
    listener: &TcpListener,
    socket: &TcpStream,
    lease: &Lease,
    visits: &Visits,
) -> Option<io::Error> {
    loop {
        let Some(left) = lease.left() else {
            close(socket);
            return None;
        };
        // It bounds how long accept() blocks, so the lease is looked at again
        // the moment it runs out, or was renewed.
        let accepted = socket
            .set_read_timeout(Some(left))
            .and_then(|()| listener.accept());
        match accepted {
            // Dropping the connection closes it: the handshake was the answer.
            Ok(_) => visits.add(),
            Err(error) if is_passing(&error) => {}
            // Descriptors or memory exhausted, or something nobody thought of:
            // to accept again at once would spin, and to wait would leave a port
            // open that nobody serves. The loop tries again in its next cycle.
            Err(error) => {
                close(socket);
                return Some(error);
            }
        }
    }
}

/// Whether an error of `accept` says nothing about the listener: the wait is
/// over, or the connection was lost before it was accepted (accept(2), "Error
/// handling": treat the network errors of the new socket like EAGAIN).
pub fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::*;
    matches!(
        error.kind(),
        WouldBlock
            | Interrupted
            | ConnectionAborted
            | ConnectionReset
            | NetworkDown
            | NetworkUnreachable
            | HostUnreachable
            | TimedOut
    )
}

/// Ends the listening: the next SYN gets RST, also while descriptors of the
/// socket remain, and a blocked `accept` returns EINVAL. An error would mean that
/// the socket does not listen any more.
fn close(socket: &TcpStream) {
    let _ = socket.shutdown(Shutdown::Both);
}

/// The connections that were accepted.
#[derive(Debug, Default)]
pub struct Visits {
    /// How many.
    pub count: AtomicU64,
    /// When the last came, in milliseconds since 1970; 0 = never.
    pub last: AtomicU64,
}

impl Visits {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.store(unix_millis(), Ordering::Relaxed);
    }
}

/// Now, in milliseconds since 1970.
pub fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
