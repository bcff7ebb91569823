//! What healthport costs and how fast it is, as ratios to a floor that is short enough
//! to read (floor.rs) and to what an operator would write instead (loop.sh). `cargo
//! bench` prints all but peers in about three minutes, `cargo bench -- cost` one of them.
//! On a busy machine times are noisy, so compared programs run in turns, and the load is
//! printed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
mod cost;
mod peers;
mod reaction;
mod subject;
mod table;
mod waits;

use std::{env, fs};

/// It needs a program that is in no package, so it runs only when asked for.
const PEERS: &str = "peers";
const SECTIONS: [(&str, fn()); 4] = [
    ("reaction", reaction::print),
    ("cost", cost::print),
    ("waits", waits::print),
    (PEERS, peers::print),
];

fn main() {
    // cargo adds --bench.
    let args: Vec<_> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let names = SECTIONS.map(|(name, _)| name);
    let unknown = args.iter().find(|arg| !names.contains(&arg.as_str()));
    if let Some(arg) = unknown {
        panic!("no section {arg:?}: there are {names:?}");
    }
    subject::check_tools();
    for (name, print) in SECTIONS {
        if (args.is_empty() && name != PEERS) || args.iter().any(|arg| arg == name) {
            let load = fs::read_to_string("/proc/loadavg").unwrap();
            let load = load.split(' ').next().unwrap();
            println!("\n## {name} (load average before: {load})\n");
            print();
        }
    }
}
