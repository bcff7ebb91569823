//! /metrics, /livez and /readyz of the running program: what they answer, to whom, and that no
//! client can do harm.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    Folder, Healthport, PATIENCE, Service, eventually, is_open, own_address, small_pipe, tool,
};
use rustix::process::Signal;

/// A healthport with --metrics-listen, its service, and where to ask.
fn start(args: &[&str]) -> (Healthport, Service, SocketAddr) {
    start_on(own_address(), args)
}

fn start_on(address: IpAddr, args: &[&str]) -> (Healthport, Service, SocketAddr) {
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

/// Sends the bytes, closes its half if asked to, and reads the whole answer.
fn send(metrics: SocketAddr, bytes: &[u8], then_close: bool) -> String {
    let mut stream =
        TcpStream::connect_timeout(&metrics, PATIENCE).expect("connect to the metrics");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    if then_close {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn get(metrics: SocketAddr, path: &str) -> String {
    send(
        metrics,
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes(),
        false,
    )
}

/// The body of /metrics.
fn scrape(metrics: SocketAddr) -> String {
    let answer = get(metrics, "/metrics");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("\r\nContent-Type: text/plain; version=0.0.4"),
        "{head}"
    );
    assert!(
        head.contains(&format!("\r\nContent-Length: {}", body.len())),
        "{head}"
    );
    body.to_string()
}

/// One series of a scrape.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in {text}"))
        .parse()
        .unwrap()
}

/// Parses the text strictly: HELP and TYPE come first and once, every series belongs to
/// a declared family and appears once, names and units follow the rules, histograms add
/// up. Returns the series.
fn parse(text: &str) -> HashMap<String, f64> {
    let (mut helped, mut types) = (HashSet::new(), HashMap::new());
    let mut series = HashMap::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(
                helped.insert(name.to_string()) && !help.is_empty(),
                "{line}"
            );
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "{line}");
            assert!(
                types.insert(name.to_string(), kind.to_string()).is_none(),
                "{line}"
            );
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let metric = name.split('{').next().unwrap();
            let family = types.keys().find(|family| {
                let suffix = metric.strip_prefix(family.as_str());
                let parts = ["_bucket", "_sum", "_count"];
                suffix == Some("")
                    || types[*family] == "histogram"
                        && suffix.is_some_and(|suffix| parts.contains(&suffix))
            });
            assert!(family.is_some(), "{line}");
            assert!(
                metric.starts_with("healthport_") || metric == "process_start_time_seconds",
                "{line}"
            );
            assert!(
                series.insert(name.to_string(), value).is_none(),
                "twice: {line}"
            );
        }
    }
    assert_eq!(helped.len(), types.len());

    let name = "healthport_probe_duration_seconds";
    let buckets: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix(&format!("{name}_bucket{{le=\"")))
        .collect();
    let buckets: Vec<(f64, f64)> = buckets
        .iter()
        .map(|line| {
            let (bound, count) = line.split_once("\"} ").unwrap();
            (
                if bound == "+Inf" {
                    f64::INFINITY
                } else {
                    bound.parse().unwrap()
                },
                count.parse().unwrap(),
            )
        })
        .collect();
    assert!(
        buckets
            .windows(2)
            .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1),
        "{buckets:?}"
    );
    let (last, count) = buckets[buckets.len() - 1];
    assert!(last.is_infinite());
    assert_eq!(count, series[&format!("{name}_count")]);
    let results: f64 = series
        .iter()
        .filter(|(name, _)| name.starts_with("healthport_probes_total"))
        .map(|(_, value)| value)
        .sum();
    // A probe may have been counted between the two reads.
    assert!(
        (results - count).abs() <= 1.0,
        "{results} results, {count} durations"
    );
    series
}

#[test]
fn the_numbers_follow_the_story() {
    let (healthport, service, metrics) = start(&["--timeout", "200ms"]);
    let until = |what: &str, condition: &dyn Fn(&str) -> bool| {
        let mut text = String::new();
        eventually(what, || {
            text = scrape(metrics);
            condition(&text)
        });
        parse(&text);
        text
    };
    let text = scrape(metrics);
    assert_eq!(value(&text, "healthport_up"), 0.0);
    assert_eq!(value(&text, "healthport_probe_http_status_code"), 500.0);
    assert_eq!(
        value(&text, "healthport_last_transition_timestamp_seconds"),
        0.0
    );
    assert_eq!(
        value(&text, "healthport_last_success_timestamp_seconds"),
        0.0
    );
    let started = value(&text, "process_start_time_seconds");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!(started <= now && started > now - 600.0);

    service.ready();
    healthport.opens();
    // One check found it open. The helper counts that check a little later.
    let text = until("the open port and its check", &|text| {
        value(text, "healthport_up") == 1.0 && value(text, "healthport_connections_total") == 1.0
    });
    assert_eq!(
        value(&text, "healthport_transitions_total{to=\"open\"}"),
        1.0
    );
    assert_eq!(
        value(&text, "healthport_transitions_total{to=\"closed\"}"),
        0.0
    );
    assert_eq!(value(&text, "healthport_probe_success"), 1.0);
    assert_eq!(value(&text, "healthport_probe_http_status_code"), 200.0);
    for time in ["transition", "success", "connection"] {
        let time = value(&text, &format!("healthport_last_{time}_timestamp_seconds"));
        assert!(time >= started && time < now + 600.0, "{time}");
    }
    for _ in 0..10 {
        assert!(healthport.is_open());
    }
    until("ten more checks", &|text| {
        value(text, "healthport_connections_total") == 11.0
    });

    // One of each result.
    for (result, answer) in [
        ("protocol", "garbage"),
        ("status", crate::common::NOT_READY),
    ] {
        service.says(answer);
        until(result, &|text| {
            value(
                text,
                &format!("healthport_probes_total{{result=\"{result}\"}}"),
            ) > 0.0
        });
    }
    service.hangs();
    // On a busy machine an earlier probe may have timed out too.
    let text = until("timeout", &|text| {
        value(text, "healthport_probes_total{result=\"timeout\"}") > 0.0
            && value(text, "healthport_probe_http_status_code") == 0.0
    });
    assert_eq!(value(&text, "healthport_up"), 0.0);
    assert_eq!(
        value(&text, "healthport_transitions_total{to=\"closed\"}"),
        1.0
    );
    let slow = value(&text, "healthport_probe_duration_seconds_count")
        - value(
            &text,
            "healthport_probe_duration_seconds_bucket{le=\"0.1\"}",
        );
    assert!(slow >= 1.0, "a probe of 200 ms");
    drop(service);
    until("connect", &|text| {
        value(text, "healthport_probes_total{result=\"connect\"}") > 0.0
    });
}

#[test]
fn readyz_is_the_port() {
    let (healthport, service, metrics) = start(&[]);
    let is = |code: &str| get(metrics, "/readyz").starts_with(&format!("HTTP/1.1 {code} "));
    assert!(is("503"));
    service.ready();
    eventually("ready", || is("200"));
    assert!(healthport.is_open());
    service.not_ready();
    eventually("not ready", || is("503"));
    assert!(!healthport.is_open());
    // Asking is no check of the switch: the two above are.
    let connections = "healthport_connections_total";
    assert!(value(&scrape(metrics), connections) <= 2.0);
}

#[test]
fn drained_and_refused_by_the_system() {
    let folder = Folder::new();
    let drain = folder.file("drain");
    let address = own_address();
    let other = TcpListener::bind((address, 18898)).unwrap();
    let args = ["--drain-file", drain.to_str().unwrap()];
    let (healthport, service, metrics) = start_on(address, &args);
    service.ready();
    eventually("listen errors", || {
        value(&scrape(metrics), "healthport_listen_errors_total") >= 3.0
    });
    assert_eq!(value(&scrape(metrics), "healthport_up"), 0.0);
    drop(other);
    healthport.opens();
    std::fs::write(&drain, "").unwrap();
    eventually("drained", || {
        value(&scrape(metrics), "healthport_drained") == 1.0
    });
    std::fs::remove_file(&drain).unwrap();
    eventually("not drained", || {
        value(&scrape(metrics), "healthport_drained") == 0.0
    });
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
fn anything_else_is_refused() {
    let (_healthport, _service, metrics) = start(&[]);
    let status = |request: &str| {
        let answer = send(metrics, request.as_bytes(), true);
        answer.split(' ').nth(1).unwrap_or("closed").to_string()
    };
    assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
    assert_eq!(status("GET /metrics HTTP/1.0\r\n\r\n"), "200");
    assert_eq!(
        status("GET /metrics?name[]=x HTTP/1.1\r\nHost: x\r\n\r\n"),
        "200"
    );
    assert_eq!(status("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
    // A server must take the absolute form.
    for target in ["http://x/metrics", "HTTP://[::1]:9100/livez?x"] {
        assert_eq!(status(&format!("GET {target} HTTP/1.1\r\n\r\n")), "200");
    }
    // Nothing depends on a header.
    assert_eq!(status("GET /livez HTTP/1.1\r\nno colon\r\n\r\n"), "200");
    for path in [
        "/",
        "/metrics/",
        "/Metrics",
        "/livez/x",
        "//metrics",
        "/%6detrics",
        "http://x",
        "http://x?/metrics",
    ] {
        assert_eq!(
            status(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")),
            "404",
            "{path}"
        );
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "BREW", "CONNECT"] {
        assert_eq!(
            status(&format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n\r\n")),
            "400",
            "{method}"
        );
    }
    // An answer to HEAD has no body, whatever it says.
    for (target, code) in [("/livez", "200"), ("/x", "404"), ("x", "400")] {
        let answer = send(
            metrics,
            format!("HEAD {target} HTTP/1.1\r\n\r\n").as_bytes(),
            true,
        );
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.contains("\r\nContent-Length: ") && body.is_empty(),
            "{answer}"
        );
    }
    let garbage = [
        "garbage\r\n\r\n",
        "GARBAGE\r\n\r\n",
        "GET\r\n\r\n",
        "GET /metrics\r\n\r\n",
        "GET /metrics HTTP/2\r\n\r\n",
        "GET  /metrics HTTP/1.1\r\n\r\n",
        "GET /metrics HTTP/1.1 x\r\n\r\n",
        "GET metrics HTTP/1.1\r\n\r\n",
        "GET https://x/metrics HTTP/1.1\r\n\r\n",
        "GET http:/x/metrics HTTP/1.1\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x", // and closed
        "\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in garbage {
        assert_eq!(status(request), "400", "{request:?}");
    }
    assert_eq!(status(""), "closed");
    let long = |length: usize| {
        format!(
            "GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n",
            "x".repeat(length - 30)
        )
    };
    assert_eq!(long(8192).len(), 8192);
    assert_eq!(status(&long(8192)), "200");
    assert_eq!(status(&long(8193)), "400");
    assert_eq!(status(&long(100_000)), "400");
    assert_eq!(status(&"X".repeat(100_000)), "400");
}

#[test]
fn slow_clients_are_cut_and_gone_clients_are_nothing() {
    let (healthport, _service, metrics) = start(&[]);
    let cut = |mut stream: TcpStream| {
        let start = Instant::now();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.read_to_string(&mut String::new());
        let took = start.elapsed();
        // It takes one second; a busy machine may need a few more.
        assert!(took < Duration::from_secs(5), "{took:?}");
        took
    };
    let silent = TcpStream::connect(metrics).unwrap();
    assert!(cut(silent) > Duration::from_millis(500));
    let mut drip = TcpStream::connect(metrics).unwrap();
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
        let mut gone = TcpStream::connect(metrics).unwrap();
        gone.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
    }
    assert!(get(metrics, "/livez").starts_with("HTTP/1.1 200 "));
    assert_eq!(
        healthport.log().len(),
        2,
        "no client is worth a line: {:#?}",
        healthport.log()
    );
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
        let answered = get(metrics, "/livez").starts_with("HTTP/1.1 200 ");
        // If this thread stalls between its connect and its request, it is itself
        // the client that has been silent longest.
        lost += usize::from(!answered);
        took.push(start.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    let probes = service.connections() - probes;
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    println!(
        "/livez, {} times among {} silent clients: p50 {:?}, p99 {:?}, at most {:?}; {probes} probes in 3 s",
        took.len(),
        silent.join().unwrap(),
        at(50),
        at(99),
        at(100),
    );
    // 5 ms measured. When clients had to wait for a place, it took seconds.
    assert!(at(99) < Duration::from_millis(500), "{:?}", at(99));
    assert!(lost * 50 <= took.len(), "{lost} of {} lost", took.len());
    assert!(probes >= 20, "{probes} probes in 3 s, of 30");
    assert_eq!(healthport.status("Threads"), 2);
    eventually("they are gone", || healthport.descriptors() < 20);
}

/// Beyond the limit the client that has been silent longest is dropped, not one that
/// sends something now and then.
#[test]
fn the_one_that_was_silent_longest_makes_room() {
    let (_healthport, _service, metrics) = start(&[]);
    let connect = || {
        let stream = TcpStream::connect(metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    // Every client is dropped after a second, so a try that takes that long shows nothing.
    let mut conclusive = false;
    for _ in 0..3 {
        let begin = Instant::now();
        let (mut talks, mut silent) = (connect(), connect());
        let _others: Vec<_> = (2..64).map(|_| connect()).collect();
        thread::sleep(Duration::from_millis(50));
        talks.write_all(b"GET /livez HT").unwrap();
        thread::sleep(Duration::from_millis(50));
        let _one_more = connect();
        thread::sleep(Duration::from_millis(50));
        let _ = talks.write_all(b"TP/1.1\r\n\r\n");
        let mut answer = String::new();
        let _ = talks.read_to_string(&mut answer);
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
    assert!(
        conclusive,
        "it took a second three times, or nobody made room"
    );
}

/// Clients that send nothing, or never read, while the service comes and goes.
#[test]
fn no_client_delays_the_port() {
    let (healthport, service, metrics) = start(&[]);
    let held: Vec<_> = (0..100)
        .filter_map(|_| {
            let mut stream = TcpStream::connect(metrics).ok()?;
            let _ = stream.write_all(b"GET /metrics HTT");
            Some(stream)
        })
        .collect();
    assert_eq!(held.len(), 100, "fewer than the backlog of 128 holds");
    for _ in 0..10 {
        let before = service.connections();
        service.ready();
        crate::common::within(Duration::from_secs(5), "open", || healthport.is_open());
        service.not_ready();
        crate::common::within(Duration::from_secs(5), "closed", || !healthport.is_open());
        assert!(service.connections() > before);
    }
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
fn a_stalled_loop_still_answers_and_says_so() {
    let address = own_address();
    let service = Service::router(address);
    service.ready();
    let metrics = SocketAddr::new(address, 9100);
    let (_log, stderr) = small_pipe();
    let listen = metrics.to_string();
    let args = [
        "--metrics-listen",
        &listen,
        "--log-level",
        "trace",
        "--timeout",
        "100ms",
        "--max-age",
        "2s",
    ];
    let mut command = Healthport::command(address, &service, &args);
    let healthport = Healthport::spawn(address, command.stderr(stderr));
    healthport.opens();
    assert!(get(metrics, "/livez").starts_with("HTTP/1.1 200 OK\r\n"));
    eventually("the loop has stalled", || {
        get(metrics, "/livez").starts_with("HTTP/1.1 503 ")
    });
    // By the lease, not by what the loop stored last.
    assert!(get(metrics, "/readyz").starts_with("HTTP/1.1 503 "));
    let text = scrape(metrics);
    parse(&text);
    assert_eq!(
        value(&text, "healthport_up"),
        0.0,
        "its helper has closed the port"
    );
    healthport.closes();
}

#[test]
fn exhausted_descriptors_are_no_spin() {
    let (healthport, _service, metrics) = start(&["--interval", "1m"]);
    healthport.limit_descriptors(3);
    let mut waiting = TcpStream::connect(metrics).unwrap();
    waiting.write_all(b"GET /livez HTTP/1.1\r\n\r\n").unwrap();
    let before = healthport.cpu_ticks();
    thread::sleep(Duration::from_millis(500));
    assert!(healthport.cpu_ticks() - before < 25, "it spins");
    healthport.limit_descriptors(1024);
    waiting.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

/// That is no reason to close the port or to end.
#[test]
fn an_address_that_is_taken_is_tried_again() {
    let address = own_address();
    let taken = TcpListener::bind((address, 9100)).unwrap();
    let metrics = taken.local_addr().unwrap();
    let service = Service::router(address);
    service.ready();
    let listen = metrics.to_string();
    let healthport = Healthport::start(address, &service, &["--metrics-listen", &listen]);
    healthport.opens();
    let line = format!("cannot serve metrics on {listen}: address in use; next try in 20ms");
    healthport.says(&line);
    let more = service.connections() + 20;
    eventually("20 more probes", || service.connections() >= more);
    assert_eq!(healthport.count("cannot serve metrics"), 1);
    assert!(healthport.is_open());
    drop(taken);
    healthport.says(&format!("metrics served on {listen}"));
    assert!(get(metrics, "/livez").starts_with("HTTP/1.1 200 "));
    assert!(healthport.is_open());
    assert_eq!(healthport.count("port closed"), 0);
}

#[test]
fn a_signal_ends_it_all() {
    let (mut healthport, service, metrics) = start(&[]);
    service.ready();
    healthport.opens();
    healthport.signal(Signal::TERM);
    assert_eq!(healthport.exits().code(), Some(0));
    assert!(!crate::common::is_open(metrics));
}
