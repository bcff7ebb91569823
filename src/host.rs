//! The real world: everything that the loop does, on this machine.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use crate::config::Config;
use crate::cycle::Cycle;
use crate::daemon::World;
use crate::metrics::Metrics;
use crate::notify::Notify;
use crate::ports::{Ports, State};
use crate::probe::{Outcome, Prober};
use crate::reason::reason;
use crate::signals::{Signals, Wake};

/// The machine that the program runs on.
#[derive(Debug)]
pub struct Host {
    start: Instant,
    prober: Prober,
    ports: Ports,
    pub metrics: Arc<Metrics>,
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
}

impl World for Host {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn probe(&mut self, time: Duration) -> Option<Outcome> {
        self.prober.probe(time)
    }

    fn hang_up(&mut self, time: Duration) {
        self.prober.hang_up(time);
    }

    fn drained(&mut self) -> Option<String> {
        let path = self.drain_file.as_ref()?;
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // A symlink that points nowhere was put there too.
            Ok(_) => Some(format!("drained, {path:?} exists")),
            // When in doubt, close the port.
            Err(error) => {
                let reason = reason(&error);
                Some(format!("drained, cannot check for {path:?}: {reason}"))
            }
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

    fn is_asked(&mut self) -> bool {
        self.signals.is_asked()
    }

    fn checks(&self) -> (u64, Option<Duration>) {
        let connections = &self.ports.connections;
        (connections.count(), connections.since_last())
    }
}
