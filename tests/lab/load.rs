//! The load: one `hey` per line of the switch, with its own summary kept.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::plan::{Mode, Result, Scale};
use crate::process::Proc;
use crate::router::ROUTE;

/// How hard to push.
#[derive(Debug, Clone, Copy)]
pub struct Push {
    /// Requests per second of one hey; without it, as fast as it can.
    pub rate: Option<u32>,
    /// Stop by itself after this many answers.
    pub requests: Option<u64>,
}

/// `hey -c 2`, as in the reference run.
const WORKERS: u32 = 2;

/// A running hey.
#[derive(Debug)]
pub struct Load {
    proc: Proc,
    output: PathBuf,
    pub command: String,
}

impl Load {
    pub fn start(
        dir: &Path,
        name: &str,
        target: SocketAddr,
        mode: Mode,
        push: Push,
        scale: Scale,
    ) -> Result<Load> {
        // hey gives up after 20 s by default; it takes whole seconds.
        let limit = (20.0 * scale.0).ceil();
        // The lab ends it. The 6 h apply only if it fails to.
        let until = push.requests.map(|requests| format!("-n {requests}"));
        let until = until.unwrap_or("-z 6h".to_string());
        let rate = push.rate.map(|rate| rate.div_ceil(WORKERS));
        let rate = rate.map_or(String::new(), |rate| format!("-q {rate}"));
        // A layer-4 switch balances connections: with two that are kept open, two nodes
        // would get all requests, and nobody would miss the third.
        let close = match mode {
            Mode::Tcp => "-disable-keepalive",
            _ => "",
        };
        let args = format!(
            "-c {WORKERS} -t {limit} {until} {rate} {close} -host {ROUTE} http://{target}/"
        );
        let args: Vec<_> = args.split_whitespace().collect();
        // A name may be used again and `Proc` appends to its files, so remove the old
        // summary first.
        let output = dir.join(format!("{name}.out"));
        let _ = fs::remove_file(&output);
        Ok(Load {
            proc: Proc::spawn(dir, name, "hey".as_ref(), &args)?,
            output,
            command: format!("hey {}", args.join(" ")),
        })
    }

    pub fn has_ended(&mut self) -> bool {
        self.proc.ended().is_some()
    }

    /// Asks hey to end; it finishes its open requests.
    pub fn stop(&self) {
        self.proc.signal(Signal::INT);
    }

    /// Its summary, once it has ended.
    pub fn summary(mut self, limit: Duration) -> Result<Summary> {
        let deadline = Instant::now() + limit;
        while !self.has_ended() {
            if Instant::now() > deadline {
                return Err(format!("{} did not end within {limit:?}", self.proc.name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let text = fs::read_to_string(&self.output)
            .map_err(|error| format!("cannot read hey's summary: {error}"))?;
        summary(&text).ok_or(format!("hey printed no summary: {text:?}"))
    }
}

/// What hey found.
#[derive(Debug, Default)]
pub struct Summary {
    /// Answers by status.
    pub statuses: Vec<(u16, u64)>,
    /// Requests without an answer.
    pub errors: u64,
    /// Seconds.
    pub slowest: f64,
    /// As it printed it.
    pub text: String,
}

impl Summary {
    pub fn good(&self) -> u64 {
        self.count(|status| status == 200)
    }

    pub fn failed(&self) -> u64 {
        self.errors + self.count(|status| status != 200)
    }

    fn count(&self, wanted: impl Fn(u16) -> bool) -> u64 {
        let counted = self.statuses.iter().filter(|(status, _)| wanted(*status));
        counted.map(|(_, count)| count).sum()
    }
}

/// Reads hey's summary. The list of statuses says `[status] count`, the list of errors
/// `[count] error`.
pub fn summary(text: &str) -> Option<Summary> {
    let mut summary = Summary {
        text: text.trim().to_string(),
        ..Summary::default()
    };
    let mut section = "";
    for line in text.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["Slowest:", seconds, "secs"] => summary.slowest = seconds.parse().ok()?,
            ["Status", "code", ..] => section = "status",
            ["Error", "distribution:"] => section = "error",
            [status, count, "responses"] if section == "status" => {
                let status = status.trim_matches(['[', ']']).parse().ok()?;
                summary.statuses.push((status, count.parse().ok()?));
            }
            [count, ..] if section == "error" && count.starts_with('[') => {
                summary.errors += count.trim_matches(['[', ']']).parse::<u64>().ok()?;
            }
            _ => {}
        }
    }
    (!section.is_empty()).then_some(summary)
}
