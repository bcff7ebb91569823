//! Stories of the running program: what the service did, what the port did, and
//! what the log said about it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, thread};

use crate::common::{
    Folder, Healthport, NOT_READY, READY, Service, closed, eventually, is_open, opened,
    own_address, read_head,
};
use rustix::process::Signal;

#[test]
fn the_port_follows_the_service() {
    let (service, healthport) = closed(&[]);
    assert!(!healthport.is_open(), "a first answer that is bad");
    let moved = "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n";
    for bad in [None, Some("garbage"), Some(moved)] {
        service.ready();
        healthport.opens();
        match bad {
            Some(answer) => service.says(answer),
            None => service.hangs(),
        }
        healthport.closes();
    }
}

/// The interval runs from start to start, without drift, and without a burst after a
/// probe that overran.
#[test]
fn probes_keep_their_interval() {
    let ms = Duration::from_millis;
    let service = Service::router(own_address());
    let starts = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&starts);
    service.answers(move |number| {
        times.lock().unwrap().push(Instant::now());
        // The tenth takes 22 intervals, and so more than two beats.
        thread::sleep(if number == 9 { ms(2200) } else { ms(0) });
        READY
    });
    let args = ["--interval", "100ms", "--timeout", "1m"];
    let _healthport = Healthport::start(service.address.ip(), &service, &args);
    eventually("thirty probes", || starts.lock().unwrap().len() >= 30);
    let starts = starts.lock().unwrap();
    // Nine intervals, the slow probe, then nineteen more: a burst would make them shorter,
    // drift longer.
    let (slow, then) = (starts[10] - starts[9], starts[29] - starts[10]);
    assert!(slow >= ms(2190), "{slow:?}");
    assert!(then >= ms(1850), "a burst: {then:?}");
    assert!(then < ms(1900 + 5000), "{then:?}");
}

/// In about 1 ms: in the sleep, between short probes, and in a probe that hangs (with
/// --fall 2 the port is still open then).
#[test]
fn a_signal_closes_the_port_and_ends_the_process() {
    for signal in [Signal::TERM, Signal::INT] {
        for args in [
            &["--interval", "1m"][..],
            &["--interval", "20ms"],
            &["--timeout", "1m", "--fall", "2"],
        ] {
            let (service, mut healthport) = opened(args);
            if args.contains(&"--timeout") {
                service.hangs();
                service.is_probed(1);
                assert!(healthport.is_open());
            }
            healthport.signal(signal);
            healthport.closes();
            assert_eq!(healthport.exits().code(), Some(0));
        }
    }
}

/// Between two probes there is time for a last line. A signal that comes before the loop
/// sleeps ends the process from the handler, without that line, so the test tries a few
/// times.
#[test]
fn sigterm_in_sleep_is_logged() {
    for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT")] {
        let last = format!("{name}: port closed, stopping; it was: port open: answered 200 (for ");
        let said = (0..10).any(|_| {
            let (service, folder) = (Service::start(), Folder::new());
            let manager = Manager::new(folder.file("notify").to_str().unwrap());
            let mut healthport = notified(&manager.name, &service, &["--interval", "1m"], "0");
            healthport.says("port open on");
            healthport.signal(signal);
            healthport.exits();
            let said = healthport.log().iter().any(|line| line.starts_with(&last));
            if said {
                eventually("systemd hears it too", || {
                    manager.count("STOPPING=1\nSTATUS=stopping") == 1
                });
            }
            said
        });
        assert!(said, "{last}");
    }
}

#[test]
fn sigusr1_reports_and_probes_at_once() {
    let (service, healthport) = opened(&["--interval", "1m"]);
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
    let (service, healthport) = opened(&["--expect-body", "ok"]);
    service.does(|mut stream| {
        read_head(&mut stream);
        for byte in READY.bytes() {
            thread::sleep(Duration::from_millis(2));
            let _ = stream.write_all(&[byte]);
        }
    });
    let enough = service.connections() + 10;
    while service.connections() < enough {
        healthport.signal(Signal::USR1);
        thread::sleep(Duration::from_millis(1));
    }
    let log = healthport.log();
    assert_eq!(healthport.count("port closed"), 0, "{log:#?}");
    assert!(healthport.is_open());
}

#[test]
fn the_drain_file_closes_whatever_the_service_says() {
    let folder = Folder::new();
    let drain = folder.file("drain");
    let path = drain.to_str().unwrap();
    let (service, healthport) = opened(&["--drain-file", path]);
    fs::write(&drain, "").unwrap();
    healthport.closes();
    let line = format!(
        "port closed on {}: drained, \"{path}\" exists",
        healthport.port
    );
    healthport.says(&line);
    service.is_probed(10); // it goes on
    assert!(!healthport.is_open());
    fs::remove_file(&drain).unwrap();
    healthport.opens();
    // It may be drained from the start. And in doubt it is drained: nothing can exist
    // below a file, and the look fails.
    fs::write(&drain, "").unwrap();
    let below = format!("{path}/below");
    for (file, line) in [
        (path, "port closed: drained, "),
        (&below, "drained, cannot check for"),
    ] {
        let args = ["--drain-file", file];
        let drained = Healthport::start(own_address(), &service, &args);
        drained.says(line);
        service.is_probed(10);
        assert!(!drained.is_open());
    }
}

#[test]
fn several_addresses_in_one_process() {
    let service = Service::start();
    let address = service.address.ip();
    let v6 = TcpListener::bind("[::1]:0").unwrap();
    let others = [
        SocketAddr::from((own_address(), 18899)),
        SocketAddr::from((address, 18900)),
        v6.local_addr().unwrap(),
    ];
    drop(v6);
    let listen = others.map(|other| format!("--listen={other}"));
    let listen = listen.each_ref().map(String::as_str);
    let healthport = Healthport::start(address, &service, &listen);
    let all = |open| {
        let mut others = others.iter();
        healthport.is_open() == open && others.all(|&port| is_open(port) == open)
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
    let log = healthport.log();
    assert_eq!(log.len(), 4, "one line for all: {log:#?}");
}

/// The start of a line where standard error is systemd's journal, and where
/// JOURNAL_STREAM means another file. A file stands in for the journal's socket.
#[test]
fn lines_for_the_journal_carry_their_priority() {
    let service = Service::start();
    let address = service.address.ip();
    let _taken = TcpListener::bind((address, 18898)).unwrap();
    let folder = Folder::new();
    let path = folder.file("journal");
    let file = fs::File::create(&path).unwrap();
    let (device, inode) = (
        file.metadata().unwrap().dev(),
        file.metadata().unwrap().ino(),
    );
    let text = || fs::read_to_string(&path).unwrap();
    let begins = |start: &str| text().lines().any(|line| line.starts_with(start));
    let run = |named: &str, args: &[&str]| {
        file.set_len(0).unwrap();
        let append = fs::File::options().append(true).open(&path).unwrap();
        let mut command = Healthport::command(address, &service, args);
        command.env("JOURNAL_STREAM", named).stderr(append);
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
    let seen = text();
    assert!(seen.lines().all(|line| line.starts_with('<')), "{seen}");

    // When the start fails, every line has the priority of an error.
    let mut failed = run(&journal, &["--rise", "0"]);
    assert_eq!(failed.exits().code(), Some(64));
    let seen = text();
    assert!(seen.starts_with("<3>healthport: --rise"), "{seen}");
    assert!(seen.ends_with("\n<3>Try 'healthport --help'\n"), "{seen}");

    for other in [
        format!("{device}:{}", inode + 1),
        device.to_string(),
        String::new(),
    ] {
        let healthport = run(&other, &[]);
        eventually("an error", || begins("ERROR [healthport] port closed"));
        drop(healthport);
        assert!(!begins("<"), "{}", text());
    }
}

#[test]
fn port_taken_logs_once_then_opens() {
    // It is logged while the service is not ready, too, and not again later.
    for ready in [true, false] {
        let service = Service::router(own_address());
        let address = service.address.ip();
        let other = TcpListener::bind((address, 18898)).unwrap();
        if ready {
            service.ready();
        }
        let healthport = Healthport::start(address, &service, &[]);
        let port = healthport.port;
        healthport.says(&format!(
            "port closed: cannot listen on {port}: address in use"
        ));
        if !ready {
            healthport.says("port closed: answered 500");
        }
        service.is_probed(20);
        let log = healthport.log();
        assert_eq!(log.len(), if ready { 2 } else { 3 }, "{log:#?}");
        assert_eq!(healthport.count("address in use"), 1);
        drop(other);
        if !ready {
            // From now on it is ours, open or not.
            eventually("taken", || TcpListener::bind(port).is_err());
            service.ready();
        }
        healthport.says(&format!("port open on {port}: answered 200"));
        assert!(healthport.is_open());
    }
}

/// The system says only EACCES.
#[test]
fn privileged_port_logs_hint() {
    let service = Service::start();
    let address = service.address.ip();
    let listen = format!("{address}:80");
    let mut command = Healthport::command(address, &service, &["--listen", &listen]);
    if rustix::process::geteuid().is_root() {
        let mut setpriv = Command::new("setpriv");
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
    let other = SocketAddr::from((own_address(), 18899));
    let listen = format!("--listen={other}");
    // TEST-NET-1 belongs to nobody.
    let (service, healthport) = opened(&["--listen=192.0.2.1:18898", &listen]);
    eventually("the one behind it opens", || is_open(other));
    let line = "port closed: cannot listen on 192.0.2.1:18898: address not available";
    healthport.says(line);
    service.is_probed(20);
    assert_eq!(healthport.count(line), 1);
}

/// Without descriptors for the probe, the accept or the listener the port is closed. The
/// program lives, does not spin, and recovers when there are descriptors again.
#[test]
fn exhausted_descriptors_close_the_port_and_are_survived() {
    let (_service, healthport) = opened(&[]);
    for _ in 0..3 {
        let said = healthport.count("Too many open files");
        healthport.limit_descriptors(3); // what is open stays open, but nothing new
        healthport.closes();
        eventually("it says why, again", || {
            healthport.count("Too many open files") > said
        });
        let (lines, cpu) = (healthport.log().len(), healthport.cpu_ticks());
        thread::sleep(Duration::from_millis(500));
        assert!(!healthport.is_open());
        let log = healthport.log();
        assert!(log.len() <= lines + 2, "{log:#?}");
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
    let (service, healthport) = opened(&["--interval", "3s"]);
    // Begin right after a probe: the next one is almost three seconds away.
    service.is_probed(1);
    thread::sleep(Duration::from_millis(100));
    let (cpu, probed) = (healthport.cpu_ticks(), service.connections());
    healthport.limit_descriptors(3);
    let _ = healthport.is_open();
    eventually("closed", || !healthport.is_open());
    assert_eq!(service.connections(), probed, "no probe has closed it");
    healthport.limit_descriptors(1024);
    let port = healthport.port;
    healthport.says(&format!("cannot accept on {port}: Too many open files"));
    healthport.opens();
    assert!(healthport.cpu_ticks() - cpu < 100);
}

/// A service manager: keeps the datagrams that it receives.
struct Manager {
    name: String,
    datagrams: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    /// On a path, or with a name that begins with `@` in the abstract namespace.
    fn new(name: &str) -> Manager {
        let address = match name.strip_prefix('@') {
            Some(name) => UnixAddr::from_abstract_name(name),
            None => UnixAddr::from_pathname(name),
        };
        let socket = UnixDatagram::bind_addr(&address.unwrap()).unwrap();
        let datagrams = Arc::new(Mutex::new(Vec::new()));
        let received = Arc::clone(&datagrams);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                received.lock().unwrap().push(text.into_owned());
            }
        });
        let name = name.to_string();
        Manager { name, datagrams }
    }

    /// How many datagrams contain this.
    fn count(&self, part: &str) -> usize {
        let datagrams = self.datagrams.lock().unwrap();
        let with = datagrams.iter().filter(|datagram| datagram.contains(part));
        with.count()
    }
}

/// A healthport that systemd has started, with WatchdogSec in microseconds.
fn notified(socket: &str, service: &Service, args: &[&str], watchdog: &str) -> Healthport {
    let address = own_address();
    let mut command = Healthport::command(address, service, args);
    command
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", watchdog)
        .env_remove("WATCHDOG_PID");
    Healthport::spawn(address, command.stderr(Stdio::piped()))
}

#[test]
fn systemd_is_told_what_is_true() {
    let (service, folder) = (Service::router(own_address()), Folder::new());
    let manager = Manager::new(folder.file("notify").to_str().unwrap());
    let answered = Arc::new(AtomicBool::new(false));
    let has_answered = Arc::clone(&answered);
    service.answers(move |_| {
        thread::sleep(Duration::from_millis(300));
        has_answered.store(true, Ordering::SeqCst);
        NOT_READY
    });
    let mut healthport = notified(&manager.name, &service, &[], "60000000");
    eventually("READY=1", || manager.count("READY=1") > 0);
    assert!(answered.load(Ordering::SeqCst), "after the first probe");
    let first = "STATUS=port closed: answered 500, expected 200";
    assert_eq!(manager.count(first), 1);
    service.ready();
    eventually("the change", || {
        manager.count("STATUS=port open: answered 200") > 0
    });
    service.is_probed(20);
    healthport.signal(Signal::TERM);
    healthport.exits();
    // If the signal came during a probe, the handler ended the process without STOPPING.
    assert_eq!(manager.count("READY=1"), 1);
    assert_eq!(manager.count("STATUS=port"), 2, "only changes");
    assert_eq!(manager.count("WATCHDOG=1"), 2, "not with every probe");
}

/// The service hangs for as long as the timeout, but the loop does not sleep through it.
#[test]
fn a_hang_hides_no_signal_no_keep_alive_and_no_drain_file() {
    let (service, folder) = (Service::start(), Folder::new());
    let drain = folder.file("drain");
    let manager = Manager::new(&format!("@healthport-test-{}", own_address()));
    let args = ["--timeout", "1m", "--drain-file", drain.to_str().unwrap()];
    let healthport = notified(&manager.name, &service, &args, "5000000");
    healthport.opens();
    service.hangs();
    service.is_left_alone();
    let probes = service.connections();
    healthport.signal(Signal::USR1);
    healthport.says("port open: answered 200 (for ");
    let before = manager.count("WATCHDOG=1");
    eventually("keep-alives", || manager.count("WATCHDOG=1") >= before + 3);
    // A symlink that points nowhere drains too.
    symlink("nowhere", &drain).unwrap();
    healthport.closes();
    healthport.says("drained, ");
    assert_eq!(healthport.count("no complete answer"), 0);
    assert!(service.connections() <= probes + 1);
}

#[test]
fn the_watchdog_is_fed_by_progress_also_in_a_long_sleep() {
    let service = Service::start();
    let manager = Manager::new(&format!("@healthport-test-{}", own_address()));
    let args = ["--interval", "1m", "--timeout", "100ms"];
    let mut healthport = notified(&manager.name, &service, &args, "400000");
    let fed = || manager.count("WATCHDOG=1");
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

/// Nobody listens there; no socket can have so long a path; an empty one is none.
#[test]
fn notify_socket_missing_logs_once() {
    let folder = Folder::new();
    let nobody = folder.file("nobody").to_str().unwrap().to_string();
    for (path, lines) in [(nobody, 1), ("x".repeat(108), 1), (String::new(), 0)] {
        let service = Service::start();
        let healthport = notified(&path, &service, &[], "200000");
        healthport.opens();
        service.is_probed(50);
        service.not_ready();
        healthport.closes();
        let warned = healthport.count("cannot notify systemd");
        assert_eq!(warned, lines, "{:#?}", healthport.log());
    }
}
