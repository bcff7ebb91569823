//! The lab itself: starts the parts on a network of its own, does to a node what
//! an event says, and writes down what happened: the story.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::load::{Load, Push, Summary};
use crate::plan::{INTERVAL, Network, Ports, Profile, Result, SYNC, Scale, State, now};
use crate::process::{Proc, Tail, check_tools};
use crate::router::Spec;
use crate::switch::{self, Failure, Line, Switch};

/// The release binary under `cargo test --release`, else the debug one.
const HEALTHPORT: &str = env!("CARGO_BIN_EXE_healthport");

pub const NODES: usize = 3;

/// What a noisy machine may take on top of any time, before a run fails.
const SLACK: Duration = Duration::from_secs(20);

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    pub scale: Scale,
    pub profile: Profile,
    pub lines: Vec<Line>,
    /// healthport's --timeout, in real seconds.
    pub timeout: f64,
    /// What the progress line begins with; nothing: no progress.
    pub title: Option<String>,
    /// Set by SIGINT and SIGTERM.
    pub interrupted: Arc<AtomicBool>,
}

/// What happened, in the order in which it was seen.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub states: Vec<(f64, usize, State)>,
    pub beliefs: Vec<Belief>,
    pub failures: Vec<Failure>,
}

/// The switch began or stopped sending requests to a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Belief {
    pub at: f64,
    pub line: usize,
    pub node: usize,
    pub up: bool,
}

impl Story {
    /// What a node's router was doing at a time, and since when.
    pub fn state_at(&self, node: usize, time: f64) -> Option<(State, f64)> {
        let mut states = self.states.iter().rev();
        states
            .find(|&&(at, of, _)| of == node && at <= time)
            .map(|&(at, _, state)| (state, at))
    }

    pub fn state(&self, node: usize) -> State {
        self.state_at(node, f64::MAX)
            .map_or(State::Absent, |(state, _)| state)
    }

    pub fn believes(&self, line: usize, node: usize) -> bool {
        let mut beliefs = self.beliefs.iter().rev();
        let last = beliefs.find(|belief| belief.line == line && belief.node == node);
        last.is_some_and(|belief| belief.up)
    }
}

/// Removed when the lab ends.
#[derive(Debug)]
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Node {
    ports: Ports,
    healthport: Proc,
    router: Option<Proc>,
    haproxy: Option<Pid>,
    words: Option<Tail>,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    pub setup: Setup,
    pub story: Story,
    // In the order in which they are to end: the load first, the files last.
    loads: Vec<Load>,
    switch: Switch,
    nodes: Vec<Node>,
    hello: Proc,
    network: Network,
    dir: Dir,
    progress: Progress,
}

impl Lab {
    /// Starts everything but the load, and waits until every router is ready and
    /// the switch sends to all of them.
    pub fn open(setup: Setup) -> Result<Lab> {
        check_tools()?;
        let network = Network::claim()?;
        let name = format!("healthport-lab-{}{}", network.prefix(), std::process::id());
        let dir = Dir(env::temp_dir().join(name));
        fs::create_dir(&dir.0).map_err(|error| format!("cannot make {:?}: {error}", dir.0))?;
        if setup.title.is_some() {
            eprintln!("lab on {}x in {}", network.prefix(), dir.0.display());
        }

        let config = dir.0.join("hello.cfg");
        let hello = hello(network.hello());
        fs::write(&config, hello).map_err(|error| format!("cannot write {config:?}: {error}"))?;
        let args = [OsStr::new("-db"), OsStr::new("-f"), config.as_os_str()];
        let hello = Proc::spawn(&dir.0, "hello", OsStr::new("haproxy"), args)?;

        let mut nodes = Vec::new();
        for number in 0..NODES {
            let ports = network.node(number);
            nodes.push(Node {
                ports,
                healthport: healthport(&dir.0, number, ports, &setup)?,
                router: None,
                haproxy: None,
                words: None,
            });
        }
        let ports: Vec<_> = nodes.iter().map(|node| node.ports).collect();
        let line = |line| network.switch(line);
        let config = switch::config(&dir.0, &setup.lines, line, &ports, setup.scale);
        let mut lab = Lab {
            switch: Switch::start(&dir.0, &config)?,
            setup,
            story: Story::default(),
            loads: Vec::new(),
            nodes,
            hello,
            network,
            dir,
            progress: Progress::new(),
        };
        lab.wait_for("the switch", 5.0, |lab| lab.switch.stats().is_ok())?;
        for node in 0..NODES {
            lab.start(node)?;
        }
        for node in 0..NODES {
            lab.reach(node, State::Ready)?;
        }
        lab.settle()?;
        Ok(lab)
    }

    pub fn ports(&self, node: usize) -> Ports {
        self.nodes[node].ports
    }

    // What can be done to a node.

    pub fn start(&mut self, number: usize) -> Result<()> {
        let node = &mut self.nodes[number];
        let spec = Spec {
            name: format!("router{number}"),
            ports: node.ports,
            profile: self.setup.profile,
            scale: self.setup.scale,
            hello: self.network.hello(),
            dir: self.dir.0.clone(),
        };
        let program = env::current_exe().map_err(|error| format!("cannot find myself: {error}"))?;
        let args = ["--router".to_string()].into_iter().chain(spec.args());
        node.router = Some(Proc::spawn(
            &self.dir.0,
            &spec.name,
            program.as_os_str(),
            args,
        )?);
        if node.words.is_none() {
            let words = self.dir.0.join(format!("{}.out", spec.name));
            node.words = Some(Tail::open(&words)?);
        }
        Ok(())
    }

    /// What the kubelet does when a pod is deleted; the router drains.
    pub fn delete(&mut self, node: usize) {
        self.signal_router(node, Signal::TERM);
    }

    pub fn reload(&mut self, node: usize) {
        self.signal_router(node, Signal::HUP);
    }

    pub fn hang(&mut self, node: usize) {
        self.say(node, State::Hung);
        self.signal_haproxy(node, Signal::STOP);
    }

    pub fn break_haproxy(&mut self, node: usize) {
        self.say(node, State::Dead);
        self.signal_haproxy(node, Signal::KILL);
    }

    pub fn freeze(&mut self, node: usize) {
        self.say(node, State::Frozen);
        self.signal_router(node, Signal::STOP);
        self.signal_haproxy(node, Signal::STOP);
    }

    /// Ends [`Lab::hang`] and [`Lab::freeze`].
    pub fn thaw(&mut self, node: usize) {
        self.signal_haproxy(node, Signal::CONT);
        self.signal_router(node, Signal::CONT);
        self.say(node, State::Ready);
    }

    /// kill -9 for the router and its HAProxy; waits until both ports refuse.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.say(node, State::Killed);
        self.signal_haproxy(node, Signal::KILL);
        self.nodes[node].router = None; // dropped, which is SIGKILL
        self.wait_for("refused ports", 1.0, |lab| {
            let ports = lab.nodes[node].ports;
            let refused = |address| TcpStream::connect(address).is_err();
            refused(ports.http()) && refused(ports.stats())
        })
    }

    /// A client whose request does not end keeps the router busy until dropped.
    pub fn busy_client(&self, node: usize) -> Result<TcpStream> {
        let address = self.nodes[node].ports.http();
        let hold = || {
            let mut client = TcpStream::connect(address)?;
            client.write_all(b"POST /hold HTTP/1.1\r\nHost: lab\r\nContent-Length: 1\r\n\r\n")?;
            Ok(client)
        };
        hold().map_err(|error: io::Error| format!("cannot keep {address} busy: {error}"))
    }

    fn say(&mut self, node: usize, state: State) {
        self.story.states.push((now(), node, state));
    }

    fn signal_router(&self, node: usize, signal: Signal) {
        if let Some(router) = &self.nodes[node].router {
            router.signal(signal);
        }
    }

    fn signal_haproxy(&self, node: usize, signal: Signal) {
        if let Some(haproxy) = self.nodes[node].haproxy {
            let _ = kill_process(haproxy, signal);
        }
    }

    // The load.

    /// One hey for each line.
    pub fn load(&mut self, push: Push) -> Result<()> {
        for (number, line) in self.setup.lines.iter().enumerate() {
            let target = self.network.switch(number);
            self.loads.push(Load::start(
                &self.dir.0,
                &format!("hey{number}"),
                target,
                line.mode,
                push,
                self.setup.scale,
            )?);
        }
        Ok(())
    }

    pub fn load_commands(&self) -> Vec<String> {
        self.loads.iter().map(|load| load.command.clone()).collect()
    }

    pub fn load_has_ended(&mut self) -> bool {
        self.loads
            .iter_mut()
            .all(|load| load.proc.ended().is_some())
    }

    /// Ends the load; the summaries are in the order of the lines.
    pub fn unload(&mut self) -> Result<Vec<Summary>> {
        for load in &self.loads {
            load.stop();
        }
        let limit = self.setup.scale.wait(30.0) + SLACK;
        let loads: Vec<_> = self.loads.drain(..).collect();
        let summaries = loads
            .into_iter()
            .map(|load| load.summary(limit))
            .collect::<Result<_>>();
        self.tick()?; // the last failures
        summaries
    }

    // Waiting, during which everything is observed.

    /// Waits `real` seconds of production, and has looked at least once.
    pub fn pause(&mut self, real: f64) -> Result<()> {
        let end = Instant::now() + self.setup.scale.wait(real);
        loop {
            self.tick()?;
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }

    /// Waits until the router of a node says `state`.
    pub fn reach(&mut self, node: usize, state: State) -> Result<()> {
        let what = format!("{state} on node {}", node + 1);
        self.wait_for(&what, 100.0 + SYNC, |lab| lab.story.state(node) == state)
    }

    /// Waits until the switch has checked and sends to every node on every line.
    pub fn settle(&mut self) -> Result<()> {
        let lines = self.setup.lines.len();
        self.wait_for("a switch that sends to every node", 60.0, |lab| {
            let sends = |line| (0..NODES).all(|node| lab.story.believes(line, node));
            (0..lines).all(sends)
        })
    }

    /// Waits until something is done; an error names it if that takes longer than
    /// `real` seconds of production and the slack.
    pub fn wait_for(
        &mut self,
        what: &str,
        real: f64,
        mut done: impl FnMut(&mut Lab) -> bool,
    ) -> Result<()> {
        let limit = self.setup.scale.wait(real) + SLACK;
        let end = Instant::now() + limit;
        while !done(self) {
            if Instant::now() > end {
                return Err(format!("waited {limit:?} in vain for {what}"));
            }
            self.tick()?;
        }
        Ok(())
    }

    /// One look at everything.
    fn tick(&mut self) -> Result<()> {
        if self.setup.interrupted.load(Ordering::SeqCst) {
            return Err("interrupted".to_string());
        }
        self.hello.must_run()?;
        for number in 0..NODES {
            self.nodes[number].healthport.must_run()?;
            self.listen_to_router(number)?;
        }
        let mut requests = 0;
        // No socket in its first milliseconds: `open` waits for it.
        for row in self.switch.stats().unwrap_or_default() {
            let Some(node) = row.node else {
                requests += row.requests;
                continue;
            };
            // Before its first check a server counts as up.
            let up = row.up && row.checked;
            if up != self.story.believes(row.line, node) {
                let (at, line) = (now(), row.line);
                self.story.beliefs.push(Belief { at, line, node, up });
            }
        }
        self.switch.proc.must_run()?;
        self.story.failures.extend(self.switch.failures()?);
        if let Some(title) = &self.setup.title {
            let states: Vec<_> = (0..NODES)
                .map(|node| self.story.state(node).name())
                .collect();
            self.progress.show(
                title,
                &states.join(" "),
                requests,
                self.story.failures.len(),
            );
        }
        // A fifth of a real second at scale 0.1; more often would cost the load.
        thread::sleep(
            self.setup
                .scale
                .wait(0.1)
                .clamp(Duration::from_millis(20), Duration::from_millis(100)),
        );
        Ok(())
    }

    fn listen_to_router(&mut self, number: usize) -> Result<()> {
        let node = &mut self.nodes[number];
        let ended = node.router.as_mut().and_then(Proc::ended);
        let words = node.words.as_mut().map_or(Ok(Vec::new()), Tail::lines)?;
        for line in words {
            let Some((at, word)) = line.split_once(' ') else {
                continue;
            };
            let at = at.parse().unwrap_or(0.0);
            if let Some(haproxy) = word.strip_prefix("haproxy ") {
                node.haproxy = haproxy.parse().ok().and_then(Pid::from_raw);
            } else if let Some(state) = State::ALL.into_iter().find(|s| s.name() == word) {
                self.story.states.push((at, number, state));
            }
        }
        if let Some(status) = ended
            && let Some(mut router) = node.router.take()
        {
            if !status.success() {
                router.must_run()?;
            }
            self.say(number, State::Gone);
        }
        Ok(())
    }
}

/// The service behind the routers.
fn hello(address: std::net::SocketAddr) -> String {
    format!(
        "global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 10m
  timeout server 10m
frontend hello
  bind {address}
  http-request wait-for-body time 10m if {{ path /hold }}
  http-request return status 200 content-type text/plain string \"Hello World!\\n\"
"
    )
}

fn healthport(dir: &std::path::Path, number: usize, ports: Ports, setup: &Setup) -> Result<Proc> {
    // Its own limit: 10ms is the shortest interval that it takes.
    let millis = |real| format!("{}ms", setup.scale.millis(real).max(10));
    let args = [
        format!("--url=http://{}/healthz/ready", ports.stats()),
        format!("--listen={}", ports.healthport()),
        format!("--interval={}", millis(INTERVAL)),
        format!("--timeout={}", millis(setup.timeout)),
    ];
    let name = format!("healthport{number}");
    Proc::spawn(dir, &name, OsStr::new(HEALTHPORT), args)
}

/// One line on the terminal that is written over and over; elsewhere a line now
/// and then.
#[derive(Debug)]
struct Progress {
    start: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    fn new() -> Progress {
        Progress {
            start: Instant::now(),
            shown: None,
            terminal: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, title: &str, event: &str, requests: u64, failed: usize) {
        let every = Duration::from_secs(if self.terminal { 1 } else { 10 });
        if self.shown.is_some_and(|shown| shown.elapsed() < every) {
            return;
        }
        self.shown = Some(Instant::now());
        let elapsed = self.start.elapsed().as_secs();
        let (minutes, seconds) = (elapsed / 60, elapsed % 60);
        let line = format!(
            "{title} | {event} | {minutes}:{seconds:02} | {requests} requests | {failed} failed"
        );
        let (before, after) = if self.terminal {
            ("\r\x1b[K", "")
        } else {
            ("", "\n")
        };
        let _ = write!(io::stderr(), "{before}{line}{after}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown.is_some() {
            eprintln!();
        }
    }
}
