//! The thread that serves one address: it accepts, closes at once, and watches the lease.
//! It is there from start to end, and is handed each new socket before it listens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use crate::accept::{Connections, is_transient};
use crate::journal;
use crate::lease::Lease;
use crate::reason::reason;
use crate::sys::{self, POLLIN, SO_REUSEADDR, SO_REUSEPORT};

/// How long an opening waits for its helper. A helper answers within 50 us; on a node
/// under load it may not run for 100 ms, which is no reason to stay closed. One that
/// takes longer hangs in the kernel, and would not watch the lease.
const PATIENCE: Duration = Duration::from_secs(1);

/// How soon a helper checks again a socket that does not listen yet when the lease has
/// expired: for so long it may listen if the loop stands still again.
const RETRY: Duration = Duration::from_millis(100);

/// The socket of one opening, shared with the helper. Always a new one: listening again
/// on one that was shut down would orphan connections in CLOSE_WAIT, and those block the
/// port for good.
#[derive(Debug)]
pub struct Listener {
    pub socket: TcpListener,
    closed: AtomicBool,
}

impl Listener {
    /// Not yet bound.
    pub fn new(address: SocketAddr) -> io::Result<Arc<Listener>> {
        let socket = sys::socket(address, &[SO_REUSEADDR, SO_REUSEPORT])?;
        Ok(Arc::new(Listener {
            socket: socket.into(),
            closed: AtomicBool::new(false),
        }))
    }

    pub fn close(&self) {
        self.closed.store(true, SeqCst);
        self.stop();
    }

    /// Stops listening: the next SYN gets RST, even while descriptors of the socket remain,
    /// and a waiting helper wakes up. False if the socket did not listen.
    fn stop(&self) -> bool {
        match sys::shutdown(&self.socket) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => false,
            // A security policy, perhaps. Only the end of the process closes the port now.
            Err(error) => journal::die(&format!("cannot close the port: {}", reason(&error))),
        }
    }
}

/// The thread that serves one address.
#[derive(Debug)]
pub struct Helper {
    orders: Sender<Order>,
    news: Receiver<News>,
    /// How many listeners it was handed and does not watch yet, as far as is known.
    ahead: u32,
    /// Whether it serves an open port, likewise.
    serves: bool,
}

#[derive(Debug)]
enum Order {
    /// From now on the lease closes this socket, which does not listen yet.
    Watch(Arc<Listener>),
    /// It listens.
    Accept,
}

#[derive(Debug)]
enum News {
    Watching,
    /// With the error that ended it, or none if the loop or the lease did.
    Stopped(Option<io::Error>),
}

impl Helper {
    pub fn start(lease: &Arc<Lease>, connections: &Arc<Connections>) -> io::Result<Helper> {
        let (lease, connections) = (Arc::clone(lease), Arc::clone(connections));
        let ((orders, ours), (tell, news)) = (mpsc::channel(), mpsc::channel());
        let thread = thread::Builder::new().name("accept".to_string());
        thread.spawn(move || {
            while let Ok(order) = ours.recv() {
                if let Order::Watch(listener) = order {
                    let _ = tell.send(News::Watching);
                    let error = serve(&listener, &ours, &lease, &connections);
                    drop(listener);
                    let _ = tell.send(News::Stopped(error));
                }
            }
        })?;
        Ok(Helper {
            orders,
            news,
            ahead: 0,
            serves: false,
        })
    }

    /// Hands it a listener that does not listen yet.
    pub fn watch(&mut self, listener: &Arc<Listener>) {
        let _ = self.orders.send(Order::Watch(Arc::clone(listener)));
        self.ahead += 1;
    }

    /// Waits until it watches the last listener.
    ///
    /// # Errors
    /// Why it does not.
    pub fn is_watching(&mut self) -> Result<(), &'static str> {
        while self.ahead > 0 {
            match self.news.recv_timeout(PATIENCE) {
                Ok(News::Watching) => self.ahead -= 1,
                Ok(News::Stopped(_)) => {}
                Err(_) => return Err("the helper does not answer"),
            }
        }
        Ok(())
    }

    /// The last listener listens now.
    pub fn accept(&mut self) {
        let _ = self.orders.send(Order::Accept);
        self.serves = true;
    }

    /// Whether it no longer serves the open port: because of an error, or because the
    /// lease expired.
    pub fn has_stopped(&mut self) -> Option<Option<io::Error>> {
        if !self.serves {
            return Some(None);
        }
        let Ok(News::Stopped(error)) = self.news.try_recv() else {
            return None;
        };
        self.serves = false;
        Some(error)
    }
}

/// What a helper does with one listener. Returns the error that ended it, or none if the
/// loop closed the port or the lease expired.
fn serve(
    listener: &Listener,
    orders: &Receiver<Order>,
    lease: &Lease,
    connections: &Connections,
) -> Option<io::Error> {
    while let Err(RecvTimeoutError::Timeout) =
        orders.recv_timeout(lease.left_or_expire().unwrap_or(RETRY))
    {
        if lease.left_or_expire().is_none() && listener.stop() {
            return None;
        }
    }
    loop {
        let Some(left) = lease.left_or_expire() else {
            listener.stop();
            return None;
        };
        let accepted = match sys::wait(&listener.socket, POLLIN, left) {
            Ok(true) => listener.socket.accept().map(drop),
            // The lease has expired or was renewed.
            Ok(false) => continue,
            Err(error) => Err(error),
        };
        match accepted {
            // Dropping the connection closes it: the handshake was the answer.
            Ok(()) => connections.add(),
            Err(_) if listener.closed.load(SeqCst) => return None,
            Err(error) if is_transient(&error) => {}
            // Out of descriptors or memory, or an error that nobody foresaw. Accepting
            // again at once would spin; waiting would leave a port open that nobody
            // serves. The loop notices in its next cycle and opens the port again in
            // the one after.
            Err(error) => {
                listener.stop();
                return Some(error);
            }
        }
    }
}
