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
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{env, iter, thread};

use common::kernel::Kernel;
use common::zoo::{Animal, GOOD, LATE, Way, ZOO};
use common::{BINARY, Folder, Healthport, OneByOne, Over, eventually, own_address};
use fastrand::Rng;

/// The log, and the reasons that it gave since the port closed.
struct Log {
    file: File,
    reasons: Vec<String>,
}

impl Log {
    /// Whether what is new in the log explains, in one line at most, that the port went
    /// from `before` to `now` for this reason. By its next probe the loop has written all
    /// lines of a cycle.
    fn explains(&mut self, before: bool, now: bool, why: &str) -> bool {
        let mut text = String::new();
        self.file.read_to_string(&mut text).expect("read the log");
        let start = match (before, now) {
            (true, true) => return text.is_empty(),
            (false, true) => "port open on ",
            (true, false) => "port closed on ",
            // Each reason is logged once, and only the first eight.
            (false, false) if text.is_empty() => {
                let is_known = self.reasons.iter().any(|reason| reason.starts_with(why));
                return is_known || self.reasons.len() == 8;
            }
            (false, false) => "port still closed: ",
        };
        let line = text.split_once("[healthport] ").expect("a line").1;
        let reason = line.strip_prefix("port ").and_then(|l| l.split_once(": "));
        let (_, reason) = reason.unwrap_or_default();
        if before || now {
            self.reasons.clear();
        }
        if !now {
            self.reasons.push(reason.to_string());
        }
        line.starts_with(start) && reason.starts_with(why) && text.lines().count() == 1
    }
}

/// Connects in bursts until told to stop; returns how many connects succeeded and how
/// many were refused.
fn storm(port: SocketAddr, stop: &AtomicBool) -> (usize, usize) {
    let (mut good, mut refused) = (0, 0);
    while !stop.load(Relaxed) {
        for _ in 0..50 {
            match TcpStream::connect(port).map_err(|error| error.kind()) {
                Ok(_) => good += 1,
                // Reset: the port closed between SYN-ACK and accept.
                Err(ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset) => refused += 1,
                Err(error) => panic!("a port answers neither yes nor no: {error}"),
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    (good, refused)
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
    command.args(["--max-age", "1m"]).stdin(Stdio::null());
    command.stderr(File::create(&path).unwrap());
    let mut log = Log {
        file: File::open(&path).unwrap(),
        reasons: Vec::new(),
    };
    let healthport = Healthport::spawn(address, command.env_remove("NOTIFY_SOCKET"));
    service.answer(false);
    let mut stream = service.probe();
    let mut first = String::new();
    log.file.read_to_string(&mut first).unwrap();
    assert!(
        first.ends_with("port closed: answered 500, expected 200\n"),
        "{first}"
    );
    log.reasons.push("answered 500, expected 200".to_string());

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
            let reasons = log.reasons.clone();
            assert!(
                log.explains(before, open, why),
                "{way:?}, {before} -> {open}: {reasons:#?}"
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
        let (good, refused) = clients.join().expect("the storm saw only yes and no");
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
