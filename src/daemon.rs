//! The loop: probe, decide, set the port, then report. It acts through the [`World`]
//! trait, so that a test can script the service, the clock and the port; [`Host`] is
//! the real world.
//!
//! The port always comes first: nothing that can block (a log line, a datagram) stands
//! between the verdict and the port.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use crate::config::Config;
use crate::cycle::Cycle;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::notify::{self, Notify, Updates};
use crate::ports::{Ports, State};
use crate::probe::{Outcome, Prober};
use crate::report::Reporter;
use crate::signals::{Signals, Wake};

/// The longest sleep at a stretch.
const BEAT: Duration = Duration::from_secs(1);

/// Everything the loop does that is not a decision.
pub trait World {
    /// Time since some start; it never goes backwards.
    fn now(&self) -> Duration;
    /// One probe, within --timeout.
    fn probe(&mut self) -> Outcome;
    /// Why the port is drained, if it is.
    fn drained(&mut self) -> Option<String>;
    /// [`Ports::renew`].
    fn renew(&mut self) -> bool;
    /// [`Ports::set`].
    fn set_port(&mut self, open: bool) -> Vec<State>;
    /// [`Metrics::count`].
    fn count(&mut self, cycle: &Cycle);
    /// Writes one line to the log; may block.
    fn log(&mut self, level: Level, line: &str);
    /// [`Notify::send`].
    fn notify(&mut self, assignments: &str) -> io::Result<()>;
    /// [`Signals::sleep`].
    fn sleep(&mut self, time: Duration) -> Wake;
}

/// Runs until a signal stops it. `watchdog` is [`Notify::watchdog`].
pub fn run(config: &Config, watchdog: Option<Duration>, world: &mut impl World) {
    let mut health = Health::new(config.rise, config.fall);
    let mut reporter = Reporter::new(config);
    let mut updates = Updates::new(watchdog);
    // Reserve the port. If the system refuses, say so before the first probe.
    for (level, line) in reporter.start(&world.set_port(false)) {
        world.log(level, &line);
    }
    if let Some(line) = notify::kills_before(watchdog, config.max_age) {
        world.log(Level::Warn, &line);
    }

    let mut due = world.now();
    loop {
        // Look before the probe: if the file system blocks afterwards, the answer is
        // stale by the time it is used.
        let drained = world.drained();
        let start = world.now();
        let outcome = world.probe();
        let took = world.now() - start;
        let lapsed = !world.renew();
        if lapsed {
            health.reset();
        }
        let up = health.observe(outcome.is_good());
        let ports = world.set_port(up && drained.is_none());

        // The port is as it must be. From here on anything may block: if it takes too
        // long, the lease expires and the port closes.
        let cycle = Cycle {
            now: world.now(),
            took,
            outcome: &outcome,
            up,
            progress: health.progress(),
            drained: drained.as_deref(),
            lapsed,
            ports: &ports,
        };
        world.count(&cycle);
        let lines = reporter.cycle(&cycle);
        for (level, line) in lines {
            world.log(level, &line);
        }
        world.log(
            Level::Debug,
            &format!("probe: {}: {}", outcome.result, outcome.sentence),
        );

        // Probes start one pace apart, without drift. A probe that overran is followed
        // at once by one probe, not by all that were missed.
        let pace = match health.progress() {
            (0, _) => config.interval,
            _ => config.fast_interval(),
        };
        due = (due + pace).max(world.now());
        match sleep_until(world, due, &mut updates, reporter.status()) {
            Wake::Time => {}
            Wake::Report => {
                let now = world.now();
                world.log(Level::Info, &reporter.account(now, 0, None));
                due = now;
            }
            Wake::Stop(signal) => {
                world.set_port(false);
                // If this fails it is not worth a log line: systemd sent the signal.
                let _ = world.notify("STOPPING=1\nSTATUS=stopping");
                let account = reporter.account(world.now(), 0, None);
                world.log(
                    Level::Info,
                    &format!("{signal}: port closed, stopping; it was: {account}"),
                );
                return;
            }
        }
    }
}

/// Sleeps until `due`, in pieces if the watchdog needs keep-alives meanwhile.
fn sleep_until(world: &mut impl World, due: Duration, updates: &mut Updates, status: &str) -> Wake {
    loop {
        let now = world.now();
        let sleep = due.saturating_sub(now).min(BEAT);
        if let Some(message) = updates.message(now, status) {
            match world.notify(&message) {
                Ok(()) => updates.sent(now, status),
                Err(error) if updates.failed(&error) => {
                    world.log(Level::Warn, &format!("cannot notify systemd: {error}"));
                }
                Err(_) => {}
            }
        }
        let wake = world.sleep(sleep);
        if wake != Wake::Time || world.now() >= due {
            return wake;
        }
    }
}

/// The machine that the program runs on.
#[derive(Debug)]
pub struct Host {
    start: Instant,
    prober: Prober,
    ports: Ports,
    metrics: Arc<Metrics>,
    drain_file: Option<PathBuf>,
    notify: Notify,
    signals: Signals,
}

impl Host {
    /// Assembles the parts; opens nothing.
    pub fn new(config: &Config, notify: Notify, signals: Signals) -> Host {
        let ports = Ports::new(&config.listen, config.max_age);
        Host {
            start: Instant::now(),
            prober: Prober::new(config),
            metrics: Arc::new(Metrics::new(&ports)),
            ports,
            drain_file: config.drain_file.clone(),
            notify,
            signals,
        }
    }

    /// The counters, for the responder.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }
}

impl World for Host {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn probe(&mut self) -> Outcome {
        self.prober.probe()
    }

    fn drained(&mut self) -> Option<String> {
        let path = self.drain_file.as_ref()?;
        match path.try_exists() {
            Ok(false) => None,
            Ok(true) => Some(format!("drained, {path:?} exists")),
            // When in doubt, close the port.
            Err(error) => Some(format!("drained, cannot check for {path:?}: {error}")),
        }
    }

    fn renew(&mut self) -> bool {
        self.ports.renew()
    }

    fn set_port(&mut self, open: bool) -> Vec<State> {
        self.ports.set(open)
    }

    fn count(&mut self, cycle: &Cycle) {
        self.metrics.count(cycle);
    }

    fn log(&mut self, level: Level, line: &str) {
        log::log!(target: "healthport", level, "{line}");
    }

    fn notify(&mut self, assignments: &str) -> io::Result<()> {
        self.notify.send(assignments)
    }

    fn sleep(&mut self, time: Duration) -> Wake {
        self.signals.sleep(time)
    }
}
