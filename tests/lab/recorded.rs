//! What a real router said while things were done to it, and the lab's router
//! held against it: the same answers in the same order. Recorded on the real
//! router 2026-11-24, commit 4b401a86, HAProxy 2.6.12, from outside. Times are
//! not compared, and neither is a connection that a kill cut: what it got is
//! chance.

use std::io::ErrorKind;
use std::mem;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::lab::{Lab, Setup};
use crate::plan::{Profile, Result, State};
use crate::router::ask;

const OK: &str = "200 ok";
const HELLO: &str = "200 Hello World!\n";
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

/// What is asked: on port 1936, and a route on port 80.
const ASKED: [&str; 3] = ["/healthz/ready", "/healthz", "/"];

/// What is done to the router, and what was new then from each of the three, in its order.
type Row = (
    fn(&mut Lab, usize) -> Result<()>,
    [&'static [&'static str]; 3],
);

const GONE: [&[&str]; 3] = [&[REFUSED]; 3];
const BEGUN: &[&str] = &[STARTING, NO_BACKEND, OK];
const LIVE: &[&str] = &[NO_SOCKET, OK];

/// 80 refuses before 1936 does, which then says DRAINED.
const EMBEDDED: [Row; 13] = [
    (Lab::kill, GONE),
    (Lab::start, [BEGUN, LIVE, &[HELLO]]),
    (Lab::hang, [&[NO_BACKEND], &[NO_SOCKET], &[SILENT]]),
    (Lab::thaw, [&[OK], &[OK], &[HELLO]]),
    (
        Lab::break_haproxy,
        [&[NO_BACKEND], &[NO_SOCKET], &[REFUSED]],
    ),
    (Lab::change_route, [&[OK], &[OK], &[HELLO]]),
    (
        Lab::delete,
        [
            &[DRAINING, DRAINED, REFUSED],
            &[NO_SOCKET, REFUSED],
            &[REFUSED],
        ],
    ),
    (Lab::start, [BEGUN, LIVE, &[HELLO]]),
    (Lab::freeze_router, [&[SILENT], &[SILENT], &[]]),
    (Lab::thaw, [&[OK], &[OK], &[]]),
    (Lab::change_route, [&[], &[], &[]]),
    // Not recorded: both processes of the pod.
    (Lab::freeze, [&[SILENT]; 3]),
    (Lab::kill, GONE),
];

/// 1936 refuses before 80 does: it never says DRAINED.
const SIDECAR: [Row; 4] = [
    (Lab::start, [BEGUN, &[OK], &[HELLO]]),
    (Lab::delete, [&[DRAINING, REFUSED], &[REFUSED], &[REFUSED]]),
    (Lab::start, [BEGUN, &[OK], &[HELLO]]),
    // The recording has 80 refused 15 s later, when the pod was ended by hand.
    (Lab::kill, [&[REFUSED], &[REFUSED], &[]]),
];

/// The test. Its routers have many routes and a slow API server, so that every step of
/// a start is long enough to be seen.
pub fn holds(setup: Setup) -> Result<()> {
    let mut lab = Lab::open(Setup {
        routes: 30_000,
        api: 2.0,
        ..setup
    })?;
    let heard = observe(&lab);
    for (profile, table) in [
        (Profile::Embedded, &EMBEDDED[..]),
        (Profile::Sidecar, &SIDECAR),
    ] {
        lab.setup.profile = profile;
        for (number, (deed, said)) in table.iter().enumerate() {
            // The answers before a deed are not compared.
            lab.pause(1.0)?;
            for heard in &heard {
                heard.lock().unwrap().clear();
            }
            deed(&mut lab, 0)?;
            let what = format!("what the real router said, {profile}, row {number}: {said:?}");
            let waited = lab.wait_for(&what, 100.0, |_| {
                let mut all = heard.iter().zip(said);
                all.all(|(heard, said)| {
                    heard.lock().unwrap().last().map(String::as_str) == said.last().copied()
                })
            });
            if said[0] == BEGUN {
                let reload = [State::Ready, State::Reload, State::Ready];
                lab.wait_for("the reload that follows a start", 30.0, |lab| {
                    let states = lab.story.states.iter().filter(|state| state.1 == 0);
                    let states: Vec<_> = states.map(|state| state.2).collect();
                    states.ends_with(&reload)
                })?;
            }
            lab.pause(1.0)?; // for what should not come
            for (heard, said) in heard.iter().zip(said) {
                let heard = mem::take(&mut *heard.lock().unwrap());
                assert_eq!(&heard, said, "{what}");
            }
            waited?;
        }
    }
    Ok(())
}

/// Threads that ask the first node again and again and note each new answer, until the
/// list that they are given for it is dropped.
fn observe(lab: &Lab) -> [Arc<Mutex<Vec<String>>>; 3] {
    // Two seconds more: on a busy machine an answer once took longer than the rest.
    let limit = lab.setup.scale.wait(6.0) + Duration::from_secs(2);
    let ports = lab.ports(0);
    ASKED.map(|path| {
        let address = ports.at(if path == "/" { 80 } else { 1936 });
        let said = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            let mut last = None;
            while Arc::strong_count(&heard) > 1 {
                let answer = match ask(address, path, limit) {
                    Ok(answer) => answer,
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                        Some(REFUSED.to_string())
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Some(SILENT.to_string()),
                    // A SYN that was dropped, for one: the listener was just being closed.
                    Err(_) => None,
                };
                if answer.is_some() && answer != last {
                    last.clone_from(&answer);
                    heard.lock().unwrap().extend(answer);
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
        said
    })
}
