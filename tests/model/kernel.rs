//! The part of the kernel that ports.rs and lease.rs call: a clock that the model turns,
//! the sockets of one port, and threads that wait for either. Its rules are those of
//! inet_csk_get_port() in net/ipv4/inet_connection_sock.c.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as Plain};
use std::time::Duration;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Condvar, Mutex, MutexGuard};

pub const POLLIN: i16 = 1;
pub const SO_REUSEADDR: i32 = 2;
pub const SO_REUSEPORT: i32 = 15;

#[derive(Debug, Default)]
struct Socket {
    reuse_address: bool,
    reuse_port: bool,
    bound: bool,
    listens: bool,
}

#[derive(Debug, Default)]
struct State {
    sockets: Vec<Socket>,
    /// A thread in accept() does not return.
    hangs: bool,
    is_hanging: bool,
    /// Every timeout is over.
    all_are_late: bool,
}

#[derive(Debug, Default)]
pub struct Kernel {
    now: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

/// The kernel of the execution that loom is exploring.
static KERNEL: Plain<Option<Arc<Kernel>>> = Plain::new(None);

pub fn kernel() -> Arc<Kernel> {
    Arc::clone(KERNEL.lock().unwrap().as_ref().unwrap())
}

impl Kernel {
    pub fn boot() -> Arc<Kernel> {
        *KERNEL.lock().unwrap() = Some(Arc::default());
        kernel()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    fn wait<T>(&self, until: impl Fn(&State) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(result) = until(&state) {
                return result;
            }
            state = self.changed.wait(state).unwrap();
        }
    }

    /// A read-modify-write: to a plain load, loom would show older times too.
    pub fn now(&self) -> u64 {
        self.now.fetch_add(0, Ordering::SeqCst)
    }

    pub fn tick(&self) {
        self.now.fetch_add(1, Ordering::SeqCst);
    }

    /// Advances the clock by so many ticks and wakes the threads that wait for them.
    pub fn pass(&self, ticks: u64) {
        self.change(|_| self.now.fetch_add(ticks, Ordering::SeqCst));
    }

    pub fn hang(&self, hangs: bool) {
        self.change(|state| state.hangs = hangs);
    }

    pub fn is_open(&self) -> bool {
        self.lock().sockets.iter().any(|socket| socket.listens)
    }

    /// Lets time pass until the port is closed. If nobody closes it, loom reports that all
    /// threads wait.
    pub fn waits_until_closed(&self) {
        self.change(|state| state.all_are_late = true);
        self.wait(|state| {
            let listens = state.sockets.iter().any(|socket| socket.listens);
            (!listens).then_some(())
        });
    }

    /// Whether another user's program can bind the port. (To it, SO_REUSEPORT of our
    /// sockets means nothing.)
    pub fn can_be_stolen(&self) -> bool {
        let thief = Socket {
            reuse_address: true,
            ..Socket::default()
        };
        let state = self.lock();
        !state.sockets.iter().any(|other| conflict(&thief, other))
    }

    /// Whether a helper hangs.
    pub fn has_hung(&self) -> bool {
        self.lock().is_hanging
    }
}

fn conflict(socket: &Socket, other: &Socket) -> bool {
    let addresses = socket.reuse_address && other.reuse_address && !other.listens;
    let ports = socket.reuse_port && other.reuse_port;
    other.bound && !addresses && !ports
}

/// One descriptor of a socket.
#[derive(Debug)]
pub struct OwnedFd(usize);

impl OwnedFd {
    fn get<T>(&self, get: impl FnOnce(&mut Socket) -> T) -> T {
        kernel().change(|state| get(&mut state.sockets[self.0]))
    }

    fn is_free(&self, state: &State) -> bool {
        let own = &state.sockets[self.0];
        let others = state.sockets.iter().enumerate();
        !others
            .filter(|(number, _)| *number != self.0)
            .any(|(_, other)| conflict(own, other))
    }
}

impl Drop for OwnedFd {
    fn drop(&mut self) {
        // The story has failed, and loom has ended already.
        if std::thread::panicking() {
            return;
        }
        self.get(|socket| *socket = Socket::default());
    }
}

pub fn socket(_address: SocketAddr, options: &[i32]) -> io::Result<OwnedFd> {
    let socket = kernel().change(|state| {
        state.sockets.push(Socket::default());
        OwnedFd(state.sockets.len() - 1)
    });
    for &option in options {
        set(&socket, option, true)?;
    }
    Ok(socket)
}

pub fn bind(socket: &OwnedFd, _address: SocketAddr) -> io::Result<()> {
    kernel().change(|state| {
        if !socket.is_free(state) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.sockets[socket.0].bound = true;
        Ok(())
    })
}

pub fn set(socket: &OwnedFd, option: i32, on: bool) -> io::Result<()> {
    socket.get(|socket| match option {
        SO_REUSEADDR => socket.reuse_address = on,
        _ => socket.reuse_port = on,
    });
    Ok(())
}

pub fn listen(socket: &OwnedFd, _backlog: i32) -> io::Result<()> {
    kernel().change(|state| {
        let mut sockets = state.sockets.iter();
        assert!(!sockets.any(|socket| socket.listens), "two listeners");
        if !socket.is_free(state) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.sockets[socket.0].listens = true;
        Ok(())
    })
}

pub fn shutdown(socket: &OwnedFd) -> io::Result<()> {
    let listened = |socket: &mut Socket| std::mem::replace(&mut socket.listens, false);
    match socket.get(listened) {
        true => Ok(()),
        false => Err(io::ErrorKind::NotConnected.into()),
    }
}

/// A socket that does not listen is ready at once: POLLHUP.
pub fn wait(socket: &OwnedFd, _events: i16, time: Duration) -> io::Result<bool> {
    let (kernel, number) = (kernel(), socket.0);
    let end = kernel.now() + time.as_nanos() as u64;
    kernel.wait(|state| {
        let is_ready = !state.sockets[number].listens;
        let is_over = is_ready || state.all_are_late || kernel.now() >= end;
        is_over.then_some(Ok(is_ready))
    })
}

pub type TcpListener = OwnedFd;

impl TcpListener {
    /// Nobody connects; it may hang before it says that the socket does not listen.
    pub fn accept(&self) -> io::Result<()> {
        let (kernel, number) = (kernel(), self.0);
        if kernel.lock().sockets[number].listens {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        kernel.change(|state| state.is_hanging = state.hangs);
        kernel.wait(|state| (!state.hangs).then_some(()));
        kernel.change(|state| state.is_hanging = false);
        Err(io::Error::from_raw_os_error(22)) // EINVAL
    }
}

/// A tick of the clock is a nanosecond.
#[derive(Debug)]
pub struct Instant(u64);

impl Instant {
    pub fn now() -> Instant {
        Instant(kernel().now())
    }

    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(kernel().now() - self.0)
    }
}

/// A channel, whose receiver waits for the kernel too.
pub mod mpsc {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::kernel;
    pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError};

    #[derive(Debug)]
    pub struct Sender<T>(Option<mpsc::Sender<T>>);
    #[derive(Debug)]
    pub struct Receiver<T>(mpsc::Receiver<T>);

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (Sender(Some(sender)), Receiver(receiver))
    }

    impl<T> Sender<T> {
        pub fn send(&self, message: T) -> Result<(), SendError<T>> {
            kernel().change(|_| self.0.as_ref().unwrap().send(message))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                kernel().change(|_| self.0 = None);
            }
        }
    }

    impl<T> Receiver<T> {
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            let kernel = kernel();
            let _state = kernel.lock();
            self.0.try_recv()
        }

        pub fn recv(&self) -> Result<T, RecvError> {
            self.recv_timeout(Duration::MAX).map_err(|_| RecvError)
        }

        /// The loop's patience with a helper, a second, lasts for longer than anything but
        /// a helper that hangs. A lease is a few ticks.
        pub fn recv_timeout(&self, time: Duration) -> Result<T, RecvTimeoutError> {
            let kernel = kernel();
            let end = kernel.now().saturating_add(time.as_nanos() as u64);
            kernel.wait(|state| match self.0.try_recv() {
                Ok(message) => Some(Ok(message)),
                Err(TryRecvError::Disconnected) => Some(Err(RecvTimeoutError::Disconnected)),
                Err(TryRecvError::Empty) => {
                    let is_late = match time >= Duration::from_secs(1) {
                        true => state.hangs && state.is_hanging,
                        false => state.all_are_late || kernel.now() >= end,
                    };
                    is_late.then_some(Err(RecvTimeoutError::Timeout))
                }
            })
        }
    }
}
