//! The small HTTP responder behind --metrics-listen. One thread serves all clients in
//! turn and waits for none of them. Nothing that they do affects the loop or the port,
//! nor does an address that cannot be bound.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::accept::{BACKLOG, is_transient};
use crate::metrics::Metrics;
use crate::reason::reason;
use crate::sys::{self, POLLIN, SO_REUSEADDR};

/// The limit for a whole exchange, from accept to close.
const DEADLINE: Duration = Duration::from_secs(1);

/// The longest request that is read, in bytes.
const REQUEST_LIMIT: usize = 8 * 1024;

/// How many clients there can be. One more replaces the client that has been silent
/// longest. If it had to wait for a place instead, a stranger who opens connections and
/// says nothing could keep the kubelet's liveness probe waiting and have the pod killed.
/// At 1,000 connects a second, each has 64 ms to send something.
const CLIENTS: usize = 64;

/// How often the clients are checked while no new one connects.
const TICK: Duration = Duration::from_millis(2);

/// Serves /metrics, /livez and /readyz until the process ends, from a thread of its
/// own. If the address cannot be bound, the thread retries every `interval`.
///
/// That thread writes to the log and may block there, holding the lock on standard
/// error. The loop needs that lock only for a line of its own, which the same full pipe
/// would block anyway.
///
/// # Errors
/// The system's, if it refuses the thread.
pub fn serve(address: SocketAddr, interval: Duration, metrics: Arc<Metrics>) -> io::Result<()> {
    let responder = move || {
        let listener = listen(address, interval);
        respond(&listener, &metrics);
    };
    thread::Builder::new()
        .name("metrics".to_string())
        .spawn(responder)
        .map(drop)
}

fn listen(address: SocketAddr, interval: Duration) -> TcpListener {
    let mut logged = String::new();
    loop {
        let listening = sys::socket(address, &[SO_REUSEADDR]).and_then(|socket| {
            sys::bind(&socket, address)?;
            // When the backlog of 128 of `std` was full, a liveness probe had to send its
            // SYN a second time.
            sys::listen(&socket, BACKLOG)?;
            Ok(socket.into())
        });
        let error = match listening {
            Ok(listening) => {
                if !logged.is_empty() {
                    log::info!(target: "healthport", "metrics served on {address}");
                }
                return listening;
            }
            Err(error) => reason(&error),
        };
        if error != logged {
            log::error!(
                target: "healthport",
                "cannot serve metrics on {address}: {error}; next try in {interval:?}"
            );
            logged = error;
        }
        thread::sleep(interval);
    }
}

fn respond(listener: &TcpListener, metrics: &Metrics) {
    let mut clients: Vec<Client> = Vec::new();
    let mut looked = Instant::now();
    loop {
        let wait = if clients.is_empty() {
            Duration::MAX
        } else {
            TICK
        };
        let accepted = sys::wait(listener, POLLIN, wait).and_then(|_| listener.accept());
        match accepted.and_then(|(stream, _)| Client::new(stream)) {
            // Most clients have sent their request by now, and need not be kept.
            Ok(mut client) => {
                if client.advance(metrics) {
                    if clients.len() == CLIENTS {
                        let silent = (0..CLIENTS).min_by_key(|&at| clients[at].heard);
                        // It may have sent its request since it was last checked.
                        clients.swap_remove(silent.unwrap_or(0)).advance(metrics);
                    }
                    clients.push(client);
                }
            }
            Err(error) if is_transient(&error) => {}
            // Out of descriptors: accepting again at once would spin.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
        // Not after every connect: at 800 connects a second that took 5.3 % of a core
        // instead of 3.0 %.
        if looked.elapsed() >= TICK {
            clients.retain_mut(|client| client.advance(metrics));
            looked = Instant::now();
        }
    }
}

struct Client {
    stream: TcpStream,
    connected: Instant,
    /// When it last sent something, or connected.
    heard: Instant,
    request: Vec<u8>,
    reply: Option<Reply>,
    /// The part of the answer that has not been sent.
    answer: Vec<u8>,
}

impl Client {
    fn new(stream: TcpStream) -> io::Result<Client> {
        stream.set_nonblocking(true)?;
        let now = Instant::now();
        Ok(Client {
            stream,
            connected: now,
            heard: now,
            request: Vec::new(),
            reply: None,
            answer: Vec::new(),
        })
    }

    /// Takes the exchange as far as it gets without waiting. False if the client can be
    /// dropped: it was served, is gone or was too slow.
    fn advance(&mut self, metrics: &Metrics) -> bool {
        let blocks = |error: io::Error| error.kind() == ErrorKind::WouldBlock;
        self.connected.elapsed() < DEADLINE && self.exchange(metrics).is_err_and(blocks)
    }

    /// # Errors
    /// `WouldBlock` if the exchange is not over; any other means that the client is
    /// gone.
    fn exchange(&mut self, metrics: &Metrics) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while self.reply.is_none() {
            let length = self.stream.read(&mut chunk)?;
            self.heard = Instant::now();
            self.request.extend_from_slice(&chunk[..length]);
            let reply = match reply_to(&self.request) {
                None if length > 0 => continue,
                None if self.request.is_empty() => return Ok(()), // a port scan
                None => Reply::BadRequest,
                Some(reply) => reply,
            };
            self.answer = reply.answer(metrics);
            if self.request.starts_with(b"HEAD ") {
                // Whatever the status, the body is only announced (RFC 9110, 9.3.2).
                let end = self.answer.windows(4).position(|four| four == b"\r\n\r\n");
                self.answer.truncate(end.map_or(0, |end| end + 4));
            }
            self.reply = Some(reply);
        }
        while !self.answer.is_empty() {
            let sent = self.stream.write(&self.answer)?;
            self.answer.drain(..sent);
        }
        // Read what the client of a bad request still sends: unread, it would reset the
        // connection before the client has read why. Only one chunk at a time, since other clients
        // wait.
        self.stream.shutdown(Shutdown::Write)?;
        if self.reply == Some(Reply::BadRequest) && self.stream.read(&mut chunk)? > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    Metrics,
    Livez,
    Readyz,
    /// 400, too long requests and other methods included.
    BadRequest,
    NotFound,
}

/// The reply to what has arrived of a request; nothing while it may still become valid.
pub fn reply_to(request: &[u8]) -> Option<Reply> {
    // TLS or some other protocol: do not wait for the rest.
    if matches!(request, [first, ..] if !first.is_ascii_uppercase()) {
        return Some(Reply::BadRequest);
    }
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
        return (request.len() > REQUEST_LIMIT).then_some(Reply::BadRequest);
    };
    let head = request.get(..end).filter(|_| end + 4 <= REQUEST_LIMIT);
    Some(head.and_then(route).unwrap_or(Reply::BadRequest))
}

/// Nothing if it is not a GET or HEAD of HTTP/1. Only the request line decides, never the headers.
fn route(head: &[u8]) -> Option<Reply> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_http = matches!(method, "GET" | "HEAD") && matches!(version, "HTTP/1.0" | "HTTP/1.1");
    if !is_http || words.next().is_some() {
        return None;
    }
    // A server must take the absolute form too, whatever its host (RFC 9112, 3.2.2).
    let target = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => {
            &rest[rest.find(['/', '?']).unwrap_or(rest.len())..]
        }
        _ if target.starts_with('/') => target,
        _ => return None,
    };
    Some(match target.split('?').next()? {
        "/metrics" => Reply::Metrics,
        "/livez" => Reply::Livez,
        "/readyz" => Reply::Readyz,
        _ => Reply::NotFound,
    })
}

impl Reply {
    fn answer(self, metrics: &Metrics) -> Vec<u8> {
        let text;
        let (status, body) = match self {
            Reply::Metrics => {
                text = metrics.text();
                ("200 OK", text.as_str())
            }
            Reply::Livez if metrics.is_live() => ("200 OK", "ok\n"),
            Reply::Livez => ("503 Service Unavailable", "the loop stands still\n"),
            Reply::Readyz if metrics.is_open() => ("200 OK", "the port is open\n"),
            Reply::Readyz => ("503 Service Unavailable", "the port is closed\n"),
            Reply::BadRequest => ("400 Bad Request", "not a GET or HEAD of HTTP/1 in 8 KiB\n"),
            Reply::NotFound => ("404 Not Found", "try /metrics, /livez or /readyz\n"),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        (head + body).into_bytes()
    }
}
