//! Turns one HTTP request into one Outcome. A probe always opens a new connection,
//! follows no redirect, uses no proxy and has one deadline for the whole exchange. The
//! opposite of each has made somebody's health check say ready for a service that was
//! not.

use std::cell::Cell;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use ureq::http::{HeaderValue, Request, header};
use ureq::{Agent, Error, Timeout};

use crate::config::Config;
use crate::dial::Addresses;
use crate::exchange::{HEAD_LIMIT, Wire};
use crate::reason::reason;

/// How much of the body --expect-body searches, in bytes (the kubelet's limit).
const BODY_LIMIT: usize = 10 * 1024;

/// How long the rest of an answer is waited for.
const REST: Duration = Duration::from_millis(100);

/// What kind of answer a probe got; the short code is for logs and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// An expected status (and body).
    Ok,
    /// Another status.
    Status,
    /// No connection.
    Connect,
    /// No complete answer in time.
    Timeout,
    /// No HTTP answer.
    Protocol,
    /// An expected status, but not the expected body.
    Body,
}

impl ProbeResult {
    /// In the order of their discriminants.
    pub const ALL: [ProbeResult; 6] = {
        use ProbeResult::*;
        [Ok, Status, Connect, Timeout, Protocol, Body]
    };
}

impl fmt::Display for ProbeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub result: ProbeResult,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// One line for people. It contains no times, so that two probes with the same
    /// finding have the same sentence.
    pub sentence: String,
}

impl Outcome {
    /// No probe has ended well for so long.
    pub fn stale(time: Duration) -> Outcome {
        Outcome {
            result: ProbeResult::Timeout,
            status: None,
            sentence: format!("no good answer for {time:?}"),
        }
    }

    pub fn is_good(&self) -> bool {
        self.result == ProbeResult::Ok
    }
}

#[derive(Debug)]
pub struct Prober {
    agent: Agent,
    wire: Wire,
    request: Request<()>,
    config: Config,
    /// How long the last answer's body is, if its head says so.
    length: Cell<Option<usize>>,
}

impl Prober {
    pub fn new(config: &Config) -> Prober {
        let mut request = Request::new(());
        *request.method_mut() = config.method.clone();
        *request.uri_mut() = config.url.clone();
        request
            .headers_mut()
            .append(header::CONNECTION, HeaderValue::from_static("close"));
        for (name, value) in &config.header {
            request.headers_mut().append(name, value.clone());
        }
        // Most defaults suit a client like a browser and are wrong for a probe. The
        // time limit is the exchange's.
        let agent = Agent::config_builder()
            .proxy(None) // else HTTP_PROXY from the environment
            .max_redirects(0) // else 10: a login page would look ready
            .max_redirects_will_error(false) // the redirect is the answer
            .http_status_as_error(false)
            .max_idle_connections(0) // a kept one would stay with the old process
            .user_agent(concat!("healthport/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("") // else an empty header
            .max_response_header_size(HEAD_LIMIT)
            .build();
        let wire = Wire::default();
        Prober {
            agent: Agent::with_parts(agent, wire.clone(), Addresses),
            wire,
            request,
            config: config.clone(),
            length: Cell::new(None),
        }
    }

    pub fn once(&self) -> Outcome {
        loop {
            // A signal may end a call early.
            if let Some(outcome) = self.probe(Duration::MAX) {
                return outcome;
            }
        }
    }

    /// Begins a probe, or goes on with it. Returns after `time` or earlier: with nothing
    /// if there is no result yet. Together the calls take no longer than --timeout,
    /// however the service behaves.
    pub fn probe(&self, time: Duration) -> Option<Outcome> {
        self.wire.exchange().run(time, self.config.timeout);
        let asked = self.ask();
        if matches!(&asked, Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock) {
            return None;
        }
        // If the process was stopped, the answer may have been true long ago although no
        // wait timed out.
        let is_late = self.wire.exchange().end();
        Some(match asked {
            Err(error) => self.failed(&error),
            Ok(outcome) if outcome.is_good() && is_late => {
                self.failed(&Error::Timeout(Timeout::Global))
            }
            Ok(outcome) => outcome,
        })
    }

    /// Ends the connection of the last probe: politely, in up to `time`, if the service
    /// has answered.
    pub fn hang_up(&self, time: Duration) {
        let mut exchange = self.wire.exchange();
        let is_whole = self
            .length
            .take()
            .is_some_and(|length| exchange.has(length));
        let rest = if is_whole { Duration::ZERO } else { REST };
        exchange.hang_up(time.min(rest));
    }

    fn ask(&self) -> Result<Outcome, Error> {
        let response = self.agent.run(self.request.clone())?;
        let status = response.status().as_u16();
        let length = response.headers().get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        self.length.set(length);
        let answered = |result, sentence| {
            Ok(Outcome {
                result,
                status: Some(status),
                sentence,
            })
        };
        if !self.config.expect_status.contains(status) {
            let expected = &self.config.expect_status;
            let sentence = format!("answered {status}, expected {expected}");
            return answered(ProbeResult::Status, sentence);
        }
        let Some(text) = &self.config.expect_body else {
            return answered(ProbeResult::Ok, format!("answered {status}"));
        };
        let is_encoded = response.headers().contains_key(header::CONTENT_ENCODING);
        match contains(response.into_body().into_reader(), text.as_bytes()) {
            Ok(true) => {
                let sentence = format!("answered {status} with the expected body");
                answered(ProbeResult::Ok, sentence)
            }
            Ok(false) => {
                let sentence = match is_encoded {
                    true => {
                        format!("answered {status}, but its encoded body does not contain {text:?}")
                    }
                    false => format!("answered {status}, but its body does not contain {text:?}"),
                };
                answered(ProbeResult::Body, sentence)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(error.into()),
            Err(error) => Ok(Outcome {
                status: Some(status),
                ..self.failed(&error.into())
            }),
        }
    }

    /// Turns an error of ureq into an Outcome; here all of them concern transport or
    /// protocol.
    fn failed(&self, error: &Error) -> Outcome {
        let timeout = self.config.timeout;
        let (result, sentence) = match error {
            Error::Timeout(Timeout::Connect) => (
                ProbeResult::Timeout,
                format!("no connection within {timeout:?}"),
            ),
            Error::Timeout(_) => (
                ProbeResult::Timeout,
                format!("no complete answer within {timeout:?}"),
            ),
            // Only exchange.rs makes these.
            Error::Other(sentence) => (ProbeResult::Connect, sentence.to_string()),
            error => (ProbeResult::Protocol, protocol(error)),
        };
        Outcome {
            result,
            status: None,
            // Should an error ever quote the other side, keep it on one line.
            sentence: sentence.replace(char::is_control, " "),
        }
    }
}

const CLOSED: &str = "closed the connection without a complete answer";

/// What is wrong with an answer, in the words of the system or of ureq.
fn protocol(error: &Error) -> String {
    let words = match error {
        Error::BodyStalled => return CLOSED.to_string(), // in the middle of a chunk
        Error::Io(error) if error.kind() == ErrorKind::UnexpectedEof => return CLOSED.to_string(),
        Error::Io(error) => return format!("connection lost: {}", reason(error)),
        Error::LargeResponseHeader(..) => {
            return format!("headers of more than {HEAD_LIMIT} bytes");
        }
        error => error.to_string(),
    };
    let reason = words.trim_start_matches("protocol: ");
    let reason = reason.trim_start_matches("http parse fail: ");
    let reason = reason.trim_start_matches("http parse resulted in ");
    let is_http = ![
        "invalid HTTP",
        "invalid response",
        "invalid status",
        "invalid token",
    ]
    .iter()
    .any(|words| reason.starts_with(words));
    match is_http {
        false => format!("no HTTP answer: {reason}"),
        _ if reason.starts_with("chunk") => {
            format!("an answer with a body that breaks the rules: {reason}")
        }
        _ => format!("an answer with a header that breaks the rules: {reason}"),
    }
}

/// Whether the first 10 KiB of a body contain `text`. Stops reading where it is found:
/// a service may say that it is ready without ending its body.
fn contains(body: impl Read, text: &[u8]) -> io::Result<bool> {
    let mut body = body.take(BODY_LIMIT as u64);
    let mut seen = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let length = body.read(&mut chunk)?;
        if length == 0 {
            return Ok(false);
        }
        // The text may have begun at the end of what was searched before.
        let from = seen.len().saturating_sub(text.len());
        seen.extend_from_slice(&chunk[..length]);
        if seen[from..]
            .windows(text.len())
            .any(|window| window == text)
        {
            return Ok(true);
        }
    }
}
