//! The nodes of a cluster, whose routers all write their configuration at the same moment:
//! which ports close although their routers serve. A router is a function from the time of
//! a probe to the time of its answer; the loop is the real one, and the system, the log
//! and the drain file do nothing here. Print the table with
//!
//!     cargo test --test simulation -- --nocapture fleet

use std::io;
use std::time::Duration;

use fastrand::Rng;
use healthport::config::Config;
use healthport::cycle::Cycle;
use healthport::daemon::{self, World};
use healthport::ports::State;
use healthport::probe::{Outcome, ProbeResult};
use healthport::signals::Wake;
use log::Level;

const HOUR: Duration = Duration::from_secs(3600);

/// One healthport and its router, which is always ready.
struct Node<'a, F> {
    config: &'a Config,
    /// From the time of a probe to how long its answer takes.
    answer: F,
    now: Duration,
    /// When the probe in flight is answered, and when it has taken too long.
    probe: Option<(Duration, Duration)>,
    /// How often since its last probe the loop has slept for no time at all.
    spins: u32,
    is_open: bool,
    closed: usize,
}

/// How often the port closed in an hour.
fn closes(config: &Config, answer: impl FnMut(Duration) -> Duration) -> usize {
    let mut node = Node {
        config,
        answer,
        now: Duration::ZERO,
        probe: None,
        spins: 0,
        is_open: false,
        closed: 0,
    };
    daemon::run(config, None, &mut node);
    // The last time, it was stopped.
    node.closed.checked_sub(1).expect("it never opened")
}

impl<F: FnMut(Duration) -> Duration> World for Node<'_, F> {
    fn now(&self) -> Duration {
        self.now
    }

    fn probe(&mut self, time: Duration) -> Option<Outcome> {
        let (now, timeout) = (self.now, self.config.timeout);
        let probe = match self.probe {
            Some(probe) => probe,
            None => (now + (self.answer)(now), now + timeout),
        };
        self.probe = Some(probe);
        let (answered, late) = probe;
        self.now = answered.min(late).min(now + time);
        if self.now < answered.min(late) {
            return None;
        }
        (self.probe, self.spins) = (None, 0);
        let result = match answered < late {
            true => ProbeResult::Ok,
            false => ProbeResult::Timeout,
        };
        Some(Outcome {
            result,
            status: None,
            sentence: String::new(),
        })
    }

    fn set_port(&mut self, open: bool) -> Vec<State> {
        self.closed += usize::from(self.is_open && !open);
        self.is_open = open;
        vec![if open { State::Open } else { State::Closed }]
    }

    fn sleep(&mut self, time: Duration) -> Wake {
        // Time passes only in probes and sleeps here: a loop that spins would never end.
        self.spins += u32::from(time.is_zero());
        assert!(self.spins < 2, "it spins");
        self.now += time;
        match self.now < HOUR {
            true => Wake::Time,
            false => Wake::Stop("SIGTERM"),
        }
    }

    fn hang_up(&mut self, _: Duration) {}

    fn drained(&mut self) -> Option<String> {
        None
    }

    fn renew(&mut self) -> bool {
        true
    }

    fn count(&mut self, _: &Cycle) {}

    fn log(&mut self, _: Level, _: &str) {}

    fn notify(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn is_asked(&mut self) -> bool {
        false
    }

    fn checks(&self) -> (u64, Option<Duration>) {
        (0, None)
    }
}

/// How long a busy router takes to write its configuration, in seconds, measured on the
/// real one; the last two lines are the longest that 0.15 ms a route, doubled, and doubled
/// again allow.
const WRITES: [(&str, [f64; 2]); 6] = [
    ("3,000", [0.26, 0.83]),
    ("10,000", [1.45, 3.6]),
    ("10,000 with 4 endpoints", [4.7, 9.0]),
    ("30,000", [5.4, 13.0]),
    ("40,000", [7.9, 17.2]),
    ("50,000", [9.0, 19.5]),
];

/// Five nodes for an hour. All write the same change at the same moment; the next change
/// follows 5 to 30 s after the end.
#[test]
fn fleet_with_the_defaults_keeps_every_ready_node_in() {
    const NODES: u64 = 5;
    let settings = |timeout, fall| Config {
        timeout: Duration::from_millis(timeout),
        fall,
        ..Config::default()
    };
    let settings = [Config::default(), settings(3_000, 2), settings(500, 1)];
    println!("| routes | writes | ports closed though ready: defaults | 3s, fall 2 | 500ms, 1 |");
    for (number, (routes, [least, most])) in WRITES.into_iter().enumerate() {
        let mut random = Rng::with_seed(number as u64);
        let mut writes = vec![(10.0, 10.0)];
        while let Some(&(_, end)) = writes.last().filter(|(begin, _)| *begin < 3540.0) {
            let begin = end + 5.0 + 25.0 * random.f64();
            writes.push((begin, begin + least + (most - least) * random.f64()));
        }
        let closed = settings.each_ref().map(|config| {
            let node = |node| {
                let mut random = Rng::with_seed(node);
                let answer = |at: Duration| {
                    let (at, latency) = (at.as_secs_f64(), 0.335 * random.f64());
                    let write = writes.partition_point(|(begin, _)| *begin <= at);
                    let wait = write.checked_sub(1).map_or(0.0, |last| writes[last].1 - at);
                    Duration::from_secs_f64(wait.max(0.0) + latency)
                };
                closes(config, answer)
            };
            (0..NODES).map(node).sum::<usize>()
        });
        let [defaults, shorter, shortest] = closed;
        let writes = writes.len() - 1;
        println!("| {routes} | {writes} | {defaults} | {shorter} | {shortest} |");
        assert_eq!(defaults, 0, "{routes} routes");
        // The simulation can tell: other settings fail.
        assert_eq!(shorter > 0, most > 6.0, "{routes} routes, 3s");
        assert!(shortest > 0, "{routes} routes, 500ms");
    }
}
