//! Stories of the running program: what the service did, what the port did, and
//! what the log said about it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    Folder, Healthport, PATIENCE, READY, Service, eventually, is_open, own_address, proc,
    read_head, within,
};
use rustix::process::Signal;

/// Waits until the program has probed `count` more times.
fn probes(service: &Service, count: usize) {
    let enough = service.connections() + count;
    eventually("more probes", || service.connections() >= enough);
}

#[test]
fn the_port_follows_the_service() {
    let address = own_address();
    let service = Service::router(address);
    let healthport = Healthport::start(address, &service, &[]);
    healthport.says("port closed: answered 500, expected 200");
    assert!(
        !healthport.is_open(),
        "a first answer that is bad does not open"
    );
    service.ready();
    healthport.opens();
    service.hangs();
    healthport.closes();
    service.ready();
    healthport.opens();
    service.says("garbage");
    healthport.closes();
    service.ready();
    healthport.opens();
    service.says("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n");
    healthport.closes();
    // The port closes before its helper has ended, and a probe has a socket too: count
    // what there is between two probes.
    let threads = |count| eventually("so many threads", || healthport.status("Threads") == count);
    let descriptors = || {
        // For three intervals: a probe takes longer on a busy machine.
        let looks = (0..30).map(|_| {
            thread::sleep(Duration::from_millis(2));
            healthport.descriptors()
        });
        looks.min().unwrap()
    };
    threads(2);
    let closed = descriptors();
    service.ready();
    healthport.opens();
    threads(2);
    assert_eq!(descriptors(), closed + 1, "the listener");
}

#[test]
fn every_probe_is_a_line_at_debug_only() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let healthport = Healthport::start(address, &service, &["--log-level", "debug"]);
    healthport.says("probe: ok: answered 200");
    let before = healthport.count("probe: ok");
    probes(&service, 10);
    eventually("a line for each", || {
        healthport.count("probe: ok") >= before + 9
    });
    let quiet = Healthport::start(own_address(), &service, &["--log-level", "error"]);
    quiet.opens();
    probes(&service, 10);
    assert!(quiet.log().is_empty(), "{:#?}", quiet.log());
}

/// Makes the service play a script, one answer per probe: `+` good, `-` bad.
fn plays(service: &Service, script: &'static str) -> Arc<AtomicUsize> {
    let next = Arc::new(AtomicUsize::new(0));
    let position = Arc::clone(&next);
    service.does(move |mut stream| {
        read_head(&mut stream);
        let good = script
            .as_bytes()
            .get(position.fetch_add(1, Ordering::SeqCst))
            == Some(&b'+');
        let _ = stream.write_all(
            if good {
                READY
            } else {
                crate::common::NOT_READY
            }
            .as_bytes(),
        );
    });
    next
}

#[test]
fn rise_and_fall_count_consecutive_answers() {
    let address = own_address();
    let service = Service::router(address);
    plays(&service, "++-+++--+--+----");
    let args = ["--rise", "3", "--fall", "3", "--log-level", "debug"];
    let healthport = Healthport::start(address, &service, &args);
    let letter = |line: &String| match line.as_str() {
        line if line.starts_with("probe: ok") => Some('+'),
        line if line.starts_with("probe: status") => Some('-'),
        line if line.starts_with("port open on") => Some('O'),
        line if line.starts_with("port closed on") => Some('C'),
        _ => None,
    };
    let letters = || -> String { healthport.log().iter().filter_map(letter).collect() };
    eventually("the probe that closed it", || letters().contains("C-"));
    let letters = letters();
    // The line of a change comes before that of the probe that caused it.
    assert!(letters.starts_with("++-++O+--+--+--C-"), "{letters}");
    assert_eq!(
        healthport.count("3 of 3"),
        0,
        "a count that is full is a change"
    );
}

/// --check-config prints for the defaults: closes 1.1 s after a bad answer and 7 s after
/// a hang, opens 1 s after a good answer, each plus one probe. A busy machine adds its
/// noise, so the test also counts from the first bad answer, which noise cannot hide.
#[test]
fn the_defaults_react_in_the_times_that_they_print() {
    const NOISE: Duration = Duration::from_secs(5);
    let ms = Duration::from_millis;
    let address = own_address();
    let service = Service::router(address);
    let healthport = Healthport::with_defaults(address, &service, &["--timeout", "3s"]);
    let changes = |within: Duration, open: bool| {
        let start = Instant::now();
        let what = if open { "open port" } else { "closed port" };
        crate::common::within(within + NOISE, what, || healthport.is_open() == open);
        start.elapsed()
    };
    let mut fastest = Duration::MAX;
    for _ in 0..3 {
        service.ready();
        changes(ms(1000), true);
        service.not_ready();
        let (begun, start) = (service.connections(), Instant::now());
        eventually("a bad answer", || service.connections() > begun);
        assert!(start.elapsed() < ms(1000) + NOISE, "an interval");
        fastest = fastest.min(changes(ms(100), false));
    }
    // The second probe comes after 100 ms, not after another second.
    assert!(fastest < ms(900), "{fastest:?} from the first bad answer");

    service.ready();
    changes(ms(1000), true);
    service.hangs();
    let took = changes(ms(7000), false);
    assert!(took >= ms(5000), "closed after one timeout: {took:?}");
    healthport.says("no complete answer within 3s (open");
}

/// A ready router with 30,000 routes, which all routers of a cluster write at the same
/// moment (7 and 9 s measured).
#[test]
fn answers_that_are_late_do_not_close_the_port() {
    let address = own_address();
    let service = Service::router(address);
    let asked = AtomicUsize::new(0);
    service.does(move |mut stream| {
        read_head(&mut stream);
        let late = match asked.fetch_add(1, Ordering::SeqCst) {
            1 => 9,
            2 => 7,
            _ => 0,
        };
        thread::sleep(Duration::from_secs(late));
        let _ = stream.write_all(READY.as_bytes());
    });
    let healthport = Healthport::with_defaults(address, &service, &[]);
    healthport.opens();
    within(2 * PATIENCE, "both late answers", || {
        service.connections() > 4
    });
    assert_eq!(healthport.count("port closed on"), 0);
    assert!(healthport.is_open());
}

#[test]
fn two_reasons_in_turn_are_two_lines() {
    let address = own_address();
    let service = Service::router(address);
    let number = AtomicUsize::new(502);
    service.does(move |mut stream| {
        read_head(&mut stream);
        let status = number.fetch_xor(502 ^ 504, Ordering::SeqCst);
        let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
    });
    let healthport = Healthport::start(address, &service, &[]);
    probes(&service, 50);
    assert_eq!(healthport.log().len(), 3, "{:#?}", healthport.log());
}

/// The interval runs from start to start, without drift, and without a burst after a
/// probe that overran.
#[test]
fn probes_keep_their_interval() {
    let address = own_address();
    let service = Service::router(address);
    let starts = Arc::new(Mutex::new(Vec::new()));
    let (times, slow) = (Arc::clone(&starts), Arc::new(AtomicUsize::new(0)));
    let number = Arc::clone(&slow);
    service.does(move |mut stream| {
        times.lock().unwrap().push(Instant::now());
        read_head(&mut stream);
        // The tenth takes five intervals.
        if number.fetch_add(1, Ordering::SeqCst) == 9 {
            thread::sleep(Duration::from_millis(500));
        }
        let _ = stream.write_all(READY.as_bytes());
    });
    let _healthport = Healthport::start(address, &service, &["--interval", "100ms"]);
    eventually("thirty probes", || starts.lock().unwrap().len() >= 30);
    let starts = starts.lock().unwrap();
    let gap = |from: usize, to: usize| starts[to] - starts[from];
    // Nine intervals, five for the slow probe, then nineteen more: a burst would make
    // them shorter, drift longer.
    assert!(gap(9, 10) >= Duration::from_millis(490), "{:?}", gap(9, 10));
    assert!(
        gap(10, 29) >= Duration::from_millis(1850),
        "a burst: {:?}",
        gap(10, 29)
    );
    assert!(
        gap(10, 29) < Duration::from_millis(1900) + Duration::from_secs(5),
        "{:?}",
        gap(10, 29)
    );
}

/// A loop that asks the clock again and again would do the same otherwise.
#[test]
fn it_sleeps_between_two_probes() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let healthport = Healthport::start(address, &service, &["--interval", "1m"]);
    healthport.opens();
    let sleeps = || proc::sleeps(healthport.child.id());
    eventually("it sleeps", sleeps);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(5));
        assert!(sleeps());
    }
}

/// First the port closes, then the process ends.
fn ends(mut healthport: Healthport, signal: Signal) {
    healthport.signal(signal);
    // In about 1 ms. What these tests wait for is far shorter than the minute that the
    // sleep or the probe takes which the signal interrupts.
    healthport.closes();
    assert_eq!(healthport.exits().code(), Some(0));
}

#[test]
fn a_signal_closes_the_port_and_ends_the_process() {
    for signal in [Signal::TERM, Signal::INT] {
        for interval in ["20ms", "1m"] {
            let address = own_address();
            let service = Service::router(address);
            service.ready();
            let healthport = Healthport::start(address, &service, &["--interval", interval]);
            healthport.opens();
            ends(healthport, signal);
        }
    }
}

/// Between two probes there is time for a last line. A signal that comes before the loop
/// sleeps ends the process from the handler, without that line, so the test tries a few
/// times.
#[test]
fn a_stop_in_the_sleep_is_said() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let last = format!("{name}: port closed, stopping; it was: port open: answered 200 (for ");
        let said = (0..10).any(|_| {
            let (address, folder) = (own_address(), Folder::new());
            let path = folder.file("notify");
            let datagrams = manager(UnixDatagram::bind(&path).unwrap());
            let service = Service::router(address);
            service.ready();
            let args = ["--interval", "1m"];
            let mut healthport = notified(path.to_str().unwrap(), address, &service, &args, "0");
            healthport.says("port open on");
            healthport.signal(signal);
            healthport.exits();
            let said = healthport.log().iter().any(|line| line.starts_with(&last));
            let stopping = || {
                let datagrams = datagrams.lock().unwrap();
                datagrams
                    .iter()
                    .any(|datagram| datagram == "STOPPING=1\nSTATUS=stopping")
            };
            if said {
                eventually("systemd hears it too", stopping);
            }
            said
        });
        assert!(said, "{last}");
    }
}

#[test]
fn a_signal_does_not_wait_for_a_hung_probe() {
    for signal in [Signal::TERM, Signal::INT] {
        let address = own_address();
        let service = Service::router(address);
        service.ready();
        // With fall 2 the port is still open while the second probe hangs.
        let args = ["--timeout", "1m", "--fall", "2"];
        let healthport = Healthport::start(address, &service, &args);
        healthport.opens();
        service.hangs();
        probes(&service, 1);
        assert!(healthport.is_open());
        ends(healthport, signal);
    }
}

#[test]
fn sigusr1_reports_and_probes_at_once() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let healthport = Healthport::start(address, &service, &["--interval", "1m"]);
    healthport.opens();
    service.not_ready();
    let before = service.connections();
    healthport.signal(Signal::USR1);
    healthport.closes();
    healthport.says("port open: answered 200 (for ");
    assert_eq!(service.connections(), before + 1);
    healthport.signal(Signal::USR1);
    healthport.says("port closed: answered 500, expected 200 (for ");
}

/// EINTR in the middle of an answer does not make it a bad one.
#[test]
fn signals_during_a_probe_do_not_fail_it() {
    let address = own_address();
    let service = Service::router(address);
    service.does(|mut stream| {
        read_head(&mut stream);
        for byte in READY.bytes() {
            thread::sleep(Duration::from_millis(2));
            let _ = stream.write_all(&[byte]);
        }
    });
    let healthport = Healthport::start(address, &service, &[]);
    healthport.opens();
    let enough = service.connections() + 10;
    while service.connections() < enough {
        healthport.signal(Signal::USR1);
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(
        healthport.count("port closed"),
        0,
        "{:#?}",
        healthport.log()
    );
    assert!(healthport.is_open());
}

#[test]
fn the_drain_file_closes_whatever_the_service_says() {
    let (address, folder) = (own_address(), Folder::new());
    let drain = folder.file("drain");
    let service = Service::router(address);
    service.ready();
    let path = drain.to_str().unwrap();
    let healthport = Healthport::start(address, &service, &["--drain-file", path]);
    healthport.opens();
    std::fs::write(&drain, "").unwrap();
    healthport.closes();
    healthport.says(&format!(
        "port closed on {address}:18898: drained, \"{path}\" exists"
    ));
    probes(&service, 10); // it goes on
    assert!(!healthport.is_open());
    std::fs::remove_file(&drain).unwrap();
    healthport.opens();
    // It may be drained from the start.
    std::fs::write(&drain, "").unwrap();
    let other = own_address();
    let drained = Healthport::start(other, &service, &["--drain-file", path]);
    drained.says("port closed: drained");
    probes(&service, 10);
    assert!(!drained.is_open());
    // In doubt it is drained: nothing can exist below a file, and the look fails.
    let below = folder.file("drain/below");
    let doubtful = Healthport::start(
        own_address(),
        &service,
        &["--drain-file", below.to_str().unwrap()],
    );
    doubtful.says("drained, cannot check for");
    probes(&service, 10);
    assert!(!doubtful.is_open());
}

#[test]
fn several_addresses_in_one_process() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let v6 = {
        let free = TcpListener::bind("[::1]:0").unwrap();
        free.local_addr().unwrap()
    };
    let others = [
        SocketAddr::from((own_address(), 18899)),
        SocketAddr::from((address, 18900)),
        v6,
    ];
    let listen: Vec<_> = others
        .iter()
        .flat_map(|other| ["--listen".to_string(), other.to_string()])
        .collect();
    let listen: Vec<_> = listen.iter().map(String::as_str).collect();
    let healthport = Healthport::start(address, &service, &listen);
    let all = |open| {
        std::iter::once(&healthport.port)
            .chain(&others)
            .all(|&port| is_open(port) == open)
    };
    eventually("all open", || all(true));
    // A connect succeeds before the helper runs.
    eventually("one helper per address", || {
        healthport.status("Threads") == 5
    });
    service.not_ready();
    eventually("all closed", || all(false));
    service.ready();
    eventually("all open again", || all(true));
    eventually("its line", || healthport.count("port open on") == 2);
    assert_eq!(
        healthport.log().len(),
        4,
        "one line for all: {:#?}",
        healthport.log()
    );
}

/// The start of a line where standard error is systemd's journal, and where
/// JOURNAL_STREAM means another file. A file stands in for the journal's socket.
#[test]
fn lines_for_the_journal_carry_their_priority() {
    use std::os::unix::fs::MetadataExt;
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let taken = TcpListener::bind((address, 18898)).unwrap();
    let folder = Folder::new();
    let path = folder.file("journal");
    let file = std::fs::File::create(&path).unwrap();
    let (device, inode) = (
        file.metadata().unwrap().dev(),
        file.metadata().unwrap().ino(),
    );
    let lines = || -> Vec<String> {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(str::to_string).collect()
    };
    let begins = |start: &str| lines().iter().any(|line| line.starts_with(start));
    let stderr = || {
        file.set_len(0).unwrap();
        let append = std::fs::File::options().append(true).open(&path);
        Stdio::from(append.unwrap())
    };
    let run = |named: &str, args: &[&str]| {
        let mut command = Healthport::command(address, &service, args);
        command.env("JOURNAL_STREAM", named).stderr(stderr());
        Healthport::spawn(address, &mut command)
    };

    let journal = format!("{device}:{inode}");
    let healthport = run(&journal, &["--log-level", "debug"]);
    eventually("an error", || {
        begins("<3>ERROR [healthport] port closed: cannot listen")
    });
    eventually("a probe", || begins("<7>DEBUG [healthport] probe: ok"));
    assert!(begins("<6>INFO  [healthport] healthport "));
    drop(healthport);
    let seen = lines();
    assert!(seen.iter().all(|line| line.starts_with('<')), "{seen:#?}");

    // When the start fails, every line has the priority of an error.
    let mut failed = run(&journal, &["--rise", "0"]);
    assert_eq!(failed.exits().code(), Some(64));
    let seen = lines();
    assert!(seen[0].starts_with("<3>healthport: --rise"), "{seen:#?}");
    assert_eq!(seen[1..], ["<3>Try 'healthport --help'"]);

    for other in [
        format!("{device}:{}", inode + 1),
        format!("{device}"),
        String::new(),
    ] {
        let healthport = run(&other, &[]);
        eventually("an error", || begins("ERROR [healthport] port closed"));
        drop(healthport);
        let seen = lines();
        assert!(!seen.iter().any(|line| line.starts_with('<')), "{seen:#?}");
    }
    drop(taken);
}

#[test]
fn a_busy_port_is_said_once_and_taken_when_it_is_free() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let other = TcpListener::bind((address, 18898)).unwrap();
    let healthport = Healthport::start(address, &service, &[]);
    let line = format!("port closed: cannot listen on {address}:18898: address in use");
    healthport.says(&line);
    probes(&service, 20);
    assert_eq!(healthport.log().len(), 2, "{:#?}", healthport.log());
    drop(other);
    healthport.says(&format!("port open on {address}:18898: answered 200"));
    assert!(healthport.is_open());
    // It is logged while the service is not ready, too, and not again later.
    let (address, service) = (own_address(), Service::router(own_address()));
    let other = TcpListener::bind((address, 18898)).unwrap();
    let healthport = Healthport::start(address, &service, &[]);
    healthport.says("port closed: answered 500");
    probes(&service, 20);
    assert_eq!(healthport.log().len(), 3, "{:#?}", healthport.log());
    assert_eq!(healthport.count("address in use"), 1);
    drop(other);
    // From now on it is ours, open or not.
    eventually("taken", || TcpListener::bind((address, 18898)).is_err());
    service.ready();
    healthport.opens();
}

/// The system says only EACCES.
#[test]
fn a_port_that_takes_a_privilege_says_so() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let listen = format!("{address}:80");
    let mut command = Healthport::command(address, &service, &["--listen", &listen]);
    if rustix::process::geteuid().is_root() {
        let mut setpriv = std::process::Command::new("setpriv");
        setpriv
            .args(["--bounding-set", "-net_bind_service"])
            .arg(command.get_program())
            .args(command.get_args());
        command = setpriv;
    }
    let healthport = Healthport::spawn(address, command.stderr(Stdio::piped()));
    healthport.says(&format!(
        "port closed: cannot listen on {listen}: permission denied, \
         see SocketBindAllow= in the unit; ports below 1024 need a privilege"
    ));
    healthport.opens();
}

#[test]
fn an_address_that_is_not_there_is_waited_for() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    // TEST-NET-1 belongs to nobody.
    let args = ["--listen", "192.0.2.1:18898"];
    let healthport = Healthport::start(address, &service, &args);
    healthport.opens();
    let line = "port closed: cannot listen on 192.0.2.1:18898: address not available";
    healthport.says(line);
    probes(&service, 20);
    assert_eq!(healthport.count(line), 1);
}

/// Without descriptors for the probe, the accept or the listener the port is closed. The
/// program lives, does not spin, and recovers when there are descriptors again.
#[test]
fn exhausted_descriptors_close_the_port_and_are_survived() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let healthport = Healthport::start(address, &service, &[]);
    healthport.opens();
    for _ in 0..3 {
        healthport.limit_descriptors(3); // what is open stays open, but nothing new
        healthport.closes();
        healthport.says("Too many open files");
        let (lines, cpu) = (healthport.log().len(), healthport.cpu_ticks());
        thread::sleep(Duration::from_millis(500));
        assert!(!healthport.is_open());
        assert!(
            healthport.log().len() <= lines + 3,
            "{:#?}",
            healthport.log()
        );
        // A program that spins would use the whole half second, 50 ticks of 10 ms.
        let spent = healthport.cpu_ticks() - cpu;
        assert!(spent < 25, "{spent} ticks of CPU time in half a second");
        healthport.limit_descriptors(1024);
        healthport.opens();
    }
}

/// The same for the helper alone: a client comes while there is no probe.
#[test]
fn a_helper_without_descriptors_closes_its_port() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let healthport = Healthport::start(address, &service, &["--interval", "3s"]);
    healthport.opens();
    // Begin right after a probe: the next one is almost three seconds away.
    probes(&service, 1);
    thread::sleep(Duration::from_millis(100));
    let (cpu, probed) = (healthport.cpu_ticks(), service.connections());
    healthport.limit_descriptors(3);
    let _ = is_open(healthport.port);
    crate::common::within(Duration::from_secs(2), "closed by the helper", || {
        !is_open(healthport.port)
    });
    assert_eq!(service.connections(), probed, "no probe has closed it");
    healthport.limit_descriptors(1024);
    healthport.says(&format!(
        "cannot accept on {address}:18898: Too many open files"
    ));
    healthport.opens();
    assert!(healthport.cpu_ticks() - cpu < 100);
}

fn abstract_socket(name: &str) -> UnixDatagram {
    let name = UnixAddr::from_abstract_name(&name[1..]).unwrap();
    UnixDatagram::bind_addr(&name).unwrap()
}

/// A service manager: returns the datagrams that it receives.
fn manager(socket: UnixDatagram) -> Arc<Mutex<Vec<String>>> {
    let datagrams = Arc::new(Mutex::new(Vec::new()));
    let received = Arc::clone(&datagrams);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            received
                .lock()
                .unwrap()
                .push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
    datagrams
}

fn notified(
    path: &str,
    address: std::net::IpAddr,
    service: &Service,
    args: &[&str],
    watchdog: &str,
) -> Healthport {
    let mut command = Healthport::command(address, service, args);
    command
        .env("NOTIFY_SOCKET", path)
        .env("WATCHDOG_USEC", watchdog)
        .env_remove("WATCHDOG_PID");
    Healthport::spawn(address, command.stderr(Stdio::piped()))
}

#[test]
fn systemd_is_told_what_is_true() {
    let (address, folder) = (own_address(), Folder::new());
    let path = folder.file("notify");
    let datagrams = manager(UnixDatagram::bind(&path).unwrap());
    let service = Service::router(address);
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    service.does(move |mut stream| {
        read_head(&mut stream);
        thread::sleep(Duration::from_millis(300));
        count.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(crate::common::NOT_READY.as_bytes());
    });
    let mut healthport = notified(path.to_str().unwrap(), address, &service, &[], "60000000");
    let has = |part: &str| {
        datagrams
            .lock()
            .unwrap()
            .iter()
            .any(|datagram| datagram.contains(part))
    };
    eventually("READY=1", || has("READY=1"));
    assert!(
        answered.load(Ordering::SeqCst) > 0,
        "ready only after the first probe"
    );
    assert!(has("STATUS=port closed: answered 500, expected 200"));
    service.ready();
    eventually("the change", || has("STATUS=port open: answered 200"));
    probes(&service, 20);
    healthport.signal(Signal::TERM);
    healthport.exits();
    // If the signal came during a probe, the handler ended the process without STOPPING.
    let datagrams = datagrams.lock().unwrap();
    let count = |part: &str| {
        datagrams
            .iter()
            .filter(|datagram| datagram.contains(part))
            .count()
    };
    assert_eq!(count("READY=1"), 1);
    assert_eq!(count("STATUS=port"), 2, "only changes: {datagrams:#?}");
    assert_eq!(
        count("WATCHDOG=1"),
        2,
        "not with every probe: {datagrams:#?}"
    );
}

/// The service hangs for as long as the timeout, but the loop does not sleep through it.
#[test]
fn a_hang_hides_no_signal_no_keep_alive_and_no_drain_file() {
    let (address, folder) = (own_address(), Folder::new());
    let drain = folder.file("drain");
    let name = format!("@healthport-test-{address}");
    let datagrams = manager(abstract_socket(&name));
    let service = Service::router(address);
    service.ready();
    let args = ["--timeout", "1m", "--drain-file", drain.to_str().unwrap()];
    let healthport = notified(&name, address, &service, &args, "5000000");
    healthport.opens();
    service.hangs();
    service.is_left_alone();
    let probes = service.connections();
    healthport.signal(Signal::USR1);
    healthport.says("port open: answered 200 (for ");
    let fed = || {
        datagrams
            .lock()
            .unwrap()
            .iter()
            .filter(|d| d.contains("WATCHDOG=1"))
            .count()
    };
    let before = fed();
    eventually("keep-alives", || fed() >= before + 3);
    // A symlink that points nowhere drains too.
    std::os::unix::fs::symlink("nowhere", &drain).unwrap();
    healthport.closes();
    healthport.says("drained, ");
    assert_eq!(
        healthport.count("no complete answer"),
        0,
        "it does not count"
    );
    assert!(service.connections() <= probes + 1);
}

#[test]
fn the_watchdog_is_fed_by_progress_also_in_a_long_sleep() {
    let address = own_address();
    let name = format!("@healthport-test-{address}");
    let datagrams = manager(abstract_socket(&name));
    let service = Service::router(address);
    service.ready();
    let mut healthport = notified(
        &name,
        address,
        &service,
        &["--interval", "1m", "--timeout", "100ms"],
        "400000",
    );
    let fed = || {
        datagrams
            .lock()
            .unwrap()
            .iter()
            .filter(|datagram| datagram.contains("WATCHDOG=1"))
            .count()
    };
    eventually("keep-alives between two probes", || fed() >= 10);
    assert_eq!(service.connections(), 1);
    healthport.signal(Signal::STOP);
    let asleep = fed();
    thread::sleep(Duration::from_millis(500));
    assert!(fed() <= asleep + 1, "nobody else feeds it");
    healthport.signal(Signal::CONT);
    eventually("alive again", || fed() > asleep + 1);
    healthport.signal(Signal::TERM);
    assert_eq!(healthport.exits().code(), Some(0));
}

#[test]
fn a_watchdog_not_longer_than_the_lease_is_warned_of() {
    let (folder, service) = (Folder::new(), Service::router(own_address()));
    let path = folder.file("notify");
    let _datagrams = manager(UnixDatagram::bind(&path).unwrap());
    for (watchdog, warnings) in [("4000000", 1), ("4000001", 0)] {
        let path = path.to_str().unwrap();
        let healthport = notified(path, own_address(), &service, &[], watchdog);
        healthport.says("port closed: answered 500");
        let line = "WatchdogSec=4s is not longer than --max-age 4s: ";
        assert_eq!(healthport.count(line), warnings);
        assert_eq!(healthport.count("WatchdogSec="), warnings);
    }
}

#[test]
fn a_manager_that_does_not_listen_is_said_once_and_borne() {
    let (address, folder) = (own_address(), Folder::new());
    let service = Service::router(address);
    service.ready();
    let path = folder.file("nobody");
    let healthport = notified(path.to_str().unwrap(), address, &service, &[], "200000");
    healthport.opens();
    healthport.says("cannot notify systemd");
    probes(&service, 50);
    service.not_ready();
    healthport.closes();
    assert_eq!(
        healthport.count("cannot notify systemd"),
        1,
        "{:#?}",
        healthport.log()
    );
    // A path that no socket can have costs the messages, not the port. An empty one is
    // none.
    service.ready();
    for (path, warnings) in [("x".repeat(108), 1), (String::new(), 0)] {
        let healthport = notified(&path, own_address(), &service, &[], "200000");
        healthport.opens();
        probes(&service, 10);
        let line = "cannot notify systemd on NOTIFY_SOCKET \"xx";
        assert_eq!(healthport.count(line), warnings);
        assert_eq!(healthport.count("cannot notify systemd"), warnings);
    }
}

#[test]
fn a_killed_process_leaves_a_closed_port() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let mut healthport = Healthport::start(address, &service, &[]);
    healthport.opens();
    healthport.child.kill().unwrap();
    crate::common::within(PATIENCE, "closed port", || !healthport.is_open());
    let again = Healthport::start(address, &service, &[]);
    again.opens();
}
