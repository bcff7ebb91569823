//! The lab's tests, which `tests/run` runs: the parts that decide, the router held against
//! a recording, every check before the same routers at a tenth of production's times, and
//! the end of an interrupted lab. Those that start HAProxy and hey take three minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // the command itself is built without
#[path = "command.rs"]
mod command;
mod recorded;

use std::env;
use std::fs;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use command::*;
use lab::{Lab, NODES, Setup, Story};
use load::Push;
use plan::{CHECKS, Check, DEFAULTS, HASTY, Profile, R30000, RELOAD_INTERVAL, Result, Scale};
use plan::{State, now};
use process::Proc;
use rustix::process::Signal;
use scenario::{Deed, Turn, happen, the};
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

// The parts that decide. The recording has the rest of the router's answers.

#[test]
fn router_words_its_health() {
    let ask = |path: &str, bad: &str, profile| {
        let request = format!("GET {path} HTTP/1.1");
        router::answer(&request, true, profile, |part| !bad.contains(part))
    };
    let embedded = |path, bad| ask(path, bad, Profile::Embedded);
    let good = ("200 OK", "ok".to_string());
    // Liveness depends neither on port 80 nor on a drain.
    assert_eq!(embedded("/healthz", "backend-http process-running"), good);
    assert_eq!(ask("/healthz", "admin-socket", Profile::Sidecar), good);
    let forbidden = ("403 Forbidden", "Forbidden: \n".to_string());
    for path in ["/healthz/ready/", "/healthzready", "/"] {
        assert_eq!(embedded(path, ""), forbidden, "{path}");
    }
    let no_host = "400 Bad Request: missing required Host header";
    let request = "GET /healthz/ready HTTP/1.1";
    let said = router::answer(request, false, Profile::Embedded, |_| true);
    assert_eq!(said, (no_host, no_host.to_string()));
}

#[test]
fn log_and_summary_are_read() {
    let belief = |line| switch::belief(line).map(|b| (b.line, b.node, b.up));
    for (line, wanted) in [
        ("Server 3/1 is DOWN, reason: ...", Some((3, 1, false))),
        ("Server 0/2 is UP, reason: ...", Some((0, 2, true))),
        ("proxy 0 has no server available!", None),
    ] {
        assert_eq!(belief(line), wanted, "{line}");
    }

    let failed = |line| switch::failure(line).map(|f| (f.line, f.node, f.status, f.took));
    for (line, wanted) in [
        (
            "request 0 2 503 SC 1795361000.250 301",
            Some((0, Some(2), Some(503), 0.301)),
        ),
        (
            "request 1 <NOSRV> - SC 1795361000.250 4",
            Some((1, None, None, 0.004)),
        ),
        // An answer that broke off.
        (
            "request 0 2 -1 SH 1795361000.250 4",
            Some((0, Some(2), None, 0.004)),
        ),
        // Tried again with success; the client went away; no request.
        ("request 0 2 200 -- 1795361000.250 101", None),
        ("request 1 2 - CD 1795361000.250 101", None),
        ("Server 0/1 is DOWN, reason: ...", None),
    ] {
        assert_eq!(failed(line), wanted, "{line}");
    }

    let summary = load::summary(
        "Summary:\n  Slowest:\t0.3051 secs\n\nLatency distribution:\n  10% in 0.0003 secs\n\n\
         Status code distribution:\n  [200]\t4252 responses\n  [503]\t12 responses\n\n\
         Error distribution:\n  [3]\tGet \"http://127.0.1.5:8000/\": EOF\n",
    )
    .unwrap();
    assert_eq!(
        (summary.good(), summary.failed(), summary.slowest),
        (4252, 15, 0.3051)
    );
    assert!(load::summary("panic: no summary").is_none());
}

#[test]
fn reactions_are_measured() {
    let belief = |line, at, up| Belief {
        at,
        line,
        node: 0,
        up,
    };
    let turn = Turn {
        node: 0,
        at: 100.0,
        ready: 160.0,
    };
    let before = belief(0, 50.0, true);
    for (beliefs, wanted) in [
        (
            [before, belief(0, 106.0, false), belief(0, 164.0, true)],
            (Some(6.0), Some(4.0)),
        ),
        // Sends to a router that is not ready.
        (
            [before, belief(0, 106.0, false), belief(0, 153.0, true)],
            (Some(6.0), Some(-7.0)),
        ),
        // Another line.
        (
            [before, belief(1, 106.0, false), belief(1, 164.0, true)],
            (None, None),
        ),
    ] {
        assert_eq!(scenario::reaction(&beliefs, 0, turn), wanted);
    }

    // Ready, with a reload in between, from 10 to 40; down at 12, 30 and 41.
    let states = [
        (9.0, State::Starting),
        (10.0, State::Ready),
        (29.0, State::Reload),
        (31.0, State::Ready),
        (40.0, State::Drain1),
    ];
    let story = Story {
        states: states.map(|(at, state)| (at, 0, state)).to_vec(),
        beliefs: [12.0, 30.0, 41.0].map(|at| belief(0, at, false)).to_vec(),
        ..Story::default()
    };
    let taken_out = |line, start| scenario::taken_out(&story, line, start, 5.0);
    assert_eq!(taken_out(0, 0.0), 1);
    assert_eq!(taken_out(0, 35.0), 0, "before the event");
    assert_eq!(taken_out(1, 0.0), 0, "another line");
}

#[test]
fn pages_are_written_between_their_marks() {
    let document = "a\n<!-- table -->\nold\n<!-- /table -->\nb\n";
    assert_eq!(
        report::between(document, "table", "new\n").as_deref(),
        Some("a\n<!-- table -->\nnew\n<!-- /table -->\nb\n")
    );
    assert_eq!(report::between(document, "picture", "new\n"), None);
    // A run of hours must find them at its end.
    for (page, name) in [
        (include_str!("../../README.md"), "phases"),
        (include_str!("README.md"), "matrix"),
    ] {
        assert!(report::between(page, name, "new\n").is_some(), "{name}");
    }
    assert_eq!(report::thousands(1_000_000), "1,000,000");
    assert_eq!(report::thousands(999), "999");
}

#[test]
fn documented_commands_are_accepted() {
    let commands = include_str!("README.md").lines();
    let commands: Vec<_> = commands
        .filter_map(|line| line.strip_prefix("    cargo lab "))
        .collect();
    assert!(commands.len() >= 3, "{commands:?}");
    for args in commands {
        let run = parse(args.split_whitespace().map(Into::into).collect());
        assert!(run.is_ok(), "tests/lab/README.md: {:?}", run.err());
    }
    let alias =
        "\nlab = \"run --quiet --release --locked --manifest-path tests/lab/Cargo.toml --\"\n";
    assert!(include_str!("../../.cargo/config.toml").contains(alias));
}

#[test]
fn missing_tool_is_named_with_its_package() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("phase-1")
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        error.contains("hey is missing, first: apt-get install"),
        "{error}"
    );
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
    for deed in [Deed::Roll, Deed::BusyDrain, Deed::Hang, Deed::Freeze] {
        let outcomes = happen(&mut lab, the(deed), PUSH)?;
        for outcome in &outcomes {
            let (failed, good) = (outcome.summary.failed(), outcome.summary.good());
            let list = report::failures(&outcome.failures, &lab.story, SCALE);
            let what = format!("{deed:?}, {}: {good} good\n{list}", outcome.line.check);
            // A busy machine answers less than is asked for, but not nothing.
            assert!(good > 50, "{what}");
            // The switch saw what hey saw.
            assert_eq!(failed, outcome.failures.len() as u64, "{what}");
            let asks = matches!(outcome.line.check, Check::Http | Check::Healthport(..));
            match deed {
                Deed::Hang | Deed::Freeze => assert_eq!(outcome.stopped.is_some(), asks, "{what}"),
                _ => assert_eq!(failed == 0, asks, "{what}"),
            }
            if !matches!(deed, Deed::Hang | Deed::Freeze) {
                for failure in &outcome.failures {
                    let node = failure.node.ok_or("no node was left")?;
                    let state = lab.story.state_at(node, failure.at + failure.took);
                    assert!(state.is_some_and(|(state, _)| !state.serves()), "{what}");
                }
            }
        }
        let worse = report::worse_than_http(&outcomes, SCALE);
        assert!(worse.is_empty(), "{worse:?}");
    }
    // One long request keeps a router from its end for 30 s.
    let states: Vec<_> = lab.story.states.iter().filter(|s| s.1 == 0).collect();
    let lingers = states.windows(2).filter(|pair| pair[0].2 == State::Drain2);
    let longest = lingers
        .map(|pair| pair[1].0 - pair[0].0)
        .fold(0.0, f64::max);
    assert!(SCALE.real(longest) > 29.0, "{longest}");
    Ok(())
}

/// Routers with 30,000 routes, one of which changes every second, are ready but answer
/// late. The defaults put up with it. A shorter patience does not, which shows that the
/// lab can tell. The scale is 0.2, since a busy machine is late too.
#[test]
#[ignore = "needs haproxy and hey"]
fn changing_routes_take_no_healthy_node_out() -> Result<()> {
    let _alone = alone();
    let mut lab = Lab::open(Setup {
        size: R30000,
        ..Setup::new(Scale(0.2), &[DEFAULTS, HASTY[0], HASTY[1]])
    })?;
    let start = now();
    let event = scenario::EVENTS.iter().find(|event| event.size == R30000);
    let outcomes = happen(&mut lab, event.unwrap(), PUSH)?;
    for node in 0..NODES {
        let states = lab.story.states.iter();
        let reloads = states.filter(|&&(at, of, s)| (of, s) == (node, State::Reload) && at > start);
        let times: Vec<_> = reloads.map(|&(at, _, _)| at).collect();
        assert!(times.len() >= 8, "{times:?}");
        let least = lab.setup.scale.wait(RELOAD_INTERVAL).as_secs_f64();
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] > 0.99 * least, "{times:?}");
        }
    }
    assert_eq!(lab.closes(DEFAULTS)?, 0);
    for hasty in HASTY {
        assert!(lab.closes(hasty)? >= 5, "{hasty}");
    }
    assert_eq!(outcomes[0].taken_out, 0);
    assert!(outcomes[1].taken_out > 0, "{:?}", outcomes[1]);
    Ok(())
}

// The end.

/// Two labs side by side. The first ends by Ctrl-C, which leaves the second alone; that
/// one ends by kill -9. No process of either is left.
#[test]
#[ignore = "needs haproxy and hey"]
fn interrupted_labs_leave_nothing() -> Result<()> {
    let _alone = alone();
    let folder = env::temp_dir().join(format!("healthport-labs-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let args = ["phase-3", "--rate", "20"];
    let start = |name| Proc::spawn(&folder, name, env!("CARGO_BIN_EXE_lab").as_ref(), args);
    let (mut first, mut second) = (start("first")?, start("second")?);
    // Wait until it is under load.
    let home = |lab: &mut Proc| {
        let mut found = None;
        wait("a lab under load", || {
            lab.must_run().unwrap();
            let said = fs::read_to_string(folder.join(format!("{}.err", lab.name)));
            let said = said.unwrap_or_default();
            // "lab on 127.0.1.x in DIR"
            let home = said.lines().find_map(|line| {
                let (prefix, home) = line.strip_prefix("lab on ")?.split_once("x in ")?;
                Some((prefix.to_string(), home.to_string()))
            });
            found = home.filter(|(prefix, _)| left(prefix).iter().any(|l| l.contains("hey -c")));
            found.is_some()
        });
        found.unwrap()
    };
    let (first_prefix, first_dir) = home(&mut first);
    let (second_prefix, second_dir) = home(&mut second);
    assert_ne!(first_prefix, second_prefix);

    first.signal(Signal::INT);
    wait("the end of an interrupted lab", || first.ended().is_some());
    assert_eq!(first.ended().and_then(|status| status.code()), Some(1));
    assert!(!fs::exists(&first_dir).unwrap(), "{first_dir} is left");
    nothing_left(&first_prefix);

    second.must_run()?;
    assert!(left(&second_prefix).iter().any(|l| l.contains("hey -c")));
    second.signal(Signal::KILL);
    nothing_left(&second_prefix);
    // After kill -9 only files are left.
    fs::remove_dir_all(&second_dir)
        .and(fs::remove_dir_all(&folder))
        .unwrap();
    Ok(())
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn nothing_left(prefix: &str) {
    wait("the end of every process", || left(prefix).is_empty());
}

/// The processes of a lab, and with them all its sockets. Each command line has the lab's
/// network in it, or its directory, which is named after the network.
fn left(prefix: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    processes.filter(|line| line.contains(prefix)).collect()
}
