//! Whether a port closes within the time that --check-config prints for a hang: 30 random
//! configurations, five at a time. Every wait is exact, so the excess is the machine's.

use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use healthport::options;

use crate::common::{Healthport, Service};
use crate::table::{head, percentile, row};

const CONFIGURATIONS: u64 = 30;
const AT_A_TIME: u64 = 5;

/// How long a hang may take by the print, and took, in seconds.
fn measure(seed: u64) -> (f64, f64) {
    let mut random = Rng::with_seed(seed);
    let interval = random.u64(10..=2000);
    let args = [
        format!("--interval={interval}ms"),
        format!("--timeout={}ms", random.u64(10..=3000)),
        format!("--fall={}", random.u32(1..=4)),
    ];
    let (_, config) = options::parse(args.iter().map(Into::into)).unwrap();
    let service = Service::start();
    let args = args.each_ref().map(String::as_str);
    let healthport = Healthport::start(service.address.ip(), &service, &args);
    healthport.opens();
    // At any moment of the interval.
    thread::sleep(Duration::from_millis(interval + random.u64(..interval)));
    service.hangs();
    let start = Instant::now();
    healthport.closes();
    let allowed = config.closes_after_hang(Duration::ZERO);
    (allowed.as_secs_f64(), start.elapsed().as_secs_f64())
}

pub fn print() {
    let mut found = Vec::new();
    for first in (0..CONFIGURATIONS).step_by(AT_A_TIME as usize) {
        thread::scope(|scope| {
            let runs: Vec<_> = (first..first + AT_A_TIME)
                .map(|seed| scope.spawn(move || measure(seed)))
                .collect();
            found.extend(runs.into_iter().map(|run| run.join().unwrap()));
        });
    }
    let excess: Vec<_> = found
        .iter()
        .map(|(allowed, took)| 1e3 * (took - allowed))
        .collect();
    // 1 % of the time or 20 ms, whichever is more, and 2 ms between two looks at the port.
    let late = |&&(allowed, took): &&(f64, f64)| took > allowed + (allowed / 100.0).max(0.022);
    head(&[
        "hangs",
        "later than printed, ms: p50",
        "longest",
        "by more than 1 % or 20 ms",
    ]);
    row(&[
        found.len().to_string(),
        format!("{:.1}", percentile(&excess, 50)),
        format!("{:.1}", percentile(&excess, 100)),
        found.iter().filter(late).count().to_string(),
    ]);
}
