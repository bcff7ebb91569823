//! Every interleaving of renew, expire, close and open, explored by loom: the program's
//! own lease.rs, helper.rs and ports.rs (build.rs) over a scripted kernel. Every story ends by
//! itself. If nobody closes a port, loom reports a deadlock.
//!
//!     cd tests/model && RUSTFLAGS= cargo run --release [PREEMPTIONS]
//!
//! prints the number of interleavings, in about 8 s. It explores the first story in full,
//! the others with up to 3 preemptions, or as many as you say: 4 take half an hour at least.
//! (RUSTFLAGS is empty because loom needs a procedural macro, which .cargo/config.toml
//! rules out.)

#[allow(dead_code)]
#[path = "../../src/accept.rs"]
mod accept;
mod kernel;

mod lease {
    include!(concat!(env!("OUT_DIR"), "/lease.rs"));
}

#[path = "../../src/reason.rs"]
mod reason;

mod journal {
    pub fn die(line: &str) -> ! {
        panic!("{line}")
    }
}

mod helper {
    include!(concat!(env!("OUT_DIR"), "/helper.rs"));
}

mod ports {
    #![allow(dead_code)]
    include!(concat!(env!("OUT_DIR"), "/ports.rs"));
}

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kernel::Kernel;
use lease::Lease;
use loom::thread;
use ports::{Ports, State};

/// In ticks of the model's clock.
const MAX_AGE: u64 = 2;

fn main() {
    let preemptions = std::env::args().nth(1).map(|bound| bound.parse().unwrap());
    let bound = Some(preemptions.unwrap_or(3));
    // The smallest story is the core of the lease: explore it without a bound.
    explore("the loop renews, a helper looks", None, || renewals(1));
    explore("the loop renews, two helpers look", bound, || renewals(2));
    explore("the lease expires as it is renewed", bound, expiry);
    explore("the loop opens and closes", bound, openings);
    explore("the helper hangs", bound, hang);
}

fn explore(name: &str, bound: Option<usize>, story: fn()) {
    static EXPLORED: AtomicUsize = AtomicUsize::new(0);
    let start = Instant::now();
    EXPLORED.store(0, Ordering::SeqCst);
    let mut model = loom::model::Builder::new();
    model.max_branches = 100_000;
    model.preemption_bound = bound;
    model.check(move || {
        EXPLORED.fetch_add(1, Ordering::SeqCst);
        story();
    });
    let (count, time) = (EXPLORED.load(Ordering::SeqCst), start.elapsed());
    println!("{name}: {count} interleavings in {time:.1?}");
}

fn ports(max_age: u64) -> Ports {
    let address = SocketAddr::from(([127, 0, 0, 1], 18898));
    Ports::new(&[address], Duration::from_nanos(max_age))
}

/// A renewal in time holds, whatever the helpers saw just before it. And a lease that a
/// helper has seen expire does not come back without the loop noticing.
fn renewals(helpers: usize) {
    let kernel = Kernel::boot();
    let lease = Arc::new(Lease::new(Duration::from_nanos(MAX_AGE)));
    let helper = |_| {
        let lease = Arc::clone(&lease);
        thread::spawn(move || lease.left_or_expire().is_none())
    };
    let helpers: Vec<_> = (0..helpers).map(helper).collect();
    let ticks = {
        let kernel = Arc::clone(&kernel);
        thread::spawn(move || (0..MAX_AGE).for_each(|_| kernel.tick()))
    };
    let before = kernel.now();
    let in_time = lease.renew();
    let after = kernel.now();
    let mut ran_out = false;
    for helper in helpers {
        ran_out |= helper.join().unwrap();
    }
    ticks.join().unwrap();
    assert!(in_time || after >= MAX_AGE, "lost before its time");
    assert!(!in_time || before < MAX_AGE, "renewed after its time");
    assert!(in_time || !lease.is_running(), "it came back by itself");
    if in_time && before > 0 {
        assert!(lease.is_running(), "a renewal was lost");
        assert!(!ran_out, "nobody noticed");
    }
}

/// A lease expires at the very moment at which it is renewed; then the loop stalls
/// for good.
fn expiry() {
    let kernel = Kernel::boot();
    let mut ports = ports(MAX_AGE);
    assert!(ports.renew());
    assert_eq!(ports.set(true), [State::Open]);
    let ticks = {
        let kernel = Arc::clone(&kernel);
        thread::spawn(move || (0..MAX_AGE).for_each(|_| kernel.pass(1)))
    };
    let before = kernel.now();
    let in_time = ports.renew();
    assert!(in_time || !kernel.is_open(), "open although it has expired");
    let states = ports.set(true);
    ticks.join().unwrap();
    assert!(!kernel.can_be_stolen());
    // It was renewed after the first tick and still holds.
    if before > 0 {
        assert_eq!(states, [State::Open]);
        assert!(kernel.is_open(), "a renewal in time closed the port");
    }
    kernel.pass(MAX_AGE);
    kernel.waits_until_closed();
    if states == [State::Open] {
        assert!(!ports.renew(), "the loop does not notice");
    }
    assert!(!kernel.can_be_stolen());
}

/// Opens and closes as fast as it can, while the helper still ends the last opening.
fn openings() {
    let kernel = Kernel::boot();
    let mut ports = ports(MAX_AGE);
    for _ in 0..2 {
        assert!(ports.renew());
        assert_eq!(ports.set(true), [State::Open]);
        assert!(kernel.is_open() && !kernel.can_be_stolen());
        assert_eq!(ports.set(false), [State::Closed]);
        assert!(!kernel.is_open() && !kernel.can_be_stolen());
    }
}

/// Closing does not wait for a helper that hangs, and opening adds no more than it may.
fn hang() {
    let kernel = Kernel::boot();
    let mut ports = ports(MAX_AGE);
    assert!(ports.renew());
    assert_eq!(ports.set(true), [State::Open]);
    kernel.hang(true);
    assert_eq!(ports.set(false), [State::Closed]);
    assert!(!kernel.is_open() && !kernel.can_be_stolen());
    let has_hung = kernel.has_hung();
    let states = ports.set(true);
    // The helper may have ended before it could hang.
    assert!(matches!(&states[..], [State::Failed(_)]) || !has_hung);
    ports.set(false);
    kernel.hang(false);
    assert_eq!(ports.set(true), [State::Open]);
    assert!(kernel.is_open());
}
