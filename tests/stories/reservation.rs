//! The port is ours from the start of the program to its end. Other programs on the node
//! cannot take it while it is closed, and cannot keep it closed.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{
    BINARY, Folder, Healthport, PATIENCE, Service, closed, finish, opened, own_address,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};
use rustix::process::{Signal, geteuid};

/// Not 18898: these tests try to take the port on every address, and would disturb other
/// tests and be disturbed by them.
fn own_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let next = NEXT.fetch_add(1, Ordering::SeqCst) as u32;
    20_000 + ((std::process::id() * 8 + next) % 10_000) as u16
}

/// A healthport with only this --listen; the test connects to `port`.
fn listening(listen: SocketAddr, port: SocketAddr, service: &Service) -> Healthport {
    let mut command = Command::new(BINARY);
    command.args(["--url", &service.url(), "--listen", &listen.to_string()]);
    command.args(["--interval", "10ms", "--timeout", "2s", "--fall", "1"]);
    command.env_remove("NOTIFY_SOCKET").stderr(Stdio::piped());
    let mut healthport = Healthport::spawn(port.ip(), &mut command);
    healthport.port = port;
    healthport
}

/// A socket bound to the address, with or without SO_REUSEADDR.
fn bound(address: SocketAddr, reuse: bool) -> rustix::io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, reuse)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// Whether another program can listen there.
fn can_listen(address: SocketAddr, reuse: bool) -> bool {
    match bound(address, reuse).and_then(|socket| rustix::net::listen(socket, 1)) {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error, rustix::io::Errno::ADDRINUSE, "{address}");
            false
        }
    }
}

/// The line that it logs if the port is taken.
fn taken(port: SocketAddr) -> String {
    format!("port closed: cannot listen on {port}: address in use")
}

/// Two healthports for one port: the unit beside the DaemonSet, or one started by hand.
/// The first is drained, and the second must not open what it closes.
#[test]
fn a_second_healthport_does_not_open_what_the_first_closes() {
    let folder = Folder::new();
    let drain = folder.file("drain");
    let (service, first) = opened(&["--drain-file", drain.to_str().unwrap()]);
    let second = Healthport::start(first.port.ip(), &service, &[]);
    second.says(&taken(second.port));
    std::fs::write(&drain, "").unwrap();
    first.says("drained");
    service.is_probed(100);
    assert!(!first.is_open(), "drained");
    assert_eq!(second.log().len(), 2, "{:#?}", second.log());
    drop(first);
    second.opens();
}

#[test]
fn a_port_that_is_taken_is_known_at_the_start() {
    let (_service, first) = closed(&[]);
    // It says so before the first probe has ended, which hangs.
    let silent = Service::router(own_address());
    silent.hangs();
    let second = Healthport::start(first.port.ip(), &silent, &["--timeout", "1m"]);
    second.says(&taken(second.port));
    assert_eq!(second.log().len(), 2, "{:#?}", second.log());
}

#[test]
fn nobody_else_can_listen_while_it_is_closed() {
    let address = own_address();
    let service = Service::router(address);
    let localhost = Ipv4Addr::LOCALHOST.into();
    let (any4, any6) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into());
    for (listen, seen, others) in [
        (address, address, &[address, any4, any6][..]),
        (any4, address, &[address, localhost, any4, any6]),
        (any6, address, &[address, localhost, any4, any6]),
    ] {
        let port = own_port();
        let healthport = listening((listen, port).into(), (seen, port).into(), &service);
        let all_refused = || {
            service.is_probed(5);
            for &other in others {
                for reuse in [false, true] {
                    let other = SocketAddr::new(other, port);
                    assert!(!can_listen(other, reuse), "{other} beside {listen}:{port}");
                }
            }
            assert!(!healthport.is_open(), "a SYN gets RST");
        };
        healthport.says("port closed: answered 500");
        all_refused();
        service.ready();
        healthport.opens();
        service.not_ready();
        healthport.closes();
        all_refused();
        // Now its connections are in TIME_WAIT. The next process gets the port all the
        // same, and nobody else does.
        drop(healthport);
        let healthport = listening((listen, port).into(), (seen, port).into(), &service);
        healthport.says("port closed: answered 500");
        assert!(!can_listen((seen, port).into(), true));
        service.ready();
        healthport.opens();
        service.not_ready();
        assert_eq!(healthport.count("cannot listen"), 0);
    }
}

/// The man page's CAVEATS say why. The test has its own network, where the range can be
/// narrow.
#[test]
#[ignore = "needs unshare and ip"]
fn the_kernel_does_not_choose_it_as_a_source_port() {
    if std::env::var("INSIDE").is_err() {
        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.arg("--map-root-user");
        }
        let test = std::env::current_exe().unwrap();
        command.arg("--net").arg(test).env("INSIDE", "yes");
        let this = "reservation::the_kernel_does_not_choose_it_as_a_source_port";
        command.args(["--exact", this, "--ignored"]);
        let (code, stdout, stderr) = finish(&mut command);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        assert!(stdout.contains("1 passed"), "{stdout}");
        return;
    }
    let (_, _, said) = finish(Command::new("ip").args(["link", "set", "lo", "up"]));
    assert_eq!(said, "");
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "18850 18949").unwrap();
    let (service, healthport) = closed(&[]);
    let address = healthport.port.ip();
    // Connect from this address to one place until there is no port left.
    let other = TcpListener::bind((address, 80)).unwrap();
    let mut connections = Vec::new();
    let refused = loop {
        match TcpStream::connect(other.local_addr().unwrap()) {
            Ok(stream) => connections.push((stream, other.accept().unwrap())),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::AddrNotAvailable);
    let source = |stream: &TcpStream| stream.local_addr().unwrap().port();
    let taken = connections
        .iter()
        .any(|(stream, _)| source(stream) == 18898);
    assert!(!taken, "18898 is the source port of a connection");
    assert!(connections.len() > 90, "{} connections", connections.len());
    service.ready();
    healthport.opens();
}

/// Many switches check at the same moment while the helper does not run. With a backlog of
/// 128, as `std` asks for, the others waited for their second SYN, a second later.
#[test]
fn hundreds_of_checks_at_the_same_moment_do_not_wait() {
    let (_service, healthport) = opened(&["--max-age", "4m"]);
    healthport.signal(Signal::STOP);
    let limit = Duration::from_millis(50);
    let check = |_| TcpStream::connect_timeout(&healthport.port, limit).ok();
    // The first that has to wait is enough to know.
    let checks: Vec<_> = (0..600).map_while(check).collect();
    healthport.signal(Signal::CONT);
    assert_eq!(checks.len(), 600, "one had to wait");
    // The helper then serves each of them.
    for mut check in checks {
        check.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(check.read(&mut [0]).unwrap(), 0);
    }
}
