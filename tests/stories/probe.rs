//! What a probe makes of every kind of service, good, bad and mad: each gives an Outcome
//! within the timeout, and none a panic.

use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::zoo::Way;
use crate::common::{
    BINARY, Healthport, NOT_READY, READY, Service, drain, eventually, finish, own_address,
    read_head,
};
use healthport::config::Config;
use healthport::options;
use healthport::probe::{Outcome, ProbeResult, Prober};

/// The timeout of a probe, unless the test lets it expire, and what a busy machine may
/// add to it. Both can be generous, since what they catch is an exchange without end.
const TIMEOUT: Duration = Duration::from_secs(2);
const NOISE: Duration = Duration::from_secs(5);
/// The arguments of a probe whose timeout is to expire.
const SHORT: [&str; 2] = ["--timeout", "300ms"];

fn config(args: &[&str]) -> Config {
    let args = ["--timeout", "2s"].iter().chain(args);
    let (_, config) = options::parse(args.map(Into::into)).expect("a right command line");
    config
}

/// Probes `service` once, within bounded time.
fn probe(service: &Service, args: &[&str]) -> Outcome {
    let url = service.url();
    let prober = Prober::new(&config(&[&["--url", &url], args].concat()));
    let start = Instant::now();
    let outcome = prober.once();
    let took = start.elapsed();
    assert!(took < TIMEOUT + NOISE, "{took:?} for {outcome:?}");
    assert!(
        !outcome.sentence.is_empty() && !outcome.sentence.contains('\n'),
        "{outcome:?}"
    );
    outcome
}

/// What a probe makes of a service that says `bytes` and closes.
fn answer(bytes: impl AsRef<[u8]>) -> Outcome {
    let service = Service::router(own_address());
    service.says(bytes);
    probe(&service, &[])
}

/// What a probe makes of a service that answers like this.
fn given(way: Way, args: &[&str]) -> Outcome {
    let service = Service::router(own_address());
    service.does(move |mut stream| way.give(&mut stream));
    probe(&service, args)
}

const DRIP: Duration = Duration::from_millis(20);

#[test]
fn only_the_expected_status_is_good() {
    assert_eq!(
        answer(READY),
        Outcome {
            result: ProbeResult::Ok,
            status: Some(200),
            sentence: "answered 200".to_string(),
        }
    );
    for status in [
        201, 202, 204, 301, 302, 304, 307, 308, 400, 401, 403, 404, 500, 503, 599, 999,
    ] {
        let outcome = answer(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
        assert_eq!(
            (outcome.result, outcome.status),
            (ProbeResult::Status, Some(status))
        );
        assert_eq!(outcome.sentence, format!("answered {status}, expected 200"));
    }
    let service = Service::router(own_address());
    for (status, good) in [
        (200, true),
        (203, false),
        (204, true),
        (299, false),
        (300, true),
        (399, true),
        (400, false),
    ] {
        service.says(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
        let outcome = probe(&service, &["--expect-status", "200,204,300-399"]);
        assert_eq!(outcome.is_good(), good, "{outcome:?}");
    }
}

#[test]
fn the_request_is_what_was_asked_for() {
    let service = Service::new((Ipv4Addr::LOCALHOST, 0));
    service.ready();
    let port = service.address.port();
    let url = format!("http://localhost:{port}/healthz/ready?verbose=1&x=%20y");
    let headers = [
        "--header",
        "X-Probe: l4",
        "--header",
        "Authorization: Bearer abc",
    ];
    let prober = Prober::new(&config(&[&["--url", &url], &headers[..]].concat()));
    assert!(prober.once().is_good());
    assert!(prober.once().is_good());
    let requests = service.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        service.connections(),
        2,
        "a kept connection stays with the old process"
    );
    assert_eq!(requests[0], requests[1]);
    let lines: Vec<_> = requests[0].trim_end().split("\r\n").collect();
    assert_eq!(lines[0], "GET /healthz/ready?verbose=1&x=%20y HTTP/1.1");
    let header = |name: &str| -> Vec<&str> {
        let fields = lines[1..]
            .iter()
            .map(|line| line.split_once(": ").expect("a header"));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    };
    assert_eq!(header("host"), [format!("localhost:{port}")]);
    assert_eq!(header("connection"), ["close"]);
    assert_eq!(
        header("user-agent"),
        [concat!("healthport/", env!("CARGO_PKG_VERSION"))]
    );
    assert_eq!(header("x-probe"), ["l4"]);
    assert_eq!(header("authorization"), ["Bearer abc"]);
    assert!(
        header("accept-encoding").is_empty(),
        "--expect-body reads plain text"
    );

    service.says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
    let replaced = [
        "--method",
        "HEAD",
        "--header",
        "Host: router.example",
        "--header",
        "User-Agent: switch",
    ];
    assert!(probe(&service, &replaced).is_good());
    let request = service.requests().pop().unwrap().to_lowercase();
    assert!(
        request.starts_with("head /healthz/ready http/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("host: router.example\r\n") && !request.contains("127.0.0.1"),
        "{request}"
    );
    assert!(
        request.contains("user-agent: switch\r\n") && !request.contains("healthport"),
        "{request}"
    );
}

#[test]
fn redirects_are_answers_and_never_followed() {
    let service = Service::router(own_address());
    let elsewhere = Service::new((own_address(), 8080));
    elsewhere.ready();
    for status in [301, 302, 303, 307, 308] {
        let location = elsewhere.url();
        service.says(format!(
            "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ));
        assert_eq!(probe(&service, &[]).result, ProbeResult::Status);
        // Half a redirect is half an answer, with or without its Location.
        service.says(format!(
            "HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n"
        ));
        assert_eq!(
            probe(&service, &["--expect-status", "300-399"]).result,
            ProbeResult::Protocol
        );
    }
    assert_eq!(elsewhere.connections(), 0);
}

/// A proxy from the environment must not make a dead service look ready, nor a ready one
/// dead.
#[test]
fn proxy_variables_are_ignored_both_ways() {
    let address = own_address();
    let proxy = Service::new((address, 3128));
    proxy.ready();
    let service = Service::router(address);
    service.ready();
    let dead = format!("http://{address}:1/healthz/ready");
    let once = |url: &str, proxy: &str| {
        let mut command = Command::new(BINARY);
        command.args(["--once", "--url", url]);
        for name in [
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
            "HTTPS_PROXY",
        ] {
            command.env(name, proxy);
        }
        finish(command.env_remove("NO_PROXY").env_remove("no_proxy"))
    };
    let (code, stdout, _) = once(&dead, &format!("http://{}", proxy.address));
    assert_eq!(code, Some(1), "{stdout}");
    assert_eq!(proxy.connections(), 0);
    let (code, stdout, _) = once(&service.url(), &format!("http://{address}:1"));
    assert_eq!(code, Some(0), "{stdout}");
}

#[test]
fn once_says_it_in_one_line() {
    let service = Service::router(own_address());
    let once = || finish(Command::new(BINARY).args(["--once", "-t1s", "--url", &service.url()]));
    let url = service.url();
    service.ready();
    assert_eq!(
        once(),
        (Some(0), format!("ok: {url} answered 200\n"), String::new())
    );
    service.not_ready();
    assert_eq!(
        once(),
        (
            Some(1),
            format!("status: {url} answered 500, expected 200\n"),
            String::new()
        )
    );
    service.hangs();
    assert_eq!(
        once(),
        (
            Some(1),
            format!("timeout: {url} no complete answer within 1s\n"),
            String::new()
        )
    );
}

#[test]
fn localhost_is_both_loopback_addresses() {
    let v4 = Service::new((Ipv4Addr::LOCALHOST, 0));
    let v6 = Service::new((Ipv6Addr::LOCALHOST, 0));
    for service in [&v4, &v6] {
        service.ready();
        for host in ["localhost", "LocalHost"] {
            let url = format!("http://{host}:{}/healthz/ready", service.address.port());
            let outcome = Prober::new(&config(&["--url", &url])).once();
            assert!(
                outcome.is_good(),
                "{url} at {}: {outcome:?}",
                service.address
            );
        }
    }
    let url = format!("http://[::1]:{}/", v6.address.port());
    assert!(Prober::new(&config(&["--url", &url])).once().is_good());
    // If nobody is there, it reports the error of the first address, not "Address family
    // not supported" for the last.
    let port = {
        let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        unused.local_addr().unwrap().port()
    };
    let outcome = Prober::new(&config(&["--url", &format!("http://localhost:{port}/")])).once();
    assert_eq!(outcome.result, ProbeResult::Connect);
    let expected = format!("cannot connect to 127.0.0.1:{port}: connection refused");
    assert!(outcome.sentence.starts_with(&expected), "{outcome:?}");
}

#[test]
fn silence_ends_at_the_timeout() {
    let service = Service::router(own_address());
    service.hangs();
    let outcome = probe(&service, &SHORT);
    assert_eq!(
        (outcome.result, outcome.status),
        (ProbeResult::Timeout, None)
    );
    assert_eq!(outcome.sentence, "no complete answer within 300ms");
    // Half a header, then silence.
    service.does(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le");
        drain(&mut stream);
    });
    assert_eq!(probe(&service, &SHORT).result, ProbeResult::Timeout);
}

/// A listener that does not accept drops SYNs once its backlog is full.
#[test]
fn a_full_backlog_ends_at_the_timeout() {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let address = std::net::SocketAddr::new(own_address(), 1936);
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &address).unwrap();
    listen(&listener, 0).unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
    }
    let url = format!("http://{address}/");
    let prober = Prober::new(&config(&[&SHORT[..], &["--url", &url]].concat()));
    let start = Instant::now();
    let outcome = prober.once();
    assert_eq!(
        (outcome.result, outcome.sentence.as_str()),
        (ProbeResult::Timeout, "no connection within 300ms")
    );
    assert!(start.elapsed() < TIMEOUT + NOISE);
}

/// 127.0.0.1 gets the whole timeout. While a service may be there, one on ::1 is another
/// service, and a single lost SYN costs a second.
#[test]
fn localhost_waits_for_the_first_address() {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let first = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(
        &first,
        &std::net::SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
    )
    .unwrap();
    listen(&first, 0).unwrap();
    let address: std::net::SocketAddr = getsockname(&first).unwrap().try_into().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
    }
    let port = address.port();
    let other = Service::new((Ipv6Addr::LOCALHOST, port));
    other.ready();
    let url = format!("http://localhost:{port}/");
    let outcome = Prober::new(&config(&[&SHORT[..], &["--url", &url]].concat())).once();
    assert_eq!(outcome.sentence, "no connection within 300ms");
    assert_eq!(other.connections(), 0);

    // The SYN is lost and sent again a second later, when there is room. That is too late
    // for half of the timeout, but in time for all of it.
    let listener = TcpListener::from(first);
    let served = thread::spawn(move || {
        thread::sleep(DRIP);
        for _ in 0..=held.len() {
            let (mut stream, _) = listener.accept().unwrap();
            thread::spawn(move || stream.write_all(READY.as_bytes()));
        }
        drop(held);
    });
    let outcome = Prober::new(&config(&["--url", &url, "--timeout", "1900ms"])).once();
    assert!(outcome.is_good(), "{outcome:?}");
    assert_eq!(other.connections(), 0);
    served.join().unwrap();
}

/// In its own network, with the service on ::1: the probe asks it if there is no way to
/// 127.0.0.1, but not if the system refuses that address for another reason.
#[test]
#[ignore = "needs unshare, ip and python3"]
fn localhost_goes_on_only_if_nobody_can_be_there() {
    let script = "
        ip link set lo up
        ip rule add pref 9 lookup local
        ip rule del pref 0
        python3 -m http.server --bind ::1 1936 >/dev/null 2>&1 &
        trap \"kill $!\" EXIT
        for i in $(seq 100); do
            \"$1\" --once --url 'http://[::1]:1936/' >/dev/null && break || sleep 0.1
        done
        for why in unreachable prohibit; do
            ip rule add pref 5 to 127.0.0.1 $why
            \"$1\" --once --url http://localhost:1936/ || true
            ip rule del pref 5
        done";
    let (code, stdout, stderr) = in_a_network_of_its_own(script);
    let wanted = "\
ok: http://localhost:1936/ answered 200
connect: http://localhost:1936/ cannot connect to 127.0.0.1:1936: permission denied
";
    assert_eq!((code, stdout.as_str()), (Some(0), wanted), "{stderr}");
}

/// Runs a shell script whose first argument is the program.
fn in_a_network_of_its_own(script: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--net", "sh", "-euc", script]);
    finish(command.args(["sh", BINARY]))
}

/// A service whose port is in the ephemeral range is down, and the kernel chooses that
/// port as the source of the probe: here it has no other.
#[test]
#[ignore = "needs unshare and ip"]
fn a_probe_that_meets_itself_leaves_nothing() {
    let script = "
        ip link set lo up
        echo 41000 41000 >/proc/sys/net/ipv4/ip_local_port_range
        for host in 127.0.0.1 '[::1]' localhost; do
            \"$1\" --once --url \"http://$host:41000/\" || true
        done
        cat /proc/net/tcp /proc/net/tcp6";
    let (code, stdout, stderr) = in_a_network_of_its_own(script);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let lines: Vec<_> = stdout.lines().collect();
    for (line, address) in lines.iter().zip(["127.0.0.1", "[::1]", "127.0.0.1"]) {
        let sentence = format!(
            "/ cannot connect to {address}:41000: connected to itself, nothing listens there"
        );
        assert!(
            line.starts_with("connect: ") && line.ends_with(&sentence),
            "{line}"
        );
    }
    // Only the heads of the two tables: no socket in TIME_WAIT or any other state.
    assert_eq!(lines.len(), 3 + 2, "{stdout}");
}

/// Single bytes would restart a timeout of each read, but not one of the whole exchange.
#[test]
fn drips_end_at_the_timeout() {
    let body = [&SHORT[..], &["--expect-body", "ready"]].concat();
    for head in [
        &b"HTTP/1.1 200 OK\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
    ] {
        let outcome = given(Way::Drip(head, b"x"), &body);
        assert_eq!(
            (outcome.result, outcome.status),
            (ProbeResult::Timeout, Some(200)),
            "{outcome:?}"
        );
    }
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        given(Way::Drip(chunked, b"1\r\nx\r\n"), &body).result,
        ProbeResult::Timeout
    );
}

/// The service sends as fast as it can. Size or time ends that, whichever comes first.
#[test]
fn floods_end() {
    let interim = given(Way::Flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), &[]).result;
    assert!(
        matches!(interim, ProbeResult::Protocol | ProbeResult::Timeout),
        "{interim}"
    );
    let body = ["--expect-body", "ready"];
    let flood = Way::Flood(b"HTTP/1.1 200 OK\r\n\r\n", b"xxxxxxxxxxxxxxxx");
    let outcome = given(flood, &body);
    assert_eq!(outcome.result, ProbeResult::Body, "{outcome:?}");
}

#[test]
fn an_interim_answer_is_not_the_answer() {
    assert!(!answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").is_good());
    // An answer that follows an interim one counts.
    assert!(answer(format!("HTTP/1.1 100 Continue\r\n\r\n{READY}")).is_good());
    assert!(
        answer(format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{READY}"
        ))
        .is_good()
    );
    assert!(!answer(format!("HTTP/1.1 100 Continue\r\n\r\n{NOT_READY}")).is_good());
}

/// The port follows the head; the connection ends when the service has written its answer.
#[test]
fn a_service_that_writes_on_sees_no_broken_pipe() {
    let address = own_address();
    let service = Service::router(address);
    let (whole, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&whole), Arc::clone(&broken));
    service.does(move |mut stream| {
        read_head(&mut stream);
        let written = [READY.as_bytes(), &[b'x'; 500], &[b'x'; 500], &[b'x'; 500]]
            .iter()
            .try_for_each(|part| {
                thread::sleep(Duration::from_millis(1));
                stream.write_all(part)
            });
        drain(&mut stream);
        let counter = if written.is_ok() {
            &counters.0
        } else {
            &counters.1
        };
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let healthport = Healthport::start(address, &service, &["--interval", "200ms"]);
    healthport.opens();
    eventually("20 answers", || whole.load(Ordering::SeqCst) >= 20);
    assert_eq!(broken.load(Ordering::SeqCst), 0);
}

#[test]
fn the_body_is_read_only_when_asked_for() {
    let service = Service::router(own_address());
    // The body never comes. Without --expect-body the head decides.
    service.does(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
        drain(&mut stream);
    });
    assert!(probe(&service, &[]).is_good());
    assert_eq!(
        probe(&service, &["--expect-body", "ok"]).result,
        ProbeResult::Timeout
    );
    // Once the text is found, the probe does not wait for the rest.
    service.does(|mut stream| {
        read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nall is ");
        thread::sleep(DRIP);
        let _ = stream.write_all(b"ready now");
        drain(&mut stream);
    });
    assert!(probe(&service, &["--expect-body", "is ready"]).is_good());
    // The right body does not make up for another status.
    service.says("HTTP/1.1 500 Error\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(
        probe(&service, &["--expect-body", "ok"]).result,
        ProbeResult::Status
    );
    service.says("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nnot yet\n");
    let outcome = probe(&service, &["--expect-body", "is \"ready\""]);
    assert_eq!(outcome.result, ProbeResult::Body);
    assert_eq!(
        outcome.sentence,
        r#"answered 200, but its body does not contain "is \"ready\"""#
    );
    service.says("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(
        probe(&service, &["--expect-body", "ok", "--expect-status", "204"]).result,
        ProbeResult::Body
    );
    service.says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nthis is no chunk");
    assert_eq!(
        probe(&service, &["--expect-body", "ok"]).result,
        ProbeResult::Protocol
    );
    service.says("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nshort");
    assert_eq!(
        probe(&service, &["--expect-body", "ok"]).result,
        ProbeResult::Protocol
    );
}

#[test]
fn the_text_must_be_in_the_first_10_kib() {
    let service = Service::router(own_address());
    let body = |before: usize| {
        let body = "x".repeat(before) + "ready";
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (before, good) in [
        (0, true),
        (1021, true),
        (10_235, true),
        (10_236, false),
        (20_000, false),
    ] {
        service.says(body(before));
        assert_eq!(
            probe(&service, &["--expect-body", "ready"]).is_good(),
            good,
            "at {before}"
        );
    }
}

/// An answer from before the process was stopped, or the machine slept, is no longer
/// true: no read has timed out, but the time is over.
#[test]
fn an_answer_that_waited_too_long_does_not_count() {
    use rustix::process::{Signal, kill_process};
    let address = own_address();
    let service = Service::router(address);
    let (asked, waiting) = (
        std::sync::Arc::new(AtomicUsize::new(0)),
        Duration::from_millis(600),
    );
    let counter = std::sync::Arc::clone(&asked);
    service.does(move |mut stream| {
        read_head(&mut stream);
        counter.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(200));
        let _ = stream.write_all(READY.as_bytes());
        drain(&mut stream);
    });
    let mut command = Command::new(BINARY);
    command.args(["--once", "--url", &service.url(), "--timeout", "600ms"]);
    let child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    eventually("a request", || asked.load(Ordering::SeqCst) == 1);
    let pid = rustix::process::Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    thread::sleep(waiting * 2); // the answer comes, the time expires
    kill_process(pid, Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.starts_with("timeout: "), "{line}");
    assert_eq!(output.status.code(), Some(1));
}
