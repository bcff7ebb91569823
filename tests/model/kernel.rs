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
    descriptors: usize,
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

    fn wait(&self, until: impl Fn(&State) -> bool) {
        let mut state = self.lock();
        while !until(&state) {
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
        self.wait(|state| !state.sockets.iter().any(|socket| socket.listens));
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
        self.get(|socket| {
            socket.descriptors -= 1;
            socket.bound &= socket.descriptors > 0;
            socket.listens &= socket.descriptors > 0;
        });
    }
}

pub fn socket(_address: SocketAddr, options: &[i32]) -> io::Result<OwnedFd> {
    let socket = kernel().change(|state| {
        state.sockets.push(Socket {
            descriptors: 1,
            ..Socket::default()
        });
        OwnedFd(state.sockets.len() - 1)
    });
    for &option in options {
        set(&socket, option, true)?;
    }
    Ok(socket)
}

pub fn bind(socket: &impl AsFd, _address: SocketAddr) -> io::Result<()> {
    let socket = socket.as_fd();
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

pub fn listen(socket: &impl AsFd, _backlog: i32) -> io::Result<()> {
    let socket = socket.as_fd();
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

pub fn shutdown(socket: &impl AsFd) -> io::Result<()> {
    let listened = |socket: &mut Socket| std::mem::replace(&mut socket.listens, false);
    match socket.as_fd().get(listened) {
        true => Ok(()),
        false => Err(io::ErrorKind::NotConnected.into()),
    }
}

/// A socket that does not listen is ready at once: POLLHUP.
pub fn wait(socket: &impl AsFd, _events: i16, time: Duration) -> io::Result<bool> {
    let (kernel, number) = (kernel(), socket.as_fd().0);
    let end = kernel.now() + time.as_nanos() as u64;
    kernel.wait(|state| {
        !state.sockets[number].listens || state.all_are_late || kernel.now() >= end
    });
    Ok(!kernel.lock().sockets[number].listens)
}

pub trait AsFd {
    fn as_fd(&self) -> &OwnedFd;
}

impl AsFd for OwnedFd {
    fn as_fd(&self) -> &OwnedFd {
        self
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> &OwnedFd {
        &self.0
    }
}

#[derive(Debug)]
pub struct TcpListener(OwnedFd);

impl From<OwnedFd> for TcpListener {
    fn from(socket: OwnedFd) -> TcpListener {
        TcpListener(socket)
    }
}

impl TcpListener {
    /// Nobody connects; it may hang before it says that the socket does not listen.
    pub fn accept(&self) -> io::Result<()> {
        let (kernel, number) = (kernel(), self.0.0);
        if kernel.lock().sockets[number].listens {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        kernel.change(|state| state.is_hanging = state.hangs);
        kernel.wait(|state| !state.hangs);
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
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex as Plain};
    use std::time::Duration;

    use super::kernel;
    pub use std::sync::mpsc::{RecvError, RecvTimeoutError, TryRecvError};

    #[derive(Debug)]
    struct Channel<T> {
        messages: VecDeque<T>,
        is_over: bool,
    }

    impl<T> Channel<T> {
        fn is_ready(&self) -> bool {
            !self.messages.is_empty() || self.is_over
        }
    }

    #[derive(Debug)]
    pub struct Sender<T>(Arc<Plain<Channel<T>>>);
    #[derive(Debug)]
    pub struct Receiver<T>(Arc<Plain<Channel<T>>>);

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Plain::new(Channel {
            messages: VecDeque::new(),
            is_over: false,
        }));
        (Sender(Arc::clone(&channel)), Receiver(channel))
    }

    impl<T> Sender<T> {
        pub fn send(&self, message: T) -> Result<(), ()> {
            kernel().change(|_| self.0.lock().unwrap().messages.push_back(message));
            Ok(())
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                return;
            }
            kernel().change(|_| self.0.lock().unwrap().is_over = true);
        }
    }

    impl<T> Receiver<T> {
        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            let kernel = kernel();
            let _state = kernel.lock();
            let mut channel = self.0.lock().unwrap();
            match (channel.messages.pop_front(), channel.is_over) {
                (Some(message), _) => Ok(message),
                (None, true) => Err(TryRecvError::Disconnected),
                (None, false) => Err(TryRecvError::Empty),
            }
        }

        pub fn recv(&self) -> Result<T, RecvError> {
            kernel().wait(|_| self.0.lock().unwrap().is_ready());
            self.try_recv().map_err(|_| RecvError)
        }

        /// The loop's patience with a helper, a second, lasts for longer than anything but
        /// a helper that hangs. A lease is a few ticks.
        pub fn recv_timeout(&self, time: Duration) -> Result<T, RecvTimeoutError> {
            let kernel = kernel();
            let is_patient = time >= Duration::from_secs(1);
            let end = kernel.now() + time.as_nanos() as u64;
            kernel.wait(|state| {
                let late = if is_patient {
                    state.hangs && state.is_hanging
                } else {
                    state.all_are_late || kernel.now() >= end
                };
                late || self.0.lock().unwrap().is_ready()
            });
            self.try_recv().map_err(|error| match error {
                TryRecvError::Empty => RecvTimeoutError::Timeout,
                TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
            })
        }
    }
}
