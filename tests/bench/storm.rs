//! Clients that connect as fast as they can, and what that does to the probes.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::kernel::Kernel;
use crate::common::{OneByOne, Over, own_address};
use crate::subject::{Kind, Subject};
use crate::table::{head, median, percentile, ratio, row};

const INTERVAL: Duration = Duration::from_millis(10);
const CLIENTS: usize = 4;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);

/// What a client does after its connect.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Client {
    /// Reads until the port closes the connection, as a check would.
    Waits,
    /// Closes at once. Then the port can be behind by as many connections as its backlog
    /// holds (4096; of the floor 128, set by `std`). The next SYN is dropped, not
    /// refused, and the client's kernel sends it again after a second.
    Floods,
}

#[derive(Default)]
struct Connects {
    good: usize,
    refused: usize,
    /// Connects whose SYN was dropped: it was sent again after a second.
    slow: usize,
}

/// One client, until told to stop.
fn connect(client: Client, port: SocketAddr, stop: &AtomicBool) -> Connects {
    let mut connects = Connects::default();
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        match TcpStream::connect(port) {
            Ok(mut stream) => {
                connects.good += 1;
                if client == Client::Waits {
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it only closes");
                }
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => connects.refused += 1,
            Err(error) => panic!("connect to {port}: {error}"),
        }
        connects.slow += usize::from(start.elapsed() > Duration::from_millis(900));
    }
    connects
}

/// What one round found.
struct Round {
    /// Connects in a second.
    rate: f64,
    refused: usize,
    slow: usize,
    /// From probe to probe, in intervals.
    gaps: Vec<f64>,
}

fn round(kind: Kind, client: Client, clients: usize) -> Round {
    let service = OneByOne::router(own_address());
    let subject = Subject::start(kind, &service, INTERVAL);
    subject.opens(&service, &Kernel::new());
    let (port, stop) = (subject.ports[0], AtomicBool::new(false));
    thread::scope(|scope| {
        let end = Over(&stop);
        let storm: Vec<_> = (0..clients)
            .map(|_| scope.spawn(|| connect(client, port, &stop)))
            .collect();
        let probes = service.answer_for(ROUND);
        drop(end);
        let gap = |pair: &[Instant]| (pair[1] - pair[0]).as_secs_f64() / INTERVAL.as_secs_f64();
        let mut round = Round {
            rate: 0.0,
            refused: 0,
            slow: 0,
            gaps: probes.windows(2).map(gap).collect(),
        };
        for connects in storm {
            let connects = connects.join().unwrap();
            round.rate += connects.good as f64 / ROUND.as_secs_f64();
            round.refused += connects.refused;
            round.slow += connects.slow;
        }
        round
    })
}

pub fn print() {
    use Client::{Floods, Waits};
    println!("{CLIENTS} clients in a loop, the probe's interval {INTERVAL:?}.\n");
    head(&[
        "",
        "connects per second",
        "refused",
        "sent again",
        "gap between probes, p50",
        "p99",
        "longest",
    ]);
    let subjects = [
        ("healthport, no storm", Kind::Healthport, Waits, 0),
        ("healthport", Kind::Healthport, Waits, CLIENTS),
        ("floor", Kind::Floor, Waits, CLIENTS),
        ("curl and socat", Kind::Shell, Waits, CLIENTS),
        (
            "healthport, clients that do not wait",
            Kind::Healthport,
            Floods,
            CLIENTS,
        ),
        (
            "floor, clients that do not wait",
            Kind::Floor,
            Floods,
            CLIENTS,
        ),
    ];
    let mut rounds: [Vec<Round>; 6] = Default::default();
    for _ in 0..ROUNDS {
        for ((_, kind, client, clients), rounds) in subjects.iter().zip(&mut rounds) {
            rounds.push(round(*kind, *client, *clients));
        }
    }
    let rate = |rounds: &[Round]| median(&rounds.iter().map(|r| r.rate).collect::<Vec<_>>());
    for ((name, ..), rounds) in subjects.iter().zip(&rounds) {
        let gaps: Vec<_> = rounds.iter().flat_map(|round| round.gaps.clone()).collect();
        let gap = |percent| format!("{:.2} x", percentile(&gaps, percent));
        let sum = |of: fn(&Round) -> usize| rounds.iter().map(of).sum::<usize>().to_string();
        row(&[
            name.to_string(),
            format!("{:.0}", rate(rounds)),
            sum(|round| round.refused),
            sum(|round| round.slow),
            gap(50),
            gap(99),
            gap(100),
        ]);
    }
    println!(
        "\nConnects, healthport to the floor: {}",
        ratio(rate(&rounds[1]), rate(&rounds[2]))
    );
}
