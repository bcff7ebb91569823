//! The lease of the running program: a loop that stalls because nobody reads its
//! log must not leave the port open, whatever the service does meanwhile.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Healthport, Service, eventually, opened, opened_unread, small_pipe};
use rustix::process::Signal;

#[test]
fn a_stalled_loop_loses_the_port_and_earns_it_again() {
    let (service, healthport, mut log) = opened_unread(&["--rise", "3", "--max-age", "3s"]);

    // Nobody reads the log: the pipe fills, the loop blocks in a line, the probes stop.
    service.is_left_alone();
    let probes = service.connections();
    let stalled = Instant::now();
    healthport.closes();
    // It takes --max-age and the helper's wake-up; the rest is for a busy machine.
    assert!(stalled.elapsed() < Duration::from_secs(3) + Duration::from_secs(3));
    assert_eq!(service.connections(), probes);

    // Somebody reads it again: the loop says what happened and must earn --rise again.
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let _ = log.read_to_string(&mut text);
        text
    });
    healthport.opens();
    // The line comes after the port has opened and before the next probe.
    let probes = service.connections();
    eventually("the next probe", || service.connections() > probes);
    drop(healthport);
    let log = reader.join().unwrap();
    // What it said, and the probes: the third good one in a row opens.
    let letters = [
        ("port open on", 'O'),
        ("the loop stood still for longer than --max-age 3s", '!'),
        ("probe: ok:", '+'),
    ];
    let letter = |line: &str| letters.iter().find(|(part, _)| line.contains(part));
    let letters: String = log.lines().filter_map(letter).map(|(_, c)| c).collect();
    let (first, then) = letters.split_once('!').expect("the stall in the log");
    assert_eq!(first.matches('O').count(), 1, "{log}");
    assert!(then.starts_with("++O"), "{log}");
    let stood = log
        .lines()
        .find(|line| line.contains("the loop stood still"));
    assert!(stood.unwrap().starts_with("ERROR"), "{log}");
}

/// While the loop is blocked in a log line, nobody looks at the signal flags.
#[test]
fn a_stalled_loop_still_ends_on_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let (service, mut healthport, _log) = opened_unread(&["--max-age", "4m"]);
        service.is_left_alone();
        assert!(healthport.is_open(), "within its lease");
        healthport.signal(signal);
        assert_eq!(healthport.exits().code(), Some(0));
        assert!(!healthport.is_open());
    }
}

#[test]
fn a_broken_standard_error_never_leaves_the_port_open() {
    let service = Service::start();
    let address = service.address.ip();
    let (log, stderr) = small_pipe();
    let mut healthport = {
        let mut command = Healthport::command(address, &service, &[]);
        Healthport::spawn(address, command.stderr(stderr))
    };
    // The port opens before the log says so. After that line nothing more is logged.
    let mut said = String::new();
    let mut log = BufReader::new(log);
    while !said.contains("port open on") {
        said.clear();
        assert!(log.read_line(&mut said).unwrap() > 0, "it ended");
    }
    drop(log);
    // There is nothing to log, so it continues.
    thread::sleep(Duration::from_millis(200));
    assert!(healthport.is_open());
    service.not_ready();
    healthport.closes();
    // It could not log that, and ends so that somebody notices.
    assert_eq!(healthport.exits().code(), Some(71));
}

#[test]
fn a_closed_standard_error_is_as_good_as_a_silent_one() {
    let service = Service::start();
    let address = service.address.ip();
    let mut shell = Command::new("sh");
    let command = Healthport::command(address, &service, &[]);
    shell.args(["-c", "exec \"$@\" 2>&-", "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    let mut healthport = Healthport::spawn(address, &mut shell);
    for _ in 0..3 {
        healthport.opens();
        service.not_ready();
        healthport.closes();
        service.ready();
    }
    healthport.opens();
    healthport.signal(Signal::TERM);
    assert_eq!(healthport.exits().code(), Some(0));
}

/// The port must not lie when the disk is full either.
#[test]
fn a_log_that_cannot_be_written_closes_the_port() {
    let service = Service::start();
    let address = service.address.ip();
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    assert!(full.write(b"x").is_err());
    let mut command = Healthport::command(address, &service, &[]);
    let mut healthport = Healthport::spawn(address, command.stderr(full));
    assert_eq!(healthport.exits().code(), Some(71));
    assert!(!healthport.is_open());
}

/// SIGSTOP stops the helper too. When it continues it must not serve the clients that
/// have gathered in the backlog as if nothing had happened.
#[test]
fn a_stopped_process_closes_when_it_goes_on() {
    let (service, healthport) = opened(&["--timeout", "100ms", "--max-age", "2s"]);
    healthport.signal(Signal::STOP);
    thread::sleep(Duration::from_millis(2500));
    service.not_ready();
    healthport.signal(Signal::CONT);
    healthport.closes();
    healthport.says("the loop stood still for longer than --max-age 2s");
    service.ready();
    healthport.opens();
}
