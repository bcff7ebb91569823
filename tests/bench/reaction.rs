//! The time from the write of a changed answer until the port has changed.

use std::time::{Duration, Instant};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::common::kernel::Kernel;
use crate::common::{OneByOne, own_address, write};
use crate::subject::{Kind, Subject};
use crate::table::{head_of_kinds, percentile, row_of_kinds};

const INTERVAL: Duration = Duration::from_millis(10);
const ROUNDS: usize = 6;
/// In each round, in each direction.
const CHANGES: usize = 60;

/// How long it took to close and to open, in microseconds.
type Reactions = [Vec<f64>; 2];

/// Pins the observer and the observed process to different cores, until dropped.
///
/// On a quiet machine the scheduler puts both on one core. Then the answer was written
/// 14 us before the probe's send() had returned, and the observer saw a changed port
/// 20 us (closed) to 80 us (open) late, when the helper left the core to it.
struct Cores(CpuSet);

impl Cores {
    fn apart(subject: &Subject) -> Cores {
        let all = sched_getaffinity(None).expect("read the affinity");
        let mut free = (0..CpuSet::MAX_CPU).filter(|&core| all.is_set(core));
        let mut next = || {
            let mut one = CpuSet::new();
            one.set(free.next().expect("two cores: one to look on"));
            one
        };
        let (own, other) = (next(), next());
        sched_setaffinity(None, &own).expect("take a core");
        let subject = Pid::from_raw(subject.id() as i32);
        sched_setaffinity(subject, &other).expect("give the subject a core");
        Cores(all)
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.0).expect("give the cores back");
    }
}

fn measure(kind: Kind) -> Reactions {
    let kernel = Kernel::new();
    let service = OneByOne::router(own_address());
    let subject = Subject::start(kind, &service, INTERVAL);
    let _cores = Cores::apart(&subject);
    let mut reactions = Reactions::default();
    let mut ready = false;
    for _ in 0..2 * CHANGES {
        // One probe without a change comes before each that changes.
        service.answer(ready);
        let mut stream = service.accept();
        ready = !ready;
        let start = Instant::now();
        write(&mut stream, ready);
        while kernel.listens(subject.port) != ready {
            assert!(start.elapsed() < Duration::from_secs(10), "{kind:?} stays");
        }
        let took = start.elapsed().as_secs_f64() * 1e6;
        reactions[usize::from(ready)].push(took);
    }
    reactions
}

pub fn print() {
    let mut all: [Reactions; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (kind, reactions) in Kind::ALL.into_iter().zip(&mut all) {
            for (all, round) in reactions.iter_mut().zip(measure(kind)) {
                all.extend(round);
            }
        }
    }
    head_of_kinds(&format!("{} changes each, us", ROUNDS * CHANGES));
    for percent in [50, 90, 99] {
        for (direction, name) in ["closes", "opens"].into_iter().enumerate() {
            let values = all.each_ref().map(|of| percentile(&of[direction], percent));
            row_of_kinds(&format!("{name}, p{percent}"), values, 0);
        }
    }
}
