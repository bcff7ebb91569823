//! One request and its answer: every byte between ureq and the service passes through
//! here. Errors made here are about the connection and the time; ureq's own errors are
//! about the answer.
//!
//! The loop must be back at its next beat, and ureq cannot stop half-way. So a wait that
//! lasts until the beat fails with `WouldBlock`, and the [`Exchange`] remembers what was
//! sent and what has arrived. When ureq runs again, it sends and reads the same bytes to
//! and from memory, and goes on where the last run stopped. The exchange also outlives
//! ureq's run: the port follows the outcome first, and then the connection ends politely.

use std::io::{ErrorKind, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};
use ureq::{Error, Timeout};

use crate::dial::{self, Failure};
use crate::fold;
use crate::sys::{self, POLLIN, POLLOUT};

/// The longest status line and headers, in bytes: what HAProxy takes of its checks
/// (tune.bufsize), and no service sends by mistake.
pub const HEAD_LIMIT: usize = 16 * 1024;

/// The longest answer, in bytes: a head, and the 10 KiB of a body that --expect-body
/// searches, in chunks of one byte.
const ANSWER_LIMIT: usize = HEAD_LIMIT + 10 * 1024 * "1\r\nx\r\n".len();

/// How much of an answer is read after the outcome, in bytes.
const REST_LIMIT: usize = 10 * 1024;

/// What is true of an exchange between two runs of ureq.
#[derive(Debug, Default)]
pub struct Exchange {
    /// When the probe has taken too long; none = it has not begun.
    deadline: Option<Instant>,
    /// When the loop wants to be back.
    beat: Option<Instant>,
    stream: Option<TcpStream>,
    is_connected: bool,
    /// How many addresses have failed, and why the first did.
    failed: usize,
    failure: Option<String>,
    /// How many bytes of the request the service has, and ureq has produced in this run.
    sent: usize,
    produced: usize,
    output: Vec<u8>,
    /// What has arrived of the answer.
    input: Vec<u8>,
    /// Whether ureq may see it: its head is whole, or will never be.
    is_ready: bool,
    /// How many bytes of it ureq has seen and used in this run.
    seen: usize,
    used: usize,
    /// Whether ureq could use any when it looked last.
    progress: bool,
}

impl Exchange {
    /// Lets ureq run for up to `time`, from the start of the request. The first run
    /// begins the exchange, which has `timeout` for all of it.
    pub fn run(&mut self, time: Duration, timeout: Duration) {
        let now = Instant::now();
        if self.deadline.is_none() {
            self.clear();
        }
        self.deadline.get_or_insert(now + timeout);
        self.beat = now.checked_add(time);
        (self.produced, self.seen, self.used) = (0, 0, 0);
        self.progress = false;
        self.output.resize(HEAD_LIMIT, 0);
    }

    /// Ends it, but for its connection. True if its time was over.
    pub fn end(&mut self) -> bool {
        let is_late = self.is_late();
        self.deadline = None;
        is_late
    }

    fn is_late(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether so many bytes after the head have arrived: then there is no rest to wait for.
    pub fn has(&self, length: usize) -> bool {
        self.input.len() - self.used >= length
    }

    /// Reads the rest of the answer for up to `time`, and ends. A service whose client
    /// closes while it still writes logs a broken pipe (60 tracebacks in 60 probes from
    /// Python's server with a body in four writes).
    pub fn hang_up(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut rest = if time.is_zero() { 0 } else { REST_LIMIT };
        let mut chunk = [0; 4096];
        while let Some(mut stream) = self.stream.as_ref().filter(|_| rest > 0) {
            let size = rest.min(chunk.len());
            match stream.read(&mut chunk[..size]) {
                Ok(length @ 1..) => rest -= length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if !sys::wait(stream, POLLIN, left).unwrap_or(false) {
                        break;
                    }
                }
                _ => break,
            }
        }
        self.clear();
    }

    /// Closes the connection and forgets everything. The buffers stay: musl would map and
    /// unmap them in every probe.
    fn clear(&mut self) {
        self.input.clear();
        *self = Exchange {
            output: mem::take(&mut self.output),
            input: mem::take(&mut self.input),
            ..Exchange::default()
        };
    }

    /// Waits for the connection, until the deadline (an error that names `reason`) or the
    /// beat (`WouldBlock`).
    fn wait(&self, events: i16, reason: Timeout) -> Result<(), Error> {
        let now = Instant::now();
        let (Some(stream), Some(deadline)) = (&self.stream, self.deadline) else {
            return Err(Error::Io(ErrorKind::NotConnected.into()));
        };
        if now >= deadline {
            return Err(Error::Timeout(reason));
        }
        let end = self.beat.unwrap_or(deadline).min(deadline);
        match sys::wait(stream, events, end.saturating_duration_since(now)) {
            Ok(true) => Ok(()),
            Ok(false) if self.is_late() => Err(Error::Timeout(reason)),
            // The beat, or a signal, which the loop wants to see.
            Ok(false) => Err(Error::Io(ErrorKind::WouldBlock.into())),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                Err(Error::Io(ErrorKind::WouldBlock.into()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the first address all the time there is, and tries the next only if nothing
    /// can be listening on the first. ureq's own connector gives each address a share of
    /// the time (one lost SYN, and half of --timeout failed a healthy service), reports
    /// the last error (without IPv6, "Address family not supported" for a service that is
    /// down on 127.0.0.1), and does not expose its socket.
    fn connect(&mut self, addresses: &[SocketAddr]) -> Result<(), Error> {
        while let Some(&address) = addresses.get(self.failed).filter(|_| !self.is_connected) {
            let connected = self.connect_to(address)?;
            self.is_connected = connected.is_ok();
            if let Err(failure) = connected {
                self.stream = None;
                self.failed = if failure.is_nobody {
                    self.failed + 1
                } else {
                    usize::MAX
                };
                self.failure.get_or_insert(failure.sentence);
            }
        }
        match &self.failure {
            Some(sentence) if !self.is_connected => Err(Error::Other(sentence.clone().into())),
            _ => Ok(()),
        }
    }

    fn connect_to(&mut self, address: SocketAddr) -> Result<Result<(), Failure>, Error> {
        if self.stream.is_none() {
            match sys::connect(address) {
                Ok(socket) => self.stream = Some(socket.into()),
                Err(error) => return Ok(Err(Failure::new(address, &error))),
            }
        }
        self.wait(POLLOUT, Timeout::Connect)?;
        Ok(match &self.stream {
            Some(stream) => dial::check(stream, address),
            None => Ok(()),
        })
    }

    /// Sends what ureq has put into the output, unless an earlier run has.
    fn send(&mut self, amount: usize) -> Result<(), Error> {
        let end = self.produced + amount;
        while let Some(mut stream) = self.stream.as_ref().filter(|_| self.sent < end) {
            match stream.write(&self.output[self.sent - self.produced..amount]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(POLLOUT, Timeout::Global)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.produced = end;
        Ok(())
    }

    /// Shows ureq more of the answer: what an earlier run has received, or what comes next.
    /// False at its end.
    fn receive(&mut self) -> Result<bool, Error> {
        let mut chunk = [0; 4096];
        while !self.is_ready || self.seen == self.input.len() {
            self.wait(POLLIN, Timeout::Global)?;
            let Some(mut stream) = self.stream.as_ref() else {
                return Ok(false);
            };
            match stream.read(&mut chunk) {
                Ok(length @ 1..) if self.input.len() < ANSWER_LIMIT => {
                    self.input.extend_from_slice(&chunk[..length]);
                    self.is_ready = self.is_ready
                        || fold::unfold(&mut self.input)
                        || self.input.len() > HEAD_LIMIT;
                }
                Ok(_) => return Ok(false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.seen = self.input.len();
        Ok(true)
    }
}

impl Buffers for Exchange {
    fn output(&mut self) -> &mut [u8] {
        &mut self.output
    }

    fn input(&self) -> &[u8] {
        &self.input[self.used..self.seen]
    }

    fn input_consume(&mut self, amount: usize) {
        self.used += amount;
        self.progress = amount > 0;
    }

    fn can_use_input(&self) -> bool {
        self.seen > self.used && self.progress
    }

    /// ureq leaves the input to the transport, and this one fills it itself.
    fn input_append_buf(&mut self) -> &mut [u8] {
        &mut []
    }

    fn input_appended(&mut self, _: usize) {}

    /// Of a request's body, which a probe does not have.
    fn tmp_and_output(&mut self) -> (&mut [u8], &mut [u8]) {
        (&mut [], &mut self.output)
    }
}

/// Where the exchange is while ureq does not run.
#[derive(Debug, Clone, Default)]
pub struct Wire(Arc<Mutex<Exchange>>);

impl Wire {
    pub fn exchange(&self) -> MutexGuard<'_, Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connector for Wire {
    type Out = Connection;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<Connection>, Error> {
        let mut exchange = self.exchange();
        exchange.connect(&details.addrs)?;
        Ok(Some(Connection {
            exchange: mem::take(&mut exchange),
            wire: self.clone(),
        }))
    }
}

/// The exchange while ureq runs.
#[derive(Debug)]
pub struct Connection {
    exchange: Exchange,
    wire: Wire,
}

impl Drop for Connection {
    fn drop(&mut self) {
        *self.wire.exchange() = mem::take(&mut self.exchange);
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.exchange
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        self.exchange.send(amount)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        self.exchange.receive()
    }

    /// Whether another request may use the connection: each serves only one.
    fn is_open(&mut self) -> bool {
        false
    }
}
