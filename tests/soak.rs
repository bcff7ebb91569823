//! A soak: for 20 seconds, or as many as SOAK_SECONDS says, the service answers every
//! probe with something else, good or bad, and clients storm the port. Nothing depends on
//! time: when the next probe comes, the port and the log must have followed the answer to
//! the last one. Every answer is given once before the dice choose, so that memory which
//! is touched for the first time does not look like growth.
//!
//! Half an hour, as in tests/bench/README.md:
//!
//!     SOAK_SECONDS=1800 cargo test --release --test soak -- --ignored --nocapture
//!
//! SOAK_SEED repeats the answers of another run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, iter, thread};

use common::kernel::Kernel;
use common::zoo::{Animal, GOOD, LATE, Way, ZOO};
use common::{BINARY, Folder, Healthport, OneByOne, Over, eventually, is_open, own_address};
use fastrand::Rng;

/// Connects in bursts until told to stop; returns how many were refused, and how many not.
fn storm(port: SocketAddr, stop: &AtomicBool) -> [usize; 2] {
    let mut counts = [0; 2];
    while !stop.load(Relaxed) {
        (0..50).for_each(|_| counts[usize::from(is_open(port))] += 1);
        thread::sleep(Duration::from_millis(20));
    }
    counts
}

fn number(name: &str) -> Option<u64> {
    Some(env::var(name).ok()?.parse().expect("a number"))
}

#[test]
#[ignore = "takes 20 seconds"]
fn a_soak_in_every_answer_under_a_storm() {
    let time = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(20));
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SOAK_SEED={seed}");
    let mut dice = Rng::with_seed(seed);
    // Those that end without a timeout. After that good and bad ones equally often, so that
    // the port changes every other time.
    let all = ZOO
        .iter()
        .filter(|animal| animal.1 != LATE && !matches!(animal.0, Way::Gone));
    let (good, bad): (Vec<&Animal>, Vec<_>) = all.clone().partition(|animal| animal.1 == GOOD);
    let count = all.clone().count();
    let answers = all.chain(iter::repeat_with(|| {
        let kind = [&good, &bad][dice.usize(..2)];
        *dice.choice(kind).unwrap()
    }));

    let (address, kernel, folder) = (own_address(), Kernel::new(), Folder::new());
    // Not 18898: a healthport with its defaults, started meanwhile, has that on every
    // address.
    let port = SocketAddr::from((address, 18897));
    let service = OneByOne::router(address);
    let path = folder.file("log");
    let mut command = Command::new(BINARY);
    command.args(["--url", &service.url(), "--timeout", "1m", "--fall", "1"]);
    command.args(["--listen", &port.to_string(), "--interval", "10ms"]);
    // This is no test of a machine that stalls for a second.
    command.args(["--max-age", "1m", "--log-level", "debug"]);
    command.stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
    let healthport = Healthport::spawn(address, command.stderr(File::create(&path).unwrap()));
    service.answer(false);
    let mut stream = service.probe();
    let mut log = File::open(&path).unwrap();
    // By its next probe the loop has written all lines of a cycle.
    let mut new_lines = || {
        let mut text = String::new();
        log.read_to_string(&mut text).expect("read the log");
        text
    };
    new_lines();

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let end = Over(&stop);
        let clients = scope.spawn(|| storm(port, &stop));
        let (mut open, mut given, mut changes) = (false, 0, 0);
        // The largest in the first quarter, and after it: KiB of its own, descriptors.
        let mut sizes = [(0, 0); 2];
        let start = Instant::now();
        for (way, why, ..) in answers.take_while(|_| start.elapsed() < time) {
            let before = open;
            way.give(&mut stream);
            drop(stream);
            stream = service.probe();
            open = kernel.listens(port);
            assert_eq!(open, *why == GOOD, "{way:?}");
            let text = new_lines();
            let said = |line: &str| text.contains(line) && text.contains(&format!(": {why}"));
            assert!(
                said("probe: ")
                    && said("port open on ") == (open && !before)
                    && said("port closed on ") == (before && !open),
                "{way:?}, {before} -> {open}: {text}"
            );
            given += 1;
            changes += usize::from(open != before);
            if !open {
                assert!(healthport.status("Threads") <= 2, "one helper");
                let size = &mut sizes[usize::from(start.elapsed() > time / 4)];
                size.0 = size.0.max(healthport.status("RssAnon"));
                size.1 = size.1.max(healthport.descriptors());
            }
        }
        drop(end);
        let [refused, good] = clients.join().expect("the storm saw only yes and no");
        println!("{given} answers, {changes} changes, {good} connects, {refused} refused");
        println!("largest KiB and descriptors in the first quarter, and after it: {sizes:?}");
        assert!(given > count && changes >= 50 && good > 0 && refused > 0);
        let [early, late] = sizes;
        assert!(late.0 <= early.0 + 32, "{sizes:?}");
        // While the storm lasts the helper may just hold a check; after it, nothing more.
        eventually("no more descriptors", || {
            healthport.descriptors() <= early.1
        });
    });
}
