//! The lab itself: starts the parts on its own network, does to a node what an event
//! says, and records what happens in the story.

use std::env;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::load::{Load, Push, Summary};
use crate::plan::{
    Check, DEFAULTS, FAST_INTERVAL, INTERVAL, Mode, Network, Ports, Profile, Result, SILENCE,
    SMALL, Scale, Size, State, now,
};
use crate::process::{Proc, Tail, check_tools, haproxy};
use crate::router::{ROUTE, Spec};
use crate::switch::{self, Belief, Failure, Line};

/// The root of healthport's own sources.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The healthport that ships, built from the sources beside the lab: never an older one.
fn healthport() -> Result<PathBuf> {
    let target = PathBuf::from(ROOT).join("target");
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--locked", "--target-dir"])
        .arg(&target)
        .current_dir(ROOT)
        .status()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    match status.success() {
        true => Ok(target.join("release/healthport")),
        false => Err(format!("cannot build healthport: cargo ended, {status}")),
    }
}

/// The lab's own command, which is also the processes of a router.
fn program() -> Result<PathBuf> {
    match option_env!("CARGO_BIN_EXE_lab") {
        Some(built_for_the_tests) => Ok(built_for_the_tests.into()),
        None => env::current_exe().map_err(|error| format!("cannot find myself: {error}")),
    }
}

pub const NODES: usize = 3;

/// Added to every time limit: a busy machine alone must not fail a run.
const SLACK: Duration = Duration::from_secs(20);

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    pub scale: Scale,
    pub profile: Profile,
    pub lines: Vec<Line>,
    /// This and the next two are for routers that start from now on; see [`Spec`].
    pub size: Size,
    pub api: f64,
    pub maxconn: u32,
    /// What the progress is reported of; without it there is no report.
    pub title: Option<String>,
    /// Set by SIGINT and SIGTERM.
    pub interrupted: Arc<AtomicBool>,
}

impl Setup {
    /// Small `embedded` routers behind lines with these checks.
    pub fn new(scale: Scale, checks: &[Check]) -> Setup {
        let mode = Mode::Http;
        Setup {
            scale,
            profile: Profile::Embedded,
            lines: checks.iter().map(|&check| Line { check, mode }).collect(),
            size: SMALL,
            api: 0.0,
            maxconn: 1000,
            title: None,
            interrupted: Arc::default(),
        }
    }
}

/// What happened, in the order in which it was seen.
#[derive(Debug, Clone, Default)]
pub struct Story {
    pub states: Vec<(f64, usize, State)>,
    pub beliefs: Vec<Belief>,
    pub failures: Vec<Failure>,
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

    /// How long a node's router had been ready at a time, reloads included.
    pub fn ready_for(&self, node: usize, time: f64) -> Option<f64> {
        let states = self.states.iter().rev();
        let states = states.filter(|&&(at, of, _)| of == node && at <= time);
        let ready =
            states.take_while(|(_, _, state)| matches!(state, State::Ready | State::Reload));
        ready.last().map(|&(since, _, _)| time - since)
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
    healthports: Vec<Proc>,
    router: Option<Proc>,
    /// HAProxy's parent in the `sidecar` profile.
    sidecar: Option<Proc>,
    haproxy: Option<Pid>,
    words: Option<Tail>,
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    pub setup: Setup,
    pub story: Story,
    // They are dropped in this order: the load ends first, the files last.
    loads: Vec<Load>,
    switch: Proc,
    log: Tail,
    nodes: Vec<Node>,
    hello: Proc,
    network: Network,
    dir: Dir,
    /// When the progress was last reported.
    shown: Instant,
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

        let hello = haproxy(&dir.0, "hello", &hello(network.hello()))?;
        let healthport = healthport()?;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let ports = network.node(number);
            nodes.push(Node {
                ports,
                healthports: healthports(&dir.0, &healthport, number, ports, &setup)?,
                router: None,
                sidecar: None,
                haproxy: None,
                words: None,
            });
        }
        let ports: Vec<_> = nodes.iter().map(|node| node.ports).collect();
        let line = |line| network.switch(line);
        let config = switch::config(&setup.lines, line, &ports, setup.scale);
        // HAProxy sends to a server until its checks fail, and says so only then.
        let (at, up) = (now(), true);
        let beliefs = (0..setup.lines.len())
            .flat_map(|line| (0..NODES).map(move |node| Belief { at, line, node, up }))
            .collect();
        let mut lab = Lab {
            switch: haproxy(&dir.0, "switch", &config)?,
            log: Tail::open(&dir.0.join("switch.out"))?,
            setup,
            story: Story {
                beliefs,
                ..Story::default()
            },
            loads: Vec::new(),
            nodes,
            hello,
            network,
            dir,
            shown: Instant::now(),
        };
        for node in 0..NODES {
            lab.start(node)?;
        }
        for node in 0..NODES {
            lab.reach(node, State::Ready)?;
        }
        // By then a check that fails has taken its node out.
        lab.pause(10.0)?;
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
            size: self.setup.size,
            api: self.setup.api,
            maxconn: self.setup.maxconn,
            scale: self.setup.scale,
            hello: self.network.hello(),
            dir: self.dir.0.clone(),
        };
        let program = program()?;
        let spawn = |what: &str| {
            let args = [what.to_string()].into_iter().chain(spec.args());
            Proc::spawn(&self.dir.0, &spec.name, program.as_os_str(), args)
        };
        // A sidecar that has outlived its router keeps serving.
        let serves = node.sidecar.as_mut().is_some_and(|s| s.ended().is_none());
        if spec.profile != Profile::Sidecar {
            node.sidecar = None; // dropped, which is SIGKILL
        } else if !serves {
            spec.forget();
            node.sidecar = Some(spawn("--sidecar")?);
        }
        node.router = Some(spawn("--router")?);
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

    /// A route has changed; the router reloads as soon as it may.
    pub fn change_route(&mut self, node: usize) {
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

    /// The whole pod; [`Lab::freeze_router`] leaves HAProxy alone.
    pub fn freeze(&mut self, node: usize) {
        self.freeze_router(node);
        self.signal_haproxy(node, Signal::STOP);
    }

    pub fn freeze_router(&mut self, node: usize) {
        self.say(node, State::Frozen);
        self.signal_router(node, Signal::STOP);
    }

    /// Ends [`Lab::hang`], [`Lab::freeze`] and [`Lab::freeze_router`].
    pub fn thaw(&mut self, node: usize) {
        self.signal_haproxy(node, Signal::CONT);
        self.signal_router(node, Signal::CONT);
        self.say(node, State::Ready);
    }

    /// Sends the router kill -9 and waits until its ports refuse. Its HAProxy dies with
    /// it, except in the `sidecar` profile, where it is not its child.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.say(node, State::Killed);
        let sidecar = self.nodes[node].sidecar.is_some();
        if !sidecar {
            self.signal_haproxy(node, Signal::KILL);
        }
        self.nodes[node].router = None; // dropped, which is SIGKILL
        self.wait_for("refused ports", 1.0, |lab| {
            let ports = lab.ports(node);
            let refused = |address| TcpStream::connect(address).is_err();
            refused(ports.stats()) && (sidecar || refused(ports.http()))
        })
    }

    /// How often the ports of all healthports of this check have closed, by their logs.
    pub fn closes(&self, check: Check) -> Result<usize> {
        let count = |node| {
            let path = self.dir.0.join(format!("{}.err", log_name(check, node)));
            let log = fs::read_to_string(&path);
            let log = log.map_err(|error| format!("cannot read {path:?}: {error}"))?;
            Ok(log.matches("(open for ").count())
        };
        (0..NODES).map(count).sum()
    }

    /// A client that sends its request byte by byte, slowly: it keeps the router busy
    /// until it is dropped.
    pub fn busy_client(&self, node: usize) -> Result<Arc<TcpStream>> {
        let address = self.ports(node).http();
        let head = format!("POST /hold HTTP/1.1\r\nHost: {ROUTE}\r\nContent-Length: 1000\r\n\r\n");
        let client = TcpStream::connect(address)
            .and_then(|mut client| client.write_all(head.as_bytes()).map(|()| client))
            .map_err(|error| format!("cannot keep {address} busy: {error}"))?;
        let client = Arc::new(client);
        let held = Arc::downgrade(&client);
        let pause = self.setup.scale.wait(SILENCE / 10.0);
        thread::spawn(move || {
            let write = |client: Arc<TcpStream>| client.as_ref().write_all(b"x");
            while held.upgrade().is_some_and(|client| write(client).is_ok()) {
                thread::sleep(pause);
            }
        });
        Ok(client)
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
        let (dir, scale) = (&self.dir.0, self.setup.scale);
        for (number, line) in self.setup.lines.iter().enumerate() {
            let (name, target) = (format!("hey{number}"), self.network.switch(number));
            let load = Load::start(dir, &name, target, line.mode, push, scale)?;
            self.loads.push(load);
        }
        Ok(())
    }

    pub fn load_has_ended(&mut self) -> bool {
        self.loads.iter_mut().all(Load::has_ended)
    }

    /// Ends the load: each command with its summary, in the order of the lines.
    pub fn unload(&mut self) -> Result<Vec<(String, Summary)>> {
        for load in &self.loads {
            load.stop();
        }
        let limit = self.setup.scale.wait(30.0) + SLACK;
        let loads: Vec<_> = self.loads.drain(..).collect();
        let summaries = loads
            .into_iter()
            .map(|load| Ok((load.command.clone(), load.summary(limit)?)))
            .collect::<Result<_>>();
        self.tick()?; // the last failures
        summaries
    }

    // Waiting, during which everything is observed.

    /// Waits for `real` seconds of production and looks at least once.
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
        self.wait_for(&what, 110.0 + self.setup.api, |lab| {
            lab.story.state(node) == state
        })
    }

    /// Waits until the switch sends to every node on every line.
    pub fn settle(&mut self) -> Result<()> {
        let lines = self.setup.lines.len();
        self.wait_for("a switch that sends to every node", 60.0, |lab| {
            let sends = |line| (0..NODES).all(|node| lab.story.believes(line, node));
            (0..lines).all(sends)
        })
    }

    /// Waits until `done`. After `real` seconds of production and the slack it gives up
    /// with an error that says what it waited for.
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
            for healthport in &mut self.nodes[number].healthports {
                healthport.must_run()?;
            }
            self.listen_to_router(number)?;
        }
        self.switch.must_run()?;
        for line in self.log.lines()? {
            self.story.beliefs.extend(switch::belief(&line));
            self.story.failures.extend(switch::failure(&line));
        }
        self.report();
        // A fifth of a real second at scale 0.1: looking more often would take CPU time
        // from the load.
        let pause = self.setup.scale.wait(0.1);
        thread::sleep(pause.clamp(Duration::from_millis(20), Duration::from_millis(100)));
        Ok(())
    }

    /// How far it is, every ten seconds.
    fn report(&mut self) {
        let Some(title) = &self.setup.title else {
            return;
        };
        if self.shown.elapsed() >= Duration::from_secs(10) {
            self.shown = Instant::now();
            let states = [0, 1, 2].map(|node| self.story.state(node).to_string());
            let (states, failed) = (states.join(" "), self.story.failures.len());
            eprintln!("{title} | {states} | {failed} failed");
        }
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
            } else if let Some(state) = State::SAID.into_iter().find(|s| s.to_string() == word) {
                self.story.states.push((at, number, state));
            }
        }
        // The lab may read what a router said only after it has done something itself.
        self.story.states.sort_by(|a, b| a.0.total_cmp(&b.0));
        if let (Some(status), Some(router)) = (ended, &mut node.router) {
            if !status.success() {
                router.must_run()?;
            }
            // A pod has ended when both its containers have.
            if node.sidecar.as_mut().is_none_or(|s| s.ended().is_some()) {
                (node.router, node.sidecar) = (None, None);
                self.say(number, State::Gone);
            }
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

/// The healthports of a node: one with the defaults, and one for each other patience
/// that a line asks for. Its `--max-age` is about its own loop, which nothing here
/// stops, so it is not scaled.
fn healthports(
    dir: &Path,
    program: &Path,
    node: usize,
    ports: Ports,
    setup: &Setup,
) -> Result<Vec<Proc>> {
    // healthport accepts no interval below 10ms.
    let millis = |real| format!("{}ms", setup.scale.millis(real).max(10));
    let mut all: Vec<Proc> = Vec::new();
    let checks = setup.lines.iter().map(|line| line.check);
    for check in [DEFAULTS].into_iter().chain(checks) {
        let Check::Healthport(timeout, fall) = check else {
            continue;
        };
        let name = log_name(check, node);
        if all.iter().any(|healthport| healthport.name == name) {
            continue;
        }
        let args = [
            format!("--url=http://{}/healthz/ready", ports.stats()),
            format!("--listen={}", ports.checked(check)),
            format!("--interval={}", millis(INTERVAL)),
            format!("--fast-interval={}", millis(FAST_INTERVAL)),
            format!("--timeout={}", millis(timeout)),
            format!("--fall={fall}"),
        ];
        all.push(Proc::spawn(dir, &name, program.as_os_str(), args)?);
    }
    Ok(all)
}

fn log_name(check: Check, node: usize) -> String {
    format!("{}{node}", check.to_string().replace([' ', '`'], "-"))
}
