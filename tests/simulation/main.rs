//! The loop in random worlds: `daemon::run` over a scripted service, clock, drain file,
//! system and ports. Time is a number, so that the test can look at every instant. One
//! seed makes one world, and a failure names it:
//!
//!     SIMULATION_SEEDS=4711..4712 cargo test --test simulation -- --nocapture
//!
//! plays that world again and prints what happens. A wider range explores further.
//!
//! fleet.rs tests what all of them do together: a router that is ready may answer late, and
//! all nodes of a cluster are late at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fleet;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;
use std::{env, io, slice, thread};

use fastrand::Rng;
use healthport::config::{BEAT, Config};
use healthport::cycle::Cycle;
use healthport::daemon::{self, World};
use healthport::ports::State;
use healthport::probe::{Outcome, ProbeResult};
use healthport::signals::Wake;
use log::Level;

const SEEDS: Range<u64> = 0..100_000;

/// How long a connection may end politely, as in probe.rs.
const REST: Duration = Duration::from_millis(100);

/// What a service does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Service {
    Ready,
    NotReady,
    /// Answers only when this state ends.
    Hung,
    /// Refuses the connection.
    Gone,
}

/// One listening address, with its helper.
#[derive(Debug)]
struct Port {
    address: SocketAddr,
    /// The loop holds a listener, as `Port::listener` of ports.rs.
    held: bool,
    /// A connect succeeds. The helper closes the port by itself when it dies or when the
    /// lease has expired.
    open: bool,
    dies: Duration,
    /// What the log said last.
    told: bool,
    changes: u32,
    told_changes: u32,
}

impl Port {
    fn turn(&mut self, open: bool) {
        self.changes += u32::from(self.open != open);
        self.open = open;
    }

    fn tell(&mut self, open: bool) {
        assert_ne!(self.told, open, "{} is told twice", self.address);
        self.told = open;
        self.told_changes += 1;
    }
}

/// How often something happened, to show that the worlds are not idle.
type Tally = BTreeMap<&'static str, u64>;

/// A probe in flight.
#[derive(Debug)]
struct Probe {
    /// When it arrives, and when it has taken too long.
    arrives: Duration,
    end: Duration,
    /// From the service's verdict to the last byte.
    takes: Duration,
    /// What the service was when it decided, and when the answer is there.
    found: Option<(Service, Duration)>,
}

struct Scripted<'a> {
    seed: u64,
    random: Rng,
    config: &'a Config,
    /// Whether to print what happens.
    tells: bool,
    tally: &'a mut Tally,

    // The script. "1 in n" means never where n is 0.
    cycles: u32,
    /// The longest time for an answer, from connect to its last byte.
    answer: Duration,
    /// What the service does, each until then; after that chance decides.
    script: slice::Iter<'a, (Service, Duration)>,
    /// The longest time that the service keeps one state.
    patience: Duration,
    stalls: u32,
    refusals: u32,
    deaths: u32,
    /// Probes that do not end at their timeout.
    endless: u32,
    watchdog: Option<Duration>,

    now: Duration,
    /// A clock that stops while the program is stalled. The worst cases are for a program
    /// that runs: a stall comes on top of them.
    awake: Duration,
    service: Service,
    service_until: Duration,
    drained: bool,
    drained_until: Duration,
    ports: Vec<Port>,
    lease: Duration,
    probe: Option<Probe>,

    seen: Seen,
}

/// What the invariants look at.
#[derive(Debug, Default)]
struct Seen {
    /// Start and end of the last probe.
    started: Duration,
    probed: Duration,
    /// Whether it was good, until the port has followed.
    result: Option<bool>,
    /// Probes since the last stall or report; after those a probe may come early.
    calm: u32,
    /// Good and bad probes in a row since the start or the lease's end.
    good: u32,
    bad: u32,
    /// The verdict that follows from them.
    up: bool,
    /// Some of them speak for another verdict, but not yet enough.
    is_counting: bool,
    /// When a probe was last good, by both clocks.
    proven: (Duration, Duration),
    /// Since when the service has been ready, or not. This and the later times are by
    /// `awake`.
    service_since: Duration,
    has_hung: bool,
    /// A probe was ended early since then.
    is_cut: bool,
    /// The probe in flight does not end by itself.
    is_endless: bool,
    /// What the program saw when it looked last.
    saw_drained: bool,
    drained_since: Duration,
    /// Until then the system or a stall kept the port closed.
    excused: Duration,
    alive: Duration,
    keep_alives: u32,
    is_warned: bool,
    is_stopped: bool,
    probes: u32,
    reports: u32,
    /// Sleeps of no time since the last probe began.
    spins: u32,
}

/// A failed assertion, here or in the program, is useless without its world.
impl Drop for Scripted<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let (now, seed, next) = (self.now, self.seed, self.seed + 1);
            eprintln!(
                "at {now:?} in the world of seed {seed}; to see it: SIMULATION_SEEDS={seed}..{next} \
                 cargo test --test simulation -- --nocapture the_port_never_lies"
            );
        }
    }
}

/// The seeds that were asked for, or `all`.
fn seeds(all: Range<u64>) -> Range<u64> {
    let Ok(range) = env::var("SIMULATION_SEEDS") else {
        return all;
    };
    let (first, end) = range.split_once("..").expect("FIRST..END");
    first.parse().expect("a number")..end.parse().expect("a number")
}

fn one_in(random: &mut Rng, n: u32) -> bool {
    n > 0 && random.u32(..n) == 0
}

/// Never zero: two events at the same instant would have no order.
fn up_to(random: &mut Rng, most: Duration) -> Duration {
    Duration::from_micros(random.u64(1..=(most.as_micros() as u64).max(1)))
}

fn config(random: &mut Rng) -> Config {
    // Some sleeps and some probes last for several beats.
    let most = [1_000, 1_000, 5_000][random.usize(..3)];
    let interval = Duration::from_millis(random.u64(10..=most));
    let most = [interval, 4 * interval][random.usize(..2)];
    let timeout = Duration::from_millis(1) + up_to(random, most);
    let fast = [None, Some(interval), Some(up_to(random, interval))];
    let addresses = ["0.0.0.0:18898", "[::]:28898", "127.0.0.1:38898"];
    let listen = addresses[..random.usize(1..=3)].iter();
    Config {
        listen: listen.map(|address| address.parse().unwrap()).collect(),
        interval,
        fast_interval: fast[random.usize(..3)],
        timeout,
        rise: random.u32(1..=4),
        fall: random.u32(1..=4),
        max_age: Duration::from_millis(random.u64(2_000..8_000)),
        ..Config::default()
    }
}

impl<'a> Scripted<'a> {
    fn new(
        seed: u64,
        mut random: Rng,
        config: &'a Config,
        tells: bool,
        tally: &'a mut Tally,
    ) -> Scripted<'a> {
        let port = |&address| Port {
            address,
            held: false,
            open: false,
            dies: Duration::MAX,
            told: false,
            changes: 0,
            told_changes: 0,
        };
        let cycle = config.interval + config.timeout;
        let fastest = config.interval.min(config.timeout);
        let mut sometimes = |n| if random.u8(..3) == 0 { n } else { 0 };
        let (stalls, refusals) = (sometimes(20), sometimes(4));
        let (deaths, endless) = (sometimes(4), sometimes(20));
        Scripted {
            seed,
            config,
            tells,
            tally,
            cycles: random.u32(10..=40),
            answer: match random.u8(..4) {
                0 => config.timeout - Duration::from_micros(1),
                1 => fastest - Duration::from_micros(1),
                _ => up_to(&mut random, fastest / 10),
            },
            script: [].iter(),
            patience: cycle * random.u32(1..=2 * (config.rise + config.fall)),
            stalls,
            refusals,
            deaths,
            endless,
            watchdog: random.bool().then(|| up_to(&mut random, 20 * cycle)),
            now: Duration::ZERO,
            awake: Duration::ZERO,
            service: Service::Gone,
            service_until: Duration::ZERO,
            drained: false,
            drained_until: [Duration::ZERO, Duration::MAX][random.usize(..2)],
            ports: config.listen.iter().map(port).collect(),
            lease: config.max_age,
            probe: None,
            seen: Seen::default(),
            random,
        }
    }

    fn is_open(&self) -> bool {
        self.ports.iter().any(|port| port.open)
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>12.6} {}", self.now.as_secs_f64(), what());
        }
    }

    /// Lets time pass, from one event of the script to the next.
    fn pass(&mut self, time: Duration) {
        self.run_for(time, false);
    }

    /// Now and then the program stalls: nobody reads its log, a disk hangs, the
    /// machine is busy.
    fn stall(&mut self) {
        if one_in(&mut self.random, self.stalls) {
            let time = up_to(&mut self.random, 2 * self.config.max_age);
            self.say(|| format!("stalls for {time:?}"));
            self.seen.calm = 0;
            self.run_for(time, true);
            self.seen.excused = self.awake;
        }
    }

    fn run_for(&mut self, time: Duration, stalled: bool) {
        let end = self.now + time;
        while self.now < end {
            let mut next = end.min(self.service_until).min(self.drained_until);
            for port in self.ports.iter().filter(|port| port.open) {
                next = next.min(port.dies).min(self.lease);
            }
            // A port that is opened after the lease has expired closes at once.
            let next = next.max(self.now);
            if !stalled {
                self.awake += next - self.now;
            }
            self.now = next;
            // Check what was true until this instant, then let it change.
            self.check(stalled);
            self.happen();
        }
    }

    fn happen(&mut self) {
        for port in &mut self.ports {
            if port.open && port.dies.min(self.lease) <= self.now {
                *self.tally.entry("died").or_default() += u64::from(port.dies <= self.now);
                self.seen.excused = self.awake;
                port.turn(false);
            }
        }
        if self.service_until <= self.now {
            let others = [Service::NotReady, Service::Hung, Service::Gone];
            let was = self.service;
            (self.service, self.service_until) = self.script.next().copied().unwrap_or_else(|| {
                // Ready half of the time, so that the port changes often.
                let service = match was != Service::Ready && self.random.bool() {
                    true => Service::Ready,
                    false => others[self.random.usize(..3)],
                };
                let until = self.now + up_to(&mut self.random, self.patience);
                (service, until)
            });
            if (was == Service::Ready) != (self.service == Service::Ready) {
                self.seen.service_since = self.awake;
                self.seen.has_hung = false;
                self.seen.is_cut = false;
            }
            self.seen.has_hung |= self.service == Service::Hung;
            self.say(|| format!("the service is {:?}", self.service));
        }
        if self.drained_until <= self.now {
            self.drained = !self.drained;
            self.seen.drained_since = self.awake;
            self.drained_until = self.now + up_to(&mut self.random, self.patience);
            self.say(|| format!("the drain file exists: {}", self.drained));
        }
    }

    /// What must hold at every instant.
    fn check(&self, stalled: bool) {
        let config = self.config;
        if self.is_open() {
            let (rise, fall) = (config.rise, config.fall);
            assert!(
                self.seen.up,
                "open without {rise} good, or after {fall} bad in a row"
            );
            let age = self.awake - self.seen.proven.1;
            let hang = config.closes_after_hang(Duration::ZERO);
            let evidence = hang.max(config.interval + config.max_age) + BEAT;
            assert!(age <= evidence, "open {age:?} after the last good answer");
            let open_for = self.awake - self.seen.service_since;
            let bound = match (self.service, self.seen.has_hung) {
                (Service::Ready, _) => Duration::MAX,
                _ if self.seen.is_cut || self.seen.is_endless => self.answer + evidence,
                (_, true) => config.closes_after_hang(self.answer),
                (_, false) => config.closes_after_bad(self.answer),
            };
            assert!(
                open_for <= bound,
                "open {open_for:?} after the service was ready last, {bound:?} allowed"
            );
            let open_for = self.awake - self.seen.drained_since;
            let bound = BEAT + REST;
            assert!(
                !self.drained || open_for <= bound,
                "open {open_for:?} after the drain file came, {bound:?} allowed"
            );
        }
        let is_held_up = stalled || self.seen.is_endless;
        let should_open = self.service == Service::Ready && !self.drained && !is_held_up;
        if should_open && self.ports.iter().any(|port| !port.open) {
            let since = self
                .seen
                .service_since
                .max(self.seen.drained_since)
                .max(self.seen.excused);
            let closed_for = self.awake - since;
            let bound = config.opens_after(self.answer);
            assert!(
                closed_for <= bound,
                "closed {closed_for:?} after the service became ready, {bound:?} allowed"
            );
        }
    }
}

impl World for Scripted<'_> {
    fn now(&self) -> Duration {
        self.now
    }

    fn probe(&mut self, time: Duration) -> Option<Outcome> {
        self.waits(time);
        let until = self.now + time;
        let mut probe = match self.probe.take() {
            Some(probe) => probe,
            None => self.begin(),
        };
        if probe.found.is_none() {
            self.pass(probe.arrives.min(until).saturating_sub(self.now));
            while self.service == Service::Hung && self.now < probe.end.min(until) {
                self.pass(self.service_until.min(probe.end).min(until) - self.now);
            }
            let decided = self.service != Service::Hung || self.now >= probe.end;
            if self.now >= probe.arrives && decided {
                probe.found = Some((self.service, self.now + probe.takes));
            }
        }
        let over = probe
            .found
            .map_or(Duration::MAX, |(_, answers)| answers.min(probe.end));
        self.pass(over.min(until).saturating_sub(self.now));
        let Some((found, _)) = probe.found.filter(|_| self.now >= over) else {
            self.probe = Some(probe);
            return None;
        };
        self.stall();
        self.seen.probed = self.now;
        let in_time = self.now < probe.end;
        let result = match found {
            Service::Ready if in_time => ProbeResult::Ok,
            Service::NotReady if in_time => ProbeResult::Status,
            Service::Gone if in_time => ProbeResult::Connect,
            _ => ProbeResult::Timeout,
        };
        *self.tally.entry("hung").or_default() += u64::from(result == ProbeResult::Timeout);
        self.seen.result = Some(result == ProbeResult::Ok);
        Some(Outcome {
            result,
            status: None,
            sentence: format!("is {found:?}"),
        })
    }

    fn hang_up(&mut self, time: Duration) {
        if self.probe.take().is_some() {
            *self.tally.entry("cut").or_default() += 1;
            self.seen.is_cut = true;
            self.seen.is_endless = false;
            self.seen.excused = self.awake;
            self.say(|| "the probe is ended early".to_string());
        }
        // An answer that never ends.
        if one_in(&mut self.random, 10) {
            self.pass(time.min(REST));
        }
    }

    fn drained(&mut self) -> Option<String> {
        let drained = self.drained.then(|| "drained".to_string());
        *self.tally.entry("drained").or_default() += u64::from(drained.is_some() && self.is_open());
        self.seen.saw_drained = drained.is_some();
        self.stall();
        drained
    }

    /// As in ports.rs, the lease is over at the very instant at which it expires.
    fn renew(&mut self) -> bool {
        let in_time = self.lease > self.now || !self.ports.iter().any(|port| port.held);
        self.lease = self.now + self.config.max_age;
        if !in_time {
            assert!(self.stalls > 0, "the lease expired under a loop that runs");
            *self.tally.entry("expired").or_default() += 1;
            for port in &mut self.ports {
                port.held = false;
                port.turn(false);
            }
            (self.seen.good, self.seen.bad) = (0, 0);
            self.seen.up = false;
        }
        in_time
    }

    fn set_port(&mut self, open: bool) -> Vec<State> {
        self.follow(open);
        let mut states = Vec::new();
        let (was_open, now) = (self.is_open(), self.now);
        for port in &mut self.ports {
            let address = port.address;
            states.push(if !open {
                port.held = false;
                port.turn(false);
                State::Closed
            } else if port.held && !port.open {
                port.held = false;
                self.seen.excused = self.awake;
                State::Failed(format!("cannot accept on {address}: EMFILE"))
            } else if port.held {
                State::Open
            } else if one_in(&mut self.random, self.refusals) {
                *self.tally.entry("refused").or_default() += 1;
                self.seen.excused = self.awake;
                let why = ["in use", "not there"][self.random.usize(..2)];
                State::Failed(format!("cannot listen on {address}: {why}"))
            } else {
                port.held = true;
                port.turn(true);
                port.dies = match one_in(&mut self.random, self.deaths) {
                    true => now + up_to(&mut self.random, 4 * self.config.interval),
                    false => Duration::MAX,
                };
                State::Open
            });
        }
        *self.tally.entry("opened").or_default() += u64::from(!was_open && self.is_open());
        *self.tally.entry("closed").or_default() += u64::from(was_open && !self.is_open());
        states
    }

    fn count(&mut self, cycle: &Cycle) {
        if let Some(took) = cycle.took {
            assert_eq!(took, self.seen.probed - self.seen.started);
        }
    }

    fn log(&mut self, level: Level, line: &str) {
        self.port_comes_first();
        self.say(|| format!("log: {line}"));
        let is_named = |port: &Port| line.contains(&port.address.to_string());
        let lost = level == Level::Error && line.contains("cannot accept on");
        let stood_still = level == Level::Error && line.contains("the loop stood still");
        let stopping = line.starts_with("SIGTERM: port closed");
        self.seen.is_warned |= line.contains("WatchdogSec=");
        for port in &mut self.ports {
            if line.starts_with("port open on") && is_named(port) {
                port.tell(true);
            } else if (line.starts_with("port closed on") || lost) && is_named(port)
                || (stood_still || stopping) && port.told
            {
                port.tell(false);
            }
        }
        self.stall();
    }

    fn notify(&mut self, assignments: &str) -> io::Result<()> {
        self.port_comes_first();
        if let (Some(watchdog), true) = (self.watchdog, assignments.contains("WATCHDOG=1")) {
            // systemd begins to wait with READY=1.
            if assignments.contains("READY=1") {
                self.seen.alive = self.awake;
            }
            let pause = self.awake - self.seen.alive;
            let bound = watchdog / 4 + BEAT + REST;
            assert!(
                pause <= bound,
                "{pause:?} without a keep-alive, {bound:?} allowed"
            );
            self.seen.alive = self.awake;
            self.seen.keep_alives += u32::from(assignments == "WATCHDOG=1");
        }
        Ok(())
    }

    fn sleep(&mut self, time: Duration) -> Wake {
        self.waits(time);
        for port in &self.ports {
            assert_eq!(port.told, port.held, "the log is wrong on {}", port.address);
        }
        if self.seen.probes >= self.cycles {
            assert!(!self.seen.is_stopped, "it goes on after SIGTERM");
            self.seen.is_stopped = true;
            return Wake::Stop("SIGTERM");
        }
        if one_in(&mut self.random, 50) {
            self.seen.reports += 1;
            self.seen.calm = 0;
            self.pass(time / 2);
            return Wake::Report;
        }
        self.pass(time);
        self.stall();
        Wake::Time
    }

    fn is_asked(&mut self) -> bool {
        let is_asked = one_in(&mut self.random, 50);
        self.seen.reports += u32::from(is_asked);
        is_asked
    }

    fn checks(&self) -> (u64, Option<Duration>) {
        (0, None)
    }
}

impl Scripted<'_> {
    /// A stall before a beat makes one wait of nothing more.
    fn waits(&mut self, time: Duration) {
        self.seen.spins = if time.is_zero() {
            self.seen.spins + 1
        } else {
            0
        };
        assert!(self.seen.spins < 10, "it spins");
    }

    fn begin(&mut self) -> Probe {
        *self.tally.entry("cycles").or_default() += 1;
        self.seen.probes += 1;
        let gap = self.now - self.seen.started;
        let pace = match self.seen.is_counting {
            true => self.config.fast_interval(),
            false => self.config.interval,
        };
        assert!(
            self.seen.calm < 2 || gap >= pace,
            "a burst: {gap:?} after the last probe"
        );
        self.seen.started = self.now;
        self.seen.calm += 1;
        let answer = up_to(&mut self.random, self.answer);
        let arrives = self.random.u32(1..100) * answer / 100;
        let mut end = self.now + self.config.timeout;
        let mut takes = answer - arrives;
        self.seen.is_endless = self.is_open() && one_in(&mut self.random, self.endless);
        if self.seen.is_endless {
            (end, takes) = (Duration::MAX, Duration::from_secs(3600));
        }
        Probe {
            arrives: self.now + arrives,
            end,
            takes,
            found: None,
        }
    }

    /// Whatever may block comes after the port has followed.
    fn port_comes_first(&self) {
        let waits = self.seen.result.is_some() || self.seen.saw_drained && self.is_open();
        assert!(!waits, "the port has not followed yet");
    }

    /// The verdict that follows from the last probe, as the definition of rise and fall
    /// has it.
    fn follow(&mut self, open: bool) {
        let seen = &mut self.seen;
        if let Some(good) = seen.result.take() {
            (seen.good, seen.bad) = if good {
                (seen.good + 1, 0)
            } else {
                (0, seen.bad + 1)
            };
            if good {
                seen.proven = (self.now, self.awake);
            }
        }
        seen.up |= seen.good >= self.config.rise;
        seen.up &= seen.bad < self.config.fall;
        let is_over = seen.probes >= self.cycles;
        // Too long without a good answer, and it must be earned again.
        let is_stale = self.now - seen.proven.0 >= self.config.max_evidence();
        if seen.up && is_stale && !open {
            *self.tally.entry("stale").or_default() += 1;
            (seen.excused, seen.calm) = (self.awake, 0);
            (seen.good, seen.up) = (0, false);
        }
        let keeps_out = seen.saw_drained || is_over;
        assert!(
            open || !seen.up || keeps_out,
            "closed while the service is up"
        );
        seen.is_counting = if seen.up { seen.bad > 0 } else { seen.good > 0 };
    }
}

fn play(mut world: Scripted) {
    let config = world.config;
    world.say(|| format!("{config:?}"));
    world.happen();
    daemon::run(config, world.watchdog, &mut world);
    assert!(!world.is_open(), "open after the end");
    for port in &world.ports {
        let (changes, told) = (port.changes, port.told_changes);
        assert_eq!(changes, told, "changes of {} and those told", port.address);
    }
    // A fast loop must not flood systemd: on average two keep-alives are at least an
    // eighth of WatchdogSec apart.
    if let Some(watchdog) = world.watchdog {
        let most =
            world.now.as_nanos() * 8 / watchdog.as_nanos() + 2 + u128::from(world.seen.reports);
        let sent = world.seen.keep_alives;
        assert!(
            u128::from(sent) <= most,
            "{sent} keep-alives, {most} allowed"
        );
        // It warns exactly if a kill can come before the lease.
        assert_eq!(world.seen.is_warned, watchdog <= config.max_age);
    }
}

#[test]
fn the_port_never_lies_in_any_world() {
    let seeds = seeds(SEEDS);
    let alone = seeds.end - seeds.start == 1;
    let mut sum = Tally::default();
    for seed in seeds.clone() {
        let mut random = Rng::with_seed(seed);
        let config = config(&mut random);
        play(Scripted::new(seed, random, &config, alone, &mut sum));
    }
    println!("{} worlds: {sum:?}", seeds.end - seeds.start);
    // Idle worlds would prove nothing.
    if seeds == SEEDS {
        assert_eq!(sum.len(), 10);
        assert!(sum.values().all(|&count| count > 10_000), "{sum:?}");
    }
}
