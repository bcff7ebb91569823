//! The switch: one real HAProxy with a port for every line under test. Its log says when
//! it stops sending to a node or starts again, and names every request that it lost.

use std::net::SocketAddr;

use crate::plan::{Check, FALL, INTER, Ports, RISE, Scale};

/// One way through the switch: a check, and how often it tries a refused connection
/// again. Most layer-4 switches never do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub check: Check,
    pub retries: u32,
}

pub fn lines(checks: &[Check], retries: &[u32]) -> Vec<Line> {
    let lines = checks.iter().flat_map(|&check| {
        let retries = retries.iter();
        retries.map(move |&retries| Line { check, retries })
    });
    lines.collect()
}

/// The whole configuration.
///
/// `retries 3` without `option redispatch` are HAProxy's defaults, written out because
/// the counts depend on them: HAProxy tries a refused connection three more times on the
/// same node, one second apart, before the request is lost. So one client loses at most
/// one request in 3 s (the slowest answer of the reference run took 3.0 s), and a switch
/// without retries loses many more. With redispatch the last try would go to another
/// node: fewer requests lost, but as slow. Between two tries HAProxy waits the smaller of
/// 1 s and `timeout connect`, which is 1 s here so that it shrinks with the scale.
pub fn config(
    lines: &[Line],
    port: impl Fn(usize) -> SocketAddr,
    nodes: &[Ports],
    scale: Scale,
) -> String {
    // `timeout server` is below hey's 20 s, so that a request without an answer is lost
    // here and logged with its node. With dontlog-normal only failures are logged. A
    // server that goes down keeps its established connections (no on-marked-down).
    let mut config = format!(
        "global
  nbthread 1
  log stdout format raw local0
defaults
  mode http
  log global
  option dontlog-normal
  no option redispatch
  timeout connect {connect}ms
  timeout client {client}ms
  timeout server {server}ms
  default-server inter {inter}ms rise {RISE} fall {FALL}
",
        connect = scale.millis(1.0),
        client = scale.millis(60.0),
        server = scale.millis(10.0),
        inter = scale.millis(INTER),
    );
    // The service behind the routers.
    config += &format!(
        "frontend hello
  bind {}
  timeout client 10m
  http-request return status 200 content-type text/plain string \"Hello World!\\n\"
",
        port(lines.len())
    );
    for (number, line) in lines.iter().enumerate() {
        // Status, termination and times, as `failure` reads them.
        config += &format!(
            "listen {number}
  retries {}
  bind {}
  log-format \"request %f %s %ST %ts %Ts.%ms %Ta\"
",
            line.retries,
            port(number)
        );
        config += match line.check {
            Check::Traffic | Check::Stats => "",
            Check::Http => "  option httpchk GET /healthz/ready\n  http-check expect status 200\n",
            // HAProxy's plain check is half-open: SYN, SYN-ACK, RST. healthport never
            // sees it, and so would never count it.
            Check::Healthport(..) => "  option tcp-check\n  tcp-check connect linger\n",
        };
        for (node, ports) in nodes.iter().enumerate() {
            let (http, port) = (ports.at(80), ports.checked(line.check).port());
            config += &format!("  server {node} {http} check port {port}\n");
        }
    }
    config
}

/// The switch began or stopped sending requests to a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Belief {
    pub at: f64,
    pub line: usize,
    pub node: usize,
    pub up: bool,
}

/// Reads a line of the switch's log.
pub fn belief(line: &str, at: f64) -> Option<Belief> {
    let (server, state) = line.strip_prefix("Server ")?.split_once(" is ")?;
    let (line, node) = server.split_once('/')?;
    let up = state.starts_with("UP");
    (up || state.starts_with("DOWN")).then_some(())?;
    Some(Belief {
        at,
        line: line.parse().ok()?,
        node: node.parse().ok()?,
        up,
    })
}

/// A request that the switch lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub line: usize,
    /// Nothing if there was no node left to send it to.
    pub node: Option<usize>,
    /// What the client got; -1 if the answer broke off.
    pub status: i32,
    /// HAProxy's termination state: which side ended it, and in what phase.
    pub why: String,
    /// When it came, in seconds since 1970, and how long it took.
    pub at: f64,
    pub took: f64,
}

/// Reads a line of the switch's log. Nothing if a retry succeeded, or if the client gave
/// up: hey does so when it is stopped.
pub fn failure(line: &str) -> Option<Failure> {
    let words: Vec<_> = line.split(' ').collect();
    let ["request", line, node, status, why, at, took] = words[..] else {
        return None;
    };
    let status = status.parse().ok()?;
    let gave_up = why.starts_with(['-', 'C', 'c']);
    (status >= 500 || (status < 200 && !gave_up)).then_some(())?;
    Some(Failure {
        line: line.parse().ok()?,
        node: node.parse().ok(),
        status,
        why: why.to_string(),
        at: at.parse().ok()?,
        took: took.parse::<f64>().ok()? / 1000.0,
    })
}
