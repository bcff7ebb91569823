//! One router, as its own process, which can be stopped and killed: the health endpoint
//! on 1936 (in production the openshift-router process) and its child, a real HAProxy
//! on 80 and 443. In the `sidecar` profile HAProxy is the child of a process beside it.
//! Nothing here is scripted for a phase: SIGTERM starts the drain, SIGHUP says that a
//! route has changed, and 1936 asks HAProxy before it answers, as the real one does.
//! `recorded` compares it with the answers of a real one.

use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::flag;

use crate::plan::{
    BACKEND_TIMEOUT, DRAIN, EXIT, LINGER, OPENS, Ports, Profile, RELOAD_INTERVAL, Result, SILENCE,
    SIZES, Scale, Size, State, now,
};
use crate::process::Proc;

/// The path that the router's HAProxy answers itself (`monitor-uri`).
const MONITOR: &str = "/_______internal_router_healthz";

/// The host of the one route that leads anywhere; every other host gets 503.
pub const ROUTE: &str = "hello.lab";

/// The router notices signals, a dead HAProxy and the end of a wait within this time: a
/// tenth of a real second at the usual scale 0.1.
const TICK: Duration = Duration::from_millis(10);

/// The settings of a router.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub ports: Ports,
    pub profile: Profile,
    pub size: Size,
    /// Real seconds until the API server has sent the routes.
    pub api: f64,
    /// HAProxy's limit of open connections.
    pub maxconn: u32,
    pub scale: Scale,
    pub hello: SocketAddr,
    pub dir: PathBuf,
}

impl Spec {
    /// As arguments for the process; [`Spec::parse`] reads them.
    pub fn args(&self) -> Vec<String> {
        let Ports { host, offset } = self.ports;
        let (name, profile, routes) = (&self.name, self.profile, self.size.routes);
        let (api, maxconn, scale, hello) = (self.api, self.maxconn, self.scale.0, self.hello);
        let dir = self.dir.display();
        let all = format!(
            "{name} {host} {offset} {profile} {routes} {api} {maxconn} {scale} {hello} {dir}"
        );
        all.splitn(10, ' ').map(String::from).collect()
    }

    pub fn parse(mut args: impl Iterator<Item = String>) -> Option<Spec> {
        let name = args.next()?;
        let (host, offset) = (args.next()?.parse().ok()?, args.next()?.parse().ok()?);
        let (profile, routes) = (args.next()?, args.next()?.parse().ok()?);
        let profile = Profile::ALL
            .into_iter()
            .find(|p| p.to_string() == profile)?;
        Some(Spec {
            name,
            ports: Ports { host, offset },
            profile,
            size: SIZES.into_iter().find(|size| size.routes == routes)?,
            api: args.next()?.parse().ok()?,
            maxconn: args.next()?.parse().ok()?,
            scale: Scale(args.next()?.parse().ok()?),
            hello: args.next()?.parse().ok()?,
            dir: args.next()?.into(),
        })
    }

    /// Removes the last pod's configuration: a new sidecar waits for its own.
    pub fn forget(&self) {
        let _ = fs::remove_file(self.path("haproxy.cfg"));
    }

    fn path(&self, end: &str) -> PathBuf {
        self.dir.join(format!("{}-{end}", self.name))
    }
}

/// The life of a router, from exec to exit.
pub fn run(spec: &Spec) -> Result<()> {
    die_with_parent()?;
    let signals = Signals::new().map_err(|error| format!("cannot handle signals: {error}"))?;
    let wait = |real| signals.stopped_within(spec.scale.wait(real));
    let sidecar = spec.profile == Profile::Sidecar;
    let mut haproxy = Haproxy::new(spec, sidecar);
    thread::sleep(spec.scale.wait(OPENS));
    let endpoint = Endpoint::open(spec, &signals.term)?;
    say(State::Starting);

    // About a third of a recorded start passes until the routes are there, a third
    // while it writes the configuration, a third while HAProxy loads it.
    let third = spec.size.start / 3.0;
    let mut last = Instant::now();
    if !wait(spec.api + third) {
        last = Instant::now();
        endpoint.write(spec.scale.wait(third));
        wait(third);
        haproxy.load()?;
        while !signals.stopped_within(TICK) && !backend_http(spec) {}
        say(State::Ready);
    }
    let mut changed = true; // what came while the first configuration was written
    while !signals.stopped_within(TICK) {
        haproxy.reap();
        changed |= signals.reload.swap(false, Ordering::SeqCst);
        if changed && last.elapsed() >= spec.scale.wait(RELOAD_INTERVAL) {
            changed = false;
            last = Instant::now();
            say(State::Reload);
            let (least, most) = spec.size.write;
            endpoint.write(spec.scale.wait(least + (most - least) * fastrand::f64()));
            haproxy.load()?;
            say(State::Ready);
        }
    }

    // A router that drains ignores changes of routes.
    say(State::Drain1);
    thread::sleep(spec.scale.wait(DRAIN));
    if sidecar {
        thread::sleep(spec.scale.wait(EXIT));
        endpoint.close();
        say(State::SidecarTail);
        thread::sleep(spec.scale.wait(EXIT));
    } else {
        say(State::Drain2);
    }
    haproxy.stop();
    thread::sleep(spec.scale.wait(EXIT));
    Ok(())
}

/// The other container of a `sidecar` pod, from exec to exit. The router controls it by
/// the configuration file: a new file starts a new HAProxy, removing the file ends it.
/// A router that is killed leaves the file, so HAProxy keeps serving.
pub fn sidecar(spec: &Spec) -> Result<()> {
    die_with_parent()?;
    let mut haproxy = Haproxy::new(spec, false);
    let mut last = None;
    loop {
        let written = fs::metadata(spec.path("haproxy.cfg")).and_then(|file| file.modified());
        match written {
            Ok(time) if last != Some(time) => {
                last = Some(time);
                haproxy.start()?;
            }
            Err(_) if last.is_some() => break,
            _ => haproxy.reap(),
        }
        thread::sleep(TICK);
    }
    haproxy.stop();
    Ok(())
}

fn die_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("cannot ask to die with the lab: {error}"))
}

/// Writes one line for the lab, with the time.
fn say(word: impl Display) {
    // A lab that no longer reads this is about to kill us.
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

    /// Waits, and returns whether SIGTERM has come.
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

/// The current HAProxy, and those that a reload has replaced and that still finish
/// their connections. In the `sidecar` profile a process beside the router runs it.
struct Haproxy<'a> {
    spec: &'a Spec,
    beside: bool,
    running: Vec<Proc>,
}

impl Haproxy<'_> {
    fn new(spec: &Spec, beside: bool) -> Haproxy<'_> {
        Haproxy {
            spec,
            beside,
            running: Vec::new(),
        }
    }

    /// Writes a configuration and waits until it is served.
    fn load(&mut self) -> Result<()> {
        configure(self.spec)?;
        if !self.beside {
            return self.start();
        }
        while TcpStream::connect(self.spec.ports.http()).is_err() {
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Starts one, which takes over the sockets of the last (`-x`, `-sf`), so that no
    /// connection is refused meanwhile. A dead one has nothing to hand over.
    fn start(&mut self) -> Result<()> {
        let spec = self.spec;
        self.running.retain_mut(|haproxy| haproxy.ended().is_none());
        let file = |end| spec.path(end).into_os_string();
        let mut args = vec!["-db".into(), "-f".into(), file("haproxy.cfg")];
        if let Some(last) = self.running.last() {
            let id = last.id().as_raw_nonzero().to_string();
            args.extend(["-x".into(), file("haproxy.sock"), "-sf".into(), id.into()]);
        }
        let name = format!("{}-haproxy", spec.name);
        let mut haproxy = Proc::spawn(&spec.dir, &name, "haproxy".as_ref(), &args)?;
        // It answers on its socket once it has told the last one to stop.
        let id = haproxy.id().as_raw_nonzero();
        let own = format!("\nPid: {id}\n");
        while !info(spec).is_ok_and(|info| info.contains(&own)) {
            haproxy.must_run()?;
            thread::sleep(TICK);
        }
        say(format!("haproxy {id}"));
        self.running.push(haproxy);
        Ok(())
    }

    /// Forgets the replaced ones that have ended. It keeps the last one: if that has
    /// died, 1936 must say so.
    fn reap(&mut self) {
        if let Some(last) = self.running.pop() {
            self.running.retain_mut(|haproxy| haproxy.ended().is_none());
            self.running.push(last);
        }
    }

    /// Refuses new connections and finishes the open ones; returns when they are done.
    fn stop(&mut self) {
        if self.beside {
            // An error means that it is done already.
            let _ = fs::remove_file(self.spec.path("haproxy.cfg"));
            return;
        }
        for haproxy in &self.running {
            haproxy.signal(Signal::USR1);
        }
        let start = Instant::now();
        let (least, most) = LINGER;
        thread::sleep(self.spec.scale.wait(least));
        let most = self.spec.scale.wait(most);
        while start.elapsed() < most && self.running.iter_mut().any(|h| h.ended().is_none()) {
            thread::sleep(TICK);
        }
        self.running.clear();
    }
}

/// Puts the whole configuration in place at once: a sidecar may look at any time.
fn configure(spec: &Spec) -> Result<()> {
    let put = |end: &str, text: &str| {
        let new = spec.path("new");
        fs::write(&new, text)?;
        fs::rename(&new, spec.path(end))
    };
    // For a host without a route: a page of 2503 bytes, as the router's own.
    let page = format!(
        "HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\n\
         Content-Type: text/html\r\n\r\n{:2503}",
        "<html><body><h1>Application is not available</h1></body></html>"
    );
    put("503.http", &page)
        .and_then(|()| put("haproxy.cfg", &config(spec)))
        .map_err(|error| format!("cannot write the router's configuration: {error}"))
}

/// The configuration of the router's HAProxy. 443 carries plain HTTP too: a layer-4
/// switch would see no difference with TLS. The timeouts are those of the OpenShift
/// router's template: 5 s, 30 s, 30 s.
fn config(spec: &Spec) -> String {
    format!(
        "global
  nbthread 1
  maxconn {maxconn}
  stats socket {socket} mode 600 expose-fd listeners
defaults
  mode http
  timeout connect {connect}ms
  timeout client {silence}ms
  timeout server {silence}ms
frontend public
  bind {http}
  bind {https}
  monitor-uri {MONITOR}
  use_backend hello if {{ hdr(host) -i {ROUTE} }}
  default_backend none
backend none
  errorfile 503 {page}
backend hello
  server hello {hello}
",
        socket = spec.path("haproxy.sock").display(),
        page = spec.path("503.http").display(),
        connect = spec.scale.millis(5.0),
        silence = spec.scale.millis(SILENCE),
        http = spec.ports.http(),
        https = spec.ports.https(),
        hello = spec.hello,
        maxconn = spec.maxconn,
    )
}

/// Port 1936. It has no limits and no timeouts, as in production: a silent connection
/// stays open, and a thread waits for it.
struct Endpoint {
    listener: TcpStream,
    /// Whether the first configuration is written. A reload holds the lock while it
    /// writes the next one, and `has-synced` waits for it.
    synced: Arc<Mutex<bool>>,
}

impl Endpoint {
    fn open(spec: &Spec, term: &Arc<AtomicBool>) -> Result<Endpoint> {
        let address = spec.ports.stats();
        let failed = |error: io::Error| format!("cannot listen on {address}: {error}");
        let listener = TcpListener::bind(address).map_err(failed)?;
        let endpoint = Endpoint {
            listener: TcpStream::from(OwnedFd::from(listener.try_clone().map_err(failed)?)),
            synced: Arc::default(),
        };
        let (spec, synced) = (spec.clone(), Arc::clone(&endpoint.synced));
        let term = Arc::clone(term);
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let (spec, synced) = (spec.clone(), Arc::clone(&synced));
                let term = Arc::clone(&term);
                thread::spawn(move || {
                    let good = |part: &str| match part {
                        "backend-http" => backend_http(&spec),
                        "has-synced" => *synced.lock().unwrap_or_else(PoisonError::into_inner),
                        "process-running" => !term.load(Ordering::SeqCst),
                        "admin-socket" => info(&spec).is_ok(),
                        _ => true, // controller: this process, which answers
                    };
                    // An error means that the client has gone.
                    let _ = serve(&client, spec.profile, good);
                });
            }
        });
        Ok(endpoint)
    }

    /// What a reload does first.
    fn write(&self, time: Duration) {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        thread::sleep(time);
        *synced = true;
    }

    /// Refuse new connections; `accept` fails and its thread ends.
    fn close(&self) {
        let _ = self.listener.shutdown(Shutdown::Both);
    }
}

fn serve(client: &TcpStream, profile: Profile, good: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut lines = BufReader::new(client).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let mut has_host = false;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        has_host |= line.starts_with("host:");
        if line.is_empty() {
            let (status, body) = answer(&request, has_host, profile, good);
            let date = httpdate::fmt_http_date(SystemTime::now());
            // Every answer ends its connection. The real router keeps it open, but no
            // client here uses one twice.
            let mut client = client;
            // In one piece: a router that is killed has answered in full or not at all.
            let whole = format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
                 X-Content-Type-Options: nosniff\r\nDate: {date}\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                body.len()
            );
            return client.write_all(whole.as_bytes());
        }
    }
    Ok(())
}

/// Status and body, as the router words them; `good` says whether a part is well. The
/// real one can also be asked for a single part, and for all words of a good answer.
pub fn answer(
    request: &str,
    has_host: bool,
    profile: Profile,
    good: impl Fn(&str) -> bool,
) -> (&'static str, String) {
    if request.ends_with("HTTP/1.1") && !has_host {
        let status = "400 Bad Request: missing required Host header";
        return (status, status.to_string());
    }
    let parts = match (request.split(' ').nth(1), profile) {
        (Some("/healthz/ready"), _) => &["backend-http", "has-synced", "process-running"][..],
        // Liveness depends neither on port 80 nor on a drain.
        (Some("/healthz"), Profile::Sidecar) => &["controller"],
        (Some("/healthz"), _) => &["controller", "admin-socket"],
        // With a slash at the end, for one.
        _ => return ("403 Forbidden", "Forbidden: \n".to_string()),
    };
    let parts: Vec<_> = parts.iter().map(|part| (part, good(part))).collect();
    if parts.iter().all(|&(_, good)| good) {
        return ("200 OK", "ok".to_string());
    }
    let lines = parts.into_iter().map(|(part, good)| match good {
        true => format!("[+]{part} ok\n"),
        false => format!("[-]{part} failed: reason withheld\n"),
    });
    let body = lines.collect::<String>() + "healthz check failed\n";
    ("500 Internal Server Error", body)
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Refused,
    Silent,
    /// Status and body.
    Answer(String, String),
    /// No connection, or one that was cut.
    Cut,
}

/// Sends a GET and waits for so long.
pub fn ask(address: SocketAddr, path: &str, host: &str, limit: Duration) -> Said {
    let end = Instant::now() + limit;
    let talk = || {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        let left = end.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut text = String::new();
        match stream.read_to_string(&mut text) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => read.map(|_| Some(text)),
        }
    };
    match talk() {
        Ok(Some(text)) => match (text.get(9..12), text.split_once("\r\n\r\n")) {
            (Some(status), Some((_, body))) => Said::Answer(status.into(), body.into()),
            _ => Said::Cut,
        },
        Ok(None) => Said::Silent,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Said::Refused,
        // A SYN that was dropped, for one: the backlog is full, or the listener was just
        // being closed.
        Err(_) => Said::Cut,
    }
}

/// Whether HAProxy answers on port 80 within 2 s. If it is stuck, 1936 says 500 after
/// that time.
fn backend_http(spec: &Spec) -> bool {
    let limit = spec.scale.wait(BACKEND_TIMEOUT);
    let said = ask(spec.ports.http(), MONITOR, "localhost", limit);
    matches!(said, Said::Answer(status, _) if status == "200")
}

/// HAProxy's `show info`, which it answers beyond maxconn too.
fn info(spec: &Spec) -> io::Result<String> {
    let mut socket = UnixStream::connect(spec.path("haproxy.sock"))?;
    socket.set_read_timeout(Some(spec.scale.wait(BACKEND_TIMEOUT)))?;
    socket.write_all(b"show info\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text)
}
