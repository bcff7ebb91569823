//! The three programs that are compared.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::common::kernel::Kernel;
use crate::common::{BINARY, OneByOne, eventually, floor, own_address, proc};

/// Not 18898: a healthport with its defaults has that on every address.
pub const FIRST_PORT: u16 = 18900;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Healthport,
    Floor,
    Shell,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Healthport, Kind::Floor, Kind::Shell];
}

/// A missing tool is an error, not a missing column.
pub fn check_tools() {
    for tool in ["curl", "socat", "strace"] {
        let found = Command::new(tool).arg("-V").stdout(Stdio::null()).status();
        assert!(found.is_ok(), "{tool} is missing: apt-get install {tool}");
    }
}

/// A running one. It is killed when dropped.
pub struct Subject {
    kind: Kind,
    child: Child,
    pub port: SocketAddr,
}

impl Subject {
    pub fn start(kind: Kind, service: &OneByOne, interval: Duration) -> Subject {
        let port = (own_address(), FIRST_PORT).into();
        Subject::run(kind, command(kind, service, interval, port), port)
    }

    /// With a command of its own. `kind` only says how it ends: a shell with its children.
    pub fn run(kind: Kind, mut command: Command, port: SocketAddr) -> Subject {
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("start what is measured");
        Subject { kind, child, port }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Answers until the port is open.
    pub fn opens(&self, service: &OneByOne, kernel: &Kernel) {
        service.answer(true);
        eventually("it opens", || kernel.listens(self.port));
    }

    /// CPU time of its living threads to the nanosecond, and of its children
    /// that have ended to 10 ms, in seconds.
    pub fn cpu(&self) -> f64 {
        let threads = proc::threads(self.id());
        let running: u64 = threads.into_iter().filter_map(proc::nanoseconds).sum();
        let [_, _, user, system] = proc::ticks(self.id()).unwrap();
        running as f64 / 1e9 + (user + system) as f64 / 100.0
    }

    /// How often its threads went to sleep voluntarily.
    pub fn naps(&self) -> f64 {
        let count = |thread| proc::status(thread, "voluntary_ctxt_switches");
        let threads = proc::threads(self.id()).into_iter();
        threads.filter_map(count).sum::<u64>() as f64
    }

    /// Of its processes, the shell's children among them.
    pub fn processes(&self) -> Vec<u32> {
        let children = proc::children(self.id()).into_iter();
        children.chain([self.id()]).collect()
    }

    /// The sum over its processes of a field of /proc/PID/status, such as
    /// "Threads" or "VmRSS" (in KiB).
    pub fn status(&self, name: &str) -> f64 {
        let processes = self.processes().into_iter();
        let values = processes.filter_map(|id| proc::status(id, name));
        values.sum::<u64>() as f64
    }

    pub fn descriptors(&self) -> f64 {
        let processes = self.processes().into_iter();
        processes.filter_map(proc::descriptors).sum::<u64>() as f64
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        let _ = match self.kind {
            Kind::Shell => kill_process_group(pid, Signal::KILL),
            _ => kill_process(pid, Signal::KILL),
        };
        let _ = self.child.wait();
    }
}

fn command(kind: Kind, service: &OneByOne, interval: Duration, port: SocketAddr) -> Command {
    let mut command;
    match kind {
        Kind::Healthport => {
            command = Command::new(BINARY);
            let interval = format!("{}ms", interval.as_millis());
            command.args(["--url", &service.url(), "--interval", &interval]);
            command.args(["--listen", &port.to_string(), "--log-level", "error"]);
            // The floor and the curl loop act on a single bad answer too.
            command.args(["--fall", "1"]).env_remove("NOTIFY_SOCKET");
        }
        Kind::Floor => {
            command = Command::new(floor());
            command.arg(service.address.to_string());
            command.args([interval.as_millis().to_string(), port.to_string()]);
        }
        Kind::Shell => {
            command = Command::new("sh");
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/loop.sh"));
            command.args([&service.url(), &interval.as_secs_f64().to_string()]);
            command.args([port.ip().to_string(), port.port().to_string()]);
            command.process_group(0);
        }
    }
    command
}
