//! The switch: one real HAProxy with a port for every line under test. Its stats socket
//! says what it believes of each node, its log every request that it lost.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::plan::{Check, FALL, INTER, Mode, Ports, RISE, Result, Scale};
use crate::process::{Proc, Tail};

/// One way through the switch: a check, and how traffic is forwarded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    pub check: Check,
    pub mode: Mode,
}

/// A running switch.
#[derive(Debug)]
pub struct Switch {
    pub proc: Proc,
    log: Tail,
    socket: PathBuf,
}

impl Switch {
    pub fn start(dir: &Path, config: &str) -> Result<Switch> {
        let file = dir.join("switch.cfg");
        fs::write(&file, config)
            .map_err(|error| format!("cannot write the switch's configuration: {error}"))?;
        let args = [OsStr::new("-db"), OsStr::new("-f"), file.as_os_str()];
        let proc = Proc::spawn(dir, "switch", OsStr::new("haproxy"), args)?;
        let log = Tail::open(&dir.join("switch.out"))?;
        Ok(Switch {
            proc,
            log,
            socket: socket(dir),
        })
    }

    /// What it believes of the nodes, and how much it has forwarded.
    pub fn stats(&mut self) -> Result<Vec<Row>> {
        self.proc.must_run()?;
        let ask = || {
            let mut stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.write_all(b"show stat\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = ask().map_err(|error: std::io::Error| format!("cannot ask the switch: {error}"));
        Ok(rows(&text?))
    }

    /// The requests that failed since the last call.
    pub fn failures(&mut self) -> Result<Vec<Failure>> {
        let lines = self.log.lines()?;
        Ok(lines.iter().filter_map(|line| failure(line)).collect())
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("switch.sock")
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
    dir: &Path,
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
  stats socket {socket} mode 600
defaults
  log global
  option dontlog-normal
  no option redispatch
  timeout connect {connect}ms
  timeout client {client}ms
  timeout server {server}ms
  default-server inter {inter}ms rise {RISE} fall {FALL}
",
        socket = socket(dir).display(),
        connect = scale.millis(1.0),
        client = scale.millis(60.0),
        server = scale.millis(10.0),
        inter = scale.millis(INTER),
    );
    for (number, line) in lines.iter().enumerate() {
        // Status, termination and times, as `failure` reads them.
        let (mode, retries, status, time) = match line.mode {
            Mode::Http => ("http", 3, "%ST", "%Ta"),
            Mode::Tcp => ("tcp", 3, "-", "%Tt"),
            Mode::NoRetry => ("http", 0, "%ST", "%Ta"),
        };
        config += &format!(
            "listen {number}
  mode {mode}
  retries {retries}
  bind {}
  log-format \"request %f %s {status} %ts %Ts.%ms {time}\"
",
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
            let (http, port) = (ports.http(), ports.checked(line.check).port());
            config += &format!("  server {node} {http} check port {port}\n");
        }
    }
    config
}

/// One row of `show stat`: a server, or the frontend of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub line: usize,
    /// Nothing for the frontend.
    pub node: Option<usize>,
    /// Whether requests are sent there.
    pub up: bool,
    /// Whether a check has ended yet.
    pub checked: bool,
    /// Sessions in `mode tcp`, requests in `mode http`.
    pub requests: u64,
}

/// Reads `show stat`. "UP 1/3" is a server on its way down that still gets
/// requests, "DOWN 1/2" one on its way up that does not.
pub fn rows(csv: &str) -> Vec<Row> {
    let mut lines = csv.lines();
    let header: Vec<_> = lines
        .next()
        .unwrap_or_default()
        .trim_start_matches("# ")
        .split(',')
        .collect();
    let row = |line: &str| {
        let cells: Vec<_> = line.split(',').collect();
        let cell = |name| {
            let column = header.iter().position(|&title| title == name)?;
            cells.get(column).copied()
        };
        let node = match cell("svname")? {
            "BACKEND" => return None,
            "FRONTEND" => None,
            node => Some(node.parse().ok()?),
        };
        let requests = match cell("req_tot")? {
            "" => cell("stot")?,
            requests => requests,
        };
        Some(Row {
            line: cell("pxname")?.parse().ok()?,
            node,
            up: cell("status")?.starts_with("UP"),
            checked: !matches!(cell("check_status")?, "" | "INI"),
            requests: requests.parse().unwrap_or(0),
        })
    };
    lines.filter_map(row).collect()
}

/// A request that the switch lost.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub line: usize,
    /// Nothing if there was no node left to send it to.
    pub node: Option<usize>,
    /// What the client got, in `mode http`.
    pub status: Option<u16>,
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
    let status = match status {
        "-" => None,
        status => Some(status.parse::<i32>().ok()?),
    };
    let failed = match status {
        Some(200..=499) => false,
        Some(500..) => true,
        _ => !why.starts_with(['-', 'C', 'c']),
    };
    failed.then_some(())?;
    Some(Failure {
        line: line.parse().ok()?,
        node: node.parse().ok(),
        status: status.and_then(|status| u16::try_from(status).ok()),
        why: why.to_string(),
        at: at.parse().ok()?,
        took: took.parse::<f64>().ok()? / 1000.0,
    })
}
