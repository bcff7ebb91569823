//! The binary that ships: static, small, alone in an empty root file system, and
//! frugal. Built here with the documented command.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::common::{
    Folder, Healthport, Service, cargo, eventually, finish, floor, own_address, proc, release,
};
use rustix::process::{Pid, Signal, kill_process};

/// The run-time packages, ours included, and what each is for. No other may come
/// in without somebody adding it here.
const PACKAGES: &str = "
base64                of ureq: user information in a URL, which ours rejects
bytes                 of http
errno                 of signal-hook-registry: handlers leave errno as it was
healthport            this
http                  of ureq: Uri, Method, StatusCode, headers
httparse              of ureq: the parser of the answer
itoa                  of http
lexopt                the command line: options, values, nothing else
libc                  the system's interface, for src/sys.rs and signal-hook
log                   the macros and levels that simple_logger prints
percent-encoding      of ureq
signal-hook           signal handlers without unsafe code of ours: flag, pipe, exit
signal-hook-registry  of signal-hook: several actions for one signal
simple_logger         a line on standard error; no colours, no clock
ureq                  one HTTP request with one deadline; no TLS, no gzip, no cookies
ureq-proto            of ureq: HTTP/1.1 without I/O
utf8-zero             of ureq: bodies as text, which ours does not ask for
";

fn readelf(option: &str) -> String {
    let mut command = Command::new("readelf");
    finish(command.args([option, "--wide"]).arg(release())).1
}

#[test]
#[ignore = "needs a release build and readelf"]
fn it_is_static_position_independent_stripped_and_small() {
    assert!(readelf("--file-header").contains("DYN (Position-Independent Executable file)"));
    let segments = readelf("--segments");
    assert!(
        segments.contains("DYNAMIC") && !segments.contains("INTERP"),
        "{segments}"
    );
    assert!(!readelf("--dynamic").contains("NEEDED"));
    assert!(!readelf("--sections").contains(".symtab"));
    let [size, least] = [release(), floor()].map(|path| path.metadata().unwrap().len());
    // 1.20 with Rust 1.95 on Debian 12, 1.21 with 1.85 on Debian 13.
    let ratio = size as f64 / least as f64;
    println!("binary: {size} bytes, {ratio:.2} x the floor");
    assert!(ratio <= 1.25, "{size} bytes, {ratio:.2} x the floor");
}

/// For a name a static glibc loads the NSS modules of the host, of another
/// version maybe. The files that getaddrinfo and NSS read are named in whatever
/// binary has them. (/etc/resolv.conf is in every static one: the end of a thread
/// frees what a look-up would have left.)
#[test]
#[ignore = "needs a release build"]
fn it_cannot_look_up_a_name() {
    let binary = std::fs::read(release()).unwrap();
    let binary = String::from_utf8_lossy(&binary);
    let names = |text| binary.contains(text);
    for file in ["/etc/gai.conf", "/etc/nsswitch.conf", "/etc/hosts"] {
        assert!(!names(file), "{file}: getaddrinfo is linked in");
    }
    assert!(names("/livez"), "the search finds nothing");
}

#[test]
#[ignore = "needs a release build and unshare"]
fn it_runs_in_an_empty_root_file_system() {
    let service = Service::start();
    let address = service.address.ip();
    let root = Folder::new();
    // Not by this process: a child that another test forks meanwhile would hold the
    // file open for writing, and nobody could execute it (ETXTBSY).
    let mut copy = Command::new("cp");
    let (code, _, stderr) = finish(copy.arg(release()).arg(root.path()));
    assert_eq!(code, Some(0), "{stderr}");
    let url = service.url();
    let inside = |args: &[&str]| {
        // As root of a user namespace, so that anybody may change the root.
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--root"]).arg(root.path());
        command.arg("/healthport").args(args);
        command
    };
    let version = concat!("healthport ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(
        finish(&mut inside(&["--version"])),
        (Some(0), version.to_string(), String::new())
    );
    let (code, stdout, _) = finish(&mut inside(&["--once", "--url", &url]));
    assert_eq!(
        (code, stdout),
        (Some(0), format!("ok: {url} answered 200\n"))
    );
    let listen = format!("{address}:18898");
    let mut daemon = inside(&["--url", &url, "--listen", &listen, "--interval", "20ms"]);
    let healthport = Healthport::spawn(address, daemon.stderr(Stdio::piped()));
    healthport.opens();
    service.not_ready();
    healthport.closes();
}

/// Counts what strace saw from one probe's socket() to the next.
#[test]
#[ignore = "needs a release build and strace"]
fn a_cycle_is_at_most_16_system_calls_and_no_thread() {
    let address = own_address();
    let service = Service::new((Ipv4Addr::LOCALHOST, 0));
    service.ready();
    // The default host: "localhost" must not cost a look-up.
    let url = format!("http://localhost:{}/healthz/ready", service.address.port());
    let folder = Folder::new();
    let trace = folder.file("trace");
    let listen = format!("{address}:18898");
    let mut command = Command::new("strace");
    command.args(["--follow-forks", "--output"]).arg(&trace);
    command
        .args(["setpriv", "--pdeathsig", "KILL"])
        .arg(release());
    command.args(["--url", &url, "--interval", "100ms", "--listen", &listen]);
    let mut strace = Healthport::spawn(address, command.stderr(Stdio::null()));
    strace.opens();
    service.is_probed(30);
    // A signal to strace would leave the program behind.
    let [traced] = proc::children(strace.child.id())[..] else {
        panic!("more than one child");
    };
    let traced = Pid::from_raw(traced as i32).unwrap();
    kill_process(traced, Signal::TERM).unwrap();
    strace.exits();

    let trace = std::fs::read_to_string(trace).expect("strace is missing: apt-get install strace");
    let main = trace.split_whitespace().next().expect("a process");
    let calls: Vec<_> = trace
        .lines()
        .filter(|line| line.starts_with(main))
        .collect();
    let is_probe = |call: &usize| calls[*call].contains(" socket(AF_INET");
    let probes: Vec<_> = (0..calls.len()).filter(is_probe).collect();
    // The first cycles open the port; the last is cut by the signal.
    let cycles = &calls[probes[5]..probes[25]];
    println!("system calls per cycle: {}", cycles.len() as f64 / 20.0);
    assert!(cycles.len() <= 16 * 20, "{cycles:#?}");
    let is_thread = |line: &&str| line.contains("clone(") || line.contains("clone3(");
    let threads = trace.lines().filter(is_thread).count();
    assert_eq!(threads, 1, "the helper of the open port");
    assert!(!trace.contains("/etc/resolv.conf"));
}

/// The metrics have a thread too: no stack of a thread, 2 MiB, is locked.
#[test]
#[ignore = "needs a release build"]
fn its_memory_is_small_and_stays_so() {
    let service = Service::start();
    let address = service.address.ip();
    let [listen, metrics] = [18898, 18988].map(|port| format!("{address}:{port}"));
    let mut command = Command::new(release());
    command.args(["--url", &service.url(), "--interval", "10ms"]);
    command.args(["--listen", &listen, "--metrics-listen", &metrics]);
    let healthport = Healthport::spawn(address, command.stderr(Stdio::piped()));
    let after = |probes: usize| {
        eventually("probes", || service.connections() >= probes);
        ["VmRSS", "RssAnon"].map(|field| healthport.status(field))
    };
    let (early, late) = (after(100), after(1000));
    let [resident, anonymous] = late;
    assert_eq!(healthport.status("Threads"), 3);
    let locked = healthport.status("VmLck");
    // All that comes from a file, so that no disk can stall it.
    let file = healthport.status("RssFile");
    drop(healthport);

    let address = own_address();
    let [probed, listen] = [service.address.to_string(), format!("{address}:18898")];
    let mut command = Command::new(floor());
    command.args([&probed, "10", &listen]);
    let least = Healthport::spawn(address, &mut command);
    least.opens();
    let least = least.status("VmRSS");
    println!(
        "KiB resident, anonymous: {early:?} after 100 probes, {late:?} after 1,000; \
        {locked} locked; the floor: {least} resident"
    );
    assert!(resident <= 2 * least, "more than twice the floor"); // 1.64 x
    assert!(anonymous * 20 <= early[1] * 21, "more than 5 % grown");
    assert!(
        file <= locked && locked * 2 <= resident * 3,
        "{file} KiB of a file"
    );
}

#[test]
fn a_limit_on_locked_memory_is_no_reason_not_to_run() {
    let service = Service::start();
    let address = service.address.ip();
    let mut command = Command::new("prlimit");
    command.arg("--memlock=65536");
    if rustix::process::geteuid().is_root() {
        command.args(["setpriv", "--bounding-set", "-ipc_lock"]);
    }
    let healthport = Healthport::command(address, &service, &["--log-level", "debug"]);
    command.arg(healthport.get_program());
    command.args(healthport.get_args());
    let healthport = Healthport::spawn(address, command.stderr(Stdio::piped()));
    healthport.opens();
    assert_eq!(healthport.status("VmLck"), 0);
    healthport.says("cannot lock the memory: ");
    assert_eq!(healthport.count("cannot lock the memory: "), 1);
    drop(healthport);
}

/// The run-time packages, ours included, a line each.
pub fn tree(format: &str) -> String {
    let tree = ["tree", "--locked", "--edges", "normal,build"];
    let lines = ["--prefix", "none", "--no-dedupe", "--format", format];
    cargo(&[&tree[..], &lines].concat())
}

#[test]
fn the_run_time_packages_are_these_and_no_others() {
    let tree = tree("{p};{l}");
    let name = |line: &str| line.split(' ').next().unwrap().to_string();
    let found: BTreeSet<_> = tree.lines().map(name).collect();
    assert_eq!(found, PACKAGES.trim().lines().map(name).collect());

    // The table of the page has them in these versions, with these licences.
    let page = include_str!("../bench/README.md");
    for line in tree.lines() {
        let (package, licence) = line.split_once(';').unwrap();
        let package = package.split(" (").next().unwrap().replace(" v", " ");
        let row = format!("| {package} | {licence} |");
        assert!(
            page.contains(&row),
            "not in the page: {row}; see tests/inside.sh"
        );
    }
}
