//! What a real router said while things were done to it, and the lab's router
//! held against it: the same answers in the same order. Recorded on the real
//! router 2026-11-24, commit 4b401a86, HAProxy 2.6.12, from outside. Times are
//! not compared, and neither is a connection that a kill cut: what it got is
//! chance.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::lab::{Lab, Setup};
use crate::plan::{Profile, Result, Scale, Size, State};
use crate::router::ROUTE;

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
type Said = (Deed, [&'static [&'static str]; 4]);

const EMBEDDED: [Said; 14] = [
    (KillRouter, [&[REFUSED], &[REFUSED], &[REFUSED], &[REFUSED]]),
    (
        Start,
        [
            &[STARTING, NO_BACKEND, OK],
            &[NO_SOCKET, OK],
            &[HELLO],
            &[PAGE],
        ],
    ),
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
    (
        Start,
        [
            &[STARTING, NO_BACKEND, OK],
            &[NO_SOCKET, OK],
            &[HELLO],
            &[PAGE],
        ],
    ),
    (StopRouter, [&[SILENT], &[SILENT], &[], &[]]),
    (ContinueRouter, [&[OK], &[OK], &[], &[]]),
    (Fill, [&[NO_BACKEND], &[], &[SILENT], &[SILENT]]),
    (Empty, [&[OK], &[], &[HELLO], &[PAGE]]),
    (ChangeRoute, [&[], &[], &[], &[]]),
    (KillRouter, [&[REFUSED], &[REFUSED], &[REFUSED], &[REFUSED]]),
];

const SIDECAR: [Said; 4] = [
    (
        Start,
        [&[STARTING, NO_BACKEND, OK], &[OK], &[HELLO], &[PAGE]],
    ),
    (
        Terminate,
        [&[DRAINING, REFUSED], &[REFUSED], &[REFUSED], &[REFUSED]],
    ),
    (
        Start,
        [&[STARTING, NO_BACKEND, OK], &[OK], &[HELLO], &[PAGE]],
    ),
    // The recording has 80 refused 15 s later, when the pod was ended by hand.
    (KillRouter, [&[REFUSED], &[REFUSED], &[], &[]]),
];

/// The test. Its routers have many routes and a slow API server, so that every step of
/// a start is long enough to be seen.
pub fn holds(setup: Setup) -> Result<()> {
    let mut lab = Lab::open(Setup {
        size: Size::LARGE,
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
            compare(&mut lab, &observer, &mut clients, profile, *deed, said)?;
        }
    }
    Ok(())
}

fn compare(
    lab: &mut Lab,
    observer: &Observer,
    clients: &mut Vec<Arc<TcpStream>>,
    profile: Profile,
    deed: Deed,
    said: &[&[&str]; 4],
) -> Result<()> {
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
pub fn first_reload(lab: &mut Lab, node: usize) -> Result<()> {
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
    stop: Arc<AtomicBool>,
    said: Vec<Arc<Mutex<Vec<String>>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Observer {
    fn new(lab: &Lab, node: usize) -> Observer {
        let (ports, scale) = (lab.ports(node), lab.setup.scale);
        let mut observer = Observer {
            stop: Arc::default(),
            said: Vec::new(),
            threads: Vec::new(),
        };
        for asked in ASKED {
            let (address, path, host) = match asked {
                "hello" => (ports.http(), "/", ROUTE),
                "badhost" => (ports.http(), "/", "unknown.lab"),
                path => (ports.stats(), path, "localhost"),
            };
            let said = Arc::<Mutex<Vec<String>>>::default();
            observer.said.push(Arc::clone(&said));
            let stop = Arc::clone(&observer.stop);
            observer.threads.push(thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    if let Some(answer) = ask(address, path, host, scale) {
                        let mut said = said.lock().unwrap();
                        if said.last() != Some(&answer) {
                            said.push(answer);
                        }
                    }
                    thread::sleep(Duration::from_millis(10));
                }
            }));
        }
        observer
    }

    fn counts(&self) -> Vec<usize> {
        let counts = self.said.iter().map(|said| said.lock().unwrap().len());
        counts.collect()
    }

    fn since(&self, number: usize, count: usize) -> Vec<String> {
        self.said[number].lock().unwrap()[count..].to_vec()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Status and body, or what came instead within 6 s; nothing if there was no connection
/// or it was cut.
fn ask(address: SocketAddr, path: &str, host: &str, scale: Scale) -> Option<String> {
    let limit = scale.wait(6.0);
    let end = Instant::now() + limit;
    let mut stream = match TcpStream::connect_timeout(&address, limit) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Some(REFUSED.to_string());
        }
        // A SYN that was dropped: the backlog is full, or the listener was just
        // being closed.
        Err(_) => return None,
    };
    let mut talk = || {
        let left = end.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    match talk() {
        Ok(text) => {
            let (head, body) = text.split_once("\r\n\r\n")?;
            let status = head.split(' ').nth(1)?;
            Some(match body.len() {
                2503 => format!("{status} <2503 bytes>"),
                _ => format!("{status} {body}"),
            })
        }
        Err(error) => match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Some(SILENT.to_string()),
            _ => None,
        },
    }
}
