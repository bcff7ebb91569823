//! The three that are compared, as processes, and the service that they probe.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::common::{BINARY, NOT_READY, READY, own_address};
use crate::floor;
use crate::kernel::Kernel;

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

/// What is missing is an error, not a column less.
pub fn check_tools() {
    for tool in ["curl", "socat", "strace"] {
        let found = Command::new(tool).arg("-V").stdout(Stdio::null()).status();
        assert!(found.is_ok(), "{tool} is missing: apt-get install {tool}");
    }
}

/// Answers one probe after the other, as the caller says.
pub struct Service {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl Service {
    pub fn new() -> Service {
        let listener = TcpListener::bind((own_address(), 1936)).expect("bind the service");
        let address = listener.local_addr().unwrap();
        Service { listener, address }
    }

    /// The next probe, its request read.
    pub fn accept(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().expect("accept a probe");
        let mut request = [0; 1024];
        let mut length = 0;
        while !request[..length].ends_with(b"\r\n\r\n") {
            length += match stream.read(&mut request[length..]) {
                Ok(read) if read > 0 => read,
                // Its process was ended in the middle of it.
                _ => break,
            };
        }
        stream
    }

    pub fn answer(&self, ready: bool) {
        write(&mut self.accept(), ready);
    }

    /// Answers ready for so long; when each probe came.
    pub fn answer_for(&self, time: Duration) -> Vec<Instant> {
        let end = Instant::now() + time;
        let mut probes = Vec::new();
        while Instant::now() < end {
            let mut stream = self.accept();
            probes.push(Instant::now());
            write(&mut stream, true);
        }
        probes
    }
}

pub fn write(stream: &mut TcpStream, ready: bool) {
    let _ = stream.write_all(if ready { READY } else { NOT_READY }.as_bytes());
}

/// One that runs; it ends when dropped.
pub struct Subject {
    kind: Kind,
    child: Child,
    pub ports: Vec<SocketAddr>,
}

impl Subject {
    pub fn start(kind: Kind, service: &Service, interval: Duration) -> Subject {
        Subject::with_listeners(kind, service, interval, 1)
    }

    /// With so many listening addresses.
    pub fn with_listeners(
        kind: Kind,
        service: &Service,
        interval: Duration,
        listeners: u16,
    ) -> Subject {
        let address = own_address();
        let ports: Vec<SocketAddr> = (0..listeners)
            .map(|number| (address, FIRST_PORT + number).into())
            .collect();
        let command = command(kind, service.address, interval, address, &ports);
        Subject::run(kind, command, ports)
    }

    /// A healthport with default flags, but for the interval.
    pub fn with_defaults(service: &Service, interval: Duration, port: SocketAddr) -> Subject {
        let ports = vec![port];
        let command = healthport(service.address, interval, &ports);
        Subject::run(Kind::Healthport, command, ports)
    }

    fn run(kind: Kind, mut command: Command, ports: Vec<SocketAddr>) -> Subject {
        command.stdin(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("start what is measured");
        Subject { kind, child, ports }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Makes healthport probe at once.
    pub fn hurry(&self) {
        kill_process(Pid::from_child(&self.child), Signal::USR1).expect("send SIGUSR1");
    }

    /// Answers until every port is open.
    pub fn opens(&self, service: &Service, kernel: &Kernel) {
        service.answer(true);
        let end = Instant::now() + Duration::from_secs(10);
        while !self.ports.iter().all(|&port| kernel.listens(port)) {
            assert!(Instant::now() < end, "{:?} does not open", self.kind);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// CPU time of its living threads to the nanosecond, and of its children
    /// that have ended to 10 ms, in seconds.
    pub fn cpu(&self) -> f64 {
        let running: f64 = self
            .tasks("schedstat")
            .iter()
            .map(|text| word(text, 0) / 1e9)
            .sum();
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // proc_pid_stat(5): cutime and cstime, in ticks of 10 ms; the name in
        // parentheses is one word here.
        running + (word(&stat, 15) + word(&stat, 16)) / 100.0
    }

    /// How often its threads went to sleep of their own will.
    pub fn naps(&self) -> f64 {
        let status = self.tasks("status");
        status
            .iter()
            .map(|text| field(text, "voluntary_ctxt_switches"))
            .sum()
    }

    fn tasks(&self, file: &str) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join(file)).ok())
            .collect()
    }

    /// Of its processes, the shell's children among them.
    pub fn processes(&self) -> Vec<u32> {
        let own = self.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap();
        let children = children.split_whitespace().map(|id| id.parse().unwrap());
        children.chain([own]).collect()
    }

    /// The sum over its processes of a field of /proc/PID/status, such as
    /// "Threads" or "VmRSS" (in KiB).
    pub fn status(&self, name: &str) -> f64 {
        self.processes()
            .iter()
            .filter_map(|id| fs::read_to_string(format!("/proc/{id}/status")).ok())
            .map(|text| field(&text, name))
            .sum()
    }

    pub fn descriptors(&self) -> f64 {
        self.processes()
            .iter()
            .filter_map(|id| fs::read_dir(format!("/proc/{id}/fd")).ok())
            .map(|fds| fds.count() as f64)
            .sum()
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

fn healthport(service: SocketAddr, interval: Duration, ports: &[SocketAddr]) -> Command {
    let mut command = Command::new(BINARY);
    let interval = format!("{}ms", interval.as_millis());
    command.args(["--url", &url(service), "--interval", &interval]);
    command.args(["--log-level", "error"]);
    for port in ports {
        command.args(["--listen", &port.to_string()]);
    }
    command.env_remove("NOTIFY_SOCKET");
    command
}

fn url(service: SocketAddr) -> String {
    format!("http://{service}/healthz/ready")
}

fn command(
    kind: Kind,
    service: SocketAddr,
    interval: Duration,
    address: IpAddr,
    ports: &[SocketAddr],
) -> Command {
    let mut command;
    match kind {
        Kind::Healthport => {
            command = healthport(service, interval, ports);
            // The floor and the loop of curl know no count either.
            command.args(["--fall", "1"]);
        }
        Kind::Floor => {
            command = Command::new(env::current_exe().unwrap());
            command.args([floor::NAME, &service.to_string()]);
            command.args([interval.as_millis().to_string(), ports[0].to_string()]);
        }
        Kind::Shell => {
            command = Command::new("sh");
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/loop.sh"));
            command.args([&url(service), &interval.as_secs_f64().to_string()]);
            command.args([address.to_string(), ports[0].port().to_string()]);
            command.process_group(0);
        }
    }
    command
}

fn word(text: &str, position: usize) -> f64 {
    let word = text.split_whitespace().nth(position).unwrap();
    word.parse().unwrap()
}

fn field(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    // A process that has just ended has no memory any more.
    line.map_or(0.0, |line| word(line, 0))
}
