//! What a probe makes of a service beyond the zoo: each gives an Outcome within the timeout,
//! and none a panic.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::zoo::Way;
use crate::common::{
    BINARY, READY, Service, drain, eventually, finish, opened, own_address, read_head,
};
use healthport::options;
use healthport::probe::{Outcome, ProbeResult, Prober};
use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
use rustix::process::{Pid, Signal, kill_process};

fn prober(url: &str, args: &[&str]) -> Prober {
    let args = [&["--timeout=2s", "--url", url], args].concat();
    let (_, config) = options::parse(args.iter().map(Into::into)).expect("a right command line");
    Prober::new(&config)
}

/// Probes a URL once. The limit is generous: what it catches is an exchange without end.
fn ask(url: &str, args: &[&str]) -> Outcome {
    let (prober, start) = (prober(url, args), Instant::now());
    let outcome = prober.once();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(7), "{took:?} for {outcome:?}");
    let sentence = &outcome.sentence;
    assert!(
        !sentence.is_empty() && !sentence.contains('\n'),
        "{sentence:?}"
    );
    outcome
}

fn probe(service: &Service, args: &[&str]) -> Outcome {
    ask(&service.url(), args)
}

/// What a probe makes of a service that answers like this.
fn given(way: Way, args: &[&str]) -> Outcome {
    let service = Service::router(own_address());
    service.does(move |mut stream| way.give(&mut stream));
    probe(&service, args)
}

#[test]
fn only_the_expected_status_is_good() {
    let service = Service::router(own_address());
    for (list, good, bad) in [
        ("200", &[200][..], &[201, 204, 302, 400, 500, 503, 999][..]),
        ("200,204,300-399", &[200, 204, 300, 399], &[203, 299, 400]),
    ] {
        for &status in good.iter().chain(bad) {
            service.says(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
            let (result, sentence) = match good.contains(&status) {
                true => (ProbeResult::Ok, format!("answered {status}")),
                false => (
                    ProbeResult::Status,
                    format!("answered {status}, expected {list}"),
                ),
            };
            let expected = Outcome {
                result,
                status: Some(status),
                sentence,
            };
            assert_eq!(probe(&service, &["--expect-status", list]), expected);
        }
    }
}

#[test]
fn the_request_is_what_was_asked_for() {
    let service = Service::new((Ipv4Addr::LOCALHOST, 0));
    service.ready();
    let port = service.address.port();
    let url = format!("http://localhost:{port}/healthz/ready?verbose=1&x=%20y");
    let headers = ["--header=X-Probe: l4", "--header=Authorization: Bearer abc"];
    let prober = prober(&url, &headers);
    assert!(prober.once().is_good());
    assert!(prober.once().is_good());
    let requests = service.requests();
    assert_eq!(requests.len(), 2);
    // A kept connection would stay with the old process.
    assert_eq!(service.connections(), 2);
    assert_eq!(requests[0], requests[1]);
    let (line, fields) = requests[0].split_once("\r\n").unwrap();
    assert_eq!(line, "GET /healthz/ready?verbose=1&x=%20y HTTP/1.1");
    let fields = fields.trim_end().to_lowercase();
    let mut fields: Vec<_> = fields.split("\r\n").collect();
    fields.sort();
    // Not accept-encoding: --expect-body reads plain text.
    let expected = [
        "accept: */*",
        "authorization: bearer abc",
        "connection: close",
        &format!("host: localhost:{port}"),
        concat!("user-agent: healthport/", env!("CARGO_PKG_VERSION")),
        "x-probe: l4",
    ];
    assert_eq!(fields, expected);

    service.says("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
    let replaced = [
        "--method=HEAD",
        "--header=Host: router.example",
        "--header=User-Agent: switch",
    ];
    assert!(probe(&service, &replaced).is_good());
    let request = service.requests().pop().unwrap().to_lowercase();
    assert!(request.starts_with("head /healthz/ready http/1.1\r\n"));
    for (name, value) in [("host", "router.example"), ("user-agent", "switch")] {
        assert!(request.contains(&format!("\r\n{name}: {value}\r\n")));
        assert_eq!(request.matches(&format!("\r\n{name}: ")).count(), 1);
    }
}

#[test]
fn redirects_are_answers_and_never_followed() {
    let (service, elsewhere) = (Service::router(own_address()), Service::start());
    for status in [301, 302, 303, 307, 308] {
        let url = elsewhere.url();
        let half = format!("HTTP/1.1 {status} Moved\r\nLocation: {url}\r\n");
        service.says(format!("{half}Content-Length: 0\r\n\r\n"));
        assert_eq!(probe(&service, &[]).result, ProbeResult::Status);
        // Half a redirect is half an answer, also with its Location.
        service.says(half);
        let outcome = probe(&service, &["--expect-status", "300-399"]);
        assert_eq!(outcome.result, ProbeResult::Protocol);
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
        let names = "HTTP_PROXY http_proxy ALL_PROXY all_proxy HTTPS_PROXY";
        for name in names.split(' ') {
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
fn localhost_is_both_loopback_addresses() {
    let v4 = Service::new((Ipv4Addr::LOCALHOST, 0));
    let v6 = Service::new((Ipv6Addr::LOCALHOST, 0));
    for (service, hosts) in [
        (&v4, &["localhost", "LocalHost"][..]),
        (&v6, &["localhost", "LocalHost", "[::1]"]),
    ] {
        service.ready();
        for host in hosts {
            let url = format!("http://{host}:{}/healthz/ready", service.address.port());
            let outcome = ask(&url, &[]);
            assert!(outcome.is_good(), "{url}: {outcome:?}");
        }
    }
    // If nobody is there, it reports the error of the first address, not "Address family
    // not supported" for the last.
    let unused = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = unused.local_addr().unwrap().port();
    drop(unused);
    let outcome = ask(&format!("http://localhost:{port}/"), &[]);
    assert_eq!(outcome.result, ProbeResult::Connect);
    let expected = format!("cannot connect to 127.0.0.1:{port}: connection refused");
    assert!(outcome.sentence.starts_with(&expected), "{outcome:?}");
}

/// A listener whose backlog is full, so that it drops SYNs, and what fills it.
fn full_backlog(address: IpAddr) -> (OwnedFd, SocketAddr, Vec<TcpStream>) {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddr::new(address, 0)).unwrap();
    listen(&listener, 0).unwrap();
    let address = getsockname(&listener).unwrap().try_into().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
    }
    (listener, address, held)
}

/// 127.0.0.1 gets the whole timeout. While a service may be there, one on ::1 is another
/// service, and a single lost SYN costs a second.
#[test]
fn localhost_waits_for_the_first_address() {
    let (first, address, held) = full_backlog(Ipv4Addr::LOCALHOST.into());
    let port = address.port();
    let other = Service::new((Ipv6Addr::LOCALHOST, port));
    other.ready();
    let url = format!("http://localhost:{port}/");
    let outcome = ask(&url, &["--timeout", "300ms"]);
    assert_eq!(outcome.result, ProbeResult::Timeout);
    assert_eq!(outcome.sentence, "no connection within 300ms");
    assert_eq!(other.connections(), 0);

    // The SYN is lost and sent again a second later, when there is room. That is too late
    // for half of the timeout, but in time for all of it.
    let listener = TcpListener::from(first);
    let served = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        for _ in 0..=held.len() {
            let (mut stream, _) = listener.accept().unwrap();
            thread::spawn(move || stream.write_all(READY.as_bytes()));
        }
        drop(held);
    });
    let outcome = ask(&url, &["--timeout", "1900ms"]);
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

#[test]
fn the_body_is_read_only_when_asked_for() {
    use ProbeResult::{Body, Ok, Protocol, Status, Timeout};
    use Way::{Drip, Flood, Hang, Say, Slowly};
    let head = b"HTTP/1.1 200 OK\r\n\r\n";
    let long = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n";
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The body never comes: without --expect-body the head decides.
    assert!(given(Hang(long), &[]).is_good());
    for (way, result) in [
        (Hang(long), Timeout),
        // Single bytes would restart a timeout of each read, but not one of the exchange.
        (Drip(head, b"x"), Timeout),
        (Drip(long, b"x"), Timeout),
        (Drip(chunked, b"1\r\nx\r\n"), Timeout),
        // As fast as the service can, until 10 KiB are there.
        (Flood(head, b"xxxxxxxxxxxxxxxx"), Body),
        // Once the text is found, the probe does not wait for the rest.
        (
            Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nis ok"),
            Ok,
        ),
        (
            Slowly(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok\r\n"),
            Ok,
        ),
        (Say(b"HTTP/1.1 204 No Content\r\n\r\n"), Body),
        (
            Say(b"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nshort"),
            Protocol,
        ),
        // The right body does not make up for another status.
        (
            Say(b"HTTP/1.1 500 Error\r\nContent-Length: 2\r\n\r\nok"),
            Status,
        ),
    ] {
        let timeout = if result == Timeout { "-t300ms" } else { "-t2s" };
        let args = [timeout, "--expect-body=ok", "--expect-status=200,204"];
        let outcome = given(way, &args);
        assert_eq!(outcome.result, result, "{way:?}: {outcome:?}");
        assert!(
            outcome.status == Some(200) || result != Timeout,
            "{outcome:?}"
        );
    }
    for (body, sentence) in [
        ("2\r\nno", "closed the connection without a complete answer"),
        (
            "no\r\n",
            "an answer with a body that breaks the rules: chunk length cannot be read as a number",
        ),
    ] {
        let service = Service::router(own_address());
        service.says(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        assert_eq!(probe(&service, &["--expect-body=ok"]).sentence, sentence);
    }
    let outcome = given(Say(READY.as_bytes()), &["--expect-body", "is \"ready\""]);
    let sentence = r#"answered 200, but its body does not contain "is \"ready\"""#;
    assert_eq!(outcome.sentence, sentence);
    // Its size ends what never becomes an answer.
    for endless in [
        Flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        Flood(chunked, b"the length of a chunk"),
    ] {
        let outcome = given(endless, &["-t20s", "--expect-body=ok"]);
        assert_eq!(outcome.result, Protocol, "{outcome:?}");
    }
}

/// The port follows the head; the connection ends when the service has written its answer.
#[test]
fn a_service_that_writes_on_sees_no_broken_pipe() {
    let (service, healthport) = opened(&["--interval", "60m"]);
    let counters: Arc<[AtomicUsize; 2]> = Arc::default();
    let count = Arc::clone(&counters);
    service.does(move |mut stream| {
        read_head(&mut stream);
        // Long and short in turns.
        let is_long = count[0].load(Ordering::SeqCst) % 2 == 0;
        let part = vec![b'x'; if is_long { 3000 } else { 10 }];
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            3 * part.len()
        );
        let broken = [head.as_bytes(), &part, &part, &part].iter().any(|part| {
            thread::sleep(Duration::from_millis(1));
            stream.write_all(part).is_err()
        });
        drain(&mut stream);
        count[usize::from(broken)].fetch_add(1, Ordering::SeqCst);
    });
    let [whole, broken] = &*counters;
    for number in 1..=20 {
        healthport.signal(Signal::USR1);
        eventually("the end of a connection, not of an hour", || {
            whole.load(Ordering::SeqCst) == number
        });
    }
    assert_eq!(broken.load(Ordering::SeqCst), 0);
}

#[test]
fn the_text_must_be_in_the_first_10_kib() {
    let service = Service::router(own_address());
    for before in [0, 1021, 10_235, 10_236, 20_000] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", before + 5);
        service.says(head + &"x".repeat(before) + "ready");
        let outcome = probe(&service, &["--expect-body", "ready"]);
        assert_eq!(outcome.is_good(), before <= 10_235, "at {before}");
    }
    // Also in chunks of one byte.
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = "1\r\nx\r\n".repeat(10_235);
    service.says(format!("{head}{chunks}5\r\nready\r\n0\r\n\r\n"));
    assert!(probe(&service, &["--expect-body", "ready"]).is_good());
}

/// An answer from before the process was stopped, or the machine slept, is no longer
/// true: no read has timed out, but the time is over.
#[test]
fn an_answer_that_waited_too_long_does_not_count() {
    let service = Service::router(own_address());
    service.answers(|_| {
        thread::sleep(Duration::from_millis(200));
        READY
    });
    let mut command = Command::new(BINARY);
    command.args(["--once", "--url", &service.url(), "--timeout", "600ms"]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    eventually("a request", || service.requests().len() == 1);
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::STOP).unwrap();
    // The answer comes, and the time expires.
    thread::sleep(Duration::from_millis(1200));
    kill_process(pid, Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(line.starts_with("timeout: "), "{line}");
    assert_eq!(output.status.code(), Some(1));
}
