//! The command line of the real binary: what it says that it accepts, wrong values of
//! every option, and what right ones resolve to.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::common::help::{self, Entry};
use crate::common::run;
use healthport::options::HELP;

/// What --check-config prints without other options.
const DEFAULTS: &str = "\
url            http://localhost:1936/healthz/ready
listen         0.0.0.0:18898
interval       1s
fast-interval  100ms
timeout        10s
rise           1
fall           2
expect-status  200
expect-body    off
method         GET
header         off
drain-file     off
max-age        4s
metrics-listen off
log-level      info

worst-case times, each plus the duration of one answered probe (a probe that
takes longer than its interval counts in place of the interval):
closes 1.1s after a bad answer
closes 21s after a hang
opens 1s after a good answer
closes 4s after the loop stands still
";

/// The option, a part of what its error says is allowed, and values that it must refuse,
/// separated by `|`.
#[rustfmt::skip] // a table
const WRONG: &[(&str, &str, &str)] = &[
    ("--url", "a URL like http://HOST[:PORT]/PATH",
        "|https://localhost:6443/readyz|localhost:1936|/healthz/ready|http://|\
         http:///healthz|http://:1936/|ftp://localhost/|http://localhost:0/|\
         http://localhost:65536/|http://localhost:99999/|http://localhost:/|\
         http://localhost:x/|http://[::1/|http://user@localhost/|\
         http://user:secret@localhost/|http://localhost/#ready|http://local host/|\
         http://localhost/\n"),
    // getaddrinfo would accept those from 127.1/ on as addresses.
    ("--url", "names are not looked up; to send a name, use --header 'Host: NAME'",
        "http://router.example/healthz/ready|http://router.example:1936/|\
         http://localhost./|http://localhost.localdomain/|http://127.1/|\
         http://2130706433/|http://0x7f.0.0.1/|http://127.0.0.01/|http://[127.0.0.1]/|\
         http://[fe80::1%2]/"),
    ("--listen", "an IP address and a port",
        "|18898|:18898|0.0.0.0|0.0.0.0:|0.0.0.0:0|0.0.0.0:65536|localhost:18898|\
         ::18898|*:18898|256.0.0.1:18898|[fe80::1%eth0]:18898|224.0.0.1:18898|\
         239.255.255.255:18898|255.255.255.255:18898|[ff02::1]:18898|\
         [::ffff:224.0.0.1]:18898"),
    ("--interval", "a number with its unit (ms, s or m), from 10ms to 60m",
        "|1|s|-1s|+1s|1 s|1e3s|1..5s|.5s|1.s|1.0000000000s|1h|1S|infs|0s|9ms|9.999ms|\
         60.1m|99999999999999999999999m"),
    ("--fast-interval", "from 10ms to 60m", "|1|9ms|61m"),
    ("--timeout", "from 1ms to 1m", "|500|0ms|0.5ms|61s"),
    ("--rise", "a whole number from 1 to 100", "|0|101|-1|+1|1.0|two"),
    ("--fall", "a whole number from 1 to 100", "|0|101|99999999999"),
    ("--expect-status", "codes and ranges from 200 to 599",
        "|ok|20|0200|+200|100|600|200,|200, 204|299-200|200-|200-299-399"),
    ("--expect-body", "a non-empty text", ""),
    ("--method", "GET or HEAD", "|get|POST|OPTIONS"),
    ("--header", "'NAME: VALUE' on one line",
        "|X-Probe|: value|X-Probe:|X-Probe: |X Probe: 1|X-Probe: 1\nX-Other: 2|\
         X-Probe: 1\r\nX-Other: 2|X-Probe\n: 1|X-Probe: \u{7}"),
    ("--drain-file", "an absolute path", "|router.drain|./router.drain|../etc/router.drain"),
    ("--max-age", "from 2s to 240m, since the loop moves once a second", "|4|1s|1999ms|241m"),
    ("--metrics-listen", "an IP address and a port", "|9100|0.0.0.0:0|224.0.0.1:9100"),
    ("--log-level", "error, warn, info, debug or trace", "|off|INFO|Info|3"),
];

/// Exit code 64, nothing on stdout, one line with all of `parts`, and the hint.
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

/// The options that take a value, and their names.
fn settings() -> impl Iterator<Item = (Entry, String)> {
    let entries = help::entries().into_iter();
    let settings = entries.filter(|entry| !entry.argument.is_empty());
    settings.map(|entry| {
        let option = format!("--{}", entry.name);
        (entry, option)
    })
}

#[test]
fn every_wrong_value_is_named() {
    for (option, allowed, values) in WRONG {
        for value in values.split('|') {
            let shown = format!("{value:?}");
            is_usage_error(&[*option, value], &[option, &shown, allowed]);
        }
    }
}

/// No value, one that is not UTF-8, and one that is nearly as long as Linux allows, 128 KiB.
#[test]
fn wrong_values_name_option_and_range() {
    let (broken, long) = (OsStr::from_bytes(b"a\xffb"), "9".repeat(100_000));
    for (entry, option) in settings() {
        let is_in_the_table = WRONG.iter().any(|(wrong, ..)| *wrong == option);
        assert!(is_in_the_table, "{option}: no wrong value is tried");
        is_usage_error(&[&option], &[&option, "needs a value"]);
        let parts = [&option, r#""a\xFFb""#, "it takes"];
        is_usage_error(&[OsStr::new(&option), broken], &parts);
        if option != "--expect-body" {
            is_usage_error(&[&option, &long], &[&option]);
        }
        if let Some(short) = &entry.short {
            is_usage_error(&[short.as_str(), "\n"], &[&option, r#""\n""#, "it takes"]);
            is_usage_error(&[short], &[&option, "needs a value"]);
        }
    }
    is_usage_error(&["--url", &format!("http://localhost/{long}")], &["--url"]);
    is_usage_error(&[broken], &["unexpected argument \"a\\xFFb\""]);
    is_usage_error(&[OsStr::from_bytes(b"--ur\xff")], &["unknown option"]);
    is_usage_error(&[OsStr::from_bytes(b"-\xff")], &["unknown option"]);
    check_config(&vec!["--rise=1"; 5_000]);
}

#[test]
fn what_is_not_an_option_is_an_error() {
    let commands = help::entries().into_iter();
    for command in commands.filter(|entry| entry.argument.is_empty()) {
        for (value, shown) in [("x", r#""x""#), ("", r#""""#)] {
            let given = format!("--{}={value}", command.name);
            is_usage_error(&[given], &[&command.name, shown, "it takes no value"]);
        }
    }
    for (args, part) in [
        (&["--frobnicate"][..], "unknown option '--frobnicate'"),
        (&["--frobnicate=1"], "unknown option '--frobnicate'"),
        (&["--inter\nval", "1s"], "unknown option '--inter\\nval'"),
        (&["-x"], "unknown option '-x'"),
        (&["-\n"], "unknown option '-\\n'"),
        (&["start"], "unexpected argument \"start\""),
        (&["-"], "unexpected argument \"-\""),
        (&["--", "--once"], "unexpected argument \"--once\""),
        (&[""], "unexpected argument \"\""),
        // --help does not hide an error elsewhere on the line.
        (&["--help", "--rise", "0"], "--rise \"0\""),
        (&["--rise", "0", "--help"], "--rise \"0\""),
    ] {
        is_usage_error(args, &[part]);
    }
}

#[test]
fn options_that_do_not_go_together() {
    for (line, parts) in [
        // The default of --listen counts, and addresses need not be neighbours.
        (
            "--metrics-listen [::]:18898",
            ["--metrics-listen '[::]:18898'", "--listen '0.0.0.0:18898'"],
        ),
        (
            "-l [::1]:1 -l 127.0.0.1:1 -l [::]:1",
            ["--listen '[::]:1' overlaps", "--listen '[::1]:1'"],
        ),
        // Each would be half the truth.
        ("--url http://[::1]/ -u http://[::1]/", ["--url", "twice"]),
        ("--fast-interval 1001ms", ["1.001s", "--interval '1s'"]),
        (
            "--interval 1s --fast-interval 1.001s",
            ["--fast-interval", "--interval '1s'"],
        ),
        ("--once --check-config", ["--once", "--check-config"]),
        ("--method HEAD --expect-body ok", ["--expect-body", "HEAD"]),
        ("--header Host:a --header host:b", ["--header", "twice"]),
    ] {
        is_usage_error(&line.split(' ').collect::<Vec<_>>(), &parts);
    }
    let own = "Connection Content-Length Transfer-Encoding Expect upgrade";
    for own in own.split(' ') {
        let header = format!("--header={own}: x");
        is_usage_error(&[header], &["--header", "set by the probe itself"]);
    }
    let listen = |count| (1..=count).map(|port| format!("--listen=0.0.0.0:{port}"));
    let many: Vec<_> = listen(17).collect();
    is_usage_error(&many, &["--listen", "0.0.0.0:17", "up to 16"]);
    check_config(&many[..16]);
}

/// What --check-config prints: the settings, and the times below them.
fn check_config<S: AsRef<OsStr>>(args: &[S]) -> (String, String) {
    let args = args.iter().map(AsRef::as_ref);
    let args: Vec<_> = args.chain([OsStr::new("--check-config")]).collect();
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
    let (settings, times) = stdout.split_once("\n\n").expect("settings and times");
    (settings.to_string(), times.to_string())
}

/// The line of a setting, as --check-config prints it.
fn line(name: &str, value: &str) -> String {
    format!("{name:14} {value}")
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let printed = (Some(0), DEFAULTS.to_string(), String::new());
    assert_eq!(run(&["--check-config"]), printed);
    // A shorter interval is the fast interval too.
    let (settings, _) = check_config(&["--interval", "20ms"]);
    assert!(settings.contains(&line("fast-interval", "20ms")));
}

#[test]
fn the_worst_cases_add_up() {
    // In the second, the timeout is shorter than the fast interval, which sets the pace.
    for (args, [bad, hang, good]) in [
        ("-i2s -t1s --fall=3 --rise=2", ["2.2s", "5s", "2.1s"]),
        (
            "-i2s -t1s --fall=3 --rise=2 --fast-interval=2s",
            ["6s", "7s", "4s"],
        ),
        ("-t500ms --fall=1", ["1s", "1.5s", "1s"]),
    ] {
        let (_, times) = check_config(&args.split(' ').collect::<Vec<_>>());
        let wanted = format!(
            "closes {bad} after a bad answer\ncloses {hang} after a hang\n\
             opens {good} after a good answer\n"
        );
        assert!(times.contains(&wanted), "{args}: {times}");
    }
}

/// An option, a value, and how --check-config shows it.
const RIGHT: &[(&str, &str, &str)] = &[
    ("--url", "http://[::1]:8080/?c=d", "http://[::1]:8080/?c=d"),
    ("--listen", "[::]:18898", "[::]:18898"),
    ("--interval", "1.5s", "1.5s"),
    ("--interval", "60m", "3600s"),
    ("--fast-interval", "10ms", "10ms"),
    ("--fast-interval", "1s", "1s"),
    ("--timeout", "1ms", "1ms"),
    ("--timeout", "1m", "60s"),
    ("--rise", "2", "2"),
    ("--rise", "100", "100"),
    ("--fall", "1", "1"),
    ("--fall", "100", "100"),
    ("--expect-status", "200,204,300-399", "200,204,300-399"),
    ("--expect-status", "599", "599"),
    ("--expect-body", "- ok -", "- ok -"),
    ("--method", "HEAD", "HEAD"),
    // The value may be a secret.
    ("--header", "Authorization:Bearer secret", "authorization"),
    ("--drain-file", "/run/drain", "/run/drain"),
    ("--max-age", "2s", "2s"),
    ("--max-age", "240m", "14400s"),
    ("--metrics-listen", "127.0.0.1:1", "127.0.0.1:1"),
    ("--log-level", "error", "error"),
    ("--log-level", "warn", "warn"),
    ("--log-level", "debug", "debug"),
    ("--log-level", "trace", "trace"),
];

#[test]
fn each_right_value_changes_its_setting_and_no_other() {
    let (defaults, _) = DEFAULTS.split_once("\n\n").unwrap();
    for (entry, option) in settings() {
        // The text of the default of --fast-interval is no value.
        let default = entry.default().unwrap_or("off").split(',').next().unwrap();
        let default = line(&entry.name, default);
        assert!(defaults.contains(&default), "--help says {default}");
        let mut tried = 0;
        for (_, value, shown) in RIGHT.iter().filter(|(right, ..)| *right == option) {
            let expected = defaults.replace(&default, &line(&entry.name, shown));
            let short = entry.short.iter().map(|short| format!("{short}{value}"));
            for given in short.chain([format!("{option}={value}")]) {
                assert_eq!(check_config(&[&given]).0, expected, "{given}");
            }
            tried += 1;
        }
        assert!(tried > 0, "{option}: no right value is tried");
    }
}

#[test]
fn repeated_and_extreme_values_are_taken() {
    let (settings, _) = check_config(&[
        "-l[::]:18898",
        "-l=127.0.0.1:1",
        "--header=Host: router",
        "--header=Authorization:Bearer secret",
        // The last value of an option that is not repeatable wins, so that a line can be
        // extended: the unit puts HEALTHPORT_OPTS after its own options.
        "--rise=2",
        "--rise=3",
    ]);
    for (name, value) in [
        ("listen", "[::]:18898, 127.0.0.1:1"),
        ("header", "host, authorization"),
        ("rise", "3"),
    ] {
        assert!(settings.contains(&line(name, value)), "{settings}");
    }
    // Every limit that --help shows, with the longest interval for --fast-interval.
    for (entry, option) in self::settings() {
        for range in entry.ranges() {
            let (least, most) = range.split_once(" to ").unwrap();
            for limit in [least, most] {
                check_config(&["--interval=60m", &option, limit]);
            }
        }
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = (Some(0), HELP.to_string(), String::new());
    for args in [&["-h"][..], &["--help"], &["--version", "--help"]] {
        assert_eq!(run(args), help);
    }
    let version = concat!("healthport ", env!("CARGO_PKG_VERSION"), "\n");
    for args in [["-V"], ["--version"]] {
        assert_eq!(run(&args), (Some(0), version.to_string(), String::new()));
    }
    assert!(HELP.lines().all(|line| line.len() <= 80), "on a terminal");
}
