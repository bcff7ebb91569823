//! What the log and `systemctl status` say. Silent until something changes: one
//! line at the start, one for the first result, one for every change of the
//! port, one for a new reason while it is closed. Pure: facts in, lines out.

use std::time::Duration;

use log::Level;

use crate::config::Config;
use crate::gate::Port;
use crate::probe::Outcome;

/// The facts of one cycle of the loop.
#[derive(Debug)]
pub struct Cycle<'a> {
    /// Time since the start.
    pub now: Duration,
    /// How long the probe took.
    pub took: Duration,
    /// What the probe found.
    pub outcome: &'a Outcome,
    /// The verdict, after rise and fall.
    pub up: bool,
    /// How many probes in a row speak for another verdict, and how many it takes.
    pub progress: (u32, u32),
    /// Why the port is drained, if it is.
    pub drained: Option<&'a str>,
    /// Whether the lease had run out.
    pub lapsed: bool,
    /// The ports as they are now, in the order of --listen.
    pub ports: &'a [Port],
}

/// Remembers what was said.
#[derive(Debug)]
pub struct Reporter<'a> {
    config: &'a Config,
    ports: Vec<Port>,
    /// The reason for the closed port that was logged last.
    reason: String,
    state: String,
    since: Duration,
    probes: u64,
}

impl Reporter<'_> {
    /// Nothing is open yet.
    pub fn new(config: &Config) -> Reporter<'_> {
        Reporter {
            config,
            ports: vec![Port::Closed; config.listen.len()],
            reason: String::new(),
            state: "port closed: not probed yet".to_string(),
            since: Duration::ZERO,
            probes: 0,
        }
    }

    /// The line at the start.
    pub fn start(&self) -> String {
        let config = self.config;
        format!(
            "healthport {} probes {} every {:?}, fast {:?}, timeout {:?}, rise {}, fall {}; port {} closes within {:?} \
             of a bad answer, {:?} of a hang, opens within {:?} of a good answer; max-age {:?}",
            env!("CARGO_PKG_VERSION"),
            config.url,
            config.interval,
            config.fast_interval(),
            config.timeout,
            config.rise,
            config.fall,
            config.ports(),
            config.closes_after_bad(Duration::ZERO),
            config.closes_after_hang(Duration::ZERO),
            config.opens_after(Duration::ZERO),
            config.max_age(),
        )
    }

    /// The lines for ports that failed, or failed otherwise than before.
    pub fn refused(&mut self, ports: &[Port]) -> Vec<(Level, String)> {
        let before = std::mem::replace(&mut self.ports, ports.to_vec());
        let changed = before
            .iter()
            .zip(ports)
            .filter(|(before, port)| before != port);
        let interval = self.config.interval;
        let line = |(_, port): (&Port, &Port)| match port {
            Port::Failed(sentence) => Some((
                Level::Error,
                format!("port closed: {sentence}; next try in {interval:?}"),
            )),
            _ => None,
        };
        changed.filter_map(line).collect()
    }

    /// The lines for one cycle; none if nothing changed.
    pub fn cycle(&mut self, cycle: &Cycle) -> Vec<(Level, String)> {
        let mut lines = Vec::new();
        let first = self.probes == 0;
        self.probes += 1;

        if cycle.lapsed {
            let (max_age, rise) = (self.config.max_age(), self.config.rise);
            lines.push((Level::Error, format!(
                "port closed: no probe ended for --max-age {max_age:?}, the loop stood still; it opens after {rise} good in a row"
            )));
            self.ports.fill(Port::Closed);
            self.since = cycle.now;
        }

        let before = self.ports.clone();
        lines.extend(self.refused(cycle.ports));

        let why = why(cycle);
        let addresses = |changed: fn(&Port, &Port) -> bool| {
            let ports = before.iter().zip(cycle.ports).zip(&self.config.listen);
            let changed = ports.filter(|((before, now), _)| changed(before, now));
            let list: Vec<_> = changed.map(|(_, address)| address.to_string()).collect();
            list.join(", ")
        };
        let opened = addresses(|before, now| *before != Port::Open && *now == Port::Open);
        // One that failed has its line above.
        let closed = addresses(|before, now| *before == Port::Open && *now == Port::Closed);
        let for_time = words(cycle.now.saturating_sub(self.since));
        if !opened.is_empty() {
            lines.push((
                Level::Info,
                format!("port open on {opened}: {why} (closed for {for_time})"),
            ));
            self.reason.clear();
        } else if !closed.is_empty() {
            lines.push((
                Level::Info,
                format!("port closed on {closed}: {why} (open for {for_time})"),
            ));
        } else if cycle.is_refused() && self.reason != why {
            let still = if first { "" } else { "still " };
            lines.push((Level::Info, format!("port {still}closed: {why}")));
        }
        if cycle.is_refused() {
            self.reason.clone_from(&why);
        }
        if before.contains(&Port::Open) != cycle.ports.contains(&Port::Open) {
            self.since = cycle.now;
        }

        let failed: Vec<_> = cycle.ports.iter().filter_map(failure).collect();
        let open = addresses(|_, now| *now == Port::Open);
        self.state = match (open.as_str(), failed.join("; ").as_str()) {
            ("", "") => format!("port closed: {why}"),
            ("", failed) => format!("port closed: {failed}"),
            (_, "") => format!("port open: {why}"),
            // Not the words of a change, which SIGUSR1 would put into the log.
            (open, failed) => format!("port open, but only on {open}: {failed}"),
        };
        lines
    }

    /// The state in words, for STATUS=.
    pub fn status(&self) -> &str {
        &self.state
    }

    /// The state in more words, for SIGUSR1 and the last line.
    pub fn account(&self, now: Duration) -> String {
        let time = words(now.saturating_sub(self.since));
        format!(
            "{} (for {time}; {} probes in {})",
            self.state,
            self.probes,
            words(now)
        )
    }
}

impl Cycle<'_> {
    /// Whether the service or the drain file keeps the port closed, rather than
    /// a count that is not full yet or a system that refuses the port.
    fn is_refused(&self) -> bool {
        self.drained.is_some() || !self.up && !self.outcome.is_good()
    }
}

fn failure(port: &Port) -> Option<&str> {
    match port {
        Port::Failed(sentence) => Some(sentence),
        _ => None,
    }
}

/// Why the port should be as it is.
fn why(cycle: &Cycle) -> String {
    let sentence = &cycle.outcome.sentence;
    match (cycle.drained, cycle.progress) {
        (Some(drained), _) => drained.to_string(),
        (None, (0, _)) => sentence.clone(),
        (None, (count, needed)) => format!("{sentence}, {count} of {needed} in a row"),
    }
}

/// A duration as people say it.
fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}.{}s", time.subsec_millis() / 100),
        (0, 0, _) => format!("{minutes}m {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}
