//! One router, as a process of its own that can be stopped and killed: the
//! health endpoint on 1936 (in production the openshift-router process) and its
//! child, a real HAProxy on 80 and 443. Nothing here is scripted for a phase:
//! SIGTERM starts the drain, SIGHUP reloads, and what 1936 answers is found out
//! by asking port 80, as the real one does.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::flag;

use crate::plan::{
    BACKEND_TIMEOUT, DRAIN, EXIT, LINGER, Ports, Profile, Result, SYNC, Scale, State, now,
};
use crate::process::Proc;

/// The path that the router's HAProxy answers by itself (`monitor-uri`).
const MONITOR: &str = "/_______internal_router_healthz";

/// Signals, a reaped HAProxy and an ended wait are noticed within this; at the
/// smallest scale in use, 0.1, it is a tenth of a real second.
const TICK: Duration = Duration::from_millis(10);

/// What a router is told at its start.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub ports: Ports,
    pub profile: Profile,
    pub scale: Scale,
    pub hello: SocketAddr,
    pub dir: PathBuf,
}

impl Spec {
    /// As arguments for the process; [`Spec::parse`] reads them.
    pub fn args(&self) -> [String; 7] {
        [
            self.name.clone(),
            self.ports.host.to_string(),
            self.ports.offset.to_string(),
            self.profile.name().to_string(),
            self.scale.0.to_string(),
            self.hello.to_string(),
            self.dir.to_string_lossy().to_string(),
        ]
    }

    pub fn parse(args: &[String]) -> Option<Spec> {
        let [name, host, offset, profile, scale, hello, dir] = args else {
            return None;
        };
        Some(Spec {
            name: name.clone(),
            ports: Ports {
                host: host.parse().ok()?,
                offset: offset.parse().ok()?,
            },
            profile: Profile::ALL.into_iter().find(|p| p.name() == profile)?,
            scale: Scale(scale.parse().ok()?),
            hello: hello.parse().ok()?,
            dir: dir.into(),
        })
    }
}

/// The life of a router, from exec to exit.
pub fn run(spec: &Spec) -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot ask to die with the lab: {error}"))?;
    let signals = Signals::new().map_err(|error| format!("cannot handle signals: {error}"))?;
    let endpoint = Endpoint::open(spec)?;
    let mut haproxy = Haproxy::new(spec);
    say(State::Starting.name());

    if spec.profile == Profile::Legacy {
        haproxy.start(false)?; // open, no routes yet: every request gets 503
    }
    if !signals.stopped_within(spec.scale.wait(SYNC)) {
        haproxy.start(true)?;
        endpoint.synced.store(true, Ordering::SeqCst);
        while !signals.stopped_within(TICK) && !backend_http(spec) {}
        say(State::Ready.name());
    }
    while !signals.stopped_within(TICK) {
        haproxy.reap();
        if signals.reload.swap(false, Ordering::SeqCst) {
            say(State::Reload.name());
            haproxy.start(true)?;
            say(State::Ready.name());
        }
    }

    endpoint.running.store(false, Ordering::SeqCst);
    say(State::Drain1.name());
    thread::sleep(spec.scale.wait(DRAIN));
    if spec.profile == Profile::Sidecar {
        thread::sleep(spec.scale.wait(EXIT));
        endpoint.close();
        say(State::SidecarTail.name());
        thread::sleep(spec.scale.wait(EXIT));
        haproxy.soft_stop();
        haproxy.linger();
    } else {
        haproxy.soft_stop();
        say(State::Drain2.name());
        haproxy.linger();
        thread::sleep(spec.scale.wait(EXIT));
    }
    Ok(())
}

/// One line for the lab, with the time.
fn say(word: &str) {
    // A lab that does not listen any more is about to kill us.
    let _ = writeln!(io::stdout(), "{:.3} {word}", now());
}

struct Signals {
    term: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        let signals = Signals {
            term: Arc::default(),
            reload: Arc::default(),
        };
        flag::register(SIGTERM, Arc::clone(&signals.term))?;
        flag::register(SIGHUP, Arc::clone(&signals.reload))?;
        Ok(signals)
    }

    /// Waits, and says whether SIGTERM has come.
    fn stopped_within(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while !self.term.load(Ordering::SeqCst) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            thread::sleep(left.min(TICK));
        }
        true
    }
}

/// The traffic side: the HAProxy of now, and those that reloads have replaced
/// and that finish their connections.
struct Haproxy<'a> {
    spec: &'a Spec,
    running: Vec<Proc>,
}

impl Haproxy<'_> {
    fn new(spec: &Spec) -> Haproxy<'_> {
        Haproxy {
            spec,
            running: Vec::new(),
        }
    }

    /// Starts one, which takes the sockets over from the last (`-x`, `-sf`): no
    /// connection is refused meanwhile.
    fn start(&mut self, routes: bool) -> Result<()> {
        let spec = self.spec;
        let path = |end| spec.dir.join(format!("{}-haproxy.{end}", spec.name));
        fs::write(path("cfg"), config(spec, routes))
            .map_err(|error| format!("cannot write the router's configuration: {error}"))?;
        let file = |end| path(end).to_string_lossy().to_string();
        let mut args = vec!["-db".to_string(), "-f".to_string(), file("cfg")];
        if let Some(last) = self.running.last() {
            let id = last.id().as_raw_nonzero().to_string();
            args.extend(["-x".to_string(), file("sock"), "-sf".to_string(), id]);
        }
        let name = format!("{}-haproxy", spec.name);
        let mut haproxy = Proc::spawn(&spec.dir, &name, OsStr::new("haproxy"), &args)?;
        // Connecting is enough: it must listen, not answer.
        while TcpStream::connect(spec.ports.http()).is_err() {
            haproxy.must_run()?;
            thread::sleep(TICK);
        }
        say(&format!("haproxy {}", haproxy.id().as_raw_nonzero()));
        self.running.push(haproxy);
        Ok(())
    }

    /// Forgets the replaced ones that have ended. The last one is kept: if it
    /// has died, that is what 1936 says.
    fn reap(&mut self) {
        let last = self.running.len().saturating_sub(1);
        let mut position = 0;
        self.running.retain_mut(|haproxy| {
            position += 1;
            position > last || haproxy.ended().is_none()
        });
    }

    /// Refuse new connections, finish the open ones.
    fn soft_stop(&self) {
        for haproxy in &self.running {
            haproxy.signal(Signal::USR1);
        }
    }

    fn linger(&mut self) {
        let start = Instant::now();
        let (least, most) = (
            self.spec.scale.wait(LINGER.0),
            self.spec.scale.wait(LINGER.1),
        );
        thread::sleep(least);
        while start.elapsed() < most && self.running.iter_mut().any(|h| h.ended().is_none()) {
            thread::sleep(TICK);
        }
        self.running.clear();
    }
}

/// The router's HAProxy. 443 carries plain HTTP too: TLS would change nothing
/// that a switch at layer 4 sees.
fn config(spec: &Spec, routes: bool) -> String {
    let socket = spec.dir.join(format!("{}-haproxy.sock", spec.name));
    let route = if routes {
        "default_backend hello"
    } else {
        "http-request return status 503"
    };
    // Time-outs as in the OpenShift router's template: 5 s, 30 s, 30 s. The
    // client's is longer here, so that only the drain's own limit cuts the
    // request that keeps a router busy.
    format!(
        "global
  nbthread 1
  stats socket {socket} mode 600 expose-fd listeners
defaults
  mode http
  timeout connect {connect}ms
  timeout client 10m
  timeout server 10m
frontend public
  bind {http}
  bind {https}
  monitor-uri {MONITOR}
  {route}
backend hello
  server hello {hello}
",
        socket = socket.display(),
        connect = spec.scale.millis(5.0),
        http = spec.ports.http(),
        https = spec.ports.https(),
        hello = spec.hello,
    )
}

/// Port 1936. No limits and no time-outs, as in production: a silent connection
/// is held, by a thread that waits for it.
struct Endpoint {
    listener: TcpStream,
    synced: Arc<AtomicBool>,
    running: Arc<AtomicBool>,
}

impl Endpoint {
    fn open(spec: &Spec) -> Result<Endpoint> {
        let address = spec.ports.stats();
        let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
        let listener = TcpListener::bind(address).map_err(failed)?;
        let endpoint = Endpoint {
            listener: TcpStream::from(OwnedFd::from(listener.try_clone().map_err(failed)?)),
            synced: Arc::new(AtomicBool::new(false)),
            running: Arc::new(AtomicBool::new(true)),
        };
        let (spec, synced) = (spec.clone(), Arc::clone(&endpoint.synced));
        let running = Arc::clone(&endpoint.running);
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let (spec, synced) = (spec.clone(), Arc::clone(&synced));
                let running = Arc::clone(&running);
                thread::spawn(move || {
                    let facts = || Facts {
                        backend_http: backend_http(&spec),
                        has_synced: synced.load(Ordering::SeqCst),
                        process_running: running.load(Ordering::SeqCst),
                    };
                    // A client that went away is its own affair.
                    let _ = serve(&client, facts);
                });
            }
        });
        Ok(endpoint)
    }

    /// Refuse new connections; `accept` fails and its thread ends.
    fn close(&self) {
        let _ = self.listener.shutdown(Shutdown::Both);
    }
}

fn serve(client: &TcpStream, facts: impl Fn() -> Facts) -> io::Result<()> {
    let mut lines = BufReader::new(client).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let mut has_host = false;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        has_host |= line.starts_with("host:");
        if line.is_empty() {
            let (status, body) = answer(&request, has_host, facts);
            // Every answer ends its connection; the real one keeps it, but none
            // of those who ask here uses a connection twice.
            let mut client = client;
            return write!(
                client,
                "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 X-Content-Type-Options: nosniff\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    }
    Ok(())
}

/// What the three parts of readiness are.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub backend_http: bool,
    pub has_synced: bool,
    pub process_running: bool,
}

/// Status and body, as the router words them.
pub fn answer(request: &str, has_host: bool, facts: impl Fn() -> Facts) -> (&'static str, String) {
    if request.ends_with("HTTP/1.1") && !has_host {
        let body = "400 Bad Request: missing required Host header";
        return ("400 Bad Request", body.to_string());
    }
    let (ready, facts) = match request.split(' ').nth(1) {
        Some("/healthz/ready") => (true, facts()),
        Some("/healthz") => (false, facts()),
        _ => return ("403 Forbidden", "Forbidden\n".to_string()),
    };
    // Liveness is the first of the three alone: 200 through the whole drain.
    let parts = [
        ("backend-http", facts.backend_http),
        ("has-synced", facts.has_synced),
        ("process-running", facts.process_running),
    ];
    let parts = if ready { &parts[..] } else { &parts[..1] };
    if parts.iter().all(|(_, good)| *good) {
        return ("200 OK", "ok".to_string());
    }
    let lines = parts.iter().map(|(name, good)| match good {
        true => format!("[+]{name} ok\n"),
        false => format!("[-]{name} failed: reason withheld\n"),
    });
    let body = lines.collect::<String>() + "healthz check failed\n";
    ("500 Internal Server Error", body)
}

/// Whether HAProxy answers on port 80 within 2 s. A stuck one makes 1936 take
/// that long to say 500.
fn backend_http(spec: &Spec) -> bool {
    let limit = spec.scale.wait(BACKEND_TIMEOUT);
    let agent = ureq::Agent::config_builder()
        .proxy(None)
        .timeout_global(Some(limit))
        .build()
        .new_agent();
    let url = format!("http://{}{MONITOR}", spec.ports.http());
    agent.get(&url).call().is_ok()
}
