//! The port as the kernel shows it: a connect is refused when it is closed, under any
//! load, however often it opens and closes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use common::{Over, PATIENCE, eventually, is_open, own_address, proc};
use healthport::ports::{Ports, State};
use healthport::sys;
use rustix::net::sockopt;

/// A lease that never expires, not even on a busy machine.
const LONG: Duration = Duration::MAX;

/// The tests count the threads and descriptors of this process, so they run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Not 18898: the test takes the port on every address, and somebody may have that one.
fn own_port() -> u16 {
    20_000 + (std::process::id() % 10_000) as u16
}

/// How often the soak of the reservation opens the port.
const OPENINGS: usize = 3000;

fn ports(max_age: Duration) -> (Ports, SocketAddr) {
    let address = SocketAddr::new(own_address(), 18898);
    (Ports::new(&[address], max_age), address)
}

fn open(ports: &mut Ports) {
    ports.renew();
    assert_eq!(ports.set(true), [State::Open]);
}

fn close(ports: &mut Ports) {
    ports.renew();
    assert_eq!(ports.set(false), [State::Closed]);
}

/// healthport closes first, so its connections stay in TIME_WAIT on its port. A
/// listener without SO_REUSEADDR dies there with EADDRINUSE.
#[test]
fn opens_at_once_with_hundreds_in_time_wait() {
    let _alone = alone();
    let (mut ports, address) = ports(LONG);
    open(&mut ports);
    for _ in 0..400 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0); // closed by the port first
    }
    eventually("hundreds in TIME_WAIT", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let port = format!(":{:04X} ", address.port());
        let waits = |line: &&str| line.contains(&port) && line.contains(" 06 ");
        table.lines().filter(waits).count() >= 300
    });
    close(&mut ports);
    assert!(!is_open(address));
    open(&mut ports);
    assert!(is_open(address));
    // The next process finds them too; they do not let anybody else have the port.
    drop(ports);
    assert!(!is_open(address));
    let mut next = Ports::new(&[address], LONG);
    close(&mut next);
    let mut second = Ports::new(&[address], LONG);
    assert!(matches!(second.set(true)[..], [State::Failed(_)]));
    open(&mut next);
    assert!(is_open(address));
}

/// Four clients connect and two other programs try to listen, all as fast as they
/// can. No opening fails, no connect succeeds once the port is closed, nobody else ever
/// listens, and nothing is left behind.
///
/// With SO_REUSEADDR on the reservation while the listener is bound, the others had the
/// port within ten openings.
#[test]
fn thousands_of_openings_under_clients_and_thieves() {
    let _alone = alone();
    let address = SocketAddr::new(own_address(), own_port());
    let mut ports = Ports::new(&[address], LONG);
    close(&mut ports);
    let own = std::process::id();
    let size = || [proc::status(own, "Threads"), proc::descriptors(own)];
    let before = size();
    let counters: [AtomicUsize; 5] = Default::default();
    let [cycle, connects, lies, attempts, thefts] = &counters;
    let over = AtomicBool::new(false);
    let until_over = |work: &dyn Fn()| {
        while !over.load(Ordering::SeqCst) {
            work();
        }
    };
    let connect = || {
        // Odd while the port is closed for sure.
        let before = cycle.load(Ordering::SeqCst);
        let connected = TcpStream::connect_timeout(&address, PATIENCE).is_ok();
        let after = cycle.load(Ordering::SeqCst);
        connects.fetch_add(usize::from(connected), Ordering::SeqCst);
        let lie = connected && before == after && before % 2 == 1;
        lies.fetch_add(usize::from(lie), Ordering::SeqCst);
    };
    let steal = |address: SocketAddr| {
        attempts.fetch_add(1, Ordering::SeqCst);
        // With SO_REUSEADDR, as std has it.
        if TcpListener::bind(address).is_ok() {
            thefts.fetch_add(1, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        let _end = Over(&over);
        for _ in 0..4 {
            scope.spawn(|| until_over(&connect));
        }
        let wildcard = SocketAddr::from(([0, 0, 0, 0], address.port()));
        for address in [address, wildcard] {
            let (until_over, steal) = (&until_over, &steal);
            scope.spawn(move || until_over(&|| steal(address)));
        }
        let mut failed = Vec::new();
        for _ in 0..OPENINGS {
            ports.renew();
            let states = ports.set(true);
            if states != [State::Open] {
                failed.push(states);
            }
            thread::sleep(Duration::from_micros(200));
            close(&mut ports);
            cycle.fetch_add(1, Ordering::SeqCst);
            thread::sleep(Duration::from_micros(200));
            cycle.fetch_add(1, Ordering::SeqCst);
        }
        assert!(
            failed.is_empty(),
            "{} failed: {:?}",
            failed.len(),
            failed[0]
        );
    });
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    let (connects, attempts) = (count(connects), count(attempts));
    println!("{OPENINGS} openings, {connects} connects, {attempts} attempts to take the port");
    assert_eq!((count(lies), count(thefts)), (0, 0), "lies, thefts");
    assert!(connects > OPENINGS / 10 && attempts > OPENINGS);
    eventually("no more threads and descriptors", || {
        size()
            .iter()
            .zip(before)
            .all(|(now, before)| *now <= before)
    });
    open(&mut ports);
    assert!(is_open(address));
}

#[test]
fn a_lease_that_is_not_renewed_closes_every_port() {
    let _alone = alone();
    let max_age = Duration::from_secs(2);
    let addresses = [1, 2].map(|_| SocketAddr::new(own_address(), 18898));
    let mut ports = Ports::new(&addresses, max_age);
    assert!(ports.renew(), "nothing was open");
    let start = Instant::now();
    ports.set(true);
    // While the lease is renewed the port stays open for longer than --max-age, whoever
    // connects. Connect with pauses: a SYN that finds the backlog full is sent again only
    // a second later.
    let mut last = start;
    while start.elapsed() < max_age + max_age / 2 {
        last = Instant::now();
        assert!(ports.renew());
        assert!(addresses.iter().all(|&address| is_open(address)));
        thread::sleep(Duration::from_millis(5));
    }
    let are_closed = || addresses.iter().all(|&address| !is_open(address));
    eventually("both ports closed", are_closed);
    assert!(last.elapsed() >= max_age, "too early: {:?}", last.elapsed());
    // The loop continues: it learns of it once, and may open again, for as long.
    assert!(!ports.renew());
    assert_eq!(ports.set(true), [State::Open, State::Open]);
    assert!(!are_closed());
    eventually("both ports closed again", are_closed);
    assert!(!ports.renew());
    assert!(ports.renew());
}

#[test]
fn a_lease_that_ran_out_unnoticed_counts_as_run_out() {
    let _alone = alone();
    // So short that the loop may renew it before the helper has looked.
    let (mut ports, address) = ports(Duration::from_nanos(1));
    ports.renew();
    ports.set(true);
    assert!(!ports.renew());
    assert!(!is_open(address));
}

/// `[::]` serves IPv4 too, whatever the sysctl net.ipv6.bindv6only says.
#[test]
fn the_ipv6_wildcard_is_bound_for_ipv4_too() {
    let address = "[::]:0".parse().unwrap();
    let socket = sys::socket(address, &[]).unwrap();
    sockopt::set_ipv6_v6only(&socket, true).unwrap();
    sys::bind(&socket, address).unwrap();
    assert!(!sockopt::ipv6_v6only(&socket).unwrap());
}
