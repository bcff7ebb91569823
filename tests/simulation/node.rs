//! One healthport and its service, a function from the time of a probe to its answer.
//! The result is when the port was open. The loop is the real one; the system, the log
//! and the drain file do nothing here.

use std::io;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use healthport::config::Config;
use healthport::cycle::Cycle;
use healthport::daemon::{self, World};
use healthport::ports::State;
use healthport::probe::{Outcome, ProbeResult};
use healthport::signals::Wake;
use log::Level;

/// The answer to a probe.
#[derive(Default)]
pub struct Answer {
    /// How long it takes; the probe waits no longer than --timeout.
    pub after: Duration,
    pub good: bool,
    /// How long healthport then stalls.
    pub stall: Duration,
}

/// When the port opened (true) and closed.
pub type Changes = Vec<(Duration, bool)>;

struct Node<'a, F> {
    config: &'a Config,
    life: Range<Duration>,
    answer: F,
    now: Duration,
    /// The loop holds a listener, whether or not its lease has expired.
    held: bool,
    lease: Duration,
    /// How often since its last probe the loop has slept for no time at all.
    spins: u32,
    changes: Changes,
}

/// Runs a healthport with this service for its whole life; at its end the port closes.
pub fn port(
    config: &Config,
    life: Range<Duration>,
    answer: impl FnMut(Duration) -> Answer,
) -> Changes {
    let mut node = Node {
        config,
        now: life.start,
        life: life.clone(),
        answer,
        held: false,
        lease: life.start + config.max_age,
        spins: 0,
        changes: Vec::new(),
    };
    daemon::run(config, None, &mut node);
    // A probe in flight does not delay the end.
    let mut changes = node.changes;
    changes.retain(|&(at, _)| at < life.end);
    turn(&mut changes, life.end, false);
    changes
}

fn turn(changes: &mut Changes, at: Duration, open: bool) {
    if changes.last().is_some_and(|&(_, open)| open) != open {
        changes.push((at, open));
    }
}

impl<F> Node<'_, F> {
    fn pass(&mut self, time: Duration) {
        self.now += time;
        // As in ports.rs, the lease is over at the very instant at which it expires.
        if self.lease <= self.now {
            turn(&mut self.changes, self.lease, false);
        }
    }
}

impl<F: FnMut(Duration) -> Answer> World for Node<'_, F> {
    fn now(&self) -> Duration {
        self.now
    }

    fn probe(&mut self) -> Outcome {
        self.spins = 0;
        let answer = (self.answer)(self.now);
        let timeout = self.config.timeout;
        self.pass(answer.after.min(timeout) + answer.stall);
        let result = match answer.good {
            _ if answer.after >= timeout => ProbeResult::Timeout,
            true => ProbeResult::Ok,
            false => ProbeResult::Status,
        };
        Outcome {
            result,
            status: None,
            sentence: String::new(),
        }
    }

    fn drained(&mut self) -> Option<String> {
        None
    }

    fn renew(&mut self) -> bool {
        let in_time = self.lease > self.now || !self.held;
        self.lease = self.now + self.config.max_age;
        in_time
    }

    fn set_port(&mut self, open: bool) -> Vec<State> {
        turn(&mut self.changes, self.now, open);
        self.held = open;
        vec![if open { State::Open } else { State::Closed }]
    }

    fn count(&mut self, _: &Cycle) {}

    fn log(&mut self, _: Level, _: &str) {}

    fn notify(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sleep(&mut self, time: Duration) -> Wake {
        // Time passes only in probes and sleeps here: a loop that spins would never end.
        self.spins += u32::from(time.is_zero());
        assert!(self.spins < 2, "it spins");
        self.pass(time);
        match self.now < self.life.end {
            true => Wake::Time,
            false => Wake::Stop("SIGTERM"),
        }
    }
}

/// The settings that were published first, which closed the port of routers that
/// were ready (CHANGELOG.md, "Changed").
pub fn first_published() -> Config {
    Config {
        timeout: Duration::from_millis(500),
        fall: 1,
        ..Config::default()
    }
}

/// The smallest step of time.
const STEP: Duration = Duration::from_nanos(1);
const MINUTE: Duration = Duration::from_secs(60);

/// How often the port closes in a minute.
fn closes(config: &Config, answer: impl FnMut(Duration) -> Answer) -> usize {
    let changes = port(config, Duration::ZERO..MINUTE, answer);
    let closes = changes.iter().filter(|&&(at, open)| !open && at < MINUTE);
    assert!(!changes.is_empty(), "it never opened");
    closes.count()
}

fn good(after: Duration) -> Answer {
    Answer {
        after,
        good: true,
        ..Answer::default()
    }
}

/// Like a router with 10,000 routes that writes its configuration again and again.
#[test]
fn one_late_answer_in_five_never_closes() {
    let mut published = 0;
    for seed in 0..1_000 {
        let service = || {
            let mut random = Rng::with_seed(seed);
            move |_| {
                let late = random.u8(..5) == 0;
                let micros = if late {
                    1_000_000..=1_900_000
                } else {
                    500..=2_000
                };
                good(Duration::from_micros(random.u64(micros)))
            }
        };
        let false_closes = closes(&Config::default(), service());
        assert_eq!(false_closes, 0, "closes, seed {seed}");
        published += closes(&first_published(), service());
    }
    println!("1000 minutes: 0 closes, as first published {published}");
    assert!(published > 1_000);
}

/// The reason for --fall 2: while the service writes its configuration it is ready but
/// late. That may take up to twice the timeout, and a probe may come at any moment of it.
#[test]
fn two_timeouts_in_a_row_close_and_nothing_less() {
    let config = Config {
        max_age: MINUTE,
        ..Config::default()
    };
    let closes_in = |writing: Duration, begin: Duration| {
        let end = begin + writing;
        let writes = begin..end;
        closes(&config, move |at| {
            good(if writes.contains(&at) { end - at } else { STEP })
        })
    };
    let writing = 2 * config.timeout;
    let begin = |phase: u32| 10 * config.interval + phase * config.interval / 100;
    for phase in 0..100 {
        let closes = closes_in(writing - STEP, begin(phase));
        assert_eq!(closes, 0, "closes, phase {phase}");
    }
    assert_eq!(closes_in(writing, begin(0)), 1);
}

/// The ends of two probes are at most interval + timeout apart,
/// if the first is answered at once and the second never is. The loop may stand still for
/// as long again, and at the end of that time the port closes.
#[test]
fn the_lease_outlives_a_standstill_as_long_as_a_cycle() {
    let defaults = Config::default();
    for (interval, timeout) in [
        (defaults.interval, defaults.timeout),
        (Duration::from_millis(10), Duration::from_millis(1)),
        (Duration::from_millis(10), Duration::from_secs(2)),
        (Duration::from_secs(4), Duration::from_millis(500)),
    ] {
        let config = Config {
            interval,
            fast_interval: Some(interval),
            timeout,
            // One probe without an answer must not close the port here.
            fall: 2,
            max_age: 2 * (interval + timeout),
            ..Config::default()
        };
        // The first probe takes this long. The second is never answered, and healthport
        // stalls after it. Returns when the port closed, if it did.
        let closed = |first: Duration, stall: Duration| {
            let mut probes = 0;
            let changes = port(&config, Duration::ZERO..MINUTE, |_| {
                probes += 1;
                match probes {
                    2 => Answer {
                        after: timeout,
                        good: false,
                        stall,
                    },
                    _ => good(first),
                }
            });
            let close = changes.iter().find(|&&(at, open)| !open && at < MINUTE);
            close.map(|&(at, _)| at)
        };
        let (at_once, cycle) = (Duration::ZERO, interval + timeout);
        let settings = format!("{interval:?}, {timeout:?}");
        assert_eq!(closed(at_once, cycle - STEP), None, "{settings}");
        assert_eq!(closed(at_once, cycle), Some(config.max_age), "{settings}");
        // If every probe takes nearly the whole timeout, their ends are closer together.
        assert_eq!(closed(timeout - STEP, cycle), None, "{settings}");
    }
}
