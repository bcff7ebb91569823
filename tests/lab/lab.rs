//! The lab itself: starts the parts on its own network, does to a node what an event
//! says, and records what happens in the story.

use std::env;
use std::fs;
use std::mem;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::load::{self, Push, Summary};
use crate::plan::{
    Check, FAST_INTERVAL, FEW, HEALTHPORTS, INTERVAL, Ports, Profile, Result, Scale, State, host,
    now,
};
use crate::process::Proc;
use crate::router::Spec;
use crate::switch::{self, Belief, Failure, Line};

/// The root of healthport's own sources.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Builds the healthport that ships from the sources beside the lab: never an older one.
fn build() -> Result<()> {
    let args = "build --quiet --release --locked --target-dir target".split(' ');
    let built = Command::new(env!("CARGO"))
        .args(args)
        .current_dir(ROOT)
        .status();
    match built.is_ok_and(|status| status.success()) {
        true => Ok(()),
        false => Err("cannot build healthport".to_string()),
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
    /// This and the next are for routers that start from now on; see [`Spec`].
    pub routes: u32,
    pub api: f64,
}

impl Setup {
    /// Small `embedded` routers behind lines with these checks.
    pub fn new(scale: Scale, checks: &[Check]) -> Setup {
        Setup {
            scale,
            profile: Profile::Embedded,
            lines: switch::lines(checks, &[3]),
            routes: FEW,
            api: 0.0,
        }
    }

    pub fn asks(&self, check: Check) -> bool {
        self.lines.iter().any(|line| line.check == check)
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

    /// How long a node's router had been ready at a time, reloads included.
    pub fn ready_for(&self, node: usize, time: f64) -> Option<f64> {
        let states = self.states.iter().rev();
        let states = states.filter(|&&(at, of, _)| of == node && at <= time);
        let ready =
            states.take_while(|(_, _, state)| matches!(state, State::Ready | State::Reload));
        ready.last().map(|&(since, _, _)| time - since)
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
}

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    pub setup: Setup,
    pub story: Story,
    // They are dropped in this order: the load ends first, the files last.
    loads: Vec<Proc>,
    switch: Proc,
    nodes: Vec<Node>,
    dir: Dir,
}

impl Lab {
    /// Starts everything but the load, and waits until every router is ready and
    /// the switch sends to all of them.
    pub fn open(setup: Setup) -> Result<Lab> {
        build()?;
        let name = format!("healthport-lab-{}", host(process::id(), 0));
        let dir = Dir(env::temp_dir().join(name));
        fs::create_dir(&dir.0).map_err(|error| format!("cannot make {:?}: {error}", dir.0))?;
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let ports = Ports {
                host: host(process::id(), number as u8 + 1),
                offset: 10_000,
            };
            nodes.push(Node {
                ports,
                healthports: healthports(&dir.0, number, ports, &setup)?,
                router: None,
                sidecar: None,
                haproxy: None,
            });
        }
        let ports: Vec<_> = nodes.iter().map(|node| node.ports).collect();
        let config = switch::config(&setup.lines, at_switch, &ports, setup.scale);
        let file = dir.0.join("switch.cfg").display().to_string();
        fs::write(&file, &config).map_err(|error| format!("cannot write {file}: {error}"))?;
        // HAProxy sends to a server until its checks fail, and says so only then.
        let (at, up) = (now(), true);
        let beliefs = (0..setup.lines.len())
            .flat_map(|line| (0..NODES).map(move |node| Belief { at, line, node, up }))
            .collect();
        let mut lab = Lab {
            switch: Proc::spawn(&dir.0, "switch", "haproxy", ["-db", "-f", &file])?,
            setup,
            story: Story {
                beliefs,
                ..Story::default()
            },
            loads: Vec::new(),
            nodes,
            dir,
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
            routes: self.setup.routes,
            api: self.setup.api,
            scale: self.setup.scale,
            hello: at_switch(self.setup.lines.len()),
            dir: self.dir.0.clone(),
        };
        let program = program()?;
        let spawn = |what: &str| {
            let args = [what.to_string()].into_iter().chain(spec.args());
            Proc::spawn(&self.dir.0, &spec.name, &program, args)
        };
        // A sidecar that has outlived its router keeps serving.
        let serves = node.sidecar.as_mut().is_some_and(|s| s.ended().is_none());
        if spec.profile == Profile::Sidecar && !serves {
            spec.forget();
            node.sidecar = Some(spawn("--sidecar")?);
        }
        node.router = Some(spawn("--router")?);
        Ok(())
    }

    /// What the kubelet does when a pod is deleted; the router drains.
    pub fn delete(&mut self, node: usize) -> Result<()> {
        self.signal_router(node, Signal::TERM)
    }

    /// A route has changed; the router reloads as soon as it may.
    pub fn change_route(&mut self, node: usize) -> Result<()> {
        self.signal_router(node, Signal::HUP)
    }

    pub fn hang(&mut self, node: usize) -> Result<()> {
        self.say(node, State::Hung);
        self.signal_haproxy(node, Signal::STOP)
    }

    pub fn break_haproxy(&mut self, node: usize) -> Result<()> {
        self.say(node, State::Dead);
        self.signal_haproxy(node, Signal::KILL)
    }

    /// The whole pod; [`Lab::freeze_router`] leaves HAProxy alone.
    pub fn freeze(&mut self, node: usize) -> Result<()> {
        self.freeze_router(node)?;
        self.signal_haproxy(node, Signal::STOP)
    }

    pub fn freeze_router(&mut self, node: usize) -> Result<()> {
        self.say(node, State::Frozen);
        self.signal_router(node, Signal::STOP)
    }

    /// Ends [`Lab::hang`], [`Lab::freeze`] and [`Lab::freeze_router`].
    pub fn thaw(&mut self, node: usize) -> Result<()> {
        self.signal_haproxy(node, Signal::CONT)?;
        self.signal_router(node, Signal::CONT)?;
        self.say(node, State::Ready);
        Ok(())
    }

    /// Sends the router kill -9 and waits until its ports refuse. Its HAProxy dies with
    /// it, except in the `sidecar` profile, where it is not its child.
    pub fn kill(&mut self, node: usize) -> Result<()> {
        self.say(node, State::Killed);
        let sidecar = self.nodes[node].sidecar.is_some();
        self.nodes[node].router = None; // dropped, which is SIGKILL
        self.wait_for("refused ports", 1.0, |lab| {
            let refused = |port| TcpStream::connect(lab.ports(node).at(port)).is_err();
            refused(1936) && (sidecar || refused(80))
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

    fn say(&mut self, node: usize, state: State) {
        self.story.states.push((now(), node, state));
    }

    fn signal_router(&self, node: usize, signal: Signal) -> Result<()> {
        let router = self.nodes[node].router.as_ref().ok_or("no router")?;
        router.signal(signal);
        Ok(())
    }

    fn signal_haproxy(&self, node: usize, signal: Signal) -> Result<()> {
        let haproxy = self.nodes[node].haproxy.ok_or("no HAProxy")?;
        let _ = kill_process(haproxy, signal); // it may have ended
        Ok(())
    }

    // The load.

    /// One hey for each line.
    pub fn load(&mut self, push: Push) -> Result<()> {
        for line in 0..self.setup.lines.len() {
            let hey = load::start(&self.dir.0, at_switch(line), push, self.setup.scale)?;
            self.loads.push(hey);
        }
        Ok(())
    }

    pub fn load_has_ended(&mut self) -> bool {
        self.loads.iter_mut().all(|hey| hey.ended().is_some())
    }

    /// Ends the load: what each hey found, in the order of the lines.
    pub fn unload(&mut self) -> Result<Vec<Summary>> {
        for hey in &self.loads {
            hey.signal(Signal::INT); // it finishes its open requests
        }
        self.wait_for("the end of the load", 30.0, Lab::load_has_ended)?;
        self.tick()?; // the last failures
        let summary = |mut hey: Proc| {
            let lines = hey.said().into_iter().map(|(_, line)| line + "\n");
            load::summary(&lines.collect::<String>()).ok_or("hey printed no summary".to_string())
        };
        mem::take(&mut self.loads)
            .into_iter()
            .map(summary)
            .collect()
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
            let now = lab.story.state_at(node, f64::MAX);
            now.is_some_and(|(now, _)| now == state)
        })
    }

    /// Waits until the switch sends to every node on every line.
    pub fn settle(&mut self) -> Result<()> {
        let pairs = self.setup.lines.len() * NODES;
        self.wait_for("a switch that sends to every node", 60.0, |lab| {
            (0..pairs).all(|pair| {
                let mut beliefs = lab.story.beliefs.iter().rev();
                let last = beliefs.find(|b| (b.line, b.node) == (pair / NODES, pair % NODES));
                last.is_some_and(|belief| belief.up)
            })
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
        self.switch.must_run()?;
        for hey in &mut self.loads {
            hey.must_not_fail()?;
        }
        for (at, line) in self.switch.said() {
            self.story.beliefs.extend(switch::belief(&line, at));
            self.story.failures.extend(switch::failure(&line));
        }
        for number in 0..NODES {
            self.look_at(number)?;
        }
        // The lab may read what a router said only after it has done something itself.
        self.story.states.sort_by(|a, b| a.0.total_cmp(&b.0));
        thread::sleep(Duration::from_millis(20));
        Ok(())
    }

    fn look_at(&mut self, number: usize) -> Result<()> {
        let node = &mut self.nodes[number];
        for healthport in &mut node.healthports {
            healthport.must_run()?;
        }
        let ended = node.router.as_mut().and_then(Proc::ended);
        // In the `sidecar` profile HAProxy's parent names it.
        for parent in node.router.iter_mut().chain(&mut node.sidecar) {
            for (_, line) in parent.said() {
                let (at, word) = line.split_once(' ').unwrap_or_default();
                if let Some(haproxy) = word.strip_prefix("haproxy ") {
                    node.haproxy = haproxy.parse().ok().and_then(Pid::from_raw);
                } else if let Some(state) = State::SAID.into_iter().find(|s| s.to_string() == word)
                {
                    let at = at.parse().unwrap_or(0.0);
                    self.story.states.push((at, number, state));
                }
            }
            parent.must_not_fail()?;
        }
        // A pod has ended when both its containers have.
        if ended.is_some() && node.sidecar.as_mut().is_none_or(|s| s.ended().is_some()) {
            (node.router, node.sidecar) = (None, None);
            self.say(number, State::Gone);
        }
        Ok(())
    }
}

/// Where the switch listens for line number `line`. The service behind the routers is at
/// the number after the last one.
fn at_switch(line: usize) -> SocketAddr {
    SocketAddr::from((host(process::id(), 5), 18000 + line as u16))
}

/// The healthports that a node's lines ask for. Its `--max-age` is about its own loop,
/// which nothing here stops, so it is not scaled.
fn healthports(dir: &Path, node: usize, ports: Ports, setup: &Setup) -> Result<Vec<Proc>> {
    let program = Path::new(ROOT).join("target/release/healthport");
    // healthport accepts no interval below 10ms.
    let millis = |real| format!("{}ms", setup.scale.millis(real).max(10));
    let mut all = Vec::new();
    for check in HEALTHPORTS.into_iter().filter(|check| setup.asks(*check)) {
        let Check::Healthport(timeout, fall) = check else {
            continue;
        };
        let args = [
            format!("--url=http://{}/healthz/ready", ports.at(1936)),
            format!("--listen={}", ports.checked(check)),
            format!("--interval={}", millis(INTERVAL)),
            format!("--fast-interval={}", millis(FAST_INTERVAL)),
            format!("--timeout={}", millis(timeout)),
            format!("--fall={fall}"),
        ];
        all.push(Proc::spawn(dir, &log_name(check, node), &program, args)?);
    }
    Ok(all)
}

fn log_name(check: Check, node: usize) -> String {
    format!("{}{node}", check.to_string().replace([' ', '`'], "-"))
}
