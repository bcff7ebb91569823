//! What healthport is for, in half a minute. `tests/demo` builds and starts this.
//!
//! A stand-in router is replaced, with traffic on its port, the real healthport with its
//! default options beside it, and two switches that can only check that a connection opens:
//! one checks the router's own port, one healthport. While a switch believes that the router
//! is there, it sends it a request every 50 ms; otherwise another node would get it.
//!
//! Times are real, but for the drain, which takes 10 s in place of an OpenShift router's 45.
//! The router hangs before it is ready. If it did so later, requests would be lost with any
//! check until it has noticed.
//!
//! Ctrl-C ends healthport too. So does whatever else ends this program: the service is gone,
//! and the log line that would say so finds no reader.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, IsTerminal, Read, Write, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use Traffic::{Hangs, Refused, Served};

#[derive(Clone, Copy, PartialEq)]
enum Traffic {
    Served,
    Refused,
    /// Connections open, but nobody answers: its HAProxy is frozen, or at maxconn.
    Hangs,
}

/// What the router says, for how many seconds, what its traffic port does, and the status of
/// its health endpoint, which 0 refuses the connection.
const PHASES: [(&str, u64, Traffic, u16); 6] = [
    ("ready", 5, Served, 200),
    ("not ready: it drains", 10, Served, 500),
    ("(it is gone)", 4, Refused, 0),
    ("not ready: it starts", 2, Refused, 500),
    ("not ready: it hangs", 5, Hangs, 500),
    ("ready", 4, Served, 200),
];
static PHASE: AtomicUsize = AtomicUsize::new(0);

/// What the traffic port does now, and the status of the health endpoint.
fn now() -> (Traffic, u16) {
    let (_, _, traffic, status) = PHASES[PHASE.load(SeqCst)];
    (traffic, status)
}

/// The router asks its own traffic port for so long before it says 500, as the real one.
const ROUTER_PATIENCE: Duration = Duration::from_secs(2);
/// A request without an answer for so long is lost, and a check has failed.
const PATIENCE: Duration = Duration::from_secs(2);
const REQUEST_EVERY: Duration = Duration::from_millis(50);
/// The switch is set as the README recommends: one good check is enough to send.
const CHECK_EVERY: Duration = Duration::from_secs(2);
const DOWN_AFTER: usize = 2;

/// The first free port from `first` on, which is 10,000 above the real one: this machine may
/// be a node. The kernel takes source ports from higher ones, so that nobody has the router's
/// when it comes back.
fn free(first: u16) -> TcpListener {
    (first..first + 1000)
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .unwrap_or_else(|| panic!("no free port in {first} to {}", first + 999))
}

/// One of the router's ports: a status for each request while it is `open`.
fn serve(listener: TcpListener, open: fn() -> bool, answer: fn() -> u16) -> SocketAddr {
    let address = listener.local_addr().expect("a bound port");
    let mut listener = Some(listener);
    thread::spawn(move || {
        loop {
            sleep(Duration::from_millis(1));
            if !open() {
                listener = None;
                continue;
            }
            let again = || TcpListener::bind(address).expect("listen on the router's port again");
            let listener = listener.get_or_insert_with(again);
            listener.set_nonblocking(true).expect("a listener");
            while let Ok((mut stream, _)) = listener.accept() {
                thread::spawn(move || {
                    stream.set_nonblocking(false)?;
                    if stream.read(&mut [0; 1024])? > 0 {
                        let head = format!("HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n", answer());
                        stream.write_all(head.as_bytes())?;
                    }
                    std::io::Result::Ok(()) // an error means that the client has gone
                });
            }
        }
    });
    address
}

/// Waits while the router hangs, up to `limit`; whether it still does.
fn hangs(limit: Duration) -> bool {
    let start = Instant::now();
    while now().0 == Hangs && start.elapsed() < limit {
        sleep(Duration::from_millis(5));
    }
    now().0 == Hangs
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, PATIENCE)
}

fn request(address: SocketAddr) -> std::io::Result<usize> {
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    stream.read(&mut [0; 1024])
}

/// A switch, and the requests of its clients.
#[derive(Default)]
struct Switch {
    sends: AtomicBool,
    waiting: AtomicUsize,
    lost: AtomicUsize,
}

impl Switch {
    fn start(checked: SocketAddr, traffic: SocketAddr) -> &'static Switch {
        let switch: &'static Switch = Box::leak(Box::default());
        thread::spawn(move || {
            let mut failed = DOWN_AFTER;
            loop {
                let start = Instant::now();
                failed = connect(checked).map_or(failed + 1, |_| 0);
                switch.sends.store(failed < DOWN_AFTER, SeqCst);
                sleep(CHECK_EVERY.saturating_sub(start.elapsed()));
            }
        });
        thread::spawn(move || {
            loop {
                sleep(REQUEST_EVERY);
                if switch.sends.load(SeqCst) {
                    switch.waiting.fetch_add(1, SeqCst);
                    thread::spawn(move || {
                        let answered = request(traffic).is_ok_and(|length| length > 0);
                        switch.lost.fetch_add(usize::from(!answered), SeqCst);
                        switch.waiting.fetch_sub(1, SeqCst);
                    });
                }
            }
        });
        switch
    }

    /// Its part of a line: the port, whether it sends, what was lost.
    fn cells(&self, port: SocketAddr) -> [String; 3] {
        let open = ["closed", "open"][usize::from(connect(port).is_ok())];
        let sends = ["-", "sends"][usize::from(self.sends.load(SeqCst))];
        [open, sends, &self.lost.load(SeqCst).to_string()].map(String::from)
    }

    /// What was lost when its last request has ended.
    fn total(&self) -> usize {
        self.sends.store(false, SeqCst);
        sleep(REQUEST_EVERY);
        while self.waiting.load(SeqCst) > 0 {
            sleep(REQUEST_EVERY);
        }
        self.lost.load(SeqCst)
    }
}

/// The program that cargo built beside this one, and its log.
fn healthport(health: SocketAddr, listen: SocketAddr) -> (Child, Receiver<String>) {
    let this = std::env::current_exe().expect("the path of this program");
    let path = this.with_file_name("../healthport");
    let mut child = Command::new(&path)
        .args(["--url", &format!("http://{health}/healthz/ready")])
        .args(["--listen", &listen.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", path.display()));
    let log = BufReader::new(child.stderr.take().expect("a pipe"));
    let (send, lines) = channel();
    thread::spawn(move || {
        let mut lines = log.lines().map_while(Result::ok);
        lines.try_for_each(|line| send.send(line))
    });
    (child, lines)
}

/// A line of the table. On a terminal, what has changed since the last one stands out.
fn draw(last: &[String], cells: &[String], colours: bool) {
    const WIDTHS: [usize; 8] = [6, 20, 10, 7, 5, 10, 7, 5];
    let mut line = String::new();
    for (column, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let colour = match cell.as_str() {
            _ if !colours => "",
            _ if column == 0 || last.get(column) == Some(cell) => "\x1b[2m",
            "open" | "sends" | "ready" => "\x1b[1;32m",
            _ if [4, 7].contains(&column) && cell != "0" => "\x1b[1;31m",
            _ => "\x1b[1;33m",
        };
        let text = match column {
            0 | 4 | 7 => format!("{cell:>width$}"),
            _ => format!("{cell:<width$}"),
        };
        let bar = if [2, 5].contains(&column) { "| " } else { "" };
        let end = if colours { "\x1b[0m" } else { "" };
        line += &format!("{bar}{colour}{text}{end}  ");
    }
    println!("{}", line.trim_end());
}

fn main() -> ExitCode {
    let colours = stdout().is_terminal();
    let serves = || if hangs(Duration::MAX) { 0 } else { 200 };
    let port = serve(free(10_080), || now().0 != Refused, serves);
    // The phase's own status, unless it hangs for too long.
    let says = || if hangs(ROUTER_PATIENCE) { 500 } else { now().1 };
    let health = serve(free(11_936), || now().1 != 0, says);
    let ours = free(28_898).local_addr().expect("a bound port");
    let (mut child, log) = healthport(health, ours);
    let switches = [(port, port), (ours, port)].map(|(checked, to)| Switch::start(checked, to));

    println!(
        "A router is replaced. Each of two switches can only check that a connection opens.\n"
    );
    let (own, other) = ("TCP check of its port", "TCP check of healthport");
    println!("{:30}| {own:27} | {other}", "");
    let ports = [port, ours].map(|address| format!("port {}", address.port()));
    let [first, second] = ports.each_ref().map(|port| [port, "switch", "lost"]);
    let heads = [&["time", "the router says"][..], &first, &second].concat();
    let heads: Vec<_> = heads.iter().map(ToString::to_string).collect();
    draw(&[], &heads, false);

    let start = Instant::now();
    let (mut last, mut drawn, mut end) = (vec![String::new(); 8], start, start);
    for (number, (says, seconds, ..)) in PHASES.into_iter().enumerate() {
        PHASE.store(number, SeqCst);
        sleep(Duration::from_millis(20)); // the ports follow
        end += Duration::from_secs(seconds);
        while Instant::now() < end {
            let time = format!("{:.1} s", start.elapsed().as_secs_f64());
            let [first, second] =
                [(switches[0], port), (switches[1], ours)].map(|(s, p)| s.cells(p));
            let cells = [&[time, says.to_string()][..], &first, &second].concat();
            // Lost requests alone make a line a second.
            let changed = |columns: &[usize]| columns.iter().any(|&c| cells[c] != last[c]);
            let second = drawn.elapsed() >= Duration::from_secs(1);
            if changed(&[1, 2, 3, 5, 6]) || second && changed(&[4, 7]) {
                draw(&last, &cells, colours);
                (last, drawn) = (cells, Instant::now());
            }
            for line in log.try_iter() {
                let said = line.split_once("] ").map_or(&*line, |(_, said)| said);
                if said.starts_with("port ") {
                    println!("{:8}healthport: {said}", "");
                }
            }
            sleep(Duration::from_millis(20));
        }
    }
    // A healthport that opened no port would lose nothing either.
    let both_send = switches.iter().all(|switch| switch.sends.load(SeqCst));
    let [lost, ours] = switches.map(Switch::total);
    let _ = child.kill();
    println!(
        "\nlost: {lost} requests with a check of the router's port, {ours} with a check of healthport"
    );
    ExitCode::from(u8::from(!both_send || lost == 0 || ours > 0))
}
