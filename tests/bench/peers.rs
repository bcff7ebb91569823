//! The same service probed by the alternatives: healthport as it is and
//! less patient, the one program that does the same, and the loop that an operator
//! would write, each with its own defaults.

use std::process::Command;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::common::kernel::Kernel;
use crate::common::{BINARY, READY, Service, own_address};
use crate::subject::{FIRST_PORT, Kind, Subject};
use crate::table::{head, median, percentile, row};

const CHANGES: usize = 20;
/// A port that is open for longer stays open.
const HANG: Duration = Duration::from_secs(30);
/// What a large router took to answer while it wrote its configuration, ready all the time.
const LATE: Duration = Duration::from_millis(1900);
/// Longer than three probes of the slowest.
const LATE_FOR: Duration = Duration::from_secs(20);

/// The peer: https://github.com/ephur/tcp-health-proxy, 5 s between two probes.
fn peer() -> String {
    env::var("TCP_HEALTH_PROXY").expect("TCP_HEALTH_PROXY=the path of a built tcp-health-proxy")
}

fn commands(url: &str, address: &str) -> [(&'static str, Kind, String); 4] {
    let port = |number: u16| FIRST_PORT + number;
    let listen = |number| format!("{BINARY} --url {url} --listen {address}:{}", port(number));
    let peer = peer();
    let theirs = format!("{peer} --check-uri {url} --bind-address {address} --bind-port");
    let shell = concat!("sh ", env!("CARGO_MANIFEST_DIR"), "/tests/bench/loop.sh");
    [
        ("healthport", Kind::Healthport, listen(0)),
        (
            "`--timeout 500ms --fall 1`",
            Kind::Healthport,
            listen(1) + " --timeout 500ms --fall 1",
        ),
        (
            "tcp-health-proxy",
            Kind::Floor,
            format!("{theirs} {}", port(2)),
        ),
        (
            "curl and socat",
            Kind::Shell,
            format!("{shell} {url} 1 {address} {}", port(3)),
        ),
    ]
}

pub fn print() {
    let (kernel, address) = (Kernel::new(), own_address());
    let service = Service::router(address);
    let mut names = vec![""];
    let mut subjects = Vec::new();
    let commands = commands(&service.url(), &address.to_string());
    for (number, (name, kind, line)) in commands.into_iter().enumerate() {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).env_remove("NOTIFY_SOCKET");
        let port = (address, FIRST_PORT + number as u16).into();
        names.push(name);
        subjects.push(Subject::run(kind, command, port));
    }

    // Seconds until each port is as wanted; at most `limit`.
    let turn = |open: bool, limit: Duration| {
        let start = Instant::now();
        let mut took = [f64::INFINITY; 4];
        while start.elapsed() < limit && took.contains(&f64::INFINITY) {
            for (took, subject) in took.iter_mut().zip(&subjects) {
                if took.is_infinite() && kernel.listens(subject.port) == open {
                    *took = start.elapsed().as_secs_f64();
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
        took
    };
    let ready = || {
        service.ready();
        assert!(
            !turn(true, HANG).contains(&f64::INFINITY),
            "one stays closed"
        );
        // At any time between two probes of the slowest.
        thread::sleep(Duration::from_secs_f64(5.0 * fastrand::f64()));
    };

    let mut closes: [Vec<f64>; 4] = Default::default();
    for _ in 0..CHANGES {
        ready();
        service.not_ready();
        for (closes, took) in closes.iter_mut().zip(turn(false, HANG)) {
            closes.push(took);
        }
    }
    ready();
    let memory: Vec<_> = subjects.iter().map(|one| one.status("VmRSS")).collect();
    service.does(|mut stream| {
        crate::common::read_head(&mut stream);
        thread::sleep(LATE);
        let _ = std::io::Write::write_all(&mut stream, READY.as_bytes());
    });
    let late = turn(false, LATE_FOR);
    ready();
    service.hangs();
    let hang = turn(false, HANG);

    let cells = |name: &str, cell: &dyn Fn(usize) -> String| {
        let cells = (0..subjects.len()).map(cell);
        row(&[name.to_string()]
            .into_iter()
            .chain(cells)
            .collect::<Vec<_>>());
    };
    let stays = |took: f64| match took {
        took if took.is_finite() => format!("closes after {took:.1} s"),
        _ => "stays open".to_string(),
    };
    head(&names);
    cells("not ready: closes after, p50", &|n| {
        format!("{:.1} s", median(&closes[n]))
    });
    cells("longest of 20", &|n| {
        format!("{:.1} s", percentile(&closes[n], 100))
    });
    cells("hangs for 30 s", &|n| stays(hang[n]));
    cells("ready, but answers after 1.9 s", &|n| stays(late[n]));
    cells("resident memory", &|n| {
        format!("{:.1} MiB", memory[n] / 1024.0)
    });
    let size = |path: &str| fs::metadata(path).unwrap().len() as f64 / 1e6;
    println!(
        "\nBinaries: healthport {:.1} MB, tcp-health-proxy {:.1} MB.",
        size(BINARY),
        size(&peer())
    );
}
