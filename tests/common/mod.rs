//! What the tests share: scripted services, the real binary, and looks at the port.
//! Everything that waits polls with a deadline.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod help;
pub mod kernel;
pub mod man;
pub mod proc;
pub mod zoo;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{self, Timeout};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

/// Another binary to test, of another C library or architecture: tests/release.
const OTHER: Option<&str> = option_env!("HEALTHPORT_BINARY");

pub const BINARY: &str = match OTHER {
    Some(path) => path,
    None => env!("CARGO_BIN_EXE_healthport"),
};

/// The binary that ships, built by the documented command.
pub fn release() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || built(&["build", "--release", "--locked"], "healthport");
    BUILT.get_or_init(|| OTHER.map_or_else(build, PathBuf::from))
}

/// The least that does the job (tests/bench/floor.rs), built as the one that ships.
pub fn floor() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = ["build", "--release", "--locked", "--example", "floor"];
    BUILT.get_or_init(|| built(&build, "examples/floor"))
}

fn built(command: &[&str], path: &str) -> PathBuf {
    cargo(command);
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("release").join(path)
}

/// Runs cargo and returns what it prints.
pub fn cargo(args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    // With the caller's flags it would build another binary than the one that ships.
    let command = command.env_remove("RUSTFLAGS").stdin(Stdio::null());
    let command = command.env_remove("HEALTHPORT_COMMIT");
    let output = command.output().expect("run cargo");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// How long a test waits for what must happen: far longer than anything takes, so that
/// it only bounds a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` is true; panics if that takes too long.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Ends the threads that look at it, also when their test panics: a scope waits for them.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A loopback address that no other test uses, in this process or another, so that
/// every test can use the real port numbers.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let pid = std::process::id();
    let last = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!(last < 255, "more tests in one binary than addresses");
    let [_, _, high, low] = pid.to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 64, low, last).into()
}

/// The test's own folder, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = (std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let path = std::env::temp_dir().join(format!("healthport-{}-{}", name.0, name.1));
        std::fs::create_dir(&path).expect("make a temporary folder");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a connect to the port succeeds. The only other answer that it may give is a
/// refusal, or a reset if the port closes between SYN-ACK and accept: the system calls
/// that EPIPE in four of six runs of a story beside a busy VM.
pub fn is_open(address: SocketAddr) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => true,
        Err(error) => match error.kind() {
            ConnectionRefused | ConnectionReset | BrokenPipe => false,
            _ => panic!("connect to {address}: {error}"),
        },
    }
}

pub const READY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
pub const NOT_READY: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

type Answer = Arc<dyn Fn(TcpStream) + Send + Sync>;

/// A service whose answer can be changed at any time. Each connection has its own
/// thread, so that an answer that hangs does not hold up the next.
pub struct Service {
    pub address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    gone: Arc<AtomicBool>,
}

impl Service {
    pub fn new(address: impl Into<SocketAddr>) -> Service {
        let listener = TcpListener::bind(address.into()).expect("bind the scripted service");
        let service = Service {
            address: listener.local_addr().unwrap(),
            answer: Arc::new(Mutex::new(Arc::new(|_| {}))),
            requests: Arc::default(),
            connections: Arc::default(),
            gone: Arc::default(),
        };
        service.says(NOT_READY);
        let (answer, gone) = (Arc::clone(&service.answer), Arc::clone(&service.gone));
        let connections = Arc::clone(&service.connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if gone.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let answer = Arc::clone(&answer.lock().unwrap());
                // An error means that the client has gone.
                let _ = stream.map(|stream| thread::spawn(move || answer(stream)));
            }
        });
        service
    }

    /// The router's health port, on an address of the test's own.
    pub fn router(address: IpAddr) -> Service {
        Service::new((address, 1936))
    }

    /// A router that is ready.
    pub fn start() -> Service {
        let service = Service::router(own_address());
        service.ready();
        service
    }

    pub fn url(&self) -> String {
        format!("http://{}/healthz/ready", self.address)
    }

    /// From now on: read the request, send these bytes, close.
    pub fn says(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref().to_vec();
        self.answers(move |_| bytes.clone());
    }

    /// From now on: read the request, send what this makes of its number, close.
    pub fn answers<A: AsRef<[u8]>>(&self, answer: impl Fn(usize) -> A + Send + Sync + 'static) {
        let (requests, next) = (Arc::clone(&self.requests), AtomicUsize::new(0));
        self.does(move |mut stream| {
            // Not under the lock: one that is slow to ask holds up no other.
            let head = read_head(&mut stream);
            requests.lock().unwrap().push(head);
            let number = next.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(answer(number).as_ref());
        });
    }

    /// From now on: read the request, then do this with the connection.
    pub fn does(&self, answer: impl Fn(TcpStream) + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Arc::new(answer);
    }

    /// From now on: accept and stay silent.
    pub fn hangs(&self) {
        self.does(|mut stream| drain(&mut stream));
    }

    pub fn ready(&self) {
        self.says(READY);
    }

    pub fn not_ready(&self) {
        self.says(NOT_READY);
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits for so many more probes.
    pub fn is_probed(&self, count: usize) {
        let enough = self.connections() + count;
        eventually("more probes", || self.connections() >= enough);
    }

    /// Waits until the probes stop.
    pub fn is_left_alone(&self) {
        let mut probes = self.connections();
        eventually("the loop has stalled", || {
            // On a busy machine 300 ms passed without a probe although the loop ran.
            thread::sleep(Duration::from_millis(800));
            let before = std::mem::replace(&mut probes, self.connections());
            before == probes
        });
    }

    /// From now on nobody listens.
    pub fn is_gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        eventually("nobody listens", || !is_open(self.address));
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// A service that answers probe by probe, in the thread of its test: when the next probe
/// comes, the port and the log have followed the last answer. It has no thread of its
/// own, which a bench would measure too. Dropped, it is gone at once.
pub struct OneByOne {
    listener: TcpListener,
    pub address: SocketAddr,
}

impl OneByOne {
    /// The router's health port, on an address of the test's own.
    pub fn router(address: IpAddr) -> OneByOne {
        let listener = TcpListener::bind((address, 1936)).expect("bind the service");
        sockopt::set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE)).unwrap();
        let address = listener.local_addr().unwrap();
        OneByOne { listener, address }
    }

    pub fn url(&self) -> String {
        format!("http://{}/healthz/ready", self.address)
    }

    /// The next probe, its request unread.
    pub fn probe(&self) -> TcpStream {
        self.listener.accept().expect("the next probe").0
    }

    /// The next probe, its request read.
    pub fn accept(&self) -> TcpStream {
        let mut stream = self.probe();
        // Only a part of it if its process was ended meanwhile.
        read_head(&mut stream);
        stream
    }

    pub fn answer(&self, ready: bool) {
        write(&mut self.accept(), ready);
    }

    /// Answers ready for so long, and returns when each probe came.
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

/// Answers that the service is ready, or not.
pub fn write(stream: &mut TcpStream, ready: bool) {
    let _ = stream.write_all(if ready { READY } else { NOT_READY }.as_bytes());
}

/// The request line and the headers; only what came if the client ends early.
pub fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(length) if length > 0 => head.extend(&part[..length]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Reads until the other side has closed.
pub fn drain(stream: &mut TcpStream) {
    let mut sink = [0; 1024];
    while matches!(stream.read(&mut sink), Ok(length) if length > 0) {}
}

/// The running program. It is killed when the test ends.
pub struct Healthport {
    pub child: Child,
    pub port: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Healthport {
    /// Probes `service` every 20 ms (unless `args` say otherwise) for the port
    /// 18898 on `address`.
    pub fn start(address: IpAddr, service: &Service, args: &[&str]) -> Healthport {
        let mut command = Self::command(address, service, args);
        Self::spawn(address, command.stderr(Stdio::piped()))
    }

    pub fn command(address: IpAddr, service: &Service, args: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(["--url", &service.url()]);
        command.args(["--listen", &format!("{address}:18898")]);
        command.stdin(Stdio::null()).env_remove("NOTIFY_SOCKET");
        command.args(["--interval", "20ms"]);
        // The timeout is long enough for a busy machine. With --fall 1 every answer
        // counts, which keeps a story about one answer short.
        command.args(["--timeout", "2s", "--fall", "1"]).args(args);
        command
    }

    pub fn spawn(address: IpAddr, command: &mut Command) -> Healthport {
        let mut child = command.spawn().expect("start healthport");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reader = child.stderr.take().map(|stderr| {
            let lines = Arc::clone(&lines);
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            })
        });
        let port = (address, 18898).into();
        Healthport {
            child,
            port,
            lines,
            reader,
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).expect("send a signal");
    }

    pub fn is_open(&self) -> bool {
        is_open(self.port)
    }

    pub fn opens(&self) {
        let what = format!("open port; log: {:#?}", self.log());
        eventually(&what, || self.is_open());
    }

    pub fn closes(&self) {
        eventually("closed port", || !self.is_open());
    }

    /// The log so far, without levels.
    pub fn log(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let bare = |line: &String| line.rsplit("[healthport] ").next().unwrap().to_string();
        lines.iter().map(bare).collect()
    }

    pub fn count(&self, part: &str) -> usize {
        self.log().iter().filter(|line| line.contains(part)).count()
    }

    pub fn says(&self, part: &str) {
        let what = format!("a log line with {part:?} in {:#?}", self.log());
        eventually(&what, || self.count(part) > 0);
    }

    /// Waits for its end; the log is complete then.
    pub fn exits(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().expect("wait for healthport");
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            reader.join().expect("its log is read to the end");
        }
        status.unwrap()
    }

    /// A field of /proc/PID/status, such as "Threads" or "VmRSS" (in KiB).
    pub fn status(&self, field: &str) -> u64 {
        proc::status(self.child.id(), field).expect("a field of /proc/PID/status")
    }

    /// CPU time so far, user and system, in clock ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let [user, system, ..] = proc::ticks(self.child.id()).expect("read /proc");
        user + system
    }

    /// Sets RLIMIT_NOFILE. Open descriptors stay open.
    pub fn limit_descriptors(&self, count: u64) {
        let limit = Rlimit {
            current: Some(count),
            maximum: Some(4096),
        };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("set RLIMIT_NOFILE");
    }

    pub fn descriptors(&self) -> u64 {
        proc::descriptors(self.child.id()).expect("read /proc")
    }
}

impl Drop for Healthport {
    fn drop(&mut self) {
        let log = self.log();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            log.iter().for_each(|line| man::explains(line));
        }
    }
}

/// A healthport that has closed its port after a first answer of 500, and its service.
pub fn closed(args: &[&str]) -> (Service, Healthport) {
    let service = Service::router(own_address());
    let healthport = Healthport::start(service.address.ip(), &service, args);
    healthport.says("port closed: answered 500");
    (service, healthport)
}

/// A healthport that has opened its port, and its service.
pub fn opened(args: &[&str]) -> (Service, Healthport) {
    let service = Service::start();
    let healthport = Healthport::start(service.address.ip(), &service, args);
    healthport.opens();
    (service, healthport)
}

/// The same, and the log, which nobody reads: soon the pipe is full, and the loop stalls
/// in a line.
pub fn opened_unread(args: &[&str]) -> (Service, Healthport, File) {
    let service = Service::start();
    let (log, stderr) = small_pipe();
    let mut command = Healthport::command(service.address.ip(), &service, args);
    command.args(["--log-level", "trace"]).stderr(stderr);
    let healthport = Healthport::spawn(service.address.ip(), &mut command);
    healthport.opens();
    (service, healthport, log)
}

/// Our end of a small pipe, and the other one for standard error.
pub fn small_pipe() -> (File, Stdio) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    fcntl_setpipe_size(&write, 4096).unwrap();
    (File::from(read), Stdio::from(write))
}

/// Runs the program to its end, which must come without a signal.
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> (Option<i32>, String, String) {
    let (code, stdout, stderr) = finish(Command::new(BINARY).args(args));
    let mut errors = stderr.lines().take_while(|line| !line.starts_with("Try "));
    errors.by_ref().for_each(man::explains);
    (code, stdout, stderr)
}

/// Whether a tool accepts its arguments and its input, and everything that it prints.
pub fn tool(command: &mut Command, input: &str) -> (bool, String) {
    let (code, stdout, stderr) = feed(command, input);
    (code == Some(0), stdout + &stderr)
}

/// Exit code, standard output and standard error of a command that ends.
pub fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    feed(command, "")
}

fn feed(command: &mut Command, input: &str) -> (Option<i32>, String, String) {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            let name = command.get_program();
            panic!("cannot run {name:?}: {error}; tests/run installs what is missing")
        });
    // A pipe holds 64 KiB, so this does not wait for the command to read.
    assert!(input.len() <= 65_536);
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let pid = Pid::from_child(&child);
    let (ended, end) = std::sync::mpsc::channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    let Ok(output) = end.recv_timeout(PATIENCE) else {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        panic!("it does not end: {:.300}", format!("{command:?}"));
    };
    let output = output.expect("read what the command printed");
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), stdout, stderr)
}
