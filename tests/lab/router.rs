//! One router, as its own process, which can be stopped and killed: the health endpoint
//! on 1936 (in production the openshift-router process) and its child, a real HAProxy
//! on 80 and 443. In the `sidecar` profile HAProxy is the child of a process beside it.
//! Nothing here is scripted for a phase: SIGTERM starts the drain, SIGHUP says that a
//! route has changed, and 1936 asks HAProxy before it answers, as the real one does.
//! `recorded` compares it with the answers of a real one.

use std::fmt::Display;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::flag;

use crate::plan::{
    BACKEND_TIMEOUT, DRAIN, EXIT, LINGER, OPENS, Ports, Profile, RELOAD_INTERVAL, Result, SILENCE,
    Scale, State, now, times,
};
use crate::process::Proc;

/// The path that the router's HAProxy answers itself (`monitor-uri`).
const MONITOR: &str = "/_______internal_router_healthz";

/// The router notices signals, a dead HAProxy and the end of a wait within this time: a
/// tenth of a real second at the usual scale 0.1.
const TICK: Duration = Duration::from_millis(10);

/// The settings of a router.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub ports: Ports,
    pub profile: Profile,
    pub routes: u32,
    /// Real seconds until the API server has sent the routes.
    pub api: f64,
    pub scale: Scale,
    pub hello: SocketAddr,
    pub dir: PathBuf,
}

impl Spec {
    /// As arguments for the process; [`Spec::parse`] reads them.
    pub fn args(&self) -> Vec<String> {
        let (ports, profile, routes) = (self.ports, self.profile, self.routes);
        let (host, offset, api, scale) = (ports.host, ports.offset, self.api, self.scale.0);
        let (name, hello, dir) = (&self.name, self.hello, self.dir.display());
        let all = format!("{name} {host} {offset} {profile} {routes} {api} {scale} {hello} {dir}");
        all.splitn(9, ' ').map(String::from).collect()
    }

    pub fn parse(args: &[String]) -> Option<Spec> {
        let [name, host, offset, profile, routes, api, scale, hello, dir] = args else {
            return None;
        };
        let profiles = [Profile::Embedded, Profile::Sidecar];
        Some(Spec {
            name: name.clone(),
            ports: Ports {
                host: host.parse().ok()?,
                offset: offset.parse().ok()?,
            },
            profile: profiles.into_iter().find(|p| p.to_string() == *profile)?,
            routes: routes.parse().ok()?,
            api: api.parse().ok()?,
            scale: Scale(scale.parse().ok()?),
            hello: hello.parse().ok()?,
            dir: dir.into(),
        })
    }

    /// Removes the configuration: the sidecar of the last pod ends, a new one waits for
    /// its own.
    pub fn forget(&self) {
        let _ = fs::remove_file(self.path("haproxy.cfg"));
    }

    fn path(&self, end: &str) -> PathBuf {
        self.dir.join(format!("{}-{end}", self.name))
    }

    fn wait(&self, real: f64) {
        sleep(self.scale.wait(real));
    }
}

/// The life of a router, from exec to exit.
pub fn run(spec: &Spec) -> Result<()> {
    let (term, reload) = (Arc::default(), Arc::default());
    flag::register(SIGTERM, Arc::clone(&term))
        .and_then(|_| flag::register(SIGHUP, Arc::clone(&reload)))
        .map_err(|error| format!("cannot handle signals: {error}"))?;
    let mut haproxies = Vec::new();
    spec.wait(OPENS);
    answer(spec, &term)?;
    let write = |time| {
        let mut synced = SYNCED.lock().unwrap_or_else(PoisonError::into_inner);
        spec.wait(time);
        *synced = true;
    };
    say(State::Starting);

    // About a third of a recorded start passes until the routes are there, a third
    // while it writes the configuration, a third while HAProxy loads it.
    let (start, least, most) = times(spec.routes);
    spec.wait(spec.api + start / 3.0);
    let mut last = Instant::now();
    write(start / 3.0);
    spec.wait(start / 3.0);
    load(spec, &mut haproxies)?;
    while !backend_http(spec) {
        sleep(TICK);
    }
    say(State::Ready);

    let mut changed = true; // what came while the first configuration was written
    while !term.load(Ordering::SeqCst) {
        changed |= reload.swap(false, Ordering::SeqCst);
        if changed && last.elapsed() >= spec.scale.wait(RELOAD_INTERVAL) {
            changed = false;
            last = Instant::now();
            say(State::Reload);
            write(least + (most - least) * fastrand::f64());
            load(spec, &mut haproxies)?;
            say(State::Ready);
        }
        sleep(TICK);
    }

    // A router that drains ignores changes of routes.
    say(State::Drain1);
    spec.wait(DRAIN);
    if spec.profile == Profile::Sidecar {
        spec.wait(EXIT);
        say(State::SidecarTail);
        spec.forget();
        return Ok(()); // which closes 1936
    }
    say(State::Drain2);
    stop(spec, haproxies);
    spec.wait(EXIT);
    Ok(())
}

/// The other container of a `sidecar` pod, from exec to exit. The router controls it by
/// the configuration file: a new file starts a new HAProxy, removing the file ends it.
/// A router that is killed leaves the file, so HAProxy keeps serving.
pub fn sidecar(spec: &Spec) -> Result<()> {
    let mut haproxies = Vec::new();
    let mut last = None;
    loop {
        let written = fs::metadata(spec.path("haproxy.cfg")).and_then(|file| file.modified());
        match written {
            Ok(time) if last != Some(time) => {
                last = Some(time);
                start(spec, &mut haproxies)?;
            }
            Err(_) if last.is_some() => break,
            _ => sleep(TICK),
        }
    }
    spec.wait(EXIT);
    stop(spec, haproxies);
    Ok(())
}

/// Writes one line for the lab, with the time.
fn say(word: impl Display) {
    // A lab that no longer reads this is about to kill us.
    let _ = writeln!(io::stdout(), "{:.3} {word}", now());
}

/// Puts a configuration in place at once, since a sidecar may look at any time, and waits
/// until it is served.
fn load(spec: &Spec, haproxies: &mut Vec<Proc>) -> Result<()> {
    let new = spec.path("new");
    fs::write(&new, config(spec))
        .and_then(|()| fs::rename(&new, spec.path("haproxy.cfg")))
        .map_err(|error| format!("cannot write the router's configuration: {error}"))?;
    if spec.profile == Profile::Embedded {
        return start(spec, haproxies);
    }
    while TcpStream::connect(spec.ports.at(80)).is_err() {
        sleep(TICK);
    }
    Ok(())
}

/// Starts a HAProxy, which takes over the sockets of the last (`-x`, `-sf`), so that no
/// connection is refused meanwhile. A dead one has nothing to hand over. Those that a
/// reload has replaced still finish their connections.
fn start(spec: &Spec, haproxies: &mut Vec<Proc>) -> Result<()> {
    haproxies.retain_mut(|haproxy| haproxy.ended().is_none());
    let file = |end| spec.path(end).into_os_string();
    let mut args = vec!["-db".into(), "-f".into(), file("haproxy.cfg")];
    if let Some(last) = haproxies.last() {
        let id = last.id().as_raw_nonzero().to_string();
        args.extend(["-x".into(), file("haproxy.sock"), "-sf".into(), id.into()]);
    }
    let name = format!("{}-haproxy", spec.name);
    let mut haproxy = Proc::spawn(&spec.dir, &name, "haproxy", &args)?;
    // It answers on its socket once it has told the last one to stop.
    let id = haproxy.id().as_raw_nonzero();
    let own = format!("\nPid: {id}\n");
    while !info(spec).is_ok_and(|info| info.contains(&own)) {
        haproxy.must_run()?;
        sleep(TICK);
    }
    say(format!("haproxy {id}"));
    haproxies.push(haproxy);
    Ok(())
}

/// Refuses new connections and finishes the open ones; returns when they are done.
fn stop(spec: &Spec, mut haproxies: Vec<Proc>) {
    for haproxy in &haproxies {
        haproxy.signal(Signal::USR1);
    }
    let start = Instant::now();
    let (least, most) = LINGER;
    spec.wait(least);
    let most = spec.scale.wait(most);
    while start.elapsed() < most && haproxies.iter_mut().any(|h| h.ended().is_none()) {
        sleep(TICK);
    }
}

/// The configuration of the router's HAProxy. 443 carries plain HTTP too: a layer-4
/// switch would see no difference with TLS. The timeouts are those of the OpenShift
/// router's template: 5 s, 30 s, 30 s.
fn config(spec: &Spec) -> String {
    format!(
        "global
  nbthread 1
  stats socket {socket} mode 600 expose-fd listeners
defaults
  mode http
  timeout connect {connect}ms
  timeout client {silence}ms
  timeout server {silence}ms
listen public
  bind {http}
  bind {https}
  monitor-uri {MONITOR}
  server hello {hello}
",
        socket = spec.path("haproxy.sock").display(),
        connect = spec.scale.millis(5.0),
        silence = spec.scale.millis(SILENCE),
        http = spec.ports.at(80),
        https = spec.ports.at(443),
        hello = spec.hello,
    )
}

/// Whether the first configuration is written. A reload holds the lock while it writes,
/// and `has-synced` waits for it.
static SYNCED: Mutex<bool> = Mutex::new(false);

/// Answers on port 1936. It has no limits and no timeouts, as in production: a silent
/// connection stays open, and a thread waits for it.
fn answer(spec: &Spec, term: &Arc<AtomicBool>) -> Result<()> {
    let address = spec.ports.at(1936);
    let listener = TcpListener::bind(address)
        .map_err(|error| format!("cannot listen on {address}: {error}"))?;
    let (spec, term) = (spec.clone(), Arc::clone(term));
    thread::spawn(move || {
        for client in listener.incoming().map_while(io::Result::ok) {
            let (spec, term) = (spec.clone(), Arc::clone(&term));
            thread::spawn(move || {
                let good = |part: &str| match part {
                    "backend-http" => backend_http(&spec),
                    "has-synced" => *SYNCED.lock().unwrap_or_else(PoisonError::into_inner),
                    "process-running" => !term.load(Ordering::SeqCst),
                    "admin-socket" => info(&spec).is_ok(),
                    _ => true, // controller: this process, which answers
                };
                // An error means that the client has gone.
                let _ = serve(&client, spec.profile, good);
            });
        }
    });
    Ok(())
}

/// Answers one request as the router words it; `good` says whether a part is well.
fn serve(mut client: &TcpStream, profile: Profile, good: impl Fn(&str) -> bool) -> io::Result<()> {
    let mut lines = BufReader::new(client).lines();
    let Some(request) = lines.next().transpose()? else {
        return Ok(()); // a check that only connects
    };
    while !lines.next().unwrap_or(Ok(String::new()))?.is_empty() {}
    let parts = match (request.split(' ').nth(1), profile) {
        (Some("/healthz/ready"), _) => &["backend-http", "has-synced", "process-running"][..],
        // Liveness depends neither on port 80 nor on a drain.
        (_, Profile::Sidecar) => &["controller"],
        _ => &["controller", "admin-socket"],
    };
    let parts: Vec<_> = parts.iter().map(|part| (part, good(part))).collect();
    let (status, body) = match parts.iter().all(|&(_, good)| good) {
        true => ("200 OK", "ok".to_string()),
        false => {
            let lines = parts.into_iter().map(|(part, good)| match good {
                true => format!("[+]{part} ok\n"),
                false => format!("[-]{part} failed: reason withheld\n"),
            });
            let body = lines.collect::<String>() + "healthz check failed\n";
            ("500 Internal Server Error", body)
        }
    };
    // The real router keeps the connection open, but no client here uses one twice. In
    // one piece: a router that is killed has answered in full or not at all.
    let length = body.len();
    let whole =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    client.write_all(whole.as_bytes())
}

/// Sends a GET and waits for so long: the status and the body, or nothing if the
/// connection was cut.
pub fn ask(address: SocketAddr, path: &str, limit: Duration) -> io::Result<Option<String>> {
    let end = Instant::now() + limit;
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    let left = end.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let answer = text.get(9..12).zip(text.split_once("\r\n\r\n"));
    Ok(answer.map(|(status, (_, body))| format!("{status} {body}")))
}

/// Whether HAProxy answers on port 80 within 2 s. If it is stuck, 1936 says 500 after
/// that time.
fn backend_http(spec: &Spec) -> bool {
    let limit = spec.scale.wait(BACKEND_TIMEOUT);
    let said = ask(spec.ports.at(80), MONITOR, limit);
    said.is_ok_and(|said| said.is_some_and(|said| said.starts_with("200 ")))
}

/// HAProxy's `show info`.
fn info(spec: &Spec) -> io::Result<String> {
    let mut socket = UnixStream::connect(spec.path("haproxy.sock"))?;
    socket.set_read_timeout(Some(spec.scale.wait(BACKEND_TIMEOUT)))?;
    socket.write_all(b"show info\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    Ok(text)
}
