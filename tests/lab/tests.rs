//! The lab's tests, which `tests/run` runs: the parts that decide, a walk through a router's life, the phases
//! at a tenth of production's times, and the end of an interrupted lab. Those that start
//! HAProxy and hey take three minutes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // the command itself is built without
#[path = "command.rs"]
mod command;
mod recorded;

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use command::*;
use lab::{Belief, Lab, NODES, Setup, Story};
use load::Push;
use plan::{
    BACKEND_TIMEOUT, Check, Event, Mode, Ports, Profile, RELOAD_INTERVAL, Result, Scale, Size,
    State, now,
};
use process::Proc;
use recorded::first_reload;
use router::{ROUTE, answer, date};
use rustix::process::Signal;
use scenario::Turn;
use switch::{Line, Watch};

/// A tenth: the switch checks every 200 ms, healthport probes every 100 ms, and a drain
/// takes 4.5 s. A busy machine alone loses a request only if three checks in a row fail
/// on all three nodes, or if it stalls for most of the drain.
const SCALE: Scale = Scale(0.1);

/// Requests per second: enough to see a gap of 10 ms, and a fifth of what two cores can
/// do.
const RATE: u32 = 200;

/// Every lab measures time, so they run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

// The parts that decide.

#[test]
fn the_router_words_its_health() {
    let ask = |path: &str, bad: &str, profile| {
        let request = format!("GET {path} HTTP/1.0");
        answer(&request, false, profile, |part| !bad.contains(part))
    };
    let embedded = |path, bad| ask(path, bad, Profile::Embedded);
    let good = ("200 OK", "ok".to_string());
    let bad = |body: &str| ("500 Internal Server Error", body.to_string());
    let ready = "/healthz/ready";
    assert_eq!(embedded(ready, ""), good);
    assert_eq!(
        embedded(ready, "process-running"),
        bad(
            "[+]backend-http ok\n[+]has-synced ok\n[-]process-running failed: reason withheld\nhealthz check failed\n"
        )
    );
    // Liveness depends neither on port 80 nor on a drain.
    assert_eq!(embedded("/healthz", "backend-http process-running"), good);
    let dead = "[+]controller ok\n[-]admin-socket failed: reason withheld\nhealthz check failed\n";
    assert_eq!(embedded("/healthz", "admin-socket"), bad(dead));
    assert_eq!(ask("/healthz", "admin-socket", Profile::Sidecar), good);

    let verbose = embedded("/healthz/ready?verbose", "");
    let all = "[+]backend-http ok\n[+]has-synced ok\n[+]process-running ok\nhealthz check passed\n";
    assert_eq!(verbose, ("200 OK", all.to_string()));
    let one = "/healthz/ready/backend-http";
    assert_eq!(embedded(one, "process-running"), good);
    assert_eq!(embedded(one, "backend-http").0, "500 Internal Server Error");
    let forbidden = ("403 Forbidden", "Forbidden: \n".to_string());
    for path in ["/healthz/ready/", "/healthz/", "/healthzready", "/"] {
        assert_eq!(embedded(path, ""), forbidden, "{path}");
    }

    let new = |host| {
        answer(
            "GET /healthz/ready HTTP/1.1",
            host,
            Profile::Embedded,
            |_| true,
        )
    };
    assert_eq!(new(true), good);
    let no_host = "400 Bad Request: missing required Host header";
    assert_eq!(new(false), (no_host, no_host.to_string()));
    assert_eq!(date(1_795_557_404), "Tue, 24 Nov 2026 21:56:44 GMT");
    assert_eq!(date(1_709_164_800), "Thu, 29 Feb 2024 00:00:00 GMT");
}

#[test]
fn stats_log_and_summary_are_read() {
    let csv = "# pxname,svname,stot,status,check_status,req_tot,\n\
               0,FRONTEND,9,OPEN,,120,\n\
               0,1,7,UP 1/3,L7OK,,\n\
               1,2,7,DOWN 1/2,L4CON,,\n\
               1,0,7,UP,INI,,\n\
               1,BACKEND,7,UP,,120,\n";
    let rows: Vec<_> = switch::rows(csv)
        .into_iter()
        .map(|row| (row.line, row.node, row.up, row.checked, row.requests))
        .collect();
    assert_eq!(
        rows,
        [
            (0, None, false, false, 120),
            (0, Some(1), true, true, 7),
            (1, Some(2), false, true, 7),
            (1, Some(0), true, false, 7),
        ]
    );

    let failed = |line| switch::failure(line).map(|f| (f.line, f.node, f.status, f.why, f.took));
    assert_eq!(
        failed("request 0 2 503 SC 1795361000.250 301"),
        Some((0, Some(2), Some(503), "SC".to_string(), 0.301))
    );
    assert_eq!(
        failed("request 1 <NOSRV> - SC 1795361000.250 4"),
        Some((1, None, None, "SC".to_string(), 0.004))
    );
    assert_eq!(
        failed("request 0 2 -1 SH 1795361000.250 4").map(|f| f.2),
        Some(None),
        "an answer that broke off"
    );
    assert_eq!(
        failed("request 0 2 200 -- 1795361000.250 101"),
        None,
        "tried again with success"
    );
    assert_eq!(
        failed("request 1 2 - CD 1795361000.250 101"),
        None,
        "the client went away"
    );
    assert_eq!(failed("Server 0/1 is DOWN, reason: ..."), None);
    let watch = Watch {
        check: Check::Healthport,
        inter: 1,
        node: 2,
    };
    assert_eq!(
        switch::down("Server watch.3.5.2.0/2 is DOWN, reason: Layer4 ..."),
        Some(watch)
    );
    assert_eq!(
        switch::down("Server watch.3.5.2.0/2 is UP, reason: ..."),
        None
    );
    assert_eq!(switch::down("Server 0/1 is DOWN, reason: ..."), None);

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
    assert_eq!(load::summary("panic: no summary"), None);
}

#[test]
fn reactions_are_measured() {
    let belief = |at, up| Belief {
        at,
        line: 0,
        node: 0,
        up,
    };
    let turn = Turn {
        node: 0,
        at: 100.0,
        ready: 160.0,
    };
    let seconds = |beliefs: &[Belief]| scenario::reaction(beliefs, 0, turn);
    let before = belief(50.0, true);
    assert_eq!(
        seconds(&[before, belief(106.0, false), belief(164.0, true)]),
        (Some(6.0), Some(4.0))
    );
    assert_eq!(
        seconds(&[before, belief(106.0, false), belief(153.0, true)]),
        (Some(6.0), Some(-7.0)),
        "sends to a router that is not ready"
    );
    assert_eq!(seconds(&[before]), (None, None), "notices nothing");
    let other_line = Belief {
        line: 1,
        ..belief(106.0, false)
    };
    assert_eq!(seconds(&[before, other_line]), (None, None));

    // Ready, with a reload in between, from 10 to 40; down at 12, 30 and 41.
    let watch = Watch {
        check: Check::Http,
        inter: 2,
        node: 0,
    };
    let states = [
        (9.0, State::Starting),
        (10.0, State::Ready),
        (29.0, State::Reload),
        (31.0, State::Ready),
        (40.0, State::Drain1),
    ];
    let story = Story {
        states: states.map(|(at, state)| (at, 0, state)).to_vec(),
        downs: [12.0, 30.0, 41.0].map(|at| (at, watch)).to_vec(),
        ..Story::default()
    };
    let taken_out = |check, start| scenario::taken_out(&story, check, start, 5.0);
    assert_eq!(taken_out(Check::Http, 0.0), [0, 0, 1]);
    assert_eq!(taken_out(Check::Http, 35.0), [0, 0, 0], "before the event");
    assert_eq!(taken_out(Check::Healthport, 0.0), [0, 0, 0]);
}

#[test]
fn the_pages_are_written_between_their_marks() {
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
    let readme = include_str!("README.md");
    let mark = "    cargo lab ";
    let commands: Vec<_> = readme
        .lines()
        .filter_map(|line| line.split_once(mark))
        .collect();
    assert!(!commands.is_empty(), "the page has no command with {mark}");
    for (_, args) in commands {
        let args = args.split('#').next().unwrap_or_default();
        let args = args.trim_end_matches(['`', '.', ' ']).split_whitespace();
        let run = parse(args.map(Into::into));
        assert!(run.is_ok(), "tests/lab/README.md: {:?}", run.err());
    }
    for option in ["--scale", "--event", "--rate", "--requests", "--write"] {
        assert!(HELP.contains(option), "--help does not name {option}");
    }
}

#[test]
fn a_missing_tool_names_its_package() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("phase-1")
        .env("PATH", "/nonexistent")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("apt-get install"), "{error}");
    assert!(error.contains("hey"), "{error}");
}

// The router.

/// A node as its network sees it.
#[derive(Debug, PartialEq)]
struct View {
    ready: Seen,
    live: Seen,
    traffic: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Refused,
    Silent,
    Status(u16),
}

use Seen::{Refused, Silent, Status};

fn view(ports: Ports) -> View {
    View {
        ready: see(ports.stats(), "/healthz/ready"),
        live: see(ports.stats(), "/healthz"),
        traffic: see(ports.http(), "/"),
    }
}

fn see(address: std::net::SocketAddr, path: &str) -> Seen {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return Refused;
    };
    // A router with a stuck HAProxy takes a fifth of that.
    let limit = SCALE.wait(BACKEND_TIMEOUT) * 5;
    stream.set_read_timeout(Some(limit)).unwrap();
    let _ = write!(stream, "GET {path} HTTP/1.0\r\nHost: {ROUTE}\r\n\r\n");
    let mut start = [0; 12];
    match stream.read_exact(&mut start) {
        Ok(()) => Status(String::from_utf8_lossy(&start[9..]).parse().unwrap_or(0)),
        Err(_) => Silent,
    }
}

/// Waits for a state and looks at the node in it.
fn during(lab: &mut Lab, node: usize, state: State) -> Result<View> {
    lab.reach(node, state)?;
    let view = view(lab.ports(node));
    lab.pause(0.0)?;
    match lab.story.state(node) {
        now if now == state => Ok(view),
        now => Err(format!(
            "this machine is too slow: {now} before a look at {state} had ended"
        )),
    }
}

/// The states of a router, one after the other, with another profile on each node.
#[test]
#[ignore = "needs haproxy and hey"]
fn a_router_goes_through_its_life() -> Result<()> {
    let _alone = alone();
    let mut lab = Lab::open(setup(Profile::Embedded))?;
    let serving = View {
        ready: Status(200),
        live: Status(200),
        traffic: Status(200),
    };
    let refused = View {
        ready: Refused,
        live: Refused,
        traffic: Refused,
    };
    let not_ready = |live, traffic| View {
        ready: Status(500),
        live,
        traffic,
    };
    first_reload(&mut lab, 0)?;
    assert_eq!(during(&mut lab, 0, State::Ready)?, serving);
    lab.hang(0);
    let hung = not_ready(Status(500), Silent);
    let start = Instant::now();
    assert_eq!(during(&mut lab, 0, State::Hung)?, hung);
    let twice = 2 * SCALE.wait(BACKEND_TIMEOUT);
    assert!(start.elapsed() >= twice, "1936 did not ask port 80");
    lab.thaw(0);
    lab.freeze(0);
    let frozen = View {
        ready: Silent,
        live: Silent,
        traffic: Silent,
    };
    assert_eq!(during(&mut lab, 0, State::Frozen)?, frozen);
    lab.thaw(0);
    lab.break_haproxy(0);
    lab.pause(1.0)?; // a signal is not an instant
    let dead = not_ready(Status(500), Refused);
    assert_eq!(during(&mut lab, 0, State::Dead)?, dead);
    lab.kill(0)?;
    assert_eq!(during(&mut lab, 0, State::Killed)?, refused);
    lab.setup.api = 10.0; // time for a look
    lab.start(0)?;
    let starting = not_ready(Status(500), Refused);
    assert_eq!(during(&mut lab, 0, State::Starting)?, starting);

    lab.setup.profile = Profile::Legacy;
    lab.kill(1)?;
    lab.start(1)?;
    let legacy = during(&mut lab, 1, State::Starting)?;
    // Its HAProxy is up a few milliseconds later, and answers /healthz with it.
    assert_eq!(legacy.ready, Status(500));
    lab.wait_for("503 of a legacy router", 5.0, |lab| {
        see(lab.ports(1).http(), "/") == Status(503)
    })?;
    lab.reach(1, State::Ready)?;
    // The old HAProxy may still answer for some milliseconds after the reload.
    lab.wait_for("a legacy router that serves", 5.0, |lab| {
        view(lab.ports(1)) == serving
    })?;
    lab.change_route(1);
    first_reload(&mut lab, 1)?;
    assert_eq!(during(&mut lab, 1, State::Ready)?, serving);

    lab.setup.profile = Profile::Sidecar;
    lab.kill(2)?;
    lab.start(2)?;
    assert_eq!(during(&mut lab, 2, State::Ready)?, serving);

    lab.reach(0, State::Ready)?;
    let client = lab.busy_client(0)?;
    lab.delete(0);
    lab.delete(2);
    let draining = not_ready(Status(200), Status(200));
    assert_eq!(during(&mut lab, 0, State::Drain1)?, draining);
    assert_eq!(during(&mut lab, 2, State::Drain1)?, draining);
    // The profiles differ in which port closes first. Ask the one that must close last
    // after the other, so that a pause in between cannot fail the test.
    lab.wait_for("the end of the sidecar router", 60.0, |lab| {
        let ports = lab.ports(2);
        let traffic_gone = TcpStream::connect(ports.http()).is_err();
        let stats_open = TcpStream::connect(ports.stats()).is_ok();
        assert!(!(traffic_gone && stats_open), "80 went before 1936");
        lab.story.state(2) == State::Gone
    })?;
    // A client keeps the other one in this state for 30 s.
    assert_eq!(during(&mut lab, 0, State::Drain2)?, dead);
    drop(client);
    assert_eq!(during(&mut lab, 0, State::Gone)?, refused);
    let tail = (2, State::SidecarTail);
    assert!(
        lab.story
            .states
            .iter()
            .any(|&(_, node, state)| (node, state) == tail)
    );
    Ok(())
}

#[test]
#[ignore = "needs haproxy and hey"]
fn the_router_says_what_a_real_one_said() -> Result<()> {
    let _alone = alone();
    recorded::holds(setup(Profile::Embedded))
}

// The phases.

fn setup(profile: Profile) -> Setup {
    Setup {
        scale: SCALE,
        profile,
        lines: vec![Line {
            check: Check::Healthport,
            mode: Mode::Http,
        }],
        watches: false,
        size: Size::SMALL,
        api: 0.0,
        maxconn: 0,
        title: None,
        interrupted: Arc::default(),
    }
}

fn phase(number: u32, check: Check) -> Result<scenario::Phase> {
    let push = Push {
        rate: Some(RATE),
        requests: None,
    };
    let phase = scenario::phase(number, check, setup(Profile::Embedded), push)?;
    // 20 s and more at 200 a second; a quarter of that will do on a busy machine.
    assert!(phase.summary.good() > 1000, "{}", phase.summary.text);
    assert_eq!(phase.replaced, 3);
    // The switch saw what hey saw.
    let (seen, listed) = (phase.summary.failed(), phase.story.failures.len());
    assert_eq!(seen, listed as u64, "{}", phase.summary.text);
    Ok(phase)
}

fn none_lost(number: u32, check: Check) -> Result<()> {
    let _alone = alone();
    let phase = phase(number, check)?;
    let failures = report::failures(&phase.story.failures, &phase.story, SCALE);
    let failed = phase.summary.failed();
    assert_eq!(failed, 0, "failed requests, in real seconds:\n{failures}");
    Ok(())
}

/// Some requests are lost, each of them to a router that does not serve.
fn some_lost(check: Check) -> Result<()> {
    let _alone = alone();
    let phase = phase(2, check)?;
    assert!(phase.summary.failed() > 0, "{}", phase.summary.text);
    for failure in &phase.story.failures {
        let node = failure.node.ok_or(format!("no node left: {failure:?}"))?;
        let state = phase.story.state_at(node, failure.at + failure.took);
        assert!(
            matches!(
                state,
                Some((State::Drain2 | State::Gone | State::Starting, _))
            ),
            "{failure:?} in {state:?}"
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs haproxy and hey"]
fn phase_1_http_checks_lose_nothing() -> Result<()> {
    none_lost(1, Check::Http)
}

#[test]
#[ignore = "needs haproxy and hey"]
fn phase_2_checks_on_1936_lose_requests() -> Result<()> {
    some_lost(Check::Stats)
}

#[test]
#[ignore = "needs haproxy and hey"]
fn phase_2_checks_on_80_lose_requests() -> Result<()> {
    some_lost(Check::Traffic)
}

#[test]
#[ignore = "needs haproxy and hey"]
fn phase_3_healthport_loses_nothing() -> Result<()> {
    none_lost(3, Check::Healthport)
}

#[test]
#[ignore = "needs haproxy and hey"]
fn phase_4_healthport_loses_nothing() -> Result<()> {
    none_lost(4, Check::Healthport)
}

/// A stuck router accepts connections, so no TCP check of its own ports ever notices.
/// healthport does, and not later than the HTTP check.
#[test]
#[ignore = "needs haproxy and hey"]
fn healthport_notices_what_a_connect_cannot() -> Result<()> {
    let _alone = alone();
    let mode = Mode::Http;
    let lines = Check::MAIN.map(|check| Line { check, mode }).to_vec();
    let mut lab = Lab::open(Setup {
        lines,
        ..setup(Profile::Embedded)
    })?;
    let push = Push {
        rate: Some(RATE),
        requests: None,
    };
    for event in [Event::Hung, Event::Frozen] {
        let outcomes = scenario::happen(&mut lab, event, push)?;
        for outcome in &outcomes {
            let notices = matches!(outcome.line.check, Check::Http | Check::Healthport);
            assert_eq!(outcome.stopped.is_some(), notices, "{outcome:?}");
        }
        let worse = report::worse_than_http(&outcomes, SCALE);
        assert!(worse.is_empty(), "{worse:?}");
    }
    Ok(())
}

/// Routers with 10,000 routes, one of which changes every second, are ready but answer
/// late. The defaults put up with it. Those that were published first do not, which
/// shows that the lab can tell. The scale is 0.2, since a busy machine is late too.
#[test]
#[ignore = "needs haproxy and hey"]
fn a_reload_takes_no_healthy_node_out() -> Result<()> {
    let _alone = alone();
    let mode = Mode::Http;
    let checks = [Check::Healthport, Check::FirstPublished];
    let mut lab = Lab::open(Setup {
        scale: Scale(0.2),
        size: Size::LARGE,
        watches: true,
        lines: checks.map(|check| Line { check, mode }).to_vec(),
        ..setup(Profile::Embedded)
    })?;
    lab.pause(10.0)?;
    let start = now();
    scenario::storm(&mut lab, 40)?;
    for node in 0..NODES {
        let states = lab.story.states.iter();
        let reloads = states.filter(|&&(at, of, s)| (of, s) == (node, State::Reload) && at > start);
        let times: Vec<_> = reloads.map(|&(at, _, _)| at).collect();
        assert!(times.len() >= 4, "{times:?}");
        let least = lab.setup.scale.wait(RELOAD_INTERVAL).as_secs_f64();
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] > 0.99 * least, "{times:?}");
        }
    }
    assert_eq!(lab.closes("healthport")?, 0);
    let first = lab.closes("first")?;
    assert!(first >= 3, "{first}");
    let taken_out = scenario::taken_out(&lab.story, Check::Healthport, start, 0.0);
    assert_eq!(taken_out, [0, 0, 0]);
    Ok(())
}

// The end.

/// Two labs side by side. The first ends by Ctrl-C, which leaves the second alone; that
/// one ends by kill -9. No process and no socket of either is left.
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
    let mut rest = Vec::new();
    wait("the end of every process", || {
        rest = left(prefix);
        rest.is_empty()
    });
}

/// The processes of a lab and its listening sockets. Each command line has the lab's
/// network in it, or its directory, which is named after the network.
fn left(prefix: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets = sockets.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (address, port) = words.get(1)?.split_once(':')?;
        let address = u32::from_str_radix(address, 16).ok()?.to_le_bytes();
        let address = std::net::Ipv4Addr::from(address);
        let port = u16::from_str_radix(port, 16).ok()?;
        // 0A is LISTEN.
        (words.get(3) == Some(&"0A")).then(|| format!("listening on {address}:{port}"))
    });
    let all = processes.chain(sockets.collect::<Vec<_>>());
    all.filter(|line| line.contains(prefix)).collect()
}
