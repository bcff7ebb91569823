//! The loop: probe, decide, set the port, then report. It acts through the [`World`]
//! trait, so that a test can script the service, the clock and the port; host.rs is the
//! real world.
//!
//! The port always comes first: nothing that can block (a log line, a datagram) stands
//! between a probe and the port.

use std::io;
use std::time::Duration;

use log::Level;

use crate::config::{BEAT, Config};
use crate::cycle::Cycle;
use crate::health::Health;
use crate::notify::{self, Updates};
use crate::ports::State;
use crate::probe::Outcome;
use crate::reason::reason;
use crate::report::Reporter;
use crate::signals::Wake;

/// A trait so that a test sees the order of the effects: the port before the log. It holds
/// everything the loop does that is not a decision; the methods are those of the parts
/// that host.rs puts together.
pub trait World {
    /// Time since some start; it never goes backwards.
    fn now(&self) -> Duration;
    fn probe(&mut self, time: Duration) -> Option<Outcome>;
    fn hang_up(&mut self, time: Duration);
    /// Why the port is drained, if it is.
    fn drained(&mut self) -> Option<String>;
    fn renew(&mut self) -> bool;
    fn set_port(&mut self, open: bool) -> Vec<State>;
    fn count(&mut self, cycle: &Cycle);
    /// Writes one line to the log; may block.
    fn log(&mut self, level: Level, line: &str);
    fn notify(&mut self, assignments: &str) -> io::Result<()>;
    fn sleep(&mut self, time: Duration) -> Wake;
    fn is_asked(&mut self) -> bool;
    /// How many checks were accepted, and how long ago the last one was.
    fn checks(&self) -> (u64, Option<Duration>);
}

/// Runs until a signal stops it. `watchdog` is WatchdogSec= of the unit.
pub fn run(config: &Config, watchdog: Option<Duration>, world: &mut impl World) {
    let mut daemon = Daemon {
        config,
        health: Health::new(config.rise, config.fall),
        reporter: Reporter::new(config),
        updates: Updates::new(watchdog),
        due: world.now(),
        beat_due: world.now(),
        last: None,
        proven: Duration::ZERO,
        drained: None,
        has_expired: false,
        world,
    };
    daemon.start(watchdog);
    loop {
        daemon.probe();
        if let Some(signal) = daemon.sleep() {
            return daemon.stop(signal);
        }
    }
}

struct Daemon<'a, W> {
    config: &'a Config,
    world: &'a mut W,
    health: Health,
    reporter: Reporter<'a>,
    updates: Updates,
    /// When the next probe and the next beat are due.
    due: Duration,
    beat_due: Duration,
    /// What the last probe found.
    last: Option<Outcome>,
    /// When a probe was last good.
    proven: Duration,
    /// Why the port was drained at the last beat, if it was.
    drained: Option<String>,
    /// The lease expired before the last beat.
    has_expired: bool,
}

impl<W: World> Daemon<'_, W> {
    fn start(&mut self, watchdog: Option<Duration>) {
        // Reserve the port. If the system refuses, say so before the first probe.
        let ports = self.world.set_port(false);
        for (level, line) in self.reporter.start(&ports) {
            self.world.log(level, &line);
        }
        if let Some(line) = notify::kills_before(watchdog, self.config.max_age) {
            self.world.log(Level::Warn, &line);
        }
    }

    /// One probe, and what follows from it.
    fn probe(&mut self) {
        // Check for the drain file before the probe: were its file system to block
        // afterwards, the answer would be stale by the time it is used.
        if self.beat() {
            self.settle(None);
        }
        let start = self.world.now();
        let took = loop {
            let time = self.beat_due.saturating_sub(self.world.now());
            if let Some(outcome) = self.world.probe(time) {
                self.last = Some(outcome);
                break Some(self.world.now() - start);
            }
            if self.world.is_asked() {
                self.report("");
            }
            // The service may hang for as long as --timeout, but the port must close.
            if self.world.now() >= self.beat_due && self.beat() {
                self.world.hang_up(Duration::ZERO);
                break None;
            }
        };
        self.settle(took);
        // Probes start one pace apart, without drift. A probe that overran is followed
        // at once by one probe, not by all that were missed.
        let pace = match self.health.progress() {
            (0, _) => self.config.interval,
            _ => self.config.fast_interval(),
        };
        let now = self.world.now();
        self.due = (self.due + pace).max(now);
        self.world.hang_up(self.due - now);
    }

    /// What is due at least every second, in the sleep and inside a probe. True if the
    /// port may have to change; then everything else waits for that.
    fn beat(&mut self) -> bool {
        let now = self.world.now();
        self.beat_due = now + BEAT;
        self.has_expired |= !self.world.renew();
        let drained = self.world.drained();
        let mut changed = drained.is_some() != self.drained.is_some();
        self.drained = drained;
        // Probes that end without a result, as when the drain file comes and goes while
        // the service hangs, must not keep the port open.
        if self.health.is_up() {
            let stale = self.proven + self.config.max_evidence();
            self.beat_due = self.beat_due.min(stale);
            if stale <= now {
                self.health.reset();
                self.last = Some(Outcome::stale(self.config.max_evidence()));
                changed = true;
            }
        }
        if changed || self.has_expired {
            return true;
        }
        self.inform();
        false
    }

    /// Sets the port as it must be, and then tells everybody. `took` is how long the probe
    /// took, if one has ended.
    fn settle(&mut self, took: Option<Duration>) {
        let outcome = self.last.as_ref();
        let good = outcome.is_some_and(Outcome::is_good);
        let counts = took.is_some();
        let expired = !self.world.renew() || self.has_expired;
        self.has_expired = false;
        if expired {
            self.health.reset();
        }
        if counts {
            self.health.observe(good);
        }
        if counts && good {
            self.proven = self.world.now();
        }
        let up = self.health.is_up();
        let ports = self.world.set_port(up && self.drained.is_none());

        // The port is as it must be. From here on anything may block: if it takes too
        // long, the lease expires and the port closes.
        let cycle = Cycle {
            now: self.world.now(),
            took,
            outcome,
            up,
            progress: self.health.progress(),
            drained: self.drained.as_deref(),
            expired,
            ports: &ports,
        };
        self.world.count(&cycle);
        for (level, line) in self.reporter.lines(&cycle) {
            self.world.log(level, &line);
        }
        if let Some(outcome) = outcome.filter(|_| counts) {
            let line = format!("probe: {}: {}", outcome.result, outcome.sentence);
            self.world.log(Level::Debug, &line);
        }
        self.inform();
    }

    /// Tells systemd what is due: nothing before the first probe has ended.
    fn inform(&mut self) {
        if self.last.is_none() {
            return;
        }
        let now = self.world.now();
        let status = &self.reporter.status;
        if let Some(message) = self.updates.message(now, status) {
            match self.world.notify(&message) {
                Ok(()) => self.updates.sent(now, status),
                Err(error) if self.updates.failed(&error) => {
                    let line = format!("cannot notify systemd: {}", reason(&error));
                    self.world.log(Level::Warn, &line);
                }
                Err(_) => {}
            }
        }
    }

    /// Sleeps until the next probe is due, or a signal stops the program.
    fn sleep(&mut self) -> Option<&'static str> {
        loop {
            let wake = self.due.min(self.beat_due);
            match self.world.sleep(wake.saturating_sub(self.world.now())) {
                Wake::Time => {}
                Wake::Report => {
                    self.report("");
                    self.due = self.world.now();
                }
                Wake::Stop(signal) => return Some(signal),
            }
            let now = self.world.now();
            if now >= self.due {
                return None;
            }
            if now >= self.beat_due && self.beat() {
                self.settle(None);
            }
        }
    }

    /// Logs the status, with its counts, after these words.
    fn report(&mut self, words: &str) {
        let (checks, last) = self.world.checks();
        let now = self.world.now();
        let status = self.reporter.status_with_counts(now, checks, last);
        self.world.log(Level::Info, &format!("{words}{status}"));
    }

    fn stop(&mut self, signal: &str) {
        self.world.set_port(false);
        // If this fails it is not worth a log line: systemd sent the signal.
        let _ = self.world.notify("STOPPING=1\nSTATUS=stopping");
        self.report(&format!("{signal}: port closed, stopping; it was: "));
    }
}
