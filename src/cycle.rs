//! One cycle of the loop: the facts that the log, systemd and the metrics are told.

use std::time::Duration;

use crate::ports::State;
use crate::probe::Outcome;

/// The facts of one cycle of the loop.
#[derive(Debug)]
pub struct Cycle<'a> {
    /// Time since the program started.
    pub now: Duration,
    /// How long the probe took; none if no probe has ended since the cycle before.
    pub took: Option<Duration>,
    /// What the last probe found; none before the first has ended.
    pub outcome: Option<&'a Outcome>,
    /// The state, after rise and fall.
    pub up: bool,
    /// How many probes in a row contradict the state, and how many change it.
    pub progress: (u32, u32),
    /// Why the port is drained, if it is.
    pub drained: Option<&'a str>,
    /// Whether the lease had expired.
    pub expired: bool,
    /// The ports as they are now, in the order of --listen.
    pub ports: &'a [State],
}

impl Cycle<'_> {
    /// Whether the service or the drain file keeps the port closed, rather than an
    /// unfinished count or a system that refuses the port.
    pub fn keeps_closed(&self) -> bool {
        self.drained.is_some() || !self.up && !self.outcome.is_some_and(Outcome::is_good)
    }

    /// Why the port should be open or closed.
    pub fn reason(&self) -> String {
        let sentence = match self.outcome {
            Some(outcome) => outcome.sentence.as_str(),
            None => "no answer yet",
        };
        match (self.drained, self.progress) {
            (Some(drained), _) => drained.to_string(),
            (None, (0, _)) => sentence.to_string(),
            (None, (count, needed)) => format!("{sentence}, {count} of {needed} in a row"),
        }
    }
}
