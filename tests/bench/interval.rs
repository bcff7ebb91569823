//! What a shorter --interval buys and what it costs, with otherwise default flags:
//! the second bad answer closes, and it is asked for after --fast-interval.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::kernel::Kernel;
use crate::common::{OneByOne, own_address, write};
use crate::subject::{FIRST_PORT, Subject};
use crate::table::{head, percentile, row};

/// The interval in milliseconds, how many instances run at the same time, how often the
/// service changes. The instances' phases differ, so that each change is a sample for
/// each of them.
const INTERVALS: [(u64, u16, usize); 4] =
    [(1000, 50, 8), (250, 25, 16), (100, 25, 16), (10, 4, 100)];
const STEADY: Duration = Duration::from_secs(5);
/// Seconds of CPU time that a probe costs the real openshift-router, as measured.
const ROUTER: f64 = 0.95e-3;

#[derive(Default)]
struct Found {
    /// From the service's change to the closed port, in milliseconds.
    closes: Vec<f64>,
    /// Of one healthport while the port is open.
    probes_per_second: f64,
    cpu_per_second: f64,
}

fn measure(interval: Duration, instances: u16, changes: usize) -> Found {
    let (service, kernel, address) = (
        OneByOne::router(own_address()),
        Kernel::new(),
        own_address(),
    );
    let (ready, ended) = (AtomicBool::new(true), AtomicBool::new(false));
    let probes = AtomicUsize::new(0);
    thread::scope(|scope| {
        let answering = scope.spawn(|| {
            while !ended.load(SeqCst) {
                let mut stream = service.accept();
                write(&mut stream, ready.load(SeqCst));
                probes.fetch_add(1, SeqCst);
            }
        });
        let subjects: Vec<_> = (0..instances)
            .map(|number| {
                thread::sleep(interval / u32::from(instances));
                let port = (address, FIRST_PORT + number).into();
                Subject::with_defaults(&service, interval, port)
            })
            .collect();
        let ports: Vec<_> = subjects.iter().map(|subject| subject.ports[0]).collect();
        // How long each took, in milliseconds.
        let turn = |open: bool| {
            ready.store(open, SeqCst);
            let (start, mut took, mut waiting) = (Instant::now(), Vec::new(), ports.clone());
            while !waiting.is_empty() {
                assert!(start.elapsed() < Duration::from_secs(20), "a port stays");
                let now = start.elapsed().as_secs_f64() * 1e3;
                let before = waiting.len();
                waiting.retain(|&port| kernel.listens(port) != open);
                took.extend(vec![now; before - waiting.len()]);
                thread::sleep(Duration::from_micros(50));
            }
            took
        };
        turn(true);

        let cpu = || subjects.iter().map(Subject::cpu).sum::<f64>();
        let (before, cpu_before, start) = (probes.load(SeqCst), cpu(), Instant::now());
        thread::sleep(STEADY);
        let all = start.elapsed().as_secs_f64() * f64::from(instances);
        let mut found = Found {
            probes_per_second: (probes.load(SeqCst) - before) as f64 / all,
            cpu_per_second: (cpu() - cpu_before) / all,
            ..Found::default()
        };
        for _ in 0..changes {
            thread::sleep(interval.mul_f64(fastrand::f64()));
            found.closes.extend(turn(false));
            turn(true);
        }
        // The thread ends after the next probe.
        ended.store(true, SeqCst);
        answering.join().unwrap();
        found
    })
}

pub fn print() {
    head(&[
        "--interval",
        "changes",
        "closes, p50 ms",
        "p99 ms",
        "probes per second",
        "CPU of healthport",
        "CPU of the router",
    ]);
    for (millis, instances, changes) in INTERVALS {
        let interval = Duration::from_millis(millis);
        let found = measure(interval, instances, changes);
        let closes = |percent| format!("{:.0}", percentile(&found.closes, percent));
        let share = |seconds: f64| format!("{:.3} %", seconds * 100.0);
        row(&[
            format!("{interval:?}"),
            found.closes.len().to_string(),
            closes(50),
            closes(99),
            format!("{:.1}", found.probes_per_second),
            share(found.cpu_per_second),
            share(found.probes_per_second * ROUTER),
        ]);
    }
    println!(
        "\nThe router: {:.2} ms a probe, measured on the real one, times the probes.",
        ROUTER * 1e3
    );
}
