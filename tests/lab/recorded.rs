//! What a real router said while things were done to it, and the lab's router
//! held against it: the same answers in the same order. Recorded on the real
//! router 2026-11-24, commit 4b401a86, HAProxy 2.6.12, from outside. Times are
//! not compared, and neither is a connection that a kill cut: what it got is
//! chance.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::lab::{Lab, Setup};
use crate::plan::{Profile, R30000, Result, State};
use crate::router::{ROUTE, Said, ask};

/// What is done to the router.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Deed {
    Start,
    StopHaproxy,
    ContinueHaproxy,
    KillHaproxy,
    ChangeRoute,
    Terminate,
    KillRouter,
    StopRouter,
    StopBoth,
    ContinueRouter,
    /// 25 slow requests, and 20 are allowed.
    Fill,
    Empty,
}

use Deed::*;

const OK: &str = "200 ok";
const HELLO: &str = "200 Hello World!\n";
const PAGE: &str = "503 <2503 bytes>";
const REFUSED: &str = "refused";
const SILENT: &str = "no answer";

const STARTING: &str = "500 [-]backend-http failed: reason withheld\n\
     [-]has-synced failed: reason withheld\n[+]process-running ok\nhealthz check failed\n";
const NO_BACKEND: &str = "500 [-]backend-http failed: reason withheld\n\
     [+]has-synced ok\n[+]process-running ok\nhealthz check failed\n";
const DRAINING: &str = "500 [+]backend-http ok\n[+]has-synced ok\n\
     [-]process-running failed: reason withheld\nhealthz check failed\n";
const DRAINED: &str = "500 [-]backend-http failed: reason withheld\n[+]has-synced ok\n\
     [-]process-running failed: reason withheld\nhealthz check failed\n";
const NO_SOCKET: &str = "500 [+]controller ok\n\
     [-]admin-socket failed: reason withheld\nhealthz check failed\n";

/// Who is asked what: the order of the answers in the table.
const ASKED: [&str; 4] = ["/healthz/ready", "/healthz", "hello", "badhost"];

/// After each deed, what was new from each of the four, in its order.
type Row = (Deed, [&'static [&'static str]; 4]);

const GONE: [&[&str]; 4] = [&[REFUSED]; 4];
const BEGUN: &[&str] = &[STARTING, NO_BACKEND, OK];
const LIVE: &[&str] = &[NO_SOCKET, OK];

/// 80 refuses before 1936 does, which then says DRAINED.
const EMBEDDED: [Row; 16] = [
    (KillRouter, GONE),
    (Start, [BEGUN, LIVE, &[HELLO], &[PAGE]]),
    (
        StopHaproxy,
        [&[NO_BACKEND], &[NO_SOCKET], &[SILENT], &[SILENT]],
    ),
    (ContinueHaproxy, [&[OK], &[OK], &[HELLO], &[PAGE]]),
    (
        KillHaproxy,
        [&[NO_BACKEND], &[NO_SOCKET], &[REFUSED], &[REFUSED]],
    ),
    (ChangeRoute, [&[OK], &[OK], &[HELLO], &[PAGE]]),
    (
        Terminate,
        [
            &[DRAINING, DRAINED, REFUSED],
            &[NO_SOCKET, REFUSED],
            &[REFUSED],
            &[REFUSED],
        ],
    ),
    (Start, [BEGUN, LIVE, &[HELLO], &[PAGE]]),
    (StopRouter, [&[SILENT], &[SILENT], &[], &[]]),
    (ContinueRouter, [&[OK], &[OK], &[], &[]]),
    (Fill, [&[NO_BACKEND], &[], &[SILENT], &[SILENT]]),
    (Empty, [&[OK], &[], &[HELLO], &[PAGE]]),
    (ChangeRoute, [&[], &[], &[], &[]]),
    // Not recorded: both processes of the pod.
    (StopBoth, [&[SILENT]; 4]),
    (ContinueRouter, [&[OK], &[OK], &[HELLO], &[PAGE]]),
    (KillRouter, GONE),
];

/// 1936 refuses before 80 does: it never says DRAINED.
const SIDECAR: [Row; 4] = [
    (Start, [BEGUN, &[OK], &[HELLO], &[PAGE]]),
    (
        Terminate,
        [&[DRAINING, REFUSED], &[REFUSED], &[REFUSED], &[REFUSED]],
    ),
    (Start, [BEGUN, &[OK], &[HELLO], &[PAGE]]),
    // The recording has 80 refused 15 s later, when the pod was ended by hand.
    (KillRouter, [&[REFUSED], &[REFUSED], &[], &[]]),
];

/// The test. Its routers have many routes and a slow API server, so that every step of
/// a start is long enough to be seen.
pub fn holds(setup: Setup) -> Result<()> {
    let mut lab = Lab::open(Setup {
        size: R30000,
        api: 2.0,
        maxconn: 20,
        ..setup
    })?;
    let observer = Observer::new(&lab, 0);
    for (profile, table) in [
        (Profile::Embedded, &EMBEDDED[..]),
        (Profile::Sidecar, &SIDECAR),
    ] {
        lab.setup.profile = profile;
        // The answers before the first deed are not compared.
        lab.pause(2.0)?;
        let mut clients = Vec::new();
        for (deed, said) in table {
            compare(&mut lab, &observer, &mut clients, *deed, said)?;
        }
    }
    Ok(())
}
fn compare(
    lab: &mut Lab,
    observer: &Observer,
    clients: &mut Vec<Arc<TcpStream>>,
    deed: Deed,
    said: &[&[&str]; 4],
) -> Result<()> {
    let profile = lab.setup.profile;
    let before = observer.counts();
    let news = || {
        let all = (0..ASKED.len()).map(|number| observer.since(number, before[number]));
        all.collect::<Vec<_>>()
    };
    match deed {
        Start => lab.start(0)?,
        StopHaproxy => lab.hang(0),
        KillHaproxy => lab.break_haproxy(0),
        ChangeRoute => lab.change_route(0),
        Terminate => lab.delete(0),
        KillRouter => lab.kill(0)?,
        StopRouter => lab.freeze_router(0),
        StopBoth => lab.freeze(0),
        ContinueHaproxy | ContinueRouter => lab.thaw(0),
        Fill => {
            for _ in 0..25 {
                clients.push(lab.busy_client(0)?);
            }
        }
        Empty => clients.clear(),
    }
    let what = format!("what the real router said after {deed:?}, {profile:?}");
    let ends = |news: &[Vec<String>]| {
        let mut all = news.iter().zip(said);
        all.all(|(news, said)| news.last().map(String::as_str) == said.last().copied())
    };
    let waited = lab.wait_for(&what, 100.0, |_| ends(&news()));
    if deed == Start {
        first_reload(lab, 0)?;
    }
    if deed == Fill {
        // The backlog is as long as maxconn.
        let address = lab.ports(0).http();
        let limit = lab.setup.scale.wait(1.0);
        lab.wait_for("a full backlog", 10.0, |_| {
            match TcpStream::connect_timeout(&address, limit) {
                Ok(client) => clients.push(Arc::new(client)),
                Err(error) => return error.kind() == ErrorKind::TimedOut,
            }
            false
        })?;
    }
    lab.pause(1.0)?; // for what should not come
    for (number, said) in said.iter().enumerate() {
        let news = observer.since(number, before[number]);
        assert_eq!(&news, said, "{} after {deed:?}, {profile:?}", ASKED[number]);
    }
    waited
}

/// Waits for the reload that follows a start.
fn first_reload(lab: &mut Lab, node: usize) -> Result<()> {
    lab.wait_for("the first reload", 30.0, |lab| {
        let states = lab.story.states.iter().rev();
        let mut states = states.filter(|&&(_, of, _)| of == node).map(|s| s.2);
        states.next() == Some(State::Ready)
            && states
                .take_while(|&state| state != State::Starting)
                .any(|state| state == State::Reload)
    })
}

/// Four threads that ask a node again and again and note each new answer.
struct Observer {
    /// Dropped, it ends the threads.
    go_on: Arc<AtomicBool>,
    said: [Arc<Mutex<Vec<String>>>; 4],
}

impl Observer {
    fn new(lab: &Lab, node: usize) -> Observer {
        // Two seconds more: on a busy machine an answer once took longer than the rest.
        let limit = lab.setup.scale.wait(6.0) + Duration::from_secs(2);
        let ports = lab.ports(node);
        let go_on = Arc::new(AtomicBool::new(true));
        let said = ASKED.map(|asked| {
            let (address, path, host) = match asked {
                "hello" => (ports.http(), "/", ROUTE),
                "badhost" => (ports.http(), "/", "unknown.lab"),
                path => (ports.stats(), path, "localhost"),
            };
            let said = Arc::<Mutex<Vec<String>>>::default();
            let (heard, go_on) = (Arc::clone(&said), Arc::clone(&go_on));
            thread::spawn(move || {
                while go_on.load(Ordering::SeqCst) {
                    let answer = match ask(address, path, host, limit) {
                        Said::Refused => Some(REFUSED.to_string()),
                        Said::Silent => Some(SILENT.to_string()),
                        Said::Cut => None,
                        Said::Answer(status, body) if body.len() == 2503 => {
                            Some(format!("{status} <2503 bytes>"))
                        }
                        Said::Answer(status, body) => Some(format!("{status} {body}")),
                    };
                    let mut said = heard.lock().unwrap();
                    if answer.is_some() && said.last() != answer.as_ref() {
                        said.extend(answer);
                    }
                    drop(said);
                    thread::sleep(Duration::from_millis(10));
                }
            });
            said
        });
        Observer { go_on, said }
    }

    fn counts(&self) -> [usize; 4] {
        self.said.each_ref().map(|said| said.lock().unwrap().len())
    }

    fn since(&self, number: usize, count: usize) -> Vec<String> {
        self.said[number].lock().unwrap()[count..].to_vec()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.go_on.store(false, Ordering::SeqCst);
    }
}
