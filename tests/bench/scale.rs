//! More listeners, and more instances on one machine.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::kernel::Kernel;
use crate::common::{OneByOne, own_address};
use crate::cost;
use crate::reaction::{self, Reactions};
use crate::subject::{Kind, Subject};
use crate::table::{head, median, percentile, row};

const LISTENERS: [u16; 3] = [1, 4, 16];
const ROUNDS: usize = 3;
/// In each round, in each direction.
const CHANGES: usize = 40;
const INSTANCES: usize = 50;

struct Scale {
    reactions: Reactions,
    cpu: Vec<f64>,
    resident: f64,
    threads: f64,
    descriptors: f64,
}

fn scale(listeners: u16) -> Scale {
    let service = OneByOne::router(own_address());
    let interval = Duration::from_millis(10);
    let subject = Subject::with_listeners(Kind::Healthport, &service, interval, listeners);
    subject.opens(&service, &Kernel::new());
    let cpu = vec![cost::cpu(&service, &subject)];
    let scale = Scale {
        reactions: Reactions::default(),
        cpu,
        resident: subject.status("VmRSS"),
        threads: subject.status("Threads"),
        descriptors: subject.descriptors(),
    };
    drop(subject);
    Scale {
        reactions: reaction::measure(Kind::Healthport, listeners, CHANGES),
        ..scale
    }
}

pub fn print() {
    let mut scales = LISTENERS.map(scale);
    for _ in 1..ROUNDS {
        for (&listeners, all) in LISTENERS.iter().zip(&mut scales) {
            let round = scale(listeners);
            all.reactions.close.extend(round.reactions.close);
            all.reactions.open.extend(round.reactions.open);
            all.cpu.extend(round.cpu);
        }
    }
    head(&[
        "listeners",
        "last closes, p50 us",
        "p99 us",
        "last opens, p50 us",
        "p99 us",
        "CPU per cycle, us",
        "resident, KiB",
        "threads",
        "descriptors",
    ]);
    for (listeners, all) in LISTENERS.iter().zip(&scales) {
        row(&[
            listeners.to_string(),
            format!("{:.0}", percentile(&all.reactions.close, 50)),
            format!("{:.0}", percentile(&all.reactions.close, 99)),
            format!("{:.0}", percentile(&all.reactions.open, 50)),
            format!("{:.0}", percentile(&all.reactions.open, 99)),
            format!("{:.0}", median(&all.cpu)),
            format!("{:.0}", all.resident),
            format!("{:.0}", all.threads),
            format!("{:.0}", all.descriptors),
        ]);
    }
    instances();
}

/// Many instances at the default interval, and one that is measured among them.
fn instances() {
    let service = OneByOne::router(own_address());
    let second = Duration::from_secs(1);
    let others: Vec<_> = (1..INSTANCES)
        .map(|_| Subject::start(Kind::Healthport, &service, second))
        .collect();
    service.answer_for(2 * second);
    let before: f64 = others.iter().map(Subject::cpu).sum();
    let start = Instant::now();
    let probes = service.answer_for(5 * second).len();
    let cpu = others.iter().map(Subject::cpu).sum::<f64>() - before;
    let percent = cpu / start.elapsed().as_secs_f64() * 100.0;
    let answering = thread::spawn(move || service.answer_for(5 * second));
    let among = reaction::measure(Kind::Healthport, 1, CHANGES);
    answering.join().unwrap();
    let sum = |name: &str| others.iter().map(|one| one.status(name)).sum::<f64>() / 1024.0;
    println!();
    head(&["instances", "value"]);
    let line = |name: &str, value: String| row(&[name.to_string(), value]);
    line("running, all but one at interval 1s", INSTANCES.to_string());
    line("probes in 5 s, without that one", probes.to_string());
    line("CPU of one core", format!("{percent:.1} %"));
    line("resident memory, MiB", format!("{:.1}", sum("VmRSS")));
    line("of it anonymous, MiB", format!("{:.1}", sum("RssAnon")));
    let p50 = |values| format!("{:.0} us", percentile(values, 50));
    line("the one closes, p50", p50(&among.close));
    line("the one opens, p50", p50(&among.open));
}
