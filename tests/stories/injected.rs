//! The port while system calls misbehave: strace delays or refuses them, as a stalled disk
//! or a security policy would.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Healthport, closed, eventually, opened, opened_unread, proc};

/// It must end first: nobody can wait for the end of a traced process.
struct Tracer(Child);

impl Tracer {
    /// From now on this happens to the calls of all threads: strace(1), "inject".
    fn inject(healthport: &Healthport, injections: &[&str]) -> Tracer {
        let pid = healthport.child.id();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-p", &pid.to_string()]);
        for injection in injections {
            strace.args(["-e", &format!("inject={injection}")]);
        }
        let strace = Tracer(strace.stderr(Stdio::null()).spawn().unwrap());
        let id = u64::from(strace.0.id());
        let by_strace = |&thread: &u32| proc::status(thread, "TracerPid") == Some(id);
        eventually("strace has them all", || {
            proc::threads(pid).iter().all(by_strace)
        });
        strace
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs strace"]
fn a_helper_that_hangs_keeps_the_port_closed() {
    let (service, healthport) = opened(&[]);
    let strace = Tracer::inject(&healthport, &["accept4:delay_exit=3600000000"]); // an hour
    service.not_ready();
    healthport.closes();
    service.ready();
    healthport.says("the helper does not answer");
    assert!(!healthport.is_open());
    assert_eq!(healthport.status("Threads"), 2);
    drop(strace);
    healthport.opens();
}

/// The helper watches the socket before it listens, so the lease holds from listen(2) on.
#[test]
#[ignore = "needs strace"]
fn a_loop_that_stalls_in_listen_loses_the_port() {
    let (service, healthport) = closed(&["--max-age", "2s"]);
    let _strace = Tracer::inject(&healthport, &["listen:delay_exit=3600000000"]);
    service.ready();
    healthport.opens();
    let probes = service.connections();
    healthport.closes();
    assert_eq!(service.connections(), probes, "the loop still stalls");
}

/// accept(2) hands such errors of a new connection on; the listener is well.
#[test]
#[ignore = "needs strace"]
fn connection_lost_before_accept_keeps_the_port_open() {
    let (service, healthport) = opened(&["--interval", "100ms"]);
    let _strace = Tracer::inject(&healthport, &["accept4:error=ECONNABORTED:when=1"]);
    assert!(healthport.is_open());
    let enough = service.connections() + 3;
    eventually("three cycles", || service.connections() >= enough);
    assert_eq!(healthport.count("port closed: cannot accept"), 0);
}

/// The lease expires before listen(2): the helper looks again until the socket listens.
#[test]
#[ignore = "needs strace"]
fn a_loop_that_stalls_before_listen_and_in_it_loses_the_port() {
    let (service, healthport) = closed(&["--max-age", "2s"]);
    let injection = "listen:delay_enter=4000000:delay_exit=3600000000";
    let _strace = Tracer::inject(&healthport, &[injection]);
    service.ready();
    let (ready, mut closed) = (Instant::now(), Instant::now());
    while ready.elapsed() < Duration::from_secs(8) {
        if !healthport.is_open() {
            closed = Instant::now();
        }
        let open = closed.elapsed();
        assert!(open < Duration::from_secs(2), "open for {open:?}");
    }
}

/// Neither the loop nor the lease can close it then: the end of the process does.
#[test]
#[ignore = "needs strace"]
fn a_port_that_cannot_be_closed_ends_the_process() {
    let refused = &["shutdown:error=EPERM"];
    let (service, mut healthport) = opened(&[]);
    let strace = Tracer::inject(&healthport, refused);
    service.not_ready();
    healthport.closes();
    drop(strace);
    assert_eq!(healthport.exits().code(), Some(71));
    healthport.says("healthport: cannot close the port: permission denied");

    // Nobody reads the log: the loop stalls, and the end does not wait for a reader.
    let (_service, mut healthport, _log) = opened_unread(&["--max-age", "3s"]);
    let strace = Tracer::inject(&healthport, refused);
    healthport.closes();
    drop(strace);
    assert_eq!(healthport.exits().code(), Some(71));
}
