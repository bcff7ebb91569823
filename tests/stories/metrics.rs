//! /metrics, /livez and /readyz of the running program: what they answer, to whom, and that no
//! client can do harm.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::common::{
    Healthport, NOT_READY, PATIENCE, Service, eventually, is_open, opened_unread, own_address, tool,
};
use rustix::process::Signal;

/// A healthport with --metrics-listen, its service, and where to ask.
fn start(args: &[&str]) -> (Healthport, Service, SocketAddr) {
    let address = own_address();
    let service = Service::router(address);
    let metrics = SocketAddr::new(address, 9100);
    let listen = metrics.to_string();
    let args = [&["--metrics-listen", &listen], args].concat();
    let healthport = Healthport::start(address, &service, &args);
    healthport.says("port closed: answered 500");
    // Another thread opens it.
    eventually("the metrics are served", || is_open(metrics));
    (healthport, service, metrics)
}

fn connect(metrics: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&metrics, PATIENCE).expect("connect to the metrics");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// What comes until the connection is closed.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// Sends the bytes, ends its half, and reads the whole answer.
fn send(metrics: SocketAddr, bytes: &str) -> String {
    let mut stream = connect(metrics);
    let _ = stream.write_all(bytes.as_bytes());
    let _ = stream.shutdown(Shutdown::Write);
    rest(stream)
}

fn get(metrics: SocketAddr, path: &str) -> String {
    send(metrics, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

fn is_ok(metrics: SocketAddr, path: &str) -> bool {
    get(metrics, path).starts_with("HTTP/1.1 200 OK\r\n")
}

/// The body of /metrics.
fn scrape(metrics: SocketAddr) -> String {
    let answer = get(metrics, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let kind = "\r\nContent-Type: text/plain; version=0.0.4";
    let length = format!("\r\nContent-Length: {}", body.len());
    assert!(head.contains(kind) && head.contains(&length), "{head}");
    body.to_string()
}

/// One series of a scrape, without its prefix.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| {
        let line = line.strip_prefix("healthport_").unwrap_or(line);
        line.strip_prefix(series)?.strip_prefix(' ')
    });
    let value = line.unwrap_or_else(|| panic!("no {series} in {text}"));
    value.parse().unwrap()
}

/// Waits until a series has reached a value; returns that scrape.
fn reaches(metrics: SocketAddr, series: &str, least: f64) -> String {
    let mut text = String::new();
    eventually(&format!("{series} {least}"), || {
        text = scrape(metrics);
        value(&text, series) >= least
    });
    text
}

/// src/metrics.rs tests what cycles add up to, and promtool the text.
#[test]
fn the_numbers_follow_the_story() {
    let (healthport, service, metrics) = start(&["--timeout", "200ms"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_secs_f64();
    let started = value(&scrape(metrics), "process_start_time_seconds");
    assert!(started <= now && started > now - 600.0);

    service.ready();
    healthport.opens();
    for _ in 0..10 {
        assert!(healthport.is_open());
    }
    // The helper counts a check a little later.
    reaches(metrics, "connections_total", 11.0);
    let text = reaches(metrics, "up", 1.0);
    assert_eq!(value(&text, "connections_total"), 11.0);
    for time in ["transition", "success", "connection"] {
        let time = value(&text, &format!("last_{time}_timestamp_seconds"));
        assert!(time >= started && time < now + 600.0, "{time}");
    }
    let counts = |result: &str| {
        let series = format!("probes_total{{result=\"{result}\"}}");
        reaches(metrics, &series, 1.0)
    };
    service.says("garbage");
    counts("protocol");
    service.says(NOT_READY);
    counts("status");
    service.hangs();
    let text = counts("timeout");
    let fast = value(&text, "probe_duration_seconds_bucket{le=\"0.1\"}");
    let slow = value(&text, "probe_duration_seconds_count") - fast;
    assert!(slow >= 1.0, "a probe of 200 ms");
    service.is_gone();
    let text = counts("connect");
    assert_eq!(value(&text, "up"), 0.0);
    assert_eq!(value(&text, "transitions_total{to=\"closed\"}"), 1.0);
}

#[test]
fn readyz_is_the_port() {
    let (mut healthport, service, metrics) = start(&[]);
    let is = |code: &str| get(metrics, "/readyz").starts_with(&format!("HTTP/1.1 {code} "));
    assert!(is("503"));
    service.ready();
    eventually("ready", || is("200"));
    assert!(healthport.is_open());
    service.not_ready();
    eventually("not ready", || is("503"));
    assert!(!healthport.is_open());
    // Asking is no check of the switch: the two above are.
    assert!(value(&scrape(metrics), "connections_total") <= 2.0);
    // The responder holds up no end.
    healthport.signal(Signal::TERM);
    assert_eq!(healthport.exits().code(), Some(0));
    assert!(!is_open(metrics));
}

#[test]
#[ignore = "needs promtool"]
fn promtool_has_nothing_to_say() {
    let (healthport, service, metrics) = start(&[]);
    service.ready();
    healthport.opens();
    let mut promtool = Command::new("promtool");
    let (ok, said) = tool(promtool.args(["check", "metrics"]), &scrape(metrics));
    assert!(ok && said.is_empty(), "{said}");
}

#[test]
fn other_requests_get_400() {
    let (_healthport, _service, metrics) = start(&[]);
    let is = |code: &str, request: &str| {
        let answer = send(metrics, request);
        let status = answer.split(' ').nth(1).unwrap_or("closed");
        assert_eq!(status, code, "{request:.99?}");
    };
    for (code, lines) in [
        // A server must take the absolute form, and nothing depends on a header.
        (
            "200",
            "GET /metrics HTTP/1.1|GET /metrics HTTP/1.0|GET /metrics?name[]=x HTTP/1.1|\
             GET http://x/metrics HTTP/1.1|GET HTTP://[::1]:9100/livez?x HTTP/1.1|\
             GET /livez HTTP/1.1\r\nno colon",
        ),
        (
            "404",
            "GET / HTTP/1.1|GET /metrics/ HTTP/1.1|GET /Metrics HTTP/1.1|\
             GET /livez/x HTTP/1.1|GET //metrics HTTP/1.1|GET /%6detrics HTTP/1.1|\
             GET http://x HTTP/1.1|GET http://x?/metrics HTTP/1.1",
        ),
        (
            "400",
            "POST /metrics HTTP/1.1|PUT /metrics HTTP/1.1|DELETE /metrics HTTP/1.1|\
             OPTIONS /metrics HTTP/1.1|BREW /metrics HTTP/1.1|CONNECT /metrics HTTP/1.1|\
             garbage|GARBAGE|GET|GET /metrics|GET /metrics HTTP/2|GET  /metrics HTTP/1.1|\
             GET /metrics HTTP/1.1 x|GET metrics HTTP/1.1|GET https://x/metrics HTTP/1.1|\
             GET http:/x/metrics HTTP/1.1||PRI * HTTP/2.0\r\n\r\nSM",
        ),
    ] {
        for line in lines.split('|') {
            is(code, &format!("{line}\r\n\r\n"));
        }
    }
    // Half a request, and a TLS one.
    is("400", "GET /metrics HTTP/1.1\r\nHost: x");
    is("400", "\x16\x03\x01\x02\x00\x01\x00\x01");
    is("closed", "");
    // 8 KiB at most.
    for (length, code) in [(8192, "200"), (8193, "400"), (100_000, "400")] {
        let padding = "x".repeat(length - 30);
        let request = format!("GET /metrics HTTP/1.1\r\nX: {padding}\r\n\r\n");
        assert_eq!(request.len(), length);
        is(code, &request);
    }
    is("400", &"X".repeat(100_000));
    // An answer to HEAD has no body, whatever it says.
    for (target, code) in [("/livez", "200"), ("/x", "404"), ("x", "400")] {
        let answer = send(metrics, &format!("HEAD {target} HTTP/1.1\r\n\r\n"));
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
        assert!(head.contains("\r\nContent-Length: "), "{answer}");
        assert_eq!(body, "");
    }
}

#[test]
fn slow_clients_are_cut_and_gone_clients_are_nothing() {
    let (healthport, _service, metrics) = start(&[]);
    let cut = |stream: TcpStream| {
        let start = Instant::now();
        rest(stream);
        let took = start.elapsed();
        // It takes one second; a busy machine may need a few more.
        assert!(took < Duration::from_secs(5), "{took:?}");
        took
    };
    assert!(cut(connect(metrics)) > Duration::from_millis(500));
    let mut drip = connect(metrics);
    let mut dripper = drip.try_clone().unwrap();
    let dripping = thread::spawn(move || {
        while dripper.write_all(b"G").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
    });
    drip.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
    cut(drip);
    dripping.join().unwrap();
    for _ in 0..100 {
        let mut gone = connect(metrics);
        gone.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    }
    assert!(is_ok(metrics, "/livez"));
    let log = healthport.log();
    assert_eq!(log.len(), 2, "no client is worth a line: {log:#?}");
}

/// A liveness probe is answered in time among 1,000 silent clients a second, and 128 at
/// once ten times, and so are the probes of the service.
#[test]
fn silent_clients_do_not_make_a_liveness_probe_wait() {
    let (healthport, service, metrics) = start(&["--interval", "100ms"]);
    let probes = service.connections();
    let begin = Instant::now();
    let end = begin + Duration::from_secs(3);
    let silent = thread::spawn(move || {
        let mut held = VecDeque::new();
        let mut count = 0;
        while Instant::now() < end {
            // As many as are due by now, bursts included.
            let due = begin.elapsed().as_millis() as usize;
            let due = due + due / 300 * 128;
            while count < due {
                held.extend(TcpStream::connect(metrics));
                count += 1;
            }
            held.drain(..held.len().saturating_sub(400));
            thread::sleep(Duration::from_millis(1));
        }
        count
    });
    let (mut took, mut lost) = (Vec::new(), 0);
    while Instant::now() < end {
        let start = Instant::now();
        // If this thread stalls between its connect and its request, it is itself
        // the client that has been silent longest.
        lost += usize::from(!is_ok(metrics, "/livez"));
        took.push(start.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    let probes = service.connections() - probes;
    took.sort_unstable();
    let (asked, p99) = (took.len(), took[(took.len() - 1) * 99 / 100]);
    let clients = silent.join().unwrap();
    println!("asked {asked} times among {clients} silent clients: p99 {p99:?}, {probes} probes");
    // 5 ms measured. When clients had to wait for a place, it took seconds.
    assert!(p99 < Duration::from_millis(500), "{p99:?}");
    assert!(lost * 50 <= asked, "{lost} of {asked} lost");
    assert!(probes >= 20, "{probes} probes in 3 s, of 30");
    assert_eq!(healthport.status("Threads"), 3);
    eventually("they are gone", || healthport.descriptors() < 20);
}

/// Beyond the limit the client that has been silent longest is dropped, not one that
/// sends something now and then.
#[test]
fn silent_longest_client_is_replaced() {
    let (_healthport, _service, metrics) = start(&[]);
    // Every client is dropped after a second, so a try that takes that long shows nothing.
    let mut conclusive = false;
    for _ in 0..3 {
        let begin = Instant::now();
        let (mut talks, mut silent) = (connect(metrics), connect(metrics));
        let _others: Vec<_> = (2..64).map(|_| connect(metrics)).collect();
        thread::sleep(Duration::from_millis(50));
        talks.write_all(b"GET /livez HT").unwrap();
        thread::sleep(Duration::from_millis(50));
        let _one_more = connect(metrics);
        thread::sleep(Duration::from_millis(50));
        let _ = talks.write_all(b"TP/1.1\r\n\r\n");
        let answer = rest(talks);
        let closed = silent.read(&mut [0]);
        if begin.elapsed() < Duration::from_millis(900) {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(closed.unwrap(), 0);
            conclusive = true;
        }
        eventually("the others are cut", || {
            begin.elapsed() > Duration::from_millis(1100)
        });
    }
    assert!(conclusive, "three tries took a second, or nobody made room");
}

#[test]
fn ten_thousand_scrapes_leave_nothing() {
    let (healthport, _service, metrics) = start(&[]);
    let some = |count| (0..count).for_each(|_| assert!(scrape(metrics).len() > 1000));
    // In parallel, since each waits for a tick of the responder.
    let scrapes = |count| {
        thread::scope(|scope| (0..10).for_each(|_| drop(scope.spawn(|| some(count / 10)))));
    };
    scrapes(500);
    let before = (healthport.descriptors(), healthport.status("Threads"));
    let memory = healthport.status("VmRSS");
    scrapes(10_000);
    eventually("the descriptors of before", || {
        (healthport.descriptors(), healthport.status("Threads")) == before
    });
    let grown = healthport.status("VmRSS").saturating_sub(memory);
    assert!(grown < 128, "{grown} KiB more after 10,000 scrapes"); // 0 measured
}

#[test]
fn stalled_loop_answers_503() {
    let metrics = SocketAddr::new(own_address(), 9100);
    let listen = metrics.to_string();
    let args = ["--metrics-listen", &listen, "--max-age", "2s"];
    let (_service, healthport, _log) = opened_unread(&args);
    assert!(is_ok(metrics, "/livez"));
    eventually("the loop has stalled", || {
        get(metrics, "/livez").starts_with("HTTP/1.1 503 ")
    });
    // By the lease, not by what the loop stored last: its helper has closed the port.
    assert!(get(metrics, "/readyz").starts_with("HTTP/1.1 503 "));
    assert_eq!(value(&scrape(metrics), "up"), 0.0);
    healthport.closes();
}

#[test]
fn exhausted_descriptors_are_no_spin() {
    let (healthport, _service, metrics) = start(&["--interval", "1m"]);
    healthport.limit_descriptors(3);
    let mut waiting = connect(metrics);
    waiting.write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
    let before = healthport.cpu_ticks();
    thread::sleep(Duration::from_millis(500));
    assert!(healthport.cpu_ticks() - before < 25, "it spins");
    healthport.limit_descriptors(1024);
    let answer = rest(waiting);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// That is no reason to close the port or to end.
#[test]
fn an_address_that_is_taken_is_tried_again() {
    let service = Service::start();
    let address = service.address.ip();
    let taken = TcpListener::bind((address, 9100)).unwrap();
    let metrics = taken.local_addr().unwrap();
    let listen = metrics.to_string();
    let healthport = Healthport::start(address, &service, &["--metrics-listen", &listen]);
    healthport.opens();
    let line = format!("cannot serve metrics on {listen}: address in use; next try in 20ms");
    healthport.says(&line);
    service.is_probed(20);
    assert_eq!(healthport.count("cannot serve metrics"), 1);
    assert!(healthport.is_open());
    drop(taken);
    healthport.says(&format!("metrics served on {listen}"));
    assert!(is_ok(metrics, "/livez"));
    assert!(healthport.is_open());
    assert_eq!(healthport.count("port closed"), 0);
}
