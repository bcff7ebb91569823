//! The lab's tests, which `tests/run` runs: the parts that decide, the router held against
//! a recording, every check before the same routers at a tenth of production's times, and
//! the end of an interrupted lab. Those that start HAProxy and hey take three minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // the command itself is built without
#[path = "command.rs"]
mod command;
mod recorded;

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use command::*;
use lab::{Lab, Setup};
use load::Push;
use plan::{CHECKS, Check, DEFAULTS, HEALTHPORTS, Result, Scale, host};
use process::Proc;
use rustix::process::Signal;
use scenario::{Deed, Turn, happen};
use switch::Belief;

/// A tenth: the switch checks every 200 ms, healthport probes every 100 ms, and a drain
/// takes 4.5 s. A busy machine alone loses a request only if two checks in a row fail
/// on all three nodes, or if it stalls for most of the drain.
const SCALE: Scale = Scale(0.1);

/// Requests per second of each line: enough to see a gap of 10 ms.
const PUSH: Push = Push {
    rate: Some(100),
    requests: None,
};

/// Every lab measures time, so they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn summary_with_errors_counts_them_as_failed() {
    let text = "Summary:\n  Slowest:\t0.3051 secs\n\n\
         Latency distribution:\n  10% in 0.0003 secs\n\n\
         Status code distribution:\n  [200]\t4252 responses\n  [503]\t12 responses\n\n\
         Error distribution:\n  [3]\tGet \"http://127.0.1.5:8000/\": EOF\n";
    let summary = load::summary(text).unwrap();
    let read = (summary.good, summary.failed, summary.slowest);
    assert_eq!(read, (4252, 15, 0.3051));
    assert!(load::summary("panic: no summary").is_none());
}

#[test]
fn switch_that_sends_before_ready_is_seen() {
    let (line, node, ready) = (0, 0, 160.0);
    let belief = |at, up| Belief { at, line, node, up };
    let beliefs = [belief(106.0, false), belief(153.0, true)];
    let at = 100.0;
    let turn = Turn { node, at, ready };
    let early = (Some(6.0), Some(-7.0));
    assert_eq!(scenario::reaction(&beliefs, line, turn), early);
    assert_eq!(scenario::reaction(&beliefs, 1, turn), (None, None));
}

/// A run of hours must find its place in the pages at its end.
#[test]
fn table_finds_its_place_in_the_page() {
    for (page, name, table) in [
        (include_str!("../../README.md"), "phases", report::PHASES),
        (include_str!("README.md"), "matrix", report::MATRIX),
    ] {
        assert!(page.contains(table), "{name}: other columns");
        let written = report::between(page, name, "new\n").unwrap();
        assert!(written.contains(&format!("-->\nnew\n<!-- /{name} -->\n")));
        assert!(!written.contains(table), "{name}");
    }
    assert_eq!(report::thousands(1_000_000), "1,000,000");
}

#[test]
fn documented_command_is_accepted() {
    let commands = include_str!("README.md").lines();
    let commands: Vec<_> = commands
        .filter_map(|line| line.strip_prefix("    cargo lab "))
        .collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for args in commands {
        let run = parse(args.split_whitespace().map(Into::into).collect());
        assert!(run.is_ok(), "tests/lab/README.md: {:?}", run.err());
    }
    // tests/lab/ipvs.sh starts routers too.
    let mut words = include_str!("ipvs.sh").split_whitespace();
    words.find(|word| *word == "--router").unwrap();
    let words: Vec<_> = words.take_while(|word| *word != "\\").collect();
    assert_eq!(words.len(), 9, "{words:?}");
}

// The router and the checks.

#[test]
#[ignore = "needs haproxy and hey"]
fn router_says_what_a_real_one_said() -> Result<()> {
    let _alone = alone();
    // At 0.1 a busy machine once took longer than the router's limit for its own port 80.
    recorded::holds(Setup::new(Scale(0.2), &[DEFAULTS]))
}

/// All checks before the same routers at the same time. Of an update an HTTP check and
/// healthport lose nothing; the others lose requests, each of them to a router that does
/// not serve. A stuck router accepts connections, which only these two see through.
#[test]
#[ignore = "needs haproxy and hey"]
fn every_check_sees_what_it_can() -> Result<()> {
    let _alone = alone();
    let mut lab = Lab::open(Setup::new(SCALE, &CHECKS))?;
    for deed in [Deed::Roll, Deed::Hang, Deed::Freeze] {
        for outcome in happen(&mut lab, deed, PUSH)? {
            let (failed, good) = (outcome.summary.failed, outcome.summary.good);
            let list = report::failures(&outcome.failures, &lab.story, SCALE);
            let what = format!("{deed:?}, {}: {good} good\n{list}", outcome.line.check);
            // A busy machine answers less than is asked for, but not nothing.
            assert!(good > 20, "{what}");
            // The switch saw what hey saw.
            assert_eq!(failed, outcome.failures.len() as u64, "{what}");
            let asks = matches!(outcome.line.check, Check::Http | Check::Healthport(..));
            if !deed.is_announced() {
                assert_eq!(outcome.stopped.is_some(), asks, "{what}");
                continue;
            }
            assert_eq!(failed == 0, asks, "{what}");
            for failure in &outcome.failures {
                let node = failure.node.ok_or("no node was left")?;
                let state = lab.story.state_at(node, failure.at + failure.took);
                assert!(state.is_some_and(|(state, _)| !state.serves()), "{what}");
            }
        }
    }
    Ok(())
}

/// Routers with 30,000 routes, one of which changes every second, are ready but answer
/// late. The defaults put up with it. A shorter patience does not, which shows that the
/// lab can tell. The scale is 0.2, since a busy machine is late too.
#[test]
#[ignore = "needs haproxy and hey"]
fn changing_routes_take_no_healthy_node_out() -> Result<()> {
    let _alone = alone();
    let deed = Deed::Change(30_000);
    let mut lab = Lab::open(Setup {
        routes: deed.routes(),
        ..Setup::new(Scale(0.2), &HEALTHPORTS)
    })?;
    let outcomes = happen(&mut lab, deed, PUSH)?;
    assert_eq!(lab.closes(DEFAULTS)?, 0);
    for hasty in &HEALTHPORTS[1..] {
        assert!(lab.closes(*hasty)? >= 5, "{hasty}");
    }
    assert_eq!(outcomes[0].taken_out, 0);
    // Not of 3 s, whose moments a check can miss: 0 to 6 of them were seen, here 33 to 39.
    assert!(outcomes[2].taken_out > 0, "{:?}", outcomes[2]);
    Ok(())
}

/// However a lab ends, no process of it is left: neither the grandchildren, nor what it
/// was just starting (a hey was left in one of three runs).
#[test]
#[ignore = "needs haproxy and hey"]
fn killed_lab_leaves_no_process() -> Result<()> {
    let _alone = alone();
    let lab = Path::new(env!("CARGO_BIN_EXE_lab"));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let mut lab = Proc::spawn(dir, "lab", lab, ["timeline"])?;
    let id = lab.id().as_raw_nonzero().get() as u32;
    // Each command line has the lab's network in it, or its directory, which is named
    // after the network.
    let network = host(id, 0).to_string();
    let mark = network.trim_end_matches('0');
    wait("a lab under load", || {
        lab.must_run().unwrap();
        let left = left(mark);
        ["hey -c", "--router", "router2-haproxy.cfg", "--url"]
            .iter()
            .all(|part| left.iter().any(|line| line.contains(part)))
    });
    // Not SIGINT, which a shell makes its background jobs ignore.
    lab.signal(Signal::KILL);
    wait("the end of every process", || left(mark).is_empty());
    let files = std::env::temp_dir().join(format!("healthport-lab-{network}"));
    fs::remove_dir_all(&files).map_err(|error| format!("cannot remove {files:?}: {error}"))
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    // A lab builds healthport first.
    let end = Instant::now() + Duration::from_secs(300);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The command lines of all processes that have the mark in it.
fn left(mark: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    processes.filter(|line| line.contains(mark)).collect()
}
