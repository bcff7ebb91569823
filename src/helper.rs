//! The thread that serves one address: it accepts, closes at once, and watches the lease.
//! It is there from start to end, and is handed each new socket before it listens.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
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

/// The socket of one opening, not yet bound, shared with the helper. Always a new one:
/// listening again on one that was shut down would orphan connections in CLOSE_WAIT, and
/// those block the port for good.
pub fn listener(address: SocketAddr) -> io::Result<Arc<TcpListener>> {
    let socket = sys::socket(address, &[SO_REUSEADDR, SO_REUSEPORT])?;
    Ok(Arc::new(socket.into()))
}

/// Stops listening: the next SYN gets RST, even while descriptors of the socket remain,
/// and a waiting helper wakes up. False if the socket did not listen.
pub fn stop(listener: &TcpListener) -> bool {
    match sys::shutdown(listener) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotConnected => false,
        // A security policy, perhaps. Only the end of the process closes the port now.
        Err(error) => journal::die(&format!("cannot close the port: {}", reason(&error))),
    }
}

/// The thread that serves one address.
#[derive(Debug)]
pub struct Helper {
    orders: Sender<Order>,
    news: Receiver<News>,
    /// How many listeners it was handed and does not watch yet, as far as is known.
    ahead: u32,
}

#[derive(Debug)]
enum Order {
    /// From now on the lease closes this socket, which does not listen yet.
    Watch(Arc<TcpListener>),
    /// It listens.
    Accept,
}

#[derive(Debug)]
enum News {
    Watching,
    /// With the error of `accept`, or none if the lease has expired.
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
        })
    }

    /// Hands it a listener that does not listen yet.
    pub fn watch(&mut self, listener: &Arc<TcpListener>) {
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
    pub fn accept(&self) {
        let _ = self.orders.send(Order::Accept);
    }

    /// The error with which it gave up the open port, if there was one.
    pub fn failed(&self) -> Option<io::Error> {
        match self.news.try_recv() {
            Ok(News::Stopped(error)) => error,
            _ => None,
        }
    }
}

/// What a helper does with one listener. Returns the error that ended it (EINVAL if the
/// loop closed the port, which needs no news of it), or none if the lease expired.
fn serve(
    listener: &TcpListener,
    orders: &Receiver<Order>,
    lease: &Lease,
    connections: &Connections,
) -> Option<io::Error> {
    while let Err(RecvTimeoutError::Timeout) =
        orders.recv_timeout(lease.left_or_expire().unwrap_or(RETRY))
    {
        if lease.left_or_expire().is_none() && stop(listener) {
            return None;
        }
    }
    loop {
        let Some(left) = lease.left_or_expire() else {
            stop(listener);
            return None;
        };
        let accepted = match sys::wait(listener, POLLIN, left) {
            Ok(true) => listener.accept().map(drop),
            // The lease has expired or was renewed.
            Ok(false) => continue,
            Err(error) => Err(error),
        };
        match accepted {
            // Dropping the connection closes it: the handshake was the answer.
            Ok(()) => connections.add(),
            Err(error) if is_transient(&error) => {}
            // Out of descriptors or memory, or an error that nobody foresaw. Accepting
            // again at once would spin; waiting would leave a port open that nobody
            // serves. The loop notices in its next cycle and opens the port again in
            // the one after.
            Err(error) => {
                stop(listener);
                return Some(error);
            }
        }
    }
}
