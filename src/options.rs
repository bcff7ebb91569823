//! The command line. Parsing validates everything and opens nothing; its result needs no
//! further check. man/healthport.8 is the reference. An option stands in four places,
//! which tests compare: [`HELP`], the `match` of [`parse`], what --check-config prints,
//! and the man page.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use lexopt::Arg::{Long, Short, Value};
use lexopt::Parser;
use ureq::http::{HeaderName, Method, header};

use crate::config::Config;
use crate::dial;
use crate::values;

/// What --help prints.
pub const HELP: &str = "\
healthport: opens a TCP port only while an HTTP health endpoint says ready

usage: healthport [OPTIONS]

  -u, --url URL               what to probe: plain HTTP, IP address or localhost
                              [http://localhost:1936/healthz/ready]
  -l, --listen ADDR:PORT      the port to open, up to 16 times [0.0.0.0:18898]
  -i, --interval DURATION     from one probe to the next, 10ms to 60m [1s]
      --fast-interval DURATION  while a change is being counted, 10ms to 60m
                              [100ms, or the interval where that is shorter]
  -t, --timeout DURATION      limit for a whole probe, 1ms to 1m [10s]
      --rise N                good probes in a row to open, 1 to 100 [1]
      --fall N                bad probes in a row to close, 1 to 100 [2]
      --expect-status LIST    good status codes, like 200,204,300-399 [200]
      --expect-body TEXT      the first 10 KiB of the body must contain TEXT
      --method METHOD         GET or HEAD [GET]
      --header 'NAME: VALUE'  extra header, repeatable; Host replaces the URL's
      --drain-file PATH       absolute path; the port is closed while it exists
      --max-age DURATION      how long the loop may stand still, 2s to 240m [4s]
      --metrics-listen ADDR:PORT  serve /metrics, /livez and /readyz there [off]
      --once                  probe once, print the result, exit 0 or 1
      --check-config          print the settings and worst-case times, exit 0
      --log-level LEVEL       error, warn, info, debug or trace [info]
  -h, --help                  print this and exit
  -V, --version               print the version and exit

A DURATION needs a unit: ms, s or m. SIGUSR1 logs the state.
Everything else is in healthport(8).
";

/// What --check-config prints.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values of headers may be secrets.
        let names: Vec<_> = self.header.iter().map(|(name, _)| name.as_str()).collect();
        let drain_file = self.drain_file.as_ref().map(|path| path.display());
        writeln!(f, "url            {}", self.url)?;
        writeln!(f, "listen         {}", self.ports())?;
        writeln!(f, "interval       {:?}", self.interval)?;
        writeln!(f, "fast-interval  {:?}", self.fast_interval())?;
        writeln!(f, "timeout        {:?}", self.timeout)?;
        writeln!(f, "rise           {}", self.rise)?;
        writeln!(f, "fall           {}", self.fall)?;
        writeln!(f, "expect-status  {}", self.expect_status)?;
        writeln!(f, "expect-body    {}", or_off(self.expect_body.as_ref()))?;
        writeln!(f, "method         {}", self.method)?;
        writeln!(
            f,
            "header         {}",
            or_off((!names.is_empty()).then(|| names.join(", ")))
        )?;
        writeln!(f, "drain-file     {}", or_off(drain_file))?;
        writeln!(f, "max-age        {:?}", self.max_age)?;
        writeln!(f, "metrics-listen {}", or_off(self.metrics_listen))?;
        writeln!(
            f,
            "log-level      {}",
            self.log_level.as_str().to_lowercase()
        )?;
        write!(f, "\n{}", self.worst_cases())
    }
}

fn or_off(setting: Option<impl fmt::Display>) -> String {
    setting.map_or("off".to_string(), |setting| setting.to_string())
}

/// What the command line asks for. If it asks for several, the one furthest down wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Command {
    Run,
    CheckConfig,
    Once,
    Version,
    Help,
}

// What options take, in the words of their errors.
const URL: &str = "a URL like http://HOST[:PORT]/PATH (plain HTTP, no TLS)";
const ADDRESS: &str =
    "an IP address and a port, like 0.0.0.0:18898 or [::]:18898, not multicast or broadcast";
const STATUS: &str = "codes and ranges from 200 to 599, like 200,204,300-399";
const HEADER: &str = "'NAME: VALUE' on one line";
const LEVEL: &str = "error, warn, info, debug or trace";

const COUNT: RangeInclusive<u32> = 1..=100;
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const MAX_AGE: RangeInclusive<Duration> = MIN_MAX_AGE..=Duration::from_secs(4 * 3600);
/// Two beats of the loop, which renews the lease once a second: with one, a healthy
/// service on a busy machine would lose its port.
const MIN_MAX_AGE: Duration = Duration::from_secs(2);

/// Parses the arguments, without the program's name.
///
/// # Errors
/// A line that names the option, the value and what is allowed.
#[rustfmt::skip] // a table, one line per option
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<(Command, Config), String> {
    let mut config = Config::default();
    let (mut url, mut listen, mut commands) = (None, Vec::new(), Vec::new());
    let mut parser = Parser::from_args(args);
    let p = &mut parser;
    while let Some(arg) = p.next().map_err(|error| error.to_string())? {
        match arg {
            Short('u') | Long("url") if url.is_some() => return Err("--url is given twice: run one instance per URL".to_string()),
            Short('u') | Long("url") => url = Some(value(p, "url", URL, values::url)?),
            Short('l') | Long("listen") => listen.push(value(p, "listen", ADDRESS, values::address)?),
            Short('i') | Long("interval") => config.interval = time(p, "interval", INTERVAL)?,
            Long("fast-interval") => config.fast_interval = Some(time(p, "fast-interval", INTERVAL)?),
            Short('t') | Long("timeout") => config.timeout = time(p, "timeout", TIMEOUT)?,
            Long("rise") => config.rise = count(p, "rise")?,
            Long("fall") => config.fall = count(p, "fall")?,
            Long("expect-status") => config.expect_status = value(p, "expect-status", STATUS, |text| text.parse().ok())?,
            Long("expect-body") => config.expect_body = Some(value(p, "expect-body", "a non-empty text", values::text)?),
            Long("method") => config.method = value(p, "method", "GET or HEAD", values::method)?,
            Long("header") => config.header.push(value(p, "header", HEADER, values::http_header)?),
            Long("drain-file") => config.drain_file = Some(value(p, "drain-file", "an absolute path", values::path)?),
            Long("max-age") => config.max_age = time(p, "max-age", MAX_AGE).map_err(|error| error + ", since the loop moves once a second")?,
            Long("metrics-listen") => config.metrics_listen = Some(value(p, "metrics-listen", ADDRESS, values::address)?),
            Long("once") => commands.push(command(p, "once", Command::Once)?),
            Long("check-config") => commands.push(command(p, "check-config", Command::CheckConfig)?),
            Long("log-level") => config.log_level = value(p, "log-level", LEVEL, values::level)?,
            Short('h') | Long("help") => commands.push(command(p, "help", Command::Help)?),
            Short('V') | Long("version") => commands.push(command(p, "version", Command::Version)?),
            Short(letter) => return Err(format!("unknown option '-{}'", letter.escape_debug())),
            Long(name) => return Err(format!("unknown option '--{}'", name.escape_debug())),
            Value(value) => return Err(format!("unexpected argument {value:?}: only options are allowed")),
        }
    }
    config.url = url.unwrap_or(config.url);
    if !listen.is_empty() {
        config.listen = listen;
    }
    check(&config)?;
    if commands.contains(&Command::Once) && commands.contains(&Command::CheckConfig) {
        return Err("--once cannot be used with --check-config: choose one".to_string());
    }
    let command = commands.into_iter().max();
    Ok((command.unwrap_or(Command::Run), config))
}

/// The value of an option, if `parse` takes it.
fn value<T>(
    parser: &mut Parser,
    name: &str,
    allowed: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, String> {
    let Ok(value) = parser.value() else {
        return Err(format!("--{name} needs a value: {allowed}"));
    };
    let parsed = value.to_str().and_then(parse);
    parsed.ok_or_else(|| not_allowed(name, &value, allowed))
}

fn time(
    parser: &mut Parser,
    name: &str,
    range: RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let limit = |limit: &Duration| match limit.as_secs() / 60 {
        0 => format!("{limit:?}"),
        minutes => format!("{minutes}m"),
    };
    let (least, most) = (limit(range.start()), limit(range.end()));
    let allowed = format!("a number with its unit (ms, s or m), from {least} to {most}");
    let parse = |text: &str| values::duration(text).filter(|time| range.contains(time));
    value(parser, name, &allowed, parse)
}

fn count(parser: &mut Parser, name: &str) -> Result<u32, String> {
    let allowed = format!("a whole number from {} to {}", COUNT.start(), COUNT.end());
    let parse = |text: &str| values::count(text).filter(|count| COUNT.contains(count));
    value(parser, name, &allowed, parse)
}

/// An option that takes no value.
fn command(parser: &mut Parser, name: &str, command: Command) -> Result<Command, String> {
    match parser.optional_value() {
        Some(value) => Err(not_allowed(name, &value, "no value")),
        None => Ok(command),
    }
}

fn not_allowed(name: &str, value: &OsStr, allowed: &str) -> String {
    format!("--{name} {value:?} is not allowed: it takes {allowed}")
}

const MAX_LISTEN: usize = 16;

/// Headers that decide what a request is or what happens to the connection. With
/// another value, the probe would no longer be one plain exchange.
const OWN_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Checks what involves more than one value or deserves an error of its own.
fn check(config: &Config) -> Result<(), String> {
    if dial::addresses(&config.url).is_none() {
        return Err(format!(
            "--url {:?} is not allowed: its host must be an IP address or localhost, since names \
             are not looked up; to send a name, use --header 'Host: NAME'",
            config.url.to_string()
        ));
    }
    if let Some(address) = config.listen.get(MAX_LISTEN) {
        return Err(format!(
            "--listen '{address}' is not allowed: there can be up to {MAX_LISTEN} of them"
        ));
    }
    let ports = config.listen.iter().map(|port| ("listen", port));
    let metrics = config.metrics_listen.iter();
    let ports: Vec<_> = ports
        .chain(metrics.map(|port| ("metrics-listen", port)))
        .collect();
    for (position, (option, port)) in ports.iter().enumerate() {
        let mut before = ports[..position].iter();
        if let Some((_, first)) = before.find(|(_, first)| values::overlap(first, port)) {
            return Err(format!(
                "--{option} '{port}' overlaps --listen '{first}': two sockets cannot share a port"
            ));
        }
    }
    let (interval, fast_interval) = (config.interval, config.fast_interval());
    if fast_interval > interval {
        return Err(format!(
            "--fast-interval '{fast_interval:?}' is longer than --interval '{interval:?}': probes would slow down while a change is being counted"
        ));
    }
    let names = || config.header.iter().map(|(name, _)| name);
    if let Some(name) = names().find(|name| OWN_HEADERS.contains(name)) {
        return Err(format!(
            "--header '{name}' is set by the probe itself: any other is allowed"
        ));
    }
    if names().filter(|name| *name == header::HOST).count() > 1 {
        return Err("--header 'host' is given twice: one is allowed".to_string());
    }
    if config.method == Method::HEAD && config.expect_body.is_some() {
        return Err(
            "--expect-body cannot be used with --method 'HEAD': the answer has no body".to_string(),
        );
    }
    Ok(())
}
