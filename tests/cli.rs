//! The command line against the real binary: every wrong value of every option,
//! and what the right ones resolve to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use common::run;

const URL: &str = "a URL like http://HOST[:PORT]/PATH";
const ADDRESS: &str = "an IP address and a port";
const NAME: &str = "names are not looked up, its host is an IP address or localhost, \
                    and --header 'Host: NAME' sends a name";
const DURATION: &str = "a number with its unit (ms, s or m)";
const COUNT: &str = "a whole number from 1 to 100";
const STATUS: &str = "codes and ranges from 200 to 599";
const HEADER: &str = "'NAME: VALUE' on one line";
const LEVEL: &str = "error, warn, info, debug or trace";

/// The option, a value that it must refuse, and what it says is allowed.
const WRONG: &[(&str, &str, &str)] = &[
    ("--url", "", URL),
    (
        "--url",
        "https://localhost:6443/readyz",
        "plain HTTP, no TLS",
    ),
    ("--url", "localhost:1936", URL),
    ("--url", "/healthz/ready", URL),
    ("--url", "http://", URL),
    ("--url", "http:///healthz", URL),
    ("--url", "http://:1936/", URL),
    ("--url", "ftp://localhost/", URL),
    ("--url", "http://localhost:0/", URL),
    ("--url", "http://localhost:65536/", URL),
    ("--url", "http://localhost:99999/", URL),
    ("--url", "http://localhost:/", URL),
    ("--url", "http://localhost:x/", URL),
    ("--url", "http://[::1/", URL),
    ("--url", "http://user@localhost/", URL),
    ("--url", "http://user:secret@localhost/", URL),
    ("--url", "http://localhost/#ready", URL),
    ("--url", "http://local host/", URL),
    ("--url", "http://localhost/\n", URL),
    ("--url", "http://router.example/healthz/ready", NAME),
    ("--url", "http://router.example:1936/", NAME),
    ("--url", "http://localhost./", NAME),
    ("--url", "http://localhost.localdomain/", NAME),
    // What getaddrinfo would take for an address.
    ("--url", "http://127.1/", NAME),
    ("--url", "http://2130706433/", NAME),
    ("--url", "http://0x7f.0.0.1/", NAME),
    ("--url", "http://127.0.0.01/", NAME),
    ("--url", "http://[127.0.0.1]/", NAME),
    ("--url", "http://[fe80::1%2]/", NAME),
    ("--listen", "", ADDRESS),
    ("--listen", "18898", ADDRESS),
    ("--listen", ":18898", ADDRESS),
    ("--listen", "0.0.0.0", ADDRESS),
    ("--listen", "0.0.0.0:", ADDRESS),
    ("--listen", "0.0.0.0:0", ADDRESS),
    ("--listen", "0.0.0.0:65536", ADDRESS),
    ("--listen", "localhost:18898", ADDRESS),
    ("--listen", "::18898", ADDRESS),
    ("--listen", "*:18898", ADDRESS),
    ("--listen", "256.0.0.1:18898", ADDRESS),
    ("--listen", "[fe80::1%eth0]:18898", ADDRESS),
    ("--listen", "224.0.0.1:18898", "not multicast or broadcast"),
    ("--listen", "239.255.255.255:18898", "not multicast"),
    (
        "--listen",
        "255.255.255.255:18898",
        "not multicast or broadcast",
    ),
    ("--listen", "[ff02::1]:18898", "not multicast"),
    ("--listen", "[::ffff:224.0.0.1]:18898", "not multicast"),
    ("--interval", "", DURATION),
    ("--interval", "1", DURATION),
    ("--interval", "s", DURATION),
    ("--interval", "-1s", DURATION),
    ("--interval", "+1s", DURATION),
    ("--interval", "1 s", DURATION),
    ("--interval", "1e3s", DURATION),
    ("--interval", "1..5s", DURATION),
    ("--interval", ".5s", DURATION),
    ("--interval", "1.s", DURATION),
    ("--interval", "1.0000000000s", DURATION),
    ("--interval", "1h", DURATION),
    ("--interval", "1S", DURATION),
    ("--interval", "infs", DURATION),
    ("--interval", "0s", "from 10ms to 60m"),
    ("--interval", "9ms", "from 10ms to 60m"),
    ("--interval", "9.999ms", "from 10ms to 60m"),
    ("--interval", "60.1m", "from 10ms to 60m"),
    ("--interval", "99999999999999999999999m", "from 10ms to 60m"),
    ("--fast-interval", "", DURATION),
    ("--fast-interval", "1", DURATION),
    ("--fast-interval", "9ms", "from 10ms to 60m"),
    ("--fast-interval", "61m", "from 10ms to 60m"),
    ("--timeout", "", DURATION),
    ("--timeout", "500", DURATION),
    ("--timeout", "0ms", "from 1ms to 1m"),
    ("--timeout", "0.5ms", "from 1ms to 1m"),
    ("--timeout", "61s", "from 1ms to 1m"),
    ("--rise", "", COUNT),
    ("--rise", "0", COUNT),
    ("--rise", "101", COUNT),
    ("--rise", "-1", COUNT),
    ("--rise", "+1", COUNT),
    ("--rise", "1.0", COUNT),
    ("--rise", "two", COUNT),
    ("--fall", "", COUNT),
    ("--fall", "0", COUNT),
    ("--fall", "101", COUNT),
    ("--fall", "99999999999", COUNT),
    ("--expect-status", "", STATUS),
    ("--expect-status", "ok", STATUS),
    ("--expect-status", "20", STATUS),
    ("--expect-status", "0200", STATUS),
    ("--expect-status", "+200", STATUS),
    ("--expect-status", "100", STATUS),
    ("--expect-status", "600", STATUS),
    ("--expect-status", "200,", STATUS),
    ("--expect-status", "200, 204", STATUS),
    ("--expect-status", "299-200", STATUS),
    ("--expect-status", "200-", STATUS),
    ("--expect-status", "200-299-399", STATUS),
    ("--expect-body", "", "a text that is not empty"),
    ("--method", "", "GET or HEAD"),
    ("--method", "get", "GET or HEAD"),
    ("--method", "POST", "GET or HEAD"),
    ("--header", "", HEADER),
    ("--header", "X-Probe", HEADER),
    ("--header", ": value", HEADER),
    ("--header", "X-Probe:", HEADER),
    ("--header", "X-Probe: ", HEADER),
    ("--header", "X Probe: 1", HEADER),
    ("--header", "X-Probe: 1\nX-Other: 2", HEADER),
    ("--header", "X-Probe: 1\r\nX-Other: 2", HEADER),
    ("--header", "X-Probe\n: 1", HEADER),
    ("--header", "X-Probe: \u{7}", HEADER),
    ("--drain-file", "", "an absolute path"),
    ("--drain-file", "router.drain", "an absolute path"),
    ("--drain-file", "./router.drain", "an absolute path"),
    ("--drain-file", "../etc/router.drain", "an absolute path"),
    ("--max-age", "", DURATION),
    ("--max-age", "4", DURATION),
    ("--max-age", "241m", "from interval + timeout to 240m"),
    ("--metrics-listen", "", ADDRESS),
    ("--metrics-listen", "9100", ADDRESS),
    ("--metrics-listen", "0.0.0.0:0", ADDRESS),
    ("--metrics-listen", "224.0.0.1:9100", "not multicast"),
    ("--log-level", "", LEVEL),
    ("--log-level", "off", LEVEL),
    ("--log-level", "INFO", LEVEL),
    ("--log-level", "3", LEVEL),
];

/// Exit 64, nothing on stdout, one line with every one of `parts`, the hint.
fn is_usage_error<S: AsRef<OsStr> + std::fmt::Debug>(args: &[S], parts: &[&str]) {
    let (code, stdout, stderr) = run(args);
    assert_eq!(code, Some(64), "{args:?}: {stderr}");
    assert_eq!(stdout, "", "{args:?}");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{args:?}: {stderr}");
    assert!(lines[0].starts_with("healthport: "), "{args:?}: {stderr}");
    for part in parts {
        assert!(
            lines[0].contains(part),
            "{args:?} does not name {part:?}: {stderr}"
        );
    }
    assert_eq!(lines[1], "Try 'healthport --help'", "{args:?}");
}

#[test]
fn every_wrong_value_is_named() {
    for (option, value, allowed) in WRONG {
        let value_shown = format!("{value:?}");
        let parts = [*option, &value_shown, allowed];
        is_usage_error(&[option, value], &parts);
        is_usage_error(&[format!("{option}={value}")], &parts);
    }
}

#[test]
fn every_option_with_a_value_is_in_the_table() {
    let (_, help, _) = run(&["--help"]);
    let with_value = help.lines().filter_map(|line| {
        let line = line.get(6..)?.strip_prefix("--")?;
        let (name, rest) = line.split_once(' ')?;
        rest.starts_with(|c: char| c.is_ascii_uppercase() || c == '\'')
            .then(|| format!("--{name}"))
    });
    let with_value: Vec<_> = with_value.collect();
    assert_eq!(with_value.len(), 15, "{with_value:?}");
    for option in with_value {
        assert!(
            WRONG.iter().any(|(wrong, ..)| *wrong == option),
            "{option}: no wrong value is tried"
        );
        is_usage_error(&[&option], &[&option, "needs a value"]);
    }
}

#[test]
fn short_forms_are_the_same_options() {
    for (short, long) in [
        ("-u", "--url"),
        ("-l", "--listen"),
        ("-i", "--interval"),
        ("-t", "--timeout"),
    ] {
        is_usage_error(&[short, "wrong"], &[long, "\"wrong\"", "it takes"]);
        is_usage_error(&[short], &[long, "needs a value"]);
    }
}

#[test]
fn what_is_not_an_option_is_an_error() {
    for flag in ["--help", "--version", "--once", "--check-config"] {
        is_usage_error(&[format!("{flag}=x")], &[flag, "\"x\"", "no value"]);
        is_usage_error(&[format!("{flag}=")], &[flag, "\"\"", "no value"]);
    }
    is_usage_error(&["--frobnicate"], &["unknown option '--frobnicate'"]);
    is_usage_error(&["--frobnicate=1"], &["unknown option '--frobnicate'"]);
    is_usage_error(&["--inter\nval", "1s"], &["unknown option '--inter\\nval'"]);
    is_usage_error(&["-x"], &["unknown option '-x'"]);
    is_usage_error(&["-\n"], &["unknown option '-\\n'"]);
    is_usage_error(&["start"], &["unexpected argument \"start\""]);
    is_usage_error(&["-"], &["unexpected argument \"-\""]);
    is_usage_error(&["--", "--once"], &["unexpected argument \"--once\""]);
    is_usage_error(&[""], &["unexpected argument \"\""]);
    // Help does not hide an error elsewhere on the line.
    is_usage_error(&["--help", "--rise", "0"], &["--rise", "\"0\""]);
    is_usage_error(&["--rise", "0", "--help"], &["--rise", "\"0\""]);
}

#[test]
fn values_that_are_not_utf8_are_errors() {
    let broken = OsStr::from_bytes(b"a\xffb");
    for (option, ..) in WRONG {
        is_usage_error(
            &[OsStr::new(option), broken],
            &[option, "\"a\\xFFb\"", "it takes"],
        );
    }
    is_usage_error(&[broken], &["unexpected argument \"a\\xFFb\""]);
    is_usage_error(&[OsStr::from_bytes(b"--ur\xff")], &["unknown option"]);
    is_usage_error(&[OsStr::from_bytes(b"-\xff")], &["unknown option"]);
}

#[test]
fn options_that_do_not_go_together() {
    for (options, first, second) in [
        (["--listen", "--listen"], "0.0.0.0:1", "0.0.0.0:1"),
        (["--listen", "--listen"], "0.0.0.0:1", "127.0.0.1:1"),
        (["--listen", "--listen"], "0.0.0.0:1", "[::]:1"),
        (
            ["--listen", "--listen"],
            "127.0.0.1:1",
            "[::ffff:127.0.0.1]:1",
        ),
        (["--listen", "--metrics-listen"], "127.0.0.1:1", "0.0.0.0:1"),
        (["--listen", "--metrics-listen"], "[::]:1", "127.0.0.1:1"),
    ] {
        let parts = [
            &format!("{} '{second}' overlaps", options[1]),
            &format!("{} '{first}'", options[0]),
        ];
        let parts = parts.map(String::as_str);
        is_usage_error(&[options[0], first, options[1], second], &parts);
        is_usage_error(&[options[1], second, options[0], first], &["overlaps"]);
    }
    // Also with the default of --listen, and whatever stands between.
    is_usage_error(
        &["--metrics-listen", "[::]:18898"],
        &["--metrics-listen '[::]:18898'", "--listen '0.0.0.0:18898'"],
    );
    is_usage_error(
        &["-l", "[::1]:1", "-l", "127.0.0.1:1", "-l", "[::]:1"],
        &["--listen '[::]:1' overlaps --listen '[::1]:1'"],
    );
    for apart in [
        ["--listen=0.0.0.0:1", "--listen=[::1]:1"],
        ["--listen=127.0.0.1:1", "--listen=127.0.0.2:1"],
        ["--listen=127.0.0.1:1", "--metrics-listen=127.0.0.2:1"],
        ["--listen=0.0.0.0:1", "--metrics-listen=0.0.0.0:2"],
        ["--listen=[fe80::1%1]:1", "--listen=[fe80::1%2]:1"],
    ] {
        let (code, _, stderr) = run(&[apart[0], apart[1], "--check-config"]);
        assert_eq!(code, Some(0), "{apart:?}: {stderr}");
    }
    let listen =
        |count| (1..=count).flat_map(|port| ["--listen".to_string(), format!("0.0.0.0:{port}")]);
    is_usage_error(
        &listen(17).collect::<Vec<_>>(),
        &["--listen", "0.0.0.0:17", "up to 16"],
    );
    let most: Vec<_> = listen(16).chain(["--check-config".to_string()]).collect();
    assert_eq!(run(&most).0, Some(0));

    is_usage_error(
        &["--max-age", "1s"],
        &["--max-age", "1s", "interval + timeout, 4s"],
    );
    is_usage_error(&["--max-age", "3999ms"], &["--max-age", "3.999s"]);
    for args in [
        &["--fast-interval", "1001ms"][..],
        &["--interval", "1s", "--fast-interval", "1.001s"],
    ] {
        is_usage_error(args, &["--fast-interval", "1.001s", "--interval", "1s"]);
    }
    // The limits themselves are allowed.
    for (option, least, most) in [
        ("--interval", "10ms", "60m"),
        ("--fast-interval", "10ms", "1s"),
        ("--timeout", "1ms", "1m"),
        ("--max-age", "4s", "240m"),
    ] {
        for value in [least, most] {
            let (code, _, stderr) = run(&[option, value, "--check-config"]);
            assert_eq!(code, Some(0), "{option} {value}: {stderr}");
        }
    }
    is_usage_error(&["--once", "--check-config"], &["--once", "--check-config"]);
    is_usage_error(
        &["--method", "HEAD", "--expect-body", "ok"],
        &["--expect-body", "HEAD"],
    );
    is_usage_error(
        &["--header", "Host: a", "--header", "host: b"],
        &["--header", "host", "twice"],
    );
    for own in [
        "Connection: keep-alive",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        "upgrade: h2c",
    ] {
        is_usage_error(&["--header", own], &["--header", "the probe's own"]);
    }
}

/// What --check-config prints for a name, and the lines below the settings.
fn check_config(args: &[&str]) -> (impl Fn(&str) -> String + use<>, String) {
    let args: Vec<_> = args.iter().copied().chain(["--check-config"]).collect();
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
    let (settings, times) = stdout.split_once("\n\n").expect("settings and times");
    let settings = settings.to_string();
    let value = move |name: &str| {
        let line = settings
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name));
        line.expect("a setting")
            .split_once(' ')
            .unwrap()
            .1
            .trim_start()
            .to_string()
    };
    (value, times.to_string())
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let (value, times) = check_config(&[]);
    let (_, help, _) = run(&["--help"]);
    let shown = [
        ("url", "http://localhost:1936/healthz/ready"),
        ("listen", "0.0.0.0:18898"),
        ("interval", "1s"),
        ("timeout", "3s"),
        ("rise", "1"),
        ("fall", "2"),
        ("expect-status", "200"),
        ("method", "GET"),
        ("log-level", "info"),
    ];
    for (name, default) in shown {
        assert_eq!(value(name), default);
        let at = help.find(&format!("--{name} ")).expect("in the help");
        let bracket = help[at..]
            .find(&format!("[{default}]"))
            .expect("the default in the help");
        assert!(
            !help[at..at + bracket].contains("\n      --"),
            "--{name}: [{default}] is of another option"
        );
    }
    assert_eq!(value("fast-interval"), "100ms");
    assert_eq!(value("max-age"), "8s");
    for off in ["expect-body", "header", "drain-file", "metrics-listen"] {
        assert_eq!(value(off), "off");
    }
    assert!(times.contains("closes 1.1s after a bad answer"), "{times}");
    assert!(times.contains("closes 7s after a hang"), "{times}");
    assert!(times.contains("opens 1s after a good answer"), "{times}");
    assert!(times.contains("closes 8s after the last probe"), "{times}");
    // A shorter interval is as fast as it goes.
    let (value, _) = check_config(&["--interval", "20ms"]);
    assert_eq!(value("fast-interval"), "20ms");
}

#[test]
fn the_worst_cases_add_up() {
    let adds_up = |args: &str, bad, hang, good| {
        let args: Vec<_> = args.split(' ').collect();
        let (_, times) = check_config(&args);
        for line in [
            format!("closes {bad} after a bad answer"),
            format!("closes {hang} after a hang"),
            format!("opens {good} after a good answer"),
        ] {
            assert!(times.contains(&line), "{args:?}: {line} is not in {times}");
        }
    };
    let args = "--interval 2s --timeout 1s --fall 3 --rise 2";
    adds_up(args, "2.2s", "5s", "2.1s");
    // The timeout is shorter than the fast interval, which then sets the pace.
    let args = "--interval 2s --fast-interval 2s --timeout 1s --fall 3 --rise 2";
    adds_up(args, "6s", "7s", "4s");
    // As first published: no count, no fast interval.
    adds_up("--timeout 500ms --fall 1", "1s", "1.5s", "1s");
}

#[test]
fn right_values_are_taken() {
    let (value, _) = check_config(&[
        "-u",
        "http://[::1]:8080/a/b?c=d",
        "-l[::]:18898",
        "-l",
        "127.0.0.1:1",
        "-i=1.5s",
        "--fast-interval=1.5s",
        "-t10ms",
        "--rise=100",
        "--fall",
        "2",
        "--expect-status",
        "200,204,300-399",
        "--expect-body",
        "- ok -",
        "--header",
        "Host: router",
        "--header",
        "Authorization:Bearer secret",
        "--drain-file",
        "/run/drain",
        "--max-age",
        "2m",
        "--log-level",
        "trace",
    ]);
    assert_eq!(value("url"), "http://[::1]:8080/a/b?c=d");
    assert_eq!(value("listen"), "[::]:18898, 127.0.0.1:1");
    assert_eq!(value("interval"), "1.5s");
    assert_eq!(value("fast-interval"), "1.5s");
    assert_eq!(value("timeout"), "10ms");
    assert_eq!(
        (value("rise"), value("fall")),
        ("100".to_string(), "2".to_string())
    );
    assert_eq!(value("expect-status"), "200,204,300-399");
    assert_eq!(value("expect-body"), "- ok -");
    assert_eq!(
        value("header"),
        "host, authorization",
        "a secret must not be printed"
    );
    assert_eq!(value("drain-file"), "/run/drain");
    assert_eq!(value("max-age"), "120s");
    assert_eq!(value("log-level"), "trace");
    // The last of an option that is not repeatable counts, so that a line can be
    // extended: HEALTHPORT_OPTS after the unit's own options.
    let (value, _) = check_config(&["--rise", "2", "--rise", "3"]);
    assert_eq!(value("rise"), "3");
}

#[test]
fn every_word_is_taken() {
    let levels = ["error", "warn", "info", "debug", "trace"];
    for (option, words) in [("method", &["GET", "HEAD"][..]), ("log-level", &levels)] {
        for word in words {
            let argument = format!("--{option}={word}");
            let (value, _) = check_config(&[&argument]);
            assert_eq!(value(option), *word);
        }
    }
}

#[test]
fn once_is_one_probe() {
    // Nobody listens on port 1.
    let (code, stdout, _) = run(&["--once", "--url", "http://127.0.0.1:1/"]);
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("connect: "), "{stdout}");
}

#[test]
fn help_and_version_go_to_stdout() {
    for args in [["-h"], ["--help"]] {
        let (code, stdout, stderr) = run(&args);
        assert_eq!(
            (code, stdout.as_str(), stderr.as_str()),
            (Some(0), healthport::cli::HELP, "")
        );
    }
    let version = concat!("healthport ", env!("CARGO_PKG_VERSION"), "\n");
    for args in [["-V"], ["--version"]] {
        assert_eq!(run(&args), (Some(0), version.to_string(), String::new()));
    }
    assert_eq!(run(&["--version", "--help"]).1, healthport::cli::HELP);
    for line in healthport::cli::HELP.lines() {
        assert!(line.len() <= 80, "does not fit on a terminal: {line}");
    }
}

/// One argument is at most 128 KiB: no length makes a panic.
#[test]
fn long_values_are_errors_not_panics() {
    let long = "9".repeat(100_000);
    let url = format!("http://localhost/{long}");
    for option in [
        "--url",
        "--listen",
        "--interval",
        "--rise",
        "--expect-status",
        "--header",
    ] {
        let value = if option == "--url" { &url } else { &long };
        let (code, stdout, stderr) = run(&[option, value]);
        assert_eq!(
            (code, stdout.as_str(), stderr.lines().count()),
            (Some(64), "", 2),
            "{option}"
        );
    }
    let many: Vec<OsString> = vec!["--rise=1".into(); 5_000];
    assert_eq!(
        run(&[many, vec!["--check-config".into()]].concat()).0,
        Some(0)
    );
}
