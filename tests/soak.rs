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

use std::env;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use Way::*;
use common::kernel::Kernel;
use common::zoo::{GOOD, LATE, Way, ZOO};
use common::{BINARY, Folder, Healthport, OneByOne, READY, eventually, own_address};
use fastrand::Rng;

/// Good and bad answers equally often, so that the port changes every other time. Three in
/// four of those that take the whole timeout are passed over.
fn pick(dice: &mut Rng) -> (Way, &'static str) {
    let good = dice.bool();
    loop {
        let (way, why, ..) = *dice.choice(ZOO).unwrap();
        if (why == GOOD) == good && (why != LATE || dice.u8(..4) == 0) {
            return (way, why);
        }
    }
}

/// Reads the log from where it stopped last.
struct Log {
    file: File,
    /// What was read and is not a complete line yet.
    text: String,
    /// The reasons that it gave since the port closed.
    reasons: Vec<String>,
}

impl Log {
    /// The complete lines, without their levels. By its next probe the loop has written
    /// all lines of a cycle. At another time there may be half a line, since a write to a
    /// file becomes visible page by page.
    fn lines(&mut self) -> Vec<String> {
        self.file
            .read_to_string(&mut self.text)
            .expect("read the log");
        let end = self.text.rfind('\n').map_or(0, |at| at + 1);
        let whole: String = self.text.drain(..end).collect();
        let bare = |line: &str| {
            line.split_once("[healthport] ")
                .expect("a line")
                .1
                .to_string()
        };
        whole.lines().map(bare).collect()
    }

    /// Whether these lines, and no others, explain that the port went from
    /// `before` to `now` for this reason.
    fn explains(&mut self, lines: &[String], before: bool, now: bool, why: &str) -> bool {
        let start = match (before, now) {
            (true, true) => return lines.is_empty(),
            (false, true) => "port open on ",
            (true, false) => "port closed on ",
            // Each reason is logged once, and only the first eight.
            (false, false) if lines.is_empty() => {
                let is_known = self.reasons.iter().any(|reason| reason.starts_with(why));
                return is_known || self.reasons.len() == 8;
            }
            (false, false) => "port still closed: ",
        };
        let [line] = lines else { return false };
        let Some((_, reason)) = line.strip_prefix("port ").and_then(|l| l.split_once(": ")) else {
            return false;
        };
        let explained = line.starts_with(start) && reason.starts_with(why);
        if before || now {
            self.reasons.clear();
        }
        if !now {
            self.reasons.push(reason.to_string());
        }
        explained
    }
}

/// The largest values that were seen.
#[derive(Debug, Default, Clone, Copy)]
struct Size {
    resident: u64,
    anonymous: u64,
    descriptors: usize,
    threads: u64,
}

impl Size {
    /// The port is closed, and its helper ends a little later.
    fn look(&mut self, healthport: &Healthport) {
        eventually("no helper", || healthport.status("Threads") == 1);
        self.resident = self.resident.max(healthport.status("VmRSS"));
        self.anonymous = self.anonymous.max(healthport.status("RssAnon"));
        self.descriptors = self.descriptors.max(healthport.descriptors());
        self.threads = self.threads.max(healthport.status("Threads"));
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
    let value = env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number")),
    )
}

#[test]
#[ignore = "takes 20 seconds"]
fn a_soak_in_every_answer_under_a_storm() {
    let time = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(20));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("SOAK_SEED").unwrap_or(now.as_secs());
    println!("SOAK_SEED={seed}");
    let mut dice = Rng::with_seed(seed);
    let kernel = Kernel::new();

    let address = own_address();
    // Not 18898: a healthport with its defaults, started meanwhile, has that on every
    // address.
    let port = SocketAddr::from((address, 18897));
    let mut service = OneByOne::router(address);
    let folder = Folder::new();
    let path = folder.file("log");
    let mut command = Command::new(BINARY);
    command.args(["--url", &service.url(), "--timeout", "1s", "--fall", "1"]);
    command.args(["--listen", &port.to_string(), "--interval", "10ms"]);
    // This is no test of a machine that stalls for a second.
    command.args(["--max-age", "1m"]).stdin(Stdio::null());
    command
        .stderr(File::create(&path).unwrap())
        .env_remove("NOTIFY_SOCKET");
    let mut log = Log {
        file: File::open(&path).unwrap(),
        text: String::new(),
        reasons: vec!["answered 500, expected 200".to_string()],
    };
    let healthport = Healthport::spawn(address, &mut command);
    let stop = Arc::new(AtomicBool::new(false));
    let clients = thread::spawn({
        let stop = Arc::clone(&stop);
        move || storm(port, &stop)
    });

    service.answer(false);
    let mut stream = service.probe();
    let first = format!("port closed: {}", log.reasons[0]);
    assert_eq!(log.lines().last(), Some(&first));

    let (mut answers, mut changes, mut late) = (0, 0, 0);
    let (mut early, mut size) = (None, Size::default());
    let mut open = false;
    let start = Instant::now();
    while start.elapsed() < time {
        let next = ZOO.get(answers).map(|&(way, why, ..)| (way, why));
        let (way, why) = next.unwrap_or_else(|| pick(&mut dice));
        let before = open;
        if let Gone = way {
            // It opens, so that the reason is a new one.
            Say(READY.as_bytes()).give(&mut stream);
            drop((stream, service));
            let mut lines = Vec::new();
            eventually("a refused probe in the log", || {
                lines.extend(log.lines());
                lines.last().is_some_and(|line| line.contains(why))
            });
            let (_, reason) = lines.last().unwrap().split_once(": ").unwrap();
            log.reasons = vec![reason.to_string()];
            open = kernel.listens(port);
            assert!(!open, "the service is gone");
            service = OneByOne::router(address);
            stream = service.probe();
        } else {
            way.give(&mut stream);
            drop(stream);
            stream = service.probe();
            let lines = log.lines();
            open = kernel.listens(port);
            let followed = open == (why == GOOD) && log.explains(&lines, before, open, why);
            if !followed {
                // If this thread stalls for a second on a busy machine, a probe
                // gives up. Then the log must say so.
                if let Some((_, reason)) = lines.last().and_then(|line| line.split_once(": ")) {
                    log.reasons.push(reason.to_string());
                }
                assert!(
                    !open && log.reasons.iter().any(|reason| reason.starts_with(LATE)),
                    "{way:?}: port {before} -> {open}, log {lines:?}, {:?}",
                    log.reasons
                );
                late += 1;
            }
        }
        answers += 1;
        changes += usize::from(open != before);
        if !open {
            size.look(&healthport);
        }
        if early.is_none() && answers > ZOO.len() && start.elapsed() > time / 4 {
            early = Some(std::mem::take(&mut size));
        }
    }
    stop.store(true, Relaxed);
    let (good, refused) = clients.join().expect("the storm saw only yes and no");
    let early = early.expect("every answer within the time");
    println!(
        "{answers} answers, {changes} changes of the port, {late} answers late, in {:?}\n\
        storm: {good} connects, {refused} refused\n\
        largest in the first quarter: {early:?}\n\
        largest after it: {size:?}",
        start.elapsed()
    );
    assert!(changes >= 50 && good > 0 && refused > 0);
    assert!(
        late * 50 <= answers,
        "the machine is too busy for this test"
    );
    assert!(size.anonymous <= early.anonymous + 32);
    assert!(size.resident <= early.resident.max(2560) + 32);
    assert!(size.descriptors <= early.descriptors && size.threads <= early.threads);
}
