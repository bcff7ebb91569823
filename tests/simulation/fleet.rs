//! The nodes of a cluster, whose routers all write their configuration at the same moment,
//! and answer only when they have written it: which ports close although their routers
//! serve. Print the table with
//!
//!     cargo test --test simulation -- --nocapture fleet

use super::*;

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

/// How often the port of a node closed.
fn closes(node: u64, config: &Config, script: &[(Service, Duration)]) -> u64 {
    let mut tally = Tally::new();
    let mut world = Scripted::new(node, Rng::with_seed(node), config, false, &mut tally);
    (world.stalls, world.refusals, world.deaths, world.endless) = (0, 0, 0, 0);
    (world.watchdog, world.drained_until) = (None, Duration::MAX);
    (world.cycles, world.answer) = (3600, Duration::from_millis(335));
    world.script = script.iter();
    play(world);
    tally["closed"] - 1 // it was stopped
}

/// Five nodes for an hour. All write the same change at the same moment; the next change
/// follows 5 to 30 s after the end.
#[test]
fn fleet_with_the_defaults_keeps_every_ready_node_in() {
    let settings = |timeout, fall| Config {
        timeout: Duration::from_millis(timeout),
        fall,
        ..Config::default()
    };
    let settings = [Config::default(), settings(3_000, 2), settings(500, 1)];
    println!("| routes | writes | ports closed though ready: defaults | 3s, fall 2 | 500ms, 1 |");
    for (number, (routes, [least, most])) in WRITES.into_iter().enumerate() {
        let mut random = Rng::with_seed(number as u64);
        let (mut script, mut time) = (Vec::new(), 10.0);
        while time < 3540.0 {
            let waits = 5.0 + 25.0 * random.f64();
            let writes = least + (most - least) * random.f64();
            for (service, lasts) in [(Service::Ready, waits), (Service::Hung, writes)] {
                time += lasts;
                script.push((service, Duration::from_secs_f64(time)));
            }
        }
        let writes = script.len() / 2;
        script.push((Service::Ready, Duration::MAX));
        let closed = settings.each_ref().map(|config| {
            let node = |node| closes(node, config, &script);
            (0..5).map(node).sum::<u64>()
        });
        let [defaults, shorter, shortest] = closed;
        println!("| {routes} | {writes} | {defaults} | {shorter} | {shortest} |");
        assert_eq!(defaults, 0, "{routes} routes");
        // The simulation can tell: other settings fail.
        assert_eq!(shorter > 0, most > 6.0, "{routes} routes, 3s");
        assert!(shortest > 0, "{routes} routes, 500ms");
    }
}
