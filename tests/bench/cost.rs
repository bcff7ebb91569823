//! What a cycle costs, and a program that runs.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::kernel::Kernel;
use crate::common::{BINARY, Folder, OneByOne, eventually, floor, own_address};
use crate::subject::{Kind, Subject};
use crate::table::{head_of_kinds, median, row_of_kinds};

const INTERVAL: Duration = Duration::from_millis(10);
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);
const STEADY: Duration = Duration::from_secs(20);

fn open(kind: Kind, interval: Duration) -> (OneByOne, Subject) {
    let service = OneByOne::router(own_address());
    let subject = Subject::start(kind, &service, interval);
    subject.opens(&service, &Kernel::new());
    (service, subject)
}

/// CPU time of a cycle in microseconds.
fn cpu(service: &OneByOne, subject: &Subject) -> f64 {
    service.answer_for(Duration::from_millis(200));
    let before = subject.cpu();
    let probes = service.answer_for(ROUND).len();
    (subject.cpu() - before) / probes as f64 * 1e6
}

/// What strace counts: system calls of a cycle, and processes started by it.
fn calls(kind: Kind) -> (f64, f64) {
    let (service, subject) = open(kind, INTERVAL);
    let folder = Folder::new();
    let summary = folder.file("summary");
    let mut strace = Command::new("strace")
        .args(["--follow-forks", "--summary-only", "--output"])
        .arg(&summary)
        .args(["--attach", &subject.id().to_string()])
        .stderr(Stdio::null())
        .spawn()
        .expect("start strace");
    eventually("strace has it", || {
        service.answer(true);
        subject.status("TracerPid") > 0.0
    });
    let probes = service.answer_for(ROUND).len() as f64;
    kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
    strace.wait().unwrap();
    let text = fs::read_to_string(&summary).unwrap();
    let of = |names: &[&str]| -> f64 {
        let lines = text
            .lines()
            .map(|line| Vec::from_iter(line.split_whitespace()));
        let lines = lines.filter(|line| line.last().is_some_and(|name| names.contains(name)));
        lines
            .map(|line| line[3].parse::<u32>().unwrap())
            .sum::<u32>()
            .into()
    };
    let forks = of(&["fork", "vfork", "clone", "clone3"]);
    (of(&["total"]) / probes, forks / probes)
}

/// Wake-ups in a second at the default interval, with the threads and
/// descriptors of that time, and the memory in KiB: resident and anonymous.
struct Steady {
    naps: f64,
    threads: f64,
    descriptors: f64,
    resident: f64,
    anonymous: f64,
}

fn steady(kind: Kind) -> Steady {
    let (service, subject) = open(kind, Duration::from_secs(1));
    service.answer(true);
    let (before, start) = (subject.naps(), Instant::now());
    service.answer_for(STEADY);
    let naps = (subject.naps() - before) / start.elapsed().as_secs_f64();
    // Between two probes.
    thread::sleep(Duration::from_millis(300));
    Steady {
        naps,
        threads: subject.status("Threads"),
        descriptors: subject.descriptors(),
        resident: subject.status("VmRSS"),
        anonymous: subject.status("RssAnon"),
    }
}

fn size(paths: &[&Path]) -> f64 {
    let bytes = paths.iter().map(|path| fs::metadata(path).unwrap().len());
    bytes.sum::<u64>() as f64 / 1024.0
}

pub fn print() {
    let mut cycles: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (kind, cycles) in Kind::ALL.into_iter().zip(&mut cycles) {
            let (service, subject) = open(kind, INTERVAL);
            cycles.push(cpu(&service, &subject));
        }
    }
    let cycles = cycles.map(|cycles| median(&cycles));
    let calls = Kind::ALL.map(calls);
    // All at the same time: nothing here measures time.
    let steady = Kind::ALL.map(|kind| thread::spawn(move || steady(kind)));
    let steady = steady.map(|thread| thread.join().unwrap());

    head_of_kinds("");
    let line = row_of_kinds;
    let steadies = |of: fn(&Steady) -> f64| [0, 1, 2].map(|kind| of(&steady[kind]));
    line("CPU time per cycle, us", cycles, 0);
    line("system calls per cycle", calls.map(|(calls, _)| calls), 1);
    line(
        "processes started per cycle",
        calls.map(|(_, forks)| forks),
        1,
    );
    line("wake-ups per second, interval 1s", steadies(|s| s.naps), 2);
    line("threads", steadies(|s| s.threads), 0);
    line("descriptors", steadies(|s| s.descriptors), 0);
    line("resident memory, KiB", steadies(|s| s.resident), 0);
    line("of it anonymous, KiB", steadies(|s| s.anonymous), 0);
    let tools = [Path::new("/usr/bin/curl"), Path::new("/usr/bin/socat")];
    let sizes = [size(&[Path::new(BINARY)]), size(&[floor()]), size(&tools)];
    line("binary, KiB", sizes, 0);
}
