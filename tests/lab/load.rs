//! The load: one `hey` per line of the switch, with its own summary kept.

use std::net::SocketAddr;
use std::path::Path;

use crate::plan::{Result, Scale};
use crate::process::Proc;

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

/// Starts a hey.
pub fn start(dir: &Path, target: SocketAddr, push: Push, scale: Scale) -> Result<Proc> {
    // hey gives up after 20 s by default; it takes whole seconds.
    let limit = (20.0 * scale.0).ceil();
    // The lab ends it. The 6 h apply only if it fails to.
    let until = push.requests.map(|requests| format!("-n {requests}"));
    let until = until.unwrap_or("-z 6h".to_string());
    let rate = push
        .rate
        .map(|rate| format!(" -q {}", rate.div_ceil(WORKERS)));
    let rate = rate.unwrap_or_default();
    let args = format!("-c {WORKERS} -t {limit} {until}{rate} http://{target}/");
    eprintln!("hey {args}");
    Proc::spawn(dir, "hey", "hey", args.split(' '))
}

/// What hey found.
#[derive(Debug, Default)]
pub struct Summary {
    /// Answers of 200.
    pub good: u64,
    /// Other answers, and requests without an answer.
    pub failed: u64,
    /// Seconds.
    pub slowest: f64,
    /// As it printed it.
    pub text: String,
}

/// Reads hey's summary. The list of statuses says `[status] count responses`, the list of
/// errors, which comes after it, `[count] error`.
pub fn summary(text: &str) -> Option<Summary> {
    let mut summary = Summary {
        text: text.trim().to_string(),
        ..Summary::default()
    };
    let mut section = "";
    for line in text.lines() {
        let words = line.split([' ', '\t', '[', ']']);
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        match words[..] {
            ["Slowest:", seconds, "secs"] => summary.slowest = seconds.parse().ok()?,
            ["Status" | "Error", ..] => section = words[0],
            ["200", count, "responses"] => summary.good = count.parse().ok()?,
            [_, count, "responses"] => summary.failed += count.parse::<u64>().ok()?,
            [count, _, ..] if section == "Error" => summary.failed += count.parse::<u64>().ok()?,
            _ => {}
        }
    }
    (!section.is_empty()).then_some(summary)
}
