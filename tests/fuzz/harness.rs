//! What must hold whatever bytes come from outside. Each function takes any bytes and
//! panics if something does not hold. It returns whether the program accepts the bytes:
//! as a command line, as values, as a request, as a good answer.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use healthport::config::Config;
use healthport::dial;
use healthport::options::parse;
use healthport::probe::Prober;
use healthport::report::Reporter;
use healthport::responder::{Reply, reply_to};
use regex_lite::Regex;

/// Arguments, separated by NUL as in /proc/PID/cmdline.
pub fn command_line(bytes: &[u8]) -> bool {
    let args = bytes.split(|&byte| byte == 0);
    let config = match parse(args.map(|arg| OsString::from_vec(arg.to_vec()))) {
        Ok((_, config)) => config,
        Err(line) => {
            assert!(!line.contains(char::is_control), "not one line: {line:?}");
            return false;
        }
    };
    let ms = Duration::from_millis;
    assert!((ms(10)..=ms(3_600_000)).contains(&config.interval));
    assert!((ms(10)..=config.interval).contains(&config.fast_interval()));
    assert!((ms(1)..=ms(60_000)).contains(&config.timeout));
    assert!((1..=100).contains(&config.rise) && (1..=100).contains(&config.fall));
    assert!((ms(2_000)..=ms(14_400_000)).contains(&config.max_age));
    assert!((1..=16).contains(&config.listen.len()));
    let ports = config.listen.iter().chain(&config.metrics_listen);
    assert!(ports.into_iter().all(|address| address.port() > 0));
    assert_eq!(config.url.scheme_str(), Some("http"));
    assert!(config.url.host().is_some_and(|host| !host.is_empty()));
    assert!(dial::addresses(&config.url).is_some(), "{}", config.url);
    assert!(config.drain_file.iter().all(|path| path.is_absolute()));
    assert_ne!(config.expect_body.as_deref(), Some(""));
    // "What it returns can be used without another check."
    let _ = (Prober::new(&config), Reporter::new(&config).start(&[]));
    assert!(config.to_string().contains("worst-case times"));
    true
}

/// One value for every option that takes a duration or a list of codes.
pub fn values(bytes: &[u8]) -> bool {
    let with = |option: &str| -> Option<Config> {
        let value = [b"--", option.as_bytes(), b"=", bytes].concat();
        // A fast interval may be as long as the interval.
        let args = [OsString::from("--interval=60m"), OsString::from_vec(value)];
        parse(args).ok().map(|(_, config)| config)
    };
    let text = std::str::from_utf8(bytes).ok();
    let meant = text.and_then(seconds);
    // Rounding the last digits of a fraction may cross a limit.
    let is_near = |a: f64, b: f64| (a - b).abs() <= 2e-9 + b * 1e-12;
    let mut accepted = false;
    type Field = fn(&Config) -> Duration;
    let times: [(&str, f64, f64, Field); 4] = [
        ("interval", 0.01, 3600.0, |config| config.interval),
        ("fast-interval", 0.01, 3600.0, Config::fast_interval),
        ("timeout", 0.001, 60.0, |config| config.timeout),
        ("max-age", 2.0, 14_400.0, |config| config.max_age),
    ];
    for (option, least, most, field) in times {
        let got = with(option).map(|config| field(&config).as_secs_f64());
        accepted |= got.is_some();
        let is_right = match (meant, got) {
            (Some(meant), _) if is_near(meant, least) || is_near(meant, most) => true,
            (Some(meant), Some(got)) => is_near(got, meant) && (least..=most).contains(&got),
            (Some(meant), None) => !(least..=most).contains(&meant),
            (None, got) => got.is_none(),
        };
        assert!(is_right, "--{option} {text:?} is {got:?} s");
    }

    let list = with("expect-status");
    let meant = text.and_then(codes);
    for code in 0..=1000 {
        let contains = list.as_ref().map(|list| list.expect_status.contains(code));
        let expected = meant.as_ref().map(|codes| codes.contains(&code));
        assert_eq!(contains, expected, "{code} in {text:?}");
    }
    accepted || list.is_some()
}

/// Digits, perhaps a point and up to nine more, and a unit.
fn seconds(text: &str) -> Option<f64> {
    let parts = regex(r"^([0-9]+(?:\.[0-9]{1,9})?)(ms|s|m)$").captures(text)?;
    let unit = match &parts[2] {
        "ms" => 1e-3,
        "s" => 1.0,
        _ => 60.0,
    };
    Some(parts[1].parse::<f64>().ok()? * unit)
}

fn codes(list: &str) -> Option<Vec<u16>> {
    let item = regex(r"^([2-5][0-9]{2})(?:-([2-5][0-9]{2}))?$");
    let range = |text| {
        let parts = item.captures(text)?;
        let first: u16 = parts[1].parse().ok()?;
        let last = parts
            .get(2)
            .map_or(Some(first), |last| last.as_str().parse().ok())?;
        (first <= last).then_some(first..=last)
    };
    let ranges: Option<Vec<_>> = list.split(',').map(range).collect();
    Some(ranges?.into_iter().flatten().collect())
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a pattern")
}

/// What a client of --metrics-listen sends.
pub fn request(bytes: &[u8]) -> bool {
    let reply = reply_to(bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let length = end.map_or(bytes.len(), |end| end + 4);
    match reply {
        None => assert!(end.is_none() && length <= 8192, "waits for more"),
        Some(Reply::BadRequest) => {}
        Some(_) => assert!(end.is_some() && length <= 8192),
    }
    let path = match reply {
        Some(Reply::Metrics) => "/metrics",
        Some(Reply::Livez) => "/livez",
        Some(Reply::Readyz) => "/readyz",
        _ => return false,
    };
    let line = bytes.split(|&byte| byte == b' ').collect::<Vec<_>>();
    assert!(matches!(line[0], b"GET" | b"HEAD"));
    let target = line[1].split(|&byte| byte == b'?').next().expect("a path");
    assert!(target.ends_with(path.as_bytes()));
    // No prefix of it is refused, however it is cut into packets.
    for length in (0..length).rev().take(100) {
        assert_eq!(reply_to(&bytes[..length]), None);
    }
    true
}

const TIMEOUT: Duration = Duration::from_secs(5);

/// The answer of a service, which then closes the connection.
pub fn answer(bytes: &[u8]) -> bool {
    static SERVICE: LazyLock<Mutex<Service>> = LazyLock::new(|| Mutex::new(Service::start()));
    let service = SERVICE.lock().unwrap_or_else(PoisonError::into_inner);
    let ask = |prober: &Prober| {
        let _ = service.answers.send(bytes.to_vec());
        let start = Instant::now();
        let outcome = prober.once();
        let took = start.elapsed();
        assert!(took < 2 * TIMEOUT, "{took:?} for {outcome:?}");
        assert!(!outcome.sentence.contains(char::is_control), "{outcome:?}");
        outcome.is_good()
    };
    let (is_good, is_good_with_body) = (ask(&service.plain), ask(&service.with_body));
    let shown = String::from_utf8_lossy(bytes);
    if is_good {
        assert!(is_ready(bytes), "good, but no ready answer: {shown:?}");
    }
    assert!(is_good || !is_good_with_body, "{shown:?}");
    is_good
}

/// A service on loopback that gives each connection the next answer.
struct Service {
    answers: SyncSender<Vec<u8>>,
    plain: Prober,
    with_body: Prober,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let port = listener.local_addr().expect("its number").port();
        let url = format!("http://127.0.0.1:{port}/healthz/ready");
        let config = Config {
            url: url.parse().expect("a URL"),
            timeout: TIMEOUT,
            expect_status: "200,204,300-399".parse().expect("a list"),
            ..Config::default()
        };
        let with_body = Config {
            expect_body: Some("ready".to_string()),
            ..config.clone()
        };
        let (answers, next) = sync_channel(1);
        thread::spawn(move || {
            for (stream, answer) in listener.incoming().zip(next) {
                serve(stream.expect("a connection"), answer);
            }
        });
        Service {
            answers,
            plain: Prober::new(&config),
            with_body: Prober::new(&with_body),
        }
    }
}

fn serve(mut stream: TcpStream, answer: Vec<u8>) {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    // Read the whole request: unread bytes would reset the connection.
    while !head.ends_with(b"\r\n\r\n") {
        let length = stream.read(&mut chunk).expect("a request");
        assert!(length > 0, "half a request");
        head.extend_from_slice(&chunk[..length]);
    }
    // An error means that the prober has seen enough.
    let _ = stream.write_all(&answer);
}

/// Whether the bytes begin with a complete HTTP/1 head with an expected status. Interim
/// answers (1xx), whose headers nobody reads, and empty lines may come before it, a line may
/// end without CR (RFC 9112, 2.2), and what curl and HAProxy both take may be there: folded
/// headers, several blanks before the code, a version of 2.
fn is_ready(bytes: &[u8]) -> bool {
    static READY: LazyLock<Regex> = LazyLock::new(|| {
        regex(
            r"(?x)
            ^(?: (?:\r?\n)* HTTP/[12]\.[01][\ \t]+1[0-9]{2} (?:\ [^\n]*)? \r?\n
                (?:[^\n]*[^\r\n][^\n]*\n)* \r?\n )*
            (?:\r?\n)* HTTP/[12]\.[01][\ \t]+(?:200|204|3[0-9]{2}) (?:\ [^\n]*)? \r?\n
                (?: [^:\n]+:[^\n]*\n (?:[\ \t][^\n]*\n)* )* \r?\n",
        )
    });
    READY.is_match(
        &bytes
            .iter()
            .map(|&byte| char::from(byte))
            .collect::<String>(),
    )
}
