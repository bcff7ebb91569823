//! The small HTTP responder behind --metrics-listen. It has a thread of its own:
//! what a client does there is of no concern to the loop and the port.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::gate;
use crate::metrics::Metrics;

/// For a whole exchange, from accept to close.
const DEADLINE: Duration = Duration::from_secs(1);

/// The longest request that is read, in bytes.
const REQUEST_LIMIT: usize = 8 * 1024;

/// How many clients are served at the same time. One by one, ten that say nothing
/// made a liveness probe wait for 10 s (measured), and the kubelet would have
/// killed a healthy process.
const CLIENTS: usize = 16;

/// Serves `GET /metrics` and `GET /livez` until the process ends, from a thread of
/// its own and one more for each client, as long as it is there.
///
/// # Errors
/// The system's, if it refuses the thread.
pub fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> io::Result<()> {
    let clients = Arc::new(());
    let responder = move || loop {
        let accepted = listener.accept();
        // Later ones wait in the backlog: each place is free after DEADLINE.
        while Arc::strong_count(&clients) > CLIENTS {
            thread::sleep(Duration::from_millis(10));
        }
        let (client, metrics) = (Arc::clone(&clients), Arc::clone(&metrics));
        let served = accepted.and_then(|(stream, _)| {
            thread::Builder::new()
                .name("client".to_string())
                .spawn(move || {
                    // A client that is gone or too slow is no error.
                    let _ = exchange(stream, &metrics);
                    drop(client);
                })
        });
        match served {
            Err(error) if !gate::is_passing(&error) => {
                // Descriptors or threads exhausted: at once again would spin.
                thread::sleep(Duration::from_millis(100));
            }
            _ => {}
        }
    };
    thread::Builder::new()
        .name("metrics".to_string())
        .spawn(responder)
        .map(drop)
}

fn exchange(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let end = Instant::now() + DEADLINE;
    let left = || match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut),
        left => Ok(Some(left)),
    };
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    let reply = loop {
        stream.set_read_timeout(left()?)?;
        let length = stream.read(&mut chunk)?;
        request.extend_from_slice(&chunk[..length]);
        match reply_to(&request) {
            None if length > 0 => {}
            None if request.is_empty() => return Ok(()), // a port scan
            None => break Reply::BadRequest,
            Some(reply) => break reply,
        }
    };
    let answer = reply.answer(metrics);
    let mut sent = 0;
    while sent < answer.len() {
        stream.set_write_timeout(left()?)?;
        sent += stream.write(&answer[sent..])?;
    }
    // What a refused client still sends would reset the connection before it
    // has read why.
    stream.shutdown(Shutdown::Write)?;
    while reply.is_refusal() {
        stream.set_read_timeout(left()?)?;
        if stream.read(&mut chunk)? == 0 {
            break;
        }
    }
    Ok(())
}

/// What a request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// The metrics.
    Metrics,
    /// Whether the loop makes progress.
    Livez,
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 431
    TooLarge,
}

/// The reply to what has come of a request so far; nothing while it may still
/// become a good one.
pub fn reply_to(request: &[u8]) -> Option<Reply> {
    // TLS, or whatever else, need not be waited for.
    if matches!(request, [first, ..] if !first.is_ascii_uppercase()) {
        return Some(Reply::BadRequest);
    }
    let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
        return (request.len() > REQUEST_LIMIT).then_some(Reply::TooLarge);
    };
    if end + 4 > REQUEST_LIMIT {
        return Some(Reply::TooLarge);
    }
    Some(route(&request[..end]).unwrap_or(Reply::BadRequest))
}

/// Nothing if the head of the request is not HTTP/1.
fn route(head: &[u8]) -> Option<Reply> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_http = target.starts_with('/') && matches!(version, "HTTP/1.0" | "HTTP/1.1");
    if !is_http
        || words.next().is_some()
        || lines.any(|line| line.find(':').is_none_or(|at| at == 0))
    {
        return None;
    }
    Some(match (method, target.split('?').next()?) {
        ("GET", "/metrics") => Reply::Metrics,
        ("GET", "/livez") => Reply::Livez,
        ("GET", _) => Reply::NotFound,
        _ => Reply::MethodNotAllowed,
    })
}

impl Reply {
    fn is_refusal(self) -> bool {
        matches!(self, Reply::BadRequest | Reply::TooLarge)
    }

    fn answer(self, metrics: &Metrics) -> Vec<u8> {
        let text;
        let (status, body) = match self {
            Reply::Metrics => {
                text = metrics.text();
                ("200 OK", text.as_str())
            }
            Reply::Livez if metrics.is_live() => ("200 OK", "ok\n"),
            Reply::Livez => ("503 Service Unavailable", "the loop stands still\n"),
            Reply::BadRequest => ("400 Bad Request", "not HTTP/1\n"),
            Reply::NotFound => ("404 Not Found", "try /metrics or /livez\n"),
            Reply::MethodNotAllowed => ("405 Method Not Allowed\r\nAllow: GET", "only GET\n"),
            Reply::TooLarge => ("431 Request Header Fields Too Large", "too large\n"),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        (head + body).into_bytes()
    }
}
