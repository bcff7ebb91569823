//! The command line. Parsing validates everything and opens nothing; what it
//! returns can be used without another check. man/healthport.8 is the reference.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Arg;
use log::LevelFilter;
use ureq::http::{HeaderName, HeaderValue, Method, Uri, header};

use crate::config::{Config, default_fast_interval, default_max_age};
use crate::dial;

/// What --help prints.
pub const HELP: &str = "\
healthport: opens a TCP port only while an HTTP health endpoint says ready

usage: healthport [OPTIONS]

  -u, --url URL               what to probe, plain HTTP; no name but localhost
                              [http://localhost:1936/healthz/ready]
  -l, --listen ADDR:PORT      the port to open, up to 16 times [0.0.0.0:18898]
  -i, --interval DURATION     from probe to probe, 10ms to 60m [1s]
      --fast-interval DURATION  while a change is being counted, 10ms to 60m
                              [100ms, or the interval where that is shorter]
  -t, --timeout DURATION      for a whole probe, 1ms to 1m [3s]
      --rise N                good probes in a row to open, 1 to 100 [1]
      --fall N                bad probes in a row to close, 1 to 100 [2]
      --expect-status LIST    good codes and ranges: 200,204,300-399 [200]
      --expect-body TEXT      the first 10 KiB of the body must contain TEXT
      --method METHOD         GET or HEAD [GET]
      --header 'NAME: VALUE'  send it too, repeatable; Host replaces the URL's
      --drain-file PATH       while it exists the port is closed; absolute
      --max-age DURATION      close when no probe has ended for this long
                              [2 x (interval + timeout)]
      --metrics-listen ADDR:PORT  serve /metrics and /livez there [off]
      --once                  probe once, print the result, exit 0 or 1
      --check-config          print the settings and worst-case times, exit 0
      --log-level LEVEL       error, warn, info, debug or trace [info]
  -h, --help                  print this and exit
  -V, --version               print the version and exit

A DURATION carries its unit: ms, s or m. SIGUSR1 logs the state.
Everything else is in healthport(8).
";

const URL: &str = "a URL like http://HOST[:PORT]/PATH (plain HTTP, no TLS)";
const STATUS: &str = "codes and ranges from 200 to 599, like 200,204,300-399";
/// What --listen and --metrics-listen take.
const ADDRESS: &str =
    "an IP address and a port, like 0.0.0.0:18898 or [::]:18898, not multicast or broadcast";

const MAX_LISTEN: usize = 16;
const MAX_MAX_AGE: Duration = Duration::from_secs(4 * 60 * 60);

/// Headers that decide what a request is or how the connection goes on; another
/// value would make the probe something else than one plain exchange.
const OWN_HEADERS: [HeaderName; 5] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Print the configuration.
    CheckConfig(Config),
    /// Probe once.
    Once(Config),
    /// Translate until a signal comes.
    Run(Config),
}

/// A wrong command line: one line without the program's name.
#[derive(Debug, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> UsageError {
        UsageError(error.to_string().escape_debug().to_string())
    }
}

fn wrong<T>(line: impl Into<String>) -> Result<T, UsageError> {
    Err(UsageError(line.into()))
}

/// Parses the arguments, without the program's name.
///
/// # Errors
/// A line that names the option, the value and what is allowed.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut config = Config::default();
    let mut listen = Vec::new();
    let (mut fast_interval, mut max_age) = (None, None);
    let (mut help, mut version, mut once, mut check_config) = (false, false, false, false);
    let mut parser = lexopt::Parser::from_args(args);

    while let Some(arg) = parser.next()? {
        let name = match &arg {
            Arg::Short(letter) => match long_form(*letter) {
                Some(name) => name,
                None => return wrong(format!("unknown option '-{}'", letter.escape_debug())),
            },
            Arg::Long(name) => name,
            Arg::Value(value) => {
                return wrong(format!(
                    "unexpected argument {value:?}: there are only options"
                ));
            }
        };
        let name = name.to_string();
        let mut option = OptionValue {
            name: &name,
            parser: &mut parser,
        };
        match name.as_str() {
            "url" => {
                config.url = option.value(URL, url)?;
                if dial::addresses(&config.url).is_none() {
                    return wrong(format!(
                        "--url {:?} is not allowed: names are not looked up, its host is an IP address \
                         or localhost, and --header 'Host: NAME' sends a name",
                        config.url.to_string()
                    ));
                }
            }
            "listen" => {
                let address = option.value(ADDRESS, address)?;
                listen.push(address);
                if listen.len() > MAX_LISTEN {
                    return wrong(format!(
                        "--listen '{address}' is one too many: up to {MAX_LISTEN} are allowed"
                    ));
                }
            }
            "interval" => config.interval = option.duration(10, 60 * 60 * 1000, "10ms to 60m")?,
            "fast-interval" => {
                fast_interval = Some(option.duration(10, 60 * 60 * 1000, "10ms to 60m")?);
            }
            "timeout" => config.timeout = option.duration(1, 60 * 1000, "1ms to 1m")?,
            "rise" => config.rise = option.count()?,
            "fall" => config.fall = option.count()?,
            "expect-status" => {
                config.expect_status = option.value(STATUS, |list| list.parse().ok())?;
            }
            "expect-body" => {
                config.expect_body = Some(option.value("a text that is not empty", non_empty)?)
            }
            "method" => {
                config.method = option.value("GET or HEAD", |method| match method {
                    "GET" => Some(Method::GET),
                    "HEAD" => Some(Method::HEAD),
                    _ => None,
                })?;
            }
            "header" => {
                let (name, value) = option.value("'NAME: VALUE' on one line", http_header)?;
                if OWN_HEADERS.contains(&name) {
                    return wrong(format!(
                        "--header '{name}' is the probe's own: any other is allowed"
                    ));
                }
                if name == header::HOST
                    && config.headers.iter().any(|(name, _)| name == header::HOST)
                {
                    return wrong("--header 'host' is given twice: one is allowed");
                }
                config.headers.push((name, value));
            }
            "drain-file" => {
                config.drain_file = Some(option.value("an absolute path", absolute)?);
            }
            "max-age" => {
                max_age = Some(option.duration(
                    1,
                    MAX_MAX_AGE.as_millis(),
                    "interval + timeout to 240m",
                )?);
            }
            "metrics-listen" => {
                config.metrics_listen = Some(option.value(ADDRESS, address)?);
            }
            "log-level" => {
                config.log_level =
                    option.value("error, warn, info, debug or trace", |level| match level {
                        "error" => Some(LevelFilter::Error),
                        "warn" => Some(LevelFilter::Warn),
                        "info" => Some(LevelFilter::Info),
                        "debug" => Some(LevelFilter::Debug),
                        "trace" => Some(LevelFilter::Trace),
                        _ => None,
                    })?;
            }
            "once" => once = option.flag()?,
            "check-config" => check_config = option.flag()?,
            "help" => help = option.flag()?,
            "version" => version = option.flag()?,
            _ => return wrong(format!("unknown option '--{}'", name.escape_debug())),
        }
    }

    if !listen.is_empty() {
        config.listen = listen;
    }
    for (position, first) in config.listen.iter().enumerate() {
        let others = config.listen[position + 1..].iter();
        let others = others.map(|other| ("listen", other));
        let metrics = config.metrics_listen.iter();
        let others = others.chain(metrics.map(|other| ("metrics-listen", other)));
        for (option, other) in others {
            if overlap(first, other) {
                return wrong(format!(
                    "--{option} '{other}' overlaps --listen '{first}': two sockets cannot share a port"
                ));
            }
        }
    }
    let interval = config.interval;
    config.fast_interval = fast_interval.unwrap_or(default_fast_interval(interval));
    if config.fast_interval > interval {
        return wrong(format!(
            "--fast-interval '{:?}' is more than --interval '{interval:?}': a change would be counted more slowly than it is looked for",
            config.fast_interval
        ));
    }
    // A --max-age shorter than one cycle would close the port of a healthy service.
    let cycle = interval + config.timeout;
    config.max_age = max_age.unwrap_or(default_max_age(interval, config.timeout));
    if config.max_age < cycle {
        return wrong(format!(
            "--max-age '{:?}' is less than interval + timeout, {cycle:?}: the port would close between two probes",
            config.max_age
        ));
    }
    if config.method == Method::HEAD && config.expect_body.is_some() {
        return wrong("--expect-body cannot be used with --method 'HEAD': the answer has no body");
    }
    if once && check_config {
        return wrong("--once cannot be used with --check-config: choose one");
    }
    Ok(match (help, version, once, check_config) {
        (true, ..) => Command::Help,
        (_, true, ..) => Command::Version,
        (_, _, true, _) => Command::Once(config),
        (_, _, _, true) => Command::CheckConfig(config),
        _ => Command::Run(config),
    })
}

fn long_form(letter: char) -> Option<&'static str> {
    Some(match letter {
        'u' => "url",
        'l' => "listen",
        'i' => "interval",
        't' => "timeout",
        'h' => "help",
        'V' => "version",
        _ => return None,
    })
}

/// The option that is being parsed. Every error about a value is made here, so
/// that each names the option, the value and what is allowed.
struct OptionValue<'a> {
    name: &'a str,
    parser: &'a mut lexopt::Parser,
}

impl OptionValue<'_> {
    fn value<T>(
        &mut self,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, UsageError> {
        let name = self.name;
        let value = self
            .parser
            .value()
            .map_err(|_| UsageError(format!("--{name} needs a value: {allowed}")))?;
        value.to_str().and_then(parse).ok_or_else(|| {
            UsageError(format!(
                "--{name} {value:?} is not allowed: it takes {allowed}"
            ))
        })
    }

    fn count(&mut self) -> Result<u32, UsageError> {
        self.value("a whole number from 1 to 100", |text| match text.parse() {
            Ok(count @ 1..=100) if text.starts_with(|c: char| c.is_ascii_digit()) => Some(count),
            _ => None,
        })
    }

    /// `least` and `most` in milliseconds.
    fn duration(&mut self, least: u128, most: u128, range: &str) -> Result<Duration, UsageError> {
        let allowed = format!("a number with its unit (ms, s or m), from {range}");
        self.value(&allowed, |text| {
            let duration = duration(text)?;
            let in_range = (least * 1_000_000..=most * 1_000_000).contains(&duration.as_nanos());
            in_range.then_some(duration)
        })
    }

    /// An option without a value: `--help=x` is an error.
    fn flag(&mut self) -> Result<bool, UsageError> {
        match self.parser.optional_value() {
            None => Ok(true),
            Some(value) => Err(UsageError(format!(
                "--{} {value:?} is not allowed: it takes no value",
                self.name
            ))),
        }
    }
}

/// A decimal number and a unit: `500ms`, `1.5s`, `2m`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        _ => return None,
    };
    // Nine digits of a second are nanoseconds.
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = u32::try_from(fraction.len())
        .ok()
        .filter(|&digits| digits <= 9)?;
    let whole = u128::from(whole.parse::<u64>().ok()?) * unit;
    let fraction = u128::from(fraction.parse::<u64>().ok()?) * unit / 10_u128.pow(digits);
    u64::try_from(whole + fraction)
        .ok()
        .map(Duration::from_nanos)
}

fn url(text: &str) -> Option<Uri> {
    // Never sent, so it cannot be meant: Uri drops it.
    if text.contains('#') {
        return None;
    }
    let url: Uri = text.parse().ok()?;
    let (host, authority) = (url.host()?, url.authority()?.as_str());
    // What is not a valid port counts as none, and would become port 80. A user
    // name before the host fails here too: it would be sent as a password.
    let port = authority.strip_prefix(host)?;
    let port_is_good = port.is_empty() || url.port_u16().is_some_and(|port| port > 0);
    let is_good = url.scheme_str() == Some("http") && !host.is_empty() && port_is_good;
    is_good.then_some(url)
}

/// One that a TCP connect can reach: the system lets a socket listen on a group or
/// on everybody, and nothing ever comes.
fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    let ip = address.ip().to_canonical();
    let is_one = !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST);
    (address.port() > 0 && is_one).then_some(address)
}

/// Whether a socket on one address keeps another from the same port, or takes its
/// connections: a wildcard covers its family, `[::]` covers IPv4 too.
fn overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    // What --listen '[::ffff:127.0.0.1]:1' opens is 127.0.0.1.
    let (ip, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |ip: IpAddr, other: IpAddr| match ip {
        IpAddr::V4(ip) => ip.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    // A link-local address is another one on every link.
    let same = match (a, b) {
        (SocketAddr::V6(a), SocketAddr::V6(b)) if a.ip().is_unicast_link_local() => {
            a.ip() == b.ip() && a.scope_id() == b.scope_id()
        }
        _ => ip == other,
    };
    a.port() == b.port() && (same || covers(ip, other) || covers(other, ip))
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

/// The working directory is the unit's or the image's, not the operator's.
fn absolute(text: &str) -> Option<PathBuf> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute())
}

fn http_header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    let value = value.trim_matches([' ', '\t']);
    if value.is_empty() {
        return None;
    }
    Some((name.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::overlap;

    #[test]
    fn addresses_that_overlap_on_a_port() {
        for (a, b, expected) in [
            ("127.0.0.1:1", "127.0.0.1:1", true),
            ("127.0.0.1:1", "127.0.0.1:2", false),
            ("127.0.0.1:1", "127.0.0.2:1", false),
            ("127.0.0.1:1", "0.0.0.0:1", true),
            ("127.0.0.1:1", "0.0.0.0:2", false),
            ("127.0.0.1:1", "[::1]:1", false),
            ("127.0.0.1:1", "[::]:1", true),
            ("0.0.0.0:1", "[::]:1", true),
            ("0.0.0.0:1", "0.0.0.0:1", true),
            ("0.0.0.0:1", "[::]:2", false),
            ("0.0.0.0:1", "[::1]:1", false),
            ("[::1]:1", "[::1]:1", true),
            ("[::1]:1", "[::]:1", true),
            ("[::1]:1", "[::2]:1", false),
            ("[::]:1", "[::]:1", true),
            // IPv4 in IPv6's clothes.
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", true),
            ("[::ffff:127.0.0.1]:1", "127.0.0.2:1", false),
            ("[::ffff:127.0.0.1]:1", "0.0.0.0:1", true),
            ("[::ffff:0.0.0.0]:1", "127.0.0.1:1", true),
            ("[::ffff:0.0.0.0]:1", "[::1]:1", false),
            ("[::ffff:127.0.0.1]:1", "[::]:1", true),
            // Scopes tell link-local addresses apart, and no others.
            ("[fe80::1%1]:1", "[fe80::1%2]:1", false),
            ("[fe80::1%1]:1", "[fe80::1%1]:1", true),
            ("[2001:db8::1%1]:1", "[2001:db8::1%2]:1", true),
            ("[fe80::1%1]:1", "[::]:1", true),
        ] {
            let (one, other) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(overlap(&one, &other), expected, "{a} and {b}");
            assert_eq!(overlap(&other, &one), expected, "{b} and {a}");
        }
    }
}
