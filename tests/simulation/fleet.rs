//! A fleet behind its switches: routers that all write their configuration at the same
//! moment, are updated a quarter at a time, and crash. A node's port depends on its own
//! router alone (node.rs), so the simulation computes its changes once and then lets any
//! number of switches check it.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use healthport::config::Config;
use healthport::health::Health;

use crate::node::{Answer, Changes, first_published, port};
use crate::{how_to_see, one_in, seeds, up_to};

const SEEDS: Range<u64> = 0..45;

/// Good checks until a switch takes a node back.
const RISE: u32 = 2;
/// For so long a router that was told to leave keeps serving.
const GRACE: Duration = Duration::from_secs(45);
/// The least time between two reloads of one router.
const RELOADS: Duration = Duration::from_secs(5);
/// How long the new router must be ready before the next one is told to leave.
const MIN_READY: Duration = Duration::from_secs(30);
/// When events begin: all nodes have been in service for some seconds.
const BEGIN: Duration = Duration::from_secs(10);

/// How the number of routes changes a router, measured on the real one.
#[derive(Debug)]
struct Size {
    routes: u32,
    /// From its first answer to ready.
    start: Duration,
    /// How late it answers while it writes its configuration.
    late: Range<Duration>,
}

const SIZES: [Size; 3] = [
    Size {
        routes: 22,
        start: Duration::from_millis(200),
        late: Duration::from_millis(1)..Duration::from_millis(2),
    },
    Size {
        routes: 3_000,
        start: Duration::from_millis(1_300),
        late: Duration::from_millis(260)..Duration::from_millis(830),
    },
    Size {
        routes: 10_000,
        start: Duration::from_millis(3_600),
        late: Duration::from_millis(1_000)..Duration::from_millis(1_900),
    },
];

fn between(random: &mut Rng, range: Range<Duration>) -> Duration {
    range.start + up_to(random, range.end - range.start)
}

fn seconds(random: &mut Rng, range: Range<u64>) -> Duration {
    between(
        random,
        Duration::from_secs(range.start)..Duration::from_secs(range.end),
    )
}

/// One time that a node is not in service, and why.
#[derive(Debug, Clone)]
struct Away {
    /// SIGTERM or a crash: from now on it is not ready.
    told: Duration,
    /// Its port refuses.
    gone: Duration,
    /// The next router answers, not ready yet.
    starts: Duration,
    ready: Duration,
    /// The node crashed, healthport with it.
    with_healthport: bool,
}

/// One node's router.
#[derive(Debug, Default)]
struct Router {
    away: Option<Away>,
    /// When it writes its configuration. A probe that arrives meanwhile waits for the end.
    reloads: Vec<Range<Duration>>,
}

impl Router {
    /// Whether it is not ready, or has been ready for no longer than `spare`.
    fn is_away(&self, at: Duration, spare: Duration) -> bool {
        let away = self.away.as_ref();
        away.is_some_and(|away| (away.told..=away.ready + spare).contains(&at))
    }

    /// Like all routers it reloads when a route has changed, but not sooner than
    /// [`RELOADS`] after its last reload or its start; `pace` is the time between two
    /// reloads that results. A router that was told to leave ignores changes.
    fn reloads(&mut self, random: &mut Rng, size: &Size, pace: Duration, end: Duration) {
        let mut next = BEGIN;
        while next < end {
            match &self.away {
                Some(away) if (away.told..away.ready).contains(&next) => {
                    next = away.ready.max(away.starts + RELOADS);
                }
                _ => {
                    let late = between(random, size.late.clone());
                    self.reloads.push(next..next + late);
                    next += pace;
                }
            }
        }
    }

    /// What a probe finds that arrives `at` this time, if an answer takes `latency`.
    fn answer(&self, at: Duration, latency: Duration) -> Answer {
        let before = self.reloads.partition_point(|reload| reload.start <= at);
        let reload = before.checked_sub(1).map(|last| &self.reloads[last]);
        let mut answers = at.max(reload.map_or(at, |reload| reload.end)) + latency;
        let mut good = true;
        if let Some(away) = &self.away {
            // Probes that wait when it dies learn of it at once.
            if (at..answers).contains(&away.gone) {
                answers = away.gone;
            }
            good = !(away.told..away.ready).contains(&answers);
        }
        Answer {
            after: answers - at,
            good,
            ..Answer::default()
        }
    }
}

/// What happens to the fleet, besides its routes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Nothing,
    /// A quarter of the nodes at a time, and at least one.
    Update,
    Crashes,
}

/// One world, but for the settings of its healthports.
#[derive(Debug)]
struct Fleet {
    seed: u64,
    size: &'static Size,
    event: Event,
    routers: Vec<Router>,
    /// The longest time for an answer while no configuration is written.
    latency: Duration,
    /// How many may be replaced at the same time.
    unavailable: usize,
    end: Duration,
}

impl Fleet {
    fn new(seed: u64) -> Fleet {
        let mut random = Rng::with_seed(seed);
        let random = &mut random;
        // From 3 to 200, small fleets more often.
        let nodes = 3 + (198.0 * random.f64().powi(3)) as usize;
        // In turns, so that a range of seeds has them all.
        let size = &SIZES[seed as usize % 3];
        let event = [Event::Nothing, Event::Update, Event::Crashes][seed as usize / 3 % 3];
        let mut fleet = Fleet {
            seed,
            size,
            event,
            routers: (0..nodes).map(|_| Router::default()).collect(),
            // Idle, under load (p99), and the worst seen under load.
            latency: Duration::from_millis([2, 62, 335][random.usize(..3)]),
            unavailable: (nodes / 4).max(1),
            end: BEGIN + 2 * Duration::from_secs(60),
        };
        let begin = seconds(random, 11..17);
        match event {
            Event::Nothing => {}
            Event::Update => fleet.update(random, begin),
            Event::Crashes => fleet.crashes(random),
        }
        // The next reload waits for the next change, of which there is one a second.
        let wait = Duration::from_millis([1, 100, 1_000][random.usize(..3)]);
        let pace = RELOADS + up_to(random, wait);
        for router in &mut fleet.routers {
            router.reloads(random, size, pace, fleet.end);
        }
        fleet
    }

    fn update(&mut self, random: &mut Rng, begin: Duration) {
        let mut slots = vec![begin; self.unavailable];
        for router in &mut self.routers {
            let slot = slots.iter_mut().min().unwrap();
            let told = *slot + up_to(random, Duration::from_secs(1));
            // Idle, or busy with requests that take long.
            let gone = told + Duration::from_secs([47, 76][random.usize(..2)]);
            let starts = gone + Duration::from_secs(5);
            let ready = starts + self.size.start;
            *slot = ready + MIN_READY;
            self.end = self.end.max(ready + Duration::from_secs(60));
            router.away = Some(Away {
                told,
                gone,
                starts,
                ready,
                with_healthport: false,
            });
        }
    }

    fn crashes(&mut self, random: &mut Rng) {
        for router in &mut self.routers {
            if one_in(random, 3) {
                let told = seconds(random, 11..70);
                let starts = told + seconds(random, 1..20);
                router.away = Some(Away {
                    told,
                    gone: told,
                    starts,
                    ready: starts + self.size.start,
                    with_healthport: random.bool(),
                });
            }
        }
    }

    /// The longest time for an answer.
    fn slowest(&self) -> Duration {
        self.size.late.end + self.latency
    }

    /// When the ports of its nodes were open, with these settings.
    fn ports(&self, config: &Config) -> Vec<Changes> {
        let mut random = Rng::with_seed(self.seed);
        let mut port_of = |router: &Router| {
            let begin = up_to(&mut random, config.interval);
            let mut live = |life| {
                port(config, life, |at| {
                    router.answer(at, up_to(&mut random, self.latency))
                })
            };
            match &router.away {
                Some(away) if away.with_healthport => {
                    let mut changes = live(begin..away.told);
                    changes.extend(live(away.starts..self.end));
                    changes
                }
                _ => live(begin..self.end),
            }
        };
        self.routers.iter().map(&mut port_of).collect()
    }

    fn marks(&self, ports: &[Changes], switch: &Switch, checks: &mut u64) -> Vec<Changes> {
        let marks = |port| switch.marks(port, self.end, checks);
        ports.iter().map(marks).collect()
    }

    /// Every switch: each interval of whole seconds, with the first check of a node in
    /// each tenth of it.
    fn switches(&self) -> Vec<Switch> {
        let mut random = Rng::with_seed(self.seed);
        let mut switches = Vec::new();
        for inter in (1..=10).map(Duration::from_secs) {
            for fall in [2, 3] {
                for tenth in 0..10 {
                    switches.push(Switch {
                        inter,
                        fall,
                        first: BEGIN + tenth * inter / 10 + up_to(&mut random, inter / 10),
                    });
                }
            }
        }
        switches
    }
}

/// A failed assertion is worth nothing without its world.
impl Drop for Fleet {
    fn drop(&mut self) {
        if thread::panicking() {
            how_to_see(self.seed, "fleet");
        }
    }
}

/// How a switch checks one node.
#[derive(Debug)]
struct Switch {
    inter: Duration,
    fall: u32,
    first: Duration,
}

impl Switch {
    /// When it marked the node DOWN (false) and UP. It begins with the node in service,
    /// and adds its checks to `checks`.
    fn marks(&self, port: &Changes, end: Duration, checks: &mut u64) -> Changes {
        let mut health = Health::new(RISE, self.fall);
        let mut up = false;
        while !up {
            up = health.observe(true);
        }
        let (mut marks, mut next) = (Vec::new(), self.first);
        let ends = port.iter().skip(1).map(|&(at, _)| at).chain([end]);
        for (&(_, open), until) in port.iter().zip(ends) {
            // Once there are as many equal answers as the larger of rise and fall, more
            // of them change nothing and are only counted.
            for _ in 0..RISE.max(self.fall) {
                if next >= until {
                    break;
                }
                *checks += 1;
                if health.observe(open) != up {
                    up = !up;
                    marks.push((next, up));
                }
                next += self.inter;
            }
            let rest = until.saturating_sub(next).as_nanos();
            let rest = rest.div_ceil(self.inter.as_nanos()) as u32;
            *checks += u64::from(rest);
            next += rest * self.inter;
        }
        marks
    }
}

/// A node, and when something happened to it.
type Moment = (usize, Duration);

/// What the invariants look at. A node's router is not ready from the moment at which it
/// is told to leave, or crashes, until the next router is ready.
impl Fleet {
    /// The ports that closed although the router was ready.
    fn closed_ready(&self, ports: &[Changes]) -> Vec<Moment> {
        let nodes = self.routers.iter().zip(ports).enumerate();
        let closed = nodes.flat_map(|(node, (router, port))| {
            let closes = port.iter().filter(|&&(at, open)| !open && at < self.end);
            let wrong = closes.filter(|&&(at, _)| !router.is_away(at, Duration::ZERO));
            wrong.map(move |&(at, _)| (node, at))
        });
        closed.collect()
    }

    /// The nodes that a switch marked DOWN although they were healthy, and when it first
    /// did. After a new router is ready the port may still be closed for some time
    /// (`opens`, by healthport's settings).
    fn down_ready(&self, marks: &[Changes], opens: Duration) -> Vec<Moment> {
        let nodes = self.routers.iter().zip(marks).enumerate();
        let down = nodes.filter_map(|(node, (router, marks))| {
            let mut down = marks.iter().filter(|&&(_, up)| !up);
            let (at, _) = down.find(|&&(at, _)| !router.is_away(at, opens))?;
            Some((node, *at))
        });
        down.collect()
    }

    /// The nodes that a switch did not take back in time, [`RISE`] checks after the port
    /// had opened.
    fn not_taken_back(&self, marks: &[Changes], spare: Duration) -> Vec<Moment> {
        let nodes = self.routers.iter().zip(marks).enumerate();
        let late = nodes.filter_map(|(node, (router, marks))| {
            let (at, up) = *marks.last()?;
            // The world goes on for longer than that.
            (!up || !router.is_away(at, spare)).then_some((node, at))
        });
        late.collect()
    }

    /// The nodes that left and that the switch did not take out before their time was
    /// over.
    fn not_out_in_time(&self, marks: &[Changes]) -> Vec<Moment> {
        let nodes = self.routers.iter().zip(marks).enumerate();
        let late = nodes.filter_map(|(node, (router, marks))| {
            let told = router.away.as_ref()?.told;
            let mut down = marks.iter().filter(|&&(at, up)| !up && at >= told);
            let in_time = down.next().is_some_and(|&(at, _)| at < told + GRACE);
            (!in_time).then_some((node, told))
        });
        late.collect()
    }
}

/// The most nodes that were out at the same time.
fn most_out(marks: &[Changes]) -> usize {
    let mut marks: Vec<_> = marks.iter().flatten().copied().collect();
    // At one instant the node that leaves counts first.
    marks.sort_unstable();
    let (mut out, mut most) = (0, 0);
    for (_, up) in marks {
        out = if up { out - 1 } else { out + 1 };
        most = most.max(out);
    }
    most
}

/// Counts events, to show that the worlds are not idle.
#[derive(Debug, Default)]
struct Tally {
    nodes: usize,
    reloads: usize,
    updated: usize,
    crashed: usize,
    checks: u64,
    /// How often a switch marked a node, always rightly.
    down: usize,
    up: usize,
}

/// With the defaults, whatever the switch's settings:
/// - No port closes, and no node is marked DOWN, while its router is ready.
/// - A node that is out is being replaced, or it is ready and not taken back yet. The
///   latter lasts no longer than the port takes to open and the switch to check it
///   [`RISE`] times. An update waits for longer than that ([`MIN_READY`]) before it goes
///   on, so no more nodes are out together than it may replace at a time.
/// - A node that leaves is out before its [`GRACE`] is over.
#[test]
fn no_switch_takes_a_healthy_node_out() {
    let config = Config::default();
    let mut tally = Tally::default();
    let seeds = seeds(SEEDS);
    for seed in seeds.clone() {
        let fleet = Fleet::new(seed);
        let ports = fleet.ports(&config);
        if seeds.end - seeds.start == 1 {
            println!("{fleet:?}\nports: {ports:?}");
        }
        let closed = fleet.closed_ready(&ports);
        assert!(closed.is_empty(), "closed although ready: {closed:?}");

        let opens = config.opens_after(fleet.slowest());
        for switch in fleet.switches() {
            let marks = fleet.marks(&ports, &switch, &mut tally.checks);
            let wrong = fleet.down_ready(&marks, opens);
            assert!(
                wrong.is_empty(),
                "healthy and DOWN: {wrong:?} by {switch:?}"
            );
            let spare = opens + RISE * switch.inter;
            let wrong = fleet.not_taken_back(&marks, spare);
            assert!(wrong.is_empty(), "not taken back: {wrong:?} by {switch:?}");
            if fleet.event == Event::Update {
                let wrong = fleet.not_out_in_time(&marks);
                assert!(wrong.is_empty(), "not out in time: {wrong:?} by {switch:?}");
                let (most, replaced) = (most_out(&marks), fleet.unavailable);
                assert!(
                    most <= replaced,
                    "{most} out together, {replaced} replaced, by {switch:?}"
                );
            }
            let down = marks.iter().flatten().filter(|&&(_, up)| !up).count();
            tally.down += down;
            tally.up += marks.iter().map(Vec::len).sum::<usize>() - down;
        }
        let away = fleet.routers.iter().filter(|router| router.away.is_some());
        match fleet.event {
            Event::Update => tally.updated += away.count(),
            _ => tally.crashed += away.count(),
        }
        tally.nodes += fleet.routers.len();
        tally.reloads += fleet.routers.iter().map(|r| r.reloads.len()).sum::<usize>();
    }
    println!(
        "{} fleets: {tally:?}, none DOWN while ready",
        seeds.end - seeds.start
    );
    if seeds == SEEDS {
        for count in [tally.nodes, tally.updated, tally.crashed] {
            assert!(count > 100, "{tally:?}");
        }
        for count in [tally.reloads, tally.down, tally.up] {
            assert!(count > 10_000, "{tally:?}");
        }
    }
}

/// The simulation can tell: in the same worlds other settings fail. The late answers are
/// the cause, since a router with 22 routes is never taken out.
#[test]
fn the_first_published_settings_take_healthy_nodes_out() {
    let config = first_published();
    for (number, size) in SIZES.iter().enumerate() {
        let (mut fleets, mut broken, mut closed) = (0, 0, 0);
        // Of a fleet to which nothing else happens: a share, then of how many nodes.
        let mut together = (0, 0);
        // Checks of one node by one switch with fall 3: inter, of them wrong, all.
        let mut checks = [2, 5, 10].map(|inter| (Duration::from_secs(inter), 0, 0));
        for seed in SEEDS.skip(number).step_by(SIZES.len()) {
            let fleet = Fleet::new(seed);
            assert_eq!(fleet.size.routes, size.routes);
            let ports = fleet.ports(&config);
            let opens = config.opens_after(fleet.slowest());
            let nodes = fleet.routers.len();
            let mut is_broken = false;
            for switch in fleet.switches() {
                let marks = fleet.marks(&ports, &switch, &mut 0);
                let wrong = fleet.down_ready(&marks, opens).len();
                is_broken |= wrong > 0;
                if fleet.event == Event::Nothing {
                    together = together.max((most_out(&marks) * 100 / nodes, nodes));
                }
                let mut same = checks.iter_mut().filter(|same| same.0 == switch.inter);
                if let (3, Some((_, of_them, all))) = (switch.fall, same.next()) {
                    *of_them += wrong;
                    *all += nodes;
                }
            }
            fleets += 1;
            broken += usize::from(is_broken);
            closed += fleet.closed_ready(&ports).len();
        }
        let checks = checks.map(|(inter, wrong, all)| format!("inter {inter:?} {wrong} of {all}"));
        println!(
            "first published settings, {} routes: {closed} closes while ready; in {broken} of \
             {fleets} fleets a node is DOWN while ready; of the checks with fall 3: {}; at \
             worst {} % of a fleet of {} are out together",
            size.routes,
            checks.join(", "),
            together.0,
            together.1
        );
        match size.routes {
            22 => assert_eq!((closed, broken), (0, 0)),
            3_000 => assert!(closed > 0 && broken > 0),
            _ => assert_eq!(broken, fleets),
        }
    }
}
