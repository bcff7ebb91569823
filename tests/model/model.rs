//! Every interleaving of renew, expire, close and open, explored by loom: the
//! program's own lease.rs and gate.rs (build.rs) over a scripted kernel. Each
//! story ends by itself; a port that nobody closes is a deadlock for loom.
//!
//!     cd tests/model && RUSTFLAGS= cargo run --release [PREEMPTIONS]
//!
//! prints how many interleavings there were, in about 8 s. The first story is
//! explored in full, the others with up to 3 preemptions, or as many as you say:
//! 4 take about 3 minutes. (RUSTFLAGS is empty because loom needs a procedural
//! macro, which .cargo/config.toml rules out.)

mod kernel;

mod lease {
    include!(concat!(env!("OUT_DIR"), "/lease.rs"));
}

mod gate {
    #![allow(dead_code)]
    include!(concat!(env!("OUT_DIR"), "/gate.rs"));
}

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gate::{Gate, Port};
use kernel::Kernel;
use lease::Lease;
use loom::thread;

/// In ticks of the model's clock.
const MAX_AGE: u64 = 2;

fn main() {
    let preemptions = std::env::args().nth(1).map(|bound| bound.parse().unwrap());
    let bound = Some(preemptions.unwrap_or(3));
    // The smallest holds the heart of the lease: all there is, without a bound.
    explore("the loop renews, a helper looks", None, || renewals(1));
    explore("the loop renews, two helpers look", bound, || renewals(2));
    explore("the lease runs out as it is renewed", bound, expiry);
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

fn gate(max_age: u64) -> Gate {
    let address = SocketAddr::from(([127, 0, 0, 1], 18898));
    Gate::new(&[address], Duration::from_nanos(max_age))
}

/// A renewal in time holds, whatever the helpers saw just before; and what a
/// helper has seen to run out does not come back without the loop's notice.
fn renewals(helpers: usize) {
    let kernel = Kernel::boot();
    let lease = Arc::new(Lease::new(Duration::from_nanos(MAX_AGE)));
    let helper = |_| {
        let lease = Arc::clone(&lease);
        thread::spawn(move || lease.left().is_none())
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
    if before > 0 {
        assert!(lease.is_running(), "a renewal was lost");
        assert!(!ran_out || !in_time, "nobody noticed");
    }
}

/// A lease that runs out in the very moment at which it is renewed; then a loop
/// that stands still for good.
fn expiry() {
    let kernel = Kernel::boot();
    let mut gate = gate(MAX_AGE);
    assert!(gate.renew());
    assert_eq!(gate.set(true), [Port::Open]);
    let ticks = {
        let kernel = Arc::clone(&kernel);
        thread::spawn(move || (0..MAX_AGE).for_each(|_| kernel.pass(1)))
    };
    let before = kernel.now();
    let in_time = gate.renew();
    assert!(in_time || !kernel.is_open(), "open although it ran out");
    let ports = gate.set(true);
    ticks.join().unwrap();
    assert!(!kernel.can_be_stolen());
    // Renewed after the first tick: it holds for now.
    if before > 0 {
        assert_eq!(ports, [Port::Open]);
        assert!(kernel.is_open(), "a renewal in time closed the port");
    }
    kernel.pass(MAX_AGE);
    kernel.waits_until_closed();
    if ports == [Port::Open] {
        assert!(!gate.renew(), "the loop does not notice");
    }
    assert!(!kernel.can_be_stolen());
}

/// As fast as it can, while the helpers of earlier openings are still ending.
fn openings() {
    let kernel = Kernel::boot();
    let mut gate = gate(MAX_AGE);
    for _ in 0..2 {
        assert!(gate.renew());
        assert_eq!(gate.set(true), [Port::Open]);
        assert!(kernel.is_open() && !kernel.can_be_stolen());
        assert_eq!(gate.set(false), [Port::Closed]);
        assert!(!kernel.is_open() && !kernel.can_be_stolen());
    }
}

/// Closing does not wait for it; opening does not add more than it may.
fn hang() {
    let kernel = Kernel::boot();
    let mut gate = gate(MAX_AGE);
    assert!(gate.renew());
    assert_eq!(gate.set(true), [Port::Open]);
    kernel.hang(true);
    assert_eq!(gate.set(false), [Port::Closed]);
    assert!(!kernel.is_open() && !kernel.can_be_stolen());
    let has_hung = kernel.has_hung();
    let ports = gate.set(true);
    // It may have ended before it could hang.
    assert!(matches!(&ports[..], [Port::Failed(_)]) || !has_hung);
    gate.set(false);
    kernel.hang(false);
    assert_eq!(gate.set(true), [Port::Open]);
    assert!(kernel.is_open());
}
